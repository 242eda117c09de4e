/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM's paravirtual clock, version 2 (Linux Documentation/virt/kvm/x86/msr.rst).
 *
 * All vcpus publish the same line: virtual time 0 at TSC = offset, and the TSC's rate. It never has to be
 * rewritten while the rate stands, and two vcpus can never disagree, which is what the stable bit promises.
 */
#include "cpu/pvclock.h"

#include "cpu/model.h"

#define MSR_WALL_CLOCK_NEW 0x4b564d00u
#define MSR_SYSTEM_TIME_NEW 0x4b564d01u
#define SYSTEM_TIME_ENABLED 1u
#define FLAG_TSC_STABLE 1u

struct pvclock_time {
    uint32_t version;
    uint32_t pad0;
    uint64_t tsc_timestamp;
    uint64_t system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags;
    uint8_t pad[2];
};

struct pvclock_wall {
    uint32_t version;
    uint32_t sec;
    uint32_t nsec;
};

_Static_assert(sizeof(struct pvclock_time) == 32 && sizeof(struct pvclock_wall) == 12, "the guest's layout");

/* ns = (tsc << shift) * mul >> 32, with mul as large as fits (SDM has no say here: KVM's ABI). */
static void rate(uint64_t tsc_khz, uint32_t *mul, int8_t *shift)
{
    uint64_t hz = tsc_khz * 1000, ns = 1000000000;
    int8_t s = 0;
    while (hz && ns >= hz && s < 31) { /* slower than 1 GHz: the TSC is shifted left */
        hz <<= 1;
        s++;
    }
    while (hz > ns * 2) {
        hz >>= 1;
        s--;
    }
    *shift = s;
    *mul = hz ? (uint32_t)((ns << 32) / hz) : 0;
}

/* Readers retry while the version is odd or has moved. Addresses that are not RAM are the guest's loss. */
static void publish(struct vcpu *v, gpa addr, const void *data, uint32_t size)
{
    uint32_t version = 0;
    if (ram_read(v->pmap, addr, &version, sizeof(version)))
        return;
    version = (version | 1) + 2; /* odd and new */
    if (ram_write(v->pmap, addr, &version, sizeof(version)))
        return;
    atomic_thread_fence(memory_order_seq_cst);
    int err = ram_write(v->pmap, GPA(addr.v + sizeof(version)), (const char *)data + sizeof(version),
                        size - sizeof(version));
    atomic_thread_fence(memory_order_seq_cst);
    version++;
    if (err || ram_write(v->pmap, addr, &version, sizeof(version)))
        return;
}

void pvclock_update(struct vcpu *v)
{
    uint64_t msr = v->s.msr.kvm_system_time;
    if (!(msr & SYSTEM_TIME_ENABLED))
        return;
    struct pvclock_time t = { .tsc_timestamp = v->s.tsc_offset, .flags = FLAG_TSC_STABLE };
    rate(v->model->tsc_khz, &t.tsc_to_system_mul, &t.tsc_shift);
    publish(v, GPA(msr & ~(uint64_t)SYSTEM_TIME_ENABLED), &t, sizeof(t));
}

static void write_wall_clock(struct vcpu *v, uint64_t addr)
{
    uint64_t base = clock_wall_base_ns(v->clock);
    struct pvclock_wall w = { .sec = (uint32_t)(base / 1000000000), .nsec = (uint32_t)(base % 1000000000) };
    publish(v, GPA(addr), &w, sizeof(w));
}

bool pvclock_write_msr(struct vcpu *v, uint32_t msr, uint64_t val)
{
    switch (msr) {
    case MSR_SYSTEM_TIME_NEW:
        if (val & 2) /* the address is 4-byte aligned */
            return false;
        v->s.msr.kvm_system_time = val;
        pvclock_update(v);
        return true;
    case MSR_WALL_CLOCK_NEW:
        if (val & 3)
            return false;
        v->s.msr.kvm_wall_clock = val;
        write_wall_clock(v, val);
        return true;
    default: return false;
    }
}

bool pvclock_read_msr(struct vcpu *v, uint32_t msr, uint64_t *val)
{
    switch (msr) {
    case MSR_SYSTEM_TIME_NEW: *val = v->s.msr.kvm_system_time; return true;
    case MSR_WALL_CLOCK_NEW: *val = v->s.msr.kvm_wall_clock; return true;
    default: return false;
    }
}
