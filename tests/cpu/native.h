/* SPDX-License-Identifier: Apache-2.0 */
/* One generated instruction, or a program of several, with the state it starts from, and what became of it on a
 * processor. */
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
    /* Longer registers in pieces, as XSAVE has them; zero where the host has none. */
    uint8_t ymmh[16][16], zmmh[16][32], zmm16[16][64];
    uint64_t k[8];
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

/* The pieces of struct fp_image by number of their state component (SDM 1 13.1); size 0: none. */
struct fp_piece {
    uint16_t offset, size;
};
extern const struct fp_piece fp_pieces[8];

#define VECTOR_DONE 3 /* the INT3 behind the instruction (or at a branch target) was reached */

struct test_result {
    uint32_t vector, error;
    uint64_t cr2;
    struct cpu_image out;
    uint8_t memory[WINDOW_SIZE];
};

/* A program of several instructions, with what all of the code and data pages hold when it starts. */
#define PROGRAM_BYTES 1024u
#define PATTERN_SIZE 512u
struct program_case {
    uint8_t code[PROGRAM_BYTES]; /* at in.rip; INT3 all around */
    uint16_t code_len;
    uint8_t code_bytes;
    struct cpu_image in;
    uint8_t pattern[PATTERN_SIZE]; /* repeated through the data pages */
};

/* All of the code and data pages, as a checksum for each piece: the code's first. */
#define PIECE 256u
#define PROGRAM_PIECES ((CODE_SIZE + DATA_SIZE) / PIECE)
struct program_result {
    struct test_result end; /* without `memory` */
    uint32_t piece[PROGRAM_PIECES];
};
uint32_t piece_sum(const uint8_t *p);

#define BATCH 4096
#define PROGRAM_BATCH 512

/* A child process that runs batches of cases on the host processor. */
struct native;
struct native *native_start(void);
void native_stop(struct native *n);
struct test_case *native_cases(struct native *n); /* BATCH of them, in shared memory */
const struct test_result *native_results(struct native *n);
struct program_case *native_programs(struct native *n); /* PROGRAM_BATCH of them */
const struct program_result *native_program_results(struct native *n);
/* Hands `count` cases (programs) over / waits for their results; false when the child died (number in *at). */
void native_submit(struct native *n, unsigned count);
void native_submit_programs(struct native *n, unsigned count);
bool native_wait(struct native *n, unsigned *at);

/* The same on a vcpu under an engine. */
struct guest;
/* `engine`: by name, with everything translated at once; NULL: the interpreter. */
struct guest *guest_create(const char *engine);
void guest_destroy(struct guest *g);
const char *guest_engine(const struct guest *g);
uint64_t guest_features(const struct guest *g); /* FEATURE_BIT of isa/features.def */
void guest_run(struct guest *g, const struct test_case *c, struct test_result *r);
/* Instructions that a program may take. */
#define PROGRAM_LIMIT 4000u
/* Called in front of each instruction of a program. */
struct vcpu;
typedef void guest_watch(void *ctx, const struct vcpu *v);
/* False when the program does not end within its limit. `watch` (interpreter only) may be NULL. */
bool guest_run_program(struct guest *g, const struct program_case *c, struct program_result *r,
                       guest_watch *watch, void *ctx);

#endif
