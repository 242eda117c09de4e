/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel at work: system call, fresh page, fork, exec, pipe switch, timer tick. */
#define _GNU_SOURCE
#include "bench.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 1024, TICK_NS = 200000 };

static uint8_t *arena;

static uint64_t run_syscall(uint64_t n)
{
    long last = 0;
    while (n--)
        __asm__ volatile("syscall" : "=a"(last) : "0"(SYS_getppid) : "rcx", "r11", "memory");
    return last >= 0;
}

static void setup_page(void)
{
    arena = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(arena != MAP_FAILED, "mmap");
    madvise(arena, PAGES * PAGE, MADV_NOHUGEPAGE);
}

/* An iteration is one page touched for the first time; the arena is given back when it is used up. */
static uint64_t run_page(uint64_t n)
{
    while (n) {
        uint64_t pages = n < PAGES ? n : PAGES;
        for (uint64_t i = 0; i < pages; i++)
            *(volatile uint8_t *)(arena + i * PAGE) = 1;
        need(madvise(arena, pages * PAGE, MADV_DONTNEED) == 0, "madvise");
        n -= pages;
    }
    return 0;
}

static void reap(pid_t pid)
{
    int status;
    need(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "child");
}

static uint64_t run_fork(uint64_t n)
{
    while (n--) {
        pid_t pid = fork();
        if (!pid)
            _exit(0);
        reap(pid);
    }
    return 0;
}

static uint64_t run_exec(uint64_t n)
{
    char *const args[] = { (char *)self_path(), (char *)"--exit", NULL }, *const none[] = { NULL };
    while (n--) {
        pid_t pid = fork();
        if (!pid) {
            execve(args[0], args, none);
            _exit(127);
        }
        reap(pid);
    }
    return 0;
}

/* Two processes on one processor pass a byte to and fro: each pass is a switch. */
static uint64_t run_pipe(uint64_t n)
{
    int there[2], back[2];
    char byte = 'x';
    cpu_set_t before, one;
    need(pipe(there) == 0 && pipe(back) == 0, "pipe");
    need(sched_getaffinity(0, sizeof(before), &before) == 0, "affinity");
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof(one), &one);
    pid_t pid = fork();
    if (!pid) {
        for (uint64_t i = 0; i < n; i++)
            if (read(there[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1)
                _exit(1);
        _exit(0);
    }
    for (uint64_t i = 0; i < n; i++)
        need(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1, "pipe");
    reap(pid);
    sched_setaffinity(0, sizeof(before), &before);
    for (int i = 0; i < 2; i++) {
        close(there[i]);
        close(back[i]);
    }
    return 0;
}

static void setup_tick(void) { prctl(PR_SET_TIMERSLACK, 1ul); }

/* Sleeps from tick to tick; what it takes longer than asked is the cost of timer, interrupt and wake-up. */
static uint64_t run_tick(uint64_t n)
{
    const struct timespec pause = { .tv_nsec = TICK_NS };
    while (n--)
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    return 0;
}

const struct workload kernel_workloads[] = {
    { "syscall", "sys", "call", 1, .run = run_syscall },
    { "fresh_page", "sys", "page", 1, .setup = setup_page, .run = run_page },
    { "fork_exit", "sys", "process", 1, .run = run_fork },
    { "fork_exec", "sys", "process", 1, .run = run_exec },
    { "pipe_switch", "sys", "switch", 2, .run = run_pipe },
    { "tick", "time", "wake-up", 1, .idle_ns = TICK_NS, .setup = setup_tick, .run = run_tick },
    { 0 },
};
