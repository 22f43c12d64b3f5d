/*
 * What a worker is told about its VM, as a structure and as the JSON object that
 * worker_fds.h describes. Nothing in it is believed before vm_config_parse has
 * checked it; an unknown key is an error that names the key.
 */
#ifndef BALLAST_VM_CONFIG_H
#define BALLAST_VM_CONFIG_H

#include "vmm-core/err.h"
#include "vmm-core/machine.h"

#include <stddef.h>
#include <stdint.h>

#define VM_CONFIG_MAX_BYTES 65536u /* of JSON text */

struct vm_config_console {
    bool present;
    bool in, out, listen; /* which of its descriptors the worker finds open */
};

struct vm_config {
    char *name;
    uint64_t ram_bytes;
    char *kernel, *initrd, *append; /* initrd and append may be NULL */
    struct vm_config_disk {
        char *path;
        bool read_only;
    } disks[MACHINE_MAX_DISKS];
    unsigned disk_count;
    bool sv48, deflate_on_oom, free_page_reporting;
    uint32_t swap_slots;  /* 0: no swap file */
    uint64_t random_seed; /* below 2^63: JSON numbers are signed */
    struct vm_config_console uart, virtcon;
};

/* Parse len bytes of text. On failure *config is empty and *err names the key or the line. */
int vm_config_parse(const char *text, size_t len, struct vm_config *config, struct err *err);

/* The same object as text, to be freed by the caller. NULL with *err: a string is not UTF-8, or no
 * memory. */
char *vm_config_format(const struct vm_config *config, struct err *err);

void vm_config_free(struct vm_config *config);

#endif
