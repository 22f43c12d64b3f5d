/*
 * A supervisor without workers, for tests of what stands before it: it keeps
 * settings, answers when the event loop comes round, and can be made to refuse.
 * Linked in place of the real one, of which it defines every public function.
 *
 * Names with a meaning: creating "crowd" is refused for lack of memory; pausing
 * "stubborn" fails; the row of a VM whose name begins with "busy" is full of large numbers,
 * and the host's clock runs while there is one. An order of a target, and taking it back, are
 * decisions; the host has half of its memory free then.
 * VMs "twin-a" and "twin-b", if both are there, share frame 4096: page 7 of the one, found as a
 * hint, and page 9 of the other, before page-out; each has stored to one more page of it.
 * An external policy is asked once when it attaches, and once whenever period_ms is set.
 */
#ifndef BALLAST_TEST_FAKE_SUPERVISOR_H
#define BALLAST_TEST_FAKE_SUPERVISOR_H

#include "daemon/supervisor.h"

/* Tell every listener. */
void fake_event(struct supervisor *supervisor, const char *vm, const char *kind, const char *text);

#endif
