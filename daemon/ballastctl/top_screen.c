/*
 * What the live screen looks like. Everything is drawn anew each time and clipped
 * to the terminal, of whatever size it is now; curses sends only what changed.
 *
 *   line 0      ballastctl, state, policy, overcommit
 *   then        memory of the host, a line a kind; fewer on a low terminal
 *   then        notice, filter or nothing
 *   then        titles of the fields, and a line a VM
 */
#include "daemon/ballastctl/top.h"

#include <curses.h>
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define LINE_BYTES      512
#define LOW_TERMINAL    16 /* lines; below, only the first kinds of memory are shown */
#define KEY_ESCAPE      27
#define KEY_BACK        127
#define LEAST_DELAY_MS  100
#define MOST_DELAY_MS   3600000
#define NAME_WIDTH_MOST 24

static SCREEN *terminal;
static bool has_blocks; /* the terminal can show the blocks of a sparkline */

enum { PAIR_HIGH = 1, PAIR_SOFT, PAIR_HARD, PAIR_LOW };

int top_screen_open(struct err *err)
{
    setlocale(LC_CTYPE, "");
    has_blocks = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    terminal = newterm(NULL, stdout, stdin);
    if (!terminal)
        return err_set(err, 0, "the terminal '%s' is not known here (TERM)",
                       getenv("TERM") ? getenv("TERM") : "");
    set_term(terminal);
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    set_escdelay(25);
    curs_set(0);
    if (has_colors()) {
        start_color();
        use_default_colors();
        init_pair(PAIR_HIGH, COLOR_GREEN, -1);
        init_pair(PAIR_SOFT, COLOR_YELLOW, -1);
        init_pair(PAIR_HARD, COLOR_MAGENTA, -1);
        init_pair(PAIR_LOW, COLOR_RED, -1);
    }
    return 0;
}

void top_screen_close(void)
{
    endwin();
    delscreen(terminal);
    terminal = NULL;
}

/* Text at the start of a line, clipped to the terminal. */
__attribute__((format(printf, 2, 3))) static void put_line(int y, const char *format, ...)
{
    char text[LINE_BYTES];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    if (y < LINES)
        mvaddnstr(y, 0, text, COLS);
}

/* ---- the host ---- */

/* A figure with its name, or "-": "  900.0 granted". Returns what was appended to. */
static void append(char line[LINE_BYTES], bool known, double value, const char *name)
{
    size_t length = strlen(line);
    if (known)
        snprintf(line + length, LINE_BYTES - length, "%s %9.1f %s", length > 8 ? "," : "", value,
                 name);
    else
        snprintf(line + length, LINE_BYTES - length, "%s %9s %s", length > 8 ? "," : "", "-", name);
}

static void append_host(char line[LINE_BYTES], const struct top_model *model, const char *member,
                        const char *name)
{
    double mib;
    bool known = top_host_mib(model, member, &mib);
    append(line, known, mib, name);
}

static void append_sum(char line[LINE_BYTES], const struct top_model *model, const char *title,
                       const char *name)
{
    double value;
    bool known = top_sum(model, title, &value);
    append(line, known, value, name);
}

static const char *host_text(const struct top_model *model, const char *member)
{
    const char *text = json_string_value(json_object_get(model->host, member));
    return text ? text : "-";
}

static void host_average(const struct top_model *model, const char *member, char *text,
                         size_t bytes)
{
    const json_t *average = json_object_get(model->host, member);
    if (json_is_number(average))
        snprintf(text, bytes, "%.2f", json_number_value(average));
    else
        snprintf(text, bytes, "-");
}

static void draw_summary(const struct top_screen *screen)
{
    static const char *const states[] = {"high", "soft", "hard", "low"};
    static const char *const averages[] = {"overcommit_1m", "overcommit_5m", "overcommit_15m"};
    const struct top_model *model = screen->model;
    const char *state = host_text(model, "state");
    bool decided = json_is_string(json_object_get(model->host, "policy_active")); /* in any round */
    char average[3][16];
    for (size_t i = 0; i < 3; i++)
        host_average(model, averages[i], average[i], sizeof average[i]);
    put_line(0,
             "ballast top  state %-4s  policy %.20s  VMs %zu  MEM overcommit avg: %s, %s, %s"
             "  every %.1f s",
             state, host_text(model, decided ? "policy_active" : "policy"), model->count,
             average[0], average[1], average[2], (double)screen->interval_ms / 1000);
    for (short i = 0; i < 4; i++)
        if (strcmp(state, states[i]) == 0)
            mvchgat(0, 19, 4, A_BOLD, (short)(PAIR_HIGH + i), NULL);
    if (model->lost > 0)
        printw("  (%llu samples lost)", (unsigned long long)model->lost);
}

/* What state means: the thresholds in MiB. VMKMEM, since esxtop has minfree and state there. */
static void draw_thresholds(const struct top_model *model, int y)
{
    static const char *const names[] = {"high", "soft", "hard", "low"};
    char line[LINE_BYTES] = "VMKMEM ", path[32];
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "threshold_pages.%s", names[i]);
        const json_t *threshold = top_member(model->host, path);
        append(line, json_is_number(threshold), json_number_value(threshold) / 256,
               i ? names[i] : "minfree");
    }
    append_host(line, model, "reserved_pages", "reserved");
    append_host(line, model, "overhead_bytes", "ovhd");
    put_line(y, "%s, %s state", line, host_text(model, "state"));
}

/* Returns the line after the last. */
static int draw_host(const struct top_screen *screen)
{
    const struct top_model *model = screen->model;
    char line[LINE_BYTES] = "PMEM   ";
    int y = 1;
    append_host(line, model, "machine_pages", "total");
    append_host(line, model, "free_pages", "free");
    append_host(line, model, "granted_pages", "granted");
    append_host(line, model, "configured_pages", "configured");
    put_line(y++, "%s", line);
    draw_thresholds(model, y++);
    if (LINES < LOW_TERMINAL)
        return y;

    strcpy(line, "PSHARE ");
    append_sum(line, model, "SHRD", "shared"); /* as esxtop: shared - common = saving */
    append_host(line, model, "shared_pages", "common");
    append_host(line, model, "saved_pages", "saving");
    append_host(line, model, "zero_references", "zero");
    put_line(y++, "%s", line);

    strcpy(line, "SWAP   ");
    append_sum(line, model, "SWCUR", "curr");
    append_sum(line, model, "SWTGT", "target");
    append_host(line, model, "swap_reserved_bytes", "reserved");
    append_sum(line, model, "SWR/s", "r/s");
    append_sum(line, model, "SWW/s", "w/s");
    put_line(y++, "%s", line);

    strcpy(line, "ZIP    ");
    append_host(line, model, "zipped_pages", "zipped");
    append_host(line, model, "zip_saved_pages", "saved");
    put_line(y++, "%s", line);

    strcpy(line, "MEMCTL ");
    append_sum(line, model, "MCTLSZ", "curr");
    append_sum(line, model, "MCTLTGT", "target");
    append_sum(line, model, "MCTLMAX", "max");
    put_line(y++, "%s", line);
    return y;
}

/* ---- the VMs ---- */

static void draw_sparkline(int y, int x, const struct top_vm *vm)
{
    static const wchar_t blocks[] = L"\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588";
    static const char marks[] = "_.:-=+*#";
    x += TOP_HISTORY - (int)vm->samples;
    for (unsigned i = 0; i < vm->samples && x + (int)i < COLS; i++) {
        double held = vm->history[i];
        int level = held <= 0 ? 0 : held >= 1 ? 7 : (int)(held * 8);
        if (has_blocks)
            mvaddnwstr(y, x + (int)i, &blocks[level], 1);
        else
            mvaddch(y, x + (int)i, (chtype)marks[level]);
    }
}

static int width_of(const struct top_field *field, const struct top_vm **order, size_t seen)
{
    int width = (int)strlen(field->title);
    if (field->width)
        return field->width > width ? field->width : width;
    for (size_t i = 0; i < seen; i++) {
        int length = (int)strlen(top_vm_name(order[i]));
        width = length > width ? length : width;
    }
    return width < NAME_WIDTH_MOST ? width : NAME_WIDTH_MOST;
}

/* One column from line y on, at x; its titles too. */
static void draw_column(const struct top_screen *screen, size_t index, int y, int x, int width,
                        const struct top_vm **order, size_t seen)
{
    const struct top_field *field = &top_fields[index];
    bool left = field->unit == TOP_TEXT || field->unit == TOP_SPARKLINE;
    char text[TOP_TEXT_BYTES], cell[TOP_TEXT_BYTES + 8];
    snprintf(cell, sizeof cell, left ? "%-*s" : "%*s", width, field->title);
    attrset(index == screen->view.sort ? A_REVERSE | A_BOLD : A_REVERSE);
    mvaddnstr(y, x, cell, COLS - x < width ? COLS - x : width);
    attrset(A_NORMAL);
    for (size_t i = screen->first_vm; i < seen; i++) {
        int line = y + 1 + (int)(i - screen->first_vm);
        if (line >= LINES)
            return;
        if (field->unit == TOP_SPARKLINE) {
            draw_sparkline(line, x, order[i]);
            continue;
        }
        top_field_text(field, order[i], screen->model->seconds, text);
        snprintf(cell, sizeof cell, left ? "%-*.*s" : "%*.*s", width, width, text);
        if (json_is_true(json_object_get(order[i]->row, "blocked")))
            attrset(A_BOLD);
        mvaddnstr(line, x, cell, COLS - x);
        attrset(A_NORMAL);
    }
}

static void draw_vms(struct top_screen *screen, int y)
{
    const struct top_model *model = screen->model;
    const struct top_vm **order = calloc(model->count + 1, sizeof(struct top_vm *));
    if (!order)
        return;
    size_t seen = top_view_order(&screen->view, model, order);
    size_t room = LINES > y + 1 ? (size_t)(LINES - y - 1) : 0;
    if (screen->first_vm + room > seen)
        screen->first_vm = seen > room ? seen - room : 0;
    int x = 0;
    size_t passed = 0, columns = 0;
    for (size_t i = 0; i < top_field_count; i++)
        columns += screen->view.shown >> i & 1;
    if (screen->first_column + 1 > columns)
        screen->first_column = columns ? columns - 1 : 0;
    for (size_t i = 0; i < top_field_count && x < COLS; i++) {
        if (!(screen->view.shown >> i & 1))
            continue;
        /* The first, usually the name, stays when the others are moved away. */
        if (passed++ > 0 && passed - 1 <= screen->first_column)
            continue;
        int width = width_of(&top_fields[i], order, seen);
        draw_column(screen, i, y, x, width, order, seen);
        x += width + 1;
    }
    free(order);
}

/* ---- other pages ---- */

static void draw_fields(struct top_screen *screen)
{
    int room = LINES > 2 ? LINES - 2 : 1;
    size_t first = screen->field >= (size_t)room ? screen->field - (size_t)room + 1 : 0;
    put_line(0, "Fields: space shows or hides, s sorts by it, a: all, d: as at first, enter: done");
    for (size_t i = first; i < top_field_count && i - first < (size_t)room; i++) {
        if (i == screen->field)
            attrset(A_REVERSE);
        put_line(2 + (int)(i - first), "%c[%c] %-8s %s", i == screen->view.sort ? '>' : ' ',
                 screen->view.shown >> i & 1 ? 'x' : ' ', top_fields[i].title,
                 top_fields[i].meaning);
        attrset(A_NORMAL);
    }
}

static void draw_help(void)
{
    static const char *const lines[] = {
        "ballastctl top: memory in MiB, rates a second; '-' means nothing now.",
        "",
        "f          fields: which are shown, what they mean, and the order of the VMs",
        "/          only VMs whose name contains what you type; escape: all",
        "r          the order the other way round",
        "up, down, page up, page down, home, end   move in the list",
        "left, right                               move over the fields",
        "+, -       a longer, a shorter delay between samples",
        "h, ?       this page; any key leaves it",
        "q          end",
        "",
        "overcommit: memory of all VMs over the machine's, less 1; averages over 1, 5 and",
        "            15 minutes, as the daemon keeps them",
        "PMEM       machine memory",
        "VMKMEM     free memory below which the host is in state high, soft, hard, low;",
        "           reserved in admission; memory of VMs beside the guests' own",
        "PSHARE     pages that share, zeroes among them; frames they share; frames saved",
        "SWAP       paged out by the host, and how fast",
        "ZIP        compressed: - when the host has none",
        "MEMCTL     in balloons, asked for, the most that may be asked for",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        put_line((int)i, "%s", lines[i]);
}

void top_screen_draw(struct top_screen *screen)
{
    erase();
    if (screen->page == TOP_PAGE_FIELDS) {
        draw_fields(screen);
    } else if (screen->page == TOP_PAGE_HELP) {
        draw_help();
    } else {
        draw_summary(screen);
        int y = draw_host(screen);
        if (screen->notice[0]) {
            attrset(A_REVERSE);
            put_line(y, "%s", screen->notice);
            attrset(A_NORMAL);
        } else if (screen->typing_filter) {
            put_line(y, "Show VMs with: %s_", screen->view.filter);
        } else if (screen->view.filter[0]) {
            put_line(y, "VMs with '%s' only", screen->view.filter);
        }
        draw_vms(screen, y + 1);
    }
    refresh();
}

/* ---- keys ---- */

int top_screen_key(void)
{
    return getch();
}

static void take_filter_key(struct top_screen *screen, int key)
{
    char *filter = screen->view.filter;
    size_t length = strlen(filter);
    if (key == '\n' || key == '\r' || key == KEY_ENTER || key == KEY_ESCAPE)
        screen->typing_filter = false;
    if (key == KEY_ESCAPE)
        filter[0] = 0;
    if ((key == KEY_BACKSPACE || key == KEY_BACK || key == '\b') && length > 0)
        filter[length - 1] = 0;
    if (key > ' ' && key < KEY_BACK && length + 1 < TOP_FILTER_BYTES) {
        filter[length] = (char)key;
        filter[length + 1] = 0;
    }
}

static void take_fields_key(struct top_screen *screen, int key)
{
    struct top_view *view = &screen->view;
    switch (key) {
    case KEY_UP:
        screen->field -= screen->field > 0;
        break;
    case KEY_DOWN:
        screen->field += screen->field + 1 < top_field_count;
        break;
    case ' ':
        view->shown ^= UINT64_C(1) << screen->field;
        break;
    case 's':
        view->sort = screen->field;
        break;
    case 'a':
        view->shown = (UINT64_C(1) << top_field_count) - 1;
        break;
    case 'd': {
        struct top_view first;
        top_view_default(&first);
        view->shown = first.shown;
        break;
    }
    case '\n':
    case '\r':
    case 'q':
    case 'f':
    case KEY_ENTER:
    case KEY_ESCAPE:
        screen->page = TOP_PAGE_VMS;
        break;
    default:
        break;
    }
}

/* Twice or half the delay. */
static void change_delay(struct top_screen *screen, bool longer)
{
    uint64_t ms = longer ? screen->interval_ms * 2 : screen->interval_ms / 2;
    if (ms >= LEAST_DELAY_MS && ms <= MOST_DELAY_MS)
        screen->interval_ms = ms;
}

static void take_list_key(struct top_screen *screen, int key)
{
    size_t page = LINES > 10 ? (size_t)LINES - 9 : 1;
    switch (key) {
    case KEY_UP:
        screen->first_vm -= screen->first_vm > 0;
        break;
    case KEY_DOWN:
        screen->first_vm++; /* bounded when drawn */
        break;
    case KEY_PPAGE:
        screen->first_vm -= screen->first_vm < page ? screen->first_vm : page;
        break;
    case KEY_NPAGE:
        screen->first_vm += page;
        break;
    case KEY_HOME:
        screen->first_vm = 0;
        break;
    case KEY_END:
        screen->first_vm = screen->model->count;
        break;
    case KEY_LEFT:
        screen->first_column -= screen->first_column > 0;
        break;
    case KEY_RIGHT:
        screen->first_column++;
        break;
    case 'f':
        screen->page = TOP_PAGE_FIELDS;
        break;
    case 'h':
    case '?':
        screen->page = TOP_PAGE_HELP;
        break;
    case '/':
        screen->typing_filter = true;
        break;
    case KEY_ESCAPE:
        screen->view.filter[0] = 0;
        break;
    case 'r':
        screen->view.backwards = !screen->view.backwards;
        break;
    case '+':
    case '-':
        change_delay(screen, key == '+');
        break;
    default:
        break;
    }
}

bool top_screen_take_key(struct top_screen *screen, int key)
{
    if (key == KEY_RESIZE)
        return true; /* curses knows the new size; everything is drawn anew */
    if (screen->page == TOP_PAGE_HELP)
        screen->page = TOP_PAGE_VMS;
    else if (screen->page == TOP_PAGE_FIELDS)
        take_fields_key(screen, key);
    else if (screen->typing_filter)
        take_filter_key(screen, key);
    else if (key == 'q')
        return false;
    else
        take_list_key(screen, key);
    return true;
}
