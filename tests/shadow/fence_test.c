/*
 * Address spaces and fences (privileged manual 4.1.11 satp, 4.2.1 SFENCE.VMA):
 * what survives a satp write, what each kind of fence must take out, and what
 * it leaves so that Linux need not fill it again.
 */
#include "shadow-pt/shadow_impl.h"
#include "tests/shadow/guest_tables.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <string.h>

#define USER_VA   UINT64_C(0x10000)
#define USER_VA_2 UINT64_C(0x25000)
#define KERNEL_VA UINT64_C(0xffffffc000003000)
#define HUGE_VA   UINT64_C(0x40000000) /* a 2 MiB leaf */
#define GIANT_VA  UINT64_C(0x80000000) /* a 1 GiB leaf */
#define DATA_PPN  600u

static struct test_guest guest;

static void map_usual(void)
{
    test_guest_map(&guest, USER_VA, DATA_PPN, 0, G_V | G_R | G_W);
    test_guest_map(&guest, USER_VA_2, DATA_PPN + 1, 0, G_V | G_R | G_W);
    test_guest_map(&guest, KERNEL_VA, DATA_PPN + 2, 0, G_V | G_R | G_W | G_G);
    test_guest_map(&guest, HUGE_VA, 512, 1, G_V | G_R | G_W);
    test_guest_map(&guest, GIANT_VA, 0, 2, G_V | G_R | G_W);
}

static int open_guest(void **state)
{
    (void)state;
    test_guest_open(&guest, 1024, 200, 3);
    map_usual();
    return 0;
}

static int close_guest(void **state)
{
    (void)state;
    test_guest_check(&guest);
    test_guest_close(&guest);
    return 0;
}

static void use_space(uint16_t asid)
{
    shadow_set_satp(guest.shadow, test_guest_satp(&guest, guest.root, asid));
}

static void touch(uint64_t va)
{
    struct shadow_reply reply;
    assert_int_equal(test_guest_access(&guest, guest.shadow, va, SHADOW_LOAD, false, false, &reply),
                     SHADOW_OK);
}

static bool hits(uint64_t va)
{
    return shadow_load_ptr(shadow_view(guest.shadow), va, 8) != NULL;
}

static uint64_t live(void)
{
    struct shadow_counts counts;
    shadow_read_counts(guest.shadow, &counts);
    return counts.mappings_live;
}

static void a_satp_write_flushes_nothing(void **state)
{
    (void)state;
    use_space(1);
    touch(USER_VA);
    use_space(2);
    assert_false(hits(USER_VA)); /* ASID 2 has not been there */
    touch(USER_VA_2);
    shadow_set_satp(guest.shadow, 0);
    assert_false(hits(USER_VA));
    use_space(1);
    assert_true(hits(USER_VA));
    assert_false(hits(USER_VA_2));
    use_space(2);
    assert_true(hits(USER_VA_2));
}

static void two_roots_under_one_asid_never_meet(void **state)
{
    (void)state;
    use_space(1);
    touch(USER_VA);
    ppn_t other_root = test_guest_new_table(&guest);
    *test_guest_pte(&guest, other_root, USER_VA, 0) = test_guest_leaf(700, G_V | G_R);
    shadow_set_satp(guest.shadow, test_guest_satp(&guest, other_root, 1));
    struct shadow_reply reply;
    assert_int_equal(
        test_guest_access(&guest, guest.shadow, USER_VA, SHADOW_LOAD, false, false, &reply),
        SHADOW_OK);
    assert_int_equal(reply.ppn, 700);
    /* one fence for the ASID reaches both */
    shadow_fence(guest.shadow, false, 0, true, 1);
    assert_int_equal(live(), 0);
}

/* Which of the touched pages still hit, by space, after one fence from space 1. */
struct fence_case {
    const char *rule;
    bool va_given, asid_given;
    uint64_t va;
    uint16_t asid;
    /* hits left: ASID 1: user, user 2, kernel; ASID 2: user, user 2, kernel */
    const char *left;
};

static const struct fence_case fence_cases[] = {
    {"4.2.1 rs1=x0, rs2=x0: all, globals too", false, false, 0, 0, "--- ---"},
    {"4.2.1 rs1=x0, rs2: the ASID's, but for globals", false, true, 0, 1, "--k uvk"},
    {"4.2.1 rs1=x0, rs2: another ASID", false, true, 0, 2, "uvk --k"},
    {"4.2.1 rs1=x0, rs2: an ASID nobody uses", false, true, 0, 77, "uvk uvk"},
    {"4.2.1 rs1, rs2=x0: the page in all spaces", true, false, USER_VA, 0, "-vk -vk"},
    {"4.2.1 rs1, rs2=x0: low bits of the address do not matter", true, false, USER_VA + 0xfff, 0,
     "-vk -vk"},
    {"4.2.1 rs1, rs2=x0: a global page in all spaces", true, false, KERNEL_VA, 0, "uv- uv-"},
    {"4.2.1 rs1, rs2: the page in that ASID", true, true, USER_VA, 1, "-vk uvk"},
    {"4.2.1 rs1, rs2: a global page may stay", true, true, KERNEL_VA, 1, "uvk uvk"},
    {"4.2.1 rs1: a page that shares the slot stays", true, false, USER_VA + (SHADOW_ENTRIES << 12),
     0, "uvk uvk"},
    {"4.2.1 rs1 not a valid address: no effect", true, false, USER_VA | UINT64_C(1) << 60, 0,
     "uvk uvk"},
};

static void fences_take_what_they_must_and_no_more(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof fence_cases / sizeof *fence_cases; i++) {
        const struct fence_case *c = &fence_cases[i];
        open_guest(NULL);
        for (uint16_t asid = 2; asid >= 1; asid--) {
            use_space(asid);
            touch(USER_VA);
            touch(USER_VA_2);
            touch(KERNEL_VA);
        }
        shadow_fence(guest.shadow, c->va_given, c->va, c->asid_given, c->asid);
        char left[8] = "--- ---";
        for (uint16_t asid = 1; asid <= 2; asid++) {
            char *to = left + 4 * (asid - 1);
            use_space(asid);
            to[0] = hits(USER_VA) ? 'u' : '-';
            to[1] = hits(USER_VA_2) ? 'v' : '-';
            to[2] = hits(KERNEL_VA) ? 'k' : '-';
        }
        if (strcmp(left, c->left) != 0)
            fail_msg("%s: left %s, wanted %s", c->rule, left, c->left);
        close_guest(NULL);
    }
}

static void one_fence_drops_every_piece_of_a_superpage(void **state)
{
    (void)state;
    static const struct {
        uint64_t base, fence_at;
        unsigned pieces_apart;
    } cases[] = {{HUGE_VA, HUGE_VA + 0x1ff000, 7}, {GIANT_VA, GIANT_VA + 0x3ffff000, 17}};
    for (size_t i = 0; i < 2; i++) {
        use_space(1);
        touch(USER_VA);
        for (unsigned n = 0; n < 20; n++)
            touch(cases[i].base + n * cases[i].pieces_apart * PAGE_BYTES);
        shadow_fence(guest.shadow, true, cases[i].fence_at, i == 1, 1);
        for (unsigned n = 0; n < 20; n++)
            assert_false(hits(cases[i].base + n * cases[i].pieces_apart * PAGE_BYTES));
        assert_true(hits(USER_VA));
        test_guest_check_fenced(&guest);
    }
}

static void a_changed_leaf_is_seen_after_its_fence(void **state)
{
    (void)state;
    use_space(1);
    struct shadow_reply reply;
    for (unsigned n = 0; n < 32; n++) {
        test_guest_map(&guest, USER_VA, DATA_PPN + n, 0, G_V | G_R | G_W);
        shadow_fence(guest.shadow, true, USER_VA, n & 1, 1);
        assert_int_equal(
            test_guest_access(&guest, guest.shadow, USER_VA, SHADOW_STORE, false, false, &reply),
            SHADOW_OK);
        assert_int_equal(reply.ppn, DATA_PPN + n);
        test_guest_check_fenced(&guest);
    }
}

static void an_invalid_pte_is_never_remembered(void **state)
{
    (void)state;
    /* what lets the device tree promise Svvptc */
    use_space(1);
    struct shadow_reply reply;
    uint64_t *pte = test_guest_pte(&guest, guest.root, USER_VA, 0), good = *pte;
    *pte = 0;
    assert_int_equal(shadow_resolve(guest.shadow, USER_VA, SHADOW_LOAD, false, false, &reply),
                     SHADOW_PAGE_FAULT);
    *pte = good;
    touch(USER_VA); /* no fence in between */
}

static void the_space_unused_for_longest_is_recycled(void **state)
{
    (void)state;
    struct shadow_counts counts;
    /* The shadow was made in Bare mode, which took one. */
    for (uint16_t asid = 1; asid < SPACES; asid++) {
        use_space(asid);
        touch(USER_VA);
    }
    use_space(1); /* 2 is the oldest now, but for Bare */
    shadow_read_counts(guest.shadow, &counts);
    assert_int_equal(counts.space_recycles, 0);
    shadow_set_satp(guest.shadow, 0);
    use_space(1000);
    assert_false(hits(USER_VA));
    shadow_read_counts(guest.shadow, &counts);
    assert_int_equal(counts.space_recycles, 1);
    for (uint16_t asid = 1; asid < SPACES; asid++) {
        if (asid == 2)
            continue;
        use_space(asid);
        assert_true(hits(USER_VA));
    }
    use_space(2);
    assert_false(hits(USER_VA));
}

static void fences_leave_bare_mode_alone(void **state)
{
    (void)state;
    shadow_set_satp(guest.shadow, 0);
    touch(RAM_BASE_PA);
    shadow_fence(guest.shadow, false, 0, false, 0);
    shadow_fence(guest.shadow, false, 0, true, 0);
    assert_true(hits(RAM_BASE_PA));
}

static void sv39_and_sv48_do_not_mix(void **state)
{
    (void)state;
    test_guest_close(&guest);
    test_guest_open(&guest, 1024, 200, 4);
    map_usual();
    use_space(1);
    touch(USER_VA);
    guest.levels = 3; /* the same root read as Sv39: index 0 leads to tables of another level */
    use_space(1);
    assert_false(hits(USER_VA));
    guest.levels = 4;
    use_space(1);
    assert_true(hits(USER_VA));
}

static void g_in_a_pointer_makes_all_below_it_global(void **state)
{
    (void)state;
    /* 4.3.1: "for non-leaf PTEs, the global setting implies that all mappings in the subsequent
     * levels of the page table are global" */
    *test_guest_pte(&guest, guest.root, USER_VA, 1) |= G_G;
    use_space(1);
    touch(USER_VA);
    touch(HUGE_VA);
    shadow_fence(guest.shadow, false, 0, true, 1);
    assert_true(hits(USER_VA));
    assert_false(hits(HUGE_VA));
}

static void an_entry_remade_without_a_fence_belongs_to_its_new_leaf(void **state)
{
    (void)state;
    use_space(1);
    uint64_t va = HUGE_VA + UINT64_C(0x200000) + 88 * PAGE_BYTES;
    test_guest_map(&guest, va, DATA_PPN, 0, G_V | G_R | G_W);
    touch(va);
    /* the same page by a superpage now, and an entry widened by a store: its leaf is the new one */
    test_guest_map(&guest, va, 512, 1, G_V | G_R | G_W);
    struct shadow_reply reply;
    assert_int_equal(
        test_guest_access(&guest, guest.shadow, va, SHADOW_STORE, false, false, &reply), SHADOW_OK);
    assert_int_equal(reply.ppn, DATA_PPN);
    test_guest_check_fenced(&guest);
    shadow_fence(guest.shadow, true, va + PAGE_BYTES, false, 0);
    assert_false(hits(va));
}

static void a_fence_is_for_one_hart(void **state)
{
    (void)state;
    struct shadow *second = shadow_new(guest.pmap);
    assert_non_null(second);
    use_space(1);
    touch(USER_VA);
    shadow_set_satp(second, test_guest_satp(&guest, guest.root, 1));
    struct shadow_reply reply;
    assert_int_equal(test_guest_access(&guest, second, USER_VA, SHADOW_LOAD, false, false, &reply),
                     SHADOW_OK);
    shadow_fence(second, false, 0, false, 0);
    assert_null(shadow_load_ptr(shadow_view(second), USER_VA, 8));
    assert_true(hits(USER_VA));
    shadow_free(second);
    test_guest_check_fenced(&guest);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_guest, close_guest)
    const struct CMUnitTest tests[] = {
        TEST(a_satp_write_flushes_nothing),
        TEST(two_roots_under_one_asid_never_meet),
        cmocka_unit_test(fences_take_what_they_must_and_no_more),
        TEST(one_fence_drops_every_piece_of_a_superpage),
        TEST(a_changed_leaf_is_seen_after_its_fence),
        TEST(an_invalid_pte_is_never_remembered),
        TEST(the_space_unused_for_longest_is_recycled),
        TEST(fences_leave_bare_mode_alone),
        TEST(sv39_and_sv48_do_not_mix),
        TEST(g_in_a_pointer_makes_all_below_it_global),
        TEST(an_entry_remade_without_a_fence_belongs_to_its_new_leaf),
        TEST(a_fence_is_for_one_hart),
    };
    return cmocka_run_group_tests_name("spaces and fences", tests, NULL, NULL);
}
