/* SPDX-License-Identifier: Apache-2.0 */
/* Entry of every interrupt and exception, and the two ways between a test and its snippet. */
#include "layout.h"

        .macro stubs name, plain
        .globl \name
        .align 16
\name:
        vector = 0
        .rept 256
        .align 16
        .if \plain || !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
        push $0
        .endif
        push $vector
        jmp trap_common
        vector = vector + 1
        .endr
        .endm

        .text
        stubs trap_stubs, 0             /* as the processor pushes them */
        stubs trap_stubs_plain, 1       /* for INT n on a vector whose exception has an error code */

#ifdef __x86_64__

trap_common:
        push %rax
        push %rcx
        push %rdx
        push %rbx
        push %rbp
        push %rsi
        push %rdi
        push %r8
        push %r9
        push %r10
        push %r11
        push %r12
        push %r13
        push %r14
        push %r15
        cld
        mov %rsp, %rdi
        mov %rsp, %rbx
        and $-16, %rsp
        call trap_entry
        mov %rbx, %rsp
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rdi
        pop %rsi
        pop %rbp
        pop %rbx
        pop %rdx
        pop %rcx
        pop %rax
        add $16, %rsp
        iretq

/* void snippet_enter(const struct regs *in, ulong *resume_sp) */
        .globl snippet_enter
snippet_enter:
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        pushfq
        cli
        mov %rsp, (%rsi)
        pushq 18*8(%rdi)                /* ss, sp, flags, cs, ip */
        pushq 7*8(%rdi)
        pushq 17*8(%rdi)
        pushq 19*8(%rdi)
        pushq 16*8(%rdi)
        mov 20*8(%rdi), %eax
        test %eax, %eax
        jz 1f
        mov %eax, %ds
1:      mov 21*8(%rdi), %eax
        test %eax, %eax
        jz 1f
        mov %eax, %es
1:      mov 22*8(%rdi), %eax
        test %eax, %eax
        jz 1f
        mov %eax, %fs
1:      mov 23*8(%rdi), %eax
        test %eax, %eax
        jz 1f
        mov %eax, %gs
1:      mov 0(%rdi), %rax
        mov 1*8(%rdi), %rcx
        mov 2*8(%rdi), %rdx
        mov 3*8(%rdi), %rbx
        mov 4*8(%rdi), %rbp
        mov 5*8(%rdi), %rsi
        mov 8*8(%rdi), %r8
        mov 9*8(%rdi), %r9
        mov 10*8(%rdi), %r10
        mov 11*8(%rdi), %r11
        mov 12*8(%rdi), %r12
        mov 13*8(%rdi), %r13
        mov 14*8(%rdi), %r14
        mov 15*8(%rdi), %r15
        mov 6*8(%rdi), %rdi
        iretq

/* void snippet_leave(ulong resume_sp): by IRET, so that NMIs are open again */
        .globl snippet_leave
snippet_leave:
        mov %rdi, %rsp
        mov $SEL_DATA, %eax
        mov %eax, %ss
        mov %eax, %ds
        mov %eax, %es
        mov %rsp, %rcx
        push $SEL_DATA
        push %rcx
        push $2
        push $SEL_CODE
        push $1f
        iretq
1:      popfq
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        ret

#else

trap_common:
        pushal
        push %ds
        push %es
        push %fs
        push %gs
        cld
        movl $SEL_DATA, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %esp, %eax
        pushl %eax
        call trap_entry
        addl $4, %esp
        pop %gs
        pop %fs
        pop %es
        pop %ds
        popal
        addl $8, %esp
        iretl

/* void snippet_enter(const struct regs *in, ulong *resume_sp) */
        .globl snippet_enter
snippet_enter:
        movl 4(%esp), %eax
        movl 8(%esp), %edx
        pushal
        pushfl
        cli
        movl %esp, (%edx)
        testl $0x20000, 9*4(%eax)       /* flags.VM */
        jnz vm86
        movl 11*4(%eax), %ecx
        testl $3, %ecx
        jnz outer
        /* Same privilege: IRET takes no stack from the frame, so the frame goes onto the snippet's stack. */
        movl 7*4(%eax), %edx
        movl 9*4(%eax), %ecx
        movl %ecx, -4(%edx)
        movl 11*4(%eax), %ecx
        movl %ecx, -8(%edx)
        movl 8*4(%eax), %ecx
        movl %ecx, -12(%edx)
        leal -12(%edx), %esp
        jmp segments
vm86:
        pushl 15*4(%eax)                /* gs, fs, ds, es */
        pushl 14*4(%eax)
        pushl 12*4(%eax)
        pushl 13*4(%eax)
outer:
        pushl 10*4(%eax)                /* ss, esp, eflags, cs, eip */
        pushl 7*4(%eax)
        pushl 9*4(%eax)
        pushl 11*4(%eax)
        pushl 8*4(%eax)
        testl $0x20000, 9*4(%eax)
        jnz general
segments:
        movw 13*4(%eax), %es
        movw 14*4(%eax), %fs
        movw 15*4(%eax), %gs
        movl 12*4(%eax), %ecx
        pushl %ecx
        jmp 1f
general:
        pushl $SEL_DATA
1:      movl 1*4(%eax), %ecx
        movl 2*4(%eax), %edx
        movl 3*4(%eax), %ebx
        movl 4*4(%eax), %ebp
        movl 5*4(%eax), %esi
        movl 6*4(%eax), %edi
        movl 0(%eax), %eax
        popl %ds
        iretl

/* void snippet_leave(ulong resume_sp): by IRET, so that NMIs are open again */
        .globl snippet_leave
snippet_leave:
        movl 4(%esp), %ecx
        movl $SEL_DATA, %eax
        movl %eax, %ss
        movl %ecx, %esp
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %fs
        movl %eax, %gs
        pushl $2
        pushl $SEL_CODE
        pushl $1f
        iretl
1:      popfl
        popal
        ret
#endif
        .section .note.GNU-stack, "", @progbits
