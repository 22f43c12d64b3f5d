/*
 * Domains: who may share with whom. A domain is a salt in the hash, so that pages
 * of different ones do not meet, and a comparison before every match, so that a
 * collision does not bring them together either. A VM that names none is alone.
 *
 * A VM that changes its domain, or may share no more, is first undone: each of its
 * references is unshared by copy, a few at a time. Meanwhile nothing new is shared
 * with it, and nobody joins a frame by its name. A host without free frames takes
 * longer: a page that finds none is asked for again.
 */
#include "daemon/sharing/sharing_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define UNDONE_AT_ONCE 96u

bool domain_may_share(const struct vm *a, const struct vm *b)
{
    return a->sharing->enabled && b->sharing->enabled && !a->sharing->unsharing &&
           !b->sharing->unsharing && a->sharing->salt == b->sharing->salt;
}

static struct share_domain *find_domain(struct sharing *sharing, const char *name)
{
    for (unsigned i = 0; i < sharing->domain_count; i++)
        if (!strcmp(sharing->domains[i].name, name))
            return &sharing->domains[i];
    return NULL;
}

/* Domains live as long as the host: one that is left and joined again keeps its salt. */
static struct share_domain *make_domain(struct sharing *sharing, const char *name, struct err *err)
{
    size_t length = strlen(name);
    if (!length || length >= VM_NAME_BYTES ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz"
                     "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                     "0123456789._-") != length) {
        err_set(err, 0, "sharing domain '%.80s': up to %d letters, digits, '.', '_', '-'", name,
                VM_NAME_BYTES - 1);
        return NULL;
    }
    struct share_domain *larger =
        sharing->domain_count < 4 * MAX_VMS
            ? realloc(sharing->domains, (sharing->domain_count + 1) * sizeof *larger)
            : NULL;
    if (!larger) {
        err_set(err, ENOMEM, "sharing domain '%s'", name);
        return NULL;
    }
    sharing->domains = larger;
    struct share_domain *domain = &larger[sharing->domain_count++];
    *domain = (struct share_domain){.salt = sharing_random(sharing)};
    memcpy(domain->name, name, length + 1);
    return domain;
}

int domain_join(struct vm *vm, const char *name, struct err *err)
{
    struct sharing *sharing = sharing_of(vm);
    if (!name) {
        vm->sharing->domain[0] = 0;
        vm->sharing->salt = sharing_random(sharing);
        return 0;
    }
    struct share_domain *domain = find_domain(sharing, name);
    if (!domain)
        domain = make_domain(sharing, name, err);
    if (!domain)
        return -1;
    memcpy(vm->sharing->domain, domain->name, sizeof domain->name);
    vm->sharing->salt = domain->salt;
    return 0;
}

/* ---- undoing ---- */

/* What was known of its pages was known under another salt. */
static void forget_hints(struct vm *vm)
{
    struct sharing *sharing = sharing_of(vm);
    for (mpn_t mpn = 0; mpn < machine_memory_pages(sharing->machine); mpn++)
        if (share_kind(sharing->table, mpn) == SHARE_HINT &&
            machine_memory_is_private(sharing->machine, vm->number, mpn))
            share_forget(sharing->table, mpn);
    if (vm->sharing->again)
        memset(vm->sharing->again, 0xff, vm->sharing->words * sizeof *vm->sharing->again);
}

static void begin_undoing(struct vm *vm)
{
    struct sharing *sharing = sharing_of(vm);
    forget_hints(vm);
    vm->sharing->unsharing = vm->region != NULL;
    vm->sharing->phase = PASS_NONE;
    scanner_soon(sharing);
}

struct undoing {
    const struct sharing *sharing;
    bool zeroes; /* these too */
    unsigned count, left;
    struct share_ref refs[UNDONE_AT_ONCE];
};

static bool gather(void *ctx, const struct share_ref *ref)
{
    struct undoing *undoing = ctx;
    if (ref->frame == undoing->sharing->zero && !undoing->zeroes)
        return true;
    undoing->left++;
    if (ref->frame != undoing->sharing->zero &&
        machine_memory_is_held(undoing->sharing->machine, ref->frame))
        return true;
    undoing->refs[undoing->count++] = *ref;
    return undoing->count < UNDONE_AT_ONCE;
}

void domains_undo_some(struct vm *vm)
{
    struct sharing *sharing = sharing_of(vm);
    struct undoing undoing = {.sharing = sharing, .zeroes = !vm->sharing->enabled};
    /* What was asked for before the change is answered first: a SHARE may be among it. */
    if (vm->sharing->undoing || vm->sharing->outstanding)
        return;
    share_refs_of_owner(sharing->refs, vm->number, gather, &undoing);
    for (unsigned i = 0; i < undoing.count && batches_room(vm); i++) {
        const struct share_ref *ref = &undoing.refs[i];
        struct share_item item = {.ppn = ref->page, .mpn = ref->frame, .target = NO_MPN};
        if (batch_add(vm, OP_COPY, &item)) {
            vm->sharing->undoing++;
            sharing->counts.copies++;
        }
    }
    if (!undoing.left) {
        vm->sharing->unsharing = false;
        /* Zero pages alone are left, and what was private all the time is hashed anew. */
        vm->sharing->pass_begin_ns = 0;
    }
}

int supervisor_set_sharing_domain(struct supervisor *supervisor, struct vm *vm, const char *domain,
                                  struct err *err)
{
    const char *before = vm->sharing->domain;
    if (domain ? !strcmp(before, domain) : !before[0])
        return 0;
    if (domain_join(vm, domain, err) < 0)
        return -1;
    begin_undoing(vm);
    event_tell(supervisor, vm, EVENT_SETTING, "sharing domain %s", domain ? domain : "of its own");
    return 0;
}

int supervisor_set_vm_sharing(struct supervisor *supervisor, struct vm *vm, bool enabled,
                              struct err *err)
{
    (void)err;
    if (vm->sharing->enabled == enabled)
        return 0;
    vm->sharing->enabled = enabled;
    begin_undoing(vm);
    event_tell(supervisor, vm, EVENT_SETTING, "sharing of its pages %s", enabled ? "on" : "off");
    return 0;
}
