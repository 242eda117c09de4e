/* SPDX-License-Identifier: Apache-2.0 */
/* State tables: what is saved comes back, and nothing damaged, foreign or out of range gets in. */
#include "chip_kit.h"

#include <string.h>

struct part {
    uint8_t small;
    uint16_t pair[2];
};
struct thing {
    uint64_t big;
    uint8_t limited; /* at most 9 */
    uint32_t list[3];
    struct part part;
};

static bool valid(const void *state) { return ((const struct thing *)state)->big != 13; }

static const struct state_field fields[] = {
    STATE_FIELD(struct thing, big),
    STATE_FIELD_MAX(struct thing, limited, 9),
    STATE_ARRAY(struct thing, list),
    STATE_FIELD(struct thing, part.small),
    STATE_ARRAY_MAX(struct thing, part.pair, 0x1000),
};
static const struct state_class class = {
    "thing", 3, sizeof(struct thing), fields, array_size(fields), valid
};

static struct thing sample(void)
{
    return (struct thing){ .big = 0x123456789abcdef0,
                           .limited = 9,
                           .list = { 1, 2, 0xffffffff },
                           .part = { .small = 7, .pair = { 0x1000, 5 } } };
}

static void saved_is_loaded(void **s)
{
    (void)s;
    struct thing a = sample(), b;
    memset(&b, 0, sizeof(b));
    char text[80];
    assert_true(state_diff(&class, &a, &b, text, sizeof(text)));
    assert_string_equal(text, "big[0]: 0x123456789abcdef0 vs 0x0");
    struct state_object from = { &class, &a, 2 }, to = { &class, &b, 2 };
    copy_state(&from, &to);
    assert_false(state_diff(&class, &a, &b, text, sizeof(text)));
    b.list[2]--;
    assert_true(state_diff(&class, &a, &b, text, sizeof(text)));
    assert_string_equal(text, "list[2]: 0xffffffff vs 0xfffffffe");
    assert_true(state_hash(&from, 1) != state_hash(&to, 1));
    assert_true(state_hash(&from, 1) != state_hash(&from, 2));
}

/* Loading must fail and leave the object as it is. */
static void refuses(const uint8_t *buf, size_t len, const char *words)
{
    struct thing b = { .big = 42 };
    struct state_object to = { &class, &b, 0 };
    struct error e = { 0 };
    assert_true(state_load(&to, buf, len, &e) < 0);
    assert_non_null(strstr(e.text, words));
    assert_true(b.big == 42 && b.limited == 0 && b.list[2] == 0);
}

static void damage_is_refused(void **s)
{
    (void)s;
    struct thing a = sample();
    struct state_object from = { &class, &a, 0 };
    uint8_t good[256], bad[256];
    size_t len = state_save(&from, good);
    assert_true(len == state_saved_size(&class) && len < sizeof(good));
    /* Each bit counts, and so does each byte at the end. */
    for (size_t i = 0; i < len * 8; i++) {
        memcpy(bad, good, len);
        bad[i / 8] ^= (uint8_t)(1u << i % 8);
        refuses(bad, len, "thing");
    }
    for (size_t n = 0; n < len; n++)
        refuses(good, n, "truncated");
}

static void ranges_are_checked(void **s)
{
    (void)s;
    uint8_t buf[256];
    struct thing a = sample();
    struct state_object from = { &class, &a, 0 };
    a.limited = 10;
    refuses(buf, state_save(&from, buf), "limited[0] is 0xa, at most 0x9");
    a = sample();
    a.part.pair[1] = 0x1001;
    refuses(buf, state_save(&from, buf), "pair[1]");
    a = sample();
    a.big = 13;
    refuses(buf, state_save(&from, buf), "contradicts itself");
    a = sample();
    from.instance = 1;
    refuses(buf, state_save(&from, buf), "instance 1");
}

static void collect(void *ctx, const char *line)
{
    strcat(ctx, line);
    strcat(ctx, "\n");
}

static void print_shows_what_is_not_zero(void **s)
{
    (void)s;
    struct thing a = { .limited = 3, .list = { 0, 16, 0 } };
    struct state_object obj = { &class, &a, 1 };
    char out[400] = "";
    state_print(&obj, collect, out);
    assert_string_equal(out, "thing1.limited = 0x3\nthing1.list[1] = 0x10\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(saved_is_loaded),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(ranges_are_checked),
        cmocka_unit_test(print_shows_what_is_not_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
