/* SPDX-License-Identifier: Apache-2.0 */
/* What lapic.c (registers, interrupts) and lapic_timer.c share. */
#ifndef SUNDOG_CPU_LAPIC_INTERNAL_H
#define SUNDOG_CPU_LAPIC_INTERNAL_H

#include "base/bits.h"
#include "cpu/vcpu.h"

/* Register offsets in the page; an x2APIC MSR is 0x800 + offset / 16 (SDM 3A Tables 10-1 and 10-6). */
enum lapic_reg {
    REG_ID = 0x20,
    REG_VERSION = 0x30,
    REG_TPR = 0x80,
    REG_APR = 0x90,
    REG_PPR = 0xa0,
    REG_EOI = 0xb0,
    REG_RRD = 0xc0,
    REG_LDR = 0xd0,
    REG_DFR = 0xe0,
    REG_SVR = 0xf0,
    REG_ISR = 0x100,
    REG_TMR = 0x180,
    REG_IRR = 0x200,
    REG_ESR = 0x280,
    REG_ICR_LOW = 0x300,
    REG_ICR_HIGH = 0x310,
    REG_LVT_TIMER = 0x320,
    REG_LVT_THERMAL = 0x330,
    REG_LVT_PERF = 0x340,
    REG_LVT_LINT0 = 0x350,
    REG_LVT_LINT1 = 0x360,
    REG_LVT_ERROR = 0x370,
    REG_TIMER_INITIAL = 0x380,
    REG_TIMER_CURRENT = 0x390,
    REG_TIMER_DIVIDE = 0x3e0,
    REG_SELF_IPI = 0x3f0,
};

#define LVT_VECTOR 0xffu
#define LVT_MODE 0x700u
#define LVT_MODE_FIXED 0x000u
#define LVT_MODE_NMI 0x400u
#define LVT_MODE_EXTINT 0x700u
#define LVT_DELIVERY_STATUS 0x1000u
#define LVT_REMOTE_IRR 0x4000u
#define LVT_LEVEL 0x8000u
#define LVT_MASKED 0x10000u
#define LVT_TIMER_MODE 0x60000u
#define LVT_TIMER_ONESHOT 0x00000u
#define LVT_TIMER_PERIODIC 0x20000u
#define LVT_TIMER_DEADLINE 0x40000u

#define SVR_ENABLED 0x100u

#define ESR_SEND_ILLEGAL 0x20u
#define ESR_RECEIVE_ILLEGAL 0x40u
#define ESR_ILLEGAL_REGISTER 0x80u

#define APIC_BASE_ENABLED BIT(11)
#define APIC_BASE_X2APIC BIT(10)

/* A local interrupt source fires: delivers what its LVT entry says. On the vcpu's thread. */
void lapic_fire_lvt(struct vcpu *v, uint32_t lvt);
/* Records an error; the error LVT fires if this one is new. */
void lapic_error(struct vcpu *v, uint32_t bit);

/* --- lapic_timer.c --- */
void lapic_timer_init(struct vcpu *v);
void lapic_timer_reset(struct vcpu *v);
/* Looks whether the timer expired, if its deadline has passed since the last look. */
void lapic_timer_poll(struct vcpu *v);
uint32_t lapic_timer_current(struct vcpu *v);
void lapic_timer_set_initial(struct vcpu *v, uint32_t val);
void lapic_timer_set_divide(struct vcpu *v, uint32_t val);
void lapic_timer_set_lvt(struct vcpu *v, uint32_t val);
void lapic_timer_set_deadline(struct vcpu *v, uint64_t tsc);

#endif
