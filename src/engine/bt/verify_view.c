/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accesses by views: guest address + delta, without a distance that was looked up. The host's paging is the check, as long as the
 * address is in an area of the view or in its guards. So what is followed is how far a number is from one that was in an area.
 *
 *   load from the area's table, access by the view ──► its address is inside ──► numbers at most VIEW_REACH away are facts
 *   inside or fact ──► with constants and one number of 32 bits it stays within VIEW_GUARD
 */
#include "base/bits.h"
#include "engine/bt/verify_rules.h"

#include <stddef.h>
#include <string.h>

#define INDEX_MAX (8ll << 32) /* a number of 32 bits, scaled */
#define ACCESS_MAX 64         /* bytes */
/* A fact is VIEW_REACH away, or less. */
#define SPAN ((int64_t)VIEW_GUARD - VIEW_REACH - ACCESS_MAX)
#define SPAN_INDEXED (SPAN - INDEX_MAX)
#define BY_MAX (1ll << 60)
#define GUEST_SLOTS 12u /* guest registers from here on are in memory */

/* --- numbers --------------------------------------------------------------------------------------------------- */

/* a - b modulo 2^64, if they hang together. */
static bool distance(const struct value *a, const struct value *b, int64_t *by)
{
    *by = (int64_t)((uint64_t)a->c - (uint64_t)b->c);
    return a->sym == b->sym && *by <= BY_MAX && *by >= -BY_MAX;
}

static bool within(int64_t by, int64_t span) { return by <= span && by >= -span; }

static bool fits(int64_t c) { return c == (int32_t)c || c == (int64_t)(uint32_t)c; }

/* Sign- or zero-extended from 32 bits? */
static bool is_small(const struct verify_state *st, unsigned var)
{
    const struct value *v = &st->var[var];
    if (st->small >> var & 1)
        return true;
    return v->kind == V_NUMBER && (v->narrow ? !v->d : !v->sym && fits(v->c));
}

/* The variable of a guest register. */
static unsigned var_of(unsigned guest)
{
    if (guest == RSP)
        return GUEST_RSP;
    return guest < GUEST_SLOTS ? guest : VAR_SLOT + guest;
}

/* --- what is in reach --------------------------------------------------------------------------------------------- */

/* Whatever is at most `around` away from `at` is at most VIEW_REACH away from an address in an area. */
static void add(struct rules *r, struct verify_state *st, struct value v, unsigned side, int64_t around)
{
    struct value at = value_whole(&r->symbols, v);
    struct verify_reach x = { .at = at, .side = (uint8_t)side, .below = around, .above = around };
    unsigned kept = 0;
    int64_t by;
    for (unsigned n = 0; n < st->nreaches; n++) {
        const struct verify_reach *y = &st->reach[n];
        bool joins = y->side == side && distance(&y->at, &at, &by) && by - y->below <= x.above &&
                     -(by + y->above) <= x.below;
        if (!joins) {
            st->reach[kept++] = *y;
            continue;
        }
        if (y->below - by > x.below)
            x.below = y->below - by;
        if (y->above + by > x.above)
            x.above = y->above + by;
    }
    if (kept == VERIFY_REACHES) /* the oldest goes */
        memmove(st->reach, st->reach + 1, --kept * sizeof(st->reach[0]));
    st->reach[kept++] = x;
    st->nreaches = kept;
}

/* Is the number that far away from one in reach, or less? */
static bool near(struct rules *r, const struct verify_state *st, const struct value *v, unsigned side,
                 int64_t span)
{
    if (!value_clean(v))
        return false;
    struct value at = value_whole(&r->symbols, *v);
    int64_t by;
    for (unsigned n = 0; n < st->nreaches; n++) {
        const struct verify_reach *x = &st->reach[n];
        if (x->side == side && distance(&at, &x->at, &by) && by >= -x->below - span && by <= x->above + span)
            return true;
    }
    return false;
}

/* The same without an index that is small. */
static bool near_without_index(struct rules *r, const struct verify_state *st, const struct value *v,
                               unsigned side)
{
    struct value base, index;
    unsigned scale;
    if (!value_parts(&r->symbols, v, &base, &index, &scale)) { /* the base may be a constant */
        base = value_number(0, 0);
        index = *v;
        scale = 1;
    }
    for (unsigned n = 0; n < VAR_GROUP; n++) {
        struct value x = st->var[n];
        if (n == H_RSP || !value_clean(&x) || !is_small(st, n))
            continue;
        x = value_whole(&r->symbols, x);
        if (x.sym != index.sym || !within(x.c, INT32_MAX))
            continue;
        base.c = v->c - x.c * (int64_t)scale;
        if (near(r, st, &base, side, SPAN_INDEXED))
            return true;
    }
    return false;
}

/* --- facts --------------------------------------------------------------------------------------------------------- */

void view_entry(struct rules *r, struct verify_state *st, bool linear)
{
    const struct facts *f = &r->u->facts;
    struct value page = linear ? value_page(&r->symbols, st->var[T0]) : st->var[VAR_PAGE];
    st->simd = r->u->simd;
    st->nreaches = 0;
    st->small = 0;
    if (f->bits & FACT_AVX)
        st->simd = SIMD_AVX;
    if (f->bits & FACT_AVX512)
        st->simd = SIMD_AVX512;
    if (!r->u->code64)
        return;
    for (unsigned side = 0; side < VIEW_SIDES; side++)
        for (unsigned place = 0; place < FACT_PLACES; place++)
            if (f->bits & FACT_IN_REACH(side, place))
                add(r, st, place == FACT_PAGE ? page : st->var[var_of(place)], side, 0);
    for (unsigned i = 0; i < FACT_PAIRS && f->pair[i]; i++)
        add(r, st,
            value_sum(&r->symbols, st->var[var_of(PAIR_BASE(f->pair[i]))],
                      st->var[var_of(PAIR_INDEX(f->pair[i]))], 1u << PAIR_SCALE(f->pair[i]), 0),
            PAIR_SIDE(f->pair[i]), 0);
    for (unsigned reg = 0; reg < 16; reg++)
        if (f->bits & FACT_SMALL(reg))
            st->small |= 1u << var_of(reg);
    if (f->bits & FACT_FAR_DELTA)
        st->var[T1] = (struct value){ .kind = V_FAR };
}

const char *view_facts(struct rules *r, const struct verify_state *st, const struct facts *f)
{
    static const char wrong[] = "a link that tells what was not proved";
    unsigned simd = f->bits & FACT_AVX512 ? SIMD_AVX512 : f->bits & FACT_AVX ? SIMD_AVX : r->u->simd;
    if (st->simd < simd)
        return "a link that needs more vector registers than there are";
    if (!r->u->code64) /* the rest is not relied on where all addresses are in the view's area */
        return NULL;
    for (unsigned side = 0; side < VIEW_SIDES; side++)
        for (unsigned place = 0; place < FACT_PLACES; place++)
            if (f->bits & FACT_IN_REACH(side, place) &&
                !near(r, st, &st->var[place == FACT_PAGE ? VAR_PAGE : var_of(place)], side, 0))
                return wrong;
    for (unsigned reg = 0; reg < 16; reg++)
        if (f->bits & FACT_SMALL(reg) && !is_small(st, var_of(reg)))
            return wrong;
    if (f->bits & FACT_FAR_DELTA && st->var[T1].kind != V_FAR)
        return wrong;
    for (unsigned i = 0; i < FACT_PAIRS && f->pair[i]; i++) {
        const struct value *base = &st->var[var_of(PAIR_BASE(f->pair[i]))],
                           *index = &st->var[var_of(PAIR_INDEX(f->pair[i]))];
        if (!value_clean(base) || !value_clean(index))
            return wrong;
        struct value sum = value_sum(&r->symbols, *base, *index, 1u << PAIR_SCALE(f->pair[i]), 0);
        if (!near(r, st, &sum, PAIR_SIDE(f->pair[i]), 0))
            return wrong;
    }
    return NULL;
}

/* A string instruction's call only goes on where address space and privilege are what they were, and so is the view. */
void view_called(struct verify_state *st, unsigned changes)
{
    if (!changes)
        st->nreaches = 0;
    st->small = changes ? st->small & ~(changes | 1u << T0 | 1u << T1 | 1u << T2) : 0;
}

/* --- operands ------------------------------------------------------------------------------------------------------ */

static bool is_kind(const struct verify_state *st, unsigned reg, enum value_kind kind)
{
    return reg < 16 && st->var[reg].kind == kind;
}

/* The table that tells areas, or the page that tells requests: [rsp + index + disp]. */
static void look_at_table(const struct verify_state *st, const struct verify_operand *o,
                          struct view_access *x)
{
    const struct value *v = &st->var[o->index];
    int64_t off = o->val - AREA_TABLE;
    x->table = true;
    if (o->write || o->size != 4)
        x->broken = "a table of views that is not just read";
    else if (v->kind == V_POLL)
        x->broken = o->scale != 1 || o->val != POLL_TABLE ? "a poll beside its page" : NULL;
    else if (o->scale != 8 || (off != 0 && off != SIDE_TABLE))
        x->broken = "an entry beside the table of areas";
    else {
        x->inside = true;
        x->side = off ? SIDE_FAR : SIDE_NEAR;
        x->at = *v;
        x->at.kind = V_NUMBER;
    }
}

static void look_at_memory(struct rules *r, const struct verify_state *st, const struct verify_operand *o,
                           unsigned base, unsigned index, unsigned scale, struct view_access *x)
{
    const struct value none = value_number(0, 0);
    const struct value *a = base < 16 ? &st->var[base] : &none, *b = index < 16 ? &st->var[index] : &none;
    x->broken = "an access by the view at what is no number";
    if (!value_clean(a) || !value_clean(b) || !o->size || o->size > ACCESS_MAX)
        return;
    if (o->narrow) { /* the view has all of its 4 GiB */
        x->broken = r->u->code64 || x->side != SIDE_NEAR ? "an address of 32 bits in 64-bit code" : NULL;
        return;
    }
    if (!r->u->code64) {
        x->broken = "an address of 64 bits in code that has none";
        return;
    }
    x->at = index < 16 ? value_sum(&r->symbols, *a, *b, scale, o->val) : value_add(*a, o->val);
    x->inside = near(r, st, &x->at, x->side, SPAN);
    if (x->inside || near_without_index(r, st, &x->at, x->side))
        x->broken = NULL;
    else
        x->broken = "an access by the view whose area was not checked";
}

static bool look_at_operand(struct rules *r, const struct verify_state *st, const struct verify_operand *o,
                            struct view_access *x)
{
    bool far_index = is_kind(st, o->index, V_FAR), far_base = is_kind(st, o->base, V_FAR);
    if (!o->gs && o->base == H_RSP && (is_kind(st, o->index, V_ENTRY) || is_kind(st, o->index, V_POLL))) {
        look_at_table(st, o, x);
    } else if (o->gs) {
        x->side = SIDE_NEAR;
        look_at_memory(r, st, o, o->base, o->index, o->scale, x);
    } else if (far_index && o->scale == 1) {
        x->side = SIDE_FAR;
        look_at_memory(r, st, o, o->base, NO_REG, 0, x);
    } else if (far_base) {
        x->side = SIDE_FAR;
        look_at_memory(r, st, o, o->index, NO_REG, 0, x);
        if (o->index < 16 && o->scale != 1)
            x->broken = "an index of the far side";
    } else {
        return false;
    }
    return true;
}

void view_look(struct rules *r, const struct verify_state *st, const struct verify_insn *in)
{
    struct view_access *x = &r->view;
    *x = (struct view_access){ 0 };
    for (unsigned n = 0; n < in->noperands; n++) {
        if (in->o[n].kind != OPR_MEM || !look_at_operand(r, st, &in->o[n], x))
            continue;
        x->operand = &in->o[n];
        if (!r->u->view)
            x->broken = "an access by a view in code that has none";
        return;
    }
}

/* --- what an instruction leaves ------------------------------------------------------------------------------------ */

static bool small_operand(const struct verify_state *st, const struct verify_operand *o)
{
    int64_t slot = o->val - VCPU_OFF(s.gpr);
    switch (o->kind) {
    case OPR_IMM: return fits(o->val);
    case OPR_GPR: return o->size == 8 && is_small(st, o->reg);
    case OPR_MEM:
        return !o->gs && o->base == H_RSP && o->index == NO_REG && o->size == 8 && slot % 8 == 0 &&
               slot >= (int64_t)(8 * GUEST_SLOTS) && slot < 8 * 16 &&
               is_small(st, VAR_SLOT + (unsigned)slot / 8);
    default: return false;
    }
}

/* All 64 bits of its first operand, which is written. */
static bool makes_small(const struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *src = &in->o[1];
    switch (in->op) {
    case OP_MOV: return small_operand(st, src);
    case OP_AND: return src->kind == OPR_IMM && src->val >= 0 && src->val <= INT32_MAX;
    case OP_SHR: return src->kind == OPR_IMM && (src->val & 63) >= 32;
    default: return in->extends;
    }
}

static int small_var(const struct verify_operand *o)
{
    int64_t slot = o->val - VCPU_OFF(s.gpr);
    if (o->kind == OPR_GPR)
        return o->reg;
    if (o->kind != OPR_MEM || o->gs || o->base != H_RSP || o->index != NO_REG || slot < 0 || slot >= 8 * 16)
        return -1;
    return VAR_SLOT + (int)(slot / 8);
}

uint32_t view_small(const struct verify_state *st, const struct verify_insn *in)
{
    uint32_t small = st->small;
    if (in->op == OP_REP)
        return small & ~(1u << H_RCX | 1u << H_RDI | (in->moves ? 1u << H_RSI : 0));
    for (unsigned n = 0; n < in->noperands; n++) {
        const struct verify_operand *o = &in->o[n];
        int var = o->write || o->maybe ? small_var(o) : -1;
        if (var < 0 || o->size < 4) /* the rest is what it was, written or not */
            continue;
        bool reg32 = o->kind == OPR_GPR && o->size == 4, whole = n == 0 && o->size == 8;
        bool sure = !o->maybe && in->op != OP_KEEPS;
        if (sure && (reg32 || (whole && makes_small(st, in))))
            small |= 1u << var;
        else
            small &= ~(1u << var);
    }
    return small;
}

void view_done(struct rules *r, struct verify_state *st)
{
    if (r->view.operand && r->view.inside)
        add(r, st, r->view.at, r->view.side, VIEW_REACH);
}

/* --- steps to a check of the area, or of requests -------------------------------------------------------------------- */

bool view_step(struct rules *r, struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *dst = &in->o[0], *src = &in->o[1], *by = &in->o[2];
    if (!r->u->view || dst->kind != OPR_GPR || (dst->reg != T0 && dst->reg != T1 && dst->reg != T2))
        return false;
    if (in->op == OP_SHRX && dst->size == 8 && src->kind == OPR_GPR && by->kind == OPR_GPR) {
        const struct value *count = &st->var[by->reg];
        struct value v = st->var[src->reg];
        if (!value_clean(&v) || !value_clean(count) || count->sym || count->c != ENTRY_SHIFT)
            return false;
        v.kind = V_ENTRY;
        st->var[dst->reg] = v;
        return true;
    }
    if (in->op == OP_RORX && dst->size == 4 && src->kind == OPR_MEM && !src->gs && src->base == H_RSP &&
        src->index == NO_REG && src->val == VCPU_OFF(requests) && by->val == POLL_ROTATE) {
        st->var[dst->reg] = (struct value){ .kind = V_POLL };
        return true;
    }
    return false;
}
