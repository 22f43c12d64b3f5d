/* What is written without a tree of values reads like what jansson writes. */
#include "daemon/rpc/json_text.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_written(struct json_text *text, const char *expected)
{
    assert_false(text->failed);
    assert_int_equal(text->length, strlen(expected));
    assert_memory_equal(text->bytes, expected, text->length);
    json_text_begin(text);
}

static void counts_are_whole_and_bounded(void **unused)
{
    (void)unused;
    struct json_text text = {0};
    char expected[32];
    for (uint64_t power = 1; power <= UINT64_C(1000000000000000000); power *= 10)
        for (uint64_t near = power - 1; near <= power + 1; near++) {
            snprintf(expected, sizeof expected, "%llu", (unsigned long long)near);
            json_text_count(&text, near);
            assert_written(&text, expected);
        }
    json_text_count(&text, INT64_MAX);
    assert_written(&text, "9223372036854775807");
    json_text_count(&text, UINT64_MAX);
    assert_written(&text, "9223372036854775807");
    json_text_free(&text);
}

static void strings_come_back_whatever_is_in_them(void **unused)
{
    (void)unused;
    static const struct {
        const char *string, *read;
    } cases[] = {
        {"", ""},
        {"web-1", "web-1"},
        {"say \"no\"\\", "say \"no\"\\"},
        {"two\nlines\x01\x7f", "two\nlines\x01\x7f"},
        {"Gr\xc3\xbc\xc3\x9f"
         "e",
         "Gr\xc3\xbc\xc3\x9f"
         "e"},
        {"\xff\xfe cut \xc3", "?? cut ?"},
    };
    struct json_text text = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_text_begin(&text);
        json_text_string(&text, cases[i].string);
        json_t *value = json_loadb(text.bytes, text.length, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        assert_string_equal(json_string_value(value), cases[i].read);
        json_decref(value);
    }
    json_text_free(&text);
}

static void reals_keep_their_point_and_are_finite(void **unused)
{
    (void)unused;
    struct json_text text = {0};
    json_text_real(&text, 6);
    assert_written(&text, "6.0");
    json_text_real(&text, 0.25);
    assert_written(&text, "0.25");
    json_text_real(&text, NAN);
    assert_written(&text, "null");
    json_text_real(&text, INFINITY);
    assert_written(&text, "null");
    json_text_free(&text);
}

static void it_grows_and_is_used_again(void **unused)
{
    (void)unused;
    struct json_text text = {0};
    for (int round = 0; round < 2; round++) {
        json_text_begin(&text);
        for (int i = 0; i < 100000; i++)
            json_text_raw(&text, "abc", 3);
        assert_int_equal(text.length, 300000);
        assert_memory_equal(text.bytes + 299997, "abc", 3);
    }
    json_text_free(&text);
    assert_null(text.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_whole_and_bounded),
        cmocka_unit_test(strings_come_back_whatever_is_in_them),
        cmocka_unit_test(reals_keep_their_point_and_are_finite),
        cmocka_unit_test(it_grows_and_is_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
