/* SPDX-License-Identifier: Apache-2.0 */
/* What verify_value.c and verify_meet.c share: how symbols are made. */
#ifndef SUNDOG_ENGINE_BT_VERIFY_SYMBOL_H
#define SUNDOG_ENGINE_BT_VERIFY_SYMBOL_H

#include "engine/bt/verify_value.h"

/* A symbol: kind | number of the instruction << 8 | variable; of composites the index. 0: none, the value is a constant. */
enum { SYM_ENTRY = 1u << 30, SYM_MADE = 2u << 30, SYM_MET = 3u << 30, SYM_KIND = 3u << 30 };
static inline uint32_t symbol_at(uint32_t kind, unsigned i, unsigned var) { return kind | i << 8 | var; }

/* Of two symbols, or of one and constants. LOW16: a number that instruction b's symbol stands for, whose low 16 bits are those of
 * a + c; CUT16: those bits alone. OPAQUE: the low 32 bits of a + c. */
enum composite_op { SUM, SUM_NARROW, OPAQUE, PAGE_OF, LOW16, CUT16 };
uint32_t symbol_compose(struct symbols *s, struct composite c);
static inline const struct composite *symbol_composite(const struct symbols *s, uint32_t sym)
{
    return sym && !(sym & SYM_KIND) ? &s->table[sym - 1] : NULL;
}
/* Does it rest on one that instruction i makes (`kind`: as an instruction, or as a place where ways meet)? */
bool symbol_rests_on(const struct symbols *s, uint32_t sym, uint32_t kind, unsigned i);
/* What rests on it is forgotten. */
void flags_forget(struct flags_value *f, const struct symbols *s, uint32_t kind, unsigned i);

static inline int64_t low32(int64_t c) { return (int32_t)(uint32_t)(uint64_t)c; }

/* Numbers go round at 2^64. */
static inline int64_t sum(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
static inline int64_t difference(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }
static inline int64_t times(int64_t a, unsigned scale) { return (int64_t)((uint64_t)a * scale); }

/* What a number is more than its symbol, modulo 2^32 if it is narrow. */
static inline int64_t total(const struct value *v) { return sum(v->c, v->narrow ? v->d : 0); }

/* Whose low 16 bits are those of v: the result + *c. Sums are said in terms of what their parts' are. */
uint32_t value_low_part(struct symbols *s, struct value v, int64_t *c);
/* What both are for, in the terms of a; their symbols are the same. */
bool delta_meet(struct value *a, struct value b);

#endif
