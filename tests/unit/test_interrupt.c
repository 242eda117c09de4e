/* SPDX-License-Identifier: Apache-2.0 */
/* Delivery of exceptions and interrupts in every mode: frames, error codes, nesting, priorities (SDM 3A 6,
 * 20). */
#include "seg_kit.h"

#include <string.h>

static void protected_frames(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_protected(k, 0);
    v->s.rflags |= FL_IF | FL_TF | FL_NT;
    v->s.cc = flags_to_cc(FL_CF | FL_OF);
    DELIVER(k, VEC_GP, .has_error = true, .error = 0x1234);
    assert_int_equal(v->s.gpr[RSP], STACK_TOP - 16);
    assert_int_equal(kit_stack32(k, 0), 0x1234);
    assert_int_equal(kit_stack32(k, 1), START_AT);
    assert_int_equal(kit_stack32(k, 2), G_CODE0);
    /* SDM 3A 6.8.3, 3B 17.3.1.1: RF set in the image of a fault; handler without TF, NT, RF, and IF by the
     * interrupt gate */
    assert_int_equal(kit_stack32(k, 3), 2 | FL_IF | FL_TF | FL_NT | FL_RF | FL_CF | FL_OF);
    assert_int_equal(state_rflags(&v->s), 2 | FL_CF | FL_OF);
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * VEC_GP);

    /* a trap gate keeps IF, a trap shows RF as it was */
    kit_protected(k, 0);
    kit_idt(k, VEC_DB, kit_gate(G_CODE0, HANDLER_AT, SYS_TRAP_GATE32, 0, true, 0));
    v->s.rflags |= FL_IF;
    DELIVER(k, VEC_DB);
    assert_int_equal(v->s.rflags & FL_IF, FL_IF);
    assert_int_equal(kit_stack32(k, 2), 2 | FL_IF);

    /* to an inner level: the TSS's stack, old SS:ESP in the frame */
    kit_protected(k, 3);
    DELIVER(k, VEC_UD);
    assert_int_equal(vcpu_cpl(v), 0);
    assert_int_equal(v->s.seg[SEG_SS].sel, G_DATA0);
    assert_int_equal(v->s.gpr[RSP], STACK0_TOP - 20);
    assert_int_equal(kit_stack32(k, 1), G_CODE3 | 3);
    assert_int_equal(kit_stack32(k, 3), STACK_TOP);
    assert_int_equal(kit_stack32(k, 4), G_DATA3 | 3);

    /* to level 1, whose CS shows RPL 1 */
    kit_protected(k, 3);
    kit_idt(k, VEC_UD, kit_gate(G_CODE1, HANDLER_AT, SYS_INT_GATE32, 0, true, 0));
    DELIVER(k, VEC_UD);
    assert_int_equal(v->s.seg[SEG_CS].sel, G_CODE1 | 1);
    assert_int_equal(v->s.gpr[RSP], STACK1_TOP - 20);

    /* a conforming handler runs at the old privilege */
    kit_protected(k, 3);
    kit_idt(k, VEC_UD, kit_gate(G_CONFORMING0, HANDLER_AT, SYS_INT_GATE32, 0, true, 0));
    DELIVER(k, VEC_UD);
    assert_int_equal(v->s.seg[SEG_CS].sel, G_CONFORMING0 | 3);
    assert_int_equal(vcpu_cpl(v), 3);

    /* 16-bit gates push words */
    kit_protected(k, 0);
    kit_idt(k, VEC_NP, kit_gate(G_CODE16, 0xabcd1234, SYS_INT_GATE16, 0, true, 0));
    DELIVER(k, VEC_NP, .has_error = true, .error = 8);
    assert_int_equal(v->s.gpr[RSP], STACK_TOP - 8);
    assert_int_equal(v->s.rip, 0x1234);
    assert_int_equal(kit_stack16(k, 0), 8);
    assert_int_equal(kit_stack16(k, 2), G_CODE0);
    assert_true((v->mode & MODE_CODE_MASK) == MODE_CODE16);
}

/* Delivers `first`; whatever then happens ends in a #DF or another handler whose number and error code are
 * told. */
static void expect(struct kit *k, unsigned vector, unsigned error, unsigned slot)
{
    struct vcpu *v = k->v;
    assert_int_equal(v->s.activity, ACTIVITY_RUN);
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * vector);
    assert_int_equal(slot == 8 ? kit_stack64(k, 0) : kit_stack32(k, 0), error);
    assert_false(v->in_delivery);
}

static void gate_faults(void **state)
{
    struct kit *k = *state;
    /* An exception whose gate is bad: the second fault's code has IDT and EXT set (SDM 3A 6.13). */
    static const struct {
        uint64_t gate_type;
        bool present;
        uint16_t sel;
        unsigned vec;
        uint32_t err;
    } cases[] = {
        { SYS_INT_GATE32, false, G_CODE0, VEC_NP, VEC_BR * 8 + 3 },
        { SYS_CALL_GATE32, true, G_CODE0, VEC_GP, VEC_BR * 8 + 3 },
        { SYS_INT_GATE32, true, 0, VEC_GP, 1 },
        { SYS_INT_GATE32, true, G_DATA0, VEC_GP, G_DATA0 + 1 },
        { SYS_INT_GATE32, true, 0x200, VEC_GP, 0x201 },
        { SYS_INT_GATE32, true, G_ABSENT_CODE0, VEC_NP, G_ABSENT_CODE0 + 1 },
        { SYS_INT_GATE32, true, G_CODE3 | 3, VEC_GP, G_CODE3 + 1 }, /* outward */
        { SYS_TASK_GATE, true, G_CODE0, VEC_GP, G_CODE0 + 1 },
        { SYS_TASK_GATE, true, G_TSS, VEC_GP, G_TSS + 1 }, /* busy */
        { SYS_TASK_GATE, true, G_TSS_ABSENT, VEC_NP, G_TSS_ABSENT + 1 },
        { SYS_TASK_GATE, true, G_TSS_SHORT, VEC_TS, G_TSS_SHORT + 1 },
        { SYS_TASK_GATE, true, 4, VEC_GP, 5 },
    };
    for (unsigned i = 0; i < array_size(cases); i++) {
        kit_protected(k, 0);
        kit_idt(k, VEC_BR,
                kit_gate(cases[i].sel, 0x100, (unsigned)cases[i].gate_type, 0, cases[i].present, 0));
        DELIVER(k, VEC_BR); /* benign first: the second is served */
        expect(k, cases[i].vec, cases[i].err, 4);
        assert_int_equal(kit_stack32(k, 1), START_AT);
    }
    kit_protected(k, 0);
    k->v->s.idtr.limit = VEC_XM * 8 + 6;
    DELIVER(k, VEC_XM);
    expect(k, VEC_GP, VEC_XM * 8 + 3, 4);
}

static void stack_faults(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    static const struct {
        uint16_t ss;
        unsigned vec;
        uint32_t err;
    } cases[] = {
        { 0, VEC_TS, 1 },
        { G_DATA3 | 3, VEC_TS, G_DATA3 + 1 },
        { G_DATA0 | 1, VEC_TS, G_DATA0 + 1 },
        { G_READONLY0, VEC_TS, G_READONLY0 + 1 },
        { 0x200, VEC_TS, 0x201 },
        { G_ABSENT_DATA0, VEC_SS, G_ABSENT_DATA0 + 1 },
    };
    for (unsigned i = 0; i < array_size(cases); i++) {
        kit_protected(k, 3);
        /* the first goes to level 1, whose stack is bad; the second to level 0 */
        kit_idt(k, VEC_UD, kit_gate(G_CODE1, HANDLER_AT, SYS_INT_GATE32, 0, true, 0));
        kit_put32(k, TSS_AT + 16, cases[i].ss);
        if (cases[i].ss == G_ABSENT_DATA0) {
            kit_gdt(k, G_ABSENT_DATA0, kit_desc(0, 0xfffff, 0x33, 0xc));
            kit_put32(k, TSS_AT + 16, G_ABSENT_DATA0 | 1);
        }
        DELIVER(k, VEC_UD);
        expect(k, cases[i].vec, cases[i].err, 4);
    }
    /* the TSS too short for the stack of level 1 */
    kit_protected(k, 3);
    kit_idt(k, VEC_UD, kit_gate(G_CODE1, HANDLER_AT, SYS_INT_GATE32, 0, true, 0));
    v->s.tr.limit = 16;
    DELIVER(k, VEC_UD);
    expect(k, VEC_TS, G_TSS + 1, 4);
    /* no room on the inner stack: #SS with its selector; same level: with 0 */
    kit_protected(k, 3);
    kit_idt(k, VEC_UD, kit_gate(G_CODE1, HANDLER_AT, SYS_INT_GATE32, 0, true, 0));
    kit_gdt(k, G_DATA1, kit_desc(0, 0x100, 0xb3, 4));
    DELIVER(k, VEC_UD);
    expect(k, VEC_SS, G_DATA1 + 1, 4);
    assert_int_equal(kit_stack32(k, 2), G_CODE3 | 3);
}

static void double_and_triple(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    const uint64_t absent = kit_gate(G_CODE0, 0, SYS_INT_GATE32, 0, false, 0);
    /* SDM 3A Table 6-5, rows contributory and page fault */
    static const unsigned firsts[] = { VEC_DE, VEC_TS, VEC_NP, VEC_SS, VEC_GP, VEC_PF };
    for (unsigned i = 0; i < array_size(firsts); i++) {
        kit_protected(k, 0);
        kit_idt(k, firsts[i], absent);
        DELIVER(k, (uint8_t)firsts[i]);
        expect(k, VEC_DF, 0, 4);
    }
    /* benign ones with #GP in their delivery: #GP */
    static const unsigned benign[] = {
        VEC_DB, VEC_BP, VEC_OF, VEC_BR, VEC_UD, VEC_NM, VEC_MF, VEC_AC, VEC_XM
    };
    for (unsigned i = 0; i < array_size(benign); i++) {
        kit_protected(k, 0);
        kit_idt(k, benign[i], absent);
        DELIVER(k, (uint8_t)benign[i]);
        expect(k, VEC_NP, benign[i] * 8 + 3, 4);
    }
    /* no #DF handler: shutdown, at the same place */
    kit_protected(k, 0);
    kit_idt(k, VEC_GP, absent);
    kit_idt(k, VEC_DF, absent);
    DELIVER(k, VEC_GP, .has_error = true);
    assert_int_equal(v->s.activity, ACTIVITY_SHUTDOWN);
    assert_int_equal(v->s.rip, START_AT);
    assert_false(cpu_event_deliverable(v));
}

static void software_interrupts(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_protected(k, 3);
    assert_raises(k, VEC_GP, 0x30 * 8 + 2, cpu_int(v, 0x30)); /* DPL 0: no EXT */
    assert_raises(k, VEC_GP, VEC_BP * 8 + 2, cpu_int3(v));
    assert_int_equal(v->s.gpr[RSP], STACK_TOP);
    kit_idt(k, 0x30, kit_gate(G_CODE0, HANDLER_AT, SYS_TRAP_GATE32, 3, true, 0));
    v->s.rflags |= FL_TF;
    vcpu_refresh_mode(v);
    assert_fine(k, cpu_int(v, 0x30));
    assert_int_equal(kit_stack32(k, 2), 2 | FL_TF);
    cpu_debug_after(v, true); /* INT swallows the single-step trap */
    assert_int_equal(v->s.debug_pending, 0);
    kit_protected(k, 3);
    assert_fine(k, cpu_int1(v)); /* INT1 does not look at DPL */
    assert_int_equal(v->s.rip, HANDLER_AT + 16);
    kit_protected(k, 0);
    assert_raises(k, VEC_GP, 0x50 * 8 + 2, cpu_int(v, 0x50)); /* beyond the limit */
}

static void long_frames(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_long(k, 0);
    v->s.gpr[RSP] = STACK_TOP - 5;
    DELIVER(k, VEC_GP, .has_error = true, .error = 7);
    assert_int_equal(v->s.gpr[RSP], STACK_TOP - 16 - 48); /* 16-byte boundary before the frame */
    assert_int_equal(kit_stack64(k, 0), 7);
    assert_int_equal(kit_stack64(k, 1), START_AT);
    assert_int_equal(kit_stack64(k, 2), G_CODE64);
    assert_int_equal(kit_stack64(k, 3), 2 | FL_RF);
    assert_int_equal(kit_stack64(k, 4), STACK_TOP - 5);
    assert_int_equal(kit_stack64(k, 5), G_DATA0);
    assert_int_equal(v->s.seg[SEG_SS].sel, G_DATA0); /* same level: SS stays */

    kit_long(k, 3);
    DELIVER(k, VEC_UD);
    assert_int_equal(vcpu_cpl(v), 0);
    assert_int_equal(v->s.seg[SEG_SS].sel, 0);
    assert_true(v->s.seg[SEG_SS].attr & SA_UNUSABLE);
    assert_int_equal(v->s.gpr[RSP], STACK0_TOP - 40);

    kit_long(k, 0);
    kit_idt64(k, VEC_NMI, G_CODE64, HANDLER_AT, SYS_INT_GATE32, 0, 1);
    vcpu_post_nmi(v);
    assert_true(cpu_take_events(v));
    assert_int_equal(v->s.gpr[RSP], IST_TOP - 40);
    assert_true(v->s.nmi_blocked);

    /* 64-bit faults of delivery */
    kit_long(k, 0);
    kit_idt64(k, VEC_BR, G_CODE0, HANDLER_AT, SYS_INT_GATE32, 0, 0);
    DELIVER(k, VEC_BR);
    expect(k, VEC_GP, G_CODE0 + 1, 8); /* not 64-bit code */
    kit_long(k, 0);
    kit_idt64(k, VEC_BR, G_CODE64, 0x800000000000ull, SYS_INT_GATE32, 0, 0);
    DELIVER(k, VEC_BR);
    expect(k, VEC_GP, 1, 8);
    kit_long(k, 0);
    kit_idt64(k, VEC_BR, G_CODE64, HANDLER_AT, SYS_TASK_GATE, 0, 0);
    DELIVER(k, VEC_BR);
    expect(k, VEC_GP, VEC_BR * 8 + 3, 8);
    kit_long(k, 0);
    kit_idt64(k, VEC_BR, G_CODE64, HANDLER_AT, SYS_INT_GATE32, 0, 2); /* IST 2 is not canonical */
    kit_put64(k, TSS_AT + 0x2c, 0x900000000000ull);
    DELIVER(k, VEC_BR);
    expect(k, VEC_SS, 1, 8);
    kit_long(k, 0);
    kit_idt64(k, VEC_BR, G_CODE64, HANDLER_AT, SYS_INT_GATE32, 0, 7);
    v->s.tr.limit = 0x58;
    DELIVER(k, VEC_BR);
    expect(k, VEC_TS, G_TSS + 1, 8);
    /* a page fault on the stack: CR2 and code of the second */
    kit_long(k, 0);
    v->s.gpr[RSP] = 0x10000000;
    kit_idt64(k, VEC_PF, G_CODE64, HANDLER_AT + 16 * VEC_PF, SYS_INT_GATE32, 0, 1);
    DELIVER(k, VEC_BR);
    expect(k, VEC_PF, 2, 8);
    assert_int_equal(v->s.cr2, 0x10000000 - 8);
    assert_int_equal(kit_stack64(k, 4), 0x10000000);
}

static void real_mode(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_real(k);
    v->s.rflags |= FL_IF | FL_TF | FL_AC;
    assert_fine(k, cpu_int(v, 5));
    assert_int_equal(v->s.gpr[RSP], 0x8000 - 6);
    assert_int_equal(kit_stack16(k, 0), 0x100);
    assert_int_equal(kit_stack16(k, 1), 0x2000);
    assert_int_equal(kit_stack16(k, 2), 2 | FL_IF | FL_TF);
    assert_int_equal(v->s.seg[SEG_CS].base, 0x30000);
    assert_int_equal(v->s.rip, 16 * 5);
    assert_int_equal(v->s.rflags & (FL_IF | FL_TF | FL_AC), 0);
    assert_fine(k, cpu_iret(v, 2));
    assert_int_equal(v->s.rip, 0x100);
    assert_int_equal(v->s.seg[SEG_CS].base, 0x20000);
    assert_int_equal(v->s.rflags & (FL_IF | FL_TF), FL_IF | FL_TF);
    /* no error code in real mode */
    kit_real(k);
    DELIVER(k, VEC_GP, .has_error = true, .error = 5);
    assert_int_equal(v->s.gpr[RSP], 0x8000 - 6);
    /* beyond the IVT's limit: #GP, whose entry is inside */
    kit_real(k);
    v->s.idtr.limit = 0x3f;
    DELIVER(k, VEC_MF);
    assert_int_equal(v->s.rip, 16 * VEC_GP);
    /* SP = 1: the frame does not fit at offset 0xffff; #GP and #DF the same way: shutdown */
    kit_real(k);
    v->s.gpr[RSP] = 1;
    DELIVER(k, VEC_UD);
    assert_int_equal(v->s.activity, ACTIVITY_SHUTDOWN);
}

static void virtual_8086(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_vm86(k, 3);
    kit_idt(k, 0x21, kit_gate(G_CODE0, HANDLER_AT, SYS_INT_GATE32, 3, true, 0));
    assert_fine(k, cpu_int(v, 0x21));
    assert_int_equal(vcpu_cpl(v), 0);
    assert_false(v->s.rflags & FL_VM);
    assert_int_equal(v->s.gpr[RSP], STACK0_TOP - 36);
    static const uint32_t frame[] = { 0x100,  0x1000, 2 | FL_VM | FL_IOPL, 0x8000, 0x1000, 0x1000, 0x1000,
                                      0x1000, 0x1000 };
    for (unsigned i = 0; i < array_size(frame); i++)
        assert_int_equal(kit_stack32(k, i), frame[i]);
    assert_true(v->s.seg[SEG_DS].attr & SA_UNUSABLE);
    assert_fine(k, cpu_iret(v, 4));
    assert_true(v->mode & MODE_VM86);
    assert_int_equal(vcpu_cpl(v), 3);
    assert_int_equal(v->s.seg[SEG_FS].base, 0x10000);
    assert_int_equal(v->s.gpr[RSP], 0x8000);
    assert_int_equal(v->s.rip, 0x100);

    kit_vm86(k, 0);
    assert_raises(k, VEC_GP, 0, cpu_int(v, 0x21));
    assert_raises(k, VEC_GP, 0, cpu_iret(v, 2));
    assert_raises(k, VEC_GP, 0, cpu_pushf_value(v, 2));
    assert_raises(k, VEC_GP, 0, cpu_popf(v, 2, 2));
    assert_raises(k, VEC_GP, 0, cpu_cli(v));
    /* INT3 is not IOPL-sensitive; its gate's DPL counts */
    assert_raises(k, VEC_GP, VEC_BP * 8 + 2, cpu_int3(v));
    /* a handler of another level than 0 */
    kit_vm86(k, 3);
    kit_idt(k, 0x21, kit_gate(G_CODE1, HANDLER_AT, SYS_INT_GATE32, 3, true, 0));
    assert_raises(k, VEC_GP, G_CODE1, cpu_int(v, 0x21));
}

static void vme(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    /* SDM 3A Table 20-2. The bitmap ends where the I/O bitmap begins, at 0x88: vector 0x21 is bit 1 of
     * byte 0x68 + 4. */
    kit_vm86(k, 0);
    v->s.cr4 = CR4_VME;
    kit_put32(k, TSS_AT + 0x64, 0x88u << 16);
    for (unsigned i = 0; i < 8; i++)
        kit_put32(k, TSS_AT + 0x68 + 4 * i, 0);
    kit_put32(k, 4 * 0x21, 0x2000u << 16 | 0x77);
    v->s.rflags |= FL_VIF | FL_IF;
    assert_fine(k, cpu_int(v, 0x21)); /* method 6 */
    assert_int_equal(v->s.rip, 0x77);
    assert_int_equal(v->s.seg[SEG_CS].base, 0x20000);
    assert_int_equal(kit_stack16(k, 2), 2 | FL_IOPL | FL_IF); /* IF of the image is VIF */
    assert_int_equal(v->s.rflags & (FL_VIF | FL_IF), FL_IF);
    assert_int_equal(cpu_pushf_value(v, 2), 2 | FL_IOPL);
    assert_fine(k, cpu_sti(v));
    assert_true(v->s.rflags & FL_VIF);
    assert_fine(k, cpu_iret(v, 2));
    assert_int_equal(v->s.rip, 0x100);
    assert_true(v->s.rflags & FL_VIF);
    v->s.rflags |= FL_VIP;
    assert_raises(k, VEC_GP, 0, cpu_popf(v, FL_IF, 2));
    assert_raises(k, VEC_GP, 0, cpu_popf(v, FL_TF, 2));
    assert_raises(k, VEC_GP, 0, cpu_popf(v, 0, 4));
    assert_fine(k, cpu_popf(v, 0, 2));
    assert_false(v->s.rflags & FL_VIF);
    assert_raises(k, VEC_GP, 0, cpu_sti(v));
    kit_put32(k, TSS_AT + 0x6c, 2u); /* method 3 */
    assert_raises(k, VEC_GP, 0, cpu_int(v, 0x21));
    v->s.rflags |= FL_IOPL; /* method 4 */
    kit_idt(k, 0x21, kit_gate(G_CODE0, HANDLER_AT, SYS_INT_GATE32, 3, true, 0));
    assert_fine(k, cpu_int(v, 0x21));
    assert_int_equal(v->s.rip, HANDLER_AT);
    /* back to a task with both VIF and VIP: #GP(0) before its first instruction (SDM 3A 20.3.2) */
    kit_put32(k, STACK0_TOP - 28, 2 | FL_VM | FL_VIF | FL_VIP);
    assert_fine(k, cpu_iret(v, 4));
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * VEC_GP);
    assert_int_equal(kit_stack32(k, 0), 0);
    assert_int_equal(kit_stack32(k, 1), 0x100);
    assert_true(kit_stack32(k, 3) & FL_VM);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        T(protected_frames),  T(gate_faults),         T(stack_faults),
        T(double_and_triple), T(software_interrupts), T(long_frames),
        T(real_mode),         T(virtual_8086),        T(vme),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
