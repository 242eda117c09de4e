/* SPDX-License-Identifier: Apache-2.0 */
/* One write-through byte port. */
#include "device/debug_console.h"

#include <errno.h>
#include <stdlib.h>

#define PRESENT 0xe9u

struct debug_console {
    void (*output)(void *ctx, uint8_t byte);
    void *ctx;
};

static uint64_t debug_console_read(void *dev, uint32_t off, unsigned width)
{
    (void)dev, (void)off, (void)width;
    return PRESENT;
}

static void debug_console_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)off, (void)width;
    struct debug_console *d = dev;
    if (d->output)
        d->output(d->ctx, (uint8_t)val);
}

static const struct bus_ops ops = { .read = debug_console_read,
                                    .write = debug_console_write,
                                    .max_width = 1 };

struct debug_console *debug_console_create(struct bus *bus, uint16_t port,
                                           void (*output)(void *ctx, uint8_t byte), void *ctx,
                                           struct error *e)
{
    struct debug_console *d = calloc(1, sizeof(*d));
    if (!d) {
        error_set(e, -ENOMEM, "cannot allocate the debug console port");
        return NULL;
    }
    d->output = output;
    d->ctx = ctx;
    if (bus_map_port(bus, port, 1, &ops, d, e)) {
        free(d);
        return NULL;
    }
    return d;
}

void debug_console_destroy(struct debug_console *d) { free(d); }
