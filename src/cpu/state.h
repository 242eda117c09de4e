/* SPDX-License-Identifier: Apache-2.0 */
/* One virtual x86 processor's architectural state as plain data: no pointers, no host times. Described in
 * state.c's field table. */
#ifndef SUNDOG_CPU_STATE_H
#define SUNDOG_CPU_STATE_H

#include "base/state.h"
#include "base/types.h"

enum reg { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

/* EFLAGS bits (SDM 1 3.4.3). */
#define FL_CF 0x1u
#define FL_PF 0x4u
#define FL_AF 0x10u
#define FL_ZF 0x40u
#define FL_SF 0x80u
#define FL_TF 0x100u
#define FL_IF 0x200u
#define FL_DF 0x400u
#define FL_OF 0x800u
#define FL_IOPL 0x3000u
#define FL_NT 0x4000u
#define FL_RF 0x10000u
#define FL_VM 0x20000u
#define FL_AC 0x40000u
#define FL_VIF 0x80000u
#define FL_VIP 0x100000u
#define FL_ID 0x200000u
#define FL_STATUS (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

/* Descriptor attributes, as in a VMCS access-rights field (SDM 3C 24.4.1): bytes 5 and 6 of the
 * descriptor. */
#define SA_TYPE 0xfu
#define SA_S 0x10u
#define SA_DPL_SHIFT 5
#define SA_DPL 0x60u
#define SA_P 0x80u
#define SA_AVL 0x1000u
#define SA_L 0x2000u
#define SA_DB 0x4000u
#define SA_G 0x8000u
#define SA_UNUSABLE 0x10000u /* null selector loaded */

struct segment {
    uint16_t sel;
    uint32_t attr;
    uint32_t limit; /* in bytes, granularity applied */
    uint64_t base;
};

struct table_reg {
    uint64_t base;
    uint16_t limit;
};

#define CR0_PE 0x1ull
#define CR0_MP 0x2ull
#define CR0_EM 0x4ull
#define CR0_TS 0x8ull
#define CR0_ET 0x10ull
#define CR0_NE 0x20ull
#define CR0_WP 0x10000ull
#define CR0_AM 0x40000ull
#define CR0_NW 0x20000000ull
#define CR0_CD 0x40000000ull
#define CR0_PG 0x80000000ull

#define CR4_VME 0x1ull
#define CR4_PVI 0x2ull
#define CR4_TSD 0x4ull
#define CR4_DE 0x8ull
#define CR4_PSE 0x10ull
#define CR4_PAE 0x20ull
#define CR4_MCE 0x40ull
#define CR4_PGE 0x80ull
#define CR4_PCE 0x100ull
#define CR4_OSFXSR 0x200ull
#define CR4_OSXMMEXCPT 0x400ull
#define CR4_UMIP 0x800ull
#define CR4_FSGSBASE 0x10000ull
#define CR4_PCIDE 0x20000ull
#define CR4_OSXSAVE 0x40000ull
#define CR4_SMEP 0x100000ull
#define CR4_SMAP 0x200000ull

#define EFER_SCE 0x1ull
#define EFER_LME 0x100ull
#define EFER_LMA 0x400ull
#define EFER_NXE 0x800ull

/* What the processor is doing (SDM 3A 9, "activity state"). */
enum activity { ACTIVITY_RUN, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_SIPI };

/* Interrupt shadow after STI / MOV SS (SDM 3A 6.8.3). */
#define SHADOW_STI 1u
#define SHADOW_MOV_SS 2u

/* x87, MMX and SSE state: the FXSAVE64 image (SDM 1 10.5.1) with the header of XSAVE kept apart. Longer vector registers
 * are in pieces, as XSAVE has them: bytes 16-31 and 32-63 of registers 0 to 15, all of 16 to 31. */
struct fpu_state {
    uint16_t fcw, fsw;
    uint8_t ftw; /* abridged: bit n = physical register n not empty */
    uint8_t pad0;
    uint16_t fop;
    uint64_t fip, fdp;
    uint16_t fcs, fds;
    uint32_t mxcsr;
    uint8_t st[8][16]; /* ST(i) in FXSAVE order, 10 bytes used */
    uint8_t xmm[16][16];
    uint64_t xcr0;
    uint8_t ymmh[16][16];
    uint8_t zmmh[16][32];
    uint8_t zmm16[16][64];
    uint64_t k[8]; /* opmasks */
};

#define MTRR_VARIABLE 8

struct msr_state {
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, apic_base, tsc_aux, misc_enable, tsc_deadline;
    uint64_t mtrr_def_type, mtrr_phys_base[MTRR_VARIABLE], mtrr_phys_mask[MTRR_VARIABLE], mtrr_fixed[11];
    uint64_t mcg_status, kvm_system_time, kvm_wall_clock;
    uint64_t tsc_adjust;
    uint64_t debugctl, spec_ctrl, bios_sign_id;
};

/* Local APIC registers (SDM 3A 10.4). The timer's deadline is virtual ns, 0 when idle. */
struct lapic_state {
    uint32_t id, tpr, ldr, dfr, svr, esr, esr_pending, icr_low, icr_high;
    uint32_t lvt_timer, lvt_thermal, lvt_perf, lvt_lint0, lvt_lint1, lvt_error;
    uint32_t timer_initial, timer_divide;
    uint64_t timer_start; /* virtual ns at which the current count began */
    uint64_t timer_at;    /* virtual ns of the next expiry, 0 = none */
    uint32_t isr[8], tmr[8], irr[8];
};

struct vcpu_state {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags; /* without the six status flags: they are in `cc` */
    uint16_t cc;     /* status flags as LAHF and SETO AL give them: AH = SF ZF 0 AF 0 PF 1 CF, AL = OF */
    struct segment seg[SEG_COUNT], ldtr, tr;
    struct table_reg gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, efer;
    uint64_t dr[8]; /* 4 and 5 unused */
    struct fpu_state fpu;
    struct msr_state msr;
    struct lapic_state lapic;
    uint64_t pdpte[4];
    uint64_t tsc_offset; /* added to the VM's TSC */
    uint8_t activity;    /* enum activity */
    uint8_t shadow;      /* SHADOW_* in force for the next instruction */
    uint8_t nmi_pending, nmi_blocked, init_pending, sipi_pending, sipi_vector, smi_blocked;
    uint16_t debug_pending; /* DR6 bits of traps to be delivered before the next instruction */
    /* Instructions retired since reset; each REP iteration is one, a faulting instruction none, but for a long row of them
     * (fault_row: so many, the last at the count fault_at). */
    uint64_t retired, fault_at;
    uint8_t fault_row;
};

/* After so many faults without an instruction between them each further one counts as an instruction: a handler that faults
 * for ever must not stop a clock that follows the count. */
#define FAULT_ROW_MAX 32u

extern const struct state_class vcpu_state_class;

/* Status flags between the two encodings. */
static inline uint32_t cc_to_flags(uint16_t cc)
{
    return ((cc >> 8) & (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF)) | ((uint32_t)(cc & 1) << 11);
}

static inline uint16_t flags_to_cc(uint64_t flags)
{
    return (uint16_t)((flags & (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF)) << 8 | 0x200 | ((flags >> 11) & 1));
}

static inline uint64_t state_rflags(const struct vcpu_state *s) { return s->rflags | 2 | cc_to_flags(s->cc); }

#endif
