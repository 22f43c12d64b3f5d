#include "daemon/ballastctl/top_fields.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define PAGES_PER_MIB 256.0
#define BYTES_PER_MIB 1048576.0

/* clang-format off */
const struct top_field top_fields[] = {
    {"NAME",    TOP_TEXT,      0, true,  {"name"}, "name"},
    {"STATE",   TOP_TEXT,      8, true,  {"state"}, "starting, running, paused or stopped"},
    {"MEMSZ",   TOP_PAGES,     8, true,  {"memory_pages"}, "configured memory"},
    {"GRANT",   TOP_PAGES,     8, true,  {"private_pages", "shared_pages"},
     "its pages that have a machine frame, its own or shared"},
    {"HELD",    TOP_PAGES,     8, false, {"allocated_pages"},
     "machine memory it holds and its part of the shared"},
    {"SZTGT",   TOP_PAGES,     8, true,  {"target_pages"}, "machine memory it may hold, as decided"},
    {"TCHD",    TOP_PAGES,     8, true,  {"active_pages"}, "estimate of memory in use"},
    {"ACTVS",   TOP_PAGES,     8, false, {"active_slow_pages"}, "the estimate's slow average"},
    {"ACTVF",   TOP_PAGES,     8, false, {"active_fast_pages"}, "the estimate's fast average"},
    {"ACTVN",   TOP_PAGES,     8, false, {"active_next_pages"},
     "the estimate's average that counts the period not yet over"},
    {"UNTCHD",  TOP_PAGES,     8, false, {"absent_pages"}, "pages never touched"},
    {"MCTL?",   TOP_FLAG,      5, false, {"balloon_driver"}, "has the guest a balloon driver"},
    {"MCTLSZ",  TOP_PAGES,     8, true,  {"balloon_pages"}, "given up by the balloon"},
    {"MCTLTGT", TOP_PAGES,     8, true,  {"balloon_target_pages"}, "what the balloon was asked for"},
    {"MCTLMAX", TOP_PAGES,     8, false, {"balloon_max_pages"}, "the most it may be asked for"},
    {"SWCUR",   TOP_PAGES,     8, true,  {"paged_pages"}, "paged out by the host"},
    {"SWTGT",   TOP_PAGES,     8, true,  {"paged_pages", "page_out_pending_pages"},
     "what the host has paged out and is to page out beside"},
    {"SWRES",   TOP_PAGES,     8, false, {"swap_reserved_pages"}, "disk reserved for its pages"},
    {"SWR/s",   TOP_PAGE_RATE, 7, true,  {"swap_in_pages"}, "MiB/s paged in by the host"},
    {"SWW/s",   TOP_PAGE_RATE, 7, true,  {"swap_out_pages"}, "MiB/s paged out by the host"},
    {"ZERO",    TOP_PAGES,     8, false, {"zero_pages"}, "pages of zeroes, which need no frame"},
    {"SHRD",    TOP_PAGES,     8, true,  {"shared_pages"}, "pages that map a frame of several"},
    {"SHRDSVD", TOP_PAGES,     8, true,  {"shared_saved_pages"}, "machine memory saved by sharing"},
    {"COWBRK",  TOP_COUNT,     7, false, {"cow_breaks"}, "shared pages written to, since it began"},
    {"COW/s",   TOP_RATE,      7, false, {"cow_breaks"}, "shared pages written to, a second"},
    {"OVHD",    TOP_BYTES,     7, true,  {"overhead.total_bytes"}, "host memory beside the guest's"},
    {"OVHDMAX", TOP_BYTES,     7, false, {"overhead.charged_bytes"},
     "host memory beside the guest's, as charged in admission"},
    {"SHARES",  TOP_COUNT,     7, true,  {"shares"}, "weight beside the others"},
    {"MIN",     TOP_PAGES,     8, true,  {"min_pages"}, "never reclaimed below this"},
    {"MAX",     TOP_PAGES,     8, false, {"max_pages"}, "never given more than this"},
    {"WANT",    TOP_PAGES,     7, false, {"wanted_pages"}, "asked for and not yet granted"},
    {"BLKD",    TOP_FLAG,      4, true,  {"blocked"}, "gets no frames: state low, above its target"},
    {"%RUN",    TOP_TIME_RATE, 6, false, {"vcpu_run_ns"}, "processor time of its vCPU"},
    {"%WAIT",   TOP_TIME_RATE, 6, false, {"vcpu_wait_ns"}, "time blocked for memory"},
    {"GFREE",   TOP_BYTES,     8, false, {"guest.free_memory_bytes"}, "free, as the guest says"},
    {"GAVAIL",  TOP_BYTES,     8, false, {"guest.available_memory_bytes"},
     "available without swapping, as the guest says"},
    {"HISTORY", TOP_SPARKLINE, TOP_HISTORY, true, {"allocated_pages"},
     "machine memory held over configured memory, lately"},
};
/* clang-format on */
const size_t top_field_count = sizeof top_fields / sizeof top_fields[0];

const json_t *top_member(const json_t *row, const char *path)
{
    char outer[TOP_TEXT_BYTES];
    const char *dot = strchr(path, '.');
    if (!dot)
        return json_object_get(row, path);
    snprintf(outer, sizeof outer, "%.*s", (int)(dot - path), path);
    return json_object_get(json_object_get(row, outer), dot + 1);
}

const char *top_vm_name(const struct top_vm *vm)
{
    const char *name = json_string_value(json_object_get(vm->row, "name"));
    return name ? name : "?";
}

int top_field_find(const char *title, size_t length)
{
    for (size_t i = 0; i < top_field_count; i++)
        if (strlen(top_fields[i].title) == length &&
            strncasecmp(top_fields[i].title, title, length) == 0)
            return (int)i;
    return -1;
}

/* The sum of the field's members in one row; false: one is absent. */
static bool sum(const struct top_field *field, const json_t *row, double *value)
{
    *value = 0;
    for (size_t i = 0; i < TOP_MOST_MEMBERS && field->members[i]; i++) {
        const json_t *member = top_member(row, field->members[i]);
        if (!json_is_number(member))
            return false;
        *value += json_number_value(member);
    }
    return true;
}

bool top_field_value(const struct top_field *field, const struct top_vm *vm, double seconds,
                     double *value)
{
    double before;
    if (field->unit == TOP_TEXT || !sum(field, vm->row, value))
        return false;
    switch (field->unit) {
    case TOP_PAGES:
        *value /= PAGES_PER_MIB;
        return true;
    case TOP_BYTES:
        *value /= BYTES_PER_MIB;
        return true;
    case TOP_PAGE_RATE:
    case TOP_RATE:
    case TOP_TIME_RATE:
        /* A count that fell began anew: the VM was started again under its name. */
        if (seconds <= 0 || !vm->before || !sum(field, vm->before, &before) || *value < before)
            return false;
        *value = (*value - before) / seconds;
        if (field->unit == TOP_PAGE_RATE)
            *value /= PAGES_PER_MIB;
        else if (field->unit == TOP_TIME_RATE)
            *value /= 1e7; /* ns a second, in percent */
        return true;
    default:
        return true;
    }
}

void top_field_text(const struct top_field *field, const struct top_vm *vm, double seconds,
                    char text[TOP_TEXT_BYTES])
{
    const json_t *member = top_member(vm->row, field->members[0]);
    double value;
    snprintf(text, TOP_TEXT_BYTES, "-");
    if (json_is_string(member) && field->unit == TOP_TEXT) {
        snprintf(text, TOP_TEXT_BYTES, "%s", json_string_value(member));
        for (char *c = text; *c; c++)
            if (*c < ' ' || *c > '~')
                *c = '?'; /* nothing a terminal would obey */
    } else if (json_is_boolean(member) && field->unit == TOP_FLAG) {
        snprintf(text, TOP_TEXT_BYTES, "%s", json_is_true(member) ? "yes" : "no");
    } else if (field->unit == TOP_SPARKLINE) {
        if (vm->samples > 0)
            snprintf(text, TOP_TEXT_BYTES, "%.2f", vm->history[vm->samples - 1]);
    } else if (top_field_value(field, vm, seconds, &value)) {
        snprintf(text, TOP_TEXT_BYTES, field->unit == TOP_COUNT ? "%.0f" : "%.1f", value);
    }
}

int top_field_compare(const struct top_field *field, const struct top_vm *a, const struct top_vm *b,
                      double seconds)
{
    char text_a[TOP_TEXT_BYTES], text_b[TOP_TEXT_BYTES];
    double value_a, value_b;
    if (field->unit == TOP_TEXT || field->unit == TOP_FLAG) {
        top_field_text(field, a, seconds, text_a);
        top_field_text(field, b, seconds, text_b);
        int order = strcmp(text_a, text_b);
        return field->unit == TOP_FLAG ? -order : order; /* yes first */
    }
    bool has_a = top_field_value(field, a, seconds, &value_a);
    bool has_b = top_field_value(field, b, seconds, &value_b);
    if (!has_a || !has_b)
        return (int)has_b - (int)has_a;
    return (value_a < value_b) - (value_a > value_b);
}
