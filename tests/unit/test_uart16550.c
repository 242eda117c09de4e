/* SPDX-License-Identifier: Apache-2.0 */
/* The 16550A, against its data sheet (PC16550D). */
#include "chip_kit.h"

#include "device/uart16550.h"

#define BASE 0x3f8

struct bench {
    struct chip_kit k;
    struct uart16550 *u;
    char out[64];
    unsigned nout, rooms;
};

static void transmit(void *ctx, uint8_t byte)
{
    struct bench *b = ctx;
    b->out[b->nout++ % sizeof(b->out)] = (char)byte;
}

static void room(void *ctx) { ((struct bench *)ctx)->rooms++; }

static int setup(void **s)
{
    static struct bench b;
    struct error e = { 0 };
    b = (struct bench){ 0 };
    chip_kit_open(&b.k);
    const struct uart16550_config cfg = {
        .base = BASE, .irq = probe_line(&b.k.irq), .ctx = &b, .transmit = transmit, .room = room
    };
    b.u = uart16550_create(b.k.bus, &cfg, 0, &e);
    assert_non_null(b.u);
    *s = &b;
    return 0;
}

static int teardown(void **s)
{
    struct bench *b = *s;
    uart16550_destroy(b->u);
    chip_kit_close(&b->k);
    return 0;
}

static uint8_t get(struct bench *b, unsigned reg) { return in8(&b->k, (uint16_t)(BASE + reg)); }
static void set(struct bench *b, unsigned reg, uint8_t val) { out8(&b->k, (uint16_t)(BASE + reg), val); }

static bool type(struct bench *b, uint8_t byte)
{
    if (!uart16550_reserve(b->u))
        return false;
    uart16550_receive(b->u, byte);
    return true;
}

static void at_reset(void **s)
{
    struct bench *b = *s;
    assert_int_equal(get(b, 1), 0);
    assert_int_equal(get(b, 2), 0x01);
    assert_int_equal(get(b, 3), 0);
    assert_int_equal(get(b, 4), 0);
    assert_int_equal(get(b, 5), 0x60);
    assert_int_equal(get(b, 6), 0xb0); /* a terminal that is there and ready */
    set(b, 7, 0xa5);
    assert_int_equal(get(b, 7), 0xa5);
    set(b, 1, 0xff);
    assert_int_equal(get(b, 1), 0x0f);
    set(b, 4, 0xff);
    assert_int_equal(get(b, 4), 0x1f);
    set(b, 3, 0x83);
    set(b, 0, 0x0c), set(b, 1, 0x34);
    assert_int_equal(get(b, 0), 0x0c);
    assert_int_equal(get(b, 1), 0x34);
    set(b, 3, 0x03);
    assert_int_equal(get(b, 1), 0x0f);
    assert_int_equal(b->nout, 0);
}

static void transmission(void **s)
{
    struct bench *b = *s;
    set(b, 0, 'h'), set(b, 0, 'i');
    assert_int_equal(b->nout, 2);
    assert_memory_equal(b->out, "hi", 2);
    assert_int_equal(get(b, 5), 0x60);
    set(b, 1, 0x02); /* enabling THRE interrupts at once */
    assert_true(b->k.irq.level);
    assert_int_equal(get(b, 2), 0x02); /* reading it as the source takes it back */
    assert_false(b->k.irq.level);
    assert_int_equal(get(b, 2), 0x01);
    set(b, 0, '!');
    assert_true(b->k.irq.level);
    set(b, 1, 0x00);
    assert_false(b->k.irq.level);
}

static void reception(void **s)
{
    struct bench *b = *s;
    set(b, 1, 0x01);
    assert_true(type(b, 'x'));
    assert_true(b->k.irq.level);
    assert_int_equal(get(b, 2), 0x04);
    assert_int_equal(get(b, 5), 0x61);
    assert_int_equal(get(b, 0), 'x');
    assert_false(b->k.irq.level);
    assert_int_equal(get(b, 5), 0x60);
    /* Never an overrun, with or without FIFO: who sends waits. */
    for (unsigned fifo = 0; fifo < 2; fifo++) {
        set(b, 2, (uint8_t)fifo);
        unsigned n = 0, rooms = b->rooms;
        while (type(b, (uint8_t)n))
            n++;
        assert_int_equal(n, 16);
        assert_int_equal(get(b, 0), 0);
        assert_int_equal(b->rooms, rooms + 1);
        assert_true(type(b, 16));
        for (unsigned i = 1; i <= 16; i++) {
            assert_int_equal(get(b, 5), 0x61);
            assert_int_equal(get(b, 0), i);
        }
        assert_int_equal(get(b, 5), 0x60);
    }
}

static void fifo_triggers(void **s)
{
    struct bench *b = *s;
    static const uint8_t levels[] = { 1, 4, 8, 14 };
    set(b, 1, 0x01);
    for (unsigned t = 0; t < 4; t++) {
        set(b, 2, (uint8_t)(t << 6 | 3));
        assert_int_equal(get(b, 2), 0xc1);
        for (unsigned i = 1; i <= 16; i++) {
            assert_true(type(b, 0));
            assert_int_equal(get(b, 2),
                             i >= levels[t] ? 0xc4 : 0xcc); /* below the level: character timeout */
        }
    }
    set(b, 2, 0x02); /* needs bit 0 to mean anything; turning the FIFO off empties it, too */
    assert_int_equal(get(b, 2), 0x01);
    assert_int_equal(get(b, 5), 0x60);
}

static void reservations_survive_resets(void **s)
{
    struct bench *b = *s;
    set(b, 4, 0x03);
    for (unsigned i = 0; i < 10; i++)
        assert_true(uart16550_reserve(b->u));
    for (unsigned i = 0; i < 6; i++)
        assert_true(type(b, 1));
    assert_false(uart16550_reserve(b->u));
    set(b, 2, 3);
    for (unsigned i = 0; i < 10; i++)
        uart16550_receive(b->u, 2);
    unsigned n = 0;
    while (get(b, 5) & 1)
        n += get(b, 0) == 2;
    assert_int_equal(n, 10);
    assert_int_equal(get(b, 5), 0x60); /* no overrun */
}

static void loopback(void **s)
{
    struct bench *b = *s;
    set(b, 2, 0x01);
    set(b, 4, 0x10);
    assert_int_equal(get(b, 6), 0x0b); /* CTS, DSR, DCD fell */
    assert_int_equal(get(b, 6), 0x00);
    set(b, 4, 0x1f);
    assert_int_equal(get(b, 6), 0xfb); /* all up; a rising RI is no event */
    set(b, 4, 0x1b);
    assert_int_equal(get(b, 6), 0xb4); /* its fall is */
    set(b, 0, 'q');
    assert_int_equal(b->nout, 0);
    assert_int_equal(get(b, 5), 0x61);
    assert_int_equal(get(b, 0), 'q');
    assert_false(uart16550_reserve(b->u)); /* the outside is cut off */
    for (unsigned i = 0; i < 17; i++)
        set(b, 0, (uint8_t)i);
    assert_int_equal(get(b, 5), 0x63); /* overrun */
    assert_int_equal(get(b, 5), 0x61);
    set(b, 2, 0x03);
    set(b, 3, 0x40); /* break */
    assert_int_equal(get(b, 5), 0x71);
    set(b, 4, 0x02);
    get(b, 0);
    assert_true(type(b, 'z'));
}

/* What is typed before anybody listens waits outside, where no driver's emptying of the FIFO can lose it. */
static void early_input_waits(void **s)
{
    static const struct {
        uint8_t mcr, ier;
        bool open;
    } cases[] = {
        { 0x00, 0x00, false }, { 0x00, 0x01, true }, /* no modem control: the interrupt tells */
        { 0x01, 0x01, false },                       /* DTR without RTS: not yet */
        { 0x02, 0x00, true },  { 0x0b, 0x01, true }, { 0x12, 0x01, false }, /* loopback */
    };
    struct bench *b = *s;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned rooms = b->rooms;
        set(b, 4, 0x10); /* closed */
        set(b, 1, cases[i].ier);
        set(b, 4, cases[i].mcr);
        assert_int_equal(b->rooms - rooms, cases[i].open); /* who waits is told */
        assert_int_equal(type(b, 'x'), cases[i].open);
        get(b, 0);
    }
}

static void polling_is_listening(void **s)
{
    struct bench *b = *s;
    for (unsigned i = 0; i < 4; i++)
        get(b, 5), set(b, 0, '.'); /* one who prints looks at LSR, too */
    assert_false(type(b, 'x'));
    get(b, 5);
    assert_false(type(b, 'x'));
    get(b, 5);
    assert_int_equal(b->rooms, 1);
    assert_true(type(b, 'x'));
    assert_int_equal(get(b, 0), 'x');
    set(b, 7, 1);
    assert_true(type(b, 'y'));
}

static void priorities(void **s)
{
    struct bench *b = *s;
    set(b, 1, 0x0f);
    set(b, 4, 0x10), set(b, 4, 0x12); /* modem lines move */
    for (unsigned i = 0; i < 17; i++)
        set(b, 0, 0);
    assert_int_equal(get(b, 2), 0x06); /* line status */
    get(b, 5);
    assert_int_equal(get(b, 2), 0x04); /* data */
    for (unsigned i = 0; i < 16; i++)
        get(b, 0);
    assert_int_equal(get(b, 2), 0x02); /* transmitter */
    assert_int_equal(get(b, 2), 0x00); /* modem */
    assert_true(b->k.irq.level);
    get(b, 6);
    assert_int_equal(get(b, 2), 0x01);
    assert_false(b->k.irq.level);
}

static void state_moves(void **s)
{
    struct bench *b = *s, other = { 0 };
    struct error e = { 0 };
    set(b, 1, 0x01), set(b, 2, 0x41);
    type(b, 'a'), type(b, 'b');
    get(b, 0);
    chip_kit_open(&other.k);
    const struct uart16550_config cfg = { .base = BASE, .irq = probe_line(&other.k.irq) };
    other.u = uart16550_create(other.k.bus, &cfg, 0, &e);
    struct state_object from = uart16550_state_object(b->u), to = uart16550_state_object(other.u);
    copy_state(&from, &to);
    uart16550_loaded(other.u);
    assert_true(other.k.irq.level);
    for (unsigned i = 0; i < 15; i++)
        assert_true(uart16550_reserve(other.u));
    assert_false(uart16550_reserve(other.u));
    assert_int_equal(get(&other, 0), 'b');
    uart16550_destroy(other.u);
    chip_kit_close(&other.k);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(at_reset),          T(transmission),         T(reception),
        T(early_input_waits), T(polling_is_listening), T(fifo_triggers),
        T(loopback),          T(priorities),           T(reservations_survive_resets),
        T(state_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
