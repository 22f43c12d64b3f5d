#include "daemon/policy/round_fields.h"

/* A structure that grew needs its new member below, or recorded rounds would not be whole. */
#define EXPECT_BYTES(type, bytes)                                                                  \
    _Static_assert(sizeof(struct type) == (bytes),                                                 \
                   "a new member of " #type " is a line in round_fields.c too")
EXPECT_BYTES(state_thresholds, 72);
EXPECT_BYTES(policy_host, 40);
EXPECT_BYTES(policy_vm, 144);
EXPECT_BYTES(policy_memory, 112);
EXPECT_BYTES(policy_target, 64); /* its reason is told by the stream of decisions */

/* clang-format off */
#define FIELD(kind, row, member, bit) {#member, kind, offsetof(struct row, member), bit}
#define NAMED(name, kind, row, member, bit) {name, kind, offsetof(struct row, member), bit}
#define END {0}

#define THRESHOLD(kind, member) FIELD(kind, state_thresholds, member, 0)
const struct round_field round_thresholds_fields[] = {
    THRESHOLD(ROUND_REAL, high),
    THRESHOLD(ROUND_REAL, soft),
    THRESHOLD(ROUND_REAL, hard),
    THRESHOLD(ROUND_REAL, low),
    THRESHOLD(ROUND_REAL, hysteresis),
    THRESHOLD(ROUND_FLAG, sliding),
    THRESHOLD(ROUND_REAL, sliding_soft),
    THRESHOLD(ROUND_REAL, sliding_hard),
    THRESHOLD(ROUND_REAL, sliding_low),
    END,
};

#define HOST(kind, member) FIELD(kind, policy_host, member, 0)
const struct round_field round_host_fields[] = {
    HOST(ROUND_COUNT, machine_pages),
    HOST(ROUND_COUNT, free_pages),
    HOST(ROUND_COUNT, elapsed_ns),
    HOST(ROUND_COUNT, shared_pages),
    HOST(ROUND_COUNT, shared_charge_pages),
    END,
};

#define VM(kind, member) FIELD(kind, policy_vm, member, 0)
#define VM_IF(bit, kind, member) FIELD(kind, policy_vm, member, bit)
#define CAN(name, bit) NAMED(name, ROUND_BIT, policy_vm, can, bit)
const struct round_field round_vm_fields[] = {
    VM(ROUND_COUNT32, id),
    CAN("can_balloon", POLICY_CAN_BALLOON),
    CAN("can_page_out", POLICY_CAN_PAGE_OUT),
    CAN("can_block", POLICY_CAN_BLOCK),
    VM(ROUND_COUNT32, shares),
    VM(ROUND_COUNT, memory_pages),
    VM(ROUND_COUNT, min_pages),
    VM(ROUND_COUNT, max_pages),
    VM(ROUND_COUNT, allocated_pages),
    VM(ROUND_COUNT, page_out_pending_pages),
    VM_IF(POLICY_HAS_BALLOON, ROUND_COUNT, balloon_pages),
    VM_IF(POLICY_HAS_PAGED, ROUND_COUNT, paged_pages),
    VM_IF(POLICY_HAS_ABSENT, ROUND_COUNT, absent_pages),
    VM_IF(POLICY_HAS_SAVED, ROUND_COUNT, saved_pages),
    VM_IF(POLICY_HAS_MANUAL_TARGET, ROUND_COUNT, manual_target_pages),
    VM_IF(POLICY_HAS_GIVEN_TARGET, ROUND_COUNT, given_target_pages),
    VM_IF(POLICY_HAS_GUEST, ROUND_COUNT, guest_free_pages),
    VM_IF(POLICY_HAS_GUEST, ROUND_COUNT, guest_available_pages),
    VM_IF(POLICY_HAS_GUEST, ROUND_COUNT, guest_untouched_pages),
    VM_IF(POLICY_HAS_ACTIVE, ROUND_REAL, active_fraction),
    VM_IF(POLICY_HAS_IDLE_TAX, ROUND_COUNT32, idle_tax_percent),
    END,
};

#define MEMORY(kind, member) FIELD(kind, policy_memory, member, 0)
#define OWN(number) NAMED("own_" #number, ROUND_REAL, policy_memory, own[number], 0)
const struct round_field round_memory_fields[] = {
    MEMORY(ROUND_FLAG, stalled),
    MEMORY(ROUND_COUNT, target_pages),
    MEMORY(ROUND_COUNT, balloon_pages),
    MEMORY(ROUND_COUNT, progress_pages),
    MEMORY(ROUND_COUNT, no_progress_ns),
    MEMORY(ROUND_LIMIT, limit_pages),
    OWN(0), OWN(1), OWN(2), OWN(3), OWN(4), OWN(5), OWN(6), OWN(7),
    END,
};

#define TARGET(kind, member) FIELD(kind, policy_target, member, 0)
const struct round_field round_target_fields[] = {
    TARGET(ROUND_BYTE, why),
    TARGET(ROUND_FLAG, blocked),
    TARGET(ROUND_FLAG, balloon_stalled),
    TARGET(ROUND_COUNT, target_pages),
    TARGET(ROUND_COUNT, balloon_pages),
    TARGET(ROUND_COUNT, page_out_pages),
    TARGET(ROUND_LIMIT, limit_pages),
    END,
};

#define OUTCOME(kind, member) FIELD(kind, policy_outcome, member, 0)
const struct round_field round_outcome_fields[] = {
    OUTCOME(ROUND_COUNT, available_pages),
    OUTCOME(ROUND_COUNT, target_pages),
    OUTCOME(ROUND_COUNT32, rows_refused),
    OUTCOME(ROUND_COUNT, again_within_ns),
    END,
};
/* clang-format on */
