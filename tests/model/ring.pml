/*
 * Rings, grants, releases, wishes, page-out and worker death: the protocol of
 * vmm-core/ring.h and vmm-core/mem as a model for spin. Small numbers, every
 * interleaving.
 *
 * The supervisor keeps owner[]; the worker is a pager and a guest thread (hart
 * and device in one: it touches, balloons and deflates pages) under one memory
 * lock; another VM takes and gives back free frames, so that a frame given up
 * too early is soon somebody else's. The worker may die between any two steps.
 *
 * Checked: a frame has one owner and stands in one place (no double ownership,
 * none lost), every request is answered exactly once, nobody waits for ever
 * (spin's invalid end states: only idle loops may end), and after a death every
 * frame comes back.
 *
 * -DBUG=n seeds a mistake that the search must find:
 *    1  a slot is published before it is written
 *    2  a page stored to while it was written out is released all the same
 *    3  frames of a killed worker are freed before it has really ended
 *    4  frames of a dead worker are freed before its last messages are read
 *    5  the supervisor forgets a grant for which the ring has no room
 *    6  a blocked thread does not ask for frames
 */
#ifndef BUG
#define BUG 0
#endif

#define FRAMES 2
#define PAGES 2
#define SLOTS 2
#define KEPT_FOR_ANSWERS 1
#define NOTHING 7

mtype = { GRANT, PAGE_OUT, RELEASED, DONE, WANT };
mtype = { ABSENT, PRIVATE, PAGING_OUT, PAGED, PAGING_IN, BALLOONED };
mtype = { FREE, OURS, OTHER };

/* Slots are numbered from the oldest message, so that states which differ only by how far the ring
 * has turned are one state. */
typedef ring_t {
    mtype type[SLOTS];
    byte frame[SLOTS];
    byte used;
}
ring_t to_worker, to_supervisor;

/* The ring to the worker uses one slot only, so that it is often full. */
#define room_to_worker (1 - to_worker.used)
#define room_to_supervisor (SLOTS - to_supervisor.used)


/* Two steps each, as in ring.c: the slot, then the counter. What follows the second step until the
 * next ring operation concerns nobody else, and is joined to it with atomic. */
#define write_slot(r, what, which) \
    d_step { assert(r.used < SLOTS); r.type[r.used] = what; r.frame[r.used] = which }
#define publish(r) r.used++
#define copy_slot(r, what, which) d_step { what = r.type[0]; which = r.frame[0] }
#define free_slot(r) \
    d_step { r.type[0] = r.type[1]; r.frame[0] = r.frame[1]; \
             r.type[1] = 0; r.frame[1] = NOTHING; r.used-- }

#if BUG == 1
#define put(r, what, which, then) \
    publish(r); \
    atomic { assert(r.used > 0); r.type[r.used - 1] = what; r.frame[r.used - 1] = which; then }
#else
#define put(r, what, which, then) write_slot(r, what, which); atomic { publish(r); then }
#endif

/* The supervisor's records. */
mtype owner[FRAMES] = FREE;
byte wanted; /* frames */
bool outstanding;

/* The worker. */
mtype state[PAGES] = ABSENT;
byte frame_of[PAGES] = NOTHING;
bool pool[FRAMES], outbox[FRAMES];
bool want_pending, request_open, answer_pending;
bool locked;
bool killed;           /* the signal is sent: its threads may still take steps */
bool gone;             /* and now they do not */
byte running = 2;      /* threads that have not ended */

inline in_use(f, result) {
    result = pool[f];
    i = 0;
    do
    :: i < PAGES -> result = result + (frame_of[i] == f -> 1 : 0); i++
    :: else -> break
    od
}

/* Frame f stands in exactly one place: nowhere in the worker if it is not ours, otherwise in the
 * pool, a page, the outbox, or one unread message. Only at moments when nobody is in mid-step. */
inline check_frames() {
    d_step {
        if
        :: !locked && !killed ->
            f = 0;
            do
            :: f < FRAMES ->
                in_use(f, n);
                n = n + outbox[f];
                i = 0;
                do
                :: i < to_worker.used ->
                    n = n + ((to_worker.type[i] == GRANT && to_worker.frame[i] == f) -> 1 : 0);
                    i++
                :: else -> break
                od;
                i = 0;
                do
                :: i < to_supervisor.used ->
                    n = n + ((to_supervisor.type[i] == RELEASED && to_supervisor.frame[i] == f) -> 1 : 0);
                    i++
                :: else -> break
                od;
                assert(n == (owner[f] == OURS -> 1 : 0));
                f++
            :: else -> break
            od;
            f = 0; i = 0; n = 0
        :: else
        fi
    }
}

/* Both for the lock's holder. */
inline give_up(p) {
    d_step { outbox[frame_of[p]] = true; frame_of[p] = NOTHING }
}

inline take_frame(p, becomes) {
    d_step {
        f = 0;
        do
        :: f < FRAMES && !pool[f] -> f++
        :: else -> break
        od;
        pool[f] = false; frame_of[p] = f; state[p] = becomes; f = 0
    }
}

#define pool_empty (!pool[0] && !pool[1])
#define outbox_empty (!outbox[0] && !outbox[1])
#define sendable (room_to_supervisor > KEPT_FOR_ANSWERS)

active proctype supervisor() {
    mtype what; byte which, f, i, n, whims = 1;
end: do
    :: to_supervisor.used > 0 ->
        copy_slot(to_supervisor, what, which);
        atomic {
            free_slot(to_supervisor);
            if
            :: what == RELEASED ->
                assert(owner[which] == OURS);
                if
                :: !gone -> in_use(which, n); assert(n == 0 && !outbox[which])
                :: else
                fi;
                owner[which] = FREE
            :: what == DONE -> assert(outstanding); outstanding = false
            :: what == WANT -> wanted = 1
            :: else -> assert(false)
            fi;
            what = 0; which = 0; n = 0; i = 0;
            check_frames()
        }

    /* Grants that do not fit stay on the free list. */
    :: atomic {
            wanted > 0 && !killed && (owner[0] == FREE || owner[1] == FREE) &&
            (room_to_worker > 0 || BUG == 5) ->
            which = (owner[0] == FREE -> 0 : 1);
            owner[which] = OURS; wanted--
        }
        if
        :: room_to_worker > 0 -> put(to_worker, GRANT, which, which = 0; check_frames())
        :: BUG == 5 && room_to_worker == 0 -> which = 0
        fi

    /* Out of frames, or just because: a request, one at a time. */
    :: atomic {
            !outstanding && !killed && room_to_worker > 0 &&
            ((wanted > 0 && owner[0] != FREE && owner[1] != FREE) || whims > 0) ->
            outstanding = true; whims = 0
        }
        put(to_worker, PAGE_OUT, NOTHING, skip)

    /* The worker's end, seen through its pidfd; BUG 3: believed too early. */
    :: killed && (running == 0 || BUG == 3) -> break
    od;

    do
    :: BUG != 4 && to_supervisor.used > 0 ->
        copy_slot(to_supervisor, what, which);
        atomic {
            free_slot(to_supervisor);
            if
            :: what == RELEASED -> assert(owner[which] == OURS); owner[which] = FREE
            :: else
            fi
        }
    :: else -> break
    od;
    atomic {
        f = 0;
        do
        :: f < FRAMES -> owner[f] = (owner[f] == OURS -> FREE : owner[f]); f++
        :: else -> break
        od
    }
    do
    :: BUG == 4 && to_supervisor.used > 0 ->
        copy_slot(to_supervisor, what, which);
        free_slot(to_supervisor);
        assert(what != RELEASED || owner[which] == OURS)
    :: else -> break
    od;
    /* Whoever stores to a frame that was freed stores into another VM. */
    (running == 0);
    assert(owner[0] != OURS && owner[1] != OURS)
}

/* What the supervisor does for another VM. */
active proctype other_vm() {
    byte turns = 1;
end: do
    :: turns > 0 ->
        atomic { owner[0] == FREE -> owner[0] = OTHER };
        atomic { owner[0] = FREE; turns-- }
    :: else -> break
    od
}

#define can_flush ((!outbox_empty && sendable) || (want_pending && sendable) || \
                   (answer_pending && outbox_empty && room_to_supervisor > 0))

/* One message a turn: releases first, answers when no release waits. */
inline flush() {
    if
    :: atomic { !outbox_empty && sendable -> g = (outbox[0] -> 0 : 1); outbox[g] = false }
       put(to_supervisor, RELEASED, g, g = 0)
    :: atomic { want_pending && sendable -> want_pending = false }
       put(to_supervisor, WANT, NOTHING, skip)
    :: atomic { answer_pending && outbox_empty && room_to_supervisor > 0 -> answer_pending = false }
       put(to_supervisor, DONE, NOTHING, skip)
    :: !can_flush
    fi
}

/* A write to the swap file has ended. A page stored to meanwhile is private again and stays. */
inline settle(p) {
    if
    :: state[p] == PAGING_OUT -> state[p] = PAGED; give_up(p)
    :: BUG == 2 && state[p] == PRIVATE -> give_up(p)
    :: else
    fi
}

active proctype pager() {
    mtype what; byte which, f, g, p = NOTHING, i, n;
    {
end:    do
        :: atomic {
               !locked && p == NOTHING &&
               ((to_worker.used > 0) || request_open || can_flush) ->
               locked = true
           };
           if
           :: to_worker.used > 0 ->
               copy_slot(to_worker, what, which);
               atomic {
                   free_slot(to_worker);
                   if
                   :: what == GRANT ->
                       in_use(which, n);
                       assert(n == 0);
                       pool[which] = true
                   :: what == PAGE_OUT ->
                       assert(!request_open && !answer_pending);
                       request_open = true
                   :: else -> assert(false)
                   fi;
                   what = 0; which = 0; n = 0; i = 0
               }
           :: atomic { to_worker.used == 0 && request_open ->
                  /* Any private page, or none: then the answer is "impossible". */
                  if
                  :: state[0] == PRIVATE -> p = 0; state[0] = PAGING_OUT
                  :: state[1] == PRIVATE -> p = 1; state[1] = PAGING_OUT
                  :: state[0] != PRIVATE && state[1] != PRIVATE ->
                      request_open = false; answer_pending = true
                  fi
              }
           :: else
           fi;
           flush();
           locked = false

        /* The write itself needs no lock; it has ended. */
        :: atomic {
               !locked && p != NOTHING ->
               settle(p);
               p = NOTHING; request_open = false; answer_pending = true
           }
        od
    } unless { gone };
    running--
}

/* Each step under the lock, in one: the supervisor sees of it only what goes through the rings. */
active proctype guest() {
    byte p, f;
    bool waits;
    {
        do
        :: atomic { !locked ->
            if
            :: p = 0
            :: p = 1
            fi;
            if
            :: state[p] == PRIVATE -> /* stores to it */
                assert(frame_of[p] != NOTHING);
                assert(owner[frame_of[p]] == OURS)
            :: state[p] == PAGING_OUT -> state[p] = PRIVATE /* cancelled */
            :: (state[p] == ABSENT || state[p] == BALLOONED) && !pool_empty -> take_frame(p, PRIVATE)
            :: state[p] == PAGED && !pool_empty -> take_frame(p, PAGING_IN)
            :: state[p] != PRIVATE && state[p] != PAGING_OUT && pool_empty ->
                want_pending = (BUG != 6); waits = true
            fi
        };
        if
        :: state[p] == PAGING_IN -> atomic { !locked -> state[p] = PRIVATE } /* has been read in */
        :: waits -> atomic { !pool_empty -> waits = false } /* without the lock */
        :: else
        fi
        :: atomic { !locked && state[0] == PRIVATE -> state[0] = BALLOONED; give_up(0) }
        :: atomic { !locked && state[0] == PAGED -> state[0] = BALLOONED }
        :: atomic { !locked && state[0] == BALLOONED -> state[0] = ABSENT }
        od
    } unless { gone };
    running--
}

active proctype killer() {
    if
    :: killed = true; gone = true
    :: true
    fi
}
