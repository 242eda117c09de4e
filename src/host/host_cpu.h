/* SPDX-License-Identifier: Apache-2.0 */
/* What the host processor is: the one place that executes CPUID. */
#ifndef SUNDOG_HOST_CPU_H
#define SUNDOG_HOST_CPU_H

#include "base/types.h"

struct host_cpu_facts {
    char vendor[13];
    char brand[49];
    uint32_t signature; /* CPUID 1 EAX */
    uint32_t leaf1_ecx, leaf1_edx, leaf7_ebx, leaf7_ecx, leaf7_edx, ext1_ecx, ext1_edx;
    uint32_t leaf7_1_eax;     /* leaf 7, subleaf 1 */
    uint32_t leafd_1_eax;     /* leaf 0xd, subleaf 1 */
    uint64_t xcr0;            /* state components the host's kernel has enabled; 0 without OSXSAVE */
    uint32_t xsave_offset[8]; /* leaf 0xd, subleaf n EBX: where the standard format has component n */
    uint32_t cache[8][4];     /* leaf 4 (Intel) or 0x8000001d (AMD) entries, 0-terminated by type 0 */
    uint32_t l1[4], l2[4];    /* 0x80000005, 0x80000006 */
};

void host_cpu_read(struct host_cpu_facts *facts);
/* One CPUID leaf of the host, out = EAX..EDX. */
void host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

#endif
