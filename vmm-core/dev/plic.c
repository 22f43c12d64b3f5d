/*
 * Interrupt controller: three words of one bit a source, and a few words a
 * context.
 *
 * A source's gateway is level triggered: it is pending while its line is high
 * and no hart has it in service. Claiming takes the pending source with the
 * highest priority (the lowest number among equals), completing lets the gateway
 * look at the line again.
 */
#include "vmm-core/dev/plic.h"

#define PRIORITY_END   ((PLIC_SOURCES + 1) * 4u)
#define PENDING_OFFSET UINT64_C(0x1000)
#define ENABLE_OFFSET  UINT64_C(0x2000)
#define ENABLE_STRIDE  UINT64_C(0x80)
#define CONTEXT_OFFSET UINT64_C(0x200000)
#define CONTEXT_STRIDE UINT64_C(0x1000)
#define ALL_SOURCES    0xfffffffeu /* source 0 does not exist */

/* The source context would claim now, or 0. */
static unsigned best_source(const struct plic *plic, const struct plic_context *context)
{
    uint32_t candidates = plic->pending & context->enabled;
    unsigned best = 0;
    uint32_t best_priority = context->threshold;
    for (unsigned source = 1; source <= PLIC_SOURCES; source++) {
        if (candidates >> source & 1 && plic->priority[source] > best_priority) {
            best = source;
            best_priority = plic->priority[source];
        }
    }
    return best;
}

/* Recompute pending from lines and set every output that changed. Lock held. */
static void plic_update(struct plic *plic)
{
    plic->pending = plic->level & ~plic->in_service & ALL_SOURCES;
    for (unsigned i = 0; i < plic->contexts; i++) {
        struct plic_context *context = &plic->context[i];
        bool raise = best_source(plic, context) != 0;
        if (raise != context->raised) {
            context->raised = raise;
            irq_line_set(&context->output, raise);
        }
    }
}

static uint32_t claim(struct plic *plic, struct plic_context *context)
{
    unsigned source = best_source(plic, context);
    if (source) {
        plic->in_service |= 1u << source;
        plic_update(plic);
    }
    return source;
}

/* A completion for a source the context has not enabled is ignored (specification, chapter 9). */
static void complete(struct plic *plic, const struct plic_context *context, uint32_t source)
{
    if (source == 0 || source > PLIC_SOURCES || !(context->enabled >> source & 1))
        return;
    plic->in_service &= ~(1u << source);
    plic_update(plic);
}

static void plic_set_source(void *controller, unsigned source, bool level)
{
    struct plic *plic = controller;
    pthread_mutex_lock(&plic->lock);
    uint32_t bit = 1u << source;
    uint32_t new_level = level ? plic->level | bit : plic->level & ~bit;
    if (new_level != plic->level) {
        plic->level = new_level;
        plic_update(plic);
    }
    pthread_mutex_unlock(&plic->lock);
}

/* Which context and register of a context's page an offset names; NULL: none of ours. */
static struct plic_context *context_at(struct plic *plic, uint64_t offset, uint64_t first,
                                       uint64_t stride, uint64_t *reg)
{
    if (offset < first || (offset - first) / stride >= plic->contexts)
        return NULL;
    *reg = (offset - first) % stride;
    return &plic->context[(offset - first) / stride];
}

/* Registers that do not exist read as zero and ignore stores. */
static uint32_t load_register(struct plic *plic, uint64_t offset)
{
    uint64_t reg;
    struct plic_context *context;
    if (offset < PRIORITY_END)
        return plic->priority[offset / 4];
    if (offset == PENDING_OFFSET)
        return plic->pending;
    context = context_at(plic, offset, ENABLE_OFFSET, ENABLE_STRIDE, &reg);
    if (context)
        return reg == 0 ? context->enabled : 0;
    context = context_at(plic, offset, CONTEXT_OFFSET, CONTEXT_STRIDE, &reg);
    if (context && reg == 0)
        return context->threshold;
    if (context && reg == 4)
        return claim(plic, context);
    return 0;
}

static void store_register(struct plic *plic, uint64_t offset, uint32_t value)
{
    uint64_t reg;
    struct plic_context *context;
    if (offset >= 4 && offset < PRIORITY_END) {
        plic->priority[offset / 4] = value & PLIC_PRIORITY_MAX;
        plic_update(plic);
    } else if ((context = context_at(plic, offset, ENABLE_OFFSET, ENABLE_STRIDE, &reg))) {
        if (reg == 0)
            context->enabled = value & ALL_SOURCES;
        plic_update(plic);
    } else if ((context = context_at(plic, offset, CONTEXT_OFFSET, CONTEXT_STRIDE, &reg))) {
        if (reg == 0) {
            context->threshold = value & PLIC_PRIORITY_MAX;
            plic_update(plic);
        } else if (reg == 4) {
            complete(plic, context, value);
        }
    }
}

static bool plic_load(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    struct plic *plic = device;
    if (size != 4)
        return false;
    pthread_mutex_lock(&plic->lock);
    *value = load_register(plic, offset);
    pthread_mutex_unlock(&plic->lock);
    return true;
}

static bool plic_store(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct plic *plic = device;
    if (size != 4)
        return false;
    pthread_mutex_lock(&plic->lock);
    store_register(plic, offset, (uint32_t)value);
    pthread_mutex_unlock(&plic->lock);
    return true;
}

void plic_init(struct plic *plic, const struct irq_line *outputs, unsigned contexts)
{
    *plic = (struct plic){.contexts = contexts};
    pthread_mutex_init(&plic->lock, NULL);
    for (unsigned i = 0; i < contexts; i++)
        plic->context[i].output = outputs[i];
}

void plic_destroy(struct plic *plic)
{
    pthread_mutex_destroy(&plic->lock);
}

struct irq_line plic_line(struct plic *plic, unsigned source)
{
    return (struct irq_line){.set = plic_set_source, .controller = plic, .source = source};
}

struct bus_range plic_range(struct plic *plic, uint64_t base_pa)
{
    return (struct bus_range){.name = "plic",
                              .base_pa = base_pa,
                              .bytes = PLIC_WINDOW_BYTES,
                              .device = plic,
                              .load = plic_load,
                              .store = plic_store};
}
