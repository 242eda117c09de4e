/* SPDX-License-Identifier: Apache-2.0 */
/* SYSCALL, SYSRET, SYSENTER, SYSEXIT of both vendors; PUSHF, POPF, CLI, STI, CLAC, STAC; port permissions. */
#include "seg_kit.h"

static void set_msrs(struct kit *k)
{
    struct msr_state *m = &k->v->s.msr;
    m->star = 0x001b000800004000ull; /* SYSRET base 0x1b, SYSCALL CS 8, legacy EIP 0x4000 */
    m->lstar = 0xffff800000001000ull;
    m->cstar = 0xffff800000002000ull;
    m->sfmask = FL_IF | FL_TF | FL_DF;
    m->sysenter_cs = 8;
    m->sysenter_esp = 0xffff800000003000ull;
    m->sysenter_eip = 0xffff800000004000ull;
    k->v->s.efer |= EFER_SCE;
}

static void syscall_64(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_long(k, 3);
    assert_int_equal(RAISED(k, cpu_syscall(v)), VEC_UD); /* SCE */
    set_msrs(k);
    v->s.rflags |= FL_IF | FL_AC;
    v->s.cc = flags_to_cc(FL_CF);
    assert_fine(k, cpu_syscall(v));
    assert_int_equal(v->s.rip, 0xffff800000001000ull);
    assert_int_equal(v->s.gpr[RCX], START_AT);
    assert_int_equal(v->s.gpr[R11], 2 | FL_IF | FL_AC | FL_CF);
    assert_int_equal(state_rflags(&v->s), 2 | FL_AC | FL_CF);
    assert_int_equal(v->s.seg[SEG_CS].sel, 8);
    assert_int_equal(v->s.seg[SEG_SS].sel, 0x10);
    assert_int_equal(vcpu_cpl(v), 0);
    assert_true(vcpu_long64(v));

    v->s.gpr[R11] = ~0ull;
    v->s.gpr[RCX] = 0x1234567890;
    assert_fine(k, cpu_sysret(v, 8));
    assert_int_equal(v->s.rip, 0x1234567890);
    assert_int_equal(state_rflags(&v->s), 0x3c7fd7);
    assert_int_equal(v->s.seg[SEG_CS].sel, 0x2b);
    assert_int_equal(v->s.seg[SEG_SS].sel, 0x23);
    assert_int_equal(vcpu_cpl(v), 3);
    assert_raises(k, VEC_GP, 0, cpu_sysret(v, 8)); /* CPL 3 */

    kit_long(k, 0);
    set_msrs(k);
    v->s.gpr[RCX] = 0xf00001234ull;
    assert_fine(k, cpu_sysret(v, 4));
    assert_int_equal(v->s.rip, 0x1234);
    assert_int_equal(v->s.seg[SEG_CS].sel, 0x1b);
    assert_false(vcpu_long64(v));
    assert_true(v->mode & MODE_LMA);
}

static void syscall_intel(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_long(k, 0);
    set_msrs(k);
    v->s.gpr[RCX] = 0x800000000000ull;
    assert_raises(k, VEC_GP, 0, cpu_sysret(v, 8));
    assert_int_equal(vcpu_cpl(v), 0);
    assert_fine(k, cpu_jmp_far(v, G_CODE0, START_AT, 4));
    assert_int_equal(RAISED(k, cpu_syscall(v)), VEC_UD); /* compatibility mode */
    /* SYSENTER works from there, into 64-bit code */
    v->s.rflags |= FL_IF;
    assert_fine(k, cpu_sysenter(v));
    assert_true(vcpu_long64(v));
    assert_int_equal(v->s.rip, 0xffff800000004000ull);
    assert_int_equal(v->s.gpr[RSP], 0xffff800000003000ull);
    assert_false(v->s.rflags & FL_IF);
    v->s.gpr[RDX] = 0x800000000000ull;
    assert_raises(k, VEC_GP, 0, cpu_sysexit(v, 8));
    v->s.gpr[RDX] = 0x123456789abull;
    v->s.gpr[RCX] = 0x7000;
    assert_fine(k, cpu_sysexit(v, 8));
    assert_int_equal(v->s.rip, 0x123456789abull);
    assert_int_equal(v->s.seg[SEG_CS].sel, 8 + 32 + 3);
    assert_int_equal(v->s.seg[SEG_SS].sel, 8 + 40 + 3);
    assert_int_equal(vcpu_cpl(v), 3);
    assert_raises(k, VEC_GP, 0, cpu_sysexit(v, 4));
}

static void syscall_amd(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_long(k, 0);
    set_msrs(k);
    v->s.gpr[RCX] = 0x800000000000ull;
    assert_fine(k, cpu_sysret(v, 8)); /* user code will fault there */
    assert_int_equal(vcpu_cpl(v), 3);
    kit_long(k, 0);
    set_msrs(k);
    assert_int_equal(RAISED(k, cpu_sysenter(v)), VEC_UD);
    assert_int_equal(RAISED(k, cpu_sysexit(v, 8)), VEC_UD);
    assert_fine(k, cpu_jmp_far(v, G_CODE0, START_AT, 4));
    assert_fine(k, cpu_syscall(v)); /* compatibility mode: CSTAR */
    assert_int_equal(v->s.rip, 0xffff800000002000ull);
    kit_protected(k, 3);
    set_msrs(k);
    v->s.rflags |= FL_IF;
    assert_fine(k, cpu_syscall(v)); /* legacy mode */
    assert_int_equal(v->s.rip, 0x4000);
    assert_int_equal(v->s.gpr[RCX], START_AT);
    assert_false(v->s.rflags & FL_IF);
    assert_int_equal(vcpu_cpl(v), 0);
    assert_fine(k, cpu_sysret(v, 4));
    assert_int_equal(v->s.rip, START_AT);
    assert_true(v->s.rflags & FL_IF);
}

static void sysenter_legacy(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_protected(k, 3);
    assert_raises(k, VEC_GP, 0, cpu_sysenter(v)); /* no CS */
    set_msrs(k);
    assert_fine(k, cpu_sysenter(v));
    assert_int_equal(v->s.rip, 0x4000);
    assert_int_equal(v->s.gpr[RSP], 0x3000);
    assert_int_equal(v->mode & MODE_CODE_MASK, MODE_CODE32);
    v->s.gpr[RDX] = 0x1234;
    v->s.gpr[RCX] = 0x5678;
    assert_fine(k, cpu_sysexit(v, 4));
    assert_int_equal(v->s.seg[SEG_CS].sel, 8 + 16 + 3);
    assert_int_equal(v->s.gpr[RSP], 0x5678);
    kit_real(k);
    set_msrs(k);
    assert_raises(k, VEC_GP, 0, cpu_sysenter(v));
}

static void flags(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_protected(k, 0);
    assert_fine(k, cpu_popf(v, ~0ull, 4));
    assert_int_equal(state_rflags(&v->s), 0x247fd7); /* all but RF, VM, VIF, VIP */
    assert_int_equal(cpu_pushf_value(v, 4), 0x247fd7);
    assert_true(v->mode & MODE_STEP);
    kit_protected(k, 3);
    assert_fine(k, cpu_popf(v, ~0ull, 4));
    assert_int_equal(state_rflags(&v->s), 0x244dd7); /* IF and IOPL stay */
    assert_raises(k, VEC_GP, 0, cpu_cli(v));
    assert_raises(k, VEC_GP, 0, cpu_sti(v));
    assert_int_equal(RAISED(k, cpu_stac(v)), VEC_UD);
    v->s.rflags |= FL_IOPL;
    assert_fine(k, cpu_sti(v));
    assert_int_equal(v->s.shadow, SHADOW_STI);
    v->s.shadow = 0;
    assert_fine(k, cpu_sti(v)); /* already set: no shadow */
    assert_int_equal(v->s.shadow, 0);
    assert_fine(k, cpu_popf(v, 0, 2));
    assert_int_equal(state_rflags(&v->s), 0x243002);
    kit_protected(k, 3); /* PVI: VIF instead */
    v->s.cr4 |= CR4_PVI;
    assert_fine(k, cpu_sti(v));
    assert_int_equal(v->s.rflags & (FL_IF | FL_VIF), FL_VIF);
    assert_fine(k, cpu_cli(v));
    assert_int_equal(v->s.rflags & (FL_IF | FL_VIF), 0);
    v->s.rflags |= FL_VIP;
    assert_raises(k, VEC_GP, 0, cpu_sti(v));
    kit_long(k, 0);
    v->s.cr4 |= CR4_SMAP;
    assert_fine(k, cpu_clac(v));
    assert_int_equal(v->mmu.index, MMU_SUPER);
    assert_fine(k, cpu_stac(v));
    assert_int_equal(v->mmu.index, MMU_SUPER_AC);
}

static void port_permission(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_protected(k, 3);
    for (unsigned i = 0; i <= 0x2000; i += 4)
        kit_put32(k, TSS_AT + 0x68 + i, i == 0x2000 ? 0xff : 0);
    kit_put32(k, TSS_AT + 0x68 + 4, 1u << 3 | 1u << 16); /* ports 0x23 and 0x30 */
    assert_fine(k, cpu_check_io(v, 0x22, 1));
    assert_raises(k, VEC_GP, 0, cpu_check_io(v, 0x22, 2));
    assert_raises(k, VEC_GP, 0, cpu_check_io(v, 0x20, 4));
    assert_fine(k, cpu_check_io(v, 0x24, 4));
    assert_raises(k, VEC_GP, 0, cpu_check_io(v, 0x2d, 4)); /* bits in the next byte */
    assert_fine(k, cpu_check_io(v, 0xffff, 1)); /* the 0xff byte behind the bitmap is inside the limit */
    assert_raises(k, VEC_GP, 0, cpu_check_io(v, 0xffff, 2));
    v->s.tr.limit = 0x2067;
    assert_raises(k, VEC_GP, 0, cpu_check_io(v, 0xffff, 1)); /* two bytes are always read */
    v->s.rflags |= FL_IOPL;
    assert_fine(k, cpu_check_io(v, 0xffff, 1));
    kit_vm86(k, 3); /* IOPL does not help in virtual-8086 mode */
    kit_put32(k, TSS_AT + 0x68 + 4, 1u << 3);
    assert_raises(k, VEC_GP, 0, cpu_check_io(v, 0x23, 1));
    kit_protected(k, 0);
    assert_fine(k, cpu_check_io(v, 0x23, 1));
    assert_int_equal(cpu_in(v, 0x999, 2), 0xffff);
    assert_int_equal(v->counters.exits_io, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, kit_setup, kit_teardown)
#define AMD(name) cmocka_unit_test_setup_teardown(name, kit_setup_amd, kit_teardown)
    const struct CMUnitTest tests[] = {
        T(syscall_64),      AMD(syscall_64), T(syscall_intel),   AMD(syscall_amd),
        T(sysenter_legacy), T(flags),        T(port_permission),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
