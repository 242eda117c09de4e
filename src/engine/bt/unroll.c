/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inner loops whose number of rounds is known when the unit is made are written out, round by round.
 *
 *   xor eax, eax                     xor eax, eax
 *   loop: movdqa xmm0, [rcx+rax]     movdqa xmm0, [rcx]        the index has become a displacement
 *         ...                        ...
 *         add rax, 16                add rax, 16
 *         cmp rax, 64                cmp rax, 64
 *         jne loop                   (known to be taken)
 *                                    movdqa xmm0, [rcx+16] ...
 *
 * So the outer loop is one unit, which jumps to its own start: it can be a strip, where a loop of four rounds cannot. Constants are
 * followed through the unit as it is formed; a branch whose flags come from them is no branch. A loop that does not fit is left as
 * it was.
 */
#include "engine/bt/unit.h"

#include "engine/interp/operand.h"

#define ROUND_CC(insn) \
    static uint16_t insn##_cc(uint64_t *a, uint64_t b, unsigned size) \
    { \
        uint16_t cc; \
        uint32_t low = (uint32_t)*a; \
        if (size == 8) { \
            __asm__(#insn "q %2, %1" CC_SAVE : "=&a"(cc), "+r"(*a) : "r"(b) : "cc"); \
        } else { \
            __asm__(#insn "l %2, %1" CC_SAVE : "=&a"(cc), "+r"(low) : "r"((uint32_t)b) : "cc"); \
            *a = low; \
        } \
        return cc; \
    }
ROUND_CC(add)
ROUND_CC(sub)
ROUND_CC(and)

static bool knows(const struct unroll *u, const struct operand *o)
{
    return o->kind == OPND_REG && o->size >= 4 && u->known >> o->reg & 1;
}

static bool same_reg(const struct operand *a, const struct operand *b)
{
    return a->kind == OPND_REG && b->kind == OPND_REG && a->reg == b->reg && a->size >= 4;
}

/* Registers and flags behind an instruction that was copied. */
static void follow(struct unroll *u, const struct planned *p)
{
    const struct insn *in = &p->in;
    const struct operand *dst = &in->op[0], *src = &in->op[1];
    unsigned size = dst->size;
    bool known = knows(u, dst), imm = src->kind == OPND_IMM, result = false, flags = false;
    uint64_t x = known ? u->value[dst->reg] : 0;
    uint16_t cc = 0;
    if ((in->id == INSN_XOR || in->id == INSN_SUB) && same_reg(dst, src)) {
        x = 0;
        cc = sub_cc(&x, 0, size);
        result = flags = true;
    } else if (in->id == INSN_MOV && dst->kind == OPND_REG && size >= 4 && imm) {
        x = in->imm & mask_bytes(size);
        result = true;
    } else if (known && imm && (in->id == INSN_ADD || in->id == INSN_SUB || in->id == INSN_CMP)) {
        cc = in->id == INSN_ADD ? add_cc(&x, in->imm, size) : sub_cc(&x, in->imm, size);
        result = in->id != INSN_CMP;
        flags = true;
    } else if (known && (in->id == INSN_INC || in->id == INSN_DEC)) {
        x = (x + (in->id == INSN_INC ? 1 : ~0ull)) & mask_bytes(size);
        result = true; /* flags: the carry is another's */
    } else if (known && in->id == INSN_TEST && same_reg(dst, src)) {
        cc = and_cc(&x, x, size);
        flags = true;
    }
    u->known &= (uint16_t)~p->fx.gpr_written;
    if (result) {
        u->known |= (uint16_t)(1u << dst->reg);
        u->value[dst->reg] = x;
    }
    if (flags || (p->fx.flags_written | p->fx.flags_maybe) & STATUS_FLAGS)
        u->flags = flags;
    u->cc = cc;
}

/* An index that is known goes into the displacement. */
static void fold(const struct unroll *u, const struct unit_plan *p, struct planned *x)
{
    struct mem_operand *m = &x->in.mem;
    if (!x->mem.used || x->in.addrsize != p->code_bytes || m->index >= 16 || !(u->known >> m->index & 1))
        return;
    int64_t disp = (int64_t)((uint64_t)m->disp + (u->value[m->index] << m->scale));
    if (!p->code64)
        disp = (int32_t)disp;
    if (disp != (int32_t)disp)
        return;
    m->disp = disp;
    m->index = MEM_NO_REG;
}

static bool plain(enum how how)
{
    return how == HOW_COPY || how == HOW_SIMD || how == HOW_LEA || how == HOW_NOP;
}

/* The instruction at `off` from which straight plain code leads to the last one, or -1. */
static int round_start(const struct unit_plan *p, int64_t off)
{
    for (int i = (int)p->count - 2; i > 0 && plain(p->insns[i].how); i--)
        if (p->insns[i].off == off)
            return i;
    return -1;
}

/* The last instruction is a branch whose outcome is known. True when the unit goes on at its target. */
static bool branch(struct unroll *u, struct unit_plan *p)
{
    struct planned *x = &p->insns[p->count - 1];
    bool taken = cc_test(u->cc, x->in.cond);
    int64_t to = jump_target(x);
    if (u->branch && p->insns[u->branch - 1].off != x->off)
        return false;
    if (taken && (u->gave_up || !jump_stays(p, x) || round_start(p, to) < 0))
        return false;
    if (!u->branch && !taken)
        return false; /* no loop: leave it as it is, somebody else may come here */
    if (!u->branch)
        u->branch = p->count;
    x->how = HOW_NOP;
    x->fx = (struct insn_effects){ 0 };
    if (!taken)
        u->branch = 0;
    return taken;
}

unsigned unroll_next(struct unroll *u, struct unit_plan *p)
{
    struct planned *x = &p->insns[p->count - 1];
    if (x->how == HOW_JCC && u->flags)
        return branch(u, p) ? (unsigned)jump_target(x) : x->end;
    if (x->how == HOW_COPY || x->how == HOW_SIMD) {
        fold(u, p, x);
        follow(u, x);
    } else if (x->how == HOW_LEA) {
        u->known &= (uint16_t)~x->fx.gpr_written;
    } else if (x->how != HOW_NOP && x->how != HOW_JCC) {
        u->known = 0;
        u->flags = false;
    }
    return x->end;
}

bool unroll_undo(struct unroll *u, struct unit_plan *p)
{
    if (!u->branch)
        return false;
    struct planned *x = &p->insns[u->branch - 1];
    x->how = HOW_JCC;
    insn_effects(&x->fx, &x->in);
    p->count = u->branch;
    *u = (struct unroll){ .gave_up = true };
    return true;
}
