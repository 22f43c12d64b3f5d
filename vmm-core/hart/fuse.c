/*
 * Fusion: of the ops of a block just built, some get a handler that does the
 * following ones as well (op_sequences.h, and runs of loads and stores from one
 * base). Only handlers are replaced, never operands: a fused op can always fall
 * back to the plain ops, which are still there.
 *
 * Greedy from the front, the longest sequence first.
 */
#include "vmm-core/hart/core.h"

/* For each first kind, the sequences that begin with it are chained, longest first. */
struct sequence_index {
    uint8_t first[OP_KINDS]; /* index + 1; 0: none */
    uint8_t next[UINT8_MAX];
};

static struct sequence_index sequence_index;

/* Before main, so that harts of any thread find it made. */
__attribute__((constructor)) static void index_sequences(void)
{
    assert(op_sequence_count < UINT8_MAX);
    for (unsigned length = 2; length <= SEQUENCE_MAX; length++) { /* later ones go in front */
        for (unsigned i = 0; i < op_sequence_count; i++) {
            if (op_sequences[i].length != length)
                continue;
            uint8_t *first = &sequence_index.first[op_sequences[i].kinds[0]];
            sequence_index.next[i] = *first;
            *first = (uint8_t)(i + 1);
        }
    }
}

static bool matches(const struct op_sequence *sequence, const struct op_places *places, unsigned at)
{
    if (at + sequence->length > places->count)
        return false;
    for (unsigned i = 1; i < sequence->length; i++)
        if (places->kinds[at + i] != sequence->kinds[i])
            return false;
    return true;
}

static const struct op_sequence *longest_sequence(const struct op_places *places, unsigned at)
{
    unsigned index = sequence_index.first[places->kinds[at]];
    for (; index; index = sequence_index.next[index - 1])
        if (matches(&op_sequences[index - 1], places, at))
            return &op_sequences[index - 1];
    return NULL;
}

/*
 * Length of the run of ld (or sd) at `at`, at most 4; 1 if it is none. Offsets
 * must rise or fall all along, so that first and last bound the rest, and keep
 * the first one's alignment.
 */
static unsigned run_length(const struct op *ops, const struct op_places *places, unsigned at)
{
    const struct op *first = &ops[places->at[at]];
    unsigned kind = places->kinds[at], length = 1;
    int direction = 0;
    while (length < 4 && at + length < places->count && places->kinds[at + length] == kind) {
        const struct op *before = &ops[places->at[at + length - 1]], *op = before + 1;
        int step = op->imm > before->imm ? 1 : op->imm < before->imm ? -1 : 0;
        if (op->rs1 != first->rs1 || (op->imm - first->imm) % 8 || !step ||
            (direction && step != direction) || (kind == OP_ld && before->rd == first->rs1))
            break;
        direction = step;
        length++;
    }
    return length;
}

static unsigned fuse_run(struct op *ops, const struct op_places *places, unsigned at)
{
    unsigned kind = places->kinds[at];
    if (kind != OP_ld && kind != OP_sd)
        return 1;
    unsigned length = run_length(ops, places, at);
    if (length > 1)
        ops[places->at[at]].run = op_handlers[(kind == OP_ld ? OP_ld_2 : OP_sd_2) + length - 2];
    return length;
}

void fuse_ops(struct op *ops, const struct op_places *places)
{
    for (unsigned at = 0; at < places->count;) {
        unsigned length = fuse_run(ops, places, at);
        if (length == 1) {
            const struct op_sequence *sequence = longest_sequence(places, at);
            if (sequence) {
                ops[places->at[at]].run = sequence->run;
                length = sequence->length;
            }
        }
        at += length;
    }
}
