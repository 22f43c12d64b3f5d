/*
 * The live screen: waits for the keyboard and the daemon at once. A daemon that
 * goes away leaves its last figures on the screen, marked as such, and is looked
 * for every second until it is back or the user leaves.
 */
#include "daemon/ballastctl/top.h"

#include "daemon/ballastctl/connection.h"

#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS  1000
#define SILENT_MS 3000 /* beyond the interval: the daemon does not answer */

struct live {
    struct ctl *ctl;
    struct top_model model;
    struct top_screen screen;
    uint64_t subscribed_ms; /* the interval asked for */
    uint64_t heard_ms, tried_ms;
    char notice[200];
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void hang_up(struct live *live)
{
    connection_close(live->ctl->connection);
    live->ctl->connection = NULL;
    top_model_forget_rates(&live->model);
}

/* A connection with a stream at the interval of now. -1 with err. */
static int subscribe(struct live *live, struct err *err)
{
    json_t *result;
    live->tried_ms = live->heard_ms = now_ms();
    live->subscribed_ms = live->screen.interval_ms;
    if (!live->ctl->connection)
        live->ctl->connection = connection_open(live->ctl->socket_path, err);
    if (!live->ctl->connection)
        return -1;
    if (connection_call(live->ctl->connection, "stats.subscribe",
                        json_pack("{s:I}", "interval_ms", (json_int_t)live->subscribed_ms), &result,
                        err) != CALL_ANSWERED)
        return -1;
    json_decref(result);
    return 0;
}

static void go_wrong(struct live *live, const struct err *err)
{
    hang_up(live);
    snprintf(live->notice, sizeof live->notice, "%.150s; trying again", err->text);
}

/* What the daemon sent. */
static void listen_to_daemon(struct live *live)
{
    struct err err;
    json_t *message;
    for (;;) {
        if (connection_poll(live->ctl->connection, &message, &err) < 0) {
            go_wrong(live, &err);
            return;
        }
        if (!message)
            return;
        if (top_model_take(&live->model, json_object_get(message, "params")) == 0) {
            live->heard_ms = now_ms();
            live->notice[0] = 0;
        }
        json_decref(message);
    }
}

/* What time brings: a new attempt, a daemon that is silent, a new interval. */
static void look_at_clock(struct live *live)
{
    struct err err;
    uint64_t now = now_ms();
    if (live->ctl->connection && live->subscribed_ms != live->screen.interval_ms)
        hang_up(live); /* a new stream, on a connection without the old one's rows in it */
    else if (live->ctl->connection) {
        uint64_t silent_ms = now - live->heard_ms;
        if (silent_ms > live->subscribed_ms + SILENT_MS)
            snprintf(live->notice, sizeof live->notice, "the daemon has said nothing for %d s",
                     (int)(silent_ms / 1000));
        return;
    } else if (now - live->tried_ms < RETRY_MS) {
        return;
    }
    if (subscribe(live, &err) < 0)
        go_wrong(live, &err);
}

static void run_screen(struct live *live)
{
    for (;;) {
        struct pollfd waits[] = {
            {.fd = STDIN_FILENO, .events = POLLIN},
            {.fd = live->ctl->connection ? connection_fd(live->ctl->connection) : -1,
             .events = POLLIN},
        };
        top_screen_draw(&live->screen);
        poll(waits, 2, RETRY_MS); /* a resize interrupts it, and comes as a key */
        for (int key; (key = top_screen_key()) >= 0;)
            if (!top_screen_take_key(&live->screen, key))
                return;
        if (waits[0].revents & (POLLHUP | POLLERR | POLLNVAL))
            return; /* the terminal is gone */
        if (live->ctl->connection && waits[1].revents)
            listen_to_daemon(live);
        look_at_clock(live);
    }
}

int top_live(struct ctl *ctl, const struct top_view *view, uint64_t interval_ms)
{
    struct live live = {.ctl = ctl};
    struct err err;
    live.screen = (struct top_screen){
        .model = &live.model, .view = *view, .interval_ms = interval_ms, .notice = live.notice};
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return ctl_fail(CTL_USAGE, "top: this is no terminal (see ballastctl top --batch)");
    if (subscribe(&live, &err) < 0)
        return ctl_fail(CTL_NO_DAEMON, "%s", err.text);
    if (top_screen_open(&err) < 0)
        return ctl_fail(CTL_REFUSED, "top: %s", err.text);
    run_screen(&live);
    top_screen_close();
    top_model_free(&live.model);
    return CTL_OK;
}
