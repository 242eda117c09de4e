/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupt messages between processors and from the I/O APIC: who receives them (SDM 3A 10.6, 10.11). */
#include "base/bits.h"
#include "cpu/event.h"
#include "cpu/lapic.h"
#include "vm/vm_internal.h"

/* Delivery modes (SDM 3A figure 10-12). */
enum delivery {
    DELIVER_FIXED,
    DELIVER_LOWEST,
    DELIVER_SMI,
    DELIVER_NMI = 4,
    DELIVER_INIT,
    DELIVER_SIPI,
    DELIVER_EXTINT
};
enum shorthand { SHORT_NONE, SHORT_SELF, SHORT_ALL, SHORT_OTHERS };

#define ICR_LOGICAL BIT(11)
#define ICR_ASSERT BIT(14)
#define ICR_LEVEL BIT(15)
#define SVR_ENABLED BIT(8)
#define APIC_BASE_X2 BIT(10)

struct message {
    enum delivery mode;
    uint8_t vector;
    bool level;
};

/* The receiver may change its registers at this very moment; either value is right. */
static uint32_t peek(const uint32_t *reg) { return __atomic_load_n(reg, __ATOMIC_RELAXED); }

static bool takes_interrupts(const struct vcpu *v) { return peek(&v->s.lapic.svr) & SVR_ENABLED; }

static void deliver_to(struct vcpu *v, const struct message *m)
{
    switch (m->mode) {
    case DELIVER_FIXED:
    case DELIVER_LOWEST:
        /* A software-disabled APIC takes INIT, NMI and SIPI only (SDM 3A 10.4.7.2). */
        if (takes_interrupts(v))
            vcpu_post_interrupt(v, m->vector, m->level);
        break;
    case DELIVER_NMI: vcpu_post_nmi(v); break;
    case DELIVER_INIT: vcpu_post_init(v); break;
    case DELIVER_SIPI: vcpu_post_sipi(v, m->vector); break;
    case DELIVER_SMI:
    case DELIVER_EXTINT:
    default: tally_add(v->tally, TALLY_DEVICE, (uint64_t)0xa91c0000 | (unsigned)m->mode); break;
    }
}

/* The set of vcpus as a bit mask; lowest priority then keeps the one whose task priority is lowest, the
 * first of equals. */
static void deliver_to_set(struct vm *vm, uint32_t set, const struct message *m)
{
    if (m->mode == DELIVER_LOWEST && set) {
        unsigned best = MAX_VCPUS;
        uint32_t lowest = UINT32_MAX;
        for (unsigned i = 0; i < vm->ncpus; i++) {
            const struct vcpu *v = vm->cpus[i].v;
            uint32_t priority = peek(&v->s.lapic.tpr);
            if ((set & BIT(i)) && takes_interrupts(v) && priority < lowest) {
                lowest = priority;
                best = i;
            }
        }
        set = best < MAX_VCPUS ? (uint32_t)BIT(best) : 0;
    }
    for (unsigned i = 0; i < vm->ncpus; i++)
        if (set & BIT(i))
            deliver_to(vm->cpus[i].v, m);
}

static uint32_t matching(struct vm *vm, uint8_t dest, bool logical)
{
    uint32_t set = 0;
    for (unsigned i = 0; i < vm->ncpus; i++)
        if (lapic_matches(vm->cpus[i].v, dest, logical))
            set |= (uint32_t)BIT(i);
    return set;
}

void deliver_ipi(void *ctx, unsigned from, uint32_t icr_low, uint32_t icr_high)
{
    struct vm *vm = ctx;
    struct message m = { .mode = (enum delivery)bits(icr_low, 8, 3),
                         .vector = (uint8_t)icr_low,
                         .level = false };
    if (m.mode == DELIVER_INIT && (icr_low & ICR_LEVEL) && !(icr_low & ICR_ASSERT))
        return; /* INIT level de-assert only set arbitration IDs, on processors long gone (SDM 3A 10.6.1) */
    uint32_t all = (uint32_t)(BIT(vm->ncpus) - 1), set;
    switch ((enum shorthand)bits(icr_low, 18, 2)) {
    case SHORT_SELF: set = (uint32_t)BIT(from); break;
    case SHORT_ALL: set = all; break;
    case SHORT_OTHERS: set = all & ~(uint32_t)BIT(from); break;
    case SHORT_NONE:
    default:
        if (vm->cpus[from].v->s.msr.apic_base & APIC_BASE_X2)
            set = matching(vm, icr_high > 0xff ? 0xff : (uint8_t)icr_high, icr_low & ICR_LOGICAL);
        else
            set = matching(vm, (uint8_t)(icr_high >> 24), icr_low & ICR_LOGICAL);
        break;
    }
    deliver_to_set(vm, set, &m);
}

void deliver_msi(void *ctx, uint64_t addr, uint32_t data)
{
    struct vm *vm = ctx;
    struct message m = { .mode = (enum delivery)bits(data, 8, 3),
                         .vector = (uint8_t)data,
                         .level = data & BIT(15) };
    bool logical = addr & BIT(2), hint = addr & BIT(3);
    if (m.mode == DELIVER_FIXED && hint && logical)
        m.mode = DELIVER_LOWEST; /* redirection hint: one of the set (SDM 3A 10.11.1) */
    deliver_to_set(vm, matching(vm, (uint8_t)bits(addr, 12, 8), logical), &m);
}
