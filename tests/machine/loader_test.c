/* Kernels that are taken, files that are refused and by what words, and the plan of RAM. */
#include "vmm-core/machine/loader.h"

#include "shadow-pt/addr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define IMAGE_BYTES 50000u
#define BSS_BYTES   20000u
#define RAM_BYTES   (UINT64_C(64) << 20)

static char path[64];

static void write_file(const void *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    fclose(file);
}

/* An Image with a recognisable body and two pages of zeros in it. */
static void make_image(uint8_t image[IMAGE_BYTES])
{
    uint64_t text_offset = 0x200000, image_bytes = IMAGE_BYTES + BSS_BYTES;
    for (unsigned i = 0; i < IMAGE_BYTES; i++)
        image[i] = (uint8_t)(i * 31 + i / 256);
    memset(image, 0, 64);
    memset(image + 8192, 0, 8192);
    memcpy(image, "MZ", 2);
    memcpy(image + 8, &text_offset, 8);
    memcpy(image + 16, &image_bytes, 8);
    memcpy(image + 48, "RISCV", 5);
    memcpy(image + 56, "RSC\x05", 4);
    /* The EFI wrapping: a PE header with one section that ends with the file. */
    uint32_t pe = 64, raw_offset = 4096, raw_bytes = IMAGE_BYTES - raw_offset;
    memset(image + pe, 0, 64);
    memcpy(image + 60, &pe, 4);
    memcpy(image + pe, "PE\0\0\x64\x50\1\0", 8);
    memcpy(image + pe + 24 + 16, &raw_bytes, 4);
    memcpy(image + pe + 24 + 20, &raw_offset, 4);
}

static size_t gzip_of(const uint8_t *bytes, size_t len, uint8_t *to, size_t room)
{
    z_stream z = {.next_in = (uint8_t *)bytes,
                  .avail_in = (uInt)len,
                  .next_out = to,
                  .avail_out = (uInt)room};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

static size_t zboot_of(const uint8_t *image, const char *compression, uint8_t *to, size_t room)
{
    uint32_t offset = 4096, length;
    memset(to, 0, offset);
    memcpy(to, "MZ\0\0zimg", 8);
    length = (uint32_t)gzip_of(image, IMAGE_BYTES, to + offset, room - offset);
    memcpy(to + 8, &offset, 4);
    memcpy(to + 12, &length, 4);
    strcpy((char *)to + 24, compression);
    return offset + length;
}

/* ---- Guest memory as an array ---- */

static uint8_t *ram;
static uint64_t bytes_written;

static bool write_ram(void *ctx, uint64_t pa, const void *bytes, size_t len)
{
    (void)ctx;
    assert_true(pa >= RAM_BASE_PA && pa + len <= RAM_BASE_PA + RAM_BYTES);
    memcpy(ram + (pa - RAM_BASE_PA), bytes, len);
    bytes_written += len;
    return true;
}

static const struct load_target target = {.write = write_ram};

static int setup(void **state)
{
    (void)state;
    ram = calloc(1, RAM_BYTES);
    bytes_written = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(ram);
    unlink(path);
    return 0;
}

/* Load what path holds as a kernel, and compare guest memory with image. */
static void expect_loaded(const uint8_t *image)
{
    struct kernel_image kernel;
    struct initrd_image none = {.fd = -1};
    struct load_plan plan;
    struct err err = {0};
    if (kernel_image_open(&kernel, path, &err) ||
        load_plan_make(&plan, RAM_BYTES, &kernel, &none, &err) ||
        load_kernel(&kernel, &plan, &target, &err))
        fail_msg("%s", err.text);
    assert_int_equal(plan.kernel_pa, RAM_BASE_PA + 0x200000);
    assert_int_equal(plan.kernel_end_pa - plan.kernel_pa, IMAGE_BYTES + BSS_BYTES);
    assert_memory_equal(ram + 0x200000, image, IMAGE_BYTES);
    kernel_image_close(&kernel);
}

static void an_image_is_taken_plain_and_zero_pages_cost_nothing(void **state)
{
    (void)state;
    uint8_t image[IMAGE_BYTES];
    make_image(image);
    write_file(image, sizeof image);
    expect_loaded(image);
    assert_int_equal(bytes_written, IMAGE_BYTES - 8192);
}

static void an_image_is_taken_from_gzip_and_from_efi_zboot(void **state)
{
    (void)state;
    uint8_t image[IMAGE_BYTES], packed[IMAGE_BYTES + 8192];
    make_image(image);
    write_file(packed, gzip_of(image, sizeof image, packed, sizeof packed));
    expect_loaded(image);
    memset(ram, 0, RAM_BYTES);
    write_file(packed, zboot_of(image, "gzip", packed, sizeof packed));
    expect_loaded(image);
}

/* Opening or loading path fails, and the words say why and name the file. */
static void expect_refused(const char *words)
{
    struct kernel_image kernel;
    struct initrd_image none = {.fd = -1};
    struct load_plan plan;
    struct err err = {0};
    int result = kernel_image_open(&kernel, path, &err);
    if (!result) {
        result = load_plan_make(&plan, RAM_BYTES, &kernel, &none, &err) ||
                         load_kernel(&kernel, &plan, &target, &err)
                     ? -1
                     : 0;
        kernel_image_close(&kernel);
    }
    assert_int_equal(result, -1);
    if (!strstr(err.text, words) || !strstr(err.text, path))
        fail_msg("'%s' does not say '%s' of %s", err.text, words, path);
}

static void a_missing_or_empty_file_or_a_folder_is_refused(void **state)
{
    (void)state;
    unlink(path);
    expect_refused("No such file");
    write_file("", 0);
    expect_refused("is empty");
    char file[sizeof path];
    strcpy(file, path);
    strcpy(path, "/tmp");
    expect_refused("is not a regular file");
    strcpy(path, file);
}

static void foreign_files_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        unsigned offset, len;
        const char *bytes, *words;
    } files[] = {
        {0x202, 4, "HdrS", "x86 bzImage"},
        {56, 4, "ARM\x64", "arm64"},
        {0, 20,
         "\x7f"
         "ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\x3e\0",
         "another machine (e_machine 62)"},
        {0, 20,
         "\x7f"
         "ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\xf3\0",
         "give the kernel's Image"},
        {0, 6,
         "\xfd"
         "7zXZ\0",
         "xz"},
        {0, 4, "\x28\xb5\x2f\xfd", "zstd"},
        {0, 3, "BZh", "bzip2"},
        {0, 2, "MZ", "EFI program, but no RISC-V"},
        {0, 16, "#!/bin/sh\necho 1", "not a RISC-V Linux kernel"},
    };
    for (unsigned i = 0; i < sizeof files / sizeof files[0]; i++) {
        uint8_t bytes[4096] = {0};
        memcpy(bytes + files[i].offset, files[i].bytes, files[i].len);
        write_file(bytes, sizeof bytes);
        expect_refused(files[i].words);
    }
    write_file("x", 1);
    expect_refused("too short");
}

static void truncated_files_are_refused(void **state)
{
    (void)state;
    uint8_t image[IMAGE_BYTES], packed[IMAGE_BYTES + 8192];
    make_image(image);
    size_t len = gzip_of(image, sizeof image, packed, sizeof packed);
    write_file(packed, len / 2);
    expect_refused("truncated");
    write_file(packed, 5);
    expect_refused("truncated");
    len = zboot_of(image, "gzip", packed, sizeof packed);
    write_file(packed, len - 1000);
    expect_refused("truncated");
    write_file(image, 60);
    expect_refused("truncated");
    write_file(image, IMAGE_BYTES - 1);
    expect_refused("truncated");
    write_file(image, 4097);
    expect_refused("truncated");
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    uint8_t image[IMAGE_BYTES], packed[IMAGE_BYTES + 8192];
    make_image(image);
    size_t len = gzip_of(image, sizeof image, packed, sizeof packed);
    packed[len / 2] ^= 0xff;
    packed[len / 2 + 1] ^= 0xff;
    write_file(packed, len);
    expect_refused("damaged");
    len = gzip_of(image, sizeof image, packed, sizeof packed);
    packed[len - 6] ^= 1; /* the checksum */
    write_file(packed, len);
    expect_refused("damaged");
    len = zboot_of(image, "lzma", packed, sizeof packed);
    write_file(packed, len);
    expect_refused("only gzip");
    uint8_t twice[IMAGE_BYTES + 8192];
    len = gzip_of(image, sizeof image, packed, sizeof packed);
    write_file(twice, gzip_of(packed, len, twice, sizeof twice));
    expect_refused("packed twice");
}

static void impossible_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        unsigned offset;
        uint64_t value;
        const char *words;
    } headers[] = {
        {8, 0x200001, "text offset"},
        {8, UINT64_C(1) << 62, "text offset"},
        {16, 0, "image size"},
        {16, UINT64_MAX, "image size"},
        {16, IMAGE_BYTES - 1, "its header says"},
        {16, UINT64_C(63) << 20, "there are only 64 MiB"},
        {24, 1, "big-endian"},
    };
    for (unsigned i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        uint8_t image[IMAGE_BYTES];
        make_image(image);
        memcpy(image + headers[i].offset, &headers[i].value, 8);
        write_file(image, sizeof image);
        expect_refused(headers[i].words);
    }
}

static void a_packed_kernel_longer_than_its_header_says_is_stopped(void **state)
{
    (void)state;
    uint8_t image[IMAGE_BYTES], packed[IMAGE_BYTES + 8192];
    uint64_t image_bytes = 20000;
    make_image(image);
    memcpy(image + 16, &image_bytes, 8);
    write_file(packed, gzip_of(image, sizeof image, packed, sizeof packed));
    expect_refused("longer than its header says");
}

static void the_plan_keeps_everything_apart_and_inside_ram(void **state)
{
    (void)state;
    char kernel_name[] = "kernel", initrd_name[] = "initrd";
    struct err err;
    for (uint64_t ram_mib = 16; ram_mib <= 4096; ram_mib *= 2) {
        for (uint64_t initrd_bytes = 0; initrd_bytes < UINT64_C(5) << 30;
             initrd_bytes = initrd_bytes * 3 + 1) {
            struct kernel_image kernel = {
                .path = kernel_name, .text_offset = 0x200000, .image_bytes = 8 << 20};
            struct initrd_image initrd = {.fd = -1, .path = initrd_name, .bytes = initrd_bytes};
            struct load_plan plan;
            bool fits = (10 << 20) + initrd_bytes + (2 << 20) + 4096 <= ram_mib << 20;
            if (load_plan_make(&plan, ram_mib << 20, &kernel, &initrd, &err)) {
                assert_false(fits);
                continue;
            }
            assert_int_equal(plan.kernel_pa, RAM_BASE_PA + 0x200000);
            assert_true(plan.kernel_end_pa <= plan.initrd_pa);
            assert_int_equal(plan.initrd_end_pa - plan.initrd_pa, initrd_bytes);
            assert_int_equal(plan.initrd_pa % PAGE_BYTES, 0);
            assert_true(plan.initrd_end_pa <= plan.device_tree_pa);
            assert_true(plan.device_tree_pa + DEVICE_TREE_MAX_BYTES <=
                        RAM_BASE_PA + (ram_mib << 20));
        }
    }
}

static void an_initrd_is_copied_to_its_place(void **state)
{
    (void)state;
    char kernel_name[] = "kernel";
    uint8_t bytes[10001];
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 13 + 1);
    write_file(bytes, sizeof bytes);
    struct kernel_image kernel = {
        .path = kernel_name, .text_offset = 0x200000, .image_bytes = 1 << 20};
    struct initrd_image initrd;
    struct load_plan plan;
    assert_int_equal(initrd_image_open(&initrd, path, NULL), 0);
    assert_int_equal(load_plan_make(&plan, RAM_BYTES, &kernel, &initrd, NULL), 0);
    assert_int_equal(load_initrd(&initrd, &plan, &target, NULL), 0);
    assert_memory_equal(ram + (plan.initrd_pa - RAM_BASE_PA), bytes, sizeof bytes);
    initrd_image_close(&initrd);
    struct err err;
    unlink(path);
    assert_int_equal(initrd_image_open(&initrd, path, &err), -1);
    assert_non_null(strstr(err.text, "initrd"));
    assert_int_equal(initrd_image_open(&initrd, NULL, &err), 0);
    assert_int_equal(initrd.fd, -1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    snprintf(path, sizeof path, "/tmp/ballast-loader-test.%d", (int)getpid());
    const struct CMUnitTest tests[] = {
        T(an_image_is_taken_plain_and_zero_pages_cost_nothing),
        T(an_image_is_taken_from_gzip_and_from_efi_zboot),
        T(a_missing_or_empty_file_or_a_folder_is_refused),
        T(foreign_files_are_refused_by_name),
        T(truncated_files_are_refused),
        T(damaged_files_are_refused),
        T(impossible_headers_are_refused),
        T(a_packed_kernel_longer_than_its_header_says_is_stopped),
        T(the_plan_keeps_everything_apart_and_inside_ram),
        T(an_initrd_is_copied_to_its_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
