/*
 * ballastctl record, in parts:
 *   record.c          the command; recording
 *   record_file.h     the file: record_writer.c, record_reader.c
 *   record_export.c   rows, rounds, decisions, events as CSV
 *   record_info.c     what is in a file
 *   record_report.c   how those begin and end
 *   record_round.c    a recorded round of policy as the policy takes it
 *   record_replay.c   deciding recorded rounds again
 * The format is described in RECORD.md.
 */
#ifndef BALLAST_CTL_RECORD_H
#define BALLAST_CTL_RECORD_H

#include "daemon/ballastctl/ctl.h"
#include "daemon/ballastctl/record_file.h"

#include <stdio.h>

/* The subcommands of record; argv[0] is "record". An exit status. */
int record_run_export(struct ctl *ctl, int argc, char **argv);
int record_run_info(struct ctl *ctl, int argc, char **argv);
int record_run_replay(struct ctl *ctl, int argc, char **argv);

/* What they share: open the file for reading, and say so if it ended before its time or is
 * damaged. NULL: reported. */
struct record_reader *record_open_reported(const char *path);
/* After the last record_next, whose result it takes. An exit status. */
int record_finish(struct record_reader *reader, const char *path, int result,
                  const struct err *err);

/* Where CSV goes: a file, or standard output for NULL. NULL: reported. */
FILE *record_open_output(const char *path);
/* CTL_OK, or the failure to write all of it, reported. */
int record_close_output(FILE *output, const char *path);

#endif
