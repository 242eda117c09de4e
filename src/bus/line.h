/* SPDX-License-Identifier: Apache-2.0 */
/* An interrupt line or doorbell as an object: a device raises it and does not know who listens. */
#ifndef SUNDOG_BUS_LINE_H
#define SUNDOG_BUS_LINE_H

#include "base/types.h"

struct line {
    void (*set)(void *ctx, unsigned n, bool level);
    void *ctx;
    unsigned n;
};

static inline void line_set(const struct line *l, bool level)
{
    if (l->set)
        l->set(l->ctx, l->n, level);
}

/* An edge: up and down again. */
static inline void line_pulse(const struct line *l)
{
    line_set(l, true);
    line_set(l, false);
}

#endif
