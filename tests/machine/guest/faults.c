/* SPDX-License-Identifier: Apache-2.0 */
/* Exceptions as user space sees them: signals with address and cause, breakpoints, a debugger's view. */
#include "selftest.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

/* --- faults ----------------------------------------------------------------------------------------------- */

static void load(void *p) { (void)*(volatile uint32_t *)p; }
static void store(void *p) { *(volatile uint32_t *)p = 1; }
static void jump(void *p) { ((void (*)(void))p)(); }

/* Page-fault error code bits (SDM 3A 4.7). */
enum { PRESENT = 1, WRITE = 2, USER = 4, FETCH = 16 };

static void check_page_fault(const char *name, void (*fn)(void *), uint8_t *at, uint8_t *address, int code,
                             unsigned error)
{
    struct trap t = catch_trap(fn, at);
    check_trap(name, t, SIGSEGV, code, (uintptr_t)address);
    char full[96];
    snprintf(full, sizeof(full), "%s, error code", name);
    check(t.vector == 14 && t.error == error, full, "vector %u error %#x, want 14 and %#x", t.vector, t.error,
          error);
}

static void check_page_faults(void)
{
    uint8_t *none = pages(1, PROT_NONE), *read_only = pages(1, PROT_READ),
            *gap = pages(3, PROT_READ | PROT_WRITE);
    load(read_only);
    munmap(gap + PAGE, PAGE);
    check_page_fault("load from nothing", load, (uint8_t *)16, (uint8_t *)16, SEGV_MAPERR, USER);
    check_page_fault("store to nothing", store, gap + PAGE + 8, gap + PAGE + 8, SEGV_MAPERR, USER | WRITE);
    check_page_fault("load without right", load, none, none, SEGV_ACCERR, USER);
    check_page_fault("store without right", store, read_only + 4, read_only + 4, SEGV_ACCERR,
                     USER | WRITE | PRESENT);
    check_page_fault("load that crosses into nothing", load, gap + PAGE - 2, gap + PAGE, SEGV_MAPERR, USER);
    check_page_fault("store that crosses into nothing", store, gap + PAGE - 1, gap + PAGE, SEGV_MAPERR,
                     USER | WRITE);
    gap[0] = 0xc3;
    if (kernel_is_64())
        check_page_fault("execution without right", jump, gap, gap, SEGV_ACCERR, USER | FETCH | PRESENT);
    else
        skip("execution without right",
             "32-bit Linux 6.1 drops a user page's NX bit (unsigned long in vm_get_page_prot)");
    check_equal("a crossing store that faults stores nothing", gap[PAGE - 1], 0);
}

/* The handler repairs and the instruction starts again, with what it had. */
static uint8_t *lazy;
static volatile unsigned repairs;

static void repair(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    uint8_t *at = (uint8_t *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1));
    if (at < lazy || at >= lazy + 256 * PAGE || repairs > 1000)
        _exit(9);
    repairs++;
    mprotect(at, PAGE, PROT_READ | PROT_WRITE);
}

static void check_restart(void)
{
    struct sigaction action = { .sa_sigaction = repair, .sa_flags = SA_SIGINFO }, old;
    sigaction(SIGSEGV, &action, &old);
    lazy = pages(256, PROT_NONE);
    uint8_t *end = lazy;
    size_t left = 100 * PAGE;
    __asm__ volatile("cld\n\trep stosb" : "+D"(end), "+c"(left) : "a"(0x5a) : "memory", "cc");
    uint64_t sum = 0;
    for (size_t i = 0; i < 100 * PAGE; i++)
        sum += lazy[i];
    check(end == lazy + 100 * PAGE && !left && sum == 100ull * PAGE * 0x5a,
          "a string instruction goes on after faults", "end %td left %zu sum %llu", end - lazy, left,
          (unsigned long long)sum);
    check_equal("one fault a page", repairs, 100);
    /* Operands across two absent pages: two faults, one result. */
    repairs = 0;
    uint32_t *split = (uint32_t *)(lazy + 200 * PAGE - 2);
    __asm__ volatile("lock addl $3, (%0)" : : "r"(split) : "memory", "cc");
    check(repairs == 2 && *split == 3, "a locked operand over two absent pages", "%u faults", repairs);
    sigaction(SIGSEGV, &old, NULL);
}

static void divide_by_zero(void *p)
{
    __asm__ volatile("xorl %%edx, %%edx\n\tmovl $1, %%eax\n\tdivl %0"
                     :
                     : "r"(*(uint32_t *)p)
                     : "eax", "edx", "cc");
}

static void divide_overflow(void *p)
{
    __asm__ volatile("movl $0x80000000, %%eax\n\tcltd\n\tidivl %0"
                     :
                     : "r"(*(int32_t *)p)
                     : "eax", "edx", "cc");
}

static void undefined(void *p)
{
    (void)p;
    __asm__ volatile("ud2");
}
static void halt(void *p)
{
    (void)p;
    __asm__ volatile("hlt");
}
static void disable(void *p)
{
    (void)p;
    __asm__ volatile("cli");
}
static void out_port(void *p)
{
    (void)p;
    __asm__ volatile("outb %%al, $0x80" : : "a"(0));
}
static void read_msr(void *p)
{
    (void)p;
    __asm__ volatile("rdmsr" : : "c"(0x1b) : "eax", "edx");
}
static void invalidate(void *p) { __asm__ volatile("invlpg (%0)" : : "r"(p)); }
static void gate(void *p)
{
    (void)p;
    __asm__ volatile("int $0x0e");
}

static void misaligned(void *p) { __asm__ volatile("movaps (%0), %%xmm0" : : "r"(p) : "xmm0"); }

#ifdef __x86_64__
static void non_canonical(void *p)
{
    __asm__ volatile("movl (%0), %%eax" : : "r"((uintptr_t)p | 1ull << 62) : "eax");
}
#endif

void test_faults(void)
{
    check_page_faults();
    check_restart();
    static uint32_t zero, minus_one = ~0u;
    static _Alignas(16) uint8_t bytes[32];
    struct trap t = catch_trap(divide_by_zero, &zero);
    check_trap("division by zero", t, SIGFPE, FPE_INTDIV, t.pc);
    t = catch_trap(divide_overflow, &minus_one);
    check_trap("quotient too large", t, SIGFPE, FPE_INTDIV, t.pc);
    t = catch_trap(undefined, NULL);
    check_trap("undefined instruction", t, SIGILL, ILL_ILLOPN, t.pc);
    static const struct {
        const char *name;
        void (*run)(void *);
    } privileged[] = {
        { "hlt", halt },
        { "cli", disable },
        { "out", out_port },
        { "rdmsr", read_msr },
        { "invlpg", invalidate },
        { "a kernel's gate", gate },
        { "misaligned movaps", misaligned },
#ifdef __x86_64__
        { "non-canonical address", non_canonical },
#endif
    };
    for (size_t i = 0; i < sizeof(privileged) / sizeof(privileged[0]); i++) {
        char name[64];
        snprintf(name, sizeof(name), "user space may not: %s", privileged[i].name);
        t = catch_trap(privileged[i].run, bytes + 1);
        check(t.signal == SIGSEGV && t.vector == 13, name, "signal %d vector %u", t.signal, t.vector);
    }
    t = catch_trap(gate, NULL);
    check_equal("error code of a forbidden gate", t.error, 14 << 3 | 2);
}

/* --- traps ------------------------------------------------------------------------------------------------ */

static void breakpoint(void *p)
{
    (void)p;
    __asm__ volatile("int3");
}

/* The flags pass through the stack's top: this program has no red zone. */
#ifdef __x86_64__
#define CHANGE_FLAGS(op) "pushfq\n\t" op ", (%%rsp)\n\tpopfq\n\t"
#else
#define CHANGE_FLAGS(op) "pushfl\n\t" op ", (%%esp)\n\tpopfl\n\t"
#endif
#define SET_TF CHANGE_FLAGS("orl $0x100")
#define CLEAR_TF CHANGE_FLAGS("andl $~0x100")
#define SET_AC CHANGE_FLAGS("orl $0x40000")

static void set_trap_flag(void *p)
{
    (void)p;
    __asm__ volatile(SET_TF "nop\n\tnop" : : : "memory", "cc");
}

static void overflow_trap(void *p)
{
    (void)p;
#ifndef __x86_64__
    __asm__ volatile("movb $0x7f, %%al\n\taddb $1, %%al\n\tinto" : : : "eax", "cc");
#endif
}

/* With EFLAGS.AC set (CR0.AM is set by Linux) a misaligned access is #AC. */
static void alignment(void *p)
{
    __asm__ volatile(SET_AC "movl 1(%0), %%eax" : : "r"(p) : "eax", "memory", "cc");
}

static uint64_t counted;

static void count_steps(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    if (info->si_code == TRAP_TRACE)
        counted++;
    (void)context;
}

/* Under the trap flag each instruction is one trap; here the flag is set for 100 turns of a three-instruction loop. */
static void check_steps(void)
{
    struct sigaction action = { .sa_sigaction = count_steps, .sa_flags = SA_SIGINFO }, old;
    sigaction(SIGTRAP, &action, &old);
    unsigned long turns = 100;
    __asm__ volatile(SET_TF "1:\tnop\n\tsub $1, %0\n\tjnz 1b\n\t" CLEAR_TF "nop"
                     : "+r"(turns)
                     :
                     : "memory", "cc");
    sigaction(SIGTRAP, &old, NULL);
    /* 300 of the loop, and the three that switch the flag off: it was set when the last of them began (SDM 3B 17.3.1.4). */
    check_equal("a trap after each instruction", counted, 303);
}

void test_traps(void)
{
    static _Alignas(16) uint32_t words[4];
    struct trap t = catch_trap(breakpoint, NULL);
    check(t.signal == SIGTRAP && t.vector == 3, "int3", "signal %d vector %u", t.signal, t.vector);
    t = catch_trap(set_trap_flag, NULL);
    check(t.signal == SIGTRAP && t.code == TRAP_TRACE && t.vector == 1, "trap flag",
          "signal %d code %d vector %u", t.signal, t.code, t.vector);
    check_steps();
#ifdef __x86_64__
    (void)overflow_trap;
#else
    t = catch_trap(overflow_trap, NULL);
    check(t.signal == SIGSEGV && t.vector == 4, "into", "signal %d vector %u", t.signal, t.vector);
#endif
    t = catch_trap(alignment, words);
    check(t.signal == SIGBUS && t.code == BUS_ADRALN && t.vector == 17, "alignment check",
          "signal %d code %d vector %u", t.signal, t.code, t.vector);
}

/* --- a debugger ------------------------------------------------------------------------------------------- */

static volatile uint32_t watched[4];
static volatile unsigned called;

static __attribute__((noinline)) void target(void)
{
    called++;
    __asm__ volatile("" : : : "memory");
}

static void debuggee(void)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    for (unsigned i = 0; i < 3; i++)
        target();
    watched[0] = 1; /* not watched */
    watched[1] = 2; /* watched for writing */
    (void)watched[1];
    (void)watched[2]; /* watched for reading */
    _exit(5);
}

static bool poke(pid_t child, unsigned reg, unsigned long value)
{
    return !ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg) + reg * sizeof(long),
                   (void *)value);
}

static unsigned long program_counter(pid_t child)
{
    struct user_regs_struct regs;
    ptrace(PTRACE_GETREGS, child, NULL, &regs);
#ifdef __x86_64__
    return regs.rip;
#else
    return (unsigned long)regs.eip;
#endif
}

/* DR7 for register n: enabled locally, with type (0 execute, 1 write, 3 access) and length code. */
static unsigned long enable(unsigned n, unsigned type, unsigned len)
{
    return 1ul << (2 * n) | (unsigned long)(type | len << 2) << (16 + 4 * n);
}

static void check_hardware_breakpoints(pid_t child)
{
    bool set = poke(child, 0, (unsigned long)target) && poke(child, 1, (unsigned long)&watched[1]) &&
               poke(child, 2, (unsigned long)&watched[2]) &&
               poke(child, 7, enable(0, 0, 0) | enable(1, 1, 3) | enable(2, 3, 3));
    check(set, "debug registers can be set", "%s", strerror(errno));
    unsigned hits[3] = { 0 }, rest = 0, at_target = 0;
    int status = 0;
    for (unsigned i = 0; i < 50; i++) {
        ptrace(PTRACE_CONT, child, NULL, NULL);
        waitpid(child, &status, 0);
        if (!WIFSTOPPED(status))
            break;
        unsigned long dr6 = (unsigned long)ptrace(PTRACE_PEEKUSER, child,
                                                  offsetof(struct user, u_debugreg) + 6 * sizeof(long), NULL);
        at_target += program_counter(child) == (unsigned long)target;
        for (unsigned n = 0; n < 3; n++)
            hits[n] += dr6 >> n & 1;
        rest += !(dr6 & 7);
        poke(child, 6, 0);
    }
    check_equal("hits of an execution breakpoint", hits[0], 3);
    check_equal("an execution breakpoint stops before", at_target, 3);
    check_equal("hits of a write watchpoint", hits[1], 1);
    check_equal("hits of an access watchpoint", hits[2], 1);
    check(!rest && WIFEXITED(status) && WEXITSTATUS(status) == 5, "the debugged process ends",
          "status %#x, %u other stops", status, rest);
}

static void check_single_step(void)
{
    pid_t child = fork();
    if (!child)
        debuggee();
    int status = 0;
    waitpid(child, &status, 0);
    unsigned steps = 0, moved = 0;
    for (unsigned long last = program_counter(child); steps < 400; steps++) {
        ptrace(PTRACE_SINGLESTEP, child, NULL, NULL);
        waitpid(child, &status, 0);
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
            break;
        unsigned long now = program_counter(child);
        moved += now != last;
        last = now;
    }
    check(steps > 40 && moved == steps, "a debugger's single steps", "%u steps, %u of them moved", steps,
          moved);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
}

void test_debugger(void)
{
    pid_t child = fork();
    if (!child)
        debuggee();
    int status = 0;
    waitpid(child, &status, 0);
    check_hardware_breakpoints(child);
    check_single_step();
}
