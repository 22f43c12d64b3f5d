#ifndef BALLAST_FAKE_HART_H
#define BALLAST_FAKE_HART_H

#include "vmm-core/hart.h"

struct hart {
    _Atomic uint32_t attention;
    struct pmap *pmap;
    unsigned code_dropped;
    ppn_t last_dropped;
};

#endif
