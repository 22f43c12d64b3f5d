/*
 * ballastctl sharing: what content-based sharing saves, what that costs, and where a
 * shared frame comes from. One view a method of the same name; what the numbers mean
 * is in daemon/sharing/COUNTERS.md.
 */
#include "daemon/ballastctl/options.h"
#include "daemon/ballastctl/table.h"

#include <stdio.h>
#include <string.h>

#define COLUMNS(table) table, sizeof table / sizeof table[0]

static const struct column vm_columns[] = {
    {"VM", "vm", COLUMN_TEXT},
    {"DOMAIN", "sharing_domain", COLUMN_TEXT},
    {"ON", "sharing", COLUMN_FLAG},
    {"SHARED", "shared_references", COLUMN_PAGES},
    {"ZERO", "zero_references", COLUMN_PAGES},
    {"CHARGE", "shared_charge_pages", COLUMN_PAGES},
    {"SAVED", "shared_saved_pages", COLUMN_PAGES},
    {"CPU", "cpu_ns", COLUMN_TIME},
    {"BREAKS", "cow_breaks", COLUMN_COUNT},
    {"FALSE", "false_matches", COLUMN_COUNT},
};

static const struct column pair_columns[] = {
    {"A", "a", COLUMN_TEXT},
    {"B", "b", COLUMN_TEXT},
    {"FRAMES", "frames", COLUMN_COUNT},
    {"SAVED-PAGES", "saved_pages", COLUMN_COUNT},
    {"BREAKS", "breaks", COLUMN_COUNT},
};

static const struct column sharer_columns[] = {
    {"VM", "vm", COLUMN_TEXT},
    {"PPN", "ppn", COLUMN_COUNT},
    {"SHARED-FOR", "age_ns", COLUMN_TIME},
    {"FOUND", "how", COLUMN_TEXT},
};

static const struct column break_columns[] = {
    {"AGO", "ago_ns", COLUMN_TIME}, {"VM", "vm", COLUMN_TEXT},
    {"PPN", "ppn", COLUMN_COUNT},   {"MPN", "mpn", COLUMN_COUNT},
    {"PC", "pc", COLUMN_TEXT},      {"SHARED-FOR", "age_ns", COLUMN_TIME},
    {"FOUND", "how", COLUMN_TEXT},
};

/* Give each row a member that says how long before the answer the moment in another one was. */
static void add_age(const json_t *answer, json_t *rows, const char *moment, const char *age)
{
    json_int_t now_ns = json_integer_value(json_object_get(answer, "time_ns"));
    size_t index;
    json_t *row;
    json_array_foreach(rows, index, row)
    {
        json_int_t then_ns = json_integer_value(json_object_get(row, moment));
        json_object_set_new(row, age, json_integer(now_ns - then_ns));
    }
}

/* ---- views ---- */

/* What to call. CTL_OK, or CTL_USAGE reported. */
static int ask_nothing(char **arguments, uint64_t limit, json_t **params)
{
    (void)arguments, (void)limit;
    *params = NULL;
    return CTL_OK;
}

static int ask_frame(char **arguments, uint64_t limit, json_t **params)
{
    uint64_t mpn;
    int status = ctl_parse_count("sharing", "MPN", arguments[0], 0, UINT32_MAX, &mpn);
    (void)limit;
    *params = status == CTL_OK ? json_pack("{s:I}", "mpn", (json_int_t)mpn) : NULL;
    return status;
}

static int ask_page(char **arguments, uint64_t limit, json_t **params)
{
    uint64_t ppn;
    int status = ctl_parse_count("sharing", "PPN", arguments[1], 0, UINT32_MAX, &ppn);
    (void)limit;
    *params = status == CTL_OK ? json_pack("{s:s, s:I}", "vm", arguments[0], "ppn", (json_int_t)ppn)
                               : NULL;
    return status;
}

static int ask_breaks(char **arguments, uint64_t limit, json_t **params)
{
    (void)arguments;
    *params = limit ? json_pack("{s:I}", "limit", (json_int_t)limit) : NULL;
    return CTL_OK;
}

static void print_stats(json_t *answer)
{
    json_t *vms = json_incref(json_object_get(answer, "vms"));
    json_object_del(answer, "vms");
    table_print_object(answer, 0);
    printf("\n");
    table_print(COLUMNS(vm_columns), vms);
    json_decref(vms);
}

static void print_pairs(json_t *answer)
{
    json_t *rows = json_object_get(answer, "pairs");
    json_int_t found = json_integer_value(json_object_get(answer, "found"));
    table_print(COLUMNS(pair_columns), rows);
    if (found > (json_int_t)json_array_size(rows))
        printf("the first %zu of %" JSON_INTEGER_FORMAT " pairs\n", json_array_size(rows), found);
}

static void print_frame(json_t *answer)
{
    json_t *sharers = json_incref(json_object_get(answer, "sharers"));
    size_t told = json_array_size(sharers);
    json_int_t references = json_integer_value(json_object_get(answer, "references"));
    add_age(answer, sharers, "since_ns", "age_ns");
    json_object_del(answer, "sharers");
    table_print_object(answer, 0);
    if (told) {
        printf("\n");
        table_print(COLUMNS(sharer_columns), sharers);
    }
    if (told && references > (json_int_t)told)
        printf("the first %zu of %" JSON_INTEGER_FORMAT " references\n", told, references);
    json_decref(sharers);
}

static void print_page(json_t *answer)
{
    table_print_object(answer, 0);
}

static void print_breaks(json_t *answer)
{
    json_t *rows = json_object_get(answer, "breaks");
    add_age(answer, rows, "time_ns", "ago_ns");
    table_print(COLUMNS(break_columns), rows);
}

static const struct view {
    const char *name, *method;
    int arguments;
    int (*ask)(char **arguments, uint64_t limit, json_t **params);
    void (*print)(json_t *answer); /* may change it */
} views[] = {
    {"stats", "sharing.stats", 0, ask_nothing, print_stats},
    {"pairs", "sharing.pairs", 0, ask_nothing, print_pairs},
    {"frame", "sharing.frame", 1, ask_frame, print_frame},
    {"page", "sharing.page", 2, ask_page, print_page},
    {"breaks", "sharing.breaks", 0, ask_breaks, print_breaks},
};

static const struct view *find_view(const char *name)
{
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++)
        if (strcmp(views[i].name, name) == 0)
            return &views[i];
    return NULL;
}

/* ---- the command line ---- */

enum { OPT_LIMIT = 1 };
static const struct option options[] = {{"limit", required_argument, NULL, OPT_LIMIT}, {0}};

static int run(struct ctl *ctl, int argc, char **argv)
{
    uint64_t limit = 0;
    json_t *params, *answer;
    int option, status = CTL_OK;
    while (status == CTL_OK && (option = options_next(argc, argv, options, NULL)) > 0)
        status = ctl_parse_count("sharing", "--limit", optarg, 1, 4096, &limit);
    if (status != CTL_OK || option == 0)
        return CTL_USAGE;
    const char *name = optind < argc ? argv[optind] : "stats";
    const struct view *view = find_view(name);
    if (!view)
        return ctl_usage("sharing", "no view '%.40s': stats, pairs, frame, page or breaks", name);
    if (limit && strcmp(name, "breaks") != 0)
        return ctl_usage("sharing", "--limit is for breaks");
    int given = optind < argc ? 1 : 0;
    if ((status = options_end(argc, argv, given + view->arguments, given + view->arguments)) !=
        CTL_OK)
        return status;
    if ((status = view->ask(argv + optind + 1, limit, &params)) != CTL_OK)
        return status;
    if ((status = ctl_call(ctl, view->method, params, &answer)) != CTL_OK)
        return status;
    if (ctl->json)
        ctl_print_json(answer, false);
    else
        view->print(answer);
    json_decref(answer);
    return CTL_OK;
}

const struct command command_sharing = {
    .name = "sharing",
    .arguments = "[stats|pairs|frame MPN|page VM PPN|breaks [--limit N]]",
    .summary = "what page sharing saves and costs, and who shares what",
    .details =
        "  stats         the host and each VM: what is shared now, what it saves, what\n"
        "                looking for it has cost; the default\n"
        "  pairs         frames that two VMs both map, or one VM at two pages or more (A = B);\n"
        "                the SAVED-PAGES of all pairs add up, their FRAMES do not\n"
        "  frame MPN     a frame of the host: its kind, and who shares it since when\n"
        "  page VM PPN   the frame that a page of a VM shares\n"
        "  breaks        the last stores to shared pages, newest first; PC is the guest's,\n"
        "                - for a device\n"
        "  --limit N     so many breaks, 1 to 4096; default 100\n"
        "\n"
        "FOUND: hint (two private pages met), shared (a page met a shared frame), zero,\n"
        "paging (it was about to be paged out), clone.\n"
        "The meaning of every number is in daemon/sharing/COUNTERS.md.\n",
    .run = run,
};
