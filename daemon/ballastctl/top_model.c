#include "daemon/ballastctl/top_model.h"

#include <stdlib.h>
#include <string.h>

#define PAGES_PER_MIB 256.0
#define BYTES_PER_MIB 1048576.0

/* ---- samples ---- */

/* The VM called name in the sample before; it stands at or near its old place. */
static const struct top_vm *find_before(const struct top_model *model, const char *name,
                                        size_t place)
{
    for (size_t i = 0; i < model->count; i++) {
        const struct top_vm *vm = &model->vms[(place + i) % model->count];
        if (strcmp(top_vm_name(vm), name) == 0)
            return vm;
    }
    return NULL;
}

static void add_to_history(struct top_vm *vm)
{
    double held = json_number_value(json_object_get(vm->row, "allocated_pages"));
    double memory = json_number_value(json_object_get(vm->row, "memory_pages"));
    if (vm->samples == TOP_HISTORY)
        memmove(vm->history, vm->history + 1, sizeof vm->history[0] * --vm->samples);
    vm->history[vm->samples++] = memory > 0 ? held / memory : 0;
}

static void free_vms(struct top_vm *vms, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        json_decref(vms[i].row);
        json_decref(vms[i].before);
    }
    free(vms);
}

int top_model_take(struct top_model *model, const json_t *params)
{
    json_t *host = json_object_get(params, "host"), *rows = json_object_get(params, "vms"), *row;
    size_t index, count = json_array_size(rows);
    if (!json_is_object(host) || !json_is_array(rows))
        return -1;
    struct top_vm *vms = calloc(count + 1, sizeof *vms);
    if (!vms)
        return -1;
    json_array_foreach(rows, index, row)
    {
        struct top_vm *vm = &vms[index];
        vm->row = row;
        const struct top_vm *before = find_before(model, top_vm_name(vm), index);
        if (before) {
            *vm = *before;
            vm->before = json_incref(before->row);
        }
        vm->row = json_incref(row);
        add_to_history(vm);
    }
    uint64_t time_ns = (uint64_t)json_integer_value(json_object_get(params, "time_ns"));
    bool first = !model->host, follows = !first && time_ns > model->time_ns;
    free_vms(model->vms, model->count);
    json_decref(model->host);
    model->host = json_incref(host);
    model->vms = vms;
    model->count = count;
    model->seconds = follows ? (double)(time_ns - model->time_ns) / 1e9 : 0;
    model->time_ns = time_ns;
    model->lost += (uint64_t)json_integer_value(json_object_get(params, "lost"));
    return 0;
}

void top_model_forget_rates(struct top_model *model)
{
    model->time_ns = UINT64_MAX; /* no sample is later */
}

void top_model_free(struct top_model *model)
{
    free_vms(model->vms, model->count);
    json_decref(model->host);
    *model = (struct top_model){0};
}

/* ---- figures of the host ---- */

bool top_host_mib(const struct top_model *model, const char *path, double *mib)
{
    const json_t *member = top_member(model->host, path);
    size_t length = strlen(path);
    bool bytes = length > 6 && strcmp(path + length - 6, "_bytes") == 0;
    *mib = json_number_value(member) / (bytes ? BYTES_PER_MIB : PAGES_PER_MIB);
    return json_is_number(member);
}

bool top_sum(const struct top_model *model, const char *title, double *value)
{
    int field = top_field_find(title, strlen(title));
    bool any = false;
    double one;
    *value = 0;
    for (size_t i = 0; field >= 0 && i < model->count; i++)
        if (top_field_value(&top_fields[field], &model->vms[i], model->seconds, &one)) {
            *value += one;
            any = true;
        }
    return any;
}

/* ---- what is seen ---- */

void top_view_default(struct top_view *view)
{
    *view = (struct top_view){0};
    for (size_t i = 0; i < top_field_count; i++)
        if (top_fields[i].shown)
            view->shown |= UINT64_C(1) << i;
}

const char *top_view_choose(struct top_view *view, const char *titles, size_t *length)
{
    uint64_t shown = 0;
    for (const char *word = titles;; word += *length + 1) {
        *length = strcspn(word, ",");
        int field = top_field_find(word, *length);
        if (*length == 3 && strncmp(word, "all", 3) == 0)
            shown |= (UINT64_C(1) << top_field_count) - 1;
        else if (field < 0)
            return word;
        else
            shown |= UINT64_C(1) << field;
        if (!word[*length])
            break;
    }
    view->shown = shown;
    return NULL;
}

struct sorting {
    const struct top_view *view;
    const struct top_model *model;
};

static int compare(const void *a, const void *b, void *ctx)
{
    const struct sorting *sorting = ctx;
    const struct top_vm *vm_a = *(const struct top_vm *const *)a;
    const struct top_vm *vm_b = *(const struct top_vm *const *)b;
    int order =
        top_field_compare(&top_fields[sorting->view->sort], vm_a, vm_b, sorting->model->seconds);
    if (order == 0) /* as the daemon has them, so that equal ones stand still */
        return (vm_a > vm_b) - (vm_a < vm_b);
    return sorting->view->backwards ? -order : order;
}

size_t top_view_order(const struct top_view *view, const struct top_model *model,
                      const struct top_vm **order)
{
    struct sorting sorting = {view, model};
    size_t seen = 0;
    for (size_t i = 0; i < model->count; i++)
        if (!view->filter[0] || strcasestr(top_vm_name(&model->vms[i]), view->filter))
            order[seen++] = &model->vms[i];
    if (seen > 1)
        qsort_r(order, seen, sizeof *order, compare, &sorting);
    return seen;
}
