/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Far control transfers: JMP, CALL and RET far, IRET (SDM 2A, their pseudo code; SDM 3A 5.8).
 *
 * Every transfer has the same shape: find the target segment and check it, find the stack and check it, write
 * what has to be pushed, and only then change registers. A fault on the way leaves the processor as it was.
 */
#include "cpu/access.h"
#include "cpu/descriptor.h"
#include "cpu/event.h"
#include "cpu/flags.h"
#include "cpu/ops.h"
#include "cpu/stack.h"
#include "cpu/task.h"

static bool is_code64(const struct vcpu *v, uint32_t attr) { return vcpu_lma(v) && (attr & SA_L); }

static void check_target(struct vcpu *v, const struct segment *cs, uint64_t rip)
{
    if (is_code64(v, cs->attr) ? !is_canonical(rip) : rip > cs->limit)
        cpu_raise_gp0(v);
}

/* What every code segment must be once privilege is settled: sensible in long mode, present, and holding
 * the target. */
static struct segment code_segment(struct vcpu *v, uint16_t sel, const struct descriptor *d, unsigned cpl,
                                   uint64_t rip)
{
    uint32_t attr = desc_attr(d);
    if (is_code64(v, attr) && (attr & SA_DB))
        raise_selector(v, VEC_GP, sel);
    if (!attr_present(attr))
        raise_selector(v, VEC_NP, sel);
    struct segment cs = seg_from_desc(sel_with_rpl(sel, cpl), d);
    check_target(v, &cs, rip);
    desc_mark_accessed(v, d);
    return cs;
}

static void commit_code(struct vcpu *v, const struct segment *cs, uint64_t rip)
{
    v->s.seg[SEG_CS] = *cs;
    v->s.rip = rip;
    vcpu_refresh_privilege(v);
}

/* CS in real and virtual-8086 mode. */
static struct segment code_segment_8086(struct vcpu *v, uint16_t sel, uint64_t rip)
{
    struct segment cs = (v->s.rflags & FL_VM) ? seg_vm86(sel) : seg_real(&v->s.seg[SEG_CS], sel);
    check_target(v, &cs, rip);
    return cs;
}

static void push_return_address(struct vcpu *v, struct stack *st, unsigned size)
{
    stack_push(v, st, v->s.seg[SEG_CS].sel, size);
    stack_push(v, st, v->s.rip, size);
}

/* ---- JMP and CALL ---------------------------------------------------------------------------- */

/* SDM 3A 5.8.2: through a call gate, to the same or (CALL only) an inner privilege level. */
static void through_call_gate(struct vcpu *v, uint16_t sel, struct descriptor *d, bool call)
{
    bool lma = vcpu_lma(v);
    unsigned cpl = vcpu_cpl(v);
    uint32_t gate_attr = desc_attr(d);
    if (attr_dpl(gate_attr) < cpl || attr_dpl(gate_attr) < sel_rpl(sel))
        raise_selector(v, VEC_GP, sel);
    if (!attr_present(gate_attr))
        raise_selector(v, VEC_NP, sel);
    if (lma)
        desc_fetch_high(v, sel, d, VEC_GP);
    struct gate gate = gate_from_desc(d);
    unsigned slot = lma ? 8 : (gate.attr & SYS_32BIT) ? 4 : 2;
    uint64_t rip = gate.offset & mask_bytes(slot);

    if (sel_is_null(gate.sel))
        cpu_raise_gp0(v);
    struct descriptor code = desc_fetch(v, gate.sel, VEC_GP);
    uint32_t attr = desc_attr(&code);
    unsigned dpl = attr_dpl(attr);
    if (!attr_code(attr) || dpl > cpl || (lma && (attr & (SA_L | SA_DB)) != SA_L))
        raise_selector(v, VEC_GP, gate.sel);
    bool inward = !attr_conforming(attr) && dpl < cpl;
    if (inward && !call)
        raise_selector(v, VEC_GP, gate.sel);

    if (!inward) {
        struct segment cs = code_segment(v, gate.sel, &code, cpl, rip);
        if (call) {
            struct stack st = lma ? stack_long(v, v->s.gpr[RSP], cpl) : stack_current(v);
            push_return_address(v, &st, slot);
            v->s.gpr[RSP] = stack_rsp(&st);
        }
        commit_code(v, &cs, rip);
        return;
    }
    struct segment cs = code_segment(v, gate.sel, &code, dpl, rip);
    struct stack outer = stack_current(v);
    struct stack st = stack_inner(v, dpl);
    stack_push(v, &st, v->s.seg[SEG_SS].sel, slot);
    stack_push(v, &st, v->s.gpr[RSP], slot);
    for (unsigned i = lma ? 0 : gate.params; i-- > 0;)
        stack_push(v, &st, stack_peek(v, &outer, (uint64_t)i * slot, slot), slot);
    push_return_address(v, &st, slot);
    v->s.gpr[RSP] = stack_rsp(&st);
    v->s.seg[SEG_SS] = lma ? seg_null((uint16_t)dpl, dpl) : st.ss;
    commit_code(v, &cs, rip);
}

/* A jump, or a call on the current stack. */
static void enter_code(struct vcpu *v, const struct segment *cs, uint64_t off, unsigned size, bool call)
{
    if (call) {
        struct stack st = stack_current(v);
        push_return_address(v, &st, size);
        v->s.gpr[RSP] = stack_rsp(&st);
    }
    commit_code(v, cs, off);
}

static void far_transfer(struct vcpu *v, uint16_t sel, uint64_t off, unsigned size, bool call)
{
    off &= mask_bytes(size);
    if (!vcpu_protected(v)) {
        struct segment cs = code_segment_8086(v, sel, off);
        enter_code(v, &cs, off, size, call);
        return;
    }
    if (sel_is_null(sel))
        cpu_raise_gp0(v);
    struct descriptor d = desc_fetch(v, sel, VEC_GP);
    uint32_t attr = desc_attr(&d);
    enum task_reason why = call ? TASK_CALL : TASK_JMP;
    if (attr_code(attr)) {
        unsigned cpl = vcpu_cpl(v), dpl = attr_dpl(attr);
        if (attr_conforming(attr) ? dpl > cpl : (sel_rpl(sel) > cpl || dpl != cpl))
            raise_selector(v, VEC_GP, sel);
        struct segment cs = code_segment(v, sel, &d, cpl, off);
        enter_code(v, &cs, off, size, call);
        return;
    }
    if (!attr_system(attr))
        raise_selector(v, VEC_GP, sel);
    unsigned type = attr_type(attr);
    if (type == SYS_CALL_GATE32 || (type == SYS_CALL_GATE16 && !vcpu_lma(v)))
        through_call_gate(v, sel, &d, call);
    else if (type == SYS_TASK_GATE && !vcpu_lma(v))
        task_through_gate(v, sel, attr, gate_from_desc(&d).sel, why);
    else if ((type == SYS_TSS16 || type == SYS_TSS32) && !vcpu_lma(v))
        task_direct(v, sel, attr, why);
    else
        raise_selector(v, VEC_GP, sel);
}

void cpu_jmp_far(struct vcpu *v, uint16_t sel, uint64_t off, unsigned size)
{
    far_transfer(v, sel, off, size, false);
}

void cpu_call_far(struct vcpu *v, uint16_t sel, uint64_t off, unsigned size)
{
    far_transfer(v, sel, off, size, true);
}

/* ---- RET and IRET ---------------------------------------------------------------------------- */

/* Where a return goes, popped and checked. */
struct return_to {
    struct segment cs, ss;
    uint64_t rip, rsp;
    unsigned cpl;
    bool new_ss;
};

/* The code segment of a return: its privilege is the selector's RPL, which may not be an inner one. */
static struct segment return_code(struct vcpu *v, uint16_t sel, uint64_t rip)
{
    unsigned rpl = sel_rpl(sel);
    if (sel_is_null(sel))
        cpu_raise_gp0(v);
    struct descriptor d = desc_fetch(v, sel, VEC_GP);
    uint32_t attr = desc_attr(&d);
    if (rpl < vcpu_cpl(v) || !attr_code(attr) ||
        (attr_conforming(attr) ? attr_dpl(attr) > rpl : attr_dpl(attr) != rpl))
        raise_selector(v, VEC_GP, sel);
    return code_segment(v, sel, &d, rpl, rip);
}

static struct segment return_stack(struct vcpu *v, uint16_t sel, unsigned cpl, bool to64)
{
    if (sel_is_null(sel) && to64 && cpl != 3 && sel_rpl(sel) == cpl)
        return seg_null(sel, cpl);
    return seg_check_stack(v, sel, cpl, VEC_GP);
}

/* Pops SS and RSP from `off` above the stack pointer. */
static void pop_stack(struct vcpu *v, const struct stack *st, uint64_t off, unsigned size,
                      struct return_to *to)
{
    bool to64 = is_code64(v, to->cs.attr);
    uint64_t rsp = stack_peek(v, st, off, size);
    to->ss = return_stack(v, (uint16_t)stack_peek(v, st, off + size, size), to->cpl, to64);
    to->rsp = stack_pointer_in(v, &to->ss, to64, rsp);
    to->new_ss = true;
}

/* Segments that outer code may not see are made null (SDM 3A 5.8.6); a null one's base stays (it may be
 * FS's or GS's). */
static void hide_inner_segments(struct vcpu *v, unsigned cpl)
{
    static const enum seg data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
    for (unsigned i = 0; i < array_size(data); i++) {
        struct segment *s = &v->s.seg[data[i]];
        if ((s->attr & SA_UNUSABLE) || (attr_dpl(s->attr) < cpl && !attr_conforming(s->attr))) {
            s->sel = 0;
            s->attr |= SA_UNUSABLE;
        }
    }
}

static void commit_return(struct vcpu *v, const struct return_to *to)
{
    bool outward = to->cpl > vcpu_cpl(v);
    if (to->new_ss)
        v->s.seg[SEG_SS] = to->ss;
    v->s.gpr[RSP] = to->rsp;
    if (outward)
        hide_inner_segments(v, to->cpl);
    commit_code(v, &to->cs, to->rip);
}

void cpu_ret_far(struct vcpu *v, unsigned size, uint16_t pop_bytes)
{
    struct stack st = stack_current(v);
    struct return_to to = { .rip = stack_peek(v, &st, 0, size), .cpl = vcpu_cpl(v) };
    uint16_t sel = (uint16_t)stack_peek(v, &st, size, size);
    uint64_t above = 2 * size + (uint64_t)pop_bytes;
    if (!vcpu_protected(v)) {
        to.cs = code_segment_8086(v, sel, to.rip);
    } else {
        to.cs = return_code(v, sel, to.rip);
        to.cpl = sel_rpl(sel);
    }
    if (to.cpl > vcpu_cpl(v)) {
        pop_stack(v, &st, above, size, &to);
        bool to64 = is_code64(v, to.cs.attr);
        uint64_t mask = to64 ? ~0ull : (to.ss.attr & SA_DB) ? 0xffffffff : 0xffff;
        to.rsp = (to.rsp & ~mask) | ((to.rsp + pop_bytes) & mask);
    } else {
        stack_drop(&st, above);
        to.rsp = stack_rsp(&st);
    }
    commit_return(v, &to);
}

static uint64_t iret_flags_mask(const struct vcpu *v, unsigned size)
{
    uint64_t mask = FL_POP16;
    unsigned cpl = vcpu_cpl(v);
    if (size > 2)
        mask |= FL_POP32 | FL_RF;
    if (cpl <= flags_iopl(v))
        mask |= FL_IF;
    if (cpl == 0)
        mask |= FL_IOPL | (size > 2 ? FL_VIF | FL_VIP : 0);
    return mask;
}

/* IRET of real mode and of virtual-8086 mode. */
static void iret_8086(struct vcpu *v, unsigned size)
{
    bool vm86 = (v->s.rflags & FL_VM) != 0;
    bool virtual_if = vm86 && flags_iopl(v) < 3;
    if (virtual_if && (!(v->s.cr4 & CR4_VME) || size != 2))
        cpu_raise_gp0(v);
    struct stack st = stack_current(v);
    uint64_t rip = stack_peek(v, &st, 0, size);
    uint16_t sel = (uint16_t)stack_peek(v, &st, size, size);
    uint64_t flags = stack_peek(v, &st, 2 * size, size);
    uint64_t mask = FL_POP16 | (size > 2 ? FL_POP32 | FL_RF : 0);
    if (!virtual_if) {
        mask |= FL_IF | (vm86 ? 0 : FL_IOPL);
    } else {
        /* SDM 3A 20.3.2: IF of the image means VIF. */
        if ((flags & FL_TF) || ((v->s.rflags & FL_VIP) && (flags & FL_IF)))
            cpu_raise_gp0(v);
        flags |= (flags & FL_IF) ? FL_VIF : 0;
        mask |= FL_VIF;
    }
    struct segment cs = code_segment_8086(v, sel, rip);
    stack_drop(&st, 3 * size);
    v->s.gpr[RSP] = stack_rsp(&st);
    flags_write(v, flags, mask);
    commit_code(v, &cs, rip);
}

/* SDM 3A 20.2.3: back to virtual-8086 mode, from a frame of nine dwords. */
static void iret_to_vm86(struct vcpu *v, const struct stack *st, uint64_t rip, uint16_t cs_sel,
                         uint64_t flags)
{
    static const enum seg popped[] = { SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
    uint16_t sel[array_size(popped)];
    uint64_t esp = stack_peek(v, st, 12, 4);
    for (unsigned i = 0; i < array_size(popped); i++)
        sel[i] = (uint16_t)stack_peek(v, st, 16 + 4 * i, 4);
    struct segment cs = seg_vm86(cs_sel);
    check_target(v, &cs, rip);
    for (unsigned i = 0; i < array_size(popped); i++)
        v->s.seg[popped[i]] = seg_vm86(sel[i]);
    v->s.gpr[RSP] = esp;
    flags_write(v, flags, iret_flags_mask(v, 4) | FL_VM);
    commit_code(v, &cs, rip);
    if ((v->s.cr4 & CR4_VME) && (~v->s.rflags & (FL_VIF | FL_VIP)) == 0) {
        /* A virtual interrupt is due before the first instruction (SDM 3A 20.3.2): a fault of the new
         * context. */
        v->exception = (struct exception){ .vector = VEC_GP, .has_error = true };
        cpu_deliver_exception(v);
    }
}

static void iret_protected(struct vcpu *v, unsigned size)
{
    bool lma = vcpu_lma(v), from64 = vcpu_long64(v);
    if (v->s.rflags & FL_NT) {
        if (lma)
            cpu_raise_gp0(v);
        task_return(v);
        return;
    }
    struct stack st = stack_current(v);
    struct return_to to = { .rip = stack_peek(v, &st, 0, size) };
    uint16_t sel = (uint16_t)stack_peek(v, &st, size, size);
    uint64_t flags = stack_peek(v, &st, 2 * size, size);
    if (size == 4 && !lma && (flags & FL_VM) && vcpu_cpl(v) == 0) {
        iret_to_vm86(v, &st, to.rip, sel, flags);
        return;
    }
    to.cs = return_code(v, sel, to.rip);
    to.cpl = sel_rpl(sel);
    if (from64 || to.cpl > vcpu_cpl(v)) {
        pop_stack(v, &st, 3 * size, size, &to);
    } else {
        stack_drop(&st, 3 * size);
        to.rsp = stack_rsp(&st);
    }
    flags_write(v, flags, iret_flags_mask(v, size));
    commit_return(v, &to);
}

void cpu_iret(struct vcpu *v, unsigned size)
{
    /* NMIs are let in again even when the IRET itself faults (SDM 3A 6.7.1; 3C 27.2.3 on "NMI unblocking
     * due to IRET"). */
    v->s.nmi_blocked = 0;
    if (vcpu_protected(v))
        iret_protected(v, size);
    else
        iret_8086(v, size);
    cpu_open_events(v);
}
