/* SPDX-License-Identifier: Apache-2.0 */
/* The I/O APIC, against its data sheet (Intel 290566) and the message format of SDM 3A 10.11. */
#include "chip_kit.h"

#include "device/ioapic.h"

#define BASE 0xfec00000u

struct bench {
    struct chip_kit k;
    struct ioapic *io;
    unsigned sent, observed;
    uint64_t addr;
    uint32_t data;
};

static void sent(void *ctx, uint64_t addr, uint32_t data)
{
    struct bench *b = ctx;
    b->sent++;
    b->addr = addr;
    b->data = data;
}

static void observed(void *ctx) { ((struct bench *)ctx)->observed++; }

static int setup(void **s)
{
    static struct bench b;
    struct error e = { 0 };
    b = (struct bench){ 0 };
    chip_kit_open(&b.k);
    const struct ioapic_config cfg = {
        .base = GPA(BASE), .id = 5, .ctx = &b, .send = sent, .inputs_observed = observed
    };
    b.io = ioapic_create(b.k.bus, &cfg, &e);
    assert_non_null(b.io);
    *s = &b;
    return 0;
}

static int teardown(void **s)
{
    struct bench *b = *s;
    ioapic_destroy(b->io);
    chip_kit_close(&b->k);
    return 0;
}

static uint32_t get(struct bench *b, uint8_t index)
{
    bus_mmio_write(b->k.bus, GPA(BASE), index, 4);
    return (uint32_t)bus_mmio_read(b->k.bus, GPA(BASE + 0x10), 4);
}

static void set(struct bench *b, uint8_t index, uint32_t val)
{
    bus_mmio_write(b->k.bus, GPA(BASE), index, 4);
    bus_mmio_write(b->k.bus, GPA(BASE + 0x10), val, 4);
}

static void entry(struct bench *b, unsigned pin, uint32_t low, uint32_t high)
{
    set(b, (uint8_t)(0x11 + 2 * pin), high);
    set(b, (uint8_t)(0x10 + 2 * pin), low);
}

static void registers(void **s)
{
    struct bench *b = *s;
    assert_int_equal(get(b, 0), 0x05000000);
    assert_int_equal(get(b, 1), 0x00170020); /* 24 entries; version with EOI register */
    set(b, 0, 0xffffffff);
    assert_int_equal(get(b, 0), 0x0f000000);
    assert_int_equal(get(b, 2), 0x0f000000);
    for (unsigned pin = 0; pin < 24; pin++)
        assert_int_equal(get(b, (uint8_t)(0x10 + 2 * pin)), 0x10000); /* masked at reset */
    entry(b, 23, 0xffffffff, 0xffffffff);
    assert_int_equal(get(b, 0x3e), 0x1afff); /* status bits are read-only */
    assert_int_equal(get(b, 0x3f), 0xff000000);
    assert_int_equal(get(b, 0x40), 0xffffffff);
    set(b, 0x40, 0), set(b, 0xff, 0);
    assert_int_equal(bus_mmio_read(b->k.bus, GPA(BASE), 4), 0xff);
    assert_int_equal(bus_mmio_read(b->k.bus, GPA(BASE + 0x20), 4), 0xffffffff);
}

static void edges(void **s)
{
    struct bench *b = *s;
    entry(b, 4, 0x0831, 0x03000000); /* vector 0x31, logical, physical destination 3 */
    assert_true(b->observed);
    ioapic_set_irq(b->io, 4, true);
    assert_int_equal(b->sent, 1);
    assert_true(b->addr == 0xfee03004);
    assert_int_equal(b->data, 0x4031);
    ioapic_set_irq(b->io, 4, true);
    assert_int_equal(b->sent, 1);
    ioapic_set_irq(b->io, 4, false);
    ioapic_set_irq(b->io, 4, true);
    assert_int_equal(b->sent, 2);
    /* An edge at a masked input is lost (3.2.4). */
    ioapic_set_irq(b->io, 4, false);
    entry(b, 4, 0x10031, 0);
    ioapic_set_irq(b->io, 4, true);
    entry(b, 4, 0x0431, 0x01000000); /* NMI */
    assert_int_equal(b->sent, 2);
    ioapic_set_irq(b->io, 4, false);
    ioapic_set_irq(b->io, 4, true);
    assert_true(b->addr == 0xfee01000);
    assert_int_equal(b->data, 0x4431);
    ioapic_set_irq(b->io, 24, true);
    ioapic_set_irq(b->io, 1000, true);
    assert_int_equal(b->sent, 3);
}

static void levels(void **s)
{
    struct bench *b = *s;
    ioapic_set_irq(b->io, 9, true);
    entry(b, 9, 0xa045, 0); /* level, active low: the line says asserted */
    assert_int_equal(b->sent, 1);
    assert_int_equal(b->data, 0xc045);
    assert_int_equal(get(b, 0x22), 0xe045); /* remote IRR */
    ioapic_set_irq(b->io, 9, false);
    ioapic_set_irq(b->io, 9, true);
    assert_int_equal(b->sent, 1);
    ioapic_eoi(b->io, 0x44);
    assert_int_equal(b->sent, 1);
    ioapic_eoi(b->io, 0x45); /* still asserted: again */
    assert_int_equal(b->sent, 2);
    ioapic_set_irq(b->io, 9, false);
    bus_mmio_write(b->k.bus, GPA(BASE + 0x40), 0x45, 4); /* EOI register */
    assert_int_equal(b->sent, 2);
    assert_int_equal(get(b, 0x22), 0xa045);
    /* Masked while asserted, then unmasked: delivered. */
    entry(b, 9, 0x1a045, 0);
    ioapic_set_irq(b->io, 9, true);
    assert_int_equal(b->sent, 2);
    assert_false(ioapic_unmasked(b->io, 9));
    entry(b, 9, 0xa045, 0);
    assert_int_equal(b->sent, 3);
    /* A detour over edge mode ends it too. */
    entry(b, 9, 0x12045, 0);
    entry(b, 9, 0xa045, 0);
    assert_int_equal(b->sent, 4);
}

static void state_moves(void **s)
{
    struct bench *b = *s, other = { 0 };
    struct error e = { 0 };
    entry(b, 9, 0x8045, 0);
    ioapic_set_irq(b->io, 9, true);
    chip_kit_open(&other.k);
    const struct ioapic_config cfg = { .base = GPA(BASE), .ctx = &other, .send = sent };
    other.io = ioapic_create(other.k.bus, &cfg, &e);
    struct state_object from = ioapic_state_object(b->io), to = ioapic_state_object(other.io);
    copy_state(&from, &to);
    ioapic_eoi(other.io, 0x45);
    assert_int_equal(other.sent, 1);
    ioapic_reset(other.io);
    assert_int_equal(get(&other, 0x22), 0x10000);
    ioapic_destroy(other.io);
    chip_kit_close(&other.k);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = { T(registers), T(edges), T(levels), T(state_moves) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
