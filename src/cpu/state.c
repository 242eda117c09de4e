/* SPDX-License-Identifier: Apache-2.0 */
/* The field table of a processor's state, and what must hold between the fields of a saved one. */
#include "cpu/state.h"

#include "base/bits.h"
#include "cpu/control.h"
#include "cpu/lapic_internal.h"
#include "memory/pmap.h"

#define S struct vcpu_state
#define F(member) STATE_FIELD(S, member)
#define MAX(member, max) STATE_FIELD_MAX(S, member, max)
#define A(member) STATE_ARRAY(S, member)
#define BYTES(member) \
    { \
#member, offsetof(S, member), sizeof(((S *)0)->member), 1, 0xff \
    }

#define SEGMENT(path) F(path.sel), MAX(path.attr, 0x1f0ff), F(path.limit), F(path.base)

/* RFLAGS bits outside the status flags, which are in `cc`. */
#define RFLAGS_KEPT \
    (2ull | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_VM | FL_AC | FL_VIF | FL_VIP | FL_ID)

static const struct state_field fields[] = {
    A(gpr),
    F(rip),
    MAX(rflags, RFLAGS_KEPT | FL_STATUS),
    F(cc),
    SEGMENT(seg[SEG_ES]),
    SEGMENT(seg[SEG_CS]),
    SEGMENT(seg[SEG_SS]),
    SEGMENT(seg[SEG_DS]),
    SEGMENT(seg[SEG_FS]),
    SEGMENT(seg[SEG_GS]),
    SEGMENT(ldtr),
    SEGMENT(tr),
    F(gdtr.base),
    F(gdtr.limit),
    F(idtr.base),
    F(idtr.limit),
    MAX(cr0, CR0_IMPLEMENTED),
    F(cr2),
    MAX(cr3, BIT(MAXPHYADDR) - 1),
    MAX(cr4, CR4_IMPLEMENTED),
    MAX(efer, EFER_IMPLEMENTED),
    A(dr),

    F(fpu.fcw),
    F(fpu.fsw),
    F(fpu.ftw),
    MAX(fpu.pad0, 0),
    F(fpu.fop),
    F(fpu.fip),
    F(fpu.fdp),
    F(fpu.fcs),
    F(fpu.fds),
    MAX(fpu.mxcsr, 0xffff),
    BYTES(fpu.st),
    BYTES(fpu.xmm),
    MAX(fpu.xcr0, XCR0_IMPLEMENTED),
    BYTES(fpu.ymmh),
    BYTES(fpu.zmmh),
    BYTES(fpu.zmm16),
    A(fpu.k),

    F(msr.star),
    F(msr.lstar),
    F(msr.cstar),
    MAX(msr.sfmask, 0xffffffff),
    F(msr.kernel_gs_base),
    MAX(msr.sysenter_cs, 0xffffffff),
    F(msr.sysenter_esp),
    F(msr.sysenter_eip),
    F(msr.pat),
    MAX(msr.apic_base, BIT(MAXPHYADDR) - 1),
    MAX(msr.tsc_aux, 0xffffffff),
    F(msr.misc_enable),
    F(msr.tsc_deadline),
    MAX(msr.mtrr_def_type, 0xfff),
    A(msr.mtrr_phys_base),
    A(msr.mtrr_phys_mask),
    A(msr.mtrr_fixed),
    MAX(msr.mcg_status, 7),
    F(msr.kvm_system_time),
    F(msr.kvm_wall_clock),
    F(msr.tsc_adjust),
    MAX(msr.debugctl, 3),
    MAX(msr.spec_ctrl, 1),
    F(msr.bios_sign_id),

    F(lapic.id),
    MAX(lapic.tpr, 0xff),
    F(lapic.ldr),
    F(lapic.dfr),
    MAX(lapic.svr, 0x3ff),
    MAX(lapic.esr, 0xff),
    MAX(lapic.esr_pending, 0xff),
    MAX(lapic.icr_low, 0xfffff),
    F(lapic.icr_high),
    MAX(lapic.lvt_timer, 0x7ffff),
    MAX(lapic.lvt_thermal, 0x1ffff),
    MAX(lapic.lvt_perf, 0x1ffff),
    MAX(lapic.lvt_lint0, 0x1ffff),
    MAX(lapic.lvt_lint1, 0x1ffff),
    MAX(lapic.lvt_error, 0x1ffff),
    F(lapic.timer_initial),
    MAX(lapic.timer_divide, 0xb),
    F(lapic.timer_start),
    F(lapic.timer_at),
    A(lapic.isr),
    A(lapic.tmr),
    A(lapic.irr),

    A(pdpte),
    F(tsc_offset),
    MAX(activity, ACTIVITY_WAIT_SIPI),
    MAX(shadow, SHADOW_STI | SHADOW_MOV_SS),
    MAX(nmi_pending, 1),
    MAX(nmi_blocked, 1),
    MAX(init_pending, 1),
    MAX(sipi_pending, 1),
    F(sipi_vector),
    MAX(smi_blocked, 1),
    F(debug_pending),
    F(retired),
    F(fault_at),
    MAX(fault_row, FAULT_ROW_MAX),
};

static bool control_valid(const struct vcpu_state *s)
{
    bool paging = s->cr0 & CR0_PG, long_mode = s->efer & EFER_LMA;
    if ((s->cr0 & ~(uint64_t)CR0_IMPLEMENTED) || (s->cr4 & ~(uint64_t)CR4_IMPLEMENTED) ||
        (s->efer & ~(uint64_t)EFER_IMPLEMENTED))
        return false;
    if ((paging && !(s->cr0 & CR0_PE)) || ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD)))
        return false;
    if (long_mode != (paging && (s->efer & EFER_LME)) || (long_mode && !(s->cr4 & CR4_PAE)))
        return false;
    return long_mode || (!(s->cr4 & CR4_PCIDE) && s->cr3 >> 32 == 0);
}

static bool canonical(uint64_t lin) { return (uint64_t)sext(lin, 48) == lin; }

static bool addresses_valid(const struct vcpu_state *s)
{
    const struct msr_state *m = &s->msr;
    return canonical(s->seg[SEG_FS].base) && canonical(s->seg[SEG_GS].base) && canonical(s->gdtr.base) &&
           canonical(s->idtr.base) && canonical(s->ldtr.base) && canonical(s->tr.base) &&
           canonical(m->lstar) && canonical(m->cstar) && canonical(m->kernel_gs_base) &&
           canonical(m->sysenter_esp) && canonical(m->sysenter_eip);
}

/* In virtual-8086 mode the segments have the one shape of SDM 3A 20.2; the privilege level is SS.DPL
 * elsewhere. */
static bool segments_valid(const struct vcpu_state *s)
{
    for (unsigned i = 0; i < SEG_COUNT; i++)
        if (s->seg[i].attr & ~0x1f0ffu)
            return false;
    if (s->rflags & FL_VM)
        return (s->cr0 & CR0_PE) && !(s->efer & EFER_LMA);
    return (s->cr0 & CR0_PE) || (s->seg[SEG_SS].attr & SA_DPL) == 0;
}

static bool flags_valid(const struct vcpu_state *s)
{
    return (s->rflags & ~(RFLAGS_KEPT | FL_STATUS)) == 0 && (s->cc & ~0xd701u) == 0 && s->dr[6] >> 32 == 0 &&
           s->dr[7] >> 32 == 0;
}

static bool apic_valid(const struct vcpu_state *s)
{
    uint64_t modes = s->msr.apic_base & (APIC_BASE_ENABLED | APIC_BASE_X2APIC);
    return modes != APIC_BASE_X2APIC && (s->lapic.timer_divide & 4) == 0 && s->lapic.id >> 24 < MAX_VCPUS;
}

static bool state_valid(const void *state)
{
    const struct vcpu_state *s = state;
    return control_valid(s) && addresses_valid(s) && segments_valid(s) && flags_valid(s) && apic_valid(s) &&
           control_xcr0_valid(s->fpu.xcr0, XCR0_IMPLEMENTED);
}

const struct state_class vcpu_state_class = {
    .name = "vcpu",
    .version = 2,
    .size = sizeof(struct vcpu_state),
    .fields = fields,
    .nfields = array_size(fields),
    .valid = state_valid,
};
