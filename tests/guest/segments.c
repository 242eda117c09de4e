/* SPDX-License-Identifier: Apache-2.0 */
/* Segmentation in protected mode: limits, types, privilege, loads and their error codes, 16-bit code and
 * stacks. */
#include "guest.h"

#define SLOT(n) ((u16)(SEL_FREE + 8 * (n)))
#define PRESENT(word) ((word) | 1ull << 47)
#define ABSENT(word) ((word) & ~(1ull << 47))

static u8 ALIGNED(4096) memory[65536 + 4096];
static const u8 code_readable = D_XCODE, code_only = 0x98, code_conforming = 0x9e, data_read_only = 0x90;

static void set(int slot, ulong base, u32 limit, u8 access, u8 flags)
{
    set_gdt(SLOT(slot), descriptor(base, limit, access, flags));
}

static struct trap load_byte(u16 fs, ulong at) { return TRY("mov al, fs:[ebx]", .fs = fs, .bx = at); }
static struct trap load_dword(u16 fs, ulong at) { return TRY("mov eax, fs:[ebx]", .fs = fs, .bx = at); }
static struct trap store_byte(u16 fs, ulong at) { return TRY("mov fs:[ebx], al", .fs = fs, .bx = at); }
static struct trap stack_dword(u16 ss, ulong at)
{
    return TRY_USER("mov eax, ss:[ebx]", .ss = ss | 3, .sp = 0x800, .bx = at);
}

static void limits(void)
{
    /* SDM 3A 5.3: bytes up to the limit; an access that ends beyond it is #GP(0), #SS(0) through SS */
    set(0, (ulong)memory, 0xff, D_DATA, D_BIG);
    DONE("limit-last-byte", load_byte(SLOT(0), 0xff));
    FAULT("limit-next-byte", load_byte(SLOT(0), 0x100), GP, 0);
    DONE("limit-last-dword", load_dword(SLOT(0), 0xfc));
    FAULT("limit-dword-across", load_dword(SLOT(0), 0xfd), GP, 0);
    FAULT("limit-dword-at-end", load_dword(SLOT(0), 0xff), GP, 0);
    FAULT("limit-minus-one", load_dword(SLOT(0), 0xffffffff), GP, 0);
    FAULT("limit-store", store_byte(SLOT(0), 0x100), GP, 0);
    memory[0xfd] = 0x5a;
    TRY("mov fs:[ebx], eax", .fs = SLOT(0), .bx = 0xfd, .ax = 0);
    CHECK_EQ("limit-store-nothing", memory[0xfd], 0x5a);
    FAULT("limit-qword", TRY("fld qword ptr fs:[ebx]", .fs = SLOT(0), .bx = 0xf9), GP, 0);
    DONE("limit-qword-last", TRY("fld qword ptr fs:[ebx]\n fninit", .fs = SLOT(0), .bx = 0xf8));
    FAULT("limit-tbyte", TRY("fld tbyte ptr fs:[ebx]", .fs = SLOT(0), .bx = 0xf7), GP, 0);
    set(0, (ulong)memory, 0, D_DATA, D_BIG | D_GRANULAR);
    DONE("granular-last", load_byte(SLOT(0), 0xfff));
    FAULT("granular-next", load_byte(SLOT(0), 0x1000), GP, 0);
    set(0, (ulong)memory, 0, D_DATA, D_BIG);
    DONE("limit-0-first", load_byte(SLOT(0), 0));
    FAULT("limit-0-second", load_byte(SLOT(0), 1), GP, 0);
    set(0, (ulong)memory, 0xfff, D_DATA | D_DPL3, D_BIG);
    DONE("stack-limit-last", stack_dword(SLOT(0), 0xffc));
    FAULT("stack-limit", stack_dword(SLOT(0), 0xffd), SS, 0);
    FAULT("stack-limit-push", TRY_USER("push eax", .ss = SLOT(0) | 3, .sp = 0x1004), SS, 0);
    FAULT("stack-limit-pop", TRY_USER("pop eax", .ss = SLOT(0) | 3, .sp = 0xffd), SS, 0);
    FAULT("stack-limit-ebp", TRY_USER("mov eax, [ebp]", .ss = SLOT(0) | 3, .sp = 0x800, .bp = 0x1000), SS, 0);
    DONE("stack-ebp-with-ds",
         TRY_USER("mov eax, ds:[ebp]", .ss = SLOT(0) | 3, .sp = 0x800, .bp = (ulong)memory));
    FAULT("stack-limit-call", TRY_USER("call 1f\n 1: nop", .ss = SLOT(0) | 3, .sp = 2), SS, 0);
    FAULT("stack-limit-pusha", TRY_USER("pushad", .ss = SLOT(0) | 3, .sp = 16), SS, 0);
    /* expand-down: above the limit up to FFFFFFFFh, or FFFFh with B = 0 */
    set(0, (ulong)memory, 0xff, D_DATA | D_DOWN, D_BIG);
    FAULT("down-at-limit", load_byte(SLOT(0), 0xff), GP, 0);
    DONE("down-above-limit", load_byte(SLOT(0), 0x100));
    FAULT("down-zero", load_byte(SLOT(0), 0), GP, 0);
    DONE("down-high", load_byte(SLOT(0), 0x10080));
    DONE("down-top", TRY("mov al, fs:[ebx]", .fs = SLOT(0), .bx = 0xffffffff));
    FAULT("down-over-top", load_dword(SLOT(0), 0xfffffffd), GP, 0);
    set(0, (ulong)memory, 0xff, D_DATA | D_DOWN, 0);
    DONE("down16-top", load_byte(SLOT(0), 0xffff));
    FAULT("down16-above-top", load_byte(SLOT(0), 0x10000), GP, 0);
    FAULT("down16-across-top", load_dword(SLOT(0), 0xfffd), GP, 0);
    /* linear addresses wrap at 4 GiB */
    set(0, 0xfffff000, 0xfffff, D_DATA, D_BIG | D_GRANULAR);
    *(volatile u8 *)(memory + 0x10) = 0x77;
    struct trap t = load_byte(SLOT(0), (ulong)memory + 0x10 + 0x1000);
    CHECK_EQ("linear-wraps", t.regs.ax & 0xff, 0x77);
}

static void types(void)
{
    set(0, (ulong)memory, 0xfff, data_read_only, D_BIG);
    DONE("read-only-read", load_byte(SLOT(0), 0));
    FAULT("read-only-write", store_byte(SLOT(0), 0), GP, 0);
    FAULT("read-only-rmw", TRY("add byte ptr fs:[ebx], 1", .fs = SLOT(0), .bx = 0), GP, 0);
    FAULT("code-write-through-cs", TRY("mov cs:[ebx], al", .bx = (ulong)memory), GP, 0);
    DONE("code-read-through-cs", TRY("mov al, cs:[ebx]", .bx = (ulong)memory));
    set(1, 0, 0xfffff, code_only, D_BIG | D_GRANULAR);
    struct code c = CODE("mov al, cs:[ebx]");
    FAULT("execute-only-read", TRY_CODE(c, .cs = SLOT(1), .bx = (ulong)memory), GP, 0);
    FAULT("execute-only-load", TRY("mov fs, eax", .ax = SLOT(1)), GP, SLOT(1));
    set(1, (ulong)memory, 0xfff, code_readable, D_BIG);
    DONE("readable-code-load", load_byte(SLOT(1), 0));
    FAULT("readable-code-write", store_byte(SLOT(1), 0), GP, 0);
    FAULT("ss-read-only", TRY("mov ss, eax", .ax = SLOT(0)), GP, SLOT(0));
    FAULT("ss-code", TRY("mov ss, eax", .ax = SLOT(1)), GP, SLOT(1));
    FAULT("load-system", TRY("mov fs, eax", .ax = SEL_TSS), GP, SEL_TSS);
    set_gdt(SLOT(2), ABSENT(descriptor(0, 0xfff, code_only, 0)));
    FAULT("load-type-before-present", TRY("mov fs, eax", .ax = SLOT(2)), GP, SLOT(2));
    /* null: loads, faults when used; not for SS */
    struct trap t = TRY("mov fs, eax\n mov gs, eax\n 8: mov al, fs:[ebx]", .ax = 0, .bx = (ulong)memory);
    check_fault("null-use", &t, GP, 0);
    CHECK("null-loads", t.regs.fs == 0 && t.regs.gs == 0);
    FAULT("null-rpl-3-loads", TRY("mov fs, eax\n 8: mov fs:[ebx], al", .ax = 3, .bx = (ulong)memory), GP, 0);
    FAULT("null-es-string", TRY("mov es, eax\n 8: stosb", .ax = 0, .di = (ulong)memory), GP, 0);
    FAULT("ss-null", TRY("mov ss, eax", .ax = 0), GP, 0);
    set_gdt(0, gdt[SEL_DATA / 8]); /* the null descriptor is not read */
    FAULT("null-descriptor-not-read", TRY("mov fs, eax\n 8: mov al, fs:[ebx]", .ax = 0), GP, 0);
    set_gdt(0, 0);
    /* not present */
    set_gdt(SLOT(2), ABSENT(gdt[SEL_DATA / 8]));
    FAULT("np-ds", TRY("mov ds, eax", .ax = SLOT(2)), NP, SLOT(2));
    FAULT("np-gs", TRY("mov gs, eax", .ax = SLOT(2)), NP, SLOT(2));
    FAULT("np-pop-fs", TRY("push eax\n 8: pop fs", .ax = SLOT(2)), NP, SLOT(2));
    FAULT("np-ss", TRY("mov ss, eax", .ax = SLOT(2)), SS, SLOT(2));
    static struct {
        u32 offset;
        u16 selector;
    } pointer;
    pointer.selector = SLOT(2);
    t = FAULT("np-les", TRY("les eax, [ebx]", .ax = 7, .bx = (ulong)&pointer), NP, SLOT(2));
    CHECK_EQ("np-les-keeps-eax", t.regs.ax, 7);
    pointer.selector = SEL_DATA, pointer.offset = 0x12345678;
    t = DONE("lfs", TRY("lfs eax, [ebx]", .bx = (ulong)&pointer));
    CHECK("lfs-values", t.regs.ax == 0x12345678 && t.regs.fs == SEL_DATA);
    /* RPL is kept in the register */
    set(3, 0, 0xfffff, D_DATA | D_DPL3, D_BIG | D_GRANULAR);
    t = TRY("mov fs, eax\n mov ecx, fs", .ax = SLOT(3) | 3);
    CHECK_EQ("load-keeps-rpl", t.regs.cx, SLOT(3) | 3u);
}

static void privilege(void)
{
    set(0, 0, 0xfffff, D_DATA, D_BIG | D_GRANULAR);
    FAULT("user-loads-dpl-0", TRY_USER("mov fs, eax", .ax = SLOT(0)), GP, SLOT(0));
    FAULT("user-loads-dpl-0-rpl-3", TRY_USER("mov fs, eax", .ax = SLOT(0) | 3), GP, SLOT(0));
    FAULT("rpl-3-dpl-0", TRY("mov fs, eax", .ax = SLOT(0) | 3), GP, SLOT(0));
    set(1, 0, 0xfffff, code_conforming, D_BIG | D_GRANULAR);
    DONE("user-loads-conforming", TRY_USER("mov fs, eax", .ax = SLOT(1)));
    set(2, 0, 0xfffff, D_XCODE, D_BIG | D_GRANULAR);
    FAULT("user-loads-code-dpl-0", TRY_USER("mov fs, eax", .ax = SLOT(2)), GP, SLOT(2));
    FAULT("user-ss-dpl-0", TRY_USER("mov ss, eax", .ax = SLOT(0)), GP, SLOT(0));
    FAULT("user-ss-rpl-0", TRY_USER("mov ss, eax", .ax = SEL_USER_DATA & ~3), GP, SEL_USER_DATA & ~3);
    DONE("user-ss", TRY_USER("mov ss, eax", .ax = SEL_USER_DATA));
    FAULT("kernel-ss-dpl-3", TRY("mov ss, eax", .ax = SEL_USER_DATA & ~3), GP, SEL_USER_DATA & ~3);
    /* a descriptor's privilege is checked at the load, not at the use */
    DONE("user-uses-loaded", TRY_USER("mov eax, fs:[ebx]", .fs = SEL_USER_DATA, .bx = (ulong)memory));
}

static struct {
    u32 offset;
    u16 selector;
} target;

static struct trap far_jump(u16 selector, bool user)
{
    target.selector = selector;
    struct code c = CODE("mov eax, offset 1f\n mov [ebx], eax\n 8: jmp fword ptr [ebx]\n 1: mov eax, cs");
    return TRY_CODE(c, .cs = user ? SEL_USER_CODE : SEL_CODE, .bx = (ulong)&target);
}

static void far_transfers(void)
{
    /* SDM 3A 5.8.1 */
    set(0, 0, 0xfffff, D_XCODE, D_BIG | D_GRANULAR);
    set(1, 0, 0xfffff, code_conforming, D_BIG | D_GRANULAR);
    set(2, 0, 0xfffff, D_XCODE | D_DPL3, D_BIG | D_GRANULAR);
    set_gdt(SLOT(3), ABSENT(gdt[SEL_CODE / 8]));
    struct trap t = DONE("far-jump", far_jump(SLOT(0), false));
    CHECK_EQ("far-jump-cs", t.regs.ax, SLOT(0));
    FAULT("far-jump-rpl", far_jump(SLOT(0) | 3, false), GP, SLOT(0));
    FAULT("far-jump-user-dpl-0", far_jump(SLOT(0), true), GP, SLOT(0));
    t = DONE("far-jump-user-conforming", far_jump(SLOT(1), true));
    CHECK_EQ("far-jump-conforming-keeps-cpl", t.regs.ax, SLOT(1) | 3u);
    DONE("far-jump-conforming", far_jump(SLOT(1), false));
    FAULT("far-jump-to-outer", far_jump(SLOT(2), false), GP, SLOT(2));
    DONE("far-jump-user", far_jump(SLOT(2) | 3, true));
    set(4, 0, 0xfffff, code_conforming | D_DPL3, D_BIG | D_GRANULAR);
    FAULT("far-jump-conforming-outer", far_jump(SLOT(4), false), GP, SLOT(4));
    FAULT("far-jump-np", far_jump(SLOT(3), false), NP, SLOT(3));
    FAULT("far-jump-null", far_jump(0, false), GP, 0);
    FAULT("far-jump-data", far_jump(SEL_DATA, false), GP, SEL_DATA);
    FAULT("far-jump-beyond-gdt", far_jump(GDT_ENTRIES * 8, false), GP, GDT_ENTRIES * 8);
    FAULT("far-jump-ldt-none", far_jump(0x0c, false), GP, 0x0c);
    set_gdt(SLOT(4), idt[3]);
    FAULT("far-jump-interrupt-gate", far_jump(SLOT(4), false), GP, SLOT(4));
    set(4, 0, 0xff, D_XCODE, D_BIG);
    FAULT("far-jump-limit", far_jump(SLOT(4), false), GP, 0);
    target.offset = 0x200000, target.selector = SLOT(0);
    /* call far pushes cs and eip; its stack fault leaves everything */
    struct code routine = CODE("mov ecx, cs\n retf");
    target.offset = routine.start;
    t = DONE("far-call-returns", TRY("call fword ptr [ebx]", .bx = (ulong)&target));
    CHECK_EQ("far-call-cs", t.regs.cx, SLOT(0));
    set(5, (ulong)memory, 0xfff, D_DATA | D_DPL3, D_BIG);
    target.selector = SEL_USER_CODE;
    t = FAULT("far-call-stack-limit",
              TRY_USER("call fword ptr [ebx]", .ss = SLOT(5) | 3, .sp = 6, .bx = (ulong)&target), SS, 0);
    CHECK("far-call-restart", t.regs.sp == 6 && t.regs.cs == SEL_USER_CODE);
    /* same-privilege far return */
    FAULT("retf-null", TRY("push 0\n push 0\n 8: retf"), GP, 0);
    FAULT("retf-data", TRY("push 0x10\n push 0\n 8: retf"), GP, SEL_DATA);
    FAULT("retf-np", TRY("push eax\n push 0\n 8: retf", .ax = SLOT(3)), NP, SLOT(3));
    FAULT("retf-limit", TRY("push eax\n push 0x1000\n 8: retf", .ax = SLOT(4)), GP, 0);
    t = DONE("retf-imm", TRY("mov edx, esp\n push 1\n push 2\n push cs\n mov eax, offset 1f\n push eax\n "
                             "retf 8\n 1: sub edx, esp"));
    CHECK_EQ("retf-imm-esp", t.regs.dx, 0);
    /* near branches against the limit: #GP(0) at the branch */
    struct code c = CODE("mov eax, 0x100000\n 8: jmp eax");
    set(4, c.start, 0xff, D_XCODE, D_BIG);
    struct code at_zero = { 0, c.mark - c.start, c.end - c.start };
    if (is_tcg())
        check_skip("near-jump-limit", "QEMU jumps, to anywhere");
    else
        FAULT("near-jump-limit", TRY_CODE(at_zero, .cs = SLOT(4)), GP, 0);
    /* running over the limit */
    c = CODE("nop\n nop\n nop\n nop\n nop");
    set(4, c.start, 2, D_XCODE, D_BIG);
    at_zero = (struct code){ 0, 3, 3 };
    FAULT("fetch-limit", TRY_CODE(at_zero, .cs = SLOT(4)), GP, 0);
    c = CODE("nop\n 8: mov eax, 0x12345678");
    set(4, c.start, 3, D_XCODE, D_BIG);
    at_zero = (struct code){ 0, 1, 6 };
    FAULT("fetch-limit-inside", TRY_CODE(at_zero, .cs = SLOT(4)), GP, 0);
}

static void accessed_bit(void)
{
    set(0, 0, 0xfffff, D_DATA, D_BIG | D_GRANULAR);
    TRY("mov fs, eax", .ax = SLOT(0));
    CHECK("accessed-data", gdt[SLOT(0) / 8] >> 40 & 1);
    set(0, 0, 0xfffff, D_XCODE, D_BIG | D_GRANULAR);
    far_jump(SLOT(0), false);
    CHECK("accessed-code", gdt[SLOT(0) / 8] >> 40 & 1);
    set(0, 0, 0xfffff, D_DATA, D_BIG | D_GRANULAR);
    TRY_USER("mov fs, eax", .ax = SLOT(0));
    CHECK("accessed-not-by-fault", !(gdt[SLOT(0) / 8] >> 40 & 1));
    TRY("lar ecx, eax\n lsl ecx, eax\n verr ax", .ax = SLOT(0));
    CHECK("accessed-not-by-lar", !(gdt[SLOT(0) / 8] >> 40 & 1));
}

struct query {
    u64 word;
    u16 rpl;
    bool user, lar, lsl, verr, verw;
};

static void queries(void)
{
    /* SDM 2A LAR (table 3-53), LSL (3-56), 2B VERR/VERW */
    const u8 g = D_BIG | D_GRANULAR;
    const struct query table[] = {
        { descriptor(0, 0xfffff, D_DATA, g), 0, false, true, true, true, true },
        { descriptor(0, 0xfffff, data_read_only, g), 0, false, true, true, true, false },
        { descriptor(0, 0xfffff, D_XCODE, g), 0, false, true, true, true, false },
        { descriptor(0, 0xfffff, code_only, g), 0, false, true, true, false, false },
        { descriptor(0, 0x12345, D_DATA, 0), 0, false, true, true, true, true },
        { descriptor(0, 0xfffff, D_DATA, g), 3, false, false, false, false, false },
        { descriptor(0, 0xfffff, D_DATA, g), 0, true, false, false, false, false },
        { descriptor(0, 0xfffff, D_DATA | D_DPL3, g), 3, true, true, true, true, true },
        { descriptor(0, 0xfffff, code_conforming, g), 3, true, true, true, true, false },
        { descriptor(0, 0xfffff, D_XCODE | D_DPL3, g), 3, true, true, true, true, false },
        { ABSENT(descriptor(0, 0xfffff, D_DATA, g)), 0, false, true, true, true, true },
        { descriptor(0, 0xfff, 0x82, 0), 0, false, true, true, false, false }, /* LDT */
        { descriptor(0, 0x67, 0x89, 0), 0, false, true, true, false, false },  /* TSS, available */
        { descriptor(0, 0x67, 0x8b, 0), 0, false, true, true, false, false },  /* TSS, busy */
        { descriptor(0, 0x67, 0x81, 0), 0, false, true, true, false, false },  /* 16-bit TSS */
        { descriptor(0, 0, 0x8c, 0), 0, false, true, false, false, false },    /* call gate */
        { descriptor(0, 0, 0x84, 0), 0, false, true, false, false, false },    /* 16-bit call gate */
        { descriptor(0, 0, 0x85, 0), 0, false, true, false, false, false },    /* task gate */
        { descriptor(0, 0, 0x8e, 0), 0, false, false, false, false, false },   /* interrupt gate */
        { descriptor(0, 0, 0x8f, 0), 0, false, false, false, false, false },   /* trap gate */
        { descriptor(0, 0, 0x80, 0), 0, false, false, false, false, false },   /* reserved */
        { descriptor(0, 0, 0x8a, 0), 0, false, false, false, false, false },   /* reserved */
    };
    u32 bad = 0;
    for (u32 i = 0; i < ARRAY_LEN(table); i++) {
        const struct query *q = &table[i];
        set_gdt(SLOT(0), q->word);
        ulong sel = SLOT(0) | q->rpl, cs = q->user ? SEL_USER_CODE : SEL_CODE;
        struct code lar = CODE("lar ecx, eax\n setz bl"), lsl = CODE("lsl ecx, eax\n setz bl");
        struct code verr = CODE("verr ax\n setz bl"), verw = CODE("verw ax\n setz bl");
        struct trap a = TRY_CODE(lar, .cs = cs, .ax = sel, .cx = 0x5555),
                    l = TRY_CODE(lsl, .cs = cs, .ax = sel, .cx = 0x5555);
        struct trap r = TRY_CODE(verr, .cs = cs, .ax = sel), w = TRY_CODE(verw, .cs = cs, .ax = sel);
        u32 rights = (u32)(q->word >> 32) & 0x00f0ff00,
            limit = (u32)(q->word & 0xffff) | ((u32)(q->word >> 32) & 0xf0000);
        if (q->word >> 55 & 1)
            limit = limit << 12 | 0xfff;
        bool ok = (a.regs.bx & 1) == q->lar && (a.regs.cx & 0x00f0ff00) == (q->lar ? rights : 0x5500u);
        ok = ok && (l.regs.bx & 1) == q->lsl && l.regs.cx == (q->lsl ? limit : 0x5555);
        ok = ok && (r.regs.bx & 1) == q->verr && (w.regs.bx & 1) == q->verw;
        if (!ok && !bad++)
            print("# query %u: lar %lu %lx lsl %lu %lx verr %lu verw %lu\n", i, a.regs.bx, a.regs.cx,
                  l.regs.bx, l.regs.cx, r.regs.bx, w.regs.bx);
    }
    CHECK_EQ("lar-lsl-verr-verw", bad, 0);
    struct trap t = TRY("lar ecx, eax\n setz bl\n lsl ecx, eax\n setz bh\n verr ax\n setz dl", .ax = 0,
                        .cx = 9);
    CHECK("query-null", t.regs.bx == 0 && t.regs.dx == 0 && t.regs.cx == 9);
    t = TRY("lar ecx, eax\n setz bl\n lsl ecx, eax\n setz bh", .ax = GDT_ENTRIES * 8, .cx = 9);
    CHECK("query-beyond-gdt", t.regs.bx == 0 && t.regs.cx == 9);
    t = TRY("arpl ax, cx\n setz bl", .ax = 0x10, .cx = 0x23);
    CHECK("arpl-raises", t.regs.ax == 0x13 && t.regs.bx == 1);
    t = TRY("arpl ax, cx\n setz bl", .ax = 0x13, .cx = 0x21);
    CHECK("arpl-keeps", t.regs.ax == 0x13 && t.regs.bx == 0);
}

static void local_table(void)
{
    static u64 ALIGNED(8) ldt[4];
    ldt[1] = descriptor((ulong)memory, 0xff, D_DATA, D_BIG);
    ldt[2] = descriptor(0, 0xfffff, D_XCODE, D_BIG | D_GRANULAR);
    set(0, (ulong)ldt, sizeof(ldt) - 1, D_PRESENT | 2, 0);
    memory[5] = 0x99;
    DONE("lldt", TRY("lldt ax", .ax = SLOT(0)));
    struct trap t = DONE("ldt-data", load_byte(0x0c, 5));
    CHECK_EQ("ldt-data-value", t.regs.ax & 0xff, 0x99);
    DONE("ldt-code", far_jump(0x14, false));
    FAULT("ldt-null-like-is-no-null", TRY("mov fs, eax", .ax = 4), GP,
          4); /* index 0 of the LDT is an ordinary (here: empty) entry */
    FAULT("ldt-beyond", TRY("mov fs, eax", .ax = 0x24), GP, 0x24);
    t = TRY("sldt eax", .ax = 0xffffffff);
    CHECK_EQ("sldt", t.regs.ax & 0xffff, SLOT(0));
    FAULT("lldt-data", TRY("lldt ax", .ax = SEL_DATA), GP, SEL_DATA);
    FAULT("lldt-in-ldt", TRY("lldt ax", .ax = 0x0c), GP, 0x0c);
    set_gdt(SLOT(1), ABSENT(gdt[SLOT(0) / 8]));
    FAULT("lldt-np", TRY("lldt ax", .ax = SLOT(1)), NP, SLOT(1));
    FAULT("lldt-user", TRY_USER("lldt ax", .ax = SLOT(0)), GP, 0);
    DONE("lldt-null", TRY("lldt ax", .ax = 0));
    FAULT("ldt-gone", TRY("mov fs, eax", .ax = 0x0c), GP, 0x0c);
    if (is_tcg())
        check_skip("ltr-null", "QEMU loads it and aborts later");
    else
        FAULT("ltr-null", TRY("ltr ax", .ax = 0), GP, 0);
    FAULT("ltr-data", TRY("ltr ax", .ax = SEL_DATA), GP, SEL_DATA);
    FAULT("ltr-busy", TRY("ltr ax", .ax = SEL_TSS), GP, SEL_TSS);
    set_gdt(SLOT(1), descriptor(0, 0x67, 0x09, 0));
    FAULT("ltr-np", TRY("ltr ax", .ax = SLOT(1)), NP, SLOT(1));
    FAULT("ltr-ldt-selector", TRY("ltr ax", .ax = 0x0c), GP, 0x0c);
    CHECK("ltr-sets-busy", (gdt[SEL_TSS / 8] >> 40 & 0xf) == 0xb);
    t = TRY("str eax");
    CHECK_EQ("str", t.regs.ax & 0xffff, SEL_TSS);
    static struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) table;
    TRY("sgdt [ebx]", .bx = (ulong)&table);
    CHECK("sgdt", table.limit == sizeof(gdt) - 1 && table.base == (ulong)gdt);
    TRY("sidt [ebx]", .bx = (ulong)&table);
    CHECK("sidt", table.limit == sizeof(idt) - 1 && table.base == (ulong)idt);
}

static void overrides(void)
{
    set(0, (ulong)memory, 0xfff, D_DATA, D_BIG);
    set(1, (ulong)memory + 0x100, 0xfff, D_DATA, D_BIG);
    memory[0x10] = 1, memory[0x110] = 2;
    struct trap t = TRY("mov al, fs:[ebx]\n mov ah, gs:[ebx]", .fs = SLOT(0), .gs = SLOT(1), .bx = 0x10);
    CHECK_EQ("override-fs-gs", t.regs.ax & 0xffff, 0x0201);
    t = TRY("mov al, [ebx]\n mov ah, es:[ebx]", .ds = SLOT(1), .es = SLOT(0), .bx = 0x10);
    CHECK_EQ("override-es", t.regs.ax & 0xffff, 0x0102);
    t = TRY("lodsb", .ds = SLOT(1), .si = 0x10);
    CHECK_EQ("string-source-ds", t.regs.ax & 0xff, 2);
    t = TRY(".byte 0x64\n lodsb", .fs = SLOT(0), .si = 0x10);
    CHECK_EQ("string-source-override", t.regs.ax & 0xff, 1);
    memory[0x20] = memory[0x120] = 0;
    t = TRY(".byte 0x64\n movsb", .fs = SLOT(1), .es = SLOT(0), .si = 0x10, .di = 0x20);
    CHECK("string-destination-always-es", memory[0x20] == 2 && memory[0x120] == 0);
    t = TRY(".byte 0x64, 0x65\n mov al, [ebx]", .fs = SLOT(0), .gs = SLOT(1), .bx = 0x10);
    CHECK_EQ("override-last-wins", t.regs.ax & 0xff, 2);
    memory[0x30] = 0x66;
    t = TRY("xlatb", .ds = SLOT(0), .bx = 0x20, .ax = 0x10);
    CHECK_EQ("xlat-ds", t.regs.ax & 0xff, 0x66);
    t = TRY(".byte 0x64\n lea eax, [ebx+4]", .fs = SLOT(0), .bx = 0x10);
    CHECK_EQ("lea-has-no-base", t.regs.ax, 0x14);
    t = TRY("addr16 mov al, [bx+si]", .ds = SLOT(0), .bx = 0xffff000f, .si = 0x40001);
    CHECK_EQ("address-size-16", t.regs.ax & 0xff, 1);
    t = TRY("addr16 mov al, [bx+si]", .ds = SLOT(0), .bx = 0xfff0, .si = 0x20);
    CHECK_EQ("address-size-16-wraps", t.regs.ax & 0xff, 1);
}

static struct trap run16(struct code c, struct regs in)
{
    set(6, c.start, 0xffff, D_XCODE | (in.cs & 3 ? D_DPL3 : 0), 0);
    struct code at_zero = { 0, c.mark - c.start, c.end - c.start };
    in.cs = SLOT(6) | (in.cs & 3);
    return run_code(at_zero, in);
}

static void code16(void)
{
    struct trap t = run16(CODE16("mov ax, 0x1234"), (struct regs){ .ax = 0xaaaaaaaa });
    check_done("code16-runs", &t);
    CHECK_EQ("code16-operand-size", t.regs.ax, 0xaaaa1234);
    t = run16(CODE16("mov eax, 0x12345678"), (struct regs){ .ax = 0 });
    CHECK_EQ("code16-operand-prefix", t.regs.ax, 0x12345678);
    memory[0x44] = 0x5c;
    set(0, (ulong)memory, 0xfff, D_DATA, D_BIG);
    t = run16(CODE16("mov al, [bx+si]"), (struct regs){ .ds = SLOT(0), .bx = 0x40, .si = 0x10004 });
    CHECK_EQ("code16-address-size", t.regs.ax & 0xff, 0x5c);
    t = run16(CODE16("push ax\n push bx\n pop ecx"), (struct regs){ .ax = 0x1111, .bx = 0x2222 });
    CHECK_EQ("code16-push-is-two-bytes", t.regs.cx, 0x11112222);
    t = run16(CODE16("call 1f\n jmp 2f\n 1: mov eax, esp\n mov cx, [eax]\n ret\n 2:"),
              (struct regs){ .cx = 0 });
    check_done("code16-call", &t);
    CHECK_EQ("code16-call-pushes-ip", t.regs.cx, 3);
    static const u8 jump[] = { 0xb8, 0x00, 0xff, 0xff,
                               0xe0 }; /* mov ax, ff00h; jmp ax: EIP takes 16 bits only */
    copy(memory, jump, sizeof(jump));
    memory[0xff00] = 0xcd, memory[0xff01] = VECTOR_DONE;
    struct code at_memory = { (ulong)memory, (ulong)memory, (ulong)memory + 0xff00 };
    t = run16(at_memory, (struct regs){ .ax = 0x12340000 });
    check_done("code16-jump-truncates", &t);
    t = run16(CODE16("pushf\n pop ax"), (struct regs){ .flags = FLAG_CF, .ax = 0xffffffff });
    CHECK_EQ("code16-pushf", t.regs.ax, 0xffff0003);
}

static void stack16(void)
{
    /* CPL 3 on a 16-bit stack segment: SP wraps at 64 KiB, ESP's high half stays (SDM 3A 3.4.5, 1 6.2.3) */
    set(0, (ulong)memory, 0xffff, D_DATA | D_DPL3, 0);
    struct trap t = TRY_USER("mov ecx, esp\n push eax\n mov edx, esp", .ss = SLOT(0) | 3, .sp = 0x100,
                             .ax = 0x11223344);
    check_done("stack16-push", &t);
    CHECK_EQ("stack16-push-sp", t.regs.dx & 0xffff, 0xfc);
    CHECK_EQ("stack16-push-value", *(u32 *)(memory + 0xfc), 0x11223344);
    CHECK_EQ("stack16-high-half-stays", t.regs.cx >> 16, t.regs.dx >> 16);
    t = TRY_USER("push eax\n mov edx, esp", .ss = SLOT(0) | 3, .sp = 0x10000, .ax = 0x55667788);
    CHECK_EQ("stack16-wraps", t.regs.dx & 0xffff, 0xfffc);
    CHECK_EQ("stack16-wraps-value", *(u32 *)(memory + 0xfffc), 0x55667788);
    t = TRY_USER("mov esp, 0x12340104\n push eax\n mov edx, esp", .ss = SLOT(0) | 3, .sp = 0x100);
    CHECK_EQ("stack16-esp-high", t.regs.dx, 0x12340100);
    FAULT("stack16-across-top", TRY_USER("pop eax", .ss = SLOT(0) | 3, .sp = 0xfffe), SS, 0);
    t = TRY_USER("call 1f\n jmp 2f\n 1: mov edx, esp\n ret 4\n 2: mov ecx, esp", .ss = SLOT(0) | 3,
                 .sp = 0x200);
    CHECK("stack16-call-ret", (t.regs.dx & 0xffff) == 0x1fc && (t.regs.cx & 0xffff) == 0x204);
    t = TRY_USER("enter 16, 0\n mov edx, esp\n mov eax, ebp\n leave\n mov ecx, esp", .ss = SLOT(0) | 3,
                 .sp = 0x200, .bp = 0x777);
    CHECK("stack16-enter-leave", (t.regs.dx & 0xffff) == 0x1ec && (t.regs.ax & 0xffff) == 0x1fc &&
                                     (t.regs.cx & 0xffff) == 0x200 && t.regs.bp == 0x777);
    t = TRY_USER("pushad\n mov edx, esp\n popad", .ss = SLOT(0) | 3, .sp = 0x10, .ax = 1, .cx = 2);
    CHECK("stack16-pusha-wraps", *(u32 *)(memory + 0xc) == 1 && t.regs.ax == 1 && t.regs.cx == 2);
    set(1, (ulong)memory, 0xfffff, D_DATA | D_DPL3, D_BIG | D_GRANULAR);
    t = TRY_USER("push eax\n mov edx, esp", .ss = SLOT(1) | 3, .sp = 0x10004);
    CHECK_EQ("stack32-does-not-wrap", t.regs.dx, 0x10000);
}

void guest_main(void)
{
    limits();
    types();
    privilege();
    far_transfers();
    accessed_bit();
    queries();
    local_table();
    overrides();
    code16();
    stack16();
}
