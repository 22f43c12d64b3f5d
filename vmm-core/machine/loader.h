/*
 * What is loaded into a new guest: a RISC-V Linux kernel as Debian ships it, and
 * an initial RAM disk; and where they go in guest RAM.
 *
 * Kernels taken: an Image (Documentation/arch/riscv/boot-image-header in Linux),
 * with or without the EFI stub; the same packed with gzip; the EFI zboot form
 * ("zimg") with a gzip payload. Everything else is refused by name.
 *
 * RAM, from its base (RAM_BASE_PA):
 *     text_offset (2 MiB)   kernel, image_size bytes, its bss included
 *     ...                   free
 *     below the top         initrd, page aligned
 *     last 2 MiB            device tree
 */
#ifndef BALLAST_LOADER_H
#define BALLAST_LOADER_H

#include "vmm-core/machine/image_stream.h"

struct kernel_image {
    int fd;
    char *path;
    struct image_stream stream; /* at byte 0 of the Image */
    uint64_t text_offset;       /* from the base of RAM */
    uint64_t image_bytes;       /* memory it needs from there, bss included */
    uint64_t file_bytes;        /* bytes of the Image, when known; else 0 */
};

/* Open path and check that it is a kernel we can start; leaves nothing open on failure. *err says
 * what the file is instead. */
int kernel_image_open(struct kernel_image *image, const char *path, struct err *err);
void kernel_image_close(struct kernel_image *image);

struct initrd_image {
    int fd; /* -1: none */
    char *path;
    uint64_t bytes;
};
/* path may be NULL: no initrd. Unpacking is the guest's. */
int initrd_image_open(struct initrd_image *image, const char *path, struct err *err);
void initrd_image_close(struct initrd_image *image);

#define DEVICE_TREE_MAX_BYTES UINT64_C(65536)

struct load_plan { /* guest physical addresses */
    uint64_t kernel_pa, kernel_end_pa;
    uint64_t initrd_pa, initrd_end_pa; /* equal: none */
    uint64_t device_tree_pa;
};
/* -1 with *err when RAM is too small for them. */
int load_plan_make(struct load_plan *plan, uint64_t ram_bytes, const struct kernel_image *kernel,
                   const struct initrd_image *initrd, struct err *err);

/* Where bytes go: true when written. Never called outside the plan's ranges. */
struct load_target {
    void *ctx;
    bool (*write)(void *ctx, uint64_t pa, const void *bytes, size_t len);
};
/* Copy them to their places. Pages of zeros are left alone: RAM of a new guest is zero, and costs
 * no frame until it is touched. */
int load_kernel(struct kernel_image *kernel, const struct load_plan *plan,
                const struct load_target *target, struct err *err);
int load_initrd(const struct initrd_image *initrd, const struct load_plan *plan,
                const struct load_target *target, struct err *err);

#endif
