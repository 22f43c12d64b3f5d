/*
 * A host for tests in one line: event loop, run folder in /tmp, supervisor with
 * a worker program of the test's choice, and the events it told.
 */
#ifndef BALLAST_TESTS_HOST_FIXTURE_H
#define BALLAST_TESTS_HOST_FIXTURE_H

#include "daemon/supervisor.h"
#include "daemon/supervisor_private.h"

#define TEST_MIB    (UINT64_C(1) << 20)
#define HOST_EVENTS 256

struct host {
    char folder[64];
    sd_event *event;
    struct supervisor *supervisor;
    struct supervisor_config config;
    unsigned event_count;
    struct {
        char vm[VM_NAME_BYTES], kind[32], text[200];
    } events[HOST_EVENTS]; /* the last ones, as a ring */
};

/* machine_mib of memory; worker: program beside the test. Fails the test if it cannot. */
void host_start(struct host *host, unsigned machine_mib, const char *worker);
/* Ends workers, checks that no frame is lost and nothing is left in the folder, removes it. */
void host_stop(struct host *host);

/* Create a VM of so many MiB whose kernel and command line are what the test worker wants. */
struct vm *host_vm(struct host *host, const char *name, unsigned memory_mib, unsigned min_mib,
                   const char *append);
/* The same, expecting a refusal; its words come back in err. */
void host_vm_refused(struct host *host, const struct vm_settings *settings, struct err *err);

/* Run the loop until it is so; fails the test after timeout_ms. */
void host_run_ms(struct host *host, unsigned ms);
#define host_until(host, timeout_ms, condition)                                                    \
    do {                                                                                           \
        uint64_t until_deadline = clock_monotonic_ns() + (timeout_ms)*UINT64_C(1000000);           \
        while (!(condition)) {                                                                     \
            if (clock_monotonic_ns() > until_deadline) {                                           \
                host_print_events(host);                                                           \
                fail_msg("not within %u ms: %s", (unsigned)(timeout_ms), #condition);              \
            }                                                                                      \
            sd_event_run((host)->event, 2000);                                                     \
        }                                                                                          \
    } while (0)

bool host_state_is(struct host *host, const char *vm, const char *state);
unsigned host_events(const struct host *host, const char *vm, const char *kind);
bool host_event_says(const struct host *host, const char *kind, const char *part);
void host_print_events(const struct host *host);

/* Check the invariants and fail the test, with the violations, unless all hold. */
void host_check(struct host *host);
/* Run the check and give its result back. */
void host_check_result(struct host *host, struct check_result *result);

/* Synchronous forms for tests. */
void host_pause(struct host *host, const char *vm);
void host_resume(struct host *host, const char *vm);
void host_destroy(struct host *host, const char *vm);

#endif
