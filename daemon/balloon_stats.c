/* Names of the statistics that a guest's balloon driver reports, as the control socket has them. */
#include "daemon/supervisor.h"
#include "vmm-core/vm_region.h"

/* virtio 1.2, 5.5.6.4, and tags 10 to 15 of newer guests. */
static const char *const stat_names[BALLOON_STAT_TAGS] = {
    "swap_in_bytes",
    "swap_out_bytes",
    "major_faults",
    "minor_faults",
    "free_memory_bytes",
    "total_memory_bytes",
    "available_memory_bytes",
    "disk_caches_bytes",
    "hugetlb_allocations",
    "hugetlb_failures",
    "oom_kills",
    "alloc_stalls",
    "async_scans",
    "direct_scans",
    "async_reclaims",
    "direct_reclaims",
};

const char *balloon_stat_name(unsigned tag)
{
    return tag < BALLOON_STAT_TAGS ? stat_names[tag] : NULL;
}
