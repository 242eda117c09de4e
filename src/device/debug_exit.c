/* SPDX-License-Identifier: Apache-2.0 */
/* Writes become an exit request. */
#include "device/debug_exit.h"

#include <errno.h>
#include <stdlib.h>

#define PORTS 4u

struct debug_exit {
    void (*exit_with)(void *ctx, uint32_t value);
    void *ctx;
};

static uint64_t debug_exit_read(void *dev, uint32_t off, unsigned width)
{
    (void)dev, (void)off, (void)width;
    return 0;
}

static void debug_exit_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)width;
    struct debug_exit *d = dev;
    if (off == 0)
        d->exit_with(d->ctx, (uint32_t)val);
}

static const struct bus_ops ops = { .read = debug_exit_read, .write = debug_exit_write };

struct debug_exit *debug_exit_create(struct bus *bus, uint16_t port,
                                     void (*exit_with)(void *ctx, uint32_t value), void *ctx, struct error *e)
{
    struct debug_exit *d = calloc(1, sizeof(*d));
    if (!d) {
        error_set(e, -ENOMEM, "cannot allocate the debug exit port");
        return NULL;
    }
    d->exit_with = exit_with;
    d->ctx = ctx;
    if (bus_map_port(bus, port, PORTS, &ops, d, e)) {
        error_wrap(e, "device debug-exit, port 0x%x", port);
        free(d);
        return NULL;
    }
    return d;
}

void debug_exit_destroy(struct debug_exit *d) { free(d); }
