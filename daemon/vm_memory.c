/*
 * A VM's memory in the daemon: one jemalloc arena a VM, so that what a VM costs
 * the daemon is a number and goes away with it. jemalloc's explicit calls are
 * used only for this; everything else is plain malloc.
 */
#include "daemon/supervisor_private.h"

#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <stdio.h>
#include <string.h>

int vm_arena_new(unsigned *arena, struct err *err)
{
    size_t length = sizeof *arena;
    int errnum = mallctl("arenas.create", arena, &length, NULL, 0);
    return errnum ? err_set(err, errnum, "jemalloc arena") : 0;
}

void vm_arena_free(unsigned arena)
{
    char name[48];
    snprintf(name, sizeof name, "arena.%u.destroy", arena);
    mallctl(name, NULL, NULL, NULL, 0);
}

void *vm_arena_alloc(unsigned arena, size_t bytes)
{
    return mallocx(bytes, MALLOCX_ARENA(arena) | MALLOCX_TCACHE_NONE | MALLOCX_ZERO);
}

char *vm_arena_strdup(unsigned arena, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = vm_arena_alloc(arena, bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

uint64_t vm_arena_bytes(unsigned arena)
{
    /* jemalloc keeps statistics of the moment of the last epoch. */
    uint64_t epoch = 1;
    mallctl("epoch", NULL, NULL, &epoch, sizeof epoch);
    char name[64];
    snprintf(name, sizeof name, "stats.arenas.%u.resident", arena);
    size_t bytes = 0, length = sizeof bytes;
    return mallctl(name, &bytes, &length, NULL, 0) ? 0 : bytes;
}
