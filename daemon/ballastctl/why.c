/* ballastctl why: the last changes of a VM's target, each with its reason and its numbers. */
#include "daemon/ballastctl/options.h"

#include "daemon/size_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PAGE_BYTES 4096u
#define A_LINE     5 /* cells */
#define CELL_WIDTH 22

enum cell_kind { CELL_WORD, CELL_COUNT, CELL_PAGES, CELL_PERCENT, CELL_REAL };

/* The numbers a reader wants beside the sentence; what a decision did not have is left out. */
static const struct {
    const char *title, *member;
    enum cell_kind kind;
} cells[] = {
    {"shares", "shares", CELL_COUNT},
    {"min", "min_pages", CELL_PAGES},
    {"max", "max_pages", CELL_PAGES},
    {"held", "allocated_pages", CELL_PAGES},
    {"demand", "demand_pages", CELL_PAGES},
    {"ordered", "manual_target_pages", CELL_PAGES},
    {"active", "active_pages", CELL_PAGES},
    {"f", "f", CELL_REAL},
    {"tax", "idle_tax_percent", CELL_PERCENT},
    {"k", "k", CELL_REAL},
    {"rho", "rho", CELL_REAL},
    {"common rho", "common_rho", CELL_REAL},
    {"pages a share", "pages_per_share", CELL_REAL},
    {"balloon", "balloon_pages", CELL_PAGES},
    {"paged", "paged_pages", CELL_PAGES},
    {"host", "host_state", CELL_WORD},
    {"free", "free_pages", CELL_PAGES},
    {"machine", "machine_pages", CELL_PAGES},
    {"for targets", "available_pages", CELL_PAGES},
    {"promised", "reserved_pages", CELL_PAGES},
};
#define CELLS (sizeof cells / sizeof cells[0])

static bool cell_text(const json_t *value, enum cell_kind kind, char text[32])
{
    if (!value)
        return false;
    uint64_t count = (uint64_t)json_integer_value(value);
    switch (kind) {
    case CELL_WORD:
        snprintf(text, 32, "%s", json_string_value(value) ? json_string_value(value) : "?");
        break;
    case CELL_COUNT:
        snprintf(text, 32, "%" PRIu64, count);
        break;
    case CELL_PAGES:
        size_format(count * PAGE_BYTES, text);
        break;
    case CELL_PERCENT:
        snprintf(text, 32, "%" PRIu64 " %%", count);
        break;
    case CELL_REAL:
        snprintf(text, 32, "%.4g", json_number_value(value));
        break;
    }
    return true;
}

static void print_cells(const json_t *inputs)
{
    char value[32], cell[64];
    unsigned printed = 0;
    int gap = 0;
    for (size_t i = 0; i < CELLS; i++) {
        if (!cell_text(json_object_get(inputs, cells[i].member), cells[i].kind, value))
            continue;
        if (printed % A_LINE == 0)
            printf("%s    ", printed ? "\n" : "");
        else
            printf("%*s", gap, ""); /* before the next, so that no line ends in blanks */
        int wide = snprintf(cell, sizeof cell, "%s %s", cells[i].title, value);
        gap = wide < CELL_WIDTH ? CELL_WIDTH - wide + 1 : 1;
        printf("%s", cell);
        printed++;
    }
    printf("\n");
}

static const char *member(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "-";
}

static void print_decision(const json_t *decision)
{
    char moment[CTL_MOMENT_BYTES];
    uint64_t time_ns = (uint64_t)json_integer_value(json_object_get(decision, "time_ns"));
    printf("%s  %s (policy %s, round by %s): %s\n", ctl_moment(time_ns, moment),
           member(decision, "rule"), member(decision, "policy"), member(decision, "trigger"),
           member(decision, "text"));
    print_cells(json_object_get(decision, "inputs"));
}

static const struct option options[] = {
    {"number", required_argument, NULL, 'n'},
    {0},
};

static int run(struct ctl *ctl, int argc, char **argv)
{
    uint64_t limit = 0;
    int option, status;
    size_t index;
    json_t *result, *decision, *params;
    while ((option = options_next(argc, argv, options, NULL)) > 0)
        if (ctl_parse_count("why", "-n", optarg, 1, 64, &limit) != CTL_OK)
            return CTL_USAGE;
    if (option == 0)
        return CTL_USAGE;
    if ((status = options_end(argc, argv, 1, 1)) != CTL_OK)
        return status;
    params = json_pack("{s:s, s:I}", "vm", argv[optind], "limit", (json_int_t)(limit ? limit : 5));
    if ((status = ctl_call(ctl, "decisions.explain", params, &result)) != CTL_OK)
        return status;
    if (ctl->json) {
        ctl_print_json(result, false);
    } else {
        if (json_array_size(json_object_get(result, "decisions")) == 0)
            printf("the target of %s has not changed\n", argv[optind]);
        json_array_foreach(json_object_get(result, "decisions"), index, decision)
        {
            if (index > 0)
                printf("\n");
            print_decision(decision);
        }
    }
    json_decref(result);
    return CTL_OK;
}

const struct command command_why = {
    .name = "why",
    .arguments = "VM [-n N]",
    .summary = "why a virtual machine's target is what it is",
    .details = "  -n N, --number N  the last N changes, newest first; default 5, at most 64\n"
               "\n"
               "Each change has the rule that decided, a sentence with the numbers, and what it\n"
               "was made from. How to work the target out again from them is in\n"
               "daemon/rpc/PROTOCOL.md, Decisions.\n",
    .run = run,
};
