/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jcc, JMP, CALL, RET, LOOP: how a block ends.
 *
 * A successor on the same physical page is remembered in the block itself: whoever runs this block has the
 * page mapped, so it needs no lookup. Others go through the lookup cache. 64-bit mode and the older modes
 * have handlers of their own: _64 checks that targets are canonical, _old cuts them to the operand size and
 * checks CS's limit.
 */
#include "engine/interp/branch.h"

#include "engine/interp/block.h"
#include "engine/interp/stack.h"

/* Nothing is linked: v->s.rip has been moved. A target on another page, or one that crosses into one, is looked
 * up each time; one on this page becomes a link, here or when the run loop has made it. */
const struct op *follow_unlinked(struct vcpu *v, const struct op *op, unsigned slot)
{
    struct interp *c = interp_of(v);
    uint64_t lin = cs_linear(v, v->s.rip);
    bool same_page = (cs_linear(v, c->rip0) ^ lin) < PAGE_SIZE;
    const struct lookup_entry *e = lookup_slot(c, lin);
    if (likely(e->lin == lin && e->context == lookup_context(v) && block_fresh(e->block))) {
        struct block *to = e->block;
        if (same_page)
            block_link(v, own_block(op), slot, to);
        return vcpu_long64(v) ? block_enter(v, to) : block_enter_limited(v, to);
    }
    v->engine_op = op;
    if (vcpu_long64(v) && !is_canonical48(v->s.rip))
        cpu_raise_gp0(v);
    if (same_page)
        c->link_from = own_block(op), c->link_slot = slot;
    return NULL;
}

/* To `rip` in 64-bit mode, from anywhere. Raises with nothing committed, so call it last. */
static inline void check_target_64(struct vcpu *v, uint64_t rip)
{
    if (unlikely(!is_canonical48(rip)))
        cpu_raise_gp0(v);
}

/* --- the older modes ------------------------------------------------------------------------------------ */

static always_inline const struct op *next_old(struct vcpu *v, const struct op *op)
{
    struct block *to = own_block(op)->to[TO_NEXT];
    v->s.rip = op_next_rip(v, op);
    if (likely(to != NULL))
        return block_enter_limited(v, to);
    return follow_unlinked(v, op, TO_NEXT);
}

static inline uint64_t target_rip_old(struct vcpu *v, const struct op *op)
{
    uint64_t rip = (v->s.rip + (uint64_t)(int64_t)op->disp) & mask_bytes(op->opsize);
    if (unlikely(rip > v->s.seg[SEG_CS].limit))
        cpu_raise_gp0(v);
    return rip;
}

/* A target that wrapped is not where the block's own page says. */
static always_inline const struct op *target_old(struct vcpu *v, const struct op *op)
{
    uint64_t rip = target_rip_old(v, op);
    bool wrapped = rip != v->s.rip + (uint64_t)(int64_t)op->disp;
    struct block *to = own_block(op)->to[TO_TARGET];
    v->s.rip = rip;
    if (likely(to != NULL && !wrapped))
        return block_enter_limited(v, to);
    return wrapped ? NULL : follow_unlinked(v, op, TO_TARGET);
}

static always_inline const struct op *jump_old(struct vcpu *v, uint64_t rip)
{
    v->s.rip = rip;
    struct block *to = lookup_fast(v, cs_linear(v, rip));
    return likely(to != NULL) ? block_enter_limited(v, to) : NULL;
}

static inline uint64_t checked_old(struct vcpu *v, const struct op *op, uint64_t rip)
{
    rip &= mask_bytes(op->opsize);
    if (unlikely(rip > v->s.seg[SEG_CS].limit))
        cpu_raise_gp0(v);
    return rip;
}

/* --- JMP, Jcc, end of block ----------------------------------------------------------------------------- */

HANDLER(end_64) { return next_64(v, op); }
HANDLER(end_old) { return next_old(v, op); }
HANDLER(jmp_64) { return target_64(v, op); }
HANDLER(jmp_old) { return target_old(v, op); }

#define JCC(n, c) \
    HANDLER(j##c##_64) { return cc_test(v->s.cc, n) ? target_64(v, op) : next_64(v, op); } \
    HANDLER(j##c##_old) { return cc_test(v->s.cc, n) ? target_old(v, op) : next_old(v, op); }
FOR_CONDITIONS(JCC)
/* clang-format off */
#define JCC_ROW(n, c) { j##c##_64, j##c##_old },
static const op_handler jcc_handlers[16][2] = { FOR_CONDITIONS(JCC_ROW) };
/* clang-format on */

/* LOOP counts CX, ECX or RCX by the address size; imm: the instruction. */
static inline bool loop_taken(struct vcpu *v, const struct op *op)
{
    uint64_t count = (v->s.gpr[RCX] - (op->imm != INSN_JCXZ)) & mask_bytes(op->addrsize);
    switch (op->imm) {
    case INSN_JCXZ: return count == 0;
    case INSN_LOOP: return count != 0;
    case INSN_LOOPE: return count != 0 && v->s.cc & CC_ZF;
    default: return count != 0 && !(v->s.cc & CC_ZF);
    }
}

static inline void loop_count(struct vcpu *v, const struct op *op)
{
    if (op->imm != INSN_JCXZ)
        set_sized(v, RCX, v->s.gpr[RCX] - 1, op->addrsize);
}

HANDLER(loop_64)
{
    bool taken = loop_taken(v, op);
    if (taken && !own_block(op)->to[TO_TARGET])
        check_target_64(v, v->s.rip + (uint64_t)(int64_t)op->disp);
    loop_count(v, op);
    return taken ? target_64(v, op) : next_64(v, op);
}

HANDLER(loop_old)
{
    bool taken = loop_taken(v, op);
    if (taken)
        target_rip_old(v, op);
    loop_count(v, op);
    return taken ? target_old(v, op) : next_old(v, op);
}

/* --- CALL ----------------------------------------------------------------------------------------------- */

/* A push that would fault does so before a target that is not canonical; neither leaves a trace. */
static void check_call_64(struct vcpu *v, uint64_t rip)
{
    if (!is_canonical48(rip))
        access_probe_write(v, v->s.gpr[RSP] - 8, 8, v->mmu.index, SEG_SS);
    check_target_64(v, rip);
}

/* Calls and jumps whose fast path did not do: a TLB miss, a target not in the lookup cache, or no target at all. */
static cold_fn const struct op *call_64_slow(struct vcpu *v, const struct op *op, uint64_t rip)
{
    check_call_64(v, rip);
    stack_push(v, op, v->s.rip + op->off, 8);
    v->s.rip = rip;
    return NULL;
}

static cold_fn const struct op *jump_64_slow(struct vcpu *v, uint64_t rip)
{
    check_target_64(v, rip);
    v->s.rip = rip;
    return NULL;
}

HANDLER(call_64)
{
    uint64_t lin = v->s.gpr[RSP] - 8, rip = v->s.rip + (uint64_t)(int64_t)op->disp;
    void *host = tlb_find(&v->mmu, lin, 8, ACCESS_WRITE);
    if (unlikely(!host || !is_canonical48(rip)))
        return call_64_slow(v, op, rip);
    *(any64 *)host = v->s.rip + op->off;
    v->s.gpr[RSP] = lin;
    return target_64(v, op);
}

HANDLER(call_old)
{
    target_rip_old(v, op);
    stack_push(v, op, op_next_rip(v, op), op->opsize);
    return target_old(v, op);
}

/* To an absolute target read from a register or memory. */
static always_inline const struct op *call_to_64(struct vcpu *v, const struct op *op, uint64_t rip)
{
    struct block *to = lookup_fast(v, rip);
    uint64_t lin = v->s.gpr[RSP] - 8;
    void *host = tlb_find(&v->mmu, lin, 8, ACCESS_WRITE);
    if (unlikely(!to || !host))
        return call_64_slow(v, op, rip);
    *(any64 *)host = v->s.rip + op->off;
    v->s.gpr[RSP] = lin;
    v->s.rip = rip;
    return block_enter(v, to);
}

static always_inline const struct op *jump_to_64(struct vcpu *v, uint64_t rip)
{
    struct block *to = lookup_fast(v, rip);
    if (unlikely(!to))
        return jump_64_slow(v, rip);
    v->s.rip = rip;
    return block_enter(v, to);
}

HANDLER(jmp_r_64) { return jump_to_64(v, v->s.gpr[op->r1]); }
HANDLER(call_r_64) { return call_to_64(v, op, v->s.gpr[op->r1]); }

static cold_fn const struct op *jmp_m_64_slow(struct vcpu *v, const struct op *op, uint64_t lin)
{
    return jump_to_64(v, slow_read(v, op, lin, 8, op->seg));
}

static cold_fn const struct op *call_m_64_slow(struct vcpu *v, const struct op *op, uint64_t lin)
{
    return call_64_slow(v, op, slow_read(v, op, lin, 8, op->seg));
}

#define INDIRECT_FORM(form, name, ...) \
    HANDLER(name##_##form) \
    { \
        uint64_t lin = address_##form(v, op, 8, ACCESS_READ); \
        const void *host = tlb_find(&v->mmu, lin, 8, ACCESS_READ); \
        if (unlikely(!host)) \
            return name##_slow(v, op, lin); \
        uint64_t x = *(const any64 *)host; \
        return __VA_ARGS__; \
    }
FOR_FORMS(INDIRECT_FORM, jmp_m_64, jump_to_64(v, x))
FOR_FORMS(INDIRECT_FORM, call_m_64, call_to_64(v, op, x))

static const struct op *call_to_old(struct vcpu *v, const struct op *op, uint64_t rip)
{
    rip = checked_old(v, op, rip);
    stack_push(v, op, op_next_rip(v, op), op->opsize);
    return jump_old(v, rip);
}

HANDLER(jmp_r_old) { return jump_old(v, checked_old(v, op, v->s.gpr[op->r1])); }
HANDLER(jmp_m_old) { return jump_old(v, checked_old(v, op, read_operand(v, op, op->opsize))); }
HANDLER(call_r_old) { return call_to_old(v, op, v->s.gpr[op->r1]); }
HANDLER(call_m_old) { return call_to_old(v, op, read_operand(v, op, op->opsize)); }

/* --- RET; imm: bytes of arguments to drop --------------------------------------------------------------- */

static cold_fn const struct op *ret_64_slow(struct vcpu *v, const struct op *op)
{
    uint64_t rip = stack_peek(v, op, 8);
    check_target_64(v, rip);
    stack_drop(v, 8 + op->imm);
    v->s.rip = rip;
    return NULL;
}

HANDLER(ret_64)
{
    uint64_t lin = v->s.gpr[RSP];
    const void *host = tlb_find(&v->mmu, lin, 8, ACCESS_READ);
    if (unlikely(!host))
        return ret_64_slow(v, op);
    struct block *to = lookup_fast(v, *(const any64 *)host);
    if (unlikely(!to))
        return ret_64_slow(v, op);
    v->s.gpr[RSP] = lin + 8 + op->imm;
    v->s.rip = *(const any64 *)host;
    return block_enter(v, to);
}

HANDLER(ret_old)
{
    uint64_t rip = checked_old(v, op, stack_peek(v, op, op->opsize));
    stack_drop(v, op->opsize + op->imm);
    return jump_old(v, rip);
}

/* --- a displacement that does not fit with its offset in the block -------------------------------------- */

/* imm: the whole displacement; r1: condition, or which instruction. 64-bit mode only; never linked. */
enum { WIDE_JMP = 16, WIDE_CALL = 17 };

HANDLER(wide_64)
{
    uint64_t rip = v->s.rip + op->imm;
    if (op->r1 < WIDE_JMP && !cc_test(v->s.cc, op->r1))
        rip = v->s.rip + op->off;
    return op->r1 == WIDE_CALL ? call_to_64(v, op, rip) : jump_to_64(v, rip);
}

/* --- lowering ------------------------------------------------------------------------------------------- */

bool op_links(const struct op *op)
{
    switch (op->id) {
    case INSN_JCC:
    case INSN_JMP:
    case INSN_CALL:
    case INSN_LOOP:
    case INSN_LOOPE:
    case INSN_LOOPNE:
    case INSN_JCXZ: return op->run != wide_64;
    default: return op->id == INSN_INVALID;
    }
}

static bool lower_wide(struct op *op, const struct insn *in, int64_t disp)
{
    if (in->id != INSN_JCC && in->id != INSN_JMP && in->id != INSN_CALL)
        return false; /* the others reach 128 bytes */
    op->imm = (uint64_t)disp;
    op->r1 = in->id == INSN_JCC ? in->cond : in->id == INSN_JMP ? WIDE_JMP : WIDE_CALL;
    op->run = wide_64;
    return true;
}

static bool lower_direct(struct op *op, const struct insn *in, bool old)
{
    int64_t disp = (int64_t)in->imm + op->off;
    op->disp = (int32_t)disp;
    if (!old && disp != (int32_t)disp)
        return lower_wide(op, in, disp);
    op->imm = in->id;
    switch (in->id) {
    case INSN_JCC:
        op->r1 = in->cond;
        op->run = jcc_handlers[in->cond][old];
        break;
    case INSN_JMP: op->run = old ? jmp_old : jmp_64; break;
    case INSN_CALL: op->run = old ? call_old : call_64; break;
    default: op->run = old ? loop_old : loop_64; break;
    }
    return true;
}

bool lower_branch(struct op *op, const struct insn *in, uint32_t mode)
{
    /* [call][old] from a register; [call][form], [call] from memory */
    static const op_handler by_reg[2][2] = { { jmp_r_64, jmp_r_old }, { call_r_64, call_r_old } };
    static const op_handler by_mem_64[2][FORM_COUNT] = { FORMS(jmp_m_64), FORMS(call_m_64) };
    static const op_handler by_mem_old[2] = { jmp_m_old, call_m_old };
    bool call = in->id == INSN_CALL_IND;
    bool old = (mode & MODE_CODE_MASK) != MODE_CODE64, mem = in->op[0].kind == OPND_MEM;
    switch (in->id) {
    case INSN_RET:
        op->imm = in->op[0].kind == OPND_IMM ? in->imm : 0;
        op->run = old ? ret_old : ret_64;
        return true;
    case INSN_JMP_IND:
    case INSN_CALL_IND:
        op->r1 = in->op[0].reg;
        if (mem) {
            unsigned form = lower_mem(op, in, mode);
            op->run = old ? by_mem_old[call] : by_mem_64[call][form];
        } else {
            op->run = by_reg[call][old];
        }
        return true;
    default: return lower_direct(op, in, old);
    }
}

void lower_block_end(struct op *op, unsigned off, uint32_t mode)
{
    *op = (struct op){ .run = (mode & MODE_CODE_MASK) == MODE_CODE64 ? end_64 : end_old,
                       .id = INSN_INVALID,
                       .off = (uint16_t)off };
}
