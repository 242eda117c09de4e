/* SPDX-License-Identifier: Apache-2.0 */
/* The debug exit port: a guest's write of v ends the VMM with status (v << 1) | 1. */
#ifndef SUNDOG_DEVICE_DEBUG_EXIT_H
#define SUNDOG_DEVICE_DEBUG_EXIT_H

#include "base/error.h"
#include "bus/bus.h"

struct debug_exit; /* holds no state that a guest could see */

/* Claims 4 ports from `port`; a write of any width at the first one calls `exit_with`. */
struct debug_exit *debug_exit_create(struct bus *bus, uint16_t port,
                                     void (*exit_with)(void *ctx, uint32_t value), void *ctx,
                                     struct error *e);
void debug_exit_destroy(struct debug_exit *d);

#endif
