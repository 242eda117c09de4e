/* SPDX-License-Identifier: Apache-2.0 */
/* The firmware's tables: where they are and what power-off needs of them (ACPI 6.5, 5.2.5-5.2.9). */
#include "guest.h"

u32 get32(ulong p)
{
    u32 v;
    copy(&v, (const void *)p, 4);
    return v;
}

ulong find_signature(const char *signature, ulong from, ulong to)
{
    ulong n = 0;
    while (signature[n])
        n++;
    for (ulong p = from; p < to; p += 16)
        if (equal((const void *)p, signature, n))
            return p;
    return 0;
}

ulong acpi_table(const char *signature)
{
    ulong rsdp = find_signature("RSD PTR ", 0xe0000, 0x100000);
    ulong rsdt = rsdp ? get32(rsdp + 16) : 0;
    for (u32 at = 36; rsdt && at + 4 <= get32(rsdt + 4); at += 4)
        if (equal((const void *)(ulong)get32(rsdt + at), signature, 4))
            return get32(rsdt + at);
    return 0;
}

/* SLP_TYPa out of the package \_S5: name, package op, length, count, first element (20.2.5.4) */
static u32 s5_type(ulong dsdt)
{
    for (ulong p = dsdt + 36; p + 8 < dsdt + get32(dsdt + 4); p++) {
        const u8 *b = (const u8 *)p;
        if (!equal(b, "_S5_", 4) || b[4] != 0x12)
            continue;
        b += 5 + 1 + (b[5] >> 6) + 1; /* the length's further bytes, the count */
        return *b == 0x0a ? b[1] : *b;
    }
    return 0;
}

void acpi_power_off(void)
{
    ulong fadt = acpi_table("FACP");
    if (!fadt)
        return;
    u16 control = (u16)get32(fadt + 64), command = (u16)get32(fadt + 48);
    if (!(in16(control) & 1) && command)
        out8(command, ((const u8 *)fadt)[52]);
    out16(control, (u16)(s5_type(get32(fadt + 40)) << 10 | 0x2000));
}
