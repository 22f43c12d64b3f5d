/*
 * ballastctl record export: CSV (RFC 4180). Columns are the members that occur
 * anywhere in the file, those of objects inside with a point ("overhead.total_bytes"),
 * in the order they are met first; so the file is read twice, once for the header.
 */
#include "daemon/ballastctl/options.h"
#include "daemon/ballastctl/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOST_COLUMNS    1024 /* a daemon has some hundred; a file may claim any number */
#define MOST_NAME_BYTES 128
#define MOST_DEPTH      4

/* A line of CSV is one object: what is flattened, and from which lines of the file it is made. */
enum export_kind { EXPORT_ROWS = 1, EXPORT_HOST, EXPORT_ROUNDS, EXPORT_DECISIONS, EXPORT_EVENTS };

static const struct option options[] = {
    {"rows", no_argument, NULL, EXPORT_ROWS},
    {"host", no_argument, NULL, EXPORT_HOST},
    {"rounds", no_argument, NULL, EXPORT_ROUNDS},
    {"decisions", no_argument, NULL, EXPORT_DECISIONS},
    {"events", no_argument, NULL, EXPORT_EVENTS},
    {"output", required_argument, NULL, 'o'},
    {0},
};

static const char *const kind_of[] = {
    [EXPORT_ROWS] = "rows",          [EXPORT_HOST] = "rows",    [EXPORT_ROUNDS] = "round",
    [EXPORT_DECISIONS] = "decision", [EXPORT_EVENTS] = "event",
};

struct column {
    char name[MOST_NAME_BYTES];
    const json_t *value; /* in the line that is being made; NULL: absent */
};

struct table {
    enum export_kind kind;
    struct column *columns;
    size_t count, last; /* last: where the name looked for last was found */
    FILE *output;       /* NULL: the columns are being found */
};

/* ---- columns ---- */

static struct column *find_column(struct table *table, const char *name)
{
    for (size_t i = 0; i < table->count; i++) {
        /* Members come in nearly the same order in every line. */
        size_t place = (table->last + 1 + i) % table->count;
        if (strcmp(table->columns[place].name, name) == 0) {
            table->last = place;
            return &table->columns[place];
        }
    }
    if (table->output || table->count == MOST_COLUMNS)
        return NULL;
    struct column *column = &table->columns[table->count];
    table->last = table->count++;
    snprintf(column->name, sizeof column->name, "%s", name);
    return column;
}

static void put_value(struct table *table, const char *name, const json_t *value, unsigned depth);

static void put_members(struct table *table, const char *prefix, const json_t *object,
                        unsigned depth)
{
    char name[MOST_NAME_BYTES];
    for (void *at = json_object_iter((json_t *)object); at;
         at = json_object_iter_next((json_t *)object, at)) {
        int length = snprintf(name, sizeof name, "%s%s%s", prefix, prefix[0] ? "." : "",
                              json_object_iter_key(at));
        if (length < (int)sizeof name) /* longer ones no daemon has */
            put_value(table, name, json_object_iter_value(at), depth);
    }
}

static void put_value(struct table *table, const char *name, const json_t *value, unsigned depth)
{
    if (json_is_object(value) && depth < MOST_DEPTH) {
        put_members(table, name, value, depth + 1);
        return;
    }
    if (json_is_object(value) || json_is_array(value))
        return; /* rows inside rows have lines of their own */
    struct column *column = find_column(table, name);
    if (column)
        column->value = value;
}

/* ---- lines ---- */

static void print_text(FILE *output, const char *text)
{
    if (!text[strcspn(text, ",\"\r\n")]) {
        fputs(text, output);
        return;
    }
    putc('"', output);
    for (; *text; text++) {
        if (*text == '"')
            putc('"', output);
        putc(*text, output);
    }
    putc('"', output);
}

static void print_value(FILE *output, const json_t *value)
{
    if (json_is_string(value))
        print_text(output, json_string_value(value));
    else if (json_is_integer(value))
        fprintf(output, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        fprintf(output, "%.17g", json_real_value(value));
    else if (json_is_boolean(value))
        putc(json_is_true(value) ? '1' : '0', output);
}

static void end_line(struct table *table)
{
    for (size_t i = 0; table->output && i < table->count; i++) {
        if (i)
            putc(',', table->output);
        print_value(table->output, table->columns[i].value);
    }
    if (table->output)
        putc('\n', table->output);
    for (size_t i = 0; i < table->count; i++)
        table->columns[i].value = NULL;
}

/* A line for each VM, with what is common to all in front. */
static void put_vms(struct table *table, const json_t *value, const json_t *common)
{
    size_t index;
    json_t *vm;
    json_array_foreach(json_object_get(value, "vms"), index, vm)
    {
        put_members(table, "", common, 0);
        if (json_is_object(vm))
            put_members(table, "", vm, 0);
        end_line(table);
    }
}

static void put_line(struct table *table, const json_t *value)
{
    json_t *time = json_object_get(value, "time_ns"), *lost = json_object_get(value, "lost");
    json_t *common = NULL;
    switch (table->kind) {
    case EXPORT_ROWS:
        common = json_pack("{s:O*, s:O*}", "time_ns", time, "lost", lost);
        put_vms(table, value, common);
        break;
    case EXPORT_HOST:
        common = json_pack("{s:O*, s:O*}", "time_ns", time, "lost", lost);
        put_members(table, "", common, 0);
        if (json_is_object(json_object_get(value, "host")))
            put_members(table, "", json_object_get(value, "host"), 0);
        end_line(table);
        break;
    case EXPORT_ROUNDS:
        /* Names of the host's and of a VM's members differ by their prefix. */
        common = json_copy((json_t *)value);
        json_object_del(common, "vms");
        put_vms(table, value, common);
        break;
    case EXPORT_DECISIONS:
    case EXPORT_EVENTS:
        put_members(table, "", value, 0);
        end_line(table);
        break;
    }
    json_decref(common);
}

static int pass(struct table *table, const char *path)
{
    struct err err;
    const char *kind;
    json_t *value;
    int result;
    struct record_reader *reader = record_open_reported(path);
    if (!reader)
        return CTL_REFUSED;
    while ((result = record_next(reader, &kind, &value, &err)) > 0) {
        if (strcmp(kind, kind_of[table->kind]) == 0 && json_is_object(value))
            put_line(table, value);
        json_decref(value);
    }
    /* The first pass says nothing: what it found wrong the second will find, after the lines that
     * are sound. */
    int status = table->output ? record_finish(reader, path, result, &err) : CTL_OK;
    record_reader_free(reader);
    return status;
}

static int export_csv(const char *path, enum export_kind kind, const char *output_path)
{
    struct table table = {.kind = kind, .columns = calloc(MOST_COLUMNS, sizeof(struct column))};
    if (!table.columns)
        return ctl_fail(CTL_REFUSED, "%s: out of memory", path);
    int status = pass(&table, path);
    if (status == CTL_OK && (table.output = record_open_output(output_path))) {
        for (size_t i = 0; i < table.count; i++) {
            if (i)
                putc(',', table.output);
            print_text(table.output, table.columns[i].name);
        }
        if (table.count > 0)
            putc('\n', table.output);
        status = pass(&table, path);
        int closed = record_close_output(table.output, output_path);
        status = status == CTL_OK ? closed : status;
    } else if (status == CTL_OK) {
        status = CTL_REFUSED;
    }
    free(table.columns);
    return status;
}

int record_run_export(struct ctl *ctl, int argc, char **argv)
{
    enum export_kind kind = 0;
    const char *output = NULL;
    int option, status;
    (void)ctl;
    while ((option = options_next(argc, argv, options, NULL)) > 0) {
        if (option == 'o')
            output = optarg;
        else if (kind)
            return ctl_usage("record", "export one kind at a time");
        else
            kind = (enum export_kind)option;
    }
    if (option == 0)
        return CTL_USAGE;
    if ((status = options_end(argc, argv, 1, 1)) != CTL_OK)
        return status;
    return export_csv(argv[optind], kind ? kind : EXPORT_ROWS, output);
}
