/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual-8086 mode: entry and exit, what IOPL forbids, I/O, faults to the monitor, CR4.VME (SDM 3B 20). */
#include "guest.h"

#define CODE_SEG 0x1000u
#define STACK_SEG 0x2000u
#define DATA_SEG 0x3000u
#define LINEAR(seg, off) (*(volatile u8 *)(ulong)((seg)*16 + (off)))
#define WORD(seg, off) (*(volatile u16 *)(ulong)((seg)*16 + (off)))

/* Copies a 16-bit snippet to CODE_SEG:0 and runs it in virtual-8086 mode; positions are offsets there. */
static struct trap run(struct code c, struct regs in)
{
    copy((void *)(CODE_SEG * 16), (const void *)c.start, c.end + 2 - c.start);
    struct code at_zero = { 0, c.mark - c.start, c.end - c.start };
    in.cs = CODE_SEG;
    in.ss = in.ss ? in.ss : STACK_SEG;
    in.ds = in.ds ? in.ds : DATA_SEG;
    in.es = in.es ? in.es : DATA_SEG;
    in.sp = in.sp ? in.sp : 0x1000;
    in.flags |= FLAG_VM;
    return run_code(at_zero, in);
}

#define VM(text, ...) run(CODE16(text), (struct regs){ .flags = FLAG_IOPL, __VA_ARGS__ }) /* IOPL 3 */
#define VM0(text, ...) run(CODE16(text), (struct regs){ __VA_ARGS__ })                    /* IOPL 0 */

static ulong monitor_selectors, monitor_eflags;

static void monitor(struct frame *f)
{
    monitor_selectors = f->ds | f->es | f->fs | f->gs;
    monitor_eflags = read_flags();
}

static void entry_and_exit(void)
{
    struct trap t = DONE("enters",
                         VM("mov ax, cs\n mov bx, ss\n mov cx, ds\n mov dx, es\n mov si, fs\n mov di, gs",
                            .fs = 0x4444, .gs = 0x5555));
    CHECK("selectors", (t.regs.ax & 0xffff) == CODE_SEG && (t.regs.bx & 0xffff) == STACK_SEG &&
                           (t.regs.cx & 0xffff) == DATA_SEG && (t.regs.dx & 0xffff) == DATA_SEG &&
                           (t.regs.si & 0xffff) == 0x4444 && (t.regs.di & 0xffff) == 0x5555);
    CHECK("frame-has-selectors", t.regs.cs == CODE_SEG && (t.regs.ss & 0xffff) == STACK_SEG &&
                                     (t.regs.ds & 0xffff) == DATA_SEG && (t.regs.fs & 0xffff) == 0x4444 &&
                                     (t.regs.gs & 0xffff) == 0x5555);
    CHECK("frame-has-vm", t.regs.flags & FLAG_VM);
    CHECK_EQ("frame-esp", t.regs.sp, 0x1000);
    CHECK_EQ("frame-place", t.frame + 40,
             (ulong)cpus[0].stack + sizeof(cpus[0].stack)); /* 9 dwords pushed, and the stub's */
    /* 20.2.3: DS, ES, FS, GS are null in the monitor, VM is clear */
    set_handler(0x31, monitor);
    set_gate(0x31, (ulong)trap_stubs[0x31], GATE_TRAP, 3);
    t = DONE("int-and-back", VM("int 0x31\n mov cx, ds\n mov ax, gs", .fs = 0x1234, .gs = 0x5678));
    CHECK_EQ("monitor-null-segments", monitor_selectors & 0xffff, 0);
    CHECK("monitor-vm-clear", !(monitor_eflags & FLAG_VM));
    CHECK("iret-restores-segments", (t.regs.cx & 0xffff) == DATA_SEG && (t.regs.ax & 0xffff) == 0x5678);
    reset_gate(0x31);
    set_handler(0x31, NULL);
}

static void addressing(void)
{
    LINEAR(DATA_SEG, 0x10) = 0x5a;
    LINEAR(0x3001, 0x10) = 0x5b;
    struct trap t = VM("mov al, [0x10]\n mov bx, 0x3001\n mov es, bx\n mov ah, es:[0x10]", .ax = 0);
    CHECK_EQ("segment-times-16", t.regs.ax & 0xffff, 0x5b5a);
    t = VM("mov bx, 0xffff\n mov ds, bx\n mov al, [0x10]");
    CHECK_EQ("above-1-mib", t.regs.ax & 0xff, *(volatile u8 *)0x100000);
    t = FAULT("word-at-ffff", VM("mov ax, [bx]", .bx = 0xffff), GP, 0);
    FAULT("stack-word-at-ffff", VM("mov ax, [bp]", .bp = 0xffff), SS, 0);
    FAULT("beyond-64k", VM("mov al, [ebx]", .bx = 0x10000), GP, 0);
    LINEAR(DATA_SEG, 0xfffe) = 0x77;
    t = DONE("32-bit-address", VM("mov al, [ebx]", .bx = 0xfffe));
    CHECK_EQ("32-bit-address-value", t.regs.ax & 0xff, 0x77);
    t = DONE("32-bit-operand", VM("mov eax, 0x12345678\n push eax\n pop ecx"));
    CHECK_EQ("32-bit-operand-value", t.regs.cx, 0x12345678);
    t = VM("push ax\n mov cx, sp", .sp = 0x10000, .ax = 0x4321);
    CHECK("sp-wraps", (t.regs.cx & 0xffff) == 0xfffe && WORD(STACK_SEG, 0xfffe) == 0x4321);
    t = DONE("far-call", VM("push cs\n pop ax\n mov word ptr [2], ax\n mov bx, offset 1f - 7b\n mov [0], "
                            "bx\n call dword ptr [0]\n jmp 2f\n"
                            "1: mov bp, sp\n mov dx, [bp+2]\n retf\n 2:"));
    CHECK_EQ("far-call-pushes-cs", t.regs.dx & 0xffff, CODE_SEG);
    t = DONE("far-return", VM("push cs\n mov ax, offset 1f - 7b\n push ax\n retf\n ud2\n 1: nop"));
    t = DONE("lds", VM("mov word ptr [0], 0x1111\n mov word ptr [2], 0x2222\n lds si, [0]\n mov ax, ds"));
    CHECK("lds-values", (t.regs.si & 0xffff) == 0x1111 && (t.regs.ax & 0xffff) == 0x2222);
}

static void faults(void)
{
    struct trap t = FAULT("de", VM("div cl", .ax = 1), DE, 0);
    CHECK("fault-from-vm86", t.regs.flags & FLAG_VM);
    FAULT("ud", VM("ud2"), UD, 0);
    TRAP("int3", VM("int3"), BP);
    TRAP("int3-at-iopl-0", VM0("int3"), BP); /* INT3 and INTO are not IOPL-sensitive (20.2.7) */
    TRAP("into-at-iopl-0", VM0("into", .flags = FLAG_OF), OF);
    FAULT("bound", VM("mov word ptr [0], 1\n mov word ptr [2], 5\n 8: bound ax, [0]", .ax = 9), BR, 0);
    static const struct {
        const char *name;
        u8 bytes[4];
        u8 vector;
    } cases[] = {
        { "hlt", { 0xf4 }, GP },
        { "clts", { 0x0f, 6 }, GP },
        { "lgdt", { 0x0f, 1, 0x17 }, GP },
        { "lidt", { 0x0f, 1, 0x1f }, GP },
        { "lmsw", { 0x0f, 1, 0xf0 }, GP },
        { "mov-from-cr0", { 0x0f, 0x20, 0xc0 }, GP },
        { "mov-to-cr3", { 0x0f, 0x22, 0xd8 }, GP },
        { "mov-dr", { 0x0f, 0x21, 0xc0 }, GP },
        { "invlpg", { 0x0f, 1, 0x3f }, GP },
        { "wbinvd", { 0x0f, 9 }, GP },
        { "rdmsr", { 0x0f, 0x32 }, GP },
        { "wrmsr", { 0x0f, 0x30 }, GP },
        { "sysexit", { 0x0f, 0x35 }, GP },
        { "lldt", { 0x0f, 0, 0xd0 }, UD },
        { "ltr", { 0x0f, 0, 0xd8 }, UD },
        { "sldt", { 0x0f, 0, 0xc0 }, UD },
        { "str", { 0x0f, 0, 0xc8 }, UD },
        { "verr", { 0x0f, 0, 0xe0 }, UD },
        { "lar", { 0x0f, 2, 0xc0 }, UD },
        { "lsl", { 0x0f, 3, 0xc0 }, UD },
        { "arpl", { 0x63, 0xc0 }, UD },
    };
    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        struct code c = CODE16("nop\n nop\n nop\n nop");
        copy((void *)c.start, cases[i].bytes, 4);
        for (u32 j = 3; j && !cases[i].bytes[j]; j--)
            *(u8 *)(c.start + j) = 0x90;
        if (cases[i].bytes[0] == 0x0f && cases[i].bytes[1] <= 1 && cases[i].bytes[2] == 0)
            *(u8 *)(c.start + 2) = 0;
        t = run(c, (struct regs){ .flags = FLAG_IOPL, .bx = 0x100 });
        check_fault(cases[i].name, &t, cases[i].vector, 0);
    }
    DONE("smsw-sgdt", VM("smsw ax\n sgdt [bx]", .bx = 0x100));
}

static void io_and_iopl(void)
{
    /* table 20-1: CLI, STI, PUSHF, POPF, INT n, IRET at IOPL < 3 are #GP(0) */
    FAULT("iopl0-cli", VM0("cli"), GP, 0);
    FAULT("iopl0-sti", VM0("sti"), GP, 0);
    FAULT("iopl0-pushf", VM0("pushf"), GP, 0);
    FAULT("iopl0-popf", VM0("popf"), GP, 0);
    FAULT("iopl0-int", VM0("int 0x81"), GP, 0);
    FAULT("iopl0-iret", VM0("iret"), GP, 0);
    FAULT("iopl0-pushfd", VM0("pushfd"), GP, 0);
    FAULT("iopl0-iretd", VM0("iretd"), GP, 0);
    FAULT("iopl2-cli", VM0("cli", .flags = 2 << 12), GP, 0);
    struct trap t = DONE("iopl3-sti-cli", VM("sti\n cli"));
    t = DONE("iopl3-pushf", VM("pushf\n pop ax", .ax = 0));
    CHECK_EQ("iopl3-pushf-value", t.regs.ax & 0xffff, FLAG_IOPL | 2);
    t = DONE("iopl3-pushfd", VM("pushfd\n pop eax"));
    CHECK_EQ("iopl3-pushfd-hides-vm", t.regs.ax,
             FLAG_IOPL | 2); /* SDM 2B PUSHF: VM and RF are cleared in the image */
    t = DONE("iopl3-popf", VM("push 0x0ed7\n popf"));
    CHECK_EQ("iopl3-popf-keeps-iopl", t.regs.flags & 0x3ffff, FLAG_VM | FLAG_IOPL | 0xed7);
    t = DONE("iopl3-iret",
             VM("push 0x0001\n push cs\n mov ax, offset 1f - 7b\n push ax\n iret\n ud2\n 1: nop"));
    CHECK_EQ("iopl3-iret-flags", t.regs.flags & 0x3ffff, FLAG_VM | FLAG_IOPL | 3);
    t = VM("push 2\n mov ax, cs\n dec ax\n push ax\n mov ax, offset 1f - 7b + 16\n push ax\n iret\n ud2\n 1: "
           "mov bx, cs");
    CHECK("iopl3-iret-new-cs", t.vector == VECTOR_DONE && (t.regs.bx & 0xffff) == CODE_SEG - 1);
    /* INT n with IOPL 3 obeys the gate's DPL, and may only go to CPL 0 */
    FAULT("int-gate-dpl", VM("int 0x50"), GP, 0x50 * 8 + 2);
    set_gdt(SEL_FREE, gdt[SEL_CODE / 8] | (u64)D_DPL1 << 40);
    set_gate_full(0x50, SEL_FREE, (ulong)trap_stubs[0x50], D_PRESENT | D_DPL3 | GATE_INT, 0);
    FAULT("int-to-ring-1", VM("int 0x50"), GP, SEL_FREE);
    set_gdt(SEL_FREE, descriptor(0, 0xfffff, 0x9e, D_GRANULAR | D_BIG));
    set_gate_full(0x50, SEL_FREE, (ulong)trap_stubs[0x50], D_PRESENT | D_DPL3 | GATE_INT, 0);
    FAULT("int-to-conforming", VM("int 0x50"), GP, SEL_FREE);
    reset_gate(0x50);
    /* I/O: the bitmap alone decides, whatever IOPL is */
    u8 *map = cpus[0].iomap;
    FAULT("io-iopl3-denied", VM("in al, 0x80"), GP, 0);
    map[0x80 / 8] = 0xfe;
    DONE("io-iopl3-allowed", VM("in al, 0x80"));
    struct code c = CODE16("in al, 0x80\n 8: ud2");
    t = run(c, (struct regs){ .flags = 0 });
    check_fault("io-iopl0-allowed", &t, UD, 0);
    FAULT("io-word-denied", VM("in ax, 0x80"), GP, 0);
    map[0x80 / 8] = 0xff;
}

static void extensions(void)
{
    if (!has(F_VME)) {
        check_skip("vme", "no VME");
        return;
    }
    ulong cr4 = read_cr4();
    write_cr4(cr4 | CR4_VME);
    /* 20.3.3.4, method 5: IOPL 3, redirection bit 0: the IVT at linear 0, in virtual-8086 mode */
    u16 *ivt = (u16 *)(ulong)(0x60 * 4);
    u16 keep[2];
    copy(keep, ivt, 4);
    static const u8 handler[] = { 0xb8, 0x34, 0x12, 0xcf }; /* mov ax, 1234h; iret */
    copy((void *)(CODE_SEG * 16 + 0x800), handler, sizeof(handler));
    static const u16 vector[2] = { 0x800, CODE_SEG };
    copy(ivt, vector, 4);
    cpus[0].redirection[0x60 / 8] = (u8)~1;
    struct trap t = DONE("vme-int-redirected", VM("int 0x60\n mov bx, sp", .ax = 0));
    CHECK("vme-int-handler-ran", (t.regs.ax & 0xffff) == 0x1234 && (t.regs.bx & 0xffff) == 0x1000);
    CHECK_EQ("vme-int-pushes-flags", WORD(STACK_SEG, 0xffe) & (FLAG_IOPL | 2), FLAG_IOPL | 2);
    FAULT("vme-int-not-redirected", VM("int 0x61"), GP, 0x61 * 8 + 2);
    /* method 6: IOPL 0: the same, with VIF for IF and IOPL 3 in the pushed image */
    struct code c = CODE16("int 0x60\n 8: ud2");
    t = run(c, (struct regs){ .flags = FLAG_VIF });
    check_fault("vme-int-redirected-iopl0", &t, UD, 0);
    CHECK_EQ("vme-iopl0-pushed-flags", WORD(STACK_SEG, 0xffe) & (FLAG_IOPL | FLAG_IF), FLAG_IOPL | FLAG_IF);
    CHECK("vme-iret-restores-vif", t.regs.flags & FLAG_VIF);
    FAULT("vme-iopl0-not-redirected", VM0("int 0x61"), GP, 0);
    /* CLI and STI work on VIF */
    t = FAULT("vme-cli", VM0("cli\n 8: ud2", .flags = FLAG_VIF | FLAG_IF), UD, 0);
    CHECK_EQ("vme-cli-clears-vif", t.regs.flags & (FLAG_VIF | FLAG_IF), FLAG_IF);
    t = FAULT("vme-sti", VM0("sti\n 8: ud2"), UD, 0);
    CHECK_EQ("vme-sti-sets-vif", t.regs.flags & (FLAG_VIF | FLAG_IF), FLAG_VIF);
    t = FAULT("vme-sti-with-vip", VM0("sti", .flags = FLAG_VIP), GP, 0);
    t = FAULT("vme-pushf", VM0("pushf\n pop ax\n 8: ud2", .flags = FLAG_VIF), UD, 0);
    CHECK_EQ("vme-pushf-shows-vif", t.regs.ax & (FLAG_IOPL | FLAG_IF), FLAG_IOPL | FLAG_IF);
    FAULT("vme-pushfd", VM0("pushfd"), GP, 0);
    t = FAULT("vme-popf", VM0("push 0x202\n popf\n 8: ud2"), UD, 0);
    CHECK("vme-popf-sets-vif", (t.regs.flags & FLAG_VIF) && !(t.regs.flags & FLAG_IF));
    FAULT("vme-popf-tf", VM0("push 0x102\n 8: popf"), GP, 0);
    FAULT("vme-popf-vip", VM0("push 0x202\n 8: popf", .flags = FLAG_VIP), GP, 0);
    cpus[0].redirection[0x60 / 8] = 0xff;
    copy(ivt, keep, 4);
    write_cr4(cr4);
}

static void with_paging(void)
{
    struct space space = space_new(PAGING_32);
    write_cr4(read_cr4() | CR4_PSE);
    map_range(&space, 0, 0, 0x100000, PTE_RWU, 1);
    map_range(&space, 0x100000, 0x100000, 0x300000, PTE_P | PTE_W, 1);
    map_range(&space, 0x400000, 0x400000, 60ul << 20, PTE_P | PTE_W, 2);
    entry_set(&space, 0x3f000, 1, 0);
    map(&space, 0x3e000, 0x30000, PTE_RWU, 1);
    space_use(&space);
    LINEAR(DATA_SEG, 0x10) = 0x66;
    struct trap t = VM("mov bx, 0x3e00\n mov ds, bx\n mov al, [0x10]");
    CHECK_EQ("paging-remaps", t.regs.ax & 0xff, 0x66);
    PAGE_FAULT("paging-fault", VM("mov [bx], al", .ds = 0x3f00, .bx = 0x123), 6, 0x3f123); /* user, write */
    PAGE_FAULT("paging-supervisor", VM("mov al, [bx]", .ds = 0xffff, .bx = 0x10), 5, 0x100000);
    paging_off();
}

void guest_main(void)
{
    entry_and_exit();
    addressing();
    faults();
    io_and_iopl();
    extensions();
    with_paging();
}
