/* SPDX-License-Identifier: Apache-2.0 */
/* A comparison and the conditional jump after it as one handler: the pair that programs are full of. */
#include "engine/interp/branch.h"

/* The comparison's handler looks at the op after its own, which stays as it is. 64-bit mode only. */
#define COMPARE_AND_JUMP(name, n, T, S, c, first, second) \
    uint16_t cc; \
    bool yes; \
    __asm__(#name S " %[s], %[d]" CC_SAVE \
            : "=&a"(cc), "=@cc" #c(yes) \
            : [d] "r"((T)(first)), [s] "re"((T)(second))); \
    v->s.cc = cc; \
    return yes ? target_64(v, op + 1) : next_64(v, op + 1)

#define FUSED_REG(name, form, n, T, S, c, second) \
    HANDLER(name##n##_##form##_j##c) { COMPARE_AND_JUMP(name, n, T, S, c, get##n(v, op->r1), second); }

/* On a TLB miss the comparison is made alone, by the handler that aux remembers. */
#define FUSED_MEM(name, form, n, T, S, c, first, second) \
    HANDLER(name##n##_##form##_j##c) \
    { \
        uint64_t lin = address_b(v, op, n / 8, ACCESS_READ); \
        const void *host = tlb_find(&v->mmu, lin, n / 8, ACCESS_READ); \
        if (unlikely(!host)) \
            return ((op_handler)(uintptr_t)op->aux)(v, op); \
        T x = *(const any##n *)host; \
        COMPARE_AND_JUMP(name, n, T, S, c, first, second); \
    }

/* clang-format off */
#define FUSED(name, n, T, S, c) \
    FUSED_REG(name, rr, n, T, S, c, get##n(v, op->r2)) \
    FUSED_REG(name, ri, n, T, S, c, op->imm) \
    FUSED_MEM(name, mi, n, T, S, c, x, op->imm) \
    FUSED_MEM(name, mr, n, T, S, c, x, get##n(v, op->r2)) \
    FUSED_MEM(name, rm, n, T, S, c, get##n(v, op->r1), x)
#define FUSED_CONDITION(cond, c) \
    FUSED(cmp, 8, uint8_t, "b", c) FUSED(cmp, 32, uint32_t, "l", c) FUSED(cmp, 64, uint64_t, "q", c) \
    FUSED(test, 8, uint8_t, "b", c) FUSED(test, 32, uint32_t, "l", c) FUSED(test, 64, uint64_t, "q", c)
FOR_CONDITIONS(FUSED_CONDITION)

#define FUSED_FORMS(name, n, c) \
    { name##n##_rr_j##c, name##n##_ri_j##c, name##n##_mi_j##c, name##n##_mr_j##c, name##n##_rm_j##c }
#define FUSED_ROW(cond, c) \
    { \
        { FUSED_FORMS(cmp, 8, c), FUSED_FORMS(cmp, 32, c), FUSED_FORMS(cmp, 64, c) }, \
        { FUSED_FORMS(test, 8, c), FUSED_FORMS(test, 32, c), FUSED_FORMS(test, 64, c) }, \
    },
/* [condition][TEST?][8, 32, 64 bits][enum alu_form] */
static const op_handler fused_handlers[16][2][3][ALU_FORM_COUNT] = { FOR_CONDITIONS(FUSED_ROW) };
/* clang-format on */

void fuse(struct op *first, const struct op *second)
{
    bool test = first->id == INSN_TEST;
    if ((first->id != INSN_CMP && !test) || second->id != INSN_JCC || !op_links(second))
        return;
    if (first->opsize == 2 || first->prefixes == ALU_OTHER)
        return;
    unsigned size = first->opsize == 1 ? 0 : size_index(first->opsize) - 1;
    first->aux = (const void *)(uintptr_t)first->run;
    first->run = fused_handlers[second->r1][test][size][first->prefixes];
}
