/*
 * Content-based sharing, the supervisor's part (paper, section 4; design,
 * "Sharing"): what the rest of the daemon calls. One topic a file:
 *
 *   engine.c         one match, from a page's hash to a shared frame, as a table
 *   share_records.c  references and frames: every change of them, and what a
 *                    worker's release means for them
 *   charges.c        what each VM is charged for the frames it shares
 *   share_batches.c  pages gathered into requests, and their answers
 *   scanner.c        passes over VMs, pace, budgets
 *   offers.c         victims of page-out that may be shared instead
 *   domains.c        who may share with whom
 *   sharing_stats.c  counters, pairs, provenance
 *
 * Who may share: by default every VM is a domain of its own. Pages are shared
 * inside it, and its pages of zeroes map the zero frame. VMs that are put into one
 * named domain share among each other. The reason is what copy-on-write gives
 * away: a store to a shared page takes longer, so a guest can find out by timing
 * whether a neighbour of its domain holds a page that it can guess. Inside one VM,
 * and with zeroes, there is nobody to find out about. Operators who trust a group
 * of guests with that name it.
 */
#ifndef BALLAST_SHARING_H
#define BALLAST_SHARING_H

#include "daemon/supervisor.h"
#include "vmm-core/ring.h"

struct sharing;    /* of a host */
struct vm_sharing; /* of a VM */

/* NULL with err: no memory, no entropy. Starts scanning if the settings say so. */
struct sharing *sharing_new(struct supervisor *supervisor, const struct sharing_settings *settings,
                            struct err *err);
/* After the last VM. */
void sharing_free(struct sharing *sharing);
int sharing_settings_check(const struct sharing_settings *settings, struct err *err);

/* A VM's record begins, with the domain its settings name. -1 with err. */
int sharing_vm_new(struct vm *vm, struct err *err);
void sharing_vm_free(struct vm *vm);
/* Its worker starts with fresh memory. */
void sharing_vm_start(struct vm *vm);
/* Its worker has ended, its messages are drained and its requests answered as stale: drop its
 * references and hints. Before its private frames are freed. */
void sharing_vm_gone(struct vm *vm);

/* What became of one page of a RELEASED message. */
enum sharing_release {
    RELEASE_REFUSED, /* the VM does not hold that */
    RELEASE_OF_OWN,  /* a frame of its own, given back */
    RELEASE_OF_REFERENCE,
};
enum sharing_release sharing_released(struct vm *vm, ppn_t ppn, mpn_t mpn, enum release_why why,
                                      uint64_t pc);

/* Should a PAGE_OUT to this VM have its victims offered first? And the offer: pages of its own that
 * it is about to page out. */
bool sharing_wants_offers(const struct vm *vm);
void sharing_offered(struct vm *vm, const struct ring_message *message);

/* A worker's messages that came together are handled: what answers among them led to is sent. */
void sharing_answered(struct vm *vm);

/* Is no request of sharing to this VM unanswered? While a check wants quiet, none is begun but
 * those that end what was begun. */
bool sharing_vm_is_quiet(const struct vm *vm);
bool sharing_is_quiet(const struct supervisor *supervisor); /* to any VM */

/* "equal", "full", "none"; and the other way, false for another word. */
const char *shared_charge_name(enum shared_charge charge);
bool shared_charge_find(const char *name, enum shared_charge *charge);

/* Frames charged to a VM for what it shares, by the setting shared_charge. */
uint64_t sharing_charged_pages(const struct vm *vm);

/* Violations of what is kept here: table, references and frame table agree. *text says what. */
uint64_t sharing_check(const struct supervisor *supervisor, char *text, size_t bytes);
/* Is (vm, ppn) counted as a reference of mpn? */
bool sharing_has_reference(const struct vm *vm, ppn_t ppn, mpn_t mpn);
/* References counted for a VM, those to the zero frame included. */
uint64_t sharing_references(const struct vm *vm);
void sharing_fill_row(const struct vm *vm, struct vm_row *row);
void sharing_fill_host_row(const struct supervisor *supervisor, struct host_row *row);

#endif
