/* SPDX-License-Identifier: Apache-2.0 */
/* The instruction table itself: the .def rows as data. */
#include "isa/insn.h"

const struct insn_row insn_rows[] = {
#define I(id_, map_, pfx_, opcode_, reg_, mod_, a, b, c, flags_) \
    { INSN_##id_, map_, pfx_, opcode_, reg_, mod_, { a, b, c }, flags_ },
#include "isa/insn_int.def"
#include "isa/insn_simd.def"
#include "isa/insn_x87.def"
#undef I
};

const unsigned insn_row_count = array_size(insn_rows);

const char *const insn_names[INSN_ID_COUNT] = {
    [INSN_INVALID] = "(invalid)",
#define ID(id) [INSN_##id] = #id,
#include "isa/ids.def"
#undef ID
};
