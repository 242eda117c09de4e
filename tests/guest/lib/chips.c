/* SPDX-License-Identifier: Apache-2.0 */
/* The interrupt controllers and timers of a PC: 8259 pair, 8254, local APIC, I/O APIC. */
#include "guest.h"

void pic_init(void)
{
    static const u8 words[][4] = { { 0x20, 0x11, IRQ_BASE, 4 }, { 0xa0, 0x11, IRQ_BASE + 8, 2 } };
    for (u32 i = 0; i < 2; i++) {
        u16 port = words[i][0];
        out8(port, words[i][1]);
        out8(port + 1, words[i][2]);
        out8(port + 1, words[i][3]);
        out8(port + 1, 1);
    }
    pic_mask(0xffff);
}

void pic_mask(u16 mask)
{
    out8(0x21, (u8)mask);
    out8(0xa1, (u8)(mask >> 8));
}

void pic_eoi(int irq)
{
    if (irq >= 8)
        out8(0xa0, 0x20);
    out8(0x20, 0x20);
}

static u16 pic_read(u8 command)
{
    out8(0x20, command);
    out8(0xa0, command);
    return (u16)(in8(0x20) | in8(0xa0) << 8);
}

u16 pic_irr(void) { return pic_read(0x0a); }
u16 pic_isr(void) { return pic_read(0x0b); }

#define PIT_HZ 1193182u

void pit_periodic(u32 hz)
{
    u32 count = PIT_HZ / hz;
    out8(0x43, 0x34);
    out8(0x40, (u8)count);
    out8(0x40, (u8)(count >> 8));
}

void pit_one_shot(u16 count)
{
    out8(0x43, 0x30);
    out8(0x40, (u8)count);
    out8(0x40, (u8)(count >> 8));
}

void pit_stop(void) { out8(0x43, 0x30); /* mode 0 without a count: output low, not counting */ }

void delay_us(u32 us)
{
    while (us) {
        u32 part = us > 50000 ? 50000 : us, count = part * 1193 / 1000 + 1;
        out8(0x61, (u8)((in8(0x61) & ~3) | 1)); /* gate on, speaker off */
        out8(0x43, 0xb0);
        out8(0x42, (u8)count);
        out8(0x42, (u8)(count >> 8));
        while (!(in8(0x61) & 0x20))
            ;
        us -= part;
    }
}

u64 tsc_hz(void)
{
    u64 least = ~0ull; /* of many short ones, since a busy host makes a wait longer, never shorter */
    for (int i = 0; i < 40; i++) {
        u64 start = rdtsc();
        delay_us(1000);
        u64 took = rdtsc() - start;
        if (took < least)
            least = took;
    }
    return least * 1000;
}

void apic_enable(void)
{
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0x800);
    apic_write(APIC_SVR, 0x1ff);
    apic_write(APIC_LVTT, 0x10000);
    apic_write(APIC_LVT0, 0x10000);
    apic_write(APIC_LVT1, 0x10000);
    apic_write(APIC_LVTERR, 0x10000);
    apic_write(APIC_TPR, 0);
}

bool apic_bit(u32 reg, u8 vector) { return apic_read(reg + (vector / 32u) * 16) >> (vector % 32) & 1; }

void apic_icr(u32 destination, u32 low)
{
    apic_write(APIC_ICR2, destination << 24);
    apic_write(APIC_ICR, low);
    for (u32 i = 0; i < 1000000 && (apic_read(APIC_ICR) & 0x1000); i++)
        cpu_pause();
}

#define IOAPIC ((volatile u32 *)0xfec00000ul)

u32 ioapic_read(u32 reg)
{
    IOAPIC[0] = reg;
    return IOAPIC[4];
}

void ioapic_write(u32 reg, u32 value)
{
    IOAPIC[0] = reg;
    IOAPIC[4] = value;
}

void ioapic_route(int pin, u8 vector, u32 low_flags, u8 destination)
{
    ioapic_write(0x10 + 2 * (u32)pin, IOAPIC_MASKED);
    ioapic_write(0x11 + 2 * (u32)pin, (u32)destination << 24);
    ioapic_write(0x10 + 2 * (u32)pin, low_flags | vector);
}
