/* SPDX-License-Identifier: Apache-2.0 */
/* Segment registers: descriptors fetched and checked, system segments loaded, rights asked about (SDM 3A
 * 3.4-3.5, 5.4-5.6). */
#include "cpu/access.h"
#include "cpu/descriptor.h"
#include "cpu/model.h"
#include "cpu/ops.h"

bool vcpu_is_amd(const struct vcpu *v) { return v->model && v->model->vendor[0] == 'A'; }

/* ---- Descriptors ----------------------------------------------------------------------------- */

void raise_selector(struct vcpu *v, enum vector vec, uint16_t sel)
{
    cpu_raise_error(v, vec, (sel & ~SEL_RPL) | (v->in_delivery ? 1u : 0u));
}

/* Linear address of `size` bytes at the selector's entry, or false when the table ends before. */
static bool desc_address(const struct vcpu *v, uint16_t sel, unsigned size, uint64_t *lin)
{
    uint64_t base = v->s.gdtr.base;
    uint32_t limit = v->s.gdtr.limit;
    if (sel & SEL_LDT) {
        if (v->s.ldtr.attr & SA_UNUSABLE)
            return false;
        base = v->s.ldtr.base;
        limit = v->s.ldtr.limit;
    }
    uint32_t off = sel & 0xfff8u;
    *lin = base + off;
    return off + size - 1 <= limit;
}

bool desc_find(struct vcpu *v, uint16_t sel, struct descriptor *d)
{
    if (!desc_address(v, sel, 8, &d->lin))
        return false;
    d->low = sys_read(v, d->lin, 8);
    d->high = 0;
    return true;
}

struct descriptor desc_fetch(struct vcpu *v, uint16_t sel, enum vector vec)
{
    struct descriptor d;
    if (!desc_find(v, sel, &d))
        raise_selector(v, vec, sel);
    return d;
}

void desc_fetch_high(struct vcpu *v, uint16_t sel, struct descriptor *d, enum vector vec)
{
    uint64_t lin;
    if (!desc_address(v, sel, 16, &lin))
        raise_selector(v, vec, sel);
    d->high = sys_read(v, lin + 8, 8);
    /* The type field of the upper half must be 0, so that nobody takes it for a descriptor (SDM 3A 7.2.3). */
    if (d->high >> 40 & 0x1f)
        raise_selector(v, vec, sel);
}

void desc_change_type(struct vcpu *v, const struct descriptor *d, unsigned set, unsigned clear)
{
    uint64_t lin = d->lin + 5;
    enum mmu_index index = (v->s.cr4 & CR4_SMAP) ? MMU_SUPER : MMU_SUPER_AC;
    struct mmu_result r = mmu_translate(&v->mmu, GVA(lin), ACCESS_WRITE, index);
    if (r.fault == MMU_OK && r.page && pmap_claim_write(v->pmap, r.page, v->mmu.consumer)) {
        /* Two processors may load the same descriptor: the change is a locked one (SDM 3A 8.1.2.1). */
        uint8_t *byte = r.page->host + (lin & PAGE_OFFSET_MASK);
        if (set)
            __atomic_fetch_or(byte, (uint8_t)set, __ATOMIC_SEQ_CST);
        if (clear)
            __atomic_fetch_and(byte, (uint8_t)~clear, __ATOMIC_SEQ_CST);
        return;
    }
    /* Faults are raised, and ROM, code pages and MMIO treated, by the ordinary access. */
    sys_write(v, lin, (sys_read(v, lin, 1) | set) & ~(uint64_t)clear, 1);
}

void desc_mark_accessed(struct vcpu *v, const struct descriptor *d)
{
    if (!(desc_attr(d) & TYPE_ACCESSED))
        desc_change_type(v, d, TYPE_ACCESSED, 0);
}

struct segment seg_from_desc(uint16_t sel, const struct descriptor *d)
{
    struct segment s = { .sel = sel, .attr = desc_attr(d) };
    s.base = bits(d->low, 16, 24) | bits(d->low, 56, 8) << 24 | d->high << 32;
    s.limit = (uint32_t)(bits(d->low, 0, 16) | bits(d->low, 48, 4) << 16);
    if (s.attr & SA_G)
        s.limit = s.limit << 12 | 0xfff;
    if (s.attr & SA_S)
        s.attr |= TYPE_ACCESSED;
    return s;
}

struct gate gate_from_desc(const struct descriptor *d)
{
    return (struct gate){
        .attr = desc_attr(d) & 0xff,
        .sel = (uint16_t)(d->low >> 16),
        .offset = bits(d->low, 0, 16) | bits(d->low, 48, 16) << 16 | d->high << 32,
        .params = (unsigned)bits(d->low, 32, 5),
    };
}

struct segment seg_real(const struct segment *old, uint16_t sel)
{
    struct segment s = *old;
    if (s.attr & SA_UNUSABLE) {
        s.attr = ATTR_DATA;
        s.limit = 0xffff;
    }
    s.sel = sel;
    s.base = (uint64_t)sel << 4;
    return s;
}

bool tss_read(struct vcpu *v, uint32_t off, unsigned size, uint64_t *val)
{
    if (off + size - 1 > v->s.tr.limit)
        return false;
    *val = sys_read(v, v->s.tr.base + off, size);
    return true;
}

/* ---- Loads ----------------------------------------------------------------------------------- */

struct segment seg_check_stack(struct vcpu *v, uint16_t sel, unsigned cpl, enum vector vec)
{
    if (sel_is_null(sel))
        raise_selector(v, vec, 0);
    struct descriptor d = desc_fetch(v, sel, vec);
    uint32_t attr = desc_attr(&d);
    if (sel_rpl(sel) != cpl || !attr_writable(attr) || attr_dpl(attr) != cpl)
        raise_selector(v, vec, sel);
    if (!attr_present(attr))
        raise_selector(v, VEC_SS, sel);
    desc_mark_accessed(v, &d);
    return seg_from_desc(sel, &d);
}

struct segment seg_check_data(struct vcpu *v, uint16_t sel, unsigned cpl, enum vector vec)
{
    if (sel_is_null(sel))
        return seg_null(sel, 0);
    struct descriptor d = desc_fetch(v, sel, vec);
    uint32_t attr = desc_attr(&d);
    unsigned dpl = attr_dpl(attr);
    if (!attr_readable(attr) || (!attr_conforming(attr) && (sel_rpl(sel) > dpl || cpl > dpl)))
        raise_selector(v, vec, sel);
    if (!attr_present(attr))
        raise_selector(v, VEC_NP, sel);
    desc_mark_accessed(v, &d);
    return seg_from_desc(sel, &d);
}

void cpu_load_seg(struct vcpu *v, enum seg seg, uint16_t sel)
{
    struct segment *reg = &v->s.seg[seg];
    unsigned cpl = vcpu_cpl(v);
    if (!(v->s.cr0 & CR0_PE))
        *reg = seg_real(reg, sel);
    else if (v->s.rflags & FL_VM)
        *reg = seg_vm86(sel);
    else if (seg != SEG_SS)
        *reg = seg_check_data(v, sel, cpl, VEC_GP);
    else if (sel_is_null(sel) && vcpu_long64(v) && cpl != 3 && sel_rpl(sel) == cpl)
        *reg = seg_null(sel, cpl); /* SDM 3A 5.4.1.1 */
    else
        *reg = seg_check_stack(v, sel, cpl, VEC_GP);
    if (seg == SEG_SS)
        v->s.shadow |= SHADOW_MOV_SS;
    vcpu_refresh_mode(v);
}

static void require_protected(struct vcpu *v)
{
    if (!vcpu_protected(v))
        cpu_raise(v, VEC_UD);
}

static void require_cpl0(struct vcpu *v)
{
    if (vcpu_cpl(v) != 0)
        cpu_raise_gp0(v);
}

/* SLDT, STR, SGDT and SIDT tell user code nothing under CR4.UMIP (SDM 3A 2.5). */
static void check_umip(struct vcpu *v)
{
    if ((v->s.cr4 & CR4_UMIP) && vcpu_cpl(v) != 0)
        cpu_raise_gp0(v);
}

/* The segment of an LDT or TSS descriptor, which takes 16 bytes in 64-bit mode. */
static struct segment system_segment(struct vcpu *v, uint16_t sel, struct descriptor *d)
{
    if (vcpu_long64(v))
        desc_fetch_high(v, sel, d, VEC_GP);
    struct segment s = seg_from_desc(sel, d);
    if (!is_canonical(s.base))
        raise_selector(v, VEC_GP, sel);
    return s;
}

void cpu_lldt(struct vcpu *v, uint16_t sel)
{
    require_protected(v);
    require_cpl0(v);
    if (sel_is_null(sel)) {
        v->s.ldtr = seg_null(sel, 0);
        return;
    }
    if (sel & SEL_LDT)
        raise_selector(v, VEC_GP, sel);
    struct descriptor d = desc_fetch(v, sel, VEC_GP);
    uint32_t attr = desc_attr(&d);
    if (!attr_system(attr) || attr_type(attr) != SYS_LDT)
        raise_selector(v, VEC_GP, sel);
    if (!attr_present(attr))
        raise_selector(v, VEC_NP, sel);
    v->s.ldtr = system_segment(v, sel, &d);
}

void cpu_ltr(struct vcpu *v, uint16_t sel)
{
    require_protected(v);
    require_cpl0(v);
    if (sel_is_null(sel))
        cpu_raise_gp0(v);
    if (sel & SEL_LDT)
        raise_selector(v, VEC_GP, sel);
    struct descriptor d = desc_fetch(v, sel, VEC_GP);
    uint32_t attr = desc_attr(&d);
    bool available = attr_type(attr) == SYS_TSS32 || (attr_type(attr) == SYS_TSS16 && !vcpu_lma(v));
    if (!attr_system(attr) || !available)
        raise_selector(v, VEC_GP, sel);
    if (!attr_present(attr))
        raise_selector(v, VEC_NP, sel);
    struct segment tr = system_segment(v, sel, &d);
    desc_change_type(v, &d, TSS_BUSY, 0);
    tr.attr |= TSS_BUSY;
    v->s.tr = tr;
}

uint16_t cpu_sldt(struct vcpu *v)
{
    require_protected(v);
    check_umip(v);
    return v->s.ldtr.sel;
}

uint16_t cpu_str(struct vcpu *v)
{
    require_protected(v);
    check_umip(v);
    return v->s.tr.sel;
}

static void load_table(struct vcpu *v, struct table_reg *reg, uint16_t limit, uint64_t base)
{
    require_cpl0(v);
    if (vcpu_long64(v) && !is_canonical(base))
        cpu_raise_gp0(v);
    reg->limit = limit;
    reg->base = base;
}

void cpu_lgdt(struct vcpu *v, uint16_t limit, uint64_t base) { load_table(v, &v->s.gdtr, limit, base); }

void cpu_lidt(struct vcpu *v, uint16_t limit, uint64_t base) { load_table(v, &v->s.idtr, limit, base); }

void cpu_sgdt(struct vcpu *v, uint16_t *limit, uint64_t *base)
{
    check_umip(v);
    *limit = v->s.gdtr.limit;
    *base = v->s.gdtr.base;
}

void cpu_sidt(struct vcpu *v, uint16_t *limit, uint64_t *base)
{
    check_umip(v);
    *limit = v->s.idtr.limit;
    *base = v->s.idtr.base;
}

/* ---- Questions: LAR, LSL, VERR, VERW --------------------------------------------------------- */

/* Reads the descriptor if code at CPL with this RPL may see it. */
static bool find_visible(struct vcpu *v, uint16_t sel, struct descriptor *d)
{
    require_protected(v);
    if (sel_is_null(sel) || !desc_find(v, sel, d))
        return false;
    uint32_t attr = desc_attr(d);
    unsigned dpl = attr_dpl(attr);
    return attr_conforming(attr) || (dpl >= vcpu_cpl(v) && dpl >= sel_rpl(sel));
}

/* System types that LAR and LSL know, a bit each (SDM 2A, tables of LAR and LSL); fewer in long mode. */
#define TYPES_LSL (BIT(SYS_TSS16) | BIT(SYS_LDT) | BIT(SYS_TSS16_BUSY) | BIT(SYS_TSS32) | BIT(SYS_TSS32_BUSY))
#define TYPES_LAR (TYPES_LSL | BIT(SYS_CALL_GATE16) | BIT(SYS_TASK_GATE) | BIT(SYS_CALL_GATE32))
#define TYPES_LONG (BIT(SYS_LDT) | BIT(SYS_TSS32) | BIT(SYS_TSS32_BUSY) | BIT(SYS_CALL_GATE32))

static bool type_known(const struct vcpu *v, uint32_t attr, uint64_t types)
{
    if (vcpu_lma(v))
        types &= TYPES_LONG;
    return !attr_system(attr) || (types >> attr_type(attr) & 1);
}

bool cpu_lar(struct vcpu *v, uint16_t sel, uint32_t *rights)
{
    struct descriptor d;
    if (!find_visible(v, sel, &d) || !type_known(v, desc_attr(&d), TYPES_LAR))
        return false;
    *rights = (uint32_t)(d.low >> 32) & 0x00f0ff00;
    return true;
}

bool cpu_lsl(struct vcpu *v, uint16_t sel, uint32_t *limit)
{
    struct descriptor d;
    if (!find_visible(v, sel, &d) || !type_known(v, desc_attr(&d), TYPES_LSL))
        return false;
    *limit = seg_from_desc(sel, &d).limit;
    return true;
}

bool cpu_verr(struct vcpu *v, uint16_t sel)
{
    struct descriptor d;
    return find_visible(v, sel, &d) && attr_readable(desc_attr(&d));
}

bool cpu_verw(struct vcpu *v, uint16_t sel)
{
    struct descriptor d;
    return find_visible(v, sel, &d) && attr_writable(desc_attr(&d));
}

void cpu_check_arpl(struct vcpu *v)
{
    if (!vcpu_protected(v) || vcpu_long64(v))
        cpu_raise(v, VEC_UD);
}
