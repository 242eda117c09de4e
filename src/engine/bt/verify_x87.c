/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The x87's control word: one that unmasks exceptions would trap on the host.
 *
 *   movzx T, [guest]; not T; test T, 3f; jne out; not T; mov [control word], T; fldcw [control word]
 */
#include "engine/bt/verify_rules.h"

#define MASKS 0x3f

bool x87_step(struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *o = in->o;
    if (o[0].kind != OPR_GPR || o[0].reg < T0 || o[0].reg > T2)
        return false;
    struct value *v = &st->var[o[0].reg];
    if (in->op == OP_NOT && o[0].size == 4 && v->kind == V_UNMASKED) {
        v->kind = V_FCW;
        return true;
    }
    if (in->op != OP_TEST || v->kind != V_NOT || o[1].kind != OPR_IMM || o[1].val != MASKS)
        return false;
    st->flags = (struct flags_value){ .kind = F_MASKS, .v.aux = (uint16_t)(o[0].reg << 4 | o[0].reg) };
    return true;
}

void x87_masked(struct verify_state *st, unsigned reg)
{
    if (st->var[reg].kind == V_NOT)
        st->var[reg].kind = V_UNMASKED;
}
