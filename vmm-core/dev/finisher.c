/* The test finisher: a store to its first register says how the machine ends. */
#include "vmm-core/dev/finisher.h"

static bool finisher_load(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    (void)device;
    (void)offset;
    (void)size;
    *value = 0;
    return true;
}

static bool finisher_store(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct finisher *finisher = device;
    (void)size;
    if (offset != 0)
        return true;
    switch (value & 0xffff) {
    case FINISHER_PASS:
        finisher->end(finisher->machine, FINISHER_ENDS_POWEROFF, 0);
        break;
    case FINISHER_RESET:
        finisher->end(finisher->machine, FINISHER_ENDS_REBOOT, 0);
        break;
    case FINISHER_FAIL:
        finisher->end(finisher->machine, FINISHER_ENDS_FAILURE, (uint32_t)(value >> 16 & 0xffff));
        break;
    default: /* other values mean nothing */
        break;
    }
    return true;
}

struct bus_range finisher_range(struct finisher *finisher, uint64_t base_pa)
{
    return (struct bus_range){.name = "finisher",
                              .base_pa = base_pa,
                              .bytes = FINISHER_WINDOW_BYTES,
                              .device = finisher,
                              .load = finisher_load,
                              .store = finisher_store};
}
