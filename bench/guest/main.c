/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the workloads and prints one line each: natively as a program, in a guest as its init.
 *
 *   sundog-bench [--only GROUP|NAME[,...]] [--target-ms N] [--repeat N] [--root DIR]   measures
 *   sundog-bench --count [--only ...]                        counts instructions by single-stepping
 *   sundog-bench --list
 *
 * As process 1 it takes the same from the kernel's command line (bench_only=, bench_ms=, bench_repeat=), and
 * powers off; with bench_idle it says "bench-init" and then sleeps.
 *
 * Around each measurement stand two lines, "bench-start NAME" and "bench-clock NAME SECONDS" by this
 * machine's clock, so that whoever reads them can hold his own clock against it. */
#include "bench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct workload *const tables[] = {
    compress_workloads, hash_workloads,   sort_workloads,    parse_workloads,  bytecode_workloads,
    matrix_workloads,   call_workloads,   float_workloads,   vector_workloads, memory_workloads,
    string_workloads,   kernel_workloads, program_workloads,
};

struct options {
    const char *only; /* comma-separated groups and names, NULL for all */
    const char *root; /* folder that becomes the root, NULL for none */
    uint64_t target_ns;
    unsigned repeat;
    int count, list, idle;
};

static char program[256];

const char *self_path(void) { return program; }

void need(int ok, const char *what)
{
    if (ok)
        return;
    printf("bench-error %s: %s\n", what, strerror(errno));
    fflush(stdout);
    _exit(1);
}

uint64_t now_ns(void)
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
    printf("bench-start %s\n", w->name);
    fflush(stdout);
    uint64_t start = now_ns();
    w->run(n);
    uint64_t spent = now_ns() - start;
    printf("bench-clock %s %.9f\n", w->name, (double)spent / 1e9);
    fflush(stdout);
    return spent ? spent : 1;
}

static void print_result(const struct workload *w, uint64_t n, uint64_t spent, uint64_t check)
{
    double each = w->own_ns ? w->own_ns() : (double)spent / (double)n - (double)w->idle_ns;
    printf("bench %s %s %llu %.4f %.4f %016llx %s\n", w->name, w->group, (unsigned long long)n, each,
           each / (double)w->per, (unsigned long long)check, w->unit);
    fflush(stdout);
}

/* Finds how many iterations fill the target, whatever the machine's speed, then measures that many. */
static void measure_here(const struct workload *w, const struct options *o)
{
    uint64_t n = 1, check, spent;
    if (w->setup)
        w->setup();
    check = w->own_ns ? 0 : w->run(1);
    spent = timed(w, n);
    while (!w->own_ns && spent < o->target_ns / 5 && n < 1ull << 40) {
        uint64_t wanted = n * (o->target_ns / 4) / spent + 1;
        n = wanted < n * 16 ? wanted : n * 16;
        spent = timed(w, n);
    }
    unsigned done = 0;
    /* What takes as long as wanted has been measured by now. */
    if (w->own_ns || spent >= o->target_ns)
        print_result(w, n, spent, check), done = 1;
    else
        n = (uint64_t)((double)n * (double)o->target_ns / (double)spent);
    for (; done < o->repeat; done++)
        print_result(w, n, timed(w, n), check);
}

/* Each workload has a process of its own: what one leaves in memory would make the next one's forks slow. */
static void measure(const struct workload *w, const struct options *o)
{
    const char *why = w->missing ? w->missing() : NULL;
    if (why) {
        printf("bench-skip %s %s\n", w->name, why);
        return;
    }
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
    __asm__ volatile("lea -128(%%rsp), %%rsp; pushf; orl $0x100, (%%rsp); popf; lea 128(%%rsp), %%rsp"
                     :
                     :
                     : "cc", "memory");
    w->run(1);
    __asm__ volatile("lea -128(%%rsp), %%rsp; pushf; andl $~0x100, (%%rsp); popf; lea 128(%%rsp), %%rsp"
                     :
                     :
                     : "cc", "memory");
    return steps;
}

static uint64_t run_nothing(uint64_t n) { return n; }

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

/* REP instructions over megabytes would be stepped round by round. */
static int can_be_counted(const struct workload *w)
{
    return strcmp(w->group, "sys") && strcmp(w->group, "time") && strcmp(w->group, "string") &&
           strcmp(w->group, "prog") && !w->missing;
}

static void each_workload(const struct options *o)
{
    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
        for (const struct workload *w = tables[t]; w->name; w++) {
            if (!chosen(o, w))
                continue;
            if (o->list)
                printf("%s %s %s\n", w->name, w->group, w->unit);
            else if (!o->count)
                measure(w, o);
            else if (can_be_counted(w))
                count(w);
        }
    }
}

static void take_repeat(struct options *o, const char *text)
{
    unsigned long n = strtoul(text, NULL, 10);
    o->repeat = n > 1 ? (unsigned)n : 1;
}

static void take_target(struct options *o, const char *text)
{
    o->target_ns = strtoull(text, NULL, 10) * 1000000;
}

/* As a guest's init: unknown words of the kernel's command line arrive as environment. */
static void be_init(struct options *o)
{
    const char *value;
    printf("bench-init\n");
    fflush(stdout);
    place_init();
    o->only = getenv("bench_only");
    if ((value = getenv("bench_ms")))
        take_target(o, value);
    if ((value = getenv("bench_repeat")))
        take_repeat(o, value);
    o->idle = getenv("bench_idle") != NULL;
}

/* Whether all options were understood. */
static int take_options(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--count"))
            o->count = 1;
        else if (!strcmp(argv[i], "--list"))
            o->list = 1;
        else if (!strcmp(argv[i], "--only") && value)
            o->only = value, i++;
        else if (!strcmp(argv[i], "--root") && value)
            o->root = value, i++;
        else if (!strcmp(argv[i], "--target-ms") && value)
            take_target(o, value), i++;
        else if (!strcmp(argv[i], "--repeat") && value)
            take_repeat(o, value), i++;
        else
            return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    struct options o = { .target_ns = 400000000, .repeat = 1 };
    if (argc == 2 && !strcmp(argv[1], "--exit"))
        return 0;
    int init = getpid() == 1;
    if (init) {
        be_init(&o);
    } else if (!take_options(&o, argc, argv)) {
        fprintf(stderr, "sundog-bench: an option is unknown or its value is missing\n");
        return 2;
    }
    need(readlink("/proc/self/exe", program, sizeof(program) - 1) > 0, "/proc/self/exe");
    if (o.root)
        place_enter(o.root);

    if (!o.list && !o.count)
        place_describe();
    each_workload(&o);
    printf("bench-end\n");
    fflush(stdout);
    while (o.idle)
        pause();
    if (init) {
        sync();
        reboot(RB_POWER_OFF);
    }
    return 0;
}
