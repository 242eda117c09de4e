/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks and timers. What has a least duration is exact; what has a most is generous, since the host may be busy. */
#include "selftest.h"

#include <fcntl.h>
#include <linux/rtc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000ull
#define LATE (3000 * MS)

static void check_took(const char *name, uint64_t start, uint64_t least)
{
    uint64_t took = now_ns() - start;
    check(took >= least && took <= least + LATE, name, "took %llu us, least %llu us",
          (unsigned long long)took / 1000, (unsigned long long)least / 1000);
}

static void sleep_ns(uint64_t ns)
{
    nanosleep(&(struct timespec){ (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) }, NULL);
}

/* --- clocks ----------------------------------------------------------------------------------------------- */

static uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

/* The newest reading of any thread: later readings may not be older. */
static uint64_t newest_clock, newest_tsc;
static unsigned backwards;

static void advance(uint64_t *newest, uint64_t (*read)(void))
{
    uint64_t before = __atomic_load_n(newest, __ATOMIC_SEQ_CST);
    uint64_t t = read();
    if (t < before)
        __atomic_add_fetch(&backwards, 1, __ATOMIC_SEQ_CST);
    while (t > before &&
           !__atomic_compare_exchange_n(newest, &before, t, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        continue;
}

static void *read_clocks(void *cpu)
{
    run_on((unsigned)(uintptr_t)cpu);
    for (unsigned i = 0; i < 5000; i++) {
        advance(&newest_clock, now_ns);
        advance(&newest_tsc, rdtsc);
    }
    return NULL;
}

static void check_order(void)
{
    pthread_t threads[8];
    unsigned n = online_cpus() < 8 ? online_cpus() : 8;
    for (unsigned i = 0; i < n; i++)
        pthread_create(&threads[i], NULL, read_clocks, (void *)(uintptr_t)i);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    check_equal("no clock goes backwards on any processor", backwards, 0);
}

/* CPUID tells the TSC's rate; the kernel's clock must agree with it. */
static void check_rate(void)
{
    uint32_t r[4];
    cpuid(0x40000010, 0, r);
    uint64_t start = now_ns(), ticks = rdtsc();
    sleep_ns(300 * MS);
    uint64_t took = now_ns() - start;
    ticks = rdtsc() - ticks;
    uint64_t khz = ticks * 1000000 / took;
    check(r[0] && khz > r[0] / 100 * 98ull && khz < r[0] / 100 * 102ull, "TSC runs at its rate",
          "%llu kHz, CPUID says %u", (unsigned long long)khz, r[0]);
}

static void check_processor_number(void)
{
    unsigned wrong = 0;
    if (!kernel_is_64()) {
        skip("RDTSCP tells the processor", "a 32-bit kernel does not set it");
        return;
    }
    for (unsigned i = 0; i < online_cpus(); i++) {
        uint32_t low, high, aux;
        run_on(i);
        __asm__ volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
        wrong += (aux & 0xfff) != i;
    }
    check_equal("RDTSCP tells the processor", wrong, 0);
}

/* The console's reader compares these with its own clock. */
static void mark(const char *what) { printf("MARK %s %llu\n", what, (unsigned long long)now_ns()); }

void test_clocks(void)
{
    char source[64] = "";
    read_text("/sys/devices/system/clocksource/clocksource0/current_clocksource", source, sizeof(source));
    source[strcspn(source, "\n")] = 0;
    check(!strcmp(source, "kvm-clock") || !strcmp(source, "tsc"), "clock source", "%s", source);
    check_order();
    check_rate();
    check_processor_number();
    mark("begin");
    sleep_ns(2000 * MS);
    mark("end");
}

/* --- timers ----------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t alarms;

static void on_alarm(int signal)
{
    (void)signal;
    alarms++;
}

static void check_interval_timer(void)
{
    const struct itimerval every = { { 0, 20000 }, { 0, 20000 } }, never = { 0 };
    struct sigaction action = { .sa_handler = on_alarm };
    sigaction(SIGALRM, &action, NULL);
    uint64_t start = now_ns();
    setitimer(ITIMER_REAL, &every, NULL);
    while (alarms < 10)
        sleep_ns(1000 * MS); /* a signal ends it */
    check_took("ten interval timer signals", start, 199 * MS);
    setitimer(ITIMER_REAL, &never, NULL);
}

static void check_timerfd(void)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, 0);
    const struct itimerspec every = { { 0, 5 * MS }, { 0, 5 * MS } };
    uint64_t start = now_ns(), ticks = 0, n;
    timerfd_settime(fd, 0, &every, NULL);
    while (ticks < 30 && read(fd, &n, sizeof(n)) == sizeof(n))
        ticks += n;
    check_took("thirty timerfd ticks", start, 149 * MS);
    close(fd);
}

/* Work is charged to the process that does it. */
static void check_accounting(void)
{
    struct rusage use;
    uint64_t start = now_ns();
    volatile unsigned work = 0;
    do {
        for (unsigned i = 0; i < 10000; i++)
            work += i;
        getrusage(RUSAGE_SELF, &use);
    } while (use.ru_utime.tv_sec == 0 && use.ru_utime.tv_usec < 100000 && now_ns() - start < 20000 * MS);
    check(use.ru_utime.tv_sec || use.ru_utime.tv_usec >= 100000, "user time is charged", "%ld us",
          (long)use.ru_utime.tv_usec);
}

void test_timers(void)
{
    static const uint64_t lengths[] = { 100000, 1 * MS, 10 * MS, 100 * MS };
    for (unsigned i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof(name), "sleep of %llu us", (unsigned long long)lengths[i] / 1000);
        uint64_t start = now_ns();
        sleep_ns(lengths[i]);
        check_took(name, start, lengths[i]);
    }
    /* Many short ones in turn: a lost wake-up would show as a late end. */
    uint64_t start = now_ns();
    for (unsigned i = 0; i < 100; i++)
        sleep_ns(MS / 2);
    check_took("a hundred short sleeps", start, 50 * MS);
    start = now_ns();
    poll(NULL, 0, 30);
    check_took("poll's time-out", start, 30 * MS);
    check_interval_timer();
    check_timerfd();
    check_accounting();
}

/* --- the battery clock ------------------------------------------------------------------------------------ */

static int64_t rtc_seconds(const struct rtc_time *t)
{
    struct tm tm = { .tm_sec = t->tm_sec,
                     .tm_min = t->tm_min,
                     .tm_hour = t->tm_hour,
                     .tm_mday = t->tm_mday,
                     .tm_mon = t->tm_mon,
                     .tm_year = t->tm_year };
    return (int64_t)timegm(&tm);
}

void test_rtc(void)
{
    int fd = open("/dev/rtc0", O_RDONLY);
    struct rtc_time t;
    if (fd < 0 || ioctl(fd, RTC_RD_TIME, &t)) {
        check(false, "battery clock", "/dev/rtc0 cannot be read");
        return;
    }
    int64_t off = rtc_seconds(&t) - (int64_t)time(NULL);
    check(off >= -3 && off <= 3, "battery clock tells the time of day", "%lld s off", (long long)off);
    /* Its update interrupt, twice: once a second. */
    unsigned long data;
    if (ioctl(fd, RTC_UIE_ON, 0)) {
        check(false, "battery clock's interrupt", "cannot be switched on");
        return;
    }
    bool came = read(fd, &data, sizeof(data)) > 0;
    uint64_t start = now_ns();
    came = came && read(fd, &data, sizeof(data)) > 0;
    ioctl(fd, RTC_UIE_OFF, 0);
    uint64_t took = (now_ns() - start) / MS;
    check(came && took > 500 && took < 3500, "battery clock's interrupt", "a second took %llu ms",
          (unsigned long long)took);
    close(fd);
}
