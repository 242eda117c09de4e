/* SPDX-License-Identifier: Apache-2.0 */
/* One register: bit 0 fast reset, bit 1 A20. */
#include "device/port92.h"

#include <errno.h>
#include <stdlib.h>

#define FAST_RESET 0x01u
#define A20 0x02u

struct port92_state {
    uint8_t reg;
};

struct port92 {
    struct port92_state s;
    struct line a20, reset;
};

static const struct state_field fields[] = { STATE_FIELD(struct port92_state, reg) };
static const struct state_class class = { "port92",           1,   sizeof(struct port92_state), fields,
                                          array_size(fields), NULL };

static uint64_t port92_read(void *dev, uint32_t off, unsigned width)
{
    (void)off, (void)width;
    return ((struct port92 *)dev)->s.reg;
}

static void port92_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)off, (void)width;
    struct port92 *p = dev;
    uint8_t old = p->s.reg;
    p->s.reg = (uint8_t)val;
    if ((old ^ val) & A20)
        line_set(&p->a20, val & A20);
    if (val & ~old & FAST_RESET)
        line_pulse(&p->reset);
}

static const struct bus_ops ops = { .read = port92_read, .write = port92_write, .max_width = 1 };

struct port92 *port92_create(struct bus *bus, struct line a20, struct line reset, struct error *e)
{
    struct port92 *p = calloc(1, sizeof(*p));
    if (!p) {
        error_set(e, -ENOMEM, "cannot allocate port 0x92");
        return NULL;
    }
    p->a20 = a20;
    p->reset = reset;
    if (bus_map_port(bus, 0x92, 1, &ops, p, e)) {
        free(p);
        return NULL;
    }
    port92_reset(p);
    return p;
}

void port92_destroy(struct port92 *p) { free(p); }

void port92_reset(struct port92 *p)
{
    p->s.reg = A20;
    port92_loaded(p);
}

void port92_set_a20(void *dev, unsigned n, bool level)
{
    (void)n;
    struct port92 *p = dev;
    p->s.reg = level ? p->s.reg | A20 : p->s.reg & ~A20;
    line_set(&p->a20, level);
}

struct state_object port92_state_object(struct port92 *p)
{
    return (struct state_object){ &class, &p->s, 0 };
}

void port92_loaded(struct port92 *p) { line_set(&p->a20, p->s.reg & A20); }
