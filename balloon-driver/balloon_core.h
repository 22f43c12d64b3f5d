/*
 * A balloon driver's mind, free of any operating system: how many pages to take
 * from the guest or give back, how fast, and in which order. The manners are ESX
 * Server's (paper, section 3.2, and the driver it shipped for Linux):
 *
 *   - The host sets a target; the driver polls it about once a second
 *     (balloon_tick) and moves towards it by a bounded number of pages a tick.
 *   - Taking is adaptive: from 512 to 2048 pages a tick, 16 more after a tick that
 *     got all it asked for, half after one that the guest could not serve;
 *     after such a failure come four slow ticks at the least rate.
 *   - Giving back is fast, up to 16384 pages a tick: the guest needs them.
 *   - Pages travel in batches. A page counts as in the balloon when the host has
 *     answered; the guest gets one back only after the host was told.
 *   - The page taken last is given back first: what was taken early has proved
 *     longest that the guest can do without it.
 *
 * States and what moves them are one table (balloon_core.c):
 *
 *   stopped    no host to talk to; the balloon is empty
 *   idle       at the target
 *   inflating  below the target
 *   slow       below the target, and the guest lately had no page to spare
 *   deflating  above the target
 *   failed     the host refused or did not answer: nothing moves until the glue
 *              has reset the device and calls balloon_start again
 *
 * Glue gives it a struct balloon_platform. One thread at a time; no call waits
 * but in the platform's own functions. No division, no floating point, no libc.
 */
#ifndef BALLAST_BALLOON_CORE_H
#define BALLAST_BALLOON_CORE_H

#include "balloon-driver/balloon_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BALLOON_TAKE_MIN_PAGES  512u   /* a tick */
#define BALLOON_TAKE_MAX_PAGES  2048u  /* a tick */
#define BALLOON_TAKE_STEP_PAGES 16u    /* added after a tick that got all it asked for */
#define BALLOON_GIVE_MIN_PAGES  512u   /* a tick */
#define BALLOON_GIVE_MAX_PAGES  16384u /* a tick */
#define BALLOON_GIVE_STEP_PAGES 16u
#define BALLOON_SLOW_TICKS      4u
#define BALLOON_BATCH_PAGES     512u /* told to the host at once */

#define BALLOON_NOTE_BYTES 4096u /* of one sheet of notes, see below */

struct balloon_platform {
    void *ctx;
    /* One page from the guest, that it can spare without hurting itself. False: none now. */
    bool (*take_page)(void *ctx, balloon_page_number *number);
    void (*free_page)(void *ctx, balloon_page_number number);
    /* Tell the host and wait for its answer. False: it refused, or does not work. */
    bool (*inflate)(void *ctx, const balloon_page_number *numbers, unsigned count);
    bool (*deflate)(void *ctx, const balloon_page_number *numbers, unsigned count);
    /* The host's target; the number of pages held is told to it. */
    bool (*read_target)(void *ctx, uint32_t *pages);
    void (*write_actual)(void *ctx, uint32_t pages);
    /* BALLOON_NOTE_BYTES of the guest's memory, aligned as a pointer, to write down which pages
     * are in the balloon (one for every thousand); NULL: none now. */
    void *(*take_notes)(void *ctx);
    void (*free_notes)(void *ctx, void *notes);
};

enum balloon_state {
    BALLOON_STOPPED,
    BALLOON_IDLE,
    BALLOON_INFLATING,
    BALLOON_SLOW,
    BALLOON_DEFLATING,
    BALLOON_FAILED,
    BALLOON_STATES
};

struct balloon_notes;

struct balloon {
    struct balloon_platform platform;
    enum balloon_state state;
    uint32_t target_pages, held_pages;
    uint32_t take_rate_pages, give_rate_pages; /* a tick */
    uint32_t slow_ticks_left;
    struct balloon_notes *notes; /* sheet with the pages taken last */
    balloon_page_number batch[BALLOON_BATCH_PAGES];
    /* Totals. */
    uint64_t taken_pages, given_pages;
    uint64_t take_failures; /* ticks that the guest could not serve */
    uint64_t host_failures;
};

/* An empty, stopped balloon. */
void balloon_init(struct balloon *balloon, const struct balloon_platform *platform);

/* The device is ready. Starts with an empty balloon: what a device knew before its reset is over,
 * so pages still noted go back to the guest without being told. */
void balloon_start(struct balloon *balloon);

/* Poll the target and move towards it. Call about once a second, and when the host says that its
 * target has changed. */
void balloon_tick(struct balloon *balloon);

/* The guest is out of memory: give back up to `pages` at once (VIRTIO_BALLOON_F_DEFLATE_ON_OOM),
 * and go slowly afterwards. Returns how many it gave. */
uint32_t balloon_relieve(struct balloon *balloon, uint32_t pages);

/* Give back everything, told to the host, and stop: the driver is being unloaded. */
void balloon_stop(struct balloon *balloon);

const char *balloon_state_name(enum balloon_state state);

#endif
