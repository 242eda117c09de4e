/* SPDX-License-Identifier: Apache-2.0 */
/* Control registers and the mode switches made through them (SDM 3A 2.5, 9.8, 9.9), and the privileged odds
 * and ends. */
#include "cpu/control.h"

#include "cpu/access.h"
#include "cpu/descriptor.h"
#include "cpu/event.h"
#include "cpu/lapic.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "isa/insn.h"

static void need_cpl0(struct vcpu *v)
{
    if (unlikely(vcpu_cpl(v) > 0))
        cpu_raise_gp0(v);
}

/* --- setting control registers -------------------------------------------------------------------------- */

static bool pae_paging(const struct paging_regs *r)
{
    return (r->cr0 & CR0_PG) && (r->cr4 & CR4_PAE) && !(r->efer & EFER_LMA);
}

/* Takes new paging registers. `reload`: PAE paging reads its four PDPTEs again, which can fail (SDM 3A
 * 4.4.1). */
static bool set_paging(struct vcpu *v, const struct paging_regs *r, bool reload, bool flush)
{
    if (reload && pae_paging(r)) {
        if (!mmu_load_pdptes(&v->mmu, r))
            return false;
        memcpy(v->s.pdpte, v->mmu.pdpte, sizeof(v->s.pdpte));
        flush = true;
    }
    v->s.cr0 = r->cr0;
    v->s.cr3 = r->cr3;
    v->s.cr4 = r->cr4;
    v->s.efer = r->efer;
    mmu_set_paging(&v->mmu, r, flush);
    vcpu_refresh_mode(v);
    return true;
}

static struct paging_regs paging_now(const struct vcpu *v)
{
    return (struct paging_regs){ .cr0 = v->s.cr0, .cr3 = v->s.cr3, .cr4 = v->s.cr4, .efer = v->s.efer };
}

bool control_set_cr0(struct vcpu *v, uint64_t val)
{
    struct paging_regs r = paging_now(v);
    uint64_t changed = val ^ r.cr0;
    if (val >> 32)
        return false;
    val = (val & CR0_IMPLEMENTED) | CR0_ET; /* reserved bits of the lower half stay clear without a fault */
    if ((val & CR0_NW) && !(val & CR0_CD))
        return false;
    if ((val & CR0_PG) && !(val & CR0_PE))
        return false;
    if (!(val & CR0_PG) && ((r.cr4 & CR4_PCIDE) || (r.cr0 & CR0_PG && vcpu_long64(v))))
        return false;
    if (changed & CR0_PG) {
        if (!(val & CR0_PG)) {
            r.efer &= ~EFER_LMA;
        } else if (r.efer & EFER_LME) {
            if (!(r.cr4 & CR4_PAE) || (v->s.seg[SEG_CS].attr & SA_L))
                return false;
            r.efer |= EFER_LMA;
        }
    }
    r.cr0 = val;
    return set_paging(v, &r, changed & (CR0_PG | CR0_CD | CR0_NW), false);
}

#define CR3_NO_FLUSH BIT(63)

bool control_set_cr3(struct vcpu *v, uint64_t val)
{
    struct paging_regs r = paging_now(v);
    bool keep = (r.cr4 & CR4_PCIDE) && (val & CR3_NO_FLUSH);
    if (keep)
        val &= ~CR3_NO_FLUSH;
    if ((r.efer & EFER_LMA) ? (val >> MAXPHYADDR) != 0 : (val >> 32) != 0)
        return false;
    r.cr3 = val;
    return set_paging(v, &r, true, !keep);
}

#define CR4_PDPTE_RELOAD (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)

bool control_set_cr4(struct vcpu *v, uint64_t val)
{
    struct paging_regs r = paging_now(v);
    uint64_t changed = val ^ r.cr4;
    if (val & ~(uint64_t)CR4_IMPLEMENTED)
        return false;
    if ((r.efer & EFER_LMA) && !(val & CR4_PAE))
        return false;
    if (changed & val & CR4_PCIDE) /* being set */
        if (!(r.efer & EFER_LMA) || (r.cr3 & 0xfff))
            return false;
    r.cr4 = val;
    return set_paging(v, &r, changed & CR4_PDPTE_RELOAD, false);
}

bool control_set_efer(struct vcpu *v, uint64_t val)
{
    struct paging_regs r = paging_now(v);
    if (val & ~(uint64_t)EFER_IMPLEMENTED)
        return false;
    if (((val ^ r.efer) & EFER_LME) && (r.cr0 & CR0_PG))
        return false;
    r.efer = (val & ~EFER_LMA) | (r.efer & EFER_LMA); /* LMA is the processor's to set */
    return set_paging(v, &r, false, false);
}

/* --- MOV CR, LMSW, SMSW, CLTS --------------------------------------------------------------------------- */

uint64_t cpu_read_cr(struct vcpu *v, unsigned n)
{
    const struct vcpu_state *s = &v->s;
    if (n != 0 && n != 2 && n != 3 && n != 4 && n != 8)
        cpu_raise(v, VEC_UD);
    need_cpl0(v);
    v->counters.exits_cr++;
    switch (n) {
    case 0: return s->cr0;
    case 2: return s->cr2;
    case 3: return s->cr3;
    case 4: return s->cr4;
    default: return lapic_get_cr8(v);
    }
}

static bool set_cr8(struct vcpu *v, uint64_t val)
{
    if (val > 15)
        return false;
    lapic_set_cr8(v, (uint8_t)val);
    return true;
}

void cpu_write_cr(struct vcpu *v, unsigned n, uint64_t val)
{
    bool ok = true;
    if (n != 0 && n != 2 && n != 3 && n != 4 && n != 8)
        cpu_raise(v, VEC_UD);
    need_cpl0(v);
    v->counters.exits_cr++;
    switch (n) {
    case 0: ok = control_set_cr0(v, val); break;
    case 2: v->s.cr2 = val; break;
    case 3: ok = control_set_cr3(v, val); break;
    case 4: ok = control_set_cr4(v, val); break;
    default: ok = set_cr8(v, val); break;
    }
    if (!ok)
        cpu_raise_gp0(v);
}

void cpu_clts(struct vcpu *v)
{
    need_cpl0(v);
    v->s.cr0 &= ~CR0_TS;
}

/* Loads PE, MP, EM and TS; PE can be set but not cleared. */
void cpu_lmsw(struct vcpu *v, uint16_t val)
{
    need_cpl0(v);
    v->counters.exits_cr++;
    uint64_t low = CR0_MP | CR0_EM | CR0_TS;
    if (!control_set_cr0(v, (v->s.cr0 & ~low) | (val & (low | CR0_PE))))
        cpu_raise_gp0(v);
}

uint64_t cpu_smsw(struct vcpu *v)
{
    if ((v->s.cr4 & CR4_UMIP) && vcpu_cpl(v) > 0)
        cpu_raise_gp0(v);
    return v->s.cr0;
}

/* --- XCR0 ----------------------------------------------------------------------------------------------- */

static uint64_t xcr0_has(const struct vcpu *v) { return v->model ? v->model->xcr0 : 3; }

/* Register 1 is XCR0 & XINUSE (SDM 1 13.6). */
void cpu_xgetbv(struct vcpu *v)
{
    if (!(v->s.cr4 & CR4_OSXSAVE))
        cpu_raise(v, VEC_UD);
    uint32_t n = (uint32_t)v->s.gpr[RCX];
    if (n > 1 || (n == 1 && !(cpu_features(v) & FEATURE_BIT(FEAT_XGETBV1))))
        cpu_raise_gp0(v);
    uint64_t val = n ? v->s.fpu.xcr0 & cpu_xinuse(v) : v->s.fpu.xcr0;
    v->s.gpr[RAX] = (uint32_t)val;
    v->s.gpr[RDX] = val >> 32;
}

void cpu_xsetbv(struct vcpu *v)
{
    if (!(v->s.cr4 & CR4_OSXSAVE))
        cpu_raise(v, VEC_UD);
    need_cpl0(v);
    uint64_t val = (uint32_t)v->s.gpr[RAX] | v->s.gpr[RDX] << 32;
    if ((uint32_t)v->s.gpr[RCX] != 0 || !control_xcr0_valid(val, xcr0_has(v)))
        cpu_raise_gp0(v);
    v->s.fpu.xcr0 = val;
}

/* --- FS and GS bases ------------------------------------------------------------------------------------ */

void cpu_swapgs(struct vcpu *v)
{
    if (!vcpu_long64(v))
        cpu_raise(v, VEC_UD);
    need_cpl0(v);
    uint64_t base = v->s.seg[SEG_GS].base;
    v->s.seg[SEG_GS].base = v->sf[SEG_GS].base = v->s.msr.kernel_gs_base;
    v->s.msr.kernel_gs_base = base;
}

static void check_fsgsbase(struct vcpu *v)
{
    if (!vcpu_long64(v) || !(v->s.cr4 & CR4_FSGSBASE))
        cpu_raise(v, VEC_UD);
}

uint64_t cpu_rdfsgsbase(struct vcpu *v, enum seg seg)
{
    check_fsgsbase(v);
    return v->s.seg[seg].base;
}

void cpu_wrfsgsbase(struct vcpu *v, enum seg seg, uint64_t val)
{
    check_fsgsbase(v);
    if (!is_canonical(val))
        cpu_raise_gp0(v);
    v->s.seg[seg].base = v->sf[seg].base = val;
}

/* --- TLB ------------------------------------------------------------------------------------------------ */

void cpu_invlpg(struct vcpu *v, uint64_t lin)
{
    need_cpl0(v);
    if (is_canonical(lin))
        mmu_flush_page(&v->mmu, GVA(lin));
}

enum { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL, INVPCID_ALL_NONGLOBAL };

void cpu_invpcid(struct vcpu *v, uint64_t type, enum seg seg, uint64_t off)
{
    struct {
        uint64_t pcid, lin;
    } d;
    need_cpl0(v);
    mem_read_bytes(v, seg, off, &d, sizeof(d));
    bool names_pcid = type == INVPCID_ADDRESS || type == INVPCID_CONTEXT;
    if (type > INVPCID_ALL_NONGLOBAL || d.pcid >> 12 || (names_pcid && d.pcid && !(v->s.cr4 & CR4_PCIDE)) ||
        (type == INVPCID_ADDRESS && !is_canonical(d.lin)))
        cpu_raise_gp0(v);
    if (type == INVPCID_ADDRESS)
        mmu_flush_pcid_page(&v->mmu, (unsigned)d.pcid, GVA(d.lin));
    else if (type == INVPCID_CONTEXT)
        mmu_flush_pcid(&v->mmu, (unsigned)d.pcid);
    else
        mmu_flush_all(&v->mmu);
}

/* --- the rest ------------------------------------------------------------------------------------------- */

void cpu_hlt(struct vcpu *v)
{
    need_cpl0(v);
    v->counters.exits_hlt++;
    v->s.activity = ACTIVITY_HLT;
}

/* Guest memory is coherent: there is nothing to write back. */
void cpu_wbinvd(struct vcpu *v) { need_cpl0(v); }

/* There are no performance counters; CPUID leaf 0xA says so. */
void cpu_rdpmc(struct vcpu *v) { cpu_raise_gp0(v); }

#define KVM_ENOSYS 1000

void cpu_vmcall(struct vcpu *v)
{
    uint64_t result = (uint64_t)-KVM_ENOSYS;
    v->s.gpr[RAX] = vcpu_long64(v) ? result : (uint32_t)result;
}
