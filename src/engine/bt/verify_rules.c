/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules for single instructions.
 *
 *   memory    declared slots of struct vcpu and its area; what the translator's own look-ups read; else a host operand: a
 *             register with a distance that was checked, plus the number that it was checked for
 *   secrets   host addresses and the translator's numbers stay in registers that are not the guest's
 *   others    the stack pointer never changes; vector registers are used only when they are the guest's
 */
#include "engine/bt/verify_rules.h"

#include "base/bits.h"

#include <stddef.h>
#include <string.h>

#define GUEST_REGISTERS \
    0x8fefu         /* host registers that are guest registers: all but RSP and the scratch registers */
#define TAG_SHIFT 7 /* from a linear address to the offset of its slot */

_Static_assert(sizeof(struct tlb_entry) == 1u << (PAGE_SHIFT - TAG_SHIFT), "a slot's offset by one shift");

/* --- slots --------------------------------------------------------------------------------------------------- */

enum slot_kind {
    SLOT_VALUE,
    SLOT_NUMBER,
    SLOT_OWN,
    SLOT_ROUNDS,
    SLOT_END,
    SLOT_LOW,
    SLOT_ADDRESS,
    SLOT_FLAGS,
    SLOT_GEN,
    SLOT_STAMP,
    SLOT_SIMD,
    SLOT_X87,
    SLOT_FCW,
    SLOT_JUMPS,
    SLOT_FAR
};
enum { MAY_READ = 1, MAY_WRITE = 2, MAY_BOTH = 3, KERNEL_MAY_WRITE = 4 };

struct slot {
    int32_t at;
    uint16_t size;
    uint8_t rights, kind, var; /* var: of SLOT_VALUE and SLOT_ROUNDS; of SLOT_FLAT which */
};

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
            MAY_READ, SLOT_NUMBER, 0 \
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
    BASE_SLOT(SEG_FS, MAY_BOTH), BASE_SLOT(SEG_GS, MAY_BOTH), BASE_SLOT(SEG_ES, MAY_READ),
    BASE_SLOT(SEG_CS, MAY_READ), BASE_SLOT(SEG_SS, MAY_READ), BASE_SLOT(SEG_DS, MAY_READ),
    { VCPU_OFF(s.seg[SEG_FS].base), 8, MAY_BOTH, SLOT_NUMBER, 0 },
    { VCPU_OFF(s.seg[SEG_GS].base), 8, MAY_BOTH, SLOT_NUMBER, 0 },
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

/* What a memory operand is. */
enum place_kind { PLACE_SLOT, PLACE_GROUP, PLACE_TLB, PLACE_SPOT, PLACE_JUMP, PLACE_GUEST, PLACE_VIEW_TABLE };
struct place {
    enum place_kind kind;
    const struct slot *slot;
    unsigned var;   /* SLOT_VALUE, PLACE_GROUP */
    unsigned field; /* PLACE_TLB, PLACE_SPOT, PLACE_JUMP: offset in the entry */
    unsigned spot;
};

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

/* [rsp + disp] */
static const char *place_in_vcpu(const struct rules *r, struct place *p, const struct verify_operand *o)
{
    if (o->val >= AREA_OFF(spots) && o->val < AREA_OFF(spots) + (int64_t)(SPOTS * sizeof(struct bt_spot)))
        return place_spot(r, p, o->val, o->size, o->write);
    const struct slot *s = slot_at(o->val, o->size);
    if (!s)
        return place_group(p, o->val, o->size);
    unsigned write = r->u->kernel ? MAY_WRITE | KERNEL_MAY_WRITE : MAY_WRITE;
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
    if (!delta_covers(delta, value_add(*number, o->val), o->size))
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

static const char *place_of(const struct rules *r, struct place *p, const struct verify_state *st,
                            const struct verify_operand *o)
{
    if (o == r->view.operand) {
        *p = (struct place){ .kind = r->view.table ? PLACE_VIEW_TABLE : PLACE_GUEST };
        return r->view.broken;
    }
    if (o->gs || o->narrow)
        return "the host's GS, or an address of less than 64 bits";
    if (o->base == H_RSP)
        return o->index == NO_REG ? place_in_vcpu(r, p, o) : place_in_tlb(r, p, st, o);
    if (o->index == NO_REG && o->base < 16 && st->var[o->base].kind == V_JUMP) {
        *p = (struct place){ .kind = PLACE_JUMP, .field = (unsigned)o->val };
        return o->val || o->size != 8 || o->write ? "a part of a jump table's slot" : NULL;
    }
    return place_in_guest(r, p, st, o);
}

/* --- values -------------------------------------------------------------------------------------------------- */

static bool is_guest_register(unsigned reg) { return GUEST_REGISTERS >> reg & 1; }

static const char *set_register(struct verify_state *st, unsigned reg, struct value v)
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

static const char *set_slot(struct verify_state *st, const struct place *p, struct value v, unsigned i)
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

/* The value of a whole slot; what is not followed is a number of instruction i, or a secret. */
static struct value slot_value(const struct verify_state *st, const struct place *p, unsigned i)
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

/* --- any instruction: operands from operands ----------------------------------------------------------------- */

/* May this AND or OR of an immediate change nothing but DF, clear nothing but RF, and in the kernel IF and AC? */
static bool changes_allowed_flags(const struct rules *r, const struct verify_insn *in)
{
    const struct verify_operand *o = &in->o[0];
    if (o->kind != OPR_MEM || in->o[1].kind != OPR_IMM || (in->op != OP_AND && in->op != OP_OR))
        return false;
    uint64_t bits = (uint64_t)(in->op == OP_AND ? ~in->o[1].val : in->o[1].val) & mask_bytes(o->size);
    uint64_t changed = bits << 8 * (unsigned)(o->val - VCPU_OFF(s.rflags));
    return !(changed &
             ~(uint64_t)(FL_DF | (in->op == OP_AND ? FL_RF : 0) | (r->u->kernel ? FL_IF | FL_AC : 0)));
}

/* Of the guest's control word in its slot: read or written by the x87 itself, read, or written with all exceptions masked. */
static bool controls(const struct verify_state *st, const struct verify_insn *in,
                     const struct verify_operand *o)
{
    if (in->op == OP_FCW || !o->write)
        return true;
    return in->op == OP_MOV && o->size == 2 && in->o[1].kind == OPR_GPR &&
           st->var[in->o[1].reg].kind == V_FCW;
}

struct effect {
    bool secret; /* made from one */
    struct place place;
    bool has_place;
};

static const char *look_at_operand(const struct rules *r, struct effect *e, const struct verify_state *st,
                                   const struct verify_insn *in, const struct verify_operand *o, unsigned i)
{
    switch (o->kind) {
    case OPR_GPR:
        if (o->read || o->maybe || (o->write && o->size < 4))
            e->secret |= !value_harmless(&st->var[o->reg]);
        return o->write && o->reg == H_RSP ? "the stack pointer changed" : NULL;
    case OPR_VECTOR: return NULL;
    case OPR_X87: return st->x87 ? NULL : "x87 registers that may be the host's";
    case OPR_FLAGS: return NULL;
    case OPR_MEM: {
        const char *broken = place_of(r, &e->place, st, o);
        if (broken)
            return broken;
        if (e->has_place)
            return "two memory operands";
        e->has_place = true;
        bool slot = e->place.kind == PLACE_SLOT, control = slot && e->place.slot->kind == SLOT_FCW;
        if (control ? !controls(st, in, o) : in->op == OP_FCW)
            return "a control word of the x87 whose masks were not looked at";
        if (slot && e->place.slot->kind == SLOT_FLAGS && o->write && !changes_allowed_flags(r, in))
            return "a change of the guest's flags beyond DF, or IF and AC in the kernel";
        struct value held = slot_value(st, &e->place, i);
        bool whole = o->write && !o->read && !(slot && o->size < e->place.slot->size);
        if (!whole && !(slot && e->place.slot->kind == SLOT_FLAGS))
            e->secret |= !value_harmless(&held);
        return NULL;
    }
    case OPR_ADDRESS:
        if (o->base < 16)
            e->secret |= !value_harmless(&st->var[o->base]);
        if (o->index < 16)
            e->secret |= !value_harmless(&st->var[o->index]);
        return NULL;
    default: return NULL;
    }
}

/* What instruction i leaves in a register. Where addresses have 32 bits it is said of a number that it has no more. */
static struct value register_made(const struct rules *r, const struct verify_operand *o, unsigned i)
{
    struct value v = value_made(i, o->reg);
    v.narrow = !r->u->code64 && o->size == 4 && !o->maybe;
    return v;
}

static const char *write_operand(const struct rules *r, struct verify_state *st, const struct effect *e,
                                 const struct verify_operand *o, unsigned i)
{
    if (!o->write)
        return NULL;
    if (o->kind == OPR_GPR)
        return set_register(st, o->reg, e->secret ? value_secret() : register_made(r, o, i));
    if (o->kind == OPR_VECTOR || o->kind == OPR_X87)
        return e->secret ? "a secret in a vector register" : NULL;
    if (o->kind != OPR_MEM)
        return NULL;
    if (e->place.kind == PLACE_SLOT && e->place.slot->kind == SLOT_VALUE)
        return set_slot(st, &e->place, e->secret ? value_secret() : value_made(i, e->place.var), i);
    return set_slot(st, &e->place, e->secret ? value_secret() : value_made(i, VAR_SLOT), i);
}

static void write_flags(struct verify_state *st, const struct verify_insn *in, bool secret)
{
    if (!in->flags_written)
        return;
    bool all = in->flags_written == FL_STATUS && !in->flags_maybe;
    bool guest = !secret && (all || flags_shown(&st->flags));
    st->flags = (struct flags_value){ .kind = guest ? F_GUEST : F_SCRATCH };
}

static const char *apply_any(struct rules *r, struct verify_state *st, const struct verify_insn *in,
                             unsigned i)
{
    struct effect e = { 0 };
    if (in->simd > st->simd)
        return "vector registers that may be the host's";
    for (unsigned n = 0; n < in->noperands; n++) {
        const char *broken = look_at_operand(r, &e, st, in, &in->o[n], i);
        if (broken)
            return broken;
    }
    if (in->flags_read && !flags_shown(&st->flags))
        return "flags of the translator's own that the guest could see";
    for (unsigned n = 0; n < in->noperands; n++) {
        const char *broken = write_operand(r, st, &e, &in->o[n], i);
        if (broken)
            return broken;
    }
    write_flags(st, in, e.secret);
    return NULL;
}

/* --- sequences that are followed ------------------------------------------------------------------------------ */

static bool is_reg(const struct verify_operand *o, unsigned size)
{
    return o->kind == OPR_GPR && o->size == size;
}
static bool is_imm(const struct verify_operand *o) { return o->kind == OPR_IMM; }

/* All but rounds may be had twice. */
static struct value copied(struct value v)
{
    return v.kind == V_ROUNDS || v.kind == V_SPENT ? value_secret() : v;
}

static struct value stepped(struct value v, enum value_kind kind)
{
    v.kind = (uint8_t)kind;
    return v;
}

static bool scratch_flags(struct verify_state *st)
{
    st->flags = (struct flags_value){ .kind = F_SCRATCH };
    return true;
}

/* Each of these returns true when it has done the whole instruction; else it is done like any other. */

static bool follow_load(struct rules *r, struct verify_state *st, const struct verify_insn *in, unsigned i,
                        struct value *out)
{
    struct place p;
    const struct verify_operand *o = &in->o[1];
    if (place_of(r, &p, st, o))
        return false;
    const struct flags_value *f = &st->fact;
    if (p.kind == PLACE_TLB && p.field == offsetof(struct tlb_entry, addend)) {
        if (f->kind != F_TAG)
            return false;
        struct value slot = stepped(st->var[o->index], V_NUMBER);
        if (!value_equal(&slot, &f->slot))
            return false;
        *out = f->v;
        return true;
    }
    if (p.kind == PLACE_SPOT && p.field == offsetof(struct bt_spot, delta) && f->kind == F_PAGE &&
        f->spot == p.spot) {
        *out = f->v;
        out->write = r->spot_writes[p.spot];
        return true;
    }
    bool whole = p.kind == PLACE_GROUP || (p.kind == PLACE_SLOT && o->size == p.slot->size);
    if (!whole || p.kind == PLACE_TLB)
        return false;
    *out = slot_value(st, &p, i);
    return out->kind != V_SECRET;
}

static bool is_rounds_slot(const struct rules *r, const struct verify_state *st,
                           const struct verify_operand *o)
{
    struct place p;
    return o->kind == OPR_MEM && !place_of(r, &p, st, o) && p.kind == PLACE_SLOT &&
           p.slot->kind == SLOT_ROUNDS;
}

static const char *follow_mov(struct rules *r, struct verify_state *st, const struct verify_insn *in,
                              unsigned i, bool *done)
{
    const struct verify_operand *dst = &in->o[0], *src = &in->o[1];
    struct value v;
    *done = true;
    if (dst->size == 4 && src->kind != OPR_IMM &&
        !is_rounds_slot(r, st, dst) != !is_rounds_slot(r, st, src)) {
        /* Rounds are moved, never copied: they must not be spent twice. */
        struct value *from = src->kind == OPR_GPR ? &st->var[src->reg] : &st->var[VAR_STRIP];
        v = from->kind == V_ROUNDS ? *from : value_secret();
        if (from->kind == V_ROUNDS)
            *from = value_secret();
        if (dst->kind == OPR_GPR)
            return set_register(st, dst->reg, v);
        st->var[VAR_STRIP] = v;
        return NULL;
    }
    if (dst->kind == OPR_GPR && dst->size >= 4) {
        if (is_imm(src))
            return set_register(st, dst->reg,
                                value_number(0, dst->size == 4 ? (int64_t)(uint32_t)src->val : src->val));
        if (src->kind == OPR_GPR && dst->size == 8)
            return set_register(st, dst->reg, copied(st->var[src->reg]));
        if (src->kind == OPR_GPR && dst->size == 4 && value_clean(&st->var[src->reg]))
            return set_register(st, dst->reg, value_narrow(st->var[src->reg], 0));
        if (src->kind == OPR_MEM && follow_load(r, st, in, i, &v) && (dst->size == 8 || v.kind == V_STAMP))
            return set_register(st, dst->reg, v);
    }
    if (dst->kind == OPR_MEM && dst->size == 8 && src->kind == OPR_GPR) {
        struct place p;
        const char *broken = place_of(r, &p, st, dst);
        return broken ? broken : set_slot(st, &p, st->var[src->reg], i);
    }
    *done = false;
    return NULL;
}

static const char *follow_lea(struct rules *r, struct verify_state *st, const struct verify_insn *in,
                              bool *done)
{
    const struct verify_operand *dst = &in->o[0], *src = &in->o[1];
    struct value none = value_number(0, 0);
    struct value a = src->base < 16 ? st->var[src->base] : none,
                 b = src->index < 16 ? st->var[src->index] : none;
    unsigned reach = src->index < 16 && src->scale == 1 && !src->val ? delta_reach(&b, a) : 0;
    if (reach && dst->size == 8) {
        *done = true;
        return set_register(st, dst->reg,
                            (struct value){ .kind = V_ADDRESS, .aux = (uint16_t)reach, .write = b.write });
    }
    if (dst->size < 4 || !value_clean(&a) || !value_clean(&b))
        return NULL;
    *done = true;
    struct value v;
    if (src->index >= 16)
        v = dst->size == 8 ? value_add(a, src->val) : value_narrow(a, src->val);
    else
        v = (dst->size == 8 ? value_sum : value_sum_narrow)(&r->symbols, a, b, src->scale, src->val);
    return set_register(st, dst->reg, v);
}

/* ADD, SUB, INC, DEC of constants to a register or a guest register's slot; what is left over defines the flags like any other. */
static const char *follow_shift(struct rules *r, struct verify_state *st, const struct verify_insn *in,
                                unsigned i, bool *done)
{
    const struct verify_operand *dst = &in->o[0];
    bool unit = in->op == OP_INC || in->op == OP_DEC;
    int64_t by = unit ? 1 : in->o[1].val;
    if (in->op == OP_SUB || in->op == OP_DEC)
        by = -by;
    if (!unit && !is_imm(&in->o[1]))
        return NULL;
    struct place p = { 0 };
    bool slot = dst->kind == OPR_MEM && dst->size == 8 && !place_of(r, &p, st, dst) && p.kind == PLACE_SLOT &&
                p.slot->kind == SLOT_VALUE;
    bool reg = dst->kind == OPR_GPR && dst->size >= 4 && dst->reg != H_RSP;
    if (!slot && !reg)
        return NULL;
    struct value v = slot ? st->var[p.var] : st->var[dst->reg];
    if (!value_clean(&v))
        return NULL;
    v = dst->size == 8 ? value_add(v, by) : value_narrow(v, by);
    const char *broken = apply_any(r, st, in, i);
    *done = true;
    if (!broken)
        broken = slot ? set_slot(st, &p, v, i) : set_register(st, dst->reg, v);
    return broken;
}

static bool follow_and(struct rules *r, struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *dst = &in->o[0];
    if (dst->kind != OPR_GPR || is_guest_register(dst->reg) || dst->reg == H_RSP || !is_imm(&in->o[1]))
        return false;
    struct value *v = &st->var[dst->reg];
    if (dst->size == 8 && in->o[1].val == -(int64_t)PAGE_SIZE && value_clean(v))
        *v = value_page(&r->symbols, *v);
    else if (dst->size == 4 && (uint32_t)in->o[1].val == (TLB_ENTRIES - 1) << (PAGE_SHIFT - TAG_SHIFT) &&
             v->kind == V_SHIFTED)
        v->kind = V_TLB;
    else
        return false;
    return scratch_flags(st);
}

/* Steps that take a scratch register from one kind to the next. */
static bool follow_step(const struct rules *r, struct verify_state *st, const struct verify_insn *in)
{
    enum { HASH_SHIFT = 0xff }; /* by the size of the jump tables */
    static const struct {
        uint8_t op, from, to, imm;
    } steps[] = {
        { OP_SHR, V_NUMBER, V_SHIFTED, TAG_SHIFT },
        { OP_SHR, V_HASH, V_HASH_TOP, HASH_SHIFT },
        { OP_SHL, V_HASH_TOP, V_JUMP_INDEX, 4 },
    };
    const struct verify_operand *dst = &in->o[0];
    if (!is_reg(dst, 4) || is_guest_register(dst->reg) || !is_imm(&in->o[1]))
        return false;
    struct value *v = &st->var[dst->reg];
    for (unsigned n = 0; n < array_size(steps); n++) {
        unsigned imm = steps[n].imm == HASH_SHIFT ? 32 - r->u->jump_bits : steps[n].imm;
        if (steps[n].op == in->op && steps[n].from == v->kind && imm == in->o[1].val) {
            v->kind = steps[n].to;
            return scratch_flags(st);
        }
    }
    return false;
}

/* scratch op [memory] */
static bool follow_with_memory(struct rules *r, struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *dst = &in->o[0];
    struct place p;
    struct value of;
    if (!is_reg(dst, 8) || is_guest_register(dst->reg) || in->o[1].kind != OPR_MEM ||
        place_of(r, &p, st, &in->o[1]))
        return false;
    struct value *v = &st->var[dst->reg];
    enum slot_kind slot = p.kind == PLACE_SLOT ? p.slot->kind : SLOT_NUMBER;
    if (in->op == OP_OR && slot == SLOT_GEN && value_page_of(&r->symbols, *v, &of)) {
        *v = stepped(of, V_TAG);
    } else if (in->op == OP_ADD && slot == SLOT_JUMPS && v->kind == V_JUMP_INDEX) {
        v->kind = V_JUMP;
    } else if (in->op == OP_XOR && p.kind == PLACE_SPOT && p.field == offsetof(struct bt_spot, page) &&
               value_clean(v)) {
        v->kind = V_FROM_PAGE;
        v->aux = (uint16_t)p.spot;
    } else {
        return false;
    }
    return scratch_flags(st);
}

static bool follow_imul(struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *dst = &in->o[0], *src = &in->o[1];
    if (!is_reg(dst, 4) || is_guest_register(dst->reg) || !is_reg(src, 4) || !is_imm(&in->o[2]) ||
        (uint32_t)in->o[2].val != JUMP_HASH || !value_clean(&st->var[src->reg]))
        return false;
    st->var[dst->reg] = stepped(st->var[src->reg], V_HASH);
    return scratch_flags(st);
}

/* Comparisons that prove something when they are equal, or not above. */
static bool compare_memory(const struct rules *r, const struct verify_state *st, const struct verify_insn *in,
                           struct flags_value *f)
{
    const struct value *a = &st->var[in->o[0].reg];
    const struct verify_operand *o = &in->o[1];
    struct place p;
    if (place_of(r, &p, st, o))
        return false;
    if (p.kind == PLACE_TLB && a->kind == V_TAG && p.field <= sizeof(uint64_t)) {
        bool write = p.field == sizeof(uint64_t) * ACCESS_WRITE;
        f->kind = F_TAG;
        f->slot = stepped(st->var[o->index], V_NUMBER);
        return delta_from_tlb(&f->slot, a, write, &f->v);
    }
    if (p.kind == PLACE_SPOT && a->kind == V_STAMP && p.spot == r->u->first_spot && p.field == 0) {
        f->kind = F_STAMP;
        return o->size == sizeof(((struct mmu *)0)->stamp);
    }
    if (p.kind == PLACE_JUMP && value_clean(a)) {
        struct value of = stepped(st->var[o->base], V_NUMBER);
        f->kind = F_JUMP;
        f->v = of;
        return value_equal(&of, a);
    }
    return false;
}

/* cmp [slot], imm: which registers are the guest's? */
static bool compare_slot(const struct slot *slot, unsigned size, int64_t imm, struct flags_value *f)
{
    switch (slot->kind) {
    case SLOT_SIMD: *f = (struct flags_value){ .kind = F_SIMD, .v.aux = (uint16_t)imm }; break;
    case SLOT_X87: f->kind = F_X87; break;
    default: return false;
    }
    return size == slot->size && (slot->kind == SLOT_SIMD ? imm >= SIMD_SSE && imm <= SIMD_AVX512 : imm == 0);
}

static bool follow_cmp(const struct rules *r, struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *a = &in->o[0], *b = &in->o[1];
    struct flags_value f = { 0 };
    struct place p;
    bool ok = false;
    if (a->kind == OPR_GPR && b->kind == OPR_MEM) {
        ok = compare_memory(r, st, in, &f);
    } else if (is_reg(a, 8) && is_imm(b) && st->var[a->reg].kind == V_FROM_PAGE && b->val >= 0 &&
               b->val < (int64_t)PAGE_SIZE) {
        /* number ^ page <= imm: it lies on the page, and so do PAGE_SIZE - imm bytes from it on */
        f = (struct flags_value){ .kind = F_PAGE,
                                  .spot = st->var[a->reg].aux,
                                  .v = stepped(st->var[a->reg], V_DELTA) };
        f.v.aux = (uint16_t)((int64_t)PAGE_SIZE - b->val);
        ok = true;
    } else if (a->kind == OPR_MEM && is_imm(b) && !place_of(r, &p, st, a) && p.kind == PLACE_SLOT) {
        ok = compare_slot(p.slot, a->size, b->val, &f);
    }
    if (ok)
        st->flags = f;
    return ok;
}

/* A step to the distance of an offset in a segment. */
static bool follow_segment(struct rules *r, struct verify_state *st, const struct verify_insn *in)
{
    struct place p;
    if (r->u->code64)
        return false;
    if (in->op == OP_OR)
        return segment_or(st, in);
    if (in->o[1].kind != OPR_MEM)
        return in->op == OP_SUB ? segment_subtract(st, in) || segment_to_offset(&r->symbols, st, in)
                                : segment_to_host(st, in);
    if (place_of(r, &p, st, &in->o[1]) || p.kind != PLACE_SLOT)
        return false;
    if (p.slot->kind == SLOT_LOW)
        return segment_above_low(st, in, p.slot->var);
    bool base = p.slot->kind == SLOT_VALUE && p.var >= VAR_BASE && p.var <= VAR_BASE_END;
    return base && segment_with_base(&r->symbols, st, in, p.var);
}

/* The same where a step fails: scratch registers may be compared as one likes, as long as the guest does not see it. */
static const char *apply(struct rules *r, struct verify_state *st, const struct verify_insn *in, unsigned i)
{
    bool done = false;
    const char *broken = NULL;
    switch (in->op) {
    case OP_MOV: broken = follow_mov(r, st, in, i, &done); break;
    case OP_LEA:
        done = string_step(st, in, i);
        if (!done)
            broken = follow_lea(r, st, in, &done);
        break;
    case OP_REP: return string_rep(st, in, i);
    case OP_CMOVBE:
    case OP_NEG: done = string_step(st, in, i); break;
    case OP_INC:
    case OP_DEC: broken = follow_shift(r, st, in, i, &done); break;
    case OP_SUB:
        done = follow_segment(r, st, in) ||
               strip_spend(st, in, in->o[0].kind == OPR_MEM && is_rounds_slot(r, st, &in->o[0])) ||
               strip_step(st, in) || string_step(st, in, i);
        if (!done)
            broken = follow_shift(r, st, in, i, &done);
        break;
    case OP_ADD:
        done = follow_segment(r, st, in) || follow_with_memory(r, st, in) || string_step(st, in, i);
        if (!done)
            broken = follow_shift(r, st, in, i, &done);
        break;
    case OP_AND: done = follow_and(r, st, in) || strip_step(st, in); break;
    case OP_TEST: done = x87_step(st, in); break;
    case OP_NOT:
    case OP_CMOVA: done = strip_step(st, in) || x87_step(st, in); break;
    case OP_OR:
        done = follow_segment(r, st, in) || follow_with_memory(r, st, in) || string_step(st, in, i);
        break;
    case OP_XOR: done = follow_with_memory(r, st, in); break;
    case OP_SHL:
    case OP_SHR: done = follow_step(r, st, in) || strip_step(st, in) || string_step(st, in, i); break;
    case OP_IMUL: done = follow_imul(st, in); break;
    case OP_SHRX:
    case OP_RORX: done = view_step(r, st, in); break;
    case OP_CMP: done = follow_cmp(r, st, in) || strip_step(st, in) || string_step(st, in, i); break;
    default: break;
    }
    if (!done && !broken)
        broken = apply_any(r, st, in, i);
    if (!broken && r->symbols.full)
        return "more sums than the verifier keeps";
    return broken;
}

const char *rules_apply(struct rules *r, struct verify_state *st, const struct verify_insn *in, unsigned i)
{
    view_look(r, st, in);
    uint32_t small = view_small(st, in);
    const char *broken = apply(r, st, in, i);
    st->small = small;
    view_done(r, st);
    return broken;
}

/* --- jumps and calls ----------------------------------------------------------------------------------------- */

enum {
    COND_BELOW = 2,
    COND_NOT_BELOW = 3,
    COND_NEGATIVE = 8,
    COND_NOT_NEGATIVE = 9,
    COND_EQUAL = 4,
    COND_NOT_EQUAL = 5,
    COND_NOT_ABOVE = 6,
    COND_ABOVE = 7
};

void rules_branch(struct verify_state *st, unsigned cond, bool taken)
{
    const struct flags_value f = st->flags;
    bool equal = taken ? cond == COND_EQUAL : cond == COND_NOT_EQUAL;
    bool unequal = taken ? cond == COND_NOT_EQUAL : cond == COND_EQUAL;
    bool not_above = taken ? cond == COND_NOT_ABOVE : cond == COND_ABOVE;
    if (f.kind < F_TAG)
        return;
    st->flags = (struct flags_value){ .kind = flags_shown(&f) ? F_GUEST : F_SCRATCH };
    if (equal && f.kind == F_STAMP)
        st->fresh = true;
    if (f.kind == F_SIMD && cond == (taken ? COND_NOT_BELOW : COND_BELOW) && st->simd < f.v.aux)
        st->simd = (uint8_t)f.v.aux;
    if (unequal && f.kind == F_X87)
        st->x87 = true;
    if (equal && f.kind == F_MASKS)
        x87_masked(st, f.v.aux & 15);
    if (f.kind == F_LIMIT && cond == (taken ? COND_NOT_NEGATIVE : COND_NEGATIVE))
        st->limit = f;
    if (f.kind == F_SPENT && cond == (taken ? COND_NOT_NEGATIVE : COND_NEGATIVE))
        strip_next_round(st, f.v.aux);
    if (not_above && f.kind == F_MOST)
        st->most = f;
    if (not_above && f.kind == F_RUN)
        string_run_ends(st);
    bool proved = (equal && (f.kind == F_TAG || f.kind == F_JUMP)) ||
                  (not_above && f.kind == F_PAGE && st->fresh);
    if (!flags_shown(&f))
        st->fact = proved ? f : (struct flags_value){ .kind = F_SCRATCH };
}

const char *rules_indirect_jump(const struct rules *r, const struct verify_state *st,
                                const struct verify_insn *in)
{
    const struct verify_operand *o = &in->o[0];
    if (o->gs || st->simd < r->u->simd)
        return "an indirect jump by the host's GS, or without the vector registers that are always there";
    if (o->kind != OPR_MEM || o->size != 8 || o->index != NO_REG || o->base >= 16 ||
        o->val != offsetof(struct bt_jump, code))
        return "an indirect jump that is not through a jump table";
    const struct value *v = &st->var[o->base];
    struct value of = stepped(*v, V_NUMBER);
    if (v->kind != V_JUMP || st->fact.kind != F_JUMP || !value_equal(&st->fact.v, &of))
        return "an indirect jump through a slot that was not compared";
    return NULL;
}

/* Is this register the constant `*val`? */
static bool constant(const struct verify_state *st, unsigned reg, int64_t *val)
{
    const struct value *v = &st->var[reg];
    *val = v->c;
    return value_clean(v) && !v->sym;
}

/* A called instruction: it changes these registers, or all the guest has. */
static void called(struct verify_state *st, unsigned changes, uint8_t always, unsigned i)
{
    for (unsigned n = 0; n < VARS; n++) {
        bool kept = changes && value_clean(&st->var[n]) && !(n < 16 && changes >> n & 1);
        bool followed = n < VAR_GROUP || n >= VAR_PAGE;
        st->var[n] = !followed ? value_secret() : kept ? st->var[n] : value_made(i, n);
    }
    st->var[H_RSP] = st->var[T0] = value_secret();
    st->var[VAR_STRIP] = st->var[VAR_CALL] = value_secret();
    memset(st->runs, 0, sizeof(st->runs));
    st->pending.valid = false;
    st->most.kind = F_SCRATCH;
    st->fresh = st->x87 = false;
    st->simd = always;
    st->limit.kind = F_SCRATCH;
    view_called(st, changes);
}

static const char *spot_filled(const struct rules *r, int64_t info)
{
    uint64_t spot = (uint64_t)info >> FILL_SPOT_SHIFT & (SPOTS - 1);
    if (spot - r->u->first_spot - 1 >= r->u->nspots - 1ull)
        return "a spot of another unit is filled";
    return r->spot_writes[spot] && !(info & FILL_WRITE) ? "a spot that may be written, filled for reading"
                                                        : NULL;
}

const char *rules_call(struct rules *r, struct verify_state *st, enum verify_gate_kind kind, bool failed,
                       unsigned i)
{
    int64_t arg;
    const char *broken = NULL;
    if (kind == VERIFY_SIMD) {
        if (st->simd < SIMD_SSE)
            st->simd = SIMD_SSE;
        return NULL;
    }
    if (!constant(st, T1, &arg) && kind != VERIFY_LOOKUP && kind != VERIFY_X87)
        return "a gate called without a constant argument";
    switch (kind) {
    case VERIFY_SPOTS:
    case VERIFY_UNLINK:
        if (arg != r->u->unit)
            return "a gate called for another unit";
        st->fresh |= kind == VERIFY_SPOTS && !failed;
        break;
    case VERIFY_CALL:
        arg -= r->u->first_call;
        if ((uint64_t)arg >= r->u->ncalls || arg >= VERIFY_CALLS)
            return "a called instruction of another unit";
        called(st, r->u->call_changes[arg], r->u->simd, i);
        break;
    case VERIFY_X87: st->x87 = true; break;
    case VERIFY_ACCOUNT: break;
    case VERIFY_TSC:
        st->var[H_RAX] = value_made(i, H_RAX);
        if (arg)
            st->var[H_RCX] = value_made(i, H_RCX);
        st->var[H_RDX] = value_made(i, H_RDX);
        break;
    case VERIFY_SMAP:
        if (!r->u->kernel)
            return "a mode of the kernel's in user code";
        break;
    case VERIFY_SIMD_LEVEL:
        if (arg != SIMD_AVX && arg != SIMD_AVX512)
            return "vector registers of no level";
        st->simd = (uint8_t)arg;
        break;
    case VERIFY_SPOT: broken = spot_filled(r, arg); break;
    case VERIFY_FILL:
    case VERIFY_LOOKUP: break;
    default: return "a call of what is not called";
    }
    st->var[T1] = st->var[T2] = value_secret();
    st->small &= ~(1u << T1 | 1u << T2);
    st->flags = st->fact = (struct flags_value){ .kind = F_SCRATCH };
    return broken;
}

const char *rules_exit(const struct rules *r, const struct verify_state *st, enum verify_gate_kind kind)
{
    int64_t info, arg;
    if (!verify_gate_is_left(kind))
        return "a jump to what is called";
    if (kind == VERIFY_SYSRET && !r->u->kernel)
        return "a mode of the kernel's in user code";
    if (kind == VERIFY_EXIT_E && !flags_shown(&st->flags))
        return "flags of the translator's own that the guest could see";
    if (!constant(st, T1, &info))
        return "an exit without a constant reason";
    bool has_arg = constant(st, T2, &arg);
    unsigned why = EXIT_KIND((uint32_t)info);
    if (why >= BT_EXITS || EXIT_OFF((uint32_t)info) >= PAGE_SIZE)
        return "an exit that does not exist";
    if (why == BT_LINK && (!has_arg || (uint64_t)(arg - r->u->first_link) >= r->u->nlinks))
        return "a link of another unit";
    bool turns = kind == VERIFY_SYSCALL || kind == VERIFY_SYSRET;
    if (turns && why != BT_BAIL)
        return "an instruction that the interpreter does not do when the gate cannot";
    if ((why == BT_LOOK_FAR || why == BT_STALE || kind == VERIFY_SYSCALL) && !value_harmless(&st->var[T0]))
        return "a secret in the guest's instruction pointer";
    return NULL;
}

void rules_entry(struct verify_state *st, bool guest_flags, bool linear_address)
{
    *st = (struct verify_state){ .flags = { .kind = guest_flags ? F_GUEST : F_SCRATCH } };
    for (unsigned n = 0; n < VARS; n++)
        st->var[n] = value_at_entry(n);
    for (unsigned n = VAR_GROUP; n < VAR_PAGE; n++)
        st->var[n] = value_secret();
    st->var[H_RSP] = st->var[T1] = st->var[T2] = st->var[VAR_STRIP] = st->var[VAR_CALL] = value_secret();
    if (!linear_address)
        st->var[T0] = value_secret();
}
