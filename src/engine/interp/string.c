/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MOVS STOS LODS CMPS SCAS INS OUTS, with and without REP.
 *
 * Each iteration retires one instruction and leaves RCX, RSI and RDI as the next needs them, so a fault or an
 * interrupt between two finds exact state. A repeated one runs in chunks: as many iterations as the count,
 * the wanted retired count and CHUNK allow; then the run loop looks for requests and comes back. Where both
 * operands lie in plain RAM, MOVS and STOS do a page's worth at once.
 */
#include "engine/interp/operand.h"

#define CHUNK 4096u

enum string_kind { STRING_MOVS, STRING_STOS, STRING_LODS, STRING_CMPS, STRING_SCAS, STRING_INS, STRING_OUTS };

/* What one instruction works with. op->r1: enum string_kind; op->opsize: element size. */
struct string_op {
    struct vcpu *v;
    const struct op *op;
    uint64_t mask; /* of the address size */
    int64_t step;
    unsigned size;
};

static inline struct string_op string_begin(struct vcpu *v, const struct op *op)
{
    return (struct string_op){
        .v = v,
        .op = op,
        .mask = mask_bytes(op->addrsize),
        .step = v->s.rflags & FL_DF ? -(int64_t)op->opsize : op->opsize,
        .size = op->opsize,
    };
}

static inline uint64_t source_linear(const struct string_op *s, enum mmu_access access)
{
    return seg_linear(s->v, s->op->seg, s->v->s.gpr[RSI] & s->mask, s->size, access);
}

static inline uint64_t dest_linear(const struct string_op *s, enum mmu_access access)
{
    return seg_linear(s->v, SEG_ES, s->v->s.gpr[RDI] & s->mask, s->size, access);
}

static inline void advance(const struct string_op *s, enum reg r, uint64_t n)
{
    set_sized(s->v, r, s->v->s.gpr[r] + (uint64_t)s->step * n, s->op->addrsize);
}

/* --- one iteration of each ------------------------------------------------------------------------------ */

static inline uint64_t read_source(const struct string_op *s)
{
    return read_linear(s->v, s->op, source_linear(s, ACCESS_READ), s->size, s->op->seg);
}

static inline uint64_t read_dest(const struct string_op *s)
{
    return read_linear(s->v, s->op, dest_linear(s, ACCESS_READ), s->size, SEG_ES);
}

static inline void write_dest(const struct string_op *s, uint64_t val)
{
    write_linear(s->v, s->op, dest_linear(s, ACCESS_WRITE), val, s->size, SEG_ES);
}

static inline void compare(struct vcpu *v, uint64_t a, uint64_t b, unsigned size)
{
    uint16_t cc;
    switch (size) {
    case 1: __asm__("cmpb %b2, %b1" CC_SAVE : "=&a"(cc) : "r"(a), "r"(b)); break;
    case 2: __asm__("cmpw %w2, %w1" CC_SAVE : "=&a"(cc) : "r"(a), "r"(b)); break;
    case 4: __asm__("cmpl %k2, %k1" CC_SAVE : "=&a"(cc) : "r"(a), "r"(b)); break;
    default: __asm__("cmpq %2, %1" CC_SAVE : "=&a"(cc) : "r"(a), "r"(b)); break;
    }
    v->s.cc = cc;
}

static inline void movs(const struct string_op *s)
{
    write_dest(s, read_source(s));
    advance(s, RSI, 1);
    advance(s, RDI, 1);
}

static inline void stos(const struct string_op *s)
{
    write_dest(s, s->v->s.gpr[RAX]);
    advance(s, RDI, 1);
}

static inline void lods(const struct string_op *s)
{
    uint64_t val = read_source(s);
    advance(s, RSI, 1);
    set_sized(s->v, RAX, val, s->size);
}

static inline void cmps(const struct string_op *s)
{
    /* The host reads in this order, which shows when both would fault. */
    uint64_t b = read_dest(s);
    uint64_t a = read_source(s);
    compare(s->v, a, b, s->size);
    advance(s, RSI, 1);
    advance(s, RDI, 1);
}

static inline void scas(const struct string_op *s)
{
    compare(s->v, s->v->s.gpr[RAX], read_dest(s), s->size);
    advance(s, RDI, 1);
}

/* The destination is known to be writable before the port is read, since reading it may have effects (SDM
 * 2A INS). */
static void ins(const struct string_op *s)
{
    struct vcpu *v = s->v;
    uint16_t port = (uint16_t)v->s.gpr[RDX];
    cpu_check_io(v, port, s->size);
    uint64_t lin = dest_linear(s, ACCESS_WRITE);
    access_probe_write(v, lin, s->size, v->mmu.index, SEG_ES);
    uint64_t val = cpu_in(v, port, s->size);
    access_write(v, lin, &val, s->size, v->mmu.index, SEG_ES);
    advance(s, RDI, 1);
}

static void outs(const struct string_op *s)
{
    struct vcpu *v = s->v;
    uint16_t port = (uint16_t)v->s.gpr[RDX];
    cpu_check_io(v, port, s->size);
    uint64_t val = 0, lin = source_linear(s, ACCESS_READ);
    access_read(v, lin, &val, s->size, v->mmu.index, s->op->seg);
    cpu_out(v, port, (uint32_t)val, s->size);
    advance(s, RSI, 1);
}

static inline void iterate(const struct string_op *s)
{
    switch (s->op->r1) {
    case STRING_MOVS: movs(s); break;
    case STRING_STOS: stos(s); break;
    case STRING_LODS: lods(s); break;
    case STRING_CMPS: cmps(s); break;
    case STRING_SCAS: scas(s); break;
    case STRING_INS: ins(s); break;
    default: outs(s); break;
    }
}

/* --- many at once --------------------------------------------------------------------------------------- */

/* Elements from `lin` upward to the end of its page. */
static inline uint64_t elements_in_page(uint64_t lin, unsigned size)
{
    return (PAGE_SIZE - (lin & PAGE_OFFSET_MASK)) / size;
}

static inline uint64_t at_most(uint64_t a, uint64_t b) { return a < b ? a : b; }

static void fill(uint8_t *dst, uint64_t val, unsigned size, uint64_t n)
{
    if (val == 0) {
        memset(dst, 0, n * size);
        return;
    }
    switch (size) {
    case 1: memset(dst, (int)(uint8_t)val, n); break;
    case 2:
        for (uint64_t i = 0; i < n; i++)
            ((any16 *)dst)[i] = (uint16_t)val;
        break;
    case 4:
        for (uint64_t i = 0; i < n; i++)
            ((any32 *)dst)[i] = (uint32_t)val;
        break;
    default:
        for (uint64_t i = 0; i < n; i++)
            ((any64 *)dst)[i] = val;
        break;
    }
}

/* Element by element, as an overlap of less than the whole wants it: what was stored is loaded again. */
static void copy_forward(uint8_t *dst, const uint8_t *src, unsigned size, uint64_t n)
{
    if (dst <= src || dst >= src + n * size) {
        memmove(dst, src, n * size);
        return;
    }
    for (uint64_t i = 0; i < n; i++, dst += size, src += size) {
        uint8_t element[8];
        memcpy(element, src, size);
        memcpy(dst, element, size);
    }
}

/* How many whole elements from RSI / RDI on could be done at once, upward in flat address space without a
 * wrap. */
static inline uint64_t run_length(const struct string_op *s, enum reg r, uint64_t lin)
{
    uint64_t to_wrap = (s->mask - (s->v->s.gpr[r] & s->mask)) / s->size;
    return at_most(elements_in_page(lin, s->size), to_wrap);
}

/* Up to n iterations of a forward STOS or MOVS in plain RAM; 0: take the way of single ones. */
static uint64_t stos_bulk(const struct string_op *s, uint64_t n)
{
    struct vcpu *v = s->v;
    if (s->step < 0 || !v->sf[SEG_ES].flat[ACCESS_WRITE])
        return 0;
    uint64_t lin = dest_linear(s, ACCESS_WRITE);
    uint8_t *dst = tlb_find(&v->mmu, lin, 1, ACCESS_WRITE);
    n = at_most(n, run_length(s, RDI, lin));
    if (!dst || n == 0)
        return 0;
    fill(dst, v->s.gpr[RAX], s->size, n);
    advance(s, RDI, n);
    return n;
}

static uint64_t movs_bulk(const struct string_op *s, uint64_t n)
{
    struct vcpu *v = s->v;
    if (s->step < 0 || !v->sf[SEG_ES].flat[ACCESS_WRITE] || !v->sf[s->op->seg].flat[ACCESS_READ])
        return 0;
    uint64_t from = source_linear(s, ACCESS_READ), to = dest_linear(s, ACCESS_WRITE);
    const uint8_t *src = tlb_find(&v->mmu, from, 1, ACCESS_READ);
    uint8_t *dst = tlb_find(&v->mmu, to, 1, ACCESS_WRITE);
    n = at_most(n, at_most(run_length(s, RSI, from), run_length(s, RDI, to)));
    if (!src || !dst || n == 0)
        return 0;
    copy_forward(dst, src, s->size, n);
    advance(s, RSI, n);
    advance(s, RDI, n);
    return n;
}

/* --- REP ------------------------------------------------------------------------------------------------ */

/* Notes n iterations as done: the count register, and the retired count, of which the block has one
 * already. */
static inline void retire_iterations(const struct string_op *s, uint64_t n)
{
    struct vcpu *v = s->v;
    set_sized(v, RCX, v->s.gpr[RCX] - n, s->op->addrsize);
    interp_of(v)->retired0 += n;
    v->s.retired += n;
}

/* REPE and REPNE: does the comparison end it? op->r2: 0 plain REP, else the IP_ bit. */
static inline bool comparison_ends(const struct string_op *s)
{
    bool equal = s->v->s.cc & CC_ZF;
    return s->op->r1 == STRING_CMPS || s->op->r1 == STRING_SCAS ? equal != (s->op->r2 == IP_REP) : false;
}

/* Up to n iterations; true when the instruction is complete. */
static bool repeat(const struct string_op *s, uint64_t n)
{
    struct vcpu *v = s->v;
    while (n) {
        uint64_t done = 0;
        if (s->op->r1 == STRING_STOS)
            done = stos_bulk(s, n);
        else if (s->op->r1 == STRING_MOVS)
            done = movs_bulk(s, n);
        if (!done) {
            iterate(s);
            done = 1;
        }
        retire_iterations(s, done);
        n -= done;
        if ((v->s.gpr[RCX] & s->mask) == 0 || comparison_ends(s))
            return true;
        if (unlikely(v->s.debug_pending))
            return false; /* a data breakpoint: its trap is due after this iteration */
    }
    return false;
}

/* The block counted one instruction for it, of which the iterations are the true number: none at all still
 * counts one. */
HANDLER(string_rep)
{
    struct string_op s = string_begin(v, op);
    struct interp *c = interp_of(v);
    uint64_t count = v->s.gpr[RCX] & s.mask;
    if (count == 0)
        return NEXT(v, op);
    uint64_t room = c->until - c->retired0 - (uint64_t)(op - c->block->ops);
    if (s.op->r1 >= STRING_INS)
        exact(v, op);
    if (v->mode & MODE_STEP)
        room = 1; /* each iteration is a step */
    bool complete = repeat(&s, at_most(at_most(count, room), CHUNK));
    if (s.op->r1 >= STRING_INS)
        inexact(v);
    v->s.retired--;
    c->retired0--;
    if (complete && s.op->r1 < STRING_INS)
        return NEXT(v, op);
    v->s.rip = complete ? op_next_rip(v, op) : (v->s.rip + op->off - op->len) & v->lin_mask;
    c->repeating = !complete;
    return leave(v);
}

#define STRING_SINGLE(name) \
    HANDLER(string_##name) \
    { \
        struct string_op s = string_begin(v, op); \
        name(&s); \
        return NEXT(v, op); \
    }
STRING_SINGLE(movs)
STRING_SINGLE(stos)
STRING_SINGLE(lods)
STRING_SINGLE(cmps)
STRING_SINGLE(scas)

HANDLER(string_io)
{
    struct string_op s = string_begin(v, op);
    exact(v, op);
    iterate(&s);
    return leave_exact(v);
}

bool lower_string(struct op *op, const struct insn *in, uint32_t mode)
{
    /* clang-format off */
    static const op_handler single[] = {
        string_movs, string_stos, string_lods, string_cmps, string_scas, string_io, string_io,
    };
    static const uint8_t kinds[INSN_OUTS - INSN_MOVS + 1] = {
        [INSN_MOVS - INSN_MOVS] = STRING_MOVS, [INSN_CMPS - INSN_MOVS] = STRING_CMPS,
        [INSN_STOS - INSN_MOVS] = STRING_STOS, [INSN_LODS - INSN_MOVS] = STRING_LODS,
        [INSN_SCAS - INSN_MOVS] = STRING_SCAS, [INSN_INS - INSN_MOVS] = STRING_INS,
        [INSN_OUTS - INSN_MOVS] = STRING_OUTS,
    };
    /* clang-format on */
    (void)mode;
    op->r1 = kinds[in->id - INSN_MOVS];
    if (op->r1 >= STRING_INS && op->opsize == 8)
        op->opsize = 4; /* ports are 32 bits wide at most */
    op->r2 = in->prefixes & (IP_REP | IP_REPNE);
    op->run = op->r2 ? string_rep : single[op->r1];
    return true;
}
