/* SPDX-License-Identifier: Apache-2.0 */
/* Segment loads, system segments, LAR/LSL/VERR/VERW: every check with its vector and error code (SDM 2A;
 * 3A 5). */
#include "seg_kit.h"

static void data_segments(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_protected(k, 3);
    /* SDM 2B MOV: segment is data or nonconforming code and RPL or CPL > DPL -> #GP(sel) */
    static const struct {
        uint16_t sel;
        int vec;
        uint32_t err;
    } cases[] = {
        { G_DATA3 | 3, -1, 0 }, { G_DATA0, VEC_GP, G_DATA0 }, { G_CONFORMING0, -1, 0 },
        { G_DATA3, -1, 0 },     { 0x200, VEC_GP, 0x200 },     { G_TSS | 3, VEC_GP, G_TSS },
        { 4, VEC_GP, 4 },       { G_CODE3 | 3, -1, 0 },       { G_CODE0 | 3, VEC_GP, G_CODE0 },
    };
    v->s.ldtr = seg_null(0, 0);
    for (unsigned i = 0; i < array_size(cases); i++) {
        int vec = RAISED(k, cpu_load_seg(v, SEG_DS, cases[i].sel));
        assert_int_equal(vec, cases[i].vec);
        if (vec >= 0)
            assert_int_equal(v->exception.error, cases[i].err);
        else
            assert_int_equal(v->s.seg[SEG_DS].sel, cases[i].sel);
    }
    kit_protected(k, 0);
    assert_raises(k, VEC_NP, G_ABSENT_DATA0, cpu_load_seg(v, SEG_FS, G_ABSENT_DATA0));
    assert_raises(k, VEC_GP, G_EXECONLY0, cpu_load_seg(v, SEG_FS, G_EXECONLY0));
    assert_raises(k, VEC_GP, G_DATA0, cpu_load_seg(v, SEG_FS, G_DATA0 | 1)); /* RPL > DPL alone is enough */
    assert_fine(k, cpu_load_seg(v, SEG_ES, 3));
    assert_true(v->s.seg[SEG_ES].attr & SA_UNUSABLE);
    assert_int_equal(v->s.seg[SEG_ES].sel, 3);
}

static void descriptor_parts(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_protected(k, 0);
    assert_fine(k, cpu_load_seg(v, SEG_GS, G_DATA1_3));
    assert_int_equal(v->s.seg[SEG_GS].base, 0x12345678);
    assert_int_equal(v->s.seg[SEG_GS].limit, 0x100);
    /* accessed bit set, in the register and in memory (SDM 3A 3.4.5.1) */
    assert_int_equal(kit_get64(k, GDT_AT + G_DATA1_3) >> 40 & 0xff, 0xf3);
    assert_int_equal(v->s.seg[SEG_GS].attr & 0xff, 0xf3);
    assert_fine(k, cpu_load_seg(v, SEG_GS, G_DATA0));
    assert_int_equal(v->s.seg[SEG_GS].limit, 0xffffffff);
    kit_put64(k, LDT_AT + 8, kit_desc(0x777000, 5, 0x93, 0));
    assert_fine(k, cpu_lldt(v, G_LDT));
    assert_fine(k, cpu_load_seg(v, SEG_GS, 8 | 4));
    assert_int_equal(v->s.seg[SEG_GS].base, 0x777000);
    assert_raises(k, VEC_GP, 0x24, cpu_load_seg(v, SEG_GS, 0x20 | 4)); /* LDT limit 0x1f */
}

static void stack_segment(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_protected(k, 0);
    assert_raises(k, VEC_GP, 0, cpu_load_seg(v, SEG_SS, 0));
    assert_raises(k, VEC_GP, G_DATA0, cpu_load_seg(v, SEG_SS, G_DATA0 | 1));
    assert_raises(k, VEC_GP, G_DATA3, cpu_load_seg(v, SEG_SS, G_DATA3));
    assert_raises(k, VEC_GP, G_READONLY0, cpu_load_seg(v, SEG_SS, G_READONLY0));
    assert_raises(k, VEC_GP, G_CODE0, cpu_load_seg(v, SEG_SS, G_CODE0));
    assert_raises(k, VEC_SS, G_ABSENT_DATA0, cpu_load_seg(v, SEG_SS, G_ABSENT_DATA0));
    assert_int_equal(v->s.shadow, 0);
    assert_fine(k, cpu_load_seg(v, SEG_SS, G_DATA16));
    assert_int_equal(v->s.shadow, SHADOW_MOV_SS);
    assert_int_equal(stack_mask(v), 0xffff);
    assert_true(v->mode & MODE_STEP);

    /* 64-bit mode: null with RPL = CPL < 3 (SDM 3A 5.4.1.1) */
    kit_long(k, 0);
    assert_fine(k, cpu_load_seg(v, SEG_SS, 0));
    assert_raises(k, VEC_GP, 0, cpu_load_seg(v, SEG_SS, 1));
    kit_long(k, 3);
    assert_raises(k, VEC_GP, 0, cpu_load_seg(v, SEG_SS, 3));
    assert_int_equal(vcpu_cpl(v), 3);
}

static void real_and_vm86(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_real(k);
    v->s.seg[SEG_DS].limit = 0xffffffff; /* "unreal" mode: the limit stays */
    assert_fine(k, cpu_load_seg(v, SEG_DS, 0x1234));
    assert_int_equal(v->s.seg[SEG_DS].base, 0x12340);
    assert_int_equal(v->s.seg[SEG_DS].limit, 0xffffffff);
    assert_int_equal(RAISED(k, cpu_lldt(v, G_LDT)), VEC_UD);
    assert_int_equal(RAISED(k, cpu_str(v)), VEC_UD);
    assert_int_equal(RAISED(k, cpu_check_arpl(v)), VEC_UD);
    kit_vm86(k, 3);
    assert_fine(k, cpu_load_seg(v, SEG_DS, 0x1234));
    assert_int_equal(v->s.seg[SEG_DS].base, 0x12340);
    assert_int_equal(v->s.seg[SEG_DS].limit, 0xffff);
    assert_int_equal(RAISED(k, cpu_ltr(v, G_TSS2)), VEC_UD);
}

static void system_segments(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    uint16_t limit;
    uint64_t base;
    kit_protected(k, 0);
    assert_raises(k, VEC_GP, 0, cpu_ltr(v, 0));
    assert_raises(k, VEC_GP, G_TSS, cpu_ltr(v, G_TSS)); /* busy */
    assert_raises(k, VEC_GP, G_LDT, cpu_ltr(v, G_LDT));
    assert_raises(k, VEC_NP, G_TSS_ABSENT, cpu_ltr(v, G_TSS_ABSENT));
    assert_fine(k, cpu_ltr(v, G_TSS2));
    assert_int_equal(v->s.tr.base, TSS2_AT);
    assert_int_equal(kit_get64(k, GDT_AT + G_TSS2) >> 40 & 0xff, 0x8b);
    assert_fine(k, cpu_ltr(v, G_TSS16));
    assert_int_equal(cpu_str(v), G_TSS16);
    assert_raises(k, VEC_GP, G_CODE0, cpu_lldt(v, G_CODE0));
    assert_fine(k, cpu_lldt(v, 0));
    assert_true(v->s.ldtr.attr & SA_UNUSABLE);

    kit_protected(k, 3);
    assert_raises(k, VEC_GP, 0, cpu_ltr(v, G_TSS2));
    assert_raises(k, VEC_GP, 0, cpu_lldt(v, G_LDT));
    assert_raises(k, VEC_GP, 0, cpu_lgdt(v, 1, 2));
    assert_fine(k, cpu_sgdt(v, &limit, &base));
    assert_int_equal(base, GDT_AT);
    v->s.cr4 |= CR4_UMIP;
    assert_raises(k, VEC_GP, 0, cpu_sgdt(v, &limit, &base));
    assert_raises(k, VEC_GP, 0, cpu_sidt(v, &limit, &base));
    assert_raises(k, VEC_GP, 0, cpu_sldt(v));
    assert_raises(k, VEC_GP, 0, cpu_str(v));

    /* 64-bit mode: 16-byte descriptors, upper type field zero, canonical bases */
    kit_long(k, 0);
    kit_put64(k, GDT_AT + G_TSS2 + 8, 0xffff8000);
    assert_fine(k, cpu_ltr(v, G_TSS2));
    assert_int_equal(v->s.tr.base, 0xffff800000000000ull | TSS2_AT);
    kit_put64(k, GDT_AT + G_LDT + 8, 0x8000);
    assert_raises(k, VEC_GP, G_LDT, cpu_lldt(v, G_LDT));
    kit_put64(k, GDT_AT + G_LDT + 8, 0x1ull << 40);
    assert_raises(k, VEC_GP, G_LDT, cpu_lldt(v, G_LDT));
    kit_put64(k, GDT_AT + G_LDT + 8, 0);
    assert_fine(k, cpu_lldt(v, G_LDT));
    assert_raises(k, VEC_GP, G_TSS16, cpu_ltr(v, G_TSS16));
    assert_raises(k, VEC_GP, 0, cpu_lidt(v, 1, 0x8000000000000000ull));
}

static void questions(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    uint32_t out = 0;
    kit_protected(k, 3);
    assert_true(cpu_lar(v, G_DATA3 | 3, &out));
    assert_int_equal(out, 0x00c0f300);
    assert_true(cpu_lsl(v, G_DATA3 | 3, &out));
    assert_int_equal(out, 0xffffffff);
    assert_true(cpu_lsl(v, G_SMALL3, &out));
    assert_int_equal(out, 0xf);
    assert_false(cpu_lar(v, G_DATA0, &out)); /* not visible from CPL 3 */
    assert_true(cpu_lar(v, G_CONFORMING0, &out));
    assert_false(cpu_lar(v, 0, &out));
    assert_false(cpu_lar(v, 0x200, &out));
    assert_true(cpu_lar(v, G_TASK_GATE, &out));
    assert_false(cpu_lsl(v, G_TASK_GATE, &out)); /* gates have no limit */
    assert_true(cpu_verr(v, G_CODE3));
    assert_false(cpu_verw(v, G_CODE3));
    assert_true(cpu_verw(v, G_DATA3));
    assert_false(cpu_verr(v, G_DATA0));
    kit_protected(k, 0);
    assert_false(cpu_verr(v, G_EXECONLY0));
    assert_false(cpu_verw(v, G_READONLY0));
    assert_true(cpu_verr(v, G_READONLY0));
    assert_false(cpu_verr(v, G_READONLY0 | 3));
    assert_false(cpu_verr(v, G_TSS));
    assert_true(cpu_lsl(v, G_TSS16, &out));
    kit_long(k, 0);
    assert_false(cpu_lsl(v, G_TSS16, &out)); /* no 16-bit TSS, no task gate in long mode */
    assert_false(cpu_lar(v, G_TASK_GATE, &out));
    assert_true(cpu_lar(v, G_TSS, &out));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        T(data_segments), T(descriptor_parts), T(stack_segment),
        T(real_and_vm86), T(system_segments),  T(questions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
