/*
 * JSON written straight into bytes, for rows of statistics: thousands of numbers
 * ten times a second, where building a tree of values first would cost more than
 * all the rest. What is rare and has rules of its own (text with anything but
 * plain letters, real numbers) is left to jansson.
 *
 * A buffer that could not grow is failed, and stays so until it is begun again;
 * nothing in between needs to be checked.
 */
#ifndef BALLAST_JSON_TEXT_H
#define BALLAST_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_text { /* all zero: empty */
    char *bytes;   /* not ended by a NUL */
    size_t length, capacity;
    bool failed; /* no memory: bytes are worth nothing */
};

/* Empty it and keep its memory for what comes. */
void json_text_begin(struct json_text *text);
void json_text_free(struct json_text *text);

/* Bytes as they are: punctuation, names known to be plain. */
void json_text_raw(struct json_text *text, const char *bytes, size_t length);
/* A whole number; what JSON readers could not keep is written as INT64_MAX. */
void json_text_count(struct json_text *text, uint64_t value);
/* A real number; null when it is not finite. */
void json_text_real(struct json_text *text, double value);
/* A string with its quotes. Bytes beyond ASCII that are not UTF-8 become '?'. */
void json_text_string(struct json_text *text, const char *string);

#endif
