/* SPDX-License-Identifier: Apache-2.0 */
/* What is left of segmentation in 64-bit mode: loads, null SS, system descriptors of 16 bytes, LAR and LSL. */
#include "guest.h"

#define SLOT(n) ((u16)(SEL_FREE + 16 * (n)))

static u8 ALIGNED(16) memory[256];

static void set(int slot, u64 base, u32 limit, u8 access, u8 flags)
{
    set_gdt(SLOT(slot), descriptor((u32)base, limit, access, flags));
    set_gdt(SLOT(slot) + 8, base >> 32);
}

static void loads(void)
{
    /* SDM 2B MOV: SS may be null in 64-bit mode below CPL 3, with RPL = CPL */
    struct trap t = DONE("null-ss", TRY("mov ss, eax\n push rbx\n pop rcx\n mov edx, ss", .ax = 0, .bx = 77));
    CHECK("null-ss-works", t.regs.cx == 77 && t.regs.dx == 0);
    FAULT("null-ss-rpl", TRY("mov ss, eax", .ax = 3), GP, 0);
    FAULT("null-ss-user", TRY_USER("mov ss, eax", .ax = 3), GP, 0);
    DONE("null-data",
         TRY_USER("mov ds, eax\n mov es, eax\n mov fs, eax\n mov al, [rbx]", .bx = (ulong)memory));
    set(0, 0, 0xfffff, 0x90, D_GRANULAR | D_BIG);
    FAULT("ss-read-only", TRY("mov ss, eax", .ax = SLOT(0)), GP, SLOT(0));
    FAULT("beyond-gdt", TRY("mov fs, eax", .ax = GDT_ENTRIES * 8), GP, GDT_ENTRIES * 8);
    FAULT("system-segment", TRY("mov fs, eax", .ax = SEL_TSS), GP, SEL_TSS);
    set(0, 0, 0xfffff, 0x12, D_GRANULAR | D_BIG);
    FAULT("not-present", TRY("mov gs, eax", .ax = SLOT(0)), NP, SLOT(0));
    FAULT("ss-not-present", TRY("mov ss, eax", .ax = SLOT(0)), SS, SLOT(0));
    FAULT("user-dpl-0", TRY_USER("mov ds, eax", .ax = SEL_DATA), GP, SEL_DATA);
    /* base and limit of DS mean nothing (SDM 3A 5.3.1), type neither */
    set(0, 0x5555, 0, 0x90, D_BIG);
    memory[5] = 0x42;
    t = DONE("ds-flat",
             TRY("mov ds, eax\n mov cl, [rbx+5]\n mov [rbx+6], cl", .ax = SLOT(0), .bx = (ulong)memory));
    CHECK("ds-flat-values", (t.regs.cx & 0xff) == 0x42 && memory[6] == 0x42);
    DONE("push-pop-fs-gs", TRY("push fs\n push gs\n pop gs\n pop fs"));
    t = TRY("mov eax, 0x10\n mov fs, eax\n push fs\n pop rcx");
    CHECK_EQ("push-fs-8-bytes", t.regs.cx, SEL_DATA);
    /* code can be read and written through CS in 64-bit mode */
    DONE("cs-override-write", TRY(".byte 0x2e\n mov [rbx], al", .bx = (ulong)memory));
    set(0, 0, 0xfffff, D_DATA, D_GRANULAR | D_BIG);
    TRY("mov fs, eax", .ax = SLOT(0));
    CHECK("accessed-bit", gdt[SLOT(0) / 8] >> 40 & 1);
}

static void system_descriptors(void)
{
    static u64 ALIGNED(16) ldt[4];
    ldt[1] = gdt[SEL_USER_DATA / 8];
    set(0, (ulong)ldt, sizeof(ldt) - 1, 0x82, 0);
    DONE("lldt", TRY("lldt ax", .ax = SLOT(0)));
    DONE("ldt-load", TRY("mov fs, eax", .ax = 0x0f));
    FAULT("ldt-beyond", TRY("mov fs, eax", .ax = 0x27), GP, 0x24);
    /* an LDT above 4 GiB: the second half of the descriptor counts */
    struct space s = { .mode = PAGING_LONG, .root = read_cr3() };
    map(&s, 0x300000000000, (ulong)ldt & ~0xffful, PTE_RWU, 1);
    set(0, 0x300000000000 + ((ulong)ldt & 0xfff), sizeof(ldt) - 1, 0x82, 0);
    DONE("lldt-high", TRY("lldt ax\n mov fs, ecx", .ax = SLOT(0), .cx = 0x0f));
    set(0, 1ul << 47, sizeof(ldt) - 1, 0x82, 0);
    FAULT("lldt-non-canonical", TRY("lldt ax", .ax = SLOT(0)), GP, SLOT(0)); /* SDM 2A LLDT */
    DONE("lldt-null", TRY("lldt ax", .ax = 0));
    FAULT("ldt-none", TRY("mov fs, eax", .ax = 0x0f), GP, 0x0c);
    /* TSS: only the 64-bit type, not busy, canonical */
    set(1, (ulong)memory, 0x67, 0x81, 0);
    FAULT("ltr-16-bit", TRY("ltr ax", .ax = SLOT(1)), GP, SLOT(1));
    FAULT("ltr-busy", TRY("ltr ax", .ax = SEL_TSS), GP, SEL_TSS);
    set(1, (ulong)memory, 0x67, 0x09, 0);
    FAULT("ltr-not-present", TRY("ltr ax", .ax = SLOT(1)), NP, SLOT(1));
    set(1, 1ul << 47, 0x67, 0x89, 0);
    FAULT("ltr-non-canonical", TRY("ltr ax", .ax = SLOT(1)), GP, SLOT(1));
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) table;
    asm volatile("sgdt %0" : "=m"(table));
    CHECK("sgdt-10-bytes", table.limit == sizeof(gdt) - 1 && table.base == (ulong)gdt);
    asm volatile("sidt %0" : "=m"(table));
    CHECK("sidt-10-bytes", table.limit == sizeof(idt) - 1 && table.base == (ulong)idt);
}

static void queries(void)
{
    /* SDM 2A tables 3-53 and 3-56, the columns for IA-32e mode */
    static const struct {
        u8 access;
        bool lar, lsl;
    } cases[] = {
        { 0x92, true, true },   { 0x9a, true, true },   { 0x81, false, false }, { 0x82, true, true },
        { 0x83, false, false }, { 0x84, false, false }, { 0x85, false, false }, { 0x86, false, false },
        { 0x87, false, false }, { 0x89, true, true },   { 0x8b, true, true },   { 0x8c, true, false },
        { 0x8e, false, false }, { 0x8f, false, false }, { 0x80, false, false },
    };
    u32 bad = 0;
    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        set(0, 0, 0x12345, cases[i].access, 0);
        struct trap a = TRY("lar ecx, eax\n setz dl", .ax = SLOT(0), .cx = 0x5555);
        struct trap l = TRY("lsl ecx, eax\n setz dl", .ax = SLOT(0), .cx = 0x5555);
        ulong rights = cases[i].lar ? (ulong)cases[i].access << 8 : 0x5555; /* bits 19:16 are not defined */
        bool ok = (a.regs.dx & 1) == cases[i].lar && (a.regs.cx & 0xf0ffff) == rights;
        ok = ok && (l.regs.dx & 1) == cases[i].lsl && l.regs.cx == (cases[i].lsl ? 0x12345 : 0x5555);
        if (!ok && !bad++)
            print("# access %x: lar %lu %lx, lsl %lu %lx\n", cases[i].access, a.regs.dx, a.regs.cx, l.regs.dx,
                  l.regs.cx);
    }
    CHECK_EQ("lar-lsl", bad, 0);
    struct trap t = TRY("lsl rcx, rax\n setz dl", .ax = SEL_DATA, .cx = ~0ul);
    CHECK_EQ("lsl-zero-extends", t.regs.cx, 0xffffffff);
    t = TRY("lar ecx, eax\n setz dl", .ax = 0, .cx = 9);
    CHECK("lar-null", t.regs.cx == 9 && !(t.regs.dx & 1));
    t = TRY("verr ax\n setz cl\n verw ax\n setz dl", .ax = SEL_CODE);
    CHECK("verr-verw-code", (t.regs.cx & 1) && !(t.regs.dx & 1));
}

static void code_segments(void)
{
    static struct {
        u32 offset;
        u16 selector;
    } far;
    struct code c = CODE("mov eax, cs");
    far.offset = (u32)c.start;
    far.selector = SEL_CODE;
    struct trap t = TRY("jmp fword ptr [rbx]", .bx = (ulong)&far);
    CHECK("far-jump-64", t.vector == VECTOR_DONE && t.regs.ax == SEL_CODE);
    set(0, 0x1000, 0x10, D_XCODE, D_LONG);
    far.selector = SLOT(0);
    t = TRY("jmp fword ptr [rbx]",
            .bx = (ulong)&far); /* base and limit of a 64-bit code segment mean nothing */
    CHECK("far-jump-base-ignored", t.vector == VECTOR_DONE && t.regs.ax == SLOT(0));
    set(0, 0, 0xfffff, D_XCODE, D_GRANULAR | D_LONG | D_BIG);
    FAULT("far-jump-l-and-d", TRY("jmp fword ptr [rbx]", .bx = (ulong)&far), GP, SLOT(0));
    far.selector = SEL_USER_CODE64;
    FAULT("far-jump-outwards", TRY("jmp fword ptr [rbx]", .bx = (ulong)&far), GP, SEL_USER_CODE64 & ~3);
    far.selector = 0;
    FAULT("far-jump-null", TRY("jmp fword ptr [rbx]", .bx = (ulong)&far), GP, 0);
    far.selector = SEL_CODE;
    t = TRY("call fword ptr [rbx]\n", .bx = (ulong)&far, .sp = on_stack(0));
    CHECK("far-call-pushes-dwords", t.vector == VECTOR_DONE && t.regs.sp == on_stack(0) - 8);
    FAULT("far-jump-direct-is-ud", TRY(".byte 0xea, 0, 0, 0, 0, 8, 0"), UD, 0);
}

void guest_main(void)
{
    loads();
    system_descriptors();
    queries();
    code_segments();
}
