/*
 * What a VM is charged for the shared frames it maps, by the setting shared_charge
 * (supervisor.h). "equal" needs every frame's references by VM: a frame with r
 * references charges 1/r of itself for each.
 *
 * That is kept exactly and as whole numbers, in units of 1/720720 frame, which 1 to
 * 16 divide. When a frame's r changes, all its references are visited, so it is done
 * for up to CROWD references only. Frames with more are few, and are charged
 * together: all crowded frames, in proportion to a VM's references to them. A VM is
 * charged at most 1/17 frame too much or too little a reference by that, and all
 * charges still add up to the frames, but for the fractions.
 */
#include "daemon/sharing/sharing_private.h"

#define CROWD      16u
#define FRAME_UNIT UINT64_C(720720)

static uint64_t units_each(uint32_t references)
{
    return references ? FRAME_UNIT / references : 0;
}

struct visit {
    const struct supervisor *supervisor;
    uint64_t units; /* modulo 2^64: what is added may be less than nothing */
    int crowded;
};

static bool visit_reference(void *ctx, const struct share_ref *ref)
{
    const struct visit *visit = ctx;
    struct vm_sharing *own = visit->supervisor->by_number[ref->owner]->sharing;
    own->charge_units += visit->units;
    own->crowded_references += (uint64_t)visit->crowded;
    return true;
}

/* All references of a frame that vm maps. A VM that is alone in its domain has them all: no need to
 * look at them one by one. */
static void visit_all(struct vm *vm, mpn_t mpn, uint32_t references, uint64_t units, int crowded)
{
    const struct sharing *sharing = sharing_of(vm);
    struct vm_sharing *own = vm->sharing;
    if (!own->domain[0] && !own->unsharing) {
        own->charge_units += units * references;
        own->crowded_references += (uint64_t)crowded * references;
        return;
    }
    struct visit visit = {sharing->supervisor, units, crowded};
    share_refs_of_frame(sharing->refs, mpn, visit_reference, &visit);
}

void charges_added(struct vm *vm, mpn_t mpn)
{
    struct sharing *sharing = sharing_of(vm);
    uint32_t now = machine_memory_frame(sharing->machine, mpn)->references, was = now - 1;
    if (now <= CROWD) {
        visit_all(vm, mpn, now, units_each(now) - units_each(was), 0);
        vm->sharing->charge_units += units_each(was); /* the new one was not charged before */
    } else if (was == CROWD) {
        visit_all(vm, mpn, now, -units_each(was), 1);
        vm->sharing->charge_units += units_each(was);
        sharing->crowded_frames++;
        sharing->crowded_references += now;
    } else {
        vm->sharing->crowded_references++;
        sharing->crowded_references++;
    }
}

void charges_dropped(struct vm *vm, mpn_t mpn)
{
    struct sharing *sharing = sharing_of(vm);
    uint32_t now = machine_memory_is_shared(sharing->machine, mpn)
                       ? machine_memory_frame(sharing->machine, mpn)->references
                       : 0;
    uint32_t was = now + 1;
    if (was <= CROWD) {
        visit_all(vm, mpn, now, units_each(now) - units_each(was), 0);
        vm->sharing->charge_units -= units_each(was);
    } else if (now == CROWD) {
        visit_all(vm, mpn, now, units_each(now), -1);
        vm->sharing->crowded_references--;
        sharing->crowded_frames--;
        sharing->crowded_references -= was;
    } else {
        vm->sharing->crowded_references--;
        sharing->crowded_references--;
    }
}

static uint64_t equal_charge(const struct vm *vm)
{
    const struct sharing *sharing = sharing_of(vm);
    uint64_t units = vm->sharing->charge_units, all = sharing->crowded_references;
    if (all) { /* its part of the crowded frames, whole frames first: no product overflows */
        uint64_t part = sharing->crowded_frames * vm->sharing->crowded_references;
        units += part / all * FRAME_UNIT + part % all * FRAME_UNIT / all;
    }
    return units / FRAME_UNIT;
}

uint64_t sharing_charged_pages(const struct vm *vm)
{
    const struct sharing *sharing = sharing_of(vm);
    if (!sharing || !vm->sharing)
        return 0;
    switch (sharing->settings.charge) {
    case SHARED_CHARGE_FULL:
        return vm->sharing->references;
    case SHARED_CHARGE_NONE:
        return 0;
    default:
        return equal_charge(vm);
    }
}

uint64_t charges_check(const struct supervisor *supervisor)
{
    const struct sharing *sharing = supervisor->sharing;
    uint64_t units = 0, crowded = 0;
    const struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        units += vm->sharing->charge_units;
        crowded += vm->sharing->crowded_references;
    }
    uint64_t frames =
        machine_memory_counts(sharing->machine).shared_pages - sharing->crowded_frames;
    uint64_t wrong =
        (units > frames * FRAME_UNIT ? units - frames * FRAME_UNIT : frames * FRAME_UNIT - units);
    /* 1/r is whole for r up to 16, so all is. */
    return (wrong != 0) + (crowded != sharing->crowded_references);
}
