/* SPDX-License-Identifier: Apache-2.0 */
/* The 8254 and port 0x61, against its data sheet (Intel 231164). */
#include "chip_kit.h"

#include "device/i8254.h"
#include "device/rate.h"

struct bench {
    struct chip_kit k;
    struct i8254 *pit;
    bool masked;
};

static bool is_observed(void *ctx, unsigned irq)
{
    assert_int_equal(irq, 0);
    return !((struct bench *)ctx)->masked;
}

static int setup(void **s)
{
    static struct bench b;
    struct error e = { 0 };
    b = (struct bench){ 0 };
    chip_kit_open(&b.k);
    b.pit = i8254_create(b.k.bus, b.k.clk, probe_line(&b.k.irq), (struct irq_watch){ is_observed, &b, 0 },
                         &e);
    assert_non_null(b.pit);
    *s = &b;
    return 0;
}

static int teardown(void **s)
{
    struct bench *b = *s;
    i8254_destroy(b->pit);
    assert_true(clock_next_deadline(b->k.clk) == UINT64_MAX);
    chip_kit_close(&b->k);
    return 0;
}

/* Lets exactly n oscillator ticks pass. */
static void ticks(struct bench *b, uint64_t n)
{
    uint64_t now = clock_now(b->k.clk);
    pass(&b->k, rate_ns(rate_ticks(now, I8254_HZ) + n, I8254_HZ) - now);
}

static void program(struct bench *b, unsigned ch, unsigned mode, unsigned count)
{
    out8(&b->k, 0x43, (uint8_t)(ch << 6 | 3 << 4 | mode << 1));
    out8(&b->k, (uint16_t)(0x40 + ch), (uint8_t)count);
    out8(&b->k, (uint16_t)(0x40 + ch), (uint8_t)(count >> 8));
}

static unsigned count(struct bench *b, unsigned ch)
{
    out8(&b->k, 0x43, (uint8_t)(ch << 6));
    unsigned low = in8(&b->k, (uint16_t)(0x40 + ch));
    return low | (unsigned)in8(&b->k, (uint16_t)(0x40 + ch)) << 8;
}

static uint8_t status(struct bench *b, unsigned ch)
{
    out8(&b->k, 0x43, (uint8_t)(0xe0 | 2u << ch)); /* read-back, status only */
    return in8(&b->k, (uint16_t)(0x40 + ch));
}

static bool out2(struct bench *b) { return in8(&b->k, 0x61) & 0x20; }

static void mode_0_counts_down_once(void **s)
{
    struct bench *b = *s;
    program(b, 0, 0, 1000);
    assert_false(b->k.irq.level);
    b->k.irq.rises = 0;
    assert_int_equal(count(b, 0), 1000);
    ticks(b, 400);
    assert_int_equal(count(b, 0), 600);
    assert_int_equal(status(b, 0), 0x30);
    ticks(b, 599);
    assert_int_equal(b->k.irq.rises, 0);
    ticks(b, 1);
    assert_int_equal(b->k.irq.rises, 1);
    assert_int_equal(status(b, 0), 0xb0);
    ticks(b, 10);
    assert_int_equal(count(b, 0), 0xfff6); /* counts on from 0 */
    pass(&b->k, SEC);
    assert_int_equal(b->k.irq.rises, 1);
    /* The first byte of a new count stops counting and takes OUT low. */
    out8(&b->k, 0x40, 5);
    assert_int_equal(status(b, 0) & 0xc0, 0x40);
    out8(&b->k, 0x40, 0);
    ticks(b, 5);
    assert_int_equal(b->k.irq.rises, 2);
}

static void mode_2_divides(void **s)
{
    struct bench *b = *s;
    program(b, 0, 2, 11932); /* 100 Hz */
    b->k.irq.rises = 0;
    pass(&b->k, SEC);
    assert_in_range(b->k.irq.rises, 99, 100);
    pass(&b->k, 99 * SEC);
    assert_in_range(b->k.irq.rises, 9998, 10000); /* 1193182 / 11932 = 99.9985 Hz: no drift of ours */
    program(b, 2, 2, 5);
    out8(&b->k, 0x61, 1);
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(count(b, 2), 5 - i % 5);
        assert_int_equal(out2(b), i % 5 != 4); /* low for the last tick, when 1 is counted */
        ticks(b, 1);
    }
}

static void a_new_count_waits_for_the_period_to_end(void **s)
{
    struct bench *b = *s;
    program(b, 0, 2, 1000);
    b->k.irq.rises = 0;
    ticks(b, 300);
    out8(&b->k, 0x40, 100), out8(&b->k, 0x40, 0);
    assert_int_equal(status(b, 0) & 0x40, 0x40); /* null count: not loaded yet */
    assert_int_equal(count(b, 0), 700);
    ticks(b, 699);
    assert_int_equal(b->k.irq.rises, 0);
    ticks(b, 1);
    assert_int_equal(b->k.irq.rises, 1);
    assert_int_equal(status(b, 0) & 0x40, 0);
    ticks(b, 100);
    assert_int_equal(b->k.irq.rises, 2);
    ticks(b, 50);
    assert_int_equal(count(b, 0), 50);
}

static void mode_3_is_a_square_wave(void **s)
{
    struct bench *b = *s;
    out8(&b->k, 0x61, 1);
    program(b, 2, 3, 6);
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(out2(b), i % 6 < 3);
        assert_int_equal(count(b, 2), 6 - 2 * (i % 3));
        ticks(b, 1);
    }
    program(b, 2, 3, 5); /* odd: high one tick longer */
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(out2(b), i % 5 < 3);
        ticks(b, 1);
    }
}

static void the_gate_of_channel_2(void **s)
{
    struct bench *b = *s;
    out8(&b->k, 0x61, 0);
    program(b, 2, 0, 100);
    ticks(b, 50);
    assert_int_equal(count(b, 2), 100);
    out8(&b->k, 0x61, 1);
    ticks(b, 40);
    out8(&b->k, 0x61, 0);
    ticks(b, 1000);
    assert_int_equal(count(b, 2), 60);
    out8(&b->k, 0x61, 1);
    ticks(b, 59);
    assert_false(out2(b));
    ticks(b, 1);
    assert_true(out2(b));
    /* Mode 1: a one-shot that the gate's rising edge triggers, and triggers again. */
    out8(&b->k, 0x61, 0);
    program(b, 2, 1, 10);
    ticks(b, 20);
    assert_true(out2(b));
    out8(&b->k, 0x61, 1);
    assert_false(out2(b));
    ticks(b, 6);
    out8(&b->k, 0x61, 0), out8(&b->k, 0x61, 1);
    ticks(b, 9);
    assert_false(out2(b));
    ticks(b, 1);
    assert_true(out2(b));
    /* Mode 2: gate low forces OUT high; its edge starts the period anew. */
    program(b, 2, 2, 10);
    ticks(b, 9);
    assert_false(out2(b));
    out8(&b->k, 0x61, 0);
    assert_true(out2(b));
    out8(&b->k, 0x61, 1);
    assert_int_equal(count(b, 2), 10);
}

static void strobes(void **s)
{
    struct bench *b = *s;
    out8(&b->k, 0x61, 1);
    program(b, 2, 4, 10);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(out2(b), i != 10);
        ticks(b, 1);
    }
    program(b, 2, 5, 10);
    out8(&b->k, 0x61, 0), out8(&b->k, 0x61, 1);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(out2(b), i != 10);
        ticks(b, 1);
    }
}

static void a_software_strobe_interrupts(void **s)
{
    struct bench *b = *s;
    pass(&b->k, MS);
    program(b, 0, 4, 10);
    b->k.irq.rises = 0;
    ticks(b, 10);
    assert_int_equal(b->k.irq.rises, 0); /* OUT is low for this tick */
    ticks(b, 1);
    assert_int_equal(b->k.irq.rises, 1);
    pass(&b->k, SEC);
    assert_int_equal(b->k.irq.rises, 1);
}

static void bcd_and_byte_modes(void **s)
{
    struct bench *b = *s;
    out8(&b->k, 0x61, 1);
    out8(&b->k, 0x43, 0xb1);                          /* channel 2, both bytes, mode 0, BCD */
    out8(&b->k, 0x42, 0x00), out8(&b->k, 0x42, 0x10); /* 1000 */
    ticks(b, 1);
    assert_int_equal(count(b, 2), 0x0999);
    ticks(b, 1000);
    assert_int_equal(count(b, 2), 0x9999);
    out8(&b->k, 0x43, 0x90); /* least significant byte only */
    out8(&b->k, 0x42, 200);
    ticks(b, 50);
    assert_int_equal(in8(&b->k, 0x42), 150);
    assert_int_equal(in8(&b->k, 0x42), 150);
    out8(&b->k, 0x43, 0xa0); /* most significant byte only */
    out8(&b->k, 0x42, 2);
    ticks(b, 1);
    assert_int_equal(in8(&b->k, 0x42), 1);
    assert_int_equal(status(b, 2), 0x20);
}

static void latches(void **s)
{
    struct bench *b = *s;
    program(b, 0, 2, 0); /* 65536 */
    ticks(b, 1);
    out8(&b->k, 0x43, 0x00);
    ticks(b, 500);
    out8(&b->k, 0x43, 0x00); /* ignored: the first latch is unread */
    assert_int_equal(in8(&b->k, 0x40), 0xff);
    assert_int_equal(in8(&b->k, 0x40), 0xff);
    assert_int_equal(count(b, 0), 65536 - 501);
    /* Read-back of everything: status comes first, then the count. */
    out8(&b->k, 0x43, 0xce);
    assert_int_equal(in8(&b->k, 0x40), 0xb4);
    assert_int_equal(in8(&b->k, 0x40), (65536 - 501) & 0xff);
    assert_int_equal(in8(&b->k, 0x40), (65536 - 501) >> 8);
    assert_int_equal(in8(&b->k, 0x43), 0xff);
}

static void nobody_looks_nobody_wakes(void **s)
{
    struct bench *b = *s;
    b->masked = true;
    program(b, 0, 2, 1193);
    b->k.irq.rises = 0;
    assert_true(clock_next_deadline(b->k.clk) == UINT64_MAX);
    pass(&b->k, SEC);
    b->masked = false;
    i8254_irq_observed(b->pit);
    assert_int_equal(b->k.irq.rises, 1); /* one tick is remembered */
    pass(&b->k, 100 * MS);
    assert_in_range(b->k.irq.rises, 100, 102);
    b->masked = true;
    pass(&b->k, 10 * MS); /* the armed one comes, then silence */
    assert_true(clock_next_deadline(b->k.clk) == UINT64_MAX);
}

static void late_ticks(void **s)
{
    struct bench *b = *s;
    program(b, 0, 2, 1193); /* 1 kHz */
    b->k.irq.rises = 0;
    /* The host is three periods late now and then: the average stays. */
    for (unsigned i = 0; i < 100; i++) {
        oversleep(&b->k, 3 * MS);
        pass(&b->k, 7 * MS);
    }
    assert_in_range(b->k.irq.rises, 998, 1001);
    /* A long sleep is not made up for. */
    oversleep(&b->k, 60 * SEC);
    b->k.irq.rises = 0;
    pass(&b->k, 100 * MS);
    assert_in_range(b->k.irq.rises, 99, 110);
    /* The shortest period is no storm. */
    program(b, 0, 2, 1);
    b->k.irq.rises = 0;
    pass(&b->k, 10 * MS);
    assert_in_range(b->k.irq.rises, 1, 1001);
}

static void port_61(void **s)
{
    struct bench *b = *s;
    out8(&b->k, 0x61, 0xff);
    assert_int_equal(in8(&b->k, 0x61) & 0xcf, 0x0f);
    unsigned toggles = 0;
    uint8_t last = in8(&b->k, 0x61) & 0x10;
    for (unsigned i = 0; i < 15085; i++) { /* 1 us steps for 1000 refreshes */
        pass(&b->k, 1 * US);
        uint8_t now = in8(&b->k, 0x61) & 0x10;
        toggles += now != last;
        last = now;
    }
    assert_in_range(toggles, 999, 1001);
}

static void state_moves(void **s)
{
    struct bench *b = *s, other = { 0 };
    struct error e = { 0 };
    program(b, 0, 2, 2000);
    program(b, 2, 1, 77);
    ticks(b, 4711);
    chip_kit_open(&other.k);
    other.pit = i8254_create(other.k.bus, other.k.clk, probe_line(&other.k.irq), (struct irq_watch){ 0 }, &e);
    clock_skip_to(other.k.clk, clock_now(b->k.clk));
    struct state_object from = i8254_state_object(b->pit), to = i8254_state_object(other.pit);
    copy_state(&from, &to);
    i8254_loaded(other.pit);
    assert_true(clock_next_deadline(other.k.clk) == clock_next_deadline(b->k.clk));
    pass(&b->k, 12345 * US), pass(&other.k, 12345 * US);
    assert_int_equal(count(b, 0), count(&other, 0));
    assert_true(state_hash(&from, 0) == state_hash(&to, 0));
    i8254_destroy(other.pit);
    chip_kit_close(&other.k);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(mode_0_counts_down_once),
        T(mode_2_divides),
        T(a_new_count_waits_for_the_period_to_end),
        T(mode_3_is_a_square_wave),
        T(the_gate_of_channel_2),
        T(strobes),
        T(a_software_strobe_interrupts),
        T(bcd_and_byte_modes),
        T(latches),
        T(nobody_looks_nobody_wakes),
        T(late_ticks),
        T(port_61),
        T(state_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
