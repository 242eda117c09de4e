/* SPDX-License-Identifier: Apache-2.0 */
/* MUL, IMUL, DIV, IDIV on the host's own. What would raise #DE there is found before it is run. */
#include "engine/interp/operand.h"

/* --- multiplication: the flags are captured after the product was moved out of their way ---------------- */

#define MULTIPLY(name, insn, n, T, S) \
    static inline void name##n##_wide(struct vcpu *v, T s) \
    { \
        uint64_t low = v->s.gpr[RAX], high = 0; \
        uint16_t cc = v->s.cc; \
        __asm__(CC_LOAD "mov %[low], %%rax\n\t" #insn S " %[s]\n\tmov %%rax, %[low]" CC_SAVE \
                : [low] "+r"(low), "=&d"(high), "+a"(cc) \
                : [s] "r"(s)); \
        v->s.cc = cc; \
        set##n(v, RAX, (T)low); \
        set##n(v, RDX, (T)high); \
    }
/* AX = AL * s */
#define MULTIPLY_BYTE(name, insn) \
    static inline void name##8_wide(struct vcpu * v, uint8_t s) \
    { \
        uint64_t low = v->s.gpr[RAX]; \
        uint16_t cc = v->s.cc; \
        __asm__(CC_LOAD "mov %[low], %%rax\n\t" #insn "b %[s]\n\tmov %%rax, %[low]" CC_SAVE \
                : [low] "+r"(low), "+a"(cc) \
                : [s] "r"(s)); \
        v->s.cc = cc; \
        set16(v, RAX, (uint16_t)low); \
    }
#define MULTIPLY_HANDLERS(name, n) \
    HANDLER(name##n##_r) \
    { \
        name##n##_wide(v, get##n(v, op->r1)); \
        return NEXT(v, op); \
    } \
    LOAD_HANDLERS(name##n##_m, n, name##n##_wide(v, x))
/* clang-format off */
#define ALL_MUL(n, T, S) MULTIPLY(mul, mul, n, T, S) MULTIPLY_HANDLERS(mul, n)
#define ALL_IMUL1(n, T, S) MULTIPLY(imul1, imul, n, T, S) MULTIPLY_HANDLERS(imul1, n)
MULTIPLY_BYTE(mul, mul)
MULTIPLY_HANDLERS(mul, 8)
MULTIPLY_BYTE(imul1, imul)
MULTIPLY_HANDLERS(imul1, 8)
FOR_WIDE_SIZES(ALL_MUL)
FOR_WIDE_SIZES(ALL_IMUL1)
/* clang-format on */

#define IMUL(n, T, S) \
    static inline T imul##n(struct vcpu *v, T d, T s) \
    { \
        uint16_t cc = v->s.cc; \
        __asm__(CC_LOAD "imul" S " %[s], %[d]" CC_SAVE : [d] "+r"(d), "+a"(cc) : [s] "r"(s)); \
        v->s.cc = cc; \
        return d; \
    } \
    HANDLER(imul2_##n##_r) \
    { \
        set##n(v, op->r1, imul##n(v, get##n(v, op->r1), get##n(v, op->r2))); \
        return NEXT(v, op); \
    } \
    LOAD_HANDLERS(imul2_##n##_m, n, set##n(v, op->r1, imul##n(v, get##n(v, op->r1), x))) \
    HANDLER(imul3_##n##_r) \
    { \
        set##n(v, op->r1, imul##n(v, get##n(v, op->r2), (T)op->imm)); \
        return NEXT(v, op); \
    } \
    LOAD_HANDLERS(imul3_##n##_m, n, set##n(v, op->r1, imul##n(v, x, (T)op->imm)))
FOR_WIDE_SIZES(IMUL)

/* --- division ------------------------------------------------------------------------------------------- */

/* Runs the host's instruction on high:low / s. */
#define DIVIDE_ON_HOST(insn, S, low, high, s) \
    do { \
        uint16_t cc_ = v->s.cc; \
        __asm__(CC_LOAD "mov %[lo], %%rax\n\t" insn S " %[by]\n\tmov %%rax, %[lo]" CC_SAVE \
                : [lo] "+r"(low), "+d"(high), "+a"(cc_) \
                : [by] "r"(s)); \
        v->s.cc = cc_; \
    } while (0)

#define DIVIDE(n, T, ST, WIDE, SWIDE, S) \
    static inline void div##n##_wide(struct vcpu *v, T s) \
    { \
        uint64_t low = get##n(v, RAX), high = get##n(v, RDX); \
        if (unlikely(high >= s)) \
            cpu_raise(v, VEC_DE); \
        DIVIDE_ON_HOST("div", S, low, high, s); \
        set##n(v, RAX, (T)low); \
        set##n(v, RDX, (T)high); \
    } \
    static inline void idiv##n##_wide(struct vcpu *v, T s) \
    { \
        uint64_t low = get##n(v, RAX), high = get##n(v, RDX); \
        if (unlikely(s == 0 || idiv_overflows((__int128)(SWIDE)((WIDE)high << n | low), (ST)s, n))) \
            cpu_raise(v, VEC_DE); \
        DIVIDE_ON_HOST("idiv", S, low, high, s); \
        set##n(v, RAX, (T)low); \
        set##n(v, RDX, (T)high); \
    } \
    HANDLER(div##n##_r) \
    { \
        div##n##_wide(v, get##n(v, op->r1)); \
        return NEXT(v, op); \
    } \
    LOAD_HANDLERS(div##n##_m, n, div##n##_wide(v, x)) \
    HANDLER(idiv##n##_r) \
    { \
        idiv##n##_wide(v, get##n(v, op->r1)); \
        return NEXT(v, op); \
    } \
    LOAD_HANDLERS(idiv##n##_m, n, idiv##n##_wide(v, x))

/* Does num / den (den not 0) not fit n bits? |num| must stay below |den| * 2^(n-1), or equal its sum with
 * den - 1 when negative. */
static inline bool idiv_overflows(__int128 num, int64_t den, unsigned n)
{
    if (likely(num == (int64_t)num && (n == 64 || num == sext((uint64_t)num, n))))
        return den == -1 && num == -((__int128)1 << (n - 1));
    unsigned __int128 mag = num < 0 ? -(unsigned __int128)num : (unsigned __int128)num;
    unsigned __int128 by = den < 0 ? -(unsigned __int128)den : (unsigned __int128)den;
    bool negative = (num < 0) != (den < 0);
    return mag >= (by << (n - 1)) + (negative ? by : 0);
}

DIVIDE(16, uint16_t, int16_t, uint32_t, int32_t, "w")
DIVIDE(32, uint32_t, int32_t, uint64_t, int64_t, "l")
DIVIDE(64, uint64_t, int64_t, unsigned __int128, __int128, "q")

/* AL = AX / s, AH = the remainder. */
static inline void div8_wide(struct vcpu *v, uint8_t s)
{
    uint64_t low = get16(v, RAX), high = 0;
    if (unlikely((low >> 8) >= s))
        cpu_raise(v, VEC_DE);
    DIVIDE_ON_HOST("div", "b", low, high, s);
    set16(v, RAX, (uint16_t)low);
}

static inline void idiv8_wide(struct vcpu *v, uint8_t s)
{
    uint64_t low = get16(v, RAX), high = 0;
    if (unlikely(s == 0 || idiv_overflows((int16_t)low, (int8_t)s, 8)))
        cpu_raise(v, VEC_DE);
    DIVIDE_ON_HOST("idiv", "b", low, high, s);
    set16(v, RAX, (uint16_t)low);
}

HANDLER(div8_r)
{
    div8_wide(v, get8(v, op->r1));
    return NEXT(v, op);
}
HANDLER(idiv8_r)
{
    idiv8_wide(v, get8(v, op->r1));
    return NEXT(v, op);
}
LOAD_HANDLERS(div8_m, 8, div8_wide(v, x))
LOAD_HANDLERS(idiv8_m, 8, idiv8_wide(v, x))

/* --- tables --------------------------------------------------------------------------------------------- */

struct muldiv_handlers {
    op_handler r, m[FORM_COUNT];
};
/* clang-format off */
#define MULDIV_ROW(name) { name##_r, FORMS(name##_m) }
#define MULDIV_ROWS(name) \
    { MULDIV_ROW(name##8), MULDIV_ROW(name##16), MULDIV_ROW(name##32), MULDIV_ROW(name##64) }
#define IMUL_ROWS(name) { { 0 }, MULDIV_ROW(name##_16), MULDIV_ROW(name##_32), MULDIV_ROW(name##_64) }
static const struct muldiv_handlers muldiv_handlers[][4] = {
    [INSN_MUL] = MULDIV_ROWS(mul),   [INSN_IMUL1] = MULDIV_ROWS(imul1), [INSN_DIV] = MULDIV_ROWS(div),
    [INSN_IDIV] = MULDIV_ROWS(idiv), [INSN_IMUL2] = IMUL_ROWS(imul2),   [INSN_IMUL3] = IMUL_ROWS(imul3),
};
/* clang-format on */

bool lower_muldiv(struct op *op, const struct insn *in, uint32_t mode)
{
    const struct muldiv_handlers *h = &muldiv_handlers[in->id][size_index(in->opsize)];
    bool two = in->id == INSN_IMUL2 || in->id == INSN_IMUL3;
    const struct operand *source = &in->op[two ? 1 : 0];
    op->r1 = reg_number(&in->op[0]);
    op->r2 = reg_number(&in->op[1]);
    op->run = is_reg(source) ? h->r : h->m[lower_mem(op, in, mode)];
    return op->run != NULL;
}
