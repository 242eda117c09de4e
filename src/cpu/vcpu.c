/* SPDX-License-Identifier: Apache-2.0 */
/* A virtual processor's reset state, and everything that is derived from its state. */
#include "cpu/vcpu.h"

#include <errno.h>

#include "cpu/descriptor.h"
#include "cpu/lapic.h"
#include "cpu/model.h"
#include "host/memory.h"

/* --- the mode key --------------------------------------------------------------------------------------- */

/* Breakpoint n of DR7: enabled locally or globally, and its kind (SDM 3B 17.2.4). */
static bool breakpoint_enabled(uint64_t dr7, unsigned n) { return bits(dr7, 2 * n, 2) != 0; }

static unsigned breakpoint_kind(uint64_t dr7, unsigned n) { return (unsigned)bits(dr7, 16 + 4 * n, 2); }

enum { BREAK_EXECUTE = 0, BREAK_WRITE = 1, BREAK_IO = 2, BREAK_ACCESS = 3 };

static bool code_breakpoints(uint64_t dr7)
{
    for (unsigned n = 0; (dr7 & 0xff) && n < 4; n++)
        if (breakpoint_enabled(dr7, n) && breakpoint_kind(dr7, n) == BREAK_EXECUTE)
            return true;
    return false;
}

/* Does the segment's type allow the access? In real and virtual-8086 mode any does (`typed` false). */
static bool seg_allows(const struct segment *s, bool write, bool typed)
{
    if ((s->attr & (SA_UNUSABLE | SA_P)) != SA_P)
        return false;
    return !typed || (write ? attr_writable(s->attr) : attr_readable(s->attr));
}

/* Any 32-bit offset is inside the segment, and its type allows the access. */
static bool seg_is_flat(const struct segment *s, bool write, bool typed)
{
    return s->limit == 0xffffffff && !attr_expand_down(s->attr) && seg_allows(s, write, typed);
}

static bool seg_has_64k(const struct segment *s, bool typed)
{
    return s->limit >= 0xffff && !attr_expand_down(s->attr) && seg_allows(s, false, typed) &&
           seg_allows(s, true, typed);
}

uint32_t vcpu_mode_key(const struct vcpu_state *s)
{
    const struct segment *cs = &s->seg[SEG_CS], *ss = &s->seg[SEG_SS];
    uint32_t key = 0;
    bool vm86 = false;
    if (s->cr0 & CR0_PE) {
        vm86 = s->rflags & FL_VM;
        key |= MODE_PE | (vm86 ? MODE_VM86 : 0);
        key |= (vm86 ? 3u : attr_dpl(ss->attr)) << MODE_CPL_SHIFT;
    }
    if (s->efer & EFER_LMA)
        key |= MODE_LMA;
    if ((s->rflags & (FL_TF | FL_RF)) || s->shadow || code_breakpoints(s->dr[7]))
        key |= MODE_STEP;
    if ((key & MODE_LMA) && (cs->attr & SA_L))
        return key | MODE_CODE64 | MODE_FLAT;

    key |= cs->attr & SA_DB ? MODE_CODE32 : MODE_CODE16;
    if (ss->attr & SA_DB)
        key |= MODE_SS32;
    bool typed = (s->cr0 & CR0_PE) && !vm86, flat = true;
    static const enum seg plain[] = { SEG_DS, SEG_ES, SEG_SS };
    for (unsigned i = 0; i < array_size(plain); i++)
        flat = flat && s->seg[plain[i]].base == 0 && seg_is_flat(&s->seg[plain[i]], true, typed) &&
               seg_is_flat(&s->seg[plain[i]], false, typed);
    bool all_64k = !flat && (key & MODE_CODE_MASK) == MODE_CODE16;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        all_64k = all_64k && (i == SEG_CS || seg_has_64k(&s->seg[i], typed));
    return key | (flat ? MODE_FLAT : 0) | (all_64k ? MODE_64K : 0);
}

/* --- what is derived ------------------------------------------------------------------------------------ */

static void refresh_segments(struct vcpu *v)
{
    if (vcpu_long64(v)) {
        for (unsigned i = 0; i < SEG_COUNT; i++) {
            v->sf[i].base = i >= SEG_FS ? v->s.seg[i].base : 0;
            v->sf[i].flat[ACCESS_READ] = v->sf[i].flat[ACCESS_WRITE] = true;
        }
        return;
    }
    bool typed = vcpu_protected(v);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const struct segment *s = &v->s.seg[i];
        bool down = attr_expand_down(s->attr);
        int64_t end = !down ? s->limit + INT64_C(1) : s->attr & SA_DB ? INT64_C(1) << 32 : 0x10000;
        v->sf[i].base = s->base;
        v->sf[i].low = down ? s->limit + INT64_C(1) : 0;
        for (unsigned access = ACCESS_READ; access <= ACCESS_WRITE; access++) {
            v->sf[i].flat[access] = seg_is_flat(s, access == ACCESS_WRITE, typed);
            v->sf[i].end[access] = seg_allows(s, access == ACCESS_WRITE, typed) ? end : 0;
        }
    }
}

/* Pages with a data breakpoint keep out of the TLB, so that the slow path sees every access to them. */
static void refresh_watch(struct vcpu *v)
{
    uint64_t dr7 = v->s.dr[7], pages[4];
    unsigned count = 0;
    for (unsigned n = 0; (dr7 & 0xff) && n < 4; n++) {
        unsigned kind = breakpoint_kind(dr7, n);
        if (breakpoint_enabled(dr7, n) && (kind == BREAK_WRITE || kind == BREAK_ACCESS))
            pages[count++] = v->s.dr[n] & ~(uint64_t)PAGE_OFFSET_MASK;
    }
    if (count || v->mmu.watch_count)
        mmu_set_watch(&v->mmu, pages, count);
}

void vcpu_refresh_mode(struct vcpu *v)
{
    const struct vcpu_state *s = &v->s;
    v->mode = vcpu_mode_key(s);
    v->lin_mask = vcpu_long64(v) ? ~0ull : 0xffffffffull;
    refresh_segments(v);
    bool user = vcpu_cpl(v) == 3, ac = s->rflags & FL_AC;
    mmu_set_index(&v->mmu, user ? MMU_USER : (s->cr4 & CR4_SMAP) && !ac ? MMU_SUPER : MMU_SUPER_AC);
    bool checks_alignment = user && ac && (s->cr0 & CR0_AM);
    if (unlikely(checks_alignment != v->mmu.bypass))
        mmu_set_bypass(&v->mmu, checks_alignment);
    refresh_watch(v);
}

void vcpu_refresh_privilege(struct vcpu *v)
{
    const struct vcpu_state *s = &v->s;
    /* Of all that vcpu_mode_key() and the rest look at, only the privilege is left to change. */
    if ((v->mode & (MODE_CODE_MASK | MODE_STEP)) != MODE_CODE64 || !(s->seg[SEG_CS].attr & SA_L) ||
        s->rflags & (FL_TF | FL_RF | FL_AC) || s->shadow || s->dr[7] & 0xff || v->mmu.bypass ||
        v->sf[SEG_FS].base != s->seg[SEG_FS].base || v->sf[SEG_GS].base != s->seg[SEG_GS].base) {
        vcpu_refresh_mode(v);
        return;
    }
    unsigned cpl = attr_dpl(s->seg[SEG_SS].attr);
    v->mode = (v->mode & ~(3u << MODE_CPL_SHIFT)) | cpl << MODE_CPL_SHIFT;
    mmu_set_index(&v->mmu, cpl == 3 ? MMU_USER : s->cr4 & CR4_SMAP ? MMU_SUPER : MMU_SUPER_AC);
}

void vcpu_refresh_paging(struct vcpu *v, bool flush)
{
    const struct paging_regs regs = { .cr0 = v->s.cr0, .cr3 = v->s.cr3, .cr4 = v->s.cr4, .efer = v->s.efer };
    mmu_set_paging(&v->mmu, &regs, flush);
}

void vcpu_refresh(struct vcpu *v)
{
    memcpy(v->mmu.pdpte, v->s.pdpte, sizeof(v->mmu.pdpte));
    vcpu_refresh_paging(v, true);
    mmu_flush_all(&v->mmu);
    vcpu_refresh_mode(v);
    v->x87_live = v->sse_live = false;
    lapic_rearm(v);
    vcpu_request(v, REQ_EVENT);
}

void vcpu_request(struct vcpu *v, uint32_t req)
{
    atomic_fetch_or(&v->requests, req);
    if (v->cb.kick)
        v->cb.kick(v->cb.ctx, v->index);
}

/* --- reset (SDM 3A Table 9-1) --------------------------------------------------------------------------- */

static void reset_segments(struct vcpu_state *s)
{
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s->seg[i] = (struct segment){ .attr = ATTR_DATA, .limit = 0xffff };
    s->seg[SEG_CS] =
        (struct segment){ .sel = 0xf000, .attr = ATTR_DATA, .limit = 0xffff, .base = 0xffff0000 };
    s->ldtr = (struct segment){ .attr = SA_P | SYS_LDT, .limit = 0xffff };
    s->tr = (struct segment){ .attr = SA_P | SYS_TSS32_BUSY, .limit = 0xffff };
    s->gdtr = s->idtr = (struct table_reg){ .limit = 0xffff };
}

static void reset_fpu(struct fpu_state *f)
{
    *f = (struct fpu_state){ .fcw = 0x40, .ftw = 0xff, .mxcsr = 0x1f80, .xcr0 = 1 };
}

/* PAT as in SDM 3A Table 11-12; MISC_ENABLE: fast strings, no BTS, no PEBS. The MTRRs are as firmware leaves
 * them, since kernels are started without one: memory write-back, the fourth GiB (devices) and the video
 * window uncached. */
static void reset_msrs(struct msr_state *m, bool bsp)
{
    enum { UNCACHED = 0, WRITE_BACK = 6 };
    const uint64_t all_write_back = 0x0101010101010101ull * WRITE_BACK, gib = BIT(30);
    *m = (struct msr_state){
        .pat = 0x0007040600070406ull,
        .apic_base = 0xfee00000u | (1u << 11) | (bsp ? 1u << 8 : 0),
        .misc_enable = BIT(0) | BIT(11) | BIT(12),
        .bios_sign_id = BIT(32),
        .mtrr_def_type = 0xc00 | WRITE_BACK,
        .mtrr_phys_base = { 3 * gib | UNCACHED },
        .mtrr_phys_mask = { ((BIT(MAXPHYADDR) - 1) & ~(gib - 1)) | 0x800 },
    };
    for (unsigned i = 0; i < array_size(m->mtrr_fixed); i++)
        m->mtrr_fixed[i] = i == 2 ? 0 : all_write_back; /* [2] is 0xa0000-0xbffff */
}

void vcpu_reset(struct vcpu *v, bool init)
{
    struct vcpu_state *s = &v->s;
    uint64_t caches = init ? s->cr0 & (CR0_CD | CR0_NW) : CR0_CD | CR0_NW;
    bool bsp = v->index == 0;
    uint32_t id[4] = { 0 };
    if (v->model)
        model_cpuid(v->model, 1, 0, id);

    memset(s->gpr, 0, sizeof(s->gpr));
    s->gpr[RDX] = id[0];
    s->rip = 0xfff0;
    s->rflags = 2;
    s->cc = flags_to_cc(0);
    reset_segments(s);
    s->cr0 = CR0_ET | caches;
    s->cr2 = s->cr3 = s->cr4 = s->efer = 0;
    memset(s->pdpte, 0, sizeof(s->pdpte));
    memset(s->dr, 0, sizeof(s->dr));
    s->dr[6] = 0xffff0ff0;
    s->dr[7] = 0x400;
    s->shadow = 0;
    s->debug_pending = 0;
    s->nmi_pending = s->nmi_blocked = s->init_pending = s->smi_blocked = 0;
    s->activity = bsp ? ACTIVITY_RUN : ACTIVITY_WAIT_SIPI;
    if (!init) { /* an INIT leaves the FPU, the MSRs and the TSC as they are */
        reset_fpu(&s->fpu);
        reset_msrs(&s->msr, bsp);
        s->tsc_offset = 0;
        s->sipi_pending = s->sipi_vector = 0;
        atomic_store(&v->signals, 0);
        atomic_store(&v->sipi_posted, 0);
        for (unsigned i = 0; i < array_size(v->irr_posted); i++)
            atomic_store(&v->irr_posted[i], 0);
    }
    lapic_reset(v);
    bool x87 = v->x87_live, sse = v->sse_live;
    vcpu_refresh(v);
    if (init) { /* what an engine keeps in the host's registers is still good */
        v->x87_live = x87;
        v->sse_live = sse;
    }
}

static size_t allocated(size_t room) { return VCPU_STACK + VCPU_RESERVE_AT(room); }

struct vcpu *vcpu_alloc(size_t room)
{
    uint64_t reserve = room ? VCPU_RESERVE : 0;
    uint8_t *p = reserve ? host_pages_alloc_before(allocated(room), reserve) : NULL;
    if (!p) {
        reserve = 0;
        p = host_pages_alloc(allocated(room));
    }
    if (!p)
        return NULL;
    struct vcpu *v = (struct vcpu *)(void *)(p + VCPU_STACK);
    v->reserve = reserve;
    return v;
}

void vcpu_free(struct vcpu *v, size_t room)
{
    if (v)
        host_pages_free((uint8_t *)v - VCPU_STACK, allocated(room) + v->reserve);
}

int vcpu_init(struct vcpu *v, unsigned index, struct error *e)
{
    if (index >= MAX_VCPUS || !v->pmap || !v->clock)
        return error_set(e, -EINVAL, "processor %u: no such number, or no memory and clock to work with",
                         index);
    v->index = index;
    int err = mmu_init(&v->mmu, v->pmap, v->mmu.consumer);
    if (err)
        return error_set(e, err, "processor %u: cannot set up its MMU", index);
    lapic_init(v);
    vcpu_reset(v, false);
    return 0;
}
