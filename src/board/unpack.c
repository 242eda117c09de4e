/* SPDX-License-Identifier: Apache-2.0 */
/* Unpacking kernels: one table of formats, each unpacked in one step into a buffer of the declared size. */
#include "board/unpack.h"

#include <errno.h>
#include <limits.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/bits.h"
#include "base/checked.h"
#include "host/memory.h"

/* More than any kernel's dictionary, less than what a hostile header could ask for. */
#define LZMA_MEMORY_MAX (512ull << 20)

/* True when `in` unpacks to exactly out_len bytes. What follows the packed data is ignored: it is that size. */
typedef bool unpacker(const uint8_t *in, size_t len, uint8_t *out, size_t out_len);

static bool unpack_gzip(const uint8_t *in, size_t len, uint8_t *out, size_t out_len)
{
    if (len > UINT_MAX || out_len > UINT_MAX)
        return false;
    /* zlib's interface is older than const. */
    z_stream z = {
        .next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)len, .next_out = out, .avail_out = (uInt)out_len
    };
    const int gzip_wrapper = 16;
    if (inflateInit2(&z, gzip_wrapper + MAX_WBITS) != Z_OK)
        return false;
    int r = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return r == Z_STREAM_END && z.avail_out == 0;
}

static bool unpack_xz(const uint8_t *in, size_t len, uint8_t *out, size_t out_len)
{
    uint64_t memory = LZMA_MEMORY_MAX;
    size_t in_pos = 0, out_pos = 0;
    return lzma_stream_buffer_decode(&memory, 0, NULL, in, &in_pos, len, out, &out_pos, out_len) == LZMA_OK &&
           out_pos == out_len;
}

static bool unpack_lzma(const uint8_t *in, size_t len, uint8_t *out, size_t out_len)
{
    lzma_stream s = LZMA_STREAM_INIT;
    if (lzma_alone_decoder(&s, LZMA_MEMORY_MAX) != LZMA_OK)
        return false;
    s.next_in = in;
    s.avail_in = len;
    s.next_out = out;
    s.avail_out = out_len;
    lzma_ret r = lzma_code(&s, LZMA_FINISH);
    lzma_end(&s);
    return r == LZMA_STREAM_END && s.avail_out == 0;
}

static bool unpack_zstd(const uint8_t *in, size_t len, uint8_t *out, size_t out_len)
{
    size_t frame = ZSTD_findFrameCompressedSize(in, len);
    return !ZSTD_isError(frame) && ZSTD_decompress(out, out_len, in, frame) == out_len;
}

/* lz4's legacy frame: a magic number, then blocks of (packed length, data), each unpacking to at most 8 MiB. */
static bool unpack_lz4(const uint8_t *in, size_t len, uint8_t *out, size_t out_len)
{
    const size_t block_max = 8u << 20;
    size_t at = 4, made = 0;
    while (made < out_len && ck_range(at, 4, len)) {
        size_t packed = get_le32(in + at);
        at += 4;
        if (packed == 0 || packed > INT_MAX || !ck_range(at, packed, len))
            return false;
        size_t room = out_len - made < block_max ? out_len - made : block_max;
        int n = LZ4_decompress_safe((const char *)in + at, (char *)out + made, (int)packed, (int)room);
        if (n <= 0)
            return false;
        at += packed;
        made += (size_t)n;
    }
    return made == out_len;
}

/* Magic numbers as Linux's own list of formats has them (lib/decompress.c). */
static const struct format {
    const char *name;
    uint8_t magic[6];
    uint8_t magic_len;
    unpacker *unpack; /* NULL: known, not unpacked here */
} formats[] = {
    { "gzip", { 0x1f, 0x8b }, 2, unpack_gzip },
    { "xz", { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, unpack_xz },
    { "zstd", { 0x28, 0xb5, 0x2f, 0xfd }, 4, unpack_zstd },
    { "lz4", { 0x02, 0x21, 0x4c, 0x18 }, 4, unpack_lz4 },
    { "lzma", { 0x5d, 0, 0 }, 3, unpack_lzma },
    { "bzip2", { 'B', 'Z', 'h' }, 3, NULL },
    { "lzo", { 0x89, 'L', 'Z', 'O', 0, 0x0d }, 6, NULL },
};

static const struct format *find_format(const uint8_t *in, size_t len)
{
    for (unsigned i = 0; i < array_size(formats); i++)
        if (len >= formats[i].magic_len && !memcmp(in, formats[i].magic, formats[i].magic_len))
            return &formats[i];
    return NULL;
}

static int copy_plain(const uint8_t *in, size_t len, uint64_t limit, uint8_t **out, size_t *out_len,
                      struct error *e)
{
    if (len > limit)
        return error_set(e, -EFBIG, "the kernel inside is %zu bytes, more than fits; try more --memory", len);
    *out = malloc(len);
    if (!*out)
        return error_set(e, -ENOMEM, "no memory on the host for a kernel of %zu bytes", len);
    memcpy(*out, in, len);
    *out_len = len;
    return 0;
}

int unpack(const uint8_t *in, size_t len, uint64_t limit, uint8_t **out, size_t *out_len, struct error *e)
{
    *out = NULL;
    *out_len = 0;
    if (len < 16)
        return error_set(e, -EBADMSG, "the packed kernel has only %zu bytes: the file is damaged", len);
    if (!memcmp(in, "\177ELF", 4))
        return copy_plain(in, len, limit, out, out_len, e);
    const struct format *f = find_format(in, len);
    if (!f || !f->unpack)
        return error_set(e, -ENOTSUP,
                         "the kernel inside is packed in %s, which is not unpacked here; "
                         "try --kernel-entry bzimage",
                         f ? f->name : "an unknown format");
    size_t size = get_le32(in + len - 4);
    if (size < 16)
        return error_set(e, -EBADMSG,
                         "the %s data inside says that it unpacks to %zu bytes: the file is damaged", f->name,
                         size);
    if (size > limit)
        return error_set(e, -EFBIG,
                         "the kernel inside unpacks to %zu bytes, more than fits; try more --memory", size);
    uint8_t *made = malloc(size);
    if (!made)
        return error_set(e, -ENOMEM, "no memory on the host to unpack a kernel of %zu bytes", size);
    host_memory_will_fill(made, size);
    if (!f->unpack(in, len, made, size)) {
        free(made);
        return error_set(e, -EBADMSG,
                         "the %s data inside does not unpack to the %zu bytes it declares: "
                         "the file is damaged; try a fresh copy",
                         f->name, size);
    }
    *out = made;
    *out_len = size;
    return 0;
}

void unpack_free(uint8_t *out) { free(out); }
