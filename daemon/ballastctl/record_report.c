/* What export, info and replay have in common: how they begin and end, and what they say then. */
#include "daemon/ballastctl/record.h"

#include <errno.h>
#include <string.h>

struct record_reader *record_open_reported(const char *path)
{
    struct err err;
    struct record_reader *reader = record_open(path, &err);
    if (!reader)
        ctl_fail(CTL_REFUSED, "%s", err.text);
    return reader;
}

int record_finish(struct record_reader *reader, const char *path, int result, const struct err *err)
{
    if (result < 0)
        return ctl_fail(CTL_REFUSED, "%s", err->text);
    if (record_is_cut(reader)) /* a warning: what is there is sound */
        ctl_fail(CTL_OK, "%s was cut off: this is what was there before", path);
    return CTL_OK;
}

FILE *record_open_output(const char *path)
{
    FILE *output = path ? fopen(path, "we") : stdout;
    if (!output)
        ctl_fail(CTL_REFUSED, "%s: %s", path, strerror(errno));
    return output;
}

int record_close_output(FILE *output, const char *path)
{
    bool failed = fflush(output) != 0 || ferror(output);
    if (output != stdout && fclose(output) != 0)
        failed = true;
    if (failed && path)
        return ctl_fail(CTL_REFUSED, "write %s: %s", path, strerror(errno));
    return CTL_OK; /* main looks at standard output */
}
