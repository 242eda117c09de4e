/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptor tables for the processor of cpu_kit: a GDT with one of everything, an IDT, two TSSs, stacks. */
#ifndef SUNDOG_TESTS_SEG_KIT_H
#define SUNDOG_TESTS_SEG_KIT_H

#include "cpu_kit.h"

#include "cpu/descriptor.h"

/* Where things are: below the ROM, identity mapped in every mode. */
#define GDT_AT 0x1000u
#define IDT_AT 0x2000u
#define LDT_AT 0x3000u
#define TSS_AT 0x4000u      /* of the running task, with the I/O bitmap */
#define TSS2_AT 0x5000u     /* another 32-bit task */
#define TSS16_AT 0x6000u    /* a 16-bit task */
#define PAGES_AT 0x10000u   /* page tables of long mode */
#define STACK_TOP 0x20000u  /* stack in use at the start */
#define STACK0_TOP 0x28000u /* of the TSS: privilege 0, */
#define STACK1_TOP 0x29000u /* 1 */
#define IST_TOP 0x2a000u    /* IST 1 */
#define HANDLER_AT 0x30000u /* handler of vector n: HANDLER_AT + 16 * n */
#define START_AT 0x40000u   /* rip at the start */

/* Selectors of the GDT (privilege bits added by the test). */
enum {
    G_CODE0 = 0x08,
    G_DATA0 = 0x10,
    G_CODE3 = 0x18,
    G_DATA3 = 0x20,
    G_CONFORMING0 = 0x28,
    G_READONLY0 = 0x30,
    G_EXECONLY0 = 0x38,
    G_ABSENT_DATA0 = 0x40,
    G_ABSENT_CODE0 = 0x48,
    G_CODE16 = 0x50,
    G_DATA16 = 0x58,
    G_EXPAND_DOWN0 = 0x60,
    G_CODE1 = 0x68,
    G_DATA1 = 0x70,
    G_LDT = 0x78,
    G_TSS = 0x88,
    G_TSS2 = 0x98,
    G_TSS16 = 0xa0,
    G_GATE = 0xa8,
    G_GATE_IN = 0xb8,
    G_TASK_GATE = 0xc8,
    G_CODE64 = 0xd0,
    G_CODE64_3 = 0xd8,
    G_DATA1_3 = 0xe0,
    G_SMALL3 = 0xe8,
    G_TSS_ABSENT = 0xf0,
    G_TSS_SHORT = 0xf8,
    G_CODE_LD = 0x100,
    G_CONFORMING3 = 0x108,
    G_LIMIT = 0x10f,
};

/* A descriptor as it lies in memory. `flags`: the upper half of byte 6, as G, D/B, L, AVL from bit 3 down. */
uint64_t kit_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags);
/* A gate; type as SYS_*. */
uint64_t kit_gate(uint16_t sel, uint32_t offset, unsigned type, unsigned dpl, bool present, unsigned params);
void kit_gdt(struct kit *k, uint16_t sel, uint64_t low);
void kit_idt(struct kit *k, unsigned vector, uint64_t low); /* 8-byte entries */
void kit_idt64(struct kit *k, unsigned vector, uint16_t sel, uint64_t offset, unsigned type, unsigned dpl,
               unsigned ist);
/* The segment register loaded with a GDT entry, unchecked. */
void kit_seg(struct kit *k, enum seg seg, uint16_t sel);

/* 32-bit protected mode without paging, flat segments of privilege `cpl`, an interrupt gate for each
 * vector. */
void kit_protected(struct kit *k, unsigned cpl);
/* 64-bit mode, identity mapping of the low 4 MiB in 2 MiB user pages, interrupt gates for each vector. */
void kit_long(struct kit *k, unsigned cpl);
/* Virtual-8086 mode in the protected-mode set-up. */
void kit_vm86(struct kit *k, unsigned iopl);
/* Real mode with an IVT at 0 whose vector n points to 0x3000:16*n. */
void kit_real(struct kit *k);

/* Dword, word or quadword n of the stack in use. */
uint32_t kit_stack32(struct kit *k, unsigned n);
uint64_t kit_stack64(struct kit *k, unsigned n);
uint16_t kit_stack16(struct kit *k, unsigned n);
/* Writes dwords or quadwords to the stack and points RSP at the first. */
void kit_push32(struct kit *k, unsigned count, const uint32_t *vals);
void kit_push64(struct kit *k, unsigned count, const uint64_t *vals);

/* What an engine does when an instruction faults: the saved rip is the instruction's own, then delivery. */
#define DELIVER(k, vec, ...) \
    do { \
        (k)->v->exception = (struct exception){ .vector = (vec), __VA_ARGS__ }; \
        cpu_deliver_exception((k)->v); \
    } while (0)

#endif
