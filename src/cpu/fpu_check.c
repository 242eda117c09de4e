/* SPDX-License-Identifier: Apache-2.0 */
/* The checks that precede an x87, MMX or SSE instruction (SDM 3A 2.5, Table 2-2 and 13.1). */
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
