/*
 * Resets in the middle of a request. When the write of status 0 is done the
 * device has let go of the guest's memory (virtio 1.2, 2.4): what the guest
 * stores there afterwards stays. The same for a queue taken back.
 */
#include "tests/guests/guest_devices.h"

#define ROUNDS       200u
#define BUFFER_BYTES (512u * 1024u)
#define SEGMENTS     12u /* over the same buffer, so that the device is long at it */
#define BUFFER       ((volatile uint64_t *)(GUEST_FREE_END - BUFFER_BYTES))
#define MARK         0x5afe5afe5afe5afeul

static struct driver driver;
static struct queue queue;
static struct block_request *request;

static void begin_read(void)
{
    driver_begin(&driver, 0);
    queue_begin(&queue, &driver, 0);
    driver_ready(&driver);
    *request = (struct block_request){.type = BLOCK_READ, .sector = 1};
    struct buffer buffers[SEGMENTS + 2];
    buffers[0] = (struct buffer){request, sizeof *request, 0};
    for (unsigned i = 1; i <= SEGMENTS; i++)
        buffers[i] = (struct buffer){BUFFER, BUFFER_BYTES, VIRTQ_DESC_WRITE};
    buffers[SEGMENTS + 1] = (struct buffer){(uint8_t *)request + 512, 1, VIRTQ_DESC_WRITE};
    queue_offer(&queue, buffers, SEGMENTS + 2);
}

static void wait_ticks(uint64_t ticks)
{
    uint64_t end = guest_time() + ticks;
    while (guest_time() < end)
        ;
}

static bool stays(void)
{
    for (unsigned i = 0; i < BUFFER_BYTES / 8; i += 512)
        BUFFER[i] = MARK;
    wait_ticks(5000);
    for (unsigned i = 0; i < BUFFER_BYTES / 8; i += 512)
        if (BUFFER[i] != MARK)
            return false;
    return true;
}

void guest_main(void)
{
    unsigned in_time = 0;
    request = guest_page();
    if (!guest_promise(driver_find(&driver, VIRTIO_ID_BLOCK), "there is a disk"))
        return;
    for (unsigned round = 0; round < ROUNDS; round++) {
        begin_read();
        wait_ticks(guest_random() % 10000);
        bool finished = queue.used[1] != 0;
        if (round % 2)
            driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
        else
            driver_write(&driver, VIRTIO_MMIO_QUEUE_READY, 0);
        uint16_t used = queue.used[1];
        if (!guest_promise(stays() && queue.used[1] == used, "memory is the guest's after a reset"))
            break;
        in_time += !finished;
        driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
        queue_end(&queue);
    }
    guest_promise(in_time > 0, "some requests were caught in the middle");
    device_must_work(&device_uses[1]);
}
