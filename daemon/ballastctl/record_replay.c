/*
 * ballastctl record replay: recorded rounds decided again. Policies are pure
 * functions, so the recorded policy must give the recorded answers, to the page;
 * another one, or another tax, gives what it would have answered to the same rows.
 *
 * A policy's memory is carried from round to round as in the daemon. It is taken
 * from the record where there is nothing to carry: in the first round, behind
 * rounds that were lost or of a policy that this program has not, and when the
 * policy changed. The answers of an external policy are in the rows: replayed as
 * recorded, such a round shows what the daemon made of them. A policy's own numbers mean nothing to
 * another one, which therefore begins without them.
 */
#include "daemon/ballastctl/options.h"
#include "daemon/ballastctl/record.h"
#include "daemon/ballastctl/record_round.h"
#include "daemon/ballastctl/table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MOST_VMS 1024 /* in the summary */

enum { OPT_POLICY = 1, OPT_TAX };
static const struct option options[] = {
    {"policy", required_argument, NULL, OPT_POLICY},
    {"idle-tax", required_argument, NULL, OPT_TAX},
    {"output", required_argument, NULL, 'o'},
    {0},
};

static const struct column columns[] = {
    {"NAME", "name", COLUMN_TEXT},
    {"ROUNDS", "rounds", COLUMN_COUNT},
    {"RECORDED", "recorded_pages", COLUMN_PAGES},
    {"REPLAYED", "replayed_pages", COLUMN_PAGES},
    {"DIFFER", "differ", COLUMN_COUNT},
};

/* Of one VM, over all rounds. */
struct tally {
    char name[64];
    uint64_t rounds, differ;
    double recorded_pages, replayed_pages; /* sums of targets */
};

struct replay {
    const struct policy *policy; /* NULL: as recorded */
    uint64_t idle_tax;           /* percent; UINT64_MAX: as recorded */
    FILE *output;                /* CSV; NULL: none */
    struct policy_state *state, *next;
    struct policy_target *targets; /* room for capacity */
    size_t capacity;
    char recorded_policy[64]; /* of the round before; "": its state cannot be carried on */
    uint64_t rounds, skipped, targets_decided, differ;
    struct tally *tallies;
    size_t vms;
};

/* ---- what came out ---- */

static struct tally *find_tally(struct replay *replay, const char *name, size_t place)
{
    for (size_t i = 0; i < replay->vms; i++) {
        struct tally *tally = &replay->tallies[(place + i) % replay->vms];
        if (strncmp(tally->name, name, sizeof tally->name - 1) == 0)
            return tally;
    }
    if (replay->vms == MOST_VMS)
        return NULL;
    struct tally *tally = &replay->tallies[replay->vms++];
    snprintf(tally->name, sizeof tally->name, "%s", name);
    return tally;
}

static bool is_equal(const struct policy_target *a, const struct policy_target *b)
{
    return a->target_pages == b->target_pages && a->balloon_pages == b->balloon_pages &&
           a->page_out_pages == b->page_out_pages && a->limit_pages == b->limit_pages &&
           a->blocked == b->blocked && a->balloon_stalled == b->balloon_stalled && a->why == b->why;
}

static void print_target(const struct replay *replay, const struct recorded_round *round, size_t i,
                         const char *policy, enum host_state state)
{
    const struct policy_target *then = &round->targets[i], *now = &replay->targets[i];
    fprintf(replay->output, "%" PRIu64 ",%.*s,%s,%s,%s", round->time_ns,
            (int)strcspn(round->names[i], ",\"\r\n"), round->names[i], policy,
            host_state_name(round->state), host_state_name(state));
    fprintf(replay->output,
            ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%d,%d\n",
            then->target_pages, now->target_pages, then->balloon_pages, now->balloon_pages,
            then->page_out_pages, now->page_out_pages, then->blocked, now->blocked);
}

static void take_answers(struct replay *replay, const struct recorded_round *round,
                         const char *policy, enum host_state state)
{
    for (size_t i = 0; i < round->count; i++) {
        bool equal = is_equal(&round->targets[i], &replay->targets[i]) && state == round->state;
        struct tally *tally = find_tally(replay, round->names[i], i);
        replay->targets_decided++;
        replay->differ += !equal;
        if (tally) {
            tally->rounds++;
            tally->differ += !equal;
            tally->recorded_pages += (double)round->targets[i].target_pages;
            tally->replayed_pages += (double)replay->targets[i].target_pages;
        }
        if (replay->output)
            print_target(replay, round, i, policy, state);
    }
}

/* ---- deciding again ---- */

/* The memory to begin with is the record's, except for numbers of another policy. */
static void begin_anew(struct replay *replay, struct recorded_round *round, bool same_policy)
{
    struct policy_state *used = replay->state;
    replay->state = round->previous;
    round->previous = used;
    for (uint32_t i = 0; !same_policy && i < replay->state->count; i++)
        memset(replay->state->vms[i].own, 0, sizeof replay->state->vms[i].own);
}

static int make_room(struct replay *replay, size_t count, struct err *err)
{
    if (count <= replay->capacity)
        return 0;
    struct policy_target *targets = realloc(replay->targets, count * sizeof *targets);
    if (!targets)
        return err_set(err, ENOMEM, "a round of %zu VMs", count);
    replay->targets = targets;
    replay->capacity = count;
    return 0;
}

/* Who decided then. An external policy's answers are in the rows: what it does with them is ours.
 */
static const struct policy *find_recorded(const char *name)
{
    return strncmp(name, "external:", 9) == 0 ? &policy_external : policy_find(name);
}

static int decide(struct replay *replay, struct recorded_round *round, bool gap, struct err *err)
{
    const struct policy *recorded = find_recorded(round->policy);
    const struct policy *policy = replay->policy ? replay->policy : recorded;
    struct policy_outcome outcome;
    if (!policy) {
        replay->skipped++;
        replay->recorded_policy[0] = 0;
        return 0;
    }
    if (gap || !replay->recorded_policy[0] ||
        (!replay->policy && strcmp(replay->recorded_policy, round->policy) != 0))
        begin_anew(replay, round, policy == recorded);
    snprintf(replay->recorded_policy, sizeof replay->recorded_policy, "%s", round->policy);
    if (replay->idle_tax != UINT64_MAX)
        round->settings.idle_tax_percent = (uint32_t)replay->idle_tax;
    if (make_room(replay, round->count, err) < 0 ||
        policy_decide(policy, &round->settings, replay->state, &round->host, round->vms,
                      round->count, replay->next, replay->targets, &outcome, err) < 0)
        return -1;
    struct policy_state *used = replay->state;
    replay->state = replay->next;
    replay->next = used;
    replay->rounds++;
    take_answers(replay, round, policy_name(policy), outcome.host);
    return 0;
}

static int replay_file(struct replay *replay, struct record_reader *reader, struct err *err)
{
    struct recorded_round round;
    const char *kind;
    json_t *value;
    int result;
    while ((result = record_next(reader, &kind, &value, err)) > 0) {
        if (strcmp(kind, "round") == 0) {
            bool gap = json_object_get(value, "lost") != NULL;
            result = recorded_round_read(value, &round, err);
            if (result == 0) {
                result = decide(replay, &round, gap, err);
                recorded_round_free(&round);
            }
        }
        json_decref(value);
        if (result < 0)
            return -1;
    }
    return result;
}

/* ---- the command ---- */

static json_t *describe(const struct replay *replay)
{
    json_t *vms = json_array();
    for (size_t i = 0; i < replay->vms; i++) {
        const struct tally *tally = &replay->tallies[i];
        double rounds = (double)tally->rounds;
        json_array_append_new(vms, json_pack("{s:s, s:I, s:I, s:I, s:I}", "name", tally->name,
                                             "rounds", (json_int_t)tally->rounds, "recorded_pages",
                                             (json_int_t)(tally->recorded_pages / rounds),
                                             "replayed_pages",
                                             (json_int_t)(tally->replayed_pages / rounds), "differ",
                                             (json_int_t)tally->differ));
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:o}", "rounds", (json_int_t)replay->rounds, "skipped",
                     (json_int_t)replay->skipped, "targets", (json_int_t)replay->targets_decided,
                     "differ", (json_int_t)replay->differ, "vms", vms);
}

static void print_summary(const struct ctl *ctl, const struct replay *replay)
{
    json_t *description = describe(replay);
    if (ctl->json) {
        ctl_print_json(description, false);
    } else {
        printf("%" PRIu64 " rounds, %" PRIu64 " answers, %" PRIu64 " differ from those recorded",
               replay->rounds, replay->targets_decided, replay->differ);
        if (replay->skipped)
            printf("; %" PRIu64 " rounds of policies that are not built in left out",
                   replay->skipped);
        printf("\nmean targets:\n");
        table_print(columns, sizeof columns / sizeof columns[0],
                    json_object_get(description, "vms"));
    }
    json_decref(description);
}

static int run_replay(const struct ctl *ctl, struct replay *replay, const char *path,
                      const char *output)
{
    struct err err;
    struct record_reader *reader = record_open_reported(path);
    if (!reader)
        return CTL_REFUSED;
    replay->state = policy_state_new();
    replay->next = policy_state_new();
    replay->tallies = calloc(MOST_VMS, sizeof *replay->tallies);
    int status = CTL_REFUSED;
    if (!replay->state || !replay->next || !replay->tallies) {
        ctl_fail(CTL_REFUSED, "%s: out of memory", path);
    } else if (!output || (replay->output = record_open_output(output))) {
        if (replay->output)
            fputs("time_ns,vm,policy,recorded_state,state,recorded_target_pages,target_pages,"
                  "recorded_balloon_pages,balloon_pages,recorded_page_out_pages,page_out_pages,"
                  "recorded_blocked,blocked\n",
                  replay->output);
        int result = replay_file(replay, reader, &err);
        print_summary(ctl, replay);
        fflush(stdout); /* before what may have been wrong with the file */
        status = record_finish(reader, path, result, &err);
        int closed = replay->output ? record_close_output(replay->output, output) : CTL_OK;
        status = status == CTL_OK ? closed : status;
    }
    record_reader_free(reader);
    policy_state_free(replay->state);
    policy_state_free(replay->next);
    free(replay->tallies);
    free(replay->targets);
    return status;
}

int record_run_replay(struct ctl *ctl, int argc, char **argv)
{
    struct replay replay = {.idle_tax = UINT64_MAX};
    const char *output = NULL;
    int option, status = CTL_OK;
    while (status == CTL_OK && (option = options_next(argc, argv, options, NULL)) > 0) {
        if (option == 'o') {
            output = optarg;
        } else if (option == OPT_TAX) {
            status = ctl_parse_count("record", "--idle-tax", optarg, 0, 99, &replay.idle_tax);
        } else if (!(replay.policy = policy_find(optarg))) {
            status = ctl_usage("record", "--policy: no policy '%.40s' is built in", optarg);
        }
    }
    if (status != CTL_OK || option == 0)
        return CTL_USAGE;
    if ((status = options_end(argc, argv, 1, 1)) != CTL_OK)
        return status;
    return run_replay(ctl, &replay, argv[optind], output);
}
