/* SPDX-License-Identifier: Apache-2.0 */
/* The fixed addresses, ports and interrupt inputs of this PC, for the wiring and for the tables that
 * describe it. */
#ifndef SUNDOG_BOARD_PC_H
#define SUNDOG_BOARD_PC_H

#include "base/types.h"

/* Physical memory below 1 MiB, as PCs have had it since 1984. */
#define PC_BDA 0x400u    /* BIOS data area */
#define PC_EBDA 0x9fc00u /* extended BIOS data area: top 1 KiB of conventional memory */
#define PC_CONVENTIONAL_END 0xa0000u
#define PC_FIRMWARE 0xe0000u /* read-only, holds the tables */
#define PC_FIRMWARE_LEN 0x20000u
#define PC_EXTENDED 0x100000u

/* The PCI hole is fixed, whatever the memory's size. */
#define PC_PCI_HOLE 0xc0000000u
#define PC_PCI_HOLE_END 0xfec00000u /* devices' share of it; the controllers' registers follow */
#define PC_4G 0x100000000ull

#define PC_IOAPIC 0xfec00000u
#define PC_LAPIC 0xfee00000u
#define PC_IOAPIC_ID 0u
#define PC_IOAPIC_PINS 24u

/* Interrupt inputs: ISA IRQ n is 8259 input n and I/O APIC pin n, but for the timer, which is on pin 2. */
#define PC_IRQ_TIMER 0u
#define PC_IRQ_KEYBOARD 1u
#define PC_IRQ_COM1 4u
#define PC_IRQ_RTC 8u
#define PC_IRQ_SCI 9u
#define PC_IRQ_MOUSE 12u
#define PC_ISA_IRQS 16u
#define PC_TIMER_PIN 2u

#define PC_PORT_COM1 0x3f8u
#define PC_PORT_DEBUG_CONSOLE 0xe9u
#define PC_PORT_POST 0x80u
#define PC_PORT_RESET 0xcf9u /* in the shadow of PCI configuration mechanism 1's address register */
#define PC_RESET_VALUE 0x06u

#define PC_PORT_PM 0x600u /* ACPI fixed hardware */
#define PC_S5_SLEEP_TYPE 5u

#define PC_ISA_BRIDGE_SLOT 1u

/* PCI interrupt pins: INTA#..INTD# of the 32 slots alternate between two inputs that both controllers
 * have. */
static inline unsigned pc_pci_irq(unsigned slot, unsigned pin) { return 10 + ((slot + pin) & 1); }

#endif
