#include "tests/policy/simulated_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

uint64_t sim_random(struct simulated_host *sim, uint64_t below)
{
    sim->random = sim->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return below ? (sim->random >> 33) % below : 0;
}

void sim_open(struct simulated_host *sim, const char *policy, uint64_t machine_mib)
{
    memset(sim, 0, sizeof *sim);
    host_open(&sim->host, policy, machine_mib);
    sim->period_ms = 2000;
    sim->page_speed_pages = 5 * MIB_PAGES; /* 100 MiB/s */
    sim->random = 1;
}

void sim_close(struct simulated_host *sim)
{
    host_close(&sim->host);
}

struct sim_vm *sim_add(struct simulated_host *sim, uint64_t memory_mib, uint64_t min_mib,
                       uint64_t want_mib)
{
    struct sim_vm *vm = &sim->vms[sim->host.count];
    host_add(&sim->host, memory_mib, 0)->min_pages = min_mib * MIB_PAGES;
    *vm = (struct sim_vm){
        .want_pages = want_mib * MIB_PAGES,
        .grow_pages = 3 * MIB_PAGES / 2,
        .balloon_speed_pages = 2 * MIB_PAGES,
    };
    return vm;
}

uint64_t sim_allocated_pages(const struct sim_vm *vm)
{
    return vm->used_pages + vm->freed_pages;
}

uint64_t sim_free_pages(const struct simulated_host *sim)
{
    uint64_t held = 0;
    for (size_t i = 0; i < sim->host.count; i++)
        held += sim_allocated_pages(&sim->vms[i]);
    assert_true(held <= sim->host.host.machine_pages);
    return sim->host.host.machine_pages - held;
}

static struct policy_vm *row_of(struct simulated_host *sim, const struct sim_vm *vm)
{
    return &sim->host.vms[vm - sim->vms];
}

static struct policy_target *target_of(struct simulated_host *sim, const struct sim_vm *vm)
{
    return &sim->host.targets[vm - sim->vms];
}

static uint64_t absent_pages(struct simulated_host *sim, const struct sim_vm *vm)
{
    uint64_t present = vm->used_pages + vm->freed_pages + vm->balloon_pages + vm->paged_pages;
    assert_true(present <= row_of(sim, vm)->memory_pages);
    return row_of(sim, vm)->memory_pages - present;
}

void sim_unload_driver(struct simulated_host *sim, struct sim_vm *vm)
{
    (void)sim;
    vm->driver = SIM_DRIVER_NONE;
    vm->balloon_pages = 0; /* all absent now */
}

/* ---- one step of a guest ---- */

/* Page out pages of the VM's own, free ones and those in use alike. */
static void page_out(struct sim_vm *vm, uint64_t pages)
{
    uint64_t held = sim_allocated_pages(vm);
    uint64_t from_freed = held ? pages * vm->freed_pages / held : 0;
    vm->freed_pages -= from_freed, vm->used_pages -= pages - from_freed;
    vm->paged_pages += pages;
    vm->paged_out_total_pages += pages;
}

/* Take up to pages from the host's free list; at its limit a VM makes room for them itself. */
static uint64_t take_frames(struct simulated_host *sim, struct sim_vm *vm, uint64_t pages)
{
    uint64_t limit = target_of(sim, vm)->limit_pages, held = sim_allocated_pages(vm);
    if (target_of(sim, vm)->blocked)
        return 0;
    if (sim->rounds > 0 && held + pages > limit) {
        uint64_t own = least(least(held + pages - limit, pages), held / 2);
        page_out(vm, own);
        pages = less(limit, held) + own;
    }
    return least(pages, sim_free_pages(sim));
}

static void note_wait(struct sim_vm *vm, bool waits)
{
    vm->wait_steps += waits;
    vm->wait_now_steps = waits ? vm->wait_now_steps + 1 : 0;
    if (vm->wait_now_steps > vm->longest_wait_steps)
        vm->longest_wait_steps = vm->wait_now_steps;
}

static void guest_grows_or_frees(struct simulated_host *sim, struct sim_vm *vm)
{
    uint64_t in_use = vm->used_pages + vm->paged_pages;
    bool waits = false;
    if (in_use < vm->want_pages) {
        uint64_t grow = least(vm->want_pages - in_use, vm->grow_pages);
        uint64_t own = least(grow, vm->freed_pages);
        vm->freed_pages -= own, vm->used_pages += own, grow -= own;
        grow = least(grow, absent_pages(sim, vm)); /* beyond, the guest makes do */
        uint64_t got = take_frames(sim, vm, grow);
        vm->used_pages += got;
        waits = got < grow;
    } else if (in_use > vm->want_pages) {
        uint64_t gone = least(in_use - vm->want_pages, vm->used_pages);
        vm->used_pages -= gone;
        if (!vm->reports_free_pages)
            vm->freed_pages += gone;
    }
    /* It touches pages in use at random; those paged out come back. */
    in_use = vm->used_pages + vm->paged_pages;
    if (in_use && vm->paged_pages) {
        uint64_t faults = vm->touch_pages * vm->paged_pages / in_use;
        faults = least(faults, vm->paged_pages);
        uint64_t got = take_frames(sim, vm, faults);
        vm->paged_pages -= got, vm->used_pages += got;
        vm->paged_in_total_pages += got;
        waits |= got < faults;
    }
    note_wait(vm, waits);
}

static void balloon_moves(struct simulated_host *sim, struct sim_vm *vm)
{
    uint64_t order = target_of(sim, vm)->balloon_pages;
    if (vm->driver != SIM_DRIVER_WORKS)
        return;
    if (order < vm->balloon_pages) {
        vm->balloon_pages -= least(vm->balloon_pages - order, 4 * vm->balloon_speed_pages);
        return;
    }
    uint64_t grow = least(order - vm->balloon_pages, vm->balloon_speed_pages);
    uint64_t memory = row_of(sim, vm)->memory_pages;
    /* The guest's allocator knows no absent pages: free ones of both kinds go alike. */
    uint64_t absent = absent_pages(sim, vm), loose = absent + vm->freed_pages;
    uint64_t from_loose = least(grow, loose);
    uint64_t from_freed = loose ? from_loose * vm->freed_pages / loose : 0;
    vm->freed_pages -= from_freed;
    /* then it gives up cache, but never the last sixteenth of its memory */
    uint64_t from_used = least(grow - from_loose, less(vm->used_pages, memory / 16));
    vm->used_pages -= from_used;
    vm->balloon_pages += from_loose + from_used;
}

static uint64_t host_pages_out(struct simulated_host *sim, struct sim_vm *vm, uint64_t speed)
{
    struct policy_vm *row = row_of(sim, vm);
    uint64_t held = sim_allocated_pages(vm);
    uint64_t out = least(least(row->page_out_pending_pages, speed), held);
    page_out(vm, out);
    row->page_out_pending_pages = held ? row->page_out_pending_pages - out : 0;
    return out;
}

/* ---- rounds ---- */

static void fill_row(struct simulated_host *sim, struct sim_vm *vm)
{
    struct policy_vm *row = row_of(sim, vm);
    row->allocated_pages = sim_allocated_pages(vm);
    row->balloon_pages = vm->balloon_pages;
    row->paged_pages = vm->paged_pages;
    row->absent_pages = absent_pages(sim, vm);
    row->can &= ~(uint32_t)POLICY_CAN_BALLOON;
    if (vm->driver != SIM_DRIVER_NONE)
        row->can |= POLICY_CAN_BALLOON;
}

static void apply_targets(struct simulated_host *sim)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < sim->host.count; i++) {
        struct sim_vm *vm = &sim->vms[i];
        struct policy_vm *row = &sim->host.vms[i];
        const struct policy_target *target = &sim->host.targets[i];
        assert_in_range(target->target_pages, row->min_pages, row->max_pages);
        sum += target->target_pages;
        row->page_out_pending_pages += target->page_out_pages;
        int turn = (target->balloon_pages > vm->ordered_pages) -
                   (target->balloon_pages < vm->ordered_pages);
        if (turn && vm->last_turn && turn != vm->last_turn)
            vm->balloon_turns++;
        vm->last_turn = turn ? turn : vm->last_turn;
        vm->ordered_pages = target->balloon_pages;
    }
    if (sim->host.policy != policy_find("static"))
        assert_true(sum <= sim->host.outcome.available_pages);
}

static void make_round(struct simulated_host *sim)
{
    enum host_state before = sim->host.state->host;
    for (size_t i = 0; i < sim->host.count; i++)
        fill_row(sim, &sim->vms[i]);
    host_round(&sim->host, sim->now_ms - sim->last_round_ms);
    apply_targets(sim);
    sim->last_round_ms = sim->now_ms;
    sim->again_ms = sim->host.outcome.again_within_ns / NS_PER_MS;
    sim->state_changes += sim->host.outcome.host != before;
    sim->rounds++;
}

static bool round_is_due(const struct simulated_host *sim)
{
    uint64_t since = sim->now_ms - sim->last_round_ms, free_pages = sim_free_pages(sim);
    const struct state_thresholds *thresholds = &sim->host.settings.thresholds;
    enum host_state now = sim->host.state->host;
    return sim->rounds == 0 || since >= sim->period_ms ||
           (sim->again_ms && since >= sim->again_ms) ||
           host_state_next(now, free_pages, sim->host.host.machine_pages, thresholds) > now;
}

void sim_run(struct simulated_host *sim, uint64_t seconds)
{
    uint64_t end_ms = sim->now_ms + 1000 * seconds;
    for (; sim->now_ms < end_ms; sim->now_ms += SIM_STEP_MS) {
        if (round_is_due(sim))
            make_round(sim);
        uint64_t speed = sim->page_speed_pages;
        size_t first = sim_random(sim, sim->host.count);
        for (size_t i = 0; i < sim->host.count; i++) {
            struct sim_vm *vm = &sim->vms[(first + i) % sim->host.count];
            speed -= host_pages_out(sim, vm, speed);
            balloon_moves(sim, vm);
            guest_grows_or_frees(sim, vm);
        }
        sim->steps_in[sim->host.state->host]++;
    }
}

void sim_reset_counts(struct simulated_host *sim)
{
    sim->state_changes = sim->rounds = 0;
    memset(sim->steps_in, 0, sizeof sim->steps_in);
    for (size_t i = 0; i < sim->host.count; i++) {
        struct sim_vm *vm = &sim->vms[i];
        vm->wait_steps = vm->longest_wait_steps = vm->wait_now_steps = vm->balloon_turns = 0;
        vm->paged_out_total_pages = vm->paged_in_total_pages = 0;
    }
}
