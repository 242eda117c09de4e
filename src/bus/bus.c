/* SPDX-License-Identifier: Apache-2.0 */
/* Dispatch of port and memory-mapped accesses to device windows, one at a time. */
#include "bus/bus.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/checked.h"
#include "host/lock.h"

#define PORTS 65536u
#define MAX_PORT_WINDOWS 255 /* numbered 1..255 in port_map, 0 = nobody */
#define MAX_MMIO_WINDOWS 64

struct window {
    uint64_t base, len;
    struct bus_ops ops; /* with the default widths filled in */
    void *dev;
};

struct bus {
    struct tally *tally;
    struct lock lock; /* the device lock */
    uint8_t port_map[PORTS];
    struct window ports[MAX_PORT_WINDOWS];
    unsigned nports;
    /* By address. Changes only with the world stopped, so it is read without a lock. */
    struct window mmio[MAX_MMIO_WINDOWS];
    unsigned nmmio;
};

struct bus *bus_create(struct tally *tally, struct error *e)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    if (!bus) {
        error_set(e, -ENOMEM, "cannot allocate the bus");
        return NULL;
    }
    bus->tally = tally;
    lock_init(&bus->lock);
    return bus;
}

void bus_destroy(struct bus *bus)
{
    if (!bus)
        return;
    lock_destroy(&bus->lock);
    free(bus);
}

void bus_lock(struct bus *bus)
{
    assert(!lock_held(&bus->lock));
    lock_take(&bus->lock);
}

void bus_unlock(struct bus *bus) { lock_drop(&bus->lock); }

bool bus_lock_held(struct bus *bus) { return lock_held(&bus->lock); }

/* --- the maps ----------------------------------------------------------------------------------------- */

static struct window make_window(uint64_t base, uint64_t len, const struct bus_ops *ops, void *dev,
                                 uint8_t widest)
{
    struct window w = { base, len, *ops, dev };
    if (!w.ops.min_width)
        w.ops.min_width = 1;
    if (!w.ops.max_width || w.ops.max_width > widest)
        w.ops.max_width = widest;
    return w;
}

int bus_map_port(struct bus *bus, uint16_t first, uint32_t len, const struct bus_ops *ops, void *dev,
                 struct error *e)
{
    if (!len || !ck_range(first, len, PORTS))
        return error_set(e, -EINVAL, "ports 0x%x, %u of them: not a range of ports", first, len);
    if (bus->nports == MAX_PORT_WINDOWS)
        return error_set(e, -ENOSPC, "more than %d port windows", MAX_PORT_WINDOWS);
    for (uint32_t p = first; p < first + len; p++)
        if (bus->port_map[p])
            return error_set(e, -EBUSY, "port 0x%x is taken by another device", p);
    bus->ports[bus->nports++] = make_window(first, len, ops, dev, 4);
    for (uint32_t p = first; p < first + len; p++)
        bus->port_map[p] = (uint8_t)bus->nports;
    return 0;
}

/* Index of the first window that ends above `addr`. */
static unsigned mmio_index(const struct bus *bus, uint64_t addr)
{
    unsigned low = 0, high = bus->nmmio;
    while (low < high) {
        unsigned mid = (low + high) / 2;
        if (addr - bus->mmio[mid].base < bus->mmio[mid].len || addr < bus->mmio[mid].base)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

int bus_map_mmio(struct bus *bus, gpa base, uint64_t len, const struct bus_ops *ops, void *dev,
                 struct error *e)
{
    uint64_t end;
    if (!len || len > 1ull << 32 || ck_add(base.v, len, &end))
        return error_set(e, -EINVAL, "device memory 0x%llx, 0x%llx bytes: not a range",
                         (unsigned long long)base.v, (unsigned long long)len);
    if (bus->nmmio == MAX_MMIO_WINDOWS)
        return error_set(e, -ENOSPC, "more than %d windows of device memory", MAX_MMIO_WINDOWS);
    unsigned i = mmio_index(bus, base.v);
    if (i < bus->nmmio && bus->mmio[i].base < end)
        return error_set(e, -EBUSY, "device memory 0x%llx, 0x%llx bytes overlaps that of another device",
                         (unsigned long long)base.v, (unsigned long long)len);
    for (unsigned k = bus->nmmio++; k > i; k--)
        bus->mmio[k] = bus->mmio[k - 1];
    bus->mmio[i] = make_window(base.v, len, ops, dev, 8);
    return 0;
}

void bus_unmap_mmio(struct bus *bus, gpa base)
{
    unsigned i = mmio_index(bus, base.v);
    if (i == bus->nmmio || bus->mmio[i].base != base.v)
        return;
    bus->nmmio--;
    for (; i < bus->nmmio; i++)
        bus->mmio[i] = bus->mmio[i + 1];
}

static const struct window *port_window(const struct bus *bus, uint64_t port)
{
    unsigned n = port < PORTS ? bus->port_map[port] : 0;
    return n ? &bus->ports[n - 1] : NULL;
}

static const struct window *mmio_window(const struct bus *bus, uint64_t addr)
{
    unsigned i = mmio_index(bus, addr);
    return i < bus->nmmio && bus->mmio[i].base <= addr ? &bus->mmio[i] : NULL;
}

/* --- one access --------------------------------------------------------------------------------------- */

/* An address space: how to find a window, and under which names and in which steps to count what nobody claims. */
struct space {
    const struct window *(*find)(const struct bus *bus, uint64_t addr);
    enum tally_kind unclaimed_read, unclaimed_write;
    uint64_t step; /* a kernel that scans a hole shall not fill the table */
};

static const struct space port_space = { port_window, TALLY_PORT_READ, TALLY_PORT_WRITE, 1 };
static const struct space mmio_space = { mmio_window, TALLY_MMIO_READ, TALLY_MMIO_WRITE, PAGE_SIZE };

static void count(struct bus *bus, const struct space *space, uint64_t addr, bool write)
{
    tally_add(bus->tally, write ? space->unclaimed_write : space->unclaimed_read, addr & ~(space->step - 1));
}

/* The next piece of an access: naturally aligned, inside the window, and not wider than the device takes. */
static unsigned piece_width(const struct window *w, uint64_t addr, unsigned left)
{
    unsigned width = w ? w->ops.max_width : 1;
    while (width > left || addr & (width - 1) || (w && addr - w->base + width > w->len))
        width /= 2;
    return width;
}

static uint64_t read_piece(const struct window *w, uint64_t addr, unsigned width)
{
    uint32_t off = (uint32_t)(addr - w->base);
    if (width >= w->ops.min_width)
        return w->ops.read(w->dev, off, width);
    uint32_t aligned = off & ~(uint32_t)(w->ops.min_width - 1);
    if (aligned + (uint64_t)w->ops.min_width > w->len)
        return ~0ull;
    return w->ops.read(w->dev, aligned, w->ops.min_width) >> (off - aligned) * 8;
}

/* A device handler that reaches the bus again would run inside itself: such accesses go nowhere. */
static bool refuse_reentry(struct bus *bus, uint64_t addr)
{
    if (likely(!lock_held(&bus->lock)))
        return false;
    tally_add(bus->tally, TALLY_DEVICE, addr);
    return true;
}

static uint64_t access_read(struct bus *bus, const struct space *space, uint64_t addr, unsigned width)
{
    if (refuse_reentry(bus, addr))
        return mask_bytes(width);
    uint64_t value = 0;
    lock_take(&bus->lock);
    for (unsigned done = 0; done < width;) {
        const struct window *w = space->find(bus, addr + done);
        unsigned n = piece_width(w, addr + done, width - done);
        uint64_t piece = w && w->ops.read ? read_piece(w, addr + done, n) : ~0ull;
        if (!w)
            count(bus, space, addr + done, false);
        value |= (piece & mask_bytes(n)) << done * 8;
        done += n;
    }
    lock_drop(&bus->lock);
    return value;
}

static void access_write(struct bus *bus, const struct space *space, uint64_t addr, uint64_t value,
                         unsigned width)
{
    if (refuse_reentry(bus, addr))
        return;
    lock_take(&bus->lock);
    for (unsigned done = 0; done < width;) {
        const struct window *w = space->find(bus, addr + done);
        unsigned n = piece_width(w, addr + done, width - done);
        /* Too narrow a write is refused: made up neighbouring bytes could do anything. */
        if (w && w->ops.write && n >= w->ops.min_width)
            w->ops.write(w->dev, (uint32_t)(addr + done - w->base), value >> done * 8 & mask_bytes(n), n);
        else if (!w || w->ops.write)
            count(bus, space, addr + done, true);
        done += n;
    }
    lock_drop(&bus->lock);
}

/* An access that nobody claims at all is counted once, by its own address. */
static bool unclaimed(struct bus *bus, const struct space *space, uint64_t addr, unsigned width, bool write)
{
    for (unsigned i = 0; i < width; i++)
        if (space->find(bus, addr + i))
            return false;
    count(bus, space, addr, write);
    return true;
}

uint32_t bus_port_read(struct bus *bus, uint16_t port, unsigned width)
{
    if (unclaimed(bus, &port_space, port, width, false))
        return (uint32_t)mask_bytes(width);
    return (uint32_t)access_read(bus, &port_space, port, width);
}

void bus_port_write(struct bus *bus, uint16_t port, uint32_t value, unsigned width)
{
    if (!unclaimed(bus, &port_space, port, width, true))
        access_write(bus, &port_space, port, value, width);
}

uint64_t bus_mmio_read(struct bus *bus, gpa addr, unsigned width)
{
    if (unclaimed(bus, &mmio_space, addr.v, width, false))
        return mask_bytes(width);
    return access_read(bus, &mmio_space, addr.v, width);
}

void bus_mmio_write(struct bus *bus, gpa addr, uint64_t value, unsigned width)
{
    if (!unclaimed(bus, &mmio_space, addr.v, width, true))
        access_write(bus, &mmio_space, addr.v, value, width);
}
