/* SPDX-License-Identifier: Apache-2.0 */
/* Cases made from the instruction table: every user-mode row, operand size, prefix class and operand form is a cell to be filled. */
#ifndef SUNDOG_TESTS_CPU_GENERATE_H
#define SUNDOG_TESTS_CPU_GENERATE_H

#include "isa/insn.h"
#include "native.h"

struct cell {
    uint16_t row;
    uint8_t code_bytes;
    uint8_t prefix; /* enum prefix_class; of an extension: VARIANT_* */
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
/* The same for the rows of extensions that `features` has: a cell is a row, the code's size, the operand form, vector length, W,
 * opmask and EVEX.b. */
void generator_init_ext(struct generator *gen, uint64_t seed, uint64_t features);
bool generate_ext(struct generator *gen, unsigned n, struct test_case *c, struct insn *in, uint64_t features);

/* --- parts of both --- */
uint64_t gen_rnd(struct generator *g);
unsigned gen_below(struct generator *g, unsigned n);
/* Numbers that are likely to be special; vectors of such, of floats, of anything. */
uint64_t gen_edge(struct generator *g);
void gen_fill_vector(struct generator *g, uint8_t *p, unsigned bytes);
void gen_fill_fp(struct generator *g, struct fp_image *f, bool x87);
/* Where an operand is to lie: mostly well inside the data pages, sometimes across a boundary or outside. */
uint64_t gen_pick_address(struct generator *g, unsigned align);
/* Offset of a window that shows what is around an address. */
uint32_t gen_window_of(uint64_t ea);

/* Status flags the host leaves in a state that the manual calls undefined and that we do not reproduce. 0 for nearly all. */
uint32_t flags_not_compared(const struct insn *in);

#endif
