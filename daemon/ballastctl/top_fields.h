/*
 * What ballastctl top shows of a VM: one table of fields, with esxtop's names
 * where esxtop has the field. A field's value comes from members of the VM's row
 * (daemon/rpc/PROTOCOL.md); if one of them is absent, so is the value, and "-" is
 * shown. A new field is one line in the table.
 */
#ifndef BALLAST_CTL_TOP_FIELDS_H
#define BALLAST_CTL_TOP_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOP_HISTORY      24 /* samples of a sparkline */
#define TOP_MOST_MEMBERS 3
#define TOP_TEXT_BYTES   64

enum top_unit {
    TOP_TEXT,      /* as it is */
    TOP_FLAG,      /* yes or no */
    TOP_COUNT,     /* a number */
    TOP_PAGES,     /* pages, shown in MiB */
    TOP_BYTES,     /* bytes, shown in MiB */
    TOP_PAGE_RATE, /* growth of a count of pages, in MiB/s */
    TOP_RATE,      /* growth of a count, a second */
    TOP_TIME_RATE, /* growth of nanoseconds, in percent of the time */
    TOP_SPARKLINE, /* frames held over memory size, the last samples */
};

struct top_field {
    const char *title;
    enum top_unit unit;
    int width;  /* of the column; 0: of the longest text */
    bool shown; /* by default */
    /* Members of the row ("overhead.total_bytes": inside an object), added. */
    const char *members[TOP_MOST_MEMBERS];
    const char *meaning;
};

extern const struct top_field top_fields[];
extern const size_t top_field_count;

/* One VM as it was at the last two samples. */
struct top_vm {
    json_t *row, *before;        /* before: NULL when it is new */
    double history[TOP_HISTORY]; /* frames held over memory size, oldest first */
    unsigned samples;
};

const char *top_vm_name(const struct top_vm *vm);

/* The field called title, any case, length bytes of it; -1: none. */
int top_field_find(const char *title, size_t length);

/* A number's value; seconds passed between the two samples, 0 if there was only one. false: absent,
 * or the field is not a number. */
bool top_field_value(const struct top_field *field, const struct top_vm *vm, double seconds,
                     double *value);

/* As shown: "-" when absent; of text only printable ASCII. Sparklines are drawn, not told. */
void top_field_text(const struct top_field *field, const struct top_vm *vm, double seconds,
                    char text[TOP_TEXT_BYTES]);

/* A member of any row by its path; NULL: absent. */
const json_t *top_member(const json_t *row, const char *path);

/* For sorting: below, equal, above. Text rises, numbers fall, absent ones come last. */
int top_field_compare(const struct top_field *field, const struct top_vm *a, const struct top_vm *b,
                      double seconds);

#endif
