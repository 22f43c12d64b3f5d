/* ballastctl stats: one table of all VMs, or everything about one. */
#include "daemon/ballastctl/options.h"
#include "daemon/ballastctl/table.h"

static const struct column columns[] = {
    {"NAME", "name", COLUMN_TEXT},
    {"STATE", "state", COLUMN_TEXT},
    {"MEMORY", "memory_pages", COLUMN_PAGES},
    {"MIN", "min_pages", COLUMN_PAGES},
    {"SHARES", "shares", COLUMN_COUNT},
    {"TARGET", "target_pages", COLUMN_PAGES},
    {"HELD", "allocated_pages", COLUMN_PAGES},
    {"BALLOON", "balloon_pages", COLUMN_PAGES},
    {"ASKED", "balloon_target_pages", COLUMN_PAGES},
    {"PAGED", "paged_pages", COLUMN_PAGES},
    {"UNTOUCHED", "absent_pages", COLUMN_PAGES},
    {"DRIVER", "balloon_driver", COLUMN_FLAG},
    {"BLOCKED", "blocked", COLUMN_FLAG},
};

/* Rows of the VMs in names (an array of objects with a name), in *rows. */
static int fetch_rows(struct ctl *ctl, const json_t *names, json_t **rows)
{
    size_t index;
    json_t *name, *row;
    *rows = json_array();
    json_array_foreach(names, index, name)
    {
        json_t *params = json_pack("{s:O}", "vm", json_object_get(name, "name"));
        int status = ctl_call(ctl, "vm.stats", params, &row);
        if (status != CTL_OK) {
            json_decref(*rows);
            return status;
        }
        json_array_append_new(*rows, row);
    }
    return CTL_OK;
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    json_t *names = NULL, *rows, *result;
    int status = options_none(argc, argv, 0, argc);
    if (status != CTL_OK)
        return status;
    if (optind == argc) {
        if ((status = ctl_call(ctl, "vm.list", NULL, &result)) != CTL_OK)
            return status;
        names = json_incref(json_object_get(result, "vms"));
        json_decref(result);
    } else {
        names = json_array();
        for (int i = optind; i < argc; i++)
            json_array_append_new(names, json_pack("{s:s}", "name", argv[i]));
    }
    status = fetch_rows(ctl, names, &rows);
    json_decref(names);
    if (status != CTL_OK)
        return status;
    bool one = argc - optind == 1;
    if (ctl->json)
        ctl_print_json(one ? json_array_get(rows, 0) : rows, false);
    else if (one)
        table_print_object(json_array_get(rows, 0), 0);
    else
        table_print(columns, sizeof columns / sizeof columns[0], rows);
    json_decref(rows);
    return CTL_OK;
}

const struct command command_stats = {
    .name = "stats",
    .arguments = "[VM...]",
    .summary = "statistics: a table of all or some VMs, or everything about one",
    .details = "HELD is the machine memory a VM has; BALLOON, PAGED and UNTOUCHED are pages of it\n"
               "that need none: given up by its balloon, in its swap file, never used.\n"
               "The meaning of every field is in daemon/rpc/PROTOCOL.md.\n",
    .run = run,
};
