/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel for test_vm.c, with all that makes a saved machine hard: timer interrupts from the PIT, reads of clocks, port and MMIO
 * traffic, code that changes itself, locked accesses across pages, HLT, and a second processor that does some of the same.
 *
 * Multiboot with addresses in the header: the file is this section, loaded at BASE. Word 0x3000 counts ticks, 0x3004 rounds,
 * 0x3008 rounds of the second processor, 0x3010 is a running mix of everything read.
 */
#define BASE 0x100000
#define AT(label) (BASE + (label - vm_guest))
#define LAPIC 0xfee00000

        .section .rodata
        .globl vm_guest, vm_guest_end
        .balign 16
vm_guest:
        .long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
        .long BASE, BASE, AT(vm_guest_end), 0, AT(start)

        .code32
start:
        cli
        mov $0x80000, %esp
        /* IDT at 0x1000: vector 0x20 ticks, 0x27 (spurious) returns. */
        mov $AT(tick), %eax
        mov $0x20, %ecx
        call gate
        mov $AT(spurious), %eax
        mov $0x27, %ecx
        call gate
        lidt AT(idtr)
        /* Interrupt controllers: vectors from 0x20, all masked but input 0. */
        mov $AT(pic_words), %esi
        mov $9, %ecx
1:      movzwl (%esi), %edx
        mov 2(%esi), %al
        out %al, %dx
        add $3, %esi
        loop 1b
        /* Interval timer, channel 0, mode 2, about 20 kHz. */
        mov $0x34, %al
        out %al, $0x43
        mov $60, %al
        out %al, $0x40
        xor %eax, %eax
        out %al, $0x40
        /* The second processor: code at 0x8000, INIT, SIPI. */
        movl $0x10f, LAPIC + 0xf0
        mov $AT(other), %esi
        mov $0x8000, %edi
        mov $(other_end - other), %ecx
        rep movsb
        movl $0xc4500, LAPIC + 0x300
        movl $0xc4608, LAPIC + 0x300
        sti

round:  incl 0x3004
        /* Code that changes itself: the constant of the next instruction but one. */
        mov 0x3004, %eax
        mov %eax, AT(patched) + 1
        nop
patched:
        mov $0x12345678, %ebx
        add %ebx, 0x3010
        /* Clocks. */
        rdtsc
        xor %eax, 0x3010
        xor %al, %al
        out %al, $0x43
        in $0x40, %al
        movzbl %al, %eax
        add %eax, 0x3010
        mov LAPIC + 0x390, %eax
        add %eax, 0x3010
        /* A locked access across two pages, and plain ones. */
        lock addl $3, 0x4ffe
        mov $0x6000, %edi
        mov $300, %ecx
        mov 0x3010, %eax
        rep stosl
        imul $1664525, %eax, %eax
        add $1013904223, %eax
        rol $7, %eax
        mov %eax, 0x3010
        /* Some rounds sleep until the next tick. */
        testb $7, 0x3004
        jnz round
        mov $'.', %al
        mov $0x3f8, %edx
        out %al, %dx
        hlt
        jmp round

tick:   push %eax
        incl 0x3000
        mov 0x3000, %eax
        rol $5, %eax
        xor %eax, 0x3010
        mov $0x20, %al
        out %al, $0x20
        pop %eax
spurious:
        iret

/* EAX = handler, ECX = vector. */
gate:   mov %ax, 0x1000(, %ecx, 8)
        movw $0x10, 0x1002(, %ecx, 8)
        movw $0x8e00, 0x1004(, %ecx, 8)
        shr $16, %eax
        mov %ax, 0x1006(, %ecx, 8)
        ret

idtr:   .word 0x7ff
        .long 0x1000
pic_words:
        .word 0x20; .byte 0x11
        .word 0x21; .byte 0x20
        .word 0x21; .byte 4
        .word 0x21; .byte 1
        .word 0xa0; .byte 0x11
        .word 0xa1; .byte 0x28
        .word 0xa1; .byte 2
        .word 0xa1; .byte 1
        .word 0x21; .byte 0xfe

        /* Real mode, at 0x8000. Changes its own code too, and shares a locked word across pages with the first. */
        .code16
other:  xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
1:      incl 0x3008
        mov 0x3008, %ax
        mov %ax, %cs:(2f - other) + 1
        nop
2:      mov $0x1234, %bx
        lock addl $1, 0x4ffe
        lock xadd %eax, 0x300c
        in $0x40, %al
        mov $0x7000, %di
        mov $50, %cx
        rep stosw
        jmp 1b
other_end:
vm_guest_end:
        .byte 0
        .section .note.GNU-stack, "", @progbits
