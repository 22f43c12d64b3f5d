/*
 * The supervisor: owner of machine memory and of the virtual machines on it.
 * Everything that wants something of a running Ballast host (the JSON-RPC
 * server, ballast-vmm, tests) asks here.
 *
 * What it keeps:
 *   - machine memory, one sealed memfd, and the frame table beside it (machine.h);
 *   - one worker process a VM: its shared region, rings, swap file, consoles;
 *   - admission: min + overhead of every VM fits in machine memory, and
 *     max - min of every VM is reserved on disk;
 *   - the policy loop: rows of statistics in, targets out (policy/policy.h);
 *   - decisions, each with its reasons (decision.h);
 *   - events, for people and programs to follow.
 *
 * Everything runs on one thread, that of the sd_event loop given at birth; no
 * call blocks on a worker. Calls that need a worker's answer take a completion
 * (supervisor_done_fn). It is called exactly once, later, from the event loop,
 * never before the call has returned; and not at all when the call itself
 * returned -1.
 *
 * struct vm pointers are valid until control returns to the event loop; keep
 * names, not pointers.
 */
#ifndef BALLAST_SUPERVISOR_H
#define BALLAST_SUPERVISOR_H

#include "daemon/decision.h"
#include "daemon/policy/policy.h"   /* struct policy_settings */
#include "daemon/policy_external.h" /* struct external_row */
#include "daemon/watch.h"           /* struct watch_settings */
#include "vmm-core/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#define VM_NAME_BYTES 64 /* with the final NUL; letters, digits, '.', '_', '-' */
#define VM_MAX_DISKS  8
#define MAX_VMS       256

struct supervisor;
struct vm;

/* ---- the host ---- */

/*
 * What a VM's allocation (allocated_pages: what target, min and max are compared
 * with, P in the price rho of policy esx, GRANT in top) counts for a page that maps
 * a frame it shares. The paper does not print it; its Figure 8b suggests full. The
 * zero frame costs no one. What targets may add up to is corrected for what is
 * charged beyond the frames there are, or less, so the frames suffice under each.
 */
enum shared_charge {
    SHARED_CHARGE_EQUAL = 0, /* its equal share of the frame, one part in as many as map it. The
                                default: every frame is counted once, who shares has the benefit,
                                and a neighbour that stops sharing changes little */
    SHARED_CHARGE_FULL,      /* a whole frame: sharing helps the host, and nobody's target or price
                                depends on what others hold */
    SHARED_CHARGE_NONE,      /* nothing: all targets shrink by the shared frames instead */
    SHARED_CHARGES
};

/* Content-based sharing, of the whole host. Rates are pages hashed; a page that was not written
 * since it was last hashed counts 1/32. */
struct sharing_settings {
    bool enabled; /* look for pages to share; what is shared stays so when switched off */
    uint32_t min_pages_per_second, max_pages_per_second; /* of the scanner, for all VMs together */
    uint32_t vm_pages_per_second;                        /* limit for each VM; 0: none */
    double cpu_percent;                                  /* of one core, at most */
    uint32_t pass_ms;                                    /* least time from pass to pass of a VM */
    bool settled_only; /* share what stood unchanged from one pass to the next only */
    enum shared_charge charge;
};

/* Sampling of active memory (policy/active.h), for every VM. */
struct sampling_settings {
    uint32_t pages;              /* chosen a period, at most all of a VM's; 0: do not sample */
    uint32_t period_ms;          /* of a VM's own time */
    double slow_gain, fast_gain; /* above 0, at most 1: weight of the newest period */
    bool count_touched;          /* count all touched pages too, the truth that is estimated */
};

struct supervisor_config {
    uint64_t machine_bytes;  /* machine memory; multiple of 4096, at least 16 MiB */
    const char *run_dir;     /* created if missing; default /run/ballast. NULL: no files at all:
                                VMs on a terminal only, with min = memory */
    const char *swap_dir;    /* NULL: the VM's own folder in run_dir */
    const char *worker_path; /* NULL: $BALLAST_WORKER, beside our own program, LIBEXECDIR */
    const char *policy;      /* name, see policy/policy.h */
    uint32_t period_ms;      /* of the policy; 100 .. 600000 */
    struct policy_settings settings; /* of the policy: thresholds, tax, ... */
    uint64_t overhead_bytes;         /* estimate a VM, charged in admission until measured higher */
    uint64_t random_seed;            /* 0: from the kernel */
    bool no_reboot;                  /* a guest's reset ends its VM instead of starting it again */
    struct sharing_settings sharing;
    struct sampling_settings sampling;
    struct watch_settings watch;
};

/* Defaults: 1 GiB, /run/ballast, "proportional", 2000 ms, 16 MiB overhead; sharing on,
 * 50 to 100,000 pages/s, 2 % of a core, 2000 ms a pass; 100 pages sampled each 30 s. */
void supervisor_config_default(struct supervisor_config *config);

/* New host on an event loop; config is copied. NULL with err (memory, run_dir, policy name). */
struct supervisor *supervisor_new(const struct supervisor_config *config, sd_event *event,
                                  struct err *err);
/* Kills what still runs, frees and removes everything; completions that are still owed are dropped.
 * supervisor_quit first for a clean end. */
void supervisor_free(struct supervisor *supervisor);

/* Completion. result 0 or -1; err is never NULL and says why when -1. */
typedef void supervisor_done_fn(void *ctx, int result, const struct err *err);

/* Ask every worker to quit, in order; kill those that have not ended within 5 s; then remove swap
 * files and call done. New VMs are refused from now on. */
int supervisor_quit(struct supervisor *supervisor, supervisor_done_fn *done, void *ctx,
                    struct err *err);

struct host_row {
    uint64_t time_ns; /* CLOCK_MONOTONIC */
    uint64_t machine_pages;
    uint64_t free_pages;
    uint64_t granted_pages;     /* private to VMs, their pools included */
    uint64_t shared_pages;      /* frames with copy-on-write sharers */
    uint64_t shared_references; /* pages of VMs that map those */
    uint64_t zero_references;   /* pages of VMs that map the zero frame, which is in no count */
    uint64_t saved_pages;       /* frames that all those pages would need, less shared_pages */
    uint64_t hint_frames;
    bool sharing;
    const char *shared_charge; /* "equal", "full", "none" */
    uint64_t emergency_pages;  /* free pages kept for VMs below their min */
    uint64_t reserved_pages;   /* admission: sum of min + overhead */
    uint64_t configured_pages; /* sum of the VMs' memory sizes */
    uint64_t swap_reserved_bytes;
    uint64_t overhead_bytes; /* sum over VMs, as measured */
    double overcommit_ratio; /* configured / machine */
    /* That less 1, or 0: exponentially damped averages over 1, 5 and 15 minutes, from 0. */
    double overcommit_1m, overcommit_5m, overcommit_15m;
    const char *state;         /* "high", "soft", "hard", "low" */
    const char *policy;        /* built in, as set */
    const char *policy_active; /* who decided the last round: its name, or "external:NAME" */
    bool has_external;         /* somebody is attached, or was */
    struct external_row external;
    uint32_t period_ms;
    struct policy_settings settings;
    struct sampling_settings sampling;
    uint64_t threshold_pages[HOST_STATES]; /* what settings.thresholds mean on this machine */
    uint32_t vms;                          /* not counting stopped ones */
    const char *policy_trigger;            /* why the last round was made: policy_trigger.h */
    uint64_t policy_runs, decisions, state_changes, events_suppressed;
    uint64_t watch_raised[WATCHERS]; /* alerts that are raised now, of the host and all VMs */
    uint64_t watch_raises[WATCHERS]; /* raised since the daemon started */
};
void supervisor_host_row(struct supervisor *supervisor, struct host_row *row);

/* Each takes effect at once and runs the policy. -1 with err when out of range or unknown. */
int supervisor_set_policy(struct supervisor *supervisor, const char *name, struct err *err);
int supervisor_set_period(struct supervisor *supervisor, uint32_t period_ms, struct err *err);
/* The seat of an external policy, to attach one; as long-lived as the supervisor. */
struct external_policy *supervisor_external(struct supervisor *supervisor);
/* Thresholds, tax and the other numbers of the policy. Refused, too, if less than now, and less
 * than admission has promised, would be left to hand out. */
int supervisor_set_settings(struct supervisor *supervisor, const struct policy_settings *settings,
                            struct err *err);
/* Counts from each VM's next period on. */
int supervisor_set_sampling(struct supervisor *supervisor, const struct sampling_settings *settings,
                            struct err *err);

/* ---- virtual machines ---- */

struct vm_disk_settings {
    const char *path; /* raw image; absolute, or relative to the daemon's folder */
    bool read_only;
};

/* Where a console's bytes go. All -1: RUN_DIR/vms/NAME/X.log and X.sock. */
struct vm_console_settings {
    int in_fd, out_fd; /* copied by supervisor_create_vm; -1: none */
};

#define IDLE_TAX_OF_HOST (-1)
#define SHARES_MAX       1000000u /* of a VM; at least 1 */

struct vm_settings {
    const char *name;
    uint64_t memory_bytes; /* 16 MiB .. 1 TiB, multiple of 2 MiB; also the first max */
    uint64_t min_bytes;    /* 0: half of memory */
    uint32_t shares;       /* 0: 10 a MiB of memory */
    int idle_tax_percent;  /* 0 .. 99, or IDLE_TAX_OF_HOST */
    const char *kernel;
    const char *initrd; /* or NULL */
    const char *append; /* or NULL */
    struct vm_disk_settings disks[VM_MAX_DISKS];
    unsigned disk_count;
    const char *sharing_domain; /* share with the other VMs of that name; NULL: alone (sharing.h) */
    bool no_sharing;            /* share none of its pages, not even those of zeroes */
    bool sv48, deflate_on_oom, free_page_reporting;
    bool no_start; /* create it paused, without a worker, until resumed */
    bool terminal; /* consoles are the caller's fds below instead of files in run_dir */
    struct vm_console_settings uart, virtcon;
};
void vm_settings_default(struct vm_settings *settings);

/*
 * Create a VM: checks the settings, admission, reserves swap, makes the region
 * and spawns its worker. The VM is "starting" when this returns, "running" once
 * its guest is loaded; a worker that cannot load its guest ends with an event
 * and leaves the VM "stopped". A stopped VM's name may be used again.
 * NULL with err; then nothing is left behind.
 */
struct vm *supervisor_create_vm(struct supervisor *supervisor, const struct vm_settings *settings,
                                struct err *err);

struct vm *supervisor_find_vm(struct supervisor *supervisor, const char *name);
struct vm *supervisor_first_vm(struct supervisor *supervisor); /* in order of creation */
struct vm *supervisor_next_vm(struct supervisor *supervisor, struct vm *vm);

const char *vm_name(const struct vm *vm);
const char *vm_state_name(const struct vm *vm); /* "starting" "running" "paused" "stopped" */

/* Harts and devices stop at a safe point. Done when the worker says so. A paused VM succeeds. */
int supervisor_pause_vm(struct supervisor *supervisor, struct vm *vm, supervisor_done_fn *done,
                        void *ctx, struct err *err);
/* Also starts a VM that was created with no_start. */
int supervisor_resume_vm(struct supervisor *supervisor, struct vm *vm, supervisor_done_fn *done,
                         void *ctx, struct err *err);
/* End it (QUIT, after 5 s SIGKILL), free all it had and forget it. Done when gone. */
int supervisor_destroy_vm(struct supervisor *supervisor, struct vm *vm, supervisor_done_fn *done,
                          void *ctx, struct err *err);

int supervisor_set_shares(struct supervisor *supervisor, struct vm *vm, uint32_t shares,
                          struct err *err);
/* An idle memory tax of its own, 0 .. 99, or IDLE_TAX_OF_HOST. */
int supervisor_set_vm_idle_tax(struct supervisor *supervisor, struct vm *vm, int percent,
                               struct err *err);
/* min <= max <= memory. Raising min repeats admission; lowering it below what the VM's swap file
 * was made for is refused. Give ~0 to leave one as it is. */
int supervisor_set_min_max(struct supervisor *supervisor, struct vm *vm, uint64_t min_bytes,
                           uint64_t max_bytes, struct err *err);
/* A target that overrides the policy's for this VM, clamped to min .. max; the balloon works
 * towards it, and what the balloon leaves is paged. */
int supervisor_set_target(struct supervisor *supervisor, struct vm *vm, uint64_t target_bytes,
                          struct err *err);
int supervisor_clear_target(struct supervisor *supervisor, struct vm *vm, struct err *err);

/* Which members of a vm_row mean something now. */
enum vm_row_valid {
    VM_ROW_MANUAL_TARGET = 1u << 0, /* manual_target_pages */
    VM_ROW_BALLOON = 1u << 1,       /* balloon_target_pages, balloon_actual_pages: a driver is up */
    VM_ROW_WORKER = 1u << 2,        /* everything a worker counts; absent when stopped */
    VM_ROW_DOMAIN = 1u << 6,        /* sharing_domain */
    VM_ROW_EXIT = 1u << 3,          /* exit_text, exit_clean: how the worker ended */
    VM_ROW_ACTIVE = 1u << 4,        /* active_pages and its averages: a period is over */
    VM_ROW_IDLE_TAX = 1u << 5,      /* idle_tax_percent: the VM's own */
    VM_ROW_ALERTS = 1u << 8,        /* alerts */
    VM_ROW_TOUCHED = 1u << 7,       /* touched_pages: a period is over in which all were counted */
};

/* Overhead of one VM beside its guest memory, by source. */
struct vm_overhead {
    uint64_t daemon_arena_bytes;   /* the VM's jemalloc arena in the daemon */
    uint64_t worker_private_bytes; /* anonymous memory of the worker, resident */
    uint64_t page_table_bytes;     /* page tables of the worker */
    uint64_t region_bytes;         /* rings, statistics and pmap, shared with the worker */
    uint64_t total_bytes;
    uint64_t charged_bytes; /* in admission: the larger of estimate and measured */
};

struct vm_row {
    const char *name, *state;
    uint32_t valid; /* enum vm_row_valid */
    uint64_t age_ns;
    int pid; /* of the worker, 0: none */
    uint64_t memory_pages, min_pages, max_pages;
    uint32_t shares, idle_tax_percent;
    uint64_t target_pages; /* as last decided */
    uint64_t manual_target_pages;
    uint64_t allocated_pages;     /* held_pages + shared_charge_pages: what policy and max go by */
    uint64_t held_pages;          /* frames that are its own, by the supervisor's records */
    uint64_t shared_charge_pages; /* for shared frames it maps, by enum shared_charge */
    uint64_t shared_references, zero_pages; /* pages that map shared frames; the zero frame */
    uint64_t shared_saved_pages;            /* references - charge + zero pages */
    uint64_t cow_breaks, false_matches;     /* since the VM was made */
    char sharing_domain[VM_NAME_BYTES];     /* with VM_ROW_DOMAIN; else it is alone */
    bool sharing;
    uint64_t balloon_pages; /* pages in state ballooned, from the pmap */
    uint64_t balloon_target_pages, balloon_actual_pages;
    uint64_t balloon_max_pages; /* the most the policy may ask its balloon for */
    bool balloon_driver;
    uint64_t private_pages, shared_pages, paged_pages, absent_pages, paging_pages, pool_pages;
    uint64_t swap_reserved_pages, swap_slots_used;
    uint64_t swap_in_pages, swap_out_pages, swap_errors; /* since start */
    uint64_t instructions, vcpu_run_ns, vcpu_wait_ns, vcpu_idle_ns;
    uint64_t active_pages; /* in use, by sampling: the largest of the three */
    uint64_t active_slow_pages, active_fast_pages, active_next_pages;
    uint64_t sample_pages, sample_touched_pages; /* of the period that runs; touched so far */
    uint64_t sample_periods;                     /* over, since its worker started */
    uint64_t last_sample_pages, last_sample_touched_pages; /* of the last period that is over */
    uint64_t touched_pages; /* in that period, of all its pages: counted, not estimated */
    uint64_t traps, sbi_calls, mmio_accesses, shadow_fills, shadow_drops;
    uint64_t disk_read_bytes, disk_write_bytes;
    uint64_t wanted_pages;           /* asked for and not yet granted */
    uint64_t page_out_pending_pages; /* the host is to page out beyond what it has */
    uint64_t granted_total_pages, released_total_pages;
    uint64_t refused_messages;
    bool blocked; /* by the policy: over its target in state low */
    struct vm_overhead overhead;
    uint64_t balloon_stats[16]; /* by virtio tag (virtio 1.2, 5.5.6.4); UINT64_MAX: not reported */
    char alerts[96]; /* watchers that have something raised about it, names with blanks between */
    char exit_text[160];
    bool exit_clean; /* power-off by the guest, or our own QUIT */
};
void supervisor_vm_row(struct supervisor *supervisor, struct vm *vm, struct vm_row *row);

/* Name of a balloon statistic by tag ("free_memory_bytes", "major_faults", ...), NULL beyond. */
const char *balloon_stat_name(unsigned tag);

/* ---- content-based sharing ---- */

/* Takes effect at once. */
int supervisor_set_sharing(struct supervisor *supervisor, const struct sharing_settings *settings,
                           struct err *err);
/* Move the VM to a domain (NULL: alone). Frames it shares are unshared by copy, in the background;
 * its pages of zeroes stay. */
int supervisor_set_sharing_domain(struct supervisor *supervisor, struct vm *vm, const char *domain,
                                  struct err *err);
/* Switched off, all its shared pages are unshared, those of zeroes too. */
int supervisor_set_vm_sharing(struct supervisor *supervisor, struct vm *vm, bool enabled,
                              struct err *err);

/* What happened to a VM's pages since it was made. */
struct sharing_vm_counts {
    uint64_t passes;        /* of the scanner over all its memory */
    uint64_t hashed_pages;  /* looked at */
    uint64_t covered_pages; /* not looked at, since they were not written since last hashed */
    uint64_t shared_total;  /* pages that became shared, with the zero frame too */
    uint64_t false_matches; /* equal hashes, different contents: the compare said no */
    uint64_t cow_breaks;    /* references that ended with a store */
    uint64_t dropped;       /* references that ended otherwise: balloon, report, unshare, death */
    uint64_t cpu_ns;        /* its part of the host's cpu_ns */
    uint64_t stale_answers, busy_answers;
};

/* The host's. Totals since start unless they say "now". */
struct sharing_counts {
    uint64_t cpu_ns; /* of the daemon's thread, everything for sharing */
    uint64_t slices;
    uint64_t hashed_pages, covered_pages, shared_total, false_matches, cow_breaks;
    uint64_t protects, shares, unshares, copies; /* pages asked of workers */
    uint64_t stale_hints;     /* hints whose page had changed when they were met */
    uint64_t offered_pages;   /* about to be paged out, and looked at first */
    uint64_t waited_pages;    /* had to wait for the answer about a hint of their content */
    uint64_t unsettled_pages; /* seemed equal to another, but were new since the last pass */
};

struct sharing_stats {
    struct sharing_settings settings;
    struct sharing_counts counts;
    uint64_t shared_frames, references, zero_references, saved_pages; /* now */
    uint64_t asked_pages; /* now: references counted whose pages still have frames of their own */
    uint64_t hint_frames, pending_frames, waiting_pages; /* now */
    uint64_t table_bytes, reference_bytes, bitmap_bytes, breaks_bytes;
    int64_t net_saved_bytes; /* of saved_pages, less those four */
    double pages_per_second; /* the pace now */
    uint64_t breaks;         /* noted since start; the last 4096 are kept */
};
void supervisor_sharing_stats(struct supervisor *supervisor, struct sharing_stats *stats);
void supervisor_sharing_vm_counts(struct supervisor *supervisor, struct vm *vm,
                                  struct sharing_vm_counts *counts);

/* A shared frame that two VMs both map counts once for the pair; a == b: frames that a VM maps at
 * two pages or more. */
struct sharing_pair {
    const char *a, *b;
    uint64_t frames;
    /* What they save together: a frame of r references saves r - 1, which its r (r - 1) / 2 pairs
     * of pages divide. These add up to all references less all shared frames. */
    double saved_pages;
    uint64_t breaks; /* since the younger was made: stores of one to frames that both mapped */
};
/* Pairs with anything in common into rows, at most max. Returns how many there are; -1: no
 * memory. */
int supervisor_sharing_pairs(struct supervisor *supervisor, struct sharing_pair *rows,
                             unsigned max);

/* A reference: who maps a shared frame where, since when, found how. */
struct sharing_reference {
    const char *vm;
    uint64_t ppn, since_ns; /* CLOCK_MONOTONIC */
    const char *how;        /* "hint" "shared" "zero" "paging" "clone" */
};
struct sharing_frame {
    uint64_t mpn;
    const char *kind; /* "free" "private" "shared" "leaving" "zero" */
    const char *vm;   /* private: whose; else NULL */
    bool hint;        /* private, and known by its content */
    uint64_t references;
    uint64_t since_ns; /* of a shared frame, or the zero frame in use: the first of its references
                          that have followed one another without a gap; else 0 */
    const char *how;   /* that one was found; else NULL */
};
/* -1: no such frame. The first max references into rows. */
int supervisor_sharing_frame(struct supervisor *supervisor, uint64_t mpn,
                             struct sharing_frame *frame, struct sharing_reference *rows,
                             unsigned max);
/* The frame that ppn of vm shares; -1: it shares none. */
int supervisor_sharing_page(struct supervisor *supervisor, struct vm *vm, uint64_t ppn,
                            uint64_t *mpn, struct sharing_reference *reference);

struct sharing_break {
    uint64_t time_ns, age_ns; /* CLOCK_MONOTONIC; how long it was shared */
    char vm[VM_NAME_BYTES];
    uint64_t ppn, mpn, pc; /* pc 0: a device */
    const char *how;       /* it had been found */
};
/* The last breaks, newest first, at most max. Returns how many were written. */
unsigned supervisor_sharing_breaks(struct supervisor *supervisor, struct sharing_break *rows,
                                   unsigned max);

/* ---- rounds of the policy ---- */

/* One round that was decided: everything that went in, and what came out. Valid during the call. */
struct supervisor_round {
    uint64_t time_ns;             /* CLOCK_MONOTONIC */
    const char *policy, *trigger; /* who decided, and why then (policy_trigger.h) */
    const struct policy_settings *settings;
    const struct policy_host *host;
    const struct policy_state *previous; /* as remembered before it */
    const struct policy_outcome *outcome;
    size_t count; /* of the next three */
    const char *const *names;
    const struct policy_vm *vms;
    const struct policy_target *targets;
};
typedef void supervisor_round_fn(void *ctx, const struct supervisor_round *round);

/* Call fn after every round, before its targets take effect; there is one listener. NULL: none. fn
 * must change nothing here. */
void supervisor_listen_rounds(struct supervisor *supervisor, supervisor_round_fn *fn, void *ctx);

/* ---- the invariants ---- */

struct check_violation {
    int invariant;          /* 1 .. 5 of the design, 0: the check could not be completed */
    char vm[VM_NAME_BYTES]; /* "" for the host's own */
    char text[240];
};

struct check_result {
    bool ok;
    uint64_t violations; /* found; the first CHECK_MAX_VIOLATIONS are described */
    uint64_t pages_checked, frames_checked, vms_checked;
    unsigned described;
#define CHECK_MAX_VIOLATIONS 32
    struct check_violation violation[CHECK_MAX_VIOLATIONS];
};

typedef void supervisor_check_fn(void *ctx, const struct check_result *result);

/* Pause every VM, compare the frame table with every pmap and pool, have every worker verify its
 * shadow tables, resume those that ran, report. One check at a time: -1 while another is running.
 * A worker that does not answer within 10 s is a violation 0. */
int supervisor_check(struct supervisor *supervisor, supervisor_check_fn *done, void *ctx,
                     struct err *err);

/* ---- decisions ---- */

/* The last changes of a VM's target, newest first: at most max pointers into rows, good until
 * control returns to the event loop. Returns how many; DECISIONS_KEPT are kept. */
unsigned supervisor_decisions(struct supervisor *supervisor, const struct vm *vm,
                              const struct decision **rows, unsigned max);

/* Called for every change of a target until dropped; may be dropped from within the call, which
 * must change nothing else here. NULL: no memory. */
typedef void supervisor_decision_fn(void *ctx, const char *vm, const struct decision *decision);
struct supervisor_decision_listener;
struct supervisor_decision_listener *
supervisor_listen_decisions(struct supervisor *supervisor, supervisor_decision_fn *fn, void *ctx);
void supervisor_unlisten_decisions(struct supervisor *supervisor,
                                   struct supervisor_decision_listener *listener);

/* ---- events ---- */

struct supervisor_event {
    uint64_t time_ns; /* CLOCK_REALTIME */
    const char *vm;   /* NULL: the host's */
    const char *kind; /* "vm-created" "vm-running" "vm-stopped" "host-state" "refused" ... */
    const char *text;
};
typedef void supervisor_event_fn(void *ctx, const struct supervisor_event *event);
struct supervisor_listener;

/* Called for every event until dropped; may be dropped from within the call, which must change
 * nothing else here. NULL: no memory. */
struct supervisor_listener *supervisor_listen(struct supervisor *supervisor,
                                              supervisor_event_fn *fn, void *ctx);
void supervisor_unlisten(struct supervisor *supervisor, struct supervisor_listener *listener);

#endif
