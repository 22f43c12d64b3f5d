/* The block device (virtio 1.2, 5.2) over a small image file. */
#include "tests/dev/virtio_rig.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define RAM_PAGES  512
#define DISK_BYTES (1024 * 1024)
#define SECTORS    (DISK_BYTES / BLOCK_SECTOR_BYTES)
#define WRITE      VIRTQ_DESC_WRITE
#define READ_ONLY  (UINT64_C(1) << BLOCK_F_READ_ONLY)

static char path[64];
static int disk_fd;

/* Sector n of the image holds bytes of value n. */
static int make_disk(void **state)
{
    static uint8_t bytes[DISK_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i / BLOCK_SECTOR_BYTES);
    snprintf(path, sizeof path, "/tmp/virtio-block-test.XXXXXX");
    disk_fd = mkstemp(path);
    return disk_fd >= 0 && write(disk_fd, bytes, sizeof bytes) == sizeof bytes ? 0 : -1;
}

static int remove_disk(void **state)
{
    (void)state;
    close(disk_fd);
    return unlink(path);
}

static int open_rig(void **state, bool read_only)
{
    static struct rig rig;
    if (make_disk(state) != 0)
        return -1;
    rig_open(&rig, RAM_PAGES);
    rig_attach(&rig, virtio_block_new(&rig.env, path, read_only, NULL));
    *state = &rig;
    return rig_start(&rig, read_only ? READ_ONLY : 0, 1) ? 0 : -1;
}

static int set_up(void **state)
{
    return open_rig(state, false);
}

static int set_up_read_only(void **state)
{
    return open_rig(state, true);
}

static int tear_down(void **state)
{
    rig_close(*state);
    return remove_disk(state);
}

/* One request of three pieces: header, `bytes` at pa, status. Returns the status, -1 if the request
 * did not come back. */
static int request(struct rig *rig, uint32_t type, uint64_t sector, uint64_t pa, uint32_t bytes)
{
    struct block_request header = {type, 0, sector};
    uint64_t header_pa = rig_alloc(rig, sizeof header, 16), status_pa = rig_alloc(rig, 1, 1);
    bool to_guest = type == BLOCK_READ || type == BLOCK_GET_ID;
    gmem_write(rig->gmem, header_pa, &header, sizeof header);
    if (bytes)
        rig_offer(rig, 0, {header_pa, sizeof header, 0}, {pa, bytes, to_guest ? WRITE : 0},
                  {status_pa, 1, WRITE});
    else
        rig_offer(rig, 0, {header_pa, sizeof header, 0}, {status_pa, 1, WRITE});
    if (!rig_used(rig, 0, NULL, NULL))
        return -1;
    return *(uint8_t *)rig_host(rig, status_pa);
}

static int range_request(struct rig *rig, uint32_t type, struct block_range range)
{
    uint64_t pa = rig_alloc(rig, sizeof range, 8);
    gmem_write(rig->gmem, pa, &range, sizeof range);
    return request(rig, type, 0, pa, sizeof range);
}

static uint8_t disk_byte(uint64_t offset)
{
    uint8_t byte = 0;
    assert_int_equal(pread(disk_fd, &byte, 1, (off_t)offset), 1);
    return byte;
}

static void count_call(void *ctx)
{
    ++*(unsigned *)ctx;
}

/* 4 GiB in one request is legal, and so is a queue full of them. */
static void a_long_request_lets_a_pause_in(void **state)
{
    struct rig *rig = *state;
    unsigned points = 0;
    uint64_t pa = rig_alloc(rig, DISK_BYTES, PAGE_BYTES);
    rig->device->env.ctx = &points;
    rig->device->env.pause_point = count_call;
    assert_int_equal(request(rig, BLOCK_READ, 0, pa, DISK_BYTES), BLOCK_OK);
    assert_true(points >= DISK_BYTES / (VIRTQ_WINDOW_PAGES * PAGE_BYTES));
    /* and one each time before it looks for another chain */
    unsigned before = points;
    assert_int_equal(request(rig, BLOCK_FLUSH, 0, 0, 0), BLOCK_OK);
    assert_int_equal(points - before, 2);
}

static void config_describes_the_disk(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_CONFIG), SECTORS);
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_CONFIG + offsetof(struct block_config, blk_size)),
                     512);
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_CONFIG + offsetof(struct block_config, seg_max)),
                     126);
}

static void sectors_are_read(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, 3 * PAGE_BYTES, PAGE_BYTES) + 100; /* unaligned, three pages */
    assert_int_equal(request(rig, BLOCK_READ, 5, pa, 16 * 512), BLOCK_OK);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(*(uint8_t *)rig_host(rig, pa + i * 512), 5 + i);
        assert_int_equal(*(uint8_t *)rig_host(rig, pa + i * 512 + 511), 5 + i);
    }
    assert_int_equal(gmem_stats(rig->gmem)->disk_read_bytes, 16 * 512);
}

static void sectors_are_written(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, 2 * PAGE_BYTES, PAGE_BYTES);
    rig_fill(rig, pa, 0xab, 2 * PAGE_BYTES);
    assert_int_equal(request(rig, BLOCK_WRITE, SECTORS - 16, pa, 2 * PAGE_BYTES), BLOCK_OK);
    assert_int_equal(disk_byte(DISK_BYTES - 2 * PAGE_BYTES), 0xab);
    assert_int_equal(disk_byte(DISK_BYTES - 1), 0xab);
    assert_int_equal(disk_byte(DISK_BYTES - 2 * PAGE_BYTES - 1), (uint8_t)(SECTORS - 17));
    assert_int_equal(request(rig, BLOCK_FLUSH, 0, 0, 0), BLOCK_OK);
}

/* More pages than one window holds. */
static void large_requests_pass_through_small_windows(void **state)
{
    struct rig *rig = *state;
    const uint32_t bytes = (2 * VIRTQ_WINDOW_PAGES + 7) * PAGE_BYTES;
    uint64_t pa = rig_alloc(rig, bytes, PAGE_BYTES);
    assert_int_equal(request(rig, BLOCK_READ, 0, pa, bytes), BLOCK_OK);
    for (uint32_t at = 0; at < bytes; at += 512)
        assert_int_equal(*(uint8_t *)rig_host(rig, pa + at), (uint8_t)(at / 512));
}

/* A driver may cut a request into descriptors as it likes (2.7.4). */
static void descriptors_may_be_cut_anywhere(void **state)
{
    struct rig *rig = *state;
    struct block_request header = {BLOCK_READ, 0, 9};
    uint64_t header_pa = rig_alloc(rig, sizeof header, 1), pa = rig_alloc(rig, 513, 1);
    gmem_write(rig->gmem, header_pa, &header, sizeof header);
    rig_offer(rig, 0, {header_pa, 3, 0}, {header_pa + 3, 13, 0}, {pa, 100, WRITE},
              {pa + 100, 413, WRITE});
    uint32_t len;
    assert_true(rig_used(rig, 0, NULL, &len));
    assert_int_equal(len, 513);
    assert_int_equal(*(uint8_t *)rig_host(rig, pa + 511), 9);
    assert_int_equal(*(uint8_t *)rig_host(rig, pa + 512), BLOCK_OK);
}

static void accesses_outside_the_disk_fail(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, PAGE_BYTES, PAGE_BYTES);
    const struct {
        uint64_t sector;
        uint32_t bytes;
    } cases[] = {
        {SECTORS, 512},
        {SECTORS - 1, 1024},
        {UINT64_MAX, 512},
        {UINT64_MAX / 512, 512},
        {UINT64_C(1) << 55, 512},
        {0, 511},
        {0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(request(rig, BLOCK_READ, cases[i].sector, pa, cases[i].bytes),
                         BLOCK_IOERR);
        assert_int_equal(request(rig, BLOCK_WRITE, cases[i].sector, pa, cases[i].bytes),
                         BLOCK_IOERR);
    }
    assert_false(rig_needs_reset(rig));
    assert_int_equal(lseek(disk_fd, 0, SEEK_END), DISK_BYTES);
}

static void image_that_shrank_gives_io_errors(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, PAGE_BYTES, PAGE_BYTES);
    assert_int_equal(ftruncate(disk_fd, 512), 0);
    assert_int_equal(request(rig, BLOCK_READ, 0, pa, 1024), BLOCK_IOERR);
    assert_int_equal(request(rig, BLOCK_READ, 0, pa, 512), BLOCK_OK);
}

/* An image that the host refuses to write (here a sealed one, as it might be a full file system).
 */
static void errors_of_the_host_come_back_as_io_errors(void **state)
{
    static struct rig rig;
    char sealed_path[64];
    (void)state;
    int fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    snprintf(sealed_path, sizeof sealed_path, "/proc/self/fd/%d", fd);
    assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    rig_open(&rig, RAM_PAGES);
    rig_attach(&rig, virtio_block_new(&rig.env, sealed_path, false, NULL));
    rig_start(&rig, 0, 1);
    uint64_t pa = rig_alloc(&rig, PAGE_BYTES, PAGE_BYTES);
    assert_int_equal(request(&rig, BLOCK_WRITE, 0, pa, PAGE_BYTES), BLOCK_IOERR);
    assert_int_equal(range_request(&rig, BLOCK_DISCARD, (struct block_range){0, 8, 0}),
                     BLOCK_IOERR);
    assert_int_equal(range_request(&rig, BLOCK_WRITE_ZEROES, (struct block_range){0, 8, 0}),
                     BLOCK_IOERR);
    assert_int_equal(request(&rig, BLOCK_READ, 0, pa, PAGE_BYTES), BLOCK_OK);
    assert_false(rig_needs_reset(&rig));
    rig_close(&rig);
    close(fd);
}

static void unknown_requests_are_unsupported(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(request(rig, 77, 0, 0, 0), BLOCK_UNSUPPORTED);
    assert_int_equal(request(rig, 2, 0, 0, 0), BLOCK_UNSUPPORTED);
}

static void id_is_the_file_name(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, BLOCK_ID_BYTES, 1);
    assert_int_equal(request(rig, BLOCK_GET_ID, 0, pa, BLOCK_ID_BYTES), BLOCK_OK);
    assert_memory_equal(rig_host(rig, pa), strrchr(path, '/') + 1, BLOCK_ID_BYTES);
    assert_int_equal(request(rig, BLOCK_GET_ID, 0, pa, 5), BLOCK_IOERR);
}

static void discarded_sectors_are_given_back_to_the_file_system(void **state)
{
    struct rig *rig = *state;
    struct stat before, after;
    fsync(disk_fd);
    assert_int_equal(fstat(disk_fd, &before), 0);
    assert_int_equal(range_request(rig, BLOCK_DISCARD, (struct block_range){256, 1024, 0}),
                     BLOCK_OK);
    assert_int_equal(fstat(disk_fd, &after), 0);
    assert_int_equal(disk_byte(256 * 512), 0);
    assert_true(after.st_blocks < before.st_blocks);
    assert_int_equal(after.st_size, DISK_BYTES);
}

static void zeroes_are_written(void **state)
{
    struct rig *rig = *state;
    for (uint32_t flags = 0; flags <= BLOCK_RANGE_UNMAP; flags++) {
        uint64_t sector = 9 + 40 * flags;
        assert_int_equal(
            range_request(rig, BLOCK_WRITE_ZEROES, (struct block_range){sector, 11, flags}),
            BLOCK_OK);
        assert_int_equal(disk_byte(sector * 512 - 1), sector - 1);
        assert_int_equal(disk_byte(sector * 512), 0);
        assert_int_equal(disk_byte((sector + 11) * 512 - 1), 0);
        assert_int_equal(disk_byte((sector + 11) * 512), sector + 11);
    }
}

static void impossible_ranges_are_refused(void **state)
{
    struct rig *rig = *state;
    const struct {
        struct block_range range;
        enum block_status status;
    } cases[] = {
        {{SECTORS, 1, 0}, BLOCK_IOERR},    {{UINT64_MAX, 2, 0}, BLOCK_IOERR},
        {{0, UINT32_MAX, 0}, BLOCK_IOERR}, {{0, 1, BLOCK_RANGE_UNMAP}, BLOCK_UNSUPPORTED},
        {{0, 1, 0x80}, BLOCK_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(range_request(rig, BLOCK_DISCARD, cases[i].range), cases[i].status);
    uint64_t pa = rig_alloc(rig, PAGE_BYTES, 8);
    assert_int_equal(request(rig, BLOCK_DISCARD, 0, pa, 15), BLOCK_UNSUPPORTED);
    assert_int_equal(request(rig, BLOCK_DISCARD, 0, pa, 17 * 16), BLOCK_UNSUPPORTED);
    assert_int_equal(request(rig, BLOCK_WRITE_ZEROES, 0, 0, 0), BLOCK_UNSUPPORTED);
}

static void read_only_disk_is_not_changed(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, PAGE_BYTES, PAGE_BYTES);
    assert_int_equal(request(rig, BLOCK_READ, 3, pa, 512), BLOCK_OK);
    assert_int_equal(*(uint8_t *)rig_host(rig, pa), 3);
    rig_fill(rig, pa, 0xab, 512);
    assert_int_equal(request(rig, BLOCK_WRITE, 3, pa, 512), BLOCK_IOERR);
    assert_int_equal(range_request(rig, BLOCK_DISCARD, (struct block_range){0, 8, 0}), BLOCK_IOERR);
    assert_int_equal(request(rig, BLOCK_FLUSH, 0, 0, 0), BLOCK_OK);
    assert_int_equal(disk_byte(3 * 512), 3);
}

static void request_without_status_needs_a_reset(void **state)
{
    struct rig *rig = *state;
    rig_offer(rig, 0, {rig_alloc(rig, 16, 16), 16, 0});
    assert_true(rig_needs_reset(rig));
}

static void request_without_header_needs_a_reset(void **state)
{
    struct rig *rig = *state;
    rig_offer(rig, 0, {rig_alloc(rig, 15, 16), 15, 0}, {rig_alloc(rig, 1, 1), 1, WRITE});
    assert_true(rig_needs_reset(rig));
}

static void impossible_images_are_refused_with_a_reason(void **state)
{
    struct rig rig;
    struct err err = {0};
    (void)state;
    rig_open(&rig, 16);
    assert_null(virtio_block_new(&rig.env, "/no/such/disk.img", false, &err));
    assert_non_null(strstr(err.text, "/no/such/disk.img"));
    assert_null(virtio_block_new(&rig.env, "/tmp", true, &err));
    assert_null(virtio_block_new(&rig.env, "/dev/null", true, &err));
    /* Two machines must not write one image. */
    struct virtio_device *first = virtio_block_new(&rig.env, path, false, &err);
    assert_non_null(first);
    assert_null(virtio_block_new(&rig.env, path, true, &err));
    assert_non_null(strstr(err.text, "in use"));
    virtio_device_free(first);
    assert_int_equal(ftruncate(disk_fd, 511), 0);
    assert_null(virtio_block_new(&rig.env, path, false, &err));
    assert_non_null(strstr(err.text, "empty"));
    rig_close(&rig);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(config_describes_the_disk),
        CASE(a_long_request_lets_a_pause_in),
        CASE(sectors_are_read),
        CASE(sectors_are_written),
        CASE(large_requests_pass_through_small_windows),
        CASE(descriptors_may_be_cut_anywhere),
        CASE(accesses_outside_the_disk_fail),
        CASE(image_that_shrank_gives_io_errors),
        cmocka_unit_test(errors_of_the_host_come_back_as_io_errors),
        CASE(unknown_requests_are_unsupported),
        CASE(id_is_the_file_name),
        CASE(discarded_sectors_are_given_back_to_the_file_system),
        CASE(zeroes_are_written),
        CASE(impossible_ranges_are_refused),
        cmocka_unit_test_setup_teardown(read_only_disk_is_not_changed, set_up_read_only, tear_down),
        CASE(request_without_status_needs_a_reset),
        CASE(request_without_header_needs_a_reset),
        cmocka_unit_test_setup_teardown(impossible_images_are_refused_with_a_reason, make_disk,
                                        remove_disk),
    };
    return cmocka_run_group_tests_name("virtio block", tests, NULL, NULL);
}
