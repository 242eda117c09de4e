/* SPDX-License-Identifier: Apache-2.0 */
/* The host's clocks, and the rate of its time stamp counter. */
#include "host/time.h"

#include <time.h>
#include <x86intrin.h>

#include "host/host_cpu.h"

static uint64_t read_clock(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t host_monotonic_ns(void) { return read_clock(CLOCK_MONOTONIC); }
uint64_t host_wall_ns(void) { return read_clock(CLOCK_REALTIME); }
uint64_t host_thread_cpu_ns(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }

/* A plausible rate: 100 MHz to 20 GHz. */
static bool plausible(uint64_t khz) { return khz >= 100000 && khz <= 20000000; }

/* CPUID 0x15: crystal * numerator / denominator (SDM 3B 18.7.3); or what a hypervisor says in 0x40000010. */
static uint64_t told_khz(void)
{
    uint32_t r[4];
    host_cpuid(0, 0, r);
    if (r[0] >= 0x15) {
        host_cpuid(0x15, 0, r);
        if (r[0] && r[1] && r[2])
            return (uint64_t)r[2] * r[1] / r[0] / 1000;
    }
    host_cpuid(1, 0, r);
    if (r[2] >> 31) {
        host_cpuid(0x40000000, 0, r);
        if (r[0] >= 0x40000010 && r[0] < 0x40000100) {
            host_cpuid(0x40000010, 0, r);
            return r[0];
        }
    }
    return 0;
}

struct sample {
    uint64_t ns, tsc;
};

/* The tightest of a few readings, so that a preemption between the two clocks does not spoil the pair. */
static struct sample take_sample(void)
{
    struct sample best = { 0 };
    uint64_t best_width = UINT64_MAX;
    for (unsigned i = 0; i < 16; i++) {
        uint64_t before = host_monotonic_ns(), tsc = __rdtsc(), after = host_monotonic_ns();
        if (after - before < best_width) {
            best_width = after - before;
            best = (struct sample){ before + (after - before) / 2, tsc };
        }
    }
    return best;
}

/* A start waits for this. The guest's counter follows the virtual clock, so an error of some 40 in a million only
 * changes which rate it is told, not whether its clocks agree. */
#define MEASURE_NS 1000000u

static uint64_t measured_khz(void)
{
    struct sample a = take_sample();
    nanosleep(&(struct timespec){ .tv_nsec = MEASURE_NS }, NULL);
    struct sample b = take_sample();
    return b.ns > a.ns ? (b.tsc - a.tsc) * 1000000 / (b.ns - a.ns) : 0;
}

uint64_t host_tsc_khz(void)
{
    uint64_t khz = told_khz();
    if (!plausible(khz))
        khz = measured_khz();
    return plausible(khz) ? khz : 1000000;
}
