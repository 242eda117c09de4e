/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stack instructions and jumps.
 *
 * A jump inside the page is a host jump, linked when it is first taken. One to another page is, too, in 64-bit code; in front of it
 * stands a guard, since it holds for one linear page in one context. Any other one, an indirect one and a return look their target up
 * in the context's jump table: so an address is trusted only in the address space and mode where it was found. A call writes its
 * return address behind that, since its target may be none. Returns to where a call has noted that it wants to come back go without that
 * (returns.c).
 */
#include "engine/bt/unit.h"

static bool is64(const struct translation *t) { return t->plan.code64; }
static bool flat_code(const struct translation *t) { return t->key & KEY_FLAT_CS; }

/* --- operands of 2, 4 or 8 bytes ------------------------------------------------------------------------------- */

static unsigned width(unsigned size) { return size == 8 ? ENC_W : size == 2 ? ENC_66 : 0; }

/* All of dst: the rest is 0. */
static void load_size(struct translation *t, unsigned size, unsigned dst, struct amode m)
{
    if (size == 2)
        emit_mem(&t->e, ENC_0F, 0xb7, dst, m);
    else
        emit_mem(&t->e, width(size), 0x8b, dst, m);
    view_sites(t);
}

static void store_size(struct translation *t, unsigned size, struct amode m, unsigned src)
{
    emit_mem(&t->e, width(size), 0x89, src, m);
    view_sites(t);
}

/* To a guest's register: 2 bytes leave the rest as it is. */
static void set_guest(struct translation *t, unsigned size, unsigned guest, unsigned src)
{
    unsigned h = host_of(guest);
    if (h == H_NONE)
        emit_mem(&t->e, size == 2 ? ENC_66 : ENC_W, 0x89, src, at_gpr(guest));
    else
        emit_reg(&t->e, width(size), 0x8b, h, src);
}

/* --- the stack ----------------------------------------------------------------------------------------------------- */

/* RSP, ESP or SP += by; flags stay. */
static void adjust_rsp(struct translation *t, int32_t by)
{
    if (by)
        emit_mem(&t->e, width(t->plan.sp_bytes), 0x8d, GUEST_RSP, amode_at(GUEST_RSP, by));
}

/* dst = base + disp, as wide as the stack pointer. */
static void stack_offset(struct translation *t, unsigned dst, unsigned base, int32_t disp)
{
    (is64(t) ? emit_lea : emit_lea32)(&t->e, dst, amode_at(base, disp));
    if (t->plan.sp_bytes == 2)
        low_word(t, dst);
}

/* The guest address base + disp for a stack access; a narrower one wraps, in T0. */
static struct amode stack_ea(struct translation *t, unsigned base, int32_t disp)
{
    if (is64(t) || t->plan.insns[t->index].stack.view)
        return amode_at(base, disp);
    stack_offset(t, T0, base, disp);
    return amode_at(T0, 0);
}

static struct amode push_ea(struct translation *t, const struct planned *p)
{
    return stack_ea(t, GUEST_RSP, -(int32_t)p->stack.size);
}

/* T1 = distance of the stack's group again. */
static void reload_stack_group(struct translation *t, struct planned *p)
{
    if (t->delta_group == p->stack.group)
        return;
    struct access again = p->stack;
    again.first = false;
    access_emit(t, &again, amode_at(GUEST_RSP, 0));
}

/* Where what is pushed goes, whose access was checked: at T2, or by the view; T0 stays. */
static struct amode push_slot(struct translation *t, struct planned *p)
{
    if (p->stack.view) {
        struct access again = p->stack;
        again.first = false;
        return access_emit(t, &again, push_ea(t, p));
    }
    reload_stack_group(t, p);
    stack_offset(t, T2, GUEST_RSP, -(int32_t)p->stack.size);
    emit_lea(&t->e, T2, amode_indexed(T2, T1, 0, 0));
    return amode_at(T2, 0);
}

/* --- the jump table ------------------------------------------------------------------------------------------ */

/* dst = rip at offset `end` of the page; flags stay. */
static void return_address(struct translation *t, unsigned dst, int64_t end)
{
    if (flat_code(t))
        emit_load(&t->e, dst, AT_AREA(page));
    else
        emit_load(&t->e, dst, AT_AREA(ip_page));
    (is64(t) ? emit_lea : emit_lea32)(&t->e, dst, amode_at(dst, (int32_t)end));
}

/* The return address of `call` goes to the host address in call_slot, or to the stack by the view; T0 and T1 stay. */
static void push_return(struct translation *t, const struct planned *call)
{
    struct amode slot = amode_at(T2, 0);
    emit_store(&t->e, AT_AREA(exit_lin), T0);
    return_address(t, T0, call->end);
    if (call->stack.view)
        slot = amode_indexed(GUEST_RSP, call->stack.side == SIDE_FAR ? T2 : H_NONE, 0,
                             -(int32_t)call->stack.size);
    slot.view = call->stack.view;
    slot.gs = call->stack.view && call->stack.side == SIDE_NEAR;
    slot.narrow = !is64(t);
    if (!slot.gs)
        emit_load(&t->e, T2, call->stack.view ? AT_AREA(far_delta) : AT_AREA(call_slot));
    store_size(t, call->stack.size, slot, T0);
    adjust_rsp(t, -(int32_t)call->stack.size);
    call_note_emit(t, call, T2, T0);
    emit_load(&t->e, T0, AT_AREA(exit_lin));
    call_back_emit(t, call, T2);
}

/* `slot` = address of the jump table's entry for T0; returns the jump taken when it is another target's. */
static uint8_t *slot_emit(struct translation *t, unsigned slot)
{
    struct emitter *e = &t->e;
    bt_jump_slot_emit(e, slot, T0, jump_bits(t->key), 0);
    emit_mem(e, ENC_W, 0x3b, T0, amode_at(slot, offsetof(struct bt_jump, lin)));
    return emit_jcc(e, 5, emit_exec(e));
}

static void jump_by_slot(struct translation *t, unsigned slot)
{
    emit_mem(&t->e, 0, 0xff, 4, amode_at(slot, offsetof(struct bt_jump, code)));
}

/* The target is not in the table: looked for, and all from `again` on done anew, or `miss`. */
static void missing(struct translation *t, uint8_t *from, uint64_t again, uint32_t miss)
{
    struct stub *s = stub_new(t, pass_on(t->b, ENGINE_PASS_INDIRECT) ? STUB_LOOKUP : STUB_EXIT, from);
    s->retry = again;
    s->info = miss;
}

/* T0 = linear address of rip = T0. State S. */
static void to_linear(struct translation *t)
{
    if (!flat_code(t))
        emit_mem(&t->e, 0, 0x03, T0, segment_base(SEG_CS));
}

/* T0 = linear address of page offset `to`; a target's rip is cut to `size` bytes. State S. */
static void linear_of(struct translation *t, int64_t to, unsigned size)
{
    if (size > 2) {
        emit_load(&t->e, T0, AT_AREA(page));
        (is64(t) ? emit_lea : emit_lea32)(&t->e, T0, amode_at(T0, (int32_t)to));
        return;
    }
    return_address(t, T0, to);
    low_word(t, T0);
    to_linear(t);
}

/* T0: linear address of the target. State S. `call`: its return address is pushed; NULL: none is. */
static void jump_table_emit(struct translation *t, int32_t adjust, const struct planned *call, uint32_t miss)
{
    struct emitter *e = &t->e;
    uint64_t again = emit_exec(e);
    uint8_t *from;
    if (pass_on(t->b, ENGINE_PASS_INDIRECT)) {
        from = slot_emit(t, T1);
        if (call)
            push_return(t, call);
        else
            adjust_rsp(t, adjust);
        jump_by_slot(t, T1);
    } else {
        from = emit_jmp(e, emit_exec(e));
    }
    missing(t, from, again, miss);
}

/* --- returns that the host predicts: returns.c ------------------------------------------------------------------------ */

void return_stub(struct translation *t, const struct stub *s)
{
    t->state = FLAGS_S;
    t->index = s->index;
    jump_table_emit(t, (int32_t)s->fill, NULL, s->info);
}

/* T0: linear address to return to; `adjust`: what the stack pointer moves by. State S. */
static void return_emit(struct translation *t, int32_t adjust)
{
    struct stub *s = stub_new(t, STUB_RETURN, return_check_emit(t, T1, T0));
    s->fill = (uint32_t)adjust;
    s->info = exit_at(t, BT_BAIL, t->index);
    adjust_rsp(t, adjust);
    return_go_emit(t, T1);
}

/* --- far links ------------------------------------------------------------------------------------------------------ */

/* Can the present instruction's way to another page be linked? Not of an instruction that goes on there itself, whose unit is one of
 * several; and only where code runs so long in one address space that it is worth a call of C for each jump. */
static bool can_link_far(const struct translation *t)
{
    const struct unit_plan *p = &t->plan;
    struct bt *b = t->b;
    const uint8_t *page = bt_page_host(t->unit);
    return is64(t) && !p->crossing && pass_on(b, ENGINE_PASS_CHAIN) && pass_on(b, ENGINE_PASS_INDIRECT) &&
           b->nfars < b->segments[b->segment].to.fars && bt_heat_full(b, page, t->key) &&
           !bt_adapt_is(b, page + p->insns[t->index].off, VERDICT_STRAYS);
}

static struct amode far_slot(uint32_t slot, size_t field)
{
    return amode_at(H_RSP, AREA_OFF(fars) + (int32_t)(slot * sizeof(struct bt_far) + field));
}

/* T2 = linear address of the page, if the link is for that and for this context. State S. */
static struct stub *far_guard(struct translation *t, uint64_t again, int64_t to, uint32_t miss)
{
    struct emitter *e = &t->e;
    uint32_t slot = t->b->nfars++;
    emit_load(e, T2, far_slot(slot, offsetof(struct bt_far, guard)));
    emit_mem(e, ENC_W, 0x2b, T2, AT_AREA(context_id)); /* sub */
    emit_mem(e, ENC_W, 0x3b, T2, AT_AREA(page));       /* cmp */
    struct stub *s = stub_new(t, STUB_FAR_LINK, emit_jcc(e, 5, emit_exec(e)));
    s->retry = again;
    s->fill = slot;
    s->far_target = to;
    s->info = miss;
    return s;
}

/* Behind it: T0 is the target. */
static void far_go(struct translation *t, const struct stub *s)
{
    emit_lea(&t->e, T0, amode_at(T2, (int32_t)s->far_target));
    emit_mem(&t->e, 0, 0xff, 4, far_slot(s->fill, offsetof(struct bt_far, code)));
}

void far_link_stub(struct translation *t, const struct stub *s)
{
    struct bt *b = t->b;
    struct emitter *e = &t->e;
    bt_area(b->v)->fars[s->fill] = (struct bt_far){ .guard = FAR_UNLINKED };
    b->links[b->nlinks] = (struct bt_link){
        .target = (uint16_t)t->plan.insns[s->index].off,
        .from = t->unit,
        .far = true,
        .slot = s->fill,
        .far_to = (int32_t)s->far_target,
    };
    emit_mov_imm32(e, T1, b->nlinks++);
    t->unit->links++;
    emit_call(e, bt_exec_addr(b, b->gate_far));
    emit_jmp(e, s->retry);
    if (EXIT_KIND(s->info) == BT_LOOK_FAR)
        linear_of(t, s->far_target, FALL_THROUGH);
    exit_emit(t, s, s->info, 0);
}

void far_jump_emit(struct translation *t, int64_t to, unsigned size, int32_t adjust, uint32_t miss)
{
    flags_to_s(t);
    if (can_link_far(t) && size > 2) {
        struct stub *s = far_guard(t, emit_exec(&t->e), to, miss);
        adjust_rsp(t, adjust);
        far_go(t, s);
        return;
    }
    linear_of(t, to, size);
    jump_table_emit(t, adjust, NULL, miss);
}

/* A jump backward closes a loop: a request must be seen in it. */
static void poll_for(struct translation *t, int64_t to)
{
    if (t->polled || to > t->plan.insns[t->index].off)
        return;
    if (by_view(t)) {
        view_poll(t);
        return;
    }
    enum flags_state was = t->state;
    flags_away(t);
    poll_emit(t);
    if (was == FLAGS_E)
        flags_to_e(t);
}

static void link_to(struct translation *t, uint8_t *from, int64_t to, unsigned rest)
{
    struct stub *s = stub_new(t, STUB_LINK, from);
    const struct planned *p = &t->plan.insns[t->index];
    s->target = (uint16_t)to;
    s->rest = (uint16_t)rest;
    s->fill = t->key & ~(uint32_t)KEY_OF_UNIT;
    s->facts = p->facts;
    s->passes = p->passes;
    if (t->delta_group == FAR_SIDE && !counting(t))
        s->facts.bits |= FACT_FAR_DELTA;
    if (t->simd_ready >= SIMD_AVX)
        s->facts.bits |= FACT_AVX;
    if (t->simd_ready >= SIMD_AVX512)
        s->facts.bits |= FACT_AVX512;
}

static unsigned rest_after(const struct translation *t) { return t->unit->insns - t->index - 1u; }

/* The interpreter does this instruction. */
static void leave_here(struct translation *t)
{
    stub_new(t, STUB_EXIT, emit_jmp(&t->e, emit_exec(&t->e)))->info = exit_at(t, BT_BAIL, t->index);
}

static void jump_to(struct translation *t, const struct planned *p, int32_t adjust)
{
    int64_t to = jump_target(p);
    if (jump_stays(&t->plan, p)) {
        poll_for(t, to);
        if (t->state == FLAGS_R)
            flags_to_e(t);
        adjust_rsp(t, adjust);
        link_to(t, emit_jmp(&t->e, emit_exec(&t->e)), to, 0);
    } else if (to == (int32_t)to) {
        far_jump_emit(t, to, p->in.opsize, adjust, exit_at(t, BT_BAIL, t->index));
    } else {
        leave_here(t);
    }
}

void fall_through_emit(struct translation *t, unsigned to, unsigned rest)
{
    if (in_window(&t->plan, to)) {
        if (t->state == FLAGS_R)
            flags_to_e(t);
        link_to(t, emit_jmp(&t->e, emit_exec(&t->e)), to, rest);
    } else
        far_jump_emit(t, to, FALL_THROUGH, 0, EXIT_INFO(BT_LOOK_FAR, 0, 0));
}

/* --- Jcc, LOOP, JCXZ --------------------------------------------------------------------------------------------- */

/* jrcxz to where over_end() is called. Returns the displacement byte. */
static uint8_t *jump_if_no_count(struct translation *t)
{
    emit_byte(&t->e, 0xe3);
    emit_byte(&t->e, 0);
    return t->e.at - 1;
}

static void over_end(struct translation *t, uint8_t *field)
{
    if (!t->e.full)
        *field = (uint8_t)(t->e.at - field - 1);
}

/* The jump taken when RCX, ECX or CX is not 0, or (JCXZ) is; no flag is touched. Where more of RCX must not count, RCX is put
 * by: T2. */
static uint8_t *loop_emit_jump(struct translation *t, const struct planned *p, uint64_t target)
{
    struct emitter *e = &t->e;
    unsigned id = p->in.id, bytes = p->in.addrsize;
    bool put_by = bytes == 2 || (bytes == 4 && id == INSN_JCXZ);
    if (id != INSN_JCXZ)
        emit_mem(e, width(bytes), 0x8d, H_RCX, amode_at(H_RCX, -1)); /* lea */
    if (put_by) {
        emit_mov(e, T2, H_RCX);
        if (bytes == 2)
            low_word(t, H_RCX);
        else
            emit_mov32(e, H_RCX, H_RCX);
    }
    uint8_t *zero = jump_if_no_count(t), *over, *from;
    if (put_by)
        emit_mov(e, H_RCX, T2);
    if (id == INSN_JCXZ) {
        over = emit_jmp(e, emit_exec(e));
        over_end(t, zero);
        if (put_by)
            emit_mov(e, H_RCX, T2);
        from = emit_jmp(e, target);
        emit_patch(e, over, emit_exec(e));
        return from;
    }
    from = id == INSN_LOOP ? emit_jmp(e, target) : emit_jcc(e, id == INSN_LOOPE ? 4 : 5, target);
    if (put_by) {
        over = id == INSN_LOOP ? NULL : emit_jmp(e, emit_exec(e));
        over_end(t, zero);
        emit_mov(e, H_RCX, T2);
        if (over)
            emit_patch(e, over, emit_exec(e));
    } else {
        over_end(t, zero);
    }
    return from;
}

uint8_t *conditional_emit(struct translation *t, const struct planned *p, uint64_t target)
{
    return p->how == HOW_LOOP ? loop_emit_jump(t, p, target) : emit_jcc(&t->e, p->in.cond, target);
}

void switch_to(struct translation *t, unsigned to, uint32_t key)
{
    link_to(t, emit_jmp(&t->e, emit_exec(&t->e)), to, 0);
    struct stub *s = &t->stubs[t->nstubs - 1];
    s->fill = key & ~(uint32_t)KEY_OF_UNIT;
    s->facts = (struct facts){ 0 };
    s->passes = 0;
}

static void jcc_emit(struct translation *t, struct planned *p)
{
    int64_t to = jump_target(p);
    flags_to_e(t);
    if (t->recipe.inputs & p->fx.gpr_written)
        t->recipe.kind = RECIPE_NONE;
    bool stays = jump_stays(&t->plan, p);
    if (stays && to == t->plan.start && t->loops && loop_back(t, p))
        return;
    if (stays) {
        poll_for(t, to);
        link_to(t, conditional_emit(t, p, emit_exec(&t->e)), to, rest_after(t));
        return;
    }
    uint8_t *from = conditional_emit(t, p, emit_exec(&t->e));
    if (to != (int32_t)to) {
        stub_new(t, STUB_EXIT, from)->info = exit_at(t, BT_BAIL, t->index);
        return;
    }
    struct stub *s = stub_new(t, STUB_FAR, from);
    s->far_target = to;
    s->rest = (uint16_t)rest_after(t);
}

/* --- CALL, RET, indirect jumps --------------------------------------------------------------------------------- */

/* To another page in 64-bit code: T0 is the target, and in between the return address, so far from it. */
static void far_call_emit(struct translation *t, struct planned *p, int32_t distance)
{
    struct emitter *e = &t->e;
    flags_to_s(t);
    t->delta_group = NO_GROUP; /* a look-up comes back here */
    uint64_t again = emit_exec(e);
    struct amode host = access_emit(t, &p->stack, amode_at(GUEST_RSP, -8));
    uint8_t *from;
    if (can_link_far(t)) {
        struct stub *s = far_guard(t, again, jump_target(p), exit_at(t, BT_BAIL, t->index));
        emit_lea(e, T0, amode_at(T2, (int32_t)p->end));
        store_size(t, 8, host, T0);
        adjust_rsp(t, -8);
        call_note_emit(t, p, T1, T0);
        call_back_emit(t, p, T1);
        far_go(t, s);
        return;
    }
    if (pass_on(t->b, ENGINE_PASS_INDIRECT)) {
        emit_load(e, T0, AT_AREA(page));
        emit_lea(e, T0, amode_at(T0, (int32_t)jump_target(p)));
        from = slot_emit(t, T2);
        emit_lea(e, T0, amode_at(T0, -distance));
        store_size(t, 8, host, T0);
        adjust_rsp(t, -8);
        call_note_emit(t, p, T1, T0);
        emit_lea(e, T0, amode_at(T0, distance));
        call_back_emit(t, p, T1);
        jump_by_slot(t, T2);
    } else {
        from = emit_jmp(e, emit_exec(e));
    }
    missing(t, from, again, exit_at(t, BT_BAIL, t->index));
}

/* Once the target, T0, is found, the return address is pushed. */
static void call_when_found(struct translation *t, struct planned *p)
{
    if (!p->stack.view) {
        push_slot(t, p);
        emit_store(&t->e, AT_AREA(call_slot), T2);
    }
    jump_table_emit(t, -(int32_t)p->stack.size, p, exit_at(t, BT_BAIL, t->index));
}

/* To its own page: T2 is the return address. */
static void near_call_emit(struct translation *t, struct planned *p)
{
    int64_t to = jump_target(p);
    poll_for(t, to);
    struct amode host = access_emit(t, &p->stack, push_ea(t, p));
    return_address(t, T2, p->end);
    store_size(t, p->stack.size, host, T2);
    adjust_rsp(t, -(int32_t)p->stack.size);
    call_note_emit(t, p, T0, T2);
    if (t->state == FLAGS_R)
        flags_to_e(t);
    call_back_emit(t, p, T0);
    link_to(t, emit_jmp(&t->e, emit_exec(&t->e)), to, 0);
}

static void call_emit(struct translation *t, struct planned *p)
{
    int64_t to = jump_target(p), distance = to - p->end;
    if (jump_stays(&t->plan, p)) {
        near_call_emit(t, p);
        return;
    }
    if (is64(t)) {
        if (to == (int32_t)to && -distance == (int32_t)-distance)
            far_call_emit(t, p, (int32_t)distance);
        else
            leave_here(t);
        return;
    }
    struct amode host = access_emit(t, &p->stack, push_ea(t, p));
    if (!flat_code(t)) {
        flags_to_s(t);
        linear_of(t, to, p->in.opsize);
        call_when_found(t, p);
        return;
    }
    return_address(t, T2, p->end);
    store_size(t, p->stack.size, host, T2);
    jump_to(t, p, -(int32_t)p->stack.size);
}

/* The target of an indirect jump to T0. */
static void indirect_target(struct translation *t, struct planned *p)
{
    unsigned size = p->in.opsize;
    if (p->mem.used)
        load_size(t, size, T0, mem_emit(t, p));
    else if (is64(t))
        emit_mov(&t->e, T0, value_of(t, p->in.op[0].reg, T0));
    else if (size == 4)
        emit_mov32(&t->e, T0, value_of(t, p->in.op[0].reg, T0));
    else
        emit_reg(&t->e, ENC_0F, 0xb7, T0, value_of(t, p->in.op[0].reg, T0));
}

static void call_ind_emit(struct translation *t, struct planned *p)
{
    access_emit(t, &p->stack, push_ea(t, p));
    indirect_target(t, p);
    flags_to_s(t);
    to_linear(t);
    call_when_found(t, p);
}

static void ret_emit(struct translation *t, struct planned *p)
{
    struct amode host = access_emit(t, &p->stack, stack_ea(t, GUEST_RSP, 0));
    load_size(t, p->stack.size, T0, host);
    flags_to_s(t);
    to_linear(t);
    int32_t drop = p->in.op[0].kind == OPND_IMM ? (int32_t)p->in.imm : 0;
    if (returns_predicted(t))
        return_emit(t, p->stack.size + drop);
    else
        jump_table_emit(t, p->stack.size + drop, NULL, exit_at(t, BT_BAIL, t->index));
}

static void jmp_ind_emit(struct translation *t, struct planned *p)
{
    indirect_target(t, p);
    flags_to_s(t);
    to_linear(t);
    jump_table_emit(t, 0, NULL, exit_at(t, BT_BAIL, t->index));
}

/* --- PUSH, POP, LEAVE ---------------------------------------------------------------------------------------------- */

static void push_mem(struct translation *t, struct planned *p)
{
    access_emit(t, &p->stack, push_ea(t, p));
    load_size(t, p->stack.size, T0, mem_emit(t, p));
    store_size(t, p->stack.size, push_slot(t, p), T0);
    adjust_rsp(t, -(int32_t)p->stack.size);
}

static void push_emit(struct translation *t, struct planned *p)
{
    const struct operand *o = &p->in.op[0];
    unsigned size = p->stack.size;
    if (p->mem.used) {
        push_mem(t, p);
        return;
    }
    struct amode host = access_emit(t, &p->stack, push_ea(t, p));
    if (o->kind == OPND_IMM) {
        emit_mem(&t->e, width(size), 0xc7, 0, host);
        emit_imm(&t->e, p->in.imm, size == 2 ? 2 : 4);
        view_sites(t);
    } else {
        store_size(t, size, host, value_of(t, o->reg, T2));
    }
    adjust_rsp(t, -(int32_t)size);
}

/* The selector, zero-extended. */
static void push_seg_emit(struct translation *t, struct planned *p)
{
    struct amode host = access_emit(t, &p->stack, push_ea(t, p));
    unsigned seg = p->in.op[0].reg;
    emit_mem(&t->e, ENC_0F, 0xb7, T2,
             amode_at(H_RSP, VCPU_OFF(s.seg) +
                                 (int32_t)(seg * sizeof(struct segment) + offsetof(struct segment, sel))));
    store_size(t, p->stack.size, host, T2);
    adjust_rsp(t, -(int32_t)p->stack.size);
}

static void load_seg_emit(struct translation *t, struct planned *p)
{
    const struct operand *from = &p->in.op[1];
    if (p->stack.used)
        load_size(t, 2, T0, access_emit(t, &p->stack, stack_ea(t, GUEST_RSP, 0)));
    else if (p->mem.used)
        load_size(t, 2, T0, access_emit(t, &p->mem, ea_emit(t, &p->in, &p->in.mem, p->end)));
    else
        emit_reg(&t->e, ENC_0F, 0xb7, T0, value_of(t, from->reg, T0));
    load_segment_emit(t, p->in.op[0].reg);
    if (p->stack.used)
        adjust_rsp(t, 2);
}

static void pushf_emit(struct translation *t, struct planned *p)
{
    access_emit(t, &p->stack, push_ea(t, p));
    flags_to_s(t);
    pushf_value_emit(t);
    store_size(t, p->stack.size, push_slot(t, p), T0);
    adjust_rsp(t, -(int32_t)p->stack.size);
}

/* POP to the stack pointer: the value wins over the step, as far as it reaches. */
static void pop_emit(struct translation *t, struct planned *p)
{
    unsigned reg = p->in.op[0].reg, h = host_of(reg), size = p->stack.size;
    struct amode host = access_emit(t, &p->stack, stack_ea(t, GUEST_RSP, 0));
    if (size > 2 && h != H_NONE && reg != RSP) {
        load_size(t, size, h, host);
        adjust_rsp(t, (int32_t)size);
        return;
    }
    load_size(t, size, T2, host);
    adjust_rsp(t, (int32_t)size);
    set_guest(t, size, reg, T2);
}

static void leave_emit(struct translation *t, struct planned *p)
{
    unsigned size = p->stack.size;
    struct amode host = access_emit(t, &p->stack, stack_ea(t, H_RBP, 0));
    load_size(t, size, T2, host);
    emit_mem(&t->e, width(t->plan.sp_bytes), 0x8d, GUEST_RSP, amode_at(H_RBP, (int32_t)size));
    set_guest(t, size, RBP, T2);
}

void branch_emit(struct translation *t, struct planned *p)
{
    switch (p->how) {
    case HOW_PUSH: push_emit(t, p); break;
    case HOW_PUSHF: pushf_emit(t, p); break;
    case HOW_POP: pop_emit(t, p); break;
    case HOW_LEAVE: leave_emit(t, p); break;
    case HOW_CALL: call_emit(t, p); break;
    case HOW_CALL_IND: call_ind_emit(t, p); break;
    case HOW_RET: ret_emit(t, p); break;
    case HOW_PUSH_SEG: push_seg_emit(t, p); break;
    case HOW_LOAD_SEG: load_seg_emit(t, p); break;
    case HOW_JMP: jump_to(t, p, 0); break;
    case HOW_JMP_IND: jmp_ind_emit(t, p); break;
    case HOW_JCC:
    case HOW_LOOP: jcc_emit(t, p); break;
    default: break;
    }
}
