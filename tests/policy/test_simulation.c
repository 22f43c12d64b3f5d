/*
 * Policy in the long run: it settles, does not flap, and starves no one. The
 * first scenarios are those of the first-light experiment: a machine of 320 MiB
 * and two guests of 256 MiB.
 */
#include "tests/policy/simulated_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static bool loud;

static void tell(struct simulated_host *sim, const char *when)
{
    if (!loud)
        return;
    print_message(
        "%s at %llu s: state %s, free %llu MiB, changes %llu, steps %llu/%llu/%llu/%llu\n", when,
        (unsigned long long)sim->now_ms / 1000, host_state_name(sim->host.state->host),
        (unsigned long long)sim_free_pages(sim) / MIB_PAGES, (unsigned long long)sim->state_changes,
        (unsigned long long)sim->steps_in[0], (unsigned long long)sim->steps_in[1],
        (unsigned long long)sim->steps_in[2], (unsigned long long)sim->steps_in[3]);
    for (size_t i = 0; i < sim->host.count; i++) {
        const struct sim_vm *vm = &sim->vms[i];
        print_message("  %zu: target %llu used %llu freed %llu balloon %llu/%llu paged %llu; "
                      "waited %llu, longest %llu; out %llu in %llu MiB; turns %llu\n",
                      i, (unsigned long long)sim->host.targets[i].target_pages / MIB_PAGES,
                      (unsigned long long)vm->used_pages / MIB_PAGES,
                      (unsigned long long)vm->freed_pages / MIB_PAGES,
                      (unsigned long long)vm->balloon_pages / MIB_PAGES,
                      (unsigned long long)vm->ordered_pages / MIB_PAGES,
                      (unsigned long long)vm->paged_pages / MIB_PAGES,
                      (unsigned long long)vm->wait_steps,
                      (unsigned long long)vm->longest_wait_steps,
                      (unsigned long long)vm->paged_out_total_pages / MIB_PAGES,
                      (unsigned long long)vm->paged_in_total_pages / MIB_PAGES,
                      (unsigned long long)vm->balloon_turns);
    }
}

/* Nothing moves any more: one state, no balloon order, no paging, for a minute. */
static void assert_at_rest(struct simulated_host *sim)
{
    uint64_t orders[ROUND_MOST_VMS];
    sim_reset_counts(sim);
    for (size_t i = 0; i < sim->host.count; i++)
        orders[i] = sim->vms[i].ordered_pages;
    sim_run(sim, 60);
    tell(sim, "rest");
    assert_int_equal(sim->host.state->host, HOST_HIGH);
    assert_int_equal(sim->state_changes, 0);
    for (size_t i = 0; i < sim->host.count; i++) {
        assert_int_equal(sim->vms[i].paged_out_total_pages, 0);
        assert_int_equal(sim->vms[i].wait_steps, 0);
        assert_in_range(sim->vms[i].ordered_pages, orders[i] > 256 ? orders[i] - 256 : 0,
                        orders[i] + 256);
    }
}

/* A full and idle, B small: what first-light looks like before its first phase. */
static void open_first_light(struct simulated_host *sim, struct sim_vm **a, struct sim_vm **b)
{
    sim_open(sim, "proportional", 320);
    *a = sim_add(sim, 256, 64, 245);
    *b = sim_add(sim, 256, 64, 30);
    sim_run(sim, 60);
    tell(sim, "start");
    assert_in_range((*a)->used_pages, 230 * MIB_PAGES, 245 * MIB_PAGES);
    assert_int_equal((*b)->used_pages, 30 * MIB_PAGES);
}

static void memory_moves_from_an_idle_guest_through_its_balloon(void **unused)
{
    (void)unused;
    struct simulated_host sim;
    struct sim_vm *a, *b;
    open_first_light(&sim, &a, &b);
    sim_reset_counts(&sim);
    b->want_pages = 140 * MIB_PAGES;
    sim_run(&sim, 20);
    tell(&sim, "phase 1");
    assert_int_equal(b->used_pages, 140 * MIB_PAGES);
    assert_true(a->balloon_pages > 70 * MIB_PAGES);
    assert_true(a->paged_out_total_pages < 18 * MIB_PAGES);
    assert_true(b->longest_wait_steps * SIM_STEP_MS <= 1000);
    assert_at_rest(&sim);
    sim_close(&sim);
}

static void a_guest_without_a_driver_is_paged_out_instead(void **unused)
{
    (void)unused;
    struct simulated_host sim;
    struct sim_vm *a, *b;
    open_first_light(&sim, &a, &b);
    b->want_pages = 100 * MIB_PAGES;
    sim_run(&sim, 30);
    sim_unload_driver(&sim, a);
    sim_run(&sim, 30); /* A fills what it got back; B needs more again */
    b->want_pages = 140 * MIB_PAGES;
    sim_reset_counts(&sim);
    sim_run(&sim, 20);
    tell(&sim, "phase 2");
    assert_int_equal(b->used_pages, 140 * MIB_PAGES);
    assert_int_equal(b->paged_out_total_pages, 0);
    assert_true(a->paged_pages > 60 * MIB_PAGES);
    assert_true(b->longest_wait_steps * SIM_STEP_MS <= 1000);
    assert_at_rest(&sim);

    /* A reads everything back: it gets its share and no more, and B keeps what it has. */
    a->touch_pages = MIB_PAGES;
    sim_reset_counts(&sim);
    sim_run(&sim, 120);
    tell(&sim, "read back");
    assert_int_equal(b->used_pages + b->paged_pages, 140 * MIB_PAGES);
    assert_true(b->paged_out_total_pages < MIB_PAGES);
    assert_true(a->paged_in_total_pages > 100 * MIB_PAGES);
    assert_true(sim_allocated_pages(a) >= 130 * MIB_PAGES);
    assert_int_equal(sim.steps_in[HOST_LOW], 0);
    sim_close(&sim);
}

static void a_stuck_balloon_does_not_hold_up_the_host(void **unused)
{
    (void)unused;
    struct simulated_host sim;
    struct sim_vm *a, *b;
    open_first_light(&sim, &a, &b);
    a->driver = SIM_DRIVER_STUCK;
    sim_reset_counts(&sim);
    b->want_pages = 140 * MIB_PAGES;
    b->grow_pages = MIB_PAGES / 4; /* slowly, so that the host need not go hard */
    sim_run(&sim, 60);
    tell(&sim, "stuck");
    assert_int_equal(b->used_pages, 140 * MIB_PAGES);
    assert_true(a->paged_pages > 60 * MIB_PAGES);
    assert_at_rest(&sim);
    sim_close(&sim);
}

static void a_faster_neighbour_than_any_reclaim_waits_but_not_for_long(void **unused)
{
    (void)unused;
    struct simulated_host sim;
    struct sim_vm *a, *b;
    open_first_light(&sim, &a, &b);
    a->balloon_speed_pages = MIB_PAGES / 2; /* 10 MiB/s */
    b->grow_pages = 20 * MIB_PAGES;         /* 400 MiB/s */
    b->want_pages = 140 * MIB_PAGES;
    sim_reset_counts(&sim);
    sim_run(&sim, 30);
    tell(&sim, "burst");
    assert_int_equal(b->used_pages, 140 * MIB_PAGES);
    assert_true(b->longest_wait_steps * SIM_STEP_MS <= 2000);
    assert_at_rest(&sim);
    sim_close(&sim);
}

static void memory_goes_back_when_the_neighbour_is_done(void **unused)
{
    (void)unused;
    struct simulated_host sim;
    struct sim_vm *a, *b;
    open_first_light(&sim, &a, &b);
    b->reports_free_pages = true;
    b->want_pages = 140 * MIB_PAGES;
    sim_run(&sim, 30);
    b->want_pages = 20 * MIB_PAGES;
    sim_run(&sim, 180);
    tell(&sim, "given back");
    /* all but B's min of 64 MiB */
    assert_in_range(a->used_pages + a->paged_pages, 225 * MIB_PAGES, 245 * MIB_PAGES);
    assert_at_rest(&sim);
    sim_close(&sim);
}

static void more_shares_move_memory_even_when_the_host_is_high(void **unused)
{
    (void)unused;
    struct simulated_host sim;
    sim_open(&sim, "proportional", 320);
    struct sim_vm *a = sim_add(&sim, 256, 32, 250);
    struct sim_vm *b = sim_add(&sim, 256, 32, 250);
    sim_run(&sim, 60);
    tell(&sim, "equal");
    assert_in_range(a->used_pages, 140 * MIB_PAGES, 150 * MIB_PAGES);
    assert_in_range(b->used_pages, 140 * MIB_PAGES, 150 * MIB_PAGES);
    assert_at_rest(&sim);
    sim.host.vms[1].shares *= 3;
    sim_run(&sim, 60);
    tell(&sim, "1 : 3");
    assert_in_range(a->used_pages, 70 * MIB_PAGES, 100 * MIB_PAGES);
    assert_in_range(b->used_pages, 195 * MIB_PAGES, 225 * MIB_PAGES);
    assert_at_rest(&sim);
    sim_close(&sim);
}

static void a_neighbour_that_breathes_does_not_make_balloons_flap(void **unused)
{
    (void)unused;
    struct simulated_host sim;
    struct sim_vm *a, *b;
    open_first_light(&sim, &a, &b);
    b->reports_free_pages = true;
    sim_reset_counts(&sim);
    for (int breath = 0; breath < 20; breath++) { /* five seconds up, five seconds down */
        b->want_pages = 130 * MIB_PAGES;
        sim_run(&sim, 5);
        b->want_pages = 40 * MIB_PAGES;
        sim_run(&sim, 5);
    }
    tell(&sim, "breath");
    assert_true(a->balloon_turns <= 20);
    assert_true(sim.state_changes <= 40);
    assert_true(b->longest_wait_steps * SIM_STEP_MS <= 1000);
    sim_close(&sim);
}

/* Eight guests with demands that jump at random, some without drivers, one stuck. */
static void random_demands_starve_no_one(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct simulated_host sim;
        sim_open(&sim, "proportional", 1024);
        sim.random = seed;
        for (int i = 0; i < 8; i++) {
            struct sim_vm *vm = sim_add(&sim, 256, 48, 60);
            vm->driver = i < 5 ? SIM_DRIVER_WORKS : i < 7 ? SIM_DRIVER_NONE : SIM_DRIVER_STUCK;
            vm->reports_free_pages = i % 2;
            vm->touch_pages = 64;
        }
        for (int i = 0; i < 120; i++) {
            sim.vms[sim_random(&sim, 8)].want_pages = (20 + sim_random(&sim, 225)) * MIB_PAGES;
            sim_run(&sim, 5);
        }
        tell(&sim, "random");
        for (int i = 0; i < 8; i++) {
            assert_true(sim.vms[i].longest_wait_steps * SIM_STEP_MS <= 5000);
            assert_true(sim.vms[i].wait_steps * SIM_STEP_MS <= 60000);
            assert_true(sim.vms[i].driver != SIM_DRIVER_WORKS || sim.vms[i].balloon_turns <= 12);
        }
        uint64_t steps = 600 * 1000 / SIM_STEP_MS;
        assert_true(sim.steps_in[HOST_LOW] < steps / 50);
        assert_true(sim.steps_in[HOST_HIGH] > steps / 2);
        sim_close(&sim);
    }
}

/* `static` overcommits by paging alone, and only as far as it must. */
static void static_keeps_a_host_alive_by_paging(void **unused)
{
    (void)unused;
    struct simulated_host sim;
    sim_open(&sim, "static", 320);
    struct sim_vm *a = sim_add(&sim, 256, 64, 245);
    struct sim_vm *b = sim_add(&sim, 256, 64, 140);
    sim_run(&sim, 120);
    tell(&sim, "static");
    assert_int_equal(a->balloon_pages + b->balloon_pages, 0);
    assert_int_equal(b->used_pages + b->paged_pages, 140 * MIB_PAGES);
    assert_true(a->paged_pages + b->paged_pages < 100 * MIB_PAGES);
    sim_reset_counts(&sim);
    sim_run(&sim, 60);
    assert_int_equal(sim.state_changes, 0);
    assert_int_equal(a->paged_out_total_pages + b->paged_out_total_pages, 0);
    sim_close(&sim);
}

int main(int argc, char **argv)
{
    loud = argc > 1 && argv[1][0] == '-' && argv[1][1] == 'v';
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_moves_from_an_idle_guest_through_its_balloon),
        cmocka_unit_test(a_guest_without_a_driver_is_paged_out_instead),
        cmocka_unit_test(a_stuck_balloon_does_not_hold_up_the_host),
        cmocka_unit_test(a_faster_neighbour_than_any_reclaim_waits_but_not_for_long),
        cmocka_unit_test(memory_goes_back_when_the_neighbour_is_done),
        cmocka_unit_test(more_shares_move_memory_even_when_the_host_is_high),
        cmocka_unit_test(a_neighbour_that_breathes_does_not_make_balloons_flap),
        cmocka_unit_test(random_demands_starve_no_one),
        cmocka_unit_test(static_keeps_a_host_alive_by_paging),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
