/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making programs. A program is a list of items; each is made by one of the emitters of a table, chosen by weight.
 * Jumps name items; their places are filled in when all items are there.
 */
#include "sequence.h"

#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/state.h"
#include "disasm.h"
#include "isa/insn.h"

/* --- numbers ---------------------------------------------------------------------------------------------------- */

uint64_t random_next(struct random *r)
{
    r->x ^= r->x << 13;
    r->x ^= r->x >> 7;
    return r->x ^= r->x << 17;
}

uint64_t random_below(struct random *r, uint64_t n) { return (random_next(r) >> 16) % n; }

uint64_t random_edge(struct random *r)
{
    static const uint64_t edges[] = {
        0,
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
        0x80000000u,
        0xffffffffu,
        0x100000000ull,
        INT64_MAX,
        1ull << 63,
        ~0ull,
        ~0ull - 1,
        0x8000000000000001ull,
    };
    uint64_t x = random_next(r);
    switch (x >> 61) {
    case 0:
    case 1: return edges[random_below(r, array_size(edges))];
    case 2: return 1ull << (x & 63);
    case 3: return (uint64_t)(int64_t)(int8_t)x;
    case 4: return x & 0xffff;
    case 5: return x & 0xffffffffu;
    default: return random_next(r);
    }
}

static uint32_t single(struct random *r)
{
    static const uint32_t edges[] = { 0,           0x80000000u, 0x3f800000u, 0xbf800000u,
                                      0x7f800000u, 0xff800000u, 0x7fc00000u, 0x7f800001u,
                                      1,           0x7fffffu,   0x800000u,   0x7f7fffffu,
                                      0x4f000000u, 0xcf000000u, 0x5f000000u, 0x40490fdbu };
    return random_below(r, 3) ? edges[random_below(r, array_size(edges))] : (uint32_t)random_next(r);
}

static uint64_t twofold(struct random *r)
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
                                      0x10000000000000,
                                      0x7fefffffffffffff,
                                      0x41e0000000000000,
                                      0x43e0000000000000,
                                      0x400921fb54442d18 };
    return random_below(r, 3) ? edges[random_below(r, array_size(edges))] : random_next(r);
}

void random_vector(struct random *r, uint8_t *out, unsigned bytes)
{
    for (unsigned i = 0; i + 8 <= bytes; i += 8) {
        uint64_t kind = random_below(r, 4);
        uint64_t v = kind == 0   ? random_next(r)
                     : kind == 1 ? twofold(r)
                     : kind == 2 ? single(r) | (uint64_t)single(r) << 32
                                 : random_edge(r);
        memcpy(out + i, &v, 8);
    }
}

uint64_t place_pointer(const struct place *p, struct random *r)
{
    uint64_t kind = random_below(r, 32);
    uint64_t at = p->data + random_below(r, (uint64_t)p->data_pages * PAGE_SIZE);
    if (kind < 8) /* across a page's end */
        at = (at | PAGE_OFFSET_MASK) - random_below(r, 18);
    else if (kind < 20) /* in the first page, aligned: what most code does */
        at = p->data + 16 * random_below(r, PAGE_SIZE / 16);
    else if (kind == 20)
        at = p->data - random_below(r, 20);
    else if (kind == 21 && !p->native)
        at = p->code + random_below(r, 128);
    else if (kind == 22 && p->code_bytes == 8)
        at = (1ull << 47) - random_below(r, 40) + 16;
    else if (kind == 23)
        at = random_edge(r);
    return at & (p->code_bytes == 8 ? ~0ull : p->code_bytes == 4 ? 0xffffffffull : 0xffffull);
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

enum fix_kind { FIX_RELATIVE, FIX_RIP, FIX_STORE };

/* A field that names an item. */
struct fix {
    uint16_t at, item;
    uint8_t size, kind;
    int16_t add;
};

#define FIXES_MAX 128u
/* Bytes that one item takes at most. */
#define ITEM_ROOM 192u

struct maker {
    struct sequence *s;
    const struct place *p;
    struct random *r;
    unsigned n;
    struct fix fix[FIXES_MAX];
    unsigned fixes;
};

static uint64_t below(struct maker *m, uint64_t n) { return random_below(m->r, n); }

static void byte(struct maker *m, unsigned b) { m->s->code[m->n++] = (uint8_t)b; }

static void bytes(struct maker *m, uint64_t v, unsigned n)
{
    memcpy(m->s->code + m->n, &v, n);
    m->n += n;
}

static unsigned native_size(const struct maker *m) { return m->p->code_bytes == 2 ? 2 : 4; }

/* A field of `size` bytes for the place of an item. */
static void name_item(struct maker *m, unsigned item, unsigned size, enum fix_kind kind, int add)
{
    if (m->fixes < FIXES_MAX)
        m->fix[m->fixes++] = (struct fix){ (uint16_t)m->n, (uint16_t)item, (uint8_t)size, (uint8_t)kind,
                                           (int16_t)add };
    bytes(m, 0, size);
}

static unsigned some_item(struct maker *m) { return (unsigned)below(m, m->s->items + 1u); }

/* An item behind the present one, mostly: programs shall end. */
static unsigned jump_target(struct maker *m, unsigned now)
{
    return below(m, 4) ? now + 1 + (unsigned)below(m, m->s->items - now) : some_item(m);
}

static void rex_b(struct maker *m, unsigned reg, bool wide)
{
    unsigned rex = 0x40 | (wide ? 8 : 0) | reg >> 3;
    if (rex != 0x40)
        byte(m, rex);
}

static void mov_imm(struct maker *m, unsigned reg, uint64_t v)
{
    bool wide = m->p->code_bytes == 8 && v >> 32;
    rex_b(m, reg, wide);
    byte(m, 0xb8 | (reg & 7));
    bytes(m, v, wide ? 8 : native_size(m));
}

/* MOV reg, offset of an item in CS. */
static void mov_item(struct maker *m, unsigned reg, unsigned item)
{
    rex_b(m, reg, false);
    byte(m, 0xb8 | (reg & 7));
    name_item(m, item, native_size(m), FIX_RIP, 0);
}

static void push_imm(struct maker *m, uint32_t v)
{
    byte(m, 0x68);
    bytes(m, v, native_size(m));
}

static void push_item(struct maker *m, unsigned item)
{
    byte(m, 0x68);
    name_item(m, item, native_size(m), FIX_RIP, 0);
}

/* ModRM for a plain displacement, and the displacement. */
static void absolute(struct maker *m, unsigned reg, uint64_t disp)
{
    if (m->p->code_bytes == 2) {
        byte(m, reg << 3 | 6);
        bytes(m, disp, 2);
    } else if (m->p->code_bytes == 4) {
        byte(m, reg << 3 | 5);
        bytes(m, disp, 4);
    } else {
        byte(m, reg << 3 | 4);
        byte(m, 0x25);
        bytes(m, disp, 4);
    }
}

static unsigned some_register(struct maker *m)
{
    for (;;) {
        unsigned reg = (unsigned)below(m, m->p->code_bytes == 8 ? 16 : 8);
        if (reg != RSP)
            return reg;
    }
}

/* --- a row of the table -------------------------------------------------------------------------------------------- */

/* What would end the program for good, or is rarely worth while. */
static bool is_drastic(const struct insn_row *row)
{
    switch (row->id) {
    case INSN_MOV_TO_CR:
    case INSN_LMSW:
    case INSN_LIDT:
    case INSN_LGDT:
    case INSN_LLDT:
    case INSN_LTR:
    case INSN_XSETBV:
    case INSN_MOV_TO_DR:
    case INSN_WRMSR: return true;
    default: return false;
    }
}

/* What the host's processor or kernel does otherwise than the processor shown, or what the manual leaves open. */
static bool not_native(const struct insn_row *row)
{
    switch (row->id) {
    case INSN_POPF:    /* TF would be the child's */
    case INSN_LDMXCSR: /* AMD's hosts allow bit 17 */
    case INSN_MASKMOVDQU:
    case INSN_MASKMOVQ:
    case INSN_DAA: /* undefined flags, not run on a 64-bit host */
    case INSN_DAS:
    case INSN_AAA:
    case INSN_AAS:
    case INSN_AAM:
    case INSN_AAD: return true;
    default: return row->flags & (IF_SYS | IF_CPL0);
    }
}

static bool exists(const struct maker *m, const struct insn_row *row)
{
    return m->p->features >> row->feature & 1 && !(row->flags & (IF_SYS | IF_CPL0)) &&
           !(row->flags & (m->p->code_bytes == 8 ? IF_NO64 : IF_ONLY64));
}

static const struct insn_row *pick_row(struct maker *m)
{
    while (m->p->features && below(m, 2)) {
        const struct insn_row *row = &insn_ext_rows[below(m, insn_ext_row_count)];
        if (exists(m, row))
            return row;
    }
    for (;;) {
        const struct insn_row *row = &insn_rows[below(m, insn_row_count)];
        if (row->flags & (m->p->code_bytes == 8 ? IF_NO64 : IF_ONLY64))
            continue;
        if (row->id == INSN_HLT || (m->p->native && not_native(row)))
            continue;
        if (is_drastic(row) && below(m, 24))
            continue;
        /* Half of the rows are SIMD and x87: too many to leave room for the rest. */
        if (row->flags & (IF_X87 | IF_MMX | IF_SSE) && below(m, 2))
            continue;
        return row;
    }
}

static unsigned legacy_prefix(struct maker *m, const struct insn_row *row, bool memory)
{
    static const uint8_t any[] = { 0x66, 0xf3, 0xf2, 0xf0, 0x67, 0x2e, 0x36, 0x65, 0x64, 0x26 };
    if (!m->p->native)
        return below(m, 6) ? 0 : any[below(m, array_size(any))];
    if (row->flags & IF_STR && below(m, 2))
        return below(m, 2) ? 0xf3 : 0xf2;
    if (row->flags & IF_LOCK && memory && !below(m, 4))
        return 0xf0;
    if (row->pfx == PX && !(row->flags & (IF_F64 | IF_X87 | IF_MMX)) && !below(m, 6))
        return 0x66;
    return memory && m->p->code_bytes == 8 && !below(m, 16) ? 0x65 : 0;
}

/* VEX with three bytes, or EVEX. Fields that have to be something are that as often as not. */
static void encode_vex(struct maker *m, const struct insn_row *row)
{
    static const uint8_t pp[] = { [PN] = 0, [P66] = 1, [PF3] = 2, [PF2] = 3 };
    bool evex = row->map >= MAP_E0F, wide = m->p->code_bytes == 8;
    unsigned map = row->map - (evex ? MAP_E0F : MAP_V0F) + 1u,
             w = row->w == WX ? (unsigned)below(m, 2) : row->w;
    unsigned vvvv = below(m, 2) ? 15 : (unsigned)below(m, 16);
    unsigned rxb = wide ? (unsigned)below(m, evex ? 16 : 8) << (evex ? 4 : 5) : 0xf0;
    byte(m, evex ? 0x62 : 0xc4);
    byte(m, (evex ? rxb : rxb & 0xe0) | map);
    if (!evex) {
        byte(m, w << 7 | vvvv << 3 | (unsigned)below(m, 2) << 2 | pp[row->pfx]);
        return;
    }
    byte(m, w << 7 | vvvv << 3 | 4 | pp[row->pfx]);
    unsigned mask = below(m, 2) ? (unsigned)below(m, 8) : 0;
    byte(m, (mask && !below(m, 3) ? 0x80u : 0) | (unsigned)below(m, 3) << 5 | (below(m, 4) ? 0 : 0x10u) |
                (wide && !below(m, 4) ? 0 : 8u) | mask);
}

static void encode_old(struct maker *m, const struct insn_row *row, bool memory)
{
    static const uint8_t mandatory[] = {
        [PX] = 0, [PN] = 0, [P66] = 0x66, [PF3] = 0xf3, [PF2] = 0xf2, [PNR] = 0
    };
    unsigned prefix = row->pfx == PX || row->flags & IF_LOCK ? legacy_prefix(m, row, memory) : 0;
    if (prefix)
        byte(m, prefix);
    if (mandatory[row->pfx])
        byte(m, mandatory[row->pfx]);
    if (m->p->code_bytes == 8 && below(m, 2))
        byte(m, 0x40 | (unsigned)below(m, 16));
    if (row->map != MAP_1)
        byte(m, 0x0f);
    if (row->map >= MAP_0F38)
        byte(m, row->map == MAP_0F38 ? 0x38 : 0x3a);
}

/* The encoding of a row with a random rest; its length is the decoder's affair. */
static void encode(struct maker *m, const struct insn_row *row)
{
    bool memory = row->mod == MM || (row->mod == MA && below(m, 2));
    if (row->map >= MAP_V0F)
        encode_vex(m, row);
    else
        encode_old(m, row, memory);
    byte(m, row->opcode + (row->flags & IF_PLUSR  ? (unsigned)below(m, 8)
                           : row->flags & IF_COND ? (unsigned)below(m, 16)
                                                  : 0));
    if (!(row->flags & IF_NOMODRM)) {
        unsigned mod = memory ? (unsigned)below(m, 8) / 3 : 3;
        unsigned reg = row->reg < 0 ? (unsigned)below(m, 8) : (unsigned)row->reg;
        unsigned rm = IF_RM_GET(row->flags) & 8 ? IF_RM_GET(row->flags) & 7 : (unsigned)below(m, 8);
        byte(m, mod << 6 | reg << 3 | rm);
    }
    /* SIB, displacement and immediate: numbers that are small as often as not. */
    for (unsigned i = 0; i < 3; i++) {
        uint64_t v = below(m, 2) ? random_next(m->r) : random_next(m->r) & 0x1f0000000f0f3full;
        memcpy(m->s->code + m->n + 8 * i, &v, 8);
    }
}

static unsigned imm_bytes(const struct insn *in)
{
    unsigned n = in->id == INSN_ENTER || in->row->op4 == Ib || in->row->op4 == Lx ? 1 : 0;
    for (unsigned i = 0; i < 3; i++)
        if (in->op[i].kind == OPND_IMM && in->row->op[i] != I1)
            n += in->op[i].size;
    return n;
}

static bool has_memory(const struct insn *in)
{
    return in->op[0].kind == OPND_MEM || in->op[1].kind == OPND_MEM || in->op[2].kind == OPND_MEM;
}

static bool is_offset(const struct insn *in)
{
    return in->row->op[0] == Ob || in->row->op[0] == Ov || in->row->op[1] == Ob || in->row->op[1] == Ov;
}

/* Loads the registers that address the operand, or patches its displacement. `code`: the encoded instruction, which
 * goes behind what is emitted here. */
static void aim(struct maker *m, const struct insn *in, uint8_t *code)
{
    const struct mem_operand *mem = &in->mem;
    uint64_t to = place_pointer(m->p, m->r);
    if (mem->base == MEM_NO_REG || mem->base == MEM_RIP) {
        unsigned size = is_offset(in) ? in->addrsize : in->addrsize == 2 ? 2 : 4;
        uint64_t disp = mem->base == MEM_RIP ? to - (m->p->code + m->n + in->len) : to;
        memcpy(code + in->len - imm_bytes(in) - size, &disp, size);
    } else if (mem->base != RSP) {
        mov_imm(m, mem->base, to - (uint64_t)mem->disp);
    }
    if (mem->index < 16 && !in->vsib && mem->index != mem->base && mem->index != RSP)
        mov_imm(m, mem->index, below(m, 4));
}

static void aim_string(struct maker *m)
{
    mov_imm(m, RSI, place_pointer(m->p, m->r));
    mov_imm(m, RDI, place_pointer(m->p, m->r));
    mov_imm(m, RCX, below(m, 8) ? below(m, 20) : random_edge(m->r) & 0xfff);
}

static bool writes_stack_pointer(const struct insn *in)
{
    return in->op[0].kind == OPND_REG && in->op[0].reg == RSP && !(in->row->flags & IF_RO) &&
           in->id != INSN_PUSH && in->op[0].size > 1;
}

/* Where a branch out of the table goes: into the program. */
static void settle_branch(struct maker *m, const struct insn *in, unsigned now)
{
    unsigned size = in->op[0].kind == OPND_REL ? in->op[0].size : 0;
    if (!size || !below(m, 8))
        return;
    m->n -= size;
    name_item(m, jump_target(m, now), size, FIX_RELATIVE, 0);
}

static void emit_row(struct maker *m, unsigned now)
{
    struct insn in;
    uint8_t code[40];
    const struct insn_row *row;
    unsigned begin = m->n;
    for (;;) {
        row = pick_row(m);
        encode(m, row);
        m->n = begin;
        bool good = insn_decode_for(&in, m->s->code + begin, 15, m->p->code_bytes, m->p->features) ==
                        DECODE_OK &&
                    in.row == row;
        if (!good && !m->p->native && !below(m, 16)) { /* #UD is a result, too */
            m->n = begin + 3;
            return;
        }
        if (good && !(writes_stack_pointer(&in) && (m->p->native || below(m, 16))) &&
            !(m->p->native && in.prefixes & IP_SEG && in.seg != SEG_GS))
            break;
    }
    memcpy(code, m->s->code + begin, in.len);
    if (has_memory(&in) && below(m, 5))
        aim(m, &in, code);
    else if (row->flags & IF_STR && below(m, 8))
        aim_string(m);
    else if (row->id == INSN_XLAT || row->id == INSN_MASKMOVDQU || row->id == INSN_MASKMOVQ)
        mov_imm(m, row->id == INSN_XLAT ? RBX : RDI, place_pointer(m->p, m->r));
    memcpy(m->s->code + m->n, code, in.len);
    m->n += in.len;
    settle_branch(m, &in, now);
}

/* --- control flow ---------------------------------------------------------------------------------------------------- */

static void emit_jump(struct maker *m, unsigned now)
{
    unsigned target = jump_target(m, now);
    switch (below(m, 8)) {
    case 0: byte(m, 0xe9); break;
    case 1: byte(m, 0xe8); break;
    case 2: /* LOOP and kin, JCXZ */
        byte(m, 0xe0 | (unsigned)below(m, 4));
        name_item(m, target, 1, FIX_RELATIVE, 0);
        return;
    case 3:
        byte(m, 0x70 | (unsigned)below(m, 16));
        name_item(m, target, 1, FIX_RELATIVE, 0);
        return;
    default: byte(m, 0x0f); byte(m, 0x80 | (unsigned)below(m, 16));
    }
    name_item(m, target, native_size(m), FIX_RELATIVE, 0);
}

static void emit_indirect(struct maker *m, unsigned now)
{
    unsigned target = jump_target(m, now), reg = some_register(m);
    if (below(m, 2)) {
        push_item(m, target);
        byte(m, 0xc3);
        return;
    }
    mov_item(m, reg, target);
    rex_b(m, reg, false);
    byte(m, 0xff);
    byte(m, 0xc0 | (below(m, 2) ? 4u : 2u) << 3 | (reg & 7));
}

/* A subroutine: called, it does one row and returns; fallen into, it is jumped over. */
static void emit_call(struct maker *m, unsigned now)
{
    byte(m, 0xe8); /* call over the jump */
    bytes(m, m->p->code_bytes == 2 ? 3 : 5, native_size(m));
    byte(m, 0xe9);
    name_item(m, now + 1, native_size(m), FIX_RELATIVE, 0);
    emit_row(m, now);
    byte(m, 0xc3);
}

/* A counted loop of rows. */
static void emit_loop(struct maker *m, unsigned now)
{
    mov_imm(m, RCX, 1 + below(m, 60));
    unsigned top = m->n;
    emit_row(m, now);
    if (m->n - top < 60)
        emit_row(m, now);
    byte(m, 0xe2);
    byte(m, (unsigned)(top - (m->n + 1)));
}

/* --- stack and flags ---------------------------------------------------------------------------------------------------- */

static void emit_stack(struct maker *m, unsigned now)
{
    (void)now;
    unsigned from = some_register(m), to = some_register(m);
    if (below(m, 3))
        push_imm(m, (uint32_t)random_edge(m->r));
    else {
        rex_b(m, from, false);
        byte(m, 0x50 | (from & 7));
    }
    if (below(m, 4)) {
        rex_b(m, to, false);
        byte(m, 0x58 | (to & 7));
    }
}

static void emit_flags(struct maker *m, unsigned now)
{
    (void)now;
    uint32_t flags = (uint32_t)random_next(m->r) & (FL_STATUS | FL_DF | (m->p->native ? 0 : FL_ID));
    if (!below(m, 16))
        flags |= FL_AC;
    if (!m->p->native)
        flags |= (below(m, 6) ? 0 : FL_TF) | (below(m, 4) ? 0 : FL_NT) | (below(m, 2) ? FL_IF : 0) |
                 (below(m, 4) ? 0 : FL_IOPL & (uint32_t)random_next(m->r));
    if (below(m, 3))
        flags &= ~FL_DF;
    push_imm(m, flags);
    byte(m, 0x9d);
}

static void emit_alu(struct maker *m)
{
    static const uint8_t base[] = { RBX, RSI, RDI }, rm16[] = { 7, 4, 5 };
    unsigned op = (unsigned)below(m, 3) ? 7 : (unsigned)below(m, 8), form = (unsigned)below(m, 4);
    unsigned reg = (unsigned)below(m, 8), i = (unsigned)below(m, 3), rex = 0x48 | (unsigned)below(m, 2) << 2;
    bool memory = below(m, 2), test = !below(m, 4), wide = m->p->code_bytes == 8 && below(m, 2);
    if (memory)
        mov_imm(m, base[i], place_pointer(m->p, m->r));
    if (reg == RSP && (form & 2 || !memory))
        reg = RAX;
    if (wide)
        byte(m, rex);
    byte(m, test ? 0x84 | (form & 1) : op << 3 | form);
    if (memory)
        byte(m, reg << 3 | (m->p->code_bytes == 2 ? rm16[i] : base[i]));
    else
        byte(m, 0xc0 | reg << 3 | (reg + 1 == RSP ? RAX : (reg + 1) & 7));
}

/* An operation whose flags are looked at soon after it. */
static void emit_flags_used(struct maker *m, unsigned now)
{
    unsigned cond = (unsigned)below(m, 16), reg = some_register(m) & 7;
    emit_alu(m);
    if (!below(m, 4))
        mov_imm(m, RDX, random_edge(m->r));
    reg = reg == RSP ? RAX : reg;
    switch (below(m, 8)) {
    case 0: /* setcc */ bytes(m, 0xc0900f | cond << 8 | reg << 16, 3); return;
    case 1: /* cmovcc */ bytes(m, 0xc0400f | cond << 8 | reg << 19 | (reg ^ 1) << 16, 3); return;
    case 2: /* adc, sbb */ bytes(m, 0xc011 | (cond & 1) << 3 | reg << 8, 2); return;
    case 3: byte(m, cond & 1 ? 0x9f : 0xf5); return; /* lahf, cmc */
    default:
        byte(m, 0x0f);
        byte(m, 0x80 | cond);
        name_item(m, jump_target(m, now), native_size(m), FIX_RELATIVE, 0);
    }
}

/* MXCSR from the stack: rounding, and exceptions unmasked now and then. */
static void emit_mxcsr(struct maker *m, unsigned now)
{
    (void)now;
    uint32_t v = 0x1f80 | ((uint32_t)random_next(m->r) & 0xe040);
    if (!below(m, 4))
        v &= ~((uint32_t)random_next(m->r) & 0x1f80);
    push_imm(m, v);
    if (m->p->code_bytes == 2) {
        byte(m, 0x58 | RAX);
        return;
    }
    bytes(m, 0x2414ae0f, 4); /* ldmxcsr [esp] */
    byte(m, 0x58 | RAX);
}

/* --- its own code ------------------------------------------------------------------------------------------------------------ */

/* A store to an instruction of the program: its first bytes, or some behind them. */
static void emit_store_code(struct maker *m, unsigned now)
{
    static const uint8_t opcodes[] = {
        0x90, 0x40, 0x48, 0xf8, 0xf9, 0xf5, 0xcc, 0xc3, 0x01, 0x29, 0xeb, 0x74
    };
    unsigned wide = (unsigned)below(m, 2);
    unsigned item = below(m, 2) ? jump_target(m, now) : some_item(m);
    byte(m, 0xc6 | wide);
    absolute(m, 0, 0);
    m->n -= native_size(m);
    name_item(m, item, native_size(m), FIX_STORE, below(m, 2) ? 0 : (int)below(m, 12));
    uint64_t v = opcodes[below(m, array_size(opcodes))] | random_next(m->r) << 8;
    if (!below(m, 3))
        v = random_next(m->r);
    bytes(m, v, wide ? native_size(m) : 1);
}

/* --- the supervisor's ---------------------------------------------------------------------------------------------------------- */

/* XOR of some bits of a control register, or the register written back as it is. */
static void emit_control(struct maker *m, unsigned now)
{
    static const struct {
        uint8_t cr;
        uint64_t bits;
    } bits[] = {
        { 0, CR0_TS },     { 0, CR0_EM },
        { 0, CR0_MP },     { 0, CR0_WP },
        { 0, CR0_AM },     { 0, CR0_NE },
        { 4, CR4_TSD },    { 4, CR4_DE },
        { 4, CR4_OSFXSR }, { 4, CR4_OSXMMEXCPT },
        { 4, CR4_PGE },    { 4, CR4_PCE },
        { 4, CR4_UMIP },   { 4, CR4_FSGSBASE },
        { 4, CR4_SMAP },   { 4, CR4_SMEP },
        { 3, 0 },          { 3, 0 },
        { 0, 0 },          { 4, 0 },
    };
    (void)now;
    unsigned i = (unsigned)below(m, array_size(bits));
    byte(m, 0x0f);
    byte(m, 0x20);
    byte(m, 0xc0 | bits[i].cr << 3);
    if (m->p->code_bytes == 2)
        byte(m, 0x66);
    byte(m, 0x35); /* xor eax, imm32 */
    bytes(m, bits[i].bits, 4);
    byte(m, 0x0f);
    byte(m, 0x22);
    byte(m, 0xc0 | bits[i].cr << 3);
}

/* A data page's entry changed, then flushed. */
static void emit_table(struct maker *m, unsigned now)
{
    (void)now;
    if (!m->p->table) {
        byte(m, 0x90);
        return;
    }
    unsigned page = (unsigned)below(m, m->p->data_pages), from = (unsigned)below(m, m->p->data_pages);
    uint32_t entry = (m->p->frame[from] & ~0x67u) | (below(m, 8) ? 1u : 0) |
                     (uint32_t)(random_next(m->r) & 0x66);
    byte(m, 0xc7);
    absolute(m, 0, m->p->table + page * m->p->entry);
    bytes(m, entry, native_size(m));
    byte(m, 0x0f);
    byte(m, 0x01);
    absolute(m, 7, m->p->data + page * PAGE_SIZE);
}

/* Model-specific registers that programs of this length may meet. */
static void emit_msr(struct maker *m, unsigned now)
{
    static const uint32_t msrs[] = { 0xc0000100u, 0xc0000101u, 0xc0000102u, 0xc0000080u, 0x10, 0x277, 0x1d9 };
    (void)now;
    unsigned i = (unsigned)below(m, array_size(msrs));
    mov_imm(m, RCX, msrs[i]);
    byte(m, 0x0f);
    byte(m, 0x32);
    if (i < 3)
        mov_imm(m, RAX, place_pointer(m->p, m->r) & 0xffffffffu);
    else if (i == 3) {
        if (m->p->code_bytes == 2)
            byte(m, 0x66);
        byte(m, 0x35);
        bytes(m, below(m, 2) ? EFER_SCE : EFER_NXE, 4);
    }
    byte(m, 0x0f);
    byte(m, 0x30);
}

/* A breakpoint on data or on an instruction, mostly not for long. */
static void emit_breakpoint(struct maker *m, unsigned now)
{
    unsigned n = (unsigned)below(m, 4);
    if (below(m, 2))
        mov_item(m, RAX, jump_target(m, now));
    else
        mov_imm(m, RAX, place_pointer(m->p, m->r));
    byte(m, 0x0f);
    byte(m, 0x23);
    byte(m, 0xc0 | n << 3);
    mov_imm(m, RAX, below(m, 2) ? 2ull << 2 * n | below(m, 16) << (16 + 4 * n) : 0x400);
    byte(m, 0x0f);
    byte(m, 0x23);
    byte(m, 0xc0 | 7 << 3);
}

/* To an item by IRET, far return or a software interrupt: other privilege, other code size. */
static void emit_transfer(struct maker *m, unsigned now)
{
    unsigned target = jump_target(m, now), i = m->p->sels ? (unsigned)below(m, m->p->sels) : 0;
    if (!m->p->sels || !below(m, 3)) {
        byte(m, 0xcd);
        byte(m, 0x20 + (unsigned)below(m, 20));
        return;
    }
    bool iret = below(m, 2), outer = (m->p->stack_sel[i] & 3) || m->p->code_bytes == 8;
    if ((iret && outer) || (!iret && m->p->stack_sel[i] & 3)) {
        push_imm(m, m->p->stack_sel[i]);
        push_imm(m, (uint32_t)(m->p->data + 0x800 + 8 * below(m, 64)));
    }
    if (iret) {
        if (below(m, 2))
            push_imm(m,
                     2u | (below(m, 8) ? 0 : FL_TF) | (below(m, 2) ? FL_IF : 0) | (below(m, 8) ? 0 : FL_RF));
        else
            byte(m, 0x9c);
    }
    push_imm(m, m->p->code_sel[i]);
    push_item(m, target);
    if (m->p->code_bytes == 8)
        byte(m, 0x48);
    byte(m, iret ? 0xcf : 0xcb);
}

/* --- the table ---------------------------------------------------------------------------------------------------------------------- */

static const struct {
    uint8_t weight;
    bool supervisor; /* only there */
    bool native;     /* also there */
    void (*emit)(struct maker *m, unsigned now);
} emitters[] = {
    { 60, false, true, emit_row },      { 14, false, true, emit_jump },
    { 5, false, true, emit_indirect },  { 5, false, true, emit_call },
    { 5, false, true, emit_loop },      { 6, false, true, emit_stack },
    { 3, false, true, emit_flags },     { 14, false, true, emit_flags_used },
    { 1, false, true, emit_mxcsr },     { 4, false, true, emit_store_code },
    { 3, true, false, emit_control },   { 3, true, false, emit_table },
    { 2, true, false, emit_msr },       { 1, true, false, emit_breakpoint },
    { 3, false, false, emit_transfer },
};

static void emit_item(struct maker *m, unsigned now)
{
    for (;;) {
        unsigned i = (unsigned)below(m, array_size(emitters));
        if (below(m, 60) >= emitters[i].weight || (emitters[i].supervisor && !m->p->supervisor) ||
            (!emitters[i].native && m->p->native))
            continue;
        emitters[i].emit(m, now);
        return;
    }
}

static void fix_all(struct maker *m)
{
    for (unsigned i = 0; i < m->fixes; i++) {
        const struct fix *f = &m->fix[i];
        int64_t start = m->s->start[f->item], v;
        if (f->kind == FIX_RELATIVE)
            v = start - (f->at + f->size);
        else
            v = (int64_t)(f->kind == FIX_RIP ? m->p->rip : m->p->code) + start + f->add;
        if (f->kind == FIX_RELATIVE && f->size == 1 && v != (int8_t)v)
            v = 0;
        memcpy(m->s->code + f->at, &v, f->size);
    }
}

void sequence_make(struct sequence *s, const struct place *p, struct random *r)
{
    struct maker m = { .s = s, .p = p, .r = r };
    memset(s, 0, sizeof(*s));
    s->items = 1 + (unsigned)random_below(r, random_below(r, 3) ? SEQUENCE_ITEMS : 4);
    for (unsigned i = 0; i < s->items; i++) {
        s->start[i] = (uint16_t)m.n;
        if (m.n + ITEM_ROOM < SEQUENCE_BYTES)
            emit_item(&m, i);
    }
    s->start[s->items] = (uint16_t)m.n;
    s->len = m.n;
    fix_all(&m);
}

void sequence_print(const struct sequence *s, const struct place *p)
{
    char text[160];
    for (unsigned at = 0; at < s->len;) {
        unsigned n = disassemble(s->code + at, s->len - at < CODE_BYTES_MAX ? s->len - at : CODE_BYTES_MAX,
                                 p->code_bytes, p->rip + at, text, sizeof(text));
        fprintf(stderr, "    %llx  %s\n", (unsigned long long)(p->rip + at), text);
        at += n;
    }
}
