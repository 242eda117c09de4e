/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accesses that one check can serve: the same symbolic address plus constants, close together.
 *
 * Registers are followed through the unit as symbol + constant: MOV copies, ADD/SUB/LEA/INC/DEC/PUSH/POP with constants
 * shift, all else makes a new symbol. Accesses whose symbols are equal are at fixed distances, whatever the values.
 */
#include "engine/bt/unit.h"

#define NEVER_GROUPED 0xffffu
#define PAGE_CHECKED_MAX (1ll << 30) /* less than any that disp_is_far() in access.c means */

static struct symbol fresh(struct tracker *k) { return (struct symbol){ k->next++, 0 }; }

static void shift(struct tracker *k, unsigned reg, int64_t by) { k->reg[reg].add += by; }

static bool full_reg(const struct tracker *k, const struct operand *o)
{
    return o->kind == OPND_REG && o->size == k->bytes;
}

/* What the instruction does to the registers it writes. */
static void follow(struct tracker *k, const struct planned *p)
{
    const struct insn *in = &p->in;
    const struct operand *dst = &in->op[0], *src = &in->op[1];
    bool full = full_reg(k, dst);
    struct symbol moved = { 0, 0 };
    if (in->id == INSN_MOV && full && src->kind == OPND_REG)
        moved = k->reg[src->reg];
    else if ((in->id == INSN_ADD || in->id == INSN_SUB) && full && src->kind == OPND_IMM)
        moved = (struct symbol){ k->reg[dst->reg].id,
                                 k->reg[dst->reg].add +
                                     (in->id == INSN_ADD ? (int64_t)in->imm : -(int64_t)in->imm) };
    else if ((in->id == INSN_INC || in->id == INSN_DEC) && full)
        moved = (struct symbol){ k->reg[dst->reg].id, k->reg[dst->reg].add + (in->id == INSN_INC ? 1 : -1) };
    else if (in->id == INSN_LEA && full && in->addrsize == k->bytes && in->mem.base < 16 &&
             in->mem.index == MEM_NO_REG)
        moved = (struct symbol){ k->reg[in->mem.base].id, k->reg[in->mem.base].add + in->mem.disp };
    unsigned written = p->how == HOW_CALL_OUT ? 0xffff : p->fx.gpr_written;
    bool push = p->stack.used && p->stack.write, pop = p->stack.used && p->stack.read;
    if (k->view)
        reach_follow(k, p, written);
    if (push || pop)
        written &= ~(1u << RSP);
    for (unsigned left = written; left; left &= left - 1)
        k->reg[lowest_bit(left)] = fresh(k);
    if (moved.id)
        k->reg[dst->reg] = moved;
    if (in->id == INSN_LEAVE) {
        k->reg[RSP] = fresh(k);
        k->reg[RBP] = fresh(k);
    } else if (push) {
        shift(k, RSP, -(int64_t)p->stack.size);
    } else if (pop) {
        if (in->id == INSN_POP && dst->kind == OPND_REG && dst->reg == RSP)
            k->reg[RSP] = fresh(k);
        else
            shift(k, RSP, p->stack.size);
    }
}

struct address {
    uint16_t base, index;
    uint8_t scale, seg;
    int64_t at;
};

static struct address address_of(const struct tracker *k, const struct planned *p)
{
    const struct mem_operand *m = &p->in.mem;
    struct address a = { .seg = p->mem.seg, .at = m->disp };
    if (p->in.addrsize != k->bytes || p->how == HOW_BITS)
        return (struct address){ .base = NEVER_GROUPED }; /* wraps elsewhere: never grouped */
    if (m->base < 16) {
        a.base = k->reg[m->base].id;
        a.at += k->reg[m->base].add;
    } else if (m->base == MEM_RIP) {
        a.base = SYMBOL_RIP;
        a.at += p->end;
    }
    if (m->index < 16) {
        a.index = k->reg[m->index].id;
        a.scale = m->scale;
        a.at += k->reg[m->index].add * (int64_t)(1u << m->scale);
    }
    if (!a.base && !a.index &&
        k->bytes < 8) /* so that what lies at the other end of the segment is far away */
        a.at = (int64_t)((uint64_t)a.at & mask_bytes(k->bytes));
    return a;
}

static bool joins(const struct group *g, const struct address *a, const struct access *x)
{
    if (g->closed || g->base != a->base || g->index != a->index || g->scale != a->scale || g->seg != a->seg)
        return false;
    int64_t low = a->at < g->low ? a->at : g->low,
            high = a->at + x->size > g->high ? a->at + x->size : g->high;
    return (uint64_t)high - (uint64_t)low <= GROUP_SPAN; /* absolute addresses may be anywhere */
}

static void widen(struct group *g, const struct address *a, const struct access *x)
{
    if (a->at < g->low)
        g->low = a->at;
    if (a->at + x->size > g->high)
        g->high = a->at + x->size;
    g->write |= x->write;
    g->slot = true;
    g->count++;
}

/* Leaves instruction i, and with it the unit's rest, to the interpreter. */
static void end_before(struct unit_plan *p, unsigned i)
{
    struct planned *x = &p->insns[i];
    x->how = HOW_BAIL;
    x->mem.used = x->stack.used = false;
    x->end = x->off;
    p->count = i + 1;
}

/* An access by the view. `base`: the symbol of its base register. From the page what is checked is the page itself, unless the
 * displacement is so large that access.c reckons the address first: that says nothing of the page. */
static void place_view(struct unit_plan *p, struct tracker *k, struct access *x, const struct address *a,
                       const struct mem_operand *m, const struct symbol *base)
{
    bool alone = a->base == NEVER_GROUPED ||
                 (a->base == SYMBOL_RIP && (a->at > PAGE_CHECKED_MAX || a->at < -PAGE_CHECKED_MAX));
    const struct reach at = {
        .base = alone ? 0 : a->base,
        .index = alone ? 0 : a->index,
        .scale = a->scale,
        .seg = a->seg == SEG_PLAIN ? 0 : a->seg,
        .at = a->at,
    };
    x->group = NO_GROUP;
    reach_access(p, k, x, m, &at, base ? base->add : 0);
}

static void place(struct unit_plan *p, struct access *x, const struct address *a, bool merge, bool alone)
{
    x->at = a->at;
    if (merge && !alone && a->base != NEVER_GROUPED)
        for (unsigned i = 0; i < p->ngroups; i++)
            if (joins(&p->groups[i], a, x)) {
                widen(&p->groups[i], a, x);
                x->group = (int8_t)i;
                x->first = false;
                return;
            }
    x->first = true;
    if (p->ngroups == GROUP_SLOTS || a->base == NEVER_GROUPED) {
        x->group = NO_GROUP;
        return;
    }
    x->group = (int8_t)p->ngroups;
    p->groups[p->ngroups++] = (struct group){
        .base = a->base,
        .index = a->index,
        .scale = a->scale,
        .seg = a->seg,
        .write = x->write,
        .read_first = !x->write || x->doubtful,
        .low = a->at,
        .high = a->at + x->size,
        .count = 1,
        .closed = alone,
    };
}

/* A jump back to the start: what moved by how much. */
static void note_back(struct unit_plan *p, const struct tracker *k, unsigned i)
{
    const struct planned *x = &p->insns[i];
    if (p->back >= 0 || !is_conditional(x->how) || jump_target(x) != p->start)
        return;
    p->back = (int)i;
    p->steady = 0;
    for (unsigned r = 0; r < 16; r++)
        if (k->reg[r].id == r + 1 && k->reg[r].add == (int32_t)k->reg[r].add) {
            p->steady |= (uint16_t)(1u << r);
            p->stride[r] = k->reg[r].add;
        }
}

/* A call whose target may not be canonical, or beyond CS's limit: then it writes no return address. */
static bool may_lead_nowhere(const struct unit_plan *p, const struct planned *x)
{
    return (p->code64 || !p->flat_cs) &&
           (x->how == HOW_CALL_IND || (x->how == HOW_CALL && !jump_stays(p, x)));
}

/* Is the address in a register before it is checked, index and all? Others leave that to mem_emit(). */
static bool reckons_whole(const struct planned *x)
{
    return x->how == HOW_X87 || x->how == HOW_LOAD_SEG || x->how == HOW_INLINE;
}

static void track_from_start(struct tracker *k, const struct unit_plan *p)
{
    k->next = SYMBOLS_FIXED;
    k->bytes = p->code_bytes;
    k->sp_bytes = p->sp_bytes;
    k->view = p->view;
    for (unsigned r = 0; r < 16; r++)
        k->reg[r] = (struct symbol){ (uint16_t)(r + 1), 0 };
    if (k->view)
        reach_begin(k, &p->facts);
}

static void plan_stack(struct unit_plan *p, struct tracker *k, struct planned *x, bool merge)
{
    struct symbol sp = k->reg[x->in.id == INSN_LEAVE ? RBP : RSP];
    struct address a = { .base = k->sp_bytes == k->bytes ? sp.id : NEVER_GROUPED,
                         .seg = x->stack.seg,
                         .at = sp.add - (x->stack.write ? x->stack.size : 0) };
    x->stack.doubtful = x->mem.used || may_lead_nowhere(p, x);
    if (x->stack.view)
        place_view(p, k, &x->stack, &a, NULL, &sp);
    else
        place(p, &x->stack, &a, merge, x->alone);
}

static void plan_mem(struct unit_plan *p, struct tracker *k, struct planned *x, bool merge)
{
    struct address a = address_of(k, x);
    const struct mem_operand *m = &x->in.mem;
    x->mem.whole = reckons_whole(x);
    if (x->mem.view)
        place_view(p, k, &x->mem, &a, m, m->base < 16 ? &k->reg[m->base] : NULL);
    else
        place(p, &x->mem, &a, merge, x->alone || x->mem.probe);
}

/* Groups that no later access may join. */
static void close_groups(struct unit_plan *p, const struct planned *x)
{
    bool all = x->how == HOW_CALL_OUT || x->how == HOW_STRING;
    unsigned moved = inline_moves_base(x);
    for (unsigned g = 0; g < p->ngroups && (all || moved < SEG_COUNT); g++)
        p->groups[g].closed |= all || p->groups[g].seg == moved;
}

/* What others are told of the registers behind it, and what it would have liked to know. */
static void note_facts(struct unit_plan *p, struct tracker *k, unsigned i)
{
    struct planned *x = &p->insns[i];
    if (x->how == HOW_CALL_OUT)
        reach_forget(k);
    if (x->how == HOW_JCC || x->how == HOW_JMP || x->how == HOW_CALL || i + 1 == p->count) {
        x->facts = reach_facts(k);
        x->passes = reach_passes(k);
    }
}

void unit_plan(struct unit_plan *p, const struct bt *b)
{
    struct tracker k;
    bool merge = pass_on(b, ENGINE_PASS_MERGE);
    track_from_start(&k, p);
    p->wanted = (struct facts){ 0 };
    p->ngroups = 0;
    p->back = -1;
    for (unsigned i = 0; i < p->count && p->insns[i].how != HOW_BAIL; i++) {
        struct planned *x = &p->insns[i];
        if (inline_is_called(p, i)) /* before anything is said of it: no check outlives a call */
            x->how = HOW_CALL_OUT;
        /* Two accesses: the stack's check comes first (call [mem], push [mem]). */
        if (x->stack.used) {
            plan_stack(p, &k, x, merge);
            if (x->mem.used && !x->stack.view) {
                if (x->stack.group == NO_GROUP) { /* its distance would be lost to the other access */
                    end_before(p, i);
                    return;
                }
                p->groups[x->stack.group].slot = true;
            }
        }
        if (x->mem.used)
            plan_mem(p, &k, x, merge);
        close_groups(p, x);
        if (x->how == HOW_SIMD && vector_level(&x->in) > SIMD_SSE)
            p->wanted.bits |= vector_level(&x->in) == SIMD_AVX ? FACT_AVX : FACT_AVX512;
        follow(&k, x);
        if (k.view)
            note_facts(p, &k, i);
        note_back(p, &k, i);
    }
}
