/* Placing kernel, initrd and device tree in RAM, and copying them there page by page. */
#include "vmm-core/machine/loader.h"

#include "shadow-pt/addr.h"

#include <inttypes.h>
#include <string.h>

#define DEVICE_TREE_AREA_BYTES (UINT64_C(2) << 20)
#define MIB(bytes)             ((unsigned long long)((bytes) >> 20))

int load_plan_make(struct load_plan *plan, uint64_t ram_bytes, const struct kernel_image *kernel,
                   const struct initrd_image *initrd, struct err *err)
{
    /* All sizes are bounded (RAM and files by 2^40 or so), so that no sum wraps. */
    uint64_t device_tree_offset =
        (ram_bytes - DEVICE_TREE_AREA_BYTES) & ~(DEVICE_TREE_AREA_BYTES - 1);
    uint64_t kernel_end = kernel->text_offset + kernel->image_bytes;
    if (ram_bytes < 2 * DEVICE_TREE_AREA_BYTES || kernel_end > device_tree_offset)
        return err_set(err, 0, "%s: the kernel ends %llu MiB into RAM, but there are only %llu MiB",
                       kernel->path, MIB(kernel_end) + 1, MIB(ram_bytes));
    if (initrd->bytes > device_tree_offset - kernel_end)
        return err_set(err, 0,
                       "%s: the initrd of %llu MiB does not fit between the kernel and the end of "
                       "%llu MiB of RAM",
                       initrd->path, MIB(initrd->bytes), MIB(ram_bytes));
    uint64_t initrd_offset = (device_tree_offset - initrd->bytes) & PAGE_MASK;
    if (initrd_offset < kernel_end && initrd->bytes)
        return err_set(err, 0, "%s: the initrd does not fit behind the kernel", initrd->path);
    *plan = (struct load_plan){
        .kernel_pa = RAM_BASE_PA + kernel->text_offset,
        .kernel_end_pa = RAM_BASE_PA + kernel_end,
        .initrd_pa = RAM_BASE_PA + initrd_offset,
        .initrd_end_pa = RAM_BASE_PA + initrd_offset + initrd->bytes,
        .device_tree_pa = RAM_BASE_PA + device_tree_offset,
    };
    return 0;
}

static bool all_zero(const uint8_t *bytes, size_t len)
{
    return len == 0 || (bytes[0] == 0 && !memcmp(bytes, bytes + 1, len - 1));
}

/* Copy a stream to pa, at most limit bytes. */
static int copy_stream(struct image_stream *stream, uint64_t pa, uint64_t limit,
                       const struct load_target *target, struct err *err)
{
    uint8_t page[PAGE_BYTES];
    uint64_t done = 0;
    for (;;) {
        size_t got;
        if (image_stream_read(stream, page, sizeof page, &got, err))
            return -1;
        if (got == 0)
            return 0;
        if (got > limit - done)
            return err_set(err, 0, "%s: is longer than its header says", stream->path);
        if (!all_zero(page, got) && !target->write(target->ctx, pa + done, page, got))
            return err_set(err, 0, "%s: could not be written to guest memory at 0x%" PRIx64,
                           stream->path, pa + done);
        done += got;
    }
}

int load_kernel(struct kernel_image *kernel, const struct load_plan *plan,
                const struct load_target *target, struct err *err)
{
    return copy_stream(&kernel->stream, plan->kernel_pa, plan->kernel_end_pa - plan->kernel_pa,
                       target, err);
}

int load_initrd(const struct initrd_image *initrd, const struct load_plan *plan,
                const struct load_target *target, struct err *err)
{
    struct image_stream stream;
    if (initrd->fd < 0)
        return 0;
    if (image_stream_open(&stream, initrd->fd, initrd->path, 0, initrd->bytes, false, err))
        return -1;
    int result = copy_stream(&stream, plan->initrd_pa, initrd->bytes, target, err);
    image_stream_close(&stream);
    return result;
}
