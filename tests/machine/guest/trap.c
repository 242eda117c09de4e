/* SPDX-License-Identifier: Apache-2.0 */
/* Catching the signals that faults become. */
#include "selftest.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

static sigjmp_buf back;
static struct trap seen;

/* A test of alignment checking left EFLAGS.AC set; nothing here is written for that. */
#ifdef __x86_64__
#define REG_PC REG_RIP
#define CLEAR_AC "pushfq\n\tandl $~0x40000, (%%rsp)\n\tpopfq"
#else
#define REG_PC REG_EIP
#define CLEAR_AC "pushfl\n\tandl $~0x40000, (%%esp)\n\tpopfl"
#endif

static void on_trap(int signal, siginfo_t *info, void *context)
{
    __asm__ volatile(CLEAR_AC : : : "memory", "cc");
    const mcontext_t *m = &((ucontext_t *)context)->uc_mcontext;
    seen = (struct trap){
        .signal = signal,
        .code = info->si_code,
        .address = (uintptr_t)info->si_addr,
        .pc = (uintptr_t)m->gregs[REG_PC],
        .vector = (unsigned)m->gregs[REG_TRAPNO],
        .error = (unsigned)m->gregs[REG_ERR],
    };
    siglongjmp(back, 1);
}

struct trap catch_trap(void (*fn)(void *), void *arg)
{
    static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
    static uint8_t stack[64 * 1024];
    struct sigaction old[5], action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    const stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
    sigaltstack(&alternate, NULL);
    memset(&seen, 0, sizeof(seen));
    for (unsigned i = 0; i < 5; i++)
        sigaction(signals[i], &action, &old[i]);
    if (!sigsetjmp(back, 1))
        fn(arg);
    for (unsigned i = 0; i < 5; i++)
        sigaction(signals[i], &old[i], NULL);
    return seen;
}

void check_trap(const char *name, struct trap t, int signal, int code, uintptr_t address)
{
    check(t.signal == signal && t.code == code && t.address == address, name,
          "signal %d code %d address %#lx (vector %u error %#x), want signal %d code %d address %#lx",
          t.signal, t.code, (unsigned long)t.address, t.vector, t.error, signal, code,
          (unsigned long)address);
}
