#include "daemon/ballastctl/record_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define OUTPUT_BYTES 65536
#define GZIP_WINDOW  (15 + 16) /* zlib's largest window, in gzip's wrapping */

struct record_writer {
    int fd;
    z_stream deflater;
    size_t member_bytes;   /* of lines in the member that is open */
    size_t synced_member;  /* of them, at the last sync */
    uLong member_crc;      /* of those lines */
    uint64_t member_began; /* of the caller's clock, at its first sync */
    bool failed;
    uint64_t written_bytes, synced_bytes;
    char path[512];
    unsigned char output[OUTPUT_BYTES];
};

struct record_writer *record_create(const char *path, bool replace, struct err *err)
{
    struct record_writer *writer = calloc(1, sizeof *writer);
    if (!writer) {
        err_set(err, ENOMEM, "%s", path);
        return NULL;
    }
    snprintf(writer->path, sizeof writer->path, "%s", path);
    writer->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (replace ? O_TRUNC : O_EXCL), 0644);
    if (writer->fd < 0) {
        err_set(err, errno, "%s", path);
        free(writer);
        return NULL;
    }
    if (deflateInit2(&writer->deflater, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, 8,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        err_set(err, ENOMEM, "%s", path);
        close(writer->fd);
        free(writer);
        return NULL;
    }
    return writer;
}

/* What cannot be written is taken back, as far as the last sync: no reader meets half of it. */
static int fail(struct record_writer *writer, struct err *err)
{
    int number = errno;
    writer->failed = true;
    if (ftruncate(writer->fd, (off_t)writer->synced_bytes) == 0)
        writer->written_bytes = writer->synced_bytes;
    return err_set(err, number, "write %s", writer->path);
}

static int write_output(struct record_writer *writer, size_t bytes, struct err *err)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t written = write(writer->fd, writer->output + done, bytes - done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            errno = written < 0 ? errno : ENOSPC;
            return fail(writer, err);
        }
        done += (size_t)written;
        writer->written_bytes += (size_t)written;
    }
    return 0;
}

/* Through the deflater and into the file. */
static int compress_bytes(struct record_writer *writer, const char *bytes, size_t length, int flush,
                          struct err *err)
{
    writer->deflater.next_in = (unsigned char *)bytes;
    writer->deflater.avail_in = (uInt)length;
    do {
        writer->deflater.next_out = writer->output;
        writer->deflater.avail_out = OUTPUT_BYTES;
        deflate(&writer->deflater, flush); /* the only errors are misuse */
        if (write_output(writer, OUTPUT_BYTES - writer->deflater.avail_out, err) < 0)
            return -1;
    } while (writer->deflater.avail_out == 0);
    return 0;
}

/* A line into the member that is open. */
static int put_text(struct record_writer *writer, const char *text, size_t length, struct err *err)
{
    writer->member_bytes += length;
    writer->member_crc = crc32(writer->member_crc, (const unsigned char *)text, (uInt)length);
    return compress_bytes(writer, text, length, Z_NO_FLUSH, err);
}

static int end_member(struct record_writer *writer, struct err *err)
{
    if (writer->member_bytes == 0)
        return 0;
    if (compress_bytes(writer, NULL, 0, Z_FINISH, err) < 0)
        return -1;
    deflateReset(&writer->deflater);
    writer->member_bytes = writer->synced_member = 0;
    writer->member_crc = 0;
    writer->member_began = 0;
    writer->synced_bytes = writer->written_bytes;
    return 0;
}

int record_put(struct record_writer *writer, const char *kind, const json_t *value, struct err *err)
{
    json_t *line = json_pack("{s:O}", kind, value);
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    if (!text)
        return err_set(err, ENOMEM, "%s: a line of kind %s", writer->path, kind);
    size_t length = strlen(text);
    int result = 0;
    if (length + 1 > RECORD_LINE_BYTES_MAX) {
        result = err_set(err, 0, "%s: a line of %zu bytes is too long", writer->path, length);
    } else if (!writer->failed && writer->member_bytes >= RECORD_MEMBER_BYTES &&
               end_member(writer, err) < 0) {
        result = -1;
    } else if (!writer->failed) {
        text[length] = '\n'; /* in place of the final NUL: the length is known */
        result = put_text(writer, text, length + 1, err);
    }
    free(text);
    return result;
}

int record_sync(struct record_writer *writer, uint64_t now_s, struct err *err)
{
    char sync[64];
    if (writer->failed || writer->member_bytes == 0)
        return 0;
    if (writer->member_began == 0)
        writer->member_began = now_s;
    if (writer->member_bytes >= RECORD_MEMBER_BYTES ||
        now_s - writer->member_began >= RECORD_MEMBER_SECONDS) {
        if (end_member(writer, err) < 0)
            return -1;
        fdatasync(writer->fd); /* against power cuts, as far as the file can */
        return 0;
    }
    if (writer->member_bytes == writer->synced_member)
        return 0;
    snprintf(sync, sizeof sync, RECORD_SYNC_FORMAT, writer->member_crc);
    if (put_text(writer, sync, strlen(sync), err) < 0 ||
        compress_bytes(writer, NULL, 0, Z_SYNC_FLUSH, err) < 0)
        return -1;
    writer->synced_member = writer->member_bytes;
    writer->synced_bytes = writer->written_bytes;
    return 0;
}

uint64_t record_written_bytes(const struct record_writer *writer)
{
    return writer->written_bytes;
}

int record_close(struct record_writer *writer, struct err *err)
{
    int result = writer->failed ? 0 : end_member(writer, err);
    deflateEnd(&writer->deflater);
    if (close(writer->fd) < 0 && result == 0)
        result = err_set(err, errno, "%s", writer->path);
    free(writer);
    return result;
}
