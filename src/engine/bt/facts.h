/* SPDX-License-Identifier: Apache-2.0 */
/* What a unit may rely on when it is entered by a link: facts about the guest's registers. */
#ifndef SUNDOG_ENGINE_BT_FACTS_H
#define SUNDOG_ENGINE_BT_FACTS_H

#include "base/bits.h"
#include "base/types.h"

/* Host and guest have as much room for user memory, and the host's is not empty: programs that use both ends of theirs need two
 * deltas. GS's base is the near side's; the far side's is a register's. */
enum view_side { SIDE_NEAR, SIDE_FAR, VIEW_SIDES };

/* bits: places whose value is an address in reach of an area of the view: registers, and the unit's page. */
#define FACT_PAGE 16u
#define FACT_PLACES 17u
#define FACT_IN_REACH(side, place) BIT((side)*FACT_PLACES + (place))
/* The register holds a number of 32 bits, sign- or zero-extended. */
#define FACT_SMALL(reg) BIT(34 + (reg))
#define FACT_FAR_DELTA BIT(50) /* T1 is the far side's delta */
/* At least that of the vector registers is in the host's. */
#define FACT_AVX BIT(51)
#define FACT_AVX512 BIT(52)

/* pair: base + (index << scale) is such an address; 0: none. No one twice. */
#define FACT_PAIRS 4u
#define FACT_PAIR(side, base, index, scale) \
    ((uint16_t)((base) | (index) << 4 | (scale) << 8 | (side) << 10 | 1u << 11))
#define PAIR_BASE(pair) ((pair)&15u)
#define PAIR_INDEX(pair) ((pair) >> 4 & 15u)
#define PAIR_SCALE(pair) ((pair) >> 8 & 3u)
#define PAIR_SIDE(pair) ((pair) >> 10 & 1u)

struct facts {
    uint64_t bits;
    uint16_t pair[FACT_PAIRS];
};

static inline bool facts_have_pair(const struct facts *f, uint16_t pair)
{
    for (unsigned i = 0; i < FACT_PAIRS; i++)
        if (f->pair[i] == pair)
            return true;
    return false;
}

/* Adds it, if there is room. */
static inline void facts_add_pair(struct facts *f, uint16_t pair)
{
    for (unsigned i = 0; i < FACT_PAIRS && f->pair[i] != pair; i++)
        if (!f->pair[i]) {
            f->pair[i] = pair;
            return;
        }
}

static inline bool facts_any(const struct facts *f) { return f->bits || f->pair[0]; }

static inline struct facts facts_both(const struct facts *a, const struct facts *b)
{
    struct facts f = { .bits = a->bits & b->bits };
    for (unsigned i = 0; i < FACT_PAIRS && a->pair[i]; i++)
        if (facts_have_pair(b, a->pair[i]))
            facts_add_pair(&f, a->pair[i]);
    return f;
}

/* Are all of `a` in `b`? */
static inline bool facts_within(const struct facts *a, const struct facts *b)
{
    for (unsigned i = 0; i < FACT_PAIRS && a->pair[i]; i++)
        if (!facts_have_pair(b, a->pair[i]))
            return false;
    return !(a->bits & ~b->bits);
}

static inline unsigned facts_count(const struct facts *f)
{
    unsigned n = (unsigned)__builtin_popcountll(f->bits);
    for (unsigned i = 0; i < FACT_PAIRS; i++)
        n += f->pair[i] != 0;
    return n;
}

static inline void facts_add(struct facts *f, const struct facts *more)
{
    f->bits |= more->bits;
    for (unsigned i = 0; i < FACT_PAIRS && more->pair[i]; i++)
        facts_add_pair(f, more->pair[i]);
}

/* Those that are about the registers of `mask` only, or about none. */
static inline struct facts facts_about(const struct facts *f, uint16_t mask)
{
    uint64_t regs = mask;
    struct facts g = { .bits = f->bits & (regs | BIT(FACT_PAGE) | (regs | BIT(FACT_PAGE)) << FACT_PLACES |
                                          regs << 34) };
    for (unsigned i = 0; i < FACT_PAIRS && f->pair[i]; i++)
        if (mask >> PAIR_BASE(f->pair[i]) & mask >> PAIR_INDEX(f->pair[i]) & 1)
            facts_add_pair(&g, f->pair[i]);
    return g;
}

#endif
