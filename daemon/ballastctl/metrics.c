/*
 * ballastctl metrics: every statistic in Prometheus' text format, for those who
 * have no use for HTTP: on standard output, or as a file that is replaced whole,
 * as node-exporter's textfile collector wants it.
 */
#include "daemon/ballastctl/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPT_OPENMETRICS = 1 };
static const struct option options[] = {
    {"openmetrics", no_argument, NULL, OPT_OPENMETRICS},
    {"output", required_argument, NULL, 'o'},
    {0},
};

static int write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, text, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        text += written;
        length -= (size_t)written;
    }
    return 0;
}

/* A new file beside it takes its place when it is whole: no reader meets half of it, and what
 * cannot be written leaves the old one. The name does not end in .prom, so nobody reads it early.
 */
static int replace_file(const char *path, const char *text)
{
    char beside[4096];
    if (snprintf(beside, sizeof beside, "%s.XXXXXX", path) >= (int)sizeof beside)
        return ctl_fail(CTL_REFUSED, "%.100s...: %s", path, strerror(ENAMETOOLONG));
    int fd = mkstemp(beside);
    if (fd < 0)
        return ctl_fail(CTL_REFUSED, "%s: %s", beside, strerror(errno));
    int failed = write_all(fd, text, strlen(text)) < 0 || fchmod(fd, 0644) < 0 ? errno : 0;
    if (close(fd) < 0 && !failed)
        failed = errno;
    if (!failed && rename(beside, path) < 0)
        failed = errno;
    if (!failed)
        return CTL_OK;
    unlink(beside);
    return ctl_fail(CTL_REFUSED, "write %s: %s", path, strerror(failed));
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    bool open = false;
    const char *path = NULL;
    int option, status;
    json_t *result;
    while ((option = options_next(argc, argv, options, NULL)) > 0) {
        if (option == 'o')
            path = optarg;
        else
            open = true;
    }
    if (option == 0)
        return CTL_USAGE;
    if ((status = options_end(argc, argv, 0, 0)) != CTL_OK)
        return status;
    if ((status = ctl_call(ctl, "host.metrics", json_pack("{s:b}", "openmetrics", open),
                           &result)) != CTL_OK)
        return status;
    const char *text = json_string_value(json_object_get(result, "text"));
    if (!text)
        status = ctl_fail(CTL_REFUSED, "the daemon answered no metrics");
    else if (path)
        status = replace_file(path, text);
    else if (ctl->json)
        ctl_print_json(result, false);
    else
        fputs(text, stdout);
    json_decref(result);
    return status;
}

const struct command command_metrics = {
    .name = "metrics",
    .arguments = "[--openmetrics] [-o FILE]",
    .summary = "every statistic in Prometheus' text format",
    .details = "  --openmetrics      OpenMetrics 1.0.0 instead\n"
               "  -o, --output FILE  into a file that is replaced whole, such as one of\n"
               "                     node-exporter's textfile collector\n"
               "\n"
               "Names, and a timer that writes the file, are in daemon/metrics/METRICS.md.\n"
               "ballastd --metrics-socket serves the same over HTTP.\n",
    .run = run,
};
