/* SPDX-License-Identifier: Apache-2.0 */
/* String instructions over buffers from a cache's size to far above it, and a copy loop of SIMD moves. */
#include "bench.h"

#include <emmintrin.h>
#include <stdlib.h>

enum { KIB = 1024, MIB = 1024 * KIB, PAGE = 4096, LOOP = 64 * KIB };

static uint8_t *from, *to;
static size_t size;

/* Both buffers, every page of them touched, so that no page fault is measured. */
static void setup(size_t bytes)
{
    size = bytes;
    from = aligned_alloc(PAGE, size);
    to = aligned_alloc(PAGE, size);
    need(from && to, "memory for the copies");
    for (size_t i = 0; i < size; i += 8) {
        *(volatile uint64_t *)(from + i) = i * 0x9e3779b97f4a7c15ull;
        *(volatile uint64_t *)(to + i) = 0;
    }
}

/* Tells copies apart from each other by a few of their bytes. */
static uint64_t sample(void)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < 64; i++)
        sum = sum * 31 + to[size / 64 * i + i];
    return sum;
}

static uint64_t movsb(uint64_t n)
{
    while (n--) {
        void *d = to, *s = from;
        size_t count = size;
        __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(count) : : "memory");
    }
    return sample();
}

static uint64_t movsq(uint64_t n)
{
    while (n--) {
        void *d = to, *s = from;
        size_t count = size / 8;
        __asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(count) : : "memory");
    }
    return sample();
}

static uint64_t stosb(uint64_t n)
{
    while (n--) {
        void *d = to;
        size_t count = size;
        __asm__ volatile("rep stosb" : "+D"(d), "+c"(count) : "a"(0x5a) : "memory");
    }
    return sample();
}

static uint64_t stosq(uint64_t n)
{
    while (n--) {
        void *d = to;
        size_t count = size / 8;
        __asm__ volatile("rep stosq" : "+D"(d), "+c"(count) : "a"(0x1122334455667788ull) : "memory");
    }
    return sample();
}

static uint64_t loop(uint64_t n)
{
    while (n--) {
        for (size_t i = 0; i < LOOP; i += 64) {
            for (size_t k = 0; k < 64; k += 16)
                _mm_store_si128((__m128i *)(to + i + k), _mm_load_si128((const __m128i *)(from + i + k)));
        }
        opaque(to);
    }
    return sample();
}

static void setup_64k(void) { setup(64 * KIB); }
static void setup_1m(void) { setup(1 * MIB); }
static void setup_16m(void) { setup(16 * MIB); }
static void setup_64m(void) { setup(64 * MIB); }

#define SIZES(op) \
    { #op "_64k", "string", "KiB", 64, .setup = setup_64k, .run = op }, \
        { #op "_1m", "string", "KiB", 1 * KIB, .setup = setup_1m, .run = op }, \
        { #op "_16m", "string", "KiB", 16 * KIB, .setup = setup_16m, .run = op }, \
    { \
#op "_64m", "string", "KiB", 64 * KIB, .setup = setup_64m, .run = op \
    }

const struct workload string_workloads[] = {
    SIZES(movsb),
    SIZES(movsq),
    SIZES(stosb),
    SIZES(stosq),
    { "copy_sse", "string", "KiB", LOOP / KIB, .setup = setup_64k, .run = loop },
    { 0 },
};
