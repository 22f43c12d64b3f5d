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
                    enum shadow_result got =
                        test_guest_access(&g, g.shadow, va + 0x123, r->access, r->sum, r->mxr, &reply);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaf_rules_hold_at_every_level),
    };
    return cmocka_run_group_tests_name("guest page-table walk", tests, NULL, NULL);
}
