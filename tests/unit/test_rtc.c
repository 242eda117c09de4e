/* SPDX-License-Identifier: Apache-2.0 */
/* The MC146818, against its data sheet, and the CMOS bytes by which kernels size memory. */
#include "chip_kit.h"

#include "device/rtc.h"

struct bench {
    struct chip_kit k;
    struct rtc *rtc;
};

static int setup(void **s)
{
    static struct bench b;
    struct error e = { 0 };
    b = (struct bench){ 0 };
    chip_kit_open(&b.k); /* 2000-02-28 23:59:59 */
    b.rtc = rtc_create(b.k.bus, b.k.clk, probe_line(&b.k.irq), 512ull << 20, 3ull << 30, &e);
    assert_non_null(b.rtc);
    *s = &b;
    return 0;
}

static int teardown(void **s)
{
    struct bench *b = *s;
    rtc_destroy(b->rtc);
    assert_true(clock_next_deadline(b->k.clk) == UINT64_MAX);
    chip_kit_close(&b->k);
    return 0;
}

static uint8_t get(struct bench *b, uint8_t reg)
{
    out8(&b->k, 0x70, reg);
    return in8(&b->k, 0x71);
}

static void set(struct bench *b, uint8_t reg, uint8_t val)
{
    out8(&b->k, 0x70, reg);
    out8(&b->k, 0x71, val);
}

static void time_is(struct bench *b, uint32_t ymd, uint32_t hms, uint8_t weekday)
{
    assert_int_equal(get(b, 0x32) << 24 | get(b, 9) << 16 | get(b, 8) << 8 | get(b, 7), ymd);
    assert_int_equal(get(b, 4) << 16 | get(b, 2) << 8 | get(b, 0), hms);
    assert_int_equal(get(b, 6), weekday);
}

static void time_passes(void **s)
{
    struct bench *b = *s;
    time_is(b, 0x20000228, 0x235959, 2); /* Sunday = 1 */
    pass(&b->k, 1 * SEC);
    time_is(b, 0x20000229, 0x000000, 3);
    pass(&b->k, 86400 * SEC);
    time_is(b, 0x20000301, 0x000000, 4);
    assert_true(clock_next_deadline(b->k.clk) == UINT64_MAX); /* nobody waits, nobody wakes */
}

static void notations(void **s)
{
    struct bench *b = *s;
    set(b, 0xb, 0x06); /* binary, 24 hours */
    assert_int_equal(get(b, 4), 23);
    assert_int_equal(get(b, 2), 59);
    assert_int_equal(get(b, 0x32), 20);
    set(b, 0xb, 0x00);                 /* BCD, 12 hours */
    assert_int_equal(get(b, 4), 0x91); /* 11 PM */
    pass(&b->k, 1 * SEC);
    assert_int_equal(get(b, 4), 0x12); /* 12 AM */
    pass(&b->k, 12 * 3600 * SEC);
    assert_int_equal(get(b, 4), 0x92); /* 12 PM */
    pass(&b->k, 3600 * SEC);
    assert_int_equal(get(b, 4), 0x81);
    set(b, 4, 0x12); /* 12 AM */
    set(b, 0xb, 0x02);
    assert_int_equal(get(b, 4), 0x00);
}

static void the_guest_sets_it(void **s)
{
    struct bench *b = *s;
    pass(&b->k, 300 * MS);
    set(b, 0xb, 0x82); /* SET */
    static const uint8_t want[][2] = { { 0, 0x58 }, { 2, 0x59 }, { 4, 0x23 }, { 6, 5 },
                                       { 7, 0x31 }, { 8, 0x12 }, { 9, 0x37 }, { 0x32, 0x20 } };
    for (unsigned i = 0; i < array_size(want); i++)
        set(b, want[i][0], want[i][1]);
    pass(&b->k, 5 * SEC);
    time_is(b, 0x20371231, 0x235958, 5); /* it stands still: Thursday */
    set(b, 0xb, 0x02);
    time_is(b, 0x20371231, 0x235958, 5);
    pass(&b->k, 1699 * MS); /* the fraction went on */
    time_is(b, 0x20371231, 0x235959, 5);
    pass(&b->k, 2 * MS);
    time_is(b, 0x20380101, 0x000000, 6);
    /* Held in reset and released: the first update comes half a second later. */
    set(b, 0xa, 0x76);
    pass(&b->k, 10 * SEC);
    set(b, 0xa, 0x26);
    pass(&b->k, 499 * MS);
    assert_int_equal(get(b, 0), 0);
    pass(&b->k, 2 * MS);
    assert_int_equal(get(b, 0), 1);
    /* Written while it runs. */
    set(b, 2, 0x45);
    assert_int_equal(get(b, 2), 0x45);
    rtc_reset(b->rtc); /* the battery keeps it */
    assert_int_equal(get(b, 2), 0x45);
}

static void update_in_progress(void **s)
{
    struct bench *b = *s;
    assert_int_equal(get(b, 0xa), 0x26);
    pass(&b->k, SEC - 245 * US);
    assert_int_equal(get(b, 0xa), 0x26);
    pass(&b->k, 2 * US);
    assert_int_equal(get(b, 0xa), 0xa6);
    pass(&b->k, 243 * US);
    assert_int_equal(get(b, 0xa), 0x26);
    set(b, 0xa, 0xff); /* UIP cannot be written */
    assert_int_equal(get(b, 0xa), 0x7f);
}

static void update_interrupt(void **s)
{
    struct bench *b = *s;
    get(b, 0xc);
    set(b, 0xb, 0x12);
    pass(&b->k, 999 * MS);
    assert_int_equal(b->k.irq.rises, 0);
    pass(&b->k, 1 * MS);
    assert_int_equal(b->k.irq.rises, 1);
    pass(&b->k, 5 * SEC);
    assert_int_equal(b->k.irq.rises, 1); /* up until register C is read */
    assert_int_equal(get(b, 0xc) & 0x90, 0x90);
    assert_false(b->k.irq.level);
    assert_int_equal(get(b, 0xc), 0);
    pass(&b->k, 1 * SEC);
    assert_int_equal(b->k.irq.rises, 2);
}

static void alarm(void **s)
{
    struct bench *b = *s;
    set(b, 5, 0x00), set(b, 3, 0x01), set(b, 1, 0x30); /* 00:01:30 */
    get(b, 0xc);
    set(b, 0xb, 0x22);
    pass(&b->k, 90 * SEC);
    assert_int_equal(b->k.irq.rises, 0);
    pass(&b->k, 1 * SEC);
    assert_int_equal(b->k.irq.rises, 1);
    assert_int_equal(get(b, 0xc) & 0xa0, 0xa0);
    pass(&b->k, 86399 * SEC);
    assert_int_equal(b->k.irq.rises, 1);
    pass(&b->k, 1 * SEC);
    assert_int_equal(b->k.irq.rises, 2);
    get(b, 0xc);
    set(b, 5, 0xff), set(b, 3, 0xc0); /* any hour, any minute: once a minute */
    for (unsigned i = 0; i < 10; i++) {
        pass(&b->k, 60 * SEC);
        assert_int_equal(get(b, 0xc) & 0xa0, 0xa0);
    }
    assert_int_equal(b->k.irq.rises, 12);
    set(b, 1, 0x75); /* no such second */
    pass(&b->k, 200000 * SEC);
    assert_int_equal(b->k.irq.rises, 12);
    set(b, 0xb, 0x02); /* polled, without the interrupt */
    set(b, 1, 0x10);
    get(b, 0xc);
    pass(&b->k, 60 * SEC);
    assert_int_equal(get(b, 0xc) & 0xa0, 0x20);
}

static unsigned serve(struct bench *b, unsigned ms)
{
    unsigned n = 0;
    for (unsigned i = 0; i < ms * 10; i++) {
        pass(&b->k, 100 * US);
        if (b->k.irq.level) {
            assert_int_equal(get(b, 0xc) & 0xc0, 0xc0);
            n++;
        }
    }
    return n;
}

static void periodic_interrupt(void **s)
{
    struct bench *b = *s;
    static const struct {
        uint8_t rate;
        unsigned hz;
    } rates[] = { { 1, 256 }, { 2, 128 }, { 6, 1024 }, { 10, 64 }, { 15, 2 } };
    set(b, 0xb, 0x42);
    for (unsigned i = 0; i < array_size(rates); i++) {
        set(b, 0xa, 0x20 | rates[i].rate);
        assert_in_range(serve(b, 2000), rates[i].hz * 2 - 2, rates[i].hz * 2 + 1);
    }
    set(b, 0xa, 0x26);
    unsigned n = 0;
    for (unsigned i = 0; i < 100; i++) { /* a host that is late by 3 periods now and then */
        oversleep(&b->k, 3 * MS);
        n += serve(b, 7);
    }
    assert_in_range(n, 1000, 1030);
    oversleep(&b->k, 3600 * SEC);
    assert_in_range(serve(b, 100), 100, 115);
    set(b, 0xa, 0x20); /* off */
    get(b, 0xc);
    assert_int_equal(serve(b, 100), 0);
    set(b, 0xa, 0x26);
    set(b, 0xb, 0x02);
    pass(&b->k, 1 * MS);
    assert_int_equal(get(b, 0xc) & 0xc0, 0x40); /* the flag comes without the interrupt */
}

static void memory(void **s)
{
    struct bench *b = *s;
    assert_int_equal(get(b, 0x15) | get(b, 0x16) << 8, 640);
    assert_int_equal(get(b, 0x17) | get(b, 0x18) << 8, 0xffff);
    assert_int_equal(get(b, 0x34) | get(b, 0x35) << 8, (512 - 16) * 16);
    assert_int_equal(get(b, 0x5b) | get(b, 0x5c) << 8 | get(b, 0x5d) << 16, 3 << 14);
    unsigned sum = 0;
    for (uint8_t i = 0x10; i <= 0x2d; i++)
        sum += get(b, i);
    assert_int_equal(get(b, 0x2e) << 8 | get(b, 0x2f), sum);
    assert_int_equal(get(b, 0xd), 0x80);
    set(b, 0xd, 0), set(b, 0xc, 0xff);
    assert_int_equal(get(b, 0xd), 0x80);
    set(b, 0x7f, 0x5a);
    assert_int_equal(get(b, 0xff), 0x5a); /* bit 7 of the index is the NMI mask */
    assert_int_equal(in8(&b->k, 0x70), 0xff);
}

static void state_moves(void **s)
{
    struct bench *b = *s, other = { 0 };
    struct error e = { 0 };
    set(b, 9, 0x42);
    set(b, 0xb, 0x52);
    pass(&b->k, 12345 * US);
    chip_kit_open(&other.k);
    other.rtc = rtc_create(other.k.bus, other.k.clk, probe_line(&other.k.irq), 0, 0, &e);
    clock_skip_to(other.k.clk, clock_now(b->k.clk));
    struct state_object from = rtc_state_object(b->rtc), to = rtc_state_object(other.rtc);
    copy_state(&from, &to);
    rtc_loaded(other.rtc);
    assert_true(other.k.irq.level == b->k.irq.level);
    assert_int_equal(get(&other, 9), 0x42);
    assert_int_equal(get(b, 9), 0x42);
    get(b, 0xc), get(&other, 0xc);
    assert_true(clock_next_deadline(other.k.clk) == clock_next_deadline(b->k.clk));
    assert_true(state_hash(&from, 0) == state_hash(&to, 0));
    rtc_destroy(other.rtc);
    chip_kit_close(&other.k);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(time_passes),        T(notations),        T(the_guest_sets_it),
        T(update_in_progress), T(update_interrupt), T(alarm),
        T(periodic_interrupt), T(memory),           T(state_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
