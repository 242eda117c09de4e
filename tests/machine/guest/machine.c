/* SPDX-License-Identifier: Apache-2.0 */
/* What machine this is: processor model, hidden instructions, the kernel's complaints, RAM, hotplug, console input. */
#include "selftest.h"

#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <termios.h>
#include <unistd.h>

/* --- the processor's model -------------------------------------------------------------------------------- */

/* What is promised, in Linux's words: x86-64-v2 and the system features that go with it. */
static const char promised[] =
    " fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2"
    " nx pdpe1gb rdtscp lm pni pclmulqdq ssse3 cx16 sse4_1 sse4_2 x2apic popcnt tsc_deadline_timer aes xsave"
    " hypervisor lahf_lm fsgsbase tsc_adjust smep erms invpcid smap umip constant_tsc nonstop_tsc ";

/* What may be there besides: the vendors' forms, bits of several processors, mitigations, and Linux's own words for its choices. */
static const char allowed[] = " syscall pcid ht cmp_legacy cr8_legacy topoext extd_apicid vmmcall "
                              "3dnowprefetch xsaveerptr invpcid_single rep_good nopl"
                              " xtopology cpuid tsc_known_freq tsc_reliable nonstop_tsc_s3 arat up pti "
                              "arch_capabilities ibrs ibpb stibp ssbd ibrs_enhanced"
                              " lfence_rdtsc mfence_rdtsc fxsr_opt cpuid_fault ";

static bool has_word(const char *text, const char *word)
{
    char wanted[64];
    snprintf(wanted, sizeof(wanted), " %s ", word);
    return strstr(text, wanted) != NULL;
}

static void check_flags(void)
{
    static char info[65536];
    char missing[512] = "", beyond[512] = "", flags[4096] = "";
    read_text("/proc/cpuinfo", info, sizeof(info));
    char *line = strstr(info, "\nflags");
    char *colon = line ? strchr(line, ':') : NULL;
    if (colon) {
        *strchr(colon, '\n') = 0;
        snprintf(flags, sizeof(flags), "%s ", colon + 1);
    }
    for (char *save, *copy = strdup(promised), *w = strtok_r(copy, " ", &save); w;
         w = strtok_r(NULL, " ", &save))
        if (!has_word(flags, w))
            strcat(strcat(missing, " "), w);
    for (char *save, *copy = strdup(flags), *w = strtok_r(copy, " ", &save); w;
         w = strtok_r(NULL, " ", &save))
        if (!has_word(promised, w) && !has_word(allowed, w))
            strcat(strcat(beyond, " "), w);
    check(!*missing, "cpuinfo has what is promised", "missing:%s", missing);
    check(!*beyond, "cpuinfo has nothing beyond", "beyond:%s", beyond);
}

static void check_cpuid(void)
{
    uint32_t r[4];
    char name[13] = "";
    cpuid(0, 0, r);
    memcpy(name, &r[1], 4);
    memcpy(name + 4, &r[3], 4);
    memcpy(name + 8, &r[2], 4);
    if (getenv("vendor"))
        check(!strcmp(name, getenv("vendor")), "the host's vendor", "%s", name);
    cpuid(0x40000000, 0, r);
    memcpy(name, &r[1], 12);
    check(!strcmp(name, "SunDogSunDog"), "own hypervisor signature", "%s", name);
    cpuid(0x40000100, 0, r);
    memcpy(name, &r[1], 12);
    check(!memcmp(&r[1], "KVMKVMKVM\0\0", 12), "KVM signature", "%s", name);
    cpuid(0x40000101, 0, r);
    check_equal("KVM offers the stable clock only", r[0], 1u << 3 | 1u << 24);
    cpuid(7, 0, r);
    check_equal("leaf 7 ends with subleaf 0", r[0], 0);
    cpuid(0xd, 0, r);
    check_equal("XCR0 knows x87 and SSE only", r[0], 3);
}

void test_processor(void)
{
    check_flags();
    check_cpuid();
    unsigned want = (unsigned)setting("cpus", 1);
    check_equal("processors online", online_cpus(), want);
    unsigned reached = 0;
    for (unsigned i = 0; i < want; i++)
        reached += run_on(i);
    check_equal("processors that run this program", reached, want);
    uint32_t r[4], seen = 0;
    for (unsigned i = 0; i < want; i++) {
        run_on(i);
        cpuid(1, 0, r);
        seen |= 1u << (r[1] >> 24 & 31);
    }
    check_equal("APIC numbers seen", seen, (1u << want) - 1);
}

/* --- instructions that CPUID does not show ---------------------------------------------------------------- */

struct encoding {
    const char *name;
    uint8_t bytes[12];
};

static void run_bytes(void *code)
{
    __asm__ volatile("call *%0" : : "r"(code) : "eax", "ecx", "edx", "memory", "cc");
}

/* Each as a manual writes it; register operands, so that only the opcode can fault. */
static const struct encoding refused[] = {
    { "ud2", { 0x0f, 0x0b } },
    { "vaddps ymm", { 0xc5, 0xfc, 0x58, 0xc1 } },
    { "vpaddd xmm", { 0xc5, 0xf9, 0xfe, 0xc1 } },
    { "vfmadd132ps", { 0xc4, 0xe2, 0x79, 0x98, 0xc1 } },
    { "andn", { 0xc4, 0xe2, 0x78, 0xf2, 0xc1 } },
    { "vaddps zmm", { 0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1 } },
    { "rdrand", { 0x0f, 0xc7, 0xf0 } },
    { "rdseed", { 0x0f, 0xc7, 0xf8 } },
    { "adcx", { 0x66, 0x0f, 0x38, 0xf6, 0xc1 } },
    { "sha256rnds2", { 0x0f, 0x38, 0xcb, 0xc1 } },
    { "extrq", { 0x66, 0x0f, 0x79, 0xc1 } },
    { "vmxon-like vmlaunch", { 0x0f, 0x01, 0xc2 } },
    { "monitor", { 0x0f, 0x01, 0xc8 } },
    { "mwait", { 0x0f, 0x01, 0xc9 } },
    { "xbegin", { 0xc7, 0xf8, 0, 0, 0, 0 } },
    { "femms", { 0x0f, 0x0e } },
    { "rdpkru", { 0x0f, 0x01, 0xee } },
    { "gf2p8mulb", { 0x66, 0x0f, 0x38, 0xcf, 0xc1 } },
};

/* Without its feature bit an F3 prefix means nothing: LZCNT is BSR, TZCNT is BSF (SDM 2A, LZCNT). */
static void check_ignored_prefix(void)
{
    uint32_t lz = 0, tz = 0;
    __asm__ volatile(".byte 0xf3, 0x0f, 0xbd, 0xc1" : "=a"(lz) : "c"(0x10), "0"(0) : "cc");
    __asm__ volatile(".byte 0xf3, 0x0f, 0xbc, 0xc1" : "=a"(tz) : "c"(0x10), "0"(0) : "cc");
    check_equal("lzcnt is bsr", lz, 4);
    check_equal("tzcnt is bsf", tz, 4);
}

/* KVM's calls are not offered: each answers -1000 (KVM_ENOSYS), whichever vendor's form. */
static void hypercall(void *out)
{
    long *answer = out;
    __asm__ volatile("vmcall" : "=a"(answer[0]) : "0"(5L) : "memory");
    __asm__ volatile("vmmcall" : "=a"(answer[1]) : "0"(5L) : "memory");
}

void test_hidden(void)
{
    uint8_t *code = pages(1, PROT_READ | PROT_WRITE | PROT_EXEC);
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        const struct encoding *e = &refused[i];
        memset(code, 0xc3, PAGE);
        memcpy(code, e->bytes, sizeof(e->bytes));
        code[sizeof(e->bytes)] = 0xc3;
        char name[64];
        snprintf(name, sizeof(name), "refused %s", e->name);
        check_trap(name, catch_trap(run_bytes, code), SIGILL, ILL_ILLOPN, (uintptr_t)code);
    }
    check_ignored_prefix();
    long answers[2] = { 0 };
    struct trap t = catch_trap(hypercall, answers);
    check(!t.signal && answers[0] == -1000 && answers[1] == -1000, "hypercalls answer -1000",
          "signal %d, %ld %ld", t.signal, answers[0], answers[1]);
}

/* --- the kernel's log ------------------------------------------------------------------------------------- */

void test_kernel_log(void)
{
    static const char *const bad[] = { "WARNING:",
                                       "BUG:",
                                       "Oops",
                                       "unchecked MSR",
                                       "Call Trace",
                                       "soft lockup",
                                       "rcu_sched",
                                       "rcu: INFO",
                                       "nobody cared",
                                       "Spurious",
                                       "spurious",
                                       "firmware bug",
                                       "[Firmware Bug]",
                                       "not responding",
                                       "failed to boot",
                                       "Measured",
                                       "Marking TSC unstable",
                                       "timer doesn't work",
                                       "no IRQ handler" };
    static char log[512 * 1024];
    int n = klogctl(3, log, sizeof(log) - 1);
    log[n > 0 ? n : 0] = 0;
    unsigned found = 0;
    for (char *save, *line = strtok_r(log, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
            if (strstr(line, bad[i]) && found < 20) {
                found++;
                printf("# kernel: %s\n", line);
                break;
            }
    check(n > 0 && !found, "kernel has no complaint", "%u lines", found);
}

/* --- RAM -------------------------------------------------------------------------------------------------- */

static uint64_t word_of(uint64_t page, unsigned at)
{
    return (page * 512 + at) * 0x9e3779b97f4a7c15ull ^ 0x5e1f7e57;
}

/* The kernel keeps some for itself: 64 MiB and a thirty-second of all would be much. */
static void check_size(const struct sysinfo *info)
{
    uint64_t total = (uint64_t)info->totalram * info->mem_unit >> 20, want = (uint64_t)setting("memory", 0);
    if (want)
        check(total <= want && total + 64 + want / 32 >= want, "the kernel has found all memory",
              "%llu MiB of %llu", (unsigned long long)total, (unsigned long long)want);
}

/* Nearly all free RAM, or what is asked for: a few words of every page, and every word of the first 32 MiB. */
void test_ram(void)
{
    const uint64_t whole = (32u << 20) / PAGE, part = 64; /* words from one checked to the next */
    struct sysinfo info;
    sysinfo(&info);
    check_size(&info);
    uint64_t bytes = (uint64_t)info.freeram * info.mem_unit;
    uint64_t spare = bytes / 8 > (8u << 20) ? bytes / 8 : 8u << 20;
    uint64_t count = bytes > spare ? (bytes - spare) / PAGE : 0;
    /* One process of a 32-bit kernel has less than 3 GiB of addresses. */
    if (sizeof(void *) == 4 && count > (1800u << 20) / PAGE)
        count = (1800u << 20) / PAGE;
    if (setting("fill", 0) && count > (uint64_t)setting("fill", 0) << 8)
        count = (uint64_t)setting("fill", 0) << 8;
    uint64_t(*p)[512] = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!count || p == MAP_FAILED) {
        check(false, "RAM holds what was stored", "%llu free bytes cannot be mapped",
              (unsigned long long)bytes);
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        for (unsigned k = 0; k < 512; k += i < whole ? 1 : part)
            p[i][k] = word_of(i, k);
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < count; i++)
        for (unsigned k = 0; k < 512; k += i < whole ? 1 : part)
            wrong += p[i][k] != word_of(i, k);
    printf("# ram: %llu MiB of %llu free\n", (unsigned long long)(count * PAGE >> 20),
           (unsigned long long)(bytes >> 20));
    check_equal("RAM holds what was stored", wrong, 0);
    munmap(p, count * PAGE);
}

/* --- processors off and on -------------------------------------------------------------------------------- */

void test_hotplug(void)
{
    unsigned cpus = online_cpus();
    if (cpus < 2) {
        skip("processors off and on", "one processor");
        return;
    }
    bool went = true, came = true;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 1; i < cpus; i++) {
            char path[64];
            snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/online", i);
            went &= write_text(path, "0") && !run_on(i) && online_cpus() == cpus - 1;
            came &= write_text(path, "1") && run_on(i);
            run_on(0);
        }
    check(went, "processors go off", "%u online", online_cpus());
    check(came, "processors come on", "%u online", online_cpus());
}

/* --- the console's input ---------------------------------------------------------------------------------- */

/* Answers each line turned round, until an empty one: with input=1 only, since somebody must type. */
void test_input(void)
{
    if (!setting("input", 0))
        return;
    char line[4096];
    unsigned lines = 0;
    struct termios t;
    if (!tcgetattr(0, &t)) {
        t.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(0, TCSANOW, &t);
    }
    printf("INPUT ready\n");
    while (fgets(line, sizeof(line), stdin) && line[0] != '\n') {
        size_t n = strcspn(line, "\n");
        for (size_t i = 0; i < n / 2; i++) {
            char c = line[i];
            line[i] = line[n - 1 - i];
            line[n - 1 - i] = c;
        }
        printf("INPUT %.*s\n", (int)n, line);
        lines++;
    }
    check(lines > 0, "lines came in", "none");
}
