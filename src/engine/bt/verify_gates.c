/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gates, verified once: the only code that changes the stack pointer and calls C. What is followed is where the stack pointer
 * is; the rest are moves between registers and declared places.
 *
 *   C's stack ──enter──► the vcpu ──call──► the vcpu - 8 (return address) ──► C's stack ──► C ──► back the same way
 */
#include "engine/bt/verify.h"
#include "engine/bt/verify_insn.h"

#include <string.h>

#define GATE_BYTES_MAX 65536u
#define WAYS_MAX 64u

enum sp_kind { SP_UNKNOWN, SP_C, SP_VCPU };
struct sp {
    enum sp_kind kind;
    int32_t off; /* from C's stack pointer at the way in, from the vcpu */
};

/* What T1 is on its way to the slot of a jump table: a number, below the most that a table has, times 16, in the table. */
enum slot_step { STEP_NONE, STEP_NUMBER, STEP_INDEX, STEP_OFFSET, STEP_SLOT };

struct gate_state {
    enum slot_step slot;
    struct sp sp, kept; /* kept: in T2 */
    uint64_t rax;       /* constant, or 0 */
};

struct walk {
    const struct verify_gates *g;
    struct gate_state st;
    struct sp saved; /* what the way in put away */
    struct {
        uint32_t off;
        struct gate_state st;
    } ways[WAYS_MAX]; /* jumped to, not followed yet */
    unsigned nways;
    uint32_t at;
    const char *broken;
};

/* --- memory ---------------------------------------------------------------------------------------------------- */

/* clang-format off */
static const struct {
    int32_t at;
    uint32_t size;
} places[] = {
    { VCPU_OFF(s.gpr), sizeof(((struct vcpu_state *)0)->gpr) },
    { VCPU_OFF(s.cc), sizeof(((struct vcpu_state *)0)->cc) },
    { VCPU_OFF(s.fpu), sizeof(struct fpu_state) },
    { AREA_OFF(host_sp), sizeof(((struct bt_area *)0)->host_sp) },
    { AREA_OFF(exit_lin), sizeof(((struct bt_area *)0)->exit_lin) },
    { AREA_OFF(exit), sizeof(((struct bt_area *)0)->exit) },
    { AREA_OFF(exit_arg), sizeof(((struct bt_area *)0)->exit_arg) },
    { AREA_OFF(simd_live), sizeof(((struct bt_area *)0)->simd_live) },
    { AREA_OFF(simd_always), sizeof(((struct bt_area *)0)->simd_always) },
    /* SYSCALL and SYSRET: what they change, and what it is copied from */
    { AREA_OFF(context), sizeof(((struct bt_area *)0)->context) },
    { AREA_OFF(context_before), sizeof(((struct bt_area *)0)->context_before) },
    { AREA_OFF(jumps), sizeof(((struct bt_area *)0)->jumps) },
    { AREA_OFF(context_id), sizeof(((struct bt_area *)0)->context_id) },
    { AREA_OFF(x87_used), sizeof(((struct bt_area *)0)->x87_used) },
    { AREA_OFF(syscall), 2 * sizeof(struct bt_turn) },
    { VCPU_OFF(s.rflags), sizeof(((struct vcpu_state *)0)->rflags) },
    { VCPU_OFF(s.seg[SEG_CS]), sizeof(struct segment) },
    { VCPU_OFF(s.seg[SEG_SS]), sizeof(struct segment) },
    { VCPU_OFF(s.efer), sizeof(((struct vcpu_state *)0)->efer) },
    { VCPU_OFF(s.msr), offsetof(struct msr_state, kernel_gs_base) },
    { VCPU_OFF(mode), sizeof(((struct vcpu *)0)->mode) },
    { VCPU_OFF(interrupt_held), sizeof(((struct vcpu *)0)->interrupt_held) },
    { VCPU_OFF(mmu.index), sizeof(((struct mmu *)0)->index) },
    { VCPU_OFF(mmu.tlb), sizeof(((struct mmu *)0)->tlb) },
    { VCPU_OFF(mmu.gen), sizeof(((struct mmu *)0)->gen) },
    { VCPU_OFF(mmu.gens), sizeof(((struct mmu *)0)->gens) },
    { VCPU_OFF(mmu.stamp), sizeof(((struct mmu *)0)->stamp) },
    { VCPU_OFF(mmu.flush_epoch), sizeof(((struct mmu *)0)->flush_epoch) },
    { VCPU_OFF(mmu.epochs), sizeof(((struct mmu *)0)->epochs) },
};
/* clang-format on */

static bool declared(int64_t at, unsigned size)
{
    for (unsigned i = 0; i < array_size(places); i++)
        if (at >= places[i].at && at + size <= (int64_t)places[i].at + places[i].size)
            return true;
    return false;
}

static bool is_reg(const struct verify_operand *o, unsigned reg)
{
    return o->kind == OPR_GPR && o->reg == reg && o->size == 8;
}
static bool is_host_sp(const struct walk *w, const struct verify_operand *o)
{
    return o->kind == OPR_MEM && o->base == H_RSP && o->index == NO_REG && o->size == 8 &&
           w->st.sp.kind == SP_VCPU && o->val + w->st.sp.off == AREA_OFF(host_sp);
}

static const char *memory(const struct walk *w, const struct verify_insn *in, const struct verify_operand *o)
{
    if (o->gs)
        return "the host's GS in a gate";
    if (o->base == H_RDI && o->index == NO_REG && o->val == AREA_OFF(host_sp) && in->op == OP_MOV &&
        is_reg(&in->o[1], H_RSP))
        return w->st.sp.kind == SP_C ? NULL : "C's stack pointer put away when it is not there";
    /* Slots may change places. */
    bool in_slot = o->base == T1 && o->index == NO_REG && w->st.slot == STEP_SLOT;
    if (in_slot && o->size == 8 && (o->val == 0 || o->val == offsetof(struct bt_jump, code)))
        return NULL;
    if (o->base != H_RSP || o->index != NO_REG || w->st.sp.kind != SP_VCPU)
        return "a gate's memory operand that is not in struct vcpu";
    bool returns_further = in->op == OP_ADD && in->o[1].kind == OPR_IMM && in->o[1].val == 5 && o->val == 0 &&
                           o->size == 8;
    if (returns_further)
        return w->st.sp.off == -8 ? NULL : "a return address changed where none is";
    return declared(o->val + w->st.sp.off, o->size) ? NULL : "a part of struct vcpu that gates do not use";
}

/* --- the stack pointer ------------------------------------------------------------------------------------------- */

static bool sp_equal(struct sp a, struct sp b) { return a.kind == b.kind && a.off == b.off; }

static const char *move_sp(struct walk *w, const struct verify_insn *in)
{
    const struct verify_operand *src = &in->o[1];
    struct sp *sp = &w->st.sp;
    bool constant = src->kind == OPR_IMM && (in->op == OP_ADD || in->op == OP_SUB);
    if (constant && sp->kind == SP_C) {
        sp->off += (int32_t)(in->op == OP_ADD ? src->val : -src->val);
        return NULL;
    }
    if (in->op == OP_LEA && src->base == H_RSP && src->index == NO_REG && sp->kind == SP_VCPU &&
        sp->off + src->val == 0) {
        sp->off = 0;
        return NULL;
    }
    if (in->op != OP_MOV)
        return "a change of the stack pointer that is not known";
    if (is_reg(src, H_RDI) && sp->kind == SP_C && w->saved.kind == SP_C) { /* the first argument: the vcpu */
        *sp = (struct sp){ SP_VCPU, 0 };
        return NULL;
    }
    if (is_host_sp(w, src) && w->saved.kind == SP_C) {
        *sp = w->saved;
        return NULL;
    }
    if (is_reg(src, T2) && w->st.kept.kind == SP_VCPU) {
        *sp = w->st.kept;
        return NULL;
    }
    return "a change of the stack pointer that is not known";
}

static const char *push_or_pop(struct walk *w, const struct verify_insn *in)
{
    if (w->st.sp.kind != SP_C)
        return "a push or pop that is not on C's stack";
    if (in->o[0].kind != OPR_GPR || in->o[0].reg == H_RSP)
        return "a push or pop of something that is no register";
    w->st.sp.off += in->op == OP_PUSH ? -8 : 8;
    return NULL;
}

/* --- ways ---------------------------------------------------------------------------------------------------------- */

static const char *jump_to(struct walk *w, const struct verify_insn *in)
{
    uint64_t to = in->target - w->g->exec;
    if (to <= w->at || to >= w->g->size)
        return "a jump of a gate that does not go forward in the gates";
    if (w->nways == WAYS_MAX)
        return "more jumps than gates have";
    w->ways[w->nways].off = (uint32_t)to;
    w->ways[w->nways++].st = w->st;
    return NULL;
}

static const char *call(struct walk *w, const struct verify_insn *in)
{
    if (in->relative || !is_reg(&in->o[0], H_RAX))
        return "a call of a gate that is not through RAX";
    for (unsigned i = 0; i < w->g->nfunctions; i++)
        if (w->st.rax && w->g->functions[i] == w->st.rax) {
            bool aligned = w->st.sp.kind == SP_C && ((uint32_t)w->st.sp.off & 15) == 8;
            w->st.rax = 0;
            return aligned ? NULL : "a call of C without its stack";
        }
    return "a call of what no gate may call";
}

/* A jump to code: there the stack pointer is the vcpu. */
static const char *jump_register(const struct walk *w, const struct verify_insn *in)
{
    bool ok = is_reg(&in->o[0], T1) && sp_equal(w->st.sp, (struct sp){ SP_VCPU, 0 });
    return ok ? NULL : "a jump to code with another stack pointer than the vcpu";
}

static const char *ret(const struct walk *w)
{
    bool ok = sp_equal(w->st.sp, (struct sp){ SP_VCPU, -8 }) || sp_equal(w->st.sp, (struct sp){ SP_C, 0 });
    return ok ? NULL : "a return from where nobody came";
}

/* T1 is written. */
static enum slot_step next_step(const struct walk *w, const struct verify_insn *in)
{
    const struct verify_operand *src = &in->o[1];
    bool by_number = src->kind == OPR_IMM && in->o[0].kind == OPR_GPR && in->o[0].size == 4;
    if (in->op == OP_IMUL)
        return in->o[0].kind == OPR_GPR && in->o[0].size == 4 ? STEP_NUMBER : STEP_NONE;
    if (in->op == OP_SHR && by_number && w->st.slot == STEP_NUMBER)
        return src->val < 32 && 1u << (32 - src->val) <= JUMPS_MAX ? STEP_INDEX : STEP_NONE;
    if (in->op == OP_SHL && by_number && w->st.slot == STEP_INDEX)
        return 1u << src->val == sizeof(struct bt_jump) ? STEP_OFFSET : STEP_NONE;
    if (in->op == OP_XOR && w->st.slot == STEP_SLOT) { /* tables are aligned to sets of slots */
        bool in_set = src->kind == OPR_IMM && (uint64_t)src->val < JUMP_SET * sizeof(struct bt_jump) &&
                      src->val % sizeof(struct bt_jump) == 0;
        return in_set ? STEP_SLOT : STEP_NONE;
    }
    bool table = src->kind == OPR_MEM && src->base == H_RSP && src->index == NO_REG && src->size == 8 &&
                 src->val + w->st.sp.off == AREA_OFF(jumps);
    return in->op == OP_ADD && table && w->st.slot == STEP_OFFSET ? STEP_SLOT : STEP_NONE;
}

static const char *operands(struct walk *w, const struct verify_insn *in)
{
    bool writes_sp = false;
    enum slot_step slot = w->st.slot;
    for (unsigned n = 0; n < in->noperands; n++) {
        const struct verify_operand *o = &in->o[n];
        const char *broken = o->kind == OPR_MEM ? memory(w, in, o) : NULL;
        if (broken)
            return broken;
        if (o->kind != OPR_GPR || !o->write)
            continue;
        writes_sp |= o->reg == H_RSP;
        if (o->reg == T2)
            w->st.kept = (struct sp){ SP_UNKNOWN, 0 };
        if (o->reg == H_RAX)
            w->st.rax = 0;
        if (o->reg == T1)
            slot = next_step(w, in);
    }
    w->st.slot = slot;
    if (writes_sp)
        return move_sp(w, in);
    if (in->op == OP_MOV && is_reg(&in->o[0], T2) && is_reg(&in->o[1], H_RSP))
        w->st.kept = w->st.sp;
    if (in->op == OP_MOV && is_reg(&in->o[0], H_RAX) && in->o[1].kind == OPR_IMM)
        w->st.rax = (uint64_t)in->o[1].val;
    if (in->op == OP_MOV && in->o[0].kind == OPR_MEM && in->o[0].base == H_RDI)
        w->saved = w->st.sp;
    return NULL;
}

/* One instruction; false: the way ends. */
static bool one(struct walk *w, const struct verify_insn *in)
{
    switch (in->op) {
    case OP_JCC: w->broken = jump_to(w, in); return true;
    case OP_JMP: w->broken = in->relative ? jump_to(w, in) : jump_register(w, in); return false;
    case OP_CALL: w->broken = call(w, in); return true;
    case OP_RET: w->broken = ret(w); return false;
    case OP_PUSH:
    case OP_POP: w->broken = push_or_pop(w, in); return true;
    default: w->broken = operands(w, in); return true;
    }
}

static void walk(struct walk *w, uint32_t from, struct gate_state st)
{
    struct verify_insn in;
    bool on = true;
    w->st = st;
    for (w->at = from; on && !w->broken; w->at += in.len) {
        if (w->at >= w->g->size) {
            w->broken = "a way that runs off the gates' end";
            return;
        }
        w->broken = verify_decode(&in, w->g->code + w->at, w->g->size - w->at, w->g->exec + w->at, true);
        if (w->broken)
            return;
        on = one(w, &in);
        if (w->broken)
            return;
    }
}

/* From one entry, and wherever its jumps lead. */
static void walk_all(struct walk *w, uint32_t from, struct sp sp)
{
    w->nways = 0;
    walk(w, from, (struct gate_state){ .sp = sp });
    while (w->nways && !w->broken) {
        w->nways--;
        walk(w, w->ways[w->nways].off, w->ways[w->nways].st);
    }
}

bool verify_gates(struct verifier *w, const struct verify_gates *g, struct verify_result *r)
{
    struct walk k = { .g = g };
    (void)w;
    *r = (struct verify_result){ 0 };
    if (g->size > GATE_BYTES_MAX)
        k.broken = "larger than gates can be";
    if (!k.broken)
        walk_all(&k, g->enter, (struct sp){ SP_C, 0 });
    for (unsigned i = 0; i < g->ngates && !k.broken; i++) {
        bool jumped = verify_gate_is_left(g->gates[i].kind);
        walk_all(&k, (uint32_t)(g->gates[i].address - g->exec), (struct sp){ SP_VCPU, jumped ? 0 : -8 });
    }
    if (!k.broken)
        return true;
    r->rule = k.broken;
    r->at = k.at;
    if (k.at < g->size)
        verify_format(g->code + k.at, g->size - k.at, g->exec + k.at, r->text, sizeof(r->text));
    return false;
}
