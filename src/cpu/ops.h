/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Privileged, sensitive and control-transfer operations, written once and called by every engine.
 *
 * Contract: on entry v->s.rip is the address of the NEXT instruction and `v->insn_rip`-style bookkeeping is
 * the engine's; on a fault the function raises (cpu_raise*) with nothing committed, and the engine restores
 * rip to the faulting instruction before delivery. A function that transfers control sets v->s.rip itself and
 * refreshes the mode; the engine looks at v->s.rip and v->mode afterwards. `size` is the operand size in
 * bytes (2, 4, 8).
 */
#ifndef SUNDOG_CPU_OPS_H
#define SUNDOG_CPU_OPS_H

#include "cpu/vcpu.h"

/* --- segments (segment.c) --- */
/* MOV/POP Sreg, LDS and its kin; not CS. MOV SS and POP SS set the shadow. */
void cpu_load_seg(struct vcpu *v, enum seg seg, uint16_t sel);
void cpu_lldt(struct vcpu *v, uint16_t sel);
void cpu_ltr(struct vcpu *v, uint16_t sel);
uint16_t cpu_sldt(struct vcpu *v); /* UMIP-checked */
uint16_t cpu_str(struct vcpu *v);
void cpu_lgdt(struct vcpu *v, uint16_t limit, uint64_t base);
void cpu_lidt(struct vcpu *v, uint16_t limit, uint64_t base);
void cpu_sgdt(struct vcpu *v, uint16_t *limit, uint64_t *base);
void cpu_sidt(struct vcpu *v, uint16_t *limit, uint64_t *base);
bool cpu_lar(struct vcpu *v, uint16_t sel, uint32_t *rights); /* result: ZF; #UD in real/vm86 mode */
bool cpu_lsl(struct vcpu *v, uint16_t sel, uint32_t *limit);
bool cpu_verr(struct vcpu *v, uint16_t sel);
bool cpu_verw(struct vcpu *v, uint16_t sel);
void cpu_check_arpl(struct vcpu *v); /* #UD outside 16/32-bit protected mode */

/* --- far control transfers (transfer.c, interrupt.c, task.c) --- */
void cpu_jmp_far(struct vcpu *v, uint16_t sel, uint64_t off, unsigned size);
void cpu_call_far(struct vcpu *v, uint16_t sel, uint64_t off, unsigned size);
void cpu_ret_far(struct vcpu *v, unsigned size, uint16_t pop_bytes);
void cpu_iret(struct vcpu *v, unsigned size);
void cpu_int(struct vcpu *v, uint8_t vector); /* INT n (vm86 and VME rules) */
void cpu_int3(struct vcpu *v);
void cpu_into(struct vcpu *v); /* caller has checked OF */
void cpu_int1(struct vcpu *v); /* ICEBP */
void cpu_syscall(struct vcpu *v);
void cpu_sysret(struct vcpu *v, unsigned size); /* 4 or 8 */
/* CS and SS behind SYSCALL in 64-bit code or outside long mode, and behind SYSRET of an operand size. */
struct code_and_stack {
    struct segment cs, ss;
};
struct code_and_stack cpu_syscall_segments(uint64_t star, bool long_mode);
struct code_and_stack cpu_sysret_segments(uint64_t star, unsigned size);
/* Flags that SYSRET takes from R11 in long mode (SDM 2B, SYSRET: 3C7FD7H). */
#define SYSRET_FLAGS 0x3c7fd7ull
void cpu_sysenter(struct vcpu *v);
void cpu_sysexit(struct vcpu *v, unsigned size);

/* --- flags --- */
uint64_t cpu_pushf_value(struct vcpu *v, unsigned size); /* vm86/IOPL checks (#GP), VM and RF cleared */
void cpu_popf(struct vcpu *v, uint64_t value, unsigned size);
void cpu_cli(struct vcpu *v);
void cpu_sti(struct vcpu *v); /* sets the STI shadow when IF was clear */
void cpu_clac(struct vcpu *v);
void cpu_stac(struct vcpu *v);

/* --- control, debug and system registers (control.c, debug.c, msr.c, cpuid.c) --- */
uint64_t cpu_read_cr(struct vcpu *v, unsigned n); /* n = 0, 2, 3, 4, 8; other #UD; CPL > 0 #GP */
void cpu_write_cr(struct vcpu *v, unsigned n, uint64_t val);
uint64_t cpu_read_dr(struct vcpu *v, unsigned n);
void cpu_write_dr(struct vcpu *v, unsigned n, uint64_t val);
void cpu_clts(struct vcpu *v);
void cpu_lmsw(struct vcpu *v, uint16_t val);
uint64_t cpu_smsw(struct vcpu *v);
void cpu_cpuid(struct vcpu *v); /* EAX, ECX in; EAX..EDX out */
void cpu_rdmsr(struct vcpu *v); /* ECX -> EDX:EAX */
void cpu_wrmsr(struct vcpu *v);
void cpu_rdtsc(struct vcpu *v);
void cpu_rdtscp(struct vcpu *v);
void cpu_rdpmc(struct vcpu *v);
void cpu_xgetbv(struct vcpu *v);
void cpu_xsetbv(struct vcpu *v);
void cpu_swapgs(struct vcpu *v);
uint64_t cpu_rdfsgsbase(struct vcpu *v, enum seg seg);
void cpu_wrfsgsbase(struct vcpu *v, enum seg seg, uint64_t val);
void cpu_invlpg(struct vcpu *v, uint64_t lin);
void cpu_invpcid(struct vcpu *v, uint64_t type, enum seg seg, uint64_t off);
void cpu_hlt(struct vcpu *v);    /* sets ACTIVITY_HLT */
void cpu_wbinvd(struct vcpu *v); /* INVD too: privilege check */
void cpu_vmcall(struct vcpu *v); /* VMCALL, VMMCALL: RAX = -1000 (KVM_ENOSYS) */

/* --- port I/O (io.c): permission check (IOPL, I/O bitmap; SDM 1 19.5), then the bus --- */
uint32_t cpu_in(struct vcpu *v, uint16_t port, unsigned size);
void cpu_out(struct vcpu *v, uint16_t port, uint32_t val, unsigned size);
void cpu_check_io(struct vcpu *v, uint16_t port, unsigned size); /* for INS/OUTS before the memory access */

/* --- FPU control (fpu.c): checks that precede an instruction --- */
void cpu_check_fpu(struct vcpu *v); /* x87: #NM by CR0.EM/TS; pending #MF for waiting ones: cpu_check_mf */
void cpu_check_mf(struct vcpu *v);
void cpu_check_wait(struct vcpu *v);   /* FWAIT: CR0.MP && TS, then pending #MF */
void cpu_check_mmx(struct vcpu *v);    /* #UD by EM, #NM by TS, pending #MF */
void cpu_check_sse(struct vcpu *v);    /* #UD by CR4.OSFXSR / CR0.EM, #NM by TS */
void cpu_check_avx(struct vcpu *v);    /* VEX: #UD by CR4.OSXSAVE / XCR0, #NM by TS */
void cpu_check_avx512(struct vcpu *v); /* EVEX and opmasks: the same */
/* State components that are not in their initial state (SDM 1 13.6); x87 and SSE always count as such. */
uint64_t cpu_xinuse(const struct vcpu *v);

/* --- time --- */
/* Virtual now in ns for this vcpu (deterministic mode: at exactly this instruction, from the retired
 * count). */
uint64_t vcpu_now(struct vcpu *v);
/* The guest's TSC now, with offset (deterministic mode: from the retired count). */
uint64_t vcpu_tsc(struct vcpu *v);
/* Virtual ns at which vcpu_tsc() reaches `tsc`. */
uint64_t vcpu_tsc_to_ns(struct vcpu *v, uint64_t tsc);

#endif
