/* ballastctl: the table of subcommands, and the options common to all. */
#include "daemon/ballastctl/connection.h"
#include "daemon/ballastctl/ctl.h"

#include "daemon/size_text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEFAULT_SOCKET "/run/ballast/ballastd.sock"

static const struct command *const command_table[] = {
    &command_create,   &command_list,    &command_stats,  &command_watch,   &command_pause,
    &command_resume,   &command_destroy, &command_set,    &command_target,  &command_host,
    &command_host_set, &command_check,   &command_events, &command_console, &command_call,
    &command_version,  &command_policy,  &command_top,    &command_metrics, &command_why,
    &command_record,   &command_sharing,
};
#define COMMANDS (sizeof command_table / sizeof command_table[0])

/* ---- what commands share ---- */

static void complain(const char *format, va_list ap)
{
    char text[1024];
    vsnprintf(text, sizeof text, format, ap);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = ' '; /* one line, and nothing a terminal would obey */
    fprintf(stderr, "ballastctl: %s\n", text);
}

int ctl_fail(int status, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    complain(format, ap);
    va_end(ap);
    return status;
}

int ctl_usage(const char *command, const char *format, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return ctl_fail(CTL_USAGE, "%s: %s (see ballastctl %s --help)", command, text, command);
}

int ctl_parse_size(const char *command, const char *option, const char *text, uint64_t *bytes)
{
    struct err err;
    if (size_parse(text, 1, bytes, &err) < 0)
        return ctl_usage(command, "%s: %s", option, err.text);
    return CTL_OK;
}

int ctl_parse_count(const char *command, const char *option, const char *text, uint64_t least,
                    uint64_t most, uint64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || *value < least || *value > most)
        return ctl_usage(command, "%s: '%.40s' is not a whole number from %llu to %llu", option,
                         text, (unsigned long long)least, (unsigned long long)most);
    return CTL_OK;
}

int ctl_parse_switch(const char *command, const char *option, const char *text, bool *on)
{
    *on = strcmp(text, "on") == 0;
    if (!*on && strcmp(text, "off") != 0)
        return ctl_usage(command, "%s: write on or off, not '%.40s'", option, text);
    return CTL_OK;
}

static int connect_once(struct ctl *ctl)
{
    struct err err;
    if (!ctl->connection)
        ctl->connection = connection_open(ctl->socket_path, &err);
    return ctl->connection ? CTL_OK : ctl_fail(CTL_NO_DAEMON, "%s", err.text);
}

int ctl_call(struct ctl *ctl, const char *method, json_t *params, json_t **result)
{
    struct err err;
    int status = connect_once(ctl);
    if (status != CTL_OK) {
        json_decref(params);
        return status;
    }
    switch (connection_call(ctl->connection, method, params, result, &err)) {
    case CALL_ANSWERED:
        return CTL_OK;
    case CALL_REFUSED:
        return ctl_fail(CTL_REFUSED, "%s", err.text);
    default:
        return ctl_fail(CTL_NO_DAEMON, "%s", err.text);
    }
}

int ctl_do(struct ctl *ctl, const char *method, json_t *params)
{
    json_t *result;
    int status = ctl_call(ctl, method, params, &result);
    if (status != CTL_OK)
        return status;
    if (ctl->json)
        ctl_print_json(result, false);
    json_decref(result);
    return CTL_OK;
}

int ctl_next(struct ctl *ctl, const char *method, json_t **params)
{
    struct err err;
    for (;;) {
        json_t *message = connection_next(ctl->connection, &err);
        if (!message)
            return ctl_fail(CTL_NO_DAEMON, "%s", err.text);
        const char *name = json_string_value(json_object_get(message, "method"));
        bool wanted = name && strcmp(name, method) == 0;
        *params = wanted ? json_incref(json_object_get(message, "params")) : NULL;
        json_decref(message);
        if (*params)
            return CTL_OK;
    }
}

const char *ctl_moment(uint64_t time_ns, char text[CTL_MOMENT_BYTES])
{
    struct tm tm;
    time_t seconds = (time_t)(time_ns / 1000000000);
    size_t used = 0;
    if (gmtime_r(&seconds, &tm))
        used = strftime(text, CTL_MOMENT_BYTES - 8, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + used, CTL_MOMENT_BYTES - used, ".%03uZ", (unsigned)(time_ns / 1000000 % 1000));
    return text;
}

void ctl_print_json(const json_t *value, bool one_line)
{
    json_dumpf(value, stdout, JSON_ENCODE_ANY | (one_line ? JSON_COMPACT : JSON_INDENT(2)));
    putchar('\n');
    if (one_line)
        fflush(stdout);
}

/* ---- the command line ---- */

static void print_help(void)
{
    printf("usage: ballastctl [--socket PATH] [--json] COMMAND [ARGUMENT...]\n"
           "\n"
           "Controls a ballastd over its socket.\n"
           "\n"
           "commands:\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-9s %s\n", command_table[i]->name, command_table[i]->summary);
    printf("\n"
           "options, before or after the command:\n"
           "  --socket PATH  the daemon's socket; default $BALLAST_SOCKET, else\n"
           "                 " DEFAULT_SOCKET "\n"
           "  --json         print what the daemon answered, as JSON\n"
           "  --help         this text, or that of the command\n"
           "\n"
           "Sizes are numbers of bytes or such as 256MiB, 1.5G.\n"
           "\n"
           "exit status:\n"
           "  0  done\n"
           "  1  the daemon refused, or output could not be written\n"
           "  2  the command line is wrong\n"
           "  3  no connection to the daemon, or it broke\n"
           "  4  check: an invariant is violated\n");
}

static void print_command_help(const struct command *command)
{
    printf("usage: ballastctl %s%s%s\n\n%s.\n", command->name, command->arguments[0] ? " " : "",
           command->arguments, command->summary);
    if (command->details)
        printf("\n%s", command->details);
    printf("\nCommon options and exit status: ballastctl --help\n");
}

/* Take the common options out of argv, wherever they stand before "--". Returns CTL_OK, or
 * CTL_USAGE reported. */
static int take_common_options(struct ctl *ctl, int *argc, char **argv, bool *help)
{
    int kept = 1;
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            while (i < *argc)
                argv[kept++] = argv[i++];
        } else if (strcmp(argv[i], "--json") == 0) {
            ctl->json = true;
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            *help = true;
        } else if (strncmp(argv[i], "--socket=", 9) == 0) {
            ctl->socket_path = argv[i] + 9;
        } else if (strcmp(argv[i], "--socket") == 0) {
            if (i + 1 == *argc)
                return ctl_fail(CTL_USAGE, "--socket needs a path");
            ctl->socket_path = argv[++i];
        } else {
            argv[kept++] = argv[i];
        }
    }
    *argc = kept;
    argv[kept] = NULL;
    return CTL_OK;
}

static const struct command *find_command(const char *name)
{
    if (strcmp(name, "--version") == 0)
        return &command_version;
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(command_table[i]->name, name) == 0)
            return command_table[i];
    return NULL;
}

int main(int argc, char **argv)
{
    const char *socket_path = getenv("BALLAST_SOCKET");
    struct ctl ctl = {.socket_path = socket_path ? socket_path : DEFAULT_SOCKET};
    bool help = false;
    int status = take_common_options(&ctl, &argc, argv, &help);
    if (status != CTL_OK)
        return status;
    if (argc < 2 && !help)
        return ctl_fail(CTL_USAGE, "which command? (see ballastctl --help)");
    const struct command *command = argc < 2 ? NULL : find_command(argv[1]);
    if (argc >= 2 && !command)
        return ctl_fail(CTL_USAGE, "no command '%s' (see ballastctl --help)", argv[1]);
    if (help && command)
        print_command_help(command);
    else if (help)
        print_help();
    else
        status = command->run(&ctl, argc - 1, argv + 1);
    connection_close(ctl.connection);
    if (fflush(stdout) != 0 || ferror(stdout))
        return ctl_fail(CTL_REFUSED, "write standard output: %s", strerror(errno));
    return status;
}
