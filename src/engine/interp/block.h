/* SPDX-License-Identifier: Apache-2.0 */
/* The block cache: decoded code found by address, made when missing, checked for being still what memory
 * holds. */
#ifndef SUNDOG_ENGINE_INTERP_BLOCK_H
#define SUNDOG_ENGINE_INTERP_BLOCK_H

#include "engine/interp/op.h"

/* Decoded code lives in an arena of this many bytes. */
int block_cache_init(struct interp *c, size_t arena, struct error *e);
void block_cache_free(struct interp *c);
/* Forgets every block. */
void block_cache_flush(struct interp *c);

/* The block at CS:rip for `mode` (v->mode, perhaps with MODE_STEP: one instruction). Raises what fetching
 * there raises. */
struct block *block_find(struct vcpu *v, uint32_t mode);

/* How often code at `host` was run cold, 0 to 255, as far as that is still known. */
static inline uint8_t *block_heat(struct interp *c, const uint8_t *host)
{
    uint32_t hash = hash_slot((uintptr_t)host, 32);
    struct block_heat *heat = &c->heat[hash >> (32 - HEAT_ENTRY_BITS)];
    if (heat->tag != (uint16_t)hash)
        *heat = (struct block_heat){ .tag = (uint16_t)hash };
    return &heat->runs;
}

/* Was it decoded from what its pages hold now? */
static inline bool block_fresh(const struct block *b)
{
    return atomic_load_explicit(b->live, memory_order_relaxed) == b->version &&
           (!b->live2 || atomic_load_explicit(b->live2, memory_order_relaxed) == b->version2);
}

/* Remembers `to` as a successor of `from`, if it is on the same page: the same code version says so, whatever was
 * mapped where meanwhile. */
static inline void block_link(struct vcpu *v, struct block *from, unsigned slot, struct block *to)
{
    if (to->live != from->live || to->mode != from->mode || to->live2)
        return;
    from->to[slot] = to;
    v->counters.chained++;
}

/* The linear address of CS:rip. */
static inline uint64_t fetch_linear(const struct vcpu *v)
{
    return (v->sf[SEG_CS].base + v->s.rip) & v->lin_mask;
}

#endif
