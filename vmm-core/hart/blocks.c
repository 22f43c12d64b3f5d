/*
 * The cache of decoded blocks, keyed by guest physical address, and the two
 * small caches that lead from a virtual pc to a block.
 *
 * What is kept:
 *   arena       blocks, one after the other; nothing is freed by itself: when it
 *               is full everything is flushed
 *   hash        from physical pc to block
 *   page_first  from ppn to the blocks with code on that page, so that a store
 *               to the page drops those and no others
 *   code_tlb    from virtual page to ppn   } both keyed by pc ^ jump_key, that is
 *   jumps       from virtual pc to block   } by pc, mode, space and epoch
 *
 * A block is chained directly only to blocks of its own page: those are
 * dropped together, so a chain never leads from live code to dead code. Dropped
 * blocks stay readable until the next flush, because a handler may be in the
 * middle of one (a store to its own page): what it executes until its next
 * fence.i or look-up is what was there before, which the manual allows
 * (unprivileged 3, FENCE.I).
 *
 * A page with blocks is marked in shadow-pt, so that stores to it are seen. Marks
 * outlive a flush; a store to a marked page without blocks costs one slow path.
 *
 * Only the hart's thread comes here, but for blocks_drop_page (see
 * hart_drop_code).
 */
#include "vmm-core/hart/core.h"

#include <stdlib.h>
#include <string.h>

/* 5 MiB of ops: some 200,000 instructions, more than Debian's boot executes. */
#define ARENA_OPS    (5u * 1024 * 1024 / sizeof(struct op))
#define HASH_BUCKETS 16384u
#define HEADER_OPS   (sizeof(struct block) / sizeof(struct op))

static struct block *block_at(struct hart *h, uint32_t index)
{
    return (struct block *)&h->arena[index];
}

static uint32_t *bucket_of(struct hart *h, uint64_t pa)
{
    return &h->hash[(pa >> 1 ^ pa >> 15) % HASH_BUCKETS];
}

bool blocks_new(struct hart *h)
{
    h->ram_pages = pmap_pages(h->pmap);
    h->arena = malloc(ARENA_OPS * sizeof(struct op));
    h->hash = calloc(HASH_BUCKETS, sizeof *h->hash);
    h->page_first = calloc(h->ram_pages, sizeof *h->page_first);
    h->arena_used = HEADER_OPS + BLOCK_OPS; /* index 0 ends lists; its room serves blocks_single */
    if (!h->arena || !h->hash || !h->page_first)
        return false;
    blocks_fence_all(h);
    return true;
}

void blocks_free(struct hart *h)
{
    free(h->arena);
    free(h->hash);
    free(h->page_first);
}

/* Forget every virtual pc, in every space, for good. */
static void forget_all_keys(struct hart *h)
{
    /* 0 is no key: a canonical pc's top 16 bits equal an epoch, which is not 0, only if both
     * are 0xffff, and then bit 47 is set. */
    memset(h->jumps, 0, sizeof h->jumps);
    memset(h->code_tlb, 0, sizeof h->code_tlb);
    h->last_epoch = 0;
}

static uint16_t new_epoch(struct hart *h)
{
    if (h->last_epoch == UINT16_MAX) {
        forget_all_keys(h);
        memset(h->spaces, 0, sizeof h->spaces);
    }
    return ++h->last_epoch;
}

void blocks_set_space(struct hart *h)
{
    uint64_t asid = h->satp >> 44 & 0xffff;
    struct space_key *space = &h->spaces[asid % SPACE_KEYS];
    if (space->satp != h->satp || !space->epoch) {
        uint16_t epoch = new_epoch(h); /* may clear spaces[] */
        *space = (struct space_key){.satp = h->satp, .epoch = epoch};
    }
    h->jump_key = (uint64_t)space->epoch << 48 | (h->priv == SHADOW_U);
}

void blocks_fence_all(struct hart *h)
{
    memset(h->spaces, 0, sizeof h->spaces);
    memset(h->code_vpns, 0, sizeof h->code_vpns);
    memset(h->code_regions, 0, sizeof h->code_regions);
    h->code_in_large_leaf = false;
    blocks_set_space(h);
}

static uint64_t *vpn_word(struct hart *h, uint64_t va, uint64_t *bit)
{
    uint64_t vpn = va >> PAGE_SHIFT;
    uint64_t slot = (vpn ^ vpn >> 16) & 0xffff;
    *bit = UINT64_C(1) << (slot & 63);
    return &h->code_vpns[slot / 64];
}

/* The kernel's half apart from the other: it maps itself by superpages, and programs are fenced. */
static uint64_t *region_word(struct hart *h, uint64_t va, uint64_t *bit)
{
    uint64_t region = va >> 21;
    uint64_t slot = ((region ^ region >> 11) & 0x7ff) | va >> 63 << 11;
    *bit = UINT64_C(1) << (slot & 63);
    return &h->code_regions[slot / 64];
}

void blocks_note_code(struct hart *h, uint64_t va, unsigned level)
{
    uint64_t bit, *word = vpn_word(h, va, &bit);
    *word |= bit;
    if (level == 1) {
        word = region_word(h, va, &bit);
        *word |= bit;
    }
    h->code_in_large_leaf |= level > 1;
}

/* May code have been found through the leaf of va? A fence at any address of a superpage is one for
 * all of it (privileged manual 4.2.1). */
static bool code_behind(struct hart *h, uint64_t va)
{
    uint64_t bit, region_bit;
    uint64_t word = *vpn_word(h, va, &bit), region = *region_word(h, va, &region_bit);
    return (word & bit) || (region & region_bit) || h->code_in_large_leaf;
}

/* Nothing found through this ASID's tables is believed any more; others keep what they have. */
static void forget_asid(struct hart *h, uint16_t asid)
{
    struct space_key *space = &h->spaces[asid % SPACE_KEYS];
    if ((uint16_t)(space->satp >> 44) != asid)
        return;
    space->epoch = 0;
    blocks_set_space(h);
}

void blocks_fence(struct hart *h, bool va_given, uint64_t va, bool asid_given, uint16_t asid)
{
    if (va_given && !code_behind(h, va))
        return;
    if (asid_given)
        forget_asid(h, asid);
    else
        blocks_fence_all(h);
}

void blocks_flush(struct hart *h)
{
    memset(h->hash, 0, HASH_BUCKETS * sizeof *h->hash);
    memset(h->page_first, 0, h->ram_pages * sizeof *h->page_first);
    h->arena_used = HEADER_OPS + BLOCK_OPS;
    h->flush_generation++;
    h->counts.block_cache_flushes++;
    blocks_fence_all(h);
}

static ppn_t first_page(const struct block *block)
{
    return (ppn_t)((block->pa - RAM_BASE_PA) >> PAGE_SHIFT);
}

static void unlink_from_hash(struct hart *h, uint32_t index)
{
    uint32_t *link = bucket_of(h, block_at(h, index)->pa);
    while (*link && *link != index)
        link = &block_at(h, *link)->next_hash;
    if (*link)
        *link = block_at(h, index)->next_hash;
}

void blocks_drop_page(struct hart *h, ppn_t ppn)
{
    if (ppn >= h->ram_pages || !h->page_first[ppn])
        return;
    uint32_t index = h->page_first[ppn];
    h->page_first[ppn] = 0;
    while (index) {
        struct block *block = block_at(h, index);
        if (!block->dead) {
            unlink_from_hash(h, index);
            block->dead = 1;
            h->counts.blocks_dropped++;
        }
        index = first_page(block) == ppn ? block->next_page : block->next_page2;
    }
    blocks_fence_all(h);
}

/* --- from virtual pc to guest physical page --- */

static struct code_tlb_entry *code_tlb_slot(struct hart *h, uint64_t va)
{
    return &h->code_tlb[va >> PAGE_SHIFT & (CODE_TLB_ENTRIES - 1)];
}

static void code_tlb_fill(struct hart *h, uint64_t va, ppn_t ppn)
{
    *code_tlb_slot(h, va) =
        (struct code_tlb_entry){.key = (va & PAGE_MASK) ^ h->jump_key, .ppn = ppn};
}

/* The ppn of the code page at va, or NO_PPN with a trap set. */
static ppn_t code_ppn(struct hart *h, uint64_t va)
{
    struct code_tlb_entry *entry = code_tlb_slot(h, va);
    if (entry->key == ((va & PAGE_MASK) ^ h->jump_key) && pc_is_canonical(va))
        return entry->ppn;
    ppn_t ppn;
    hart_lock(h);
    bool found = hart_fetch_host(h, va, &ppn) != NULL;
    hart_unlock(h);
    if (!found)
        return NO_PPN;
    code_tlb_fill(h, va, ppn);
    return ppn;
}

static uint64_t ram_pa(ppn_t ppn, uint64_t va)
{
    return RAM_BASE_PA + ((uint64_t)ppn << PAGE_SHIFT) + (va & (PAGE_BYTES - 1));
}

/* --- making blocks --- */

static void mark_code(struct hart *h, ppn_t ppn)
{
    if (!shadow_is_code(h->pmap, ppn))
        shadow_code_added(h->pmap, ppn);
}

/* Point source at the instruction bytes at pc, with the lock held. False: trap set. */
static bool open_source(struct hart *h, uint64_t pc, struct block *block,
                        struct block_source *source)
{
    ppn_t ppn, ppn2 = NO_PPN;
    for (;;) {
        uint16_t low, high;
        uint32_t waits = h->waits;
        source->bytes = hart_fetch_host(h, pc, &ppn);
        if (!source->bytes)
            return false;
        source->room = PAGE_BYTES - (uint32_t)(pc & (PAGE_BYTES - 1));
        memcpy(&low, source->bytes, 2);
        if (source->room > 2 || !insn_is_wide(low))
            break;
        const uint8_t *second = hart_fetch_host(h, pc + 2, &ppn2);
        if (!second)
            return false;
        memcpy(&high, second, 2);
        source->straddling = (uint32_t)high << 16 | low;
        /* Making one page resident may have cost the other its frame or its content. */
        if (h->waits == waits)
            break;
    }
    *block = (struct block){.pa = ram_pa(ppn, pc), .straddles = ppn2 != NO_PPN, .ppn2 = ppn2};
    return true;
}

static void link_block(struct hart *h, uint32_t index)
{
    struct block *block = block_at(h, index);
    ppn_t ppn = first_page(block);
    uint32_t *bucket = bucket_of(h, block->pa);
    block->next_hash = *bucket;
    *bucket = index;
    block->next_page = h->page_first[ppn];
    h->page_first[ppn] = index;
    mark_code(h, ppn);
    if (block->straddles && block->ppn2 != ppn) {
        block->next_page2 = h->page_first[block->ppn2];
        h->page_first[block->ppn2] = index;
        mark_code(h, block->ppn2);
    }
}

static struct block *make_block(struct hart *h, uint64_t pc)
{
    if (h->arena_used + HEADER_OPS + BLOCK_OPS > ARENA_OPS)
        blocks_flush(h);
    uint32_t index = h->arena_used;
    struct block *block = block_at(h, index);
    struct block_source source = {.max_insns = BLOCK_HALFWORDS};
    hart_lock(h);
    bool opened = open_source(h, pc, block, &source);
    if (opened) {
        h->arena_used += HEADER_OPS + block_build(h, block, &source);
        link_block(h, index);
        h->counts.blocks_decoded++;
    }
    hart_unlock(h);
    return opened ? block : NULL;
}

const struct block *blocks_single(struct hart *h, uint64_t pc)
{
    struct block *block = block_at(h, 0);
    struct block_source source = {.max_insns = 1};
    hart_lock(h);
    bool opened = open_source(h, pc, block, &source);
    if (opened)
        block_build(h, block, &source);
    hart_unlock(h);
    return opened ? block : NULL;
}

static struct block *find_physical(struct hart *h, uint64_t pa, uint64_t pc)
{
    for (uint32_t index = *bucket_of(h, pa); index; index = block_at(h, index)->next_hash) {
        struct block *block = block_at(h, index);
        if (block->pa != pa)
            continue;
        /* The same first page may be followed by another second page in this space. */
        if (block->straddles && code_ppn(h, pc + 2) != block->ppn2)
            continue;
        if (block->dead) /* the walk waited for memory, and the code went meanwhile */
            return NULL;
        return block;
    }
    return NULL;
}

const struct block *blocks_find(struct hart *h, uint64_t pc)
{
    struct jump_entry *entry = &h->jumps[pc >> 1 & (JUMP_ENTRIES - 1)];
    if (entry->key == (pc ^ h->jump_key) && pc_is_canonical(pc))
        return entry->block;
    ppn_t ppn = code_ppn(h, pc);
    if (ppn == NO_PPN)
        return NULL;
    struct block *block = find_physical(h, ram_pa(ppn, pc), pc);
    if (!block) {
        block = make_block(h, pc);
        if (!block)
            return NULL;
        if (block->straddles)
            code_tlb_fill(h, pc + 2, block->ppn2);
    }
    *entry = (struct jump_entry){.key = pc ^ h->jump_key, .block = block};
    return block;
}
