/*
 * A VM's files: RUN_DIR/vms/NAME/{swap, serial.log, serial.sock, hvc0.log,
 * hvc0.sock}; the swap file is SWAP_DIR/NAME.swap when a swap folder is
 * configured. Swap is reserved with fallocate when the VM is admitted, all of
 * max - min, so that paging never finds the disk full by our own doing; the
 * file goes when the VM stops. Only the owner may read any of it: it is guest
 * memory. A console's log is cut when it passes LOG_MAX_BYTES, since a guest may
 * write for ever and the disk is everybody's.
 */
#include "daemon/supervisor_private.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "daemon/size_text.h"

#define PATH_BYTES    400
#define LOG_MAX_BYTES (16 << 20)

int make_folder(const char *path, struct err *err)
{
    char part[PATH_BYTES];
    if (strlen(path) >= sizeof part)
        return err_set(err, ENAMETOOLONG, "%s", path);
    strcpy(part, path);
    for (char *slash = part + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return err_set(err, errno, "folder %s", part);
        *slash = '/';
    }
    struct stat there;
    if (mkdir(part, 0755) == 0 ||
        (errno == EEXIST && stat(part, &there) == 0 && S_ISDIR(there.st_mode)))
        return 0;
    return err_set(err, errno == EEXIST ? ENOTDIR : errno, "folder %s", part);
}

int vm_folder_make(struct vm *vm, struct err *err)
{
    int length = snprintf(vm->folder, sizeof vm->folder, "%s/vms/%s",
                          vm->supervisor->config.run_dir, vm->settings.name);
    if (length >= (int)sizeof vm->folder) {
        vm->folder[0] = 0;
        return err_set(err, ENAMETOOLONG, "folder of VM %s", vm->settings.name);
    }
    return make_folder(vm->folder, err);
}

/* ---- swap ---- */

static void swap_path(const struct vm *vm, char path[PATH_BYTES])
{
    const char *swap_dir = vm->supervisor->config.swap_dir;
    if (swap_dir)
        snprintf(path, PATH_BYTES, "%s/%s.swap", swap_dir, vm->settings.name);
    else
        snprintf(path, PATH_BYTES, "%s/swap", vm->folder);
}

/* fallocate says only ENOSPC; people want to know how much is there. */
static int refuse_swap(int errnum, const char *path, int fd, uint64_t bytes, struct err *err)
{
    char needed[32], there[32] = "an unknown amount";
    struct statfs disk;
    if (fstatfs(fd, &disk) == 0)
        size_format((uint64_t)disk.f_bavail * (uint64_t)disk.f_bsize, there);
    return err_set(err, errnum, "swap file %s needs %s (max - min), %s is free on that disk", path,
                   size_format(bytes, needed), there);
}

int swap_reserve(struct vm *vm, struct err *err)
{
    uint64_t bytes = (uint64_t)vm->swap_slots * PAGE_BYTES;
    if (!bytes || vm->swap_fd >= 0)
        return 0;
    char path[PATH_BYTES];
    swap_path(vm, path);
    unlink(path); /* of a daemon that was killed */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, errno, "swap file %s", path);
    int result;
    while ((result = posix_fallocate(fd, 0, (off_t)bytes)) == EINTR)
        ;
    if (result) {
        refuse_swap(result, path, fd, bytes, err);
        close(fd);
        unlink(path);
        return -1;
    }
    vm->swap_fd = fd;
    return 0;
}

void swap_release(struct vm *vm)
{
    if (vm->swap_fd < 0)
        return;
    char path[PATH_BYTES];
    swap_path(vm, path);
    unlink(path);
    close(vm->swap_fd);
    vm->swap_fd = -1;
}

void files_sweep(const char *run_dir, const char *swap_dir)
{
    static const char *const patterns[] = {"%s/vms/*/swap", "%s/vms/*/*.sock"};
    char pattern[PATH_BYTES];
    for (size_t i = 0; i <= sizeof patterns / sizeof patterns[0]; i++) {
        if (i < sizeof patterns / sizeof patterns[0])
            snprintf(pattern, sizeof pattern, patterns[i], run_dir);
        else if (swap_dir)
            snprintf(pattern, sizeof pattern, "%s/*.swap", swap_dir);
        else
            break;
        glob_t found;
        if (glob(pattern, 0, NULL, &found) == 0)
            for (size_t n = 0; n < found.gl_pathc; n++)
                unlink(found.gl_pathv[n]);
        globfree(&found);
    }
}

/* ---- consoles ---- */

int console_log_open(struct vm *vm, const char *name, struct err *err)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s.log", vm->folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    return fd < 0 ? err_set(err, errno, "console log %s", path) : fd;
}

int console_socket_open(struct vm *vm, const char *name, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (snprintf(address.sun_path, sizeof address.sun_path, "%s/%s.sock", vm->folder, name) >=
        (int)sizeof address.sun_path)
        return err_set(err, ENAMETOOLONG, "console socket %s/%s.sock (at most %zu characters)",
                       vm->folder, name, sizeof address.sun_path - 1);
    unlink(address.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, errno, "console socket %s", address.sun_path);
    mode_t mask = umask(0177);
    int bound = bind(fd, (struct sockaddr *)&address, sizeof address);
    int errnum = errno;
    umask(mask);
    if (bound == 0 && listen(fd, 4) == 0)
        return fd;
    if (bound == 0)
        errnum = errno;
    close(fd);
    return err_set(err, errnum, "console socket %s", address.sun_path);
}

void console_sockets_remove(struct vm *vm)
{
    static const char *const names[] = {"serial", "hvc0"};
    if (!vm->folder[0] || vm->settings.terminal)
        return;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "%s/%s.sock", vm->folder, names[i]);
        unlink(path);
    }
}

void console_logs_bound(struct vm *vm)
{
    for (size_t i = 0; i < 2; i++) {
        struct stat status;
        /* The worker appends, so that it goes on at the new end. */
        if (vm->log_fd[i] >= 0 && fstat(vm->log_fd[i], &status) == 0 &&
            status.st_size > LOG_MAX_BYTES && ftruncate(vm->log_fd[i], 0) == 0)
            event_tell(vm->supervisor, vm, EVENT_CONSOLE_LOG,
                       "a console's log passed %d MiB and was begun anew", LOG_MAX_BYTES >> 20);
    }
}
