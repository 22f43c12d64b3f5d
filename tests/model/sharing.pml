/*
 * Content-based sharing: PROTECT, SHARE, UNSHARE and copy-on-write breaks
 * between the supervisor and two workers, as a model for spin. Small numbers,
 * every interleaving.
 *
 * Each worker has one page, a pager that serves requests, and a guest thread
 * that reads and stores at any moment. An
 * access is two steps, look-up and the access itself: only a stop waits for the
 * second one. Messages to the supervisor arrive in order and late, so that a
 * RELEASED may come before or after the DONE of the request that it crosses.
 * A worker may die between any two steps.
 *
 * Hashes are not modelled: the supervisor may take any two pages to be equal,
 * or not (collisions, stale hints, stores since hashing), and the compare in
 * the worker has to decide. Grants and ring slots are those of ring.pml and
 * happen at once here. A frame set free is scribbled over at once, as its next
 * owner would.
 *
 * Checked: what a page reads is what was last stored to it; no store reaches a
 * frame that is shared or another's; a RELEASED names a frame that the VM has
 * (no double ownership); a frame becomes free only when nobody maps it and no
 * outstanding request names it; whenever no message is under way, references
 * equal mappings and every frame is accounted for; no request stays without an
 * answer (spin's invalid end states); a death leaves nothing behind.
 *
 * The two play both roles of a match. Only VM 0 gives its page away and may
 * die: what it does to VM 1 in either role, VM 1 would do to it.
 *
 * -DBUG=n seeds a mistake that the search must find:
 *    1  the pages are compared before the stop
 *    2  a page is write-protected without waiting for a store under way
 *    3  a reference is counted when the answer comes, not before the request is sent
 *    4  a frame given up is reused before the request that names it is answered
 *    5  a page made private in place is the VM's own even if it was given up before the answer
 *    6  a copy leaves the mapping of the old frame
 *    7  requests to a dead worker stay open
 *    8  an answer overtakes the release that it stands for
 *    9  a death frees frames that others share
 *   10  a page that several share is made private in place
 *   11  the page's frame is not compared with the request's
 */
#ifndef BUG
#define BUG 0
#endif

#define VMS 2
#define FRAMES 3
#define NOTHING 7
#define SCRIBBLED 2

mtype = { PROTECT, SHARE, IN_PLACE, COPY, RELEASED, DONE };
mtype = { ABSENT, PRIVATE, SHARED };
mtype = { OK, NOT_OK };

chan to_worker[VMS] = [1] of { mtype, byte, byte };  /* request, frame, target */
chan to_supervisor[VMS] = [2] of { mtype, byte };    /* RELEASED frame, DONE result */

byte content[FRAMES] = SCRIBBLED;

/* The supervisor's records. */
#define FREE 5
#define REFERRED 6 /* nobody's own: kept by references or by an open request */
byte owner[FRAMES] = FREE;     /* a VM, FREE or REFERRED */
byte reference[VMS] = NOTHING; /* the shared frame that the VM's page refers to */
bool buried[VMS];

/* The request outstanding, if any: a match of candidate and holder of a hint or shared frame. */
mtype asked;
byte asked_vm = NOTHING, candidate, candidate_frame = NOTHING, target = NOTHING;

/* The workers. */
mtype state[VMS] = ABSENT;
byte frame[VMS] = NOTHING, pool[VMS] = NOTHING;
byte mapped[VMS] = NOTHING; /* the shadow entry */
bool writable[VMS];
byte in_use[VMS] = NOTHING; /* an access under way to this frame */
bool locked[VMS], stop[VMS];
byte last_stored[VMS];
bool gone[VMS];
byte running[VMS] = 2;

#define others(vm) (1 - (vm))
#define referred(f) (reference[0] == f || reference[1] == f)
#define named(f) (asked != 0 && (candidate_frame == f || target == f))
#define touched_by(vm, f) \
    (running[vm] > 0 && (frame[vm] == f || pool[vm] == f || mapped[vm] == f || in_use[vm] == f))

/* Free a frame that nobody has any more. */
inline settle(f) {
    if
    :: f != NOTHING && owner[f] == REFERRED && !referred(f) && (!named(f) || BUG == 4) ->
        assert(!touched_by(0, f) && !touched_by(1, f));
        owner[f] = FREE;
        content[f] = SCRIBBLED
    :: else
    fi
}

#define quiet(vm) (buried[vm] || (!gone[vm] && !locked[vm] && len(to_supervisor[vm]) == 0))

#define accounted(vm, f) \
    (buried[vm] || \
     ((owner[f] == vm) == ((state[vm] == PRIVATE && frame[vm] == f) || pool[vm] == f) && \
      (reference[vm] == f) == (state[vm] == SHARED && frame[vm] == f)))

#define lost(f) (owner[f] == REFERRED && !referred(f))

inline check() {
    if
    :: asked == 0 && quiet(0) && quiet(1) ->
        assert(accounted(0, 0) && accounted(0, 1) && accounted(0, 2));
        assert(accounted(1, 0) && accounted(1, 1) && accounted(1, 2));
        assert(!lost(0) && !lost(1) && !lost(2))
    :: else
    fi
}

/* The request is answered; what it alone kept becomes free. */
inline end_match() {
    asked = 0; asked_vm = NOTHING;
    settle(candidate_frame);
    settle(target);
    candidate_frame = NOTHING; target = NOTHING; candidate = 0
}

inline ask(vm, what) {
    asked = what; asked_vm = vm
}

/* A reference of vm to the target is counted before the worker hears of it. */
inline ask_share() {
    ask(candidate, SHARE);
    if
    :: BUG != 3 -> assert(reference[candidate] == NOTHING); reference[candidate] = target
    :: else
    fi;
    to_worker[candidate]!SHARE(candidate_frame, target)
}

inline released(vm, f) {
    if
    :: reference[vm] == f ->
        reference[vm] = NOTHING;
        owner[f] = (owner[f] == vm -> REFERRED : owner[f])
    :: else ->
        assert(owner[f] == vm);
        owner[f] = REFERRED
    fi;
    settle(f)
}

inline answered(result) {
    if
    :: asked == PROTECT && result == OK && (reference[asked_vm] == target || BUG == 3) ->
        if
        :: BUG == 3 -> reference[asked_vm] = target
        :: else
        fi;
        owner[target] = REFERRED;
        if /* hashed again: the same, perhaps; or not */
        :: !gone[candidate] -> ask_share()
        :: !gone[asked_vm] -> ask(asked_vm, IN_PLACE); to_worker[asked_vm]!IN_PLACE(target, 0)
        :: gone[asked_vm] -> end_match()
        fi
    :: asked == PROTECT && result == OK && reference[asked_vm] != target && BUG != 3 ->
        end_match() /* broken meanwhile */
    :: asked == SHARE && result == OK ->
        assert(owner[candidate_frame] != candidate); /* its release came first */
        if
        :: BUG == 3 -> reference[asked_vm] = target
        :: else
        fi;
        end_match()
    :: (asked == SHARE || asked == PROTECT) && result != OK ->
        /* Taken back. */
        reference[asked_vm] = (reference[asked_vm] == target -> NOTHING : reference[asked_vm]);
        end_match()
    :: asked == IN_PLACE && result == OK ->
        if
        :: reference[asked_vm] == target || BUG == 5 ->
            reference[asked_vm] = NOTHING;
            owner[target] = asked_vm
        :: else
        fi;
        end_match()
    :: asked == COPY || (asked == IN_PLACE && result != OK) -> end_match()
    fi
}

/* After its last message has been read. */
inline bury(vm) {
    if
    :: asked_vm == vm && BUG != 7 -> answered(NOT_OK)
    :: else
    fi;
    buried[vm] = true;
    f = 0;
    do
    :: f < FRAMES ->
        if
        :: BUG == 9 && reference[vm] == f -> owner[f] = FREE; content[f] = SCRIBBLED
        :: else
        fi;
        owner[f] = (owner[f] == vm -> REFERRED : owner[f]);
        reference[vm] = (reference[vm] == f -> NOTHING : reference[vm]);
        settle(f);
        f++
    :: else -> break
    od;
    f = 0;
    /* Nothing reads these any more. */
    state[vm] = ABSENT; frame[vm] = NOTHING; pool[vm] = NOTHING; mapped[vm] = NOTHING;
    writable[vm] = false; in_use[vm] = NOTHING; locked[vm] = false; stop[vm] = false;
    last_stored[vm] = 0
}

inline take_message(vm) {
    to_supervisor[vm]?what(f);
    if
    :: what == RELEASED -> released(vm, f)
    :: what == DONE -> assert(asked != 0 && asked_vm == vm); answered(f)
    fi;
    what = 0; f = 0;
    check()
}

#define own_page(vm) \
    (!gone[vm] && state[vm] == PRIVATE && owner[frame[vm]] == vm && reference[vm] == NOTHING)

inline match(vm) {
    candidate = vm; candidate_frame = frame[vm];
    if
    :: reference[others(vm)] != NOTHING ->
        target = reference[others(vm)];
        ask_share()
    :: reference[others(vm)] == NOTHING ->
        target = frame[others(vm)];
        ask(others(vm), PROTECT);
        if
        :: BUG != 3 -> reference[others(vm)] = target
        :: else
        fi;
        to_worker[others(vm)]!PROTECT(target, 0)
    fi
}

inline grant(f, vm) {
    owner[f] = vm; pool[vm] = f
}

#define free_frame (owner[0] == FREE -> 0 : (owner[1] == FREE -> 1 : (owner[2] == FREE -> 2 : NOTHING)))
#define to_grant(vm) (!gone[vm] && pool[vm] == NOTHING && !locked[vm] && free_frame != NOTHING)

#define shared_with(vm) \
    (reference[vm] != NOTHING && !gone[vm] && reference[others(vm)] == reference[vm])
#define last_reference(vm) \
    (reference[vm] != NOTHING && !gone[vm] && \
     (reference[others(vm)] != reference[vm] || BUG == 10))

/* An open request must be answered: only without one may everything come to rest. */
#define go_on if :: asked == 0 -> goto end_idle :: else -> goto waiting fi

#define at_any_time \
    :: atomic { nempty(to_supervisor[0]) -> take_message(0); go_on } \
    :: atomic { nempty(to_supervisor[1]) -> take_message(1); go_on } \
    :: atomic { to_grant(0) -> f = free_frame; grant(f, 0); f = 0; go_on } \
    :: atomic { to_grant(1) -> f = free_frame; grant(f, 1); f = 0; go_on } \
    :: atomic { gone[0] && running[0] == 0 && empty(to_supervisor[0]) && !buried[0] -> \
           bury(0); check(); go_on }

#define unshare(vm, how) target = reference[vm]; ask(vm, how); to_worker[vm]!how(target, 0); goto waiting

active proctype supervisor() {
    mtype what; byte f;
end_idle:
    if
    at_any_time
    :: atomic { own_page(0) && (reference[1] != NOTHING || own_page(1)) -> match(0); goto waiting }
    :: atomic { own_page(1) && (reference[0] != NOTHING || own_page(0)) -> match(1); goto waiting }
    /* The last reference: as it is. Whoever may no longer share: by copy. */
    :: atomic { last_reference(0) -> unshare(0, IN_PLACE) }
    :: atomic { last_reference(1) -> unshare(1, IN_PLACE) }
    :: atomic { shared_with(0) -> unshare(0, COPY) }
    :: atomic { shared_with(1) -> unshare(1, COPY) }
    fi;
waiting:
    if
    at_any_time
    fi
}

/* Whether the page is the VM's own, in the frame that the request names. */
#define is_private(vm, f) (state[vm] == PRIVATE && (frame[vm] == f || BUG == 11))
#define is_shared(vm, f) (state[vm] == SHARED && frame[vm] == f)

#define unmap(vm) mapped[vm] = NOTHING; writable[vm] = false

inline answer(vm, result) {
    locked[vm] = false; stop[vm] = false;
    what = 0; f = 0; t = 0; equal = false;
    to_supervisor[vm]!DONE(result)
}

proctype pager(byte vm) {
    mtype what; byte f, t; bool equal;
    {
end:    do
        :: atomic { !locked[vm] && nempty(to_worker[vm]) ->
               to_worker[vm]?what(f, t);
               locked[vm] = true;
               if
               :: BUG == 1 && what == SHARE && is_private(vm, f) ->
                   equal = (content[frame[vm]] == content[t])
               :: else
               fi;
               stop[vm] = (BUG != 2)
           };
           if
           :: atomic { what == PROTECT && is_private(vm, f) && (in_use[vm] == NOTHING || BUG == 2) ->
                  state[vm] = SHARED; writable[vm] = false
              };
              atomic { answer(vm, OK) }
           :: atomic { what == SHARE && is_private(vm, f) && in_use[vm] == NOTHING ->
                  equal = (BUG == 1 -> equal : content[frame[vm]] == content[t])
              };
              if
              :: atomic { equal ->
                     f = frame[vm];
                     unmap(vm); state[vm] = SHARED; frame[vm] = t;
                     if
                     :: BUG != 8 -> to_supervisor[vm]!RELEASED(f)
                     :: else -> to_supervisor[vm]!DONE(OK)
                     fi;
                     locked[vm] = false; stop[vm] = false
                 };
                 /* The guest goes on, and may break the page again before the answer leaves. */
                 if
                 :: BUG != 8 -> atomic { !locked[vm] -> answer(vm, OK) }
                 :: else -> atomic { to_supervisor[vm]!RELEASED(f); what = 0; f = 0; t = 0; equal = false }
                 fi
              :: atomic { !equal -> answer(vm, NOT_OK) }
              fi
           :: atomic { what == IN_PLACE && is_shared(vm, f) -> state[vm] = PRIVATE;
                  locked[vm] = false; stop[vm] = false };
              atomic { !locked[vm] -> answer(vm, OK) }
           :: atomic { what == COPY && is_shared(vm, f) && pool[vm] != NOTHING && in_use[vm] == NOTHING ->
                  if
                  :: BUG != 6 -> unmap(vm)
                  :: else
                  fi;
                  state[vm] = PRIVATE; frame[vm] = pool[vm]; pool[vm] = NOTHING;
                  content[frame[vm]] = content[f];
                  to_supervisor[vm]!RELEASED(f);
                  locked[vm] = false; stop[vm] = false
              };
              atomic { !locked[vm] -> answer(vm, OK) }
           :: atomic { ((what == PROTECT || what == SHARE) && !is_private(vm, f)) ||
                  ((what == IN_PLACE || what == COPY) && !is_shared(vm, f)) ||
                  (what == COPY && pool[vm] == NOTHING) -> answer(vm, NOT_OK) }
           fi
        od
    } unless { gone[vm] };
    running[vm]--
}

/* What a fault does under the lock is one step here: others see of it only messages. */
proctype guest(byte vm) {
    byte old;
    {
end:    do
        :: atomic { !stop[vm] && mapped[vm] != NOTHING && !writable[vm] -> in_use[vm] = mapped[vm] };
           if
           :: atomic { content[in_use[vm]] == last_stored[vm] -> in_use[vm] = NOTHING }
           :: atomic { content[in_use[vm]] != last_stored[vm] -> assert(false) }
           fi
        :: atomic { !stop[vm] && writable[vm] -> in_use[vm] = mapped[vm] };
           atomic {
               assert(state[vm] == PRIVATE && frame[vm] == in_use[vm]);
               assert(frame[others(vm)] != in_use[vm] || gone[others(vm)]);
               last_stored[vm] = 1 - last_stored[vm];
               content[in_use[vm]] = last_stored[vm];
               in_use[vm] = NOTHING
           }
        :: atomic { !locked[vm] && mapped[vm] == NOTHING && state[vm] != ABSENT -> mapped[vm] = frame[vm] }
        :: atomic { !locked[vm] && !writable[vm] && state[vm] == PRIVATE ->
               mapped[vm] = frame[vm]; writable[vm] = true }
        :: atomic { !locked[vm] && state[vm] == ABSENT && pool[vm] != NOTHING ->
               state[vm] = PRIVATE; frame[vm] = pool[vm]; pool[vm] = NOTHING;
               content[frame[vm]] = 0; last_stored[vm] = 0;
               mapped[vm] = frame[vm]; writable[vm] = true }
        :: atomic { !locked[vm] && state[vm] == SHARED && pool[vm] != NOTHING && nfull(to_supervisor[vm]) ->
               old = frame[vm];
               state[vm] = PRIVATE; frame[vm] = pool[vm]; pool[vm] = NOTHING;
               content[frame[vm]] = content[old];
               mapped[vm] = frame[vm]; writable[vm] = true;
               to_supervisor[vm]!RELEASED(old);
               old = 0 }
        /* Given away, to the balloon or as free. */
        :: atomic { vm == 0 && !locked[vm] && state[vm] != ABSENT && nfull(to_supervisor[vm]) ->
               old = frame[vm];
               unmap(vm); state[vm] = ABSENT; frame[vm] = NOTHING; last_stored[vm] = 0;
               to_supervisor[vm]!RELEASED(old);
               old = 0 }
        /* Sleeps for good: no answer may depend on what a guest does. */
        :: break
        od;
end_asleep: false
    } unless { gone[vm] };
    running[vm]--
}

active proctype killer() {
    if
    :: gone[0] = true
    :: true
    fi
}

init {
    atomic { run pager(0); run guest(0); run pager(1); run guest(1) }
}
