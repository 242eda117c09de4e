/* SPDX-License-Identifier: Apache-2.0 */
/* Processes and their address spaces: fork, exec, pipes, mappings and what they may share. */
#include "selftest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int wait_status(pid_t child)
{
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

/* --- processes -------------------------------------------------------------------------------------------- */

static void check_forks(void)
{
    unsigned good = 0;
    for (int i = 0; i < 40; i++) {
        pid_t child = fork();
        if (!child)
            _exit(i);
        int status = wait_status(child);
        good += WIFEXITED(status) && WEXITSTATUS(status) == i;
    }
    check_equal("fork, exit, wait", good, 40);
    pid_t child = fork();
    if (!child) {
        execl("/proc/self/exe", "selftest", "--exec", (char *)NULL);
        _exit(1);
    }
    int status = wait_status(child);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 42, "exec", "status %#x", status);
    child = fork();
    if (!child)
        for (;;)
            pause();
    kill(child, SIGTERM);
    status = wait_status(child);
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "a signal ends a process", "status %#x",
          status);
}

/* After a fork each side sees its own writes only. */
static void check_copy_on_write(void)
{
    enum { COUNT = 64 };
    uint32_t *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint8_t *p = pages(COUNT, PROT_READ | PROT_WRITE);
    memset(p, 1, COUNT * PAGE);
    pid_t child = fork();
    if (!child) {
        memset(p, 2, COUNT * PAGE);
        for (size_t i = 0; i < COUNT * PAGE; i += 97)
            shared[0] += p[i] != 2;
        shared[1] = 77;
        _exit(0);
    }
    wait_status(child);
    unsigned wrong = 0;
    for (size_t i = 0; i < COUNT * PAGE; i++)
        wrong += p[i] != 1;
    check(!wrong && !shared[0], "private pages part at the first write", "%u here, %u there", wrong,
          shared[0]);
    check_equal("shared pages stay one", shared[1], 77);
}

static uint32_t mix(uint32_t hash, const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ data[i]) * 16777619u;
    return hash;
}

static void check_pipe(void)
{
    enum { TOTAL = 300 * 1024 };
    static uint8_t data[TOTAL], piece[5000];
    int ends[2];
    for (size_t i = 0; i < TOTAL; i++)
        data[i] = (uint8_t)(i * i >> 5);
    if (pipe(ends))
        return;
    pid_t child = fork();
    if (!child) {
        size_t done = 0;
        while (done < TOTAL) {
            ssize_t n = write(ends[1], data + done, TOTAL - done > 7777 ? 7777 : TOTAL - done);
            if (n <= 0)
                _exit(1);
            done += (size_t)n;
        }
        _exit(0);
    }
    close(ends[1]);
    uint32_t hash = 0;
    ssize_t n, total = 0;
    while ((n = read(ends[0], piece, sizeof(piece))) > 0) {
        hash = mix(hash, piece, (size_t)n);
        total += n;
    }
    close(ends[0]);
    check(total == TOTAL && hash == mix(0, data, TOTAL) && !wait_status(child), "a pipe carries all bytes",
          "%zd bytes", total);
}

/* Two processes in turn: a thousand wake-ups. */
static void check_turns(void)
{
    int pair[2];
    uint32_t n = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
        return;
    pid_t child = fork();
    if (!child) {
        close(pair[0]);
        while (read(pair[1], &n, sizeof(n)) == sizeof(n)) {
            n++;
            if (write(pair[1], &n, sizeof(n)) != sizeof(n))
                break;
        }
        _exit(0);
    }
    close(pair[1]);
    for (unsigned i = 0; i < 500; i++)
        if (write(pair[0], &n, sizeof(n)) != sizeof(n) || read(pair[0], &n, sizeof(n)) != sizeof(n))
            break;
    close(pair[0]);
    wait_status(child);
    check_equal("two processes in turn", n, 500);
}

void test_processes(void)
{
    check_forks();
    check_copy_on_write();
    check_pipe();
    check_turns();
}

/* --- mappings --------------------------------------------------------------------------------------------- */

static void load(void *p) { (void)*(volatile uint8_t *)p; }
static void store(void *p) { *(volatile uint8_t *)p = 1; }

static int memory_file(size_t len)
{
    int fd = memfd_create("selftest", 0);
    if (fd < 0 || ftruncate(fd, (off_t)len)) {
        check(false, "a file in memory", "%s", strerror(errno));
        exit(1);
    }
    return fd;
}

static void check_rights(void)
{
    uint8_t *p = pages(4, PROT_READ | PROT_WRITE);
    memset(p, 7, 4 * PAGE);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 50; i++) {
        mprotect(p + PAGE, PAGE, PROT_READ);
        wrong += catch_trap(store, p + PAGE + i).signal != SIGSEGV;
        wrong += catch_trap(load, p + PAGE + i).signal != 0;
        mprotect(p + PAGE, PAGE, PROT_NONE);
        wrong += catch_trap(load, p + PAGE + i).signal != SIGSEGV;
        mprotect(p + PAGE, PAGE, PROT_READ | PROT_WRITE);
        wrong += catch_trap(store, p + PAGE + i).signal != 0;
        wrong += catch_trap(store, p + 2 * PAGE + i).signal != 0;
    }
    check_equal("rights change at once", wrong, 0);
    check_equal("contents stay", p[PAGE + 100] + p[3 * PAGE], 14);
}

/* The same address, other pages: what the processor remembers of the old ones must be gone. */
static void check_replacement(void)
{
    uint8_t *at = pages(1, PROT_READ | PROT_WRITE);
    int fd = memory_file(16 * PAGE);
    uint8_t *all = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    for (unsigned i = 0; i < 16; i++)
        all[i * PAGE] = (uint8_t)(i + 1);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 160; i++) {
        mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)(i % 16 * PAGE));
        wrong += *(volatile uint8_t *)at != i % 16 + 1;
        *(volatile uint8_t *)(at + 1) = (uint8_t)i;
        wrong += ((volatile uint8_t *)all)[i % 16 * PAGE + 1] != (uint8_t)i;
    }
    check_equal("another page at the same address", wrong, 0);
    madvise(at, PAGE, MADV_DONTNEED);
    mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    check_equal("fresh pages are empty", at[0] + at[1], 0);
    at[5] = 9;
    madvise(at, PAGE, MADV_DONTNEED);
    check_equal("dropped pages are empty", at[5], 0);
    munmap(all, 16 * PAGE);
    close(fd);
}

static void check_past_the_end(void)
{
    int fd = memory_file(100);
    uint8_t *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check_equal("the rest of a file's last page is empty", p[PAGE - 1], 0);
    check_trap("past a file's end", catch_trap(load, p + PAGE + 3), SIGBUS, BUS_ADRERR,
               (uintptr_t)p + PAGE + 3);
    munmap(p, 2 * PAGE);
    close(fd);
}

static void check_growth(void)
{
    uint8_t *p = pages(8, PROT_READ | PROT_WRITE);
    for (unsigned i = 0; i < 8; i++)
        p[i * PAGE] = (uint8_t)i;
    p = mremap(p, 8 * PAGE, 600 * PAGE, MREMAP_MAYMOVE);
    unsigned wrong = p == MAP_FAILED;
    for (unsigned i = 0; !wrong && i < 8; i++)
        wrong += p[i * PAGE] != i;
    check_equal("a mapping that grows keeps its contents", wrong, 0);
    /* Deep recursion: the stack grows by faults. */
    volatile uint8_t deep[2000 * 1024];
    for (size_t i = sizeof(deep) / PAGE; i-- > 0;)
        deep[i * PAGE] = (uint8_t)i;
    check_equal("the stack grows", deep[PAGE * 100], 100);
}

void test_mappings(void)
{
    check_rights();
    check_replacement();
    check_past_the_end();
    check_growth();
}
