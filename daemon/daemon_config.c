#include "daemon/daemon_config.h"

#include "daemon/policy/policy.h"
#include "daemon/sharing/sharing.h"
#include "daemon/size_text.h"

#include <errno.h>
#include <ini.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define TIB (UINT64_C(1) << 40)

enum kind {
    KIND_SIZE,
    KIND_COUNT,
    KIND_PERCENT,
    KIND_FRACTION,
    KIND_SWITCH,
    KIND_CHARGE,
    KIND_TEXT,
    KIND_POLICY
};

/* Where a key lives, what it may be (limits in its own unit), and what it means. */
static const struct key {
    const char *section, *name;
    enum kind kind;
    size_t offset;
    uint64_t least, most;
    const char *meaning;
} keys[] = {
#define AT(field) offsetof(struct daemon_config, field)
    {"host", "machine_memory", KIND_SIZE, AT(host.machine_bytes), 16 * MIB, TIB,
     "memory for all guests together (1GiB)"},
    {"host", "run_dir", KIND_TEXT, AT(run_dir), 0, 0, "folder of sockets and logs (/run/ballast)"},
    {"host", "swap_dir", KIND_TEXT, AT(swap_dir), 0, 0,
     "folder of swap files (each VM's own in run_dir)"},
    {"host", "worker", KIND_TEXT, AT(worker), 0, 0, "path of ballast-worker"},
    {"host", "overhead", KIND_SIZE, AT(host.overhead_bytes), 0, TIB,
     "charged a VM in admission until measured higher (16MiB)"},
    {"host", "random_seed", KIND_COUNT, AT(host.random_seed), 0, INT64_MAX,
     "of page-out victims; 0: from the kernel (0)"},
    {"control", "socket", KIND_TEXT, AT(socket), 0, 0,
     "path of the control socket (run_dir/ballastd.sock)"},
    {"control", "socket_group", KIND_TEXT, AT(socket_group), 0, 0,
     "group whose members may change things"},
    {"metrics", "metrics_socket", KIND_TEXT, AT(metrics_socket), 0, 0,
     "path of a Unix socket that serves GET /metrics over HTTP (none)"},
    {"metrics", "metrics_port", KIND_COUNT, AT(metrics_port), 0, 65535,
     "the same on 127.0.0.1, for everyone on this host; 0: no (0)"},
    {"policy", "policy", KIND_POLICY, AT(policy), 0, 0, "name of the policy (proportional)"},
    {"policy", "period_ms", KIND_COUNT, AT(host.period_ms), 100, 600000,
     "time between two rounds (2000)"},
    {"policy", "sample_pages", KIND_COUNT, AT(host.sampling.pages), 0, 1048576,
     "pages of each VM sampled a period, to tell its active memory; 0: none (100)"},
    {"policy", "sample_period_ms", KIND_COUNT, AT(host.sampling.period_ms), 100, 3600000,
     "a period, in a VM's own time (30000)"},
    {"policy", "sample_slow_gain", KIND_FRACTION, AT(host.sampling.slow_gain), 0, 0,
     "weight of the newest period in the slow average (0.25)"},
    {"policy", "sample_fast_gain", KIND_FRACTION, AT(host.sampling.fast_gain), 0, 0,
     "the same, fast average (0.75)"},
    {"policy", "count_touched", KIND_SWITCH, AT(host.sampling.count_touched), 0, 0,
     "on or off: count all pages touched a period too, beside the sample (off)"},
    {"states", "high", KIND_PERCENT, AT(host.settings.thresholds.high), 0, 0,
     "percent of machine memory free, below which balloons work (6)"},
    {"states", "soft", KIND_PERCENT, AT(host.settings.thresholds.soft), 0, 0, "the same, soft (4)"},
    {"states", "hard", KIND_PERCENT, AT(host.settings.thresholds.hard), 0, 0, "paging (2)"},
    {"states", "low", KIND_PERCENT, AT(host.settings.thresholds.low), 0, 0,
     "paging and blocking (1)"},
    {"states", "hysteresis", KIND_FRACTION, AT(host.settings.thresholds.hysteresis), 0, 0,
     "a state is left upwards above threshold x (1 + this) (0.25)"},
    {"states", "sliding", KIND_SWITCH, AT(host.settings.thresholds.sliding), 0, 0,
     "on: thresholds slide with the size of the machine, as in ESX 5 (off)"},
    {"states", "sliding_soft", KIND_PERCENT, AT(host.settings.thresholds.sliding_soft), 0, 0,
     "then soft, in percent of the threshold of high (64)"},
    {"states", "sliding_hard", KIND_PERCENT, AT(host.settings.thresholds.sliding_hard), 0, 0,
     "the same, hard (32)"},
    {"states", "sliding_low", KIND_PERCENT, AT(host.settings.thresholds.sliding_low), 0, 0,
     "the same, low (16)"},
    {"watch", "watch_period_ms", KIND_COUNT, AT(host.watch.period_ms), 0, 3600000,
     "watchers look this often, 10 at least; 0: never (1000)"},
    {"watch", "watch_repeat_ms", KIND_COUNT, AT(host.watch.repeat_ms), 0, 86400000,
     "an alert that stays is told again this often (60000)"},
    {"watch", "watch_clear_ms", KIND_COUNT, AT(host.watch.clear_ms), 0, 86400000,
     "and is over when it was not seen for so long (5000)"},
    {"watch", "watch_flap_turns", KIND_COUNT, AT(host.watch.flap_turns), 2, WATCH_MOST_TURNS,
     "so many turns of a target in the window are flapping (6)"},
    {"watch", "watch_flap_window_ms", KIND_COUNT, AT(host.watch.flap_window_ms), 0, 86400000,
     "that window (60000)"},
    {"watch", "watch_flap_percent", KIND_PERCENT, AT(host.watch.flap_percent), 0, 0,
     "of a VM's memory: smaller swings do not count (5)"},
    {"watch", "watch_stall_ms", KIND_COUNT, AT(host.watch.stall_ms), 0, 86400000,
     "a balloon that should grow and does not has stalled (30000)"},
    {"watch", "watch_lie_percent", KIND_PERCENT, AT(host.watch.lie_percent), 0, 0,
     "of a VM's memory by which its numbers may differ (5)"},
    {"watch", "watch_lie_ms", KIND_COUNT, AT(host.watch.lie_ms), 0, 86400000,
     "for so long (10000)"},
    {"watch", "watch_starved_ms", KIND_COUNT, AT(host.watch.starved_ms), 0, 86400000,
     "at its min, using more and swapping, a VM starves (30000)"},
    {"watch", "watch_state_ms", KIND_COUNT, AT(host.watch.state_ms), 0, 86400000,
     "the host's state hard or low lasts (60000)"},
    {"sharing", "sharing", KIND_SWITCH, AT(host.sharing.enabled), 0, 0,
     "on or off: find pages of equal content and share them (on)"},
    {"sharing", "shared_charge", KIND_CHARGE, AT(host.sharing.charge), 0, 0,
     "to each VM for a shared frame: equal share, full or none (equal)"},
    {"sharing", "scan_min_pages_per_second", KIND_COUNT, AT(host.sharing.min_pages_per_second), 0,
     100000000, "rate of the scanner while it finds nothing (50)"},
    {"sharing", "scan_max_pages_per_second", KIND_COUNT, AT(host.sharing.max_pages_per_second), 1,
     100000000, "and at most, while it finds (100000)"},
    {"sharing", "scan_vm_pages_per_second", KIND_COUNT, AT(host.sharing.vm_pages_per_second), 0,
     100000000, "limit for each VM; 0: none (0)"},
    {"sharing", "scan_cpu_percent", KIND_PERCENT, AT(host.sharing.cpu_percent), 0, 0,
     "of one core that scanning may take (2)"},
    {"sharing", "scan_pass_ms", KIND_COUNT, AT(host.sharing.pass_ms), 0, 3600000,
     "least time from one pass over a VM to the next (2000)"},
    {"sharing", "scan_settled_only", KIND_SWITCH, AT(host.sharing.settled_only), 0, 0,
     "on or off: share only what stood unchanged from one pass to the next (on)"},
#undef AT
};

#define KEYS (sizeof keys / sizeof keys[0])

void daemon_config_default(struct daemon_config *config)
{
    *config = (struct daemon_config){0};
    supervisor_config_default(&config->host);
}

static int parse_number(const char *value, double most, double *number, struct err *err)
{
    char *end;
    errno = 0;
    *number = strtod(value, &end);
    if (end == value || *end || errno || !isfinite(*number) || strpbrk(value, "xXnN"))
        return err_set(err, 0, "'%.60s' is not a number", value);
    if (*number < 0 || *number > most)
        return err_set(err, 0, "%.60s is not between 0 and %g", value, most);
    return 0;
}

static int parse_count(const char *value, const struct key *key, uint64_t *count, struct err *err)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    if (end == value || *end || errno || strchr(value, '-'))
        return err_set(err, 0, "'%.60s' is not a whole number", value);
    if (number < key->least || number > key->most)
        return err_set(err, 0, "%llu is not between %llu and %llu", number,
                       (unsigned long long)key->least, (unsigned long long)key->most);
    *count = number;
    return 0;
}

static int set_size(void *field, const struct key *key, const char *value, struct err *err)
{
    uint64_t bytes;
    char a[32], b[32], c[32];
    if (size_parse(value, 1, &bytes, err) < 0)
        return -1;
    if (bytes < key->least || bytes > key->most || bytes % 4096)
        return err_set(err, 0, "%s is not a multiple of 4 KiB between %s and %s",
                       size_format(bytes, a), size_format(key->least, b),
                       size_format(key->most, c));
    *(uint64_t *)field = bytes;
    return 0;
}

static int set_key(struct daemon_config *config, const struct key *key, const char *value,
                   struct err *err)
{
    void *field = (char *)config + key->offset;
    uint64_t count = 0;
    double number = 0;
    switch (key->kind) {
    case KIND_SIZE:
        return set_size(field, key, value, err);
    case KIND_COUNT:
        if (parse_count(value, key, &count, err) < 0)
            return -1;
        if (key->most > UINT32_MAX)
            *(uint64_t *)field = count;
        else
            *(uint32_t *)field = (uint32_t)count;
        return 0;
    case KIND_PERCENT:
    case KIND_FRACTION:
        if (parse_number(value, key->kind == KIND_PERCENT ? 100 : 1, &number, err) < 0)
            return -1;
        *(double *)field = number;
        return 0;
    case KIND_POLICY:
        if (!policy_find(value))
            return err_set(err, 0, "no policy is called '%.60s'", value);
        break;
    case KIND_SWITCH:
        if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
            return err_set(err, 0, "'%.60s' is neither on nor off", value);
        *(bool *)field = value[1] == 'n';
        return 0;
    case KIND_CHARGE:
        if (!shared_charge_find(value, field))
            return err_set(err, 0, "'%.60s' is none of equal, full and none", value);
        return 0;
    case KIND_TEXT:
        break;
    }
    if (!value[0])
        return err_set(err, 0, "empty");
    char *copy = strdup(value);
    if (!copy)
        return err_set(err, ENOMEM, "configuration");
    free(*(char **)field);
    *(char **)field = copy;
    return 0;
}

/* ---- numbers of the policy: their table is policy/settings.c ---- */

#define POLICY_SECTION "policy"

static bool same_name(const char *option, const char *key)
{
    while (*option && *key && (*option == *key || (*option == '-' && *key == '_'))) {
        option++;
        key++;
    }
    return !*option && !*key;
}

static const struct policy_setting *find_setting(const char *name, bool is_option)
{
    const struct policy_setting *setting;
    for (size_t i = 0; (setting = policy_setting_at(i)); i++)
        if (is_option ? same_name(name, setting->name) : strcmp(name, setting->name) == 0)
            return setting;
    return NULL;
}

static int set_setting(struct daemon_config *config, const struct policy_setting *setting,
                       const char *value, struct err *err)
{
    double number;
    if (parse_number(value, INFINITY, &number, err) < 0)
        return -1;
    return policy_setting_put(&config->host.settings, setting, number, err);
}

/* ---- the file ---- */

struct reading {
    struct daemon_config *config;
    FILE *file;
    int line;        /* read last */
    int failed_line; /* the first whose key or value was refused; 0: none */
    struct err err;  /* why */
    int read_errnum; /* of a read that failed */
};

/* fgets that counts, so that a refusal knows its line. */
static char *next_line(char *text, int bytes, void *ctx)
{
    struct reading *reading = ctx;
    reading->line++;
    char *got = fgets(text, bytes, reading->file);
    if (!got && ferror(reading->file))
        reading->read_errnum = errno;
    return got;
}

static int on_line(void *ctx, const char *section, const char *name, const char *value)
{
    struct reading *reading = ctx;
    struct err err;
    int result = 0;
    size_t i = 0;
    while (i < KEYS && (strcmp(keys[i].section, section) != 0 || strcmp(keys[i].name, name) != 0))
        i++;
    const struct policy_setting *setting = NULL;
    if (i == KEYS && strcmp(section, POLICY_SECTION) == 0)
        setting = find_setting(name, false);
    if (i < KEYS || setting) {
        result = setting ? set_setting(reading->config, setting, value, &err)
                         : set_key(reading->config, &keys[i], value, &err);
        if (result < 0)
            err_prefix(&err, "%s", name);
    } else if (!section[0]) {
        result = err_set(&err, 0, "key '%.60s' before any [section]", name);
    } else {
        result = err_set(&err, 0, "unknown key '%.60s' in section [%.60s]", name, section);
    }
    if (result < 0 && !reading->failed_line) {
        reading->failed_line = reading->line;
        reading->err = err;
    }
    return result == 0;
}

int daemon_config_read(struct daemon_config *config, const char *path, struct err *err)
{
    struct reading reading = {.config = config, .file = fopen(path, "re")};
    if (!reading.file)
        return err_set(err, errno, "%s", path);
    int line = ini_parse_stream(next_line, &reading, on_line, &reading);
    fclose(reading.file);
    if (reading.read_errnum || line < 0)
        return err_set(err, reading.read_errnum ? reading.read_errnum : ENOMEM, "%s", path);
    if (line == 0)
        return 0;
    if (line != reading.failed_line)
        return err_set(err, 0, "%s:%d: neither a [section] nor KEY = VALUE", path, line);
    *err = reading.err;
    return err_prefix(err, "%s:%d", path, line);
}

/* ---- options ---- */

int daemon_config_option(struct daemon_config *config, const char *name, const char *value,
                         struct err *err)
{
    for (size_t i = 0; i < KEYS; i++) {
        if (!same_name(name, keys[i].name))
            continue;
        if (!value)
            return err_set(err, 0, "--%s needs a value", name);
        if (set_key(config, &keys[i], value, err) < 0)
            return err_prefix(err, "--%s", name);
        return 1;
    }
    const struct policy_setting *setting = find_setting(name, true);
    if (!setting)
        return 0;
    if (!value)
        return err_set(err, 0, "--%s needs a value", name);
    return set_setting(config, setting, value, err) < 0 ? err_prefix(err, "--%s", name) : 1;
}

static void describe(FILE *to, const char *name, const char *meaning)
{
    char option[40];
    snprintf(option, sizeof option, "--%s", name);
    for (char *c = option; *c; c++)
        *c = *c == '_' ? '-' : *c;
    fprintf(to, "  %-18s %s\n", option, meaning);
}

static void describe_settings(FILE *to)
{
    const struct policy_setting *setting;
    for (size_t i = 0; (setting = policy_setting_at(i)); i++)
        describe(to, setting->name, setting->meaning);
}

void daemon_config_describe(FILE *to)
{
    const char *section = "";
    for (size_t i = 0; i < KEYS; i++) {
        if (strcmp(section, keys[i].section) != 0) {
            if (strcmp(section, POLICY_SECTION) == 0)
                describe_settings(to);
            fprintf(to, "\n [%s]\n", keys[i].section);
        }
        section = keys[i].section;
        describe(to, keys[i].name, keys[i].meaning);
    }
}

int daemon_config_finish(struct daemon_config *config, struct err *err)
{
    if (config->run_dir)
        config->host.run_dir = config->run_dir;
    config->host.swap_dir = config->swap_dir;
    config->host.worker_path = config->worker;
    if (config->policy)
        config->host.policy = config->policy;
    if (policy_settings_check(&config->host.settings, err) < 0 ||
        sharing_settings_check(&config->host.sharing, err) < 0 ||
        watch_settings_check(&config->host.watch, err) < 0)
        return -1;
    if (!config->socket) {
        size_t bytes = strlen(config->host.run_dir) + sizeof DEFAULT_SOCKET_NAME + 1;
        config->socket = malloc(bytes);
        if (!config->socket)
            return err_set(err, ENOMEM, "configuration");
        snprintf(config->socket, bytes, "%s/%s", config->host.run_dir, DEFAULT_SOCKET_NAME);
    }
    return 0;
}

void daemon_config_free(struct daemon_config *config)
{
    free(config->run_dir);
    free(config->swap_dir);
    free(config->worker);
    free(config->policy);
    free(config->socket);
    free(config->socket_group);
    free(config->metrics_socket);
}
