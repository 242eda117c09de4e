/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules for single instructions: operands (verify_place.c), and the sequences by which the translator looks things up, step by
 * step. What is no step is done like any other: what it writes is made of what it reads. The stack pointer never changes; vector
 * registers are used only when they are the guest's; flags of the translator's own are never shown.
 */
#include "base/bits.h"
#include "engine/bt/verify_place.h"

#include <stddef.h>

#define TAG_SHIFT 7 /* from a linear address to the offset of its slot */

_Static_assert(sizeof(struct tlb_entry) == 1u << (PAGE_SHIFT - TAG_SHIFT), "a slot's offset by one shift");

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
             ~(uint64_t)(FL_DF | (in->op == OP_AND ? FL_RF : 0) | (r->u->privileged ? FL_IF | FL_AC : 0)));
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
        if (e->place.kind == PLACE_RETURN)
            return "a place of the table of returns, not as calls and returns use it";
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
static struct value register_made(const struct rules *r, const struct verify_insn *in,
                                  const struct verify_operand *o, unsigned i)
{
    struct value v = value_made(i, o->reg);
    v.narrow = !r->u->code64 && o->size == 4 && !o->maybe && in->op != OP_KEEPS;
    return v;
}

static const char *write_operand(const struct rules *r, struct verify_state *st, const struct verify_insn *in,
                                 const struct effect *e, const struct verify_operand *o, unsigned i)
{
    if (!o->write)
        return NULL;
    if (o->kind == OPR_GPR)
        return set_register(st, o->reg, e->secret ? value_secret() : register_made(r, in, o, i));
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
        const char *broken = write_operand(r, st, in, &e, &in->o[n], i);
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
        struct value slot = value_as(st->var[o->index], V_NUMBER);
        if (!value_equal(&slot, &f->slot))
            return false;
        *out = f->v;
        return true;
    }
    if (p.kind == PLACE_FAR && p.field == offsetof(struct bt_far, guard)) {
        *out = (struct value){ .kind = V_FAR_GUARD, .aux = (uint16_t)p.link };
        return true;
    }
    if (p.kind == PLACE_SPOT && p.field == offsetof(struct bt_spot, delta) && f->kind == F_PAGE &&
        f->spot == p.spot) {
        *out = f->v;
        out->write = r->spot_writes[p.spot];
        return true;
    }
    if (p.kind == PLACE_RETURN)
        return false;
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

/* A write to the low 16 bits of a register: what is known of them. */
static const char *set_low16(struct rules *r, struct verify_state *st, const struct verify_insn *in,
                             unsigned i, struct value from, int64_t by)
{
    unsigned reg = in->o[0].reg;
    struct value v = value_low16(&r->symbols, from, by, i, reg);
    const char *broken = apply_any(r, st, in, i);
    return broken ? broken : set_register(st, reg, v);
}

/* Is it such a write, of something that is known? Where addresses have 64 bits nobody asks. */
static bool writes_low16(const struct rules *r, const struct verify_state *st, const struct verify_insn *in,
                         unsigned from)
{
    const struct verify_operand *dst = &in->o[0];
    return !r->u->code64 && dst->kind == OPR_GPR && dst->size == 2 && dst->reg != H_RSP && from < 16 &&
           from != H_RSP && value_clean(&st->var[dst->reg]) && value_clean(&st->var[from]);
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
    if (src->kind == OPR_GPR && writes_low16(r, st, in, src->reg))
        return set_low16(r, st, in, i, st->var[src->reg], 0);
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
        if (!broken && p.kind == PLACE_RETURN)
            return return_note(st, &p, dst, &st->var[src->reg]);
        return broken ? broken : set_slot(st, &p, st->var[src->reg], i);
    }
    *done = false;
    return NULL;
}

static const char *follow_lea(struct rules *r, struct verify_state *st, const struct verify_insn *in,
                              unsigned i, bool *done)
{
    const struct verify_operand *dst = &in->o[0], *src = &in->o[1];
    struct value none = value_number(0, 0);
    struct value a = src->base < 16 ? st->var[src->base] : none,
                 b = src->index < 16 ? st->var[src->index] : none;
    unsigned reach = src->index < 16 && src->scale == 1 && !src->val
                         ? delta_reach(&b, value_like16(&r->symbols, &b, a))
                         : 0;
    if (reach && dst->size == 8) {
        *done = true;
        return set_register(st, dst->reg,
                            (struct value){ .kind = V_ADDRESS, .aux = (uint16_t)reach, .write = b.write });
    }
    if (src->index >= 16 && writes_low16(r, st, in, src->base)) {
        *done = true;
        return set_low16(r, st, in, i, a, src->val);
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

/* movzx r32, r16 */
static const char *follow_movzx(struct rules *r, struct verify_state *st, const struct verify_insn *in,
                                bool *done)
{
    const struct verify_operand *dst = &in->o[0], *src = &in->o[1];
    if (r->u->code64 || dst->size != 4 || src->kind != OPR_GPR || src->size != 2 || src->reg == H_RSP ||
        !value_clean(&st->var[src->reg]))
        return NULL;
    *done = true;
    return set_register(st, dst->reg, value_cut16(&r->symbols, st->var[src->reg]));
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
    if (dst->kind == OPR_GPR && writes_low16(r, st, in, dst->reg)) {
        *done = true;
        return set_low16(r, st, in, i, st->var[dst->reg], by);
    }
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
    if (dst->size == 8 && in->o[1].val == -(int64_t)PAGE_SIZE && value_clean(v)) {
        write_flags(st, in, false); /* it may be the guest's own */
        *v = value_page(&r->symbols, *v);
        return true;
    }
    if (dst->size != 4 || (uint32_t)in->o[1].val != (TLB_ENTRIES - 1) << (PAGE_SHIFT - TAG_SHIFT) ||
        v->kind != V_SHIFTED)
        return false;
    v->kind = V_TLB;
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
            /* Of a number that the guest has it may be the guest's own shift, whose flags it sees. */
            write_flags(st, in, v->kind != V_NUMBER || !value_clean(v));
            v->kind = steps[n].to;
            return true;
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
        *v = value_as(of, V_TAG);
    } else if (in->op == OP_ADD && slot == SLOT_JUMPS && v->kind == V_JUMP_INDEX) {
        v->kind = V_JUMP;
    } else if (in->op == OP_SUB && slot == SLOT_CONTEXT && v->kind == V_FAR_GUARD) {
        v->kind = V_FAR_PAGE;
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
    write_flags(st, in, false); /* it may be the guest's own */
    st->var[dst->reg] = value_as(st->var[src->reg], V_HASH);
    return true;
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
        f->slot = value_as(st->var[o->index], V_NUMBER);
        return delta_from_tlb(&f->slot, a, write, &f->v);
    }
    if (p.kind == PLACE_SPOT && a->kind == V_STAMP && p.spot == r->u->first_spot && p.field == 0) {
        f->kind = F_STAMP;
        return o->size == sizeof(((struct mmu *)0)->stamp);
    }
    if (p.kind == PLACE_SLOT && p.slot->kind == SLOT_VALUE && p.var == VAR_PAGE && a->kind == V_FAR_PAGE) {
        *f = (struct flags_value){
            .kind = F_FAR, .spot = a->aux, .v = st->var[VAR_PAGE], .limit = in->o[0].reg
        };
        return o->size == 8 && value_clean(&f->v);
    }
    if (p.kind == PLACE_RETURN && p.field == offsetof(struct bt_returns, lin) && value_clean(a)) {
        *f = (struct flags_value){ .kind = F_RETURN, .v = *a, .slot = st->var[o->index] };
        return true;
    }
    if (p.kind == PLACE_JUMP && value_clean(a)) {
        struct value of = value_as(st->var[o->base], V_NUMBER);
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
                                  .v = value_as(st->var[a->reg], V_DELTA) };
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
        return in->op == OP_SUB ? segment_subtract(st, in) || segment_to_offset(r, st, in)
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
            broken = follow_lea(r, st, in, i, &done);
        break;
    case OP_MOVZX:
        done = return_place(st, in, i);
        if (!done)
            broken = follow_movzx(r, st, in, &done);
        break;
    case OP_PUSH:
    case OP_POP:
    case OP_RET: return "a stack instruction of the host's, not as calls and returns use it";
    case OP_REP: return string_rep(st, in, i);
    case OP_CMOVBE:
    case OP_NEG: done = string_step(st, in, i); break;
    case OP_INC:
    case OP_DEC: broken = follow_shift(r, st, in, i, &done); break;
    case OP_SUB:
        done = follow_segment(r, st, in) || follow_with_memory(r, st, in) ||
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
    case OP_CMP:
        done = follow_cmp(r, st, in) || (!r->u->code64 && segment_wrap(st, in)) || strip_step(st, in) ||
               string_step(st, in, i);
        break;
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
