/*
 * Frames to a VM (WANT, GRANT) and back (TARGET, PAGE_OUT, RETURN).
 *
 * A VM is given what it wants as far as
 *   - its grant pool and the grants it has not read yet leave room,
 *   - its max is not reached, nor a lower limit of the policy: there it first pages
 *     out as much itself,
 *   - the policy does not block it,
 *   - frames are free; the last emergency_pages are for VMs below their min,
 *     whose claim admission has promised.
 * Nothing waits for a ring: what does not fit stays on the free list, a wish
 * stays a number, and targets coalesce to the last one. Whatever is left undone
 * is tried again when frames come back and at the service timer.
 */
#include "daemon/sharing/sharing.h"
#include "daemon/supervisor_private.h"

#define SERVICE_SLOW_NS                                                                            \
    UINT64_C(100000000) /* a policy run at least that often for one that starves */

static uint32_t smaller(uint64_t a, uint64_t b)
{
    uint64_t least = a < b ? a : b;
    return least > UINT32_MAX ? UINT32_MAX : (uint32_t)least;
}

uint64_t vm_stat(const struct vm *vm, const _Atomic uint64_t *field, uint64_t limit)
{
    if (!vm->region)
        return 0;
    uint64_t value = atomic_load_explicit(field, memory_order_relaxed);
    return value < limit ? value : limit;
}

uint64_t vm_allocated_pages(const struct vm *vm)
{
    return vm->held_pages + sharing_charged_pages(vm);
}

uint32_t vm_pool_pages(const struct vm *vm)
{
    return vm->region ? (uint32_t)vm_stat(vm, &vm->region->stats.pool_pages, GRANT_POOL_SLOTS) : 0;
}

void vm_frames_reset(struct vm *vm)
{
    vm->next_mpn = NO_MPN;
    vm->wanted_pages = 0;
    vm->grant_head = 0;
    vm->grants_in_ring_pages = 0;
    vm->page_out_owed_pages = 0;
    vm->page_out_asked_pages = 0;
    vm->page_out_outstanding = false;
    vm->page_out_vain = false;
    vm->target_due = false;
    vm->target_sent_pages = ~UINT64_C(0);
    vm->blocked = false;
    vm->limit_pages = UINT64_MAX; /* until the policy says so */
    vm->swap_failing = false;
    vm->sampling = (struct vm_sampling){.round_fraction = 1};
}

void grants_want(struct vm *vm, uint64_t pages)
{
    vm->wanted_pages = smaller(pages, GRANT_POOL_SLOTS);
}

void see_grants_taken(struct vm *vm)
{
    uint64_t head = atomic_load_explicit(&vm->to_worker->head, memory_order_acquire);
    if (head > vm->put_count) {
        vm_kill(vm, EVENT_RING_CORRUPT, "the worker has corrupted its incoming ring");
        return;
    }
    while (vm->grant_head < head) {
        vm->grants_in_ring_pages -= vm->grant_in_slot[vm->grant_head % RING_SLOTS];
        vm->grant_in_slot[vm->grant_head % RING_SLOTS] = 0;
        vm->grant_head++;
    }
}

static uint32_t pool_room(struct vm *vm)
{
    see_grants_taken(vm);
    uint32_t held = vm_pool_pages(vm) + vm->grants_in_ring_pages;
    uint32_t capacity =
        vm->supervisor->host_state == HOST_HIGH ? GRANT_POOL_SLOTS : GRANT_SCARCE_PAGES;
    return held < capacity ? capacity - held : 0;
}

/* At its max, or a lower limit of the policy, a VM makes room itself: what it wants more, it pages
 * out first. */
static void make_own_room(struct vm *vm, uint64_t pages)
{
    uint64_t pending = vm->page_out_owed_pages + vm->page_out_asked_pages;
    if (pages > pending)
        vm->page_out_owed_pages += pages - pending;
    vm_send_page_out(vm);
}

static uint32_t allowed(struct vm *vm)
{
    struct supervisor *supervisor = vm->supervisor;
    uint64_t allocated = vm_allocated_pages(vm);
    if (allocated >= vm->max_pages) {
        make_own_room(vm, vm->wanted_pages);
        return 0;
    }
    uint64_t pages = smaller(vm->wanted_pages, vm->max_pages - allocated);
    if (vm->limit_pages < vm->max_pages && vm->limit_pages >= vm->min_pages) {
        if (allocated >= vm->limit_pages) { /* for what it needs, not to fill its pool */
            see_grants_taken(vm);
            uint32_t unused = vm_pool_pages(vm) + vm->grants_in_ring_pages;
            if (unused < GRANT_SCARCE_PAGES)
                make_own_room(vm, smaller(vm->wanted_pages, GRANT_SCARCE_PAGES - unused));
            return 0;
        }
        pages = smaller(pages, vm->limit_pages - allocated);
    }
    uint64_t available = machine_memory_counts(supervisor->machine).free_pages;
    if (allocated < vm->min_pages) {
        pages = smaller(pages, vm->min_pages - allocated);
    } else {
        if (vm->blocked)
            return 0;
        available =
            available > supervisor->emergency_pages ? available - supervisor->emergency_pages : 0;
    }
    return smaller(smaller(pages, available), pool_room(vm));
}

/* Put `pages` frames into GRANT messages, each a few ascending runs. Returns how many went. */
static uint32_t grant(struct vm *vm, uint32_t pages)
{
    struct machine_memory *machine = vm->supervisor->machine;
    uint32_t granted = 0;
    while (granted < pages && ring_room(vm->to_worker) > RING_KEEP_SLOTS) {
        struct ring_message message = {.type = RING_GRANT};
        while (message.count < RING_BATCH && granted + message.count < pages) {
            mpn_t first;
            uint32_t run = machine_memory_take(
                machine, vm->number, vm->next_mpn,
                smaller(RING_BATCH - message.count, pages - granted - message.count), &first);
            if (!run)
                break;
            for (uint32_t i = 0; i < run; i++)
                message.numbers[message.count++] = first + i;
            vm->next_mpn = first + run;
        }
        if (!message.count)
            break;
        if (message_put(vm, &message) != RING_OK) {
            for (unsigned i = 0; i < message.count; i++)
                machine_memory_give_back(machine, vm->number, message.numbers[i]);
            break;
        }
        vm->grants_in_ring_pages += message.count;
        granted += message.count;
    }
    vm->held_pages += granted;
    vm->granted_total_pages += granted;
    return granted;
}

static void serve(struct vm *vm, bool below_min)
{
    if (!vm->wanted_pages || (vm->life != LIFE_STARTING && vm->life != LIFE_RUNNING) ||
        (vm_allocated_pages(vm) < vm->min_pages) != below_min)
        return;
    uint32_t pages = allowed(vm);
    if (pages)
        vm->wanted_pages -= grant(vm, pages);
    message_kick(vm);
}

void grants_serve_all(struct supervisor *supervisor)
{
    if (supervisor->grants_held)
        return;
    /* Whose min was promised first; then everyone, beginning with another VM each time. */
    for (int below_min = 1; below_min >= 0; below_min--) {
        for (uint32_t i = 0; i < MAX_VMS; i++) {
            struct vm *vm = supervisor->by_number[1 + (supervisor->grant_turn + i) % MAX_VMS];
            if (vm)
                serve(vm, below_min);
        }
    }
    supervisor->grant_turn = (supervisor->grant_turn + 1) % MAX_VMS;
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        /* A pool filled as far as scarcity allows needs no timer: a VM that runs dry says so. */
        if (vm->wanted_pages && vm_has_worker(vm) && vm_pool_pages(vm) < GRANT_SCARCE_PAGES / 2)
            service_soon(supervisor);
    }
}

void vm_send_target(struct vm *vm)
{
    if (!vm->target_due || vm->supervisor->grants_held || !vm_has_worker(vm))
        return;
    uint64_t pages = vm->memory_pages - vm->balloon_ask_pages;
    if (pages != vm->target_sent_pages) {
        struct ring_message message = {.type = RING_TARGET, .value = pages};
        if (message_put(vm, &message) != RING_OK) {
            service_soon(vm->supervisor);
            return;
        }
        vm->target_sent_pages = pages;
    }
    vm->target_due = false;
}

static void on_paged_out(struct vm *vm, enum answer_fate fate, uint64_t value, void *ctx)
{
    (void)fate;
    (void)value;
    (void)ctx;
    /* Frames count when they are released, not when the worker says so; what it could not release
     * is forgiven, and asked for again by the policy if it is still missed. */
    vm->page_out_outstanding = false;
    vm->page_out_asked_pages = 0;
    if (vm->page_out_vain)
        service_soon(vm->supervisor);
    check_vm_settled(vm->supervisor);
}

void vm_send_page_out(struct vm *vm)
{
    if (!vm->page_out_owed_pages || vm->page_out_outstanding || vm->page_out_vain ||
        vm->supervisor->grants_held || !vm_has_worker(vm) || vm->life == LIFE_ENDING ||
        check_wants_rest(vm->supervisor))
        return;
    if (!vm->swap_slots) {
        vm->page_out_owed_pages = 0;
        return;
    }
    uint64_t pages = smaller(vm->page_out_owed_pages, PAGE_OUT_CHUNK_PAGES);
    struct ring_message page_out = {.type = RING_PAGE_OUT, .value = pages};
    if (sharing_wants_offers(vm))
        page_out.flags = RING_OFFER_FIRST;
    if (request_message(vm, &page_out, on_paged_out, NULL, NULL) < 0) {
        service_soon(vm->supervisor);
        return;
    }
    vm->swap_retry_ns = clock_monotonic_ns() + SWAP_RETRY_NS;
    vm->page_out_owed_pages -= pages;
    vm->page_out_asked_pages = pages;
    vm->page_out_outstanding = true;
    /* Vain until a frame comes; so a worker that answers at once with nothing waits for a tick. */
    vm->page_out_vain = true;
    message_kick(vm);
}

void vm_ask_return(struct vm *vm, uint32_t keep_pages)
{
    uint32_t pool = vm_pool_pages(vm);
    /* Not of a paused VM: its pool is still until it resumes, which the check relies on. */
    if (vm->life != LIFE_RUNNING && vm->life != LIFE_STARTING)
        return;
    if (pool <= keep_pages || vm->supervisor->grants_held || !vm_has_worker(vm))
        return;
    struct ring_message message = {.type = RING_RETURN, .value = pool - keep_pages};
    if (message_put(vm, &message) == RING_OK)
        message_kick(vm);
}

/* ---- what did not fit ---- */

static int on_service(sd_event_source *source, uint64_t time_us, void *ctx)
{
    (void)source;
    (void)time_us;
    struct supervisor *supervisor = ctx;
    bool starving = false;
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (!vm_has_worker(vm))
            continue;
        if (!vm->page_out_outstanding)
            vm->page_out_vain = false;
        requests_send(vm);
        vm_send_target(vm);
        vm_send_page_out(vm);
        message_kick(vm);
        if (requests_unsent(vm))
            service_soon(supervisor);
        starving |= vm->wanted_pages && vm_pool_pages(vm) == 0 && vm->life == LIFE_RUNNING;
    }
    grants_serve_all(supervisor);
    if (starving && clock_monotonic_ns() - supervisor->policy_time_ns > SERVICE_SLOW_NS)
        policy_soon(supervisor, TRIGGER_STARVED);
    return 0;
}

void service_soon(struct supervisor *supervisor)
{
    int enabled = 0;
    if (supervisor->service_source) {
        sd_event_source_get_enabled(supervisor->service_source, &enabled);
        if (enabled != SD_EVENT_OFF)
            return;
        sd_event_source_set_time_relative(supervisor->service_source, SERVICE_PERIOD_US);
        sd_event_source_set_enabled(supervisor->service_source, SD_EVENT_ONESHOT);
        return;
    }
    sd_event_add_time_relative(supervisor->event, &supervisor->service_source, CLOCK_MONOTONIC,
                               SERVICE_PERIOD_US, 1000, on_service, supervisor);
}
