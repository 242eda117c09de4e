/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores that go past the caches (MOVNTDQ), and the source's next page fetched while this one is copied.
 *
 * The host's REP MOVSB does the same for one long run, but a guest's pages lie anywhere in the host: a run ends with each of
 * them, and the prefetchers stop at its end. What is not a whole line at either end is done by REP MOVSB.
 */
#include "engine/interp/stream.h"

#include <emmintrin.h>
#include <string.h>

#define LINE 64u

static size_t to_line(const uint8_t *p) { return -(uintptr_t)p & (LINE - 1); }

static void copy_bytes(uint8_t *dst, const uint8_t *src, size_t n)
{
    __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

static void copy_line(uint8_t *dst, const uint8_t *src)
{
    __m128i x[LINE / 16];
    for (unsigned i = 0; i < LINE / 16; i++)
        x[i] = _mm_loadu_si128((const __m128i *)(const void *)src + i);
    for (unsigned i = 0; i < LINE / 16; i++)
        _mm_stream_si128((__m128i *)(void *)dst + i, x[i]);
}

void stream_copy(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *next)
{
    size_t head = to_line(dst) < n ? to_line(dst) : n;
    copy_bytes(dst, src, head);
    dst += head, src += head, n -= head;
    for (; n >= LINE; dst += LINE, src += LINE, n -= LINE) {
        copy_line(dst, src);
        if (next) {
            _mm_prefetch((const char *)next, _MM_HINT_T0);
            next += LINE;
        }
    }
    copy_bytes(dst, src, n);
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
