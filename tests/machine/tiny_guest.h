/* What the bare-metal guest of tiny_guest.c can do; the number goes into its header. */
#ifndef BALLAST_TINY_GUEST_H
#define BALLAST_TINY_GUEST_H

#define TINY_GUEST_RAM_BYTES 0x1000000 /* 16 MiB */
#define TINY_GUEST_SCENARIO  40        /* offset of the number in the image */

enum tiny_guest_scenario {
    GUEST_SHUTDOWN,         /* SBI system reset: shutdown */
    GUEST_REBOOT,           /* SBI system reset: reboot */
    GUEST_SHUTDOWN_FAILURE, /* SBI system reset: shutdown because of a failure */
    GUEST_FINISH,           /* the same three through the test finisher */
    GUEST_FINISH_REBOOT,
    GUEST_FINISH_FAILURE, /* code 42 */
    GUEST_SAY,            /* a line on the debug console, then shutdown */
    GUEST_SLEEP,          /* WFI for ever */
    GUEST_SPIN,           /* a jump to itself for ever */
    GUEST_TIMER,          /* sleep 30 ms by stimecmp, then shutdown; else failure 1 */
    GUEST_CLOCK,          /* 0.3 s without a step of the clock, then shutdown; else failure 2 */
    GUEST_TOUCH,          /* write to every page of RAM for ever */
    GUEST_ECHO,           /* echo the UART, interrupt driven; 'q' shuts down */
    GUEST_FIRMWARE, /* every SBI verb on this hart; wants "typed" on the console; then shutdown,
                       or failure with the number of the step */
};

#endif
