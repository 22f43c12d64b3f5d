/*
 * Address kinds. The paper's three address spaces, and the names they have in
 * every signature of this project:
 *
 *   vpn  guest virtual page number          (what the guest program names)
 *   ppn  guest "physical" page number       (what the guest kernel names)
 *   mpn  machine page number                (a frame of the machine memfd)
 *
 * A ppn counts from the start of guest RAM (guest physical RAM_BASE_PA is
 * ppn 0), so that it indexes the pmap. An mpn counts from the start of machine
 * memory, so that it indexes the frame table. The three never meet in one
 * variable.
 */
#ifndef BALLAST_ADDR_H
#define BALLAST_ADDR_H

#include <stdint.h>

typedef uint64_t vpn_t;
typedef uint32_t ppn_t;
typedef uint32_t mpn_t;

#define PAGE_SHIFT   12
#define PAGE_BYTES   4096u
#define PAGE_MASK    (~(uint64_t)(PAGE_BYTES - 1))
#define RAM_BASE_PA  UINT64_C(0x80000000) /* where guest RAM starts, as on QEMU's virt machine */
#define NO_PPN       ((ppn_t)~0u)
#define NO_MPN       ((mpn_t)~0u)
#define MAX_VM_PAGES (1u << 28) /* 1 TiB: the width of a number in a pmap word */

#endif
