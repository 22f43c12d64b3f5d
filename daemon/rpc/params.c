/* Named parameters of a call; see session.h. */
#include "daemon/rpc/session.h"

#include "daemon/size_text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_PARAMS 32 /* members one method reads of one object */

struct rpc_params {
    json_t *object; /* NULL: no params at all */
    struct rpc_params *outer;
    char path[64]; /* of this object inside its outer ones, with a final point; "" */
    const char *read[MOST_PARAMS];
    size_t reads;
    bool mistaken;
    char where[96], why[384]; /* the first mistake; kept by the outermost */
};

struct rpc_params *params_new(json_t *object)
{
    struct rpc_params *params = calloc(1, sizeof *params);
    if (params)
        params->object = object;
    return params;
}

void params_free(struct rpc_params *params)
{
    free(params);
}

static struct rpc_params *outermost(struct rpc_params *params)
{
    while (params->outer)
        params = params->outer;
    return params;
}

void params_mistake(struct rpc_params *params, const char *name, const char *format, ...)
{
    struct rpc_params *root = outermost(params);
    if (root->mistaken)
        return;
    root->mistaken = true;
    snprintf(root->where, sizeof root->where, "%s%.32s", params->path, name);
    va_list ap;
    va_start(ap, format);
    vsnprintf(root->why, sizeof root->why, format, ap);
    va_end(ap);
}

/* The member name, or NULL when it is absent (a mistake if required) or reading has ended. */
static json_t *take(struct rpc_params *params, const char *name, enum param_need need)
{
    if (params->reads < MOST_PARAMS)
        params->read[params->reads++] = name;
    if (outermost(params)->mistaken)
        return NULL;
    json_t *value = json_object_get(params->object, name);
    if (!value && need == REQUIRED)
        params_mistake(params, name, "is missing");
    return value;
}

const char *param_text(struct rpc_params *params, const char *name, enum param_need need)
{
    json_t *value = take(params, name, need);
    if (value && !json_is_string(value))
        params_mistake(params, name, "must be text");
    return json_string_value(value);
}

bool param_size(struct rpc_params *params, const char *name, enum param_need need, uint64_t *bytes)
{
    json_t *value = take(params, name, need);
    struct err err;
    if (!value)
        return false;
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *bytes = (uint64_t)json_integer_value(value);
        return true;
    }
    if (!json_is_string(value)) {
        params_mistake(params, name, "must be a number of bytes or a size such as \"256MiB\"");
        return false;
    }
    if (size_parse(json_string_value(value), 1, bytes, &err) < 0) {
        params_mistake(params, name, "%s", err.text);
        return false;
    }
    return true;
}

bool param_count(struct rpc_params *params, const char *name, enum param_need need, uint64_t least,
                 uint64_t most, uint64_t *value)
{
    json_t *member = take(params, name, need);
    if (!member)
        return false;
    json_int_t number = json_integer_value(member);
    if (!json_is_integer(member) || number < 0 || (uint64_t)number < least ||
        (uint64_t)number > most) {
        params_mistake(params, name, "must be a whole number from %llu to %llu",
                       (unsigned long long)least, (unsigned long long)most);
        return false;
    }
    *value = (uint64_t)number;
    return true;
}

bool param_number(struct rpc_params *params, const char *name, enum param_need need, double *value)
{
    json_t *member = take(params, name, need);
    if (!member)
        return false;
    if (!json_is_number(member) || !isfinite(json_number_value(member))) {
        params_mistake(params, name, "must be a number");
        return false;
    }
    *value = json_number_value(member);
    return true;
}

bool param_flag(struct rpc_params *params, const char *name, enum param_need need, bool *value)
{
    json_t *member = take(params, name, need);
    if (!member)
        return false;
    if (!json_is_boolean(member)) {
        params_mistake(params, name, "must be true or false");
        return false;
    }
    *value = json_is_true(member);
    return true;
}

bool param_is_null(struct rpc_params *params, const char *name)
{
    if (!json_is_null(json_object_get(params->object, name)))
        return false;
    return take(params, name, OPTIONAL) != NULL;
}

json_t *param_array(struct rpc_params *params, const char *name, enum param_need need, size_t most)
{
    json_t *member = take(params, name, need);
    if (!member)
        return NULL;
    if (!json_is_array(member) || json_array_size(member) > most) {
        params_mistake(params, name, "must be an array of at most %zu", most);
        return NULL;
    }
    return member;
}

json_t *param_value(struct rpc_params *params, const char *name)
{
    return take(params, name, OPTIONAL);
}

struct rpc_params *params_enter(struct rpc_params *params, const char *name, json_t *object)
{
    if (!json_is_object(object)) {
        params_mistake(params, name, "must be an object");
        return NULL;
    }
    struct rpc_params *inner = params_new(object);
    if (!inner) {
        params_mistake(params, name, "no memory to read it");
        return NULL;
    }
    inner->outer = params;
    snprintf(inner->path, sizeof inner->path, "%.24s%.32s.", params->path, name);
    return inner;
}

struct rpc_params *param_object(struct rpc_params *params, const char *name, enum param_need need)
{
    json_t *member = take(params, name, need);
    return member ? params_enter(params, name, member) : NULL;
}

/* Members that no reader asked for: a misspelt name must not pass in silence. */
static void find_strangers(struct rpc_params *params)
{
    const char *key;
    json_t *value;
    json_object_foreach(params->object, key, value)
    {
        size_t i = 0;
        while (i < params->reads && strcmp(params->read[i], key) != 0)
            i++;
        if (i == params->reads)
            params_mistake(params, key, "is not a parameter here");
    }
}

void params_leave(struct rpc_params *inner)
{
    if (!inner)
        return;
    find_strangers(inner);
    params_free(inner);
}

bool params_are_mistaken(struct rpc_params *params)
{
    find_strangers(params);
    return params->mistaken;
}

bool params_end(struct rpc_params *params, struct rpc_call *call)
{
    if (!params_are_mistaken(params))
        return true;
    json_t *details = json_object();
    json_object_set_new(details, "param", json_string(params->where));
    rpc_fail(call, RPC_BAD_PARAMS, details, "%s %s", params->where, params->why);
    return false;
}
