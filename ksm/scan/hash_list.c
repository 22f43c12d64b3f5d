#include "ksm/scan/hash_list.h"
#include "ksm/scan/source.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* No list says more than this of one run: 2^32 pages are 16 TiB. */
#define MAX_RUN_PAGES (UINT64_C(1) << 32)

static int bad(char *error, size_t error_bytes, const char *why)
{
    snprintf(error, error_bytes, "%s", why);
    return -1;
}

static int hex_digits(const char *text, int digits, uint64_t *value)
{
    *value = 0;
    for (int i = 0; i < digits; i++) {
        if (!isxdigit((unsigned char)text[i]))
            return -1;
        char digit = (char)tolower((unsigned char)text[i]);
        *value = *value << 4 | (uint64_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    return 0;
}

static int parse_run(const char *text, struct hash_list_run *run, char *error, size_t error_bytes)
{
    const char *rest;
    run->zero = text[0] == '0' && (text[1] == '\0' || text[1] == ' ');
    if (run->zero) {
        run->low = run->high = 0;
        rest = text + 1;
    } else {
        if (hex_digits(text, 16, &run->high) < 0 || hex_digits(text + 16, 16, &run->low) < 0)
            return bad(error, error_bytes, "expected 32 hexadecimal digits, 0, @ADDRESS or source");
        rest = text + 32;
    }
    run->pages = 1;
    if (*rest == '\0')
        return 0;
    char *end;
    if (rest[0] != ' ' || rest[1] != 'x' || !isdigit((unsigned char)rest[2]))
        return bad(error, error_bytes, "expected xCOUNT after the hash");
    errno = 0;
    run->pages = strtoull(rest + 2, &end, 10);
    if (*end || errno || run->pages == 0 || run->pages > MAX_RUN_PAGES)
        return bad(error, error_bytes, "impossible xCOUNT");
    return 0;
}

int hash_list_next(FILE *list, struct hash_list_run *run, unsigned long *line, char *error,
                   size_t error_bytes)
{
    char text[4352];
    while (fgets(text, sizeof text, list)) {
        ++*line;
        size_t length = strlen(text);
        if (length && text[length - 1] != '\n' && !feof(list))
            return bad(error, error_bytes, "line too long");
        while (length && isspace((unsigned char)text[length - 1]))
            text[--length] = '\0';
        if (length == 0 || text[0] == '#' || strncmp(text, "source ", 7) == 0)
            continue;
        if (text[0] == '@') {
            char *end;
            errno = 0;
            uint64_t address = strtoull(text + 1, &end, 16);
            if (!isxdigit((unsigned char)text[1]) || *end || errno || address % SCAN_PAGE_BYTES)
                return bad(error, error_bytes, "expected @ADDRESS, a multiple of 1000 (hex)");
            run->address = address;
            continue;
        }
        return parse_run(text, run, error, error_bytes) < 0 ? -1 : 1;
    }
    if (ferror(list))
        return bad(error, error_bytes, strerror(errno));
    return 0;
}

int hash_list_begin(FILE *list, const char *source_name)
{
    return fprintf(list, "%s\nsource %s\n", HASH_LIST_FIRST_LINE, source_name) < 0 ? -1 : 0;
}

int hash_list_write(FILE *list, const struct hash_list_run *run, int with_address)
{
    if (with_address)
        fprintf(list, "@%" PRIx64 "\n", run->address);
    if (run->zero)
        fputs("0", list);
    else
        fprintf(list, "%016" PRIx64 "%016" PRIx64, run->high, run->low);
    if (run->pages > 1)
        fprintf(list, " x%" PRIu64, run->pages);
    fputc('\n', list);
    return ferror(list) ? -1 : 0;
}

/* Counts the pages of the list, so that the table can be sized, and checks it on the way. */
int source_open_hash_list(struct page_source *source, char *error, size_t error_bytes)
{
    char text[4352], why[128];
    unsigned long line = 1;
    struct hash_list_run run = {0};
    int more;

    source->hash_list = fdopen(source->fd, "r");
    if (!source->hash_list) {
        snprintf(error, error_bytes, "%s: %s", source->name, strerror(errno));
        return -1;
    }
    if (!fgets(text, sizeof text, source->hash_list) ||
        strncmp(text, HASH_LIST_FIRST_LINE, strlen(HASH_LIST_FIRST_LINE)) != 0) {
        snprintf(error, error_bytes, "%s:1: not a list this program merges; it starts with '%s'",
                 source->name, HASH_LIST_FIRST_LINE);
        return -1;
    }
    long body = ftell(source->hash_list);
    if (fgets(text, sizeof text, source->hash_list) && strncmp(text, "source ", 7) == 0) {
        text[strcspn(text, "\n")] = '\0';
        char *name = strdup(text + 7);
        if (name) {
            free(source->name);
            source->name = name;
        }
    }
    fseek(source->hash_list, body, SEEK_SET);
    while ((more = hash_list_next(source->hash_list, &run, &line, why, sizeof why)) > 0)
        source->pages += run.pages;
    if (more < 0) {
        snprintf(error, error_bytes, "%s:%lu: %s", source->name, line, why);
        return -1;
    }
    fseek(source->hash_list, body, SEEK_SET);
    return 0;
}
