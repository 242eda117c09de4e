/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's time stamp counter: the virtual clock through a fixed-point ratio, and back. */
#include "base/bits.h"
#include "cpu/model.h"
#include "cpu/ops.h"

__extension__ typedef unsigned __int128 u128;

uint64_t vcpu_now(struct vcpu *v)
{
    if (clock_get_mode(v->clock) == CLOCK_DETERMINISTIC)
        clock_set_count(v->clock, v->count_base + v->s.retired);
    return clock_now(v->clock);
}

/* The VM's TSC, before this processor's offset. */
static uint64_t vm_tsc(const struct vm_cpu_shared *m, uint64_t ns)
{
    return (uint64_t)((u128)ns * m->tsc_mul >> m->tsc_shift);
}

uint64_t vcpu_tsc(struct vcpu *v) { return vm_tsc(v->model, vcpu_now(v)) + v->s.tsc_offset; }

uint64_t vcpu_tsc_to_ns(struct vcpu *v, uint64_t tsc)
{
    uint64_t now = vcpu_now(v), vm_now = vm_tsc(v->model, now);
    uint64_t ahead = tsc - (vm_now + v->s.tsc_offset), target;
    if ((int64_t)ahead <= 0)
        return now;
    if (__builtin_add_overflow(vm_now, ahead, &target))
        return UINT64_MAX;
    u128 ns = (((u128)target << v->model->tsc_shift) + v->model->tsc_mul - 1) / v->model->tsc_mul;
    return ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns;
}

static void check_tsd(struct vcpu *v)
{
    if ((v->s.cr4 & CR4_TSD) && vcpu_cpl(v) > 0)
        cpu_raise_gp0(v);
}

void cpu_rdtsc(struct vcpu *v)
{
    check_tsd(v);
    uint64_t tsc = vcpu_tsc(v);
    v->s.gpr[RAX] = (uint32_t)tsc;
    v->s.gpr[RDX] = tsc >> 32;
}

/* Waits for what was before it. */
void cpu_rdtscp(struct vcpu *v)
{
    __builtin_ia32_lfence();
    cpu_rdtsc(v);
    v->s.gpr[RCX] = (uint32_t)v->s.msr.tsc_aux;
}
