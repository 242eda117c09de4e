/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model-specific registers: one table, a row a register or range (SDM 4, APM 2 appendix A).
 *
 * A row says who has the register, how it is read and how it is written. Bits of `reserved` raise #GP when
 * set. A register without a row, or without the right function, is #GP and counted by number.
 */
#include "cpu/control.h"
#include "cpu/descriptor.h"
#include "cpu/lapic.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "cpu/pvclock.h"
#include "isa/insn.h"

enum vendor { ANY, INTEL, AMD };

struct msr_row {
    uint32_t first, last;
    enum vendor vendor;
    bool (*read)(struct vcpu *v, const struct msr_row *row, uint32_t msr, uint64_t *val);
    bool (*write)(struct vcpu *v, const struct msr_row *row, uint32_t msr, uint64_t val);
    uint64_t reserved;
    uint32_t offset; /* in struct vcpu_state, of stored ones */
    uint64_t constant;
};

#define READER(name) static bool name(struct vcpu *v, const struct msr_row *row, uint32_t msr, uint64_t *val)
#define WRITER(name) static bool name(struct vcpu *v, const struct msr_row *row, uint32_t msr, uint64_t val)
#define UNUSED3(a, b, c) ((void)(a), (void)(b), (void)(c))

/* --- the common kinds ----------------------------------------------------------------------------------- */

static uint64_t *stored(struct vcpu *v, const struct msr_row *row)
{
    return (uint64_t *)(void *)((char *)&v->s + row->offset);
}

READER(read_stored)
{
    (void)msr;
    *val = *stored(v, row);
    return true;
}

WRITER(write_stored)
{
    (void)msr;
    if (val & row->reserved)
        return false;
    *stored(v, row) = val;
    return true;
}

WRITER(write_canonical) { return is_canonical(val) && write_stored(v, row, msr, val); }

READER(read_constant)
{
    UNUSED3(v, row, msr);
    *val = row->constant;
    return true;
}

/* Bits that have no effect here may be written; they read back as before. */
WRITER(write_ignored)
{
    UNUSED3(v, row, msr);
    return !(val & row->reserved);
}

/* --- registers with a rule of their own ----------------------------------------------------------------- */

READER(read_tsc)
{
    UNUSED3(v, row, msr);
    *val = vcpu_tsc(v);
    return true;
}

/* Moving the counter moves TSC_ADJUST by as much, and the other way round (SDM 3B 17.17.3). */
static void move_tsc(struct vcpu *v, uint64_t by)
{
    v->s.tsc_offset += by;
    v->s.msr.tsc_adjust += by;
    if (v->s.msr.tsc_deadline)
        lapic_msr_write(v, 0x6e0, v->s.msr.tsc_deadline);
    pvclock_update(v);
}

WRITER(write_tsc)
{
    UNUSED3(v, row, msr);
    move_tsc(v, val - vcpu_tsc(v));
    return true;
}

WRITER(write_tsc_adjust)
{
    UNUSED3(v, row, msr);
    move_tsc(v, val - v->s.msr.tsc_adjust);
    return true;
}

#define APIC_BASE_BSP BIT(8)
#define APIC_BASE_X2APIC BIT(10)
#define APIC_BASE_ENABLED BIT(11)
#define APIC_BASE_RESERVED (~(BIT(MAXPHYADDR) - 1) | 0x2ff)

/* Legal ways: disabled -> xAPIC -> x2APIC -> disabled, and xAPIC <-> disabled (SDM 3A Figure 10-27). */
WRITER(write_apic_base)
{
    UNUSED3(v, row, msr);
    uint64_t old = v->s.msr.apic_base, modes = APIC_BASE_ENABLED | APIC_BASE_X2APIC;
    if ((val & APIC_BASE_RESERVED) || (val & modes) == APIC_BASE_X2APIC)
        return false;
    if ((old & modes) == modes && (val & modes) == APIC_BASE_ENABLED)
        return false;
    if (!(old & APIC_BASE_ENABLED) && (val & modes) == modes)
        return false;
    v->s.msr.apic_base = (val & ~APIC_BASE_BSP) | (old & APIC_BASE_BSP);
    if ((old & modes) && !(val & modes))
        lapic_reset(v);
    return true;
}

READER(read_lapic)
{
    (void)row;
    return lapic_msr_read(v, msr, val);
}

WRITER(write_lapic)
{
    (void)row;
    return lapic_msr_write(v, msr, val);
}

READER(read_efer)
{
    UNUSED3(v, row, msr);
    *val = v->s.efer;
    return true;
}

WRITER(write_efer)
{
    UNUSED3(v, row, msr);
    return control_set_efer(v, val);
}

static enum seg base_seg(uint32_t msr) { return msr == 0xc0000100 ? SEG_FS : SEG_GS; }

READER(read_seg_base)
{
    (void)row;
    *val = v->s.seg[base_seg(msr)].base;
    return true;
}

WRITER(write_seg_base)
{
    (void)row;
    if (!is_canonical(val))
        return false;
    v->s.seg[base_seg(msr)].base = v->sf[base_seg(msr)].base = val;
    return true;
}

/* Last-branch records and branch stepping are not implemented: the bits can be set and do nothing, which is
 * counted. */
WRITER(write_debugctl)
{
    if (val & ~row->reserved)
        tally_add(v->tally, TALLY_MSR_WRITE, msr);
    return write_stored(v, row, msr, val);
}

/* Only what Linux changes on the models shown: fast strings. The rest reads as set at reset. */
#define MISC_ENABLE_WRITABLE BIT(0)

WRITER(write_misc_enable)
{
    UNUSED3(v, row, msr);
    v->s.msr.misc_enable = (v->s.msr.misc_enable & ~MISC_ENABLE_WRITABLE) | (val & MISC_ENABLE_WRITABLE);
    return true;
}

/* IA32_XSS: there are no supervisor state components, so it is 0. */
static bool has_xss(const struct vcpu *v) { return cpu_features(v) & FEATURE_BIT(FEAT_XSAVES); }

READER(read_xss)
{
    UNUSED3(v, row, msr);
    *val = 0;
    return has_xss(v);
}

WRITER(write_xss)
{
    UNUSED3(v, row, msr);
    return has_xss(v) && val == 0;
}

READER(read_pvclock)
{
    (void)row;
    return pvclock_read_msr(v, msr, val);
}

WRITER(write_pvclock)
{
    (void)row;
    return pvclock_write_msr(v, msr, val);
}

/* --- memory types: kept, and without effect, since guest memory is always coherent (SDM 3A 11.11, 11.12)  */

#define TYPES_MTRR 0x73u /* UC, WC, WT, WP, WB */
#define TYPES_PAT 0xf3u  /* and UC- */

static bool type_is_one_of(uint64_t type, unsigned set) { return type < 8 && (set >> type & 1); }

static bool eight_types(uint64_t val, unsigned set)
{
    for (unsigned i = 0; i < 8; i++)
        if (!type_is_one_of(bits(val, i * 8, 8), set))
            return false;
    return true;
}

WRITER(write_pat) { return eight_types(val, TYPES_PAT) && write_stored(v, row, msr, val); }

/* 0x250; 0x258, 0x259; 0x268..0x26f */
static uint64_t *mtrr_fixed(struct vcpu *v, uint32_t msr)
{
    unsigned n = msr >= 0x268 ? 3 + (msr - 0x268) : msr >= 0x258 ? 1 + (msr - 0x258) : 0;
    return &v->s.msr.mtrr_fixed[n];
}

READER(read_mtrr_fixed)
{
    (void)row;
    *val = *mtrr_fixed(v, msr);
    return true;
}

WRITER(write_mtrr_fixed)
{
    (void)row;
    if (!eight_types(val, TYPES_MTRR))
        return false;
    *mtrr_fixed(v, msr) = val;
    return true;
}

#define MTRR_BASE_RESERVED (~(BIT(MAXPHYADDR) - 1) | 0xf00)
#define MTRR_MASK_RESERVED (~(BIT(MAXPHYADDR) - 1) | 0x7ff)

READER(read_mtrr_variable)
{
    (void)row;
    unsigned n = (msr - 0x200) / 2;
    *val = msr & 1 ? v->s.msr.mtrr_phys_mask[n] : v->s.msr.mtrr_phys_base[n];
    return true;
}

WRITER(write_mtrr_variable)
{
    (void)row;
    unsigned n = (msr - 0x200) / 2;
    if (msr & 1) {
        if (val & MTRR_MASK_RESERVED)
            return false;
        v->s.msr.mtrr_phys_mask[n] = val;
    } else {
        if ((val & MTRR_BASE_RESERVED) || !type_is_one_of(val & 0xff, TYPES_MTRR))
            return false;
        v->s.msr.mtrr_phys_base[n] = val;
    }
    return true;
}

WRITER(write_mtrr_def_type)
{
    return type_is_one_of(val & 0xff, TYPES_MTRR) && write_stored(v, row, msr, val);
}

/* --- the table ------------------------------------------------------------------------------------------ */

#define HIGH32 0xffffffff00000000ull

#define STORED(msr, vendor, field, write, reserved) \
    { \
        msr, msr, vendor, read_stored, write, reserved, offsetof(struct vcpu_state, field), 0 \
    }
#define CONSTANT(msr, vendor, write, reserved, value) \
    { \
        msr, msr, vendor, read_constant, write, reserved, 0, value \
    }
#define SPECIAL(first, last, vendor, read, write) \
    { \
        first, last, vendor, read, write, 0, 0, 0 \
    }

/* IA32_ARCH_CAPABILITIES: which flaws of real processors this one does not have, so that kernels work around
 * none of them. */
enum {
    RDCL_NO = 0,
    IBRS_ALL = 1,
    SKIP_L1DFL_VMENTRY = 3,
    SSB_NO = 4,
    MDS_NO = 5,
    PSCHANGE_MC_NO = 6,
    TAA_NO = 8,
    SBDR_SSDP_NO = 13,
    FBSDP_NO = 14,
    PSDP_NO = 15,
    BHI_NO = 20,
    PBRSB_NO = 24,
    GDS_NO = 26,
    RFDS_NO = 27,
    ITS_NO = 62,
};
#define ARCH_CAPABILITIES \
    (BIT(RDCL_NO) | BIT(IBRS_ALL) | BIT(SKIP_L1DFL_VMENTRY) | BIT(SSB_NO) | BIT(MDS_NO) | \
     BIT(PSCHANGE_MC_NO) | BIT(TAA_NO) | BIT(SBDR_SSDP_NO) | BIT(FBSDP_NO) | BIT(PSDP_NO) | BIT(BHI_NO) | \
     BIT(PBRSB_NO) | BIT(GDS_NO) | BIT(RFDS_NO) | BIT(ITS_NO))

/* 8 variable ranges, fixed ranges, write combining. */
#define MTRR_CAP (MTRR_VARIABLE | 0x100 | 0x400)

#define HWCR_TSC_FREQ_SEL BIT(24) /* the TSC counts at the P0 rate, as invariant ones do */
#define DE_CFG_LFENCE_SERIALIZE BIT(1)
#define VM_CR_SVMDIS BIT(4)

/* clang-format off */
static const struct msr_row rows[] = {
    SPECIAL(0x10, 0x10, ANY, read_tsc, write_tsc),
    CONSTANT(0x17, INTEL, NULL, 0, 0),                                   /* PLATFORM_ID */
    STORED(0x1b, ANY, msr.apic_base, write_apic_base, 0),
    STORED(0x3b, ANY, msr.tsc_adjust, write_tsc_adjust, 0),
    STORED(0x48, ANY, msr.spec_ctrl, write_stored, ~1ull),               /* SPEC_CTRL: IBRS */
    STORED(0x8b, ANY, msr.bios_sign_id, write_ignored, 0),               /* microcode revision */
    CONSTANT(0xfe, ANY, NULL, 0, MTRR_CAP),
    CONSTANT(0x10a, ANY, NULL, 0, ARCH_CAPABILITIES),
    STORED(0x174, ANY, msr.sysenter_cs, write_stored, HIGH32),
    STORED(0x175, ANY, msr.sysenter_esp, write_canonical, 0),
    STORED(0x176, ANY, msr.sysenter_eip, write_canonical, 0),
    CONSTANT(0x179, ANY, NULL, 0, 0),                                    /* MCG_CAP: no banks */
    STORED(0x17a, ANY, msr.mcg_status, write_stored, ~7ull),
    STORED(0x1a0, INTEL, msr.misc_enable, write_misc_enable, 0),
    STORED(0x1d9, ANY, msr.debugctl, write_debugctl, ~3ull),
    SPECIAL(0x200, 0x200 + 2 * MTRR_VARIABLE - 1, ANY, read_mtrr_variable, write_mtrr_variable),
    SPECIAL(0x250, 0x250, ANY, read_mtrr_fixed, write_mtrr_fixed),
    SPECIAL(0x258, 0x259, ANY, read_mtrr_fixed, write_mtrr_fixed),
    SPECIAL(0x268, 0x26f, ANY, read_mtrr_fixed, write_mtrr_fixed),
    STORED(0x277, ANY, msr.pat, write_pat, 0),
    STORED(0x2ff, ANY, msr.mtrr_def_type, write_mtrr_def_type, ~0xcffull),
    SPECIAL(0x6e0, 0x6e0, ANY, read_lapic, write_lapic),                 /* TSC_DEADLINE */
    SPECIAL(0x800, 0x8ff, ANY, read_lapic, write_lapic),                 /* x2APIC */
    SPECIAL(0xda0, 0xda0, ANY, read_xss, write_xss),
    SPECIAL(0x4b564d00, 0x4b564d01, ANY, read_pvclock, write_pvclock),
    SPECIAL(0xc0000080, 0xc0000080, ANY, read_efer, write_efer),
    STORED(0xc0000081, ANY, msr.star, write_stored, 0),
    STORED(0xc0000082, ANY, msr.lstar, write_canonical, 0),
    STORED(0xc0000083, ANY, msr.cstar, write_canonical, 0),
    STORED(0xc0000084, ANY, msr.sfmask, write_stored, HIGH32),
    SPECIAL(0xc0000100, 0xc0000101, ANY, read_seg_base, write_seg_base),
    STORED(0xc0000102, ANY, msr.kernel_gs_base, write_canonical, 0),
    STORED(0xc0000103, ANY, msr.tsc_aux, write_stored, HIGH32),
    CONSTANT(0xc0010010, AMD, write_ignored, 0, 0),                      /* SYSCFG */
    CONSTANT(0xc0010015, AMD, write_ignored, 0, HWCR_TSC_FREQ_SEL),
    CONSTANT(0xc001001f, AMD, write_ignored, 0, 0),                      /* NB_CFG */
    CONSTANT(0xc0010114, AMD, write_ignored, 0, VM_CR_SVMDIS),
    CONSTANT(0xc0011029, AMD, write_ignored, 0, DE_CFG_LFENCE_SERIALIZE),
};
/* clang-format on */

static const struct msr_row *find(const struct vcpu *v, uint32_t msr)
{
    enum vendor mine = vcpu_is_amd(v) ? AMD : INTEL;
    for (unsigned i = 0; i < array_size(rows); i++)
        if (msr >= rows[i].first && msr <= rows[i].last && (rows[i].vendor == ANY || rows[i].vendor == mine))
            return &rows[i];
    return NULL;
}

static void check(struct vcpu *v)
{
    if (vcpu_cpl(v) > 0)
        cpu_raise_gp0(v);
    v->counters.exits_msr++;
}

static noreturn_fn void refuse(struct vcpu *v, const struct msr_row *row, enum tally_kind kind, uint32_t msr)
{
    if (!row)
        tally_add(v->tally, kind, msr);
    cpu_raise_gp0(v);
}

void cpu_rdmsr(struct vcpu *v)
{
    uint32_t msr = (uint32_t)v->s.gpr[RCX];
    uint64_t val = 0;
    check(v);
    const struct msr_row *row = find(v, msr);
    if (!row || !row->read || !row->read(v, row, msr, &val))
        refuse(v, row, TALLY_MSR_READ, msr);
    v->s.gpr[RAX] = (uint32_t)val;
    v->s.gpr[RDX] = val >> 32;
}

void cpu_wrmsr(struct vcpu *v)
{
    uint32_t msr = (uint32_t)v->s.gpr[RCX];
    uint64_t val = (uint32_t)v->s.gpr[RAX] | v->s.gpr[RDX] << 32;
    check(v);
    const struct msr_row *row = find(v, msr);
    if (!row || !row->write || !row->write(v, row, msr, val))
        refuse(v, row, TALLY_MSR_WRITE, msr);
}
