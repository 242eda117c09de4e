/* SPDX-License-Identifier: Apache-2.0 */
/* Symbols, values and states of the verifier. */
#include "engine/bt/verify_symbol.h"

#include <string.h>

#define LOST \
    128u /* added to the variable: what it holds is older than the symbols that the instruction makes now */

bool value_equal(const struct value *a, const struct value *b)
{
    return a->kind == b->kind && a->narrow == b->narrow && a->write == b->write && a->credit == b->credit &&
           a->group == b->group && a->exact == b->exact && a->fits16 == b->fits16 && a->from == b->from &&
           a->aux == b->aux && a->sym == b->sym && a->c == b->c && a->d == b->d;
}

struct value value_made(unsigned i, unsigned var) { return value_number(symbol_at(SYM_MADE, i, var), 0); }
struct value value_at_entry(unsigned var) { return value_number(symbol_at(SYM_ENTRY, 0, var), 0); }

/* --- composites ---------------------------------------------------------------------------------------------- */

uint32_t symbol_compose(struct symbols *s, struct composite c)
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

/* A number as symbol + c: a narrow one becomes a symbol of its own. */
struct value value_whole(struct symbols *s, struct value v)
{
    if (!v.narrow)
        return v;
    struct composite c = { .op = OPAQUE, .a = v.sym, .c = v.c };
    return value_number(symbol_compose(s, c), v.d);
}

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
    a = value_whole(s, a);
    b = value_whole(s, b);
    int64_t c = sum(sum(a.c, times(b.c, scale)), by);
    if (!b.sym)
        return value_number(a.sym, c);
    if (!a.sym && scale == 1)
        return value_number(b.sym, c);
    struct composite parts = { .op = SUM, .scale = (uint8_t)scale, .a = a.sym, .b = b.sym };
    return value_number(symbol_compose(s, parts), c);
}

/* Modulo 2^32 it does not matter whether the parts were cut before. */
struct value value_sum_narrow(struct symbols *s, struct value a, struct value b, unsigned scale, int64_t by)
{
    int64_t c = sum(sum(total(&a), times(total(&b), scale)), by);
    struct composite parts = { .op = SUM_NARROW, .scale = (uint8_t)scale, .a = a.sym, .b = b.sym };
    uint32_t sym = !b.sym ? a.sym : !a.sym && scale == 1 ? b.sym : symbol_compose(s, parts);
    return value_narrow(value_number(sym, c), 0);
}

bool value_without(const struct symbols *s, struct value v, struct value part, struct value *out)
{
    const struct composite *whole = symbol_composite(s, v.sym);
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

bool value_parts(const struct symbols *s, const struct value *v, struct value *a, struct value *b,
                 unsigned *scale)
{
    const struct composite *c = symbol_composite(s, v->sym);
    if (v->kind != V_NUMBER || v->narrow || !c || c->op != SUM)
        return false;
    *a = value_number(c->a, 0);
    *b = value_number(c->b, 0);
    *scale = c->scale;
    return true;
}

uint32_t value_low_part(struct symbols *s, struct value v, int64_t *c)
{
    const struct composite *x = symbol_composite(s, v.sym);
    *c = total(&v);
    for (; x && (x->op == LOW16 || x->op == CUT16 || x->op == OPAQUE); x = symbol_composite(s, v.sym)) {
        *c = sum(*c, x->c);
        v.sym = x->a;
    }
    if (x && (x->op == SUM || x->op == SUM_NARROW)) {
        struct value parts[2] = { value_number(x->a, 0), value_number(x->b, 0) };
        for (unsigned n = 0; n < 2; n++)
            parts[n].sym = value_low_part(s, parts[n], &parts[n].c);
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
    x.a = value_low_part(s, v, &x.c);
    if (!x.a)
        return value_number(0, x.c);
    struct value cut = value_number(symbol_compose(s, x), 0);
    cut.narrow = true;
    return cut;
}

struct value value_low16(struct symbols *s, struct value v, int64_t by, unsigned i, unsigned var)
{
    struct composite x = { .op = LOW16, .b = value_made(i, var).sym };
    x.a = value_low_part(s, v, &x.c);
    x.c = sum(x.c, by) & 0xffff;
    return value_number(symbol_compose(s, x), 0);
}

bool value_is16(const struct symbols *s, const struct value *v)
{
    const struct composite *x = symbol_composite(s, v->sym);
    if (!v->sym)
        return value_clean(v) && v->c == (int64_t)(uint16_t)v->c;
    return value_clean(v) && !v->c && !v->d && x && x->op == CUT16;
}

struct value value_like16(const struct symbols *s, const struct value *delta, struct value v)
{
    const struct composite *x = symbol_composite(s, delta->sym), *y = symbol_composite(s, v.sym);
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
    return value_number(symbol_compose(s, c), 0);
}

bool value_page_of(const struct symbols *s, struct value v, struct value *of)
{
    const struct composite *c = symbol_composite(s, v.sym);
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

/* Constants on both sides of 0 or 2^32 lie neither on one page nor in a segment: their check failed, and nobody is here. */
static bool is_torn(const struct value *delta)
{
    const int64_t begin = delta->c, end = sum(begin, delta->aux), top = 1ll << 32;
    return !delta->sym && !delta->exact && ((begin < 0 && end > 0) || (begin < top && end > top));
}

bool delta_covers(const struct value *delta, struct value v, unsigned size)
{
    if (delta->kind != V_DELTA || v.kind != V_NUMBER || delta->sym != v.sym || delta->narrow != v.narrow ||
        size > delta->aux)
        return false;
    uint64_t room = delta->aux - size, span = delta->aux;
    if (!v.narrow) {
        uint64_t from = (uint64_t)v.c - (uint64_t)delta->c;
        return from <= room || (is_torn(delta) && (uint32_t)from <= room);
    }
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

bool delta_meet(struct value *a, struct value b)
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

bool symbol_rests_on(const struct symbols *s, uint32_t sym, uint32_t kind, unsigned i)
{
    const struct composite *c = symbol_composite(s, sym);
    if (c)
        return symbol_rests_on(s, c->a, kind, i) || symbol_rests_on(s, c->b, kind, i);
    return (sym & SYM_KIND) == kind && (sym & ~SYM_KIND) >> 8 == i;
}

bool symbol_in(const struct symbols *s, uint32_t sym, uint32_t part)
{
    const struct composite *c = symbol_composite(s, sym);
    return sym == part || (c && (symbol_in(s, c->a, part) || symbol_in(s, c->b, part)));
}

void flags_forget(struct flags_value *f, const struct symbols *s, uint32_t kind, unsigned i)
{
    if (f->kind >= F_TAG &&
        (symbol_rests_on(s, f->v.sym, kind, i) || symbol_rests_on(s, f->slot.sym, kind, i)))
        *f = (struct flags_value){ .kind = flags_shown(f) ? F_GUEST : F_SCRATCH };
}

static void forget_run(struct run *r, const struct symbols *s, unsigned i)
{
    if (symbol_rests_on(s, r->at.sym, SYM_MADE, i) || symbol_rests_on(s, r->count.sym, SYM_MADE, i))
        r->valid = false;
}

static void forget_reaches(struct verify_state *st, const struct symbols *s, unsigned i)
{
    unsigned kept = 0;
    for (unsigned n = 0; n < st->nreaches; n++)
        if (!symbol_rests_on(s, st->reach[n].at.sym, SYM_MADE, i))
            st->reach[kept++] = st->reach[n];
    st->nreaches = kept;
}

void state_forget(struct verify_state *st, const struct symbols *s, unsigned i)
{
    forget_reaches(st, s, i);
    for (unsigned n = 0; n < VARS; n++) {
        struct value *v = &st->var[n];
        if (!symbol_rests_on(s, v->sym, SYM_MADE, i))
            continue;
        *v = value_harmless(v) ? value_made(i, n | LOST) : value_secret();
    }
    for (unsigned n = 0; n < RUNS; n++)
        forget_run(&st->runs[n], s, i);
    forget_run(&st->pending, s, i);
    flags_forget(&st->most, s, SYM_MADE, i);
    flags_forget(&st->limit, s, SYM_MADE, i);
    flags_forget(&st->wrap, s, SYM_MADE, i);
    flags_forget(&st->flags, s, SYM_MADE, i);
    flags_forget(&st->fact, s, SYM_MADE, i);
}
