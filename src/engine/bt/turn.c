/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Turns: SYSCALL and SYSRET of 64-bit code without a call of C.
 *
 *   user unit ──► gate: context, MSRs, address space as when the turn was worked out? ──► writes it ──► jump table ──► kernel unit
 *                   │ no                                                                     │ target not in it
 *                   ▼                                                                        ▼
 *                 exit: the interpreter does it (cpu_syscall(), cpu_sysret())              exit: run loop
 *
 * C works a turn out whenever the context changes: segments by the functions of cpu/, all else from the two contexts. What a gate
 * adds are flags, RCX and R11. The pair of contexts is one of the kernel and one of the user code that it would return to now.
 */
#include "cpu/ops.h"
#include "engine/bt/unit.h"

#define CREDIT 64 /* returns to user code without a view until somebody asks whether it should have one */
#define AT_TURN(which, field) amode_at(H_RSP, AREA_OFF(which) + (int32_t)offsetof(struct bt_turn, field))
#define IMAGE_BITS (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF)

/* --- what is written: worked out in C ---------------------------------------------------------------------------- */

static bool is_long(const struct bt_context *x) { return (x->key & MODE_CODE_MASK) == MODE_CODE64; }
static bool is_user(const struct bt_context *x) { return mode_cpl(x->key) == 3; }

void bt_turns_forget(struct bt *b, const struct bt_context *x)
{
    struct bt_area *a = bt_area(b->v);
    if (!x || x == a->syscall.from || x == a->syscall.to)
        a->syscall.from = a->syscall.to = a->sysret.from = a->sysret.to = NULL;
}

/* The context with what privilege changes of the key of `x` replaced; NULL: not known. */
static struct bt_context *other_side(struct bt *b, const struct bt_context *x, unsigned cpl,
                                     enum mmu_index index, uint32_t view)
{
    uint32_t key = (x->key & ~(uint32_t)KEY_BY_PRIVILEGE) | (x->key & MODE_KEY_MASK & ~MODE_CPL_MASK) |
                   cpl << MODE_CPL_SHIFT | (uint32_t)index << KEY_INDEX_SHIFT | view;
    uint64_t epoch = b->v->mmu.epochs[gen_kind(index)];
    for (struct bt_context *y = b->contexts; y < b->contexts + CONTEXTS; y++)
        if (y->used && y->key == key && y->epoch == epoch)
            return y;
    return NULL;
}

static struct bt_context *kernel_of(struct bt *b, const struct bt_context *user)
{
    return other_side(b, user, 0, b->v->s.cr4 & CR4_SMAP ? MMU_SUPER : MMU_SUPER_AC, 0);
}

/* The view in force is that of the present address space. */
static bool view_holds(const struct bt *b)
{
    const struct bt_view *w = b->views.now;
    return w && w->stamp == b->v->mmu.stamp && !w->narrow && w->index == MMU_USER;
}

/* What user code would run in now. NULL also when a view would have to be put in force or brought up to date. */
static struct bt_context *user_of(struct bt *b, const struct bt_context *kernel)
{
    if (view_holds(b))
        return other_side(b, kernel, 3, MMU_USER, KEY_VIEW);
    for (const struct bt_view *w = b->views.view; w < b->views.view + VIEWS; w++)
        if (w->stamp && w->cr3 == b->v->s.cr3)
            return NULL;
    return other_side(b, kernel, 3, MMU_USER, 0);
}

static void work_out(struct bt *b, struct bt_turn *t, struct bt_context *from, struct bt_context *to,
                     struct code_and_stack pair)
{
    struct vcpu *v = b->v;
    unsigned index = to->key >> KEY_INDEX_SHIFT & 3;
    *t = (struct bt_turn){
        .from = from,
        .to = to,
        .star = v->s.msr.star,
        .efer = v->s.efer,
        .epoch = to->epoch,
        .stamp = v->mmu.stamp,
        .jumps = to->jumps,
        .id = to->id,
        .tlb = v->mmu.tlbs[index],
        .cs = pair.cs,
        .ss = pair.ss,
        .mode = to->key & MODE_KEY_MASK,
        .index = index,
        .simd_always = bt_context_always_live(to),
        .credit = to->key & KEY_VIEW ? INT32_MAX : CREDIT,
    };
}

/* From this context and back; still true? */
static bool holds(const struct bt *b, const struct bt_context *x)
{
    struct vcpu *v = b->v;
    const struct bt_turn *in = &bt_area(v)->syscall, *out = &bt_area(v)->sysret;
    return in->from && x == (is_user(x) ? in->from : out->from) && !bt_turns_old(b) &&
           in->epoch == v->mmu.epochs[GEN_SHARED] && in->star == v->s.msr.star && in->efer == v->s.efer &&
           (!(in->from->key & KEY_VIEW) || view_holds(b)) && out->credit > 0;
}

void bt_turns_follow(struct bt *b)
{
    struct vcpu *v = b->v;
    struct bt_area *a = bt_area(v);
    struct bt_context *x = a->context, *user, *kernel;
    if (!is_long(x) || holds(b, x))
        return;
    user = is_user(x) ? x : user_of(b, x);
    kernel = !is_user(x) ? x : kernel_of(b, x);
    a->syscall.from = a->sysret.from = NULL;
    a->sysret.epoch = v->mmu.epochs[GEN_SPACE];
    a->sysret.stamp = v->mmu.stamp;
    if (!user || !kernel || mode_cpl(kernel->key) != 0 || !(v->s.efer & EFER_SCE))
        return;
    bt_returns_claim(b, user);
    bt_returns_claim(b, kernel);
    work_out(b, &a->syscall, user, kernel, cpu_syscall_segments(v->s.msr.star, true));
    work_out(b, &a->sysret, kernel, user, cpu_sysret_segments(v->s.msr.star, 8));
}

bool bt_account_gate(struct vcpu *v, uint64_t unused, uint32_t unused2)
{
    struct bt *b = bt_of(v);
    (void)unused, (void)unused2;
    bt_account(b, bt_area(v)->context->key, b->interp.until - (uint64_t)bt_area(v)->left, true);
    return true;
}

/* --- gates ----------------------------------------------------------------------------------------------------------- */

enum { COND_EQUAL = 4, COND_NOT_EQUAL = 5, COND_NEGATIVE = 8 };

static void exit_if(struct bt_turn_gates *g, struct emitter *e, unsigned cond)
{
    g->exits[g->n++] = emit_jcc(e, cond, emit_exec(e));
}

static void exit_unless_equal(struct bt_turn_gates *g, struct emitter *e, struct amode x, struct amode y)
{
    emit_load(e, T2, x);
    emit_mem(e, ENC_W, 0x3b, T2, y);
    exit_if(g, e, COND_NOT_EQUAL);
}

static void move(struct emitter *e, struct amode to, struct amode from)
{
    emit_load(e, T1, from);
    emit_store(e, to, T1);
}

static void move32(struct emitter *e, struct amode to, struct amode from)
{
    emit_load32(e, T1, from);
    emit_store32(e, to, T1);
}

static void move_segment(struct emitter *e, struct amode to, struct amode from)
{
    _Static_assert(sizeof(struct segment) % 8 == 0, "moved in words of 8 bytes");
    for (unsigned i = 0; i < sizeof(struct segment); i += 8, to.disp += 8, from.disp += 8)
        move(e, to, from);
}

/* The status flags of the image in T2 go to s.cc: flags_to_cc(). Destroys T1, T2. */
static void status_from_image(struct emitter *e)
{
    emit_mov32(e, T1, T2);
    emit_alu_imm(e, 4, T1, IMAGE_BITS, false);
    emit_reg(e, 0, 0xc1, 4, T1); /* shl */
    emit_byte(e, 8);
    emit_reg(e, 0, 0xc1, 5, T2); /* shr */
    emit_byte(e, 11);
    emit_alu_imm(e, 4, T2, 1, false);
    emit_lea(e, T1, amode_indexed(T1, T2, 0, 0x200));
    emit_mem(e, ENC_66, 0x89, T1, AT_VCPU(s.cc));
}

/* R11 = state_rflags(). Destroys T2. */
static void image_to_r11(struct emitter *e)
{
    emit_mem(e, ENC_0F, 0xb6, H_R11, AT_VCPU(s.cc)); /* movzx: OF */
    emit_reg(e, 0, 0xc1, 4, H_R11);
    emit_byte(e, 11);
    emit_mem(e, ENC_0F, 0xb6, T2, amode_at(H_RSP, VCPU_OFF(s.cc) + 1));
    emit_alu_imm(e, 4, T2, IMAGE_BITS, false);
    emit_lea(e, H_R11, amode_indexed(H_R11, T2, 0, 2));
    emit_mem(e, ENC_W, 0x0b, H_R11, AT_VCPU(s.rflags));
}

/* set_pair(), vcpu_refresh_privilege(), bt_context_turned(). Destroys T1. `turn`: offset of the record. */
static void change_sides(struct emitter *e, int32_t turn, enum mmu_gen_kind kind)
{
#define PART(field) amode_at(H_RSP, turn + (int32_t)offsetof(struct bt_turn, field))
    move_segment(e, AT_VCPU(s.seg[SEG_CS]), PART(cs));
    move_segment(e, AT_VCPU(s.seg[SEG_SS]), PART(ss));
    move32(e, AT_VCPU(mode), PART(mode));
    move32(e, AT_VCPU(mmu.index), PART(index));
    move(e, AT_VCPU(mmu.tlb), PART(tlb));
    move(e, AT_VCPU(mmu.gen), amode_at(H_RSP, VCPU_OFF(mmu.gens) + 8 * (int32_t)kind));
    move(e, AT_VCPU(mmu.flush_epoch), PART(epoch));
    move(e, AT_AREA(context_before), PART(from));
    move(e, AT_AREA(context), PART(to));
    move(e, AT_AREA(jumps), PART(jumps));
    move(e, AT_AREA(context_id), PART(id));
    move32(e, AT_AREA(simd_always), PART(simd_always));
#undef PART
}

/* To the unit at T0, in any slot of its set. */
static void go(struct bt_turn_gates *g, struct emitter *e)
{
    bt_jump_slot_emit(e, T1, T0, JUMPS_BITS, 0);
    uint8_t *found[JUMP_SET];
    for (unsigned i = 0; i < JUMP_SET; i++) {
        if (i > 0)
            emit_alu_imm(e, 6, T1, (int32_t)((i ^ (i - 1)) * sizeof(struct bt_jump)), true); /* xor */
        emit_mem(e, ENC_W, 0x3b, T0, amode_at(T1, offsetof(struct bt_jump, lin)));
        found[i] = emit_jcc(e, COND_EQUAL, emit_exec(e));
    }
    emit_mov_imm32(e, T1, EXIT_INFO(BT_LOOK_FAR, 0, 0));
    g->exits[g->n++] = emit_jmp(e, emit_exec(e));
    for (unsigned i = 0; i < JUMP_SET; i++)
        emit_patch(e, found[i], emit_exec(e));
    emit_load(e, T1, amode_at(T1, offsetof(struct bt_jump, code)));
    emit_reg(e, 0, 0xff, 4, T1);
}

/* That the turn is as it was worked out; the last x87 instruction is noted with its own CS. */
static void check(struct bt_turn_gates *g, struct emitter *e, int32_t turn, enum mmu_gen_kind kind)
{
#define PART(field) amode_at(H_RSP, turn + (int32_t)offsetof(struct bt_turn, field))
    exit_unless_equal(g, e, AT_AREA(context), PART(from));
    exit_unless_equal(g, e, AT_VCPU(s.msr.star), PART(star));
    exit_unless_equal(g, e, AT_VCPU(s.efer), PART(efer));
    exit_unless_equal(g, e, amode_at(H_RSP, VCPU_OFF(mmu.epochs) + 8 * (int32_t)kind), PART(epoch));
    emit_mem(e, 0, 0x83, 7, AT_AREA(x87_used));
    emit_byte(e, 0);
    exit_if(g, e, COND_NOT_EQUAL);
#undef PART
}

/* cpu_syscall() of 64-bit code, not stepped. */
void bt_turn_gate_syscall(struct bt_turn_gates *g, struct emitter *e)
{
    check(g, e, AREA_OFF(syscall), GEN_SHARED);
    emit_mem(e, 0, 0xf7, 0, AT_VCPU(s.rflags)); /* test */
    emit_imm(e, FL_AC, 4);
    exit_if(g, e, COND_NOT_EQUAL);

    emit_mov(e, H_RCX, T0);
    image_to_r11(e);
    emit_load(e, T2, AT_VCPU(s.msr.sfmask));
    emit_reg(e, ENC_W, 0xf7, 2, T2); /* not */
    emit_reg(e, ENC_W, 0x23, T2, H_R11);
    emit_mov(e, T1, T2);
    emit_alu_imm(e, 4, T1, ~(int32_t)FL_STATUS, true);
    emit_store(e, AT_VCPU(s.rflags), T1);
    status_from_image(e);
    change_sides(e, AREA_OFF(syscall), GEN_SHARED);
    emit_load(e, T0, AT_VCPU(s.msr.lstar));
    go(g, e);
}

/* The guest's XMM registers, if they are wanted at once and not there. */
static void bring_simd(const struct bt *b, struct emitter *e)
{
    emit_mem(e, 0, 0x83, 7, AT_AREA(simd_always));
    emit_byte(e, 0);
    uint8_t *unwanted = emit_jcc(e, COND_EQUAL, emit_exec(e));
    emit_mem(e, 0, 0x83, 7, AT_AREA(simd_live));
    emit_byte(e, SIMD_NONE);
    uint8_t *there = emit_jcc(e, COND_NOT_EQUAL, emit_exec(e));
    emit_mem(e, 0, 0xc7, 0, AT_AREA(simd_live));
    emit_imm(e, SIMD_SSE, 4);
    bt_vectors_load(b, e, 0);
    emit_patch(e, unwanted, emit_exec(e));
    emit_patch(e, there, emit_exec(e));
}

/* cpu_sysret() to 64-bit code that is neither stepped nor checked for alignment, with nothing held back that IF would let in. */
void bt_turn_gate_sysret(const struct bt *b, struct bt_turn_gates *g, struct emitter *e)
{
    const uint64_t flags = SYSRET_FLAGS & ~(uint64_t)FL_STATUS;
    check(g, e, AREA_OFF(sysret), GEN_SPACE);
    exit_unless_equal(g, e, AT_VCPU(mmu.stamp), AT_TURN(sysret, stamp));
    emit_mem(e, 0, 0x80, 7, AT_VCPU(interrupt_held));
    emit_byte(e, 0);
    exit_if(g, e, COND_NOT_EQUAL);
    emit_reg(e, 0, 0xf7, 0, H_R11); /* test */
    emit_imm(e, FL_TF | FL_AC, 4);
    exit_if(g, e, COND_NOT_EQUAL);
    emit_mov(e, T2, H_RCX);
    emit_reg(e, ENC_W, 0xc1, 5, T2); /* shr */
    emit_byte(e, 47);
    exit_if(g, e, COND_NOT_EQUAL);
    emit_mem(e, 0, 0x83, 5, AT_TURN(sysret, credit)); /* sub */
    emit_byte(e, 1);
    exit_if(g, e, COND_NEGATIVE);

    emit_mov32(e, T2, H_R11);
    emit_alu_imm(e, 4, T2, (int32_t)flags, false);
    emit_load(e, T1, AT_VCPU(s.rflags));
    emit_alu_imm(e, 4, T1, ~(int32_t)(flags | FL_RF), true);
    emit_reg(e, ENC_W, 0x0b, T1, T2);
    emit_store(e, AT_VCPU(s.rflags), T1);
    emit_mov32(e, T2, H_R11);
    status_from_image(e);
    change_sides(e, AREA_OFF(sysret), GEN_SPACE);
    bring_simd(b, e);
    emit_mov(e, T0, H_RCX);
    go(g, e);
}

/* --- units ------------------------------------------------------------------------------------------------------------- */

enum how turn_how(const struct insn *in, uint32_t key)
{
    if (!key_code64(key))
        return HOW_BAIL;
    if (in->id == INSN_SYSCALL)
        return mode_cpl(key) == 3 ? HOW_TURN : HOW_BAIL;
    return mode_cpl(key) == 0 && in->opsize == 8 ? HOW_TURN : HOW_BAIL;
}

void turn_emit(struct translation *t, const struct planned *p)
{
    struct emitter *e = &t->e;
    bool out = p->in.id == INSN_SYSRET;
    flags_to_s(t);
    if (counting(t)) {
        emit_mov_imm32(e, T1, 0);
        emit_call(e, bt_exec_addr(t->b, t->b->gate_account));
    }
    if (!out) {
        emit_load(e, T0, AT_AREA(page));
        emit_lea(e, T0, amode_at(T0, p->end));
    }
    emit_mov_imm32(e, T1, exit_at(t, BT_BAIL, t->index));
    emit_jmp(e, bt_exec_addr(t->b, out ? t->b->gate_sysret : t->b->gate_syscall));
}
