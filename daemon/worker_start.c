/*
 * Starting a worker: everything it will ever need is opened here and handed
 * over by number (worker_fds.h); it inherits nothing else, not the environment's
 * secrets, not our signal mask, not our terminal. Its end is watched through a
 * pidfd, so that no number of a process that is gone is ever signalled.
 */
#include "daemon/supervisor_private.h"
#include "daemon/vm_config.h"
#include "daemon/worker_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef BALLAST_LIBEXECDIR
#define BALLAST_LIBEXECDIR "/usr/libexec"
#endif

static_assert(VM_MAX_DISKS == MACHINE_MAX_DISKS, "settings and machine agree on disks");

#define CONFIG_MAX_BYTES 60000u /* fits a pipe, so that writing it never waits for the worker */

/* ---- where the program is ---- */

char *worker_find(const char *configured, struct err *err)
{
    const char *named = configured ? configured : getenv("BALLAST_WORKER");
    if (named) {
        if (access(named, X_OK) < 0) {
            err_set(err, errno, "worker program %s", named);
            return NULL;
        }
        return strdup(named);
    }
    /* Beside us as in a build tree, or as an installation has it that was moved as a whole. */
    static const char *const places[] = {"ballast-worker", "../libexec/ballast-worker"};
    char folder[4096], path[sizeof folder + 40];
    ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (length > 0) {
        folder[length] = 0;
        *strrchr(folder, '/') = 0;
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            snprintf(path, sizeof path, "%s/%s", folder, places[i]);
            if (access(path, X_OK) == 0)
                return strdup(path);
        }
    }
    if (access(BALLAST_LIBEXECDIR "/ballast-worker", X_OK) == 0)
        return strdup(BALLAST_LIBEXECDIR "/ballast-worker");
    err_set(err, 0, "ballast-worker is neither beside this program nor in %s; set BALLAST_WORKER",
            BALLAST_LIBEXECDIR);
    return NULL;
}

/* ---- what it is given ---- */

/* Descriptors to be handed over, by their number in the worker; -1: not there. Those with `ours`
 * are kept, the others closed once the worker has them. */
struct handover {
    int fd[WORKER_FDS_END];
    bool ours[WORKER_FDS_END];
};

static void handover_close(struct handover *handover)
{
    for (int i = 0; i < WORKER_FDS_END; i++)
        if (handover->fd[i] >= 0 && !handover->ours[i])
            close(handover->fd[i]);
}

static void keep(struct handover *handover, enum worker_fd number, int fd)
{
    handover->fd[number] = fd;
    handover->ours[number] = true;
}

static int make_region(struct vm *vm, struct err *err)
{
    uint32_t ram_pages = (uint32_t)vm->memory_pages;
    vm->region_bytes = vm_region_bytes(ram_pages);
    vm->region_fd = memfd_create("ballast-vm-region", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (vm->region_fd < 0 || ftruncate(vm->region_fd, (off_t)vm->region_bytes) < 0 ||
        fcntl(vm->region_fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return err_set(err, errno, "VM %s: shared region", vm->settings.name);
    void *map = mmap(NULL, vm->region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vm->region_fd, 0);
    if (map == MAP_FAILED)
        return err_set(err, errno, "VM %s: mapping the shared region", vm->settings.name);
    vm->region = map;
    /* The zero frame, one past the last, is the worker's to map too. */
    vm_region_init(vm->region, ram_pages, machine_memory_zero_frame(vm->supervisor->machine) + 1);
    for (unsigned i = 0; i < BALLOON_STAT_TAGS; i++)
        atomic_store(&vm->region->stats.balloon_stats[i], UINT64_MAX);
    vm->to_worker = vm_region_to_worker(vm->region);
    vm->to_supervisor = vm_region_to_supervisor(vm->region);
    vm->put_count = vm->take_count = 0;
    memset(vm->grant_in_slot, 0, sizeof vm->grant_in_slot);
    return 0;
}

static int open_console(struct vm *vm, struct handover *handover, const char *name,
                        const struct vm_console_settings *terminal, enum worker_fd in,
                        struct err *err)
{
    enum worker_fd out = in + 1, listen = in + 2;
    if (vm->settings.terminal) {
        keep(handover, in, terminal->in_fd);
        keep(handover, out, terminal->out_fd);
        return 0;
    }
    handover->fd[out] = console_log_open(vm, name, err);
    if (handover->fd[out] < 0)
        return -1;
    int *log_fd = &vm->log_fd[in == WORKER_FD_VIRTCON_IN];
    *log_fd = handover->fd[out];
    handover->ours[out] = true;
    handover->fd[listen] = console_socket_open(vm, name, err);
    return handover->fd[listen] < 0 ? -1 : 0;
}

static struct vm_config_console console_config(const struct handover *handover, enum worker_fd in)
{
    struct vm_config_console console = {.in = handover->fd[in] >= 0,
                                        .out = handover->fd[in + 1] >= 0,
                                        .listen = handover->fd[in + 2] >= 0};
    console.present = console.in || console.out || console.listen;
    return console;
}

/* The configuration as text; freed by the caller. */
static char *config_text(const struct vm *vm, const struct handover *handover, struct err *err)
{
    const struct vm_settings *settings = &vm->settings;
    uint64_t seed = vm->supervisor->config.random_seed + vm->id;
    if (!vm->supervisor->config.random_seed &&
        getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        err_set(err, errno, "random seed");
        return NULL;
    }
    /* Borrowed strings: vm_config_format only reads them. */
    struct vm_config config = {
        .name = (char *)settings->name,
        .ram_bytes = settings->memory_bytes,
        .kernel = (char *)settings->kernel,
        .initrd = (char *)settings->initrd,
        .append = (char *)settings->append,
        .disk_count = settings->disk_count,
        .sv48 = settings->sv48,
        .deflate_on_oom = settings->deflate_on_oom,
        .free_page_reporting = settings->free_page_reporting,
        .swap_slots = vm->swap_fd >= 0 ? vm->swap_slots : 0,
        .random_seed = seed >> 1, /* a JSON number is signed */
        .uart = console_config(handover, WORKER_FD_UART_IN),
        .virtcon = console_config(handover, WORKER_FD_VIRTCON_IN),
    };
    for (unsigned i = 0; i < settings->disk_count; i++) {
        config.disks[i].path = (char *)settings->disks[i].path;
        config.disks[i].read_only = settings->disks[i].read_only;
    }
    return vm_config_format(&config, err);
}

static int open_config(const struct vm *vm, struct handover *handover, struct err *err)
{
    char *text = config_text(vm, handover, err);
    if (!text)
        return err_prefix(err, "VM %s", vm->settings.name);
    size_t bytes = strlen(text);
    int ends[2];
    int result = 0;
    if (bytes > CONFIG_MAX_BYTES)
        result = err_set(err, 0, "VM %s: settings of %zu bytes, at most %u", vm->settings.name,
                         bytes, CONFIG_MAX_BYTES);
    else if (pipe2(ends, O_CLOEXEC) < 0)
        result = err_set(err, errno, "VM %s: pipe", vm->settings.name);
    if (result == 0) {
        handover->fd[WORKER_FD_CONFIG] = ends[0];
        if (write(ends[1], text, bytes) != (ssize_t)bytes)
            result = err_set(err, errno, "VM %s: configuration pipe", vm->settings.name);
        close(ends[1]);
    }
    free(text);
    return result;
}

/* ---- spawn ---- */

static int spawn(struct vm *vm, struct handover *handover, int stderr_end, struct err *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);

    /* Copies above the numbers wanted, so that no dup2 overwrites one still to come. */
    int copies[WORKER_FDS_END + 1], count = 0, errnum = 0;
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    for (int i = 0; i < WORKER_FDS_END && !errnum; i++) {
        int fd = i == 2 ? stderr_end : handover->fd[i];
        if (fd < 0)
            continue;
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, WORKER_FDS_END);
        if (copy < 0) {
            errnum = errno;
            break;
        }
        copies[count++] = copy;
        errnum = posix_spawn_file_actions_adddup2(&actions, copy, i);
    }
    posix_spawn_file_actions_addclosefrom_np(&actions, WORKER_FDS_END);

    char program[] = "ballast-worker";
    char name[VM_NAME_BYTES];
    snprintf(name, sizeof name, "%s", vm->settings.name);
    char *arguments[] = {program, name, NULL};
    char *environment[] = {NULL};
    if (!errnum)
        errnum = posix_spawn(&vm->pid, vm->supervisor->worker_path, &actions, &attributes,
                             arguments, environment);
    for (int i = 0; i < count; i++)
        close(copies[i]);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (errnum) {
        vm->pid = 0;
        return err_set(err, errnum, "VM %s: starting %s", vm->settings.name,
                       vm->supervisor->worker_path);
    }
    vm->pid_fd = pidfd_open(vm->pid, 0);
    if (vm->pid_fd < 0) {
        errnum = errno;
        kill(vm->pid, SIGKILL);
        waitpid(vm->pid, NULL, 0);
        return err_set(err, errnum, "VM %s: pidfd of worker", vm->settings.name);
    }
    return 0;
}

/* The worker's standard error: told line by line, and the last one kept for the exit text. */
static int on_stderr(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
    (void)events;
    struct vm *vm = ctx;
    char text[1024];
    ssize_t bytes = read(fd, text, sizeof text);
    if (bytes <= 0) {
        if (bytes == 0 || errno != EAGAIN)
            sd_event_source_set_enabled(source, SD_EVENT_OFF);
        return 0;
    }
    size_t start = 0, length = (size_t)bytes;
    for (size_t i = 0; i <= length; i++) {
        if (i < length && text[i] != '\n')
            continue;
        if (i > start) {
            copy_words(vm->last_words, sizeof vm->last_words, text + start, i - start);
            event_tell(vm->supervisor, vm, EVENT_WORKER_SAYS, "%s", vm->last_words);
        }
        start = i + 1;
    }
    return 0;
}

static int watch(struct vm *vm, struct err *err)
{
    sd_event *event = vm->supervisor->event;
    int result = sd_event_add_io(event, &vm->exit_source, vm->pid_fd, EPOLLIN, vm_on_exit, vm);
    if (result >= 0)
        result = sd_event_add_io(event, &vm->notify_source, vm->notify_fd, EPOLLIN,
                                 messages_on_notify, vm);
    if (result >= 0)
        result = sd_event_add_io(event, &vm->stderr_source, vm->stderr_fd, EPOLLIN, on_stderr, vm);
    if (result < 0)
        return err_set(err, -result, "VM %s: event source", vm->settings.name);
    /* Words before the end they explain. */
    sd_event_source_set_priority(vm->exit_source, SD_EVENT_PRIORITY_NORMAL + 10);
    return 0;
}

static int start(struct vm *vm, struct handover *handover, struct err *err)
{
    if (make_region(vm, err) < 0)
        return -1;
    vm->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    vm->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vm->kick_fd < 0 || vm->notify_fd < 0)
        return err_set(err, errno, "VM %s: eventfd", vm->settings.name);
    keep(handover, WORKER_FD_REGION, vm->region_fd);
    keep(handover, WORKER_FD_MACHINE, machine_memory_fd(vm->supervisor->machine));
    keep(handover, WORKER_FD_KICK, vm->kick_fd);
    keep(handover, WORKER_FD_NOTIFY, vm->notify_fd);
    keep(handover, WORKER_FD_SWAP, vm->swap_fd);
    if (open_console(vm, handover, "serial", &vm->settings.uart, WORKER_FD_UART_IN, err) < 0 ||
        open_console(vm, handover, "hvc0", &vm->settings.virtcon, WORKER_FD_VIRTCON_IN, err) < 0 ||
        open_config(vm, handover, err) < 0)
        return -1;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_set(err, errno, "VM %s: pipe", vm->settings.name);
    vm->stderr_fd = ends[0];
    fcntl(vm->stderr_fd, F_SETFL, O_NONBLOCK);
    int result = spawn(vm, handover, ends[1], err);
    close(ends[1]);
    return result < 0 ? -1 : watch(vm, err);
}

int worker_start(struct vm *vm, struct err *err)
{
    struct handover handover;
    for (int i = 0; i < WORKER_FDS_END; i++)
        handover.fd[i] = -1;
    memset(handover.ours, 0, sizeof handover.ours);
    vm_frames_reset(vm);
    vm->loaded = false;
    vm->last_words[0] = 0;
    int result = start(vm, &handover, err);
    handover_close(&handover);
    if (result < 0) {
        if (vm->pid_fd >= 0) {
            worker_signal(vm, SIGKILL);
            waitid(P_PIDFD, (id_t)vm->pid_fd, &(siginfo_t){0}, WEXITED);
        }
        worker_clear(vm);
    }
    return result;
}

void worker_signal(struct vm *vm, int signal)
{
    if (vm->pid_fd >= 0)
        pidfd_send_signal(vm->pid_fd, signal, NULL, 0);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void worker_clear(struct vm *vm)
{
    vm->exit_source = sd_event_source_disable_unref(vm->exit_source);
    vm->notify_source = sd_event_source_disable_unref(vm->notify_source);
    vm->stderr_source = sd_event_source_disable_unref(vm->stderr_source);
    vm->deadline_source = sd_event_source_disable_unref(vm->deadline_source);
    if (vm->region)
        munmap(vm->region, vm->region_bytes);
    vm->region = NULL;
    vm->to_worker = vm->to_supervisor = NULL;
    close_fd(&vm->pid_fd);
    close_fd(&vm->region_fd);
    close_fd(&vm->kick_fd);
    close_fd(&vm->notify_fd);
    close_fd(&vm->stderr_fd);
    close_fd(&vm->log_fd[0]);
    close_fd(&vm->log_fd[1]);
    vm->pid = 0;
    vm->unkicked = false;
    console_sockets_remove(vm);
}
