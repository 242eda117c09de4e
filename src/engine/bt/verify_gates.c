/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gates, verified once: the only code that changes the stack pointer and calls C. What is followed is where the stack pointer
 * is, and what leads into jump tables, the TLB and bt.found: indices that stay inside, and what was compared before code that was
 * found may be put into a jump table. The rest are moves between registers and declared places.
 *
 *   C's stack ──enter──► the vcpu ──call──► the vcpu - 8 (return address) ──► C's stack ──► C ──► back the same way
 */
#include "engine/bt/verify.h"
#include "engine/bt/verify_insn.h"

#include <string.h>

#define GATE_BYTES_MAX 65536u
#define WAYS_MAX 64u
#define COND_NOT_EQUAL 5u
#define LOG2(n) (63u - (unsigned)__builtin_clzll(n))

enum sp_kind { SP_UNKNOWN, SP_C, SP_VCPU };
struct sp {
    enum sp_kind kind;
    int32_t off; /* from C's stack pointer at the way in, from the vcpu */
};

/* What a register is known to hold. */
enum held {
    HELD_ANYTHING,
    HELD_NUMBER,  /* below 2^bits, a multiple of 2^zeros */
    HELD_SLOT,    /* address of a slot of the jump table */
    HELD_NOTE,    /* address of a set's byte, less the size of the table in front of it */
    HELD_CODE,    /* what such a slot had, or may have */
    HELD_TARGET,  /* the linear address that is looked up */
    HELD_PAGE,    /* of that */
    HELD_TAG,     /* what a TLB entry has that may be fetched from */
    HELD_TLB,     /* address of an entry of the TLB in use */
    HELD_HOST,    /* the target's host address */
    HELD_CONTEXT, /* the present context */
    HELD_KEY,     /* of that */
    HELD_FOUND,   /* address of a slot of bt.found */
    HELD_ENTRY,   /* the offset of the unit that was found there */
};
struct gate_reg {
    uint8_t held, bits, zeros;
};

/* What was compared and found equal, of the TLB's entry and the slot of bt.found that registers point to. */
enum { SAME_TAG = 1, SAME_HOST = 2, SAME_KEY = 4 };

struct gate_state {
    struct gate_reg reg[16];
    struct sp sp, kept;  /* kept: in T2 */
    uint64_t rax;        /* constant, or 0 */
    uint8_t same, asked; /* asked: what the flags tell */
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
    { AREA_OFF(found), sizeof(((struct bt_area *)0)->found) },
    { AREA_OFF(found_here), sizeof(((struct bt_area *)0)->found_here) },
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

static bool is_gpr(const struct verify_operand *o, unsigned size)
{
    return o->kind == OPR_GPR && o->size == size;
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

/* What of a slot's two words is written: code that a slot may have. */
static bool in_slot(const struct walk *w, const struct verify_insn *in, const struct verify_operand *o)
{
    if (o->size != 8 || (o->val != offsetof(struct bt_jump, lin) && o->val != offsetof(struct bt_jump, code)))
        return false;
    if (!o->write || o->val == offsetof(struct bt_jump, lin))
        return true;
    const struct verify_operand *src = &in->o[1];
    return in->op == OP_MOV && src->kind == OPR_GPR && src->size == 8 &&
           w->st.reg[src->reg].held == HELD_CODE;
}

/* An operand behind a pointer that was made for it. */
static bool in_table(const struct walk *w, const struct verify_insn *in, const struct verify_operand *o,
                     enum held held)
{
    if (held == HELD_SLOT)
        return in_slot(w, in, o);
    if (held == HELD_NOTE)
        return in->op == OP_MOV && o->size == 1 && o->val == (int64_t)(JUMPS_MAX * sizeof(struct bt_jump));
    if (o->write)
        return false;
    switch (held) {
    case HELD_TLB:
        return o->size == 8 &&
               (o->val == offsetof(struct tlb_entry, tag_x) || o->val == offsetof(struct tlb_entry, addend));
    case HELD_CONTEXT: return o->size == 4 && o->val == offsetof(struct bt_context, key);
    case HELD_FOUND:
        return o->val == offsetof(struct bt_found, host)
                   ? o->size == 8
                   : o->size == 4 && (o->val == offsetof(struct bt_found, key) ||
                                      o->val == offsetof(struct bt_found, entry_jump));
    default: return false;
    }
}

static const char *memory(const struct walk *w, const struct verify_insn *in, const struct verify_operand *o)
{
    if (o->gs)
        return "the host's GS in a gate";
    if (o->base == H_RDI && o->index == NO_REG && o->val == AREA_OFF(host_sp) && in->op == OP_MOV &&
        is_reg(&in->o[1], H_RSP))
        return w->st.sp.kind == SP_C ? NULL : "C's stack pointer put away when it is not there";
    if (o->base < array_size(w->st.reg) && o->base != H_RSP && o->index == NO_REG &&
        in_table(w, in, o, w->st.reg[o->base].held))
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
            memset(w->st.reg, 0, sizeof(w->st.reg));
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

/* --- what registers hold ------------------------------------------------------------------------------------------ */

static struct gate_reg holds(enum held held) { return (struct gate_reg){ .held = (uint8_t)held }; }
static struct gate_reg number(unsigned bits, unsigned zeros)
{
    return (struct gate_reg){ HELD_NUMBER, (uint8_t)(bits < 32 ? bits : 32),
                              (uint8_t)(zeros < 32 ? zeros : 32) };
}

static bool at_place(const struct walk *w, const struct verify_operand *o, int32_t place)
{
    return o->kind == OPR_MEM && o->base == H_RSP && o->index == NO_REG && o->size == 8 &&
           w->st.sp.kind == SP_VCPU && o->val + w->st.sp.off == place;
}

static bool behind(const struct walk *w, const struct verify_operand *o, enum held held, size_t field)
{
    return o->kind == OPR_MEM && o->base < array_size(w->st.reg) && o->base != H_RSP && o->index == NO_REG &&
           w->st.reg[o->base].held == held && o->val == (int64_t)field;
}

/* Below 1 << bits entries of 1 << zeros bytes. */
static bool indexes(struct gate_reg r, unsigned bits, unsigned zeros)
{
    return r.held == HELD_NUMBER && r.bits <= bits + zeros && r.zeros >= zeros;
}

/* There is one pointer of a kind at a time, and what was compared is about that. */
static struct gate_reg point(struct walk *w, enum held held, unsigned forget)
{
    for (unsigned i = 0; i < array_size(w->st.reg); i++)
        if (w->st.reg[i].held == held)
            w->st.reg[i] = holds(HELD_ANYTHING);
    w->st.same &= (uint8_t)~forget;
    w->st.asked &= (uint8_t)~forget;
    return holds(held);
}

static struct gate_reg add_memory(struct walk *w, struct gate_reg was, const struct verify_operand *src)
{
    if (at_place(w, src, AREA_OFF(jumps)) && indexes(was, JUMPS_BITS, LOG2(sizeof(struct bt_jump))))
        return holds(HELD_SLOT);
    if (at_place(w, src, AREA_OFF(jumps)) && indexes(was, LOG2(JUMP_SETS), 0))
        return holds(HELD_NOTE);
    if (at_place(w, src, VCPU_OFF(mmu.tlb)) &&
        indexes(was, LOG2(TLB_ENTRIES), LOG2(sizeof(struct tlb_entry))))
        return point(w, HELD_TLB, SAME_TAG);
    if (at_place(w, src, AREA_OFF(found)) && indexes(was, FOUND_BITS, LOG2(sizeof(struct bt_found))))
        return point(w, HELD_FOUND, SAME_HOST | SAME_KEY);
    bool address = was.held == HELD_TARGET && w->st.same & SAME_TAG &&
                   behind(w, src, HELD_TLB, offsetof(struct tlb_entry, addend));
    return holds(address ? HELD_HOST : HELD_ANYTHING);
}

static struct gate_reg load(const struct walk *w, const struct verify_operand *src, unsigned size)
{
    const unsigned both = SAME_HOST | SAME_KEY;
    if (size == 8 && at_place(w, src, AREA_OFF(context)))
        return holds(HELD_CONTEXT);
    if (size == 8 && behind(w, src, HELD_SLOT, offsetof(struct bt_jump, code)))
        return holds(HELD_CODE);
    if (size == 4 && behind(w, src, HELD_CONTEXT, offsetof(struct bt_context, key)))
        return holds(HELD_KEY);
    if (size == 4 && behind(w, src, HELD_FOUND, offsetof(struct bt_found, entry_jump)) &&
        (w->st.same & both) == both)
        return holds(HELD_ENTRY);
    return size == 4 ? number(32, 0) : holds(HELD_ANYTHING);
}

/* 32 bits of a register are written, the rest is 0. */
static struct gate_reg word(const struct walk *w, const struct verify_insn *in, struct gate_reg was)
{
    const struct verify_operand *src = &in->o[1];
    bool constant = src->kind == OPR_IMM;
    unsigned by = constant ? (unsigned)src->val & 31 : 0;
    if (was.held != HELD_NUMBER)
        was = number(32, 0);
    if (in->op == OP_SHR && constant)
        return number(was.bits > by ? was.bits - by : 0, was.zeros > by ? was.zeros - by : 0);
    if (in->op == OP_SHL && constant)
        return number(was.bits + by, was.zeros + by);
    if (in->op == OP_AND && constant && src->val > 0 && src->val < INT32_MAX)
        return number(LOG2((uint64_t)src->val) + 1, lowest_bit((uint64_t)src->val));
    if (in->op == OP_OR && is_gpr(src, 4) && w->st.reg[src->reg].held == HELD_NUMBER) {
        struct gate_reg other = w->st.reg[src->reg];
        return number(was.bits > other.bits ? was.bits : other.bits,
                      was.zeros < other.zeros ? was.zeros : other.zeros);
    }
    return number(32, 0);
}

static struct gate_reg wide(struct walk *w, const struct verify_insn *in, struct gate_reg was)
{
    const struct verify_operand *src = &in->o[1];
    bool memory = src->kind == OPR_MEM, constant = src->kind == OPR_IMM;
    switch (in->op) {
    case OP_MOV:
        if (is_gpr(src, 8) &&
            (w->st.reg[src->reg].held == HELD_TARGET || w->st.reg[src->reg].held == HELD_SLOT))
            return w->st.reg[src->reg];
        return memory ? load(w, src, 8) : holds(HELD_ANYTHING);
    case OP_SUB: /* where in the table */
        return was.held == HELD_SLOT && at_place(w, src, AREA_OFF(jumps))
                   ? number(JUMPS_BITS + LOG2(sizeof(struct bt_jump)), LOG2(sizeof(struct bt_jump)))
                   : holds(HELD_ANYTHING);
    case OP_XOR: /* tables are aligned to sets of slots */
        return holds(was.held == HELD_SLOT && constant &&
                             (uint64_t)src->val < JUMP_SET * sizeof(struct bt_jump) &&
                             src->val % sizeof(struct bt_jump) == 0
                         ? HELD_SLOT
                         : HELD_ANYTHING);
    case OP_AND:
        return holds(was.held == HELD_TARGET && constant && src->val == -(int64_t)PAGE_SIZE ? HELD_PAGE
                                                                                            : HELD_ANYTHING);
    case OP_OR:
        return holds(was.held == HELD_PAGE && at_place(w, src, VCPU_OFF(mmu.gen)) ? HELD_TAG : HELD_ANYTHING);
    case OP_ADD:
        if (memory)
            return add_memory(w, was, src);
        return holds(was.held == HELD_ENTRY && is_reg(src, H_RAX) && w->st.rax == w->g->exec ? HELD_CODE
                                                                                             : HELD_ANYTHING);
    default: return holds(HELD_ANYTHING);
    }
}

/* What the first operand, a register, holds behind the instruction. */
static struct gate_reg next(struct walk *w, const struct verify_insn *in)
{
    const struct verify_operand *dst = &in->o[0];
    if (dst->size == 8)
        return wide(w, in, w->st.reg[dst->reg]);
    if (dst->size != 4)
        return holds(HELD_ANYTHING);
    return in->op == OP_MOV && in->o[1].kind == OPR_MEM ? load(w, &in->o[1], 4)
                                                        : word(w, in, w->st.reg[dst->reg]);
}

/* A register compared with what it has to be equal to. */
static unsigned asks(const struct walk *w, const struct verify_insn *in)
{
    const struct verify_operand *reg = &in->o[0], *m = &in->o[1];
    if (in->op != OP_CMP || reg->kind != OPR_GPR)
        return 0;
    switch (w->st.reg[reg->reg].held) {
    case HELD_TAG:
        return reg->size == 8 && behind(w, m, HELD_TLB, offsetof(struct tlb_entry, tag_x)) ? SAME_TAG : 0;
    case HELD_HOST:
        return reg->size == 8 && behind(w, m, HELD_FOUND, offsetof(struct bt_found, host)) ? SAME_HOST : 0;
    case HELD_KEY:
        return reg->size == 4 && behind(w, m, HELD_FOUND, offsetof(struct bt_found, key)) ? SAME_KEY : 0;
    default: return 0;
    }
}

static const char *operands(struct walk *w, const struct verify_insn *in)
{
    bool writes_sp = false;
    struct gate_reg dst = { 0 };
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
    }
    if (in->o[0].kind == OPR_GPR && in->o[0].write)
        dst = next(w, in);
    w->st.asked = (uint8_t)asks(w, in);
    for (unsigned n = 0; n < in->noperands; n++)
        if (in->o[n].kind == OPR_GPR && in->o[n].write)
            w->st.reg[in->o[n].reg] = n == 0 ? dst : holds(HELD_ANYTHING);
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
    case OP_JCC:
        w->broken = jump_to(w, in);
        if (in->cond == COND_NOT_EQUAL)
            w->st.same |= w->st.asked;
        return true;
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
static void walk_all(struct walk *w, uint32_t from, struct sp sp, bool looks_up)
{
    struct gate_state st = { .sp = sp };
    if (looks_up)
        st.reg[T0] = st.reg[T2] = holds(HELD_TARGET);
    w->nways = 0;
    walk(w, from, st);
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
        walk_all(&k, g->enter, (struct sp){ SP_C, 0 }, false);
    for (unsigned i = 0; i < g->ngates && !k.broken; i++) {
        bool jumped = verify_gate_is_left(g->gates[i].kind);
        walk_all(&k, (uint32_t)(g->gates[i].address - g->exec), (struct sp){ SP_VCPU, jumped ? 0 : -8 },
                 g->gates[i].kind == VERIFY_LOOKUP);
    }
    if (!k.broken)
        return true;
    r->rule = k.broken;
    r->at = k.at;
    if (k.at < g->size)
        verify_format(g->code + k.at, g->size - k.at, g->exec + k.at, r->text, sizeof(r->text));
    return false;
}
