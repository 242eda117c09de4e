/* SPDX-License-Identifier: Apache-2.0 */
/* Hardware task switches: what is saved, loaded, marked busy, and where faults of the new task are
 * delivered (SDM 3A 7). */
#include "seg_kit.h"

#include <string.h>

#define TASK_RIP 0x50000u
#define TASK_SP 0x24000u

static void put16(struct kit *k, uint32_t addr, uint16_t val)
{
    assert_int_equal(pmap_load(k->pmap, GPA(addr), &val, 2), 0);
}

/* The task of G_TSS2: flat, at privilege 0. */
static void build_task32(struct kit *k)
{
    static const uint16_t segs[] = {
        G_DATA0, G_CODE0, G_DATA0, G_DATA0, 0, G_READONLY0
    }; /* ES CS SS DS FS GS */
    uint8_t zero[0x68] = { 0 };
    assert_int_equal(pmap_load(k->pmap, GPA(TSS2_AT), zero, sizeof(zero)), 0);
    kit_put32(k, TSS2_AT + 0x1c, 0x123000);
    kit_put32(k, TSS2_AT + 0x20, TASK_RIP);
    kit_put32(k, TSS2_AT + 0x24, 2 | FL_CF | FL_IF);
    for (unsigned i = 0; i < 8; i++)
        kit_put32(k, TSS2_AT + 0x28 + 4 * i, i == 4 ? TASK_SP : 0x1000 + i);
    for (unsigned i = 0; i < 6; i++)
        kit_put32(k, TSS2_AT + 0x48 + 4 * i, segs[i]);
    kit_put32(k, TSS2_AT + 0x60, G_LDT);
}

static void build_task16(struct kit *k)
{
    uint8_t zero[0x2c] = { 0 };
    assert_int_equal(pmap_load(k->pmap, GPA(TSS16_AT), zero, sizeof(zero)), 0);
    put16(k, TSS16_AT + 0x0e, 0x1234);
    put16(k, TSS16_AT + 0x10, 2 | FL_ZF);
    for (unsigned i = 0; i < 8; i++)
        put16(k, TSS16_AT + 0x12 + 2 * i, (uint16_t)(0x100 + i));
    put16(k, TSS16_AT + 0x22, G_DATA0);
    put16(k, TSS16_AT + 0x24, G_CODE0);
    put16(k, TSS16_AT + 0x26, G_DATA0);
    put16(k, TSS16_AT + 0x28, G_DATA0);
}

static bool busy(struct kit *k, uint16_t sel) { return kit_get64(k, GDT_AT + sel) >> 41 & 1; }

static void prepare(struct kit *k)
{
    kit_protected(k, 0);
    build_task32(k);
    build_task16(k);
    k->v->s.gpr[RBX] = 0xb0b0;
    k->v->s.rflags |= FL_DF;
    k->v->s.dr[7] = 0x401 | 2; /* L0, G0 */
}

static void check_new_task(struct kit *k)
{
    struct vcpu *v = k->v;
    assert_int_equal(v->s.rip, TASK_RIP);
    assert_int_equal(v->s.gpr[RAX], 0x1000);
    assert_int_equal(v->s.gpr[RDI], 0x1007);
    assert_int_equal(v->s.gpr[RSP], TASK_SP);
    assert_int_equal(v->s.tr.sel, G_TSS2);
    assert_int_equal(v->s.tr.base, TSS2_AT);
    assert_int_equal(v->s.ldtr.base, LDT_AT);
    assert_int_equal(v->s.seg[SEG_GS].sel, G_READONLY0);
    assert_true(v->s.seg[SEG_FS].attr & SA_UNUSABLE);
    assert_true(v->s.cr0 & CR0_TS);
    assert_int_equal(v->s.dr[7], 0x402);
    assert_true(busy(k, G_TSS2));
    /* the old state, with the address after the instruction */
    assert_int_equal(kit_get32(k, TSS_AT + 0x20), START_AT);
    assert_int_equal(kit_get32(k, TSS_AT + 0x24), 2 | FL_DF);
    assert_int_equal(kit_get32(k, TSS_AT + 0x28 + 12), 0xb0b0);
    assert_int_equal(kit_get32(k, TSS_AT + 0x38), STACK_TOP);
    assert_int_equal(kit_get32(k, TSS_AT + 0x4c) & 0xffff, G_CODE0);
}

static void jump_call_return(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    prepare(k);
    assert_fine(k, cpu_jmp_far(v, G_TSS2, 0, 4));
    check_new_task(k);
    assert_int_equal(state_rflags(&v->s), 2 | FL_CF | FL_IF);
    assert_false(busy(k, G_TSS)); /* JMP leaves the old task for good */

    prepare(k);
    assert_fine(k, cpu_call_far(v, G_TASK_GATE, 0, 4));
    check_new_task(k);
    assert_int_equal(state_rflags(&v->s), 2 | FL_CF | FL_IF | FL_NT);
    assert_int_equal(kit_get32(k, TSS2_AT) & 0xffff, G_TSS); /* back link */
    assert_true(busy(k, G_TSS));
    v->s.gpr[RBX] = 0x5555;
    v->s.rip = TASK_RIP + 1;
    assert_fine(k, cpu_iret(v, 4));
    assert_int_equal(v->s.tr.sel, G_TSS);
    assert_int_equal(v->s.rip, START_AT);
    assert_int_equal(v->s.gpr[RBX], 0xb0b0);
    assert_int_equal(state_rflags(&v->s), 2 | FL_DF);
    assert_false(busy(k, G_TSS2));
    assert_true(busy(k, G_TSS));
    assert_int_equal(kit_get32(k, TSS2_AT + 0x20), TASK_RIP + 1);
    assert_int_equal(kit_get32(k, TSS2_AT + 0x24),
                     2 | FL_CF | FL_IF); /* NT is off in the image (SDM 3A 7.3) */
}

static void sixteen_bits(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    prepare(k);
    assert_fine(k, cpu_call_far(v, G_TSS16, 0, 4));
    assert_int_equal(v->s.rip, 0x1234);
    assert_int_equal(v->s.gpr[RCX], 0x101);
    assert_int_equal(v->s.seg[SEG_FS].sel, 0);
    assert_int_equal(state_rflags(&v->s), 2 | FL_ZF | FL_NT);
    assert_fine(k, cpu_iret(v, 4));
    assert_int_equal(v->s.rip, START_AT);
    assert_int_equal(kit_get32(k, TSS16_AT + 0x10) & 0xffff, 2 | FL_ZF);
}

static void refusals(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    prepare(k);
    assert_raises(k, VEC_GP, G_TSS, cpu_jmp_far(v, G_TSS, 0, 4));
    assert_raises(k, VEC_NP, G_TSS_ABSENT, cpu_jmp_far(v, G_TSS_ABSENT, 0, 4));
    assert_raises(k, VEC_TS, G_TSS_SHORT, cpu_jmp_far(v, G_TSS_SHORT, 0, 4));
    kit_gdt(k, G_TASK_GATE, kit_gate(G_TSS2, 0, SYS_TASK_GATE, 3, false, 0));
    assert_raises(k, VEC_NP, G_TASK_GATE, cpu_jmp_far(v, G_TASK_GATE, 0, 4));
    kit_gdt(k, G_TASK_GATE, kit_gate(G_CODE0, 0, SYS_TASK_GATE, 3, true, 0));
    assert_raises(k, VEC_GP, G_CODE0, cpu_jmp_far(v, G_TASK_GATE, 0, 4));
    v->s.rflags |= FL_NT;
    kit_put32(k, TSS_AT, G_TSS2); /* IRET to a task that is not busy */
    assert_raises(k, VEC_TS, G_TSS2, cpu_iret(v, 4));
    kit_put32(k, TSS_AT, 0);
    assert_raises(k, VEC_TS, 0, cpu_iret(v, 4));
    assert_int_equal(v->s.rip, START_AT);
    assert_int_equal(v->s.tr.sel, G_TSS);
    kit_protected(k, 3);
    assert_raises(k, VEC_GP, G_TSS2, cpu_jmp_far(v, G_TSS2, 0, 4)); /* DPL 0 */
}

struct fault_case {
    uint32_t off, val; /* patch of the TSS */
    unsigned vec;
    uint32_t err;
};

static __attribute__((noinline)) void check_fault(struct kit *k, const struct fault_case *c)
{
    struct vcpu *v = k->v;
    prepare(k);
    kit_put32(k, TSS2_AT + c->off, c->val);
    assert_fine(k, cpu_jmp_far(v, G_TSS2, 0, 4));
    assert_int_equal(v->s.tr.sel, G_TSS2);
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * c->vec);
    assert_int_equal(kit_stack32(k, 0), c->err);
    assert_int_equal(kit_stack32(k, 1), TASK_RIP);
}

/* Faults while the new task's segments are loaded come up in the new task, at its first instruction (SDM
 * 3A 7.3, Table 7-1). */
static void faults_of_the_new_task(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    static const struct fault_case cases[] = {
        { 0x48, G_EXECONLY0, VEC_TS, G_EXECONLY0 },
        { 0x54, G_ABSENT_DATA0, VEC_NP, G_ABSENT_DATA0 },
        { 0x54, G_DATA0 | 3, VEC_TS, G_DATA0 },
        { 0x58, 0x200, VEC_TS, 0x200 },
    };
    for (unsigned i = 0; i < array_size(cases); i++)
        check_fault(k, &cases[i]);
    /* with a bad LDT no stack is loaded yet: the handler is a task, and its stack gets the error code as a
     * word */
    prepare(k);
    kit_put32(k, TSS2_AT + 0x60, G_CODE0);
    kit_idt(k, VEC_TS, kit_gate(G_TSS16, 0, SYS_TASK_GATE, 0, true, 0));
    assert_fine(k, cpu_jmp_far(v, G_TSS2, 0, 4));
    assert_int_equal(v->s.rip, 0x1234);
    assert_int_equal(v->s.gpr[RSP], 0x104 - 2);
    assert_int_equal(kit_stack16(k, 0), G_CODE0);
    assert_int_equal(kit_get32(k, TSS2_AT + 0x20), TASK_RIP);
    /* EIP beyond CS's limit */
    prepare(k);
    kit_gdt(k, G_EXECONLY0, kit_desc(0, 0xfff, 0x99, 4));
    kit_put32(k, TSS2_AT + 0x4c, G_EXECONLY0);
    assert_fine(k, cpu_jmp_far(v, G_TSS2, 0, 4));
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * VEC_GP);
    assert_int_equal(kit_stack32(k, 0), 0);
    assert_false(v->store_code);
}

/* The way a 32-bit kernel takes its double fault. */
static void double_fault_task(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    prepare(k);
    kit_idt(k, VEC_DF, kit_gate(G_TSS2, 0, SYS_TASK_GATE, 0, true, 0));
    v->s.gpr[RSP] = 4; /* the stack wraps around, into a segment cut short */
    v->s.seg[SEG_SS].limit = 0xffff;
    vcpu_refresh_mode(v);
    DELIVER(k, VEC_PF, .has_error = true, .error = 2);
    assert_int_equal(v->s.activity, ACTIVITY_RUN);
    assert_int_equal(v->s.rip, TASK_RIP);
    assert_int_equal(v->s.gpr[RSP], TASK_SP - 4);
    assert_int_equal(kit_stack32(k, 0), 0);
    assert_int_equal(kit_get32(k, TSS_AT + 0x20), START_AT);
    assert_int_equal(kit_get32(k, TSS_AT + 0x38), 4);
    assert_true(v->s.rflags & FL_NT);
    assert_int_equal(kit_get32(k, TSS2_AT) & 0xffff, G_TSS);
    /* a bad task for #DF is a triple fault */
    prepare(k);
    kit_idt(k, VEC_GP, 0);
    kit_idt(k, VEC_DF, kit_gate(G_TSS2, 0, SYS_TASK_GATE, 0, true, 0));
    kit_put32(k, TSS2_AT + 0x50, 0); /* SS */
    DELIVER(k, VEC_GP, .has_error = true);
    assert_int_equal(v->s.activity, ACTIVITY_SHUTDOWN);
}

static void trap_bit_and_vm86(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    prepare(k);
    kit_put32(k, TSS2_AT + 0x64, 1);
    assert_fine(k, cpu_jmp_far(v, G_TSS2, 0, 4));
    assert_true(cpu_take_events(v));
    assert_int_equal(v->s.rip, HANDLER_AT + 16 * VEC_DB);
    assert_int_equal(v->s.dr[6] & 0xe00f, 0x8000);
    assert_int_equal(kit_stack32(k, 0), TASK_RIP);

    prepare(k);
    kit_put32(k, TSS2_AT + 0x24, 2 | FL_VM);
    kit_put32(k, TSS2_AT + 0x20, 0x80);
    kit_put32(k, TSS2_AT + 0x4c, 0x1234);
    assert_fine(k, cpu_jmp_far(v, G_TSS2, 0, 4));
    assert_true(v->mode & MODE_VM86);
    assert_int_equal(vcpu_cpl(v), 3);
    assert_int_equal(v->s.seg[SEG_CS].base, 0x12340);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        T(jump_call_return),       T(sixteen_bits),      T(refusals),
        T(faults_of_the_new_task), T(double_fault_task), T(trap_bit_and_vm86),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
