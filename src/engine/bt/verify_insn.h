/* SPDX-License-Identifier: Apache-2.0 */
/* Host instructions as the verifier sees them. */
#ifndef SUNDOG_ENGINE_BT_VERIFY_INSN_H
#define SUNDOG_ENGINE_BT_VERIFY_INSN_H

#include "base/types.h"

/* What an instruction on the allow-list is to the rules: PLAIN computes operands from operands, the others are followed more
 * closely. */
enum verify_op {
    OP_FORBIDDEN,
    OP_PLAIN,
    OP_KEEPS,  /* PLAIN, but may leave its destination as it was */
    OP_BITS,   /* PLAIN, but a bit number in a register reaches beyond a memory operand */
    OP_DIVIDE, /* PLAIN, and may fault */
    OP_MOV,
    OP_MOVZX,
    OP_LEA,
    OP_ADD,
    OP_SUB,
    OP_INC,
    OP_DEC,
    OP_AND,
    OP_OR,
    OP_XOR,
    OP_CMP,
    OP_SHL,
    OP_SHR,
    OP_IMUL,
    OP_NOT,
    OP_TEST,
    OP_CMOVA,
    OP_CMOVBE,
    OP_NEG,
    OP_X87, /* PLAIN, on the x87's registers */
    OP_FCW, /* FLDCW, FNSTCW */
    OP_SHRX,
    OP_RORX,
    OP_REP, /* a string instruction with REP */
    OP_JCC,
    OP_JMP,
    OP_CALL,
    /* in gates, and where calls and returns of units use them */
    OP_GATE,
    OP_PUSH,
    OP_POP,
    OP_RET,
};

enum verify_operand_kind {
    OPR_GPR,
    OPR_VECTOR,
    OPR_X87,
    OPR_FLAGS,
    OPR_IMM,
    OPR_MEM,
    OPR_ADDRESS,
    OPR_IP,
    OPR_OTHER
};

#define NO_REG 0xffu
struct verify_operand {
    uint8_t kind;
    uint8_t reg;                /* number, of a register */
    uint8_t size;               /* bytes touched */
    uint8_t base, index, scale; /* scale: factor */
    bool read, write, maybe;    /* maybe: written or not */
    bool gs, narrow;            /* memory: behind a GS prefix; its address has 32 bits */
    int64_t val;                /* immediate or displacement */
};
#define VERIFY_OPERANDS 8u

struct verify_insn {
    uint32_t off;
    uint8_t len, op, noperands;
    uint8_t cond;         /* of OP_JCC: the low four bits of its opcode */
    uint8_t simd;         /* enum simd_level that it needs */
    bool extends;         /* MOVSX and its kin: from at most 32 bits */
    bool relative;        /* OP_JCC, OP_JMP, OP_CALL: to `target` */
    bool may_fault;       /* on the host, with operands that the guest chooses */
    uint8_t element;      /* OP_REP: bytes; `compares`: of [rdi] only; else o[0] tells what is stored */
    bool compares, moves; /* OP_REP: SCAS; MOVS */
    uint16_t flags_read, flags_written; /* status flags; written: whatever they were before */
    bool flags_maybe;                   /* written or not, by a count */
    uint64_t target;                    /* address */
    struct verify_operand o[VERIFY_OPERANDS];
};

/* Decodes what runs at `address`; NULL, or the rule that it breaks. */
const char *verify_decode(struct verify_insn *i, const uint8_t *bytes, size_t avail, uint64_t address,
                          bool in_gate);
/* As text, for people. */
void verify_format(const uint8_t *bytes, size_t avail, uint64_t address, char *out, size_t len);

#endif
