/*
 * The side of the differential fuzzer that runs under qemu-riscv64: a static
 * RISC-V program without a C library.
 *
 * It reads a batch of cases from standard input, puts their code in place, and
 * lives in its signal handler from then on: every case ends in ebreak or in a
 * fault, the handler writes down the interrupted state, replaces it by the start
 * of the next case, and returns into it. So all registers can be set and read
 * with no code around the case. tp and gp belong to the case: nothing here may
 * use them (-mno-relax, no thread-local storage).
 */
#include "tests/hart/fuzz_case.h"

#include <stddef.h>

// clang-format off
enum { SYS_READ = 63, SYS_WRITE = 64, SYS_EXIT = 93, SYS_SIGALTSTACK = 132, SYS_SIGACTION = 134,
       SYS_MMAP = 222 };
enum { SIGILL_NUMBER = 4, SIGTRAP_NUMBER = 5, SIGBUS_NUMBER = 7, SIGSEGV_NUMBER = 11 };

// clang-format on

/* Linux, arch/riscv: struct rt_sigframe's parts. */
struct machine_context {
    uint64_t pc_and_x[32]; /* pc, x1 .. x31 */
    uint64_t f[32];
    uint32_t fcsr;
};
struct user_context {
    uint64_t flags, link;
    struct {
        void *sp;
        int flags;
        uint64_t size;
    } stack;
    uint64_t sigmask[16]; /* 1024 bits, all reserved for the mask */
    struct machine_context machine __attribute__((aligned(16)));
};
struct signal_action {
    void (*handler)(int, void *, struct user_context *);
    uint64_t flags, mask;
};

static struct fuzz_case *cases;
static struct fuzz_outcome *outcomes;
static uint64_t case_count, current;
static uint8_t stack[65536] __attribute__((aligned(16)));

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c;
    register long a3 __asm__("a3") = d, a4 __asm__("a4") = e, a5 __asm__("a5") = f;
    register long a7 __asm__("a7") = number;
    __asm__ volatile("ecall"
                     : "+r"(a0)
                     : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5), "r"(a7)
                     : "memory");
    return a0;
}

void *memcpy(void *to, const void *from, size_t n);
void *memcpy(void *to, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    return to;
}

static void finish(void)
{
    const uint8_t *at = (const uint8_t *)outcomes;
    uint64_t left = case_count * sizeof *outcomes;
    while (left) {
        long n = call(SYS_WRITE, 1, (long)at, (long)left, 0, 0, 0);
        if (n <= 0)
            break;
        at += n;
        left -= (uint64_t)n;
    }
    call(SYS_EXIT, left != 0, 0, 0, 0, 0, 0);
}

static void start_case(struct user_context *context)
{
    const struct fuzz_case *c = &cases[current];
    memcpy((void *)FUZZ_WINDOW_VA, c->window, sizeof c->window);
    memcpy(context->machine.pc_and_x, c->x, sizeof c->x);
    context->machine.pc_and_x[0] = c->code_va;
    memcpy(context->machine.f, c->f, sizeof c->f);
    context->machine.fcsr = (uint32_t)c->fcsr;
}

static void on_signal(int signal, void *siginfo, struct user_context *context)
{
    static int started;
    (void)siginfo;
    if (started) {
        struct fuzz_outcome *o = &outcomes[current++];
        memcpy(o->x, context->machine.pc_and_x, sizeof o->x);
        o->x[0] = 0;
        o->pc = context->machine.pc_and_x[0];
        memcpy(o->f, context->machine.f, sizeof o->f);
        o->fcsr = context->machine.fcsr;
        o->signal = (uint64_t)signal;
        memcpy(o->window, (void *)FUZZ_WINDOW_VA, sizeof o->window);
    }
    started = 1;
    if (current == case_count)
        finish();
    start_case(context);
}

static void *map(uint64_t va, uint64_t bytes)
{
    enum { READ_WRITE_EXEC = 7, PRIVATE_ANONYMOUS = 0x22, FIXED = 0x10 };
    return (void *)call(SYS_MMAP, (long)va, (long)bytes, READ_WRITE_EXEC,
                        PRIVATE_ANONYMOUS | (va ? FIXED : 0), -1, 0);
}

static void read_all(void *to, uint64_t bytes)
{
    for (uint8_t *at = to; bytes;) {
        long n = call(SYS_READ, 0, (long)at, (long)bytes, 0, 0, 0);
        if (n <= 0)
            call(SYS_EXIT, 2, 0, 0, 0, 0, 0);
        at += n;
        bytes -= (uint64_t)n;
    }
}

void _start(void);
void _start(void)
{
    static const int signals[] = {SIGILL_NUMBER, SIGTRAP_NUMBER, SIGBUS_NUMBER, SIGSEGV_NUMBER};
    struct signal_action action = {on_signal, 0x08000004 | 0x40000000,
                                   0}; /* ONSTACK SIGINFO NODEFER */
    struct {
        void *sp;
        int flags;
        uint64_t size;
    } alternate = {stack, 0, sizeof stack};
    read_all(&case_count, sizeof case_count);
    cases = map(0, case_count * sizeof *cases);
    outcomes = map(0, case_count * sizeof *outcomes);
    read_all(cases, case_count * sizeof *cases);
    map(FUZZ_CODE_VA, 1024 + FUZZ_BATCH * FUZZ_CODE_PITCH + 8192);
    map(FUZZ_DATA_VA, 8192);
    for (uint64_t i = 0; i < case_count; i++)
        memcpy((void *)cases[i].code_va, cases[i].code, FUZZ_CODE_BYTES);
    __asm__ volatile("fence.i" ::: "memory");
    call(SYS_SIGALTSTACK, (long)&alternate, 0, 0, 0, 0, 0);
    for (unsigned i = 0; i < sizeof signals / sizeof signals[0]; i++)
        call(SYS_SIGACTION, signals[i], (long)&action, 0, 8, 0, 0);
    __asm__ volatile("ebreak");
    call(SYS_EXIT, 3, 0, 0, 0, 0, 0);
}
