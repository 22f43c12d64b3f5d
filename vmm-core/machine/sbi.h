/*
 * The supervisor binary interface: what the guest's kernel asks of the firmware
 * that this monitor is. Follows: RISC-V SBI 2.0 (chapter numbers in sbi.c).
 *
 * Offered: base, timer, IPI, remote fences, hart state, system reset, debug
 * console. Everything else, the legacy calls of v0.1 included, answers
 * NOT_SUPPORTED.
 */
#ifndef BALLAST_SBI_H
#define BALLAST_SBI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sbi_error {
    SBI_SUCCESS = 0,
    SBI_FAILED = -1,
    SBI_NOT_SUPPORTED = -2,
    SBI_INVALID_PARAM = -3,
    SBI_DENIED = -4,
    SBI_INVALID_ADDRESS = -5,
    SBI_ALREADY_AVAILABLE = -6,
};

#define SBI_EXT_BASE          0x10u
#define SBI_EXT_TIME          0x54494d45u
#define SBI_EXT_IPI           0x735049u
#define SBI_EXT_RFENCE        0x52464e43u
#define SBI_EXT_HSM           0x48534du
#define SBI_EXT_SRST          0x53525354u
#define SBI_EXT_DEBUG_CONSOLE 0x4442434eu

#define SBI_SPEC_VERSION (2u << 24)  /* 2.0 */
#define SBI_IMPL_ID      0x424c5354u /* "BLST": no number is assigned to us */

struct sbi_call {
    uint64_t extension, function; /* a7, a6 */
    uint64_t arg[6];              /* a0 .. a5 */
};

struct sbi_reply { /* a0, a1 */
    int64_t error;
    uint64_t value;
};

struct sbi_fence { /* sfence.vma on a hart; not all: the pages of start .. start + size */
    bool all, asid_given;
    uint64_t start, size;
    uint16_t asid;
};

enum sbi_reset { SBI_RESET_SHUTDOWN, SBI_RESET_REBOOT };

/*
 * What the firmware needs of the machine. hart is a number below `harts`, and
 * the calls concern that hart; all are made on the calling hart's own thread.
 */
struct sbi_machine {
    void *ctx;
    unsigned harts;
    bool (*read)(void *ctx, uint64_t pa, void *to, size_t len); /* guest memory; false: not RAM */
    bool (*write)(void *ctx, uint64_t pa, const void *from, size_t len);
    bool (*is_ram)(void *ctx, uint64_t pa, size_t len);
    size_t (*console_write)(void *ctx, const void *bytes, size_t len); /* how many were taken */
    size_t (*console_read)(void *ctx, void *bytes, size_t len);
    void (*set_timer)(void *ctx, unsigned hart, uint64_t deadline_ticks);
    void (*send_ipi)(void *ctx, unsigned hart);
    void (*fence)(void *ctx, unsigned hart, const struct sbi_fence *fence);
    void (*suspend)(void *ctx, unsigned hart); /* until an interrupt is pending */
    void (*reset)(void *ctx, enum sbi_reset how, bool failure);
};

/* Serve one call made by hart `caller`. */
struct sbi_reply sbi_serve(const struct sbi_machine *machine, unsigned caller,
                           const struct sbi_call *call);

#endif
