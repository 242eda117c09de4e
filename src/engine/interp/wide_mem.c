/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory operands of vector instructions. Under an opmask the elements whose bit is clear are not accessed: what they would
 * fault does not happen (SDM 2A 2.8). Where the whole operand is cached for the access nothing can, and it is read at once.
 */
#include "cpu/descriptor.h"
#include "engine/interp/wide.h"

/* An opmask bit stands for an element of the register. Memory that is broadcast or inserted has fewer; a conversion's are
 * smaller. */
struct wide_part wide_part(const struct vcpu *v, const struct op *op)
{
    struct wide_fields f = wide_fields(op);
    const struct insn_row *row = wide_row(op);
    unsigned vl = 16u << f.vl, bits = row->vl == LIG ? 1 : vl / row->esize;
    struct wide_part p = { .size = op->opsize, .count = 1 };
    uint64_t mask = wide_mask(v, f.mask, bits);
    if (f.b || row->vl == LIG) { /* one element for all */
        p.used = mask != 0;
        return p;
    }
    bool relative = false; /* the operand has an element for each bit */
    for (unsigned i = 0; i < 3; i++)
        relative |= row->op[i] == Wx || row->op[i] == Wxh || row->op[i] == Wxq || row->op[i] == Wxe;
    if (relative) {
        p.count = bits;
        p.size = op->opsize / bits;
        p.used = mask;
        return p;
    }
    p.count = op->opsize > row->esize ? op->opsize / row->esize : 1;
    p.size = op->opsize / p.count;
    if (f.out == OUT_MEM)
        mask = wide_mask(v, f.mask, p.count);
    for (unsigned i = 0; i < bits; i++)
        p.used |= (mask >> i & 1) << i % p.count;
    return p;
}

/* SHA's operands need no alignment on AMD's processors; the manual of Intel's wants it. */
static bool must_be_aligned(const struct vcpu *v, const struct op *op)
{
    struct wide_fields f = wide_fields(op);
    return f.aligned && !(f.out == OUT_OLD && wide_row(op)->feature == FEAT_SHA && vcpu_is_amd(v));
}

static void check_aligned(struct vcpu *v, const struct op *op, uint64_t lin)
{
    if (must_be_aligned(v, op) && lin & (op->opsize - 1u))
        cpu_raise_gp0(v);
}

/* Alignment checking of operands longer than 16 bytes, as AMD's processors do it: by 16. access_read() and access_write()
 * have the shorter ones. */
static void check_long(struct vcpu *v, uint64_t lin, unsigned size)
{
    if (unlikely(v->mmu.bypass) && v->mmu.index == MMU_USER && size > 16 && lin & 15 && is_canonical(lin))
        cpu_raise_error(v, VEC_AC, 0);
}

void wide_read_element(struct vcpu *v, uint64_t lin, uint8_t *dst, unsigned size, enum seg seg)
{
    if (likely(!v->mmu.bypass)) {
        access_read(v, lin, dst, size, v->mmu.index, seg);
        return;
    }
    for (unsigned i = 0; i < size; i++)
        access_read(v, (lin + i) & v->lin_mask, dst + i, 1, v->mmu.index, seg);
}

void wide_write_element(struct vcpu *v, uint64_t lin, const uint8_t *src, unsigned size, enum seg seg)
{
    if (likely(!v->mmu.bypass)) {
        access_write(v, lin, src, size, v->mmu.index, seg);
        return;
    }
    wide_probe_element(v, lin, size, seg);
    for (unsigned i = 0; i < size; i++)
        access_write(v, (lin + i) & v->lin_mask, src + i, 1, v->mmu.index, seg);
}

void wide_probe_element(struct vcpu *v, uint64_t lin, unsigned size, enum seg seg)
{
    unsigned step = unlikely(v->mmu.bypass) ? 1 : size;
    for (unsigned i = 0; i < size; i += step)
        access_probe_write(v, (lin + i) & v->lin_mask, step, v->mmu.index, seg);
}

static uint64_t element_linear(struct vcpu *v, const struct op *op, unsigned at, unsigned size,
                               enum mmu_access access)
{
    uint64_t off = (op_offset(v, op) + at) & mask_bytes(op->addrsize);
    return seg_linear(v, op->seg, off, size, access);
}

static bool cached_whole(struct vcpu *v, const struct op *op, enum mmu_access access, uint8_t **host)
{
    if (!v->sf[op->seg].flat[access == ACCESS_WRITE])
        return false;
    uint64_t lin = (v->sf[op->seg].base + op_offset(v, op)) & v->lin_mask;
    *host = tlb_find(&v->mmu, lin, op->opsize, access);
    return *host;
}

void wide_read(struct vcpu *v, const struct op *op, uint8_t *dst, unsigned size)
{
    if (!size)
        return;
    uint64_t lin = fpu_operand_linear(v, op, size, ACCESS_READ);
    const void *host = tlb_find(&v->mmu, lin, size, ACCESS_READ);
    check_aligned(v, op, lin);
    if (likely(host != NULL)) {
        memcpy(dst, host, size);
        return;
    }
    check_long(v, lin, size);
    access_read(v, lin, dst, size, v->mmu.index, op->seg);
}

void wide_write(struct vcpu *v, const struct op *op, const uint8_t *src, unsigned size)
{
    if (!size)
        return;
    uint64_t lin = fpu_operand_linear(v, op, size, ACCESS_WRITE);
    void *host = tlb_find(&v->mmu, lin, size, ACCESS_WRITE);
    check_aligned(v, op, lin);
    if (likely(host != NULL)) {
        memcpy(host, src, size);
        return;
    }
    check_long(v, lin, size);
    access_write(v, lin, src, size, v->mmu.index, op->seg);
}

/* Alignment is that of the whole operand, if anything of it is used. */
static void check_part_aligned(struct vcpu *v, const struct op *op, const struct wide_part *part,
                               enum mmu_access access)
{
    if (part->used && must_be_aligned(v, op))
        check_aligned(v, op, element_linear(v, op, 0, 1, access));
}

void wide_load(struct vcpu *v, const struct op *op, uint8_t *dst, const struct wide_part *part)
{
    uint8_t *host;
    if (!part || (wide_part_all(part) && !part->unaligned)) {
        wide_read(v, op, dst, op->opsize);
        return;
    }
    check_part_aligned(v, op, part, ACCESS_READ);
    if (cached_whole(v, op, ACCESS_READ, &host)) {
        memcpy(dst, host, op->opsize);
        return;
    }
    memset(dst, 0, op->opsize);
    for (unsigned i = 0; i < part->count; i++) {
        if (!(part->used >> i & 1))
            continue;
        uint64_t lin = element_linear(v, op, i * part->size, part->size, ACCESS_READ);
        if (part->unaligned)
            wide_read_element(v, lin, dst + i * part->size, part->size, op->seg);
        else
            access_read(v, lin, dst + i * part->size, part->size, v->mmu.index, op->seg);
    }
}

void wide_probe_store(struct vcpu *v, const struct op *op, const struct wide_part *part)
{
    if (!part || (wide_part_all(part) && !part->unaligned)) {
        uint64_t lin = fpu_operand_linear(v, op, op->opsize, ACCESS_WRITE);
        check_aligned(v, op, lin);
        check_long(v, lin, op->opsize);
        access_probe_write(v, lin, op->opsize, v->mmu.index, op->seg);
        return;
    }
    check_part_aligned(v, op, part, ACCESS_WRITE);
    for (unsigned i = 0; i < part->count; i++) {
        if (!(part->used >> i & 1))
            continue;
        uint64_t lin = element_linear(v, op, i * part->size, part->size, ACCESS_WRITE);
        if (part->unaligned)
            wide_probe_element(v, lin, part->size, op->seg);
        else
            access_probe_write(v, lin, part->size, v->mmu.index, op->seg);
    }
}

void wide_store(struct vcpu *v, const struct op *op, const uint8_t *src, const struct wide_part *part)
{
    uint8_t *host;
    if (!part || (wide_part_all(part) && !part->unaligned)) {
        wide_write(v, op, src, op->opsize);
        return;
    }
    check_part_aligned(v, op, part, ACCESS_WRITE);
    if (wide_row(op)->xflags & XF_NF)
        wide_probe_store(v, op, NULL);
    if (cached_whole(v, op, ACCESS_WRITE, &host)) {
        for (unsigned i = 0; i < part->count; i++)
            if (part->used >> i & 1)
                memcpy(host + i * part->size, src + i * part->size, part->size);
        return;
    }
    wide_probe_store(v, op, part);
    for (unsigned i = 0; i < part->count; i++) {
        if (!(part->used >> i & 1))
            continue;
        uint64_t lin = element_linear(v, op, i * part->size, part->size, ACCESS_WRITE);
        if (part->unaligned)
            wide_write_element(v, lin, src + i * part->size, part->size, op->seg);
        else
            access_write(v, lin, src + i * part->size, part->size, v->mmu.index, op->seg);
    }
}
