/* SPDX-License-Identifier: Apache-2.0 */
/* The local APIC: priorities, end of interrupt, timer modes, destinations, errors, x2APIC (SDM 3A 10). */
#include "cpu_kit.h"

#include "cpu/lapic_internal.h"

static void enable(struct kit *k) { lapic_write(k->v, REG_SVR, 0x1ff); }

static void registers(void **state)
{
    struct kit *k = *state;
    assert_int_equal(lapic_read(k->v, REG_VERSION), 0x50014);
    assert_int_equal(lapic_read(k->v, REG_SVR), 0xff);
    assert_int_equal(lapic_read(k->v, REG_DFR), 0xffffffff);
    lapic_write(k->v, REG_DFR, 0x01234567);
    assert_int_equal(lapic_read(k->v, REG_DFR), 0x0fffffff);
    /* Software-disabled: LVT entries are masked and stay so (SDM 3A 10.4.7.2). */
    lapic_write(k->v, REG_LVT_ERROR, 0x40);
    assert_int_equal(lapic_read(k->v, REG_LVT_ERROR), 0x10040);
    enable(k);
    lapic_write(k->v, REG_LVT_ERROR, 0x40);
    assert_int_equal(lapic_read(k->v, REG_LVT_ERROR), 0x40);
    lapic_write(k->v, REG_SVR, 0xff);
    assert_int_equal(lapic_read(k->v, REG_LVT_ERROR), 0x10040);
}

static void priorities(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    vcpu_post_interrupt(v, 0x41, false); /* dropped: the APIC is software-disabled */
    assert_int_equal(lapic_pending(v), -1);
    enable(k);
    vcpu_post_interrupt(v, 0x41, false);
    vcpu_post_interrupt(v, 0x62, true);
    vcpu_post_interrupt(v, 0x45, false);
    assert_int_equal(lapic_pending(v), 0x62);
    lapic_write(v, REG_TPR, 0x60); /* the same class is held back too */
    assert_int_equal(lapic_pending(v), -1);
    lapic_write(v, REG_TPR, 0x5f);
    assert_int_equal(lapic_pending(v), 0x62);
    lapic_ack(v, 0x62);
    assert_int_equal(lapic_read(v, REG_PPR), 0x60);
    assert_int_equal(lapic_read(v, REG_ISR + 0x30), 1u << 2);
    assert_int_equal(lapic_read(v, REG_TMR + 0x30), 1u << 2);
    lapic_write(v, REG_TPR, 0);
    assert_int_equal(lapic_pending(v), -1); /* 0x45 waits for the end of 0x62 */
    vcpu_post_interrupt(v, 0x70, false);
    assert_int_equal(lapic_pending(v), 0x70);
    lapic_ack(v, 0x70);
    lapic_write(v, REG_EOI, 0);
    assert_int_equal(k->eois, 0); /* edge */
    lapic_write(v, REG_EOI, 0);
    assert_int_equal(k->eois, 1);
    assert_int_equal(k->eoi_vector, 0x62);
    assert_int_equal(lapic_pending(v), 0x45);
    lapic_set_cr8(v, 4);
    assert_int_equal(lapic_read(v, REG_TPR), 0x40);
    assert_int_equal(lapic_pending(v), -1);
    lapic_set_cr8(v, 3);
    assert_int_equal(lapic_get_cr8(v), 3);
    assert_int_equal(lapic_pending(v), 0x45);
    lapic_write(v, REG_EOI, 0); /* nothing in service: no harm */
}

static void one_shot(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    enable(k);
    lapic_write(v, REG_TIMER_DIVIDE, 0x3); /* 16 */
    lapic_write(v, REG_LVT_TIMER, 0xec);
    lapic_write(v, REG_TIMER_INITIAL, 1000);
    kit_pass_ns(k, 8000);
    assert_int_equal(lapic_read(v, REG_TIMER_CURRENT), 500);
    assert_int_equal(lapic_pending(v), -1);
    kit_pass_ns(k, 7999);
    assert_int_equal(lapic_pending(v), -1);
    kit_pass_ns(k, 1);
    assert_int_equal(lapic_pending(v), 0xec);
    assert_int_equal(lapic_read(v, REG_TIMER_CURRENT), 0);
    lapic_ack(v, 0xec);
    lapic_write(v, REG_EOI, 0);
    kit_pass_ns(k, 100000);
    assert_int_equal(lapic_pending(v), -1);
    lapic_write(v, REG_TIMER_INITIAL, 1000);
    lapic_write(v, REG_TIMER_INITIAL, 0); /* stops it */
    kit_pass_ns(k, 100000);
    assert_int_equal(lapic_pending(v), -1);
    /* Masked: it counts and is silent. */
    lapic_write(v, REG_LVT_TIMER, 0x100ec);
    lapic_write(v, REG_TIMER_INITIAL, 10);
    kit_pass_ns(k, 1000);
    assert_int_equal(lapic_pending(v), -1);
}

static void divide_values(void **state)
{
    struct kit *k = *state;
    static const unsigned divisor[8][2] = { { 0, 2 },  { 1, 4 },  { 2, 8 },    { 3, 16 },
                                            { 8, 32 }, { 9, 64 }, { 10, 128 }, { 11, 1 } };
    enable(k);
    for (unsigned i = 0; i < 8; i++) {
        lapic_write(k->v, REG_TIMER_DIVIDE, divisor[i][0]);
        lapic_write(k->v, REG_TIMER_INITIAL, 100000);
        kit_pass_ns(k, 1280);
        assert_int_equal(lapic_read(k->v, REG_TIMER_CURRENT), 100000 - 1280 / divisor[i][1]);
    }
}

/* Missed ticks coalesce, the phase is kept. */
static void periodic(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    enable(k);
    lapic_write(v, REG_TIMER_DIVIDE, 0xb);
    lapic_write(v, REG_LVT_TIMER, LVT_TIMER_PERIODIC | 0xec);
    lapic_write(v, REG_TIMER_INITIAL, 1000000);
    for (unsigned i = 0; i < 3; i++) {
        kit_pass_ns(k, 1000000);
        assert_int_equal(lapic_pending(v), 0xec);
        lapic_ack(v, 0xec);
        lapic_write(v, REG_EOI, 0);
    }
    kit_pass_ns(k, 5500000);
    assert_int_equal(lapic_pending(v), 0xec);
    lapic_ack(v, 0xec);
    lapic_write(v, REG_EOI, 0);
    assert_int_equal(lapic_read(v, REG_TIMER_CURRENT), 500000);
    assert_int_equal(lapic_pending(v), -1);
    kit_pass_ns(k, 499999);
    assert_int_equal(lapic_pending(v), -1);
    kit_pass_ns(k, 1);
    assert_int_equal(lapic_pending(v), 0xec);
    /* A period of one nanosecond does not hold the clock for ever. */
    lapic_write(v, REG_TIMER_INITIAL, 1);
    kit_pass_ns(k, 1);
    lapic_pending(v);
    assert_true(v->s.lapic.timer_at > vcpu_now(v) + 1000);
}

static void tsc_deadline(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    uint64_t val = 1;
    enable(k);
    assert_true(lapic_msr_write(v, 0x6e0, vcpu_tsc(v) + 1000)); /* ignored in other modes */
    assert_true(lapic_msr_read(v, 0x6e0, &val));
    assert_int_equal(val, 0);
    lapic_write(v, REG_LVT_TIMER, LVT_TIMER_DEADLINE | 0xec);
    uint64_t at = vcpu_tsc(v) + 20001; /* at 2 GHz: due within 10001 ns */
    assert_true(lapic_msr_write(v, 0x6e0, at));
    kit_pass_ns(k, 10000);
    assert_int_equal(lapic_pending(v), -1);
    assert_true(lapic_msr_read(v, 0x6e0, &val));
    assert_int_equal(val, at);
    kit_pass_ns(k, 1);
    assert_true(vcpu_tsc(v) >= at);
    assert_int_equal(lapic_pending(v), 0xec);
    assert_true(lapic_msr_read(v, 0x6e0, &val));
    assert_int_equal(val, 0);
    lapic_ack(v, 0xec);
    lapic_write(v, REG_EOI, 0);
    /* In the past: at once. Zero: never. */
    assert_true(lapic_msr_write(v, 0x6e0, 1));
    kit_pass_ns(k, 0);
    assert_int_equal(lapic_pending(v), 0xec);
    lapic_ack(v, 0xec);
    lapic_write(v, REG_EOI, 0);
    assert_true(lapic_msr_write(v, 0x6e0, vcpu_tsc(v) + 1000));
    assert_true(lapic_msr_write(v, 0x6e0, 0));
    kit_pass_ns(k, 100000);
    assert_int_equal(lapic_pending(v), -1);
    /* So far ahead that no clock gets there. */
    assert_true(lapic_msr_write(v, 0x6e0, vcpu_tsc(v) + INT64_MAX));
    kit_pass_ns(k, 100000);
    assert_int_equal(lapic_pending(v), -1);
}

/* The timer goes on from the saved state alone. */
static void timer_from_state(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    enable(k);
    lapic_write(v, REG_TIMER_DIVIDE, 0xb);
    lapic_write(v, REG_LVT_TIMER, 0xec);
    lapic_write(v, REG_TIMER_INITIAL, 5000);
    struct vcpu_state saved = v->s;
    lapic_write(v, REG_TIMER_INITIAL, 0);
    v->s = saved;
    vcpu_refresh(v);
    kit_pass_ns(k, 5000);
    assert_int_equal(lapic_pending(v), 0xec);
}

static void destinations(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    assert_true(lapic_matches(v, 0, false));
    assert_true(lapic_matches(v, 0xff, false));
    assert_false(lapic_matches(v, 1, false));
    lapic_write(v, REG_LDR, 0x02000000);
    assert_true(lapic_matches(v, 0x03, true));
    assert_false(lapic_matches(v, 0x01, true));
    lapic_write(v, REG_DFR, 0);
    lapic_write(v, REG_LDR, 0x24000000); /* cluster 2, member 4 */
    assert_true(lapic_matches(v, 0x2c, true));
    assert_false(lapic_matches(v, 0x3c, true));
    assert_false(lapic_matches(v, 0x23, true));
    assert_true(lapic_matches(v, 0xff, true));
}

static void pic_and_ipi(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    assert_true(lapic_accepts_pic(v)); /* as firmware leaves LINT0 */
    enable(k);
    lapic_write(v, REG_LVT_LINT0, 0x10700);
    assert_false(lapic_accepts_pic(v));
    lapic_write(v, REG_LVT_LINT0, 0x700);
    assert_true(lapic_accepts_pic(v));
    lapic_write(v, REG_ICR_HIGH, 0x03000000);
    lapic_write(v, REG_ICR_LOW, 0x4500);
    assert_int_equal(k->ipis, 1);
    assert_int_equal(k->ipi_low, 0x4500);
    assert_int_equal(k->ipi_high, 0x03000000);
    lapic_write(v, REG_ICR_LOW, 0x0008); /* an illegal vector */
    assert_int_equal(k->ipis, 1);
    lapic_write(v, REG_ESR, 0);
    assert_int_equal(lapic_read(v, REG_ESR), ESR_SEND_ILLEGAL);
    lapic_write(v, REG_ESR, 0);
    assert_int_equal(lapic_read(v, REG_ESR), 0);
    lapic_read(v, 0x040);
    lapic_write(v, REG_ESR, 0);
    assert_int_equal(lapic_read(v, REG_ESR), ESR_ILLEGAL_REGISTER);
    lapic_write(v, REG_LVT_ERROR, 0xfe);
    lapic_read(v, 0x040);
    assert_int_equal(lapic_pending(v), 0xfe);
}

static void wrmsr(struct kit *k, uint32_t msr, uint64_t val)
{
    k->v->s.gpr[RCX] = msr;
    k->v->s.gpr[RAX] = (uint32_t)val;
    k->v->s.gpr[RDX] = val >> 32;
    cpu_wrmsr(k->v);
}

static void x2apic(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    uint64_t val = 0;
    assert_false(lapic_msr_read(v, 0x802, &val));
    assert_raises(k, VEC_GP, 0, wrmsr(k, 0x1b, 0xfee00400)); /* x2APIC without the APIC */
    assert_fine(k, wrmsr(k, 0x1b, 0xfee00c00));
    assert_int_equal(v->s.msr.apic_base, 0xfee00d00);
    assert_raises(k, VEC_GP, 0, wrmsr(k, 0x1b, 0xfee00800)); /* not back to xAPIC */
    assert_false(lapic_claims(v, GPA(0xfee00000)));
    assert_true(lapic_msr_read(v, 0x802, &val));
    assert_int_equal(val, 0);
    assert_true(lapic_msr_read(v, 0x80d, &val));
    assert_int_equal(val, 1);
    assert_false(lapic_msr_write(v, 0x802, 1));
    assert_false(lapic_msr_read(v, 0x80e, &val));
    assert_true(lapic_msr_write(v, 0x80f, 0x1ff));
    assert_true(lapic_msr_write(v, 0x830, 5ull << 32 | 0x4500));
    assert_int_equal(k->ipi_high, 5);
    assert_true(lapic_msr_read(v, 0x830, &val));
    assert_int_equal(val, 5ull << 32 | 0x4500);
    assert_true(lapic_msr_write(v, 0x83f, 0x77));
    assert_int_equal(lapic_pending(v), 0x77);
    lapic_ack(v, 0x77);
    assert_false(lapic_msr_write(v, 0x80b, 1));
    assert_true(lapic_msr_write(v, 0x80b, 0));
    assert_false(lapic_msr_write(v, 0x808, 1ull << 32));
    assert_false(lapic_msr_write(v, 0x808, 0x100));
    assert_true(lapic_matches(v, 1, true));
    assert_fine(k, wrmsr(k, 0x1b, 0xfee00000));
    assert_int_equal(v->s.lapic.svr, 0xff);
    assert_raises(k, VEC_GP, 0, wrmsr(k, 0x1b, 0xfee00c00)); /* not from off to x2APIC */
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers),    TEST(priorities),       TEST(one_shot),     TEST(divide_values), TEST(periodic),
        TEST(tsc_deadline), TEST(timer_from_state), TEST(destinations), TEST(pic_and_ipi),   TEST(x2apic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
