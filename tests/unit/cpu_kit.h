/* SPDX-License-Identifier: Apache-2.0 */
/* One processor with memory, a bus and a deterministic clock, and nothing else: for tests of cpu/ and mmu/.
 */
#ifndef SUNDOG_TESTS_CPU_KIT_H
#define SUNDOG_TESTS_CPU_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bits.h"
#include "cpu/access.h"
#include "cpu/control.h"
#include "cpu/event.h"
#include "cpu/lapic.h"
#include "cpu/model.h"
#include "cpu/ops.h"
#include "cpu/vcpu.h"
#include "engine/engine.h"

#define KIT_RAM (64u << 20)      /* from 0, but for the ROM */
#define KIT_ROM 0xf0000u         /* 64 KiB */
#define KIT_HIGH 0x1200000000ull /* 4 MiB more, above 4 GiB: for PSE-36 */
#define KIT_MMIO 0xd0000000u     /* a register file of one page */
#define KIT_TSC_KHZ 2000000u

struct kit {
    struct vcpu *v;
    struct pmap *pmap;
    struct bus *bus;
    struct clock *clock;
    struct tally tally;
    struct log log;
    struct vm_cpu_shared model;
    uint8_t mmio[4096];
    unsigned mmio_reads, mmio_writes;
    uint32_t ipi_low, ipi_high, ipis;
    unsigned eois;
    uint8_t eoi_vector;
    jmp_buf unwind;
    const struct engine_ops *engine; /* that runs the processor: told what is taken back. NULL: none */
    size_t room;                     /* behind the vcpu: enough for any engine of the build */
};

int kit_setup(void **state);
int kit_setup_amd(void **state);
int kit_teardown(void **state);

void kit_put64(struct kit *k, uint64_t addr, uint64_t val);
void kit_put32(struct kit *k, uint64_t addr, uint32_t val);
uint64_t kit_get64(struct kit *k, uint64_t addr);
uint32_t kit_get32(struct kit *k, uint64_t addr);
/* Lets virtual time pass and fires what is due. */
void kit_pass_ns(struct kit *k, uint64_t ns);
/* 64-bit mode, CPL 0, with the tables at cr3. */
void kit_long_mode(struct kit *k, uint64_t cr3);
void kit_set_cpl(struct kit *k, unsigned cpl);

/* What `stmt` raises: its vector, KIT_RESTART for a store to code, or -1. */
#define KIT_RESTART 1000
#define RAISED(k, stmt) \
    ({ \
        volatile int raised_ = -1; \
        (k)->v->unwind = &(k)->unwind; \
        int why_ = setjmp((k)->unwind); \
        if (why_ == 0) { \
            stmt; \
        } else { \
            raised_ = why_ == UNWIND_EXCEPTION ? (k)->v->exception.vector : KIT_RESTART; \
        } \
        raised_; \
    })

#define assert_raises(k, vec, err, stmt) \
    do { \
        assert_int_equal(RAISED(k, stmt), vec); \
        assert_int_equal((k)->v->exception.error, err); \
    } while (0)
#define assert_fine(k, stmt) assert_int_equal(RAISED(k, stmt), -1)

#endif
