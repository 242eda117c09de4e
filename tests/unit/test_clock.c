/* SPDX-License-Identifier: Apache-2.0 */
/* The virtual clock in both modes, and its deadlines. */
#include "chip_kit.h"

#include <pthread.h>

#include "host/ticks.h"
#include "host/time.h"

static void deterministic_time(void **s)
{
    (void)s;
    struct error e = { 0 };
    assert_null(clock_create(CLOCK_DETERMINISTIC, 0, &e));
    struct clock *c = clock_create(CLOCK_DETERMINISTIC, 250, &e); /* 4 instructions a ns */
    clock_set_count(c, 4000);
    assert_true(clock_now(c) == 0); /* created paused */
    clock_set_count(c, 0);
    clock_resume(c);
    clock_set_count(c, 4001);
    assert_true(clock_now(c) == 1000);
    assert_true(clock_count_at(c, 1001) == 4004);
    assert_true(clock_count_at(c, 5) == 4001);
    clock_skip_to(c, 5000);
    assert_true(clock_now(c) == 5000);
    clock_skip_to(c, 100); /* never back */
    assert_true(clock_now(c) == 5000);
    assert_true(clock_count_at(c, 5001) == 4004);
    clock_pause(c);
    clock_set_count(c, 8000);
    assert_true(clock_now(c) == 5000);
    clock_set(c, 77);
    assert_true(clock_now(c) == 77);
    clock_resume(c);
    assert_true(clock_now(c) == 77);
    clock_set_count(c, 8400);
    assert_true(clock_now(c) == 177);
    clock_set_count(c, 1ull << 60); /* no overflow on the way */
    assert_true(clock_now(c) == (1ull << 58) - 2000 + 77);
    clock_destroy(c);
}

static void real_time(void **s)
{
    (void)s;
    struct error e = { 0 };
    struct clock *c = clock_create(CLOCK_REAL_TIME, 0, &e);
    assert_true(clock_now(c) == 0);
    assert_true(clock_host_time_of(c, 5) == UINT64_MAX);
    clock_resume(c);
    uint64_t before = host_monotonic_ns(), now = clock_now(c);
    assert_true(clock_now(c) >= now);
    uint64_t host = clock_host_time_of(c, now + SEC);
    assert_true(host >= before && host <= host_monotonic_ns() + SEC);
    while (clock_now(c) < now + 1 * MS)
        ;
    clock_pause(c);
    uint64_t stopped = clock_now(c);
    before = host_monotonic_ns();
    while (host_monotonic_ns() < before + 2 * MS)
        ;
    assert_true(clock_now(c) == stopped);
    clock_resume(c);
    assert_true(clock_now(c) >= stopped && clock_now(c) < stopped + SEC);
    uint64_t wall = clock_wall_base_ns(c);
    assert_true(wall > 1700000000 * SEC);
    clock_destroy(c);
}

/* The clock of the time stamp counter lies between two readings of the kernel's, but for what it may be off, and never goes back. */
static void ticks_follow_the_kernel(void **s)
{
    (void)s;
    enum { OFF_NS = 2000 };
    static struct host_ticks t;
    uint64_t start = host_monotonic_ns(), last = 0, now = start, readings = 0, off = 0;
    host_ticks_init(&t);
    while (now < start + 60 * MS) {
        uint64_t ns = host_ticks_ns(&t), behind = host_monotonic_ns();
        assert_true(ns >= last);
        off += ns + OFF_NS < now || ns > behind + OFF_NS;
        last = ns;
        now = behind;
        readings++;
    }
    assert_true(readings > 100 && off * 100 <= readings);
    assert_true(last + SEC > now && last < now + SEC);
}

/* What one thread has read, no other one reads less afterwards. */
struct readers {
    struct host_ticks t;
    _Atomic uint64_t highest, backward;
};

static void *read_ticks(void *ctx)
{
    struct readers *r = ctx;
    for (uint64_t end = host_monotonic_ns() + 150 * MS; host_monotonic_ns() < end;)
        for (unsigned i = 0; i < 100; i++) {
            uint64_t seen = atomic_load(&r->highest);
            __builtin_ia32_lfence();
            uint64_t ns = host_ticks_ns(&r->t);
            atomic_fetch_add(&r->backward, ns < seen);
            while (ns > seen && !atomic_compare_exchange_weak(&r->highest, &seen, ns))
                ;
        }
    return NULL;
}

static void ticks_agree_on_all_threads(void **s)
{
    (void)s;
    static struct readers r;
    pthread_t threads[3];
    host_ticks_init(&r.t);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_ticks, &r), 0);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&r.backward), 0);
    uint64_t now = host_monotonic_ns();
    assert_true(atomic_load(&r.highest) < now + 1 * MS);
}

struct alarm {
    struct deadline d;
    struct clock *clk;
    unsigned fired;
    uint64_t again; /* re-arm for this time from inside */
    unsigned *order;
    unsigned place;
};

static void fire(void *ctx, uint64_t now)
{
    struct alarm *a = ctx;
    (void)now;
    a->fired++;
    if (a->order)
        a->place = (*a->order)++;
    if (a->again)
        deadline_arm(a->clk, &a->d, a->again);
}

static void noticed(void *ctx) { ++*(unsigned *)ctx; }

static void deadlines_fire_in_order(void **s)
{
    (void)s;
    struct error e = { 0 };
    struct clock *c = clock_create(CLOCK_DETERMINISTIC, 1000, &e);
    clock_resume(c);
    unsigned notices = 0, order = 0;
    clock_set_notify(c, noticed, &notices);
    static struct alarm a[40];
    for (unsigned i = 0; i < 40; i++) {
        a[i] = (struct alarm){ .clk = c, .order = &order };
        deadline_init(&a[i].d, fire, &a[i]);
        deadline_arm(c, &a[i].d, 1000 + (i * 17 % 40) * 10);
    }
    assert_int_equal(notices, 1); /* the first was the earliest */
    assert_true(clock_next_deadline(c) == 1000);
    deadline_arm(c, &a[20].d, 500);
    assert_int_equal(notices, 2);
    deadline_cancel(c, &a[20].d);
    deadline_cancel(c, &a[20].d);
    deadline_cancel(c, &a[0].d);
    clock_skip_to(c, 1199);
    clock_run_due(c);
    for (unsigned i = 0; i < 40; i++) {
        bool is_due = i != 20 && i != 0 && i * 17 % 40 < 20;
        assert_int_equal(a[i].fired, is_due);
        if (is_due)
            assert_int_equal(a[i].place, i * 17 % 40 - 1 - (i * 17 % 40 > 20));
    }
    clock_skip_to(c, 100000);
    clock_run_due(c);
    assert_true(clock_next_deadline(c) == UINT64_MAX);
    clock_destroy(c);
}

static void a_round_is_bounded(void **s)
{
    (void)s;
    struct error e = { 0 };
    struct clock *c = clock_create(CLOCK_DETERMINISTIC, 1000, &e);
    clock_resume(c);
    struct alarm a = { .clk = c, .again = 1 };
    deadline_init(&a.d, fire, &a);
    deadline_arm(c, &a.d, 1);
    clock_skip_to(c, 1000);
    clock_run_due(c);
    assert_int_equal(a.fired, 1);
    assert_true(clock_next_deadline(c) == 1001);
    clock_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deterministic_time),      cmocka_unit_test(real_time),
        cmocka_unit_test(ticks_follow_the_kernel), cmocka_unit_test(ticks_agree_on_all_threads),
        cmocka_unit_test(deadlines_fire_in_order), cmocka_unit_test(a_round_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
