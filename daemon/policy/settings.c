/* Tunables of the policy engine: defaults and bounds. Meanings and units: policy.h. */
#include "daemon/policy/policy.h"

#include <math.h>

#define NS_PER_S UINT64_C(1000000000)

void policy_settings_default(struct policy_settings *settings)
{
    *settings = (struct policy_settings){
        .slack_percent = 0.5,
        .growth_room_percent = 12.5,
        .demand_decay_ns = 30 * NS_PER_S,
        .stall_ns = 5 * NS_PER_S,
        .balloon_ceiling_percent = 65,
        .page_out_limit_pages = 16384,
        .idle_tax_percent = 75,
        .active_trigger_percent = 10,
    };
    state_thresholds_default(&settings->thresholds);
}

static int check_percent(const char *name, double value, double most, struct err *err)
{
    if (!isfinite(value) || value < 0 || value > most)
        return err_set(err, 0, "%s is %g, outside 0 .. %g %%", name, value, most);
    return 0;
}

int policy_settings_check(const struct policy_settings *s, struct err *err)
{
    if (state_thresholds_check(&s->thresholds, err) < 0)
        return -1;
    if (check_percent("slack", s->slack_percent, 25, err) < 0 ||
        check_percent("room to grow", s->growth_room_percent, 100, err) < 0 ||
        check_percent("balloon ceiling", s->balloon_ceiling_percent, 100, err) < 0 ||
        check_percent("idle memory tax", s->idle_tax_percent, 99, err) < 0 ||
        check_percent("active estimate's trigger", s->active_trigger_percent, 100, err) < 0)
        return -1;
    if (s->page_out_limit_pages == 0)
        return err_set(err, 0, "page-out limit is 0 pages a round");
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
