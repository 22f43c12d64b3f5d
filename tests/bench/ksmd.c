#include "tests/bench/ksmd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define KSM        "/sys/kernel/mm/ksm/"
#define PAGE_BYTES 4096u

/* What is changed, in the order in which it is put back. */
static const char *const settings[] = {"run", "pages_to_scan", "sleep_millisecs"};
#define SETTINGS (sizeof settings / sizeof settings[0])

static int ksmd_pid;
static int guard_pid, guard_pipe = -1;

/* ---- files of numbers ---- */

static bool read_text(const char *path, char *text, size_t bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, bytes - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
    return got > 0;
}

static uint64_t setting(const char *name)
{
    char path[128], text[64];
    snprintf(path, sizeof path, KSM "%s", name);
    return read_text(path, text, sizeof text) ? strtoull(text, NULL, 10) : 0;
}

static bool set(const char *name, uint64_t value)
{
    char path[128], text[32];
    snprintf(path, sizeof path, KSM "%s", name);
    int length = snprintf(text, sizeof text, "%" PRIu64, value);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, (size_t)length) == length;
    if (fd >= 0)
        close(fd);
    return done;
}

uint64_t thread_cpu_ns(int pid, int tid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", pid, tid);
    if (read_text(path, text, sizeof text))
        return strtoull(text, NULL, 10);
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, tid);
    if (!read_text(path, text, sizeof text) || !strrchr(text, ')'))
        return 0;
    uint64_t user = 0, system = 0;
    sscanf(strrchr(text, ')') + 1,
           " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64, &user, &system);
    return (user + system) * (UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* ---- may it be used ---- */

static bool has_mergeable_memory(int pid)
{
    char path[64], *line = NULL;
    size_t room = 0;
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/smaps", pid);
    FILE *file = fopen(path, "re");
    while (file && !found && getline(&line, &room, file) > 0)
        found = !strncmp(line, "VmFlags:", 8) && strstr(line, " mg");
    if (file)
        fclose(file);
    free(line);
    return found;
}

/* Finds ksmd; 0, or a process that has mergeable memory. */
static int look_at_processes(void)
{
    int user = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc)) && !user;) {
        int pid = atoi(entry->d_name);
        char path[64], name[32];
        snprintf(path, sizeof path, "/proc/%d/comm", pid);
        if (pid <= 0 || !read_text(path, name, sizeof name))
            continue;
        if (!strcmp(name, "ksmd\n"))
            ksmd_pid = pid;
        else if (has_mergeable_memory(pid))
            user = pid;
    }
    if (proc)
        closedir(proc);
    return user;
}

bool ksmd_usable(char *why, size_t why_bytes)
{
    int user = 0;
    if (access(KSM "run", F_OK) < 0)
        snprintf(why, why_bytes, "this kernel has no " KSM);
    else if (geteuid() != 0 || access(KSM "run", W_OK) < 0)
        snprintf(why, why_bytes, "ksmd is for root only");
    else if (setting("run") != 0 || setting("pages_shared") != 0)
        snprintf(why, why_bytes, "ksmd is at work for others");
    else if ((user = look_at_processes()) != 0)
        snprintf(why, why_bytes, "process %d has mergeable memory", user);
    else if (!ksmd_pid)
        snprintf(why, why_bytes, "the process ksmd cannot be seen from here");
    else
        return true;
    return false;
}

/* ---- settings back ---- */

/* ksmd keeps what it knew of a process that is gone until it is told to forget everything. */
static void forget_all(void)
{
    set("run", 2);
    set("run", 0);
}

static void guard(int pipe_end, const uint64_t before[SETTINGS])
{
    char byte;
    bool done = true;
    setsid();
    for (int signal_number = 1; signal_number < 32; signal_number++)
        if (signal_number != SIGCHLD)
            signal(signal_number, SIG_IGN);
    while (read(pipe_end, &byte, 1) < 0 && errno == EINTR)
        ;
    forget_all();
    for (size_t i = 0; i < SETTINGS; i++)
        done &= set(settings[i], before[i]);
    for (size_t i = 0; i < SETTINGS; i++)
        done &= setting(settings[i]) == before[i];
    _exit(done ? 0 : 1);
}

int ksmd_guard(void)
{
    int ends[2];
    uint64_t before[SETTINGS];
    for (size_t i = 0; i < SETTINGS; i++)
        before[i] = setting(settings[i]);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    guard_pid = fork();
    if (guard_pid == 0) {
        close(ends[1]);
        guard(ends[0], before);
    }
    close(ends[0]);
    guard_pipe = ends[1];
    return guard_pid < 0 ? -1 : 0;
}

bool ksmd_unguard(void)
{
    int status = 1;
    close(guard_pipe);
    guard_pipe = -1;
    while (waitpid(guard_pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- the child ---- */

static void be_child(int pages_fd, size_t pages, int ready)
{
    size_t bytes = pages * PAGE_BYTES;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (guard_pipe >= 0)
        close(guard_pipe); /* the guard waits for the benchmark's end, not for ours */
    uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        _exit(1);
    for (size_t at = 0; at < bytes;) {
        ssize_t got = pread(pages_fd, memory + at, bytes - at, (off_t)at);
        if (got <= 0)
            _exit(1);
        at += (size_t)got;
    }
    if (madvise(memory, bytes, MADV_MERGEABLE) < 0 || write(ready, "", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

int ksmd_child(int pages_fd, size_t pages)
{
    int ends[2];
    char byte;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    int child = fork();
    if (child == 0) {
        close(ends[0]);
        be_child(pages_fd, pages, ends[1]);
    }
    close(ends[1]);
    bool ready = child > 0 && read(ends[0], &byte, 1) == 1;
    close(ends[0]);
    if (ready)
        return child;
    if (child > 0)
        waitpid(child, NULL, 0);
    errno = ENOMEM;
    return -1;
}

void ksmd_end_child(int child)
{
    set("run", 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    forget_all();
}

/* ---- running ---- */

void ksmd_run(uint32_t batch_pages, uint32_t sleep_ms)
{
    set("pages_to_scan", batch_pages);
    set("sleep_millisecs", sleep_ms);
    set("run", 1);
}

void ksmd_set_batch(uint32_t batch_pages)
{
    set("pages_to_scan", batch_pages);
}

struct ksmd_reading ksmd_read(void)
{
    return (struct ksmd_reading){
        .covered_pages = setting("pages_scanned") + setting("pages_skipped"),
        .full_scans = setting("full_scans"),
        .saved_pages = setting("pages_sharing") + setting("ksm_zero_pages"),
        .cpu_ns = thread_cpu_ns(ksmd_pid, ksmd_pid),
    };
}
