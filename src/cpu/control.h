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

/* XCR0: x87, SSE, AVX, opmask and the two of AVX-512; a model may have fewer. */
#define XCR0_IMPLEMENTED 0xe7ull
/* True when XSETBV takes `val` on a processor that has the components `has` (SDM 1 13.3). */
static inline bool control_xcr0_valid(uint64_t val, uint64_t has)
{
    const uint64_t sse = 2, avx = 4, avx512 = 0xe0;
    if (!(val & 1) || val & ~has || (val & avx && !(val & sse)))
        return false;
    return !(val & avx512) || ((val & avx512) == avx512 && val & avx);
}

#endif
