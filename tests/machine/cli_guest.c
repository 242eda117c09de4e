/* SPDX-License-Identifier: Apache-2.0 */
/* A Multiboot kernel that does one thing, named by the last word of its command line: what test_cli.py needs of a guest. */
#include <stdbool.h>
#include <stdint.h>

#define COM1 0x3f8
#define PM1_CONTROL 0x604
#define S5 (5u << 10 | 1u << 13)

__attribute__((section(".multiboot"), used)) static const uint32_t header[] = { 0x1badb002, 0, -0x1badb002u };

__asm__(".globl _start\n_start: mov $stack + 4096, %esp\n push %ebx\n call guest_main\n1: hlt\n jmp 1b\n"
        ".lcomm stack, 4096\n");

static void out8(uint16_t port, uint8_t v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static void out16(uint16_t port, uint16_t v) { __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port)); }
static void out32(uint16_t port, uint32_t v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port)); }
static uint8_t in8(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static void put(char c)
{
    while (!(in8(COM1 + 5) & 0x20))
        ;
    out8(COM1, (uint8_t)c);
}

static void puts_(const char *s)
{
    while (*s)
        put(*s++);
}

/* The rest of `line` after `word`, or 0. */
static const char *after(const char *line, const char *word)
{
    for (; *line; line++) {
        const char *a = line, *b = word;
        while (*b && *a == *b)
            a++, b++;
        if (!*b)
            return a;
    }
    return 0;
}

static uint32_t number(const char *s)
{
    uint32_t v = 0;
    while (*s >= '0' && *s <= '9')
        v = v * 10 + (uint32_t)(*s++ - '0');
    return v;
}

static void echo(void)
{
    puts_("ready\r\n");
    for (;;)
        if (in8(COM1 + 5) & 1)
            put((char)in8(COM1));
}

/* Numbered lines, so that a reader can tell what is missing or out of order; 0: without end. */
static void flood(uint32_t lines)
{
    for (uint32_t n = 0; !lines || n != lines; n++) {
        char text[16] = "00000000\n";
        for (uint32_t i = 8, v = n; i-- > 0; v /= 10)
            text[i] = (char)('0' + v % 10);
        puts_(text);
    }
}

static void crash(void)
{
    const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) none = { 0, 0 };
    __asm__ volatile("lidt %0\n int3" : : "m"(none));
}

void guest_main(const uint32_t *info);
void guest_main(const uint32_t *info)
{
    const char *line = info[0] & 4 ? (const char *)(uintptr_t)info[4] : "", *rest;
    puts_("hello\r\n");
    if ((rest = after(line, "flood=")))
        flood(number(rest));
    if ((rest = after(line, "exit=")))
        out32(0xf4, number(rest));
    if ((rest = after(line, "exit-at-0x501=")))
        out32(0x501, number(rest));
    if (after(line, "echo"))
        echo();
    if (after(line, "crash"))
        crash();
    if (after(line, "reset"))
        out8(0xcf9, 6);
    if (after(line, "debug-port"))
        for (const char *s = "spoken at the debug port\n"; *s; s++)
            out8(0xe9, (uint8_t)*s);
    if (after(line, "power-off"))
        out16(PM1_CONTROL, S5);
    if (after(line, "spin"))
        for (;;)
            __asm__ volatile("pause");
    for (;;)
        __asm__ volatile("cli; hlt");
}
