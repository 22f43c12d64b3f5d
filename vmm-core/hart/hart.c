/*
 * The hart as the machine sees it: life, the run loop, and its state.
 *
 * hart_run executes slices of SLICE_INSNS instructions in the chain of handlers
 * (ops.c). Between slices, and whenever a handler leaves, it looks at attention,
 * takes interrupts, and decides whether to return. So the longest wait for a
 * safe point is one slice, some tens of microseconds.
 */
#include "vmm-core/hart/core.h"

#include <stdlib.h>
#include <string.h>

#define SLICE_INSNS 8192

struct hart *hart_new(struct pmap *pmap, const struct hart_env *env, int hart_id)
{
    struct hart *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->pmap = pmap;
    h->env = *env;
    h->hart_id = hart_id;
    h->sv48 = true;
    h->stimecmp = UINT64_MAX;
    h->mxcsr = 0x1f80; /* all exceptions masked, round to nearest, no flag */
    h->shadow = shadow_new(pmap);
    if (!h->shadow || !blocks_new(h)) {
        hart_free(h);
        return NULL;
    }
    h->view = shadow_view(h->shadow);
    shadow_set_satp(h->shadow, 0);
    trap_set_priv(h, SHADOW_S);
    return h;
}

void hart_free(struct hart *h)
{
    if (!h)
        return;
    if (h->shadow)
        shadow_free(h->shadow);
    blocks_free(h);
    free(h);
}

/* Serve the attention word. True: hart_run must return *exit. */
static bool serve_attention(struct hart *h, enum hart_exit *exit)
{
    uint32_t bits = atomic_exchange_explicit(&h->attention, 0, memory_order_acq_rel);
    if (bits & ATTENTION_INTERRUPT)
        csr_look_at_timer(h);
    if ((bits & ATTENTION_STOP) && h->env.safe_point) {
        h->reserved_host = NULL; /* frames may change under it */
        h->env.safe_point(h->env.ctx);
    }
    if (bits & ATTENTION_EXIT) {
        *exit = HART_EXIT_ATTENTION;
        return true;
    }
    return false;
}

/* Execute up to `slice` instructions, somewhat more at a block's end. */
static void run_slice(struct hart *h, int64_t slice)
{
    const struct block *block = slice == 1 ? blocks_single(h, h->pc) : blocks_find(h, h->pc);
    if (!block) {
        if (!h->stopping)
            trap_enter(h, h->pc, h->trap_cause, h->trap_value);
        return;
    }
    h->leave = false;
    h->budget = slice;
    h->retire_limit = h->counts.instructions + (uint64_t)slice;
    block->ops[0].run(block->ops, h, h->pc, slice, h->view->table, block);
    h->counts.instructions = h->retire_limit - (uint64_t)h->budget;
}

enum hart_exit hart_run(struct hart *h, uint64_t max_instructions)
{
    uint64_t end = h->counts.instructions + max_instructions;
    enum hart_exit exit;
    if (end < max_instructions)
        end = UINT64_MAX;
    fpu_enter(h);
    for (;;) {
        if (atomic_load_explicit(&h->attention, memory_order_relaxed) && serve_attention(h, &exit))
            break;
        trap_take_interrupt(h);
        uint64_t left = end - h->counts.instructions;
        if (h->counts.instructions >= end) {
            exit = HART_EXIT_BUDGET;
            break;
        }
        run_slice(h, (int64_t)(left < SLICE_INSNS ? left : SLICE_INSNS));
        if (h->stopping) {
            h->stopping = false;
            exit = HART_EXIT_STOPPED;
            break;
        }
        if (h->exit_wanted) {
            h->exit_wanted = false;
            exit = h->exit;
            break;
        }
    }
    fpu_leave(h);
    return exit;
}

_Atomic uint32_t *hart_attention(struct hart *h)
{
    return &h->attention;
}

void hart_set_pending(struct hart *h, uint32_t bits)
{
    atomic_fetch_or_explicit(&h->pending, bits, memory_order_release);
    atomic_fetch_or_explicit(&h->attention, ATTENTION_INTERRUPT, memory_order_release);
}

void hart_clear_pending(struct hart *h, uint32_t bits)
{
    atomic_fetch_and_explicit(&h->pending, ~bits, memory_order_release);
}

bool hart_interrupt_ready(struct hart *h)
{
    return trap_sip(h) & h->sie;
}

void hart_offer_sv48(struct hart *h, bool offered)
{
    h->sv48 = offered;
}

void hart_get_state(const struct hart *h, struct hart_state *state)
{
    *state = (struct hart_state){
        .pc = h->pc,
        .priv = h->priv,
        .sie = h->sie,
        .stvec = h->stvec,
        .sscratch = h->sscratch,
        .sepc = h->sepc,
        .scause = h->scause,
        .stval = h->stval,
        .satp = h->satp,
        .stimecmp = h->stimecmp,
        .scounteren = h->scounteren,
        .senvcfg = h->senvcfg,
        .sstatus = h->sstatus | SSTATUS_UXL,
        .fcsr = h->frm << 5 | fpu_fflags_at_rest(h),
    };
    if ((h->sstatus & SSTATUS_FS) == SSTATUS_FS)
        state->sstatus |= SSTATUS_SD;
    memcpy(state->x, h->x, sizeof state->x);
    memcpy(state->f, h->f, sizeof state->f);
}

void hart_set_state(struct hart *h, const struct hart_state *state)
{
    memcpy(h->x, state->x, sizeof state->x);
    memcpy(h->f, state->f, sizeof state->f);
    h->x[0] = 0;
    h->pc = state->pc & ~UINT64_C(1);
    h->sstatus = state->sstatus & SSTATUS_WRITABLE;
    h->sie = state->sie & SIE_WRITABLE;
    h->stvec = state->stvec & ~UINT64_C(2);
    h->sscratch = state->sscratch;
    h->sepc = state->sepc & ~UINT64_C(1);
    h->scause = state->scause;
    h->stval = state->stval;
    h->stimecmp = state->stimecmp;
    h->scounteren = state->scounteren & 7;
    h->senvcfg = state->senvcfg & 1;
    h->reserved_host = NULL;
    fpu_restore(h, state->fcsr);
    csr_write_satp(h, state->satp);
    trap_set_priv(h, state->priv);
    csr_look_at_timer(h);
    if (h->env.timer_arm)
        h->env.timer_arm(h->env.ctx, h->stimecmp);
}

uint64_t hart_get_x(const struct hart *h, unsigned index)
{
    return h->x[index & 31];
}

void hart_set_x(struct hart *h, unsigned index, uint64_t value)
{
    if (index & 31)
        h->x[index & 31] = value;
}

void hart_advance_pc(struct hart *h, unsigned bytes)
{
    h->pc += bytes;
}

uint64_t hart_access_pc(const struct hart *h)
{
    return h->pc;
}

struct shadow *hart_shadow(struct hart *h)
{
    return h->shadow;
}

#define FENCE_MAX_PAGES 64u /* beyond that, one fence of everything is cheaper */

void hart_fence(struct hart *h, bool va_given, uint64_t va, uint64_t bytes, bool asid_given,
                uint16_t asid)
{
    uint64_t first = va & PAGE_MASK, pages = (va - first + bytes + PAGE_BYTES - 1) >> PAGE_SHIFT;
    if (!va_given || bytes > FENCE_MAX_PAGES * PAGE_BYTES) {
        shadow_fence(h->shadow, false, 0, asid_given, asid);
        blocks_fence_all(h);
        return;
    }
    for (uint64_t page = 0; page < pages; page++) {
        shadow_fence(h->shadow, true, first + page * PAGE_BYTES, asid_given, asid);
        blocks_fence(h, true, first + page * PAGE_BYTES, false, 0);
    }
}

void hart_drop_code(struct hart *h, ppn_t ppn)
{
    blocks_drop_page(h, ppn);
    shadow_code_dropped(h->pmap, ppn);
}

void hart_read_counts(const struct hart *h, struct hart_counts *counts)
{
    *counts = h->counts;
}
