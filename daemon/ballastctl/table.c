#include "daemon/ballastctl/table.h"

#include "daemon/size_text.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CELL_BYTES 96
#define PAGE_BYTES 4096u

static void cell_text(const json_t *value, enum column_kind kind, char text[CELL_BYTES])
{
    char size[32];
    if (!value || json_is_null(value))
        snprintf(text, CELL_BYTES, "-");
    else if (json_is_boolean(value))
        snprintf(text, CELL_BYTES, "%s", json_is_true(value) ? "yes" : "no");
    else if (json_is_integer(value) && kind == COLUMN_PAGES)
        snprintf(text, CELL_BYTES, "%s",
                 size_format((uint64_t)json_integer_value(value) * PAGE_BYTES, size));
    else if (json_is_integer(value) && kind == COLUMN_TIME)
        snprintf(text, CELL_BYTES, "%.3f s", (double)json_integer_value(value) / 1e9);
    else if (json_is_integer(value))
        snprintf(text, CELL_BYTES, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(text, CELL_BYTES, kind == COLUMN_COUNT ? "%.1f" : "%.6g", json_real_value(value));
    else
        snprintf(text, CELL_BYTES, "%s", json_is_string(value) ? json_string_value(value) : "?");
}

void table_print(const struct column *columns, size_t count, const json_t *rows)
{
    char text[CELL_BYTES];
    size_t index;
    json_t *row;
    size_t *widths = calloc(count, sizeof *widths);
    if (!widths)
        return;
    for (size_t i = 0; i < count; i++) {
        widths[i] = strlen(columns[i].title);
        json_array_foreach(rows, index, row)
        {
            cell_text(json_object_get(row, columns[i].member), columns[i].kind, text);
            widths[i] = strlen(text) > widths[i] ? strlen(text) : widths[i];
        }
    }
    for (size_t line = 0; line <= json_array_size(rows); line++) {
        row = line ? json_array_get(rows, line - 1) : NULL;
        for (size_t i = 0; i < count; i++) {
            const struct column *column = &columns[i];
            bool left = column->kind == COLUMN_TEXT || column->kind == COLUMN_FLAG;
            bool last = i + 1 == count;
            if (row)
                cell_text(json_object_get(row, column->member), column->kind, text);
            else
                snprintf(text, sizeof text, "%s", column->title);
            int width = left && last ? 0 : (int)widths[i];
            printf(left ? "%-*s%s" : "%*s%s", width, text, last ? "\n" : "  ");
        }
    }
    free(widths);
}

static bool ends_in(const char *name, const char *end)
{
    size_t length = strlen(name), tail = strlen(end);
    return length >= tail && strcmp(name + length - tail, end) == 0;
}

void table_print_object(const json_t *object, unsigned indent)
{
    const char *name;
    json_t *value;
    char text[CELL_BYTES], size[32];
    json_object_foreach((json_t *)object, name, value)
    {
        if (json_is_object(value)) {
            printf("%*s%s\n", (int)indent, "", name);
            table_print_object(value, indent + 2);
            continue;
        }
        cell_text(value, COLUMN_TEXT, text);
        printf("%*s%-*s  %s", (int)indent, "", 24 - (int)indent, name,
               json_is_string(value) ? json_string_value(value) : text);
        uint64_t number = (uint64_t)json_integer_value(value);
        if (json_is_integer(value) && ends_in(name, "_pages"))
            printf(" (%s)", size_format(number * PAGE_BYTES, size));
        else if (json_is_integer(value) && ends_in(name, "_bytes"))
            printf(" (%s)", size_format(number, size));
        printf("\n");
    }
}
