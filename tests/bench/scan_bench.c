/*
 * ballast-scan's engine against the limit: a plain read of the same file in page
 * cache plus XXH3 over it, on one thread. Pages: a third zero, a third copies, a
 * third unique.
 */
#include "ksm/scan/scan.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define FILE_PAGES 131072u /* 512 MiB */
#define ROUNDS     5

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void quiet(const char *text)
{
    fprintf(stderr, "%s\n", text);
}

static int write_image(int fd)
{
    uint64_t page[SCAN_PAGE_BYTES / sizeof(uint64_t)];
    for (uint32_t i = 0; i < FILE_PAGES; i++) {
        uint64_t kind = i % 3 == 0 ? 0 : i % 3 == 1 ? i % 1000 + 1 : i + 1000000;
        for (unsigned word = 0; word < sizeof page / sizeof *page; word++)
            page[word] = kind * (word + 1) * UINT64_C(0x9e3779b97f4a7c15);
        if (write(fd, page, sizeof page) != (ssize_t)sizeof page)
            return -1;
    }
    return 0;
}

static double plain_seconds(int fd, uint8_t *buffer, size_t buffer_bytes)
{
    double start = now();
    uint64_t sum = 0;
    off_t at = 0;
    for (ssize_t got; (got = pread(fd, buffer, buffer_bytes, at)) > 0; at += got)
        for (ssize_t page = 0; page < got; page += SCAN_PAGE_BYTES)
            sum += XXH3_64bits(buffer + page, SCAN_PAGE_BYTES);
    double seconds = now() - start;
    return sum == 1 ? -1 : seconds; /* the sum is used, so that hashing is not optimised away */
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void)
{
    char path[] = "/tmp/ballast-scan-bench-XXXXXX", error[512];
    int fd = mkstemp(path);
    size_t buffer_bytes = 256 * 1024;
    uint8_t *buffer = malloc(buffer_bytes);
    if (fd < 0 || !buffer || write_image(fd) < 0) {
        perror("scan_bench");
        return 1;
    }
    double plain[ROUNDS], scan[ROUNDS];
    struct scan_options options = {
        .jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN), .compress_every = 64, .warn = quiet};
    double table_share = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct page_source source;
        struct scan_result result;
        plain[round] = plain_seconds(fd, buffer, buffer_bytes);
        double start = now();
        if (source_open_file(&source, path, quiet, error, sizeof error) < 0 ||
            scan_run(&source, 1, &options, &result, error, sizeof error) < 0) {
            fprintf(stderr, "scan_bench: %s\n", error);
            unlink(path);
            return 1;
        }
        scan[round] = now() - start;
        table_share = 100.0 * (double)result.table_bytes / ((double)FILE_PAGES * SCAN_PAGE_BYTES);
        scan_result_free(&result);
        source_close(&source);
    }
    unlink(path);
    qsort(plain, ROUNDS, sizeof *plain, compare_doubles);
    qsort(scan, ROUNDS, sizeof *scan, compare_doubles);
    double mib = FILE_PAGES / 256.0;
    printf("{\"name\": \"ballast-scan throughput\", \"value\": %.0f, \"unit\": \"MiB/s\", "
           "\"peer\": \"plain read + XXH3, one thread\", \"peer_value\": %.0f, \"ratio\": %.2f, "
           "\"bar\": 0.5}\n",
           mib / scan[ROUNDS / 2], mib / plain[ROUNDS / 2], plain[ROUNDS / 2] / scan[ROUNDS / 2]);
    printf("{\"name\": \"ballast-scan table memory\", \"value\": %.3f, \"unit\": \"%% of memory "
           "scanned\", \"peer\": null, \"peer_value\": null, \"ratio\": null, \"bar\": 0.6}\n",
           table_share);
    free(buffer);
    return 0;
}
