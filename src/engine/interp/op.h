/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter's decoded form: a block is an array of operations, each a handler and its operands, ended by an operation whose
 * handler returns NULL or whose successor is another block.
 *
 *   struct insn ──lower (per family)──► struct op { handler, registers, displacement, immediate }
 *
 * A handler executes one instruction and returns the next operation (op + 1) or NULL to leave the block. A handler that faults unwinds
 * with nothing committed. Before a handler runs, the run loop has stored `op` so that rip and the retired count can be computed.
 */
#ifndef SUNDOG_ENGINE_INTERP_OP_H
#define SUNDOG_ENGINE_INTERP_OP_H

#include "cpu/vcpu.h"
#include "isa/insn.h"

struct op;
typedef const struct op *(*op_handler)(struct vcpu *v, const struct op *op);

struct op {
    op_handler run;
    uint8_t r1, r2;       /* register operands (family's choice) */
    uint8_t seg;          /* of the memory operand or of implicit DS */
    uint8_t base, index;  /* registers of the memory operand; MEM_NO_REG reads as 0 */
    uint8_t scale;
    uint8_t len;          /* instruction length */
    uint8_t opsize;
    uint8_t addrsize, prefixes;
    uint16_t id;          /* enum insn_id */
    uint32_t off;         /* of the next instruction from the block's start: rip after = block rip + off */
    int32_t disp;
    uint64_t imm;
    const void *aux;      /* family's: a stub, the full struct insn kept beside the block, ... */
};

/* Fills op->run and operands for one decoded instruction; false if the family does not know it. One function per family. */
bool lower_integer(struct op *op, const struct insn *in, uint32_t mode);
bool lower_system(struct op *op, const struct insn *in, uint32_t mode);
bool lower_simd(struct op *op, const struct insn *in, uint32_t mode); /* MMX and SSE rows, FXSAVE, XSAVE ... */
bool lower_x87(struct op *op, const struct insn *in, uint32_t mode);

#endif
