/* SPDX-License-Identifier: Apache-2.0 */
/* Far JMP, CALL, RET, IRET: targets, gates, stacks, faults that leave everything as it was (SDM 2A; 3A
 * 5.8). */
#include "seg_kit.h"

#define TARGET 0x50000u

struct direct_case {
    uint16_t sel;
    unsigned cpl;
    int vec;
    uint32_t err;
};

static __attribute__((noinline)) void check_direct(struct kit *k, const struct direct_case *c, bool call)
{
    struct vcpu *v = k->v;
    kit_protected(k, c->cpl);
    assert_int_equal(RAISED(k, (call ? cpu_call_far : cpu_jmp_far)(v, c->sel, TARGET, 4)), c->vec);
    bool done = c->vec < 0;
    assert_int_equal(v->s.rip, done ? TARGET : START_AT);
    assert_int_equal(v->s.gpr[RSP], done && call ? STACK_TOP - 8 : STACK_TOP);
    assert_int_equal(vcpu_cpl(v), c->cpl);
    if (done)
        assert_int_equal(v->s.seg[SEG_CS].sel, (c->sel & ~3u) | c->cpl);
    else
        assert_int_equal(v->exception.error, c->err);
    if (done && call) {
        assert_int_equal(kit_stack32(k, 0), START_AT);
        assert_int_equal(kit_stack32(k, 1), (c->cpl ? G_CODE3 : G_CODE0) | c->cpl);
    }
}

static void direct_targets(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    static const struct direct_case cases[] = {
        { G_CODE0, 0, -1, 0 },
        { G_CODE0 | 1, 0, VEC_GP, G_CODE0 }, /* RPL > CPL */
        { G_CODE3 | 3, 0, VEC_GP, G_CODE3 }, /* DPL != CPL */
        { G_CODE0, 3, VEC_GP, G_CODE0 },
        { G_CONFORMING0, 3, -1, 0 },
        { G_CONFORMING0 | 3, 0, -1, 0 },             /* RPL does not count */
        { G_CONFORMING3, 0, VEC_GP, G_CONFORMING3 }, /* DPL > CPL */
        { G_DATA0, 0, VEC_GP, G_DATA0 },
        { G_ABSENT_CODE0, 0, VEC_NP, G_ABSENT_CODE0 },
        { 0, 0, VEC_GP, 0 },
        { 3, 0, VEC_GP, 0 },
        { 0x200, 0, VEC_GP, 0x200 },
        { G_LDT, 0, VEC_GP, G_LDT },
        { G_TSS, 0, VEC_GP, G_TSS }, /* busy */
        { G_CODE16, 0, VEC_GP, 0 },  /* TARGET is beyond its limit */
        { G_CODE_LD, 0, -1, 0 },     /* L means nothing outside long mode */
    };
    for (unsigned i = 0; i < array_size(cases); i++) {
        check_direct(k, &cases[i], false);
        check_direct(k, &cases[i], true);
    }
    kit_protected(k, 0);
    assert_fine(
        k, cpu_call_far(v, G_CODE16, 0xf1234, 2)); /* a 16-bit operand cuts the offset and pushes words */
    assert_int_equal(v->s.rip, 0x1234);
    assert_int_equal(v->s.gpr[RSP], STACK_TOP - 4);
    kit_protected(k, 0);
    v->s.seg[SEG_SS].limit = 0x1000;
    vcpu_refresh_mode(v);
    assert_raises(k, VEC_SS, 0, cpu_call_far(v, G_CODE0, TARGET, 4));
    assert_int_equal(v->s.seg[SEG_CS].sel, G_CODE0);
}

static void call_gates(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    static const uint32_t params[] = { 0x11, 0x22, 0x33 };
    const uint64_t inward = kit_gate(G_CODE0, TARGET, SYS_CALL_GATE32, 3, true, 3);
    kit_protected(k, 3);
    kit_gdt(k, G_GATE, inward);
    kit_push32(k, 3, params);
    assert_fine(k, cpu_call_far(v, G_GATE | 3, 0xdead, 4));
    assert_int_equal(v->s.rip, TARGET);
    assert_int_equal(v->s.seg[SEG_CS].sel, G_CODE0);
    assert_int_equal(vcpu_cpl(v), 0);
    assert_int_equal(v->s.gpr[RSP], STACK0_TOP - 28);
    static const uint32_t frame[] = { START_AT, G_CODE3 | 3, 0x11, 0x22, 0x33, STACK_TOP - 12, G_DATA3 | 3 };
    for (unsigned i = 0; i < array_size(frame); i++)
        assert_int_equal(kit_stack32(k, i), frame[i]);
    /* RET 12 goes back, drops the parameters of both stacks and hides the inner data segments */
    kit_seg(k, SEG_DS, G_DATA0);
    kit_seg(k, SEG_ES, G_CONFORMING0);
    assert_fine(k, cpu_ret_far(v, 4, 12));
    assert_int_equal(v->s.rip, START_AT);
    assert_int_equal(vcpu_cpl(v), 3);
    assert_int_equal(v->s.gpr[RSP], STACK_TOP);
    assert_int_equal(v->s.seg[SEG_DS].sel, 0);
    assert_true(v->s.seg[SEG_DS].attr & SA_UNUSABLE);
    assert_int_equal(v->s.seg[SEG_ES].sel, G_CONFORMING0);

    kit_protected(k, 3);
    assert_raises(k, VEC_GP, G_CODE0, cpu_jmp_far(v, G_GATE, 0, 4)); /* JMP may not go inward */
    kit_gdt(k, G_GATE, kit_gate(G_CODE0, TARGET, SYS_CALL_GATE32, 2, true, 0));
    assert_raises(k, VEC_GP, G_GATE, cpu_call_far(v, G_GATE, 0, 4)); /* gate DPL < CPL */
    kit_gdt(k, G_GATE, kit_gate(G_CODE0, TARGET, SYS_CALL_GATE32, 3, false, 0));
    assert_raises(k, VEC_NP, G_GATE, cpu_call_far(v, G_GATE, 0, 4));
    kit_gdt(k, G_GATE, kit_gate(0, TARGET, SYS_CALL_GATE32, 3, true, 0));
    assert_raises(k, VEC_GP, 0, cpu_call_far(v, G_GATE, 0, 4));
    kit_gdt(k, G_GATE, kit_gate(G_DATA0, TARGET, SYS_CALL_GATE32, 3, true, 0));
    assert_raises(k, VEC_GP, G_DATA0, cpu_call_far(v, G_GATE, 0, 4));
    kit_gdt(k, G_GATE, kit_gate(G_ABSENT_CODE0, TARGET, SYS_CALL_GATE32, 3, true, 0));
    assert_raises(k, VEC_NP, G_ABSENT_CODE0, cpu_call_far(v, G_GATE, 0, 4));
    kit_gdt(k, G_GATE, inward);
    kit_put32(k, TSS_AT + 8, G_READONLY0);
    assert_raises(k, VEC_TS, G_READONLY0, cpu_call_far(v, G_GATE, 0, 4));
    assert_int_equal(v->s.gpr[RSP], STACK_TOP);
    assert_int_equal(v->s.rip, START_AT);
    /* to the same level: no new stack, no parameters; conforming targets keep the level */
    kit_protected(k, 3);
    kit_gdt(k, G_GATE, kit_gate(G_CONFORMING0, TARGET, SYS_CALL_GATE32, 3, true, 3));
    assert_fine(k, cpu_call_far(v, G_GATE | 3, 0, 2)); /* the gate's size counts */
    assert_int_equal(v->s.gpr[RSP], STACK_TOP - 8);
    assert_int_equal(vcpu_cpl(v), 3);
    kit_protected(k, 0);
    assert_fine(k, cpu_jmp_far(v, G_GATE, 0, 4));
    assert_int_equal(v->s.gpr[RSP], STACK_TOP);
    /* 16-bit gate */
    kit_protected(k, 0);
    kit_gdt(k, G_GATE, kit_gate(G_CODE0, TARGET + 0x1234, SYS_CALL_GATE16, 0, true, 0));
    assert_fine(k, cpu_call_far(v, G_GATE, 0, 4));
    assert_int_equal(v->s.rip, 0x1234);
    assert_int_equal(v->s.gpr[RSP], STACK_TOP - 4);
}

struct return_case {
    uint32_t cs, esp, ss;
    int vec;
    uint32_t err;
};

static __attribute__((noinline)) void check_return(struct kit *k, const struct return_case *c, bool iret)
{
    struct vcpu *v = k->v;
    const uint32_t frame[] = { TARGET, c->cs, FL_CF, c->esp, c->ss };
    kit_protected(k, 0);
    kit_push32(k, 2, frame + 3);
    kit_push32(k, iret ? 3 : 2, frame);
    assert_int_equal(RAISED(k, iret ? cpu_iret(v, 4) : cpu_ret_far(v, 4, 0)), c->vec);
    if (c->vec >= 0) {
        assert_int_equal(v->exception.error, c->err);
        assert_int_equal(v->s.gpr[RSP], STACK_TOP - (iret ? 20 : 16));
        assert_int_equal(v->s.rip, START_AT);
        assert_int_equal(state_rflags(&v->s), 2);
    } else {
        assert_int_equal(vcpu_cpl(v), c->cs & 3);
        assert_int_equal(v->s.gpr[RSP], c->esp);
        assert_int_equal(v->s.rip, TARGET);
    }
}

static void returns(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    static const struct return_case cases[] = {
        { G_CODE3 | 3, STACK_TOP, G_DATA3 | 3, -1, 0 },
        { G_CODE1 | 1, STACK_TOP, G_DATA1 | 1, -1, 0 },
        { 0, 0, 0, VEC_GP, 0 },
        { G_CODE3 | 3, STACK_TOP, 0, VEC_GP, 0 },
        { G_CODE3 | 3, STACK_TOP, G_DATA3, VEC_GP, G_DATA3 },     /* RPL of SS */
        { G_CODE3 | 3, STACK_TOP, G_DATA0 | 3, VEC_GP, G_DATA0 }, /* DPL of SS */
        { G_CODE0 | 3, STACK_TOP, G_DATA3 | 3, VEC_GP, G_CODE0 }, /* DPL of CS */
        { G_CONFORMING0 | 3, STACK_TOP, G_DATA3 | 3, -1, 0 },
        { G_CONFORMING3, STACK_TOP, 0, VEC_GP, G_CONFORMING3 }, /* DPL > RPL */
        { G_DATA0, 0, 0, VEC_GP, G_DATA0 },
        { G_ABSENT_CODE0, 0, 0, VEC_NP, G_ABSENT_CODE0 },
        { G_CODE16, 0, 0, VEC_GP, 0 }, /* beyond the limit */
    };
    for (unsigned i = 0; i < array_size(cases); i++) {
        check_return(k, &cases[i], false);
        check_return(k, &cases[i], true);
    }
    kit_protected(k, 3);
    kit_push32(k, 2, (uint32_t[]){ TARGET, G_CODE0 });
    assert_raises(k, VEC_GP, G_CODE0, cpu_ret_far(v, 4, 0)); /* inward */
    kit_protected(k, 3);
    kit_push32(k, 2, (uint32_t[]){ TARGET, G_CODE3 | 3 });
    assert_fine(k, cpu_ret_far(v, 4, 0x20));
    assert_int_equal(v->s.gpr[RSP], STACK_TOP + 0x20);
    /* a 16-bit stack takes 16 bits of the stack pointer only (SDM 2A, IRET) */
    kit_protected(k, 0);
    v->s.gpr[RSP] = 0x120000;
    kit_gdt(k, G_DATA16, kit_desc(0, 0xffff, 0xf3, 0));
    kit_push32(k, 5, (uint32_t[]){ TARGET, G_CODE3 | 3, 2, 0x76543210, G_DATA16 | 3 });
    assert_fine(k, cpu_iret(v, 4));
    assert_int_equal(v->s.gpr[RSP], 0x113210);
}

static void iret_flags(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    const uint32_t all = ~(uint32_t)(FL_VM | FL_NT);
    kit_protected(k, 0);
    v->s.nmi_blocked = 1;
    kit_push32(k, 3, (uint32_t[]){ TARGET, G_CODE0, all });
    assert_fine(k, cpu_iret(v, 4));
    assert_int_equal(state_rflags(&v->s), 0x3d7fd7 & ~(uint32_t)FL_NT);
    assert_false(v->s.nmi_blocked);
    /* CPL 3, IOPL 0: IF, IOPL, VIF, VIP stay */
    kit_protected(k, 3);
    kit_push32(k, 3, (uint32_t[]){ TARGET, G_CODE3 | 3, all });
    assert_fine(k, cpu_iret(v, 4));
    assert_int_equal(state_rflags(&v->s), 2 | FL_STATUS | FL_TF | FL_DF | FL_RF | FL_AC | FL_ID);
    /* IOPL 3 lets IF through */
    kit_protected(k, 3);
    v->s.rflags |= FL_IOPL;
    kit_push32(k, 3, (uint32_t[]){ TARGET, G_CODE3 | 3, FL_IF });
    assert_fine(k, cpu_iret(v, 4));
    assert_int_equal(state_rflags(&v->s), 2 | FL_IOPL | FL_IF);
    /* 16-bit operands leave the upper half; VM in the image means nothing at CPL 3 */
    kit_protected(k, 3);
    v->s.rflags |= FL_AC;
    kit_push32(k, 2, (uint32_t[]){ (G_CODE3 | 3) << 16 | 0x1234, FL_CF });
    assert_fine(k, cpu_iret(v, 2));
    assert_int_equal(state_rflags(&v->s), 2 | FL_AC | FL_CF);
    assert_int_equal(v->s.rip, 0x1234);
    kit_protected(k, 3);
    kit_push32(k, 3, (uint32_t[]){ TARGET, G_CODE3 | 3, FL_VM });
    assert_fine(k, cpu_iret(v, 4));
    assert_false(v->s.rflags & FL_VM);
}

static void long_mode(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_long(k, 0);
    assert_raises(k, VEC_GP, G_CODE_LD, cpu_jmp_far(v, G_CODE_LD, TARGET, 8)); /* L and D */
    assert_raises(k, VEC_GP, 0, cpu_jmp_far(v, G_CODE64, 0x800000000000ull, 8));
    assert_raises(k, VEC_GP, 0,
                  cpu_jmp_far(v, G_CODE0, 0x100000000ull, 8));      /* compatibility mode has limits */
    assert_raises(k, VEC_GP, G_TSS2, cpu_jmp_far(v, G_TSS2, 0, 8)); /* no tasks */
    assert_raises(k, VEC_GP, G_TASK_GATE, cpu_jmp_far(v, G_TASK_GATE, 0, 8));
    assert_fine(k, cpu_jmp_far(v, G_CODE0, TARGET, 4));
    assert_false(vcpu_long64(v));
    assert_int_equal(v->mode & MODE_CODE_MASK, MODE_CODE32);
    assert_fine(k, cpu_jmp_far(v, G_CODE64, TARGET, 4));
    assert_true(vcpu_long64(v));

    /* 64-bit call gate, inward: null SS, 8-byte slots */
    kit_long(k, 3);
    kit_put64(k, GDT_AT + G_GATE, kit_gate(G_CODE64, TARGET, SYS_CALL_GATE32, 3, true, 3));
    kit_put64(k, GDT_AT + G_GATE + 8, 0);
    assert_fine(k, cpu_call_far(v, G_GATE, 0, 4));
    assert_int_equal(v->s.gpr[RSP], STACK0_TOP - 32);
    assert_int_equal(kit_stack64(k, 0), START_AT);
    assert_int_equal(kit_stack64(k, 1), G_CODE64_3 | 3);
    assert_int_equal(kit_stack64(k, 2), STACK_TOP);
    assert_int_equal(v->s.seg[SEG_SS].sel, 0);
    assert_int_equal(vcpu_cpl(v), 0);
    assert_fine(k, cpu_ret_far(v, 8, 0));
    assert_int_equal(vcpu_cpl(v), 3);
    assert_int_equal(v->s.gpr[RSP], STACK_TOP);
    kit_put64(k, GDT_AT + G_GATE + 8, 1ull << 40); /* type of the upper half */
    assert_raises(k, VEC_GP, G_GATE, cpu_call_far(v, G_GATE, 0, 4));
    kit_put64(k, GDT_AT + G_GATE, kit_gate(G_CODE0, TARGET, SYS_CALL_GATE32, 3, true, 0));
    kit_put64(k, GDT_AT + G_GATE + 8, 0);
    assert_raises(k, VEC_GP, G_CODE0, cpu_call_far(v, G_GATE, 0, 4)); /* not 64-bit code */

    /* IRETQ always pops SS:RSP; a null SS only for 64-bit code of CPL < 3 (SDM 2A) */
    kit_long(k, 0);
    kit_push64(k, 5, (uint64_t[]){ TARGET, G_CODE64, FL_CF, 0x1234567, 0 });
    assert_fine(k, cpu_iret(v, 8));
    assert_int_equal(v->s.gpr[RSP], 0x1234567);
    assert_true(v->s.seg[SEG_SS].attr & SA_UNUSABLE);
    kit_long(k, 0);
    kit_push64(k, 5, (uint64_t[]){ TARGET, G_CODE0, FL_CF, 0x1234567, 0 });
    assert_raises(k, VEC_GP, 0, cpu_iret(v, 8));
    kit_long(k, 0);
    kit_push64(k, 5, (uint64_t[]){ TARGET, G_CODE64_3 | 3, FL_CF, 0x1234567, 3 });
    assert_raises(k, VEC_GP, 0, cpu_iret(v, 8));
    kit_long(k, 0);
    kit_push64(k, 5, (uint64_t[]){ 0x800000000000ull, G_CODE64_3 | 3, 2, STACK_TOP, G_DATA3 | 3 });
    assert_raises(k, VEC_GP, 0, cpu_iret(v, 8));
    kit_long(k, 0);
    v->s.seg[SEG_FS] = seg_null(2, 0);
    v->s.seg[SEG_FS].base = 0x7fff00001000ull;
    kit_push64(k, 5, (uint64_t[]){ TARGET, G_CODE64_3 | 3, FL_IF | FL_VM | 2, STACK_TOP, G_DATA3 | 3 });
    assert_fine(k, cpu_iret(v, 8));
    assert_int_equal(vcpu_cpl(v), 3);
    assert_int_equal(v->s.rflags & (FL_IF | FL_VM), FL_IF);
    assert_int_equal(v->s.seg[SEG_FS].base, 0x7fff00001000ull); /* FS's base outlives the return */
    assert_int_equal(v->s.seg[SEG_FS].sel, 0);
    kit_long(k, 0);
    v->s.rflags |= FL_NT;
    assert_raises(k, VEC_GP, 0, cpu_iret(v, 8));
    kit_long(k, 0);
    v->s.gpr[RSP] = 0x900000000000ull;
    assert_raises(k, VEC_SS, 0, cpu_iret(v, 8));
}

static void real_mode(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_real(k);
    assert_fine(k, cpu_call_far(v, 0x3000, 0x1234, 2));
    assert_int_equal(v->s.seg[SEG_CS].base, 0x30000);
    assert_int_equal(kit_stack16(k, 0), 0x100);
    assert_int_equal(kit_stack16(k, 1), 0x2000);
    assert_fine(k, cpu_ret_far(v, 2, 4));
    assert_int_equal(v->s.gpr[RSP], 0x8004);
    assert_int_equal(v->s.rip, 0x100);
    assert_int_equal(RAISED(k, cpu_jmp_far(v, 0x3000, 0x10000, 4)), VEC_GP);
    v->s.gpr[RSP] = 0xabc0002; /* SP wraps, the upper half stays */
    assert_fine(k, cpu_call_far(v, 0x3000, 0, 2));
    assert_int_equal(v->s.gpr[RSP], 0xabcfffe);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        T(direct_targets), T(call_gates), T(returns), T(iret_flags), T(long_mode), T(real_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
