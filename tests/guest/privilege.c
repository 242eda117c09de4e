/* SPDX-License-Identifier: Apache-2.0 */
/* Privilege: gates and returns between rings, IOPL and I/O bitmap, UMIP, SYSCALL, SYSENTER, IST,
 * compatibility mode. */
#include "guest.h"

#define SLOT(n) ((u16)(SEL_FREE + 16 * (n)))

static u8 ALIGNED(4096) memory[8192];
static u8 ALIGNED(16) ring1_stack[4096];

static void set(int slot, u32 base, u32 limit, u8 access, u8 flags)
{
    set_gdt(SLOT(slot), descriptor(base, limit, access, flags));
}

/* ---- what CPL 3 may not do ---- */

struct user_case {
    const char *name;
    u8 bytes[12];
    u8 vector;
};

static void user_instructions(void)
{
    static const struct user_case cases[] = {
        { "user-hlt", { 0xf4 }, GP },
        { "user-cli", { 0xfa }, GP },
        { "user-sti", { 0xfb }, GP },
        { "user-in-imm", { 0xe4, 0x80 }, GP },
        { "user-in-dx", { 0xec }, GP },
        { "user-out-dx", { 0xee }, GP },
        { "user-insb", { 0x6c }, GP },
        { "user-outsb", { 0x6e }, GP },
        { "user-clts", { 0x0f, 0x06 }, GP },
        { "user-invd", { 0x0f, 0x08 }, GP },
        { "user-wbinvd", { 0x0f, 0x09 }, GP },
        { "user-invlpg", { 0x0f, 0x01, 0x38 }, GP },
        { "user-lgdt", { 0x0f, 0x01, 0x10 }, GP },
        { "user-lidt", { 0x0f, 0x01, 0x18 }, GP },
        { "user-lldt", { 0x0f, 0x00, 0xd0 }, GP },
        { "user-ltr", { 0x0f, 0x00, 0xd8 }, GP },
        { "user-lmsw", { 0x0f, 0x01, 0xf0 }, GP },
        { "user-mov-from-cr0", { 0x0f, 0x20, 0xc0 }, GP },
        { "user-mov-to-cr0", { 0x0f, 0x22, 0xc0 }, GP },
        { "user-mov-from-cr3", { 0x0f, 0x20, 0xd8 }, GP },
        { "user-mov-to-cr4", { 0x0f, 0x22, 0xe0 }, GP },
        { "user-mov-from-dr0", { 0x0f, 0x21, 0xc0 }, GP },
        { "user-mov-to-dr7", { 0x0f, 0x23, 0xf8 }, GP },
        { "user-rdmsr", { 0x0f, 0x32 }, GP },
        { "user-wrmsr", { 0x0f, 0x30 }, GP },
        { "user-rdpmc", { 0x0f, 0x33 }, GP },
        { "user-xsetbv", { 0x0f, 0x01, 0xd1 }, UD }, /* CR4.OSXSAVE = 0 */
#if WIDE
        { "user-swapgs", { 0x0f, 0x01, 0xf8 }, GP },
        { "user-mov-cr8", { 0x44, 0x0f, 0x22, 0xc0 }, GP },
#endif
        { "user-nop", { 0x90 }, VECTOR_DONE },
    };
    static u8 ALIGNED(16) code[16];
    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        fill(code, 0x90, sizeof(code));
        copy(code, cases[i].bytes, 12);
        for (u32 j = 12; j > 0; j--)
            if (!code[j - 1])
                code[j - 1] = 0x90;
        copy(code, cases[i].bytes, 2); /* 0F 00 and 0F 01 keep their zeros */
        if (cases[i].bytes[0] != 0x0f && !cases[i].bytes[1])
            code[1] = 0x90;
        code[14] = 0xcd, code[15] = VECTOR_DONE;
        struct code c = { (ulong)code, (ulong)code, (ulong)code + 14 };
        struct trap t = TRY_CODE(c, .cs = SEL_USER_CODE, .ax = (ulong)memory, .cx = 0x10, .dx = 0x80,
                                 .si = (ulong)memory, .di = (ulong)memory);
        if (cases[i].vector == VECTOR_DONE)
            check_done(cases[i].name, &t);
        else
            check_fault(cases[i].name, &t, cases[i].vector, 0);
    }
    ulong cr4 = read_cr4();
    DONE("user-rdtsc", TRY_USER("rdtsc"));
    write_cr4(cr4 | CR4_TSD);
    FAULT("user-rdtsc-tsd", TRY_USER("rdtsc"), GP, 0);
    DONE("kernel-rdtsc-tsd", TRY("rdtsc"));
    write_cr4(cr4);
    DONE("user-cpuid", TRY_USER("cpuid"));
}

static void umip(void)
{
    ulong cr4 = read_cr4(), at = (ulong)memory;
    DONE("sgdt-user", TRY_USER("sgdt [" R(bx) "]", .bx = at));
    DONE("smsw-user", TRY_USER("smsw eax"));
    if (!has(F_UMIP)) {
        check_skip("umip", "no UMIP");
        return;
    }
    write_cr4(cr4 | CR4_UMIP); /* SDM 3A 2.5, CR4.UMIP */
    FAULT("umip-sgdt", TRY_USER("sgdt [" R(bx) "]", .bx = at), GP, 0);
    FAULT("umip-sidt", TRY_USER("sidt [" R(bx) "]", .bx = at), GP, 0);
    FAULT("umip-sldt", TRY_USER("sldt eax"), GP, 0);
    FAULT("umip-str", TRY_USER("str eax"), GP, 0);
    FAULT("umip-smsw", TRY_USER("smsw eax"), GP, 0);
    DONE("umip-kernel", TRY("sgdt [" R(bx) "]\n smsw eax\n str ecx\n sldt edx", .bx = at));
    write_cr4(cr4);
}

/* ---- IOPL and the I/O permission bitmap (SDM 1 19.5) ---- */

static void io_permission(void)
{
    u8 *map = this_cpu()->iomap;
    DONE("iopl3-in", TRY_USER("in al, 0x80", .flags = FLAG_IOPL));
    DONE("iopl3-cli-sti", TRY_USER("sti\n cli", .flags = FLAG_IOPL));
    FAULT("iopl2-cli", TRY_USER("cli", .flags = 2 << 12), GP, 0);
    FAULT("iopl2-in", TRY_USER("in al, 0x80", .flags = 2 << 12), GP, 0);
    map[0x80 / 8] = (u8)~1;
    DONE("bitmap-byte", TRY_USER("in al, 0x80"));
    FAULT("bitmap-next", TRY_USER("in al, 0x81"), GP, 0);
    FAULT("bitmap-word", TRY_USER("in ax, 0x80"), GP, 0);
    map[0x80 / 8] = (u8)~3;
    DONE("bitmap-word-both", TRY_USER("in ax, 0x80"));
    FAULT("bitmap-dword", TRY_USER("in eax, 0x80"), GP, 0);
    map[0x80 / 8] = (u8)~0xf;
    DONE("bitmap-dword-all", TRY_USER("in eax, 0x80"));
    map[0x80 / 8] = 0x7f, map[0x88 / 8] = 0xfe; /* 87h and 88h: two bytes of the bitmap */
    DONE("bitmap-across-bytes", TRY_USER("in ax, 0x87"));
    map[0x88 / 8] = 0xff;
    FAULT("bitmap-across-bytes-second", TRY_USER("in ax, 0x87"), GP, 0);
    map[0x80 / 8] = (u8)~1;
    FAULT("bitmap-outs", TRY_USER("outsb", .dx = 0x81, .si = (ulong)memory), GP, 0);
    DONE("bitmap-outs-allowed", TRY_USER("outsb", .dx = 0x80, .si = (ulong)memory));
    FAULT("bitmap-rep-outs-count-0-checks-nothing-else", TRY_USER("in al, dx", .dx = 0xffff), GP, 0);
    map[0x80 / 8] = 0xff;
    map[8191] = 0x7f; /* port FFFFh; the byte after the bitmap is all ones */
    DONE("bitmap-last-port", TRY_USER("in al, dx", .dx = 0xffff));
    map[8191] = 0xff;
    /* a bitmap beyond the TSS limit: nothing is allowed */
    u16 base = this_cpu()->tss.iomap;
    map[0x80 / 8] = 0;
    this_cpu()->tss.iomap = 0xffff;
    barrier();
    FAULT("bitmap-beyond-limit", TRY_USER("in al, 0x80"), GP, 0);
    this_cpu()->tss.iomap = base;
    map[0x80 / 8] = 0xff;
    DONE("cpl0-needs-no-bitmap", TRY("in al, 0x80"));
    /* POPF and IRET at CPL 3 (SDM 2B POPF, table 4-15): IOPL stays, IF only with CPL <= IOPL, silently */
    struct trap t = TRY_USER("push 0x3202\n popf");
    CHECK_EQ("popf-user-keeps-if-iopl", t.regs.flags & (FLAG_IF | FLAG_IOPL), 0);
    t = TRY_USER("push 0x202\n popf\n", .flags = FLAG_IOPL);
    CHECK_EQ("popf-user-iopl3", t.regs.flags & (FLAG_IF | FLAG_IOPL), FLAG_IF | FLAG_IOPL);
    t = TRY("push 0x3002\n popf");
    CHECK_EQ("popf-kernel-iopl", t.regs.flags & FLAG_IOPL, FLAG_IOPL);
    t = TRY("push 0x3000\n popf", .flags = FLAG_AC);
    CHECK_EQ("popf-clears-ac", t.regs.flags, FLAG_IOPL | 2);
    t = TRY_USER("pushf\n or dword ptr [" R(sp) "], 0x250ed5\n popf");
    CHECK_EQ("popf-user-flags", t.regs.flags, 0x240cd7);
}

/* ---- call gates and far returns ---- */

#if WIDE
#define WIDE_PREFIX "rex.w "
#else
#define WIDE_PREFIX
#endif

static void ring1(void)
{
#if WIDE
    set(0, 0, 0xfffff, D_XCODE | D_DPL1, D_GRANULAR | D_LONG);
    this_cpu()->tss.rsp[2] = (u32)(ulong)(ring1_stack + sizeof(ring1_stack));
#else
    set(0, 0, 0xfffff, D_XCODE | D_DPL1, D_GRANULAR | D_BIG);
    this_cpu()->tss.esp1 = (ulong)(ring1_stack + sizeof(ring1_stack));
    this_cpu()->tss.ss1 = SLOT(1) | 1;
#endif
    set(1, 0, 0xfffff, D_DATA | D_DPL1, D_GRANULAR | D_BIG);
    barrier();
}

static struct {
    u32 offset;
    u16 selector;
} far_pointer;

static void gate(u16 selector, u16 target, ulong offset, u8 access, u8 params)
{
    set_call_gate(selector, target, offset, access, params);
    far_pointer.selector = selector;
    barrier();
}

static struct trap call_gate(u16 rpl, ulong sp_offset)
{
    far_pointer.selector = (u16)((far_pointer.selector & ~3) | rpl);
    return TRY_USER("call fword ptr [" R(bx) "]", .bx = (ulong)&far_pointer,
                    .sp = (ulong)user_stack_top - sp_offset);
}

static void call_gates(void)
{
    const u8 open = D_PRESENT | D_DPL3 | GATE_CALL;
    struct code enter = CODE("mov eax, cs\n mov edx, ss\n mov " R(si) ", " R(sp) "\n int 0x81\n");
    struct code leave = CODE(WIDE_PREFIX "retf");
    ring1();
    /* from CPL 3 to ring 1 */
    gate(SLOT(2), SLOT(0), enter.start, open, 0);
    struct trap t = call_gate(0, 0);
    CHECK("gate-enters-ring-1", t.vector == VECTOR_DONE && t.regs.ax == (SLOT(0) | 1u));
#if WIDE
    const ulong *frame = (const ulong *)(ring1_stack + sizeof(ring1_stack)) - 4;
    CHECK_EQ("gate-stack", t.regs.si, (ulong)frame);
    CHECK_EQ("gate-null-ss", t.regs.dx, 1); /* SDM 3A 5.8.5.1: null with RPL = new CPL */
    CHECK("gate-frame",
          frame[1] == SEL_USER_CODE && frame[2] == (ulong)user_stack_top && frame[3] == SEL_USER_DATA);
#else
    const u32 *frame = (const u32 *)(ring1_stack + sizeof(ring1_stack)) - 4;
    CHECK_EQ("gate-stack", t.regs.si, (ulong)frame);
    CHECK_EQ("gate-ss", t.regs.dx, SLOT(1) | 1u);
    CHECK("gate-frame", (frame[1] & 0xffff) == SEL_USER_CODE && frame[2] == (ulong)user_stack_top &&
                            (frame[3] & 0xffff) == SEL_USER_DATA);
    /* parameters are copied (SDM 3A 5.8.5) */
    static const u32 params[3] = { 0x111, 0x222, 0x333 };
    copy((void *)((ulong)user_stack_top - 12), params, 12);
    gate(SLOT(2), SLOT(0), enter.start, open, 3);
    t = call_gate(0, 12);
    frame -= 3;
    CHECK_EQ("gate-params-stack", t.regs.si, (ulong)frame);
    CHECK("gate-params", frame[2] == 0x111 && frame[3] == 0x222 && frame[4] == 0x333 &&
                             frame[5] == (ulong)user_stack_top - 12);
    struct code leave_params = CODE("retf 12");
    gate(SLOT(2), SLOT(0), leave_params.start, open, 3);
    t = DONE("gate-params-return", call_gate(0, 12));
    CHECK_EQ("gate-params-return-sp", t.regs.sp, (ulong)user_stack_top);
    /* a 16-bit call gate pushes words */
    struct code enter16 = CODE("mov esi, esp\n int 0x81");
    gate(SLOT(2), SLOT(0), enter16.start & 0xffff, D_PRESENT | D_DPL3 | GATE_CALL16, 0);
    set(3, enter16.start & 0xffff0000, 0xfffff, D_XCODE | D_DPL1, D_GRANULAR | D_BIG);
    gate(SLOT(2), SLOT(3), enter16.start & 0xffff, D_PRESENT | D_DPL3 | GATE_CALL16, 0);
    t = call_gate(0, 0);
    CHECK_EQ("gate16-stack", t.regs.si, (ulong)(ring1_stack + sizeof(ring1_stack)) - 8);
#endif
    gate(SLOT(2), SLOT(0), leave.start, open, 0);
    t = DONE("gate-returns", call_gate(0, 0));
    CHECK("gate-returns-to-user",
          t.regs.cs == SEL_USER_CODE && t.regs.sp == (ulong)user_stack_top && t.regs.ss == SEL_USER_DATA);
    /* to ring 0 */
    gate(SLOT(2), SEL_CODE, enter.start, open, 0);
    t = call_gate(3, 0);
    CHECK("gate-enters-ring-0", t.vector == VECTOR_DONE && t.regs.ax == SEL_CODE);
    /* at the same privilege no stack switch */
    far_pointer.selector = SLOT(2);
    t = TRY("mov " R(cx) ", " R(sp) "\n call fword ptr [" R(bx) "]", .bx = (ulong)&far_pointer);
    CHECK_EQ("gate-same-privilege", t.regs.cx - t.regs.si, 2 * sizeof(ulong));
    /* a conforming target keeps the CPL */
    set(3, 0, 0xfffff, 0x9e, WIDE ? D_GRANULAR | D_LONG : D_GRANULAR | D_BIG);
    gate(SLOT(2), SLOT(3), enter.start, open, 0);
    t = call_gate(0, 0);
    CHECK("gate-conforming", t.vector == VECTOR_DONE && t.regs.ax == (SLOT(3) | 3u));
    /* refusals, with their selectors (SDM 2A CALL) */
    gate(SLOT(2), SEL_CODE, enter.start, D_PRESENT | GATE_CALL, 0);
    FAULT("gate-dpl", call_gate(0, 0), GP, SLOT(2));
    gate(SLOT(2), SEL_CODE, enter.start, D_PRESENT | D_DPL2 | GATE_CALL, 0);
    FAULT("gate-rpl", TRY("call fword ptr [" R(bx) "]", .bx = ({
                                                            far_pointer.selector |= 3;
                                                            (ulong) & far_pointer;
                                                        })),
          GP, SLOT(2));
    gate(SLOT(2), SEL_CODE, enter.start, D_DPL3 | GATE_CALL, 0);
    FAULT("gate-np", call_gate(0, 0), NP, SLOT(2));
    gate(SLOT(2), 0, enter.start, open, 0);
    FAULT("gate-null-target", call_gate(0, 0), GP, 0);
    gate(SLOT(2), SEL_DATA, enter.start, open, 0);
    FAULT("gate-data-target", call_gate(0, 0), GP, SEL_DATA);
    gate(SLOT(2), GDT_ENTRIES * 8, enter.start, open, 0);
    FAULT("gate-target-beyond", call_gate(0, 0), GP, GDT_ENTRIES * 8);
    set_gdt(SLOT(3), gdt[SEL_CODE / 8] & ~(1ull << 47));
    gate(SLOT(2), SLOT(3), enter.start, open, 0);
    FAULT("gate-target-np", call_gate(0, 0), NP, SLOT(3));
    gate(SLOT(2), SEL_USER_CODE & ~3, enter.start, open, 0);
    far_pointer.selector = SLOT(2);
    FAULT("gate-target-outer", TRY("call fword ptr [" R(bx) "]", .bx = (ulong)&far_pointer), GP,
          SEL_USER_CODE & ~3);
    gate(SLOT(2), SEL_CODE, enter.start, open, 0);
    FAULT("gate-jump-inwards", TRY_USER("jmp fword ptr [" R(bx) "]", .bx = (ulong)&far_pointer), GP,
          SEL_CODE);
    t = TRY("jmp fword ptr [" R(bx) "]", .bx = (ulong)&far_pointer);
    CHECK("gate-jump-same", t.vector == VECTOR_DONE && t.regs.ax == SEL_CODE);
#if WIDE
    gate(SLOT(2), SLOT(0), enter.start, open, 0);
    gdt[SLOT(2) / 8 + 1] |= 1ull << 40; /* SDM 3A 5.8.3.1: the type field of the second half must be 0 */
    FAULT("gate-second-half", call_gate(0, 0), GP, SLOT(2));
    gate(SLOT(2), SEL_CODE32, enter.start, open, 0);
    FAULT("gate-target-not-64-bit", call_gate(0, 0), GP, SEL_CODE32);
    gate(SLOT(2), SLOT(0), 1ul << 47, open, 0);
    FAULT("gate-non-canonical", call_gate(0, 0), GP, 0);
    gate(SLOT(2), SLOT(0), enter.start, D_PRESENT | D_DPL3 | GATE_CALL16, 0);
    FAULT("gate-16-in-long-mode", call_gate(0, 0), GP, SLOT(2));
    far_pointer.selector = SEL_TSS;
    FAULT("jump-to-tss-in-long-mode", TRY("jmp fword ptr [rbx]", .bx = (ulong)&far_pointer), GP, SEL_TSS);
    u32 keep = this_cpu()->tss.rsp[3];
    this_cpu()->tss.rsp[3] = 0x8000; /* RSP1 not canonical: #SS with the new SS, which is null */
    gate(SLOT(2), SLOT(0), enter.start, open, 0);
    t = call_gate(0, 0);
    CHECK("gate-stack-non-canonical", t.vector == SS);
    this_cpu()->tss.rsp[3] = keep;
#else
    gate(SLOT(2), SLOT(0), enter.start, open, 0);
    far_pointer.offset = 0;
    set(3, 0, 0xff, D_XCODE | D_DPL1, D_BIG);
    gate(SLOT(2), SLOT(3), enter.start, open, 0);
    FAULT("gate-target-limit", call_gate(0, 0), GP, 0);
    /* the stack of ring 1 (SDM 2A CALL, more-privilege): #TS with its selector, #SS if not present or too
     * small */
    gate(SLOT(2), SLOT(0), enter.start, open, 0);
    struct tss32 *tss = &this_cpu()->tss;
    tss->ss1 = 0;
    FAULT("gate-ss-null", call_gate(0, 0), TS, 0);
    tss->ss1 = SLOT(1);
    FAULT("gate-ss-rpl", call_gate(0, 0), TS, SLOT(1));
    tss->ss1 = SEL_USER_DATA;
    FAULT("gate-ss-dpl", call_gate(0, 0), TS, SEL_USER_DATA & ~3);
    set(3, 0, 0xfffff, 0x90 | D_DPL1, D_GRANULAR | D_BIG);
    tss->ss1 = SLOT(3) | 1;
    FAULT("gate-ss-read-only", call_gate(0, 0), TS, SLOT(3));
    tss->ss1 = (GDT_ENTRIES * 8) | 1;
    FAULT("gate-ss-beyond", call_gate(0, 0), TS, GDT_ENTRIES * 8);
    set_gdt(SLOT(3), gdt[SLOT(1) / 8] & ~(1ull << 47));
    tss->ss1 = SLOT(3) | 1;
    FAULT("gate-ss-np", call_gate(0, 0), SS, SLOT(3));
    set(3, (ulong)memory, 0xff, D_DATA | D_DPL1, D_BIG);
    tss->ss1 = SLOT(3) | 1, tss->esp1 = 8;
    t = call_gate(0, 0);
    CHECK("gate-stack-too-small", t.vector == SS && t.off == 0);
    CHECK("gate-fault-keeps-user", t.regs.cs == SEL_USER_CODE && t.regs.sp == (ulong)user_stack_top);
#endif
}

static void interrupt_rings(void)
{
    ring1();
    struct code handler = CODE("mov eax, cs\n mov " R(si) ", " R(sp) "\n int 0x81");
    set_gate_full(0x31, SLOT(0), handler.start, D_PRESENT | D_DPL3 | GATE_INT, 0);
    struct trap t = TRY_USER("int 0x31");
    CHECK("int-to-ring-1", t.vector == VECTOR_DONE && t.regs.ax == (SLOT(0) | 1u));
    CHECK_EQ("int-ring-1-frame", t.regs.si, (ulong)(ring1_stack + sizeof(ring1_stack)) - 5 * sizeof(ulong));
    FAULT("int-to-outer", TRY("int 0x31"), GP, SLOT(0));
    reset_gate(0x31);
    /* far return outwards nulls data segments of the inner rings (SDM 2B RET) */
#if !WIDE
    t = TRY("mov eax, 0x10\n mov ds, eax\n mov es, eax\n mov fs, eax\n mov eax, 0x2b\n mov gs, eax\n"
            "push 0x2b\n push edx\n push 0x23\n mov eax, offset 1f\n push eax\n retf\n 1: mov eax, ds\n mov "
            "ecx, es\n mov edx, fs\n mov ebx, gs",
            .dx = (ulong)user_stack_top);
    check_done("retf-outwards", &t);
    CHECK("retf-nulls-segments",
          t.regs.ax == 0 && t.regs.cx == 0 && t.regs.dx == 0 && t.regs.bx == SEL_USER_DATA);
    CHECK("retf-user", t.regs.cs == SEL_USER_CODE && t.regs.ss == SEL_USER_DATA);
    FAULT("retf-inwards", TRY_USER("push 8\n push 0\n 8: retf"), GP, SEL_CODE);
    FAULT("retf-outwards-ss-null", TRY("push 0\n push 0\n push 0x23\n push 0\n 8: retf"), GP, 0);
    FAULT("retf-outwards-ss-rpl", TRY("push 0x10\n push 0\n push 0x23\n push 0\n 8: retf"), GP, SEL_DATA);
#else
    t = TRY("push 0x2b\n push rdx\n push 0x33\n lea rax, [rip+1f]\n push rax\n rex.w retf\n 1: mov eax, cs",
            .dx = (ulong)user_stack_top);
    check_done("retf-outwards", &t);
    CHECK_EQ("retf-user", t.regs.ax, SEL_USER_CODE64);
#endif
}

/* ---- IRET (SDM 2A IRET) ---- */

#define IRET_FRAME "push " R(dx) "\n push " R(si) "\n push " R(cx) "\n push " R(bx) "\n push " R(ax) "\n"
#if WIDE
#define IRET_TEXT IRET_FRAME "8: iretq"
#else
#define IRET_TEXT IRET_FRAME "8: iretd"
#endif

static struct trap iret(u16 cs, ulong ip, u16 ss, ulong sp, ulong flags)
{
    return TRY(IRET_TEXT, .dx = ss, .si = sp, .cx = flags, .bx = cs, .ax = ip);
}

static void interrupt_returns(void)
{
    struct code user = CODE("mov eax, ss");
    ulong top = (ulong)user_stack_top;
    struct trap t = iret(SEL_USER_CODE, user.start, SEL_USER_DATA, top, 2);
    CHECK("iret-to-user", t.vector == VECTOR_DONE && t.regs.cs == SEL_USER_CODE && t.regs.sp == top &&
                              t.regs.ax == SEL_USER_DATA);
    FAULT("iret-cs-null", iret(0, user.start, SEL_USER_DATA, top, 2), GP, 0);
    FAULT("iret-cs-data", iret(SEL_USER_DATA, user.start, SEL_USER_DATA, top, 2), GP, SEL_USER_DATA & ~3);
    FAULT("iret-cs-rpl-not-dpl", iret(SEL_CODE | 3, user.start, SEL_USER_DATA, top, 2), GP, SEL_CODE);
    FAULT("iret-cs-beyond", iret(GDT_ENTRIES * 8 | 3, user.start, SEL_USER_DATA, top, 2), GP,
          GDT_ENTRIES * 8);
    set_gdt(SLOT(3), gdt[SEL_USER_CODE / 8] & ~(1ull << 47));
    FAULT("iret-cs-np", iret(SLOT(3) | 3, user.start, SEL_USER_DATA, top, 2), NP, SLOT(3));
    FAULT("iret-ss-null", iret(SEL_USER_CODE, user.start, 0, top, 2), GP, 0);
    FAULT("iret-ss-rpl", iret(SEL_USER_CODE, user.start, SEL_USER_DATA & ~3, top, 2), GP, SEL_USER_DATA & ~3);
    FAULT("iret-ss-dpl", iret(SEL_USER_CODE, user.start, SEL_DATA | 3, top, 2), GP, SEL_DATA);
    set_gdt(SLOT(3), gdt[SEL_USER_DATA / 8] & ~(1ull << 47));
    FAULT("iret-ss-np", iret(SEL_USER_CODE, user.start, SLOT(3) | 3, top, 2), SS, SLOT(3));
    t = FAULT("iret-user-inwards", TRY_USER("push 0x10\n push 0\n push 2\n push 8\n push 0\n 8: iretd"), GP,
              WIDE ? 0 : SEL_CODE);
    /* flags: CPL 0 sets everything but VM (32-bit: enters virtual-8086 mode) and the reserved bits */
    t = TRY_USER("nop", .flags = FLAG_IOPL | FLAG_AC | FLAG_ID | FLAG_NT | FLAG_CF | FLAG_OF | FLAG_DF);
    CHECK_EQ("iret-loads-flags", t.regs.flags,
             FLAG_IOPL | FLAG_AC | FLAG_ID | FLAG_NT | FLAG_CF | FLAG_OF | FLAG_DF | 2);
    t = TRY("nop", .flags = FLAG_RF | FLAG_CF);
    CHECK_EQ("iret-rf-cleared-by-next", t.regs.flags & (FLAG_RF | FLAG_CF), FLAG_CF);
    t = TRY("nop", .flags = 0xffc0802a);
    CHECK_EQ("iret-reserved-flags", t.regs.flags, 2);
#if WIDE
    FAULT("iret-nt", TRY("push 0\n push 0\n push 2\n push 8\n push 0\n 8: iretq", .flags = FLAG_NT), GP, 0);
    FAULT("iret-non-canonical", iret(SEL_USER_CODE, 1ul << 47, SEL_USER_DATA, top, 2), GP, 0);
    t = iret(SEL_CODE, user.start, 0, (ulong)snippet_stack_top,
             2); /* null SS is good in 64-bit mode below CPL 3 */
    CHECK("iret-null-ss-kernel", t.vector == VECTOR_DONE && t.regs.ax == 0);
    set(3, 0, 0xfffff, D_XCODE | D_DPL3, D_GRANULAR | D_LONG | D_BIG);
    FAULT("iret-l-and-d", iret(SLOT(3) | 3, user.start, SEL_USER_DATA, top, 2), GP, SLOT(3));
    t = iret(SEL_USER_CODE, user.start, SEL_USER_DATA, 0x123456789abcdef0, 2);
    CHECK_EQ("iret-any-rsp", t.regs.sp, 0x123456789abcdef0);
#else
    set(3, 0, 0xff, D_XCODE | D_DPL3, D_BIG);
    FAULT("iret-limit", iret(SLOT(3) | 3, user.start, SEL_USER_DATA, top, 2), GP, 0);
#endif
}

#if WIDE

/* ---- SYSCALL and SYSRET (SDM 2B) ---- */

/* To and fro many times, with what it depends on changed in between. Each system call adds up CS, SS and flags on both sides, and
 * what SYSCALL has saved. */
static void system_call_loops(void)
{
    enum { ROUNDS = 40 };
    struct code entry = CODE(
        "mov rdi, rsp\n lea rsp, [rsp - 128]\n pushfq\n pop rbx\n mov rsp, rdi\n and ebx, 0x401\n"
        "add rbp, rbx\n mov r8d, cs\n add rax, r8\n mov r8d, ss\n add rdx, r8\n mov r8d, r11d\n"
        "and r8d, 0x401\n add r9, r8\n add r10, rcx\n sysretq");
    struct code other = CODE("mov r8d, cs\n add rax, r8\n mov r8d, ss\n add rdx, r8\n add r9, 0x401\n"
                             "add r10, rcx\n xor r11d, 1\n sysretq");
    struct code user = CODE("1: stc\n syscall\n adc rdi, 0\n mov r8d, cs\n add rax, r8\n mov r8d, ss\n"
                            "add rdx, r8\n sub esi, 1\n jnz 1b");
    bool ends = true, segments = true, saved = true, masked = true, back = true;
    for (int i = 0; i < 6; i++) {
        bool first = i < 4;
        /* the same segments by another selector; CF masked or not */
        ulong kernel = SEL_CODE | (i & 1 ? 3 : 0), mask = FLAG_DF | (i & 2 ? FLAG_CF : 0);
        wrmsr(MSR_STAR, kernel << 32 | (u64)SEL_USER_CODE32 << 48);
        wrmsr(MSR_LSTAR, first ? entry.start : other.start);
        wrmsr(MSR_SFMASK, mask);
        struct trap t = TRY_CODE(user, .cs = SEL_USER_CODE, .si = ROUNDS, .flags = FLAG_DF);
        ends &= t.vector == VECTOR_DONE && t.regs.cs == SEL_USER_CODE64 && t.regs.flags & FLAG_DF;
        segments &= t.regs.ax == ROUNDS * (SEL_CODE + SEL_USER_CODE64) &&
                    t.regs.dx == ROUNDS * (SEL_CODE + 8 + SEL_USER_DATA);
        saved &= t.regs.r9 == ROUNDS * (FLAG_DF | FLAG_CF) && t.regs.r10 > ROUNDS * user.start &&
                 t.regs.r10 < ROUNDS * user.end;
        masked &= !first || t.regs.bp == (i & 2 ? 0 : ROUNDS * FLAG_CF);
        back &= first || t.regs.r11 == (FLAG_DF | 2 | (t.regs.r11 & ~(ulong)(FLAG_DF | 2 | FLAG_CF)));
    }
    CHECK("syscall-loops-end", ends);
    CHECK("syscall-loops-segments", segments);
    CHECK("syscall-loops-save", saved);
    CHECK("syscall-loops-mask", masked);
    CHECK("sysret-loops-flags", back);
}

static void system_calls(void)
{
    struct code entry = CODE("mov eax, cs\n mov edx, ss\n mov rsi, rsp\n pushfq\n pop rdi");
    FAULT("syscall-without-sce", TRY_USER("syscall"), UD, 0);
    FAULT("sysret-without-sce", TRY("sysretq"), UD, 0);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (u64)SEL_CODE << 32 | (u64)SEL_USER_CODE32 << 48);
    wrmsr(MSR_LSTAR, entry.start);
    wrmsr(MSR_SFMASK, FLAG_DF | FLAG_AC | FLAG_CF);
    /* the kernel part ends by INT 81h on the user's stack, which is identity mapped */
    struct code from = CODE("syscall\n");
    struct trap t = TRY_CODE(from, .cs = SEL_USER_CODE,
                             .flags = FLAG_DF | FLAG_AC | FLAG_CF | FLAG_ZF | FLAG_ID);
    CHECK("syscall-enters", t.vector == VECTOR_DONE && t.regs.cs == SEL_CODE);
    CHECK_EQ("syscall-cs", t.regs.ax, SEL_CODE);
    CHECK_EQ("syscall-ss", t.regs.dx, SEL_CODE + 8);
    CHECK_EQ("syscall-rcx", t.regs.cx, from.end);
    CHECK_EQ("syscall-r11", t.regs.r11, FLAG_DF | FLAG_AC | FLAG_CF | FLAG_ZF | FLAG_ID | 2);
    CHECK_EQ("syscall-keeps-rsp", t.regs.si, (ulong)user_stack_top);
    CHECK_EQ("syscall-mask", t.regs.di & (FLAG_DF | FLAG_AC | FLAG_CF | FLAG_ZF | FLAG_ID),
             FLAG_ZF | FLAG_ID);
    t = TRY("syscall");
    CHECK("syscall-from-kernel", t.vector == VECTOR_DONE && t.regs.ax == SEL_CODE);
    /* back */
    struct code user = CODE("mov eax, cs\n mov edx, ss");
    t = TRY("mov rsp, rbx\n sysretq", .cx = user.start, .r11 = FLAG_CF | FLAG_IOPL | FLAG_ID,
            .bx = (ulong)user_stack_top);
    check_done("sysretq", &(struct trap){ .vector = t.vector, .after = (long)(t.regs.ip - user.end) });
    CHECK_EQ("sysretq-cs", t.regs.ax, SEL_USER_CODE64);
    CHECK_EQ("sysretq-ss", t.regs.dx, SEL_USER_DATA);
    CHECK_EQ("sysretq-flags", t.regs.flags, FLAG_CF | FLAG_IOPL | FLAG_ID | 2);
    t = TRY("mov rsp, rbx\n sysretq", .cx = user.start, .r11 = 0xffffffff & ~FLAG_TF & ~FLAG_IF,
            .bx = (ulong)user_stack_top);
    CHECK_EQ("sysretq-flag-mask", t.regs.flags, 0x3c7fd7 & ~FLAG_TF & ~FLAG_IF);
    struct code user32 = CODE32("mov eax, cs\n mov edx, ss");
    t = TRY("mov rsp, rbx\n sysretd", .cx = user32.start | 0xabcd00000000, .r11 = 2,
            .bx = (ulong)user_stack_top);
    CHECK("sysretd-to-compat",
          t.vector == VECTOR_DONE && t.regs.ip == user32.end + 2 && t.regs.ax == SEL_USER_CODE32);
    FAULT("sysret-user", TRY_USER("sysretq"), GP, 0);
    /* a non-canonical RCX */
    t = TRY("mov rsp, rbx\n 8: sysretq", .cx = 1ul << 47, .r11 = 2, .bx = (ulong)user_stack_top);
    if (is_amd()) /* APM 3 SYSRET: RIP is loaded, the fetch faults at CPL 3 */
        CHECK("sysret-non-canonical", t.vector == GP && t.error == 0);
    else /* SDM 2B SYSRET: #GP(0) at CPL 0 */
        check_fault("sysret-non-canonical", &t, GP, 0);
    system_call_loops();
    wrmsr(MSR_STAR, (u64)SEL_CODE << 32 | (u64)SEL_USER_CODE32 << 48);
    wrmsr(MSR_LSTAR, entry.start);
    /* from compatibility mode: CSTAR on AMD, #UD on Intel */
    wrmsr(MSR_CSTAR, entry.start);
    t = TRY_CODE(CODE32("syscall"), .cs = SEL_USER_CODE32);
    if (is_amd())
        CHECK("syscall-compat", t.vector == VECTOR_DONE && t.regs.ax == SEL_CODE);
    else
        check_fault("syscall-compat", &t, UD, 0);
}

static void sysenter(void)
{
    struct code entry = CODE("mov eax, cs\n mov edx, ss\n mov rsi, rsp");
    wrmsr(MSR_SYSENTER_CS, SEL_CODE);
    wrmsr(MSR_SYSENTER_EIP, entry.start);
    wrmsr(MSR_SYSENTER_ESP, (ulong)snippet_stack_top - 256);
    struct trap t = TRY_USER("sysenter");
    if (is_amd()) { /* APM 3: #UD in long mode */
        check_fault("sysenter-long-mode", &t, UD, 0);
        return;
    }
    CHECK("sysenter-long-mode",
          t.vector == VECTOR_DONE && t.regs.ax == SEL_CODE && t.regs.dx == SEL_CODE + 8);
    CHECK_EQ("sysenter-rsp", t.regs.si, (ulong)snippet_stack_top - 256);
    wrmsr(MSR_SYSENTER_CS, 0);
    FAULT("sysenter-null", TRY_USER("sysenter"), GP, 0);
}

/* ---- IST ---- */

static u8 ALIGNED(16) ist_stack[4096];
static ulong seen_frame, seen_ss;
static void note(struct frame *f)
{
    seen_frame = (ulong)(f + 1);
    asm volatile("mov %%ss, %0" : "=r"(seen_ss));
}

static void interrupt_stacks(void)
{
    set_handler(0x31, note);
    set_ist(3, (ulong)ist_stack + sizeof(ist_stack));
    set_gate_full(0x31, SEL_CODE, (ulong)trap_stubs[0x31], D_PRESENT | D_DPL3 | GATE_INT, 3);
    DONE("ist-kernel", TRY("int 0x31"));
    CHECK_EQ("ist-kernel-stack", seen_frame, (ulong)ist_stack + sizeof(ist_stack));
    CHECK_EQ("ist-kernel-ss-kept", seen_ss, SEL_DATA);
    seen_frame = 0;
    DONE("ist-user", TRY_USER("int 0x31"));
    CHECK_EQ("ist-user-stack", seen_frame, (ulong)ist_stack + sizeof(ist_stack));
    CHECK_EQ("ist-user-ss-null", seen_ss, 0); /* SDM 3A 6.14.4 */
    set_ist(3, (ulong)ist_stack + sizeof(ist_stack) - 5);
    TRY("int 0x31");
    CHECK_EQ("ist-aligned", seen_frame, (ulong)ist_stack + sizeof(ist_stack) - 16);
    /* a bad kernel stack is no harm with IST */
    set_ist(3, (ulong)ist_stack + sizeof(ist_stack));
    struct trap t = DONE("ist-bad-rsp",
                         TRY("mov rbp, rsp\n mov rsp, rbx\n int 0x31\n mov rsp, rbp", .bx = 1ul << 47));
    set_gate_full(GP, SEL_CODE, (ulong)trap_stubs[GP], D_PRESENT | GATE_INT, 3);
    t = TRY("mov rsp, rbx\n 8: mov es, eax", .bx = 1ul << 47, .ax = GDT_ENTRIES * 8);
    check_fault("ist-fault-with-bad-rsp", &t, GP, GDT_ENTRIES * 8);
    CHECK_EQ("ist-saves-bad-rsp", t.regs.sp, 1ul << 47);
    reset_gate(GP);
    /* without: #SS while pushing, then double fault on its own IST */
    set_gate_full(DF, SEL_CODE, (ulong)trap_stubs[DF], D_PRESENT | GATE_INT, 3);
    t = TRY("mov rsp, rbx\n 8: mov es, eax", .bx = 1ul << 47, .ax = GDT_ENTRIES * 8);
    CHECK("ist-double-fault", t.vector == DF && t.error == 0);
    reset_gate(DF);
    reset_gate(0x31);
    set_handler(0x31, NULL);
    /* a task gate in the IDT means nothing in long mode */
    set_gate_full(0x31, SEL_TSS, 0, D_PRESENT | GATE_TASK, 0);
    FAULT("task-gate-in-long-mode", TRY("int 0x31"), GP, 0x31 * 8 + 2);
    set_gate_full(0x31, SEL_CODE, (ulong)trap_stubs[0x31], D_PRESENT | GATE_INT16, 0);
    FAULT("gate16-in-long-mode", TRY("int 0x31"), GP, 0x31 * 8 + 2);
    set_gate_full(0x31, SEL_CODE32, (ulong)trap_stubs[0x31], D_PRESENT | GATE_INT, 0);
    FAULT("gate-to-compat-code", TRY("int 0x31"), GP, SEL_CODE32);
    set_gate_full(0x31, SEL_CODE, 1ul << 47, D_PRESENT | GATE_INT, 0);
    FAULT("gate-non-canonical-handler", TRY("int 0x31"), GP, 0);
    reset_gate(0x31);
}

/* ---- compatibility mode ---- */

static void compatibility(void)
{
    struct trap t = TRY_CODE(CODE32("mov eax, cs\n inc eax\n dec eax\n push eax\n pop ecx"),
                             .cs = SEL_USER_CODE32, .ax = ~0ul);
    check_done("compat-runs", &t);
    CHECK_EQ("compat-cs", t.regs.ax, SEL_USER_CODE32);
    CHECK_EQ("compat-push-4-bytes", t.regs.sp, (ulong)user_stack_top);
    t = TRY_CODE(CODE32("push eax\n mov ecx, esp"), .cs = SEL_USER_CODE32);
    CHECK_EQ("compat-push-size", t.regs.cx, (ulong)user_stack_top - 4);
    FAULT("compat-ud", TRY_CODE(CODE32("ud2"), .cs = SEL_USER_CODE32), UD, 0);
    FAULT("compat-gp-privileged", TRY_CODE(CODE32("hlt"), .cs = SEL_USER_CODE32), GP, 0);
    DONE("compat-old-opcodes",
         TRY_CODE(CODE32("daa\n push es\n pop es\n pushad\n popad"), .cs = SEL_USER_CODE32));
    /* segment bases and limits hold again */
    set(3, (u32)(ulong)memory, 0xff, D_DATA | D_DPL3, D_BIG);
    memory[0x10] = 0x5a;
    t = TRY_CODE(CODE32("mov es, eax\n mov cl, es:[ebx]"), .cs = SEL_USER_CODE32, .ax = SLOT(3) | 3,
                 .bx = 0x10);
    CHECK_EQ("compat-segment-base", t.regs.cx & 0xff, 0x5a);
    FAULT("compat-segment-limit",
          TRY_CODE(CODE32("mov es, eax\n 8: mov cl, es:[ebx]"), .cs = SEL_USER_CODE32, .ax = SLOT(3) | 3,
                   .bx = 0x100),
          GP, 0);
    FAULT("compat-null-segment",
          TRY_CODE(CODE32("mov es, eax\n 8: mov cl, es:[ebx]"), .cs = SEL_USER_CODE32, .bx = (ulong)memory),
          GP, 0);
    /* in 64-bit mode ES's base and limit mean nothing */
    t = TRY_USER("mov es, eax\n mov cl, es:[rbx]", .ax = SLOT(3) | 3, .bx = (ulong)memory + 0x10);
    CHECK("long-es-is-flat", t.vector == VECTOR_DONE && (t.regs.cx & 0xff) == 0x5a);
    DONE("long-null-ds", TRY_USER("mov ds, eax\n mov cl, [rbx]", .ax = 0, .bx = (ulong)memory));
    /* addresses wrap at 4 GiB */
    t = TRY_CODE(CODE32("mov cl, [ebx+ecx]"), .cs = SEL_USER_CODE32, .ds = SEL_USER_DATA,
                 .bx = (ulong)memory + 0x20, .cx = 0xfffffff0);
    CHECK_EQ("compat-address-wraps", t.regs.cx & 0xff, 0x5a);
    /* there and back by far jumps */
    t = TRY("push 0x18\n lea rax, [rip+1f]\n push rax\n rex.w retf\n .code32\n 1: mov ecx, cs\n inc eax\n "
            "push 8\n call 2f\n 2: add dword ptr [esp], 5\n retf\n .code64\n mov edx, cs");
    CHECK("far-64-to-32-to-64", t.vector == VECTOR_DONE && t.regs.cx == SEL_CODE32 && t.regs.dx == SEL_CODE);
    /* the interrupt frame from compatibility mode is a 64-bit one */
    t = TRY_CODE(CODE32("nop"), .cs = SEL_USER_CODE32);
    CHECK("compat-interrupt-frame",
          t.vector == VECTOR_DONE && t.regs.cs == SEL_USER_CODE32 && t.regs.ss == SEL_USER_DATA);
    /* 16-bit code under long mode */
    struct code c = CODE16("mov ax, 0x1234\n push ax\n pop cx");
    set(3, (u32)c.start, 0xffff, D_XCODE | D_DPL3, 0);
    t = run_code((struct code){ 0, 0, c.end - c.start },
                 (struct regs){ .cs = SLOT(3) | 3, .ax = 0xffff0000 });
    CHECK("compat-16-bit",
          t.vector == VECTOR_DONE && t.regs.ax == 0xffff1234 && (t.regs.cx & 0xffff) == 0x1234);
}

/* ---- FS and GS bases (SDM 3A 3.4.4, 4.10 APM 2) ---- */

static void bases(void)
{
    memory[0x40] = 0x77, memory[0x140] = 0x78;
    wrmsr(MSR_FS_BASE, (ulong)memory);
    wrmsr(MSR_GS_BASE, (ulong)memory + 0x100);
    struct trap t = TRY("mov al, fs:[0x40]\n mov ah, gs:[0x40]");
    CHECK_EQ("fs-gs-base-msr", t.regs.ax & 0xffff, 0x7877);
    wrmsr(MSR_KERNEL_GS_BASE, (ulong)memory);
    t = TRY("swapgs\n mov al, gs:[0x40]\n swapgs\n mov ah, gs:[0x40]");
    CHECK_EQ("swapgs", t.regs.ax & 0xffff, 0x7877);
    TRY("swapgs");
    CHECK("swapgs-msrs",
          rdmsr(MSR_GS_BASE) == (ulong)memory && rdmsr(MSR_KERNEL_GS_BASE) == (ulong)memory + 0x100);
    set(3, 0x12345678, 0xfffff, D_DATA | D_DPL3, D_BIG | D_GRANULAR);
    wrmsr(MSR_FS_BASE, 0x123456789abc);
    TRY("mov fs, eax", .ax = SLOT(3));
    CHECK_EQ("mov-fs-loads-base", rdmsr(MSR_FS_BASE), 0x12345678);
    set(3, (u32)(ulong)memory, 0, D_DATA | D_DPL3, D_BIG);
    t = TRY("mov fs, eax\n mov al, fs:[rbx]", .ax = SLOT(3), .bx = 0x40);
    CHECK_EQ("fs-limit-ignored-in-64-bit", t.regs.ax & 0xff, 0x77);
    wrmsr(MSR_GS_BASE, 0xffff800012345678);
    t = TRY("mov eax, gs:[rbx]", .bx = 0x1000);
    CHECK("gs-base-canonical-high", t.vector == PF && t.cr2 == 0xffff800012346678);
    wrmsr(MSR_GS_BASE, 0x7fffffff0000);
    FAULT("gs-base-sum-non-canonical", TRY("mov eax, gs:[rbx]", .bx = 0x20000), GP, 0);
    FAULT("wrmsr-fs-base-non-canonical", TRY("wrmsr", .cx = MSR_FS_BASE, .dx = 0x8000), GP, 0);
    wrmsr(MSR_GS_BASE, 0);
    ulong cr4 = read_cr4();
    FAULT("rdfsbase-without-cr4", TRY("rdfsbase rax"), UD, 0);
    if (!has(F_FSGSBASE)) {
        check_skip("fsgsbase", "no FSGSBASE");
        return;
    }
    write_cr4(cr4 | CR4_FSGSBASE);
    t = DONE("wrfsbase", TRY_USER("wrfsbase rax\n rdfsbase rcx\n mov dl, fs:[0x40]", .ax = (ulong)memory));
    CHECK("fsbase-round-trip",
          t.regs.cx == (ulong)memory && (t.regs.dx & 0xff) == 0x77 && rdmsr(MSR_FS_BASE) == (ulong)memory);
    t = DONE("wrgsbase", TRY_USER("wrgsbase rax\n rdgsbase rcx", .ax = 0xffff812345678000));
    CHECK_EQ("gsbase-round-trip", t.regs.cx, 0xffff812345678000);
    t = TRY_USER("wrfsbase eax\n rdfsbase rcx", .ax = 0xabcd12345678);
    CHECK_EQ("wrfsbase-32-zero-extends", t.regs.cx, 0x12345678);
    t = TRY_USER("rdgsbase eax", .ax = ~0ul);
    CHECK_EQ("rdgsbase-32", t.regs.ax, 0x45678000);
    FAULT("wrfsbase-non-canonical", TRY_USER("wrfsbase rax", .ax = 1ul << 47), GP, 0);
    FAULT("rdfsbase-in-compat", TRY_CODE(CODE32(".byte 0xf3, 0x0f, 0xae, 0xc0"), .cs = SEL_USER_CODE32), UD,
          0);
    write_cr4(cr4);
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, 0);
}

#else

static void sysenter(void)
{
    if (!has(F_SEP)) {
        check_skip("sysenter", "no SEP");
        return;
    }
    /* SDM 2B SYSENTER, 2B SYSEXIT: CS, then SS = CS + 8, user CS + 16, user SS + 24 */
    set_gdt(SEL_FREE, gdt[SEL_CODE / 8]);
    set_gdt(SEL_FREE + 8, gdt[SEL_DATA / 8]);
    set_gdt(SEL_FREE + 16, gdt[SEL_USER_CODE / 8]);
    set_gdt(SEL_FREE + 24, gdt[SEL_USER_DATA / 8]);
    struct code entry = CODE("mov eax, cs\n mov ebx, ss\n mov esi, esp\n pushfd\n pop edi");
    wrmsr(MSR_SYSENTER_CS, SEL_FREE);
    wrmsr(MSR_SYSENTER_EIP, entry.start);
    wrmsr(MSR_SYSENTER_ESP, (ulong)snippet_stack_top - 256);
    struct trap t = TRY_USER("sysenter", .flags = FLAG_CF | FLAG_IOPL | FLAG_IF);
    CHECK("sysenter", t.vector == VECTOR_DONE && t.regs.ax == SEL_FREE && t.regs.bx == SEL_FREE + 8);
    CHECK_EQ("sysenter-esp", t.regs.si, (ulong)snippet_stack_top - 256);
    CHECK_EQ("sysenter-clears-if", t.regs.di & (FLAG_IF | FLAG_CF), FLAG_CF);
    struct code user = CODE("mov eax, cs\n mov ebx, ss\n mov esi, esp");
    t = TRY("sysexit", .dx = user.start, .cx = (ulong)user_stack_top - 32);
    CHECK("sysexit", t.vector == VECTOR_DONE && t.regs.ax == ((SEL_FREE + 16) | 3) &&
                         t.regs.bx == ((SEL_FREE + 24) | 3));
    CHECK_EQ("sysexit-esp", t.regs.si, (ulong)user_stack_top - 32);
    FAULT("sysexit-user", TRY_USER("sysexit"), GP, 0);
    wrmsr(MSR_SYSENTER_CS, 0);
    FAULT("sysenter-null", TRY_USER("sysenter"), GP, 0);
    FAULT("sysexit-null", TRY("sysexit"), GP, 0);
}

static void system_calls(void)
{
    FAULT("syscall-without-sce", TRY_USER("syscall"), UD, 0);
    if (!is_amd() || !has(F_SYSCALL)) {
        check_skip("syscall-legacy", "not AMD");
        return;
    }
    /* APM 3 SYSCALL, legacy mode: EIP from STAR[31:0], IF cleared, return EIP in ECX */
    struct code entry = CODE("mov eax, cs\n mov ebx, ss\n mov esi, esp");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, entry.start | (u64)SEL_CODE << 32 | (u64)SEL_USER_CODE32 << 48);
    struct code from = CODE("syscall");
    struct trap t = TRY_CODE(from, .cs = SEL_USER_CODE);
    CHECK("syscall-legacy", t.vector == VECTOR_DONE && t.regs.ax == SEL_CODE && t.regs.bx == SEL_CODE + 8 &&
                                t.regs.cx == from.end);
    struct code user = CODE("mov eax, cs\n mov ebx, ss");
    t = TRY("mov esp, edx\n sysretd", .cx = user.start, .dx = (ulong)user_stack_top);
    CHECK("sysret-legacy",
          t.vector == VECTOR_DONE && t.regs.ax == SEL_USER_CODE32 && t.regs.bx == SEL_USER_DATA);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_SCE);
}

#endif

void guest_main(void)
{
    user_instructions();
    umip();
    io_permission();
    call_gates();
    interrupt_rings();
    interrupt_returns();
    sysenter();
    system_calls();
#if WIDE
    interrupt_stacks();
    compatibility();
    bases();
#endif
}
