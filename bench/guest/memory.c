/* SPDX-License-Identifier: Apache-2.0 */
/* Memory: dependent loads in working sets of L1, L2 and RAM size, and copies by REP MOVS and by SIMD. */
#include "bench.h"

#include <emmintrin.h>
#include <stdlib.h>

enum { LINE = 64, LOADS = 1024, COPY = 65536 };

struct line {
    struct line *next;
    uint8_t rest[LINE - sizeof(void *)];
};

static struct line *head;
static uint8_t from[COPY] __attribute__((aligned(64))), to[COPY] __attribute__((aligned(64)));

/* One ring through all lines in random order (Sattolo), so that no prefetcher sees a pattern. */
static void ring(size_t bytes)
{
    size_t count = bytes / LINE;
    uint64_t seed = 19;
    struct line *lines = aligned_alloc(4096, bytes);
    need(lines != NULL, "memory for the pointer chase");
    for (size_t i = 0; i < count; i++)
        lines[i].next = &lines[i];
    for (size_t i = count - 1; i > 0; i--) {
        size_t j = (size_t)((unsigned __int128)rng_next(&seed) * i >> 64);
        struct line *t = lines[i].next;
        lines[i].next = lines[j].next;
        lines[j].next = t;
    }
    head = lines;
}

static void setup_l1(void)
{
    ring(16 << 10);
}
static void setup_l2(void)
{
    ring(256 << 10);
}
static void setup_ram(void)
{
    ring(64 << 20);
}

static uint64_t run_chase(uint64_t n)
{
    struct line *p = head;
    while (n--) {
        for (int i = 0; i < LOADS; i += 4) {
            p = p->next;
            p = p->next;
            p = p->next;
            p = p->next;
        }
    }
    opaque(p);
    return 0;
}

static void setup_copy(void)
{
    for (size_t i = 0; i < COPY; i++)
        from[i] = (uint8_t)(i * 7);
}

static uint64_t run_rep(uint64_t n)
{
    while (n--) {
        void *d = to, *s = from;
        size_t count = COPY / 8;
        __asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(count) : : "memory");
    }
    return to[COPY - 1];
}

static uint64_t run_sse(uint64_t n)
{
    while (n--) {
        for (size_t i = 0; i < COPY; i += 64) {
            for (size_t k = 0; k < 64; k += 16)
                _mm_store_si128((__m128i *)(to + i + k), _mm_load_si128((const __m128i *)(from + i + k)));
        }
        opaque(to);
    }
    return to[COPY - 1];
}

const struct workload memory_workloads[] = {
    { "chase_l1", "mem", "load", LOADS, 0, setup_l1, run_chase },
    { "chase_l2", "mem", "load", LOADS, 0, setup_l2, run_chase },
    { "chase_ram", "mem", "load", LOADS, 0, setup_ram, run_chase },
    { "copy_rep", "mem", "KiB", COPY / 1024, 0, setup_copy, run_rep },
    { "copy_sse", "mem", "KiB", COPY / 1024, 0, setup_copy, run_sse },
    { 0 },
};
