/* SPDX-License-Identifier: Apache-2.0 */
/* The machine around the processor: Multiboot information, firmware tables, and the chips a small kernel
 * looks for. */
#include "guest.h"

#define COM1 0x3f8

/* ---- Multiboot 0.6.96, sections 3.2 and 3.3 ---- */

struct multiboot {
    u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4], mmap_length,
        mmap_addr;
    u32 drives_length, drives_addr, config_table, loader_name;
};
struct module {
    u32 start, end, string, reserved;
};
struct map_entry {
    u32 size;
    u64 base, length;
    u32 type;
} __attribute__((packed));

extern u8 image_end[];

static bool begins(const char *text, const char *with)
{
    while (*with && *text == *with)
        text++, with++;
    return !*with;
}

static bool contains(const char *text, const char *word)
{
    for (; *text; text++)
        if (begins(text, word))
            return true;
    return false;
}

static void multiboot(void)
{
    const struct multiboot *info = (const void *)(ulong)boot_info;
    CHECK_EQ("entry-magic", boot_magic, 0x2BADB002);
    CHECK_EQ("entry-cr0", boot_state[0] & (CR0_PE | CR0_PG), CR0_PE);
    CHECK_EQ("entry-flags", boot_state[1] & (FLAG_IF | FLAG_VM), 0);
    CHECK("entry-selectors",
          (boot_state[2] & 0xffff) && (boot_state[3] & 0xffff) && (boot_state[4] & 0xffff));
    CHECK("memory-sizes", (info->flags & 1) && info->mem_lower >= 500 && info->mem_lower <= 640 &&
                              info->mem_upper > 62 * 1024 && info->mem_upper <= 63 * 1024);
    CHECK("command-line", (info->flags & 4) && contains(command_line(), "word1 word2=3"));
    CHECK("loader-name", (info->flags & 0x200) && *(const char *)(ulong)info->loader_name);
    CHECK("modules", (info->flags & 8) && info->mods_count == 1);
    const struct module *mod = (const void *)(ulong)info->mods_addr;
    CHECK("module-place", mod->start % 4096 == 0 && mod->start >= (ulong)image_end && mod->end > mod->start &&
                              mod->end <= 64u << 20);
    CHECK("module-content",
          begins((const char *)(ulong)mod->start, "/* SPDX-License-Identifier: Apache-2.0 */"));
    CHECK("module-end", *(const char *)(ulong)(mod->end - 1) == '\n');
    /* the map: low memory, memory above 1 MiB with this image, nothing overlapping */
    CHECK("map-given", info->flags & 0x40);
    bool low = false, image = false, overlap = false;
    u64 ram = 0;
    for (u32 at = info->mmap_addr; at < info->mmap_addr + info->mmap_length;) {
        const struct map_entry *e = (const void *)(ulong)at;
        if (e->type == 1) {
            ram += e->length;
            low = low || (e->base == 0 && e->length >= 0x80000 && e->length <= 0xa0000);
            image = image || (e->base <= 0x100000 && e->base + e->length >= (ulong)image_end);
        }
        for (u32 other = info->mmap_addr; other < at;) {
            const struct map_entry *o = (const void *)(ulong)other;
            overlap = overlap || (e->base < o->base + o->length && o->base < e->base + e->length);
            other += o->size + 4;
        }
        at += e->size + 4;
    }
    CHECK("map-low-memory", low);
    CHECK("map-image", image);
    CHECK("map-no-overlap", !overlap);
    CHECK("map-total", ram > 62ull << 20 && ram <= 64ull << 20);
}

/* ---- ACPI 6.5, 5.2 ---- */

static u64 get64(ulong p)
{
    u64 v;
    copy(&v, (const void *)p, 8);
    return v;
}

static bool sums_to_zero(ulong p, u32 n)
{
    u8 sum = 0;
    for (u32 i = 0; i < n; i++)
        sum = (u8)(sum + ((const u8 *)p)[i]);
    return sum == 0;
}

static ulong fadt, madt, dsdt;

static void acpi(void)
{
    ulong rsdp = find_signature("RSD PTR ", 0xe0000, 0x100000);
    CHECK("rsdp", rsdp && sums_to_zero(rsdp, 20));
    if (!rsdp)
        return;
    ulong rsdt = get32(rsdp + 16);
    CHECK("rsdt", equal((void *)rsdt, "RSDT", 4) && sums_to_zero(rsdt, get32(rsdt + 4)));
    if (((u8 *)rsdp)[15] >= 2) {
        ulong xsdt = (ulong)get64(rsdp + 24);
        CHECK("rsdp-extended", sums_to_zero(rsdp, get32(rsdp + 20)));
        CHECK("xsdt", equal((void *)xsdt, "XSDT", 4) && sums_to_zero(xsdt, get32(xsdt + 4)));
        CHECK("xsdt-like-rsdt", (get32(xsdt + 4) - 36) / 8 == (get32(rsdt + 4) - 36) / 4 &&
                                    get64(xsdt + 36) == get32(rsdt + 36));
    } else {
        check_skip("xsdt", "ACPI 1 tables");
    }
    bool sums = true;
    for (u32 at = 36; at < get32(rsdt + 4); at += 4) {
        ulong table = get32(rsdt + at);
        sums = sums && sums_to_zero(table, get32(table + 4));
    }
    fadt = acpi_table("FACP");
    madt = acpi_table("APIC");
    CHECK("table-checksums", sums);
    CHECK("fadt", fadt && get32(fadt + 4) >= 116);
    CHECK("madt", madt && get32(madt + 36) == APIC_BASE);
    dsdt = get32(fadt + 40);
    CHECK("dsdt", equal((void *)dsdt, "DSDT", 4) && sums_to_zero(dsdt, get32(dsdt + 4)));
    u32 processors = 0, ioapics = 0, timer_pin = 0;
    for (u32 i = 44; i + 2 <= get32(madt + 4) && ((u8 *)madt)[i + 1] >= 2; i += ((u8 *)madt)[i + 1]) {
        const u8 *e = (const u8 *)madt + i;
        processors += e[0] == 0 && (e[4] & 1);
        ioapics += e[0] == 1 && get32((ulong)e + 4) == 0xfec00000;
        if (e[0] == 2 && e[3] == 0)
            timer_pin = get32((ulong)e + 4);
    }
    CHECK_EQ("madt-processors", processors, 1);
    CHECK_EQ("madt-ioapic", ioapics, 1);
    CHECK_EQ("madt-timer-override", timer_pin, 2);
    ulong mp = find_signature("_MP_", 0xf0000, 0x100000);
    if (mp) {
        ulong config = get32(mp + 4);
        CHECK("mp-floating-pointer", sums_to_zero(mp, ((u8 *)mp)[8] * 16u));
        CHECK("mp-table",
              equal((void *)config, "PCMP", 4) && sums_to_zero(config, get32(config + 4) & 0xffff));
    } else {
        check_skip("mp-table", "none");
    }
}

static void pm_timer(void)
{
    u16 port = (u16)get32(fadt + 76);
    CHECK("pm-timer-port", port != 0);
    u32 start = in32(port) & 0xffffff;
    delay_us(20000);
    u32 ticks = ((in32(port) & 0xffffff) - start) & 0xffffff;
    CHECK("pm-timer-rate", ticks >= 3579545 / 50 * 9 / 10); /* 3.579545 MHz, 20 ms at least */
    u32 last = in32(port) & 0xffffff, back = 0;
    for (u32 i = 0; i < 1000; i++) {
        u32 now = in32(port) & 0xffffff;
        back += ((now - last) & 0xffffff) > 0x800000;
        last = now;
    }
    CHECK_EQ("pm-timer-monotone", back, 0);
    /* PM1: ACPI mode is on or can be switched on (4.8.3.2.1) */
    u16 control = (u16)get32(fadt + 64), command = (u16)get32(fadt + 48);
    if (!(in16(control) & 1) && command)
        out8(command, ((u8 *)fadt)[52]);
    CHECK("acpi-enabled", in16(control) & 1);
    u16 event = (u16)get32(fadt + 56);
    out16(event, 0xffff);
    out16(event + 2, 0x0001);
    CHECK_EQ("pm1-enable-reads-back", in16(event + 2) & 1, 1);
    out16(event + 2, 0);
}

/* ---- chips ---- */

static u8 cmos(u8 reg)
{
    out8(0x70, reg);
    return in8(0x71);
}

static void real_time_clock(void)
{
    out8(0x70, 0x0b), out8(0x71, 0x02); /* 24 hours, BCD */
    CHECK("rtc-valid", cmos(0x0d) & 0x80);
    CHECK_EQ("rtc-register-a", cmos(0x0a) & 0x70, 0x20);
    u8 seconds = cmos(0), minutes = cmos(2), hours = cmos(4), day = cmos(7), month = cmos(8);
    CHECK("rtc-bcd", (seconds & 15) <= 9 && seconds < 0x60 && minutes < 0x60 && hours < 0x24 && day >= 1 &&
                         day <= 0x31 && month >= 1 && month <= 0x12);
    u8 first = cmos(0);
    bool moved = false;
    for (u32 i = 0; i < 300 && !moved; i++) {
        delay_us(10000);
        moved = cmos(0) != first;
    }
    CHECK("rtc-seconds-move", moved);
    out8(0x70, 0x0b), out8(0x71, 0x06); /* binary */
    CHECK("rtc-binary", cmos(0) < 60 && cmos(8) >= 1 && cmos(8) <= 12);
    out8(0x70, 0x0b), out8(0x71, 0x02);
    out8(0x70, 0x50), out8(0x71, 0x5a);
    CHECK_EQ("cmos-ram", cmos(0x50), 0x5a);
    cmos(0x0c);
    out8(0x70, 0x0a), out8(0x71, 0x26);
    for (u32 i = 0; i < 100 && !(cmos(0x0c) & 0x40); i++)
        delay_us(1000);
    delay_us(5000);
    CHECK("rtc-periodic-flag", cmos(0x0c) & 0x40);
}

static void serial(void)
{
    while (!(in8(COM1 + 5) & 0x40))
        ;
    out8(COM1 + 7, 0xa5);
    CHECK_EQ("uart-scratch", in8(COM1 + 7), 0xa5);
    u8 lcr = in8(COM1 + 3);
    out8(COM1 + 3, (u8)(lcr | 0x80));
    out8(COM1, 0x0c), out8(COM1 + 1, 0x00);
    CHECK("uart-divisor", in8(COM1) == 0x0c && in8(COM1 + 1) == 0);
    out8(COM1, 1);
    out8(COM1 + 3, lcr);
    out8(COM1 + 2, 0x07);
    CHECK_EQ("uart-fifo-id", in8(COM1 + 2) & 0xc0, 0xc0);
    /* loop back: nothing may be printed until the line is out again */
    while (!(in8(COM1 + 5) & 0x40))
        ;
    out8(COM1 + 4, 0x1f);
    u8 all = in8(COM1 + 6) & 0xf0;
    out8(COM1 + 4, 0x12);
    u8 rts = in8(COM1 + 6) & 0xf0;
    in8(COM1);
    out8(COM1, 0x41);
    for (u32 i = 0; i < 1000 && !(in8(COM1 + 5) & 1); i++)
        delay_us(10);
    bool there = in8(COM1 + 5) & 1;
    u8 data = in8(COM1);
    bool still = in8(COM1 + 5) & 1;
    while (!(in8(COM1 + 5) & 0x40))
        ;
    out8(COM1 + 4, 0x03);
    out8(COM1 + 1, 2);
    u8 pending = in8(COM1 + 2) & 0x0f, after = in8(COM1 + 2) & 0x0f;
    out8(COM1 + 1, 0);
    CHECK_EQ("uart-loop-modem-lines", all, 0xf0);
    CHECK_EQ("uart-loop-rts-cts", rts, 0x10);
    CHECK("uart-loop-data", there && data == 0x41);
    CHECK("uart-loop-read-empties", !still);
    CHECK_EQ("uart-thre-identified", pending, 2);
    CHECK_EQ("uart-thre-read-clears", after, 1);
}

static void keyboard_controller(void)
{
    while (in8(0x64) & 1)
        in8(0x60);
    out8(0x64, 0xaa);
    for (u32 i = 0; i < 10000 && !(in8(0x64) & 1); i++)
        delay_us(10);
    CHECK_EQ("kbc-self-test", in8(0x60), 0x55);
    out8(0x64, 0x20);
    for (u32 i = 0; i < 10000 && !(in8(0x64) & 1); i++)
        delay_us(10);
    CHECK("kbc-command-byte", !(in8(0x64) & 2) && (in8(0x60) & 0x80) == 0);
}

static u32 pci(u32 device, u32 reg)
{
    out32(0xcf8, 0x80000000 | device << 11 | reg);
    return in32(0xcfc);
}

static void pci_bus(void)
{
    out32(0xcf8, 0x80001234 & ~3u);
    CHECK_EQ("pci-address-reads-back", in32(0xcf8), 0x80001234 & ~3u);
    CHECK("pci-host-bridge", (pci(0, 0) & 0xffff) != 0xffff);
    CHECK_EQ("pci-host-bridge-class", pci(0, 8) >> 16, 0x0600);
    CHECK_EQ("pci-nobody", pci(31, 0), 0xffffffff);
    out32(0xcf8, 0x80000000);
    CHECK_EQ("pci-byte-access", in8(0xcfc + 1), pci(0, 0) >> 8 & 0xff);
    out32(0xcf8, 0);
    CHECK_EQ("pci-not-enabled", in32(0xcfc), 0xffffffff);
}

static void memory_holes(void)
{
    /* nobody there: all ones on read, writes vanish */
    volatile u32 *hole = (volatile u32 *)0xd0000000;
    CHECK_EQ("hole-reads-ones", *hole, 0xffffffff);
    *hole = 0x12345678;
    CHECK_EQ("hole-write-vanishes", *hole, 0xffffffff);
    CHECK_EQ("port-reads-ones", in8(0x1234), 0xff);
    CHECK_EQ("port-word-reads-ones", in16(0x1234), 0xffff);
    CHECK_EQ("port-dword-reads-ones", in32(0x1234), 0xffffffff);
    volatile u32 *last = (volatile u32 *)((64ul << 20) - 128 * 1024 - 4);
    *last = 0xcafe;
    CHECK_EQ("top-of-memory", *last, 0xcafe);
}

void guest_main(void)
{
    multiboot();
    acpi();
    pm_timer();
    real_time_clock();
    serial();
    keyboard_controller();
    pci_bus();
    memory_holes();
}
