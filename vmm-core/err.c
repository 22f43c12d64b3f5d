#include "vmm-core/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int errnum, const char *format, ...)
{
    if (!e)
        return -1;
    e->errnum = errnum;
    va_list ap;
    va_start(ap, format);
    vsnprintf(e->text, sizeof e->text, format, ap);
    va_end(ap);
    size_t used = strlen(e->text);
    if (errnum)
        snprintf(e->text + used, sizeof e->text - used, ": %s", strerror(errnum));
    return -1;
}

int err_prefix(struct err *e, const char *format, ...)
{
    if (!e)
        return -1;
    char joined[sizeof e->text];
    va_list ap;
    va_start(ap, format);
    vsnprintf(joined, sizeof joined, format, ap);
    va_end(ap);
    size_t used = strlen(joined);
    snprintf(joined + used, sizeof joined - used, ": %s", e->text);
    memcpy(e->text, joined, sizeof joined);
    return -1;
}
