/*
 * The balloon device (virtio 1.2, 5.5): what the guest's driver gives up goes to
 * gmem before the driver sees its buffer used, and what it takes back comes from
 * there. The wire format is balloon-driver/balloon_wire.h.
 *
 * What a driver says is checked page by page: a page number outside RAM, or a
 * page inflated that is in the balloon already, is a driver error (needs reset).
 * Deflating a page that is not in the balloon is legal: without MUST_TELL_HOST a
 * driver may use a page first, whereupon it has left the balloon by itself
 * (gmem's "popped"); nothing happens then. When the driver goes away all pages
 * still in its balloon are the guest's again, and read as zero.
 *
 * Statistics (5.5.6.3): the device keeps the driver's buffer for a second and
 * gives it back, upon which the driver fills it anew. Free page reporting
 * (5.5.6.6): pages named by a writable buffer, which is never written, nor made
 * resident, here.
 */
#include "balloon-driver/balloon_wire.h"
#include "vmm-core/dev/virtio_devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define QUEUE_SIZE       128u
#define STATS_PERIOD_S   1
#define STATS_MAX        400u /* of one buffer: no driver has more */
#define FIRST_RAM_NUMBER ((balloon_page_number)(RAM_BASE_PA >> BALLOON_PAGE_SHIFT))

struct virtio_balloon {
    struct virtio_device device;
    int timer_fd;
    bool stats_held; /* stats_chain is the driver's buffer, waiting for the timer */
    bool stats_due;  /* the timer has expired */
    struct virtq_chain chain, stats_chain;
    balloon_page_number numbers[BALLOON_MAX_BATCH];
    struct balloon_stat stats[STATS_MAX];
};

enum queue_role { ROLE_NONE, ROLE_INFLATE, ROLE_DEFLATE, ROLE_STATS, ROLE_REPORTING };

/* Whether a driver counts queues that it did not negotiate differs (balloon_wire.h), so reporting
 * is taken on any queue that has no other use. */
static enum queue_role role_of(const struct virtio_device *device, unsigned index)
{
    if (index == BALLOON_QUEUE_INFLATE)
        return ROLE_INFLATE;
    if (index == BALLOON_QUEUE_DEFLATE)
        return ROLE_DEFLATE;
    if (index == BALLOON_QUEUE_STATS && virtio_has_feature(device, BALLOON_F_STATS_VQ))
        return ROLE_STATS;
    return virtio_has_feature(device, BALLOON_F_PAGE_REPORTING) ? ROLE_REPORTING : ROLE_NONE;
}

static struct vm_stats *vm_stats_of(struct virtio_device *device)
{
    return gmem_stats(device->env.gmem);
}

/* ---- Inflate and deflate ---- */

/* Why the driver is at fault over page `number`, or NULL. */
static const char *move_page(struct virtio_device *device, bool inflate, balloon_page_number number)
{
    struct gmem *gmem = device->env.gmem;
    ppn_t ppn = number - FIRST_RAM_NUMBER;
    if (number < FIRST_RAM_NUMBER || ppn >= pmap_pages(gmem_pmap(gmem)))
        return "balloon page number outside RAM";
    if (!inflate) {
        gmem_deflate(gmem, ppn);
        return NULL;
    }
    return gmem_balloon(gmem, ppn) ? NULL : "page put into the balloon twice";
}

static void move_pages(struct virtio_balloon *balloon, unsigned index, bool inflate)
{
    struct virtio_device *device = &balloon->device;
    struct virtq_chain *chain = &balloon->chain;
    const char *fault = NULL;
    while (!virtio_stopping(device) && virtio_take(device, index, chain)) {
        uint64_t bytes = chain->readable_bytes;
        if (chain->writable || bytes % sizeof(balloon_page_number) ||
            bytes > sizeof balloon->numbers) {
            virtio_driver_error(device, "balloon buffer is not an array of page numbers");
            return;
        }
        if (!virtq_read(&device->queues[index], chain, 0, balloon->numbers, bytes))
            return;
        for (size_t i = 0; i < bytes / sizeof(balloon_page_number) && !fault; i++)
            fault = move_page(device, inflate, balloon->numbers[i]);
        if (fault) {
            virtio_driver_error(device, fault);
            return;
        }
        virtio_give(device, index, chain, 0);
    }
}

/* The driver that held them is gone: no page is in its balloon any more. */
static void empty_balloon(struct virtio_device *device)
{
    struct gmem *gmem = device->env.gmem;
    const struct pmap *pmap = gmem_pmap(gmem);
    for (ppn_t ppn = 0; ppn < pmap_pages(pmap); ppn++)
        if (pmap_state(pmap, ppn) == PAGE_BALLOONED)
            gmem_deflate(gmem, ppn);
}

/* ---- Statistics ---- */

static void forget_stats(struct virtio_device *device)
{
    for (unsigned tag = 0; tag < BALLOON_STAT_TAGS; tag++)
        atomic_store_explicit(&vm_stats_of(device)->balloon_stats[tag], UINT64_MAX,
                              memory_order_relaxed);
}

/* Keep the tags we have a place for; newer ones are no error. */
static void note_stats(struct virtio_balloon *balloon)
{
    struct virtio_device *device = &balloon->device;
    size_t bytes = balloon->stats_chain.readable_bytes;
    if (bytes > sizeof balloon->stats)
        bytes = sizeof balloon->stats;
    if (!virtq_read(&device->queues[BALLOON_QUEUE_STATS], &balloon->stats_chain, 0, balloon->stats,
                    bytes))
        return;
    struct vm_stats *stats = vm_stats_of(device);
    uint64_t absent =
        atomic_load_explicit(&stats->pages.pages_in[PAGE_ABSENT], memory_order_relaxed);
    atomic_store_explicit(&stats->balloon_stats_absent_pages, absent, memory_order_relaxed);
    for (size_t i = 0; i < bytes / sizeof balloon->stats[0]; i++) {
        uint16_t tag = balloon->stats[i].tag;
        if (tag < BALLOON_STAT_TAGS)
            atomic_store_explicit(&stats->balloon_stats[tag], balloon->stats[i].value,
                                  memory_order_relaxed);
    }
}

static void set_stats_timer(struct virtio_balloon *balloon, bool armed)
{
    struct itimerspec when = {.it_value.tv_sec = armed ? STATS_PERIOD_S : 0};
    timerfd_settime(balloon->timer_fd, 0, &when, NULL);
}

static void exchange_stats(struct virtio_balloon *balloon)
{
    struct virtio_device *device = &balloon->device;
    if (balloon->stats_held && balloon->stats_due) {
        balloon->stats_held = false;
        virtio_give(device, BALLOON_QUEUE_STATS, &balloon->stats_chain, 0);
    }
    if (balloon->stats_held || !virtio_take(device, BALLOON_QUEUE_STATS, &balloon->stats_chain))
        return;
    if (balloon->stats_chain.writable) {
        virtio_driver_error(device, "statistics buffer is not one to be read");
        return;
    }
    note_stats(balloon);
    balloon->stats_held = true;
    balloon->stats_due = false;
    set_stats_timer(balloon, true);
}

static void stats_timer(void *opaque, uint32_t events)
{
    struct virtio_balloon *balloon = opaque;
    uint64_t expirations;
    (void)events;
    if (read(balloon->timer_fd, &expirations, sizeof expirations) != sizeof expirations)
        return;
    balloon->stats_due = true;
    virtio_kick(&balloon->device, BALLOON_QUEUE_STATS);
}

/* ---- Free page reporting ---- */

static void report_pages(struct virtio_balloon *balloon, unsigned index)
{
    struct virtio_device *device = &balloon->device;
    struct virtq_chain *chain = &balloon->chain;
    while (!virtio_stopping(device) && virtio_take(device, index, chain)) {
        for (unsigned i = 0; i < chain->readable + chain->writable; i++) {
            const struct virtq_segment *segment = &chain->segments[i];
            if (chain->readable || segment->pa % PAGE_BYTES || segment->len % PAGE_BYTES) {
                virtio_driver_error(device, "free page report that is not one of whole pages");
                return;
            }
            gmem_report_free(device->env.gmem, (ppn_t)((segment->pa - RAM_BASE_PA) >> PAGE_SHIFT),
                             segment->len >> PAGE_SHIFT);
        }
        virtio_give(device, index, chain, 0);
    }
}

/* ---- The device ---- */

static void balloon_queue(struct virtio_device *device, unsigned index)
{
    struct virtio_balloon *balloon = (struct virtio_balloon *)device;
    switch (role_of(device, index)) {
    case ROLE_INFLATE:
        move_pages(balloon, index, true);
        break;
    case ROLE_DEFLATE:
        move_pages(balloon, index, false);
        break;
    case ROLE_STATS:
        exchange_stats(balloon);
        break;
    case ROLE_REPORTING:
        report_pages(balloon, index);
        break;
    case ROLE_NONE:
        break;
    }
}

static void balloon_config_written(struct virtio_device *device)
{
    uint32_t actual;
    virtio_config_read(device, offsetof(struct balloon_config, actual), &actual, sizeof actual);
    atomic_store_explicit(&vm_stats_of(device)->balloon_actual_pages, actual, memory_order_relaxed);
}

static void driver_is(struct virtio_device *device, bool up)
{
    atomic_store_explicit(&vm_stats_of(device)->balloon_driver, up, memory_order_relaxed);
    gmem_event(device->env.gmem, WORKER_BALLOON_DRIVER, up,
               up ? "the guest's balloon driver is up" : "the guest's balloon driver went away");
}

static void balloon_start(struct virtio_device *device)
{
    driver_is(device, true);
}

static void balloon_stop(struct virtio_device *device)
{
    struct virtio_balloon *balloon = (struct virtio_balloon *)device;
    balloon->stats_held = false;
    set_stats_timer(balloon, false);
    forget_stats(device);
    empty_balloon(device);
    atomic_store_explicit(&vm_stats_of(device)->balloon_actual_pages, 0, memory_order_relaxed);
    driver_is(device, false);
}

static void balloon_free(struct virtio_device *device)
{
    struct virtio_balloon *balloon = (struct virtio_balloon *)device;
    if (balloon->timer_fd >= 0)
        close(balloon->timer_fd);
    free(balloon);
}

static const struct virtio_ops balloon_ops = {
    .name = "balloon",
    .device_id = VIRTIO_ID_BALLOON,
    .queue_count = BALLOON_QUEUES,
    .queue_size = QUEUE_SIZE,
    .start = balloon_start,
    .queue = balloon_queue,
    .config_written = balloon_config_written,
    .stop = balloon_stop,
    .free = balloon_free,
};

static int open_timer(struct virtio_balloon *balloon, struct err *err)
{
    balloon->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (balloon->timer_fd < 0)
        return err_set(err, errno, "balloon device: timer");
    return device_thread_watch(balloon->device.env.thread, balloon->timer_fd, EPOLLIN, stats_timer,
                               balloon, err);
}

struct virtio_device *virtio_balloon_new(const struct virtio_env *env,
                                         const struct virtio_balloon_options *options,
                                         struct err *err)
{
    struct virtio_balloon *balloon = calloc(1, sizeof *balloon);
    if (!balloon) {
        err_set(err, ENOMEM, "balloon device");
        return NULL;
    }
    uint64_t features = UINT64_C(1) << BALLOON_F_MUST_TELL_HOST | UINT64_C(1) << BALLOON_F_STATS_VQ;
    if (options->deflate_on_oom)
        features |= UINT64_C(1) << BALLOON_F_DEFLATE_ON_OOM;
    if (options->free_page_reporting)
        features |= UINT64_C(1) << BALLOON_F_PAGE_REPORTING;
    balloon->timer_fd = -1;
    if (virtio_device_init(&balloon->device, &balloon_ops, env, features, err) < 0 ||
        open_timer(balloon, err) < 0) {
        balloon_free(&balloon->device);
        return NULL;
    }
    const struct balloon_config space = {0};
    virtio_config_init(&balloon->device, &space, sizeof space,
                       offsetof(struct balloon_config, actual), sizeof space);
    forget_stats(&balloon->device);
    return &balloon->device;
}

void virtio_balloon_set(struct virtio_device *balloon, uint64_t pages)
{
    uint64_t most = pmap_pages(gmem_pmap(balloon->env.gmem));
    uint32_t num_pages = (uint32_t)(pages < most ? pages : most);
    virtio_config_write(balloon, offsetof(struct balloon_config, num_pages), &num_pages,
                        sizeof num_pages);
    atomic_store_explicit(&vm_stats_of(balloon)->balloon_target_pages, num_pages,
                          memory_order_relaxed);
}
