/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a decoded instruction reads and changes, as facts for a translator: general registers, status flags,
 * memory. Made from the rows of the table and checked against another decoder in the tests.
 *
 *   live before = read | (live after & ~written)      for flags and registers alike
 */
#ifndef SUNDOG_ISA_EFFECTS_H
#define SUNDOG_ISA_EFFECTS_H

#include "isa/insn.h"

/* Status flags are given as their EFLAGS bits: CF 1, PF 4, AF 10h, ZF 40h, SF 80h, OF 800h. The facts are those
 * of an execution that completes; one that faults has changed nothing. */
struct insn_effects {
    uint16_t flags_read;    /* the result depends on these */
    uint16_t flags_written; /* changed on every execution and processor, to a defined or an undefined value */
    uint16_t flags_maybe; /* changed or kept: by the operands (shifts by a count that may be 0, REP with count
                             * 0) or by the processor, where the manual says undefined. Kept ones come through */
    uint16_t gpr_read;    /* bit n: register n is read, also for addressing and implicitly */
    uint16_t gpr_written; /* bit n: written, wholly or in part; a register that keeps a part, or is written
                             * on some executions only, is also in gpr_read */
    uint8_t
        mem_read; /* bytes read from the memory operand (not implicit ones); 0 = none. Of BT, BTS, BTR, BTC
                        * with the bit number in a register: at an address displaced by it */
    uint8_t mem_write; /* bytes written to it, at most */
    bool unknown; /* system, or size decided by the operation: assume anything; the rest is what is known */
};

/* Facts about one decoded instruction. A 32-bit destination in 64-bit mode clears the upper half, so it is not
 * read. Pure. */
void insn_effects(struct insn_effects *out, const struct insn *in);

#endif
