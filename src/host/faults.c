/* SPDX-License-Identifier: Apache-2.0 */
/* The fault handlers behind faults.h. Signal handlers are the process's, so the table of fault_ranges is too. */
#include "host/faults.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <threads.h>
#include <ucontext.h>

#define RANGES 128
#define PAGE_FAULT_WRITE 2 /* bit of the error code (SDM 3A 4.7) */

struct range {
    _Atomic uintptr_t base; /* 0: free; set last */
    uintptr_t size;
    host_fault_fn fn;
    void *ctx;
};

static struct range fault_ranges[RANGES];
static once_flag fault_once = ONCE_FLAG_INIT;
static mtx_t fault_lock;

static const int caught[] = { SIGSEGV, SIGBUS, SIGFPE };
static struct sigaction fault_before[array_size(caught)];

static uintptr_t resume_at(const struct host_fault *f)
{
    for (unsigned i = 0; i < RANGES; i++) {
        uintptr_t base = atomic_load_explicit(&fault_ranges[i].base, memory_order_acquire);
        if (base && f->pc >= base && f->pc - base < fault_ranges[i].size)
            return fault_ranges[i].fn(fault_ranges[i].ctx, f);
    }
    return 0;
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
    const struct sigaction *old = &fault_before[0];
    for (unsigned i = 0; i < array_size(caught); i++)
        if (caught[i] == sig)
            old = &fault_before[i];
    if (old->sa_flags & SA_SIGINFO)
        old->sa_sigaction(sig, info, context);
    else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN)
        old->sa_handler(sig);
    else
        signal(sig, SIG_DFL); /* the instruction faults again, and the process dies of it */
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    const struct host_fault f = {
        .pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP],
        .addr = sig == SIGSEGV ? (uintptr_t)info->si_addr : 0,
        .write = uc->uc_mcontext.gregs[REG_ERR] & PAGE_FAULT_WRITE,
    };
    uintptr_t to = resume_at(&f);
    if (to)
        uc->uc_mcontext.gregs[REG_RIP] = (greg_t)to;
    else
        pass_on(sig, info, context);
}

static void install(void)
{
    struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
    mtx_init(&fault_lock, mtx_plain);
    for (unsigned i = 0; i < array_size(caught); i++)
        sigaction(caught[i], &sa, &fault_before[i]);
}

int host_faults_catch(const void *base, size_t size, host_fault_fn fn, void *ctx, struct error *e)
{
    call_once(&fault_once, install);
    mtx_lock(&fault_lock);
    struct range *r = fault_ranges;
    while (r < fault_ranges + RANGES && atomic_load(&r->base))
        r++;
    bool found = r < fault_ranges + RANGES;
    if (found) {
        r->size = size;
        r->fn = fn;
        r->ctx = ctx;
        atomic_store_explicit(&r->base, (uintptr_t)base, memory_order_release);
    }
    mtx_unlock(&fault_lock);
    return found ? 0
                 : error_set(e, -ENOSPC, "too many processors translate code in one process (%d)", RANGES);
}

void host_faults_forget(const void *base)
{
    if (!base)
        return;
    call_once(&fault_once, install);
    mtx_lock(&fault_lock);
    for (struct range *r = fault_ranges; r < fault_ranges + RANGES; r++)
        if (atomic_load(&r->base) == (uintptr_t)base)
            atomic_store(&r->base, 0);
    mtx_unlock(&fault_lock);
}
