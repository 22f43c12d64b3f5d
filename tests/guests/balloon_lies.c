/*
 * A balloon driver that lies: pages named twice, pages that do not exist, the
 * pages of its own queue, buffers that are no arrays of page numbers. The device
 * asks for a reset; the guest's other memory keeps what it held; after the reset
 * no page is missing.
 */
#include "balloon-driver/balloon_wire.h"
#include "tests/guests/guest_devices.h"

#define RAM_NUMBER (GUEST_RAM_PA >> BALLOON_PAGE_SHIFT)
#define RAM_PAGES  (GUEST_RAM_BYTES >> BALLOON_PAGE_SHIFT)
#define PAGES      512u /* whose contents are watched */

static balloon_page_number numbers[2048];
static struct driver driver;
static struct queue inflate, deflate;
static uint64_t *watched[PAGES];

static balloon_page_number number_of(const volatile void *page)
{
    return (balloon_page_number)((uintptr_t)page >> BALLOON_PAGE_SHIFT);
}

static void begin(void)
{
    guest_promise(driver_begin(&driver, 1ul << BALLOON_F_MUST_TELL_HOST), "the driver is accepted");
    queue_begin(&inflate, &driver, BALLOON_QUEUE_INFLATE);
    queue_begin(&deflate, &driver, BALLOON_QUEUE_DEFLATE);
    driver_ready(&driver);
}

static void end(void)
{
    driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
    queue_end(&inflate);
    queue_end(&deflate);
}

static void tell(struct queue *queue, unsigned count)
{
    queue_offer(queue, &(struct buffer){numbers, count * (uint32_t)sizeof numbers[0], 0}, 1);
}

static void must_ask_for_a_reset(const char *lie)
{
    guest_promise(driver_wait_needs_reset(&driver, 5000), lie);
    end();
}

static void pages_twice(void)
{
    begin();
    numbers[0] = numbers[1] = number_of(guest_page());
    tell(&inflate, 2);
    must_ask_for_a_reset("a page twice in one buffer");

    begin();
    numbers[0] = number_of(guest_page());
    tell(&inflate, 1);
    guest_promise(queue_wait(&inflate, 5000, NULL), "the first time is no lie");
    tell(&inflate, 1);
    must_ask_for_a_reset("a page twice in two buffers");
}

static void pages_that_do_not_exist(void)
{
    static const balloon_page_number nowhere[] = {
        0,
        1,
        RAM_NUMBER - 1,
        RAM_NUMBER + RAM_PAGES,
        RAM_NUMBER + RAM_PAGES + 1,
        0x7fffffff,
        ~0u,
        RAM_NUMBER + (1u << 28),
    };
    for (unsigned i = 0; i < sizeof nowhere / sizeof nowhere[0]; i++) {
        begin();
        numbers[0] = nowhere[i];
        tell(&inflate, 1);
        must_ask_for_a_reset("inflating a page that does not exist");
        begin();
        numbers[0] = nowhere[i];
        tell(&deflate, 1);
        must_ask_for_a_reset("deflating a page that does not exist");
    }
    /* A good page before a bad one in the same buffer. */
    begin();
    numbers[0] = number_of(guest_page());
    numbers[1] = ~0u;
    tell(&inflate, 2);
    must_ask_for_a_reset("a page that does not exist behind one that does");
}

static void buffers_that_are_no_arrays(void)
{
    begin();
    queue_offer(&inflate, &(struct buffer){numbers, 7, 0}, 1);
    must_ask_for_a_reset("a ragged array");
    begin();
    queue_offer(&inflate, &(struct buffer){numbers, 8, VIRTQ_DESC_WRITE}, 1);
    must_ask_for_a_reset("an array to be written");
    begin();
    queue_offer(&inflate, &(struct buffer){(void *)GUEST_RAM_PA, 8u << 20, 0}, 1);
    must_ask_for_a_reset("an array of 8 MiB");
}

/* The pages of its own queue, and the page that holds the array. They read as zero afterwards, so
 * the queue looks empty or broken; all the guest can hope for is a reset. */
static void pages_of_its_own_queue(void)
{
    begin();
    numbers[0] = number_of(inflate.desc);
    numbers[1] = number_of(inflate.avail);
    numbers[2] = number_of(inflate.used);
    tell(&inflate, 3);
    queue_wait(&inflate, 50, NULL);
    queue_notify(&inflate);
    end();
    begin();
    balloon_page_number *array = guest_page();
    array[0] = number_of(array);
    queue_offer(&inflate, &(struct buffer){array, sizeof *array, 0}, 1);
    guest_promise(queue_wait(&inflate, 5000, NULL), "a page that names itself is taken");
    guest_promise(*(volatile balloon_page_number *)array == 0, "and is fresh when touched");
    end();
}

/* A page taken back without being put in is left as it is. */
static void deflating_what_was_never_inflated(void)
{
    begin();
    uint64_t *page = guest_page();
    page[0] = 0x1234;
    numbers[0] = number_of(page);
    tell(&deflate, 1);
    guest_promise(queue_wait(&deflate, 5000, NULL), "deflating a page of the guest's is no error");
    guest_promise(*(volatile uint64_t *)page == 0x1234, "and changes nothing");
    end();
}

/* Touched while in the balloon: a fresh page, and the balloon has popped there; taking it back
 * later, as the driver believes it must, does no harm. */
static void touching_pages_in_the_balloon(void)
{
    begin();
    volatile uint64_t *page = guest_page();
    page[0] = 0x1234;
    numbers[0] = number_of(page);
    tell(&inflate, 1);
    guest_promise(queue_wait(&inflate, 5000, NULL), "the page is taken");
    guest_promise(page[0] == 0, "a page in the balloon reads as zero");
    page[0] = 0x5678;
    tell(&deflate, 1);
    guest_promise(queue_wait(&deflate, 5000, NULL), "a popped page is deflated");
    guest_promise(page[0] == 0x5678, "and keeps what was stored");
    end();
}

void guest_main(void)
{
    if (!guest_promise(driver_find(&driver, VIRTIO_ID_BALLOON), "there is a balloon"))
        return;
    for (unsigned i = 0; i < PAGES; i++) {
        watched[i] = guest_page();
        watched[i][5] = i * 0x9e3779b97f4a7c15ul;
    }
    pages_twice();
    pages_that_do_not_exist();
    buffers_that_are_no_arrays();
    pages_of_its_own_queue();
    deflating_what_was_never_inflated();
    touching_pages_in_the_balloon();
    for (unsigned i = 0; i < PAGES; i++)
        guest_promise(watched[i][5] == i * 0x9e3779b97f4a7c15ul, "other pages keep their contents");
    device_must_work(&device_uses[3]);
}
