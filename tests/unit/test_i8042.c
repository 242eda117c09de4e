/* SPDX-License-Identifier: Apache-2.0 */
/* The keyboard controller and its devices, as kernels probe them (IBM PS/2 Hardware Interface Technical
 * Reference). */
#include "chip_kit.h"

#include "device/i8042.h"
#include "device/port92.h"

struct bench {
    struct chip_kit k;
    struct i8042 *kbc;
    struct port92 *p92;
    struct probe a20, reset;
};

static int setup(void **s)
{
    static struct bench b;
    struct error e = { 0 };
    b = (struct bench){ 0 };
    chip_kit_open(&b.k);
    b.p92 = port92_create(b.k.bus, probe_line(&b.a20), probe_line(&b.reset), &e);
    b.kbc = i8042_create(b.k.bus, probe_line(&b.k.irq), probe_line(&b.k.other),
                         (struct line){ port92_set_a20, b.p92, 0 }, probe_line(&b.reset), &e);
    assert_non_null(b.kbc);
    *s = &b;
    return 0;
}

static int teardown(void **s)
{
    struct bench *b = *s;
    i8042_destroy(b->kbc);
    port92_destroy(b->p92);
    chip_kit_close(&b->k);
    return 0;
}

static void command(struct bench *b, uint8_t val) { out8(&b->k, 0x64, val); }
static void data(struct bench *b, uint8_t val) { out8(&b->k, 0x60, val); }

/* The next byte has to be there, from the keyboard's side (or the controller) or the mouse's. */
static void gives(struct bench *b, uint8_t val, bool mouse)
{
    assert_int_equal(in8(&b->k, 0x64) & 0x21, mouse ? 0x21 : 0x01);
    assert_int_equal(in8(&b->k, 0x60), val);
}

static void is_silent(struct bench *b) { assert_int_equal(in8(&b->k, 0x64) & 0x21, 0); }

static void mouse(struct bench *b, uint8_t val)
{
    command(b, 0xd4);
    data(b, val);
}

static void controller(void **s)
{
    struct bench *b = *s;
    assert_int_equal(in8(&b->k, 0x64), 0x14);
    command(b, 0xaa);
    assert_int_equal(in8(&b->k, 0x64), 0x1d);
    gives(b, 0x55, false);
    command(b, 0x20);
    gives(b, 0x65, false);
    command(b, 0x60), data(b, 0x47);
    command(b, 0x20);
    gives(b, 0x47, false);
    command(b, 0x65), data(b, 0x99);
    command(b, 0x25);
    gives(b, 0x99, false);
    command(b, 0xab);
    gives(b, 0, false);
    command(b, 0xa9);
    gives(b, 0, false);
    command(b, 0xad);
    command(b, 0x20);
    gives(b, 0x57, false);
    command(b, 0xae), command(b, 0xa7);
    command(b, 0x20);
    gives(b, 0x67, false);
    command(b, 0xa8);
    command(b, 0x20);
    gives(b, 0x47, false);
    command(b, 0xd3), data(b, 0x5a); /* how Linux looks for the mouse port */
    gives(b, 0x5a, true);
    command(b, 0xd2), data(b, 0xa5);
    gives(b, 0xa5, false);
    is_silent(b);
}

static void keyboard(void **s)
{
    struct bench *b = *s;
    data(b, 0xff);
    assert_int_equal(b->k.irq.rises, 1);
    gives(b, 0xfa, false);
    assert_int_equal(b->k.irq.rises, 2); /* an edge each byte */
    gives(b, 0xaa, false);
    assert_false(b->k.irq.level);
    data(b, 0xf2);
    gives(b, 0xfa, false), gives(b, 0xab, false), gives(b, 0x41, false); /* translated 0x83 */
    command(b, 0x60), data(b, 0x05);
    data(b, 0xf2);
    gives(b, 0xfa, false), gives(b, 0xab, false), gives(b, 0x83, false);
    data(b, 0xed);
    gives(b, 0xfa, false);
    data(b, 0x07);
    gives(b, 0xfa, false);
    data(b, 0xf0), gives(b, 0xfa, false), data(b, 0), gives(b, 0xfa, false), gives(b, 2, false);
    data(b, 0xf0), gives(b, 0xfa, false), data(b, 1), gives(b, 0xfa, false);
    data(b, 0xf0), gives(b, 0xfa, false), data(b, 0), gives(b, 0xfa, false), gives(b, 1, false);
    data(b, 0xfe), gives(b, 1, false);
    data(b, 0xee), gives(b, 0xee, false);
    data(b, 0xf4), gives(b, 0xfa, false);
    data(b, 0x12), gives(b, 0xfe, false);
    /* Disabled: it keeps its answer. Interrupt off: the byte comes silently. */
    b->k.irq.rises = 0;
    command(b, 0x60), data(b, 0x04);
    data(b, 0xee);
    gives(b, 0xee, false);
    assert_int_equal(b->k.irq.rises, 0);
    for (unsigned i = 0; i < 100; i++) /* nobody reads: bounded */
        data(b, 0xee);
    for (unsigned i = 0; i < 17; i++)
        gives(b, 0xee, false);
    is_silent(b);
}

static void a_mouse(void **s)
{
    struct bench *b = *s;
    command(b, 0x60), data(b, 0x47);
    mouse(b, 0xff);
    assert_int_equal(b->k.other.rises, 1);
    gives(b, 0xfa, true), gives(b, 0xaa, true), gives(b, 0x00, true);
    mouse(b, 0xf2);
    gives(b, 0xfa, true), gives(b, 0x00, true);
    mouse(b, 0xf3), gives(b, 0xfa, true), mouse(b, 200), gives(b, 0xfa, true);
    mouse(b, 0xe8), gives(b, 0xfa, true), mouse(b, 3), gives(b, 0xfa, true);
    mouse(b, 0xe7), gives(b, 0xfa, true), mouse(b, 0xf4), gives(b, 0xfa, true);
    mouse(b, 0xe9);
    gives(b, 0xfa, true), gives(b, 0x30, true), gives(b, 3, true), gives(b, 200, true);
    mouse(b, 0xeb);
    gives(b, 0xfa, true), gives(b, 8, true), gives(b, 0, true), gives(b, 0, true);
    mouse(b, 0x11);
    gives(b, 0xfe, true);
    is_silent(b);
    assert_int_equal(b->k.irq.rises, 0);
}

static void a20_and_reset(void **s)
{
    struct bench *b = *s;
    assert_true(b->a20.level);
    command(b, 0xd1), data(b, 0xcd); /* A20 off */
    assert_false(b->a20.level);
    assert_int_equal(in8(&b->k, 0x92) & 2, 0); /* both ports show the same gate */
    command(b, 0xd0);
    gives(b, 0xcd, false);
    command(b, 0xdf);
    assert_true(b->a20.level);
    command(b, 0xdd);
    assert_false(b->a20.level);
    out8(&b->k, 0x92, 2);
    assert_true(b->a20.level);
    out8(&b->k, 0x92, 0);
    assert_false(b->a20.level);
    assert_int_equal(b->reset.rises, 0);
    command(b, 0xf0 | 0xf), assert_int_equal(b->reset.rises, 0);
    command(b, 0xfe), assert_int_equal(b->reset.rises, 1);
    command(b, 0xd1), data(b, 0xfe), assert_int_equal(b->reset.rises, 2);
    out8(&b->k, 0x92, 1), assert_int_equal(b->reset.rises, 3);
    out8(&b->k, 0x92, 1), assert_int_equal(b->reset.rises, 3);
    port92_reset(b->p92);
    assert_true(b->a20.level);
    assert_int_equal(in8(&b->k, 0x92), 2);
}

static void state_moves(void **s)
{
    struct bench *b = *s, other = { 0 };
    struct error e = { 0 };
    data(b, 0xf2);
    in8(&b->k, 0x60);
    command(b, 0xd1);
    chip_kit_open(&other.k);
    other.p92 = port92_create(other.k.bus, probe_line(&other.a20), probe_line(&other.reset), &e);
    other.kbc = i8042_create(other.k.bus, probe_line(&other.k.irq), probe_line(&other.k.other),
                             (struct line){ port92_set_a20, other.p92, 0 }, probe_line(&other.reset), &e);
    struct state_object from = i8042_state_object(b->kbc), to = i8042_state_object(other.kbc);
    copy_state(&from, &to);
    i8042_loaded(other.kbc);
    assert_true(other.k.irq.level);
    data(&other, 0xcd);
    assert_false(other.a20.level);
    gives(&other, 0xab, false), gives(&other, 0x41, false);
    from = port92_state_object(other.p92), to = port92_state_object(b->p92);
    copy_state(&from, &to);
    port92_loaded(b->p92);
    assert_false(b->a20.level);
    i8042_reset(other.kbc);
    is_silent(&other);
    i8042_destroy(other.kbc);
    port92_destroy(other.p92);
    chip_kit_close(&other.k);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { T(controller), T(keyboard), T(a_mouse), T(a20_and_reset),
                                        T(state_moves) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
