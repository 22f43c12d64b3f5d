/*
 * gmem.h over flat memory with a real pmap, and device.h's thread without a
 * thread; see virtio_rig.h.
 */
#include "tests/dev/flat_gmem.h"

#include "tests/dev/virtio_rig.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>

/* ---- Guest memory ---- */

struct gmem *flat_gmem_new(uint32_t ram_pages)
{
    struct gmem *gmem = calloc(1, sizeof *gmem);
    assert(gmem);
    gmem->ram_pages = ram_pages;
    gmem->ram_bytes = (size_t)ram_pages * PAGE_BYTES;
    gmem->machine =
        mmap(NULL, gmem->ram_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(gmem->machine != MAP_FAILED);
    gmem->words = calloc(ram_pages, sizeof *gmem->words);
    gmem->pins = calloc(ram_pages, sizeof *gmem->pins);
    atomic_store(&gmem->stats.pages.pages_in[PAGE_ABSENT], ram_pages);
    gmem->pmap = pmap_new(gmem->words, &gmem->stats.pages, ram_pages, gmem->machine, ram_pages);
    assert(gmem->words && gmem->pins && gmem->pmap);
    return gmem;
}

void flat_gmem_free(struct gmem *gmem)
{
    pmap_free(gmem->pmap);
    munmap(gmem->machine, gmem->ram_bytes);
    free(gmem->words);
    free(gmem->pins);
    free(gmem);
}

struct pmap *gmem_pmap(struct gmem *gmem)
{
    return gmem->pmap;
}

struct vm_stats *gmem_stats(struct gmem *gmem)
{
    return &gmem->stats;
}

bool gmem_is_ram(const struct gmem *gmem, uint64_t pa, size_t len)
{
    return pa >= RAM_BASE_PA && pa - RAM_BASE_PA <= gmem->ram_bytes &&
           len <= gmem->ram_bytes - (pa - RAM_BASE_PA);
}

/* Frame n belongs to page n; a page that comes back is zero, as a fresh frame is. */
static uint8_t *make_usable(struct gmem *gmem, ppn_t ppn)
{
    enum page_state state = pmap_state(gmem->pmap, ppn);
    if (state == PAGE_ABSENT || state == PAGE_BALLOONED) {
        memset(gmem->machine + (size_t)ppn * PAGE_BYTES, 0, PAGE_BYTES);
        pmap_move(gmem->pmap, ppn, state == PAGE_ABSENT ? PAGE_EV_FILL : PAGE_EV_POP, ppn, 0);
    }
    return gmem->machine + (size_t)ppn * PAGE_BYTES;
}

void *gmem_pin(struct gmem *gmem, uint64_t pa, size_t len, bool write)
{
    (void)write;
    if (!gmem_is_ram(gmem, pa, len) || len == 0 || len > PAGE_BYTES - pa % PAGE_BYTES ||
        gmem->pins_live == GMEM_MAX_PINS || gmem->refuse_pins)
        return NULL;
    ppn_t ppn = (ppn_t)((pa - RAM_BASE_PA) >> PAGE_SHIFT);
    gmem->pins[ppn]++;
    gmem->pins_live++;
    return make_usable(gmem, ppn) + pa % PAGE_BYTES;
}

void gmem_unpin(struct gmem *gmem, uint64_t pa, bool written)
{
    (void)written;
    ppn_t ppn = (ppn_t)((pa - RAM_BASE_PA) >> PAGE_SHIFT);
    assert(gmem_is_ram(gmem, pa, 1) && gmem->pins[ppn] > 0);
    gmem->pins[ppn]--;
    gmem->pins_live--;
}

/* One of to and from is NULL: the guest's memory is the other. */
static bool copy(struct gmem *gmem, uint64_t pa, uint8_t *to, const uint8_t *from, size_t len)
{
    size_t done = 0;
    while (done < len) {
        size_t part = PAGE_BYTES - pa % PAGE_BYTES;
        if (part > len - done)
            part = len - done;
        uint8_t *host = gmem_pin(gmem, pa, part, from != NULL);
        if (!host)
            return false;
        if (from)
            memcpy(host, from + done, part);
        else if (to)
            memcpy(to + done, host, part);
        gmem_unpin(gmem, pa, from != NULL);
        pa += part;
        done += part;
    }
    return true;
}

bool gmem_read(struct gmem *gmem, uint64_t pa, void *to, size_t len)
{
    return copy(gmem, pa, to, NULL, len);
}

bool gmem_write(struct gmem *gmem, uint64_t pa, const void *from, size_t len)
{
    return copy(gmem, pa, NULL, from, len);
}

bool gmem_balloon(struct gmem *gmem, ppn_t ppn)
{
    if (ppn >= gmem->ram_pages || gmem->pins[ppn] || pmap_state(gmem->pmap, ppn) == PAGE_BALLOONED)
        return false;
    pmap_move(gmem->pmap, ppn, PAGE_EV_BALLOON, NO_MPN, 0);
    return true;
}

bool gmem_deflate(struct gmem *gmem, ppn_t ppn)
{
    if (ppn >= gmem->ram_pages || pmap_state(gmem->pmap, ppn) != PAGE_BALLOONED)
        return false;
    pmap_move(gmem->pmap, ppn, PAGE_EV_DEFLATE, NO_MPN, 0);
    return true;
}

bool gmem_report_free(struct gmem *gmem, ppn_t ppn, uint32_t count)
{
    if (ppn >= gmem->ram_pages || count > gmem->ram_pages - ppn)
        return false;
    for (ppn_t end = ppn + count; ppn < end; ppn++)
        if (pmap_state(gmem->pmap, ppn) == PAGE_PRIVATE && !gmem->pins[ppn])
            pmap_move(gmem->pmap, ppn, PAGE_EV_REPORT, NO_MPN, 0);
    return true;
}

void gmem_event(struct gmem *gmem, enum worker_event event, uint32_t value2, const char *text)
{
    (void)text;
    if (value2 < 2)
        gmem->events[event][value2]++;
}

/* ---- The device thread, without a thread ---- */

int doorbell_init(struct doorbell *doorbell, struct device_thread *thread,
                  void (*answer)(void *device), void *device, struct err *err)
{
    (void)err;
    *doorbell = (struct doorbell){.thread = thread, .answer = answer, .device = device};
    return 0;
}

/* Answered at once; a ring from within an answer is answered after it. */
void doorbell_ring(struct doorbell *doorbell)
{
    if (atomic_fetch_add(&doorbell->rung, 1) > 0)
        return;
    do {
        atomic_store(&doorbell->rung, 1);
        doorbell->answer(doorbell->device);
    } while (atomic_fetch_sub(&doorbell->rung, 1) > 1);
    atomic_store(&doorbell->rung, 0);
}

int device_thread_watch(struct device_thread *thread, int fd, uint32_t events, device_event event,
                        void *device, struct err *err)
{
    if (thread->count == FLAT_WATCHES)
        return err_set(err, 0, "too many watches for this test");
    thread->watches[thread->count++] = (struct flat_watch){fd, events, event, device};
    return 0;
}

void device_thread_rewatch(struct device_thread *thread, int fd, uint32_t events)
{
    for (unsigned i = 0; i < thread->count; i++)
        if (thread->watches[i].fd == fd)
            thread->watches[i].events = events;
}

void device_thread_unwatch(struct device_thread *thread, int fd)
{
    for (unsigned i = 0; i < thread->count; i++)
        if (thread->watches[i].fd == fd)
            thread->watches[i--] = thread->watches[--thread->count];
}

bool flat_thread_poll(struct device_thread *thread, int timeout_ms)
{
    struct pollfd fds[FLAT_WATCHES];
    struct flat_watch watches[FLAT_WATCHES];
    unsigned count = thread->count;
    memcpy(watches, thread->watches, sizeof watches);
    for (unsigned i = 0; i < count; i++)
        fds[i] = (struct pollfd){watches[i].fd, (short)watches[i].events, 0};
    if (poll(fds, count, timeout_ms) <= 0)
        return false;
    for (unsigned i = 0; i < count; i++)
        if (fds[i].revents)
            watches[i].event(watches[i].device, (uint32_t)fds[i].revents);
    return true;
}

/* ---- The rig over them ---- */

void rig_open(struct rig *rig, uint32_t ram_pages)
{
    memset(rig, 0, sizeof *rig);
    rig->gmem = flat_gmem_new(ram_pages);
    rig->env.gmem = rig->gmem;
    rig->env.thread = calloc(1, sizeof(struct device_thread));
    rig->next_free_pa = RAM_BASE_PA;
    assert(rig->env.thread);
}

void rig_close(struct rig *rig)
{
    virtio_device_free(rig->device);
    assert(rig->gmem->pins_live == 0);
    flat_gmem_free(rig->gmem);
    free(rig->env.thread);
}

enum page_state rig_page_state(struct rig *rig, uint64_t pa)
{
    return pmap_state(rig->gmem->pmap, (ppn_t)((pa - RAM_BASE_PA) >> PAGE_SHIFT));
}

void rig_refuse_pins(struct rig *rig, bool refuse)
{
    rig->gmem->refuse_pins = refuse;
}

unsigned rig_events(struct rig *rig, enum worker_event event, uint32_t value2)
{
    return rig->gmem->events[event][value2];
}

void rig_poll(struct rig *rig, int timeout_ms)
{
    while (flat_thread_poll(rig->env.thread, timeout_ms))
        timeout_ms = 0;
}
