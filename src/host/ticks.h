/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's monotonic clock, read from the time stamp counter: without the kernel's barrier, at less than half the price. Follows
 * CLOCK_MONOTONIC anew every few milliseconds, never goes back, on no thread; in between it is true to some tens of nanoseconds.
 */
#ifndef SUNDOG_HOST_TICKS_H
#define SUNDOG_HOST_TICKS_H

#include <stdatomic.h>

#include "base/types.h"

/* Shared by threads. */
struct host_ticks {
    /* ns = at_ns + ((counter - at) * rate >> 32) for TICKS_WINDOW counts; `sequence` is odd while these change. rate 0: not known
     * yet, or the counter is of no use. */
    _Atomic uint32_t sequence;
    _Atomic uint64_t at, at_ns, rate;
    atomic_flag busy; /* somebody compares with CLOCK_MONOTONIC */
    /* The latest reading of CLOCK_MONOTONIC that was shown, or what might have been shown when the counter turned out to be of no
     * use: nothing below that is shown any more. */
    _Atomic uint64_t shown;
    /* Whoever has `busy`: the last comparison. */
    uint64_t seen, seen_ns;
    atomic_bool useless;
};

void host_ticks_init(struct host_ticks *t);
/* CLOCK_MONOTONIC in ns. Any thread. */
uint64_t host_ticks_ns(struct host_ticks *t);

#endif
