/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's floating-point and SIMD state while the interpreter runs.
 *
 * x87: between x87 instructions the guest's x87 registers stay in the host's (`x87_live`); nothing else in this program uses them.
 * They are brought back to v->s.fpu by fpu_sync_x87() when somebody needs them: leaving run(), FXSAVE, MMX instructions.
 * v->s.fpu.fsw and fcw are always current. The instruction and data pointers are kept in software, so no host address shows.
 *
 * SSE: XMM registers stay in v->s.fpu; MXCSR is live in the host's with every exception masked between fpu_enter() and fpu_leave(),
 * so that its sticky flags gather there.
 */
#ifndef SUNDOG_ENGINE_INTERP_FPU_H
#define SUNDOG_ENGINE_INTERP_FPU_H

#include "cpu/access.h"
#include "cpu/ops.h"
#include "cpu/vcpu.h"
#include "engine/interp/op.h"

#define MXCSR_FLAGS 0x3fu
#define MXCSR_MASKS 0x1f80u
#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_VALID 0xffffu /* MXCSR_MASK shown to guests */
#define FSW_ES 0x80u
#define FSW_TOP_SHIFT 11

void fpu_enter(struct vcpu *v); /* at entry of engine.run */
void fpu_leave(struct vcpu *v); /* at exit: v->s.fpu is complete afterwards */

void fpu_sync_x87(struct vcpu *v);                /* host registers -> v->s.fpu, no longer live */
void fpu_load_x87(struct vcpu *v);                /* v->s.fpu -> host registers, live */
void fpu_sync_mxcsr(struct vcpu *v);              /* sticky flags of the host's -> v->s.fpu.mxcsr */
void fpu_set_mxcsr(struct vcpu *v, uint32_t val); /* both; reserved bits were checked */
/* Makes physical register n stand in st[n] (TOP = 0, all tags valid), as any MMX instruction does (SDM 1 12.2). */
void fpu_begin_mmx(struct vcpu *v);
void fpu_init_x87(struct vcpu *v); /* FNINIT */
/* Changes TOP; the physical registers keep their contents, so their places in ST order move. Not while live. */
void fpu_set_top(struct fpu_state *f, unsigned top);

/* Address of the running instruction. */
static inline uint64_t fpu_insn_rip(const struct vcpu *v, const struct op *op)
{
    return (op_next_rip(v, op) - op->len) & v->lin_mask;
}

static inline uint64_t fpu_operand_linear(struct vcpu *v, const struct op *op, unsigned size,
                                          enum mmu_access access)
{
    return seg_linear(v, op->seg, op_offset(v, op), size, access);
}

/* A handler whose work is a function of its own: locals whose address escapes would keep NEXT() from being a tail call. */
#define FPU_HANDLER(name) \
    static __attribute__((noinline)) void do_##name(struct vcpu *v, const struct op *op); \
    static const struct op *name(struct vcpu *v, const struct op *op) \
    { \
        do_##name(v, op); \
        return NEXT(v, op); \
    } \
    static void do_##name(struct vcpu *v, const struct op *op __attribute__((unused)))

/* Pieces of images (fpu_image.c): `len` bytes at `lin`, which is aligned to 16; the operand's address, aligned; the x87 part
 * and MXCSR of an FXSAVE image, `wide`: with 64-bit pointers. */
void fpu_image_read(struct vcpu *v, const struct op *op, uint64_t lin, void *dst, unsigned len);
void fpu_image_write(struct vcpu *v, const struct op *op, uint64_t lin, const void *src, unsigned len);
uint64_t fpu_image_address(struct vcpu *v, const struct op *op, unsigned size, unsigned align,
                           enum mmu_access access);
void fpu_image_put_x87(const struct fpu_state *f, uint8_t *img, bool wide);
void fpu_image_get_x87(struct fpu_state *f, const uint8_t *img, bool wide);
void fpu_image_put_mxcsr(const struct fpu_state *f, uint8_t *img);
uint32_t fpu_image_get_mxcsr(struct vcpu *v, const uint8_t *img); /* #GP for reserved bits */
/* Vector registers that exist in the present mode. */
static inline unsigned fpu_image_registers(const struct vcpu *v) { return vcpu_long64(v) ? 16 : 8; }

/* FXSAVE family and x87 environment images (fpu_image.c, xsave.c). */
const struct op *run_fxsave(struct vcpu *v, const struct op *op);
const struct op *run_fxrstor(struct vcpu *v, const struct op *op);
const struct op *run_xsave(struct vcpu *v, const struct op *op);
const struct op *run_xrstor(struct vcpu *v, const struct op *op);
const struct op *run_xsaveopt(struct vcpu *v, const struct op *op);
const struct op *run_xsavec(struct vcpu *v, const struct op *op);
const struct op *run_xsaves(struct vcpu *v, const struct op *op);
const struct op *run_xrstors(struct vcpu *v, const struct op *op);
const struct op *run_ldmxcsr(struct vcpu *v, const struct op *op);
const struct op *run_stmxcsr(struct vcpu *v, const struct op *op);
const struct op *run_vldmxcsr(struct vcpu *v, const struct op *op);
const struct op *run_vstmxcsr(struct vcpu *v, const struct op *op);
const struct op *run_vmaskmovdqu(struct vcpu *v, const struct op *op); /* simd.c */
const struct op *run_fnstenv(struct vcpu *v, const struct op *op);
const struct op *run_fldenv(struct vcpu *v, const struct op *op);
const struct op *run_fnsave(struct vcpu *v, const struct op *op);
const struct op *run_frstor(struct vcpu *v, const struct op *op);

#endif
