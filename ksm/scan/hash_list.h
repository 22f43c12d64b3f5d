/*
 * Hash lists: what a host may tell about its memory without showing it. Text, one
 * source a file:
 *
 *     # ballast-hashes 1 xxh3-128 seed 42616c6c61737431 page 4096
 *     source NAME                 the rest of the line
 *     @ADDRESS                    hexadecimal: where the next page lies
 *     HASH [xCOUNT]               32 hexadecimal digits; COUNT equal pages in a row
 *     0 [xCOUNT]                  pages of zeroes
 *
 * COUNT is at most 2^44, and a list at most 2^52 pages long; no line is longer than
 * 4351 bytes. Control characters in NAME are read as '?'.
 *
 * HASH is XXH3 128-bit of the page's 4096 bytes under the seed in the first line,
 * which is the same everywhere, so that lists of many hosts merge. Anyone who can
 * guess a page can find its hash in a list: treat lists as confidential.
 */
#ifndef BALLAST_SCAN_HASH_LIST_H
#define BALLAST_SCAN_HASH_LIST_H

#include <stdint.h>
#include <stdio.h>

#define HASH_LIST_FIRST_LINE "# ballast-hashes 1 xxh3-128 seed 42616c6c61737431 page 4096"
#define HASH_LIST_SEED       UINT64_C(0x42616c6c61737431)

struct hash_list_run {
    uint64_t address;
    uint64_t low, high; /* XXH3-128 of the page */
    uint64_t pages;     /* equal pages in a row */
    int zero;
};

/*
 * hash_list_next: the next run of list (positioned after the first line). 1: *run
 * is filled. 0: end. -1: a bad line; its number is in *line and why in error.
 * *line counts on from call to call and starts at 1; run->address carries over.
 */
int hash_list_next(FILE *list, struct hash_list_run *run, unsigned long *line, char *error,
                   size_t error_bytes);

/* Writing: the head, then runs. Return -1 when the stream has failed. */
int hash_list_begin(FILE *list, const char *source_name);
int hash_list_write(FILE *list, const struct hash_list_run *run, int with_address);

#endif
