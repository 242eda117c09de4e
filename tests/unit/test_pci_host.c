/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration mechanism 1 (PCI Local Bus 3.0, 3.2.2.3.2) and what answers behind it. */
#include "chip_kit.h"

#include <errno.h>

#include "device/pci_host.h"

struct bench {
    struct chip_kit k;
    struct pci_host *host;
};

static int setup(void **s)
{
    static struct bench b;
    struct error e = { 0 };
    b = (struct bench){ 0 };
    chip_kit_open(&b.k);
    b.host = pci_host_create(b.k.bus, probe_line(&b.k.irq), &e);
    assert_non_null(b.host);
    *s = &b;
    return 0;
}

static int teardown(void **s)
{
    struct bench *b = *s;
    pci_host_destroy(b->host);
    chip_kit_close(&b->k);
    return 0;
}

static void address(struct bench *b, unsigned bus, unsigned slot, unsigned fn, unsigned off)
{
    out32(&b->k, 0xcf8, 0x80000000u | bus << 16 | slot << 11 | fn << 8 | off);
}

static void the_address_register(void **s)
{
    struct bench *b = *s;
    out32(&b->k, 0xcf8, 0xffffffff);
    assert_int_equal(in32(&b->k, 0xcf8), 0x80fffffc);
    /* As Linux looks for the mechanism: narrow accesses are not for this register. */
    out8(&b->k, 0xcfb, 1);
    bus_port_write(b->k.bus, 0xcf8, 0, 2);
    assert_int_equal(in32(&b->k, 0xcf8), 0x80fffffc);
    assert_int_equal(in8(&b->k, 0xcf8), 0xff);
    assert_int_equal(in8(&b->k, 0xcfa), 0xff);
}

static void bridges(void **s)
{
    struct bench *b = *s;
    address(b, 0, 0, 0, 0);
    assert_int_equal(in32(&b->k, 0xcfc), 0x12378086);
    assert_int_equal(bus_port_read(b->k.bus, 0xcfe, 2), 0x1237);
    assert_int_equal(in8(&b->k, 0xcfd), 0x80);
    out32(&b->k, 0xcfc, 0);
    assert_int_equal(in32(&b->k, 0xcfc), 0x12378086);
    address(b, 0, 0, 0, 8);
    assert_int_equal(in32(&b->k, 0xcfc) >> 16, 0x0600);
    address(b, 0, 0, 0, 0x58);
    out32(&b->k, 0xcfc, 0x33333333);
    assert_int_equal(in32(&b->k, 0xcfc), 0x33333300);
    address(b, 0, 1, 0, 0);
    assert_int_equal(in32(&b->k, 0xcfc), 0x70008086);
    address(b, 0, 1, 0, 8);
    assert_int_equal(in32(&b->k, 0xcfc) >> 16, 0x0601);
    address(b, 0, 1, 0, 0x60);
    out8(&b->k, 0xcfe, 0xff);
    assert_int_equal(in32(&b->k, 0xcfc), 0x808f8080);
    pci_host_reset(b->host);
    address(b, 0, 1, 0, 0x60);
    assert_int_equal(in32(&b->k, 0xcfc), 0x80808080);
}

static void nothing_else(void **s)
{
    struct bench *b = *s;
    for (unsigned slot = 0; slot < 32; slot++)
        for (unsigned fn = 0; fn < 8; fn++) {
            address(b, 0, slot, fn, 0);
            if (slot > 1 || fn)
                assert_int_equal(in32(&b->k, 0xcfc), 0xffffffff);
            address(b, 1, slot, fn, 0);
            assert_int_equal(in32(&b->k, 0xcfc), 0xffffffff);
        }
    out32(&b->k, 0xcf8, 0); /* not enabled */
    assert_int_equal(in32(&b->k, 0xcfc), 0xffffffff);
    out32(&b->k, 0xcfc, 0);
    assert_int_equal(tally_total(&b->k), 0); /* probing is no news */
}

static uint32_t fn_read(void *dev, unsigned off, unsigned width)
{
    (void)dev;
    return off << 4 | width;
}
static void fn_write(void *dev, unsigned off, uint32_t value, unsigned width)
{
    *(uint32_t *)dev = value << 16 | off << 4 | width;
}

static void functions_are_added(void **s)
{
    struct bench *b = *s;
    struct error e = { 0 };
    uint32_t last = 0;
    static const struct pci_function_ops ops = { fn_read, fn_write };
    assert_int_equal(pci_host_add(b->host, PCI_DEVFN(1, 0), &ops, &last, &e), -EBUSY);
    assert_int_equal(pci_host_add(b->host, 256, &ops, &last, &e), -EINVAL);
    assert_int_equal(pci_host_add(b->host, PCI_DEVFN(31, 7), &ops, &last, &e), 0);
    address(b, 0, 31, 7, 0xfc);
    assert_int_equal(in32(&b->k, 0xcfc), 0xfc4);
    assert_int_equal(in8(&b->k, 0xcff), 0xf1);
    bus_port_write(b->k.bus, 0xcfe, 0x1234, 2);
    assert_int_equal(last, 0x12340fe2);
}

static void reset_control(void **s)
{
    struct bench *b = *s;
    out8(&b->k, 0xcf9, 0x02);
    assert_int_equal(b->k.irq.rises, 0);
    assert_int_equal(in8(&b->k, 0xcf9), 0x02);
    out8(&b->k, 0xcf9, 0x06);
    assert_int_equal(b->k.irq.rises, 1);
    out8(&b->k, 0xcf9, 0x06);
    assert_int_equal(b->k.irq.rises, 1);
    struct state_object from = pci_host_state_object(b->host);
    copy_state(&from, &from);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_address_register), T(bridges), T(nothing_else), T(functions_are_added), T(reset_control),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
