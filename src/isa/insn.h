/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instruction set as data: one table of rows (insn_*.def), the decoder driven by it, and the decoded form
 * all engines use.
 *
 *   bytes ──insn_decode()──► struct insn { row, operands, memory operand, immediate, sizes, prefixes }
 *
 * A row is   I(id, map, pfx, opcode, reg, mod, op1, op2, op3, flags)   and says which encodings mean which
 * operation with which operands (notation of SDM 2 Appendix A). Decoder, interpreter, translator and tests are
 * all made from the rows.
 */
#ifndef SUNDOG_ISA_INSN_H
#define SUNDOG_ISA_INSN_H

#include "base/types.h"

/* Opcode maps. */
enum insn_map { MAP_1, MAP_0F, MAP_0F38, MAP_0F3A, MAP_COUNT };

/* Role of 66/F2/F3: PX any (66 is the operand size, F2/F3 ignored or REP), else mandatory. */
enum insn_pfx { PX, PN, P66, PF3, PF2 };

/* Constraint on ModRM.mod. */
enum insn_mod { MA, MM, MR }; /* any, memory, register */

/* Row flags. */
#define IF_BYTE (1u << 0)    /* operand size is 1 */
#define IF_D64 (1u << 1)     /* operand size defaults to 8 in 64-bit mode */
#define IF_F64 (1u << 2)     /* operand size is forced to 8 in 64-bit mode */
#define IF_NO64 (1u << 3)    /* #UD in 64-bit mode */
#define IF_ONLY64 (1u << 4)  /* valid in 64-bit mode only */
#define IF_LOCK (1u << 5)    /* LOCK allowed with a memory destination */
#define IF_PLUSR (1u << 6)   /* low three opcode bits name a register: row covers eight opcodes */
#define IF_COND (1u << 7)    /* low four opcode bits are a condition: row covers sixteen opcodes */
#define IF_NOMODRM (1u << 8) /* no ModRM byte */
#define IF_END (1u << 9)     /* ends a block: control transfer, or changes the mode or what comes next */
/* clang-format off */
#define IF_CPL0 (1u << 10)   /* privileged: #GP above CPL 0 (checked by the operation) */
#define IF_SYS (1u << 11)    /* system or not reproducible: not for native comparison */
#define IF_X87 (1u << 12)
#define IF_MMX (1u << 13)    /* touches MMX registers */
#define IF_SSE (1u << 14)    /* touches XMM registers */
#define IF_AL16 (1u << 15)   /* 16-byte memory operand must be aligned: #GP(0) */
#define IF_FPX (1u << 16)    /* may raise a SIMD floating-point exception */
#define IF_STR (1u << 17)    /* string instruction: REP applies */
#define IF_RM(n) ((8u | (n)) << 18) /* ModRM.rm must be n (with mod = MR) */
#define IF_RM_GET(f) (((f) >> 18) & 15)
#define IF_WR1 (1u << 22)    /* writes operand 1 without reading it */
#define IF_RO (1u << 23)     /* reads operand 1, does not write it (CMP, TEST, PUSH ...) */
#define IF_NOPF (1u << 24)   /* x87: does not check pending exceptions first */
/* clang-format on */

/* Operand notation: letter = where, suffix = size (SDM 2 Appendix A.2). */
/* clang-format off */
enum opspec {
    __,
    Eb, Ew, Ed, Eq, Ev, Ey,        /* r/m, general register or memory */
    Ed_Mb, Ed_Mw,                  /* register is 32 bits, memory 8 / 16 (PEXTRB, PINSRB, ...) */
    Ev_Mw,                         /* register is v, memory is 16 bits (MOV from Sreg, SLDT, SMSW) */
    Gb, Gw, Gd, Gq, Gv, Gy, Gz,    /* ModRM.reg */
    Mb, Mw, Md, Mq, Mdq, Mt,       /* memory only; t = 80 bits */
    Mp, Ms, Ma, M,                 /* far pointer, descriptor-table operand, BOUND pair, address only */
    Mstate,                        /* FXSAVE/XSAVE/FNSAVE image: size decided by the operation */
    My2,                           /* CMPXCHG8B/16B: two y */
    Ib, Ibs, Iw, Iz, Iv, I1,       /* immediates: Ibs sign-extended to the operand size, Iz to 64 bits */
    Jb, Jz, Ap, Ob, Ov,            /* relative, far direct, direct offset */
    Zb, Zv,                        /* register in the opcode */
    rAL, rAX, rCL, rDX,            /* fixed; rAX has the operand size, rDX is 16 bits */
    Sw, Cy, Dy, Ry,                /* segment, control, debug register; r/m as register of natural width */
    sES, sCS, sSS, sDS, sFS, sGS,
    Vx, Wb, Ww, Wd, Wq, Wdq,       /* XMM in reg; XMM or memory of the size */
    Ux,                            /* XMM in r/m only */
    Pq, Qd, Qq, Nq,                /* MMX in reg; MMX or memory; MMX in r/m only */
    ST0, STi,
    OPSPEC_COUNT
};
/* clang-format on */

enum insn_id {
    INSN_INVALID,
#define ID(id) INSN_##id,
#include "isa/ids.def"
#undef ID
    INSN_ID_COUNT
};

struct insn_row {
    uint16_t id;
    uint8_t map, pfx, opcode;
    int8_t reg; /* ModRM.reg must be this, -1 any */
    uint8_t mod;
    uint8_t op[3];
    uint32_t flags;
};

extern const struct insn_row insn_rows[];
extern const unsigned insn_row_count;
extern const char *const insn_names[INSN_ID_COUNT];

enum operand_kind {
    OPND_NONE,
    OPND_REG,  /* general register `reg`, low `size` bytes */
    OPND_REGH, /* AH, CH, DH, BH: reg 0..3 */
    OPND_MEM,
    OPND_IMM,
    OPND_REL, /* target = next rip + imm */
    OPND_FAR, /* imm2:imm */
    OPND_SEG,
    OPND_CR,
    OPND_DR,
    OPND_XMM,
    OPND_MMX,
    OPND_ST,
};

struct operand {
    uint8_t kind, reg, size; /* size in bytes; 0 where the operation decides */
};

/* Base is the next instruction's address (rip follows the 16 registers in struct vcpu_state). */
#define MEM_RIP 16
#define MEM_NO_REG 17 /* base or index absent */

struct mem_operand {
    uint8_t seg;         /* enum seg of cpu/state.h order: ES CS SS DS FS GS; default already applied */
    uint8_t base, index; /* 0..15 or MEM_* */
    uint8_t scale;       /* log2 */
    int64_t disp;
};

/* Prefix bits of struct insn. */
#define IP_LOCK 1u
#define IP_REP 2u   /* F3 */
#define IP_REPNE 4u /* F2 */
#define IP_OSIZE 8u
#define IP_ASIZE 16u
#define IP_SEG 32u /* a segment override was given */
#define IP_REX 64u

struct insn {
    const struct insn_row *row;
    uint16_t id;
    uint8_t len;
    uint8_t opsize;   /* 1, 2, 4, 8 */
    uint8_t addrsize; /* 2, 4, 8 */
    uint8_t prefixes; /* IP_* */
    uint8_t rex;      /* REX byte or 0 */
    uint8_t opcode, modrm;
    uint8_t cond; /* IF_COND rows: 0..15 */
    uint8_t seg;  /* segment of implicit DS: operands (strings, XLAT, moffs): override or DS */
    struct operand op[3];
    struct mem_operand mem; /* valid when an operand is OPND_MEM */
    uint64_t imm, imm2;     /* imm2: second immediate (ENTER level, far selector) */
};

enum decode_status {
    DECODE_OK,
    DECODE_MORE,     /* the instruction continues beyond `avail` bytes */
    DECODE_INVALID,  /* #UD */
    DECODE_TOO_LONG, /* over 15 bytes: #GP(0) */
};

/* Decodes one instruction from `avail` (1..15) readable bytes in 16-, 32- or 64-bit code (code_bytes 2, 4,
 * 8). Pure; any thread. LOCK on a row or form that does not allow it is DECODE_INVALID (SDM 2A LOCK). */
enum decode_status insn_decode(struct insn *out, const uint8_t *bytes, unsigned avail, unsigned code_bytes);

#endif
