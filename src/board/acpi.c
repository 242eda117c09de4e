/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building the ACPI tables (ACPI 6.4 chapter 5; fixed hardware, chapter 4).
 *
 *   RSDP ─┬─► RSDT ─┬─► FADT ─┬─► DSDT (AML: acpi_dsdt.c)
 *         └─► XSDT ─┴─► MADT  └─► FACS (writable, elsewhere)
 *
 * The FADT is of revision 3 (ACPI 2.0): the fixed hardware with 32-bit addresses and the reset register,
 * nothing newer.
 */
#include "board/acpi.h"

#include <string.h>

#include "base/bits.h"
#include "board/acpi_dsdt.h"
#include "board/pc.h"
#include "device/acpi_pm.h"

#define OEM_ID "SUNDOG"
#define OEM_TABLE_ID "SUNDOGPC"
#define CREATOR_ID "SNDG"

struct header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem_id[6], oem_table_id[8];
    uint32_t oem_revision;
    char creator_id[4];
    uint32_t creator_revision;
} __attribute__((packed));

struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem_id[6];
    uint8_t revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
    uint8_t extended_checksum, reserved[3];
} __attribute__((packed));
_Static_assert(sizeof(struct rsdp) == 36, "layout is the specification's");
#define RSDP_V1_LEN 20

/* Generic address structure. */
struct address {
    uint8_t space, width, offset, access;
    uint64_t at;
} __attribute__((packed));

struct fadt {
    struct header h;
    uint32_t facs, dsdt;
    uint8_t reserved0, profile;
    uint16_t sci;
    uint32_t smi_cmd;
    uint8_t acpi_enable, acpi_disable, s4bios, pstate;
    uint32_t pm1a_event, pm1b_event, pm1a_control, pm1b_control, pm2_control, pm_timer, gpe0, gpe1;
    uint8_t pm1_event_len, pm1_control_len, pm2_control_len, pm_timer_len, gpe0_len, gpe1_len, gpe1_base, cst;
    uint16_t c2_latency, c3_latency, flush_size, flush_stride;
    uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
    uint16_t boot_arch;
    uint8_t reserved1;
    uint32_t flags;
    struct address reset;
    uint8_t reset_value, reserved2[3];
    uint64_t x_facs, x_dsdt;
    struct address x_pm1a_event, x_pm1b_event, x_pm1a_control, x_pm1b_control, x_pm2_control, x_pm_timer,
        x_gpe0, x_gpe1;
} __attribute__((packed));
_Static_assert(sizeof(struct fadt) == 244, "layout is the specification's");

enum {
    FADT_WBINVD = 1 << 0,
    FADT_C1 = 1 << 2,
    FADT_NO_SLEEP_BUTTON = 1 << 5, /* the power button alone is fixed hardware */
    FADT_NO_FIXED_RTC_WAKE = 1 << 6,
    FADT_32_BIT_TIMER = 1 << 8,
    FADT_RESET_REGISTER = 1 << 10,
    BOOT_ARCH_LEGACY_DEVICES = 1 << 0,
    BOOT_ARCH_8042 = 1 << 1,
    BOOT_ARCH_NO_VGA = 1 << 2,
    PROFILE_DESKTOP = 1,
    LATENCY_NO_C2 = 101,
    LATENCY_NO_C3 = 1001,
    CMOS_CENTURY = 0x32,
    SPACE_IO = 1,
};

struct madt {
    struct header h;
    uint32_t lapic, flags;
} __attribute__((packed));

struct madt_lapic {
    uint8_t type, len, processor, apic_id;
    uint32_t flags;
} __attribute__((packed));

struct madt_ioapic {
    uint8_t type, len, id, reserved;
    uint32_t at, gsi_base;
} __attribute__((packed));

struct madt_override {
    uint8_t type, len, bus, irq;
    uint32_t gsi;
    uint16_t flags;
} __attribute__((packed));

struct madt_nmi {
    uint8_t type, len, processor;
    uint16_t flags;
    uint8_t lint;
} __attribute__((packed));

enum {
    MADT_PCAT = 1, /* there are 8259s too */
    MADT_ENABLED = 1,
    MADT_LAPIC = 0,
    MADT_IOAPIC = 1,
    MADT_OVERRIDE = 2,
    MADT_LAPIC_NMI = 4,
    MADT_ALL_PROCESSORS = 0xff,
    INTI_CONFORMS = 0,
    INTI_HIGH_LEVEL = 1 | 3 << 2,
};

struct facs {
    char signature[4];
    uint32_t length, hardware_signature, waking_vector, global_lock, flags;
    uint64_t x_waking_vector;
    uint8_t version, reserved[31];
} __attribute__((packed));
_Static_assert(sizeof(struct facs) == ACPI_FACS_LEN, "layout is the specification's");

static uint8_t checksum(const void *data, size_t len)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)data)[i]);
    return (uint8_t)-sum;
}

/* --- one table after another ---------------------------------------------------------------------------- */

struct writer {
    struct aml out; /* the same bounded buffer serves tables of bytes */
    uint64_t base;
};

static void align(struct writer *w)
{
    while (w->out.len % 16 && !w->out.full)
        aml_byte(&w->out, 0);
}

/* Returns the table's offset; its length and checksum are filled in by close_table(). */
static size_t open_table(struct writer *w, const char *signature, uint8_t revision)
{
    align(w);
    size_t at = w->out.len;
    struct header h = { .revision = revision, .oem_revision = 1, .creator_revision = 1 };
    memcpy(h.signature, signature, sizeof(h.signature));
    memcpy(h.oem_id, OEM_ID, sizeof(h.oem_id));
    memcpy(h.oem_table_id, OEM_TABLE_ID, sizeof(h.oem_table_id));
    memcpy(h.creator_id, CREATOR_ID, sizeof(h.creator_id));
    aml_bytes(&w->out, &h, sizeof(h));
    return at;
}

static uint64_t close_table(struct writer *w, size_t at)
{
    if (w->out.full)
        return 0;
    uint8_t *t = w->out.buf + at;
    put_le32(t + offsetof(struct header, length), (uint32_t)(w->out.len - at));
    t[offsetof(struct header, checksum)] = checksum(t, w->out.len - at);
    return w->base + at;
}

/* What follows the common header of a table given as a whole struct. */
static void body(struct writer *w, const void *table, size_t len)
{
    aml_bytes(&w->out, (const uint8_t *)table + sizeof(struct header), len - sizeof(struct header));
}

static struct address io_address(uint16_t port, uint8_t bytes)
{
    return (struct address){
        .space = SPACE_IO, .width = (uint8_t)(bytes * 8), .access = bytes == 4 ? 3 : bytes, .at = port
    };
}

static uint64_t put_fadt(struct writer *w, uint64_t dsdt, uint64_t facs)
{
    const struct fadt f = {
        .facs = (uint32_t)facs,
        .dsdt = (uint32_t)dsdt,
        .profile = PROFILE_DESKTOP,
        .sci = PC_IRQ_SCI,
        .smi_cmd = ACPI_SMI_PORT,
        .acpi_enable = ACPI_SMI_ENABLE,
        .acpi_disable = ACPI_SMI_DISABLE,
        .pm1a_event = PC_PORT_PM + ACPI_PM1_EVENT,
        .pm1a_control = PC_PORT_PM + ACPI_PM1_CONTROL,
        .pm_timer = PC_PORT_PM + ACPI_PM_TIMER,
        .pm1_event_len = 4,
        .pm1_control_len = 2,
        .pm_timer_len = 4,
        .c2_latency = LATENCY_NO_C2,
        .c3_latency = LATENCY_NO_C3,
        .century = CMOS_CENTURY,
        .boot_arch = BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_8042 | BOOT_ARCH_NO_VGA,
        .flags = FADT_WBINVD | FADT_C1 | FADT_NO_SLEEP_BUTTON | FADT_NO_FIXED_RTC_WAKE | FADT_32_BIT_TIMER |
                 FADT_RESET_REGISTER,
        .reset = io_address(PC_PORT_RESET, 1),
        .reset_value = PC_RESET_VALUE,
        .x_dsdt = dsdt,
        .x_pm1a_event = io_address(PC_PORT_PM + ACPI_PM1_EVENT, 4),
        .x_pm1a_control = io_address(PC_PORT_PM + ACPI_PM1_CONTROL, 2),
        .x_pm_timer = io_address(PC_PORT_PM + ACPI_PM_TIMER, 4),
    };
    size_t at = open_table(w, "FACP", 3);
    body(w, &f, sizeof(f));
    return close_table(w, at);
}

static uint64_t put_madt(struct writer *w, unsigned cpus)
{
    const struct madt m = { .lapic = PC_LAPIC, .flags = MADT_PCAT };
    size_t at = open_table(w, "APIC", 3);
    body(w, &m, sizeof(m));
    for (unsigned i = 0; i < cpus; i++) {
        const struct madt_lapic l = { MADT_LAPIC, sizeof(l), (uint8_t)i, (uint8_t)i, MADT_ENABLED };
        aml_bytes(&w->out, &l, sizeof(l));
    }
    const struct madt_ioapic io = { MADT_IOAPIC, sizeof(io), PC_IOAPIC_ID, 0, PC_IOAPIC, 0 };
    const struct madt_override timer = { MADT_OVERRIDE, sizeof(timer), 0,
                                         PC_IRQ_TIMER,  PC_TIMER_PIN,  INTI_CONFORMS };
    const struct madt_override sci = {
        MADT_OVERRIDE, sizeof(sci), 0, PC_IRQ_SCI, PC_IRQ_SCI, INTI_HIGH_LEVEL
    };
    const struct madt_nmi nmi = { MADT_LAPIC_NMI, sizeof(nmi), MADT_ALL_PROCESSORS, INTI_CONFORMS, 1 };
    aml_bytes(&w->out, &io, sizeof(io));
    aml_bytes(&w->out, &timer, sizeof(timer));
    aml_bytes(&w->out, &sci, sizeof(sci));
    aml_bytes(&w->out, &nmi, sizeof(nmi));
    return close_table(w, at);
}

static uint64_t put_dsdt(struct writer *w)
{
    size_t at = open_table(w, "DSDT", 2);
    acpi_dsdt(&w->out);
    return close_table(w, at);
}

/* RSDT (4-byte entries) or XSDT (8-byte entries). */
static uint64_t put_root(struct writer *w, const char *signature, const uint64_t *tables, unsigned count,
                         size_t width)
{
    size_t at = open_table(w, signature, 1);
    for (unsigned i = 0; i < count; i++)
        aml_bytes(&w->out, &tables[i], width);
    return close_table(w, at);
}

size_t acpi_build(uint8_t *buf, size_t cap, const struct acpi_places *at, unsigned cpus)
{
    struct writer w = { .out = { .buf = buf, .cap = cap }, .base = at->tables };
    struct rsdp rsdp = { .revision = 2, .length = sizeof(rsdp) };
    memcpy(rsdp.signature, "RSD PTR ", sizeof(rsdp.signature));
    memcpy(rsdp.oem_id, OEM_ID, sizeof(rsdp.oem_id));

    aml_bytes(&w.out, &rsdp, sizeof(rsdp));
    uint64_t dsdt = put_dsdt(&w);
    uint64_t tables[] = { put_fadt(&w, dsdt, at->facs), put_madt(&w, cpus) };
    rsdp.rsdt = (uint32_t)put_root(&w, "RSDT", tables, array_size(tables), 4);
    rsdp.xsdt = put_root(&w, "XSDT", tables, array_size(tables), 8);
    if (w.out.full)
        return 0;
    rsdp.checksum = checksum(&rsdp, RSDP_V1_LEN);
    rsdp.extended_checksum = checksum(&rsdp, sizeof(rsdp));
    memcpy(buf, &rsdp, sizeof(rsdp));
    return w.out.len;
}

void acpi_build_facs(uint8_t facs[ACPI_FACS_LEN])
{
    struct facs f = { .length = sizeof(f), .version = 1 };
    memcpy(f.signature, "FACS", sizeof(f.signature));
    memcpy(facs, &f, sizeof(f));
}
