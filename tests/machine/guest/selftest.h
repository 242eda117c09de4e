/* SPDX-License-Identifier: Apache-2.0 */
/* The self-checking guest program: how its sections report, and how they catch what the kernel sends them. */
#ifndef SELFTEST_H
#define SELFTEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE 4096u

/* One subject. Each runs in a process of its own, so that a crash costs one section only. */
struct section {
    const char *name;
    void (*run)(void);
    bool needs_machine; /* makes sense only as a guest's init, not as a process on the host */
    unsigned seconds;   /* guest time after which it counts as hung; 0: a minute */
};

void test_processor(void);
void test_hidden(void);
void test_kernel_log(void);
void test_clocks(void);
void test_timers(void);
void test_rtc(void);
void test_faults(void);
void test_traps(void);
void test_debugger(void);
void test_processes(void);
void test_mappings(void);
void test_ram(void);
void test_threads(void);
void test_shootdown(void);
void test_code(void);
void test_entries(void);
void test_segments(void);
void test_x87(void);
void test_simd(void);
void test_contexts(void);
void test_hotplug(void);
void test_input(void);

/* One check: a line on the console, and a count. `name` is unique; the rest is said when it failed. */
void check(bool ok, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void check_equal(const char *name, uint64_t got, uint64_t want);
void skip(const char *name, const char *why);

/* A word of the kernel's command line that it does not know comes as environment: NAME=VALUE. */
long setting(const char *name, long otherwise);

/* What a caught signal said. */
struct trap {
    int signal; /* 0: none came */
    int code;
    uintptr_t address; /* si_addr */
    uintptr_t pc;
    unsigned vector; /* the exception's number */
    unsigned error;  /* its error code */
};

/* Runs fn(arg); the first signal of a fault ends it. */
struct trap catch_trap(void (*fn)(void *), void *arg);
void check_trap(const char *name, struct trap t, int signal, int code, uintptr_t address);

/* Anonymous pages, or the end of the section. */
void *pages(size_t count, int protection);
uint64_t now_ns(void);
unsigned online_cpus(void);
bool kernel_is_64(void);
/* Moves this thread to one processor. */
bool run_on(unsigned cpu);
bool read_text(const char *path, char *out, size_t len);
bool write_text(const char *path, const char *text);
void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

#endif
