/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder: prefixes, opcode, ModRM, row, operands, immediates (SDM 2A chapter 2).
 *
 *   [66 67 F0 F2 F3 seg]* [REX] opcode(1..3) [ModRM [SIB] [disp]] [imm]
 *   [67 seg]* VEX or EVEX prefix opcode ModRM [SIB] [disp] [imm]
 */
#include "isa/decode_vex.h"

#include <threads.h>

#include "base/bits.h"

#define INSN_MAX_LEN 15

/* Segment numbers as in cpu/state.h. */
enum { ES, CS, SS, DS, FS, GS };

/* Where an operand notation finds its operand, and the size rule. */
/* clang-format off */
enum where { W_NONE, W_RM, W_RM_MEM, W_RM_REG, W_REG, W_IMM, W_ONE, W_REL, W_FAR, W_MOFFS, W_OPC, W_FIXED, W_SEG_REG, W_SEG_FIXED,
             W_CR, W_DR, W_XMM_REG, W_XMM_RM, W_MMX_REG, W_MMX_RM, W_ST0, W_STI,
             W_VVVV, W_XMM_VVVV, W_XMM_IMM, W_K_REG, W_K_VVVV, W_K_RM, W_VSIB };
/* VLEN: the vector length; VHALF and so on: parts of it; VDUP: MOVDDUP's memory. */
enum { V = 0x80, Y, Z, SBYTE, FARP, DESC, PAIR, YY, NATURAL, VLEN, VHALF, VQUARTER, VEIGHTH, VDUP };

struct opspec_rule {
    uint8_t where;
    uint8_t size;     /* bytes, or a rule from 0x80 on */
    uint8_t mem_size; /* size when it is memory, 0 = same */
    uint8_t fixed;    /* W_FIXED: register number; W_SEG_FIXED */
};

static const struct opspec_rule rules[OPSPEC_COUNT] = {
    [Eb] = { W_RM, 1, 0, 0 }, [Ew] = { W_RM, 2, 0, 0 }, [Ed] = { W_RM, 4, 0, 0 }, [Eq] = { W_RM, 8, 0, 0 },
    [Ev] = { W_RM, V, 0, 0 }, [Ey] = { W_RM, Y, 0, 0 },
    [Ed_Mb] = { W_RM, 4, 1, 0 }, [Ed_Mw] = { W_RM, 4, 2, 0 }, [Ev_Mw] = { W_RM, V, 2, 0 },
    [Gb] = { W_REG, 1, 0, 0 }, [Gw] = { W_REG, 2, 0, 0 }, [Gd] = { W_REG, 4, 0, 0 }, [Gq] = { W_REG, 8, 0, 0 },
    [Gv] = { W_REG, V, 0, 0 }, [Gy] = { W_REG, Y, 0, 0 }, [Gz] = { W_REG, Z, 0, 0 },
    [Mb] = { W_RM_MEM, 1, 0, 0 }, [Mw] = { W_RM_MEM, 2, 0, 0 }, [Md] = { W_RM_MEM, 4, 0, 0 }, [Mq] = { W_RM_MEM, 8, 0, 0 },
    [Mdq] = { W_RM_MEM, 16, 0, 0 }, [Mt] = { W_RM_MEM, 10, 0, 0 }, [Mp] = { W_RM_MEM, FARP, 0, 0 },
    [Ms] = { W_RM_MEM, DESC, 0, 0 }, [Ma] = { W_RM_MEM, PAIR, 0, 0 }, [M] = { W_RM_MEM, 0, 0, 0 },
    [Mstate] = { W_RM_MEM, 0, 0, 0 }, [My2] = { W_RM_MEM, YY, 0, 0 },
    [Ib] = { W_IMM, 1, 0, 0 }, [Ibs] = { W_IMM, SBYTE, 0, 0 }, [Iw] = { W_IMM, 2, 0, 0 }, [Iz] = { W_IMM, Z, 0, 0 },
    [Iv] = { W_IMM, V, 0, 0 }, [I1] = { W_ONE, 1, 0, 0 },
    [Jb] = { W_REL, 1, 0, 0 }, [Jz] = { W_REL, Z, 0, 0 }, [Ap] = { W_FAR, V, 0, 0 },
    [Ob] = { W_MOFFS, 1, 0, 0 }, [Ov] = { W_MOFFS, V, 0, 0 }, [Zb] = { W_OPC, 1, 0, 0 }, [Zv] = { W_OPC, V, 0, 0 },
    [rAL] = { W_FIXED, 1, 0, 0 }, [rAX] = { W_FIXED, V, 0, 0 }, [rCL] = { W_FIXED, 1, 0, 1 }, [rDX] = { W_FIXED, 2, 0, 2 },
    [Sw] = { W_SEG_REG, 2, 0, 0 }, [Cy] = { W_CR, NATURAL, 0, 0 }, [Dy] = { W_DR, NATURAL, 0, 0 }, [Ry] = { W_RM_REG, NATURAL, 0, 0 },
    [sES] = { W_SEG_FIXED, 2, 0, ES }, [sCS] = { W_SEG_FIXED, 2, 0, CS }, [sSS] = { W_SEG_FIXED, 2, 0, SS },
    [sDS] = { W_SEG_FIXED, 2, 0, DS }, [sFS] = { W_SEG_FIXED, 2, 0, FS }, [sGS] = { W_SEG_FIXED, 2, 0, GS },
    [Vx] = { W_XMM_REG, VLEN, 0, 0 }, [Wb] = { W_XMM_RM, 1, 0, 0 }, [Ww] = { W_XMM_RM, 2, 0, 0 }, [Wd] = { W_XMM_RM, 4, 0, 0 },
    [Wq] = { W_XMM_RM, 8, 0, 0 }, [Wdq] = { W_XMM_RM, 16, 0, 0 }, [Ux] = { W_XMM_RM, VLEN, 0, 0 },
    [Pq] = { W_MMX_REG, 8, 0, 0 }, [Qd] = { W_MMX_RM, 8, 4, 0 }, [Qq] = { W_MMX_RM, 8, 0, 0 }, [Nq] = { W_MMX_RM, 8, 0, 0 },
    [ST0] = { W_ST0, 10, 0, 0 }, [STi] = { W_STI, 10, 0, 0 },
    [Wx] = { W_XMM_RM, VLEN, 0, 0 }, [Wxh] = { W_XMM_RM, VHALF, 0, 0 }, [Wxq] = { W_XMM_RM, VQUARTER, 0, 0 },
    [Wxe] = { W_XMM_RM, VEIGHTH, 0, 0 }, [Wqq] = { W_XMM_RM, 32, 0, 0 }, [Wxd] = { W_XMM_RM, VLEN, VDUP, 0 },
    [Hx] = { W_XMM_VVVV, VLEN, 0, 0 }, [Lx] = { W_XMM_IMM, VLEN, 0, 0 }, [By] = { W_VVVV, Y, 0, 0 },
    [Kg] = { W_K_REG, 8, 0, 0 }, [Kh] = { W_K_VVVV, 8, 0, 0 }, [Ke] = { W_K_RM, 8, 0, 0 },
    [Kb] = { W_K_RM, 8, 1, 0 }, [Kw] = { W_K_RM, 8, 2, 0 }, [Kd] = { W_K_RM, 8, 4, 0 }, [Kq] = { W_K_RM, 8, 8, 0 },
    [Xx] = { W_VSIB, VLEN, 0, 0 }, [Xh] = { W_VSIB, VHALF, 0, 0 },
};
/* clang-format on */

/* Rows by opcode, chained in table order: derived once from the constant tables, constant from then on. 0 ends a chain. */
struct row_index {
    uint16_t first[MAP_COUNT][256];
    struct {
        uint16_t row, next;
    } link[2048];
};
static struct {
    struct row_index base, ext;
} index_;
static once_flag index_once = ONCE_FLAG_INIT;

static void index_rows(struct row_index *x, const struct insn_row *rows, unsigned count)
{
    unsigned used = 1;
    for (unsigned r = count; r-- > 0;) { /* backwards: chains come out in table order */
        const struct insn_row *row = &rows[r];
        unsigned span = row->flags & IF_PLUSR ? 8 : row->flags & IF_COND ? 16 : 1;
        for (unsigned i = 0; i < span && used < array_size(x->link); i++, used++) {
            uint16_t *head = &x->first[row->map][row->opcode + i];
            x->link[used].row = (uint16_t)r;
            x->link[used].next = *head;
            *head = (uint16_t)used;
        }
    }
}

static void build_index(void)
{
    index_rows(&index_.base, insn_rows, insn_row_count);
    index_rows(&index_.ext, insn_ext_rows, insn_ext_row_count);
}

/* The bytes still to be read, and what has been gathered. */
struct cursor {
    const uint8_t *bytes;
    unsigned pos, avail;
    bool short_; /* ran past avail */
    struct vex_prefix vex;
};

static uint64_t take(struct cursor *c, unsigned n)
{
    uint64_t v = 0;
    if (c->pos + n > c->avail) {
        c->short_ = true;
        c->pos = c->avail;
        return 0;
    }
    memcpy(&v, c->bytes + c->pos, n);
    c->pos += n;
    return v;
}

struct prefix_state {
    bool p66;
    uint8_t rep; /* 0, 0xf2, 0xf3: the last one given */
    int8_t seg;  /* -1 none */
};

/* Reads legacy prefixes and REX; leaves the cursor at the opcode. A REX not directly before the opcode is ignored. */
static void take_prefixes(struct cursor *c, struct insn *in, struct prefix_state *ps, bool long64)
{
    for (;;) {
        uint8_t b = (uint8_t)take(c, 1);
        if (c->short_)
            return;
        if (long64 && (b & 0xf0) == 0x40) {
            in->rex = b;
            continue;
        }
        switch (b) {
        case 0x66:
            ps->p66 = true;
            in->prefixes |= IP_OSIZE;
            break;
        case 0x67: in->prefixes |= IP_ASIZE; break;
        case 0xf0: in->prefixes |= IP_LOCK; break;
        case 0xf2: ps->rep = b; break;
        case 0xf3: ps->rep = b; break;
        case 0x26: ps->seg = long64 ? ps->seg : ES; break;
        case 0x2e: ps->seg = long64 ? ps->seg : CS; break;
        case 0x36: ps->seg = long64 ? ps->seg : SS; break;
        case 0x3e: ps->seg = long64 ? ps->seg : DS; break;
        case 0x64: ps->seg = FS; break;
        case 0x65: ps->seg = GS; break;
        default: c->pos--; return;
        }
        in->rex = 0;
    }
}

static enum insn_map take_opcode(struct cursor *c, struct insn *in)
{
    in->opcode = (uint8_t)take(c, 1);
    if (in->opcode != 0x0f)
        return MAP_1;
    in->opcode = (uint8_t)take(c, 1);
    if (in->opcode != 0x38 && in->opcode != 0x3a)
        return MAP_0F;
    enum insn_map map = in->opcode == 0x38 ? MAP_0F38 : MAP_0F3A;
    in->opcode = (uint8_t)take(c, 1);
    return map;
}

static bool prefix_matches(enum insn_pfx want, const struct prefix_state *ps)
{
    switch (want) {
    case PX: return true;
    case PN: return !ps->p66 && !ps->rep;
    case P66: return ps->p66 && !ps->rep;
    case PF3: return ps->rep == 0xf3;
    case PF2: return ps->rep == 0xf2;
    case PNR: return !ps->rep;
    }
    return false;
}

static bool modrm_matches(const struct insn_row *row, uint8_t modrm)
{
    bool reg_form = modrm >= 0xc0;
    if (row->reg >= 0 && row->reg != ((modrm >> 3) & 7))
        return false;
    if (row->mod == MM && reg_form)
        return false;
    if (row->mod == MR && !reg_form)
        return false;
    unsigned rm = IF_RM_GET(row->flags);
    return !(rm & 8) || (rm & 7) == (modrm & 7u);
}

static const struct insn_row *find_row(enum insn_map map, uint8_t opcode, uint8_t modrm,
                                       const struct prefix_state *ps, bool long64)
{
    for (unsigned l = index_.base.first[map][opcode]; l; l = index_.base.link[l].next) {
        const struct insn_row *row = &insn_rows[index_.base.link[l].row];
        if ((row->flags & IF_NO64 && long64) || (row->flags & IF_ONLY64 && !long64))
            continue;
        if (!prefix_matches(row->pfx, ps))
            continue;
        if (row->flags & IF_NOMODRM || modrm_matches(row, modrm))
            return row;
    }
    return NULL;
}

/* The extensions' row, when the processor has it. */
static const struct insn_row *find_ext_row(enum insn_map map, const struct insn *in,
                                           const struct vex_prefix *vex, const struct prefix_state *ps,
                                           bool long64, uint64_t features)
{
    for (unsigned l = index_.ext.first[map][in->opcode]; l; l = index_.ext.link[l].next) {
        const struct insn_row *row = &insn_ext_rows[index_.ext.link[l].row];
        if ((row->flags & IF_NO64 && long64) || (row->flags & IF_ONLY64 && !long64))
            continue;
        if (!prefix_matches(row->pfx, ps) || !(row->flags & IF_NOMODRM || modrm_matches(row, in->modrm)))
            continue;
        if (vex_matches(row, in, vex) && vex_has_features(row, in, vex, features))
            return row;
    }
    return NULL;
}

/* True when rows of this opcode have a ModRM byte (all of one opcode agree, but for rows of one mode only). */
static bool opcode_has_modrm(enum insn_map map, uint8_t opcode, bool long64)
{
    for (unsigned l = index_.base.first[map][opcode]; l; l = index_.base.link[l].next) {
        uint32_t flags = insn_rows[index_.base.link[l].row].flags;
        if (!(flags & (long64 ? IF_NO64 : IF_ONLY64)))
            return !(flags & IF_NOMODRM);
    }
    return false;
}

/* 16-bit addressing forms (SDM 2A Table 2-1). */
static const struct {
    uint8_t base, index;
} addr16[8] = { { 3, 6 },          { 3, 7 },          { 5, 6 },          { 5, 7 },
                { 6, MEM_NO_REG }, { 7, MEM_NO_REG }, { 5, MEM_NO_REG }, { 3, MEM_NO_REG } };

/* 8-bit displacements of EVEX encodings are multiplied (SDM 2A 2.7.5). */
static int64_t take_disp8(struct cursor *c)
{
    return sext(take(c, 1), 8) * (c->vex.disp8_scale ? c->vex.disp8_scale : 1);
}

static void take_mem16(struct cursor *c, struct insn *in)
{
    unsigned mod = in->modrm >> 6, rm = in->modrm & 7;
    struct mem_operand *m = &in->mem;
    m->base = addr16[rm].base;
    m->index = addr16[rm].index;
    m->seg = m->base == 5 ? SS : DS;
    if (mod == 0 && rm == 6) {
        m->base = MEM_NO_REG;
        m->seg = DS;
        m->disp = sext(take(c, 2), 16);
    } else if (mod) {
        m->disp = mod == 1 ? take_disp8(c) : sext(take(c, 2), 16);
    }
}

static void take_mem32(struct cursor *c, struct insn *in, bool long64)
{
    unsigned mod = in->modrm >> 6, rm = in->modrm & 7, low = rm;
    unsigned rex_b = (in->rex & 1) << 3, rex_x = (in->rex & 2) << 2;
    struct mem_operand *m = &in->mem;
    m->index = MEM_NO_REG;
    if (rm == 4) {
        uint8_t sib = (uint8_t)take(c, 1);
        unsigned index = ((sib >> 3) & 7) | rex_x;
        m->index = in->vsib ? (uint8_t)(index | c->vex.v4) : index == 4 ? MEM_NO_REG : (uint8_t)index;
        m->scale = sib >> 6;
        low = sib & 7;
    }
    m->base = (uint8_t)(low | rex_b);
    m->seg = m->base == 4 || m->base == 5 ? SS : DS;
    if (mod == 0 && low == 5) {
        m->base = rm == 5 && long64 ? MEM_RIP : MEM_NO_REG;
        m->seg = DS;
        m->disp = sext(take(c, 4), 32);
    } else if (mod) {
        m->disp = mod == 1 ? take_disp8(c) : sext(take(c, 4), 32);
    }
}

static unsigned operand_size(const struct insn *in, unsigned rule, unsigned code_bytes)
{
    unsigned y = in->rex & 8 ? 8 : 4;
    switch (rule) {
    case V: return in->opsize;
    case Y: return y;
    case Z: return in->opsize == 8 ? 4 : in->opsize;
    case SBYTE: return 1;
    case FARP: return in->opsize + 2u;
    case DESC: return code_bytes == 8 ? 10 : 6;
    case PAIR: return in->opsize * 2u;
    case YY: return y * 2;
    case NATURAL: return code_bytes == 8 ? 8 : 4;
    case VLEN: return in->vl ? in->vl : 16;
    case VHALF: return in->vl / 2u;
    case VQUARTER: return in->vl / 4u;
    case VEIGHTH: return in->vl / 8u;
    case VDUP: return in->vl == 16 ? 8 : in->vl;
    default: return rule;
    }
}

static void set_byte_reg(struct operand *o, unsigned reg, bool rex)
{
    if (!rex && reg >= 4 && reg < 8)
        *o = (struct operand){ OPND_REGH, (uint8_t)(reg - 4), 1 };
    else
        *o = (struct operand){ OPND_REG, (uint8_t)reg, 1 };
}

static void set_reg(struct operand *o, unsigned reg, unsigned size, bool rex)
{
    if (size == 1)
        set_byte_reg(o, reg, rex);
    else
        *o = (struct operand){ OPND_REG, (uint8_t)reg, (uint8_t)size };
}

static void take_imm(struct cursor *c, struct insn *in, uint8_t rule, unsigned size)
{
    uint64_t v = take(c, size);
    if (rule == SBYTE || rule == Z)
        v = (uint64_t)sext(v, size * 8);
    in->imm = v;
}

/* Fills one operand; false when the encoding names none (#UD). */
static bool take_operand(struct cursor *c, struct insn *in, struct operand *o, uint8_t spec,
                         unsigned code_bytes)
{
    const struct opspec_rule *r = &rules[spec];
    unsigned reg = ((in->modrm >> 3) & 7) | (in->rex & 4u) << 1;
    unsigned rm = (in->modrm & 7) | (in->rex & 1u) << 3;
    bool is_mem = in->modrm < 0xc0;
    unsigned size = operand_size(in, r->size, code_bytes);
    unsigned mem_size = r->mem_size ? operand_size(in, r->mem_size, code_bytes) : size;

    switch ((enum where)r->where) {
    case W_NONE: break;
    case W_RM:
    case W_RM_MEM:
        if (is_mem)
            *o = (struct operand){ OPND_MEM, 0, (uint8_t)mem_size };
        else
            set_reg(o, rm, size, in->rex);
        break;
    case W_RM_REG: set_reg(o, rm, size, in->rex); break;
    case W_REG: set_reg(o, reg, size, in->rex); return !c->vex.reg4;
    case W_IMM:
        take_imm(c, in, r->size, size);
        *o = (struct operand){ OPND_IMM, 0, (uint8_t)size };
        break;
    case W_ONE:
        in->imm = 1;
        *o = (struct operand){ OPND_IMM, 0, 1 };
        break;
    case W_REL:
        in->imm = (uint64_t)sext(take(c, size), size * 8);
        *o = (struct operand){ OPND_REL, 0, (uint8_t)size };
        break;
    case W_FAR:
        in->imm = take(c, size);
        in->imm2 = take(c, 2);
        *o = (struct operand){ OPND_FAR, 0, (uint8_t)size };
        break;
    case W_MOFFS:
        in->mem = (struct mem_operand){
            .seg = in->seg, .base = MEM_NO_REG, .index = MEM_NO_REG, .disp = (int64_t)take(c, in->addrsize)
        };
        *o = (struct operand){ OPND_MEM, 0, (uint8_t)size };
        break;
    case W_OPC: set_reg(o, (in->opcode & 7) | (in->rex & 1u) << 3, size, in->rex); break;
    case W_FIXED: set_reg(o, r->fixed, size, true); break;
    case W_SEG_REG: *o = (struct operand){ OPND_SEG, reg & 7, 2 }; return (reg & 7) <= GS;
    case W_SEG_FIXED: *o = (struct operand){ OPND_SEG, r->fixed, 2 }; break;
    case W_CR: *o = (struct operand){ OPND_CR, (uint8_t)reg, (uint8_t)size }; break;
    case W_DR: *o = (struct operand){ OPND_DR, (uint8_t)reg, (uint8_t)size }; break;
    case W_XMM_REG: *o = (struct operand){ OPND_XMM, (uint8_t)(reg | c->vex.reg4), (uint8_t)size }; break;
    case W_XMM_RM:
        if (is_mem && in->evex & IX_BROADCAST)
            mem_size = in->row->bsize;
        *o = is_mem ? (struct operand){ OPND_MEM, 0, (uint8_t)mem_size }
                    : (struct operand){ OPND_XMM, (uint8_t)(rm | c->vex.rm4), (uint8_t)size };
        break;
    case W_VVVV: set_reg(o, in->vvvv, size, true); break;
    case W_XMM_VVVV: *o = (struct operand){ OPND_XMM, in->vvvv, (uint8_t)size }; break;
    case W_XMM_IMM:
        take_imm(c, in, r->size, 1);
        *o = (struct operand){ OPND_XMM, in->imm >> 4 & (code_bytes == 8 ? 15 : 7), (uint8_t)size };
        break;
    case W_K_REG: *o = (struct operand){ OPND_K, reg & 7, 8 }; return !(reg & 8) && !c->vex.reg4;
    case W_K_VVVV: *o = (struct operand){ OPND_K, in->vvvv & 7, 8 }; return in->vvvv < 8;
    case W_K_RM:
        *o = is_mem ? (struct operand){ OPND_MEM, 0, (uint8_t)mem_size }
                    : (struct operand){ OPND_K, rm & 7, 8 };
        break;
    case W_VSIB: /* the operation knows how many elements of which size */
        *o = (struct operand){ OPND_MEM, 0, in->row->esize ? in->row->esize : in->w ? 8 : 4 };
        return in->addrsize != 2 && (in->modrm & 7) == 4;
    case W_MMX_REG: *o = (struct operand){ OPND_MMX, reg & 7, 8 }; break;
    case W_MMX_RM:
        *o = is_mem ? (struct operand){ OPND_MEM, 0, (uint8_t)mem_size }
                    : (struct operand){ OPND_MMX, rm & 7, 8 };
        break;
    case W_ST0: *o = (struct operand){ OPND_ST, 0, 10 }; break;
    case W_STI: *o = (struct operand){ OPND_ST, in->modrm & 7, 10 }; break;
    }
    return true;
}

static void set_sizes(struct insn *in, const struct insn_row *row, unsigned code_bytes)
{
    bool p66 = in->prefixes & IP_OSIZE;
    if (row->flags & IF_BYTE)
        in->opsize = 1;
    else if (code_bytes == 8)
        in->opsize = in->rex & 8 || row->flags & IF_F64 ? 8 : p66 ? 2 : row->flags & IF_D64 ? 8 : 4;
    else
        in->opsize = (code_bytes == 4) != p66 ? 4 : 2;
}

/* MOV to CS is #UD (SDM 2B MOV), like the segment numbers 6 and 7. */
static bool segment_allowed(const struct insn *in)
{
    return in->id != INSN_MOV_TO_SEG || in->op[0].reg != CS;
}

static bool lock_allowed(const struct insn *in)
{
    return in->row->flags & IF_LOCK && in->op[0].kind == OPND_MEM;
}

/* 90 is XCHG rAX,rAX in the table; without REX.B it does nothing (and F3 90 is PAUSE): told apart by its operands being equal. */
static void finish(struct insn *in)
{
    if (in->id == INSN_XCHG && in->op[1].kind == OPND_REG && in->row->flags & IF_PLUSR && in->op[0].reg == 0)
        in->id = INSN_NOP;
}

static enum decode_status incomplete(const struct cursor *c)
{
    return c->avail >= INSN_MAX_LEN ? DECODE_TOO_LONG : DECODE_MORE;
}

/* Bytes of the memory operand, or those that an 8-bit displacement counts. */
static unsigned memory_size(const struct insn *in, unsigned code_bytes)
{
    const struct insn_row *row = in->row;
    if (in->evex & IX_BROADCAST)
        return row->bsize;
    if (row->xflags & XF_T1)
        return row->esize;
    for (unsigned i = 0; i < 3; i++) {
        const struct opspec_rule *r = &rules[row->op[i]];
        if (r->where == W_RM || r->where == W_RM_MEM || r->where == W_XMM_RM || r->where == W_K_RM)
            return operand_size(in, r->mem_size ? r->mem_size : r->size, code_bytes);
    }
    return 1;
}

/* Everything behind the opcode. */
static enum decode_status take_rest(struct cursor *c, struct insn *in, const struct prefix_state *ps,
                                    unsigned code_bytes)
{
    const struct insn_row *row = in->row;
    bool long64 = code_bytes == 8, modrm = !(row->flags & IF_NOMODRM);
    bool register_only = rules[row->op[0]].where == W_RM_REG || rules[row->op[1]].where == W_RM_REG;
    for (unsigned i = 0; i < 3; i++)
        if (rules[row->op[i]].where == W_VSIB)
            in->vsib = (uint8_t)operand_size(in, rules[row->op[i]].size, code_bytes);
    if (in->enc == ENCODING_EVEX)
        c->vex.disp8_scale = (uint8_t)memory_size(in, code_bytes);
    if (modrm && in->modrm < 0xc0 && !register_only) {
        if (in->addrsize == 2)
            take_mem16(c, in);
        else
            take_mem32(c, in, long64);
        if (ps->seg >= 0)
            in->mem.seg = (uint8_t)ps->seg;
    }
    bool valid = true;
    for (unsigned i = 0; i < 3; i++)
        valid &= take_operand(c, in, &in->op[i], row->op[i], code_bytes);
    if (in->enc)
        valid &= take_operand(c, in, &in->op4, row->op4, code_bytes) && vex_valid(in, &c->vex);
    if (in->id == INSN_ENTER)
        in->imm2 = take(c, 1);
    if (c->short_)
        return incomplete(c);
    if (!valid || !segment_allowed(in) || (in->prefixes & IP_LOCK && !lock_allowed(in)))
        return DECODE_INVALID;
    in->len = (uint8_t)c->pos;
    finish(in);
    return DECODE_OK;
}

/* C4, C5 and 62 are old instructions outside 64-bit mode unless a register form follows, which those do not have. */
static bool is_vex(const struct cursor *c, bool long64)
{
    uint8_t b = c->pos < c->avail ? c->bytes[c->pos] : 0;
    if (b != 0xc4 && b != 0xc5 && b != 0x62)
        return false;
    return long64 || (c->pos + 1 < c->avail && c->bytes[c->pos + 1] >= 0xc0);
}

static enum decode_status decode_vex(struct cursor *c, struct insn *in, struct prefix_state *ps,
                                     unsigned code_bytes, uint64_t features)
{
    bool long64 = code_bytes == 8;
    /* No 66, F2, F3, LOCK or REX may come before (SDM 2A 2.3.2, 2.3.3). */
    if (ps->p66 || ps->rep || in->prefixes & IP_LOCK || in->rex)
        return DECODE_INVALID;
    unsigned n = vex_parse(in, &c->vex, c->bytes + c->pos, c->avail - c->pos, long64);
    if (!n)
        return incomplete(c);
    if (c->vex.invalid)
        return DECODE_INVALID;
    c->pos += n;
    ps->p66 = c->vex.pfx == P66;
    ps->rep = c->vex.pfx == PF3 ? 0xf3 : c->vex.pfx == PF2 ? 0xf2 : 0;
    in->opcode = (uint8_t)take(c, 1);
    unsigned first = index_.ext.first[c->vex.map][in->opcode];
    if (!c->short_ && !first)
        return DECODE_INVALID;
    if (!c->short_ && !(insn_ext_rows[index_.ext.link[first].row].flags & IF_NOMODRM))
        in->modrm = (uint8_t)take(c, 1);
    if (c->short_)
        return incomplete(c);
    in->row = find_ext_row(c->vex.map, in, &c->vex, ps, long64, features);
    if (!in->row)
        return DECODE_INVALID;
    in->id = in->row->id;
    in->opsize = in->rex & 8 ? 8 : 4;
    vex_set_length(in, &c->vex);
    return take_rest(c, in, ps, code_bytes);
}

enum decode_status insn_decode_for(struct insn *in, const uint8_t *bytes, unsigned avail, unsigned code_bytes,
                                   uint64_t features)
{
    call_once(&index_once, build_index);
    bool long64 = code_bytes == 8;
    struct cursor c = { .bytes = bytes, .avail = avail > INSN_MAX_LEN ? INSN_MAX_LEN : avail };
    struct prefix_state ps = { .seg = -1 };
    *in = (struct insn){ 0 };

    take_prefixes(&c, in, &ps, long64);
    bool asize = in->prefixes & IP_ASIZE;
    in->addrsize = (uint8_t)(long64 ? (asize ? 4 : 8) : (code_bytes == 4) != asize ? 4 : 2);
    in->seg = (uint8_t)(ps.seg >= 0 ? ps.seg : DS);
    in->prefixes |= ps.seg >= 0 ? IP_SEG : 0;
    if (features && !(features & FEATURES_NO_VEX) && is_vex(&c, long64))
        return decode_vex(&c, in, &ps, code_bytes, features);
    enum insn_map map = take_opcode(&c, in);
    in->prefixes |= (ps.rep == 0xf3 ? IP_REP : 0) | (ps.rep == 0xf2 ? IP_REPNE : 0) | (in->rex ? IP_REX : 0);

    bool ext = features && index_.ext.first[map][in->opcode];
    bool modrm = !c.short_ && (ext || opcode_has_modrm(map, in->opcode, long64));
    if (modrm)
        in->modrm = (uint8_t)take(&c, 1);
    if (c.short_)
        return incomplete(&c);

    const struct insn_row *row = ext ? find_ext_row(map, in, &c.vex, &ps, long64, features) : NULL;
    if (!row)
        row = find_row(map, in->opcode, in->modrm, &ps, long64);
    if (!row)
        return DECODE_INVALID;
    in->row = row;
    in->id = row->id;
    in->cond = row->flags & IF_COND ? in->opcode & 15 : 0;
    set_sizes(in, row, code_bytes);
    return take_rest(&c, in, &ps, code_bytes);
}

enum decode_status insn_decode(struct insn *in, const uint8_t *bytes, unsigned avail, unsigned code_bytes)
{
    return insn_decode_for(in, bytes, avail, code_bytes, 0);
}
