/* SPDX-License-Identifier: Apache-2.0 */
/* Dispatch: windows, widths, splitting, what nobody claims, and devices that call back. */
#include "chip_kit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A device that writes down what it is asked. */
struct scribe {
    char log[400];
    struct bus *bus; /* set: it reads its own port from inside the handler */
};

static uint64_t scribe_read(void *dev, uint32_t off, unsigned width)
{
    struct scribe *d = dev;
    size_t n = strlen(d->log);
    snprintf(d->log + n, sizeof(d->log) - n, "r%x.%u ", off, width);
    if (d->bus)
        return bus_port_read(d->bus, 0x100, 1);
    return 0x8877665544332211ull >> off * 8;
}

static void scribe_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    struct scribe *d = dev;
    size_t n = strlen(d->log);
    snprintf(d->log + n, sizeof(d->log) - n, "w%x.%u=%llx ", off, width, (unsigned long long)val);
}

static const struct bus_ops any = { scribe_read, scribe_write, 0, 0 };
static const struct bus_ops bytes = { scribe_read, scribe_write, 1, 1 };
static const struct bus_ops dwords = { scribe_read, scribe_write, 4, 4 };

static void wrote(struct scribe *d, const char *what)
{
    assert_string_equal(d->log, what);
    d->log[0] = 0;
}

static void ports(void **s)
{
    (void)s;
    struct chip_kit k;
    struct scribe d = { .log = "" };
    struct error e = { 0 };
    chip_kit_open(&k);
    assert_int_equal(bus_map_port(k.bus, 0x100, 8, &any, &d, &e), 0);
    assert_int_equal(bus_map_port(k.bus, 0x107, 1, &any, &d, &e), -EBUSY);
    assert_int_equal(bus_map_port(k.bus, 0xfff8, 9, &any, &d, &e), -EINVAL);
    assert_int_equal(bus_map_port(k.bus, 0x108, 2, &bytes, &d, &e), 0);
    assert_int_equal(in32(&k, 0x100), 0x44332211);
    assert_int_equal(bus_port_read(k.bus, 0x102, 2), 0x4433);
    wrote(&d, "r0.4 r2.2 ");
    out32(&k, 0x103, 0xaabbccdd); /* misaligned: as the processor's bus would split it */
    wrote(&d, "w3.1=dd w4.2=bbcc w6.1=aa ");
    bus_port_write(k.bus, 0x108, 0x1234, 2);
    wrote(&d, "w0.1=34 w1.1=12 ");
    /* Over the end: the rest is nobody's. */
    assert_int_equal(in32(&k, 0x107), 0xff221188);
    wrote(&d, "r7.1 r0.1 r1.1 ");
    assert_int_equal(tally_total(&k), 1);
    assert_int_equal(in32(&k, 0xffff), 0xffffffff);
    assert_int_equal(in32(&k, 0x200), 0xffffffff);
    out8(&k, 0x200, 1);
    assert_int_equal(tally_total(&k), 4);
    chip_kit_close(&k);
}

static void memory(void **s)
{
    (void)s;
    struct chip_kit k;
    struct scribe d = { .log = "" }, f = { .log = "" };
    struct error e = { 0 };
    chip_kit_open(&k);
    assert_int_equal(bus_map_mmio(k.bus, GPA(0xfec00000), 0x1000, &dwords, &d, &e), 0);
    assert_int_equal(bus_map_mmio(k.bus, GPA(0xfeb00000), 8, &any, &f, &e), 0);
    assert_int_equal(bus_map_mmio(k.bus, GPA(0xfeb00007), 4, &any, &f, &e), -EBUSY);
    assert_int_equal(bus_map_mmio(k.bus, GPA(0xfebff000), 0x1001, &any, &f, &e), -EBUSY);
    assert_int_equal(bus_map_mmio(k.bus, GPA(~0ull), 2, &any, &f, &e), -EINVAL);
    assert_true(bus_mmio_read(k.bus, GPA(0xfeb00000), 8) == 0x8877665544332211);
    wrote(&f, "r0.8 ");
    assert_true(bus_mmio_read(k.bus, GPA(0xfec00000), 8) == 0x8877665544332211);
    wrote(&d, "r0.4 r4.4 ");
    /* Narrow reads are cut from wide ones; narrow writes are refused and counted. */
    assert_int_equal(bus_mmio_read(k.bus, GPA(0xfec00002), 1), 0x33);
    wrote(&d, "r0.4 ");
    bus_mmio_write(k.bus, GPA(0xfec00002), 1, 1);
    wrote(&d, "");
    assert_int_equal(tally_total(&k), 1);
    bus_mmio_write(k.bus, GPA(0xfec00ffc), 0x1122334455667788, 8);
    wrote(&d, "wffc.4=55667788 ");
    bus_unmap_mmio(k.bus, GPA(0xfec00000));
    bus_unmap_mmio(k.bus, GPA(0x1234));
    assert_int_equal(bus_mmio_read(k.bus, GPA(0xfec00000), 2), 0xffff);
    assert_int_equal(bus_map_mmio(k.bus, GPA(0xfec00000), 0x1000, &any, &d, &e), 0);
    chip_kit_close(&k);
}

static void a_device_cannot_reach_the_bus(void **s)
{
    (void)s;
    struct chip_kit k;
    struct scribe d = { .log = "" };
    struct error e = { 0 };
    chip_kit_open(&k);
    d.bus = k.bus;
    assert_int_equal(bus_map_port(k.bus, 0x100, 1, &any, &d, &e), 0);
    assert_int_equal(in8(&k, 0x100), 0xff);
    wrote(&d, "r0.1 ");
    assert_int_equal(tally_total(&k), 1);
    chip_kit_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports),
        cmocka_unit_test(memory),
        cmocka_unit_test(a_device_cannot_reach_the_bus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
