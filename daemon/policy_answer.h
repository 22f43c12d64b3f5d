/*
 * What an external policy answered, judged: a pure function from the question
 * and a JSON value to targets or a reason. An answer is right as a whole or wrong
 * as a whole; nothing in it is clamped, guessed or left out:
 *
 *   - an object with one member for each VM of the question, and no other;
 *   - each a whole number of bytes between the VM's min and max (a part of a page
 *     counts as none, and min and max are whole pages);
 *   - the sum no more than the question said there is.
 */
#ifndef BALLAST_POLICY_ANSWER_H
#define BALLAST_POLICY_ANSWER_H

#include "vmm-core/err.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define ANSWER_NAME_BYTES 64 /* of a VM, with the final NUL */

/* A VM of the question, and its part of the answer. */
struct answer_vm {
    char name[ANSWER_NAME_BYTES];
    uint32_t id; /* of its row */
    uint64_t min_pages, max_pages;
    uint64_t target_pages; /* written by policy_answer_read */
};

/* 0 with every target_pages; -1 with err, which says of which VM what is wrong, in printable
 * ASCII whatever the JSON holds. targets may be NULL (absent). */
int policy_answer_read(const json_t *targets, struct answer_vm *vms, size_t count,
                       uint64_t available_pages, struct err *err);

#endif
