/*
 * What the files of the supervisor share: its two structures and the calls
 * between them. One topic a file:
 *
 *   supervisor.c   the host: birth and end, settings, host row, completions
 *   vm.c           a VM's life: create, pause, resume, destroy, exit of its worker
 *   worker_start.c region, eventfds, configuration, spawn
 *   vm_files.c     a VM's folder, swap file, console logs and sockets
 *   vm_memory.c    a VM's memory in the daemon: its jemalloc arena
 *   messages.c     what a worker says, believed never, looked up in one table
 *   requests.c     what was asked of a worker and not yet answered
 *   grants.c       frames to a VM, and frames asked back
 *   admission.c    may this VM exist? min + overhead, swap, overhead by source
 *   policy_loop.c  rows -> policy -> targets, by timer and by need
 *   policy_external.c, policy_answer.c  a program that is asked for targets first
 *   sampling.c     active memory: periods of sampling and their averages
 *   check.c        the invariants
 *   events.c       what listeners hear, with rate limits
 *   vm_row.c       one row of statistics; balloon_stats.c has the names of the guest's
 *   sharing/       content-based sharing; its door is sharing/sharing.h
 *
 * One thread, the event loop's; nothing here is locked. Of the region only what
 * names the worker as its writer is read back, once, and bounded before use.
 */
#ifndef BALLAST_SUPERVISOR_PRIVATE_H
#define BALLAST_SUPERVISOR_PRIVATE_H

#include "daemon/machine_memory.h"
#include "daemon/policy/active.h"
#include "daemon/policy/policy.h"
#include "daemon/policy_external.h"
#include "daemon/policy_trigger.h"
#include "daemon/sharing/sharing.h"
#include "daemon/supervisor.h"
#include "vmm-core/vm_region.h"

#include <sys/queue.h>
#include <sys/types.h>

/* ---- tunables ---- */

#define QUIT_GRACE_US     (5 * UINT64_C(1000000))  /* from QUIT to SIGKILL */
#define CHECK_GRACE_US    (10 * UINT64_C(1000000)) /* for all answers of one check */
#define SERVICE_PERIOD_US UINT64_C(20000)      /* retry of what did not fit, while there is any */
#define POLICY_MIN_GAP_US UINT64_C(10000)      /* between two runs of the policy by need */
#define OVERHEAD_AGE_NS   UINT64_C(1000000000) /* a measured overhead is fresh that long */
#define SWAP_RETRY_NS     UINT64_C(1000000000) /* a failing swap file is tried that often */
#define PAGE_OUT_CHUNK_PAGES                                                                       \
    1024u                      /* one PAGE_OUT request: 4 MiB, so that new targets count soon      \
                                */
#define GRANT_SCARCE_PAGES 64u /* pool size aimed at when the host is not in state high */
#define RING_KEEP_SLOTS    (RING_REQUESTS + 8u) /* left free by grants for requests and targets */
#define MESSAGES_A_WAKE    512u /* taken from one VM before others have their turn */

/* ---- events ---- */

enum event_kind {
    EVENT_VM_CREATED,
    EVENT_VM_RUNNING,
    EVENT_VM_PAUSED,
    EVENT_VM_RESUMED,
    EVENT_VM_STOPPED,
    EVENT_VM_REBOOT,
    EVENT_VM_DESTROYED,
    EVENT_BALLOON_DRIVER,
    EVENT_BALLOON_POPPED,
    EVENT_SWAP_ERROR,
    EVENT_SWAP_OK,
    EVENT_GUEST_FAULT,
    EVENT_WORKER_SAYS,
    EVENT_CONSOLE_LOG,
    EVENT_REFUSED,
    EVENT_RING_CORRUPT,
    EVENT_HOST_STATE,
    EVENT_POLICY_ERROR,
    EVENT_POLICY_ATTACHED,
    EVENT_POLICY_DETACHED,
    EVENT_POLICY_BAD,
    EVENT_SETTING,
    EVENT_CHECK,
    EVENT_WATCH_FLAPPING,
    EVENT_WATCH_BALLOON_STALLED,
    EVENT_WATCH_BALLOON_LIES,
    EVENT_WATCH_STARVED,
    EVENT_WATCH_STATE_LASTS,
    EVENT_WATCH_INVARIANT,
    EVENT_KINDS
};

/* A token bucket a kind: so many at once, then one a second; the rest is counted. */
struct event_bucket {
    uint64_t refilled_ns;
    uint32_t tokens, suppressed;
};

/* ---- a VM ---- */

/* Life of a VM and what moves it; the table is in vm.c. */
enum vm_life {
    LIFE_NEW,      /* no worker yet (no_start) */
    LIFE_STARTING, /* worker spawned, guest not loaded */
    LIFE_RUNNING,
    LIFE_PAUSED,
    LIFE_ENDING,  /* told to quit, or killed; its worker has not ended yet */
    LIFE_STOPPED, /* no worker, no frames, no swap; only the record is left */
    LIFE_STATES
};
enum life_event {
    LIFE_EV_SPAWN,
    LIFE_EV_READY,           /* worker: guest loaded */
    LIFE_EV_PAUSED,          /* worker: quiet */
    LIFE_EV_RESUMED,         /* worker: going on, guest loaded */
    LIFE_EV_RESUMED_LOADING, /* worker: going on with loading the guest */
    LIFE_EV_QUIT,
    LIFE_EV_EXIT,
    LIFE_EVENTS
};

enum answer_fate { ANSWER_GIVEN, ANSWER_STALE /* the worker ended first */ };
typedef void request_answer_fn(struct vm *vm, enum answer_fate fate, uint64_t value, void *ctx);

struct request {
    uint32_t id; /* 0: free; low bits: index, the rest: serial, so that late answers are known */
    bool sent;
    struct ring_message message;
    request_answer_fn *answer;
    void *ctx;
};

struct waiter { /* somebody's completion */
    supervisor_done_fn *done;
    void *ctx;
};

/* The last changes of a VM's target, in its own memory. */
struct vm_decisions {
    struct decision *ring; /* DECISIONS_KEPT; NULL: none yet */
    uint64_t total;        /* noted so far */
};

struct vm_sampling {
    struct active_estimate estimate;
    bool outstanding; /* a SAMPLE of asked_pages is not answered */
    uint32_t asked_pages;
    bool asked_count, counting; /* all touched pages: in the period asked for; that runs */
    uint32_t sample_pages;      /* of the period that runs; 0: none does */
    uint32_t last_pages, last_touched_pages; /* sampled in the last one that is over */
    bool counted;                            /* all_touched_pages was counted in it */
    uint64_t all_touched_pages;
    uint64_t began_ns;     /* of the VM's own time */
    uint64_t periods;      /* that are over */
    double round_fraction; /* what the last round of the policy took for active; 1 unless known */
};

struct vm {
    TAILQ_ENTRY(vm) entry;
    struct supervisor *supervisor;
    unsigned arena;  /* of jemalloc; this structure and all its strings lie in it */
    uint16_t number; /* owner in the frame table, 1 .. MAX_VMS */
    uint32_t id;     /* never used twice; the policy knows the VM by it */
    enum vm_life life;
    bool loaded;               /* READY has been heard from this worker */
    bool destroying;           /* forget it once it has ended */
    uint64_t reboot_window_ns; /* when the current count of resets began */
    uint32_t reboots;
    struct vm_settings settings; /* strings are ours */
    char folder[300];            /* RUN_DIR/vms/NAME, "" for a terminal's VM without files */
    uint64_t created_ns;

    uint64_t memory_pages, min_pages, max_pages;
    uint32_t shares;
    int idle_tax_percent; /* or IDLE_TAX_OF_HOST */
    uint32_t swap_slots;
    bool has_manual_target;
    uint64_t manual_target_pages;

    /* worker */
    pid_t pid;
    int pid_fd, region_fd, kick_fd, notify_fd, swap_fd, stderr_fd;
    int log_fd[2]; /* of the consoles, to bound them */
    struct vm_region *region;
    uint64_t region_bytes;
    struct ring *to_worker, *to_supervisor;
    uint64_t put_count, take_count; /* our own counters of the two rings */
    sd_event_source *exit_source, *notify_source, *deadline_source, *stderr_source;
    bool unkicked; /* messages put since the last kick */
    char exit_text[160], last_words[160];
    bool exit_clean;

    /* requests */
    struct request requests[RING_REQUESTS];
    uint32_t request_serial;
    struct waiter life_waiter; /* of the pause or resume under way */
    bool life_pending;         /* one is under way, somebody's or the check's */
    struct waiter destroy_waiter;

    /* frames */
    uint64_t held_pages;               /* frames the table says are its own */
    mpn_t next_mpn;                    /* one past its last grant */
    uint32_t wanted_pages;             /* asked for and not granted */
    uint8_t grant_in_slot[RING_SLOTS]; /* frames in each message not yet taken */
    uint64_t grant_head;               /* taken up to here, as last seen */
    uint32_t grants_in_ring_pages;
    uint64_t granted_total_pages, released_total_pages, refused_messages;

    /* policy */
    uint64_t target_pages, balloon_ask_pages; /* as decided */
    uint64_t target_sent_pages;               /* RING_TARGET as last put; ~0: never */
    bool target_due;
    bool blocked;
    uint64_t limit_pages;          /* of the policy: holding this many, it makes room itself */
    bool swap_failing;             /* the worker said so, and has not said that it works again */
    uint64_t swap_retry_ns;        /* while failing: when it may be tried again */
    uint64_t page_out_owed_pages;  /* decided, not yet asked of the worker */
    uint64_t page_out_asked_pages; /* asked of the worker, not yet released */
    bool page_out_outstanding;     /* a PAGE_OUT request is not answered yet */
    bool page_out_vain;            /* it brought nothing so far: no other before the next tick */

    struct vm_sampling sampling; /* of this worker */
    struct vm_decisions decisions;
    struct watch_vm watch;
    struct vm_sharing *sharing;

    struct vm_overhead overhead;
    uint64_t overhead_time_ns;
    struct event_bucket buckets[EVENT_KINDS];
};

TAILQ_HEAD(vm_list, vm);

/* ---- the host ---- */

struct completion {
    STAILQ_ENTRY(completion) entry;
    struct waiter waiter;
    int result;
    struct err err;
};
STAILQ_HEAD(completion_list, completion);

struct supervisor_listener {
    TAILQ_ENTRY(supervisor_listener) entry;
    supervisor_event_fn *fn; /* NULL: dropped while events were being told */
    void *ctx;
};
TAILQ_HEAD(listener_list, supervisor_listener);

struct check;

struct supervisor {
    sd_event *event;
    struct supervisor_config config; /* strings are ours */
    char *worker_path;
    int lock_fd; /* RUN_DIR/lock: one daemon a folder */
    struct machine_memory *machine;
    uint64_t emergency_pages;
    struct vm_list vms;
    struct vm *by_number[MAX_VMS + 1];
    uint32_t next_id;
    bool quitting;
    struct waiter quit_waiter;

    /* policy */
    const struct policy *policy;
    struct policy_settings settings;
    struct policy_state *state, *next_state;
    struct policy_vm *policy_rows;
    struct policy_target *policy_targets;
    enum host_state host_state;
    uint64_t policy_time_ns;  /* of the last decision */
    uint64_t policy_began_ns; /* of the last round */
    uint64_t policy_due_ns;   /* of the next one */
    struct external_policy *external;
    enum host_state asked_state; /* of the round that an external policy is asked about */
    char decided_by[16 + EXTERNAL_NAME_BYTES]; /* the last round: a policy's name */
    uint64_t policy_runs, decisions, state_changes;
    uint32_t triggers;                   /* bits: why the next round is made, the timer aside */
    enum policy_trigger timer_trigger;   /* what the timer stands for, if nothing else comes */
    enum policy_trigger trigger;         /* of the last round */
    uint64_t rounds_by[POLICY_TRIGGERS]; /* since the host began */
    struct watch_host watch;
    uint64_t watch_raises[WATCHERS];
    uint64_t check_violations; /* of the last check */
    sd_event_source *watch_source;
    struct supervisor_decision_listener *decision_listeners;
    bool telling_decision;
    supervisor_round_fn *round_fn; /* NULL: nobody follows rounds */
    void *round_ctx;
    double overcommit[3]; /* averages, as of overcommit_time_ns */
    double overcommit_now;
    uint64_t overcommit_time_ns;
    sd_event_source *policy_source;
    sd_event_source *sampling_source;
    sd_event_source *service_source; /* while something did not fit or could not be had */

    sd_event_source *completion_source;
    struct completion_list completions;

    uint32_t grant_turn; /* VM number that is served first next time */

    struct listener_list listeners;
    unsigned telling; /* depth of event_tell */
    bool listeners_dropped;
    struct event_bucket buckets[EVENT_KINDS];
    uint64_t events_suppressed;

    struct sharing *sharing;

    struct check *check; /* the one in progress */
    bool grants_held;    /* by a check: no grants, targets or page-outs meanwhile */
};

/* supervisor.c */
uint64_t clock_monotonic_ns(void);
/* Queue a completion for the next turn of the loop; waiter may be empty. err NULL: success. */
void complete(struct supervisor *supervisor, struct waiter *waiter, const struct err *err);
/* A VM's record is gone or stopped: go on with quitting. */
void supervisor_vm_gone(struct supervisor *supervisor);

/* vm.c */
bool vm_has_worker(const struct vm *vm);
bool vm_move(struct vm *vm, enum life_event event);
/* End the worker without asking, because of what it did. */
void vm_kill(struct vm *vm, enum event_kind kind, const char *why);
/* The worker says that its guest is loaded. */
void vm_ready(struct vm *vm);
int vm_on_exit(sd_event_source *source, int fd, uint32_t events, void *ctx);
void vm_free(struct vm *vm);

/* vm_memory.c: a VM's own memory in the daemon */
int vm_arena_new(unsigned *arena, struct err *err);
void vm_arena_free(unsigned arena);
void *vm_arena_alloc(unsigned arena, size_t bytes); /* zeroed; NULL: no memory */
char *vm_arena_strdup(unsigned arena, const char *text);
uint64_t vm_arena_bytes(unsigned arena);

/* worker_start.c */
/* Make the region, consoles and eventfds, spawn the worker and watch it. -1 with err: nothing is
 * left but the swap file. */
int worker_start(struct vm *vm, struct err *err);
/* Close and unmap everything of the worker, remove its sockets. The process has ended or was never
 * started. */
void worker_clear(struct vm *vm);
void worker_signal(struct vm *vm, int signal);
char *worker_find(const char *configured, struct err *err);

/* vm_files.c: a VM's folder, swap file, logs and sockets */
int make_folder(const char *path, struct err *err);
/* Remove swap files and sockets of a daemon that was killed. The folder is ours alone by now. */
void files_sweep(const char *run_dir, const char *swap_dir);
int vm_folder_make(struct vm *vm, struct err *err);
int swap_reserve(struct vm *vm, struct err *err);
void swap_release(struct vm *vm);
int console_log_open(struct vm *vm, const char *name, struct err *err);
int console_socket_open(struct vm *vm, const char *name, struct err *err);
void console_sockets_remove(struct vm *vm);
/* Begin a log anew that has grown beyond what is kept of it. */
void console_logs_bound(struct vm *vm);

/* messages.c */
void messages_drain(struct vm *vm, uint32_t limit);
int messages_on_notify(sd_event_source *source, int fd, uint32_t events, void *ctx);
/* Put one message and note that a kick is due. RING_CORRUPT kills the VM. */
enum ring_result message_put(struct vm *vm, const struct ring_message *message);
void message_kick(struct vm *vm);

/* requests.c */
/* Queue a request; sent now if the ring has room, else by vm_service. -1: too many outstanding. */
int request_new(struct vm *vm, enum ring_type type, uint64_t value, request_answer_fn *answer,
                void *ctx, struct err *err);
/* The same with all that a message can say; its request number is filled in here. */
int request_message(struct vm *vm, const struct ring_message *message, request_answer_fn *answer,
                    void *ctx, struct err *err);
void request_answered(struct vm *vm, uint32_t id, uint64_t value);
void requests_send(struct vm *vm);
bool requests_unsent(const struct vm *vm);
void requests_stale(struct vm *vm);
/* The asker is gone: answers to come are taken and told nobody. */
void requests_forget(struct vm *vm, request_answer_fn *answer);

/* grants.c */
void grants_want(struct vm *vm, uint64_t pages);
void grants_serve_all(struct supervisor *supervisor);
void vm_send_target(struct vm *vm);
void vm_send_page_out(struct vm *vm);
void vm_ask_return(struct vm *vm, uint32_t keep_pages);
uint32_t vm_pool_pages(const struct vm *vm);
/* Forget grants that the worker has taken from its ring since (grants_in_ring_pages). */
void see_grants_taken(struct vm *vm);
void vm_frames_reset(struct vm *vm);
/* Something did not fit or could not be had: try again soon. */
void service_soon(struct supervisor *supervisor);

/* admission.c */
int admission_check_sizes(const struct supervisor *supervisor, const struct vm_settings *settings,
                          struct err *err);
int admission_check_files(const struct vm_settings *settings, struct err *err);
/* May a VM with min_pages live beside the others (without except)? */
int admission_check_memory(const struct supervisor *supervisor, const char *name,
                           uint64_t min_pages, uint64_t overhead_bytes, const struct vm *except,
                           struct err *err);
/* Would these settings leave enough to hand out for what has been promised? */
int admission_check_settings(const struct supervisor *supervisor,
                             const struct policy_settings *settings, struct err *err);
uint64_t admission_reserved_pages(const struct supervisor *supervisor, const struct vm *except);
void overhead_measure(struct vm *vm);
bool vm_is_charged(const struct vm *vm);

/* overcommit.c */
/* Carry the averages on to now. To be called soon after the VMs or their memory changed. */
void overcommit_look(struct supervisor *supervisor);

/* policy_loop.c */
int policy_loop_start(struct supervisor *supervisor, struct err *err);
void policy_loop_stop(struct supervisor *supervisor);
/* Run the policy as soon as its minimum gap allows, because of that. */
void policy_soon(struct supervisor *supervisor, enum policy_trigger trigger);
/* Free memory changed: does it cross a threshold? */
void policy_look(struct supervisor *supervisor);
/* Frames that count as a VM's: its own and its part of the shared ones. */
uint64_t vm_allocated_pages(const struct vm *vm);
uint64_t vm_stat(const struct vm *vm, const _Atomic uint64_t *field, uint64_t limit);

/* decisions.c */
struct decision_round { /* what all decisions of one round have in common */
    const char *policy;
    enum policy_trigger trigger;
    const struct policy_host *host;
    const struct policy_outcome *outcome;
    uint64_t reserved_pages;
};
/* The VM's target becomes target's: keep and tell why, if that is a change. Call before it does. */
void decision_note(struct vm *vm, const struct policy_vm *row, const struct policy_target *target,
                   const struct decision_round *round);
void decisions_free(struct supervisor *supervisor);

/* watch_loop.c */
int watch_start(struct supervisor *supervisor, struct err *err);
void watch_stop(struct supervisor *supervisor);
/* The VM's target becomes this. Call before it does. */
void watch_decision(struct vm *vm, uint64_t target_pages);
/* It is about to be forgotten: so are its alerts. */
void watch_vm_gone(struct vm *vm);
void watch_fill_row(const struct supervisor *supervisor, struct host_row *row);
void watch_fill_vm_row(const struct vm *vm, struct vm_row *row);

/* sampling.c */
int sampling_start(struct supervisor *supervisor, struct err *err);
void sampling_stop(struct supervisor *supervisor);
void sampling_settings_default(struct sampling_settings *settings);
int sampling_settings_check(const struct sampling_settings *settings, struct err *err);
/* End the VM's period, or begin its first, if it is time. */
void sampling_look(struct vm *vm);
/* The part of its memory that the VM uses; false: not known yet. It has a worker. */
bool sampling_fraction(const struct vm *vm, double *fraction);
/* A round of the policy has seen its fraction. */
void sampling_note_round(struct vm *vm);
void sampling_row(const struct vm *vm, struct vm_row *row);

/* check.c */
/* A VM became ready, paused, resumed, finished paging out or ended: can the check go on? */
void check_vm_settled(struct supervisor *supervisor);
/* Is a check waiting for work in flight to end? Then no page-out is begun, or on a host short of
 * memory it would wait in vain; unless a VM is being loaded, which may need the frames. */
bool check_wants_rest(const struct supervisor *supervisor);
/* The host is going away: answer the asker now. */
void check_abandon(struct supervisor *supervisor);
/* The same without an answer: the asker is gone already. */
void check_drop(struct supervisor *supervisor);

/* events.c */
void event_tell(struct supervisor *supervisor, struct vm *vm, enum event_kind kind,
                const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Copy at most bytes - 1 of text that a worker wrote, printable ASCII only. */
void copy_words(char *to, size_t bytes, const char *from, size_t from_bytes);

#endif
