/* SPDX-License-Identifier: Apache-2.0 */
/* The memory map for each size, and the claiming of places in it. */
#include "boot_kit.h"

#include <errno.h>
#include <string.h>

#include "board/place.h"

static void check_ranges(uint64_t memory)
{
    struct memory_map m;
    struct error e = { 0 };
    assert_int_equal(memory_map_make(&m, memory, &e), 0);
    uint64_t end = 0, ram = 0;
    for (unsigned i = 0; i < m.count; i++) {
        assert_true(m.range[i].base >= end);
        end = m.range[i].base + m.range[i].len;
        if (m.range[i].type == MAP_RAM)
            ram += m.range[i].len;
        /* The PCI hole never holds RAM. */
        if (m.range[i].type == MAP_RAM && end > 0xc0000000)
            assert_true(m.range[i].base >= 1ull << 32);
    }
    /* All of it but the hole and the extended BIOS data area below 1 MiB. */
    assert_int_equal(ram, memory - (0x100000 - 0x9fc00));
}

static void sizes(void **state)
{
    (void)state;
    const uint64_t sizes[] = { 2, 16, 512, 3071, 3072, 3073, 4096, 65536 };
    for (unsigned i = 0; i < array_size(sizes); i++)
        check_ranges(sizes[i] * MIB);
}

static void borders(void **state)
{
    struct memory_map m;
    (void)state;
    assert_int_equal(memory_map_make(&m, 3072 * MIB, NULL), 0);
    assert_int_equal(m.low_end, 0xc0000000);
    assert_int_equal(m.high_end, 1ull << 32);
    assert_int_equal(memory_map_make(&m, 3072 * MIB + 4096, NULL), 0);
    assert_int_equal(m.high_end, (1ull << 32) + 4096);
}

static void refused(void **state)
{
    const uint64_t sizes[] = { 0, 1, MIB, 2 * MIB + 1, 1ull << 40, UINT64_MAX, UINT64_MAX & ~4095ull };
    (void)state;
    for (unsigned i = 0; i < array_size(sizes); i++) {
        struct memory_map m;
        struct error e = { 0 };
        assert_int_equal(memory_map_make(&m, sizes[i], &e), -EINVAL);
        assert_non_null(strstr(e.text, "--memory"));
    }
}

static void backed(void **state)
{
    struct boot_kit k;
    (void)state;
    kit_open(&k, 64 * MIB);
    uint8_t byte = 1;
    assert_int_equal(ram_write(k.pmap, GPA(0x9ffff), &byte, 1), 0);
    assert_int_equal(ram_write(k.pmap, GPA(64 * MIB - 1), &byte, 1), 0);
    assert_int_equal(ram_write(k.pmap, GPA(64 * MIB), &byte, 1), -EFAULT);
    assert_int_equal(ram_write(k.pmap, GPA(0xa0000), &byte, 1), -EFAULT);
    /* Firmware memory is read, not written. */
    assert_int_equal(ram_read(k.pmap, GPA(0xe0000), &byte, 1), 0);
    assert_int_equal(ram_write(k.pmap, GPA(0xe0000), &byte, 1), -EFAULT);
    kit_close(&k);
}

static void placing(void **state)
{
    struct memory_map m;
    uint64_t at;
    (void)state;
    assert_int_equal(memory_map_make(&m, 16 * MIB, NULL), 0);
    struct placement p = { .map = &m };
    static const char kernel[] = "kernel";
    assert_int_equal(place_fixed(&p, MIB, MIB, kernel, NULL), 0);
    assert_int_equal(place_fixed(&p, MIB + 4096, 4096, "other", NULL), -EEXIST);
    assert_int_equal(place_fixed(&p, MIB + 4096, 4096, kernel, NULL), 0);
    assert_int_equal(place_fixed(&p, 15 * MIB, 2 * MIB, "too long", NULL), -ENOMEM);
    assert_int_equal(place_fixed(&p, 0x9f000, 0x2000, "over the hole", NULL), -ENOMEM);
    assert_int_equal(place_fixed(&p, UINT64_MAX - 10, 100, "wraps", NULL), -ENOMEM);
    assert_int_equal(place_fixed(&p, 0x100000, UINT64_MAX, "wraps", NULL), -ENOMEM);

    assert_int_equal(place_below(&p, 4096, 4096, 16 * MIB, "initrd", &at, NULL), 0);
    assert_int_equal(at, 16 * MIB - 4096);
    assert_int_equal(place_below(&p, 100, 4096, 16 * MIB, "next", &at, NULL), 0);
    assert_int_equal(at, 16 * MIB - 8192);
    /* Below 1 MiB when that is the top, and never in the first page. */
    assert_int_equal(place_below(&p, 0x9e000, 4096, 0xa0000, "low", &at, NULL), 0);
    assert_int_equal(at, 0x1000);
    assert_int_equal(place_below(&p, 0x1000, 4096, 0x1000, "first page", &at, NULL), -ENOMEM);

    assert_int_equal(place_above(&p, 10, 4096, MIB, "module", &at, NULL), 0);
    assert_int_equal(at, 2 * MIB);
    assert_int_equal(place_above(&p, 10, 4096, MIB, "module 2", &at, NULL), 0);
    assert_int_equal(at, 2 * MIB + 4096);
    assert_int_equal(place_above(&p, 20 * MIB, 4096, MIB, "huge", &at, NULL), -ENOMEM);
    assert_int_equal(place_above(&p, UINT64_MAX, 4096, 0, "huge", &at, NULL), -ENOMEM);
}

static void placing_is_bounded(void **state)
{
    struct memory_map m;
    uint64_t at;
    int r = 0;
    unsigned n = 0;
    (void)state;
    assert_int_equal(memory_map_make(&m, 16 * MIB, NULL), 0);
    struct placement p = { .map = &m };
    while (!r && n < 1000) {
        r = place_above(&p, 1, 4096, MIB, "part", &at, NULL);
        n++;
    }
    assert_int_equal(r, -ENOSPC);
    assert_int_equal(n, PLACES_MAX + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),  cmocka_unit_test(borders), cmocka_unit_test(refused),
        cmocka_unit_test(backed), cmocka_unit_test(placing), cmocka_unit_test(placing_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
