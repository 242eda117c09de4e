/* SPDX-License-Identifier: Apache-2.0 */
/* Real mode: there and back, interrupts through the IVT, faults, limits, "unreal" segments (SDM 3A 9.9, 3B
 * 20.1). */
#include "guest.h"

#define SEL_CODE16 SEL_FREE
#define SEL_DATA16 (SEL_FREE + 8)

/*
 * Lives at 7000h. Every test leaves a 16-byte record at 6200h: vector (ffh: none), ip, cs, flags, sp as the
 * handler found them, the handler's own flags, and ax as a result.
 */
asm(".intel_syntax noprefix\n"
    ".set AT, 0x7000\n"
    ".macro expect\n" /* from here on a trap continues behind the test */
    "  mov word ptr ds:[0x6110], offset 1f - blob + AT\n"
    "  mov word ptr ds:[0x6100], 0xff\n"
    ".endm\n"
    ".macro test_end\n"
    "1: call record\n"
    ".endm\n"
    ".pushsection .data\n"
    ".globl stubs, blob, blob_end, real_tests, unreal_test, mark_div, mark_ud, mark_gp, mark_ss, mark_bound, "
    "after_int, after_int3, after_into, mark_idt, mark_hlt\n"
    ".code16\n"
    "blob:\n" /* 16-bit protected mode */
    "  mov ds, cx\n mov es, cx\n mov fs, cx\n mov gs, cx\n mov ss, cx\n"
    "  mov eax, cr0\n and al, 0xfe\n mov cr0, eax\n"
    "  .byte 0xea\n .word in_real - blob + AT, 0\n"
    "in_real:\n"
    "  mov sp, 0x6f00\n"
    "  lidt cs:[ivt_pointer - blob + AT]\n"
    "  call dx\n"
    "  cli\n"
    "  mov eax, cr0\n or al, 1\n mov cr0, eax\n"
    "  .byte 0x66, 0xea\n .long back_to_32\n .word 8\n"
    "ivt_pointer: .word 0x3ff\n .long 0\n"
    "short_pointer: .word 0x3f * 4 + 3\n .long 0\n"

    "record:\n"
    "  mov ds:[0x610c], ax\n"
    "  mov si, 0x6100\n mov di, ds:[0x6112]\n mov cx, 8\n push es\n push 0\n pop es\n cld\n rep movsw\n pop "
    "es\n"
    "  mov ds:[0x6112], di\n"
    "  ret\n"

    "handler:\n" /* bp+0 = bp, +2 vector, +4 ip, +6 cs, +8 flags */
    "  push bp\n mov bp, sp\n push ax\n push ds\n pushf\n"
    "  push 0\n pop ds\n"
    "  mov ax, [bp+2]\n mov ds:[0x6100], ax\n"
    "  mov ax, [bp+4]\n mov ds:[0x6102], ax\n"
    "  mov ax, [bp+6]\n mov ds:[0x6104], ax\n"
    "  mov ax, [bp+8]\n mov ds:[0x6106], ax\n"
    "  and word ptr [bp+8], 0xfeff\n lea ax, [bp+4]\n mov ds:[0x6108], ax\n"
    "  mov ax, [bp-6]\n mov ds:[0x610a], ax\n"
    "  cmp word ptr [bp+2], 0x28\n jne 2f\n mov al, 0x20\n out 0x20, al\n inc word ptr ds:[0x6114]\n jmp 3f\n"
    "2: mov ax, ds:[0x6110]\n or ax, ax\n jz 3f\n mov [bp+4], ax\n"
    "3: popf\n pop ds\n pop ax\n pop bp\n add sp, 2\n iret\n"

    ".align 8\n stubs:\n"
    ".set v, 0\n .rept 65\n .align 8\n push v\n jmp handler\n .set v, v + 1\n .endr\n"

    "real_tests:\n"
    "  xor ax, ax\n mov ds, ax\n mov es, ax\n mov ss, ax\n"
    "  mov word ptr ds:[0x6112], 0x6200\n"
    /* 0: state */
    "  expect\n smsw ax\n test_end\n"
    /* 1: INT n and IRET; the handler continues where it was told to, so look at the pushed ip */
    "  expect\n mov ax, 0xed7\n push ax\n popf\n int 0x40\n after_int: test_end\n"
    /* 2: IRET restored the flags */
    "  pushf\n pop ax\n cld\n expect\n test_end\n"
    /* 3: divide error */
    "  expect\n mov ax, 7\n xor cx, cx\n mark_div: div cl\n test_end\n"
    /* 4: undefined opcode */
    "  expect\n mark_ud: ud2\n test_end\n"
    /* 5: word at ffffh: #GP, no error code */
    "  expect\n mov bx, 0xffff\n mark_gp: mov ax, [bx]\n test_end\n"
    /* 6: through SS: #SS */
    "  expect\n mov bp, 0xffff\n mark_ss: mov ax, [bp]\n test_end\n"
    /* 7: BOUND */
    "  mov word ptr ds:[0x6180], 1\n mov word ptr ds:[0x6182], 3\n expect\n mov ax, 4\n mark_bound: bound "
    "ax, ds:[0x6180]\n test_end\n"
    /* 8, 9: INT3, INTO */
    "  expect\n int3\n after_int3: test_end\n"
    "  expect\n mov ax, 0x802\n push ax\n popf\n into\n after_into: test_end\n"
    /* 10: SLDT is undefined in real mode */
    "  expect\n .byte 0x0f, 0x00, 0xc0\n test_end\n"
    /* 11: ARPL too */
    "  expect\n .byte 0x63, 0xc0\n test_end\n"
    /* 12: segment base is selector * 16 */
    "  mov byte ptr ds:[0x6190], 0x5c\n expect\n mov bx, 0x619\n mov es, bx\n xor ax, ax\n mov al, es:[0]\n "
    "push 0\n pop es\n test_end\n"
    /* 13: POPF sets IOPL and NT as it likes */
    "  expect\n mov ax, 0x7002\n push ax\n popf\n pushf\n pop ax\n push 2\n popf\n test_end\n"
    /* 14: 32-bit operands */
    "  expect\n mov eax, 0x12345678\n mov ebx, eax\n shr ebx, 16\n mov ax, bx\n test_end\n"
    /* 15: far call and return */
    "  expect\n .byte 0x9a\n .word far_target - blob + AT, 0\n test_end\n"
    /* 16: an IDT limit below the vector: #GP */
    "  lidt cs:[short_pointer - blob + AT]\n expect\n mark_idt: int 0x40\n test_end\n"
    "  lidt cs:[ivt_pointer - blob + AT]\n"
    /* 17: stack wraps at 64 KiB */
    "  mov ebp, esp\n expect\n xor esp, esp\n push 0x1234\n mov ax, sp\n mov esp, ebp\n test_end\n"
    /* 18: single step into the IVT */
    "  expect\n mov ax, 0x102\n push ax\n popf\n nop\n nop\n test_end\n"
    "  push 2\n popf\n"
    /* 19: system registers are free: MOV CR, RDMSR, CLTS */
    "  expect\n mov eax, cr4\n mov eax, cr3\n clts\n mov ecx, 0x10\n rdmsr\n test_end\n"
    /* 20: LMSW cannot clear PE but may be given 0 here; PE stays 0 */
    "  expect\n smsw ax\n lmsw ax\n smsw ax\n test_end\n"
    /* 21: timer interrupt through the 8259 at vector 28h and HLT */
    "  mov word ptr ds:[0x6114], 0\n mov word ptr ds:[0x6110], 0\n mov word ptr ds:[0x6100], 0xff\n"
    "  mov al, 0xfe\n out 0x21, al\n"
    "  mov al, 0x30\n out 0x43, al\n mov al, 0\n out 0x40, al\n mov al, 0x10\n out 0x40, al\n"
    "  sti\n hlt\n mark_hlt: cli\n mov al, 0xff\n out 0x21, al\n mov ax, ds:[0x6114]\n"
    "  call record\n"
    /* 22: an address of 32 bits beyond the 64 KiB limit */
    "  expect\n mov ebx, 0x10000\n mov al, [ebx]\n test_end\n"
    "  ret\n"
    "far_target: mov ax, 0x7777\n retf\n"

    /* DS has kept its 4 GiB limit and, until it is loaded, base 0 */
    "unreal_test:\n"
    "  mov ebx, 0x200000\n mov eax, [ebx]\n add eax, 1\n mov [ebx], eax\n"
    "  xor ax, ax\n mov ds, ax\n"
    "  mov eax, [ebx]\n mov ds:[0x6180], eax\n" /* the limit survives a load in real mode */
    "  mov ax, 0x10\n mov ds, ax\n mov eax, [ebx-0x100]\n push 0\n pop ds\n mov ds:[0x6184], eax\n"
    "  mov ax, 0\n mov ss, ax\n"
    "  ret\n"
    "blob_end:\n"
    ".code32\n"
    ".popsection\n"

    ".globl real_run\n"
    "real_run:\n" /* void real_run(u32 offset, u32 data_selector) */
    "  mov edx, [esp+4]\n mov ecx, [esp+8]\n"
    "  pushad\n pushfd\n cli\n"
    "  mov saved_esp, esp\n sidt saved_idt\n"
    "  .byte 0xea\n .long 0x7000\n .word 0xc0\n"
    "back_to_32:\n"
    "  mov eax, 0x10\n mov ds, eax\n mov es, eax\n mov fs, eax\n mov gs, eax\n mov ss, eax\n"
    "  mov esp, saved_esp\n lidt saved_idt\n"
    "  popfd\n popad\n ret\n"
    ".att_syntax prefix\n"
    ".local saved_esp, saved_idt\n .comm saved_esp, 4\n .comm saved_idt, 8\n");

extern u8 blob[], blob_end[], real_tests[], unreal_test[], mark_div[], mark_ud[], mark_gp[], mark_ss[],
    mark_bound[], after_int[], after_int3[], after_into[], mark_idt[], mark_hlt[];
extern u8 stubs[];
void real_run(u32 offset, u32 data_selector);

struct record {
    u16 vector, ip, cs, flags, sp, handler_flags, ax, unused;
};
#define RECORD(n) (((volatile struct record *)0x6200ul)[n])
#define OFFSET(label) ((u16)((label)-blob + 0x7000))

static void expect(const char *name, u32 n, u16 vector, u16 ip)
{
    check_eq(name, (u32)RECORD(n).vector << 16 | RECORD(n).ip, (u32)vector << 16 | ip);
}

void guest_main(void)
{
    volatile u32 *ivt;
    asm("" : "=r"(ivt) : "0"(0)); /* the compiler may not know that this is a null pointer */
    for (u32 i = 0; i < 256; i++)
        ivt[i] = OFFSET(stubs) + 8 * (i < 65 ? i : 64);
    copy((void *)0x7000, blob, (size_t)(blob_end - blob));
    set_gdt(SEL_CODE16, descriptor(0, 0xffff, D_XCODE, 0));
    set_gdt(SEL_DATA16, descriptor(0, 0xffff, D_DATA, 0));
    /* 8259 at 28h for the stay in real mode */
    static const u8 words[] = { 0x11, 0x28, 4, 1, 0xff };
    out8(0x20, words[0]);
    for (u32 i = 1; i < 5; i++)
        out8(0x21, words[i]);
    real_run(OFFSET(real_tests), SEL_DATA16);
    check_true("returned", (read_cr0() & CR0_PE), "");

    CHECK_EQ("pe-clear", RECORD(0).ax & 1, 0);
    CHECK_EQ("no-trap", RECORD(0).vector, 0xff);
    expect("int", 1, 0x40, OFFSET(after_int));
    CHECK_EQ("int-pushes-cs", RECORD(1).cs, 0);
    CHECK_EQ("int-pushes-flags", RECORD(1).flags, 0xed7);
    CHECK_EQ("int-clears-if-tf", RECORD(1).handler_flags & (FLAG_IF | FLAG_TF), 0); /* 20.1.4 */
    CHECK_EQ("int-frame-is-6-bytes", RECORD(1).sp, 0x6f00 - 2 - 6);
    CHECK_EQ("iret-flags", RECORD(2).ax, 0xad7); /* DF was cleared in between */
    expect("divide", 3, DE, OFFSET(mark_div));
    expect("undefined", 4, UD, OFFSET(mark_ud));
    expect("limit", 5, GP, OFFSET(mark_gp));
    CHECK_EQ("limit-no-error-code", RECORD(5).sp, 0x6f00 - 2 - 6);
    expect("stack-limit", 6, SS, OFFSET(mark_ss));
    expect("bound", 7, BR, OFFSET(mark_bound));
    expect("int3", 8, BP, OFFSET(after_int3));
    expect("into", 9, OF, OFFSET(after_into));
    CHECK_EQ("sldt-is-ud", RECORD(10).vector, UD);
    CHECK_EQ("arpl-is-ud", RECORD(11).vector, UD);
    CHECK_EQ("segment-base", RECORD(12).ax, 0x5c);
    CHECK_EQ("popf-iopl-nt", RECORD(13).ax & 0x7000, 0x7000);
    CHECK_EQ("operand-32", RECORD(14).ax, 0x1234);
    CHECK_EQ("far-call", RECORD(15).ax, 0x7777);
    expect("ivt-limit", 16, GP, OFFSET(mark_idt));
    CHECK_EQ("stack-wraps", RECORD(17).ax, 0xfffe);
    CHECK_EQ("single-step", RECORD(18).vector, DB);
    CHECK_EQ("single-step-clears-tf", RECORD(18).handler_flags & FLAG_TF, 0);
    CHECK_EQ("system-registers", RECORD(19).vector, 0xff);
    CHECK_EQ("lmsw", RECORD(20).ax & 1, 0);
    expect("timer-interrupt-wakes-hlt", 21, 0x28, OFFSET(mark_hlt));
    CHECK_EQ("timer-interrupt-once", RECORD(21).ax, 1);
    CHECK_EQ("beyond-64k", RECORD(22).vector, GP);

    /* "unreal": hidden parts stay as protected mode left them (9.9.2 step 4 warns of exactly this) */
    *(volatile u32 *)0x200000 = 41;
    *(volatile u32 *)0x200100 = 43;
    real_run(OFFSET(unreal_test), SEL_DATA);
    CHECK_EQ("unreal-write", *(volatile u32 *)0x200000, 42);
    CHECK_EQ("unreal-limit-stays", *(volatile u32 *)0x6180, 42);
    CHECK_EQ("unreal-base-changes", *(volatile u32 *)0x6184, 42);

    /* protected mode still works afterwards */
    struct trap t = FAULT("protected-again", TRY("mov es, eax", .ax = GDT_ENTRIES * 8), GP, GDT_ENTRIES * 8);
    (void)t;
    pic_init();
    for (u32 i = 0; i < 3; i++)
        real_run(OFFSET(unreal_test), SEL_DATA);
    CHECK_EQ("there-and-back-again", *(volatile u32 *)0x200000, 45);
}
