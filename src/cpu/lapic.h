/* SPDX-License-Identifier: Apache-2.0 */
/* The local APIC: processor state, a memory page (or x2APIC MSRs), a timer on the virtual clock (SDM 3A
 * 10). */
#ifndef SUNDOG_CPU_LAPIC_H
#define SUNDOG_CPU_LAPIC_H

#include "cpu/vcpu.h"

void lapic_init(struct vcpu *v);
void lapic_reset(struct vcpu *v);
/* Register page access at the APIC base, from the vcpu's own slow memory path. Width 4 expected; others
 * follow hardware loosely. */
uint32_t lapic_read(struct vcpu *v, uint32_t off);
void lapic_write(struct vcpu *v, uint32_t off, uint32_t val);
/* True if the LAPIC page answers at this address (enabled in IA32_APIC_BASE, xAPIC mode). */
bool lapic_claims(const struct vcpu *v, gpa addr);
/* MSR faces: IA32_TSC_DEADLINE, x2APIC 0x800-0x8ff; false = #GP. */
bool lapic_msr_read(struct vcpu *v, uint32_t msr, uint64_t *val);
bool lapic_msr_write(struct vcpu *v, uint32_t msr, uint64_t val);
uint8_t lapic_get_cr8(const struct vcpu *v);
void lapic_set_cr8(struct vcpu *v, uint8_t cr8);
/* Highest deliverable vector by IRR, ISR and TPR, or -1; and its acknowledge (IRR -> ISR). Merges posted
 * interrupts first. */
int lapic_pending(struct vcpu *v);
void lapic_ack(struct vcpu *v, uint8_t vector);
/* True when the 8259's INTR reaches this processor: LINT0 as ExtINT unmasked, or APIC disabled (BSP only). */
bool lapic_accepts_pic(const struct vcpu *v);
/* Does this vcpu match an IPI/MSI destination (physical or logical, flat or cluster; SDM 3A 10.6.2)? */
bool lapic_matches(const struct vcpu *v, uint8_t dest, bool logical);
/* After a load or a clock change: re-arms the timer from the state. */
void lapic_rearm(struct vcpu *v);

#endif
