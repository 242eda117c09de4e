/* SPDX-License-Identifier: Apache-2.0 */
/* Fast system calls: SYSCALL, SYSRET, SYSENTER, SYSEXIT, each as the shown vendor has it. */
#include "cpu/debug.h"
#include "cpu/descriptor.h"
#include "cpu/event.h"
#include "cpu/flags.h"
#include "cpu/ops.h"

static struct code_and_stack flat_pair(uint16_t cs, uint16_t ss, uint32_t code_size, unsigned cpl)
{
    return (struct code_and_stack){ seg_flat(cs, ATTR_CODE | code_size, cpl),
                                    seg_flat(ss, ATTR_DATA | SA_DB, cpl) };
}

static void set_pair(struct vcpu *v, struct code_and_stack pair)
{
    v->s.seg[SEG_CS] = pair.cs;
    v->s.seg[SEG_SS] = pair.ss;
}

static void set_code_and_stack(struct vcpu *v, uint16_t cs, uint16_t ss, uint32_t code_size, unsigned cpl)
{
    set_pair(v, flat_pair(cs, ss, code_size, cpl));
}

struct code_and_stack cpu_syscall_segments(uint64_t star, bool long_mode)
{
    uint16_t cs = (uint16_t)(star >> 32) & 0xfffc;
    return flat_pair(cs, (uint16_t)(cs + 8), long_mode ? SA_L : SA_DB, 0);
}

/* AMD processors leave SS's hidden part as it is; a flat one is what software that runs on both can rely on. */
struct code_and_stack cpu_sysret_segments(uint64_t star, unsigned size)
{
    uint16_t base = (uint16_t)(star >> 48);
    uint16_t cs = (uint16_t)((size == 8 ? base + 16 : base) | SEL_RPL);
    return flat_pair(cs, (uint16_t)((base + 8) | SEL_RPL), size == 8 ? SA_L : SA_DB, 3);
}

static void require_sce(struct vcpu *v)
{
    /* Intel knows SYSCALL and SYSRET in 64-bit code only; AMD also in compatibility and legacy mode. */
    bool mode_ok = vcpu_is_amd(v) ? (v->s.cr0 & CR0_PE) != 0 : vcpu_long64(v);
    if (!(v->s.efer & EFER_SCE) || !mode_ok)
        cpu_raise(v, VEC_UD);
}

void cpu_syscall(struct vcpu *v)
{
    require_sce(v);
    bool tf_before = (v->s.rflags & FL_TF) != 0;
    uint64_t flags = state_rflags(&v->s) & ~(uint64_t)FL_RF;
    if (vcpu_lma(v)) {
        v->s.gpr[RCX] = v->s.rip;
        v->s.gpr[R11] = flags;
        v->s.rip = vcpu_long64(v) ? v->s.msr.lstar : v->s.msr.cstar;
        flags_write(v, flags & ~v->s.msr.sfmask, ~0ull & ~(uint64_t)FL_VM);
    } else {
        v->s.gpr[RCX] = v->s.rip & 0xffffffff;
        v->s.rip = v->s.msr.star & 0xffffffff;
        v->s.rflags &= ~(uint64_t)(FL_IF | FL_VM | FL_RF);
    }
    set_pair(v, cpu_syscall_segments(v->s.msr.star, vcpu_lma(v)));
    debug_cancel_step(v, tf_before);
    vcpu_refresh_privilege(v);
}

void cpu_sysret(struct vcpu *v, unsigned size)
{
    require_sce(v);
    if (vcpu_cpl(v) != 0)
        cpu_raise_gp0(v);
    uint64_t rip = v->s.gpr[RCX] & mask_bytes(size);
    /* Intel faults here, in the kernel; AMD lets user code fault at the address. */
    if (!vcpu_is_amd(v) && !is_canonical(rip))
        cpu_raise_gp0(v);
    if (vcpu_lma(v)) {
        flags_write(v, v->s.gpr[R11] & SYSRET_FLAGS, SYSRET_FLAGS | FL_RF);
        /* A trap before the first user instruction, as if SYSCALL had just completed. */
        if (v->s.rflags & FL_TF)
            v->s.debug_pending |= (uint16_t)DR6_BS;
    } else {
        v->s.rflags |= FL_IF;
    }
    v->s.rip = rip;
    set_pair(v, cpu_sysret_segments(v->s.msr.star, size));
    vcpu_refresh_privilege(v);
    cpu_open_events(v);
}

/* The pair of AMD raises #UD in long mode. */
static void require_sysenter(struct vcpu *v)
{
    if (vcpu_is_amd(v) && vcpu_lma(v))
        cpu_raise(v, VEC_UD);
    if (!(v->s.cr0 & CR0_PE) || !(v->s.msr.sysenter_cs & 0xfffc))
        cpu_raise_gp0(v);
}

void cpu_sysenter(struct vcpu *v)
{
    require_sysenter(v);
    bool lma = vcpu_lma(v);
    uint16_t cs = (uint16_t)v->s.msr.sysenter_cs & 0xfffc;
    v->s.rflags &= ~(uint64_t)(FL_VM | FL_IF | FL_RF);
    v->s.gpr[RSP] = v->s.msr.sysenter_esp & mask_bytes(lma ? 8 : 4);
    v->s.rip = v->s.msr.sysenter_eip & mask_bytes(lma ? 8 : 4);
    set_code_and_stack(v, cs, (uint16_t)(cs + 8), lma ? SA_L : SA_DB, 0);
    vcpu_refresh_privilege(v);
}

void cpu_sysexit(struct vcpu *v, unsigned size)
{
    require_sysenter(v);
    if (vcpu_cpl(v) != 0)
        cpu_raise_gp0(v);
    uint64_t rip = v->s.gpr[RDX] & mask_bytes(size), rsp = v->s.gpr[RCX] & mask_bytes(size);
    if (size == 8 && (!is_canonical(rip) || !is_canonical(rsp)))
        cpu_raise_gp0(v);
    uint16_t base = (uint16_t)v->s.msr.sysenter_cs & 0xfffc;
    uint16_t cs = (uint16_t)((base + (size == 8 ? 32 : 16)) | SEL_RPL);
    v->s.gpr[RSP] = rsp;
    v->s.rip = rip;
    set_code_and_stack(v, cs, (uint16_t)(cs + 8), size == 8 ? SA_L : SA_DB, 3);
    vcpu_refresh_privilege(v);
    cpu_open_events(v);
}
