/*
 * Pages gathered into requests. A request of one kind carries up to six pages (a
 * SHARE four); full ones leave at once, the others when a slice of the scanner or
 * the handling of the answers that came together is over.
 *
 * Frames that a page of a request names are held from when the page is added
 * until the answer: whoever gives them up meanwhile, they are nobody else's
 * before. The page's own frame and the owner of a hint take part in one request
 * only; a shared target may be named by several, since each has counted its
 * reference and nobody stores to it. ("One request a frame", for all but targets:
 * else a page that thousands share would be shared by one round trip each.)
 */
#include "daemon/sharing/sharing_private.h"

#include <stdlib.h>

static const struct {
    enum ring_type type;
    uint32_t flags;
    unsigned width, most; /* numbers a page, pages a message */
} forms[OPS] = {
    [OP_PROTECT] = {RING_PROTECT, 0, 2, RING_PAIRS},
    [OP_SHARE] = {RING_SHARE, 0, 3, RING_THREES},
    [OP_UNSHARE] = {RING_UNSHARE, RING_IN_PLACE, 2, RING_PAIRS},
    [OP_COPY] = {RING_UNSHARE, 0, 2, RING_PAIRS},
};

#define WAKE_AT_ANSWERS 256u /* waiting pages looked at again */

struct sent {
    enum share_op op;
    struct share_batch batch;
};

static bool has_row(const struct sharing *sharing, mpn_t mpn)
{
    return mpn < machine_memory_pages(sharing->machine);
}

static void unhold(struct sharing *sharing, const struct share_item *item)
{
    if (has_row(sharing, item->mpn))
        machine_memory_unhold(sharing->machine, item->mpn);
    if (item->target != NO_MPN && has_row(sharing, item->target))
        machine_memory_unhold(sharing->machine, item->target);
}

/* A SHARE counts its reference before the page gives its own frame up. */
static void count_asked(struct vm *vm, enum share_op op, int change)
{
    if (op != OP_SHARE)
        return;
    vm->sharing->asked_pages += (uint64_t)change;
    vm->sharing->sharing->asked_pages += (uint64_t)change;
}

static bool hold(struct sharing *sharing, const struct share_item *item)
{
    if (has_row(sharing, item->mpn) && !machine_memory_hold(sharing->machine, item->mpn))
        return false;
    if (item->target != NO_MPN && has_row(sharing, item->target) &&
        !machine_memory_hold(sharing->machine, item->target)) {
        if (has_row(sharing, item->mpn))
            machine_memory_unhold(sharing->machine, item->mpn);
        return false;
    }
    return true;
}

bool batches_room(const struct vm *vm)
{
    return vm_has_worker(vm) && !vm->supervisor->quitting &&
           (vm->life == LIFE_STARTING || vm->life == LIFE_RUNNING || vm->life == LIFE_PAUSED) &&
           vm->sharing->outstanding + OPS < SHARING_REQUESTS;
}

static void answer_all(struct vm *vm, enum share_op op, const struct share_batch *batch,
                       enum answer_fate fate, uint64_t value)
{
    for (unsigned i = 0; i < batch->count; i++) {
        enum ring_item result = fate == ANSWER_GIVEN ? RING_ITEM(value, i) : RING_ITEM_STALE;
        if (result == RING_ITEM_NONE || result > RING_ITEM_BUSY)
            result = RING_ITEM_STALE;
        /* First, so that who decides on a frame sees who else still names it. */
        unhold(vm->sharing->sharing, &batch->items[i]);
        count_asked(vm, op, -1);
        engine_answer(vm, op, &batch->items[i], result);
    }
}

static void on_answer(struct vm *vm, enum answer_fate fate, uint64_t value, void *ctx)
{
    struct sharing *sharing = sharing_of(vm);
    struct sent *sent = ctx;
    if (fate == ANSWER_GIVEN && !sharing->answers_begin_ns)
        sharing->answers_begin_ns = sharing_cpu_ns();
    vm->sharing->outstanding--;
    answer_all(vm, sent->op, &sent->batch, fate, value);
    free(sent);
    check_vm_settled(vm->supervisor);
}

static bool has_few_unanswered(const struct sharing *sharing)
{
    const struct vm *vm;
    TAILQ_FOREACH(vm, &sharing->supervisor->vms, entry)
    if (vm->sharing->outstanding > SHARING_REQUESTS / 2)
        return false;
    return true;
}

void sharing_answered(struct vm *vm)
{
    struct sharing *sharing = sharing_of(vm);
    if (!sharing->answers_begin_ns)
        return;
    if (scanner_may_work(sharing)) {
        engine_wake(sharing, WAKE_AT_ANSWERS);
        if (sharing->wants_answers && has_few_unanswered(sharing)) {
            sharing->wants_answers = false;
            scanner_soon(sharing);
        }
    }
    batches_send_all(sharing);
    uint64_t begin_ns = sharing->answers_begin_ns;
    sharing->answers_begin_ns = 0;
    sharing_spent(vm, begin_ns);
    check_vm_settled(vm->supervisor);
}

static void send(struct vm *vm, enum share_op op)
{
    struct share_batch *batch = &vm->sharing->batch[op];
    struct ring_message message = {.type = (uint16_t)forms[op].type, .flags = forms[op].flags};
    if (!batch->count)
        return;
    for (unsigned i = 0; i < batch->count; i++) {
        uint32_t *numbers = &message.numbers[i * forms[op].width];
        numbers[0] = batch->items[i].ppn;
        numbers[1] = batch->items[i].mpn;
        if (op == OP_SHARE)
            numbers[2] = batch->items[i].target;
    }
    message.count = (uint8_t)(op == OP_SHARE ? 3 * batch->count : batch->count);
    struct sent *sent = malloc(sizeof *sent);
    struct share_batch failed = *batch;
    batch->count = 0;
    if (sent)
        *sent = (struct sent){op, failed};
    if (!sent || request_message(vm, &message, on_answer, sent, NULL) < 0) {
        free(sent);
        answer_all(vm, op, &failed, ANSWER_STALE, 0);
        return;
    }
    vm->sharing->outstanding++;
}

bool batch_add(struct vm *vm, enum share_op op, const struct share_item *item)
{
    struct share_batch *batch = &vm->sharing->batch[op];
    if (!batches_room(vm) || !hold(vm->sharing->sharing, item))
        return false;
    batch->items[batch->count++] = *item;
    count_asked(vm, op, 1);
    if (batch->count == forms[op].most)
        send(vm, op);
    return true;
}

void batches_send(struct vm *vm)
{
    for (enum share_op op = 0; op < OPS; op++)
        send(vm, op);
    message_kick(vm);
}

void batches_send_all(struct sharing *sharing)
{
    struct vm *vm;
    TAILQ_FOREACH(vm, &sharing->supervisor->vms, entry)
    {
        if (vm_has_worker(vm))
            batches_send(vm);
    }
}

void batches_drop(struct vm *vm)
{
    for (enum share_op op = 0; op < OPS; op++) {
        struct share_batch batch = vm->sharing->batch[op];
        vm->sharing->batch[op].count = 0;
        answer_all(vm, op, &batch, ANSWER_STALE, 0);
    }
}

bool sharing_vm_is_quiet(const struct vm *vm)
{
    if (vm->sharing->outstanding)
        return false;
    for (enum share_op op = 0; op < OPS; op++)
        if (vm->sharing->batch[op].count)
            return false;
    return true;
}

bool sharing_is_quiet(const struct supervisor *supervisor)
{
    const struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (!sharing_vm_is_quiet(vm))
            return false;
    }
    return true;
}
