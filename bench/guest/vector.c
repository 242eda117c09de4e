/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors wider than SSE, for machines that show them: AVX2 with FMA, and AVX-512. */
#include "bench.h"

#include <immintrin.h>

enum { FLOATS = 4096 };

static float x[FLOATS] __attribute__((aligned(64))), y[FLOATS] __attribute__((aligned(64)));

static void setup(void)
{
    for (int i = 0; i < FLOATS; i++) {
        x[i] = (float)(i % 127) * 0.25f;
        y[i] = (float)(i % 31) * 0.5f;
    }
}

static const char *no_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? NULL : "no AVX2 or no FMA";
}

static const char *no_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? NULL : "no AVX-512";
}

/* Whole sums of exact terms: the order of addition does not show in them. */
static uint64_t total(const float *lanes, int n)
{
    uint64_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += (uint64_t)(int64_t)(lanes[i] * 8.0f);
    return sum;
}

__attribute__((target("avx2,fma"))) static uint64_t run_avx2(uint64_t n)
{
    float lanes[8];
    __m256 sum = _mm256_setzero_ps();
    while (n--) {
        sum = _mm256_setzero_ps();
        for (int i = 0; i < FLOATS; i += 8) {
            __m256 p = _mm256_load_ps(x + i), q = _mm256_load_ps(y + i);
            __m256i swapped = _mm256_shuffle_epi8(_mm256_castps_si256(q), _mm256_set1_epi32(0x03020100));
            sum = _mm256_fmadd_ps(p, _mm256_castsi256_ps(_mm256_and_si256(swapped, _mm256_castps_si256(q))),
                                  sum);
        }
        opaque(x);
    }
    _mm256_storeu_ps(lanes, sum);
    return total(lanes, 8);
}

__attribute__((target("avx512f,avx512bw"))) static uint64_t run_avx512(uint64_t n)
{
    float lanes[16];
    __m512 sum = _mm512_setzero_ps();
    while (n--) {
        sum = _mm512_setzero_ps();
        for (int i = 0; i < FLOATS; i += 16) {
            __m512 p = _mm512_load_ps(x + i), q = _mm512_load_ps(y + i);
            __mmask16 less = _mm512_cmp_ps_mask(p, q, _CMP_LT_OS);
            sum = _mm512_mask3_fmadd_ps(p, q, sum, (__mmask16)~less);
            sum = _mm512_mask_add_ps(sum, less, sum, p);
        }
        opaque(x);
    }
    _mm512_storeu_ps(lanes, sum);
    return total(lanes, 16);
}

const struct workload vector_workloads[] = {
    { "avx2", "vector", "KiB", FLOATS * 8 / 1024, .missing = no_avx2, .setup = setup, .run = run_avx2 },
    { "avx512", "vector", "KiB", FLOATS * 8 / 1024, .missing = no_avx512, .setup = setup, .run = run_avx512 },
    { 0 },
};
