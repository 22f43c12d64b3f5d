#include "daemon/rpc/rounds.h"

#include "daemon/policy/round_fields.h"

#include <string.h>

static void put(struct json_text *text, const char *plain)
{
    json_text_raw(text, plain, strlen(plain));
}

static void write_flag(struct json_text *text, bool flag)
{
    put(text, flag ? "true" : "false");
}

static void write_value(struct json_text *text, const struct round_field *field, const void *at)
{
    switch (field->kind) {
    case ROUND_COUNT:
    case ROUND_LIMIT:
        json_text_count(text, *(const uint64_t *)at);
        break;
    case ROUND_COUNT32:
        json_text_count(text, *(const uint32_t *)at);
        break;
    case ROUND_BYTE:
        json_text_count(text, *(const uint8_t *)at);
        break;
    case ROUND_REAL:
        json_text_real(text, *(const double *)at);
        break;
    case ROUND_FLAG:
        write_flag(text, *(const bool *)at);
        break;
    case ROUND_BIT:
        write_flag(text, *(const uint32_t *)at & field->bit);
        break;
    }
}

/* Members without the braces around them, each after a comma unless first. */
static void write_members(struct json_text *text, const struct round_field *fields,
                          const void *object, uint32_t valid, bool first)
{
    for (const struct round_field *field = fields; field->name; field++) {
        const void *at = (const char *)object + field->offset;
        if (field->kind != ROUND_BIT && (field->bit & valid) != field->bit)
            continue;
        if (field->kind == ROUND_LIMIT && *(const uint64_t *)at == UINT64_MAX)
            continue;
        put(text, first ? "\"" : ",\"");
        put(text, field->name);
        put(text, "\":");
        write_value(text, field, at);
        first = false;
    }
}

static void write_object(struct json_text *text, const char *name, const struct round_field *fields,
                         const void *object)
{
    put(text, ",\"");
    put(text, name);
    put(text, "\":{");
    write_members(text, fields, object, 0, true);
    put(text, "}");
}

static void write_settings(struct json_text *text, const struct policy_settings *settings)
{
    put(text, ",\"settings\":{\"thresholds\":{");
    write_members(text, round_thresholds_fields, &settings->thresholds, 0, true);
    put(text, "}");
    for (size_t i = 0; policy_setting_at(i); i++) {
        const struct policy_setting *setting = policy_setting_at(i);
        double value = policy_setting_get(settings, setting);
        put(text, ",\"");
        put(text, setting->name);
        put(text, "\":");
        if (setting->whole)
            json_text_count(text, (uint64_t)value);
        else
            json_text_real(text, value);
    }
    put(text, "}");
}

/* A row without its closing brace: what is told beside it differs. */
static void write_vm(struct json_text *text, const char *name, const struct policy_vm *vm,
                     bool first)
{
    put(text, first ? "{\"name\":" : ",{\"name\":");
    json_text_string(text, name);
    write_members(text, round_vm_fields, vm, vm->valid, false);
}

static void write_count(struct json_text *text, const char *name, uint64_t value)
{
    put(text, ",\"");
    put(text, name);
    put(text, "\":");
    json_text_count(text, value);
}

void question_write(struct json_text *text, const struct policy_question *question)
{
    put(text, "{\"round\":");
    json_text_count(text, question->round);
    write_count(text, "deadline_ms", question->deadline_ms);
    put(text, ",\"trigger\":");
    json_text_string(text, question->trigger);
    put(text, ",\"state\":");
    json_text_string(text, host_state_name(question->state));
    write_count(text, "available_pages", question->available_pages);
    write_object(text, "host", round_host_fields, question->host);
    write_settings(text, question->settings);
    put(text, ",\"vms\":[");
    for (size_t i = 0; i < question->count; i++) {
        const struct question_vm *vm = &question->vms[i];
        write_vm(text, vm->name, vm->row, i == 0);
        write_count(text, "target_pages", vm->target_pages);
        put(text, "}");
    }
    put(text, "]}");
}

/* What was remembered of a VM before the round; NULL: it is new. Rows of a state stand by id. */
static const struct policy_memory *find_memory(const struct policy_state *state, uint32_t id)
{
    uint32_t low = 0, high = state->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (state->vms[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < state->count && state->vms[low].id == id ? &state->vms[low] : NULL;
}

void round_write(struct json_text *text, const struct supervisor_round *round)
{
    put(text, "{\"time_ns\":");
    json_text_count(text, round->time_ns);
    put(text, ",\"policy\":");
    json_text_string(text, round->policy);
    put(text, ",\"trigger\":");
    json_text_string(text, round->trigger);
    put(text, ",\"state_before\":");
    json_text_string(text, host_state_name(round->previous->host));
    put(text, ",\"state\":");
    json_text_string(text, host_state_name(round->outcome->host));
    write_object(text, "host", round_host_fields, round->host);
    write_settings(text, round->settings);
    write_object(text, "outcome", round_outcome_fields, round->outcome);
    put(text, ",\"vms\":[");
    for (size_t i = 0; i < round->count; i++) {
        const struct policy_vm *vm = &round->vms[i];
        const struct policy_memory *memory = find_memory(round->previous, vm->id);
        write_vm(text, round->names[i], vm, i == 0);
        if (memory)
            write_object(text, "memory", round_memory_fields, memory);
        write_object(text, "answer", round_target_fields, &round->targets[i]);
        put(text, "}");
    }
    put(text, "]}");
}
