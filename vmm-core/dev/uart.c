/*
 * 16550A. Two FIFOs of 16 bytes stand between the registers and the console:
 * transmit holds bytes only while the console has no room, and THR-empty waits
 * for it; receive is filled from the console while the guest has receive
 * interrupts on. That condition is what keeps input from being lost: a driver
 * that starts up clears the FIFO and reads RBR before it enables interrupts, and
 * what was typed until then must still be there afterwards.
 *
 * Threads: registers on a hart's thread, the console's callbacks on the device
 * thread; the lock guards all fields.
 */
#include "vmm-core/dev/uart.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { /* register offsets; DLAB selects the divisor latch instead of 0 and 1 */
       REG_RBR_THR = 0,
       REG_IER = 1,
       REG_IIR_FCR = 2,
       REG_LCR = 3,
       REG_MCR = 4,
       REG_LSR = 5,
       REG_MSR = 6,
       REG_SCR = 7,
};

#define IER_RECEIVE  0x01u
#define IER_TRANSMIT 0x02u
#define IER_LINE     0x04u
#define IER_ALL      0x0fu

#define IIR_NONE     0x01u
#define IIR_TRANSMIT 0x02u
#define IIR_RECEIVE  0x04u
#define IIR_LINE     0x06u
#define IIR_FIFOS_ON 0xc0u

#define FCR_ENABLE         0x01u
#define FCR_CLEAR_RECEIVE  0x02u
#define FCR_CLEAR_TRANSMIT 0x04u

#define LCR_DLAB 0x80u
#define MCR_LOOP 0x10u
#define MCR_ALL  0x1fu

#define LSR_READY     0x01u /* receive data ready */
#define LSR_OVERRUN   0x02u
#define LSR_THR_EMPTY 0x20u
#define LSR_IDLE      0x40u

#define MSR_CTS 0x10u
#define MSR_DSR 0x20u
#define MSR_RI  0x40u
#define MSR_DCD 0x80u

#define FIFO_BYTES 16u

struct fifo {
    uint8_t bytes[FIFO_BYTES];
    unsigned count;
};

struct uart {
    pthread_mutex_t lock;
    struct console *console;
    struct irq_line irq;
    struct fifo receive, transmit;
    uint8_t ier, fcr, lcr, mcr, scr;
    uint8_t divisor[2];
    bool transmit_interrupt; /* THR became empty and nobody has looked at IIR since */
    bool overrun;            /* only possible in loop-back */
};

static bool fifo_put(struct fifo *fifo, uint8_t byte)
{
    if (fifo->count == FIFO_BYTES)
        return false;
    fifo->bytes[fifo->count++] = byte;
    return true;
}

static void fifo_drop(struct fifo *fifo, unsigned count)
{
    fifo->count -= count;
    memmove(fifo->bytes, fifo->bytes + count, fifo->count);
}

/* ---- All below: lock held ---- */

static void fill_receive(struct uart *uart)
{
    if (!(uart->ier & IER_RECEIVE) || uart->mcr & MCR_LOOP)
        return;
    struct fifo *fifo = &uart->receive;
    if (fifo->count < FIFO_BYTES)
        fifo->count += (unsigned)console_read(uart->console, fifo->bytes + fifo->count,
                                              FIFO_BYTES - fifo->count);
}

static void drain_transmit(struct uart *uart)
{
    if (!uart->transmit.count)
        return;
    fifo_drop(&uart->transmit,
              (unsigned)console_write(uart->console, uart->transmit.bytes, uart->transmit.count));
    if (!uart->transmit.count)
        uart->transmit_interrupt = true;
}

/* The interrupt with the highest priority, as IIR shows it (data sheet, table IV). */
static uint8_t interrupt_cause(const struct uart *uart)
{
    if (uart->ier & IER_LINE && uart->overrun)
        return IIR_LINE;
    if (uart->ier & IER_RECEIVE && uart->receive.count)
        return IIR_RECEIVE;
    if (uart->ier & IER_TRANSMIT && uart->transmit_interrupt)
        return IIR_TRANSMIT;
    return IIR_NONE;
}

static void update_irq(struct uart *uart)
{
    irq_line_set(&uart->irq, interrupt_cause(uart) != IIR_NONE);
}

static uint8_t read_rbr(struct uart *uart)
{
    uint8_t byte = 0;
    if (uart->receive.count) {
        byte = uart->receive.bytes[0];
        fifo_drop(&uart->receive, 1);
    }
    if (!uart->receive.count)
        fill_receive(uart);
    return byte;
}

static void write_thr(struct uart *uart, uint8_t byte)
{
    uart->transmit_interrupt = false;
    if (uart->mcr & MCR_LOOP) {
        if (!fifo_put(&uart->receive, byte))
            uart->overrun = true;
        uart->transmit_interrupt = true;
        return;
    }
    /* A full FIFO means that the guest writes without looking at THR-empty: as on the real part,
     * the byte is lost. */
    fifo_put(&uart->transmit, byte);
    drain_transmit(uart);
}

static uint8_t read_iir(struct uart *uart)
{
    uint8_t cause = interrupt_cause(uart);
    if (cause == IIR_TRANSMIT)
        uart->transmit_interrupt = false;
    return cause | (uart->fcr & FCR_ENABLE ? IIR_FIFOS_ON : 0);
}

static void write_ier(struct uart *uart, uint8_t value)
{
    /* Enabling the THR-empty interrupt while THR is empty raises it at once (drivers test this). */
    if (value & ~uart->ier & IER_TRANSMIT && !uart->transmit.count)
        uart->transmit_interrupt = true;
    uart->ier = value & IER_ALL;
    fill_receive(uart);
}

static void write_fcr(struct uart *uart, uint8_t value)
{
    if (value & FCR_CLEAR_RECEIVE || (value ^ uart->fcr) & FCR_ENABLE)
        uart->receive.count = 0;
    if (value & FCR_CLEAR_TRANSMIT && uart->transmit.count) {
        uart->transmit.count = 0;
        uart->transmit_interrupt = true;
    }
    uart->fcr = value & (FCR_ENABLE | IIR_FIFOS_ON);
    fill_receive(uart);
}

static uint8_t read_lsr(struct uart *uart)
{
    uint8_t value = uart->transmit.count ? 0 : LSR_THR_EMPTY | LSR_IDLE;
    if (uart->receive.count)
        value |= LSR_READY;
    if (uart->overrun)
        value |= LSR_OVERRUN;
    uart->overrun = false;
    return value;
}

/* Carrier, DSR and CTS are always there; in loop-back the modem control outputs come back. */
static uint8_t read_msr(const struct uart *uart)
{
    if (!(uart->mcr & MCR_LOOP))
        return MSR_DCD | MSR_DSR | MSR_CTS;
    return (uint8_t)((uart->mcr & 0x0c) << 4 | (uart->mcr & 0x02) << 3 | (uart->mcr & 0x01) << 5);
}

static uint8_t load_register(struct uart *uart, uint64_t reg)
{
    bool dlab = uart->lcr & LCR_DLAB;
    switch (reg) {
    case REG_RBR_THR:
        return dlab ? uart->divisor[0] : read_rbr(uart);
    case REG_IER:
        return dlab ? uart->divisor[1] : uart->ier;
    case REG_IIR_FCR:
        return read_iir(uart);
    case REG_LCR:
        return uart->lcr;
    case REG_MCR:
        return uart->mcr;
    case REG_LSR:
        return read_lsr(uart);
    case REG_MSR:
        return read_msr(uart);
    case REG_SCR:
        return uart->scr;
    default:
        return 0;
    }
}

static void store_register(struct uart *uart, uint64_t reg, uint8_t value)
{
    bool dlab = uart->lcr & LCR_DLAB;
    switch (reg) {
    case REG_RBR_THR:
        if (dlab)
            uart->divisor[0] = value;
        else
            write_thr(uart, value);
        break;
    case REG_IER:
        if (dlab)
            uart->divisor[1] = value;
        else
            write_ier(uart, value);
        break;
    case REG_IIR_FCR:
        write_fcr(uart, value);
        break;
    case REG_LCR:
        uart->lcr = value;
        break;
    case REG_MCR:
        uart->mcr = value & MCR_ALL;
        break;
    case REG_SCR:
        uart->scr = value;
        break;
    default: /* LSR and MSR are read only */
        break;
    }
}

/* ---- Entries: each takes the lock and leaves the interrupt line right ---- */

static bool uart_load(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    struct uart *uart = device;
    if (size > 4)
        return false;
    pthread_mutex_lock(&uart->lock);
    *value = load_register(uart, offset);
    update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
    return true;
}

static bool uart_store(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct uart *uart = device;
    if (size > 4)
        return false;
    pthread_mutex_lock(&uart->lock);
    store_register(uart, offset, (uint8_t)value);
    update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
    return true;
}

static void uart_input_ready(void *device)
{
    struct uart *uart = device;
    pthread_mutex_lock(&uart->lock);
    fill_receive(uart);
    update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
}

static void uart_output_room(void *device)
{
    struct uart *uart = device;
    pthread_mutex_lock(&uart->lock);
    drain_transmit(uart);
    update_irq(uart);
    pthread_mutex_unlock(&uart->lock);
}

struct uart *uart_new(struct device_thread *thread, const struct console_config *fds,
                      struct irq_line irq, struct err *err)
{
    struct uart *uart = calloc(1, sizeof *uart);
    if (!uart) {
        err_set(err, ENOMEM, "UART");
        return NULL;
    }
    struct console_config config = *fds;
    config.device = uart;
    config.input_ready = uart_input_ready;
    config.output_room = uart_output_room;
    pthread_mutex_init(&uart->lock, NULL);
    uart->irq = irq;
    uart->console = console_new(thread, &config, err);
    if (!uart->console) {
        uart_free(uart);
        return NULL;
    }
    return uart;
}

void uart_free(struct uart *uart)
{
    if (!uart)
        return;
    console_free(uart->console);
    pthread_mutex_destroy(&uart->lock);
    free(uart);
}

struct bus_range uart_range(struct uart *uart, uint64_t base_pa)
{
    return (struct bus_range){.name = "uart",
                              .base_pa = base_pa,
                              .bytes = UART_WINDOW_BYTES,
                              .device = uart,
                              .load = uart_load,
                              .store = uart_store};
}

struct console *uart_console(struct uart *uart)
{
    return uart->console;
}
