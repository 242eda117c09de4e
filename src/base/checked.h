/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic on numbers that a guest or a file chose: true when the result does not fit. */
#ifndef SUNDOG_BASE_CHECKED_H
#define SUNDOG_BASE_CHECKED_H

#include "base/types.h"

static inline must_use bool ck_add(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_add_overflow(a, b, out);
}

static inline must_use bool ck_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_mul_overflow(a, b, out);
}

/* True when [off, off+len) lies inside [0, size). */
static inline must_use bool ck_range(uint64_t off, uint64_t len, uint64_t size)
{
    return off <= size && len <= size - off;
}

#endif
