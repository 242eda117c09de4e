/* SPDX-License-Identifier: Apache-2.0 */
/* The names of the translator's passes, there and back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "engine/engine.h"

static void each_name_is_its_bit(void **s)
{
    (void)s;
    static const char *const names[] = {
#define X(id, name, summary) [ENGINE_PASS_##id] = name,
        ENGINE_PASSES(X)
#undef X
    };
    for (unsigned i = 0; i < ENGINE_PASS_COUNT; i++) {
        uint32_t got = 0;
        char text[40];
        assert_int_equal(engine_parse_passes(names[i], &got, NULL), 0);
        assert_int_equal(got, BIT(i));
        engine_format_passes(got, ",", text, sizeof(text));
        assert_string_equal(text, names[i]);
    }
}

static void lists_are_taken_in_any_order(void **s)
{
    (void)s;
    uint32_t got = 0;
    char text[40];
    assert_int_equal(engine_parse_passes("adapt,merge,simd,merge", &got, NULL), 0);
    assert_int_equal(got, BIT(ENGINE_PASS_ADAPT) | BIT(ENGINE_PASS_MERGE) | BIT(ENGINE_PASS_SIMD));
    engine_format_passes(got, " + ", text, sizeof(text));
    assert_string_equal(text, "merge + simd + adapt");
    engine_format_passes(0, ",", text, sizeof(text));
    assert_string_equal(text, "");
}

static void unknown_names_are_refused(void **s)
{
    (void)s;
    static const char *const bad[] = { "",     ",",      "merge,", ",merge",    "merge,,simd",
                                       "merg", "merges", "MERGE",  "merge simd" };
    for (unsigned i = 0; i < array_size(bad); i++) {
        struct error e = { 0 };
        uint32_t got;
        assert_int_equal(engine_parse_passes(bad[i], &got, &e), -EINVAL);
        assert_non_null(strstr(e.text, "superblock"));
    }
}

static void a_small_buffer_is_not_overrun(void **s)
{
    (void)s;
    char text[16];
    for (size_t len = 1; len <= 8; len++) {
        memset(text, '#', sizeof(text));
        engine_format_passes(~0u, ",", text, len);
        assert_int_equal(strlen(text), len - 1);
        assert_int_equal(text[len], '#');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_name_is_its_bit),
        cmocka_unit_test(lists_are_taken_in_any_order),
        cmocka_unit_test(unknown_names_are_refused),
        cmocka_unit_test(a_small_buffer_is_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
