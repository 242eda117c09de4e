/* SPDX-License-Identifier: Apache-2.0 */
/* Bit fields, sign extension, unaligned little-endian loads and stores. */
#ifndef SUNDOG_BASE_BITS_H
#define SUNDOG_BASE_BITS_H

#include <string.h>

#include "base/types.h"

#define BIT(n) (1ull << (n))

static inline uint64_t bits(uint64_t v, unsigned low, unsigned count)
{
    return (v >> low) & (count >= 64 ? ~0ull : BIT(count) - 1);
}

/* All ones in the low `bytes` (1..8) bytes. */
static inline uint64_t mask_bytes(unsigned bytes) { return bytes >= 8 ? ~0ull : BIT(bytes * 8) - 1; }

/* Number of the lowest bit of v, which is not 0. */
static inline unsigned lowest_bit(uint64_t v) { return (unsigned)__builtin_ctzll(v); }

/* Sign-extends the low `bits_` (1..64) bits. */
static inline int64_t sext(uint64_t v, unsigned bits_)
{
    return (int64_t)(v << (64 - bits_)) >> (64 - bits_);
}

/* A slot in a table of 1 << bits_ (1..32): multiplicative hashing. */
static inline unsigned hash_slot(uint64_t n, unsigned bits_)
{
    return (unsigned)(n * 0x9e3779b97f4a7c15ull >> (64 - bits_));
}

/* clang-format off */
static inline uint16_t get_le16(const void *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t get_le32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t get_le64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline void put_le16(void *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void put_le32(void *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void put_le64(void *p, uint64_t v) { memcpy(p, &v, 8); }
/* clang-format on */

#endif
