/* SPDX-License-Identifier: Apache-2.0 */
/* State as plain data: one field table per struct, from which save, load, hash, compare, print and fuzz
 * are made. */
#ifndef SUNDOG_BASE_STATE_H
#define SUNDOG_BASE_STATE_H

#include "base/error.h"
#include "base/types.h"

/* One field: `count` unsigned integers of `width` bytes (1, 2, 4, 8), or `count` raw bytes when width is 1.
 * Each value must be <= max when loaded (range check of untrusted state). */
struct state_field {
    const char *name;
    uint32_t offset;
    uint32_t count;
    uint8_t width;
    uint64_t max;
};

/* A struct's description. `valid` (may be NULL) is the cross-field invariant, run after a load on the
 * fresh copy. */
struct state_class {
    const char *name;
    uint32_t version;
    uint32_t size; /* sizeof the struct */
    const struct state_field *fields;
    uint32_t nfields;
    bool (*valid)(const void *state);
};

/* Field of integer type (or array of it), any value; _MAX with an upper bound. Nested structs are described
 * by path: STATE_FIELD(struct vcpu_state, seg[0].base). */
/* clang-format off */
#define STATE_FIELD(type, member) \
    { #member, offsetof(type, member), 1, sizeof(((type *)0)->member), ~0ull }
#define STATE_FIELD_MAX(type, member, max_) \
    { #member, offsetof(type, member), 1, sizeof(((type *)0)->member), (max_) }
#define STATE_ARRAY(type, member) \
    STATE_ARRAY_MAX(type, member, ~0ull)
#define STATE_ARRAY_MAX(type, member, max_) \
    { #member, offsetof(type, member), array_size(((type *)0)->member), \
      sizeof(((type *)0)->member[0]), (max_) }
/* clang-format on */

/* One live object: its class and where it lives. A VM keeps a list of these: the whole machine's state. */
struct state_object {
    const struct state_class *cls;
    void *data;
    uint32_t instance; /* tells objects of one class apart (vcpu number, ...) */
};

/* Bytes that state_save() writes for one object. */
size_t state_saved_size(const struct state_class *cls);
/* Writes header (name, version, instance), fields and a CRC to `buf` of at least state_saved_size() bytes. */
size_t state_save(const struct state_object *obj, void *buf);
/* Reads one object back. Checks header, CRC, ranges and the class invariant on a fresh copy, then swaps it
 * in: on failure (-EINVAL) the object is untouched. Returns bytes used. */
long state_load(const struct state_object *obj, const void *buf, size_t len, struct error *e);
/* 64-bit hash over all fields of one object (stable within one build). */
uint64_t state_hash(const struct state_object *obj, uint64_t seed);
/* First field that differs, as "name[index]: a vs b" in `out`; false when equal. */
bool state_diff(const struct state_class *cls, const void *a, const void *b, char *out, size_t outlen);
/* Prints every non-zero field, one "class.field = value" line each, through `emit`. */
void state_print(const struct state_object *obj, void (*emit)(void *ctx, const char *line), void *ctx);

#endif
