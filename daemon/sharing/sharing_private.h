/* What the files of sharing/ share; see sharing.h for who does what. */
#ifndef BALLAST_SHARING_PRIVATE_H
#define BALLAST_SHARING_PRIVATE_H

#include "daemon/sharing/sharing.h"
#include "daemon/supervisor_private.h"
#include "ksm/scan_pace.h"
#include "ksm/share_refs.h"
#include "ksm/share_table.h"

#define SHARING_REQUESTS 40u   /* of RING_REQUESTS, a VM; the rest is for others */
#define WAITING_PAGES    8192u /* pages that wait for an answer about a hint of their content */
#define BREAKS_KEPT      4096u
#define PAIRS            ((MAX_VMS + 1) * (MAX_VMS + 1))

/* ---- requests under way ---- */

enum share_op { OP_PROTECT, OP_SHARE, OP_UNSHARE, OP_COPY, OPS };

/* One page of a request, and what it was asked for. */
struct share_item {
    ppn_t ppn;
    mpn_t mpn;    /* the page's frame as the message names it */
    mpn_t target; /* SHARE: the frame to share; else NO_MPN */
    uint64_t hash;
    enum share_how how;
    /* PROTECT: the page whose content was met in this one, and how it will have been found */
    uint16_t candidate_vm; /* number, and id, since numbers are used again */
    uint32_t candidate_id;
    ppn_t candidate_ppn;
    mpn_t candidate_mpn;
    enum share_how candidate_how;
};

struct share_batch {
    unsigned count;
    struct share_item items[RING_PAIRS];
};

/* A page that waits until a hint of its content is settled. */
struct waiting_page {
    uint32_t vm_id;
    uint16_t vm_number;
    bool offered; /* by a page-out */
    ppn_t ppn;
};

/* ---- a VM ---- */

enum pass_phase { PASS_NONE, PASS_COLLECTING, PASS_VISITING };

struct vm_sharing {
    struct sharing *sharing;
    bool enabled;               /* this VM's pages may be shared */
    uint64_t salt;              /* of its domain */
    char domain[VM_NAME_BYTES]; /* "": alone */
    bool unsharing;             /* its references are being undone: domain changed, or disabled */
    uint32_t undoing;           /* pages of that under way */

    /* Bits a page, in one allocation; NULL: no memory, it is not scanned. */
    uint64_t *to_hash; /* content may have changed since it was hashed */
    uint64_t *again;   /* to be hashed in the next pass though it did not change */
    uint32_t words;    /* of each */

    /* the pass */
    enum pass_phase phase;
    uint64_t key;
    uint32_t next_page;  /* to collect next */
    uint32_t next_block; /* to visit next: its place in the permutation */
    uint32_t collecting; /* WRITTEN requests unanswered */
    uint64_t pass_begin_ns;
    uint64_t first_pass;    /* counts.passes when its worker started */
    double allowance_pages; /* under the VM's own limit */
    uint64_t slice_units;   /* that this slice has used on it */

    uint32_t outstanding; /* requests unanswered */
    struct share_batch batch[OPS];

    uint64_t references, zero_references; /* now; references without those to the zero frame */
    uint64_t asked_pages; /* of both: counted, and the worker has not said yet that they share */
    uint64_t charge_units, crowded_references; /* charges.c */
    struct sharing_vm_counts counts;           /* since the VM was made */
};

/* ---- the host ---- */

struct share_domain {
    char name[VM_NAME_BYTES];
    uint64_t salt;
};

struct sharing {
    struct supervisor *supervisor;
    struct sharing_settings settings;
    struct machine_memory *machine;
    const uint8_t *view; /* of machine memory, read-only; NULL until first enabled */
    struct share_table *table;
    struct share_refs *refs;
    uint64_t seed, random_state;
    mpn_t zero;

    struct share_domain *domains;
    unsigned domain_count;

    uint64_t references, zero_references, asked_pages; /* of all VMs */
    uint64_t crowded_frames, crowded_references;       /* charges.c */
    struct waiting_page *waiting;                      /* a ring */
    uint32_t waiting_first, waiting_count;

    bool offering; /* the page looked at was offered by a page-out */

    sd_event_source *timer;
    struct scan_pace pace;
    struct scan_period period; /* since the pace was last asked */
    uint64_t period_ns;        /* when that was */
    uint64_t period_units, period_hashed_pages;
    uint64_t slice_ns;         /* the last slice */
    double units;              /* that may be used now */
    uint32_t turn;             /* VM number that is scanned first */
    double budget_ns;          /* processor time that may be spent now; below 0: overspent */
    uint64_t budgeted_ns;      /* of counts.cpu_ns: taken from the budget already */
    bool first_passes;         /* a VM is being looked at for the first time */
    bool wants_answers;        /* the last slice ended early: too much was asked already */
    uint64_t answers_begin_ns; /* of this thread's time, at the first of the answers that came
                                  together; 0: none came */
    struct sharing_counts counts;

    struct sharing_break *breaks; /* a ring of BREAKS_KEPT */
    uint64_t break_count;
    uint32_t *pair_breaks; /* by two VM numbers, PAIRS of them: breaks of frames that both mapped */
};

static inline struct sharing *sharing_of(const struct vm *vm)
{
    return vm->supervisor->sharing;
}

/* sharing.c */
uint64_t sharing_random(struct sharing *sharing);
uint64_t sharing_cpu_ns(void); /* of this thread */
/* This thread has worked for sharing, and for one VM only, since begin_ns. */
void sharing_spent(struct vm *vm, uint64_t begin_ns);

/* engine.c */
/* Hash of a page under the host's seed. */
uint64_t engine_hash(const struct sharing *sharing, mpn_t mpn, uint64_t salt);
/* The frame of ppn if it may be looked at now: private by the pmap and the frame table, named by no
 * request. NO_MPN otherwise. */
mpn_t engine_own_frame(const struct vm *vm, ppn_t ppn);
/* A page with that frame and hash: share it, leave a hint, or have it wait. true: it is being
 * shared, or may be soon. */
bool engine_match(struct vm *vm, ppn_t ppn, mpn_t mpn, uint64_t hash);
/* The same for a page whose content is new: what could be shared is looked at again in the next
 * pass. */
void engine_match_new(struct vm *vm, ppn_t ppn, mpn_t mpn, uint64_t hash);
/* Look again at pages that waited, at most so many. */
void engine_wake(struct sharing *sharing, uint32_t pages);
/* One page of a request is answered. */
void engine_answer(struct vm *vm, enum share_op op, const struct share_item *item,
                   enum ring_item result);
/* Have the frame's only sharer take it back as its own. */
void engine_unshare_last(struct sharing *sharing, mpn_t mpn);
void engine_hash_again(struct vm *vm, ppn_t ppn);

/* share_records.c */
/* Count (vm, ppn) as a reference of mpn. false: it has one, or no memory. */
bool record_add(struct vm *vm, ppn_t ppn, mpn_t mpn, enum share_how how);
/* Take a reference back. false: there is none. */
bool record_drop(struct vm *vm, ppn_t ppn, mpn_t mpn);
bool record_has(const struct vm *vm, ppn_t ppn, mpn_t mpn);
/* A private frame of vm, named by one reference of it, becomes shared under hash. */
bool record_share(struct vm *vm, mpn_t mpn, uint64_t hash);
/* The other way: the frame of the last reference becomes vm's own. */
bool record_unshare(struct vm *vm, ppn_t ppn, mpn_t mpn);
/* Of all sharers of a frame, the first that is not leaving its domain. NULL: none. */
struct vm *record_sharer(const struct sharing *sharing, mpn_t mpn, ppn_t *ppn);

/* charges.c */
/* A reference of vm to a shared frame was recorded (or taken back): the frame's sharers are charged
 * anew. After the change. */
void charges_added(struct vm *vm, mpn_t mpn);
void charges_dropped(struct vm *vm, mpn_t mpn);
/* Number of sums that are wrong. */
uint64_t charges_check(const struct supervisor *supervisor);

/* share_batches.c */
bool batches_room(const struct vm *vm);
/* Add a page to the VM's next request of that kind; full ones are sent. Frames named are held from
 * here on. false: the VM cannot be asked now. */
bool batch_add(struct vm *vm, enum share_op op, const struct share_item *item);
void batches_send(struct vm *vm);
void batches_send_all(struct sharing *sharing);
void batches_drop(struct vm *vm);

/* scanner.c */
int scanner_start(struct sharing *sharing, struct err *err);
void scanner_stop(struct sharing *sharing);
/* There is something to visit now. */
void scanner_soon(struct sharing *sharing);
bool scanner_may_work(const struct sharing *sharing);

/* domains.c */
/* Put a VM that shares nothing yet into a domain. -1 with err: no memory, bad name. */
int domain_join(struct vm *vm, const char *name, struct err *err);
bool domain_may_share(const struct vm *a, const struct vm *b);
void domains_undo_some(struct vm *vm);

/* sharing_stats.c */
/* A store to ref's page ends it; it is still among the references. */
void break_note(struct vm *vm, const struct share_ref *ref, uint64_t pc);
/* A VM of this number is gone: what was counted for its pairs too. */
void pairs_forget(struct sharing *sharing, uint16_t number);

#endif
