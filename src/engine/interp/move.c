/* SPDX-License-Identifier: Apache-2.0 */
/* MOV, MOVZX, MOVSX, LEA, CMOVcc, SETcc, BSWAP, CBW and CWD families, XLAT: data moved, flags left alone. */
#include "engine/interp/operand.h"
#include "host/thread.h"

#define PAUSES 64u /* after so many the host's other threads get their turn */

/* --- MOV ------------------------------------------------------------------------------------------------ */

#define MOVE(n, T, S) \
    HANDLER(mov##n##_rr) \
    { \
        set##n(v, op->r1, get##n(v, op->r2)); \
        return NEXT(v, op); \
    } \
    HANDLER(mov##n##_ri) \
    { \
        set##n(v, op->r1, (T)op->imm); \
        return NEXT(v, op); \
    } \
    LOAD_HANDLERS(mov##n##_rm, n, set##n(v, op->r1, x)) \
    STORE_HANDLERS(mov##n##_mr, n, get##n(v, op->r2)) \
    STORE_HANDLERS(mov##n##_mi, n, op->imm)
FOR_SIZES(MOVE)

struct move_handlers {
    op_handler rr, ri, rm[FORM_COUNT], mr[FORM_COUNT], mi[FORM_COUNT];
};
/* clang-format off */
#define MOVE_ROW(n, T, S) \
    { mov##n##_rr, mov##n##_ri, FORMS(mov##n##_rm), FORMS(mov##n##_mr), FORMS(mov##n##_mi) },
static const struct move_handlers move_handlers[] = { FOR_SIZES(MOVE_ROW) };
/* clang-format on */

bool lower_move(struct op *op, const struct insn *in, uint32_t mode)
{
    const struct operand *a = &in->op[0], *b = &in->op[1];
    const struct move_handlers *h = &move_handlers[size_index(a->size)];
    op->r1 = reg_number(a);
    op->r2 = reg_number(b);
    if (is_reg(a))
        op->run = is_reg(b) ? h->rr : b->kind == OPND_IMM ? h->ri : h->rm[lower_mem(op, in, mode)];
    else
        op->run = is_reg(b) ? h->mr[lower_mem(op, in, mode)] : h->mi[lower_mem(op, in, mode)];
    return true;
}

/* --- MOVZX, MOVSX, MOVSXD ------------------------------------------------------------------------------- */

/* name: z or s; to, from: bits; the value x of `from` bits is converted through type C. */
#define EXTEND(name, to, from, C) \
    HANDLER(name##to##_##from##_rr) \
    { \
        set##to(v, op->r1, (uint##to##_t)(C)get##from(v, op->r2)); \
        return NEXT(v, op); \
    } \
    LOAD_HANDLERS(name##to##_##from##_rm, from, set##to(v, op->r1, (uint##to##_t)(C)x))
#define EXTEND_FROM(from) \
    EXTEND(movz, 16, from, uint##from##_t) \
    EXTEND(movz, 32, from, uint##from##_t) \
    EXTEND(movs, 16, from, int##from##_t) \
    EXTEND(movs, 32, from, int##from##_t) EXTEND(movs, 64, from, int##from##_t)
EXTEND_FROM(8)
EXTEND_FROM(16)
EXTEND_FROM(32)

struct extend_handlers {
    op_handler rr, rm[FORM_COUNT];
};
/* clang-format off */
#define EXTEND_ROW(name, to, from) { name##to##_##from##_rr, FORMS(name##to##_##from##_rm) }
#define EXTEND_ROWS(name, from, wide) \
    { EXTEND_ROW(name, 16, from), EXTEND_ROW(name, 32, from), EXTEND_ROW(name, wide, from) }
/* [signed][source size][destination size]; zero extension to 64 bits is that to 32. */
static const struct extend_handlers extend_handlers[2][3][3] = {
    { EXTEND_ROWS(movz, 8, 32), EXTEND_ROWS(movz, 16, 32), EXTEND_ROWS(movz, 32, 32) },
    { EXTEND_ROWS(movs, 8, 64), EXTEND_ROWS(movs, 16, 64), EXTEND_ROWS(movs, 32, 64) },
};
/* clang-format on */

bool lower_extend(struct op *op, const struct insn *in, uint32_t mode)
{
    const struct operand *b = &in->op[1];
    if (b->size == 0 || b->size > 4 || in->opsize < 2)
        return false;
    const struct extend_handlers *h =
        &extend_handlers[in->id == INSN_MOVSX][size_index(b->size)][size_index(in->opsize) - 1];
    op->r1 = in->op[0].reg;
    op->r2 = reg_number(b);
    op->run = is_reg(b) ? h->rr : h->rm[lower_mem(op, in, mode)];
    return true;
}

/* --- LEA ------------------------------------------------------------------------------------------------ */

#define LEA(n, T, S) \
    HANDLER(lea##n##_b) \
    { \
        set##n(v, op->r1, (T)(op_reg(v, op->base) + (uint64_t)(int64_t)op->disp)); \
        return NEXT(v, op); \
    } \
    HANDLER(lea##n##_bi) \
    { \
        set##n(v, op->r1, \
               (T)(op_reg(v, op->base) + (v->s.gpr[op->index] << op->scale) + (uint64_t)(int64_t)op->disp)); \
        return NEXT(v, op); \
    } \
    HANDLER(lea##n##_gen) \
    { \
        set##n(v, op->r1, (T)op_offset(v, op)); \
        return NEXT(v, op); \
    }
FOR_WIDE_SIZES(LEA)
#define LEA_ROW(n, T, S) FORMS(lea##n),
static const op_handler lea_handlers[][FORM_COUNT] = { FOR_WIDE_SIZES(LEA_ROW) };

bool lower_lea(struct op *op, const struct insn *in, uint32_t mode)
{
    (void)mode;
    op_set_mem(op, in);
    /* The address size masks nothing that the operand size does not. */
    bool plain = op->addrsize >= in->opsize && op->base <= MEM_RIP && op->index != MEM_OFFSET;
    unsigned form = !plain ? FORM_GEN : op->index == MEM_NO_REG ? FORM_B : FORM_BI;
    op->r1 = in->op[0].reg;
    op->run = lea_handlers[size_index(in->opsize) - 1][form];
    return true;
}

/* --- CMOVcc, SETcc -------------------------------------------------------------------------------------- */

/* The memory operand is read whatever the condition, and a 32-bit destination is always zero-extended (SDM
 * 2A CMOVcc). */
#define CMOV_SIZE(cond, c, n) \
    HANDLER(cmov##c##n##_rr) \
    { \
        set##n(v, op->r1, cc_test(v->s.cc, cond) ? get##n(v, op->r2) : get##n(v, op->r1)); \
        return NEXT(v, op); \
    } \
    HANDLER(cmov##c##n##_rm) \
    { \
        uint##n##_t x = (uint##n##_t)read_operand(v, op, n / 8); \
        set##n(v, op->r1, cc_test(v->s.cc, cond) ? x : get##n(v, op->r1)); \
        return NEXT(v, op); \
    }
#define CMOV(cond, c) CMOV_SIZE(cond, c, 16) CMOV_SIZE(cond, c, 32) CMOV_SIZE(cond, c, 64)
FOR_CONDITIONS(CMOV)
/* clang-format off */
#define CMOV_ROW(cond, c) \
    { { cmov##c##16_rr, cmov##c##16_rm }, \
      { cmov##c##32_rr, cmov##c##32_rm }, \
      { cmov##c##64_rr, cmov##c##64_rm } },
static const op_handler cmov_handlers[16][3][2] = { FOR_CONDITIONS(CMOV_ROW) };
/* clang-format on */

bool lower_cmov(struct op *op, const struct insn *in, uint32_t mode)
{
    bool mem = !is_reg(&in->op[1]);
    if (mem)
        lower_mem(op, in, mode);
    op->r1 = in->op[0].reg;
    op->r2 = in->op[1].reg;
    op->run = cmov_handlers[in->cond][size_index(in->opsize) - 1][mem];
    return true;
}

#define SET(cond, c) \
    HANDLER(set##c##_r) \
    { \
        set8(v, op->r1, cc_test(v->s.cc, cond)); \
        return NEXT(v, op); \
    } \
    HANDLER(set##c##_m) \
    { \
        write_operand(v, op, cc_test(v->s.cc, cond), 1); \
        return NEXT(v, op); \
    }
FOR_CONDITIONS(SET)
/* clang-format off */
#define SET_ROW(cond, c) { set##c##_r, set##c##_m },
static const op_handler set_handlers[16][2] = { FOR_CONDITIONS(SET_ROW) };
/* clang-format on */

bool lower_setcc(struct op *op, const struct insn *in, uint32_t mode)
{
    bool mem = !is_reg(&in->op[0]);
    if (mem)
        lower_mem(op, in, mode);
    op->r1 = reg_number(&in->op[0]);
    op->run = set_handlers[in->cond][mem];
    return true;
}

/* --- the accumulator's own, BSWAP, XLAT ----------------------------------------------------------------- */

/* clang-format off */
HANDLER(cbw) { set16(v, RAX, (uint16_t)(int8_t)v->s.gpr[RAX]); return NEXT(v, op); }
HANDLER(cwde) { set32(v, RAX, (uint32_t)(int16_t)v->s.gpr[RAX]); return NEXT(v, op); }
HANDLER(cdqe) { set64(v, RAX, (uint64_t)(int32_t)v->s.gpr[RAX]); return NEXT(v, op); }
HANDLER(cwd) { set16(v, RDX, (uint16_t)((int16_t)v->s.gpr[RAX] >> 15)); return NEXT(v, op); }
HANDLER(cdq) { set32(v, RDX, (uint32_t)((int32_t)v->s.gpr[RAX] >> 31)); return NEXT(v, op); }
HANDLER(cqo) { set64(v, RDX, (uint64_t)((int64_t)v->s.gpr[RAX] >> 63)); return NEXT(v, op); }
/* clang-format on */

HANDLER(bswap32)
{
    set32(v, op->r1, __builtin_bswap32(get32(v, op->r1)));
    return NEXT(v, op);
}
HANDLER(bswap64)
{
    set64(v, op->r1, __builtin_bswap64(get64(v, op->r1)));
    return NEXT(v, op);
}

/* Undefined by the manual; processors clear the low word. */
HANDLER(bswap16)
{
    set16(v, op->r1, 0);
    return NEXT(v, op);
}

HANDLER(xlat)
{
    uint64_t off = (get_sized(v, RBX, op->addrsize) + (v->s.gpr[RAX] & 0xff)) & mask_bytes(op->addrsize);
    uint64_t lin = seg_linear(v, op->seg, off, 1, ACCESS_READ);
    set8(v, RAX * 8, (uint8_t)read_linear(v, op, lin, 1, op->seg));
    return NEXT(v, op);
}

bool lower_accumulator(struct op *op, const struct insn *in, uint32_t mode)
{
    static const op_handler convert[3] = { cbw, cwde, cdqe }, spread[3] = { cwd, cdq, cqo },
                            swap[3] = { bswap16, bswap32, bswap64 };
    (void)mode;
    unsigned size = in->opsize >= 2 ? size_index(in->opsize) - 1 : 0;
    op->r1 = in->op[0].reg;
    op->run = in->id == INSN_CBW     ? convert[size]
              : in->id == INSN_CWD   ? spread[size]
              : in->id == INSN_BSWAP ? swap[size]
                                     : xlat;
    return true;
}

/* --- NOP, fences, hints --------------------------------------------------------------------------------- */

HANDLER(nop) { return NEXT(v, op); }

/* Whom this processor waits for may be waiting for the host's. */
HANDLER(pause)
{
    struct interp *c = interp_of(v);
    if (++c->pauses % PAUSES == 0)
        host_thread_yield();
    return NEXT(v, op);
}

HANDLER(fence)
{
    atomic_thread_fence(memory_order_seq_cst);
    return NEXT(v, op);
}

/* CLFLUSH faults as a byte read does (SDM 2A CLFLUSH). */
HANDLER(clflush)
{
    uint64_t lin = address_gen(v, op, 1, ACCESS_READ);
    if (!tlb_find(&v->mmu, lin, 1, ACCESS_READ))
        access_probe_read(v, lin, 1, v->mmu.index, op->seg);
    return NEXT(v, op);
}

bool lower_nop(struct op *op, const struct insn *in, uint32_t mode)
{
    if (in->op[0].kind == OPND_MEM)
        lower_mem(op, in, mode);
    op->run = insn_is_pause(in)            ? pause
              : in->id == INSN_NOP         ? nop
              : in->op[0].kind == OPND_MEM ? clflush
                                           : fence;
    return true;
}
