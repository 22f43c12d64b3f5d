#include "tests/daemon/host_steps.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct {
    uint64_t random_state;
    unsigned vm_mib, vm_min_mib;
} steps;

void host_steps_begin(uint64_t seed, unsigned vm_mib, unsigned vm_min_mib)
{
    steps.random_state = seed | 1;
    steps.vm_mib = vm_mib;
    steps.vm_min_mib = vm_min_mib;
}

unsigned host_random_below(unsigned limit)
{
    steps.random_state ^= steps.random_state << 13;
    steps.random_state ^= steps.random_state >> 7;
    steps.random_state ^= steps.random_state << 17;
    return (unsigned)(steps.random_state % limit);
}

/* ---- the steps ---- */

static void kill_one(struct host *host, struct vm *vm)
{
    (void)host;
    worker_signal(vm, SIGKILL);
}

static void destroy_one(struct host *host, struct vm *vm)
{
    if (!vm->destroying)
        supervisor_destroy_vm(host->supervisor, vm, NULL, NULL, NULL);
}

static void pause_one(struct host *host, struct vm *vm)
{
    supervisor_pause_vm(host->supervisor, vm, NULL, NULL, NULL);
}

static void resume_one(struct host *host, struct vm *vm)
{
    if (vm->life == LIFE_PAUSED)
        supervisor_resume_vm(host->supervisor, vm, NULL, NULL, NULL);
}

static void target_one(struct host *host, struct vm *vm)
{
    unsigned mib = steps.vm_min_mib + host_random_below(steps.vm_mib - steps.vm_min_mib);
    supervisor_set_target(host->supervisor, vm, mib * TEST_MIB, NULL);
}

static void free_one(struct host *host, struct vm *vm)
{
    supervisor_clear_target(host->supervisor, vm, NULL);
}

static void max_one(struct host *host, struct vm *vm)
{
    unsigned mib = steps.vm_min_mib + host_random_below(steps.vm_mib - steps.vm_min_mib + 1);
    supervisor_set_min_max(host->supervisor, vm, ~UINT64_C(0), mib * TEST_MIB, NULL);
}

static void shares_one(struct host *host, struct vm *vm)
{
    supervisor_set_shares(host->supervisor, vm, 1 + host_random_below(1000), NULL);
}

static void change_policy(struct host *host, struct vm *vm)
{
    (void)vm;
    supervisor_set_policy(host->supervisor, host_random_below(2) ? "proportional" : "static", NULL);
}

/* Into a common domain, into its own, or out of sharing. */
static void domain_one(struct host *host, struct vm *vm)
{
    supervisor_set_sharing_domain(host->supervisor, vm, host_random_below(4) ? "all" : NULL, NULL);
    supervisor_set_vm_sharing(host->supervisor, vm, host_random_below(8) > 0, NULL);
}

static void let_run(struct host *host, struct vm *vm)
{
    (void)vm;
    host_run_ms(host, 10 + host_random_below(40));
}

typedef void step_fn(struct host *host, struct vm *vm);

static step_fn *const all_steps[] = {
    kill_one,      destroy_one, /* these two are endings */
    pause_one,     resume_one,  resume_one, target_one, free_one, max_one, shares_one,
    change_policy, domain_one,  domain_one, let_run,    let_run,  let_run, let_run,
};
#define STEPS   (sizeof all_steps / sizeof all_steps[0])
#define ENDINGS 2u

void host_step(struct host *host, struct vm *vm, bool endings)
{
    unsigned first = endings ? 0 : ENDINGS;
    all_steps[first + host_random_below(STEPS - first)](host, vm);
}

/* ---- about the whole host ---- */

void host_share_eagerly(struct host *host)
{
    struct sharing_settings settings = host->config.sharing;
    settings.cpu_percent = 100;
    settings.min_pages_per_second = settings.max_pages_per_second = 1000000;
    settings.pass_ms = 0;
    settings.settled_only = false;
    assert_int_equal(supervisor_set_sharing(host->supervisor, &settings, NULL), 0);
}

void host_nobody_saw_a_wrong_page(struct host *host)
{
    for (struct vm *vm = supervisor_first_vm(host->supervisor); vm;
         vm = supervisor_next_vm(host->supervisor, vm))
        if (vm->life == LIFE_STOPPED && strstr(vm->exit_text, "failure")) {
            host_print_events(host);
            fail_msg("%s: %s", vm_name(vm), vm->exit_text);
        }
}
