/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU model: an x86-64-v2 processor of the host's vendor, as a table of CPUID leaves (SDM 2A CPUID, APM 3
 * appendix E).
 *
 * A feature is shown only if it is implemented here. Whatever the host has more stays hidden, so that a saved
 * machine can go on elsewhere.
 */
#include "cpu/model.h"

#include <string.h>

#include "base/bits.h"
#include "host/host_cpu.h"
#include "memory/pmap.h"

#define F(n) (1u << (n))

/* Leaf 1 EDX: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse
 * sse2 */
#define LEAF1_EDX \
    (F(0) | F(1) | F(2) | F(3) | F(4) | F(5) | F(6) | F(7) | F(8) | F(9) | F(11) | F(12) | F(13) | F(14) | \
     F(15) | F(16) | F(17) | F(19) | F(23) | F(24) | F(25) | F(26))
#define LEAF1_EDX_HT F(28)
/* Leaf 1 ECX: sse3 ssse3 cx16 pcid sse4_1 sse4_2 x2apic popcnt tsc_deadline xsave hypervisor */
#define LEAF1_ECX (F(0) | F(9) | F(13) | F(17) | F(19) | F(20) | F(21) | F(23) | F(24) | F(26) | F(31))
/* ... and these, which run through the host's own instructions: pclmulqdq aes */
#define LEAF1_ECX_HOST (F(1) | F(25))
/* Leaf 7 EBX: fsgsbase tsc_adjust smep erms invpcid smap; ECX: umip; EDX: arch_capabilities */
#define LEAF7_EBX (F(0) | F(1) | F(7) | F(9) | F(10) | F(20))
#define LEAF7_ECX F(2)
#define LEAF7_EDX F(29)
/* SPEC_CTRL's IBRS bit exists, so that kernels choose "enhanced IBRS" over return trampolines. Intel shows
 * IBRS and IBPB in one bit, AMD has a bit for each. */
#define LEAF7_EDX_INTEL F(26)
/* 0x80000001 EDX: syscall nx pdpe1gb rdtscp lm; AMD repeats leaf 1's old features there. ECX: lahf_lm */
#define EXT1_EDX (F(11) | F(20) | F(26) | F(27) | F(29))
#define EXT1_EDX_AMD_REPEATS 0x0183f3ffu
#define EXT1_ECX F(0)
/* AMD: cmp_legacy (with more than one processor), cr8_legacy, topoext */
#define EXT1_ECX_CMP_LEGACY F(1)
#define EXT1_ECX_AMD (F(4) | F(22))
/* AMD 0x80000008 EBX: FXSAVE always saves the error pointers, ibrs, ssb_no, btc_no */
#define EXT8_EBX_AMD (F(2) | F(14) | F(26) | F(29))
/* AMD 0x80000021 EAX: no nested data breakpoints, lfence serialises, null selectors clear the base, srso_no;
 * ECX: tsa_sq_no, tsa_l1_no */
#define EXT21_EAX (F(0) | F(2) | F(6) | F(29))
#define EXT21_ECX (F(1) | F(2))

#define HYPERVISOR_LEAF 0x40000000u
#define HYPERVISOR_MAX 0x40000010u
#define KVM_LEAF 0x40000100u
#define KVM_CLOCKSOURCE2 F(3)
#define KVM_CLOCKSOURCE_STABLE F(24)

/* The LAPIC's timer counts nanoseconds: lapic_timer.c. */
#define LAPIC_BUS_KHZ 1000000u

#define LINEAR_BITS 48u
#define XSAVE_LEGACY_AREA 576u /* x87 and SSE state with the header */

static void add_sub(struct vm_cpu_shared *m, uint32_t leaf, uint32_t subleaf, uint32_t a, uint32_t b,
                    uint32_t c, uint32_t d)
{
    if (m->cpuid_count < CPUID_ENTRIES_MAX)
        m->cpuid[m->cpuid_count++] = (struct cpuid_entry){ leaf, subleaf, false, a, b, c, d };
}

static void add(struct vm_cpu_shared *m, uint32_t leaf, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    add_sub(m, leaf, 0, a, b, c, d);
    m->cpuid[m->cpuid_count - 1].any_subleaf = true;
}

static uint32_t word(const char *s, unsigned n) { return get_le32(s + 4 * n); }

static bool is_amd(const struct vm_cpu_shared *m) { return m->vendor[0] == 'A'; }

/* Bits needed to number n things. */
static uint32_t id_bits(uint32_t n) { return n <= 1 ? 0 : 32 - (uint32_t)__builtin_clz(n - 1); }

/* --- topology: n processors are n cores of one package, without hyper-threads --------------------------- */

/* Both vendors describe a cache in the same words: type 4:0 and level 7:5 of EAX; Intel adds the number of
 * cores above bit 26. The last level is shared by all, the others by nobody. */
static void add_caches(struct vm_cpu_shared *m, const struct host_cpu_facts *host, uint32_t leaf)
{
    uint32_t n = 0, room = 1u << id_bits(m->cpus);
    for (; n < array_size(host->cache) && (host->cache[n][0] & 0x1f); n++) {
        const uint32_t *c = host->cache[n];
        bool shared = bits(c[0], 5, 3) >= 3;
        uint32_t eax = (c[0] & 0x3fff) | (shared ? (room - 1) << 14 : 0);
        if (!is_amd(m))
            eax |= (room - 1) << 26;
        add_sub(m, leaf, n, eax, c[1], c[2], c[3] & 7);
    }
    add_sub(m, leaf, n, 0, 0, 0, 0);
}

/* Leaf 0xB; EDX, the APIC ID, is filled in by cpu_cpuid(). */
static void add_topology(struct vm_cpu_shared *m)
{
    enum { LEVEL_SMT = 1 << 8, LEVEL_CORE = 2 << 8 };
    add_sub(m, 0xb, 0, 0, 1, LEVEL_SMT, 0);
    add_sub(m, 0xb, 1, id_bits(m->cpus), m->cpus, 1 | LEVEL_CORE, 0);
    add_sub(m, 0xb, 2, 0, 0, 2, 0);
}

/* --- the leaves ----------------------------------------------------------------------------------------- */

static void add_basic(struct vm_cpu_shared *m, const struct host_cpu_facts *host)
{
    uint32_t ht = m->cpus > 1 ? LEAF1_EDX_HT : 0;
    uint32_t clflush = 8 << 8, logical = (uint32_t)m->cpus << 16;
    m->max_basic = 0xd;
    add(m, 0, m->max_basic, word(m->vendor, 0), word(m->vendor, 2), word(m->vendor, 1));
    add(m, 1, host->signature, clflush | logical, LEAF1_ECX | (host->leaf1_ecx & LEAF1_ECX_HOST),
        LEAF1_EDX | ht);
    if (!is_amd(m)) {
        add(m, 2, 0x00feff01, 0, 0, 0); /* "see leaf 4" */
        add_caches(m, host, 4);
    }
    add(m, 6, F(2), 0, 0, 0); /* the LAPIC timer never stops */
    add_sub(m, 7, 0, 0, LEAF7_EBX, LEAF7_ECX, LEAF7_EDX | (is_amd(m) ? 0 : LEAF7_EDX_INTEL));
    add_topology(m);
    add_sub(m, 0xd, 0, 3, XSAVE_LEGACY_AREA, XSAVE_LEGACY_AREA, 0);
    add_sub(m, 0xd, 1, 0, 0, 0, 0);
}

static void add_hypervisor(struct vm_cpu_shared *m)
{
    static const char own[] = "SunDogSunDog", kvm[12] = "KVMKVMKVM";
    add(m, HYPERVISOR_LEAF, HYPERVISOR_MAX, word(own, 0), word(own, 1), word(own, 2));
    add(m, HYPERVISOR_MAX, (uint32_t)m->tsc_khz, LAPIC_BUS_KHZ, 0, 0);
    add(m, KVM_LEAF, KVM_LEAF + 1, word(kvm, 0), word(kvm, 1), word(kvm, 2));
    add(m, KVM_LEAF + 1, KVM_CLOCKSOURCE2 | KVM_CLOCKSOURCE_STABLE, 0, 0, 0);
}

static void add_brand(struct vm_cpu_shared *m)
{
    static const char brand[48] = "Sundog x86-64-v2 processor";
    for (unsigned i = 0; i < 3; i++)
        add(m, 0x80000002 + i, word(brand, 4 * i), word(brand, 4 * i + 1), word(brand, 4 * i + 2),
            word(brand, 4 * i + 3));
}

static void add_extended(struct vm_cpu_shared *m, const struct host_cpu_facts *host)
{
    const uint32_t invariant_tsc = F(8), addresses = MAXPHYADDR | LINEAR_BITS << 8;
    if (!is_amd(m)) {
        m->max_extended = 0x80000008;
        add(m, 0x80000000, m->max_extended, 0, 0, 0);
        add(m, 0x80000001, 0, 0, EXT1_ECX, EXT1_EDX);
        add_brand(m);
        add(m, 0x80000006, 0, 0, host->l2[2], 0);
        add(m, 0x80000007, 0, 0, 0, invariant_tsc);
        add(m, 0x80000008, addresses, 0, 0, 0);
        return;
    }
    uint32_t legacy = m->cpus > 1 ? EXT1_ECX_CMP_LEGACY : 0;
    uint32_t cores = (uint32_t)(m->cpus - 1) | id_bits(m->cpus) << 12;
    m->max_extended = 0x80000021;
    add(m, 0x80000000, m->max_extended, word(m->vendor, 0), word(m->vendor, 2), word(m->vendor, 1));
    add(m, 0x80000001, host->signature, 0, EXT1_ECX | EXT1_ECX_AMD | legacy,
        EXT1_EDX | (LEAF1_EDX & EXT1_EDX_AMD_REPEATS));
    add_brand(m);
    add(m, 0x80000005, host->l1[0], host->l1[1], host->l1[2], host->l1[3]);
    add(m, 0x80000006, host->l2[0], host->l2[1], host->l2[2], host->l2[3]);
    add(m, 0x80000007, 0, 0, 0, invariant_tsc);
    add(m, 0x80000008, addresses, EXT8_EBX_AMD, cores, 0);
    add_caches(m, host, 0x8000001d);
    add(m, 0x8000001e, 0, 0, 0, 0); /* APIC and core ID are filled in by cpu_cpuid(); one node */
    add(m, 0x80000021, EXT21_EAX, 0, EXT21_ECX, 0);
}

void model_init_v2(struct vm_cpu_shared *m, const struct host_cpu_facts *host, unsigned cpus,
                   uint64_t tsc_khz)
{
    *m = (struct vm_cpu_shared){ .tsc_khz = tsc_khz, .cpus = (uint8_t)cpus };
    memcpy(m->vendor, host->vendor, 12);
    /* TSC ticks a nanosecond, with 40 bits behind the point: off by less than a nanosecond a quarter of an
     * hour. */
    m->tsc_shift = 40;
    m->tsc_mul = (uint64_t)(((unsigned __int128)tsc_khz << m->tsc_shift) / 1000000);
    add_basic(m, host);
    add_hypervisor(m);
    add_extended(m, host);
}

/* --- looking up ----------------------------------------------------------------------------------------- */

static const struct cpuid_entry *find(const struct vm_cpu_shared *m, uint32_t leaf, uint32_t subleaf)
{
    for (uint32_t i = 0; i < m->cpuid_count; i++) {
        const struct cpuid_entry *e = &m->cpuid[i];
        if (e->leaf == leaf && (e->any_subleaf || e->subleaf == subleaf))
            return e;
    }
    return NULL;
}

void model_cpuid(const struct vm_cpu_shared *m, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    bool hypervisor = leaf >> 16 == HYPERVISOR_LEAF >> 16;
    bool beyond = leaf > (leaf >> 31 ? m->max_extended : m->max_basic);
    if (beyond && !hypervisor && !is_amd(m))
        leaf = m->max_basic; /* Intel answers with the highest basic leaf, AMD with zeros */
    const struct cpuid_entry *e = find(m, leaf, subleaf);
    out[0] = e ? e->eax : 0;
    out[1] = e ? e->ebx : 0;
    out[2] = e ? e->ecx : 0;
    out[3] = e ? e->edx : 0;
    if (leaf == 0xb && !e)
        out[2] = subleaf & 0xff;
}
