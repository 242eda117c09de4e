/* SPDX-License-Identifier: Apache-2.0 */
/* Save, load, hash, compare and print, all driven by the field tables of state.h. */
#include "base/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

/*
 * A saved object, all numbers little-endian:
 *
 *   0  magic "SDob"    4  version    8  instance    12  bytes of fields
 *   16 class name, NUL-padded to 32
 *   48 fields in table order, each value in its own width
 *   .. CRC-32 of everything before it
 */
#define MAGIC 0x626f4453u
#define NAME_SIZE 32
#define HEADER_SIZE 48
#define CRC_SIZE 4

static uint64_t value_get(const struct state_field *f, const void *state, uint32_t i)
{
    const uint8_t *p = (const uint8_t *)state + f->offset + (size_t)i * f->width;
    switch (f->width) {
    case 1: return *p;
    case 2: return get_le16(p);
    case 4: return get_le32(p);
    default: return get_le64(p);
    }
}

static size_t field_size(const struct state_field *f) { return (size_t)f->count * f->width; }

static size_t fields_size(const struct state_class *cls)
{
    size_t sum = 0;
    for (uint32_t i = 0; i < cls->nfields; i++)
        sum += field_size(&cls->fields[i]);
    return sum;
}

/* CRC-32 (IEEE 802.3), four bits at a time. */
static uint32_t crc32_of(const uint8_t *p, size_t len)
{
    static const uint32_t nibble[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t crc = ~0u;
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return ~crc;
}

size_t state_saved_size(const struct state_class *cls) { return HEADER_SIZE + fields_size(cls) + CRC_SIZE; }

size_t state_save(const struct state_object *obj, void *buf)
{
    const struct state_class *cls = obj->cls;
    uint8_t *out = buf;
    memset(out, 0, HEADER_SIZE);
    put_le32(out, MAGIC);
    put_le32(out + 4, cls->version);
    put_le32(out + 8, obj->instance);
    put_le32(out + 12, (uint32_t)fields_size(cls));
    snprintf((char *)out + 16, NAME_SIZE, "%s", cls->name);
    uint8_t *p = out + HEADER_SIZE;
    for (uint32_t i = 0; i < cls->nfields; i++) {
        const struct state_field *f = &cls->fields[i];
        memcpy(p, (const uint8_t *)obj->data + f->offset, field_size(f));
        p += field_size(f);
    }
    put_le32(p, crc32_of(out, (size_t)(p - out)));
    return (size_t)(p - out) + CRC_SIZE;
}

static int check_header(const struct state_object *obj, const uint8_t *in, size_t len, struct error *e)
{
    const struct state_class *cls = obj->cls;
    size_t want = state_saved_size(cls);
    char name[NAME_SIZE] = { 0 };
    snprintf(name, sizeof(name), "%s", cls->name);
    if (len < want)
        return error_set(e, -EINVAL, "saved state of %s is truncated: %zu of %zu bytes", cls->name, len,
                         want);
    if (get_le32(in) != MAGIC || memcmp(in + 16, name, NAME_SIZE) != 0)
        return error_set(e, -EINVAL, "saved state is not that of %s", cls->name);
    if (get_le32(in + 4) != cls->version)
        return error_set(e, -EINVAL, "saved state of %s has version %u, this build reads version %u",
                         cls->name, get_le32(in + 4), cls->version);
    if (get_le32(in + 8) != obj->instance)
        return error_set(e, -EINVAL, "saved state of %s is of instance %u, not %u", cls->name,
                         get_le32(in + 8), obj->instance);
    if (get_le32(in + 12) != fields_size(cls))
        return error_set(e, -EINVAL, "saved state of %s has %u bytes of fields, not %zu", cls->name,
                         get_le32(in + 12), fields_size(cls));
    if (get_le32(in + want - CRC_SIZE) != crc32_of(in, want - CRC_SIZE))
        return error_set(e, -EINVAL, "saved state of %s is damaged (checksum)", cls->name);
    return 0;
}

static int check_ranges(const struct state_class *cls, const void *fresh, struct error *e)
{
    for (uint32_t i = 0; i < cls->nfields; i++) {
        const struct state_field *f = &cls->fields[i];
        if (f->max == ~0ull)
            continue;
        for (uint32_t k = 0; k < f->count; k++) {
            uint64_t v = value_get(f, fresh, k);
            if (v > f->max)
                return error_set(e, -EINVAL,
                                 "saved state of %s: %s[%u] is 0x%" PRIx64 ", at most 0x%" PRIx64 " is valid",
                                 cls->name, f->name, k, v, f->max);
        }
    }
    if (cls->valid && !cls->valid(fresh))
        return error_set(e, -EINVAL, "saved state of %s contradicts itself", cls->name);
    return 0;
}

long state_load(const struct state_object *obj, const void *buf, size_t len, struct error *e)
{
    const struct state_class *cls = obj->cls;
    const uint8_t *in = buf;
    int err = check_header(obj, in, len, e);
    if (err)
        return err;
    void *fresh = malloc(cls->size);
    if (!fresh)
        return error_set(e, -ENOMEM, "no memory to load the state of %s", cls->name);
    memcpy(fresh, obj->data, cls->size);
    const uint8_t *p = in + HEADER_SIZE;
    for (uint32_t i = 0; i < cls->nfields; i++) {
        const struct state_field *f = &cls->fields[i];
        memcpy((uint8_t *)fresh + f->offset, p, field_size(f));
        p += field_size(f);
    }
    err = check_ranges(cls, fresh, e);
    if (!err)
        memcpy(obj->data, fresh, cls->size);
    free(fresh);
    return err ? err : (long)state_saved_size(cls);
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

uint64_t state_hash(const struct state_object *obj, uint64_t seed)
{
    const struct state_class *cls = obj->cls;
    uint64_t h = mix(seed, obj->instance);
    for (const char *c = cls->name; *c; c++)
        h = mix(h, (uint8_t)*c);
    for (uint32_t i = 0; i < cls->nfields; i++)
        for (uint32_t k = 0; k < cls->fields[i].count; k++)
            h = mix(h, value_get(&cls->fields[i], obj->data, k));
    return h;
}

bool state_diff(const struct state_class *cls, const void *a, const void *b, char *out, size_t outlen)
{
    for (uint32_t i = 0; i < cls->nfields; i++) {
        const struct state_field *f = &cls->fields[i];
        for (uint32_t k = 0; k < f->count; k++) {
            uint64_t va = value_get(f, a, k), vb = value_get(f, b, k);
            if (va == vb)
                continue;
            snprintf(out, outlen, "%s[%u]: 0x%" PRIx64 " vs 0x%" PRIx64, f->name, k, va, vb);
            return true;
        }
    }
    return false;
}

void state_print(const struct state_object *obj, void (*emit)(void *ctx, const char *line), void *ctx)
{
    char line[160];
    for (uint32_t i = 0; i < obj->cls->nfields; i++) {
        const struct state_field *f = &obj->cls->fields[i];
        for (uint32_t k = 0; k < f->count; k++) {
            uint64_t v = value_get(f, obj->data, k);
            if (!v)
                continue;
            if (f->count > 1)
                snprintf(line, sizeof(line), "%s%u.%s[%u] = 0x%" PRIx64, obj->cls->name, obj->instance,
                         f->name, k, v);
            else
                snprintf(line, sizeof(line), "%s%u.%s = 0x%" PRIx64, obj->cls->name, obj->instance, f->name,
                         v);
            emit(ctx, line);
        }
    }
}
