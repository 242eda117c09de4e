/* SPDX-License-Identifier: Apache-2.0 */
/* Each exception: vector, error code, saved ip, flags, registers left alone; priorities; the double fault. */
#include "guest.h"

static u8 ALIGNED(64) memory[256];
#define RF(t) (((t).regs.flags & FLAG_RF) != 0)

static void divide_errors(void)
{
    /* SDM 3A 6.15, vector 0: fault, no error code, saved ip at DIV or IDIV; registers unchanged */
    struct trap t = FAULT("de-div8-by-zero", TRY("mov ecx, 0\n 8: div cl", .ax = 0x1234), DE, 0);
    CHECK_EQ("de-div8-keeps-ax", t.regs.ax, 0x1234);
    CHECK_EQ("de-saved-cs", t.regs.cs, SEL_CODE);
    FAULT("de-div8-overflow", TRY("div cl", .ax = 0x200, .cx = 2), DE, 0);
    DONE("de-div8-largest", TRY("div cl", .ax = 0x1ff, .cx = 2));
    FAULT("de-div16-by-zero", TRY("div cx", .ax = 5), DE, 0);
    FAULT("de-div16-overflow", TRY("div cx", .dx = 2, .cx = 2), DE, 0);
    t = FAULT("de-div32-overflow", TRY("div ecx", .ax = 7, .dx = 2, .cx = 2), DE, 0);
    CHECK("de-div32-keeps-registers", t.regs.ax == 7 && t.regs.dx == 2 && t.regs.cx == 2);
    FAULT("de-idiv8-overflow", TRY("idiv cl", .ax = 0x8000, .cx = 0xff), DE, 0);
    FAULT("de-idiv32-min-by-minus-one", TRY("idiv ecx", .ax = 0x80000000, .dx = 0xffffffff, .cx = 0xffffffff),
          DE, 0);
    t = DONE("de-idiv32-min-by-one", TRY("idiv ecx", .ax = 0x80000000, .dx = 0xffffffff, .cx = 1));
    CHECK_EQ("de-idiv32-min-quotient", (u32)t.regs.ax, 0x80000000u);
    memory[0] = 0;
    FAULT("de-div-memory", TRY("div byte ptr [ebx]", .ax = 5, .bx = (ulong)memory), DE, 0);
#if WIDE
    FAULT("de-div64-by-zero", TRY("div rcx", .ax = 5), DE, 0);
    FAULT("de-idiv64-min-by-minus-one", TRY("idiv rcx", .ax = 1ul << 63, .dx = ~0ul, .cx = ~0ul), DE, 0);
    FAULT("ud-aam-in-64-bit", TRY(".byte 0xd4, 10"), UD, 0);
#else
    FAULT("de-aam-zero", TRY("aam 0", .ax = 5), DE, 0); /* SDM 2A, AAM */
    DONE("de-aam-ten", TRY("aam 10", .ax = 55));
#endif
    /* SDM 3B 17.3.1.1: faults push RF = 1, traps and INT n push RF as it was */
    t = TRY("div cl", .ax = 5);
    CHECK("de-pushes-rf", RF(t));
    t = TRY_USER("div cl", .ax = 5);
    check_fault("de-from-user", &t, DE, 0);
    CHECK_EQ("de-from-user-cs", t.regs.cs, SEL_USER_CODE);
    CHECK_EQ("de-from-user-ss", t.regs.ss, SEL_USER_DATA);
    CHECK_EQ("de-from-user-sp", t.regs.sp, (ulong)user_stack_top);
}

static void software_interrupts(void)
{
    /* SDM 3A 6.15, vectors 3 and 4: traps, saved ip behind the instruction */
    struct trap t = TRAP("bp-int3", TRY("int3"), BP);
    CHECK("bp-pushes-no-rf", !RF(t));
    TRAP("bp-cd03", TRY(".byte 0xcd, 3"), BP);
    TRAP("bp-user", TRY_USER("int3"), BP);
    TRAP("icebp", TRY(".byte 0xf1"), DB);
#if WIDE
    FAULT("of-into-invalid", TRY(".byte 0xce"), UD, 0);
#else
    TRAP("of-into", TRY("into", .flags = FLAG_OF), OF);
    DONE("of-into-clear", TRY("into"));
    TRAP("of-into-user", TRY_USER("into", .flags = FLAG_OF), OF);
#endif
    TRAP("int-4", TRY("int 4"), OF);
    /* SDM 3A 6.12.1.2: INT n, INT3, INTO from CPL > gate DPL: #GP(vector * 8 + IDT) at the instruction */
    FAULT("int-dpl-user", TRY_USER("int 0x50"), GP, 0x50 * 8 + 2);
    set_gate(BP, (ulong)trap_stubs[BP], GATE_INT, 0);
    FAULT("int3-dpl-user", TRY_USER("int3"), GP, BP * 8 + 2);
    /* ... but not INT1 (ICEBP), which ignores DPL (SDM 2A, INT n, "INT1"). */
    reset_gate(BP);
    TRAP("icebp-user-ignores-dpl", TRY_USER(".byte 0xf1"), DB);
    /* INT n pushes no error code, even on the vector of an exception that has one */
    set_gate(GP, (ulong)trap_stubs_plain[GP], GATE_INT, 0);
    TRAP("int-13-no-error-code", TRY("int 13"), GP);
    set_gate(PF, (ulong)trap_stubs_plain[PF], GATE_INT, 0);
    TRAP("int-14-no-error-code", TRY("int 14"), PF);
    reset_gate(GP);
    reset_gate(PF);
    TRAP("int-255", TRY("int 255"), 255);
    /* Interrupt gate clears IF, trap gate keeps it; TF, NT, RF are cleared (6.12.1.2); saved image has
     * them. */
    t = TRY("int 0x30", .flags = FLAG_CF | FLAG_ZF | FLAG_SF | FLAG_OF | FLAG_DF | FLAG_AF | FLAG_PF);
    CHECK_EQ("int-saved-flags", t.regs.flags,
             FLAG_CF | FLAG_ZF | FLAG_SF | FLAG_OF | FLAG_DF | FLAG_AF | FLAG_PF | 2);
}

static ulong handler_flags, handler_sp;
static void note_flags(struct frame *f)
{
    handler_flags = read_flags();
    handler_sp = (ulong)f;
}

static void gate_flags(void)
{
    set_handler(0x31, note_flags);
    pic_mask(0xffff);
    struct trap t = DONE("int-gate-returns", TRY("int 0x31", .flags = FLAG_IF, .ax = 0x5a));
    CHECK("int-gate-clears-if", !(handler_flags & FLAG_IF));
    CHECK("int-gate-iret-restores-if", t.regs.flags & FLAG_IF);
    CHECK_EQ("int-gate-keeps-ax", t.regs.ax, 0x5a);
    set_gate(0x31, (ulong)trap_stubs[0x31], GATE_TRAP, 0);
    TRY("int 0x31", .flags = FLAG_IF);
    CHECK("trap-gate-keeps-if", handler_flags & FLAG_IF);
    TRY("int 0x31");
    CHECK("trap-gate-keeps-if-clear", !(handler_flags & FLAG_IF));
    t = TRY("int 0x31", .flags = FLAG_NT);
    CHECK("trap-gate-clears-nt", !(handler_flags & FLAG_NT));
    CHECK("trap-gate-iret-restores-nt", t.regs.flags & FLAG_NT);
    t = TRY("int 0x31", .flags = FLAG_AC);
    CHECK("trap-gate-keeps-ac", handler_flags & FLAG_AC);
#if WIDE
    /* SDM 3A 6.14.2: rsp is aligned to 16 before the frame is pushed, also without a change of privilege */
    bool aligned = true;
    for (ulong i = 0; i < 16; i++) {
        TRY("int 0x31", .sp = (ulong)snippet_stack_top - 128 - i);
        aligned = aligned && (handler_sp + sizeof(struct frame)) % 16 == 0;
    }
    CHECK("long-frame-aligned", aligned);
    t = TRY("int 0x31", .sp = (ulong)snippet_stack_top - 131);
    CHECK_EQ("long-saved-rsp", t.regs.sp, (ulong)snippet_stack_top - 131);
#else
    t = TRY("int 0x30", .sp = (ulong)snippet_stack_top - 131);
    CHECK_EQ("protected-frame-unaligned", t.regs.sp, (ulong)snippet_stack_top - 131);
#endif
    set_handler(0x31, NULL);
    reset_gate(0x31);
    /* Vector beyond the IDT's limit; gate not present; gate of a wrong type (6.12.1.1, 6.15 vector 13 and
     * 11) */
    set_gate_full(0x31, SEL_CODE, (ulong)trap_stubs[0x31], GATE_INT, 0);
    FAULT("gate-not-present", TRY("int 0x31"), NP, 0x31 * 8 + 2);
    set_gate_full(0x31, SEL_CODE, (ulong)trap_stubs[0x31], D_PRESENT | 9, 0);
    FAULT("gate-wrong-type", TRY("int 0x31"), GP, 0x31 * 8 + 2);
    set_gate_full(0x31, 0, (ulong)trap_stubs[0x31], D_PRESENT | GATE_INT, 0);
    FAULT("gate-null-selector", TRY("int 0x31"), GP, 0);
    set_gate_full(0x31, SEL_DATA, (ulong)trap_stubs[0x31], D_PRESENT | GATE_INT, 0);
    FAULT("gate-data-selector", TRY("int 0x31"), GP, SEL_DATA);
    set_gate_full(0x31, GDT_ENTRIES * 8, (ulong)trap_stubs[0x31], D_PRESENT | GATE_INT, 0);
    FAULT("gate-selector-beyond-gdt", TRY("int 0x31"), GP, GDT_ENTRIES * 8);
    set_gdt(SEL_FREE, gdt[SEL_CODE / 8] & ~(1ull << 47));
    set_gate_full(0x31, SEL_FREE, (ulong)trap_stubs[0x31], D_PRESENT | GATE_INT, 0);
    FAULT("gate-selector-not-present", TRY("int 0x31"), NP, SEL_FREE);
    set_gate_full(DE, SEL_CODE, (ulong)trap_stubs[DE], GATE_INT, 0);
    /* #DE, then a contributory #NP while delivering: double fault (table 6-5) */
    struct trap d = TRY("div cl", .ax = 1);
    CHECK_EQ("de-then-np-is-df", d.vector, DF);
    CHECK_EQ("df-error-code", d.error, 0);
    reset_gate(DE);
    /* A code segment with DPL > CPL */
    set_gdt(SEL_FREE, gdt[SEL_USER_CODE / 8]);
    set_gate_full(0x31, SEL_FREE, (ulong)trap_stubs[0x31], D_PRESENT | GATE_INT, 0);
    FAULT("gate-target-less-privileged", TRY("int 0x31"), GP, SEL_FREE);
    reset_gate(0x31);
}

static void idt_limit(void)
{
    struct {
        u16 limit;
        ulong base;
    } __attribute__((packed)) small = { 0x30 * (WIDE ? 16 : 8) - 1, (ulong)idt },
                              full = { sizeof(idt) - 1, (ulong)idt };
    asm volatile("lidt %0" : : "m"(small));
    struct trap t = TRY("int 0x31\n jmp 1f\n 1:", .ax = 1);
    asm volatile("lidt %0" : : "m"(full));
    check_fault("idt-limit", &t, GP, 0x31 * 8 + 2);
}

static void invalid_opcodes(void)
{
    struct trap t = FAULT("ud2", TRY("ud2"), UD, 0); /* vector 6 */
    CHECK("ud-pushes-rf", RF(t));
    FAULT("ud1", TRY(".byte 0x0f, 0xb9, 0xc0"), UD, 0);
    FAULT("ud-user", TRY_USER("ud2"), UD, 0);
    FAULT("ud-lock-mov", TRY(".byte 0xf0, 0x89, 0x00", .ax = (ulong)memory), UD, 0);
    FAULT("ud-lock-add-register", TRY(".byte 0xf0, 0x01, 0xc0"), UD, 0);
    FAULT("ud-lock-nop", TRY(".byte 0xf0, 0x90"), UD, 0);
    DONE("lock-add-memory", TRY("lock add dword ptr [ebx], 1", .bx = (ulong)memory));
    FAULT("ud-mov-to-cs", TRY(".byte 0x8e, 0xc8"), UD, 0);
    FAULT("ud-mov-seg-6", TRY(".byte 0x8e, 0xf0"), UD, 0);
    FAULT("ud-mov-cr1", TRY(".byte 0x0f, 0x22, 0xc8"), UD, 0);
    FAULT("ud-lea-register", TRY(".byte 0x8d, 0xc0"), UD, 0);
    FAULT("ud-fe-2", TRY(".byte 0xfe, 0xd0"), UD, 0);
    FAULT("ud-ff-7", TRY(".byte 0xff, 0xf8"), UD, 0);
    FAULT("ud-cmpxchg8b-register", TRY(".byte 0x0f, 0xc7, 0xc8"), UD, 0);
    FAULT("ud-lidt-register", TRY(".byte 0x0f, 0x01, 0xdb\n nop"), UD, 0);
#if WIDE
    static const u8 gone[] = { 0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37,
                               0x3f, 0x60, 0x61, 0x82, 0x9a, 0xce, 0xd4, 0xd5, 0xd6, 0xea };
    u32 bad = 0;
    static u8 ALIGNED(16) code[16];
    for (u32 i = 0; i < sizeof(gone); i++) {
        code[0] = gone[i];
        fill(code + 1, 0x90, sizeof(code) - 1);
        code[14] = 0xcd, code[15] = VECTOR_DONE; /* whatever it is taken for, it ends */
        struct trap u = run_code((struct code){ (ulong)code, (ulong)code, (ulong)code },
                                 (struct regs){ .ax = 0 });
        if (u.vector != UD || u.off != 0)
            print("opcode 0x%02x: vector %lu\n", gone[i], u.vector), bad++;
    }
    CHECK_EQ("ud-opcodes-gone-in-64-bit", bad, 0); /* SDM 2B, "Invalid in 64-bit mode" */
    FAULT("ud-lds-is-vex-prefix", TRY(".byte 0xc5, 0x00, 0x00, 0x00"), UD, 0);
#else
    FAULT("ud-bound-register", TRY(".byte 0x62, 0xc0"), UD, 0);
    FAULT("ud-syscall-without-sce", TRY("syscall"), UD, 0);
    FAULT("ud-lds-register-is-vex", TRY(".byte 0xc5, 0xf8, 0x77"), UD, 0); /* CR4.OSXSAVE = 0 */
#endif
    /* vector 13: an instruction of more than 15 bytes */
    FAULT("gp-16-bytes", TRY(".fill 15, 1, 0x66\n nop"), GP, 0);
    DONE("15-bytes", TRY(".fill 14, 1, 0x66\n nop"));
}

#if !WIDE
static void bound(void)
{
    static const int limits[2] = { -5, 10 };
    struct trap t = FAULT("br-above", TRY("bound eax, [ebx]", .ax = 11, .bx = (ulong)limits), BR,
                          0); /* vector 5: fault */
    CHECK("br-pushes-rf", RF(t));
    FAULT("br-below", TRY("bound eax, [ebx]", .ax = (ulong)-6, .bx = (ulong)limits), BR, 0);
    DONE("br-lowest", TRY("bound eax, [ebx]", .ax = (ulong)-5, .bx = (ulong)limits));
    DONE("br-highest", TRY("bound eax, [ebx]", .ax = 10, .bx = (ulong)limits));
}
#endif

static void device_not_available(void)
{
    ulong cr0 = read_cr0();
    write_cr0(cr0 | CR0_TS);
    FAULT("nm-ts-fpu", TRY("fld1"), NM, 0);   /* vector 7, SDM 3A table 2-2 */
    FAULT("nm-ts-wait", TRY("fwait"), NM, 0); /* MP and TS */
    write_cr0((cr0 | CR0_TS) & ~(ulong)CR0_MP);
    DONE("nm-ts-wait-without-mp", TRY("fwait"));
    write_cr0(cr0 | CR0_EM);
    FAULT("nm-em-fpu", TRY("fld1"), NM, 0);
    DONE("nm-em-wait", TRY("fwait"));
    write_cr0(cr0 | CR0_TS);
    DONE("clts", TRY("clts\n fninit\n fld1"));
    CHECK("clts-clears-ts", !(read_cr0() & CR0_TS));
    write_cr0(cr0);
}

static void fpu_errors(void)
{
    ulong cr4 = read_cr4();
    /* vector 16: at the next waiting x87 instruction, not at the one in error */
    struct trap t = FAULT(
        "mf-fwait", TRY("fninit\n push 0x037b\n fldcw [" R(sp) "]\n fld1\n fldz\n fdivp\n 8: fwait"), MF, 0);
    CHECK("mf-pushes-rf", RF(t));
    FAULT("mf-next-x87",
          TRY("fninit\n push 0x037b\n fldcw [" R(sp) "]\n fld1\n fldz\n fdivp\n nop\n 8: fld1"), MF, 0);
    t = DONE("mf-no-wait-instructions", TRY("fninit\n push 0x037b\n fldcw [" R(
                                            sp) "]\n fld1\n fldz\n fdivp\n fnstsw ax\n fnclex\n fld1"));
    CHECK("mf-status-es-ze", (t.regs.ax & 0x8084) == 0x8084);
    DONE("mf-masked", TRY("fninit\n fld1\n fldz\n fdivp\n fwait\n fninit"));
    TRY("fninit");
    /* vector 19: a fault at the SSE instruction itself; #UD without CR4.OSXMMEXCPT */
    static u32 mxcsr = 0x1d80, zero; /* divide by zero unmasked */
    write_cr4((cr4 | CR4_OSFXSR | CR4_OSXMMEXCPT));
    t = FAULT(
        "xm-divide",
        TRY("ldmxcsr [ebx]\n pxor xmm0, xmm0\n mov eax, 0x3f800000\n movd xmm1, eax\n 8: divss xmm1, xmm0",
            .bx = (ulong)&mxcsr),
        XM, 0);
    CHECK("xm-pushes-rf", RF(t));
    t = DONE("xm-keeps-destination", TRY("movd eax, xmm1"));
    CHECK_EQ("xm-destination-value", (u32)t.regs.ax, 0x3f800000);
    u32 now;
    asm volatile("stmxcsr %0" : "=m"(now));
    CHECK_EQ("xm-sets-mxcsr-ze", now, mxcsr | 4);
    write_cr4((cr4 | CR4_OSFXSR) & ~(ulong)CR4_OSXMMEXCPT);
    FAULT("xm-without-osxmmexcpt-is-ud", TRY("divss xmm1, [ebx]", .bx = (ulong)&zero), UD, 0);
    write_cr4(cr4 & ~(ulong)CR4_OSFXSR);
    FAULT("ud-sse-without-osfxsr", TRY("addps xmm0, xmm0"), UD, 0);
    write_cr4(cr4 | CR4_OSFXSR | CR4_OSXMMEXCPT);
    u32 reset = 0x1f80;
    asm volatile("ldmxcsr %0" : : "m"(reset));
    FAULT("gp-sse-misaligned", TRY("movaps xmm0, [ebx]", .bx = (ulong)memory + 8), GP, 0);
    DONE("sse-movups-misaligned", TRY("movups xmm0, [ebx]", .bx = (ulong)memory + 8));
    FAULT("gp-ldmxcsr-reserved", TRY("push -1\n 8: ldmxcsr [" R(sp) "]"), GP, 0);
    ulong cr0 = read_cr0();
    write_cr0(cr0 | CR0_TS);
    FAULT("nm-ts-sse", TRY("addps xmm0, xmm0"), NM, 0);
    FAULT("nm-ts-mmx", TRY("paddb mm0, mm0"), NM, 0);
    write_cr0(cr0 | CR0_EM);
    FAULT("ud-em-sse", TRY("addps xmm0, xmm0"), UD, 0);
    FAULT("ud-em-mmx", TRY("paddb mm0, mm0"), UD, 0);
    write_cr0(cr0);
    write_cr4(cr4);
}

static void alignment(void)
{
    ulong cr0 = read_cr0(), p = (ulong)memory;
    /* vector 17: CPL 3, CR0.AM and EFLAGS.AC; error code 0 (SDM 3A 6.15) */
    DONE("ac-without-am", TRY_USER("mov eax, [ebx]", .bx = p + 1, .flags = FLAG_AC));
    write_cr0(cr0 | CR0_AM);
    DONE("ac-without-flag", TRY_USER("mov eax, [ebx]", .bx = p + 1));
    struct trap t = FAULT("ac-dword", TRY_USER("mov eax, [ebx]", .bx = p + 1, .flags = FLAG_AC), AC, 0);
    CHECK("ac-pushes-rf", RF(t));
    FAULT("ac-dword-store", TRY_USER("mov [ebx], eax", .bx = p + 2, .flags = FLAG_AC), AC, 0);
    FAULT("ac-word", TRY_USER("mov ax, [ebx]", .bx = p + 1, .flags = FLAG_AC), AC, 0);
    DONE("ac-word-even", TRY_USER("mov ax, [ebx]", .bx = p + 2, .flags = FLAG_AC));
    DONE("ac-byte", TRY_USER("mov al, [ebx]", .bx = p + 1, .flags = FLAG_AC));
    FAULT("ac-push", TRY_USER("push " R(ax), .sp = (ulong)user_stack_top - 6, .flags = FLAG_AC), AC, 0);
    FAULT("ac-movsd", TRY_USER("movsd", .si = p + 1, .di = p + 64, .flags = FLAG_AC), AC, 0);
    DONE("ac-not-at-cpl0", TRY("mov eax, [ebx]", .bx = p + 1, .flags = FLAG_AC));
#if WIDE
    FAULT("ac-qword", TRY_USER("mov rax, [rbx]", .bx = p + 4, .flags = FLAG_AC), AC, 0);
#endif
    write_cr0(cr0);
}

static void selectors(void)
{
    FAULT("gp-load-beyond-gdt", TRY("mov es, eax", .ax = GDT_ENTRIES * 8), GP, GDT_ENTRIES * 8);
    FAULT("gp-load-ldt", TRY("mov es, eax", .ax = 0x0c), GP, 0x0c); /* no LDT: TI bit in the error code */
    FAULT("gp-load-rpl-dropped", TRY("mov es, eax", .ax = (GDT_ENTRIES * 8) | 3), GP, GDT_ENTRIES * 8);
    set_gdt(SEL_FREE, gdt[SEL_DATA / 8] & ~(1ull << 47));
    FAULT("np-load-es", TRY("mov es, eax", .ax = SEL_FREE), NP, SEL_FREE);
    FAULT("ss-load-not-present", TRY("mov ss, eax", .ax = SEL_FREE), SS, SEL_FREE);
    struct trap t = TRY("mov es, eax", .ax = SEL_FREE, .es = SEL_DATA);
    CHECK_EQ("np-keeps-es", t.regs.es, SEL_DATA);
    FAULT("gp-load-ss-null", TRY_USER("mov ss, eax", .ax = 0), GP, 0);
    FAULT("gp-load-ss-rpl", TRY("mov ss, eax", .ax = SEL_USER_DATA), GP, SEL_USER_DATA & ~3);
    FAULT("ts-or-gp-ltr-busy", TRY("ltr ax", .ax = SEL_TSS), GP, SEL_TSS); /* busy TSS */
}

static void user_privilege(void)
{
    FAULT("gp-user-cli", TRY_USER("cli"), GP, 0);
    FAULT("gp-user-hlt", TRY_USER("hlt"), GP, 0);
    FAULT("gp-user-in", TRY_USER("in al, 0x80"), GP, 0);
}

/* ---- priorities (SDM 3A table 6-2) and the double fault (6.15, vector 8) ---- */

static void priorities(void)
{
    /* #UD of an undefined opcode comes before #GP of privilege and before its memory operand's fault */
    FAULT("prio-lock-ud-before-gp", TRY_USER(".byte 0xf0\n hlt"), UD, 0);
    write_cr0(read_cr0() | CR0_TS);
    FAULT("prio-nm-before-memory", TRY("fld dword ptr [ebx]", .bx = 0xfffffff0), NM, 0);
    write_cr0(read_cr0() & ~(ulong)CR0_TS);
    FAULT("prio-privilege-before-gate", TRY_USER("lidt [eax]", .ax = (ulong)memory), GP, 0);
    /* INT n: DPL is checked before presence */
    set_gate_full(0x31, SEL_CODE, (ulong)trap_stubs[0x31], GATE_INT, 0);
    FAULT("prio-dpl-before-present", TRY_USER("int 0x31"), GP, 0x31 * 8 + 2);
    reset_gate(0x31);
}

static void double_faults(void)
{
    struct trap t;
    /* contributory then contributory; DF's error code is 0, whatever came first */
    set_gate_full(GP, 0, 0, 0, 0);
    t = TRY("mov es, eax", .ax = GDT_ENTRIES * 8);
    CHECK_EQ("gp-then-np-is-df", t.vector, DF);
    CHECK_EQ("df-error-zero", t.error, 0);
    reset_gate(GP);
    set_gate_full(NP, 0, 0, 0, 0);
    set_gate_full(0x31, SEL_CODE, 0, GATE_INT, 0);
    t = TRY("int 0x31");
    CHECK_EQ("np-then-np-is-df", t.vector, DF);
    reset_gate(NP);
    reset_gate(0x31);
    /* benign then contributory: the second is handled: #UD through a bad gate gives #GP or #NP */
    set_gate_full(UD, SEL_CODE, 0, GATE_INT, 0);
    FAULT("ud-then-np-is-np", TRY("ud2"), NP, UD * 8 + 2 + 1);
    reset_gate(UD);
    set_gate_full(BP, SEL_CODE, 0, GATE_INT, 0);
    /* INT3 is software: EXT stays 0 (6.13) */
    FAULT("int3-then-np", TRY("int3"), NP, BP * 8 + 2);
    set_gate_full(DB, SEL_CODE, 0, GATE_INT, 0);
    FAULT("icebp-then-np-sets-ext", TRY(".byte 0xf1"), NP, DB * 8 + 2 + 1); /* SDM 2A INT1: EXT set */
    reset_gate(BP);
    reset_gate(DB);
}

void guest_main(void)
{
    divide_errors();
    software_interrupts();
    gate_flags();
    idt_limit();
    invalid_opcodes();
#if !WIDE
    bound();
#endif
    device_not_available();
    fpu_errors();
    alignment();
    selectors();
    user_privilege();
    priorities();
    double_faults();
}
