/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MOVS STOS LODS CMPS SCAS INS OUTS, with and without REP.
 *
 * Each iteration retires one instruction and leaves RCX, RSI and RDI as the next needs them, so a fault or an
 * interrupt between two finds exact state. A repeated one runs in chunks: as many iterations as the count,
 * the wanted retired count and the patience of whoever has a request allow; then the run loop looks and comes
 * back. What lies in plain RAM is done by the host's own repeated instruction, as far as the host's addresses
 * follow each other.
 */
#include "engine/interp/operand.h"

#define CHUNK 4096u /* single iterations without a look at requests */

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

#define SPAN_MAX (256u << 10) /* bytes done without a look at requests */

/* Elements at one end that can be done at once: in plain RAM, at addresses of the host that follow each other. */
struct span {
    uint8_t *host;
    uint64_t n; /* 0: none */
};

static inline uint64_t at_most(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Host address for an access that needs no notice, or NULL. Raises nothing. */
static uint8_t *cached(struct vcpu *v, uint64_t lin, enum mmu_access access)
{
    struct mmu *m = &v->mmu;
    uint8_t *host = tlb_find(m, lin, 1, access);
    if (host || m->bypass)
        return host;
    struct mmu_result r = mmu_translate(m, GVA(lin), access, m->index);
    if (r.fault == MMU_FAULT_PAGE)
        m->stats.true_faults--; /* met again by the single iteration */
    return r.fault ? NULL : tlb_find(m, lin, 1, access);
}

/* Bytes from `lin` upward, `want` at most or little more. Pages are looked up only as far as they will be used. */
static uint64_t bytes_upward(struct vcpu *v, uint64_t lin, const uint8_t *host, uint64_t want,
                             enum mmu_access access)
{
    uint64_t bytes = PAGE_SIZE - (lin & PAGE_OFFSET_MASK);
    want = at_most(want, SPAN_MAX);
    while (bytes < want && ((lin + bytes) & v->lin_mask) && cached(v, lin + bytes, access) == host + bytes)
        bytes += PAGE_SIZE;
    return bytes;
}

/* Up to n elements from the address in register r on, in the direction of DF. */
static struct span span_at(const struct string_op *s, enum seg seg, enum reg r, uint64_t n,
                           enum mmu_access access)
{
    struct vcpu *v = s->v;
    uint64_t off = v->s.gpr[r] & s->mask;
    if (!v->sf[seg].flat[access == ACCESS_WRITE])
        return (struct span){ 0 };
    uint64_t lin = (v->sf[seg].base + off) & v->lin_mask, in_page = lin & PAGE_OFFSET_MASK;
    uint8_t *host = cached(v, lin, access);
    if (!host)
        return (struct span){ 0 };
    if (s->step < 0)
        n = in_page + s->size > PAGE_SIZE ? 0 : at_most(n, at_most(in_page, off) / s->size + 1);
    else
        n = at_most(n, at_most(bytes_upward(v, lin, host, n * s->size, access), s->mask - off) / s->size);
    return (struct span){ host, n };
}

/* Upward, or downward with DF. */
#define HOST_REP(insn, ...) \
    do { \
        if (s->step < 0) \
            __asm__ volatile("std\n\t" insn "\n\tcld" : __VA_ARGS__ : "memory"); \
        else \
            __asm__ volatile(insn:__VA_ARGS__ : "memory"); \
    } while (0)

/* Element by element as the guest wants it: what was stored may be loaded again. */
static void host_movs(const struct string_op *s, uint8_t *dst, const uint8_t *src, uint64_t n)
{
    if (s->step > 0 && (dst <= src || dst >= src + n * s->size)) {
        n *= s->size; /* bytes are quick from the start */
        __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
        return;
    }
    switch (s->size) {
    case 1: HOST_REP("rep movsb", "+D"(dst), "+S"(src), "+c"(n) :); break;
    case 2: HOST_REP("rep movsw", "+D"(dst), "+S"(src), "+c"(n) :); break;
    case 4: HOST_REP("rep movsl", "+D"(dst), "+S"(src), "+c"(n) :); break;
    default: HOST_REP("rep movsq", "+D"(dst), "+S"(src), "+c"(n) :); break;
    }
}

static void host_stos(const struct string_op *s, uint8_t *dst, uint64_t val, uint64_t n)
{
    switch (s->size) {
    case 1: HOST_REP("rep stosb", "+D"(dst), "+c"(n) : "a"(val)); break;
    case 2: HOST_REP("rep stosw", "+D"(dst), "+c"(n) : "a"(val)); break;
    case 4: HOST_REP("rep stosl", "+D"(dst), "+c"(n) : "a"(val)); break;
    default: HOST_REP("rep stosq", "+D"(dst), "+c"(n) : "a"(val)); break;
    }
}

static uint64_t stos_bulk(const struct string_op *s, uint64_t n)
{
    struct span to = span_at(s, SEG_ES, RDI, n, ACCESS_WRITE);
    if (!to.n)
        return 0;
    host_stos(s, to.host, s->v->s.gpr[RAX], to.n);
    advance(s, RDI, to.n);
    return to.n;
}

static uint64_t movs_bulk(const struct string_op *s, uint64_t n)
{
    struct span from = span_at(s, s->op->seg, RSI, n, ACCESS_READ);
    if (!from.n)
        return 0;
    struct span to = span_at(s, SEG_ES, RDI, from.n, ACCESS_WRITE);
    if (!to.n)
        return 0;
    host_movs(s, to.host, from.host, to.n);
    advance(s, RSI, to.n);
    advance(s, RDI, to.n);
    return to.n;
}

/* The host stops where the guest would; returns the iterations that it made. */
#define HOST_SCAN(insn, ...) \
    do { \
        if (s->step < 0) \
            __asm__ volatile("std\n\t" insn "\n\tcld\n\tlahf\n\tseto %%al" \
                             : "+a"(rax), "+c"(n), __VA_ARGS__ \
                             : \
                             : "memory"); \
        else \
            __asm__ volatile(insn "\n\tlahf\n\tseto %%al" : "+a"(rax), "+c"(n), __VA_ARGS__ : : "memory"); \
    } while (0)
#define HOST_SCAN_SIZES(insn, ...) \
    switch (s->size) { \
    case 1: HOST_SCAN(insn "b", __VA_ARGS__); break; \
    case 2: HOST_SCAN(insn "w", __VA_ARGS__); break; \
    case 4: HOST_SCAN(insn "l", __VA_ARGS__); break; \
    default: HOST_SCAN(insn "q", __VA_ARGS__); break; \
    }

static uint64_t scas_bulk(const struct string_op *s, uint64_t n)
{
    struct span at = span_at(s, SEG_ES, RDI, at_most(n, PAGE_SIZE), ACCESS_READ);
    if (!at.n)
        return 0;
    uint64_t rax = s->v->s.gpr[RAX], made = n = at.n;
    if (s->op->r2 == IP_REP)
        HOST_SCAN_SIZES("repe scas", "+D"(at.host))
    else
        HOST_SCAN_SIZES("repne scas", "+D"(at.host))
    s->v->s.cc = (uint16_t)rax;
    made -= n;
    advance(s, RDI, made);
    return made;
}

static uint64_t cmps_bulk(const struct string_op *s, uint64_t n)
{
    struct span b = span_at(s, SEG_ES, RDI, at_most(n, PAGE_SIZE), ACCESS_READ);
    struct span a = b.n ? span_at(s, s->op->seg, RSI, b.n, ACCESS_READ) : b;
    if (!a.n)
        return 0;
    uint64_t rax = 0, made = n = a.n;
    if (s->op->r2 == IP_REP)
        HOST_SCAN_SIZES("repe cmps", "+D"(b.host), "+S"(a.host))
    else
        HOST_SCAN_SIZES("repne cmps", "+D"(b.host), "+S"(a.host))
    s->v->s.cc = (uint16_t)rax;
    made -= n;
    advance(s, RSI, made);
    advance(s, RDI, made);
    return made;
}

/* Up to n iterations in plain RAM; 0: take the way of single ones. */
static uint64_t bulk(const struct string_op *s, uint64_t n)
{
    switch (s->op->r1) {
    case STRING_MOVS: return movs_bulk(s, n);
    case STRING_STOS: return stos_bulk(s, n);
    case STRING_SCAS: return scas_bulk(s, n);
    case STRING_CMPS: return cmps_bulk(s, n);
    default: return 0;
    }
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

/* Up to n iterations, and to what may pass without a look at requests; true when the instruction is complete. */
static bool repeat(const struct string_op *s, uint64_t n)
{
    struct vcpu *v = s->v;
    uint64_t effort = 0;
    while (n && effort < SPAN_MAX) {
        uint64_t done = bulk(s, n);
        effort += done ? done * s->size : SPAN_MAX / CHUNK;
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
    bool complete = repeat(&s, at_most(count, room));
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
