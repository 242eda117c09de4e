/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slow path of every guest memory access.
 *
 *   segment rules ──► alignment ──► one or two pages translated ──► watchpoints ──► RAM, ROM, LAPIC page or bus
 *
 * All pages of an access are translated, and code to be overwritten is found, before the first byte moves: a
 * fault leaves nothing half done.
 */
#include "cpu/access.h"

#include "cpu/descriptor.h"
#include "cpu/event.h"
#include "cpu/lapic.h"

/* One page's part of an access. */
struct piece {
    gpa addr;
    struct page *page; /* NULL: the bus */
    uint32_t off;
    uint32_t len;
};

/* --- checks --------------------------------------------------------------------------------------------- */

static noreturn_fn void raise_segment(struct vcpu *v, enum seg seg)
{
    raise_selector(v, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
}

/* Natural alignment by operand size (SDM 3A Table 6-7): 80-bit numbers count as 8, FPU environments and far
 * pointers as 4. */
static uint64_t alignment_mask(unsigned size)
{
    switch (size) {
    case 2: return 1;
    case 4:
    case 6:
    case 14:
    case 28: return 3;
    case 8:
    case 10: return 7;
    case 16: return 15;
    default: return 0;
    }
}

/* The TLB is bypassed exactly while alignment checking is on. Checked before paging, after canonicality, as
 * processors do. */
static void check_alignment(struct vcpu *v, uint64_t lin, unsigned size, enum mmu_index index)
{
    if (unlikely(v->mmu.bypass) && index == MMU_USER && (lin & alignment_mask(size)) && is_canonical(lin))
        cpu_raise_error(v, VEC_AC, 0);
}

uint64_t seg_linear_slow(struct vcpu *v, enum seg seg, uint64_t off, unsigned size, enum mmu_access access)
{
    const struct segment *s = &v->s.seg[seg];
    if (vcpu_long64(v))
        return (seg >= SEG_FS ? s->base : 0) + off;
    if ((s->attr & (SA_UNUSABLE | SA_P)) != SA_P)
        raise_segment(v, seg);
    /* Type checks: in real mode any segment, CS too, may be written (SDM 3A 20.1.1). */
    if (vcpu_protected(v) && !(access == ACCESS_WRITE ? attr_writable(s->attr) : attr_readable(s->attr)))
        raise_segment(v, seg);
    uint64_t low = 0, high = s->limit;
    if (attr_expand_down(s->attr)) {
        low = (uint64_t)s->limit + 1;
        high = (s->attr & SA_DB) ? 0xffffffff : 0xffff;
    }
    if (off < low || off + size - 1 > high)
        raise_segment(v, seg);
    return (s->base + off) & v->lin_mask;
}

/* --- translation of a whole access ---------------------------------------------------------------------- */

static struct piece translate(struct vcpu *v, uint64_t lin, uint32_t len, enum mmu_access access,
                              enum mmu_index index, enum seg seg)
{
    struct mmu_result r = mmu_translate(&v->mmu, GVA(lin), access, index);
    if (unlikely(r.fault == MMU_FAULT_PAGE))
        cpu_raise_page_fault(v, lin, r.error_code);
    if (unlikely(r.fault))
        raise_segment(v, seg);
    return (struct piece){
        .addr = r.addr,
        .page = r.page && r.page->host ? r.page : NULL,
        .off = r.addr.v & PAGE_OFFSET_MASK,
        .len = len,
    };
}

/* The address that follows `lin` on the next page; outside 64-bit mode it wraps at 4 GiB. */
static uint64_t next_page(const struct vcpu *v, uint64_t lin)
{
    uint64_t next = (lin | PAGE_OFFSET_MASK) + 1;
    return v->mode & MODE_LMA ? next : next & 0xffffffff;
}

/* A flat segment's limit is not compared on the fast path; only an access over the end of its 4 GiB can pass it, and such a one comes
 * here because it crosses a page. Segments in 64-bit mode have no limit. */
static bool beyond_4g(const struct vcpu *v, uint64_t lin, unsigned size, enum seg seg)
{
    if (vcpu_long64(v) || attr_expand_down(v->s.seg[seg].attr))
        return false;
    uint64_t off = (lin - v->s.seg[seg].base) & 0xffffffff;
    return v->s.seg[seg].limit == 0xffffffff && off + size - 1 > 0xffffffff;
}

/* size <= 4096, so at most two pieces. Returns how many. */
static unsigned translate_all(struct vcpu *v, uint64_t lin, unsigned size, enum mmu_access access,
                              enum mmu_index index, enum seg seg, struct piece out[2])
{
    uint32_t room = PAGE_SIZE - (lin & PAGE_OFFSET_MASK);
    if (unlikely(size > room && beyond_4g(v, lin, size, seg)))
        raise_segment(v, seg);
    uint64_t next = next_page(v, lin);
    if (unlikely(size > room && !is_canonical(next))) /* known before any page is looked up */
        raise_segment(v, seg);
    check_alignment(v, lin, size, index);
    if (likely(size <= room)) {
        out[0] = translate(v, lin, size, access, index, seg);
        return 1;
    }
    out[0] = translate(v, lin, room, access, index, seg);
    out[1] = translate(v, next, size - room, access, index, seg);
    return 2;
}

/* --- memory-mapped I/O ---------------------------------------------------------------------------------- */

/* The LAPIC's registers are 32 bits wide, 16 bytes apart; parts of one are cut out. Where its page was moved
 * over RAM, RAM answers. */
static uint64_t lapic_page_read(struct vcpu *v, uint32_t off, unsigned width)
{
    uint64_t val = lapic_read(v, off & ~3u);
    if (width == 8)
        return val | (uint64_t)lapic_read(v, (off & ~3u) + 4) << 32;
    return (val >> ((off & 3) * 8)) & mask_bytes(width);
}

static uint64_t mmio_read(struct vcpu *v, gpa addr, unsigned width)
{
    v->counters.exits_mmio++;
    if (lapic_claims(v, addr))
        return lapic_page_read(v, addr.v & PAGE_OFFSET_MASK, width);
    return bus_mmio_read(v->bus, pmap_a20(v->pmap, addr), width);
}

static void mmio_write(struct vcpu *v, gpa addr, uint64_t val, unsigned width)
{
    v->counters.exits_mmio++;
    if (lapic_claims(v, addr)) {
        if ((addr.v & 3) == 0)
            lapic_write(v, addr.v & PAGE_OFFSET_MASK, (uint32_t)val);
        return;
    }
    bus_mmio_write(v->bus, pmap_a20(v->pmap, addr), val, width);
}

/* The widest bus access that fits: 8, 4, 2 or 1. */
static unsigned mmio_width(uint32_t left) { return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

/* --- moving bytes --------------------------------------------------------------------------------------- */

/* Sizes that the architecture reads and writes in one piece are moved in one piece, since other vcpus look
 * on. */
static void copy_piece(void *dst, const void *src, uint32_t len)
{
    switch (len) {
    case 1: memcpy(dst, src, 1); break;
    case 2: memcpy(dst, src, 2); break;
    case 4: memcpy(dst, src, 4); break;
    case 8: memcpy(dst, src, 8); break;
    default: memcpy(dst, src, len); break;
    }
}

static void read_piece(struct vcpu *v, const struct piece *p, uint8_t *dst)
{
    if (likely(p->page != NULL)) {
        copy_piece(dst, p->page->host + p->off, p->len);
        return;
    }
    for (uint32_t i = 0, width; i < p->len; i += width) {
        width = mmio_width(p->len - i);
        uint64_t val = mmio_read(v, GPA(p->addr.v + i), width);
        memcpy(dst + i, &val, width);
    }
}

/* The store would leave decoded code as it is: then it need not be made. */
static bool same_code(const struct piece *p, const uint8_t *src)
{
    return p->page && page_has_code(p->page, p->off, p->len) &&
           memcmp(p->page->host + p->off, src, p->len) == 0;
}

static void write_piece(struct vcpu *v, const struct piece *p, const uint8_t *src)
{
    if (unlikely(same_code(p, src)))
        return;
    if (likely(p->page != NULL)) {
        uint32_t state = atomic_load_explicit(&p->page->state, memory_order_relaxed);
        if (state & PAGE_ROM)
            return;
        if (state & PAGE_CODE)
            v->counters.tracing_faults++;
        copy_piece(p->page->host + p->off, src, p->len);
        pmap_written(v->pmap, p->page, p->off, p->len);
        return;
    }
    for (uint32_t i = 0, width; i < p->len; i += width) {
        uint64_t val = 0;
        width = mmio_width(p->len - i);
        memcpy(&val, src + i, width);
        mmio_write(v, GPA(p->addr.v + i), val, width);
    }
}

/* The running block may hold the very code that this store changes; and what a device does about one may be an interrupt
 * or an NMI for the next instruction: it has to be run alone. Event delivery is never inside a block. */
static void check_side_effects(struct vcpu *v, const struct piece *p)
{
    if (v->store_code || v->in_delivery)
        return;
    if (!p->page)
        cpu_restart_alone(v);
    if (unlikely(page_has_code(p->page, p->off, p->len)) &&
        !(atomic_load_explicit(&p->page->state, memory_order_relaxed) & PAGE_ROM)) {
        v->counters.code_write_aborts++;
        cpu_restart_alone(v);
    }
}

/* --- the accesses --------------------------------------------------------------------------------------- */

void access_read(struct vcpu *v, uint64_t lin, void *dst, unsigned size, enum mmu_index index, enum seg seg)
{
    const void *host = access_cached(v, lin, size, ACCESS_READ, index);
    if (host) {
        copy_piece(dst, host, size);
        return;
    }
    struct piece p[2];
    unsigned n = translate_all(v, lin, size, ACCESS_READ, index, seg, p);
    if (unlikely(v->mmu.watch_count))
        cpu_debug_access(v, lin, size, ACCESS_READ);
    read_piece(v, &p[0], dst);
    if (n == 2)
        read_piece(v, &p[1], (uint8_t *)dst + p[0].len);
}

void access_write(struct vcpu *v, uint64_t lin, const void *src, unsigned size, enum mmu_index index,
                  enum seg seg)
{
    void *host = access_cached(v, lin, size, ACCESS_WRITE, index);
    if (host) {
        copy_piece(host, src, size);
        return;
    }
    struct piece p[2];
    unsigned n = translate_all(v, lin, size, ACCESS_WRITE, index, seg, p);
    const uint8_t *from[2] = { src, (const uint8_t *)src + p[0].len };
    for (unsigned i = 0; i < n; i++)
        if (!same_code(&p[i], from[i]))
            check_side_effects(v, &p[i]);
    if (unlikely(v->mmu.watch_count))
        cpu_debug_access(v, lin, size, ACCESS_WRITE);
    for (unsigned i = 0; i < n; i++)
        write_piece(v, &p[i], from[i]);
}

void access_probe_write(struct vcpu *v, uint64_t lin, unsigned size, enum mmu_index index, enum seg seg)
{
    struct piece p[2];
    if (access_cached(v, lin, size, ACCESS_WRITE, index))
        return;
    unsigned n = translate_all(v, lin, size, ACCESS_WRITE, index, seg, p);
    /* Whoever probes commits something before the store: so the store must not leave the instruction any more. */
    for (unsigned i = 0; i < n; i++)
        check_side_effects(v, &p[i]);
    if (unlikely(v->mmu.watch_count) && !(v->mode & MODE_STEP) && !v->store_code && !v->in_delivery)
        cpu_debug_access(v, lin, size, ACCESS_WRITE);
}

void access_probe_read(struct vcpu *v, uint64_t lin, unsigned size, enum mmu_index index, enum seg seg)
{
    struct piece p[2];
    if (!access_cached(v, lin, size, ACCESS_READ, index))
        translate_all(v, lin, size, ACCESS_READ, index, seg, p);
}

void *access_rmw(struct vcpu *v, uint64_t lin, unsigned size, enum seg seg)
{
    enum mmu_index index = v->mmu.index;
    void *host = access_cached(v, lin, size, ACCESS_WRITE, index);
    if (likely(host != NULL))
        return host;
    struct piece p[2];
    unsigned n = translate_all(v, lin, size, ACCESS_WRITE, index, seg, p);
    for (unsigned i = 0; i < n; i++)
        check_side_effects(v, &p[i]);
    /* It is there now, if this page may be written without notice. */
    return access_cached(v, lin, size, ACCESS_WRITE, index);
}

void mem_read_bytes(struct vcpu *v, enum seg seg, uint64_t off, void *dst, unsigned size)
{
    uint64_t lin = seg_linear(v, seg, off, size, ACCESS_READ);
    access_read(v, lin, dst, size, v->mmu.index, seg);
}

void mem_write_bytes(struct vcpu *v, enum seg seg, uint64_t off, const void *src, unsigned size)
{
    uint64_t lin = seg_linear(v, seg, off, size, ACCESS_WRITE);
    access_write(v, lin, src, size, v->mmu.index, seg);
}

/* Implicit accesses are supervisor ones at any privilege, and EFLAGS.AC does not lift SMAP for them (SDM 3A
 * 4.6). */
static enum mmu_index system_index(const struct vcpu *v)
{
    return v->s.cr4 & CR4_SMAP ? MMU_SUPER : MMU_SUPER_AC;
}

static uint64_t system_linear(const struct vcpu *v, uint64_t lin)
{
    return v->mode & MODE_LMA ? lin : lin & 0xffffffff;
}

uint64_t sys_read(struct vcpu *v, uint64_t lin, unsigned size)
{
    uint64_t val = 0;
    lin = system_linear(v, lin);
    const void *host = access_cached(v, lin, size, ACCESS_READ, system_index(v));
    if (likely(host != NULL && size == 8))
        memcpy(&val, host, 8);
    else
        access_read(v, lin, &val, size, system_index(v), SEG_DS);
    return val;
}

void sys_write(struct vcpu *v, uint64_t lin, uint64_t val, unsigned size)
{
    access_write(v, system_linear(v, lin), &val, size, system_index(v), SEG_DS);
}
