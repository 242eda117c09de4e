/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A teaching kernel in the higher half: linked at 3 GiB, loaded at 2 MiB, paging by 4 MiB pages from its first
 * instructions, then 4 KiB pages filled on demand; 8259, 8254, 8042; a user program that makes system calls.
 */
#include "teach.h"

#define HALF 0xc0000000u
#define PAGE_P 1u
#define PAGE_RW 2u
#define PAGE_USER 4u
#define PAGE_BIG 0x80u

/* Runs before paging: everything is addressed physically. */
__asm__(".section .multiboot, \"a\"\n"
        ".long 0x1badb002, 3, -(0x1badb002 + 3)\n"
        ".section .text\n"
        ".globl _start\n"
        ".set _start, start_high - 0xc0000000\n"
        "start_high:\n"
        "mov $(page_directory - 0xc0000000), %ecx\n"
        "movl $0x00000083, (%ecx)\n"
        "movl $0x00000083, 768 * 4(%ecx)\n"
        "mov %ecx, %cr3\n"
        "mov %cr4, %ecx\n"
        "or $0x10, %ecx\n"
        "mov %ecx, %cr4\n"
        "mov %cr0, %ecx\n"
        "or $0x80010000, %ecx\n"
        "mov %ecx, %cr0\n"
        "lea 1f, %ecx\n"
        "jmp *%ecx\n"
        "1: movl $0, page_directory\n"
        "mov %cr3, %ecx\n"
        "mov %ecx, %cr3\n"
        "mov $(stack + 16384), %esp\n"
        "push %ebx\n"
        "push %eax\n"
        "call kernel_main\n");

uint32_t page_directory[1024] __attribute__((aligned(4096)));
uint8_t stack[16384] __attribute__((aligned(16)));
static uint32_t page_table[1024] __attribute__((aligned(4096)));
static uint8_t pool[16][4096] __attribute__((aligned(4096)));
static unsigned pool_used;
static uint64_t gdt[6];
static struct gate idt[256];
static struct {
    uint32_t link, esp0, ss0, rest[23];
} tss;
static volatile uint32_t ticks, keys, page_faults, last_error, system_calls, user_sum, gp_error;
static volatile uint8_t last_key;

void kernel_main(uint32_t magic, uint32_t info);

static uint32_t physical(const void *p) { return (uint32_t)p - HALF; }

static void map(uint32_t at, uint32_t page, uint32_t flags)
{
    page_directory[at >> 22] = physical(page_table) | PAGE_P | PAGE_RW | PAGE_USER;
    page_table[at >> 12 & 1023] = page | flags;
    __asm__ volatile("invlpg (%0)" : : "r"(at) : "memory");
}

#define HANDLER static __attribute__((interrupt))

HANDLER void on_tick(struct frame *f)
{
    (void)f;
    ticks++;
    outb(0x20, 0x20);
}
HANDLER void on_key(struct frame *f)
{
    (void)f;
    last_key = inb(0x60);
    keys++;
    outb(0x20, 0x20);
}
/* Demand paging in the 4 MiB at 0x40000000; anything else is an error of the kernel. */
HANDLER void on_page_fault(struct frame *f, uint32_t error)
{
    uint32_t at;
    (void)f;
    __asm__ volatile("mov %%cr2, %0" : "=r"(at));
    last_error = error;
    page_faults++;
    CHECK("the fault is in the demand-paged area", at >> 22 == 0x40000000u >> 22 && pool_used < 16);
    if (page_table[at >> 12 & 1023] & PAGE_P) /* read-only until written */
        map(at & ~4095u, page_table[at >> 12 & 1023] & ~4095u, PAGE_P | PAGE_RW | PAGE_USER);
    else
        map(at & ~4095u, physical(pool[pool_used++]), PAGE_P | PAGE_RW | PAGE_USER);
}
HANDLER void on_protection(struct frame *f, uint32_t error)
{
    gp_error = error + 1;
    f->eip += 1; /* the one-byte instruction that is not for users */
}

/* System call: EAX 1 adds EBX to the sum, EAX 2 ends the user program. */
void system_call(uint32_t what, uint32_t value);
void system_call(uint32_t what, uint32_t value)
{
    system_calls++;
    if (what == 1)
        user_sum += value;
}
extern const uint8_t system_call_entry[], user_code[], user_code_end[];
__asm__(".section .text\n"
        "system_call_entry:\n"
        "cmp $2, %eax\n"
        "je user_done\n"
        "pusha\n"
        "push %ebx\n"
        "push %eax\n"
        "call system_call\n"
        "add $8, %esp\n"
        "popa\n"
        "iret\n"
        "user_code:\n"
        "mov $100, %ecx\n"
        "1: mov $1, %eax\n"
        "mov %ecx, %ebx\n"
        "int $0x80\n"
        "push %ecx\n"
        "pop %ecx\n"
        "loop 1b\n"
        "cli\n" /* #GP, stepped over */
        "mov $2, %eax\n"
        "int $0x80\n"
        "user_code_end:\n"
        "enter_user:\n"
        "push %ebx\n push %esi\n push %edi\n push %ebp\n"
        "mov %esp, kernel_esp\n"
        "mov $0x23, %eax\n"
        "mov %eax, %ds\n mov %eax, %es\n"
        "pushl $0x23\n pushl $0x40008000\n pushl $0x202\n pushl $0x1b\n pushl $0x40000000\n"
        "iret\n"
        "user_done:\n"
        "mov kernel_esp, %esp\n"
        "mov $0x10, %eax\n"
        "mov %eax, %ds\n mov %eax, %es\n"
        "pop %ebp\n pop %edi\n pop %esi\n pop %ebx\n"
        "ret\n");
uint32_t kernel_esp;
void enter_user(void);

static void keyboard_wait_write(void)
{
    while (inb(0x64) & 2)
        ;
}
static uint8_t keyboard_read(void)
{
    while (!(inb(0x64) & 1))
        ;
    return inb(0x60);
}

/* The controller's self test, its port test, the keyboard's reset and echo, then an interrupt for the echo. */
static void test_keyboard(void)
{
    outb(0x64, 0xad), keyboard_wait_write(), outb(0x64, 0xa7), keyboard_wait_write();
    while (inb(0x64) & 1)
        inb(0x60);
    outb(0x64, 0xaa);
    CHECK("8042 self test", keyboard_read() == 0x55);
    outb(0x64, 0xab);
    CHECK("8042 port test", keyboard_read() == 0);
    outb(0x64, 0x20);
    uint8_t config = keyboard_read();
    outb(0x64, 0xae), keyboard_wait_write();
    outb(0x60, 0xff);
    CHECK("keyboard acknowledges its reset", keyboard_read() == 0xfa);
    CHECK("keyboard passes its self test", keyboard_read() == 0xaa);
    outb(0x64, 0x60), keyboard_wait_write(), outb(0x60, config | 1), keyboard_wait_write();
    outb(0x21, inb(0x21) & ~2);
    outb(0x60, 0xee);
    while (!keys)
        halt_for_interrupt();
    CHECK("the echo came by interrupt", last_key == 0xee);
}

static void test_paging(void)
{
    volatile uint32_t *area = (volatile uint32_t *)0x40100000;
    for (unsigned i = 0; i < 4; i++)
        area[i * 1024] = i + 1;
    CHECK("four demand faults", page_faults == 4 && last_error == 2);
    map((uint32_t)area, page_table[(uint32_t)area >> 12 & 1023] & ~4095u, PAGE_P);
    *area = 9;
    CHECK("a write to a read-only page faults under WP", page_faults == 5 && last_error == 3 && *area == 9);
    CHECK("accessed and dirty", (page_table[(uint32_t)area >> 12 & 1023] & 0x60) == 0x60);
}

void kernel_main(uint32_t magic, uint32_t info)
{
    outb(COM1 + 1, 0), outb(COM1 + 3, 0x80), outb(COM1, 1), outb(COM1 + 1, 0), outb(COM1 + 3, 3);
    outb(COM1 + 2, 0xc7), outb(COM1 + 4, 0x0b);
    CHECK("loader's magic number", magic == 0x2badb002);
    CHECK("the information lies in the first 4 MiB", info < 0x400000);
    static const uint8_t access[] = { 0, 0x9a, 0x92, 0xfa, 0xf2 };
    for (unsigned i = 1; i < sizeof(access); i++)
        gdt[i] = flat_segment(access[i]);
    uint32_t at = (uint32_t)&tss;
    gdt[5] = (sizeof(tss) - 1) | (uint64_t)(at & 0xffffff) << 16 | 0x89ull << 40 | (uint64_t)(at >> 24) << 56;
    load_gdt(gdt, 6);
    tss.ss0 = 0x10;
    tss.esp0 = (uint32_t)stack + 8192;
    __asm__ volatile("ltr %w0" : : "r"(0x28));
    idt[13] = gate_to(on_protection, 8, 0);
    idt[14] = gate_to(on_page_fault, 8, 0);
    idt[32] = gate_to(on_tick, 8, 0);
    idt[33] = gate_to(on_key, 8, 0);
    idt[128] = gate_to(system_call_entry, 8, 3);
    load_idt(idt, 256);
    pic_remap(32);
    test_keyboard();
    test_paging();
    outb(0x21, inb(0x21) & ~1);
    pit_rate(1000);
    while (ticks < 20)
        halt_for_interrupt();

    volatile uint8_t *user = (volatile uint8_t *)0x40000000; /* its stack is filled on demand too */
    for (const uint8_t *p = user_code; p < user_code_end; p++)
        user[p - user_code] = *p;
    enter_user();
    CHECK("a hundred system calls", system_calls == 100 && user_sum == 5050);
    CHECK("CLI is not for users", gp_error == 1);
    say("higher half\n");
    leave(PASSED);
}
