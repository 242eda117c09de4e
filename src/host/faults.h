/* SPDX-License-Identifier: Apache-2.0 */
/* Host processor faults inside generated code: where to go on instead. */
#ifndef SUNDOG_HOST_FAULTS_H
#define SUNDOG_HOST_FAULTS_H

#include "base/error.h"
#include "base/types.h"

/* Where a fault came from: the instruction, the address that it accessed (0 where the host does not tell), and how. */
struct host_fault {
    uintptr_t pc, addr;
    bool write;
};
/* The address to go on at after a fault (SIGSEGV, SIGBUS, SIGFPE), or 0: not ours. Runs in a signal handler, on the
 * thread that faulted. */
typedef uintptr_t (*host_fault_fn)(void *ctx, const struct host_fault *f);

/* From now on faults at an address in [base, base + size) are put to `fn`; all others go to the handlers that were there
 * before. -ENOSPC when too many ranges are watched. Any thread. */
int host_faults_catch(const void *base, size_t size, host_fault_fn fn, void *ctx, struct error *e);
/* Undoes it. No thread runs in the range any more. */
void host_faults_forget(const void *base);

#endif
