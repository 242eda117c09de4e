/* SPDX-License-Identifier: Apache-2.0 */
/* The host's clocks. */
#ifndef SUNDOG_HOST_TIME_H
#define SUNDOG_HOST_TIME_H

#include "base/types.h"

uint64_t host_monotonic_ns(void);
uint64_t host_wall_ns(void);
/* Processor time of the calling thread. */
uint64_t host_thread_cpu_ns(void);
/* The host TSC's rate in kHz, measured against the monotonic clock (1 ms) or told by CPUID. */
uint64_t host_tsc_khz(void);

#endif
