/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MOVS STOS LODS CMPS SCAS INS OUTS, with and without REP.
 *
 * Each iteration retires one instruction and leaves RCX, RSI and RDI as the next needs them, so a fault or an
 * interrupt between two finds exact state. A repeated one runs in chunks: as many iterations as the count,
 * the wanted retired count and the patience of whoever has a request allow; then the run loop looks and comes
 * back. What lies in plain RAM is done by the host's own repeated instruction, as far as the host's addresses
 * follow each other; what is gone over often is shown so that they do (lane.h).
 */
#include "engine/interp/lane.h"
#include "engine/interp/operand.h"
#include "engine/interp/stream.h"

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
    if (!op->opsize)
        __builtin_unreachable(); /* lower_string() */
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

/* No iteration at all leaves the upper half, too. */
static inline void advance(const struct string_op *s, enum reg r, uint64_t n)
{
    if (!n)
        return;
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

#define SPAN_MAX (512u << 10) /* bytes done without a look at requests */

static inline uint64_t at_most(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Host address for an access that needs no notice, or NULL. Raises nothing. */
static uint8_t *cached(struct vcpu *v, uint64_t lin, enum mmu_access access)
{
    struct mmu *m = &v->mmu;
    uint8_t *host = tlb_find(m, lin, 1, access);
    if (likely(host != NULL) || m->bypass)
        return host;
    struct mmu_result r = mmu_translate(m, GVA(lin), access, m->index);
    if (r.fault == MMU_FAULT_PAGE)
        m->stats.true_faults--; /* met again by the single iteration */
    return r.fault ? NULL : tlb_find(m, lin, 1, access);
}

static bool unchecked(const struct string_op *s, enum seg seg, enum mmu_access access)
{
    return s->v->sf[seg].flat[access == ACCESS_WRITE];
}

/* Elements from the address in register r on, in the direction of DF, as far as the page goes. */
struct run {
    uint8_t *host;
    uint64_t n; /* 0: none */
};

static struct run run_at(const struct string_op *s, enum seg seg, enum reg r, uint64_t n,
                         enum mmu_access access)
{
    struct vcpu *v = s->v;
    uint64_t off = v->s.gpr[r] & s->mask;
    if (!unchecked(s, seg, access))
        return (struct run){ 0 };
    uint64_t lin = (v->sf[seg].base + off) & v->lin_mask, in_page = lin & PAGE_OFFSET_MASK;
    if (s->step < 0)
        n = in_page + s->size > PAGE_SIZE ? 0 : at_most(n, at_most(in_page, off) / s->size + 1);
    else
        n = at_most(n, at_most(PAGE_SIZE - in_page, s->mask - off) / s->size);
    uint8_t *host = n ? cached(v, lin, access) : NULL;
    return (struct run){ host, host ? n : 0 };
}

/* --- many pages ----------------------------------------------------------------------------------------- */

/* So many pages are looked up with one walk. */
#define RUN_PAGES 128u
/* Up to so many bytes their translations stay in the TLB for the next time. */
#define KEPT_MAX (1u << 20)

/* One end of an upward run: bytes that the host has side by side, and where it goes on behind them. */
struct end {
    uint64_t lin;
    uint8_t *host;
    uint64_t len;
    uint8_t *next; /* NULL: not looked up */
    uint64_t rest; /* bytes from lin on that the run will come to, if nothing stops it */
    enum mmu_access access;
    bool keep;
    unsigned known, used;      /* of `pages` */
    uint8_t *pages[RUN_PAGES]; /* looked up together */
};

static void end_begin(struct end *e, const struct string_op *s, enum seg seg, enum reg r, uint64_t bytes,
                      bool keep)
{
    const struct vcpu *v = s->v;
    e->lin = (v->sf[seg].base + (v->s.gpr[r] & s->mask)) & v->lin_mask;
    e->len = 0;
    e->next = NULL;
    e->rest = bytes;
    e->access = r == RDI ? ACCESS_WRITE : ACCESS_READ;
    e->keep = keep;
    e->known = e->used = 0;
}

/* A walk for the page at `lin`, and for what follows as far as nobody can see it. */
static cold_fn uint8_t *end_walk(struct vcpu *v, struct end *e, uint64_t lin)
{
    struct mmu *m = &v->mmu;
    uint64_t bytes = e->rest - (lin - e->lin) + (lin & PAGE_OFFSET_MASK);
    unsigned pages = (unsigned)at_most((bytes + PAGE_SIZE - 1) >> PAGE_SHIFT, RUN_PAGES);
    e->known = mmu_translate_run(m, GVA(lin), e->access, e->keep, e->pages, pages);
    e->used = 1;
    return e->known ? e->pages[0] + (lin & PAGE_OFFSET_MASK) : NULL;
}

/* The page `at` bytes on: the one behind that asked for before. */
static inline uint8_t *end_page(struct vcpu *v, struct end *e, uint64_t at)
{
    if (e->used < e->known)
        return e->pages[e->used++];
    uint8_t *host = tlb_find(&v->mmu, e->lin + at, 1, e->access);
    return likely(host != NULL) ? host : end_walk(v, e, e->lin + at);
}

/* As many of the next `want` bytes as lie side by side, 0 when the first may not be accessed like this. Pages behind them are
 * looked up, and their dirty bits set, only as far as `want` goes. */
static inline uint64_t end_extend(struct vcpu *v, struct end *e, uint64_t want)
{
    if (!e->len) {
        e->host = e->next ? e->next : end_page(v, e, 0);
        e->next = NULL;
        if (!e->host)
            return 0;
        e->len = PAGE_SIZE - (e->lin & PAGE_OFFSET_MASK);
    }
    while (e->len < want && !e->next && ((e->lin + e->len) & v->lin_mask)) {
        uint8_t *next = end_page(v, e, e->len);
        if (next == e->host + e->len)
            e->len += PAGE_SIZE;
        else if (next)
            e->next = next;
        else
            break;
    }
    return at_most(e->len, want);
}

static inline void end_pass(struct end *e, uint64_t bytes)
{
    e->lin += bytes;
    e->host += bytes;
    e->len -= bytes;
    e->rest -= bytes;
}

/* Elements from register r upward until its address wraps. */
static uint64_t to_wrap(const struct string_op *s, enum reg r)
{
    return (s->mask - (s->v->s.gpr[r] & s->mask)) / s->size;
}

/* Is this one long enough, or the rest of one that was? */
static bool streams(const struct string_op *s, uint64_t n, uint64_t min)
{
    return n >= min / s->size || interp_of(s->v)->stream_at == s->v->s.gpr[RDI];
}

static void streamed(const struct string_op *s, uint64_t bytes)
{
    stream_end();
    interp_of(s->v)->stream_at = s->v->s.gpr[RDI] + bytes;
}

/* --- what the host does ----------------------------------------------------------------------------------- */

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
    switch (s->size) {
    case 1: HOST_REP("rep movsb", "+D"(dst), "+S"(src), "+c"(n) :); break;
    case 2: HOST_REP("rep movsw", "+D"(dst), "+S"(src), "+c"(n) :); break;
    case 4: HOST_REP("rep movsl", "+D"(dst), "+S"(src), "+c"(n) :); break;
    default: HOST_REP("rep movsq", "+D"(dst), "+S"(src), "+c"(n) :); break;
    }
}

static void host_stos(const struct string_op *s, uint8_t *dst, uint64_t n)
{
    uint64_t val = s->v->s.gpr[RAX];
    switch (s->size) {
    case 1: HOST_REP("rep stosb", "+D"(dst), "+c"(n) : "a"(val)); break;
    case 2: HOST_REP("rep stosw", "+D"(dst), "+c"(n) : "a"(val)); break;
    case 4: HOST_REP("rep stosl", "+D"(dst), "+c"(n) : "a"(val)); break;
    default: HOST_REP("rep stosq", "+D"(dst), "+c"(n) : "a"(val)); break;
    }
}

/* Pages between what is copied past the caches and what is fetched meanwhile. */
#define STREAM_AHEAD 3u

/* The next `bytes`, which lie side by side at both ends. */
static void stream_up(const struct end *to, const struct end *from, uint64_t bytes)
{
    /* The page looked up last is that of the last byte, or the one behind it. */
    unsigned page = from->used - (unsigned)((from->len + PAGE_SIZE - 1) >> PAGE_SHIFT) - (from->next != NULL);
    for (uint64_t done = 0, now; done < bytes; done += now, page++) {
        now = at_most(bytes - done, PAGE_SIZE - ((from->lin + done) & PAGE_OFFSET_MASK));
        const uint8_t *ahead = page + STREAM_AHEAD < from->known ? from->pages[page + STREAM_AHEAD] : NULL;
        stream_copy(to->host + done, from->host + done, now, ahead);
    }
}

static void copy_up(const struct string_op *s, uint8_t *dst, const uint8_t *src, uint64_t bytes)
{
    if (dst > src && dst < src + bytes)
        host_movs(s, dst, src, bytes / s->size);
    else /* bytes are quick from the start */
        __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(bytes) : : "memory");
}

/* The element's value, filling 64 bits. */
static uint64_t repeated(uint64_t val, unsigned size)
{
    static const uint64_t ones[] = { 0x0101010101010101, 0x0001000100010001, 0x0000000100000001, 1 };
    return (val & mask_bytes(size)) * ones[size_index(size)];
}

/* --- STOS, MOVS ---------------------------------------------------------------------------------------------- */

/* By lanes, side by side as for a program of the host's: so much without a look at requests. */
#define LANE_SPAN (4u << 20)

static bool lanes_wanted(const struct string_op *s, uint64_t n)
{
    return n >= LANE_MIN / s->size && !interp_of(s->v)->no_lanes;
}

static uint64_t linear_now(const struct string_op *s, enum seg seg, enum reg r)
{
    return (s->v->sf[seg].base + (s->v->s.gpr[r] & s->mask)) & s->v->lin_mask;
}

/* Elements in `len` bytes, of n. */
static uint64_t lane_part(const struct string_op *s, uint64_t n, uint64_t len)
{
    return at_most(n, at_most(len, LANE_SPAN) / s->size);
}

/* Elements that were stored by a lane; 0: there is none. */
static uint64_t stos_lane(const struct string_op *s, uint64_t n)
{
    unsigned lane;
    uint64_t len;
    uint8_t *to = lane_find(interp_of(s->v)->lanes, s->v, linear_now(s, SEG_ES, RDI), ACCESS_WRITE, &len,
                            &lane);
    if (!to)
        return 0;
    n = lane_part(s, at_most(n, to_wrap(s, RDI)), len);
    host_stos(s, to, n);
    return n;
}

/* In two lanes that have pages in common nothing tells whether what is stored will be loaded. */
static uint64_t movs_lane(const struct string_op *s, uint64_t n)
{
    struct lanes *lanes = interp_of(s->v)->lanes;
    unsigned a, b;
    uint64_t len_to, len_from, stamp = s->v->mmu.stamp;
    uint8_t *to = lane_find(lanes, s->v, linear_now(s, SEG_ES, RDI), ACCESS_WRITE, &len_to, &a);
    if (!to)
        return 0;
    uint8_t *from = lane_find(lanes, s->v, linear_now(s, s->op->seg, RSI), ACCESS_READ, &len_from, &b);
    if (!from || !lanes_apart(lanes, a, b) || s->v->mmu.stamp != stamp)
        return 0;
    n = lane_part(s, at_most(n, at_most(to_wrap(s, RSI), to_wrap(s, RDI))), at_most(len_to, len_from));
    copy_up(s, to, from, n * s->size);
    return n;
}

/* Whole elements in the next `want` bytes of an end; 0 also where one lies on two pages that the host has apart. */
static inline uint64_t whole(const struct string_op *s, struct end *e, uint64_t want)
{
    return end_extend(s->v, e, want) & ~(uint64_t)(s->size - 1);
}

static uint64_t stos_up(const struct string_op *s, uint64_t n)
{
    bool streaming = streams(s, n, STREAM_FILL_MIN);
    uint64_t want = at_most(at_most(n, to_wrap(s, RDI)), SPAN_MAX / s->size) * s->size, done = 0, now;
    struct end to;
    end_begin(&to, s, SEG_ES, RDI, want, n <= KEPT_MAX / s->size);
    for (; done < want && (now = whole(s, &to, want - done)); done += now, end_pass(&to, now))
        if (streaming)
            stream_fill(to.host, repeated(s->v->s.gpr[RAX], s->size), now);
        else
            host_stos(s, to.host, now / s->size);
    if (streaming)
        streamed(s, done);
    return done / s->size;
}

static uint64_t movs_up(const struct string_op *s, uint64_t n)
{
    bool streaming = streams(s, n, STREAM_COPY_MIN), keep = n <= KEPT_MAX / s->size;
    n = at_most(at_most(n, SPAN_MAX / s->size), at_most(to_wrap(s, RSI), to_wrap(s, RDI)));
    uint64_t want = n * s->size, done = 0, now;
    struct end from, to;
    end_begin(&from, s, s->op->seg, RSI, want, keep);
    end_begin(&to, s, SEG_ES, RDI, want, keep);
    while (done < want && (now = whole(s, &from, want - done)) && (now = whole(s, &to, now))) {
        if (streaming && (to.host + now <= from.host || from.host + now <= to.host))
            stream_up(&to, &from, now);
        else
            copy_up(s, to.host, from.host, now);
        end_pass(&from, now);
        end_pass(&to, now);
        done += now;
    }
    if (streaming)
        streamed(s, done);
    return done / s->size;
}

/* By lanes where there are any, else page by page, and what that takes is noted. */
static inline uint64_t by_lane(const struct string_op *s, uint64_t n,
                               uint64_t (*lane)(const struct string_op *s, uint64_t n),
                               uint64_t (*pages)(const struct string_op *s, uint64_t n))
{
    if (!lanes_wanted(s, n))
        return pages(s, n);
    uint64_t done = lane(s, n);
    if (done)
        return done;
    struct lanes **lanes = &interp_of(s->v)->lanes;
    uint64_t began = __builtin_ia32_rdtsc();
    done = pages(s, n);
    uint64_t ticks = __builtin_ia32_rdtsc() - began;
    bool movs = s->op->r1 == STRING_MOVS;
    if (movs)
        lane_paid(lanes, s->v, linear_now(s, s->op->seg, RSI), n * s->size, ACCESS_READ, ticks / 2);
    lane_paid(lanes, s->v, linear_now(s, SEG_ES, RDI), n * s->size, ACCESS_WRITE, movs ? ticks / 2 : ticks);
    return done;
}

static uint64_t stos_bulk(const struct string_op *s, uint64_t n)
{
    if (!unchecked(s, SEG_ES, ACCESS_WRITE))
        return 0;
    if (s->step > 0) {
        n = by_lane(s, n, stos_lane, stos_up);
    } else {
        struct run to = run_at(s, SEG_ES, RDI, n, ACCESS_WRITE);
        host_stos(s, to.host, n = to.n);
    }
    advance(s, RDI, n);
    return n;
}

static uint64_t movs_bulk(const struct string_op *s, uint64_t n)
{
    if (!unchecked(s, SEG_ES, ACCESS_WRITE) || !unchecked(s, s->op->seg, ACCESS_READ))
        return 0;
    if (s->step > 0) {
        n = by_lane(s, n, movs_lane, movs_up);
    } else {
        struct run from = run_at(s, s->op->seg, RSI, n, ACCESS_READ);
        struct run to = run_at(s, SEG_ES, RDI, from.n, ACCESS_WRITE);
        host_movs(s, to.host, from.host, n = to.n);
    }
    advance(s, RSI, n);
    advance(s, RDI, n);
    return n;
}

/* --- SCAS, CMPS ----------------------------------------------------------------------------------------------- */

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
    struct run at = run_at(s, SEG_ES, RDI, n, ACCESS_READ);
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
    struct run b = run_at(s, SEG_ES, RDI, n, ACCESS_READ);
    struct run a = run_at(s, s->op->seg, RSI, b.n, ACCESS_READ);
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

/* Up to n iterations in plain RAM; 0: take the way of single ones, registers as they were. */
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
    if (v->s.rflags & FL_TF)
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
