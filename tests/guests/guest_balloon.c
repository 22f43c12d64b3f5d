#include "tests/guests/guest_balloon.h"

static bool tell(const struct guest_balloon *balloon, struct queue *queue,
                 const balloon_page_number *numbers, unsigned count)
{
    const struct buffer buffer = {numbers, count * (uint32_t)sizeof numbers[0], 0};
    queue_offer(queue, &buffer, 1);
    return guest_promise(queue_wait(queue, balloon->answer_ms, NULL), "the balloon answers");
}

static bool inflate(void *ctx, const balloon_page_number *numbers, unsigned count)
{
    struct guest_balloon *balloon = ctx;
    return tell(balloon, &balloon->inflate, numbers, count);
}

static bool deflate(void *ctx, const balloon_page_number *numbers, unsigned count)
{
    struct guest_balloon *balloon = ctx;
    return tell(balloon, &balloon->deflate, numbers, count);
}

static bool read_target(void *ctx, uint32_t *pages)
{
    const struct driver *driver = &((struct guest_balloon *)ctx)->driver;
    *pages = driver_read(driver, VIRTIO_MMIO_CONFIG + offsetof(struct balloon_config, num_pages));
    return !driver_needs_reset(driver);
}

static void write_actual(void *ctx, uint32_t pages)
{
    driver_write(&((struct guest_balloon *)ctx)->driver,
                 VIRTIO_MMIO_CONFIG + offsetof(struct balloon_config, actual), pages);
}

bool guest_balloon_begin(struct guest_balloon *balloon, const struct balloon_platform *own,
                         uint64_t features)
{
    const struct balloon_platform platform = {
        .ctx = balloon,
        .take_page = own->take_page,
        .free_page = own->free_page,
        .inflate = inflate,
        .deflate = deflate,
        .read_target = read_target,
        .write_actual = write_actual,
        .take_notes = own->take_notes,
        .free_notes = own->free_notes,
    };
    balloon_init(&balloon->core, &platform);
    if (!driver_begin(&balloon->driver, features | 1ul << BALLOON_F_MUST_TELL_HOST))
        return false;
    queue_begin(&balloon->inflate, &balloon->driver, BALLOON_QUEUE_INFLATE);
    queue_begin(&balloon->deflate, &balloon->driver, BALLOON_QUEUE_DEFLATE);
    return true;
}
