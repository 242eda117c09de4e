/* SPDX-License-Identifier: Apache-2.0 */
/* The debug console port 0xe9: bytes written come out; reads give 0xe9, by which guests find it. */
#ifndef SUNDOG_DEVICE_DEBUG_CONSOLE_H
#define SUNDOG_DEVICE_DEBUG_CONSOLE_H

#include "base/error.h"
#include "bus/bus.h"

struct debug_console; /* holds no state that a guest could see */

struct debug_console *debug_console_create(struct bus *bus, uint16_t port,
                                           void (*output)(void *ctx, uint8_t byte), void *ctx,
                                           struct error *e);
void debug_console_destroy(struct debug_console *d);

#endif
