#include "daemon/end_signals.h"

#include <signal.h>
#include <stddef.h>

int end_signals_watch(sd_event *event, sd_event_signal_handler_t handler, void *ctx)
{
    static const int watched[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    sigset_t set;
    int result = 0;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof watched / sizeof watched[0]; i++)
        sigaddset(&set, watched[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof watched / sizeof watched[0] && result >= 0; i++)
        result = sd_event_add_signal(event, NULL, watched[i], handler, ctx);
    return result < 0 ? result : 0;
}
