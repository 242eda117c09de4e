/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter's run loop.
 *
 *   run ──► requests, count, events ──► many blocks at full speed  (run_blocks)
 *      ▲                           └──► or one instruction alone   (run_one: single step, shadows, end of count)
 *      └── exceptions unwind to here: rip and retired count are computed from the operation that was running
 */
#include "cpu/event.h"
#include "engine/interp/block.h"
#include "engine/interp/fpu.h"
#include "engine/interp/interp.h"
#include "engine/interp/operand.h"
#include "engine/interp/run.h"

#include <errno.h>
#include <stdlib.h>

#define ARENA (32u << 20)
/* Stack that handlers may use before the run loop takes over; one block more fits behind it. */
#define STACK_ROOM (64u << 10)

/* --- running blocks ------------------------------------------------------------------------------------- */

static inline struct block *next_block(struct vcpu *v, struct interp *c)
{
    uint64_t lin = fetch_linear(v);
    const struct lookup_entry *e = lookup_slot(c, lin);
    bool found = e->lin == lin && e->context == lookup_context(v) && block_fresh(e->block);
    struct block *b = found ? e->block : block_find(v, v->mode);
    if (c->link_from) {
        block_link(v, c->link_from, c->link_slot, b);
        c->link_from = NULL;
    }
    return b;
}

static inline void run_ops(struct vcpu *v, const struct op *op)
{
    while (op) {
        v->engine_op = op;
        op = op->run(v, op);
    }
    v->engine_op = NULL;
}

/* Runs blocks until something else than running them is to be done. */
static void run_blocks(struct vcpu *v, struct interp *c)
{
    c->limit = c->until;
    do {
        struct block *b = next_block(v, c);
        run_ops(v, vcpu_long64(v) ? block_enter(v, b) : block_enter_limited(v, b));
    } while (v->s.retired + BLOCK_OPS_MAX <= c->limit && !c->alone &&
             !atomic_load_explicit(&v->requests, memory_order_relaxed));
    c->link_from = NULL;
}

unsigned interp_run_cold(struct vcpu *v, unsigned times)
{
    struct interp *c = interp_of(v);
    uint32_t mode = v->mode;
    unsigned n = 0;
    do {
        struct block *b = next_block(v, c);
        if (b->runs >= times || (n && !b->runs))
            break;
        b->runs++;
        *block_heat(c, b->host) = b->runs;
        n++;
        c->limit = v->s.retired + b->count; /* none behind it is entered */
        run_ops(v, vcpu_long64(v) ? block_enter(v, b) : block_enter_limited(v, b));
    } while (v->mode == mode && v->s.retired + BLOCK_OPS_MAX <= c->until && !c->alone &&
             v->s.activity == ACTIVITY_RUN && !v->s.debug_pending && !v->internal_error &&
             !atomic_load_explicit(&v->requests, memory_order_relaxed));
    c->link_from = NULL;
    return n;
}

/* --- one instruction ------------------------------------------------------------------------------------ */

static void run_alone(struct vcpu *v, struct interp *c, struct block *b)
{
    c->limit = 0; /* whatever follows in the cache is not entered */
    c->block = b;
    c->rip0 = v->s.rip;
    c->retired0 = v->s.retired;
    v->s.retired += b->count;
    v->counters.blocks_executed++;
    run_ops(v, b->ops);
    c->link_from = NULL;
}

void interp_run_one(struct vcpu *v)
{
    struct interp *c = interp_of(v);
    bool step = v->mode & MODE_STEP, tf = v->s.rflags & FL_TF;
    uint64_t rf = v->s.rflags & FL_RF;
    v->store_code = c->alone; /* seen by cpu_debug_before(): executed again */
    c->alone = false;
    if (step)
        cpu_debug_before(v);
    struct block *b = block_find(v, v->mode | MODE_STEP);
    if (!vcpu_long64(v) && v->s.rip + b->bytes > (uint64_t)v->s.seg[SEG_CS].limit + 1)
        cpu_raise_gp0(v);
    v->s.shadow = 0;
    v->store_code = true;
    run_alone(v, c, b);
    v->store_code = false;
    if (c->repeating && rf)
        v->s.rflags |= rf; /* the instruction is not complete yet */
    c->repeating = false;
    if (step)
        cpu_debug_after(v, tf);
}

/* --- unwinding ------------------------------------------------------------------------------------------ */

/* The state as it was before the operation that was running, of which nothing is committed. */
static void retreat(struct vcpu *v, struct interp *c)
{
    const struct op *op = v->engine_op;
    if (op) {
        v->s.rip = (c->rip0 + op->off - op->len) & v->lin_mask;
        v->s.retired = c->retired0 + (uint64_t)(op - c->block->ops);
    }
    v->engine_op = NULL;
    v->store_code = false;
    c->link_from = NULL;
    c->repeating = false;
    unlock_world(v);
}

/* Counts a long row of faults as instructions. */
static void count_fault(struct vcpu_state *s)
{
    if (s->retired != s->fault_at)
        s->fault_row = 0;
    if (s->fault_row == FAULT_ROW_MAX)
        s->retired++;
    else
        s->fault_row++;
    s->fault_at = s->retired;
}

void interp_page_fault(struct vcpu *v, uint64_t addr, uint32_t error)
{
    cpu_note_page_fault(v, addr, error);
    count_fault(&v->s);
    cpu_deliver_exception(v);
}

void interp_unwound(struct vcpu *v, int why)
{
    struct interp *c = interp_of(v);
    retreat(v, c);
    c->alone = why == UNWIND_ALONE;
    if (why == UNWIND_EXCEPTION) {
        count_fault(&v->s);
        cpu_deliver_exception(v);
    } else if (why == UNWIND_SHUTDOWN)
        v->s.activity = ACTIVITY_SHUTDOWN;
}

/* --- the engine ----------------------------------------------------------------------------------------- */

/* Looks at everything that may end or interrupt the run; false: *cause is set. */
static bool may_go_on(struct vcpu *v, struct interp *c, enum exit_cause *cause)
{
    uint32_t req = atomic_load_explicit(&v->requests, memory_order_acquire);
    if (req & ~REQ_EVENT)
        *cause = EXIT_REQUEST;
    else if (v->s.activity == ACTIVITY_SHUTDOWN && !(req & REQ_EVENT))
        *cause = EXIT_SHUTDOWN;
    else if (v->s.retired >= c->until)
        *cause = EXIT_COUNT;
    else
        return true;
    return false;
}

static enum exit_cause why_idle(struct vcpu *v)
{
    switch (v->s.activity) {
    case ACTIVITY_SHUTDOWN: return EXIT_SHUTDOWN;
    case ACTIVITY_WAIT_SIPI: return EXIT_WAIT_SIPI;
    default: v->counters.exits_hlt++; return EXIT_HLT;
    }
}

bool interp_ready(struct vcpu *v, enum exit_cause *cause)
{
    struct interp *c = interp_of(v);
    while (may_go_on(v, c, cause)) {
        if (v->s.activity == ACTIVITY_RUN &&
            !(atomic_load_explicit(&v->requests, memory_order_relaxed) & REQ_EVENT))
            return true;
        cpu_take_events(v);
        if (v->s.activity != ACTIVITY_RUN) {
            *cause = why_idle(v);
            return false;
        }
    }
    return false;
}

static enum exit_cause run_loop(struct vcpu *v, struct interp *c)
{
    enum exit_cause cause;
    while (interp_ready(v, &cause)) {
        if (c->alone || c->trace || v->mode & MODE_STEP || c->until - v->s.retired < BLOCK_OPS_MAX) {
            if (c->trace)
                c->trace(c->trace_ctx, v);
            interp_run_one(v);
        } else {
            run_blocks(v, c);
        }
    }
    return cause;
}

void interp_begin(struct vcpu *v, uint64_t until_count)
{
    struct interp *c = interp_of(v);
    c->until = until_count;
    c->stack_floor = (uintptr_t)__builtin_frame_address(0) - STACK_ROOM;
    v->engine_op = NULL;
    fpu_enter(v);
}

static enum exit_cause interp_run(struct vcpu *v, uint64_t until_count)
{
    struct interp *c = interp_of(v);
    jmp_buf *outer = v->unwind, here;
    interp_begin(v, until_count);
    v->unwind = &here;
    int why = setjmp(here);
    if (why)
        interp_unwound(v, why);
    enum exit_cause cause = run_loop(v, c);
    v->unwind = outer;
    fpu_leave(v);
    return cause;
}

static int interp_vcpu_create(struct vcpu *v, const struct engine_config *cfg, struct error *e)
{
    (void)cfg;
    struct interp *c = calloc(1, sizeof(*c));
    if (!c)
        return error_set(e, -ENOMEM, "no memory for the interpreter");
    int err = block_cache_init(c, ARENA, e);
    if (err) {
        free(c);
        return err;
    }
    v->engine_data = c;
    return 0;
}

static void interp_vcpu_destroy(struct vcpu *v)
{
    struct interp *c = interp_of(v);
    if (!c)
        return;
    block_cache_free(c);
    free(c);
    v->engine_data = NULL;
}

/* The state is always in v->s between runs. */
static void interp_sync(struct vcpu *v, unsigned parts) { (void)v, (void)parts; }

static void interp_state_changed(struct vcpu *v)
{
    block_cache_flush(interp_of(v));
    interp_of(v)->alone = false;
}

/* Decoded code is found by the host address of its page: when that may no longer be read there, all is
 * forgotten. */
static void interp_drop_physical(struct vcpu *v, uint64_t first_page, uint64_t count, unsigned rights)
{
    mmu_drop_physical(&v->mmu, first_page, count, rights);
    if (rights & (RIGHT_READ | RIGHT_EXEC))
        block_cache_flush(interp_of(v));
}

void interp_set_trace(struct vcpu *v, void (*trace)(void *ctx, const struct vcpu *v), void *ctx)
{
    interp_of(v)->trace = trace;
    interp_of(v)->trace_ctx = ctx;
}

void interp_probe(struct engine_report *report);

const struct engine_ops interp_engine = {
    .name = "interp",
    .summary = "interpreter: complete simulation, runs on every host",
    .ignores_config = true,
    .probe = interp_probe,
    .vcpu_create = interp_vcpu_create,
    .vcpu_destroy = interp_vcpu_destroy,
    .run = interp_run,
    .sync = interp_sync,
    .state_changed = interp_state_changed,
    .drop_physical = interp_drop_physical,
};
