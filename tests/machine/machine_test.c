/*
 * A whole machine with a bare-metal guest: how it ends, sleeps, keeps time, is
 * paused, checked and quit. argv[1] is the guest's image.
 */
#include "tests/machine/tiny_guest.h"
#include "tests/machine/tiny_supervisor.h"
#include "vmm-core/clock.h"
#include "vmm-core/machine.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static const char *guest_image;

struct bench {
    struct tiny_supervisor supervisor;
    struct machine *machine;
    char kernel[64];
    int in[2], out[2]; /* pipes to and from the UART */
    pthread_t hart;
    enum machine_end end;
    _Atomic bool ended;
};

static void write_kernel(struct bench *b, enum tiny_guest_scenario scenario)
{
    uint8_t image[65536];
    FILE *from = fopen(guest_image, "rb");
    assert_non_null(from);
    size_t len = fread(image, 1, sizeof image, from);
    fclose(from);
    assert_true(len > 64);
    image[TINY_GUEST_SCENARIO] = (uint8_t)scenario;
    snprintf(b->kernel, sizeof b->kernel, "/tmp/ballast-machine-test.%d", (int)getpid());
    FILE *to = fopen(b->kernel, "wb");
    assert_non_null(to);
    assert_int_equal(fwrite(image, 1, len, to), len);
    fclose(to);
}

static void *hart_main(void *argument)
{
    struct bench *b = argument;
    b->end = machine_run(b->machine);
    b->ended = true;
    return NULL;
}

/* Start a guest with 16 MiB of RAM on a host of machine_bytes. */
static void start(struct bench *b, enum tiny_guest_scenario scenario, uint64_t machine_bytes)
{
    memset(b, 0, sizeof *b);
    write_kernel(b, scenario);
    tiny_supervisor_start(&b->supervisor, TINY_GUEST_RAM_BYTES, machine_bytes);
    b->supervisor.quiet = true;
    assert_int_equal(pipe2(b->in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(b->out, O_CLOEXEC), 0);
    struct machine_config config = {
        .name = "tiny",
        .ram_bytes = TINY_GUEST_RAM_BYTES,
        .kernel = b->kernel,
        .uart = {.in_fd = b->in[0], .out_fd = b->out[1], .listen_fd = -1}};
    struct gmem_config memory = tiny_supervisor_gmem(&b->supervisor);
    struct err err;
    b->machine = machine_new(&config, &memory, &err);
    if (!b->machine || machine_dump_on_signal(b->machine, &err) || machine_load(b->machine, &err))
        fail_msg("%s", err.text);
    unlink(b->kernel);
    pthread_create(&b->hart, NULL, hart_main, b);
}

static void expect_output(struct bench *b, const char *text)
{
    char got[256];
    size_t len = strlen(text);
    for (size_t done = 0; done < len;) {
        struct pollfd ready = {.fd = b->out[0], .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 10000), 1);
        ssize_t count = read(b->out[0], got + done, len - done);
        assert_true(count > 0);
        done += (size_t)count;
    }
    assert_memory_equal(got, text, len);
}

/* Wait for the guest's end, and for last_words, which are written at the latest when the machine is
 * freed. */
static enum machine_end finish_saying(struct bench *b, const char *last_words)
{
    for (int ms = 0; ms < 20000 && !b->ended; ms++)
        usleep(1000);
    assert_true(b->ended);
    pthread_join(b->hart, NULL);
    machine_free(b->machine);
    expect_output(b, last_words);
    tiny_supervisor_stop(&b->supervisor);
    for (int i = 0; i < 2; i++) {
        close(b->in[i]);
        close(b->out[i]);
    }
    return b->end;
}

static enum machine_end finish(struct bench *b)
{
    return finish_saying(b, "");
}

static uint64_t request(struct bench *b, enum ring_type type)
{
    uint64_t value = 0;
    assert_true(tiny_supervisor_request(&b->supervisor, type, 0, 10000, &value));
    return value;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

#define HOST_BYTES (UINT64_C(32) << 20)

static void the_machine_ends_as_the_guest_asks(void **state)
{
    (void)state;
    static const struct {
        enum tiny_guest_scenario scenario;
        enum machine_end end;
    } ends[] = {
        {GUEST_SHUTDOWN, MACHINE_POWEROFF},       {GUEST_REBOOT, MACHINE_REBOOT},
        {GUEST_SHUTDOWN_FAILURE, MACHINE_FAILED}, {GUEST_FINISH, MACHINE_POWEROFF},
        {GUEST_FINISH_REBOOT, MACHINE_REBOOT},    {GUEST_FINISH_FAILURE, MACHINE_FAILED},
    };
    for (unsigned i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct bench b;
        start(&b, ends[i].scenario, HOST_BYTES);
        assert_int_equal(finish(&b), ends[i].end);
    }
}

static void the_supervisor_is_told(void **state)
{
    (void)state;
    struct bench b;
    start(&b, GUEST_SHUTDOWN, HOST_BYTES);
    for (int ms = 0; ms < 5000 && !b.supervisor.events[WORKER_POWEROFF]; ms++)
        usleep(1000);
    assert_int_equal(b.supervisor.events[WORKER_READY], 1);
    assert_int_equal(b.supervisor.events[WORKER_POWEROFF], 1);
    finish(&b);
}

static void the_debug_console_reaches_the_uart(void **state)
{
    (void)state;
    struct bench b;
    start(&b, GUEST_SAY, HOST_BYTES);
    assert_int_equal(finish_saying(&b, "hello from the guest\n"), MACHINE_POWEROFF);
}

static void the_timer_wakes_a_sleeping_hart(void **state)
{
    (void)state;
    struct bench b;
    start(&b, GUEST_TIMER, HOST_BYTES);
    assert_int_equal(finish(&b), MACHINE_POWEROFF);
}

static void input_interrupts_a_sleeping_hart(void **state)
{
    (void)state;
    struct bench b;
    start(&b, GUEST_ECHO, HOST_BYTES);
    expect_output(&b, "ready\n");
    for (int i = 0; i < 50; i++) {
        assert_int_equal(write(b.in[1], "echo", 4), 4);
        expect_output(&b, "echo");
    }
    assert_int_equal(write(b.in[1], "q", 1), 1);
    assert_int_equal(finish(&b), MACHINE_POWEROFF);
}

static void the_firmware_does_what_the_guest_asks_of_it(void **state)
{
    (void)state;
    struct bench b;
    start(&b, GUEST_FIRMWARE, HOST_BYTES);
    expect_output(&b, "ready\n");
    assert_int_equal(write(b.in[1], "typed", 5), 5);
    enum machine_end end = finish_saying(&b, "!");
    assert_int_equal(end, MACHINE_POWEROFF);
}

static void a_sleeping_guest_costs_nothing_and_can_be_paused_and_quit(void **state)
{
    (void)state;
    struct bench b;
    start(&b, GUEST_SLEEP, HOST_BYTES);
    expect_output(&b, "sleeping\n");
    double start_s = cpu_seconds();
    usleep(500000);
    assert_true(cpu_seconds() - start_s < 0.5 * 0.02); /* under 2 % of a core */
    request(&b, RING_PAUSE);
    assert_int_equal(request(&b, RING_CHECK), 0);
    request(&b, RING_RESUME);
    tiny_supervisor_send(&b.supervisor, RING_QUIT, 0);
    assert_int_equal(finish(&b), MACHINE_QUIT);
}

static void a_paused_guest_does_nothing_and_goes_on(void **state)
{
    (void)state;
    struct bench b;
    start(&b, GUEST_SPIN, HOST_BYTES);
    expect_output(&b, "spinning\n");
    struct vm_stats *stats = &b.supervisor.region->stats;
    for (int round = 0; round < 20; round++) {
        request(&b, RING_PAUSE);
        uint64_t instructions = stats->instructions;
        usleep(2000);
        assert_int_equal(stats->instructions, instructions);
        request(&b, RING_RESUME);
        for (int ms = 0; ms < 5000 && stats->instructions == instructions; ms++)
            usleep(1000);
        assert_true(stats->instructions > instructions);
    }
    request(&b, RING_PAUSE);
    tiny_supervisor_send(&b.supervisor, RING_QUIT, 0); /* while paused */
    assert_int_equal(finish(&b), MACHINE_QUIT);
}

static void guest_time_stands_still_while_paused(void **state)
{
    (void)state;
    struct bench b;
    start(&b, GUEST_CLOCK, HOST_BYTES);
    expect_output(&b, "watching\n");
    usleep(20000);
    request(&b, RING_PAUSE);
    usleep(1000000);
    request(&b, RING_RESUME);
    assert_int_equal(finish(&b), MACHINE_POWEROFF);
}

static void invariants_hold_whenever_a_busy_guest_is_paused(void **state)
{
    (void)state;
    struct bench b;
    start(&b, GUEST_TOUCH, HOST_BYTES);
    expect_output(&b, "touching\n");
    for (int round = 0; round < 30; round++) {
        request(&b, RING_PAUSE);
        assert_int_equal(request(&b, RING_CHECK), 0);
        request(&b, RING_RESUME);
        usleep(1000);
    }
    tiny_supervisor_send(&b.supervisor, RING_QUIT, 0);
    assert_int_equal(finish(&b), MACHINE_QUIT);
}

static void a_guest_that_waits_for_frames_can_be_paused_and_quit(void **state)
{
    (void)state;
    struct bench b;
    start(&b, GUEST_TOUCH, UINT64_C(4) << 20); /* a quarter of what it will touch */
    expect_output(&b, "touching\n");
    struct vm_stats *stats = &b.supervisor.region->stats;
    for (int ms = 0; ms < 5000 && stats->pages.pages_in[PAGE_PRIVATE] < 1024; ms++)
        usleep(1000);
    assert_int_equal(stats->pages.pages_in[PAGE_PRIVATE], 1024);
    usleep(10000);
    request(&b, RING_PAUSE);
    assert_int_equal(request(&b, RING_CHECK), 0);
    request(&b, RING_RESUME);
    tiny_supervisor_send(&b.supervisor, RING_QUIT, 0);
    assert_int_equal(finish(&b), MACHINE_QUIT);
}

static void a_signal_shows_what_a_sleeping_guest_is_doing(void **state)
{
    (void)state;
    struct bench b;
    char text[4096] = "";
    int kept = dup(STDERR_FILENO), shown[2];
    assert_int_equal(pipe2(shown, O_CLOEXEC), 0);
    start(&b, GUEST_SLEEP, HOST_BYTES);
    expect_output(&b, "sleeping\n");
    dup2(shown[1], STDERR_FILENO);
    kill(getpid(), SIGUSR1);
    for (size_t used = 0; used < sizeof text - 1 && !strstr(text, " a6 ");) {
        struct pollfd ready = {.fd = shown[0], .events = POLLIN};
        if (poll(&ready, 1, 5000) != 1)
            break;
        used += (size_t)read(shown[0], text + used, sizeof text - 1 - used);
    }
    dup2(kept, STDERR_FILENO);
    tiny_supervisor_send(&b.supervisor, RING_QUIT, 0);
    assert_int_equal(finish(&b), MACHINE_QUIT);
    assert_non_null(strstr(text, "machine tiny: running"));
    assert_non_null(strstr(text, "hart 0: pc 802"));
    assert_non_null(strstr(text, "private"));
    close(kept);
    close(shown[0]);
    close(shown[1]);
}

static void a_machine_is_quit_while_its_guest_is_being_loaded(void **state)
{
    (void)state;
    struct bench b = {0};
    write_kernel(&b, GUEST_SLEEP);
    tiny_supervisor_start(&b.supervisor, TINY_GUEST_RAM_BYTES, HOST_BYTES);
    b.supervisor.stingy = true; /* never a frame */
    b.supervisor.quiet = true;
    struct machine_config config = {.name = "tiny",
                                    .ram_bytes = TINY_GUEST_RAM_BYTES,
                                    .kernel = b.kernel,
                                    .uart = {-1, -1, -1}};
    struct gmem_config memory = tiny_supervisor_gmem(&b.supervisor);
    struct err err;
    b.machine = machine_new(&config, &memory, &err);
    assert_non_null(b.machine);
    tiny_supervisor_send(&b.supervisor, RING_QUIT, 0);
    assert_int_equal(machine_load(b.machine, &err), 0);
    assert_int_equal(machine_run(b.machine), MACHINE_QUIT);
    assert_int_equal(b.supervisor.events[WORKER_READY], 0);
    machine_free(b.machine);
    tiny_supervisor_stop(&b.supervisor);
    unlink(b.kernel);
}

static void impossible_configurations_are_refused(void **state)
{
    (void)state;
    struct tiny_supervisor supervisor;
    tiny_supervisor_start(&supervisor, TINY_GUEST_RAM_BYTES, HOST_BYTES);
    static const struct {
        struct machine_config config;
        const char *words;
    } mistakes[] = {
        {{.name = "x", .ram_bytes = 1 << 20, .kernel = "k"}, "memory of 1048576 bytes"},
        {{.name = "x", .ram_bytes = (16 << 20) + 4096, .kernel = "k"}, "multiple of 2 MiB"},
        {{.name = "x", .ram_bytes = 32 << 20, .kernel = "k"}, "shared region has 4096"},
        {{.name = "x", .ram_bytes = 16 << 20}, "no kernel"},
        {{.name = "x", .ram_bytes = 16 << 20, .kernel = "/does/not/exist"}, "/does/not/exist"},
        {{.name = "x", .ram_bytes = 16 << 20, .kernel = "k", .disk_count = 9}, "9 disks"},
    };
    for (unsigned i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        struct gmem_config memory = tiny_supervisor_gmem(&supervisor);
        struct err err = {0};
        assert_null(machine_new(&mistakes[i].config, &memory, &err));
        if (!strstr(err.text, mistakes[i].words))
            fail_msg("'%s' does not say '%s'", err.text, mistakes[i].words);
    }
    tiny_supervisor_stop(&supervisor);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_machine_ends_as_the_guest_asks),
        cmocka_unit_test(the_supervisor_is_told),
        cmocka_unit_test(the_debug_console_reaches_the_uart),
        cmocka_unit_test(the_timer_wakes_a_sleeping_hart),
        cmocka_unit_test(input_interrupts_a_sleeping_hart),
        cmocka_unit_test(the_firmware_does_what_the_guest_asks_of_it),
        cmocka_unit_test(a_sleeping_guest_costs_nothing_and_can_be_paused_and_quit),
        cmocka_unit_test(a_paused_guest_does_nothing_and_goes_on),
        cmocka_unit_test(guest_time_stands_still_while_paused),
        cmocka_unit_test(invariants_hold_whenever_a_busy_guest_is_paused),
        cmocka_unit_test(a_guest_that_waits_for_frames_can_be_paused_and_quit),
        cmocka_unit_test(a_signal_shows_what_a_sleeping_guest_is_doing),
        cmocka_unit_test(a_machine_is_quit_while_its_guest_is_being_loaded),
        cmocka_unit_test(impossible_configurations_are_refused),
    };
    sigset_t dump_signal; /* for the machine's descriptor, in every thread */
    sigemptyset(&dump_signal);
    sigaddset(&dump_signal, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &dump_signal, NULL);
    guest_image = argc > 1 ? argv[1] : "";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
