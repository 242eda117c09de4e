/* SPDX-License-Identifier: Apache-2.0 */
/* What differs between two states, field by field, told with the names of the field table. */
#ifndef SUNDOG_TESTS_LOCKSTEP_STATES_H
#define SUNDOG_TESTS_LOCKSTEP_STATES_H

#include <stdio.h>

#include "base/state.h"

/* One value that differs: `index` counts within the field's array. */
struct difference {
    const struct state_class *cls;
    uint32_t instance;
    const struct state_field *field;
    uint32_t index;
    uint64_t a, b;
};

/* Writes the first `max` differences of two objects of one class to `out`; returns how many there are in
 * all. */
unsigned state_differences(const struct state_object *a, const struct state_object *b, struct difference *out,
                           unsigned max);

/* One line: the field by name (registers by theirs, flags spelled out), then both values under the names of
 * their sides. */
void difference_print(FILE *f, const struct difference *d, const char *name_a, const char *name_b);

/* The 16 general registers' names, in the order of vcpu_state.gpr. */
extern const char *const register_names[16];

/* The set bits of RFLAGS by name, as "CF ZF IF"; `out` of at least 80 bytes. */
void flags_text(uint64_t rflags, char *out, size_t len);

#endif
