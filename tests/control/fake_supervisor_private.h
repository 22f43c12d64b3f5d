/* What the parts of the fake supervisor share: fake_supervisor.c (life, rows, events),
 * fake_policy.c (decisions, an external policy), fake_sharing.c (twins). */
#ifndef BALLAST_TEST_FAKE_SUPERVISOR_PRIVATE_H
#define BALLAST_TEST_FAKE_SUPERVISOR_PRIVATE_H

#include "tests/control/fake_supervisor.h"

#include "daemon/sharing/sharing.h"

#define PAGE           4096u
#define FAKE_DECISIONS 4u /* kept a VM */

struct vm {
    struct vm *next;
    char name[VM_NAME_BYTES];
    const char *state;
    uint64_t memory_pages, min_pages, max_pages, manual_pages;
    uint64_t given_pages; /* by an external policy; 0: none */
    uint32_t shares;
    int idle_tax_percent;
    bool manual;
    struct decision decided[FAKE_DECISIONS]; /* the last ones, as a ring */
    unsigned decisions;
};

struct supervisor_listener {
    struct supervisor_listener *next;
    supervisor_event_fn *fn;
    void *ctx;
};

struct supervisor_decision_listener {
    struct supervisor_decision_listener *next;
    supervisor_decision_fn *fn;
    void *ctx;
};

struct supervisor {
    struct supervisor_decision_listener *decision_listeners;
    struct supervisor_config config;
    sd_event *event;
    struct vm *vms;
    struct supervisor_listener *listeners;
    bool checking;
    struct external_policy *external;
    sd_event_source *round; /* to ask it, when it has come or a setting was changed */
    bool decided_by_external;
};

/* fake_policy.c */
int fake_external_start(struct supervisor *supervisor, struct err *err);
/* Ask it when the event loop comes round; ctx is the supervisor. */
void fake_ask_soon(void *ctx);
/* The VM's target becomes what it is given, and everybody hears why. */
void fake_decide(struct supervisor *supervisor, struct vm *vm, uint64_t previous_pages,
                 uint64_t target_pages, enum policy_rule rule);

/* fake_sharing.c */
extern struct sharing_settings fake_sharing_settings;
/* Both of "twin-a" and "twin-b" are there. */
bool fake_has_twins(struct supervisor *supervisor);

#endif
