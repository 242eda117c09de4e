/* SPDX-License-Identifier: Apache-2.0 */
/* The rules for jumps, calls of gates, exits and entries: what a unit may go to, and what is known there. */
#include "engine/bt/verify_place.h"

#include <stddef.h>
#include <string.h>

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
    if (equal && f.kind == F_FAR && st->var[f.limit].kind == V_FAR_PAGE && st->var[f.limit].aux == f.spot)
        st->var[f.limit] = f.v;
    if (unequal && f.kind == F_X87)
        st->x87 = true;
    if (equal && f.kind == F_MASKS)
        x87_masked(st, f.v.aux & 15);
    if (f.kind == F_LIMIT && cond == (taken ? COND_NOT_NEGATIVE : COND_NEGATIVE))
        st->limit = f;
    if (f.kind == F_SPENT && cond == (taken ? COND_NOT_NEGATIVE : COND_NEGATIVE))
        strip_next_round(st, f.v.aux);
    if (not_above && f.kind == F_WRAP)
        st->wrap = f;
    if (not_above && f.kind == F_MOST)
        st->most = f;
    if (not_above && f.kind == F_RUN)
        string_run_ends(st);
    bool proved = (equal && (f.kind == F_TAG || f.kind == F_JUMP || f.kind == F_FAR || f.kind == F_RETURN)) ||
                  (not_above && f.kind == F_PAGE && st->fresh);
    if (!flags_shown(&f))
        st->fact = proved ? f : (struct flags_value){ .kind = F_SCRATCH };
}

/* By a far link, whose guard said that it is for this page and context: T0 is where it goes. */
static const char *far_jump(const struct rules *r, const struct verify_state *st,
                            const struct verify_operand *o)
{
    struct place p;
    const char *broken = place_of(r, &p, st, o);
    if (broken)
        return broken;
    if (p.kind != PLACE_FAR || p.field != offsetof(struct bt_far, code))
        return "an indirect jump that is not through a jump table or a far link";
    if (st->fact.kind != F_FAR || st->fact.spot != p.link)
        return "a far link without a look for which page and context it was made";
    struct value to = value_add(st->fact.v, r->u->links[p.link].far_to);
    return value_equal(&st->var[T0], &to) ? NULL : "a far link with another address than its own";
}

const char *rules_indirect_jump(const struct rules *r, const struct verify_state *st,
                                const struct verify_insn *in)
{
    const struct verify_operand *o = &in->o[0];
    if (o->gs || st->simd < r->u->simd)
        return "an indirect jump by the host's GS, or without the vector registers that are always there";
    if (o->kind == OPR_MEM && o->base == H_RSP && o->index == NO_REG)
        return far_jump(r, st, o);
    if (o->kind != OPR_MEM || o->size != 8 || o->index != NO_REG || o->base >= 16 ||
        o->val != offsetof(struct bt_jump, code))
        return "an indirect jump that is not through a jump table";
    const struct value *v = &st->var[o->base];
    struct value of = value_as(*v, V_NUMBER);
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
    st->limit.kind = st->wrap.kind = F_SCRATCH;
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
    case VERIFY_FAR:
        if ((uint64_t)(arg - r->u->first_link) >= r->u->nlinks || !r->u->links[arg - r->u->first_link].far)
            return "a far link of another unit";
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
        if (!r->u->privileged || r->u->view) /* real mode has it, too */
            return "a mode of the kernel's in user code, or by a view, which is for one";
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
    if (!verify_gate_is_left(kind) || kind == VERIFY_NOWHERE)
        return "a jump to what is called, or returned to";
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
