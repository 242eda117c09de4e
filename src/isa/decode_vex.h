/* SPDX-License-Identifier: Apache-2.0 */
/* VEX and EVEX prefixes (SDM 2A 2.3, 2.7): the decoder's part that knows their fields. */
#ifndef SUNDOG_ISA_DECODE_VEX_H
#define SUNDOG_ISA_DECODE_VEX_H

#include "isa/insn.h"

/* Fields that struct insn has no place for. */
struct vex_prefix {
    bool invalid; /* reserved bits or an unknown map */
    uint8_t map;  /* enum insn_map */
    uint8_t pfx;  /* enum insn_pfx */
    uint8_t reg4; /* 16 when EVEX.R' extends ModRM.reg */
    uint8_t rm4;  /* 16 when EVEX.X extends a register in ModRM.rm */
    uint8_t v4;   /* 16 when EVEX.V' extends vvvv or a vector index */
    uint8_t vvvv; /* as it stands, with what is ignored outside 64-bit mode */
    bool b, z;
    uint8_t disp8_scale;
};

/* Reads the prefix at `p` into `x` and in's enc, rex (as if REX bits), w, vvvv, ll, mask. Its length, or 0 when it goes on
 * behind `avail`. */
unsigned vex_parse(struct insn *in, struct vex_prefix *x, const uint8_t *p, unsigned avail, bool long64);
/* True when W, L and EVEX.b are the row's; always for old encodings. in->opcode and modrm are set. */
bool vex_matches(const struct insn_row *row, const struct insn *in, const struct vex_prefix *x);
bool vex_has_features(const struct insn_row *row, const struct insn *in, const struct vex_prefix *x,
                      uint64_t features);
/* Sets in->vl and in->evex from the row that was found. */
void vex_set_length(struct insn *in, const struct vex_prefix *x);
/* After the operands: vvvv, opmask, zeroing and vector index are what the row allows. */
bool vex_valid(const struct insn *in, const struct vex_prefix *x);

#endif
