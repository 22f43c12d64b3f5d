/* Random programs over shadow-pt and the model they are compared with: see shadow_program.h. */
#include "tests/shadow/shadow_program.h"
#include "tests/shadow/guest_tables.h"

#include <string.h>

#define RAM_PAGES     48u
#define MACHINE_PAGES 64u
#define HARTS         2u
#define STEPS_MAX     400u

struct program {
    const uint8_t *bytes;
    size_t size, at;
    struct test_guest guest;
    struct shadow *shadows[HARTS];
    uint64_t satp[HARTS];
    uint64_t recent[8]; /* pages accessed lately, in turn */
    unsigned accesses;
    enum shadow_priv priv[HARTS];
    /* Tables changed and not fenced since on some hart: old translations are legal, so outcomes
     * are not fixed. */
    bool unfenced[HARTS];
};

#define LL(x) ((unsigned long long)(x))

static unsigned take(struct program *p, unsigned limit)
{
    return p->at < p->size ? p->bytes[p->at++] % limit : 0;
}

/* ---- the model: manual 4.3.2 as plainly as it can be said ---- */

struct model_result {
    enum shadow_result result; /* OK, PAGE_FAULT, ACCESS_FAULT or MMIO */
    uint64_t pa;
    uint64_t pte_pa, pte_after; /* leaf; pte_pa 0 in Bare mode */
};

static bool model_is_ram(uint64_t pa)
{
    return pa >= RAM_BASE_PA && pa < RAM_BASE_PA + (uint64_t)RAM_PAGES * PAGE_BYTES;
}

/* Content of RAM at pa, wherever the host keeps it now. */
static uint64_t model_read(const struct program *p, uint64_t pa)
{
    ppn_t ppn = (ppn_t)((pa - RAM_BASE_PA) / PAGE_BYTES);
    const uint8_t *page = pmap_host(p->guest.pmap, ppn);
    if (!page && pmap_state(p->guest.pmap, ppn) == PAGE_PAGED)
        page = p->guest.swap + (size_t)ppn * PAGE_BYTES;
    uint64_t value = 0;
    if (page)
        memcpy(&value, page + pa % PAGE_BYTES, sizeof value);
    return value;
}

static struct model_result model_walk(const struct program *p, uint64_t satp, enum shadow_priv priv,
                                      uint64_t va, enum shadow_access access, bool sum, bool mxr)
{
    struct model_result fault = {.result = SHADOW_PAGE_FAULT};
    struct model_result no_access = {.result = SHADOW_ACCESS_FAULT};
    uint64_t mode = satp >> 60;
    if (mode == 0) {
        if (va >= UINT64_C(1) << 56)
            return no_access;
        return (struct model_result){.result = model_is_ram(va) ? SHADOW_OK : SHADOW_MMIO,
                                     .pa = va};
    }
    int levels = mode == 8 ? 3 : 4;
    int top_bit = mode == 8 ? 38 : 47;
    uint64_t upper = va >> top_bit;
    if (upper != 0 && upper != UINT64_MAX >> top_bit)
        return fault;
    uint64_t a = (satp & UINT64_C(0xfffffffffff)) * 4096;
    for (int i = levels - 1; i >= 0; i--) {
        uint64_t pte_pa = a + 8 * (va >> (12 + 9 * i) & 0x1ff);
        if (!model_is_ram(pte_pa))
            return no_access;
        uint64_t pte = model_read(p, pte_pa);
        bool r = pte >> 1 & 1, w = pte >> 2 & 1, x = pte >> 3 & 1, u = pte >> 4 & 1;
        uint64_t ppn = pte << 10 >> 20;
        if (!(pte & 1) || (!r && w) || pte >> 54)
            return fault;
        if (!r && !x) {
            if (u || (pte & 0xc0))
                return fault;
            a = ppn * 4096;
            continue;
        }
        if (priv == SHADOW_U && !u)
            return fault;
        if (priv == SHADOW_S && u && (!sum || access == SHADOW_FETCH))
            return fault;
        if ((access == SHADOW_FETCH && !x) || (access == SHADOW_STORE && !w) ||
            (access == SHADOW_LOAD && !r && !(mxr && x)))
            return fault;
        for (int j = 0; j < i; j++)
            if (ppn >> (9 * j) & 0x1ff)
                return fault;
        uint64_t offset_bits = 12 + 9 * (uint64_t)i;
        uint64_t offset = va & ((UINT64_C(1) << offset_bits) - 1);
        uint64_t pa = ppn * 4096 + offset;
        return (struct model_result){.result = model_is_ram(pa) ? SHADOW_OK : SHADOW_MMIO,
                                     .pa = pa,
                                     .pte_pa = pte_pa,
                                     .pte_after = pte | 0x40 | (access == SHADOW_STORE ? 0x80 : 0)};
    }
    return fault;
}

/* ---- choices ---- */

static uint64_t choose_va(struct program *p)
{
    static const uint16_t index[] = {0, 1, 2, 255, 256, 511, 0, 0};
    uint64_t va = 0;
    if (take(p, 2))
        return p->recent[take(p, 8)];
    for (int level = 3; level > 0; level--)
        va = va << 9 | index[take(p, 8)];
    unsigned b = take(p, 256);
    va = va << 9 | (b < 224 ? b % 8 : index[b % 8]);
    va = va << 12;
    switch (take(p, 8)) {
    case 0: /* Sv48 as it comes: bit 47 not extended */
        return va;
    case 1: /* Bare mode, or the first pages of RAM as an identity map */
        return RAM_BASE_PA + (va >> 12 & 63) * PAGE_BYTES;
    case 2:
        return va | UINT64_C(1) << (40 + take(p, 24));
    default: /* canonical for Sv39 */
        return (uint64_t)((int64_t)(va << 25) >> 25);
    }
}

static uint64_t choose_pte(struct program *p)
{
    static const uint8_t flags[] = {0xcf, 0xdf, 0x0f, 0x1f, 0x01, 0x01, 0x01, 0x21,
                                    0xef, 0xff, 0x43, 0x53, 0x4b, 0x41, 0xc7, 0x00};
    uint64_t page = (RAM_BASE_PA >> 12) + take(p, RAM_PAGES);
    unsigned kind = take(p, 16);
    if (kind == 0)
        page = (RAM_BASE_PA >> 12) + RAM_PAGES + take(p, 4); /* just outside */
    else if (kind == 1)
        page = take(p, 256) * UINT64_C(0x0101010101); /* far outside */
    else if (kind < 5)
        page = RAM_BASE_PA >> 12; /* fit for a superpage */
    uint64_t pte = page << 10 | flags[take(p, 16)];
    if (take(p, 8) == 0)
        pte ^= UINT64_C(1) << take(p, 64);
    return pte;
}

/* A page that may be a table has other content now; mostly the guest fences. */
static void tables_changed(struct program *p)
{
    bool fence = take(p, 8) != 0;
    for (unsigned h = 0; h < HARTS; h++) {
        p->unfenced[h] = !fence;
        if (fence)
            shadow_fence(p->shadows[h], false, 0, false, 0);
    }
}

/* ---- steps ---- */

static void step_write_pte(struct program *p)
{
    unsigned any = take(p, RAM_PAGES), which = take(p, 3);
    ppn_t table = which ? TABLES_PPN + any % (p->guest.next_table - TABLES_PPN) : any;
    static const uint16_t index[] = {0, 1, 2, 255, 256, 511, 3, 4};
    unsigned at = index[take(p, 8)];
    uint64_t pte = choose_pte(p);
    test_guest_make_writable(&p->guest, table);
    shadow_code_dropped(p->guest.pmap, table);
    memcpy(pmap_host(p->guest.pmap, table) + at * sizeof pte, &pte, sizeof pte);
    tables_changed(p);
}

static void check_access(struct program *p, unsigned h, uint64_t va, enum shadow_access access,
                         bool sum, bool mxr)
{
    struct test_guest *g = &p->guest;
    struct shadow *s = p->shadows[h];
    struct model_result want = model_walk(p, p->satp[h], p->priv[h], va, access, sum, mxr);
    struct shadow_reply reply = {0};
    enum shadow_result got = test_guest_access(g, s, va, access, sum, mxr, &reply);
    if (!p->unfenced[h]) {
        REQUIRE(got == want.result, "satp %#llx va %#llx access %d: %d, the model says %d",
                LL(p->satp[h]), LL(va), (int)access, (int)got, (int)want.result);
        if (got == SHADOW_OK || got == SHADOW_MMIO)
            REQUIRE(reply.pa == want.pa, "va %#llx: pa %#llx, the model says %#llx", LL(va),
                    LL(reply.pa), LL(want.pa));
        if ((got == SHADOW_OK || got == SHADOW_MMIO) && want.pte_pa)
            REQUIRE(model_read(p, want.pte_pa) == want.pte_after,
                    "PTE of va %#llx is %#llx, the model says %#llx", LL(va),
                    LL(model_read(p, want.pte_pa)), LL(want.pte_after));
    }
    if (got != SHADOW_OK)
        return;
    REQUIRE(reply.ppn < RAM_PAGES &&
                reply.pa == RAM_BASE_PA + (uint64_t)reply.ppn * PAGE_BYTES + va % PAGE_BYTES,
            "pa %#llx is not ppn %#x", LL(reply.pa), reply.ppn);
    REQUIRE(reply.host == pmap_host(g->pmap, reply.ppn) + va % PAGE_BYTES,
            "host address of va %#llx is not in the frame of ppn %#x", LL(va), reply.ppn);
    if (access == SHADOW_STORE)
        REQUIRE(
            pmap_state(g->pmap, reply.ppn) == PAGE_PRIVATE && !shadow_is_code(g->pmap, reply.ppn),
            "store to ppn %#x, which is %s, code %d", reply.ppn,
            page_state_name(pmap_state(g->pmap, reply.ppn)), shadow_is_code(g->pmap, reply.ppn));
    /* The look-up in line: right or a miss, and never misaligned. */
    const struct shadow_view *view = shadow_view(s);
    void *hit = access == SHADOW_LOAD    ? shadow_load_ptr(view, va, 1)
                : access == SHADOW_STORE ? shadow_store_ptr(view, va, 1)
                                         : NULL;
    REQUIRE(!hit || hit == reply.host, "look-up of va %#llx differs from the slow path", LL(va));
    if (access == SHADOW_LOAD && !mxr && !sum)
        REQUIRE(hit, "va %#llx was just filled and misses", LL(va));
    REQUIRE(!shadow_load_ptr(view, va | 1, 2) && !shadow_store_ptr(view, va | 3, 8),
            "a misaligned look-up of va %#llx hits", LL(va));
}

static void step_access(struct program *p)
{
    unsigned h = take(p, HARTS);
    uint64_t va = choose_va(p);
    p->recent[p->accesses++ % 8] = va;
    va += take(p, 256);
    unsigned how = take(p, 256);
    p->priv[h] = how & 1 ? SHADOW_S : SHADOW_U;
    shadow_set_priv(p->shadows[h], p->priv[h]);
    check_access(p, h, va, (enum shadow_access)(how >> 1 & 3) % 3, how >> 3 & 1, how >> 4 & 1);
}

/* A hit in line, at any address, must be what the model says, side effects included. */
static void step_look_up(struct program *p)
{
    unsigned h = take(p, HARTS);
    uint64_t va = choose_va(p);
    bool store = take(p, 2);
    const struct shadow_view *view = shadow_view(p->shadows[h]);
    const uint8_t *hit = store ? shadow_store_ptr(view, va, 8) : shadow_load_ptr(view, va, 8);
    if (!hit || p->unfenced[h])
        return;
    struct model_result want =
        model_walk(p, p->satp[h], p->priv[h], va, store ? SHADOW_STORE : SHADOW_LOAD, false, false);
    REQUIRE(want.result == SHADOW_OK, "va %#llx hits, the model says %d", LL(va), (int)want.result);
    REQUIRE(hit == pmap_host(p->guest.pmap, (ppn_t)((want.pa - RAM_BASE_PA) / PAGE_BYTES)),
            "va %#llx hits another frame than pa %#llx", LL(va), LL(want.pa));
    if (want.pte_pa)
        REQUIRE(model_read(p, want.pte_pa) == want.pte_after, "va %#llx hits, but A or D is clear",
                LL(va));
}

static void step_satp(struct program *p)
{
    static const uint64_t modes[] = {8, 9, 8, 0};
    unsigned h = take(p, HARTS);
    uint64_t mode = modes[take(p, 4)];
    unsigned asid = take(p, 4);
    uint64_t root = take(p, 16) == 0 ? take(p, 256) : (RAM_BASE_PA >> 12) + take(p, 8);
    p->satp[h] = mode ? mode << 60 | (uint64_t)asid << 44 | root : 0;
    shadow_set_satp(p->shadows[h], p->satp[h]);
}

/* Fences of every kind; only the full one makes outcomes fixed again. */
static void step_fence(struct program *p)
{
    unsigned h = take(p, HARTS);
    unsigned kind = take(p, 5);
    uint64_t va = choose_va(p);
    shadow_fence(p->shadows[h], kind & 1, va, kind & 2, (uint16_t)take(p, 4));
    if (kind == 0 || kind == 4)
        p->unfenced[h] = false;
}

static void step_page(struct program *p)
{
    struct test_guest *g = &p->guest;
    ppn_t ppn = take(p, RAM_PAGES);
    switch (take(p, 10)) {
    case 0:
        test_guest_take_away(g, ppn, PAGE_EV_BALLOON);
        tables_changed(p); /* if it was a table, its content is gone */
        break;
    case 1:
        test_guest_take_away(g, ppn, PAGE_EV_REPORT);
        tables_changed(p);
        break;
    case 2:
    case 3:
        test_guest_take_away(g, ppn, PAGE_EV_OUT_DONE);
        break;
    case 4: /* stays in paging-out until somebody stores */
        if (pmap_state(g->pmap, ppn) == PAGE_PRIVATE) {
            shadow_protect_ppn(g->pmap, ppn);
            pmap_move(g->pmap, ppn, PAGE_EV_OUT_START, 0, ppn);
        }
        break;
    case 5:
    case 6:
        if (pmap_state(g->pmap, ppn) == PAGE_PRIVATE)
            test_guest_share(g, ppn);
        break;
    case 7:
        test_guest_take_away(g, ppn, PAGE_EV_BALLOON);
        tables_changed(p);
        if (pmap_state(g->pmap, ppn) == PAGE_BALLOONED)
            pmap_move(g->pmap, ppn, PAGE_EV_DEFLATE, 0, 0);
        break;
    default:
        shadow_code_added(g->pmap, ppn);
        break;
    }
}

static void step_drop(struct program *p)
{
    ppn_t ppn = take(p, RAM_PAGES);
    if (take(p, 16) == 0) {
        shadow_drop_all(p->guest.pmap);
        REQUIRE(!shadow_ppn_mapped(p->guest.pmap, ppn), "mapped after shadow_drop_all");
    } else {
        shadow_drop_ppn(p->guest.pmap, ppn);
        REQUIRE(!shadow_ppn_mapped(p->guest.pmap, ppn), "mapped after shadow_drop_ppn");
    }
}

/* A small working address space, so that programs reach the interesting parts soon. */
static void lay_out_start(struct program *p)
{
    struct test_guest *g = &p->guest;
    for (unsigned i = 0; i < 8; i++)
        test_guest_map(g, (uint64_t)i * PAGE_BYTES, i, 0, G_V | G_RWX | (i & 1 ? G_U : 0));
    for (unsigned i = 0; i < 4; i++) /* in the same slots of the shadow tables */
        test_guest_map(g, (UINT64_C(256) << 21) + (uint64_t)i * PAGE_BYTES, 8 + i, 0, G_V | G_RWX);
    test_guest_map(g, UINT64_C(1) << 21, 0, 1, G_V | G_RWX | G_G);
    test_guest_map(g, UINT64_C(2) << 21, 0, 1, G_V | G_RWX | G_U);
    for (unsigned h = 0; h < HARTS; h++) {
        p->satp[h] = test_guest_satp(g, g->root, (uint16_t)h);
        p->priv[h] = SHADOW_S;
        shadow_set_satp(p->shadows[h], p->satp[h]);
    }
}

void shadow_program_run(const uint8_t *bytes, size_t size)
{
    static void (*const steps[])(struct program *) = {
        step_access, step_access, step_access, step_access,   step_look_up, step_look_up,
        step_page,   step_page,   step_fence,  step_satp,     step_drop,    step_write_pte,
        step_access, step_access, step_access, step_write_pte};
    struct program p = {.bytes = bytes, .size = size};
    test_guest_open(&p.guest, RAM_PAGES, MACHINE_PAGES, take(&p, 4) == 0 ? 4 : 3);
    p.shadows[0] = p.guest.shadow;
    for (unsigned h = 1; h < HARTS; h++)
        p.shadows[h] = shadow_new(p.guest.pmap);
    lay_out_start(&p);
    for (unsigned n = 0; p.at < p.size && n < STEPS_MAX; n++) {
        steps[take(&p, 16)](&p);
        bool fenced = true;
        for (unsigned h = 0; h < HARTS; h++)
            fenced = fenced && !p.unfenced[h];
        if (fenced)
            test_guest_check_fenced(&p.guest);
        else
            test_guest_check(&p.guest);
    }
    for (unsigned h = 1; h < HARTS; h++)
        shadow_free(p.shadows[h]);
    test_guest_close(&p.guest);
}
