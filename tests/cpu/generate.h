/* SPDX-License-Identifier: Apache-2.0 */
/* Cases made from the instruction table: every user-mode row, operand size, prefix class and operand form is a cell to be filled. */
#ifndef SUNDOG_TESTS_CPU_GENERATE_H
#define SUNDOG_TESTS_CPU_GENERATE_H

#include "isa/insn.h"
#include "native.h"

struct cell {
    uint16_t row;
    uint8_t code_bytes;
    uint8_t prefix; /* enum prefix_class */
    bool memory;    /* operand form */
    uint64_t made, compared;
};

/* Names of prefix classes, for reports. */
extern const char *const prefix_names[];

struct generator {
    uint64_t seed;
    struct cell *cells;
    unsigned ncells;
};

void generator_init(struct generator *gen, uint64_t seed);
/* Fills `c` with a new case of cell n. False if this cell cannot be made (counted as a row without cases by the caller). */
bool generate(struct generator *gen, unsigned n, struct test_case *c, struct insn *in);
/* Status flags the host leaves in a state that the manual calls undefined and that we do not reproduce. 0 for nearly all. */
uint32_t flags_not_compared(const struct insn *in);

#endif
