/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual nanoseconds to ticks of a chip's oscillator and back, without overflow or drift. */
#ifndef SUNDOG_DEVICE_RATE_H
#define SUNDOG_DEVICE_RATE_H

#include "base/types.h"

#define NS_PER_SECOND 1000000000ull

/* Ticks completed at `ns`. */
static inline uint64_t rate_ticks(uint64_t ns, uint32_t hz)
{
    return (uint64_t)((unsigned __int128)ns * hz / NS_PER_SECOND);
}

/* The first ns at which `ticks` are completed: rate_ticks(rate_ns(t, hz), hz) == t for hz below 1 GHz. */
static inline uint64_t rate_ns(uint64_t ticks, uint32_t hz)
{
    unsigned __int128 ns = ((unsigned __int128)ticks * NS_PER_SECOND + hz - 1) / hz;
    return ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns;
}

#endif
