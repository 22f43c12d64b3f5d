/*
 * toucher: allocates memory and touches all of it again and again, as the program
 * of that name does in the paper's Figure 6. Runs inside a guest.
 *
 * usage: toucher FILE
 *
 * FILE holds how much, in MiB; it is read before every round, so the amount can be
 * changed while the program runs. A round reads and writes one word of every
 * page, then rests for a moment; after the first round with a new amount,
 * FILE.done holds that amount. Memory that is no longer wanted goes back to the
 * kernel at once. "end" in FILE ends the program, which then says how many rounds
 * it made; a page that does not hold what was written to it ends it with status 1.
 */
#define _GNU_SOURCE /* mremap */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MIB            (UINT64_C(1) << 20)
#define MOST_MIB       (UINT64_C(1) << 20)
#define REST_NS        50000000
#define PAGE_BYTES     4096u
#define WORDS_PER_PAGE (PAGE_BYTES / sizeof(uint64_t))

/* What FILE says: MiB, or -1 for the end. Anything else is a mistake and ends the program too. */
static int64_t wanted_mib(const char *path)
{
    char text[32] = "", *end;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0) {
        fprintf(stderr, "toucher: %s: %s\n", path, strerror(errno));
        exit(2);
    }
    close(fd);
    if (strncmp(text, "end", 3) == 0)
        return -1;
    errno = 0;
    unsigned long long mib = strtoull(text, &end, 10);
    if (end == text || errno || mib > MOST_MIB) {
        fprintf(stderr, "toucher: '%s' in %s is no amount\n", text, path);
        exit(2);
    }
    return (int64_t)mib;
}

static void say_done(const char *path, int64_t mib)
{
    char name[4096];
    snprintf(name, sizeof name, "%s.done", path);
    FILE *file = fopen(name, "w");
    if (!file || fprintf(file, "%lld\n", (long long)mib) < 0 || fclose(file) != 0) {
        fprintf(stderr, "toucher: %s: %s\n", name, strerror(errno));
        exit(2);
    }
}

/* Room for so many bytes: what was there stays, what is new reads as zero. NULL for none. */
static uint64_t *resize(uint64_t *words, uint64_t bytes, uint64_t wanted)
{
    void *got = NULL;
    if (bytes && wanted == bytes)
        return words;
    if (bytes && wanted)
        got = mremap(words, bytes, wanted, MREMAP_MAYMOVE);
    else if (wanted)
        got = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    else if (bytes)
        munmap(words, bytes);
    if (got == MAP_FAILED) {
        fprintf(stderr, "toucher: %llu bytes: %s\n", (unsigned long long)wanted, strerror(errno));
        exit(2);
    }
    return got;
}

/* A page's first word is its number and the rounds made; that of a page not touched yet is zero. */
static void touch(uint64_t *words, uint64_t old_pages, uint64_t pages, uint64_t round)
{
    for (uint64_t page = 0; page < pages; page++) {
        uint64_t *word = &words[page * WORDS_PER_PAGE];
        uint64_t expected = page < old_pages ? page << 32 | round : 0;
        if (*word != expected) {
            fprintf(stderr, "toucher: page %llu holds %llx, not %llx\n", (unsigned long long)page,
                    (unsigned long long)*word, (unsigned long long)expected);
            exit(1);
        }
        *word = page << 32 | (round + 1);
    }
}

int main(int argc, char **argv)
{
    uint64_t *words = NULL, bytes = 0, rounds = 0;
    int64_t mib, done_mib = -1;
    if (argc != 2) {
        fprintf(stderr, "usage: toucher FILE\n");
        return 2;
    }
    while ((mib = wanted_mib(argv[1])) >= 0) {
        uint64_t wanted = (uint64_t)mib * MIB, old = bytes < wanted ? bytes : wanted;
        words = resize(words, bytes, wanted);
        bytes = wanted;
        touch(words, old / PAGE_BYTES, bytes / PAGE_BYTES, rounds);
        rounds++;
        if (mib != done_mib)
            say_done(argv[1], done_mib = mib);
        nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
    }
    printf("note rounds %llu\n", (unsigned long long)rounds);
    return 0;
}
