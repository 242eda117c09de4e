/* SPDX-License-Identifier: Apache-2.0 */
/* Shifts and rotates, SHLD and SHRD, on the host's own: counts of 0 and undefined flags come out as they
 * do there. */
#include "engine/interp/operand.h"

/* The guest's flags are loaded first: a count of 0 keeps them all, rotates keep most, and "undefined" may
 * mean kept. */
#define SHIFT(name, n, T, S) \
    static inline T name##n(struct vcpu *v, T d, uint8_t count) \
    { \
        uint16_t cc = v->s.cc; \
        __asm__(CC_LOAD #name S " %%cl, %[d]" CC_SAVE : [d] "+r"(d), "+a"(cc) : "c"(count)); \
        v->s.cc = cc; \
        return d; \
    } \
    HANDLER(name##n##_ri) \
    { \
        set##n(v, op->r1, name##n(v, get##n(v, op->r1), (uint8_t)op->imm)); \
        return NEXT(v, op); \
    } \
    HANDLER(name##n##_rc) \
    { \
        set##n(v, op->r1, name##n(v, get##n(v, op->r1), (uint8_t)v->s.gpr[RCX])); \
        return NEXT(v, op); \
    } \
    RMW_HANDLERS(name##n##_mi, n, *p = name##n(v, *p, (uint8_t)op->imm)) \
    RMW_HANDLERS(name##n##_mc, n, *p = name##n(v, *p, (uint8_t)v->s.gpr[RCX]))

#define ALL_ROL(n, T, S) SHIFT(rol, n, T, S)
#define ALL_ROR(n, T, S) SHIFT(ror, n, T, S)
#define ALL_RCL(n, T, S) SHIFT(rcl, n, T, S)
#define ALL_RCR(n, T, S) SHIFT(rcr, n, T, S)
#define ALL_SHL(n, T, S) SHIFT(shl, n, T, S)
#define ALL_SHR(n, T, S) SHIFT(shr, n, T, S)
#define ALL_SAR(n, T, S) SHIFT(sar, n, T, S)
FOR_SIZES(ALL_ROL)
FOR_SIZES(ALL_ROR)
FOR_SIZES(ALL_RCL)
FOR_SIZES(ALL_RCR)
FOR_SIZES(ALL_SHL)
FOR_SIZES(ALL_SHR)
FOR_SIZES(ALL_SAR)

struct shift_handlers {
    op_handler ri, rc, mi[FORM_COUNT], mc[FORM_COUNT];
};
/* clang-format off */
#define SHIFT_ROW(name, n) { name##n##_ri, name##n##_rc, FORMS(name##n##_mi), FORMS(name##n##_mc) }
#define SHIFT_ROWS(name) { SHIFT_ROW(name, 8), SHIFT_ROW(name, 16), SHIFT_ROW(name, 32), SHIFT_ROW(name, 64) }
static const struct shift_handlers shift_handlers[][4] = {
    [INSN_ROL] = SHIFT_ROWS(rol), [INSN_ROR] = SHIFT_ROWS(ror), [INSN_RCL] = SHIFT_ROWS(rcl),
    [INSN_RCR] = SHIFT_ROWS(rcr),
    [INSN_SHL] = SHIFT_ROWS(shl), [INSN_SHR] = SHIFT_ROWS(shr), [INSN_SAR] = SHIFT_ROWS(sar),
};
/* clang-format on */

bool lower_shift(struct op *op, const struct insn *in, uint32_t mode)
{
    const struct shift_handlers *h = &shift_handlers[in->id][size_index(in->opsize)];
    bool by_cl = is_reg(&in->op[1]);
    op->r1 = reg_number(&in->op[0]);
    if (is_reg(&in->op[0])) {
        op->run = by_cl ? h->rc : h->ri;
    } else {
        unsigned form = lower_mem(op, in, mode);
        op->run = by_cl ? h->mc[form] : h->mi[form];
    }
    return true;
}

/* --- SHLD, SHRD ----------------------------------------------------------------------------------------- */

/* 16-bit counts above 16 are undefined: the host decides. */
#define DOUBLE_SHIFT(name, n, T, S) \
    static inline T name##n(struct vcpu *v, T d, T s, uint8_t count) \
    { \
        uint16_t cc = v->s.cc; \
        __asm__(CC_LOAD #name S " %%cl, %[s], %[d]" CC_SAVE \
                : [d] "+r"(d), "+a"(cc) \
                : [s] "r"(s), "c"(count)); \
        v->s.cc = cc; \
        return d; \
    } \
    HANDLER(name##n##_r) \
    { \
        uint8_t count = (uint8_t)(op->prefixes ? v->s.gpr[RCX] : op->imm); \
        set##n(v, op->r1, name##n(v, get##n(v, op->r1), get##n(v, op->r2), count)); \
        return NEXT(v, op); \
    } \
    RMW_HANDLERS(name##n##_m, n, \
                 *p = name##n(v, *p, get##n(v, op->r2), (uint8_t)(op->prefixes ? v->s.gpr[RCX] : op->imm)))
#define ALL_SHLD(n, T, S) DOUBLE_SHIFT(shld, n, T, S)
#define ALL_SHRD(n, T, S) DOUBLE_SHIFT(shrd, n, T, S)
FOR_WIDE_SIZES(ALL_SHLD)
FOR_WIDE_SIZES(ALL_SHRD)

struct double_shift_handlers {
    op_handler r, m[FORM_COUNT];
};
/* clang-format off */
#define SHLD_ROW(n, T, S) { shld##n##_r, FORMS(shld##n##_m) },
#define SHRD_ROW(n, T, S) { shrd##n##_r, FORMS(shrd##n##_m) },
static const struct double_shift_handlers double_shift_handlers[2][3] = {
    { FOR_WIDE_SIZES(SHLD_ROW) },
    { FOR_WIDE_SIZES(SHRD_ROW) },
};
/* clang-format on */

/* op->prefixes says that the count is CL. */
bool lower_double_shift(struct op *op, const struct insn *in, uint32_t mode)
{
    const struct double_shift_handlers *h =
        &double_shift_handlers[in->id == INSN_SHRD][size_index(in->opsize) - 1];
    op->r1 = in->op[0].reg;
    op->r2 = in->op[1].reg;
    op->run = is_reg(&in->op[0]) ? h->r : h->m[lower_mem(op, in, mode)];
    op->prefixes = is_reg(&in->op[2]);
    return true;
}
