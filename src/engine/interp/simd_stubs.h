/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's own instructions, one stub a row (256 a row with an immediate), made from the instruction table's bytes at build time:
 * operand 1 is register 1st (xmm0, mm0 or eax/rax), the other is register xmm1, mm1 or ecx/rcx. Nothing is generated at run time.
 */
#ifndef SUNDOG_ENGINE_INTERP_SIMD_STUBS_H
#define SUNDOG_ENGINE_INTERP_SIMD_STUBS_H

#include "isa/insn.h"

#define SIMD_IMM_STRIDE 16

/* Registers around a stub. `cc` as in struct vcpu_state. */
struct simd_frame {
    uint8_t xmm0[16], xmm1[16], xmm2[16]; /* xmm2: destination of the three rows whose XMM0 is implicit */
    uint64_t mm0, mm1;
    uint64_t rax, rcx, rdx;
    uint16_t cc;
    uint32_t trapped; /* out: MXCSR at an unmasked exception, 0 if there was none */
};

/* Stub of a row of insn_simd.def; wide = the REX.W form; imm selects among 256 where the row has an immediate. */
const void *simd_stub(const struct insn_row *row, bool wide, uint8_t imm);
bool simd_row_has_imm(const struct insn_row *row);

/* dst = dst OP src on XMM registers; 16 bytes each, any alignment. */
void simd_call_xmm(void *dst, const void *src, const void *stub);
/* mm0 = mm0 OP mm1 on MMX registers of 8 bytes; leaves the host's x87 empty (EMMS). */
void simd_call_mmx(void *dst, const void *src, const void *stub);
/* All of a frame in, all of it out, with and without MMX registers. Exceptions may be unmasked in the host's MXCSR: the host's trap
 * then ends the stub (simd_catch_traps()), `trapped` says so, and the host's MXCSR is masked again. */
void simd_call_frame(struct simd_frame *f, const void *stub);
void simd_call_frame_mmx(struct simd_frame *f, const void *stub);
/* Once per process, before the first unmasked call. */
void simd_catch_traps(void);

#endif
