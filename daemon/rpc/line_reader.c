#include "daemon/rpc/line_reader.h"

#include <stdlib.h>
#include <string.h>

#define READ_BYTES  ((size_t)64 << 10)
#define FIRST_BYTES ((size_t)4 << 10)

void line_reader_init(struct line_reader *reader, size_t max_bytes)
{
    *reader = (struct line_reader){.max_bytes = max_bytes};
}

void line_reader_free(struct line_reader *reader)
{
    free(reader->bytes);
    reader->bytes = NULL;
}

char *line_reader_room(struct line_reader *reader, size_t *room_bytes)
{
    if (reader->start > 0) { /* what is left of the last read is short: move it to the front */
        size_t kept = reader->end - reader->start;
        memmove(reader->bytes, reader->bytes + reader->start, kept);
        reader->searched -= reader->start;
        reader->start = 0;
        reader->end = kept;
    }
    if (reader->end == reader->capacity) {
        size_t capacity = reader->capacity ? 2 * reader->capacity : FIRST_BYTES;
        char *bytes = realloc(reader->bytes, capacity);
        if (!bytes)
            return NULL;
        reader->bytes = bytes;
        reader->capacity = capacity;
    }
    *room_bytes = reader->capacity - reader->end;
    if (*room_bytes > READ_BYTES)
        *room_bytes = READ_BYTES;
    return reader->bytes + reader->end;
}

void line_reader_took(struct line_reader *reader, size_t bytes)
{
    reader->end += bytes;
}

/* Nothing is left to keep: forget the bytes, and give a large buffer back. */
static void reset(struct line_reader *reader)
{
    reader->start = reader->end = reader->searched = 0;
    if (reader->capacity > READ_BYTES) {
        free(reader->bytes);
        reader->bytes = NULL;
        reader->capacity = 0;
    }
}

enum line_result line_reader_next(struct line_reader *reader, const char **line, size_t *length)
{
    for (;;) {
        char *newline = NULL;
        if (reader->end > reader->searched)
            newline =
                memchr(reader->bytes + reader->searched, '\n', reader->end - reader->searched);
        if (reader->skipping) {
            if (!newline) {
                reset(reader);
                return LINE_NONE;
            }
            reader->skipping = false;
            reader->start = reader->searched = (size_t)(newline - reader->bytes) + 1;
            continue;
        }
        size_t seen = (newline ? (size_t)(newline - reader->bytes) : reader->end) - reader->start;
        if (seen > reader->max_bytes) {
            reader->skipping = true;
            return LINE_TOO_LONG;
        }
        if (!newline) {
            reader->searched = reader->end;
            if (reader->start == reader->end)
                reset(reader);
            return LINE_NONE;
        }
        *line = reader->bytes + reader->start;
        *length = seen;
        reader->start = reader->searched = reader->start + seen + 1;
        return LINE_READY;
    }
}

bool line_reader_has_rest(const struct line_reader *reader)
{
    return reader->end > reader->start;
}
