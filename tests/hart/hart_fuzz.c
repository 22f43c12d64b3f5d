/*
 * Differential fuzzer: the same random programs (fuzz_program.c) in the hart and
 * under Debian's qemu-riscv64 (qemu_side.c), compared register by register.
 *
 *   hart_fuzz QEMU QEMU_SIDE [FIRST_SEED [BATCHES]]
 *
 * A batch is 1000 programs of one seed. Every fourth program is also run one
 * instruction at a time, which must end in the same state with the same number
 * of instructions. Prints the first differences and exits 1 if there are any.
 */
#include "tests/hart/flat_guest.h"
#include "tests/hart/fuzz_program.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define RAM_PAGES   2048u
#define TRAP_PA     UINT64_C(0x80700000) /* holds an ecall */
#define MAX_PRINTED 5

/* --- the other side --- */

static bool read_all(FILE *from, void *to, size_t bytes)
{
    return fread(to, 1, bytes, from) == bytes;
}

/* Run a batch under QEMU. The cases go through a temporary file, the outcomes through a pipe. */
static bool run_qemu(const char *qemu, const char *side, const struct fuzz_case *cases,
                     uint64_t count, struct fuzz_outcome *outcomes)
{
    FILE *in = tmpfile();
    int out[2];
    if (!in || fwrite(&count, sizeof count, 1, in) != 1 ||
        fwrite(cases, sizeof *cases, count, in) != count || fflush(in) || pipe(out)) {
        fprintf(stderr, "cannot hand cases to %s: %s\n", qemu, strerror(errno));
        return false;
    }
    rewind(in);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fileno(in), 0);
        dup2(out[1], 1);
        close(out[0]);
        execlp(qemu, qemu, "-cpu", "rv64,zba=false,zbb=false,zbc=false,zbs=false", side,
               (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *from = fdopen(out[0], "r");
    bool good = pid > 0 && from && read_all(from, outcomes, count * sizeof *outcomes);
    int status = 0;
    if (from)
        fclose(from);
    if (pid > 0)
        waitpid(pid, &status, 0);
    fclose(in);
    if (!good || status) {
        fprintf(stderr, "%s %s: ended with status %#x\n", qemu, side, (unsigned)status);
        return false;
    }
    return true;
}

/* --- the hart's side --- */

static uint64_t signal_of_cause(uint64_t cause)
{
    return cause == CAUSE_ILLEGAL ? 4 : cause == CAUSE_BREAKPOINT ? 5 : 11;
}

/* step: instructions a call of hart_run. Returns instructions retired. */
static uint64_t run_hart(struct flat_guest *guest, const struct fuzz_case *c, uint64_t step,
                         struct fuzz_outcome *o)
{
    struct hart_state state = {.pc = c->code_va,
                               .fcsr = (uint32_t)c->fcsr,
                               .priv = SHADOW_U,
                               .sstatus = UINT64_C(1) << 13,
                               .stvec = TRAP_PA};
    struct hart_counts before, after;
    memcpy(state.x, c->x, sizeof state.x);
    memcpy(state.f, c->f, sizeof state.f);
    memcpy(flat_guest_at(guest, FUZZ_WINDOW_VA), c->window, sizeof c->window);
    hart_set_state(guest->hart, &state);
    hart_read_counts(guest->hart, &before);
    enum hart_exit exit;
    do
        exit = hart_run(guest->hart, step);
    while (exit == HART_EXIT_BUDGET && step == 1);
    hart_read_counts(guest->hart, &after);
    hart_get_state(guest->hart, &state);
    if (exit != HART_EXIT_SBI) {
        fprintf(stderr, "hart_run answered %d at pc %#" PRIx64 "\n", exit, state.pc);
        abort();
    }
    memcpy(o->x, state.x, sizeof o->x);
    memcpy(o->f, state.f, sizeof o->f);
    o->fcsr = state.fcsr;
    o->pc = state.sepc;
    o->signal = signal_of_cause(state.scause);
    memcpy(o->window, flat_guest_at(guest, FUZZ_WINDOW_VA), sizeof o->window);
    return after.instructions - before.instructions;
}

/* --- comparison --- */

static bool differ(const char *what, unsigned index, uint64_t hart, uint64_t peer)
{
    if (hart == peer)
        return false;
    printf("    %s%u: hart %016" PRIx64 ", peer %016" PRIx64 "\n", what, index, hart, peer);
    return true;
}

static void describe(const struct fuzz_case *c, const struct fuzz_outcome *hart,
                     const struct fuzz_outcome *peer)
{
    for (unsigned i = 0; i < 32; i++)
        differ("x", i, hart->x[i], peer->x[i]);
    for (unsigned i = 0; i < 32; i++)
        differ("f", i, hart->f[i], peer->f[i]);
    differ("fcsr", 0, hart->fcsr, peer->fcsr);
    differ("pc", 0, hart->pc - c->code_va, peer->pc - c->code_va);
    differ("signal", 0, hart->signal, peer->signal);
    for (unsigned i = 0; i < FUZZ_WINDOW_BYTES; i++)
        differ("window", i, hart->window[i], peer->window[i]);
}

static void save_case(const struct fuzz_case *c, uint64_t seed, unsigned index)
{
    char path[64];
    snprintf(path, sizeof path, "hart_fuzz-%" PRIu64 "-%u.bin", seed, index);
    FILE *file = fopen(path, "w");
    if (file) {
        fwrite(c->code, 1, sizeof c->code, file);
        fclose(file);
        printf("    code in %s: riscv64-linux-gnu-objdump -D -b binary -m riscv:rv64 %s\n", path,
               path);
    }
}

static uint64_t total_retired, total_by_signal[16];

static unsigned compare_batch(const char *qemu, const char *side, uint64_t seed)
{
    struct fuzz_case *cases = calloc(FUZZ_BATCH, sizeof *cases);
    struct fuzz_outcome *peer = calloc(FUZZ_BATCH, sizeof *peer);
    struct flat_guest *guest = flat_guest_new(RAM_PAGES, false);
    static const uint32_t ecall = 0x00000073;
    unsigned bad = 0;
    if (!cases || !peer)
        abort();
    for (unsigned i = 0; i < FUZZ_BATCH; i++) {
        fuzz_make_case(&cases[i], seed, i);
        memcpy(flat_guest_at(guest, cases[i].code_va), cases[i].code, FUZZ_CODE_BYTES);
    }
    memcpy(flat_guest_at(guest, TRAP_PA), &ecall, sizeof ecall);
    if (!run_qemu(qemu, side, cases, FUZZ_BATCH, peer))
        exit(1);
    for (unsigned i = 0; i < FUZZ_BATCH; i++) {
        struct fuzz_outcome hart = {0}, stepped = {0};
        uint64_t retired = run_hart(guest, &cases[i], UINT64_MAX, &hart);
        total_retired += retired;
        total_by_signal[hart.signal & 15]++;
        bool same = !memcmp(&hart, &peer[i], sizeof hart), step_same = true;
        if (i % 4 == 0) {
            uint64_t retired_stepped = run_hart(guest, &cases[i], 1, &stepped);
            step_same = retired == retired_stepped && !memcmp(&hart, &stepped, sizeof hart);
            if (!step_same)
                printf("  stepped: %" PRIu64 " instructions against %" PRIu64 "\n", retired_stepped,
                       retired);
        }
        if (same && step_same)
            continue;
        if (bad++ < MAX_PRINTED) {
            printf("  seed %" PRIu64 ", program %u:\n", seed, i);
            describe(&cases[i], &hart, same ? &stepped : &peer[i]);
            save_case(&cases[i], seed, i);
        }
    }
    flat_guest_free(guest);
    free(peer);
    free(cases);
    return bad;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s QEMU QEMU_SIDE [FIRST_SEED [BATCHES]]\n", argv[0]);
        return 2;
    }
    uint64_t first = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
    uint64_t batches = argc > 4 ? strtoull(argv[4], NULL, 0) : 1;
    for (uint64_t seed = first; seed < first + batches; seed++) {
        unsigned bad = compare_batch(argv[1], argv[2], seed);
        if (bad) {
            printf("seed %" PRIu64 ": %u of %u programs differ\n", seed, bad, FUZZ_BATCH);
            return 1;
        }
    }
    printf("%" PRIu64 " programs of %" PRIu64 " instructions on average, %" PRIu64
           " of them ended by an illegal one: no difference\n",
           batches * FUZZ_BATCH, total_retired / (batches * FUZZ_BATCH), total_by_signal[4]);
    return 0;
}
