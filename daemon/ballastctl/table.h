/* Tables for people: columns as wide as their widest cell, numbers to the right. */
#ifndef BALLAST_CTL_TABLE_H
#define BALLAST_CTL_TABLE_H

#include <jansson.h>
#include <stddef.h>

enum column_kind {
    COLUMN_TEXT,  /* as it is */
    COLUMN_COUNT, /* a number, to the right */
    COLUMN_PAGES, /* pages, shown as a size */
    COLUMN_FLAG,  /* yes or no */
    COLUMN_TIME,  /* nanoseconds, shown in seconds */
};

struct column {
    const char *title;
    const char *member; /* of the row's object; absent: "-" */
    enum column_kind kind;
};

/* Print rows (an array of objects) under titles. */
void table_print(const struct column *columns, size_t count, const json_t *rows);

/* Print one object as "name  value" lines; names that end in _pages and _bytes become sizes,
 * objects inside are indented. */
void table_print_object(const json_t *object, unsigned indent);

#endif
