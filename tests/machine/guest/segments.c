/* SPDX-License-Identifier: Apache-2.0 */
/* The ways into the kernel, and segments: 16- and 32-bit ones by modify_ldt, and changes of mode from user space. */
#include "selftest.h"

#include <asm/ldt.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define GETPID_32 20 /* by the 32-bit table, whichever the kernel */

static long int80(long number)
{
    long result;
#ifdef __x86_64__
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(number) : "memory", "r8", "r9", "r10", "r11");
#else
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(number) : "memory");
#endif
    return result;
}

#ifdef __x86_64__

static void check_syscall(void)
{
    uint64_t result, rcx, r11, flags, next;
    __asm__ volatile("pushfq\n\tpop %3\n\tlea 1f(%%rip), %4\n\tsyscall\n1:"
                     : "=a"(result), "=c"(rcx), "=&r"(r11), "=&r"(flags), "=&r"(next)
                     : "0"((uint64_t)SYS_getpid)
                     : "r11", "memory");
    __asm__ volatile("mov %%r11, %0" : "=r"(r11));
    check_equal("syscall", result, (uint64_t)getpid());
    check_equal("syscall leaves the return address in RCX", rcx, next);
}

/* Into compatibility mode and back by far jumps. In 32-bit mode 0x40 is INC EAX, in 64-bit mode a prefix. */
static void check_compatibility(void)
{
    static uint64_t saved;
    static const struct {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) * target;
    static struct {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) far_pointer = { 0, 0x23 };
    uint32_t result;
    target = (const void *)&far_pointer;
    __asm__ volatile("lea 1f(%%rip), %%eax\n\t"
                     "mov %%eax, %1\n\t"
                     "mov %%rsp, %2\n\t"
                     "xor %%eax, %%eax\n\t"
                     "ljmp *%3\n"
                     ".code32\n"
                     "1:\t.byte 0x40, 0x40\n\t" /* inc %eax, twice */
                     "mov %%cs, %%ecx\n\t"
                     "shl $8, %%ecx\n\t"
                     "or %%ecx, %%eax\n\t"
                     "ljmp $0x33, $2f\n"
                     ".code64\n"
                     "2:\tmov %2, %%rsp"
                     : "=&a"(result), "=m"(far_pointer.offset), "+m"(saved)
                     : "m"(*target)
                     : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
                       "r15", "memory", "cc");
    check_equal("32-bit code in a 64-bit process", result, 0x2302);
}

/* FS and GS bases: by system call and by instruction (FSGSBASE). */
static void check_bases(void)
{
    static uint64_t here[2] = { 0x1111, 0x2222 };
    uint64_t got, base;
    if (getauxval(AT_HWCAP2) & 2) {
        __asm__ volatile("wrgsbase %2\n\tmov %%gs:8, %0\n\trdgsbase %1"
                         : "=&r"(got), "=&r"(base)
                         : "r"(here));
        check(got == 0x2222 && base == (uint64_t)here, "wrgsbase and rdgsbase", "%#llx %#llx",
              (unsigned long long)got, (unsigned long long)base);
        usleep(1000);
        __asm__ volatile("rdgsbase %0" : "=r"(base));
        check_equal("GS base outlives a sleep", base, (uint64_t)here);
    } else {
        check(false, "wrgsbase and rdgsbase", "the kernel does not offer them");
    }
    syscall(SYS_arch_prctl, 0x1001, here + 1); /* ARCH_SET_GS */
    __asm__ volatile("mov %%gs:0, %0" : "=r"(got));
    check_equal("GS base by system call", got, 0x2222);
}

#else

static void check_syscall(void)
{
    long result;
    unsigned long entry = getauxval(32); /* AT_SYSINFO: SYSENTER, or SYSCALL on AMD under a 64-bit kernel */
    check(entry != 0, "the kernel offers a fast entry", "no AT_SYSINFO");
    if (entry) {
        __asm__ volatile("call *%1" : "=a"(result) : "r"(entry), "0"(GETPID_32) : "memory", "ecx", "edx");
        check_equal("fast entry", (unsigned)result, (unsigned)getpid());
    }
}

/* On a 64-bit kernel: into 64-bit mode and back. 0x40 0xff 0xc0 is INC EAX with an empty prefix there, INC EAX twice here. */
static void check_compatibility(void)
{
    if (!kernel_is_64()) {
        skip("64-bit code in a 32-bit process", "a 32-bit kernel");
        return;
    }
    uint32_t result;
    static uint32_t saved;
    __asm__ volatile("mov %%esp, %1\n\t"
                     "xor %%eax, %%eax\n\t"
                     "ljmp $0x33, $1f\n"
                     ".code64\n"
                     "1:\t.byte 0x40, 0xff, 0xc0\n\t"
                     "mov $0x12345678, %%ecx\n\t"
                     "shl $32, %%rcx\n\t"
                     "shr $40, %%rcx\n\t"
                     "add %%ecx, %%eax\n\t"
                     "sub $16, %%rsp\n\t"
                     "movl $2f, (%%rsp)\n\t"
                     "movl $0x23, 4(%%rsp)\n\t"
                     "lretl\n" /* 32-bit operands: EIP and CS of four bytes each */
                     ".code32\n"
                     "2:\tmov %1, %%esp"
                     : "=&a"(result), "+m"(saved)
                     :
                     : "ecx", "memory", "cc");
    check_equal("64-bit code in a 32-bit process", result, 0x123457);
}

static void check_bases(void) {}

#endif

/* Through the vdso, without the kernel; and the same by a system call. */
static void check_clock_calls(void)
{
    struct timespec fast, slow;
    clock_gettime(CLOCK_MONOTONIC, &fast);
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &slow);
    int64_t apart = ((int64_t)slow.tv_sec - fast.tv_sec) * 1000000000 + (slow.tv_nsec - fast.tv_nsec);
    check(apart >= 0 && apart < 2000000000, "vdso and kernel agree on the time", "%lld ns apart",
          (long long)apart);
}

/* UMIP: the kernel answers SGDT itself, with a made-up table (Linux arch/x86/kernel/umip.c), or refuses. */
static void store_gdt(void *p) { __asm__ volatile("sgdt (%0)" : : "r"(p) : "memory"); }

static void check_umip(void)
{
    uint8_t table[10] = { 0 };
    struct trap t = catch_trap(store_gdt, table);
    uint32_t base;
    memcpy(&base, table + 2, 4);
    check(t.signal == SIGSEGV || (!t.signal && base == 0xfffe0000), "SGDT tells user space nothing",
          "signal %d base %#x", t.signal, base);
}

void test_entries(void)
{
    check_syscall();
    check_equal("int 0x80", (unsigned)int80(GETPID_32), (unsigned)getpid());
    check_clock_calls();
    check_compatibility();
    check_bases();
    check_umip();
}

/* --- local descriptors ------------------------------------------------------------------------------------ */

#define LDT(n) ((n) << 3 | 7)

static bool set_descriptor(unsigned n, uintptr_t base, uint32_t limit, struct user_desc like)
{
    like.entry_number = n;
    like.base_addr = (unsigned)base;
    like.limit = limit;
    return !syscall(SYS_modify_ldt, 1, &like, sizeof(like));
}

/* Below 4 GiB: a descriptor's base has 32 bits. */
static uint8_t *low_page(void)
{
    uint8_t *p = mmap((void *)0x20000000, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (p == MAP_FAILED) {
        check(false, "a page for segments", "%s", strerror(errno));
        exit(1);
    }
    return p;
}

struct far_read {
    unsigned selector;
    uintptr_t offset;
    uint32_t value;
};

static void read_far(void *arg)
{
    struct far_read *r = arg;
    uint32_t value;
    __asm__ volatile("movw %w1, %%fs\n\tmovl %%fs:(%2), %0" : "=r"(value) : "r"(r->selector), "r"(r->offset));
    r->value = value;
}

static void check_refused(const char *name, unsigned selector, uintptr_t offset, int signal, unsigned error)
{
    struct far_read r = { selector, offset, 0 };
#ifdef __x86_64__
    /* FS belongs to the C library: it is put back before anything else runs. */
    uint64_t base;
    syscall(SYS_arch_prctl, 0x1003, &base);
#endif
    struct trap t = catch_trap(read_far, &r);
#ifdef __x86_64__
    syscall(SYS_arch_prctl, 0x1002, base);
#endif
    check(t.signal == signal && t.error == error, name, "signal %d vector %u error %#x, want %d and %#x",
          t.signal, t.vector, t.error, signal, error);
}

#ifndef __x86_64__

static void check_data_segments(uint8_t *page)
{
    const struct user_desc data = { .seg_32bit = 1, .useable = 1 };
    struct user_desc down = data, absent = data;
    down.contents = MODIFY_LDT_CONTENTS_STACK; /* expand-down */
    absent.seg_not_present = 1;
    for (unsigned i = 0; i < PAGE / 4; i++)
        ((uint32_t *)page)[i] = i;
    set_descriptor(0, (uintptr_t)page + 256, 15, data);
    set_descriptor(1, (uintptr_t)page, 1023, down);
    set_descriptor(2, (uintptr_t)page, 15, absent);
    struct far_read r = { LDT(0), 12, 0 };
    read_far(&r);
    check_equal("a segment's base and last word", r.value, 67);
    check_refused("beyond a segment's limit", LDT(0), 13, SIGSEGV, 0);
    check_refused("far beyond a segment's limit", LDT(0), 0xfffffffc, SIGSEGV, 0);
    r = (struct far_read){ LDT(1), 1024, 0 };
    read_far(&r);
    check_equal("an expand-down segment above its limit", r.value, 256);
    check_refused("an expand-down segment below its limit", LDT(1), 1020, SIGSEGV, 0);
    check_refused("a segment that is not present", LDT(2), 0, SIGBUS, LDT(2) & ~3u);
    check_refused("a selector beyond the table", LDT(100), 0, SIGSEGV, LDT(100) & ~3u);
    check_refused("a null selector", 0, 0, SIGSEGV, 0);
    check_refused("a kernel's segment", 0x68, 0, SIGSEGV, 0x68);
}

#endif

/* 16-bit code: B8 takes a 16-bit immediate there. Returned from with 32-bit operands. */
static void check_16_bit_code(uint8_t *page)
{
    static const uint8_t code[] = { 0xb8, 0x34, 0x12,       /* mov $0x1234, %ax */
                                    0x05, 0x11, 0x11,       /* add $0x1111, %ax */
                                    0x66, 0xc1, 0xe0, 0x04, /* shl $4, %eax */
                                    0x66, 0xcb };           /* lretl */
    const struct user_desc desc = { .contents = MODIFY_LDT_CONTENTS_CODE, .useable = 1 };
    static struct {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) target = { 0x80, LDT(3) };
    memcpy(page + 0x80, code, sizeof(code));
    if (!set_descriptor(3, (uintptr_t)page, 0xfff, desc)) {
        check(false, "16-bit code", "modify_ldt: %s", strerror(errno));
        return;
    }
    uint32_t got;
#ifdef __x86_64__
    /* The stack must lie below 4 GiB while the mode is not 64-bit, and so must the code that is returned to. */
    static uint64_t saved;
    __asm__ volatile("mov %%rsp, %1\n\tmov %3, %%rsp\n\tmov $0xffff0000, %%eax\n\tlcall *%2\n\tmov %1, %%rsp"
                     : "=&a"(got), "+m"(saved)
                     : "m"(target), "r"((uintptr_t)page + PAGE)
                     : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
                       "memory", "cc");
#else
    __asm__ volatile("mov $0xffff0000, %%eax\n\tlcall *%1" : "=&a"(got) : "m"(target) : "memory", "cc");
#endif
    check_equal("16-bit code", got, 0xfff23450);
}

#ifndef __x86_64__
/* A 16-bit stack: IRET restores SP only, so the kernel takes pains that the upper half of ESP comes back right. */
static void check_16_bit_stack(uint8_t *page)
{
    const struct user_desc desc = { .useable = 1 };
    set_descriptor(4, (uintptr_t)page, 0xffff, desc);
    uint32_t before = 0x12340800, after = 0, pid = 0;
    static uint32_t saved_esp;
    static uint16_t saved_ss;
    __asm__ volatile("mov %%esp, %2\n\tmov %%ss, %3\n\t"
                     "mov %4, %%ss\n\tmov %5, %%esp\n\t"
                     "int $0x80\n\t"
                     "mov %%esp, %1\n\t"
                     "mov %3, %%ss\n\tmov %2, %%esp"
                     : "=a"(pid), "=&r"(after), "+m"(saved_esp), "+m"(saved_ss)
                     : "r"(LDT(4)), "r"(before), "0"(GETPID_32)
                     : "memory");
    check_equal("a system call on a 16-bit stack", pid, (uint32_t)getpid());
    check_equal("ESP comes back whole", after, before);
}
#endif

void test_segments(void)
{
    uint8_t *page = low_page();
#ifndef __x86_64__
    check_data_segments(page);
    check_16_bit_stack(page);
#else
    check_refused("a selector beyond the table", LDT(100), 0, SIGSEGV, LDT(100) & ~3u);
#endif
    check_16_bit_code(page);
}
