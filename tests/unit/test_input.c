/* SPDX-License-Identifier: Apache-2.0 */
/* The input queue: order, bound, stamps and the tap. */
#include "chip_kit.h"

#include <errno.h>

#include "clock/input.h"

struct sink {
    struct input_queue *q;
    uint64_t got[8];
    unsigned n, taps;
    uint64_t last_count;
    int echo; /* posts to this source from inside the handler */
};

static void take(void *ctx, uint64_t value, const struct input_stamp *stamp)
{
    struct sink *k = ctx;
    if (k->n < 8)
        k->got[k->n] = value;
    k->n++;
    k->last_count = stamp->count;
    if (k->echo >= 0)
        assert_true(input_post(k->q, k->echo, value + 1));
}

static void tap(void *ctx, int source, uint64_t value, const struct input_stamp *s)
{
    (void)source, (void)value, (void)s;
    ((struct sink *)ctx)->taps++;
}

static void noticed(void *ctx) { ++*(unsigned *)ctx; }

static void events_come_in_order(void **s)
{
    (void)s;
    struct error e = { 0 };
    struct input_queue *q = input_create(&e);
    struct sink k = { .q = q, .echo = -1 };
    unsigned notices = 0;
    int a = input_add_source(q, "a", take, &k), b = input_add_source(q, "b", take, &k);
    input_set_notify(q, noticed, &notices);
    input_set_tap(q, tap, &k);
    assert_true(a == 0 && b == 1);
    assert_false(input_pending(q));
    assert_false(input_post(q, 2, 1));
    assert_false(input_post(q, -1, 1));
    assert_true(input_post(q, a, 10));
    assert_true(input_post(q, b, 20));
    assert_true(input_post(q, a, 30));
    assert_true(input_pending(q));
    assert_int_equal(notices, 3);
    assert_int_equal(input_drain(q, (struct input_stamp){ 0, 99 }), 3);
    assert_true(k.got[0] == 10 && k.got[1] == 20 && k.got[2] == 30);
    assert_true(k.last_count == 99);
    assert_int_equal(k.taps, 3);
    assert_int_equal(input_drain(q, (struct input_stamp){ 0, 0 }), 0);
    input_destroy(q);
}

static void the_queue_is_bounded(void **s)
{
    (void)s;
    struct error e = { 0 };
    struct input_queue *q = input_create(&e);
    struct sink k = { .q = q, .echo = -1 };
    int a = input_add_source(q, "a", take, &k);
    unsigned n = 0;
    while (input_has_room(q, 1)) {
        assert_true(input_post(q, a, n++));
        assert_true(n < 100000);
    }
    assert_false(input_post(q, a, 0));
    assert_int_equal(input_drain(q, (struct input_stamp){ 0, 0 }), n);
    assert_true(input_has_room(q, n) && !input_has_room(q, n + 1));
    /* What a handler posts waits for the next time. */
    k.echo = a;
    assert_true(input_post(q, a, 1));
    assert_int_equal(input_drain(q, (struct input_stamp){ 0, 0 }), 1);
    assert_true(input_pending(q));
    while (input_add_source(q, "more", take, &k) >= 0)
        ;
    assert_int_equal(input_add_source(q, "more", take, &k), -ENOSPC);
    input_destroy(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_in_order),
        cmocka_unit_test(the_queue_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
