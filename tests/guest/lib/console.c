/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest says: COM1, a small print, the count of checks, and the end through debug-exit. */
#include "guest.h"
#include <stdarg.h>

#define COM1 0x3f8
#define DEBUG_EXIT 0xf4

static u32 passed, failed, skipped;

void console_init(void)
{
    static const u8 set_up[][2] = { { 1, 0 }, { 3, 0x80 }, { 0, 1 }, { 1, 0 }, { 3, 3 }, { 2, 1 }, { 4, 3 } };
    for (u32 i = 0; i < ARRAY_LEN(set_up); i++)
        out8(COM1 + set_up[i][0], set_up[i][1]);
}

static void put(char c)
{
    for (u32 i = 0; i < 1000000 && !(in8(COM1 + 5) & 0x20); i++)
        ;
    out8(COM1, (u8)c);
}

static void put_number(u64 value, u32 base, int width, char pad)
{
    char digits[24];
    int n = 0;
    do {
        u32 digit;
        if (base == 16) {
            digit = value & 15;
            value >>= 4;
        } else { /* long division by ten in two halves: a 32-bit guest has no library for 64 bits */
            u32 high = (u32)(value >> 32), low = (u32)value, quotient_high = high / 10, quotient_low;
            asm("divl %4" : "=a"(quotient_low), "=d"(digit) : "0"(low), "1"(high % 10), "r"(10u));
            value = (u64)quotient_high << 32 | quotient_low;
        }
        digits[n++] = "0123456789abcdef"[digit];
    } while (value);
    for (; width > n; width--)
        put(pad);
    while (n)
        put(digits[--n]);
}

static void print_list(const char *format, va_list list)
{
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        char pad = format[1] == '0' ? '0' : ' ';
        int width = 0, longs = 0;
        for (format++; *format >= '0' && *format <= '9'; format++)
            width = width * 10 + *format - '0';
        for (; *format == 'l'; format++)
            longs++;
        if (*format == 's') {
            for (const char *s = va_arg(list, const char *); *s; s++)
                put(*s);
        } else if (*format == 'c') {
            put((char)va_arg(list, int));
        } else if (*format == 'd' && !longs) {
            int v = va_arg(list, int);
            if (v < 0)
                put('-');
            put_number(v < 0 ? 0u - (u32)v : (u32)v, 10, width, pad);
        } else if (*format == 'd' || *format == 'u' || *format == 'x') {
            u64 v = longs == 2 ? va_arg(list, u64) : longs ? va_arg(list, ulong) : va_arg(list, u32);
            put_number(v, *format == 'x' ? 16 : 10, width, pad);
        } else {
            put(*format);
        }
    }
}

void print(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    print_list(format, list);
    va_end(list);
}

static bool count(const char *name, bool ok)
{
    *(ok ? &passed : &failed) += 1;
    print(ok ? "ok %s\n" : "not ok %s: ", name);
    return ok;
}

void check_true(const char *name, bool ok, const char *text)
{
    if (!count(name, ok))
        print("got false, expected %s\n", text);
}

void check_eq(const char *name, u64 got, u64 want)
{
    if (!count(name, got == want))
        print("got 0x%llx, expected 0x%llx\n", got, want);
}

void check_skip(const char *name, const char *why)
{
    skipped++;
    print("skip %s: %s\n", name, why);
}

void check_fault(const char *name, const struct trap *t, ulong vector, ulong error)
{
    if (!count(name, t->vector == vector && t->error == error && t->off == 0))
        print("got vector %lu error 0x%lx at mark%c%ld, expected vector %lu error 0x%lx at mark\n", t->vector,
              t->error, t->off < 0 ? '-' : '+', t->off < 0 ? -t->off : t->off, vector, error);
}

void check_trap(const char *name, const struct trap *t, ulong vector)
{
    if (!count(name, t->vector == vector && t->after == 0))
        print("got vector %lu error 0x%lx at ip 0x%lx (end%c%ld), expected vector %lu at end\n", t->vector,
              t->error, t->regs.ip, t->after < 0 ? '-' : '+', t->after < 0 ? -t->after : t->after, vector);
}

void check_done(const char *name, const struct trap *t)
{
    if (!count(name, t->vector == VECTOR_DONE && t->after == 2))
        print("got vector %lu error 0x%lx at ip 0x%lx (cr2 0x%lx), expected to run to the end\n", t->vector,
              t->error, t->regs.ip, t->cr2);
}

void check_page_fault(const char *name, const struct trap *t, ulong error, ulong address)
{
    if (!count(name, t->vector == PF && t->error == error && t->cr2 == address && t->off == 0))
        print("got vector %lu error 0x%lx cr2 0x%lx at mark%c%ld, expected a page fault with error 0x%lx, "
              "cr2 0x%lx at mark\n",
              t->vector, t->error, t->cr2, t->off < 0 ? '-' : '+', t->off < 0 ? -t->off : t->off, error,
              address);
}

static void leave(u8 code)
{
    out8(DEBUG_EXIT, code);
    for (;;)
        asm volatile("cli; hlt");
}

void finish(void)
{
    disable_interrupts();
    if (skipped)
        print("SKIPPED %u\n", skipped);
    print("PASSED %u FAILED %u\n", passed, failed);
    leave(failed || !passed ? 0x11 : 0x10);
    __builtin_unreachable();
}

void panic(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    disable_interrupts();
    print("not ok panic: ");
    failed++;
    print_list(format, list);
    print("\n");
    va_end(list);
    finish();
}
