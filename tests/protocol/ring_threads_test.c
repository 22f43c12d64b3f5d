/*
 * Both ends of a pair of rings as threads: frames go out as grants and come
 * back as releases, requests are answered through a ring that is kept full of
 * other messages. What one end wrote into a frame before its message, the other
 * must read after it: the frames have no protection but the rings. Run under
 * ThreadSanitizer.
 */
#include "vmm-core/ring.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FRAMES    64u
#define TRANSFERS 40000u
#define REQUESTS  2000u

struct pair {
    struct ring *to_worker, *to_supervisor;
    uint64_t frames[FRAMES]; /* whose turn it is: the owner's; nothing else guards it */
    _Atomic unsigned wrong;
};

static struct ring *new_ring(void)
{
    struct ring *ring = aligned_alloc(64, sizeof(*ring));

    memset(ring, 0, sizeof(*ring));
    return ring;
}

/* Gives back every frame it gets, plus one; answers requests; keeps slots for the answers. */
static void *run_worker(void *arg)
{
    struct pair *p = arg;
    struct ring_message message;
    uint32_t owned[FRAMES], count = 0, answers[RING_REQUESTS], answer_count = 0;

    for (bool quit = false; !quit || count > 0 || answer_count > 0;) {
        enum ring_result result = ring_take(p->to_worker, &message);

        if (result == RING_OK && message.type == RING_GRANT) {
            for (unsigned i = 0; i < message.count; i++)
                owned[count++] = message.numbers[i];
        } else if (result == RING_OK && message.type == RING_QUIT) {
            quit = true;
        } else if (result == RING_OK) {
            answers[answer_count++] = message.request;
        } else if (result == RING_CORRUPT) {
            atomic_fetch_add(&p->wrong, 1);
        } else {
            sched_yield();
        }
        if (count > 0 && ring_room(p->to_supervisor) > RING_REQUESTS) {
            message = (struct ring_message){.type = RING_RELEASED};
            while (count > 0 && message.count < RING_PAIRS) {
                p->frames[owned[--count]]++;
                message.pairs[message.count++].mpn = owned[count];
            }
            ring_put(p->to_supervisor, &message);
        }
        if (answer_count > 0) {
            message = (struct ring_message){.type = RING_DONE, .request = answers[--answer_count]};
            if (ring_put(p->to_supervisor, &message) != RING_OK)
                atomic_fetch_add(&p->wrong, 1); /* the room for answers was not kept */
        }
    }
    return NULL;
}

static void both_ends_agree_on_every_frame_and_answer(void **state)
{
    struct pair p = {.to_worker = new_ring(), .to_supervisor = new_ring()};
    uint64_t expected[FRAMES] = {0};
    uint32_t free_frames[FRAMES], free_count = FRAMES, sent = 0, returned = 0;
    uint32_t asked = 0, answered = 0;
    pthread_t worker;
    (void)state;

    for (uint32_t i = 0; i < FRAMES; i++)
        free_frames[i] = i;
    pthread_create(&worker, NULL, run_worker, &p);
    while (returned < TRANSFERS || answered < REQUESTS) {
        struct ring_message message = {.type = RING_GRANT};

        while (free_count > 0 && message.count < RING_BATCH && sent < TRANSFERS) {
            uint32_t mpn = free_frames[--free_count];

            p.frames[mpn] += 1000;
            expected[mpn] += 1001;
            message.numbers[message.count++] = mpn;
            sent++;
        }
        if (message.count > 0)
            assert_int_equal(ring_put(p.to_worker, &message), RING_OK);
        if (asked < REQUESTS && asked - answered < RING_REQUESTS) {
            message = (struct ring_message){.type = RING_CHECK, .request = ++asked};
            assert_int_equal(ring_put(p.to_worker, &message), RING_OK);
        }
        switch (ring_take(p.to_supervisor, &message)) {
        case RING_OK:
            answered += message.type == RING_DONE;
            for (unsigned i = 0; message.type == RING_RELEASED && i < message.count; i++) {
                uint32_t mpn = message.pairs[i].mpn;

                assert_int_equal(p.frames[mpn], expected[mpn]);
                free_frames[free_count++] = mpn;
                returned++;
            }
            break;
        case RING_EMPTY:
            sched_yield();
            break;
        default:
            fail_msg("corrupt ring");
        }
    }
    while (ring_put(p.to_worker, &(struct ring_message){.type = RING_QUIT}) != RING_OK)
        sched_yield();
    pthread_join(worker, NULL);
    assert_int_equal(free_count, FRAMES);
    assert_int_equal(answered, REQUESTS);
    assert_int_equal(p.wrong, 0);
    free(p.to_worker);
    free(p.to_supervisor);
}

#define STREAM 50000u

static void *run_reader(void *arg)
{
    struct pair *p = arg;
    struct ring_message message;

    for (uint64_t expected = 0; expected < STREAM;)
        if (ring_take(p->to_worker, &message) == RING_OK) {
            if (message.value != expected || message.pc != ~expected)
                atomic_fetch_add(&p->wrong, 1);
            expected++;
        } else {
            sched_yield();
        }
    return NULL;
}

/* One way only: nothing but the consumer's counter says that a slot may be used again. */
static void a_slot_is_not_reused_before_it_was_copied(void **state)
{
    struct pair p = {.to_worker = new_ring()};
    struct ring_message message = {.type = RING_TARGET};
    pthread_t reader;
    (void)state;

    pthread_create(&reader, NULL, run_reader, &p);
    for (message.value = 0; message.value < STREAM;) {
        message.pc = ~message.value;
        if (ring_put(p.to_worker, &message) == RING_OK)
            message.value++;
        else
            sched_yield();
    }
    pthread_join(reader, NULL);
    assert_int_equal(p.wrong, 0);
    free(p.to_worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_slot_is_not_reused_before_it_was_copied),
                                       cmocka_unit_test(both_ends_agree_on_every_frame_and_answer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
