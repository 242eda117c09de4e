/* SPDX-License-Identifier: Apache-2.0 */
/* Address and data ports of configuration mechanism 1, and the two bridges that every PC of this kind has. */
#include "device/pci_host.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"

#define PORT_BASE 0xcf8u
#define CONFIG_ADDRESS 0u
#define RESET_CONTROL 1u /* 0xcf9, seen by byte accesses only (PIIX3 data sheet, RC) */
#define CONFIG_DATA 4u

#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_WRITABLE 0x80fffffcu
#define RC_WRITABLE 0x06u
#define RC_RESET_CPU 0x04u

#define SPACE 256u
#define BRIDGES 2u

/* What a bridge shows, and which of its bytes keep what is written. */
struct config_init {
    uint8_t off;
    uint32_t value;
};
struct config_range {
    uint8_t first, last;
    uint8_t mask;
};

static const struct config_init host_init[] = {
    { 0x00, 0x12378086 }, /* Intel 440FX */
    { 0x04, 0x02800006 }, /* master and memory enabled; fast back-to-back, medium DEVSEL */
    { 0x08, 0x06000002 }, /* host bridge, revision 2 */
};
static const struct config_range host_writable[] = {
    { 0x59, 0x5f, 0xff }, /* PAM: which of the firmware's ranges are RAM */
};

static const struct config_init isa_init[] = {
    { 0x00, 0x70008086 },                       /* Intel PIIX3 */
    { 0x04, 0x02800007 }, { 0x08, 0x06010000 }, /* ISA bridge */
    { 0x0c, 0x00800000 },                       /* multifunction */
    { 0x60, 0x80808080 },                       /* PIRQ routes: off */
};
static const struct config_range isa_writable[] = {
    { 0x4c, 0x4e, 0xff }, /* ISA recovery, X-bus chip select */
    { 0x60, 0x63, 0x8f }, /* PIRQ routes */
    { 0x69, 0x6a, 0xff },
    { 0x82, 0x82, 0xff }, /* deterministic latency */
};

static const struct {
    unsigned devfn;
    const struct config_init *init;
    unsigned ninit;
    const struct config_range *writable;
    unsigned nwritable;
} bridges[BRIDGES] = {
    { PCI_DEVFN(0, 0), host_init, array_size(host_init), host_writable, array_size(host_writable) },
    { PCI_DEVFN(1, 0), isa_init, array_size(isa_init), isa_writable, array_size(isa_writable) },
};

struct pci_host_state {
    uint32_t address;
    uint8_t reset_control;
    uint8_t host[SPACE];
    uint8_t isa[SPACE];
};

/* A bridge as a function: its bytes in the state and its row in the table. */
struct bridge {
    uint8_t *config;
    unsigned n;
};

struct pci_host {
    struct pci_host_state s;
    struct line reset;
    struct bridge bridges[BRIDGES];
    struct {
        const struct pci_function_ops *ops;
        void *dev;
    } functions[256];
};

static const struct state_field fields[] = {
    STATE_FIELD(struct pci_host_state, address),
    STATE_FIELD(struct pci_host_state, reset_control),
    STATE_ARRAY(struct pci_host_state, host),
    STATE_ARRAY(struct pci_host_state, isa),
};

static bool valid(const void *state)
{
    const struct pci_host_state *s = state;
    return !(s->address & ~ADDRESS_WRITABLE) && !(s->reset_control & ~RC_WRITABLE);
}

static const struct state_class class = { "pci_host",         1,    sizeof(struct pci_host_state), fields,
                                          array_size(fields), valid };

/* --- the bridges -------------------------------------------------------------------------------------- */

static uint32_t bridge_read(void *dev, unsigned off, unsigned width)
{
    const struct bridge *b = dev;
    uint32_t v = 0;
    for (unsigned i = 0; i < width; i++)
        v |= (uint32_t)b->config[(off + i) % SPACE] << i * 8;
    return v;
}

static uint8_t write_mask(unsigned n, unsigned off)
{
    for (unsigned i = 0; i < bridges[n].nwritable; i++)
        if (off >= bridges[n].writable[i].first && off <= bridges[n].writable[i].last)
            return bridges[n].writable[i].mask;
    return 0;
}

static void bridge_write(void *dev, unsigned off, uint32_t value, unsigned width)
{
    struct bridge *b = dev;
    for (unsigned i = 0; i < width; i++) {
        uint8_t mask = write_mask(b->n, off + i), *byte = &b->config[(off + i) % SPACE];
        *byte = (*byte & ~mask) | (value >> i * 8 & mask);
    }
}

static void bridge_reset(struct bridge *b)
{
    for (unsigned i = 0; i < SPACE; i++)
        b->config[i] = 0;
    for (unsigned i = 0; i < bridges[b->n].ninit; i++)
        put_le32(b->config + bridges[b->n].init[i].off, bridges[b->n].init[i].value);
}

static const struct pci_function_ops bridge_ops = { bridge_read, bridge_write };

/* --- mechanism 1 -------------------------------------------------------------------------------------- */

/* The function addressed, or -1: only bus 0 exists. */
static int addressed(const struct pci_host *host)
{
    uint32_t a = host->s.address;
    if (!(a & ADDRESS_ENABLE) || bits(a, 16, 8) != 0)
        return -1;
    int devfn = (int)bits(a, 8, 8);
    return host->functions[devfn].ops ? devfn : -1;
}

static unsigned register_of(const struct pci_host *host, uint32_t off)
{
    return (host->s.address & 0xfc) + (off - CONFIG_DATA);
}

static uint64_t host_read(void *dev, uint32_t off, unsigned width)
{
    struct pci_host *host = dev;
    if (off >= CONFIG_DATA) {
        int devfn = addressed(host);
        if (devfn < 0)
            return ~0ull; /* master abort */
        return host->functions[devfn].ops->read(host->functions[devfn].dev, register_of(host, off), width);
    }
    if (off == CONFIG_ADDRESS && width == 4)
        return host->s.address;
    if (off == RESET_CONTROL && width == 1)
        return host->s.reset_control;
    return ~0ull; /* narrower accesses are not for the address register (3.2.2.3.2) */
}

static void write_reset_control(struct pci_host *host, uint8_t val)
{
    uint8_t old = host->s.reset_control;
    host->s.reset_control = val & RC_WRITABLE;
    if (val & ~old & RC_RESET_CPU)
        line_pulse(&host->reset);
}

static void host_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    struct pci_host *host = dev;
    if (off >= CONFIG_DATA) {
        int devfn = addressed(host);
        if (devfn >= 0)
            host->functions[devfn].ops->write(host->functions[devfn].dev, register_of(host, off),
                                              (uint32_t)val, width);
    } else if (off == CONFIG_ADDRESS && width == 4) {
        host->s.address = (uint32_t)val & ADDRESS_WRITABLE;
    } else if (off == RESET_CONTROL && width == 1) {
        write_reset_control(host, (uint8_t)val);
    }
}

static const struct bus_ops ops = { .read = host_read, .write = host_write };

/* --- life --------------------------------------------------------------------------------------------- */

struct pci_host *pci_host_create(struct bus *bus, struct line reset, struct error *e)
{
    struct pci_host *host = calloc(1, sizeof(*host));
    if (!host) {
        error_set(e, -ENOMEM, "cannot allocate the PCI host bridge");
        return NULL;
    }
    host->reset = reset;
    uint8_t *configs[BRIDGES] = { host->s.host, host->s.isa };
    for (unsigned n = 0; n < BRIDGES; n++) {
        host->bridges[n] = (struct bridge){ configs[n], n };
        host->functions[bridges[n].devfn].ops = &bridge_ops;
        host->functions[bridges[n].devfn].dev = &host->bridges[n];
    }
    pci_host_reset(host);
    if (bus_map_port(bus, PORT_BASE, 8, &ops, host, e)) {
        free(host);
        return NULL;
    }
    return host;
}

void pci_host_destroy(struct pci_host *host) { free(host); }

void pci_host_reset(struct pci_host *host)
{
    host->s.address = 0;
    host->s.reset_control = 0;
    for (unsigned n = 0; n < BRIDGES; n++)
        bridge_reset(&host->bridges[n]);
}

int pci_host_add(struct pci_host *host, unsigned devfn, const struct pci_function_ops *fn_ops, void *dev,
                 struct error *e)
{
    if (devfn >= array_size(host->functions))
        return error_set(e, -EINVAL, "there is no PCI function %u", devfn);
    if (host->functions[devfn].ops)
        return error_set(e, -EBUSY, "PCI slot %u, function %u is taken", devfn >> 3, devfn & 7);
    host->functions[devfn].ops = fn_ops;
    host->functions[devfn].dev = dev;
    return 0;
}

struct state_object pci_host_state_object(struct pci_host *host)
{
    return (struct state_object){ &class, &host->s, 0 };
}
