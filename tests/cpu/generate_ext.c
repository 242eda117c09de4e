/* SPDX-License-Identifier: Apache-2.0 */
/* Making cases of the extensions' rows. See generate.h. */
#include "generate.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

/* What a cell fixes, in its `prefix`. */
enum {
    VARIANT_LL = 3, /* vector length */
    VARIANT_W = 4,  /* W; of an old encoding REX.W */
    VARIANT_B = 8,  /* EVEX.b; of an old encoding 66 */
    VARIANT_K = 16, /* an opmask */
    VARIANT_Z = 32, /* zeroing */
    VARIANTS = 64
};

static bool is_memory_only(const struct insn_row *row) { return row->mod == MM; }

static bool form_exists(const struct insn_row *row, bool memory)
{
    if (row->flags & IF_NOMODRM)
        return !memory;
    return row->mod == MA || memory == is_memory_only(row);
}

static bool length_exists(const struct insn_row *row, unsigned ll)
{
    unsigned most = row->map >= MAP_E0F ? 2 : 1;
    switch ((enum insn_vl)row->vl) {
    case L0: return ll == 0;
    case L1: return ll == 1;
    case L2: return ll == 2;
    case L12: return ll == 1 || ll == 2;
    case LX:
    case LIG: return ll <= most;
    }
    return false;
}

static bool old_variant_exists(const struct insn_row *row, unsigned code_bytes, unsigned v)
{
    bool wide = v & VARIANT_W, p66 = v & VARIANT_B;
    if (v & ~(VARIANT_W | VARIANT_B))
        return false;
    return !(wide && code_bytes != 8) && !(p66 && row->pfx != PNR);
}

static bool variant_exists(const struct insn_row *row, unsigned code_bytes, bool memory, unsigned v)
{
    unsigned w = v & VARIANT_W ? 1 : 0;
    if (row->map <= MAP_0F3A)
        return old_variant_exists(row, code_bytes, v);
    if (row->w != WX && row->w != w)
        return false;
    if (row->map < MAP_E0F)
        return !(v & ~(VARIANT_LL | VARIANT_W)) && length_exists(row, v & VARIANT_LL);
    if ((v & VARIANT_K && !(row->xflags & XF_K)) || (!(v & VARIANT_K) && row->xflags & XF_KN))
        return false;
    if (v & VARIANT_Z && !(row->xflags & XF_Z && v & VARIANT_K))
        return false;
    if (!(v & VARIANT_B))
        return length_exists(row, v & VARIANT_LL);
    if (memory)
        return row->bsize && length_exists(row, v & VARIANT_LL);
    return row->xflags & (XF_ER | XF_SAE);
}

/* A store of memory cannot zero; whether a feature is there depends on the length: the decoder says. */
void generator_init_ext(struct generator *gen, uint64_t seed, uint64_t features)
{
    *gen = (struct generator){ .seed = seed ? seed : 1 };
    gen->cells = calloc((size_t)insn_ext_row_count * 2 * 2 * VARIANTS, sizeof(struct cell));
    for (unsigned r = 0; r < insn_ext_row_count; r++) {
        const struct insn_row *row = &insn_ext_rows[r];
        if (row->flags & (IF_SYS | IF_CPL0) || !(features >> row->feature & 1))
            continue;
        for (unsigned code_bytes = 8; code_bytes >= 4; code_bytes -= 4) {
            if (code_bytes != 8 && row->flags & IF_ONLY64)
                continue;
            for (unsigned form = 0; form < 2; form++)
                for (unsigned v = 0; v < VARIANTS; v++) {
                    struct cell cell = { (uint16_t)r, (uint8_t)code_bytes, (uint8_t)v, form, 0, 0 };
                    struct test_case c;
                    struct insn in;
                    if (!form_exists(row, form) || !variant_exists(row, code_bytes, form, v))
                        continue;
                    gen->cells[gen->ncells] = cell;
                    if (generate_ext(gen, gen->ncells, &c, &in, features))
                        gen->ncells++;
                }
        }
    }
}

/* --- encoding ------------------------------------------------------------------------------------------------------------- */

static const uint8_t pp[] = { [PN] = 0, [P66] = 1, [PF3] = 2, [PF2] = 3 };

static unsigned put_old(struct generator *g, uint8_t *b, const struct insn_row *row, const struct cell *cell)
{
    static const uint8_t mandatory[] = { [PN] = 0, [P66] = 0x66, [PF3] = 0xf3, [PF2] = 0xf2, [PNR] = 0 };
    unsigned n = 0;
    if (cell->prefix & VARIANT_B)
        b[n++] = 0x66;
    if (mandatory[row->pfx])
        b[n++] = mandatory[row->pfx];
    if (cell->code_bytes == 8 && (cell->prefix & VARIANT_W || gen_below(g, 2)))
        b[n++] = (uint8_t)(0x40 | (cell->prefix & VARIANT_W ? 8 : 0) | gen_below(g, 8));
    b[n++] = 0x0f;
    if (row->map != MAP_0F)
        b[n++] = row->map == MAP_0F38 ? 0x38 : 0x3a;
    return n;
}

/* vvvv where no operand is named by it has to be ones. */
static uint8_t vvvv(struct generator *g, const struct insn_row *row, unsigned code_bytes)
{
    bool named = false, mask = false;
    for (unsigned i = 0; i < 3; i++) {
        named |= row->op[i] == Hx || row->op[i] == By || row->op[i] == Kh;
        mask |= row->op[i] == Kh;
    }
    uint8_t v = named ? (uint8_t)gen_below(g, 16) : 15;
    if (code_bytes != 8 || mask)
        v |= 8;
    return (uint8_t)(v << 3);
}

static bool names_mask_in_reg(const struct insn_row *row) { return row->op[0] == Kg || row->op[1] == Kg; }

static unsigned put_vex(struct generator *g, uint8_t *b, const struct insn_row *row, const struct cell *cell)
{
    unsigned n = 0, w = cell->prefix & VARIANT_W ? 0x80 : 0, ll = cell->prefix & VARIANT_LL;
    uint8_t rxb = (uint8_t)(gen_rnd(g) & 0xe0),
            last = (uint8_t)(vvvv(g, row, cell->code_bytes) | ll << 2 | pp[row->pfx]);
    if (cell->code_bytes != 8)
        rxb = 0xe0;
    if (names_mask_in_reg(row))
        rxb |= 0x80;
    if (row->map == MAP_V0F && !w && gen_below(g, 2)) {
        b[n++] = 0xc5;
        b[n++] = (uint8_t)((rxb & 0x80) | last);
        return n;
    }
    b[n++] = 0xc4;
    b[n++] = (uint8_t)(rxb | (row->map - MAP_V0F + 1));
    b[n++] = (uint8_t)(w | last);
    return n;
}

static bool names_gpr(const struct insn_row *row) { return row->op[0] == Gy || row->op[0] == Gd; }

static unsigned put_evex(struct generator *g, uint8_t *b, const struct insn_row *row, const struct cell *cell)
{
    unsigned n = 0, v = cell->prefix;
    bool named = vvvv(g, row, 8) != 15 << 3 || row->op[0] == Hx || row->op[1] == Hx;
    uint8_t high = (uint8_t)(gen_rnd(g) & 0xf0),
            v4 = named || row->op[0] == Xx || row->op[1] == Xx || row->op[0] == Xh || row->op[1] == Xh
                     ? (uint8_t)(gen_rnd(g) & 8)
                     : 8;
    unsigned ll = v & VARIANT_LL;
    if (v & VARIANT_B && !cell->memory) /* rounding mode */
        ll = row->vl == L0 || row->xflags & XF_ER ? gen_below(g, 4) : ll;
    if (cell->code_bytes != 8) {
        high = 0xf0;
        v4 = 8;
    }
    if (names_mask_in_reg(row) || names_gpr(row))
        high |= names_gpr(row) ? 0x10 : 0x90;
    b[n++] = 0x62;
    b[n++] = (uint8_t)(high | (row->map - MAP_E0F + 1));
    b[n++] = (uint8_t)((v & VARIANT_W ? 0x80 : 0) | vvvv(g, row, cell->code_bytes) | 4 | pp[row->pfx]);
    b[n++] = (uint8_t)((v & VARIANT_Z ? 0x80 : 0) | ll << 5 | (v & VARIANT_B ? 0x10 : 0) | v4 |
                       (v & VARIANT_K ? 1 + gen_below(g, 7) : 0));
    return n;
}

static void put_code(struct generator *g, struct test_case *c, const struct insn_row *row,
                     const struct cell *cell)
{
    unsigned n = row->map >= MAP_E0F   ? put_evex(g, c->code, row, cell)
                 : row->map >= MAP_V0F ? put_vex(g, c->code, row, cell)
                                       : put_old(g, c->code, row, cell);
    c->code[n++] = row->opcode;
    if (row->flags & IF_NOMODRM)
        return;
    uint8_t modrm = (uint8_t)gen_rnd(g);
    modrm = cell->memory ? (uint8_t)((modrm & 0x3f) | gen_below(g, 3) << 6) : modrm | 0xc0;
    if (row->reg >= 0)
        modrm = (uint8_t)((modrm & 0xc7) | row->reg << 3);
    if (row->op[0] == Xx || row->op[1] == Xx || row->op[0] == Xh || row->op[1] == Xh)
        modrm = (uint8_t)((modrm & 0xf8) | 4);
    c->code[n] = modrm;
}

/* --- placing operands ----------------------------------------------------------------------------------------------------- */

static uint8_t *vector_piece(struct fp_image *f, unsigned reg, unsigned at)
{
    if (reg >= 16)
        return f->zmm16[reg - 16] + at;
    return at < 16 ? f->xmm[reg] + at : at < 32 ? f->ymmh[reg] + at - 16 : f->zmmh[reg] + at - 32;
}

/* Indices that keep most elements near the base, now and then one far away. */
static void place_indices(struct generator *g, struct test_case *c, const struct insn *in)
{
    unsigned size = in->row->opcode & 1 ? 8 : 4;
    for (unsigned at = 0; at < in->vsib; at += size) {
        int64_t index = (int64_t)gen_below(g, 64) - 32;
        if (!gen_below(g, 64))
            index = gen_below(g, 2) ? 2048 : (int64_t)gen_rnd(g);
        memcpy(vector_piece(&c->in.fp, in->mem.index, at), &index, size);
    }
}

static unsigned imm_bytes(const struct insn *in)
{
    if (in->row->op4 == Lx || in->op4.kind == OPND_IMM)
        return 1;
    return in->op[1].kind == OPND_IMM || in->op[2].kind == OPND_IMM;
}

static bool place_memory(struct generator *g, struct test_case *c, const struct insn *in, uint64_t ea)
{
    const struct mem_operand *m = &in->mem;
    uint64_t *r = c->in.gpr;
    if (in->vsib)
        place_indices(g, c, in);
    uint64_t index = m->index < 16 && !in->vsib ? r[m->index] << m->scale : 0;
    if (m->base < 16 && (m->base != m->index || in->vsib)) {
        r[m->base] = ea - index - (uint64_t)m->disp;
        return true;
    }
    if (m->base < 16)
        return false; /* base and index are one register: test_native has these */
    uint64_t disp = m->base == MEM_RIP ? ea - (c->in.rip + in->len) : ea;
    if (m->index < 16 && !in->vsib && m->base != MEM_RIP) {
        r[m->index] = gen_below(g, 256);
        disp = ea - (r[m->index] << m->scale);
    }
    if (in->addrsize == 8 && (int64_t)disp != (int32_t)disp)
        return false;
    memcpy(c->code + in->len - imm_bytes(in) - 4, &disp, 4);
    return true;
}

static void settle_implicit(struct test_case *c, const struct insn *in, uint64_t ea)
{
    if (in->mask) /* under an opmask some instructions check alignment by element, some not at all */
        c->in.rflags &= ~0x40000ull;
    if (in->id == INSN_VMASKMOVDQU) {
        c->in.gpr[7] = ea;
        c->in.rflags &= ~0x40000ull; /* the host checks alignment for some masks only */
    }
    if (in->id == INSN_VLDMXCSR) { /* AMD's hosts allow bit 17, which the shown processor does not have */
        uint64_t at = ea - DATA_BASE - c->window + 2;
        if (at < WINDOW_SIZE)
            c->memory[at] &= 0xfd;
    }
}

static void fill_wide(struct generator *g, struct fp_image *f)
{
    gen_fill_vector(g, f->ymmh[0], sizeof(f->ymmh));
    gen_fill_vector(g, f->zmmh[0], sizeof(f->zmmh));
    gen_fill_vector(g, f->zmm16[0], sizeof(f->zmm16));
    for (unsigned i = 0; i < 8; i++)
        f->k[i] = gen_below(g, 4) ? gen_rnd(g) : gen_edge(g);
}

static bool has_memory(const struct insn *in)
{
    return in->op[0].kind == OPND_MEM || in->op[1].kind == OPND_MEM || in->op[2].kind == OPND_MEM;
}

static bool try_once(struct generator *g, const struct cell *cell, struct test_case *c, struct insn *in,
                     uint64_t features)
{
    const struct insn_row *row = &insn_ext_rows[cell->row];
    for (unsigned i = 0; i < sizeof(c->code); i += 8) {
        uint64_t v = gen_rnd(g);
        memcpy(c->code + i, &v, 8);
    }
    put_code(g, c, row, cell);
    if (insn_decode_for(in, c->code, 15, cell->code_bytes, features) != DECODE_OK || in->row != row)
        return false;
    if (in->id == INSN_KMOVQ && cell->code_bytes != 8 && in->op[0].kind == OPND_REG && in->op[0].reg == 4)
        return false; /* it writes 64 bits; of RSP half is lost on the way to the child's handler */
    uint64_t mask = cell->code_bytes == 8 ? ~0ull : 0xffffffffull;
    bool mem = has_memory(in);
    c->code_len = in->len;
    c->code_bytes = cell->code_bytes;
    c->touches_fp = true;
    for (unsigned i = 0; i < 16; i++)
        c->in.gpr[i] = gen_edge(g);
    c->in.rflags = 0x202 | (gen_rnd(g) & 0xcd5) | (gen_below(g, 64) ? 0 : 0x40000);
    c->in.rip = CODE_BASE + 512 + gen_below(g, 64);
    uint64_t ea = gen_pick_address(g, row->flags & IF_AL16 ? in->vl ? in->vl : 16 : gen_below(g, 2) ? 8 : 0);
    c->window = gen_window_of(ea);
    gen_fill_vector(g, c->memory, WINDOW_SIZE);
    gen_fill_fp(g, &c->in.fp, false);
    fill_wide(g, &c->in.fp);
    settle_implicit(c, in, ea);
    if (mem && !place_memory(g, c, in, ea))
        return false;
    for (unsigned i = 0; i < 16; i++)
        c->in.gpr[i] &= i < 8 ? mask : ~0ull;
    return insn_decode_for(in, c->code, 15, cell->code_bytes, features) == DECODE_OK && in->row == row;
}

bool generate_ext(struct generator *g, unsigned n, struct test_case *c, struct insn *in, uint64_t features)
{
    for (unsigned attempt = 0; attempt < 64; attempt++) {
        if (!try_once(g, &g->cells[n], c, in, features))
            continue;
        c->cell = n;
        return true;
    }
    return false;
}
