/* SPDX-License-Identifier: Apache-2.0 */
/* The memory map and the page table behind it: regions, lazily filled page entries, A20. */
#include "memory/pmap.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "host/memory.h"
#include "host/usage.h"
#include "memory/pmap_internal.h"

#define A20_BIT (1ull << 20)

struct pmap *pmap_create(struct error *e)
{
    struct pmap *pm = calloc(1, sizeof(*pm));
    if (pm)
        pm->top = host_pages_alloc(TOP_ENTRIES * sizeof(*pm->top));
    if (!pm || !pm->top) {
        free(pm);
        error_set(e, -ENOMEM, "cannot allocate the guest's page table");
        return NULL;
    }
    atomic_init(&pm->a20_mask, ~0ull);
    host_mutex_init(&pm->lock);
    return pm;
}

void pmap_destroy(struct pmap *pm)
{
    if (!pm)
        return;
    for (unsigned i = 0; i < pm->nregions; i++) {
        struct region *r = &pm->regions[i];
        if (r->kind != REGION_ALIAS)
            host_memory_unmap(r->host, r->count << PAGE_SHIFT, r->fd);
    }
    for (unsigned i = 0; i < TOP_ENTRIES; i++)
        host_pages_free(atomic_load(&pm->top[i]), sizeof(struct leaf));
    host_pages_free(pm->top, TOP_ENTRIES * sizeof(*pm->top));
    host_mutex_destroy(&pm->lock);
    free(pm);
}

/* --- regions ------------------------------------------------------------------------------------------ */

/* Index of the first region that ends above `page`. */
static unsigned region_index(const struct pmap *pm, uint64_t page)
{
    unsigned low = 0, high = pm->nregions;
    while (low < high) {
        unsigned mid = (low + high) / 2;
        if (pm->regions[mid].first + pm->regions[mid].count <= page)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

const struct region *pmap_region_of(const struct pmap *pm, uint64_t page)
{
    unsigned i = region_index(pm, page);
    return i < pm->nregions && pm->regions[i].first <= page ? &pm->regions[i] : NULL;
}

static int check_range(const struct pmap *pm, gpa base, uint64_t len, struct error *e)
{
    if (!len || (base.v | len) & PAGE_OFFSET_MASK || !ck_range(base.v, len, 1ull << MAXPHYADDR))
        return error_set(e, -EINVAL, "memory region 0x%llx, 0x%llx bytes: not whole pages below 2^%d",
                         (unsigned long long)base.v, (unsigned long long)len, MAXPHYADDR);
    unsigned i = region_index(pm, base.v >> PAGE_SHIFT);
    if (i < pm->nregions && pm->regions[i].first < (base.v + len) >> PAGE_SHIFT)
        return error_set(e, -EINVAL, "memory region 0x%llx, 0x%llx bytes overlaps another one",
                         (unsigned long long)base.v, (unsigned long long)len);
    if (pm->nregions == MAX_REGIONS)
        return error_set(e, -ENOSPC, "more than %d memory regions", MAX_REGIONS);
    return 0;
}

static void insert_region(struct pmap *pm, const struct region *r)
{
    unsigned i = pm->nregions++;
    for (; i > 0 && pm->regions[i - 1].first > r->first; i--)
        pm->regions[i] = pm->regions[i - 1];
    pm->regions[i] = *r;
}

int pmap_add(struct pmap *pm, enum region_kind kind, gpa base, uint64_t len, struct error *e)
{
    int err = check_range(pm, base, len, e);
    if (err)
        return err;
    if (kind == REGION_ALIAS)
        return error_set(e, -EINVAL, "an alias region needs a target");
    struct region r = { .kind = kind, .first = base.v >> PAGE_SHIFT, .count = len >> PAGE_SHIFT };
    err = host_memory_map(kind == REGION_RAM ? "sundog-ram" : "sundog-rom", len, &r.host, &r.fd, e);
    if (err)
        return err;
    insert_region(pm, &r);
    if (kind == REGION_RAM)
        pm->ram_size += len;
    return 0;
}

int pmap_add_alias(struct pmap *pm, gpa base, uint64_t len, gpa target, struct error *e)
{
    int err = check_range(pm, base, len, e);
    if (err)
        return err;
    const struct region *t = pmap_region_of(pm, target.v >> PAGE_SHIFT);
    if (target.v & PAGE_OFFSET_MASK || !t || t->kind == REGION_ALIAS ||
        !ck_range((target.v >> PAGE_SHIFT) - t->first, len >> PAGE_SHIFT, t->count))
        return error_set(e, -EINVAL,
                         "alias region 0x%llx: its target 0x%llx is not inside one RAM or ROM region",
                         (unsigned long long)base.v, (unsigned long long)target.v);
    struct region r = { .kind = REGION_ALIAS,
                        .first = base.v >> PAGE_SHIFT,
                        .count = len >> PAGE_SHIFT,
                        .fd = -1,
                        .target = target.v >> PAGE_SHIFT };
    insert_region(pm, &r);
    return 0;
}

bool pmap_object(const struct pmap *pm, const uint8_t *host, int *fd, uint64_t *off)
{
    for (const struct region *r = pm->regions; r < pm->regions + pm->nregions; r++)
        if (r->kind == REGION_RAM && host >= r->host && host < r->host + (r->count << PAGE_SHIFT)) {
            *fd = r->fd;
            *off = (uint64_t)(host - r->host);
            return true;
        }
    return false;
}

uint64_t pmap_ram_size(const struct pmap *pm) { return pm->ram_size; }

bool pmap_host_usage(const struct pmap *pm, struct pmap_usage *u)
{
    struct host_range ranges[MAX_REGIONS] = { 0 };
    struct host_usage host;
    for (unsigned i = 0; i < pm->nregions; i++)
        if (pm->regions[i].kind != REGION_ALIAS)
            ranges[i] = (struct host_range){ pm->regions[i].host, pm->regions[i].count << PAGE_SHIFT, 0 };
    bool ok = host_usage_read(&host, ranges, pm->nregions);
    *u = (struct pmap_usage){ .rss = host.rss, .page_tables = host.page_tables };
    for (unsigned i = 0; i < pm->nregions; i++)
        u->guest += ranges[i].resident;
    return ok;
}

void pmap_each_region(struct pmap *pm, void (*visit)(void *ctx, const struct region_info *r), void *ctx)
{
    for (unsigned i = 0; i < pm->nregions; i++) {
        const struct region *r = &pm->regions[i];
        if (r->kind == REGION_ALIAS)
            continue;
        struct region_info info = { r->kind, GPA(r->first << PAGE_SHIFT), r->count << PAGE_SHIFT };
        visit(ctx, &info);
    }
}

/* --- the page table ----------------------------------------------------------------------------------- */

/* The host pointer is published last: who sees it (acquire) sees a complete entry. */
static inline uint8_t *page_host(const struct page *pg)
{
    return __atomic_load_n(&pg->host, __ATOMIC_ACQUIRE);
}

static struct leaf *leaf_of(struct pmap *pm, uint64_t page)
{
    return atomic_load_explicit(&pm->top[page >> LEAF_BITS], memory_order_acquire);
}

/* First use of a page: finds its region and fills the entry. */
static struct page *page_fill(struct pmap *pm, uint64_t page)
{
    const struct region *r = pmap_region_of(pm, page);
    if (r && r->kind == REGION_ALIAS) {
        page = r->target + (page - r->first);
        r = pmap_region_of(pm, page);
    }
    if (!r)
        return NULL;
    host_mutex_lock(&pm->lock);
    struct leaf *leaf = leaf_of(pm, page);
    if (!leaf) {
        leaf = host_pages_alloc(sizeof(*leaf));
        atomic_store_explicit(&pm->top[page >> LEAF_BITS], leaf, memory_order_release);
    }
    struct page *pg = leaf ? &leaf->pages[page & (LEAF_PAGES - 1)] : NULL;
    if (pg && !page_host(pg)) {
        uint32_t state = r->kind == REGION_ROM ? PAGE_ROM : 0;
        if (pm->dirty_logging)
            state |= PAGE_DIRTY_LOG;
        atomic_store_explicit(&pg->state, state, memory_order_relaxed);
        __atomic_store_n(&pg->host, r->host + ((page - r->first) << PAGE_SHIFT), __ATOMIC_RELEASE);
    }
    host_mutex_unlock(&pm->lock);
    return pg;
}

struct page *pmap_page_if_used(struct pmap *pm, uint64_t page)
{
    struct leaf *leaf = leaf_of(pm, page);
    struct page *pg = leaf ? &leaf->pages[page & (LEAF_PAGES - 1)] : NULL;
    return pg && page_host(pg) ? pg : NULL;
}

struct page *pmap_page_number(struct pmap *pm, uint64_t page)
{
    if (page >> (MAXPHYADDR - PAGE_SHIFT))
        return NULL;
    struct page *pg = pmap_page_if_used(pm, page);
    return likely(pg != NULL) ? pg : page_fill(pm, page);
}

uint64_t pmap_number_of(struct pmap *pm, const struct page *pg)
{
    for (uint64_t t = 0; t < TOP_ENTRIES; t++) {
        struct leaf *leaf = atomic_load_explicit(&pm->top[t], memory_order_acquire);
        uintptr_t off = (uintptr_t)pg - (uintptr_t)leaf;
        if (leaf && off < sizeof(*leaf))
            return t << LEAF_BITS | off / sizeof(*pg);
    }
    return 0; /* not an entry of this pmap: a caller's mistake */
}

struct page *pmap_page(struct pmap *pm, gpa addr)
{
    return pmap_page_number(pm, pmap_a20(pm, addr).v >> PAGE_SHIFT);
}

uint64_t pmap_canonical_page(const struct pmap *pm, gpa addr)
{
    uint64_t page = pmap_a20(pm, addr).v >> PAGE_SHIFT;
    const struct region *r = pmap_region_of(pm, page);
    return r && r->kind == REGION_ALIAS ? r->target + (page - r->first) : page;
}

/* --- A20 ---------------------------------------------------------------------------------------------- */

void pmap_set_a20(struct pmap *pm, bool enabled)
{
    uint64_t mask = enabled ? ~0ull : ~A20_BIT;
    if (atomic_exchange(&pm->a20_mask, mask) != mask)
        pmap_revoke(pm, 0, 0, RIGHT_READ | RIGHT_WRITE | RIGHT_EXEC, 0);
}

bool pmap_get_a20(const struct pmap *pm)
{
    return atomic_load_explicit(&pm->a20_mask, memory_order_relaxed) & A20_BIT;
}

gpa pmap_a20(const struct pmap *pm, gpa addr)
{
    return GPA(addr.v & atomic_load_explicit(&pm->a20_mask, memory_order_relaxed));
}
