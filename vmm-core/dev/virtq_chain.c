/*
 * The bytes behind a chain: copying in and out, and windows of pinned pages for
 * I/O without a copy of ours.
 */
#include "vmm-core/dev/virtq.h"

/* Where in guest memory a byte of a chain lies, and how many follow it there. */
struct place {
    uint64_t pa;
    uint64_t left;
};

static bool find_place(const struct virtq_chain *chain, bool writable, uint64_t offset,
                       struct place *place)
{
    unsigned first = writable ? chain->readable : 0;
    unsigned end = writable ? chain->readable + chain->writable : chain->readable;
    for (unsigned i = first; i < end; i++) {
        const struct virtq_segment *segment = &chain->segments[i];
        if (offset < segment->len) {
            *place = (struct place){segment->pa + offset, segment->len - offset};
            return true;
        }
        offset -= segment->len;
    }
    return false;
}

bool virtq_read(struct virtq *queue, const struct virtq_chain *chain, uint64_t offset, void *to,
                size_t len)
{
    struct place place;
    for (size_t done = 0; done < len;) {
        if (!find_place(chain, false, offset + done, &place))
            return false;
        size_t part = place.left < len - done ? place.left : len - done;
        if (!gmem_read(queue->gmem, place.pa, (uint8_t *)to + done, part))
            return false;
        done += part;
    }
    return true;
}

bool virtq_write(struct virtq *queue, const struct virtq_chain *chain, uint64_t offset,
                 const void *from, size_t len)
{
    struct place place;
    for (size_t done = 0; done < len;) {
        if (!find_place(chain, true, offset + done, &place))
            return false;
        size_t part = place.left < len - done ? place.left : len - done;
        if (!gmem_write(queue->gmem, place.pa, (const uint8_t *)from + done, part))
            return false;
        done += part;
    }
    return true;
}

bool virtq_window_pin(struct virtq_window *window, struct virtq *queue,
                      const struct virtq_chain *chain, bool writable, uint64_t offset,
                      uint64_t max_bytes)
{
    struct place place;
    window->count = 0;
    window->bytes = 0;
    window->writable = writable;
    while (window->bytes < max_bytes && window->count < VIRTQ_WINDOW_PAGES &&
           find_place(chain, writable, offset + window->bytes, &place)) {
        uint64_t part = PAGE_BYTES - place.pa % PAGE_BYTES;
        if (part > place.left)
            part = place.left;
        if (part > max_bytes - window->bytes)
            part = max_bytes - window->bytes;
        void *host = gmem_pin(queue->gmem, place.pa, part, writable);
        if (!host) {
            virtq_window_unpin(window, queue);
            return false;
        }
        window->iov[window->count] = (struct iovec){host, part};
        window->pa[window->count++] = place.pa;
        window->bytes += part;
    }
    return window->count > 0;
}

void virtq_window_unpin(struct virtq_window *window, struct virtq *queue)
{
    for (unsigned i = 0; i < window->count; i++)
        gmem_unpin(queue->gmem, window->pa[i], window->writable);
    window->count = 0;
    window->bytes = 0;
}
