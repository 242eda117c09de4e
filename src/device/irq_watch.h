/* SPDX-License-Identifier: Apache-2.0 */
/* Whether anybody can notice an interrupt line: a periodic source sleeps while its line is masked
 * everywhere. */
#ifndef SUNDOG_DEVICE_IRQ_WATCH_H
#define SUNDOG_DEVICE_IRQ_WATCH_H

#include "base/types.h"

/* Handed to a source at construction. With `observed` NULL the line always counts as observed. The wiring
 * calls the source's X_irq_observed() when a controller masks or unmasks lines, so that the source stops, or
 * catches up and ticks again. */
struct irq_watch {
    bool (*observed)(void *ctx, unsigned irq);
    void *ctx;
    unsigned irq;
};

static inline bool irq_watch_observed(const struct irq_watch *w)
{
    return !w->observed || w->observed(w->ctx, w->irq);
}

#endif
