/*
 * The supervisor believes nothing a worker says: whatever a lying worker sends,
 * the frame table stays true, another VM keeps its frames, and the lie is told
 * as an event; a ring that cannot be believed ends its VM.
 */
#include "tests/daemon/host_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LIAR_MS 20000

/* Two VMs, an honest one that holds frames and a liar; run until the lie is told. */
static void start(struct host *host, const char *lie)
{
    host_start(host, 64, "lying_worker");
    host_vm(host, "honest", 16, 8, "honest");
    host_until(host, LIAR_MS, host_events(host, "honest", "swap-ok") == 1);
    host_vm(host, "liar", 16, 8, lie);
}

static struct vm_row row_of(struct host *host, const char *name)
{
    struct vm_row row;
    struct vm *vm = supervisor_find_vm(host->supervisor, name);
    assert_non_null(vm);
    supervisor_vm_row(host->supervisor, vm, &row);
    return row;
}

static void until_lied(struct host *host)
{
    host_until(host, LIAR_MS, host_events(host, "liar", "swap-ok") == 1);
}

static void frames_are_untouched(struct host *host)
{
    struct machine_counts counts;
    assert_true(machine_memory_recount(host->supervisor->machine, &counts));
    assert_int_equal(row_of(host, "honest").allocated_pages, 64);
    assert_int_equal(counts.private_pages, 64 + row_of(host, "liar").allocated_pages);
}

static void a_release_of_frames_it_does_not_hold_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *lie;
        unsigned refused, held;
    } cases[] = {
        {"release-everything-else", 64 * 256 + 1 - 64, 64}, /* the zero frame too */
        {"release-beyond", 2, 64},
        {"release-twice", 1, 63},
        {"release-shared", 3, 64},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct host host;
        start(&host, cases[i].lie);
        until_lied(&host);
        frames_are_untouched(&host);
        assert_int_equal(row_of(&host, "liar").allocated_pages, cases[i].held);
        assert_int_equal(row_of(&host, "liar").refused_messages, cases[i].refused);
        assert_true(host_events(&host, "liar", "refused") >= 1);
        assert_true(host_events(&host, "liar", "refused") <= 20); /* rate limit */
        host_check(&host);
        host_stop(&host);
    }
}

static void a_message_without_meaning_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *lie;
        unsigned refused;
    } cases[] = {{"senseless", 7}, {"answer-unasked", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct host host;
        start(&host, cases[i].lie);
        until_lied(&host);
        frames_are_untouched(&host);
        assert_int_equal(row_of(&host, "liar").refused_messages, cases[i].refused);
        host_check(&host);
        host_stop(&host);
    }
}

/* Of every type that a worker may send, whether or not anybody listens. */
static void every_type_of_message_can_come_at_any_time(void **state)
{
    (void)state;
    struct host host;
    start(&host, "offer-unasked");
    until_lied(&host);
    host_run_ms(&host, 50);
    frames_are_untouched(&host);
    assert_true(host_state_is(&host, "honest", "running"));
    assert_true(host_state_is(&host, "liar", "running"));
    host_check(&host);
    host_stop(&host);
}

static void a_wish_is_bounded_by_the_pool(void **state)
{
    (void)state;
    struct host host;
    start(&host, "want-the-world");
    until_lied(&host);
    host_run_ms(&host, 100);
    assert_true(row_of(&host, "liar").allocated_pages <= GRANT_POOL_SLOTS);
    host_check(&host);
    host_stop(&host);
}

static void statistics_are_bounded(void **state)
{
    (void)state;
    struct host host;
    start(&host, "statistics");
    until_lied(&host);
    host_run_ms(&host, 250); /* a few rounds of the policy on those rows */
    struct vm_row row = row_of(&host, "liar");
    assert_true(row.balloon_pages <= row.memory_pages);
    assert_true(row.paged_pages <= row.memory_pages);
    assert_true(row.balloon_target_pages <= row.memory_pages);
    assert_true(row.swap_slots_used <= row.memory_pages);
    assert_true(row.target_pages >= row.min_pages);
    assert_int_equal(row_of(&host, "honest").allocated_pages, 64);
    host_stop(&host);
}

static void words_of_a_worker_are_cleaned(void **state)
{
    (void)state;
    struct host host;
    start(&host, "noise");
    until_lied(&host);
    assert_true(host_event_says(&host, "guest-fault", "????"));
    host_stop(&host);
}

static void events_of_one_vm_are_limited(void **state)
{
    (void)state;
    struct host host;
    start(&host, "chatter");
    until_lied(&host);
    assert_true(host_events(&host, "liar", "balloon-popped") <= 20);
    struct host_row row;
    supervisor_host_row(host.supervisor, &row);
    assert_true(row.events_suppressed > 2900);
    host_stop(&host);
}

static void a_corrupt_ring_ends_its_vm_and_no_other(void **state)
{
    (void)state;
    static const char *const lies[] = {"corrupt-tail", "corrupt-head", "corrupt-incoming-tail",
                                       "corrupt-incoming-head"};
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct host host;
        start(&host, lies[i]);
        host_until(&host, LIAR_MS, host_state_is(&host, "liar", "stopped"));
        assert_int_equal(host_events(&host, "liar", "ring-corrupt"), 1);
        assert_true(host_state_is(&host, "honest", "running"));
        assert_int_equal(row_of(&host, "liar").allocated_pages, 0);
        frames_are_untouched(&host);
        assert_non_null(strstr(row_of(&host, "liar").exit_text, "corrupt"));
        host_check(&host);
        host_stop(&host);
    }
}

static void frames_stay_true_whatever_a_worker_says(void **state)
{
    (void)state;
    static const char *const lies[] = {"say-anything-1", "say-anything-2", "say-anything-3"};
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct host host;
        start(&host, lies[i]);
        until_lied(&host);
        host_run_ms(&host, 120); /* a round of the policy on what it wrote */
        frames_are_untouched(&host);
        assert_true(host_state_is(&host, "honest", "running"));
        assert_true(row_of(&host, "liar").refused_messages > 1000);
        host_stop(&host);
    }
}

static void a_broken_header_of_the_region_is_never_read_back(void **state)
{
    (void)state;
    struct host host;
    start(&host, "break-layout");
    until_lied(&host);
    host_run_ms(&host, 150);
    frames_are_untouched(&host);
    host_check(&host);
    host_stop(&host);
}

static void the_check_finds_what_a_pmap_claims_wrongly(void **state)
{
    (void)state;
    struct host host;
    struct check_result result;
    start(&host, "claim-frames");
    until_lied(&host);
    host_check_result(&host, &result);
    assert_false(result.ok);
    bool twice = false, foreign = false, unknown = false, slot = false;
    for (unsigned i = 0; i < result.described; i++) {
        assert_string_equal(result.violation[i].vm, "liar");
        twice |= strstr(result.violation[i].text, "named elsewhere") != NULL;
        foreign |= strstr(result.violation[i].text, "not this VM's") != NULL;
        unknown |= strstr(result.violation[i].text, "unknown state") != NULL;
        slot |= strstr(result.violation[i].text, "swap slot") != NULL;
    }
    assert_true(twice && foreign && unknown && slot);
    assert_true(host_state_is(&host, "honest", "running"));
    host_stop(&host);
}

static void an_answer_to_the_check_hides_no_violation(void **state)
{
    (void)state;
    struct host host;
    struct check_result result;
    start(&host, "hide-a-violation");
    until_lied(&host);
    host_check_result(&host, &result);
    assert_false(result.ok);
    assert_true(result.violations >= 2);
    assert_int_equal(result.described, 2);
    host_stop(&host);
}

static void note_check(void *ctx, const struct check_result *result)
{
    *(struct check_result *)ctx = *result;
}

static void a_check_that_is_given_up_leaves_no_vm_paused(void **state)
{
    (void)state;
    struct host host;
    struct check_result result = {.ok = true};
    struct err err;
    start(&host, "never-say-resumed");
    until_lied(&host);
    /* given a check that waits for a worker to say that it goes on */
    assert_int_equal(supervisor_check(host.supervisor, note_check, &result, &err), 0);
    host_until(&host, LIAR_MS, host_state_is(&host, "liar", "paused"));
    host_run_ms(&host, 100);
    assert_true(host_state_is(&host, "honest", "running"));
    /* when time is up */
    check_abandon(host.supervisor);
    /* then the VM, which was told to go on, counts as running and is served again */
    assert_false(result.ok);
    assert_true(host_state_is(&host, "liar", "running"));
    host_stop(&host);
}

static void a_worker_that_never_answers_cannot_hold_up_the_host(void **state)
{
    (void)state;
    struct host host;
    start(&host, "mute");
    until_lied(&host);
    uint64_t before_ns = clock_monotonic_ns();
    host_pause(&host, "honest");
    host_resume(&host, "honest");
    host_vm(&host, "third", 16, 4, "honest");
    host_until(&host, LIAR_MS, host_events(&host, "third", "swap-ok") == 1);
    assert_true(clock_monotonic_ns() - before_ns < UINT64_C(10000000000));
    host_destroy(&host, "third");
    frames_are_untouched(&host);
    /* The host's end kills it after its grace; not waited for here. */
    worker_signal(supervisor_find_vm(host.supervisor, "liar"), 9);
    host_until(&host, LIAR_MS, host_state_is(&host, "liar", "stopped"));
    host_stop(&host);
}

static void share_eagerly(struct host *host)
{
    struct sharing_settings settings = host->config.sharing;
    settings.pass_ms = 0;
    settings.settled_only = false;
    settings.min_pages_per_second = settings.max_pages_per_second = 1000000;
    settings.cpu_percent = 100;
    assert_int_equal(supervisor_set_sharing(host->supervisor, &settings, NULL), 0);
}

static void a_worker_that_dies_in_the_middle_of_sharing_leaves_nothing(void **state)
{
    (void)state;
    static const char *const lies[] = {"die-at-protect", "die-at-share"};
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct host host;
        start(&host, lies[i]);
        share_eagerly(&host);
        host_until(&host, LIAR_MS, host_state_is(&host, "liar", "stopped"));
        struct machine_counts counts;
        assert_true(machine_memory_recount(host.supervisor->machine, &counts));
        assert_int_equal(counts.shared_pages + counts.leaving_pages, 0);
        assert_int_equal(counts.private_pages, row_of(&host, "honest").allocated_pages);
        host_check(&host);
        host_stop(&host);
    }
}

static void a_reference_is_released_once_and_by_its_page(void **state)
{
    (void)state;
    struct host host;
    start(&host, "release-reference");
    share_eagerly(&host);
    host_until(&host, LIAR_MS, host_events(&host, "liar", "swap-error") >= 1);
    /* two answers that nobody waits for, and three of four releases */
    assert_true(row_of(&host, "liar").refused_messages >= 5);
    struct machine_counts counts;
    assert_true(machine_memory_recount(host.supervisor->machine, &counts));
    assert_int_equal(row_of(&host, "honest").held_pages, 64);
    assert_int_equal(counts.private_pages, 64 + row_of(&host, "liar").held_pages);
    worker_signal(supervisor_find_vm(host.supervisor, "liar"), 9);
    host_until(&host, LIAR_MS, host_state_is(&host, "liar", "stopped"));
    host_check(&host);
    host_stop(&host);
}

static void how_a_worker_ended_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *lie, *text;
        bool clean;
    } cases[] = {
        {"exit-poweroff", "powered off", true},
        {"exit-failed", "failure", false},
        {"exit-error", "cannot open /nowhere", false},
        {"crash", "signal 9", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct host host;
        start(&host, cases[i].lie);
        host_until(&host, LIAR_MS, host_state_is(&host, "liar", "stopped"));
        struct vm_row row = row_of(&host, "liar");
        assert_non_null(strstr(row.exit_text, cases[i].text));
        assert_int_equal(row.exit_clean, cases[i].clean);
        assert_int_equal(row.allocated_pages, 0);
        /* The name of a stopped VM may be used again. */
        host_vm(&host, "liar", 16, 8, "honest");
        host_until(&host, LIAR_MS, host_state_is(&host, "liar", "running"));
        host_stop(&host);
    }
}

static void a_guest_that_resets_without_end_is_stopped(void **state)
{
    (void)state;
    struct host host;
    start(&host, "exit-reboot");
    host_until(&host, LIAR_MS, host_state_is(&host, "liar", "stopped"));
    assert_int_equal(host_events(&host, "liar", "vm-reboot"), 8);
    assert_int_equal(row_of(&host, "liar").allocated_pages, 0);
    host_stop(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_release_of_frames_it_does_not_hold_is_refused),
        cmocka_unit_test(a_message_without_meaning_is_refused),
        cmocka_unit_test(every_type_of_message_can_come_at_any_time),
        cmocka_unit_test(a_wish_is_bounded_by_the_pool),
        cmocka_unit_test(statistics_are_bounded),
        cmocka_unit_test(words_of_a_worker_are_cleaned),
        cmocka_unit_test(events_of_one_vm_are_limited),
        cmocka_unit_test(a_corrupt_ring_ends_its_vm_and_no_other),
        cmocka_unit_test(frames_stay_true_whatever_a_worker_says),
        cmocka_unit_test(a_broken_header_of_the_region_is_never_read_back),
        cmocka_unit_test(the_check_finds_what_a_pmap_claims_wrongly),
        cmocka_unit_test(an_answer_to_the_check_hides_no_violation),
        cmocka_unit_test(a_check_that_is_given_up_leaves_no_vm_paused),
        cmocka_unit_test(a_worker_that_never_answers_cannot_hold_up_the_host),
        cmocka_unit_test(a_worker_that_dies_in_the_middle_of_sharing_leaves_nothing),
        cmocka_unit_test(a_reference_is_released_once_and_by_its_page),
        cmocka_unit_test(how_a_worker_ended_is_told),
        cmocka_unit_test(a_guest_that_resets_without_end_is_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
