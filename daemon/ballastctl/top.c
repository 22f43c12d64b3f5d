/* ballastctl top: memory of the host and its VMs, live, or as CSV for other programs. */
#include "daemon/ballastctl/top.h"

#include "daemon/ballastctl/options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEFAULT_INTERVAL_MS 2000

static const struct option options[] = {
    {"batch", no_argument, NULL, 'b'},
    {"count", required_argument, NULL, 'n'},
    {"delay", required_argument, NULL, 'd'},
    {"fields", required_argument, NULL, 'f'},
    {"sort", required_argument, NULL, 's'},
    {"filter", required_argument, NULL, 'F'},
    {0},
};

struct settings {
    struct top_view view;
    uint64_t interval_ms, count;
    bool batch;
};

/* ---- batch mode ---- */

/* Of the host, in every line. */
static const struct {
    const char *title, *member;
    bool plain; /* a number as it is, not memory in MiB */
} host_columns[] = {
    {"HOST_STATE", "state", false},           {"HOST_POLICY", "policy", false},
    {"HOST_PMEM", "machine_pages", false},    {"HOST_FREE", "free_pages", false},
    {"HOST_GRANT", "granted_pages", false},   {"HOST_SHARED", "shared_pages", false},
    {"HOST_SAVED", "saved_pages", false},     {"HOST_RESERVED", "reserved_pages", false},
    {"HOST_OVHD", "overhead_bytes", false},   {"OVERCOMMIT_1M", "overcommit_1m", true},
    {"OVERCOMMIT_5M", "overcommit_5m", true}, {"OVERCOMMIT_15M", "overcommit_15m", true},
};

static void print_header(const struct top_view *view)
{
    printf("TIME");
    for (size_t i = 0; i < sizeof host_columns / sizeof host_columns[0]; i++)
        printf(",%s", host_columns[i].title);
    for (size_t i = 0; i < top_field_count; i++)
        if (view->shown & UINT64_C(1) << i)
            printf(",%s", top_fields[i].title);
    printf("\n");
}

static void print_host(const struct top_model *model, const char *moment)
{
    double mib;
    printf("%s", moment);
    for (size_t i = 0; i < sizeof host_columns / sizeof host_columns[0]; i++) {
        const json_t *member = json_object_get(model->host, host_columns[i].member);
        const char *text = json_string_value(member);
        if (text)
            printf(",%.*s", (int)strcspn(text, ",\"\n"), text);
        else if (host_columns[i].plain && json_is_number(member))
            printf(",%.3f", json_number_value(member));
        else if (top_host_mib(model, host_columns[i].member, &mib))
            printf(",%.3f", mib);
        else
            printf(",-");
    }
}

/* Numbers with more digits than fit a screen. */
static void print_field(const struct top_field *field, const struct top_vm *vm, double seconds)
{
    char text[TOP_TEXT_BYTES];
    double value;
    if (field->unit != TOP_SPARKLINE && top_field_value(field, vm, seconds, &value)) {
        printf(field->unit == TOP_COUNT ? ",%.0f" : ",%.3f", value);
    } else {
        top_field_text(field, vm, seconds, text);
        printf(",%.*s", (int)strcspn(text, ",\"\n"), text);
    }
}

/* A line for each VM; one with "-" in their place if there is none. */
static int print_sample(const struct top_model *model, const struct top_view *view)
{
    const struct top_vm **order = calloc(model->count + 1, sizeof(struct top_vm *));
    static const struct top_vm none = {0};
    char moment[40];
    struct timespec now;
    struct tm tm;
    if (!order)
        return -1;
    size_t seen = top_view_order(view, model, order);
    if (seen == 0)
        order[seen++] = &none;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t length = strftime(moment, sizeof moment, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(moment + length, sizeof moment - length, ".%03ldZ", now.tv_nsec / 1000000);
    for (size_t i = 0; i < seen; i++) {
        print_host(model, moment);
        for (size_t f = 0; f < top_field_count; f++)
            if (view->shown & UINT64_C(1) << f)
                print_field(&top_fields[f], order[i], model->seconds);
        printf("\n");
    }
    free(order);
    return 0;
}

static int run_batch(struct ctl *ctl, const struct settings *settings)
{
    struct top_model model = {0};
    json_t *result;
    int status =
        ctl_call(ctl, "stats.subscribe",
                 json_pack("{s:I}", "interval_ms", (json_int_t)settings->interval_ms), &result);
    if (status != CTL_OK)
        return status;
    json_decref(result);
    print_header(&settings->view);
    for (uint64_t i = 0; status == CTL_OK && i < settings->count && !ferror(stdout); i++) {
        if ((status = ctl_next(ctl, "stats.rows", &result)) != CTL_OK)
            break;
        if (top_model_take(&model, result) < 0 || print_sample(&model, &settings->view) < 0)
            status = ctl_fail(CTL_NO_DAEMON, "the daemon sent rows that are none");
        json_decref(result);
        fflush(stdout);
    }
    top_model_free(&model);
    return status;
}

/* ---- the command ---- */

static int take_delay(struct settings *settings, const char *text)
{
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end || !(seconds >= 0.1 && seconds <= 3600))
        return ctl_usage("top", "--delay: '%.40s' is not a number of seconds from 0.1 to 3600",
                         text);
    settings->interval_ms = (uint64_t)lround(seconds * 1000);
    return CTL_OK;
}

static int take_sort(struct settings *settings, const char *text)
{
    settings->view.backwards = text[0] == '-';
    text += settings->view.backwards;
    int field = top_field_find(text, strlen(text));
    if (field < 0)
        return ctl_usage("top", "--sort: no field '%.40s'", text);
    settings->view.sort = (size_t)field;
    return CTL_OK;
}

static int take_option(struct settings *settings, int option)
{
    size_t length;
    const char *stranger;
    switch (option) {
    case 'b':
        settings->batch = true;
        return CTL_OK;
    case 'n':
        return ctl_parse_count("top", "--count", optarg, 1, UINT64_MAX - 1, &settings->count);
    case 'd':
        return take_delay(settings, optarg);
    case 'f':
        stranger = top_view_choose(&settings->view, optarg, &length);
        return stranger ? ctl_usage("top", "--fields: no field '%.*s'",
                                    length < 40 ? (int)length : 40, stranger)
                        : CTL_OK;
    case 's':
        return take_sort(settings, optarg);
    default:
        if (strlen(optarg) >= sizeof settings->view.filter)
            return ctl_usage("top", "--filter: at most %zu letters",
                             sizeof settings->view.filter - 1);
        strcpy(settings->view.filter, optarg);
        return CTL_OK;
    }
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    struct settings settings = {.interval_ms = DEFAULT_INTERVAL_MS, .count = UINT64_MAX};
    int option, status = CTL_OK;
    top_view_default(&settings.view);
    while (status == CTL_OK && (option = options_next(argc, argv, options, NULL)) > 0)
        status = take_option(&settings, option);
    if (status != CTL_OK || option == 0)
        return CTL_USAGE;
    if ((status = options_end(argc, argv, 0, 0)) != CTL_OK)
        return status;
    if (settings.batch)
        return run_batch(ctl, &settings);
    if (settings.count != UINT64_MAX)
        return ctl_usage("top", "--count is for --batch");
    return top_live(ctl, &settings.view, settings.interval_ms);
}

const struct command command_top = {
    .name = "top",
    .arguments = "[-b [-n N]] [-d SECONDS] [-f FIELDS] [-s FIELD] [--filter TEXT]",
    .summary = "memory of the host and its VMs, live (esxtop's fields)",
    .details =
        "  -d, --delay SECONDS   between two samples, 0.1 to 3600; default 2\n"
        "  -f, --fields A,B,...  fields of VMs to show, by title; all: every one\n"
        "  -s, --sort FIELD      order of the VMs; -FIELD: the other way round\n"
        "  -F, --filter TEXT     only VMs whose name contains it\n"
        "  -b, --batch           no screen: CSV on standard output, a line a VM and sample\n"
        "  -n, --count N         in batch mode, end after N samples; default: never\n"
        "\n"
        "Memory is in MiB, rates are a second; \"-\" is a statistic that means nothing now.\n"
        "Keys: f fields, their meaning and the sort order; / filter; r the other way round;\n"
        "arrows and page keys move; + and - change the delay; h help; q ends.\n",
    .run = run,
};
