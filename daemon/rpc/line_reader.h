/*
 * Framing: lines out of a stream of bytes, with a bound.
 *
 * Bytes go in as they come; whole lines come out, without their newline. A line
 * over the bound is reported once, when the bound is passed, and skipped to its
 * end, so that a client that sends gigabytes without a newline costs the bound
 * and no more.
 */
#ifndef BALLAST_LINE_READER_H
#define BALLAST_LINE_READER_H

#include <stdbool.h>
#include <stddef.h>

struct line_reader {
    size_t max_bytes; /* of a line */
    char *bytes;      /* not yet taken: start .. end; capacity allocated */
    size_t start, end, capacity;
    size_t searched; /* no newline before here */
    bool skipping;   /* inside a line that was too long */
};

enum line_result {
    LINE_NONE,     /* no whole line yet */
    LINE_READY,    /* *line, *length: valid until the next call */
    LINE_TOO_LONG, /* the next line exceeds the bound and is being skipped */
};

void line_reader_init(struct line_reader *reader, size_t max_bytes);
void line_reader_free(struct line_reader *reader);

/* Room for at least one more byte, at most 64 KiB: read into *room, then line_reader_took. NULL:
 * no memory. Call only after line_reader_next said LINE_NONE. */
char *line_reader_room(struct line_reader *reader, size_t *room_bytes);
void line_reader_took(struct line_reader *reader, size_t bytes);

enum line_result line_reader_next(struct line_reader *reader, const char **line, size_t *length);

/* At the end of the stream: is there a line without its newline? */
bool line_reader_has_rest(const struct line_reader *reader);

#endif
