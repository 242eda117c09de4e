/* SPDX-License-Identifier: Apache-2.0 */
/* Threads on several processors: atomic operations, memory order, wake-ups, and rights taken away from one another. */
#include "selftest.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_THREADS 8

static unsigned crew; /* how many threads work: one a processor, two at least */

static void together(void *(*work)(void *))
{
    pthread_t threads[MAX_THREADS];
    for (unsigned i = 0; i < crew; i++)
        pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i);
    for (unsigned i = 0; i < crew; i++)
        pthread_join(threads[i], NULL);
}

/* --- atomic operations ------------------------------------------------------------------------------------ */

enum { ROUNDS = 20000 };

static struct {
    uint32_t plain_add, exchange_add, compared;
    uint64_t wide;
    uint32_t bits;
    uint32_t taken; /* a spin lock by XCHG */
    uint32_t guarded;
    _Alignas(64) uint8_t line[128];
    _Alignas(16) uint64_t pair[2];
} word;

/* Across two cache lines, and (with room) across two pages: locked all the same. */
static uint32_t *split_line, *split_page;

static void *count_up(void *arg)
{
    run_on((unsigned)(uintptr_t)arg % online_cpus());
    for (unsigned i = 0; i < ROUNDS; i++) {
        __asm__ volatile("lock incl %0" : "+m"(word.plain_add) : : "cc");
        __atomic_fetch_add(&word.exchange_add, 3, __ATOMIC_SEQ_CST);
        uint32_t old = word.compared;
        while (!__atomic_compare_exchange_n(&word.compared, &old, old + 1, false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST))
            continue;
        uint64_t wide = word.wide;
        while (!__atomic_compare_exchange_n(&word.wide, &wide, wide + 0x100000001ull, false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST))
            continue;
        while (__atomic_exchange_n(&word.taken, 1, __ATOMIC_ACQUIRE))
            sched_yield();
        word.guarded++;
        __atomic_store_n(&word.taken, 0, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void *count_split(void *arg)
{
    run_on((unsigned)(uintptr_t)arg % online_cpus());
    for (unsigned i = 0; i < 300; i++) {
        __asm__ volatile("lock addl $1, %0" : "+m"(*split_line) : : "cc");
        __asm__ volatile("lock addl $1, %0" : "+m"(*split_page) : : "cc");
    }
    return NULL;
}

/* Each thread owns one bit; a lost update of a neighbour's would show. */
static unsigned lost_bits;

static void *toggle_bits(void *arg)
{
    uint32_t own = (uint32_t)(uintptr_t)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint8_t was;
        __asm__ volatile("lock btcl %2, %0\n\tsetc %1" : "+m"(word.bits), "=q"(was) : "r"(own) : "cc");
        if (was != (i & 1))
            __atomic_add_fetch(&lost_bits, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

#ifdef __x86_64__
static void *count_pairs(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t low = word.pair[0], high = word.pair[1];
        bool done;
        do
            __asm__ volatile("lock cmpxchg16b %0\n\tsete %3"
                             : "+m"(word.pair), "+a"(low), "+d"(high), "=q"(done)
                             : "b"(low + 1), "c"(high + 2)
                             : "cc");
        while (!done);
    }
    return NULL;
}
#endif

static void check_atomics(void)
{
    together(count_up);
    check_equal("lock inc", word.plain_add, crew * ROUNDS);
    check_equal("lock xadd", word.exchange_add, crew * ROUNDS * 3);
    check_equal("lock cmpxchg", word.compared, crew * ROUNDS);
    check_equal("lock cmpxchg8b", word.wide, (uint64_t)crew * ROUNDS << 32 | crew * ROUNDS);
    check_equal("a lock by xchg", word.guarded, crew * ROUNDS);
    together(toggle_bits);
    check_equal("lock btc", lost_bits, 0);
    split_line = (uint32_t *)(word.line + 62);
    split_page = (uint32_t *)((uint8_t *)pages(2, PROT_READ | PROT_WRITE) + PAGE - 2);
    together(count_split);
    check_equal("a locked operand in two cache lines", *split_line, crew * 300);
    check_equal("a locked operand in two pages", *split_page, crew * 300);
#ifdef __x86_64__
    together(count_pairs);
    check(word.pair[0] == crew * ROUNDS && word.pair[1] == crew * ROUNDS * 2, "lock cmpxchg16b", "%llu %llu",
          (unsigned long long)word.pair[0], (unsigned long long)word.pair[1]);
#endif
}

/* --- memory order ----------------------------------------------------------------------------------------- */

/* Two stores seen in their order (SDM 3A 8.2.3.2), and no two loads that both pass an own, fenced store (8.2.3.4). */
static volatile uint32_t order_data[64], order_ready[64];
static unsigned out_of_order;
static volatile uint32_t left_store, right_store, left_seen, right_seen;
static pthread_barrier_t meeting;

static void *order(void *arg)
{
    bool left = !arg;
    run_on(left ? 0 : online_cpus() - 1);
    for (uint32_t i = 1; i <= 3000; i++) {
        if (left) {
            order_data[0] = i;
            order_ready[32] = i;
        } else {
            uint32_t ready = order_ready[32], data = order_data[0];
            if (data < ready)
                __atomic_add_fetch(&out_of_order, 1, __ATOMIC_SEQ_CST);
        }
    }
    for (uint32_t i = 0; i < 300; i++) {
        pthread_barrier_wait(&meeting);
        *(left ? &left_store : &right_store) = 1;
        __asm__ volatile("mfence" : : : "memory");
        *(left ? &left_seen : &right_seen) = left ? right_store : left_store;
        pthread_barrier_wait(&meeting);
        if (left) {
            if (!left_seen && !right_seen)
                __atomic_add_fetch(&out_of_order, 1, __ATOMIC_SEQ_CST);
            left_store = right_store = 0;
        }
    }
    return NULL;
}

static void check_order(void)
{
    unsigned all = crew;
    crew = 2;
    pthread_barrier_init(&meeting, NULL, 2);
    together(order);
    crew = all;
    check_equal("memory order", out_of_order, 0);
}

/* --- sleeping and waking ---------------------------------------------------------------------------------- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;
static unsigned turn, turns;

static void *in_turn(void *arg)
{
    unsigned own = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < 100; i++) {
        pthread_mutex_lock(&mutex);
        while (turn != own)
            pthread_cond_wait(&turn_changed, &mutex);
        turn = (turn + 1) % crew;
        turns++;
        pthread_cond_broadcast(&turn_changed);
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

void test_threads(void)
{
    unsigned cpus = online_cpus();
    crew = cpus < 2 ? 2 : cpus > MAX_THREADS ? MAX_THREADS : cpus;
    check_atomics();
    check_order();
    together(in_turn);
    check_equal("threads in turn by mutex and condition", turns, crew * 100);
}

/* --- rights taken away ------------------------------------------------------------------------------------ */

/*
 * One thread stores into a page again and again; another makes the page read-only and writes down what it then sees. No
 * store may come after that, until the storing thread's fault has been answered with the right again.
 */
static volatile uint32_t *contested;
static volatile bool finished;
static volatile uint32_t refused;
static __thread sigjmp_buf retry;

static void on_refusal(int signal)
{
    (void)signal;
    siglongjmp(retry, 1);
}

static void *keep_storing(void *arg)
{
    (void)arg;
    run_on(online_cpus() - 1);
    if (sigsetjmp(retry, 1)) {
        refused++;
        sched_yield();
    }
    for (uint32_t n = 0; !finished; n++)
        contested[n % 16] += n;
    return NULL;
}

static uint32_t sum_contested(void)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < 16; i++)
        sum += contested[i];
    return sum;
}

static void check_rights_taken(void)
{
    struct sigaction action = { .sa_handler = on_refusal, .sa_flags = SA_NODEFER };
    pthread_t thread;
    sigaction(SIGSEGV, &action, NULL);
    contested = pages(1, PROT_READ | PROT_WRITE);
    run_on(0);
    pthread_create(&thread, NULL, keep_storing, NULL);
    unsigned late = 0;
    for (unsigned i = 0; i < 60; i++) {
        uint32_t before = refused;
        mprotect((void *)contested, PAGE, PROT_READ);
        uint32_t sum = sum_contested();
        for (unsigned k = 0; k < 20; k++)
            late += sum_contested() != sum;
        for (unsigned k = 0; k < 100000 && refused == before; k++)
            sched_yield();
        mprotect((void *)contested, PAGE, PROT_READ | PROT_WRITE);
    }
    finished = true;
    pthread_join(thread, NULL);
    check_equal("no store after the right was taken", late, 0);
    check(refused > 0, "the other thread was refused", "never");
}

/* A page replaced under a reader: it sees the old number or the new, and never again an old one after a new one. */
static volatile uint32_t *replaced;
static unsigned stale;

static void *keep_reading(void *arg)
{
    (void)arg;
    run_on(online_cpus() - 1);
    for (uint32_t last = 0; last < 200;) {
        uint32_t now = *replaced;
        if (now < last)
            __atomic_add_fetch(&stale, 1, __ATOMIC_SEQ_CST);
        last = now;
    }
    return NULL;
}

static void check_replaced(void)
{
    int fd = memfd_create("pages", 0);
    if (fd < 0 || ftruncate(fd, 201 * PAGE))
        return;
    uint8_t *all = mmap(NULL, 201 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    for (uint32_t i = 0; i <= 200; i++)
        memcpy(all + i * PAGE, &i, 4);
    replaced = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    pthread_t thread;
    pthread_create(&thread, NULL, keep_reading, NULL);
    for (uint32_t i = 1; i <= 200; i++) {
        mmap((void *)replaced, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, (off_t)(i * PAGE));
        if (*replaced != i)
            __atomic_add_fetch(&stale, 1, __ATOMIC_SEQ_CST);
        if (i % 8 == 0)
            sched_yield();
    }
    pthread_join(thread, NULL);
    check_equal("no old page after a new one", stale, 0);
}

void test_shootdown(void)
{
    check_rights_taken();
    check_replaced();
}
