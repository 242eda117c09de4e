/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local APIC's timer: one-shot, periodic and TSC-deadline (SDM 3A 10.5.4).
 *
 * The truth is s.lapic.timer_at, the virtual time of the next expiry; the deadline on the clock is only its
 * alarm. The alarm may ring on another vcpu's thread, so it sets a flag and asks the owner to look.
 */
#include "cpu/lapic.h"
#include "cpu/lapic_internal.h"
#include "cpu/ops.h"

/* The timer counts virtual nanoseconds (a 1 GHz bus clock, told in CPUID leaf 0x40000010) divided by the
 * divide register. */

/* A periodic timer whose period is shorter than this ticks this often: what no guest can want may not cost
 * the host a core. */
#define MIN_REARM_NS 5000u

static void ring(void *ctx, uint64_t now)
{
    struct vcpu *v = ctx;
    (void)now;
    atomic_store(&v->lapic_timer_due, true);
    vcpu_request(v, REQ_EVENT);
}

void lapic_timer_init(struct vcpu *v) { deadline_init(&v->lapic_timer, ring, v); }

static uint32_t mode_of(const struct vcpu *v) { return v->s.lapic.lvt_timer & LVT_TIMER_MODE; }

/* Divide configuration 0,1,2,3,8,9,10,11 means 2,4,8,16,32,64,128,1 (SDM 3A Figure 10-10). */
static unsigned divide_shift(const struct vcpu *v)
{
    uint32_t d = v->s.lapic.timer_divide;
    return (((d & 3) | (d >> 1 & 4)) + 1) & 7;
}

static uint64_t period(const struct vcpu *v) { return (uint64_t)v->s.lapic.timer_initial << divide_shift(v); }

void lapic_rearm(struct vcpu *v)
{
    if (v->s.lapic.timer_at)
        deadline_arm(v->clock, &v->lapic_timer, v->s.lapic.timer_at);
    else
        deadline_cancel(v->clock, &v->lapic_timer);
}

/* The next expiry, in virtual ns; 0 turns the timer off, and power-on itself counts as 1. */
static void expire_at(struct vcpu *v, uint64_t at, bool armed)
{
    v->s.lapic.timer_at = !armed ? 0 : at ? at : 1;
    lapic_rearm(v);
}

void lapic_timer_reset(struct vcpu *v)
{
    v->s.msr.tsc_deadline = 0;
    atomic_store(&v->lapic_timer_due, false);
    expire_at(v, 0, false);
}

static void start_count(struct vcpu *v)
{
    struct lapic_state *l = &v->s.lapic;
    l->timer_start = vcpu_now(v);
    expire_at(v, l->timer_start + period(v), l->timer_initial != 0);
}

/* Periodic: ticks that were missed coalesce into this one, and the phase is kept. */
static void next_period(struct vcpu *v, uint64_t now)
{
    struct lapic_state *l = &v->s.lapic;
    uint64_t every = period(v);
    if (!every) {
        expire_at(v, 0, false);
        return;
    }
    if (now > l->timer_start)
        l->timer_start += (now - l->timer_start) / every * every;
    uint64_t next = l->timer_start + every;
    expire_at(v, next < now + MIN_REARM_NS ? now + MIN_REARM_NS : next, true);
}

void lapic_timer_poll(struct vcpu *v)
{
    struct lapic_state *l = &v->s.lapic;
    if (likely(!atomic_load_explicit(&v->lapic_timer_due, memory_order_relaxed)))
        return;
    atomic_store(&v->lapic_timer_due, false);
    uint64_t now = vcpu_now(v);
    if (!l->timer_at)
        return;
    if (now < l->timer_at) { /* rang for a time that was changed meanwhile */
        lapic_rearm(v);
        return;
    }
    if (mode_of(v) == LVT_TIMER_PERIODIC) {
        next_period(v, now);
    } else {
        v->s.msr.tsc_deadline = 0;
        expire_at(v, 0, false);
    }
    lapic_fire_lvt(v, l->lvt_timer);
}

uint32_t lapic_timer_current(struct vcpu *v)
{
    const struct lapic_state *l = &v->s.lapic;
    uint64_t every = period(v), gone;
    if (!l->timer_at || !every || mode_of(v) == LVT_TIMER_DEADLINE)
        return 0;
    uint64_t now = vcpu_now(v);
    gone = now > l->timer_start ? now - l->timer_start : 0;
    if (mode_of(v) == LVT_TIMER_PERIODIC)
        gone %= every;
    return gone >= every ? 0 : (uint32_t)((every - gone) >> divide_shift(v));
}

void lapic_timer_set_initial(struct vcpu *v, uint32_t val)
{
    if (mode_of(v) == LVT_TIMER_DEADLINE)
        return; /* ignored in this mode */
    v->s.lapic.timer_initial = val;
    start_count(v);
}

/* The count goes on from where it is at the new rate. */
void lapic_timer_set_divide(struct vcpu *v, uint32_t val)
{
    struct lapic_state *l = &v->s.lapic;
    uint32_t left = lapic_timer_current(v);
    bool counting = l->timer_at && mode_of(v) != LVT_TIMER_DEADLINE;
    l->timer_divide = val & 0xb;
    if (!counting)
        return;
    uint64_t end = vcpu_now(v) + ((uint64_t)left << divide_shift(v));
    l->timer_start = end > period(v) ? end - period(v) : 0;
    expire_at(v, end, true);
}

void lapic_timer_set_lvt(struct vcpu *v, uint32_t val)
{
    uint32_t before = mode_of(v);
    v->s.lapic.lvt_timer = val;
    if (((before ^ val) & LVT_TIMER_MODE) == 0)
        return;
    if (before == LVT_TIMER_DEADLINE || mode_of(v) == LVT_TIMER_DEADLINE) {
        v->s.lapic.timer_initial = 0;
        v->s.msr.tsc_deadline = 0;
        expire_at(v, 0, false);
    }
}

void lapic_timer_set_deadline(struct vcpu *v, uint64_t tsc)
{
    if (mode_of(v) != LVT_TIMER_DEADLINE)
        return; /* writes are ignored in other modes */
    v->s.msr.tsc_deadline = tsc;
    expire_at(v, tsc ? vcpu_tsc_to_ns(v, tsc) : 0, tsc != 0);
}
