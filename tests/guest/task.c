/* SPDX-License-Identifier: Apache-2.0 */
/* Hardware task switches: JMP, CALL, IRET, interrupts through task gates, and everything that can go wrong
 * (SDM 3A 7). */
#include "guest.h"

#define SLOT(n) ((u16)(SEL_FREE + 8 * (n)))
#define TSS_B SLOT(0)
#define TSS_C SLOT(1)
#define GATE SLOT(2)
#define PARTS SLOT(3)

static struct tss32 ALIGNED(128) task_b, task_c;
static u8 ALIGNED(16) stack_b[4096], stack_c[4096];
static struct {
    u32 offset;
    u16 selector;
} far_pointer;

static u8 type_of(u16 selector) { return (u8)(gdt[selector / 8] >> 40 & 0xf); }

static void task_init(struct tss32 *t, u16 selector, struct code code, u8 *stack)
{
    *t = (struct tss32){ .eip = code.start,
                         .eflags = 2,
                         .esp = (ulong)stack + 4000,
                         .cs = SEL_CODE,
                         .ss = SEL_DATA,
                         .ds = SEL_DATA,
                         .es = SEL_DATA,
                         .fs = SEL_DATA,
                         .gs = SEL_DATA,
                         .cr3 = read_cr3(),
                         .iomap = 0xffff };
    t->eax = 0xa1, t->ecx = 0xa2, t->edx = 0xa3, t->ebx = 0xa4, t->ebp = 0xa5, t->esi = 0xa6, t->edi = 0xa7;
    t->ss0 = SEL_DATA, t->esp0 = (ulong)stack + 2000;
    set_gdt(selector, descriptor((ulong)t, sizeof(*t) - 1, 0x89, 0));
}

/* Whatever task the last trap left: TR is the first TSS again, the others are free. */
static void back_to_first(void)
{
    set_gdt(SEL_TSS, gdt[SEL_TSS / 8] & ~(1ull << 41));
    asm volatile("ltr %0" : : "r"((u16)SEL_TSS));
    asm volatile("clts");
}

static struct code ending;
static u16 tr_of_trap;

/* A snippet that goes to another task by JMP or CALL FAR. */
static struct trap go(struct code code, u16 selector, struct regs in)
{
    far_pointer.selector = selector;
    in.bx = (ulong)&far_pointer;
    struct trap t = run_code(code, in);
    tr_of_trap = read_tr();
    return t;
}

static void jump(void)
{
    task_init(&task_b, TSS_B, ending, stack_b);
    struct code c = CODE("mov esi, 0x1234\n 8: jmp fword ptr [ebx]\n 9:");
    c.end = c.mark + 2;
    asm volatile("clts");
    struct trap t = go(
        c, TSS_B, (struct regs){ .ax = 1, .cx = 2, .dx = 3, .di = 4, .bp = 5, .flags = FLAG_CF | FLAG_DF });
    struct tss32 *a = &cpus[0].tss;
    CHECK_EQ("jmp-tr", tr_of_trap, TSS_B);
    CHECK("jmp-runs-new-task", t.vector == VECTOR_DONE && t.regs.ip == ending.end + 2);
    CHECK("jmp-loads-registers", t.regs.ax == 0xa1 && t.regs.cx == 0xa2 && t.regs.dx == 0xa3 &&
                                     t.regs.bx == 0xa4 && t.regs.bp == 0xa5 && t.regs.si == 0xa6 &&
                                     t.regs.di == 0xa7);
    CHECK_EQ("jmp-loads-esp", t.regs.sp, (ulong)stack_b + 4000);
    CHECK_EQ("jmp-loads-flags", t.regs.flags, 2);
    CHECK_EQ("jmp-old-available", type_of(SEL_TSS), 9);
    CHECK_EQ("jmp-new-busy", type_of(TSS_B), 0xb);
    CHECK("jmp-sets-ts", read_cr0() & CR0_TS); /* 2.5: TS is set on every task switch */
    CHECK("jmp-saves-registers",
          a->eax == 1 && a->ecx == 2 && a->edx == 3 && a->edi == 4 && a->ebp == 5 && a->esi == 0x1234);
    CHECK_EQ("jmp-saves-eip", a->eip, c.end);
    CHECK_EQ("jmp-saves-flags", a->eflags & 0xffff, FLAG_CF | FLAG_DF | 2);
    CHECK_EQ("jmp-saves-esp", a->esp, (ulong)snippet_stack_top);
    CHECK("jmp-saves-selectors",
          (a->cs & 0xffff) == SEL_CODE && (a->ss & 0xffff) == SEL_DATA && (a->gs & 0xffff) == SEL_DATA);
    CHECK_EQ("jmp-keeps-link", task_b.link, 0);
    back_to_first();
}

static void call_and_return(void)
{
    struct code b = CODE("inc dword ptr [ecx]\n pushfd\n pop edx\n iretd\n mov eax, 0x77\n int 0x81");
    static volatile u32 visits;
    visits = 0;
    task_init(&task_b, TSS_B, b, stack_b);
    task_b.ecx = (u32)(ulong)&visits;
    struct code c = CODE("call fword ptr [ebx]");
    struct trap t = go(c, TSS_B, (struct regs){ .ax = 0x11, .cx = 0x22 });
    check_done("call-returns", &t);
    CHECK_EQ("call-visits", visits, 1);
    CHECK("call-restores-registers", t.regs.ax == 0x11 && t.regs.cx == 0x22);
    CHECK_EQ("call-link", task_b.link & 0xffff, SEL_TSS);
    CHECK("call-sets-nt", task_b.edx & FLAG_NT);
    CHECK("iret-clears-nt-in-old", !(task_b.eflags & FLAG_NT));
    CHECK("iret-nt-of-caller", !(t.regs.flags & FLAG_NT));
    CHECK_EQ("iret-old-available", type_of(TSS_B), 9);
    CHECK_EQ("iret-new-busy", type_of(SEL_TSS), 0xb);
    CHECK_EQ("iret-tr", tr_of_trap, SEL_TSS);
    CHECK("iret-sets-ts", read_cr0() & CR0_TS);
    CHECK_EQ("iret-saves-eip", task_b.eip, b.end - 7); /* behind the IRETD, where a second call goes on */
    t = go(c, TSS_B, (struct regs){ .ax = 0x11 });
    CHECK("call-again-resumes", t.vector == VECTOR_DONE && t.regs.ax == 0x77 && tr_of_trap == TSS_B);
    CHECK_EQ("call-old-stays-busy", type_of(SEL_TSS), 0xb);
    CHECK("call-nt-in-flags", t.regs.flags & FLAG_NT);
    back_to_first();
    /* nested: A calls B, B calls C, and back */
    static struct {
        u32 offset;
        u16 selector;
    } to_c = { 0, TSS_C };
    task_init(&task_b, TSS_B, CODE("call fword ptr [ebx]\n inc ecx\n iretd"), stack_b);
    task_b.ebx = (u32)(ulong)&to_c;
    task_init(&task_c, TSS_C, CODE("inc ecx\n iretd"), stack_c);
    t = DONE("call-nested", go(c, TSS_B, (struct regs){ .ax = 0 }));
    CHECK("call-nested-both", task_b.ecx == 0xa3 && task_c.ecx == 0xa3 && (task_c.link & 0xffff) == TSS_B);
    /* a recursive call: the TSS is busy */
    to_c.selector = SEL_TSS;
    struct code recursive = CODE("call fword ptr [ebx]");
    task_init(&task_b, TSS_B, recursive, stack_b);
    task_b.ebx = (u32)(ulong)&to_c;
    t = go(c, TSS_B, (struct regs){ .ax = 0 });
    CHECK("call-busy", t.vector == GP && t.error == SEL_TSS && t.regs.ip == recursive.start);
    back_to_first();
    asm volatile("clts");
}

static void gates(void)
{
    struct code c = CODE("call fword ptr [ebx]");
    struct code returning = CODE("iretd");
    task_init(&task_b, TSS_B, returning, stack_b);
    set_call_gate(GATE, TSS_B, 0, D_PRESENT | GATE_TASK, 0);
    DONE("gate-call", go(c, GATE, (struct regs){ .ax = 0 }));
    /* from CPL 3: DPL of the gate counts, not that of the TSS */
    task_init(&task_b, TSS_B, returning, stack_b);
    FAULT("gate-user-dpl-0", go(c, GATE, (struct regs){ .cs = SEL_USER_CODE }), GP, GATE);
    set_call_gate(GATE, TSS_B, 0, D_PRESENT | D_DPL3 | GATE_TASK, 0);
    struct trap t = DONE("gate-user", go(c, GATE, (struct regs){ .cs = SEL_USER_CODE, .ax = 9 }));
    CHECK("gate-user-restored",
          t.regs.cs == SEL_USER_CODE && t.regs.ax == 9 && t.regs.sp == (ulong)user_stack_top);
    FAULT("tss-user-dpl-0", go(c, TSS_B, (struct regs){ .cs = SEL_USER_CODE }), GP, TSS_B);
    set_call_gate(GATE, TSS_B, 0, GATE_TASK | D_DPL3, 0);
    FAULT("gate-np", go(c, GATE, (struct regs){ .ax = 0 }), NP, GATE);
    set_call_gate(GATE, SEL_DATA, 0, D_PRESENT | GATE_TASK, 0);
    FAULT("gate-to-data", go(c, GATE, (struct regs){ .ax = 0 }), GP, SEL_DATA);
    set_call_gate(GATE, 0x0c, 0, D_PRESENT | GATE_TASK, 0);
    FAULT("gate-to-ldt", go(c, GATE, (struct regs){ .ax = 0 }), GP, 0x0c);
    set_call_gate(GATE, TSS_B, 0, D_PRESENT | GATE_TASK, 0);
    /* interrupt and exception through a task gate (6.12.2) */
    task_init(&task_b, TSS_B, returning, stack_b);
    set_gate_full(0x31, TSS_B, 0, D_PRESENT | GATE_TASK, 0);
    t = DONE("int-task-gate", TRY("int 0x31", .ax = 0x31));
    CHECK_EQ("int-task-gate-link", task_b.link & 0xffff, SEL_TSS);
    CHECK_EQ("int-task-gate-registers", t.regs.ax, 0x31);
    CHECK_EQ("int-task-gate-saved-eip", cpus[0].tss.eip, t.regs.ip - 2);
    FAULT("int-task-gate-dpl", TRY_USER("int 0x31"), GP, 0x31 * 8 + 2);
    reset_gate(0x31);
    /* an exception with an error code pushes it on the new task's stack; the saved eip is the fault's */
    task_init(&task_b, TSS_B, CODE("mov eax, [esp]\n mov ecx, esp"), stack_b);
    set_gate_full(GP, TSS_B, 0, D_PRESENT | GATE_TASK, 0);
    struct code fault = CODE("nop\n 8: mov es, eax");
    t = TRY_CODE(fault, .ax = GDT_ENTRIES * 8);
    CHECK("exception-task-gate", t.vector == VECTOR_DONE && read_tr() == TSS_B);
    CHECK_EQ("exception-error-code", t.regs.ax, GDT_ENTRIES * 8);
    CHECK_EQ("exception-error-code-place", t.regs.cx, (ulong)stack_b + 4000 - 4);
    CHECK_EQ("exception-saved-eip", cpus[0].tss.eip, fault.mark);
    CHECK("exception-saved-rf", cpus[0].tss.eflags & FLAG_RF); /* 17.3.1.1 */
    CHECK_EQ("exception-saved-eax", cpus[0].tss.eax, GDT_ENTRIES * 8);
    reset_gate(GP);
    back_to_first();
    /* into a task of CPL 3, and its interrupt back to ring 0 by its own TSS */
    task_init(&task_b, TSS_B, CODE("mov eax, cs"), stack_b);
    task_b.cs = SEL_USER_CODE, task_b.ss = task_b.ds = task_b.es = task_b.fs = task_b.gs = SEL_USER_DATA;
    t = go(CODE("jmp fword ptr [ebx]"), TSS_B, (struct regs){ .ax = 0 });
    CHECK("user-task", t.vector == VECTOR_DONE && t.regs.ax == SEL_USER_CODE && t.regs.ss == SEL_USER_DATA);
    CHECK("user-task-own-stack-0", t.frame > (ulong)stack_b && t.frame < (ulong)stack_b + 2000);
    back_to_first();
}

/* ---- refusals ---- */

static struct trap bad_task(const char *name, ulong vector, ulong error, bool in_new_task)
{
    struct trap t = go(CODE("jmp fword ptr [ebx]"), TSS_B, (struct regs){ .ax = 0 });
    ulong ip = in_new_task ? ending.start : 0;
    bool ok = t.vector == vector && t.error == error && tr_of_trap == (in_new_task ? TSS_B : SEL_TSS);
    ok = ok && (in_new_task ? t.regs.ip == ip : t.off == 0);
    if (!ok)
        print("# vector %lu error 0x%lx ip 0x%lx tr 0x%x\n", t.vector, t.error, t.regs.ip, tr_of_trap);
    check_true(name, ok, "the fault in the right task");
    back_to_first();
    return t;
}

static void refusals(void)
{
    /* table 7-1: up to the load of TR the fault belongs to the old task, then to the new one */
    task_init(&task_b, TSS_B, ending, stack_b);
    set_gdt(TSS_B, gdt[TSS_B / 8] & ~(1ull << 47));
    bad_task("tss-np", NP, TSS_B, false);
    set_gdt(TSS_B, descriptor((ulong)&task_b, 0x66, 0x89, 0));
    bad_task("tss-limit", TS, TSS_B, false);
    set_gdt(TSS_B, descriptor((ulong)&task_b, 0x67, 0x8b, 0));
    bad_task("tss-busy", GP, TSS_B, false);
    FAULT("tss-beyond-gdt", go(CODE("jmp fword ptr [ebx]"), GDT_ENTRIES * 8, (struct regs){ .ax = 0 }), GP,
          GDT_ENTRIES * 8);

    static const struct {
        const char *name;
        u32 field;
        u32 value;
        ulong vector, error;
    } cases[] = {
        { "new-cs-null", offsetof(struct tss32, cs), 0, TS, 0 },
        { "new-cs-data", offsetof(struct tss32, cs), SEL_DATA, TS, SEL_DATA },
        { "new-cs-np", offsetof(struct tss32, cs), PARTS, NP, PARTS },
        { "new-cs-beyond", offsetof(struct tss32, cs), GDT_ENTRIES * 8, TS, GDT_ENTRIES * 8 },
        { "new-cs-rpl", offsetof(struct tss32, cs), SEL_CODE | 3, TS, SEL_CODE },
        { "new-ss-null", offsetof(struct tss32, ss), 0, TS, 0 },
        { "new-ss-code", offsetof(struct tss32, ss), SEL_CODE, TS, SEL_CODE },
        { "new-ss-rpl", offsetof(struct tss32, ss), SEL_DATA, TS, SEL_DATA },
        { "new-ss-np", offsetof(struct tss32, ss), (PARTS + 24) | 3, SS, PARTS + 24 },
        { "new-ds-system", offsetof(struct tss32, ds), SEL_TSS, TS, SEL_TSS },
        { "new-ds-np", offsetof(struct tss32, ds), PARTS + 8, NP, PARTS + 8 },
        { "new-es-beyond", offsetof(struct tss32, es), GDT_ENTRIES * 8, TS, GDT_ENTRIES * 8 },
        { "new-gs-np", offsetof(struct tss32, gs), PARTS + 8, NP, PARTS + 8 },
        { "new-fs-rpl", offsetof(struct tss32, fs), SEL_DATA | 3, TS, SEL_DATA },
        { "new-ldt-data", offsetof(struct tss32, ldt), SEL_DATA, TS, SEL_DATA },
        { "new-ldt-np", offsetof(struct tss32, ldt), PARTS + 16, TS, PARTS + 16 },
    };
    set_gdt(PARTS, gdt[SEL_CODE / 8] & ~(1ull << 47));
    set_gdt(PARTS + 8, gdt[SEL_DATA / 8] & ~(1ull << 47));
    set_gdt(PARTS + 16, descriptor(0, 0xff, 0x02, 0));
    set_gdt(PARTS + 24, gdt[SEL_USER_DATA / 8] & ~(1ull << 47));
    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        if (is_tcg()) {
            check_skip(cases[i].name, "QEMU loses the new task");
            continue;
        }
        task_init(&task_b, TSS_B, ending, stack_b);
        bool no_stack = cases[i].field == offsetof(struct tss32, ss) ||
                        cases[i].field == offsetof(struct tss32, ldt);
        /* no handler could push on that stack: let it be entered from CPL 3, on the stack of ring 0 */
        if (no_stack)
            task_b.cs = SEL_USER_CODE,
            task_b.ss = task_b.ds = task_b.es = task_b.fs = task_b.gs = SEL_USER_DATA;
        *(u32 *)((ulong)&task_b + cases[i].field) = cases[i].value;
        if (cases[i].field == offsetof(struct tss32, cs) && (cases[i].value & 3))
            task_b.ss = task_b.ds = task_b.es = task_b.fs = task_b.gs =
                SEL_USER_DATA; /* nothing wrong but the code segment's DPL */
        bad_task(cases[i].name, cases[i].vector, cases[i].error, true);
    }
    /* null data segments are good */
    task_init(&task_b, TSS_B, ending, stack_b);
    task_b.fs = task_b.gs = 0;
    struct trap t = go(CODE("jmp fword ptr [ebx]"), TSS_B, (struct regs){ .ax = 0 });
    CHECK("new-fs-null", t.vector == VECTOR_DONE && t.regs.fs == 0 && t.regs.gs == 0);
    back_to_first();
    /* IRET with NT: the link must name a busy TSS (7.3, table 7-1) */
    cpus[0].tss.link = TSS_B;
    task_init(&task_b, TSS_B, ending, stack_b);
    FAULT("iret-link-not-busy", TRY("push 8\n push 0\n 8: iretd", .flags = FLAG_NT), TS, TSS_B);
    cpus[0].tss.link = SEL_DATA;
    FAULT("iret-link-data", TRY("8: iretd", .flags = FLAG_NT), TS, SEL_DATA);
    cpus[0].tss.link = 0x0c;
    FAULT("iret-link-ldt", TRY("8: iretd", .flags = FLAG_NT), TS, 0x0c);
    cpus[0].tss.link = 0;
}

/* ---- details ---- */

static void details(void)
{
    /* T: debug trap in the new task before its first instruction, DR6.BT (17.2.3) */
    task_init(&task_b, TSS_B, ending, stack_b);
    task_b.trap = 1;
    write_dr6(0xffff0ff0);
    struct trap t = go(CODE("jmp fword ptr [ebx]"), TSS_B, (struct regs){ .ax = 0 });
    CHECK("debug-trap-bit", t.vector == DB && (t.dr6 & 0x8000) && t.regs.ip == ending.start);
    write_dr6(0xffff0ff0);
    back_to_first();
    /* local breakpoints are switched off (17.2.4) */
    task_init(&task_b, TSS_B, ending, stack_b);
    write_dr7(0x400 | 0xff);
    go(CODE("jmp fword ptr [ebx]"), TSS_B, (struct regs){ .ax = 0 });
    CHECK_EQ("clears-local-breakpoints", read_dr7() & 0xff, 0xaa);
    write_dr7(0x400);
    back_to_first();
    /* LDT and flags come from the TSS */
    static u64 ALIGNED(8) ldt[2];
    ldt[1] = gdt[SEL_DATA / 8];
    set_gdt(PARTS, descriptor((ulong)ldt, sizeof(ldt) - 1, 0x82, 0));
    task_init(&task_b, TSS_B, CODE("sldt eax"), stack_b);
    task_b.ldt = PARTS, task_b.fs = 0x0c, task_b.eflags = FLAG_CF | FLAG_IOPL | FLAG_AC;
    t = go(CODE("jmp fword ptr [ebx]"), TSS_B, (struct regs){ .ax = 0 });
    CHECK("loads-ldt", t.vector == VECTOR_DONE && (t.regs.ax & 0xffff) == PARTS && t.regs.fs == 0x0c);
    CHECK_EQ("loads-eflags", t.regs.flags, FLAG_CF | FLAG_IOPL | FLAG_AC | 2);
    back_to_first();
    asm volatile("lldt %0" : : "r"((u16)0));
    /* a 16-bit TSS (figure 7-10) */
    static u16 ALIGNED(64) small[22];
    set_gdt(PARTS + 16, descriptor((ulong)small, 42, 0x81, 0));
    FAULT("tss16-limit", go(CODE("jmp fword ptr [ebx]"), PARTS + 16, (struct regs){ .ax = 0 }), TS,
          PARTS + 16);
    FAULT("iret-from-user-with-nt", TRY_USER("iretd", .flags = FLAG_NT), TS, 0);
}

static void tss16(void)
{
    /* JMP to a 16-bit TSS and back by JMP to the 32-bit one; the task stores a mark in memory */
    static volatile u32 mark;
    static struct {
        u32 offset;
        u16 selector;
    } home = { 0, SEL_TSS };
    static u16 ALIGNED(64) small[22];
    mark = 0;
    fill(small, 0, sizeof(small));
    struct code task = CODE(
        "movzx ecx, cx\n movzx edx, dx\n shl edx, 16\n or edx, ecx\n mov dword ptr [edx], 0x600d\n"
        "movzx ebx, bx\n movzx esi, si\n shl esi, 16\n or esi, ebx\n jmp fword ptr [esi]");
    set_gdt(PARTS, descriptor(task.start & ~0xffffu, 0xfffff, D_XCODE, D_GRANULAR | D_BIG));
    small[7] = (u16)task.start, small[8] = 2;
    small[10] = (u16)(ulong)&mark, small[11] = (u16)((ulong)&mark >> 16); /* cx, dx */
    small[12] = (u16)(ulong)&home, small[15] = (u16)((ulong)&home >> 16); /* bx, si */
    small[13] = 0x1000, small[17] = SEL_DATA, small[18] = PARTS, small[19] = SEL_DATA, small[20] = SEL_DATA;
    set_gdt(TSS_B, descriptor((ulong)small, sizeof(small) - 1, 0x81, 0));
    struct trap t = DONE("tss16-and-back",
                         go(CODE("jmp fword ptr [ebx]"), TSS_B, (struct regs){ .ax = 0x55 }));
    CHECK("tss16-ran", mark == 0x600d && t.regs.ax == 0x55);
    CHECK_EQ("tss16-saves-cx", small[10], (u16)(ulong)&mark);
    back_to_first();
}

static void with_paging(void)
{
    /* CR3 is loaded from the TSS, but not saved there (7.2.1); a double fault by a page fault on the stack */
    struct space one = space_new(PAGING_32), two = space_new(PAGING_32);
    write_cr4(read_cr4() | CR4_PSE);
    map_range(&one, 0, 0, 64ul << 20, PTE_P | PTE_W, 2);
    map_range(&two, 0, 0, 64ul << 20, PTE_P | PTE_W, 2);
    map(&one, 0x80000000, 0x1800000, PTE_P | PTE_W, 1);
    map(&two, 0x80000000, 0x1801000, PTE_P | PTE_W, 1);
    *(volatile u32 *)0x1800000 = 1;
    *(volatile u32 *)0x1801000 = 2;
    space_use(&one);
    task_init(&task_b, TSS_B, CODE("mov ecx, [eax]\n mov edx, cr3"), stack_b);
    task_b.cr3 = two.root, task_b.eax = 0x80000000;
    cpus[0].tss.cr3 = 0x12345;
    struct trap t = go(CODE("mov ecx, [eax]\n jmp fword ptr [ebx]"), TSS_B,
                       (struct regs){ .ax = 0x80000000 });
    CHECK("switch-loads-cr3", t.vector == VECTOR_DONE && t.regs.cx == 2 && t.regs.dx == two.root);
    CHECK_EQ("switch-does-not-save-cr3", cpus[0].tss.cr3, 0x12345);
    CHECK_EQ("switch-old-space", cpus[0].tss.ecx, 1);
    write_cr3(one.root);
    cpus[0].tss.cr3 = one.root;
    back_to_first();

    struct code df = CODE("mov eax, [esp]\n mov ecx, cr2");
    task_init(&task_b, TSS_B, df, stack_b);
    set_gate_full(DF, TSS_B, 0, D_PRESENT | GATE_TASK, 0);
    struct code bad = CODE("mov esp, 0x90001000\n 8: push eax");
    t = TRY_CODE(bad, .ax = 7);
    CHECK("double-fault-task", t.vector == VECTOR_DONE && t.regs.ip == df.end + 2 && read_tr() == TSS_B);
    CHECK_EQ("double-fault-error-code", t.regs.ax, 0);
    CHECK("double-fault-cr2", t.regs.cx >= 0x90000ff0 && t.regs.cx < 0x90001000);
    CHECK_EQ("double-fault-saved-eip", cpus[0].tss.eip, bad.mark);
    CHECK_EQ("double-fault-saved-esp", cpus[0].tss.esp, 0x90001000);
    CHECK_EQ("double-fault-saved-eax", cpus[0].tss.eax, 7);
    CHECK("double-fault-nt", t.regs.flags & FLAG_NT);
    CHECK_EQ("double-fault-link", task_b.link & 0xffff, SEL_TSS);
    back_to_first();
    /* and back again: the handler repairs esp in the TSS and returns to the instruction */
    struct code repair = CODE("add esp, 4\n mov dword ptr [edi], ebp\n iretd");
    task_init(&task_b, TSS_B, repair, stack_b);
    task_b.edi = (u32)(ulong)&cpus[0].tss.esp, task_b.ebp = (u32)((ulong)snippet_stack_top - 128);
    t = DONE("double-fault-iret-restarts", TRY_CODE(bad, .ax = 7));
    CHECK_EQ("double-fault-restarted-push", *(u32 *)((ulong)snippet_stack_top - 132), 7);
    reset_gate(DF);
    /* the TSS of the new task lies in a page that is not there: page fault in the old task */
    set_gdt(TSS_B, descriptor(0xa0000000, 0x67, 0x89, 0));
    t = go(CODE("jmp fword ptr [ebx]"), TSS_B, (struct regs){ .ax = 0 });
    CHECK("tss-page-fault",
          t.vector == PF && t.cr2 >= 0xa0000000 && t.cr2 < 0xa0000068 && tr_of_trap == SEL_TSS && t.off == 0);
    paging_off();
}

void guest_main(void)
{
    ending = CODE("nop\n nop");
    far_pointer.offset = 0xdeadbeef; /* ignored */
    jump();
    call_and_return();
    gates();
    refusals();
    details();
    tss16();
    with_paging();
}
