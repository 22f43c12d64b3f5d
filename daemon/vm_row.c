/*
 * One row of statistics a VM. Numbers of the supervisor's own records come as
 * they are; those that the worker counts are read once, and those that stand for
 * pages are bounded by the VM's memory.
 */
#include "daemon/supervisor_private.h"

#include <string.h>

static uint64_t read_count(const _Atomic uint64_t *field)
{
    return atomic_load_explicit(field, memory_order_relaxed);
}

static uint64_t in_state(const struct vm *vm, enum page_state state)
{
    return vm_stat(vm, &vm->region->stats.pages.pages_in[state], vm->memory_pages);
}

static void fill_from_worker(const struct vm *vm, struct vm_row *row)
{
    const struct vm_stats *stats = &vm->region->stats;
    row->valid |= VM_ROW_WORKER;
    row->balloon_pages = in_state(vm, PAGE_BALLOONED);
    row->private_pages = in_state(vm, PAGE_PRIVATE);
    row->shared_pages = in_state(vm, PAGE_SHARED);
    row->paged_pages = in_state(vm, PAGE_PAGED);
    row->absent_pages = in_state(vm, PAGE_ABSENT);
    row->paging_pages = in_state(vm, PAGE_PAGING_OUT) + in_state(vm, PAGE_PAGING_IN);
    row->pool_pages = vm_pool_pages(vm);
    row->balloon_driver = atomic_load_explicit(&stats->balloon_driver, memory_order_relaxed) != 0;
    if (row->balloon_driver) {
        row->valid |= VM_ROW_BALLOON;
        row->balloon_target_pages = vm_stat(vm, &stats->balloon_target_pages, vm->memory_pages);
        row->balloon_actual_pages = vm_stat(vm, &stats->balloon_actual_pages, vm->memory_pages);
        for (unsigned i = 0; i < BALLOON_STAT_TAGS; i++)
            row->balloon_stats[i] = read_count(&stats->balloon_stats[i]);
    }
    row->swap_slots_used = vm_stat(vm, &stats->swap_slots_used, vm->swap_slots);
    row->swap_in_pages = read_count(&stats->swap_in_pages);
    row->swap_out_pages = read_count(&stats->swap_out_pages);
    row->swap_errors = read_count(&stats->swap_errors);
    row->instructions = read_count(&stats->instructions);
    row->vcpu_run_ns = read_count(&stats->vcpu_run_ns);
    row->vcpu_wait_ns = read_count(&stats->vcpu_wait_ns);
    row->vcpu_idle_ns = read_count(&stats->vcpu_idle_ns);
    sampling_row(vm, row);
    row->traps = read_count(&stats->traps);
    row->sbi_calls = read_count(&stats->sbi_calls);
    row->mmio_accesses = read_count(&stats->mmio_accesses);
    row->shadow_fills = read_count(&stats->shadow_fills);
    row->shadow_drops = read_count(&stats->shadow_drops);
    row->disk_read_bytes = read_count(&stats->disk_read_bytes);
    row->disk_write_bytes = read_count(&stats->disk_write_bytes);
}

/* An operator's target may use all of the balloon, the policy only up to its ceiling; no target is
 * below min. */
static uint64_t balloon_max_pages(const struct vm *vm)
{
    double part = vm->has_manual_target ? 100 : vm->supervisor->settings.balloon_ceiling_percent;
    uint64_t ceiling = (uint64_t)((double)vm->memory_pages * part / 100);
    uint64_t above_min = vm->memory_pages - vm->min_pages;
    return ceiling < above_min ? ceiling : above_min;
}

void supervisor_vm_row(struct supervisor *supervisor, struct vm *vm, struct vm_row *row)
{
    (void)supervisor;
    overhead_measure(vm);
    *row = (struct vm_row){
        .name = vm->settings.name,
        .state = vm_state_name(vm),
        .age_ns = clock_monotonic_ns() - vm->created_ns,
        .pid = vm->pid,
        .memory_pages = vm->memory_pages,
        .min_pages = vm->min_pages,
        .max_pages = vm->max_pages,
        .shares = vm->shares,
        .target_pages = vm->target_pages,
        .allocated_pages = vm_allocated_pages(vm),
        .held_pages = vm->held_pages,
        .swap_reserved_pages = vm->swap_fd >= 0 ? vm->swap_slots : 0,
        .wanted_pages = vm->wanted_pages,
        .page_out_pending_pages = vm->page_out_owed_pages + vm->page_out_asked_pages,
        .balloon_max_pages = balloon_max_pages(vm),
        .granted_total_pages = vm->granted_total_pages,
        .released_total_pages = vm->released_total_pages,
        .refused_messages = vm->refused_messages,
        .blocked = vm->blocked,
        .overhead = vm->overhead,
    };
    for (unsigned i = 0; i < BALLOON_STAT_TAGS; i++)
        row->balloon_stats[i] = UINT64_MAX;
    if (vm->idle_tax_percent != IDLE_TAX_OF_HOST) {
        row->valid |= VM_ROW_IDLE_TAX;
        row->idle_tax_percent = (uint32_t)vm->idle_tax_percent;
    }
    if (vm->has_manual_target) {
        row->valid |= VM_ROW_MANUAL_TARGET;
        row->manual_target_pages = vm->manual_target_pages;
    }
    if (vm->life == LIFE_STOPPED) {
        row->valid |= VM_ROW_EXIT;
        row->exit_clean = vm->exit_clean;
        memcpy(row->exit_text, vm->exit_text, sizeof row->exit_text);
    }
    sharing_fill_row(vm, row);
    watch_fill_vm_row(vm, row);
    if (vm_has_worker(vm))
        fill_from_worker(vm, row);
}
