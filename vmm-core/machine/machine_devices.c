/*
 * What is on the bus. To add a device: make it here, give it a place in
 * memory_map.h (or the next virtio slot), and a node in device_tree.c.
 *
 * virtio-mmio slots are filled from 0: console, balloon, entropy, then disks in
 * their order, which is the order of /dev/vda, /dev/vdb, ...
 */
#include "vmm-core/machine/machine_parts.h"

static void finisher_end(void *context, enum finisher_end how, uint32_t code)
{
    struct machine *machine = context;
    static const enum machine_end ends[] = {
        [FINISHER_ENDS_POWEROFF] = MACHINE_POWEROFF,
        [FINISHER_ENDS_REBOOT] = MACHINE_REBOOT,
        [FINISHER_ENDS_FAILURE] = MACHINE_FAILED,
    };
    atomic_store(&machine->fail_code, code);
    machine_set_end(machine, ends[how]);
}

static int add_range(struct machine *machine, struct bus_range range, struct err *err)
{
    return bus_add(&machine->bus, &range, err);
}

/* A virtio register access that has to wait for the device thread does so outside guest code. */
static _Thread_local int hart_that_left = MEMLOCK_NOT_A_HART;

static void leave_guest(void *context)
{
    struct memlock *lock = ((struct machine *)context)->lock;
    hart_that_left = memlock_self(lock);
    if (hart_that_left != MEMLOCK_NOT_A_HART)
        memlock_leave(lock, hart_that_left);
}

static void pause_point(void *context)
{
    pause_gate_pass(&((struct machine *)context)->gate);
}

static void enter_guest(void *context)
{
    if (hart_that_left != MEMLOCK_NOT_A_HART)
        memlock_enter(((struct machine *)context)->lock, hart_that_left);
}

/* Put device (NULL: its constructor failed) into the next slot. */
static int add_virtio(struct machine *machine, struct virtio_device *device, struct err *err)
{
    if (!device)
        return -1;
    for (unsigned slot = 0; slot < VIRTIO_SLOTS; slot++) {
        if (machine->virtio[slot])
            continue;
        machine->virtio[slot] = device; /* freed with the machine, whatever follows */
        struct irq_line line = plic_line(&machine->plic, virtio_slot_source(slot));
        return virtio_attach(device, &machine->bus, virtio_slot_pa(slot), &line, err);
    }
    virtio_device_free(device);
    return err_set(err, 0, "more than %u virtio devices", VIRTIO_SLOTS);
}

static int add_all_virtio(struct machine *machine, const struct machine_config *config,
                          struct err *err)
{
    struct virtio_env env = {.gmem = machine->gmem,
                             .thread = machine->devices,
                             .ctx = machine,
                             .leave_guest = leave_guest,
                             .pause_point = pause_point,
                             .enter_guest = enter_guest};
    const struct machine_console *virtcon = &config->virtcon;
    if (config->have_virtcon && add_virtio(machine,
                                           virtio_console_new(&env, virtcon->in_fd, virtcon->out_fd,
                                                              virtcon->listen_fd, err),
                                           err))
        return err_prefix(err, "virtio console");
    if (config->have_balloon) {
        struct virtio_balloon_options options = {.deflate_on_oom = config->deflate_on_oom,
                                                 .free_page_reporting =
                                                     config->free_page_reporting};
        machine->balloon = virtio_balloon_new(&env, &options, err);
        if (add_virtio(machine, machine->balloon, err))
            return err_prefix(err, "balloon");
    }
    if (config->have_rng && add_virtio(machine, virtio_rng_new(&env, err), err))
        return err_prefix(err, "entropy device");
    for (unsigned i = 0; i < config->disk_count; i++) {
        const struct machine_disk *disk = &config->disks[i];
        if (add_virtio(machine, virtio_block_new(&env, disk->path, disk->read_only, err), err))
            return -1;
    }
    return 0;
}

int machine_add_devices(struct machine *machine, const struct machine_config *config,
                        struct err *err)
{
    struct irq_line outputs[MACHINE_HARTS];
    for (unsigned hart = 0; hart < MACHINE_HARTS; hart++)
        outputs[hart] =
            (struct irq_line){.set = machine_hart_interrupt, .controller = machine, .source = hart};
    plic_init(&machine->plic, outputs, MACHINE_HARTS);

    machine->finisher = (struct finisher){.end = finisher_end, .machine = machine};
    struct console_config uart_fds = {.in_fd = config->uart.in_fd,
                                      .out_fd = config->uart.out_fd,
                                      .listen_fd = config->uart.listen_fd};
    machine->uart =
        uart_new(machine->devices, &uart_fds, plic_line(&machine->plic, UART_SOURCE), err);
    if (!machine->uart)
        return err_prefix(err, "UART");
    if (add_range(machine, finisher_range(&machine->finisher, FINISHER_BASE_PA), err) ||
        add_range(machine, plic_range(&machine->plic, PLIC_BASE_PA), err) ||
        add_range(machine, uart_range(machine->uart, UART_BASE_PA), err))
        return -1;
    return add_all_virtio(machine, config, err);
}

void machine_free_devices(struct machine *machine)
{
    for (unsigned slot = 0; slot < VIRTIO_SLOTS; slot++)
        if (machine->virtio[slot])
            virtio_device_free(machine->virtio[slot]);
    uart_free(machine->uart);
    plic_destroy(&machine->plic);
}

uint32_t machine_virtio_slots(const struct machine *machine)
{
    uint32_t slots = 0;
    for (unsigned slot = 0; slot < VIRTIO_SLOTS; slot++)
        slots |= (uint32_t)(machine->virtio[slot] != NULL) << slot;
    return slots;
}
