/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operands.
 *
 *   memory    declared slots of struct vcpu and its area; what the translator's own look-ups read; accesses by views; else a host
 *             operand: a register with a distance that was checked, plus the number that it was checked for
 *   secrets   host addresses and the translator's numbers stay in registers that are not the guest's
 */
#include "engine/bt/verify_place.h"

#include "base/bits.h"

#include <stddef.h>

/* --- slots --------------------------------------------------------------------------------------------------- */

enum { MAY_READ = 1, MAY_WRITE = 2, MAY_BOTH = 3, KERNEL_MAY_WRITE = 4, PARAGRAPH_MAY_WRITE = 8 };

#define GPR_SLOT(n) \
    { \
        VCPU_OFF(s.gpr) + 8 * (n), 8, MAY_BOTH, SLOT_VALUE, VAR_SLOT + (n) \
    }
#define BASE_SLOT(seg, rights) \
    { \
        VCPU_OFF(sf) + (int32_t)((seg) * sizeof(struct seg_fast) + offsetof(struct seg_fast, base)), 8, \
            rights, SLOT_VALUE, VAR_BASE + (seg) \
    }
#define SELECTOR_SLOT(n) \
    { \
        VCPU_OFF(s.seg) + (int32_t)((n) * sizeof(struct segment) + offsetof(struct segment, sel)), 2, \
            MAY_READ | PARAGRAPH_MAY_WRITE, SLOT_NUMBER, 0 \
    }
#define LIMIT_SLOT(n) \
    { \
        VCPU_OFF(s.seg) + (int32_t)((n) * sizeof(struct segment) + offsetof(struct segment, limit)), 4, \
            MAY_READ, SLOT_OWN, 0 \
    }
#define END_SLOT(seg, access) \
    { \
        VCPU_OFF(sf) + \
            (int32_t)((seg) * sizeof(struct seg_fast) + offsetof(struct seg_fast, end) + 8 * (access)), \
            8, MAY_READ, SLOT_END, (seg) << 1 | (access) \
    }
#define LOW_SLOT(seg) \
    { \
        VCPU_OFF(sf) + (int32_t)((seg) * sizeof(struct seg_fast) + offsetof(struct seg_fast, low)), 8, \
            MAY_READ, SLOT_LOW, seg \
    }
#define LIMIT_SLOTS(seg) END_SLOT(seg, 0), END_SLOT(seg, 1), LOW_SLOT(seg)
/* clang-format off */
static const struct slot slots[] = {
    GPR_SLOT(12), GPR_SLOT(13), GPR_SLOT(14), GPR_SLOT(15),
    BASE_SLOT(SEG_FS, MAY_BOTH), BASE_SLOT(SEG_GS, MAY_BOTH), BASE_SLOT(SEG_ES, MAY_READ | PARAGRAPH_MAY_WRITE),
    BASE_SLOT(SEG_CS, MAY_READ), BASE_SLOT(SEG_SS, MAY_READ | PARAGRAPH_MAY_WRITE), BASE_SLOT(SEG_DS, MAY_READ | PARAGRAPH_MAY_WRITE),
    { VCPU_OFF(s.seg[SEG_FS].base), 8, MAY_BOTH, SLOT_NUMBER, 0 },
    { VCPU_OFF(s.seg[SEG_GS].base), 8, MAY_BOTH, SLOT_NUMBER, 0 },
    { VCPU_OFF(s.seg[SEG_ES].base), 8, PARAGRAPH_MAY_WRITE, SLOT_NUMBER, 0 },
    { VCPU_OFF(s.seg[SEG_SS].base), 8, PARAGRAPH_MAY_WRITE, SLOT_NUMBER, 0 },
    { VCPU_OFF(s.seg[SEG_DS].base), 8, PARAGRAPH_MAY_WRITE, SLOT_NUMBER, 0 },
    LIMIT_SLOT(SEG_ES), LIMIT_SLOT(SEG_SS), LIMIT_SLOT(SEG_DS), LIMIT_SLOT(SEG_FS), LIMIT_SLOT(SEG_GS),
    { VCPU_OFF(s.cr0), 8, MAY_READ, SLOT_NUMBER, 0 }, { VCPU_OFF(s.cr2), 8, MAY_READ, SLOT_NUMBER, 0 },
    { VCPU_OFF(s.cr3), 8, MAY_READ, SLOT_NUMBER, 0 }, { VCPU_OFF(s.cr4), 8, MAY_READ, SLOT_NUMBER, 0 },
    { VCPU_OFF(s.msr.kernel_gs_base), 8, MAY_READ | KERNEL_MAY_WRITE, SLOT_NUMBER, 0 },
    SELECTOR_SLOT(SEG_ES), SELECTOR_SLOT(SEG_CS), SELECTOR_SLOT(SEG_SS), SELECTOR_SLOT(SEG_DS),
    SELECTOR_SLOT(SEG_FS), SELECTOR_SLOT(SEG_GS),
    { VCPU_OFF(interrupt_held), 1, MAY_READ, SLOT_OWN, 0 },
    LIMIT_SLOTS(SEG_ES), LIMIT_SLOTS(SEG_CS), LIMIT_SLOTS(SEG_SS), LIMIT_SLOTS(SEG_DS), LIMIT_SLOTS(SEG_FS),
    LIMIT_SLOTS(SEG_GS),
    { AREA_OFF(ip_page), 8, MAY_BOTH, SLOT_NUMBER, 0 },
    { VCPU_OFF(s.cc), 2, MAY_BOTH, SLOT_NUMBER, 0 },
    { VCPU_OFF(s.rflags), 8, MAY_BOTH, SLOT_FLAGS, 0 },
    { VCPU_OFF(requests), 4, MAY_READ, SLOT_OWN, 0 },
    { VCPU_OFF(mmu.gen), 8, MAY_READ, SLOT_GEN, 0 },
    { VCPU_OFF(mmu.stamp), sizeof(((struct mmu *)0)->stamp), MAY_READ, SLOT_STAMP, 0 },
    { AREA_OFF(page), 8, MAY_BOTH, SLOT_VALUE, VAR_PAGE },
    { AREA_OFF(exit_lin), 8, MAY_BOTH, SLOT_VALUE, VAR_EXIT_LIN },
    { AREA_OFF(left), 8, MAY_BOTH, SLOT_OWN, 0 },
    { AREA_OFF(strip), 4, MAY_BOTH, SLOT_ROUNDS, VAR_STRIP },
    { AREA_OFF(call_slot), 8, MAY_BOTH, SLOT_ADDRESS, VAR_CALL },
    { AREA_OFF(string_rest), 8, MAY_BOTH, SLOT_NUMBER, 0 },
    { AREA_OFF(strip_skip), 4, MAY_BOTH, SLOT_OWN, 0 },
    { AREA_OFF(simd_live), 4, MAY_READ, SLOT_SIMD, 0 },
    { AREA_OFF(x87_used), 4, MAY_READ, SLOT_X87, 0 },
    { AREA_OFF(x87_fop), 4, MAY_BOTH, SLOT_OWN, 0 },
    { AREA_OFF(x87_seg), 4, MAY_BOTH, SLOT_OWN, 0 },
    { VCPU_OFF(s.fpu.fcw), 2, MAY_BOTH, SLOT_FCW, 0 },
    { VCPU_OFF(s.fpu.fip), 8, MAY_WRITE, SLOT_NUMBER, 0 },
    { VCPU_OFF(s.fpu.fdp), 8, MAY_WRITE, SLOT_NUMBER, 0 },
    { AREA_OFF(jumps), 8, MAY_READ, SLOT_JUMPS, 0 },
    { AREA_OFF(context_id), 8, MAY_READ, SLOT_CONTEXT, 0 },
    { AREA_OFF(far_delta), 8, MAY_READ, SLOT_FAR, 0 },
};
/* clang-format on */

static const struct slot *slot_at(int64_t at, unsigned size)
{
    for (unsigned i = 0; i < array_size(slots); i++)
        if (at >= slots[i].at && at + (int64_t)size <= slots[i].at + (int64_t)slots[i].size)
            return &slots[i];
    return NULL;
}

static const char *place_group(struct place *p, int64_t at, unsigned size)
{
    int64_t off = at - AREA_OFF(group);
    if (off < 0 || off >= (int64_t)(8 * GROUP_SLOTS) || off % 8 || size != 8)
        return "a part of struct vcpu or its area that is not declared";
    *p = (struct place){ .kind = PLACE_GROUP, .var = VAR_GROUP + (unsigned)off / 8 };
    return NULL;
}

static const char *place_spot(const struct rules *r, struct place *p, int64_t at, unsigned size, bool write)
{
    uint64_t off = (uint64_t)(at - AREA_OFF(spots));
    p->kind = PLACE_SPOT;
    p->spot = (unsigned)(off / sizeof(struct bt_spot));
    p->field = (unsigned)(off % sizeof(struct bt_spot));
    if (p->spot - r->u->first_spot >= r->u->nspots || write)
        return "a spot of another unit, or written by the code itself";
    return p->field % 8 || size > 8 ? "a part of a spot" : NULL;
}

static const char *place_far(const struct rules *r, struct place *p, int64_t at, unsigned size, bool write)
{
    uint64_t off = (uint64_t)(at - AREA_OFF(fars));
    *p = (struct place){ .kind = PLACE_FAR, .field = (unsigned)(off % sizeof(struct bt_far)) };
    if (p->field % 8 || size != 8 || write)
        return "a part of a far link, or written by the code itself";
    while (p->link < r->u->nlinks &&
           !(r->u->links[p->link].far && r->u->links[p->link].slot == off / sizeof(struct bt_far)))
        p->link++;
    return p->link < r->u->nlinks ? NULL : "a far link of another unit";
}

/* [rsp + disp] */
static const char *place_in_vcpu(const struct rules *r, struct place *p, const struct verify_operand *o)
{
    if (o->val >= AREA_OFF(spots) && o->val < AREA_OFF(spots) + (int64_t)(SPOTS * sizeof(struct bt_spot)))
        return place_spot(r, p, o->val, o->size, o->write);
    if (o->val >= AREA_OFF(fars) && o->val < AREA_OFF(fars) + (int64_t)(FARS * sizeof(struct bt_far)))
        return place_far(r, p, o->val, o->size, o->write);
    const struct slot *s = slot_at(o->val, o->size);
    if (!s)
        return place_group(p, o->val, o->size);
    unsigned write = MAY_WRITE | (r->u->kernel ? KERNEL_MAY_WRITE : 0) |
                     (r->u->by_paragraph ? PARAGRAPH_MAY_WRITE : 0);
    if ((o->read && !(s->rights & MAY_READ)) || (o->write && !(s->rights & write)))
        return "a slot of struct vcpu without the right to it";
    *p = (struct place){ .kind = PLACE_SLOT, .slot = s, .var = s->var };
    return NULL;
}

/* [rsp + slot's offset + disp] */
static const char *place_in_tlb(const struct rules *r, struct place *p, const struct verify_state *st,
                                const struct verify_operand *o)
{
    int64_t table = VCPU_OFF(mmu.tlbs) + (int64_t)(r->u->tlb_index * sizeof(struct tlb_entry) * TLB_ENTRIES),
            off = o->val - table;
    if (o->index >= 16 || st->var[o->index].kind != V_TLB || o->scale != 1)
        return "an index into struct vcpu that is not a slot of the TLB";
    if (off < 0 || off + o->size > (int64_t)sizeof(struct tlb_entry) || off % 8 || o->size != 8 || o->write)
        return "not a word of this mode's TLB";
    *p = (struct place){ .kind = PLACE_TLB, .field = (unsigned)off };
    return NULL;
}

/* [rsp + place * 8 + table]: of the privilege that it runs with. */
static const char *place_of_return(const struct rules *r, struct place *p, const struct verify_operand *o)
{
    int64_t off = o->val - AREA_OFF(returns) - (int64_t)(r->u->tlb_index * sizeof(struct bt_returns));
    *p = (struct place){ .kind = PLACE_RETURN, .field = (unsigned)off };
    if (o->size != 8 || o->scale != 8 || !r->u->code64 ||
        (off != offsetof(struct bt_returns, lin) && off != offsetof(struct bt_returns, code)))
        return "not a word of this mode's table of returns";
    return NULL;
}

static const char *place_at_address(struct place *p, const struct value *v, const struct verify_operand *o)
{
    if (!o->size || o->val < 0 || o->val + o->size > v->aux)
        return "memory outside of what was checked";
    *p = (struct place){ .kind = PLACE_GUEST };
    return o->write && !v->write ? "a write to what was checked for reading" : NULL;
}

/* A host operand: base + index, one of them a distance, the other a number that it covers. */
static const char *place_in_guest(const struct rules *r, struct place *p, const struct verify_state *st,
                                  const struct verify_operand *o)
{
    if (o->base < 16 && o->index == NO_REG && st->var[o->base].kind == V_ADDRESS)
        return place_at_address(p, &st->var[o->base], o);
    if (o->base >= 16 || o->index >= 16 || o->scale != 1 || !o->size)
        return "memory that nothing was checked for";
    const struct value *a = &st->var[o->base], *b = &st->var[o->index];
    const struct value *delta = b->kind == V_DELTA ? b : a, *number = b->kind == V_DELTA ? a : b;
    if (delta->kind != V_DELTA || !value_clean(number))
        return "memory that nothing was checked for";
    struct value at = value_like16(&r->symbols, delta, *number);
    if (!delta_covers(delta, value_add(at, o->val), o->size))
        return "memory outside of what was checked";
    if (o->write && !delta->write)
        return "a write to what was checked for reading";
    /* Outside 64-bit code a distance is for an offset, whose limit was looked at. */
    for (unsigned seg = 0; seg < SEG_COUNT && !r->u->code64; seg++)
        if (symbol_in(&r->symbols, number->sym, st->var[VAR_BASE + seg].sym))
            return "a segment whose limit was not looked at";
    *p = (struct place){ .kind = PLACE_GUEST };
    return NULL;
}

const char *place_of(const struct rules *r, struct place *p, const struct verify_state *st,
                     const struct verify_operand *o)
{
    if (o == r->view.operand) {
        *p = (struct place){ .kind = r->view.table ? PLACE_VIEW_TABLE : PLACE_GUEST };
        return r->view.broken;
    }
    if (o->gs || o->narrow)
        return "the host's GS, or an address of less than 64 bits";
    if (o->base == H_RSP && o->index < 16 && st->var[o->index].kind == V_PLACE)
        return place_of_return(r, p, o);
    if (o->base == H_RSP)
        return o->index == NO_REG ? place_in_vcpu(r, p, o) : place_in_tlb(r, p, st, o);
    if (o->index == NO_REG && o->base < 16 && st->var[o->base].kind == V_JUMP) {
        *p = (struct place){ .kind = PLACE_JUMP, .field = (unsigned)o->val };
        return o->val || o->size != 8 || o->write ? "a part of a jump table's slot" : NULL;
    }
    return place_in_guest(r, p, st, o);
}

/* --- values -------------------------------------------------------------------------------------------------- */

const char *set_register(struct verify_state *st, unsigned reg, struct value v)
{
    if (reg == H_RSP)
        return "the stack pointer changed";
    if (is_guest_register(reg) && !value_harmless(&v))
        return "a secret in a guest register";
    if ((st->flags.kind == F_ORDER || st->flags.kind == F_LESS || st->flags.kind == F_MASKS) &&
        (st->flags.v.aux >> 4 == reg || (st->flags.v.aux & 15) == reg))
        st->flags = (struct flags_value){ .kind = F_SCRATCH };
    st->var[reg] = v;
    return NULL;
}

const char *set_slot(struct verify_state *st, const struct place *p, struct value v, unsigned i)
{
    if (p->kind == PLACE_GROUP) {
        if (v.kind != V_DELTA)
            return "a group's slot that gets no distance";
        v.credit = v.group = 0;
        strip_forget_group(st, p->var - VAR_GROUP);
        st->var[p->var] = v;
        return NULL;
    }
    if (p->kind == PLACE_SLOT && p->slot->kind == SLOT_OWN)
        return NULL;
    if (p->kind == PLACE_SLOT && p->slot->kind == SLOT_ADDRESS) {
        st->var[VAR_CALL] = v.kind == V_ADDRESS ? v : value_secret();
        return NULL;
    }
    if (p->kind == PLACE_SLOT && p->slot->kind == SLOT_ROUNDS) {
        st->var[p->var] = v.kind == V_ROUNDS ? v : value_secret();
        return NULL;
    }
    if (!value_harmless(&v))
        return "a secret in memory that the guest can see";
    if (p->kind == PLACE_SLOT &&
        p->slot->kind == SLOT_VALUE) /* a step of a sequence is a number to the guest */
        st->var[p->var] = value_clean(&v) ? v : value_made(i, p->var);
    return NULL;
}

struct value slot_value(const struct verify_state *st, const struct place *p, unsigned i)
{
    bool slot = p->kind == PLACE_SLOT;
    if (p->kind == PLACE_GROUP || (slot && (p->slot->kind == SLOT_VALUE || p->slot->kind == SLOT_ADDRESS))) {
        return st->var[p->var];
    }
    if (p->kind == PLACE_SLOT && p->slot->kind == SLOT_END)
        return (struct value){ .kind = V_END, .aux = p->slot->var };
    if (p->kind == PLACE_SLOT && p->slot->kind == SLOT_STAMP)
        return (struct value){ .kind = V_STAMP };
    if (p->kind == PLACE_SLOT && p->slot->kind == SLOT_FAR)
        return (struct value){ .kind = V_FAR };
    if (p->kind == PLACE_GUEST ||
        (p->kind == PLACE_SLOT &&
         (p->slot->kind == SLOT_NUMBER || p->slot->kind == SLOT_FLAGS || p->slot->kind == SLOT_FCW)))
        return value_made(i, 0);
    return value_secret();
}
