/*
 * The invariants of the design, "A page's states", checked at a quiet moment.
 *
 * Phases, each left when nothing is waited for any more:
 *
 *   settling   no VM is loading its guest, being paused or resumed, or paging
 *              out on request, and no request of sharing is unanswered
 *   pausing    grants, targets and page-outs are held back; every running VM is
 *              asked to pause; a pause is answered after everything the worker
 *              had to say, so that its ring is empty then
 *   verifying  here: frame table against free map, pmaps and pools (1, 2, 4);
 *              meanwhile each worker: shadow tables against pmap and guest
 *              tables (3, 5)
 *   resuming   those that were paused for it
 *
 * The worker's pmap is read as what it claims; the frame table is what counts.
 * A VM that ends meanwhile leaves the check.
 */
#include "daemon/supervisor_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum check_phase { CHECK_SETTLING, CHECK_PAUSING, CHECK_VERIFYING, CHECK_RESUMING };

struct check {
    enum check_phase phase;
    supervisor_check_fn *done;
    void *ctx;
    sd_event_source *deadline_source;
    bool awaiting[MAX_VMS + 1]; /* by VM number: asked in this phase, not answered */
    bool paused[MAX_VMS + 1];   /* paused by us */
    bool begun;
    bool working; /* inside advance(): answers must not enter it again */
    struct check_result result;
};

static void violation(struct check *check, int invariant, const struct vm *vm, const char *format,
                      ...) __attribute__((format(printf, 4, 5)));
static void violation(struct check *check, int invariant, const struct vm *vm, const char *format,
                      ...)
{
    check->result.violations++;
    if (check->result.described == CHECK_MAX_VIOLATIONS)
        return;
    struct check_violation *row = &check->result.violation[check->result.described++];
    row->invariant = invariant;
    snprintf(row->vm, sizeof row->vm, "%s", vm ? vm->settings.name : "");
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(row->text, sizeof row->text, format, arguments);
    va_end(arguments);
}

/* ---- the supervisor's own part ---- */

struct scan {
    struct check *check;
    uint8_t *frame_seen; /* a byte a frame: times named by a pmap or pool */
    uint8_t *slot_seen;  /* a byte a swap slot of the VM */
    uint64_t in_state[PAGE_STATES];
    uint64_t frames_named, references_seen;
};

static void see_frame(struct scan *scan, const struct vm *vm, mpn_t mpn, const char *where,
                      uint64_t at)
{
    if (!machine_memory_is_private(vm->supervisor->machine, vm->number, mpn)) {
        violation(scan->check, 2, vm, "%s %" PRIu64 " names frame %u, which is not this VM's",
                  where, at, mpn);
        return;
    }
    if (scan->frame_seen[mpn]++) {
        violation(scan->check, 2, vm, "%s %" PRIu64 " names frame %u, which is named elsewhere too",
                  where, at, mpn);
        return;
    }
    scan->frames_named++;
}

static void see_slot(struct scan *scan, const struct vm *vm, uint32_t slot, ppn_t ppn)
{
    if (slot >= vm->swap_slots)
        violation(scan->check, 4, vm, "page %u names swap slot %u of %u", ppn, slot,
                  vm->swap_slots);
    else if (scan->slot_seen[slot]++)
        violation(scan->check, 4, vm, "page %u names swap slot %u, which another page has", ppn,
                  slot);
}

static void scan_page(struct scan *scan, const struct vm *vm, ppn_t ppn, uint64_t word)
{
    static const struct {
        bool frame, slot;
    } holds[PAGE_STATES] = {
        [PAGE_PRIVATE] = {true, false},    [PAGE_PAGING_OUT] = {true, true},
        [PAGE_PAGED] = {false, true},      [PAGE_PAGING_IN] = {true, true},
        [PAGE_BALLOONED] = {false, false}, [PAGE_ABSENT] = {false, false},
        [PAGE_SHARED] = {false, false},
    };
    enum page_state state = pmap_word_state(word);
    if (state >= PAGE_STATES) {
        violation(scan->check, 2, vm, "page %u is in unknown state %d", ppn, (int)state);
        return;
    }
    scan->in_state[state]++;
    if (state == PAGE_SHARED && sharing_has_reference(vm, ppn, pmap_word_mpn(word)))
        scan->references_seen++;
    else if (state == PAGE_SHARED)
        violation(scan->check, 2, vm, "page %u is shared in frame %u, but no reference was counted",
                  ppn, pmap_word_mpn(word));
    if (holds[state].frame)
        see_frame(scan, vm, pmap_word_mpn(word), "page", ppn);
    if (holds[state].slot)
        see_slot(scan, vm, pmap_word_slot(word), ppn);
}

static void scan_vm(struct check *check, struct vm *vm, uint8_t *frame_seen)
{
    struct scan scan = {.check = check};
    scan.frame_seen = frame_seen;
    scan.slot_seen = calloc(1, vm->swap_slots + 1);
    if (!scan.slot_seen) {
        violation(check, 0, vm, "no memory for the check");
        return;
    }
    const _Atomic uint64_t *words = vm_region_pmap(vm->region);
    for (ppn_t ppn = 0; ppn < vm->memory_pages; ppn++)
        scan_page(&scan, vm, ppn, atomic_load_explicit(&words[ppn], memory_order_acquire));
    check->result.pages_checked += vm->memory_pages;

    uint32_t pool_pages = vm_pool_pages(vm);
    for (uint32_t i = 0; i < pool_pages; i++)
        see_frame(&scan, vm, atomic_load_explicit(&vm->region->pool[i], memory_order_relaxed),
                  "grant pool entry", i);
    see_grants_taken(vm);
    if (scan.frames_named + vm->grants_in_ring_pages != vm->held_pages)
        violation(check, 2, vm,
                  "holds %" PRIu64 " frames; its pmap and pool name %" PRIu64 ", its ring %u",
                  vm->held_pages, scan.frames_named, vm->grants_in_ring_pages);
    if (scan.references_seen != sharing_references(vm))
        violation(check, 2, vm, "has %" PRIu64 " references to shared frames; its pmap %" PRIu64,
                  sharing_references(vm), scan.references_seen);
    for (int state = 0; state < PAGE_STATES; state++) {
        uint64_t claimed = vm_stat(vm, &vm->region->stats.pages.pages_in[state], UINT64_MAX);
        if (claimed != scan.in_state[state])
            violation(check, 4, vm, "counts %" PRIu64 " pages %s; its pmap has %" PRIu64, claimed,
                      page_state_name((enum page_state)state), scan.in_state[state]);
    }
    check->result.vms_checked++;
    free(scan.slot_seen);
}

static void scan_host(struct check *check, struct supervisor *supervisor)
{
    struct machine_counts kept = machine_memory_counts(supervisor->machine), counted;
    if (!machine_memory_recount(supervisor->machine, &counted))
        violation(check, 1, NULL, "a frame is both free and owned, or neither");
    uint64_t machine = machine_memory_pages(supervisor->machine);
    if ((uint64_t)counted.free_pages + counted.private_pages + counted.shared_pages +
            counted.leaving_pages !=
        machine)
        violation(check, 1, NULL, "free %u + granted %u + shared %u is not %" PRIu64,
                  counted.free_pages, counted.private_pages, counted.shared_pages, machine);
    if (memcmp(&kept, &counted, sizeof kept) != 0)
        violation(check, 1, NULL, "kept counts %u/%u/%u, counted %u/%u/%u (free/granted/shared)",
                  kept.free_pages, kept.private_pages, kept.shared_pages, counted.free_pages,
                  counted.private_pages, counted.shared_pages);
    char words[200];
    uint64_t sharing = sharing_check(supervisor, words, sizeof words);
    if (sharing) {
        violation(check, 2, NULL, "%" PRIu64 " in sharing, the first: %s", sharing, words);
        check->result.violations += sharing - 1;
    }
    uint64_t held_pages = 0;
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    held_pages += vm->held_pages;
    if (held_pages != counted.private_pages)
        violation(check, 1, NULL, "the VMs hold %" PRIu64 " frames, the table says %u", held_pages,
                  counted.private_pages);
    check->result.frames_checked = machine;
}

/* ---- phases ---- */

static void advance(struct supervisor *supervisor);

static bool anybody_awaited(const struct check *check)
{
    for (int number = 1; number <= MAX_VMS; number++)
        if (check->awaiting[number])
            return true;
    return false;
}

static void on_answer(struct vm *vm, enum answer_fate fate, uint64_t value, void *ctx)
{
    struct supervisor *supervisor = vm->supervisor;
    struct check *check = supervisor->check;
    (void)ctx;
    if (!check || !check->awaiting[vm->number])
        return;
    check->awaiting[vm->number] = false;
    if (fate == ANSWER_GIVEN && check->phase == CHECK_PAUSING) {
        check->paused[vm->number] = vm_move(vm, LIFE_EV_PAUSED);
    } else if (fate == ANSWER_GIVEN && check->phase == CHECK_RESUMING) {
        vm_move(vm, vm->loaded ? LIFE_EV_RESUMED : LIFE_EV_RESUMED_LOADING);
    } else if (fate == ANSWER_GIVEN && check->phase == CHECK_VERIFYING && value) {
        char words[200];
        copy_words(words, sizeof words, vm->region->text, sizeof vm->region->text);
        violation(check, 5, vm, "%" PRIu64 " violations in the worker, the first: %s", value,
                  words);
        /* Bounded: a sum that wraps around would hide what others found. */
        check->result.violations += (value < UINT32_MAX ? value : UINT32_MAX) - 1;
    }
    advance(supervisor);
}

static void ask(struct check *check, struct vm *vm, enum ring_type type)
{
    struct err err;
    if (request_new(vm, type, 0, on_answer, NULL, &err) < 0) {
        violation(check, 0, vm, "%s", err.text);
        return;
    }
    check->awaiting[vm->number] = true;
    message_kick(vm);
}

static void finish(struct supervisor *supervisor)
{
    struct check *check = supervisor->check;
    supervisor->check = NULL;
    supervisor->grants_held = false;
    sd_event_source_disable_unref(check->deadline_source);
    /* Answers that are still to come are nobody's; a later check must not take them for its own. */
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    requests_forget(vm, on_answer);
    check->result.ok = check->result.violations == 0;
    supervisor->check_violations = check->result.violations;
    if (!check->result.ok)
        event_tell(supervisor, NULL, EVENT_CHECK, "%" PRIu64 " violations, the first: %s%s%s",
                   check->result.violations, check->result.violation[0].vm,
                   check->result.violation[0].vm[0] ? ": " : "",
                   check->result.described ? check->result.violation[0].text : "not described");
    check->done(check->ctx, &check->result);
    free(check);
    grants_serve_all(supervisor);
    policy_soon(supervisor, TRIGGER_CHECKED);
}

/* What keeps a VM from being at rest; NULL: it is. */
static const char *unrest(const struct vm *vm)
{
    if (vm->life == LIFE_STARTING)
        return "it is being loaded";
    if (vm->life_pending)
        return "it is being paused or resumed";
    if (vm->life == LIFE_ENDING)
        return "it is ending";
    if (vm->page_out_outstanding && !vm->swap_failing)
        return "it is paging out";
    if (!sharing_vm_is_quiet(vm))
        return "a request about pages to share is not answered";
    return NULL;
}

static bool settled(const struct supervisor *supervisor)
{
    const struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (unrest(vm))
            return false;
    }
    return true;
}

bool check_wants_rest(const struct supervisor *supervisor)
{
    const struct vm *vm;
    if (!supervisor->check || supervisor->check->phase != CHECK_SETTLING)
        return false;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (vm->life == LIFE_STARTING)
            return false;
    }
    return true;
}

static void pause_all(struct supervisor *supervisor)
{
    struct check *check = supervisor->check;
    supervisor->grants_held = true;
    check->phase = CHECK_PAUSING;
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (vm->life == LIFE_RUNNING)
            ask(check, vm, RING_PAUSE);
    }
}

static void verify_all(struct supervisor *supervisor)
{
    struct check *check = supervisor->check;
    uint8_t *frame_seen = calloc(1, machine_memory_pages(supervisor->machine));
    if (!frame_seen)
        violation(check, 0, NULL, "no memory for the check");
    check->phase = CHECK_VERIFYING;
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (vm_has_worker(vm) && vm->life == LIFE_PAUSED)
            messages_drain(vm, RING_SLOTS);
    }
    scan_host(check, supervisor);
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (!vm_has_worker(vm) || vm->life != LIFE_PAUSED)
            continue;
        if (frame_seen)
            scan_vm(check, vm, frame_seen);
        ask(check, vm, RING_CHECK);
    }
    free(frame_seen);
}

static void resume_all(struct supervisor *supervisor)
{
    struct check *check = supervisor->check;
    check->phase = CHECK_RESUMING;
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (check->paused[vm->number] && vm->life == LIFE_PAUSED)
            ask(check, vm, RING_RESUME);
    }
}

/* Go on as far as nothing is waited for. */
static void advance(struct supervisor *supervisor)
{
    struct check *check = supervisor->check;
    if (!check || check->working)
        return;
    check->working = true;
    if (check->phase == CHECK_SETTLING && settled(supervisor))
        pause_all(supervisor);
    if (check->phase == CHECK_PAUSING && !anybody_awaited(check))
        verify_all(supervisor);
    if (check->phase == CHECK_VERIFYING && !anybody_awaited(check))
        resume_all(supervisor);
    check->working = false;
    if (check->phase == CHECK_RESUMING && !anybody_awaited(check))
        finish(supervisor);
}

void check_vm_settled(struct supervisor *supervisor)
{
    if (supervisor->check && supervisor->check->phase == CHECK_SETTLING)
        advance(supervisor);
}

static void give_up(struct supervisor *supervisor, const char *why)
{
    struct check *check = supervisor->check;
    static const char *const doing[] = {"settle", "pause", "verify its tables", "resume"};
    struct vm *vm;
    bool blamed = false;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        const char *unrest_of = check->phase == CHECK_SETTLING ? unrest(vm) : NULL;
        if (unrest_of || check->awaiting[vm->number]) {
            violation(check, 0, vm, "%s to %s%s%s", why, doing[check->phase], unrest_of ? ": " : "",
                      unrest_of ? unrest_of : "");
            blamed = true;
        }
        /* A pause that was asked for may still come; nobody must stay paused then. */
        bool asked = check->phase == CHECK_PAUSING && check->awaiting[vm->number];
        bool paused = check->phase != CHECK_RESUMING && check->paused[vm->number];
        /* One that has been told to go on does, whenever it says so. */
        bool resuming = check->phase == CHECK_RESUMING && check->awaiting[vm->number];
        if (paused || resuming)
            vm_move(vm, vm->loaded ? LIFE_EV_RESUMED : LIFE_EV_RESUMED_LOADING);
        if ((asked || paused) && vm_has_worker(vm) &&
            request_new(vm, RING_RESUME, 0, NULL, NULL, NULL) == 0)
            message_kick(vm);
    }
    if (!blamed)
        violation(check, 0, NULL, "%s to %s", why, doing[check->phase]);
    finish(supervisor);
}

void check_abandon(struct supervisor *supervisor)
{
    if (supervisor->check)
        give_up(supervisor, "the host shuts down and there was no time");
}

/* Fires once to begin, outside the caller's call, and once more when time is up. */
static int on_timer(sd_event_source *source, uint64_t time_us, void *ctx)
{
    (void)time_us;
    struct supervisor *supervisor = ctx;
    struct check *check = supervisor->check;
    if (check->begun) {
        give_up(supervisor, "took too long");
        return 0;
    }
    check->begun = true;
    sd_event_source_set_time_relative(source, CHECK_GRACE_US);
    sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    advance(supervisor);
    return 0;
}

int supervisor_check(struct supervisor *supervisor, supervisor_check_fn *done, void *ctx,
                     struct err *err)
{
    if (supervisor->check)
        return err_set(err, EBUSY, "a check is running");
    if (supervisor->quitting)
        return err_set(err, 0, "the host is shutting down");
    struct check *check = calloc(1, sizeof *check);
    if (!check)
        return err_set(err, ENOMEM, "check");
    check->done = done;
    check->ctx = ctx;
    int result = sd_event_add_time_relative(supervisor->event, &check->deadline_source,
                                            CLOCK_MONOTONIC, 0, 0, on_timer, supervisor);
    if (result < 0) {
        free(check);
        return err_set(err, -result, "check timer");
    }
    supervisor->check = check;
    return 0;
}

void check_drop(struct supervisor *supervisor)
{
    if (!supervisor->check)
        return;
    sd_event_source_disable_unref(supervisor->check->deadline_source);
    free(supervisor->check);
    supervisor->check = NULL;
}
