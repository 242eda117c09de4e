/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's init that checks the machine below it from user space, prints
 *
 *     ok NAME | not ok NAME: WHY | skip NAME: WHY     one line a check
 *     SELFTEST n passed m failed                      one line at the end
 *
 * and ends the machine. Settings come by the kernel's command line: cpus=N (how many there must be), vendor=STRING,
 * only=SECTION,..., except=SECTION,..., memory=MIB (of the machine), fill=MIB (how much the section "ram" takes), input=1 (echo
 * what is typed), end=poweroff|reboot|panic|debug-exit|stay. As an ordinary process (on the host) it runs the sections that need
 * no machine of their own.
 */
#include "selftest.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct section sections[] = {
    { "processor", test_processor, true, 0 },
    { "hidden", test_hidden, true, 0 },
    { "clocks", test_clocks, true, 0 },
    { "timers", test_timers, false, 0 },
    { "rtc", test_rtc, true, 0 },
    { "faults", test_faults, false, 0 },
    { "traps", test_traps, false, 0 },
    { "debugger", test_debugger, false, 0 },
    { "processes", test_processes, false, 0 },
    { "mappings", test_mappings, false, 0 },
    { "threads", test_threads, false, 0 },
    { "shootdown", test_shootdown, false, 0 },
    { "code", test_code, false, 0 },
    { "entries", test_entries, false, 0 },
    { "segments", test_segments, false, 0 },
    { "x87", test_x87, false, 0 },
    { "simd", test_simd, false, 0 },
    { "contexts", test_contexts, false, 0 },
    { "ram", test_ram, true, 300 },
    { "hotplug", test_hotplug, true, 0 },
    { "input", test_input, true, 0 },
    { "kernel-log", test_kernel_log, true, 0 },
};

/* Shared by all the sections' processes. */
static struct counts {
    unsigned passed, failed, skipped;
} * counts;

static void say(const char *verdict, const char *name, const char *fmt, va_list args)
{
    char line[512];
    int n = snprintf(line, sizeof(line), "%s %s", verdict, name);
    if (fmt && *fmt && n < (int)sizeof(line) - 2) {
        n += snprintf(line + n, sizeof(line) - (size_t)n, ": ");
        n += vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, args);
    }
    if (n > (int)sizeof(line) - 2)
        n = sizeof(line) - 2;
    line[n++] = '\n';
    /* One write a line: threads and processes share the console. */
    if (write(STDOUT_FILENO, line, (size_t)n) != n)
        _exit(3);
}

void check(bool ok, const char *name, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    __atomic_add_fetch(ok ? &counts->passed : &counts->failed, 1, __ATOMIC_SEQ_CST);
    say(ok ? "ok" : "not ok", name, ok ? NULL : fmt, args);
    va_end(args);
}

void check_equal(const char *name, uint64_t got, uint64_t want)
{
    check(got == want, name, "got %#llx, want %#llx", (unsigned long long)got, (unsigned long long)want);
}

void skip(const char *name, const char *why)
{
    __atomic_add_fetch(&counts->skipped, 1, __ATOMIC_SEQ_CST);
    dprintf(STDOUT_FILENO, "skip %s: %s\n", name, why);
}

long setting(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 0) : otherwise;
}

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void *pages(size_t count, int protection)
{
    void *p = mmap(NULL, count * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        check(false, "memory for a section", "%zu pages: %s", count, strerror(errno));
        exit(1);
    }
    return p;
}

unsigned online_cpus(void) { return (unsigned)sysconf(_SC_NPROCESSORS_ONLN); }

bool kernel_is_64(void)
{
    struct utsname u;
    return !uname(&u) && !strcmp(u.machine, "x86_64");
}

bool run_on(unsigned cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return !sched_setaffinity(0, sizeof(set), &set) && sched_getcpu() == (int)cpu;
}

bool read_text(const char *path, char *out, size_t len)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return false;
    size_t have = 0;
    ssize_t n;
    while (have + 1 < len && (n = read(fd, out + have, len - 1 - have)) > 0)
        have += (size_t)n;
    close(fd);
    out[have] = 0;
    return true;
}

bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return false;
    ssize_t n = write(fd, text, strlen(text));
    close(fd);
    return n == (ssize_t)strlen(text);
}

void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(subleaf));
}

/* --- running ---------------------------------------------------------------------------------------------- */

static bool listed(const char *list, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, name, len) && (p[len] == ',' || !p[len]))
            return true;
    return false;
}

static void run_section(const struct section *s)
{
    unsigned limit = s->seconds ? s->seconds : 60;
    uint64_t start = now_ns();
    pid_t child = fork();
    if (!child) {
        s->run();
        _exit(0);
    }
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (now_ns() - start > limit * 1000000000ull) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            check(false, s->name, "no end within %u seconds", limit);
            return;
        }
        nanosleep(&(struct timespec){ 0, 5000000 }, NULL);
    }
    if (WIFSIGNALED(status))
        check(false, s->name, "ended by signal %d", WTERMSIG(status));
    else if (WEXITSTATUS(status))
        check(false, s->name, "ended with status %d", WEXITSTATUS(status));
    printf("# %s: %llu ms\n", s->name, (unsigned long long)((now_ns() - start) / 1000000));
}

static void mount_all(void)
{
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sys", "/sys", "sysfs", 0, NULL);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    mount("tmp", "/tmp", "tmpfs", 0, NULL);
}

static void end_machine(void)
{
    const char *how = getenv("end") ? getenv("end") : "poweroff";
    sync();
    if (!strcmp(how, "reboot"))
        reboot(RB_AUTOBOOT);
    if (!strcmp(how, "panic"))
        exit(7); /* init's end is the kernel's panic */
    if (!strcmp(how, "debug-exit") && !ioperm(0xf4, 1, 1))
        __asm__ volatile("outb %0, $0xf4" : : "a"((uint8_t)21));
    while (!strcmp(how, "stay"))
        pause();
    reboot(RB_POWER_OFF);
    pause();
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--exec"))
        return 42; /* test_processes has started us again */
    bool machine = getpid() == 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    counts = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (machine)
        mount_all();
    const char *only = getenv("only"), *except = getenv("except");
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
        const struct section *s = &sections[i];
        if ((!s->needs_machine || machine) && (!only || listed(only, s->name)) && !listed(except, s->name))
            run_section(s);
    }
    printf("SELFTEST %u passed %u failed\n", counts->passed, counts->failed);
    fflush(stdout);
    if (machine)
        end_machine();
    return counts->failed ? 1 : 0;
}
