/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules for returns that the host predicts (returns.c).
 *
 *   call   mov [lin of a place], address    it is on the unit's page
 *          call over ──► the way back begins behind it
 *    over: pop [code of that place]
 *   return cmp address, [lin of a place]; equal:
 *          push [code of that place]; ret
 *
 * Between an address and its way back nothing may leave or come in: so whatever stands in one place belongs together.
 */
#include "engine/bt/verify_place.h"

#include <stddef.h>

bool return_place(struct verify_state *st, const struct verify_insn *in, unsigned i)
{
    const struct verify_operand *dst = &in->o[0], *src = &in->o[1];
    _Static_assert(RETURNS == 256, "a byte is a place");
    if (dst->kind != OPR_GPR || dst->size != 4 || is_guest_register(dst->reg) || dst->reg == H_RSP ||
        src->kind != OPR_GPR || src->size != 1 || !value_harmless(&st->var[src->reg]))
        return false;
    st->var[dst->reg] = value_as(value_made(i, dst->reg), V_PLACE);
    return true;
}

const char *return_note(struct verify_state *st, const struct place *p, const struct verify_operand *o,
                        const struct value *lin)
{
    struct value page = st->var[VAR_PAGE];
    int64_t off = lin->c - page.c;
    struct value here = value_add(page, off);
    if (p->field != offsetof(struct bt_returns, lin) || return_open(st))
        return "a way back that is not a call's";
    if (!value_clean(lin) || !value_clean(&page) || page.narrow || off < 0 || off >= (int64_t)PAGE_SIZE ||
        !value_equal(lin, &here))
        return "a return address that is not on the unit's page";
    st->noted = st->var[o->index];
    if (st->fact.kind == F_RETURN)
        st->fact.kind = F_SCRATCH;
    return NULL;
}

/* Does it name the code of a place of this mode's table? */
static bool names_code(const struct rules *r, const struct verify_state *st, const struct verify_operand *o)
{
    struct place p;
    return o->kind == OPR_MEM && o->base == H_RSP && o->index < 16 && !place_of(r, &p, st, o) &&
           p.kind == PLACE_RETURN && p.field == offsetof(struct bt_returns, code);
}

const char *return_call(const struct rules *r, struct verify_state *st, const struct verify_insn *pop)
{
    const struct verify_operand *o = &pop->o[0];
    if (!return_open(st))
        return "a call that is no gate's, without a return address";
    /* POP reckons its operand with the stack pointer as it is behind it (SDM 2B, POP). */
    if (pop->op != OP_POP || !names_code(r, st, o) || !value_equal(&st->var[o->index], &st->noted))
        return "a call whose way back is not noted beside its address";
    st->noted = value_secret();
    return NULL;
}

const char *return_leave(const struct rules *r, const struct verify_state *st, const struct verify_insn *push)
{
    const struct verify_operand *o = &push->o[0];
    if (st->simd < r->u->simd)
        return "a return without the vector registers that are always there";
    if (!names_code(r, st, o) || st->fact.kind != F_RETURN ||
        !value_equal(&st->fact.slot, &st->var[o->index]) || !value_equal(&st->fact.v, &st->var[T0]))
        return "a return by a place that was not compared";
    return NULL;
}

void return_entry(const struct rules *r, struct verify_state *st)
{
    rules_entry(st, false, true);
    st->simd = r->u->simd;
}
