#include "daemon/rpc/unix_listener.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 64

/* A socket file that nobody listens behind is left over from a daemon that died. */
static int remove_stale(const char *what, const struct sockaddr_un *address, struct err *err)
{
    struct stat status;
    if (lstat(address->sun_path, &status) < 0)
        return errno == ENOENT ? 0 : err_set(err, errno, "%s", address->sun_path);
    if (!S_ISSOCK(status.st_mode))
        return err_set(err, EEXIST, "%s %s is another kind of file", what, address->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, errno, "%s", what);
    int result = connect(fd, (const struct sockaddr *)address, sizeof *address);
    int why = errno;
    close(fd);
    if (result == 0 || why == EAGAIN)
        return err_set(err, EADDRINUSE, "another daemon serves %s", address->sun_path);
    if (why != ECONNREFUSED)
        return err_set(err, why, "%s %s", what, address->sun_path);
    if (unlink(address->sun_path) < 0)
        return err_set(err, errno, "remove stale socket %s", address->sun_path);
    return 0;
}

int unix_group_find(const char *name, gid_t *gid, struct err *err)
{
    struct group *group = getgrnam(name);
    if (!group)
        return err_set(err, 0, "no group '%s' on this host", name);
    *gid = group->gr_gid;
    return 0;
}

int unix_listener_open(struct unix_listener *listener, const char *what, const char *path,
                       const char *group, mode_t mode, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    gid_t gid = 0;
    *listener = (struct unix_listener)UNIX_LISTENER_CLOSED;
    if (strlen(path) >= sizeof address.sun_path)
        return err_set(err, 0, "%s path %s is longer than %zu bytes", what, path,
                       sizeof address.sun_path - 1);
    strcpy(address.sun_path, path);
    if (group && unix_group_find(group, &gid, err) < 0)
        return -1;
    if (remove_stale(what, &address, err) < 0)
        return -1;
    listener->path = strdup(path);
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0 || !listener->path)
        return err_set(err, errno, "%s", what);
    if (bind(listener->fd, (const struct sockaddr *)&address, sizeof address) < 0)
        return err_set(err, errno, "bind %s %s", what, path);
    if (lstat(path, &status) == 0) {
        listener->device = status.st_dev;
        listener->inode = status.st_ino;
    }
    /* Rights before listen: until then nobody can connect. */
    if (group && chown(path, (uid_t)-1, gid) < 0)
        return err_set(err, errno, "give %s %s to group %s", what, path, group);
    if (chmod(path, mode) < 0)
        return err_set(err, errno, "set mode of %s %s", what, path);
    if (listen(listener->fd, BACKLOG) < 0)
        return err_set(err, errno, "listen on %s %s", what, path);
    return 0;
}

void unix_listener_close(struct unix_listener *listener)
{
    struct stat status;
    if (listener->fd >= 0)
        close(listener->fd);
    if (listener->inode && lstat(listener->path, &status) == 0 &&
        status.st_ino == listener->inode && status.st_dev == listener->device)
        unlink(listener->path);
    free(listener->path);
    *listener = (struct unix_listener)UNIX_LISTENER_CLOSED;
}
