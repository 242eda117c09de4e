/* SPDX-License-Identifier: Apache-2.0 */
/* x87, MMX and SSE under CR0 and CR4; unmasked exceptions; FXSAVE, XSAVE and their refusals. */
#include "guest.h"

static u8 ALIGNED(64) area[1024], other[1024];
static ulong cr0_plain, cr4_plain;

static void cr(ulong cr0_bits, ulong cr4_bits)
{
    write_cr0((cr0_plain & ~(ulong)(CR0_MP | CR0_EM | CR0_TS)) | cr0_bits);
    write_cr4((cr4_plain & ~(ulong)(CR4_OSFXSR | CR4_OSXMMEXCPT)) | cr4_bits);
}

static void normal(void) { cr(CR0_MP, CR4_OSFXSR | CR4_OSXMMEXCPT); }

/* ---- which instruction may run (SDM 3A tables 2-3 and 13-1) ---- */

static void control_bits(void)
{
    struct code x87 = CODE("fld1\n fstp st(0)"), wait = CODE("fwait"), mmx = CODE("paddb mm0, mm0\n emms"),
                sse = CODE("addps xmm0, xmm0");
    struct code sse2 = CODE("paddd xmm0, xmm1"), fxsave = CODE("fxsave [" R(bx) "]"),
                ldmxcsr = CODE("stmxcsr [" R(bx) "]");
    struct code fence = CODE("mfence\n lfence\n prefetchnta [" R(bx) "]\n movnti [" R(bx) "], eax"),
                crc = CODE("crc32 eax, ecx\n popcnt eax, ecx");
    struct code fninit = CODE("fninit"), fnstsw = CODE("fnstsw ax");
    u32 bad = 0;
    for (u32 i = 0; i < 16; i++) {
        bool mp = i & 1, em = i & 2, ts = i & 4, fxsr = i & 8;
        cr((mp ? CR0_MP : 0) | (em ? CR0_EM : 0) | (ts ? CR0_TS : 0), fxsr ? CR4_OSFXSR : 0);
        const struct {
            struct code code;
            ulong want;
        } cases[] = {
            { x87, em || ts ? NM : VECTOR_DONE },
            { fninit, em || ts ? NM : VECTOR_DONE },
            { fnstsw, em || ts ? NM : VECTOR_DONE },
            { wait, mp && ts ? NM : VECTOR_DONE },
            { mmx, em   ? UD
                   : ts ? NM
                        : VECTOR_DONE },
            { sse, em || !fxsr ? UD
                   : ts        ? NM
                               : VECTOR_DONE },
            { sse2, em || !fxsr ? UD
                    : ts        ? NM
                                : VECTOR_DONE },
            { ldmxcsr, em || !fxsr ? UD
                       : ts        ? NM
                                   : VECTOR_DONE },
            { fxsave, em || ts ? NM : VECTOR_DONE }, /* SDM 2A FXSAVE: #NM if CR0.EM or CR0.TS */
            { fence, VECTOR_DONE },
            { crc, VECTOR_DONE },
        };
        for (u32 j = 0; j < ARRAY_LEN(cases); j++) {
            struct trap t = TRY_CODE(cases[j].code, .bx = (ulong)area);
            if (t.vector != cases[j].want && !bad++)
                print("# mp %d em %d ts %d osfxsr %d, case %u: vector %lu, expected %lu\n", mp, em, ts, fxsr,
                      j, t.vector, cases[j].want);
        }
    }
    normal();
    CHECK_EQ("control-bits", bad, 0);
    cr(CR0_MP | CR0_TS, CR4_OSFXSR);
    FAULT("nm-user", TRY_USER("fld1"), NM, 0);
    DONE("clts", TRY("clts"));
    CHECK("clts-clears", !(read_cr0() & CR0_TS));
    normal();
}

/* ---- x87 exceptions ---- */

struct x87_case {
    const char *name;
    struct code code;
    u16 control;
    u16 status;
};

static void x87_exceptions(void)
{
    struct trap t = DONE("fninit-state", TRY("fninit\n fnstcw [" R(bx) "]\n fnstsw ax", .bx = (ulong)area));
    CHECK("fninit-values", *(u16 *)area == 0x37f && (t.regs.ax & 0xffff) == 0);
    const struct x87_case cases[] = {
        { "mf-invalid-stack", CODE("fninit\n fldcw [" R(bx) "]\n fadd st(0), st(1)\n 8: fwait"), 0x37e,
          0x80c1 & 0xff7f },
        { "mf-invalid", CODE("fninit\n fldcw [" R(bx) "]\n fldz\n fldz\n fdivp\n 8: fwait"), 0x37e, 0x8001 },
        { "mf-zero-divide", CODE("fninit\n fldcw [" R(bx) "]\n fld1\n fldz\n fdivp\n 8: fwait"), 0x37b,
          0x8004 },
        { "mf-precision", CODE("fninit\n fldcw [" R(bx) "]\n fld1\n fldpi\n fdivp\n 8: fwait"), 0x35f,
          0x8020 },
        { "mf-overflow",
          CODE("fninit\n fldcw [" R(bx) "]\n fild dword ptr [" R(bx) "+4]\n fld1\n fscale\n 8: fwait"), 0x377,
          0x8008 },
        { "mf-denormal", CODE("fninit\n fldcw [" R(bx) "]\n fld dword ptr [" R(bx) "+8]\n 8: fld1"), 0x37d,
          0x8002 },
    };
    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        *(u16 *)area = cases[i].control;
        *(u32 *)(area + 4) = 0x7fffffff;
        *(u32 *)(area + 8) = 1;
        t = run_code(cases[i].code, (struct regs){ .bx = (ulong)area });
        u16 status;
        asm volatile("fnstsw %0; fnclex; fninit" : "=a"(status));
        check_fault(cases[i].name, &t, MF, 0);
        u16 want = cases[i].status & 0x8000 ? cases[i].status | 0x80 : cases[i].status;
        if ((status & want & 0xbf) != (want & 0xbf))
            print("# %s: status %x\n", cases[i].name, status);
    }
    /* masked: nothing; unmasked by FLDCW with the flag already set: at the next one (SDM 1 8.7) */
    *(u16 *)area = 0x37b;
    t = FAULT("mf-unmasked-later",
              TRY("fninit\n fld1\n fldz\n fdivp\n fldcw [" R(bx) "]\n 8: fwait", .bx = (ulong)area), MF, 0);
    asm volatile("fnclex");
    DONE("mf-fnclex", TRY("fwait"));
    t = DONE(
        "mf-fnsave-fnstenv-do-not-wait",
        TRY("fninit\n fldcw [" R(bx) "]\n fld1\n fldz\n fdivp\n fnstenv [" R(bx) "+16]\n fnstsw ax\n fnclex",
            .bx = (ulong)area));
    /* the instruction pointer of the unmasked exception (SDM 1 8.1.8) */
    struct code c = CODE(
        "fninit\n fldcw [" R(bx) "]\n fld1\n fldz\n 8: fdivp\n nop\n fnstenv [" R(bx) "+16]\n fnclex");
    t = run_code(c, (struct regs){ .bx = (ulong)area });
    CHECK_EQ("fip-of-unmasked-exception", *(u32 *)(area + 16 + 12), (u32)c.mark);
    /* memory faults come before the arithmetic: nothing is popped */
#if WIDE
    t = TRY("fninit\n fld1\n 8: fistp dword ptr [rbx]", .bx = 1ul << 46);
    u16 status;
    asm volatile("fnstsw %0" : "=a"(status));
    CHECK("memory-fault-pops-nothing", t.vector == PF && t.off == 0 && (status >> 11 & 7) == 7);
#endif
    asm volatile("fninit");
}

/* ---- SSE exceptions (SDM 1 11.5) ---- */

static void sse_exceptions(void)
{
    static const struct {
        const char *name;
        u32 a, b;
        u8 op;
        u32 mask, flag;
    } cases[] = {
        { "xm-invalid", 0x7f800000, 0x7f800000, 0x5c, 0x80, 1 }, /* inf - inf */
        { "xm-denormal", 1, 0x3f800000, 0x58, 0x100, 2 },
        { "xm-divide", 0x3f800000, 0, 0x5e, 0x200, 4 },
        { "xm-overflow", 0x7f7fffff, 0x7f7fffff, 0x58, 0x400, 8 },
        { "xm-underflow", 0x00800000, 0x3f000001, 0x59, 0x800, 0x10 },
        { "xm-precision", 0x3f800000, 0x33000000, 0x58, 0x1000, 0x20 },
    };
    struct code c = CODE("ldmxcsr [" R(bx) "]\n movss xmm0, [" R(bx) "+4]\n movss xmm1, [" R(
        bx) "+8]\n nop\n 8: nop\n nop\n nop\n nop\n movd eax, xmm0");
    u32 *w = (u32 *)area, unset = 0;
    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        const u8 insn[] = { 0xf3, 0x0f, cases[i].op, 0xc1 };
        copy((void *)c.mark, insn, 4);
        w[0] = 0x1f80 & ~cases[i].mask, w[1] = cases[i].a, w[2] = cases[i].b;
        struct trap t = run_code(c, (struct regs){ .bx = (ulong)area });
        check_fault(cases[i].name, &t, XM, 0);
        w[0] = 0x1f80;
        t = run_code(c, (struct regs){ .bx = (ulong)area });
        u32 now;
        asm volatile("stmxcsr %0" : "=m"(now));
        unset += t.vector != VECTOR_DONE || !(now & cases[i].flag);
    }
    CHECK_EQ("sse-masked-flags", unset, 0);
    u32 reset = 0x1f80;
    asm volatile("ldmxcsr %0" : : "m"(reset));
    w[0] = 0x10000;
    FAULT("ldmxcsr-reserved", TRY("ldmxcsr [" R(bx) "]", .bx = (ulong)area), GP, 0);
    /* alignment of 16-byte operands */
    FAULT("movaps-misaligned", TRY("movaps xmm0, [" R(bx) "]", .bx = (ulong)area + 4), GP, 0);
    FAULT("addps-misaligned", TRY("addps xmm0, [" R(bx) "]", .bx = (ulong)area + 8), GP, 0);
    FAULT("movaps-store-misaligned", TRY("movaps [" R(bx) "], xmm0", .bx = (ulong)area + 1), GP, 0);
    FAULT("movntdq-misaligned", TRY("movntdq [" R(bx) "], xmm0", .bx = (ulong)area + 1), GP, 0);
    DONE("movups-misaligned",
         TRY("movups xmm0, [" R(bx) "]\n addss xmm0, [" R(bx) "]\n lddqu xmm1, [" R(bx) "]",
             .bx = (ulong)area + 1));
}

/* ---- FXSAVE (SDM 1 10.5) ---- */

static void fxsave(void)
{
    u32 reset = 0x1f80;
    asm volatile("ldmxcsr %0" : : "m"(reset));
    fill(area, 0xcc, 1024);
    TRY("fninit\n fld1\n fldz\n mov eax, 0x12345678\n movd xmm3, eax\n fxsave [" R(bx) "]",
        .bx = (ulong)area);
    CHECK_EQ("fxsave-fcw", *(u16 *)area, 0x37f);
    CHECK_EQ("fxsave-top", *(u16 *)(area + 2) >> 11 & 7, 6);
    CHECK_EQ("fxsave-abridged-tag", area[4], 0xc0);
    CHECK_EQ("fxsave-mxcsr", *(u32 *)(area + 24), 0x1f80);
    CHECK_EQ("fxsave-mxcsr-mask", *(u32 *)(area + 28) & 0xffbf, 0xffbf);
    CHECK("fxsave-st1", *(u64 *)(area + 48) == 0x8000000000000000 && *(u16 *)(area + 56) == 0x3fff);
    CHECK_EQ("fxsave-xmm3", *(u32 *)(area + 160 + 48), 0x12345678);
    CHECK_EQ("fxsave-leaves-end", area[511], 0xcc); /* bytes 464-511 are the software's */
    *(u32 *)(area + 160 + 48) = 0x9abcdef0;
    struct trap t = DONE("fxrstor", TRY("fninit\n fxrstor [" R(bx) "]\n movd eax, xmm3\n fistp dword ptr [" R(
                                            di) "]\n fistp dword ptr [" R(di) "+4]",
                                        .bx = (ulong)area, .di = (ulong)other));
    (void)t;
    CHECK("fxrstor-values", (u32)t.regs.ax == 0x9abcdef0 && *(u32 *)other == 0 && *(u32 *)(other + 4) == 1);
    FAULT("fxsave-misaligned", TRY("fxsave [" R(bx) "]", .bx = (ulong)area + 8), GP, 0);
    FAULT("fxrstor-misaligned", TRY("fxrstor [" R(bx) "]", .bx = (ulong)area + 8), GP, 0);
    *(u32 *)(area + 24) = 0xffff0000;
    FAULT("fxrstor-mxcsr-reserved", TRY("fxrstor [" R(bx) "]", .bx = (ulong)area), GP, 0);
    *(u32 *)(area + 24) = 0x1f80;
    cr(CR0_TS | CR0_MP, CR4_OSFXSR);
    FAULT("fxsave-nm", TRY("fxsave [" R(bx) "]", .bx = (ulong)area), NM, 0);
    FAULT("fxrstor-nm", TRY("fxrstor [" R(bx) "]", .bx = (ulong)area), NM, 0);
    normal();
    /* FNSAVE and FRSTOR in the 32-bit protected format (108 bytes) */
    fill(area, 0, 256);
    TRY("fninit\n fldpi\n fnsave [" R(bx) "]\n fnstsw ax", .bx = (ulong)area);
    CHECK("fnsave", *(u16 *)area == 0x37f && (*(u16 *)(area + 4) >> 11 & 7) == 7 &&
                        *(u16 *)(area + 8) == 0x3fff && *(u16 *)(area + 36) == 0x4000);
    t = TRY("frstor [" R(bx) "]\n fistp dword ptr [" R(di) "]", .bx = (ulong)area, .di = (ulong)other);
    CHECK_EQ("frstor", *(u32 *)other, 3);
    /* MMX writes all tags valid and TOP = 0; EMMS empties */
    TRY("fninit\n mov eax, 7\n movd mm2, eax\n fxsave [" R(bx) "]\n emms\n fxsave [" R(di) "]",
        .bx = (ulong)area, .di = (ulong)other);
    CHECK("mmx-tags", area[4] == 0xff && (*(u16 *)(area + 2) >> 11 & 7) == 0 &&
                          *(u16 *)(area + 32 + 32 + 8) == 0xffff && other[4] == 0);
    asm volatile("fninit");
}

/* ---- XSAVE (SDM 1 13) ---- */

static void xsave(void)
{
    if (!has(F_XSAVE)) {
        check_skip("xsave", "no XSAVE");
        return;
    }
    ulong a = (ulong)area;
    FAULT("xgetbv-without-osxsave", TRY("xgetbv", .cx = 0), UD, 0);
    FAULT("xsave-without-osxsave", TRY("xsave [" R(bx) "]", .bx = a), UD, 0);
    CHECK("cpuid-osxsave-clear", !(cpuid(1, 0).c >> 27 & 1));
    write_cr4(read_cr4() | CR4_OSXSAVE);
    cr4_plain |= CR4_OSXSAVE;
    CHECK("cpuid-osxsave-set", cpuid(1, 0).c >> 27 & 1);
    struct trap t = DONE("xgetbv", TRY_USER("xgetbv", .cx = 0));
    CHECK_EQ("xcr0-after-reset", t.regs.ax, 1);
    u32 supported = cpuid(13, 0).a;
    CHECK_EQ("xcr0-supports-x87-sse", supported & 3, 3);
    DONE("xsetbv", TRY("xsetbv", .ax = 3));
    t = TRY("xgetbv", .cx = 0);
    CHECK("xcr0-value", t.regs.ax == 3 && t.regs.dx == 0);
    CHECK_EQ("cpuid-xsave-size", cpuid(13, 0).b, 576);
    /* SDM 2C XSETBV: #GP for bit 0 clear, unsupported bits, AVX without SSE, ECX != 0 */
    FAULT("xsetbv-zero", TRY("xsetbv", .ax = 0), GP, 0);
    FAULT("xsetbv-without-x87", TRY("xsetbv", .ax = 2), GP, 0);
    FAULT("xsetbv-unsupported", TRY("xsetbv", .ax = 3, .dx = 0x40000000), GP, 0);
    FAULT("xsetbv-avx-without-sse", TRY("xsetbv", .ax = 5), GP, 0);
    FAULT("xsetbv-index", TRY("xsetbv", .ax = 3, .cx = 1), GP, 0);
    FAULT("xsetbv-user", TRY_USER("xsetbv", .ax = 3), GP, 0);
    FAULT("xgetbv-index", TRY("xgetbv", .cx = 0x10), GP, 0);
    /* save and restore */
    fill(area, 0, sizeof(area));
    TRY("fninit\n fldpi\n mov eax, 0x11111111\n movd xmm5, eax\n mov eax, 3\n mov edx, 0\n xsave [" R(bx) "]",
        .bx = a);
    CHECK_EQ("xsave-xstate-bv", *(u32 *)(area + 512) & 3, 3);
    CHECK("xsave-data", *(u16 *)(area + 32 + 8) == 0x4000 && *(u32 *)(area + 160 + 80) == 0x11111111);
    t = TRY("mov eax, 0x22222222\n movd xmm5, eax\n fninit\n mov eax, 3\n xor edx, edx\n xrstor [" R(
                bx) "]\n movd ecx, xmm5\n fistp dword ptr [" R(di) "]",
            .bx = a, .di = (ulong)other);
    CHECK("xrstor-data", (u32)t.regs.cx == 0x11111111 && *(u32 *)other == 3);
    /* only what the mask asks for */
    t = TRY("mov eax, 0x22222222\n movd xmm5, eax\n mov eax, 1\n xor edx, edx\n xrstor [" R(
                bx) "]\n movd ecx, xmm5",
            .bx = a);
    CHECK_EQ("xrstor-mask", (u32)t.regs.cx, 0x22222222);
    /* a clear bit in XSTATE_BV initialises the component (13.6) */
    *(u64 *)(area + 512) = 1;
    t = TRY("mov eax, 3\n xor edx, edx\n xrstor [" R(bx) "]\n movd ecx, xmm5", .bx = a, .cx = 5);
    CHECK_EQ("xrstor-init-sse", (u32)t.regs.cx, 0);
    *(u64 *)(area + 512) = 2;
    t = TRY("fldz\n mov eax, 3\n xor edx, edx\n xrstor [" R(bx) "]\n fnstsw ax\n fnstcw [" R(di) "]", .bx = a,
            .di = (ulong)other);
    CHECK("xrstor-init-x87", (t.regs.ax & 0xffff) == 0 && *(u16 *)other == 0x37f);
    *(u64 *)(area + 512) = 3;
    /* refusals (SDM 2C XRSTOR) */
    FAULT("xsave-misaligned", TRY("xsave [" R(bx) "]", .bx = a + 16, .ax = 3), GP, 0);
    FAULT("xrstor-misaligned", TRY("xrstor [" R(bx) "]", .bx = a + 32, .ax = 3), GP, 0);
    *(u64 *)(area + 512) = 3 | 1ull << 62;
    FAULT("xrstor-reserved-component", TRY("xrstor [" R(bx) "]", .bx = a, .ax = 3), GP, 0);
    *(u64 *)(area + 512) = 3;
    *(u64 *)(area + 520) = 1;
    FAULT("xrstor-xcomp-bv", TRY("xrstor [" R(bx) "]", .bx = a, .ax = 3), GP, 0);
    *(u64 *)(area + 520) = 0;
    *(u32 *)(area + 24) = 0x10000;
    FAULT("xrstor-mxcsr", TRY("xrstor [" R(bx) "]", .bx = a, .ax = 3), GP, 0);
    *(u32 *)(area + 24) = 0x1f80;
    cr(CR0_TS | CR0_MP, CR4_OSFXSR);
    FAULT("xsave-nm", TRY("xsave [" R(bx) "]", .bx = a, .ax = 3), NM, 0);
    FAULT("xrstor-nm", TRY("xrstor [" R(bx) "]", .bx = a, .ax = 3), NM, 0);
    DONE("xgetbv-with-ts", TRY("xgetbv", .cx = 0));
    normal();
    FAULT("xsave-register", TRY(".byte 0x0f, 0xae, 0xe0"), UD, 0);
    FAULT("xsave-lock", TRY(".byte 0xf0, 0x0f, 0xae, 0x23", .bx = a), UD, 0);
    if (cpuid(13, 1).a & 1) {
        fill(area, 0, sizeof(area));
        t = DONE("xsaveopt",
                 TRY("mov ecx, 0x33333333\n movd xmm6, ecx\n xsaveopt [" R(bx) "]", .bx = a, .ax = 3));
        CHECK_EQ("xsaveopt-data", *(u32 *)(area + 160 + 96), 0x33333333);
    } else {
        check_skip("xsaveopt", "no XSAVEOPT");
    }
    /* AVX without XCR0.AVX is undefined */
    FAULT("avx-disabled", TRY(".byte 0xc5, 0xf8, 0x77"), UD, 0);
}

void guest_main(void)
{
    cr0_plain = read_cr0();
    cr4_plain = read_cr4();
    normal();
    asm volatile("fninit");
    control_bits();
    x87_exceptions();
    sse_exceptions();
    fxsave();
    xsave();
}
