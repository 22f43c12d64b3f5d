/* Of the fake supervisor: sharing, of twins only. */
#include "tests/control/fake_supervisor_private.h"

#include <string.h>

#define TWINS_FRAME 4096u

struct sharing_settings fake_sharing_settings;

bool fake_has_twins(struct supervisor *supervisor)
{
    return supervisor_find_vm(supervisor, "twin-a") && supervisor_find_vm(supervisor, "twin-b");
}

int supervisor_set_sharing(struct supervisor *supervisor, const struct sharing_settings *settings,
                           struct err *err)
{
    (void)supervisor, (void)err;
    fake_sharing_settings = *settings;
    return 0;
}

int supervisor_set_sharing_domain(struct supervisor *supervisor, struct vm *vm, const char *domain,
                                  struct err *err)
{
    (void)supervisor;
    if (domain && strchr(domain, '/'))
        return err_set(err, 0, "VM %s: '%s' is no name of a sharing domain", vm->name, domain);
    return 0;
}

int supervisor_set_vm_sharing(struct supervisor *supervisor, struct vm *vm, bool enabled,
                              struct err *err)
{
    (void)supervisor, (void)vm, (void)enabled, (void)err;
    return 0;
}

void supervisor_sharing_stats(struct supervisor *supervisor, struct sharing_stats *stats)
{
    bool twins = fake_has_twins(supervisor);
    if (!fake_sharing_settings.max_pages_per_second)
        fake_sharing_settings =
            (struct sharing_settings){true, 50, 100000, 0, 2, 2000, true, SHARED_CHARGE_EQUAL};
    *stats = (struct sharing_stats){
        .settings = fake_sharing_settings,
        .pages_per_second = 50,
        .shared_frames = twins,
        .references = 2 * twins,
        .saved_pages = twins,
        .hint_frames = 3,
        .table_bytes = 1024,
        .reference_bytes = 512,
        .bitmap_bytes = 256,
        .breaks_bytes = 128,
        .net_saved_bytes = 4096 * twins - 1920,
        .breaks = 2 * twins,
        .counts = {.cpu_ns = 40000,
                   .hashed_pages = 6,
                   .covered_pages = 90,
                   .shared_total = 2 * twins,
                   .cow_breaks = 2 * twins},
    };
}

void supervisor_sharing_vm_counts(struct supervisor *supervisor, struct vm *vm,
                                  struct sharing_vm_counts *counts)
{
    bool twin = fake_has_twins(supervisor) && strncmp(vm->name, "twin-", 5) == 0;
    *counts = (struct sharing_vm_counts){.passes = 1,
                                         .hashed_pages = 3,
                                         .covered_pages = 45,
                                         .shared_total = twin,
                                         .cow_breaks = twin,
                                         .cpu_ns = 20000};
}

int supervisor_sharing_pairs(struct supervisor *supervisor, struct sharing_pair *rows, unsigned max)
{
    bool twins = fake_has_twins(supervisor);
    if (twins && max)
        *rows = (struct sharing_pair){"twin-a", "twin-b", 1, 1.0, 2};
    return twins;
}

static const struct sharing_reference twin_references[] = {
    {"twin-a", 7, 1000000000, "hint"},
    {"twin-b", 9, 2000000000, "paging"},
};

int supervisor_sharing_frame(struct supervisor *supervisor, uint64_t mpn,
                             struct sharing_frame *frame, struct sharing_reference *rows,
                             unsigned max)
{
    if (mpn == TWINS_FRAME && fake_has_twins(supervisor) && max >= 2) {
        *frame = (struct sharing_frame){
            .mpn = mpn, .kind = "shared", .references = 2, .since_ns = 1000000000, .how = "hint"};
        memcpy(rows, twin_references, sizeof twin_references);
        return 2;
    }
    *frame = (struct sharing_frame){.mpn = mpn, .kind = "free"};
    return mpn < 262144 ? 0 : -1;
}

int supervisor_sharing_page(struct supervisor *supervisor, struct vm *vm, uint64_t ppn,
                            uint64_t *mpn, struct sharing_reference *reference)
{
    for (int i = 0; i < 2 && fake_has_twins(supervisor); i++)
        if (ppn == twin_references[i].ppn && strcmp(vm->name, twin_references[i].vm) == 0) {
            *mpn = TWINS_FRAME;
            *reference = twin_references[i];
            return 0;
        }
    return -1;
}

unsigned supervisor_sharing_breaks(struct supervisor *supervisor, struct sharing_break *rows,
                                   unsigned max)
{
    static const struct sharing_break breaks[] = {
        {5000000000, 1500000000, "twin-b", 11, TWINS_FRAME, 0, "shared"},
        {4000000000, 2000000000, "twin-a", 10, TWINS_FRAME, 0xffffffff80001234, "hint"},
    };
    unsigned count = !fake_has_twins(supervisor) ? 0 : max < 2 ? max : 2;
    memcpy(rows, breaks, count * sizeof breaks[0]);
    return count;
}
