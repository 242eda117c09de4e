/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU model: a processor of the host's vendor, as a table of CPUID leaves (SDM 2A CPUID, APM 3 appendix E).
 *
 * A feature is shown only if it is implemented here, if the host has it, and if the model asked for holds it. What
 * stays hidden does not exist: the decoder refuses it, or takes it for what it was before.
 */
#include "cpu/model.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "host/host_cpu.h"
#include "isa/insn.h"
#include "memory/pmap.h"

#define F(n) (1u << (n))

/* Leaf 1 EDX: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse
 * sse2 */
#define LEAF1_EDX \
    (F(0) | F(1) | F(2) | F(3) | F(4) | F(5) | F(6) | F(7) | F(8) | F(9) | F(11) | F(12) | F(13) | F(14) | \
     F(15) | F(16) | F(17) | F(19) | F(23) | F(24) | F(25) | F(26))
#define LEAF1_EDX_HT F(28)
/* Leaf 1 ECX: pcid x2apic tsc_deadline xsave hypervisor; from v2 on sse3 ssse3 cx16 sse4_1 sse4_2 popcnt */
#define LEAF1_ECX (F(17) | F(21) | F(24) | F(26) | F(31))
#define LEAF1_ECX_V2 (F(0) | F(9) | F(13) | F(19) | F(20) | F(23))
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
#define EXT1_ECX_PREFETCHW F(8) /* a hint everywhere; in the model `host` if the host has it */
#define LEAF7_EDX_FSRM F(4)     /* the same */
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

/* --- features of extensions ------------------------------------------------------------------------------ */

const char *const cpu_model_names[CPU_MODELS] = { "v1", "v2", "v3", "v4", "host" };

/* Words of CPUID, as the host has them and as they are shown. */
enum word { LEAF1_C, LEAF7_B, LEAF7_C, LEAF7_D, LEAF71_A, LEAFD1_A, EXT1_C, WORDS };

/* A feature's bit, the first level that promises it (HOST: none), and what it cannot be without. */
struct feature_bit {
    uint8_t feature, word, bit, level;
    uint8_t needs;
};

#define V3 CPU_MODEL_V3
#define V4 CPU_MODEL_V4
#define HOST CPU_MODEL_HOST
#define FB(name, word, bit, level, needs) \
    { \
        FEAT_##name, word, bit, level, FEAT_##needs \
    }
/* Whatever is needed stands before. */
/* clang-format off */
static const struct feature_bit feature_bits[] = {
    FB(AES, LEAF1_C, 25, HOST, NONE), FB(PCLMUL, LEAF1_C, 1, HOST, NONE),
    FB(LZCNT, EXT1_C, 5, V3, NONE), FB(BMI1, LEAF7_B, 3, V3, NONE), FB(BMI2, LEAF7_B, 8, V3, NONE),
    FB(MOVBE, LEAF1_C, 22, V3, NONE), FB(ADX, LEAF7_B, 19, HOST, NONE), FB(SHA, LEAF7_B, 29, HOST, NONE),
    FB(GFNI, LEAF7_C, 8, HOST, NONE), FB(RDRAND, LEAF1_C, 30, HOST, NONE), FB(RDSEED, LEAF7_B, 18, HOST, NONE),
    FB(RDPID, LEAF7_C, 22, HOST, NONE), FB(CLFLUSHOPT, LEAF7_B, 23, HOST, NONE), FB(CLWB, LEAF7_B, 24, HOST, NONE),
    FB(XSAVEOPT, LEAFD1_A, 0, HOST, NONE), FB(XSAVEC, LEAFD1_A, 1, HOST, NONE), FB(XGETBV1, LEAFD1_A, 2, HOST, NONE),
    FB(XSAVES, LEAFD1_A, 3, HOST, XSAVEC),
    FB(AVX, LEAF1_C, 28, V3, NONE), FB(F16C, LEAF1_C, 29, V3, AVX), FB(FMA, LEAF1_C, 12, V3, AVX),
    FB(AVX2, LEAF7_B, 5, V3, AVX), FB(VAES, LEAF7_C, 9, HOST, AVX2), FB(VPCLMULQDQ, LEAF7_C, 10, HOST, AVX2),
    FB(AVX_VNNI, LEAF71_A, 4, HOST, AVX2),
    FB(AVX512F, LEAF7_B, 16, V4, AVX2), FB(AVX512DQ, LEAF7_B, 17, V4, AVX512F), FB(AVX512BW, LEAF7_B, 30, V4, AVX512F),
    FB(AVX512VL, LEAF7_B, 31, V4, AVX512F), FB(AVX512CD, LEAF7_B, 28, V4, AVX512F),
    FB(AVX512IFMA, LEAF7_B, 21, HOST, AVX512F), FB(AVX512VBMI, LEAF7_C, 1, HOST, AVX512BW),
    FB(AVX512VBMI2, LEAF7_C, 6, HOST, AVX512BW), FB(AVX512VNNI, LEAF7_C, 11, HOST, AVX512F),
    FB(AVX512BITALG, LEAF7_C, 12, HOST, AVX512BW), FB(AVX512VPOPCNTDQ, LEAF7_C, 14, HOST, AVX512F),
    FB(AVX512BF16, LEAF71_A, 5, HOST, AVX512BW), FB(AVX512VP2INTERSECT, LEAF7_D, 8, HOST, AVX512F),
};
/* clang-format on */

/* Every feature has its bit: a row of a feature that no model can show would never run. */
_Static_assert(array_size(feature_bits) == FEAT_COUNT - 1, "a feature without a CPUID bit");

#define XCR0_AVX (BIT(XSTATE_AVX))
#define XCR0_AVX512 (BIT(XSTATE_OPMASK) | BIT(XSTATE_ZMM_HI256) | BIT(XSTATE_HI16_ZMM))

static void host_words(const struct host_cpu_facts *host, uint32_t words[WORDS])
{
    words[LEAF1_C] = host->leaf1_ecx;
    words[LEAF7_B] = host->leaf7_ebx;
    words[LEAF7_C] = host->leaf7_ecx;
    words[LEAF7_D] = host->leaf7_edx;
    words[LEAF71_A] = host->leaf7_1_eax;
    words[LEAFD1_A] = host->leafd_1_eax;
    words[EXT1_C] = host->ext1_ecx;
}

/* The host has the bit, and its kernel lets us use the registers. */
static bool host_has(const struct host_cpu_facts *host, const uint32_t words[WORDS],
                     const struct feature_bit *f)
{
    if (f->feature == FEAT_AVX && (host->xcr0 & (BIT(XSTATE_SSE) | XCR0_AVX)) != (BIT(XSTATE_SSE) | XCR0_AVX))
        return false;
    if (f->feature == FEAT_AVX512F && (host->xcr0 & XCR0_AVX512) != XCR0_AVX512)
        return false;
    return words[f->word] >> f->bit & 1;
}

static bool model_holds(enum cpu_model model, const struct feature_bit *f, bool reproducible)
{
    if (reproducible && (f->feature == FEAT_RDRAND || f->feature == FEAT_RDSEED))
        return false;
    if (f->feature == FEAT_AES ||
        f->feature == FEAT_PCLMUL) /* no level has them, and every processor since */
        return model != CPU_MODEL_V1;
    return model == CPU_MODEL_HOST || (f->level != HOST && f->level <= model);
}

/* Sets m->features; false when a level promises what the host has not, which is named. */
static bool choose_features(struct vm_cpu_shared *m, const struct host_cpu_facts *host, enum cpu_model model,
                            bool reproducible, const char **missing)
{
    uint32_t words[WORDS];
    host_words(host, words);
    for (unsigned i = 0; i < array_size(feature_bits); i++) {
        const struct feature_bit *f = &feature_bits[i];
        if (!model_holds(model, f, reproducible))
            continue;
        bool met = f->needs == FEAT_NONE || m->features & FEATURE_BIT(f->needs);
        if (met && host_has(host, words, f)) {
            m->features |= FEATURE_BIT(f->feature);
        } else if (model != CPU_MODEL_HOST && f->level != HOST) {
            *missing = insn_feature_names[f->feature];
            return false;
        }
    }
    return true;
}

static uint32_t shown(const struct vm_cpu_shared *m, enum word word)
{
    uint32_t bits = 0;
    for (unsigned i = 0; i < array_size(feature_bits); i++)
        if (feature_bits[i].word == word && m->features & FEATURE_BIT(feature_bits[i].feature))
            bits |= 1u << feature_bits[i].bit;
    return bits;
}

/* --- XSAVE ----------------------------------------------------------------------------------------------- */

/* The standard format's places are the host's: so images of it and of an engine that uses it agree. */
static void lay_out_xsave(struct vm_cpu_shared *m, const struct host_cpu_facts *host)
{
    static const struct {
        uint16_t size, usual;
    } parts[XSTATE_COUNT] = {
        [XSTATE_AVX] = { 256, 576 },
        [XSTATE_OPMASK] = { 64, 1088 },
        [XSTATE_ZMM_HI256] = { 512, 1152 },
        [XSTATE_HI16_ZMM] = { 1024, 1664 },
    };
    m->xcr0 = BIT(XSTATE_X87) | BIT(XSTATE_SSE);
    if (m->features & FEATURE_BIT(FEAT_AVX))
        m->xcr0 |= XCR0_AVX;
    if (m->features & FEATURE_BIT(FEAT_AVX512F))
        m->xcr0 |= XCR0_AVX512;
    for (unsigned i = XSTATE_AVX; i < XSTATE_COUNT; i++) {
        if (!(m->xcr0 >> i & 1))
            continue;
        m->xsave[i].size = parts[i].size;
        m->xsave[i].offset = host->xsave_offset[i] ? host->xsave_offset[i] : parts[i].usual;
    }
}

uint32_t model_xsave_size(const struct vm_cpu_shared *m, uint64_t components, bool compacted)
{
    uint32_t end = XSAVE_LEGACY_AREA;
    for (unsigned i = XSTATE_AVX; i < XSTATE_COUNT; i++) {
        if (!(components >> i & 1))
            continue;
        if (compacted)
            end += m->xsave[i].size;
        else if (m->xsave[i].offset + m->xsave[i].size > end)
            end = m->xsave[i].offset + m->xsave[i].size;
    }
    return end;
}

static void add_sub(struct vm_cpu_shared *m, uint32_t leaf, uint32_t subleaf, uint32_t a, uint32_t b,
                    uint32_t c, uint32_t d);

/* EBX of subleaves 0 and 1, the size of what XCR0 enables, is filled in by cpu_cpuid(). */
static void add_xsave(struct vm_cpu_shared *m)
{
    add_sub(m, 0xd, 0, (uint32_t)m->xcr0, XSAVE_LEGACY_AREA, model_xsave_size(m, m->xcr0, false), 0);
    add_sub(m, 0xd, 1, shown(m, LEAFD1_A), 0, 0, 0);
    for (unsigned i = XSTATE_AVX; i < XSTATE_COUNT; i++)
        if (m->xsave[i].size)
            add_sub(m, 0xd, i, m->xsave[i].size, m->xsave[i].offset, 0, 0);
}

/* --- the table ------------------------------------------------------------------------------------------- */

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

static void add_basic(struct vm_cpu_shared *m, const struct host_cpu_facts *host, enum cpu_model model)
{
    uint32_t ht = m->cpus > 1 ? LEAF1_EDX_HT : 0;
    uint32_t clflush = 8 << 8, logical = (uint32_t)m->cpus << 16;
    m->max_basic = 0xd;
    add(m, 0, m->max_basic, word(m->vendor, 0), word(m->vendor, 2), word(m->vendor, 1));
    add(m, 1, host->signature, clflush | logical,
        LEAF1_ECX | shown(m, LEAF1_C) | (model == CPU_MODEL_V1 ? 0 : LEAF1_ECX_V2), LEAF1_EDX | ht);
    if (!is_amd(m)) {
        add(m, 2, 0x00feff01, 0, 0, 0); /* "see leaf 4" */
        add_caches(m, host, 4);
    }
    add(m, 6, F(2), 0, 0, 0); /* the LAPIC timer never stops */
    uint32_t extra = model == CPU_MODEL_HOST ? host->leaf7_edx & LEAF7_EDX_FSRM : 0;
    add_sub(m, 7, 0, shown(m, LEAF71_A) ? 1 : 0, LEAF7_EBX | shown(m, LEAF7_B), LEAF7_ECX | shown(m, LEAF7_C),
            LEAF7_EDX | shown(m, LEAF7_D) | extra | (is_amd(m) ? 0 : LEAF7_EDX_INTEL));
    if (shown(m, LEAF71_A))
        add_sub(m, 7, 1, shown(m, LEAF71_A), 0, 0, 0);
    add_topology(m);
    add_xsave(m);
}

static void add_hypervisor(struct vm_cpu_shared *m)
{
    static const char own[] = "SunDogSunDog", kvm[12] = "KVMKVMKVM";
    add(m, HYPERVISOR_LEAF, HYPERVISOR_MAX, word(own, 0), word(own, 1), word(own, 2));
    add(m, HYPERVISOR_MAX, (uint32_t)m->tsc_khz, LAPIC_BUS_KHZ, 0, 0);
    add(m, KVM_LEAF, KVM_LEAF + 1, word(kvm, 0), word(kvm, 1), word(kvm, 2));
    add(m, KVM_LEAF + 1, KVM_CLOCKSOURCE2 | KVM_CLOCKSOURCE_STABLE, 0, 0, 0);
}

static void add_brand(struct vm_cpu_shared *m, enum cpu_model model)
{
    static const char brands[CPU_MODELS][48] = {
        "Sundog x86-64-v1 processor", "Sundog x86-64-v2 processor", "Sundog x86-64-v3 processor",
        "Sundog x86-64-v4 processor", "Sundog processor",
    };
    const char *brand = brands[model];
    for (unsigned i = 0; i < 3; i++)
        add(m, 0x80000002 + i, word(brand, 4 * i), word(brand, 4 * i + 1), word(brand, 4 * i + 2),
            word(brand, 4 * i + 3));
}

static void add_extended(struct vm_cpu_shared *m, const struct host_cpu_facts *host, enum cpu_model model)
{
    uint32_t ext1_ecx = shown(m, EXT1_C) | (model == CPU_MODEL_V1 ? 0 : EXT1_ECX);
    if (model == CPU_MODEL_HOST)
        ext1_ecx |= host->ext1_ecx & EXT1_ECX_PREFETCHW;
    const uint32_t invariant_tsc = F(8), addresses = MAXPHYADDR | LINEAR_BITS << 8;
    if (!is_amd(m)) {
        m->max_extended = 0x80000008;
        add(m, 0x80000000, m->max_extended, 0, 0, 0);
        add(m, 0x80000001, 0, 0, ext1_ecx, EXT1_EDX);
        add_brand(m, model);
        add(m, 0x80000006, 0, 0, host->l2[2], 0);
        add(m, 0x80000007, 0, 0, 0, invariant_tsc);
        add(m, 0x80000008, addresses, 0, 0, 0);
        return;
    }
    uint32_t legacy = m->cpus > 1 ? EXT1_ECX_CMP_LEGACY : 0;
    uint32_t cores = (uint32_t)(m->cpus - 1) | id_bits(m->cpus) << 12;
    m->max_extended = 0x80000021;
    add(m, 0x80000000, m->max_extended, word(m->vendor, 0), word(m->vendor, 2), word(m->vendor, 1));
    add(m, 0x80000001, host->signature, 0, ext1_ecx | EXT1_ECX_AMD | legacy,
        EXT1_EDX | (LEAF1_EDX & EXT1_EDX_AMD_REPEATS));
    add_brand(m, model);
    add(m, 0x80000005, host->l1[0], host->l1[1], host->l1[2], host->l1[3]);
    add(m, 0x80000006, host->l2[0], host->l2[1], host->l2[2], host->l2[3]);
    add(m, 0x80000007, 0, 0, 0, invariant_tsc);
    add(m, 0x80000008, addresses, EXT8_EBX_AMD, cores, 0);
    add_caches(m, host, 0x8000001d);
    add(m, 0x8000001e, 0, 0, 0, 0); /* APIC and core ID are filled in by cpu_cpuid(); one node */
    add(m, 0x80000021, EXT21_EAX, 0, EXT21_ECX, 0);
}

int model_init(struct vm_cpu_shared *m, const struct host_cpu_facts *host, enum cpu_model model,
               bool reproducible, unsigned cpus, uint64_t tsc_khz, struct error *e)
{
    const char *missing;
    *m = (struct vm_cpu_shared){ .tsc_khz = tsc_khz, .cpus = (uint8_t)cpus };
    memcpy(m->vendor, host->vendor, 12);
    /* TSC ticks a nanosecond, with 40 bits behind the point: off by less than a nanosecond a quarter of an
     * hour. */
    m->tsc_shift = 40;
    m->tsc_mul = (uint64_t)(((unsigned __int128)tsc_khz << m->tsc_shift) / 1000000);
    if (!choose_features(m, host, model, reproducible, &missing))
        return error_set(e, -ENOTSUP,
                         "the CPU model %s needs %s, which this host has not: choose another, or host",
                         cpu_model_names[model], missing);
    lay_out_xsave(m, host);
    add_basic(m, host, model);
    add_hypervisor(m);
    add_extended(m, host, model);
    return 0;
}

void model_init_v2(struct vm_cpu_shared *m, const struct host_cpu_facts *host, unsigned cpus,
                   uint64_t tsc_khz)
{
    struct error none;
    (void)model_init(m, host, CPU_MODEL_V2, true, cpus, tsc_khz, &none);
}

int model_parse(const char *name, struct error *e)
{
    for (int i = 0; i < CPU_MODELS; i++)
        if (!strcmp(name, cpu_model_names[i]))
            return i;
    return error_set(e, -EINVAL, "no CPU model '%.40s': choose host, v1, v2, v3 or v4", name);
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
