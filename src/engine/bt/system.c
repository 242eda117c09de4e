/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls from generated code: instructions that are done by the interpreter's handler, system instructions above all; and
 * targets of jumps that the jump table lacks.
 *
 *   unit ──► gate_call: registers to v->s, C's stack ──► bt_call_out: rip and count exact, handler
 *     ▲                                                      │
 *     ├── went on: mode, address space and code are as before ◄─┤
 *     │   jumped: into the unit at the new rip, in its context ◄─┤
 *   run loop ◄── left: a request, a shadow, no unit yet        ◄─┘   exceptions unwind to the run loop
 *
 * The operation itself stands in cpu/ alone; the handler is the one that the interpreter runs, with the same operands.
 */
#include "engine/bt/unit.h"
#include "engine/interp/block.h"
#include "engine/interp/operand.h"

/* Operations that the handlers leave to a block of their own, or that move rip in ways known to blocks only. */
static bool is_near_branch(const struct insn *in)
{
    switch (in->id) {
    case INSN_JCC:
    case INSN_JMP:
    case INSN_JMP_IND:
    case INSN_CALL:
    case INSN_CALL_IND:
    case INSN_RET:
    case INSN_LOOP:
    case INSN_LOOPE:
    case INSN_LOOPNE:
    case INSN_JCXZ: return true;
    default: return false;
    }
}

bool call_out_ends(const struct insn *in)
{
    switch (in->id) {
    case INSN_SYSCALL:
    case INSN_SYSRET:
    case INSN_SYSENTER:
    case INSN_SYSEXIT:
    case INSN_IRET:
    case INSN_INT:
    case INSN_INT1:
    case INSN_INT3:
    case INSN_RET_FAR:
    case INSN_JMP_FAR:
    case INSN_JMP_FAR_IND:
    case INSN_CALL_FAR:
    case INSN_CALL_FAR_IND:
    case INSN_HLT: return true;
    default: return false;
    }
}

bool call_out_possible(const struct bt *b, const struct insn *in, uint32_t key)
{
    struct op op;
    if (!pass_on(b, in->row->flags & IF_STR ? ENGINE_PASS_STRING : ENGINE_PASS_SYSTEM))
        return false;
    return in->id != INSN_UD && !is_near_branch(in) && lower(&op, in, in->len, key & MODE_KEY_MASK);
}

static struct bt_call *call_at(const struct bt *b, uint32_t index)
{
    return (struct bt_call *)(void *)(b->calls + index * CALL_STRIDE);
}

static struct block *block_of(struct bt_call *c) { return (struct block *)(void *)(c + 1); }

/* Ends the block of one instruction: rip is made exact, and nothing follows. */
static const struct op *call_end(struct vcpu *v, const struct op *op)
{
    v->s.rip = op_next_rip(v, op);
    return NULL;
}

/* Notes the instruction as one to be called; returns its number. */
static uint32_t call_record(struct translation *t, const struct planned *p)
{
    struct bt *b = t->b;
    uint32_t index = b->ncalls++;
    struct bt_call *c = call_at(b, index);
    struct block *blk = block_of(c);
    *c = (struct bt_call){
        .unit = (uint32_t)(t->unit - b->units),
        .off = p->off,
        .rest = (uint8_t)(t->unit->insns - t->index),
        .lesson = p->lesson,
        .away = call_out_ends(&p->in),
    };
    c->stub = insn_is_extension(&p->in) && (p->in.enc || p->in.row->flags & IF_SSE);
    *blk = (struct block){ .count = 1, .bytes = p->in.len, .mode = t->key & MODE_KEY_MASK };
    lower(&blk->ops[0], &p->in, p->in.len, blk->mode);
    blk->ops[1] = (struct op){ .run = call_end, .id = INSN_INVALID, .off = p->in.len };
    return index;
}

void call_out_emit(struct translation *t, const struct planned *p)
{
    uint32_t index = call_record(t, p);
    flags_to_s(t);
    emit_mov_imm32(&t->e, T1, index);
    emit_call(&t->e, bt_exec_addr(t->b, t->b->gate_call));
    t->delta_group = NO_GROUP;
    t->simd_ready = simd_always(t);
    t->x87_ready = false;
    t->spots_fresh = false;
}

/* --- the call ------------------------------------------------------------------------------------------------ */

static void run_handler(struct vcpu *v, struct interp *c, const struct op *op)
{
    c->limit = 0; /* no block is entered from here */
    while (op) {
        v->engine_op = op;
        op = op->run(v, op);
    }
    v->engine_op = NULL;
}

/* May guest code run on without a look by the run loop, but for its mode? */
static bool is_quiet(const struct vcpu *v, const struct interp *c)
{
    return !atomic_load_explicit(&v->requests, memory_order_relaxed) && v->s.activity == ACTIVITY_RUN &&
           !c->alone && !c->trace && !v->s.debug_pending;
}

static bool undisturbed(const struct vcpu *v, const struct interp *c)
{
    return is_quiet(v, c) && bt_mode_possible(v);
}

/* The unit at rip in the present context, if it was looked up before. */
static uint64_t jump_in_context(struct bt *b, const struct bt_context *x)
{
    struct vcpu *v = b->v;
    struct bt_area *a = bt_area(v);
    if (b->interp.until - v->s.retired < BLOCK_OPS_MAX)
        return CALL_LEAVE;
    uint64_t lin = fetch_linear(v);
    const struct bt_jump *j = &x->jumps[jump_slot(lin, x->key)];
    if (j->lin != lin && !bt_lookup(v, lin, 0))
        return CALL_LEAVE;
    if (x->key & KEY_COUNT)
        a->left = (int64_t)(b->interp.until - v->s.retired);
    a->exit_lin = lin;
    b->n.calls_jumped++;
    return (uint64_t)(uintptr_t)j->code;
}

/* The same for an instruction that faulted before: the unit that clears RF behind it. Until then v->mode says nothing of RF. */
static uint64_t jump_resuming(struct bt *b)
{
    struct vcpu *v = b->v;
    struct bt_area *a = bt_area(v);
    v->mode &= ~MODE_STEP;
    const struct bt_context *x = bt_context_turned(b);
    uint64_t lin = fetch_linear(v);
    const uint8_t *host = bt_code_at(&v->mmu, lin);
    const void *code = host ? bt_cache_entry(b, host, KEY_ONCE, bt_window_of(x, lin)) : NULL;
    if (!code || b->interp.until - v->s.retired < BLOCK_OPS_MAX) {
        v->mode |= MODE_STEP;
        return CALL_LEAVE;
    }
    if (x->key & KEY_COUNT)
        a->left = (int64_t)(b->interp.until - v->s.retired);
    a->exit_lin = lin;
    b->n.calls_jumped++;
    return (uint64_t)(uintptr_t)code;
}

/* The unit is the right one still: same mode and address space, code not changed, the count fits. */
static bool can_go_on(struct bt *b, const struct bt_context *before, const struct bt_call *call,
                      uint64_t flushes)
{
    struct vcpu *v = b->v;
    const struct bt_unit *u = &b->units[call->unit];
    if (b->n.cache_flushes != flushes || !bt_unit_fresh(u))
        return false;
    const struct bt_context *now = bt_context_now(b);
    if (now->epoch != before->epoch || now->key != before->key || now->cs_base != before->cs_base ||
        now->cs_limit != before->cs_limit)
        return false;
    if (now->key & KEY_COUNT) {
        int64_t left = (int64_t)(b->interp.until - v->s.retired) - (call->rest - 1);
        if (left < 0)
            return false;
        bt_area(v)->left = left;
    }
    return true;
}

/* The instruction's bytes. */
static const uint8_t *code_of(const struct bt *b, const struct bt_call *call)
{
    const struct bt_unit *u = &b->units[call->unit];
    return u->host + (call->off - ((uintptr_t)u->host & PAGE_OFFSET_MASK));
}

/* The interpreter has forgotten its stubs. */
static void forget_stubs(struct bt *b)
{
    for (unsigned s = 0; s < b->nsegments; s++)
        for (uint32_t i = b->segments[s].from.calls; i < bt_cache_used(b, s).calls; i++) {
            struct op *op = block_of(call_at(b, i))->ops;
            if (call_at(b, i)->stub && op->index != MEM_OFFSET)
                op->aux = NULL;
        }
    b->stub_resets = b->interp.stub_resets;
}

uint64_t bt_call_out(struct vcpu *v, uint32_t index)
{
    struct bt *b = bt_of(v);
    struct interp *c = &b->interp;
    struct bt_area *a = bt_area(v);
    struct bt_call *call = call_at(b, index);
    const struct bt_context before = *a->context; /* its place may be given to another one */
    uint64_t flushes = b->n.cache_flushes, next;
    b->n.calls++;
    bt_x87_sync(v);
    if (b->stub_resets != c->stub_resets)
        forget_stubs(b);
    if (unlikely(b->bails != NULL))
        bt_bails_called(b, block_of(call)->ops[0].id, code_of(b, call), block_of(call)->bytes);
    c->block = block_of(call);
    c->rip0 = bt_rip(v, a->page + call->off);
    c->retired0 = before.key & KEY_COUNT ? c->until - (uint64_t)(a->left + call->rest) : v->s.retired;
    next = (c->rip0 + c->block->bytes) & v->lin_mask;
    v->s.rip = c->rip0;
    v->s.retired = c->retired0 + 1;
    if (before.key & KEY_COUNT) {
        bt_account(b, before.key, c->retired0, true);
        bt_account(b, before.key, v->s.retired, false);
    }
    uint64_t walks = v->mmu.stats.walks;
    v->store_code = true; /* nothing behind it runs before code and requests were looked at */
    run_handler(v, c, c->block->ops);
    v->store_code = false;
    c->repeating = false;
    if (call->away && bt_is_resuming(v))
        return is_quiet(v, c) ? jump_resuming(b) : (uint64_t)CALL_LEAVE;
    if (call->away)
        return undisturbed(v, c) ? jump_in_context(b, bt_context_turned(b)) : (uint64_t)CALL_LEAVE;
    bool anew = call->lesson && bt_adapt_called(b, code_of(b, call), v->mmu.stats.walks == walks);
    if (undisturbed(v, c)) {
        if (v->s.rip == next && !anew && can_go_on(b, &before, call, flushes)) {
            b->n.calls_went_on++;
            return CALL_WENT_ON;
        }
        return jump_in_context(b, bt_context_now(b));
    }
    return CALL_LEAVE;
}

/* --- targets --------------------------------------------------------------------------------------------------- */

const uint8_t *bt_code_at(struct mmu *m, uint64_t lin)
{
    const uint8_t *host = tlb_find_code(m, lin);
    if (host)
        return host;
    if (mmu_peek(m, GVA(lin), ACCESS_FETCH, m->index).fault)
        return NULL;
    struct mmu_result r = mmu_translate(m, GVA(lin), ACCESS_FETCH, m->index);
    return r.page && r.page->host ? r.page->host + (r.addr.v & PAGE_OFFSET_MASK) : NULL;
}

/* Host address of what a jump to `lin` reaches in the present context, NULL: nothing. */
static const uint8_t *target_at(struct bt *b, uint64_t lin, struct bt_window *window)
{
    struct vcpu *v = b->v;
    *window = bt_window_of(bt_area(v)->context, lin);
    bool reached = vcpu_long64(v) ? is_canonical48(lin) : window_has(*window, lin);
    b->n.lookups++;
    return reached ? bt_code_at(&v->mmu, lin) : NULL;
}

bool bt_lookup(struct vcpu *v, uint64_t lin, uint32_t unused)
{
    struct bt *b = bt_of(v);
    struct bt_window window;
    (void)unused;
    const uint8_t *host = target_at(b, lin, &window);
    const void *code = host ? bt_cache_entry(b, host, 0, window) : NULL;
    if (!code)
        return false;
    bt_jump_put(bt_area(b->v)->context, lin, code);
    b->n.jumps_found++;
    return true;
}

/* --- far links ----------------------------------------------------------------------------------------------------- */

#define STRAYS 32u

/* Is it for another page or context, which may come back? A page's address is canonical: no other id gives one. */
static bool strays(const struct bt *b, const struct bt_link *l)
{
    uint64_t guard = bt_area(b->v)->fars[l->slot].guard;
    for (const struct bt_context *x = b->contexts; x < b->contexts + CONTEXTS && l->linked; x++)
        if (x->used && is_canonical48(guard - x->id))
            return true;
    return false;
}

bool bt_far_link(struct vcpu *v, uint64_t unused, uint32_t link)
{
    struct bt *b = bt_of(v);
    struct bt_link *l = &b->links[link];
    uint64_t page = bt_area(v)->page;
    (void)unused;
    struct bt_window window;
    const uint8_t *host = target_at(b, page + (uint64_t)(int64_t)l->far_to, &window);
    struct bt_unit *u = host ? bt_cache_peek(b, host, bt_unit_key(b, host), window) : NULL;
    if (!u)
        return false;
    if (u->crossing || (strays(b, l) && ++l->strays == STRAYS)) {
        const struct bt_unit *from = l->from;
        bt_adapt_strays(b, bt_page_host(from) + l->target);
    }
    if (u->crossing) /* one of several, by the page that follows */
        return false;
    bt_cache_link_far(b, l, u, page);
    b->n.jumps_found++;
    return l->linked;
}
