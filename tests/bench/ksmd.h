/*
 * The kernel's page sharing daemon as a peer for benchmarks: a child process with
 * mergeable memory of given contents, ksmd run over it, and what that cost.
 *
 * ksmd is one for the whole machine, so this keeps its hands off unless nobody
 * else uses it (ksmd_usable), and puts every setting back whatever happens: a
 * guard, a process in a session of its own, holds the old values and writes them
 * when the benchmark's end of a pipe closes, be it by exit, by a signal or by kill.
 */
#ifndef BALLAST_BENCH_KSMD_H
#define BALLAST_BENCH_KSMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ksmd_reading {
    uint64_t cpu_ns;        /* of ksmd, since the machine started */
    uint64_t covered_pages; /* looked at, and skipped since they had not changed for long */
    uint64_t full_scans;
    uint64_t saved_pages;
};

/* May ksmd be used here: root, the kernel has it, it is off and no process has mergeable memory? If
 * not, why says so. */
bool ksmd_usable(char *why, size_t why_bytes);

/* Remember the settings and start the guard. -1: errno. Once. */
int ksmd_guard(void);
/* Put the settings back and see that it was done; false: it was not. */
bool ksmd_unguard(void);

/* A child with the pages of a file as mergeable anonymous memory. -1: errno. */
int ksmd_child(int pages_fd, size_t pages);
/* ksmd off, then the child's end. */
void ksmd_end_child(int child);

/* Scan: pages a batch, and the sleep after each. */
void ksmd_run(uint32_t batch_pages, uint32_t sleep_ms);
void ksmd_set_batch(uint32_t batch_pages);

struct ksmd_reading ksmd_read(void);

/* Processor time of a thread, by schedstat (ns) or stat (ticks) where there is none. */
uint64_t thread_cpu_ns(int pid, int tid);

#endif
