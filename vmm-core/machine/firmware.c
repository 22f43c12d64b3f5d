/* What an SBI call does to this machine: the verbs of struct sbi_machine. */
#include "vmm-core/machine/machine_parts.h"
#include "vmm-core/machine/sbi.h"

static bool guest_read(void *context, uint64_t pa, void *to, size_t len)
{
    return gmem_read(((struct machine_hart *)context)->machine->gmem, pa, to, len);
}

static bool guest_write(void *context, uint64_t pa, const void *from, size_t len)
{
    return gmem_write(((struct machine_hart *)context)->machine->gmem, pa, from, len);
}

static bool guest_is_ram(void *context, uint64_t pa, size_t len)
{
    return gmem_is_ram(((struct machine_hart *)context)->machine->gmem, pa, len);
}

static size_t firmware_console_write(void *context, const void *bytes, size_t len)
{
    return console_write(uart_console(((struct machine_hart *)context)->machine->uart), bytes, len);
}

static size_t firmware_console_read(void *context, void *bytes, size_t len)
{
    return console_read(uart_console(((struct machine_hart *)context)->machine->uart), bytes, len);
}

static void set_timer(void *context, unsigned hart_id, uint64_t deadline_ticks)
{
    struct machine_hart *hart = &((struct machine_hart *)context)->machine->harts[hart_id];
    struct hart_state state;
    hart_get_state(hart->hart, &state);
    state.stimecmp = deadline_ticks;
    hart_set_state(hart->hart, &state);
    machine_hart_arm(hart, deadline_ticks);
    atomic_fetch_or(hart_attention(hart->hart), ATTENTION_INTERRUPT);
}

static void send_ipi(void *context, unsigned hart_id)
{
    struct machine_hart *hart = &((struct machine_hart *)context)->machine->harts[hart_id];
    hart_set_pending(hart->hart, IRQ_S_SOFT);
    machine_hart_wake(hart);
}

static void remote_fence(void *context, unsigned hart_id, const struct sbi_fence *fence)
{
    struct machine_hart *caller = context;
    struct machine *machine = caller->machine;
    /* Another hart's tables may be changed while it is at a safe point; the caller's own always
     * may, since it is outside guest code here. */
    memlock_lock(machine->lock, MEMLOCK_NOT_A_HART);
    memlock_stop(machine->lock, MEMLOCK_NOT_A_HART);
    hart_fence(machine->harts[hart_id].hart, !fence->all, fence->start, fence->size,
               fence->asid_given, fence->asid);
    memlock_unlock(machine->lock, MEMLOCK_NOT_A_HART);
}

static void suspend(void *context, unsigned hart_id)
{
    ((struct machine_hart *)context)->machine->harts[hart_id].suspend_wanted = true;
}

static void reset(void *context, enum sbi_reset how, bool failure)
{
    struct machine *machine = ((struct machine_hart *)context)->machine;
    if (failure)
        machine_set_end(machine, MACHINE_FAILED);
    else
        machine_set_end(machine, how == SBI_RESET_SHUTDOWN ? MACHINE_POWEROFF : MACHINE_REBOOT);
}

void firmware_serve(struct machine_hart *hart)
{
    enum { A0 = 10, A6 = 16, A7 = 17, ECALL_BYTES = 4 };
    const struct sbi_machine machine = {
        .ctx = hart,
        .harts = hart->machine->hart_count,
        .read = guest_read,
        .write = guest_write,
        .is_ram = guest_is_ram,
        .console_write = firmware_console_write,
        .console_read = firmware_console_read,
        .set_timer = set_timer,
        .send_ipi = send_ipi,
        .fence = remote_fence,
        .suspend = suspend,
        .reset = reset,
    };
    struct sbi_call call = {.extension = hart_get_x(hart->hart, A7),
                            .function = hart_get_x(hart->hart, A6)};
    for (unsigned i = 0; i < 6; i++)
        call.arg[i] = hart_get_x(hart->hart, A0 + i);
    struct sbi_reply reply = sbi_serve(&machine, (unsigned)hart->id, &call);
    hart_set_x(hart->hart, A0, (uint64_t)reply.error);
    hart_set_x(hart->hart, A0 + 1, reply.value);
    hart_advance_pc(hart->hart, ECALL_BYTES);
}
