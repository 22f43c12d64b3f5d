/*
 * The guest page-table walk by the rules of the privileged manual (20211203):
 * one case a rule, each naming its section.
 */
#include "tests/shadow/guest_tables.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <string.h>

#define DATA_PPN 600u /* beyond the tables; 512-aligned pages start at 512 */

static const char *const result_names[] = {
    "ok", "page fault", "access fault", "mmio", "need resident", "need writable", "code page"};

struct rule {
    const char *name;
    uint64_t flags; /* of the leaf */
    enum shadow_priv priv;
    enum shadow_access access;
    bool sum, mxr;
    enum shadow_result want;
    uint64_t flags_after; /* A, D expected in the PTE */
};

/* clang-format off */
static const struct rule leaf_rules[] = {
    {"4.3.1 V=0 faults", G_R | G_AD, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.3.1 W without R is reserved (load)", G_V | G_W | G_AD, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.3.1 W without R is reserved (store)", G_V | G_W | G_AD, SHADOW_S, SHADOW_STORE, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.3.1 W and X without R is reserved", G_V | G_W | G_X | G_AD, SHADOW_S, SHADOW_FETCH, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.3.1 load from a readable page", G_V | G_R | G_AD, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_OK, G_AD},
    {"4.3.1 store to a read-only page", G_V | G_R | G_AD, SHADOW_S, SHADOW_STORE, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.3.1 fetch from a page without X", G_V | G_R | G_W | G_AD, SHADOW_S, SHADOW_FETCH, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.3.1 fetch from an execute-only page", G_V | G_X | G_AD, SHADOW_S, SHADOW_FETCH, 0, 0, SHADOW_OK, G_AD},
    {"4.3.1 load from an execute-only page", G_V | G_X | G_AD, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.1.1.2 MXR lets loads read an execute-only page", G_V | G_X | G_AD, SHADOW_S, SHADOW_LOAD, 0, 1, SHADOW_OK, G_AD},
    {"4.1.1.2 MXR in U mode", G_V | G_X | G_U | G_AD, SHADOW_U, SHADOW_LOAD, 0, 1, SHADOW_OK, G_AD},
    {"4.1.1.2 MXR does not let stores through", G_V | G_X | G_AD, SHADOW_S, SHADOW_STORE, 0, 1, SHADOW_PAGE_FAULT, G_AD},
    {"4.3.1 U mode needs U (load)", G_V | G_RWX | G_AD, SHADOW_U, SHADOW_LOAD, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.3.1 U mode needs U (store)", G_V | G_RWX | G_AD, SHADOW_U, SHADOW_STORE, 1, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.3.1 U mode needs U (fetch)", G_V | G_RWX | G_AD, SHADOW_U, SHADOW_FETCH, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.3.1 U mode with U (load)", G_V | G_RWX | G_U | G_AD, SHADOW_U, SHADOW_LOAD, 0, 0, SHADOW_OK, G_AD},
    {"4.3.1 U mode with U (store)", G_V | G_RWX | G_U | G_AD, SHADOW_U, SHADOW_STORE, 0, 0, SHADOW_OK, G_AD},
    {"4.3.1 U mode with U (fetch)", G_V | G_RWX | G_U | G_AD, SHADOW_U, SHADOW_FETCH, 0, 0, SHADOW_OK, G_AD},
    {"4.1.1.2 S mode at a user page without SUM (load)", G_V | G_RWX | G_U | G_AD, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.1.1.2 S mode at a user page without SUM (store)", G_V | G_RWX | G_U | G_AD, SHADOW_S, SHADOW_STORE, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.1.1.2 SUM lets S mode load from a user page", G_V | G_RWX | G_U | G_AD, SHADOW_S, SHADOW_LOAD, 1, 0, SHADOW_OK, G_AD},
    {"4.1.1.2 SUM lets S mode store to a user page", G_V | G_RWX | G_U | G_AD, SHADOW_S, SHADOW_STORE, 1, 0, SHADOW_OK, G_AD},
    {"4.1.1.2 SUM never lets S mode execute user pages", G_V | G_RWX | G_U | G_AD, SHADOW_S, SHADOW_FETCH, 1, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.1.1.2 SUM does not override R", G_V | G_X | G_U | G_AD, SHADOW_S, SHADOW_LOAD, 1, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.3.1 a load sets A", G_V | G_RWX, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_OK, G_A},
    {"4.3.1 a fetch sets A", G_V | G_RWX, SHADOW_S, SHADOW_FETCH, 0, 0, SHADOW_OK, G_A},
    {"4.3.1 a store sets A and D", G_V | G_RWX, SHADOW_S, SHADOW_STORE, 0, 0, SHADOW_OK, G_AD},
    {"4.3.1 a load leaves D clear", G_V | G_RWX | G_A, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_OK, G_A},
    {"4.3.1 a faulting store sets neither", G_V | G_R | G_X, SHADOW_S, SHADOW_STORE, 0, 0, SHADOW_PAGE_FAULT, 0},
    {"4.3.1 a faulting load sets nothing", G_V | G_X, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_PAGE_FAULT, 0},
    {"4.3.1 RSW bits are ignored", G_V | G_RWX | G_AD | 0x300, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_OK, G_AD},
    {"4.4.1 N is reserved without Svnapot", G_V | G_RWX | G_AD | UINT64_C(1) << 63, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.4.1 PBMT=1 is reserved without Svpbmt", G_V | G_RWX | G_AD | UINT64_C(1) << 61, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.4.1 PBMT=2 is reserved without Svpbmt", G_V | G_RWX | G_AD | UINT64_C(1) << 62, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.4.1 bit 54 is reserved", G_V | G_RWX | G_AD | UINT64_C(1) << 54, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.4.1 bit 60 is reserved", G_V | G_RWX | G_AD | UINT64_C(1) << 60, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_PAGE_FAULT, G_AD},
    {"4.3.1 G alone changes nothing for one space", G_V | G_RWX | G_AD | G_G, SHADOW_S, SHADOW_LOAD, 0, 0, SHADOW_OK, G_AD},
};
/* clang-format on */

static void leaf_rules_hold_at_every_level(void **state)
{
    (void)state;
    const uint64_t va = UINT64_C(0x2340000000) + 88 * PAGE_BYTES;
    for (unsigned levels = 3; levels <= 4; levels++)
        for (unsigned level = 0; level < 2; level++)
            for (size_t i = 0; i < sizeof leaf_rules / sizeof *leaf_rules; i++) {
                const struct rule *r = &leaf_rules[i];
                struct test_guest g;
                test_guest_open(&g, 1024, 64, levels);
                test_guest_map(&g, va, level ? 512 : DATA_PPN, level, r->flags);
                shadow_set_satp(g.shadow, test_guest_satp(&g, g.root, 1));
                shadow_set_priv(g.shadow, r->priv);
                /* Twice: the second time the entry may be there already. */
                for (int time = 0; time < 2; time++) {
                    struct shadow_reply reply;
                    enum shadow_result got = test_guest_access(&g, g.shadow, va + 0x123, r->access,
                                                               r->sum, r->mxr, &reply);
                    if (got != r->want)
                        fail_msg("Sv%u level %u, %s: %s, wanted %s", levels == 3 ? 39 : 48, level,
                                 r->name, result_names[got], result_names[r->want]);
                    uint64_t after = *test_guest_pte(&g, g.root, va, level);
                    if (after != ((test_guest_leaf(level ? 512 : DATA_PPN, r->flags) & ~G_AD) |
                                  r->flags_after))
                        fail_msg("%s: PTE is %#llx", r->name, (unsigned long long)after);
                    if (got == SHADOW_OK) {
                        assert_int_equal(reply.ppn, DATA_PPN);
                        assert_int_equal(reply.pa, RAM_BASE_PA + DATA_PPN * PAGE_BYTES + 0x123);
                        assert_ptr_equal(reply.host, pmap_host(g.pmap, DATA_PPN) + 0x123);
                    }
                }
                test_guest_check_fenced(&g);
                test_guest_close(&g);
            }
}

/* ---- the walk itself, rules that are not about the leaf's own bits ---- */

#define VA UINT64_C(0x40201000) /* index 1 at every level below the root's */

static struct test_guest guest;

static int open_sv39(void **state)
{
    (void)state;
    test_guest_open(&guest, 1024, 128, 3);
    shadow_set_satp(guest.shadow, test_guest_satp(&guest, guest.root, 1));
    return 0;
}

static int open_sv48(void **state)
{
    (void)state;
    test_guest_open(&guest, 1024, 128, 4);
    shadow_set_satp(guest.shadow, test_guest_satp(&guest, guest.root, 1));
    return 0;
}

static int close_guest(void **state)
{
    (void)state;
    test_guest_check_fenced(&guest);
    test_guest_close(&guest);
    return 0;
}

static enum shadow_result load(uint64_t va, struct shadow_reply *reply)
{
    return test_guest_access(&guest, guest.shadow, va, SHADOW_LOAD, false, false, reply);
}

static void expect(const char *rule, uint64_t va, enum shadow_result want)
{
    struct shadow_reply reply;
    enum shadow_result got = load(va, &reply);
    if (got != want)
        fail_msg("%s: va %#llx gives %s, wanted %s", rule, (unsigned long long)va,
                 result_names[got], result_names[want]);
}

static void addresses_must_be_canonical(void **state)
{
    (void)state;
    unsigned top = guest.levels == 3 ? 38 : 47;
    uint64_t highest = (UINT64_C(1) << top) - PAGE_BYTES, lowest_negative = UINT64_MAX << top;
    test_guest_map(&guest, highest, DATA_PPN, 0, G_V | G_RWX);
    test_guest_map(&guest, lowest_negative, DATA_PPN, 0, G_V | G_RWX);
    const char *rule = "4.4.1, 4.5.1: bits above the top one must equal it";
    expect(rule, highest, SHADOW_OK);
    expect(rule, lowest_negative, SHADOW_OK);
    expect(rule, highest + PAGE_BYTES, SHADOW_PAGE_FAULT);
    for (unsigned bit = top + 1; bit < 64; bit++) {
        expect(rule, highest | UINT64_C(1) << bit, SHADOW_PAGE_FAULT);
        expect(rule, lowest_negative & ~(UINT64_C(1) << bit), SHADOW_PAGE_FAULT);
    }
}

static void a_superpage_must_be_aligned(void **state)
{
    (void)state;
    for (unsigned level = 1; level < guest.levels; level++) {
        uint64_t va = (uint64_t)level << (12 + 9 * level);
        for (unsigned bit = 0; bit < 9 * level; bit++) {
            *test_guest_pte(&guest, guest.root, va, level) =
                UINT64_C(1) << bit << 10 | G_V | G_RWX | G_AD;
            expect("4.3.2 step 6: misaligned superpage", va, SHADOW_PAGE_FAULT);
        }
        *test_guest_pte(&guest, guest.root, va, level) =
            UINT64_C(1) << (9 * level) << 10 | G_V | G_RWX | G_AD;
        /* lies outside RAM, so it shows as a device access */
        expect("4.3.2 step 6: aligned superpage", va, SHADOW_MMIO);
    }
}

static void a_superpage_maps_every_page_in_it(void **state)
{
    (void)state;
    test_guest_map(&guest, VA & ~UINT64_C(0x1fffff), 512, 1, G_V | G_RWX);
    for (unsigned i = 0; i < 64; i++) {
        struct shadow_reply reply;
        uint64_t va = (VA & ~UINT64_C(0x1fffff)) + i * PAGE_BYTES * 5 + i;
        assert_int_equal(load(va, &reply), SHADOW_OK);
        assert_int_equal(reply.ppn, 512 + i * 5);
    }
    /* a gigapage over the start of RAM: what lies behind RAM's end is not RAM */
    test_guest_map(&guest, UINT64_C(0x80000000), 0, 2, G_V | G_RWX);
    struct shadow_reply reply;
    assert_int_equal(load(UINT64_C(0x80000000) + 1023 * PAGE_BYTES, &reply), SHADOW_OK);
    assert_int_equal(reply.ppn, 1023);
    assert_int_equal(load(UINT64_C(0x80000000) + 1024 * PAGE_BYTES, &reply), SHADOW_MMIO);
    assert_int_equal(reply.pa, RAM_BASE_PA + 1024 * PAGE_BYTES);
}

static void pointers_have_reserved_bits(void **state)
{
    (void)state;
    for (unsigned level = 1; level < guest.levels; level++) {
        test_guest_map(&guest, VA, DATA_PPN, 0, G_V | G_RWX);
        uint64_t *pointer = test_guest_pte(&guest, guest.root, VA, level);
        uint64_t good = *pointer;
        static const struct {
            uint64_t bits;
            enum shadow_result want;
        } cases[] = {{G_A, SHADOW_PAGE_FAULT},
                     {G_D, SHADOW_PAGE_FAULT},
                     {G_U, SHADOW_PAGE_FAULT},
                     {UINT64_C(1) << 63, SHADOW_PAGE_FAULT},
                     {UINT64_C(1) << 61, SHADOW_PAGE_FAULT},
                     {UINT64_C(1) << 55, SHADOW_PAGE_FAULT},
                     {G_W, SHADOW_PAGE_FAULT},
                     {G_G, SHADOW_OK},
                     {0x300, SHADOW_OK}};
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            *pointer = good | cases[i].bits;
            shadow_fence(guest.shadow, false, 0, false, 0);
            expect("4.3.1: D, A, U and bits 63-54 are reserved in a pointer", VA, cases[i].want);
        }
        *pointer = good & ~G_V;
        shadow_fence(guest.shadow, false, 0, false, 0);
        expect("4.3.2 step 3: V=0 in a pointer", VA, SHADOW_PAGE_FAULT);
        *pointer = good;
    }
}

static void a_pointer_at_the_last_level_faults(void **state)
{
    (void)state;
    test_guest_map(&guest, VA, DATA_PPN, 0, G_V);
    expect("4.3.2 step 4: i < 0", VA, SHADOW_PAGE_FAULT);
}

static void tables_that_loop_end_in_a_fault(void **state)
{
    (void)state;
    uint64_t *root = test_guest_pte(&guest, guest.root, 0, guest.levels - 1);
    for (unsigned i = 0; i < 512; i++)
        root[i] = test_guest_leaf(guest.root, G_V);
    for (uint64_t va = 0; va < UINT64_C(1) << 38; va += UINT64_C(0x1357913000))
        expect("4.3.2: a root that names itself", va, SHADOW_PAGE_FAULT);
}

static void tables_outside_ram_give_an_access_fault(void **state)
{
    (void)state;
    static const uint64_t pages[] = {0,       0x10000,     0x7ffff,
                                     0x80400, 0xfffffffff, (UINT64_C(1) << 44) - 1};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        for (unsigned level = 1; level < guest.levels; level++) {
            test_guest_map(&guest, VA, DATA_PPN, 0, G_V | G_RWX);
            uint64_t *pointer = test_guest_pte(&guest, guest.root, VA, level);
            uint64_t good = *pointer;
            *pointer = pages[i] << 10 | G_V;
            expect("4.3.2 step 2: PMA violation on the table", VA, SHADOW_ACCESS_FAULT);
            *pointer = good;
        }
        shadow_set_satp(guest.shadow, (uint64_t)(guest.levels == 3 ? 8 : 9) << 60 | pages[i]);
        expect("4.3.2 step 2: PMA violation on the root", VA, SHADOW_ACCESS_FAULT);
        shadow_set_satp(guest.shadow, test_guest_satp(&guest, guest.root, 1));
    }
}

static void a_leaf_outside_ram_is_a_device_access(void **state)
{
    (void)state;
    static const uint64_t pages[] = {0, 0x10000, 0x7ffff, 0x80400, (UINT64_C(1) << 44) - 1};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        uint64_t *pte = test_guest_pte(&guest, guest.root, VA, 0);
        *pte = pages[i] << 10 | G_V | G_RWX;
        struct shadow_reply reply;
        assert_int_equal(
            test_guest_access(&guest, guest.shadow, VA + 8, SHADOW_STORE, false, false, &reply),
            SHADOW_MMIO);
        assert_true(reply.pa == pages[i] * PAGE_BYTES + 8);
        assert_true(*pte == (pages[i] << 10 | G_V | G_RWX | G_AD)); /* step 7 comes first */
    }
}

static void resolve_once(enum shadow_access access, enum shadow_result want, ppn_t want_ppn)
{
    struct shadow_reply reply;
    enum shadow_result got = shadow_resolve(guest.shadow, VA, access, false, false, &reply);
    if (got != want || reply.ppn != want_ppn)
        fail_msg("%s of ppn %#x, wanted %s of ppn %#x", result_names[got], reply.ppn,
                 result_names[want], want_ppn);
}

/* The page of tables that holds VA's leaf. */
static ppn_t leaf_table(void)
{
    uint64_t pointer = *test_guest_pte(&guest, guest.root, VA, 1);
    return (ppn_t)((pointer >> 10) - (RAM_BASE_PA >> PAGE_SHIFT));
}

static void a_table_that_is_paged_out_is_wanted_back(void **state)
{
    (void)state;
    test_guest_map(&guest, VA, DATA_PPN, 0, G_V | G_RWX | G_AD);
    ppn_t table = leaf_table();
    test_guest_make_resident(&guest, DATA_PPN);
    test_guest_take_away(&guest, table, PAGE_EV_OUT_DONE);
    resolve_once(SHADOW_LOAD, SHADOW_NEED_RESIDENT, table);
    test_guest_take_away(&guest, guest.root, PAGE_EV_OUT_DONE);
    resolve_once(SHADOW_LOAD, SHADOW_NEED_RESIDENT, guest.root);
    test_guest_make_resident(&guest, guest.root);
    test_guest_make_resident(&guest, table);
    resolve_once(SHADOW_LOAD, SHADOW_OK, DATA_PPN);
}

static void the_accessed_page_is_wanted_only_when_the_access_is_allowed(void **state)
{
    (void)state;
    test_guest_map(&guest, VA, DATA_PPN, 0, G_V | G_R);
    resolve_once(SHADOW_LOAD, SHADOW_NEED_RESIDENT, DATA_PPN);
    assert_int_equal(test_guest_access(&guest, guest.shadow, VA, SHADOW_STORE, false, false,
                                       &(struct shadow_reply){0}),
                     SHADOW_PAGE_FAULT);
    assert_int_equal(pmap_state(guest.pmap, DATA_PPN), PAGE_ABSENT);
}

static void d_is_exact(void **state)
{
    (void)state;
    test_guest_map(&guest, VA, DATA_PPN, 0, G_V | G_RWX);
    const uint64_t *pte = test_guest_pte(&guest, guest.root, VA, 0);
    /* 4.3.1: a store that cannot be carried out yet leaves the PTE alone */
    resolve_once(SHADOW_STORE, SHADOW_NEED_WRITABLE, DATA_PPN);
    assert_true(*pte == test_guest_leaf(DATA_PPN, G_V | G_RWX));
    test_guest_make_writable(&guest, DATA_PPN);
    shadow_code_added(guest.pmap, DATA_PPN);
    resolve_once(SHADOW_STORE, SHADOW_CODE_PAGE, DATA_PPN);
    assert_true(*pte == test_guest_leaf(DATA_PPN, G_V | G_RWX));
    shadow_code_dropped(guest.pmap, DATA_PPN);
    resolve_once(SHADOW_STORE, SHADOW_OK, DATA_PPN);
    assert_true(*pte == test_guest_leaf(DATA_PPN, G_V | G_RWX | G_AD));
}

static void a_load_gives_no_store_permission_while_d_is_clear(void **state)
{
    (void)state;
    test_guest_map(&guest, VA, DATA_PPN, 0, G_V | G_RWX);
    struct shadow_reply reply;
    assert_int_equal(load(VA, &reply), SHADOW_OK);
    const struct shadow_view *view = shadow_view(guest.shadow);
    assert_ptr_equal(shadow_load_ptr(view, VA, 8), reply.host);
    assert_null(shadow_store_ptr(view, VA, 8));
    resolve_once(SHADOW_STORE, SHADOW_OK, DATA_PPN);
    assert_ptr_equal(shadow_store_ptr(view, VA, 8), reply.host);
    assert_ptr_equal(shadow_load_ptr(view, VA, 8), reply.host);
}

static void setting_a_is_a_store_to_the_table(void **state)
{
    (void)state;
    test_guest_map(&guest, VA, DATA_PPN, 0, G_V | G_RWX);
    ppn_t table = leaf_table();
    test_guest_make_resident(&guest, DATA_PPN);
    /* the table shared: it must be private first */
    test_guest_share(&guest, table);
    resolve_once(SHADOW_LOAD, SHADOW_NEED_WRITABLE, table);
    test_guest_make_writable(&guest, table);
    /* the table being written to swap: the store cancels that */
    pmap_move(guest.pmap, table, PAGE_EV_OUT_START, 0, 1);
    resolve_once(SHADOW_LOAD, SHADOW_NEED_WRITABLE, table);
    pmap_move(guest.pmap, table, PAGE_EV_OUT_CANCEL, 0, 0);
    /* the table holds decoded code */
    shadow_code_added(guest.pmap, table);
    resolve_once(SHADOW_LOAD, SHADOW_CODE_PAGE, table);
    shadow_code_dropped(guest.pmap, table);
    resolve_once(SHADOW_LOAD, SHADOW_OK, DATA_PPN);
}

static void nothing_to_set_needs_no_writable_table(void **state)
{
    (void)state;
    test_guest_map(&guest, VA, DATA_PPN, 0, G_V | G_RWX | G_AD);
    ppn_t table = leaf_table();
    test_guest_make_resident(&guest, DATA_PPN);
    test_guest_share(&guest, table);
    shadow_code_added(guest.pmap, table);
    resolve_once(SHADOW_STORE, SHADOW_OK, DATA_PPN);
    assert_int_equal(pmap_state(guest.pmap, table), PAGE_SHARED);
}

static void a_page_not_private_is_mapped_for_loads_only(void **state)
{
    (void)state;
    test_guest_map(&guest, VA, DATA_PPN, 0, G_V | G_RWX | G_AD);
    test_guest_make_resident(&guest, DATA_PPN);
    const struct shadow_view *view = shadow_view(guest.shadow);

    test_guest_share(&guest, DATA_PPN);
    resolve_once(SHADOW_LOAD, SHADOW_OK, DATA_PPN);
    assert_non_null(shadow_load_ptr(view, VA, 4));
    assert_null(shadow_store_ptr(view, VA, 4));
    resolve_once(SHADOW_STORE, SHADOW_NEED_WRITABLE, DATA_PPN);

    test_guest_make_writable(&guest, DATA_PPN);
    pmap_move(guest.pmap, DATA_PPN, PAGE_EV_OUT_START, 0, 7);
    resolve_once(SHADOW_LOAD, SHADOW_OK, DATA_PPN);
    assert_null(shadow_store_ptr(view, VA, 4));
    resolve_once(SHADOW_STORE, SHADOW_NEED_WRITABLE, DATA_PPN);
    pmap_move(guest.pmap, DATA_PPN, PAGE_EV_OUT_CANCEL, 0, 0);
    resolve_once(SHADOW_STORE, SHADOW_OK, DATA_PPN);
}

static void bare_mode_translates_nothing(void **state)
{
    (void)state;
    shadow_set_satp(guest.shadow, 0);
    struct shadow_reply reply;
    for (int priv = SHADOW_U; priv <= SHADOW_S; priv++) {
        shadow_set_priv(guest.shadow, (enum shadow_priv)priv);
        for (int access = SHADOW_FETCH; access <= SHADOW_STORE; access++) {
            uint64_t va = RAM_BASE_PA + 3 * PAGE_BYTES + 16;
            assert_int_equal(test_guest_access(&guest, guest.shadow, va, (enum shadow_access)access,
                                               false, false, &reply),
                             SHADOW_OK);
            assert_int_equal(reply.ppn, 3);
            assert_true(reply.pa == va);
            assert_ptr_equal(shadow_load_ptr(shadow_view(guest.shadow), va, 8), reply.host);
        }
    }
    assert_int_equal(load(UINT64_C(0x10000000), &reply), SHADOW_MMIO);
    assert_int_equal(load(RAM_BASE_PA - 1, &reply), SHADOW_MMIO);
    assert_int_equal(load(RAM_BASE_PA + 1024 * PAGE_BYTES, &reply), SHADOW_MMIO);
    assert_int_equal(load(UINT64_C(1) << 56, &reply), SHADOW_ACCESS_FAULT); /* PA is 56 bits */
}

static void sum_reaches_user_pages_without_a_new_walk(void **state)
{
    (void)state;
    test_guest_map(&guest, VA, DATA_PPN, 0, G_V | G_R | G_W | G_U);
    struct shadow_reply reply;
    shadow_set_priv(guest.shadow, SHADOW_S);
    assert_int_equal(test_guest_access(&guest, guest.shadow, VA, SHADOW_STORE, true, false, &reply),
                     SHADOW_OK);
    struct shadow_counts before, after;
    shadow_read_counts(guest.shadow, &before);
    for (int i = 0; i < 10; i++)
        assert_int_equal(shadow_resolve(guest.shadow, VA + 24, i & 1 ? SHADOW_LOAD : SHADOW_STORE,
                                        true, false, &reply),
                         SHADOW_OK);
    shadow_read_counts(guest.shadow, &after);
    assert_int_equal(after.walks, before.walks);
    const struct shadow_view *view = shadow_view(guest.shadow);
    assert_null(shadow_load_ptr(view, VA, 8));
    assert_ptr_equal(shadow_sum_load_ptr(view, VA + 24, 8), reply.host);
    assert_ptr_equal(shadow_sum_store_ptr(view, VA + 24, 8), reply.host);
    assert_int_equal(load(VA, &reply), SHADOW_PAGE_FAULT); /* SUM clear again */
}

static void sum_never_lends_a_user_pages_code(void **state)
{
    (void)state;
    test_guest_map(&guest, VA, DATA_PPN, 0, G_V | G_RWX | G_U);
    struct shadow_reply reply;
    shadow_set_priv(guest.shadow, SHADOW_U);
    assert_int_equal(
        test_guest_access(&guest, guest.shadow, VA, SHADOW_FETCH, false, false, &reply), SHADOW_OK);
    shadow_set_priv(guest.shadow, SHADOW_S); /* the entry is there, for U mode */
    assert_int_equal(test_guest_access(&guest, guest.shadow, VA, SHADOW_FETCH, true, false, &reply),
                     SHADOW_PAGE_FAULT);
}

static void misaligned_look_ups_miss(void **state)
{
    (void)state;
    test_guest_map(&guest, VA, DATA_PPN, 0, G_V | G_RWX);
    resolve_once(SHADOW_STORE, SHADOW_NEED_WRITABLE, DATA_PPN);
    test_guest_make_writable(&guest, DATA_PPN);
    resolve_once(SHADOW_STORE, SHADOW_OK, DATA_PPN);
    const struct shadow_view *view = shadow_view(guest.shadow);
    for (unsigned size = 1; size <= 8; size *= 2)
        for (unsigned offset = 0; offset < 16; offset++) {
            assert_int_equal(shadow_load_ptr(view, VA + offset, size) != NULL, offset % size == 0);
            assert_int_equal(shadow_store_ptr(view, VA + offset, size) != NULL, offset % size == 0);
        }
}

#define BOTH_MODES(f)                                                                              \
    {"Sv39 " #f, f, open_sv39, close_guest, NULL},                                                 \
    {                                                                                              \
        "Sv48 " #f, f, open_sv48, close_guest, NULL                                                \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaf_rules_hold_at_every_level),
        BOTH_MODES(addresses_must_be_canonical),
        BOTH_MODES(a_superpage_must_be_aligned),
        BOTH_MODES(a_superpage_maps_every_page_in_it),
        BOTH_MODES(pointers_have_reserved_bits),
        BOTH_MODES(a_pointer_at_the_last_level_faults),
        BOTH_MODES(tables_that_loop_end_in_a_fault),
        BOTH_MODES(tables_outside_ram_give_an_access_fault),
        BOTH_MODES(a_leaf_outside_ram_is_a_device_access),
        BOTH_MODES(a_table_that_is_paged_out_is_wanted_back),
        BOTH_MODES(the_accessed_page_is_wanted_only_when_the_access_is_allowed),
        BOTH_MODES(d_is_exact),
        BOTH_MODES(a_load_gives_no_store_permission_while_d_is_clear),
        BOTH_MODES(setting_a_is_a_store_to_the_table),
        BOTH_MODES(nothing_to_set_needs_no_writable_table),
        BOTH_MODES(a_page_not_private_is_mapped_for_loads_only),
        BOTH_MODES(bare_mode_translates_nothing),
        BOTH_MODES(sum_reaches_user_pages_without_a_new_walk),
        BOTH_MODES(sum_never_lends_a_user_pages_code),
        BOTH_MODES(misaligned_look_ups_miss),
    };
    return cmocka_run_group_tests_name("guest page-table walk", tests, NULL, NULL);
}
