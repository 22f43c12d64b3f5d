#include "tests/guests/guest_devices.h"

#include "balloon-driver/balloon_wire.h"

static bool rng_works(struct queue *queue)
{
    uint8_t *page = memset(guest_page(), 0, 4096);
    uint32_t len = 0;
    bool ok = queue_do(queue, &(struct buffer){page, 64, VIRTQ_DESC_WRITE}, 1, &len) && len == 64;
    unsigned set = 0;
    for (unsigned i = 0; i < 64; i++)
        set += page[i] != 0;
    guest_free_page(page);
    return ok && set > 32;
}

/* Sector 7 of the disk is bytes of 7. */
static bool block_works(struct queue *queue)
{
    uint8_t *page = memset(guest_page(), 0xff, 4096);
    struct block_request *request = (void *)(page + 1024);
    *request = (struct block_request){.type = BLOCK_READ, .sector = 7};
    const struct buffer buffers[] = {{request, sizeof *request, 0},
                                     {page, 512, VIRTQ_DESC_WRITE},
                                     {page + 2048, 1, VIRTQ_DESC_WRITE}};
    bool ok = queue_do(queue, buffers, 3, NULL) && page[2048] == BLOCK_OK && page[0] == 7 &&
              page[511] == 7 && page[512] == 0xff;
    guest_free_page(page);
    return ok;
}

static bool console_works(struct queue *queue)
{
    return queue_do(queue, &(struct buffer){".", 1, 0}, 1, NULL);
}

static bool balloon_works(struct queue *queue)
{
    uint8_t *page = memset(guest_page(), 0x77, 4096);
    static balloon_page_number number;
    number = (balloon_page_number)((uintptr_t)page >> BALLOON_PAGE_SHIFT);
    bool ok = queue_do(queue, &(struct buffer){&number, sizeof number, 0}, 1, NULL);
    /* The host took it: what comes back is a fresh page. */
    ok = ok && page[0] == 0 && page[4095] == 0;
    guest_free_page(page);
    return ok;
}

const struct device_use device_uses[DEVICE_USES] = {
    {"entropy", VIRTIO_ID_ENTROPY, 0, rng_works},
    {"block", VIRTIO_ID_BLOCK, 0, block_works},
    {"console", VIRTIO_ID_CONSOLE, CONSOLE_QUEUE_OUTPUT, console_works},
    {"balloon", VIRTIO_ID_BALLOON, BALLOON_QUEUE_INFLATE, balloon_works},
};

void device_must_work(const struct device_use *use)
{
    struct driver driver;
    struct queue queue;
    if (!guest_promise(driver_find(&driver, use->device_id), use->name))
        return;
    guest_promise(driver_begin(&driver, 0), "a driver without features is accepted");
    queue_begin(&queue, &driver, use->queue);
    driver_ready(&driver);
    if (!guest_promise(use->works(&queue), "the device works")) {
        guest_print(use->name);
        guest_print("\n");
    }
    driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
    queue_end(&queue);
}
