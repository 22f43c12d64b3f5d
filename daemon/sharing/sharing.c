/*
 * Birth and end of sharing, of the host's part and of a VM's. The hash seed comes
 * from the kernel's entropy, so that a guest cannot aim for collisions; under a
 * fixed random_seed from that, so that a scenario repeats.
 */
#include "daemon/sharing/sharing_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* splitmix64 */
uint64_t sharing_random(struct sharing *sharing)
{
    uint64_t x = sharing->random_state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static int begin_random(struct sharing *sharing, struct err *err)
{
    sharing->random_state = sharing->supervisor->config.random_seed;
    if (!sharing->random_state && getrandom(&sharing->random_state, sizeof sharing->random_state,
                                            0) != sizeof sharing->random_state)
        return err_set(err, errno, "seed of the hashes");
    sharing->seed = sharing_random(sharing);
    return 0;
}

struct sharing *sharing_new(struct supervisor *supervisor, const struct sharing_settings *settings,
                            struct err *err)
{
    if (sharing_settings_check(settings, err) < 0)
        return NULL;
    struct sharing *sharing = calloc(1, sizeof *sharing);
    if (!sharing) {
        err_set(err, ENOMEM, "sharing");
        return NULL;
    }
    sharing->supervisor = supervisor;
    sharing->settings = *settings;
    sharing->machine = supervisor->machine;
    sharing->zero = machine_memory_zero_frame(sharing->machine);
    sharing->table = share_table_new(machine_memory_pages(sharing->machine));
    sharing->refs = share_refs_new(machine_memory_pages(sharing->machine) + 1);
    sharing->waiting = calloc(WAITING_PAGES, sizeof *sharing->waiting);
    sharing->breaks = calloc(BREAKS_KEPT, sizeof *sharing->breaks);
    sharing->pair_breaks = calloc(PAIRS, sizeof *sharing->pair_breaks);
    if (!sharing->table || !sharing->refs || !sharing->waiting || !sharing->breaks ||
        !sharing->pair_breaks)
        err_set(err, ENOMEM, "sharing table of %u frames", machine_memory_pages(sharing->machine));
    else if (begin_random(sharing, err) == 0 &&
             (!settings->enabled || scanner_start(sharing, err) == 0))
        return sharing;
    sharing_free(sharing);
    return NULL;
}

void sharing_free(struct sharing *sharing)
{
    if (!sharing)
        return;
    scanner_stop(sharing);
    share_table_free(sharing->table);
    share_refs_free(sharing->refs);
    free(sharing->domains);
    free(sharing->waiting);
    free(sharing->breaks);
    free(sharing->pair_breaks);
    free(sharing);
}

int sharing_vm_new(struct vm *vm, struct err *err)
{
    struct vm_sharing *own = calloc(1, sizeof *own);
    if (!own)
        return err_set(err, ENOMEM, "VM %s", vm->settings.name);
    own->sharing = sharing_of(vm);
    own->enabled = !vm->settings.no_sharing;
    vm->sharing = own;
    if (domain_join(vm, vm->settings.sharing_domain, err) < 0) {
        free(own);
        vm->sharing = NULL;
        return -1;
    }
    return 0;
}

void sharing_vm_free(struct vm *vm)
{
    if (!vm->sharing)
        return;
    pairs_forget(vm->sharing->sharing, vm->number);
    free(vm->sharing->to_hash);
    free(vm->sharing);
    vm->sharing = NULL;
}

void sharing_vm_start(struct vm *vm)
{
    struct vm_sharing *own = vm->sharing;
    own->phase = PASS_NONE;
    own->pass_begin_ns = 0;
    own->collecting = own->undoing = 0;
    own->unsharing = false;
    own->words = (uint32_t)((vm->memory_pages + 63) / 64);
    own->first_pass = own->counts.passes;
    if (own->to_hash)
        memset(own->to_hash, 0, (size_t)2 * own->words * sizeof *own->to_hash);
    else
        own->to_hash = calloc((size_t)2 * own->words, sizeof *own->to_hash);
    own->again = own->to_hash ? own->to_hash + own->words : NULL;
}

int supervisor_set_sharing(struct supervisor *supervisor, const struct sharing_settings *settings,
                           struct err *err)
{
    struct sharing *sharing = supervisor->sharing;
    if (sharing_settings_check(settings, err) < 0)
        return -1;
    if (settings->enabled && scanner_start(sharing, err) < 0)
        return -1;
    sharing->settings = *settings;
    sharing->pace.pages_per_second = settings->max_pages_per_second;
    event_tell(supervisor, NULL, EVENT_SETTING, "sharing %s, %u to %u pages/s, %g %% of a core",
               settings->enabled ? "on" : "off", settings->min_pages_per_second,
               settings->max_pages_per_second, settings->cpu_percent);
    policy_soon(supervisor, TRIGGER_HOST_SETTING); /* the charge counts in every VM's row */
    return 0;
}
