/* SPDX-License-Identifier: Apache-2.0 */
/* Calls and jumps: recursion; indirect calls in an order that cannot be guessed and in one that can; indirect
 * jumps from the ends of many handlers, as a threaded interpreter has them. */
#include "bench.h"

enum { FIB = 16, CALLS = 4096 };

__attribute__((noipa)) static uint64_t fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

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

/* Objects of eight kinds stand in the same order in every round: a good predictor is right. */
static uint64_t run_virtual(uint64_t n)
{
    static const uint8_t kinds[] = { 0, 3, 1, 4, 1, 5, 2, 6, 5, 3, 7, 0, 2, 4, 6, 7 };
    uint64_t x = 1;
    while (n--) {
        x = 1;
        for (size_t i = 0; i < CALLS; i++)
            x = steps[kinds[i % sizeof(kinds)]](x);
    }
    return x;
}

static uint8_t program[CALLS + 1];

static void setup_jumps(void)
{
    uint64_t seed = 23;
    for (size_t i = 0; i < CALLS; i++)
        program[i] = (uint8_t)(rng_next(&seed) >> 61);
    program[CALLS] = 8;
}

static uint64_t run_jumps(uint64_t n)
{
    static const void *const labels[] = { &&add, &&flip, &&mul, &&sub, &&rol, &&not, &&shift, &&mix, &&end };
    uint64_t x = 1;
    while (n--) {
        const uint8_t *at = program;
        x = 1;
/* Every handler ends with a jump of its own. */
#define NEXT() \
    do { \
        __asm__ volatile("" : "+r"(x)); \
        goto *labels[*at++]; \
    } while (0)
        NEXT();
    add:
        x += 1;
        NEXT();
    flip:
        x ^= 0x55;
        NEXT();
    mul:
        x *= 3;
        NEXT();
    sub:
        x -= x >> 3;
        NEXT();
    rol:
        x = x << 1 | x >> 63;
        NEXT();
        not : x = ~x;
        NEXT();
    shift:
        x += x << 5;
        NEXT();
    mix:
        x ^= x >> 7;
        NEXT();
    end:
        opaque(program);
    }
    return x;
}

const struct workload call_workloads[] = {
    { "recurse", "call", "fib(16)", 1, .run = run_recurse },
    { "indirect", "call", "call", CALLS, .run = run_indirect },
    { "virtual", "call", "call", CALLS, .run = run_virtual },
    { "jumps", "call", "jump", CALLS, .setup = setup_jumps, .run = run_jumps },
    { 0 },
};
