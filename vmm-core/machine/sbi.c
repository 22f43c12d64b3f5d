/*
 * SBI 2.0, one function an extension, found in a table. A guest's numbers are
 * checked before use; guest memory is touched in bounded pieces, and a long
 * debug console write is answered short, as the manual allows.
 */
#include "vmm-core/machine/sbi.h"

#define DEBUG_CONSOLE_BYTES 256u       /* one piece */
#define DEBUG_CONSOLE_MAX   4096u      /* one call */
#define ALL_HARTS           UINT64_MAX /* hart_mask_base: every hart (chapter 3.2) */
#define HART_STARTED        0u
#define SUSPEND_RETENTIVE   0u /* default retentive suspend type (chapter 9.4) */

typedef struct sbi_reply extension(const struct sbi_machine *machine, unsigned caller,
                                   const struct sbi_call *call);

static struct sbi_reply error(enum sbi_error code)
{
    return (struct sbi_reply){.error = code};
}

static struct sbi_reply success(uint64_t value)
{
    return (struct sbi_reply){.error = SBI_SUCCESS, .value = value};
}

/* A hart mask and its base (chapter 3.2) as a mask of hart numbers. False: a hart that is not
 * there is named. */
static bool harts_named(const struct sbi_machine *machine, uint64_t mask, uint64_t base,
                        uint64_t *harts)
{
    uint64_t every = (UINT64_C(1) << machine->harts) - 1;
    if (base == ALL_HARTS) {
        *harts = every;
        return true;
    }
    if (base >= machine->harts)
        return false;
    *harts = mask << base;
    return *harts >> base == mask && !(*harts & ~every);
}

/* ---- Chapter 4: base ---- */

static bool extension_offered(uint64_t id);

static struct sbi_reply serve_base(const struct sbi_machine *machine, unsigned caller,
                                   const struct sbi_call *call)
{
    (void)machine;
    (void)caller;
    switch (call->function) {
    case 0:
        return success(SBI_SPEC_VERSION);
    case 1:
        return success(SBI_IMPL_ID);
    case 2:
        return success(1); /* implementation version */
    case 3:
        return success(extension_offered(call->arg[0]));
    case 4: /* mvendorid, marchid, mimpid: not implemented reads as 0 */
    case 5:
    case 6:
        return success(0);
    default:
        return error(SBI_NOT_SUPPORTED);
    }
}

/* ---- Chapter 6: timer ---- */

static struct sbi_reply serve_time(const struct sbi_machine *machine, unsigned caller,
                                   const struct sbi_call *call)
{
    if (call->function != 0)
        return error(SBI_NOT_SUPPORTED);
    machine->set_timer(machine->ctx, caller, call->arg[0]);
    return success(0);
}

/* ---- Chapter 7: inter-processor interrupts ---- */

static struct sbi_reply serve_ipi(const struct sbi_machine *machine, unsigned caller,
                                  const struct sbi_call *call)
{
    (void)caller;
    uint64_t harts;
    if (call->function != 0)
        return error(SBI_NOT_SUPPORTED);
    if (!harts_named(machine, call->arg[0], call->arg[1], &harts))
        return error(SBI_INVALID_PARAM);
    for (unsigned hart = 0; hart < machine->harts; hart++)
        if (harts >> hart & 1)
            machine->send_ipi(machine->ctx, hart);
    return success(0);
}

/* ---- Chapter 8: remote fences ---- */

static struct sbi_reply serve_rfence(const struct sbi_machine *machine, unsigned caller,
                                     const struct sbi_call *call)
{
    enum { FENCE_I, SFENCE_VMA, SFENCE_VMA_ASID };
    (void)caller;
    uint64_t harts;
    if (call->function > SFENCE_VMA_ASID) /* the rest is for hypervisors */
        return error(SBI_NOT_SUPPORTED);
    if (!harts_named(machine, call->arg[0], call->arg[1], &harts))
        return error(SBI_INVALID_PARAM);
    if (call->function == FENCE_I)
        return success(0); /* stores drop decoded code by themselves */
    struct sbi_fence fence = {.start = call->arg[2],
                              .size = call->arg[3],
                              .asid_given = call->function == SFENCE_VMA_ASID,
                              .asid = (uint16_t)call->arg[4]};
    fence.all = (fence.start == 0 && fence.size == 0) || fence.size == UINT64_MAX;
    if (!fence.all && fence.start + fence.size < fence.start)
        return error(SBI_INVALID_ADDRESS);
    for (unsigned hart = 0; hart < machine->harts; hart++)
        if (harts >> hart & 1)
            machine->fence(machine->ctx, hart, &fence);
    return success(0);
}

/* ---- Chapter 9: hart state. Every hart is started with the machine. ---- */

static struct sbi_reply serve_hart_state(const struct sbi_machine *machine, unsigned caller,
                                         const struct sbi_call *call)
{
    enum { START, STOP, STATUS, SUSPEND };
    switch (call->function) {
    case START:
        return error(call->arg[0] < machine->harts ? SBI_ALREADY_AVAILABLE : SBI_INVALID_PARAM);
    case STOP:
        return error(SBI_FAILED); /* the last hart of a machine stays */
    case STATUS:
        return call->arg[0] < machine->harts ? success(HART_STARTED) : error(SBI_INVALID_PARAM);
    case SUSPEND:
        if ((uint32_t)call->arg[0] != SUSPEND_RETENTIVE)
            return error(SBI_NOT_SUPPORTED);
        machine->suspend(machine->ctx, caller);
        return success(0);
    default:
        return error(SBI_NOT_SUPPORTED);
    }
}

/* ---- Chapter 10: system reset ---- */

static struct sbi_reply serve_reset(const struct sbi_machine *machine, unsigned caller,
                                    const struct sbi_call *call)
{
    enum { SHUTDOWN, COLD_REBOOT, WARM_REBOOT };
    enum { REASON_NONE, REASON_FAILURE };
    (void)caller;
    uint32_t type = (uint32_t)call->arg[0], reason = (uint32_t)call->arg[1];
    if (call->function != 0)
        return error(SBI_NOT_SUPPORTED);
    if (type > WARM_REBOOT || reason > REASON_FAILURE)
        return error(SBI_INVALID_PARAM);
    machine->reset(machine->ctx, type == SHUTDOWN ? SBI_RESET_SHUTDOWN : SBI_RESET_REBOOT,
                   reason == REASON_FAILURE);
    return success(0);
}

/* ---- Chapter 12: debug console ---- */

static struct sbi_reply console_memory(const struct sbi_machine *machine,
                                       const struct sbi_call *call, bool to_console)
{
    uint64_t len = call->arg[0], pa = call->arg[1], done = 0;
    if (call->arg[2] != 0 || !machine->is_ram(machine->ctx, pa, len))
        return error(SBI_INVALID_PARAM);
    if (len > DEBUG_CONSOLE_MAX)
        len = DEBUG_CONSOLE_MAX;
    while (done < len) {
        uint8_t piece[DEBUG_CONSOLE_BYTES];
        size_t want = len - done < sizeof piece ? (size_t)(len - done) : sizeof piece, moved;
        if (to_console) {
            if (!machine->read(machine->ctx, pa + done, piece, want))
                return error(SBI_FAILED);
            moved = machine->console_write(machine->ctx, piece, want);
        } else {
            moved = machine->console_read(machine->ctx, piece, want);
            if (moved && !machine->write(machine->ctx, pa + done, piece, moved))
                return error(SBI_FAILED);
        }
        done += moved;
        if (moved < want)
            break;
    }
    return success(done);
}

static struct sbi_reply serve_debug_console(const struct sbi_machine *machine, unsigned caller,
                                            const struct sbi_call *call)
{
    enum { WRITE, READ, WRITE_BYTE };
    (void)caller;
    switch (call->function) {
    case WRITE:
        return console_memory(machine, call, true);
    case READ:
        return console_memory(machine, call, false);
    case WRITE_BYTE: {
        uint8_t byte = (uint8_t)call->arg[0];
        return machine->console_write(machine->ctx, &byte, 1) ? success(0) : error(SBI_FAILED);
    }
    default:
        return error(SBI_NOT_SUPPORTED);
    }
}

static const struct {
    uint64_t id;
    extension *serve;
} extensions[] = {
    {SBI_EXT_BASE, serve_base},
    {SBI_EXT_TIME, serve_time},
    {SBI_EXT_IPI, serve_ipi},
    {SBI_EXT_RFENCE, serve_rfence},
    {SBI_EXT_HSM, serve_hart_state},
    {SBI_EXT_SRST, serve_reset},
    {SBI_EXT_DEBUG_CONSOLE, serve_debug_console},
};

#define EXTENSIONS (sizeof extensions / sizeof extensions[0])

static bool extension_offered(uint64_t id)
{
    for (unsigned i = 0; i < EXTENSIONS; i++)
        if (extensions[i].id == id)
            return true;
    return false;
}

struct sbi_reply sbi_serve(const struct sbi_machine *machine, unsigned caller,
                           const struct sbi_call *call)
{
    for (unsigned i = 0; i < EXTENSIONS; i++)
        if (extensions[i].id == call->extension)
            return extensions[i].serve(machine, caller, call);
    return error(SBI_NOT_SUPPORTED);
}
