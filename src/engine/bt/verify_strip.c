/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strips: a distance is checked for one round of a loop and then used for as many as keep the address on its page.
 *
 *   upward    room = 4095 - offset - (span - 1); rounds = room >> k      each round takes at most 1 << k bytes of the room
 *   downward  room = offset;                     rounds = room >> k
 *
 * Several groups: the least of their rounds. While rounds are left, taking one of them away gives every distance that they were
 * reckoned for 1 << k bytes more: that is all that is believed. Where the loop closes, verify_value.c finds that what was given
 * covers what the registers moved.
 */
#include "engine/bt/verify_rules.h"

static bool scratch(const struct verify_operand *o)
{
    return o->kind == OPR_GPR && o->size == 4 && o->reg >= T0 && o->reg <= T2;
}

static void flags_lost(struct verify_state *st) { st->flags = (struct flags_value){ .kind = F_SCRATCH }; }

/* Rounds of v for the groups whose distance was checked from the same number on, over just the span that was reckoned with. */
static struct value rounds_of(struct verify_state *st, const struct value *v, unsigned k)
{
    struct value rounds = { .kind = V_ROUNDS };
    bool up = v->kind == V_ROOM;
    for (unsigned g = 0; g < GROUP_SLOTS; g++) {
        struct value *delta = &st->var[VAR_GROUP + g];
        if (delta->kind != V_DELTA || !value_same_low(delta, v) || (up && delta->aux != v->aux + 1))
            continue;
        strip_forget_group(st, g);
        delta->credit = (int8_t)(up ? (int)k + 1 : -(int)k - 1);
        delta->group = (uint8_t)g;
        rounds.aux |= (uint16_t)(1u << g);
    }
    return rounds.aux ? rounds : value_secret();
}

static bool reckon(struct verify_state *st, const struct verify_insn *in)
{
    struct value *v = &st->var[in->o[0].reg];
    int64_t imm = in->o[1].kind == OPR_IMM ? in->o[1].val : -1;
    bool guests = v->kind == V_NUMBER; /* it may be the guest's own mask, whose flags it sees */
    if (in->op == OP_NOT && v->kind == V_NUMBER) {
        v->kind = V_NOT;
        return true;
    }
    if (in->op == OP_AND && imm == PAGE_OFFSET_MASK && (v->kind == V_NUMBER || v->kind == V_NOT)) {
        v->kind = v->kind == V_NOT ? V_ROOM : V_OFFSET;
        v->aux = 0;
    } else if (in->op == OP_SUB && v->kind == V_ROOM && !v->aux && imm >= 0 && imm < (int64_t)PAGE_SIZE) {
        v->aux = (uint16_t)imm;
    } else if (in->op == OP_SHR && (v->kind == V_ROOM || v->kind == V_OFFSET) && imm >= 0 &&
               imm <= PAGE_SHIFT) {
        *v = rounds_of(st, v, (unsigned)imm);
    } else {
        return false;
    }
    st->flags = (struct flags_value){ .kind = guests ? F_GUEST : F_SCRATCH };
    return true;
}

/* cmp a, b; cmova a, b */
static bool least(struct verify_state *st, const struct verify_insn *in)
{
    const struct verify_operand *o = in->o;
    if (!scratch(&o[1]))
        return false;
    struct value *a = &st->var[o[0].reg], *b = &st->var[o[1].reg];
    uint16_t order = (uint16_t)(o[0].reg << 4 | o[1].reg);
    if (a->kind != V_ROUNDS || b->kind != V_ROUNDS || a == b)
        return false;
    if (in->op == OP_CMP) {
        st->flags = (struct flags_value){ .kind = F_ORDER, .v.aux = order };
        return true;
    }
    if (st->flags.kind != F_ORDER || st->flags.v.aux != order)
        return false;
    a->aux |= b->aux;
    *b = value_secret();
    flags_lost(st);
    return true;
}

bool strip_step(struct verify_state *st, const struct verify_insn *in)
{
    if (!scratch(&in->o[0]))
        return false;
    return in->op == OP_CMP || in->op == OP_CMOVA ? least(st, in) : reckon(st, in);
}

bool strip_spend(struct verify_state *st, const struct verify_insn *in, bool slot)
{
    unsigned var = slot ? VAR_STRIP : in->o[0].reg;
    if (!(slot ? in->o[0].size == 4 : scratch(&in->o[0])) || in->o[1].kind != OPR_IMM || in->o[1].val != 1 ||
        st->var[var].kind != V_ROUNDS)
        return false;
    st->var[var].kind = V_SPENT;
    st->flags = (struct flags_value){ .kind = F_SPENT, .v.aux = (uint16_t)var };
    return true;
}

void strip_next_round(struct verify_state *st, unsigned var)
{
    struct value *rounds = &st->var[var];
    if (rounds->kind != V_SPENT)
        return;
    rounds->kind = V_ROUNDS;
    for (unsigned n = 0; n < VARS;
         n++) { /* in the groups' slots, and in registers that were loaded from them */
        struct value *delta = &st->var[n];
        if (delta->kind != V_DELTA || !delta->credit || !(rounds->aux >> delta->group & 1))
            continue;
        unsigned by = 1u << ((delta->credit < 0 ? -delta->credit : delta->credit) - 1);
        if (delta->credit < 0)
            *delta = value_add(*delta, -(int64_t)by);
        delta->aux = (uint16_t)(delta->aux + by < PAGE_SIZE ? delta->aux + by : PAGE_SIZE);
    }
}

void strip_forget_group(struct verify_state *st, unsigned group)
{
    for (unsigned n = 0; n < VARS; n++)
        if (st->var[n].kind == V_ROUNDS || st->var[n].kind == V_SPENT)
            st->var[n].aux &= (uint16_t) ~(1u << group);
        else if (st->var[n].kind == V_DELTA && st->var[n].group == group)
            st->var[n].credit = st->var[n].group = 0;
}
