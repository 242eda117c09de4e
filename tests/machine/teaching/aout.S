/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A teaching kernel in assembly alone: a flat file whose Multiboot header gives the addresses. Loads its own
 * descriptor tables, counts ten ticks of the 8254 through the 8259, reads its memory map, powers down by debug-exit.
 */
        .code32
        .set    BASE, 0x200000
        .globl  _start
_start: jmp     begin

        .balign 4
header: .long   0x1badb002, 0x10003, -(0x1badb002 + 0x10003)
        .long   header, _start, end_of_data, end_of_bss, _start

begin:  cld
        cmp     $0x2badb002, %eax
        jne     wrong
        mov     $stack_top, %esp
        mov     %ebx, %esi
        /* the bss was cleared by the loader */
        mov     $end_of_data, %edi
        mov     $(stack_top - 4096), %ecx
        sub     %edi, %ecx
        xor     %eax, %eax
        repe scasb
        jne     wrong
        /* flags: memory, command line, map */
        mov     (%esi), %eax
        and     $0x45, %eax
        cmp     $0x45, %eax
        jne     wrong
        /* the map has RAM from 1 MiB on, as long as mem_upper says */
        mov     48(%esi), %edx
        mov     44(%esi), %ecx
        add     %edx, %ecx
1:      cmp     %ecx, %edx
        jae     wrong
        cmpl    $0x100000, 4(%edx)
        je      2f
        add     (%edx), %edx
        add     $4, %edx
        jmp     1b
2:      cmpl    $1, 20(%edx)
        jne     wrong
        mov     12(%edx), %eax
        shr     $10, %eax
        cmp     8(%esi), %eax
        jne     wrong
        /* the command line ends in "tick" */
        mov     16(%esi), %edi
        xor     %eax, %eax
        mov     $-1, %ecx
        repne scasb
        cmpl    $0x6b636974, -5(%edi)
        jne     wrong

        lgdt    gdt_pointer
        ljmp    $0x10, $3f
3:      mov     $0x18, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $tick, %eax
        mov     %ax, idt + 0x20 * 8
        movw    $0x10, idt + 0x20 * 8 + 2
        movw    $0x8e00, idt + 0x20 * 8 + 4
        shr     $16, %eax
        mov     %ax, idt + 0x20 * 8 + 6
        lidt    idt_pointer

        mov     $0x11, %al
        out     %al, $0x20
        out     %al, $0xa0
        mov     $0x20, %al
        out     %al, $0x21
        mov     $0x28, %al
        out     %al, $0xa1
        mov     $4, %al
        out     %al, $0x21
        mov     $2, %al
        out     %al, $0xa1
        mov     $1, %al
        out     %al, $0x21
        out     %al, $0xa1
        mov     $0xfe, %al
        out     %al, $0x21
        mov     $0x36, %al
        out     %al, $0x43
        mov     $(11932 & 0xff), %al
        out     %al, $0x40
        mov     $(11932 >> 8), %al
        out     %al, $0x40
        sti
4:      hlt
        cmpl    $10, ticks
        jb      4b
        cli
        mov     $message, %esi
5:      mov     $0x3fd, %dx
6:      in      %dx, %al
        test    $0x20, %al
        jz      6b
        mov     $0x3f8, %dx
        lodsb
        test    %al, %al
        jz      7f
        out     %al, %dx
        jmp     5b
7:      mov     $0x10, %al
        out     %al, $0xf4
8:      hlt
        jmp     8b
wrong:  mov     $1, %al
        out     %al, $0xf4
        jmp     8b

tick:   push    %eax
        incl    ticks
        mov     $0x20, %al
        out     %al, $0x20
        pop     %eax
        iret

        .balign 8
gdt:    .quad   0, 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_pointer:
        .word   31
        .long   gdt
idt_pointer:
        .word   0x21 * 8 - 1
        .long   idt
message:
        .asciz  "ten ticks\n"
end_of_data:
        .bss
        .balign 8
idt:    .skip   0x21 * 8
ticks:  .skip   4
        .balign 16
        .skip   8192
stack_top:
end_of_bss:
