/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stack instructions and jumps.
 *
 * A jump inside the page is a host jump, linked when it is first taken. One to another page, an indirect one and a return look
 * their target up in the context's jump table: so an address is trusted only in the address space and mode where it was
 * found. A call writes its return address behind that look-up, since its target may be none.
 */
#include "engine/bt/unit.h"

static bool is64(const struct translation *t) { return t->plan.code64; }
static int32_t word(const struct translation *t) { return is64(t) ? 8 : 4; }

static void load_word(struct translation *t, unsigned dst, struct amode m)
{
    (is64(t) ? emit_load : emit_load32)(&t->e, dst, m);
}

static void store_word(struct translation *t, struct amode m, unsigned src)
{
    (is64(t) ? emit_store : emit_store32)(&t->e, m, src);
}

static void lea_word(struct translation *t, unsigned dst, struct amode m)
{
    if (is64(t))
        emit_lea(&t->e, dst, m);
    else
        emit_lea32(&t->e, dst, m);
}

static void adjust_rsp(struct translation *t, int32_t by)
{
    if (by)
        lea_word(t, GUEST_RSP, amode_at(GUEST_RSP, by));
}

/* The guest address base + disp for a stack access; a 32-bit one wraps, in T0. */
static struct amode stack_ea(struct translation *t, unsigned base, int32_t disp)
{
    if (is64(t))
        return amode_at(base, disp);
    emit_lea32(&t->e, T0, amode_at(base, disp));
    return amode_at(T0, 0);
}

/* --- the jump table ------------------------------------------------------------------------------------------ */

static void return_address(struct translation *t, unsigned dst, unsigned end)
{
    emit_load(&t->e, dst, AT_AREA(page));
    lea_word(t, dst, amode_at(dst, (int32_t)end));
}

/* The return address goes to the host address in call_slot; T0 and T1 stay. */
static void push_return(struct translation *t, unsigned end)
{
    emit_store(&t->e, AT_AREA(exit_lin), T0);
    return_address(t, T0, end);
    emit_load(&t->e, T2, AT_AREA(call_slot));
    store_word(t, amode_at(T2, 0), T0);
    emit_load(&t->e, T0, AT_AREA(exit_lin));
}

/* `slot` = address of the jump table's entry for T0; returns the jump taken when it is another target's. */
static uint8_t *slot_emit(struct translation *t, unsigned slot)
{
    struct emitter *e = &t->e;
    emit_reg(e, 0, 0x69, slot, T0); /* imul r32, r/m32, imm32 */
    emit_imm(e, JUMP_HASH, 4);
    emit_reg(e, 0, 0xc1, 5, slot);
    emit_byte(e, 32 - jump_bits(t->key));
    emit_reg(e, 0, 0xc1, 4, slot);
    emit_byte(e, 4);
    emit_mem(e, ENC_W, 0x03, slot, AT_AREA(jumps));
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

/* T0: linear address of the target. State S. `push`: the return address' offset in the page, 0: none. */
static void jump_table_emit(struct translation *t, int32_t adjust, unsigned push, uint32_t miss)
{
    struct emitter *e = &t->e;
    uint64_t again = emit_exec(e);
    uint8_t *from;
    if (pass_on(t->b, ENGINE_PASS_INDIRECT)) {
        from = slot_emit(t, T1);
        if (push)
            push_return(t, push);
        adjust_rsp(t, adjust);
        jump_by_slot(t, T1);
    } else {
        from = emit_jmp(e, emit_exec(e));
    }
    missing(t, from, again, miss);
}

void far_jump_emit(struct translation *t, int64_t to, int32_t adjust, uint32_t miss)
{
    flags_to_s(t);
    emit_load(&t->e, T0, AT_AREA(page));
    lea_word(t, T0, amode_at(T0, (int32_t)to));
    jump_table_emit(t, adjust, 0, miss);
}

static bool on_page(int64_t to) { return to >= 0 && to < (int64_t)PAGE_SIZE; }

/* A jump backward closes a loop: a request must be seen in it. */
static void poll_for(struct translation *t, int64_t to)
{
    if (t->polled || to > t->plan.insns[t->index].off)
        return;
    enum flags_state was = t->state;
    flags_away(t);
    poll_emit(t);
    if (was == FLAGS_E)
        flags_to_e(t);
}

static void link_to(struct translation *t, uint8_t *from, int64_t to, unsigned rest)
{
    struct stub *s = stub_new(t, STUB_LINK, from);
    s->target = (uint16_t)to;
    s->rest = (uint16_t)rest;
}

static unsigned rest_after(const struct translation *t) { return t->unit->insns - t->index - 1u; }

static int64_t target_of(const struct planned *p) { return p->end + (int64_t)p->in.imm; }

/* The interpreter does this instruction. */
static void leave_here(struct translation *t)
{
    stub_new(t, STUB_EXIT, emit_jmp(&t->e, emit_exec(&t->e)))->info = exit_at(t, BT_BAIL, t->index);
}

static void jump_to(struct translation *t, int64_t to, int32_t adjust)
{
    if (on_page(to)) {
        poll_for(t, to);
        if (t->state == FLAGS_R)
            flags_to_e(t);
        adjust_rsp(t, adjust);
        link_to(t, emit_jmp(&t->e, emit_exec(&t->e)), to, 0);
    } else if (to == (int32_t)to) {
        far_jump_emit(t, to, adjust, exit_at(t, BT_BAIL, t->index));
    } else {
        leave_here(t);
    }
}

void fall_through_emit(struct translation *t, unsigned to, unsigned rest)
{
    if (on_page(to)) {
        if (t->state == FLAGS_R)
            flags_to_e(t);
        link_to(t, emit_jmp(&t->e, emit_exec(&t->e)), to, rest);
    } else
        far_jump_emit(t, to, 0, EXIT_INFO(BT_LOOK_FAR, 0, 0));
}

static void jcc_emit(struct translation *t, struct planned *p)
{
    int64_t to = target_of(p);
    flags_to_e(t);
    if (to == t->plan.start && t->loops && loop_back(t, p))
        return;
    if (on_page(to)) {
        poll_for(t, to);
        link_to(t, emit_jcc(&t->e, p->in.cond, emit_exec(&t->e)), to, rest_after(t));
        return;
    }
    uint8_t *from = emit_jcc(&t->e, p->in.cond, emit_exec(&t->e));
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
    if (pass_on(t->b, ENGINE_PASS_INDIRECT)) {
        emit_load(e, T0, AT_AREA(page));
        emit_lea(e, T0, amode_at(T0, (int32_t)target_of(p)));
        from = slot_emit(t, T2);
        emit_lea(e, T0, amode_at(T0, -distance));
        emit_store(e, host, T0);
        emit_lea(e, T0, amode_at(T0, distance));
        adjust_rsp(t, -8);
        jump_by_slot(t, T2);
    } else {
        from = emit_jmp(e, emit_exec(e));
    }
    missing(t, from, again, exit_at(t, BT_BAIL, t->index));
}

static void call_emit(struct translation *t, struct planned *p)
{
    int64_t to = target_of(p), distance = to - p->end;
    if (is64(t) && !on_page(to)) {
        if (to == (int32_t)to && -distance == (int32_t)-distance)
            far_call_emit(t, p, (int32_t)distance);
        else
            leave_here(t);
        return;
    }
    struct amode host = access_emit(t, &p->stack, stack_ea(t, GUEST_RSP, -word(t)));
    return_address(t, T2, p->end);
    store_word(t, host, T2);
    jump_to(t, to, -word(t));
}

/* The target of an indirect jump to T0. */
static void indirect_target(struct translation *t, struct planned *p)
{
    if (p->mem.used)
        load_word(t, T0, access_emit(t, &p->mem, ea_emit(t, &p->in, &p->in.mem, p->end)));
    else if (is64(t))
        emit_mov(&t->e, T0, value_of(t, p->in.op[0].reg, T0));
    else
        emit_mov32(&t->e, T0, value_of(t, p->in.op[0].reg, T0));
}

/* T1 = distance of the stack's group again. */
static void reload_stack_group(struct translation *t, struct planned *p)
{
    struct access again = p->stack;
    again.first = false;
    access_emit(t, &again, amode_at(GUEST_RSP, 0));
}

static void call_ind_emit(struct translation *t, struct planned *p)
{
    access_emit(t, &p->stack, stack_ea(t, GUEST_RSP, -word(t)));
    indirect_target(t, p);
    if (t->delta_group != p->stack.group)
        reload_stack_group(t, p);
    flags_to_s(t);
    lea_word(t, T2, amode_at(GUEST_RSP, -word(t)));
    emit_lea(&t->e, T2, (struct amode){ T2, T1, 0, 0 });
    emit_store(&t->e, AT_AREA(call_slot), T2);
    jump_table_emit(t, -word(t), p->end, exit_at(t, BT_BAIL, t->index));
}

static void ret_emit(struct translation *t, struct planned *p)
{
    struct amode host = access_emit(t, &p->stack, stack_ea(t, GUEST_RSP, 0));
    load_word(t, T0, host);
    flags_to_s(t);
    int32_t drop = p->in.op[0].kind == OPND_IMM ? (int32_t)p->in.imm : 0;
    jump_table_emit(t, word(t) + drop, 0, exit_at(t, BT_BAIL, t->index));
}

static void jmp_ind_emit(struct translation *t, struct planned *p)
{
    indirect_target(t, p);
    flags_to_s(t);
    jump_table_emit(t, 0, 0, exit_at(t, BT_BAIL, t->index));
}

/* --- PUSH, POP, LEAVE ---------------------------------------------------------------------------------------------- */

static void push_mem(struct translation *t, struct planned *p)
{
    access_emit(t, &p->stack, stack_ea(t, GUEST_RSP, -word(t)));
    load_word(t, T0, access_emit(t, &p->mem, ea_emit(t, &p->in, &p->in.mem, p->end)));
    if (t->delta_group != p->stack.group)
        reload_stack_group(t, p);
    lea_word(t, T2, amode_at(GUEST_RSP, -word(t)));
    store_word(t, (struct amode){ T2, T1, 0, 0 }, T0);
    adjust_rsp(t, -word(t));
}

static void push_emit(struct translation *t, struct planned *p)
{
    const struct operand *o = &p->in.op[0];
    if (p->mem.used) {
        push_mem(t, p);
        return;
    }
    struct amode host = access_emit(t, &p->stack, stack_ea(t, GUEST_RSP, -word(t)));
    if (o->kind == OPND_IMM) {
        emit_mem(&t->e, is64(t) ? ENC_W : 0, 0xc7, 0, host);
        emit_imm(&t->e, p->in.imm, 4);
    } else {
        store_word(t, host, value_of(t, o->reg, T2));
    }
    adjust_rsp(t, -word(t));
}

static void pushf_emit(struct translation *t, struct planned *p)
{
    struct amode host = access_emit(t, &p->stack, stack_ea(t, GUEST_RSP, -8));
    flags_to_s(t);
    pushf_value_emit(t);
    emit_store(&t->e, host, T0);
    adjust_rsp(t, -8);
}

static void pop_emit(struct translation *t, struct planned *p)
{
    unsigned reg = p->in.op[0].reg, h = host_of(reg);
    struct amode host = access_emit(t, &p->stack, stack_ea(t, GUEST_RSP, 0));
    load_word(t, h == H_NONE ? T2 : h, host);
    if (h == H_NONE)
        emit_store(&t->e, at_gpr(reg), T2);
    if (reg != RSP)
        adjust_rsp(t, word(t));
}

static void leave_emit(struct translation *t, struct planned *p)
{
    struct amode host = access_emit(t, &p->stack, stack_ea(t, H_RBP, 0));
    load_word(t, T2, host);
    lea_word(t, GUEST_RSP, amode_at(H_RBP, word(t)));
    emit_mov(&t->e, H_RBP, T2);
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
    case HOW_JMP: jump_to(t, target_of(p), 0); break;
    case HOW_JMP_IND: jmp_ind_emit(t, p); break;
    case HOW_JCC: jcc_emit(t, p); break;
    default: break;
    }
}
