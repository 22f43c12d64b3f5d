/*
 * ballastctl record: everything the daemon says, into a file (record_file.h).
 *
 * One line a notification, as it came, so that what the daemon learns to say is
 * recorded too. Nothing is kept: when the disk is slow the daemon drops rows for
 * this slow reader as for any other, says how many, and that is recorded.
 */
#include "daemon/ballastctl/record.h"

#include "daemon/ballastctl/connection.h"
#include "daemon/ballastctl/options.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SYNC_MS 1000
#define AT_ONCE 64 /* notifications taken between two looks at clock and signals */

enum { OPT_INTERVAL = 1, OPT_DURATION, OPT_REPLACE };
static const struct option options[] = {
    {"output", required_argument, NULL, 'o'},
    {"interval", required_argument, NULL, OPT_INTERVAL},
    {"duration", required_argument, NULL, OPT_DURATION},
    {"replace", no_argument, NULL, OPT_REPLACE},
    {0},
};

/* What is recorded. Those that are not needed are left out when a daemon does not know them. */
static const struct stream {
    const char *subscribe, *method, *kind;
    bool needed;
} streams[] = {
    {"events.subscribe", "event", "event", true},
    {"rounds.subscribe", "policy.round", "round", false},
    {"decisions.subscribe", "decision", "decision", false},
    {"stats.subscribe", "stats.rows", "rows", true},
};
#define STREAMS (sizeof streams / sizeof streams[0])

struct recording {
    struct ctl *ctl;
    const char *path;
    char default_path[64];
    bool replace;
    uint64_t interval_ms, duration_s;
    struct record_writer *file;
    bool subscribed[STREAMS];
    uint64_t counts[STREAMS], lost;
    const char *reason; /* why it ended; NULL: it goes on */
    char text[300];     /* the same for people, where there is more to say */
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- the beginning ---- */

static int subscribe(struct recording *recording)
{
    struct err err;
    json_t *result;
    for (size_t i = 0; i < STREAMS; i++) {
        json_t *params = strcmp(streams[i].kind, "rows") == 0
                             ? json_pack("{s:I}", "interval_ms", (json_int_t)recording->interval_ms)
                             : NULL;
        switch (connection_call(recording->ctl->connection, streams[i].subscribe, params, &result,
                                &err)) {
        case CALL_ANSWERED:
            recording->subscribed[i] = true;
            json_decref(result);
            break;
        case CALL_REFUSED:
            if (!streams[i].needed)
                break;
            return ctl_fail(CTL_REFUSED, "%s: %s", streams[i].subscribe, err.text);
        case CALL_BROKEN:
            return ctl_fail(CTL_NO_DAEMON, "%s", err.text);
        }
    }
    return CTL_OK;
}

/* What a reader of the file needs to know of the daemon beside what streams say. */
static int make_header(struct recording *recording, json_t **header)
{
    json_t *host, *policies, *sharing, *kinds = json_array();
    struct timespec now;
    char created[32];
    int status = ctl_call(recording->ctl, "host.policies", NULL, &policies);
    if (status != CTL_OK)
        return status;
    if ((status = ctl_call(recording->ctl, "sharing.stats", NULL, &sharing)) != CTL_OK)
        return status;
    if ((status = ctl_call(recording->ctl, "host.stats", NULL, &host)) != CTL_OK)
        return status;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm tm;
    gmtime_r(&now.tv_sec, &tm);
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", &tm);
    for (size_t i = 0; i < STREAMS; i++)
        if (recording->subscribed[i])
            json_array_append_new(kinds, json_string(streams[i].kind));
    *header =
        json_pack("{s:i, s:s, s:s, s:I, s:I, s:o, s:O, s:o, s:o, s:o}", "version", RECORD_VERSION,
                  "ballastctl", BALLAST_VERSION, "created", created, "realtime_ns",
                  (json_int_t)now.tv_sec * 1000000000 + now.tv_nsec, "interval_ms",
                  (json_int_t)recording->interval_ms, "streams", kinds, "daemon",
                  connection_greeting(recording->ctl->connection), "host", host, "policies",
                  json_incref(json_object_get(policies, "policies")), "sharing", sharing);
    json_decref(policies);
    return *header ? CTL_OK : ctl_fail(CTL_REFUSED, "the daemon's settings: out of memory");
}

static int begin(struct recording *recording)
{
    struct err err;
    json_t *header, *version;
    /* The first call connects; it must come before anything is subscribed. */
    int status = ctl_call(recording->ctl, "host.version", NULL, &version);
    if (status != CTL_OK)
        return status;
    json_decref(version);
    if ((status = subscribe(recording)) != CTL_OK ||
        (status = make_header(recording, &header)) != CTL_OK)
        return status;
    recording->file = record_create(recording->path, recording->replace, &err);
    if (recording->file && (record_put(recording->file, RECORD_HEADER, header, &err) < 0 ||
                            record_sync(recording->file, now_ms() / 1000, &err) < 0)) {
        record_close(recording->file, NULL);
        recording->file = NULL;
    }
    json_decref(header);
    return recording->file ? CTL_OK : ctl_fail(CTL_REFUSED, "%s", err.text);
}

/* ---- recording ---- */

/* A notification of the daemon. -1 with err: it could not be written. */
static int take(struct recording *recording, const json_t *message, struct err *err)
{
    const char *method = json_string_value(json_object_get(message, "method"));
    json_t *params = json_object_get(message, "params");
    for (size_t i = 0; method && json_is_object(params) && i < STREAMS; i++) {
        if (strcmp(method, streams[i].method) != 0)
            continue;
        json_object_del(params, "subscription"); /* of this connection, which nobody knows later */
        recording->counts[i]++;
        recording->lost += (uint64_t)json_integer_value(json_object_get(params, "lost"));
        return record_put(recording->file, streams[i].kind, params, err);
    }
    return 0;
}

/* What has come from the daemon, some of it at a time: *more says whether there may be more. -1
 * with err: the file; a connection that broke is a reason to end. */
static int listen_to_daemon(struct recording *recording, bool *more, struct err *err)
{
    struct err gone;
    json_t *message;
    *more = false;
    for (int i = 0; i < AT_ONCE; i++) {
        if (connection_poll(recording->ctl->connection, &message, &gone) < 0) {
            recording->reason = "daemon";
            snprintf(recording->text, sizeof recording->text, "%.290s", gone.text);
            return 0;
        }
        if (!message)
            return 0;
        int result = take(recording, message, err);
        json_decref(message);
        if (result < 0)
            return -1;
    }
    *more = true;
    return 0;
}

static void catch_signals(sigset_t *while_waiting)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t blocked;
    sigemptyset(&blocked);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        sigaction(signals[i], &action, NULL);
        sigaddset(&blocked, signals[i]);
    }
    sigprocmask(SIG_BLOCK, &blocked, while_waiting);
    signal(SIGXFSZ, SIG_IGN); /* a limit on the file's size is an error like a full disk */
}

/* Until it ends: by time, by a signal, by the daemon. -1 with err: the file cannot be written. */
static int record_all(struct recording *recording, struct err *err)
{
    sigset_t while_waiting;
    bool more = true;
    uint64_t began_ms = now_ms(), synced_ms = began_ms;
    catch_signals(&while_waiting);
    while (!recording->reason) {
        uint64_t now = now_ms(), due_ms = synced_ms + SYNC_MS;
        uint64_t end_ms = recording->duration_s ? began_ms + recording->duration_s * 1000 : 0;
        if (now >= due_ms) {
            if (record_sync(recording->file, now / 1000, err) < 0)
                return -1;
            synced_ms = now;
            continue;
        }
        if (interrupted || (end_ms && now >= end_ms)) {
            recording->reason = interrupted ? "interrupted" : "duration";
            break;
        }
        uint64_t wait_ms = end_ms && end_ms < due_ms ? end_ms - now : due_ms - now;
        struct timespec patience = {.tv_nsec = more ? 0 : (long)(wait_ms % 1000) * 1000000,
                                    .tv_sec = more ? 0 : (time_t)(wait_ms / 1000)};
        struct pollfd wait = {.fd = connection_fd(recording->ctl->connection), .events = POLLIN};
        int ready = ppoll(&wait, 1, &patience, &while_waiting);
        if ((ready > 0 || more) && listen_to_daemon(recording, &more, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- the end ---- */

static json_t *make_end(const struct recording *recording)
{
    json_t *end =
        json_pack("{s:s, s:s*, s:I}", "reason", recording->reason, "text",
                  recording->text[0] ? recording->text : NULL, "lost", (json_int_t)recording->lost);
    for (size_t i = 0; end && i < STREAMS; i++)
        json_object_set_new(end, streams[i].kind, json_integer((json_int_t)recording->counts[i]));
    return end;
}

static int finish(struct recording *recording, int result, struct err *err)
{
    json_t *end = result == 0 ? make_end(recording) : NULL;
    if (end)
        result = record_put(recording->file, "end", end, err);
    uint64_t before_bytes = record_written_bytes(recording->file);
    struct err close_err;
    int closed = record_close(recording->file, &close_err);
    if (result == 0 && closed < 0) {
        *err = close_err;
        result = -1;
    }
    if (result < 0) {
        json_decref(end);
        return ctl_fail(CTL_REFUSED, "%s (%llu bytes of it can be read)", err->text,
                        (unsigned long long)before_bytes);
    }
    if (recording->ctl->json)
        ctl_print_json(end, true);
    else
        printf("%s: %llu samples, %llu rounds, %llu decisions, %llu events, %llu lost\n",
               recording->path, (unsigned long long)recording->counts[3],
               (unsigned long long)recording->counts[1], (unsigned long long)recording->counts[2],
               (unsigned long long)recording->counts[0], (unsigned long long)recording->lost);
    json_decref(end);
    if (strcmp(recording->reason, "daemon") == 0)
        return ctl_fail(CTL_NO_DAEMON, "%s; %s is complete up to there", recording->text,
                        recording->path);
    return CTL_OK;
}

static int record(struct recording *recording)
{
    struct err err;
    struct tm tm;
    time_t now = time(NULL);
    if (!recording->path) {
        gmtime_r(&now, &tm);
        strftime(recording->default_path, sizeof recording->default_path,
                 "ballast-%Y%m%dT%H%M%SZ.record.gz", &tm);
        recording->path = recording->default_path;
    }
    int status = begin(recording);
    if (status != CTL_OK)
        return status;
    return finish(recording, record_all(recording, &err), &err);
}

/* ---- the command ---- */

static const struct {
    const char *name;
    int (*run)(struct ctl *ctl, int argc, char **argv);
} subcommands[] = {
    {"export", record_run_export},
    {"info", record_run_info},
    {"replay", record_run_replay},
};

static int run(struct ctl *ctl, int argc, char **argv)
{
    struct recording recording = {.ctl = ctl, .interval_ms = 1000};
    int option, status = CTL_OK;
    for (size_t i = 0; argc > 1 && i < sizeof subcommands / sizeof subcommands[0]; i++)
        if (strcmp(argv[1], subcommands[i].name) == 0) {
            argv[1] = argv[0];
            return subcommands[i].run(ctl, argc - 1, argv + 1);
        }
    while (status == CTL_OK && (option = options_next(argc, argv, options, NULL)) > 0) {
        if (option == 'o')
            recording.path = optarg;
        else if (option == OPT_REPLACE)
            recording.replace = true;
        else if (option == OPT_INTERVAL)
            status = ctl_parse_count("record", "--interval", optarg, 10, 3600000,
                                     &recording.interval_ms);
        else
            status = ctl_parse_count("record", "--duration", optarg, 1, 1000000000,
                                     &recording.duration_s);
    }
    if (status != CTL_OK || option == 0)
        return CTL_USAGE;
    if ((status = options_end(argc, argv, 0, 0)) != CTL_OK)
        return status;
    return record(&recording);
}

const struct command command_record = {
    .name = "record",
    .arguments = "[-o FILE] [--duration S] | export FILE | info FILE | replay FILE",
    .summary = "write every row, round, decision and event to a file; read such files",
    .details =
        "record [-o FILE] [--interval MS] [--duration S] [--replace]\n"
        "  -o, --output FILE  default: ballast-TIME.record.gz here; not one that is there already\n"
        "  --replace          ... unless this says so\n"
        "  --interval MS      between two rows of statistics, 10 to 3600000; default 1000\n"
        "  --duration S       default: until interrupted, or the daemon ends\n"
        "\n"
        "record info FILE\n"
        "  what was recorded of which daemon, and whether the file is whole\n"
        "\n"
        "record export FILE [--rows|--host|--rounds|--decisions|--events] [-o CSV]\n"
        "  as CSV: statistics of VMs (the default) or of the host, a line a VM and sample;\n"
        "  what policies took and answered, a line a VM and round; decisions; events\n"
        "\n"
        "record replay FILE [--policy NAME] [--idle-tax PERCENT] [-o CSV]\n"
        "  decide the recorded rounds again, by the policy recorded or another one: targets\n"
        "  beside those recorded. What a VM held is as recorded, it does not follow them.\n"
        "\n"
        "The format is described in daemon/ballastctl/RECORD.md; gzip -dc FILE shows it.\n",
    .run = run,
};
