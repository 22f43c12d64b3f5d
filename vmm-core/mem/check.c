/*
 * The worker's half of the invariant check (design: "A page's states"): pmap,
 * grant pool, slots and pins against one another, then the shadow tables. The
 * supervisor's half compares the pmap with its own records.
 *
 * With all harts stopped. A page may be on its way in or out, for the pager or a
 * device may be in the middle of swap I/O; its frame and slot are then still
 * its own.
 */
#include "vmm-core/mem/gmem_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct finding {
    uint64_t violations;
    char *text;
    size_t text_bytes;
};

__attribute__((format(printf, 2, 3))) static void violation(struct finding *finding,
                                                            const char *format, ...)
{
    va_list ap;

    if (finding->violations++ > 0 || finding->text_bytes == 0)
        return;
    va_start(ap, format);
    vsnprintf(finding->text, finding->text_bytes, format, ap);
    va_end(ap);
}

/* Set bit index; was it set before? */
static bool mark(uint8_t *bits, uint32_t index)
{
    uint8_t bit = (uint8_t)(1u << (index % 8));
    bool before = bits[index / 8] & bit;

    bits[index / 8] |= bit;
    return before;
}

static void check_frame(struct gmem *gmem, struct finding *finding, uint8_t *frames, mpn_t mpn,
                        const char *place, uint32_t number)
{
    if (mpn >= gmem->machine_pages)
        violation(finding, "%s %u has frame %u, beyond machine memory", place, number, mpn);
    else if (!frame_is_held(gmem, mpn))
        violation(finding, "%s %u has frame %u, which was not granted", place, number, mpn);
    else if (mark(frames, mpn))
        violation(finding, "%s %u has frame %u, which is elsewhere too", place, number, mpn);
}

static void check_slot(struct gmem *gmem, struct finding *finding, uint8_t *slots, uint32_t slot,
                       ppn_t ppn)
{
    if (!gmem->slots || !swap_slots_used(gmem->slots, slot))
        violation(finding, "page %u is in slot %u, which is free", ppn, slot);
    else if (mark(slots, slot))
        violation(finding, "page %u is in slot %u, which holds another page", ppn, slot);
}

static bool has_own_frame(enum page_state state)
{
    return state == PAGE_PRIVATE || state == PAGE_PAGING_OUT || state == PAGE_PAGING_IN;
}

static bool has_slot(enum page_state state)
{
    return state == PAGE_PAGED || state == PAGE_PAGING_OUT || state == PAGE_PAGING_IN;
}

static void check_page(struct gmem *gmem, struct finding *finding, uint8_t *frames, uint8_t *slots,
                       ppn_t ppn)
{
    uint64_t word = pmap_word(gmem->pmap, ppn);
    enum page_state state = pmap_word_state(word);

    if (has_own_frame(state))
        check_frame(gmem, finding, frames, pmap_word_mpn(word), "page", ppn);
    else if (state == PAGE_SHARED && pmap_word_mpn(word) >= gmem->machine_pages)
        violation(finding, "shared page %u has frame %u, beyond machine memory", ppn,
                  pmap_word_mpn(word));
    else if (state != PAGE_SHARED && shadow_ppn_mapped(gmem->pmap, ppn))
        violation(finding, "page %u is %s and is mapped", ppn, page_state_name(state));
    if (has_slot(state))
        check_slot(gmem, finding, slots, pmap_word_slot(word), ppn);
    /* A page being pinned is on its way in, with its thread waiting for a frame. */
    if (mem_pins(gmem, ppn) > GMEM_MAX_PINS)
        violation(finding, "page %u has %u pins", ppn, mem_pins(gmem, ppn));
}

static void check_counts(struct gmem *gmem, struct finding *finding, const uint64_t *pages_in,
                         uint64_t pins)
{
    for (unsigned state = 0; state < PAGE_STATES; state++) {
        uint64_t kept = atomic_load(&gmem->stats->pages.pages_in[state]);
        if (kept != pages_in[state])
            violation(finding, "%" PRIu64 " pages are %s, the count says %" PRIu64, pages_in[state],
                      page_state_name((enum page_state)state), kept);
    }
    if (pins != gmem->pins_live)
        violation(finding, "%" PRIu64 " pins, the count says %u", pins, gmem->pins_live);
    if (gmem->pool_pages != atomic_load(&gmem->stats->pool_pages))
        violation(finding, "the published pool size is wrong");
}

/* Every frame held stands somewhere, every slot in use has its page or is being written. */
static void check_leftovers(struct gmem *gmem, struct finding *finding, const uint8_t *frames,
                            uint32_t slots_seen)
{
    uint32_t used = gmem->slots ? swap_slots_used_count(gmem->slots) : 0;

    for (uint32_t byte = 0; byte < (gmem->machine_pages + 7) / 8; byte++)
        if (gmem->held[byte] != frames[byte])
            violation(finding, "a frame of %u..%u is held and stands nowhere", byte * 8,
                      byte * 8 + 7);
    /* Slots of cancelled pages are given back when the cluster's write has ended. */
    if (used < slots_seen || used - slots_seen > gmem->pageout.cluster_pages)
        violation(finding, "%u slots are in use, pages have %u", used, slots_seen);
}

static void check_pages(struct gmem *gmem, struct finding *finding, uint8_t *frames, uint8_t *slots)
{
    uint64_t pages_in[PAGE_STATES] = {0}, pins = 0;
    uint32_t slots_seen = 0;

    for (uint32_t i = 0; i < gmem->pool_pages; i++)
        check_frame(gmem, finding, frames, atomic_load(&gmem->region->pool[i]), "pool place", i);
    for (ppn_t ppn = 0; ppn < gmem->ram_pages; ppn++) {
        enum page_state state = pmap_state(gmem->pmap, ppn);

        if (state >= PAGE_STATES) {
            violation(finding, "page %u is in no state there is (%u)", ppn, state);
            continue;
        }
        pages_in[state]++;
        slots_seen += has_slot(state);
        pins += mem_pins(gmem, ppn);
        check_page(gmem, finding, frames, slots, ppn);
    }
    check_counts(gmem, finding, pages_in, pins);
    check_leftovers(gmem, finding, frames, slots_seen);
}

uint64_t mem_check(struct gmem *gmem, char *text, size_t text_bytes)
{
    struct finding finding = {0, text, text_bytes};
    uint32_t slot_total = gmem->slots ? swap_slots_total(gmem->slots) : 0;
    uint8_t *frames = calloc((gmem->machine_pages + 7) / 8, 1);
    uint8_t *slots = calloc(slot_total / 8 + 1, 1);
    char shadow_text[256] = "";
    uint64_t shadow_violations;

    if (text_bytes)
        text[0] = '\0';
    if (frames && slots)
        check_pages(gmem, &finding, frames, slots);
    else
        violation(&finding, "no memory to check with");
    free(slots);
    free(frames);
    shadow_violations = shadow_check(gmem->pmap, shadow_text, sizeof(shadow_text));
    if (shadow_violations) {
        violation(&finding, "%s", shadow_text);
        finding.violations += shadow_violations - 1;
    }
    return finding.violations;
}
