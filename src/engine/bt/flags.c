/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the guest's status flags are while a unit's code is made.
 *
 *   E  in the host's EFLAGS
 *   R  lost, but an instruction with intact operands gives them again: the recipe
 *   S  in v->s.cc, as LAHF and SETO AL give them
 *
 * A check of an address loses EFLAGS. With a recipe that costs nothing: only where the flags are wanted, mostly in stubs, is it
 * run. Else they are saved once, before the first check.
 */
#include "engine/bt/unit.h"

/* --- saving and restoring ------------------------------------------------------------------------------------ */

/* LAHF; SETO AL: the form in which v->s.cc keeps them. */
static void save(struct translation *t)
{
    struct emitter *e = &t->e;
    emit_mov(e, T2, H_RAX);
    emit_byte(e, 0x9f);
    emit_reg(e, ENC_0F, 0x90, 0, H_RAX);
    emit_mem(e, ENC_66, 0x89, H_RAX, AT_VCPU(s.cc));
    emit_mov(e, H_RAX, T2);
    t->b->n.flag_saves++;
}

/* ADD AL,7Fh overflows exactly when AL was 1; SAHF gives the rest. */
static void restore(struct translation *t)
{
    struct emitter *e = &t->e;
    emit_mov(e, T2, H_RAX);
    emit_mem(e, ENC_0F, 0xb7, H_RAX, AT_VCPU(s.cc));
    emit_byte(e, 0x04);
    emit_byte(e, 0x7f);
    emit_byte(e, 0x9e);
    emit_mov(e, H_RAX, T2);
    t->b->n.flag_restores++;
}

/* --- recipes ------------------------------------------------------------------------------------------------- */

static bool logic(unsigned id) { return id == INSN_AND || id == INSN_OR || id == INSN_XOR; }

struct recipe recipe_of(const struct planned *p)
{
    const struct operand *a = &p->in.op[0], *b = &p->in.op[1];
    struct recipe r = {
        .kind = RECIPE_NONE, .a = a->reg, .b = H_NONE, .size = a->size, .imm = (int32_t)p->in.imm
    };
    if (p->how != HOW_COPY || a->kind != OPND_REG || p->in.prefixes & IP_LOCK)
        return r;
    r.inputs = (uint16_t)(1u << a->reg);
    if (logic(p->in.id) || (p->in.id == INSN_SUB && b->kind == OPND_REG && b->reg == a->reg)) {
        r.kind = RECIPE_TEST;
        r.b = a->reg;
        return r;
    }
    if (b->kind == OPND_REG && b->size == a->size) {
        r.b = b->reg;
        r.inputs |= (uint16_t)(1u << b->reg);
    } else if (b->kind != OPND_IMM) {
        return r;
    }
    switch (p->in.id) {
    case INSN_CMP: r.kind = RECIPE_CMP; break;
    case INSN_TEST: r.kind = RECIPE_TEST; break;
    case INSN_ADD:
    case INSN_SUB:
        if (a->size >= 4 && r.b != a->reg)
            r.kind = p->in.id == INSN_ADD ? RECIPE_ADD : RECIPE_SUB;
        break;
    default: break;
    }
    return r;
}

bool recipe_equal(const struct recipe *x, const struct recipe *y)
{
    return x->kind == y->kind && x->a == y->a && x->b == y->b && x->size == y->size &&
           (x->b != H_NONE || x->imm == y->imm);
}

static unsigned width(const struct recipe *r)
{
    return r->size == 8 ? ENC_W : r->size == 2 ? ENC_66 : r->size == 1 ? ENC_BYTE : 0;
}

/* op reg, b with `opcode` (register form, 32/64 bits) or /n of group 1. */
static void with_b(struct translation *t, const struct recipe *r, unsigned opcode, unsigned n, unsigned reg)
{
    bool byte = r->size == 1;
    if (r->b == H_NONE) {
        bool small = byte || r->imm == (int8_t)r->imm;
        emit_reg(&t->e, width(r), byte ? 0x80 : small ? 0x83 : 0x81, n, reg);
        emit_imm(&t->e, (uint32_t)r->imm, small ? 1 : r->size == 2 ? 2 : 4);
    } else if (host_of(r->b) == H_NONE) {
        emit_mem(&t->e, width(r), opcode - byte, reg, at_gpr(r->b));
    } else {
        emit_reg(&t->e, width(r), opcode - byte, reg, host_of(r->b));
    }
}

static void test(struct translation *t, const struct recipe *r, unsigned reg)
{
    bool byte = r->size == 1;
    if (r->b == H_NONE) {
        emit_reg(&t->e, width(r), 0xf7 - byte, 0, reg);
        emit_imm(&t->e, (uint32_t)r->imm, r->size > 4 ? 4 : r->size);
    } else if (host_of(r->b) == H_NONE) {
        emit_mem(&t->e, width(r), 0x85 - byte, reg, at_gpr(r->b));
    } else {
        emit_reg(&t->e, width(r), 0x85 - byte, reg, host_of(r->b));
    }
}

/* Destroys T2. */
static void cook(struct translation *t, const struct recipe *r)
{
    unsigned a = value_of(t, r->a, T2);
    switch (r->kind) {
    case RECIPE_CMP: with_b(t, r, 0x3b, 7, a); break;
    case RECIPE_TEST: test(t, r, a); break;
    case RECIPE_SUB: /* a is the difference: (a + b) - b */
        emit_mov(&t->e, T2, a);
        with_b(t, r, 0x03, 0, T2);
        with_b(t, r, 0x3b, 7, T2);
        break;
    case RECIPE_ADD:
        emit_mov(&t->e, T2, a);
        with_b(t, r, 0x2b, 5, T2);
        with_b(t, r, 0x03, 0, T2);
        break;
    default: break;
    }
}

/* --- who looks at them ------------------------------------------------------------------------------------------ */

static bool may_leave(const struct access *a) { return a->used && (a->first || a->view); }

/* May leave the unit, or needs the flags as they are before it. */
static bool observes(const struct planned *p)
{
    switch (p->how) {
    case HOW_COPY:
    case HOW_LEA:
    case HOW_NOP: break;
    case HOW_PUSH:
    case HOW_POP:
    case HOW_MOFFS:
    case HOW_LEAVE: return may_leave(&p->mem) || may_leave(&p->stack);
    default: return true;
    }
    return may_leave(&p->mem) || p->fx.flags_read & STATUS_FLAGS || p->in.id == INSN_DIV ||
           p->in.id == INSN_IDIV;
}

bool flags_observed_after(const struct unit_plan *p, unsigned i)
{
    for (i++; i < p->count; i++) {
        if (observes(&p->insns[i]))
            return true;
        if (flag_use(&p->insns[i]) == FLAGS_DEFINED)
            return false;
    }
    return true;
}

/* From instruction i on, will the recipe's operands be what they are wherever the flags are looked at? */
static bool recipe_lasts(const struct unit_plan *p, const struct recipe *r, unsigned i)
{
    for (; i < p->count; i++) {
        const struct planned *x = &p->insns[i];
        if (x->how == HOW_BAIL)
            return true;
        if (x->how == HOW_COPY && flag_use(x) == FLAGS_DEFINED)
            return true;
        unsigned written = x->fx.gpr_written;
        if (written & r->inputs)
            return !flags_observed_after(p, i);
    }
    return true;
}

bool recipe_holds_from(const struct unit_plan *p, const struct recipe *r, unsigned i)
{
    return r->kind != RECIPE_NONE && recipe_lasts(p, r, i);
}

/* --- states ------------------------------------------------------------------------------------------------------ */

void flags_to_e(struct translation *t)
{
    if (t->state == FLAGS_S)
        restore(t);
    else if (t->state == FLAGS_R)
        cook(t, &t->recipe);
    t->state = FLAGS_E;
}

void flags_to_s(struct translation *t)
{
    if (t->state == FLAGS_S)
        return;
    flags_to_e(t);
    save(t);
    t->state = FLAGS_S;
}

void flags_away(struct translation *t)
{
    if (t->state != FLAGS_E)
        return;
    if (recipe_holds_from(&t->plan, &t->recipe, t->index))
        t->state = FLAGS_R;
    else
        flags_to_s(t);
}

void flags_follow(struct translation *t, const struct planned *p)
{
    bool own = t->state == FLAGS_E && t->recipe_of == t->index; /* its recipe is about what it left */
    if (p->how == HOW_CALL_OUT || (!own && p->fx.gpr_written & t->recipe.inputs))
        t->recipe.kind = RECIPE_NONE;
}

void flags_defined(struct translation *t, const struct planned *p)
{
    t->state = FLAGS_E;
    t->recipe = recipe_of(p);
    t->recipe_of = t->index;
}
