/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding of host instructions. */
#include "engine/bt/emit.h"

#include <string.h>

void emit_byte(struct emitter *e, unsigned byte)
{
    if (e->at < e->end)
        *e->at++ = (uint8_t)byte;
    else
        e->full = true;
}

void emit_imm(struct emitter *e, uint64_t val, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        emit_byte(e, (uint8_t)(val >> (8 * i)));
}

static void prefixes(struct emitter *e, unsigned enc, unsigned rex_rxb, bool force_rex)
{
    if (enc & ENC_LOCK)
        emit_byte(e, 0xf0);
    if (enc & ENC_66)
        emit_byte(e, 0x66);
    if (enc & ENC_F2)
        emit_byte(e, 0xf2);
    if (enc & ENC_F3)
        emit_byte(e, 0xf3);
    unsigned rex = rex_rxb | (enc & ENC_W ? 8 : 0);
    if (rex || force_rex)
        emit_byte(e, 0x40 | rex);
    if (enc & (ENC_0F | ENC_0F38 | ENC_0F3A))
        emit_byte(e, 0x0f);
    if (enc & ENC_0F38)
        emit_byte(e, 0x38);
    if (enc & ENC_0F3A)
        emit_byte(e, 0x3a);
}

static bool needs_rex_for_byte(unsigned enc, unsigned reg) { return enc & ENC_BYTE && reg >= 4 && reg < 8; }

/* `disp8`: an 8-bit displacement counts bytes. */
static void modrm_mem(struct emitter *e, unsigned reg, const struct amode *m, bool disp8)
{
    unsigned r = (reg & 7) << 3, base = m->base & 7;
    bool sib = m->index != H_NONE || base == 4;
    unsigned mod = m->disp == 0 ? base == 5 : disp8 && m->disp == (int8_t)m->disp ? 1 : 2;
    emit_byte(e, mod << 6 | r | (sib ? 4 : base));
    if (sib)
        emit_byte(e, (unsigned)m->scale << 6 | (m->index == H_NONE ? 4u : m->index & 7u) << 3 | base);
    if (mod)
        emit_imm(e, (uint32_t)m->disp, mod == 1 ? 1 : 4);
}

void emit_segment(struct emitter *e, const struct amode *m)
{
    if (m->view && e->nview < VIEW_ACCESSES)
        e->view[e->nview++] = e->at;
    if (!m->gs)
        return;
    emit_byte(e, 0x65);
    if (m->narrow)
        emit_byte(e, 0x67);
}

void emit_mem(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg, struct amode m)
{
    unsigned rex = (reg >> 3 & 1) << 2 | (m.index == H_NONE ? 0 : (m.index >> 3 & 1u) << 1) |
                   (m.base >> 3 & 1u);
    emit_segment(e, &m);
    prefixes(e, enc, rex, needs_rex_for_byte(enc, reg));
    emit_byte(e, opcode);
    modrm_mem(e, reg, &m, true);
}

void emit_reg(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg, unsigned rm)
{
    prefixes(e, enc, (reg >> 3 & 1) << 2 | (rm >> 3 & 1),
             needs_rex_for_byte(enc, reg) || needs_rex_for_byte(enc, rm));
    emit_byte(e, opcode);
    emit_byte(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* The bits that extend ModRM's reg, SIB's index, ModRM's rm or base: `reg` and `rm` to five bits. */
static void vex_prefix(struct emitter *e, const struct vex *x, unsigned reg, unsigned index, unsigned base)
{
    unsigned r = ~reg >> 3 & 1, xx = ~index & 1, b = ~base & 1;
    unsigned wvp = (unsigned)x->w << 7 | (~x->vvvv & 15u) << 3 | x->pp;
    if (x->evex) {
        emit_byte(e, 0x62);
        emit_byte(e, r << 7 | xx << 6 | b << 5 | (~reg >> 4 & 1) << 4 | x->map);
        emit_byte(e, wvp | 4);
        emit_byte(e, (unsigned)x->z << 7 | (unsigned)x->l << 5 | (unsigned)x->b << 4 |
                         (~(unsigned)x->vvvv >> 4 & 1) << 3 | x->mask);
    } else if (x->map == 1 && !x->w && xx && b) {
        emit_byte(e, 0xc5);
        emit_byte(e, r << 7 | wvp | (unsigned)x->l << 2);
    } else {
        emit_byte(e, 0xc4);
        emit_byte(e, r << 7 | xx << 6 | b << 5 | x->map);
        emit_byte(e, wvp | (unsigned)x->l << 2);
    }
}

void emit_vex_mem(struct emitter *e, const struct vex *x, unsigned opcode, unsigned reg, struct amode m)
{
    emit_segment(e, &m);
    vex_prefix(e, x, reg, m.index == H_NONE ? 0 : m.index >> 3u, m.base >> 3u);
    emit_byte(e, opcode);
    modrm_mem(e, reg, &m, !x->evex);
}

void emit_vex_reg(struct emitter *e, const struct vex *x, unsigned opcode, unsigned reg, unsigned rm)
{
    vex_prefix(e, x, reg, rm >> 4, rm >> 3);
    emit_byte(e, opcode);
    emit_byte(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

void emit_vex_plain(struct emitter *e, const struct vex *x, unsigned opcode)
{
    vex_prefix(e, x, 0, 0, 0);
    emit_byte(e, opcode);
}

void emit_plus(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg)
{
    prefixes(e, enc, reg >> 3 & 1, needs_rex_for_byte(enc, reg));
    emit_byte(e, opcode | (reg & 7));
}

void emit_plain(struct emitter *e, unsigned enc, unsigned opcode)
{
    prefixes(e, enc, 0, false);
    emit_byte(e, opcode);
}

void emit_patch(const struct emitter *e, uint8_t *field, uint64_t target)
{
    int32_t rel = (int32_t)(target - ((uint64_t)(uintptr_t)field + (uint64_t)e->to_exec + 4));
    memcpy(field, &rel, 4);
}

static uint8_t *rel32(struct emitter *e, uint64_t target)
{
    uint8_t *field = e->at;
    emit_imm(e, 0, 4);
    if (!e->full)
        emit_patch(e, field, target);
    return field;
}

uint8_t *emit_jmp(struct emitter *e, uint64_t target)
{
    emit_byte(e, 0xe9);
    return rel32(e, target);
}

uint8_t *emit_call(struct emitter *e, uint64_t target)
{
    emit_byte(e, 0xe8);
    return rel32(e, target);
}

uint8_t *emit_jcc(struct emitter *e, unsigned cond, uint64_t target)
{
    emit_byte(e, 0x0f);
    emit_byte(e, 0x80 | cond);
    return rel32(e, target);
}

void emit_mov(struct emitter *e, unsigned dst, unsigned src)
{
    if (dst != src)
        emit_reg(e, ENC_W, 0x8b, dst, src);
}

void emit_mov32(struct emitter *e, unsigned dst, unsigned src) { emit_reg(e, 0, 0x8b, dst, src); }
void emit_load(struct emitter *e, unsigned dst, struct amode m) { emit_mem(e, ENC_W, 0x8b, dst, m); }
void emit_load32(struct emitter *e, unsigned dst, struct amode m) { emit_mem(e, 0, 0x8b, dst, m); }
void emit_store(struct emitter *e, struct amode m, unsigned src) { emit_mem(e, ENC_W, 0x89, src, m); }
void emit_store32(struct emitter *e, struct amode m, unsigned src) { emit_mem(e, 0, 0x89, src, m); }

void emit_lea(struct emitter *e, unsigned dst, struct amode m)
{
    if (m.index == H_NONE && m.disp == 0)
        emit_mov(e, dst, m.base);
    else
        emit_mem(e, ENC_W, 0x8d, dst, m);
}

void emit_lea32(struct emitter *e, unsigned dst, struct amode m)
{
    if (m.index == H_NONE && m.disp == 0)
        emit_mov32(e, dst, m.base);
    else
        emit_mem(e, 0, 0x8d, dst, m);
}

void emit_mov_imm32(struct emitter *e, unsigned dst, uint32_t imm)
{
    emit_plus(e, 0, 0xb8, dst);
    emit_imm(e, imm, 4);
}

void emit_mov_imm(struct emitter *e, unsigned dst, uint64_t imm)
{
    if (imm == (uint32_t)imm) {
        emit_mov_imm32(e, dst, (uint32_t)imm);
    } else if (imm == (uint64_t)(int64_t)(int32_t)imm) {
        emit_reg(e, ENC_W, 0xc7, 0, dst);
        emit_imm(e, imm, 4);
    } else {
        emit_plus(e, ENC_W, 0xb8, dst);
        emit_imm(e, imm, 8);
    }
}

void emit_alu_imm(struct emitter *e, unsigned n, unsigned reg, int32_t imm, bool wide)
{
    bool small = imm == (int8_t)imm;
    emit_reg(e, wide ? ENC_W : 0, small ? 0x83 : 0x81, n, reg);
    emit_imm(e, (uint32_t)imm, small ? 1 : 4);
}

void emit_shrx(struct emitter *e, unsigned dst, unsigned src, unsigned by)
{
    const struct vex x = { .map = 2, .pp = 3, .w = 1, .vvvv = (uint8_t)by };
    emit_vex_reg(e, &x, 0xf7, dst, src);
}

void emit_rorx32(struct emitter *e, unsigned dst, struct amode m, unsigned by)
{
    static const struct vex x = { .map = 3, .pp = 3 };
    emit_vex_mem(e, &x, 0xf0, dst, m);
    emit_imm(e, by, 1);
}
