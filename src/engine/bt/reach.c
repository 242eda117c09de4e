/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which addresses are known to be in reach of a view's areas, through a unit and on the way into the next one.
 *
 * Inside an area is an address that was compared with the table, or that was accessed without a fault. What is at most
 * VIEW_REACH away from such a one is in reach, and so are displacements and indices of 32 bits from there: the guards are wider
 * than all that. A jump on the page tells its target what the registers hold (facts); the target has a version of its unit that
 * relies on it. A fact says that a register is in reach: so it may pass on as it is, but moved only behind another access.
 */
#include "engine/bt/unit.h"

_Static_assert(VIEW_GUARD > (8ull << 32) + (2ull << 30) + 4 * VIEW_REACH,
               "index of 32 bits, displacement, steps");

static bool close_to(int64_t a, int64_t b) { return a - b <= VIEW_REACH && b - a <= VIEW_REACH; }

static struct reach *add(struct tracker *k)
{
    if (k->nreaches == REACHES) { /* the oldest goes */
        memmove(k->reaches, k->reaches + 1, sizeof(k->reaches) - sizeof(k->reaches[0]));
        k->nreaches--;
    }
    return &k->reaches[k->nreaches++];
}

static void add_fact(struct tracker *k, unsigned place, unsigned side)
{
    *add(k) = (struct reach){ .base = place == FACT_PAGE ? SYMBOL_RIP : (uint16_t)(place + 1),
                              .side = (uint8_t)side };
}

static void add_pair(struct tracker *k, uint16_t pair)
{
    *add(k) = (struct reach){ .base = (uint16_t)(PAIR_BASE(pair) + 1),
                              .index = (uint16_t)(PAIR_INDEX(pair) + 1),
                              .scale = PAIR_SCALE(pair),
                              .side = PAIR_SIDE(pair) };
}

void reach_begin(struct tracker *k, const struct facts *facts)
{
    k->nreaches = 0;
    for (uint64_t left = facts->bits % FACT_SMALL(0); left; left &= left - 1)
        add_fact(k, lowest_bit(left) % FACT_PLACES, lowest_bit(left) / FACT_PLACES);
    for (unsigned i = 0; i < FACT_PAIRS && facts->pair[i]; i++)
        add_pair(k, facts->pair[i]);
    k->small = (uint16_t)(facts->bits / FACT_SMALL(0));
}

void reach_forget(struct tracker *k)
{
    k->nreaches = 0;
    k->small = 0;
}

static struct reach *find(struct tracker *k, const struct reach *like)
{
    for (unsigned i = 0; i < k->nreaches; i++) {
        struct reach *r = &k->reaches[i];
        if (r->base == like->base && r->index == like->index && r->scale == like->scale &&
            r->seg == like->seg && r->side == like->side && close_to(r->at, like->at))
            return r;
    }
    return NULL;
}

/* Adds what would have saved the check. */
static void wish(struct facts *wanted, const struct access *x, const struct reach *r,
                 const struct mem_operand *m)
{
    if (r->seg)
        return;
    if (r->index) {
        if (!m || r->index != m->index + 1u || r->base != m->base + 1u)
            return;
        wanted->bits |= FACT_SMALL(m->index);
        facts_add_pair(wanted, FACT_PAIR(x->side, m->base, m->index, m->scale));
    }
    if (r->base == SYMBOL_RIP)
        wanted->bits |= FACT_IN_REACH(x->side, FACT_PAGE);
    else if (r->base && r->base <= 16)
        wanted->bits |= FACT_IN_REACH(x->side, r->base - 1u);
}

void reach_access(struct unit_plan *p, struct tracker *k, struct access *x, const struct mem_operand *m,
                  const struct reach *at, int64_t base_at)
{
    struct reach r = *at;
    x->loose = r.index && r.base && !r.seg && !x->whole && k->small >> m->index & 1;
    if (x->loose) {
        r.index = r.scale = 0;
        r.at = base_at;
    }
    r.side = x->side;
    struct reach *known = r.base || r.index ? find(k, &r) : NULL;
    x->first = !known;
    if (x->first)
        wish(&p->wanted, x, &r, m);
    if (x->side == SIDE_FAR)
        p->wanted.bits |= FACT_FAR_DELTA;
    if (!r.base && !r.index)
        return;
    if (known && x->loose)
        return; /* the index may have led back: that says nothing of the base */
    if (!known)
        known = add(k);
    *known = r;
    known->inside = true; /* checked, or accessed */
}

/* Is the address `now`, of the reach's symbols, in reach? */
static bool holds(const struct reach *r, int64_t now)
{
    return r->inside ? close_to(now, r->at) : now == r->at;
}

static void pairs_of(const struct tracker *k, const struct reach *r, struct facts *facts)
{
    for (unsigned base = 0; base < 16; base++)
        for (unsigned index = 0; index < 16; index++)
            if (k->reg[base].id == r->base && k->reg[index].id == r->index &&
                holds(r, k->reg[base].add + k->reg[index].add * (int64_t)(1u << r->scale)))
                facts_add_pair(facts, FACT_PAIR(r->side, base, index, r->scale));
}

struct facts reach_facts(const struct tracker *k)
{
    struct facts facts = { 0 };
    for (unsigned i = 0; i < k->nreaches; i++) {
        const struct reach *r = &k->reaches[i];
        if (r->seg)
            continue;
        if (r->index) {
            pairs_of(k, r, &facts);
            continue;
        }
        if (r->base ==
            SYMBOL_RIP) /* whatever was accessed from the page, the page itself was checked before */
            facts.bits |= FACT_IN_REACH(r->side, FACT_PAGE);
        for (unsigned reg = 0; reg < 16; reg++)
            if (k->reg[reg].id == r->base && holds(r, k->reg[reg].add))
                facts.bits |= FACT_IN_REACH(r->side, reg);
    }
    facts.bits |= FACT_SMALL(0) * k->small;
    return facts;
}

uint16_t reach_passes(const struct tracker *k)
{
    uint16_t regs = 0;
    for (unsigned r = 0; r < 16; r++)
        if (k->reg[r].id == r + 1 && k->reg[r].add == 0)
            regs |= (uint16_t)(1u << r);
    return regs;
}

/* Does it leave a number of 32 bits, sign- or zero-extended, in its first operand? */
static bool makes_small(const struct tracker *k, const struct insn *in)
{
    const struct operand *src = &in->op[1];
    switch (in->id) {
    case INSN_MOV:
        if (in->op[0].size == 8)
            return src->kind == OPND_IMM ? (int64_t)in->imm == (int32_t)in->imm
                                         : src->kind == OPND_REG && k->small >> src->reg & 1;
        return in->op[0].size == 4;
    case INSN_MOVZX:
    case INSN_MOVSX: return in->op[0].size >= 4;
    case INSN_AND:
        return in->op[0].size == 4 || (in->op[0].size == 8 && src->kind == OPND_IMM && (int64_t)in->imm >= 0);
    case INSN_SHR: return in->op[0].size == 4 || (src->kind == OPND_IMM && (in->imm & 63) >= 32);
    case INSN_XOR:
    case INSN_OR:
    case INSN_ADD:
    case INSN_SUB:
    case INSN_ADC:
    case INSN_SBB:
    case INSN_INC:
    case INSN_DEC:
    case INSN_NEG:
    case INSN_NOT:
    case INSN_SHL:
    case INSN_SAR:
    case INSN_IMUL2:
    case INSN_IMUL3:
    case INSN_LEA: return in->op[0].size == 4;
    default: return false;
    }
}

void reach_follow(struct tracker *k, const struct planned *p, unsigned written)
{
    const struct operand *dst = &p->in.op[0];
    unsigned mine = dst->kind == OPND_REG ? written & 1u << dst->reg : 0;
    bool partial = dst->size < 4 && p->how == HOW_COPY; /* the rest stays */
    bool small = partial ? k->small & mine : p->how != HOW_CALL_OUT && makes_small(k, &p->in);
    k->small = (uint16_t)((k->small & ~written) | (small ? mine : 0));
}
