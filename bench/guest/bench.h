/* SPDX-License-Identifier: Apache-2.0 */
/* The workloads of the ruler: what one is, and the few helpers they share. */
#ifndef SUNDOG_BENCH_H
#define SUNDOG_BENCH_H

#include <stddef.h>
#include <stdint.h>

/* One measured activity. The hot loop of user code uses no library call, so that the very same instructions
 * run everywhere. */
struct workload {
    const char *name;
    /* int, ram, fp, vector, call, string: user code only; sys, time: the kernel at work; prog: Debian's
     * programs. A row of the table takes groups, or single workloads, by name. */
    const char *group;
    const char *unit;             /* what the reported nanoseconds are for */
    uint64_t per;                 /* units in one iteration */
    uint64_t idle_ns;             /* time an iteration asks to sleep, taken off the result */
    const char *(*missing)(void); /* why it cannot run here; NULL, or a result of NULL: it can */
    void (*setup)(void);
    /* Does `n` iterations; the result depends on the work alone, so that machines can be compared. */
    uint64_t (*run)(uint64_t n);
    /* Nanoseconds of one iteration in the last run, where the workload measures itself; NULL: the clock
     * around it counts. */
    double (*own_ns)(void);
};

/* Each table ends with a row without a name. */
extern const struct workload compress_workloads[], hash_workloads[], sort_workloads[], parse_workloads[],
    bytecode_workloads[], matrix_workloads[], memory_workloads[], float_workloads[], vector_workloads[],
    call_workloads[], kernel_workloads[], string_workloads[], program_workloads[];

/* xorshift64*: the same stream for the same seed. */
static inline uint64_t rng_next(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dull;
}

/* Makes the compiler believe that `p` is read and changed here. */
static inline void opaque(void *p) { __asm__ volatile("" : "+r"(p) : : "memory"); }

/* Ends the program with one line when the machine refuses something a workload needs. */
void need(int ok, const char *what);

/* Path of this program, for the workload that executes it. */
const char *self_path(void);

/* Nanoseconds of the machine's monotonic clock. */
uint64_t now_ns(void);

/* --- surroundings (place.c) --- */

/* Makes a guest's init of this process: /proc, /sys, /dev, /tmp. */
void place_init(void);
/* Makes `root` the root folder of this process, with an empty /tmp and the host's /dev: natively what init
 * has. Ends the program when the host does not let us. */
void place_enter(const char *root);
/* Prints what the machine shows of itself: processor flags, clock source, mitigations. */
void place_describe(void);

#endif
