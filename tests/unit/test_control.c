/* SPDX-License-Identifier: Apache-2.0 */
/* Control registers and mode switches, the mode key, reset state (SDM 3A 2.5, 4.1, 9.1, 9.8). */
#include "cpu_kit.h"

#include <string.h>

#define ROOT 0x10000u
#define PE_ON (CR0_PE | CR0_ET)

static void reset_state(void **state)
{
    struct kit *k = *state;
    const struct vcpu_state *s = &k->v->s;
    assert_int_equal(s->rip, 0xfff0);
    assert_int_equal(s->seg[SEG_CS].sel, 0xf000);
    assert_int_equal(s->seg[SEG_CS].base, 0xffff0000);
    assert_int_equal(s->cr0, 0x60000010);
    assert_int_equal(state_rflags(s), 2);
    assert_int_equal(s->gpr[RDX], 0x00a20f10);
    assert_int_equal(s->dr[6], 0xffff0ff0);
    assert_int_equal(s->dr[7], 0x400);
    assert_int_equal(s->fpu.fcw, 0x40);
    assert_int_equal(s->fpu.mxcsr, 0x1f80);
    assert_int_equal(s->msr.pat, 0x0007040600070406);
    assert_int_equal(s->msr.apic_base, 0xfee00900);
    assert_int_equal(k->v->mode, MODE_CODE16 | MODE_64K);
    /* INIT keeps the FPU, the MSRs and the caches' bits. */
    k->v->s.fpu.fcw = 0x37f;
    k->v->s.msr.star = 5;
    k->v->s.cr0 = CR0_PE | CR0_ET | CR0_TS;
    vcpu_reset(k->v, true);
    assert_int_equal(s->fpu.fcw, 0x37f);
    assert_int_equal(s->msr.star, 5);
    assert_int_equal(s->cr0, CR0_ET);
    assert_int_equal(s->activity, ACTIVITY_RUN);
}

static void cr0_rules(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 0, PE_ON | CR0_NW));
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 0, CR0_PG));
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 0, 1ull << 32 | PE_ON));
    assert_fine(k, cpu_write_cr(v, 0, CR0_PE | 0x40)); /* a reserved bit of the lower half: no matter */
    assert_int_equal(v->s.cr0, PE_ON);
    assert_true(v->mode & MODE_PE);
    assert_int_equal(vcpu_cpl(v), 0);
    assert_raises(k, VEC_UD, 0, cpu_write_cr(v, 1, 0));
    assert_raises(k, VEC_UD, 0, cpu_read_cr(v, 5));
    kit_set_cpl(k, 3);
    assert_raises(k, VEC_GP, 0, cpu_read_cr(v, 0));
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 0, PE_ON));
    assert_raises(k, VEC_GP, 0, cpu_clts(v));
    assert_raises(k, VEC_GP, 0, cpu_lmsw(v, 1));
    assert_raises(k, VEC_GP, 0, cpu_hlt(v));
    assert_raises(k, VEC_GP, 0, cpu_invlpg(v, 0));
    assert_raises(k, VEC_GP, 0, cpu_wbinvd(v));
    assert_raises(k, VEC_GP, 0, cpu_rdpmc(v));
}

static void machine_status_word(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    volatile uint64_t got = 0;
    assert_fine(k, cpu_lmsw(v, 0xf));
    assert_int_equal(v->s.cr0 & 0x1f, 0x1f);
    assert_fine(k, cpu_lmsw(v, 0)); /* PE stays */
    assert_int_equal(v->s.cr0 & 0x1f, 0x11);
    kit_set_cpl(k, 3);
    assert_fine(k, got = cpu_smsw(v));
    assert_int_equal(got, v->s.cr0);
    v->s.cr4 |= CR4_UMIP;
    assert_raises(k, VEC_GP, 0, got = cpu_smsw(v));
}

static void wrmsr(struct kit *k, uint32_t msr, uint64_t val)
{
    k->v->s.gpr[RCX] = msr;
    k->v->s.gpr[RAX] = (uint32_t)val;
    k->v->s.gpr[RDX] = val >> 32;
    cpu_wrmsr(k->v);
}

#define EFER_MSR 0xc0000080u

/* Into long mode and out again, with every wrong turn (SDM 3A 9.8.5). */
static void long_mode(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    v->s.seg[SEG_CS].attr = SA_P | SA_S | SA_DB | 0xb;
    v->s.seg[SEG_SS].attr = SA_P | SA_S | SA_DB | 3;
    assert_fine(k, cpu_write_cr(v, 0, PE_ON));
    assert_fine(k, wrmsr(k, EFER_MSR, EFER_LME | EFER_LMA)); /* LMA is not software's */
    assert_int_equal(v->s.efer, EFER_LME);
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 0, PE_ON | CR0_PG)); /* no PAE */
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 4, CR4_PAE | CR4_PCIDE));
    assert_fine(k, cpu_write_cr(v, 4, CR4_PAE));
    assert_fine(k, cpu_write_cr(v, 3, ROOT));
    v->s.seg[SEG_CS].attr = SA_P | SA_S | SA_L | 0xb;
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 0, PE_ON | CR0_PG)); /* CS.L set already */
    v->s.seg[SEG_CS].attr = SA_P | SA_S | SA_DB | 0xb;
    assert_fine(k, cpu_write_cr(v, 0, PE_ON | CR0_PG));
    assert_int_equal(v->s.efer, EFER_LME | EFER_LMA);
    assert_int_equal(v->mode & (MODE_LMA | MODE_CODE_MASK), MODE_LMA | MODE_CODE32);
    assert_raises(k, VEC_GP, 0, wrmsr(k, EFER_MSR, 0));
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 4, 0));
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 3, 1ull << 40));
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 3, 1ull << 63)); /* PCIDE is off */
    v->s.seg[SEG_CS].attr = SA_P | SA_S | SA_L | 0xb;
    vcpu_refresh_mode(v);
    assert_true(vcpu_long64(v));
    assert_int_equal(v->lin_mask, ~0ull);
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 0, PE_ON)); /* not from 64-bit code */
    assert_fine(k, cpu_write_cr(v, 8, 5));
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 8, 16));
    /* PCID */
    assert_fine(k, cpu_write_cr(v, 3, ROOT | 8));
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 4, CR4_PAE | CR4_PCIDE));
    assert_fine(k, cpu_write_cr(v, 3, ROOT));
    assert_fine(k, cpu_write_cr(v, 4, CR4_PAE | CR4_PCIDE));
    assert_fine(k, cpu_write_cr(v, 3, ROOT | 7 | 1ull << 63));
    assert_int_equal(v->s.cr3, ROOT | 7);
    v->s.seg[SEG_CS].attr = SA_P | SA_S | SA_DB | 0xb;
    vcpu_refresh_mode(v);
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 0, PE_ON)); /* PCIDE set */
    assert_fine(k, cpu_write_cr(v, 4, CR4_PAE));
    assert_fine(k, cpu_write_cr(v, 0, PE_ON));
    assert_int_equal(v->s.efer, EFER_LME);
    assert_int_equal(v->mode & MODE_LMA, 0);
    assert_fine(k, wrmsr(k, EFER_MSR, 0));
    assert_raises(k, VEC_GP, 0, wrmsr(k, EFER_MSR, 1u << 12)); /* SVME is not there */
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 4, 1u << 13)); /* VMXE neither */
}

/* PAE without long mode loads four pointers; reserved bits in them are #GP and nothing changes (SDM 3A
 * 4.4.1). */
static void pae_pointers(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_put64(k, ROOT, 0x20001);
    assert_fine(k, cpu_write_cr(v, 0, PE_ON));
    assert_fine(k, cpu_write_cr(v, 4, CR4_PAE));
    assert_fine(k, cpu_write_cr(v, 3, ROOT));
    assert_fine(k, cpu_write_cr(v, 0, PE_ON | CR0_PG));
    assert_int_equal(v->s.pdpte[0], 0x20001);
    kit_put64(k, ROOT + 0x20, 0x30001 | 2);
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 3, ROOT + 0x20));
    assert_int_equal(v->s.cr3, ROOT);
    assert_int_equal(v->s.pdpte[0], 0x20001);
    kit_put64(k, ROOT, 0x21001);
    assert_fine(k, cpu_write_cr(v, 4, CR4_PAE | CR4_PGE)); /* reloads */
    assert_int_equal(v->s.pdpte[0], 0x21001);
    kit_put64(k, ROOT, 0x22001 | 4);
    assert_raises(k, VEC_GP, 0, cpu_write_cr(v, 4, CR4_PAE));
    assert_int_equal(v->s.cr4, CR4_PAE | CR4_PGE);
}

static void xcr0(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    assert_raises(k, VEC_UD, 0, cpu_xgetbv(v));
    v->s.cr4 |= CR4_OSXSAVE;
    assert_fine(k, cpu_xgetbv(v));
    assert_int_equal(v->s.gpr[RAX], 1);
    static const struct {
        uint32_t ecx, eax, edx;
        bool fine;
    } rows[] = { { 0, 3, 0, true },  { 0, 1, 0, true },  { 0, 2, 0, false },
                 { 0, 7, 0, false }, { 1, 3, 0, false }, { 0, 3, 1, false } };
    for (volatile unsigned i = 0; i < array_size(rows); i++) {
        v->s.gpr[RCX] = rows[i].ecx;
        v->s.gpr[RAX] = rows[i].eax;
        v->s.gpr[RDX] = rows[i].edx;
        assert_int_equal(RAISED(k, cpu_xsetbv(v)), rows[i].fine ? -1 : VEC_GP);
    }
}

static void segment_bases(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    volatile uint64_t got = 0;
    assert_raises(k, VEC_UD, 0, cpu_swapgs(v));
    kit_long_mode(k, ROOT);
    assert_raises(k, VEC_UD, 0, got = cpu_rdfsgsbase(v, SEG_FS));
    v->s.cr4 |= CR4_FSGSBASE;
    assert_fine(k, cpu_wrfsgsbase(v, SEG_GS, 0x1000));
    assert_raises(k, VEC_GP, 0, cpu_wrfsgsbase(v, SEG_GS, 1ull << 47));
    v->s.msr.kernel_gs_base = 0xffff888000000000;
    assert_fine(k, cpu_swapgs(v));
    assert_int_equal(v->sf[SEG_GS].base, 0xffff888000000000);
    assert_int_equal(v->s.msr.kernel_gs_base, 0x1000);
    assert_fine(k, got = cpu_rdfsgsbase(v, SEG_GS));
    assert_int_equal(got, 0xffff888000000000);
}

static void mode_key(void **state)
{
    struct kit *k = *state;
    struct vcpu_state s = k->v->s;
    enum { DATA = SA_P | SA_S | 3 };
    s.cr0 |= CR0_PE;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s.seg[i] = (struct segment){ .attr = DATA | SA_DB, .limit = ~0u };
    s.seg[SEG_CS].attr = SA_P | SA_S | SA_DB | 0xb;
    assert_int_equal(vcpu_mode_key(&s), MODE_PE | MODE_CODE32 | MODE_SS32 | MODE_FLAT);
    s.seg[SEG_ES].attr = SA_UNUSABLE;
    assert_int_equal(vcpu_mode_key(&s), MODE_PE | MODE_CODE32 | MODE_SS32);
    s.seg[SEG_ES] = s.seg[SEG_DS];
    s.seg[SEG_DS].base = 16;
    assert_false(vcpu_mode_key(&s) & MODE_FLAT);
    s.seg[SEG_DS].base = 0;
    s.seg[SEG_SS].attr |= 3u << SA_DPL_SHIFT;
    assert_int_equal(mode_cpl(vcpu_mode_key(&s)), 3);
    s.rflags |= FL_TF;
    assert_true(vcpu_mode_key(&s) & MODE_STEP);
    s.rflags = 2 | FL_VM;
    s.seg[SEG_SS].attr = s.seg[SEG_CS].attr = DATA | SA_DPL;
    assert_int_equal(vcpu_mode_key(&s) & ~MODE_FLAT, MODE_PE | MODE_VM86 | 3u << MODE_CPL_SHIFT);
    s.rflags = 2;
    s.dr[7] = 0x400 | 2; /* a code breakpoint */
    assert_true(vcpu_mode_key(&s) & MODE_STEP);
    s.dr[7] = 0x400 | 2 | 3u << 16; /* a data one */
    assert_false(vcpu_mode_key(&s) & MODE_STEP);
    s.efer = EFER_LME | EFER_LMA;
    s.seg[SEG_CS].attr = SA_P | SA_S | SA_L | 0xb;
    s.seg[SEG_DS].base = 99; /* of no account in 64-bit mode */
    s.seg[SEG_SS].attr = SA_UNUSABLE;
    assert_int_equal(vcpu_mode_key(&s), MODE_PE | MODE_LMA | MODE_CODE64 | MODE_FLAT);
}

/* INVPCID: what it refuses (SDM 2A INVPCID). */
static void invpcid(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_put64(k, ROOT, 0x11003);
    kit_put64(k, 0x11000, 0x12003);
    kit_put64(k, 0x12000, 0x83); /* the first 2 MiB as they are */
    kit_long_mode(k, ROOT);
    static const struct {
        uint64_t type, pcid, lin;
        bool pcide, fine;
    } rows[] = {
        { 0, 0, 0x1000, false, true },      { 0, 1, 0x1000, false, false },    { 0, 1, 0x1000, true, true },
        { 0, 0, 1ull << 47, false, false }, { 1, 0, 1ull << 47, false, true }, { 1, 4096, 0, true, false },
        { 2, 0, 0, false, true },           { 2, 1ull << 63, 0, true, false }, { 3, 0, 0, true, true },
        { 4, 0, 0, true, false },
    };
    for (volatile unsigned i = 0; i < array_size(rows); i++) {
        v->s.cr4 = CR4_PAE | (rows[i].pcide ? CR4_PCIDE : 0);
        vcpu_refresh_paging(v, true);
        kit_put64(k, 0x5000, rows[i].pcid);
        kit_put64(k, 0x5008, rows[i].lin);
        assert_int_equal(RAISED(k, cpu_invpcid(v, rows[i].type, SEG_DS, 0x5000)), rows[i].fine ? -1 : VEC_GP);
    }
    assert_raises(k, VEC_PF, 0, cpu_invpcid(v, 9, SEG_DS, 0x400000)); /* memory first */
}

static void fpu_checks(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    static const struct {
        uint64_t cr0, cr4;
        uint16_t fsw;
        int fpu, wait, mmx, sse;
    } rows[] = {
        { CR0_NE, CR4_OSFXSR, 0, -1, -1, -1, -1 },
        { CR0_NE, 0, 0, -1, -1, -1, VEC_UD },
        { CR0_NE | CR0_TS, CR4_OSFXSR, 0, VEC_NM, -1, VEC_NM, VEC_NM },
        { CR0_NE | CR0_TS | CR0_MP, CR4_OSFXSR, 0, VEC_NM, VEC_NM, VEC_NM, VEC_NM },
        { CR0_NE | CR0_EM, CR4_OSFXSR, 0, VEC_NM, -1, VEC_UD, VEC_UD },
        { CR0_NE | CR0_EM | CR0_TS, CR4_OSFXSR, 0, VEC_NM, -1, VEC_UD, VEC_UD },
        { CR0_NE, CR4_OSFXSR, 0x80, -1, VEC_MF, VEC_MF, -1 },
        { 0, CR4_OSFXSR, 0x80, -1, -1, -1, -1 },
    };
    for (volatile unsigned i = 0; i < array_size(rows); i++) {
        v->s.cr0 = rows[i].cr0;
        v->s.cr4 = rows[i].cr4;
        v->s.fpu.fsw = rows[i].fsw;
        assert_int_equal(RAISED(k, cpu_check_fpu(v)), rows[i].fpu);
        assert_int_equal(RAISED(k, cpu_check_wait(v)), rows[i].wait);
        assert_int_equal(RAISED(k, cpu_check_mmx(v)), rows[i].mmx);
        assert_int_equal(RAISED(k, cpu_check_sse(v)), rows[i].sse);
    }
}

static void vmcall(void **state)
{
    struct kit *k = *state;
    cpu_vmcall(k->v);
    assert_int_equal(k->v->s.gpr[RAX], 0xfffffc18);
    kit_long_mode(k, ROOT);
    cpu_vmcall(k->v);
    assert_int_equal(k->v->s.gpr[RAX], (uint64_t)-1000);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(reset_state),   TEST(cr0_rules),    TEST(machine_status_word),
        TEST(long_mode),     TEST(pae_pointers), TEST(xcr0),
        TEST(segment_bases), TEST(mode_key),     TEST(invpcid),
        TEST(fpu_checks),    TEST(vmcall),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
