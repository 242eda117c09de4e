/* SPDX-License-Identifier: Apache-2.0 */
/* ADD OR ADC SBB AND SUB XOR CMP TEST and INC DEC NEG NOT: the host's own instructions on guest operands,
 * flags included. */
#include "engine/interp/operand.h"

/* --- the operations on values --------------------------------------------------------------------------- */

/* Before the instruction: nothing, or CF from the guest's flags. */
#define NO_CARRY ""
#define CARRY "btw $8, %[cc]\n\t"

/* name_reg: d OP s. name_mem: the same on memory. name_lock: with LOCK. */
#define DEFINE_BINARY(name, n, T, S, carry) \
    static inline T name##n##_reg(struct vcpu *v, T d, T s) \
    { \
        uint16_t cc; \
        __asm__(carry #name S " %[s], %[d]" CC_SAVE \
                : [d] "+r"(d), "=&a"(cc) \
                : [s] "re"(s), [cc] "m"(v->s.cc)); \
        v->s.cc = cc; \
        return d; \
    } \
    static inline void name##n##_mem(struct vcpu *v, any##n *d, T s) \
    { \
        uint16_t cc; \
        __asm__ volatile(carry #name S " %[s], %[d]" CC_SAVE \
                         : [d] "+m"(*d), "=&a"(cc) \
                         : [s] "re"(s), [cc] "m"(v->s.cc)); \
        v->s.cc = cc; \
    } \
    static inline void name##n##_lock(struct vcpu *v, any##n *d, T s) \
    { \
        uint16_t cc; \
        __asm__ volatile(carry "lock " #name S " %[s], %[d]" CC_SAVE \
                         : [d] "+m"(*d), "=&a"(cc) \
                         : [s] "re"(s), [cc] "m"(v->s.cc) \
                         : "memory"); \
        v->s.cc = cc; \
    }

#define DEFINE_COMPARE(name, n, T, S) \
    static inline void name##n##_flags(struct vcpu *v, T d, T s) \
    { \
        uint16_t cc; \
        __asm__(#name S " %[s], %[d]" CC_SAVE : "=&a"(cc) : [d] "r"(d), [s] "re"(s)); \
        v->s.cc = cc; \
    }

#define DEFINE_UNARY(name, n, T, S, carry) \
    static inline T name##n##_reg(struct vcpu *v, T d) \
    { \
        uint16_t cc; \
        __asm__(carry #name S " %[d]" CC_SAVE : [d] "+r"(d), "=&a"(cc) : [cc] "m"(v->s.cc)); \
        v->s.cc = cc; \
        return d; \
    } \
    static inline void name##n##_mem(struct vcpu *v, any##n *d) \
    { \
        uint16_t cc; \
        __asm__ volatile(carry #name S " %[d]" CC_SAVE : [d] "+m"(*d), "=&a"(cc) : [cc] "m"(v->s.cc)); \
        v->s.cc = cc; \
    } \
    static inline void name##n##_lock(struct vcpu *v, any##n *d) \
    { \
        uint16_t cc; \
        __asm__ volatile(carry "lock " #name S " %[d]" CC_SAVE \
                         : [d] "+m"(*d), "=&a"(cc) \
                         : [cc] "m"(v->s.cc) \
                         : "memory"); \
        v->s.cc = cc; \
    }

/* --- handlers ------------------------------------------------------------------------------------------- */

/* The locked instruction, or its parts while the world is stopped. `tmp` is the operand then. */
#define LOCKED_HANDLER(name, n, on_host, on_tmp) \
    HANDLER(name) \
    { \
        uint64_t val, lin = address_gen(v, op, n / 8, ACCESS_WRITE); \
        any##n *p = locked_begin(v, op, lin, n / 8, &val); \
        if (likely(p != NULL)) { \
            on_host; \
            return NEXT(v, op); \
        } \
        uint16_t before = v->s.cc; \
        any##n tmp = (any##n)val; \
        on_tmp; \
        uint16_t after = v->s.cc; \
        v->s.cc = before; \
        locked_end(v, op, lin, tmp, n / 8, true); \
        v->s.cc = after; \
        return NEXT(v, op); \
    }

#define BINARY(name, n, T, S, carry) \
    DEFINE_BINARY(name, n, T, S, carry) \
    HANDLER(name##n##_rr) \
    { \
        set##n(v, op->r1, name##n##_reg(v, get##n(v, op->r1), get##n(v, op->r2))); \
        return NEXT(v, op); \
    } \
    HANDLER(name##n##_ri) \
    { \
        set##n(v, op->r1, name##n##_reg(v, get##n(v, op->r1), (T)op->imm)); \
        return NEXT(v, op); \
    } \
    LOAD_HANDLERS(name##n##_rm, n, set##n(v, op->r1, name##n##_reg(v, get##n(v, op->r1), x))) \
    RMW_HANDLERS(name##n##_mr, n, name##n##_mem(v, p, get##n(v, op->r2))) \
    RMW_HANDLERS(name##n##_mi, n, name##n##_mem(v, p, (T)op->imm)) \
    LOCKED_HANDLER(name##n##_lr, n, name##n##_lock(v, p, get##n(v, op->r2)), \
                   tmp = name##n##_reg(v, tmp, get##n(v, op->r2))) \
    LOCKED_HANDLER(name##n##_li, n, name##n##_lock(v, p, (T)op->imm), tmp = name##n##_reg(v, tmp, (T)op->imm))

#define COMPARE(name, n, T, S) \
    DEFINE_COMPARE(name, n, T, S) \
    HANDLER(name##n##_rr) \
    { \
        name##n##_flags(v, get##n(v, op->r1), get##n(v, op->r2)); \
        return NEXT(v, op); \
    } \
    HANDLER(name##n##_ri) \
    { \
        name##n##_flags(v, get##n(v, op->r1), (T)op->imm); \
        return NEXT(v, op); \
    } \
    LOAD_HANDLERS(name##n##_rm, n, name##n##_flags(v, get##n(v, op->r1), x)) \
    LOAD_HANDLERS(name##n##_mr, n, name##n##_flags(v, x, get##n(v, op->r2))) \
    LOAD_HANDLERS(name##n##_mi, n, name##n##_flags(v, x, (T)op->imm))

#define UNARY(name, n, T, S, carry) \
    DEFINE_UNARY(name, n, T, S, carry) \
    HANDLER(name##n##_r) \
    { \
        set##n(v, op->r1, name##n##_reg(v, get##n(v, op->r1))); \
        return NEXT(v, op); \
    } \
    RMW_HANDLERS(name##n##_m, n, name##n##_mem(v, p)) \
    LOCKED_HANDLER(name##n##_l, n, name##n##_lock(v, p), tmp = name##n##_reg(v, tmp))

/* clang-format off */
#define ALL_ADD(n, T, S) BINARY(add, n, T, S, NO_CARRY)
#define ALL_OR(n, T, S) BINARY(or, n, T, S, NO_CARRY)
#define ALL_ADC(n, T, S) BINARY(adc, n, T, S, CARRY)
#define ALL_SBB(n, T, S) BINARY(sbb, n, T, S, CARRY)
#define ALL_AND(n, T, S) BINARY(and, n, T, S, NO_CARRY)
#define ALL_SUB(n, T, S) BINARY(sub, n, T, S, NO_CARRY)
#define ALL_XOR(n, T, S) BINARY(xor, n, T, S, NO_CARRY)
#define ALL_CMP(n, T, S) COMPARE(cmp, n, T, S)
#define ALL_TEST(n, T, S) COMPARE(test, n, T, S)
#define ALL_INC(n, T, S) UNARY(inc, n, T, S, CARRY)
#define ALL_DEC(n, T, S) UNARY(dec, n, T, S, CARRY)
#define ALL_NEG(n, T, S) UNARY(neg, n, T, S, NO_CARRY)
FOR_SIZES(ALL_ADD)
FOR_SIZES(ALL_OR)
FOR_SIZES(ALL_ADC)
FOR_SIZES(ALL_SBB)
FOR_SIZES(ALL_AND)
FOR_SIZES(ALL_SUB)
FOR_SIZES(ALL_XOR)
FOR_SIZES(ALL_CMP)
FOR_SIZES(ALL_TEST)
FOR_SIZES(ALL_INC)
FOR_SIZES(ALL_DEC)
FOR_SIZES(ALL_NEG)
/* clang-format on */

/* NOT ("inv" here, as some take not for a keyword) touches no flags. */
/* clang-format off */
#define ALL_NOT(n, T, S) \
    HANDLER(inv##n##_r) \
    { \
        set##n(v, op->r1, (T)~get##n(v, op->r1)); \
        return NEXT(v, op); \
    } \
    RMW_HANDLERS(inv##n##_m, n, *p = (T) ~*p) \
    LOCKED_HANDLER(inv##n##_l, n, __asm__ volatile("lock not" S " %0" : "+m"(*p) : : "memory"), \
                   tmp = (T)~tmp)
FOR_SIZES(ALL_NOT)
/* clang-format on */

/* --- tables --------------------------------------------------------------------------------------------- */

/* clang-format off */
struct binary_handlers {
    op_handler rr, ri, rm[FORM_COUNT], mr[FORM_COUNT], mi[FORM_COUNT], lr, li;
};
struct unary_handlers {
    op_handler r, m[FORM_COUNT], l;
};

#define BINARY_ROW(name, n) \
    { name##n##_rr, name##n##_ri, FORMS(name##n##_rm), FORMS(name##n##_mr), FORMS(name##n##_mi), \
      name##n##_lr, name##n##_li }
#define COMPARE_ROW(name, n) \
    { name##n##_rr, name##n##_ri, FORMS(name##n##_rm), FORMS(name##n##_mr), FORMS(name##n##_mi), NULL, NULL }
#define UNARY_ROW(name, n) { name##n##_r, FORMS(name##n##_m), name##n##_l }
#define BY_SIZE(ROW, name) { ROW(name, 8), ROW(name, 16), ROW(name, 32), ROW(name, 64) }

static const struct binary_handlers binary_handlers[][4] = {
    [INSN_ADD] = BY_SIZE(BINARY_ROW, add),
    [INSN_OR] = BY_SIZE(BINARY_ROW, or),
    [INSN_ADC] = BY_SIZE(BINARY_ROW, adc),
    [INSN_SBB] = BY_SIZE(BINARY_ROW, sbb),
    [INSN_AND] = BY_SIZE(BINARY_ROW, and),
    [INSN_SUB] = BY_SIZE(BINARY_ROW, sub),
    [INSN_XOR] = BY_SIZE(BINARY_ROW, xor),
    [INSN_CMP] = BY_SIZE(COMPARE_ROW, cmp),
    [INSN_TEST] = BY_SIZE(COMPARE_ROW, test),
};

static const struct unary_handlers unary_handlers[][4] = {
    [INSN_INC] = BY_SIZE(UNARY_ROW, inc),
    [INSN_DEC] = BY_SIZE(UNARY_ROW, dec),
    [INSN_NEG] = BY_SIZE(UNARY_ROW, neg),
    [INSN_NOT] = BY_SIZE(UNARY_ROW, inv),
};
/* clang-format on */

bool lower_alu(struct op *op, const struct insn *in, uint32_t mode)
{
    const struct binary_handlers *h = &binary_handlers[in->id][size_index(in->opsize)];
    const struct operand *a = &in->op[0], *b = &in->op[1];
    bool lock = in->prefixes & IP_LOCK, imm = b->kind == OPND_IMM;
    op->r1 = reg_number(a);
    op->r2 = reg_number(b);
    if (is_reg(a) && b->kind != OPND_MEM) {
        op->run = imm ? h->ri : h->rr;
        op->prefixes = imm ? ALU_RI : ALU_RR;
        return true;
    }
    unsigned form = lower_mem(op, in, mode);
    enum alu_form operands = is_reg(a) ? ALU_RM : imm ? ALU_MI : ALU_MR;
    if (lock)
        op->run = imm ? h->li : h->lr;
    else
        op->run = operands == ALU_RM ? h->rm[form] : operands == ALU_MI ? h->mi[form] : h->mr[form];
    op->prefixes = form == FORM_B && !lock ? operands : ALU_OTHER;
    return op->run != NULL;
}

bool lower_unary(struct op *op, const struct insn *in, uint32_t mode)
{
    const struct unary_handlers *h = &unary_handlers[in->id][size_index(in->opsize)];
    op->r1 = reg_number(&in->op[0]);
    if (is_reg(&in->op[0])) {
        op->run = h->r;
        return true;
    }
    unsigned form = lower_mem(op, in, mode);
    op->run = in->prefixes & IP_LOCK ? h->l : h->m[form];
    return true;
}
