/*
 * A guest that touches memory which is not there: beyond the end of RAM, below
 * it, between devices, at the ends of the address space. Each access is an access
 * fault of its kind (privileged manual 4.1.8, causes 1, 5 and 7), and the machine
 * goes on.
 */
#include "tests/guests/guest.h"

static void at(uintptr_t pa)
{
    uint64_t causes[] = {
        guest_load8(pa),      guest_load16(pa),    guest_load32(pa),     guest_load64(pa),
        guest_reserve64(pa),  guest_store8(pa, 1), guest_store16(pa, 1), guest_store32(pa, 1),
        guest_store64(pa, 1), guest_swap64(pa, 1), guest_jump(pa),
    };
    for (unsigned i = 0; i < 5; i++)
        guest_promise(causes[i] == LOAD_FAULT, "a load from nowhere is a load access fault");
    for (unsigned i = 5; i < 10; i++)
        guest_promise(causes[i] == STORE_FAULT, "a store to nowhere is a store access fault");
    if (!guest_promise(causes[10] == FETCH_FAULT, "a jump to nowhere is a fetch access fault")) {
        guest_print_number(pa);
        guest_print(" ");
        guest_print_number(causes[10]);
        guest_print("\n");
    }
}

void guest_main(void)
{
    static const uintptr_t nowhere[] = {
        0, /* below everything */
        0x1000,
        0x0fff0000, /* between the interrupt controller and the UART */
        0x10010000, /* behind the last virtio slot */
        0x40000000,
        GUEST_RAM_PA - 4096,
        GUEST_RAM_PA - 8,
        GUEST_RAM_END, /* the first byte behind RAM */
        GUEST_RAM_END + 4096,
        GUEST_RAM_PA + (1ul << 32), /* as low 32 bits it would be RAM */
        GUEST_RAM_PA + (1ul << 40),
        GUEST_RAM_PA + (1ul << 44),
        1ul << 55,
    };
    for (unsigned i = 0; i < sizeof nowhere / sizeof nowhere[0]; i++)
        at(nowhere[i]);
    /* The last bytes of RAM are there. */
    guest_promise(guest_load64(GUEST_RAM_END - 8) == NO_FAULT,
                  "the last doubleword of RAM is there");
    for (unsigned i = 0; i < 20000; i++) {
        uintptr_t pa = guest_random();
        bool ram = pa >= GUEST_RAM_PA && pa < GUEST_RAM_END;
        bool device = pa < GUEST_RAM_PA;
        if (!ram && !device)
            guest_promise(guest_load8(pa) != NO_FAULT && guest_store8(pa, 0) != NO_FAULT,
                          "random addresses outside RAM fault");
    }
}
