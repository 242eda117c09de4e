/* SPDX-License-Identifier: Apache-2.0 */
/* Model-specific registers and CPUID: what reads back, what is refused, what is shown. */
#include "guest.h"

static struct trap write_msr(u32 index, u64 value)
{
    return TRY("wrmsr", .cx = index, .ax = (u32)value, .dx = (u32)(value >> 32));
}

static struct trap read_msr(u32 index) { return TRY("rdmsr", .cx = index); }

static void reads_back(const char *name, u32 index, u64 value)
{
    struct trap t = write_msr(index, value);
    check_eq(name, t.vector == VECTOR_DONE ? rdmsr(index) : ~value, value);
}

static void refused(const char *name, u32 index, u64 value)
{
    struct trap t = write_msr(index, value);
    check_fault(name, &t, GP, 0);
}

static void unknown(void)
{
    FAULT("unknown-read", read_msr(0x12345678), GP, 0);
    refused("unknown-write", 0x12345678, 0);
    FAULT("unknown-read-c000", read_msr(0xc0001fff), GP, 0);
    struct trap t = TRY("rdmsr", .cx = 0x12345678, .ax = 5, .dx = 6);
    CHECK("unknown-keeps-registers", t.regs.ax == 5 && t.regs.dx == 6);
    t = DONE("rdmsr-zero-extends", TRY("rdmsr", .cx = MSR_APIC_BASE, .ax = ~0ul, .dx = ~0ul));
    CHECK("rdmsr-high-halves", (u64)t.regs.ax == (u32)t.regs.ax && (u64)t.regs.dx == (u32)t.regs.dx);
}

static void efer(void)
{
    u64 now = rdmsr(MSR_EFER);
    reads_back("efer-sce", MSR_EFER, now | EFER_SCE);
    reads_back("efer-sce-off", MSR_EFER, now & ~(u64)EFER_SCE);
    refused("efer-reserved-bit-1", MSR_EFER, now | 2);
    refused("efer-reserved-high", MSR_EFER, now | 1ull << 40);
    CHECK_EQ("efer-unchanged", rdmsr(MSR_EFER), now & ~(u64)EFER_SCE);
#if WIDE
    CHECK_EQ("efer-lma-lme", now & (EFER_LMA | EFER_LME), EFER_LMA | EFER_LME);
    refused("efer-lme-off-while-paging", MSR_EFER, now & ~(u64)EFER_LME); /* SDM 3A 2.2.1, 9.8.5 */
#else
    CHECK_EQ("efer-lma-clear", now & EFER_LMA, 0);
#endif
}

static void addresses(void)
{
#if WIDE
    const u64 good = 0xffff800000001000, bad = 1ull << 47;
    reads_back("lstar", MSR_LSTAR, good);
    reads_back("cstar", MSR_CSTAR, good);
    reads_back("fs-base", MSR_FS_BASE, good);
    reads_back("gs-base", MSR_GS_BASE, good);
    reads_back("kernel-gs-base", MSR_KERNEL_GS_BASE, good);
    reads_back("sysenter-eip", MSR_SYSENTER_EIP, good);
    reads_back("sysenter-esp", MSR_SYSENTER_ESP, good);
    refused("lstar-non-canonical", MSR_LSTAR, bad); /* SDM 2B WRMSR */
    refused("cstar-non-canonical", MSR_CSTAR, bad);
    refused("fs-base-non-canonical", MSR_FS_BASE, bad);
    refused("gs-base-non-canonical", MSR_GS_BASE, bad);
    refused("kernel-gs-base-non-canonical", MSR_KERNEL_GS_BASE, bad);
    if (!is_amd()) { /* AMD keeps what fits */
        refused("sysenter-eip-non-canonical", MSR_SYSENTER_EIP, bad);
        refused("sysenter-esp-non-canonical", MSR_SYSENTER_ESP, bad);
    }
    CHECK_EQ("lstar-kept", rdmsr(MSR_LSTAR), good);
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, 0);
    reads_back("sfmask", MSR_SFMASK, 0x47700);
#endif
    reads_back("star", MSR_STAR, 0x0023000800001234);
    reads_back("sysenter-cs", MSR_SYSENTER_CS, 0x10);
}

static void memory_types(void)
{
    /* SDM 3A 11.12.4: each byte 0, 1, 4, 5, 6 or 7 */
    u64 pat = rdmsr(MSR_PAT);
    CHECK_EQ("pat-reset", pat, 0x0007040600070406);
    reads_back("pat", MSR_PAT, 0x0001040500070406);
    refused("pat-type-2", MSR_PAT, 0x0007040600070402);
    refused("pat-type-3", MSR_PAT, 0x0307040600070406);
    refused("pat-reserved-bits", MSR_PAT, 0x0007040600070486);
    wrmsr(MSR_PAT, pat);
    if (!has(F_MTRR)) {
        check_skip("mtrr", "no MTRRs");
        return;
    }
    /* 11.11.2 */
    u64 cap = rdmsr(0xfe);
    CHECK("mtrr-cap", (cap & 0xff) >= 2 && (cap & 0xff) <= 32);
    refused("mtrr-cap-read-only", 0xfe, cap);
    reads_back("mtrr-variable-base", 0x200, 0x40000006);
    reads_back("mtrr-variable-mask", 0x201, 0xffc0000800);
    wrmsr(0x201, 0);
    u64 def = rdmsr(MSR_MTRR_DEF);
    reads_back("mtrr-default", MSR_MTRR_DEF, 0xc06);
    refused("mtrr-default-type", MSR_MTRR_DEF, 0xc02);
    refused("mtrr-default-reserved", MSR_MTRR_DEF, 0x1000c06);
    wrmsr(MSR_MTRR_DEF, def);
    if (cap >> 8 & 1) {
        reads_back("mtrr-fixed-64k", 0x250, 0x0606060606060606);
        reads_back("mtrr-fixed-4k", 0x26f, 0x0505050505050505);
        refused("mtrr-fixed-type", 0x250, 0x0606060606060602);
    }
}

static void apic_base(void)
{
    u64 now = rdmsr(MSR_APIC_BASE);
    refused("apic-base-reserved", MSR_APIC_BASE, now | 1);
    refused("apic-base-too-high", MSR_APIC_BASE, now | 1ull << 60);
    reads_back("apic-base-same", MSR_APIC_BASE, now);
    refused("apic-base-x2-without-enable", MSR_APIC_BASE, (now & ~0x800ull) | 0x400);
    /* disabled: CPUID hides it (10.4.3) */
    wrmsr(MSR_APIC_BASE, now & ~0x800ull);
    CHECK("apic-disabled-in-cpuid", !(cpuid(1, 0).d >> 9 & 1));
    wrmsr(MSR_APIC_BASE, now);
    CHECK("apic-enabled-in-cpuid", cpuid(1, 0).d >> 9 & 1);
}

static void time_stamp(void)
{
    u64 last = rdtsc();
    u32 wrong = 0;
    for (u32 i = 0; i < 10000; i++) {
        u64 now = rdtsc();
        wrong += now < last;
        last = now;
    }
    CHECK_EQ("tsc-monotone", wrong, 0);
    CHECK("tsc-msr", rdmsr(MSR_TSC) >= last);
    u64 hz = tsc_hz();
    CHECK("tsc-rate", hz > 100000000ull && hz < 20000000000ull);
    wrmsr(MSR_TSC, 1ull << 40);
    u64 now = rdtsc();
    CHECK("tsc-write", now >= 1ull << 40 && now < (1ull << 40) + hz * 10);
    if (has(F_RDTSCP)) {
        wrmsr(MSR_TSC_AUX, 0x12345);
        struct trap t = TRY("rdtscp", .cx = 0);
        CHECK_EQ("rdtscp-aux", (u32)t.regs.cx, 0x12345);
        if (!is_amd())
            refused("tsc-aux-high", MSR_TSC_AUX, 1ull << 32);
    } else {
        check_skip("rdtscp", "no RDTSCP");
    }
}

/* ---- CPUID ---- */

static void show_text(u32 a, u32 b, u32 c, char *text)
{
    copy(text, &a, 4), copy(text + 4, &b, 4), copy(text + 8, &c, 4);
    text[12] = 0;
}

static void shown(void)
{
    struct cpuid zero = cpuid(0, 0), extended = cpuid(0x80000000, 0);
    char vendor[13];
    show_text(zero.b, zero.d, zero.c, vendor);
    print("# vendor %s, leaves to %x and %x\n", vendor, zero.a, extended.a);
    CHECK("cpuid-leaves",
          zero.a >= 0xd && zero.a < 0x100 && extended.a >= 0x80000008 && extended.a < 0x80000100);
    CHECK("cpuid-vendor", equal(vendor, "GenuineIntel", 12) || equal(vendor, "AuthenticAMD", 12) ||
                              equal(vendor, "HygonGenuine", 12));
    CHECK("cpuid-family", (cpuid(1, 0).a & 0xf00) != 0);
    CHECK("cpuid-brand", cpuid(0x80000002, 0).a != 0);
    struct cpuid addresses = cpuid(0x80000008, 0);
    CHECK("cpuid-address-sizes",
          (addresses.a & 0xff) >= 36 && (addresses.a & 0xff) <= 52 && (addresses.a >> 8 & 0xff) >= 48);
    struct trap t = DONE("cpuid-user", TRY_USER("cpuid", .ax = ~0ul, .cx = 0));
    CHECK("cpuid-zero-extends", (u64)t.regs.bx == (u32)t.regs.bx && (u64)t.regs.dx == (u32)t.regs.dx);
    /* above the last leaf: on Intel the last basic leaf, on AMD zeros; never anything new */
    struct cpuid beyond = cpuid(zero.a + 0x20, 0), last = cpuid(zero.a, 0);
    CHECK("cpuid-beyond",
          (beyond.a | beyond.b | beyond.c | beyond.d) == 0 || (beyond.a == last.a && beyond.b == last.b));
    /* x86-64-v2 */
    u32 c = cpuid(1, 0).c, d = cpuid(1, 0).d;
    const u32 v2 = 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 |
                   1 << 23; /* SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT */
    CHECK_EQ("cpuid-v2", c & v2, v2);
    CHECK_EQ("cpuid-baseline", d & 0x07808151, 0x07808151); /* FPU, TSC..., CMOV, MMX, FXSR, SSE, SSE2 */
    CHECK("cpuid-lahf", cpuid(0x80000001, 0).c & 1);
    CHECK("cpuid-long-mode", has(F_LM) && has(F_NX) && (has(F_SYSCALL) || !(WIDE || is_amd())));
}

static void sundog_only(void)
{
    if (!is_sundog()) {
        check_skip("sundog-model", "another machine");
        return;
    }
    static const enum feature wanted[] = { F_DE,     F_PSE,     F_TSC,  F_MSR,          F_PAE,     F_CX8,
                                           F_APIC,   F_SEP,     F_MTRR, F_PGE,          F_PAT,     F_FXSR,
                                           F_SSE2,   F_PCID,    F_CX16, F_TSC_DEADLINE, F_XSAVE,   F_FSGSBASE,
                                           F_SMEP,   F_INVPCID, F_SMAP, F_UMIP,         F_SYSCALL, F_NX,
                                           F_PAGE1G, F_RDTSCP,  F_LM,   F_INVARIANT_TSC };
    u32 missing = 0;
    for (u32 i = 0; i < ARRAY_LEN(wanted); i++)
        if (!has(wanted[i]))
            print("# feature %u is missing\n", wanted[i]), missing++;
    CHECK_EQ("model-features", missing, 0);
    CHECK("model-aes-pclmul", (cpuid(1, 0).c & (1 << 25 | 1 << 1)) == (1 << 25 | 1 << 1));
    CHECK("model-no-mwait", !has(F_MONITOR));
    uint32_t avx = cpuid(1, 0).c >> 28 & 1, avx2 = cpuid(7, 0).b >> 5 & 1, avx512 = cpuid(7, 0).b >> 16 & 1;
    CHECK_EQ("model-avx-has-its-state", cpuid(0xd, 0).a, 3 | avx << 2 | (avx512 ? 0xe0 : 0));
    CHECK("model-avx-by-levels", avx >= avx2 && avx2 >= avx512);
    CHECK_EQ("model-maxphyaddr", cpuid(0x80000008, 0).a & 0xff, 40);
    FAULT("mwait-is-ud", TRY("mwait"), UD, 0);
    FAULT("monitor-is-ud", TRY("monitor"), UD, 0);
    char text[13];
    struct cpuid kvm = cpuid(0x40000100, 0), features = cpuid(0x40000101, 0);
    show_text(kvm.b, kvm.c, kvm.d, text);
    CHECK("kvm-signature", equal(text, "KVMKVMKVM\0\0", 12) && kvm.a >= 0x40000101);
    CHECK_EQ("kvm-features", features.a, 1 << 3 | 1 << 24); /* CLOCKSOURCE2 and CLOCKSOURCE_STABLE */
    struct trap t = TRY("vmcall", .ax = 5);
    CHECK_EQ("vmcall", (u32)t.regs.ax, (u32)-1000);
    t = TRY("vmmcall", .ax = 5);
    CHECK_EQ("vmmcall", (u32)t.regs.ax, (u32)-1000);
    /* the paravirtual clock: version even, time goes on */
    static volatile u32 ALIGNED(64) clock[8];
    t = write_msr(0x4b564d01, (ulong)clock | 1);
    check_done("pvclock-enable", &t);
    CHECK("pvclock-version", clock[0] != 0 && !(clock[0] & 1));
    CHECK("pvclock-multiplier", clock[6] != 0);
    CHECK("pvclock-stable-flag", clock[7] >> 8 & 1);
    wrmsr(0x4b564d01, 0);
}

/* ---- control registers: what must be refused ---- */

static void control_registers(void)
{
    ulong cr0 = read_cr0(), cr4 = read_cr4();
    FAULT("cr0-pg-without-pe", TRY("mov cr0, " R(ax), .ax = (cr0 | CR0_PG) & ~(ulong)CR0_PE), GP, 0);
    FAULT("cr0-nw-without-cd", TRY("mov cr0, " R(ax), .ax = (cr0 | CR0_NW) & ~(ulong)CR0_CD), GP, 0);
    FAULT("cr4-reserved", TRY("mov cr4, " R(ax), .ax = cr4 | 1ul << 30), GP, 0);
    FAULT("cr4-bit-15", TRY("mov cr4, " R(ax), .ax = cr4 | 1ul << 15), GP, 0);
    CHECK("cr-unchanged", read_cr0() == cr0 && read_cr4() == cr4);
    struct trap t = TRY("smsw eax\n or eax, 8\n lmsw ax\n smsw ecx\n clts\n smsw edx");
    CHECK("lmsw-sets-ts", (t.regs.cx & 8) && !(t.regs.dx & 8));
    t = TRY("smsw eax\n and eax, 0xfffe\n lmsw ax\n smsw eax"); /* SDM 2A LMSW: cannot clear PE */
    CHECK("lmsw-keeps-pe", t.vector == VECTOR_DONE && (t.regs.ax & 1));
    CHECK("cr0-et-fixed", ({
              write_cr0(cr0 & ~(ulong)CR0_ET);
              read_cr0() & CR0_ET;
          }));
    write_cr0(cr0);
#if WIDE
    FAULT("cr0-high-half", TRY("mov cr0, rax", .ax = cr0 | 1ul << 32), GP, 0);
    FAULT("cr4-high-half", TRY("mov cr4, rax", .ax = cr4 | 1ul << 32), GP, 0);
    FAULT("cr4-pae-off-in-long-mode", TRY("mov cr4, rax", .ax = cr4 & ~(ulong)CR4_PAE), GP, 0);
    FAULT("cr3-beyond-maxphyaddr", TRY("mov cr3, rax", .ax = read_cr3() | 1ul << 52), GP, 0);
    if (is_tcg())
        check_skip("cr0-paging-off-in-64-bit-code", "QEMU loses its way");
    else
        FAULT("cr0-paging-off-in-64-bit-code", TRY("mov cr0, rax", .ax = cr0 & ~CR0_PG), GP,
              0); /* 9.8.5.4: only from compatibility mode */
    static struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) bad = { 0xfff, 1ull << 47 };
    if (is_tcg()) {
        check_skip("lgdt-non-canonical", "QEMU loads it");
    } else {
        FAULT("lgdt-non-canonical", TRY("lgdt [rbx]", .bx = (ulong)&bad), GP, 0);
        FAULT("lidt-non-canonical", TRY("lidt [rbx]", .bx = (ulong)&bad), GP, 0);
    }
#else
    FAULT("cr4-pcide-outside-long-mode", TRY("mov cr4, eax", .ax = cr4 | CR4_PCIDE), GP, 0);
#endif
    FAULT("ud-mov-cr5", TRY(".byte 0x0f, 0x22, 0xe8"), UD, 0);
    FAULT("ud-rsm", TRY(".byte 0x0f, 0xaa"), UD, 0); /* outside SMM */
    FAULT("ud-vmxon", TRY(".byte 0xf3, 0x0f, 0xc7, 0x33", .bx = (ulong)user_stack_top - 64), UD, 0);
    FAULT("ud-vmlaunch", TRY(".byte 0x0f, 0x01, 0xc2"), UD, 0);
}

#if WIDE
/* Out of long mode into protected mode without paging and back (SDM 3A 9.8.5) */
static void leave_long_mode(void)
{
    struct trap t = TRY("push 0x18\n lea rax, [rip+1f]\n push rax\n rex.w retf\n"
                        ".code32\n"
                        "1: mov eax, cr0\n and eax, 0x7fffffff\n mov cr0, eax\n" /* paging off: LMA falls */
                        "mov ecx, 0xc0000080\n rdmsr\n mov esi, eax\n"
                        "and eax, 0xfffffeff\n wrmsr\n"                       /* LME off */
                        "mov eax, cr4\n and eax, 0xffffffdf\n mov cr4, eax\n" /* PAE off */
                        "mov edi, 0x01234567\n inc edi\n"
                        "mov eax, cr4\n or eax, 0x20\n mov cr4, eax\n"
                        "rdmsr\n or eax, 0x100\n wrmsr\n"
                        "rdmsr\n mov ebp, eax\n"
                        "mov eax, cr0\n or eax, 0x80000000\n mov cr0, eax\n" /* paging on: LMA rises */
                        "rdmsr\n mov ebx, eax\n"
                        ".byte 0xea\n .long 2f\n .word 8\n"
                        ".code64\n"
                        "2: mov rax, cs");
    check_done("leave-long-mode", &t);
    CHECK("lma-falls-with-paging", !(t.regs.si & EFER_LMA) && (t.regs.si & EFER_LME));
    CHECK_EQ("protected-mode-in-between", t.regs.di, 0x01234568);
    CHECK("lme-set-lma-not-yet", (t.regs.bp & EFER_LME) && !(t.regs.bp & EFER_LMA));
    CHECK("lma-rises-with-paging", t.regs.bx & EFER_LMA);
    CHECK_EQ("long-mode-again", t.regs.ax, SEL_CODE);
    FAULT("long-mode-traps-again", TRY("mov es, eax", .ax = GDT_ENTRIES * 8), GP, GDT_ENTRIES * 8);
}
#else
static void leave_long_mode(void)
{
    /* the other way: what long mode needs before PG (9.8.5) */
    struct space s = space_new(PAGING_PAE);
    map_range(&s, 0, 0, 64ul << 20, PTE_P | PTE_W, 2);
    ulong cr4 = read_cr4(), cr0 = read_cr0();
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_LME);
    CHECK("lme-without-paging", !(rdmsr(MSR_EFER) & EFER_LMA));
    write_cr3(s.root);
    if (is_tcg()) {
        check_skip("long-mode-without-pae", "QEMU enters something");
    } else {
        FAULT("long-mode-without-pae", TRY("mov cr0, eax", .ax = cr0 | CR0_PG), GP,
              0); /* SDM 2B MOV CR: #GP if PAE = 0, LME = 1 */
        CHECK_EQ("long-mode-not-entered", read_cr0(), cr0);
    }
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_LME);
    write_cr4(cr4);
}
#endif

void guest_main(void)
{
    shown();
    unknown();
    efer();
    addresses();
    memory_types();
    apic_base();
    time_stamp();
    sundog_only();
    control_registers();
    leave_long_mode();
}
