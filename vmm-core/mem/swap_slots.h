/*
 * Which slots of a VM's swap file are in use: one bit a slot. Runs are handed
 * out so that one cluster of pages is one contiguous write. Single-threaded;
 * gmem calls it under the memory lock.
 */
#ifndef BALLAST_SWAP_SLOTS_H
#define BALLAST_SWAP_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

struct swap_slots;

/* A file of slots pages, all free. NULL if out of memory. */
struct swap_slots *swap_slots_new(uint32_t slots);
void swap_slots_free(struct swap_slots *slots);

/* Take a contiguous run of up to wanted (>= 1) slots, the longest there is if none is long enough.
 * Returns its length and first slot; 0 when all are in use. */
uint32_t swap_slots_take(struct swap_slots *slots, uint32_t wanted, uint32_t *first);

/* Give one slot back. False: it was not in use. */
bool swap_slots_give(struct swap_slots *slots, uint32_t slot);

bool swap_slots_used(const struct swap_slots *slots, uint32_t slot);
uint32_t swap_slots_used_count(const struct swap_slots *slots);
uint32_t swap_slots_total(const struct swap_slots *slots);

#endif
