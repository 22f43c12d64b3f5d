#include "ksm/scan/hash_list.h"
#include "ksm/scan/source.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RUN_PAGES  (UINT64_C(1) << 44) /* no list says more than this of one run */
#define MAX_LIST_PAGES (UINT64_C(1) << 52) /* as many as there are addresses */
#define LINE_BYTES     4352

static int bad(char *error, size_t error_bytes, const char *why)
{
    snprintf(error, error_bytes, "%s", why);
    return -1;
}

static int hex_digits(const char *text, int digits, uint64_t *value)
{
    *value = 0;
    for (int i = 0; i < digits; i++) {
        if (!isxdigit((unsigned char)text[i]))
            return -1;
        char digit = (char)tolower((unsigned char)text[i]);
        *value = *value << 4 | (uint64_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    return 0;
}

static int parse_run(const char *text, struct hash_list_run *run, char *error, size_t error_bytes)
{
    const char *rest;
    run->zero = text[0] == '0' && (text[1] == '\0' || text[1] == ' ');
    if (run->zero) {
        run->low = run->high = 0;
        rest = text + 1;
    } else {
        if (hex_digits(text, 16, &run->high) < 0 || hex_digits(text + 16, 16, &run->low) < 0)
            return bad(error, error_bytes, "expected 32 hexadecimal digits, 0, @ADDRESS or source");
        rest = text + 32;
    }
    run->pages = 1;
    if (*rest == '\0')
        return 0;
    char *end;
    if (rest[0] != ' ' || rest[1] != 'x' || !isdigit((unsigned char)rest[2]))
        return bad(error, error_bytes, "expected xCOUNT after the hash");
    errno = 0;
    run->pages = strtoull(rest + 2, &end, 10);
    if (*end || errno || run->pages == 0 || run->pages > MAX_RUN_PAGES)
        return bad(error, error_bytes, "impossible xCOUNT");
    return 0;
}

/* One line without its end, and without blanks there. 1; 0 at the end of the list; -1 with error.
 */
static int read_line(FILE *list, char line[LINE_BYTES], char *error, size_t error_bytes)
{
    size_t length = 0;
    int c;
    while ((c = getc_unlocked(list)) != EOF && c != '\n') {
        if (c == '\0')
            return bad(error, error_bytes, "a NUL byte");
        if (length == LINE_BYTES - 1)
            return bad(error, error_bytes, "line too long");
        line[length++] = (char)c;
    }
    if (c == EOF && ferror(list))
        return bad(error, error_bytes, strerror(errno));
    bool any = length > 0 || c == '\n';
    while (length && isspace((unsigned char)line[length - 1]))
        length--;
    line[length] = '\0';
    return any;
}

int hash_list_next(FILE *list, struct hash_list_run *run, unsigned long *line, char *error,
                   size_t error_bytes)
{
    char text[LINE_BYTES];
    int more;
    while ((more = read_line(list, text, error, error_bytes)) != 0) {
        ++*line;
        if (more < 0)
            return -1;
        if (text[0] == '\0' || text[0] == '#' || strncmp(text, "source ", 7) == 0)
            continue;
        if (text[0] == '@') {
            char *end;
            errno = 0;
            uint64_t address = strtoull(text + 1, &end, 16);
            if (!isxdigit((unsigned char)text[1]) || *end || errno || address % SCAN_PAGE_BYTES)
                return bad(error, error_bytes, "expected @ADDRESS, a multiple of 1000 (hex)");
            run->address = address;
            continue;
        }
        return parse_run(text, run, error, error_bytes) < 0 ? -1 : 1;
    }
    return 0;
}

int hash_list_begin(FILE *list, const char *source_name)
{
    char name[LINE_BYTES / 2];
    snprintf(name, sizeof name, "%s", source_name);
    source_clean_name(name);
    return fprintf(list, "%s\nsource %s\n", HASH_LIST_FIRST_LINE, name) < 0 ? -1 : 0;
}

static void write_line(FILE *list, const struct hash_list_run *run, uint64_t pages)
{
    if (run->zero)
        fputs("0", list);
    else
        fprintf(list, "%016" PRIx64 "%016" PRIx64, run->high, run->low);
    if (pages > 1)
        fprintf(list, " x%" PRIu64, pages);
    fputc('\n', list);
}

int hash_list_write(FILE *list, const struct hash_list_run *run, int with_address)
{
    uint64_t left = run->pages;
    if (with_address)
        fprintf(list, "@%" PRIx64 "\n", run->address);
    for (; left > MAX_RUN_PAGES; left -= MAX_RUN_PAGES)
        write_line(list, run, MAX_RUN_PAGES);
    write_line(list, run, left);
    return ferror(list) ? -1 : 0;
}

/* The first line is exactly ours, but for blanks at its end. */
static bool is_first_line(FILE *list)
{
    char text[LINE_BYTES], why[128];
    return read_line(list, text, why, sizeof why) > 0 && strcmp(text, HASH_LIST_FIRST_LINE) == 0;
}

static void take_name(struct page_source *source)
{
    char text[LINE_BYTES], why[128];
    if (read_line(source->hash_list, text, why, sizeof why) <= 0 ||
        strncmp(text, "source ", 7) != 0)
        return;
    char *name = strdup(text + 7);
    if (!name)
        return;
    source_clean_name(name);
    free(source->name);
    source->name = name;
}

/* Counts the pages of the list, so that the table can be sized, and checks it on the way. */
int source_open_hash_list(struct page_source *source, char *error, size_t error_bytes)
{
    char why[128];
    unsigned long line = 1;
    struct hash_list_run run = {0};
    int more = 0;

    source->hash_list = fdopen(source->fd, "r");
    if (!source->hash_list) {
        snprintf(error, error_bytes, "%s: %s", source->name, strerror(errno));
        return -1;
    }
    if (!is_first_line(source->hash_list)) {
        snprintf(error, error_bytes, "%s:1: not a list this program merges; it starts with '%s'",
                 source->name, HASH_LIST_FIRST_LINE);
        return -1;
    }
    source->list_body = ftell(source->hash_list);
    while (source->pages <= MAX_LIST_PAGES &&
           (more = hash_list_next(source->hash_list, &run, &line, why, sizeof why)) > 0) {
        source->pages += run.pages;
        source->counted_pages += run.zero ? 0 : run.pages;
        source->list_runs++;
    }
    if (source->pages > MAX_LIST_PAGES) {
        more = -1;
        snprintf(why, sizeof why, "more pages than there are addresses");
    }
    if (more < 0) {
        snprintf(error, error_bytes, "%s:%lu: %s", source->name, line, why);
        return -1;
    }
    /* Errors above name the file, whatever it says of itself. */
    if (fseek(source->hash_list, source->list_body, SEEK_SET) == 0)
        take_name(source);
    return 0;
}
