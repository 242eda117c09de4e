/* SPDX-License-Identifier: Apache-2.0 */
/* Two one-byte ports that remember what was written. */
#include "device/postcode.h"

#include <errno.h>
#include <stdlib.h>

struct postcode_state {
    uint8_t code;
    uint8_t delay;
};

struct postcode {
    struct postcode_state s;
};

static const struct state_field fields[] = {
    STATE_FIELD(struct postcode_state, code),
    STATE_FIELD(struct postcode_state, delay),
};

static const struct state_class class = { "postcode",         1,   sizeof(struct postcode_state), fields,
                                          array_size(fields), NULL };

static uint64_t byte_read(void *dev, uint32_t off, unsigned width)
{
    (void)off, (void)width;
    return *(uint8_t *)dev;
}

static void byte_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)off, (void)width;
    *(uint8_t *)dev = (uint8_t)val;
}

static const struct bus_ops ops = { .read = byte_read, .write = byte_write, .max_width = 1 };

struct postcode *postcode_create(struct bus *bus, struct error *e)
{
    struct postcode *p = calloc(1, sizeof(*p));
    if (!p) {
        error_set(e, -ENOMEM, "cannot allocate port 0x80");
        return NULL;
    }
    if (bus_map_port(bus, 0x80, 1, &ops, &p->s.code, e) || bus_map_port(bus, 0xed, 1, &ops, &p->s.delay, e)) {
        free(p);
        return NULL;
    }
    return p;
}

void postcode_destroy(struct postcode *p) { free(p); }

void postcode_reset(struct postcode *p) { p->s = (struct postcode_state){ 0 }; }

uint8_t postcode_last(const struct postcode *p) { return p->s.code; }

struct state_object postcode_state_object(struct postcode *p)
{
    return (struct state_object){ &class, &p->s, 0 };
}
