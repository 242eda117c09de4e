/* SPDX-License-Identifier: Apache-2.0 */
/* Integer matrices: a product of three nested loops. */
#include "bench.h"

enum { N = 32 };

static int32_t a[N][N], b[N][N], c[N][N];

static void setup(void)
{
    uint64_t seed = 9;
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            a[i][j] = (int32_t)(rng_next(&seed) >> 50);
            b[i][j] = (int32_t)(rng_next(&seed) >> 50);
        }
    }
}

static uint64_t run(uint64_t n)
{
    uint64_t sum = 0;
    while (n--) {
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++) {
                int32_t dot = 0;
                for (int k = 0; k < N; k++)
                    dot += a[i][k] * b[k][j];
                c[i][j] = dot;
            }
        }
        opaque(c);
        sum = (uint32_t)c[3][5] | (uint64_t)(uint32_t)c[N - 1][N - 1] << 32;
    }
    return sum;
}

const struct workload matrix_workloads[] = { { "matrix", "int", "product", 1, .setup = setup, .run = run },
                                             { 0 } };
