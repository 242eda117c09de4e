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

/* --- finding the row ----------------------------------------------------------------------------------------------- */

/* The rest of what decides between rows of an opcode, as a number below SITUATIONS. */
#define SITUATIONS 24u
static inline unsigned situation(bool p66, uint8_t rep, bool reg_form, bool long64)
{
    unsigned repeat = rep == 0xf3 ? 1 : rep == 0xf2 ? 2 : 0;
    return repeat << 3 | (unsigned)p66 << 2 | (unsigned)reg_form << 1 | long64;
}

/* One row of an opcode: the situations that it is for, and what ModRM has to be. */
struct candidate {
    uint32_t situations : SITUATIONS;
    uint8_t last : 1; /* of its opcode */
    uint8_t modrm, modrm_mask;
    uint16_t row;
};

_Static_assert(sizeof(struct candidate) == 8, "few of them make a line of the host's caches");

struct opcode_rows {
    uint16_t first;   /* in candidates[], in table order; 0: none */
    uint8_t modrm[2]; /* is there a ModRM byte? By long64. All rows of a mode agree. */
};

#define SPAN(flags) ((flags)&IF_PLUSR ? 8 : (flags)&IF_COND ? 16 : 1)
/* clang-format off */
enum {
    BASE_CANDIDATES = 1
#define I(id, map, pfx, opcode, reg, mod, a, b, c, flags) + SPAN(flags)
#include "isa/insn_int.def"
#include "isa/insn_simd.def"
#include "isa/insn_x87.def"
#undef I
    ,
    EXT_CANDIDATES = 1
#define X(id, feat, map, pfx, opcode, reg, mod, vl, w, a, b, c, d, esize, bsize, flags, xflags) + SPAN(flags)
#include "isa/insn_ext.def"
#include "isa/insn_vex.def"
#include "isa/insn_evex.def"
#undef X
};
/* clang-format on */
#define CANDIDATES (BASE_CANDIDATES > EXT_CANDIDATES ? BASE_CANDIDATES : EXT_CANDIDATES)

/* Derived once from the constant tables, constant from then on. */
struct row_index {
    struct opcode_rows opcodes[MAP_COUNT * 256];
    struct candidate candidates[CANDIDATES];
};
static struct {
    struct row_index base, ext;
} index_;
static once_flag index_once = ONCE_FLAG_INIT;

static unsigned opcode_number(unsigned map, unsigned opcode) { return map << 8 | opcode; }

/* The situations of an enum insn_pfx, of an enum insn_mod, and of rows for one kind of mode. */
static const uint32_t by_prefix[] = {
    [PX] = 0xffffff, [PN] = 0x00000f, [P66] = 0x0000f0, [PF3] = 0x00ff00, [PF2] = 0xff0000, [PNR] = 0x0000ff
};
static const uint32_t by_mod[] = { [MA] = 0xffffff, [MM] = 0x333333, [MR] = 0xcccccc };
#define IN_LONG64 0xaaaaaau

static struct candidate candidate_of(const struct insn_row *row, unsigned number)
{
    bool modrm = !(row->flags & IF_NOMODRM);
    unsigned rm = modrm ? IF_RM_GET(row->flags) : 0;
    int reg = modrm ? row->reg : -1;
    uint32_t modes = row->flags & IF_NO64 ? ~IN_LONG64 : row->flags & IF_ONLY64 ? IN_LONG64 : ~0u;
    return (struct candidate){
        .situations = by_prefix[row->pfx] & (modrm ? by_mod[row->mod] : ~0u) & modes,
        .modrm_mask = (reg >= 0 ? 0x38 : 0) | (rm & 8 ? 7 : 0),
        .modrm = (uint8_t)((reg >= 0 ? reg << 3 : 0) | (rm & 7)),
        .row = (uint16_t)number,
    };
}

static void index_rows(struct row_index *x, const struct insn_row *rows, unsigned count)
{
    for (unsigned r = 0; r < count; r++)
        for (unsigned i = 0; i < SPAN(rows[r].flags); i++)
            x->opcodes[opcode_number(rows[r].map, rows[r].opcode + i)].first++;
    unsigned end = 1;
    for (unsigned n = 0; n < array_size(x->opcodes); n++) {
        struct opcode_rows *o = &x->opcodes[n];
        if (!o->first)
            continue;
        end += o->first;
        o->first = (uint16_t)end; /* and back to its first as they are filled in */
        x->candidates[end - 1].last = 1;
    }
    for (unsigned r = count; r-- > 0;)
        for (unsigned i = 0; i < SPAN(rows[r].flags); i++) {
            struct opcode_rows *o = &x->opcodes[opcode_number(rows[r].map, rows[r].opcode + i)];
            struct candidate *c = &x->candidates[--o->first];
            bool last = c->last;
            *c = candidate_of(&rows[r], r);
            c->last = last;
            o->modrm[0] |= !(rows[r].flags & (IF_NOMODRM | IF_ONLY64));
            o->modrm[1] |= !(rows[r].flags & (IF_NOMODRM | IF_NO64));
        }
}

static void build_index(void)
{
    index_rows(&index_.base, insn_rows, insn_row_count);
    index_rows(&index_.ext, insn_ext_rows, insn_ext_row_count);
}

static inline bool candidate_matches(const struct candidate *c, unsigned where, uint8_t modrm)
{
    return c->situations >> where & 1 && !((modrm ^ c->modrm) & c->modrm_mask);
}

/* Of rows `first` and those behind it. */
static const struct insn_row *find_row(unsigned first, uint8_t modrm, unsigned where)
{
    if (!first)
        return NULL;
    for (const struct candidate *c = &index_.base.candidates[first];; c++) {
        if (candidate_matches(c, where, modrm))
            return &insn_rows[c->row];
        if (c->last)
            return NULL;
    }
}

/* The extensions' row, when the processor has it. */
static const struct insn_row *find_ext_row(unsigned first, const struct insn *in,
                                           const struct vex_prefix *vex, unsigned where, uint64_t features)
{
    for (const struct candidate *c = &index_.ext.candidates[first];; c++) {
        const struct insn_row *row = &insn_ext_rows[c->row];
        if (candidate_matches(c, where, in->modrm) && vex_matches(row, in, vex) &&
            vex_has_features(row, in, vex, features))
            return row;
        if (c->last)
            return NULL;
    }
}

/* --- bytes ----------------------------------------------------------------------------------------------------------- */

/* Bytes are read without a look at how many there are, from a place with WINDOW of them; whoever gives an answer looks whether
 * that was too far. */
#define WINDOW 48u
struct cursor {
    const uint8_t *bytes;
    unsigned pos, avail;
    struct vex_prefix vex;
};

static inline uint64_t take(struct cursor *c, unsigned n)
{
    uint64_t v = get_le64(c->bytes + c->pos) & mask_bytes(n);
    c->pos += n;
    return v;
}

static inline bool too_far(const struct cursor *c) { return c->pos > c->avail; }

static enum decode_status incomplete(const struct cursor *c)
{
    return c->avail >= INSN_MAX_LEN ? DECODE_TOO_LONG : DECODE_MORE;
}

static enum decode_status invalid(const struct cursor *c)
{
    return too_far(c) ? incomplete(c) : DECODE_INVALID;
}

struct prefix_state {
    bool p66;
    uint8_t rep; /* 0, 0xf2, 0xf3: the last one given */
    int8_t seg;  /* -1 none */
};

/* clang-format off */
enum prefix { NO_PREFIX, OSIZE, ASIZE, LOCK, REPEAT, SEGMENT, SEGMENT_NO64, REX, VEX };
static const uint8_t prefixes[256] = {
    [0x66] = OSIZE, [0x67] = ASIZE, [0xf0] = LOCK, [0xf2] = REPEAT, [0xf3] = REPEAT, [0x64] = SEGMENT, [0x65] = SEGMENT,
    [0x26] = SEGMENT_NO64, [0x2e] = SEGMENT_NO64, [0x36] = SEGMENT_NO64, [0x3e] = SEGMENT_NO64,
    [0x40] = REX, [0x41] = REX, [0x42] = REX, [0x43] = REX, [0x44] = REX, [0x45] = REX, [0x46] = REX, [0x47] = REX,
    [0x48] = REX, [0x49] = REX, [0x4a] = REX, [0x4b] = REX, [0x4c] = REX, [0x4d] = REX, [0x4e] = REX, [0x4f] = REX,
    [0x62] = VEX, [0xc4] = VEX, [0xc5] = VEX,
};
/* clang-format on */

/* Reads legacy prefixes and REX; leaves the cursor at the opcode, whose kind it returns. A REX not directly before the opcode is
 * ignored. */
static enum prefix take_prefixes(struct cursor *c, struct insn *in, struct prefix_state *ps, bool long64)
{
    for (; c->pos < c->avail; c->pos++) {
        uint8_t b = c->bytes[c->pos];
        enum prefix kind = prefixes[b];
        if (kind == NO_PREFIX || kind == VEX)
            return kind;
        if (kind == REX) {
            if (!long64)
                return NO_PREFIX;
            in->rex = b;
            continue;
        }
        in->rex = 0;
        switch (kind) {
        case OSIZE:
            ps->p66 = true;
            in->prefixes |= IP_OSIZE;
            break;
        case ASIZE: in->prefixes |= IP_ASIZE; break;
        case LOCK: in->prefixes |= IP_LOCK; break;
        case REPEAT: ps->rep = b; break;
        case SEGMENT: ps->seg = b == 0x64 ? FS : GS; break;
        default: ps->seg = long64 ? ps->seg : (b >> 3 & 3); break; /* ES, CS, SS, DS */
        }
    }
    return NO_PREFIX;
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

static unsigned size_by_rule(const struct insn *in, unsigned rule, unsigned code_bytes)
{
    unsigned y = in->rex & 8 ? 8 : 4;
    switch (rule) {
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
    default: return 0;
    }
}

static inline unsigned operand_size(const struct insn *in, unsigned rule, unsigned code_bytes)
{
    return rule < V ? rule : rule == V ? in->opsize : size_by_rule(in, rule, code_bytes);
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
    unsigned mem_size = unlikely(r->mem_size) ? operand_size(in, r->mem_size, code_bytes) : size;

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
    bool register_only = row->op[0] == Ry || row->op[1] == Ry;
    for (unsigned i = 0; i < 3 && in->enc; i++)
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
        if (row->op[i] != __)
            valid &= take_operand(c, in, &in->op[i], row->op[i], code_bytes);
    if (in->enc)
        valid &= take_operand(c, in, &in->op4, row->op4, code_bytes) && vex_valid(in, &c->vex);
    if (in->id == INSN_ENTER)
        in->imm2 = take(c, 1);
    if (too_far(c))
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
    in->opcode = (uint8_t)take(c, 1);
    const struct opcode_rows *rows = &index_.ext.opcodes[opcode_number(c->vex.map, in->opcode)];
    if (!rows->first)
        return invalid(c);
    if (rows->modrm[long64])
        in->modrm = (uint8_t)take(c, 1);
    if (too_far(c))
        return incomplete(c);
    uint8_t rep = c->vex.pfx == PF3 ? 0xf3 : c->vex.pfx == PF2 ? 0xf2 : 0;
    unsigned where = situation(c->vex.pfx == P66, rep, in->modrm >= 0xc0, long64);
    in->row = find_ext_row(rows->first, in, &c->vex, where, features);
    if (!in->row)
        return DECODE_INVALID;
    in->id = in->row->id;
    in->opsize = in->rex & 8 ? 8 : 4;
    vex_set_length(in, &c->vex);
    return take_rest(c, in, ps, code_bytes);
}

static enum decode_status decode(struct cursor *c, struct insn *in, unsigned code_bytes, uint64_t features)
{
    bool long64 = code_bytes == 8;
    struct prefix_state ps = { .seg = -1 };
    enum prefix kind = take_prefixes(c, in, &ps, long64);
    bool asize = in->prefixes & IP_ASIZE;
    in->addrsize = (uint8_t)(long64 ? (asize ? 4 : 8) : (code_bytes == 4) != asize ? 4 : 2);
    in->seg = (uint8_t)(ps.seg >= 0 ? ps.seg : DS);
    in->prefixes |= ps.seg >= 0 ? IP_SEG : 0;
    if (kind == VEX && features && !(features & FEATURES_NO_VEX) && is_vex(c, long64))
        return decode_vex(c, in, &ps, code_bytes, features);
    enum insn_map map = take_opcode(c, in);
    in->prefixes |= (ps.rep == 0xf3 ? IP_REP : 0) | (ps.rep == 0xf2 ? IP_REPNE : 0) | (in->rex ? IP_REX : 0);

    unsigned number = opcode_number(map, in->opcode);
    const struct opcode_rows *rows = &index_.base.opcodes[number];
    unsigned ext = features ? index_.ext.opcodes[number].first : 0;
    if (ext || rows->modrm[long64])
        in->modrm = (uint8_t)take(c, 1);
    if (too_far(c))
        return incomplete(c);

    unsigned where = situation(ps.p66, ps.rep, in->modrm >= 0xc0, long64);
    const struct insn_row *row = ext ? find_ext_row(ext, in, &c->vex, where, features) : NULL;
    if (!row)
        row = find_row(rows->first, in->modrm, where);
    if (!row)
        return DECODE_INVALID;
    in->row = row;
    in->id = row->id;
    in->cond = row->flags & IF_COND ? in->opcode & 15 : 0;
    set_sizes(in, row, code_bytes);
    return take_rest(c, in, &ps, code_bytes);
}

enum decode_status insn_decode_for(struct insn *in, const uint8_t *bytes, unsigned avail, unsigned code_bytes,
                                   uint64_t features)
{
    call_once(&index_once, build_index);
    struct cursor c = { .bytes = bytes, .avail = avail > INSN_MAX_LEN ? INSN_MAX_LEN : avail };
    uint8_t copy[WINDOW];
    if (avail < WINDOW) {
        memset(copy, 0, sizeof(copy));
        memcpy(copy, bytes, avail);
        c.bytes = copy;
    }
    *in = (struct insn){ 0 };
    return decode(&c, in, code_bytes, features);
}

enum decode_status insn_decode(struct insn *in, const uint8_t *bytes, unsigned avail, unsigned code_bytes)
{
    return insn_decode_for(in, bytes, avail, code_bytes, 0);
}
