/*
 * Tunables of the policy engine: names, bounds and defaults. Meanings and units are
 * said in policy.h too. A plain number is a member there, a default and a line in
 * the table here, and a line in rpc/rows.c and PROTOCOL.md; configuration file,
 * options and host.set know it from the table.
 */
#include "daemon/policy/policy.h"

#include <math.h>

void policy_settings_default(struct policy_settings *settings)
{
    *settings = (struct policy_settings){
        .slack_percent = 0.5,
        .growth_room_percent = 12.5,
        .demand_decay_ms = 30000,
        .stall_ms = 5000,
        .balloon_ceiling_percent = 65,
        .page_out_limit_pages = 16384,
        .soft_round_ms = 250,
        .hard_round_ms = 100,
        .idle_tax_percent = 75,
        .active_trigger_percent = 10,
    };
    state_thresholds_default(&settings->thresholds);
}

/* clang-format off */
#define REAL(member, least, most, meaning)                                                         \
    {#member, false, offsetof(struct policy_settings, member), least, most, meaning}
#define WHOLE(member, least, most, meaning)                                                        \
    {#member, true, offsetof(struct policy_settings, member), least, most, meaning}
static const struct policy_setting table[] = {
    WHOLE(idle_tax_percent, 0, 99, "idle memory tax, for policies that tax (75)"),
    REAL(slack_percent, 0, 25,
         "targets leave so much of the machine free above the upper edge of high (0.5)"),
    REAL(growth_room_percent, 0, 100,
         "of a VM's memory, given to it beyond what it has touched (12.5)"),
    WHOLE(demand_decay_ms, 0, 3600000, "a demand that fell is believed after so long (30000)"),
    REAL(balloon_ceiling_percent, 0, 100, "of a VM's memory that its balloon may take (65)"),
    WHOLE(stall_ms, 0, 3600000, "a balloon without progress for so long is stalled (5000)"),
    WHOLE(page_out_limit_pages, 1, 1048576, "asked of one VM in one round (16384)"),
    WHOLE(soft_round_ms, 20, 600000, "from round to round while reclaim goes on, in soft (250)"),
    WHOLE(hard_round_ms, 20, 600000, "the same in hard and low (100)"),
    REAL(active_trigger_percent, 0, 100,
         "a move of a VM's active estimate that makes a round; 0: none does (10)"),
};
/* clang-format on */

const struct policy_setting *policy_setting_at(size_t index)
{
    return index < sizeof table / sizeof table[0] ? &table[index] : NULL;
}

static void *member(const struct policy_settings *settings, const struct policy_setting *setting)
{
    return (char *)settings + setting->offset;
}

double policy_setting_get(const struct policy_settings *settings,
                          const struct policy_setting *setting)
{
    const void *at = member(settings, setting);
    return setting->whole ? (double)*(const uint32_t *)at : *(const double *)at;
}

static int check_value(const struct policy_setting *setting, double value, struct err *err)
{
    if (!(value >= setting->least && value <= setting->most)) /* NaN fails too */
        return err_set(err, 0, "%.10g is not between %.10g and %.10g", value, setting->least,
                       setting->most);
    if (setting->whole && value != floor(value))
        return err_set(err, 0, "%.10g is not a whole number", value);
    return 0;
}

int policy_setting_put(struct policy_settings *settings, const struct policy_setting *setting,
                       double value, struct err *err)
{
    if (check_value(setting, value, err) < 0)
        return -1;
    if (setting->whole)
        *(uint32_t *)member(settings, setting) = (uint32_t)value;
    else
        *(double *)member(settings, setting) = value;
    return 0;
}

int policy_settings_check(const struct policy_settings *settings, struct err *err)
{
    const struct policy_setting *setting;
    if (state_thresholds_check(&settings->thresholds, err) < 0)
        return -1;
    for (size_t i = 0; (setting = policy_setting_at(i)); i++)
        if (check_value(setting, policy_setting_get(settings, setting), err) < 0)
            return err_prefix(err, "%s", setting->name);
    return 0;
}

uint64_t policy_aim_pages(enum host_state state, uint64_t machine_pages,
                          const struct policy_settings *settings)
{
    return host_state_rise_pages(state, machine_pages, &settings->thresholds) +
           (uint64_t)ceil((double)machine_pages * settings->slack_percent / 100) + 1;
}

uint64_t policy_available_pages(uint64_t machine_pages, const struct policy_settings *settings)
{
    uint64_t aim = policy_aim_pages(HOST_HIGH, machine_pages, settings);
    return machine_pages > aim ? machine_pages - aim : 0;
}
