/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter's decoded form: a block is an array of operations, each a handler and its operands.
 *
 *   struct insn ──lower (per family)──► struct op { handler, registers, displacement, immediate }
 *
 * A handler executes one instruction and then
 *   return NEXT(v, op);    goes on in the block (`return op + 1` is the slow spelling),
 *   return NULL;           has moved v->s.rip: the run loop finds the next block,
 *   return leave(v);       the same, and the run loop has to look at mode, events and activity first,
 *   return block_enter()   goes on in another block.
 * A handler that faults unwinds with nothing committed; v->engine_op is the running operation, from which the
 * run loop computes rip and the retired count.
 *
 * While a block runs, v->s.rip is the rip of its first byte and v->s.retired already counts the whole block.
 * An operation that calls into cpu/ where these matter puts exact()/inexact() around it.
 */
#ifndef SUNDOG_ENGINE_INTERP_OP_H
#define SUNDOG_ENGINE_INTERP_OP_H

#include "cpu/access.h"
#include "cpu/vcpu.h"
#include "isa/insn.h"

struct op;
typedef const struct op *(*op_handler)(struct vcpu *v, const struct op *op);

struct op {
    op_handler run;
    uint8_t r1, r2;      /* registers; byte registers of the integer families by byte offset in gpr[] */
    uint8_t base, index; /* registers of the memory operand, 0..15 or MEM_* */
    uint8_t scale;
    uint8_t opsize;
    uint8_t prefixes;     /* IP_*; a family may keep something of its own here */
    uint8_t len : 4;      /* instruction length */
    uint8_t addrsize : 4; /* 2, 4, 8 */
    uint16_t id : 13;     /* enum insn_id */
    uint16_t seg : 3;     /* of the memory operand or of implicit DS */
    uint16_t off;         /* of the next instruction from the block's start: rip after = block rip + off */
    int32_t disp; /* of the memory operand; of a branch, or when base is MEM_RIP: from the block's start */
    uint64_t imm;
    const void *aux; /* the family's: a stub, ...; of a branch: its block */
};

#define always_inline inline __attribute__((always_inline))

#define BLOCK_OPS_MAX 32

/* A decoded run of instructions from one physical page, or one instruction that crosses into a second
 * page. Never freed alone: the arena is emptied as a whole. Valid while the pages' code versions are those
 * it was decoded under. */
struct block {
    const _Atomic uint32_t *live; /* the page's code version now */
    uint32_t version;
    uint8_t count; /* instructions */
    uint8_t runs;  /* how often interp_run_cold() ran it, as far as it counts */
    uint16_t bytes;
    struct block *to[2]; /* successors on the same page: fall-through, taken; NULL: not looked up yet */
    struct block *hash_next;
    const uint8_t *host; /* its first byte: the key, with mode */
    uint32_t mode;
    uint32_t version2; /* of the second page, when live2 */
    const _Atomic uint32_t *live2;
    const uint8_t *host2;
    struct op ops[]; /* count, then one that ends the block; then the bytes they were made from */
};

struct lookup_entry {
    uint64_t lin, context;
    struct block *block;
};

#define LOOKUP_ENTRIES 4096u

/* How often code was run cold, for longer than its blocks are kept: by hash of its address, of which `tag` is a piece. */
#define HEAT_ENTRY_BITS 16
struct block_heat {
    uint16_t tag;
    uint8_t runs;
};

/* The engine's part of a vcpu. */
struct interp {
    uint64_t limit;      /* blocks may run up to this retired count; 0: the run loop wants to look */
    struct block *block; /* running */
    uint64_t rip0;       /* rip at its start */
    uint64_t retired0;   /* retired count at its start */
    uint64_t until;
    uintptr_t stack_floor;   /* handlers that could not make a tail call pile up no further than this */
    struct block *link_from; /* its successor link_slot missed: filled by the next lookup; or NULL */
    unsigned link_slot;
    bool alone;                                     /* the next instruction runs in a block of its own */
    bool world_stopped;                             /* for a locked operation */
    uint32_t pauses;                                /* PAUSE instructions */
    bool repeating;                                 /* a string instruction stopped between iterations */
    uint64_t stream_at;                             /* RDI where a long copy past the caches goes on */
    void (*trace)(void *ctx, const struct vcpu *v); /* called before each instruction */
    void *trace_ctx;
    uint8_t *arena;
    size_t arena_size, arena_used;
    struct block **hash;
    struct wide_stubs *stubs; /* wide_stub.c's; NULL until the first is needed */
    uint32_t
        stub_resets; /* how often they were forgotten: an op kept elsewhere must not use its stub any more */
    struct lanes *lanes; /* lane.c's; NULL until the first long run */
    bool no_lanes;
    struct lookup_entry lookup[LOOKUP_ENTRIES];
    struct block_heat heat[1u << HEAT_ENTRY_BITS];
};

static inline struct interp *interp_of(struct vcpu *v) { return v->engine_data; }

/* Handlers go from one to the next by tail calls where the compiler is known to make them; else the run
 * loop calls each. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define SUNDOG_SANITIZED 1
#endif
#endif
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(SUNDOG_SANITIZED)
#define SUNDOG_TAIL_CALLS 1
#else
#define SUNDOG_TAIL_CALLS 0
#endif

static always_inline const struct op *op_run(struct vcpu *v, const struct op *op)
{
#if SUNDOG_TAIL_CALLS
    v->engine_op = op;
    return op->run(v, op);
#else
    (void)v;
    return op;
#endif
}

#define NEXT(v, op) op_run((v), (op) + 1)

/* A handler with locals whose address escapes calls the next one instead of jumping to it. So that no guest's
 * loop of such handlers eats the stack, the run loop takes over now and then. */
static always_inline bool stack_is_deep(const struct interp *c)
{
    uintptr_t sp;
    __asm__("mov %%rsp, %0" : "=r"(sp));
    return sp < c->stack_floor;
}

/* Starts a block at v->s.rip, or NULL when the run loop has to look first: requests, count reached, code
 * changed, the stack deep. */
static always_inline const struct op *block_enter(struct vcpu *v, struct block *b)
{
    struct interp *c = interp_of(v);
    uint64_t retired = v->s.retired + b->count;
    if (unlikely(retired > c->limit || atomic_load_explicit(&v->requests, memory_order_relaxed) ||
                 atomic_load_explicit(b->live, memory_order_relaxed) != b->version || stack_is_deep(c)))
        return NULL;
    c->block = b;
    c->rip0 = v->s.rip;
    c->retired0 = v->s.retired;
    v->s.retired = retired;
    v->counters.blocks_executed++;
    return op_run(v, b->ops);
}

/* What the lookup cache is keyed with besides the linear address: address space, flushes so far, mode. */
static inline uint64_t lookup_context(const struct vcpu *v) { return v->mmu.flush_epoch << 12 | v->mode; }

static inline struct lookup_entry *lookup_slot(struct interp *c, uint64_t lin)
{
    return &c->lookup[(lin ^ lin >> 12) & (LOOKUP_ENTRIES - 1)];
}

/* The block at a linear address, if it is a recent one from a single page. */
static inline struct block *lookup_fast(struct vcpu *v, uint64_t lin)
{
    const struct lookup_entry *e = lookup_slot(interp_of(v), lin);
    if (likely(e->lin == lin && e->context == lookup_context(v) && !e->block->live2))
        return e->block;
    return NULL;
}

/* block_enter() outside 64-bit mode, where a block may reach beyond CS's limit: its instructions then run
 * one by one. */
static always_inline const struct op *block_enter_limited(struct vcpu *v, struct block *b)
{
    if (unlikely(v->s.rip + b->bytes - 1 > v->s.seg[SEG_CS].limit)) {
        interp_of(v)->alone = true;
        return NULL;
    }
    return block_enter(v, b);
}

/* Leaves the block; the run loop looks at everything before it goes on at v->s.rip. */
static inline const struct op *leave(struct vcpu *v)
{
    interp_of(v)->limit = 0;
    return NULL;
}

/* The address after this instruction. Outside 64-bit mode rip wraps at 4 GiB. */
static inline uint64_t op_next_rip(const struct vcpu *v, const struct op *op)
{
    return (v->s.rip + op->off) & v->lin_mask;
}

/* Makes rip (as cpu/ops.h wants it: of the next instruction) and the retired count (this one not counted)
 * exact. */
static inline void exact(struct vcpu *v, const struct op *op)
{
    struct interp *c = interp_of(v);
    v->s.rip = (c->rip0 + op->off) & v->lin_mask;
    v->s.retired = c->retired0 + (uint64_t)(op - c->block->ops);
}

/* After exact(): back to the block's view, to go on in it. */
static inline void inexact(struct vcpu *v)
{
    struct interp *c = interp_of(v);
    v->s.rip = c->rip0;
    v->s.retired = c->retired0 + c->block->count;
}

/* After exact(): the instruction is done and the block is left at v->s.rip. */
static inline const struct op *leave_exact(struct vcpu *v)
{
    v->s.retired++;
    return leave(v);
}

/* --- the memory operand --------------------------------------------------------------------------------- */

/* Register n, where 16 is the block's rip: only the arithmetic of rip-relative operands reads it so. */
static inline uint64_t op_reg(const struct vcpu *v, unsigned n)
{
    _Static_assert(offsetof(struct vcpu_state, rip) == MEM_RIP * sizeof(uint64_t),
                   "rip follows the registers");
    uint64_t val;
    memcpy(&val, (const uint8_t *)&v->s + n * sizeof(val), sizeof(val));
    return val;
}

/* Fills the memory operand's fields of an op whose `off` and `addrsize` are set. */
void op_set_mem(struct op *op, const struct insn *in);

/* An op's index: the displacement needs 64 bits (MOV moffs) and is in aux. */
#define MEM_OFFSET 18

/* Offset of the memory operand in its segment. */

static inline uint64_t op_offset(const struct vcpu *v, const struct op *op)
{
    uint64_t off = (uint64_t)(int64_t)op->disp;
    if (op->base <= MEM_RIP)
        off += op_reg(v, op->base);
    if (op->index < 16)
        off += v->s.gpr[op->index] << op->scale;
    else if (unlikely(op->index == MEM_OFFSET))
        off += (uint64_t)(uintptr_t)op->aux;
    return off & mask_bytes(op->addrsize);
}

/* --- lowering ------------------------------------------------------------------------------------------- */

/* Turns one decoded instruction into an op. `off`: of the next instruction from the block's start. False:
 * nobody knows it. */
bool lower(struct op *op, const struct insn *in, unsigned off, uint32_t mode);

/* Fills op->run and operands for one decoded instruction; len, off, opsize, addrsize, seg, prefixes, id
 * and imm are set already. False if the family does not know it. One function per family. */
bool lower_integer(struct op *op, const struct insn *in, uint32_t mode);
bool lower_system(struct op *op, const struct insn *in, uint32_t mode);
bool lower_simd(struct op *op, const struct insn *in, uint32_t mode);
bool lower_x87(struct op *op, const struct insn *in, uint32_t mode);

#endif
