/* SPDX-License-Identifier: Apache-2.0 */
/* PCI configuration mechanism 1, the host bridge and ISA bridge behind it, and the bridge's reset control
 * register (PCI Local Bus 3.0, 3.2.2.3; Intel 440FX and PIIX3 data sheets for the registers that guests look
 * for). */
#ifndef SUNDOG_DEVICE_PCI_HOST_H
#define SUNDOG_DEVICE_PCI_HOST_H

#include "base/error.h"
#include "base/state.h"
#include "bus/bus.h"
#include "bus/line.h"

struct pci_host;

/* A function's configuration space: off < 256, naturally aligned, width 1, 2 or 4. */
struct pci_function_ops {
    uint32_t (*read)(void *dev, unsigned off, unsigned width);
    void (*write)(void *dev, unsigned off, uint32_t value, unsigned width);
};

#define PCI_DEVFN(slot, function) ((slot) << 3 | (function))

/* Claims ports 0xcf8-0xcff. `reset` is pulsed by the reset control register 0xcf9. */
struct pci_host *pci_host_create(struct bus *bus, struct line reset, struct error *e);
void pci_host_destroy(struct pci_host *host);
void pci_host_reset(struct pci_host *host);
/* Puts a function at `devfn` of bus 0. -EBUSY when one is there. Before the machine runs. */
int pci_host_add(struct pci_host *host, unsigned devfn, const struct pci_function_ops *ops, void *dev,
                 struct error *e);
struct state_object pci_host_state_object(struct pci_host *host);

#endif
