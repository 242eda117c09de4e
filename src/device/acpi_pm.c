/* SPDX-License-Identifier: Apache-2.0 */
/* PM1 status, enable and control, the free-running timer, and the switch between legacy and ACPI mode. */
#include "device/acpi_pm.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "device/rate.h"

/* PM1 event bits, status and enable alike (ACPI 6.5, tables 4.11 and 4.12). */
#define TMR 0x0001u
#define GBL 0x0020u
#define PWRBTN 0x0100u
#define SLPBTN 0x0200u
#define RTC 0x0400u
#define STATUS_MASK 0x8731u /* with BM, WAK and the above */
#define ENABLE_MASK (TMR | GBL | PWRBTN | SLPBTN | RTC)

/* PM1 control (table 4.13). */
#define SCI_EN 0x0001u
#define SLP_TYP_SHIFT 10
#define SLP_TYP 0x1c00u
#define SLP_EN 0x2000u
#define CONTROL_KEPT (SCI_EN | 0x0002u | SLP_TYP)

struct acpi_pm_state {
    uint16_t status, enable, control;
    uint8_t smi[2];      /* command and data ports */
    uint64_t timer_seen; /* half-turns of the timer accounted for: its highest bit's changes */
};

struct acpi_pm {
    struct acpi_pm_state s;
    struct acpi_pm_config cfg;
    struct clock *clk;
    bool sci;
    struct deadline half_turn;
};

static const struct state_field fields[] = {
    STATE_FIELD_MAX(struct acpi_pm_state, status, STATUS_MASK),
    STATE_FIELD_MAX(struct acpi_pm_state, enable, ENABLE_MASK),
    STATE_FIELD_MAX(struct acpi_pm_state, control, CONTROL_KEPT),
    STATE_ARRAY(struct acpi_pm_state, smi),
    STATE_FIELD(struct acpi_pm_state, timer_seen),
};

static bool valid(const void *state)
{
    const struct acpi_pm_state *s = state;
    return !(s->status & ~STATUS_MASK) && !(s->enable & ~ENABLE_MASK) && !(s->control & ~CONTROL_KEPT);
}

static const struct state_class class = { "acpi_pm",          1,    sizeof(struct acpi_pm_state), fields,
                                          array_size(fields), valid };

static uint64_t timer(const struct acpi_pm *pm) { return rate_ticks(clock_now(pm->clk), ACPI_PM_HZ); }

/* Drives the SCI, and waits for the next change of the timer's highest bit if it would interrupt. */
static void drive(struct acpi_pm *pm)
{
    const struct acpi_pm_state *s = &pm->s;
    bool sci = s->control & SCI_EN && s->status & s->enable & ENABLE_MASK;
    if (sci != pm->sci) {
        pm->sci = sci;
        line_set(&pm->cfg.sci, sci);
    }
    if (s->enable & ~s->status & TMR && s->control & SCI_EN)
        deadline_arm(pm->clk, &pm->half_turn, rate_ns((s->timer_seen + 1) << 31, ACPI_PM_HZ));
    else
        deadline_cancel(pm->clk, &pm->half_turn);
}

static void update(struct acpi_pm *pm)
{
    uint64_t half_turns = timer(pm) >> 31;
    if (half_turns != pm->s.timer_seen)
        pm->s.status |= TMR;
    pm->s.timer_seen = half_turns;
    drive(pm);
}

static void half_turn(void *ctx, uint64_t now)
{
    (void)now;
    update(ctx);
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
    pm->s.status |= PWRBTN;
    update(pm);
}

/* --- registers: 16 bits wide, bytes reach their halves ------------------------------------------------ */

static uint16_t *pm1_register(struct acpi_pm *pm, uint32_t off)
{
    switch (off & ~1u) {
    case ACPI_PM1_EVENT: return &pm->s.status;
    case ACPI_PM1_EVENT + 2: return &pm->s.enable;
    default: return &pm->s.control;
    }
}

static uint64_t pm1_read(void *dev, uint32_t off, unsigned width)
{
    (void)width;
    struct acpi_pm *pm = dev;
    update(pm);
    return *pm1_register(pm, off) >> (off & 1) * 8;
}

static void write_control(struct acpi_pm *pm, uint16_t val)
{
    /* SCI_EN belongs to the SMI command port alone (4.8.3.2.1). */
    pm->s.control = (val & CONTROL_KEPT & ~SCI_EN) | (pm->s.control & SCI_EN);
    if (val & SLP_EN && (val & SLP_TYP) >> SLP_TYP_SHIFT == pm->cfg.s5_sleep_type)
        pm->cfg.power_off(pm->cfg.ctx);
}

static void pm1_write(void *dev, uint32_t off, uint64_t val64, unsigned width)
{
    struct acpi_pm *pm = dev;
    unsigned shift = (off & 1) * 8;
    uint16_t mask = (uint16_t)(mask_bytes(width) << shift), val = (uint16_t)(val64 << shift);
    uint16_t *reg = pm1_register(pm, off);
    update(pm);
    if (reg == &pm->s.status)
        pm->s.status &= ~val; /* writing ones clears */
    else if (reg == &pm->s.enable)
        pm->s.enable = ((*reg & ~mask) | val) & ENABLE_MASK;
    else
        write_control(pm, (*reg & ~mask) | val);
    update(pm);
}

static uint64_t timer_read(void *dev, uint32_t off, unsigned width)
{
    (void)width;
    return (uint32_t)timer(dev) >> off * 8;
}

static uint64_t smi_read(void *dev, uint32_t off, unsigned width)
{
    (void)width;
    return ((struct acpi_pm *)dev)->s.smi[off];
}

static void smi_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)width;
    struct acpi_pm *pm = dev;
    pm->s.smi[off] = (uint8_t)val;
    if (off != 0)
        return;
    if (val == ACPI_SMI_ENABLE)
        pm->s.control |= SCI_EN;
    else if (val == ACPI_SMI_DISABLE)
        pm->s.control &= ~SCI_EN;
    update(pm);
}

static const struct bus_ops pm1_ops = { .read = pm1_read, .write = pm1_write, .max_width = 2 };
static const struct bus_ops timer_ops = { .read = timer_read };
static const struct bus_ops smi_ops = { .read = smi_read, .write = smi_write, .max_width = 1 };

/* --- life --------------------------------------------------------------------------------------------- */

struct acpi_pm *acpi_pm_create(struct bus *bus, struct clock *clk, const struct acpi_pm_config *cfg,
                               struct error *e)
{
    struct acpi_pm *pm = calloc(1, sizeof(*pm));
    if (!pm) {
        error_set(e, -ENOMEM, "cannot allocate the power management ports");
        return NULL;
    }
    pm->cfg = *cfg;
    pm->clk = clk;
    deadline_init(&pm->half_turn, half_turn, pm);
    if (bus_map_port(bus, cfg->base, 6, &pm1_ops, pm, e) ||
        bus_map_port(bus, cfg->base + ACPI_PM_TIMER, 4, &timer_ops, pm, e) ||
        bus_map_port(bus, ACPI_SMI_PORT, 2, &smi_ops, pm, e)) {
        free(pm);
        return NULL;
    }
    acpi_pm_reset(pm);
    return pm;
}

void acpi_pm_destroy(struct acpi_pm *pm)
{
    if (!pm)
        return;
    deadline_cancel(pm->clk, &pm->half_turn);
    free(pm);
}

void acpi_pm_reset(struct acpi_pm *pm)
{
    pm->s = (struct acpi_pm_state){ .timer_seen = timer(pm) >> 31 };
    update(pm);
}

struct state_object acpi_pm_state_object(struct acpi_pm *pm)
{
    return (struct state_object){ &class, &pm->s, 0 };
}

void acpi_pm_loaded(struct acpi_pm *pm)
{
    drive(pm);
    line_set(&pm->cfg.sci, pm->sci);
}
