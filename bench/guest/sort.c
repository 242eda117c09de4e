/* SPDX-License-Identifier: Apache-2.0 */
/* Sorting: quicksort with an insertion sort for short pieces, over shuffled numbers. */
#include "bench.h"

enum { COUNT = 4096, SHORT = 12 };

static uint32_t numbers[COUNT];

static void insertion(uint32_t *a, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        uint32_t x = a[i];
        size_t j = i;
        for (; j && a[j - 1] > x; j--)
            a[j] = a[j - 1];
        a[j] = x;
    }
}

__attribute__((noinline)) static void quicksort(uint32_t *a, size_t n)
{
    while (n > SHORT) {
        uint32_t x = a[0], y = a[n / 2], z = a[n - 1];
        uint32_t pivot = x < y ? (y < z ? y : (x < z ? z : x)) : (x < z ? x : (y < z ? z : y));
        size_t i = 0, j = n - 1;
        for (;; i++, j--) {
            while (a[i] < pivot)
                i++;
            while (a[j] > pivot)
                j--;
            if (i >= j)
                break;
            uint32_t t = a[i];
            a[i] = a[j];
            a[j] = t;
        }
        quicksort(a + j + 1, n - j - 1);
        n = j + 1;
    }
    insertion(a, n);
}

static uint64_t run(uint64_t n)
{
    uint64_t sum = 0;
    while (n--) {
        uint64_t seed = 3;
        for (size_t i = 0; i < COUNT; i++)
            numbers[i] = (uint32_t)(rng_next(&seed) >> 32);
        quicksort(numbers, COUNT);
        sum = numbers[COUNT / 2];
        for (size_t i = 1; i < COUNT; i++)
            sum += numbers[i - 1] > numbers[i] ? 1ull << 40 : 0;
        opaque(numbers);
    }
    return sum;
}

const struct workload sort_workloads[] = { { "sort", "int", "number", COUNT, .run = run }, { 0 } };
