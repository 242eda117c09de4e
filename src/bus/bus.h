/* SPDX-License-Identifier: Apache-2.0 */
/* Port and memory-mapped I/O dispatch. The bus checks width and range, takes the device lock, and calls
 * one handler. */
#ifndef SUNDOG_BUS_BUS_H
#define SUNDOG_BUS_BUS_H

#include "base/error.h"
#include "base/tally.h"
#include "base/types.h"

/* A device's view of one window. `off` < window length and off + width <= length always hold; width is 1,
 * 2, 4 or 8, and the access is naturally aligned in the address space: misaligned ones are split. Accesses
 * narrower than min_width or wider than max_width are split or refused by the bus before the handler:
 * wider ones are split into max_width pieces, narrower reads are made with min_width and cut. 0 means 1..4
 * (ports) / 1..8. */
struct bus_ops {
    uint64_t (*read)(void *dev, uint32_t off, unsigned width);
    void (*write)(void *dev, uint32_t off, uint64_t value, unsigned width);
    uint8_t min_width, max_width;
};

struct bus; /* one per VM; owns both address spaces and the device lock */

struct bus *bus_create(struct tally *tally, struct error *e);
void bus_destroy(struct bus *bus);

/* Registers `len` ports from `first` / `len` bytes from `base`. The ops and dev outlive the mapping.
 * -EBUSY when the range overlaps another one. Only before the machine runs or with the world stopped. */
int bus_map_port(struct bus *bus, uint16_t first, uint32_t len, const struct bus_ops *ops, void *dev,
                 struct error *e);
int bus_map_mmio(struct bus *bus, gpa base, uint64_t len, const struct bus_ops *ops, void *dev,
                 struct error *e);
void bus_unmap_mmio(struct bus *bus, gpa base);

/* One access by a processor, any vcpu thread. Width 1, 2, 4 (ports), 1..8 (memory). Unclaimed reads return
 * all ones; unclaimed accesses are counted, memory by the page. Ports: an access that crosses the end of a
 * window is split into bytes. */
uint32_t bus_port_read(struct bus *bus, uint16_t port, unsigned width);
void bus_port_write(struct bus *bus, uint16_t port, uint32_t value, unsigned width);
uint64_t bus_mmio_read(struct bus *bus, gpa addr, unsigned width);
void bus_mmio_write(struct bus *bus, gpa addr, uint64_t value, unsigned width);

/* The device lock: held around every handler, and by whoever calls into devices from outside (input
 * delivery, save, reset). Recursive use is a bug. First in the lock order after the world lock. */
void bus_lock(struct bus *bus);
void bus_unlock(struct bus *bus);
/* Does this thread hold it? Who does must not wait for a vcpu. */
bool bus_lock_held(struct bus *bus);

#endif
