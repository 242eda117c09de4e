/* SPDX-License-Identifier: Apache-2.0 */
/* The POST code port 0x80 and its neighbour in use, 0xed: written by guests as a short delay. */
#ifndef SUNDOG_DEVICE_POSTCODE_H
#define SUNDOG_DEVICE_POSTCODE_H

#include "base/error.h"
#include "base/state.h"
#include "bus/bus.h"

struct postcode;

struct postcode *postcode_create(struct bus *bus, struct error *e);
void postcode_destroy(struct postcode *p);
void postcode_reset(struct postcode *p);
/* The last code written to port 0x80. */
uint8_t postcode_last(const struct postcode *p);
struct state_object postcode_state_object(struct postcode *p);

#endif
