/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: deep recursion, and indirect calls through a table in an order that cannot be guessed. */
#include "bench.h"

enum { FIB = 16, CALLS = 4096 };

__attribute__((noipa)) static uint64_t fib(unsigned n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t run_recurse(uint64_t n)
{
    uint64_t sum = 0;
    while (n--)
        sum = fib(FIB);
    return sum;
}

typedef uint64_t step(uint64_t);

#define STEP(name, expression) \
    __attribute__((noipa)) static uint64_t name(uint64_t x) { return expression; }
STEP(step0, x + 1)
STEP(step1, x ^ 0x55)
STEP(step2, x * 3)
STEP(step3, x - (x >> 3))
STEP(step4, x << 1 | x >> 63)
STEP(step5, ~x)
STEP(step6, x + (x << 5))
STEP(step7, x ^ x >> 7)

static step *const steps[8] = { step0, step1, step2, step3, step4, step5, step6, step7 };

static uint64_t run_indirect(uint64_t n)
{
    uint64_t x = 1;
    while (n--) {
        uint64_t seed = 13;
        x = 1;
        for (int i = 0; i < CALLS; i++)
            x = steps[rng_next(&seed) >> 61](x);
    }
    return x;
}

const struct workload call_workloads[] = {
    { "recurse", "int", "fib(16)", 1, 0, NULL, run_recurse },
    { "indirect", "int", "call", CALLS, 0, NULL, run_indirect },
    { 0 },
};
