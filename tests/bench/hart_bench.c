/*
 * Micro-benchmarks of the hart: million instructions a second on the loops of
 * tests/hart/guest/bench.S, each the best of several rounds.
 *
 *   hart_bench IMAGE [WORD]     only loops whose name contains WORD
 */
#include "tests/hart/flat_guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RAM_PAGES   512u
#define ROUNDS      5
#define ROUND_INSNS UINT64_C(4000000)

struct table_entry {
    uint64_t start_pa, name_pa; /* 0 ends the table */
};

static uint8_t image[RAM_PAGES * PAGE_BYTES];

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double best_mips(struct flat_guest *guest, uint64_t start_pa)
{
    struct hart_state reset = {.pc = start_pa, .priv = SHADOW_S, .stimecmp = UINT64_MAX};
    double best = 0;
    hart_set_state(guest->hart, &reset);
    for (int round = 0; round < ROUNDS; round++) {
        struct hart_counts before, after;
        hart_read_counts(guest->hart, &before);
        double start = now_seconds();
        enum hart_exit why = hart_run(guest->hart, ROUND_INSNS);
        double seconds = now_seconds() - start;
        hart_read_counts(guest->hart, &after);
        if (why != HART_EXIT_BUDGET) {
            fprintf(stderr, "hart_bench: the loop at %#llx ended with %d\n",
                    (unsigned long long)start_pa, why);
            exit(1);
        }
        double mips = (double)(after.instructions - before.instructions) / seconds / 1e6;
        best = mips > best ? mips : best;
    }
    return best;
}

int main(int argc, char **argv)
{
    FILE *file = argc >= 2 ? fopen(argv[1], "r") : NULL;
    if (!file || !fread(image, 1, sizeof image, file)) {
        fprintf(stderr, "usage: %s IMAGE [WORD]\n", argv[0]);
        return 2;
    }
    fclose(file);
    for (const struct table_entry *t = (const void *)image; t->start_pa; t++) {
        const char *name = (const char *)image + (t->name_pa - RAM_BASE_PA);
        if (argc > 2 && !strstr(name, argv[2]))
            continue;
        struct flat_guest *guest = flat_guest_new(RAM_PAGES, false);
        memcpy(guest->ram, image, sizeof image);
        printf("{\"name\": \"hart %s\", \"value\": %.0f, \"unit\": \"MIPS\"}\n", name,
               best_mips(guest, t->start_pa));
        fflush(stdout);
        flat_guest_free(guest);
    }
    return 0;
}
