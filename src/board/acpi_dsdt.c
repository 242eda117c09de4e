/* SPDX-License-Identifier: Apache-2.0 */
/* Describing the PC's fixed devices in AML. The tables below are the description; the rest writes them out. */
#include "board/acpi_dsdt.h"

#include "board/pc.h"
#include "device/acpi_pm.h"

#define NO_IRQ 0xff

/* A device with a plug-and-play id, some port ranges and at most one interrupt. */
static const struct isa_device {
    const char *name, *id;
    struct {
        uint16_t port;
        uint8_t len;
    } io[4];
    uint8_t irq;
} isa_devices[] = {
    { "PIC", "PNP0000", { { 0x20, 2 }, { 0xa0, 2 }, { 0x4d0, 2 } }, 2 },
    { "TMR", "PNP0100", { { 0x40, 4 } }, PC_IRQ_TIMER },
    { "RTC", "PNP0B00", { { 0x70, 2 } }, PC_IRQ_RTC },
    { "KBD", "PNP0303", { { 0x60, 1 }, { 0x64, 1 } }, PC_IRQ_KEYBOARD },
    { "MOU", "PNP0F13", { { 0, 0 } }, PC_IRQ_MOUSE },
    { "SPKR", "PNP0800", { { 0x61, 1 } }, NO_IRQ },
    { "FPU", "PNP0C04", { { 0xf0, 1 } }, 13 },
    { "COM1", "PNP0501", { { PC_PORT_COM1, 8 } }, PC_IRQ_COM1 },
    /* Ports that belong to no device a driver would look for, kept from being given away. */
    { "SYSR",
      "PNP0C02",
      { { PC_PORT_POST, 1 }, { 0x92, 1 }, { ACPI_SMI_PORT, 2 }, { PC_PORT_PM, 16 } },
      NO_IRQ },
};

static void put_isa_device(struct aml *a, const struct isa_device *d)
{
    const uint8_t present_enabled_shown_working = 0xf;
    size_t device = aml_open_device(a, d->name);
    aml_name(a, "_HID");
    aml_eisa_id(a, d->id);
    aml_name(a, "_UID");
    aml_integer(a, 1);
    aml_name(a, "_STA");
    aml_integer(a, present_enabled_shown_working);
    struct aml_template t = aml_open_template(a, "_CRS");
    for (unsigned i = 0; i < array_size(d->io); i++)
        if (d->io[i].len)
            aml_io(a, d->io[i].port, d->io[i].len);
    if (d->irq != NO_IRQ)
        aml_irq(a, d->irq);
    aml_close_template(a, t);
    aml_close(a, device);
}

/* Interrupt routing: (slot and any function, pin, source 0 = a fixed input, that input). */
static void put_pci_routing(struct aml *a)
{
    enum { SLOTS = 32, PINS = 4 };
    aml_name(a, "_PRT");
    size_t table = aml_open_package(a, SLOTS * PINS);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        for (unsigned pin = 0; pin < PINS; pin++) {
            size_t route = aml_open_package(a, 4);
            aml_integer(a, slot << 16 | 0xffff);
            aml_integer(a, pin);
            aml_integer(a, 0);
            aml_integer(a, pc_pci_irq(slot, pin));
            aml_close(a, route);
        }
    }
    aml_close(a, table);
}

static void put_host_bridge(struct aml *a)
{
    size_t bridge = aml_open_device(a, "PCI0");
    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0A03");
    aml_name(a, "_UID");
    aml_integer(a, 0);
    struct aml_template t = aml_open_template(a, "_CRS");
    aml_bus_numbers(a, 0, 0xff);
    aml_io(a, 0xcf8, 8); /* the bridge's own; the rest of the ports go through */
    aml_io_window(a, 0x0000, 0x0cf7);
    aml_io_window(a, 0x0d00, 0xffff);
    aml_memory_window(a, PC_CONVENTIONAL_END, PC_CONVENTIONAL_END + 0x1ffff);
    aml_memory_window(a, PC_PCI_HOLE, PC_PCI_HOLE_END - 1);
    aml_close_template(a, t);
    put_pci_routing(a);
    size_t isa = aml_open_device(a, "ISA");
    aml_name(a, "_ADR");
    aml_integer(a, PC_ISA_BRIDGE_SLOT << 16);
    for (unsigned i = 0; i < array_size(isa_devices); i++)
        put_isa_device(a, &isa_devices[i]);
    aml_close(a, isa);
    aml_close(a, bridge);
}

/* Sleep state S5, "soft off": what to write to SLP_TYP. */
static void put_soft_off(struct aml *a)
{
    aml_name(a, "\\_S5_");
    size_t package = aml_open_package(a, 4);
    aml_integer(a, PC_S5_SLEEP_TYPE);
    aml_integer(a, PC_S5_SLEEP_TYPE);
    aml_integer(a, 0);
    aml_integer(a, 0);
    aml_close(a, package);
}

void acpi_dsdt(struct aml *a)
{
    put_soft_off(a);
    size_t scope = aml_open_scope(a, "\\_SB_");
    put_host_bridge(a);
    aml_close(a, scope);
}
