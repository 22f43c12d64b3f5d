/*
 * Where things are in guest physical space (the map is drawn in machine.h), and
 * which source of the interrupt controller each device has.
 */
#ifndef BALLAST_MEMORY_MAP_H
#define BALLAST_MEMORY_MAP_H

#include "shadow-pt/addr.h"

#define FINISHER_BASE_PA UINT64_C(0x00100000)
#define PLIC_BASE_PA     UINT64_C(0x0c000000)
#define UART_BASE_PA     UINT64_C(0x10000000)
#define UART_SOURCE      10u
#define UART_CLOCK_HZ    3686400u

#define VIRTIO_BASE_PA UINT64_C(0x10001000)
#define VIRTIO_BYTES   UINT64_C(0x1000)
#define VIRTIO_SLOTS   16u

static inline uint64_t virtio_slot_pa(unsigned slot)
{
    return VIRTIO_BASE_PA + slot * VIRTIO_BYTES;
}

/* Sources 1..8 and 11..18: around the UART's. */
static inline unsigned virtio_slot_source(unsigned slot)
{
    return slot < 8 ? slot + 1 : slot + 3;
}

#endif
