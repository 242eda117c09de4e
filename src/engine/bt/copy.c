/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions that run on the host as they are, with other registers and addresses. */
#include "engine/bt/unit.h"

/* Where an operand stands in the encoding. */
enum role {
    ROLE_UNKNOWN,
    ROLE_NONE,
    ROLE_RM,
    ROLE_REG,
    ROLE_OPC,
    ROLE_FIXED,
    ROLE_IMM,
    ROLE_ONE,
    ROLE_VVVV,
    ROLE_IS4
};

/* clang-format off */
static const uint8_t roles[OPSPEC_COUNT] = {
    [__] = ROLE_NONE,
    [Eb] = ROLE_RM, [Ew] = ROLE_RM, [Ed] = ROLE_RM, [Eq] = ROLE_RM, [Ev] = ROLE_RM, [Ey] = ROLE_RM,
    [Ed_Mb] = ROLE_RM, [Ed_Mw] = ROLE_RM,
    [Gb] = ROLE_REG, [Gw] = ROLE_REG, [Gd] = ROLE_REG, [Gq] = ROLE_REG, [Gv] = ROLE_REG, [Gy] = ROLE_REG,
    [Mb] = ROLE_RM, [Mw] = ROLE_RM, [Md] = ROLE_RM, [Mq] = ROLE_RM, [Mdq] = ROLE_RM, [My2] = ROLE_RM,
    [Ib] = ROLE_IMM, [Ibs] = ROLE_IMM, [Iw] = ROLE_IMM, [Iz] = ROLE_IMM, [Iv] = ROLE_IMM, [I1] = ROLE_ONE,
    [Zb] = ROLE_OPC, [Zv] = ROLE_OPC, [rAL] = ROLE_FIXED, [rAX] = ROLE_FIXED, [rCL] = ROLE_FIXED,
    [Vx] = ROLE_REG, [Wb] = ROLE_RM, [Ww] = ROLE_RM, [Wd] = ROLE_RM, [Wq] = ROLE_RM, [Wdq] = ROLE_RM, [Ux] = ROLE_RM,
    [Wx] = ROLE_RM, [Wxh] = ROLE_RM, [Wxq] = ROLE_RM, [Wxe] = ROLE_RM, [Wqq] = ROLE_RM, [Wxd] = ROLE_RM,
    [Hx] = ROLE_VVVV, [By] = ROLE_VVVV, [Lx] = ROLE_IS4,
    [Kg] = ROLE_REG, [Kh] = ROLE_VVVV, [Ke] = ROLE_RM, [Kb] = ROLE_RM, [Kw] = ROLE_RM, [Kd] = ROLE_RM, [Kq] = ROLE_RM,
    [Pq] = ROLE_REG, [Qd] = ROLE_RM, [Qq] = ROLE_RM, [Nq] = ROLE_RM,
};
/* clang-format on */

static bool wide_host(unsigned guest) { return host_of(guest) == H_NONE || host_of(guest) >= H_R8; }

/* AH, CH, DH, BH cannot be named in an instruction with REX. */
static bool high_byte_possible(const struct insn *in)
{
    bool high = false, rex = false;
    for (unsigned i = 0; i < 3; i++) {
        const struct operand *o = &in->op[i];
        high |= o->kind == OPND_REGH;
        rex |= o->kind == OPND_MEM ||
               (o->kind == OPND_REG && (o->size == 8 || wide_host(o->reg) || (o->size == 1 && o->reg >= 4)));
    }
    return !high || !rex;
}

static bool in_memory(const struct operand *o) { return o->kind == OPND_REG && host_of(o->reg) == H_NONE; }

/* MULX from memory with both destinations in memory. */
static bool too_few_scratch(const struct insn *in)
{
    return in->id == INSN_MULX && in->op[2].kind == OPND_MEM && in_memory(&in->op[0]) &&
           in_memory(&in->op[1]);
}

bool copy_possible(const struct insn *in, uint32_t key)
{
    bool bit_string = in->id == INSN_BT || in->id == INSN_BTS || in->id == INSN_BTR || in->id == INSN_BTC;
    if (bit_string && in->op[0].kind == OPND_MEM && in->op[1].kind == OPND_REG)
        return false;
    if (in->row->flags & IF_NO64 && in->id != INSN_INC && in->id != INSN_DEC)
        return false;
    if (in->id == INSN_MASKMOVDQU || too_few_scratch(in))
        return false;
    if (in->row->op4 != __ && roles[in->row->op4] == ROLE_UNKNOWN)
        return false;
    for (unsigned i = 0; i < 3; i++) {
        if (in->row->op[i] >= OPSPEC_COUNT || roles[in->row->op[i]] == ROLE_UNKNOWN)
            return false;
    }
    (void)key;
    return high_byte_possible(in);
}

/* Prefixes and map of the original, of the legacy encoding. */
static unsigned encoding_of(const struct insn *in)
{
    static const uint16_t maps[] = {
        [MAP_1] = 0, [MAP_0F] = ENC_0F, [MAP_0F38] = ENC_0F38, [MAP_0F3A] = ENC_0F3A
    };
    static const uint8_t mandatory[] = {
        [PX] = 0, [PN] = 0, [P66] = ENC_66, [PF3] = ENC_F3, [PF2] = ENC_F2, [PNR] = 0
    };
    unsigned enc = maps[in->row->map] | mandatory[in->row->pfx];
    bool integer = !(in->row->flags & (IF_SSE | IF_MMX));
    bool sized = in->row->pfx != PN && in->row->pfx != P66; /* 66 is the operand size */
    if (integer && sized && in->opsize == 2)
        enc |= ENC_66;
    if (in->rex & 8 || (integer && in->opsize == 8 && !(in->row->flags & IF_BYTE)))
        enc |= ENC_W;
    if (in->prefixes & IP_LOCK)
        enc |= ENC_LOCK;
    bool low = false, high = false;
    for (unsigned i = 0; i < 3; i++) {
        low |= in->op[i].kind == OPND_REG && in->op[i].size == 1;
        high |= in->op[i].kind == OPND_REGH;
    }
    return low && !high ? enc | ENC_BYTE : enc;
}

/* The same of VEX and EVEX encodings. W is ignored outside 64-bit mode where it is the size of a general register. */
static struct vex vex_of(const struct insn *in, unsigned vvvv)
{
    static const uint8_t pp[] = { [PN] = 0, [P66] = 1, [PF3] = 2, [PF2] = 3 };
    bool evex = in->enc == ENCODING_EVEX;
    return (struct vex){
        .evex = evex,
        .map = (uint8_t)(in->row->map - (evex ? MAP_E0F : MAP_V0F) + 1),
        .pp = pp[in->row->pfx],
        .w = in->row->w == WX ? in->rex >> 3 & 1 : in->w,
        .l = in->ll,
        .vvvv = (uint8_t)vvvv,
        .mask = in->mask,
        .z = in->evex & IX_Z,
        .b = in->evex & (IX_BROADCAST | IX_ROUND | IX_SAE),
    };
}

static void vex_emit(struct emitter *e, const struct insn *in, unsigned vvvv, unsigned reg, unsigned rm,
                     const struct amode *mem)
{
    struct vex x = vex_of(in, vvvv);
    if (in->row->flags & IF_NOMODRM)
        emit_vex_plain(e, &x, in->opcode);
    else if (mem)
        emit_vex_mem(e, &x, in->opcode, reg, *mem);
    else
        emit_vex_reg(e, &x, in->opcode, reg, rm);
    if (in->row->op4 == Lx)
        emit_byte(e, (unsigned)in->op4.reg << 4 | (in->imm & 15));
    else if (in->row->op4 == Ib)
        emit_byte(e, in->imm & 0xff);
}

static unsigned imm_bytes(const struct insn *in)
{
    for (unsigned i = 0; i < 3; i++)
        switch (in->row->op[i]) {
        case Ib:
        case Ibs: return 1;
        case Iw: return 2;
        case Iz: return in->opsize == 8 ? 4 : in->opsize;
        case Iv: return in->opsize;
        default: break;
        }
    return 0;
}

/* One register operand: the host register it is in, and the guest register to write back to. */
struct placed {
    unsigned host;
    int guest; /* >= 0: in memory, and to be written back from `host` */
};

static bool is_written(const struct insn *in, const struct operand *o)
{
    if (o == &in->op[0])
        return !(in->row->flags & IF_RO);
    return o == &in->op[1] && (in->id == INSN_XCHG || in->id == INSN_XADD || in->id == INSN_MULX);
}

static struct placed place(struct translation *t, struct planned *p, const struct operand *o, unsigned temp)
{
    if (o->kind == OPND_XMM || o->kind == OPND_MMX || o->kind == OPND_K)
        return (struct placed){ o->reg, -1 };
    if (o->kind == OPND_REGH)
        return (struct placed){ 4u + o->reg, -1 };
    unsigned h = host_of(o->reg);
    if (h != H_NONE)
        return (struct placed){ h, -1 };
    bool overwritten = o == &p->in.op[0] && p->in.row->flags & IF_WR1 && o->size >= 4;
    if (!overwritten)
        emit_load(&t->e, temp, at_gpr(o->reg));
    return (struct placed){ temp, is_written(&p->in, o) ? o->reg : -1 };
}

static void write_back(struct translation *t, const struct placed *r)
{
    if (r->guest >= 0)
        emit_store(&t->e, at_gpr((unsigned)r->guest), r->host);
}

/* A register in memory may stand as the memory operand itself where the instruction means the same and writes no 4 bytes, which
 * would have to clear the rest. */
static bool direct_possible(const struct planned *p, const struct operand *o)
{
    if (o->kind != OPND_REG || host_of(o->reg) != H_NONE || p->in.row->mod != MA)
        return false;
    if (p->fx.gpr_written >> o->reg & 1 && o->size == 4)
        return false;
    switch (p->in.id) {
    case INSN_ADD:
    case INSN_OR:
    case INSN_ADC:
    case INSN_SBB:
    case INSN_AND:
    case INSN_SUB:
    case INSN_XOR:
    case INSN_CMP:
    case INSN_TEST:
    case INSN_MOV:
    case INSN_MOVZX:
    case INSN_MOVSX:
    case INSN_IMUL2:
    case INSN_IMUL3:
    case INSN_CMOVCC:
    case INSN_INC:
    case INSN_DEC: return true;
    default: return false;
    }
}

static bool may_fault_on_host(const struct insn *in, bool mem)
{
    if (in->id == INSN_DIV || in->id == INSN_IDIV)
        return true;
    return mem && (in->row->flags & IF_AL16 || (in->id == INSN_CMPXCHG8B && in->rex & 8));
}

/* op E, G with G in memory and E in a host register: the same as op G, E the other way round. */
static bool reversible(const struct planned *p)
{
    const struct insn *in = &p->in;
    const struct operand *e = &in->op[0], *g = &in->op[1];
    bool form = in->row->map == MAP_1 && (in->opcode & ~1u) == 0x88;
    form |= in->row->map == MAP_1 && in->opcode < 0x40 && (in->opcode & 6) == 0;
    return form && e->kind == OPND_REG && g->kind == OPND_REG && host_of(e->reg) != H_NONE &&
           host_of(g->reg) == H_NONE;
}

void encode_emit(struct translation *t, struct planned *p, struct amode host)
{
    const struct insn *in = &p->in;
    struct emitter *e = &t->e;
    unsigned enc = in->enc == ENCODING_LEGACY ? encoding_of(in) : 0;
    struct placed reg = { in->row->reg >= 0 ? (unsigned)in->row->reg : in->modrm >> 3 & 7u, -1 };
    struct placed rm = { in->modrm & 7u, -1 }, opc = { 0, -1 }, vvvv = { 0, -1 };
    bool is_mem = p->mem.used, plus = false;
    if (reversible(p)) {
        emit_mem(e, enc, in->opcode | 2u, host_of(in->op[0].reg), at_gpr(in->op[1].reg));
        return;
    }
    for (unsigned i = 0; i < 3; i++) {
        const struct operand *o = &in->op[i];
        switch (roles[in->row->op[i]]) {
        case ROLE_REG: reg = place(t, p, o, T2); break;
        case ROLE_VVVV: /* two scratch registers are in use where there is memory; the destination may share T2 then */
            vvvv = place(t, p, o, is_mem ? T2 : T1);
            if (vvvv.host == T1)
                t->delta_group = NO_GROUP;
            break;
        case ROLE_OPC:
            opc = place(t, p, o, T2);
            plus = true;
            break;
        case ROLE_RM:
            if (o->kind == OPND_MEM)
                break;
            if (direct_possible(p, o)) {
                host = at_gpr(o->reg);
                is_mem = true;
            } else {
                rm = place(t, p, o, T0);
            }
            break;
        default: break;
        }
    }
    uint32_t at = (uint32_t)(e->at - t->b->code.write);
    if (in->enc != ENCODING_LEGACY)
        vex_emit(e, in, vvvv.host, reg.host, rm.host, is_mem ? &host : NULL);
    else if (plus && in->row->flags & IF_NO64) /* 40..4F mean REX in 64-bit code */
        emit_reg(e, enc, 0xff, in->id == INSN_DEC, opc.host);
    else if (plus)
        emit_plus(e, enc, in->opcode & ~7u, opc.host);
    else if (in->row->flags & IF_NOMODRM)
        emit_plain(e, enc, in->opcode);
    else if (is_mem)
        emit_mem(e, enc, in->opcode, reg.host, host);
    else
        emit_reg(e, enc, in->opcode, reg.host, rm.host);
    emit_imm(e, in->imm, imm_bytes(in));
    if (e->nview)
        view_sites(t);
    else if (may_fault_on_host(in, is_mem))
        site_add(t, at);
    write_back(t, &vvvv); /* MULX with one destination: the other half is lost */
    write_back(t, &reg);
    write_back(t, &rm);
    write_back(t, &opc);
}

void copy_emit(struct translation *t, struct planned *p)
{
    struct amode host = { 0 };
    enum flag_use use = flag_use(p);
    if (p->how == HOW_SIMD)
        vector_ready(t, &p->in);
    if (p->mem.used)
        host = mem_emit(t, p);
    /* What it leaves undefined or unchanged matters only if somebody looks. */
    if (use == FLAGS_NEEDED && !(p->fx.flags_read & STATUS_FLAGS) &&
        !flags_observed_after(&t->plan, t->index))
        use = FLAGS_UNUSED;
    if (use == FLAGS_NEEDED)
        flags_to_e(t);
    encode_emit(t, p, host);
    if (use != FLAGS_UNUSED)
        flags_defined(t, p);
}

void lea_emit(struct translation *t, struct planned *p)
{
    const struct insn *in = &p->in;
    struct mem_operand m = in->mem;
    m.seg = 0;
    struct amode a = lea_amode(t, &m, p->end);
    unsigned h = host_of(in->op[0].reg), dst = h == H_NONE ? T2 : h;
    if (in->addrsize == 2 && in->opsize == 4) { /* the rest is 0 */
        emit_lea32(&t->e, T0, a);
        emit_reg(&t->e, ENC_0F, 0xb7, dst, T0);
        return;
    }
    bool wide = in->opsize == 8 && in->addrsize == 8;
    if (in->opsize == 2) {
        if (h == H_NONE)
            emit_load(&t->e, T2, at_gpr(in->op[0].reg));
        emit_mem(&t->e, ENC_66, 0x8d, dst, a);
    } else {
        emit_mem(&t->e, wide ? ENC_W : 0, 0x8d, dst, a);
    }
    if (h == H_NONE)
        emit_store(&t->e, at_gpr(in->op[0].reg), T2);
}

/* MOV between the accumulator and an absolute 64-bit address. */
void moffs_emit(struct translation *t, struct planned *p)
{
    const struct insn *in = &p->in;
    struct amode host = access_emit(t, &p->mem, moffs_ea(t, in));
    bool load = in->op[0].kind == OPND_REG;
    unsigned enc = in->opsize == 8 ? ENC_W : in->opsize == 2 ? ENC_66 : 0;
    unsigned opcode = (load ? 0x8a : 0x88) | (in->opsize != 1);
    emit_mem(&t->e, enc, opcode, H_RAX, host);
    view_sites(t);
}
