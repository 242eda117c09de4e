/* SPDX-License-Identifier: Apache-2.0 */
/* The 8042 keyboard controller with a PS/2 keyboard and mouse (IBM PS/2 Hardware Interface Technical
 * Reference). */
#ifndef SUNDOG_DEVICE_I8042_H
#define SUNDOG_DEVICE_I8042_H

#include "base/error.h"
#include "base/state.h"
#include "bus/bus.h"
#include "bus/line.h"

struct i8042;

/* Claims ports 0x60 and 0x64. Lines: IRQ 1, IRQ 12, the output port's A20 bit, and the reset pulse. */
struct i8042 *i8042_create(struct bus *bus, struct line keyboard_irq, struct line mouse_irq, struct line a20,
                           struct line reset, struct error *e);
void i8042_destroy(struct i8042 *kbc);
void i8042_reset(struct i8042 *kbc);
struct state_object i8042_state_object(struct i8042 *kbc);
/* After a load: drives the interrupt lines from the state. */
void i8042_loaded(struct i8042 *kbc);

#endif
