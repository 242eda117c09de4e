/* SPDX-License-Identifier: Apache-2.0 */
/* The first processor's state at the kernel's entry, as the boot protocols define it. */
#include "vm/vm_internal.h"

/* Access rights of the flat segments (SDM 3A 3.4.5): present, accessed, 4 KiB granules. */
#define FLAT_CODE32 (SA_G | SA_DB | SA_P | SA_S | 0xbu)
#define FLAT_CODE64 (SA_G | SA_L | SA_P | SA_S | 0xbu)
#define FLAT_DATA (SA_G | SA_DB | SA_P | SA_S | 0x3u)
#define BUSY_TSS32 (SA_P | 0xbu)

static void start_real(struct vcpu_state *s, const struct boot_cpu_state *start)
{
    struct segment *cs = &s->seg[SEG_CS];
    cs->sel = (uint16_t)((start->rip >> 4) & 0xf000);
    cs->base = (uint64_t)cs->sel << 4;
    s->rip = start->rip - cs->base;
}

static void start_flat(struct vcpu_state *s, const struct boot_cpu_state *start)
{
    bool long64 = start->mode == BOOT_LONG64;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s->seg[i] = (struct segment){ .sel = start->data_sel, .attr = FLAT_DATA, .limit = 0xffffffffu };
    s->seg[SEG_CS] = (struct segment){ .sel = start->code_sel,
                                       .attr = long64 ? FLAT_CODE64 : FLAT_CODE32,
                                       .limit = 0xffffffffu };
    s->tr = (struct segment){ .attr = BUSY_TSS32, .limit = 0x67 };
    s->ldtr = (struct segment){ .attr = SA_UNUSABLE };
    s->gdtr = (struct table_reg){ .base = start->gdt_base, .limit = start->gdt_limit };
    s->idtr = (struct table_reg){ 0 };
    s->cr0 = CR0_PE | CR0_ET;
    s->rip = start->rip;
    if (long64) {
        s->cr0 |= CR0_PG;
        s->cr3 = start->cr3;
        s->cr4 = CR4_PAE;
        s->efer = EFER_LME | EFER_LMA;
    }
}

void start_apply(struct vcpu *v, const struct boot_cpu_state *start)
{
    struct vcpu_state *s = &v->s;
    if (start->mode == BOOT_REAL)
        start_real(s, start);
    else
        start_flat(s, start);
    s->gpr[RAX] = start->rax;
    s->gpr[RBX] = start->rbx;
    s->gpr[RSI] = start->rsi;
    s->gpr[RSP] = start->rsp;
    s->rflags = 2;
    s->cc = flags_to_cc(0);
    vcpu_refresh(v);
}
