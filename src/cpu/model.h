/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU model as data of the VM: CPUID table, MSR defaults, TSC rate. One per VM, constant while it
 * runs. */
#ifndef SUNDOG_CPU_MODEL_H
#define SUNDOG_CPU_MODEL_H

#include "base/error.h"
#include "base/types.h"

struct cpuid_entry {
    uint32_t leaf, subleaf;
    bool any_subleaf;
    uint32_t eax, ebx, ecx, edx;
};

#define CPUID_ENTRIES_MAX 64

struct vm_cpu_shared {
    struct cpuid_entry cpuid[CPUID_ENTRIES_MAX];
    uint32_t cpuid_count;
    uint32_t max_basic, max_extended;
    uint64_t tsc_khz;
    /* guest TSC = (virtual ns * tsc_mul) >> tsc_shift, + s.tsc_offset. kvmclock gets its own mul/shift
     * from tsc_khz. */
    uint64_t tsc_mul;
    uint8_t tsc_shift;
    uint8_t cpus;
    char vendor[13];
};

/* Facts about the host that a model is made from; only host_cpu.c in host/ executes CPUID. */
struct host_cpu_facts;

/* An x86-64-v2 processor of the host's vendor: family/model/stepping of the host, features only those
 * implemented. */
void model_init_v2(struct vm_cpu_shared *m, const struct host_cpu_facts *host, unsigned cpus,
                   uint64_t tsc_khz);
/* Looks a leaf up for vcpu `index`, with dynamic bits (APIC id, OSXSAVE, APIC enabled) from the callers. */
void model_cpuid(const struct vm_cpu_shared *m, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

#endif
