/* vm.create: its many parameters to the supervisor's settings. */
#include "daemon/rpc/methods.h"

#include "daemon/supervisor.h"

#include <stdio.h>

static void read_disks(struct rpc_params *params, struct vm_settings *settings)
{
    json_t *disks = param_array(params, "disks", OPTIONAL, VM_MAX_DISKS);
    for (size_t i = 0; i < json_array_size(disks); i++) {
        char name[32];
        snprintf(name, sizeof name, "disks[%zu]", i);
        struct rpc_params *inner = params_enter(params, name, json_array_get(disks, i));
        if (!inner)
            return;
        struct vm_disk_settings *disk = &settings->disks[settings->disk_count++];
        disk->path = param_text(inner, "path", REQUIRED);
        param_flag(inner, "read_only", OPTIONAL, &disk->read_only);
        params_leave(inner);
    }
}

void vm_create(struct rpc_call *call, struct rpc_params *params)
{
    struct vm_settings settings;
    struct err err;
    uint64_t shares, tax_percent;
    bool start = true;
    vm_settings_default(&settings);
    settings.name = param_text(params, "name", REQUIRED);
    param_size(params, "memory", REQUIRED, &settings.memory_bytes);
    param_size(params, "min", OPTIONAL, &settings.min_bytes);
    if (param_count(params, "shares", OPTIONAL, 1, SHARES_MAX, &shares))
        settings.shares = (uint32_t)shares;
    if (param_count(params, "idle_tax_percent", OPTIONAL, 0, 99, &tax_percent))
        settings.idle_tax_percent = (int)tax_percent;
    settings.kernel = param_text(params, "kernel", REQUIRED);
    settings.initrd = param_text(params, "initrd", OPTIONAL);
    settings.append = param_text(params, "append", OPTIONAL);
    read_disks(params, &settings);
    bool sharing = true;
    settings.sharing_domain = param_text(params, "sharing_domain", OPTIONAL);
    param_flag(params, "sharing", OPTIONAL, &sharing);
    settings.no_sharing = !sharing;
    param_flag(params, "sv48", OPTIONAL, &settings.sv48);
    param_flag(params, "deflate_on_oom", OPTIONAL, &settings.deflate_on_oom);
    param_flag(params, "free_page_reporting", OPTIONAL, &settings.free_page_reporting);
    param_flag(params, "start", OPTIONAL, &start);
    settings.no_start = !start;
    if (!params_end(params, call))
        return;
    struct vm *vm = supervisor_create_vm(rpc_call_supervisor(call), &settings, &err);
    if (!vm)
        rpc_fail_refused(call, settings.name, &err);
    else
        rpc_reply(call, json_pack("{s:s}", "vm", vm_name(vm)));
}
