/*
 * Telling kernels from other files. The first bytes of a file are looked up in a
 * table of known beginnings, each with what to do: take it, unwrap it, or say
 * what it is. A wrapped kernel is unwrapped at most twice (zboot, then gzip),
 * and only to a plain Image.
 */
#include "vmm-core/machine/loader.h"

#include "shadow-pt/addr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_BYTES    64u
#define PROBE_BYTES     4096u /* has all headers, the boot sector of an x86 bzImage included */
#define MAX_IMAGE_BYTES (UINT64_C(1) << 30)
#define ELF_RISCV       243

/* Offsets in an Image's header. */
#define IMAGE_TEXT_OFFSET 8
#define IMAGE_SIZE        16
#define IMAGE_FLAGS       24
#define IMAGE_MAGIC2      56
#define IMAGE_PE_HEADER   60
#define IMAGE_BIG_ENDIAN  1u

/* Offsets in the PE header of an EFI-wrapped Image, and in its section headers. */
#define PE_SECTIONS          6
#define PE_OPTIONAL_BYTES    20
#define PE_HEADER_BYTES      24
#define SECTION_HEADER_BYTES 40
#define SECTION_RAW_BYTES    16
#define SECTION_RAW_OFFSET   20

/* Offsets in an EFI zboot file's header. */
#define ZBOOT_PAYLOAD_OFFSET 8
#define ZBOOT_PAYLOAD_BYTES  12
#define ZBOOT_COMPRESSION    24

enum wrapping { FOREIGN, IMAGE, GZIP, ZBOOT, ELF };

struct beginning {
    unsigned offset, len;
    const char *bytes;
    enum wrapping wrapping;
    const char *what;
};

/* In order: an EFI-wrapped Image begins with "MZ" too, so "MZ" alone comes last. */
static const struct beginning beginnings[] = {
    {IMAGE_MAGIC2, 4, "RSC\x05", IMAGE, "RISC-V Image"},
    {4, 4, "zimg", ZBOOT, "EFI zboot image"},
    {0, 2, "\x1f\x8b", GZIP, "gzip"},
    {0, 4,
     "\x7f"
     "ELF",
     ELF, "ELF file"},
    {0x202, 4, "HdrS", FOREIGN, "an x86 bzImage"},
    {IMAGE_MAGIC2, 4, "ARM\x64", FOREIGN, "an arm64 Image"},
    {0, 6,
     "\xfd"
     "7zXZ\0",
     FOREIGN, "packed with xz; unpack it first (gzip is taken as it is)"},
    {0, 4, "\x28\xb5\x2f\xfd", FOREIGN,
     "packed with zstd; unpack it first (gzip is taken as it is)"},
    {0, 3, "BZh", FOREIGN, "packed with bzip2; unpack it first (gzip is taken as it is)"},
    {0, 4, "\x27\x05\x19\x56", FOREIGN, "a U-Boot image"},
    {0, 2, "MZ", FOREIGN, "an EFI program, but no RISC-V kernel"},
};

static const struct beginning *find_beginning(const uint8_t *probe, size_t len)
{
    for (size_t i = 0; i < sizeof beginnings / sizeof beginnings[0]; i++) {
        const struct beginning *b = &beginnings[i];
        if (b->offset + b->len <= len && !memcmp(probe + b->offset, b->bytes, b->len))
            return b;
    }
    return NULL;
}

static uint64_t get_le(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;
    memcpy(&value, at, bytes); /* the host is little-endian */
    return value;
}

static int refuse_elf(const char *path, const uint8_t *probe, size_t len, struct err *err)
{
    uint64_t machine = len >= 20 ? get_le(probe + 18, 2) : 0;
    if (machine == ELF_RISCV)
        return err_set(err, 0,
                       "%s: is a RISC-V ELF file; give the kernel's Image instead "
                       "(arch/riscv/boot/Image, or Debian's /boot/vmlinux-*)",
                       path);
    return err_set(err, 0, "%s: is an ELF file for another machine (e_machine %llu)", path,
                   (unsigned long long)machine);
}

/* Take the Image's header apart and distrust each number. */
static int parse_header(struct kernel_image *image, const uint8_t *header, struct err *err)
{
    uint64_t flags = get_le(header + IMAGE_FLAGS, 8);
    image->text_offset = get_le(header + IMAGE_TEXT_OFFSET, 8);
    image->image_bytes = get_le(header + IMAGE_SIZE, 8);
    if (flags & IMAGE_BIG_ENDIAN)
        return err_set(err, 0, "%s: is a big-endian kernel", image->path);
    if (image->image_bytes < HEADER_BYTES || image->image_bytes > MAX_IMAGE_BYTES)
        return err_set(err, 0, "%s: impossible image size %llu in the kernel's header", image->path,
                       (unsigned long long)image->image_bytes);
    if (image->text_offset > MAX_IMAGE_BYTES || image->text_offset & (PAGE_BYTES - 1))
        return err_set(err, 0, "%s: impossible text offset 0x%llx in the kernel's header",
                       image->path, (unsigned long long)image->text_offset);
    if (image->file_bytes > image->image_bytes)
        return err_set(err, 0, "%s: the kernel is %llu bytes long, its header says %llu",
                       image->path, (unsigned long long)image->file_bytes,
                       (unsigned long long)image->image_bytes);
    return 0;
}

/* An Image's own header does not say how long the file is (its bss is not in it), but the section
 * table of its EFI wrapping does. Returns 0 when there is none. */
static uint64_t wrapped_bytes(const uint8_t *probe, size_t len)
{
    uint64_t pe = get_le(probe + IMAGE_PE_HEADER, 4), end = 0;
    if (memcmp(probe, "MZ", 2) != 0 || pe + PE_HEADER_BYTES > len ||
        memcmp(probe + pe, "PE\0", 4) != 0)
        return 0;
    uint64_t section = pe + PE_HEADER_BYTES + get_le(probe + pe + PE_OPTIONAL_BYTES, 2);
    for (uint64_t left = get_le(probe + pe + PE_SECTIONS, 2);
         left && section + SECTION_HEADER_BYTES <= len; left--, section += SECTION_HEADER_BYTES) {
        uint64_t section_end = get_le(probe + section + SECTION_RAW_OFFSET, 4) +
                               get_le(probe + section + SECTION_RAW_BYTES, 4);
        end = section_end > end ? section_end : end;
    }
    return end;
}

static int check_length(const struct kernel_image *image, const uint8_t *probe, size_t len,
                        struct err *err)
{
    uint64_t bytes = wrapped_bytes(probe, len);
    if (len < HEADER_BYTES)
        return err_set(err, 0, "%s: is too short for a kernel: truncated", image->path);
    if (image->file_bytes && bytes > image->file_bytes)
        return err_set(err, 0, "%s: the kernel is %llu bytes long, the file only %llu: truncated",
                       image->path, (unsigned long long)bytes,
                       (unsigned long long)image->file_bytes);
    return 0;
}

/* The part of the file that a zboot header names. */
static int parse_zboot(const char *path, const uint8_t *probe, uint64_t file_bytes,
                       uint64_t *offset, uint64_t *length, struct err *err)
{
    *offset = get_le(probe + ZBOOT_PAYLOAD_OFFSET, 4);
    *length = get_le(probe + ZBOOT_PAYLOAD_BYTES, 4);
    const char *compression = (const char *)probe + ZBOOT_COMPRESSION;
    if (memcmp(compression, "gzip", sizeof "gzip") != 0)
        return err_set(err, 0, "%s: is an EFI zboot image packed with '%.8s'; only gzip is taken",
                       path, compression);
    if (*offset > file_bytes || *length > file_bytes - *offset)
        return err_set(err, 0, "%s: the EFI zboot payload lies outside the file: truncated", path);
    return 0;
}

/* Read the beginning of a stream and close it again. */
static int probe_stream(struct kernel_image *image, uint64_t offset, uint64_t length, bool gzip,
                        uint8_t *probe, size_t *len, struct err *err)
{
    struct image_stream stream;
    if (image_stream_open(&stream, image->fd, image->path, offset, length, gzip, err))
        return -1;
    int result = image_stream_read(&stream, probe, PROBE_BYTES, len, err);
    image_stream_close(&stream);
    return result;
}

static int unwrap(struct kernel_image *image, uint64_t file_bytes, struct err *err)
{
    uint64_t offset = 0, length = file_bytes;
    bool gzip = false;
    for (;;) {
        uint8_t probe[PROBE_BYTES] = {0};
        size_t len;
        if (probe_stream(image, offset, length, gzip, probe, &len, err))
            return -1;
        const struct beginning *beginning = find_beginning(probe, len);
        if (!beginning)
            return err_set(err, 0, "%s: %sis not a RISC-V Linux kernel", image->path,
                           len < HEADER_BYTES ? "is too short, " : "");
        if (beginning->wrapping == ELF)
            return refuse_elf(image->path, probe, len, err);
        if (beginning->wrapping == FOREIGN)
            return err_set(err, 0, "%s: is not a RISC-V Linux kernel: it is %s", image->path,
                           beginning->what);
        if (beginning->wrapping == IMAGE) {
            image->file_bytes = gzip ? 0 : length;
            return check_length(image, probe, len, err) || parse_header(image, probe, err) ||
                           image_stream_open(&image->stream, image->fd, image->path, offset, length,
                                             gzip, err)
                       ? -1
                       : 0;
        }
        if (gzip)
            return err_set(err, 0, "%s: is packed twice", image->path);
        if (beginning->wrapping == ZBOOT &&
            parse_zboot(image->path, probe, file_bytes, &offset, &length, err))
            return -1;
        gzip = true;
    }
}

/* Open a regular file; *bytes is its length. */
static int open_file(const char *path, const char *what, uint64_t *bytes, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0)
        return err_set(err, errno, "%s %s", what, path);
    if (fstat(fd, &status)) {
        err_set(err, errno, "%s %s", what, path);
    } else if (!S_ISREG(status.st_mode)) {
        err_set(err, 0, "%s %s: is not a regular file", what, path);
    } else if (status.st_size == 0) {
        err_set(err, 0, "%s %s: is empty", what, path);
    } else {
        *bytes = (uint64_t)status.st_size;
        return fd;
    }
    close(fd);
    return -1;
}

int kernel_image_open(struct kernel_image *image, const char *path, struct err *err)
{
    *image = (struct kernel_image){.fd = -1};
    uint64_t bytes = 0;
    image->fd = open_file(path, "kernel", &bytes, err);
    if (image->fd < 0)
        return -1;
    image->path = strdup(path);
    if (!image->path) {
        err_set(err, ENOMEM, "kernel %s", path);
    } else if (unwrap(image, bytes, err)) {
        err_prefix(err, "kernel");
    } else {
        return 0;
    }
    kernel_image_close(image);
    return -1;
}

void kernel_image_close(struct kernel_image *image)
{
    image_stream_close(&image->stream);
    if (image->fd >= 0)
        close(image->fd);
    free(image->path);
    *image = (struct kernel_image){.fd = -1};
}

int initrd_image_open(struct initrd_image *image, const char *path, struct err *err)
{
    *image = (struct initrd_image){.fd = -1};
    if (!path)
        return 0;
    image->fd = open_file(path, "initrd", &image->bytes, err);
    if (image->fd < 0)
        return -1;
    image->path = strdup(path);
    if (!image->path) {
        initrd_image_close(image);
        return err_set(err, ENOMEM, "initrd %s", path);
    }
    return 0;
}

void initrd_image_close(struct initrd_image *image)
{
    if (image->fd >= 0)
        close(image->fd);
    free(image->path);
    *image = (struct initrd_image){.fd = -1};
}
