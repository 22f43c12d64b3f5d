/*
 * What ballastctl top knows: the last two samples of the host and its VMs, and
 * which VMs and fields are to be seen in which order.
 * Nothing here draws or talks to the daemon.
 */
#ifndef BALLAST_CTL_TOP_MODEL_H
#define BALLAST_CTL_TOP_MODEL_H

#include "daemon/ballastctl/top_fields.h"

#define TOP_FILTER_BYTES 64

struct top_model {
    json_t *host;       /* its row; NULL before the first sample */
    struct top_vm *vms; /* in the daemon's order */
    size_t count;
    uint64_t time_ns; /* of the sample, on the daemon's monotonic clock */
    double seconds;   /* between the last two samples; 0: there was only one */
    uint64_t lost;    /* samples that the daemon had to leave out */
};

struct top_view {
    uint64_t shown; /* bit i: top_fields[i] */
    size_t sort;    /* a field */
    bool backwards;
    char filter[TOP_FILTER_BYTES]; /* part of a name, in any case; "": all */
};

/* Take the params of a stats.rows notification. -1: they are not what they should be, or no
 * memory; the model stays as it was. */
int top_model_take(struct top_model *model, const json_t *params);
/* Counts are not compared with those of before: the daemon began anew. */
void top_model_forget_rates(struct top_model *model);
void top_model_free(struct top_model *model);

/* A member of the host's row in MiB; false: absent. */
bool top_host_mib(const struct top_model *model, const char *path, double *mib);
/* The field called title, added up over all VMs that have it; false: none has. */
bool top_sum(const struct top_model *model, const char *title, double *value);

/* The fields shown by default, by name. */
void top_view_default(struct top_view *view);
/* "NAME,MEMSZ,...": shown; "all" are all. NULL, or the first word (in *length bytes) that is no
 * field, and the view stays as it was. */
const char *top_view_choose(struct top_view *view, const char *titles, size_t *length);

/* The VMs to be seen, in order, into order (room for model->count); how many. */
size_t top_view_order(const struct top_view *view, const struct top_model *model,
                      const struct top_vm **order);

#endif
