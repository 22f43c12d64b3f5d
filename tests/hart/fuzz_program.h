/* Random cases for the differential fuzzer. See fuzz_program.c. */
#ifndef BALLAST_TESTS_FUZZ_PROGRAM_H
#define BALLAST_TESTS_FUZZ_PROGRAM_H

#include "tests/hart/fuzz_case.h"

/* Fill *c with case number `index` of a batch, drawn from seed alone. */
void fuzz_make_case(struct fuzz_case *c, uint64_t seed, unsigned index);

#endif
