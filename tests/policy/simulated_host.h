/*
 * A host made of arithmetic, to run policies for hundreds of seconds in no time:
 * VMs that use, free and touch memory, balloon drivers with a speed and with
 * faults, host paging with a bandwidth, and policy rounds as the daemon makes
 * them (every period, at a fallen threshold, and when a round asks for another).
 *
 * A guest's pages are counted, not kept: absent, in use, free in the guest but
 * still allocated, ballooned, paged out. One step is 50 ms.
 */
#ifndef BALLAST_SIMULATED_HOST_H
#define BALLAST_SIMULATED_HOST_H

#include "tests/policy/round.h"

#define SIM_STEP_MS 50u

enum sim_driver {
    SIM_DRIVER_WORKS,
    SIM_DRIVER_NONE,
    SIM_DRIVER_STUCK, /* is there, takes orders, never inflates */
};

struct sim_vm {
    /* what the scenario sets */
    enum sim_driver driver;
    uint64_t want_pages;              /* memory the guest would like to use */
    uint64_t grow_pages, touch_pages; /* a step: how fast it grows; touches of pages in use */
    uint64_t balloon_speed_pages;     /* a step */
    bool reports_free_pages;          /* free page reporting: freed memory goes back to the host */
    /* what became of it */
    uint64_t used_pages, freed_pages, balloon_pages, paged_pages; /* the rest is absent */
    uint64_t wait_steps;                                          /* it lacked a frame */
    uint64_t longest_wait_steps, wait_now_steps;
    uint64_t paged_out_total_pages, paged_in_total_pages;
    uint64_t balloon_turns; /* its balloon's order changed direction */
    int last_turn;
    uint64_t ordered_pages;
};

struct simulated_host {
    struct host_under_test host;
    struct sim_vm vms[ROUND_MOST_VMS];
    uint64_t period_ms, now_ms, last_round_ms, again_ms;
    uint64_t page_speed_pages; /* host paging, a step, all VMs together */
    uint64_t state_changes, rounds, steps_in[HOST_STATES];
    uint64_t random;
};

void sim_open(struct simulated_host *sim, const char *policy, uint64_t machine_mib);
void sim_close(struct simulated_host *sim);

/* A VM with nothing allocated, a working driver (40 MiB/s), wanting want_mib at 30 MiB/s. */
struct sim_vm *sim_add(struct simulated_host *sim, uint64_t memory_mib, uint64_t min_mib,
                       uint64_t want_mib);

/* Run. Checks after every step that no frame was made or lost, and that what a round hands out
 * fits the machine. */
void sim_run(struct simulated_host *sim, uint64_t seconds);

/* Forget the counts (not the memory), to look at what follows by itself. */
void sim_reset_counts(struct simulated_host *sim);

/* The guest unloads its balloon driver: what it held comes back to the guest, untouched. */
void sim_unload_driver(struct simulated_host *sim, struct sim_vm *vm);

uint64_t sim_free_pages(const struct simulated_host *sim);
uint64_t sim_allocated_pages(const struct sim_vm *vm);
uint64_t sim_random(struct simulated_host *sim, uint64_t below);

#endif
