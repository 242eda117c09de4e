/* SPDX-License-Identifier: Apache-2.0 */
/* Unpacking kernels: each format packed here by its own library, whole and damaged. */
#include "boot_kit.h"

#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/bits.h"
#include "board/unpack.h"

#define PLAIN_LEN (9u << 20) /* more than one of lz4's blocks */
#define PACKED_MAX (16u << 20)

static uint8_t *plain, *packed;

static size_t pack_gzip(void)
{
    z_stream z = { .next_in = plain, .avail_in = PLAIN_LEN, .next_out = packed, .avail_out = PACKED_MAX };
    assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    size_t len = z.total_out;
    deflateEnd(&z);
    return len;
}

/* Linux packs with the x86 branch filter and LZMA2. */
static size_t pack_xz(void)
{
    lzma_options_lzma options;
    size_t len = 0;
    lzma_lzma_preset(&options, 0);
    lzma_filter filters[] = { { LZMA_FILTER_X86, NULL },
                              { LZMA_FILTER_LZMA2, &options },
                              { LZMA_VLI_UNKNOWN, NULL } };
    assert_int_equal(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL, plain, PLAIN_LEN, packed,
                                               &len, PACKED_MAX),
                     LZMA_OK);
    return len;
}

static size_t pack_lzma(void)
{
    lzma_options_lzma options;
    lzma_stream s = LZMA_STREAM_INIT;
    lzma_lzma_preset(&options, 0);
    assert_int_equal(lzma_alone_encoder(&s, &options), LZMA_OK);
    s.next_in = plain;
    s.avail_in = PLAIN_LEN;
    s.next_out = packed;
    s.avail_out = PACKED_MAX;
    assert_int_equal(lzma_code(&s, LZMA_FINISH), LZMA_STREAM_END);
    size_t len = s.total_out;
    lzma_end(&s);
    return len;
}

static size_t pack_zstd(void)
{
    size_t len = ZSTD_compress(packed, PACKED_MAX, plain, PLAIN_LEN, 1);
    assert_false(ZSTD_isError(len));
    return len;
}

static size_t pack_lz4(void)
{
    size_t len = 4;
    put_le32(packed, 0x184c2102);
    for (size_t from = 0; from < PLAIN_LEN; from += 8u << 20) {
        int n = PLAIN_LEN - from < 8u << 20 ? (int)(PLAIN_LEN - from) : 8 << 20;
        int made = LZ4_compress_default((char *)plain + from, (char *)packed + len + 4, n,
                                        (int)(PACKED_MAX - len - 4));
        assert_true(made > 0);
        put_le32(packed + len, (uint32_t)made);
        len += 4 + (size_t)made;
    }
    return len;
}

static const struct {
    const char *name;
    size_t (*pack)(void);
    bool appends; /* Linux's build appends the size; gzip ends with it by itself */
} formats[] = {
    { "gzip", pack_gzip, false }, { "xz", pack_xz, true },   { "lzma", pack_lzma, true },
    { "zstd", pack_zstd, true },  { "lz4", pack_lz4, true },
};

static size_t pack(unsigned i)
{
    size_t len = formats[i].pack();
    if (formats[i].appends) {
        put_le32(packed + len, PLAIN_LEN);
        len += 4;
    }
    return len;
}

static void unpacks(void **state)
{
    (void)state;
    for (unsigned i = 0; i < array_size(formats); i++) {
        uint8_t *out;
        size_t out_len, len = pack(i);
        struct error e = { 0 };
        if (unpack(packed, len, PLAIN_LEN, &out, &out_len, &e))
            fail_msg("%s: %s", formats[i].name, e.text);
        assert_int_equal(out_len, PLAIN_LEN);
        assert_memory_equal(out, plain, PLAIN_LEN);
        unpack_free(out);
        assert_int_equal(unpack(packed, len, PLAIN_LEN - 1, &out, &out_len, &e), -EFBIG);
        assert_null(out);
    }
}

/* The first `len` packed bytes, in a buffer that ends with them, are damaged. */
static void is_damaged(const char *format, size_t len)
{
    uint8_t *out, *in = malloc(len);
    size_t out_len;
    assert_non_null(in);
    memcpy(in, packed, len);
    int r = unpack(in, len, 64 * MIB, &out, &out_len, NULL);
    free(in);
    if (r != -EBADMSG)
        fail_msg("%s of %zu bytes: %d", format, len, r);
}

/* Declared sizes that are not what comes out, and data cut off, are damage; never more is written than declared. */
static void refuses_damage(void **state)
{
    (void)state;
    for (unsigned i = 0; i < array_size(formats); i++) {
        size_t len = pack(i);
        const uint32_t sizes[] = { 0, 15, 16, PLAIN_LEN / 2, PLAIN_LEN - 1, PLAIN_LEN + 1 };
        for (unsigned n = 0; n < array_size(sizes); n++) {
            put_le32(packed + len - 4, sizes[n]);
            is_damaged(formats[i].name, len);
        }
        const size_t cuts[] = { len / 2, 24, 16, 15, 1 };
        for (unsigned n = 0; n < array_size(cuts); n++) {
            if (cuts[n] >= 16)
                put_le32(packed + cuts[n] - 4, PLAIN_LEN);
            is_damaged(formats[i].name, cuts[n]);
        }
    }
}

/* lz4's block lengths lie in the data. */
static void refuses_bad_blocks(void **state)
{
    const uint32_t lengths[] = { 0, 1u << 30, 0x7fffffff, 0x80000000, 0xffffffff };
    (void)state;
    for (unsigned i = 0; i < array_size(lengths); i++) {
        size_t len = pack_lz4();
        put_le32(packed + len, PLAIN_LEN);
        put_le32(packed + 4, lengths[i]);
        is_damaged("lz4", len + 4);
    }
    /* A block that would need a few bytes more than there are. */
    memset(packed, 0xff, 64);
    put_le32(packed, 0x184c2102);
    put_le32(packed + 4, 60);
    put_le32(packed + 60, PLAIN_LEN);
    is_damaged("lz4", 64);
}

static void refuses_unknown(void **state)
{
    uint8_t *out, in[64] = "BZh91AY&SY";
    size_t out_len;
    struct error e = { 0 };
    (void)state;
    assert_int_equal(unpack(in, sizeof(in), MIB, &out, &out_len, &e), -ENOTSUP);
    assert_non_null(strstr(e.text, "bzip2"));
    assert_non_null(strstr(e.text, "--kernel-entry bzimage"));
    memset(in, 0x55, sizeof(in));
    assert_int_equal(unpack(in, sizeof(in), MIB, &out, &out_len, &e), -ENOTSUP);
}

static void takes_unpacked(void **state)
{
    uint8_t *out, in[64] = "\177ELF";
    size_t out_len;
    (void)state;
    assert_int_equal(unpack(in, sizeof(in), MIB, &out, &out_len, NULL), 0);
    assert_int_equal(out_len, sizeof(in));
    assert_memory_equal(out, in, sizeof(in));
    unpack_free(out);
    assert_int_equal(unpack(in, sizeof(in), 63, &out, &out_len, NULL), -EFBIG);
}

static int set_up(void **state)
{
    (void)state;
    plain = malloc(PLAIN_LEN);
    packed = malloc(PACKED_MAX);
    kit_fill(plain, PLAIN_LEN, 7);
    /* Calls, for the branch filter to work on. */
    for (size_t i = 0; i + 5 < PLAIN_LEN; i += 64)
        plain[i] = 0xe8;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(plain);
    free(packed);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unpacks),
        cmocka_unit_test(refuses_damage),
        cmocka_unit_test(refuses_bad_blocks),
        cmocka_unit_test(refuses_unknown),
        cmocka_unit_test(takes_unpacked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
