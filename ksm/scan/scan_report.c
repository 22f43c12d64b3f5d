/* A scan's result as a table for people, JSON for programs and a plot. */
#include "ksm/scan/scan.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MATRIX_COLUMNS 12u /* wider does not fit a terminal; JSON has them all */

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? 100.0 * (double)part / (double)whole : 0;
}

static double mib(uint64_t pages)
{
    return (double)pages * SCAN_PAGE_BYTES / (1 << 20);
}

/* What 4 KiB sharing gives back and 2 MiB sharing could not. */
static uint64_t lost_to_large_pages(const struct scan_result *r)
{
    uint64_t small = scan_reclaimable_pages(r);
    uint64_t large = r->large_saved_groups * SCAN_GROUP_PAGES;
    return small > large ? small - large : 0;
}

static double compressed_share(const struct scan_result *r)
{
    return r->compress_sample_pages ? (double)r->compress_sample_bytes /
                                          ((double)r->compress_sample_pages * SCAN_PAGE_BYTES)
                                    : 1;
}

static void table_line(FILE *to, const char *what, uint64_t pages, const struct scan_result *r)
{
    fprintf(to, "  %-42s %12.1f MiB %6.1f %%\n", what, mib(pages), percent(pages, r->pages));
}

void scan_report_table(FILE *to, const struct page_source *sources, const struct scan_result *r)
{
    fprintf(to, "%-28s %10s %7s %7s %7s %7s\n", "SOURCE", "MiB", "ZERO%", "SELF%", "CROSS%",
            "UNREAD");
    for (uint32_t i = 0; i < r->source_count; i++) {
        const struct scan_source_counts *c = &r->sources[i];
        const char *name = sources[i].name;
        size_t length = strlen(name);
        fprintf(to, "%s%-*s %10.1f %7.1f %7.1f %7.1f %7llu\n", length > 28 ? "…" : "",
                length > 28 ? 27 : 28, length > 28 ? name + length - 27 : name, mib(c->pages),
                percent(c->zero_pages, c->pages), percent(c->self_saved_pages, c->pages),
                percent(c->cross_distinct_pages, c->pages),
                (unsigned long long)c->unreadable_pages);
    }
    fprintf(to, "\nZERO: pages of zeroes. SELF: further copies inside the source. CROSS: contents "
                "another source has too.\n\n");
    fprintf(to, "All sources:\n");
    table_line(to, "scanned", r->pages, r);
    table_line(to, "shared (content exists more than once)", r->shared_pages, r);
    table_line(to, "reclaimable by sharing", scan_reclaimable_pages(r), r);
    table_line(to, "  of it pages of zeroes", r->zero_pages, r);
    table_line(to, "  of it copies inside one source", r->self_saved_pages, r);
    table_line(to, "  of it between sources", r->cross_saved_pages, r);
    table_line(to, "reclaimable with 2 MiB pages only", r->large_saved_groups * SCAN_GROUP_PAGES,
               r);
    table_line(to, "2 MiB pages would keep from sharing", lost_to_large_pages(r), r);
    if (r->compress_sample_pages)
        fprintf(to,
                "  what is left compresses (lz4) to %.1f %% of its size: %.1f MiB (from %llu "
                "sampled pages)\n",
                100 * compressed_share(r), mib(r->distinct_pages) * compressed_share(r),
                (unsigned long long)r->compress_sample_pages);
    if (r->source_count > 1 && r->source_count <= MATRIX_COLUMNS) {
        fprintf(to, "\nMiB of different content found in both:\n%4s", "");
        for (uint32_t j = 0; j < r->source_count; j++)
            fprintf(to, " %8u", j + 1);
        for (uint32_t i = 0; i < r->source_count; i++) {
            fprintf(to, "\n%4u", i + 1);
            for (uint32_t j = 0; j < r->source_count; j++) {
                if (i == j)
                    fprintf(to, " %8s", "-");
                else
                    fprintf(to, " %8.1f", mib(r->pair_pages[(size_t)i * r->source_count + j]));
            }
        }
        fputc('\n', to);
    } else if (r->source_count > MATRIX_COLUMNS) {
        fprintf(to, "\n%u sources: the matrix of pairs is in --json and --plot.\n",
                r->source_count);
    }
    fprintf(
        to, "\n%.1f s, %.0f MiB/s, %.1f s of CPU; tables %.1f MiB (%.2f %% of what was scanned)\n",
        r->seconds, mib(r->pages) / (r->seconds > 0 ? r->seconds : 1e-9), r->cpu_seconds,
        (double)r->table_bytes / (1 << 20), percent(r->table_bytes, r->pages * SCAN_PAGE_BYTES));
}

static json_t *count(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *source_json(const struct page_source *source, const struct scan_source_counts *c)
{
    /* A name is whatever the file system says; JSON wants UTF-8. */
    json_t *name = json_string(source->name);
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name",
        name ? name : json_string("(name is not UTF-8)"), "pages", count(c->pages),
        "unreadable_pages", count(c->unreadable_pages), "zero_pages", count(c->zero_pages),
        "distinct_pages", count(c->distinct_pages), "self_saved_pages", count(c->self_saved_pages),
        "self_shared_pages", count(c->self_shared_pages), "cross_shared_pages",
        count(c->cross_shared_pages), "cross_distinct_pages", count(c->cross_distinct_pages));
}

int scan_report_json(FILE *to, const struct page_source *sources, const struct scan_result *r)
{
    json_t *list = json_array(), *pairs = json_array();
    for (uint32_t i = 0; i < r->source_count; i++) {
        json_array_append_new(list, source_json(&sources[i], &r->sources[i]));
        for (uint32_t j = i + 1; j < r->source_count; j++) {
            uint64_t pages = r->pair_pages[(size_t)i * r->source_count + j];
            if (pages)
                json_array_append_new(pairs, json_pack("{s:i, s:i, s:o}", "a", (int)i, "b", (int)j,
                                                       "distinct_pages", count(pages)));
        }
    }
    json_t *all = json_pack(
        "{s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "page_bytes", (int)SCAN_PAGE_BYTES,
        "pages", count(r->pages), "zero_pages", count(r->zero_pages), "distinct_pages",
        count(r->distinct_pages), "shared_pages", count(r->shared_pages), "reclaimable_pages",
        count(scan_reclaimable_pages(r)), "self_saved_pages", count(r->self_saved_pages),
        "cross_saved_pages", count(r->cross_saved_pages), "reclaimable_pages_2mib",
        count(r->large_saved_groups * SCAN_GROUP_PAGES));
    json_object_set_new(all, "lost_to_2mib_pages", count(lost_to_large_pages(r)));
    if (r->compress_sample_pages)
        json_object_set_new(all, "lz4",
                            json_pack("{s:o, s:o, s:f}", "sample_pages",
                                      count(r->compress_sample_pages), "sample_compressed_bytes",
                                      count(r->compress_sample_bytes), "ratio",
                                      compressed_share(r)));
    json_object_set_new(all, "table_bytes", count(r->table_bytes));
    json_object_set_new(all, "seconds", json_real(r->seconds));
    json_object_set_new(all, "cpu_seconds", json_real(r->cpu_seconds));
    json_t *root = json_pack("{s:o, s:o, s:o}", "total", all, "sources", list, "pairs", pairs);
    int failed = !root || json_dumpf(root, to, JSON_INDENT(1)) < 0 || fputc('\n', to) == EOF;
    json_decref(root);
    return failed ? -1 : 0;
}

/* gnuplot strings: no quotes, backslashes or enhanced-mode letters get in. */
static void put_label(FILE *to, const char *name)
{
    const char *slash = strrchr(name, '/');
    for (const char *c = slash && slash[1] ? slash + 1 : name; *c; c++)
        fputc(*c == '"' || *c == '\\' || (unsigned char)*c < ' ' ? '_' : *c, to);
}

static void plot_script(FILE *to, const char *path, const struct page_source *sources,
                        const struct scan_result *r)
{
    size_t length = strlen(path);
    bool svg = length > 4 && strcmp(path + length - 4, ".svg") == 0;
    bool matrix = r->source_count > 1;
    fprintf(to, "$parts << EOD\n");
    for (uint32_t i = 0; i < r->source_count; i++) {
        const struct scan_source_counts *c = &r->sources[i];
        fprintf(to, "\"%u ", i + 1);
        put_label(to, sources[i].name);
        fprintf(to, "\" %.3f %.3f %.3f %.3f\n", mib(c->zero_pages), mib(c->self_saved_pages),
                mib(c->cross_distinct_pages), mib(c->distinct_pages - c->cross_distinct_pages));
    }
    fprintf(to, "EOD\n$pairs << EOD\n");
    for (uint32_t i = 0; i < r->source_count; i++) {
        for (uint32_t j = 0; j < r->source_count; j++)
            fprintf(to, "%u %u %.3f\n", j + 1, i + 1,
                    i == j ? mib(r->sources[i].self_saved_pages)
                           : mib(r->pair_pages[(size_t)i * r->source_count + j]));
        fputc('\n', to);
    }
    fprintf(to, "EOD\nset terminal %s noenhanced size %d,480\nset output '",
            svg ? "svg" : "pngcairo", matrix ? 1200 : 700);
    for (const char *c = path; *c; c++)
        fputs(*c == '\'' ? "''" : (char[]){*c, 0}, to);
    fprintf(to,
            "'\n%s"
            "set title 'Memory by kind'\nset ylabel 'MiB'\nset style data histograms\n"
            "set style histogram rowstacked\nset style fill solid 0.8\nset boxwidth 0.7\n"
            "set xtics rotate by -30\nset key outside below\nset yrange [0:*]\n"
            "plot $parts using 2:xtic(1) title 'zero' lc rgb '#bbbbbb', "
            "'' using 3 title 'copies inside' lc rgb '#4477aa', "
            "'' using 4 title 'in another source too' lc rgb '#66ccee', "
            "'' using 5 title 'unique' lc rgb '#ee6677'\n",
            matrix ? "set multiplot layout 1,2\n" : "");
    if (matrix)
        fprintf(to,
                "reset\nset title 'Different content in both (diagonal: copies inside), MiB'\n"
                "set xrange [0.5:%u.5]\nset yrange [%u.5:0.5] noreverse\nset cbrange [0:*]\n"
                "set palette defined (0 'white', 1 '#4477aa')\nset xtics 1\nset ytics 1\n"
                "plot $pairs using 1:2:3 with image notitle%s\nunset multiplot\n",
                r->source_count, r->source_count,
                r->source_count <= 16 ? ", '' using 1:2:(sprintf('%.0f', $3)) with labels notitle"
                                      : "");
}

int scan_report_plot(const char *path, const struct page_source *sources,
                     const struct scan_result *r, char *error, size_t error_bytes)
{
    FILE *gnuplot = popen("gnuplot", "we");
    if (!gnuplot) {
        snprintf(error, error_bytes, "cannot run gnuplot: %s", strerror(errno));
        return -1;
    }
    plot_script(gnuplot, path, sources, r);
    if (pclose(gnuplot) != 0) {
        snprintf(error, error_bytes, "gnuplot (package gnuplot-nox) could not draw %s", path);
        return -1;
    }
    return 0;
}
