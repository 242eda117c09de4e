/* SPDX-License-Identifier: Apache-2.0 */
/* PUSH, POP, PUSHA, POPA, ENTER, LEAVE. Nothing is committed before the last access succeeded. */
#include "engine/interp/stack.h"

/* --- PUSH ----------------------------------------------------------------------------------------------- */

cold_fn const struct op *push_and_next(struct vcpu *v, const struct op *op, uint64_t val, unsigned size)
{
    stack_push(v, op, val, size);
    return NEXT(v, op);
}

HANDLER(push_r64) { PUSH_FLAT(64, v->s.gpr[op->r1]); }
HANDLER(push_i64) { PUSH_FLAT(64, op->imm); }
HANDLER(push_r32) { PUSH_FLAT(32, v->s.gpr[op->r1]); }
HANDLER(push_i32) { PUSH_FLAT(32, op->imm); }
HANDLER(push_r) { return push_and_next(v, op, v->s.gpr[op->r1], op->opsize); }
HANDLER(push_i) { return push_and_next(v, op, op->imm, op->opsize); }
HANDLER(push_m) { return push_and_next(v, op, read_operand(v, op, op->opsize), op->opsize); }

/* --- POP ------------------------------------------------------------------------------------------------ */

HANDLER(pop_r)
{
    uint64_t val = stack_peek(v, op, op->opsize);
    stack_drop(v, op->opsize);
    set_sized(v, op->r1, val, op->opsize);
    return NEXT(v, op);
}

/* POP RSP: the value read wins over the increment. */
#define POP_FLAT(n) \
    uint64_t lin = (uint##n##_t)v->s.gpr[RSP]; \
    const void *host = tlb_find(&v->mmu, lin, n / 8, ACCESS_READ); \
    if (unlikely(!host)) \
        return pop_r(v, op); \
    v->s.gpr[RSP] = (uint##n##_t)(lin + n / 8); \
    v->s.gpr[op->r1] = *(const any##n *)host; \
    return NEXT(v, op)
HANDLER(pop_r64) { POP_FLAT(64); }
HANDLER(pop_r32) { POP_FLAT(32); }

/* An address formed with RSP uses its value after the increment (SDM 2B POP). */
HANDLER(pop_m)
{
    uint64_t val = stack_peek(v, op, op->opsize), before = v->s.gpr[RSP];
    stack_drop(v, op->opsize);
    uint64_t off = op_offset(v, op), after = v->s.gpr[RSP];
    v->s.gpr[RSP] = before;
    uint64_t lin = seg_linear(v, op->seg, off, op->opsize, ACCESS_WRITE);
    write_linear(v, op, lin, val, op->opsize, op->seg);
    v->s.gpr[RSP] = after;
    return NEXT(v, op);
}

/* --- PUSHA, POPA ---------------------------------------------------------------------------------------- */

HANDLER(pusha)
{
    uint64_t mask = stack_mask(v), sp = v->s.gpr[RSP];
    for (unsigned r = RAX; r <= RDI; r++) {
        sp -= op->opsize;
        stack_write(v, op, sp & mask, v->s.gpr[r], op->opsize);
    }
    stack_set(v, sp);
    return NEXT(v, op);
}

HANDLER(popa)
{
    uint64_t mask = stack_mask(v), sp = v->s.gpr[RSP], val[8];
    for (unsigned r = 8; r-- > 0; sp += op->opsize)
        val[r] = stack_read(v, op, sp & mask, op->opsize);
    for (unsigned r = RAX; r <= RDI; r++)
        if (r != RSP)
            set_sized(v, r, val[r], op->opsize);
    stack_set(v, sp);
    return NEXT(v, op);
}

/* --- ENTER, LEAVE --------------------------------------------------------------------------------------- */

/* imm: bytes to reserve; r1: nesting level (SDM 2A ENTER). */
HANDLER(enter)
{
    unsigned size = op->opsize, level = op->r1;
    uint64_t mask = stack_mask(v), sp = v->s.gpr[RSP] - size, frame = sp, bp = v->s.gpr[RBP];
    stack_write(v, op, sp & mask, bp, size);
    for (unsigned i = 1; i < level; i++) {
        bp -= size;
        sp -= size;
        stack_write(v, op, sp & mask, stack_read(v, op, bp & mask, size), size);
    }
    if (level) {
        sp -= size;
        stack_write(v, op, sp & mask, frame, size);
    }
    sp -= op->imm;
    /* The new top of the stack must be writable, though nothing is written there. */
    uint64_t lin = seg_linear(v, SEG_SS, sp & mask, size, ACCESS_WRITE);
    access_probe_write(v, lin, size, v->mmu.index, SEG_SS);
    if (mask == 0xffff)
        frame = (v->s.gpr[RSP] & ~mask) | (frame & mask);
    set_sized(v, RBP, frame, size);
    stack_set(v, sp);
    return NEXT(v, op);
}

HANDLER(leave_any)
{
    uint64_t mask = stack_mask(v), bp = v->s.gpr[RBP] & mask;
    uint64_t val = stack_read(v, op, bp, op->opsize);
    stack_set(v, bp + op->opsize);
    set_sized(v, RBP, val, op->opsize);
    return NEXT(v, op);
}

HANDLER(leave64)
{
    uint64_t lin = v->s.gpr[RBP];
    const void *host = tlb_find(&v->mmu, lin, 8, ACCESS_READ);
    if (unlikely(!host))
        return leave_any(v, op);
    v->s.gpr[RSP] = lin + 8;
    v->s.gpr[RBP] = *(const any64 *)host;
    return NEXT(v, op);
}

/* --- lowering ------------------------------------------------------------------------------------------- */

/* [operand: register, immediate][stack form] */
static const op_handler push_handlers[2][STACK_FORM_COUNT] = { { push_r64, push_r32, push_r },
                                                               { push_i64, push_i32, push_i } };
static const op_handler pop_handlers[STACK_FORM_COUNT] = { pop_r64, pop_r32, pop_r };

bool lower_stack(struct op *op, const struct insn *in, uint32_t mode)
{
    const struct operand *a = &in->op[0];
    enum stack_form form = stack_form(mode, in->opsize);
    bool mem = a->kind == OPND_MEM;
    if (mem)
        lower_mem(op, in, mode);
    op->r1 = a->reg;
    switch (in->id) {
    case INSN_PUSH: op->run = mem ? push_m : push_handlers[!is_reg(a)][form]; break;
    case INSN_POP: op->run = mem ? pop_m : pop_handlers[form]; break;
    case INSN_PUSHA: op->run = pusha; break;
    case INSN_POPA: op->run = popa; break;
    case INSN_ENTER:
        op->r1 = in->imm2 & 31;
        op->run = enter;
        break;
    default: op->run = form == STACK_64 ? leave64 : leave_any; break;
    }
    return true;
}
