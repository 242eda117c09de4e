/* SPDX-License-Identifier: Apache-2.0 */
/* Hardware task switching (SDM 3A 7). */
#ifndef SUNDOG_CPU_TASK_H
#define SUNDOG_CPU_TASK_H

#include "cpu/vcpu.h"

enum task_reason {
    TASK_JMP,
    TASK_CALL,
    TASK_IRET,
    TASK_INT,   /* INT n, INT3, INTO, INT1 through a task gate */
    TASK_EVENT, /* exception or interrupt through one: faults go on unwinding to interrupt_deliver() */
};

/*
 * Switches to the task whose TSS is `sel`; `flags` is what the old task's EFLAGS image shows, s.rip where it
 * goes on. Faults found before the switch is committed are raised in the old task. Later ones belong to the
 * new task: they are delivered there (raised, for TASK_EVENT), and the result is false.
 */
bool task_switch(struct vcpu *v, uint16_t sel, enum task_reason why, uint64_t flags);
/* JMP and CALL with a task gate: the checks of the gate, then the switch. */
void task_through_gate(struct vcpu *v, uint16_t sel, uint32_t attr, uint16_t tss_sel, enum task_reason why);
/* JMP and CALL with the selector of a TSS. */
void task_direct(struct vcpu *v, uint16_t sel, uint32_t attr, enum task_reason why);
/* IRET with NT set: back to the task of the back link. */
void task_return(struct vcpu *v);

#endif
