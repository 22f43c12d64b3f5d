/*
 * Random programs over shadow-pt with a model beside (shadow_program.h): the
 * same seeds on every machine. Tables are random, so most of them are hostile.
 */
#include "tests/shadow/shadow_program.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SEEDS 12u
#define BYTES 2400u

static void random_programs_agree_with_the_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint8_t program[BYTES];
        uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15);
        for (unsigned i = 0; i < BYTES; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            program[i] = (uint8_t)(x >> 24);
        }
        shadow_program_run(program, BYTES);
    }
}

static void a_program_of_equal_bytes_does_no_harm(void **state)
{
    (void)state;
    uint8_t program[512];
    for (unsigned byte = 0; byte < 256; byte += 3) {
        for (unsigned i = 0; i < sizeof program; i++)
            program[i] = (uint8_t)byte;
        shadow_program_run(program, sizeof program);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_programs_agree_with_the_model),
        cmocka_unit_test(a_program_of_equal_bytes_does_no_harm),
    };
    return cmocka_run_group_tests_name("shadow tables under random use", tests, NULL, NULL);
}
