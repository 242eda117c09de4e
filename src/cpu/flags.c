/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions that read and write RFLAGS: PUSHF, POPF, CLI, STI, CLAC, STAC (VME, PVI: SDM 3A 20.3, 20.4). */
#include "cpu/flags.h"
#include "base/bits.h"
#include "cpu/event.h"
#include "cpu/ops.h"

/* Virtual-8086 code below IOPL 3 works on VIF instead of IF if CR4.VME allows it, with 16-bit operands;
 * else #GP. */
static bool uses_vif(struct vcpu *v, unsigned size)
{
    if (!(v->s.rflags & FL_VM) || flags_iopl(v) == 3)
        return false;
    if (!(v->s.cr4 & CR4_VME) || size != 2)
        cpu_raise_gp0(v);
    return true;
}

uint64_t cpu_pushf_value(struct vcpu *v, unsigned size)
{
    uint64_t flags = state_rflags(&v->s) & ~(uint64_t)(FL_VM | FL_RF);
    if (uses_vif(v, size))
        flags = (flags & ~(uint64_t)FL_IF) | FL_IOPL | ((flags & FL_VIF) ? FL_IF : 0);
    return flags & mask_bytes(size);
}

void cpu_popf(struct vcpu *v, uint64_t value, unsigned size)
{
    uint64_t mask = FL_POP16 | (size > 2 ? FL_POP32 | FL_RF : 0);
    value &= ~(uint64_t)FL_RF;
    if (uses_vif(v, size)) {
        if ((value & FL_TF) || ((value & FL_IF) && (v->s.rflags & FL_VIP)))
            cpu_raise_gp0(v);
        value |= (value & FL_IF) ? FL_VIF : 0;
        mask |= FL_VIF;
    } else {
        unsigned cpl = vcpu_cpl(v);
        mask |= (cpl == 0 ? FL_IOPL : 0) | (cpl <= flags_iopl(v) ? FL_IF : 0);
    }
    uint64_t before = v->s.rflags;
    flags_write(v, value, mask);
    uint64_t changed = before ^ v->s.rflags;
    if (changed & (FL_TF | FL_AC | FL_RF))
        vcpu_refresh_mode(v);
    if (changed & v->s.rflags & FL_IF)
        cpu_open_events(v);
}

/* Which flag CLI and STI mean here: IF, or VIF where CR4.VME or CR4.PVI say so; #GP when neither is
 * theirs. */
static uint64_t interrupt_flag(struct vcpu *v)
{
    bool vm86 = (v->s.rflags & FL_VM) != 0;
    if (vcpu_cpl(v) <= flags_iopl(v))
        return FL_IF;
    if (vcpu_cpl(v) != 3 || !(v->s.cr4 & (vm86 ? CR4_VME : CR4_PVI)))
        cpu_raise_gp0(v);
    return FL_VIF;
}

void cpu_cli(struct vcpu *v) { v->s.rflags &= ~interrupt_flag(v); }

void cpu_sti(struct vcpu *v)
{
    uint64_t flag = interrupt_flag(v);
    if (flag == FL_VIF) {
        if (v->s.rflags & FL_VIP)
            cpu_raise_gp0(v);
        v->s.rflags |= FL_VIF;
        return;
    }
    if (v->s.rflags & FL_IF)
        return;
    v->s.rflags |= FL_IF;
    v->s.shadow |= SHADOW_STI;
    vcpu_refresh_mode(v);
}

static void set_ac(struct vcpu *v, bool on)
{
    if (vcpu_cpl(v) != 0)
        cpu_raise(v, VEC_UD);
    v->s.rflags = on ? v->s.rflags | FL_AC : v->s.rflags & ~(uint64_t)FL_AC;
    /* All that depends on AC at privilege 0; these two frame every access of a kernel to user memory. */
    mmu_set_index(&v->mmu, (v->s.cr4 & CR4_SMAP) && !on ? MMU_SUPER : MMU_SUPER_AC);
}

void cpu_clac(struct vcpu *v) { set_ac(v, false); }

void cpu_stac(struct vcpu *v) { set_ac(v, true); }
