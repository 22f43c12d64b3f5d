/*
 * The tree is written in order with libfdt's sequential calls. Each of them is
 * harmless after one has failed (struct tree_writer), so that only the end is
 * checked.
 */
#include "vmm-core/machine/device_tree.h"

#include "vmm-core/clock.h"
#include "vmm-core/dev/finisher.h"
#include "vmm-core/dev/plic.h"
#include "vmm-core/dev/uart.h"
#include "vmm-core/hart.h"
#include "vmm-core/machine/memory_map.h"

#include <libfdt.h>
#include <stdio.h>

/* What a hart is. Sstc: stimecmp is there. Svvptc: a page-table entry that becomes valid is seen
 * without a fence, because the shadow tables never cache an invalid one. */
#define ISA_STRING "rv64imafdc_zicntr_zicsr_zifencei_sstc_svvptc"
static const char isa_extensions[] =
    "i\0m\0a\0f\0d\0c\0zicntr\0zicsr\0zifencei\0sstc\0svvptc"; /* and the final NUL */

enum phandle { PHANDLE_PLIC = 1, PHANDLE_FINISHER, PHANDLE_CPU0_INTC = 16 };

#define INTC_S_EXTERNAL 9u /* bit of IRQ_S_EXTERNAL, as an interrupt specifier */

struct tree_writer {
    void *blob;
    int error; /* of the first libfdt call that failed */
};

static void put(struct tree_writer *tree, int result)
{
    if (!tree->error)
        tree->error = result;
}

static void begin(struct tree_writer *tree, const char *name)
{
    if (!tree->error)
        put(tree, fdt_begin_node(tree->blob, name));
}

static void begin_at(struct tree_writer *tree, const char *name, uint64_t address)
{
    char full[64];
    snprintf(full, sizeof full, "%s@%llx", name, (unsigned long long)address);
    begin(tree, full);
}

static void end(struct tree_writer *tree)
{
    if (!tree->error)
        put(tree, fdt_end_node(tree->blob));
}

static void bytes(struct tree_writer *tree, const char *name, const void *value, size_t len)
{
    if (!tree->error)
        put(tree, fdt_property(tree->blob, name, value, (int)len));
}

static void flag(struct tree_writer *tree, const char *name)
{
    bytes(tree, name, "", 0);
}

static void text(struct tree_writer *tree, const char *name, const char *value)
{
    bytes(tree, name, value, strlen(value) + 1);
}

static void cell(struct tree_writer *tree, const char *name, uint32_t value)
{
    fdt32_t be = cpu_to_fdt32(value);
    bytes(tree, name, &be, sizeof be);
}

static void cell64(struct tree_writer *tree, const char *name, uint64_t value)
{
    fdt64_t be = cpu_to_fdt64(value);
    bytes(tree, name, &be, sizeof be);
}

static void reg(struct tree_writer *tree, uint64_t base, uint64_t size)
{
    fdt64_t be[2] = {cpu_to_fdt64(base), cpu_to_fdt64(size)};
    bytes(tree, "reg", be, sizeof be);
}

static void write_chosen(struct tree_writer *tree, const struct device_tree_config *config)
{
    begin(tree, "chosen");
    text(tree, "bootargs", config->append ? config->append : "");
    char stdout_path[48];
    snprintf(stdout_path, sizeof stdout_path, "/soc/serial@%llx", (unsigned long long)UART_BASE_PA);
    text(tree, "stdout-path", stdout_path);
    if (config->initrd_end_pa > config->initrd_pa) {
        cell64(tree, "linux,initrd-start", config->initrd_pa);
        cell64(tree, "linux,initrd-end", config->initrd_end_pa);
    }
    bytes(tree, "rng-seed", config->rng_seed, sizeof config->rng_seed);
    end(tree);
}

static void write_memory(struct tree_writer *tree, const struct device_tree_config *config)
{
    begin_at(tree, "memory", RAM_BASE_PA);
    text(tree, "device_type", "memory");
    reg(tree, RAM_BASE_PA, config->ram_bytes);
    end(tree);
}

static void write_cpus(struct tree_writer *tree, const struct device_tree_config *config)
{
    begin(tree, "cpus");
    cell(tree, "#address-cells", 1);
    cell(tree, "#size-cells", 0);
    cell(tree, "timebase-frequency", TIMEBASE_HZ);
    for (unsigned hart = 0; hart < config->harts; hart++) {
        begin_at(tree, "cpu", hart);
        text(tree, "device_type", "cpu");
        cell(tree, "reg", hart);
        text(tree, "status", "okay");
        text(tree, "compatible", "riscv");
        text(tree, "riscv,isa", ISA_STRING);
        text(tree, "riscv,isa-base", "rv64i");
        bytes(tree, "riscv,isa-extensions", isa_extensions, sizeof isa_extensions);
        text(tree, "mmu-type", config->sv48 ? "riscv,sv48" : "riscv,sv39");
        begin(tree, "interrupt-controller");
        cell(tree, "#interrupt-cells", 1);
        flag(tree, "interrupt-controller");
        text(tree, "compatible", "riscv,cpu-intc");
        cell(tree, "phandle", PHANDLE_CPU0_INTC + hart);
        end(tree);
        end(tree);
    }
    end(tree);
}

static void write_plic(struct tree_writer *tree, unsigned harts)
{
    static const char compatible[] = "sifive,plic-1.0.0\0riscv,plic0";
    fdt32_t outputs[2 * PLIC_MAX_CONTEXTS];
    for (unsigned hart = 0; hart < harts; hart++) {
        outputs[2 * hart] = cpu_to_fdt32(PHANDLE_CPU0_INTC + hart);
        outputs[2 * hart + 1] = cpu_to_fdt32(INTC_S_EXTERNAL);
    }
    begin_at(tree, "plic", PLIC_BASE_PA);
    bytes(tree, "compatible", compatible, sizeof compatible);
    cell(tree, "#address-cells", 0);
    cell(tree, "#interrupt-cells", 1);
    flag(tree, "interrupt-controller");
    reg(tree, PLIC_BASE_PA, PLIC_WINDOW_BYTES);
    bytes(tree, "interrupts-extended", outputs, 2 * harts * sizeof outputs[0]);
    cell(tree, "riscv,ndev", PLIC_SOURCES);
    cell(tree, "phandle", PHANDLE_PLIC);
    end(tree);
}

static void write_interrupt(struct tree_writer *tree, unsigned source)
{
    cell(tree, "interrupt-parent", PHANDLE_PLIC);
    cell(tree, "interrupts", source);
}

static void write_soc(struct tree_writer *tree, const struct device_tree_config *config)
{
    static const char finisher[] = "sifive,test1\0sifive,test0\0syscon";
    begin(tree, "soc");
    cell(tree, "#address-cells", 2);
    cell(tree, "#size-cells", 2);
    text(tree, "compatible", "simple-bus");
    flag(tree, "ranges");

    begin_at(tree, "test", FINISHER_BASE_PA);
    bytes(tree, "compatible", finisher, sizeof finisher);
    reg(tree, FINISHER_BASE_PA, FINISHER_WINDOW_BYTES);
    cell(tree, "phandle", PHANDLE_FINISHER);
    end(tree);

    write_plic(tree, config->harts);

    begin_at(tree, "serial", UART_BASE_PA);
    text(tree, "compatible", "ns16550a");
    reg(tree, UART_BASE_PA, UART_WINDOW_BYTES);
    cell(tree, "clock-frequency", UART_CLOCK_HZ);
    write_interrupt(tree, UART_SOURCE);
    end(tree);

    for (unsigned slot = 0; slot < VIRTIO_SLOTS; slot++) {
        if (!(config->virtio_slots >> slot & 1))
            continue;
        begin_at(tree, "virtio_mmio", virtio_slot_pa(slot));
        text(tree, "compatible", "virtio,mmio");
        reg(tree, virtio_slot_pa(slot), VIRTIO_BYTES);
        write_interrupt(tree, virtio_slot_source(slot));
        end(tree);
    }
    end(tree);
}

static void write_syscon(struct tree_writer *tree, const char *name, const char *compatible,
                         uint32_t value)
{
    begin(tree, name);
    text(tree, "compatible", compatible);
    cell(tree, "regmap", PHANDLE_FINISHER);
    cell(tree, "offset", 0);
    cell(tree, "value", value);
    end(tree);
}

int device_tree_make(const struct device_tree_config *config, void *blob, size_t size,
                     struct err *err)
{
    static const char machine_compatible[] = "ballast,virt\0riscv-virtio";
    struct tree_writer tree = {.blob = blob};
    put(&tree, fdt_create(blob, (int)size));
    if (!tree.error)
        put(&tree, fdt_finish_reservemap(blob));
    begin(&tree, "");
    cell(&tree, "#address-cells", 2);
    cell(&tree, "#size-cells", 2);
    bytes(&tree, "compatible", machine_compatible, sizeof machine_compatible);
    text(&tree, "model", "ballast,virt");
    write_chosen(&tree, config);
    write_memory(&tree, config);
    write_cpus(&tree, config);
    write_soc(&tree, config);
    write_syscon(&tree, "poweroff", "syscon-poweroff", FINISHER_PASS);
    write_syscon(&tree, "reboot", "syscon-reboot", FINISHER_RESET);
    end(&tree);
    if (!tree.error)
        put(&tree, fdt_finish(blob));
    if (tree.error)
        return err_set(err, 0, "device tree: %s%s", fdt_strerror(tree.error),
                       tree.error == -FDT_ERR_NOSPACE ? " (kernel command line too long?)" : "");
    return 0;
}

size_t device_tree_bytes(const void *blob)
{
    return fdt_totalsize(blob);
}
