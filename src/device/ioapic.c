/* SPDX-License-Identifier: Apache-2.0 */
/* Index and data registers, the redirection table, and the level-triggered handshake by remote IRR. */
#include "device/ioapic.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"

/* Memory-mapped registers (data sheet 3.1; the EOI register came with version 0x20). */
#define IOREGSEL 0x00u
#define IOWIN 0x10u
#define EOIR 0x40u

/* Indirect registers (3.2). */
#define IOAPICID 0x00u
#define IOAPICVER 0x01u
#define IOAPICARB 0x02u
#define IOREDTBL 0x10u

#define VERSION (0x20u | (IOAPIC_PINS - 1) << 16)
#define ID_SHIFT 24
#define ID_MASK 0x0f000000u

/* Redirection entry (3.2.4). */
#define RTE_VECTOR 0xffull
#define RTE_DELIVERY_SHIFT 8
#define RTE_LOGICAL BIT(11)
#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL BIT(15)
#define RTE_MASKED BIT(16)
#define RTE_DEST_SHIFT 56
/* Status bits are read-only. The polarity bit is kept but has no effect: lines here say "asserted", not
 * volts. */
#define RTE_WRITABLE (0xff00000000000000ull | 0x1afffull)

/* Message format (SDM 3A 10.11). */
#define MSI_BASE 0xfee00000ull
#define MSI_DEST_SHIFT 12
#define MSI_LOGICAL 4u
#define MSI_ASSERT 0x4000u
#define MSI_LEVEL 0x8000u

struct ioapic_state {
    uint64_t rte[IOAPIC_PINS];
    uint32_t lines; /* inputs asserted */
    uint32_t id;    /* in its register's place */
    uint8_t select;
};

struct ioapic {
    struct ioapic_state s;
    struct ioapic_config cfg;
};

static const struct state_field fields[] = {
    STATE_ARRAY_MAX(struct ioapic_state, rte, RTE_WRITABLE | RTE_REMOTE_IRR),
    STATE_FIELD_MAX(struct ioapic_state, lines, BIT(IOAPIC_PINS) - 1),
    STATE_FIELD_MAX(struct ioapic_state, id, ID_MASK),
    STATE_FIELD(struct ioapic_state, select),
};

static bool valid(const void *state)
{
    const struct ioapic_state *s = state;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        if (s->rte[pin] & ~(RTE_WRITABLE | RTE_REMOTE_IRR))
            return false;
    return !(s->id & ~ID_MASK);
}

static const struct state_class class = { "ioapic",           1,    sizeof(struct ioapic_state), fields,
                                          array_size(fields), valid };

/* --- delivery ----------------------------------------------------------------------------------------- */

static void send(struct ioapic *io, uint64_t rte)
{
    uint64_t addr = MSI_BASE | (rte >> RTE_DEST_SHIFT) << MSI_DEST_SHIFT |
                    (rte & RTE_LOGICAL ? MSI_LOGICAL : 0);
    uint32_t data = (uint32_t)(rte & RTE_VECTOR) | (uint32_t)(rte >> RTE_DELIVERY_SHIFT & 7) << 8 |
                    MSI_ASSERT | (rte & RTE_LEVEL ? MSI_LEVEL : 0);
    io->cfg.send(io->cfg.ctx, addr, data);
}

/* A level-triggered input that is asserted interrupts again and again, but each time only after the EOI of
 * the last. */
static void service_level(struct ioapic *io, unsigned pin)
{
    uint64_t *rte = &io->s.rte[pin];
    if ((*rte & (RTE_LEVEL | RTE_MASKED | RTE_REMOTE_IRR)) != RTE_LEVEL || !(io->s.lines & BIT(pin)))
        return;
    *rte |= RTE_REMOTE_IRR;
    send(io, *rte);
}

void ioapic_set_irq(void *dev, unsigned pin, bool level)
{
    struct ioapic *io = dev;
    if (pin >= IOAPIC_PINS)
        return;
    bool rising = level && !(io->s.lines & BIT(pin));
    io->s.lines = (uint32_t)(level ? io->s.lines | BIT(pin) : io->s.lines & ~BIT(pin));
    uint64_t rte = io->s.rte[pin];
    if (rte & RTE_LEVEL)
        service_level(io, pin);
    else if (rising && !(rte & RTE_MASKED)) /* an edge at a masked input is lost (3.2.4, bit 16) */
        send(io, rte);
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *rte = &io->s.rte[pin];
        if ((*rte & RTE_VECTOR) != vector || !(*rte & RTE_REMOTE_IRR))
            continue;
        *rte &= ~RTE_REMOTE_IRR;
        service_level(io, pin);
    }
}

bool ioapic_unmasked(const struct ioapic *io, unsigned pin)
{
    return pin < IOAPIC_PINS && !(io->s.rte[pin] & RTE_MASKED);
}

/* --- registers ---------------------------------------------------------------------------------------- */

static void write_rte(struct ioapic *io, unsigned pin, unsigned shift, uint32_t val)
{
    uint64_t *rte = &io->s.rte[pin];
    uint64_t mask = RTE_WRITABLE & 0xffffffffull << shift;
    *rte = (*rte & ~mask) | ((uint64_t)val << shift & mask);
    if (!(*rte & RTE_LEVEL))
        *rte &= ~RTE_REMOTE_IRR; /* kernels end a stuck interrupt by a detour over edge mode */
    service_level(io, pin);
    if (io->cfg.inputs_observed)
        io->cfg.inputs_observed(io->cfg.ctx);
}

static uint32_t read_indirect(const struct ioapic *io)
{
    unsigned n = io->s.select - IOREDTBL;
    switch (io->s.select) {
    case IOAPICID:
    case IOAPICARB: return io->s.id;
    case IOAPICVER: return VERSION;
    default:
        return io->s.select >= IOREDTBL && n < 2 * IOAPIC_PINS ? (uint32_t)(io->s.rte[n / 2] >> n % 2 * 32)
                                                               : ~0u;
    }
}

static void write_indirect(struct ioapic *io, uint32_t val)
{
    unsigned n = io->s.select - IOREDTBL;
    if (io->s.select == IOAPICID)
        io->s.id = val & ID_MASK;
    else if (io->s.select >= IOREDTBL && n < 2 * IOAPIC_PINS)
        write_rte(io, n / 2, n % 2 * 32, val);
}

static uint64_t ioapic_read(void *dev, uint32_t off, unsigned width)
{
    (void)width;
    const struct ioapic *io = dev;
    switch (off) {
    case IOREGSEL: return io->s.select;
    case IOWIN: return read_indirect(io);
    default: return ~0ull;
    }
}

static void ioapic_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    struct ioapic *io = dev;
    if (off == IOREGSEL)
        io->s.select = (uint8_t)val;
    else if (off == IOWIN && width == 4)
        write_indirect(io, (uint32_t)val);
    else if (off == EOIR)
        ioapic_eoi(io, (uint8_t)val);
}

static const struct bus_ops ops = { .read = ioapic_read, .write = ioapic_write, .max_width = 4 };

/* --- life --------------------------------------------------------------------------------------------- */

struct ioapic *ioapic_create(struct bus *bus, const struct ioapic_config *cfg, struct error *e)
{
    struct ioapic *io = calloc(1, sizeof(*io));
    if (!io) {
        error_set(e, -ENOMEM, "cannot allocate the I/O APIC");
        return NULL;
    }
    io->cfg = *cfg;
    ioapic_reset(io);
    if (bus_map_mmio(bus, cfg->base, PAGE_SIZE, &ops, io, e)) {
        free(io);
        return NULL;
    }
    return io;
}

void ioapic_destroy(struct ioapic *io) { free(io); }

void ioapic_reset(struct ioapic *io)
{
    /* Input levels belong to the devices, not to the chip. */
    io->s = (struct ioapic_state){ .lines = io->s.lines, .id = ((uint32_t)io->cfg.id << ID_SHIFT) & ID_MASK };
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        io->s.rte[pin] = RTE_MASKED;
}

struct state_object ioapic_state_object(struct ioapic *io)
{
    return (struct state_object){ &class, &io->s, 0 };
}
