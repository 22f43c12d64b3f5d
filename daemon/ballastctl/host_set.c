/* ballastctl host-set: policy and settings of the host. */
#include "daemon/ballastctl/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPT_POLICY = 1,
    OPT_PERIOD,
    OPT_TAX,
    OPT_THRESHOLDS,
    OPT_HYSTERESIS,
    OPT_SLIDING,
    OPT_SHARING,
    OPT_SAMPLE_PAGES,
    OPT_SAMPLE_PERIOD,
    OPT_SAMPLE_GAINS,
    OPT_COUNT_TOUCHED,
    OPT_SET,
};
static const struct option options[] = {
    {"policy", required_argument, NULL, OPT_POLICY},
    {"period", required_argument, NULL, OPT_PERIOD},
    {"idle-tax", required_argument, NULL, OPT_TAX},
    {"thresholds", required_argument, NULL, OPT_THRESHOLDS},
    {"hysteresis", required_argument, NULL, OPT_HYSTERESIS},
    {"sliding", required_argument, NULL, OPT_SLIDING},
    {"sharing", required_argument, NULL, OPT_SHARING},
    {"sample-pages", required_argument, NULL, OPT_SAMPLE_PAGES},
    {"sample-period", required_argument, NULL, OPT_SAMPLE_PERIOD},
    {"sample-gains", required_argument, NULL, OPT_SAMPLE_GAINS},
    {"count-touched", required_argument, NULL, OPT_COUNT_TOUCHED},
    {"set", required_argument, NULL, OPT_SET},
    {0},
};

static json_t *thresholds_of(json_t *params)
{
    json_t *thresholds = json_object_get(params, "thresholds");
    if (!thresholds) {
        thresholds = json_object();
        json_object_set_new(params, "thresholds", thresholds);
    }
    return thresholds;
}

/* Numbers with commas between, or one: names says which members of object they are. */
static int take_numbers(json_t *object, const char *option, const char *text,
                        const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char *end;
        double value = strtod(text, &end);
        if (end == text || *end != (i + 1 < count ? ',' : 0))
            return ctl_usage("host-set", "%s: write %zu number%s", option, count,
                             count == 4  ? "s with commas between, such as 6,4,2,1"
                             : count > 1 ? "s with a comma between, such as 0.25,0.75"
                                         : "");
        json_object_set_new(object, names[i], json_real(value));
        text = end + 1;
    }
    return CTL_OK;
}

static int take_count(json_t *params, const char *option, const char *member, uint64_t least,
                      uint64_t most)
{
    uint64_t value;
    int status = ctl_parse_count("host-set", option, optarg, least, most, &value);
    if (status == CTL_OK)
        json_object_set_new(params, member, json_integer((json_int_t)value));
    return status;
}

static int take_switch(json_t *object, const char *option, const char *member)
{
    bool on;
    int status = ctl_parse_switch("host-set", option, optarg, &on);
    if (status == CTL_OK)
        json_object_set_new(object, member, json_boolean(on));
    return status;
}

/* A number, on, off, or a word. NULL: not UTF-8. */
static json_t *setting_value(const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (!*end && isfinite(value))
        return value == floor(value) && fabs(value) < 1e15 ? json_integer((json_int_t)value)
                                                           : json_real(value);
    if (strcmp(text, "on") == 0 || strcmp(text, "off") == 0)
        return json_boolean(strcmp(text, "on") == 0);
    return json_string(text);
}

/* Any other member of host.set, by its name there; the daemon knows them. */
static int take_setting(json_t *params, const char *text)
{
    const char *equals = strchr(text, '=');
    char name[64];
    size_t length = equals ? (size_t)(equals - text) : 0;
    if (length == 0 || length >= sizeof name || !equals[1])
        return ctl_usage("host-set", "--set: write NAME=VALUE, such as stall_ms=3000");
    memcpy(name, text, length);
    name[length] = 0;
    json_t *value = setting_value(equals + 1);
    if (!value)
        return ctl_usage("host-set", "--set: a value that is no text");
    json_object_set_new(params, name, value);
    return CTL_OK;
}

static int take_option(json_t *params, int option)
{
    static const char *const levels[] = {"high", "soft", "hard", "low"};
    static const char *const margin[] = {"hysteresis"};
    static const char *const gains[] = {"sample_slow_gain", "sample_fast_gain"};
    switch (option) {
    case OPT_POLICY:
        json_object_set_new(params, "policy", json_string(optarg));
        return CTL_OK;
    case OPT_PERIOD:
        return take_count(params, "--period", "period_ms", 100, 600000);
    case OPT_TAX:
        return take_count(params, "--idle-tax", "idle_tax_percent", 0, 99);
    case OPT_THRESHOLDS:
        return take_numbers(thresholds_of(params), "--thresholds", optarg, levels, 4);
    case OPT_SLIDING:
        return take_switch(thresholds_of(params), "--sliding", "sliding");
    case OPT_SHARING:
        return take_switch(params, "--sharing", "sharing");
    case OPT_SAMPLE_PAGES:
        return take_count(params, "--sample-pages", "sample_pages", 0, 1048576);
    case OPT_SAMPLE_PERIOD:
        return take_count(params, "--sample-period", "sample_period_ms", 100, 3600000);
    case OPT_SAMPLE_GAINS:
        return take_numbers(params, "--sample-gains", optarg, gains, 2);
    case OPT_COUNT_TOUCHED:
        return take_switch(params, "--count-touched", "count_touched");
    case OPT_SET:
        return take_setting(params, optarg);
    default:
        return take_numbers(thresholds_of(params), "--hysteresis", optarg, margin, 1);
    }
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    json_t *params;
    int status = options_params(argc, argv, options, take_option, 0, "set what?", &params);
    if (status != CTL_OK)
        return status;
    return ctl_do(ctl, "host.set", params);
}

const struct command command_host_set = {
    .name = "host-set",
    .arguments = "OPTION...",
    .summary = "change policy and settings of the host",
    .details =
        "  --policy NAME           takes over at once; ballastctl call host.policies lists them\n"
        "  --period MS             between two rounds of the policy, 100 to 600000\n"
        "  --idle-tax PERCENT      idle memory tax, 0 to 99, for policies that tax\n"
        "  --thresholds H,S,H,L    free memory that divides the states high, soft, hard\n"
        "                          and low, in percent; default 6,4,2,1\n"
        "  --hysteresis FRACTION   a state is left upwards above its threshold times\n"
        "                          1 + this; default 0.25\n"
        "  --sliding on|off        thresholds that slide with the size of the machine, as\n"
        "                          in ESX 5, instead; default off\n"
        "  --sharing on|off        look for pages to share; off leaves what is shared\n"
        "  --sample-pages N        pages sampled in a period to estimate a VM's active memory,\n"
        "                          0 to 1048576, 0: none; default 100\n"
        "  --sample-period MS      of a VM's own time, 100 to 3600000; default 30000\n"
        "  --sample-gains SLOW,FAST  weight of the newest period in the two averages, above 0,\n"
        "                          at most 1; default 0.25,0.75\n"
        "  --count-touched on|off  count every page that is touched in a period, too: the truth\n"
        "                          beside the estimate, touched_pages in stats; default off\n"
        "  --set NAME=VALUE        anything else that host.set takes, a number, on or off, or a\n"
        "                          word: stall_ms=3000, shared_charge=full;\n"
        "                          ballastctl host shows them\n",
    .run = run,
};
