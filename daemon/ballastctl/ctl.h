/*
 * ballastctl: the control socket from a shell. A subcommand is one file with
 * one struct command, and one line in command_table[] (main.c).
 *
 * What all of them keep to:
 *   - tables for people by default, the daemon's own JSON with --json;
 *   - one line on standard error for a failure;
 *   - exit status as enum ctl_status says.
 */
#ifndef BALLAST_CTL_H
#define BALLAST_CTL_H

#include "vmm-core/err.h"

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum ctl_status {
    CTL_OK = 0,
    CTL_REFUSED = 1,      /* the daemon said no, or output could not be written */
    CTL_USAGE = 2,        /* the command line is wrong */
    CTL_NO_DAEMON = 3,    /* no connection, or it broke */
    CTL_CHECK_FAILED = 4, /* check: an invariant is violated */
};

struct connection;

struct ctl {
    const char *socket_path;
    bool json;
    struct connection *connection; /* opened by the first call */
};

struct command {
    const char *name, *arguments, *summary;
    const char *details;                                /* options and what else --help says */
    int (*run)(struct ctl *ctl, int argc, char **argv); /* argv[0] is the name; an exit status */
};

/* One file each. */
extern const struct command command_call, command_check, command_console, command_create,
    command_destroy, command_events, command_host, command_host_set, command_list, command_metrics,
    command_pause, command_policy, command_record, command_resume, command_set, command_sharing,
    command_stats, command_target, command_top, command_version, command_watch, command_why;

/* Print "ballastctl: ..." in one line on standard error; returns status. */
int ctl_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The command line is wrong: say how, and where help is. Returns CTL_USAGE. */
int ctl_usage(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A size such as 256MiB from the command line, in *bytes. Returns CTL_OK or CTL_USAGE (reported).
 */
int ctl_parse_size(const char *command, const char *option, const char *text, uint64_t *bytes);

/* A whole number from least to most. The same. */
int ctl_parse_count(const char *command, const char *option, const char *text, uint64_t least,
                    uint64_t most, uint64_t *value);

/* on or off. The same. */
int ctl_parse_switch(const char *command, const char *option, const char *text, bool *on);

/* Call method with params (taken over; NULL: none). CTL_OK with *result, to be released; or an
 * exit status, and the failure has been reported. */
int ctl_call(struct ctl *ctl, const char *method, json_t *params, json_t **result);

/* The same for a method whose answer says little more than that it was done: printed with --json
 * only. An exit status. */
int ctl_do(struct ctl *ctl, const char *method, json_t *params);

/* The next notification called method: its params in *params. Other kinds are skipped. */
int ctl_next(struct ctl *ctl, const char *method, json_t **params);

/* A moment of the real-time clock: "2026-01-02T03:04:05.678Z". Returns text. */
#define CTL_MOMENT_BYTES 48
const char *ctl_moment(uint64_t time_ns, char text[CTL_MOMENT_BYTES]);

/* Print JSON on standard output: indented, or in one line for streams. */
void ctl_print_json(const json_t *value, bool one_line);

#endif
