/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI fixed hardware: PM1 event and control blocks, PM timer, SMI command port (ACPI 6.5, 4.8). */
#ifndef SUNDOG_DEVICE_ACPI_PM_H
#define SUNDOG_DEVICE_ACPI_PM_H

#include "base/error.h"
#include "base/state.h"
#include "bus/bus.h"
#include "bus/line.h"
#include "clock/clock.h"

/* Offsets of the blocks from the base port, for the FADT. */
#define ACPI_PM1_EVENT 0u   /* status and enable, 2 bytes each */
#define ACPI_PM1_CONTROL 4u /* 2 bytes */
#define ACPI_PM_TIMER 8u    /* 4 bytes, 32 bits wide */
#define ACPI_PM_PORTS 12u

#define ACPI_PM_HZ 3579545u

/* SMI command port and its two values (FADT SMI_CMD, ACPI_ENABLE, ACPI_DISABLE). */
#define ACPI_SMI_PORT 0xb2u
#define ACPI_SMI_ENABLE 0xf1u
#define ACPI_SMI_DISABLE 0xf0u

struct acpi_pm;

struct acpi_pm_config {
    uint16_t base;         /* ACPI_PM_PORTS ports */
    uint8_t s5_sleep_type; /* SLP_TYPx that means S5 (the DSDT's \_S5) */
    struct line sci;
    void *ctx;
    void (*power_off)(void *ctx);
};

struct acpi_pm *acpi_pm_create(struct bus *bus, struct clock *clk, const struct acpi_pm_config *cfg,
                               struct error *e);
void acpi_pm_destroy(struct acpi_pm *pm);
void acpi_pm_reset(struct acpi_pm *pm);
/* Presses and releases the power button. Device lock held. */
void acpi_pm_power_button(struct acpi_pm *pm);
struct state_object acpi_pm_state_object(struct acpi_pm *pm);
/* After a load: drives the SCI and arms the timer's overflow from the state. */
void acpi_pm_loaded(struct acpi_pm *pm);

#endif
