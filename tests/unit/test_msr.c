/* SPDX-License-Identifier: Apache-2.0 */
/* MSRs, CPUID, the TSC and the paravirtual clock; the processor's state saved and loaded. */
#include "cpu_kit.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/pvclock.h"

static void wrmsr(struct kit *k, uint32_t msr, uint64_t val)
{
    k->v->s.gpr[RCX] = msr;
    k->v->s.gpr[RAX] = (uint32_t)val;
    k->v->s.gpr[RDX] = val >> 32;
    cpu_wrmsr(k->v);
}

static uint64_t rdmsr(struct kit *k, uint32_t msr)
{
    k->v->s.gpr[RCX] = msr;
    cpu_rdmsr(k->v);
    return k->v->s.gpr[RAX] | k->v->s.gpr[RDX] << 32;
}

/* Each register: a value it keeps, a value it refuses (0: refuses none). */
static void kept_and_refused(void **state)
{
    struct kit *k = *state;
    static const struct {
        uint32_t msr;
        uint64_t good, bad;
    } rows[] = {
        { 0x48, 1, 2 },
        { 0x174, 0x10, 1ull << 32 },
        { 0x175, 0xffff800000000000, 1ull << 47 },
        { 0x176, 0xfffffffffffffff0, 1ull << 63 },
        { 0x17a, 4, 8 },
        { 0x1d9, 3, 4 },
        { 0x200, 0x12000006, 0x12000002 },
        { 0x200, 0xffffff0006, 1ull << 40 },
        { 0x20f, 0xffffff0800, 1 },
        { 0x250, 0x0605040100060504, 0x02 },
        { 0x259, 0x0606060606060606, 0x0706060606060606 },
        { 0x26f, 0x0101010101010101, 3 },
        { 0x277, 0x0007050600070106, 2 },
        { 0x277, 0x0706050401000606, 0x0800000000000000 },
        { 0x2ff, 0xc06, 0xc02 },
        { 0x2ff, 0x806, 0x1006 },
        { 0xc0000081, 0x23001000000000, 0 },
        { 0xc0000082, 0xffffffff81000000, 0x800000000000 },
        { 0xc0000083, 0x1000, 0x800000000000 },
        { 0xc0000084, 0x257fd5, 1ull << 32 },
        { 0xc0000100, 0x7f0000000000, 1ull << 48 },
        { 0xc0000101, 0xffff888000000000, 1ull << 48 },
        { 0xc0000102, 0x10, 1ull << 48 },
        { 0xc0000103, 3, 1ull << 32 },
    };
    volatile uint64_t got = 0;
    for (volatile unsigned i = 0; i < array_size(rows); i++) {
        assert_fine(k, wrmsr(k, rows[i].msr, rows[i].good));
        assert_fine(k, got = rdmsr(k, rows[i].msr));
        assert_int_equal(got, rows[i].good);
        if (rows[i].bad)
            assert_raises(k, VEC_GP, 0, wrmsr(k, rows[i].msr, rows[i].bad));
        assert_fine(k, got = rdmsr(k, rows[i].msr));
        assert_int_equal(got, rows[i].good);
    }
}

static void read_only_and_unknown(void **state)
{
    struct kit *k = *state;
    volatile uint64_t got = 0;
    assert_fine(k, got = rdmsr(k, 0xfe));
    assert_int_equal(got, 0x508);
    assert_raises(k, VEC_GP, 0, wrmsr(k, 0xfe, 0));
    assert_fine(k, got = rdmsr(k, 0x10a));
    assert_int_equal(got & 0x1ff, 0x17b);
    assert_raises(k, VEC_GP, 0, rdmsr(k, 0xdead));
    assert_raises(k, VEC_GP, 0, wrmsr(k, 0xdead, 0));
    assert_raises(k, VEC_GP, 0, rdmsr(k, 0x210));
    assert_raises(k, VEC_GP, 0, rdmsr(k, 0xc0010015)); /* AMD's, on an Intel model */
    assert_fine(k, rdmsr(k, 0x1a0));
    k->v->s.cr0 |= CR0_PE;
    kit_set_cpl(k, 3);
    assert_raises(k, VEC_GP, 0, rdmsr(k, 0x10));
    assert_raises(k, VEC_GP, 0, wrmsr(k, 0x10, 0));
}

/* What stock Linux reads on AMD without a net (bsp_init_amd, amd_special_default_mtrr, amd_bus). */
static void amd_registers(void **state)
{
    struct kit *k = *state;
    volatile uint64_t got = 0;
    assert_fine(k, got = rdmsr(k, 0xc0010015));
    assert_true(got & BIT(24));
    assert_fine(k, got = rdmsr(k, 0xc0010010));
    assert_fine(k, got = rdmsr(k, 0xc001001f));
    assert_fine(k, wrmsr(k, 0xc001001f, got | BIT(46)));
    assert_fine(k, got = rdmsr(k, 0xc0011029));
    assert_int_equal(got & 2, 2);
    assert_fine(k, got = rdmsr(k, 0x8b));
    assert_raises(k, VEC_GP, 0, rdmsr(k, 0x1a0));
}

static void time_stamp_counter(void **state)
{
    struct kit *k = *state;
    struct vcpu *v = k->v;
    kit_pass_ns(k, 1000);
    assert_int_equal(vcpu_tsc(v), 2000);
    cpu_rdtsc(v);
    assert_int_equal(v->s.gpr[RAX], 2000);
    wrmsr(k, 0x10, 0x123456789000);
    assert_int_equal(rdmsr(k, 0x10), 0x123456789000);
    assert_int_equal(rdmsr(k, 0x3b), 0x123456789000 - 2000);
    wrmsr(k, 0x3b, 0);
    assert_int_equal(rdmsr(k, 0x10), 2000);
    wrmsr(k, 0xc0000103, 7);
    cpu_rdtscp(v);
    assert_int_equal(v->s.gpr[RCX], 7);
    for (uint64_t tsc = 2000; tsc < 2100; tsc++) {
        uint64_t ns = vcpu_tsc_to_ns(v, tsc);
        assert_int_equal(ns, (tsc + 1) / 2);
    }
    assert_int_equal(vcpu_tsc_to_ns(v, 5), 1000);
    v->s.cr0 |= CR0_PE;
    v->s.cr4 |= CR4_TSD;
    cpu_rdtsc(v);
    kit_set_cpl(k, 3);
    assert_raises(k, VEC_GP, 0, cpu_rdtsc(v));
}

/* After a century the 64-bit product must not have wrapped. */
static void tsc_does_not_wrap(void **state)
{
    struct kit *k = *state;
    kit_pass_ns(k, 3155760000000000000);
    assert_true(vcpu_tsc(k->v) - 6311520000000000000u < 10 || 6311520000000000000u - vcpu_tsc(k->v) < 10);
}

/* The guest's arithmetic (Documentation/virt/kvm/x86/msr.rst). */
static uint64_t guest_ns(struct kit *k, uint64_t at)
{
    uint64_t delta = vcpu_tsc(k->v) - kit_get64(k, at + 8);
    uint32_t mul = kit_get32(k, at + 24);
    int8_t shift = (int8_t)(kit_get32(k, at + 28) & 0xff);
    delta = shift < 0 ? delta >> -shift : delta << shift;
    return kit_get64(k, at + 16) + (uint64_t)((unsigned __int128)delta * mul >> 32);
}

static void paravirtual_clock(void **state)
{
    struct kit *k = *state;
    kit_pass_ns(k, 5000);
    kit_put32(k, 0x3000, 7); /* the version goes on from what is there */
    wrmsr(k, 0x4b564d01, 0x3001);
    assert_int_equal(kit_get32(k, 0x3000), 10);
    assert_int_equal(kit_get32(k, 0x3000 + 29) & 0xff, 1); /* stable */
    static const uint64_t steps[] = { 0, 1, 1000, 1000000007, 3600000000000 };
    for (unsigned i = 0; i < array_size(steps); i++) {
        kit_pass_ns(k, steps[i]);
        uint64_t now = vcpu_now(k->v), guest = guest_ns(k, 0x3000);
        assert_true(guest <= now + 1 && now - guest <= 1 + now / 2000000000);
    }
    wrmsr(k, 0x10, 99); /* the TSC jumps, the clock does not */
    uint64_t now = vcpu_now(k->v), guest = guest_ns(k, 0x3000);
    assert_true(guest <= now + 1 && now - guest <= 3000);
    clock_set_wall_base_ns(k->clock, 1700000000000000123);
    wrmsr(k, 0x4b564d00, 0x4000);
    assert_int_equal(kit_get32(k, 0x4004), 1700000000);
    assert_int_equal(kit_get32(k, 0x4008), 123);
    assert_int_equal(kit_get32(k, 0x4000) & 1, 0);
    assert_raises(k, VEC_GP, 0, wrmsr(k, 0x4b564d01, 0x3003));
    assert_fine(k, wrmsr(k, 0x4b564d01, 0xfffffffff001)); /* nowhere: no harm */
    assert_int_equal(rdmsr(k, 0x4b564d01), 0xfffffffff001);
}

static void cpuid(struct kit *k, uint32_t leaf, uint32_t subleaf)
{
    k->v->s.gpr[RAX] = 0xffffffff00000000 | leaf;
    k->v->s.gpr[RCX] = subleaf;
    cpu_cpuid(k->v);
}

static void hypervisor_leaves(void **state)
{
    struct kit *k = *state;
    const uint64_t *r = k->v->s.gpr;
    cpuid(k, 0x40000000, 0);
    assert_int_equal(r[RAX], 0x40000010);
    assert_memory_equal(&r[RBX], "SunD", 4);
    assert_memory_equal(&r[RCX], "ogSu", 4);
    assert_memory_equal(&r[RDX], "nDog", 4);
    cpuid(k, 0x40000010, 0);
    assert_int_equal(r[RAX], KIT_TSC_KHZ);
    cpuid(k, 0x40000100, 0);
    assert_int_equal(r[RAX], 0x40000101);
    assert_memory_equal(&r[RBX], "KVMK", 4);
    assert_memory_equal(&r[RCX], "VMKV", 4);
    assert_memory_equal(&r[RDX], "M\0\0\0", 4);
    cpuid(k, 0x40000101, 0);
    assert_int_equal(r[RAX], BIT(3) | BIT(24));
    cpuid(k, 0x40000200, 0);
    assert_int_equal(r[RAX] | r[RBX] | r[RCX] | r[RDX], 0);
}

static void feature_leaves(void **state)
{
    struct kit *k = *state;
    const uint64_t *r = k->v->s.gpr;
    cpuid(k, 0, 0);
    assert_int_equal(r[RAX], 0xd);
    cpuid(k, 1, 0);
    assert_int_equal(r[RDX], 0x078bfbff);
    assert_int_equal(r[RCX], 0x87ba2203); /* bits 0 1 9 13 17 19 20 21 23 24 25 26 31 */
    k->v->s.cr4 |= CR4_OSXSAVE;
    k->v->s.msr.apic_base = 0xfee00100;
    cpuid(k, 1, 0);
    assert_int_equal(r[RCX] & BIT(27), BIT(27));
    assert_int_equal(r[RDX] & BIT(9), 0);
    /* AVX, RDRAND, MONITOR, XSAVES and the like are not there. */
    assert_int_equal(r[RCX] & (BIT(3) | BIT(12) | BIT(28) | BIT(29) | BIT(30)), 0);
    cpuid(k, 7, 0);
    assert_int_equal(r[RBX], BIT(0) | BIT(1) | BIT(7) | BIT(9) | BIT(10) | BIT(20));
    assert_int_equal(r[RCX], BIT(2));
    cpuid(k, 7, 1);
    assert_int_equal(r[RAX] | r[RBX] | r[RCX] | r[RDX], 0);
    cpuid(k, 0xd, 0);
    assert_int_equal(r[RAX], 3);
    assert_int_equal(r[RBX], 576);
    cpuid(k, 0xd, 1);
    assert_int_equal(r[RAX], 0);
    cpuid(k, 0x80000008, 0);
    assert_int_equal(r[RAX] & 0xffff, 0x3028);
    cpuid(k, 0x80000007, 0);
    assert_int_equal(r[RDX], BIT(8));
    cpuid(k, 0x80000001, 0);
    assert_int_equal(r[RDX] & (BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29)),
                     BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29));
    assert_true(k->model.cpuid_count < CPUID_ENTRIES_MAX);
}

static void topology(void **state)
{
    struct kit *k = *state;
    const uint64_t *r = k->v->s.gpr;
    cpuid(k, 0xb, 0);
    assert_int_equal(r[RBX], 1);
    assert_int_equal(r[RCX], 0x100);
    cpuid(k, 0xb, 1);
    assert_int_equal(r[RBX], 1);
    assert_int_equal(r[RCX], 0x201);
    cpuid(k, 0xb, 9);
    assert_int_equal(r[RAX] | r[RBX], 0);
    assert_int_equal(r[RCX], 9);
}

/* Save, load into a fresh machine, equal hashes; and what a load refuses. */
static void saved_state(void **state)
{
    struct kit *k = *state, *other;
    kit_long_mode(k, 0x10000);
    for (unsigned i = 0; i < 16; i++)
        k->v->s.gpr[i] = 0x0123456789abcdefull * (i + 1);
    memset(k->v->s.fpu.xmm, 0x5a, sizeof(k->v->s.fpu.xmm));
    lapic_write(k->v, 0xf0, 0x1ff);
    const struct state_object from = { &vcpu_state_class, &k->v->s, 0 };
    size_t len = state_saved_size(&vcpu_state_class);
    uint8_t *buf = malloc(len);
    assert_non_null(buf);
    assert_int_equal(state_save(&from, buf), len);
    assert_int_equal(kit_setup((void **)&other), 0);
    const struct state_object to = { &vcpu_state_class, &other->v->s, 0 };
    struct error e = { 0 };
    assert_int_equal(state_load(&to, buf, len, &e), len);
    assert_int_equal(state_hash(&from, 1), state_hash(&to, 1));
    assert_memory_equal(&k->v->s.gpr, &other->v->s.gpr, sizeof(k->v->s.gpr));
    vcpu_refresh(other->v);
    assert_int_equal(other->v->mode, k->v->mode);

    static const struct {
        uint64_t cr0, cr4, efer, rflags;
    } bad[] = {
        { CR0_PG, 0, 0, 2 },    { CR0_NW, 0, 0, 2 },
        { 0, 0, EFER_LMA, 2 },  { CR0_PE | CR0_PG, 0, EFER_LME | EFER_LMA, 2 },
        { 0, CR4_PCIDE, 0, 2 }, { 0, 1u << 13, 0, 2 },
        { 0, 0, 0, 2 | FL_VM },
    };
    for (unsigned i = 0; i < array_size(bad); i++) {
        struct vcpu_state s = k->v->s;
        s.cr0 = bad[i].cr0;
        s.cr4 = bad[i].cr4;
        s.efer = bad[i].efer;
        s.rflags = bad[i].rflags;
        state_save(&(struct state_object){ &vcpu_state_class, &s, 0 }, buf);
        e = (struct error){ 0 };
        assert_true(state_load(&to, buf, len, &e) < 0);
    }
    free(buf);
    kit_teardown((void **)&other);
}

/* Bytes between fields: of 8 segments, of 2 table registers, after `cc`, before the timer's times, before
 * `retired`, behind `fault_row`. */
#define PADDING (8u * 6 + 2u * 6 + 6 + 4 + 6 + 7)

/* Every byte of the struct that is not padding is in the table: flipping any leaves a trace in the hash. */
static void table_is_complete(void **state)
{
    struct kit *k = *state;
    struct vcpu_state s = k->v->s;
    const struct state_object obj = { &vcpu_state_class, &s, 0 };
    uint64_t before = state_hash(&obj, 0);
    unsigned silent = 0;
    for (size_t i = 0; i < sizeof(s); i++) {
        ((uint8_t *)&s)[i] ^= 0xff;
        silent += state_hash(&obj, 0) == before;
        ((uint8_t *)&s)[i] ^= 0xff;
    }
    assert_int_equal(silent, PADDING);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kept_and_refused),
        TEST(read_only_and_unknown),
        cmocka_unit_test_setup_teardown(amd_registers, kit_setup_amd, kit_teardown),
        TEST(time_stamp_counter),
        TEST(tsc_does_not_wrap),
        TEST(paravirtual_clock),
        TEST(hypervisor_leaves),
        TEST(feature_leaves),
        TEST(topology),
        TEST(saved_state),
        TEST(table_is_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
