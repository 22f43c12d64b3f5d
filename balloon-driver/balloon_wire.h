/*
 * The wire format between a balloon driver inside a guest and the balloon
 * device: virtio 1.2, section 5.5 ("Traditional Memory Balloon Device").
 *
 * Both sides include this file and nothing else of each other: the device in
 * vmm-core, the driver core and its glue in guests without an operating system.
 * All numbers are little-endian, as on both sides.
 */
#ifndef BALLAST_BALLOON_WIRE_H
#define BALLAST_BALLOON_WIRE_H

#include <stdint.h>

/* Feature bits (5.5.3). */
#define BALLOON_F_MUST_TELL_HOST 0 /* a page is used again only after the device was told */
#define BALLOON_F_STATS_VQ       1 /* the driver reports statistics */
#define BALLOON_F_DEFLATE_ON_OOM 2 /* the driver may deflate when the guest is out of memory */
#define BALLOON_F_FREE_PAGE_HINT 3 /* not offered */
#define BALLOON_F_PAGE_POISON    4 /* not offered */
#define BALLOON_F_PAGE_REPORTING 5 /* the driver reports free pages */

/*
 * Queues (5.5.2). A queue whose feature is not negotiated does not exist; the
 * numbers of those behind it are fixed by the text, but common drivers close the
 * gap, so that page reporting comes as queue 2, 3 or 4 (virtio_balloon.c).
 */
#define BALLOON_QUEUE_INFLATE 0
#define BALLOON_QUEUE_DEFLATE 1
#define BALLOON_QUEUE_STATS   2
#define BALLOON_QUEUES        5

/* Page numbers in the inflate and deflate queues: 32 bits each, guest physical address divided by
 * 4096, whatever the guest's own page size is (5.5.6). */
#define BALLOON_PAGE_SHIFT 12
typedef uint32_t balloon_page_number;

/* The most page numbers a device takes in one buffer: 16 times what common drivers send. */
#define BALLOON_MAX_BATCH 4096u

struct balloon_config { /* device configuration space (5.5.4) */
    uint32_t num_pages; /* device: pages the driver shall hold */
    uint32_t actual;    /* driver: pages it does hold */
};

/* One statistic (5.5.6.3); a buffer of the statistics queue is an array of these, packed. */
struct balloon_stat {
    uint16_t tag;
    uint64_t value;
} __attribute__((packed));

/* 5.5.6.4, and those that newer drivers added */
enum balloon_stat_tag {
    BALLOON_STAT_SWAP_IN = 0,  /* bytes swapped in */
    BALLOON_STAT_SWAP_OUT = 1, /* bytes swapped out */
    BALLOON_STAT_MAJOR_FAULTS = 2,
    BALLOON_STAT_MINOR_FAULTS = 3,
    BALLOON_STAT_FREE_BYTES = 4,
    BALLOON_STAT_TOTAL_BYTES = 5,
    BALLOON_STAT_AVAILABLE_BYTES = 6,
    BALLOON_STAT_CACHE_BYTES = 7,
    BALLOON_STAT_HUGETLB_ALLOCATIONS = 8,
    BALLOON_STAT_HUGETLB_FAILURES = 9,
    BALLOON_STAT_OOM_KILLS = 10,
    BALLOON_STAT_ALLOCATION_STALLS = 11,
    BALLOON_STAT_ASYNC_SCANS = 12,
    BALLOON_STAT_DIRECT_SCANS = 13,
    BALLOON_STAT_ASYNC_RECLAIMS = 14,
    BALLOON_STAT_DIRECT_RECLAIMS = 15,
};

#endif
