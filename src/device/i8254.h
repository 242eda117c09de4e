/* SPDX-License-Identifier: Apache-2.0 */
/* The 8254 programmable interval timer and port 0x61, its channel 2's gate and output (Intel 8254 data sheet
 * 231164). */
#ifndef SUNDOG_DEVICE_I8254_H
#define SUNDOG_DEVICE_I8254_H

#include "base/error.h"
#include "base/state.h"
#include "bus/bus.h"
#include "bus/line.h"
#include "clock/clock.h"
#include "device/irq_watch.h"

#define I8254_HZ 1193182u

struct i8254;

/* Claims ports 0x40-43 and 0x61. `irq` is channel 0's output. */
struct i8254 *i8254_create(struct bus *bus, struct clock *clk, struct line irq, struct irq_watch watch,
                           struct error *e);
void i8254_destroy(struct i8254 *pit);
void i8254_reset(struct i8254 *pit);
/* IRQ 0 may have become observed, or no longer: delivers a missed tick and ticks on, or stops. Device lock
 * held. */
void i8254_irq_observed(struct i8254 *pit);
struct state_object i8254_state_object(struct i8254 *pit);
/* After a load: drives the output and arms the deadline from the state. */
void i8254_loaded(struct i8254 *pit);

#endif
