/*
 * A hart over flat memory, for tests: RAM from RAM_BASE_PA, every page resident
 * and private from the start (or filled on first touch), no devices but one
 * test register, and a clock that the test sets.
 */
#ifndef BALLAST_TESTS_FLAT_GUEST_H
#define BALLAST_TESTS_FLAT_GUEST_H

#include "vmm-core/hart.h"

/* A device of eight bytes, for tests of device access. */
#define FLAT_DEVICE_PA UINT64_C(0x10000000)

struct flat_guest {
    struct pmap *pmap;
    _Atomic uint64_t *words;
    struct pmap_counts counts;
    uint8_t *ram; /* guest RAM; frame n is page n */
    uint32_t pages;
    struct hart *hart;
    uint64_t time; /* what the guest reads from the time CSR */
    uint64_t timer_deadline;
    uint64_t device; /* the device's register */
    unsigned safe_points;
};

/* lazy: pages start absent and are filled when the hart asks. */
struct flat_guest *flat_guest_new(uint32_t pages, bool lazy);
void flat_guest_free(struct flat_guest *guest);

/* Host address of guest physical address pa, which must be RAM. */
void *flat_guest_at(struct flat_guest *guest, uint64_t pa);

#endif
