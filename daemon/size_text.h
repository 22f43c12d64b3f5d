/*
 * Sizes as people write them: "268435456", "256MiB", "256M", "1.5GiB", "4KiB".
 * Units are powers of 1024: K, M, G, T, each alone, with "B" or with "iB".
 */
#ifndef BALLAST_SIZE_TEXT_H
#define BALLAST_SIZE_TEXT_H

#include "vmm-core/err.h"

#include <stdint.h>

/* Parse text into *bytes. A number without a unit counts default_unit bytes (1, or 1 MiB for -m).
 * -1 with err naming the text: not a size, negative, beyond 2^62, or a fraction of a byte. */
int size_parse(const char *text, uint64_t default_unit, uint64_t *bytes, struct err *err);

/* Write bytes for people, exact where it can be: "256 MiB", "1.5 GiB", "4097 B". Returns text. */
const char *size_format(uint64_t bytes, char text[32]);

#endif
