/* Configuration files and options with errors; sizes as people write them. */
#include "daemon/daemon_config.h"
#include "daemon/size_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Write text to a file, read it as configuration, give the result back. */
static int read_text(struct daemon_config *config, const char *text, struct err *err)
{
    char path[] = "/tmp/ballast-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    daemon_config_default(config);
    err->text[0] = 0;
    int result = daemon_config_read(config, path, err);
    /* Tests compare with a fixed name. */
    char *at = strstr(err->text, path);
    if (at) {
        memmove(at + 4, at + strlen(path), strlen(at + strlen(path)) + 1);
        memcpy(at, "FILE", 4);
    }
    unlink(path);
    return result;
}

static void thresholds_of_watchers_are_keys(void **state)
{
    (void)state;
    struct daemon_config config;
    struct err err;
    assert_int_equal(read_text(&config,
                               "[watch]\nwatch_period_ms = 500\nwatch_flap_turns = 32\n"
                               "watch_flap_percent = 2.5\nwatch_state_ms = 0\n",
                               &err),
                     0);
    assert_int_equal(config.host.watch.period_ms, 500);
    assert_int_equal(config.host.watch.flap_turns, 32);
    assert_true(config.host.watch.flap_percent == 2.5);
    assert_int_equal(config.host.watch.state_ms, 0);
    assert_int_equal(config.host.watch.repeat_ms, 60000); /* as by default */
    assert_int_equal(daemon_config_finish(&config, &err), 0);
    daemon_config_free(&config);
    assert_int_equal(read_text(&config, "[watch]\nwatch_flap_turns = 33\n", &err), -1);
    daemon_config_free(&config);
    assert_int_equal(read_text(&config, "[watch]\nwatch_period_ms = 5\n", &err), 0);
    assert_int_equal(daemon_config_finish(&config, &err), -1);
    assert_non_null(strstr(err.text, "10 to 3600000"));
    daemon_config_free(&config);
}

static void a_good_file_is_taken(void **state)
{
    (void)state;
    struct daemon_config config;
    struct err err;
    int result = read_text(&config,
                           "; a comment\n"
                           "[host]\n"
                           "machine_memory = 320MiB\n"
                           "run_dir = /run/there\n"
                           "overhead = 8 MiB\n"
                           "[policy]\n"
                           "policy = static\n"
                           "period_ms = 500\n"
                           "balloon_ceiling_percent = 50\n"
                           "[states]\n"
                           "high = 8\n"
                           "hysteresis = 0.5\n",
                           &err);
    assert_int_equal(result, 0);
    assert_int_equal(daemon_config_finish(&config, &err), 0);
    assert_int_equal(config.host.machine_bytes, 320 << 20);
    assert_int_equal(config.host.overhead_bytes, 8 << 20);
    assert_string_equal(config.host.run_dir, "/run/there");
    assert_string_equal(config.socket, "/run/there/ballastd.sock");
    assert_string_equal(config.host.policy, "static");
    assert_int_equal(config.host.period_ms, 500);
    assert_true(config.host.settings.balloon_ceiling_percent == 50);
    assert_int_equal(config.host.settings.idle_tax_percent, 75);
    assert_true(config.host.settings.thresholds.high == 8 &&
                config.host.settings.thresholds.hysteresis == 0.5);
    daemon_config_free(&config);
}

static void errors_name_file_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"[host]\nmachine_memroy = 1GiB\n",
         "FILE:2: unknown key 'machine_memroy' in section [host]"},
        {"machine_memory = 1GiB\n", "FILE:1: key 'machine_memory' before any [section]"},
        {"[policy]\n\nmachine_memory = 1GiB\n", "FILE:3: unknown key 'machine_memory'"},
        {"[host]\nmachine_memory = lots\n", "FILE:2: machine_memory: 'lots' is not a size"},
        {"[host]\nmachine_memory = 1 MiB\n",
         "FILE:2: machine_memory: 1 MiB is not a multiple of 4 KiB "
         "between 16 MiB and 1 TiB"},
        {"[host]\nmachine_memory = 2000TiB\n", "FILE:2: machine_memory: 2000 TiB is not"},
        {"[host]\nmachine_memory = 9999999TiB\n", "larger than any machine"},
        {"[host]\nmachine_memory = -1\n", "FILE:2: machine_memory: '-1' is not a size"},
        {"[host]\nmachine_memory = 33554433\n", "not a multiple of 4 KiB"},
        {"[host]\nmachine_memory = 64MiB MiB\n", "FILE:2: machine_memory: '64MiB MiB' has no unit"},
        {"[policy]\npolicy = magic\n", "FILE:2: policy: no policy is called 'magic'"},
        {"[policy]\nperiod_ms = 5\n", "FILE:2: period_ms: 5 is not between 100 and 600000"},
        {"[policy]\nperiod_ms = -5\n", "FILE:2: period_ms: '-5' is not a whole number"},
        {"[policy]\nidle_tax_percent = 100\n",
         "FILE:2: idle_tax_percent: 100 is not between 0 and 99"},
        {"[policy]\nstall_ms = 0.5\n", "FILE:2: stall_ms: 0.5 is not a whole number"},
        {"[policy]\nslack_percent = nan\n", "FILE:2: slack_percent: 'nan' is not a number"},
        {"[states]\nslack_percent = 1\n",
         "FILE:2: unknown key 'slack_percent' in section [states]"},
        {"[sharing]\nshared_charge = half\n",
         "FILE:2: shared_charge: 'half' is none of equal, full and none"},
        {"[states]\nsliding = maybe\n", "FILE:2: sliding: 'maybe' is neither on nor off"},
        {"[policy]\nsample_pages = 2000000\n", "FILE:2: sample_pages: 2000000 is not between"},
        {"[policy]\nsample_fast_gain = 2\n", "FILE:2: sample_fast_gain: 2 is not between 0 and 1"},
        {"[states]\nhigh = nan\n", "FILE:2: high: 'nan' is not a number"},
        {"[states]\nhigh = 101\n", "FILE:2: high: 101 is not between 0 and 100"},
        {"[states]\nhysteresis = 1e3\n", "FILE:2: hysteresis: 1e3 is not between 0 and 1"},
        {"[host\nmachine_memory = 1GiB\n", "FILE:1: neither a [section] nor KEY = VALUE"},
        {"[host]\nsome words\n", "FILE:2: neither a [section] nor KEY = VALUE"},
        {"[host]\nrun_dir =\n", "FILE:2: run_dir: empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct daemon_config config;
        struct err err;
        assert_int_equal(read_text(&config, cases[i].text, &err), -1);
        if (!strstr(err.text, cases[i].says))
            fail_msg("'%s' does not say '%s'", err.text, cases[i].says);
        daemon_config_free(&config);
    }
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct daemon_config config;
    struct err err;
    daemon_config_default(&config);
    assert_int_equal(daemon_config_read(&config, "/nowhere/ballastd.conf", &err), -1);
    assert_non_null(strstr(err.text, "/nowhere/ballastd.conf: No such file"));
    assert_int_equal(daemon_config_read(&config, "/dev", &err), -1);
    assert_non_null(strstr(err.text, "/dev: Is a directory"));
    daemon_config_free(&config);
}

static void what_only_together_makes_no_sense_is_refused(void **state)
{
    (void)state;
    struct daemon_config config;
    struct err err;
    assert_int_equal(read_text(&config, "[states]\nsoft = 9\n", &err), 0);
    assert_int_equal(daemon_config_finish(&config, &err), -1);
    daemon_config_free(&config);
}

static void options_have_the_names_of_the_keys(void **state)
{
    (void)state;
    struct daemon_config config;
    struct err err;
    daemon_config_default(&config);
    assert_int_equal(daemon_config_option(&config, "machine-memory", "512MiB", &err), 1);
    assert_int_equal(config.host.machine_bytes, 512 << 20);
    assert_int_equal(daemon_config_option(&config, "machine_memory", "1GiB", &err), 1);
    assert_int_equal(daemon_config_option(&config, "machine", "1GiB", &err), 0);
    assert_int_equal(daemon_config_option(&config, "policy", NULL, &err), -1);
    assert_int_equal(daemon_config_option(&config, "period-ms", "soon", &err), -1);
    assert_non_null(strstr(err.text, "--period-ms"));
    daemon_config_free(&config);
}

static void sizes_are_read_as_people_write_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t bytes; /* -1: refused */
    } cases[] = {
        {"0", 0},
        {"4096", 4096},
        {"4k", 4096},
        {"4KiB", 4096},
        {"4 KB", 4096},
        {"256MiB", 256 << 20},
        {"1.5GiB", 3ll << 29},
        {"2T", 2ll << 40},
        {" 16M", 16 << 20},
        {"12B", 12},
        {"", -1},
        {"M", -1},
        {"-1", -1},
        {"0x10", -1},
        {"1e9", -1},
        {"inf", -1},
        {"1.2.3M", -1},
        {"1.0000001K", -1},
        {"10X", -1},
        {"10MiBs", -1},
        {"99999999999999999999999999999999999", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t bytes = 0;
        struct err err;
        int result = size_parse(cases[i].text, 1, &bytes, &err);
        if ((result < 0) != (cases[i].bytes < 0) ||
            (result == 0 && bytes != (uint64_t)cases[i].bytes))
            fail_msg("'%s' became %d, %llu", cases[i].text, result, (unsigned long long)bytes);
    }
    uint64_t bytes;
    assert_int_equal(size_parse("256", 1 << 20, &bytes, NULL), 0);
    assert_int_equal(bytes, 256 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_is_taken),
        cmocka_unit_test(thresholds_of_watchers_are_keys),
        cmocka_unit_test(errors_name_file_and_line),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(what_only_together_makes_no_sense_is_refused),
        cmocka_unit_test(options_have_the_names_of_the_keys),
        cmocka_unit_test(sizes_are_read_as_people_write_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
