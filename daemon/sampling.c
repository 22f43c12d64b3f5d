/*
 * Active memory of each VM, by sampling: the supervisor's half. It times the
 * periods and keeps the averages (policy/active.h); the worker chooses the
 * pages and counts (vmm-core/mem/sample.c).
 *
 * A period is so much of the VM's own time: processor time of its vCPU and what it
 * slept for lack of work, not what it waited for frames or for a processor that
 * others had, or stood paused, so that a VM that is held up does not look idle, and
 * one that has nothing to do does. That
 * time and the counts come from the worker, and a lie about them changes what
 * is believed of its own VM only; at most one SAMPLE is outstanding.
 *
 * With count_touched the worker counts all touched pages too, in the same
 * periods: the truth, for whoever wants to know how good the estimate is. No
 * policy sees it.
 *
 * Looked at before each round of the policy and by a timer of its own, so that a
 * period's end does not wait for the policy's period: where an estimate has moved
 * by active_trigger_percent of the VM's memory since the last round, that is a
 * reason for a round (policy_trigger.h). New settings count from the next period on.
 */
#include "daemon/supervisor_private.h"

#include <math.h>

#define MAX_SAMPLE_PAGES     1048576u
#define MIN_SAMPLE_PERIOD_MS 100u
#define MAX_SAMPLE_PERIOD_MS 3600000u
/* The timer looks eight times a period, but at most every second. */
#define LOOKS_A_PERIOD  8u
#define LOOK_LONGEST_MS 1000u

static struct active_settings settings_of(const struct supervisor *supervisor)
{
    const struct sampling_settings *settings = &supervisor->config.sampling;
    return (struct active_settings){.sample_pages = settings->pages,
                                    .period_ns = settings->period_ms * UINT64_C(1000000),
                                    .slow_gain = settings->slow_gain,
                                    .fast_gain = settings->fast_gain};
}

void sampling_settings_default(struct sampling_settings *settings)
{
    *settings = (struct sampling_settings){
        .pages = active_settings_default.sample_pages,
        .period_ms = (uint32_t)(active_settings_default.period_ns / 1000000),
        .slow_gain = active_settings_default.slow_gain,
        .fast_gain = active_settings_default.fast_gain,
    };
}

static bool is_gain(double gain)
{
    return gain > 0 && gain <= 1; /* false for NaN */
}

int sampling_settings_check(const struct sampling_settings *settings, struct err *err)
{
    if (settings->pages > MAX_SAMPLE_PAGES)
        return err_set(err, 0, "samples of %u pages; it must be 0 to %u", settings->pages,
                       MAX_SAMPLE_PAGES);
    if (settings->period_ms < MIN_SAMPLE_PERIOD_MS || settings->period_ms > MAX_SAMPLE_PERIOD_MS)
        return err_set(err, 0, "sampling period of %u ms; it must be %u to %u", settings->period_ms,
                       MIN_SAMPLE_PERIOD_MS, MAX_SAMPLE_PERIOD_MS);
    if (!is_gain(settings->slow_gain) || !is_gain(settings->fast_gain))
        return err_set(err, 0, "gains of sampling are %g and %g; they must be above 0, at most 1",
                       settings->slow_gain, settings->fast_gain);
    return 0;
}

static void schedule_look(struct supervisor *supervisor)
{
    uint64_t ms = supervisor->config.sampling.period_ms / LOOKS_A_PERIOD;
    sd_event_source_set_time_relative(supervisor->sampling_source,
                                      (ms < LOOK_LONGEST_MS ? ms : LOOK_LONGEST_MS) * 1000);
    sd_event_source_set_enabled(supervisor->sampling_source, SD_EVENT_ONESHOT);
}

int supervisor_set_sampling(struct supervisor *supervisor, const struct sampling_settings *settings,
                            struct err *err)
{
    if (sampling_settings_check(settings, err) < 0)
        return -1;
    supervisor->config.sampling = *settings;
    event_tell(supervisor, NULL, EVENT_SETTING, "sampling %u pages each %u ms, gains %g and %g%s",
               settings->pages, settings->period_ms, settings->slow_gain, settings->fast_gain,
               settings->count_touched ? "; all touched pages are counted" : "");
    schedule_look(supervisor);
    policy_soon(supervisor, TRIGGER_HOST_SETTING);
    return 0;
}

static uint64_t vm_time_ns(const struct vm *vm)
{
    const struct vm_stats *stats = &vm->region->stats;
    return atomic_load_explicit(&stats->vcpu_run_ns, memory_order_relaxed) +
           atomic_load_explicit(&stats->vcpu_idle_ns, memory_order_relaxed);
}

/* A period is over and the next has begun. */
static void on_sampled(struct vm *vm, enum answer_fate fate, uint64_t answer, void *ctx)
{
    struct vm_sampling *sampling = &vm->sampling;
    struct active_settings settings = settings_of(vm->supervisor);
    (void)ctx;
    sampling->outstanding = false;
    if (fate != ANSWER_GIVEN)
        return;
    uint32_t sampled = sampling->sample_pages;
    uint32_t touched = (uint32_t)answer < sampled ? (uint32_t)answer : sampled;
    uint64_t all_touched = answer >> 32;
    active_period_over(&sampling->estimate, &settings, touched, sampled);
    sampling->periods += sampled > 0;
    sampling->last_pages = sampled;
    sampling->last_touched_pages = touched;
    sampling->counted = sampling->counting && sampled > 0;
    sampling->all_touched_pages = all_touched < vm->memory_pages ? all_touched : vm->memory_pages;
    sampling->sample_pages = sampling->asked_pages;
    sampling->counting = sampling->asked_count;
    sampling->began_ns = vm_time_ns(vm);
    if (sampling->sample_pages == 0) /* switched off: what was known grows old */
        sampling->estimate.known = false;
}

void sampling_look(struct vm *vm)
{
    struct vm_sampling *sampling = &vm->sampling;
    const struct sampling_settings *settings = &vm->supervisor->config.sampling;
    if (vm->life != LIFE_RUNNING || sampling->outstanding)
        return;
    uint64_t now_ns = vm_time_ns(vm), period_ns = settings->period_ms * UINT64_C(1000000);
    bool begun = sampling->sample_pages > 0;
    bool over = now_ns - sampling->began_ns >= period_ns; /* also if its clock went back */
    if (begun ? !over && settings->pages > 0 : settings->pages == 0)
        return;
    sampling->asked_pages =
        settings->pages < vm->memory_pages ? settings->pages : (uint32_t)vm->memory_pages;
    sampling->asked_count = settings->count_touched;
    struct ring_message message = {.type = RING_SAMPLE,
                                   .value = sampling->asked_pages,
                                   .flags = settings->count_touched ? RING_COUNT_ALL : 0};
    sampling->outstanding = request_message(vm, &message, on_sampled, NULL, NULL) == 0;
}

/* Of the period that runs; between its end and the answer nothing is known of it. */
static void partial_period(const struct vm *vm, uint32_t *touched, uint32_t *sampled)
{
    const struct vm_sampling *sampling = &vm->sampling;
    *sampled = sampling->outstanding ? 0 : sampling->sample_pages;
    *touched = (uint32_t)vm_stat(vm, &vm->region->stats.pages.touched_pages, *sampled);
}

bool sampling_fraction(const struct vm *vm, double *fraction)
{
    struct active_settings settings = settings_of(vm->supervisor);
    uint32_t touched, sampled;
    if (!vm->sampling.estimate.known)
        return false;
    partial_period(vm, &touched, &sampled);
    *fraction = active_fraction(&vm->sampling.estimate, &settings, touched, sampled);
    return true;
}

/* What a round takes for active: all of it until more is known. */
static double believed_fraction(const struct vm *vm)
{
    double fraction = 1;
    return sampling_fraction(vm, &fraction) ? fraction : 1;
}

void sampling_note_round(struct vm *vm)
{
    vm->sampling.round_fraction = believed_fraction(vm);
}

static int on_look(sd_event_source *source, uint64_t time_us, void *ctx)
{
    (void)source;
    (void)time_us;
    struct supervisor *supervisor = ctx;
    double percent = supervisor->settings.active_trigger_percent;
    struct vm *vm;
    schedule_look(supervisor);
    if (supervisor->grants_held) /* a check wants quiet */
        return 0;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (vm->life != LIFE_RUNNING)
            continue;
        sampling_look(vm);
        double moved = fabs(believed_fraction(vm) - vm->sampling.round_fraction);
        if (percent > 0 && moved * 100 >= percent)
            policy_soon(supervisor, TRIGGER_ACTIVE);
        message_kick(vm);
    }
    return 0;
}

int sampling_start(struct supervisor *supervisor, struct err *err)
{
    int result =
        sd_event_add_time_relative(supervisor->event, &supervisor->sampling_source, CLOCK_MONOTONIC,
                                   LOOK_LONGEST_MS * 1000, 1000, on_look, supervisor);
    if (result < 0)
        return err_set(err, -result, "sampling timer");
    schedule_look(supervisor);
    return 0;
}

void sampling_stop(struct supervisor *supervisor)
{
    supervisor->sampling_source = sd_event_source_disable_unref(supervisor->sampling_source);
}

static uint64_t pages_of(const struct vm *vm, double fraction)
{
    return (uint64_t)(fraction * (double)vm->memory_pages + 0.5);
}

void sampling_row(const struct vm *vm, struct vm_row *row)
{
    const struct vm_sampling *sampling = &vm->sampling;
    struct active_settings settings = settings_of(vm->supervisor);
    uint32_t touched, sampled;
    double fraction;
    partial_period(vm, &touched, &sampled);
    row->sample_pages = sampled;
    row->sample_touched_pages = touched;
    row->sample_periods = sampling->periods;
    row->last_sample_pages = sampling->last_pages;
    row->last_sample_touched_pages = sampling->last_touched_pages;
    row->touched_pages = sampling->all_touched_pages;
    row->valid |= sampling->counted ? VM_ROW_TOUCHED : 0;
    if (!sampling_fraction(vm, &fraction))
        return;
    row->valid |= VM_ROW_ACTIVE;
    row->active_pages = pages_of(vm, fraction);
    row->active_slow_pages = pages_of(vm, sampling->estimate.slow);
    row->active_fast_pages = pages_of(vm, sampling->estimate.fast);
    row->active_next_pages =
        pages_of(vm, active_next(&sampling->estimate, &settings, touched, sampled));
}
