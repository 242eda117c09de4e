/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the workloads and prints one line each: natively as a program, in a guest as its init.
 *
 *   sundog-bench [--only GROUP|NAME[,...]] [--target-ms N]   measures
 *   sundog-bench --count [--only ...]                        counts instructions by single-stepping
 *   sundog-bench --list
 *
 * As process 1 it takes the same from the kernel's command line (bench_only=, bench_ms=), and powers off. */
#include "bench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct workload *const tables[] = {
    compress_workloads, hash_workloads, sort_workloads,  parse_workloads,  bytecode_workloads,
    matrix_workloads,   call_workloads, float_workloads, memory_workloads, kernel_workloads,
};

struct options {
    const char *only; /* comma-separated groups and names, NULL for all */
    uint64_t target_ns;
    int count;
    int list;
};

static char program[256];

const char *self_path(void)
{
    return program;
}

void need(int ok, const char *what)
{
    if (ok)
        return;
    printf("bench-error %s: %s\n", what, strerror(errno));
    fflush(stdout);
    _exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Whether a comma-separated list has the word. */
static int word_in(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (!strncmp(p, word, len) && (p[len] == ',' || !p[len]))
            return 1;
    return 0;
}

static int chosen(const struct options *o, const struct workload *w)
{
    return !o->only || word_in(o->only, w->group) || word_in(o->only, w->name);
}

static uint64_t timed(const struct workload *w, uint64_t n)
{
    uint64_t start = now_ns();
    w->run(n);
    uint64_t spent = now_ns() - start;
    return spent ? spent : 1;
}

/* Finds how many iterations fill the target, whatever the machine's speed, then measures that many. */
static void measure_here(const struct workload *w, const struct options *o)
{
    if (w->setup)
        w->setup();
    uint64_t check = w->run(1);
    uint64_t n = 1, spent = timed(w, n);
    while (spent < o->target_ns / 5 && n < 1ull << 40) {
        uint64_t wanted = n * (o->target_ns / 4) / spent + 1;
        n = wanted < n * 16 ? wanted : n * 16;
        spent = timed(w, n);
    }
    n = (uint64_t)((double)n * (double)o->target_ns / (double)spent);
    n = n ? n : 1;

    printf("bench-start %s\n", w->name);
    fflush(stdout);
    spent = timed(w, n);
    double each = (double)spent / (double)n - (double)w->idle_ns;
    printf("bench %s %s %llu %.4f %.4f %016llx %s\n", w->name, w->group, (unsigned long long)n, each,
           each / (double)w->per, (unsigned long long)check, w->unit);
    fflush(stdout);
}

/* Each workload has a process of its own: what one leaves in memory would make the next one's forks slow. */
static void measure(const struct workload *w, const struct options *o)
{
    pid_t pid = fork();
    need(pid >= 0, "fork");
    if (!pid) {
        measure_here(w, o);
        _exit(0);
    }
    int status;
    need(waitpid(pid, &status, 0) == pid, "waitpid");
    if (status)
        printf("bench-error %s: ended with status %#x\n", w->name, (unsigned)status);
}

static volatile uint64_t steps;

static void on_step(int signal_number)
{
    (void)signal_number;
    steps++;
}

/* Instructions of one iteration, each round of a REP counted as one: the trap flag raises a signal for each. */
__attribute__((noinline)) static uint64_t count_steps(const struct workload *w)
{
    steps = 0;
    __asm__ volatile(
        "lea -128(%%rsp), %%rsp; pushf; orl $0x100, (%%rsp); popf; lea 128(%%rsp), %%rsp" : : : "cc", "memory");
    w->run(1);
    __asm__ volatile(
        "lea -128(%%rsp), %%rsp; pushf; andl $~0x100, (%%rsp); popf; lea 128(%%rsp), %%rsp" : : : "cc", "memory");
    return steps;
}

static uint64_t run_nothing(uint64_t n)
{
    return n;
}

static void count(const struct workload *w)
{
    static const struct workload nothing = { .name = "nothing", .run = run_nothing };
    need(signal(SIGTRAP, on_step) != SIG_ERR, "signal");
    if (w->setup)
        w->setup();
    w->run(1);
    uint64_t base = count_steps(&nothing);
    printf("bench-count %s %llu\n", w->name, (unsigned long long)(count_steps(w) - base));
    fflush(stdout);
}

static void each_workload(const struct options *o)
{
    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
        for (const struct workload *w = tables[t]; w->name; w++) {
            int user_code = strcmp(w->group, "sys") && strcmp(w->group, "time");
            if (!chosen(o, w))
                continue;
            if (o->list)
                printf("%s %s %s\n", w->name, w->group, w->unit);
            else if (!o->count)
                measure(w, o);
            else if (user_code)
                count(w);
        }
    }
}

/* As a guest's init: unknown words of the kernel's command line arrive as environment. */
static void be_init(struct options *o)
{
    printf("bench-init\n");
    fflush(stdout);
    mount("proc", "/proc", "proc", 0, NULL);
    o->only = getenv("bench_only");
    const char *ms = getenv("bench_ms");
    if (ms)
        o->target_ns = strtoull(ms, NULL, 10) * 1000000;
}

int main(int argc, char **argv)
{
    struct options o = { .target_ns = 400000000 };
    if (argc == 2 && !strcmp(argv[1], "--exit"))
        return 0;
    int init = getpid() == 1;
    if (init) {
        be_init(&o);
    } else {
        for (int i = 1; i < argc; i++) {
            if (!strcmp(argv[i], "--count")) {
                o.count = 1;
            } else if (!strcmp(argv[i], "--list")) {
                o.list = 1;
            } else if (!strcmp(argv[i], "--only") && i + 1 < argc) {
                o.only = argv[++i];
            } else if (!strcmp(argv[i], "--target-ms") && i + 1 < argc) {
                o.target_ns = strtoull(argv[++i], NULL, 10) * 1000000;
            } else {
                fprintf(stderr, "sundog-bench: %s: no such option, or its value is missing\n", argv[i]);
                return 2;
            }
        }
    }
    need(readlink("/proc/self/exe", program, sizeof(program) - 1) > 0, "/proc/self/exe");

    each_workload(&o);
    printf("bench-end\n");
    fflush(stdout);
    if (init) {
        sync();
        reboot(RB_POWER_OFF);
    }
    return 0;
}
