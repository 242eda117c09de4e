/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions by the host's own, while all they touch lies on one page at each end and DF is clear.
 *
 *   alone:   check, move, step the pointers
 *   REP:     count and pages fit? ──yes──► checks, pointers to host addresses, the host's REP, and back
 *                 └─ no: the interpreter's handler, called out of line, does as much as it may at once
 *
 * SCAS goes to the page's end first, since its count says little of where it stops. Guest addresses are turned into host
 * addresses by adding one distance an end, so an overlap of the two means what it means to the guest.
 */
#include "engine/bt/unit.h"

static bool repeats(const struct insn *in) { return in->prefixes & (IP_REP | IP_REPNE); }
static bool compares(const struct insn *in) { return in->id == INSN_SCAS || in->id == INSN_CMPS; }
static bool has_source(const struct insn *in) { return in->id != INSN_STOS && in->id != INSN_SCAS; }
static bool has_dest(const struct insn *in) { return in->id != INSN_LODS; }

bool string_possible(const struct bt *b, const struct insn *in, uint32_t key)
{
    bool natural = in->addrsize == (key_code64(key) ? 8 : 4) && key & MODE_FLAT;
    bool plain = in->seg < SEG_FS && (in->seg != SEG_CS || key_code64(key));
    bool whole = natural &&
                 (plain || !has_source(in)); /* else by offsets: one element at a time, outside 64-bit code */
    if (!pass_on(b, ENGINE_PASS_STRING) || (!whole && (key_code64(key) || repeats(in))))
        return false;
    switch (in->id) {
    case INSN_MOVS:
    case INSN_STOS:
    case INSN_SCAS: return true;
    case INSN_LODS:
    case INSN_CMPS: return !repeats(in);
    default: return false;
    }
}

void string_note(struct planned *p)
{
    const struct insn *in = &p->in;
    uint8_t size = repeats(in) ? 1 : in->opsize; /* the rest of a run is known to be on the same page */
    struct access read = { .first = true, .seg = SEG_PLAIN, .group = NO_GROUP, .size = size, .read = true },
                  write = read;
    write.write = !compares(in);
    p->mem = write;
    p->stack = read;
}

/* --- pieces ---------------------------------------------------------------------------------------------------- */

static bool is64(const struct translation *t) { return t->plan.code64; }

static unsigned width(unsigned size) { return size == 8 ? ENC_W : size == 2 ? ENC_66 : 0; }

/* The opcode for a size: one less for bytes. */
static unsigned sized(unsigned opcode, unsigned size) { return size == 1 ? opcode - 1 : opcode; }

static void lea_word(struct translation *t, unsigned dst, struct amode m)
{
    (is64(t) ? emit_lea : emit_lea32)(&t->e, dst, m);
}

/* A pointer's step. */
static void step(struct translation *t, const struct planned *p, unsigned reg)
{
    emit_mem(&t->e, width(p->in.addrsize), 0x8d, reg, amode_at(reg, p->in.opsize)); /* lea */
}

/* Outside 64-bit mode the upper halves are whatever they are, and stay so until nothing of the instruction can fail. */
static void cut(struct translation *t, const struct insn *in)
{
    if (is64(t))
        return;
    if (has_source(in))
        emit_mov32(&t->e, H_RSI, H_RSI);
    if (has_dest(in))
        emit_mov32(&t->e, H_RDI, H_RDI);
    emit_mov32(&t->e, H_RCX, H_RCX);
}

/* dst = a register as the address size has it. */
static void mov_word(struct translation *t, unsigned dst, unsigned src)
{
    (is64(t) ? emit_mov : emit_mov32)(&t->e, dst, src);
}

static uint8_t *jump_if_down(struct translation *t)
{
    struct amode df = AT_VCPU(s.rflags);
    df.disp++;
    emit_mem(&t->e, 0, 0xf6, 0, df); /* test byte [rflags + 1], DF */
    emit_byte(&t->e, FL_DF >> 8);
    return emit_jcc(&t->e, 5, emit_exec(&t->e));
}

static struct amode end_of(struct translation *t, const struct planned *p, struct access *a, unsigned reg)
{
    if (is64(t))
        return access_emit(t, a, amode_at(reg, 0));
    if (p->in.addrsize == 2)
        emit_reg(&t->e, ENC_0F, 0xb7, T0, reg); /* movzx */
    else
        emit_mov32(&t->e, T0, reg);
    return access_emit(t, a, amode_at(T0, 0));
}

static struct amode source(struct translation *t, struct planned *p)
{
    return end_of(t, p, &p->stack, H_RSI);
}
static struct amode dest(struct translation *t, struct planned *p) { return end_of(t, p, &p->mem, H_RDI); }

/* --- alone ------------------------------------------------------------------------------------------------------ */

static void load(struct translation *t, unsigned size, unsigned reg, struct amode m)
{
    emit_mem(&t->e, width(size), sized(0x8b, size), reg, m);
}

/* reg = the element alone: above a short one nothing stays of what was there. */
static void load_element(struct translation *t, unsigned size, unsigned reg, struct amode m)
{
    if (size < 4)
        emit_mem(&t->e, ENC_0F, size == 1 ? 0xb6 : 0xb7, reg, m); /* movzx */
    else
        load(t, size, reg, m);
}

static void store(struct translation *t, unsigned size, unsigned reg, struct amode m)
{
    emit_mem(&t->e, width(size), sized(0x89, size), reg, m);
}

/* The other end while `via` holds this one's element: its access may take all scratch registers but T0. */
static struct amode other_end(struct translation *t, struct planned *p, unsigned via,
                              struct amode (*end)(struct translation *t, struct planned *p))
{
    if (via == T2)
        emit_store(&t->e, AT_AREA(string_rest), T2);
    struct amode at = end(t, p);
    if (via == T2)
        emit_load(&t->e, T2, AT_AREA(string_rest));
    return at;
}

static void movs_emit(struct translation *t, struct planned *p)
{
    unsigned size = p->in.opsize, via = is64(t) ? T0 : T2;
    load_element(t, size, via, source(t, p));
    store(t, size, via, other_end(t, p, via, dest));
}

/* The host reads in this order, which shows when both would fault. */
static void cmps_emit(struct translation *t, struct planned *p)
{
    unsigned size = p->in.opsize, via = is64(t) ? T0 : T2;
    load_element(t, size, via, dest(t, p));
    emit_mem(&t->e, width(size), sized(0x39, size), via, other_end(t, p, via, source));
}

static void single_emit(struct translation *t, struct planned *p)
{
    unsigned size = p->in.opsize;
    flags_away(t);
    uint8_t *down = jump_if_down(t);
    stub_new(t, STUB_EXIT, down)->info = exit_at(t, BT_BAIL, t->index);
    switch (p->in.id) {
    case INSN_MOVS: movs_emit(t, p); break;
    case INSN_STOS: store(t, size, H_RAX, dest(t, p)); break;
    case INSN_LODS: load(t, size, H_RAX, source(t, p)); break;
    case INSN_CMPS: cmps_emit(t, p); break;
    default: emit_mem(&t->e, width(size), sized(0x3b, size), H_RAX, dest(t, p)); break;
    }
    if (compares(&p->in))
        flags_defined(t, p);
    if (has_source(&p->in))
        step(t, p, H_RSI);
    if (has_dest(&p->in))
        step(t, p, H_RDI);
}

/* --- REP MOVS, REP STOS ------------------------------------------------------------------------------------------- */

static unsigned log2_of(unsigned size) { return (unsigned)__builtin_ctz(size); }

static uint8_t *jump_if_above(struct translation *t, unsigned reg, uint32_t most)
{
    emit_alu_imm(&t->e, 7, reg, (int32_t)most, true);
    return emit_jcc(&t->e, 7, emit_exec(&t->e));
}

/* T2 = offset in the page behind the whole run from `reg`; `n`: the count's register. */
static uint8_t *jump_unless_fits(struct translation *t, unsigned reg, unsigned n, unsigned size)
{
    emit_mov32(&t->e, T2, reg);
    emit_alu_imm(&t->e, 4, T2, PAGE_OFFSET_MASK, false);
    emit_lea(&t->e, T2, amode_indexed(T2, (uint8_t)n, (uint8_t)log2_of(size), 0));
    return jump_if_above(t, T2, PAGE_SIZE);
}

/* The unit counted one instruction; the iterations must fit as well. Leaves in front of it if they do not. `n`: their
 * number's register. */
static void count_iterations(struct translation *t, unsigned n)
{
    if (!counting(t))
        return;
    mov_word(t, T2, n);
    emit_mem(&t->e, ENC_W, 0x2b, T2, AT_AREA(left)); /* sub */
    emit_lea(&t->e, T2, amode_at(T2, -1));
    emit_reg(&t->e, ENC_W, 0xf7, 3, T2); /* neg */
    stub_new(t, STUB_EXIT, emit_jcc(&t->e, 8, emit_exec(&t->e)))->info = exit_at(t, BT_BAIL, t->index);
    emit_store(&t->e, AT_AREA(left), T2);
}

static void add(struct translation *t, unsigned dst, unsigned src) { emit_reg(&t->e, ENC_W, 0x03, dst, src); }

static void sub(struct translation *t, unsigned dst, unsigned src)
{
    emit_reg(&t->e, is64(t) ? ENC_W : 0, 0x2b, dst, src);
}

/* The slow way: all of `jumps` go to one stub, which calls the handler and comes back to its `retry`. */
static struct stub *call_from(struct translation *t, uint8_t *const *jumps, unsigned n)
{
    uint8_t *over = emit_jmp(&t->e, emit_exec(&t->e));
    for (unsigned i = 0; i < n; i++)
        emit_patch(&t->e, jumps[i], emit_exec(&t->e));
    struct stub *s = stub_new(t, STUB_CALL, emit_jmp(&t->e, emit_exec(&t->e)));
    emit_patch(&t->e, over, emit_exec(&t->e));
    return s;
}

/* T0, T1 = distances of both ends. All groups are closed: the slot of one holds the first meanwhile, where T0 is wanted. */
static void both_ends(struct translation *t, struct planned *p)
{
    source(t, p);
    if (is64(t))
        emit_mov(&t->e, T0, T1);
    else
        emit_store(&t->e, group_slot(0), T1);
    dest(t, p);
    if (!is64(t))
        emit_load(&t->e, T0, group_slot(0));
}

static void move_emit(struct translation *t, struct planned *p)
{
    struct emitter *e = &t->e;
    unsigned size = p->in.opsize, n = 0, count = is64(t) ? H_RCX : T0;
    bool movs = p->in.id == INSN_MOVS;
    uint8_t *slow[4];
    flags_away(t);
    slow[n++] = jump_if_down(t);
    if (!is64(t))
        emit_mov32(e, T0, H_RCX);
    emit_lea(e, T2, amode_at((uint8_t)count, -1)); /* a count of 0 is large, too */
    slow[n++] = jump_if_above(t, T2, PAGE_SIZE / size - 1);
    slow[n++] = jump_unless_fits(t, H_RDI, count, size);
    if (movs)
        slow[n++] = jump_unless_fits(t, H_RSI, count, size);
    struct stub *s = call_from(t, slow, n);
    if (movs)
        both_ends(t, p);
    else
        dest(t, p);
    count_iterations(t, H_RCX);
    cut(t, &p->in);
    if (movs)
        add(t, H_RSI, T0);
    add(t, H_RDI, T1);
    emit_plain(e, width(size) | ENC_F3, sized(movs ? 0xa5 : 0xab, size));
    sub(t, H_RDI, T1);
    if (movs)
        sub(t, H_RSI, T0);
    s->retry = emit_exec(e);
}

/* --- REPE SCAS, REPNE SCAS ------------------------------------------------------------------------------------------- */

/* T0 = elements from RDI to the end of its page; 0 when one crosses. */
static void to_page_end(struct translation *t, unsigned size)
{
    emit_mov(&t->e, T0, H_RDI);
    emit_alu_imm(&t->e, 1, T0, -(int32_t)PAGE_SIZE, true);
    emit_reg(&t->e, ENC_W, 0xf7, 3, T0); /* neg */
    if (size > 1) {
        emit_reg(&t->e, 0, 0xc1, 5, T0); /* shr */
        emit_byte(&t->e, log2_of(size));
    }
}

static void if_zero(struct translation *t, unsigned reg, uint8_t **jump)
{
    emit_reg(&t->e, is64(t) ? ENC_W : 0, 0x85, reg, reg); /* test */
    *jump = emit_jcc(&t->e, 4, emit_exec(&t->e));
}

/* T0 = the smaller of RCX and T0; string_rest = what that leaves of RCX. */
static void split_count(struct translation *t)
{
    struct emitter *e = &t->e;
    mov_word(t, T2, H_RCX);
    emit_reg(e, ENC_W, 0x3b, T2, T0);
    emit_reg(e, ENC_W | ENC_0F, 0x46, T0, T2); /* cmovbe */
    emit_reg(e, ENC_W, 0x2b, T2, T0);
    emit_store(e, AT_AREA(string_rest), T2);
}

/* left += by + RCX, which keeps the flags. */
static void give_back(struct translation *t, unsigned reg, int32_t by)
{
    if (!counting(t))
        return;
    emit_load(&t->e, T2, AT_AREA(left));
    emit_lea(&t->e, T2, amode_indexed(T2, (uint8_t)reg, 0, by));
    emit_store(&t->e, AT_AREA(left), T2);
}

/* The page is at its end, the count is not, and nothing was found: the handler goes on. */
static void go_on_elsewhere(struct translation *t, struct stub *s)
{
    struct emitter *e = &t->e;
    flags_to_s(t);
    give_back(t, H_NONE, -1); /* the instruction is one more, of which nothing is done */
    s->from2 = emit_jmp(e, emit_exec(e));
    t->state = FLAGS_E;
}

static void scan_emit(struct translation *t, struct planned *p)
{
    struct emitter *e = &t->e;
    unsigned size = p->in.opsize;
    bool until_equal = p->in.prefixes & IP_REPNE;
    uint8_t *slow[3];
    flags_to_s(t);
    slow[0] = jump_if_down(t);
    if_zero(t, H_RCX, &slow[1]);
    to_page_end(t, size);
    if_zero(t, T0, &slow[2]);
    struct stub *s = call_from(t, slow, array_size(slow));
    s->flags_e = true;
    dest(t, p);
    if (!is64(t))
        to_page_end(t, size); /* the address was in T0 */
    split_count(t);
    count_iterations(t, T0);
    cut(t, &p->in);
    emit_mov(e, H_RCX, T0);
    add(t, H_RDI, T1);
    emit_reg(e, ENC_W, 0xf7, 3, T1);
    emit_plain(e, width(size) | (until_equal ? ENC_F2 : ENC_F3), sized(0xaf, size));
    flags_defined(t, p);
    lea_word(t, H_RDI, amode_indexed(H_RDI, T1, 0, 0));
    give_back(t, H_RCX, 0); /* iterations that were not needed */
    emit_load(e, T2, AT_AREA(string_rest));
    emit_lea(e, H_RCX, amode_indexed(H_RCX, T2, 0, 0));
    uint8_t *found = emit_jcc(e, until_equal ? 4 : 5, emit_exec(e));
    emit_byte(e, 0xe3); /* jrcxz over what follows */
    uint8_t *end = e->at;
    emit_byte(e, 0);
    go_on_elsewhere(t, s);
    if (!e->full)
        *end = (uint8_t)(e->at - end - 1);
    emit_patch(e, found, emit_exec(e));
    s->retry = emit_exec(e);
}

void string_emit(struct translation *t, struct planned *p)
{
    if (!repeats(&p->in)) {
        single_emit(t, p);
        return;
    }
    if (p->in.id == INSN_SCAS)
        scan_emit(t, p);
    else
        move_emit(t, p);
    /* The handler may have been called. */
    t->simd_ready = simd_always(t);
    t->x87_ready = false;
    t->spots_fresh = false;
    t->delta_group = NO_GROUP;
}
