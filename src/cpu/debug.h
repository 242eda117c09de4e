/* SPDX-License-Identifier: Apache-2.0 */
/* Debug registers (SDM 3B 17.2) and the notes that pass between instructions about debug traps. */
#ifndef SUNDOG_CPU_DEBUG_H
#define SUNDOG_CPU_DEBUG_H

#include "base/bits.h"
#include "cpu/vcpu.h"

#define DR6_BP 0xfu    /* B0..B3 */
#define DR6_BD BIT(13) /* debug register touched while DR7.GD */
#define DR6_BS BIT(14) /* single step */
#define DR6_BT BIT(15) /* task switch with the T bit */
#define DR6_FIXED 0xffff0ff0ull
#define DR6_WRITABLE (DR6_BP | DR6_BD | DR6_BS | DR6_BT)

#define DR7_LOCAL 0x155ull /* L0..L3, LE: cleared by a task switch */
#define DR7_GD BIT(13)
#define DR7_FIXED 0x400ull
#define DR7_WRITABLE 0xffff23ffull

/* In s.debug_pending, where DR6 has no such bit: the instruction swallowed its single-step trap. */
#define DEBUG_NO_STEP 0x800u

/* An instruction that enters a handler and thereby clears TF makes no single-step trap (SDM 3B 17.3.1.4). */
static inline void debug_cancel_step(struct vcpu *v, bool tf_before)
{
    if (tf_before && !(v->s.rflags & FL_TF))
        v->s.debug_pending |= DEBUG_NO_STEP;
}

/* Adds to DR6 and raises #DB as a fault. */
noreturn_fn void debug_raise(struct vcpu *v, uint64_t dr6_bits);

#endif
