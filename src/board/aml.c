/* SPDX-License-Identifier: Apache-2.0 */
/* The encodings of AML terms and resource descriptors. */
#include "board/aml.h"

#include <string.h>

#include "base/bits.h"

enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    PREFIX_BYTE = 0x0a,
    PREFIX_WORD = 0x0b,
    PREFIX_DWORD = 0x0c,
    PREFIX_STRING = 0x0d,
    PREFIX_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    PREFIX_EXTENDED = 0x5b,
    OP_DEVICE = 0x82, /* after PREFIX_EXTENDED */
};

void aml_bytes(struct aml *a, const void *bytes, size_t len)
{
    if (a->full || len > a->cap - a->len) {
        a->full = true;
        return;
    }
    memcpy(a->buf + a->len, bytes, len);
    a->len += len;
}

void aml_byte(struct aml *a, uint8_t byte) { aml_bytes(a, &byte, 1); }

static void word(struct aml *a, uint16_t v) { aml_bytes(a, &v, 2); }

static void dword(struct aml *a, uint32_t v) { aml_bytes(a, &v, 4); }

static void name_string(struct aml *a, const char *name)
{
    if (*name == '\\')
        aml_byte(a, (uint8_t)*name++);
    aml_bytes(a, name, strnlen(name, 4));
    /* Short names are padded. */
    for (size_t n = strnlen(name, 4); n < 4; n++)
        aml_byte(a, '_');
}

/* A package length counts itself. It is always written in its three-byte form, so that it can be filled in
 * later. */
#define PKG_LENGTH_BYTES 3

static size_t open_package_length(struct aml *a)
{
    size_t at = a->len;
    aml_bytes(a, (const uint8_t[PKG_LENGTH_BYTES]){ 0 }, PKG_LENGTH_BYTES);
    return at;
}

void aml_close(struct aml *a, size_t opened)
{
    if (a->full)
        return;
    size_t len = a->len - opened;
    a->buf[opened] = (uint8_t)((PKG_LENGTH_BYTES - 1) << 6 | (len & 0xf));
    a->buf[opened + 1] = (uint8_t)(len >> 4);
    a->buf[opened + 2] = (uint8_t)(len >> 12);
}

size_t aml_open_scope(struct aml *a, const char *name)
{
    aml_byte(a, OP_SCOPE);
    size_t at = open_package_length(a);
    name_string(a, name);
    return at;
}

size_t aml_open_device(struct aml *a, const char *name)
{
    aml_byte(a, PREFIX_EXTENDED);
    aml_byte(a, OP_DEVICE);
    size_t at = open_package_length(a);
    name_string(a, name);
    return at;
}

size_t aml_open_package(struct aml *a, uint8_t elements)
{
    aml_byte(a, OP_PACKAGE);
    size_t at = open_package_length(a);
    aml_byte(a, elements);
    return at;
}

void aml_name(struct aml *a, const char *name)
{
    aml_byte(a, OP_NAME);
    name_string(a, name);
}

void aml_integer(struct aml *a, uint64_t value)
{
    static const struct {
        uint64_t max;
        uint8_t prefix, len;
    } forms[] = {
        { UINT8_MAX, PREFIX_BYTE, 1 },
        { UINT16_MAX, PREFIX_WORD, 2 },
        { UINT32_MAX, PREFIX_DWORD, 4 },
        { UINT64_MAX, PREFIX_QWORD, 8 },
    };
    if (value <= 1) {
        aml_byte(a, value ? OP_ONE : OP_ZERO);
        return;
    }
    unsigned i = 0;
    while (value > forms[i].max)
        i++;
    aml_byte(a, forms[i].prefix);
    aml_bytes(a, &value, forms[i].len);
}

/* Three letters of five bits, four hexadecimal digits, the bytes swapped (ACPI 6.4, 19.3.4). */
void aml_eisa_id(struct aml *a, const char *id)
{
    uint32_t v = 0;
    for (unsigned i = 0; i < 3; i++)
        v = v << 5 | ((uint32_t)(id[i] - 'A' + 1) & 0x1f);
    for (unsigned i = 3; i < 7; i++)
        v = v << 4 | (uint32_t)(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10);
    aml_integer(a, __builtin_bswap32(v));
}

void aml_string(struct aml *a, const char *text)
{
    aml_byte(a, PREFIX_STRING);
    aml_bytes(a, text, strlen(text) + 1);
}

/* --- resource templates --------------------------------------------------------------------------------- */

enum {
    SMALL_IRQ = 0x22,   /* type 4, two bytes: edge, high, exclusive */
    SMALL_IO = 0x47,    /* type 8, seven bytes */
    SMALL_END = 0x79,   /* type 15, one byte: a checksum, 0 for none */
    LARGE_DWORD = 0x87, /* address spaces with 32- and 16-bit fields */
    LARGE_WORD = 0x88,
    SPACE_MEMORY = 0,
    SPACE_IO = 1,
    SPACE_BUS = 2,
    FLAGS_FIXED_POSITIVE = 0x0c, /* minimum and maximum fixed, decoded positively: a window of a bridge */
    MEMORY_WRITABLE = 1,
    IO_ENTIRE_RANGE = 3,
};

struct aml_template aml_open_template(struct aml *a, const char *name)
{
    struct aml_template t;
    aml_name(a, name);
    aml_byte(a, OP_BUFFER);
    t.package = open_package_length(a);
    aml_byte(a, PREFIX_WORD);
    t.length = a->len;
    word(a, 0);
    return t;
}

void aml_close_template(struct aml *a, struct aml_template t)
{
    aml_byte(a, SMALL_END);
    aml_byte(a, 0);
    if (!a->full)
        put_le16(a->buf + t.length, (uint16_t)(a->len - t.length - 2));
    aml_close(a, t.package);
}

void aml_io(struct aml *a, uint16_t port, uint8_t len)
{
    const uint8_t decodes_16_bits = 1, alignment = 1;
    aml_byte(a, SMALL_IO);
    aml_byte(a, decodes_16_bits);
    word(a, port);
    word(a, port);
    aml_byte(a, alignment);
    aml_byte(a, len);
}

void aml_irq(struct aml *a, unsigned irq)
{
    aml_byte(a, SMALL_IRQ);
    word(a, (uint16_t)(1u << irq));
}

static void word_window(struct aml *a, uint8_t space, uint8_t flags, uint16_t first, uint16_t last)
{
    aml_byte(a, LARGE_WORD);
    word(a, 13);
    aml_byte(a, space);
    aml_byte(a, FLAGS_FIXED_POSITIVE);
    aml_byte(a, flags);
    word(a, 0); /* granularity */
    word(a, first);
    word(a, last);
    word(a, 0); /* translation */
    word(a, (uint16_t)(last - first + 1));
}

void aml_bus_numbers(struct aml *a, uint16_t first, uint16_t last)
{
    word_window(a, SPACE_BUS, 0, first, last);
}

void aml_io_window(struct aml *a, uint16_t first, uint16_t last)
{
    word_window(a, SPACE_IO, IO_ENTIRE_RANGE, first, last);
}

void aml_memory_window(struct aml *a, uint32_t first, uint32_t last)
{
    aml_byte(a, LARGE_DWORD);
    word(a, 23);
    aml_byte(a, SPACE_MEMORY);
    aml_byte(a, FLAGS_FIXED_POSITIVE);
    aml_byte(a, MEMORY_WRITABLE);
    dword(a, 0);
    dword(a, first);
    dword(a, last);
    dword(a, 0);
    dword(a, last - first + 1);
}
