/* SPDX-License-Identifier: Apache-2.0 */
/* System control port A (0x92): the A20 gate and the fast reset of a PS/2. Holds the machine's A20 latch. */
#ifndef SUNDOG_DEVICE_PORT92_H
#define SUNDOG_DEVICE_PORT92_H

#include "base/error.h"
#include "base/state.h"
#include "bus/bus.h"
#include "bus/line.h"

struct port92;

/* `a20` follows the gate; `reset` is pulsed by a 0 to 1 change of bit 0. After reset A20 is on, as firmware
 * leaves it. */
struct port92 *port92_create(struct bus *bus, struct line a20, struct line reset, struct error *e);
void port92_destroy(struct port92 *p);
void port92_reset(struct port92 *p);
/* The keyboard controller's say in A20: the last who spoke decides. A line's handler: ctx is the struct
 * port92. */
void port92_set_a20(void *p, unsigned n, bool level);
struct state_object port92_state_object(struct port92 *p);
/* After a load: drives A20 from the state. */
void port92_loaded(struct port92 *p);

#endif
