/* SPDX-License-Identifier: Apache-2.0 */
/* Building the MP tables (MultiProcessor Specification 1.4, chapter 4). */
#include "board/mptable.h"

#include <string.h>

#include "board/pc.h"

struct floating_pointer {
    char signature[4];
    uint32_t config;
    uint8_t length, revision, checksum, features[5]; /* length in 16-byte units */
};
_Static_assert(sizeof(struct floating_pointer) == 16, "layout is the specification's");

struct config_header {
    char signature[4];
    uint16_t length;
    uint8_t revision, checksum;
    char oem[8], product[12];
    uint32_t oem_table;
    uint16_t oem_table_len, entries;
    uint32_t lapic;
    uint16_t extended_len;
    uint8_t extended_checksum, reserved;
};
_Static_assert(sizeof(struct config_header) == 44, "layout is the specification's");

enum { ENTRY_PROCESSOR, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_IO_INTERRUPT, ENTRY_LOCAL_INTERRUPT };
enum { BUS_PCI = 0, BUS_ISA = 1 };
enum { INTERRUPT_VECTORED = 0, INTERRUPT_NMI = 1, INTERRUPT_EXTINT = 3 };
enum { FLAGS_CONFORM = 0, FLAGS_HIGH_LEVEL = 1 | 3 << 2 };

struct processor {
    uint8_t type, apic_id, apic_version, flags; /* flags: 1 usable, 2 the boot processor */
    uint32_t signature, features, reserved[2];
};

struct bus_entry {
    uint8_t type, id;
    char name[6];
};

struct ioapic {
    uint8_t type, id, version, flags;
    uint32_t at;
};

struct interrupt {
    uint8_t type, kind;
    uint16_t flags;
    uint8_t bus, irq, apic, pin;
};

struct table {
    uint8_t *buf;
    size_t len, cap;
    uint16_t entries;
    bool full;
};

static void put(struct table *t, const void *what, size_t len)
{
    if (t->full || len > t->cap - t->len) {
        t->full = true;
        return;
    }
    memcpy(t->buf + t->len, what, len);
    t->len += len;
    t->entries++;
}

static uint8_t checksum(const uint8_t *data, size_t len)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + data[i]);
    return (uint8_t)-sum;
}

static void put_processors(struct table *t, unsigned cpus)
{
    const uint8_t integrated_apic = 0x14, usable = 1, boot = 2;
    const uint32_t family6 = 0x600, fpu_and_apic = 1 | 1 << 9;
    for (unsigned i = 0; i < cpus; i++) {
        const struct processor p = {
            ENTRY_PROCESSOR, (uint8_t)i, integrated_apic, i ? usable : usable | boot, family6,
            fpu_and_apic,    { 0 }
        };
        put(t, &p, sizeof(p));
    }
}

static void put_buses(struct table *t)
{
    static const struct bus_entry buses[] = { { ENTRY_BUS, BUS_PCI, "PCI   " },
                                              { ENTRY_BUS, BUS_ISA, "ISA   " } };
    for (unsigned i = 0; i < array_size(buses); i++)
        put(t, &buses[i], sizeof(buses[i]));
}

static void put_isa_interrupts(struct table *t)
{
    for (unsigned irq = 0; irq < PC_ISA_IRQS; irq++) {
        /* Input 2 is the second 8259's, on no pin; its pin is the timer's. */
        if (irq == PC_TIMER_PIN)
            continue;
        const struct interrupt i = { ENTRY_IO_INTERRUPT,
                                     INTERRUPT_VECTORED,
                                     irq == PC_IRQ_SCI ? FLAGS_HIGH_LEVEL : FLAGS_CONFORM,
                                     BUS_ISA,
                                     (uint8_t)irq,
                                     PC_IOAPIC_ID,
                                     (uint8_t)(irq == PC_IRQ_TIMER ? PC_TIMER_PIN : irq) };
        put(t, &i, sizeof(i));
    }
}

static void put_pci_interrupts(struct table *t)
{
    for (unsigned slot = 0; slot < 32; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            const struct interrupt i = { ENTRY_IO_INTERRUPT,
                                         INTERRUPT_VECTORED,
                                         FLAGS_CONFORM,
                                         BUS_PCI,
                                         (uint8_t)(slot << 2 | pin),
                                         PC_IOAPIC_ID,
                                         (uint8_t)pc_pci_irq(slot, pin) };
            put(t, &i, sizeof(i));
        }
    }
}

static void put_local_interrupts(struct table *t)
{
    const uint8_t every_apic = 0xff;
    static const uint8_t kind_of_pin[] = { INTERRUPT_EXTINT, INTERRUPT_NMI };
    for (unsigned pin = 0; pin < array_size(kind_of_pin); pin++) {
        const struct interrupt i = {
            ENTRY_LOCAL_INTERRUPT, kind_of_pin[pin], FLAGS_CONFORM, BUS_ISA, 0, every_apic, pin
        };
        put(t, &i, sizeof(i));
    }
}

size_t mptable_build(uint8_t *buf, size_t cap, uint64_t at, unsigned cpus)
{
    const size_t config = sizeof(struct floating_pointer);
    if (cap < config + sizeof(struct config_header))
        return 0;
    struct table t = { .buf = buf, .len = config + sizeof(struct config_header), .cap = cap };
    const struct ioapic io = { ENTRY_IOAPIC, PC_IOAPIC_ID, 0x11, 1, PC_IOAPIC };
    put_processors(&t, cpus);
    put_buses(&t);
    put(&t, &io, sizeof(io));
    put_isa_interrupts(&t);
    put_pci_interrupts(&t);
    put_local_interrupts(&t);
    if (t.full)
        return 0;

    struct config_header h = { .signature = { 'P', 'C', 'M', 'P' },
                               .length = (uint16_t)(t.len - config),
                               .revision = 4,
                               .entries = t.entries,
                               .lapic = PC_LAPIC };
    memcpy(h.oem, "SUNDOG  ", sizeof(h.oem));
    memcpy(h.product, "PC          ", sizeof(h.product));
    memcpy(buf + config, &h, sizeof(h));
    buf[config + offsetof(struct config_header, checksum)] = checksum(buf + config, t.len - config);

    struct floating_pointer f = {
        .signature = { '_', 'M', 'P', '_' }, .config = (uint32_t)(at + config), .length = 1, .revision = 4
    };
    memcpy(buf, &f, sizeof(f));
    buf[offsetof(struct floating_pointer, checksum)] = checksum(buf, sizeof(f));
    return t.len;
}
