/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores that go past the caches (MOVNTDQ), and a page of the source that comes later fetched while one is copied.
 *
 * The host's REP MOVSB does the same for one long run, but a guest's pages lie anywhere in the host: a run ends with each of
 * them, and the prefetchers stop at its end. What is not a whole line at either end is done by REP MOVSB. Two stores a line take
 * half the time of four.
 */
#include "engine/interp/stream.h"

#include <immintrin.h>
#include <string.h>

#define LINE 64u

static size_t to_line(const uint8_t *p) { return -(uintptr_t)p & (LINE - 1); }

static void copy_bytes(uint8_t *dst, const uint8_t *src, size_t n)
{
    __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

/* n: whole lines. `ahead`: fetched meanwhile, line by line, or NULL. */
static void copy_lines(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *ahead)
{
    for (size_t at = 0; at < n; at += LINE) {
        __m128i x[LINE / 16];
        if (ahead)
            _mm_prefetch((const char *)ahead + at, _MM_HINT_T0);
        for (unsigned i = 0; i < LINE / 16; i++)
            x[i] = _mm_loadu_si128((const __m128i *)(const void *)(src + at) + i);
        for (unsigned i = 0; i < LINE / 16; i++)
            _mm_stream_si128((__m128i *)(void *)(dst + at) + i, x[i]);
    }
}

__attribute__((target("avx2"))) static void copy_lines_wide(uint8_t *dst, const uint8_t *src, size_t n,
                                                            const uint8_t *ahead)
{
    for (size_t at = 0; at < n; at += LINE) {
        if (ahead)
            _mm_prefetch((const char *)ahead + at, _MM_HINT_T0);
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(src + at));
        __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(src + at + 32));
        _mm256_stream_si256((__m256i *)(void *)(dst + at), a);
        _mm256_stream_si256((__m256i *)(void *)(dst + at + 32), b);
    }
}

void stream_copy(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *ahead)
{
    size_t head = to_line(dst) < n ? to_line(dst) : n;
    copy_bytes(dst, src, head);
    dst += head, src += head, n -= head;
    size_t lines = n & ~(size_t)(LINE - 1);
    (__builtin_cpu_supports("avx2") ? copy_lines_wide : copy_lines)(dst, src, lines, ahead);
    copy_bytes(dst + lines, src + lines, n - lines);
}

void stream_end(void) { _mm_sfence(); }

void stream_fill(uint8_t *dst, uint64_t val, size_t n)
{
    unsigned turn = 8 * (to_line(dst) & 7); /* of the value behind the head */
    uint64_t turned = turn ? val >> turn | val << (64 - turn) : val;
    __m128i x = _mm_set1_epi64x((long long)turned);
    size_t head = to_line(dst) < n ? to_line(dst) : n;
    for (size_t i = 0; i < head; i++)
        dst[i] = (uint8_t)(val >> (8 * (i & 7)));
    dst += head, n -= head;
    for (; n >= LINE; dst += LINE, n -= LINE)
        for (unsigned i = 0; i < LINE / 16; i++)
            _mm_stream_si128((__m128i *)(void *)dst + i, x);
    for (size_t i = 0; i < n; i++)
        dst[i] = (uint8_t)(turned >> (8 * (i & 7)));
}
