/* The firmware's answers, over a machine that only notes what it was asked to do. */
#include "vmm-core/machine/sbi.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define RAM_BYTES 16384u

struct noted {
    uint8_t ram[RAM_BYTES];
    char output[RAM_BYTES];
    size_t output_len, output_room;
    const char *input;
    unsigned ipis[4], fences[4], suspends, resets;
    struct sbi_fence fence;
    uint64_t deadline_ticks;
    unsigned timer_hart;
    enum sbi_reset reset;
    bool reset_failure;
};

static bool is_ram(void *ctx, uint64_t pa, size_t len)
{
    (void)ctx;
    return pa <= RAM_BYTES && len <= RAM_BYTES - pa;
}

static bool note_read(void *ctx, uint64_t pa, void *to, size_t len)
{
    assert_true(is_ram(ctx, pa, len));
    memcpy(to, ((struct noted *)ctx)->ram + pa, len);
    return true;
}

static bool note_write(void *ctx, uint64_t pa, const void *from, size_t len)
{
    assert_true(is_ram(ctx, pa, len));
    memcpy(((struct noted *)ctx)->ram + pa, from, len);
    return true;
}

static size_t note_console_write(void *ctx, const void *bytes, size_t len)
{
    struct noted *noted = ctx;
    size_t room = noted->output_room - noted->output_len;
    len = len < room ? len : room;
    memcpy(noted->output + noted->output_len, bytes, len);
    noted->output_len += len;
    return len;
}

static size_t note_console_read(void *ctx, void *bytes, size_t len)
{
    struct noted *noted = ctx;
    size_t there = strlen(noted->input);
    len = len < there ? len : there;
    memcpy(bytes, noted->input, len);
    noted->input += len;
    return len;
}

static void note_timer(void *ctx, unsigned hart, uint64_t deadline_ticks)
{
    ((struct noted *)ctx)->timer_hart = hart;
    ((struct noted *)ctx)->deadline_ticks = deadline_ticks;
}

static void note_ipi(void *ctx, unsigned hart)
{
    ((struct noted *)ctx)->ipis[hart]++;
}

static void note_fence(void *ctx, unsigned hart, const struct sbi_fence *fence)
{
    ((struct noted *)ctx)->fences[hart]++;
    ((struct noted *)ctx)->fence = *fence;
}

static void note_suspend(void *ctx, unsigned hart)
{
    (void)hart;
    ((struct noted *)ctx)->suspends++;
}

static void note_reset(void *ctx, enum sbi_reset how, bool failure)
{
    ((struct noted *)ctx)->resets++;
    ((struct noted *)ctx)->reset = how;
    ((struct noted *)ctx)->reset_failure = failure;
}

static struct noted noted;

static int setup(void **state)
{
    (void)state;
    noted = (struct noted){.output_room = RAM_BYTES, .input = ""};
    return 0;
}

/* Hart 1 of four makes a call. */
static struct sbi_reply call(uint64_t extension, uint64_t function, uint64_t a0, uint64_t a1,
                             uint64_t a2, uint64_t a3, uint64_t a4)
{
    const struct sbi_machine machine = {.ctx = &noted,
                                        .harts = 4,
                                        .read = note_read,
                                        .write = note_write,
                                        .is_ram = is_ram,
                                        .console_write = note_console_write,
                                        .console_read = note_console_read,
                                        .set_timer = note_timer,
                                        .send_ipi = note_ipi,
                                        .fence = note_fence,
                                        .suspend = note_suspend,
                                        .reset = note_reset};
    struct sbi_call made = {
        .extension = extension, .function = function, .arg = {a0, a1, a2, a3, a4, 0}};
    return sbi_serve(&machine, 1, &made);
}

#define CALL(extension, function, a0, a1) call(extension, function, a0, a1, 0, 0, 0)

static void base_names_version_and_extensions(void **state)
{
    (void)state;
    static const uint64_t offered[] = {SBI_EXT_BASE,         SBI_EXT_TIME, SBI_EXT_IPI,
                                       SBI_EXT_RFENCE,       SBI_EXT_HSM,  SBI_EXT_SRST,
                                       SBI_EXT_DEBUG_CONSOLE};
    static const uint64_t absent[] = {0,          1,          8,        0x504d55,  0x53555350,
                                      0x43505043, 0x4e41434c, 0x535441, UINT64_MAX};
    assert_int_equal(CALL(SBI_EXT_BASE, 0, 0, 0).value, 0x02000000);
    for (unsigned i = 0; i < sizeof offered / sizeof offered[0]; i++)
        assert_int_equal(CALL(SBI_EXT_BASE, 3, offered[i], 0).value, 1);
    for (unsigned i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        assert_int_equal(CALL(SBI_EXT_BASE, 3, absent[i], 0).value, 0);
        assert_int_equal(CALL(absent[i], 0, 0, 0).error, SBI_NOT_SUPPORTED);
    }
}

static void unknown_functions_of_every_extension_are_not_supported(void **state)
{
    (void)state;
    static const uint64_t ids[] = {SBI_EXT_BASE, SBI_EXT_TIME, SBI_EXT_IPI,          SBI_EXT_RFENCE,
                                   SBI_EXT_HSM,  SBI_EXT_SRST, SBI_EXT_DEBUG_CONSOLE};
    for (unsigned i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        assert_int_equal(CALL(ids[i], 99, 0, 0).error, SBI_NOT_SUPPORTED);
        assert_int_equal(CALL(ids[i], UINT64_MAX, 0, 0).error, SBI_NOT_SUPPORTED);
    }
    assert_int_equal(CALL(SBI_EXT_RFENCE, 3, 1, 0).error, SBI_NOT_SUPPORTED); /* hypervisors */
}

static void the_timer_is_the_callers(void **state)
{
    (void)state;
    assert_int_equal(CALL(SBI_EXT_TIME, 0, 12345, 0).error, SBI_SUCCESS);
    assert_int_equal(noted.deadline_ticks, 12345);
    assert_int_equal(noted.timer_hart, 1);
}

static void hart_masks_name_harts_and_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(CALL(SBI_EXT_IPI, 0, 0x3, 2).error, SBI_SUCCESS);
    assert_int_equal(noted.ipis[0] + noted.ipis[1], 0);
    assert_int_equal(noted.ipis[2] + noted.ipis[3], 2);
    assert_int_equal(CALL(SBI_EXT_IPI, 0, 0, UINT64_MAX).error, SBI_SUCCESS); /* all */
    assert_int_equal(noted.ipis[0], 1);
    assert_int_equal(CALL(SBI_EXT_IPI, 0, 0x10, 0).error, SBI_INVALID_PARAM);
    assert_int_equal(CALL(SBI_EXT_IPI, 0, 0x4, 2).error, SBI_INVALID_PARAM);
    assert_int_equal(CALL(SBI_EXT_IPI, 0, 1, 4).error, SBI_INVALID_PARAM);
    assert_int_equal(CALL(SBI_EXT_IPI, 0, 1, 64).error, SBI_INVALID_PARAM);
    assert_int_equal(CALL(SBI_EXT_IPI, 0, UINT64_C(1) << 63, 1).error, SBI_INVALID_PARAM);
    assert_int_equal(noted.ipis[0] + noted.ipis[1] + noted.ipis[2] + noted.ipis[3], 6);
}

static void remote_fences_reach_the_harts_named_with_their_range(void **state)
{
    (void)state;
    assert_int_equal(call(SBI_EXT_RFENCE, 1, 1, 0, 0x1000, 0x3000, 0).error, SBI_SUCCESS);
    assert_int_equal(noted.fences[0], 1);
    assert_int_equal(noted.fences[1], 0);
    assert_false(noted.fence.all || noted.fence.asid_given);
    assert_int_equal(noted.fence.start, 0x1000);
    assert_int_equal(noted.fence.size, 0x3000);
    assert_int_equal(call(SBI_EXT_RFENCE, 2, 0, UINT64_MAX, 0, UINT64_MAX, 7).error, SBI_SUCCESS);
    assert_true(noted.fence.all && noted.fence.asid_given);
    assert_int_equal(noted.fence.asid, 7);
    assert_int_equal(call(SBI_EXT_RFENCE, 1, 1, 0, 0, 0, 0).error, SBI_SUCCESS);
    assert_true(noted.fence.all);
    assert_int_equal(call(SBI_EXT_RFENCE, 1, 1, 0, UINT64_MAX - 1, 0x1000, 0).error,
                     SBI_INVALID_ADDRESS);
    assert_int_equal(CALL(SBI_EXT_RFENCE, 0, 0xf, 0).error, SBI_SUCCESS);
    assert_int_equal(CALL(SBI_EXT_RFENCE, 0, 0x1f, 0).error, SBI_INVALID_PARAM);
}

static void hart_states_are_reported(void **state)
{
    (void)state;
    assert_int_equal(CALL(SBI_EXT_HSM, 2, 3, 0).value, 0);
    assert_int_equal(CALL(SBI_EXT_HSM, 2, 3, 0).error, SBI_SUCCESS);
    assert_int_equal(CALL(SBI_EXT_HSM, 2, 4, 0).error, SBI_INVALID_PARAM);
    assert_int_equal(CALL(SBI_EXT_HSM, 0, 1, 0x1000).error, SBI_ALREADY_AVAILABLE);
    assert_int_equal(CALL(SBI_EXT_HSM, 0, 9, 0x1000).error, SBI_INVALID_PARAM);
    assert_int_equal(CALL(SBI_EXT_HSM, 1, 0, 0).error, SBI_FAILED);
    assert_int_equal(CALL(SBI_EXT_HSM, 3, 0, 0).error, SBI_SUCCESS);
    assert_int_equal(noted.suspends, 1);
    assert_int_equal(CALL(SBI_EXT_HSM, 3, 0x80000000, 0).error, SBI_NOT_SUPPORTED);
}

static void resets_end_the_machine_as_asked(void **state)
{
    (void)state;
    assert_int_equal(CALL(SBI_EXT_SRST, 0, 0, 0).error, SBI_SUCCESS);
    assert_int_equal(noted.reset, SBI_RESET_SHUTDOWN);
    assert_false(noted.reset_failure);
    CALL(SBI_EXT_SRST, 0, 1, 0);
    assert_int_equal(noted.reset, SBI_RESET_REBOOT);
    CALL(SBI_EXT_SRST, 0, 2, 1);
    assert_int_equal(noted.reset, SBI_RESET_REBOOT);
    assert_true(noted.reset_failure);
    assert_int_equal(CALL(SBI_EXT_SRST, 0, 3, 0).error, SBI_INVALID_PARAM);
    assert_int_equal(CALL(SBI_EXT_SRST, 0, 0, 2).error, SBI_INVALID_PARAM);
    assert_int_equal(noted.resets, 3);
}

static void the_debug_console_writes_what_memory_holds(void **state)
{
    (void)state;
    for (unsigned i = 0; i < RAM_BYTES; i++)
        noted.ram[i] = (uint8_t)(i * 3);
    assert_int_equal(CALL(SBI_EXT_DEBUG_CONSOLE, 0, 1000, 100).value, 1000);
    assert_memory_equal(noted.output, noted.ram + 100, 1000);
    /* A long write is answered short: the caller goes on from there. */
    assert_int_equal(CALL(SBI_EXT_DEBUG_CONSOLE, 0, RAM_BYTES, 0).value, 4096);
    noted.output_len = 0;
    noted.output_room = 300;
    assert_int_equal(CALL(SBI_EXT_DEBUG_CONSOLE, 0, 1000, 0).value, 300);
    assert_int_equal(CALL(SBI_EXT_DEBUG_CONSOLE, 0, 1000, 0).value, 0);
    assert_int_equal(CALL(SBI_EXT_DEBUG_CONSOLE, 2, 'x', 0).error, SBI_FAILED);
    noted.output_room = 301;
    assert_int_equal(CALL(SBI_EXT_DEBUG_CONSOLE, 2, 'x', 0).error, SBI_SUCCESS);
    assert_int_equal(noted.output[300], 'x');
}

static void the_debug_console_refuses_memory_that_is_not_there(void **state)
{
    (void)state;
    for (uint64_t function = 0; function < 2; function++) {
        assert_int_equal(CALL(SBI_EXT_DEBUG_CONSOLE, function, 1, RAM_BYTES).error,
                         SBI_INVALID_PARAM);
        assert_int_equal(CALL(SBI_EXT_DEBUG_CONSOLE, function, UINT64_MAX, 0).error,
                         SBI_INVALID_PARAM);
        assert_int_equal(CALL(SBI_EXT_DEBUG_CONSOLE, function, 2, UINT64_MAX).error,
                         SBI_INVALID_PARAM);
        assert_int_equal(call(SBI_EXT_DEBUG_CONSOLE, function, 1, 0, 1, 0, 0).error,
                         SBI_INVALID_PARAM);
    }
    assert_int_equal(noted.output_len, 0);
}

static void the_debug_console_reads_what_was_typed(void **state)
{
    (void)state;
    noted.input = "typed";
    assert_int_equal(CALL(SBI_EXT_DEBUG_CONSOLE, 1, 100, 50).value, 5);
    assert_memory_equal(noted.ram + 50, "typed", 6);
    assert_int_equal(CALL(SBI_EXT_DEBUG_CONSOLE, 1, 100, 50).value, 0);
}

#define T(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(base_names_version_and_extensions),
        T(unknown_functions_of_every_extension_are_not_supported),
        T(the_timer_is_the_callers),
        T(hart_masks_name_harts_and_nothing_else),
        T(remote_fences_reach_the_harts_named_with_their_range),
        T(hart_states_are_reported),
        T(resets_end_the_machine_as_asked),
        T(the_debug_console_writes_what_memory_holds),
        T(the_debug_console_refuses_memory_that_is_not_there),
        T(the_debug_console_reads_what_was_typed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
