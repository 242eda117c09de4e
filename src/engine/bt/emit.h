/* SPDX-License-Identifier: Apache-2.0 */
/* Writing x86-64 instructions into memory: prefixes, opcode, ModRM, SIB, displacement (SDM 2A chapter 2). */
#ifndef SUNDOG_ENGINE_BT_EMIT_H
#define SUNDOG_ENGINE_BT_EMIT_H

#include "base/types.h"

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

void emit_byte(struct emitter *e, unsigned byte);
/* bytes: 0 to 8 */
void emit_imm(struct emitter *e, uint64_t val, unsigned bytes);
/* opcode reg, [mem] / opcode reg, rm. An operand in memory that may fault is noted. */
void emit_mem(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg, struct amode m);
void emit_reg(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg, unsigned rm);
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
void emit_load(struct emitter *e, unsigned dst, struct amode m);
void emit_load32(struct emitter *e, unsigned dst, struct amode m);
void emit_store(struct emitter *e, struct amode m, unsigned src);
void emit_store32(struct emitter *e, struct amode m, unsigned src);
void emit_lea(struct emitter *e, unsigned dst, struct amode m);
void emit_lea32(struct emitter *e, unsigned dst, struct amode m);
void emit_mov_imm32(struct emitter *e, unsigned dst, uint32_t imm);
/* The shortest load of a 64-bit constant. */
void emit_mov_imm(struct emitter *e, unsigned dst, uint64_t imm);
/* op r64, imm32 by the /n of group 1 (0 add, 4 and, 5 sub, 7 cmp); 32-bit form with `wide` false. */
void emit_alu_imm(struct emitter *e, unsigned n, unsigned reg, int32_t imm, bool wide);

/* dst = src >> by; dst = rotate right of 32 bits of memory. The flags stay (BMI2). */
void emit_shrx(struct emitter *e, unsigned dst, unsigned src, unsigned by);
void emit_rorx32(struct emitter *e, unsigned dst, struct amode m, unsigned by);

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
