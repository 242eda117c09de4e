/* SPDX-License-Identifier: Apache-2.0 */
/* The 8259A pair, against its data sheet (Intel 231468). */
#include "chip_kit.h"

#include "device/i8259.h"

#define M_CMD 0x20
#define M_DATA 0x21
#define S_CMD 0xa0
#define S_DATA 0xa1

struct bench {
    struct chip_kit k;
    struct i8259 *pic;
    unsigned observed;
};

static void observed(void *ctx) { ((struct bench *)ctx)->observed++; }

/* As kernels set the pair up: vectors 0x20 and 0x28, nothing masked. `icw4` for both. */
static void init(struct bench *b, uint8_t icw4)
{
    struct chip_kit *k = &b->k;
    out8(k, M_CMD, 0x11), out8(k, M_DATA, 0x20), out8(k, M_DATA, 4), out8(k, M_DATA, icw4);
    out8(k, S_CMD, 0x11), out8(k, S_DATA, 0x28), out8(k, S_DATA, 2), out8(k, S_DATA, icw4);
}

static int setup(void **s)
{
    static struct bench b;
    struct error e = { 0 };
    b = (struct bench){ 0 };
    chip_kit_open(&b.k);
    const struct i8259_config cfg = { .intr = probe_line(&b.k.irq), .inputs_observed = observed, .ctx = &b };
    b.pic = i8259_create(b.k.bus, &cfg, &e);
    assert_non_null(b.pic);
    init(&b, 1);
    *s = &b;
    return 0;
}

static int teardown(void **s)
{
    struct bench *b = *s;
    i8259_destroy(b->pic);
    chip_kit_close(&b->k);
    return 0;
}

static void raise(struct bench *b, unsigned irq) { i8259_set_irq(b->pic, irq, true); }
static void lower(struct bench *b, unsigned irq) { i8259_set_irq(b->pic, irq, false); }
static void edge(struct bench *b, unsigned irq) { lower(b, irq), raise(b, irq); }

static uint8_t isr(struct bench *b, uint16_t cmd)
{
    out8(&b->k, cmd, 0x0b);
    return in8(&b->k, cmd);
}

static uint8_t irr(struct bench *b, uint16_t cmd)
{
    out8(&b->k, cmd, 0x0a);
    return in8(&b->k, cmd);
}

static void an_edge_interrupts_once(void **s)
{
    struct bench *b = *s;
    assert_false(b->k.irq.level);
    raise(b, 4);
    assert_true(b->k.irq.level);
    assert_int_equal(irr(b, M_CMD), 0x10);
    assert_int_equal(i8259_ack(b->pic), 0x24);
    assert_false(b->k.irq.level);
    assert_int_equal(isr(b, M_CMD), 0x10);
    assert_int_equal(irr(b, M_CMD), 0);
    out8(&b->k, M_CMD, 0x20);
    assert_int_equal(isr(b, M_CMD), 0);
    assert_false(b->k.irq.level); /* the line is still up: no new edge */
    edge(b, 4);
    assert_true(b->k.irq.level);
}

static void priorities_nest(void **s)
{
    struct bench *b = *s;
    raise(b, 4);
    raise(b, 1);
    assert_int_equal(i8259_ack(b->pic), 0x21);
    assert_false(b->k.irq.level); /* 4 waits for 1's end */
    raise(b, 0);
    assert_int_equal(i8259_ack(b->pic), 0x20);
    out8(&b->k, M_CMD, 0x20); /* non-specific: ends 0 */
    assert_int_equal(isr(b, M_CMD), 0x02);
    out8(&b->k, M_CMD, 0x61); /* specific: ends 1 */
    assert_int_equal(i8259_ack(b->pic), 0x24);
}

static void the_slave_comes_through_input_2(void **s)
{
    struct bench *b = *s;
    raise(b, 8);
    raise(b, 5);
    assert_int_equal(irr(b, M_CMD), 0x24);
    assert_int_equal(i8259_ack(b->pic), 0x28);
    assert_int_equal(isr(b, M_CMD), 0x04);
    assert_int_equal(isr(b, S_CMD), 0x01);
    /* Higher slave requests wait too, unless specially fully nested: the master's input 2 is in service. */
    raise(b, 12);
    assert_false(b->k.irq.level);
    out8(&b->k, S_CMD, 0x20);
    assert_false(b->k.irq.level);
    out8(&b->k, M_CMD, 0x20);
    assert_int_equal(i8259_ack(b->pic), 0x2c);
}

static void special_fully_nested(void **s)
{
    struct bench *b = *s;
    init(b, 0x11);
    raise(b, 12);
    assert_int_equal(i8259_ack(b->pic), 0x2c);
    raise(b, 8);
    assert_true(b->k.irq.level);
    assert_int_equal(i8259_ack(b->pic), 0x28);
}

static void masks(void **s)
{
    struct bench *b = *s;
    out8(&b->k, M_DATA, 0x10);
    assert_int_equal(in8(&b->k, M_DATA), 0x10);
    raise(b, 4);
    assert_false(b->k.irq.level);
    assert_false(i8259_unmasked(b->pic, 4));
    unsigned before = b->observed;
    out8(&b->k, M_DATA, 0);
    assert_true(b->observed > before);
    assert_true(b->k.irq.level); /* the edge was remembered */
    out8(&b->k, M_DATA, 0x04);
    assert_false(i8259_unmasked(b->pic, 8)); /* by the cascade */
    assert_true(i8259_unmasked(b->pic, 4));
}

static void spurious(void **s)
{
    struct bench *b = *s;
    raise(b, 4);
    out8(&b->k, M_DATA, 0xff); /* goes away between INTR and INTA */
    assert_int_equal(i8259_ack(b->pic), 0x27);
    assert_int_equal(isr(b, M_CMD), 0); /* no service bit: needs no EOI */
}

static void auto_eoi_and_rotation(void **s)
{
    struct bench *b = *s;
    init(b, 3);
    raise(b, 4);
    assert_int_equal(i8259_ack(b->pic), 0x24);
    assert_int_equal(isr(b, M_CMD), 0);
    out8(&b->k, M_CMD, 0x80); /* rotate in automatic EOI mode */
    edge(b, 4);
    assert_int_equal(i8259_ack(b->pic), 0x24);
    edge(b, 4), edge(b, 5);
    assert_int_equal(i8259_ack(b->pic), 0x25); /* 4 is the lowest now */
}

static void rotation_by_command(void **s)
{
    struct bench *b = *s;
    out8(&b->k, M_CMD, 0xc3); /* 3 lowest, 4 highest */
    raise(b, 0), raise(b, 4);
    assert_int_equal(i8259_ack(b->pic), 0x24);
    out8(&b->k, M_CMD, 0xa0); /* rotate on non-specific EOI: 5 highest */
    edge(b, 4), raise(b, 5);
    assert_int_equal(i8259_ack(b->pic), 0x25);
    out8(&b->k, M_CMD, 0xe5); /* rotate on specific EOI */
    edge(b, 5);
    assert_int_equal(i8259_ack(b->pic), 0x20);
}

static void special_mask_mode(void **s)
{
    struct bench *b = *s;
    raise(b, 1);
    assert_int_equal(i8259_ack(b->pic), 0x21);
    out8(&b->k, M_CMD, 0x68);  /* set special mask mode */
    out8(&b->k, M_DATA, 0x02); /* mask the one in service: lower ones get through */
    raise(b, 6);
    assert_int_equal(i8259_ack(b->pic), 0x26);
    out8(&b->k, M_CMD, 0x20);
    assert_int_equal(isr(b, M_CMD), 0x02); /* a masked service bit is not ended by non-specific EOI */
    out8(&b->k, M_CMD, 0x48);
    raise(b, 7);
    assert_false(b->k.irq.level);
}

static void polling(void **s)
{
    struct bench *b = *s;
    out8(&b->k, M_CMD, 0x0c);
    assert_int_equal(in8(&b->k, M_CMD), 0x00);
    raise(b, 3);
    out8(&b->k, M_CMD, 0x0c);
    assert_int_equal(in8(&b->k, M_CMD), 0x83);
    assert_int_equal(isr(b, M_CMD), 0x08);
}

static void level_triggered(void **s)
{
    struct bench *b = *s;
    out8(&b->k, 0x4d0, 0xff);
    out8(&b->k, 0x4d1, 0xff);
    assert_int_equal(in8(&b->k, 0x4d0), 0xf8);
    assert_int_equal(in8(&b->k, 0x4d1), 0xde);
    raise(b, 10);
    assert_int_equal(i8259_ack(b->pic), 0x2a);
    out8(&b->k, S_CMD, 0x20), out8(&b->k, M_CMD, 0x20);
    assert_true(b->k.irq.level); /* still asserted: again */
    lower(b, 10);
    assert_false(b->k.irq.level);
    assert_int_equal(irr(b, S_CMD), 0);
}

static void initialisation_words(void **s)
{
    struct bench *b = *s;
    raise(b, 4);
    out8(&b->k, M_CMD, 0x13); /* single: no ICW3 */
    out8(&b->k, M_DATA, 0x47);
    out8(&b->k, M_DATA, 0x01);
    out8(&b->k, M_DATA, 0xaa); /* mask already */
    assert_int_equal(in8(&b->k, M_DATA), 0xaa);
    out8(&b->k, M_DATA, 0);
    assert_false(b->k.irq.level); /* edges are sensed anew */
    edge(b, 4);
    assert_int_equal(i8259_ack(b->pic), 0x44); /* the low three bits are the input's */
    out8(&b->k, M_CMD, 0x10);                  /* no ICW4 */
    out8(&b->k, M_DATA, 0x50), out8(&b->k, M_DATA, 4), out8(&b->k, M_DATA, 0x55);
    assert_int_equal(in8(&b->k, M_DATA), 0x55);
}

static void state_moves(void **s)
{
    struct bench *b = *s;
    struct bench other = { 0 };
    struct error e = { 0 };
    raise(b, 3), raise(b, 9);
    assert_int_equal(i8259_ack(b->pic), 0x29);
    out8(&b->k, M_CMD, 0x20);
    chip_kit_open(&other.k);
    const struct i8259_config cfg = { .intr = probe_line(&other.k.irq) };
    other.pic = i8259_create(other.k.bus, &cfg, &e);
    struct state_object from = i8259_state_object(b->pic), to = i8259_state_object(other.pic);
    copy_state(&from, &to);
    i8259_loaded(other.pic);
    assert_true(other.k.irq.level);
    assert_int_equal(i8259_ack(other.pic), 0x23);
    i8259_reset(other.pic);
    assert_false(other.k.irq.level);
    i8259_destroy(other.pic);
    chip_kit_close(&other.k);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_edge_interrupts_once),
        T(priorities_nest),
        T(the_slave_comes_through_input_2),
        T(special_fully_nested),
        T(masks),
        T(spurious),
        T(auto_eoi_and_rotation),
        T(rotation_by_command),
        T(special_mask_mode),
        T(polling),
        T(level_triggered),
        T(initialisation_words),
        T(state_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
