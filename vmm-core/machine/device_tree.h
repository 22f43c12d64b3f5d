/*
 * The device tree a guest is given, after that of QEMU's virt machine. It
 * promises what the machine honours and nothing else.
 */
#ifndef BALLAST_DEVICE_TREE_H
#define BALLAST_DEVICE_TREE_H

#include "vmm-core/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RNG_SEED_BYTES 32

struct device_tree_config {
    uint64_t ram_bytes;
    unsigned harts;
    bool sv48;
    const char *append;                /* kernel command line; NULL: none */
    uint64_t initrd_pa, initrd_end_pa; /* equal: none */
    uint8_t rng_seed[RNG_SEED_BYTES];
    uint32_t virtio_slots; /* bit n: there is a device in virtio-mmio slot n */
};

/* Write the flattened tree to blob (bytes long). -1 with *err when it does not fit. */
int device_tree_make(const struct device_tree_config *config, void *blob, size_t bytes,
                     struct err *err);
/* Length of a tree that device_tree_make has written. */
size_t device_tree_bytes(const void *blob);

#endif
