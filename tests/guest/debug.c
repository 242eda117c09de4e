/* SPDX-License-Identifier: Apache-2.0 */
/* Single step and hardware breakpoints (SDM 3B 17.2, 17.3). */
#include "guest.h"

#define DR6_CLEAR 0xffff0ff0ul
#define DR7_CLEAR 0x400ul
enum { B0 = 1, B1 = 2, B2 = 4, B3 = 8, BD = 1 << 13, BS = 1 << 14 };
enum { EXECUTE = 0, WRITE = 1, IO = 2, ACCESS = 3 };
enum { LEN1 = 0, LEN2 = 1, LEN8 = 2, LEN4 = 3 };

static volatile u64 ALIGNED(64) data[16];
static u32 steps;
static ulong step_ip[64], step_dr6[64];

static void step(struct frame *f)
{
    if (steps < ARRAY_LEN(step_ip)) {
        step_ip[steps] = f->ip;
        step_dr6[steps] = read_dr6();
    }
    write_dr6(DR6_CLEAR);
    if (++steps > 60)
        f->flags &= ~(ulong)FLAG_TF;
}

static struct trap stepped(struct code c, struct regs in)
{
    steps = 0;
    write_dr6(DR6_CLEAR);
    set_handler(DB, step);
    in.flags |= FLAG_TF;
    struct trap t = run_code(c, in);
    set_handler(DB, NULL);
    return t;
}

static void set_break(int n, ulong address, ulong type, ulong length)
{
    switch (n) {
    case 0: write_dr0(address); break;
    case 1: write_dr1(address); break;
    case 2: write_dr2(address); break;
    default: write_dr3(address); break;
    }
    write_dr7(read_dr7() | 2ul << (2 * n) | (type | length << 2) << (16 + 4 * n));
    write_dr6(DR6_CLEAR);
}

static void no_breaks(void)
{
    write_dr7(DR7_CLEAR);
    write_dr6(DR6_CLEAR);
    write_dr0(0), write_dr1(0), write_dr2(0), write_dr3(0); /* B bits of disabled ones are not defined */
}

/* ---- TF ---- */

static void single_step(void)
{
    struct code c = CODE("nop\n nop\n nop");
    write_dr6(DR6_CLEAR);
    struct trap t = TRY_CODE(c, .flags = FLAG_TF);
    CHECK("step-vector", t.vector == DB && t.off == 1);
    CHECK_EQ("step-dr6", t.dr6, DR6_CLEAR | BS);
    CHECK_EQ("step-saved-flags", t.regs.flags, FLAG_TF | 2);
    CHECK_EQ("step-handler-without-tf", read_flags() & FLAG_TF, 0);
    stepped(c, (struct regs){ .ax = 0 });
    CHECK("step-every-instruction",
          steps >= 3 && step_ip[0] == c.start + 1 && step_ip[1] == c.start + 2 && step_ip[2] == c.start + 3);
    CHECK_EQ("step-not-into-int", steps, 3); /* INT clears TF: no step at the handler's first instruction */
    stepped(c, (struct regs){ .cs = SEL_USER_CODE });
    CHECK("step-user", steps == 3 && step_ip[2] == c.start + 3);

    /* a repeated string instruction steps after each iteration (17.3.1.4) */
    c = CODE("8: rep movsb\n nop");
    stepped(c, (struct regs){ .cx = 3, .si = (ulong)data, .di = (ulong)data + 32 });
    CHECK_EQ("step-rep-count", steps, 4);
    CHECK("step-rep-ip", step_ip[0] == c.start && step_ip[1] == c.start && step_ip[2] == c.start + 2);
    stepped(c, (struct regs){ .cx = 0, .si = (ulong)data, .di = (ulong)data + 32 });
    CHECK("step-rep-zero", steps == 2 && step_ip[0] == c.start + 2);

    /* POPF that sets TF: the first trap comes after the next instruction; one that clears it still traps */
    c = CODE("push 0x102\n popf\n 8: nop\n nop");
    write_dr6(DR6_CLEAR);
    t = TRY_CODE(c, .ax = 0);
    CHECK("step-popf-sets", t.vector == DB && t.off == 1);
    c = CODE("push 2\n popf\n 8: nop\n nop");
    stepped(c, (struct regs){ .ax = 0 });
    CHECK("step-popf-clears", steps == 2 && step_ip[1] == c.mark);

    /* MOV SS and POP SS hold the trap back by one instruction (6.8.3) */
    c = CODE("mov ss, eax\n inc ecx\n 8: nop\n nop");
    stepped(c, (struct regs){ .ax = SEL_DATA });
    CHECK("step-mov-ss", steps == 3 && step_ip[0] == c.mark);
#if !WIDE
    c = CODE("push ss\n pop ss\n inc ecx\n 8: nop\n nop");
    stepped(c, (struct regs){ .ax = SEL_DATA });
    CHECK("step-pop-ss", steps == 4 && step_ip[1] == c.mark);
#endif
    /* STI does not */
    c = CODE("sti\n 8: cli\n nop");
    stepped(c, (struct regs){ .ax = 0 });
    CHECK("step-sti", steps == 3 && step_ip[0] == c.mark);

    /* a fault wins: the instruction did not complete */
    c = CODE("8: ud2");
    t = stepped(c, (struct regs){ .ax = 0 });
    CHECK("step-fault", t.vector == UD && steps == 0 && (t.regs.flags & FLAG_TF));
    CHECK_EQ("step-fault-dr6", read_dr6() & 0x4000, 0);
    /* taken and not taken branches, calls */
    c = CODE("jmp 1f\n ud2\n 1: call 2f\n 2: pop " R(ax) "\n jz 3f\n 3: nop");
    stepped(c, (struct regs){ .ax = 0 });
    CHECK_EQ("step-branches", steps, 5);
    /* PUSHF shows TF */
    c = CODE("pushf\n pop " R(ax));
    t = stepped(c, (struct regs){ .ax = 0 });
    CHECK("step-pushf-image", t.regs.ax & FLAG_TF);
    /* IRET that sets TF: after the next instruction; the handler's IRET above proves it again and again */
    t = TRY("nop\n 8: nop", .flags = FLAG_TF);
    CHECK("step-iret", t.vector == DB && t.off == 0);
    /* BS adds to what is there: the processor never clears DR6 (17.2.3) */
    write_dr6(DR6_CLEAR | BD);
    t = TRY("nop", .flags = FLAG_TF);
    CHECK_EQ("dr6-is-sticky", t.dr6 & (BD | BS), BD | BS);
    write_dr6(DR6_CLEAR);
#if WIDE
    /* SYSCALL with TF masked: no step in the kernel's first instructions */
    c = CODE("mov eax, 5\n nop");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (u64)SEL_CODE << 32 | (u64)SEL_USER_CODE32 << 48);
    wrmsr(MSR_LSTAR, c.start);
    wrmsr(MSR_SFMASK, FLAG_TF | FLAG_IF);
    t = stepped(CODE("syscall"), (struct regs){ .cs = SEL_USER_CODE });
    CHECK("step-syscall-masked", t.vector == VECTOR_DONE && t.regs.ax == 5 && steps == 0);
    /* SYSRET that sets TF traps before the first user instruction, as if SYSCALL had just completed */
    c = CODE("nop\n nop");
    write_dr6(DR6_CLEAR);
    t = TRY("mov rsp, rbx\n sysretq", .cx = c.start, .r11 = FLAG_TF | 2, .bx = (ulong)user_stack_top);
    CHECK("step-sysret", t.vector == DB && t.regs.cs == SEL_USER_CODE && t.regs.ip == c.start);
#endif
}

/* ---- breakpoints ---- */

static void instruction_breaks(void)
{
    struct code c = CODE("inc eax\n inc eax\n 8: inc eax\n inc eax");
    set_break(0, c.mark, EXECUTE, LEN1);
    struct trap t = FAULT("break-execute", TRY_CODE(c, .ax = 0), DB, 0);
    CHECK_EQ("break-execute-before", t.regs.ax, 2);
    CHECK_EQ("break-execute-dr6", t.dr6, DR6_CLEAR | B0);
    CHECK_EQ("break-execute-pushes-no-rf", t.regs.flags & FLAG_RF,
             0); /* 17.3.1.1: the one fault that does not */
    write_dr6(DR6_CLEAR);
    /* RF: no instruction breakpoint for one instruction; started at the breakpoint itself */
    struct code at = { c.mark, c.mark, c.end };
    t = DONE("break-rf-suppresses", TRY_CODE(at, .ax = 0, .flags = FLAG_RF));
    CHECK_EQ("break-rf-ran", t.regs.ax, 2);
    t = FAULT("break-without-rf", TRY_CODE(at, .ax = 0), DB, 0);
    t = FAULT("break-user", run_code(c, (struct regs){ .cs = SEL_USER_CODE }), DB, 0);
    /* local enable does as well as global */
    no_breaks();
    write_dr3(c.mark);
    write_dr7(DR7_CLEAR | 1 << 6);
    t = FAULT("break-local-dr3", TRY_CODE(c, .ax = 0), DB, 0);
    CHECK_EQ("break-dr3-dr6", t.dr6 & 15, B3);
    no_breaks();
    DONE("break-disabled", TRY_CODE(c, .ax = 0));
    /* it comes before the instruction's own fault; and with single step in one exception */
    c = CODE("nop\n 8: ud2");
    set_break(1, c.mark, EXECUTE, LEN1);
    FAULT("break-before-fault", TRY_CODE(c, .ax = 0), DB, 0);
    write_dr6(DR6_CLEAR);
    t = TRY_CODE(c, .flags = FLAG_TF);
    CHECK("break-and-step", t.vector == DB && t.off == 0 && (t.dr6 & BS));
    no_breaks();
    /* only the first byte counts */
    c = CODE("8: mov eax, 0x12345678");
    set_break(0, c.mark + 1, EXECUTE, LEN1);
    DONE("break-inside-instruction", TRY_CODE(c, .ax = 0));
    no_breaks();
    /* on a repeated instruction: once, before the first iteration (RF is set between iterations) */
    c = CODE("nop\n 8: rep stosb");
    set_break(2, c.mark, EXECUTE, LEN1);
    t = FAULT("break-rep", TRY_CODE(c, .cx = 5, .di = (ulong)data), DB, 0);
    CHECK_EQ("break-rep-count", t.regs.cx, 5);
    no_breaks();
}

static void data_breaks(void)
{
    ulong p = (ulong)data;
    struct trap t;
    set_break(1, p + 8, WRITE, LEN4);
    t = TRAP("break-write", TRY("mov [" R(bx) "], eax", .bx = p + 8, .ax = 0x1234), DB);
    CHECK_EQ("break-write-dr6", t.dr6, DR6_CLEAR | B1);
    CHECK_EQ("break-write-done", (u32)data[1], 0x1234); /* a trap: after the write */
    write_dr6(DR6_CLEAR);
    DONE("break-write-not-by-read", TRY("mov eax, [" R(bx) "]", .bx = p + 8));
    TRAP("break-write-last-byte", TRY("mov [" R(bx) "], al", .bx = p + 11), DB);
    write_dr6(DR6_CLEAR);
    DONE("break-write-next-byte", TRY("mov [" R(bx) "], al", .bx = p + 12));
    DONE("break-write-byte-before", TRY("mov [" R(bx) "], al", .bx = p + 7));
    TRAP("break-write-overlap-below", TRY("mov [" R(bx) "], eax", .bx = p + 5), DB); /* covers byte 8 */
    write_dr6(DR6_CLEAR);
    TRAP("break-write-rmw", TRY("add dword ptr [" R(bx) "], 1", .bx = p + 8), DB);
    write_dr6(DR6_CLEAR);
    TRAP(
        "break-write-push",
        TRY("mov " R(cx) ", " R(sp) "\n mov " R(sp) ", " R(bx) "\n push " R(ax), .bx = p + 8 + sizeof(ulong)),
        DB);
    write_dr6(DR6_CLEAR);
    TRAP("break-write-user", TRY_USER("mov [" R(bx) "], eax", .bx = p + 8), DB);
    no_breaks();
    set_break(2, p + 16, ACCESS, LEN2);
    t = TRAP("break-access-read", TRY("mov al, [" R(bx) "]", .bx = p + 17), DB);
    CHECK_EQ("break-access-dr6", t.dr6 & 15, B2);
    write_dr6(DR6_CLEAR);
    TRAP("break-access-write", TRY("mov [" R(bx) "], al", .bx = p + 16), DB);
    write_dr6(DR6_CLEAR);
    DONE("break-access-beyond", TRY("mov al, [" R(bx) "]", .bx = p + 18));
    no_breaks();
    /* addresses are taken aligned to the length (17.2.5) */
    set_break(0, p + 3, ACCESS, LEN4);
    TRAP("break-address-aligned", TRY("mov al, [" R(bx) "]", .bx = p), DB);
    no_breaks();
    set_break(0, p + 32, WRITE, LEN1);
    DONE("break-len1-next", TRY("mov [" R(bx) "], al", .bx = p + 33));
    TRAP("break-len1", TRY("mov [" R(bx) "], al", .bx = p + 32), DB);
    no_breaks();
#if WIDE
    set_break(3, p + 40, WRITE, LEN8);
    TRAP("break-len8", TRY("mov [rbx], al", .bx = p + 47), DB);
    write_dr6(DR6_CLEAR);
    DONE("break-len8-beyond", TRY("mov [rbx], al", .bx = p + 48));
    no_breaks();
#endif
    /* two at once, and with single step */
    set_break(0, p, WRITE, LEN4);
    set_break(3, p + 4, WRITE, LEN4);
    t = TRAP("break-two", TRY("mov [" R(bx) "], eax", .bx = p + 2), DB);
    CHECK_EQ("break-two-dr6", t.dr6 & 15, B0 | B3);
    write_dr6(DR6_CLEAR);
    t = TRY("mov [" R(bx) "], eax\n 8: nop", .bx = p, .flags = FLAG_TF);
    CHECK("break-with-step", t.vector == DB && t.off == 0 && (t.dr6 & (B0 | BS)) == (B0 | BS));
    no_breaks();
    /* repeated: after the iteration that hits, with the registers of that moment */
    set_break(0, p + 18, WRITE, LEN1);
    t = TRY("8: rep stosb", .cx = 8, .di = p + 16);
    CHECK("break-rep-write", t.vector == DB && t.off == 0 && t.regs.cx == 5 && t.regs.di == p + 19);
    no_breaks();
    /* two memory operands */
    set_break(0, p + 64, ACCESS, LEN1);
    TRAP("break-movs-source", TRY("movsb", .si = p + 64, .di = p), DB);
    write_dr6(DR6_CLEAR);
    TRAP("break-movs-destination", TRY("movsb", .si = p, .di = p + 64), DB);
    no_breaks();
    /* held back by MOV SS like a single step */
    data[0] = SEL_DATA;
    set_break(0, p, ACCESS, LEN2);
    t = TRY("mov ss, [" R(bx) "]\n inc ecx\n 8: nop\n nop", .bx = p, .cx = 0);
    CHECK("break-mov-ss", t.vector == DB && t.off == 0 && t.regs.cx == 1 && (t.dr6 & B0));
    no_breaks();
}

static void io_breaks(void)
{
    ulong cr4 = read_cr4();
    write_cr4(cr4 | CR4_DE);
    set_break(0, 0x80, IO, LEN1);
    struct trap t = TRAP("break-io-out", TRY("out 0x80, al"), DB);
    CHECK_EQ("break-io-dr6", t.dr6 & 15, B0);
    write_dr6(DR6_CLEAR);
    TRAP("break-io-in", TRY("in al, 0x80"), DB);
    write_dr6(DR6_CLEAR);
    DONE("break-io-other", TRY("in al, 0x84"));
    DONE("break-io-not-memory", TRY("mov al, [" R(bx) "]", .bx = 0x80));
    no_breaks();
    /* DR4 and DR5: #UD with CR4.DE, other names of DR6 and DR7 without (17.2.2) */
    FAULT("dr4-with-de", TRY(".byte 0x0f, 0x21, 0xe0"), UD, 0);
    FAULT("dr5-with-de", TRY(".byte 0x0f, 0x23, 0xe8"), UD, 0);
    write_cr4(cr4 & ~(ulong)CR4_DE);
    t = DONE("dr4-without-de", TRY(".byte 0x0f, 0x21, 0xe0\n .byte 0x0f, 0x21, 0xe9"));
    CHECK("dr4-dr5-values", t.regs.ax == DR6_CLEAR && t.regs.cx == DR7_CLEAR);
    write_cr4(cr4);
}

static void registers(void)
{
    /* fixed bits (17.2.3, 17.2.4) */
    write_dr6(0);
    CHECK_EQ("dr6-ones", read_dr6(), DR6_CLEAR);
    write_dr7(0);
    CHECK_EQ("dr7-one", read_dr7(), DR7_CLEAR);
    write_dr0(0x12345678);
    CHECK_EQ("dr0-reads-back", read_dr0(), 0x12345678);
#if WIDE
    FAULT("dr6-high-half", TRY("mov dr6, rax", .ax = 1ul << 32), GP, 0);
    FAULT("dr7-high-half", TRY("mov dr7, rax", .ax = 1ul << 63), GP, 0);
    write_dr1(0x123456789abcdef0);
    CHECK_EQ("dr1-64-bits", read_dr1(), 0x123456789abcdef0);
#endif
    /* general detect (17.2.4): fault at the access, GD cleared for the handler */
    no_breaks();
    write_dr7(DR7_CLEAR | 1 << 13);
    struct trap t = FAULT("gd", TRY("nop\n 8: mov " R(ax) ", dr0"), DB, 0);
    CHECK_EQ("gd-dr6", t.dr6 & (BD | BS), BD);
    CHECK_EQ("gd-cleared", read_dr7(), DR7_CLEAR);
    write_dr6(DR6_CLEAR);
    FAULT("dr-user", TRY_USER("mov " R(ax) ", dr7"), GP, 0);
    no_breaks();
}

void guest_main(void)
{
    no_breaks();
    registers();
    single_step();
    instruction_breaks();
    data_breaks();
    io_breaks();
}
