/* SPDX-License-Identifier: Apache-2.0 */
/* The host processor's CPUID, read once into plain data. */
#include "host/host_cpu.h"

#include <cpuid.h>
#include <string.h>

void host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    __cpuid_count(leaf, subleaf, out[0], out[1], out[2], out[3]);
}

static void read_caches(struct host_cpu_facts *f, uint32_t leaf)
{
    for (uint32_t i = 0; i + 1 < array_size(f->cache); i++) {
        host_cpuid(leaf, i, f->cache[i]);
        if ((f->cache[i][0] & 0x1f) == 0)
            break;
    }
    /* The list always ends with type 0. */
    memset(f->cache[array_size(f->cache) - 1], 0, sizeof(f->cache[0]));
}

static void read_basic(struct host_cpu_facts *f, uint32_t max)
{
    uint32_t r[4];
    host_cpuid(1, 0, r);
    f->signature = r[0];
    f->leaf1_ecx = r[2];
    f->leaf1_edx = r[3];
    if (max >= 7) {
        host_cpuid(7, 0, r);
        f->leaf7_ebx = r[1];
        f->leaf7_ecx = r[2];
        f->leaf7_edx = r[3];
        if (r[0] >= 1) {
            host_cpuid(7, 1, r);
            f->leaf7_1_eax = r[0];
        }
    }
}

#define LEAF1_ECX_OSXSAVE (1u << 27)

/* What XSAVE holds: components of XCR0 and where they are. */
static void read_xsave(struct host_cpu_facts *f, uint32_t max)
{
    uint32_t r[4], low, high;
    if (max < 0xd || !(f->leaf1_ecx & LEAF1_ECX_OSXSAVE))
        return;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    f->xcr0 = low | (uint64_t)high << 32;
    host_cpuid(0xd, 1, r);
    f->leafd_1_eax = r[0];
    for (uint32_t i = 2; i < array_size(f->xsave_offset); i++) {
        host_cpuid(0xd, i, r);
        f->xsave_offset[i] = r[1];
    }
}

#define EXT1_ECX_TOPOEXT (1u << 22)

static void read_extended(struct host_cpu_facts *f, uint32_t max)
{
    uint32_t r[4];
    if (max >= 0x80000001) {
        host_cpuid(0x80000001, 0, r);
        f->ext1_ecx = r[2];
        f->ext1_edx = r[3];
    }
    for (uint32_t i = 0; i < 3 && max >= 0x80000004; i++) {
        host_cpuid(0x80000002 + i, 0, r);
        memcpy(f->brand + 16 * i, r, 16);
    }
    if (max >= 0x80000005)
        host_cpuid(0x80000005, 0, f->l1);
    if (max >= 0x80000006)
        host_cpuid(0x80000006, 0, f->l2);
}

void host_cpu_read(struct host_cpu_facts *f)
{
    uint32_t r[4], max_basic, max_extended;
    memset(f, 0, sizeof(*f));
    host_cpuid(0, 0, r);
    max_basic = r[0];
    memcpy(f->vendor, &r[1], 4);
    memcpy(f->vendor + 4, &r[3], 4);
    memcpy(f->vendor + 8, &r[2], 4);
    host_cpuid(0x80000000, 0, r);
    max_extended = r[0] >> 31 ? r[0] : 0;
    read_basic(f, max_basic);
    read_xsave(f, max_basic);
    read_extended(f, max_extended);
    if (f->ext1_ecx & EXT1_ECX_TOPOEXT)
        read_caches(f, 0x8000001d);
    else if (max_basic >= 4)
        read_caches(f, 4);
}
