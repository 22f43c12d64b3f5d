/*
 * Random use of shadow-pt, checked against a model: bytes are read as a program
 * for a small guest and its host (write PTEs, some of them nonsense; access
 * memory; fence; switch spaces; page out, balloon, share; mark code). After
 * every step shadow_check is called, and every look-up whose outcome the manual
 * fixes is compared with a walk written independently, straight from manual
 * section 4.3.2. Serves the random stress test and the fuzz target.
 */
#ifndef BALLAST_TESTS_SHADOW_PROGRAM_H
#define BALLAST_TESTS_SHADOW_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

/* Run the program to its end. Aborts, naming values, where the model and shadow-pt differ. */
void shadow_program_run(const uint8_t *bytes, size_t size);

#endif
