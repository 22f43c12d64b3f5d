/*
 * The test finisher of SiFive and QEMU's virt machine: one register that ends
 * the machine. The device tree offers it as a syscon with power-off and reboot.
 */
#ifndef BALLAST_FINISHER_H
#define BALLAST_FINISHER_H

#include "vmm-core/dev/device.h"

#define FINISHER_WINDOW_BYTES UINT64_C(0x1000)
#define FINISHER_FAIL         0x3333u /* low half; the high half is a failure code */
#define FINISHER_PASS         0x5555u /* power off */
#define FINISHER_RESET        0x7777u

enum finisher_end { FINISHER_ENDS_POWEROFF, FINISHER_ENDS_REBOOT, FINISHER_ENDS_FAILURE };

/* end: called on the hart's thread when the guest writes one of the values above. */
struct finisher {
    void (*end)(void *machine, enum finisher_end how, uint32_t code);
    void *machine;
};

struct bus_range finisher_range(struct finisher *finisher, uint64_t base_pa);

#endif
