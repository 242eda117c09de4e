/* SPDX-License-Identifier: Apache-2.0 */
/* Hashing: SHA-256 over a buffer, and a table with open addressing under inserts and look-ups. */
#include "bench.h"

enum { BYTES = 2048, SLOTS = 2048, KEYS = 1024 };

static uint8_t buffer[BYTES];
static uint64_t slots[SLOTS];
static uint32_t k[64];

/* FIPS 180-4 4.2.2: the fractional parts of the cube roots of the first primes, found by integer search. */
static uint32_t cube_root_bits(uint32_t prime)
{
    /* Largest r with r^3 <= prime * 2^96, of which the low 32 bits are the fraction. */
    uint64_t r = 0;
    for (int bit = 34; bit >= 0; bit--) {
        uint64_t t = r | 1ull << bit;
        unsigned __int128 square = (unsigned __int128)t * t;
        /* t^3 < 2^105 for these primes: no overflow. */
        if (square * t <= (unsigned __int128)prime << 96)
            r = t;
    }
    return (uint32_t)r;
}

static void setup(void)
{
    uint64_t seed = 11;
    for (size_t i = 0; i < BYTES; i++)
        buffer[i] = (uint8_t)(rng_next(&seed) >> 32);
    uint32_t prime = 2;
    for (int i = 0; i < 64; prime++) {
        int composite = 0;
        for (uint32_t d = 2; d * d <= prime; d++)
            composite |= prime % d == 0;
        if (!composite)
            k[i++] = cube_root_bits(prime);
    }
}

static inline uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_block(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++, p += 4)
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    for (int i = 0; i < 8; i++)
        v[i] = h[i];
    for (int i = 0; i < 64; i++) {
        uint32_t e = v[4], a = v[0];
        uint32_t t1 = v[7] + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + k[i] + w[i];
        uint32_t t2 = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        for (int j = 7; j > 0; j--)
            v[j] = v[j - 1];
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        h[i] += v[i];
}

static uint64_t table_churn(uint64_t seed)
{
    uint64_t probes = 0;
    for (size_t i = 0; i < SLOTS; i++)
        slots[i] = 0;
    for (int i = 0; i < KEYS; i++) {
        uint64_t key = rng_next(&seed) | 1, at = key >> 53;
        for (; slots[at] && slots[at] != key; at = (at + 1) % SLOTS)
            probes++;
        slots[at] = key;
    }
    return probes;
}

static uint64_t run(uint64_t n)
{
    uint64_t sum = 0;
    while (n--) {
        uint32_t h[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
        for (size_t at = 0; at < BYTES; at += 64)
            sha256_block(h, buffer + at);
        sum = ((uint64_t)h[0] << 32 | h[7]) + table_churn(5);
        opaque(buffer);
    }
    return sum;
}

const struct workload hash_workloads[] = { { "hash", "int", "KiB", BYTES / 1024, .setup = setup, .run = run },
                                           { 0 } };
