/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes of a vcpu: candidates, which are only watched, and those that are shown, from their beginning on as far as they got.
 *
 *   run of many pages ──► candidate ──paid for──► some pages a time are shown while a run goes over them ──► whole
 *                             ▲                                                                        │
 *                             └── not needed for long, or a page of it was dropped: its place is another's ◄┘
 */
#include "engine/interp/lane.h"

#include <stdatomic.h>
#include <string.h>

#include "base/bits.h"
#include "host/memory.h"
#include "host/view.h"

#define LANES 8u
#define LANE_MAX (64ull << 20)
#define STEP_PAGES 16u  /* shown at once: some tenths of a millisecond */
#define PAGE_COST 8192u /* counts of the time stamp counter that a page has to have cost before it is shown */
#define PATIENCE_MAX 8u

struct lane {
    uint64_t lin, len;      /* whole pages; 0: free */
    uint64_t stamp;         /* under which the translations of its pages hold */
    enum mmu_access access; /* a write lane is for reading, too */
    uint64_t paid;
    uint64_t shown; /* bytes from lin on */
    bool closed;    /* no more will be */
    uint8_t *host;  /* NULL: a candidate */
    unsigned pieces;
    int fd;          /*  of all its pages, -1: none is shown yet */
    uint64_t used;   /* lanes.clock when it last was of use */
    uint64_t served; /* bytes since it was begun */
    uint64_t *pages; /* bitmap of the memfd's pages that it shows */
};

struct lanes {
    size_t bitmap_bytes;
    uint64_t clock;
    unsigned patience;           /* of those that were given up before they paid */
    bool together[LANES][LANES]; /* may have pages in common */
    struct lane lane[LANES];
};

static bool get_bit(const uint64_t *bits, uint64_t n) { return bits[n / 64] & BIT(n % 64); }

static void give_up(struct lanes *all, struct lane *l)
{
    if (l->host) {
        if (host_view_release((uintptr_t)l->host, l->len)) /* else it stays taken; nobody goes there */
            host_view_give(l->pieces);
        if (l->served < l->shown * 64)
            all->patience += all->patience < PATIENCE_MAX;
        else if (all->patience)
            all->patience--;
    }
    host_pages_free(l->pages, all->bitmap_bytes);
    *l = (struct lane){ 0 };
    for (unsigned i = 0; i < LANES; i++)
        all->together[i][l - all->lane] = all->together[l - all->lane][i] = false;
}

/* Was a page of it dropped? */
static bool is_hit(const struct vcpu *v, const struct lane *l, const struct mmu_drop *d)
{
    int fd;
    uint64_t off;
    if (!d->host)
        return d->page - l->lin < l->len;
    return l->pages && pmap_object(v->pmap, d->host, &fd, &off) && fd == l->fd &&
           get_bit(l->pages, off >> PAGE_SHIFT);
}

/* Do its translations hold now? False also while another address space is in force. */
static bool holds(struct lanes *all, const struct vcpu *v, struct lane *l)
{
    while (l->len && l->stamp != v->mmu.stamp) {
        const struct mmu_drop *d = mmu_dropped(&v->mmu, l->stamp);
        if (!d)
            return false;
        if (is_hit(v, l, d))
            give_up(all, l);
        else
            l->stamp = d->to;
    }
    return l->len;
}

static bool serves(const struct lane *l, enum mmu_access access)
{
    return access == l->access || l->access == ACCESS_WRITE;
}

static struct lane *find(struct lanes *all, const struct vcpu *v, uint64_t lin, enum mmu_access access)
{
    for (struct lane *l = all->lane; l < all->lane + LANES; l++)
        if (lin - l->lin < l->len && serves(l, access) && holds(all, v, l)) {
            l->used = ++all->clock;
            return l;
        }
    return NULL;
}

/* --- showing -------------------------------------------------------------------------------------------------- */

static bool is_ripe(const struct lanes *all, const struct lane *l)
{
    return l->paid >= (l->len >> PAGE_SHIFT) * PAGE_COST << all->patience;
}

static bool begin(struct lanes *all, struct lane *l)
{
    l->pages = host_pages_alloc(all->bitmap_bytes);
    l->host = l->pages ? host_view_room(l->len) : NULL;
    l->fd = -1;
    l->closed = !l->host;
    return l->host;
}

static void note_pages(struct lanes *all, struct lane *l, uint64_t first, unsigned n)
{
    unsigned self = (unsigned)(l - all->lane);
    for (uint64_t page = first; page < first + n; page++) {
        for (unsigned i = 0; i < LANES; i++)
            if (i != self && all->lane[i].pages && all->lane[i].fd == l->fd &&
                get_bit(all->lane[i].pages, page))
                all->together[i][self] = all->together[self][i] = true;
        l->pages[page / 64] |= BIT(page % 64);
    }
}

/* The one that was not needed for longest; `shown`: that takes pieces. */
static struct lane *oldest(struct lanes *all, bool shown)
{
    struct lane *best = NULL;
    for (struct lane *l = all->lane; l < all->lane + LANES; l++)
        if ((!shown || l->pieces) && (!best || l->used < best->used))
            best = l;
    return best;
}

/* An instruction works with two lanes, each of which it asks for in turn. */
#define AT_WORK 3u

/* A piece is one less; false: there are no more to be had. */
static bool take_piece(struct lanes *all)
{
    while (!host_view_take(1)) {
        struct lane *l = oldest(all, true);
        if (!l || l->used + AT_WORK > all->clock)
            return false;
        give_up(all, l);
    }
    return true;
}

/* One piece: `n` pages that lie side by side in a memfd. */
static bool show(struct lanes *all, const struct vcpu *v, struct lane *l, const uint8_t *host, unsigned n)
{
    int fd;
    uint64_t off, bytes = (uint64_t)n << PAGE_SHIFT;
    if (!pmap_object(v->pmap, host, &fd, &off) || (l->fd >= 0 && fd != l->fd))
        return false;
    if (!take_piece(all))
        return false;
    l->pieces++;
    l->fd = fd;
    if (!host_view_show((uintptr_t)l->host + l->shown, fd, off, bytes, l->access == ACCESS_WRITE))
        return false;
    note_pages(all, l, off >> PAGE_SHIFT, n);
    l->shown += bytes;
    return true;
}

/* The next pages. The first one's translation is that of the access to come. */
static void extend(struct lanes *all, struct vcpu *v, struct lane *l)
{
    uint8_t *host[STEP_PAGES];
    uint64_t left = (l->len - l->shown) >> PAGE_SHIFT;
    unsigned want = left < STEP_PAGES ? (unsigned)left : STEP_PAGES;
    unsigned known = mmu_translate_run(&v->mmu, GVA(l->lin + l->shown), l->access, false, host, want);
    for (unsigned i = 0, n; i < known && !l->closed; i += n) {
        for (n = 1; i + n < known && host[i + n] == host[i] + ((size_t)n << PAGE_SHIFT);)
            n++;
        l->closed = !show(all, v, l, host[i], n);
    }
    l->closed |= known == 0 || l->shown == l->len;
}

uint8_t *lane_find(struct lanes *all, struct vcpu *v, uint64_t lin, enum mmu_access access, uint64_t *len,
                   unsigned *lane)
{
    if (!all || v->mmu.index != MMU_USER || v->mmu.bypass)
        return NULL;
    struct lane *l = find(all, v, lin, access);
    if (!l || (!l->host && (l->closed || !is_ripe(all, l) || !begin(all, l))))
        return NULL;
    uint64_t at = lin - l->lin;
    /* A read must not mark a page dirty. */
    if (!l->closed && at - l->shown < PAGE_SIZE && access == l->access) {
        extend(all, v, l);
        if (!holds(all, v, l)) /* a walk may have dropped what it held */
            return NULL;
    }
    if (at >= l->shown)
        return NULL;
    *len = l->shown - at;
    *lane = (unsigned)(l - all->lane);
    l->served += *len;
    return l->host + at;
}

bool lanes_apart(const struct lanes *all, unsigned a, unsigned b) { return !all->together[a][b]; }

/* --- candidates ------------------------------------------------------------------------------------------------ */

static struct lanes *make(const struct vcpu *v)
{
    struct lanes *all = host_pages_alloc(sizeof(*all));
    if (all)
        all->bitmap_bytes = (size_t)((pmap_ram_size(v->pmap) >> PAGE_SHIFT) / 64 + 1) * sizeof(uint64_t);
    return all;
}

static void watch(struct lanes *all, const struct vcpu *v, uint64_t lin, uint64_t bytes,
                  enum mmu_access access)
{
    uint64_t from = lin & ~(uint64_t)PAGE_OFFSET_MASK;
    uint64_t len = (lin - from + bytes + PAGE_OFFSET_MASK) & ~(uint64_t)PAGE_OFFSET_MASK;
    len = len < LANE_MAX ? len : LANE_MAX;
    if (from + len > v->lin_mask)
        return;
    struct lane *l = oldest(all, false);
    give_up(all, l);
    *l = (struct lane){
        .lin = from, .len = len, .stamp = v->mmu.stamp, .access = access, .fd = -1, .used = ++all->clock
    };
}

void lane_paid(struct lanes **lanes, struct vcpu *v, uint64_t lin, uint64_t bytes, enum mmu_access access,
               uint64_t ticks)
{
    if (v->mmu.index != MMU_USER || v->mmu.bypass || (!*lanes && !(*lanes = make(v))))
        return;
    struct lane *l = find(*lanes, v, lin, access);
    if (l)
        l->paid += ticks;
    else
        watch(*lanes, v, lin, bytes, access);
}

void lanes_free(struct lanes *all)
{
    if (!all)
        return;
    for (struct lane *l = all->lane; l < all->lane + LANES; l++)
        give_up(all, l);
    host_pages_free(all, sizeof(*all));
}
