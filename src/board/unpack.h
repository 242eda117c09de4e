/* SPDX-License-Identifier: Apache-2.0 */
/* Unpacking the kernel that is packed inside a bzImage: gzip, xz, lzma, zstd, lz4 or not packed at all. */
#ifndef SUNDOG_BOARD_UNPACK_H
#define SUNDOG_BOARD_UNPACK_H

#include "base/error.h"
#include "base/types.h"

/* Unpacks `in`, whose last four bytes tell the size of the result (as Linux's build appends it, and gzip
 * has it anyway). -EFBIG when that is more than `limit`, -ENOTSUP for an unknown format, -EBADMSG for
 * damaged data. *out is the caller's, to be given to unpack_free(). */
int unpack(const uint8_t *in, size_t len, uint64_t limit, uint8_t **out, size_t *out_len, struct error *e);
void unpack_free(uint8_t *out);

#endif
