/*
 * A hart for tests of guest memory: attention and code marks, no instructions.
 * Defines the two calls gmem makes of a hart, in place of vmm-core's.
 */
#include "tests/mem/fake_hart.h"

_Atomic uint32_t *hart_attention(struct hart *hart)
{
    return &hart->attention;
}

uint64_t hart_access_pc(const struct hart *hart)
{
    (void)hart;
    return 0x80200000;
}

void hart_drop_code(struct hart *hart, ppn_t ppn)
{
    hart->code_dropped++;
    hart->last_dropped = ppn;
    shadow_code_dropped(hart->pmap, ppn);
}
