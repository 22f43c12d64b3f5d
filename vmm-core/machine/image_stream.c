/*
 * A file part as a stream, plain or gzip (RFC 1952). One gzip member is
 * unpacked; its checksum is verified when its end is reached.
 */
#include "vmm-core/machine/image_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GZIP_ONLY (16 + MAX_WBITS) /* zlib: expect a gzip header and trailer */

int image_stream_open(struct image_stream *stream, int fd, const char *path, uint64_t offset,
                      uint64_t length, bool gzip, struct err *err)
{
    *stream = (struct image_stream){
        .fd = fd, .path = path, .offset = offset, .left = length, .gzip = gzip};
    if (!gzip)
        return 0;
    stream->packed = malloc(IMAGE_STREAM_CHUNK);
    if (!stream->packed || inflateInit2(&stream->inflater, GZIP_ONLY) != Z_OK) {
        free(stream->packed);
        stream->packed = NULL;
        return err_set(err, ENOMEM, "%s: unpack", path);
    }
    return 0;
}

void image_stream_close(struct image_stream *stream)
{
    if (stream->packed)
        inflateEnd(&stream->inflater);
    free(stream->packed);
    stream->packed = NULL;
}

/* Up to len bytes of the file part as they are. */
static int read_plain(struct image_stream *stream, void *to, size_t len, size_t *got,
                      struct err *err)
{
    *got = 0;
    while (*got < len && stream->left) {
        size_t wanted = len - *got < stream->left ? len - *got : stream->left;
        ssize_t count = pread(stream->fd, (uint8_t *)to + *got, wanted, (off_t)stream->offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return err_set(err, errno, "%s: read at offset %llu", stream->path,
                           (unsigned long long)stream->offset);
        if (count == 0)
            return err_set(err, 0, "%s: file ends at offset %llu, %llu bytes too early: truncated",
                           stream->path, (unsigned long long)stream->offset,
                           (unsigned long long)stream->left);
        stream->offset += (uint64_t)count;
        stream->left -= (uint64_t)count;
        *got += (size_t)count;
    }
    return 0;
}

static int refill_packed(struct image_stream *stream, struct err *err)
{
    size_t count;
    if (read_plain(stream, stream->packed, IMAGE_STREAM_CHUNK, &count, err))
        return -1;
    if (count == 0)
        return err_set(err, 0, "%s: gzip data ends too early: truncated", stream->path);
    stream->inflater.next_in = stream->packed;
    stream->inflater.avail_in = (uInt)count;
    return 0;
}

static int read_unpacked(struct image_stream *stream, void *to, size_t len, size_t *got,
                         struct err *err)
{
    z_stream *z = &stream->inflater;
    *got = 0;
    while (*got < len && !stream->gzip_end) {
        if (z->avail_in == 0 && refill_packed(stream, err))
            return -1;
        size_t room = len - *got < IMAGE_STREAM_CHUNK ? len - *got : IMAGE_STREAM_CHUNK;
        z->next_out = (uint8_t *)to + *got;
        z->avail_out = (uInt)room;
        int result = inflate(z, Z_NO_FLUSH);
        if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
            return err_set(err, 0, "%s: gzip data is damaged: %s", stream->path,
                           z->msg ? z->msg : "unknown error");
        *got += room - z->avail_out;
        stream->gzip_end = result == Z_STREAM_END;
    }
    return 0;
}

int image_stream_read(struct image_stream *stream, void *to, size_t len, size_t *got,
                      struct err *err)
{
    return stream->gzip ? read_unpacked(stream, to, len, got, err)
                        : read_plain(stream, to, len, got, err);
}
