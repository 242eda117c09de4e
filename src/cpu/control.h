/* SPDX-License-Identifier: Apache-2.0 */
/* Control registers with the rules that go with each change: for the instructions of control.c, for WRMSR and
 * for task switches. */
#ifndef SUNDOG_CPU_CONTROL_H
#define SUNDOG_CPU_CONTROL_H

#include "cpu/vcpu.h"

/* Each checks everything, then changes the register and what follows from it; false (#GP) leaves all as it
 * was. */
must_use bool control_set_cr0(struct vcpu *v, uint64_t val);
must_use bool control_set_cr3(struct vcpu *v, uint64_t val); /* bit 63 with PCIDE: nothing is flushed */
must_use bool control_set_cr4(struct vcpu *v, uint64_t val);
must_use bool control_set_efer(struct vcpu *v, uint64_t val);

/* Bits that this processor has. */
#define CR4_IMPLEMENTED \
    (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | \
     CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP)
#define CR0_IMPLEMENTED \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define EFER_IMPLEMENTED (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)

/* XCR0: x87 and SSE state. */
#define XCR0_IMPLEMENTED 3ull

#endif
