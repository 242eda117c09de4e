/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops: a unit whose jump goes back to its own start gets its body again, where more is known.
 *
 *   first body ──jcc──► loop: requests?  set-up ──► strip: body without checks, so many times ──┐
 *                        ▲ ▲               │ fails                  ▲   └── next: one less ◄────┘ jcc
 *                        │ └── none left ──│────────────────────────┴── none left
 *                        └────── jcc ── body with checks
 *
 * The flags at the start are those of the jump: by its recipe (state R), else saved on the way (state S). When the body
 * defines them anew before anybody looks, and nothing is counted, they are dropped (state E, any value); a request then sends
 * the loop through the first body, whose jump back saves and leaves. An address that moves by a constant each time round, or not at all,
 * is checked once for as many rounds as stay on its page: the strip. Set-up only looks translations up; it fills none, since
 * it is too early for accesses that may not come. When one is missing the body with checks runs for a while.
 */
#include "engine/bt/unit.h"

#define STRIDE_MAX 512
#define STRIP_MIN 7        /* rounds, less one, for which the set-up pays */
#define SKIP_ROUNDS 12     /* with checks, after a set-up that failed */
#define STRIP_ENDLESS 1023 /* nothing moves: look for requests now and then */

static uint32_t here(const struct translation *t) { return (uint32_t)(t->e.at - t->b->code.write); }

static unsigned log2_up(int64_t n)
{
    unsigned k = 0;
    while ((int64_t)1 << k < n)
        k++;
    return k;
}

/* --- jumps back --------------------------------------------------------------------------------------------- */

static unsigned rest_after(const struct translation *t) { return t->unit->insns - t->index - 1u; }

static void jump_back(struct translation *t, const struct planned *p, uint64_t target)
{
    uint8_t *from = conditional_emit(t, p, target ? target : emit_exec(&t->e));
    if (target && t->loop_state != FLAGS_S && !(counting(t) && rest_after(t)))
        return;
    struct stub *s = stub_new(t, STUB_LOOP, from);
    s->retry = target;
    s->rest = (uint16_t)rest_after(t);
}

bool loop_back(struct translation *t, const struct planned *p)
{
    if (!pass_on(t->b, ENGINE_PASS_CHAIN))
        return false;
    if (t->has_loop && t->loop_state == FLAGS_R && !recipe_equal(&t->recipe, &t->loop_recipe))
        return false;
    if (t->loop_at) {
        uint32_t to = t->strip && t->index == (unsigned)t->plan.back ? t->strip_next : t->loop_at;
        jump_back(t, p, bt_exec_addr(t->b, to));
        return true;
    }
    if (!t->has_loop) {
        bool recipe = recipe_holds_from(&t->plan, &t->recipe, 0);
        t->loop_state = recipe ? FLAGS_R : t->flags_dead && !counting(t) ? FLAGS_E : FLAGS_S;
        t->loop_recipe = recipe ? t->recipe : (struct recipe){ .kind = RECIPE_NONE };
    }
    /* What every way to the loop has made sure of. */
    if (!t->has_loop || t->simd_ready < t->loop_simd)
        t->loop_simd = t->simd_ready;
    t->loop_x87 = t->x87_ready && (!t->has_loop || t->loop_x87);
    t->loop_spots = t->spots_fresh && (!t->has_loop || t->loop_spots);
    t->has_loop = true;
    jump_back(t, p, 0);
    return true;
}

/* --- what can be checked once for a strip --------------------------------------------------------------------- */

static bool stride_of(const struct unit_plan *p, const struct group *g, int64_t *stride)
{
    *stride = 0;
    if (seg_checked(p, g->seg))
        return false; /* limits are looked at each time */
    if (g->base >= SYMBOLS_FIXED || g->index >= SYMBOLS_FIXED)
        return false;
    if (g->base && g->base <= 16) {
        if (!(p->steady >> (g->base - 1) & 1))
            return false;
        *stride += p->stride[g->base - 1];
    }
    if (g->index) {
        if (!(p->steady >> (g->index - 1) & 1))
            return false;
        *stride += p->stride[g->index - 1] * (int64_t)(1u << g->scale);
    }
    return *stride >= -STRIDE_MAX && *stride <= STRIDE_MAX && g->low == (int32_t)g->low;
}

/* What is called may change translations that were checked before the loop. */
static bool calls_out(const struct unit_plan *p)
{
    for (int i = 0; i <= p->back; i++)
        if (p->insns[i].how == HOW_INLINE || p->insns[i].how == HOW_LOAD_SEG ||
            p->insns[i].how == HOW_CALL_OUT || p->insns[i].how == HOW_STRING)
            return true;
    return false;
}

static bool used_by(const struct access *a, unsigned group) { return a->used && a->group == (int)group; }

/* Does the loop itself use it, or only what follows? */
static bool in_loop(const struct unit_plan *p, unsigned group)
{
    for (int i = 0; i <= p->back; i++)
        if (used_by(&p->insns[i].mem, group) || used_by(&p->insns[i].stack, group))
            return true;
    return false;
}

static bool choose_hoisted(struct unit_plan *p)
{
    bool any = false;
    if (p->back < 0 || calls_out(p))
        return false;
    for (unsigned i = 0; i < p->ngroups; i++) {
        struct group *g = &p->groups[i];
        g->hoisted = in_loop(p, i) && stride_of(p, g, &g->stride);
        any |= g->hoisted;
    }
    return any;
}

/* Is T2 left alone by the strip's body? Then it counts the rounds. */
static bool counter_in_register(const struct unit_plan *p)
{
    bool defined = false;
    for (int i = 0; i <= p->back; i++) {
        const struct planned *x = &p->insns[i];
        enum flag_use use = flag_use(x);
        if (x->how != HOW_COPY && x->how != HOW_SIMD && x->how != HOW_NOP && x->how != HOW_LEA &&
            x->how != HOW_JCC)
            return false;
        if ((x->fx.gpr_read | x->fx.gpr_written) & 0xf000 ||
            (x->how != HOW_JCC && use == FLAGS_NEEDED && !defined))
            return false;
        if (x->mem.used && (x->mem.group == NO_GROUP || !p->groups[x->mem.group].hoisted))
            return false;
        defined |= x->how == HOW_COPY && use == FLAGS_DEFINED;
    }
    return defined;
}

/* Do all addresses of the strip's body need no T0? */
static bool spares_t0(const struct unit_plan *p)
{
    for (int i = 0; i <= p->back; i++) {
        const struct planned *x = &p->insns[i];
        const struct mem_operand *m = &x->in.mem;
        if (!x->mem.used && x->how != HOW_LEA)
            continue;
        if (m->base >= 16 || m->index != MEM_NO_REG || m->disp != (int16_t)m->disp || x->in.addrsize != 8 ||
            (x->how != HOW_LEA && m->seg >= SEG_FS))
            return false;
    }
    return true;
}

static unsigned uses_of(const struct unit_plan *p, unsigned group)
{
    unsigned n = 0;
    for (int i = 0; i <= p->back; i++)
        n += used_by(&p->insns[i].mem, group);
    return n;
}

/* Distances that stay in registers for a whole strip: that of the group with most accesses in T0; T1 is for the others, or for
 * good another's when there is only one. The body touches neither otherwise. */
static void keep_distances(struct translation *t)
{
    const struct unit_plan *p = &t->plan;
    unsigned hoisted = 0, most = 0;
    if (!spares_t0(p))
        return;
    for (unsigned i = 0; i < p->ngroups; i++) {
        hoisted += p->groups[i].hoisted;
        if (p->groups[i].hoisted && uses_of(p, i) > most) {
            most = uses_of(p, i);
            t->kept_group = (int)i;
        }
    }
    if (t->kept_group == NO_GROUP)
        return;
    emit_load(&t->e, T0, group_slot(t->kept_group));
    for (unsigned i = 0; i < p->ngroups && hoisted == 2; i++)
        if (p->groups[i].hoisted && (int)i != t->kept_group) {
            emit_load(&t->e, T1, group_slot((int)i));
            t->lasting_group = (int)i;
        }
}

/* --- set-up ------------------------------------------------------------------------------------------------------ */

/* T2 = how many rounds more the group's range stays on its page. */
static void rounds_emit(struct translation *t, const struct group *g, struct amode low)
{
    struct emitter *e = &t->e;
    unsigned span = (unsigned)(g->high - g->low);
    emit_lea32(e, T2, low);
    if (g->stride > 0)
        emit_reg(e, 0, 0xf7, 2, T2); /* not */
    emit_alu_imm(e, 4, T2, (int32_t)PAGE_OFFSET_MASK, false);
    if (g->stride > 0 && span > 1)
        emit_alu_imm(e, 5, T2, (int32_t)span - 1, false);
    emit_reg(e, 0, 0xc1, 5, T2); /* shr */
    emit_byte(e, log2_up(g->stride < 0 ? -g->stride : g->stride));
}

static void group_emit(struct translation *t, unsigned i, bool *limited)
{
    struct emitter *e = &t->e;
    const struct group *g = &t->plan.groups[i];
    struct mem_operand m = {
        .seg = g->seg,
        .base = g->base == SYMBOL_RIP ? MEM_RIP
                : g->base             ? (uint8_t)(g->base - 1)
                                      : MEM_NO_REG,
        .index = g->index ? (uint8_t)(g->index - 1) : MEM_NO_REG,
        .scale = g->scale,
        .disp = g->low,
    };
    struct insn in = { .addrsize = t->plan.code_bytes };
    struct amode low = ea_emit(t, &in, &m, 0);
    uint8_t *fail = probe_emit(t, low, (unsigned)(g->high - g->low), g->write);
    stub_new(t, STUB_STRIP, fail);
    emit_store(e, group_slot((int)i), T1);
    if (!g->stride)
        return;
    rounds_emit(t, g, low);
    if (*limited) { /* the least of all */
        emit_load32(e, T1, AT_AREA(strip));
        emit_reg(e, 0, 0x3b, T2, T1);
        emit_reg(e, ENC_0F, 0x47, T2, T1); /* cmova */
    }
    emit_store32(e, AT_AREA(strip), T2);
    *limited = true;
}

static void setup_emit(struct translation *t, bool in_register)
{
    struct emitter *e = &t->e;
    bool limited = false;
    emit_mem(e, 0, 0x83, 5, AT_AREA(strip_skip)); /* sub dword [skip], 1; jns: with checks */
    emit_byte(e, 1);
    t->to_checked = emit_jcc(e, 9, emit_exec(e));
    for (unsigned i = 0; i < t->plan.ngroups; i++)
        if (t->plan.groups[i].hoisted)
            group_emit(t, i, &limited);
    if (!limited) {
        emit_mem(e, 0, 0xc7, 0, AT_AREA(strip));
        emit_imm(e, STRIP_ENDLESS, 4);
    } else {
        emit_mem(e, 0, 0x83, 7, AT_AREA(strip)); /* cmp dword [strip], min; jb */
        emit_byte(e, STRIP_MIN);
        stub_new(t, STUB_STRIP, emit_jcc(e, 2, emit_exec(e)));
    }
    if (in_register)
        emit_load32(e, T2, AT_AREA(strip));
}

/* --- the copies ---------------------------------------------------------------------------------------------------- */

static void begin_copy(struct translation *t)
{
    t->state = t->loop_state;
    t->recipe = t->loop_recipe;
    t->recipe_of = UNIT_INSNS;
    t->simd_ready = t->loop_simd;
    t->x87_ready = t->loop_x87;
    t->spots_fresh = t->loop_spots;
    t->delta_group = NO_GROUP;
    t->index = 0;
}

static void strip_emit(struct translation *t)
{
    struct emitter *e = &t->e;
    /* Saving the flags on the way back takes T2. */
    bool in_register = counter_in_register(&t->plan) && !counting(t) && t->loop_state != FLAGS_S;
    setup_emit(t, in_register);
    t->kept_group = t->lasting_group = NO_GROUP;
    if (in_register)
        keep_distances(t);
    uint8_t *over = emit_jmp(e, emit_exec(e));
    t->strip_next = here(t);
    if (in_register) {
        emit_alu_imm(e, 5, T2, 1, false);
    } else {
        emit_mem(e, 0, 0x83, 5, AT_AREA(strip));
        emit_byte(e, 1);
    }
    emit_jcc(e, 8, bt_exec_addr(t->b, t->loop_at)); /* js */
    emit_patch(e, over, emit_exec(e));
    begin_copy(t);
    t->delta_group = t->lasting_group;
    count_emit(t);
    t->strip = true;
    body_emit(t, (unsigned)t->plan.back);
    t->strip = false;
}

void loop_emit(struct translation *t)
{
    if (!t->has_loop)
        return;
    begin_copy(t);
    t->loop_at = here(t);
    if (t->loop_state == FLAGS_E) {
        emit_mem(&t->e, 0, 0x83, 7, AT_VCPU(requests)); /* cmp dword [requests], 0; jne */
        emit_byte(&t->e, 0);
        emit_jcc(&t->e, 5, bt_exec_addr(t->b, t->body_at));
    } else {
        poll_emit(t);
        t->stubs[t->nstubs - 1].info = EXIT_INFO(BT_LOOK, t->plan.start, 0);
    }
    t->polled = true;
    if (pass_on(t->b, ENGINE_PASS_STRIP) && choose_hoisted(&t->plan))
        strip_emit(t);
    t->checked_at = here(t);
    if (t->to_checked)
        emit_patch(&t->e, t->to_checked, bt_exec_addr(t->b, t->checked_at));
    begin_copy(t);
    count_emit(t);
    body_emit(t, t->plan.count - 1);
}

void strip_stub(struct translation *t)
{
    emit_mem(&t->e, 0, 0xc7, 0, AT_AREA(strip_skip));
    emit_imm(&t->e, SKIP_ROUNDS, 4);
    emit_jmp(&t->e, bt_exec_addr(t->b, t->checked_at));
}
