/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a plan to host code: entries, body, stubs.
 *
 *   first thing that matters for flags   entries
 *   they are written                     JUMP: page; S: poll;           E: body
 *   they are needed                      JUMP: page; S: poll, restore;  E: body
 *   they get lost (a check)              E: save; S: poll; body (state S)           JUMP: page, to S
 *   instructions are counted             JUMP: page; S: poll, count, perhaps restore; body      E: save, to S
 */
#include "engine/bt/unit.h"
#include "engine/bt/verify.h"

#define CODE_MAX (32u << 10) /* of one unit, and as much of stubs: bt_cache_room() sees to it */

enum first_event { FIRST_DEFINED, FIRST_NEEDED, FIRST_LOST };

static bool can_fault_unchecked(const struct planned *p)
{
    return p->in.id == INSN_DIV || p->in.id == INSN_IDIV;
}

static bool loses_flags(const struct translation *t, const struct planned *x)
{
    if ((x->mem.used && !x->mem.view) || (x->stack.used && !x->stack.view))
        return true;
    switch (x->how) {
    case HOW_SIMD: return vector_level(&x->in) > t->simd_ready;
    case HOW_X87:
    case HOW_CLD:
    case HOW_RET:
    case HOW_CALL_IND:
    case HOW_JMP_IND:
    case HOW_PUSHF:
    case HOW_CALL_OUT:
    case HOW_STRING:
    case HOW_LOAD_SEG:
    case HOW_SWITCH:
    case HOW_TURN:
    case HOW_INLINE: return true;
    default: return false;
    }
}

static enum first_event first_event(const struct translation *t, const struct unit_plan *p)
{
    if (p->crossing || p->insns[0].how == HOW_BAIL)
        return FIRST_LOST;
    for (unsigned i = 0; i < p->count; i++) {
        const struct planned *x = &p->insns[i];
        if (x->how == HOW_BAIL || is_conditional(x->how))
            return FIRST_NEEDED;
        if (loses_flags(t, x))
            return FIRST_LOST;
        if (x->mem.used || x->stack.used) /* by the view: a fault shows them */
            return FIRST_NEEDED;
        if (x->how == HOW_JMP)
            return jump_stays(p, x) ? FIRST_NEEDED : FIRST_LOST;
        enum flag_use use = x->how == HOW_COPY ? flag_use(x) : FLAGS_UNUSED;
        if (use == FLAGS_NEEDED || can_fault_unchecked(x))
            return FIRST_NEEDED;
        if (use == FLAGS_DEFINED)
            return FIRST_DEFINED;
    }
    return in_window(p, p->insns[p->count - 1].end) ? FIRST_NEEDED : FIRST_LOST;
}

/* Some jump of the unit goes backward on its page: it may be a loop that no entry in state S interrupts. */
static bool may_loop(const struct unit_plan *p)
{
    for (unsigned i = 0; i < p->count; i++) {
        const struct planned *x = &p->insns[i];
        bool direct = is_conditional(x->how) || x->how == HOW_JMP || x->how == HOW_CALL;
        if (direct && jump_stays(p, x) && jump_target(x) <= x->off)
            return true;
    }
    return false;
}

/* --- entries ----------------------------------------------------------------------------------------------- */

static uint32_t here(const struct translation *t) { return (uint32_t)(t->e.at - t->b->code.write); }

/* T0 is the unit's linear address. */
void bt_entry_emit(struct emitter *e)
{
    emit_alu_imm(e, 4, T0, -(int32_t)PAGE_SIZE, true);
    emit_store(e, AT_AREA(page), T0);
}

static void set_page(struct translation *t)
{
    t->unit->entry_jump = here(t);
    bt_entry_emit(&t->e);
    if (!(t->key & KEY_FLAT_CS)) {
        emit_mem(&t->e, 0, 0x2b, T0, segment_base(SEG_CS));
        emit_store(&t->e, AT_AREA(ip_page), T0);
    }
}

void count_emit(struct translation *t)
{
    if (!counting(t))
        return;
    emit_mem(&t->e, ENC_W, 0x81, 5, AT_AREA(left)); /* sub qword [left], insns */
    emit_imm(&t->e, t->unit->insns, 4);
    struct stub *s = stub_new(t, STUB_COUNT, emit_jcc(&t->e, 8, emit_exec(&t->e)));
    s->info = EXIT_INFO(BT_LOOK, t->plan.start, 0);
}

static void entry_poll(struct translation *t)
{
    t->state = FLAGS_S;
    t->unit->entry_s = here(t);
    poll_emit(t);
    struct stub *s = &t->stubs[t->nstubs - 1];
    s->info = EXIT_INFO(BT_LOOK, t->plan.start, 0);
    count_emit(t);
}

/* Out of line: the entry that is not the common one. */
static void late_entry(struct translation *t, enum first_event first)
{
    if (counting(t)) {
        t->unit->entry_e = here(t);
        t->state = FLAGS_E;
        flags_to_s(t);
        emit_jmp(&t->e, bt_exec_addr(t->b, t->unit->entry_s));
    } else if (first == FIRST_LOST) {
        set_page(t);
        emit_jmp(&t->e, bt_exec_addr(t->b, t->unit->entry_s));
    }
}

static void entries_emit(struct translation *t, enum first_event first)
{
    t->index = 0;
    if (first == FIRST_LOST && !counting(t)) {
        t->unit->entry_e = here(t);
        t->state = FLAGS_E;
        flags_to_s(t);
        entry_poll(t);
        return;
    }
    set_page(t);
    entry_poll(t);
    t->polled = counting(t) || !may_loop(&t->plan);
    if (first == FIRST_NEEDED)
        flags_to_e(t);
    if (!counting(t))
        t->unit->entry_e = here(t);
    if (first != FIRST_LOST)
        t->state = FLAGS_E; /* FIRST_DEFINED: whatever they are, nobody sees them */
}

/* --- body ---------------------------------------------------------------------------------------------------- */

/* In front of an instruction that defines all flags, a loop without any check can look for requests for free. */
static void poll_before_definition(struct translation *t, struct planned *p)
{
    if (t->polled || by_view(t) || p->how != HOW_COPY || p->mem.used || flag_use(p) != FLAGS_DEFINED ||
        can_fault_unchecked(p))
        return;
    emit_mem(&t->e, 0, 0x83, 7, AT_VCPU(requests));
    emit_byte(&t->e, 0);
    struct stub *s = stub_new(t, STUB_UNLINK, emit_jcc(&t->e, 5, emit_exec(&t->e)));
    s->retry = emit_exec(&t->e);
    t->delta_group = NO_GROUP; /* the stub uses T1 */
    t->polled = true;
}

static void insn_emit(struct translation *t, struct planned *p)
{
    x87_before(t, p);
    switch (p->how) {
    case HOW_BAIL: {
        struct stub *s = stub_new(t, STUB_EXIT, emit_jmp(&t->e, emit_exec(&t->e)));
        s->info = exit_at(t, BT_BAIL, t->index);
        break;
    }
    case HOW_NOP: break;
    case HOW_COPY:
        poll_before_definition(t, p);
        copy_emit(t, p);
        break;
    case HOW_SIMD: copy_emit(t, p); break;
    case HOW_X87: x87_emit(t, p); break;
    case HOW_LEA: lea_emit(t, p); break;
    case HOW_MOFFS: moffs_emit(t, p); break;
    case HOW_CLD:
        flags_away(t);
        emit_mem(&t->e, 0, 0x81, 4, AT_VCPU(s.rflags));
        emit_imm(&t->e, ~FL_DF, 4);
        break;
    case HOW_CALL_OUT: call_out_emit(t, p); break;
    case HOW_STRING: string_emit(t, p); break;
    case HOW_INLINE: inline_emit(t, p); break;
    case HOW_SWITCH: switch_emit(t, p); break;
    case HOW_TURN: turn_emit(t, p); break;
    case HOW_BITS: bits_emit(t, p); break;
    default: branch_emit(t, p); break;
    }
}

static bool goes_on(const struct planned *last)
{
    switch (last->how) {
    case HOW_BAIL:
    case HOW_SWITCH:
    case HOW_TURN:
    case HOW_JMP:
    case HOW_CALL:
    case HOW_RET:
    case HOW_JMP_IND:
    case HOW_CALL_IND: return false;
    default: return true;
    }
}

void body_emit(struct translation *t, unsigned last)
{
    struct unit_plan *p = &t->plan;
    if (p->crossing) { /* its unit is another one in each address space */
        far_jump_emit(t, p->start, FALL_THROUGH, 0, EXIT_INFO(BT_LOOK_FAR, 0, 0));
        return;
    }
    for (t->index = 0; t->index <= last; t->index++) {
        t->plan.insns[t->index].host_at = here(t);
        insn_emit(t, &p->insns[t->index]);
        flags_follow(t, &p->insns[t->index]);
    }
    t->index = last;
    if (t->key & KEY_ONCE && p->insns[last].how != HOW_BAIL)
        resumed_emit(t);
    x87_flush(t, &t->x87);
    if (goes_on(&p->insns[last]))
        fall_through_emit(t, p->insns[last].end, t->unit->insns - 1u - last);
}

static void count_insns(struct bt *b, const struct unit_plan *p)
{
    for (unsigned i = 0; i < p->count; i++)
        if (p->insns[i].how == HOW_BAIL)
            b->n.bailed_insns++;
        else if (p->insns[i].how == HOW_CALL_OUT)
            b->n.called_insns++;
        else
            b->n.copied_insns++;
}

/* Claims the bytes for decoding and makes the plan; false: nothing for a unit. */
static bool plan_unit(struct translation *t, const struct bt_code *at, const struct bt_code *second,
                      struct bt_unit *u)
{
    struct pmap *pm = t->b->v->pmap;
    u->live = &at->page->code_version;
    if (!second) {
        u->version = unit_form(&t->plan, t->b, at, t->key);
        u->crossing = t->plan.crossing;
        return true;
    }
    uint8_t bytes[INSN_MAX];
    unsigned part = PAGE_SIZE - (at->addr.v & PAGE_OFFSET_MASK);
    u->key |= (uint32_t)KEY_CROSSING;
    u->version = pmap_claim_code(pm, at->addr, part);
    u->version2 = pmap_claim_code(pm, second->addr, INSN_MAX - part);
    u->two = true;
    u->live2 = &second->page->code_version;
    u->host2 = second->host;
    memcpy(bytes, at->host, part);
    memcpy(bytes + part, second->host, INSN_MAX - part);
    return unit_form_crossing(&t->plan, t->b, bytes, at->addr, t->key);
}

static void count_unit(struct bt *b, const struct bt_unit *u, const struct unit_plan *p)
{
    b->n.units++;
    b->n.guest_bytes += u->guest_bytes;
    b->n.host_bytes += (uint32_t)(u->code_bytes + u->stub_bytes);
    b->n.guest_insns += p->count;
    count_insns(b, p);
}

/* Its bytes, as they were decoded, are kept: to be compared when the page was written. Those of an instruction left to the
 * interpreter count: another one might not be. */
static void hold_bytes(struct bt *b, struct bt_unit *u, const struct unit_plan *p)
{
    unsigned end = p->start + u->guest_bytes, more = p->count > u->insns ? INSN_MAX : 0;
    if (more > u->window.high - end)
        more = u->window.high - end;
    u->held = b->nheld;
    u->held_bytes = (uint16_t)(u->guest_bytes + more);
    b->nheld += u->held_bytes;
}

static void stubs_apart(struct translation *t)
{
    struct emitter body = t->e;
    t->host_stubs = t->b->used_stubs;
    t->e = bt_emitter(t->b, t->b->used_stubs, t->b->used_stubs + CODE_MAX);
    stubs_emit(t);
    t->unit->stub_bytes = (uint16_t)(here(t) - t->host_stubs);
    t->b->used_stubs = here(t);
    body.full |= t->e.full;
    t->e = body;
}

static struct bt_unit *make(struct bt *b, const struct bt_code *at, const struct bt_code *second,
                            uint32_t key, const struct facts *facts, bool *full)
{
    struct translation *t = b->scratch;
    uint64_t began = __builtin_ia32_rdtsc();
    *full = !bt_cache_room(b, CODE_MAX);
    if (*full)
        return NULL;
    memset(t, 0, offsetof(struct translation, plan));
    t->b = b;
    t->key = key;
    t->e = bt_emitter(b, b->used, b->used + CODE_MAX);
    t->plan.facts = *facts;
    t->delta_group = facts->bits & FACT_FAR_DELTA ? FAR_SIDE : NO_GROUP;
    struct verify_before before = bt_verify_before(b);
    struct bt_unit *u = t->unit = &b->units[b->nunits];
    *u = (struct bt_unit){ .host = at->host,
                           .addr = at->addr.v,
                           .key = key,
                           .window = at->window,
                           .relies = facts_any(facts),
                           .facts = *facts,
                           .first_link = b->nlinks };
    if (!plan_unit(t, at, second, u))
        return NULL;
    unit_plan(&t->plan, b);
    if (!u->two)
        u->wanted = t->plan.wanted;
    if (t->plan.count) {
        const struct planned *last = &t->plan.insns[t->plan.count - 1];
        u->insns = (uint16_t)(t->plan.count - (last->how == HOW_BAIL));
        u->guest_bytes = (uint16_t)(last->end - t->plan.start);
    }
    t->simd_ready = facts->bits & FACT_AVX512 ? SIMD_AVX512
                    : facts->bits & FACT_AVX  ? SIMD_AVX
                                              : simd_always(t);
    enum first_event first = first_event(t, &t->plan);
    t->host_start = here(t);
    entries_emit(t, first);
    t->loops = first != FIRST_NEEDED && !by_view(t);
    t->flags_dead = first == FIRST_DEFINED;
    t->body_at = here(t);
    body_emit(t, t->plan.count - 1);
    loop_emit(t);
    late_entry(t, first);
    u->code_bytes = (uint16_t)(here(t) - b->used);
    stubs_apart(t);
    if (t->e.full || t->failed || !bt_verify_unit(b, u, &before)) {
        b->used_stubs = before.used_stubs;
        b->nlinks = before.nlinks;
        b->nsites = before.nsites;
        b->ncalls = before.ncalls;
        b->nfars = before.nfars;
        *full = t->e.full;
        return NULL;
    }
    if (!u->crossing && !second)
        hold_bytes(b, u, &t->plan);
    b->used = (here(t) + 15) & ~15u;
    bt_cache_wrote(b, u->code_bytes + u->stub_bytes);
    b->nunits++;
    bt_cache_add(b, u);
    count_unit(b, u, &t->plan);
    if (b->cfg.trace_fd > 0 || b->perf_map)
        bt_trace_unit(t);
    b->translating += __builtin_ia32_rdtsc() - began;
    return u;
}

struct bt_unit *bt_translate(struct bt *b, const struct bt_code *at, uint32_t key, const struct facts *facts,
                             bool *full)
{
    return make(b, at, NULL, key, facts, full);
}

struct bt_unit *bt_translate_crossing(struct bt *b, const struct bt_code *at, const struct bt_code *second,
                                      uint32_t key, bool *full)
{
    return make(b, at, second, key, &(struct facts){ 0 }, full);
}
