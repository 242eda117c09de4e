/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU model as data of the VM: CPUID table, MSR defaults, TSC rate. One per VM, constant while it
 * runs. */
#ifndef SUNDOG_CPU_MODEL_H
#define SUNDOG_CPU_MODEL_H

#include "base/error.h"
#include "base/types.h"

struct vcpu;

struct cpuid_entry {
    uint32_t leaf, subleaf;
    bool any_subleaf;
    uint32_t eax, ebx, ecx, edx;
};

#define CPUID_ENTRIES_MAX 64

/* Which processor is shown: a level of the x86-64 psABI, or all that the host has and is implemented. */
enum cpu_model { CPU_MODEL_V1, CPU_MODEL_V2, CPU_MODEL_V3, CPU_MODEL_V4, CPU_MODEL_HOST, CPU_MODELS };
extern const char *const cpu_model_names[CPU_MODELS];

/* State components (SDM 1 13.1) by number. */
enum {
    XSTATE_X87,
    XSTATE_SSE,
    XSTATE_AVX,
    XSTATE_OPMASK = 5,
    XSTATE_ZMM_HI256,
    XSTATE_HI16_ZMM,
    XSTATE_COUNT
};

struct vm_cpu_shared {
    struct cpuid_entry cpuid[CPUID_ENTRIES_MAX];
    uint32_t cpuid_count;
    uint32_t max_basic, max_extended;
    uint64_t features; /* FEATURE_BIT of isa/features.def: what is decoded and executed */
    uint64_t xcr0;     /* bits that XSETBV may set */
    struct {
        uint32_t offset, size; /* in the standard format of XSAVE; size 0: not there */
    } xsave[XSTATE_COUNT];
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

/* A processor of the host's vendor, family, model and stepping; of the model's features those that are implemented
 * and that the host has. `reproducible`: without those whose results differ from run to run (RDRAND, RDSEED).
 * -ENOTSUP with a message when the host lacks what a level promises. */
int model_init(struct vm_cpu_shared *m, const struct host_cpu_facts *host, enum cpu_model model,
               bool reproducible, unsigned cpus, uint64_t tsc_khz, struct error *e);
/* CPU_MODEL_V2, which every host can show. */
void model_init_v2(struct vm_cpu_shared *m, const struct host_cpu_facts *host, unsigned cpus,
                   uint64_t tsc_khz);
/* Number of the model of this name, or -EINVAL with a message that lists them. */
int model_parse(const char *name, struct error *e);
/* Bytes that XSAVE writes with `components` in the standard format, or in the compacted one. */
uint32_t model_xsave_size(const struct vm_cpu_shared *m, uint64_t components, bool compacted);
/* What the decoder may know on this processor in its present mode: insn_decode_for()'s argument. */
uint64_t cpu_features(const struct vcpu *v);
/* Looks a leaf up for vcpu `index`, with dynamic bits (APIC id, OSXSAVE, APIC enabled) from the callers. */
void model_cpuid(const struct vm_cpu_shared *m, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

#endif
