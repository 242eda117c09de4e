/* SPDX-License-Identifier: Apache-2.0 */
/* Floating point: a scalar stencil with division and root; SIMD: integer vectors as codecs use them; x87. */
#include "bench.h"

#include <emmintrin.h>

enum { POINTS = 1024, SWEEPS = 4, BYTES = 16384, TERMS = 2000 };

static double now[POINTS], next[POINTS];
static uint8_t left[BYTES] __attribute__((aligned(16))), right[BYTES] __attribute__((aligned(16)));

static uint64_t run_stencil(uint64_t n)
{
    double sum = 0;
    while (n--) {
        for (int i = 0; i < POINTS; i++)
            now[i] = (double)(i % 37) * 0.25 + 1.0;
        for (int s = 0; s < SWEEPS; s++) {
            for (int i = 1; i < POINTS - 1; i++)
                next[i] = 0.5 * now[i] + 0.25 * (now[i - 1] + now[i + 1]);
            for (int i = 1; i < POINTS - 1; i += 4)
                next[i] = __builtin_sqrt(next[i] * next[i] + 1.0 / next[i + 1]);
            for (int i = 1; i < POINTS - 1; i++)
                now[i] = next[i];
        }
        sum = now[POINTS / 2] + now[11];
        opaque(now);
    }
    uint64_t bits;
    __builtin_memcpy(&bits, &sum, 8);
    return bits;
}

static void setup_simd(void)
{
    uint64_t seed = 17;
    for (size_t i = 0; i < BYTES; i++) {
        left[i] = (uint8_t)(rng_next(&seed) >> 40);
        right[i] = (uint8_t)(rng_next(&seed) >> 40);
    }
}

static uint64_t run_simd(uint64_t n)
{
    uint64_t sum = 0;
    while (n--) {
        __m128i distance = _mm_setzero_si128(), products = _mm_setzero_si128();
        for (size_t i = 0; i < BYTES; i += 16) {
            __m128i a = _mm_load_si128((const __m128i *)(left + i));
            __m128i b = _mm_loadu_si128((const __m128i *)(right + (i ^ 16)));
            distance = _mm_add_epi64(distance, _mm_sad_epu8(a, b));
            __m128i low = _mm_unpacklo_epi8(a, _mm_setzero_si128()), high = _mm_unpackhi_epi8(b, _mm_setzero_si128());
            products = _mm_add_epi32(products, _mm_madd_epi16(low, high));
            __m128i mixed = _mm_avg_epu8(_mm_xor_si128(a, b), _mm_subs_epu8(a, b));
            products = _mm_xor_si128(products, _mm_shuffle_epi32(mixed, 0x4e));
        }
        uint64_t lanes[4];
        _mm_storeu_si128((__m128i *)lanes, distance);
        _mm_storeu_si128((__m128i *)(lanes + 2), products);
        sum = lanes[0] + lanes[1] * 3 + lanes[2] * 5 + lanes[3] * 7;
        opaque(left);
    }
    return sum;
}

static uint64_t run_x87(uint64_t n)
{
    long double sum = 0;
    while (n--) {
        sum = 0;
        for (int i = 1; i <= TERMS; i++)
            sum += (i & 1 ? 1.0L : -1.0L) / (long double)i;
        __asm__ volatile("" : "+m"(sum));
    }
    uint64_t bits;
    __builtin_memcpy(&bits, &sum, 8);
    return bits;
}

const struct workload float_workloads[] = {
    { "stencil", "fp", "point", POINTS *SWEEPS, 0, NULL, run_stencil },
    { "simd", "fp", "KiB", BYTES / 1024, 0, setup_simd, run_simd },
    { "x87", "fp", "term", TERMS, 0, NULL, run_x87 },
    { 0 },
};
