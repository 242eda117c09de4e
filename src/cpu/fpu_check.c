/* SPDX-License-Identifier: Apache-2.0 */
/* The checks that precede an x87, MMX, SSE or AVX instruction (SDM 3A 2.5, Table 2-2 and 13.1; SDM 2A 2.4), and which
 * state is in use. */
#include <string.h>

#include "cpu/model.h"
#include "cpu/ops.h"

#define FSW_ES 0x80u /* an unmasked exception is pending */

void cpu_check_fpu(struct vcpu *v)
{
    if (unlikely(v->s.cr0 & (CR0_EM | CR0_TS)))
        cpu_raise(v, VEC_NM);
}

/* With CR0.NE clear the exception would leave the processor as FERR# and come back as IRQ 13; this PC has no
 * such wire, so it is as if IGNNE# were held: the instruction goes on, and the loss is counted. */
void cpu_check_mf(struct vcpu *v)
{
    if (likely(!(v->s.fpu.fsw & FSW_ES)))
        return;
    if (v->s.cr0 & CR0_NE)
        cpu_raise(v, VEC_MF);
    tally_add(v->tally, TALLY_DEVICE, 0xfe44); /* FERR# */
}

void cpu_check_wait(struct vcpu *v)
{
    if (unlikely((v->s.cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS)))
        cpu_raise(v, VEC_NM);
    cpu_check_mf(v);
}

void cpu_check_mmx(struct vcpu *v)
{
    if (unlikely(v->s.cr0 & CR0_EM))
        cpu_raise(v, VEC_UD);
    if (unlikely(v->s.cr0 & CR0_TS))
        cpu_raise(v, VEC_NM);
    cpu_check_mf(v);
}

void cpu_check_sse(struct vcpu *v)
{
    if (unlikely((v->s.cr0 & CR0_EM) || !(v->s.cr4 & CR4_OSFXSR)))
        cpu_raise(v, VEC_UD);
    if (unlikely(v->s.cr0 & CR0_TS))
        cpu_raise(v, VEC_NM);
}

static void check_components(struct vcpu *v, uint64_t need)
{
    if (unlikely(!(v->s.cr4 & CR4_OSXSAVE) || (v->s.fpu.xcr0 & need) != need))
        cpu_raise(v, VEC_UD);
    if (unlikely(v->s.cr0 & CR0_TS))
        cpu_raise(v, VEC_NM);
}

void cpu_check_avx(struct vcpu *v) { check_components(v, 6); }

void cpu_check_avx512(struct vcpu *v) { check_components(v, 0xe6); }

static bool all_zero(const void *p, size_t len)
{
    const uint8_t *bytes = p;
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

uint64_t cpu_xinuse(const struct vcpu *v)
{
    const struct fpu_state *f = &v->s.fpu;
    uint64_t in_use = 1 << XSTATE_X87 | 1 << XSTATE_SSE;
    in_use |= (uint64_t)!all_zero(f->ymmh, sizeof(f->ymmh)) << XSTATE_AVX;
    in_use |= (uint64_t)!all_zero(f->k, sizeof(f->k)) << XSTATE_OPMASK;
    in_use |= (uint64_t)!all_zero(f->zmmh, sizeof(f->zmmh)) << XSTATE_ZMM_HI256;
    in_use |= (uint64_t)!all_zero(f->zmm16, sizeof(f->zmm16)) << XSTATE_HI16_ZMM;
    return in_use;
}
