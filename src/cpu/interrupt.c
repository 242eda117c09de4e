/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Delivery of exceptions and interrupts (SDM 3A 6.12 protected mode, 6.14 long mode, 20.1.4 real mode, 20.3
 * virtual-8086 mode).
 *
 *   vector ──► IVT entry or IDT gate ──► handler's code segment ──► stack (same, TSS, IST) ──► frame ──► commit
 *
 * Everything up to the commit may fault; then nothing has changed but memory below the stack pointer.
 * interrupt_deliver() takes the fault as the next event: served after the first, or #DF, or shutdown.
 */
#include "cpu/interrupt.h"
#include "cpu/access.h"
#include "cpu/debug.h"
#include "cpu/descriptor.h"
#include "cpu/event.h"
#include "cpu/flags.h"
#include "cpu/ops.h"
#include "cpu/stack.h"
#include "cpu/task.h"

/* Error codes that name an IDT entry (SDM 3A 6.13). */
#define ERROR_EXT 1u
#define ERROR_IDT 2u

static uint32_t ext(const struct vcpu *v) { return v->in_delivery ? ERROR_EXT : 0; }

static noreturn_fn void raise_vector(struct vcpu *v, enum vector vec, uint8_t vector)
{
    cpu_raise_error(v, vec, (uint32_t)vector * 8 | ERROR_IDT | ext(v));
}

static bool is_software(const struct event *ev)
{
    return ev->kind == EVENT_SOFTWARE || ev->kind == EVENT_ICEBP;
}

/* Exceptions that are faults: the instruction is executed again, so its breakpoint must not hit twice. #DB
 * sets RF itself where it is due (debug.c). */
#define FAULT_VECTORS \
    (BIT(VEC_DE) | BIT(VEC_BR) | BIT(VEC_UD) | BIT(VEC_NM) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | \
     BIT(VEC_GP) | BIT(VEC_PF) | BIT(VEC_MF) | BIT(VEC_AC) | BIT(VEC_XM))

/* EFLAGS as the frame or the old TSS shows it (RF: SDM 3B 17.3.1.1). */
static uint64_t flags_image(const struct vcpu *v, const struct event *ev)
{
    uint64_t flags = state_rflags(&v->s);
    if (ev->kind == EVENT_EXCEPTION && (FAULT_VECTORS >> ev->vector & 1))
        flags |= FL_RF;
    return flags;
}

/* The handler is entered: flags that every delivery clears, and IF where `masks` says so. */
static void commit_handler(struct vcpu *v, const struct segment *cs, uint64_t rip, uint64_t clear)
{
    v->s.seg[SEG_CS] = *cs;
    v->s.rip = rip;
    v->s.rflags &= ~clear;
    v->s.shadow = 0;
    vcpu_refresh_privilege(v);
}

/* ---- Real mode, and virtual-8086 interrupts redirected by VME -------------------------------- */

/* Through a table of 4-byte far pointers at `table`, with a frame of three words. */
static void deliver_8086(struct vcpu *v, uint64_t table, uint8_t vector, uint64_t flags, uint64_t clear)
{
    bool vm86 = (v->s.rflags & FL_VM) != 0;
    uint64_t entry = sys_read(v, table + vector * 4u, 4);
    uint16_t sel = (uint16_t)(entry >> 16), ip = (uint16_t)entry;
    struct segment cs = vm86 ? seg_vm86(sel) : seg_real(&v->s.seg[SEG_CS], sel);
    struct stack st = stack_current(v);
    stack_push(v, &st, flags, 2);
    stack_push(v, &st, v->s.seg[SEG_CS].sel, 2);
    stack_push(v, &st, v->s.rip, 2);
    if (ip > cs.limit)
        cpu_raise_gp0(v);
    v->s.gpr[RSP] = stack_rsp(&st);
    commit_handler(v, &cs, ip, clear);
}

static void deliver_real(struct vcpu *v, const struct event *ev)
{
    if (ev->vector * 4u + 3 > v->s.idtr.limit)
        raise_vector(v, VEC_GP, ev->vector);
    deliver_8086(v, v->s.idtr.base, ev->vector, flags_image(v, ev), FL_IF | FL_TF | FL_AC | FL_RF);
}

/* Is INT n of virtual-8086 mode to be redirected to the 8086 program (SDM 3A 20.3, software interrupt
 * redirection bitmap)? */
static bool vme_redirects(struct vcpu *v, uint8_t vector)
{
    uint64_t io_base, map;
    if (!(v->s.cr4 & CR4_VME))
        return false;
    if (!(v->s.tr.attr & SYS_32BIT) || !tss_read(v, 0x66, 2, &io_base) || io_base < 32 ||
        !tss_read(v, (uint32_t)io_base - 32 + vector / 8, 1, &map))
        cpu_raise_gp0(v);
    return !(map >> (vector & 7) & 1);
}

/* INT n in virtual-8086 mode: true when it is done (SDM 3A Table 20-2, methods 5 and 6), false for the IDT
 * (1 and 4). */
static bool vm86_int(struct vcpu *v, uint8_t vector)
{
    bool trusted = flags_iopl(v) == 3;
    if (!vme_redirects(v, vector)) {
        if (!trusted)
            cpu_raise_gp0(v);
        return false;
    }
    uint64_t flags = state_rflags(&v->s);
    if (!trusted)
        flags = (flags & ~(uint64_t)FL_IF) | FL_IOPL | ((flags & FL_VIF) ? FL_IF : 0);
    bool tf_before = (flags & FL_TF) != 0;
    deliver_8086(v, 0, vector, flags, FL_TF | FL_RF | (trusted ? FL_IF : FL_VIF));
    debug_cancel_step(v, tf_before);
    return true;
}

/* ---- The IDT --------------------------------------------------------------------------------- */

/* Reads and checks the gate; `types` says which are allowed, a bit each. */
static struct gate fetch_gate(struct vcpu *v, const struct event *ev, unsigned size, uint32_t types)
{
    uint32_t off = ev->vector * size;
    if (off + size - 1 > v->s.idtr.limit)
        raise_vector(v, VEC_GP, ev->vector);
    struct descriptor d = { .lin = v->s.idtr.base + off };
    d.low = sys_read(v, d.lin, 8);
    if (size == 16)
        d.high = sys_read(v, d.lin + 8, 8) & 0xffffffff;
    struct gate gate = gate_from_desc(&d);
    if (!attr_system(gate.attr) || !(types >> attr_type(gate.attr) & 1))
        raise_vector(v, VEC_GP, ev->vector);
    if (ev->kind == EVENT_SOFTWARE && attr_dpl(gate.attr) < vcpu_cpl(v))
        raise_vector(v, VEC_GP, ev->vector);
    if (!attr_present(gate.attr))
        raise_vector(v, VEC_NP, ev->vector);
    return gate;
}

/* The handler's code segment, its RPL and `*cpl` being the privilege it will run at. */
static struct segment handler_code(struct vcpu *v, const struct gate *gate, uint64_t rip, unsigned *cpl)
{
    if (sel_is_null(gate->sel))
        cpu_raise_error(v, VEC_GP, ext(v));
    struct descriptor d = desc_fetch(v, gate->sel, VEC_GP);
    uint32_t attr = desc_attr(&d);
    unsigned dpl = attr_dpl(attr);
    if (!attr_code(attr) || dpl > *cpl || (vcpu_lma(v) && (attr & (SA_L | SA_DB)) != SA_L))
        raise_selector(v, VEC_GP, gate->sel);
    if (!attr_conforming(attr))
        *cpl = dpl;
    /* Out of virtual-8086 mode it goes to privilege 0 only (SDM 3A 20.3.1.1). */
    if ((v->s.rflags & FL_VM) && *cpl != 0)
        raise_selector(v, VEC_GP, gate->sel);
    if (!attr_present(attr))
        raise_selector(v, VEC_NP, gate->sel);
    struct segment cs = seg_from_desc(sel_with_rpl(gate->sel, *cpl), &d);
    if (vcpu_lma(v) ? !is_canonical(rip) : rip > cs.limit)
        cpu_raise_error(v, VEC_GP, ext(v));
    desc_mark_accessed(v, &d);
    return cs;
}

static void push_frame(struct vcpu *v, struct stack *st, const struct event *ev, unsigned slot)
{
    stack_push(v, st, flags_image(v, ev), slot);
    stack_push(v, st, v->s.seg[SEG_CS].sel, slot);
    stack_push(v, st, v->s.rip, slot);
    if (ev->has_error)
        stack_push(v, st, ev->error, slot);
}

static uint64_t flags_cleared_by(const struct gate *gate)
{
    bool interrupt_gate = (attr_type(gate->attr) & 1) == 0;
    return FL_TF | FL_NT | FL_RF | FL_VM | (interrupt_gate ? FL_IF : 0);
}

/* Data segments of virtual-8086 mode mean nothing to the handler: saved in the frame, then null. */
static const enum seg vm86_saved[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };

static void deliver_task_gate(struct vcpu *v, const struct event *ev, const struct gate *gate)
{
    enum task_reason why = is_software(ev) ? TASK_INT : TASK_EVENT;
    if (!task_switch(v, gate->sel, why, flags_image(v, ev)) || !ev->has_error)
        return;
    struct stack st = stack_current(v);
    stack_push(v, &st, ev->error, (v->s.tr.attr & SYS_32BIT) ? 4 : 2);
    v->s.gpr[RSP] = stack_rsp(&st);
}

static void deliver_protected(struct vcpu *v, const struct event *ev)
{
    struct gate gate = fetch_gate(v, ev, 8,
                                  BIT(SYS_TASK_GATE) | BIT(SYS_INT_GATE16) | BIT(SYS_TRAP_GATE16) |
                                      BIT(SYS_INT_GATE32) | BIT(SYS_TRAP_GATE32));
    if (attr_type(gate.attr) == SYS_TASK_GATE) {
        deliver_task_gate(v, ev, &gate);
        return;
    }
    bool vm86 = (v->s.rflags & FL_VM) != 0;
    unsigned slot = (gate.attr & SYS_32BIT) ? 4 : 2;
    unsigned old_cpl = vcpu_cpl(v), cpl = old_cpl;
    uint64_t rip = gate.offset & mask_bytes(slot);
    struct segment cs = handler_code(v, &gate, rip, &cpl);
    struct stack st = cpl < old_cpl ? stack_inner(v, cpl) : stack_current(v);
    if (vm86)
        for (unsigned i = 0; i < array_size(vm86_saved); i++)
            stack_push(v, &st, v->s.seg[vm86_saved[i]].sel, slot);
    if (cpl < old_cpl) {
        stack_push(v, &st, v->s.seg[SEG_SS].sel, slot);
        stack_push(v, &st, v->s.gpr[RSP], slot);
    }
    push_frame(v, &st, ev, slot);

    if (vm86)
        for (unsigned i = 0; i < array_size(vm86_saved); i++)
            v->s.seg[vm86_saved[i]] = seg_null(0, 0);
    v->s.seg[SEG_SS] = st.ss;
    v->s.gpr[RSP] = stack_rsp(&st);
    commit_handler(v, &cs, rip, flags_cleared_by(&gate));
}

/* SDM 3A 6.14: always 64-bit code, always SS:RSP in the frame, on a 16-byte boundary. */
static void deliver_long(struct vcpu *v, const struct event *ev)
{
    struct gate gate = fetch_gate(v, ev, 16, BIT(SYS_INT_GATE32) | BIT(SYS_TRAP_GATE32));
    unsigned old_cpl = vcpu_cpl(v), cpl = old_cpl;
    unsigned ist = gate.params & 7;
    struct segment cs = handler_code(v, &gate, gate.offset, &cpl);
    struct stack st;
    if (ist) {
        uint64_t rsp;
        if (!tss_read(v, 0x24 + 8 * (ist - 1), 8, &rsp))
            raise_selector(v, VEC_TS, v->s.tr.sel);
        st = stack_long(v, rsp, cpl);
    } else {
        st = cpl < old_cpl ? stack_inner(v, cpl) : stack_long(v, v->s.gpr[RSP], cpl);
    }
    st.sp &= ~15ull;
    stack_push(v, &st, v->s.seg[SEG_SS].sel, 8);
    stack_push(v, &st, v->s.gpr[RSP], 8);
    push_frame(v, &st, ev, 8);

    if (cpl < old_cpl)
        v->s.seg[SEG_SS] = seg_null((uint16_t)cpl, cpl);
    v->s.gpr[RSP] = st.sp;
    commit_handler(v, &cs, gate.offset, flags_cleared_by(&gate));
}

static void deliver(struct vcpu *v, const struct event *ev)
{
    if (!(v->s.cr0 & CR0_PE))
        deliver_real(v, ev);
    else if (vcpu_lma(v))
        deliver_long(v, ev);
    else
        deliver_protected(v, ev);
}

/* ---- Nested faults --------------------------------------------------------------------------- */

/* SDM 3A Table 6-4. */
enum severity { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum severity severity_of(const struct event *ev)
{
    if (ev->kind != EVENT_EXCEPTION)
        return BENIGN;
    switch (ev->vector) {
    case VEC_DE:
    case VEC_TS:
    case VEC_NP:
    case VEC_SS:
    case VEC_GP: return CONTRIBUTORY;
    case VEC_PF: return PAGE_FAULT;
    case VEC_DF: return DOUBLE_FAULT;
    default: return BENIGN;
    }
}

enum outcome { SERVE_SECOND, BECOMES_DOUBLE_FAULT, BECOMES_SHUTDOWN };

/* SDM 3A Table 6-5: [first event][second event]. */
static const enum outcome nested[4][4] = {
    [CONTRIBUTORY] = { [CONTRIBUTORY] = BECOMES_DOUBLE_FAULT },
    [PAGE_FAULT] = { [CONTRIBUTORY] = BECOMES_DOUBLE_FAULT, [PAGE_FAULT] = BECOMES_DOUBLE_FAULT },
    [DOUBLE_FAULT] = { [CONTRIBUTORY] = BECOMES_SHUTDOWN, [PAGE_FAULT] = BECOMES_SHUTDOWN },
};

static struct event event_of(const struct exception *ex)
{
    return (struct event){
        .kind = EVENT_EXCEPTION, .vector = ex->vector, .has_error = ex->has_error, .error = ex->error
    };
}

/* False when the delivery was cut short by an exception, which is in v->exception then. */
static bool try_deliver(struct vcpu *v, const struct event *ev)
{
    jmp_buf here;
    v->unwind = &here;
    if (setjmp(here) != 0)
        return false;
    deliver(v, ev);
    return true;
}

/* Benign faults are served one after the other; a handler whose stack makes each of them fault again must
 * not hold us here. */
#define NESTED_MAX 8

void interrupt_deliver(struct vcpu *v, struct event ev)
{
    jmp_buf *outer = v->unwind;
    bool store_code = v->store_code;
    v->in_delivery = true;
    v->store_code = true; /* a frame may lie on a page with code: nobody could execute this again */
    for (unsigned tries = 0; !try_deliver(v, &ev); tries++) {
        struct event second = event_of(&v->exception);
        enum outcome outcome = nested[severity_of(&ev)][severity_of(&second)];
        if (outcome == BECOMES_SHUTDOWN || tries == NESTED_MAX) {
            log_guest(v->log, "vcpu %u: triple fault: vector %u during vector %u at %#llx", v->index,
                      second.vector, ev.vector, (unsigned long long)v->s.rip);
            v->s.activity = ACTIVITY_SHUTDOWN;
            v->s.shadow = 0;
            break;
        }
        ev = outcome == SERVE_SECOND
                 ? second
                 : (struct event){ .kind = EVENT_EXCEPTION, .vector = VEC_DF, .has_error = true };
    }
    v->store_code = store_code;
    v->in_delivery = false;
    v->unwind = outer;
}

void cpu_deliver_exception(struct vcpu *v)
{
    v->counters.exceptions_injected++;
    if (v->exception.vector == VEC_DB)
        v->s.dr[7] &= ~DR7_GD; /* GD is off inside the handler (SDM 3B 17.2.4) */
    interrupt_deliver(v, event_of(&v->exception));
    v->store_code = false; /* the licence was the interrupted instruction's */
}

/* ---- INT n, INT3, INTO, INT1 ----------------------------------------------------------------- */

static void deliver_software(struct vcpu *v, enum event_kind kind, uint8_t vector)
{
    struct event ev = { .kind = kind, .vector = vector };
    bool tf_before = (v->s.rflags & FL_TF) != 0;
    v->in_delivery = kind == EVENT_ICEBP; /* EXT = 1 for INT1 */
    deliver(v, &ev);
    v->in_delivery = false;
    debug_cancel_step(v, tf_before);
}

void cpu_int(struct vcpu *v, uint8_t vector)
{
    if ((v->s.rflags & FL_VM) && vm86_int(v, vector))
        return;
    deliver_software(v, EVENT_SOFTWARE, vector);
}

void cpu_int3(struct vcpu *v) { deliver_software(v, EVENT_SOFTWARE, VEC_BP); }

void cpu_into(struct vcpu *v) { deliver_software(v, EVENT_SOFTWARE, VEC_OF); }

void cpu_int1(struct vcpu *v) { deliver_software(v, EVENT_ICEBP, VEC_DB); }
