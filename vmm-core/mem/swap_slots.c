/*
 * Slots by next fit: the search goes on where the last run ended, so that
 * clusters written one after another lie one after another, and a slot freed a
 * moment ago is not the next one used. Full words of the bitmap are skipped
 * whole.
 */
#include "vmm-core/mem/swap_slots.h"

#include <stdlib.h>

struct swap_slots {
    uint32_t total, used, cursor;
    uint64_t words[];
};

struct swap_slots *swap_slots_new(uint32_t total)
{
    struct swap_slots *slots = calloc(1, sizeof(*slots) + ((uint64_t)total + 63) / 64 * 8);

    if (slots)
        slots->total = total;
    return slots;
}

void swap_slots_free(struct swap_slots *slots)
{
    free(slots);
}

bool swap_slots_used(const struct swap_slots *slots, uint32_t slot)
{
    return slot < slots->total && (slots->words[slot / 64] >> (slot % 64) & 1);
}

uint32_t swap_slots_used_count(const struct swap_slots *slots)
{
    return slots->used;
}

uint32_t swap_slots_total(const struct swap_slots *slots)
{
    return slots->total;
}

/* The best run in [from, to): the first of wanted slots, or the longest. */
static uint32_t search(const struct swap_slots *slots, uint32_t from, uint32_t to, uint32_t wanted,
                       uint32_t *first)
{
    uint32_t best = 0, run = 0;

    for (uint32_t slot = from; slot < to && best < wanted; slot++) {
        if (slot % 64 == 0 && slots->words[slot / 64] == UINT64_MAX) {
            slot += 63;
            run = 0;
        } else if (swap_slots_used(slots, slot)) {
            run = 0;
        } else if (++run > best) {
            best = run;
            *first = slot + 1 - run;
        }
    }
    return best;
}

uint32_t swap_slots_take(struct swap_slots *slots, uint32_t wanted, uint32_t *first)
{
    uint32_t start = 0, length = search(slots, slots->cursor, slots->total, wanted, &start);

    if (length < wanted) {
        uint32_t other_start = 0;
        uint32_t other = search(slots, 0, slots->total, wanted, &other_start);
        if (other > length) {
            length = other;
            start = other_start;
        }
    }
    for (uint32_t slot = start; slot < start + length; slot++)
        slots->words[slot / 64] |= UINT64_C(1) << (slot % 64);
    slots->used += length;
    if (length)
        slots->cursor = start + length == slots->total ? 0 : start + length;
    *first = start;
    return length;
}

bool swap_slots_give(struct swap_slots *slots, uint32_t slot)
{
    if (!swap_slots_used(slots, slot))
        return false;
    slots->words[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
    slots->used--;
    return true;
}
