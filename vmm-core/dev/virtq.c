/*
 * Taking chains from a split virtqueue and giving them back; see virtq.h for
 * what is checked and why. Memory order: the driver writes descriptors, then the
 * available index; we read the index with acquire. We write a used element, then
 * the used index with release (2.7.8.2).
 */
#include "vmm-core/dev/virtq.h"

#include <stdatomic.h>
#include <string.h>

#define AVAIL_IDX_OFFSET  2u
#define AVAIL_RING_OFFSET 4u
#define USED_IDX_OFFSET   2u
#define USED_RING_OFFSET  4u

/* The longest chain in bytes (2.7.4.2: at most 2^32). */
#define MAX_CHAIN_BYTES (UINT64_C(1) << 32)

static bool overlap(uint64_t a_pa, uint64_t a_bytes, uint64_t b_pa, uint64_t b_bytes)
{
    return a_pa < b_pa + b_bytes && b_pa < a_pa + a_bytes;
}

static bool in_ram(const struct gmem *gmem, uint64_t pa, uint64_t bytes)
{
    return pa + bytes >= pa && gmem_is_ram(gmem, pa, bytes);
}

const char *virtq_start(struct virtq *queue, struct gmem *gmem, uint64_t features,
                        uint32_t max_size, uint32_t size, uint64_t desc_pa, uint64_t avail_pa,
                        uint64_t used_pa)
{
    *queue = (struct virtq){
        .gmem = gmem,
        .size = size,
        .desc_pa = desc_pa,
        .avail_pa = avail_pa,
        .used_pa = used_pa,
        .setup = queue->setup + 1,
        .indirect = features >> VIRTIO_F_INDIRECT_DESC & 1,
        .event_idx = features >> VIRTIO_F_EVENT_IDX & 1,
    };
    if (size == 0 || size > max_size || (size & (size - 1)) != 0)
        return queue->broken = "queue size is not a power of two within the limit";
    if (desc_pa % 16 || avail_pa % 2 || used_pa % 4)
        return queue->broken = "queue area is not aligned";
    uint64_t desc_bytes = VIRTQ_DESC_BYTES(size);
    uint64_t avail_bytes = VIRTQ_AVAIL_BYTES(size);
    uint64_t used_bytes = VIRTQ_USED_BYTES(size);
    if (!in_ram(gmem, desc_pa, desc_bytes) || !in_ram(gmem, avail_pa, avail_bytes) ||
        !in_ram(gmem, used_pa, used_bytes))
        return queue->broken = "queue area is outside RAM";
    if (overlap(desc_pa, desc_bytes, avail_pa, avail_bytes) ||
        overlap(desc_pa, desc_bytes, used_pa, used_bytes) ||
        overlap(avail_pa, avail_bytes, used_pa, used_bytes))
        return queue->broken = "queue areas overlap";
    return NULL;
}

/* One naturally aligned 16-bit word of the queue. */
static bool load16(struct virtq *queue, uint64_t pa, uint16_t *value)
{
    _Atomic uint16_t *word = gmem_pin(queue->gmem, pa, sizeof *word, false);
    if (!word) {
        queue->broken = "queue memory cannot be read";
        return false;
    }
    *value = atomic_load_explicit(word, memory_order_acquire);
    gmem_unpin(queue->gmem, pa, false);
    return true;
}

static bool store16(struct virtq *queue, uint64_t pa, uint16_t value)
{
    _Atomic uint16_t *word = gmem_pin(queue->gmem, pa, sizeof *word, true);
    if (!word) {
        queue->broken = "queue memory cannot be written";
        return false;
    }
    atomic_store_explicit(word, value, memory_order_release);
    gmem_unpin(queue->gmem, pa, true);
    return true;
}

/* Where the driver says after which used entry it wants to hear from us, and we after which
 * available one (2.7.7.1, 2.7.10.1): the words behind the rings. */
static uint64_t used_event_pa(const struct virtq *queue)
{
    return queue->avail_pa + AVAIL_RING_OFFSET + 2u * queue->size;
}

static uint64_t avail_event_pa(const struct virtq *queue)
{
    return queue->used_pa + USED_RING_OFFSET + 8u * queue->size;
}

/* Is there an available entry? With event indices, ask to be notified before saying no, and look
 * once more, so that no notification is lost in between. */
static enum virtq_result available(struct virtq *queue)
{
    uint16_t idx;
    for (int asked = 0;; asked = 1) {
        if (!load16(queue, queue->avail_pa + AVAIL_IDX_OFFSET, &idx))
            return VIRTQ_BROKEN;
        uint16_t waiting = (uint16_t)(idx - queue->next_avail);
        if (waiting > queue->size) {
            queue->broken = "more chains made available than the queue holds";
            return VIRTQ_BROKEN;
        }
        if (waiting)
            return VIRTQ_TAKEN;
        if (asked || !queue->event_idx)
            return VIRTQ_EMPTY;
        if (!store16(queue, avail_event_pa(queue), queue->next_avail))
            return VIRTQ_BROKEN;
        atomic_thread_fence(memory_order_seq_cst);
    }
}

static bool broken(struct virtq *queue, const char *why)
{
    queue->broken = why;
    return false;
}

static bool add_segment(struct virtq *queue, struct virtq_chain *chain,
                        const struct virtq_desc *desc)
{
    bool writable = desc->flags & VIRTQ_DESC_WRITE;
    if (chain->readable + chain->writable == queue->size)
        return broken(queue, "chain is longer than the queue (or loops)");
    if (desc->len == 0)
        return broken(queue, "descriptor of no bytes");
    if (!in_ram(queue->gmem, desc->pa, desc->len))
        return broken(queue, "descriptor points outside RAM");
    if (writable &&
        (overlap(desc->pa, desc->len, queue->desc_pa, VIRTQ_DESC_BYTES(queue->size)) ||
         overlap(desc->pa, desc->len, queue->avail_pa, VIRTQ_AVAIL_BYTES(queue->size)) ||
         overlap(desc->pa, desc->len, queue->used_pa, VIRTQ_USED_BYTES(queue->size))))
        return broken(queue, "buffer to be written lies over its queue");
    if (!writable && chain->writable)
        return broken(queue, "readable descriptor after a writable one");
    chain->segments[chain->readable + chain->writable] =
        (struct virtq_segment){.pa = desc->pa, .len = desc->len};
    if (writable) {
        chain->writable++;
        chain->writable_bytes += desc->len;
    } else {
        chain->readable++;
        chain->readable_bytes += desc->len;
    }
    if (chain->readable_bytes + chain->writable_bytes > MAX_CHAIN_BYTES)
        return broken(queue, "chain of more than 2^32 bytes");
    return true;
}

/*
 * Follow a table of descriptors from `index`. The number of steps is bounded by
 * add_segment, which refuses more segments than the queue has descriptors. In an
 * indirect table (2.7.5.3) a further indirect descriptor is an error.
 */
static bool follow(struct virtq *queue, struct virtq_chain *chain, uint64_t table_pa,
                   uint32_t entries, uint32_t index, bool in_indirect)
{
    struct virtq_desc desc;
    do {
        if (index >= entries)
            return broken(queue, "descriptor index outside its table");
        if (!gmem_read(queue->gmem, table_pa + 16u * index, &desc, sizeof desc))
            return broken(queue, "descriptor cannot be read");
        if (!(desc.flags & VIRTQ_DESC_INDIRECT)) {
            if (!add_segment(queue, chain, &desc))
                return false;
        } else {
            if (!queue->indirect || in_indirect)
                return broken(queue, "indirect descriptor where none is allowed");
            if (desc.flags & VIRTQ_DESC_NEXT)
                return broken(queue, "indirect descriptor with a next one");
            if (desc.len == 0 || desc.len % 16 || desc.len / 16 > queue->size)
                return broken(queue, "indirect table of impossible length");
            if (!in_ram(queue->gmem, desc.pa, desc.len))
                return broken(queue, "indirect table outside RAM");
            return follow(queue, chain, desc.pa, desc.len / 16, 0, true);
        }
        index = desc.next;
    } while (desc.flags & VIRTQ_DESC_NEXT);
    return true;
}

enum virtq_result virtq_take(struct virtq *queue, struct virtq_chain *chain)
{
    if (queue->broken)
        return VIRTQ_BROKEN;
    enum virtq_result result = available(queue);
    if (result != VIRTQ_TAKEN)
        return result;
    uint16_t head;
    uint32_t slot = queue->next_avail % queue->size;
    if (!load16(queue, queue->avail_pa + AVAIL_RING_OFFSET + 2u * slot, &head))
        return VIRTQ_BROKEN;
    chain->head = head;
    chain->setup = queue->setup;
    chain->readable = chain->writable = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
    if (!follow(queue, chain, queue->desc_pa, queue->size, head, false))
        return VIRTQ_BROKEN;
    queue->next_avail++;
    return VIRTQ_TAKEN;
}

void virtq_stop(struct virtq *queue)
{
    queue->setup++;
    queue->broken = "queue is not set up";
}

bool virtq_give(struct virtq *queue, const struct virtq_chain *chain, uint32_t written_bytes)
{
    if (chain->setup != queue->setup)
        return true;
    if (queue->broken)
        return false;
    struct virtq_used_elem elem = {.id = chain->head, .len = written_bytes};
    uint32_t slot = queue->next_used % queue->size;
    if (!gmem_write(queue->gmem, queue->used_pa + USED_RING_OFFSET + 8u * slot, &elem, sizeof elem))
        return broken(queue, "used ring cannot be written");
    queue->next_used++;
    return store16(queue, queue->used_pa + USED_IDX_OFFSET, queue->next_used);
}

bool virtq_wants_interrupt(struct virtq *queue)
{
    uint16_t from = queue->signalled, to = queue->next_used, word;
    if (queue->broken || from == to)
        return false;
    queue->signalled = to;
    /* The used index must be visible before the driver's wish is read, or both sides may decide
     * that the other one looks. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!queue->event_idx)
        return load16(queue, queue->avail_pa, &word) && !(word & VIRTQ_AVAIL_NO_INTERRUPT);
    if (!load16(queue, used_event_pa(queue), &word))
        return false;
    return (uint16_t)(to - word - 1) < (uint16_t)(to - from);
}
