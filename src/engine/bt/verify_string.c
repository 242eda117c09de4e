/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs of string instructions: all bytes on one page at each end, whose translation is checked for the first of them.
 *
 *   count - 1 <= 4096 / size - 1;  offset + count * size <= 4096       the run stays on its page
 *   count = the lesser of RCX and what is left of the page             the same, another way
 *
 * Meanwhile guest registers hold host addresses: from the addition of a distance to its subtraction there is no way out of the
 * code, not even a jump.
 */
#include "engine/bt/verify_rules.h"

static bool scratch(const struct verify_operand *o)
{
    return o->kind == OPR_GPR && o->reg >= T0 && o->reg <= T2;
}
static bool imm_is(const struct verify_operand *o, int64_t val)
{
    return o->kind == OPR_IMM && o->val == val;
}

static void flags_lost(struct verify_state *st) { st->flags = (struct flags_value){ .kind = F_SCRATCH }; }

/* --- how many -------------------------------------------------------------------------------------------------------- */

/* or -4096; neg; shr */
static bool step_to_end(struct verify_state *st, const struct verify_insn *in)
{
    struct value *v = &st->var[in->o[0].reg];
    bool whole = in->o[0].size == 8;
    if (in->op == OP_OR && whole && v->kind == V_NUMBER && imm_is(&in->o[1], -(int64_t)PAGE_SIZE)) {
        v->kind = V_BELOW_END;
    } else if (in->op == OP_NEG && whole && v->kind == V_BELOW_END) {
        v->kind = V_TO_END;
        v->aux = 1;
    } else if (in->op == OP_SHR && v->kind == V_TO_END && v->aux == 1 && in->o[1].kind == OPR_IMM &&
               in->o[1].val >= 0 && in->o[1].val <= 3) {
        v->aux = (uint16_t)(1u << in->o[1].val);
    } else if (in->op == OP_NEG && whole && v->kind == V_DELTA) {
        v->kind = V_DELTA_MINUS;
    } else {
        return false;
    }
    flags_lost(st);
    return true;
}

/* lea T, [offset + count * size] */
static bool run_ends(struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *dst = &in->o[0], *src = &in->o[1];
    if (!scratch(dst) || dst->size != 8 || src->base >= 16 || src->index >= 16 || src->val ||
        st->var[src->base].kind != V_OFFSET || !value_clean(&st->var[src->index]))
        return false;
    struct value at = st->var[src->base];
    at.kind = V_NUMBER;
    st->pending = (struct run){ .valid = true, .size = src->scale, .at = at, .count = st->var[src->index] };
    st->var[dst->reg] = (struct value){ .kind = V_RUN_END };
    return true;
}

/* cmp r, imm; cmp r, r: what they may prove */
static bool compare(struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *a = &in->o[0], *b = &in->o[1];
    if (a->kind != OPR_GPR || a->size != 8)
        return false;
    const struct value *v = &st->var[a->reg];
    if (scratch(a) && v->kind == V_RUN_END && imm_is(b, PAGE_SIZE))
        st->flags = (struct flags_value){ .kind = F_RUN };
    else if (scratch(a) && value_clean(v) && b->kind == OPR_IMM && b->val >= 0 && b->val < (int64_t)PAGE_SIZE)
        st->flags = (struct flags_value){ .kind = F_MOST, .v = *v, .limit = (uint32_t)b->val };
    else if (value_clean(v) && scratch(b) && b->size == 8 && st->var[b->reg].kind == V_TO_END)
        st->flags = (struct flags_value){ .kind = F_LESS, .v.aux = (uint16_t)(a->reg << 4 | b->reg) };
    else
        return false;
    return true;
}

/* cmp a, b; cmovbe b, a */
static bool lesser(struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *dst = &in->o[0], *src = &in->o[1];
    if (!scratch(dst) || dst->size != 8 || src->kind != OPR_GPR || st->flags.kind != F_LESS ||
        st->flags.v.aux != (src->reg << 4 | dst->reg))
        return false;
    st->var[dst->reg].kind = V_COUNT;
    return true;
}

void string_run_ends(struct verify_state *st)
{
    struct run *p = &st->pending;
    struct value before = value_add(p->count, -1);
    bool bounded = st->most.kind == F_MOST && value_equal(&st->most.v, &before) &&
                   (st->most.limit + 1) * p->size <= PAGE_SIZE;
    if (!p->valid || !bounded)
        return;
    st->runs[0] = st->runs[1];
    st->runs[1] = *p;
}

/* --- host addresses in guest registers ---------------------------------------------------------------------------------- */

static bool is_end(const struct verify_operand *o)
{
    return o->kind == OPR_GPR && (o->reg == H_RSI || o->reg == H_RDI);
}

/* add rdi, distance */
static bool to_host(struct verify_state *st, const struct verify_insn *in)
{
    if (in->o[1].kind != OPR_GPR || in->o[0].size != 8)
        return false;
    struct value *v = &st->var[in->o[0].reg];
    const struct value *delta = &st->var[in->o[1].reg];
    if (!delta_covers(delta, *v, 1))
        return false;
    v->kind = V_POINTER;
    v->write = delta->write;
    flags_lost(st);
    return true;
}

static bool same_distance(const struct value *v, struct value delta)
{
    struct value number = *v;
    number.kind = V_NUMBER;
    delta.kind = V_DELTA;
    return v->kind == V_POINTER && delta_covers(&delta, number, 1);
}

/* sub rdi, distance; lea rdi, [rdi - distance] */
static bool to_guest(struct verify_state *st, const struct verify_insn *in, unsigned i)
{
    struct value *v = &st->var[in->o[0].reg];
    if (in->op == OP_SUB) {
        if (in->o[1].kind != OPR_GPR || st->var[in->o[1].reg].kind != V_DELTA ||
            !same_distance(v, st->var[in->o[1].reg]))
            return false;
        flags_lost(st);
    } else {
        const struct verify_operand *o = &in->o[1];
        if (o->base != in->o[0].reg || o->index >= 16 || o->scale != 1 || o->val ||
            st->var[o->index].kind != V_DELTA_MINUS || !same_distance(v, st->var[o->index]))
            return false;
    }
    *v = value_made(i, in->o[0].reg);
    return true;
}

bool string_step(struct verify_state *st, const struct verify_insn *in, unsigned i)
{
    const struct verify_operand *dst = &in->o[0];
    switch (in->op) {
    case OP_OR:
    case OP_SHR:
    case OP_NEG: return scratch(dst) && step_to_end(st, in);
    case OP_LEA: return run_ends(st, in) || (is_end(dst) && dst->size >= 4 && to_guest(st, in, i));
    case OP_CMP: return compare(st, in);
    case OP_CMOVBE: return lesser(st, in);
    case OP_ADD: return is_end(dst) && to_host(st, in);
    case OP_SUB: return is_end(dst) && dst->size >= 4 && to_guest(st, in, i);
    default: return false;
    }
}

bool string_open(const struct verify_state *st)
{
    return st->var[H_RSI].kind == V_POINTER || st->var[H_RDI].kind == V_POINTER;
}

/* --- the instruction ------------------------------------------------------------------------------------------------------ */

static const char *run_at(const struct verify_state *st, unsigned reg, unsigned size, bool write)
{
    const struct value *v = &st->var[reg], *count = &st->var[H_RCX];
    if (v->kind != V_POINTER)
        return "a string instruction on an address that nothing was checked for";
    if (write && !v->write)
        return "a string instruction that writes what was checked for reading";
    if (count->kind == V_COUNT && count->aux == size && value_same_low(count, v))
        return NULL;
    for (unsigned n = 0; n < RUNS; n++) {
        const struct run *r = &st->runs[n];
        if (r->valid && r->size == size && value_equal(&r->count, count) && value_same_low(&r->at, v))
            return NULL;
    }
    return "a string instruction that may leave its page";
}

const char *string_rep(struct verify_state *st, const struct verify_insn *in, unsigned i)
{
    const char *broken = run_at(st, H_RDI, in->element, !in->compares);
    if (!broken && in->moves)
        broken = run_at(st, H_RSI, in->element, false);
    if (!broken && !in->moves && !value_harmless(&st->var[H_RAX]))
        broken = "a secret in memory that the guest can see";
    st->var[H_RCX] = value_made(i, H_RCX);
    if (in->compares)
        st->flags = (struct flags_value){ .kind = F_GUEST };
    return broken;
}
