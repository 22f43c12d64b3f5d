/*
 * The block device (virtio 1.2, 5.2) over a raw image: a file or a block device.
 *
 * A request is done from start to end on the device thread, in the order the
 * driver made them. Reads and writes go straight between the image and pinned
 * guest pages (preadv, pwritev), a window of pages at a time. Flush is
 * fdatasync; what is written without it sits in the host's page cache, as
 * the driver is told by the FLUSH feature. Discard punches a hole.
 *
 * What the guest asks for is bounded before anything is done; what the host's
 * file system refuses comes back as IOERR, and the machine goes on.
 */
#include "vmm-core/dev/virtio_devices.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define QUEUE_SIZE         128u
#define SEG_MAX            (QUEUE_SIZE - 2) /* header and status take two */
#define MAX_RANGES         16u              /* of one DISCARD or WRITE_ZEROES */
#define MAX_RANGE_SECTORS  32768u           /* 16 MiB each: bounds the time of one request */
#define PHYSICAL_BLOCK_EXP 3                /* 4096-byte blocks suit the host's page cache */

struct virtio_block {
    struct virtio_device device;
    int fd;
    bool read_only;
    uint64_t capacity_sectors;
    char id[BLOCK_ID_BYTES];
    struct virtq_chain chain;
    struct virtq_window window;
};

static bool within_disk(const struct virtio_block *block, uint64_t sector, uint64_t sectors)
{
    return sector <= block->capacity_sectors && sectors <= block->capacity_sectors - sector;
}

/* One vector of I/O in full; false on any error. Consumes iov. */
static bool transfer(int fd, bool to_guest, struct iovec *iov, unsigned count, off_t at)
{
    while (count > 0) {
        ssize_t moved =
            to_guest ? preadv(fd, iov, (int)count, at) : pwritev(fd, iov, (int)count, at);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved <= 0) /* 0: the image became shorter than it was */
            return false;
        at += moved;
        while (count > 0 && (size_t)moved >= iov->iov_len) {
            moved -= (ssize_t)iov->iov_len;
            iov++;
            count--;
        }
        if (count > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + moved;
            iov->iov_len -= (size_t)moved;
        }
    }
    return true;
}

/* READ or WRITE of `bytes` bytes: data begins at `offset` of the chain's writable (READ) or
 * readable (WRITE) part. */
static enum block_status read_or_write(struct virtio_block *block, bool to_guest, uint64_t sector,
                                       uint64_t offset, uint64_t bytes)
{
    struct virtq *queue = &block->device.queues[0];
    if (bytes % BLOCK_SECTOR_BYTES || !within_disk(block, sector, bytes / BLOCK_SECTOR_BYTES))
        return BLOCK_IOERR;
    if (!to_guest && block->read_only)
        return BLOCK_IOERR;
    uint64_t at = sector * BLOCK_SECTOR_BYTES;
    for (uint64_t done = 0; done < bytes;) {
        struct virtq_window *window = &block->window;
        virtio_pause_point(&block->device);
        if (virtio_stopping(&block->device) ||
            !virtq_window_pin(window, queue, &block->chain, to_guest, offset + done, bytes - done))
            return BLOCK_IOERR;
        size_t part = window->bytes;
        bool ok = transfer(block->fd, to_guest, window->iov, window->count, (off_t)(at + done));
        virtq_window_unpin(window, queue);
        if (!ok)
            return BLOCK_IOERR;
        done += part;
    }
    struct vm_stats *stats = gmem_stats(block->device.env.gmem);
    atomic_fetch_add_explicit(to_guest ? &stats->disk_read_bytes : &stats->disk_write_bytes, bytes,
                              memory_order_relaxed);
    return BLOCK_OK;
}

static bool write_zeroes(int fd, uint64_t at, uint64_t bytes)
{
    static const uint8_t zeroes[65536];
    while (bytes > 0) {
        struct iovec iov = {(void *)zeroes, bytes < sizeof zeroes ? bytes : sizeof zeroes};
        size_t len = iov.iov_len;
        if (!transfer(fd, false, &iov, 1, (off_t)at))
            return false;
        at += len;
        bytes -= len;
    }
    return true;
}

/* One range. Discarding is advice (5.2.6.2): where the host cannot punch holes nothing happens;
 * zeroes must be there afterwards, so they are written where they cannot be had cheaper. */
static enum block_status clear_range(struct virtio_block *block, uint32_t type,
                                     const struct block_range *range)
{
    uint64_t at = range->sector * BLOCK_SECTOR_BYTES;
    uint64_t bytes = (uint64_t)range->sectors * BLOCK_SECTOR_BYTES;
    bool unmap = range->flags & BLOCK_RANGE_UNMAP;
    if ((range->flags & ~BLOCK_RANGE_UNMAP) || (type == BLOCK_DISCARD && unmap))
        return BLOCK_UNSUPPORTED;
    if (range->sectors > MAX_RANGE_SECTORS || !within_disk(block, range->sector, range->sectors))
        return BLOCK_IOERR;
    if (bytes == 0)
        return BLOCK_OK;
    int mode = type == BLOCK_DISCARD || unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    if (fallocate(block->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)bytes) == 0)
        return BLOCK_OK;
    if (errno != EOPNOTSUPP && errno != ENODEV && errno != ENOSYS)
        return BLOCK_IOERR;
    if (type == BLOCK_DISCARD)
        return BLOCK_OK;
    return write_zeroes(block->fd, at, bytes) ? BLOCK_OK : BLOCK_IOERR;
}

static enum block_status clear_ranges(struct virtio_block *block, uint32_t type, uint64_t bytes)
{
    struct block_range range;
    if (block->read_only)
        return BLOCK_IOERR;
    if (bytes == 0 || bytes % sizeof range || bytes / sizeof range > MAX_RANGES)
        return BLOCK_UNSUPPORTED;
    for (uint64_t offset = 0; offset < bytes; offset += sizeof range) {
        if (!virtq_read(&block->device.queues[0], &block->chain,
                        sizeof(struct block_request) + offset, &range, sizeof range))
            return BLOCK_IOERR;
        enum block_status status = clear_range(block, type, &range);
        if (status != BLOCK_OK)
            return status;
    }
    return BLOCK_OK;
}

/*
 * Do the request in block->chain: header, data to read, data to write, status
 * byte, however the driver cut them into descriptors (2.7.4). *written is the
 * number of data bytes given to the guest.
 */
static enum block_status do_request(struct virtio_block *block, uint64_t *written)
{
    const struct virtq_chain *chain = &block->chain;
    struct virtq *queue = &block->device.queues[0];
    struct block_request request;
    uint64_t in_bytes = chain->readable_bytes - sizeof request;
    uint64_t out_bytes = chain->writable_bytes - 1;
    enum block_status status;
    *written = 0;
    if (!virtq_read(queue, chain, 0, &request, sizeof request))
        return BLOCK_IOERR;
    switch (request.type) {
    case BLOCK_READ:
        status = read_or_write(block, true, request.sector, 0, out_bytes);
        *written = status == BLOCK_OK ? out_bytes : 0;
        return status;
    case BLOCK_WRITE:
        return read_or_write(block, false, request.sector, sizeof request, in_bytes);
    case BLOCK_FLUSH:
        return block->read_only || fdatasync(block->fd) == 0 ? BLOCK_OK : BLOCK_IOERR;
    case BLOCK_GET_ID:
        if (out_bytes < BLOCK_ID_BYTES || !virtq_write(queue, chain, 0, block->id, BLOCK_ID_BYTES))
            return BLOCK_IOERR;
        *written = BLOCK_ID_BYTES;
        return BLOCK_OK;
    case BLOCK_DISCARD:
    case BLOCK_WRITE_ZEROES:
        return clear_ranges(block, request.type, in_bytes);
    default:
        return BLOCK_UNSUPPORTED;
    }
}

static void block_queue(struct virtio_device *device, unsigned index)
{
    struct virtio_block *block = (struct virtio_block *)device;
    struct virtq_chain *chain = &block->chain;
    while (!virtio_stopping(device) && virtio_take(device, index, chain)) {
        if (chain->readable_bytes < sizeof(struct block_request) || chain->writable_bytes == 0) {
            virtio_driver_error(device, "block request without header or status");
            return;
        }
        uint64_t written;
        uint8_t status = (uint8_t)do_request(block, &written);
        /* The status byte ends the writable part (5.2.6). */
        if (!virtq_write(&device->queues[index], chain, chain->writable_bytes - 1, &status, 1))
            return;
        virtio_give(device, index, chain, (uint32_t)(written + 1));
    }
}

static void block_free(struct virtio_device *device)
{
    struct virtio_block *block = (struct virtio_block *)device;
    if (block->fd >= 0)
        close(block->fd);
    free(block);
}

static const struct virtio_ops block_ops = {
    .name = "block",
    .device_id = VIRTIO_ID_BLOCK,
    .queue_count = 1,
    .queue_size = QUEUE_SIZE,
    .queue = block_queue,
    .free = block_free,
};

static int open_image(struct virtio_block *block, const char *path, struct err *err)
{
    block->fd = open(path, (block->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY);
    if (block->fd < 0)
        return err_set(err, errno, "disk %s", path);
    struct stat file;
    if (fstat(block->fd, &file) < 0)
        return err_set(err, errno, "disk %s", path);
    if (!S_ISREG(file.st_mode) && !S_ISBLK(file.st_mode))
        return err_set(err, 0, "disk %s is neither a file nor a block device", path);
    if (flock(block->fd, (block->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? err_set(err, 0, "disk %s is in use by another machine", path)
                                    : err_set(err, errno, "disk %s: locking it", path);
    off_t bytes = lseek(block->fd, 0, SEEK_END);
    if (bytes < 0)
        return err_set(err, errno, "disk %s: its size", path);
    if (bytes < (off_t)BLOCK_SECTOR_BYTES)
        return err_set(err, 0, "disk %s is empty", path);
    block->capacity_sectors = (uint64_t)bytes / BLOCK_SECTOR_BYTES;
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    memcpy(block->id, name, strnlen(name, sizeof block->id)); /* the rest is zero */
    return 0;
}

struct virtio_device *virtio_block_new(const struct virtio_env *env, const char *path,
                                       bool read_only, struct err *err)
{
    struct virtio_block *block = calloc(1, sizeof *block);
    if (!block) {
        err_set(err, ENOMEM, "disk %s", path);
        return NULL;
    }
    block->fd = -1;
    block->read_only = read_only;
    uint64_t features = UINT64_C(1) << BLOCK_F_SEG_MAX | UINT64_C(1) << BLOCK_F_BLK_SIZE |
                        UINT64_C(1) << BLOCK_F_TOPOLOGY | UINT64_C(1) << BLOCK_F_FLUSH;
    features |= read_only ? UINT64_C(1) << BLOCK_F_READ_ONLY
                          : UINT64_C(1) << BLOCK_F_DISCARD | UINT64_C(1) << BLOCK_F_WRITE_ZEROES;
    if (open_image(block, path, err) < 0 ||
        virtio_device_init(&block->device, &block_ops, env, features, err) < 0) {
        block_free(&block->device);
        return NULL;
    }
    struct block_config space = {
        .capacity_sectors = block->capacity_sectors,
        .seg_max = SEG_MAX,
        .blk_size = BLOCK_SECTOR_BYTES,
        .physical_block_exp = PHYSICAL_BLOCK_EXP,
        .min_io_size = 1u << PHYSICAL_BLOCK_EXP,
    };
    if (!read_only) {
        space.max_discard_sectors = space.max_write_zeroes_sectors = MAX_RANGE_SECTORS;
        space.max_discard_seg = space.max_write_zeroes_seg = MAX_RANGES;
        space.discard_sector_alignment = 1u << PHYSICAL_BLOCK_EXP;
        space.write_zeroes_may_unmap = 1;
    }
    virtio_config_init(&block->device, &space, sizeof space, 0, 0);
    return &block->device;
}
