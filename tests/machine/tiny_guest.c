/*
 * A bare-metal guest of a few hundred bytes, wrapped as a Linux Image: does one
 * of the things tiny_guest.h lists, as the number in its header says.
 */
#include "tests/machine/tiny_guest.h"

#include <stdint.h>

__asm__(".section .head, \"ax\"\n"
        "head:\n"
        "    j start\n"
        "    .balign 8\n"
        "    .dword 0x200000\n" /* text offset */
        "    .dword 0x10000\n"  /* image size */
        "    .dword 0\n"
        "    .dword 2\n"
        "scenario:\n"
        "    .dword 0\n" /* TINY_GUEST_SCENARIO */
        "    .ascii \"RISCV\\0\\0\\0\"\n"
        "    .ascii \"RSC\\x05\"\n"
        "    .word 0\n"
        "start:\n"
        "    li sp, 0x80100000\n"
        "    lla t0, trap\n"
        "    csrw stvec, t0\n"
        "    ld a0, scenario\n"
        "    call guest_main\n"
        "    j .\n"
        "    .balign 4\n"
        "trap:\n" /* only noted: interrupts are switched off, and the program looks at scause */
        "    csrw sie, zero\n"
        "    csrr s11, sepc\n"
        "    sret\n"
        "    .text\n");

#define UART      ((volatile uint8_t *)0x10000000)
#define FINISHER  ((volatile uint32_t *)0x100000)
#define PLIC(off) (*(volatile uint32_t *)(uintptr_t)(0x0c000000 + (off)))

#define csr_write(name, value) __asm__ volatile("csrw " name ", %0" ::"r"(value) : "memory")
#define csr_set(name, value)   __asm__ volatile("csrs " name ", %0" ::"r"(value) : "memory")

static uint64_t now(void)
{
    uint64_t ticks;
    __asm__ volatile("rdtime %0" : "=r"(ticks));
    return ticks;
}

static void wfi(void)
{
    __asm__ volatile("wfi" ::: "memory");
}

static uint64_t sbi(uint64_t extension, uint64_t function, uint64_t a, uint64_t b, uint64_t c)
{
    register uint64_t a0 __asm__("a0") = a;
    register uint64_t a1 __asm__("a1") = b;
    register uint64_t a2 __asm__("a2") = c;
    register uint64_t a3 __asm__("a3") = 8192; /* size of remote fences */
    register uint64_t a6 __asm__("a6") = function;
    register uint64_t a7 __asm__("a7") = extension;
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a2), "r"(a3), "r"(a6), "r"(a7) : "memory");
    return a0;
}

static void reset(uint64_t type, uint64_t reason)
{
    sbi(0x53525354, 0, type, reason, 0);
}

static void fail(uint32_t code)
{
    FINISHER[0] = code << 16 | 0x3333;
}

static void say(const char *text)
{
    uint64_t len = 0;
    while (text[len])
        len++;
    sbi(0x4442434e, 0, len, (uintptr_t)text, 0);
}

/* Sleep until the timer is due; fail when it is early or another interrupt comes. */
static void use_timer(void)
{
    enum { TICKS = 300000 };
    uint64_t start = now();
    csr_write("stimecmp", start + TICKS);
    csr_set("sie", 1 << 5);
    while (now() - start < TICKS)
        wfi();
    uint64_t cause = 0;
    csr_set("sstatus", 2); /* the interrupt is taken here, by the trap above */
    __asm__ volatile("csrr %0, scause" : "=r"(cause));
    if (cause == (UINT64_C(1) << 63 | 5))
        reset(0, 0);
    fail(1);
}

/* Spin for 0.3 s; a step of the clock of over 0.8 s is a failure. */
static void watch_clock(void)
{
    uint64_t start = now(), last = start;
    say("watching\n");
    while (last - start < 3000000) {
        uint64_t next = now();
        if (next < last || next - last > 8000000)
            fail(2);
        last = next;
    }
    reset(0, 0);
}

static void touch_memory(void)
{
    for (uint64_t round = 1;; round++)
        for (uint64_t pa = 0x80300000; pa < 0x80000000 + TINY_GUEST_RAM_BYTES; pa += 4096)
            *(volatile uint64_t *)(uintptr_t)pa = round;
}

/* Echo what arrives by UART interrupt, through the interrupt controller, until 'q'. */
static void echo(void)
{
    PLIC(10 * 4) = 1;
    PLIC(0x2000) = 1 << 10;
    UART[1] = 1;
    csr_write("sie", 1 << 9);
    say("ready\n");
    for (;;) {
        wfi();
        uint32_t source = PLIC(0x200004);
        if (source != 10)
            continue;
        while (UART[5] & 1) {
            uint8_t byte = UART[0];
            UART[0] = byte;
            if (byte == 'q')
                reset(0, 0);
        }
        PLIC(0x200004) = source;
    }
}

static uint64_t pending(void)
{
    uint64_t sip;
    __asm__ volatile("csrr %0, sip" : "=r"(sip));
    return sip;
}

static void must(int ok, uint32_t step)
{
    if (!ok)
        fail(step);
}

/* Interrupts stay masked in sstatus: their effects are read from sip. */
static void use_firmware(void)
{
    enum {
        TIME = 0x54494d45,
        IPI = 0x735049,
        RFENCE = 0x52464e43,
        HSM = 0x48534d,
        CONSOLE = 0x4442434e
    };
    static volatile char typed[8];
    csr_write("sie", 1 << 1 | 1 << 5);

    must(sbi(TIME, 0, now() + 50000, 0, 0) == 0, 1);
    must(!(pending() & 1 << 5), 2);
    wfi();
    must(pending() & 1 << 5, 3);
    must(sbi(TIME, 0, UINT64_MAX, 0, 0) == 0, 4);
    must(!(pending() & 1 << 5), 5);

    must(sbi(IPI, 0, 1, 0, 0) == 0, 6);
    must(pending() & 1 << 1, 7);
    wfi(); /* returns at once */
    __asm__ volatile("csrc sip, %0" ::"r"(1 << 1));
    must(!(pending() & 1 << 1), 8);

    must(sbi(RFENCE, 0, 1, 0, 0) == 0, 9);
    must(sbi(RFENCE, 1, 1, 0, 0x80300000) == 0, 10);
    must(sbi(RFENCE, 2, 1, UINT64_MAX, 0) == 0, 11);

    uint64_t start = now();
    sbi(TIME, 0, start + 50000, 0, 0);
    must(sbi(HSM, 3, 0, 0, 0) == 0, 12); /* sleeps until the timer is pending */
    must(now() - start >= 50000, 13);

    say("ready\n");
    for (uint64_t got = 0; got < 5;) {
        register uint64_t a0 __asm__("a0") = 5 - got;
        register uint64_t a1 __asm__("a1") = (uintptr_t)typed + got;
        register uint64_t a2 __asm__("a2") = 0;
        register uint64_t a6 __asm__("a6") = 1;
        register uint64_t a7 __asm__("a7") = CONSOLE;
        __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a2), "r"(a6), "r"(a7) : "memory");
        must(a0 == 0, 14);
        got += a1;
    }
    must(typed[0] == 't' && typed[4] == 'd', 15);
    sbi(CONSOLE, 2, '!', 0, 0);
    reset(0, 0);
}

void guest_main(uint64_t scenario);
void guest_main(uint64_t scenario)
{
    switch (scenario) {
    case GUEST_SHUTDOWN:
        reset(0, 0);
        break;
    case GUEST_REBOOT:
        reset(1, 0);
        break;
    case GUEST_SHUTDOWN_FAILURE:
        reset(0, 1);
        break;
    case GUEST_FINISH:
        FINISHER[0] = 0x5555;
        break;
    case GUEST_FINISH_REBOOT:
        FINISHER[0] = 0x7777;
        break;
    case GUEST_FINISH_FAILURE:
        fail(42);
        break;
    case GUEST_SAY:
        say("hello from the guest\n");
        reset(0, 0);
        break;
    case GUEST_SLEEP:
        say("sleeping\n");
        for (;;)
            wfi();
    case GUEST_SPIN:
        say("spinning\n");
        for (;;)
            ;
    case GUEST_TIMER:
        use_timer();
        break;
    case GUEST_CLOCK:
        watch_clock();
        break;
    case GUEST_TOUCH:
        say("touching\n");
        touch_memory();
        break;
    case GUEST_ECHO:
        echo();
        break;
    case GUEST_FIRMWARE:
        use_firmware();
        break;
    }
    for (;;)
        wfi();
}
