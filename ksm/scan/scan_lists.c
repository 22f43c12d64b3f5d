/* Hash lists of a scan: writing what was hashed, and counting what other hosts wrote. */
#include "ksm/scan/scan_private.h"

#include <stdlib.h>
#include <string.h>

#define LIST_NAME_BYTES 208u

/* ---- writing hash lists (one job only, so pages come in order) ---- */

static void list_flush(struct scan *s)
{
    if (s->list_run.pages && s->list) {
        bool gap = s->list_run.address != s->list_address;
        if (hash_list_write(s->list, &s->list_run, gap) < 0)
            s->list_failed = true;
        s->list_address = s->list_run.address + s->list_run.pages * SCAN_PAGE_BYTES;
    }
    s->list_run.pages = 0;
}

void scan_list_close(struct scan *s)
{
    list_flush(s);
    if (s->list && fclose(s->list) != 0)
        s->list_failed = true;
    s->list = NULL;
}

/* NAME.hashes, with what no file name may hold replaced. Long names keep their ends, which differ.
 */
static void list_file_name(const struct scan *s, uint32_t source, char name[LIST_NAME_BYTES])
{
    const char *whole = s->sources[source].name;
    size_t length = strlen(whole);
    snprintf(name, LIST_NAME_BYTES, "%s", whole + (length < 200 ? 0 : length - 200));
    for (char *c = name; *c; c++)
        if (*c == '/' || *c == ':')
            *c = '_';
}

/* Another source before it has the same one. */
static bool list_name_is_taken(const struct scan *s, uint32_t source, const char *name)
{
    char other[LIST_NAME_BYTES];
    for (uint32_t i = 0; i < source; i++) {
        list_file_name(s, i, other);
        if (!s->sources[i].hash_list && strcmp(name, other) == 0)
            return true;
    }
    return false;
}

static void list_open(struct scan *s, uint32_t source)
{
    char path[4096], name[LIST_NAME_BYTES];
    scan_list_close(s);
    list_file_name(s, source, name);
    if (list_name_is_taken(s, source, name))
        snprintf(path, sizeof path, "%s/%s-%u.hashes", s->options->hashes_dir, name, source + 1);
    else
        snprintf(path, sizeof path, "%s/%s.hashes", s->options->hashes_dir, name);
    s->list = fopen(path, "we");
    s->list_source = source;
    s->list_address = 0;
    if (!s->list || hash_list_begin(s->list, s->sources[source].name) < 0)
        s->list_failed = true;
}

void scan_list_pages(struct scan *s, uint32_t source, uint64_t address, uint64_t pages,
                     const struct hashed_page *page)
{
    if (source != s->list_source)
        list_open(s, source);
    struct hash_list_run *run = &s->list_run;
    bool continues = run->pages && run->address + run->pages * SCAN_PAGE_BYTES == address &&
                     run->low == page->low && run->high == page->high &&
                     run->zero == (int)page->zero;
    if (continues) {
        run->pages += pages;
        return;
    }
    list_flush(s);
    *run = (struct hash_list_run){address, page->low, page->high, pages, page->zero};
}

/* ---- reading ---- */

/* Pages in a row, gathered into groups as they come. */
struct gathering {
    uint64_t low[SCAN_GROUP_PAGES];
    uint32_t pages; /* from the group's first on */
    uint64_t expected_address;
};

static void gather_run(struct scan *s, struct gathering *gathering, const struct hash_list_run *run)
{
    uint64_t first = run->address / SCAN_PAGE_BYTES;
    if (run->address != gathering->expected_address)
        gathering->pages = 0;
    for (uint64_t i = 0; i < run->pages;) {
        uint32_t place = (uint32_t)((first + i) % SCAN_GROUP_PAGES);
        uint64_t left = run->pages - i;
        if (place == 0) {
            uint64_t groups = left / SCAN_GROUP_PAGES;
            gathering->pages = 0;
            scan_count_groups(s, groups ? scan_equal_group_key(s, run->low) : 0, groups);
            i += groups * SCAN_GROUP_PAGES;
            left -= groups * SCAN_GROUP_PAGES;
        }
        uint32_t take = left < SCAN_GROUP_PAGES - place ? (uint32_t)left : SCAN_GROUP_PAGES - place;
        if (gathering->pages == place) {
            for (uint32_t k = 0; k < take; k++)
                gathering->low[place + k] = run->low;
            gathering->pages += take;
        }
        if (gathering->pages == SCAN_GROUP_PAGES) {
            scan_count_groups(s, scan_group_key(s, gathering->low), 1);
            gathering->pages = 0;
        }
        i += take;
    }
    gathering->expected_address = run->address + run->pages * SCAN_PAGE_BYTES;
}

/* Hash lists were checked when they were opened; what is wrong now has changed since, and is left
 * out from there on. */
void scan_hash_list(struct scan *s, uint32_t source)
{
    struct page_source *from = &s->sources[source];
    struct scan_source_counts *counts = &s->result->sources[source];
    struct hash_list_run run = {0};
    struct gathering gathering = {.pages = 0};
    uint64_t counted_pages = 0;
    unsigned long line = 1;
    char why[128] = "", text[4608];
    int more = fseek(from->hash_list, from->list_body, SEEK_SET) == 0 ? 1 : -1;
    for (uint64_t runs = 0; more > 0; runs++) {
        more = hash_list_next(from->hash_list, &run, &line, why, sizeof why);
        if (more <= 0)
            break;
        counted_pages += run.zero ? 0 : run.pages;
        if (runs == from->list_runs || counted_pages > from->counted_pages ||
            counts->pages + run.pages > from->pages) {
            snprintf(why, sizeof why, "the list grew while it was read");
            more = -1;
            break;
        }
        counts->pages += run.pages;
        if (run.zero)
            counts->zero_pages += run.pages;
        else
            scan_count_pages(s, source, s->first_frame[source] + (uint32_t)runs,
                             scan_key(s, run.low, run.high), (uint32_t)run.pages, -1);
        gather_run(s, &gathering, &run);
        run.address += run.pages * SCAN_PAGE_BYTES;
        atomic_fetch_add_explicit(&s->done_pages, run.pages, memory_order_relaxed);
    }
    if (more < 0) {
        snprintf(text, sizeof text, "%s:%lu: %s", from->name, line, why);
        s->options->warn(text);
    }
    counts->unreadable_pages += from->pages - counts->pages;
}
