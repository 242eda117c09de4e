/* SPDX-License-Identifier: Apache-2.0 */
/* Stack slots with the limit, canonical and paging checks of the stack's own segment and privilege. */
#include "cpu/stack.h"
#include "cpu/access.h"
#include "cpu/descriptor.h"

/* SMAP and EFLAGS.AC hold for these accesses: they are explicit ones (SDM 3A 4.6). */
static enum mmu_index index_of_cpl(const struct vcpu *v, unsigned cpl)
{
    if (cpl == 3)
        return MMU_USER;
    return (v->s.cr4 & CR4_SMAP) && !(v->s.rflags & FL_AC) ? MMU_SUPER : MMU_SUPER_AC;
}

struct stack stack_current(const struct vcpu *v)
{
    return (struct stack){ .ss = v->s.seg[SEG_SS],
                           .sp = v->s.gpr[RSP],
                           .mask = stack_mask(v),
                           .flat64 = vcpu_long64(v),
                           .index = index_of_cpl(v, vcpu_cpl(v)) };
}

struct stack stack_legacy(const struct vcpu *v, const struct segment *ss, uint64_t sp, unsigned cpl)
{
    return (struct stack){ .ss = *ss,
                           .sp = sp,
                           .mask = (ss->attr & SA_DB) ? 0xffffffff : 0xffff,
                           .index = index_of_cpl(v, cpl),
                           .error = ss->sel };
}

struct stack stack_long(const struct vcpu *v, uint64_t sp, unsigned cpl)
{
    return (struct stack){ .sp = sp, .mask = ~0ull, .flat64 = true, .index = index_of_cpl(v, cpl) };
}

/* Offsets of the stacks of privilege 0 in each kind of TSS (SDM 3A 7.2.1, 7.6, 7.7). */
#define TSS16_SP0 2u
#define TSS_SP0 4u

struct stack stack_inner(struct vcpu *v, unsigned cpl)
{
    uint64_t sp, sel;
    bool in_limit;
    if (vcpu_lma(v)) {
        if (!tss_read(v, TSS_SP0 + 8 * cpl, 8, &sp))
            raise_selector(v, VEC_TS, v->s.tr.sel);
        return stack_long(v, sp, cpl);
    }
    if (v->s.tr.attr & SYS_32BIT)
        in_limit = tss_read(v, TSS_SP0 + 8 * cpl, 4, &sp) && tss_read(v, TSS_SP0 + 8 * cpl + 4, 2, &sel);
    else
        in_limit = tss_read(v, TSS16_SP0 + 4 * cpl, 2, &sp) && tss_read(v, TSS16_SP0 + 4 * cpl + 2, 2, &sel);
    if (!in_limit)
        raise_selector(v, VEC_TS, v->s.tr.sel);
    struct segment ss = seg_check_stack(v, (uint16_t)sel, cpl, VEC_TS);
    return stack_legacy(v, &ss, sp, cpl);
}

/* Does [off, off+size) lie inside the stack segment (SDM 3A 5.3)? */
static bool inside(const struct stack *st, uint64_t off, unsigned size)
{
    uint64_t last = off + size - 1;
    if (st->flat64)
        return is_canonical(off) && is_canonical(last);
    if (st->ss.attr & SA_UNUSABLE)
        return false;
    if (attr_expand_down(st->ss.attr))
        return off > st->ss.limit && last <= ((st->ss.attr & SA_DB) ? 0xffffffff : 0xffff);
    return last <= st->ss.limit;
}

static uint64_t slot_address(struct vcpu *v, const struct stack *st, uint64_t off, unsigned size)
{
    if (!inside(st, off, size))
        raise_selector(v, VEC_SS, st->error);
    return st->flat64 ? off : (st->ss.base + off) & 0xffffffff;
}

/* A slot of 64-bit code's that needs no check; NULL: the long way. */
static void *slot_at_hand(const struct vcpu *v, const struct stack *st, uint64_t sp, unsigned size,
                          enum mmu_access access)
{
    return st->flat64 && size == 8 ? access_cached(v, sp, 8, access, st->index) : NULL;
}

void stack_push(struct vcpu *v, struct stack *st, uint64_t val, unsigned size)
{
    void *host = slot_at_hand(v, st, st->sp - size, size, ACCESS_WRITE);
    if (likely(host != NULL)) {
        memcpy(host, &val, 8);
        st->sp -= 8;
        return;
    }
    uint64_t off = (st->sp - size) & st->mask;
    uint64_t lin = slot_address(v, st, off, size);
    access_write(v, lin, &val, size, st->index, SEG_SS);
    st->sp = (st->sp & ~st->mask) | off;
}

uint64_t stack_peek(struct vcpu *v, const struct stack *st, uint64_t off, unsigned size)
{
    const void *host = slot_at_hand(v, st, st->sp + off, size, ACCESS_READ);
    if (likely(host != NULL)) {
        uint64_t slot;
        memcpy(&slot, host, 8);
        return slot;
    }
    uint64_t lin = slot_address(v, st, (st->sp + off) & st->mask, size);
    uint64_t val = 0;
    access_read(v, lin, &val, size, st->index, SEG_SS);
    return val;
}

void stack_drop(struct stack *st, uint64_t bytes)
{
    st->sp = (st->sp & ~st->mask) | ((st->sp + bytes) & st->mask);
}

uint64_t stack_rsp(const struct stack *st) { return st->mask == 0xffffffff ? st->sp & 0xffffffff : st->sp; }

uint64_t stack_pointer_in(const struct vcpu *v, const struct segment *ss, bool to64, uint64_t sp)
{
    if (to64 || (ss->attr & SA_DB))
        return sp;
    return (v->s.gpr[RSP] & ~0xffffull) | (sp & 0xffff);
}
