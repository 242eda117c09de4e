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
 *
 * Rows of two kinds: insn_rows[], what every processor here has (insn_int, insn_simd, insn_x87.def), and
 * insn_ext_rows[], what a CPU model may have or not, each with its feature (insn_ext, insn_vex, insn_evex.def).
 */
#ifndef SUNDOG_ISA_INSN_H
#define SUNDOG_ISA_INSN_H

#include "base/types.h"

/* Opcode maps. Those of VEX and EVEX encodings are their own. */
/* clang-format off */
enum insn_map { MAP_1, MAP_0F, MAP_0F38, MAP_0F3A, MAP_V0F, MAP_V0F38, MAP_V0F3A, MAP_E0F, MAP_E0F38, MAP_E0F3A, MAP_COUNT };
/* clang-format on */

/* Role of 66/F2/F3: PX any (66 is the operand size, F2/F3 ignored or REP), PNR 66 is the operand size and F2/F3 are not
 * allowed, else mandatory. In VEX and EVEX encodings: the pp field. */
enum insn_pfx { PX, PN, P66, PF3, PF2, PNR };

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
#define IF_AL16 (1u << 15)   /* memory operand must be aligned to its size, 16 or (VEX, EVEX) more: #GP(0) */
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
    /* Rows of extensions. V, H, W, U, L: vector in reg, vvvv, r/m, r/m register only, upper immediate nibble. x: the
     * vector length (16 in legacy encodings), xh xq xe: a half, quarter, eighth of it, qq: 32. */
    Wx, Wxh, Wxq, Wxe, Wqq, Wxd,   /* Wxd: MOVDDUP, 8 bytes of memory when the vector length is 16 */
    Hx, Lx,
    By,                            /* vvvv as a general register of natural (y) size */
    Kg, Kh, Ke, Kb, Kw, Kd, Kq,    /* opmask in reg, vvvv, r/m; r/m, or memory of 1, 2, 4, 8 bytes */
    Xx, Xh,                        /* vector-indexed memory (VSIB): the index has vector length, or half of it */
    OPSPEC_COUNT
};
/* clang-format on */

/* Row fields of VEX and EVEX encodings. */
enum insn_vl { L0, L1, L2, LX, L12, LIG }; /* vector length 16, 32, 64; any; 32 or 64; ignored, as 16 */
enum insn_w { W0, W1, WX };

/* Extended row flags. */
#define XF_K (1u << 0)   /* EVEX: may merge under an opmask */
#define XF_Z (1u << 1)   /* EVEX: may zero under an opmask */
#define XF_KN (1u << 2)  /* EVEX: an opmask other than k0 is required */
#define XF_ER (1u << 3)  /* EVEX: embedded rounding in the register form */
#define XF_SAE (1u << 4) /* EVEX: exceptions can be suppressed in the register form */
#define XF_NF (1u << 5)  /* EVEX: memory is accessed whole, whatever the opmask says */
#define XF_T1 (1u << 6)  /* EVEX: 8-bit displacements count elements, not operands */
#define XF_I2 (1u << 7)  /* VEX: the 32-byte form belongs to AVX2 */
#define XF_GPR (1u << 8) /* VEX: general registers only; needs no vector state */
#define XF_YR (1u << 9)  /* VEX: the register form belongs to AVX2 */

/* What a CPU model may have. */
enum insn_feature {
    FEAT_NONE,
#define FEATURE(name) FEAT_##name,
#include "isa/features.def"
#undef FEATURE
    FEAT_COUNT
};
#define FEATURE_BIT(f) (1ull << (f))
#define FEATURES_ALL (FEATURE_BIT(FEAT_COUNT) - 1)
#define FEATURES_NO_VEX (1ull << 63) /* no VEX and EVEX prefixes: real and virtual-8086 mode */
_Static_assert(FEAT_COUNT < 63, "features fit a word");

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
    /* Rows of extensions only. */
    uint8_t feature; /* enum insn_feature */
    uint8_t vl, w;   /* enum insn_vl, insn_w */
    uint8_t op4;
    uint8_t esize; /* bytes of an element as opmask bits count them */
    uint8_t bsize; /* bytes of an element that is broadcast from memory, 0: none */
    uint16_t xflags;
};

extern const struct insn_row insn_rows[];
extern const unsigned insn_row_count;
extern const struct insn_row insn_ext_rows[];
extern const unsigned insn_ext_row_count;
extern const char *const insn_feature_names[FEAT_COUNT];
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
    OPND_XMM, /* vector register 0..31 of `size` bytes */
    OPND_MMX,
    OPND_ST,
    OPND_K, /* opmask register */
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
    /* VEX and EVEX encodings. */
    uint8_t enc;  /* enum insn_encoding */
    uint8_t vl;   /* vector length in bytes */
    uint8_t w;    /* VEX.W, EVEX.W */
    uint8_t vvvv; /* register number, with EVEX.V' */
    uint8_t mask; /* EVEX.aaa */
    uint8_t evex; /* IX_* */
    uint8_t ll;   /* EVEX.L'L: the rounding mode when IX_ROUND */
    uint8_t vsib; /* bytes of the vector register that is mem.index, 0: it is a general register */
    struct operand op4;
};

enum insn_encoding { ENCODING_LEGACY, ENCODING_VEX, ENCODING_EVEX };

/* F3 90: a NOP in a loop that waits. */
static inline bool insn_is_pause(const struct insn *in)
{
    return in->opcode == 0x90 && in->row->map == MAP_1 && in->prefixes & IP_REP && !(in->rex & 1);
}

/* Bits of `evex`. */
#define IX_Z 1u         /* zeroes under the opmask */
#define IX_BROADCAST 2u /* the memory operand is one element */
#define IX_ROUND 4u     /* `ll` is the rounding mode; exceptions are suppressed */
#define IX_SAE 8u       /* exceptions are suppressed */

enum decode_status {
    DECODE_OK,
    DECODE_MORE,     /* the instruction continues beyond `avail` bytes */
    DECODE_INVALID,  /* #UD */
    DECODE_TOO_LONG, /* over 15 bytes: #GP(0) */
};

/* Decodes one instruction from `avail` (1 or more) readable bytes, of which it takes 15 at most, in 16-, 32- or 64-bit code (code_bytes 2, 4,
 * 8). Pure; any thread. LOCK on a row or form that does not allow it is DECODE_INVALID (SDM 2A LOCK). Knows
 * insn_rows[] only: what the extensions would make of the bytes does not exist. */
enum decode_status insn_decode(struct insn *out, const uint8_t *bytes, unsigned avail, unsigned code_bytes);
/* The same for a processor that has `features` (FEATURE_BIT of each): their rows come first, the rest is
 * DECODE_INVALID or means what it meant before them (REP BSF). */
enum decode_status insn_decode_for(struct insn *out, const uint8_t *bytes, unsigned avail,
                                   unsigned code_bytes, uint64_t features);
/* True when `in` is nothing that a processor without any feature knows. */
static inline bool insn_is_extension(const struct insn *in) { return in->row->feature != FEAT_NONE; }

#endif
