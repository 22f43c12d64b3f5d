/*
 * A hostile driver against every virtio device: registers, queues, descriptors
 * and buffers as the bytes say. The first byte chooses the device, the rest is a
 * program of short steps, some of them well-formed requests, so that the inputs
 * get behind the first check. Promised: no access outside the guest's flat
 * memory (the sanitizers), no pin left behind (rig_close), page states that add
 * up, a disk that keeps its size, and a device that a reset brings back.
 */
#include "balloon-driver/balloon_wire.h"
#include "tests/dev/virtio_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define RAM_PAGES  64u
#define RAM_BYTES  (RAM_PAGES * PAGE_BYTES)
#define DISK_BYTES 65536

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* The entropy device gives the same bytes every time, so that an input can be repeated. */
ssize_t getrandom(void *buffer, size_t length, unsigned flags)
{
    (void)flags;
    memset(buffer, 0x5a, length);
    return (ssize_t)length;
}

struct program {
    const uint8_t *bytes;
    size_t left;
};

static uint64_t take(struct program *program, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes && program->left > 0; i++, program->left--)
        value |= (uint64_t)*program->bytes++ << (8 * i);
    return value;
}

/* An address: mostly in RAM, sometimes at its end, sometimes anything. */
static uint64_t take_pa(struct program *program)
{
    uint8_t kind = (uint8_t)take(program, 1);
    if (kind < 200)
        return RAM_BASE_PA + take(program, 2) % 0x4000;
    if (kind < 230)
        return RAM_BASE_PA + RAM_BYTES - take(program, 1);
    return take(program, 8);
}

static void promise(bool kept, const char *what)
{
    if (kept)
        return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

/* Queue areas and buffers come from the lower half of RAM, over and over. */
static void rewind_alloc(struct rig *rig)
{
    if (rig->next_free_pa > RAM_BASE_PA + RAM_BYTES / 2)
        rig->next_free_pa = RAM_BASE_PA;
}

static struct virtio_device *make_device(struct rig *rig, unsigned kind, int disk_fd)
{
    const struct virtio_balloon_options options = {true, true};
    char path[64];
    switch (kind % 5) {
    case 0:
        return virtio_console_new(&rig->env, -1, -1, -1, NULL);
    case 1:
        return virtio_rng_new(&rig->env, NULL);
    case 2:
        return virtio_balloon_new(&rig->env, &options, NULL);
    default:
        snprintf(path, sizeof path, "/proc/self/fd/%d", disk_fd);
        return virtio_block_new(&rig->env, path, kind % 5 == 4, NULL);
    }
}

static void start(struct rig *rig, struct program *program)
{
    uint64_t features = take(program, 1) % 4 ? ~UINT64_C(0) : take(program, 8);
    uint64_t offered = 0;
    unsigned queues = 1 + take(program, 1) % BALLOON_QUEUES;
    for (uint32_t sel = 0; sel < 2; sel++) {
        rig_write(rig, VIRTIO_MMIO_DEVICE_FEATURES_SEL, sel);
        offered |= (uint64_t)rig_read(rig, VIRTIO_MMIO_DEVICE_FEATURES) << (32 * sel);
    }
    rig->next_free_pa = RAM_BASE_PA;
    rig_start(rig, features & offered, queues);
}

static void describe(struct rig *rig, struct program *program)
{
    unsigned queue = take(program, 1) % VIRTIO_MAX_QUEUES;
    if (rig->queues[queue].size == 0)
        return;
    uint16_t index = take(program, 1) % rig->queues[queue].size;
    struct virtq_desc desc = {.pa = take_pa(program)};
    desc.len = (uint32_t)take(program, take(program, 1) % 8 ? 2 : 4);
    desc.flags = take(program, 1) % 8;
    desc.next = take(program, 1) % 20;
    rig_set_desc(rig, queue, index, desc);
}

static void publish(struct rig *rig, struct program *program)
{
    unsigned queue = take(program, 1) % VIRTIO_MAX_QUEUES;
    if (rig->queues[queue].size != 0)
        rig_publish(rig, queue, (uint16_t)(take(program, 1) % 20));
}

static void poke(struct rig *rig, struct program *program)
{
    uint64_t pa = take_pa(program);
    uint8_t bytes[16];
    uint64_t len = take(program, 1) % sizeof bytes;
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = i < len ? (uint8_t)take(program, 1) : 0;
    gmem_write(rig->gmem, pa, bytes, len);
}

static void block_request(struct rig *rig, struct program *program)
{
    if (rig->queues[0].size == 0)
        return;
    rewind_alloc(rig);
    struct block_request header = {.type = (uint32_t)take(program, 1) % 16};
    header.sector = take(program, take(program, 1) % 8 ? 1 : 8);
    uint32_t bytes = (uint32_t)(take(program, 1) % 32) * (take(program, 1) % 4 ? 512 : 16);
    uint16_t direction = take(program, 1) % 2 ? VIRTQ_DESC_WRITE : 0;
    uint64_t header_pa = rig_alloc(rig, sizeof header, 16), status_pa = rig_alloc(rig, 1, 1);
    uint64_t pa = take_pa(program);
    gmem_write(rig->gmem, header_pa, &header, sizeof header);
    if (bytes)
        rig_offer(rig, 0, {header_pa, sizeof header, 0}, {pa, bytes, direction},
                  {status_pa, 1, VIRTQ_DESC_WRITE});
    else
        rig_offer(rig, 0, {header_pa, sizeof header, 0}, {status_pa, 1, VIRTQ_DESC_WRITE});
}

static void balloon_numbers(struct rig *rig, struct program *program)
{
    unsigned queue = take(program, 1) % 3;
    if (rig->queues[queue].size == 0)
        return;
    rewind_alloc(rig);
    balloon_page_number numbers[16];
    uint32_t count = 1 + (uint32_t)(take(program, 1) % 16);
    for (uint32_t i = 0; i < count; i++)
        numbers[i] = (balloon_page_number)(take_pa(program) >> BALLOON_PAGE_SHIFT);
    uint64_t pa = rig_alloc(rig, sizeof numbers, 4);
    gmem_write(rig->gmem, pa, numbers, sizeof numbers);
    rig_offer(rig, queue, {pa, count * (uint32_t)sizeof numbers[0], 0});
}

static void any_access(struct rig *rig, struct program *program, bool store)
{
    unsigned size = 1u << take(program, 1) % 4;
    uint64_t offset = take(program, 2) % VIRTIO_MMIO_WINDOW_BYTES / size * size;
    uint64_t value;
    if (store)
        bus_store(&rig->bus, RIG_DEVICE_PA + offset, size, take(program, size));
    else
        bus_load(&rig->bus, RIG_DEVICE_PA + offset, size, &value);
}

static void step(struct rig *rig, struct program *program, bool is_balloon)
{
    switch (take(program, 1) % 12) {
    case 0:
        start(rig, program);
        break;
    case 1:
        rig_write(rig, 4 * (take(program, 1) % 0x44), (uint32_t)take(program, 4));
        break;
    case 2:
        any_access(rig, program, true);
        break;
    case 3:
        any_access(rig, program, false);
        break;
    case 4:
    case 5:
        describe(rig, program);
        break;
    case 6:
        publish(rig, program);
        break;
    case 7:
        poke(rig, program);
        break;
    case 8:
        block_request(rig, program);
        break;
    case 9:
        balloon_numbers(rig, program);
        break;
    case 10:
        rewind_alloc(rig);
        rig_set_up_queue(rig, take(program, 1) % VIRTIO_MAX_QUEUES,
                         1 + (uint32_t)(take(program, 1) % 64));
        break;
    case 11:
        if (is_balloon)
            virtio_balloon_set(rig->device, take(program, 4));
        rig_poll(rig, 0);
        break;
    }
}

/* After a reset the least request there is must not be held against the device. */
static void check_device_recovers(struct rig *rig)
{
    rig->next_free_pa = RAM_BASE_PA;
    rig_fill(rig, RAM_BASE_PA, 0, 4 * PAGE_BYTES);
    promise(rig_start(rig, 0, 1), "a driver with no features is accepted after a reset");
    promise(!rig_needs_reset(rig), "the device works after a reset");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct program program = {bytes, size};
    unsigned kind = (unsigned)take(&program, 1);
    struct rig rig;
    int disk_fd = memfd_create("disk", MFD_CLOEXEC);
    promise(disk_fd >= 0 && ftruncate(disk_fd, DISK_BYTES) == 0, "the test has a disk");
    rig_open(&rig, RAM_PAGES);
    rig_attach(&rig, make_device(&rig, kind, disk_fd));
    while (program.left > 0)
        step(&rig, &program, kind % 5 == 2);
    check_device_recovers(&rig);

    const struct pmap_counts *counts = &gmem_stats(rig.gmem)->pages;
    uint64_t pages = 0;
    for (unsigned state = 0; state < PAGE_STATES; state++)
        pages += counts->pages_in[state];
    promise(pages == RAM_PAGES, "every page is in one state");
    struct stat file;
    promise(fstat(disk_fd, &file) == 0 && file.st_size == DISK_BYTES, "the disk keeps its size");
    rig_close(&rig);
    close(disk_fd);
    return 0;
}
