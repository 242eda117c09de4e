/* SPDX-License-Identifier: Apache-2.0 */
/* Memory operands: their fields, their linear address in the general case, and the paths of a TLB miss. */
#include "engine/interp/operand.h"

/* The displacement counts from the block's start where it is relative to rip, since rip itself stays
 * there. */
void op_set_mem(struct op *op, const struct insn *in)
{
    const struct mem_operand *m = &in->mem;
    int64_t disp = m->disp + (m->base == MEM_RIP ? op->off : 0);
    op->seg = m->seg;
    op->base = m->base;
    op->index = m->index;
    op->scale = m->scale;
    op->disp = (int32_t)disp;
    if (op->addrsize == 8 && disp != (int32_t)disp) {
        op->disp = 0;
        op->index = MEM_OFFSET;
        op->aux = (const void *)(uintptr_t)disp;
    }
}

static bool is_flat(const struct op *op, uint32_t mode)
{
    if ((mode & MODE_CODE_MASK) == MODE_CODE64)
        return op->addrsize == 8 && op->seg < SEG_FS;
    return (mode & MODE_FLAT) && op->addrsize == 4 &&
           (op->seg == SEG_DS || op->seg == SEG_ES || op->seg == SEG_SS);
}

unsigned lower_mem(struct op *op, const struct insn *in, uint32_t mode)
{
    op_set_mem(op, in);
    if (!is_flat(op, mode) || op->base > MEM_RIP || op->index == MEM_OFFSET)
        return FORM_GEN;
    return op->index == MEM_NO_REG ? FORM_B : FORM_BI;
}

__attribute__((noinline)) uint64_t address_gen(struct vcpu *v, const struct op *op, unsigned size,
                                               enum mmu_access access)
{
    return seg_linear(v, op->seg, op_offset(v, op), size, access);
}

cold_fn uint64_t slow_read(struct vcpu *v, const struct op *op, uint64_t lin, unsigned size, enum seg seg)
{
    uint64_t val = 0;
    exact(v, op);
    access_read(v, lin, &val, size, v->mmu.index, seg);
    inexact(v);
    return val;
}

cold_fn void slow_write(struct vcpu *v, const struct op *op, uint64_t lin, uint64_t val, unsigned size,
                        enum seg seg)
{
    exact(v, op);
    access_write(v, lin, &val, size, v->mmu.index, seg);
    inexact(v);
}

cold_fn void *slow_rmw(struct vcpu *v, const struct op *op, uint64_t lin, unsigned size, uint64_t *val)
{
    exact(v, op);
    void *host = access_rmw(v, lin, size, op->seg);
    if (!host) {
        *val = 0;
        access_read(v, lin, val, size, v->mmu.index, op->seg);
    }
    inexact(v);
    return host;
}

/* Where no single locked instruction can do it (MMIO, two pages, a page with code), nobody else runs
 * meanwhile. */
cold_fn static void lock_world(struct vcpu *v)
{
    if (v->cb.stop_others)
        v->cb.stop_others(v->cb.ctx, v->index);
    interp_of(v)->world_stopped = true;
}

cold_fn void unlock_world(struct vcpu *v)
{
    if (!interp_of(v)->world_stopped)
        return;
    interp_of(v)->world_stopped = false;
    if (v->cb.resume_others)
        v->cb.resume_others(v->cb.ctx, v->index);
}

/* What can fault does so before the world is stopped, as a rule; the unwinding lets it go in any case. */
void *locked_begin(struct vcpu *v, const struct op *op, uint64_t lin, unsigned size, uint64_t *val)
{
    void *host = tlb_find(&v->mmu, lin, size, ACCESS_WRITE);
    if (likely(host != NULL))
        return host;
    exact(v, op);
    host = access_rmw(v, lin, size, op->seg);
    if (!host) {
        lock_world(v);
        access_read(v, lin, val, size, v->mmu.index, op->seg);
    }
    inexact(v);
    return host;
}

void locked_end(struct vcpu *v, const struct op *op, uint64_t lin, uint64_t val, unsigned size, bool store)
{
    if (store)
        slow_write(v, op, lin, val, size, op->seg);
    unlock_world(v);
}
