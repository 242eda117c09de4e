/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathers and scatters: element by element, in order. An element that is done is done: its mask bit is cleared, and a fault
 * at a later one leaves the instruction to go on there (SDM 2C VPGATHERDD, VPSCATTERDD).
 */
#include "engine/interp/wide.h"

/* In op->imm. */
struct gather_fields {
    uint64_t vvvv : 5; /* VEX: the mask register */
    uint64_t mask : 3; /* EVEX */
    uint64_t evex : 1;
    uint64_t esize : 4; /* of data */
    uint64_t isize : 4; /* of indices */
    uint64_t count : 5;
    uint64_t vector : 5; /* the index register */
    uint64_t scale : 2;
};

static struct gather_fields gather_fields(const struct op *op)
{
    struct gather_fields g;
    _Static_assert(sizeof(g) <= sizeof(op->imm), "fits an op's immediate");
    memcpy(&g, &op->imm, sizeof(g));
    return g;
}

static uint64_t element_linear(struct vcpu *v, const struct op *op, const struct gather_fields *g,
                               const uint8_t *indices, unsigned i, enum mmu_access access)
{
    uint64_t index = g->isize == 8 ? get_le64(indices + 8 * i)
                                   : (uint64_t)sext(get_le32(indices + 4 * i), 32);
    uint64_t off = (op_offset(v, op) + (index << g->scale)) & mask_bytes(op->addrsize);
    return seg_linear(v, op->seg, off, g->esize, access);
}

/* --- AVX2: sign bits of a vector say which elements; they are cleared one by one --------------------------------- */

FPU_HANDLER(gather_vex)
{
    struct gather_fields g = gather_fields(op);
    uint8_t indices[64], dst[64], mask[64];
    unsigned bytes = g.count * g.esize;
    check_wide(v, false);
    wide_get(v, g.vector, indices);
    wide_get(v, op->r1, dst);
    wide_get(v, g.vvvv, mask);
    for (unsigned i = 0; i < g.count; i++) {
        uint8_t *bits = mask + i * g.esize;
        if (bits[g.esize - 1] & 0x80) {
            uint64_t lin = element_linear(v, op, &g, indices, i, ACCESS_READ);
            wide_read_element(v, lin, dst + i * g.esize, g.esize, op->seg);
        }
        memset(bits, 0, g.esize);
        wide_set(v, op->r1, dst);
        wide_set(v, g.vvvv, mask);
    }
    memset(dst + bytes, 0, 64 - bytes);
    memset(mask, 0, 64);
    wide_set(v, op->r1, dst);
    wide_set(v, g.vvvv, mask);
}

/* --- AVX-512: an opmask ------------------------------------------------------------------------------------------- */

FPU_HANDLER(gather_evex)
{
    struct gather_fields g = gather_fields(op);
    uint8_t indices[64], dst[64];
    unsigned bytes = g.count * g.esize, vl = g.count * (g.esize > g.isize ? g.esize : g.isize);
    check_wide(v, true);
    wide_get(v, g.vector, indices);
    wide_get(v, op->r1, dst);
    for (unsigned i = 0; i < g.count; i++) {
        if (!(v->s.fpu.k[g.mask] >> i & 1))
            continue;
        uint64_t lin = element_linear(v, op, &g, indices, i, ACCESS_READ);
        wide_read_element(v, lin, dst + i * g.esize, g.esize, op->seg);
        memset(dst + vl, 0,
               64 - vl); /* with the first element, before a later one faults: as AMD's processors do it */
        wide_set(v, op->r1, dst);
        v->s.fpu.k[g.mask] &= ~(1ull << i);
    }
    memset(dst + bytes, 0, 64 - bytes);
    wide_set(v, op->r1, dst);
    v->s.fpu.k[g.mask] = 0;
}

FPU_HANDLER(scatter)
{
    struct gather_fields g = gather_fields(op);
    uint8_t indices[64], src[64];
    check_wide(v, true);
    wide_get(v, g.vector, indices);
    wide_get(v, op->r1, src);
    for (unsigned i = 0; i < g.count; i++) {
        if (!(v->s.fpu.k[g.mask] >> i & 1))
            continue;
        uint64_t lin = element_linear(v, op, &g, indices, i, ACCESS_WRITE);
        wide_write_element(v, lin, src + i * g.esize, g.esize, op->seg);
        v->s.fpu.k[g.mask] &= ~(1ull << i);
    }
    v->s.fpu.k[g.mask] = 0;
}

/* Quadword indices of doublewords fill half a vector, and the other way round. */
bool lower_gather(struct op *op, const struct insn *in, uint32_t mode)
{
    bool store = in->op[0].kind == OPND_MEM;
    unsigned esize = in->w ? 8 : 4;
    bool quad_index = in->row->opcode & 1;
    unsigned isize = quad_index ? 8 : 4, larger = esize > isize ? esize : isize;
    (void)mode;
    struct gather_fields g = {
        .vvvv = in->vvvv & 15,
        .mask = in->mask & 7,
        .evex = in->enc == ENCODING_EVEX,
        .esize = esize & 15,
        .isize = isize & 15,
        .count = in->vl / larger & 31,
        .vector = in->mem.index & 31,
        .scale = in->mem.scale & 3,
    };
    op_set_mem(op, in);
    op->index = MEM_NO_REG;
    op->opsize = (uint8_t)esize;
    op->r1 = in->op[store ? 1 : 0].reg;
    op->run = store ? scatter : g.evex ? gather_evex : gather_vex;
    memcpy(&op->imm, &g, sizeof(g));
    return true;
}
