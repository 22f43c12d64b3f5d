/*
 * What this worker costs beside the guest's memory, from /proc/self/status:
 * RssAnon is its anonymous memory (heap, stacks, data; machine memory is a
 * shared mapping and does not count), VmPTE its page tables. The file is opened
 * before the worker is confined and read again from its start; both figures are
 * counters the kernel keeps, so reading costs microseconds whatever the size.
 */
#include "vmm-core/mem/gmem_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void publish(_Atomic uint64_t *to_bytes, const char *status, const char *field)
{
    const char *line = strstr(status, field);

    if (line)
        atomic_store_explicit(to_bytes, strtoull(line + strlen(field), NULL, 10) * 1024,
                              memory_order_relaxed);
}

void overhead_refresh(struct gmem *gmem)
{
    char status[4096];
    ssize_t length = pread(gmem->status_fd, status, sizeof(status) - 1, 0);

    if (length <= 0)
        return;
    status[length] = '\0';
    publish(&gmem->stats->overhead_private_bytes, status, "\nRssAnon:");
    publish(&gmem->stats->overhead_page_table_bytes, status, "\nVmPTE:");
}
