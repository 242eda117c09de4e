/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where ways meet: what holds on each of them. What differs gets a symbol of this place; what hangs together with it on both ways,
 * by constants, is said in terms of that symbol, so that a distance which was checked for a register's value holds for what the
 * register is from here on.
 */
#include "engine/bt/verify_symbol.h"

#include <string.h>

#define REACH_APART (1ll << 32) /* addresses in reach that are compared */

struct meeting {
    const struct verify_state *a, *b; /* known so far, arriving */
    struct value now[VARS];
    bool done[VARS]; /* now[] is known */
    struct symbols *s;
    unsigned i;
};

/* What the variable holds, as a symbol of this place. A number below 2^32 stays known to be one. */
static struct value met(const struct meeting *m, unsigned var)
{
    const struct value *a = &m->a->var[var], *b = &m->b->var[var];
    struct value v = value_number(symbol_at(SYM_MET, m->i, var), 0);
    v.narrow = value_clean(a) && value_clean(b) && a->narrow && b->narrow && !a->d && !b->d;
    return v;
}

/* A symbol of the last time that ways met here: as old as if it came from elsewhere. */
static bool older(const struct meeting *m, uint32_t sym) { return symbol_rests_on(m->s, sym, SYM_MET, m->i); }

/* Numbers are said in terms of what lasts: scratch registers hold something else soon. */
static bool lasts(unsigned var) { return (var < T0 || var > T2) && (var < VAR_GROUP || var >= VAR_PAGE); }

/* Number n in terms of what variable k holds; false: that is not known on this way. A constant may be said as a narrow number. */
static bool in_terms_of(const struct value *n, const struct value *k, bool narrow, struct value *out)
{
    bool constants = !n->sym && !k->sym;
    *out = *n;
    out->narrow = constants ? narrow && n->c == (int64_t)(uint32_t)n->c : n->narrow;
    if (n->sym != k->sym || (k->narrow && !out->narrow))
        return false;
    out->c = out->narrow ? low32(difference(n->c, total(k))) : difference(n->c, k->c);
    return true;
}

/* A number that is a on one way and b on the other, in terms of variable k, if both ways say the same of it. */
static bool same_terms(const struct meeting *m, const struct value *a, const struct value *b, unsigned k,
                       struct value *out)
{
    const struct value *x = &m->a->var[k], *y = &m->b->var[k];
    struct value other;
    if (!value_clean(x) || !value_clean(y) || !in_terms_of(a, x, b->narrow, out) ||
        !in_terms_of(b, y, a->narrow, &other) || out->c != other.c || out->d != other.d ||
        out->narrow != other.narrow)
        return false;
    /* What k itself is said to be in terms of, so that all that hang together name the same symbol. */
    const struct value *now = &m->now[k];
    bool chained = m->done[k] && value_clean(now) && now->sym && (out->narrow || !now->narrow);
    out->sym = chained ? now->sym : met(m, k).sym;
    if (chained)
        out->c = out->narrow ? low32(sum(out->c, total(now))) : sum(out->c, now->c);
    return true;
}

/* In terms of which variable: of whole numbers those below `whole`, of narrow ones those below `narrow`; so that none is said in
 * terms of one that is said in terms of it. What is narrow on one way only is in terms of nothing but its like. */
static bool restate(const struct meeting *m, const struct value *a, const struct value *b, unsigned whole,
                    unsigned narrow, struct value *out)
{
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned k = 0; k < VARS; k++) {
            unsigned cut = m->a->var[k].narrow + m->b->var[k].narrow;
            bool may = pass == 0 ? cut == 0 && k < whole : cut == 1 || (cut == 2 && k < narrow);
            if (may && lasts(k) && same_terms(m, a, b, k, out))
                return true;
        }
    return false;
}

/*
 * A distance that was checked for a register's value once is one for its present value, too, as long as it is known by how much
 * the register moved since: a part of a delta's symbol is looked for in the variables, and said anew in terms of what that
 * variable holds from here on. `shift`: what that adds to the constant, on either way.
 */
static bool part_found(const struct meeting *m, const uint32_t part[2], bool narrow, uint32_t *sym,
                       int64_t shift[2])
{
    /* First what was made anew here, and of that the register itself rather than what was reckoned from it. */
    for (unsigned pass = 0; pass < 4; pass++)
        for (unsigned n = 0; n < VARS; n++) {
            const struct value *a = &m->a->var[n], *b = &m->b->var[n], *now = &m->now[n];
            bool numbers = value_clean(a) && value_clean(b) && value_clean(now);
            if (!numbers || !lasts(n) || a->sym != part[0] || b->sym != part[1] ||
                older(m, now->sym) != (pass < 2))
                continue;
            if ((!narrow && (a->narrow || b->narrow || now->narrow)) || (!(pass & 1) && (a->narrow || a->c)))
                continue;
            *sym = now->sym;
            shift[0] = difference(total(now), total(a));
            shift[1] = difference(total(now), total(b));
            return true;
        }
    return false;
}

/* The same for a part that is a narrow number as a whole: it is looked for in the variables that hold one. */
static bool cut_part_found(const struct meeting *m, const uint32_t part[2], uint32_t *sym, int64_t shift[2])
{
    const struct composite *x = symbol_composite(m->s, part[0]), *y = symbol_composite(m->s, part[1]);
    if (!x || !y || x->op != OPAQUE || y->op != OPAQUE)
        return false;
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned n = 0; n < VARS; n++) {
            const struct value *a = &m->a->var[n], *b = &m->b->var[n], *now = &m->now[n];
            if (!lasts(n) || !value_clean(a) || !value_clean(b) || !value_clean(now) || !a->narrow ||
                !b->narrow || a->sym != x->a || a->c != x->c || b->sym != y->a || b->c != y->c ||
                older(m, now->sym) != (pass == 0))
                continue;
            struct value whole = value_whole(m->s, *now);
            *sym = whole.sym;
            shift[0] = difference(whole.c, a->d);
            shift[1] = difference(whole.c, b->d);
            return true;
        }
    return false;
}

/* Or it is nowhere, but the same on both ways. */
static bool part_stays(const struct meeting *m, const uint32_t part[2], uint32_t *sym, int64_t shift[2])
{
    *sym = part[0];
    shift[0] = shift[1] = 0;
    return part[0] == part[1] && !older(m, part[1]);
}

static bool part_moves(const struct meeting *m, const uint32_t part[2], bool narrow, uint32_t *sym,
                       int64_t shift[2]);
static bool parts_move(const struct meeting *m, const struct value *a, const struct value *b, uint32_t *sym,
                       int64_t c[2]);

/* Modulo 2^16: a variable that holds it, or a sum by its parts, or what stays. */
static bool moves16(const struct meeting *m, const uint32_t part[2], uint32_t *sym, int64_t shift[2])
{
    for (unsigned n = 0; n < VARS && part[0] && part[1]; n++) {
        const struct value *a = &m->a->var[n], *b = &m->b->var[n], *now = &m->now[n];
        int64_t from[2], to;
        if (!lasts(n) || !value_clean(a) || !value_clean(b) || !value_clean(now) ||
            value_low_part(m->s, *a, &from[0]) != part[0] || value_low_part(m->s, *b, &from[1]) != part[1])
            continue;
        *sym = value_low_part(m->s, *now, &to);
        if (!*sym || !older(m, *sym))
            continue;
        shift[0] = to - from[0];
        shift[1] = to - from[1];
        return true;
    }
    const struct composite *x = symbol_composite(m->s, part[0]), *y = symbol_composite(m->s, part[1]);
    if (x && y && (x->op == SUM || x->op == SUM_NARROW) && y->op == x->op && y->scale == x->scale) {
        uint32_t first[2] = { x->a, y->a }, second[2] = { x->b, y->b }, moved[2];
        unsigned scale = x->scale;
        int64_t by[2], by2[2];
        if (!moves16(m, first, &moved[0], by) || !moves16(m, second, &moved[1], by2))
            return part_stays(m, part, sym, shift);
        struct value whole = value_sum_narrow(m->s, value_number(moved[0], 0), value_number(moved[1], 0),
                                              scale, 0);
        *sym = whole.sym;
        for (unsigned n = 0; n < 2; n++)
            shift[n] = sum(total(&whole), sum(by[n], times(by2[n], scale)));
        return true;
    }
    return part_stays(m, part, sym, shift);
}

/* The low 16 bits of what moves. */
static bool low_part_moves(const struct meeting *m, const uint32_t part[2], uint32_t *sym, int64_t shift[2])
{
    const struct composite *x = symbol_composite(m->s, part[0]), *y = symbol_composite(m->s, part[1]);
    if (!x || !y || x->op != CUT16 || y->op != CUT16)
        return false;
    uint32_t inner[2] = { x->a, y->a }, moved;
    int64_t by[2];
    if (!moves16(m, inner, &moved, by) || ((x->c + by[0]) & 0xffff) != ((y->c + by[1]) & 0xffff))
        return false;
    struct value cut = value_cut16(m->s, value_number(moved, (x->c + by[0]) & 0xffff));
    *sym = cut.sym;
    shift[0] = shift[1] = 0;
    return cut.sym != 0;
}

static bool sum_moves(const struct meeting *m, const uint32_t part[2], bool narrow, uint32_t *sym,
                      int64_t shift[2])
{
    struct value a = value_number(part[0], 0), b = value_number(part[1], 0);
    a.narrow = b.narrow = narrow;
    return parts_move(m, &a, &b, sym, shift);
}

static bool part_moves(const struct meeting *m, const uint32_t part[2], bool narrow, uint32_t *sym,
                       int64_t shift[2])
{
    bool found = (part[0] || part[1]) && part_found(m, part, narrow, sym, shift);
    return found || (!narrow && cut_part_found(m, part, sym, shift)) || low_part_moves(m, part, sym, shift) ||
           sum_moves(m, part, narrow, sym, shift) || part_stays(m, part, sym, shift);
}

static bool both_sums(const struct meeting *m, const struct value *a, const struct value *b)
{
    const struct composite *x = symbol_composite(m->s, a->sym), *y = symbol_composite(m->s, b->sym);
    return x && y && (x->op == SUM || x->op == SUM_NARROW) && y->op == x->op && y->scale == x->scale;
}

/* A sum by its parts: `c` gets what they moved. False: one of them is lost. */
static bool parts_move(const struct meeting *m, const struct value *a, const struct value *b, uint32_t *sym,
                       int64_t c[2])
{
    const struct composite *x = symbol_composite(m->s, a->sym), *y = symbol_composite(m->s, b->sym);
    if (!both_sums(m, a, b))
        return false;
    struct composite made = { .op = x->op, .scale = x->scale };
    uint32_t first[2] = { x->a, y->a }, second[2] = { x->b, y->b };
    int64_t by[2], by2[2];
    if (!part_moves(m, first, a->narrow, &made.a, by) || !part_moves(m, second, a->narrow, &made.b, by2))
        return false;
    for (unsigned n = 0; n < 2; n++)
        c[n] = sum(by[n], times(by2[n], made.scale));
    *sym = symbol_compose(m->s, made);
    return true;
}

/* By parts that were made anew here; else as a whole, if some variable holds it; else by its parts as they stay. */
static bool symbols_move(const struct meeting *m, struct value *a, struct value *b)
{
    uint32_t whole[2] = { a->sym, b->sym }, sym, parts_sym;
    int64_t by[2], by_parts[2];
    bool parts = parts_move(m, a, b, &parts_sym, by_parts);
    if (parts && older(m, parts_sym)) {
        sym = parts_sym;
        by[0] = by_parts[0];
        by[1] = by_parts[1];
    } else if (!part_found(m, whole, a->narrow, &sym, by) &&
               (a->narrow || !cut_part_found(m, whole, &sym, by)) && !low_part_moves(m, whole, &sym, by)) {
        if (!parts)
            return part_stays(m, whole, &sym, by);
        sym = parts_sym;
        by[0] = by_parts[0];
        by[1] = by_parts[1];
    }
    a->c = sum(a->c, by[0]);
    b->c = sum(b->c, by[1]);
    a->sym = b->sym = sym;
    return true;
}

/* A number that is a sum on both ways, as the sum of what its parts are from here on. */
static bool join_sums(const struct meeting *m, struct value a, struct value b, struct value *out)
{
    struct value before = a;
    if (a.narrow != b.narrow || !both_sums(m, &a, &b) || !symbols_move(m, &a, &b))
        return false;
    if (a.narrow) {
        a.c = low32(a.c);
        b.c = low32(b.c);
    }
    *out = a;
    /* Said in terms of this place before, it must be the same again: else it would change for ever. */
    return value_equal(&a, &b) && (!older(m, before.sym) || value_equal(&a, &before));
}

/* A number that differs: a new symbol, the same one for numbers that are at the same distance on both ways. */
static struct value join_numbers(const struct meeting *m, unsigned var)
{
    const struct value *a = &m->a->var[var], *b = &m->b->var[var];
    bool cut = a->narrow && b->narrow;
    struct value v;
    v = met(m, var);
    if (value_equal(a, &v)) /* once it has a symbol of its own it keeps that */
        return v;
    unsigned whole = cut || !lasts(var) ? VARS : var, narrow = !lasts(var) ? VARS : cut ? var : 0;
    if (value_clean(a) && value_clean(b) && restate(m, a, b, whole, narrow, &v))
        return v;
    if (value_clean(a) && value_clean(b) && join_sums(m, *a, *b, &v))
        return v;
    return met(m, var);
}

/* The same on both ways, and no symbol in it is one of the last time here. */
static bool settled(const struct meeting *m, unsigned var)
{
    const struct value *a = &m->a->var[var], *b = &m->b->var[var];
    if (!value_equal(a, b))
        return false;
    if (!older(m, b->sym))
        return true;
    struct value here = met(m, var);
    return value_equal(b, &here);
}

static struct value join_values(const struct meeting *m, unsigned var)
{
    struct value a = m->a->var[var], b = m->b->var[var];
    if (settled(m, var))
        return a;
    if (a.kind == V_ROUNDS && b.kind == V_ROUNDS && (a.aux & b.aux)) {
        a.aux &= b.aux;
        return a;
    }
    if (!value_harmless(&a) || !value_harmless(&b))
        return value_secret();
    struct value step; /* of a sequence: the same step from what is the same number */
    if (a.kind == b.kind && !value_clean(&a) && a.aux == b.aux && a.group == b.group &&
        restate(m, &a, &b, VARS, VARS, &step))
        return step;
    return join_numbers(m, var);
}

static struct value join_deltas(const struct meeting *m, unsigned var)
{
    struct value a = m->a->var[var], b = m->b->var[var], before = a;
    if (a.kind != V_DELTA || b.kind != V_DELTA || a.narrow != b.narrow || !symbols_move(m, &a, &b) ||
        !delta_meet(&a, b))
        return value_secret();
    /* Said in terms of this place before, it must be the same again: else it would shrink for ever. */
    return older(m, before.sym) && !value_equal(&a, &before) ? value_secret() : a;
}

/* Rounds count for distances that are still the same. */
static void keep_credits(struct meeting *m)
{
    unsigned lost = 0;
    for (unsigned g = 0; g < GROUP_SLOTS; g++) {
        const struct value *now = &m->now[VAR_GROUP + g];
        if (now->kind != V_DELTA || now->credit != m->a->var[VAR_GROUP + g].credit)
            lost |= 1u << g;
    }
    for (unsigned n = 0; n < VARS; n++)
        if (m->now[n].kind == V_ROUNDS || m->now[n].kind == V_SPENT)
            m->now[n].aux &= (uint16_t)~lost;
}

static struct flags_value join_flags(struct flags_value a, struct flags_value b, const struct symbols *s,
                                     unsigned i)
{
    flags_forget(&b, s, SYM_MET, i);
    bool same = a.kind == b.kind && a.spot == b.spot && a.limit == b.limit && value_equal(&a.v, &b.v) &&
                value_equal(&a.slot, &b.slot);
    if (same)
        return a;
    return (struct flags_value){ .kind = flags_shown(&a) && flags_shown(&b) ? F_GUEST : F_SCRATCH };
}

/* A limit that was looked at for a number which moved since: for that number as it is said from here on. */
static struct flags_value join_limits(const struct meeting *m, struct flags_value a,
                                      const struct flags_value *b)
{
    struct value x = a.v, y = b->v;
    bool same = a.kind == b->kind && a.spot == b->spot && a.limit == b->limit && x.narrow == y.narrow &&
                (a.kind == F_SCRATCH || symbols_move(m, &x, &y));
    if (x.narrow) {
        x.c = low32(x.c);
        y.c = low32(y.c);
    }
    /* Said in terms of this place before, it must be the same again: else it would change for ever. */
    if (!same || !value_equal(&x, &y) || (older(m, a.v.sym) && !value_equal(&x, &a.v)))
        return (struct flags_value){ .kind = F_SCRATCH };
    a.v = x;
    return a;
}

static bool set_limit(struct flags_value *at, struct flags_value now)
{
    bool changed = at->kind != now.kind || !value_equal(&at->v, &now.v);
    *at = now;
    return changed;
}

static bool join_parts(const struct meeting *m, const struct value *a, const struct value *b,
                       struct value *out)
{
    *out = *a;
    return (value_equal(a, b) && !older(m, b->sym)) || restate(m, a, b, VARS, VARS, out);
}

static struct run join_runs(const struct meeting *m, struct run a, struct run b)
{
    struct run r = a;
    r.valid = a.valid && b.valid && a.size == b.size && join_parts(m, &a.at, &b.at, &r.at) &&
              join_parts(m, &a.count, &b.count, &r.count);
    return r;
}

static int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

/* What is in reach on both ways, in terms of what is the same here. */
static bool join_reach(const struct meeting *m, const struct verify_reach *a, const struct verify_reach *b,
                       struct verify_reach *out)
{
    struct value x = a->at, y = b->at;
    int64_t by;
    if (a->side != b->side || ((x.sym != y.sym || older(m, y.sym)) && !symbols_move(m, &x, &y)))
        return false;
    by = difference(y.c, x.c);
    if (x.sym != y.sym || by > REACH_APART || by < -REACH_APART)
        return false;
    /* Said in terms of this place before, it must be the same again: else it would change for ever. */
    if (older(m, a->at.sym) && !value_equal(&x, &a->at))
        return false;
    *out = (struct verify_reach){ .at = x,
                                  .side = a->side,
                                  .below = lesser(a->below, b->below - by),
                                  .above = lesser(a->above, b->above + by) };
    return out->below + out->above >= 0;
}

static bool join_reaches(const struct meeting *m, struct verify_state *at)
{
    struct verify_reach now[VERIFY_REACHES];
    unsigned kept = 0;
    for (unsigned n = 0; n < m->a->nreaches; n++)
        for (unsigned k = 0; k < m->b->nreaches; k++)
            if (join_reach(m, &m->a->reach[n], &m->b->reach[k], &now[kept])) {
                kept++;
                break;
            }
    bool changed = kept != at->nreaches;
    for (unsigned n = 0; n < kept && !changed; n++)
        changed = now[n].below != at->reach[n].below || now[n].above != at->reach[n].above ||
                  !value_equal(&now[n].at, &at->reach[n].at);
    memcpy(at->reach, now, kept * sizeof(now[0]));
    at->nreaches = kept;
    return changed;
}

static bool set_run(struct run *at, struct run now)
{
    bool changed = at->valid &&
                   (!now.valid || !value_equal(&at->at, &now.at) || !value_equal(&at->count, &now.count));
    *at = now;
    return changed;
}

static bool set_flags(struct flags_value *at, struct flags_value now)
{
    bool changed = at->kind != now.kind;
    *at = now;
    return changed;
}

/* The order in which values are joined, so that what one is said in terms of is known before. */
enum { TURN_WHOLE, TURN_NARROW, TURN_SUM, TURN_SCRATCH, TURNS };

static unsigned turn_of(const struct meeting *m, unsigned var)
{
    const struct value *a = &m->a->var[var], *b = &m->b->var[var];
    if (!lasts(var))
        return TURN_SCRATCH;
    if (value_clean(a) && value_clean(b) && both_sums(m, a, b))
        return TURN_SUM;
    return a->narrow && b->narrow ? TURN_NARROW : TURN_WHOLE;
}

/* Is all that lasts the same on both ways? The common case: behind a check that was filled. */
static bool all_settled(const struct meeting *m)
{
    for (unsigned n = 0; n < VARS; n++)
        if ((n < T0 || n > T2) && !settled(m, n))
            return false;
    return true;
}

static void join_in_turns(struct meeting *m)
{
    uint8_t turns[VARS];
    for (unsigned n = 0; n < VARS; n++)
        turns[n] = (uint8_t)turn_of(m, n);
    for (unsigned turn = 0; turn < TURNS; turn++)
        for (unsigned n = 0; n < VARS; n++)
            if (turns[n] == turn) {
                m->now[n] = join_values(m, n);
                m->done[n] = true;
            }
    for (unsigned n = 0; n < VARS; n++) /* in terms of the others */
        if (m->a->var[n].kind == V_DELTA)
            m->now[n] = join_deltas(m, n);
    keep_credits(m);
}

/* Scratch registers alone. */
static void join_scratch(struct meeting *m)
{
    memcpy(m->now, m->a->var, sizeof(m->now));
    memset(m->done, true, sizeof(m->done));
    for (unsigned n = T0; n <= T2; n++)
        if (!settled(m, n))
            m->now[n] = m->a->var[n].kind == V_DELTA ? join_deltas(m, n) : join_values(m, n);
}

bool state_join(struct verify_state *at, const struct verify_state *from, struct symbols *s, unsigned i)
{
    struct meeting m;
    bool changed = false;
    m.a = at;
    m.b = from;
    m.s = s;
    m.i = i;
    if (all_settled(&m)) {
        join_scratch(&m);
    } else {
        memset(m.now, 0, sizeof(m.now));
        memset(m.done, 0, sizeof(m.done));
        join_in_turns(&m);
    }
    for (unsigned n = 0; n < RUNS; n++)
        changed |= set_run(&at->runs[n], join_runs(&m, at->runs[n], from->runs[n]));
    changed |= set_run(&at->pending, join_runs(&m, at->pending, from->pending));
    changed |= join_reaches(&m, at);
    changed |= set_limit(&at->limit, join_limits(&m, at->limit, &from->limit));
    changed |= set_limit(&at->wrap, join_limits(&m, at->wrap, &from->wrap));
    for (unsigned n = 0; n < VARS; n++)
        changed |= !value_equal(&m.now[n], &at->var[n]);
    memcpy(at->var, m.now, sizeof(at->var));
    changed |= set_flags(&at->flags, join_flags(at->flags, from->flags, s, i));
    changed |= set_flags(&at->fact, join_flags(at->fact, from->fact, s, i));
    changed |= set_flags(&at->most, join_flags(at->most, from->most, s, i));
    changed |= (at->fresh && !from->fresh) || at->simd > from->simd || (at->x87 && !from->x87);
    changed |= (at->small & ~from->small) != 0;
    at->small &= from->small;
    at->fresh &= from->fresh;
    at->simd = at->simd < from->simd ? at->simd : from->simd;
    at->x87 &= from->x87;
    return changed;
}
