/*
 * Layout of a VM's shared region: header, the two rings, the pmap, the collected
 * and the hot bits, each on a page boundary, in that order. Written once by the supervisor before
 * the worker exists. The worker believes the header, for the supervisor made it and the seal keeps
 * its size; the supervisor never reads offsets back from the region, which the worker could have
 * changed, but computes them again.
 */
#include "vmm-core/vm_region.h"

static uint64_t page_align(uint64_t bytes)
{
    return (bytes + PAGE_BYTES - 1) & PAGE_MASK;
}

static uint64_t to_worker_offset(void)
{
    return page_align(sizeof(struct vm_region));
}

static uint64_t to_supervisor_offset(void)
{
    return to_worker_offset() + page_align(sizeof(struct ring));
}

static uint64_t pmap_offset(void)
{
    return to_supervisor_offset() + page_align(sizeof(struct ring));
}

static uint64_t collected_offset(uint32_t ram_pages)
{
    return pmap_offset() + page_align((uint64_t)ram_pages * sizeof(uint64_t));
}

static uint64_t bits_bytes(uint32_t ram_pages)
{
    return page_align(((uint64_t)ram_pages + 63) / 64 * sizeof(uint64_t));
}

static uint64_t hot_offset(uint32_t ram_pages)
{
    return collected_offset(ram_pages) + bits_bytes(ram_pages);
}

uint64_t vm_region_bytes(uint32_t ram_pages)
{
    return hot_offset(ram_pages) + bits_bytes(ram_pages);
}

void vm_region_init(struct vm_region *region, uint32_t ram_pages, uint32_t machine_pages)
{
    region->magic = VM_REGION_MAGIC;
    region->layout_version = VM_REGION_LAYOUT;
    region->ram_pages = ram_pages;
    region->machine_pages = machine_pages;
    region->to_worker_offset = to_worker_offset();
    region->to_supervisor_offset = to_supervisor_offset();
    region->pmap_offset = pmap_offset();
    region->collected_offset = collected_offset(ram_pages);
    region->hot_offset = hot_offset(ram_pages);
    region->region_bytes = vm_region_bytes(ram_pages);
    atomic_store_explicit(&region->stats.pages.pages_in[PAGE_ABSENT], ram_pages,
                          memory_order_relaxed);
    for (unsigned tag = 0; tag < BALLOON_STAT_TAGS; tag++)
        atomic_store_explicit(&region->stats.balloon_stats[tag], UINT64_MAX, memory_order_relaxed);
}

struct ring *vm_region_to_worker(struct vm_region *region)
{
    return (struct ring *)((char *)region + to_worker_offset());
}

struct ring *vm_region_to_supervisor(struct vm_region *region)
{
    return (struct ring *)((char *)region + to_supervisor_offset());
}

_Atomic uint64_t *vm_region_pmap(struct vm_region *region)
{
    return (_Atomic uint64_t *)((char *)region + pmap_offset());
}

_Atomic uint64_t *vm_region_collected(struct vm_region *region, uint32_t ram_pages)
{
    return (_Atomic uint64_t *)((char *)region + collected_offset(ram_pages));
}

_Atomic uint64_t *vm_region_hot(struct vm_region *region, uint32_t ram_pages)
{
    return (_Atomic uint64_t *)((char *)region + hot_offset(ram_pages));
}
