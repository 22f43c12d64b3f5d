/*
 * The memory one VM's worker shares with the supervisor: one memfd a VM, sealed
 * against resizing. Layout, all offsets multiples of 4096:
 *
 *     struct vm_region        header, statistics, text, grant pool
 *     struct ring to_worker
 *     struct ring to_supervisor
 *     _Atomic uint64_t pmap[ram_pages]
 *     _Atomic uint64_t collected[(ram_pages + 63) / 64]   bit a page, written by WRITTEN
 *     _Atomic uint64_t hot[(ram_pages + 63) / 64]         the same
 *
 * Beside it the worker inherits machine memory (one memfd) and two eventfds.
 * Writer of each field is named. The supervisor reads what the worker writes as
 * hints: it bounds every number before use and decides from its own records.
 */
#ifndef BALLAST_VM_REGION_H
#define BALLAST_VM_REGION_H

#include "shadow-pt/pmap.h"
#include "vmm-core/ring.h"

#define VM_REGION_MAGIC  UINT64_C(0x314d5654534c4142) /* "BALSTVM1" */
#define VM_REGION_LAYOUT 5
#define GRANT_POOL_SLOTS 512u

/* Statistics the guest's balloon driver reports (virtio 1.2, 5.5.6.4); index is the tag. */
#define BALLOON_STAT_TAGS 16u

struct vm_stats { /* writer: worker; relaxed atomics, each true by itself */
    struct pmap_counts pages;
    /* sampling; touched so far: pages.touched_pages */
    _Atomic uint64_t sample_pages;         /* chosen for the period that runs */
    _Atomic uint64_t sample_periods;       /* begun so far */
    _Atomic uint64_t pool_pages;           /* frames granted and unused */
    _Atomic uint64_t balloon_target_pages; /* what the device asks the driver for */
    _Atomic uint64_t balloon_actual_pages; /* what the driver says it holds */
    _Atomic uint32_t balloon_driver;       /* 1: DRIVER_OK */
    _Atomic uint32_t paused;
    _Atomic uint64_t swap_slots_used;
    _Atomic uint64_t swap_in_pages, swap_out_pages; /* totals */
    _Atomic uint64_t swap_errors;
    _Atomic uint64_t instructions; /* retired */
    _Atomic uint64_t vcpu_run_ns,
        vcpu_wait_ns; /* processor time for guest code; blocked for frames or swap-in */
    _Atomic uint64_t vcpu_idle_ns; /* asleep in WFI, when it last woke */
    _Atomic uint64_t shadow_fills, shadow_drops, traps, sbi_calls, mmio_accesses;
    _Atomic uint64_t blocks_decoded, blocks_dropped;
    _Atomic uint64_t disk_read_bytes, disk_write_bytes;
    /* overhead of the worker beside guest memory, by source */
    _Atomic uint64_t overhead_private_bytes;    /* anonymous memory (RssAnon): not guest frames */
    _Atomic uint64_t overhead_page_table_bytes; /* VmPTE of the worker */
    _Atomic uint64_t overhead_region_bytes;     /* this region */
    _Atomic uint64_t balloon_stats[BALLOON_STAT_TAGS]; /* by tag; UINT64_MAX: not reported */
    _Atomic uint64_t balloon_stats_absent_pages;       /* absent pages when these came */
};

struct vm_region {
    uint64_t magic;          /* supervisor, before the worker starts */
    uint32_t layout_version; /* supervisor: VM_REGION_LAYOUT */
    uint32_t ram_pages;      /* supervisor */
    uint32_t machine_pages;  /* supervisor */
    uint32_t reserved;
    uint64_t to_worker_offset, to_supervisor_offset, pmap_offset, collected_offset, hot_offset;
    uint64_t region_bytes;
    _Alignas(64) struct vm_stats stats; /* worker */
    _Alignas(64) char text[512];        /* worker: words for the last EVENT or CHECK */
    _Alignas(
        64) _Atomic uint32_t pool[GRANT_POOL_SLOTS]; /* worker: unused frames, first pool_pages */
};

/* Bytes of a region for ram_pages, and its parts. */
uint64_t vm_region_bytes(uint32_t ram_pages);
void vm_region_init(struct vm_region *region, uint32_t ram_pages, uint32_t machine_pages);
struct ring *vm_region_to_worker(struct vm_region *region);
struct ring *vm_region_to_supervisor(struct vm_region *region);
_Atomic uint64_t *vm_region_pmap(struct vm_region *region);
/* ram_pages is the caller's own number: the supervisor does not read it back from the region. */
_Atomic uint64_t *vm_region_collected(struct vm_region *region, uint32_t ram_pages);
_Atomic uint64_t *vm_region_hot(struct vm_region *region, uint32_t ram_pages);

#endif
