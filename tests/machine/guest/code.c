/* SPDX-License-Identifier: Apache-2.0 */
/* Code that changes: rewritten in place, through an alias, by itself, across pages, by another thread. */
#include "selftest.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* mov $value, %eax; ret */
static void put_answer(volatile uint8_t *at, uint32_t value)
{
    const uint8_t code[6] = {
        0xb8, (uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24), 0xc3
    };
    for (unsigned i = 0; i < 6; i++)
        at[i] = code[i];
}

static uint32_t ask(const volatile uint8_t *at)
{
    __asm__ volatile("" : : : "memory");
    return ((uint32_t(*)(void))(uintptr_t)at)();
}

static void check_rewriting(void)
{
    uint8_t *code = pages(2, PROT_READ | PROT_WRITE | PROT_EXEC);
    unsigned wrong = 0;
    for (uint32_t i = 0; i < 300; i++) {
        put_answer(code + 64, i);
        wrong += ask(code + 64) != i;
    }
    check_equal("code rewritten in place", wrong, 0);
    wrong = 0;
    for (uint32_t i = 0; i < 100; i++) {
        put_answer(code + PAGE - 3, i * 0x01010101u); /* the immediate lies in both pages */
        wrong += ask(code + PAGE - 3) != i * 0x01010101u;
        code[PAGE] ^= 0x40; /* a byte of its second page only */
        wrong += ask(code + PAGE - 3) != (i * 0x01010101u ^ 0x400000);
    }
    check_equal("code across two pages rewritten", wrong, 0);
    /* Data beside code, in one page: writing it must not disturb, whatever it costs. */
    wrong = 0;
    put_answer(code, 5);
    for (uint32_t i = 0; i < 2000; i++) {
        *(volatile uint32_t *)(code + 2048) = i;
        wrong += ask(code) != 5;
    }
    check_equal("data beside code", wrong, 0);
}

static void check_protection(void)
{
    uint8_t *code = pages(1, PROT_READ | PROT_WRITE);
    unsigned wrong = 0;
    for (uint32_t i = 0; i < 60; i++) {
        mprotect(code, PAGE, PROT_READ | PROT_WRITE);
        put_answer(code, i);
        mprotect(code, PAGE, PROT_READ | PROT_EXEC);
        wrong += ask(code) != i;
    }
    check_equal("write, protect, run", wrong, 0);
}

static void check_alias(void)
{
    int fd = memfd_create("code", 0);
    if (fd < 0 || ftruncate(fd, 2 * PAGE))
        return;
    uint8_t *writable = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint8_t *code = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    unsigned wrong = 0;
    for (uint32_t i = 0; i < 200; i++) {
        put_answer(writable + 10, i ^ 0xabcdu);
        wrong += ask(code + 10) != (i ^ 0xabcdu);
    }
    check_equal("code rewritten through another address", wrong, 0);
    wrong = 0;
    put_answer(writable + PAGE + 10, 2);
    put_answer(writable + 10, 1);
    for (unsigned i = 0; i < 100; i++) {
        mmap(code, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, (off_t)(i % 2 * PAGE));
        wrong += ask(code + 10) != i % 2 + 1;
    }
    check_equal("other code at the same address", wrong, 0);
    /* A system call writes it: the kernel's store, through yet another mapping. */
    wrong = 0;
    mmap(code, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0);
    for (uint32_t i = 0; i < 100; i++) {
        uint8_t fresh[6];
        put_answer(fresh, i * 7);
        wrong += pwrite(fd, fresh, 6, 10) != 6 || ask(code + 10) != i * 7;
    }
    check_equal("code rewritten by a system call", wrong, 0);
}

/* An instruction rewrites the one right behind it: seen at once (SDM 3A 8.1.3, and every P6 and later). */
static void check_own_next(void)
{
    /* movl %ecx, 1(next); next: mov $0, %eax; ret -- addressed through EDX */
    static const uint8_t code[] = { 0x89, 0x0a, 0xb8, 0, 0, 0, 0, 0xc3 };
    uint8_t *at = pages(1, PROT_READ | PROT_WRITE | PROT_EXEC);
    memcpy(at, code, sizeof(code));
    unsigned wrong = 0;
    for (uint32_t i = 1; i <= 200; i++) {
        uint32_t got;
        __asm__ volatile("call *%3" : "=a"(got) : "c"(i), "d"(at + 3), "r"(at) : "memory", "cc");
        wrong += got != i;
    }
    check_equal("code that rewrites its next instruction", wrong, 0);
    /* A string store over its own loop's exit. */
    static const uint8_t fill[] = { 0xf3, 0xaa, 0xb8, 1, 0, 0, 0, 0xc3 };
    memcpy(at, fill, sizeof(fill));
    uint32_t got;
    uint8_t *to = at + 3;
    size_t count = 4;
    __asm__ volatile("cld\n\tcall *%3"
                     : "=a"(got), "+D"(to), "+c"(count)
                     : "r"(at), "0"(0x5a)
                     : "memory", "cc");
    check_equal("a string store over what follows", got, 0x5a5a5a5a);
}

/* Another thread's stores: after synchronising, and a serialising instruction, the new code runs (SDM 3A 8.1.3). */
static uint8_t *shared_code;
static pthread_barrier_t meeting;
static unsigned crossed_wrong;

static void *run_shared(void *arg)
{
    (void)arg;
    run_on(online_cpus() - 1);
    for (uint32_t i = 0; i < 200; i++) {
        pthread_barrier_wait(&meeting);
        uint32_t r[4];
        cpuid(0, 0, r);
        crossed_wrong += ask(shared_code) != i;
        pthread_barrier_wait(&meeting);
    }
    return NULL;
}

static void check_cross_modifying(void)
{
    pthread_t thread;
    shared_code = pages(1, PROT_READ | PROT_WRITE | PROT_EXEC);
    pthread_barrier_init(&meeting, NULL, 2);
    run_on(0);
    pthread_create(&thread, NULL, run_shared, NULL);
    for (uint32_t i = 0; i < 200; i++) {
        put_answer(shared_code, i);
        pthread_barrier_wait(&meeting);
        pthread_barrier_wait(&meeting);
    }
    pthread_join(thread, NULL);
    check_equal("code rewritten by another thread", crossed_wrong, 0);
}

void test_code(void)
{
    check_rewriting();
    check_protection();
    check_alias();
    check_own_next();
    check_cross_modifying();
}
