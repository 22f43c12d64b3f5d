/* The worker's configuration: what is accepted, what is refused and by what words. */
#include "daemon/vm_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char full[] =
    "{\"name\":\"a\",\"ram_bytes\":268435456,\"kernel\":\"/k\",\"initrd\":\"/i\","
    "\"append\":\"console=ttyS0\",\"disks\":[{\"path\":\"/d0\",\"read_only\":true},"
    "{\"path\":\"/d1\"}],\"sv48\":true,\"deflate_on_oom\":true,\"free_page_reporting\":true,"
    "\"swap_slots\":65536,\"random_seed\":9223372036854775807,"
    "\"uart\":{\"out\":true,\"listen\":true},\"virtcon\":{\"in\":true}}";

static void everything_that_is_said_arrives(void **state)
{
    (void)state;
    struct vm_config c;
    struct err err;
    if (vm_config_parse(full, strlen(full), &c, &err))
        fail_msg("%s", err.text);
    assert_string_equal(c.name, "a");
    assert_int_equal(c.ram_bytes, 256 << 20);
    assert_string_equal(c.kernel, "/k");
    assert_string_equal(c.initrd, "/i");
    assert_string_equal(c.append, "console=ttyS0");
    assert_int_equal(c.disk_count, 2);
    assert_string_equal(c.disks[0].path, "/d0");
    assert_true(c.disks[0].read_only && !c.disks[1].read_only);
    assert_true(c.sv48 && c.deflate_on_oom && c.free_page_reporting);
    assert_int_equal(c.swap_slots, 65536);
    assert_int_equal(c.random_seed, INT64_MAX);
    assert_true(c.uart.present && !c.uart.in && c.uart.out && c.uart.listen);
    assert_true(c.virtcon.present && c.virtcon.in && !c.virtcon.out);
    vm_config_free(&c);
}

static void what_is_not_said_is_off(void **state)
{
    (void)state;
    static const char text[] = "{\"name\":\"a\",\"ram_bytes\":16777216,\"kernel\":\"k\"}";
    struct vm_config c;
    assert_int_equal(vm_config_parse(text, strlen(text), &c, NULL), 0);
    assert_null(c.initrd);
    assert_null(c.append);
    assert_int_equal(c.disk_count + c.swap_slots, 0);
    assert_false(c.sv48 || c.uart.present || c.virtcon.present);
    vm_config_free(&c);
}

static void writing_and_reading_agree(void **state)
{
    (void)state;
    struct vm_config first, second;
    struct err err;
    assert_int_equal(vm_config_parse(full, strlen(full), &first, &err), 0);
    char *text = vm_config_format(&first, &err);
    assert_non_null(text);
    assert_int_equal(vm_config_parse(text, strlen(text), &second, &err), 0);
    char *again = vm_config_format(&second, &err);
    assert_string_equal(text, again);
    assert_non_null(strstr(text, "\"path\":\"/d1\""));
    free(text);
    free(again);
    vm_config_free(&first);
    vm_config_free(&second);
}

static void mistakes_are_refused_by_name(void **state)
{
    (void)state;
#define GOOD "\"name\":\"a\",\"ram_bytes\":16777216,\"kernel\":\"k\""
    static const struct {
        const char *text, *words;
    } mistakes[] = {
        {"", "line"},
        {"{" GOOD, "line"},
        {"[]", "must be a JSON object"},
        {"{" GOOD ",\"balloon\":true}", "unknown key 'balloon'"},
        {"{" GOOD ",\"Sv48\":true}", "unknown key 'Sv48'"},
        {"{" GOOD ",\"sv48\":1}", "'sv48' must be true or false"},
        {"{" GOOD ",\"name\":\"b\"}", "duplicate"},
        {"{\"name\":\"a\",\"kernel\":\"k\"}", "'ram_bytes' is missing"},
        {"{\"ram_bytes\":16777216,\"kernel\":\"k\"}", "'name' is missing"},
        {"{\"name\":1,\"ram_bytes\":16777216,\"kernel\":\"k\"}", "'name' must be a string"},
        {"{\"name\":\"a\",\"ram_bytes\":1024,\"kernel\":\"k\"}", "'ram_bytes' is 1024"},
        {"{\"name\":\"a\",\"ram_bytes\":-1,\"kernel\":\"k\"}", "'ram_bytes' is -1"},
        {"{\"name\":\"a\",\"ram_bytes\":1e9,\"kernel\":\"k\"}", "'ram_bytes' must be an integer"},
        {"{\"name\":\"a\\u0000b\",\"ram_bytes\":16777216,\"kernel\":\"k\"}", "NUL"},
        {"{" GOOD ",\"swap_slots\":4294967296}", "'swap_slots'"},
        {"{" GOOD ",\"disks\":{}}", "'disks' must be an array"},
        {"{" GOOD ",\"disks\":[1]}", "disks[0]"},
        {"{" GOOD ",\"disks\":[{\"path\":\"p\"},{}]}", "disks[1]: key 'path' is missing"},
        {"{" GOOD ",\"disks\":[{\"path\":\"p\",\"size\":1}]}", "unknown key 'size'"},
        {"{" GOOD ",\"disks\":[{\"path\":7}]}", "'path' must be a string"},
        {"{" GOOD ",\"disks\":[1,1,1,1,1,1,1,1,1]}", "at most 8"},
        {"{" GOOD ",\"uart\":true}", "'uart' must be an object"},
        {"{" GOOD ",\"uart\":{\"err\":true}}", "uart: unknown key 'err'"},
        {"{" GOOD ",\"virtcon\":{\"in\":0}}", "virtcon: key 'in' must be true or false"},
    };
    for (unsigned i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        struct vm_config c;
        struct err err = {0};
        assert_int_equal(vm_config_parse(mistakes[i].text, strlen(mistakes[i].text), &c, &err), -1);
        if (!strstr(err.text, mistakes[i].words) || !strstr(err.text, "VM configuration"))
            fail_msg("'%s' does not say '%s'", err.text, mistakes[i].words);
        assert_null(c.name);
    }
}

static void a_text_without_end_is_refused(void **state)
{
    (void)state;
    char *text = calloc(1, VM_CONFIG_MAX_BYTES + 1);
    struct vm_config c;
    struct err err;
    memset(text, ' ', VM_CONFIG_MAX_BYTES + 1);
    assert_int_equal(vm_config_parse(text, VM_CONFIG_MAX_BYTES + 1, &c, &err), -1);
    assert_non_null(strstr(err.text, "more than"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_that_is_said_arrives),
        cmocka_unit_test(what_is_not_said_is_off),
        cmocka_unit_test(writing_and_reading_agree),
        cmocka_unit_test(mistakes_are_refused_by_name),
        cmocka_unit_test(a_text_without_end_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
