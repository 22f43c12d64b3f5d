/* For tests of sharing: a host whose workers have pages of known contents (sharing_worker.c). */
#ifndef BALLAST_TESTS_SHARING_HOST_H
#define BALLAST_TESTS_SHARING_HOST_H

#include "tests/daemon/host_fixture.h"

#define SHARING_WAIT_MS 60000 /* for what happens within milliseconds on a quiet machine */

/* A host whose scanner does not tarry, and shares what it finds at once. */
void sharing_host_start(struct host *host, unsigned machine_mib);
/* A VM of 16 MiB, 4 of them its min, in a domain (NULL: alone). */
struct vm *sharing_vm(struct host *host, const char *name, const char *domain, const char *append);
struct vm_row sharing_row(struct host *host, const char *name);
struct sharing_stats sharing_stats_of(struct host *host);
/* Until so many more passes over each VM are over: what can be shared is. */
void sharing_scan(struct host *host, uint64_t passes);

#endif
