/*
 * A pseudo-random order of the numbers 0..count-1 that needs no memory: a
 * four-round Feistel network over the next even number of bits, walked until the
 * result is below count (fewer than four steps on average). One pass of the
 * scanner uses one key for its blocks of pages, so that it visits each exactly once
 * in an order no guest can foresee.
 */
#ifndef BALLAST_PERMUTATION_H
#define BALLAST_PERMUTATION_H

#include <stdint.h>

/* The number at place index (< count) of the order named by key. Cost: about 10 ns. */
uint32_t permutation_at(uint32_t index, uint32_t count, uint64_t key);

#endif
