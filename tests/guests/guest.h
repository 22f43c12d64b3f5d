/*
 * The runtime of bare-metal guests: they run in S mode with translation off, in
 * one piece, without interrupts; they print over the SBI, note what went wrong,
 * and power off with their verdict (success, or system failure).
 *
 * Each guest is one file with guest_main.
 */
#ifndef BALLAST_GUEST_H
#define BALLAST_GUEST_H

#include "tests/guests/guest_layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void guest_main(void);

/* ---- Verdict ---- */
void guest_print(const char *text);
void guest_print_number(uint64_t number);
/* What was promised; a broken promise is printed and makes the verdict. Returns kept. */
bool guest_promise(bool kept, const char *what);
_Noreturn void guest_end(void);
_Noreturn void guest_unexpected_trap(uint64_t cause, uint64_t pc, uint64_t value);

/* ---- Time: ticks of 10 MHz ---- */
#define TICKS_PER_MS 10000ul
uint64_t guest_time(void);

/* ---- Pages, never given back but by guest_free_page; a fresh one is not cleared ---- */
void *guest_page(void); /* NULL: none left */
void guest_free_page(void *page);

/* ---- Accesses that may fault: scause, or NO_FAULT (start.S) ---- */
#define NO_FAULT    (~0ul)
#define FETCH_FAULT 1ul
#define LOAD_FAULT  5ul
#define STORE_FAULT 7ul
uint64_t guest_load8(uintptr_t at);
uint64_t guest_load16(uintptr_t at);
uint64_t guest_load32(uintptr_t at);
uint64_t guest_load64(uintptr_t at);
uint64_t guest_store8(uintptr_t at, uint64_t value);
uint64_t guest_store16(uintptr_t at, uint64_t value);
uint64_t guest_store32(uintptr_t at, uint64_t value);
uint64_t guest_store64(uintptr_t at, uint64_t value);
uint64_t guest_swap64(uintptr_t at, uint64_t value);
uint64_t guest_reserve64(uintptr_t at);
uint64_t guest_jump(uintptr_t to);

/* xorshift64*: the same numbers in every run. */
uint64_t guest_random(void);

void *memset(void *to, int byte, size_t len);
void *memcpy(void *to, const void *from, size_t len);
int memcmp(const void *a, const void *b, size_t len);

#endif
