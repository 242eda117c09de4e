/* SPDX-License-Identifier: Apache-2.0 */
/* Floating point: a scalar stencil with division and root, a matrix product, bodies under gravity, packed
 * floats; SIMD: integer vectors as codecs use them; x87. */
#include "bench.h"

#include <emmintrin.h>

enum {
    POINTS = 1024,
    SWEEPS = 4,
    BYTES = 16384,
    TERMS = 2000,
    N = 32,
    BODIES = 5,
    MOVES = 100,
    FLOATS = 4096
};

static double now[POINTS], next[POINTS];
static uint8_t left[BYTES] __attribute__((aligned(16))), right[BYTES] __attribute__((aligned(16)));

static uint64_t bits_of(double x)
{
    uint64_t bits;
    __builtin_memcpy(&bits, &x, 8);
    return bits;
}

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
    return bits_of(sum);
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
            __m128i low = _mm_unpacklo_epi8(a, _mm_setzero_si128()),
                    high = _mm_unpackhi_epi8(b, _mm_setzero_si128());
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

static double a[N][N], b[N][N], c[N][N];

static void setup_product(void)
{
    uint64_t seed = 29;
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            a[i][j] = (double)(rng_next(&seed) >> 40) * 0x1p-20;
            b[i][j] = (double)(rng_next(&seed) >> 40) * 0x1p-20;
        }
    }
}

static uint64_t run_product(uint64_t n)
{
    while (n--) {
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++) {
                double dot = 0;
                for (int k = 0; k < N; k++)
                    dot += a[i][k] * b[k][j];
                c[i][j] = dot;
            }
        }
        opaque(c);
    }
    return bits_of(c[3][5] + c[N - 1][N - 1]);
}

struct body {
    double at[3], speed[3], mass;
};

static void move(struct body *s)
{
    for (int i = 0; i < BODIES; i++) {
        for (int j = i + 1; j < BODIES; j++) {
            double d[3], square = 1e-3;
            for (int k = 0; k < 3; k++) {
                d[k] = s[i].at[k] - s[j].at[k];
                square += d[k] * d[k];
            }
            double pull = 0.001 / (square * __builtin_sqrt(square));
            for (int k = 0; k < 3; k++) {
                s[i].speed[k] -= d[k] * s[j].mass * pull;
                s[j].speed[k] += d[k] * s[i].mass * pull;
            }
        }
    }
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            s[i].at[k] += 0.001 * s[i].speed[k];
}

static uint64_t run_bodies(uint64_t n)
{
    struct body s[BODIES];
    while (n--) {
        uint64_t seed = 31;
        for (int i = 0; i < BODIES; i++) {
            for (int k = 0; k < 3; k++) {
                s[i].at[k] = (double)(rng_next(&seed) >> 44) * 0x1p-16;
                s[i].speed[k] = (double)(rng_next(&seed) >> 44) * 0x1p-20;
            }
            s[i].mass = (double)(i + 1);
        }
        for (int i = 0; i < MOVES; i++)
            move(s);
        opaque(s);
    }
    return bits_of(s[0].at[0] + s[4].speed[2]);
}

static float wave[FLOATS] __attribute__((aligned(16)));

static void setup_packed(void)
{
    for (int i = 0; i < FLOATS; i++)
        wave[i] = (float)(i % 251) * 0.125f + 1.0f;
}

static uint64_t run_packed(uint64_t n)
{
    __m128 sum = _mm_setzero_ps();
    while (n--) {
        sum = _mm_setzero_ps();
        for (int i = 0; i < FLOATS; i += 8) {
            __m128 x = _mm_load_ps(wave + i), y = _mm_load_ps(wave + i + 4);
            __m128 p = _mm_add_ps(_mm_mul_ps(x, y), _mm_sqrt_ps(y));
            __m128 above = _mm_cmplt_ps(x, y);
            sum = _mm_add_ps(sum, _mm_or_ps(_mm_and_ps(above, p), _mm_andnot_ps(above, _mm_div_ps(p, x))));
            sum = _mm_max_ps(sum, _mm_shuffle_ps(p, x, 0x1b));
            sum = _mm_sub_ps(sum, _mm_cvtepi32_ps(_mm_cvttps_epi32(x)));
        }
        opaque(wave);
    }
    uint64_t lanes[2];
    _mm_storeu_ps((float *)(void *)lanes, sum);
    return lanes[0] ^ lanes[1] * 3;
}

const struct workload float_workloads[] = {
    { "stencil", "fp", "point", POINTS *SWEEPS, .run = run_stencil },
    { "product", "fp", "product", 1, .setup = setup_product, .run = run_product },
    { "bodies", "fp", "step", MOVES, .run = run_bodies },
    { "packed", "fp", "KiB", FLOATS * 4 / 1024, .setup = setup_packed, .run = run_packed },
    { "simd", "fp", "KiB", BYTES / 1024, .setup = setup_simd, .run = run_simd },
    { "x87", "fp", "term", TERMS, .run = run_x87 },
    { 0 },
};
