/* ballastctl metrics: every statistic in Prometheus' text format, for files instead of HTTP. */
#include "daemon/ballastctl/options.h"

#include <stdio.h>

enum { OPT_OPENMETRICS = 1 };
static const struct option options[] = {
    {"openmetrics", no_argument, NULL, OPT_OPENMETRICS},
    {0},
};

static int run(struct ctl *ctl, int argc, char **argv)
{
    bool open = false;
    int option, status;
    json_t *result;
    while ((option = options_next(argc, argv, options, NULL)) > 0)
        open = true;
    if (option == 0)
        return CTL_USAGE;
    if ((status = options_end(argc, argv, 0, 0)) != CTL_OK)
        return status;
    if ((status = ctl_call(ctl, "host.metrics", json_pack("{s:b}", "openmetrics", open),
                           &result)) != CTL_OK)
        return status;
    const char *text = json_string_value(json_object_get(result, "text"));
    if (ctl->json)
        ctl_print_json(result, false);
    else
        fputs(text ? text : "", stdout);
    json_decref(result);
    return CTL_OK;
}

const struct command command_metrics = {
    .name = "metrics",
    .arguments = "[--openmetrics]",
    .summary = "every statistic in Prometheus' text format",
    .details =
        "  --openmetrics  OpenMetrics 1.0.0 instead\n"
        "\n"
        "For node-exporter's textfile collector write a file beside its own and rename it:\n"
        "  ballastctl metrics > ballast.prom.new && mv ballast.prom.new ballast.prom\n"
        "Names are in daemon/metrics/METRICS.md. ballastd --metrics-socket serves the same.\n",
    .run = run,
};
