/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers that assembly and C share: selectors, vectors, fixed places in memory. */
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

#define SEL_CODE 0x08 /* 64-bit code in a 64-bit guest, 32-bit code in a 32-bit one */
#define SEL_DATA 0x10
#define SEL_CODE32 0x18
#define SEL_USER_CODE32 0x23
#define SEL_USER_DATA 0x2b
#define SEL_USER_CODE64 0x33 /* SYSRET's order: code32, data, code64 */
#define SEL_TSS 0x38         /* one of 16 bytes for each processor */
#define SEL_FREE 0xc0        /* from here on a test fills the GDT as it likes */
#define GDT_ENTRIES 128

#define MAX_CPUS 8
#define AP_STACK_SHIFT 14
#define TRAMPOLINE 0x8000

#define VECTOR_DONE 0x81 /* INT 81h ends a snippet that runs to its end */

#ifdef __x86_64__
#define SEL_USER_CODE SEL_USER_CODE64
#else
#define SEL_USER_CODE SEL_USER_CODE32
#endif

#endif
