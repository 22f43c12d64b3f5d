/* The device tree read back: what the stock kernel looks for is there, and where the bus has it. */
#include "vmm-core/clock.h"
#include "vmm-core/machine/device_tree.h"
#include "vmm-core/machine/memory_map.h"

#include <libfdt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint8_t blob[65536];

static struct device_tree_config config = {
    .ram_bytes = UINT64_C(256) << 20,
    .harts = 2,
    .append = "console=ttyS0 quiet",
    .initrd_pa = 0x8f000000,
    .initrd_end_pa = 0x8f123456,
    .rng_seed = {1, 2, 3},
    .virtio_slots = 0x8003,
};

static int make(void **state)
{
    (void)state;
    struct err err;
    if (device_tree_make(&config, blob, sizeof blob, &err))
        fail_msg("%s", err.text);
    assert_int_equal(fdt_check_full(blob, sizeof blob), 0);
    return 0;
}

static int node(const char *path)
{
    int offset = fdt_path_offset(blob, path);
    if (offset < 0)
        fail_msg("no node %s", path);
    return offset;
}

static const void *property(const char *path, const char *name, int expected_len)
{
    int len;
    const void *value = fdt_getprop(blob, node(path), name, &len);
    if (!value || (expected_len >= 0 && len != expected_len))
        fail_msg("%s has no %s of %d bytes", path, name, expected_len);
    return value;
}

static uint32_t cell(const char *path, const char *name)
{
    return fdt32_ld(property(path, name, 4));
}

static void expect_reg(const char *path, uint64_t base, uint64_t size)
{
    const fdt64_t *reg = property(path, "reg", 16);
    assert_int_equal(fdt64_ld(&reg[0]), base);
    assert_int_equal(fdt64_ld(&reg[1]), size);
}

static bool compatible(const char *path, const char *with)
{
    return fdt_node_check_compatible(blob, node(path), with) == 0;
}

static void chosen_has_command_line_console_initrd_and_seed(void **state)
{
    (void)state;
    assert_string_equal(property("/chosen", "bootargs", -1), "console=ttyS0 quiet");
    assert_true(node(property("/chosen", "stdout-path", -1)) > 0);
    assert_int_equal(fdt64_ld(property("/chosen", "linux,initrd-start", 8)), 0x8f000000);
    assert_int_equal(fdt64_ld(property("/chosen", "linux,initrd-end", 8)), 0x8f123456);
    assert_memory_equal(property("/chosen", "rng-seed", RNG_SEED_BYTES), config.rng_seed,
                        RNG_SEED_BYTES);
}

static void memory_is_what_the_guest_was_given(void **state)
{
    (void)state;
    expect_reg("/memory@80000000", RAM_BASE_PA, UINT64_C(256) << 20);
    assert_string_equal(property("/memory@80000000", "device_type", -1), "memory");
}

static void cpus_promise_what_the_hart_honours(void **state)
{
    (void)state;
    assert_int_equal(cell("/cpus", "timebase-frequency"), TIMEBASE_HZ);
    for (unsigned hart = 0; hart < 2; hart++) {
        const char *path = hart ? "/cpus/cpu@1" : "/cpus/cpu@0";
        assert_int_equal(cell(path, "reg"), hart);
        assert_string_equal(property(path, "mmu-type", -1), "riscv,sv39");
        const char *isa = property(path, "riscv,isa", -1);
        assert_int_equal(strncmp(isa, "rv64imafdc_", 11), 0);
        assert_non_null(strstr(isa, "_sstc"));
        assert_null(strstr(isa, "svinval"));
        int offset = node(path);
        assert_int_equal(fdt_stringlist_count(blob, offset, "riscv,isa-extensions"), 11);
        assert_true(fdt_stringlist_search(blob, offset, "riscv,isa-extensions", "sstc") >= 0);
        /* The two descriptions agree. */
        for (int i = 0; i < 11; i++) {
            int len;
            const char *name = fdt_stringlist_get(blob, offset, "riscv,isa-extensions", i, &len);
            assert_non_null(len == 1 ? memchr(isa + 4, name[0], 6) : strstr(isa, name));
        }
    }
}

static void the_interrupt_controller_serves_every_hart(void **state)
{
    (void)state;
    assert_true(compatible("/soc/plic@c000000", "sifive,plic-1.0.0"));
    expect_reg("/soc/plic@c000000", PLIC_BASE_PA, 0x400000);
    assert_int_equal(cell("/soc/plic@c000000", "riscv,ndev"), 31);
    const fdt32_t *outputs = property("/soc/plic@c000000", "interrupts-extended", 16);
    for (unsigned hart = 0; hart < 2; hart++) {
        int intc = fdt_node_offset_by_phandle(blob, fdt32_ld(&outputs[2 * hart]));
        assert_true(intc > 0);
        assert_int_equal(fdt_node_check_compatible(blob, intc, "riscv,cpu-intc"), 0);
        assert_int_equal(fdt32_ld(&outputs[2 * hart + 1]), 9);
    }
}

static void devices_are_where_the_bus_has_them(void **state)
{
    (void)state;
    assert_true(compatible("/soc/serial@10000000", "ns16550a"));
    expect_reg("/soc/serial@10000000", UART_BASE_PA, 0x100);
    assert_int_equal(cell("/soc/serial@10000000", "interrupts"), 10);
    expect_reg("/soc/virtio_mmio@10001000", virtio_slot_pa(0), 0x1000);
    assert_int_equal(cell("/soc/virtio_mmio@10001000", "interrupts"), 1);
    assert_int_equal(cell("/soc/virtio_mmio@10002000", "interrupts"), 2);
    expect_reg("/soc/virtio_mmio@10010000", virtio_slot_pa(15), 0x1000);
    assert_int_equal(cell("/soc/virtio_mmio@10010000", "interrupts"), 18);
    assert_true(fdt_path_offset(blob, "/soc/virtio_mmio@10003000") < 0); /* an empty slot */
    for (unsigned slot = 0; slot < VIRTIO_SLOTS; slot++)
        for (unsigned other = 0; other < slot; other++)
            assert_true(virtio_slot_source(slot) != virtio_slot_source(other) &&
                        virtio_slot_source(slot) != UART_SOURCE);
}

static void the_guest_can_power_off_and_reset(void **state)
{
    (void)state;
    uint32_t finisher = cell("/poweroff", "regmap");
    assert_true(compatible("/poweroff", "syscon-poweroff"));
    assert_int_equal(cell("/poweroff", "value"), 0x5555);
    assert_true(compatible("/reboot", "syscon-reboot"));
    assert_int_equal(cell("/reboot", "value"), 0x7777);
    assert_int_equal(cell("/reboot", "regmap"), finisher);
    int test = fdt_node_offset_by_phandle(blob, finisher);
    assert_int_equal(fdt_node_check_compatible(blob, test, "syscon"), 0);
}

static void no_initrd_and_sv48_are_said_too(void **state)
{
    (void)state;
    struct device_tree_config other = config;
    other.initrd_pa = other.initrd_end_pa = 0;
    other.sv48 = true;
    other.append = NULL;
    assert_int_equal(device_tree_make(&other, blob, sizeof blob, NULL), 0);
    assert_null(fdt_getprop(blob, node("/chosen"), "linux,initrd-start", NULL));
    assert_string_equal(property("/chosen", "bootargs", -1), "");
    assert_string_equal(property("/cpus/cpu@0", "mmu-type", -1), "riscv,sv48");
}

static void a_command_line_that_does_not_fit_is_an_error(void **state)
{
    (void)state;
    struct device_tree_config other = config;
    char *line = malloc(70000);
    memset(line, 'x', 69999);
    line[69999] = 0;
    other.append = line;
    struct err err;
    assert_int_equal(device_tree_make(&other, blob, sizeof blob, &err), -1);
    assert_non_null(strstr(err.text, "command line too long"));
    free(line);
}

#define T(name) cmocka_unit_test_setup(name, make)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(chosen_has_command_line_console_initrd_and_seed),
        T(memory_is_what_the_guest_was_given),
        T(cpus_promise_what_the_hart_honours),
        T(the_interrupt_controller_serves_every_hart),
        T(devices_are_where_the_bus_has_them),
        T(the_guest_can_power_off_and_reset),
        T(no_initrd_and_sv48_are_said_too),
        T(a_command_line_that_does_not_fit_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
