#include "daemon/decision.h"

#include "daemon/size_text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define PAGE_BYTES 4096u

/* ---- prices ---- */

double decision_idle_factor(const struct decision *decision)
{
    return 1 / (1 - decision->reason.idle_tax_percent / 100.0);
}

double decision_active_part(const struct decision *decision)
{
    uint64_t held = decision->row.allocated_pages, active = decision->reason.active_pages;
    if (decision->reason.idle_tax_percent == 0 || active >= held)
        return 1;
    return (double)active / (double)held;
}

double decision_rho_held(const struct decision *decision)
{
    double f = decision_active_part(decision), k = decision_idle_factor(decision);
    return decision->row.shares / ((double)decision->row.allocated_pages * (f + k * (1 - f)));
}

bool decision_has_price(const struct decision *decision)
{
    return isfinite(decision->reason.level) && decision->reason.level > 0 &&
           decision->reason.rule != RULE_SURPLUS;
}

/* ---- words ---- */

struct sizes {
    char target[32], min[32], max[32], demand[32], active[32], idle[32], base[32], order[32],
        available[32], previous[32];
};

static const char *pages(uint64_t count, char text[32])
{
    return size_format(count * PAGE_BYTES, text);
}

/* The rule in words, after "TARGET because ". */
static void rule_text(const struct decision *d, struct sizes *s, char *text, size_t bytes)
{
    const struct policy_reason *why = &d->reason;
    double rho = 1 / why->level, k = decision_idle_factor(d);
    uint64_t idle = d->target_pages > why->active_pages ? d->target_pages - why->active_pages : 0;
    switch ((enum policy_rule)why->rule) {
    case RULE_ROW_REFUSED:
        snprintf(text, bytes, "its statistics are impossible and were not believed");
        return;
    case RULE_MANUAL:
        snprintf(text, bytes, "that is the operator's order of %s, within min and max",
                 pages(d->row.manual_target_pages, s->order));
        return;
    case RULE_MANUAL_CUT:
        snprintf(text, bytes,
                 "the operator's orders (here %s) come to more than there is and were cut by "
                 "shares: %u at %.4g pages a share",
                 pages(d->row.manual_target_pages, s->order), d->row.shares, why->level);
        return;
    case RULE_MIN:
        snprintf(text, bytes, "that is its min, and its %u shares do not pay for more",
                 d->row.shares);
        return;
    case RULE_MAX:
        snprintf(text, bytes, "that is its max, and there is enough");
        return;
    case RULE_DEMAND:
        snprintf(text, bytes, "that is all it could use, and there is enough");
        return;
    case RULE_SHARES:
        snprintf(text, bytes, "%u shares pay for %.4g pages each, as everybody's do", d->row.shares,
                 why->level);
        return;
    case RULE_RHO:
        snprintf(text, bytes,
                 "its %u shares at the common price rho = %.4g a page pay for that; all of it is "
                 "active (%s)",
                 d->row.shares, rho, pages(why->active_pages, s->active));
        return;
    case RULE_TAX:
        snprintf(text, bytes,
                 "its %u shares at the common price rho = %.4g a page pay for %s active and %s "
                 "idle, which cost k = %.4g times as much (idle memory tax %u %%)",
                 d->row.shares, rho, pages(why->active_pages, s->active), pages(idle, s->idle), k,
                 why->idle_tax_percent);
        return;
    case RULE_SURPLUS:
        snprintf(text, bytes,
                 "all demands are met (here %s) and its %u shares get %.4g pages each of what is "
                 "left",
                 pages(why->base_pages, s->base), d->row.shares, why->level);
        return;
    case RULE_STATIC:
        snprintf(text, bytes, "that is its max, and nobody ordered anything else");
        return;
    case RULE_EXTERNAL:
        snprintf(text, bytes, "the program outside said so (min %s, max %s)",
                 pages(d->row.min_pages, s->min), pages(d->row.max_pages, s->max));
        return;
    case RULE_POLICY:
    case POLICY_RULES:
        break;
    }
    snprintf(text, bytes, "the policy said so");
}

const char *decision_text(const struct decision *d, char text[DECISION_TEXT_BYTES])
{
    struct sizes sizes;
    char why[DECISION_TEXT_BYTES - 150];
    rule_text(d, &sizes, why, sizeof why);
    char by[40] = "";
    pages(d->previous_target_pages, sizes.previous);
    pages(d->target_pages, sizes.target);
    if (strcmp(sizes.previous, sizes.target) == 0) /* as rounded */
        snprintf(by, sizeof by, " (%+" PRId64 " pages)",
                 (int64_t)(d->target_pages - d->previous_target_pages));
    snprintf(text, DECISION_TEXT_BYTES, "from %s to %s%s, since %s; host %s with %.1f %% free",
             sizes.previous, sizes.target, by, why, host_state_name(d->host_state),
             100.0 * (double)d->host.free_pages / (double)d->host.machine_pages);
    return text;
}
