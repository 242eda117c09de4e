/* SPDX-License-Identifier: Apache-2.0 */
/* The MultiProcessor tables, read as MultiProcessor Specification 1.4 says. */
#include "boot_kit.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "board/mptable.h"

#define BASE 0xf0000u

static uint8_t rom[0x4000];

static void sums_to_zero(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + p[i]);
    assert_int_equal(sum, 0);
}

struct counts {
    unsigned entry[5];
    unsigned boot_processors;
    unsigned timer_pin, com1_pin;
    uint8_t ioapic;
};

static void walk(const uint8_t *config, struct counts *c)
{
    static const uint8_t sizes[5] = { 20, 8, 8, 8, 8 };
    uint16_t len = get_le16(config + 4), entries = get_le16(config + 34);
    uint32_t off = 44;
    *c = (struct counts){ 0 };
    for (unsigned i = 0; i < entries; i++) {
        const uint8_t *entry = config + off;
        assert_true(entry[0] < 5);
        if (entry[0] == 0) {
            assert_int_equal(entry[1], c->entry[0]);
            assert_int_equal(entry[3] & 1, 1);
            c->boot_processors += entry[3] >> 1 & 1;
        }
        if (entry[0] == 2) {
            c->ioapic = entry[1];
            assert_int_equal(get_le32(entry + 4), 0xfec00000);
        }
        if (entry[0] == 3 && entry[4] == 1 && entry[5] == 0)
            c->timer_pin = entry[7];
        if (entry[0] == 3 && entry[4] == 1 && entry[5] == 4)
            c->com1_pin = entry[7];
        if (entry[0] == 3)
            assert_true(entry[7] < 24);
        c->entry[entry[0]]++;
        off += sizes[entry[0]];
    }
    assert_int_equal(off, len);
}

static void tables(void **state)
{
    (void)state;
    for (unsigned cpus = 1; cpus <= 8; cpus++) {
        struct counts c;
        memset(rom, 0, sizeof(rom));
        size_t len = mptable_build(rom, sizeof(rom), BASE, cpus);
        assert_true(len > 0);
        assert_memory_equal(rom, "_MP_", 4);
        assert_int_equal(rom[8], 1);
        assert_int_equal(rom[9], 4);
        sums_to_zero(rom, 16);
        const uint8_t *config = rom + (get_le32(rom + 4) - BASE);
        assert_memory_equal(config, "PCMP", 4);
        assert_int_equal(get_le32(config + 36), 0xfee00000);
        sums_to_zero(config, get_le16(config + 4));
        assert_int_equal((size_t)(config - rom) + get_le16(config + 4), len);
        walk(config, &c);
        assert_int_equal(c.entry[0], cpus);
        assert_int_equal(c.boot_processors, 1);
        assert_int_equal(c.entry[1], 2);
        assert_int_equal(c.entry[2], 1);
        assert_int_equal(c.entry[4], 2);
        assert_int_equal(c.timer_pin, 2);
        assert_int_equal(c.com1_pin, 4);
    }
}

static void too_small_a_buffer(void **state)
{
    (void)state;
    size_t whole = mptable_build(rom, sizeof(rom), BASE, 8);
    for (size_t cap = 0; cap < whole; cap += 7) {
        uint8_t *small = malloc(cap ? cap : 1);
        assert_int_equal(mptable_build(small, cap, BASE, 8), 0);
        free(small);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(tables), cmocka_unit_test(too_small_a_buffer) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
