/*
 * The file of ballastctl record: compressed lines of JSON, after RECORD.md.
 *
 *   file    = member...             gzip members (RFC 1952), as gzip -d reads them
 *   member  = line...               a whole number of lines, at most a few MiB
 *   line    = {"KIND": value} \n    the first: {"ballast_record": {"version": 1, ...}}
 *
 * A member has a checksum, so the reader hands out no line that was damaged. The
 * last one may have been cut off (recorder killed, disk full); for it there are
 * lines of kind "sync" with the checksum of the member's text before them, written
 * at every sync, and its lines count up to the last of those. Both sides hold one member and no
 * more in memory. A file is somebody else's bytes: everything in it is bounded.
 */
#ifndef BALLAST_RECORD_FILE_H
#define BALLAST_RECORD_FILE_H

#include "vmm-core/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define RECORD_VERSION          1
#define RECORD_SYNC_FORMAT      "{\"sync\":{\"crc32\":%lu}}\n"
#define RECORD_HEADER           "ballast_record"    /* kind of the first line */
#define RECORD_MEMBER_BYTES     ((size_t)256 << 10) /* a member is ended when it has this much... */
#define RECORD_MEMBER_SECONDS   30                  /* ...or is this old, at the next sync */
#define RECORD_MEMBER_BYTES_MAX ((size_t)64 << 20)  /* a reader's bound */
#define RECORD_LINE_BYTES_MAX   ((size_t)32 << 20)

/* ---- writing ---- */

struct record_writer;

/* A new file; replace: an old one may be there. NULL with err. */
struct record_writer *record_create(const char *path, bool replace, struct err *err);

/* One line. Not in the file before the next sync. After an error the file is whole up to the last
 * sync, and nothing but record_close may follow. -1 with err. */
int record_put(struct record_writer *writer, const char *kind, const json_t *value,
               struct err *err);

/* Everything put so far can be read from the file now. now_s is any clock of seconds. */
int record_sync(struct record_writer *writer, uint64_t now_s, struct err *err);

/* In the file so far. */
uint64_t record_written_bytes(const struct record_writer *writer);

/* End the file and forget the writer. -1 with err: the end could not be written; what was synced
 * is there. */
int record_close(struct record_writer *writer, struct err *err);

/* ---- reading ---- */

struct record_reader;

/* The file at path, or open as fd (taken over; path is for messages), from its beginning. NULL
 * with err: not there, no record, of a newer version. */
struct record_reader *record_open(const char *path, struct err *err);
struct record_reader *record_open_fd(int fd, const char *path, struct err *err);
void record_reader_free(struct record_reader *reader);

/* What the first line holds: version, when, the daemon's greeting and settings. */
const json_t *record_header(const struct record_reader *reader);

/* The next line: its kind (valid as long as *value) and value, to be released. 1; 0 at the end; -1
 * with err for a damaged file: what was handed out before is sound. Kinds that are not known are
 * to be skipped. */
int record_next(struct record_reader *reader, const char **kind, json_t **value, struct err *err);

/* At the end: was the file cut off? */
bool record_is_cut(const struct record_reader *reader);

#endif
