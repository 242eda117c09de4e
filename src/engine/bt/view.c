/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views: memory of an address space, the user's mostly, shown in this process at guest address + delta, page by page as it is touched, with
 * the rights that the TLB has for it. GS's base is the delta, so the guest's own operand behind a GS prefix is the access, and
 * the host's paging the check. Only that an address lies in an area of the view is checked by code: bt.h, AREA_SHIFT.
 *
 *   access ──► area in the view? ──► page shown? ──► done
 *                  │ fault                │ fault: the interpreter does the instruction, then the page is shown
 *
 * A view is true to one mmu.stamp. When the stamp of its address space has moved, translations may have gone: the view is
 * emptied before user code runs again. An address space gets one when it has run for a while without that, and loses it when it
 * has to be emptied too soon again; each time that happens it must last longer.
 *
 * Only the units of hot pages of code go by the view (heat.c). All others go by the TLB, in the same context.
 */
#include "engine/bt/areas.h"

#include "engine/interp/run.h"
#include "host/time.h"
#include "host/view.h"

#define SLICES 20u /* of heat.c's, that user code runs under one stamp before it gets a view */
#define SUPERVISOR_SLICES 8u
#define FAULT_COST 15000u  /* time stamp counts of a fault, and of what is shown then */
#define PIECE_COST 25000u  /* time stamp counts to show a piece and to forget it */
#define HASTE (1ull << 21) /* time stamp counts */
#define HASTY 8u           /* times that it may come into force so soon after the last one */
#define GRACE (4ull << 20) /* time stamp counts that a view may cost at once */
#define PATIENCE_MAX 7
#define LOST_MAX 5u
#define LONG (1ull << 28) /* time stamp counts */
#define PIECES_MAX 12000u /* that a view may show */
#define PIECE_MAPPINGS 2u /* of the host: its own, and what it parts */
#define AHEAD_MAX 64u     /* pages shown ahead of a stream of faults */
#define GROUP_PAGES 16u   /* looked at around a page that is shown */

/* --- what is shown ---------------------------------------------------------------------------------------------- */

/* Its pieces are shown no more. */
static void give_back(struct bt_view *w)
{
    host_view_give(w->pieces * PIECE_MAPPINGS);
    w->pieces = 0;
}

static void close_view(struct bt *b, struct bt_view *w)
{
    if (b->views.now == w) {
        bt_areas_open(b, w, false);
        b->views.now = NULL;
    }
    bt_areas_release(b, w);
    give_back(w);
    if (w->stamp && b->views.lost && __builtin_ia32_rdtsc() - w->opened > LONG)
        b->views.lost--; /* it was worth it */
    w->stamp = 0;
}

static bool set_has(const struct page_set *set, uint64_t page)
{
    unsigned hash = hash_slot(page >> PAGE_SHIFT, VIEW_SEEN_BITS);
    return set->bits[hash / 64] & BIT(hash % 64);
}

static void set_add(struct page_set *set, uint64_t page)
{
    unsigned hash = hash_slot(page >> PAGE_SHIFT, VIEW_SEEN_BITS);
    set->bits[hash / 64] |= BIT(hash % 64);
}

/* Nothing is shown from now on. */
static void begin_anew(struct bt_view *w)
{
    give_back(w);
    w->since = __builtin_ia32_rdtsc();
    w->groups = w->pages = w->written = (struct page_set){ 0 };
}

static void empty(struct bt *b, struct bt_view *w)
{
    if (w->pieces)
        bt_areas_empty(b, w);
    begin_anew(w);
}

static void take_deltas(struct bt *b, const struct bt_view *w)
{
    bt_area(b->v)->far_delta = w->delta[SIDE_FAR];
    host_set_gs_base(w->delta[SIDE_NEAR]);
}

static void put_in_force(struct bt *b, struct bt_view *w)
{
    if (b->views.now && b->views.now != w)
        bt_areas_open(b, b->views.now, false);
    if (b->views.now != w)
        bt_areas_open(b, w, true);
    b->views.now = w;
    take_deltas(b, w);
}

/* Lets the view in force have one more area. False: it cannot be shown, or the view has none left. */
static bool add_area(struct bt *b, struct bt_view *w, uint64_t area)
{
    if (w->narrow || area >= USER_AREAS)
        return false;
    if (!bt_areas_add(w, area)) {
        w->cost += (uint64_t)w->pieces * PIECE_COST;
        bt_areas_open(b, w, false);
        bt_areas_release(b, w);
        begin_anew(w);
        if (!bt_areas_lay_out(b, w, area))
            return false;
    }
    bt_areas_open(b, w, true);
    take_deltas(b, w);
    b->n.view_areas++;
    return true;
}

/* --- when there is one -------------------------------------------------------------------------------------------- */

static uint8_t *patience_of(struct bt *b, uint64_t cr3)
{
    return &b->views.patience[hash_slot(cr3, VIEW_PATIENCE_BITS)];
}

/* Slices that code has to run under one stamp. More after views were lost, by whomever: many short programs do much the same. */
static uint32_t settled(struct bt *b, uint64_t cr3)
{
    bool user = b->v->mmu.index == MMU_USER;
    unsigned slices = user ? SLICES : SUPERVISOR_SLICES, lost = user ? b->views.lost : 0,
             patience = *patience_of(b, cr3);
    return bt_all_translated(b) ? 0 : slices << (patience > lost ? patience : lost);
}

static void lose_patience(struct bt *b, struct bt_view *w)
{
    uint8_t *patience = patience_of(b, w->cr3);
    if (*patience < PATIENCE_MAX)
        ++*patience;
    if (b->views.lost < LOST_MAX)
        b->views.lost++;
    close_view(b, w);
    b->n.views_closed++;
}

static struct bt_view *find(struct bt *b, uint64_t stamp, uint64_t cr3)
{
    struct bt_views *all = &b->views;
    struct bt_view *same = NULL;
    for (struct bt_view *w = all->view; w < all->view + VIEWS; w++) {
        if (!w->stamp || w->narrow == vcpu_long64(b->v) || w->index != b->v->mmu.index)
            continue;
        if (w->stamp == stamp)
            return w;
        if (w->cr3 == cr3)
            same = w;
    }
    return same;
}

static bool open_view(struct bt *b, uint64_t stamp)
{
    struct bt_views *all = &b->views;
    struct vcpu *v = b->v;
    struct bt_view *w = &all->view[all->next++ % VIEWS];
    if (w->stamp)
        close_view(b, w);
    w->narrow = !vcpu_long64(v);
    w->index = v->mmu.index;
    w->cr3 = v->s.cr3;
    if (!bt_areas_lay_out(b, w, (v->s.rip >> AREA_SHIFT) % USER_AREAS))
        return false;
    w->hasty = 0;
    w->cost = 0;
    w->opened = __builtin_ia32_rdtsc();
    begin_anew(w);
    w->stamp = stamp;
    b->n.views_opened++;
    put_in_force(b, w);
    return true;
}

/* Takes away what was dropped since, as long as that is known. */
static bool catch_up(struct bt *b, struct bt_view *w, uint64_t stamp)
{
    while (w->stamp != stamp) {
        const struct mmu_drop *d = mmu_dropped(&b->v->mmu, w->stamp);
        if (!d || (d->host && (!d->write_only || set_has(&w->written, (uintptr_t)d->host))))
            return false;
        int side = bt_areas_side(w, d->page);
        if (!d->host && side >= 0 && set_has(&w->pages, d->page)) {
            if (!host_view_take(PIECE_MAPPINGS))
                return false;
            w->pieces++; /* one becomes two */
            bt_areas_must(b, host_view_clear((uintptr_t)(d->page + w->delta[side]), PAGE_SIZE));
            b->n.view_pages_dropped++;
        }
        w->stamp = d->to;
    }
    return true;
}

/* Makes it true to another stamp of its address space; false: it did not pay, and is gone. */
static bool refresh(struct bt *b, struct bt_view *w, uint64_t stamp)
{
    if (catch_up(b, w, stamp))
        return true;
    uint8_t *patience = patience_of(b, w->cr3);
    uint64_t lasted = __builtin_ia32_rdtsc() - w->since, cost = (uint64_t)w->pieces * PIECE_COST;
    if (cost > lasted / 4 && !bt_all_translated(b)) {
        lose_patience(b, w);
        return false;
    }
    if (cost < lasted / 64 && *patience)
        --*patience;
    if (w->pieces)
        b->n.views_dropped++;
    empty(b, w);
    w->stamp = stamp;
    return true;
}

/* Two address spaces that take turns all the time are better off without. */
static bool too_hasty(struct bt *b, struct bt_view *w)
{
    uint64_t now = __builtin_ia32_rdtsc();
    w->hasty = now - w->entered < HASTE && !bt_all_translated(b) ? w->hasty + 1 : 0;
    w->entered = now;
    return w->hasty > HASTY;
}

/* Has user code without a view run for long enough, and is in a page that is hot? */
static bool is_settled(struct bt *b, uint64_t stamp)
{
    struct bt_views *all = &b->views;
    if (bt_all_translated(b))
        return true;
    uint32_t slices = b->heat.slices - all->slices;
    if (!slices)
        return false;
    all->slices = b->heat.slices;
    unsigned i = stamp % VIEW_CANDIDATES;
    if (all->candidate[i].stamp != stamp) {
        all->candidate[i].stamp = stamp;
        all->candidate[i].slices = 0;
    }
    all->candidate[i].slices += slices;
    return all->candidate[i].slices >= settled(b, b->v->s.cr3) &&
           (vcpu_cpl(b->v) != 3 || b->heat.last >= HEAT_VIEW);
}

/* User code runs for the first time: from now on views are for it. To take turns with the supervisor's would cost more than
 * they are worth. */
static void meet_user(struct bt *b)
{
    struct bt_views *all = &b->views;
    all->user_met = true;
    for (struct bt_view *w = all->view; w < all->view + VIEWS; w++)
        if (w->stamp)
            close_view(b, w);
}

/* Is there anything to be shown to what runs now? Of supervisors that is 64-bit code that has the processor for itself, and
 * whose addresses are where those of users may be: loaders, kernels in the lower half. */
static bool may_have(struct bt *b)
{
    struct bt_views *all = &b->views;
    const struct vcpu *v = b->v;
    if (!all->possible || v->mmu.bypass)
        return false;
    if (vcpu_cpl(v) == 3) {
        if (unlikely(!all->user_met))
            meet_user(b);
        return v->mmu.index == MMU_USER;
    }
    return !all->user_met && vcpu_cpl(v) == 0 && v->mmu.index != MMU_USER && vcpu_long64(v) &&
           v->s.rip < HOST_END;
}

/* The view for what runs now is in force. */
static bool use(struct bt *b)
{
    struct bt_views *all = &b->views;
    const struct vcpu *v = b->v;
    uint64_t stamp = v->mmu.stamp;
    if (!may_have(b))
        return false;
    struct bt_view *w = all->now;
    if (w && w->stamp == stamp && w->narrow == !vcpu_long64(v) && w->index == v->mmu.index)
        return true;
    w = find(b, stamp, v->s.cr3);
    if (!w)
        return is_settled(b, stamp) && open_view(b, stamp);
    if (w->stamp != stamp) {
        if (!refresh(b, w, stamp))
            return false;
    } else if (too_hasty(b, w)) {
        lose_patience(b, w);
        return false;
    }
    put_in_force(b, w);
    return true;
}

bool bt_view_use(struct bt *b) { return use(b) && !b->v->internal_error; }

/* --- filling ------------------------------------------------------------------------------------------------------- */

struct shown {
    const uint8_t *host; /* NULL: nothing may be shown */
    bool write;
};

/* What the TLB knows of a page. */
static struct shown known(const struct bt *b, uint64_t page)
{
    const struct mmu *m = &b->v->mmu;
    const struct tlb_entry *e = tlb_slot(m->tlb, page);
    uint64_t tag = page | m->gen;
    struct shown s = { NULL, false };
    if (e->tag[ACCESS_READ] == tag || e->tag[ACCESS_WRITE] == tag) {
        s.host = (const uint8_t *)(uintptr_t)(page + e->addend);
        s.write = e->tag[ACCESS_WRITE] == tag;
    }
    return s;
}

/* It takes more of the host's mappings than there are, or room that the host has not. */
static void run_out(struct bt *b, struct bt_view *w)
{
    *patience_of(b, w->cr3) = PATIENCE_MAX;
    lose_patience(b, w);
}

static bool show(struct bt *b, struct bt_view *w, uint64_t page, unsigned pages, struct shown s)
{
    int side = bt_areas_side(w, page);
    int fd;
    uint64_t off;
    if (side < 0 || !pmap_object(b->v->pmap, s.host, &fd, &off))
        return false;
    if (!host_view_take(PIECE_MAPPINGS)) {
        run_out(b, w);
        return false;
    }
    w->pieces++;
    if (!host_view_show((uintptr_t)(page + w->delta[side]), fd, off, (uint64_t)pages << PAGE_SHIFT,
                        s.write)) {
        run_out(b, w);
        return false;
    }
    for (unsigned i = 0; i < pages; i++) {
        set_add(&w->pages, page + ((uint64_t)i << PAGE_SHIFT));
        if (s.write)
            set_add(&w->written, (uintptr_t)s.host + ((uint64_t)i << PAGE_SHIFT));
    }
    b->n.view_pages += pages;
    return true;
}

/* The pages around one, as far as the TLB knows them. */
static void show_group(struct bt *b, struct bt_view *w, uint64_t first)
{
    for (unsigned i = 0; i < GROUP_PAGES;) {
        uint64_t page = first + ((uint64_t)i << PAGE_SHIFT);
        struct shown s = known(b, page);
        unsigned n = 1;
        if (s.host) {
            for (; i + n < GROUP_PAGES; n++) {
                struct shown next = known(b, page + ((uint64_t)n << PAGE_SHIFT));
                if (next.host != s.host + ((size_t)n << PAGE_SHIFT) || next.write != s.write)
                    break;
            }
            if (!show(b, w, page, n, s))
                return;
        }
        i += n;
    }
}

/* Pages behind `page` that the TLB knows, in its group, are shown; the one behind those. */
static uint64_t behind_known(const struct bt *b, uint64_t page, uint64_t first)
{
    do
        page += PAGE_SIZE;
    while (page < first + GROUP_PAGES * PAGE_SIZE && known(b, page).host);
    return page;
}

/* Faults go upward from page to page: what they will come to is shown ahead, twice as much each time. The page itself is known
 * for such an access. */
static void show_ahead(struct bt *b, struct bt_view *w, uint64_t page, bool write)
{
    uint8_t *host[AHEAD_MAX];
    w->ahead = w->ahead ? 2 * w->ahead : 4;
    if (w->ahead > AHEAD_MAX)
        w->ahead = AHEAD_MAX;
    unsigned known = mmu_translate_coming(&b->v->mmu, GVA(page), write ? ACCESS_WRITE : ACCESS_READ, host,
                                          w->ahead);
    for (unsigned i = 0, n; i < known && w->stamp == b->v->mmu.stamp; i += n) {
        for (n = 1; i + n < known && host[i + n] == host[i] + ((size_t)n << PAGE_SHIFT);)
            n++;
        if (!show(b, w, page + ((uint64_t)i << PAGE_SHIFT), n, (struct shown){ host[i], write }))
            return;
    }
    w->next = page + ((uint64_t)known << PAGE_SHIFT);
}

static bool first_of_group(struct bt_view *w, uint64_t first)
{
    bool before = set_has(&w->groups, first);
    set_add(&w->groups, first);
    return !before;
}

/* The guest instruction whose access faulted, on the host. */
static const uint8_t *culprit(struct bt *b)
{
    const struct bt_area *a = bt_area(b->v);
    return interp_fetch_host(b->v, (a->page + EXIT_OFF(a->exit)) & b->v->lin_mask);
}

/* The instruction will fault again and again: it is translated anew, with another kind of check. */
static void blame(struct bt *b)
{
    const uint8_t *host = culprit(b);
    if (!host || ++b->lessons[bt_lesson_slot(host)].view_blame != BLAMED)
        return;
    bt_adapt_blamed(b, host);
    b->n.view_blamed++;
}

/* Its access went to another side than was thought. The first time it may have company in its unit. */
static void change_side(struct bt *b, enum view_side side)
{
    const uint8_t *host = culprit(b);
    if (!host)
        return;
    struct bt_lesson *l = &b->lessons[bt_lesson_slot(host)];
    unsigned flips = l->view_side / SIDE_FLIPS, before = l->view_side & (SIDE_KNOWN | 1u);
    if (flips == BLAMED_SIDES) {
        l->view_blame = BLAMED;
        b->n.view_blamed++;
    } else {
        l->view_side = (uint8_t)((flips + 1) * SIDE_FLIPS | SIDE_KNOWN | (unsigned)side);
    }
    if (flips == BLAMED_SIDES || before == (SIDE_KNOWN | (unsigned)side))
        bt_cache_drop_code(b, host);
}

/* An address of an area that was not in the view, or not on the side where it was looked for. */
static void meet_area(struct bt *b, struct bt_view *w, uint64_t lin, unsigned side)
{
    if (bt_areas_side(w, lin) < 0 && !add_area(b, w, lin >> AREA_SHIFT)) {
        if (w->nareas[SIDE_NEAR])
            blame(b);
        else
            run_out(b, w);
    } else if (bt_areas_side(w, lin) != (int)side) {
        change_side(b, (enum view_side)bt_areas_side(w, lin));
    }
}

/* Faults that come too often: pages that are new, or accesses that go another way each time. */
static bool too_dear(struct bt *b, struct bt_view *w)
{
    w->cost += FAULT_COST;
    return w->cost > GRACE + (__builtin_ia32_rdtsc() - w->opened) / 32 && !bt_all_translated(b);
}

void bt_view_fill(struct bt *b)
{
    struct bt_view *w = b->views.now;
    struct bt_area *a = bt_area(b->v);
    uint64_t addr = a->fault_addr;
    b->n.view_faults++;
    bt_adapt_release(b);
    if (!w || w->stamp != b->v->mmu.stamp || w->index != b->v->mmu.index || b->v->mmu.bypass)
        return;
    if (too_dear(b, w)) {
        lose_patience(b, w);
        return;
    }
    if (addr - bt_areas_table(b) < VCPU_RESERVE) {
        unsigned side = addr - bt_areas_table(b) < SIDE_TABLE ? SIDE_NEAR : SIDE_FAR;
        meet_area(b, w, (addr - bt_areas_table(b) - side * SIDE_TABLE) / PAGE_SIZE << AREA_SHIFT, side);
        return;
    }
    unsigned side = SIDE_NEAR;
    while (side < VIEW_SIDES && bt_areas_side(w, addr - w->delta[side]) != (int)side)
        side++;
    if (side == VIEW_SIDES) { /* beside an area, or anywhere at all */
        blame(b);
        return;
    }
    uint64_t page = (addr - w->delta[side]) & ~(uint64_t)PAGE_OFFSET_MASK;
    uint64_t first = page & ~(uint64_t)(GROUP_PAGES * PAGE_SIZE - 1);
    struct shown s = known(b, page);
    if (!s.host || (a->fault_write && !s.write)) {
        blame(b);
        return;
    }
    if (w->pieces > PIECES_MAX) {
        run_out(b, w);
        return;
    }
    if (page == w->next) {
        show_ahead(b, w, page, s.write);
        return;
    }
    w->ahead = 0;
    w->next = page + PAGE_SIZE;
    if (first_of_group(w, first)) {
        w->next = behind_known(b, page, first);
        show_group(b, w, first);
    } else {
        show(b, w, page, 1, s);
    }
}

enum view_side bt_view_side(const struct bt *b, uint64_t lin)
{
    const struct bt_view *w = b->views.now;
    return w && bt_areas_side(w, lin) == SIDE_FAR ? SIDE_FAR : SIDE_NEAR;
}

/* --- life ----------------------------------------------------------------------------------------------------------- */

void bt_views_init(struct bt *b)
{
    b->views.possible = pass_on(b, ENGINE_PASS_VIEW) && b->v->reserve && host_view_possible();
}

void bt_views_free(struct bt *b)
{
    for (struct bt_view *w = b->views.view; w < b->views.view + VIEWS; w++)
        if (w->stamp)
            close_view(b, w);
}

void bt_views_enter(struct bt *b)
{
    if (b->views.now)
        host_set_gs_base(b->views.now->delta[SIDE_NEAR]);
}
