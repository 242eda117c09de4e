/* SPDX-License-Identifier: Apache-2.0 */
/* What pmap.c (regions, page table), rights.c (consumers, code, dirty log) and ram.c (accessors) share. */
#ifndef SUNDOG_MEMORY_PMAP_INTERNAL_H
#define SUNDOG_MEMORY_PMAP_INTERNAL_H

#include "host/thread.h"
#include "memory/pmap.h"

/*
 * The page table has two levels: top[gpa 39..24] ──► leaf of 4096 pages. A leaf is allocated at the
 * first use of its 16 MiB, a page entry is filled at the first use of its page, so that a guest costs host
 * memory only for what it touches.
 */
#define LEAF_BITS 12
#define LEAF_PAGES (1u << LEAF_BITS)
#define TOP_ENTRIES (1u << (MAXPHYADDR - PAGE_SHIFT - LEAF_BITS))

#define MAX_REGIONS 64
#define MAX_CONSUMERS 32

struct region {
    enum region_kind kind;
    uint64_t first, count; /* pages */
    uint8_t *host;         /* of RAM and ROM */
    int fd;
    uint64_t target; /* REGION_ALIAS: first page shown here instead */
};

struct leaf {
    struct page pages[LEAF_PAGES];
};

struct pmap {
    _Atomic(struct leaf *) *top;
    _Atomic uint64_t a20_mask;          /* address bits that reach the memory */
    struct region regions[MAX_REGIONS]; /* by address; fixed before the machine runs */
    unsigned nregions;
    uint64_t ram_size;
    /* Leaf lock: changes of page state, new leaves, pins. Never held while a consumer is called. */
    struct host_mutex lock;
    bool dirty_logging;
    struct pmap_consumer consumers[MAX_CONSUMERS];
    unsigned nconsumers;
};

/* The region that holds this page number, or NULL. */
const struct region *pmap_region_of(const struct pmap *pm, uint64_t page);
/* A page number as the memory sees it: A20 applied, aliases followed. */
uint64_t pmap_canonical_page(const struct pmap *pm, gpa addr);
/* The entry of a page number, filled if need be; NULL when nothing backs it. A20 does not apply. */
struct page *pmap_page_number(struct pmap *pm, uint64_t page);
/* The entry of a canonical page number if it was used before, else NULL. */
struct page *pmap_page_if_used(struct pmap *pm, uint64_t page);
/* The page number of an entry: the opposite of pmap_page_number() for pages that are no alias. Looks
 * through the leaves, so not for the fast path. */
uint64_t pmap_number_of(struct pmap *pm, const struct page *pg);
/* After a store by other means than a cached right: the page is no longer clean. */
static inline void page_mark_dirty(struct page *pg)
{
    if (unlikely(atomic_load_explicit(&pg->state, memory_order_relaxed) & PAGE_DIRTY_LOG))
        atomic_fetch_and(&pg->state, ~(uint32_t)PAGE_DIRTY_LOG);
}

#endif
