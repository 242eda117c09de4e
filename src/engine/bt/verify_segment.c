/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments of 32-bit code: an access whose segment has a base, or a limit.
 *
 *   T1 = end - offset - span, T2 = offset - low; neither is negative: the span lies in the segment, so it does not wrap
 *   T0 = offset + base, 32 bits; T1 = distance of that; T1 += T0; T0 -= base; T1 -= T0: the distance of the offset
 */
#include "engine/bt/verify_rules.h"

#define SPAN16 0x10000ll /* what an address of 16 bits reaches */

static bool scratch(const struct verify_operand *o)
{
    return o->kind == OPR_GPR && o->reg >= T0 && o->reg <= T2;
}

static bool same_number(const struct value *a, const struct value *b)
{
    return a->sym == b->sym && a->narrow == b->narrow && a->c == b->c && a->d == b->d;
}

static void flags_lost(struct verify_state *st) { st->flags = (struct flags_value){ .kind = F_SCRATCH }; }

/* What a is more than b, if both are cut to 32 bits at the same place. */
static bool apart(const struct value *a, const struct value *b, int64_t *by)
{
    *by = a->narrow ? a->d - b->d : a->c - b->c;
    return a->sym == b->sym && a->narrow == b->narrow && (!a->narrow || a->c == b->c);
}

bool segment_subtract(struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *o = in->o;
    if (!scratch(&o[0]) || o[0].size != 8)
        return false;
    struct value *v = &st->var[o[0].reg];
    if (v->kind == V_END && o[1].kind == OPR_GPR && value_clean(&st->var[o[1].reg])) {
        uint8_t end = (uint8_t)v->aux;
        *v = st->var[o[1].reg];
        v->kind = V_END_ROOM;
        v->group = end;
    } else if (v->kind == V_END_ROOM && !v->aux && o[1].kind == OPR_IMM && o[1].val > 0 &&
               o[1].val <= (int64_t)PAGE_SIZE) {
        v->aux = (uint16_t)o[1].val;
    } else {
        return false;
    }
    flags_lost(st);
    return true;
}

bool segment_above_low(struct verify_state *st, const struct verify_insn *in, unsigned seg)
{
    if (in->op != OP_SUB || !scratch(&in->o[0]) || in->o[0].size != 8 || !value_clean(&st->var[in->o[0].reg]))
        return false;
    st->var[in->o[0].reg].kind = V_ABOVE_LOW;
    st->var[in->o[0].reg].group = (uint8_t)seg;
    flags_lost(st);
    return true;
}

bool segment_or(struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *o = in->o;
    if (!scratch(&o[0]) || o[0].size != 8 || !scratch(&o[1]))
        return false;
    const struct value *room = &st->var[o[0].reg], *above = &st->var[o[1].reg];
    if (room->kind != V_END_ROOM || !room->aux || above->kind != V_ABOVE_LOW ||
        room->group >> 1 != above->group || !same_number(room, above))
        return false;
    st->flags = (struct flags_value){ .kind = F_LIMIT, .v = *room, .spot = room->group, .limit = room->aux };
    st->flags.v.kind = V_NUMBER;
    st->flags.v.group = 0;
    st->flags.v.aux = 0;
    st->var[o[0].reg] = value_secret();
    return true;
}

bool segment_with_base(struct symbols *s, struct verify_state *st, const struct verify_insn *in, unsigned var)
{
    const struct verify_operand *dst = &in->o[0];
    if (!scratch(dst) || dst->size != 4 || !value_clean(&st->var[dst->reg]) || !value_clean(&st->var[var]))
        return false;
    struct value *v = &st->var[dst->reg];
    if (in->op == OP_ADD) {
        *v = value_sum_narrow(s, *v, st->var[var], 1, 0);
    } else if (in->op != OP_SUB || !value_without(s, *v, st->var[var], v)) {
        return false;
    }
    flags_lost(st);
    return true;
}

bool segment_to_host(struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *o = in->o;
    int64_t by;
    if (!scratch(&o[0]) || !scratch(&o[1]) || o[0].size != 8)
        return false;
    struct value *v = &st->var[o[0].reg], n = st->var[o[1].reg];
    if (v->kind != V_DELTA || !value_clean(&n) || !apart(v, &n, &by) || by < -(int64_t)PAGE_SIZE ||
        by > (int64_t)PAGE_SIZE)
        return false;
    v->kind = V_HOSTED; /* of n; what was checked begins `from` bytes further */
    v->from = (int16_t)by;
    v->c = n.c;
    v->d = n.d;
    flags_lost(st);
    return true;
}

/* Was the limit looked at for the bytes from `from` on behind the offset? */
static bool in_limit(const struct verify_state *st, const struct value *off, const struct value *hosted,
                     unsigned seg)
{
    const struct flags_value *f = &st->limit;
    int64_t begin;
    if (f->kind != F_LIMIT || f->spot >> 1 != seg || !apart(&f->v, off, &begin))
        return false;
    return begin <= hosted->from && hosted->from + (int64_t)hosted->aux <= begin + (int64_t)f->limit;
}

bool segment_wrap(struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *o = in->o;
    if (!scratch(&o[0]) || o[0].size != 4 || o[1].kind != OPR_IMM || o[1].val >= SPAN16 ||
        o[1].val < SPAN16 - (int64_t)PAGE_SIZE)
        return false;
    const struct value *v = &st->var[o[0].reg];
    if (!value_clean(v) || !v->narrow || v->d)
        return false;
    st->flags = (struct flags_value){ .kind = F_WRAP, .v = *v, .limit = (uint32_t)(SPAN16 - o[1].val) };
    return true;
}

/* Do all bytes that were checked, from an address of 16 bits on, lie in the first 64 KiB of its segment? */
static bool in_64k(const struct verify_state *st, const struct value *off, const struct value *hosted)
{
    const struct flags_value *f = &st->wrap;
    if (hosted->from == 0 && hosted->aux == 1)
        return true;
    if (f->kind != F_WRAP || f->v.sym != off->sym || off->c || off->d)
        return false;
    int64_t begin = (int32_t)f->v.c;
    return begin <= hosted->from && hosted->from + (int64_t)hosted->aux <= begin + (int64_t)f->limit;
}

bool segment_to_offset(struct rules *r, struct verify_state *st, const struct verify_insn *in)
{
    struct symbols *s = &r->symbols;
    const struct verify_operand *o = in->o;
    if (!scratch(&o[0]) || !scratch(&o[1]) || o[0].size != 8)
        return false;
    struct value *v = &st->var[o[0].reg], off = st->var[o[1].reg];
    if (v->kind != V_HOSTED || !value_clean(&off))
        return false;
    for (unsigned seg = 0; seg < SEG_COUNT; seg++) {
        struct value linear = value_sum_narrow(s, off, st->var[VAR_BASE + seg], 1, 0);
        bool is16 = value_is16(s, &off), fits = is16 && in_64k(st, &off, v),
             limited = in_limit(st, &off, v, seg);
        bool inside = limited || (is16 && r->u->all_64k && seg != SEG_CS);
        if (!value_clean(&st->var[VAR_BASE + seg]) || !same_number(&linear, v) || !inside ||
            (is16 && off.sym && !fits))
            continue;
        struct value delta = value_add(off, v->from);
        delta.kind = V_DELTA;
        delta.aux = v->aux;
        delta.write = v->write && (!limited || st->limit.spot & 1);
        delta.exact = !limited;
        delta.fits16 = fits;
        *v = delta;
        flags_lost(st);
        return true;
    }
    return false;
}
