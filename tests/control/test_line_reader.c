/* Framing: lines out of bytes, however they are cut, and never more than the bound. */
#include "daemon/rpc/line_reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void put(struct line_reader *reader, const char *bytes, size_t length)
{
    while (length > 0) {
        size_t room_bytes;
        char *room = line_reader_room(reader, &room_bytes);
        assert_non_null(room);
        assert_true(room_bytes > 0);
        size_t part = length < room_bytes ? length : room_bytes;
        memcpy(room, bytes, part);
        line_reader_took(reader, part);
        bytes += part;
        length -= part;
        if (length > 0) { /* the reader is full: only an unfinished line can be in it */
            const char *line;
            size_t line_length;
            enum line_result result;
            while ((result = line_reader_next(reader, &line, &line_length)) != LINE_NONE)
                assert_int_equal(result, LINE_TOO_LONG);
        }
    }
}

static void assert_line(struct line_reader *reader, const char *expected)
{
    const char *line;
    size_t length;
    assert_int_equal(line_reader_next(reader, &line, &length), LINE_READY);
    assert_int_equal(length, strlen(expected));
    assert_memory_equal(line, expected, length);
}

static void assert_none(struct line_reader *reader)
{
    const char *line;
    size_t length;
    assert_int_equal(line_reader_next(reader, &line, &length), LINE_NONE);
}

static void lines_come_out_however_bytes_came_in(void **unused)
{
    (void)unused;
    static const char bytes[] = "one\n\ntwo words\nlast\nrest";
    for (size_t cut = 1; cut < sizeof bytes; cut++) {
        static const char *const expected[] = {"one", "", "two words", "last"};
        struct line_reader reader;
        size_t seen = 0;
        line_reader_init(&reader, 100);
        for (size_t at = 0; at < sizeof bytes - 1; at += cut) {
            size_t part = sizeof bytes - 1 - at < cut ? sizeof bytes - 1 - at : cut;
            const char *line;
            size_t length;
            put(&reader, bytes + at, part);
            while (line_reader_next(&reader, &line, &length) == LINE_READY) {
                assert_int_equal(length, strlen(expected[seen]));
                assert_memory_equal(line, expected[seen], length);
                seen++;
            }
        }
        assert_int_equal(seen, 4);
        assert_true(line_reader_has_rest(&reader));
        line_reader_free(&reader);
    }
}

static void a_line_at_the_bound_passes_and_one_beyond_is_skipped(void **unused)
{
    (void)unused;
    struct line_reader reader;
    const char *line;
    size_t length;
    line_reader_init(&reader, 8);
    put(&reader, "12345678\n123456789\nok\n", 22);
    assert_line(&reader, "12345678");
    assert_int_equal(line_reader_next(&reader, &line, &length), LINE_TOO_LONG);
    assert_line(&reader, "ok");
    assert_none(&reader);
    assert_false(line_reader_has_rest(&reader));
    line_reader_free(&reader);
}

static void an_endless_line_is_told_once_and_costs_its_bound(void **unused)
{
    (void)unused;
    struct line_reader reader;
    const char *line;
    size_t length, told = 0;
    char block[1000];
    memset(block, 'x', sizeof block);
    line_reader_init(&reader, 5000);
    for (int i = 0; i < 10000; i++) {
        put(&reader, block, sizeof block);
        enum line_result result;
        while ((result = line_reader_next(&reader, &line, &length)) != LINE_NONE) {
            assert_int_equal(result, LINE_TOO_LONG);
            told++;
        }
        assert_true(reader.capacity <= 64u << 10);
    }
    assert_int_equal(told, 1);
    put(&reader, "\nnext\n", 6);
    assert_line(&reader, "next");
    line_reader_free(&reader);
}

static void bytes_of_any_value_pass(void **unused)
{
    (void)unused;
    struct line_reader reader;
    const char *line;
    size_t length;
    char bytes[256];
    size_t used = 0;
    for (int value = 0; value < 256; value++)
        if (value != '\n')
            bytes[used++] = (char)value;
    bytes[used] = '\n';
    line_reader_init(&reader, 300);
    put(&reader, bytes, used + 1);
    assert_int_equal(line_reader_next(&reader, &line, &length), LINE_READY);
    assert_int_equal(length, 255);
    assert_memory_equal(line, bytes, 255);
    line_reader_free(&reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_out_however_bytes_came_in),
        cmocka_unit_test(a_line_at_the_bound_passes_and_one_beyond_is_skipped),
        cmocka_unit_test(an_endless_line_is_told_once_and_costs_its_bound),
        cmocka_unit_test(bytes_of_any_value_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
