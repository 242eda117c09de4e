/* SPDX-License-Identifier: Apache-2.0 */
/* Compression: text packed by greedy LZ77 with a hash table, unpacked again and compared. */
#include "bench.h"

enum { TEXT = 8192, PACKED = TEXT * 2, TABLE = 4096, MIN_MATCH = 4, MAX_MATCH = 130, MAX_RUN = 127 };

static uint8_t text[TEXT], packed[PACKED], unpacked[TEXT];
static uint16_t table[TABLE];

static void setup(void)
{
    static const char *const words[] = { "the ",     "sun ",     "dog ",    "stands ", "beside ", "a ",
                                         "bright ",  "double, ", "of ",     "ice ",    "and ",    "light. ",
                                         "machine ", "monitor ", "guest\n", "0x" };
    uint64_t seed = 7;
    for (size_t i = 0; i < TEXT;) {
        uint64_t r = rng_next(&seed);
        for (const char *w = words[r >> 60]; *w && i < TEXT; w++)
            text[i++] = (uint8_t)*w;
        if ((r & 7) == 0 && i < TEXT)
            text[i++] = (uint8_t)('0' + (r >> 8) % 75);
    }
}

static inline uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* A run of literals is its length (1..127) and the bytes; a match is 0x80 + length - 4 and two bytes of distance. */
static size_t pack(void)
{
    size_t out = 0, literals = 0, i = 0;
    for (size_t k = 0; k < TABLE; k++)
        table[k] = 0;
    while (i < TEXT) {
        size_t len = 0, from = 0;
        if (i + MIN_MATCH <= TEXT) {
            uint32_t word = load32(text + i), slot = word * 2654435761u >> 20;
            from = table[slot];
            table[slot] = (uint16_t)i;
            if (from < i && load32(text + from) == word)
                for (len = MIN_MATCH; len < MAX_MATCH && i + len < TEXT && text[from + len] == text[i + len];)
                    len++;
        }
        if (!len) {
            literals++;
            i++;
        }
        if (literals && (len || literals == MAX_RUN || i == TEXT)) {
            packed[out++] = (uint8_t)literals;
            for (size_t k = i - literals; k < i; k++)
                packed[out++] = text[k];
            literals = 0;
        }
        if (len) {
            packed[out++] = (uint8_t)(0x80 + len - MIN_MATCH);
            packed[out++] = (uint8_t)(i - from);
            packed[out++] = (uint8_t)((i - from) >> 8);
            i += len;
        }
    }
    return out;
}

static size_t unpack(size_t size)
{
    size_t out = 0;
    for (size_t in = 0; in < size;) {
        uint8_t head = packed[in++];
        if (head < 0x80) {
            while (head--)
                unpacked[out++] = packed[in++];
        } else {
            size_t distance = packed[in] | (size_t)packed[in + 1] << 8, len = head - 0x80u + MIN_MATCH;
            in += 2;
            for (; len--; out++)
                unpacked[out] = unpacked[out - distance];
        }
    }
    return out;
}

static uint64_t run(uint64_t n)
{
    uint64_t sum = 0;
    while (n--) {
        size_t size = pack(), back = unpack(size);
        size_t same = 0;
        while (same < TEXT && unpacked[same] == text[same])
            same++;
        sum = size << 32 | (back == TEXT && same == TEXT);
        opaque(text);
    }
    return sum;
}

const struct workload compress_workloads[] = {
    { "compress", "int", "KiB", TEXT / 1024, .setup = setup, .run = run }, { 0 }
};
