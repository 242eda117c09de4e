/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens between two instructions, by priority (SDM 3A Table 6-2):
 *
 *   INIT, SIPI ──► debug traps of the last instruction ──► NMI ──► interrupts (8259, then local APIC)
 *
 * Other threads post into atomics of the vcpu and set REQ_EVENT; the vcpu's own thread moves that into its
 * state here.
 */
#include "cpu/event.h"
#include "cpu/debug.h"
#include "cpu/interrupt.h"
#include "cpu/lapic.h"
#include "cpu/lapic_internal.h"

/* ---- Posting --------------------------------------------------------------------------------- */

void vcpu_set_pic_line(struct vcpu *v, bool level)
{
    bool before = atomic_exchange_explicit(&v->pic_line, level, memory_order_acq_rel);
    if (level && !before)
        atomic_fetch_or_explicit(&v->signals, SIGNAL_PIC_EDGE, memory_order_release);
    if (level)
        vcpu_request(v, REQ_EVENT);
}

void vcpu_post_interrupt(struct vcpu *v, uint8_t vector, bool level_triggered)
{
    uint32_t bit = 1u << (vector & 31);
    if (level_triggered)
        atomic_fetch_or_explicit(&v->tmr_posted[vector >> 5], bit, memory_order_relaxed);
    else
        atomic_fetch_and_explicit(&v->tmr_posted[vector >> 5], ~bit, memory_order_relaxed);
    /* Released after the trigger mode, which the vcpu reads once it has seen the request. */
    atomic_fetch_or_explicit(&v->irr_posted[vector >> 5], bit, memory_order_release);
    vcpu_request(v, REQ_EVENT);
}

static void post_signal(struct vcpu *v, uint32_t signal)
{
    atomic_fetch_or_explicit(&v->signals, signal, memory_order_release);
    vcpu_request(v, REQ_EVENT);
}

void vcpu_post_nmi(struct vcpu *v) { post_signal(v, SIGNAL_NMI); }

void vcpu_post_init(struct vcpu *v)
{
    /* A SIPI that came before this INIT was for nobody. */
    atomic_store_explicit(&v->sipi_posted, 0, memory_order_relaxed);
    post_signal(v, SIGNAL_INIT);
}

void vcpu_post_sipi(struct vcpu *v, uint8_t vector)
{
    atomic_store_explicit(&v->sipi_posted, vector | 0x100u, memory_order_release);
    vcpu_request(v, REQ_EVENT);
}

static void collect_posted(struct vcpu *v)
{
    /* The SIPI first: whoever sees it then sees the INIT that was posted before it, and does not drop it
     * as unasked for. */
    uint32_t sipi = 0, signals = 0;
    if (atomic_load_explicit(&v->lapic_timer_due, memory_order_relaxed))
        lapic_timer_poll(v); /* it may be set to deliver an NMI */
    if (atomic_load_explicit(&v->sipi_posted, memory_order_relaxed))
        sipi = atomic_exchange_explicit(&v->sipi_posted, 0, memory_order_acquire);
    if (atomic_load_explicit(&v->signals, memory_order_relaxed))
        signals = atomic_exchange_explicit(&v->signals, 0, memory_order_acquire);
    if (sipi) {
        v->s.sipi_pending = 1;
        v->s.sipi_vector = (uint8_t)sipi;
    }
    if (signals & SIGNAL_NMI)
        v->s.nmi_pending = 1;
    if (signals & SIGNAL_INIT)
        v->s.init_pending = 1;
    if (signals & SIGNAL_PIC_EDGE)
        lapic_fire_lvt(v, v->s.lapic.lvt_lint0);
}

/* ---- Deliverable? ---------------------------------------------------------------------------- */

static bool debug_trap_due(const struct vcpu *v)
{
    return (v->s.debug_pending & DR6_WRITABLE) && !(v->s.shadow & SHADOW_MOV_SS);
}

static bool nmi_due(const struct vcpu *v)
{
    return v->s.nmi_pending && !v->s.nmi_blocked && !(v->s.shadow & SHADOW_MOV_SS);
}

static bool interrupts_open(const struct vcpu *v) { return (v->s.rflags & FL_IF) && !v->s.shadow; }

static bool pic_due(const struct vcpu *v)
{
    return atomic_load_explicit(&v->pic_line, memory_order_acquire) && lapic_accepts_pic(v);
}

bool cpu_event_deliverable(struct vcpu *v)
{
    collect_posted(v);
    v->interrupt_held = true; /* unless found otherwise */
    if (v->s.init_pending)
        return true;
    switch (v->s.activity) {
    case ACTIVITY_WAIT_SIPI: return v->s.sipi_pending != 0;
    case ACTIVITY_SHUTDOWN: return false;
    default: break;
    }
    if (debug_trap_due(v) || nmi_due(v))
        return true;
    bool pending = pic_due(v) || lapic_pending(v) >= 0, open = interrupts_open(v);
    v->interrupt_held = (pending && !open) || v->s.nmi_pending;
    return pending && open;
}

void cpu_recheck_events(struct vcpu *v)
{
    if (cpu_event_deliverable(v))
        atomic_fetch_or_explicit(&v->requests, REQ_EVENT, memory_order_relaxed);
}

/* ---- Taking ---------------------------------------------------------------------------------- */

/* SDM 3A 8.4.4.1: real mode at vector:0000. */
static void start_by_sipi(struct vcpu *v)
{
    struct segment *cs = &v->s.seg[SEG_CS];
    cs->sel = (uint16_t)(v->s.sipi_vector << 8);
    cs->base = (uint64_t)v->s.sipi_vector << 12;
    v->s.rip = 0;
    v->s.sipi_pending = 0;
    v->s.activity = ACTIVITY_RUN;
    vcpu_refresh(v);
}

static void take_debug_trap(struct vcpu *v)
{
    v->s.dr[6] |= v->s.debug_pending & DR6_WRITABLE;
    v->s.debug_pending = 0;
    v->s.dr[7] &= ~DR7_GD;
    v->counters.exceptions_injected++;
    interrupt_deliver(v, (struct event){ .kind = EVENT_EXCEPTION, .vector = VEC_DB });
}

static void take_nmi(struct vcpu *v)
{
    v->s.nmi_pending = 0;
    v->s.nmi_blocked = 1;
    v->counters.interrupts_injected++;
    interrupt_deliver(v, (struct event){ .kind = EVENT_EXTERNAL, .vector = VEC_NMI });
}

/* The vector of the interrupt to take now, acknowledged; -1 if its source withdrew it. */
static int acknowledge(struct vcpu *v)
{
    if (pic_due(v)) {
        int vector = v->cb.ack_pic ? v->cb.ack_pic(v->cb.ctx) : -1;
        if (vector >= 0)
            return vector;
    }
    int vector = lapic_pending(v);
    if (vector >= 0)
        lapic_ack(v, (uint8_t)vector);
    return vector;
}

static bool take_interrupt(struct vcpu *v)
{
    int vector = acknowledge(v);
    if (vector < 0)
        return false;
    v->s.activity = ACTIVITY_RUN;
    v->counters.interrupts_injected++;
    interrupt_deliver(v, (struct event){ .kind = EVENT_EXTERNAL, .vector = (uint8_t)vector });
    return true;
}

static bool take_one(struct vcpu *v)
{
    if (v->s.init_pending) {
        vcpu_reset(v, true);
        v->s.init_pending = 0;
        return true;
    }
    if (v->s.activity == ACTIVITY_WAIT_SIPI) {
        if (!v->s.sipi_pending)
            return false;
        start_by_sipi(v);
        return true;
    }
    v->s.sipi_pending = 0; /* only a processor that waits for it listens */
    if (v->s.activity == ACTIVITY_SHUTDOWN)
        return false;
    if (debug_trap_due(v) || nmi_due(v)) {
        v->s.activity = ACTIVITY_RUN;
        if (debug_trap_due(v))
            take_debug_trap(v);
        else
            take_nmi(v);
        return true;
    }
    return interrupts_open(v) && take_interrupt(v);
}

bool cpu_take_events(struct vcpu *v)
{
    /* Cleared before looking: what is posted meanwhile sets it again. */
    atomic_fetch_and_explicit(&v->requests, ~REQ_EVENT, memory_order_acq_rel);
    collect_posted(v);
    bool changed = take_one(v);
    cpu_recheck_events(v);
    return changed;
}
