/* SPDX-License-Identifier: Apache-2.0 */
/* The small ports: debug exit, debug console, POST code. */
#include "chip_kit.h"

#include <string.h>

#include "device/debug_console.h"
#include "device/debug_exit.h"
#include "device/postcode.h"

static void exit_with(void *ctx, uint32_t value) { *(uint64_t *)ctx = 1ull << 32 | value; }

static void debug_exit(void **s)
{
    (void)s;
    struct chip_kit k;
    struct error e = { 0 };
    uint64_t got = 0;
    chip_kit_open(&k);
    struct debug_exit *d = debug_exit_create(k.bus, 0xf4, exit_with, &got, &e);
    assert_non_null(d);
    assert_null(debug_exit_create(k.bus, 0xf1, exit_with, &got, &e));
    assert_non_null(strstr(e.text, "device debug-exit, port 0xf1: port 0xf4 is taken"));
    out8(&k, 0xf4, 0x31);
    assert_true(got == (1ull << 32 | 0x31));
    out32(&k, 0xf4, 0xdeadbeef);
    assert_true(got == (1ull << 32 | 0xdeadbeef));
    got = 0;
    out8(&k, 0xf5, 1);
    assert_true(got == 0);
    assert_int_equal(in8(&k, 0xf4), 0);
    debug_exit_destroy(d);
    chip_kit_close(&k);
}

static void output(void *ctx, uint8_t byte) { strncat(ctx, (char *)&byte, 1); }

static void debug_console(void **s)
{
    (void)s;
    struct chip_kit k;
    struct error e = { 0 };
    char text[8] = "";
    chip_kit_open(&k);
    struct debug_console *d = debug_console_create(k.bus, 0xe9, output, text, &e);
    assert_non_null(d);
    assert_int_equal(in8(&k, 0xe9), 0xe9);
    out8(&k, 0xe9, 'o'), out8(&k, 0xe9, 'k');
    assert_string_equal(text, "ok");
    debug_console_destroy(d);
    chip_kit_close(&k);
}

static void postcode(void **s)
{
    (void)s;
    struct chip_kit k;
    struct error e = { 0 };
    chip_kit_open(&k);
    struct postcode *p = postcode_create(k.bus, &e);
    assert_non_null(p);
    out8(&k, 0x80, 0x42), out8(&k, 0xed, 0x17);
    assert_int_equal(in8(&k, 0x80), 0x42);
    assert_int_equal(in8(&k, 0xed), 0x17);
    assert_int_equal(postcode_last(p), 0x42);
    assert_int_equal(tally_total(&k), 0);
    struct state_object o = postcode_state_object(p);
    copy_state(&o, &o);
    postcode_reset(p);
    assert_int_equal(postcode_last(p), 0);
    postcode_destroy(p);
    chip_kit_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(debug_exit), cmocka_unit_test(debug_console),
                                        cmocka_unit_test(postcode) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
