/* SPDX-License-Identifier: Apache-2.0 */
/* The paravirtual clock (KVM's MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01, MSR_KVM_WALL_CLOCK_NEW 0x4b564d00 ABI;
 * stable bit set). */
#ifndef SUNDOG_CPU_PVCLOCK_H
#define SUNDOG_CPU_PVCLOCK_H

#include "cpu/vcpu.h"

bool pvclock_write_msr(struct vcpu *v, uint32_t msr, uint64_t val); /* false: not ours or invalid (#GP) */
bool pvclock_read_msr(struct vcpu *v, uint32_t msr, uint64_t *val);
/* Rewrites the vcpu's time page (after resume or restore). */
void pvclock_update(struct vcpu *v);

#endif
