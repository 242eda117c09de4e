/* SPDX-License-Identifier: Apache-2.0 */
/* State images and random numbers of newer processors: XSAVEOPT XSAVEC XSAVES XRSTORS, RDRAND RDSEED, RDPID. */
#include "engine/interp/fpu.h"
#include "engine/interp/operand.h"

/* Once more a few times, as the manual advises; CF clear and 0 when the host has none (SDM 1 7.3.17). */
#define RANDOM(name) \
    HANDLER(name) \
    { \
        uint64_t val = 0; \
        uint8_t ok = 0; \
        for (unsigned tries = 0; tries < 10 && !ok; tries++) \
            __asm__ volatile(#name " %0\n\tsetc %1" : "=r"(val), "=qm"(ok) : : "cc"); \
        set_sized(v, op->r1, ok ? val : 0, op->opsize); \
        v->s.cc = flags_to_cc(ok ? FL_CF : 0); \
        return NEXT(v, op); \
    }
RANDOM(rdrand)
RANDOM(rdseed)

HANDLER(rdpid)
{
    v->s.gpr[op->r1] = (uint32_t)v->s.msr.tsc_aux;
    return NEXT(v, op);
}

/* clang-format off */
static const op_handler handlers[] = {
    [INSN_RDRAND - INSN_LZCNT] = rdrand, [INSN_RDSEED - INSN_LZCNT] = rdseed, [INSN_RDPID - INSN_LZCNT] = rdpid,
    [INSN_XSAVEOPT - INSN_LZCNT] = run_xsaveopt, [INSN_XSAVEC - INSN_LZCNT] = run_xsavec,
    [INSN_XSAVES - INSN_LZCNT] = run_xsaves, [INSN_XRSTORS - INSN_LZCNT] = run_xrstors,
};
/* clang-format on */

bool lower_extra(struct op *op, const struct insn *in, uint32_t mode)
{
    unsigned n = in->id - INSN_LZCNT;
    (void)mode;
    if (n >= array_size(handlers) || !handlers[n])
        return false;
    op->r1 = in->op[0].reg;
    if (in->op[0].kind == OPND_MEM) {
        op_set_mem(op, in);
        op->prefixes = (in->rex & 8) != 0; /* 64-bit pointers in the x87 part */
    }
    op->run = handlers[n];
    return true;
}
