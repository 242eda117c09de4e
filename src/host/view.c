/* SPDX-License-Identifier: Apache-2.0 */
/* Reserved address space and mappings in it. */
#include "host/view.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <sys/auxv.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAPPINGS_MAX 56000 /* the rest is for memory, code, threads and libraries */

static _Atomic int mappings_left = MAPPINGS_MAX;

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#define HWCAP2_GS_BASE (1u << 1)

static bool gs_by_instruction(void) { return getauxval(AT_HWCAP2) & HWCAP2_GS_BASE; }

bool host_view_possible(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_BMI2 && gs_by_instruction();
}

__attribute__((target("fsgsbase"))) void host_set_gs_base(uint64_t base) { __builtin_ia32_wrgsbase64(base); }

static void *at_address(uintptr_t at) { return (void *)at; }

bool host_view_reserve(uintptr_t at, uint64_t len)
{
    void *p = mmap(at_address(at), len, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (p == MAP_FAILED)
        return false;
    if (p == at_address(at))
        return true;
    munmap(p, len); /* kernels before 4.17 take the address for a hint */
    return false;
}

uint8_t *host_view_room(uint64_t len)
{
    void *p = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

bool host_view_release(uintptr_t at, uint64_t len) { return munmap(at_address(at), len) == 0; }

bool host_view_take(unsigned mappings)
{
    if (atomic_fetch_sub_explicit(&mappings_left, (int)mappings, memory_order_relaxed) >= (int)mappings)
        return true;
    host_view_give(mappings);
    return false;
}

void host_view_give(unsigned mappings)
{
    atomic_fetch_add_explicit(&mappings_left, (int)mappings, memory_order_relaxed);
}

bool host_view_show(uintptr_t at, int fd, uint64_t off, uint64_t len, bool write)
{
    return mmap(at_address(at), len, write ? PROT_READ | PROT_WRITE : PROT_READ,
                MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, (off_t)off) != MAP_FAILED;
}

bool host_view_clear(uintptr_t at, uint64_t len)
{
    return mmap(at_address(at), len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
                0) != MAP_FAILED;
}

bool host_view_readable(uintptr_t at, uint64_t len, bool yes)
{
    return mprotect(at_address(at), len, yes ? PROT_READ : PROT_NONE) == 0;
}
