/* SPDX-License-Identifier: Apache-2.0 */
/* From the Multiboot entry (32-bit protected mode, paging off) to C, and the way an application processor
 * takes. */
#include "layout.h"

        .section .multiboot, "a"
        .align 4
        .long 0x1BADB002, 0x00000003, -(0x1BADB002 + 0x00000003)

        .text
        .code32
        .globl _start
_start:
        cli
        cld
        movl %eax, boot_magic
        movl %ebx, boot_info
        movl $boot_stack_top, %esp
        pushfl                          /* the state the loader left, for the guest that looks at it */
        popl boot_state + 4
        movl %cr0, %eax
        movl %eax, boot_state
        movl %ds, %eax
        movl %eax, boot_state + 8
        movl %ss, %eax
        movl %eax, boot_state + 12
        movl %cs, %eax
        movl %eax, boot_state + 16
        movl %cr4, %eax
        movl %eax, boot_state + 20
        pushl $0
        popfl
#ifdef __x86_64__
        /* Identity map of the low 4 GiB in 2 MiB pages, writable and open to user mode. */
        movl $boot_pml4, %edi
        movl $boot_pdpt + 7, (%edi)
        movl $boot_pdpt, %edi
        movl $boot_pd + 7, %eax
        movl $4, %ecx
1:      movl %eax, (%edi)
        addl $4096, %eax
        addl $8, %edi
        decl %ecx
        jnz 1b
        movl $boot_pd, %edi
        movl $0x87, %eax
        movl $2048, %ecx
1:      movl %eax, (%edi)
        addl $0x200000, %eax
        addl $8, %edi
        decl %ecx
        jnz 1b
        movl $boot_pml4, boot_cr3
#endif
        lgdt boot_gdt_pointer
        ljmp $SEL_CODE32, $protected
        .globl protected
protected:
        movl $SEL_DATA, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %fs
        movl %eax, %gs
        movl %eax, %ss
        movl %cr0, %eax
        andl $~0xc, %eax                /* EM, TS */
        orl $0x22, %eax                 /* NE, MP */
        movl %eax, %cr0
#ifdef __x86_64__
        movl %cr4, %eax
        orl $0x20, %eax                 /* PAE */
        movl %eax, %cr4
        movl boot_cr3, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx
        rdmsr
        orl $0x900, %eax                /* LME, NXE */
        wrmsr
        movl %cr0, %eax
        orl $0x80010000, %eax           /* PG, WP */
        movl %eax, %cr0
        ljmp $SEL_CODE, $long_mode
        .code64
long_mode:
        movl %esp, %esp
        movl $ap_index, %edi
        movl (%rdi), %edi
        call guest_start
#else
        pushl ap_index
        call guest_start
#endif
1:      hlt
        jmp 1b

/* An application processor starts here in real mode, in a copy of this code at TRAMPOLINE. */
        .code16
        .globl trampoline, trampoline_end
trampoline:
        cli
        cld
        xorw %ax, %ax
        movw %ax, %ds
        lgdtl TRAMPOLINE + (trampoline_gdt_pointer - trampoline)
        movl %cr0, %eax
        andl $0x9fffffff, %eax          /* CD, NW: INIT leaves caches off */
        orb $1, %al
        movl %eax, %cr0
        ljmpl $SEL_CODE32, $ap_protected
        .align 8
trampoline_gdt_pointer:
        .word boot_gdt_end - boot_gdt - 1
        .long boot_gdt
trampoline_end:

        .code32
ap_protected:
        movl $SEL_DATA, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
1:      movl $1, %eax                   /* one at a time through the boot code: it has one ap_index */
        xchgl %eax, ap_gate
        testl %eax, %eax
        jnz 1b
        movl ap_next, %eax
        incl ap_next
        movl %eax, ap_index
        shll $AP_STACK_SHIFT, %eax
        leal ap_stacks(%eax), %esp      /* index 1 gets the top of stack 0 */
        jmp protected

        .data
        .align 16
        .globl boot_gdt
boot_gdt:
        .quad 0
#ifdef __x86_64__
        .quad 0x00af9b000000ffff
#else
        .quad 0x00cf9b000000ffff
#endif
        .quad 0x00cf93000000ffff
        .quad 0x00cf9b000000ffff
boot_gdt_end:
boot_gdt_pointer:
        .word boot_gdt_end - boot_gdt - 1
        .long boot_gdt
        .globl boot_magic, boot_info, boot_cr3, ap_index, ap_gate, ap_next
        .align 8
        .globl boot_state
boot_state:     .fill 6, 4, 0           /* cr0, eflags, ds, ss, cs, cr4 */
        .align 8
boot_magic:     .quad 0
boot_info:      .quad 0
boot_cr3:       .quad 0
ap_index:       .quad 0
ap_gate:        .quad 0
ap_next:        .quad 1

        .bss
        .align 4096
#ifdef __x86_64__
        .globl boot_pml4, boot_pdpt, boot_pd
boot_pml4:      .skip 4096
boot_pdpt:      .skip 4096
boot_pd:        .skip 4 * 4096
#endif
boot_stack:     .skip 32768
boot_stack_top:
ap_stacks:      .skip (MAX_CPUS - 1) << AP_STACK_SHIFT
        .section .note.GNU-stack, "", @progbits
