/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's stack as instructions use it: in 64-bit and flat 32-bit mode directly, else by SS's base,
 * limit and size. */
#ifndef SUNDOG_ENGINE_INTERP_STACK_H
#define SUNDOG_ENGINE_INTERP_STACK_H

#include "engine/interp/operand.h"

enum stack_form { STACK_64, STACK_32, STACK_ANY, STACK_FORM_COUNT };

/* How an operand of `size` bytes gets on and off the stack. */
static inline enum stack_form stack_form(uint32_t mode, unsigned size)
{
    if ((mode & MODE_CODE_MASK) == MODE_CODE64)
        return size == 8 ? STACK_64 : STACK_ANY;
    return (mode & MODE_FLAT) && (mode & MODE_SS32) && size == 4 ? STACK_32 : STACK_ANY;
}

static inline uint64_t stack_read(struct vcpu *v, const struct op *op, uint64_t sp, unsigned size)
{
    uint64_t lin = seg_linear(v, SEG_SS, sp, size, ACCESS_READ);
    return read_linear(v, op, lin, size, SEG_SS);
}

static inline void stack_write(struct vcpu *v, const struct op *op, uint64_t sp, uint64_t val, unsigned size)
{
    uint64_t lin = seg_linear(v, SEG_SS, sp, size, ACCESS_WRITE);
    write_linear(v, op, lin, val, size, SEG_SS);
}

/* RSP, ESP or SP = sp; a 16-bit stack keeps the upper bits. */
static inline void stack_set(struct vcpu *v, uint64_t sp)
{
    uint64_t mask = stack_mask(v);
    v->s.gpr[RSP] = mask == 0xffff ? (v->s.gpr[RSP] & ~mask) | (sp & mask) : sp & mask;
}

static inline uint64_t stack_peek(struct vcpu *v, const struct op *op, unsigned size)
{
    return stack_read(v, op, v->s.gpr[RSP] & stack_mask(v), size);
}

static inline void stack_drop(struct vcpu *v, uint64_t bytes) { stack_set(v, v->s.gpr[RSP] + bytes); }

static inline void stack_push(struct vcpu *v, const struct op *op, uint64_t val, unsigned size)
{
    uint64_t sp = (v->s.gpr[RSP] - size) & stack_mask(v);
    stack_write(v, op, sp, val, size);
    stack_set(v, sp);
}

/* Out of line: what the flat handlers do on a TLB miss. */
const struct op *push_and_next(struct vcpu *v, const struct op *op, uint64_t val, unsigned size);

/* Body of a handler that pushes n bits in a flat mode. */
#define PUSH_FLAT(n, val) \
    uint64_t lin = (uint##n##_t)(v->s.gpr[RSP] - n / 8); \
    void *host = tlb_find(&v->mmu, lin, n / 8, ACCESS_WRITE); \
    if (unlikely(!host)) \
        return push_and_next(v, op, (val), n / 8); \
    *(any##n *)host = (uint##n##_t)(val); \
    v->s.gpr[RSP] = lin; \
    return NEXT(v, op)

#endif
