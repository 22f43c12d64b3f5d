/* What the settings of sharing may be. Alone, since the control socket and the configuration ask it
 * without a host. */
#include "daemon/sharing/sharing.h"

#include <string.h>

#define MAX_RATE 100000000u

static const char *const charges[SHARED_CHARGES] = {
    [SHARED_CHARGE_EQUAL] = "equal",
    [SHARED_CHARGE_FULL] = "full",
    [SHARED_CHARGE_NONE] = "none",
};

const char *shared_charge_name(enum shared_charge charge)
{
    return (unsigned)charge < SHARED_CHARGES ? charges[charge] : "unknown";
}

bool shared_charge_find(const char *name, enum shared_charge *charge)
{
    for (int i = 0; i < SHARED_CHARGES; i++)
        if (strcmp(charges[i], name) == 0) {
            *charge = (enum shared_charge)i;
            return true;
        }
    return false;
}

int sharing_settings_check(const struct sharing_settings *settings, struct err *err)
{
    if (settings->max_pages_per_second < 1 || settings->max_pages_per_second > MAX_RATE ||
        settings->min_pages_per_second > settings->max_pages_per_second)
        return err_set(err, 0, "scan rates of %u to %u pages/s; it must be min <= max, 1 <= max",
                       settings->min_pages_per_second, settings->max_pages_per_second);
    if (!(settings->cpu_percent > 0 && settings->cpu_percent <= 100))
        return err_set(err, 0, "scanner's processor time of %g %%; it must be above 0, up to 100",
                       settings->cpu_percent);
    if ((unsigned)settings->charge >= SHARED_CHARGES)
        return err_set(err, 0, "charge for shared pages is none of equal, full and none");
    if (settings->pass_ms > 3600000)
        return err_set(err, 0, "%u ms from pass to pass; at most an hour", settings->pass_ms);
    return 0;
}
