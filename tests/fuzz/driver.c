/*
 * Runs a fuzz target without libFuzzer, so that every build tests it: each file
 * of the corpus as it is, then inputs made by changing corpus files and from
 * nothing. Input number n depends on the seed, n and the corpus alone: a crash
 * names its number, and --only repeats it.
 *
 *   TARGET [--runs N] [--seed N] [--max-bytes N] [--only N] [FILE|FOLDER]...
 *
 * so repeat with the same seed, sizes and corpus. A folder that does not exist is an empty corpus.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

#define CORPUS_MAX     4096
#define FILE_MAX_BYTES (1u << 20)

struct input {
    char *name;
    uint8_t *bytes;
    size_t size;
};

static struct input corpus[CORPUS_MAX];
static size_t corpus_count;
static size_t max_bytes = 512;
static char running[600]; /* what to say if the target dies now */

static void say_running(void)
{
    if (write(STDERR_FILENO, running, strlen(running)) < 0)
        _exit(1);
}

/* async-signal-safe */
static void on_signal(int sig)
{
    say_running();
    signal(sig, SIG_DFL);
    raise(sig);
}

/* xorshift64*: small, fixed for ever, and good enough to choose bytes. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static size_t below(uint64_t *state, size_t limit)
{
    return limit ? (size_t)(next_random(state) % limit) : 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct input *)a)->name, ((const struct input *)b)->name);
}

static int load_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "fuzz driver: %s: %s\n", path, strerror(errno));
        return -1;
    }
    uint8_t *bytes = malloc(FILE_MAX_BYTES);
    size_t size = bytes ? fread(bytes, 1, FILE_MAX_BYTES, file) : 0;
    fclose(file);
    if (!bytes || corpus_count == CORPUS_MAX) {
        fprintf(stderr, "fuzz driver: %s: no room for it\n", path);
        free(bytes);
        return -1;
    }
    /* Its own size, so that AddressSanitizer sees a read past the end. */
    uint8_t *fitted = malloc(size ? size : 1);
    if (fitted)
        memcpy(fitted, bytes, size);
    free(bytes);
    if (!fitted)
        return -1;
    corpus[corpus_count++] = (struct input){strdup(path), fitted, size};
    return 0;
}

static int load(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return errno == ENOENT ? 0 : -1;
    if (!S_ISDIR(st.st_mode))
        return load_file(path);
    DIR *dir = opendir(path);
    if (!dir)
        return -1;
    int result = 0;
    struct dirent *entry;
    while (result == 0 && (entry = readdir(dir)) != NULL) {
        char name[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        result = load_file(name);
    }
    closedir(dir);
    return result;
}

static size_t make_random(uint64_t *state, uint8_t *to)
{
    size_t size = below(state, max_bytes + 1);
    if (below(state, 4) == 0)
        size = below(state, 16);
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)next_random(state);
    return size;
}

/* Put another number in the place of the decimal one at or after at, if there is one. */
static size_t change_decimal(uint64_t *state, uint8_t *to, size_t size, size_t at)
{
    static const char *const numbers[] = {"0",
                                          "1",
                                          "-1",
                                          "4294967295",
                                          "4294967296",
                                          "2147483648",
                                          "9223372036854775807",
                                          "1e9",
                                          "1e999",
                                          "0.5",
                                          "-0",
                                          "null",
                                          "9223372036854775808",
                                          "18446744073709551615",
                                          "99999999999999999999"};
    const char *number = numbers[below(state, sizeof numbers / sizeof *numbers)];
    size_t length = strlen(number), end;
    while (at < size && !(to[at] >= '0' && to[at] <= '9'))
        at++;
    for (end = at; end < size && to[end] >= '0' && to[end] <= '9'; end++)
        ;
    if (at == end || size - (end - at) + length > max_bytes)
        return size;
    memmove(to + at + length, to + end, size - end);
    for (size_t i = 0; i < length; i++)
        to[at + i] = (uint8_t)number[i];
    return size - (end - at) + length;
}

/* One small change; returns the new size. */
static size_t change(uint64_t *state, uint8_t *to, size_t size)
{
    static const uint64_t edges[] = {
        0,      1,      2,          0x7f,       0x80,       0xff,       0xffff,
        0x7fff, 0x8000, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_MAX, (UINT64_MAX >> 1),
        4096};
    size_t at = below(state, size);
    switch (below(state, 8)) {
    case 0: /* flip a bit */
        if (size)
            to[at] ^= (uint8_t)(1u << below(state, 8));
        return size;
    case 1: /* another byte */
        if (size)
            to[at] = (uint8_t)next_random(state);
        return size;
    case 2: { /* a number at the edge of its type */
        uint64_t number = edges[below(state, sizeof edges / sizeof *edges)];
        size_t width = (size_t)1 << below(state, 4);
        for (size_t i = 0; i < width && at + i < size; i++)
            to[at + i] = (uint8_t)(number >> (8 * i));
        return size;
    }
    case 3: /* cut the end off */
        return at;
    case 4: { /* leave a part out */
        size_t count = below(state, size - at + 1);
        memmove(to + at, to + at + count, size - at - count);
        return size - count;
    }
    case 5: { /* a part twice */
        size_t count = below(state, size - at + 1);
        if (count > max_bytes - size)
            count = max_bytes - size;
        memmove(to + at + count, to + at, size - at);
        return size + count;
    }
    case 6: /* another number, where one is written in decimal */
        return change_decimal(state, to, size, at);
    default: { /* a part of another file */
        if (corpus_count == 0)
            return size;
        const struct input *other = &corpus[below(state, corpus_count)];
        size_t from = below(state, other->size);
        size_t count = below(state, other->size - from + 1);
        if (count > max_bytes - at)
            count = max_bytes - at;
        memcpy(to + at, other->bytes + from, count);
        return at + count > size ? at + count : size;
    }
    }
}

static size_t make_input(uint64_t seed, uint64_t number, uint8_t *to)
{
    uint64_t state =
        (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ (number + 1) * UINT64_C(0xd1b54a32d192ed03);
    state |= state == 0;
    for (int i = 0; i < 4; i++)
        next_random(&state);
    if (corpus_count == 0 || below(&state, 4) == 0)
        return make_random(&state, to);
    const struct input *start = &corpus[below(&state, corpus_count)];
    size_t size = start->size < max_bytes ? start->size : max_bytes;
    memcpy(to, start->bytes, size);
    for (size_t changes = 1 + below(&state, 8); changes > 0; changes--)
        size = change(&state, to, size);
    return size;
}

/* In memory of exactly its size, so that reading past the end is seen. */
static void run(const uint8_t *bytes, size_t size)
{
    uint8_t *fitted = malloc(size ? size : 1);
    if (!fitted)
        abort();
    memcpy(fitted, bytes, size);
    LLVMFuzzerTestOneInput(fitted, size);
    free(fitted);
}

static uint64_t number_argument(int argc, char **argv, int *i)
{
    char *end;
    errno = 0;
    uint64_t value = *i + 1 < argc ? strtoull(argv[*i + 1], &end, 0) : 0;
    if (*i + 1 >= argc || errno || *end || end == argv[*i + 1]) {
        fprintf(stderr, "fuzz driver: %s needs a number\n", argv[*i]);
        exit(2);
    }
    ++*i;
    return value;
}

int main(int argc, char **argv)
{
    uint64_t runs = 2000, seed = 1, first = 0;
    bool only = false;
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--runs")) {
            runs = number_argument(argc, argv, &i);
        } else if (!strcmp(argv[i], "--seed")) {
            seed = number_argument(argc, argv, &i);
        } else if (!strcmp(argv[i], "--max-bytes")) {
            max_bytes = number_argument(argc, argv, &i);
        } else if (!strcmp(argv[i], "--only")) {
            first = number_argument(argc, argv, &i);
            runs = 1;
            only = true;
        } else if (load(argv[i]) < 0) {
            return 2;
        }
    }
    if (max_bytes == 0 || max_bytes > FILE_MAX_BYTES) {
        fprintf(stderr, "fuzz driver: --max-bytes is 1 to %u\n", FILE_MAX_BYTES);
        return 2;
    }
    qsort(corpus, corpus_count, sizeof *corpus, by_name);

    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(say_running);
        signal(SIGABRT, on_signal);
    } else {
        static const int deaths[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
        for (size_t i = 0; i < sizeof deaths / sizeof *deaths; i++)
            signal(deaths[i], on_signal);
    }
    for (size_t i = 0; i < corpus_count && !only; i++) {
        snprintf(running, sizeof running, "fuzz driver: died in %s\n", corpus[i].name);
        run(corpus[i].bytes, corpus[i].size);
    }
    uint8_t *bytes = malloc(max_bytes);
    if (!bytes)
        return 2;
    for (uint64_t n = first; n < first + runs; n++) {
        snprintf(running, sizeof running,
                 "fuzz driver: died in input %llu (to repeat it, add --only %llu)\n",
                 (unsigned long long)n, (unsigned long long)n);
        run(bytes, make_input(seed, n, bytes));
    }
    free(bytes);
    for (size_t i = 0; i < corpus_count; i++) {
        free(corpus[i].name);
        free(corpus[i].bytes);
    }
    printf("%zu files of the corpus and %llu made inputs\n", corpus_count,
           (unsigned long long)runs);
    return 0;
}
