/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding of host instructions. */
#include "engine/bt/emit.h"

#include "base/bits.h"

/* --- pieces of an instruction: each is written at `p` and returns where the next one goes ------------------------ */

/* The instruction ends at `p`. */
static inline void finish(struct emitter *e, uint8_t *p)
{
    if (unlikely(p > e->end))
        e->full = true;
    else
        e->at = p;
}

static inline uint8_t *put(uint8_t *p, unsigned byte)
{
    *p = (uint8_t)byte;
    return p + 1;
}

static inline uint8_t *put_imm(uint8_t *p, uint64_t val, unsigned bytes)
{
    if (bytes == 4) {
        put_le32(p, (uint32_t)val);
        return p + 4;
    }
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(val >> (8 * i));
    return p + bytes;
}

static inline uint8_t *put_rare_prefixes(uint8_t *p, unsigned enc)
{
    if (enc & ENC_LOCK)
        p = put(p, 0xf0);
    if (enc & ENC_66)
        p = put(p, 0x66);
    if (enc & ENC_F2)
        p = put(p, 0xf2);
    if (enc & ENC_F3)
        p = put(p, 0xf3);
    return p;
}

/* Prefixes, map and opcode. */
static inline uint8_t *put_opcode(uint8_t *p, unsigned enc, unsigned rex_rxb, bool force_rex, unsigned opcode)
{
    if (enc & (ENC_LOCK | ENC_66 | ENC_F2 | ENC_F3))
        p = put_rare_prefixes(p, enc);
    unsigned rex = rex_rxb | (enc & ENC_W);
    if (rex || force_rex)
        p = put(p, 0x40 | rex);
    if (enc & (ENC_0F | ENC_0F38 | ENC_0F3A)) {
        p = put(p, 0x0f);
        if (enc & (ENC_0F38 | ENC_0F3A))
            p = put(p, enc & ENC_0F38 ? 0x38 : 0x3a);
    }
    return put(p, opcode);
}

static inline bool needs_rex_for_byte(unsigned enc, unsigned reg)
{
    return enc & ENC_BYTE && reg >= 4 && reg < 8;
}

/* ModRM, SIB, displacement. `disp8`: an 8-bit displacement counts bytes. */
static inline uint8_t *put_mem(uint8_t *p, unsigned reg, const struct amode *m, bool disp8)
{
    unsigned r = (reg & 7) << 3, base = m->base & 7;
    bool sib = m->index != H_NONE || base == 4;
    unsigned mod = m->disp == 0 ? base == 5 : disp8 && m->disp == (int8_t)m->disp ? 1 : 2;
    p = put(p, mod << 6 | r | (sib ? 4 : base));
    if (sib)
        p = put(p, (unsigned)m->scale << 6 | (m->index == H_NONE ? 4u : m->index & 7u) << 3 | base);
    if (mod == 1)
        return put(p, (unsigned)m->disp);
    return mod ? put_imm(p, (uint32_t)m->disp, 4) : p;
}

static inline uint8_t *put_reg(uint8_t *p, unsigned reg, unsigned rm)
{
    return put(p, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline uint8_t *put_op_reg(uint8_t *p, unsigned enc, unsigned opcode, unsigned reg, unsigned rm)
{
    p = put_opcode(p, enc, (reg >> 3 & 1) << 2 | (rm >> 3 & 1),
                   needs_rex_for_byte(enc, reg) || needs_rex_for_byte(enc, rm), opcode);
    return put_reg(p, reg, rm);
}

/* The instruction with this operand begins: notes that it may fault; prefixes of an operand by GS. */
static inline uint8_t *put_segment(struct emitter *e, const struct amode *m)
{
    uint8_t *p = e->at;
    if (m->view && e->nview < VIEW_ACCESSES)
        e->view[e->nview++] = p;
    if (m->gs) {
        p = put(p, 0x65);
        if (m->narrow)
            p = put(p, 0x67);
    }
    return p;
}

/* --- whole instructions ------------------------------------------------------------------------------------------- */

void emit_byte(struct emitter *e, unsigned byte) { finish(e, put(e->at, byte)); }

void emit_imm(struct emitter *e, uint64_t val, unsigned bytes) { finish(e, put_imm(e->at, val, bytes)); }

void emit_mem(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg, struct amode m)
{
    unsigned rex = (reg >> 3 & 1) << 2 | (m.index == H_NONE ? 0 : (m.index >> 3 & 1u) << 1) |
                   (m.base >> 3 & 1u);
    uint8_t *p = put_segment(e, &m);
    p = put_opcode(p, enc, rex, needs_rex_for_byte(enc, reg), opcode);
    finish(e, put_mem(p, reg, &m, true));
}

void emit_reg(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg, unsigned rm)
{
    finish(e, put_op_reg(e->at, enc, opcode, reg, rm));
}

/* The bits that extend ModRM's reg, SIB's index, ModRM's rm or base: `reg` and `rm` to five bits. */
static uint8_t *put_vex(uint8_t *p, const struct vex *x, unsigned reg, unsigned index, unsigned base)
{
    unsigned r = ~reg >> 3 & 1, xx = ~index & 1, b = ~base & 1;
    unsigned wvp = (unsigned)x->w << 7 | (~x->vvvv & 15u) << 3 | x->pp;
    if (x->evex) {
        p = put(p, 0x62);
        p = put(p, r << 7 | xx << 6 | b << 5 | (~reg >> 4 & 1) << 4 | x->map);
        p = put(p, wvp | 4);
        return put(p, (unsigned)x->z << 7 | (unsigned)x->l << 5 | (unsigned)x->b << 4 |
                          (~(unsigned)x->vvvv >> 4 & 1) << 3 | x->mask);
    }
    if (x->map == 1 && !x->w && xx && b) {
        p = put(p, 0xc5);
        return put(p, r << 7 | wvp | (unsigned)x->l << 2);
    }
    p = put(p, 0xc4);
    p = put(p, r << 7 | xx << 6 | b << 5 | x->map);
    return put(p, wvp | (unsigned)x->l << 2);
}

void emit_vex_mem(struct emitter *e, const struct vex *x, unsigned opcode, unsigned reg, struct amode m)
{
    uint8_t *p = put_segment(e, &m);
    p = put_vex(p, x, reg, m.index == H_NONE ? 0 : m.index >> 3u, m.base >> 3u);
    finish(e, put_mem(put(p, opcode), reg, &m, !x->evex));
}

void emit_vex_reg(struct emitter *e, const struct vex *x, unsigned opcode, unsigned reg, unsigned rm)
{
    finish(e, put_reg(put(put_vex(e->at, x, reg, rm >> 4, rm >> 3), opcode), reg, rm));
}

void emit_vex_plain(struct emitter *e, const struct vex *x, unsigned opcode)
{
    finish(e, put(put_vex(e->at, x, 0, 0, 0), opcode));
}

void emit_plus(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg)
{
    finish(e, put_opcode(e->at, enc, reg >> 3 & 1, needs_rex_for_byte(enc, reg), opcode | (reg & 7)));
}

void emit_plain(struct emitter *e, unsigned enc, unsigned opcode)
{
    finish(e, put_opcode(e->at, enc, 0, false, opcode));
}

void emit_patch(const struct emitter *e, uint8_t *field, uint64_t target)
{
    put_le32(field, (uint32_t)(target - ((uint64_t)(uintptr_t)field + (uint64_t)e->to_exec + 4)));
}

/* The instruction ends with a rel32 at `field`. */
static inline uint8_t *end_with_rel32(struct emitter *e, uint8_t *field, uint64_t target)
{
    emit_patch(e, field, target);
    finish(e, field + 4);
    return field;
}

uint8_t *emit_jmp(struct emitter *e, uint64_t target) { return end_with_rel32(e, put(e->at, 0xe9), target); }

uint8_t *emit_call(struct emitter *e, uint64_t target) { return end_with_rel32(e, put(e->at, 0xe8), target); }

uint8_t *emit_jcc(struct emitter *e, unsigned cond, uint64_t target)
{
    return end_with_rel32(e, put(put(e->at, 0x0f), 0x80 | cond), target);
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
    finish(e, put_imm(put_opcode(e->at, 0, dst >> 3, false, 0xb8 | (dst & 7)), imm, 4));
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
    uint8_t *p = put_op_reg(e->at, wide ? ENC_W : 0, small ? 0x83 : 0x81, n, reg);
    finish(e, put_imm(p, (uint32_t)imm, small ? 1 : 4));
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
