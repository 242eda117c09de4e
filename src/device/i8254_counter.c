/* SPDX-License-Identifier: Apache-2.0 */
/* The modes of an 8254 counter: value, output and edges at a tick, and what writes and the gate change. */
#include "device/i8254_counter.h"

bool counter_periodic(const struct counter *c) { return c->mode == 2 || c->mode == 3; }

/* Modes 1 and 5 start at the gate's rising edge; the others count while the gate is high. */
static bool triggered(const struct counter *c) { return c->mode == 1 || c->mode == 5; }

static uint64_t elapsed(const struct counter *c, uint64_t t)
{
    if (!c->running)
        return c->held;
    return t > c->start ? t - c->start : 0;
}

/* A count written while a periodic counter runs takes its place at the end of the period (data sheet, modes 2
 * and 3). */
bool counter_settle(struct counter *c, uint64_t t, uint64_t *boundary)
{
    if (!c->next_reload || !c->running || !counter_periodic(c) || elapsed(c, t) < c->reload)
        return false;
    c->start += c->reload;
    c->reload = c->next_reload;
    c->next_reload = 0;
    *boundary = c->start;
    return true;
}

bool counter_output(const struct counter *c, uint64_t t)
{
    uint64_t e = elapsed(c, t);
    switch (c->mode) {
    case 0: return c->loaded && e >= c->reload;
    case 1: return !c->running || e >= c->reload;
    case 2: return !c->running || e % c->reload != c->reload - 1;
    case 3: return !c->running || e % c->reload < (c->reload + 1) / 2;
    default: return !c->running || e != c->reload;
    }
}

/* The counting element, 0 standing for 65536 (or 10000). */
uint16_t counter_value(const struct counter *c, uint64_t t)
{
    uint64_t e = elapsed(c, t), modulus = c->bcd ? 10000 : 65536, v;
    if (c->mode == 3) {
        uint64_t phase = e % c->reload, half = (c->reload + 1) / 2;
        v = (c->reload & ~1u) - 2 * (phase < half ? phase : phase - half);
    } else if (c->mode == 2) {
        v = c->reload - e % c->reload;
    } else {
        v = c->reload + modulus - e % modulus;
    }
    v %= modulus;
    if (c->bcd)
        v = v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 << 12;
    return (uint16_t)v;
}

static uint32_t count_from_register(const struct counter *c, uint16_t raw)
{
    if (!c->bcd)
        return raw ? raw : 65536;
    uint32_t v = (raw & 15u) + (raw >> 4 & 15u) * 10 + (raw >> 8 & 15u) * 100 + (raw >> 12) * 1000u;
    return v ? v : 10000;
}

void counter_start(struct counter *c, uint64_t t)
{
    c->start = t;
    c->held = 0;
    if (c->next_reload)
        c->reload = c->next_reload;
    c->next_reload = 0;
    c->running = 1;
}

void counter_load(struct counter *c, uint16_t raw, uint64_t t)
{
    uint32_t count = count_from_register(c, raw);
    if (c->loaded && (triggered(c) || (counter_periodic(c) && c->running))) {
        c->next_reload = count;
        if (counter_periodic(c))
            c->start += elapsed(c, t) / c->reload *
                        c->reload; /* counter_settle() looks at the current period only */
        return;
    }
    c->reload = count;
    c->next_reload = 0;
    c->loaded = 1;
    c->held = 0;
    c->running = 0;
    if (!triggered(c) && c->gate)
        counter_start(c, t);
}

void counter_set_gate(struct counter *c, bool gate, uint64_t t)
{
    if (gate == c->gate)
        return;
    c->gate = gate;
    if (!c->loaded)
        return;
    if (!gate && !triggered(c)) {
        c->held = elapsed(c, t);
        c->running = 0;
    } else if (gate && (triggered(c) || counter_periodic(c))) {
        counter_start(c, t);
    } else if (gate) {
        c->start = t - c->held;
        c->running = 1;
    }
}

/* Rising edges of OUT, by formula: the first at tick `first`, then every `period` (0 = never again). False:
 * there is none. */
static bool edges(const struct counter *c, uint64_t *first, uint64_t *period)
{
    if (!c->running || !c->loaded)
        return false;
    *first = c->start + c->reload + (c->mode >= 4);
    *period = counter_periodic(c) ? c->reload : 0;
    return true;
}

/* Number of edges in (after, until]. */
uint64_t counter_edges(const struct counter *c, uint64_t after, uint64_t until)
{
    uint64_t first, period;
    if (!edges(c, &first, &period) || first > until)
        return 0;
    if (!period)
        return first > after;
    uint64_t upto = (until - first) / period + 1, before = after < first ? 0 : (after - first) / period + 1;
    return upto > before ? upto - before : 0;
}

bool counter_next_edge(const struct counter *c, uint64_t after, uint64_t *edge)
{
    uint64_t first, period;
    if (!edges(c, &first, &period))
        return false;
    if (first <= after && !period)
        return false;
    *edge = first > after ? first : first + ((after - first) / period + 1) * period;
    return true;
}
