/*
 * Errors are values. A function that can fail takes a struct err *, fills it
 * with what was tried, on which VM, page or file, and why, and returns -1 (or
 * NULL); callers add context with err_prefix and carry it up to the one place
 * that reports it.
 */
#ifndef BALLAST_ERR_H
#define BALLAST_ERR_H

struct err {
    int errnum; /* errno value, or 0 where none applies */
    char text[508];
};

/* Fill e (may be NULL); ": strerror(errnum)" is appended when errnum != 0. Returns -1. */
int err_set(struct err *e, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "prefix: " before e's text. Returns -1. */
int err_prefix(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__ /* which sees one file at a time: both always return -1 */
/* clang-format off */
#define err_set(...)    ({ (void)(err_set)(__VA_ARGS__); -1; })
#define err_prefix(...) ({ (void)(err_prefix)(__VA_ARGS__); -1; })
/* clang-format on */
#endif

#endif
