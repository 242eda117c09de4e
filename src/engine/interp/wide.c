/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector and opmask instructions: what an op reads is put into a frame, the stub runs, what it writes is taken out.
 * See wide.h. Plain moves, VZEROUPPER and the like are done in C.
 */
#include "engine/interp/block.h"
#include "engine/interp/wide.h"

/* There is no room for another stub: the decoded blocks are forgotten with the stubs they point to, and the instruction is
 * executed again. */
static const struct op *start_over(struct vcpu *v, const struct op *op)
{
    struct interp *c = interp_of(v);
    exact(v, op);
    v->s.rip = (v->s.rip - op->len) & v->lin_mask;
    block_cache_flush(c);
    wide_stubs_reset(c->stubs);
    c->stub_resets++;
    return leave(v);
}

/* A handler that needs its stub; the body has `stub`. */
#define WIDE_HANDLER(name) \
    static __attribute__((noinline)) void do_##name(struct vcpu *v, const struct op *op, const void *stub); \
    static const struct op *name(struct vcpu *v, const struct op *op) \
    { \
        const void *stub = find_stub(v, op); \
        if (unlikely(!stub)) \
            return start_over(v, op); \
        do_##name(v, op, stub); \
        return NEXT(v, op); \
    } \
    static void do_##name(struct vcpu *v, const struct op *op, const void *stub)

static inline bool any_unmasked(const struct vcpu *v)
{
    return unlikely((v->s.fpu.mxcsr & MXCSR_MASKS) != MXCSR_MASKS);
}

static void check_op(struct vcpu *v, const struct wide_fields *f)
{
    if (unlikely(f->out == OUT_OLD))
        cpu_check_sse(v);
    else
        check_wide(v, f->evex);
}

/* The op remembers its stub, but where a displacement of 64 bits has that place. The checks come first: without them the
 * instruction is undefined, and nothing is made for it. */
static const void *find_stub(struct vcpu *v, const struct op *op)
{
    struct wide_fields f = wide_fields(op);
    check_op(v, &f);
    if (op->index == MEM_OFFSET)
        return wide_stub(v, op);
    if (unlikely(!op->aux))
        ((struct op *)(uintptr_t)op)->aux = wide_stub(v, op);
    return op->aux;
}

/* --- the general case -------------------------------------------------------------------------------------- */

static void read_registers(const struct vcpu *v, const struct op *op, const struct wide_fields *f,
                           struct wide_frame *fr)
{
    if (f->in_reg)
        wide_get(v, op->r1, fr->v[0]);
    if (f->in_vvvv)
        wide_get(v, f->vvvv, fr->v[1]);
    if (f->in_rm)
        wide_get(v, op->r2, fr->v[2]);
    if (f->in_is4)
        wide_get(v, f->is4, fr->v[3]);
    fr->k[0] = v->s.fpu.k[f->mask];
    if (f->in_k) {
        fr->k[1] = v->s.fpu.k[op->r1 & 7];
        fr->k[2] = v->s.fpu.k[f->vvvv & 7];
        fr->k[3] = v->s.fpu.k[op->r2 & 7];
    }
    if (f->in_gpr)
        fr->rcx = v->s.gpr[op->r2];
    if (f->in_lengths) {
        fr->rax = v->s.gpr[RAX];
        fr->rdx = v->s.gpr[RDX];
    }
}

static void write_gpr(struct vcpu *v, unsigned reg, uint64_t val, bool wide)
{
    v->s.gpr[reg] = wide ? val : (uint32_t)val;
}

static void write_result(struct vcpu *v, const struct op *op, const struct wide_fields *f,
                         struct wide_frame *fr)
{
    switch ((enum wide_out)f->out) {
    case OUT_NONE:
    case OUT_MEM: break;
    case OUT_REG: wide_set(v, op->r1, fr->v[0]); break;
    case OUT_VVVV: wide_set(v, f->vvvv, fr->v[1]); break;
    case OUT_RM: wide_set(v, op->r2, fr->v[2]); break;
    case OUT_K: v->s.fpu.k[op->r1 & 7] = fr->k[1]; break;
    case OUT_K2:
        v->s.fpu.k[op->r1 & 6] = fr->k[1];
        v->s.fpu.k[op->r1 | 1] = fr->k[2];
        break;
    case OUT_RAX: write_gpr(v, op->r1, fr->rax, f->gpr64); break;
    case OUT_RCX: write_gpr(v, op->r2, fr->rcx, f->gpr64); break;
    case OUT_XMM0: wide_set(v, 0, fr->v[0]); break;
    case OUT_ECX: write_gpr(v, RCX, fr->rcx, false); break;
    case OUT_OLD: memcpy(v->s.fpu.xmm[op->r1], fr->v[1], 16); break;
    }
    if (f->flags)
        v->s.cc = fr->cc;
}

WIDE_HANDLER(wide)
{
    struct wide_fields f = wide_fields(op);
    struct wide_frame fr;
    struct wide_part p, *part = NULL;
    if (f.partial) {
        p = wide_part(v, op);
        part = &p;
    }
    read_registers(v, op, &f, &fr);
    if (f.in_mem)
        wide_load(v, op, fr.mem, part);
    else if (f.out == OUT_MEM && f.fp)
        wide_probe_store(v, op, part); /* a fault comes before the exception, and before the sticky flags */
    wide_call(v, &fr, stub, f.fp && any_unmasked(v));
    if (f.out == OUT_MEM)
        wide_store(v, op, fr.mem, part);
    write_result(v, op, &f, &fr);
}

/* SHA and GFNI in the old encodings; only SHA256RNDS2 reads XMM0. */
WIDE_HANDLER(old_sse)
{
    struct wide_fields f = wide_fields(op);
    struct wide_frame fr;
    memcpy(fr.v[0], v->s.fpu.xmm[0], 16);
    memcpy(fr.v[1], v->s.fpu.xmm[op->r1], 16);
    if (f.in_mem)
        wide_load(v, op, fr.mem, NULL);
    else
        memcpy(fr.v[2], v->s.fpu.xmm[op->r2], 16);
    wide_call(v, &fr, stub, false);
    write_result(v, op, &f, &fr);
}

/* --- moves that need no stub -------------------------------------------------------------------------------- */

static unsigned vector_length(const struct wide_fields *f) { return 16u << f->vl; }

FPU_HANDLER(move_rr)
{
    struct wide_fields f = wide_fields(op);
    uint8_t val[64];
    unsigned vl = vector_length(&f);
    check_wide(v, f.evex);
    wide_get(v, f.out == OUT_RM ? op->r1 : op->r2, val);
    memset(val + vl, 0, 64 - vl);
    wide_set(v, f.out == OUT_RM ? op->r2 : op->r1, val);
}

FPU_HANDLER(move_load)
{
    struct wide_fields f = wide_fields(op);
    uint8_t val[64] = { 0 };
    check_wide(v, f.evex);
    wide_read(v, op, val, op->opsize);
    wide_set(v, op->r1, val);
}

FPU_HANDLER(move_store)
{
    uint8_t val[64];
    check_wide(v, wide_fields(op).evex);
    wide_get(v, op->r1, val);
    wide_write(v, op, val, op->opsize);
}

/* --- compression and expansion in memory: as many elements as bits are set, one after the other ---------------- */

static struct wide_part packed_part(const struct vcpu *v, const struct op *op)
{
    struct wide_fields f = wide_fields(op);
    struct wide_part p = { .size = wide_row(op)->esize };
    p.count = op->opsize / p.size;
    unsigned n = (unsigned)__builtin_popcountll(wide_mask(v, f.mask, p.count));
    p.used = n >= 64 ? ~0ull : (1ull << n) - 1;
    return p;
}

WIDE_HANDLER(expand_load)
{
    struct wide_fields f = wide_fields(op);
    struct wide_frame fr;
    struct wide_part p = packed_part(v, op);
    read_registers(v, op, &f, &fr);
    wide_load(v, op, fr.mem, &p);
    wide_call(v, &fr, stub, false);
    write_result(v, op, &f, &fr);
}

WIDE_HANDLER(compress_store)
{
    struct wide_fields f = wide_fields(op);
    struct wide_frame fr;
    struct wide_part p = packed_part(v, op);
    read_registers(v, op, &f, &fr);
    wide_call(v, &fr, stub, false);
    wide_store(v, op, fr.mem, &p);
}

/* --- VMASKMOV: the sign bits of a vector say which elements ------------------------------------------------------ */

static struct wide_part sign_part(const struct vcpu *v, const struct op *op, unsigned size)
{
    struct wide_fields f = wide_fields(op);
    struct wide_part p = { .size = size, .count = op->opsize / size, .unaligned = true };
    uint8_t mask[64];
    wide_get(v, f.vvvv, mask);
    for (unsigned i = 0; i < p.count; i++)
        p.used |= (uint64_t)(mask[(i + 1) * size - 1] >> 7) << i;
    return p;
}

static unsigned maskmov_size(const struct op *op)
{
    return op->id == INSN_VMASKMOVPS || op->id == INSN_VPMASKMOVD ? 4 : 8;
}

FPU_HANDLER(maskmov_load)
{
    uint8_t from[64], val[64] = { 0 };
    check_wide(v, false);
    struct wide_part p = sign_part(v, op, maskmov_size(op));
    wide_load(v, op, from, &p);
    for (unsigned i = 0; i < p.count; i++)
        if (p.used >> i & 1)
            memcpy(val + i * p.size, from + i * p.size, p.size);
    wide_set(v, op->r1, val);
}

FPU_HANDLER(maskmov_store)
{
    uint8_t val[64];
    check_wide(v, false);
    struct wide_part p = sign_part(v, op, maskmov_size(op));
    wide_get(v, op->r1, val);
    wide_store(v, op, val, &p);
}

/* --- VZEROUPPER, VZEROALL ------------------------------------------------------------------------------------- */

FPU_HANDLER(vzero)
{
    struct fpu_state *f = &v->s.fpu;
    unsigned n = vcpu_long64(v) ? 16 : 8;
    check_wide(v, false);
    if (op->id == INSN_VZEROALL)
        memset(f->xmm, 0, n * sizeof(f->xmm[0]));
    memset(f->ymmh, 0, n * sizeof(f->ymmh[0]));
    memset(f->zmmh, 0, n * sizeof(f->zmmh[0]));
}

/* --- lowering ---------------------------------------------------------------------------------------------------- */

static bool is_move(unsigned id)
{
    switch (id) {
    case INSN_VMOVUPS:
    case INSN_VMOVUPD:
    case INSN_VMOVAPS:
    case INSN_VMOVAPD:
    case INSN_VMOVDQA:
    case INSN_VMOVDQU:
    case INSN_VMOVDQA32:
    case INSN_VMOVDQA64:
    case INSN_VMOVDQU8:
    case INSN_VMOVDQU16:
    case INSN_VMOVDQU32:
    case INSN_VMOVDQU64:
    case INSN_VMOVNTPS:
    case INSN_VMOVNTPD:
    case INSN_VMOVNTDQ:
    case INSN_VMOVNTDQA:
    case INSN_VLDDQU: return true;
    default: return false;
    }
}

static bool sets_flags(unsigned id)
{
    switch (id) {
    case INSN_VUCOMISS:
    case INSN_VUCOMISD:
    case INSN_VCOMISS:
    case INSN_VCOMISD:
    case INSN_VPTEST:
    case INSN_VTESTPS:
    case INSN_VTESTPD:
    case INSN_KORTESTB:
    case INSN_KORTESTW:
    case INSN_KORTESTD:
    case INSN_KORTESTQ:
    case INSN_KTESTB:
    case INSN_KTESTW:
    case INSN_KTESTD:
    case INSN_KTESTQ:
    case INSN_VPCMPESTRM:
    case INSN_VPCMPESTRI:
    case INSN_VPCMPISTRM:
    case INSN_VPCMPISTRI: return true;
    default: return false;
    }
}

/* The three places of a vector register, by notation. */
enum place { NOWHERE, IN_REG, IN_VVVV, IN_RM, IN_IS4 };

static enum place place_of(uint8_t spec)
{
    switch (spec) {
    case Vx: return IN_REG;
    case Hx: return IN_VVVV;
    case Lx: return IN_IS4;
    case Ux:
    case Wx:
    case Wxh:
    case Wxq:
    case Wxe:
    case Wxd:
    case Wqq:
    case Wb:
    case Ww:
    case Wd:
    case Wq:
    case Wdq: return IN_RM;
    default: return NOWHERE;
    }
}

static void read_operand_of(struct wide_fields *f, uint8_t spec, const struct operand *o)
{
    if (o->kind == OPND_MEM)
        f->in_mem = 1;
    else if (o->kind == OPND_REG)
        f->in_gpr = 1;
    else if (o->kind == OPND_XMM) {
        enum place at = place_of(spec);
        f->in_reg |= at == IN_REG;
        f->in_vvvv |= at == IN_VVVV;
        f->in_rm |= at == IN_RM;
        f->in_is4 |= at == IN_IS4;
    }
}

static enum wide_out output_of(const struct insn *in)
{
    const struct operand *o = &in->op[0];
    if (in->id == INSN_VPCMPESTRM || in->id == INSN_VPCMPISTRM)
        return OUT_XMM0;
    if (in->id == INSN_VPCMPESTRI || in->id == INSN_VPCMPISTRI)
        return OUT_ECX;
    if (in->id == INSN_VP2INTERSECTD || in->id == INSN_VP2INTERSECTQ)
        return OUT_K2;
    if (in->row->flags & IF_RO)
        return OUT_NONE;
    switch (o->kind) {
    case OPND_MEM: return OUT_MEM;
    case OPND_K: return OUT_K;
    case OPND_REG:
        return in->row->op[0] == Gy || in->row->op[0] == Gd || in->row->op[0] == Gq ? OUT_RAX : OUT_RCX;
    default: break;
    }
    enum place at = place_of(in->row->op[0]);
    return at == IN_REG ? OUT_REG : at == IN_VVVV ? OUT_VVVV : OUT_RM;
}

static struct wide_fields fields_of(const struct insn *in)
{
    const struct insn_row *row = in->row;
    struct wide_fields f = {
        .row = (uint64_t)(row - insn_ext_rows),
        .imm8 = in->imm & 0xff,
        .vvvv = in->vvvv & 31,
        .is4 = in->op4.reg & 15,
        .mask = in->mask & 7,
        .w = row->w == WX ? in->rex >> 3 & 1
                          : in->w, /* ignored outside 64-bit mode where it means a register's size */
        .ll = in->ll & 3,
        .vl = in->vl == 64 ? 2 : in->vl == 32,
        .b = (in->evex & (IX_BROADCAST | IX_ROUND | IX_SAE)) != 0,
        .z = (in->evex & IX_Z) != 0,
        .memory = !(row->flags & IF_NOMODRM) && in->modrm < 0xc0,
        .in_lengths = in->id == INSN_VPCMPESTRM || in->id == INSN_VPCMPESTRI,
        .out = output_of(in),
        .flags = sets_flags(in->id),
        .fp = (row->flags & IF_FPX) != 0,
        .aligned = (row->flags & IF_AL16) != 0,
        .evex = in->enc == ENCODING_EVEX,
        .gpr64 = in->op[0].size == 8 || in->id == INSN_KMOVQ, /* even outside 64-bit mode */
    };
    bool merges = in->mask && !f.z;
    for (unsigned i = 0; i < 3; i++) {
        f.in_k |= in->op[i].kind == OPND_K;
        f.evex |= in->op[i].kind == OPND_K;
        if (i > 0 || row->flags & IF_RO || (in->op[0].kind == OPND_XMM && (merges || !(row->flags & IF_WR1))))
            read_operand_of(&f, row->op[i], &in->op[i]);
    }
    read_operand_of(&f, row->op4, &in->op4);
    f.partial = f.memory && in->mask && (f.out == OUT_MEM || !(row->xflags & XF_NF));
    return f;
}

/* Register numbers by place, and the memory operand. */
static void set_operands(struct op *op, const struct insn *in)
{
    const struct insn_row *row = in->row;
    for (unsigned i = 0; i < 3; i++) {
        const struct operand *o = &in->op[i];
        enum place at = place_of(row->op[i]);
        bool reg = at == IN_REG || row->op[i] == Kg || row->op[i] == Gy || row->op[i] == Gd ||
                   row->op[i] == Gq;
        if (o->kind == OPND_MEM) {
            op->opsize = o->size;
            op_set_mem(op, in);
        } else if (reg) {
            op->r1 = o->reg;
        } else if (at == IN_RM || o->kind == OPND_REG || (o->kind == OPND_K && row->op[i] != Kh)) {
            op->r2 = o->reg;
        }
    }
}

static op_handler pick_handler(const struct insn *in, const struct wide_fields *f)
{
    bool store = f->out == OUT_MEM;
    switch (in->id) {
    case INSN_VZEROUPPER:
    case INSN_VZEROALL: return vzero;
    case INSN_VMASKMOVPS:
    case INSN_VMASKMOVPD:
    case INSN_VPMASKMOVD:
    case INSN_VPMASKMOVQ: return store ? maskmov_store : maskmov_load;
    case INSN_VLDMXCSR: return run_vldmxcsr;
    case INSN_VSTMXCSR: return run_vstmxcsr;
    case INSN_VMASKMOVDQU: return run_vmaskmovdqu;
    default: break;
    }
    if (in->row->xflags & XF_T1 && f->memory)
        return store ? compress_store : expand_load;
    if (is_move(in->id) && !in->mask)
        return store ? move_store : f->in_mem ? move_load : move_rr;
    return wide;
}

bool lower_wide(struct op *op, const struct insn *in, uint32_t mode)
{
    if (in->vsib)
        return lower_gather(op, in, mode);
    struct wide_fields f = fields_of(in);
    set_operands(op, in);
    op->run = pick_handler(in, &f);
    if (in->enc == ENCODING_LEGACY) {
        f.out = OUT_OLD;
        op->run = old_sse;
    }
    if (op->run == run_vmaskmovdqu) {
        op->r2 = in->op[1].reg;
        op->seg = in->seg;
    }
    memcpy(&op->imm, &f, sizeof(f));
    return true;
}
