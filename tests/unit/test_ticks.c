/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clock of the time stamp counter under a counter and a kernel's clock of our own.
 *
 * Several readers, each with a stack of its own, take turns: at each look at a clock, or at what they share, some time passes, now and
 * then as much as while a thread does not run, and another reader may go on. So the ways in which threads come between each other are
 * tried, with the same outcome each time. What a reading has shown, none that begins afterwards goes below.
 *
 *   SUNDOG_SEED=s   another sequence
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <ucontext.h>
#include <x86intrin.h>

#include <cmocka.h>

#include "base/bits.h"
#include "host/host_cpu.h"
#include "host/ticks.h"
#include "host/time.h"

static void between(void);
static uint64_t fake_counter(void);
static uint64_t fake_kernel_ns(void);
static void fake_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4]);

#define __rdtsc fake_counter
#define host_monotonic_ns fake_kernel_ns
#define host_cpuid fake_cpuid
#undef atomic_load
#undef atomic_flag_test_and_set_explicit
#define atomic_load(p) (between(), atomic_load_explicit(p, memory_order_seq_cst))
#define atomic_flag_test_and_set_explicit(p, order) (between(), __atomic_test_and_set(p, order))
#include "host/ticks.c"

#define READERS 4u
#define STACK 65536u
#define RATE (1ull << 31)  /* of the kernel's clock: 2 counts a ns */
#define OFF (RATE / 4000u) /* it is steered by no more than this */

static struct world {
    uint64_t random;
    uint64_t counter, ns, part; /* ns and 2^-32 ns */
    uint64_t rate;
    uint64_t highest;       /* that a finished reading has shown */
    uint64_t ahead, behind; /* of the kernel's clock, at most */
    uint64_t back;          /* a reading has gone back by so much */
    uint64_t pause;         /* most counts between two readings */
    unsigned readings, goal;
    bool alone; /* one reader */
    bool calm;  /* none is kept from running for long */
    bool invariant;
    struct host_ticks t;
} w;

static ucontext_t outside, reader[READERS];
static unsigned running; /* reader */
static uint8_t stacks[READERS][STACK] __attribute__((aligned(16)));

static uint64_t below(uint64_t n)
{
    w.random ^= w.random << 13;
    w.random ^= w.random >> 7;
    w.random ^= w.random << 17;
    return w.random % n;
}

static void pass(uint64_t counts)
{
    if (!below(50))
        w.rate = RATE - OFF + below(2 * OFF);
    u128 more = (u128)counts * w.rate + w.part;
    w.counter += counts;
    w.ns += (uint64_t)(more >> 32);
    w.part = (uint32_t)more;
}

static void read_once(void)
{
    uint64_t floor = w.highest, begun = w.ns, ns = host_ticks_ns(&w.t);
    if (ns < floor && floor - ns > w.back)
        w.back = floor - ns;
    if (ns > w.highest)
        w.highest = ns;
    if (ns > w.ns && ns - w.ns > w.ahead)
        w.ahead = ns - w.ns;
    if (ns < begun && begun - ns > w.behind)
        w.behind = begun - ns;
    w.readings++;
}

/* Between two steps of a reader. */
static void between(void)
{
    static const uint64_t most[] = { 60, 60, 60, 60, 60, 60, 300, 300, 5000, TICKS_WINDOW / 2 };
    unsigned from = running;
    pass(1 + below(most[below(array_size(most) - w.calm)]));
    if (w.alone || below(3))
        return;
    running = (unsigned)below(READERS);
    if (running != from)
        swapcontext(&reader[from], &reader[running]);
}

static void read_on(void)
{
    while (w.readings < w.goal) {
        read_once();
        pass(below(w.pause));
        between();
    }
    setcontext(&outside);
}

/* Readers that were in the middle of something at the end stay there. */
static void read_many(unsigned n)
{
    w.goal = w.readings + n;
    for (unsigned i = 0; i < READERS; i++) {
        getcontext(&reader[i]);
        reader[i].uc_stack.ss_sp = stacks[i];
        reader[i].uc_stack.ss_size = STACK;
        makecontext(&reader[i], read_on, 0);
    }
    running = 0;
    swapcontext(&outside, &reader[0]);
}

static uint64_t fake_counter(void)
{
    between();
    uint64_t counter = w.counter;
    between();
    return counter;
}

static uint64_t fake_kernel_ns(void)
{
    between();
    uint64_t ns = w.ns;
    between();
    return ns;
}

static void fake_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
    (void)subleaf;
    r[0] = leaf == 0x80000000 ? 0x80000008 : 0;
    r[1] = r[2] = 0;
    r[3] = leaf == 0x80000007 && w.invariant ? 1u << 8 : 0;
}

static void begin(unsigned n, bool invariant)
{
    const char *seed = getenv("SUNDOG_SEED");
    w = (struct world){ .rate = RATE, .counter = 1ull << 40, .ns = 1ull << 50, .invariant = invariant };
    w.random = ((seed ? strtoull(seed, NULL, 0) : 1) + n) * 0x9e3779b97f4a7c15ull | 1;
    w.pause = below(2) ? 2000 : TICKS_WINDOW / 8;
    w.calm = below(2);
    host_ticks_init(&w.t);
}

static void no_reading_goes_back(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 200; n++) {
        begin(n, true);
        read_many(w.calm ? 20000 : 2000);
        assert_int_equal(w.back, 0);
        assert_true(w.ahead < 20000);
    }
}

/* What is shown is the kernel's clock, but for the steering of a window. */
static void one_reader_is_close(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 10; n++) {
        begin(n, true);
        w.alone = true;
        read_many(100000);
        assert_int_equal(w.back, 0);
        assert_true(w.ahead < 20000 && w.behind < 20000);
    }
}

/* A counter that is set on, as on a host that slept: the kernel's clock from then on, once that has caught up. */
static void a_counter_that_jumps(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 300; n++) {
        begin(n, true);
        read_many(1000);
        w.counter += below(2) ? below(TICKS_WINDOW) : below(1ull << 39);
        read_many(1000);
        assert_int_equal(w.back, 0);
        assert_true(w.ahead < TICKS_WINDOW);
    }
}

static void a_counter_that_varies_is_not_used(void **state)
{
    (void)state;
    begin(0, false);
    w.alone = true;
    for (unsigned i = 0; i < 100; i++) {
        w.counter = below(1ull << 62);
        read_many(10);
    }
    assert_true(w.ahead == 0 && w.behind == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_reading_goes_back),
        cmocka_unit_test(one_reader_is_close),
        cmocka_unit_test(a_counter_that_jumps),
        cmocka_unit_test(a_counter_that_varies_is_not_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
