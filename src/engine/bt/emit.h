/* SPDX-License-Identifier: Apache-2.0 */
/* Writing x86-64 instructions into memory: prefixes, opcode, ModRM, SIB, displacement (SDM 2A chapter 2). */
#ifndef SUNDOG_ENGINE_BT_EMIT_H
#define SUNDOG_ENGINE_BT_EMIT_H

#include "base/bits.h"

/* Host registers by their encoding. */
enum host_reg {
    H_RAX,
    H_RCX,
    H_RDX,
    H_RBX,
    H_RSP,
    H_RBP,
    H_RSI,
    H_RDI,
    H_R8,
    H_R9,
    H_R10,
    H_R11,
    H_R12,
    H_R13,
    H_R14,
    H_R15,
    H_NONE = 0xff
};

/* A host memory operand [base + index << scale + disp]; index H_NONE: none. */
struct amode {
    uint8_t base, index, scale;
    int32_t disp;
    bool view;   /* it may fault */
    bool gs;     /* GS's base is added */
    bool narrow; /* the sum before that is cut to 32 bits */
};

/* So that what the compiler knows of its arguments is known inside. */
#define emit_inline inline __attribute__((always_inline))

#define VIEW_ACCESSES 4u
#define EMIT_SLACK 32u
/* Where code goes. What would end beyond `end` is not emitted: `full` is set instead. An instruction is put together where it
 * will stand, so it may scribble on EMIT_SLACK bytes behind `end`. Behind what is emitted nothing is written. */
struct emitter {
    uint8_t *at, *end;
    intptr_t to_exec; /* address at which the byte at `at` will run, minus `at` */
    bool full;
    uint8_t *view[VIEW_ACCESSES]; /* instructions with an operand that may fault, until somebody takes them */
    unsigned nview;
};

/* What an instruction is encoded with; imm bytes follow by emit_imm(). */
#define ENC_66 1u /* operand-size or mandatory prefix */
#define ENC_F2 2u
#define ENC_F3 4u
#define ENC_W 8u /* REX.W, as in REX */
#define ENC_LOCK 16u
#define ENC_BYTE 32u /* byte registers: 4..7 mean SPL..DIL */
#define ENC_0F 64u
#define ENC_0F38 128u
#define ENC_0F3A 256u

/* --- pieces of an instruction: each is written at `p` and returns where the next one goes ------------------------ */

/* The instruction ends at `p`. */
static inline void emit_end(struct emitter *e, uint8_t *p)
{
    if (unlikely(p > e->end))
        e->full = true;
    else
        e->at = p;
}

static inline uint8_t *put_byte(uint8_t *p, unsigned byte)
{
    *p = (uint8_t)byte;
    return p + 1;
}

static inline uint8_t *put_imm(uint8_t *p, uint64_t val, unsigned bytes)
{
    if (bytes == 4) {
        put_le32(p, (uint32_t)val);
        return p + 4;
    }
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(val >> (8 * i));
    return p + bytes;
}

static inline uint8_t *put_rare_prefixes(uint8_t *p, unsigned enc)
{
    if (enc & ENC_LOCK)
        p = put_byte(p, 0xf0);
    if (enc & ENC_66)
        p = put_byte(p, 0x66);
    if (enc & ENC_F2)
        p = put_byte(p, 0xf2);
    if (enc & ENC_F3)
        p = put_byte(p, 0xf3);
    return p;
}

/* Prefixes, map and opcode. */
static inline uint8_t *put_opcode(uint8_t *p, unsigned enc, unsigned rex_rxb, bool force_rex, unsigned opcode)
{
    if (enc & (ENC_LOCK | ENC_66 | ENC_F2 | ENC_F3))
        p = put_rare_prefixes(p, enc);
    unsigned rex = rex_rxb | (enc & ENC_W);
    if (rex || force_rex)
        p = put_byte(p, 0x40 | rex);
    if (enc & (ENC_0F | ENC_0F38 | ENC_0F3A)) {
        p = put_byte(p, 0x0f);
        if (enc & (ENC_0F38 | ENC_0F3A))
            p = put_byte(p, enc & ENC_0F38 ? 0x38 : 0x3a);
    }
    return put_byte(p, opcode);
}

static inline bool byte_needs_rex(unsigned enc, unsigned reg)
{
    return enc & ENC_BYTE && reg >= 4 && reg < 8;
}

/* ModRM, SIB, displacement. `disp8`: an 8-bit displacement counts bytes. */
static inline uint8_t *put_mem(uint8_t *p, unsigned reg, const struct amode *m, bool disp8)
{
    unsigned r = (reg & 7) << 3, base = m->base & 7;
    bool sib = m->index != H_NONE || base == 4;
    unsigned mod = m->disp == 0 ? base == 5 : disp8 && m->disp == (int8_t)m->disp ? 1 : 2;
    p = put_byte(p, mod << 6 | r | (sib ? 4 : base));
    if (sib)
        p = put_byte(p, (unsigned)m->scale << 6 | (m->index == H_NONE ? 4u : m->index & 7u) << 3 | base);
    if (mod == 1)
        return put_byte(p, (unsigned)m->disp);
    return mod ? put_imm(p, (uint32_t)m->disp, 4) : p;
}

static inline uint8_t *put_op_mem(uint8_t *p, unsigned enc, unsigned opcode, unsigned reg,
                                  const struct amode *m)
{
    unsigned x = m->index == H_NONE ? 0 : m->index >> 3 & 1u,
             rxb = (reg >> 3 & 1) << 2 | x << 1 | (m->base >> 3 & 1u);
    return put_mem(put_opcode(p, enc, rxb, byte_needs_rex(enc, reg), opcode), reg, m, true);
}

static inline uint8_t *put_reg(uint8_t *p, unsigned reg, unsigned rm)
{
    return put_byte(p, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline uint8_t *put_op_reg(uint8_t *p, unsigned enc, unsigned opcode, unsigned reg, unsigned rm)
{
    p = put_opcode(p, enc, (reg >> 3 & 1) << 2 | (rm >> 3 & 1),
                   byte_needs_rex(enc, reg) || byte_needs_rex(enc, rm), opcode);
    return put_reg(p, reg, rm);
}

/* --- whole instructions ------------------------------------------------------------------------------------------- */

static inline void emit_byte(struct emitter *e, unsigned byte) { emit_end(e, put_byte(e->at, byte)); }
/* bytes: 0 to 8 */
static inline void emit_imm(struct emitter *e, uint64_t val, unsigned bytes)
{
    emit_end(e, put_imm(e->at, val, bytes));
}

void emit_mem_any(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg, struct amode m);
void emit_reg_any(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg, unsigned rm);

/* opcode reg, [mem]. An operand in memory that may fault is noted. Where the compiler knows base and index, above all of places in
 * the vcpu, it is a few stores of constants. */
static emit_inline void emit_mem(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg,
                                 struct amode m)
{
    bool known = __builtin_constant_p(enc) && __builtin_constant_p(m.base) && __builtin_constant_p(m.index);
    if (known && __builtin_constant_p(m.view || m.gs) && !(m.view || m.gs))
        emit_end(e, put_op_mem(e->at, enc, opcode, reg, &m));
    else
        emit_mem_any(e, enc, opcode, reg, m);
}

/* opcode reg, rm */
static emit_inline void emit_reg(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg, unsigned rm)
{
    if (__builtin_constant_p(enc) && __builtin_constant_p(reg) && __builtin_constant_p(rm))
        emit_end(e, put_op_reg(e->at, enc, opcode, reg, rm));
    else
        emit_reg_any(e, enc, opcode, reg, rm);
}

/* An opcode whose low three bits name a register. */
void emit_plus(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg);
/* An opcode without ModRM. */
void emit_plain(struct emitter *e, unsigned enc, unsigned opcode);

/* A VEX or EVEX prefix. */
struct vex {
    bool evex;
    uint8_t map;     /* 1: 0F, 2: 0F38, 3: 0F3A */
    uint8_t pp, w;   /* pp: 0 none, 1 66, 2 F3, 3 F2 */
    uint8_t l, vvvv; /* l: L, of EVEX L'L; vvvv 0 where the instruction has no such operand */
    uint8_t mask;    /* EVEX: aaa, z, b */
    bool z, b;
};
/* Vector registers are 0 to 31 with EVEX. */
void emit_vex_mem(struct emitter *e, const struct vex *x, unsigned opcode, unsigned reg, struct amode m);
void emit_vex_reg(struct emitter *e, const struct vex *x, unsigned opcode, unsigned reg, unsigned rm);
/* One without ModRM. */
void emit_vex_plain(struct emitter *e, const struct vex *x, unsigned opcode);

static inline uint64_t emit_exec(const struct emitter *e)
{
    return (uint64_t)(uintptr_t)e->at + (uint64_t)e->to_exec;
}

/* jmp / call / jcc rel32 to an address in the executable view. Returns where the rel32 stands (writable). */
uint8_t *emit_jmp(struct emitter *e, uint64_t target);
uint8_t *emit_call(struct emitter *e, uint64_t target);
uint8_t *emit_jcc(struct emitter *e, unsigned cond, uint64_t target);
/* Makes the rel32 at `field` reach `target`. */
void emit_patch(const struct emitter *e, uint8_t *field, uint64_t target);

/* --- the few instructions that the translator makes itself --- */
void emit_mov(struct emitter *e, unsigned dst, unsigned src);   /* 64 bits; nothing when equal */
void emit_mov32(struct emitter *e, unsigned dst, unsigned src); /* zero-extends */
static emit_inline void emit_load(struct emitter *e, unsigned dst, struct amode m)
{
    emit_mem(e, ENC_W, 0x8b, dst, m);
}
static emit_inline void emit_load32(struct emitter *e, unsigned dst, struct amode m)
{
    emit_mem(e, 0, 0x8b, dst, m);
}
static emit_inline void emit_store(struct emitter *e, struct amode m, unsigned src)
{
    emit_mem(e, ENC_W, 0x89, src, m);
}
static emit_inline void emit_store32(struct emitter *e, struct amode m, unsigned src)
{
    emit_mem(e, 0, 0x89, src, m);
}
void emit_lea(struct emitter *e, unsigned dst, struct amode m);
void emit_lea32(struct emitter *e, unsigned dst, struct amode m);
static inline void emit_mov_imm32(struct emitter *e, unsigned dst, uint32_t imm)
{
    emit_end(e, put_imm(put_opcode(e->at, 0, dst >> 3, false, 0xb8 | (dst & 7)), imm, 4));
}
/* The shortest load of a 64-bit constant. */
void emit_mov_imm(struct emitter *e, unsigned dst, uint64_t imm);
/* op r64, imm32 by the /n of group 1 (0 add, 4 and, 5 sub, 7 cmp); 32-bit form with `wide` false. */
static emit_inline void emit_alu_imm(struct emitter *e, unsigned n, unsigned reg, int32_t imm, bool wide)
{
    bool small = imm == (int8_t)imm;
    emit_reg(e, wide ? ENC_W : 0, small ? 0x83 : 0x81, n, reg);
    emit_imm(e, (uint32_t)imm, small ? 1 : 4);
}

/* dst = src >> by; dst = rotate right of 32 bits of memory, of a register. The flags stay (BMI2). */
void emit_shrx(struct emitter *e, unsigned dst, unsigned src, unsigned by);
void emit_rorx32(struct emitter *e, unsigned dst, struct amode m, unsigned by);
void emit_rorx32_reg(struct emitter *e, unsigned dst, unsigned src, unsigned by);

static inline struct amode amode_at(unsigned base, int32_t disp)
{
    return (struct amode){ .base = (uint8_t)base, .index = H_NONE, .disp = disp };
}
static inline struct amode amode_indexed(unsigned base, unsigned index, unsigned scale, int32_t disp)
{
    return (struct amode){
        .base = (uint8_t)base, .index = (uint8_t)index, .scale = (uint8_t)scale, .disp = disp
    };
}

#endif
