/* SPDX-License-Identifier: Apache-2.0 */
/* One generated instruction with the state it starts from, and what became of it on a processor. */
#ifndef SUNDOG_TESTS_CPU_NATIVE_H
#define SUNDOG_TESTS_CPU_NATIVE_H

#include <stdbool.h>
#include <stdint.h>

/* The same linear addresses on the host and in the guest, below 4 GiB so that 32-bit code reaches them. */
#define CODE_BASE 0x10000000ull
#define CODE_SIZE 0x3000u
#define DATA_BASE 0x20000000ull
#define DATA_SIZE 0x3000u /* two writable pages, one read-only; not mapped before and after */
#define DATA_WRITABLE 0x2000u
#define WINDOW_SIZE 256u

struct fp_image {
    uint16_t fcw, fsw;
    uint8_t ftw; /* abridged */
    uint8_t st[8][10];
    uint32_t mxcsr;
    uint8_t xmm[16][16];
};

struct cpu_image {
    uint64_t gpr[16]; /* RAX RCX RDX RBX RSP RBP RSI RDI R8.. */
    uint64_t rip, rflags;
    struct fp_image fp;
};

struct test_case {
    uint8_t code[16];
    uint8_t code_len;
    uint8_t code_bytes; /* 8: 64-bit code, 4: 32-bit */
    bool touches_fp;
    uint32_t window; /* offset of the window in the data pages */
    struct cpu_image in;
    uint8_t memory[WINDOW_SIZE];
    uint32_t cell; /* bookkeeping of the generator */
};

#define VECTOR_DONE 3 /* the INT3 behind the instruction (or at a branch target) was reached */

struct test_result {
    uint32_t vector, error;
    uint64_t cr2;
    struct cpu_image out;
    uint8_t memory[WINDOW_SIZE];
};

#define BATCH 4096

/* A child process that runs batches of cases on the host processor. */
struct native;
struct native *native_start(void);
void native_stop(struct native *n);
struct test_case *native_cases(struct native *n); /* BATCH of them, in shared memory */
const struct test_result *native_results(struct native *n);
/* Hands `count` cases over / waits for their results; false when the child died (case number in *at). */
void native_submit(struct native *n, unsigned count);
bool native_wait(struct native *n, unsigned *at);

/* The same on a vcpu under the interpreter. */
struct guest;
struct guest *guest_create(void);
void guest_destroy(struct guest *g);
void guest_run(struct guest *g, const struct test_case *c, struct test_result *r);

#endif
