/*
 * Every change of a target in a running host has its reason: kept for each VM,
 * newest first and bounded, told to who listens, and enough to work the target
 * out again.
 */
#include "tests/daemon/host_fixture.h"
#include "tests/policy/recompute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SOON_MS 30000

struct heard {
    unsigned count;
    struct decision last;
    char vm[VM_NAME_BYTES];
    struct supervisor *supervisor;
    struct supervisor_decision_listener *drop; /* in the next call */
};

static void listen(void *ctx, const char *vm, const struct decision *decision)
{
    struct heard *heard = ctx;
    heard->count++;
    heard->last = *decision;
    snprintf(heard->vm, sizeof heard->vm, "%s", vm);
    if (heard->drop)
        supervisor_unlisten_decisions(heard->supervisor, heard->drop);
    heard->drop = NULL;
}

static void order(struct host *host, const char *vm, uint64_t pages)
{
    struct err err;
    if (supervisor_set_target(host->supervisor, supervisor_find_vm(host->supervisor, vm),
                              pages * PAGE_BYTES, &err) < 0)
        fail_msg("%s", err.text);
}

static unsigned kept(struct host *host, const char *vm, const struct decision **rows)
{
    return supervisor_decisions(host->supervisor, supervisor_find_vm(host->supervisor, vm), rows,
                                DECISIONS_KEPT);
}

static void an_order_is_kept_and_told(void **state)
{
    (void)state;
    struct host host;
    struct heard heard = {0};
    const struct decision *rows[DECISIONS_KEPT];
    char text[DECISION_TEXT_BYTES];
    host_start(&host, 64, "lying_worker");
    host_vm(&host, "v", 32, 16, "honest");
    host_until(&host, SOON_MS, host_state_is(&host, "v", "running"));
    heard.supervisor = host.supervisor;
    struct supervisor_decision_listener *listener =
        supervisor_listen_decisions(host.supervisor, listen, &heard);
    assert_non_null(listener);
    host_until(&host, SOON_MS, host.supervisor->triggers == 0);
    order(&host, "v", 5000);
    host_until(&host, SOON_MS, heard.count == 1);
    assert_string_equal(heard.vm, "v");
    assert_int_equal(heard.last.target_pages, 5000);
    assert_int_equal(heard.last.reason.rule, RULE_MANUAL);
    assert_int_equal(heard.last.trigger, TRIGGER_VM_SETTING);
    assert_int_equal(heard.last.row.manual_target_pages, 5000);
    assert_string_equal(heard.last.policy, "proportional");
    assert_true(heard.last.time_ns > UINT64_C(1600000000000000000));
    assert_non_null(strstr(decision_text(&heard.last, text), "to 19.5 MiB"));
    assert_true(kept(&host, "v", rows) >= 1);
    assert_memory_equal(rows[0], &heard.last, sizeof heard.last);

    heard.drop = listener; /* from within the call */
    order(&host, "v", 6000);
    host_until(&host, SOON_MS, heard.count == 2);
    assert_int_equal(heard.last.previous_target_pages, 5000);
    order(&host, "v", 7000);
    host_until(&host, SOON_MS, (kept(&host, "v", rows), rows[0]->target_pages == 7000));
    assert_int_equal(heard.count, 2);
    host_stop(&host);
}

static void the_last_changes_are_kept_newest_first(void **state)
{
    (void)state;
    struct host host;
    const struct decision *rows[DECISIONS_KEPT];
    host_start(&host, 64, "lying_worker");
    host_vm(&host, "v", 32, 16, "honest");
    host_until(&host, SOON_MS, host_state_is(&host, "v", "running"));
    for (unsigned i = 0; i < DECISIONS_KEPT + 6; i++) {
        order(&host, "v", 4200 + i);
        host_until(&host, SOON_MS, kept(&host, "v", rows) > 0 && rows[0]->target_pages == 4200 + i);
    }
    assert_int_equal(kept(&host, "v", rows), DECISIONS_KEPT);
    for (unsigned i = 0; i + 1 < DECISIONS_KEPT; i++) {
        assert_int_equal(rows[i]->target_pages, 4200 + DECISIONS_KEPT + 5 - i);
        assert_int_equal(rows[i]->previous_target_pages, rows[i + 1]->target_pages);
        assert_true(rows[i]->time_ns >= rows[i + 1]->time_ns);
    }
    struct host_row row;
    supervisor_host_row(host.supervisor, &row);
    assert_true(row.decisions >= DECISIONS_KEPT + 6);
    host_stop(&host);
}

static bool has_priced(struct host *host, const char *vm)
{
    const struct decision *rows[DECISIONS_KEPT];
    for (unsigned count = kept(host, vm, rows); count > 0; count--)
        if (decision_has_price(rows[count - 1]))
            return true;
    return false;
}

/* Three VMs that want more than there is, under esx with sampling: whatever is decided can be
 * worked out again from its record. */
static void a_running_host_can_be_worked_out_again(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b", "c"};
    struct host host;
    struct err err;
    const struct decision *rows[DECISIONS_KEPT];
    char text[DECISION_TEXT_BYTES];
    host_start(&host, 48, "touching_worker");
    assert_int_equal(supervisor_set_policy(host.supervisor, "esx", &err), 0);
    struct sampling_settings sampling = {400, 100, 0.25, 0.75, false};
    assert_int_equal(supervisor_set_sampling(host.supervisor, &sampling, &err), 0);
    host_vm(&host, "a", 32, 4, "touch=7000 balloon");
    host_vm(&host, "b", 32, 4, "touch=7000");
    host_vm(&host, "c", 32, 4, "touch=500");
    host_until(&host, SOON_MS, has_priced(&host, "a") || has_priced(&host, "b"));
    for (int i = 0; i < 3; i++) {
        unsigned count = kept(&host, names[i], rows);
        for (unsigned n = 0; n < count; n++) {
            assert_int_equal(rows[n]->target_pages,
                             recomputed_pages(&rows[n]->row, &rows[n]->reason));
            assert_true(strlen(decision_text(rows[n], text)) < sizeof text - 1);
        }
    }
    host_stop(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_order_is_kept_and_told),
        cmocka_unit_test(the_last_changes_are_kept_newest_first),
        cmocka_unit_test(a_running_host_can_be_worked_out_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
