/* SPDX-License-Identifier: Apache-2.0 */
/* One virtual processor at run time: its state, what is derived from it, its requests, and how it reaches
 * the machine. */
#ifndef SUNDOG_CPU_VCPU_H
#define SUNDOG_CPU_VCPU_H

#include <setjmp.h>
#include <stdatomic.h>

#include "base/log.h"
#include "base/tally.h"
#include "bus/bus.h"
#include "clock/clock.h"
#include "cpu/mode.h"
#include "cpu/state.h"
#include "mmu/mmu.h"

/* Vectors (SDM 3A 6.15). */
/* clang-format off */
enum vector { VEC_DE, VEC_DB, VEC_NMI, VEC_BP, VEC_OF, VEC_BR, VEC_UD, VEC_NM, VEC_DF, VEC_TS = 10,
              VEC_NP, VEC_SS, VEC_GP, VEC_PF, VEC_MF = 16, VEC_AC, VEC_MC, VEC_XM };
/* clang-format on */

/* Why engine.run came back, one vocabulary for all engines. */
/* clang-format off */
#define EXIT_CAUSES(X) \
    X(COUNT, "count")       /* until_count reached */ \
    X(REQUEST, "request")   /* vcpu->requests wants the VM's attention: a stop, inputs, revocation */ \
    X(HLT, "hlt")           /* halted, waiting for an event */ \
    X(WAIT_SIPI, "wait_sipi") \
    X(SHUTDOWN, "shutdown") /* triple fault */ \
    X(INTERNAL, "internal") /* our own bug: vcpu->internal_error says what */

enum exit_cause {
#define X(id, name) EXIT_##id,
    EXIT_CAUSES(X)
#undef X
    EXIT_CAUSE_COUNT
};
/* clang-format on */

/* Requests: set by anyone (atomic or), seen by the vcpu at its next block boundary. */
#define REQ_EVENT 1u  /* interrupt, NMI, INIT or SIPI may be deliverable: cpu_take_events() */
#define REQ_STOP 2u   /* leave engine.run with EXIT_REQUEST: stop the world, power-off, input queue */
#define REQ_REVOKE 4u /* rights are taken back: drop the translations, then acknowledge */

/* Counters with the same names on every engine. */
/* clang-format off */
#define VCPU_COUNTERS(X) \
    X(exits_io) X(exits_mmio) X(exits_hlt) X(exits_cpuid) X(exits_msr) X(exits_cr) X(exits_exception) \
    X(exits_interrupt_window) X(tracing_faults) X(translations) X(chained) X(invalidations) \
    X(interrupts_injected) X(exceptions_injected) X(task_switches) \
    X(blocks_executed) X(single_steps) X(code_write_aborts)
/* clang-format on */

struct vcpu_counters {
#define X(name) uint64_t name;
    VCPU_COUNTERS(X)
#undef X
};

/* A pending exception, as raised. */
struct exception {
    uint8_t vector;
    bool has_error;
    uint32_t error;
};

/* Derived from a segment register for the fast path: refreshed by vcpu_refresh_segments(). In 64-bit mode
 * ES/CS/SS/DS have base 0 and everything is flat. `flat[ACCESS_READ/WRITE]`: any 32-bit (64-bit) offset
 * may be used without a limit or type check. Else [off, off + size) has to lie in [low, end[access]); an access of a kind
 * that the type forbids finds end 0. Both are only kept outside 64-bit mode. */
struct seg_fast {
    uint64_t base;
    int64_t low, end[2];
    bool flat[2];
};

/* What the processor asks of the machine around it; handed over at construction (lower rooms call up only
 * here). */
struct vcpu_callbacks {
    void *ctx;
    /* INTA cycle: vector from the 8259 pair, -1 if none. Takes the device lock itself. */
    int (*ack_pic)(void *ctx);
    void (*eoi)(void *ctx, uint8_t vector); /* LAPIC EOI of a level-triggered vector: to the I/O APIC */
    /* LAPIC ICR write: route to vcpus. */
    void (*ipi)(void *ctx, unsigned from, uint32_t icr_low, uint32_t icr_high);
    void (*kick)(void *ctx, unsigned vcpu);        /* wake a vcpu that may sleep in HLT */
    void (*stop_others)(void *ctx, unsigned vcpu); /* split lock: stop all other vcpus / let them go */
    void (*resume_others)(void *ctx, unsigned vcpu);
    /* About to wait for others: acknowledge own revocations meanwhile. */
    void (*revoke_wait)(void *ctx, unsigned vcpu);
};

struct vm_cpu_shared; /* CPUID and MSR model, TSC ratio: cpu/model.h */

/* Offset in a page of what generated code loads all the time. */
#define VCPU_HOT_AT 0x100u
struct vcpu {
    struct vcpu_state s;
    /* What generated code loads all the time follows, away from the offsets in a page at which it stores all the time: those of
     * s.gpr, and the upper ones, where stacks begin. A load waits for an earlier store that is equal in the low 12 bits. */
    uint8_t apart[PAGE_SIZE - sizeof(struct vcpu_state) % PAGE_SIZE + VCPU_HOT_AT];
    /* --- derived; never saved --- */
    uint32_t mode;     /* packed mode key, cpu/mode.h */
    uint64_t lin_mask; /* linear addresses wrap here: ~0 in 64-bit mode, 2^32-1 else */
    struct seg_fast sf[SEG_COUNT];
    _Atomic uint32_t requests; /* REQ_* */
    bool
        interrupt_held; /* an interrupt or NMI waits for IF, a shadow or IRET: kept by cpu_event_deliverable() */
    uint64_t reserve; /* VCPU_RESERVE or 0 */
    struct mmu mmu;
    /* --- unwinding --- */
    jmp_buf *unwind;            /* where cpu_raise() goes; set by engine.run and by cpu_deliver */
    struct exception exception; /* what was raised */
    bool in_delivery;           /* nested faults become #DF, then shutdown */
    bool store_code; /* this one instruction may write code of its own block (engine's step mode) */
    bool x87_live;   /* x87/MMX registers of the guest are in the host's: the engine's affair */
    bool sse_live;   /* guest MXCSR (masked) is in the host's MXCSR */
    /* --- links --- */
    unsigned index;
    struct bus *bus;
    struct clock *clock;
    struct pmap *pmap;
    struct tally *tally;
    struct log *log;
    const struct vm_cpu_shared *model;
    struct vcpu_callbacks cb;
    void *engine_data; /* the engine's own per-vcpu part */
    /* What the engine is executing right now, its own decoded form; NULL between instructions. */
    const void *engine_op;
    struct deadline lapic_timer;
    _Atomic bool lapic_timer_due; /* the deadline passed: the vcpu looks at its timer */
    /* Deterministic mode: what the other vcpus have retired when this one's turn begins. */
    uint64_t count_base;
    _Atomic bool pic_line; /* level of the 8259 INTR wire (BSP's LINT0 / ExtINT) */
    /* Interrupts posted by other threads, merged into s.lapic.irr by the vcpu. */
    _Atomic uint32_t irr_posted[8];
    _Atomic uint32_t tmr_posted[8]; /* trigger mode of those */
    _Atomic uint32_t signals;       /* SIGNAL_* posted by other threads */
    _Atomic uint32_t sipi_posted;   /* vector | 0x100 */
    struct vcpu_counters counters;
    const char *internal_error;
};

#define SIGNAL_NMI 1u
#define SIGNAL_INIT 2u
#define SIGNAL_PIC_EDGE 4u /* the 8259 INTR wire went up: an edge for a LINT0 that is not ExtINT */

static inline unsigned vcpu_cpl(const struct vcpu *v) { return mode_cpl(v->mode); }
static inline bool vcpu_long64(const struct vcpu *v) { return (v->mode & MODE_CODE_MASK) == MODE_CODE64; }
static inline bool vcpu_protected(const struct vcpu *v)
{
    return (v->mode & (MODE_PE | MODE_VM86)) == MODE_PE;
}

/* Room below struct vcpu: a small stack for an engine whose code has its stack pointer at the vcpu. */
#define VCPU_STACK 65536u
/* Address space without memory that an engine with a room gets directly behind the room's last page, if the host has it:
 * v->reserve says how much. */
#define VCPU_RESERVE ((128ull << 30) + (16ull << 20))
/* A zeroed vcpu, page-aligned, with VCPU_STACK bytes below it and `room` zeroed bytes at vcpu_room() for the
 * engine; NULL without memory. vcpu_free() with the same room. */
struct vcpu *vcpu_alloc(size_t room);
void vcpu_free(struct vcpu *v, size_t room);
/* Where the engine's room begins, from the vcpu's address: at a low offset in its page, for the same reason as VCPU_HOT_AT. */
#define VCPU_ROOM_AT (((sizeof(struct vcpu) + PAGE_SIZE - 1) & ~(size_t)PAGE_OFFSET_MASK) + 2 * VCPU_HOT_AT)
/* Where the reserve begins. */
#define VCPU_RESERVE_AT(room) ((VCPU_ROOM_AT + (room) + PAGE_SIZE - 1) & ~(size_t)PAGE_OFFSET_MASK)

/* Sets up the power-on state. `v` is zeroed by the caller (it is large: allocate it), who has then set
 * bus, clock, pmap, tally, log, model, cb and mmu.consumer. */
int vcpu_init(struct vcpu *v, unsigned index, struct error *e);
/* State of SDM 3A Table 9-1: power-on/RESET (init = false) or INIT. The BSP runs from f000:fff0, others
 * wait for SIPI. */
void vcpu_reset(struct vcpu *v, bool init);
/* Recomputes everything derived (mode, segments, mmu) after the state was changed from outside. */
void vcpu_refresh(struct vcpu *v);
/* Makes the MMU follow CR0, CR3, CR4 and EFER. `flush`: as mmu_set_paging(). */
void vcpu_refresh_paging(struct vcpu *v, bool flush);
/* After any change of CS, SS, CPL, CR0, EFER, RFLAGS.VM/TF/AC/RF, DR7: the mode key, lin_mask, segments
 * and MMU index. */
void vcpu_refresh_mode(struct vcpu *v);
/* The same after a change of segments and RFLAGS: cheap from 64-bit code to 64-bit code. */
void vcpu_refresh_privilege(struct vcpu *v);
/* The one function that builds the mode key from the state. CPL is SS.DPL, kept in an unusable SS too (SDM
 * 3C 24.4.1). */
uint32_t vcpu_mode_key(const struct vcpu_state *s);

/* Adds requests and wakes the vcpu. Any thread. */
void vcpu_request(struct vcpu *v, uint32_t req);

/* --- raising -------------------------------------------------------------------------------------------- */
/* Raise an exception at the current instruction: unwinds to the engine, which delivers it. Nothing may
 * have been committed. */
noreturn_fn void cpu_raise(struct vcpu *v, enum vector vec); /* no error code */
noreturn_fn void cpu_raise_error(struct vcpu *v, enum vector vec, uint32_t error);
noreturn_fn void cpu_raise_page_fault(struct vcpu *v, uint64_t addr, uint32_t error); /* sets CR2 */
/* The same without unwinding: v->exception is to be delivered. */
void cpu_note_page_fault(struct vcpu *v, uint64_t addr, uint32_t error);
static inline noreturn_fn void cpu_raise_gp0(struct vcpu *v) { cpu_raise_error(v, VEC_GP, 0); }
/* #UD for something not implemented: counted by `what` bytes. */
noreturn_fn void cpu_raise_unimplemented(struct vcpu *v, uint64_t opcode_bytes);

/* Leaves the current instruction without an exception, to be executed again alone with v->store_code set: a store is about
 * to change code that the running block may contain, or to do what shows before the next instruction. */
noreturn_fn void cpu_restart_alone(struct vcpu *v);

/* setjmp values seen at v->unwind. */
enum { UNWIND_EXCEPTION = 1, UNWIND_ALONE = 2, UNWIND_SHUTDOWN = 3 };

#endif
