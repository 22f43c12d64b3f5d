#include "daemon/policy_answer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PAGE_BYTES UINT64_C(4096)

static int wrong_type(const char *name, const json_t *value, struct err *err)
{
    if (json_is_real(value))
        return err_set(err, 0, "target of VM %s is %.6g, not a whole number of bytes", name,
                       json_real_value(value));
    return err_set(err, 0, "target of VM %s is %s, not a whole number of bytes", name,
                   json_is_string(value)   ? "text"
                   : json_is_object(value) ? "an object"
                   : json_is_array(value)  ? "an array"
                   : json_is_null(value)   ? "null"
                                           : "true or false");
}

static int read_target(struct answer_vm *vm, const json_t *value, struct err *err)
{
    if (!value)
        return err_set(err, 0, "no target for VM %s", vm->name);
    if (!json_is_integer(value))
        return wrong_type(vm->name, value, err);
    json_int_t bytes = json_integer_value(value);
    if (bytes < 0 || (uint64_t)bytes < vm->min_pages * PAGE_BYTES)
        return err_set(
            err, 0, "target of VM %s is %" JSON_INTEGER_FORMAT " bytes, below its min of %" PRIu64,
            vm->name, bytes, vm->min_pages * PAGE_BYTES);
    if ((uint64_t)bytes > vm->max_pages * PAGE_BYTES)
        return err_set(
            err, 0, "target of VM %s is %" JSON_INTEGER_FORMAT " bytes, above its max of %" PRIu64,
            vm->name, bytes, vm->max_pages * PAGE_BYTES);
    vm->target_pages = (uint64_t)bytes / PAGE_BYTES;
    return 0;
}

/* All VMs of the question are there, and more: the first that is a stranger. Among count + 1
 * members there is one. */
static int name_stranger(const json_t *targets, const struct answer_vm *vms, size_t count,
                         struct err *err)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)targets, name, value)
    {
        size_t i = 0;
        while (i < count && strcmp(vms[i].name, name) != 0)
            i++;
        if (i < count)
            continue;
        char printable[ANSWER_NAME_BYTES];
        size_t length = 0;
        for (; name[length] && length + 1 < sizeof printable; length++)
            printable[length] = name[length] >= ' ' && name[length] <= '~' ? name[length] : '?';
        printable[length] = 0;
        return err_set(err, 0, "target for '%s', which is no VM of this round", printable);
    }
    return 0;
}

int policy_answer_read(const json_t *targets, struct answer_vm *vms, size_t count,
                       uint64_t available_pages, struct err *err)
{
    uint64_t sum_pages = 0;
    if (!targets)
        return err_set(err, 0, "targets are missing");
    if (!json_is_object(targets))
        return err_set(err, 0, "targets are not an object of VM names and bytes");
    for (size_t i = 0; i < count; i++) {
        if (read_target(&vms[i], json_object_get(targets, vms[i].name), err) < 0)
            return -1;
        sum_pages += vms[i].target_pages;
    }
    if (json_object_size(targets) > count)
        return name_stranger(targets, vms, count, err);
    if (sum_pages > available_pages)
        return err_set(err, 0,
                       "targets add up to %" PRIu64 " bytes, more than the %" PRIu64 " there are",
                       sum_pages * PAGE_BYTES, available_pages * PAGE_BYTES);
    return 0;
}
