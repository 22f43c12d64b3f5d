/*
 * One decision of policy esx over many VMs: 10,000 in at most 5 ms, and growing no
 * faster than n log n up to a million. CPU time, so that a busy machine tells the
 * same; the two sizes take turns, so that both see the same machine; the median of
 * REPETITIONS, each the median of some rounds, with the spread beside it.
 */
#include "daemon/policy/policy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define REPETITIONS 7
#define SMALL_VMS   10000u
#define LARGE_VMS   1000000u
#define MOST_ROUNDS 21
#define HUGE_BYTES  (UINT64_C(2) << 20)

struct host {
    size_t count;
    int rounds; /* in a repetition */
    struct policy_settings settings;
    struct policy_host row;
    struct policy_vm *vms;
    struct policy_target *targets;
    struct policy_state *state, *spare;
};

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* In huge pages, as the policy has its own. */
static void *rows_new(size_t rows, size_t row_bytes)
{
    size_t bytes = (rows * row_bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    void *array = aligned_alloc(HUGE_BYTES, bytes);
    if (!array) {
        fprintf(stderr, "policy_bench: no memory\n");
        exit(1);
    }
    madvise(array, bytes, MADV_HUGEPAGE);
    return array;
}

/* VMs that want twice what there is, on a host in state hard. */
static void host_open(struct host *host, size_t count, int rounds)
{
    *host = (struct host){
        .count = count,
        .rounds = rounds,
        .row = {.elapsed_ns = 1000000000},
        .vms = rows_new(count, sizeof *host->vms),
        .targets = rows_new(count, sizeof *host->targets),
        .state = policy_state_new(),
        .spare = policy_state_new(),
    };
    policy_settings_default(&host->settings);
    srand(1);
    for (size_t i = 0; i < count; i++) {
        uint64_t memory = 4096 + (uint64_t)(rand() % 262144);
        host->vms[i] = (struct policy_vm){
            .id = (uint32_t)(i + 1),
            .valid = POLICY_HAS_ABSENT | POLICY_HAS_ACTIVE | POLICY_HAS_BALLOON | POLICY_HAS_PAGED,
            .can = POLICY_CAN_BALLOON | POLICY_CAN_PAGE_OUT | POLICY_CAN_BLOCK,
            .shares = (uint32_t)(1 + rand() % 5000),
            .memory_pages = memory,
            .min_pages = memory / 4,
            .max_pages = memory,
            .allocated_pages = memory / 2,
            .balloon_pages = memory / 4,
            .active_fraction = rand() / (double)RAND_MAX,
        };
        host->row.machine_pages += memory / 2;
    }
    host->row.free_pages = host->row.machine_pages / 50;
    host->row.machine_pages += host->row.free_pages;
}

static void host_close(struct host *host)
{
    free(host->vms);
    free(host->targets);
    policy_state_free(host->state);
    policy_state_free(host->spare);
}

/* The median of its rounds. */
static double round_ms(struct host *host)
{
    struct policy_outcome outcome;
    struct err err;
    double times[MOST_ROUNDS];
    for (int round = 0; round < host->rounds; round++) {
        double start = cpu_ms();
        if (!host->state || !host->spare ||
            policy_decide(policy_find("esx"), &host->settings, host->state, &host->row, host->vms,
                          host->count, host->spare, host->targets, &outcome, &err) < 0) {
            fprintf(stderr, "policy_bench: a round failed\n");
            exit(1);
        }
        times[round] = cpu_ms() - start;
        struct policy_state *swap = host->state;
        host->state = host->spare;
        host->spare = swap;
    }
    qsort(times, (size_t)host->rounds, sizeof *times, compare_doubles);
    return times[host->rounds / 2];
}

int main(void)
{
    struct host small, large;
    double small_ms[REPETITIONS], large_ms[REPETITIONS], ratio[REPETITIONS];
    double growth = ((double)LARGE_VMS * log(LARGE_VMS)) / ((double)SMALL_VMS * log(SMALL_VMS));
    host_open(&small, SMALL_VMS, MOST_ROUNDS);
    host_open(&large, LARGE_VMS, 3);
    round_ms(&small); /* memory that is touched for the first time */
    round_ms(&large);
    for (int i = 0; i < REPETITIONS; i++) {
        small_ms[i] = round_ms(&small);
        large_ms[i] = round_ms(&large);
        ratio[i] = large_ms[i] / (small_ms[i] * growth);
    }
    host_close(&small);
    host_close(&large);
    qsort(small_ms, REPETITIONS, sizeof *small_ms, compare_doubles);
    qsort(large_ms, REPETITIONS, sizeof *large_ms, compare_doubles);
    qsort(ratio, REPETITIONS, sizeof *ratio, compare_doubles);
    int middle = REPETITIONS / 2, last = REPETITIONS - 1;
    printf("{\"name\": \"esx decision, 10000 VMs\", \"value\": %.2f, \"unit\": \"ms\", \"peer\": "
           "null, \"peer_value\": null, \"ratio\": null, \"bar\": 5, \"least\": %.2f, \"most\": "
           "%.2f}\n",
           small_ms[middle], small_ms[0], small_ms[last]);
    printf("{\"name\": \"esx decision, 1000000 VMs\", \"value\": %.0f, \"unit\": \"ms\", \"peer\": "
           "\"n log n from 10000 VMs\", \"peer_value\": %.0f, \"ratio\": %.2f, \"bar\": 1, "
           "\"least\": %.2f, \"most\": %.2f}\n",
           large_ms[middle], small_ms[middle] * growth, ratio[middle], ratio[0], ratio[last]);
    return 0;
}
