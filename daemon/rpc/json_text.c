#include "daemon/rpc/json_text.h"

#include "daemon/rpc/session.h" /* rpc_text */

#include <stdlib.h>
#include <string.h>

#define FIRST_BYTES  ((size_t)4096)
#define COUNT_DIGITS 19 /* of INT64_MAX */

void json_text_begin(struct json_text *text)
{
    text->length = 0;
    text->failed = false;
}

void json_text_free(struct json_text *text)
{
    free(text->bytes);
    *text = (struct json_text){0};
}

/* Room for so many more bytes; false: failed. */
static bool grow(struct json_text *text, size_t bytes)
{
    size_t capacity = text->capacity ? text->capacity : FIRST_BYTES;
    while (capacity - text->length < bytes)
        capacity *= 2;
    char *grown = realloc(text->bytes, capacity);
    if (!grown) {
        text->failed = true;
        return false;
    }
    text->bytes = grown;
    text->capacity = capacity;
    return true;
}

static inline bool has_room(struct json_text *text, size_t bytes)
{
    if (text->failed)
        return false;
    return text->capacity - text->length >= bytes || grow(text, bytes);
}

void json_text_raw(struct json_text *text, const char *bytes, size_t length)
{
    if (!has_room(text, length))
        return;
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

void json_text_count(struct json_text *text, uint64_t value)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";
    char digits[COUNT_DIGITS + 1], *first = digits + sizeof digits;
    if (value > INT64_MAX)
        value = INT64_MAX;
    for (; value >= 10; value /= 100) {
        first -= 2;
        memcpy(first, pairs + value % 100 * 2, 2);
    }
    if (value > 0 || first == digits + sizeof digits)
        *--first = (char)('0' + value);
    /* An odd number of digits was written as pairs: the first may be a zero that is not wanted. */
    if (*first == '0' && first + 1 < digits + sizeof digits)
        first++;
    json_text_raw(text, first, (size_t)(digits + sizeof digits - first));
}

/* A scalar as jansson writes it (taken over; NULL: null). */
static void put_value(struct json_text *text, json_t *value)
{
    char *dump = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    if (dump)
        json_text_raw(text, dump, strlen(dump));
    else
        json_text_raw(text, "null", 4);
    free(dump);
    json_decref(value);
}

void json_text_real(struct json_text *text, double value)
{
    put_value(text, json_real(value));
}

void json_text_string(struct json_text *text, const char *string)
{
    size_t length = 0;
    for (; string[length]; length++) {
        unsigned char c = (unsigned char)string[length];
        if (c < ' ' || c >= 0x7f || c == '"' || c == '\\') {
            put_value(text, rpc_text(string));
            return;
        }
    }
    json_text_raw(text, "\"", 1);
    json_text_raw(text, string, length);
    json_text_raw(text, "\"", 1);
}
