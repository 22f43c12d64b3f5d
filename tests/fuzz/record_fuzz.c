/*
 * Fuzz target: a file of ballastctl record, as its info, export and replay read
 * it. The first byte says what is made of the rest: the file as it is, or lines
 * packed as gzip packs them behind a proper header, maybe cut off, so that the
 * fuzzer gets past the checksum to what is in the lines.
 */
#include "daemon/ballastctl/record.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#define GZIP_WINDOW (15 + 16)
#define MOST_BYTES  ((size_t)1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* ---- in place of main.c ---- */

int ctl_fail(int status, const char *format, ...)
{
    (void)format;
    return status;
}

int ctl_usage(const char *command, const char *format, ...)
{
    (void)command, (void)format;
    abort(); /* there is nothing wrong with the command lines below */
}

int ctl_parse_count(const char *command, const char *option, const char *text, uint64_t least,
                    uint64_t most, uint64_t *value)
{
    (void)command, (void)option, (void)least, (void)most;
    *value = strtoull(text, NULL, 10);
    return CTL_OK;
}

void ctl_print_json(const json_t *value, bool one_line)
{
    json_dumpf(value, stdout, JSON_ENCODE_ANY);
    (void)one_line;
}

/* ---- files ---- */

static uint8_t packed[MOST_BYTES];

static size_t pack(const char *header, const uint8_t *bytes, size_t size)
{
    z_stream deflater = {0};
    if (deflateInit2(&deflater, 1, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        abort();
    deflater.next_out = packed;
    deflater.avail_out = MOST_BYTES;
    deflater.next_in = (uint8_t *)header;
    deflater.avail_in = (uInt)strlen(header);
    deflate(&deflater, Z_NO_FLUSH);
    deflater.next_in = (uint8_t *)bytes;
    deflater.avail_in = (uInt)size;
    if (deflate(&deflater, Z_FINISH) != Z_STREAM_END)
        abort();
    deflateEnd(&deflater);
    return MOST_BYTES - deflater.avail_out;
}

/* Its path, good while fd is open. */
static int make_file(const void *bytes, size_t size, char path[32])
{
    int fd = memfd_create("record", MFD_CLOEXEC);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
        abort();
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

static void run(int (*command)(struct ctl *, int, char **), char *path, char *option, char *value)
{
    struct ctl ctl = {.json = option != NULL};
    char *argv[] = {"record", path, option, value, NULL};
    int argc = option ? value ? 4 : 3 : 2;
    optind = 0;
    int status = command(&ctl, argc, argv);
    if (status != CTL_OK && status != CTL_REFUSED)
        abort();
    fflush(stdout);
}

/* ---- the target ---- */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static bool quiet;
    char path[32];
    if (!quiet) /* what the commands print is nobody's business */
        quiet = freopen("/dev/null", "w", stdout) != NULL;
    if (size < 2 || size > MOST_BYTES / 2)
        return 0;
    const void *file = bytes + 1;
    size_t file_bytes = size - 1;
    if (bytes[0] % 4 > 0) {
        const char *header = bytes[0] % 4 == 3 ? "" : "{\"ballast_record\":{\"version\":1}}\n";
        file_bytes = pack(header, bytes + 1, size - 1);
        file = packed;
        if (bytes[0] % 4 == 2)
            file_bytes -= file_bytes * (bytes[1] % 64) / 64;
    }
    int fd = make_file(file, file_bytes, path);
    run(record_run_info, path, NULL, NULL);
    run(record_run_export, path, "--rows", NULL);
    run(record_run_export, path, "--host", NULL);
    run(record_run_export, path, "--rounds", NULL);
    run(record_run_export, path, "--events", NULL);
    run(record_run_replay, path, NULL, NULL);
    run(record_run_replay, path, "--policy", "esx");
    close(fd);
    return 0;
}
