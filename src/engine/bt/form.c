/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which instructions make a unit, and what is done with each.
 *
 * A unit is a run of instructions on one page; it goes on behind a branch that is not taken. It ends with a jump, in
 * front of an instruction for the interpreter, or at the page's end. An instruction that goes on on the next page is a unit
 * of its own.
 */
#include "base/bits.h"
#include "cpu/model.h"
#include "engine/bt/unit.h"

/* clang-format off */
static const uint8_t how_by_id[INSN_ID_COUNT] = {
    [INSN_ADD] = HOW_COPY, [INSN_OR] = HOW_COPY, [INSN_ADC] = HOW_COPY, [INSN_SBB] = HOW_COPY,
    [INSN_AND] = HOW_COPY, [INSN_SUB] = HOW_COPY, [INSN_XOR] = HOW_COPY, [INSN_CMP] = HOW_COPY,
    [INSN_TEST] = HOW_COPY, [INSN_INC] = HOW_COPY, [INSN_DEC] = HOW_COPY, [INSN_NEG] = HOW_COPY,
    [INSN_NOT] = HOW_COPY, [INSN_ROL] = HOW_COPY, [INSN_ROR] = HOW_COPY, [INSN_RCL] = HOW_COPY,
    [INSN_RCR] = HOW_COPY, [INSN_SHL] = HOW_COPY, [INSN_SHR] = HOW_COPY, [INSN_SAR] = HOW_COPY,
    [INSN_SHLD] = HOW_COPY, [INSN_SHRD] = HOW_COPY, [INSN_MUL] = HOW_COPY, [INSN_IMUL1] = HOW_COPY,
    [INSN_IMUL2] = HOW_COPY, [INSN_IMUL3] = HOW_COPY, [INSN_DIV] = HOW_COPY, [INSN_IDIV] = HOW_COPY,
    [INSN_MOV] = HOW_COPY, [INSN_MOVNTI] = HOW_COPY, [INSN_MOVZX] = HOW_COPY, [INSN_MOVSX] = HOW_COPY,
    [INSN_CMOVCC] = HOW_COPY, [INSN_SETCC] = HOW_COPY, [INSN_CBW] = HOW_COPY, [INSN_CWD] = HOW_COPY,
    [INSN_BSWAP] = HOW_COPY, [INSN_BT] = HOW_COPY, [INSN_BTS] = HOW_COPY, [INSN_BTR] = HOW_COPY,
    [INSN_BTC] = HOW_COPY, [INSN_BSF] = HOW_COPY, [INSN_BSR] = HOW_COPY, [INSN_POPCNT] = HOW_COPY,
    [INSN_XCHG] = HOW_COPY, [INSN_XADD] = HOW_COPY, [INSN_CMPXCHG] = HOW_COPY, [INSN_CMPXCHG8B] = HOW_COPY,
    [INSN_CRC32] = HOW_COPY, [INSN_LAHF] = HOW_COPY, [INSN_SAHF] = HOW_COPY, [INSN_CLC] = HOW_COPY,
    [INSN_STC] = HOW_COPY, [INSN_CMC] = HOW_COPY, [INSN_LFENCE] = HOW_COPY, [INSN_MFENCE] = HOW_COPY,
    [INSN_SFENCE] = HOW_COPY,
    [INSN_NOP] = HOW_NOP, [INSN_CLD] = HOW_CLD,
    [INSN_LEA] = HOW_LEA, [INSN_PUSH] = HOW_PUSH, [INSN_POP] = HOW_POP, [INSN_LEAVE] = HOW_LEAVE,
    [INSN_CALL] = HOW_CALL, [INSN_CALL_IND] = HOW_CALL_IND, [INSN_RET] = HOW_RET,
    [INSN_JMP] = HOW_JMP, [INSN_JMP_IND] = HOW_JMP_IND, [INSN_JCC] = HOW_JCC,
    [INSN_LOOP] = HOW_LOOP, [INSN_LOOPE] = HOW_LOOP, [INSN_LOOPNE] = HOW_LOOP, [INSN_JCXZ] = HOW_LOOP,
    [INSN_PUSH_SEG] = HOW_PUSH_SEG,
};
/* clang-format on */

static bool has_mem(const struct insn *in)
{
    return in->op[0].kind == OPND_MEM || in->op[1].kind == OPND_MEM || in->op[2].kind == OPND_MEM;
}

static bool mem_possible(const struct insn *in) { return in->mem.disp == (int32_t)in->mem.disp; }

/* The segment as far as it matters: its base, and outside 64-bit mode its limit and type. */
static uint8_t segment_that_matters(unsigned seg, uint32_t key)
{
    if (key_code64(key))
        return seg >= SEG_FS ? (uint8_t)seg : SEG_PLAIN;
    return key & MODE_FLAT && seg < SEG_FS && seg != SEG_CS ? SEG_PLAIN : (uint8_t)seg;
}

static bool is_moffs(const struct insn *in)
{
    return in->id == INSN_MOV && in->row->opcode >= 0xa0 && in->row->opcode <= 0xa3 && in->row->map == MAP_1;
}

/* Near branches in 64-bit code have one size. */
static bool branch_possible(const struct insn *in, uint32_t key)
{
    return !key_code64(key) || in->opsize == 8;
}

static bool ends_unit(enum how how)
{
    return how == HOW_SWITCH || how == HOW_TURN || how == HOW_JMP || how == HOW_CALL || how == HOW_RET ||
           how == HOW_JMP_IND || how == HOW_CALL_IND;
}

static enum how classify_copied(const struct bt *b, const struct insn *in, uint32_t key)
{
    enum how how = insn_is_pause(in) ? HOW_BAIL : how_by_id[in->id];
    if (how == HOW_BAIL)
        how = vector_how(b, in, key);
    if (how == HOW_BAIL)
        how = x87_how(b, in, key);
    if (how == HOW_BAIL)
        return string_possible(b, in, key) ? HOW_STRING : HOW_BAIL;
    if (is_moffs(in))
        return HOW_MOFFS;
    if (how != HOW_NOP && has_mem(in) && !mem_possible(in))
        return HOW_BAIL;
    switch (how) {
    case HOW_COPY: return copy_possible(in, key) ? HOW_COPY : HOW_BAIL;
    case HOW_POP: return has_mem(in) ? HOW_BAIL : how;
    case HOW_CALL:
    case HOW_CALL_IND:
    case HOW_RET:
    case HOW_JMP:
    case HOW_JMP_IND:
    case HOW_JCC:
    case HOW_LOOP: return branch_possible(in, key) ? how : HOW_BAIL;
    default: return how;
    }
}

static enum how classify(const struct bt *b, const struct insn *in, uint32_t key)
{
    enum how how = classify_copied(b, in, key);
    if (how == HOW_BAIL)
        how = inline_how(b, in, key);
    return how == HOW_BAIL && call_out_possible(b, in, key) ? HOW_CALL_OUT : how;
}

/* What was learnt while it ran. */
static void take_lesson(struct planned *p, const struct bt *b, const uint8_t *code, uint32_t key)
{
    p->lesson = p->how != HOW_BAIL && p->how != HOW_CALL_OUT && bt_adapt_is(b, code, VERDICT_CALLED) &&
                call_out_possible(b, &p->in, key);
    p->alone = key & KEY_SPLIT || bt_adapt_is(b, code, VERDICT_ALONE);
    if (p->lesson)
        p->how = HOW_CALL_OUT;
}

static void note_string(struct planned *p, uint32_t key)
{
    string_note(p);
    p->mem.seg = segment_that_matters(SEG_ES, key);
    p->stack.seg = p->in.id == INSN_STOS || p->in.id == INSN_SCAS ? SEG_PLAIN
                                                                  : segment_that_matters(p->in.seg, key);
    if (p->in.id == INSN_LODS)
        p->mem.seg = SEG_PLAIN;
    p->mem.narrow = p->stack.narrow = p->in.addrsize == 2;
}

/* The side of the view where an access was met, else where it would be now. */
static uint8_t side_of(const struct bt *b, const struct insn *in, const uint8_t *code, bool stack)
{
    const uint64_t *gpr = b->v->s.gpr;
    unsigned met = b->lessons[bt_lesson_slot(code)].view_side;
    if (stack)
        return (uint8_t)bt_view_side(b, gpr[RSP]);
    if (met & SIDE_KNOWN)
        return met & 1;
    const struct mem_operand *m = &in->mem;
    uint64_t lin = (uint64_t)m->disp;
    if (m->base == MEM_RIP)
        lin += b->v->s.rip;
    if (m->base < 16)
        lin += gpr[m->base];
    if (m->index < 16)
        lin += gpr[m->index] << m->scale;
    return (uint8_t)bt_view_side(b, lin);
}

/* 32-bit code has it where neither base nor limit matters; 16-bit addresses never. */
static bool can_be_shown(const struct access *a, uint32_t key)
{
    return key_code64(key) || (!a->narrow && a->seg == SEG_PLAIN);
}

static void note_accesses(struct planned *p, const struct bt *b, const uint8_t *code, uint32_t key)
{
    bool view = key & KEY_VIEW && b->lessons[bt_lesson_slot(code)].view_blame < BLAMED;
    const struct insn *in = &p->in;
    bool mem = has_mem(in) && p->how != HOW_NOP && p->how != HOW_LEA && p->how != HOW_CALL_OUT;
    p->mem = (struct access){ .group = NO_GROUP };
    p->stack = (struct access){ .group = NO_GROUP };
    if (mem) {
        uint8_t size = p->fx.mem_read > p->fx.mem_write ? p->fx.mem_read : p->fx.mem_write;
        if (p->how == HOW_JMP_IND || p->how == HOW_CALL_IND || p->how == HOW_PUSH || p->how == HOW_LOAD_SEG) {
            size = p->how == HOW_LOAD_SEG ? 2 : in->opsize;
            p->fx.mem_write = 0;
            p->fx.mem_read = size;
        }
        p->mem.aligned = size == 16 && (in->row->flags & IF_AL16 || in->id == INSN_CMPXCHG8B);
        p->mem.doubtful = size > 16 && in->row->flags & IF_AL16;
        p->mem.probe = vector_partial(in);
        p->mem.used = true;
        p->mem.size = size;
        p->mem.seg = segment_that_matters(in->mem.seg, key);
        p->mem.narrow = in->addrsize == 2;
        p->mem.write = p->fx.mem_write;
        p->mem.read = p->fx.mem_read;
        p->mem.view = view && can_be_shown(&p->mem, key);
        if (view)
            p->mem.side = side_of(b, in, code, false);
    }
    if (p->how == HOW_STRING)
        note_string(p, key);
    bool push = p->how == HOW_PUSH || p->how == HOW_PUSHF || p->how == HOW_PUSH_SEG || p->how == HOW_CALL ||
                p->how == HOW_CALL_IND;
    bool pop = p->how == HOW_POP || p->how == HOW_LEAVE || p->how == HOW_RET ||
               (p->how == HOW_LOAD_SEG && in->id == INSN_POP_SEG);
    if (push || pop) {
        p->stack.used = true;
        p->stack.size = in->opsize;
        p->stack.seg = segment_that_matters(SEG_SS, key);
        p->stack.narrow = !key_code64(key) && !(key & MODE_SS32);
        p->stack.write = push;
        p->stack.read = pop;
        p->stack.view = view && can_be_shown(&p->stack, key) && p->stack.size > 2;
        if (view)
            p->stack.side = side_of(b, in, code, true);
    }
}

static void begin(struct unit_plan *p, gpa addr, struct bt_window window, uint32_t key)
{
    p->count = 0;
    p->start = addr.v & PAGE_OFFSET_MASK;
    p->window = window;
    p->code64 = key_code64(key);
    p->flat_cs = key & KEY_FLAT_CS;
    p->view = key & KEY_VIEW;
    p->code_bytes = (uint8_t)mode_code_bytes(key & MODE_KEY_MASK);
    p->sp_bytes = p->code64 ? 8 : key & MODE_SS32 ? 4 : 2;
    p->crossing = false;
}

/* The one behind the last, at page offset `at`: left to the interpreter so far. */
static struct planned *next(struct unit_plan *p, unsigned at)
{
    struct planned *i = &p->insns[p->count];
    *i = (struct planned){ .how = HOW_BAIL, .off = (uint16_t)at, .end = (uint16_t)at };
    return i;
}

/* What instructions are decoded for. */
struct decoding {
    const struct bt *b;
    uint32_t key;
    unsigned code_bytes;
    uint64_t features;
};

static struct decoding decoding_for(const struct bt *b, uint32_t key)
{
    return (struct decoding){ b, key, mode_code_bytes(key & MODE_KEY_MASK), cpu_features(b->v) };
}

/* Appends what the bytes at page offset `at` are: in p->insns[p->count]. `code`: where they are in the guest. */
static enum decode_status append(struct unit_plan *p, const struct decoding *d, const uint8_t *bytes,
                                 const uint8_t *code, unsigned avail, unsigned at)
{
    const struct bt *b = d->b;
    uint32_t key = d->key;
    struct planned *i = next(p, at);
    enum decode_status st = insn_decode_for(&i->in, bytes, avail, d->code_bytes, d->features);
    if (st == DECODE_MORE)
        return st;
    i->how = st == DECODE_OK ? classify(b, &i->in, key) : HOW_BAIL;
    take_lesson(i, b, code, key);
    if (i->how == HOW_LOOP && !in_window(p, (int64_t)at + i->in.len + (int64_t)i->in.imm))
        i->how = HOW_BAIL; /* it has counted before its target is looked up */
    if (i->how == HOW_LOOP && i->in.opsize == 2 && p->code_bytes == 4)
        i->how = HOW_BAIL;
    if (i->how != HOW_BAIL) {
        insn_effects(&i->fx, &i->in);
        if (i->how == HOW_X87) { /* FCOMI: only an unmasked exception would keep the flags */
            i->fx.flags_written |= i->fx.flags_maybe;
            i->fx.flags_maybe = 0;
        }
        if (i->fx.unknown && i->how == HOW_COPY)
            i->how = HOW_BAIL;
    }
    if (i->how != HOW_BAIL) {
        i->end = (uint16_t)(at + i->in.len);
        if (i->how == HOW_SWITCH && !in_window(p, i->end))
            i->how = HOW_CALL_OUT;
        if (!p->code64)
            i->in.mem.disp = (int32_t)i->in.mem.disp; /* of MOV moffs, so that it compares with others */
        note_accesses(i, b, code, key);
    }
    p->count++;
    return st;
}

/* What goes on beyond CS's limit. */
static void leave_to_interpreter(struct unit_plan *p, unsigned at)
{
    next(p, at);
    p->count++;
}

bool unit_form_crossing(struct unit_plan *p, const struct bt *b, const uint8_t bytes[INSN_MAX], gpa addr,
                        uint32_t key)
{
    struct decoding d = decoding_for(b, key);
    begin(p, addr, (struct bt_window){ 0, PAGE_SIZE }, key);
    return append(p, &d, bytes, bytes, INSN_MAX, p->start) != DECODE_MORE;
}

static bool ends(const struct planned *i, bool superblock)
{
    return i->how == HOW_BAIL || ends_unit(i->how) || (i->how == HOW_CALL_OUT && call_out_ends(&i->in)) ||
           (is_conditional(i->how) && !superblock);
}

/* Is it done, or left with nothing of it done, before what follows is emitted? */
static bool may_resume(enum how how)
{
    return how == HOW_COPY || how == HOW_SIMD || how == HOW_LEA || how == HOW_NOP || how == HOW_MOFFS ||
           how == HOW_PUSH || how == HOW_POP;
}

/* Claims page offsets from `from` to behind `end` for decoding. Code is decoded from a copy, which is kept: others may write
 * meanwhile. Returns up to where; the version of the page's code, as far as it was not known before. */
static unsigned claim(struct bt *b, const struct bt_code *where, unsigned from, unsigned end,
                      uint32_t *version)
{
    unsigned start = where->addr.v & PAGE_OFFSET_MASK, upto = (end + CODE_LINE - 1) & ~(CODE_LINE - 1);
    uint32_t now = pmap_claim_code(b->v->pmap, GPA(where->addr.v - start + from), upto - from);
    if (from == start)
        *version = now;
    memcpy(b->held + b->nheld + from - start, where->host + from - start, upto - from);
    return upto;
}

uint32_t unit_form(struct unit_plan *p, struct bt *b, const struct bt_code *where, uint32_t key)
{
    unsigned start = where->addr.v & PAGE_OFFSET_MASK, at = start, claimed = at, high = where->window.high;
    bool superblock = pass_on(b, ENGINE_PASS_SUPERBLOCK) && bt_heat_full(b, where->host, key);
    struct decoding d = decoding_for(b, key);
    struct unroll u = { 0 };
    uint32_t version = 0;
    begin(p, where->addr, where->window, key);
    for (;;) {
        if (p->count == UNIT_INSNS || at >= high) {
            if (!unroll_undo(&u, p))
                return version;
            at = p->insns[p->count - 1].end;
            continue;
        }
        unsigned end = high - at < INSN_MAX ? high : at + INSN_MAX;
        if (end > claimed)
            claimed = claim(b, where, claimed, end, &version);
        const uint8_t *bytes = b->held + b->nheld + at - start;
        if (append(p, &d, bytes, where->host + at - start, high - at, at) == DECODE_MORE) {
            if (high < PAGE_SIZE || key & KEY_ONCE)
                leave_to_interpreter(p, at);
            else
                p->crossing = p->count == 0;
            return version;
        }
        struct planned *i = &p->insns[p->count - 1];
        if (key & KEY_ONCE && !may_resume(i->how)) {
            i->how = HOW_BAIL;
            i->end = i->off;
            i->mem.used = i->stack.used = false;
        }
        if (ends(i, superblock) || key & KEY_ONCE)
            return version;
        at = superblock ? unroll_next(&u, p) : i->end;
    }
}
