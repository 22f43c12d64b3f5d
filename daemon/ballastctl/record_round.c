#include "daemon/ballastctl/record_round.h"

#include "daemon/policy/round_fields.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Beyond this a policy's arithmetic would leave the whole numbers; no page count comes near. */
#define REAL_MOST 9e15

/* One member into object. bits: where validity bits go, or NULL. */
static int read_field(const struct round_field *field, const json_t *member, void *object,
                      uint32_t *bits)
{
    void *at = (char *)object + field->offset;
    json_int_t count = json_integer_value(member);
    double real = json_number_value(member);
    bool is_count = json_is_integer(member) && count >= 0;
    switch (field->kind) {
    case ROUND_COUNT:
    case ROUND_LIMIT:
        *(uint64_t *)at = (uint64_t)count;
        break;
    case ROUND_COUNT32:
        *(uint32_t *)at = (uint32_t)count;
        is_count = is_count && count <= UINT32_MAX;
        break;
    case ROUND_BYTE:
        *(uint8_t *)at = (uint8_t)count;
        is_count = is_count && count <= UINT8_MAX;
        break;
    case ROUND_REAL:
        *(double *)at = real;
        is_count = json_is_number(member) && fabs(real) <= REAL_MOST;
        break;
    case ROUND_FLAG:
        *(bool *)at = json_is_true(member);
        is_count = json_is_boolean(member);
        break;
    case ROUND_BIT:
        *(uint32_t *)at |= json_is_true(member) ? field->bit : 0;
        is_count = json_is_boolean(member);
        break;
    }
    if (bits && field->kind != ROUND_BIT)
        *bits |= field->bit;
    return is_count ? 0 : -1;
}

/* All members of one object. what: for messages. all: each must be there, if it is not optional. */
static int read_fields(const struct round_field *fields, const json_t *from, void *object,
                       uint32_t *bits, const char *what, bool all, struct err *err)
{
    if (!json_is_object(from))
        return err_set(err, 0, "a round without %s", what);
    for (const struct round_field *field = fields; field->name; field++) {
        const json_t *member = json_object_get(from, field->name);
        bool optional = !all || (field->bit && field->kind != ROUND_BIT);
        if (!member && field->kind == ROUND_LIMIT)
            *(uint64_t *)(void *)((char *)object + field->offset) = UINT64_MAX;
        else if (!member && !optional)
            return err_set(err, 0, "a round without %s of %s", field->name, what);
        else if (member && read_field(field, member, object, bits) < 0)
            return err_set(err, 0, "a round in which %s of %s is not what it should be",
                           field->name, what);
    }
    return 0;
}

static int read_state(const json_t *value, const char *member, enum host_state *state,
                      struct err *err)
{
    const char *name = json_string_value(json_object_get(value, member));
    for (*state = HOST_HIGH; *state < HOST_STATES; (*state)++)
        if (name && strcmp(name, host_state_name(*state)) == 0)
            return 0;
    return err_set(err, 0, "a round whose %s is no state of the host", member);
}

static int read_settings(const json_t *from, struct policy_settings *settings, struct err *err)
{
    if (read_fields(round_thresholds_fields, json_object_get(from, "thresholds"),
                    &settings->thresholds, NULL, "the thresholds", false, err) < 0)
        return -1;
    for (size_t i = 0; policy_setting_at(i); i++) {
        const struct policy_setting *setting = policy_setting_at(i);
        const json_t *member = json_object_get(from, setting->name);
        if (member && !json_is_number(member))
            return err_set(err, 0, "a round in which setting %s is no number", setting->name);
        if (member && policy_setting_put(settings, setting, json_number_value(member), err) < 0)
            return err_prefix(err, "a round in which setting %s", setting->name);
    }
    return 0;
}

static int allocate(struct recorded_round *round, struct err *err)
{
    size_t slots = round->count ? round->count : 1;
    round->names = calloc(slots, sizeof *round->names);
    round->vms = calloc(slots, sizeof *round->vms);
    round->targets = calloc(slots, sizeof *round->targets);
    round->previous = policy_state_new();
    if (round->previous)
        round->previous->vms = calloc(slots, sizeof *round->previous->vms);
    if (round->names && round->vms && round->targets && round->previous && round->previous->vms)
        return 0;
    return err_set(err, ENOMEM, "a round of %zu VMs", round->count);
}

static int by_id(const void *a, const void *b)
{
    uint32_t left = ((const struct policy_memory *)a)->id;
    uint32_t right = ((const struct policy_memory *)b)->id;
    return (left > right) - (left < right);
}

static int read_vm(const json_t *row, struct recorded_round *round, size_t i, struct err *err)
{
    struct policy_vm *vm = &round->vms[i];
    const json_t *memory = json_object_get(row, "memory");
    struct policy_memory *kept = &round->previous->vms[round->previous->count];
    round->names[i] = json_string_value(json_object_get(row, "name"));
    if (!round->names[i])
        return err_set(err, 0, "a round with a VM without a name");
    if (read_fields(round_vm_fields, row, vm, &vm->valid, "a VM", true, err) < 0 ||
        read_fields(round_target_fields, json_object_get(row, "answer"), &round->targets[i], NULL,
                    "an answer", true, err) < 0)
        return -1;
    round->targets[i].id = vm->id;
    if (!memory)
        return 0;
    kept->id = vm->id;
    round->previous->count++;
    return read_fields(round_memory_fields, memory, kept, NULL, "a VM's memory", true, err);
}

static int read_vms(const json_t *rows, struct recorded_round *round, struct err *err)
{
    struct policy_state *previous = round->previous;
    for (size_t i = 0; i < round->count; i++)
        if (read_vm(json_array_get(rows, i), round, i, err) < 0)
            return -1;
    qsort(previous->vms, previous->count, sizeof *previous->vms, by_id);
    for (uint32_t i = 1; i < previous->count; i++)
        if (previous->vms[i - 1].id == previous->vms[i].id)
            return err_set(err, 0, "a round with two VMs of id %u", previous->vms[i].id);
    return 0;
}

int recorded_round_read(const json_t *value, struct recorded_round *round, struct err *err)
{
    const json_t *rows = json_object_get(value, "vms");
    const json_t *time = json_object_get(value, "time_ns");
    *round = (struct recorded_round){
        .time_ns = (uint64_t)json_integer_value(time),
        .policy = json_string_value(json_object_get(value, "policy")),
        .count = json_array_size(rows),
    };
    policy_settings_default(&round->settings);
    if (!json_is_array(rows) || !round->policy || !json_is_integer(time))
        return err_set(err, 0, "a round without time_ns, policy or vms");
    if (read_state(value, "state_before", &round->state_before, err) < 0 ||
        read_state(value, "state", &round->state, err) < 0 || allocate(round, err) < 0 ||
        read_fields(round_host_fields, json_object_get(value, "host"), &round->host, NULL,
                    "the host", true, err) < 0 ||
        read_settings(json_object_get(value, "settings"), &round->settings, err) < 0 ||
        read_vms(rows, round, err) < 0) {
        recorded_round_free(round);
        return -1;
    }
    round->previous->host = round->state_before;
    return 0;
}

void recorded_round_free(struct recorded_round *round)
{
    free(round->names);
    free(round->vms);
    free(round->targets);
    policy_state_free(round->previous);
    *round = (struct recorded_round){0};
}
