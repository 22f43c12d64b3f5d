/*
 * Building a machine from its configuration, loading its guest, and taking it
 * apart. Everything that needs a path or can fail for want of something on the
 * host is done in machine_new, before the guest runs and the worker locks itself
 * in.
 */
#include "vmm-core/machine/device_tree.h"
#include "vmm-core/machine/machine_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define MIN_RAM_BYTES (UINT64_C(16) << 20)
#define RAM_GRANULE   (UINT64_C(2) << 20)
#define MAX_RAM_BYTES ((uint64_t)MAX_VM_PAGES * PAGE_BYTES)

static int check_config(const struct machine_config *config, const struct gmem_config *gmem_config,
                        struct err *err)
{
    uint64_t ram = config->ram_bytes;
    if (ram < MIN_RAM_BYTES || ram > MAX_RAM_BYTES || ram % RAM_GRANULE)
        return err_set(err, 0, "memory of %llu bytes: must be a multiple of 2 MiB, 16 MiB to 1 TiB",
                       (unsigned long long)ram);
    if (ram / PAGE_BYTES != gmem_config->region->ram_pages)
        return err_set(err, 0, "memory is %llu pages, the shared region has %u",
                       (unsigned long long)(ram / PAGE_BYTES), gmem_config->region->ram_pages);
    if (config->disk_count > MACHINE_MAX_DISKS)
        return err_set(err, 0, "%u disks: at most %d", config->disk_count, MACHINE_MAX_DISKS);
    if (!config->kernel)
        return err_set(err, 0, "no kernel given");
    return 0;
}

static void gmem_set_balloon(void *context, uint64_t balloon_pages)
{
    struct machine *machine = context;
    if (machine->balloon)
        virtio_balloon_set(machine->balloon, balloon_pages);
}

static void gmem_quit(void *context)
{
    machine_quit(context);
}

static int open_guest(struct machine *machine, const struct machine_config *config, struct err *err)
{
    return kernel_image_open(&machine->kernel, config->kernel, err) ||
                   initrd_image_open(&machine->initrd, config->initrd, err) ||
                   load_plan_make(&machine->plan, config->ram_bytes, &machine->kernel,
                                  &machine->initrd, err)
               ? -1
               : 0;
}

static int build(struct machine *machine, const struct machine_config *config,
                 struct gmem_config *gmem_config, struct err *err)
{
    gmem_config->ctx = machine;
    gmem_config->set_balloon = gmem_set_balloon;
    gmem_config->set_paused = machine_set_paused;
    gmem_config->quit = gmem_quit;
    gmem_config->park = machine_park;
    if (open_guest(machine, config, err))
        return -1;
    machine->gmem = gmem_new(gmem_config, err);
    if (!machine->gmem)
        return -1;
    machine->lock = gmem_lock(machine->gmem);
    machine->devices = device_thread_new(&machine->gate, err);
    if (!machine->devices)
        return -1;
    while (machine->hart_count < MACHINE_HARTS)
        if (machine_hart_init(machine, err))
            return -1;
    return machine_add_devices(machine, config, err);
}

struct machine *machine_new(const struct machine_config *config, struct gmem_config *gmem_config,
                            struct err *err)
{
    struct machine *machine = calloc(1, sizeof *machine);
    if (!machine) {
        err_set(err, ENOMEM, "machine");
        return NULL;
    }
    machine->config = *config;
    machine->kernel.fd = machine->initrd.fd = machine->dump_fd = -1;
    machine->name = strdup(config->name ? config->name : "");
    machine->append = strdup(config->append ? config->append : "");
    atomic_init(&machine->end, MACHINE_RUNS);
    clock_start(&machine->clock);
    pause_gate_init(&machine->gate);
    pause_gate_join(&machine->gate); /* the caller's thread: it loads, then it is the hart's */
    if (!machine->name || !machine->append)
        err_set(err, ENOMEM, "machine");
    else if (!check_config(config, gmem_config, err) && !build(machine, config, gmem_config, err))
        return machine;
    machine_free(machine);
    return NULL;
}

void machine_free(struct machine *machine)
{
    if (!machine)
        return;
    pause_gate_end(&machine->gate);
    if (machine->gmem_started)
        gmem_stop(machine->gmem);
    if (machine->devices) {
        device_thread_stop(machine->devices);
        machine_free_devices(machine);
    }
    for (unsigned i = 0; i < machine->hart_count; i++)
        machine_hart_destroy(&machine->harts[i]);
    device_thread_free(machine->devices);
    gmem_free(machine->gmem);
    if (machine->dump_fd >= 0)
        close(machine->dump_fd);
    kernel_image_close(&machine->kernel);
    initrd_image_close(&machine->initrd);
    pause_gate_destroy(&machine->gate);
    free(machine->name);
    free(machine->append);
    free(machine);
}

/* ---- Loading ---- */

static bool write_guest(void *context, uint64_t pa, const void *bytes, size_t len)
{
    struct machine *machine = context;
    return pause_gate_pass(&machine->gate) && gmem_write(machine->gmem, pa, bytes, len);
}

static int load_device_tree(struct machine *machine, struct err *err)
{
    struct device_tree_config config = {
        .ram_bytes = machine->config.ram_bytes,
        .harts = machine->hart_count,
        .sv48 = machine->config.sv48,
        .append = machine->append,
        .initrd_pa = machine->plan.initrd_pa,
        .initrd_end_pa = machine->plan.initrd_end_pa,
        .virtio_slots = machine_virtio_slots(machine),
    };
    if (getrandom(config.rng_seed, sizeof config.rng_seed, 0) != sizeof config.rng_seed)
        return err_set(err, errno, "getrandom");
    uint8_t *blob = malloc(DEVICE_TREE_MAX_BYTES);
    if (!blob)
        return err_set(err, ENOMEM, "device tree");
    int result = device_tree_make(&config, blob, DEVICE_TREE_MAX_BYTES, err);
    if (!result &&
        !write_guest(machine, machine->plan.device_tree_pa, blob, device_tree_bytes(blob)))
        result = err_set(err, 0, "device tree could not be written to guest memory");
    free(blob);
    return result;
}

/* How Linux expects to be entered (Documentation/arch/riscv/boot.rst): a0 hart, a1 device tree;
 * and, as from other SBI firmware, with user mode allowed to read time, cycle and instret: the
 * kernel's vDSO reads time there and leaves scounteren alone. */
#define SCOUNTEREN_AT_ENTRY 7
static void set_entry(struct machine *machine)
{
    struct hart_state state;
    hart_get_state(machine->harts[0].hart, &state);
    state.pc = machine->plan.kernel_pa;
    state.scounteren = SCOUNTEREN_AT_ENTRY;
    state.x[10] = 0;
    state.x[11] = machine->plan.device_tree_pa;
    hart_set_state(machine->harts[0].hart, &state);
}

static int load_all(struct machine *machine, struct err *err)
{
    struct load_target target = {.ctx = machine, .write = write_guest};
    return load_kernel(&machine->kernel, &machine->plan, &target, err) ||
                   load_initrd(&machine->initrd, &machine->plan, &target, err) ||
                   load_device_tree(machine, err)
               ? -1
               : 0;
}

int machine_load(struct machine *machine, struct err *err)
{
    if (gmem_start(machine->gmem, err))
        return -1;
    machine->gmem_started = true;
    /* A machine that is told to quit meanwhile loads no more, and machine_run returns at once. */
    if (load_all(machine, err) && atomic_load(&machine->end) == MACHINE_RUNS)
        return -1;
    kernel_image_close(&machine->kernel);
    initrd_image_close(&machine->initrd);
    set_entry(machine);
    return 0;
}
