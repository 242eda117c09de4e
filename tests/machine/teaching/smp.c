/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A teaching kernel for several processors, in the manner of Unix for PCs: finds them in the MP tables, routes the
 * serial port through the I/O APIC, measures the local APIC's timer and the TSC against the 8254, starts the others at
 * 0x7000 with the warm-reset vector set, and counts under a spin lock with all of them.
 */
#include "teach.h"

__asm__(".section .multiboot, \"a\"\n"
        ".long 0x1badb002, 3, -(0x1badb002 + 3)\n"
        ".section .text\n"
        ".globl _start\n"
        "_start: mov $(stacks + 4096), %esp\n"
        "push $0\n popf\n"
        "call kernel_main\n"
        /* copied to 0x7000; the processor's stack and target lie just below */
        ".globl ap_begin, ap_end\n"
        ".code16\n"
        "ap_begin: cli\n"
        "xor %ax, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %ss\n"
        "mov $0x6ff0, %sp\n xor %ax, %ax\n clc\n int $0x15\n" /* the firmware has no such function */
        "jnc ap_stuck\n cmp $0x86, %ah\n jne ap_stuck\n"
        "lgdtl (ap_gdt_pointer - ap_begin + 0x7000)\n"
        "mov %cr0, %eax\n or $1, %eax\n mov %eax, %cr0\n"
        "ljmpl $8, $(ap_32 - ap_begin + 0x7000)\n"
        "ap_stuck: hlt\n jmp ap_stuck\n"
        ".code32\n"
        "ap_32: mov $0x10, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %ss\n"
        "xor %ax, %ax\n mov %ax, %fs\n mov %ax, %gs\n"
        "mov 0x7000 - 4, %esp\n"
        "call *(0x7000 - 8)\n"
        ".balign 4\n"
        "ap_gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff\n"
        "ap_gdt_pointer: .word 23\n"
        ".long ap_gdt - ap_begin + 0x7000\n"
        "ap_end:\n");
extern const uint8_t ap_begin[], ap_end[];

enum {
    MAX_CPUS = 8,
    ROUNDS = 2000,
    VEC_SERIAL = 0x24,
    VEC_TIMER = 0x40,
    VEC_IPI = 0x41,
    VEC_SPURIOUS = 0xff
};

uint8_t stacks[MAX_CPUS][4096] __attribute__((aligned(4096)));
static uint64_t gdt[3];
static struct gate idt[256];
static volatile uint32_t *lapic, *ioapic;
static uint8_t cpu_ids[MAX_CPUS];
static unsigned cpus;
static volatile uint32_t timer_ticks, serial_interrupts, ipis, started, lock, counter, done;

void kernel_main(void);

enum {
    LAPIC_ID = 0x20,
    LAPIC_EOI = 0xb0,
    LAPIC_SVR = 0xf0,
    LAPIC_ESR = 0x280,
    LAPIC_ICR = 0x300,
    LAPIC_ICR_HIGH = 0x310,
    LAPIC_LVT_TIMER = 0x320,
    LAPIC_LVT_LINT0 = 0x350,
    LAPIC_LVT_LINT1 = 0x360,
    LAPIC_INITIAL = 0x380,
    LAPIC_CURRENT = 0x390,
    LAPIC_DIVIDE = 0x3e0
};

static uint32_t lapic_get(unsigned reg) { return lapic[reg / 4]; }
static void lapic_set(unsigned reg, uint32_t v)
{
    lapic[reg / 4] = v;
    (void)lapic[LAPIC_ID / 4]; /* waits for the write */
}
static void ioapic_set(uint32_t reg, uint32_t v)
{
    ioapic[0] = reg;
    ioapic[4] = v;
}
static uint32_t ioapic_get(uint32_t reg)
{
    ioapic[0] = reg;
    return ioapic[4];
}

#define HANDLER static __attribute__((interrupt))
HANDLER void on_timer(struct frame *f)
{
    (void)f;
    timer_ticks++;
    lapic_set(LAPIC_EOI, 0);
}
HANDLER void on_serial(struct frame *f)
{
    (void)f;
    if ((inb(COM1 + 2) & 0xf) == 2) /* transmitter empty; the read clears it */
        serial_interrupts++;
    lapic_set(LAPIC_EOI, 0);
}
HANDLER void on_ipi(struct frame *f)
{
    (void)f;
    __sync_fetch_and_add(&ipis, 1);
    lapic_set(LAPIC_EOI, 0);
}

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t total = 0;
    while (len--)
        total += *p++;
    return total;
}

static const uint8_t *search(uint32_t from, uint32_t len)
{
    for (uint32_t at = from; at < from + len; at += 16)
        if (*(const uint32_t *)at == 0x5f504d5f && sum((const uint8_t *)at, 16) == 0) /* "_MP_" */
            return (const uint8_t *)at;
    return NULL;
}

/* MP specification 1.4, chapter 4: the EBDA's first KiB, the last KiB of base memory, the BIOS area. */
static void read_mp_tables(void)
{
    const uint8_t *fps = search((uint32_t) * (volatile uint16_t *)0x40e << 4, 1024);
    if (!fps)
        fps = search((uint32_t) * (volatile uint16_t *)0x413 * 1024 - 1024, 1024);
    if (!fps)
        fps = search(0xf0000, 0x10000);
    CHECK("the MP floating pointer is found", fps);
    const uint8_t *config = *(const uint8_t *const *)(fps + 4);
    CHECK("the MP configuration is sound", *(const uint32_t *)config == 0x504d4350 /* "PCMP" */ &&
                                               sum(config, *(const uint16_t *)(config + 4)) == 0);
    lapic = *(volatile uint32_t *const *)(config + 36);
    const uint8_t *p = config + 44, *end = config + *(const uint16_t *)(config + 4);
    while (p < end) {
        if (*p == 0 && cpus < MAX_CPUS)
            cpu_ids[cpus++] = p[1];
        if (*p == 2)
            ioapic = *(volatile uint32_t *const *)(p + 4);
        p += *p == 0 ? 20 : 8;
    }
    CHECK("the MP configuration ends where it says", p == end);
    CHECK("processors and I/O APIC", cpus && ioapic && lapic);
    if (fps[12] & 0x80) /* the machine has an IMCR: leave PIC mode */
        outb(0x22, 0x70), outb(0x23, inb(0x23) | 1);
}

static void lapic_init(void)
{
    lapic_set(LAPIC_SVR, 0x100 | VEC_SPURIOUS);
    lapic_set(LAPIC_LVT_LINT0, 0x10000);
    lapic_set(LAPIC_LVT_LINT1, 0x10000);
    lapic_set(LAPIC_ESR, 0), lapic_set(LAPIC_ESR, 0);
    lapic_set(LAPIC_EOI, 0);
    lapic_set(0x80, 0); /* task priority: everything */
}

/* Waits by the 8254's channel 2, as calibration loops do; milliseconds up to 50. */
static void pit_wait(uint32_t ms)
{
    uint32_t count = 1193182 / 1000 * ms;
    outb(0x61, (inb(0x61) & ~2) | 1);
    outb(0x43, 0xb0);
    outb(0x42, (uint8_t)count), outb(0x42, (uint8_t)(count >> 8));
    while (!(inb(0x61) & 0x20))
        ;
}

/* Two measurements of the same clock must agree within 20 %, in a virtual machine whose host is busy too. */
static bool agree(uint32_t a, uint32_t b)
{
    uint32_t more = a > b ? a : b, less = a > b ? b : a;
    return less && more - less <= more / 5;
}

static void test_clocks(void)
{
    uint32_t timer[2], tsc[2];
    bool good = false;
    for (unsigned attempt = 0; attempt < 10 && !good; attempt++) {
        for (unsigned i = 0; i < 2; i++) {
            lapic_set(LAPIC_DIVIDE, 0xb);
            lapic_set(LAPIC_LVT_TIMER, 0x10000);
            lapic_set(LAPIC_INITIAL, 0xffffffff);
            uint64_t from = rdtsc();
            pit_wait(20);
            timer[i] = (0xffffffff - lapic_get(LAPIC_CURRENT)) / 20;
            tsc[i] = (uint32_t)(rdtsc() - from) / 20;
        }
        good = agree(timer[0], timer[1]) && agree(tsc[0], tsc[1]);
    }
    say("timer ");
    say_number(timer[0]);
    say(" kHz, tsc ");
    say_number(tsc[0]);
    say(" kHz\n");
    CHECK("the clocks agree with themselves", good);

    lapic_set(LAPIC_LVT_TIMER, 0x20000 | VEC_TIMER);
    lapic_set(LAPIC_INITIAL, timer[0]);
    while (timer_ticks < 20)
        halt_for_interrupt();
    lapic_set(LAPIC_INITIAL, 0);
    lapic_set(LAPIC_LVT_TIMER, 0x10000);
}

static void test_serial_interrupt(void)
{
    uint32_t pins = (ioapic_get(1) >> 16 & 0xff) + 1;
    CHECK("the I/O APIC's pins", pins >= 16);
    for (uint32_t i = 0; i < pins; i++)
        ioapic_set(0x10 + 2 * i, 0x10000 | (0x20 + i)), ioapic_set(0x11 + 2 * i, 0);
    ioapic_set(0x11 + 2 * 4, (uint32_t)cpu_ids[0] << 24);
    ioapic_set(0x10 + 2 * 4, VEC_SERIAL);
    outb(COM1 + 2, 0), outb(COM1 + 4, 0x0b), outb(COM1 + 1, 2);
    while (!serial_interrupts)
        halt_for_interrupt();
    uint32_t before = serial_interrupts;
    outb(COM1, '*'), outb(COM1, '\n');
    while (serial_interrupts == before)
        halt_for_interrupt();
    outb(COM1 + 1, 0);
}

static void count_rounds(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        while (__sync_lock_test_and_set(&lock, 1))
            __asm__ volatile("pause");
        counter++;
        __sync_lock_release(&lock);
    }
    __sync_fetch_and_add(&done, 1);
}

static _Noreturn void ap_main(void)
{
    load_gdt(gdt, 3);
    load_idt(idt, 256);
    lapic_init();
    __sync_fetch_and_add(&started, 1);
    count_rounds();
    for (;;)
        __asm__ volatile("sti; hlt");
}

/* MP specification B.4: shutdown code 0xa and the warm-reset vector, INIT asserted and deasserted, two SIPIs. */
static void start_cpu(unsigned n)
{
    volatile uint16_t *warm_reset = (volatile uint16_t *)0x467;
    *(volatile uint32_t *)(0x7000 - 4) = (uint32_t)stacks[n] + sizeof(stacks[n]);
    *(volatile uint32_t *)(0x7000 - 8) = (uint32_t)ap_main;
    outb(0x70, 0xf), outb(0x71, 0xa);
    warm_reset[0] = 0;
    warm_reset[1] = 0x7000 >> 4;
    lapic_set(LAPIC_ICR_HIGH, (uint32_t)cpu_ids[n] << 24);
    lapic_set(LAPIC_ICR, 0xc500);
    pit_wait(1);
    lapic_set(LAPIC_ICR, 0x8500);
    pit_wait(10);
    for (unsigned i = 0; i < 2; i++) {
        lapic_set(LAPIC_ICR_HIGH, (uint32_t)cpu_ids[n] << 24);
        lapic_set(LAPIC_ICR, 0x600 | 0x7000 >> 12);
        pit_wait(1);
    }
    while (started < n)
        __asm__ volatile("pause");
}

void kernel_main(void)
{
    gdt[1] = flat_segment(0x9a);
    gdt[2] = flat_segment(0x92);
    load_gdt(gdt, 3);
    idt[VEC_SERIAL] = gate_to(on_serial, 8, 0);
    idt[VEC_TIMER] = gate_to(on_timer, 8, 0);
    idt[VEC_IPI] = gate_to(on_ipi, 8, 0);
    load_idt(idt, 256);
    pic_remap(0x20);
    read_mp_tables();
    lapic_init();
    CHECK("the first processor in the table runs", lapic_get(LAPIC_ID) >> 24 == cpu_ids[0]);
    test_serial_interrupt();
    test_clocks();

    for (size_t i = 0; i < (size_t)(ap_end - ap_begin); i++)
        ((volatile uint8_t *)0x7000)[i] = ap_begin[i];
    for (unsigned n = 1; n < cpus; n++)
        start_cpu(n);
    count_rounds();
    while (done < cpus)
        __asm__ volatile("pause");
    CHECK("the lock held", counter == cpus * ROUNDS);
    lapic_set(LAPIC_ICR, 0xc4000 | VEC_IPI); /* all but me */
    while (ipis < cpus - 1)
        __asm__ volatile("pause");
    say_number(cpus);
    say(" processors\n");
    leave(PASSED);
}
