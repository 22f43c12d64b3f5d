#include "tests/guests/guest.h"

#define SBI_SYSTEM_RESET  0x53525354ul
#define SBI_DEBUG_CONSOLE 0x4442434eul

struct sbi_answer {
    long error;
    long value;
};

static struct sbi_answer sbi(uint64_t extension, uint64_t function, uint64_t arg0, uint64_t arg1)
{
    register uint64_t a0 __asm__("a0") = arg0;
    register uint64_t a1 __asm__("a1") = arg1;
    register uint64_t a2 __asm__("a2") = 0;
    register uint64_t a6 __asm__("a6") = function;
    register uint64_t a7 __asm__("a7") = extension;
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a2), "r"(a6), "r"(a7) : "memory");
    return (struct sbi_answer){(long)a0, (long)a1};
}

/* ---- Verdict ---- */

static unsigned broken_promises;

void guest_print(const char *text)
{
    uint64_t len = 0;
    while (text[len])
        len++;
    while (len > 0) {
        struct sbi_answer answer = sbi(SBI_DEBUG_CONSOLE, 0, len, (uint64_t)text);
        if (answer.error)
            return;
        text += answer.value;
        len -= (uint64_t)answer.value;
    }
}

void guest_print_number(uint64_t number)
{
    char text[19] = "0x";
    for (unsigned i = 0; i < 16; i++)
        text[2 + i] = "0123456789abcdef"[number >> (60 - 4 * i) & 15];
    text[18] = 0;
    guest_print(text);
}

bool guest_promise(bool kept, const char *what)
{
    if (kept)
        return true;
    broken_promises++;
    guest_print("BROKEN: ");
    guest_print(what);
    guest_print("\n");
    return false;
}

_Noreturn void guest_end(void)
{
    guest_print(broken_promises ? "verdict: broken\n" : "verdict: kept\n");
    sbi(SBI_SYSTEM_RESET, 0, 0, broken_promises ? 1 : 0);
    for (;;)
        __asm__ volatile("wfi");
}

_Noreturn void guest_unexpected_trap(uint64_t cause, uint64_t pc, uint64_t value)
{
    guest_print("trap ");
    guest_print_number(cause);
    guest_print(" at ");
    guest_print_number(pc);
    guest_print(" stval ");
    guest_print_number(value);
    guest_print("\n");
    guest_promise(false, "no trap was expected");
    guest_end();
}

uint64_t guest_time(void)
{
    uint64_t ticks;
    __asm__ volatile("rdtime %0" : "=r"(ticks));
    return ticks;
}

/* ---- Pages ---- */

#define PAGE 4096ul

extern char _guest_end[];
static uintptr_t next_page;

struct free_page {
    struct free_page *next;
};
static struct free_page *free_pages;

void *guest_page(void)
{
    if (free_pages) {
        struct free_page *page = free_pages;
        free_pages = page->next;
        return page;
    }
    if (!next_page)
        next_page = (uintptr_t)_guest_end;
    if (next_page + PAGE > GUEST_FREE_END)
        return NULL;
    void *page = (void *)next_page;
    next_page += PAGE;
    return page;
}

void guest_free_page(void *opaque)
{
    struct free_page *page = opaque;
    page->next = free_pages;
    free_pages = page;
}

uint64_t guest_random(void)
{
    static uint64_t state = 88172645463325252ul;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1dul;
}

/* ---- What the compiler may call ---- */

void *memset(void *to, int byte, size_t len)
{
    uint8_t *bytes = to;
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)byte;
    return to;
}

void *memcpy(void *to, const void *from, size_t len)
{
    uint8_t *out = to;
    const uint8_t *in = from;
    for (size_t i = 0; i < len; i++)
        out[i] = in[i];
    return to;
}

int memcmp(const void *a, const void *b, size_t len)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < len; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}
