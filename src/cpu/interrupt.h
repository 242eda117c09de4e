/* SPDX-License-Identifier: Apache-2.0 */
/* Delivery of one event through the IVT or IDT (SDM 3A 6.12-6.14). */
#ifndef SUNDOG_CPU_INTERRUPT_H
#define SUNDOG_CPU_INTERRUPT_H

#include "cpu/vcpu.h"

enum event_kind {
    EVENT_EXCEPTION, /* raised by an instruction */
    EVENT_EXTERNAL,  /* interrupt or NMI */
    EVENT_SOFTWARE,  /* INT n, INT3, INTO: the gate's DPL counts, nested faults are the instruction's own */
    EVENT_ICEBP,     /* INT1: like EVENT_SOFTWARE without the check of DPL */
};

struct event {
    enum event_kind kind;
    uint8_t vector;
    bool has_error;
    uint32_t error;
};

/* Delivers and never unwinds: faults on the way become the next event, #DF or shutdown (SDM 3A Table 6-5). */
void interrupt_deliver(struct vcpu *v, struct event ev);

#endif
