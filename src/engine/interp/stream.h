/* SPDX-License-Identifier: Apache-2.0 */
/* Copies that are larger than the caches, page by page: past the caches, and later pages of the source fetched early. */
#ifndef SUNDOG_ENGINE_INTERP_STREAM_H
#define SUNDOG_ENGINE_INTERP_STREAM_H

#include "base/types.h"

/* From so many bytes on a string instruction is better done so: measured, more than its share of the last cache. */
#define STREAM_COPY_MIN (8u << 20)
#define STREAM_FILL_MIN (32u << 20)

/* Copies n bytes that do not overlap. `ahead`: as many bytes that are fetched meanwhile, or NULL. Any alignment. */
void stream_copy(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *ahead);
/* Stores `val` again and again, n bytes in all. */
void stream_fill(uint8_t *dst, uint64_t val, size_t n);
/* To be called behind the last of them: as the stores of a string instruction, theirs come before all that follow. */
void stream_end(void);

#endif
