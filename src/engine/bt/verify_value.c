/* SPDX-License-Identifier: Apache-2.0 */
/* Symbols, values and states of the verifier. */
#include "engine/bt/verify_value.h"

#include <string.h>

/* A symbol: kind | number of the instruction << 8 | variable; of composites the index. 0: none, the value is a constant. */
enum { SYM_ENTRY = 1u << 30, SYM_MADE = 2u << 30, SYM_MET = 3u << 30, SYM_KIND = 3u << 30 };
#define LOST \
    128u /* added to the variable: what it holds is older than the symbols that the instruction makes now */

#define REACH_APART (1ll << 32) /* addresses in reach that are compared */

enum composite_op { SUM, SUM_NARROW, OPAQUE, PAGE_OF, LOW16, CUT16 };

static uint32_t symbol_at(uint32_t kind, unsigned i, unsigned var) { return kind | i << 8 | var; }

bool value_equal(const struct value *a, const struct value *b)
{
    return a->kind == b->kind && a->narrow == b->narrow && a->write == b->write && a->credit == b->credit &&
           a->group == b->group && a->exact == b->exact && a->fits16 == b->fits16 && a->from == b->from &&
           a->aux == b->aux && a->sym == b->sym && a->c == b->c && a->d == b->d;
}

struct value value_made(unsigned i, unsigned var) { return value_number(symbol_at(SYM_MADE, i, var), 0); }
struct value value_at_entry(unsigned var) { return value_number(symbol_at(SYM_ENTRY, 0, var), 0); }

/* --- composites ---------------------------------------------------------------------------------------------- */

static uint32_t compose(struct symbols *s, struct composite c)
{
    for (unsigned i = 0; i < s->count; i++) {
        const struct composite *t = &s->table[i];
        if (t->op == c.op && t->scale == c.scale && t->narrow == c.narrow && t->a == c.a && t->b == c.b &&
            t->c == c.c && t->d == c.d)
            return i + 1;
    }
    if (s->count == COMPOSITES) {
        s->full = true;
        return 1;
    }
    s->table[s->count++] = c;
    return s->count;
}

static const struct composite *composite_of(const struct symbols *s, uint32_t sym)
{
    return sym && !(sym & SYM_KIND) ? &s->table[sym - 1] : NULL;
}

/* A number as symbol + c: a narrow one becomes a symbol of its own. */
static struct value plain(struct symbols *s, struct value v)
{
    if (!v.narrow)
        return v;
    struct composite c = { .op = OPAQUE, .a = v.sym, .c = v.c };
    return value_number(compose(s, c), v.d);
}

static int64_t low32(int64_t c) { return (int32_t)(uint32_t)(uint64_t)c; }

/* Numbers go round at 2^64. */
static int64_t sum(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
static int64_t difference(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }
static int64_t times(int64_t a, unsigned scale) { return (int64_t)((uint64_t)a * scale); }

/* What a number is more than its symbol, modulo 2^32 if it is narrow. */
static int64_t total(const struct value *v) { return sum(v->c, v->narrow ? v->d : 0); }

bool value_same_low(const struct value *a, const struct value *b)
{
    return a->sym == b->sym && (uint32_t)total(a) == (uint32_t)total(b);
}

struct value value_add(struct value v, int64_t by)
{
    if (v.narrow)
        v.d = sum(v.d, by);
    else
        v.c = sum(v.c, by);
    return v;
}

struct value value_narrow(struct value v, int64_t by)
{
    int64_t c = sum(total(&v), by);
    if (!v.sym)
        return value_number(0, (int64_t)(uint32_t)c);
    return (struct value){ .kind = V_NUMBER, .narrow = true, .sym = v.sym, .c = low32(c) };
}

struct value value_sum(struct symbols *s, struct value a, struct value b, unsigned scale, int64_t by)
{
    a = plain(s, a);
    b = plain(s, b);
    int64_t c = sum(sum(a.c, times(b.c, scale)), by);
    if (!b.sym)
        return value_number(a.sym, c);
    if (!a.sym && scale == 1)
        return value_number(b.sym, c);
    struct composite parts = { .op = SUM, .scale = (uint8_t)scale, .a = a.sym, .b = b.sym };
    return value_number(compose(s, parts), c);
}

/* Modulo 2^32 it does not matter whether the parts were cut before. */
struct value value_sum_narrow(struct symbols *s, struct value a, struct value b, unsigned scale, int64_t by)
{
    int64_t c = sum(sum(total(&a), times(total(&b), scale)), by);
    struct composite parts = { .op = SUM_NARROW, .scale = (uint8_t)scale, .a = a.sym, .b = b.sym };
    uint32_t sym = !b.sym ? a.sym : !a.sym && scale == 1 ? b.sym : compose(s, parts);
    return value_narrow(value_number(sym, c), 0);
}

bool value_without(const struct symbols *s, struct value v, struct value part, struct value *out)
{
    const struct composite *whole = composite_of(s, v.sym);
    int64_t c = difference(total(&v), total(&part));
    uint32_t rest = 0;
    if (v.sym != part.sym) {
        if (!whole || (whole->op != SUM_NARROW && whole->op != SUM) || whole->scale != 1 ||
            whole->b != part.sym)
            return false;
        rest = whole->a;
    }
    *out = value_narrow(value_number(rest, c), 0);
    return true;
}

struct value value_whole(struct symbols *s, struct value v) { return plain(s, v); }

bool value_parts(const struct symbols *s, const struct value *v, struct value *a, struct value *b,
                 unsigned *scale)
{
    const struct composite *c = composite_of(s, v->sym);
    if (v->kind != V_NUMBER || v->narrow || !c || c->op != SUM)
        return false;
    *a = value_number(c->a, 0);
    *b = value_number(c->b, 0);
    *scale = c->scale;
    return true;
}

/* Whose low 16 bits are those of v: *sym + *c. Sums are said in terms of what their parts' are. */
static uint32_t low_part(struct symbols *s, struct value v, int64_t *c)
{
    const struct composite *x = composite_of(s, v.sym);
    *c = total(&v);
    for (; x && (x->op == LOW16 || x->op == CUT16 || x->op == OPAQUE); x = composite_of(s, v.sym)) {
        *c = sum(*c, x->c);
        v.sym = x->a;
    }
    if (x && (x->op == SUM || x->op == SUM_NARROW)) {
        struct value parts[2] = { value_number(x->a, 0), value_number(x->b, 0) };
        for (unsigned n = 0; n < 2; n++)
            parts[n].sym = low_part(s, parts[n], &parts[n].c);
        struct value whole = value_sum_narrow(s, parts[0], parts[1], x->scale, 0);
        *c = sum(*c, total(&whole));
        v.sym = whole.sym;
    }
    *c &= 0xffff;
    return v.sym;
}

struct value value_cut16(struct symbols *s, struct value v)
{
    struct composite x = { .op = CUT16 };
    x.a = low_part(s, v, &x.c);
    if (!x.a)
        return value_number(0, x.c);
    struct value cut = value_number(compose(s, x), 0);
    cut.narrow = true;
    return cut;
}

struct value value_low16(struct symbols *s, struct value v, int64_t by, unsigned i, unsigned var)
{
    struct composite x = { .op = LOW16, .b = value_made(i, var).sym };
    x.a = low_part(s, v, &x.c);
    x.c = sum(x.c, by) & 0xffff;
    return value_number(compose(s, x), 0);
}

bool value_is16(const struct symbols *s, const struct value *v)
{
    const struct composite *x = composite_of(s, v->sym);
    if (!v->sym)
        return value_clean(v) && v->c == (int64_t)(uint16_t)v->c;
    return value_clean(v) && !v->c && !v->d && x && x->op == CUT16;
}

struct value value_like16(const struct symbols *s, const struct value *delta, struct value v)
{
    const struct composite *x = composite_of(s, delta->sym), *y = composite_of(s, v.sym);
    if (!delta->fits16 || delta->c || v.c || v.sym == delta->sym || !x || !y || x->op != CUT16 ||
        y->op != CUT16 || x->a != y->a || !v.narrow || !delta->narrow)
        return v;
    /* Both lie in the first 64 KiB if the second is among the bytes that were checked from the first on. */
    int64_t by = (int16_t)(uint16_t)difference(y->c, x->c);
    if (by < delta->d || by >= delta->d + (int64_t)delta->aux)
        return v;
    v.sym = delta->sym;
    v.d = sum(v.d, by);
    return v;
}

struct value value_page(struct symbols *s, struct value v)
{
    struct composite c = { .op = PAGE_OF, .narrow = v.narrow, .a = v.sym, .c = v.c, .d = v.d };
    return value_number(compose(s, c), 0);
}

bool value_page_of(const struct symbols *s, struct value v, struct value *of)
{
    const struct composite *c = composite_of(s, v.sym);
    if (v.kind != V_NUMBER || v.narrow || v.c || !c || c->op != PAGE_OF)
        return false;
    *of = (struct value){ .kind = V_NUMBER, .narrow = c->narrow, .sym = c->a, .c = c->c, .d = c->d };
    return true;
}

/* --- distances ----------------------------------------------------------------------------------------------- */

bool delta_from_tlb(const struct value *slot, const struct value *last, bool write, struct value *delta)
{
    /* The slot was chosen by 32 bits of the first byte's address; the tag has all of the last one's page. */
    uint32_t before = (uint32_t)(total(last) - total(slot));
    if (slot->sym != last->sym || before >= PAGE_SIZE)
        return false;
    *delta = value_add(*last, -(int64_t)before);
    delta->kind = V_DELTA;
    delta->write = write;
    delta->aux = (uint16_t)(before + 1);
    return true;
}

bool delta_covers(const struct value *delta, struct value v, unsigned size)
{
    if (delta->kind != V_DELTA || v.kind != V_NUMBER || delta->sym != v.sym || delta->narrow != v.narrow ||
        size > delta->aux)
        return false;
    uint64_t room = delta->aux - size, span = delta->aux;
    if (!v.narrow)
        return (uint64_t)v.c - (uint64_t)delta->c <= room;
    if (v.c == delta->c)
        return (uint64_t)v.d - (uint64_t)delta->d <= room;
    if (delta->exact)
        return false;
    /* Another cut to 32 bits: equal to a shift of the first when both lie on the delta's page, so below 4 GiB. */
    int64_t shift = low32(difference(v.c, delta->c));
    if ((uint64_t)-delta->d >= span || (uint64_t)(shift - delta->d) >= span)
        return false;
    return (uint64_t)(shift + v.d - delta->d) <= room;
}

unsigned delta_reach(const struct value *delta, struct value v)
{
    unsigned reach = 0;
    for (unsigned step = PAGE_SIZE; step; step /= 2)
        if (delta_covers(delta, v, reach + step))
            reach += step;
    return reach;
}

/* A narrow delta in terms of another cut to 32 bits, c more than its own: as above, if both numbers lie on its page. */
static bool delta_recut(struct value *delta, int64_t c)
{
    int64_t shift = low32(delta->c - c);
    uint64_t span = delta->aux;
    if (shift && (delta->exact || (uint64_t)-delta->d >= span || (uint64_t)(-shift - delta->d) >= span))
        return false;
    delta->c = c;
    delta->d += shift;
    return true;
}

/* What both are for, in the terms of a; their symbols are the same. */
static bool delta_meet(struct value *a, struct value b)
{
    if (a->narrow != b.narrow || (a->narrow && !delta_recut(&b, a->c)))
        return false;
    int64_t from = a->narrow ? difference(b.d, a->d) : difference(b.c, a->c), low = from > 0 ? from : 0;
    if (from < -(int64_t)PAGE_SIZE || from > (int64_t)PAGE_SIZE)
        return false;
    int64_t high = from + b.aux < a->aux ? from + b.aux : a->aux;
    if (high <= low)
        return false;
    *a = value_add(*a, low);
    a->aux = (uint16_t)(high - low);
    a->write &= b.write;
    a->exact |= b.exact;
    a->fits16 &= b.fits16;
    if (a->credit != b.credit || a->group != b.group)
        a->credit = 0;
    return true;
}

/* --- states -------------------------------------------------------------------------------------------------- */

/* Does the symbol rest on one that instruction i makes (`kind`: as an instruction, or as a place where ways meet)? */
static bool rests_on(const struct symbols *s, uint32_t sym, uint32_t kind, unsigned i)
{
    const struct composite *c = composite_of(s, sym);
    if (c)
        return rests_on(s, c->a, kind, i) || rests_on(s, c->b, kind, i);
    return (sym & SYM_KIND) == kind && (sym & ~SYM_KIND) >> 8 == i;
}

bool symbol_in(const struct symbols *s, uint32_t sym, uint32_t part)
{
    const struct composite *c = composite_of(s, sym);
    return sym == part || (c && (symbol_in(s, c->a, part) || symbol_in(s, c->b, part)));
}

static void forget_flags(struct flags_value *f, const struct symbols *s, uint32_t kind, unsigned i)
{
    if (f->kind >= F_TAG && (rests_on(s, f->v.sym, kind, i) || rests_on(s, f->slot.sym, kind, i)))
        *f = (struct flags_value){ .kind = flags_shown(f) ? F_GUEST : F_SCRATCH };
}

static void forget_run(struct run *r, const struct symbols *s, unsigned i)
{
    if (rests_on(s, r->at.sym, SYM_MADE, i) || rests_on(s, r->count.sym, SYM_MADE, i))
        r->valid = false;
}

static void forget_reaches(struct verify_state *st, const struct symbols *s, unsigned i)
{
    unsigned kept = 0;
    for (unsigned n = 0; n < st->nreaches; n++)
        if (!rests_on(s, st->reach[n].at.sym, SYM_MADE, i))
            st->reach[kept++] = st->reach[n];
    st->nreaches = kept;
}

void state_forget(struct verify_state *st, const struct symbols *s, unsigned i)
{
    forget_reaches(st, s, i);
    for (unsigned n = 0; n < VARS; n++) {
        struct value *v = &st->var[n];
        if (!rests_on(s, v->sym, SYM_MADE, i))
            continue;
        *v = value_harmless(v) ? value_made(i, n | LOST) : value_secret();
    }
    for (unsigned n = 0; n < RUNS; n++)
        forget_run(&st->runs[n], s, i);
    forget_run(&st->pending, s, i);
    forget_flags(&st->most, s, SYM_MADE, i);
    forget_flags(&st->limit, s, SYM_MADE, i);
    forget_flags(&st->wrap, s, SYM_MADE, i);
    forget_flags(&st->flags, s, SYM_MADE, i);
    forget_flags(&st->fact, s, SYM_MADE, i);
}

/* --- where ways meet --------------------------------------------------------------------------------------------- */

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
static bool older(const struct meeting *m, uint32_t sym) { return rests_on(m->s, sym, SYM_MET, m->i); }

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
    const struct composite *x = composite_of(m->s, part[0]), *y = composite_of(m->s, part[1]);
    if (!x || !y || x->op != OPAQUE || y->op != OPAQUE)
        return false;
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned n = 0; n < VARS; n++) {
            const struct value *a = &m->a->var[n], *b = &m->b->var[n], *now = &m->now[n];
            if (!lasts(n) || !value_clean(a) || !value_clean(b) || !value_clean(now) || !a->narrow ||
                !b->narrow || a->sym != x->a || a->c != x->c || b->sym != y->a || b->c != y->c ||
                older(m, now->sym) != (pass == 0))
                continue;
            struct value whole = plain(m->s, *now);
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
            low_part(m->s, *a, &from[0]) != part[0] || low_part(m->s, *b, &from[1]) != part[1])
            continue;
        *sym = low_part(m->s, *now, &to);
        if (!*sym || !older(m, *sym))
            continue;
        shift[0] = to - from[0];
        shift[1] = to - from[1];
        return true;
    }
    const struct composite *x = composite_of(m->s, part[0]), *y = composite_of(m->s, part[1]);
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
    const struct composite *x = composite_of(m->s, part[0]), *y = composite_of(m->s, part[1]);
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
    const struct composite *x = composite_of(m->s, a->sym), *y = composite_of(m->s, b->sym);
    return x && y && (x->op == SUM || x->op == SUM_NARROW) && y->op == x->op && y->scale == x->scale;
}

/* A sum by its parts: `c` gets what they moved. False: one of them is lost. */
static bool parts_move(const struct meeting *m, const struct value *a, const struct value *b, uint32_t *sym,
                       int64_t c[2])
{
    const struct composite *x = composite_of(m->s, a->sym), *y = composite_of(m->s, b->sym);
    if (!both_sums(m, a, b))
        return false;
    struct composite made = { .op = x->op, .scale = x->scale };
    uint32_t first[2] = { x->a, y->a }, second[2] = { x->b, y->b };
    int64_t by[2], by2[2];
    if (!part_moves(m, first, a->narrow, &made.a, by) || !part_moves(m, second, a->narrow, &made.b, by2))
        return false;
    for (unsigned n = 0; n < 2; n++)
        c[n] = sum(by[n], times(by2[n], made.scale));
    *sym = compose(m->s, made);
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
    forget_flags(&b, s, SYM_MET, i);
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
