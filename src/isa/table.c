/* SPDX-License-Identifier: Apache-2.0 */
/* The instruction table itself: the .def rows as data. */
#include "isa/insn.h"

const struct insn_row insn_rows[] = {
#define I(id_, map_, pfx_, opcode_, reg_, mod_, a, b, c, flags_) \
    { .id = INSN_##id_, \
      .map = map_, \
      .pfx = pfx_, \
      .opcode = opcode_, \
      .reg = reg_, \
      .mod = mod_, \
      .op = { a, b, c }, \
      .flags = flags_ },
#include "isa/insn_int.def"
#include "isa/insn_simd.def"
#include "isa/insn_x87.def"
#undef I
};

const unsigned insn_row_count = array_size(insn_rows);

const struct insn_row insn_ext_rows[] = {
#define X(id_, feat_, map_, pfx_, opcode_, reg_, mod_, vl_, w_, a, b, c, d, esize_, bsize_, flags_, xflags_) \
    { .id = INSN_##id_, \
      .map = map_, \
      .pfx = pfx_, \
      .opcode = opcode_, \
      .reg = reg_, \
      .mod = mod_, \
      .op = { a, b, c }, \
      .flags = flags_, \
      .feature = FEAT_##feat_, \
      .vl = vl_, \
      .w = w_, \
      .op4 = d, \
      .esize = esize_, \
      .bsize = bsize_, \
      .xflags = xflags_ },
#include "isa/insn_ext.def"
#include "isa/insn_vex.def"
#include "isa/insn_evex.def"
#undef X
};

const unsigned insn_ext_row_count = array_size(insn_ext_rows);

const char *const insn_feature_names[FEAT_COUNT] = {
    [FEAT_NONE] = "(none)",
#define FEATURE(name) [FEAT_##name] = #name,
#include "isa/features.def"
#undef FEATURE
};

const char *const insn_names[INSN_ID_COUNT] = {
    [INSN_INVALID] = "(invalid)",
#define ID(id) [INSN_##id] = #id,
#include "isa/ids.def"
#undef ID
};
