/*
 * Platform-level interrupt controller with 31 sources and one context, S mode,
 * a hart. Follows: RISC-V PLIC specification 1.0.0 (memory map, chapter 3;
 * claim and completion, chapters 8 and 9).
 */
#ifndef BALLAST_PLIC_H
#define BALLAST_PLIC_H

#include "vmm-core/dev/device.h"

#include <pthread.h>

#define PLIC_SOURCES      31u /* numbered from 1; 0 means none */
#define PLIC_MAX_CONTEXTS 8u
#define PLIC_WINDOW_BYTES UINT64_C(0x400000)
#define PLIC_PRIORITY_MAX 7u

struct plic {
    pthread_mutex_t lock; /* everything below; held while an output line is set */
    unsigned contexts;
    uint32_t level, pending, in_service; /* one bit a source */
    uint32_t priority[PLIC_SOURCES + 1];
    struct plic_context {
        uint32_t enabled, threshold;
        struct irq_line output; /* to the hart's S-mode external interrupt */
        bool raised;
    } context[PLIC_MAX_CONTEXTS];
};

/* outputs: one line a context; called with the controller's lock held, must only set flags. */
void plic_init(struct plic *plic, const struct irq_line *outputs, unsigned contexts);
void plic_destroy(struct plic *plic);

/* The line of source 1..31 into this controller. */
struct irq_line plic_line(struct plic *plic, unsigned source);

/* The controller's place on the bus, at base_pa. */
struct bus_range plic_range(struct plic *plic, uint64_t base_pa);

#endif
