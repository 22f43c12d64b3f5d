#include "daemon/policy_trigger.h"

const char *policy_trigger_name(enum policy_trigger trigger)
{
    static const char *const names[POLICY_TRIGGERS] = {
        [TRIGGER_VM_ADDED] = "vm-added",     [TRIGGER_VM_GONE] = "vm-gone",
        [TRIGGER_VM_SETTING] = "vm-setting", [TRIGGER_HOST_SETTING] = "host-setting",
        [TRIGGER_STATE] = "state",           [TRIGGER_STARVED] = "starved",
        [TRIGGER_ABILITY] = "ability",       [TRIGGER_ACTIVE] = "active",
        [TRIGGER_CHECKED] = "checked",       [TRIGGER_RECLAIM] = "reclaim",
        [TRIGGER_PERIOD] = "period",
    };
    return (unsigned)trigger < POLICY_TRIGGERS ? names[trigger] : "none";
}
