/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding of host instructions. */
#include "engine/bt/emit.h"

#include "base/bits.h"

/* The instruction with this operand begins: notes that it may fault; prefixes of an operand by GS. */
static inline uint8_t *put_segment(struct emitter *e, const struct amode *m)
{
    uint8_t *p = e->at;
    if (m->view && e->nview < VIEW_ACCESSES)
        e->view[e->nview++] = p;
    if (m->gs) {
        p = put_byte(p, 0x65);
        if (m->narrow)
            p = put_byte(p, 0x67);
    }
    return p;
}

/* --- whole instructions ------------------------------------------------------------------------------------------- */

void emit_mem_any(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg, struct amode m)
{
    emit_end(e, put_op_mem(put_segment(e, &m), enc, opcode, reg, &m));
}

void emit_reg_any(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg, unsigned rm)
{
    emit_end(e, put_op_reg(e->at, enc, opcode, reg, rm));
}

/* The bits that extend ModRM's reg, SIB's index, ModRM's rm or base: `reg` and `rm` to five bits. */
static uint8_t *put_vex(uint8_t *p, const struct vex *x, unsigned reg, unsigned index, unsigned base)
{
    unsigned r = ~reg >> 3 & 1, xx = ~index & 1, b = ~base & 1;
    unsigned wvp = (unsigned)x->w << 7 | (~x->vvvv & 15u) << 3 | x->pp;
    if (x->evex) {
        p = put_byte(p, 0x62);
        p = put_byte(p, r << 7 | xx << 6 | b << 5 | (~reg >> 4 & 1) << 4 | x->map);
        p = put_byte(p, wvp | 4);
        return put_byte(p, (unsigned)x->z << 7 | (unsigned)x->l << 5 | (unsigned)x->b << 4 |
                               (~(unsigned)x->vvvv >> 4 & 1) << 3 | x->mask);
    }
    if (x->map == 1 && !x->w && xx && b) {
        p = put_byte(p, 0xc5);
        return put_byte(p, r << 7 | wvp | (unsigned)x->l << 2);
    }
    p = put_byte(p, 0xc4);
    p = put_byte(p, r << 7 | xx << 6 | b << 5 | x->map);
    return put_byte(p, wvp | (unsigned)x->l << 2);
}

void emit_vex_mem(struct emitter *e, const struct vex *x, unsigned opcode, unsigned reg, struct amode m)
{
    uint8_t *p = put_segment(e, &m);
    p = put_vex(p, x, reg, m.index == H_NONE ? 0 : m.index >> 3u, m.base >> 3u);
    emit_end(e, put_mem(put_byte(p, opcode), reg, &m, !x->evex));
}

void emit_vex_reg(struct emitter *e, const struct vex *x, unsigned opcode, unsigned reg, unsigned rm)
{
    emit_end(e, put_reg(put_byte(put_vex(e->at, x, reg, rm >> 4, rm >> 3), opcode), reg, rm));
}

void emit_vex_plain(struct emitter *e, const struct vex *x, unsigned opcode)
{
    emit_end(e, put_byte(put_vex(e->at, x, 0, 0, 0), opcode));
}

void emit_plus(struct emitter *e, unsigned enc, unsigned opcode, unsigned reg)
{
    emit_end(e, put_opcode(e->at, enc, reg >> 3 & 1, byte_needs_rex(enc, reg), opcode | (reg & 7)));
}

void emit_plain(struct emitter *e, unsigned enc, unsigned opcode)
{
    emit_end(e, put_opcode(e->at, enc, 0, false, opcode));
}

void emit_patch(const struct emitter *e, uint8_t *field, uint64_t target)
{
    put_le32(field, (uint32_t)(target - ((uint64_t)(uintptr_t)field + (uint64_t)e->to_exec + 4)));
}

/* The instruction ends with a rel32 at `field`. */
static inline uint8_t *end_with_rel32(struct emitter *e, uint8_t *field, uint64_t target)
{
    emit_patch(e, field, target);
    emit_end(e, field + 4);
    return field;
}

uint8_t *emit_jmp(struct emitter *e, uint64_t target)
{
    return end_with_rel32(e, put_byte(e->at, 0xe9), target);
}

uint8_t *emit_call(struct emitter *e, uint64_t target)
{
    return end_with_rel32(e, put_byte(e->at, 0xe8), target);
}

uint8_t *emit_jcc(struct emitter *e, unsigned cond, uint64_t target)
{
    return end_with_rel32(e, put_byte(put_byte(e->at, 0x0f), 0x80 | cond), target);
}

void emit_mov(struct emitter *e, unsigned dst, unsigned src)
{
    if (dst != src)
        emit_reg(e, ENC_W, 0x8b, dst, src);
}

void emit_mov32(struct emitter *e, unsigned dst, unsigned src) { emit_reg(e, 0, 0x8b, dst, src); }

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

void emit_rorx32_reg(struct emitter *e, unsigned dst, unsigned src, unsigned by)
{
    static const struct vex x = { .map = 3, .pp = 3 };
    emit_vex_reg(e, &x, 0xf0, dst, src);
    emit_imm(e, by, 1);
}
