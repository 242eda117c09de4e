/* SPDX-License-Identifier: Apache-2.0 */
/* What the teaching kernels share: ports, a polled serial line, checks, descriptors. */
#ifndef TEACH_H
#define TEACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
    return v;
}
static inline uint64_t rdtsc(void)
{
    uint64_t v;
    __asm__ volatile("rdtsc" : "=A"(v));
    return v;
}
static inline void io_wait(void) { outb(0x80, 0); }
static inline void halt_for_interrupt(void) { __asm__ volatile("sti; hlt; cli" ::: "memory"); }

#define COM1 0x3f8

static inline void serial_put(char c)
{
    while (!(inb(COM1 + 5) & 0x20))
        ;
    outb(COM1, (uint8_t)c);
}
static inline void say(const char *s)
{
    while (*s)
        serial_put(*s++);
}
static inline void say_number(uint32_t v)
{
    char text[11], *p = text + 10;
    for (*p = 0; p == text + 10 || v; v /= 10)
        *--p = (char)('0' + v % 10);
    say(p);
}

/* Ends the machine with status (value << 1) | 1. */
static inline _Noreturn void leave(uint8_t value)
{
    outb(0xf4, value);
    for (;;)
        __asm__ volatile("cli; hlt");
}
#define PASSED 0x10

#define CHECK(what, holds) \
    do { \
        if (!(holds)) { \
            say("failed: " what "\n"); \
            leave(1); \
        } \
    } while (0)

struct __attribute__((packed)) table {
    uint16_t limit;
    uint32_t base;
};
struct gate {
    uint16_t low, selector, flags, high;
};
struct frame {
    uint32_t eip, cs, eflags, esp, ss;
};

static inline struct gate gate_to(const void *handler, uint16_t selector, unsigned dpl)
{
    uint32_t at = (uint32_t)handler;
    return (struct gate){ (uint16_t)at, selector, (uint16_t)(0x8e00 | dpl << 13), (uint16_t)(at >> 16) };
}
/* A flat segment of 4 GiB; `access` is the descriptor's access byte. */
static inline uint64_t flat_segment(uint8_t access) { return 0x00cf00000000ffffull | (uint64_t)access << 40; }

static inline void load_idt(const struct gate *idt, size_t count)
{
    struct table t = { (uint16_t)(count * sizeof(*idt) - 1), (uint32_t)idt };
    __asm__ volatile("lidt %0" : : "m"(t));
}
static inline void load_gdt(const uint64_t *gdt, size_t count)
{
    struct table t = { (uint16_t)(count * sizeof(*gdt) - 1), (uint32_t)gdt };
    __asm__ volatile("lgdt %0; ljmp $0x08, $1f; 1: mov $0x10, %%eax; mov %%eax, %%ds; mov %%eax, %%es;"
                     "mov %%eax, %%ss; mov %%eax, %%fs; mov %%eax, %%gs"
                     :
                     : "m"(t)
                     : "eax", "memory");
}

/* The usual initialisation of the two 8259s: vectors from `base` on, everything masked. */
static inline void pic_remap(uint8_t base)
{
    outb(0x20, 0x11), io_wait(), outb(0xa0, 0x11), io_wait();
    outb(0x21, base), io_wait(), outb(0xa1, (uint8_t)(base + 8)), io_wait();
    outb(0x21, 4), io_wait(), outb(0xa1, 2), io_wait();
    outb(0x21, 1), io_wait(), outb(0xa1, 1), io_wait();
    outb(0x21, 0xff), outb(0xa1, 0xff);
}
static inline void pit_rate(uint32_t hz)
{
    uint32_t divisor = 1193182 / hz;
    outb(0x43, 0x34), outb(0x40, (uint8_t)divisor), outb(0x40, (uint8_t)(divisor >> 8));
}

#endif
