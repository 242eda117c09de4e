/* SPDX-License-Identifier: Apache-2.0 */
/* The I/O APIC: 24 inputs, each with a redirection entry that makes it a message (Intel 82093AA data sheet
 * 290566). */
#ifndef SUNDOG_DEVICE_IOAPIC_H
#define SUNDOG_DEVICE_IOAPIC_H

#include "base/error.h"
#include "base/state.h"
#include "bus/bus.h"

#define IOAPIC_PINS 24u

struct ioapic;

struct ioapic_config {
    gpa base; /* usually 0xfec00000, 4 KiB */
    uint8_t id;
    void *ctx;
    /* An interrupt as a message in the MSI format (SDM 3A 10.11): address with destination and mode, data
     * with vector, delivery mode, level and trigger mode. */
    void (*send)(void *ctx, uint64_t addr, uint32_t data);
    void (*inputs_observed)(void *ctx); /* as in struct i8259_config */
};

struct ioapic *ioapic_create(struct bus *bus, const struct ioapic_config *cfg, struct error *e);
void ioapic_destroy(struct ioapic *io);
void ioapic_reset(struct ioapic *io);
/* Input `pin` to this level. A line's handler: ctx is the struct ioapic. */
void ioapic_set_irq(void *io, unsigned pin, bool level);
/* A local APIC has ended a level-triggered interrupt. */
void ioapic_eoi(struct ioapic *io, uint8_t vector);
bool ioapic_unmasked(const struct ioapic *io, unsigned pin);
struct state_object ioapic_state_object(struct ioapic *io);

#endif
