/* The table of methods. A method is one line here and one function in a file of its topic. */
#include "daemon/rpc/methods.h"

const struct rpc_method rpc_methods[] = {
    /* name, changes things, function */
    {"decisions.explain", false, decisions_explain},
    {"host.check", true, host_check},
    {"host.metrics", false, host_metrics},
    {"host.policies", false, host_policies},
    {"host.set", true, host_set},
    {"host.stats", false, host_stats},
    {"host.version", false, host_version},
    {"sharing.breaks", false, sharing_breaks},
    {"sharing.frame", false, sharing_frame},
    {"sharing.page", false, sharing_page},
    {"sharing.pairs", false, sharing_pairs},
    {"sharing.stats", false, sharing_stats},
    {"vm.create", true, vm_create},
    {"vm.destroy", true, vm_destroy},
    {"vm.list", false, vm_list},
    {"vm.pause", true, vm_pause},
    {"vm.resume", true, vm_resume},
    {"vm.set", true, vm_set},
    {"vm.set_target", true, vm_set_target},
    {"vm.stats", false, vm_stats},
    {"decisions.subscribe", false, decisions_subscribe},
    {"decisions.unsubscribe", false, unsubscribe},
    {"events.subscribe", false, events_subscribe},
    {"events.unsubscribe", false, unsubscribe},
    {"stats.subscribe", false, stats_subscribe},
    {"stats.unsubscribe", false, unsubscribe},
    {0},
};
