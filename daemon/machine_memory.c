#include "daemon/machine_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK_PAGES 512u
#define WORD_BITS   64u
#define CHUNK_WORDS (CHUNK_PAGES / WORD_BITS)

struct chunk {
    uint64_t free_map[CHUNK_WORDS]; /* bit set: frame is free */
    uint32_t free_pages;
};

struct machine_memory {
    int fd;
    uint32_t pages, chunks;
    uint32_t next_chunk; /* where the next search begins */
    struct machine_counts counts;
    struct chunk *chunk;
    struct frame *frame;
    uint16_t *holds; /* a frame: requests that name it */
    const uint8_t *view;
};

static bool is_free(const struct machine_memory *memory, mpn_t mpn)
{
    const struct chunk *chunk = &memory->chunk[mpn / CHUNK_PAGES];
    uint32_t bit = mpn % CHUNK_PAGES;
    return chunk->free_map[bit / WORD_BITS] >> (bit % WORD_BITS) & 1;
}

/* Nobody's any more. */
static void mark_free(struct machine_memory *memory, mpn_t mpn)
{
    if (memory->holds[mpn]) {
        memory->counts.leaving_pages++;
        memory->frame[mpn] = (struct frame){.owner = OWNER_LEAVING};
        return;
    }
    struct chunk *chunk = &memory->chunk[mpn / CHUNK_PAGES];
    uint32_t bit = mpn % CHUNK_PAGES;
    chunk->free_map[bit / WORD_BITS] |= UINT64_C(1) << (bit % WORD_BITS);
    chunk->free_pages++;
    memory->counts.free_pages++;
    memory->frame[mpn] = (struct frame){.owner = OWNER_NONE};
}

static void mark_private(struct machine_memory *memory, mpn_t mpn, uint16_t owner)
{
    struct chunk *chunk = &memory->chunk[mpn / CHUNK_PAGES];
    uint32_t bit = mpn % CHUNK_PAGES;
    chunk->free_map[bit / WORD_BITS] &= ~(UINT64_C(1) << (bit % WORD_BITS));
    chunk->free_pages--;
    memory->counts.free_pages--;
    memory->counts.private_pages++;
    memory->frame[mpn].owner = owner;
    memory->frame[mpn].references = 1;
}

static int open_memfd(uint32_t pages, struct err *err)
{
    int fd = memfd_create("ballast-machine-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_set(err, errno, "machine memory: memfd_create");
    if (ftruncate(fd, ((off_t)pages + 1) * PAGE_BYTES) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0) {
        int errnum = errno;
        close(fd);
        return err_set(err, errnum, "machine memory of %llu bytes",
                       (unsigned long long)pages * PAGE_BYTES);
    }
    return fd;
}

struct machine_memory *machine_memory_new(uint32_t pages, struct err *err)
{
    struct machine_memory *memory = calloc(1, sizeof *memory);
    if (!memory) {
        err_set(err, ENOMEM, "machine memory");
        return NULL;
    }
    memory->fd = -1;
    memory->pages = pages;
    memory->chunks = (pages + CHUNK_PAGES - 1) / CHUNK_PAGES;
    memory->chunk = calloc(memory->chunks, sizeof *memory->chunk);
    memory->frame = calloc(pages, sizeof *memory->frame);
    memory->holds = calloc(pages, sizeof *memory->holds);
    if (!memory->chunk || !memory->frame || !memory->holds) {
        err_set(err, ENOMEM, "frame table of %u frames", pages);
        machine_memory_free(memory);
        return NULL;
    }
    memory->fd = open_memfd(pages, err);
    if (memory->fd < 0) {
        machine_memory_free(memory);
        return NULL;
    }
    for (mpn_t mpn = 0; mpn < pages; mpn++)
        mark_free(memory, mpn);
    return memory;
}

void machine_memory_free(struct machine_memory *memory)
{
    if (!memory)
        return;
    if (memory->view)
        munmap((void *)(uintptr_t)memory->view, ((size_t)memory->pages + 1) * PAGE_BYTES);
    if (memory->fd >= 0)
        close(memory->fd);
    free(memory->chunk);
    free(memory->frame);
    free(memory->holds);
    free(memory);
}

int machine_memory_fd(const struct machine_memory *memory)
{
    return memory->fd;
}

uint32_t machine_memory_pages(const struct machine_memory *memory)
{
    return memory->pages;
}

mpn_t machine_memory_zero_frame(const struct machine_memory *memory)
{
    return memory->pages;
}

const uint8_t *machine_memory_view(struct machine_memory *memory, struct err *err)
{
    if (memory->view)
        return memory->view;
    size_t bytes = ((size_t)memory->pages + 1) * PAGE_BYTES;
    void *view = mmap(NULL, bytes, PROT_READ, MAP_SHARED, memory->fd, 0);
    if (view == MAP_FAILED) {
        err_set(err, errno, "view of %zu bytes of machine memory", bytes);
        return NULL;
    }
    madvise(view, bytes, MADV_DONTDUMP); /* guests' bytes have no place in our core */
    memory->view = view;
    return view;
}

struct machine_counts machine_memory_counts(const struct machine_memory *memory)
{
    return memory->counts;
}

bool machine_memory_recount(const struct machine_memory *memory, struct machine_counts *counts)
{
    bool sound = true;
    *counts = (struct machine_counts){0};
    for (mpn_t mpn = 0; mpn < memory->pages; mpn++) {
        const struct frame *frame = &memory->frame[mpn];
        bool on_map = is_free(memory, mpn);
        if (frame->owner == OWNER_NONE)
            counts->free_pages++;
        else if (frame->owner == OWNER_SHARED)
            counts->shared_pages++;
        else if (frame->owner == OWNER_LEAVING)
            counts->leaving_pages++;
        else
            counts->private_pages++;
        bool nobodys = on_map || frame->owner == OWNER_LEAVING;
        if (on_map != (frame->owner == OWNER_NONE) || nobodys != (frame->references == 0) ||
            (frame->owner == OWNER_LEAVING && !memory->holds[mpn]))
            sound = false;
    }
    return sound;
}

/* First free frame of a chunk at or after bit `from`; CHUNK_PAGES when there is none. */
static uint32_t first_free_bit(const struct chunk *chunk, uint32_t from)
{
    for (uint32_t word = from / WORD_BITS; word < CHUNK_WORDS; word++) {
        uint64_t bits = chunk->free_map[word];
        if (word == from / WORD_BITS)
            bits &= ~UINT64_C(0) << (from % WORD_BITS);
        if (bits)
            return word * WORD_BITS + (uint32_t)__builtin_ctzll(bits);
    }
    return CHUNK_PAGES;
}

/* The next chunk that is wholly free, else one with anything free; chunks when none has. */
static uint32_t pick_chunk(struct machine_memory *memory)
{
    uint32_t partly = memory->chunks;
    for (uint32_t i = 0; i < memory->chunks; i++) {
        uint32_t at = (memory->next_chunk + i) % memory->chunks;
        if (memory->chunk[at].free_pages == CHUNK_PAGES) {
            memory->next_chunk = (at + 1) % memory->chunks;
            return at;
        }
        if (partly == memory->chunks && memory->chunk[at].free_pages)
            partly = at;
    }
    return partly;
}

uint32_t machine_memory_take(struct machine_memory *memory, uint16_t owner, mpn_t near,
                             uint32_t max_pages, mpn_t *first)
{
    if (!memory->counts.free_pages || !max_pages)
        return 0;
    mpn_t mpn = NO_MPN;
    if (near < memory->pages && memory->chunk[near / CHUNK_PAGES].free_pages) {
        const struct chunk *chunk = &memory->chunk[near / CHUNK_PAGES];
        uint32_t bit = first_free_bit(chunk, near % CHUNK_PAGES);
        if (bit == CHUNK_PAGES)
            bit = first_free_bit(chunk, 0);
        mpn = near / CHUNK_PAGES * CHUNK_PAGES + bit;
    } else {
        uint32_t at = pick_chunk(memory);
        mpn = at * CHUNK_PAGES + first_free_bit(&memory->chunk[at], 0);
    }
    *first = mpn;
    uint32_t run = 0;
    while (run < max_pages && mpn + run < memory->pages && is_free(memory, mpn + run)) {
        mark_private(memory, mpn + run, owner);
        run++;
    }
    return run;
}

bool machine_memory_is_private(const struct machine_memory *memory, uint16_t owner, mpn_t mpn)
{
    return mpn < memory->pages && owner != OWNER_NONE && owner != OWNER_SHARED &&
           owner != OWNER_LEAVING && memory->frame[mpn].owner == owner;
}

bool machine_memory_give_back(struct machine_memory *memory, uint16_t owner, mpn_t mpn)
{
    if (!machine_memory_is_private(memory, owner, mpn))
        return false;
    mark_free(memory, mpn);
    memory->counts.private_pages--;
    return true;
}

uint32_t machine_memory_give_back_all(struct machine_memory *memory, uint16_t owner)
{
    uint32_t given = 0;
    for (mpn_t mpn = 0; mpn < memory->pages; mpn++)
        given += machine_memory_give_back(memory, owner, mpn);
    return given;
}

bool machine_memory_hold(struct machine_memory *memory, mpn_t mpn)
{
    if (memory->holds[mpn] == UINT16_MAX)
        return false;
    memory->holds[mpn]++;
    return true;
}

void machine_memory_unhold(struct machine_memory *memory, mpn_t mpn)
{
    memory->holds[mpn]--;
    if (memory->holds[mpn] || memory->frame[mpn].owner != OWNER_LEAVING)
        return;
    memory->counts.leaving_pages--;
    mark_free(memory, mpn);
}

bool machine_memory_is_held(const struct machine_memory *memory, mpn_t mpn)
{
    return memory->holds[mpn] > 0;
}

bool machine_memory_make_shared(struct machine_memory *memory, uint16_t owner, mpn_t mpn)
{
    if (!machine_memory_is_private(memory, owner, mpn))
        return false;
    memory->frame[mpn].owner = OWNER_SHARED;
    memory->counts.private_pages--;
    memory->counts.shared_pages++;
    return true;
}

bool machine_memory_make_private(struct machine_memory *memory, uint16_t owner, mpn_t mpn)
{
    if (!machine_memory_is_shared(memory, mpn) || memory->frame[mpn].references != 1)
        return false;
    memory->frame[mpn].owner = owner;
    memory->counts.shared_pages--;
    memory->counts.private_pages++;
    return true;
}

bool machine_memory_is_shared(const struct machine_memory *memory, mpn_t mpn)
{
    return mpn < memory->pages && memory->frame[mpn].owner == OWNER_SHARED;
}

void machine_memory_ref(struct machine_memory *memory, mpn_t mpn)
{
    memory->frame[mpn].references++;
}

void machine_memory_unref(struct machine_memory *memory, mpn_t mpn)
{
    if (--memory->frame[mpn].references)
        return;
    memory->counts.shared_pages--;
    mark_free(memory, mpn);
}

void machine_memory_prefetch(const struct machine_memory *memory, mpn_t mpn)
{
    __builtin_prefetch(&memory->frame[mpn]);
    __builtin_prefetch(&memory->holds[mpn]);
}

const struct frame *machine_memory_frame(const struct machine_memory *memory, mpn_t mpn)
{
    return &memory->frame[mpn];
}
