/*
 * One decision of policy esx over many VMs: 10,000 in at most 5 ms, and growing
 * no faster than n log n up to a million. CPU time, so that a busy machine tells the same.
 */
#include "daemon/policy/policy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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

/* Median time of a round over count VMs that want twice what there is; negative on failure. */
static double median_ms(size_t count, int rounds)
{
    struct policy_settings settings;
    struct policy_vm *vms = calloc(count, sizeof *vms);
    struct policy_target *targets = calloc(count, sizeof *targets);
    struct policy_state *state = policy_state_new(), *spare = policy_state_new();
    double *times = calloc((size_t)rounds, sizeof *times), median = -1;
    struct policy_host host = {.elapsed_ns = 1000000000};
    struct policy_outcome outcome;
    struct err err;

    policy_settings_default(&settings);
    if (!vms || !targets || !state || !spare || !times)
        goto out;
    srand(1);
    for (size_t i = 0; i < count; i++) {
        uint64_t memory = 4096 + (uint64_t)(rand() % 262144);
        vms[i] = (struct policy_vm){
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
        host.machine_pages += memory / 2;
    }
    host.free_pages = host.machine_pages / 50;
    host.machine_pages += host.free_pages;
    for (int round = 0; round < rounds; round++) {
        double start = cpu_ms();
        if (policy_decide(policy_find("esx"), &settings, state, &host, vms, count, spare, targets,
                          &outcome, &err) < 0) {
            fprintf(stderr, "policy_bench: %s\n", err.text);
            goto out;
        }
        times[round] = cpu_ms() - start;
        struct policy_state *swap = state;
        state = spare;
        spare = swap;
    }
    qsort(times, (size_t)rounds, sizeof *times, compare_doubles);
    median = times[rounds / 2];
out:
    free(vms);
    free(targets);
    free(times);
    policy_state_free(state);
    policy_state_free(spare);
    return median;
}

int main(void)
{
    double small = median_ms(10000, 21);
    double large = median_ms(1000000, 5);
    if (small < 0 || large < 0)
        return 1;
    printf("{\"name\": \"esx decision, 10000 VMs\", \"value\": %.2f, \"unit\": \"ms\", \"peer\": "
           "null, \"peer_value\": null, \"ratio\": null, \"bar\": 5}\n",
           small);
    double n_log_n = small * (1e6 * log(1e6)) / (1e4 * log(1e4));
    printf("{\"name\": \"esx decision, 1000000 VMs\", \"value\": %.0f, \"unit\": \"ms\", \"peer\": "
           "\"n log n from 10000 VMs\", \"peer_value\": %.0f, \"ratio\": %.2f, \"bar\": 1}\n",
           large, n_log_n, large / n_log_n);
    return 0;
}
