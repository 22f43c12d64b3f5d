/* A listening Unix stream socket with its file, its rights, and an orderly end. */
#ifndef BALLAST_UNIX_LISTENER_H
#define BALLAST_UNIX_LISTENER_H

#include "vmm-core/err.h"

#include <sys/types.h>

struct unix_listener {
    int fd; /* -1: closed */
    char *path;
    dev_t device; /* of the socket's file, so that only our own is removed */
    ino_t inode;
};
#define UNIX_LISTENER_CLOSED                                                                       \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

/* Listen at path, in place of a socket that nobody serves any more; what names it in errors
 * ("control socket"). group: whose the file is; NULL: ours. -1 with err: unknown group, path taken
 * or too long, no permission; then unix_listener_close cleans up. */
int unix_listener_open(struct unix_listener *listener, const char *what, const char *path,
                       const char *group, mode_t mode, struct err *err);

/* Close it and remove the file, if it is still ours. */
void unix_listener_close(struct unix_listener *listener);

/* The group's number. -1 with err: there is none of that name. */
int unix_group_find(const char *name, gid_t *gid, struct err *err);

#endif
