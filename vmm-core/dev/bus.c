/*
 * The bus: a short table searched in order; a machine has some twenty ranges
 * and a device access costs far more than the search.
 */
#include "vmm-core/dev/device.h"

int bus_add(struct bus *bus, const struct bus_range *range, struct err *err)
{
    uint64_t end = range->base_pa + range->bytes;
    if (range->bytes == 0 || end < range->base_pa)
        return err_set(err, 0, "device %s has an impossible range", range->name);
    if (bus->count == BUS_MAX_RANGES)
        return err_set(err, 0, "no room on the bus for device %s", range->name);
    for (unsigned i = 0; i < bus->count; i++) {
        const struct bus_range *other = &bus->ranges[i];
        if (range->base_pa < other->base_pa + other->bytes && other->base_pa < end)
            return err_set(err, 0, "devices %s and %s overlap", range->name, other->name);
    }
    bus->ranges[bus->count++] = *range;
    return 0;
}

static const struct bus_range *bus_find(const struct bus *bus, uint64_t pa, unsigned size)
{
    for (unsigned i = 0; i < bus->count; i++) {
        const struct bus_range *range = &bus->ranges[i];
        uint64_t offset = pa - range->base_pa;
        if (pa >= range->base_pa && offset < range->bytes)
            return size <= range->bytes - offset ? range : NULL;
    }
    return NULL;
}

static uint64_t low_bytes(uint64_t value, unsigned size)
{
    return size >= 8 ? value : value & ((UINT64_C(1) << (size * 8)) - 1);
}

bool bus_load(const struct bus *bus, uint64_t pa, unsigned size, uint64_t *value)
{
    const struct bus_range *range = bus_find(bus, pa, size);
    uint64_t loaded = 0;
    if (!range || !range->load(range->device, pa - range->base_pa, size, &loaded))
        return false;
    *value = low_bytes(loaded, size);
    return true;
}

bool bus_store(const struct bus *bus, uint64_t pa, unsigned size, uint64_t value)
{
    const struct bus_range *range = bus_find(bus, pa, size);
    return range && range->store(range->device, pa - range->base_pa, size, low_bytes(value, size));
}
