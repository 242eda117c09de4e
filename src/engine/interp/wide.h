/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of extensions that work on vectors and opmasks: the host's own instruction, re-encoded onto fixed registers.
 *
 *   guest's operands ──► struct wide_frame ──► host registers ──► stub ──► host registers ──► frame ──► guest's
 *
 *   operand         in the stub          operand                    in the stub
 *   vector in reg   zmm0 (old: xmm1)     opmask in reg, vvvv, r/m    k2, k3, k4
 *   vector in vvvv  zmm1                 the instruction's opmask    k1
 *   vector in r/m   zmm2                 general register in reg     rax
 *   upper immediate zmm3                 general register in r/m     rcx
 *   memory          [rdi]: the frame's `mem`
 *
 * A stub is made when its encoding is met first, in code memory of the vcpu's own; the same instruction with other
 * registers shares it. So a row needs no handler of its own unless it is not "read operands, compute, write one".
 */
#ifndef SUNDOG_ENGINE_INTERP_WIDE_H
#define SUNDOG_ENGINE_INTERP_WIDE_H

#include "engine/interp/fpu.h"

struct wide_frame {
    uint8_t v[4][64]; /* zmm0..3 */
    uint8_t mem[64];
    uint64_t k[4]; /* k1..4 */
    uint64_t rax, rcx, rdx;
    uint16_t cc;      /* as in struct vcpu_state */
    uint32_t trapped; /* out: MXCSR at an unmasked exception, 0 if there was none */
} __attribute__((aligned(64)));

/* What a wide op reads and writes, and the fields of its encoding: op->imm. Its registers are op->r1 (reg), op->r2 (r/m). */
struct wide_fields {
    uint64_t row : 11; /* in insn_ext_rows[] */
    uint64_t imm8 : 8;
    uint64_t vvvv : 5;
    uint64_t is4 : 4;
    uint64_t mask : 3;
    uint64_t w : 1, ll : 2, vl : 2, b : 1, z : 1; /* vl: 16 << vl bytes */
    uint64_t memory : 1;                          /* r/m is memory */
    /* read: vectors reg, vvvv, r/m, is4; opmasks; the general register or memory in r/m; RAX and RDX (VPCMPESTRM) */
    uint64_t in_reg : 1, in_vvvv : 1, in_rm : 1, in_is4 : 1, in_k : 1, in_gpr : 1, in_mem : 1, in_lengths : 1;
    uint64_t out : 4; /* enum wide_out */
    uint64_t flags : 1;
    uint64_t fp : 1;      /* may raise SIMD floating-point exceptions */
    uint64_t aligned : 1; /* memory must be aligned to its size */
    uint64_t partial : 1; /* an opmask says which elements of memory are accessed */
    uint64_t evex : 1;    /* checked as AVX-512 */
    uint64_t gpr64 : 1;   /* a general register written is 64 bits wide */
};

enum wide_out {
    OUT_NONE,
    OUT_REG,
    OUT_VVVV,
    OUT_RM,
    OUT_K,
    OUT_K2,
    OUT_RAX,
    OUT_RCX,
    OUT_MEM,
    OUT_XMM0,
    OUT_ECX,
    OUT_OLD
};

static inline struct wide_fields wide_fields(const struct op *op)
{
    struct wide_fields f;
    _Static_assert(sizeof(f) == sizeof(op->imm), "fits an op's immediate");
    memcpy(&f, &op->imm, sizeof(f));
    return f;
}

static inline const struct insn_row *wide_row(const struct op *op)
{
    return &insn_ext_rows[wide_fields(op).row];
}

/* --- wide_stub.c: stubs of one vcpu --- */
struct wide_stubs;
/* Frees what wide_stub() made; `s` may be NULL. */
void wide_stubs_free(struct wide_stubs *s);
/* The stub for an op. Made when it is met first; NULL when there is no room any more: wide_stubs_reset(), and every op that
 * holds one is to be forgotten. Raises #UD where this host gives no memory for code. */
const void *wide_stub(struct vcpu *v, const struct op *op);
void wide_stubs_reset(struct wide_stubs *s);
/* Runs a stub. With `unmasked`, under the guest's own MXCSR: a trap on the host is the guest's #XM. */
void wide_call(struct vcpu *v, struct wide_frame *f, const void *stub, bool unmasked);

/* --- wide_mem.c: the memory operand --- */
/* Its elements, and which of them an instruction under a mask accesses: a bit each. */
struct wide_part {
    unsigned size, count;
    uint64_t used;
    bool unaligned; /* no alignment is checked */
};
static inline bool wide_part_all(const struct wide_part *p)
{
    return p->used == (p->count >= 64 ? ~0ull : (1ull << p->count) - 1);
}
/* What an op's opmask makes of it. */
struct wide_part wide_part(const struct vcpu *v, const struct op *op);
/* Reads op->opsize bytes, or what is used of them (NULL: all); only that can fault, the rest is not defined. */
void wide_load(struct vcpu *v, const struct op *op, uint8_t *dst, const struct wide_part *part);
/* Writes likewise. Nothing is written when any element faults. */
void wide_store(struct vcpu *v, const struct op *op, const uint8_t *src, const struct wide_part *part);
/* Raises what wide_store() would. */
void wide_probe_store(struct vcpu *v, const struct op *op, const struct wide_part *part);
/* One element of a gather, a scatter or VMASKMOV: AMD's processors check no alignment then. */
void wide_read_element(struct vcpu *v, uint64_t lin, uint8_t *dst, unsigned size, enum seg seg);
void wide_write_element(struct vcpu *v, uint64_t lin, const uint8_t *src, unsigned size, enum seg seg);
void wide_probe_element(struct vcpu *v, uint64_t lin, unsigned size, enum seg seg);
/* The first `size` bytes of the operand, 0 to 64. */
void wide_read(struct vcpu *v, const struct op *op, uint8_t *dst, unsigned size);
void wide_write(struct vcpu *v, const struct op *op, const uint8_t *src, unsigned size);

/* --- whole registers --- */
static inline void wide_get(const struct vcpu *v, unsigned n, uint8_t *out)
{
    const struct fpu_state *f = &v->s.fpu;
    if (n >= 16) {
        memcpy(out, f->zmm16[n - 16], 64);
        return;
    }
    memcpy(out, f->xmm[n], 16);
    memcpy(out + 16, f->ymmh[n], 16);
    memcpy(out + 32, f->zmmh[n], 32);
}

static inline void wide_set(struct vcpu *v, unsigned n, const uint8_t *val)
{
    struct fpu_state *f = &v->s.fpu;
    if (n >= 16) {
        memcpy(f->zmm16[n - 16], val, 64);
        return;
    }
    memcpy(f->xmm[n], val, 16);
    memcpy(f->ymmh[n], val + 16, 16);
    memcpy(f->zmmh[n], val + 32, 32);
}

static inline void check_wide(struct vcpu *v, bool evex)
{
    uint64_t need = evex ? 0xe6 : 6;
    if (likely(v->s.cr4 & CR4_OSXSAVE && (v->s.fpu.xcr0 & need) == need && !(v->s.cr0 & CR0_TS)))
        return;
    if (evex)
        cpu_check_avx512(v);
    else
        cpu_check_avx(v);
}

/* Bits of an opmask that count for `n` elements; k0 as an instruction's own means all. */
static inline uint64_t wide_mask(const struct vcpu *v, unsigned mask, unsigned n)
{
    uint64_t all = n >= 64 ? ~0ull : (1ull << n) - 1;
    return mask ? v->s.fpu.k[mask] & all : all;
}

/* --- wide.c, gather.c --- */
bool lower_wide(struct op *op, const struct insn *in, uint32_t mode);
bool lower_gather(struct op *op, const struct insn *in, uint32_t mode);

#endif
