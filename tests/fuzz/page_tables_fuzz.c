/*
 * Hostile guest page tables: loops, pointers out of RAM, reserved bits, tables
 * that the host pages out or shares meanwhile. The bytes are a program for
 * tests/shadow/shadow_program.h, which compares with a model as it goes.
 */
#include "tests/shadow/shadow_program.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    shadow_program_run(bytes, size);
    return 0;
}
