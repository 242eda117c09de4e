/* SPDX-License-Identifier: Apache-2.0 */
/* Making cases. See generate.h. */
#include "generate.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

enum prefix_class {
    PC_NONE,
    PC_66,
    PC_67,
    PC_REXW,
    PC_REX,
    PC_LOCK,
    PC_REP,
    PC_REPNE,
    PC_SEG,
    PC_66_67,
    PC_REP_REXW,
    PC_REP_66,
    PC_COUNT
};

const char *const prefix_names[PC_COUNT] = { "none", "66",    "67", "rex.w", "rex",       "lock",
                                             "rep",  "repne", "gs", "66+67", "rep+rex.w", "rep+66" };

static const struct {
    uint8_t bytes[2]; /* legacy prefixes */
    uint8_t rex;      /* 0: none; low three bits random */
} prefix_bytes[PC_COUNT] = {
    [PC_66] = { { 0x66 }, 0 },           [PC_67] = { { 0x67 }, 0 },
    [PC_REXW] = { { 0 }, 0x48 },         [PC_REX] = { { 0 }, 0x40 },
    [PC_LOCK] = { { 0xf0 }, 0 },         [PC_REP] = { { 0xf3 }, 0 },
    [PC_REPNE] = { { 0xf2 }, 0 },        [PC_SEG] = { { 0x65 }, 0 },
    [PC_66_67] = { { 0x66, 0x67 }, 0 },  [PC_REP_REXW] = { { 0xf3 }, 0x48 },
    [PC_REP_66] = { { 0xf3, 0x66 }, 0 },
};

uint64_t gen_rnd(struct generator *g)
{
    g->seed ^= g->seed << 13;
    g->seed ^= g->seed >> 7;
    return g->seed ^= g->seed << 17;
}

unsigned gen_below(struct generator *g, unsigned n) { return (unsigned)((gen_rnd(g) >> 20) % n); }

/* --- which cells there are ------------------------------------------------------------------------------------------------ */

/* Needs a host without the newer instruction that took over the encoding, or is not comparable. */
static bool excluded(const struct insn_row *row, unsigned code_bytes, enum prefix_class pc)
{
    bool rep = pc == PC_REP || pc == PC_REPNE || pc == PC_REP_REXW || pc == PC_REP_66;
    bool p66 = pc == PC_66 || pc == PC_66_67 || pc == PC_REP_66;
    if (row->flags & (IF_SYS | IF_CPL0))
        return true;
    if (code_bytes == 8 ? row->flags & IF_NO64 : row->flags & IF_ONLY64)
        return true;
    if (code_bytes != 8 && (prefix_bytes[pc].rex || pc == PC_67 || pc == PC_66_67 || pc == PC_SEG))
        return true; /* 16-bit addresses lie below the first mappable page; GS is null in 32-bit code */
    if (rep && !(row->flags & IF_STR))
        return true; /* F2/F3 choose other instructions: TZCNT, LZCNT, ... */
    if (pc == PC_LOCK && !(row->flags & IF_LOCK))
        return true;
    if (row->pfx != PX && p66 && row->id != INSN_CRC32 && row->id != INSN_POPCNT)
        return true;
    if (row->flags & IF_F64 && p66)
        return true; /* near branches: AMD truncates to 16 bits, Intel does not; unmapped either way */
    if (row->flags & (IF_X87 | IF_MMX) && p66)
        return true;
    if (row->id == INSN_NOP && row->opcode >= 0x18 && row->map == MAP_0F && p66)
        return true;
    return false;
}

static bool form_exists(const struct insn_row *row, bool memory)
{
    if (row->flags & IF_NOMODRM)
        return !memory;
    return row->mod == MA || (memory ? row->mod == MM : row->mod == MR);
}

void generator_init(struct generator *gen, uint64_t seed)
{
    *gen = (struct generator){ .seed = seed ? seed : 1 };
    gen->cells = calloc(insn_row_count * 2 * 2 * PC_COUNT, sizeof(struct cell));
    for (unsigned r = 0; r < insn_row_count; r++)
        for (unsigned code_bytes = 8; code_bytes >= 4; code_bytes -= 4)
            for (unsigned form = 0; form < 2; form++)
                for (unsigned pc = 0; pc < PC_COUNT; pc++) {
                    const struct insn_row *row = &insn_rows[r];
                    if (!form_exists(row, form) || excluded(row, code_bytes, pc) || (pc == PC_LOCK && !form))
                        continue;
                    gen->cells[gen->ncells++] =
                        (struct cell){ (uint16_t)r, (uint8_t)code_bytes, (uint8_t)pc, form, 0, 0 };
                }
}

/* --- values --------------------------------------------------------------------------------------------------------------- */

uint64_t gen_edge(struct generator *g)
{
    static const uint64_t edges[] = { 0,
                                      1,
                                      2,
                                      3,
                                      7,
                                      8,
                                      15,
                                      16,
                                      31,
                                      32,
                                      63,
                                      64,
                                      0x7f,
                                      0x80,
                                      0xff,
                                      0x100,
                                      0x7fff,
                                      0x8000,
                                      0xffff,
                                      0x10000,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      0x100000000,
                                      0x7fffffffffffffff,
                                      0x8000000000000000,
                                      ~0ull,
                                      ~0ull - 1 };
    uint64_t r = gen_rnd(g);
    switch (r >> 60) {
    case 0:
    case 1:
    case 2:
    case 3: return edges[gen_below(g, array_size(edges))];
    case 4: return 1ull << (r & 63);
    case 5: return (uint64_t)(int64_t)(int8_t)r;
    case 6: return r & 0xffff;
    case 7: return r & 0xffffffff;
    default: return gen_rnd(g);
    }
}

static uint32_t float_edge(struct generator *g)
{
    static const uint32_t edges[] = { 0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                      0xff800000, 0x7fc00000, 0x7f800001, 0xffc00000, 1,
                                      0x7fffff,   0x800000,   0x7f7fffff, 0x4f000000, 0xcf000000,
                                      0x5f000000, 0x4b000000, 0x3effffff, 0x40490fdb };
    return gen_below(g, 3) ? edges[gen_below(g, array_size(edges))] : (uint32_t)gen_rnd(g);
}

static uint64_t double_edge(struct generator *g)
{
    static const uint64_t edges[] = { 0,
                                      1ull << 63,
                                      0x3ff0000000000000,
                                      0xbff0000000000000,
                                      0x7ff0000000000000,
                                      0xfff0000000000000,
                                      0x7ff8000000000000,
                                      0x7ff0000000000001,
                                      1,
                                      0xfffffffffffff,
                                      0x10000000000000,
                                      0x7fefffffffffffff,
                                      0x41e0000000000000,
                                      0xc1e0000000000000,
                                      0x43e0000000000000,
                                      0x400921fb54442d18,
                                      0x36a0000000000000,
                                      0x47efffffffffffff,
                                      0x3fe0000000000000,
                                      0x4008000000000000 };
    return gen_below(g, 3) ? edges[gen_below(g, array_size(edges))] : gen_rnd(g);
}

void gen_fill_vector(struct generator *g, uint8_t *p, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 16) {
        unsigned kind = gen_below(g, 4);
        for (unsigned j = 0; j < 16; j += 8) {
            uint64_t v = kind == 0   ? gen_rnd(g)
                         : kind == 1 ? double_edge(g)
                         : kind == 2 ? float_edge(g) | (uint64_t)float_edge(g) << 32
                                     : gen_edge(g);
            memcpy(p + i + j, &v, 8);
        }
    }
}

static void fill_extended(struct generator *g, uint8_t st[10])
{
    static const uint16_t exponents[] = { 0,      1,      0x3fff, 0x3ffe, 0x4000, 0x403e, 0x7ffe,
                                          0x7fff, 0xbfff, 0x8000, 0xffff, 0x3fc0, 0x4010 };
    static const uint64_t mantissas[] = { 0,          1,          1ull << 63,         ~0ull,
                                          3ull << 62, 1ull << 62, 0x8000000000000001, 0xc90fdaa22168c235 };
    uint64_t m = gen_below(g, 2) ? mantissas[gen_below(g, array_size(mantissas))]
                                 : gen_rnd(g) | (gen_below(g, 4) ? 1ull << 63 : 0);
    uint16_t e = gen_below(g, 2) ? exponents[gen_below(g, array_size(exponents))]
                                 : (uint16_t)(0x3fc0 + gen_below(g, 128));
    memcpy(st, &m, 8);
    memcpy(st + 8, &e, 2);
}

void gen_fill_fp(struct generator *g, struct fp_image *f, bool x87)
{
    gen_fill_vector(g, f->xmm[0], 256);
    f->mxcsr = 0x1f80 | (gen_rnd(g) & 0xe040) | (gen_below(g, 4) ? 0 : (uint32_t)gen_rnd(g) & 0x3f);
    if (!gen_below(g, 8))
        f->mxcsr &= (uint32_t) ~(gen_rnd(g) & 0x1f80);
    for (unsigned i = 0; i < 8; i++)
        fill_extended(g, f->st[i]);
    f->fcw = 0x37f;
    f->fsw = 0;
    f->ftw = 0;
    if (!x87)
        return;
    f->fcw = (uint16_t)(0x7f | (gen_rnd(g) & 0xf00));
    if (!gen_below(g, 6))
        f->fcw &= (uint16_t) ~(gen_rnd(g) & 0x3f);
    f->fsw = (uint16_t)(gen_rnd(g) & 0x7f00); /* TOP and C0-C3 */
    if (!gen_below(g, 6))
        f->fsw |= (uint16_t)(gen_rnd(g) & 0x7f);
    if (f->fsw & ~f->fcw & 0x3f)
        f->fsw |= 0x8080;
    f->ftw = gen_below(g, 2) ? 0xff : (uint8_t)gen_rnd(g);
}

/* --- placing operands ----------------------------------------------------------------------------------------------------- */

/* An offset in the data pages at which the operand is to lie: mostly well inside, sometimes across a boundary or outside. */
uint64_t gen_pick_address(struct generator *g, unsigned align)
{
    unsigned kind = gen_below(g, 100);
    uint64_t at;
    if (kind < 62)
        at = 0x200 + gen_below(g, 0x1a00);
    else if (kind < 78)
        at = 0x1000 - gen_below(g, 18);
    else if (kind < 84)
        at = DATA_WRITABLE - gen_below(g, 18);
    else if (kind < 88)
        at = DATA_WRITABLE + 0x100 + gen_below(g, 0x800);
    else if (kind < 94)
        at = DATA_SIZE - gen_below(g, 18);
    else if (kind < 98)
        return DATA_BASE - gen_below(g, 18);
    else
        return 0x8000000000000000ull +
               gen_below(g, 64); /* not canonical in 64-bit code, elsewhere it wraps to page 0 */
    if (align && gen_below(g, 8))
        at &= ~(uint64_t)(align - 1);
    return DATA_BASE + at;
}

uint32_t gen_window_of(uint64_t ea)
{
    int64_t off = (int64_t)(ea - DATA_BASE) - 96;
    if (ea >> 32 || off < 0)
        return 0;
    return (uint32_t)(off > (int64_t)(DATA_SIZE - WINDOW_SIZE) ? DATA_SIZE - WINDOW_SIZE : off);
}

static uint64_t inverse(uint64_t odd)
{
    uint64_t x = odd;
    for (unsigned i = 0; i < 6; i++)
        x *= 2 - odd * x;
    return x;
}

static unsigned imm_bytes(const struct insn *in)
{
    unsigned n = in->id == INSN_ENTER ? 1 : 0;
    for (unsigned i = 0; i < 3; i++)
        if (in->op[i].kind == OPND_IMM && in->row->op[i] != I1)
            n += in->op[i].size;
    return n;
}

/* Sets registers or patches the displacement so that the memory operand's address is `ea`. */
static bool place_operand(struct generator *g, struct test_case *c, const struct insn *in, uint64_t ea)
{
    const struct mem_operand *m = &in->mem;
    uint64_t *r = c->in.gpr;
    uint64_t index = m->index < 16 ? r[m->index] << m->scale : 0;
    if (in->seg == 5 && in->prefixes & IP_SEG)
        ea -= DATA_BASE; /* GS base */
    if (m->base < 16 && m->base != m->index) {
        r[m->base] = ea - index - (uint64_t)m->disp;
        return true;
    }
    if (m->base < 16) { /* base and index are one register: r * (1 + 2^scale) */
        uint64_t want = ea - (uint64_t)m->disp;
        if (m->scale == 0)
            r[m->base] = want >> 1;
        else
            r[m->base] = want * inverse(1 + (1ull << m->scale));
        return true;
    }
    unsigned size = in->row->op[0] == Ob || in->row->op[0] == Ov || in->row->op[1] == Ob ||
                            in->row->op[1] == Ov
                        ? in->addrsize
                        : 4;
    uint64_t disp = ea;
    if (m->base == MEM_RIP)
        disp = ea - (c->in.rip + in->len);
    else if (m->index < 16) {
        r[m->index] = gen_below(g, 256);
        disp = ea - (r[m->index] << m->scale);
    }
    if (size == 4 && in->addrsize == 8 && (int64_t)disp != (int32_t)disp)
        return false;
    unsigned at = in->len - imm_bytes(in) - size;
    memcpy(c->code + at, &disp, size);
    return true;
}

static bool uses(const struct insn *in, unsigned reg)
{
    return (in->op[0].kind == OPND_MEM || in->op[1].kind == OPND_MEM) &&
           (in->mem.base == reg || in->mem.index == reg);
}

/* A branch into its own bytes could loop for ever on the host. */
static bool inside_itself(const struct test_case *c, uint64_t target)
{
    return target - c->in.rip < c->code_len;
}

static uint64_t code_target(struct generator *g, const struct test_case *c)
{
    uint64_t target = CODE_BASE + 64 + gen_below(g, CODE_SIZE - 128);
    return inside_itself(c, target) ? c->in.rip + c->code_len : target;
}

/* Operands that are not free: addresses in implicit registers, bit offsets that move the address, branch targets, likely divisors. */
static bool settle_implicit(struct generator *g, struct test_case *c, const struct insn *in, uint64_t ea)
{
    uint64_t *r = c->in.gpr;
    bool mem = in->op[0].kind == OPND_MEM;
    r[4] = uses(in, 4)
               ? r[4]
               : DATA_BASE + 0x400 + (gen_below(g, 8) ? gen_below(g, 0x100) * 8 : gen_below(g, 0x1800));
    switch (in->id) {
    case INSN_MOVS:
    case INSN_CMPS:
    case INSN_STOS:
    case INSN_LODS:
    case INSN_SCAS: {
        uint64_t high = in->addrsize == 4 && c->code_bytes == 8 ? gen_rnd(g) << 32 : 0;
        r[6] = (ea + gen_below(g, 64)) | high;
        r[7] = (ea + gen_below(g, 64)) | high;
        r[1] = gen_below(g, 9) | high;
        /* Which operand is read first is the processor's affair: only one may fault. */
        if (in->id == INSN_CMPS) {
            r[in->prefixes & IP_SEG ? 7 : 6 + gen_below(g, 2)] = (DATA_BASE + 0x800 + gen_below(g, 64)) |
                                                                 high;
            c->in.rflags &= ~0x40000ull;
        }
        return true;
    }
    case INSN_XLAT: r[3] = ea - (r[0] & 0xff); return true;
    case INSN_MASKMOVDQU:
        c->in.rflags &= ~0x40000ull; /* no AC: the host checks alignment for some masks only */
        __attribute__((fallthrough));
    case INSN_MASKMOVQ: r[7] = ea; return true;
    case INSN_LEAVE: r[5] = DATA_BASE + 0x800 + gen_below(g, 0x400); return true;
    case INSN_ENTER:
        r[5] = DATA_BASE + 0x800 + gen_below(g, 0x400);
        c->code[in->len - 1] &= gen_below(g, 4) ? 3 : 31;
        c->code[in->len - 2] = 0;
        c->code[in->len - 3] &= 63;
        return true;
    case INSN_BT:
    case INSN_BTS:
    case INSN_BTR:
    case INSN_BTC:
        if (mem && in->op[1].kind == OPND_REG) {
            if (uses(in, in->op[1].reg))
                return false;
            r[in->op[1].reg] = (r[in->op[1].reg] & ~mask_bytes(in->opsize)) |
                               ((gen_below(g, 1024) - 512ull) & mask_bytes(in->opsize));
        }
        return true;
    case INSN_JMP_IND:
    case INSN_CALL_IND: {
        uint64_t target = code_target(g, c);
        if (mem)
            memcpy(c->memory +
                       (ea - DATA_BASE - c->window < WINDOW_SIZE - 8 ? ea - DATA_BASE - c->window : 0),
                   &target, 8);
        else if (in->op[0].reg != 4)
            r[in->op[0].reg] = gen_below(g, 16) ? target : gen_edge(g);
        return in->op[0].reg != 4 || mem;
    }
    case INSN_RET: {
        uint64_t target = gen_below(g, 16) ? code_target(g, c) : gen_edge(g);
        r[4] = DATA_BASE + c->window + 64;
        memcpy(c->memory + 64, &target, 8);
        return true;
    }
    case INSN_LDMXCSR: { /* AMD's hosts allow bit 17 (misaligned SSE), which the shown processor does not have */
        uint64_t at = ea - DATA_BASE - c->window + 2;
        if (at < WINDOW_SIZE)
            c->memory[at] &= 0xfd;
        return true;
    }
    case INSN_POPF: {
        r[4] = DATA_BASE + c->window + 64;
        c->memory[65] &= 0xfe; /* no TF: the trap would be the child's */
        return true;
    }
    case INSN_DIV:
    case INSN_IDIV:
        if (gen_below(g, 4))
            r[2] = in->id == INSN_IDIV && gen_below(g, 2) ? ~0ull : gen_below(g, 16);
        return !uses(in, 2) || true;
    case INSN_CMPXCHG:
        if (gen_below(g, 2) && !mem)
            r[0] = r[in->op[0].reg];
        return true;
    default: return true;
    }
}

/* --- one case ------------------------------------------------------------------------------------------------------------- */

static unsigned put_opcode(struct generator *g, struct test_case *c, const struct cell *cell)
{
    static const uint8_t mandatory[] = { 0, 0, 0x66, 0xf3, 0xf2 };
    const struct insn_row *row = &insn_rows[cell->row];
    unsigned n = 0;
    for (unsigned i = 0; i < 2; i++)
        if (prefix_bytes[cell->prefix].bytes[i])
            c->code[n++] = prefix_bytes[cell->prefix].bytes[i];
    if (mandatory[row->pfx])
        c->code[n++] = mandatory[row->pfx];
    if (prefix_bytes[cell->prefix].rex)
        c->code[n++] = prefix_bytes[cell->prefix].rex | (uint8_t)gen_below(g, 8);
    if (row->map != MAP_1)
        c->code[n++] = 0x0f;
    if (row->map == MAP_0F38 || row->map == MAP_0F3A)
        c->code[n++] = row->map == MAP_0F38 ? 0x38 : 0x3a;
    c->code[n++] = (uint8_t)(row->opcode + (row->flags & IF_PLUSR  ? gen_below(g, 8)
                                            : row->flags & IF_COND ? gen_below(g, 16)
                                                                   : 0));
    return n;
}

static uint8_t pick_modrm(struct generator *g, const struct insn_row *row, bool memory)
{
    uint8_t modrm = (uint8_t)gen_rnd(g);
    modrm = memory ? (uint8_t)((modrm & 0x3f) | gen_below(g, 3) << 6) : modrm | 0xc0;
    if (row->reg >= 0)
        modrm = (uint8_t)((modrm & 0xc7) | row->reg << 3);
    if (IF_RM_GET(row->flags) & 8)
        modrm = (uint8_t)((modrm & 0xf8) | (IF_RM_GET(row->flags) & 7));
    return modrm;
}

bool generate(struct generator *g, unsigned n, struct test_case *c, struct insn *in)
{
    const struct cell *cell = &g->cells[n];
    const struct insn_row *row = &insn_rows[cell->row];
    for (unsigned attempt = 0; attempt < 64; attempt++) {
        for (unsigned i = 0; i < sizeof(c->code); i += 8) {
            uint64_t v = gen_rnd(g);
            memcpy(c->code + i, &v, 8);
        }
        unsigned at = put_opcode(g, c, cell);
        if (!(row->flags & IF_NOMODRM))
            c->code[at] = pick_modrm(g, row, cell->memory);
        if (insn_decode(in, c->code, 15, cell->code_bytes) != DECODE_OK || in->row != row)
            continue;
        c->code_len = in->len;
        c->code_bytes = cell->code_bytes;
        c->cell = n;
        c->touches_fp = row->flags & (IF_X87 | IF_MMX | IF_SSE);
        uint64_t mask = cell->code_bytes == 8 ? ~0ull : 0xffffffffull;
        for (unsigned i = 0; i < 16; i++)
            c->in.gpr[i] = gen_edge(g);
        c->in.rflags = 0x202 | (gen_rnd(g) & 0xcd5) | (gen_below(g, 64) ? 0 : 0x40000);
        c->in.rip = CODE_BASE + 512 + gen_below(g, 64);
        if (!gen_below(g, 16))
            c->in.rip = CODE_BASE + 0x1000 - gen_below(g, in->len + 1u);
        if (row->op[0] == Jz && in->op[0].size == 4) {
            uint32_t rel = gen_below(g, 64) ? gen_below(g, 0xc00) - 256 : (uint32_t)gen_rnd(g);
            memcpy(c->code + in->len - 4, &rel, 4);
        }
        bool mem = in->op[0].kind == OPND_MEM || in->op[1].kind == OPND_MEM;
        bool aligned = row->flags & (IF_AL16 | IF_SSE) || row->id == INSN_CMPXCHG8B;
        uint64_t ea = gen_pick_address(g, aligned ? 16 : 0);
        if (mem && in->mem.base < 16 && in->mem.base == in->mem.index && in->mem.scale == 0)
            ea = (ea & ~1ull) | ((uint64_t)in->mem.disp & 1);
        c->window = gen_window_of(ea);
        gen_fill_vector(g, c->memory, WINDOW_SIZE);
        gen_fill_fp(g, &c->in.fp, row->flags & (IF_X87 | IF_MMX));
        if (!settle_implicit(g, c, in, ea) || (mem && !place_operand(g, c, in, ea)))
            continue;
        for (unsigned i = 0; i < 16; i++)
            c->in.gpr[i] &= i < 8 ? mask : ~0ull;
        if (!mem && !(row->flags & IF_STR) && row->id != INSN_XLAT && row->id != INSN_MASKMOVQ &&
            row->id != INSN_MASKMOVDQU && row->id != INSN_RET && row->id != INSN_POPF)
            c->window = gen_window_of(c->in.gpr[4]);
        if (insn_decode(in, c->code, 15, cell->code_bytes) != DECODE_OK)
            continue;
        if (in->op[0].kind == OPND_REL && inside_itself(c, c->in.rip + in->len + in->imm))
            continue;
        return true;
    }
    return false;
}

uint32_t flags_not_compared(const struct insn *in)
{
    /* These run only in 32-bit code and are computed from the manual's pseudo code; it leaves these flags undefined (SDM 2A). */
    switch (in->id) {
    case INSN_DAA:
    case INSN_DAS: return 0x800; /* OF */
    case INSN_AAA:
    case INSN_AAS: return 0x800 | 0x80 | 0x40 | 0x4; /* OF SF ZF PF */
    case INSN_AAM:
    case INSN_AAD: return 0x800 | 0x10 | 0x1; /* OF AF CF */
    default: return 0;
    }
}
