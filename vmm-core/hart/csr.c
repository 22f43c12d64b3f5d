/*
 * Control and status registers of S and U mode: privileged manual 4.1 and 4.4
 * (satp), unprivileged 9 (Zicsr) and 10 (counters), Sstc 1.0 (stimecmp).
 *
 * A register is one case in csr_read and one in csr_write. Machine-mode numbers
 * do not exist here: accessing one is an illegal instruction.
 */
#include "vmm-core/hart/core.h"

// clang-format off
enum {
    CSR_FFLAGS = 0x001, CSR_FRM = 0x002, CSR_FCSR = 0x003,
    CSR_SSTATUS = 0x100, CSR_SIE = 0x104, CSR_STVEC = 0x105, CSR_SCOUNTEREN = 0x106,
    CSR_SENVCFG = 0x10a, CSR_SSCRATCH = 0x140, CSR_SEPC = 0x141, CSR_SCAUSE = 0x142,
    CSR_STVAL = 0x143, CSR_SIP = 0x144, CSR_STIMECMP = 0x14d, CSR_SATP = 0x180,
    CSR_CYCLE = 0xc00, CSR_TIME = 0xc01, CSR_INSTRET = 0xc02,
};
// clang-format on

#define SENVCFG_FIOM    UINT64_C(1)
#define SCOUNTEREN_BITS UINT64_C(7) /* CY, TM, IR: the counters that exist */
#define SATP_MODE_BARE  0u
#define SATP_MODE_SV39  8u
#define SATP_MODE_SV48  9u

static bool fp_off(const struct hart *h)
{
    return !(h->sstatus & SSTATUS_FS);
}

static uint64_t now(struct hart *h)
{
    return h->env.time ? h->env.time(h->env.ctx) : 0;
}

void csr_look_at_timer(struct hart *h)
{
    h->timer_due = h->stimecmp != UINT64_MAX && now(h) >= h->stimecmp;
}

static bool csr_read(struct hart *h, unsigned number, uint64_t retired, uint64_t *value)
{
    switch (number) {
    case CSR_FFLAGS:
        *value = fpu_fflags(h);
        return !fp_off(h);
    case CSR_FRM:
        *value = h->frm;
        return !fp_off(h);
    case CSR_FCSR:
        *value = h->frm << 5 | fpu_fflags(h);
        return !fp_off(h);
    case CSR_SSTATUS:
        *value = h->sstatus | SSTATUS_UXL;
        if ((h->sstatus & SSTATUS_FS) == SSTATUS_FS)
            *value |= SSTATUS_SD;
        return true;
    case CSR_SIE:
        *value = h->sie;
        return true;
    case CSR_STVEC:
        *value = h->stvec;
        return true;
    case CSR_SCOUNTEREN:
        *value = h->scounteren;
        return true;
    case CSR_SENVCFG:
        *value = h->senvcfg;
        return true;
    case CSR_SSCRATCH:
        *value = h->sscratch;
        return true;
    case CSR_SEPC:
        *value = h->sepc;
        return true;
    case CSR_SCAUSE:
        *value = h->scause;
        return true;
    case CSR_STVAL:
        *value = h->stval;
        return true;
    case CSR_SIP:
        *value = trap_sip(h);
        return true;
    case CSR_STIMECMP:
        *value = h->stimecmp;
        return true;
    case CSR_SATP:
        *value = h->satp;
        return true;
    case CSR_CYCLE:
    case CSR_TIME:
    case CSR_INSTRET:
        if (h->priv == SHADOW_U && !(h->scounteren >> (number - CSR_CYCLE) & 1))
            return false;
        *value = number == CSR_TIME ? now(h) : retired;
        return true;
    default:
        return false;
    }
}

/* 4.1.11: a write that names an unsupported mode has no effect. */
void csr_write_satp(struct hart *h, uint64_t value)
{
    unsigned mode = (unsigned)(value >> 60);
    if (mode != SATP_MODE_BARE && mode != SATP_MODE_SV39 && !(mode == SATP_MODE_SV48 && h->sv48))
        return;
    h->satp = mode == SATP_MODE_BARE ? 0 : value;
    hart_lock(h); /* a recycled space leaves the reverse map */
    shadow_set_satp(h->shadow, h->satp);
    hart_unlock(h);
    blocks_set_space(h);
    h->leave = true;
}

static void write_frm(struct hart *h, uint32_t frm)
{
    fpu_set_frm(h, frm);
    h->sstatus |= SSTATUS_FS;
}

static bool csr_write(struct hart *h, unsigned number, uint64_t value)
{
    switch (number) {
    case CSR_FFLAGS:
    case CSR_FRM:
    case CSR_FCSR:
        if (fp_off(h))
            return false;
        if (number != CSR_FRM)
            fpu_set_fflags(h, value & 31);
        if (number == CSR_FRM)
            write_frm(h, value & 7);
        else if (number == CSR_FCSR)
            write_frm(h, value >> 5 & 7);
        h->sstatus |= SSTATUS_FS;
        return true;
    case CSR_SSTATUS:
        h->sstatus = (h->sstatus & ~SSTATUS_WRITABLE) | (value & SSTATUS_WRITABLE);
        h->leave |= trap_interrupt_due(h);
        return true;
    case CSR_SIE:
        h->sie = value & SIE_WRITABLE;
        h->leave |= trap_interrupt_due(h);
        return true;
    case CSR_STVEC:
        h->stvec = value & ~UINT64_C(2);
        return true;
    case CSR_SCOUNTEREN:
        h->scounteren = value & SCOUNTEREN_BITS;
        return true;
    case CSR_SENVCFG:
        h->senvcfg = value & SENVCFG_FIOM;
        return true;
    case CSR_SSCRATCH:
        h->sscratch = value;
        return true;
    case CSR_SEPC:
        h->sepc = value & ~UINT64_C(1);
        return true;
    case CSR_SCAUSE:
        h->scause = value;
        return true;
    case CSR_STVAL:
        h->stval = value;
        return true;
    case CSR_SIP: /* only SSIP is writable: 4.1.3 */
        if (value & IRQ_S_SOFT)
            atomic_fetch_or_explicit(&h->pending, IRQ_S_SOFT, memory_order_release);
        else
            atomic_fetch_and_explicit(&h->pending, ~IRQ_S_SOFT, memory_order_release);
        h->leave |= trap_interrupt_due(h);
        return true;
    case CSR_STIMECMP:
        h->stimecmp = value;
        csr_look_at_timer(h);
        if (h->env.timer_arm)
            h->env.timer_arm(h->env.ctx, value);
        h->leave |= trap_interrupt_due(h);
        return true;
    case CSR_SATP:
        csr_write_satp(h, value);
        return true;
    default:
        return false;
    }
}

bool csr_execute(struct hart *h, uint32_t raw, uint64_t retired)
{
    unsigned number = raw >> 20, f3 = raw >> 12 & 7, rd = raw >> 7 & 31, rs1 = raw >> 15 & 31;
    unsigned least_priv = number >> 8 & 3; /* 0: U, 1: S; 2 and 3 do not exist here */
    uint64_t operand = f3 & 4 ? rs1 : h->x[rs1], old = 0, value;
    bool swaps = (f3 & 3) == 1;
    bool reads = !swaps || rd, writes = swaps || rs1;
    if (least_priv > (unsigned)h->priv || (writes && number >> 10 == 3))
        return false;
    if (reads && !csr_read(h, number, retired, &old))
        return false;
    /* For csrrs and csrrc on sip, what is set in hardware must not be written back: only SSIP is
     * writable, so the read-modify-write below is right as it stands. */
    value = swaps ? operand : (f3 & 3) == 2 ? old | operand : old & ~operand;
    if (writes && !csr_write(h, number, value))
        return false;
    if (rd)
        h->x[rd] = old;
    return true;
}
