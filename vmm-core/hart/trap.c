/*
 * Traps and interrupts: the supervisor's view of privileged manual chapter 4.
 * The VMM plays machine mode and delegates everything to S mode, so that every
 * trap but an ecall from S is taken there.
 */
#include "vmm-core/hart/core.h"

#define SCAUSE_INTERRUPT (UINT64_C(1) << 63)

void trap_set_priv(struct hart *h, enum shadow_priv priv)
{
    h->priv = priv;
    h->user_bit = priv == SHADOW_U ? SHADOW_USER : 0;
    h->jump_key = (h->jump_key & ~UINT64_C(1)) | (priv == SHADOW_U);
    shadow_set_priv(h->shadow, priv);
}

/* 4.1.1 (the stack of SIE and SPP), 4.1.2 (stvec), 4.1.7 to 4.1.9. */
void trap_enter(struct hart *h, uint64_t pc, uint64_t scause, uint64_t stval)
{
    uint64_t status = h->sstatus & ~(SSTATUS_SPP | SSTATUS_SPIE | SSTATUS_SIE);
    if (h->priv == SHADOW_S)
        status |= SSTATUS_SPP;
    if (h->sstatus & SSTATUS_SIE)
        status |= SSTATUS_SPIE;
    h->sstatus = status;
    h->sepc = pc;
    h->scause = scause;
    h->stval = stval;
    h->pc = h->stvec & ~UINT64_C(3);
    if ((h->stvec & 1) && (scause & SCAUSE_INTERRUPT))
        h->pc += 4 * (scause & ~SCAUSE_INTERRUPT);
    trap_set_priv(h, SHADOW_S);
    h->counts.traps++;
}

bool trap_sret(struct hart *h)
{
    if (h->priv != SHADOW_S)
        return false;
    uint64_t status = h->sstatus & ~(SSTATUS_SPP | SSTATUS_SIE);
    if (h->sstatus & SSTATUS_SPIE)
        status |= SSTATUS_SIE;
    enum shadow_priv to = h->sstatus & SSTATUS_SPP ? SHADOW_S : SHADOW_U;
    h->sstatus = status | SSTATUS_SPIE;
    trap_set_priv(h, to);
    h->pc = h->sepc;
    return true;
}

uint64_t trap_sip(struct hart *h)
{
    uint64_t sip = atomic_load_explicit(&h->pending, memory_order_acquire);
    if (h->stimecmp != UINT64_MAX && h->env.time && h->env.time(h->env.ctx) >= h->stimecmp)
        sip |= IRQ_S_TIMER;
    return sip;
}

static uint64_t known_pending(const struct hart *h)
{
    uint64_t sip = atomic_load_explicit(&h->pending, memory_order_acquire);
    return sip | (h->timer_due ? IRQ_S_TIMER : 0);
}

static bool interrupts_on(const struct hart *h)
{
    return h->priv == SHADOW_U || (h->sstatus & SSTATUS_SIE);
}

bool trap_interrupt_due(const struct hart *h)
{
    return interrupts_on(h) && (known_pending(h) & h->sie);
}

/* 4.1.3: external before software before timer. */
bool trap_take_interrupt(struct hart *h)
{
    static const uint8_t order[] = {9, 1, 5};
    if (!trap_interrupt_due(h))
        return false;
    uint64_t due = known_pending(h) & h->sie;
    for (unsigned i = 0; i < sizeof order; i++) {
        if (due >> order[i] & 1) {
            h->counts.interrupts++;
            h->reserved_host = NULL;
            trap_enter(h, h->pc, SCAUSE_INTERRUPT | order[i], 0);
            return true;
        }
    }
    return false;
}
