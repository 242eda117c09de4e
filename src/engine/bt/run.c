/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator's run loop.
 *
 *   ready? ──► unit for rip? ──yes──► enter its code ──► exit: why
 *                   │ no                                   ├─ bail: the interpreter does one instruction
 *                   ▼                                      ├─ link: look the target up, patch the jump
 *          cold: one block by the interpreter              └─ look, stale: look again
 *          warm: translate
 */
#include "engine/bt/verify.h"

#include <errno.h>
#include <stdio.h>

#include "engine/interp/operand.h"
#include "engine/interp/fpu.h"
#include "engine/interp/run.h"
#include "host/faults.h"
#include "host/memory.h"
#include "host/time.h"

/* A unit of user code is short and costs some twenty runs of the interpreter; one of a kernel is a superblock. */
#define WARM_USER 2
#define WARM_KERNEL 20
#define COLD_ARENA (4u << 20) /* decoded code that is not translated yet */

/* --- finding units ------------------------------------------------------------------------------------------- */

static struct bt_code fetch(struct bt *b, uint64_t lin)
{
    struct bt_code at = { .window = bt_window_of(bt_area(b->v)->context, lin) };
    at.host = interp_fetch(b->v, lin, &at.page, &at.addr);
    return at;
}

/* `second` NULL: on one page. */
static struct bt_unit *translate(struct bt *b, const struct bt_code *at, const struct bt_code *second,
                                 uint32_t key)
{
    for (bool full, again = true;; again = false) {
        struct bt_unit *u = second ? bt_translate_crossing(b, at, second, key, &full)
                                   : bt_translate(b, at, key, &(struct facts){ 0 }, &full);
        if (u || !full || !again)
            return u;
        bt_cache_make_room(b);
    }
}

/* The unit of an instruction that goes on on the next page. Found by where both pages are now: who maps the first may map
 * another one behind it. */
static struct bt_unit *find_crossing(struct bt *b, const uint8_t *host, uint64_t lin, uint32_t key)
{
    struct vcpu *v = b->v;
    uint64_t lin2 = ((lin | PAGE_OFFSET_MASK) + 1) & v->lin_mask;
    struct bt_window window = bt_window_of(bt_area(b->v)->context, lin),
                     window2 = bt_window_of(bt_area(b->v)->context, lin2);
    if (lin2 == 0 || window.low || window2.low || window2.high < INSN_MAX)
        return NULL; /* beyond the limit */
    const uint8_t *host2 = interp_fetch_host(v, lin2);
    if (!host2)
        return NULL;
    struct bt_unit *u = bt_cache_find_crossing(b, host, host2, key);
    if (u)
        return u;
    struct bt_code at = fetch(b, lin), second = fetch(b, lin2);
    return at.host && second.host ? translate(b, &at, &second, key) : NULL;
}

/* A new unit for the code at `lin`; NULL: it cannot be made. */
static struct bt_unit *make_unit(struct bt *b, uint64_t lin, uint32_t key)
{
    struct bt_code at = fetch(b, lin);
    return at.host ? translate(b, &at, NULL, key) : NULL;
}

/* The unit at CS:rip, or NULL: the interpreter's turn, unless it ran cold blocks. Raises what the fetch raises. */
static struct bt_unit *find_unit(struct bt *b, uint64_t lin, unsigned *cold_blocks)
{
    struct vcpu *v = b->v;
    b->n.lookups++;
    struct bt_window window = bt_window_of(bt_area(b->v)->context, lin);
    if (vcpu_long64(v) ? !is_canonical48(lin) : !window_has(window, lin))
        return NULL;
    const uint8_t *host = interp_fetch_host(v, lin);
    if (!host)
        return NULL;
    uint32_t key = bt_unit_key(b, host);
    struct bt_unit *u = bt_cache_find(b, host, key, window);
    if (!u) {
        b->n.lookup_misses++;
        unsigned times = bt_adapt_warm(b, host);
        *cold_blocks = times ? interp_run_cold(b->v, times) : 0;
        if (*cold_blocks)
            return NULL;
        u = make_unit(b, lin, key);
    }
    return u && u->crossing ? find_crossing(b, host, lin, key) : u;
}

/* --- running ----------------------------------------------------------------------------------------------------- */

typedef void (*enter_fn)(struct vcpu *v, const void *code, uint64_t lin);

static void count_exit(struct bt *b, enum bt_exit_kind kind)
{
    switch (kind) {
    case BT_BAIL: b->n.exits_bail++; break;
    case BT_LINK: b->n.exits_link++; break;
    case BT_STALE: b->n.exits_stale++; break;
    default: b->n.exits_look++; break;
    }
}

/* The version of a unit at v->s.rip for these facts; NULL: the cache is full. */
static struct bt_unit *version_for(struct bt *b, struct bt_unit *u, const struct facts *facts)
{
    bool room, full;
    struct bt_unit *best = bt_cache_find_version(b, u, facts, &room);
    if (!room)
        return best;
    struct bt_code at = fetch(b, fetch_linear(b->v));
    if (at.host != u->host)
        return best;
    struct bt_unit *made = bt_translate(b, &at, u->key, facts, &full);
    b->n.versions += made != NULL;
    if (!made && full) { /* may take everything that is known here */
        bt_cache_make_room(b);
        return NULL;
    }
    return made ? made : best;
}

/* `from` passes on what its successor could use: whoever jumps there should know. */
static void want_more(struct bt *b, const struct bt_unit *from, const struct facts *facts)
{
    struct bt_unit *u = bt_cache_find(b, from->host, from->key, from->window);
    if (!u || u->two || facts_within(facts, &u->wanted) || u->growths == GROWTHS)
        return;
    u->growths++;
    facts_add(&u->wanted, facts);
    bt_cache_unlink_to(b, u);
}

static void link_exit(struct bt *b, struct bt_area *a)
{
    struct bt_link *l = &b->links[a->exit_arg];
    if (!pass_on(b, ENGINE_PASS_CHAIN) || atomic_load_explicit(&b->v->requests, memory_order_relaxed))
        return;
    const struct bt_unit *from = l->from;
    if ((bt_unit_key(b, from->host) ^ l->key) & KEY_VIEW)
        return; /* the page is hot by now */
    struct bt_unit *to = bt_cache_find(b, from->host - ((uintptr_t)from->host & PAGE_OFFSET_MASK) + l->target,
                                       l->key, from->window);
    if (!to || atomic_load_explicit(from->live, memory_order_relaxed) != from->version)
        return;
    const struct facts passed = facts_about(&to->wanted, l->passes),
                       held = facts_both(&to->wanted, &l->facts);
    if (!facts_within(&passed, &l->facts))
        want_more(b, from, &passed);
    if (facts_any(&held))
        to = version_for(b, to, &held);
    if (to)
        bt_cache_link(b, l, to);
}

/* Runs translated code from v->s.rip until it comes back; state exact. */
static enum bt_exit_kind run_code(struct bt *b, const void *code, uint64_t lin)
{
    struct vcpu *v = b->v;
    struct bt_area *a = bt_area(v);
    bool counting = bt_area(b->v)->context->key & KEY_COUNT;
    if (counting)
        a->left = (int64_t)(b->interp.until - v->s.retired);
    v->s.shadow = 0;
    ((enter_fn)(uintptr_t)bt_exec(b, b->gate_enter))(v, code, lin);
    bt_x87_sync(v);
    enum bt_exit_kind kind = EXIT_KIND(a->exit);
    if (kind == BT_LEFT) {
        b->n.calls_left++;
        return kind;
    }
    bool elsewhere = kind == BT_STALE || kind == BT_LOOK_FAR;
    uint64_t lin_now = elsewhere ? a->exit_lin : a->page + EXIT_OFF(a->exit);
    v->s.rip = bt_rip(v, lin_now);
    if (counting) {
        v->s.retired = b->interp.until - (uint64_t)(a->left + EXIT_REST(a->exit));
        bt_account(b, a->context->key, v->s.retired, true);
    }
    if (unlikely(v->s.rflags & FL_RF)) /* left before the one instruction was done */
        vcpu_refresh_mode(v);
    if (a->exit & EXIT_SHADOW) {
        v->s.shadow = SHADOW_STI;
        vcpu_refresh_mode(v);
    }
    count_exit(b, kind);
    return kind;
}

/* The unit's count did not fit: up to the wanted count one by one. */
static void creep(struct vcpu *v)
{
    struct interp *c = interp_of(v);
    if (v->s.retired < c->until && c->until - v->s.retired <= UNIT_INSNS)
        interp_run_one(v);
}

/* The interpreter does the instruction. Where a check failed, that is a lesson, unless it faults. */
static void bail(struct bt *b)
{
    struct vcpu *v = b->v;
    bool failed = b->fill_failed, faulted = b->page_fault.due;
    b->fill_failed = b->page_fault.due = false;
    if (v->s.retired >= b->interp.until) {
        v->mmu.stats.true_faults -= faulted;
        return;
    }
    if (faulted) {
        b->n.faults_delivered++;
        interp_page_fault(v, b->page_fault.addr, b->page_fault.error);
        return;
    }
    const uint8_t *code = failed ? interp_fetch_host(v, fetch_linear(v)) : NULL;
    uint64_t walks = v->mmu.stats.walks;
    interp_run_one(v);
    if (code && v->mmu.stats.walks != walks)
        bt_adapt_failed(b, code);
}

/* A check that several accesses share lay across two pages, as the frame of a function may for as long as it runs: the unit that goes
 * on from there with checks of their own. NULL: the interpreter's turn. */
static const void *find_split(struct bt *b, uint64_t lin)
{
    uint64_t stamp = b->v->mmu.stamp;
    const uint8_t *host = interp_fetch_host(b->v, lin);
    if (!host || !bt_adapt_crossed(b, host))
        return NULL;
    uint32_t key = bt_unit_key(b, host) | (uint32_t)KEY_SPLIT;
    struct bt_window window = bt_window_of(bt_area(b->v)->context, lin);
    const void *code = bt_cache_entry(b, host, KEY_SPLIT, window);
    if (code)
        return code;
    struct bt_unit *u = bt_cache_find(b, host, key, window); /* it may be sealed */
    if (!u)
        u = make_unit(b, lin, key);
    bool useful = u && !u->crossing && u->insns && b->v->mmu.stamp == stamp;
    return useful ? bt_exec(b, u->entry_jump) : NULL;
}

/* Of them in a row: the frame goes on to lie there. */
#define SPLITS_MAX 64u

/* Goes on where such checks failed, as long as nothing else happens. */
static enum bt_exit_kind run_split(struct bt *b)
{
    enum bt_exit_kind kind = BT_BAIL;
    if (b->v->s.rflags & FL_RF) {
        b->fill_crossed = false;
        return kind;
    }
    uint64_t before = 1; /* where the last one began: what fails there again crosses by itself */
    for (unsigned i = 0; i < SPLITS_MAX && kind == BT_BAIL && b->fill_crossed; i++) {
        uint64_t lin = fetch_linear(b->v);
        const void *code = lin != before || i == 0 ? find_split(b, lin) : NULL;
        if (!code)
            break;
        before = lin;
        b->fill_failed = b->fill_crossed = false;
        b->n.splits++;
        kind = run_code(b, code, lin);
    }
    b->fill_crossed = false;
    return kind;
}

/* What the exit of a unit asks for. */
static void go_on(struct bt *b, enum bt_exit_kind kind)
{
    struct vcpu *v = b->v;
    switch (kind) {
    case BT_BAIL:
        bt_bails_note(b, bt_area(v)->exit);
        bail(b);
        break;
    case BT_VIEW:
        if (v->s.retired < b->interp.until) {
            interp_run_one(v);
            bt_view_fill(b);
        }
        break;
    case BT_LINK: link_exit(b, bt_area(v)); break;
    case BT_STALE: {
        unsigned slot = jump_slot(fetch_linear(v), bt_area(b->v)->context->key);
        bt_area(b->v)->context->jumps[slot].lin = jump_none(slot);
        break;
    }
    case BT_LOOK:
        bt_heat_look(b);
        bt_adapt_release(b);
        creep(v);
        break;
    default: break;
    }
}

static void run_from(struct bt *b, const void *code, uint64_t lin)
{
    enum bt_exit_kind kind = run_code(b, code, lin);
    go_on(b, b->fill_crossed ? run_split(b) : kind);
}

#define HEAT_TURNS 16u /* of the run loop until it looks how hot the guest's code is */

static void run_unit(struct bt *b, uint64_t lin)
{
    struct vcpu *v = b->v;
    if (++b->turns % HEAT_TURNS == 0)
        bt_heat_look(b);
    struct bt_jump *j = &bt_area(b->v)->context->jumps[jump_slot(lin, bt_area(b->v)->context->key)];
    if (j->lin != lin) {
        uint64_t stamp = v->mmu.stamp;
        unsigned cold_blocks = 0;
        struct bt_unit *u = find_unit(b, lin, &cold_blocks);
        b->n.cold_blocks += cold_blocks;
        if (!u) {
            if (!cold_blocks)
                interp_run_one(v);
            return;
        }
        struct bt_context *now = bt_area(v)->context; /* the cache may have been flushed meanwhile */
        bt_jump_put(now, lin, bt_exec(b, u->entry_jump));
        j = &now->jumps[jump_slot(lin, now->key)];
        if (v->mmu.stamp != stamp) /* code was claimed: the view may show more than may be written */
            return;
    }
    run_from(b, j->code, lin);
}

#define RESUMED_WARM 8u

/* The unit of an instruction that is executed with RF set, if that happens often. */
static struct bt_unit *find_once(struct bt *b, uint64_t lin)
{
    uint64_t stamp = b->v->mmu.stamp;
    struct bt_window window = bt_window_of(bt_area(b->v)->context, lin);
    const uint8_t *host = window_has(window, lin) ? bt_code_at(&b->v->mmu, lin) : NULL;
    if (!host)
        return NULL;
    uint32_t key = bt_unit_key(b, host) | (uint32_t)KEY_ONCE;
    struct bt_unit *u = bt_cache_find(b, host, key, window);
    struct bt_lesson *l = &b->lessons[bt_lesson_slot(host)];
    if (!u && !bt_all_translated(b) && l->resumed < RESUMED_WARM) {
        l->resumed++;
        return NULL;
    }
    if (!u)
        u = make_unit(b, lin, key);
    return u && u->insns && b->v->mmu.stamp == stamp ? u : NULL;
}

/* An instruction that faulted before, stepped only to clear RF behind it. False: the interpreter's turn. */
static bool run_once(struct bt *b)
{
    struct vcpu *v = b->v;
    uint64_t lin = fetch_linear(v);
    v->mode &= ~MODE_STEP;
    bt_context_now(b);
    struct bt_unit *u = find_once(b, lin);
    if (!u) {
        v->mode |= MODE_STEP;
        return false;
    }
    run_from(b, bt_exec(b, u->entry_jump), lin);
    return true;
}

/* The interpreter does one instruction, or what needs no look at each. */
static void step(struct bt *b)
{
    struct vcpu *v = b->v;
    struct interp *c = &b->interp;
    if (c->trace)
        c->trace(c->trace_ctx, v);
    else if (bt_is_resuming(v) && !c->alone && c->until - v->s.retired >= BLOCK_OPS_MAX &&
             pass_on(b, ENGINE_PASS_SYSTEM) && run_once(b))
        return;
    interp_run_one(v);
}

static enum exit_cause run_loop(struct vcpu *v, struct bt *b)
{
    struct interp *c = &b->interp;
    enum exit_cause cause;
    while (interp_ready(v, &cause)) {
        if (c->alone || c->trace || !bt_mode_possible(v) || c->until - v->s.retired < BLOCK_OPS_MAX) {
            step(b);
        } else {
            bt_context_now(b);
            run_unit(b, fetch_linear(v));
        }
        if (unlikely(v->internal_error))
            return EXIT_INTERNAL;
        if (c->until != UINT64_MAX)
            bt_account(b, v->mode, v->s.retired, false); /* the interpreter's */
    }
    return cause;
}

static enum exit_cause bt_run(struct vcpu *v, uint64_t until_count)
{
    struct bt *b = bt_of(v);
    jmp_buf *outer = v->unwind, here;
    if (b->cfg.count && until_count == UINT64_MAX)
        until_count = INT64_MAX; /* never reached, but counted for */
    interp_begin(v, until_count);
    b->accounted = v->s.retired;
    v->unwind = &here;
    bt_views_enter(b);
    int why = setjmp(here);
    if (why)
        interp_unwound(v, why);
    enum exit_cause cause = run_loop(v, b);
    if (cause == EXIT_HLT)
        bt_cache_idle(b);
    v->unwind = outer;
    fpu_leave(v);
    return cause;
}

/* --- host faults at instructions that were copied ----------------------------------------------------------------- */

/* Signal handler's part: the exit for a fault, or 0. */
static uintptr_t fault_exit(void *ctx, const struct host_fault *f)
{
    struct bt *b = ctx;
    struct bt_area *a = bt_area(b->v);
    uint32_t at = (uint32_t)(f->pc - (uintptr_t)b->code.exec), low, high;
    bt_cache_sites(b, at, &low, &high);
    uint32_t end = high;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (b->sites[mid].at < at)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == end || b->sites[low].at != at)
        return 0;
    b->n.host_faults++;
    a->fault_addr = f->addr;
    a->fault_write = f->write;
    return (uintptr_t)bt_exec(b, b->sites[low].exit);
}

/* --- the engine -------------------------------------------------------------------------------------------------- */

static void bt_free(struct bt *b)
{
    bt_trace_close(b);
    bt_bails_close(b);
    bt_verify_free(b);
    bt_views_free(b);
    host_faults_forget(b->code.exec);
    bt_cache_free(b);
    block_cache_free(&b->interp);
    host_pages_free(b, sizeof(*b));
}

static int bt_vcpu_create(struct vcpu *v, const struct engine_config *cfg, struct error *e)
{
    struct bt *b = host_pages_alloc(sizeof(*b));
    if (!b)
        return error_set(e, -ENOMEM, "no memory for the translator");
    b->v = v;
    b->began = __builtin_ia32_rdtsc();
    b->began_ns = host_monotonic_ns();
    if (cfg)
        b->cfg = *cfg;
    b->predicts_returns = bt_returns_possible(b);
    b->interp.no_lanes = !pass_on(b, ENGINE_PASS_VIEW);
    b->warm[true] = (uint8_t)(b->cfg.warm ? b->cfg.warm - 1 : WARM_USER);
    b->warm[false] = (uint8_t)(b->cfg.warm ? b->cfg.warm - 1 : WARM_KERNEL);
    int err = block_cache_init(&b->interp, COLD_ARENA, e);
    if (!err)
        err = bt_cache_init(b, e);
    if (!err) {
        bt_gates_emit(b);
        err = bt_verify_init(b, e);
    }
    if (!err) {
        bt_trace_open(b);
        err = host_faults_catch(b->code.exec, b->code.size, fault_exit, b, e);
    }
    if (err) {
        bt_free(b);
        return err;
    }
    bt_bails_open(b);
    v->engine_data = &b->interp;
    bt_area(v)->bt = b;
    bt_area(v)->found = b->found;
    bt_area(v)->spot_credit = SPOT_SAMPLE;
    bt_views_init(b);
    return 0;
}

static void bt_vcpu_destroy(struct vcpu *v)
{
    if (!v->engine_data)
        return;
    bt_free(bt_of(v));
    v->engine_data = NULL;
}

static void bt_sync(struct vcpu *v, unsigned parts) { (void)v, (void)parts; }

static void bt_state_changed(struct vcpu *v)
{
    block_cache_flush(interp_of(v));
    interp_of(v)->alone = false;
    bt_cache_flush(bt_of(v), &bt_of(v)->n.flushes_state);
}

static void bt_drop_physical(struct vcpu *v, uint64_t first_page, uint64_t count, unsigned rights)
{
    mmu_drop_physical(&v->mmu, first_page, count, rights);
    if (rights & (RIGHT_READ | RIGHT_EXEC)) {
        block_cache_flush(interp_of(v));
        bt_cache_flush(bt_of(v), &bt_of(v)->n.flushes_memory);
    }
}

static void bt_code_changed(struct vcpu *v, uint64_t page)
{
    const struct page *pg = pmap_page(v->pmap, GPA(page << PAGE_SHIFT));
    if (pg && pg->host)
        bt_cache_seal_page(bt_of(v), pg->host);
}

static uint64_t translate_ns(const struct bt *b)
{
    double ns = (double)(host_monotonic_ns() - b->began_ns),
           counts = (double)(__builtin_ia32_rdtsc() - b->began);
    return (uint64_t)((double)b->translating * ns / counts);
}

static void bt_stats(const struct vcpu *v, void (*put)(void *ctx, const char *name, uint64_t value),
                     void *ctx)
{
    const struct bt *b = bt_of((struct vcpu *)(uintptr_t)v);
    struct bt_counters n = b->n;
    n.translate_ns = translate_ns(b);
    n.lookups += bt_area(b->v)->found_here;
    n.jumps_found += bt_area(b->v)->found_here;
#define X(name) put(ctx, #name, n.name);
    BT_COUNTERS(X)
#undef X
}

static void bt_probe(struct engine_report *report)
{
    struct error e = { 0 };
    struct host_code code;
    *report = (struct engine_report){ 0 };
    if (host_code_map(&code, 1u << 16, &e)) {
        snprintf(report->why, sizeof(report->why), "%.150s", e.text);
        return;
    }
    host_code_unmap(&code);
    report->usable = true;
    snprintf(report->why, sizeof(report->why), "this host lets a process make code");
}

const struct engine_ops bt_engine = {
    .name = "bt",
    .summary = "binary translator: guest code copied into host code",
    .vcpu_room = sizeof(struct bt_area),
    .probe = bt_probe,
    .vcpu_create = bt_vcpu_create,
    .vcpu_destroy = bt_vcpu_destroy,
    .run = bt_run,
    .sync = bt_sync,
    .state_changed = bt_state_changed,
    .drop_physical = bt_drop_physical,
    .code_changed = bt_code_changed,
    .stats = bt_stats,
};
