/*
 * How far memory is overcommitted, averaged over 1, 5 and 15 minutes as the
 * kernel averages its load: exponentially damped, from 0 at the start. Kept here
 * and not by those who look, so that everyone sees the same, however long they
 * have been looking.
 *
 * The overcommit (memory of all VMs over the machine's, less 1, never below 0)
 * changes only when a VM comes or goes, and every such change is followed by a
 * round of the policy within its minimum gap. Between two looks it is taken to
 * have been what it was at the first, which makes each average exact, whatever
 * the time in between:
 *
 *     average += (overcommit - average) * (1 - exp(-time / period))
 */
#include "daemon/supervisor_private.h"

#include <math.h>

static const double periods_s[] = {60, 300, 900};

static double overcommit(struct supervisor *supervisor)
{
    double machine_pages = (double)machine_memory_pages(supervisor->machine), configured_pages = 0;
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (vm_is_charged(vm))
            configured_pages += (double)vm->memory_pages;
    }
    return configured_pages > machine_pages ? configured_pages / machine_pages - 1 : 0;
}

void overcommit_look(struct supervisor *supervisor)
{
    uint64_t now_ns = clock_monotonic_ns();
    if (supervisor->overcommit_time_ns) {
        double passed_s = (double)(now_ns - supervisor->overcommit_time_ns) / 1e9;
        for (size_t i = 0; i < sizeof periods_s / sizeof periods_s[0]; i++)
            supervisor->overcommit[i] += (supervisor->overcommit_now - supervisor->overcommit[i]) *
                                         (1 - exp(-passed_s / periods_s[i]));
    }
    supervisor->overcommit_time_ns = now_ns;
    supervisor->overcommit_now = overcommit(supervisor);
}
