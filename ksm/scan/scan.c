#include "ksm/scan/scan.h"
#include "ksm/scan/hash_list.h"
#include "ksm/share_table.h"

#include <errno.h>
#include <lz4.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define READ_PAGES 64u /* pages a read: 256 KiB stay in the second-level cache for hashing */

/* Up to 512 pages that lie in one 2 MiB page of their address space. */
struct unit {
    uint32_t source;
    const struct extent *extent;
    uint64_t first; /* page of the extent */
    uint32_t pages;
    uint32_t frame; /* table index of the first page; unused for zero runs */
    uint64_t address;
};

struct hashed_page {
    uint64_t low, high;
    int32_t compressed_bytes; /* -1: not in the sample */
    bool zero, readable;
};

struct scan {
    struct page_source *sources;
    uint32_t source_count;
    const struct scan_options *options;
    struct scan_result *result;
    struct share_table *pages, *groups;
    uint32_t *first_frame; /* of every source; [source_count] is the end */
    uint32_t next_group;
    pthread_mutex_t table_lock;

    pthread_mutex_t unit_lock; /* the cursor: */
    uint32_t at_source, at_extent, at_frame;
    uint64_t at_page;

    _Atomic uint64_t done_pages;
    FILE *list; /* hash list being written */
    uint32_t list_source;
    struct hash_list_run list_run;
    uint64_t list_address; /* where the next page is expected */
    bool list_failed;
};

static bool next_unit(struct scan *s, struct unit *unit)
{
    pthread_mutex_lock(&s->unit_lock);
    bool found = false;
    while (s->at_source < s->source_count && !found) {
        const struct page_source *source = &s->sources[s->at_source];
        if (s->at_extent == source->extent_count) {
            s->at_frame = s->first_frame[++s->at_source];
            s->at_extent = 0;
            continue;
        }
        const struct extent *extent = &source->extents[s->at_extent];
        if (s->at_page == extent->pages) {
            s->at_extent++;
            s->at_page = 0;
            continue;
        }
        uint64_t address = extent->address + s->at_page * SCAN_PAGE_BYTES;
        uint64_t to_boundary = SCAN_GROUP_PAGES - address / SCAN_PAGE_BYTES % SCAN_GROUP_PAGES;
        uint64_t left = extent->pages - s->at_page;
        *unit = (struct unit){
            .source = s->at_source,
            .extent = extent,
            .first = s->at_page,
            .pages = (uint32_t)(left < to_boundary ? left : to_boundary),
            .frame = s->at_frame,
            .address = address,
        };
        s->at_page += unit->pages;
        if (!extent->zero)
            s->at_frame += unit->pages;
        found = true;
    }
    pthread_mutex_unlock(&s->unit_lock);
    return found;
}

/* The first word decides for nearly every page; memcmp with itself shifted does the rest. */
static bool is_zero(const uint8_t *page)
{
    uint64_t first;
    memcpy(&first, page, sizeof first);
    return first == 0 && memcmp(page, page + sizeof first, SCAN_PAGE_BYTES - sizeof first) == 0;
}

static void hash_page(const struct scan *s, const uint8_t *page, struct hashed_page *to)
{
    to->compressed_bytes = -1;
    to->zero = is_zero(page);
    if (to->zero) {
        to->low = to->high = 0;
        return;
    }
    XXH128_hash_t hash = XXH3_128bits_withSeed(page, SCAN_PAGE_BYTES, HASH_LIST_SEED);
    to->low = hash.low64;
    to->high = hash.high64;
    unsigned every = s->options->compress_every;
    if (every && hash.high64 % every == 0) {
        char out[LZ4_COMPRESSBOUND(SCAN_PAGE_BYTES)];
        int bytes = LZ4_compress_default((const char *)page, out, SCAN_PAGE_BYTES, sizeof out);
        to->compressed_bytes = bytes < (int)SCAN_PAGE_BYTES ? bytes : (int)SCAN_PAGE_BYTES;
    }
}

static uint32_t source_of(const struct scan *s, uint32_t frame)
{
    uint32_t low = 0, high = s->source_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (s->first_frame[middle] <= frame)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Table lock held. One page of source, content low; frame is its own entry if it needs one. */
static void count_page(struct scan *s, uint32_t source, uint32_t frame, uint64_t low,
                       int32_t compressed_bytes)
{
    struct scan_source_counts *counts = &s->result->sources[source];
    bool known = false;
    for (uint32_t at = SHARE_NONE; (at = share_find(s->pages, low, at)) != SHARE_NONE;) {
        known = true;
        if (source_of(s, at) == source) {
            share_ref(s->pages, at);
            counts->self_saved_pages++;
            return;
        }
    }
    share_make_shared(s->pages, frame, low);
    counts->distinct_pages++;
    if (!known) {
        s->result->distinct_pages++;
        if (compressed_bytes >= 0) {
            s->result->compress_sample_pages++;
            s->result->compress_sample_bytes += (uint64_t)compressed_bytes;
        }
    }
}

static void count_group(struct scan *s, uint64_t hash)
{
    s->result->large_groups++;
    if (share_find(s->groups, hash, SHARE_NONE) != SHARE_NONE)
        s->result->large_saved_groups++;
    else
        share_make_shared(s->groups, s->next_group++, hash);
}

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

static void list_close(struct scan *s)
{
    list_flush(s);
    if (s->list && fclose(s->list) != 0)
        s->list_failed = true;
    s->list = NULL;
}

static void list_open(struct scan *s, uint32_t source)
{
    char path[4096], name[256];
    list_close(s);
    snprintf(name, sizeof name, "%s", s->sources[source].name);
    for (char *c = name; *c; c++)
        if (*c == '/' || *c == ':')
            *c = '_';
    snprintf(path, sizeof path, "%s/%s.hashes", s->options->hashes_dir, name);
    s->list = fopen(path, "we");
    s->list_source = source;
    s->list_address = 0;
    if (!s->list || hash_list_begin(s->list, s->sources[source].name) < 0)
        s->list_failed = true;
}

static void list_page(struct scan *s, uint32_t source, uint64_t address,
                      const struct hashed_page *page)
{
    if (source != s->list_source)
        list_open(s, source);
    struct hash_list_run *run = &s->list_run;
    bool continues = run->pages && run->address + run->pages * SCAN_PAGE_BYTES == address &&
                     run->low == page->low && run->high == page->high &&
                     run->zero == (int)page->zero;
    if (continues) {
        run->pages++;
        return;
    }
    list_flush(s);
    *run = (struct hash_list_run){address, page->low, page->high, 1, page->zero};
}

/* ---- one unit ---- */

static void count_unit(struct scan *s, const struct unit *unit, const struct hashed_page *hashed)
{
    uint64_t low[SCAN_GROUP_PAGES];
    bool whole = unit->pages == SCAN_GROUP_PAGES;
    for (uint32_t i = 0; i < unit->pages; i++) {
        low[i] = hashed[i].low;
        whole = whole && hashed[i].readable;
    }
    uint64_t group_hash = whole ? XXH3_64bits(low, sizeof low) : 0;

    pthread_mutex_lock(&s->table_lock);
    struct scan_source_counts *counts = &s->result->sources[unit->source];
    const uint32_t ahead = 8; /* pages whose table lines are fetched while this one is counted */
    for (uint32_t i = 0; i < unit->pages; i++) {
        if (i + ahead < unit->pages)
            share_prefetch(s->pages, hashed[i + ahead].low);
        if (!hashed[i].readable) {
            counts->unreadable_pages++;
            continue;
        }
        counts->pages++;
        if (hashed[i].zero)
            counts->zero_pages++;
        else
            count_page(s, unit->source, unit->frame + i, hashed[i].low, hashed[i].compressed_bytes);
        if (s->options->hashes_dir)
            list_page(s, unit->source, unit->address + (uint64_t)i * SCAN_PAGE_BYTES, &hashed[i]);
    }
    if (whole)
        count_group(s, group_hash);
    pthread_mutex_unlock(&s->table_lock);
}

static void scan_unit(struct scan *s, const struct unit *unit, uint8_t *buffer)
{
    struct hashed_page hashed[SCAN_GROUP_PAGES];
    for (uint32_t at = 0; at < unit->pages; at += READ_PAGES) {
        uint32_t pages = unit->pages - at < READ_PAGES ? unit->pages - at : READ_PAGES;
        if (unit->extent->zero) {
            for (uint32_t i = 0; i < pages; i++)
                hashed[at + i] = (struct hashed_page){0, 0, -1, true, true};
            continue;
        }
        uint32_t read =
            source_read(&s->sources[unit->source], unit->extent, unit->first + at, pages, buffer);
        for (uint32_t i = 0; i < pages; i++) {
            hashed[at + i].readable = i < read;
            hash_page(s, buffer + (size_t)i * SCAN_PAGE_BYTES, &hashed[at + i]);
        }
    }
    count_unit(s, unit, hashed);
    atomic_fetch_add_explicit(&s->done_pages, unit->pages, memory_order_relaxed);
}

static void *scan_thread(void *argument)
{
    struct scan *s = argument;
    uint8_t *buffer = aligned_alloc(SCAN_PAGE_BYTES, READ_PAGES * SCAN_PAGE_BYTES);
    struct unit unit;
    if (!buffer)
        return argument;
    while (next_unit(s, &unit))
        scan_unit(s, &unit, buffer);
    free(buffer);
    return NULL;
}

/* Hash lists were checked when they were opened; an error now means the file changed. */
static int scan_hash_list(struct scan *s, uint32_t source, char *error, size_t error_bytes)
{
    struct hash_list_run run = {0};
    struct scan_source_counts *counts = &s->result->sources[source];
    uint64_t group[SCAN_GROUP_PAGES];
    uint32_t group_pages = 0, frame = s->first_frame[source];
    uint64_t expected = 0;
    unsigned long line = 1;
    char why[128];
    int more;
    while ((more = hash_list_next(s->sources[source].hash_list, &run, &line, why, sizeof why)) >
           0) {
        if (run.address != expected)
            group_pages = 0;
        for (uint64_t i = 0; i < run.pages; i++, frame++) {
            if (frame >= s->first_frame[source + 1]) {
                more = -1;
                snprintf(why, sizeof why, "the list grew while it was read");
                break;
            }
            counts->pages++;
            if (run.zero)
                counts->zero_pages++;
            else
                count_page(s, source, frame, run.low, -1);
            uint64_t page = run.address / SCAN_PAGE_BYTES + i;
            if (page % SCAN_GROUP_PAGES == 0)
                group_pages = 0;
            if (group_pages == page % SCAN_GROUP_PAGES)
                group[group_pages++] = run.low;
            if (group_pages == SCAN_GROUP_PAGES) {
                count_group(s, XXH3_64bits(group, sizeof group));
                group_pages = 0;
            }
        }
        if (more < 0)
            break;
        run.address += run.pages * SCAN_PAGE_BYTES;
        expected = run.address;
        atomic_fetch_add_explicit(&s->done_pages, run.pages, memory_order_relaxed);
    }
    if (more < 0)
        snprintf(error, error_bytes, "%s:%lu: %s", s->sources[source].name, line, why);
    return more;
}

/* ---- what the table says in the end ---- */

static void gather_content(struct scan *s, uint32_t frame, uint32_t *owners)
{
    struct scan_result *r = s->result;
    uint64_t low = share_shared_hash(s->pages, frame);
    uint32_t count = 0;
    uint64_t copies = 0;
    for (uint32_t at = SHARE_NONE; (at = share_find(s->pages, low, at)) != SHARE_NONE;) {
        if (count == 0 && at != frame)
            return; /* counted when its chain's first entry came by */
        uint32_t refs = share_refs(s->pages, at);
        owners[count++] = at;
        copies += refs;
        if (refs > 1)
            r->sources[source_of(s, at)].self_shared_pages += refs;
    }
    if (copies > 1)
        r->shared_pages += copies;
    for (uint32_t i = 0; count > 1 && i < count; i++) {
        uint32_t a = source_of(s, owners[i]);
        r->sources[a].cross_shared_pages += share_refs(s->pages, owners[i]);
        r->sources[a].cross_distinct_pages++;
        for (uint32_t j = 0; j < count; j++)
            if (j != i)
                r->pair_pages[(size_t)a * r->source_count + source_of(s, owners[j])]++;
    }
}

static void gather(struct scan *s)
{
    struct scan_result *r = s->result;
    uint32_t owners[SCAN_MAX_SOURCES];
    uint64_t distinct_by_source = 0;
    for (uint32_t frame = 0; frame < s->first_frame[s->source_count]; frame++)
        if (share_kind(s->pages, frame) == SHARE_SHARED)
            gather_content(s, frame, owners);
    for (uint32_t i = 0; i < r->source_count; i++) {
        r->pages += r->sources[i].pages;
        r->zero_pages += r->sources[i].zero_pages;
        r->self_saved_pages += r->sources[i].self_saved_pages;
        distinct_by_source += r->sources[i].distinct_pages;
    }
    r->cross_saved_pages = distinct_by_source - r->distinct_pages;
    if (r->zero_pages > 1)
        r->shared_pages += r->zero_pages;
    struct share_counts pages, groups;
    share_read_counts(s->pages, &pages);
    share_read_counts(s->groups, &groups);
    r->table_bytes = pages.table_bytes + groups.table_bytes;
}

static double seconds_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Table indexes for every page that may need one; -1 when there are too many. */
static int lay_out(struct scan *s, uint64_t *all_pages, uint32_t *groups)
{
    uint64_t frame = 0, group = 0;
    *all_pages = 0;
    for (uint32_t i = 0; i < s->source_count; i++) {
        const struct page_source *source = &s->sources[i];
        s->first_frame[i] = (uint32_t)frame;
        *all_pages += source->pages;
        group += source->pages / SCAN_GROUP_PAGES + 1;
        if (source->hash_list)
            frame += source->pages;
        for (uint32_t e = 0; e < source->extent_count; e++)
            if (!source->extents[e].zero)
                frame += source->extents[e].pages;
        if (frame >= SHARE_NONE - 1 || group >= SHARE_NONE - 1)
            return -1;
    }
    s->first_frame[s->source_count] = (uint32_t)frame;
    *groups = (uint32_t)group;
    return 0;
}

static int run_threads(struct scan *s, uint64_t all_pages, char *error, size_t error_bytes)
{
    unsigned jobs = s->options->hashes_dir ? 1 : s->options->jobs;
    pthread_t threads[64];
    if (jobs > 64)
        jobs = 64;
    unsigned started = 0;
    for (; started < jobs; started++)
        if (pthread_create(&threads[started], NULL, scan_thread, s) != 0)
            break;
    if (started == 0) {
        snprintf(error, error_bytes, "cannot start a thread");
        return -1;
    }
    bool out_of_memory = false;
    for (unsigned i = 0; i < started; i++) {
        void *failed;
        for (;;) {
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_nsec += 100000000;
            if (until.tv_nsec >= 1000000000) {
                until.tv_sec++;
                until.tv_nsec -= 1000000000;
            }
            if (pthread_timedjoin_np(threads[i], &failed, &until) == 0)
                break;
            if (s->options->progress)
                s->options->progress(atomic_load_explicit(&s->done_pages, memory_order_relaxed),
                                     all_pages);
        }
        out_of_memory |= failed != NULL;
    }
    if (out_of_memory && started == 1) {
        snprintf(error, error_bytes, "out of memory");
        return -1;
    }
    return 0;
}

int scan_run(struct page_source *sources, uint32_t source_count, const struct scan_options *options,
             struct scan_result *result, char *error, size_t error_bytes)
{
    struct scan s = {.sources = sources,
                     .source_count = source_count,
                     .options = options,
                     .result = result,
                     .list_source = UINT32_MAX,
                     .table_lock = PTHREAD_MUTEX_INITIALIZER,
                     .unit_lock = PTHREAD_MUTEX_INITIALIZER};
    uint64_t all_pages;
    uint32_t groups;
    int failed = -1;
    double wall = seconds_of(CLOCK_MONOTONIC), cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);

    memset(result, 0, sizeof *result);
    result->source_count = source_count;
    result->sources = calloc(source_count, sizeof *result->sources);
    result->pair_pages = calloc((size_t)source_count * source_count, sizeof *result->pair_pages);
    s.first_frame = calloc((size_t)source_count + 1, sizeof *s.first_frame);
    if (!result->sources || !result->pair_pages || !s.first_frame) {
        snprintf(error, error_bytes, "out of memory");
        goto done;
    }
    if (lay_out(&s, &all_pages, &groups) < 0) {
        snprintf(error, error_bytes, "more than 16 TiB of pages in one scan");
        goto done;
    }
    s.pages = share_table_new(s.first_frame[source_count]);
    s.groups = share_table_new(groups);
    if (!s.pages || !s.groups) {
        snprintf(error, error_bytes, "out of memory for a table over %u pages",
                 s.first_frame[source_count]);
        goto done;
    }
    failed = run_threads(&s, all_pages, error, error_bytes);
    list_close(&s);
    if (s.list_failed) {
        snprintf(error, error_bytes, "%s: cannot write hash lists: %s", options->hashes_dir,
                 strerror(errno));
        failed = -1;
    }
    for (uint32_t i = 0; failed == 0 && i < source_count; i++)
        if (sources[i].hash_list)
            failed = scan_hash_list(&s, i, error, error_bytes);
    if (failed == 0)
        gather(&s);
    result->seconds = seconds_of(CLOCK_MONOTONIC) - wall;
    result->cpu_seconds = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;

done:
    share_table_free(s.pages);
    share_table_free(s.groups);
    free(s.first_frame);
    if (failed)
        scan_result_free(result);
    return failed;
}

void scan_result_free(struct scan_result *result)
{
    free(result->sources);
    free(result->pair_pages);
    memset(result, 0, sizeof *result);
}
