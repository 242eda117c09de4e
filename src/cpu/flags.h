/* SPDX-License-Identifier: Apache-2.0 */
/* RFLAGS kept in two parts, and what depends on them. */
#ifndef SUNDOG_CPU_FLAGS_H
#define SUNDOG_CPU_FLAGS_H

#include "cpu/vcpu.h"

static inline unsigned flags_iopl(const struct vcpu *v) { return (v->s.rflags & FL_IOPL) >> 12; }

/* Flags that POPF and IRET write whatever the privilege; those of the upper half need a 32- or 64-bit
 * operand. */
#define FL_POP16 (FL_STATUS | FL_TF | FL_DF | FL_NT)
#define FL_POP32 (FL_AC | FL_ID)

/* Takes the flags of `mask` from `image`; the mask holds all status flags or none. The caller refreshes
 * the mode. */
static inline void flags_write(struct vcpu *v, uint64_t image, uint64_t mask)
{
    if (mask & FL_STATUS)
        v->s.cc = flags_to_cc(image);
    mask &= ~(uint64_t)FL_STATUS;
    v->s.rflags = (v->s.rflags & ~mask) | (image & mask);
}

#endif
