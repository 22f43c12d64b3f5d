/*
 * ballastctl top, in parts:
 *   top.c          the command and its options; batch mode
 *   top_fields.c   the table of fields and what they are worth
 *   top_model.c    samples, averages, order
 *   top_live.c     the live screen: the daemon, the keyboard, time
 *   top_screen.c   what it looks like, with ncurses
 */
#ifndef BALLAST_CTL_TOP_H
#define BALLAST_CTL_TOP_H

#include "daemon/ballastctl/ctl.h"
#include "daemon/ballastctl/top_model.h"

struct connection;

enum top_page { TOP_PAGE_VMS, TOP_PAGE_FIELDS, TOP_PAGE_HELP };

/* What the live screen shows now, beside the model. */
struct top_screen {
    const struct top_model *model;
    struct top_view view;
    enum top_page page;
    bool typing_filter;
    size_t first_vm;     /* at the top of the list; bounded when drawn */
    size_t first_column; /* of those after the name */
    size_t field;        /* under the cursor of the page of fields */
    uint64_t interval_ms;
    const char *notice; /* about the connection; "": all is well */
};

/* Take the terminal. -1 with err: it is none, or of a kind that is not known. */
int top_screen_open(struct err *err);
void top_screen_close(void);
void top_screen_draw(struct top_screen *screen);
/* The next key that was pressed, as curses tells it; ERR: none. */
int top_screen_key(void);
/* One key; false: leave. */
bool top_screen_take_key(struct top_screen *screen, int key);

/* The live screen until the user leaves. An exit status. */
int top_live(struct ctl *ctl, const struct top_view *view, uint64_t interval_ms);

#endif
