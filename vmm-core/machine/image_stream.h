/*
 * Bytes of a file, or of a part of it, read in order and unpacked on the way:
 * what a guest's kernel may be wrapped in never lies in memory as a whole.
 */
#ifndef BALLAST_IMAGE_STREAM_H
#define BALLAST_IMAGE_STREAM_H

#include "vmm-core/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#define IMAGE_STREAM_CHUNK 32768u

struct image_stream {
    int fd;           /* owned by the opener */
    const char *path; /* for messages */
    uint64_t offset;  /* of the next byte in the file */
    uint64_t left;    /* bytes of the part not read yet */
    bool gzip, gzip_end;
    z_stream inflater;
    uint8_t *packed; /* IMAGE_STREAM_CHUNK bytes, when gzip */
};

/* Read length bytes of fd from offset; gzip says whether to unpack them. -1 with *err: no memory.
 */
int image_stream_open(struct image_stream *stream, int fd, const char *path, uint64_t offset,
                      uint64_t length, bool gzip, struct err *err);
void image_stream_close(struct image_stream *stream);

/* Up to len bytes into to: as many as there are. -1 with *err: the file cannot be read, ends before
 * the part does, or is damaged. */
int image_stream_read(struct image_stream *stream, void *to, size_t len, size_t *got,
                      struct err *err);

#endif
