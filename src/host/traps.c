/* SPDX-License-Identifier: Apache-2.0 */
/* The SIGFPE handler behind traps.h. A signal's handler is the process's, so what it needs is too: written once, before it is set. */
#include "host/traps.h"

#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <threads.h>
#include <ucontext.h>

#define TRAP_SIMD 19 /* #XM */
#define MXCSR_MASKED 0x1f80u

struct range {
    uintptr_t begin, end, resume;
};

static struct {
    struct range stubs;
    struct sigaction before;
} simd;
static once_flag simd_once = ONCE_FLAG_INIT;
/* Code made at run time belongs to one thread: what interrupts it looks here. */
static _Thread_local struct range simd_here;

static void pass_on(int sig, siginfo_t *info, void *context)
{
    if (simd.before.sa_flags & SA_SIGINFO)
        simd.before.sa_sigaction(sig, info, context);
    else if (simd.before.sa_handler != SIG_DFL && simd.before.sa_handler != SIG_IGN)
        simd.before.sa_handler(sig);
    else
        signal(sig, SIG_DFL); /* the instruction traps again, and the process dies of it */
}

static const struct range *range_of(uintptr_t at)
{
    if (at >= simd.stubs.begin && at < simd.stubs.end)
        return &simd.stubs;
    return at >= simd_here.begin && at < simd_here.end ? &simd_here : NULL;
}

static void on_sigfpe(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    greg_t *g = uc->uc_mcontext.gregs;
    const struct range *range = range_of((uintptr_t)g[REG_RIP]);
    if (g[REG_TRAPNO] != TRAP_SIMD || !range) {
        pass_on(sig, info, context);
        return;
    }
    g[REG_R11] = uc->uc_mcontext.fpregs->mxcsr;
    uc->uc_mcontext.fpregs->mxcsr = MXCSR_MASKED;
    g[REG_RIP] = (greg_t)range->resume;
}

static void install(void)
{
    struct sigaction sa = { .sa_sigaction = on_sigfpe, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
    sigaction(SIGFPE, &sa, &simd.before);
}

void host_catch_simd_traps(const void *begin, const void *end, const void *resume)
{
    simd.stubs = (struct range){ (uintptr_t)begin, (uintptr_t)end, (uintptr_t)resume };
    call_once(&simd_once, install);
}

void host_catch_simd_traps_here(const void *begin, const void *end, const void *resume)
{
    simd_here = (struct range){ (uintptr_t)begin, (uintptr_t)end, (uintptr_t)resume };
    call_once(&simd_once, install);
}
