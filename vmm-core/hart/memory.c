/*
 * The slow path of guest memory accesses: everything that the in-line look-up in
 * ops.c does not settle.
 *
 * Misaligned accesses are done here and may cross pages: both pages are resolved
 * before a byte is stored, so that a fault on the second one leaves the first as
 * it was. A device is reached only by naturally aligned accesses. Supervisor
 * accesses to user pages (sstatus.SUM) are never hits of the in-line look-up;
 * the entry's user tags are tried here first.
 *
 * Follows: privileged manual 4.3.2 (translation), 3.6 (physical memory
 * attributes: misaligned access to a device is an access fault); unprivileged
 * manual 2.6, 8.2 (misaligned atomics fault).
 */
#include "vmm-core/hart/core.h"

#include <string.h>

static const uint8_t page_fault_causes[] = {
    [SHADOW_FETCH] = CAUSE_FETCH_PAGE,
    [SHADOW_LOAD] = CAUSE_LOAD_PAGE,
    [SHADOW_STORE] = CAUSE_STORE_PAGE,
};
static const uint8_t access_fault_causes[] = {
    [SHADOW_FETCH] = CAUSE_FETCH_ACCESS,
    [SHADOW_LOAD] = CAUSE_LOAD_ACCESS,
    [SHADOW_STORE] = CAUSE_STORE_ACCESS,
};

static void set_trap(struct hart *h, uint8_t cause, uint64_t value)
{
    h->trap_cause = cause;
    h->trap_value = value;
}

static bool make_usable(struct hart *h, ppn_t ppn, bool writable)
{
    h->reserved_host = NULL; /* the call may wait, and frames may change meanwhile */
    h->waits++;
    if (h->env.make_usable && h->env.make_usable(h->env.ctx, ppn, writable))
        return true;
    h->stopping = true;
    return false;
}

enum target { TARGET_NONE, TARGET_RAM, TARGET_DEVICE };

/* Resolve an access within one page, with the lock held, doing all that is asked for on the way.
 * TARGET_NONE: a trap is set, or the machine is stopping. */
static enum target resolve(struct hart *h, uint64_t va, enum shadow_access access,
                           struct shadow_reply *reply)
{
    bool sum = h->sstatus & SSTATUS_SUM, mxr = h->sstatus & SSTATUS_MXR;
    for (;;) {
        switch (shadow_resolve(h->shadow, va, access, sum, mxr, reply)) {
        case SHADOW_OK:
            return TARGET_RAM;
        case SHADOW_MMIO:
            if (access != SHADOW_FETCH)
                return TARGET_DEVICE;
            set_trap(h, CAUSE_FETCH_ACCESS, va);
            return TARGET_NONE;
        case SHADOW_PAGE_FAULT:
            set_trap(h, page_fault_causes[access], va);
            return TARGET_NONE;
        case SHADOW_NEED_RESIDENT:
            if (!make_usable(h, reply->ppn, false))
                return TARGET_NONE;
            break;
        case SHADOW_NEED_WRITABLE:
            if (!make_usable(h, reply->ppn, true))
                return TARGET_NONE;
            break;
        case SHADOW_CODE_PAGE:
            hart_drop_code(h, reply->ppn);
            break;
        case SHADOW_ACCESS_FAULT:
        default:
            set_trap(h, access_fault_causes[access], va);
            return TARGET_NONE;
        }
    }
}

uint8_t *hart_fetch_host(struct hart *h, uint64_t va, ppn_t *ppn)
{
    struct shadow_reply reply;
    if (resolve(h, va, SHADOW_FETCH, &reply) != TARGET_RAM)
        return NULL;
    blocks_note_code(h, va, reply.level);
    *ppn = reply.ppn;
    return reply.host;
}

/* --- user pages, for supervisor accesses under SUM --- */

static bool sum_applies(const struct hart *h)
{
    return h->priv == SHADOW_S && (h->sstatus & SSTATUS_SUM);
}

static void *sum_load_ptr(struct hart *h, uint64_t va, unsigned size)
{
    return sum_applies(h) ? shadow_sum_load_ptr(h->view, va, size) : NULL;
}

static void *sum_store_ptr(struct hart *h, uint64_t va, unsigned size)
{
    return sum_applies(h) ? shadow_sum_store_ptr(h->view, va, size) : NULL;
}

/* --- accesses that may cross pages --- */

/* The one or two host places of an access; first_bytes lie at first. */
struct places {
    uint8_t *first, *second;
    unsigned first_bytes;
    uint64_t pa; /* TARGET_DEVICE */
};

/* Resolve all of va..va+size. A device answers only to an aligned access. */
static enum target resolve_all(struct hart *h, uint64_t va, unsigned size,
                               enum shadow_access access, struct places *places)
{
    unsigned to_page_end = PAGE_BYTES - (unsigned)(va & (PAGE_BYTES - 1));
    bool crosses = size > to_page_end;
    struct shadow_reply reply;
    enum target target;
    hart_lock(h);
    for (;;) {
        uint32_t waits = h->waits;
        target = resolve(h, va, access, &reply);
        if (target == TARGET_NONE)
            break;
        places->first = reply.host;
        places->first_bytes = crosses ? to_page_end : size;
        places->pa = reply.pa;
        if (target == TARGET_DEVICE && (va & (size - 1))) {
            set_trap(h, access_fault_causes[access], va);
            target = TARGET_NONE;
        }
        if (!crosses || target != TARGET_RAM)
            break;
        target = resolve(h, va + to_page_end, access, &reply);
        places->second = reply.host;
        if (target == TARGET_DEVICE) {
            set_trap(h, access_fault_causes[access], va + to_page_end);
            target = TARGET_NONE;
        }
        /* Making one page usable may have taken the other one away, even if that is back in the
         * same frame by now: both count only when neither had to be waited for. */
        if (target == TARGET_NONE || h->waits == waits)
            break;
    }
    hart_unlock(h);
    return target;
}

static bool device_load(struct hart *h, uint64_t va, uint64_t pa, unsigned size, uint64_t *value)
{
    h->counts.mmio_accesses++;
    if (h->env.mmio_load && h->env.mmio_load(h->env.ctx, pa, size, value)) {
        if (size < 8)
            *value &= (UINT64_C(1) << 8 * size) - 1;
        return true;
    }
    set_trap(h, CAUSE_LOAD_ACCESS, va);
    return false;
}

static bool device_store(struct hart *h, uint64_t va, uint64_t pa, unsigned size, uint64_t value)
{
    h->counts.mmio_accesses++;
    if (size < 8)
        value &= (UINT64_C(1) << 8 * size) - 1;
    if (h->env.mmio_store && h->env.mmio_store(h->env.ctx, pa, size, value))
        return true;
    set_trap(h, CAUSE_STORE_ACCESS, va);
    return false;
}

/*
 * Bytes of one page. A naturally aligned access is a single one of the host's too: the guest may
 * poll what a device thread stores meanwhile, and must not see half of it (RVWMO: such an access
 * is one memory operation). memcpy promises nothing of the kind.
 */
static void load_bytes(void *to, const void *from, unsigned size)
{
    if (size == 8 && !((uintptr_t)from & 7))
        *(uint64_t *)to = __atomic_load_n((const uint64_t *)from, __ATOMIC_RELAXED);
    else if (size == 4 && !((uintptr_t)from & 3))
        *(uint32_t *)to = __atomic_load_n((const uint32_t *)from, __ATOMIC_RELAXED);
    else if (size == 2 && !((uintptr_t)from & 1))
        *(uint16_t *)to = __atomic_load_n((const uint16_t *)from, __ATOMIC_RELAXED);
    else
        memcpy(to, from, size);
}

static void store_bytes(void *to, const void *from, unsigned size)
{
    if (size == 8 && !((uintptr_t)to & 7))
        __atomic_store_n((uint64_t *)to, *(const uint64_t *)from, __ATOMIC_RELAXED);
    else if (size == 4 && !((uintptr_t)to & 3))
        __atomic_store_n((uint32_t *)to, *(const uint32_t *)from, __ATOMIC_RELAXED);
    else if (size == 2 && !((uintptr_t)to & 1))
        __atomic_store_n((uint16_t *)to, *(const uint16_t *)from, __ATOMIC_RELAXED);
    else
        memcpy(to, from, size);
}

struct loaded hart_load_slow(struct hart *h, uint64_t va, unsigned size)
{
    struct loaded result = {.value = 0, .ok = true};
    struct places places;
    void *user = sum_load_ptr(h, va, size);
    if (user) {
        load_bytes(&result.value, user, size);
        return result;
    }
    switch (resolve_all(h, va, size, SHADOW_LOAD, &places)) {
    case TARGET_RAM:
        load_bytes(&result.value, places.first, places.first_bytes);
        if (places.first_bytes < size)
            memcpy((uint8_t *)&result.value + places.first_bytes, places.second,
                   size - places.first_bytes);
        break;
    case TARGET_DEVICE:
        result.ok = device_load(h, va, places.pa, size, &result.value);
        break;
    default:
        result.ok = false;
    }
    return result;
}

bool hart_store_slow(struct hart *h, uint64_t va, unsigned size, uint64_t value)
{
    struct places places;
    void *user = sum_store_ptr(h, va, size);
    if (user) {
        store_bytes(user, &value, size);
        return true;
    }
    switch (resolve_all(h, va, size, SHADOW_STORE, &places)) {
    case TARGET_RAM:
        store_bytes(places.first, &value, places.first_bytes);
        if (places.first_bytes < size)
            memcpy(places.second, (uint8_t *)&value + places.first_bytes,
                   size - places.first_bytes);
        return true;
    case TARGET_DEVICE:
        return device_store(h, va, places.pa, size, value);
    default:
        return false;
    }
}

void *hart_atomic_host(struct hart *h, uint64_t va, unsigned size, bool store)
{
    struct shadow_reply reply;
    enum shadow_access access = store ? SHADOW_STORE : SHADOW_LOAD;
    if (va & (size - 1)) {
        set_trap(h, store ? CAUSE_STORE_MISALIGNED : CAUSE_LOAD_MISALIGNED, va);
        return NULL;
    }
    void *user = store ? sum_store_ptr(h, va, size) : sum_load_ptr(h, va, size);
    if (user)
        return user;
    hart_lock(h);
    enum target target = resolve(h, va, access, &reply);
    hart_unlock(h);
    if (target == TARGET_DEVICE)
        set_trap(h, access_fault_causes[access], va); /* devices have no atomics: 3.6.3 */
    return target == TARGET_RAM ? reply.host : NULL;
}
