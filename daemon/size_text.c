#include "daemon/size_text.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
    char letter;
    unsigned shift;
} units[] = {{'K', 10}, {'M', 20}, {'G', 30}, {'T', 40}};

#define UNITS     (sizeof units / sizeof units[0])
#define MAX_BYTES (UINT64_C(1) << 62)

int size_parse(const char *text, uint64_t default_unit, uint64_t *bytes, struct err *err)
{
    const char *start = text;
    while (isspace((unsigned char)*start))
        start++;
    if (!isdigit((unsigned char)*start))
        return err_set(err, 0, "'%.40s' is not a size (write 256MiB, 1GiB or a number)", text);
    /* Digits and one point only: strtod alone would take hexadecimal, exponents and "inf". */
    char number[32];
    size_t length = strspn(start, "0123456789.");
    if (length >= sizeof number)
        return err_set(err, 0, "'%.40s' is too long for a size", text);
    memcpy(number, start, length);
    number[length] = 0;
    char *end;
    double value = strtod(number, &end);
    const char *unit = start + length;
    if (*end)
        return err_set(err, 0, "'%.40s' is not a size (write 256MiB, 1GiB or a number)", text);
    while (isspace((unsigned char)*unit))
        unit++;

    double scale = (double)default_unit;
    if (*unit) {
        scale = 0;
        for (size_t i = 0; i < UNITS; i++) {
            if (toupper((unsigned char)*unit) == units[i].letter &&
                (!unit[1] || !strcasecmp(unit + 1, "B") || !strcasecmp(unit + 1, "iB")))
                scale = (double)(UINT64_C(1) << units[i].shift);
        }
        if (!strcasecmp(unit, "B"))
            scale = 1;
        if (scale == 0)
            return err_set(err, 0, "'%.40s' has no unit known here (KiB, MiB, GiB, TiB)", text);
    }
    double product = value * scale;
    if (product > (double)MAX_BYTES)
        return err_set(err, 0, "'%.40s' is larger than any machine", text);
    if (floor(product) != product)
        return err_set(err, 0, "'%.40s' is not a whole number of bytes", text);
    *bytes = (uint64_t)product;
    return 0;
}

const char *size_format(uint64_t bytes, char text[32])
{
    for (size_t i = UNITS; i-- > 0;) {
        uint64_t unit = UINT64_C(1) << units[i].shift;
        if (bytes < unit)
            continue;
        if (bytes % unit == 0)
            snprintf(text, 32, "%llu %ciB", (unsigned long long)(bytes / unit), units[i].letter);
        else
            snprintf(text, 32, "%.1f %ciB", (double)bytes / (double)unit, units[i].letter);
        return text;
    }
    snprintf(text, 32, "%llu B", (unsigned long long)bytes);
    return text;
}
