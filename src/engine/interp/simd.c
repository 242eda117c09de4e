/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MMX and SSE: operands are brought to a fixed place, the host's own instruction runs on them (simd_stubs.h), the result is committed.
 *
 * With every SIMD exception masked nothing more is needed: the sticky flags gather in the host's MXCSR. With one unmasked, the row
 * runs on a copy under the guest's own MXCSR, and the host's trap becomes the guest's #XM (SDM 1 11.5.2).
 */
#include "cpu/model.h"
#include "engine/interp/fpu.h"
#include "engine/interp/simd_stubs.h"

#define ALIGNED 1u /* op->imm: 16-byte operand must be aligned */
#define HAS_FP 2u  /* op->imm: may raise SIMD floating-point exceptions */

static inline void check_sse(struct vcpu *v)
{
    if (unlikely(v->s.cr0 & (CR0_EM | CR0_TS) || !(v->s.cr4 & CR4_OSFXSR)))
        cpu_check_sse(v);
}

static inline void check_mmx(struct vcpu *v)
{
    if (unlikely(v->s.cr0 & (CR0_EM | CR0_TS) || v->s.fpu.fsw & FSW_ES))
        cpu_check_mmx(v);
}

/* --- operands ------------------------------------------------------------------------------------------------------------- */

static inline void copy_sized(void *dst, const void *src, unsigned size)
{
    switch (size) {
    case 16: memcpy(dst, src, 16); break;
    case 8: memcpy(dst, src, 8); break;
    case 4: memcpy(dst, src, 4); break;
    case 2: memcpy(dst, src, 2); break;
    default: memcpy(dst, src, 1); break;
    }
}

static inline uint64_t operand_address(struct vcpu *v, const struct op *op, unsigned size,
                                       enum mmu_access access)
{
    uint64_t lin = fpu_operand_linear(v, op, size, access);
    if (op->imm & ALIGNED && lin & 15)
        cpu_raise_gp0(v);
    return lin;
}

/* Reads op->opsize bytes to the low end of a 16-byte buffer, the rest zero. */
static inline void load_operand(struct vcpu *v, const struct op *op, uint8_t dst[16])
{
    unsigned size = op->opsize;
    uint64_t lin = operand_address(v, op, size, ACCESS_READ);
    const void *host = tlb_find(&v->mmu, lin, size, ACCESS_READ);
    if (size < 16)
        memset(dst, 0, 16);
    if (likely(host != NULL))
        copy_sized(dst, host, size);
    else
        access_read(v, lin, dst, size, v->mmu.index, op->seg);
}

static inline void store_operand(struct vcpu *v, const struct op *op, const void *src)
{
    unsigned size = op->opsize;
    uint64_t lin = operand_address(v, op, size, ACCESS_WRITE);
    void *host = tlb_find(&v->mmu, lin, size, ACCESS_WRITE);
    if (likely(host != NULL))
        copy_sized(host, src, size);
    else
        access_write(v, lin, src, size, v->mmu.index, op->seg);
}

static inline void write_gpr(struct vcpu *v, unsigned reg, uint64_t val, unsigned size)
{
    v->s.gpr[reg] = size == 8 ? val : (uint32_t)val;
}

static inline uint8_t *mmx(struct vcpu *v, unsigned reg) { return v->s.fpu.st[reg]; }

/* A write to an MMX register sets the exponent and sign of the x87 register to ones (SDM 1 12.2). */
static inline void write_mmx(struct vcpu *v, unsigned reg, const void *val)
{
    uint8_t *st = v->s.fpu.st[reg];
    memcpy(st, val, 8);
    st[8] = st[9] = 0xff;
}

/* --- floating-point exceptions -------------------------------------------------------------------------------------------- */

static inline bool any_unmasked(const struct vcpu *v)
{
    return unlikely((v->s.fpu.mxcsr & MXCSR_MASKS) != MXCSR_MASKS);
}

static void call_frame(struct simd_frame *f, const void *stub, bool with_mmx)
{
    if (with_mmx)
        simd_call_frame_mmx(f, stub);
    else
        simd_call_frame(f, stub);
}

/* Runs the stub with the guest's own MXCSR: an unmasked exception traps on the host, and is the guest's. */
static void call_unmasked(struct vcpu *v, struct simd_frame *f, const void *stub, bool with_mmx)
{
    uint32_t mxcsr;
    fpu_sync_mxcsr(v);
    simd_catch_traps();
    __asm__ volatile("ldmxcsr %0" : : "m"(v->s.fpu.mxcsr));
    call_frame(f, stub, with_mmx);
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    fpu_set_mxcsr(v, f->trapped ? f->trapped : mxcsr);
    if (f->trapped)
        cpu_raise(v, v->s.cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
}

/* --- XMM, XMM/memory [, imm] ---------------------------------------------------------------------------------------------- */

FPU_HANDLER(xmm_rr)
{
    check_sse(v);
    simd_call_xmm(v->s.fpu.xmm[op->r1], v->s.fpu.xmm[op->r2], op->aux);
}

FPU_HANDLER(xmm_rm)
{
    uint8_t src[16];
    check_sse(v);
    load_operand(v, op, src);
    simd_call_xmm(v->s.fpu.xmm[op->r1], src, op->aux);
}

static void xmm_fp(struct vcpu *v, const struct op *op, const uint8_t *src)
{
    uint8_t *dst = v->s.fpu.xmm[op->r1];
    if (!any_unmasked(v)) {
        simd_call_xmm(dst, src, op->aux);
        return;
    }
    struct simd_frame f = { .cc = v->s.cc };
    memcpy(f.xmm0, dst, 16);
    memcpy(f.xmm1, src, 16);
    call_unmasked(v, &f, op->aux, false);
    memcpy(dst, f.xmm0, 16);
}

FPU_HANDLER(xmm_fp_rr)
{
    check_sse(v);
    xmm_fp(v, op, v->s.fpu.xmm[op->r2]);
}

FPU_HANDLER(xmm_fp_rm)
{
    uint8_t src[16];
    check_sse(v);
    load_operand(v, op, src);
    xmm_fp(v, op, src);
}

FPU_HANDLER(xmm_shift)
{
    check_sse(v);
    simd_call_xmm(v->s.fpu.xmm[op->r1], v->s.fpu.xmm[op->r1], op->aux);
}

/* --- MMX, MMX/memory [, imm] ---------------------------------------------------------------------------------------------- */

static void mmx_apply(struct vcpu *v, const struct op *op, const uint8_t *src)
{
    uint8_t dst[8], from[8];
    memcpy(from, src, 8);
    memcpy(dst, mmx(v, op->r1), 8);
    simd_call_mmx(dst, from, op->aux);
    write_mmx(v, op->r1, dst);
}

FPU_HANDLER(mmx_rr)
{
    check_mmx(v);
    fpu_begin_mmx(v);
    mmx_apply(v, op, mmx(v, op->r2));
}

FPU_HANDLER(mmx_rm)
{
    uint8_t src[16];
    check_mmx(v);
    load_operand(v, op, src);
    fpu_begin_mmx(v);
    mmx_apply(v, op, src);
}

FPU_HANDLER(mmx_load)
{
    uint8_t src[16];
    check_mmx(v);
    load_operand(v, op, src);
    fpu_begin_mmx(v);
    write_mmx(v, op->r1, src);
}

FPU_HANDLER(mmx_store)
{
    check_mmx(v);
    uint64_t lin = operand_address(v, op, op->opsize, ACCESS_WRITE);
    access_probe_write(v, lin, op->opsize, v->mmu.index, op->seg);
    fpu_begin_mmx(v);
    store_operand(v, op, mmx(v, op->r1));
}

FPU_HANDLER(mmx_copy)
{
    uint8_t val[8];
    check_mmx(v);
    fpu_begin_mmx(v);
    memcpy(val, mmx(v, op->r2), 8);
    write_mmx(v, op->r1, val);
}

FPU_HANDLER(mmx_from_gpr)
{
    uint64_t val = v->s.gpr[op->r2] & mask_bytes(op->opsize);
    check_mmx(v);
    fpu_begin_mmx(v);
    write_mmx(v, op->r1, &val);
}

FPU_HANDLER(mmx_to_gpr)
{
    check_mmx(v);
    fpu_begin_mmx(v);
    write_gpr(v, op->r1, get_le64(mmx(v, op->r2)) & mask_bytes(op->opsize), op->opsize);
}

FPU_HANDLER(emms)
{
    check_mmx(v);
    fpu_begin_mmx(v);
    v->s.fpu.ftw = 0;
}

/* --- moves ---------------------------------------------------------------------------------------------------------------- */

FPU_HANDLER(move_rr)
{
    check_sse(v);
    memmove(v->s.fpu.xmm[op->r1], v->s.fpu.xmm[op->r2], 16);
}

/* Low opsize bytes only: MOVSS, MOVSD between registers. */
FPU_HANDLER(move_low_rr)
{
    check_sse(v);
    uint8_t low[16];
    memcpy(low, v->s.fpu.xmm[op->r2], 16);
    copy_sized(v->s.fpu.xmm[op->r1], low, op->opsize);
}

FPU_HANDLER(moveq_rr)
{
    check_sse(v);
    uint64_t low = get_le64(v->s.fpu.xmm[op->r2]);
    put_le64(v->s.fpu.xmm[op->r1], low);
    put_le64(v->s.fpu.xmm[op->r1] + 8, 0);
}

FPU_HANDLER(move_load)
{
    uint8_t val[16];
    check_sse(v);
    load_operand(v, op, val);
    memcpy(v->s.fpu.xmm[op->r1], val, 16);
}

FPU_HANDLER(move_store)
{
    check_sse(v);
    store_operand(v, op, v->s.fpu.xmm[op->r1]);
}

/* MOVLPS, MOVHPS and their PD twins: op->r2 is the byte offset of the half. */
FPU_HANDLER(move_half_load)
{
    uint8_t val[16];
    check_sse(v);
    load_operand(v, op, val);
    memcpy(v->s.fpu.xmm[op->r1] + op->r2, val, 8);
}

FPU_HANDLER(move_half_store)
{
    check_sse(v);
    store_operand(v, op, v->s.fpu.xmm[op->r1] + op->r2);
}

FPU_HANDLER(move_from_gpr)
{
    check_sse(v);
    put_le64(v->s.fpu.xmm[op->r1], v->s.gpr[op->r2] & mask_bytes(op->opsize));
    put_le64(v->s.fpu.xmm[op->r1] + 8, 0);
}

FPU_HANDLER(move_to_gpr)
{
    check_sse(v);
    write_gpr(v, op->r1, get_le64(v->s.fpu.xmm[op->r2]) & mask_bytes(op->opsize), op->opsize);
}

FPU_HANDLER(movdq2q)
{
    check_sse(v);
    check_mmx(v);
    fpu_begin_mmx(v);
    write_mmx(v, op->r1, v->s.fpu.xmm[op->r2]);
}

FPU_HANDLER(movq2dq)
{
    check_sse(v);
    check_mmx(v);
    fpu_begin_mmx(v);
    memcpy(v->s.fpu.xmm[op->r1], mmx(v, op->r2), 8);
    put_le64(v->s.fpu.xmm[op->r1] + 8, 0);
}

/* MASKMOVQ, MASKMOVDQU: the bytes whose mask bit is set go to seg:rDI. Which bytes a fault is looked for in is the processor's own
 * affair (SDM 2B): as on AMD's, all of the operand. */
static void masked_store(struct vcpu *v, const struct op *op, const uint8_t *val, const uint8_t *mask,
                         unsigned size)
{
    uint64_t off = v->s.gpr[RDI] & mask_bytes(op->addrsize);
    uint64_t lin = seg_linear(v, op->seg, off, size, ACCESS_WRITE);
    if (size == 8 || (lin & PAGE_OFFSET_MASK) > PAGE_SIZE - size)
        access_probe_write(v, lin, size, v->mmu.index, op->seg);
    else
        access_probe_write(v, lin, 1, v->mmu.index,
                           op->seg); /* the 16-byte form is never checked for alignment */
    for (unsigned i = 0; i < size; i++)
        if (mask[i] & 0x80)
            access_write(v, (lin + i) & v->lin_mask, &val[i], 1, v->mmu.index, op->seg);
}

FPU_HANDLER(maskmovdqu)
{
    check_sse(v);
    masked_store(v, op, v->s.fpu.xmm[op->r1], v->s.fpu.xmm[op->r2], 16);
}

const struct op *run_vmaskmovdqu(struct vcpu *v, const struct op *op)
{
    cpu_check_avx(v);
    masked_store(v, op, v->s.fpu.xmm[op->r1], v->s.fpu.xmm[op->r2], 16);
    return op + 1;
}

FPU_HANDLER(maskmovq)
{
    check_mmx(v);
    fpu_begin_mmx(v);
    masked_store(v, op, mmx(v, op->r1), mmx(v, op->r2), 8);
}

/* --- between register files, flags, implicit operands: through a frame ---------------------------------------------------- */

#define SRC_MEM 0x80u /* op->r2: the source is the memory operand */

static void frame_fp_call(struct vcpu *v, const struct op *op, struct simd_frame *f, bool with_mmx)
{
    if (op->imm & HAS_FP && any_unmasked(v))
        call_unmasked(v, f, op->aux, with_mmx);
    else
        call_frame(f, op->aux, with_mmx);
}

static void frame_source_xmm(struct vcpu *v, const struct op *op, struct simd_frame *f)
{
    if (op->r2 & SRC_MEM)
        load_operand(v, op, f->xmm1);
    else
        memcpy(f->xmm1, v->s.fpu.xmm[op->r2], 16);
}

/* CVTSI2SS/SD, PINSRB/W/D/Q: general register or memory -> XMM */
FPU_HANDLER(xmm_from_int)
{
    struct simd_frame f = { .cc = v->s.cc };
    uint8_t val[16];
    check_sse(v);
    if (op->r2 & SRC_MEM) {
        load_operand(v, op, val);
        f.rcx = get_le64(val);
    } else {
        f.rcx = v->s.gpr[op->r2];
    }
    memcpy(f.xmm0, v->s.fpu.xmm[op->r1], 16);
    frame_fp_call(v, op, &f, false);
    memcpy(v->s.fpu.xmm[op->r1], f.xmm0, 16);
}

/* CVT(T)SS2SI, CVT(T)SD2SI, MOVMSKPS/PD, PMOVMSKB, PEXTRW: XMM -> general register. The result's size is in op->prefixes. */
FPU_HANDLER(int_from_xmm)
{
    struct simd_frame f = { .cc = v->s.cc };
    check_sse(v);
    frame_source_xmm(v, op, &f);
    frame_fp_call(v, op, &f, false);
    write_gpr(v, op->r1, f.rax, op->prefixes);
}

FPU_HANDLER(int_from_mmx)
{
    struct simd_frame f = { .cc = v->s.cc };
    check_mmx(v);
    fpu_begin_mmx(v);
    f.mm1 = get_le64(mmx(v, op->r2));
    simd_call_frame_mmx(&f, op->aux);
    write_gpr(v, op->r1, f.rax, op->prefixes);
}

FPU_HANDLER(mmx_insert)
{
    struct simd_frame f = { .cc = v->s.cc };
    uint8_t val[16];
    check_mmx(v);
    if (op->r2 & SRC_MEM) {
        load_operand(v, op, val);
        f.rcx = get_le64(val);
    } else {
        f.rcx = v->s.gpr[op->r2];
    }
    fpu_begin_mmx(v);
    f.mm0 = get_le64(mmx(v, op->r1));
    simd_call_frame_mmx(&f, op->aux);
    write_mmx(v, op->r1, &f.mm0);
}

/* PEXTRB/W/D/Q, EXTRACTPS: XMM r2 -> general register r1 or memory */
FPU_HANDLER(extract)
{
    struct simd_frame f = { .cc = v->s.cc };
    check_sse(v);
    memcpy(f.xmm0, v->s.fpu.xmm[op->r2], 16);
    simd_call_frame(&f, op->aux);
    if (op->r1 & SRC_MEM)
        store_operand(v, op, &f.rcx);
    else
        write_gpr(v, op->r1, f.rcx, op->opsize);
}

/* COMISS ..., PTEST: flags only */
FPU_HANDLER(compare)
{
    struct simd_frame f = { .cc = v->s.cc };
    check_sse(v);
    frame_source_xmm(v, op, &f);
    memcpy(f.xmm0, v->s.fpu.xmm[op->r1], 16);
    frame_fp_call(v, op, &f, false);
    v->s.cc = f.cc;
}

FPU_HANDLER(blend_by_xmm0)
{
    struct simd_frame f = { .cc = v->s.cc };
    check_sse(v);
    frame_source_xmm(v, op, &f);
    memcpy(f.xmm0, v->s.fpu.xmm[0], 16);
    memcpy(f.xmm2, v->s.fpu.xmm[op->r1], 16);
    simd_call_frame(&f, op->aux);
    memcpy(v->s.fpu.xmm[op->r1], f.xmm2, 16);
}

/* With REX.W the explicit lengths are 64 bits, saturated to the element count either way: bring them into 32 bits. */
static uint64_t string_length(uint64_t reg, bool wide)
{
    int64_t len = wide ? (int64_t)reg : (int32_t)reg;
    return (uint64_t)(len > 16 ? 16 : len < -16 ? -16 : len);
}

/* PCMPESTRM/I, PCMPISTRM/I: index to ECX or mask to XMM0, and flags */
FPU_HANDLER(compare_strings)
{
    struct simd_frame f = { .cc = v->s.cc };
    bool wide = op->prefixes;
    check_sse(v);
    frame_source_xmm(v, op, &f);
    memcpy(f.xmm0, v->s.fpu.xmm[op->r1], 16);
    f.rax = string_length(v->s.gpr[RAX], wide);
    f.rdx = string_length(v->s.gpr[RDX], wide);
    simd_call_frame(&f, op->aux);
    v->s.cc = f.cc;
    if (op->id == INSN_PCMPESTRI || op->id == INSN_PCMPISTRI)
        write_gpr(v, RCX, f.rcx, 4);
    else
        memcpy(v->s.fpu.xmm[0], f.xmm0, 16);
}

/* From memory, CVTPI2PD leaves the MMX state alone, and so does CVTPI2PS on AMD's processors; on Intel's it does not (SDM 2A). */
static bool memory_form_touches_mmx(const struct vcpu *v, const struct op *op)
{
    return op->id == INSN_CVTPI2PS && v->model->vendor[0] == 'G';
}

/* CVTPI2PS/PD: MMX or memory -> XMM */
FPU_HANDLER(xmm_from_mmx)
{
    struct simd_frame f = { .cc = v->s.cc };
    uint8_t val[16];
    bool mem = op->r2 & SRC_MEM;
    bool touches_mmx = !mem || memory_form_touches_mmx(v, op);
    check_sse(v);
    if (touches_mmx)
        check_mmx(v);
    if (mem)
        load_operand(v, op, val);
    if (touches_mmx)
        fpu_begin_mmx(v);
    else
        fpu_sync_x87(v); /* the stub uses the host's MMX registers all the same */
    f.mm1 = get_le64(mem ? val : mmx(v, op->r2));
    memcpy(f.xmm0, v->s.fpu.xmm[op->r1], 16);
    frame_fp_call(v, op, &f, true);
    memcpy(v->s.fpu.xmm[op->r1], f.xmm0, 16);
}

/* CVT(T)PS2PI, CVT(T)PD2PI: XMM or memory -> MMX */
FPU_HANDLER(mmx_from_xmm)
{
    struct simd_frame f = { .cc = v->s.cc };
    check_sse(v);
    check_mmx(v);
    frame_source_xmm(v, op, &f);
    fpu_begin_mmx(v);
    frame_fp_call(v, op, &f, true);
    write_mmx(v, op->r1, &f.mm0);
}

/* --- lowering ------------------------------------------------------------------------------------------------------------- */

/* How an operation that is not the plain "reg = reg OP reg/mem" is done. */
enum shape {
    SH_DEFAULT,
    SH_MOVE16,
    SH_MOVE_LOW,
    SH_MOVEQ,
    SH_HALF_LOW,
    SH_HALF_HIGH,
    SH_MOVD_M,
    SH_MOVD_X,
    SH_MOVQ_M,
    SH_MOVDQ2Q,
    SH_MOVQ2DQ,
    SH_MASK_M,
    SH_MASK_X,
    SH_XMM_FROM_INT,
    SH_INT_FROM_XMM,
    SH_INT_FROM_MMX,
    SH_MMX_INSERT,
    SH_EXTRACT,
    SH_COMPARE,
    SH_BLENDV,
    SH_STRINGS,
    SH_XMM_FROM_MMX,
    SH_MMX_FROM_XMM,
    SH_EMMS,
    SH_FXSAVE,
    SH_FXRSTOR,
    SH_XSAVE,
    SH_XRSTOR,
    SH_LDMXCSR,
    SH_STMXCSR
};

static const uint8_t shapes[INSN_ID_COUNT] = {
    [INSN_MOVUPS] = SH_MOVE16,
    [INSN_MOVUPD] = SH_MOVE16,
    [INSN_MOVAPS] = SH_MOVE16,
    [INSN_MOVAPD] = SH_MOVE16,
    [INSN_MOVDQA] = SH_MOVE16,
    [INSN_MOVDQU] = SH_MOVE16,
    [INSN_LDDQU] = SH_MOVE16,
    [INSN_MOVNTPS] = SH_MOVE16,
    [INSN_MOVNTPD] = SH_MOVE16,
    [INSN_MOVNTDQ] = SH_MOVE16,
    [INSN_MOVNTDQA] = SH_MOVE16,
    [INSN_MOVSS] = SH_MOVE_LOW,
    [INSN_MOVSD] = SH_MOVE_LOW,
    [INSN_MOVQ_LOAD_X] = SH_MOVEQ,
    [INSN_MOVQ_STORE_X] = SH_MOVEQ,
    [INSN_MOVLPS] = SH_HALF_LOW,
    [INSN_MOVLPD] = SH_HALF_LOW,
    [INSN_MOVHPS] = SH_HALF_HIGH,
    [INSN_MOVHPD] = SH_HALF_HIGH,
    [INSN_MOVD_LOAD_M] = SH_MOVD_M,
    [INSN_MOVD_STORE_M] = SH_MOVD_M,
    [INSN_MOVD_LOAD_X] = SH_MOVD_X,
    [INSN_MOVD_STORE_X] = SH_MOVD_X,
    [INSN_MOVQ_M] = SH_MOVQ_M,
    [INSN_MOVNTQ] = SH_MOVQ_M,
    [INSN_MOVDQ2Q] = SH_MOVDQ2Q,
    [INSN_MOVQ2DQ] = SH_MOVQ2DQ,
    [INSN_MASKMOVQ] = SH_MASK_M,
    [INSN_MASKMOVDQU] = SH_MASK_X,
    [INSN_CVTSI2SS] = SH_XMM_FROM_INT,
    [INSN_CVTSI2SD] = SH_XMM_FROM_INT,
    [INSN_PINSRB] = SH_XMM_FROM_INT,
    [INSN_PINSRW_X] = SH_XMM_FROM_INT,
    [INSN_PINSRD] = SH_XMM_FROM_INT,
    [INSN_CVTTSS2SI] = SH_INT_FROM_XMM,
    [INSN_CVTSS2SI] = SH_INT_FROM_XMM,
    [INSN_CVTTSD2SI] = SH_INT_FROM_XMM,
    [INSN_CVTSD2SI] = SH_INT_FROM_XMM,
    [INSN_MOVMSKPS] = SH_INT_FROM_XMM,
    [INSN_MOVMSKPD] = SH_INT_FROM_XMM,
    [INSN_PMOVMSKB_X] = SH_INT_FROM_XMM,
    [INSN_PEXTRW_X] = SH_INT_FROM_XMM,
    [INSN_PMOVMSKB] = SH_INT_FROM_MMX,
    [INSN_PEXTRW] = SH_INT_FROM_MMX,
    [INSN_PINSRW] = SH_MMX_INSERT,
    [INSN_PEXTRB] = SH_EXTRACT,
    [INSN_PEXTRW_MX] = SH_EXTRACT,
    [INSN_PEXTRD] = SH_EXTRACT,
    [INSN_EXTRACTPS] = SH_EXTRACT,
    [INSN_COMISS] = SH_COMPARE,
    [INSN_COMISD] = SH_COMPARE,
    [INSN_UCOMISS] = SH_COMPARE,
    [INSN_UCOMISD] = SH_COMPARE,
    [INSN_PTEST] = SH_COMPARE,
    [INSN_PBLENDVB] = SH_BLENDV,
    [INSN_BLENDVPS] = SH_BLENDV,
    [INSN_BLENDVPD] = SH_BLENDV,
    [INSN_PCMPESTRM] = SH_STRINGS,
    [INSN_PCMPESTRI] = SH_STRINGS,
    [INSN_PCMPISTRM] = SH_STRINGS,
    [INSN_PCMPISTRI] = SH_STRINGS,
    [INSN_CVTPI2PS] = SH_XMM_FROM_MMX,
    [INSN_CVTPI2PD] = SH_XMM_FROM_MMX,
    [INSN_CVTTPS2PI] = SH_MMX_FROM_XMM,
    [INSN_CVTTPD2PI] = SH_MMX_FROM_XMM,
    [INSN_CVTPS2PI] = SH_MMX_FROM_XMM,
    [INSN_CVTPD2PI] = SH_MMX_FROM_XMM,
    [INSN_EMMS] = SH_EMMS,
    [INSN_FXSAVE] = SH_FXSAVE,
    [INSN_FXRSTOR] = SH_FXRSTOR,
    [INSN_XSAVE] = SH_XSAVE,
    [INSN_XRSTOR] = SH_XRSTOR,
    [INSN_LDMXCSR] = SH_LDMXCSR,
    [INSN_STMXCSR] = SH_STMXCSR,
};

/* Handlers of a shape: register source or form, memory as source, memory as destination. */
struct shape_handlers {
    op_handler reg, load, store;
};

static const struct shape_handlers shape_handlers[] = {
    [SH_MOVE16] = { move_rr, move_load, move_store },
    [SH_MOVE_LOW] = { move_low_rr, move_load, move_store },
    [SH_MOVEQ] = { moveq_rr, move_load, move_store },
    [SH_HALF_LOW] = { NULL, move_half_load, move_half_store },
    [SH_HALF_HIGH] = { NULL, move_half_load, move_half_store },
    [SH_MOVD_M] = { NULL, mmx_load, mmx_store },
    [SH_MOVD_X] = { NULL, move_load, move_store },
    [SH_MOVQ_M] = { mmx_copy, mmx_load, mmx_store },
    [SH_MOVDQ2Q] = { movdq2q, NULL, NULL },
    [SH_MOVQ2DQ] = { movq2dq, NULL, NULL },
    [SH_MASK_M] = { maskmovq, NULL, NULL },
    [SH_MASK_X] = { maskmovdqu, NULL, NULL },
    [SH_XMM_FROM_INT] = { xmm_from_int, xmm_from_int, NULL },
    [SH_INT_FROM_XMM] = { int_from_xmm, int_from_xmm, NULL },
    [SH_INT_FROM_MMX] = { int_from_mmx, NULL, NULL },
    [SH_MMX_INSERT] = { mmx_insert, mmx_insert, NULL },
    [SH_EXTRACT] = { extract, NULL, extract },
    [SH_COMPARE] = { compare, compare, NULL },
    [SH_BLENDV] = { blend_by_xmm0, blend_by_xmm0, NULL },
    [SH_STRINGS] = { compare_strings, compare_strings, NULL },
    [SH_XMM_FROM_MMX] = { xmm_from_mmx, xmm_from_mmx, NULL },
    [SH_MMX_FROM_XMM] = { mmx_from_xmm, mmx_from_xmm, NULL },
    [SH_EMMS] = { emms, NULL, NULL },
    [SH_FXSAVE] = { NULL, NULL, run_fxsave },
    [SH_FXRSTOR] = { NULL, NULL, run_fxrstor },
    [SH_XSAVE] = { NULL, NULL, run_xsave },
    [SH_XRSTOR] = { NULL, NULL, run_xrstor },
    [SH_LDMXCSR] = { NULL, NULL, run_ldmxcsr },
    [SH_STMXCSR] = { NULL, NULL, run_stmxcsr },
};

/* Plain "first = first OP second": by register file and whether floating-point exceptions are possible. */
static op_handler default_handler(const struct insn *in, bool mem)
{
    const struct insn_row *row = in->row;
    if (row->op[1] == Ib)
        return row->op[0] == Ux ? xmm_shift : mmx_rr;
    if (in->op[0].kind == OPND_MMX)
        return mem ? mmx_rm : mmx_rr;
    if (row->flags & IF_FPX)
        return mem ? xmm_fp_rm : xmm_fp_rr;
    return mem ? xmm_rm : xmm_rr;
}

/* MOVD/MOVQ with a general register instead of memory. */
static op_handler gpr_move(enum shape shape, bool to_gpr)
{
    if (shape == SH_MOVD_M)
        return to_gpr ? mmx_to_gpr : mmx_from_gpr;
    return to_gpr ? move_to_gpr : move_from_gpr;
}

static op_handler pick_handler(const struct insn *in, enum shape shape, bool load, bool store)
{
    if (shape == SH_DEFAULT)
        return default_handler(in, load);
    const struct shape_handlers *h = &shape_handlers[shape];
    if ((shape == SH_MOVD_M || shape == SH_MOVD_X) && !load && !store)
        return gpr_move(shape, in->op[0].kind == OPND_REG);
    return store ? h->store : load ? h->load : h->reg;
}

bool lower_simd(struct op *op, const struct insn *in, uint32_t mode)
{
    (void)mode;
    enum shape shape = shapes[in->id];
    const struct insn_row *row = in->row;
    if (!(row->flags & (IF_SSE | IF_MMX)) && shape == SH_DEFAULT)
        return false;
    bool store = in->op[0].kind == OPND_MEM, load = in->op[1].kind == OPND_MEM;
    bool wide = in->rex & 8;

    if (store || load)
        op_set_mem(op, in);
    else
        op->seg = in->seg;
    op->r1 = store ? in->op[1].reg : in->op[0].reg;
    op->r2 = in->op[1].reg;
    op->opsize = store ? in->op[0].size : in->op[1].size;
    op->imm = (row->flags & IF_AL16 ? ALIGNED : 0) | (row->flags & IF_FPX ? HAS_FP : 0);
    bool names_y = row->op[0] == Gy || row->op[0] == Ey || row->op[1] == Ey;
    /* From memory INSERTPS has one source element: its number in the immediate is ignored (SDM 2A). */
    uint8_t imm = (uint8_t)(in->id == INSN_INSERTPS && load ? in->imm & 0x3f : in->imm);
    op->aux = simd_stub(row, wide && names_y && row->mod != MM, imm);

    switch (shape) {
    case SH_MOVE_LOW: op->opsize = in->op[0].size < in->op[1].size ? in->op[0].size : in->op[1].size; break;
    case SH_HALF_LOW: op->r2 = 0; break;
    case SH_HALF_HIGH: op->r2 = 8; break;
    case SH_EXTRACT:
        op->r1 = store ? SRC_MEM : in->op[0].reg;
        op->opsize = in->op[0].size;
        break;
    case SH_STRINGS:
    case SH_FXSAVE:
    case SH_FXRSTOR:
    case SH_XSAVE:
    case SH_XRSTOR: op->prefixes = wide; break;
    case SH_INT_FROM_XMM:
    case SH_INT_FROM_MMX: op->prefixes = in->op[0].size; break;
    case SH_MOVD_M:
    case SH_MOVD_X: op->opsize = in->op[in->row->op[0] == Ey ? 0 : 1].size; break;
    default: break;
    }
    if (shape == SH_DEFAULT && row->op[1] == Ib)
        op->r2 = op->r1; /* shift by immediate: one register */
    if (load && shape >= SH_XMM_FROM_INT)
        op->r2 = SRC_MEM;
    op->run = pick_handler(in, shape, load, store);
    return op->run != NULL;
}
