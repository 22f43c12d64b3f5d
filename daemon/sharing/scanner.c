/*
 * The scanner: which pages are looked at when.
 *
 * A pass over a VM begins with WRITTEN: its worker says which pages were written
 * since the last pass, and protects them so that the next store is seen again.
 * (Pages written from pass to pass it says in every fourth only: protecting them
 * costs the guest a fault each, and what they hold will not last. In between they are
 * hot, which takes them out of again.)
 * That is added to to_hash, the pages whose content may be new. Then every page of
 * the VM is visited once: blocks of BLOCK pages in an order of their own for this
 * pass that no guest can foresee. (A block, not a page: what a visit reads of page,
 * pmap, frame table and sharing table lies together then, which halves its cost.) A
 * page that is not in to_hash is "covered": it is as it was when it was last hashed,
 * and what was known of it still holds. But those in again, to which something
 * equal was found and that are not shared yet, are hashed once more: most of them were
 * new when they were last looked at (settled_only), and now have stood for a pass. The
 * second pass follows the first at once, so that a VM whose memory is in use already when
 * sharing is switched on does not wait for it.
 *
 * Rates. scan_pace.h says every PERIOD how many pages may be hashed in the next,
 * from what the last one found and cost; slices of at most SLICE_NS take their
 * part of it. A covered page counts COVERED_UNITS of UNITS: it costs a look at one
 * bit. A VM may have a limit of its own, and is not collected from more often than
 * every pass_ms, since every collection costs a running guest a fault for each
 * page it goes on to write. During first passes finding nothing is no reason to
 * slow down: there was little to find it among.
 */
#include "daemon/sharing/sharing_private.h"

#include "ksm/permutation.h"

#include <time.h>

#define SLICE_NS        UINT64_C(1000000)
#define SLICE_PERIOD_NS UINT64_C(10000000)
#define PERIOD_NS       UINT64_C(100000000)
#define IDLE_PERIOD_NS  UINT64_C(100000000)
#define UNITS           32
#define COVERED_UNITS   1
#define BLOCK           16u
#define BATCH           (2 * BLOCK) /* pages looked at together */
#define COLLECTS        4u          /* WRITTEN requests at once, a VM */
#define HOT_PASSES      4u          /* in one of so many, pages that are written all the time too */
#define WAKE_A_SLICE    512u        /* waiting pages looked at again */
#define COVERED_AT_ONCE 2048u

uint64_t sharing_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

bool scanner_may_work(const struct sharing *sharing)
{
    const struct supervisor *supervisor = sharing->supervisor;
    return sharing->settings.enabled && sharing->view && !supervisor->check &&
           !supervisor->grants_held && !supervisor->quitting;
}

void sharing_spent(struct vm *vm, uint64_t begin_ns)
{
    struct sharing *sharing = vm->sharing->sharing;
    if (sharing->answers_begin_ns)
        return; /* part of a time that is counted as a whole */
    uint64_t spent_ns = sharing_cpu_ns() - begin_ns;
    vm->sharing->counts.cpu_ns += spent_ns;
    sharing->counts.cpu_ns += spent_ns;
    sharing->period.cpu_ns += spent_ns;
}

static bool is_scanned(const struct vm *vm)
{
    return vm_has_worker(vm) && vm->life == LIFE_RUNNING && vm->sharing->enabled &&
           !vm->sharing->unsharing && vm->sharing->to_hash;
}

/* Over its memory since its worker started. */
static uint64_t passes_so_far(const struct vm_sharing *pass)
{
    return pass->counts.passes - pass->first_pass;
}

/* ---- what was written ---- */

static void collect_next(struct vm *vm);

static void on_collected(struct vm *vm, enum answer_fate fate, uint64_t value, void *ctx)
{
    struct vm_sharing *pass = vm->sharing;
    uint64_t begin_ns = sharing_cpu_ns();
    uint32_t first = (uint32_t)(uintptr_t)ctx / 64;
    (void)value;
    pass->outstanding--;
    if (pass->collecting)
        pass->collecting--;
    if (fate == ANSWER_GIVEN && pass->to_hash) {
        const _Atomic uint64_t *collected =
            vm_region_collected(vm->region, (uint32_t)vm->memory_pages);
        const _Atomic uint64_t *hot = vm_region_hot(vm->region, (uint32_t)vm->memory_pages);
        for (uint32_t i = first; i < first + RING_WRITTEN_PAGES / 64 && i < pass->words; i++) {
            pass->to_hash[i] |= atomic_load_explicit(&collected[i], memory_order_relaxed);
            pass->again[i] &= ~atomic_load_explicit(&hot[i], memory_order_relaxed);
        }
        if (scanner_may_work(pass->sharing))
            collect_next(vm);
        message_kick(vm);
    }
    sharing_spent(vm, begin_ns);
    check_vm_settled(vm->supervisor);
}

/* Ask for the next parts; with the last answer, visiting begins. */
static void collect_next(struct vm *vm)
{
    struct vm_sharing *pass = vm->sharing;
    if (pass->phase != PASS_COLLECTING)
        return;
    while (pass->next_page < vm->memory_pages && pass->collecting < COLLECTS && batches_room(vm)) {
        struct ring_message message = {.type = RING_WRITTEN,
                                       .flags = passes_so_far(pass) % HOT_PASSES ? RING_COLD : 0,
                                       .value = pass->next_page,
                                       .value2 = RING_WRITTEN_PAGES};
        if (request_message(vm, &message, on_collected, (void *)(uintptr_t)pass->next_page, NULL) <
            0)
            return;
        pass->outstanding++;
        pass->collecting++;
        pass->next_page += RING_WRITTEN_PAGES;
    }
    if (pass->next_page < vm->memory_pages || pass->collecting)
        return;
    pass->phase = PASS_VISITING;
    pass->next_block = 0;
    pass->key = sharing_random(pass->sharing);
    scanner_soon(pass->sharing);
}

/* ---- visiting ---- */

struct looked_at {
    ppn_t ppn;
    bool is_new; /* since the last pass */
    mpn_t mpn;
    uint64_t hash;
};

static void end_pass(struct vm *vm)
{
    vm->sharing->phase = PASS_NONE;
    vm->sharing->counts.passes++;
}

static uint32_t blocks_of(const struct vm *vm)
{
    return ((uint32_t)vm->memory_pages + BLOCK - 1) / BLOCK;
}

/* The next pages of the pass that must be hashed, at most BATCH. Takes what it costs from *units.
 */
static unsigned choose(struct vm *vm, struct looked_at *chosen, int64_t *units)
{
    struct vm_sharing *pass = vm->sharing;
    uint32_t pages = (uint32_t)vm->memory_pages, blocks = blocks_of(vm);
    const _Atomic uint64_t *words = vm_region_pmap(vm->region);
    unsigned count = 0;
    uint32_t covered = 0;
    while (count + BLOCK <= BATCH && covered<COVERED_AT_ONCE && * units> 0 &&
           pass->next_block < blocks) {
        ppn_t first = permutation_at(pass->next_block++, blocks, pass->key) * BLOCK;
        uint32_t in_block = pages - first < BLOCK ? pages - first : BLOCK;
        uint64_t bits = (pass->to_hash[first / 64] | pass->again[first / 64]) >> (first % 64) &
                        ((UINT64_C(1) << in_block) - 1);
        uint32_t to_hash = (uint32_t)__builtin_popcountll(bits);
        covered += in_block - to_hash;
        *units -= (int64_t)(in_block - to_hash) * COVERED_UNITS + (int64_t)to_hash * UNITS;
        for (; bits; bits &= bits - 1) {
            ppn_t ppn = first + (ppn_t)__builtin_ctzll(bits);
            __builtin_prefetch((const void *)&words[ppn]);
            chosen[count++].ppn = ppn;
        }
    }
    pass->counts.covered_pages += covered;
    pass->sharing->counts.covered_pages += covered;
    return count;
}

/* Chosen pages that are there to be hashed, with their frames. */
static unsigned find_frames(struct vm *vm, struct looked_at *chosen, unsigned count)
{
    struct vm_sharing *pass = vm->sharing;
    unsigned kept = 0;
    for (unsigned i = 0; i < count; i++) {
        ppn_t ppn = chosen[i].ppn;
        mpn_t mpn = engine_own_frame(vm, ppn);
        /* From here on a store counts as new. What is no private page now is written when it
         * becomes one. A frame that a request names is looked at again when that is over. */
        bool is_new = pass->to_hash[ppn / 64] >> (ppn % 64) & 1;
        pass->to_hash[ppn / 64] &= ~(UINT64_C(1) << (ppn % 64));
        pass->again[ppn / 64] &= ~(UINT64_C(1) << (ppn % 64));
        if (mpn == NO_MPN) {
            uint64_t word =
                atomic_load_explicit(&vm_region_pmap(vm->region)[ppn], memory_order_relaxed);
            if (pmap_word_state(word) == PAGE_PRIVATE)
                engine_hash_again(vm, ppn);
            continue;
        }
        chosen[kept++] = (struct looked_at){
            .ppn = ppn, .mpn = mpn, .is_new = is_new && pass->sharing->settings.settled_only};
    }
    return kept;
}

/* One batch of a VM's pass. false: there is nothing to do for it now. */
static bool visit(struct vm *vm, int64_t *units)
{
    struct vm_sharing *pass = vm->sharing;
    struct sharing *sharing = pass->sharing;
    struct looked_at chosen[BATCH];
    mpn_t met[BATCH]; /* frames that may have that content */
    int64_t before = *units;
    if (pass->phase != PASS_VISITING)
        return false;
    if (!batches_room(vm)) {
        sharing->wants_answers = true;
        return false;
    }
    if (sharing->settings.vm_pages_per_second && pass->allowance_pages <= 0)
        return false;
    unsigned count = find_frames(vm, chosen, choose(vm, chosen, units));
    for (unsigned i = 0; i < count; i++) {
        chosen[i].hash = engine_hash(sharing, chosen[i].mpn, pass->salt);
        share_prefetch(sharing->table, chosen[i].hash);
    }
    for (unsigned i = 0; i < count; i++)
        met[i] = share_prefetch_entry(sharing->table, chosen[i].hash);
    for (unsigned i = 0; i < count; i++) {
        if (met[i] == SHARE_NONE)
            continue;
        machine_memory_prefetch(sharing->machine, met[i]);
        share_refs_prefetch(sharing->refs, met[i]);
    }
    for (unsigned i = 0; i < count; i++)
        /* Pages of this batch may have become each other's hints. */
        if (machine_memory_is_held(sharing->machine, chosen[i].mpn))
            engine_hash_again(vm, chosen[i].ppn);
        else if (chosen[i].is_new)
            engine_match_new(vm, chosen[i].ppn, chosen[i].mpn, chosen[i].hash);
        else
            engine_match(vm, chosen[i].ppn, chosen[i].mpn, chosen[i].hash);
    pass->counts.hashed_pages += count;
    sharing->counts.hashed_pages += count;
    sharing->period_hashed_pages += count;
    if (passes_so_far(pass) <= (sharing->settings.settled_only ? 1 : 0))
        sharing->first_passes = true;
    pass->allowance_pages -= (double)(before - *units) / UNITS;
    pass->slice_units += (uint64_t)(before - *units);
    if (pass->next_block >= blocks_of(vm))
        end_pass(vm);
    return true;
}

/* From the beginning of a pass to that of the next. */
static uint64_t gap_ns(const struct vm_sharing *pass)
{
    const struct sharing_settings *settings = &pass->sharing->settings;
    if (settings->settled_only && passes_so_far(pass) == 1)
        return 0;
    return settings->pass_ms * UINT64_C(1000000);
}

static void begin_passes(struct sharing *sharing, uint64_t now_ns, uint64_t elapsed_ns)
{
    double rate = sharing->settings.vm_pages_per_second;
    struct vm *vm;
    TAILQ_FOREACH(vm, &sharing->supervisor->vms, entry)
    {
        struct vm_sharing *pass = vm->sharing;
        if (pass->unsharing)
            domains_undo_some(vm);
        if (!sharing->settings.enabled || !is_scanned(vm))
            continue;
        pass->allowance_pages += rate * (double)elapsed_ns / 1e9;
        if (pass->allowance_pages > rate / 10 + BATCH)
            pass->allowance_pages = rate / 10 + BATCH;
        if (pass->phase == PASS_NONE &&
            (!pass->pass_begin_ns || now_ns - pass->pass_begin_ns >= gap_ns(pass))) {
            pass->phase = PASS_COLLECTING;
            pass->next_page = 0;
            pass->pass_begin_ns = now_ns;
        }
        collect_next(vm);
    }
}

/* Visit by turns until units or time are used up. Returns whether anybody has more. */
static bool visit_all(struct sharing *sharing, int64_t *units, uint64_t until_ns)
{
    bool more = true;
    while (more && *units > 0) {
        if (clock_monotonic_ns() >= until_ns)
            break;
        more = false;
        for (uint32_t i = 0; i<MAX_VMS && * units> 0; i++) {
            struct vm *vm = sharing->supervisor->by_number[1 + (sharing->turn + i) % MAX_VMS];
            if (vm && is_scanned(vm))
                more |= visit(vm, units);
        }
    }
    sharing->turn = (sharing->turn + 1) % MAX_VMS;
    return more;
}

/* ---- pace ---- */

/* What the period that is over tells about the next one. */
static void set_pace(struct sharing *sharing, uint64_t now_ns)
{
    const struct sharing_settings *settings = &sharing->settings;
    struct scan_pace_settings limits = scan_pace_defaults;
    limits.min_pages_per_second = settings->min_pages_per_second;
    limits.max_pages_per_second = settings->max_pages_per_second;
    limits.cpu_share = settings->cpu_percent / 100;
    sharing->period.elapsed_ns = now_ns - sharing->period_ns;
    sharing->period.visited_pages = (sharing->period_units + UNITS - 1) / UNITS;
    if (!sharing->period.found_pages && (sharing->first_passes || !sharing->period_hashed_pages))
        sharing->period.found_pages = 1;
    scan_pace_next(&sharing->pace, &limits, &sharing->period, 0);
    sharing->period = (struct scan_period){0};
    sharing->period_units = sharing->period_hashed_pages = 0;
    sharing->period_ns = now_ns;
    sharing->first_passes = false;
}

/* A slice's time, by what was looked at for whom. Who was only asked for written pages pays nothing
 * for that here; answers are counted where they come in. */
static void divide_time(struct sharing *sharing, uint64_t spent_ns)
{
    uint64_t units = 0;
    struct vm *vm;
    TAILQ_FOREACH(vm, &sharing->supervisor->vms, entry)
    units += vm->sharing->slice_units;
    TAILQ_FOREACH(vm, &sharing->supervisor->vms, entry)
    {
        if (units)
            vm->sharing->counts.cpu_ns +=
                (uint64_t)((double)spent_ns * (double)vm->sharing->slice_units / (double)units);
        vm->sharing->slice_units = 0;
    }
    sharing->counts.cpu_ns += spent_ns;
    sharing->period.cpu_ns += spent_ns;
}

/* The budget lasts at every moment, whatever the pace was set to: it comes with the time, and what
 * was spent since the last slice goes. Returns what may be spent now. */
static uint64_t spend_budget(struct sharing *sharing, uint64_t elapsed_ns)
{
    double share = sharing->settings.cpu_percent / 100;
    double most_ns = share * (double)PERIOD_NS;
    sharing->budget_ns += share * (double)elapsed_ns;
    sharing->budget_ns -= (double)(sharing->counts.cpu_ns - sharing->budgeted_ns);
    sharing->budgeted_ns = sharing->counts.cpu_ns;
    if (sharing->budget_ns > most_ns)
        sharing->budget_ns = most_ns;
    return sharing->budget_ns > 0 ? (uint64_t)sharing->budget_ns : 0;
}

/* One slice. Returns when the next is due. */
static uint64_t slice(struct sharing *sharing)
{
    uint64_t now_ns = clock_monotonic_ns(), begin_ns = sharing_cpu_ns();
    uint64_t elapsed_ns = now_ns - sharing->slice_ns;
    uint64_t budget_ns = spend_budget(sharing, elapsed_ns);
    bool more = false;
    sharing->slice_ns = now_ns;
    sharing->counts.slices++;
    if (now_ns - sharing->period_ns >= PERIOD_NS)
        set_pace(sharing, now_ns);
    double units_a_ns = sharing->pace.pages_per_second * UNITS / 1e9;
    sharing->units += units_a_ns * (double)elapsed_ns;
    /* What could not be used is not saved up for long. */
    if (sharing->units > units_a_ns * (double)PERIOD_NS + UNITS)
        sharing->units = units_a_ns * (double)PERIOD_NS + UNITS;
    begin_passes(sharing, now_ns, elapsed_ns);
    if (sharing->settings.enabled) {
        int64_t units = (int64_t)sharing->units, before = units;
        sharing->wants_answers = false;
        engine_wake(sharing, WAKE_A_SLICE);
        more = visit_all(sharing, &units, now_ns + (budget_ns < SLICE_NS ? budget_ns : SLICE_NS));
        sharing->units -= (double)(before - units);
        sharing->period_units += (uint64_t)(before - units);
    }
    batches_send_all(sharing);
    divide_time(sharing, sharing_cpu_ns() - begin_ns);
    if (!more && !sharing->waiting_count) {
        uint64_t gap_ns = sharing->settings.pass_ms * UINT64_C(1000000);
        return gap_ns < SLICE_PERIOD_NS  ? SLICE_PERIOD_NS
               : gap_ns < IDLE_PERIOD_NS ? gap_ns
                                         : IDLE_PERIOD_NS;
    }
    if (more && sharing->units > BATCH * UNITS) {
        /* The slice was too short for what may be done: others first, and the budget. */
        double left_ns =
            sharing->budget_ns - (double)(sharing->counts.cpu_ns - sharing->budgeted_ns);
        double until_ns = left_ns < 0 ? -left_ns * 100 / sharing->settings.cpu_percent : 0;
        return until_ns < SLICE_NS         ? SLICE_NS
               : until_ns < IDLE_PERIOD_NS ? (uint64_t)until_ns
                                           : IDLE_PERIOD_NS;
    }
    double batch_ns = BATCH * UNITS / units_a_ns;
    return batch_ns < SLICE_PERIOD_NS  ? SLICE_PERIOD_NS
           : batch_ns < IDLE_PERIOD_NS ? (uint64_t)batch_ns
                                       : IDLE_PERIOD_NS;
}

static int on_timer(sd_event_source *source, uint64_t time_us, void *ctx)
{
    (void)time_us;
    struct sharing *sharing = ctx;
    const struct supervisor *supervisor = sharing->supervisor;
    uint64_t next_ns = IDLE_PERIOD_NS;
    if (supervisor->check || supervisor->grants_held) {
        next_ns = SLICE_PERIOD_NS; /* a check wants quiet, and takes a moment */
        /* Nothing new is begun, but what was gathered since the last slice, when a VM ended, goes
         * out: the check waits for its answer. */
        if (!supervisor->grants_held)
            batches_send_all(sharing);
    } else if (!supervisor->quitting && sharing->view)
        next_ns = slice(sharing);
    sd_event_source_set_time_relative(source, next_ns / 1000);
    sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

void scanner_soon(struct sharing *sharing)
{
    if (!sharing->timer)
        return;
    sd_event_source_set_time_relative(sharing->timer, 0);
    sd_event_source_set_enabled(sharing->timer, SD_EVENT_ONESHOT);
}

int scanner_start(struct sharing *sharing, struct err *err)
{
    if (sharing->timer)
        return 0;
    sharing->view = machine_memory_view(sharing->machine, err);
    if (!sharing->view)
        return -1;
    sharing->period_ns = sharing->slice_ns = clock_monotonic_ns();
    sharing->pace.pages_per_second = sharing->settings.max_pages_per_second;
    int result =
        sd_event_add_time_relative(sharing->supervisor->event, &sharing->timer, CLOCK_MONOTONIC,
                                   SLICE_PERIOD_NS / 1000, 1000, on_timer, sharing);
    if (result < 0)
        return err_set(err, -result, "timer of the scanner");
    sd_event_source_set_priority(sharing->timer, SD_EVENT_PRIORITY_IDLE);
    return 0;
}

void scanner_stop(struct sharing *sharing)
{
    sharing->timer = sd_event_source_disable_unref(sharing->timer);
}
