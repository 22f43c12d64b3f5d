/*
 * Configuration of ballastd: an INI file and options of the same names, both
 * served by one table (daemon_config.c), so that a key is one line there and
 * "ballastd --help" cannot forget it. Every key has its section in the file;
 * options are the keys with dashes: machine_memory = 2GiB, --machine-memory 2GiB.
 * An unknown key, a value that does not parse, or one that no machine can have
 * is an error that names file and line.
 */
#ifndef BALLAST_DAEMON_CONFIG_H
#define BALLAST_DAEMON_CONFIG_H

#include "daemon/supervisor.h"

#include <stdio.h>

#define DEFAULT_SOCKET_NAME "ballastd.sock" /* in run_dir */

struct daemon_config {
    struct supervisor_config host; /* strings are ours */
    char *run_dir, *swap_dir, *worker, *policy, *socket, *socket_group;
    char *metrics_socket;  /* NULL: none */
    uint32_t metrics_port; /* 0: none */
};

void daemon_config_default(struct daemon_config *config);

/* Read a file over what config holds. -1 with err "FILE:LINE: ...". */
int daemon_config_read(struct daemon_config *config, const char *path, struct err *err);

/* One option, named without its leading dashes; value NULL when none was given. Returns 1 if the
 * option is known and was set, 0 if it is not ours, -1 with err. */
int daemon_config_option(struct daemon_config *config, const char *name, const char *value,
                         struct err *err);

/* Fill what depends on other keys (the socket's path), and check what only makes sense together. */
int daemon_config_finish(struct daemon_config *config, struct err *err);

void daemon_config_free(struct daemon_config *config);

/* The table, for --help. */
void daemon_config_describe(FILE *to);

#endif
