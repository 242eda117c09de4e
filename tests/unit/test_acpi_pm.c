/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI fixed hardware, against ACPI 6.5, 4.8.3. */
#include "chip_kit.h"

#include "device/acpi_pm.h"

#define BASE 0x600

struct bench {
    struct chip_kit k;
    struct acpi_pm *pm;
    unsigned power_offs;
};

static void power_off(void *ctx) { ((struct bench *)ctx)->power_offs++; }

static int setup(void **s)
{
    static struct bench b;
    struct error e = { 0 };
    b = (struct bench){ 0 };
    chip_kit_open(&b.k);
    const struct acpi_pm_config cfg = { BASE, 5, probe_line(&b.k.irq), &b, power_off };
    b.pm = acpi_pm_create(b.k.bus, b.k.clk, &cfg, &e);
    assert_non_null(b.pm);
    *s = &b;
    return 0;
}

static int teardown(void **s)
{
    struct bench *b = *s;
    acpi_pm_destroy(b->pm);
    assert_true(clock_next_deadline(b->k.clk) == UINT64_MAX);
    chip_kit_close(&b->k);
    return 0;
}

static uint16_t get(struct bench *b, unsigned off)
{
    return (uint16_t)bus_port_read(b->k.bus, (uint16_t)(BASE + off), 2);
}
static void set(struct bench *b, unsigned off, uint16_t v)
{
    bus_port_write(b->k.bus, (uint16_t)(BASE + off), v, 2);
}

static void the_timer_runs(void **s)
{
    struct bench *b = *s;
    uint32_t before = in32(&b->k, BASE + 8);
    pass(&b->k, SEC);
    assert_int_equal(in32(&b->k, BASE + 8) - before, 3579545);
    assert_int_equal(in8(&b->k, BASE + 9), in32(&b->k, BASE + 8) >> 8 & 0xff);
    assert_int_equal(bus_port_read(b->k.bus, BASE + 10, 2), in32(&b->k, BASE + 8) >> 16);
    out32(&b->k, BASE + 8, 0);
    pass(&b->k, 10000 * SEC); /* 32 bits wrap after 1200 s */
    assert_int_equal(in32(&b->k, BASE + 8), (uint32_t)(3579545ull * 10001));
}

static void acpi_mode(void **s)
{
    struct bench *b = *s;
    assert_int_equal(get(b, 4), 0);
    set(b, 4, 1); /* SCI_EN is not for the OS to write */
    assert_int_equal(get(b, 4), 0);
    out8(&b->k, 0xb2, 0xf1);
    assert_int_equal(get(b, 4), 1);
    assert_int_equal(in8(&b->k, 0xb2), 0xf1);
    set(b, 4, 0x1c00);
    assert_int_equal(get(b, 4), 0x1c01);
    out8(&b->k, 0xb3, 0xf0);
    assert_int_equal(get(b, 4), 0x1c01);
    out8(&b->k, 0xb2, 0xf0);
    assert_int_equal(get(b, 4), 0x1c00);
}

static void sleeping(void **s)
{
    struct bench *b = *s;
    set(b, 4, 5 << 10);
    assert_int_equal(b->power_offs, 0);
    set(b, 4, 4 << 10 | 1 << 13);
    assert_int_equal(b->power_offs, 0);
    set(b, 4, 5 << 10 | 1 << 13);
    assert_int_equal(b->power_offs, 1);
    assert_int_equal(get(b, 4), 5 << 10); /* SLP_EN reads 0 */
    out8(&b->k, BASE + 5, 0x34);          /* by its byte */
    assert_int_equal(b->power_offs, 2);
}

static void power_button(void **s)
{
    struct bench *b = *s;
    set(b, 2, 0x100);
    acpi_pm_power_button(b->pm);
    assert_false(b->k.irq.level); /* legacy mode: no SCI */
    assert_int_equal(get(b, 0), 0x100);
    out8(&b->k, 0xb2, 0xf1);
    assert_true(b->k.irq.level);
    out8(&b->k, BASE, 0xff); /* the other byte */
    assert_true(b->k.irq.level);
    set(b, 0, 0x100);
    assert_false(b->k.irq.level);
    assert_int_equal(get(b, 0), 0);
    set(b, 2, 0xffff);
    assert_int_equal(get(b, 2), 0x721);
}

static void the_timer_interrupts(void **s)
{
    struct bench *b = *s;
    assert_true(clock_next_deadline(b->k.clk) == UINT64_MAX); /* nobody asked */
    pass(&b->k, 600 * SEC);                                   /* bit 31 changes after 599.93 s */
    assert_int_equal(get(b, 0), 1);
    set(b, 0, 1);
    assert_int_equal(get(b, 0), 0);
    set(b, 2, 1);
    out8(&b->k, 0xb2, 0xf1);
    pass(&b->k, 599 * SEC);
    assert_false(b->k.irq.level);
    pass(&b->k, 1 * SEC);
    assert_true(b->k.irq.level);
    set(b, 0, 1);
    assert_false(b->k.irq.level);
}

static void state_moves(void **s)
{
    struct bench *b = *s, other = { 0 };
    struct error e = { 0 };
    out8(&b->k, 0xb2, 0xf1);
    set(b, 2, 0x101);
    acpi_pm_power_button(b->pm);
    chip_kit_open(&other.k);
    const struct acpi_pm_config cfg = { BASE, 5, probe_line(&other.k.irq), &other, power_off };
    other.pm = acpi_pm_create(other.k.bus, other.k.clk, &cfg, &e);
    struct state_object from = acpi_pm_state_object(b->pm), to = acpi_pm_state_object(other.pm);
    copy_state(&from, &to);
    acpi_pm_loaded(other.pm);
    assert_true(other.k.irq.level);
    assert_true(clock_next_deadline(other.k.clk) == clock_next_deadline(b->k.clk));
    acpi_pm_reset(other.pm);
    assert_false(other.k.irq.level);
    acpi_pm_destroy(other.pm);
    chip_kit_close(&other.k);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_timer_runs),       T(acpi_mode),   T(sleeping), T(power_button),
        T(the_timer_interrupts), T(state_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
