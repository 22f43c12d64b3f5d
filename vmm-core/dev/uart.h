/*
 * UART 16550A over a console. Registers a byte apart, as QEMU's virt machine
 * has them; any baud rate is infinitely fast. Follows: TI PC16550D data sheet.
 */
#ifndef BALLAST_UART_H
#define BALLAST_UART_H

#include "vmm-core/dev/console.h"

#define UART_WINDOW_BYTES UINT64_C(0x100)

struct uart;

/* A UART whose interrupts go to irq and whose bytes go to the console that fds describe (device
 * and callbacks of fds are filled in here). NULL with *err filled on failure. */
struct uart *uart_new(struct device_thread *thread, const struct console_config *fds,
                      struct irq_line irq, struct err *err);
void uart_free(struct uart *uart); /* after the device thread has stopped */

struct bus_range uart_range(struct uart *uart, uint64_t base_pa);
struct console *uart_console(struct uart *uart);

#endif
