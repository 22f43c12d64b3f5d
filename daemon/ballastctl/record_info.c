/* ballastctl record info: what was recorded, of which daemon, and whether the file is whole. */
#include "daemon/ballastctl/options.h"
#include "daemon/ballastctl/record.h"
#include "daemon/ballastctl/table.h"

#include <string.h>

static const char *const kinds[] = {"rows", "round", "decision", "event"};
#define KINDS (sizeof kinds / sizeof kinds[0])

struct contents {
    uint64_t counts[KINDS], lost;
    json_int_t first_ns, last_ns; /* of rows, on the daemon's clock; first 0: none */
    size_t most_vms;
    json_t *end; /* the line that ends a file that is whole; NULL: none */
};

static void take(struct contents *contents, const char *kind, json_t *value)
{
    for (size_t i = 0; i < KINDS; i++)
        contents->counts[i] += strcmp(kind, kinds[i]) == 0;
    if (json_is_object(value) && strcmp(kind, "end") != 0) {
        json_int_t lost = json_integer_value(json_object_get(value, "lost"));
        contents->lost += lost > 0 ? (uint64_t)lost : 0;
    }
    if (strcmp(kind, "rows") == 0) {
        json_int_t time_ns = json_integer_value(json_object_get(value, "time_ns"));
        size_t vms = json_array_size(json_object_get(value, "vms"));
        contents->first_ns = contents->first_ns ? contents->first_ns : time_ns;
        contents->last_ns = time_ns;
        contents->most_vms = vms > contents->most_vms ? vms : contents->most_vms;
    }
    if (strcmp(kind, "end") == 0 && !contents->end)
        contents->end = json_incref(value);
}

/* ["a","b"] as "a b". */
static json_t *join(const json_t *words)
{
    char text[200] = "";
    size_t index;
    json_t *word;
    json_array_foreach(words, index, word)
    {
        size_t length = strlen(text);
        if (json_is_string(word))
            snprintf(text + length, sizeof text - length, "%s%s", length ? " " : "",
                     json_string_value(word));
    }
    return json_string_nocheck(text);
}

static json_t *describe(const struct record_reader *reader, const struct contents *contents)
{
    const json_t *header = record_header(reader), *host = json_object_get(header, "host");
    const json_t *daemon = json_object_get(header, "daemon");
    const char *reason = json_string_value(json_object_get(contents->end, "reason"));
    json_t *streams = join(json_object_get(header, "streams"));
    double seconds = (double)contents->last_ns / 1e9 - (double)contents->first_ns / 1e9;
    return json_pack(
        "{s:O, s:O*, s:O*, s:O*, s:O*, s:O*, s:O*, s:o, s:f,"
        " s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s}",
        "version", json_object_get(header, "version"), "created",
        json_object_get(header, "created"), "ballastctl", json_object_get(header, "ballastctl"),
        "ballastd", json_object_get(daemon, "version"), "interval_ms",
        json_object_get(header, "interval_ms"), "policy", json_object_get(host, "policy"),
        "machine_pages", json_object_get(host, "machine_pages"), "streams", streams, "seconds",
        seconds > 0 ? seconds : 0.0, "rows", (json_int_t)contents->counts[0], "rounds",
        (json_int_t)contents->counts[1], "decisions", (json_int_t)contents->counts[2], "events",
        (json_int_t)contents->counts[3], "lost", (json_int_t)contents->lost, "most_vms",
        (json_int_t)contents->most_vms, "whole", contents->end != NULL, "ended",
        reason ? reason : "cut off");
}

int record_run_info(struct ctl *ctl, int argc, char **argv)
{
    struct contents contents = {0};
    struct err err;
    const char *kind;
    json_t *value;
    int result, status = options_none(argc, argv, 1, 1);
    if (status != CTL_OK)
        return status;
    const char *path = argv[optind];
    struct record_reader *reader = record_open_reported(path);
    if (!reader)
        return CTL_REFUSED;
    while ((result = record_next(reader, &kind, &value, &err)) > 0) {
        take(&contents, kind, value);
        json_decref(value);
    }
    json_t *description = describe(reader, &contents);
    if (ctl->json)
        ctl_print_json(description, false);
    else
        table_print_object(description, 0);
    json_decref(description);
    json_decref(contents.end);
    status = record_finish(reader, path, result, &err);
    record_reader_free(reader);
    return status;
}
