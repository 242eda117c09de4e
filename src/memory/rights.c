/* SPDX-License-Identifier: Apache-2.0 */
/* Who may cache which right to a page: consumers, revocation, decoded code, the dirty log. */
#include <errno.h>

#include "base/bits.h"
#include "memory/pmap_internal.h"

/*
 * Two races are decided here, each by a store, then a load of the other's word (sequentially consistent):
 *
 *   claim_write: set my bit in writers; read state   claim_code:  set PAGE_CODE;  read writers (then revoke)
 *   a writer:    store bytes;           read state   claim_code:  set PAGE_CODE;  caller reads the bytes
 *
 * So either the writer learns of the code, or the decoder learns of the writer (sees the bytes).
 */

#define ALL_RIGHTS (RIGHT_READ | RIGHT_WRITE | RIGHT_EXEC)

/* A write through a cached right must not happen while one of these stands. PAGE_DIRTY_LOG is taken off by
 * the claim itself. */
#define NO_WRITE_CLAIM (PAGE_CODE | PAGE_ROM | PAGE_SHARED | PAGE_TRACED | PAGE_BALLOONED | PAGE_SWAPPED)

unsigned page_rights(const struct page *pg)
{
    uint32_t state = atomic_load_explicit(&pg->state, memory_order_relaxed);
    if (state & (PAGE_TRACED | PAGE_BALLOONED | PAGE_SWAPPED))
        return 0;
    if (state & (PAGE_CODE | PAGE_DIRTY_LOG | PAGE_ROM | PAGE_SHARED))
        return RIGHT_READ | RIGHT_EXEC;
    return ALL_RIGHTS;
}

/* --- consumers ---------------------------------------------------------------------------------------- */

int pmap_add_consumer(struct pmap *pm, const struct pmap_consumer *c)
{
    host_mutex_lock(&pm->lock);
    int n = -ENOSPC;
    if (pm->nconsumers < MAX_CONSUMERS) {
        n = (int)pm->nconsumers++;
        pm->consumers[n] = *c;
    }
    host_mutex_unlock(&pm->lock);
    return n;
}

static void tell(struct pmap *pm, uint32_t whom, uint64_t first, uint64_t count, unsigned rights)
{
    for (unsigned n = 0; n < pm->nconsumers; n++)
        if (whom & BIT(n))
            pm->consumers[n].revoke(pm->consumers[n].ctx, first, count, rights);
}

/* Tells the consumers in `whom`, under every address at which the pages can be seen. */
static void take_back(struct pmap *pm, uint32_t whom, uint64_t first, uint64_t count, unsigned rights)
{
    if (count && !pmap_get_a20(pm))
        first = count = 0; /* each page shows twice: drop everything, since nobody runs long like this */
    tell(pm, whom, first, count, rights);
    if (!count)
        return;
    for (unsigned i = 0; i < pm->nregions; i++) {
        const struct region *r = &pm->regions[i];
        uint64_t low = first > r->target ? first : r->target;
        uint64_t end = first + count < r->target + r->count ? first + count : r->target + r->count;
        if (r->kind == REGION_ALIAS && low < end)
            tell(pm, whom, r->first + (low - r->target), end - low, rights);
    }
}

void pmap_revoke(struct pmap *pm, uint64_t first_page, uint64_t count, unsigned rights, uint32_t reason)
{
    for (uint64_t i = 0; i < count; i++) {
        struct page *pg = pmap_page(pm, GPA((first_page + i) << PAGE_SHIFT));
        if (!pg)
            continue;
        atomic_fetch_or(&pg->state, reason);
        if (rights & RIGHT_WRITE)
            atomic_store(&pg->writers, 0);
    }
    take_back(pm, ~0u, first_page, count, rights);
}

bool pmap_claim_write(struct pmap *pm, struct page *pg, int n)
{
    (void)pm;
    if (atomic_load_explicit(&pg->state, memory_order_relaxed) & NO_WRITE_CLAIM)
        return false;
    /* Whoever claims code takes the bit back first and waits for this consumer: a bit that stands needs no ordering.
     * It stays when the second look refuses: it costs one needless revocation and needs no reasoning
     * about rights that this consumer cached earlier under another address. */
    if (!(atomic_load_explicit(&pg->writers, memory_order_relaxed) & BIT((unsigned)n)))
        atomic_fetch_or(&pg->writers, (uint32_t)BIT((unsigned)n));
    page_mark_dirty(pg);
    return !(atomic_load(&pg->state) & NO_WRITE_CLAIM);
}

bool pmap_holds_write(const struct page *pg, int n)
{
    if (!(atomic_load_explicit(&pg->writers, memory_order_acquire) & BIT((unsigned)n)))
        return false;
    return !(atomic_load(&pg->state) & (NO_WRITE_CLAIM | PAGE_DIRTY_LOG));
}

/* --- code --------------------------------------------------------------------------------------------- */

uint32_t pmap_claim_code(struct pmap *pm, gpa addr, unsigned len)
{
    struct page *pg = pmap_page(pm, addr);
    unsigned off = addr.v & PAGE_OFFSET_MASK;
    if (!pg || !len || len > PAGE_SIZE - off)
        return 0;
    unsigned a = off >> 6, b = (off + len - 1) >> 6;
    uint64_t lines = (~0ull >> (63 - (b - a))) << a;
    host_mutex_lock(&pm->lock);
    if ((atomic_load(&pg->code_map) & lines) != lines)
        atomic_fetch_or(&pg->code_map, lines);
    if (!(atomic_load(&pg->state) & PAGE_CODE))
        atomic_fetch_or(&pg->state, PAGE_CODE);
    uint32_t version = atomic_load(&pg->code_version);
    uint32_t writers = atomic_load(&pg->writers) ? atomic_exchange(&pg->writers, 0) : 0;
    host_mutex_unlock(&pm->lock);
    if (writers)
        take_back(pm, writers, pmap_canonical_page(pm, addr), 1, RIGHT_WRITE);
    return version;
}

#define A20_PAGE_BIT (1ull << (20 - PAGE_SHIFT))

static void tell_code_changed(struct pmap *pm, uint64_t page)
{
    bool twice = !pmap_get_a20(pm) && !(page & A20_PAGE_BIT);
    for (unsigned n = 0; n < pm->nconsumers; n++) {
        const struct pmap_consumer *c = &pm->consumers[n];
        if (!c->code_changed)
            continue;
        c->code_changed(c->ctx, page);
        if (twice)
            c->code_changed(c->ctx, page | A20_PAGE_BIT);
    }
}

/* Under every address at which the page can be seen. */
static void announce_code_change(struct pmap *pm, uint64_t page)
{
    tell_code_changed(pm, page);
    for (unsigned i = 0; i < pm->nregions; i++) {
        const struct region *r = &pm->regions[i];
        if (r->kind == REGION_ALIAS && page >= r->target && page - r->target < r->count)
            tell_code_changed(pm, r->first + (page - r->target));
    }
}

/* The version moves before PAGE_CODE goes: a store through a right claimed after that is a store to a page
 * without code. */
static void drop_code(struct pmap *pm, struct page *pg, unsigned off, unsigned len)
{
    host_mutex_lock(&pm->lock);
    bool changed = page_has_code(pg, off, len);
    if (changed) {
        atomic_fetch_add(&pg->code_version, 1);
        atomic_store(&pg->code_map, 0);
        atomic_fetch_and(&pg->state, ~(uint32_t)PAGE_CODE);
    }
    host_mutex_unlock(&pm->lock);
    if (changed)
        announce_code_change(pm, pmap_number_of(pm, pg));
}

void pmap_written(struct pmap *pm, struct page *pg, unsigned off, unsigned len)
{
    if (!len)
        return;
    atomic_thread_fence(
        memory_order_seq_cst); /* the store before, the look at PAGE_CODE after: see the top of the file */
    page_mark_dirty(pg);
    if (unlikely(page_has_code(pg, off, len)))
        drop_code(pm, pg, off, len);
}

/* --- dirty log ---------------------------------------------------------------------------------------- */

/* A page is dirty when it lacks PAGE_DIRTY_LOG while the log is on. Pages without an entry yet were never
 * touched. */
static void each_used_page(struct pmap *pm,
                           void (*visit)(struct pmap *pm, struct page *pg, uint64_t page, void *ctx),
                           void *ctx)
{
    for (uint64_t t = 0; t < TOP_ENTRIES; t++) {
        if (!atomic_load_explicit(&pm->top[t], memory_order_acquire))
            continue;
        for (uint64_t i = 0; i < LEAF_PAGES; i++) {
            uint64_t page = t << LEAF_BITS | i;
            struct page *pg = pmap_page_if_used(pm, page);
            if (pg && !(atomic_load_explicit(&pg->state, memory_order_relaxed) & PAGE_ROM))
                visit(pm, pg, page, ctx);
        }
    }
}

static void start_clean(struct pmap *pm, struct page *pg, uint64_t page, void *ctx)
{
    (void)pm, (void)page;
    uint32_t *whom = ctx;
    atomic_fetch_or(&pg->state, PAGE_DIRTY_LOG);
    *whom |= atomic_exchange(&pg->writers, 0);
}

void pmap_dirty_log_start(struct pmap *pm)
{
    uint32_t whom = 0;
    host_mutex_lock(&pm->lock);
    pm->dirty_logging = true;
    host_mutex_unlock(&pm->lock);
    each_used_page(pm, start_clean, &whom);
    take_back(pm, whom, 0, 0, RIGHT_WRITE);
}

struct fetch {
    uint64_t *bitmap;
    uint32_t whom;
};

static void fetch_page(struct pmap *pm, struct page *pg, uint64_t page, void *ctx)
{
    struct fetch *f = ctx;
    if (atomic_load(&pg->state) & PAGE_DIRTY_LOG)
        return;
    f->bitmap[page / 64] |= BIT(page % 64);
    start_clean(pm, pg, page, &f->whom);
}

int pmap_dirty_log_fetch(struct pmap *pm, uint64_t *bitmap, size_t pages)
{
    const struct region *last = pm->nregions ? &pm->regions[pm->nregions - 1] : NULL;
    if (last && last->first + last->count > pages)
        return -ENOSPC;
    for (size_t i = 0; i < (pages + 63) / 64; i++)
        bitmap[i] = 0;
    struct fetch f = { .bitmap = bitmap };
    each_used_page(pm, fetch_page, &f);
    /* Whoever still holds a right from before loses it now: the copy that follows sees all stores made under
     * it. */
    if (f.whom)
        take_back(pm, f.whom, 0, 0, RIGHT_WRITE);
    return 0;
}
