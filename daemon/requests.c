/*
 * Requests: what was asked of a worker and not yet answered. At most
 * RING_REQUESTS a VM, so that the worker can always keep room for the answers.
 * A request that does not fit its ring waits here and is sent later; nobody
 * blocks. The number that comes back in DONE is index + serial: an answer that
 * was never asked for, or comes twice, finds no request and is refused. A
 * worker that ends leaves its requests stale: every asker hears exactly once.
 */
#include "daemon/supervisor_private.h"

#include <string.h>

int request_new(struct vm *vm, enum ring_type type, uint64_t value, request_answer_fn *answer,
                void *ctx, struct err *err)
{
    struct ring_message message = {.type = (uint16_t)type, .value = value};
    return request_message(vm, &message, answer, ctx, err);
}

int request_message(struct vm *vm, const struct ring_message *message, request_answer_fn *answer,
                    void *ctx, struct err *err)
{
    for (uint32_t i = 0; i < RING_REQUESTS; i++) {
        struct request *request = &vm->requests[i];
        if (request->id)
            continue;
        uint32_t serial = ++vm->request_serial % (UINT32_MAX / RING_REQUESTS - 1) + 1;
        *request = (struct request){
            .id = serial * RING_REQUESTS + i, .message = *message, .answer = answer, .ctx = ctx};
        request->message.request = request->id;
        requests_send(vm);
        return 0;
    }
    return err_set(err, 0, "VM %s: %u requests are unanswered", vm->settings.name, RING_REQUESTS);
}

void requests_send(struct vm *vm)
{
    if (!vm_has_worker(vm) || vm->life == LIFE_ENDING)
        return;
    /* Oldest first: ids of one serial order sort by serial, whatever their index. */
    for (;;) {
        struct request *oldest = NULL;
        for (uint32_t i = 0; i < RING_REQUESTS; i++) {
            struct request *request = &vm->requests[i];
            if (request->id && !request->sent &&
                (!oldest || request->id / RING_REQUESTS < oldest->id / RING_REQUESTS))
                oldest = request;
        }
        if (!oldest)
            return;
        if (message_put(vm, &oldest->message) != RING_OK) {
            service_soon(vm->supervisor);
            return;
        }
        oldest->sent = true;
    }
}

bool requests_unsent(const struct vm *vm)
{
    for (uint32_t i = 0; i < RING_REQUESTS; i++)
        if (vm->requests[i].id && !vm->requests[i].sent)
            return true;
    return false;
}

static void finish(struct vm *vm, struct request *request, enum answer_fate fate, uint64_t value)
{
    struct request finished = *request;
    memset(request, 0, sizeof *request);
    if (finished.answer)
        finished.answer(vm, fate, value, finished.ctx);
}

void request_answered(struct vm *vm, uint32_t id, uint64_t value)
{
    struct request *request = &vm->requests[id % RING_REQUESTS];
    if (!id || request->id != id || !request->sent) {
        vm->refused_messages++;
        event_tell(vm->supervisor, vm, EVENT_REFUSED, "DONE for request %u, which is not open", id);
        return;
    }
    finish(vm, request, ANSWER_GIVEN, value);
}

void requests_stale(struct vm *vm)
{
    for (uint32_t i = 0; i < RING_REQUESTS; i++)
        if (vm->requests[i].id)
            finish(vm, &vm->requests[i], ANSWER_STALE, 0);
}

void requests_forget(struct vm *vm, request_answer_fn *answer)
{
    for (uint32_t i = 0; i < RING_REQUESTS; i++)
        if (vm->requests[i].answer == answer)
            vm->requests[i].answer = NULL;
}
