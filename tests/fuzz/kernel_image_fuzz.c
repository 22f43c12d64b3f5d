/*
 * Kernel files: whatever the bytes, opening, planning and loading end in an error or
 * in a kernel that lies inside RAM.
 */
#include "vmm-core/machine/loader.h"

#include "shadow-pt/addr.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_BYTES (UINT64_C(16) << 20)

static bool check_write(void *ctx, uint64_t pa, const void *bytes, size_t len)
{
    const struct load_plan *plan = ctx;
    const uint8_t *at = bytes;
    if (pa < plan->kernel_pa || pa + len > plan->kernel_end_pa || len == 0 ||
        pa + len > RAM_BASE_PA + RAM_BYTES)
        abort();
    return at[0] + at[len - 1] >= 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char path[64];
    struct kernel_image kernel;
    struct initrd_image initrd = {.fd = -1};
    struct load_plan plan;
    struct err err = {0};
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int result = kernel_image_open(&kernel, path, &err);
    if (result == 0) {
        result = load_plan_make(&plan, RAM_BYTES, &kernel, &initrd, &err);
        if (result == 0)
            result = load_kernel(&kernel, &plan,
                                 &(struct load_target){.ctx = &plan, .write = check_write}, &err);
        kernel_image_close(&kernel);
    }
    if (result != 0 && !strstr(err.text, path)) /* an error that does not name the file */
        abort();
    close(fd);
    return 0;
}
