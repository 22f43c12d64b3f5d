#include "daemon/ballastctl/record_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define INPUT_BYTES 65536
#define FIRST_BYTES ((size_t)256 << 10)
#define GZIP_WINDOW (15 + 16)

struct record_reader {
    int fd;
    z_stream inflater;
    bool input_ended, cut;
    uint64_t members, lines; /* handed out so far */
    char *text;              /* the lines of one member, sound: start .. end */
    size_t start, end, capacity;
    json_t *header;
    char path[512];
    unsigned char input[INPUT_BYTES];
};

/* ---- members ---- */

/* More input, if there is any. -1 with err: the disk said no. */
static int fill_input(struct record_reader *reader, struct err *err)
{
    if (reader->inflater.avail_in > 0 || reader->input_ended)
        return 0;
    ssize_t got;
    do
        got = read(reader->fd, reader->input, INPUT_BYTES);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return err_set(err, errno, "read %s", reader->path);
    reader->input_ended = got == 0;
    reader->inflater.next_in = reader->input;
    reader->inflater.avail_in = (uInt)got;
    return 0;
}

static int grow(struct record_reader *reader, struct err *err)
{
    if (reader->end < reader->capacity)
        return 0;
    if (reader->capacity >= RECORD_MEMBER_BYTES_MAX)
        return err_set(err, 0, "%s: a member of more than %zu bytes after line %llu", reader->path,
                       RECORD_MEMBER_BYTES_MAX, (unsigned long long)reader->lines);
    size_t capacity = reader->capacity ? reader->capacity * 2 : FIRST_BYTES;
    char *text = realloc(reader->text, capacity);
    if (!text)
        return err_set(err, ENOMEM, "read %s", reader->path);
    reader->text = text;
    reader->capacity = capacity;
    return 0;
}

static int damaged(const struct record_reader *reader, const char *how, struct err *err)
{
    if (reader->members == 0)
        return err_set(err, 0, "%s is no record of ballastctl, or damaged (%s)", reader->path, how);
    return err_set(err, 0, "%s is damaged after line %llu: %s", reader->path,
                   (unsigned long long)reader->lines, how);
}

/* The end of the file in the middle of a member, or what looks like it: what counts are its lines
 * up to the last sync whose checksum is that of the text before it. */
static void take_cut(struct record_reader *reader)
{
    size_t sound = 0, at = 0;
    uLong crc = 0;
    const char *newline;
    while (at < reader->end && (newline = memchr(reader->text + at, '\n', reader->end - at))) {
        char sync[64];
        size_t length = (size_t)(newline + 1 - (reader->text + at));
        int expected = snprintf(sync, sizeof sync, RECORD_SYNC_FORMAT, crc);
        if (length == (size_t)expected && memcmp(reader->text + at, sync, length) == 0)
            sound = at + length;
        crc = crc32(crc, (const unsigned char *)reader->text + at, (uInt)length);
        at += length;
    }
    reader->cut = true;
    reader->end = sound;
}

/* Inflate the next member into text, whole, and by its checksum sound. 1; 0 at the end of the
 * file; -1 with err. */
static int next_member(struct record_reader *reader, struct err *err)
{
    int result;
    reader->start = reader->end = 0;
    if (fill_input(reader, err) < 0)
        return -1;
    if (reader->input_ended || reader->cut)
        return 0;
    inflateReset(&reader->inflater);
    do {
        if (fill_input(reader, err) < 0 || grow(reader, err) < 0)
            return -1;
        if (reader->input_ended && reader->inflater.avail_in == 0) {
            take_cut(reader);
            return 1;
        }
        reader->inflater.next_out = (unsigned char *)reader->text + reader->end;
        reader->inflater.avail_out = (uInt)(reader->capacity - reader->end);
        result = inflate(&reader->inflater, Z_NO_FLUSH);
        reader->end = reader->capacity - reader->inflater.avail_out;
    } while (result == Z_OK || result == Z_BUF_ERROR);
    if (result == Z_MEM_ERROR)
        return err_set(err, ENOMEM, "read %s", reader->path);
    if (result != Z_STREAM_END)
        return damaged(reader, reader->inflater.msg ? reader->inflater.msg : "no gzip", err);
    if (reader->end > 0 && reader->text[reader->end - 1] != '\n')
        return damaged(reader, "a member ends within a line", err);
    reader->members++;
    return 1;
}

/* ---- lines ---- */

/* The next line, without its newline. 1, 0 or -1 as record_next. */
static int next_text(struct record_reader *reader, const char **line, size_t *length,
                     struct err *err)
{
    while (reader->start == reader->end) {
        int result = next_member(reader, err);
        if (result <= 0)
            return result;
    }
    *line = reader->text + reader->start;
    const char *newline = memchr(*line, '\n', reader->end - reader->start);
    *length = (size_t)(newline - *line); /* a member's last byte is one */
    reader->start += *length + 1;
    reader->lines++;
    return 1;
}

static int next_line(struct record_reader *reader, json_t **line, struct err *err)
{
    const char *text;
    size_t length;
    json_error_t error;
    int result = next_text(reader, &text, &length, err);
    if (result <= 0)
        return result;
    if (length > RECORD_LINE_BYTES_MAX)
        return err_set(err, 0, "%s:%llu: a line of %zu bytes is too long", reader->path,
                       (unsigned long long)reader->lines, length);
    *line = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(*line) && json_object_size(*line) == 1)
        return 1;
    err_set(err, 0, "%s:%llu: not what a record consists of: %.100s", reader->path,
            (unsigned long long)reader->lines,
            *line ? "a line is an object with one member, its kind" : error.text);
    json_decref(*line);
    *line = NULL;
    return -1;
}

int record_next(struct record_reader *reader, const char **kind, json_t **value, struct err *err)
{
    json_t *line;
    int result;
    while ((result = next_line(reader, &line, err)) > 0 && json_object_get(line, "sync"))
        json_decref(line);
    if (result <= 0)
        return result;
    void *first = json_object_iter(line);
    static const char *const kinds[] = {"rows", "round", "decision", "event", "end"};
    *kind = "";
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(json_object_iter_key(first), kinds[i]) == 0)
            *kind = kinds[i];
    *value = json_incref(json_object_iter_value(first));
    json_decref(line);
    return 1;
}

/* ---- opening ---- */

static int read_header(struct record_reader *reader, struct err *err)
{
    json_t *line;
    int result = next_line(reader, &line, err);
    if (result < 0)
        return -1;
    if (result == 0)
        return err_set(err, 0, "%s is empty: nothing was synced", reader->path);
    reader->header = json_incref(json_object_get(line, RECORD_HEADER));
    json_decref(line);
    const json_t *version = json_object_get(reader->header, "version");
    if (!json_is_integer(version) || json_integer_value(version) < 1)
        return err_set(err, 0, "%s is no record of ballastctl", reader->path);
    if (json_integer_value(version) > RECORD_VERSION)
        return err_set(err, 0, "%s has format %lld, this program reads up to %d: use a newer one",
                       reader->path, (long long)json_integer_value(version), RECORD_VERSION);
    return 0;
}

struct record_reader *record_open_fd(int fd, const char *path, struct err *err)
{
    struct record_reader *reader = calloc(1, sizeof *reader);
    if (!reader || inflateInit2(&reader->inflater, GZIP_WINDOW) != Z_OK) {
        free(reader);
        close(fd);
        err_set(err, ENOMEM, "read %s", path);
        return NULL;
    }
    reader->fd = fd;
    snprintf(reader->path, sizeof reader->path, "%s", path);
    if (read_header(reader, err) < 0) {
        record_reader_free(reader);
        return NULL;
    }
    return reader;
}

struct record_reader *record_open(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        err_set(err, errno, "%s", path);
        return NULL;
    }
    return record_open_fd(fd, path, err);
}

void record_reader_free(struct record_reader *reader)
{
    if (!reader)
        return;
    inflateEnd(&reader->inflater);
    close(reader->fd);
    free(reader->text);
    json_decref(reader->header);
    free(reader);
}

const json_t *record_header(const struct record_reader *reader)
{
    return reader->header;
}

bool record_is_cut(const struct record_reader *reader)
{
    return reader->cut;
}
