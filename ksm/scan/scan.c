#include "ksm/scan/scan_private.h"

#include <errno.h>
#include <lz4.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define READ_PAGES 64u /* pages a read: 256 KiB stay in the second-level cache for hashing */

/* Up to 512 pages that lie in one 2 MiB page of their address space; or a whole zero run. */
struct unit {
    uint32_t source;
    const struct extent *extent;
    uint64_t first; /* page of the extent */
    uint64_t pages;
    uint32_t frame; /* table index of the first page; unused for zero runs */
    uint64_t address;
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
            .pages = extent->zero || left < to_boundary ? left : to_boundary,
            .frame = s->at_frame,
            .address = address,
        };
        s->at_page += unit->pages;
        if (!extent->zero)
            s->at_frame += (uint32_t)unit->pages;
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

uint64_t scan_key(const struct scan *s, uint64_t low, uint64_t high)
{
    const uint64_t hash[] = {low, high};
    return XXH3_64bits_withSeed(hash, sizeof hash, s->secret);
}

/* A group of 512 pages, by the low words of their hashes. */
uint64_t scan_group_key(const struct scan *s, const uint64_t *low)
{
    return XXH3_64bits_withSeed(low, SCAN_GROUP_PAGES * sizeof *low, s->secret);
}

static void hash_page(const struct scan *s, const uint8_t *page, struct hashed_page *to)
{
    to->compressed_bytes = -1;
    to->zero = is_zero(page);
    if (to->zero) {
        to->low = to->high = to->key = 0;
        return;
    }
    XXH128_hash_t hash = XXH3_128bits_withSeed(page, SCAN_PAGE_BYTES, HASH_LIST_SEED);
    to->low = hash.low64;
    to->high = hash.high64;
    to->key = scan_key(s, to->low, to->high);
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

/* Table lock held. So many pages of source of one content; frame is their entry if they need one.
 */
void scan_count_pages(struct scan *s, uint32_t source, uint32_t frame, uint64_t key,
                      uint32_t copies, int32_t compressed_bytes)
{
    struct scan_source_counts *counts = &s->result->sources[source];
    bool known = false;
    for (uint32_t at = SHARE_NONE; (at = share_find(s->pages, key, at)) != SHARE_NONE;) {
        known = true;
        if (source_of(s, at) == source) {
            share_ref_many(s->pages, at, copies);
            counts->self_saved_pages += copies;
            return;
        }
    }
    share_make_shared(s->pages, frame, key);
    share_ref_many(s->pages, frame, copies - 1);
    counts->distinct_pages++;
    counts->self_saved_pages += copies - 1;
    if (!known) {
        s->result->distinct_pages++;
        if (compressed_bytes >= 0) {
            s->result->compress_sample_pages++;
            s->result->compress_sample_bytes += (uint64_t)compressed_bytes;
        }
    }
}

/* So many equal groups; zero is one of zeroes. */
void scan_count_groups(struct scan *s, uint64_t key, uint64_t groups)
{
    if (groups == 0)
        return;
    s->result->large_groups += groups;
    s->result->large_saved_groups += groups - 1;
    if (share_find(s->groups, key, SHARE_NONE) != SHARE_NONE)
        s->result->large_saved_groups++;
    else
        share_make_shared(s->groups, s->next_group++, key);
}

/* Whole groups in a run of pages from address on. */
static uint64_t groups_in(uint64_t address, uint64_t pages)
{
    uint64_t past_boundary = address / SCAN_PAGE_BYTES % SCAN_GROUP_PAGES;
    uint64_t before = past_boundary ? SCAN_GROUP_PAGES - past_boundary : 0;
    return pages > before ? (pages - before) / SCAN_GROUP_PAGES : 0;
}

/* A run of equal pages. */
uint64_t scan_equal_group_key(const struct scan *s, uint64_t page_low)
{
    uint64_t low[SCAN_GROUP_PAGES];
    for (unsigned i = 0; i < SCAN_GROUP_PAGES; i++)
        low[i] = page_low;
    return scan_group_key(s, low);
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
    uint64_t group = whole ? scan_group_key(s, low) : 0;

    pthread_mutex_lock(&s->table_lock);
    struct scan_source_counts *counts = &s->result->sources[unit->source];
    const uint32_t ahead = 8; /* pages whose table lines are fetched while this one is counted */
    for (uint32_t i = 0; i < unit->pages; i++) {
        if (i + ahead < unit->pages)
            share_prefetch(s->pages, hashed[i + ahead].key);
        if (!hashed[i].readable) {
            counts->unreadable_pages++;
            continue;
        }
        counts->pages++;
        if (hashed[i].zero)
            counts->zero_pages++;
        else
            scan_count_pages(s, unit->source, unit->frame + i, hashed[i].key, 1,
                             hashed[i].compressed_bytes);
        if (s->options->hashes_dir)
            scan_list_pages(s, unit->source, unit->address + (uint64_t)i * SCAN_PAGE_BYTES, 1,
                            &hashed[i]);
    }
    if (whole)
        scan_count_groups(s, group, 1);
    pthread_mutex_unlock(&s->table_lock);
}

static void count_zero_run(struct scan *s, const struct unit *unit)
{
    static const struct hashed_page zero = {.zero = true, .readable = true};
    uint64_t group = scan_equal_group_key(s, 0);
    pthread_mutex_lock(&s->table_lock);
    s->result->sources[unit->source].pages += unit->pages;
    s->result->sources[unit->source].zero_pages += unit->pages;
    if (s->options->hashes_dir)
        scan_list_pages(s, unit->source, unit->address, unit->pages, &zero);
    scan_count_groups(s, group, groups_in(unit->address, unit->pages));
    pthread_mutex_unlock(&s->table_lock);
}

static void scan_unit(struct scan *s, const struct unit *unit, uint8_t *buffer)
{
    struct hashed_page hashed[SCAN_GROUP_PAGES];
    uint32_t unit_pages = (uint32_t)unit->pages;
    for (uint32_t at = 0; at < unit_pages; at += READ_PAGES) {
        uint32_t pages = unit_pages - at < READ_PAGES ? unit_pages - at : READ_PAGES;
        uint32_t read =
            source_read(&s->sources[unit->source], unit->extent, unit->first + at, pages, buffer);
        for (uint32_t i = 0; i < pages; i++) {
            hashed[at + i].readable = i < read;
            hash_page(s, buffer + (size_t)i * SCAN_PAGE_BYTES, &hashed[at + i]);
        }
    }
    count_unit(s, unit, hashed);
}

static void *scan_thread(void *argument)
{
    struct scan *s = argument;
    uint8_t *buffer = aligned_alloc(SCAN_PAGE_BYTES, READ_PAGES * SCAN_PAGE_BYTES);
    struct unit unit;
    if (!buffer)
        return argument;
    while (next_unit(s, &unit)) {
        if (unit.extent->zero)
            count_zero_run(s, &unit);
        else
            scan_unit(s, &unit, buffer);
        atomic_fetch_add_explicit(&s->done_pages, unit.pages, memory_order_relaxed);
    }
    free(buffer);
    return NULL;
}

/* ---- what the table says in the end ---- */

static void gather_content(struct scan *s, uint32_t frame, uint32_t *owners)
{
    struct scan_result *r = s->result;
    uint64_t key = share_shared_hash(s->pages, frame);
    uint32_t count = 0;
    uint64_t copies = 0;
    for (uint32_t at = SHARE_NONE; (at = share_find(s->pages, key, at)) != SHARE_NONE;) {
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
    uint64_t frame = 0, group = 0, counted = 0;
    *all_pages = 0;
    for (uint32_t i = 0; i < s->source_count; i++) {
        const struct page_source *source = &s->sources[i];
        s->first_frame[i] = (uint32_t)frame;
        *all_pages += source->pages;
        counted += source->counted_pages;
        if (counted >= SCAN_MAX_PAGES || source->list_runs >= SCAN_MAX_PAGES)
            return -1;
        /* A run of a list needs one entry, and is part of two different groups at most. */
        frame += source->hash_list ? source->list_runs : source->counted_pages;
        group += source->hash_list && source->list_runs < source->pages / (2 * SCAN_GROUP_PAGES)
                     ? 2 * source->list_runs + 1
                     : source->pages / SCAN_GROUP_PAGES + 1;
        if (!source->hash_list)
            group -= (source->pages - source->counted_pages) / SCAN_GROUP_PAGES;
        group++; /* of zeroes */
        if (frame >= SCAN_MAX_PAGES || group >= SCAN_MAX_PAGES)
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
    unsigned failures = 0;
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
        failures += failed != NULL;
    }
    if (failures == started) { /* else the others have done its work */
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
    if (getrandom(&s.secret, sizeof s.secret, 0) != sizeof s.secret)
        s.secret = (uint64_t)time(NULL) ^ (uint64_t)(uintptr_t)&s; /* better than none */
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
    scan_list_close(&s);
    if (s.list_failed) {
        snprintf(error, error_bytes, "%s: cannot write hash lists: %s", options->hashes_dir,
                 strerror(errno));
        failed = -1;
    }
    for (uint32_t i = 0; failed == 0 && i < source_count; i++)
        if (sources[i].hash_list)
            scan_hash_list(&s, i);
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
