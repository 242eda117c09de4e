/* SPDX-License-Identifier: Apache-2.0 */
/* How handlers leave their block for another in 64-bit mode: by the successors that the block remembers. */
#ifndef SUNDOG_ENGINE_INTERP_BRANCH_H
#define SUNDOG_ENGINE_INTERP_BRANCH_H

#include "engine/interp/operand.h"

static inline struct block *own_block(const struct op *op) { return (struct block *)(uintptr_t)op->aux; }

static inline uint64_t cs_linear(const struct vcpu *v, uint64_t rip)
{
    return (v->sf[SEG_CS].base + rip) & v->lin_mask;
}

enum { TO_NEXT, TO_TARGET };

/* The successor is not remembered; v->s.rip has been moved to it. */
const struct op *follow_unlinked(struct vcpu *v, const struct op *op, unsigned slot);

static always_inline const struct op *follow_64(struct vcpu *v, const struct op *op, unsigned slot,
                                                int64_t delta)
{
    struct block *to = own_block(op)->to[slot];
    v->s.rip += (uint64_t)delta;
    if (likely(to != NULL))
        return block_enter(v, to);
    return follow_unlinked(v, op, slot);
}

static always_inline const struct op *next_64(struct vcpu *v, const struct op *op)
{
    return follow_64(v, op, TO_NEXT, op->off);
}

static always_inline const struct op *target_64(struct vcpu *v, const struct op *op)
{
    return follow_64(v, op, TO_TARGET, op->disp);
}

#endif
