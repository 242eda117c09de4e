/* SPDX-License-Identifier: Apache-2.0 */
/* Exceptions and interrupts: delivery, priorities, windows (SDM 3A 6). What engines call between
 * instructions. */
#ifndef SUNDOG_CPU_EVENT_H
#define SUNDOG_CPU_EVENT_H

#include "cpu/vcpu.h"

/* Delivers v->exception, raised at the instruction whose address is in v->s.rip (faults) or after it
 * (traps: rip already moved). Nested faults become #DF and then shutdown (activity = ACTIVITY_SHUTDOWN).
 * Never unwinds out. */
void cpu_deliver_exception(struct vcpu *v);

/* Takes the pending event of highest priority at an instruction boundary, if one may be taken now:
 * INIT/SIPI, debug traps (s.debug_pending), NMI, interrupts (LAPIC, 8259), honouring IF, shadows and NMI
 * blocking. Wakes from HLT. Returns true when the state changed (something was delivered). Clears
 * REQ_EVENT; sets it again where more is waiting and deliverable. */
bool cpu_take_events(struct vcpu *v);
/* True when an event would be taken now, or would wake the vcpu from HLT / wait-for-SIPI. */
bool cpu_event_deliverable(struct vcpu *v);
/* After IF, TPR, shadow or NMI blocking changed: sets REQ_EVENT if something became deliverable. */
void cpu_recheck_events(struct vcpu *v);
/* The same after a change that lets in what was held back already (IF, NMI blocking), and adds nothing new. */
static inline void cpu_open_events(struct vcpu *v)
{
    if (v->interrupt_held || v->s.debug_pending)
        cpu_recheck_events(v);
}

/* Single-step trap and pending data-breakpoint traps after an instruction completed under MODE_STEP; code
 * breakpoints before one. */
void cpu_debug_after(struct vcpu *v, bool tf_before);
/* Raises #DB for a code breakpoint at the current rip (DR7, RF). Called before an instruction in
 * MODE_STEP. */
void cpu_debug_before(struct vcpu *v);
/* Data watchpoints: called by the slow access path. */
void cpu_debug_access(struct vcpu *v, uint64_t lin, unsigned size, enum mmu_access access);
void cpu_debug_io(struct vcpu *v, uint16_t port, unsigned size);

/* --- inputs from the machine, any thread --- */
void vcpu_set_pic_line(struct vcpu *v, bool level);                             /* 8259 INTR */
void vcpu_post_interrupt(struct vcpu *v, uint8_t vector, bool level_triggered); /* LAPIC fixed delivery */
void vcpu_post_nmi(struct vcpu *v);
void vcpu_post_init(struct vcpu *v);
void vcpu_post_sipi(struct vcpu *v, uint8_t vector);

#endif
