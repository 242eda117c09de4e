/* SPDX-License-Identifier: Apache-2.0 */
/* The 16550A serial port (National Semiconductor PC16550D data sheet). Transmission takes no time; reception
 * never overruns. */
#ifndef SUNDOG_DEVICE_UART16550_H
#define SUNDOG_DEVICE_UART16550_H

#include "base/error.h"
#include "base/state.h"
#include "bus/bus.h"
#include "bus/line.h"

struct uart16550;

struct uart16550_config {
    uint16_t base; /* 8 ports */
    struct line irq;
    void *ctx;
    void (*transmit)(void *ctx, uint8_t byte); /* NULL: nothing is connected */
    void (*room)(void *ctx);                   /* may be NULL: uart16550_reserve() may succeed again */
};

struct uart16550 *uart16550_create(struct bus *bus, const struct uart16550_config *cfg, uint32_t instance,
                                   struct error *e);
void uart16550_destroy(struct uart16550 *u);
void uart16550_reset(struct uart16550 *u);
/* Takes one place in the receiver; the byte follows through uart16550_receive(). False: keep the byte,
 * since it is full or nobody listens yet. Any thread. */
must_use bool uart16550_reserve(struct uart16550 *u);
/* A byte for which a place was reserved. Device lock held. */
void uart16550_receive(struct uart16550 *u, uint8_t byte);
struct state_object uart16550_state_object(struct uart16550 *u);
/* After a load: drives the interrupt and recomputes the receiver's room from the state. No reservation is
 * outstanding then. */
void uart16550_loaded(struct uart16550 *u);

#endif
