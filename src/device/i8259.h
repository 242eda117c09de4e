/* SPDX-License-Identifier: Apache-2.0 */
/* The pair of 8259A interrupt controllers of a PC/AT, with the edge/level registers of EISA (Intel 8259A data
 * sheet 231468). */
#ifndef SUNDOG_DEVICE_I8259_H
#define SUNDOG_DEVICE_I8259_H

#include "base/error.h"
#include "base/state.h"
#include "bus/bus.h"
#include "bus/line.h"

struct i8259;

struct i8259_config {
    struct line intr; /* INTR of the master, to the processors */
    /* May be NULL: inputs were masked or unmasked, or the guest is about to look at the requests: sleeping
     * sources catch up. */
    void (*inputs_observed)(void *ctx);
    void *ctx;
};

/* Claims ports 0x20-21, 0xa0-a1 and 0x4d0-4d1. */
struct i8259 *i8259_create(struct bus *bus, const struct i8259_config *cfg, struct error *e);
void i8259_destroy(struct i8259 *pic);
void i8259_reset(struct i8259 *pic);
/* Input `irq` (0..15; 2 is the cascade and does nothing) to this level. A line's handler: ctx is the struct
 * i8259. */
void i8259_set_irq(void *pic, unsigned irq, bool level);
/* The processor's INTA cycle: the vector to take; IRQ 7's or 15's when the request went away (spurious). */
uint8_t i8259_ack(struct i8259 *pic);
/* Not masked, so that a request would reach the processor in the end. */
bool i8259_unmasked(const struct i8259 *pic, unsigned irq);
/* An edge of this input is latched in IRR: another one would change nothing. */
bool i8259_remembers(const struct i8259 *pic, unsigned irq);
struct state_object i8259_state_object(struct i8259 *pic);
/* After a load: drives INTR from the state. */
void i8259_loaded(struct i8259 *pic);

#endif
