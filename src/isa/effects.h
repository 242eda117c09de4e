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

/*
 * Status flags are given as their EFLAGS bits: CF 1, PF 4, AF 10h, ZF 40h, SF 80h, OF 800h; registers as
 * bit n for register n. The facts are those of an execution that completes; one that faults has changed
 * nothing, but for a repeated string instruction, which has done some of its iterations.
 *
 * flags_maybe: changed or else kept, by the operands (a shift by a count that may be 0, REP with count 0)
 * or by the kind of processor (flags that the manual calls undefined, where some leave them alone).
 * gpr_written: wholly or in part; one that keeps a part, or is written on some executions only, is also
 * read.
 * Memory is that of the explicit operand, in bytes, 0 for none; for BT, BTS, BTR and BTC with the bit
 * number in a register it lies at an address displaced by that number.
 */
struct insn_effects {
    uint16_t flags_read;    /* the outcome depends on these */
    uint16_t flags_written; /* on every execution and processor, to a defined or an undefined value */
    uint16_t flags_maybe;
    uint16_t gpr_read; /* also for addressing, and implicitly */
    uint16_t gpr_written;
    uint8_t mem_read;
    uint8_t mem_write; /* at most */
    bool unknown;      /* system, or size left to the operation: assume anything; the rest is what is known */
};

/* Facts about one decoded instruction. A 32-bit destination in 64-bit mode clears the upper half, so it is
 * not read. Pure. */
void insn_effects(struct insn_effects *out, const struct insn *in);

#endif
