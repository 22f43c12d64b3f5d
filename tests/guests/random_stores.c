/*
 * A guest that never ends by itself: it stores at random to pages of few contents,
 * so that the host shares them again and again, and proves all the while that no
 * byte of them changes under its feet. For the soak (tests/soak).
 *
 * Every page of the working set is one of a few whole contents, or one of its own, so
 * that memory grows short, with one doubleword changed or not, so its checksum is known at any
 * time: 512 doublewords that are compared one by one. What happens to a page, drawn by chance:
 *
 *   look     compare all of it
 *   patch    store one doubleword, by a plain store or an atomic: a copy that
 *            loses something else shows in the next look
 *   rewrite  make it another content, zeroes among them
 *   read     the disk writes it
 *   write    the disk reads it while a store changes it
 *
 * Meanwhile the balloon follows the host's target and free pages are reported; what
 * comes back must be zeroes. Translation is on: Sv39, every page mapped at its own
 * address, accessed and dirty bits taken away at random, so that the monitor's walk
 * has tables to write that are shared pages themselves.
 *
 * A broken promise ends the guest with failure.
 */
#include "tests/guests/guest_balloon.h"

#define RAM_BYTES     (32ul << 20) /* of the VM; guest_layout.h's is more */
#define SPARE_END     (GUEST_RAM_PA + RAM_BYTES - (4ul << 20))
#define PAGES         3584u
#define WORDS         512u
#define CONTENTS      24u                        /* made of numbers; 0: zeroes */
#define DISK_CONTENTS 32u                        /* the disk's sectors n and n + 256 are equal */
#define OWN_CONTENTS  (CONTENTS + DISK_CONTENTS) /* and above: hardly met twice */
#define PATCHES       3u                         /* values that a patch stores */
#define NO_PATCH      0xffffu
#define WRITTEN_FROM  4096u /* sectors the guest may write, from here on */
#define REPORT_PAGES  8u
#define ANSWER_MS     600000u /* a host under a sanitizer on busy processors is slow, not wrong */
#define TICK_STEPS    64u     /* the balloon looks at its target */
#define TABLES        (RAM_BYTES >> 21)

#define PTE_VALID 1ul
#define PTE_RWX   0xeul
#define PTE_A     0x40ul
#define PTE_D     0x80ul

struct working_page {
    uint32_t content; /* below CONTENTS, CONTENTS + a disk content, or above that: its own */
    uint16_t patch_at, patch_value;
};

static struct working_page expected[PAGES];
static volatile uint64_t *working[PAGES];
static struct guest_balloon balloon = {.answer_ms = ANSWER_MS};
static struct driver disk_driver;
static struct queue report_queue, disk_queue;
static struct block_request request;
static volatile uint8_t request_status;
static uint64_t *tables[TABLES];
static void *spare[RAM_BYTES / 4096]; /* pages for the balloon and for reports, untouched here */
static unsigned spare_count;
static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 11) % limit;
}

/* ---- Translation ---- */

static uint64_t *fresh_table(void)
{
    return memset(guest_page(), 0, 4096);
}

static uint64_t table_pte(const void *table)
{
    return (uintptr_t)table >> 12 << 10 | PTE_VALID;
}

/* Devices in the first gigabyte as one large page, memory in pages of 4 KiB. */
static void translate(void)
{
    uint64_t *root = fresh_table(), *middle = fresh_table();
    root[0] = PTE_VALID | PTE_RWX | PTE_A | PTE_D;
    root[GUEST_RAM_PA >> 30] = table_pte(middle);
    for (unsigned i = 0; i < TABLES; i++) {
        tables[i] = fresh_table();
        middle[i] = table_pte(tables[i]);
        for (unsigned j = 0; j < WORDS; j++)
            tables[i][j] = (GUEST_RAM_PA + ((uint64_t)i << 21) + ((uint64_t)j << 12)) >> 12 << 10 |
                           PTE_VALID | PTE_RWX;
    }
    __asm__ volatile("sfence.vma\n\tcsrw satp, %0\n\tsfence.vma"
                     :
                     : "r"(8ul << 60 | (uintptr_t)root >> 12)
                     : "memory");
}

/* The next access and the next store to this page make the walk write its table again. */
static void forget_accessed_and_dirty(const volatile void *page)
{
    uintptr_t offset = (uintptr_t)page - GUEST_RAM_PA;
    uint64_t *pte = &tables[offset >> 21][offset >> 12 & (WORDS - 1)];
    __asm__ volatile("amoand.d zero, %1, (%0)\n\tsfence.vma %2, zero"
                     :
                     : "r"(pte), "r"(~(PTE_A | PTE_D)), "r"(page)
                     : "memory");
}

/* ---- Contents ---- */

static uint64_t patch_word(uint16_t value)
{
    return 0x5151515151515151ul * (value + 1u);
}

static uint64_t expected_word(const struct working_page *page, unsigned at)
{
    if (at == page->patch_at)
        return patch_word(page->patch_value);
    if (page->content < CONTENTS || page->content >= OWN_CONTENTS)
        return page->content * (at + 1ul) * 0x9e3779b97f4a7c15ul;
    uint64_t sector = ((page->content - CONTENTS) * 8u + at / 64u) % 256u;
    return sector * 0x0101010101010101ul;
}

static void look(unsigned number)
{
    const struct working_page *page = &expected[number];
    for (unsigned at = 0; at < WORDS; at++) {
        uint64_t found = working[number][at], wanted = expected_word(page, at);
        if (found == wanted)
            continue;
        guest_print("page ");
        guest_print_number((uintptr_t)working[number]);
        guest_print(" doubleword ");
        guest_print_number(at);
        guest_print(" holds ");
        guest_print_number(found);
        guest_print(", not ");
        guest_print_number(wanted);
        guest_print("\n");
        guest_promise(false, "no byte of a page changes but by a store");
        guest_end();
    }
}

static void patch(unsigned number)
{
    struct working_page *page = &expected[number];
    if (page->patch_at != NO_PATCH) { /* one at a time: take the last one back */
        unsigned at = page->patch_at;
        page->patch_at = NO_PATCH;
        working[number][at] = expected_word(page, at);
        return;
    }
    page->patch_at = (uint16_t)random_below(WORDS);
    page->patch_value = (uint16_t)random_below(PATCHES);
    volatile uint64_t *word = &working[number][page->patch_at];
    if (random_below(2))
        *word = patch_word(page->patch_value);
    else
        __asm__ volatile("amoswap.d zero, %1, (%0)"
                         :
                         : "r"(word), "r"(patch_word(page->patch_value))
                         : "memory");
}

static void rewrite(unsigned number)
{
    struct working_page *page = &expected[number];
    uint64_t content =
        random_below(2) ? random_below(CONTENTS) : OWN_CONTENTS + random_below(1u << 30);
    *page = (struct working_page){(uint32_t)content, NO_PATCH, 0};
    for (unsigned at = 0; at < WORDS; at++)
        working[number][at] = expected_word(page, at);
}

/* ---- The disk ---- */

static void offer_disk(uint32_t type, uint64_t sector, const volatile void *page)
{
    request = (struct block_request){.type = type, .sector = sector};
    request_status = 0xff;
    const struct buffer buffers[] = {{&request, sizeof request, 0},
                                     {page, 4096, type == BLOCK_READ ? VIRTQ_DESC_WRITE : 0},
                                     {&request_status, 1, VIRTQ_DESC_WRITE}};
    queue_offer(&disk_queue, buffers, 3);
}

static void await_disk(void)
{
    if (!guest_promise(queue_wait(&disk_queue, ANSWER_MS, NULL) && request_status == BLOCK_OK,
                       "the disk answers"))
        guest_end();
}

static void read_disk(unsigned number)
{
    uint64_t content = random_below(DISK_CONTENTS);
    offer_disk(BLOCK_READ, content * 8, working[number]);
    await_disk();
    expected[number] = (struct working_page){(uint32_t)(CONTENTS + content), NO_PATCH, 0};
}

static void write_disk(unsigned number)
{
    offer_disk(BLOCK_WRITE, WRITTEN_FROM + number * 8ul, working[number]);
    patch(number);
    await_disk();
    look(number);
}

/* ---- The balloon ---- */

static void fill_spare(void)
{
    void *page;
    while ((page = guest_page()) && (uintptr_t)page < SPARE_END)
        spare[spare_count++] = page;
}

/* Any of them; NULL: none left. */
static void *take_spare(void)
{
    if (spare_count == 0)
        return NULL;
    unsigned at = (unsigned)random_below(spare_count);
    void *page = spare[at];
    spare[at] = spare[--spare_count];
    return page;
}

static bool take_page(void *ctx, balloon_page_number *number)
{
    uint64_t *page = take_spare();
    (void)ctx;
    if (!page)
        return false;
    page[0] = random_below(4); /* it has a frame, perhaps one that is shared */
    *number = (balloon_page_number)((uintptr_t)page >> BALLOON_PAGE_SHIFT);
    return true;
}

static void must_be_zeroes(const volatile uint64_t *page)
{
    uint64_t any = 0;
    for (unsigned at = 0; at < WORDS; at++)
        any |= page[at];
    if (!guest_promise(any == 0, "a page that was given away comes back as zeroes"))
        guest_end();
}

static void free_page(void *ctx, balloon_page_number number)
{
    void *page = (void *)((uintptr_t)number << BALLOON_PAGE_SHIFT);
    (void)ctx;
    must_be_zeroes(page);
    spare[spare_count++] = page;
}

static void *take_notes(void *ctx)
{
    (void)ctx;
    return take_spare();
}

static void free_notes(void *ctx, void *notes)
{
    (void)ctx;
    spare[spare_count++] = notes;
}

static void report_free_pages(void)
{
    uint64_t *pages[REPORT_PAGES];
    struct buffer buffers[REPORT_PAGES];
    unsigned count = 0;
    while (count < REPORT_PAGES && (pages[count] = take_spare())) {
        pages[count][random_below(WORDS)] = random_below(3);
        buffers[count] = (struct buffer){pages[count], 4096, VIRTQ_DESC_WRITE};
        count++;
    }
    if (count > 0) {
        queue_offer(&report_queue, buffers, count);
        guest_promise(queue_wait(&report_queue, ANSWER_MS, NULL), "a report is answered");
    }
    for (unsigned i = 0; i < count; i++)
        spare[spare_count++] = pages[i];
}

/* ---- All of it ---- */

static uint64_t seed_from_entropy(void)
{
    static volatile uint64_t seed;
    struct driver driver;
    struct queue queue;
    if (!guest_promise(driver_find(&driver, VIRTIO_ID_ENTROPY) && driver_begin(&driver, 0),
                       "there is entropy"))
        guest_end();
    queue_begin(&queue, &driver, 0);
    driver_ready(&driver);
    queue_offer(&queue, &(struct buffer){&seed, sizeof seed, VIRTQ_DESC_WRITE}, 1);
    guest_promise(queue_wait(&queue, ANSWER_MS, NULL), "entropy comes");
    driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
    queue_end(&queue);
    return seed | 1;
}

static void begin_devices(void)
{
    static const struct balloon_platform own = {
        .take_page = take_page,
        .free_page = free_page,
        .take_notes = take_notes,
        .free_notes = free_notes,
    };
    if (!guest_promise(driver_find(&balloon.driver, VIRTIO_ID_BALLOON) &&
                           driver_find(&disk_driver, VIRTIO_ID_BLOCK),
                       "there are a balloon and a disk") ||
        !guest_promise(guest_balloon_begin(&balloon, &own, 1ul << BALLOON_F_PAGE_REPORTING) &&
                           driver_begin(&disk_driver, 0),
                       "the features are accepted"))
        guest_end();
    queue_begin(&report_queue, &balloon.driver, 4);
    queue_begin(&disk_queue, &disk_driver, 0);
    driver_ready(&balloon.driver);
    driver_ready(&disk_driver);
    balloon_start(&balloon.core);
}

static void do_one_thing(void)
{
    unsigned number = (unsigned)random_below(PAGES);
    uint64_t choice = random_below(64);
    if (choice < 4)
        forget_accessed_and_dirty(working[number]);
    if (choice == 63)
        report_free_pages();
    else if (choice >= 60)
        write_disk(number);
    else if (choice >= 56) {
        look(number);
        read_disk(number);
    } else if (choice >= 44) {
        look(number);
        rewrite(number);
    } else if (choice >= 22)
        patch(number);
    else
        look(number);
}

void guest_main(void)
{
    random_state = seed_from_entropy();
    translate();
    for (unsigned i = 0; i < PAGES; i++) {
        working[i] = guest_page();
        rewrite(i);
    }
    begin_devices();
    fill_spare();
    for (uint64_t steps = 0; balloon.core.state != BALLOON_FAILED; steps++) {
        do_one_thing();
        if (steps % TICK_STEPS == 0)
            balloon_tick(&balloon.core);
    }
    guest_promise(false, "the balloon works");
}
