/* The UART, its console and the device thread below them, over pipes and sockets. */
#include "vmm-core/dev/uart.h"
#include "vmm-core/machine/device_thread.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define BASE UINT64_C(0x10000000)

enum { RBR = 0, THR = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };

struct bench {
    struct pause_gate gate;
    struct device_thread *thread;
    struct uart *uart;
    struct bus bus;
    _Atomic bool raised;
    int guest_in, our_in;   /* we write our_in, the UART reads guest_in */
    int guest_out, our_out; /* the UART writes guest_out, we read our_out */
    int listen_fd;
    char socket_path[64];
};

static void note_irq(void *bench, unsigned source, bool level)
{
    (void)source;
    ((struct bench *)bench)->raised = level;
}

static uint8_t get(struct bench *b, unsigned reg)
{
    uint64_t value;
    assert_true(bus_load(&b->bus, BASE + reg, 1, &value));
    return (uint8_t)value;
}

static void set(struct bench *b, unsigned reg, uint8_t value)
{
    assert_true(bus_store(&b->bus, BASE + reg, 1, value));
}

static void eventually(bool (*is_so)(struct bench *), struct bench *b)
{
    for (int ms = 0; ms < 5000 && !is_so(b); ms++)
        usleep(1000);
    assert_true(is_so(b));
}

static bool is_raised(struct bench *b)
{
    return b->raised;
}

static bool is_thr_empty(struct bench *b)
{
    return get(b, LSR) & 0x20;
}

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    int in[2], out[2];
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    b->guest_in = in[0];
    b->our_in = in[1];
    b->our_out = out[0];
    b->guest_out = out[1];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(b->socket_path, sizeof b->socket_path, "/tmp/ballast-uart-test.%d", (int)getpid());
    strcpy(address.sun_path, b->socket_path);
    b->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(b->socket_path);
    assert_int_equal(bind(b->listen_fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(b->listen_fd, 1), 0);

    pause_gate_init(&b->gate);
    b->thread = device_thread_new(&b->gate, NULL);
    struct console_config fds = {
        .in_fd = b->guest_in, .out_fd = b->guest_out, .listen_fd = b->listen_fd};
    b->uart = uart_new(b->thread, &fds, (struct irq_line){note_irq, b, 0}, NULL);
    struct bus_range range = uart_range(b->uart, BASE);
    bus_add(&b->bus, &range, NULL);
    assert_int_equal(device_thread_start(b->thread, NULL), 0);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;
    device_thread_stop(b->thread);
    uart_free(b->uart);
    device_thread_free(b->thread);
    pause_gate_destroy(&b->gate);
    close(b->guest_in);
    close(b->guest_out);
    close(b->our_in);
    close(b->our_out);
    close(b->listen_fd);
    unlink(b->socket_path);
    free(b);
    return 0;
}

static void read_exactly(int fd, char *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 5000), 1);
        ssize_t got = read(fd, to + done, len - done);
        assert_true(got > 0);
        done += (size_t)got;
    }
}

static void output_arrives_in_order(void **state)
{
    struct bench *b = *state;
    char got[12];
    for (const char *c = "hello, world"; *c; c++) {
        eventually(is_thr_empty, b);
        set(b, THR, (uint8_t)*c);
    }
    read_exactly(b->our_out, got, sizeof got);
    assert_memory_equal(got, "hello, world", sizeof got);
}

static void a_reader_that_stops_holds_the_guest_back_and_loses_nothing(void **state)
{
    struct bench *b = *state;
    enum { BYTES = 400000 };
    char *got = malloc(BYTES);
    unsigned sent = 0;
    while (is_thr_empty(b) && sent < BYTES)
        set(b, THR, (uint8_t)('a' + sent++ % 26)); /* nobody reads: the queue fills up */
    assert_true(sent < BYTES);
    assert_true(sent >= CONSOLE_OUTPUT_BYTES);
    set(b, IER, 2); /* tell me when there is room */
    assert_false(b->raised);
    read_exactly(b->our_out, got, sent - 1);
    eventually(is_raised, b);
    assert_int_equal(get(b, IIR) & 0x0f, 2);
    read_exactly(b->our_out, got + sent - 1, 1);
    for (unsigned i = 0; i < sent; i++)
        assert_int_equal(got[i], 'a' + i % 26);
    free(got);
}

static void thr_empty_interrupts_once_until_looked_at(void **state)
{
    struct bench *b = *state;
    assert_int_equal(get(b, IIR) & 0x0f, 1); /* nothing enabled */
    set(b, IER, 2);
    assert_true(b->raised);
    assert_int_equal(get(b, IIR) & 0x0f, 2);
    assert_false(b->raised);
    assert_int_equal(get(b, IIR) & 0x0f, 1);
    set(b, IER, 0);
    set(b, IER, 2); /* what Linux tests for: enabling it again raises it again */
    assert_int_equal(get(b, IIR) & 0x0f, 2);
    set(b, THR, 'x');
    assert_true(b->raised);
    set(b, IER, 0);
    assert_false(b->raised);
}

static void input_waits_for_receive_interrupts_and_is_all_there(void **state)
{
    struct bench *b = *state;
    enum { BYTES = 10000 };
    char sent[BYTES];
    for (int i = 0; i < BYTES; i++)
        sent[i] = (char)(i * 7);
    assert_int_equal(write(b->our_in, sent, BYTES), BYTES);
    usleep(20000);
    /* A driver starting up clears the FIFO and reads RBR: nothing may be lost. */
    set(b, FCR, 7);
    get(b, LSR);
    get(b, RBR);
    assert_false(get(b, LSR) & 1);
    set(b, IER, 1);
    for (int i = 0; i < BYTES; i++) {
        eventually(is_raised, b);
        assert_int_equal(get(b, IIR) & 0x0f, 4);
        assert_true(get(b, LSR) & 1);
        assert_int_equal(get(b, RBR), (uint8_t)sent[i]);
    }
    usleep(20000);
    assert_false(b->raised);
}

static void registers_are_those_of_a_16550a(void **state)
{
    struct bench *b = *state;
    set(b, SCR, 0x5a);
    assert_int_equal(get(b, SCR), 0x5a);
    set(b, LCR, 0x83);
    set(b, 0, 0x12);
    set(b, 1, 0x34);
    assert_int_equal(get(b, 0), 0x12);
    assert_int_equal(get(b, 1), 0x34);
    set(b, LCR, 0x03);
    assert_int_equal(get(b, IER), 0);
    assert_int_equal(get(b, IIR), 0x01);
    set(b, FCR, 1);
    assert_int_equal(get(b, IIR), 0xc1); /* how drivers tell a 16550A */
    assert_int_equal(get(b, MSR), 0xb0);
    assert_int_equal(get(b, LSR), 0x60);
    uint64_t value;
    assert_false(bus_load(&b->bus, BASE, 8, &value));
}

static void loop_back_returns_bytes_and_modem_lines(void **state)
{
    struct bench *b = *state;
    set(b, MCR, 0x10);
    assert_int_equal(get(b, MSR), 0);
    set(b, MCR, 0x1a);
    assert_int_equal(get(b, MSR) & 0xf0, 0x90);
    for (int i = 0; i < 16; i++)
        set(b, THR, (uint8_t)i);
    assert_false(get(b, LSR) & 2);
    set(b, THR, 99);
    assert_true(get(b, LSR) & 2); /* overrun */
    assert_false(get(b, LSR) & 2);
    for (int i = 0; i < 16; i++)
        assert_int_equal(get(b, RBR), i);
}

static int connect_client(struct bench *b)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, b->socket_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void a_client_of_the_socket_talks_to_the_guest(void **state)
{
    struct bench *b = *state;
    char got[3];
    int client = connect_client(b);
    set(b, IER, 1);
    assert_int_equal(write(client, "hey", 3), 3);
    for (const char *c = "hey"; *c; c++) {
        eventually(is_raised, b);
        assert_int_equal(get(b, RBR), *c);
    }
    set(b, THR, 'y');
    set(b, THR, 'o');
    set(b, THR, 'u');
    read_exactly(client, got, 3);
    assert_memory_equal(got, "you", 3);
    read_exactly(b->our_out, got, 3); /* the log has it too */
    close(client);
    client = connect_client(b); /* the next one's turn */
    assert_int_equal(write(client, "x", 1), 1);
    eventually(is_raised, b);
    assert_int_equal(get(b, RBR), 'x');
    close(client);
}

static void a_client_that_does_not_read_is_cut_off(void **state)
{
    struct bench *b = *state;
    int client = connect_client(b);
    set(b, IER, 1);
    assert_int_equal(write(client, "x", 1), 1);
    eventually(is_raised, b); /* it is connected */
    char drained[4096];
    for (unsigned i = 0; i < 1000000; i++) {
        eventually(is_thr_empty, b);
        set(b, THR, 'z');
        if (i % 4096 == 4095)
            read_exactly(b->our_out, drained, sizeof drained);
    }
    for (ssize_t got = 1; got > 0;)
        got = recv(client, drained, sizeof drained, 0); /* what was sent, then the end */
    close(client);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(output_arrives_in_order),
        T(a_reader_that_stops_holds_the_guest_back_and_loses_nothing),
        T(thr_empty_interrupts_once_until_looked_at),
        T(input_waits_for_receive_interrupts_and_is_all_there),
        T(registers_are_those_of_a_16550a),
        T(loop_back_returns_bytes_and_modem_lines),
        T(a_client_of_the_socket_talks_to_the_guest),
        T(a_client_that_does_not_read_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
