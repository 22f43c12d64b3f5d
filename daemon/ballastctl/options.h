/* Options of one subcommand, over getopt_long, with our own way of complaining. */
#ifndef BALLAST_CTL_OPTIONS_H
#define BALLAST_CTL_OPTIONS_H

#include "daemon/ballastctl/ctl.h"

/*
 * Like getopt_long: the val of the next option (optarg is set, and *index, if not
 * NULL, says which row of options it was), -1 after the last (optind is then the
 * first plain argument), or 0 for a mistake, which has been reported. Use val from
 * 1; a val that is a letter is the option's short form too, and -f is --file.
 */
int options_next(int argc, char **argv, const struct option *options, int *index);

/* After the last option: CTL_OK if from least to most plain arguments are left. */
int options_end(int argc, char **argv, int least, int most);

/*
 * For commands whose options are the params of their method: every option goes
 * through take, which puts optarg in params; then there must be `plain` plain
 * arguments and at least one option, or the complaint is what to set. CTL_OK with
 * *params, to be released.
 */
int options_params(int argc, char **argv, const struct option *options,
                   int (*take)(json_t *params, int option), int plain, const char *set_what,
                   json_t **params);

/* For commands without options of their own: both at once. */
int options_none(int argc, char **argv, int least, int most);

#endif
