/* SPDX-License-Identifier: Apache-2.0 */
/* A stack that a control transfer reads or builds before any register is committed. */
#ifndef SUNDOG_CPU_STACK_H
#define SUNDOG_CPU_STACK_H

#include "cpu/vcpu.h"

struct stack {
    struct segment ss;
    uint64_t sp, mask;    /* sp & mask is the offset; the rest of sp stays */
    bool flat64;          /* 64-bit mode: no segmentation, canonical addresses */
    enum mmu_index index; /* rights of the accesses */
    uint16_t error;       /* selector named by #SS */
};

/* The stack in use, at current privilege. */
struct stack stack_current(const struct vcpu *v);
/* A stack of 16- or 32-bit code at privilege `cpl`. */
struct stack stack_legacy(const struct vcpu *v, const struct segment *ss, uint64_t sp, unsigned cpl);
/* A stack of 64-bit code at privilege `cpl`. */
struct stack stack_long(const struct vcpu *v, uint64_t sp, unsigned cpl);

/* The stack that the TSS holds for privilege `cpl` (SDM 3A 5.8.5, 6.14.4); wrong ones raise #TS, absent
 * ones #SS. */
struct stack stack_inner(struct vcpu *v, unsigned cpl);

/* Pushes one slot of `size` bytes; raises #SS(error) or #PF. Memory is written, no register changes. */
void stack_push(struct vcpu *v, struct stack *st, uint64_t val, unsigned size);
/* Reads the slot `off` bytes above the stack pointer. */
uint64_t stack_peek(struct vcpu *v, const struct stack *st, uint64_t off, unsigned size);
/* Moves the stack pointer up. */
void stack_drop(struct stack *st, uint64_t bytes);
/* RSP with the stack pointer of `st`. */
uint64_t stack_rsp(const struct stack *st);
/* Stack pointer `sp` as it ends up in RSP when SS has become `ss`: a 16-bit stack takes 16 bits only (SDM
 * 2A, IRET). */
uint64_t stack_pointer_in(const struct vcpu *v, const struct segment *ss, bool to64, uint64_t sp);

#endif
