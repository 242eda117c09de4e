/* SPDX-License-Identifier: Apache-2.0 */
/* Counting by name what is not implemented (MSRs, ports, registers, instructions): bounded, lock-free, one
 * per VM. */
#ifndef SUNDOG_BASE_TALLY_H
#define SUNDOG_BASE_TALLY_H

#include "base/log.h"
#include "base/types.h"

/* clang-format off */
#define TALLY_KINDS(X) \
    X(INSN, "instruction") X(MSR_READ, "msr_read") X(MSR_WRITE, "msr_write") X(PORT_READ, "port_read") \
    X(PORT_WRITE, "port_write") X(MMIO_READ, "mmio_read") X(MMIO_WRITE, "mmio_write") X(DEVICE, "device")

enum tally_kind {
#define X(id, name) TALLY_##id,
    TALLY_KINDS(X)
#undef X
    TALLY_KIND_COUNT
};
/* clang-format on */

#define TALLY_SLOTS 256

struct tally_slot {
    _Atomic uint64_t key; /* kind + 1 in the top byte, number below; 0 = free */
    _Atomic uint64_t count;
};

struct tally {
    struct log *log;
    struct tally_slot slots[TALLY_SLOTS];
    _Atomic uint64_t other; /* accesses that found no free slot */
};

/* Counts one access to `number` (MSR index, port, opcode bytes, gpa); the first of each is logged. Any
 * thread. */
void tally_add(struct tally *t, enum tally_kind kind, uint64_t number);
/* Visits each counted thing. */
void tally_each(struct tally *t, void (*visit)(void *ctx, const char *kind, uint64_t number, uint64_t count),
                void *ctx);

#endif
