/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The software TLB: three direct-mapped tables a vcpu, filled by the walk.
 *
 * Invariants:
 * - All non-zero tags of an entry are equal, and `addend` belongs to them: filling with another page,
 *   generation or host address empties the entry first. (A guest may change a page table without INVLPG; a
 *   right claimed for the old page must not reach the new.)
 * - A generation is given out once between two sweeps, so dropping an address space is forgetting its
 *   generation.
 * - A write tag exists only after pmap_claim_write() said yes; a watched page has no data tags.
 *
 * The user's table carries the generation of the address space. The supervisor's two carry one of their own, which
 * address spaces share: there global pages stay when another space comes, as on the processor (SDM 3A 4.10.2.4), and
 * all others, which `local` lists, are dropped then.
 */
#include <string.h>

#include "mmu/walk.h"

/* What a translation depends on besides the tables. */
#define MODE_CR0 (PG_CR0_PG | PG_CR0_WP)
#define MODE_CR4 (PG_CR4_PSE | PG_CR4_PAE | PG_CR4_PGE | PG_CR4_PCIDE | PG_CR4_SMEP | PG_CR4_SMAP)
#define MODE_EFER (PG_EFER_LMA | PG_EFER_NXE)

#define LAST_GEN (TLB_GEN_NONE - 1)
#define EPOCH_STEP (TLB_GEN_MASK + 1)
#define PAGE_MASK (~(uint64_t)PAGE_OFFSET_MASK)

static uint64_t mode_of(const struct paging_regs *r)
{
    if (!(r->cr0 & PG_CR0_PG))
        return 0;
    return (r->cr0 & MODE_CR0) | (r->cr4 & MODE_CR4) | (r->efer & MODE_EFER);
}

static uint64_t key_of(const struct paging_regs *r)
{
    uint64_t low = r->cr4 & PG_CR4_PCIDE ? 0 : paging_pae(r) && !(r->efer & PG_EFER_LMA) ? 0x1f : 0xfff;
    return r->cr0 & PG_CR0_PG ? r->cr3 & ~BIT(63) & ~low : 0;
}

static unsigned pcid_of(const struct mmu_space *s) { return s->mode & PG_CR4_PCIDE ? s->cr3 & 0xfff : 0; }

/* --- address spaces ------------------------------------------------------------------------------------- */

/* Fetch translations may have changed: what was fetched is noted anew. */
static void move_epochs(struct mmu *m)
{
    memset(&m->fetched, 0, sizeof(m->fetched));
    m->epochs[GEN_SPACE] += EPOCH_STEP;
    m->epochs[GEN_SHARED] += EPOCH_STEP;
    m->flush_epoch = m->epochs[gen_kind(m->index)];
}

/* The same where generations stay: who fetches in the new epoch has to ask again, or its pages would not be noted. */
static void forget_fetches(struct mmu *m)
{
    struct tlb_entry *e = m->tlbs[0], *end = e + MMU_INDEX_COUNT * TLB_ENTRIES;
    for (; e < end; e++)
        e->tag_x = 0;
    move_epochs(m);
}

static void forget_spaces(struct mmu *m)
{
    for (unsigned i = 0; i < MMU_SPACES; i++)
        m->spaces[i].gen = 0;
    m->shared_gen = 0;
    memset(m->local, 0, sizeof(m->local));
    m->local_fetch = false;
    memset(&m->large_2m, 0, sizeof(m->large_2m));
    memset(&m->large_1g, 0, sizeof(m->large_1g));
    move_epochs(m);
}

static uint16_t fresh_gen(struct mmu *m)
{
    if (m->next_gen > LAST_GEN) {
        memset(m->tlbs, 0, sizeof(m->tlbs));
        forget_spaces(m);
        m->next_gen = 1;
    }
    return (uint16_t)m->next_gen++;
}

static void take_stamp(struct mmu *m)
{
    uint64_t *stamp = &m->spaces[m->space].stamp;
    if (m->bypass || !*stamp)
        *stamp = ++m->next_stamp;
    m->stamp = *stamp;
}

/* Something was dropped from the TLB: no copy of an entry holds any more, in any space. */
static void void_stamps(struct mmu *m)
{
    for (unsigned i = 0; i < MMU_SPACES; i++)
        m->spaces[i].stamp = 0;
    take_stamp(m);
}

/* The same where this is all that was dropped. */
static void move_stamps(struct mmu *m, struct mmu_drop drop)
{
    for (unsigned i = 0; i < MMU_SPACES; i++) {
        uint64_t *stamp = &m->spaces[i].stamp, from = *stamp;
        if (!from)
            continue;
        *stamp = ++m->next_stamp;
        drop.from = from;
        drop.to = *stamp;
        m->drops[from % MMU_DROPS] = drop;
    }
    take_stamp(m);
}

/* What the supervisor's tables have of the address space that is left. */
static void drop_local(struct mmu *m)
{
    for (unsigned t = 0; t < array_size(m->local); t++)
        for (unsigned w = 0; w < array_size(m->local[t]); w++)
            for (; m->local[t][w]; m->local[t][w] &= m->local[t][w] - 1)
                m->tlbs[MMU_SUPER + t][w * 64 + (unsigned)__builtin_ctzll(m->local[t][w])] =
                    (struct tlb_entry){ 0 };
    if (m->local_fetch)
        m->epochs[GEN_SHARED] += EPOCH_STEP;
    m->local_fetch = false;
}

/* The generation and the epoch of who asks. */
static void take_gen(struct mmu *m)
{
    m->gens[GEN_SPACE] = m->bypass ? TLB_GEN_NONE : m->spaces[m->space].gen;
    m->gens[GEN_SHARED] = m->bypass ? TLB_GEN_NONE : m->shared_gen;
    m->gen = m->gens[gen_kind(m->index)];
    m->flush_epoch = m->epochs[gen_kind(m->index)];
}

static void enter_space(struct mmu *m, unsigned i)
{
    drop_local(m);
    m->space = i;
    take_stamp(m);
    m->epochs[GEN_SPACE] = (m->epochs[GEN_SPACE] & ~TLB_GEN_MASK) | m->spaces[i].gen;
    m->epochs[GEN_SHARED] = (m->epochs[GEN_SHARED] & ~TLB_GEN_MASK) | m->shared_gen;
    take_gen(m);
}

/* Gives the current registers an empty space in slot i. A generation may cost all others, the shared one too. */
static void fresh_space(struct mmu *m, unsigned i)
{
    uint16_t gen;
    do {
        if (!m->shared_gen)
            m->shared_gen = fresh_gen(m);
        gen = fresh_gen(m);
    } while (!m->shared_gen);
    m->spaces[i] = (struct mmu_space){ .cr3 = key_of(&m->regs), .mode = mode_of(&m->regs), .gen = gen };
    enter_space(m, i);
}

static void forget_pcid(struct mmu *m, unsigned pcid)
{
    for (unsigned i = 0; i < MMU_SPACES; i++)
        if (pcid_of(&m->spaces[i]) == pcid)
            m->spaces[i].gen = 0;
}

void mmu_set_paging(struct mmu *m, const struct paging_regs *regs, bool flush)
{
    m->regs = *regs;
    uint64_t key = key_of(regs), mode = mode_of(regs);
    if (mode != m->spaces[m->space].mode) {
        mmu_flush_all(m);
        return;
    }
    if (flush)
        forget_pcid(m, regs->cr4 & PG_CR4_PCIDE ? key & 0xfff : 0);
    unsigned free_slot = MMU_SPACES;
    for (unsigned i = 0; i < MMU_SPACES; i++) {
        const struct mmu_space *s = &m->spaces[i];
        if (s->gen && s->cr3 == key && s->mode == mode) {
            if (i != m->space) {
                m->stats.space_switches++;
                m->stats.space_hits++;
                enter_space(m, i);
            }
            return;
        }
        if (!s->gen)
            free_slot = i;
    }
    m->stats.space_switches++;
    fresh_space(m, free_slot < MMU_SPACES ? free_slot : m->next_space++ % MMU_SPACES);
}

int mmu_init(struct mmu *m, struct pmap *pmap, int consumer)
{
    memset(m, 0, sizeof(*m));
    m->pmap = pmap;
    m->consumer = consumer;
    m->next_gen = 1;
    mmu_set_index(m, MMU_SUPER_AC);
    fresh_space(m, 0);
    return 0;
}

void mmu_set_index(struct mmu *m, enum mmu_index index)
{
    m->index = index;
    m->tlb = m->tlbs[index];
    m->gen = m->gens[gen_kind(index)];
    m->flush_epoch = m->epochs[gen_kind(index)];
}

void mmu_set_bypass(struct mmu *m, bool on)
{
    m->bypass = on;
    void_stamps(m);
    take_gen(m);
}

void mmu_set_watch(struct mmu *m, const uint64_t *pages, unsigned count)
{
    if (count > array_size(m->watch_page))
        count = array_size(m->watch_page);
    bool same = count == m->watch_count;
    for (unsigned i = 0; i < count; i++) {
        same = same && m->watch_page[i] == pages[i];
        m->watch_page[i] = pages[i];
    }
    m->watch_count = count;
    if (!same)
        mmu_flush_all(m);
}

/* --- flushing ------------------------------------------------------------------------------------------- */

void mmu_flush_all(struct mmu *m)
{
    m->stats.flushes_all++;
    forget_spaces(m);
    fresh_space(m, m->space);
}

static void drop_slots(struct mmu *m, uint64_t base, unsigned shift)
{
    uint64_t pages = BIT(shift - PAGE_SHIFT), mask = ~(BIT(shift) - 1);
    for (unsigned t = 0; t < MMU_INDEX_COUNT; t++) {
        for (uint64_t i = 0; i < pages; i++) {
            struct tlb_entry *e = tlb_slot(m->tlbs[t], base + (i << PAGE_SHIFT));
            uint64_t tag = e->tag[0] | e->tag[1] | e->tag_x;
            if (tag && (tag & mask) == base)
                *e = (struct tlb_entry){ 0 };
        }
    }
}

/* A page of 2 MiB (4 MiB without PAE): as many 4 KiB pages as the TLB has slots, at most. */
static unsigned large_shift(const struct mmu *m) { return paging_pae(&m->regs) ? 21 : 22; }

static bool both_bits(struct mmu_noted *set, uint64_t number, uint64_t **word, uint64_t *bit)
{
    uint64_t hash = number * 0x9e3779b97f4a7c15ull;
    bool all = true;
    for (unsigned i = 0; i < 2; i++, hash <<= 16) {
        word[i] = &set->bits[hash >> 54];
        bit[i] = BIT(hash >> 48 & 63);
        all = all && *word[i] & bit[i];
    }
    return all;
}

static void note(struct mmu_noted *set, uint64_t number)
{
    uint64_t *word[2], bit[2];
    both_bits(set, number, word, bit);
    *word[0] |= bit[0];
    *word[1] |= bit[1];
}

static bool maybe_noted(struct mmu_noted *set, uint64_t number)
{
    uint64_t *word[2], bit[2];
    return both_bits(set, number, word, bit);
}

static struct mmu_noted *large_pages(struct mmu *m, unsigned shift)
{
    return shift == 30 ? &m->large_1g : &m->large_2m;
}

static bool maybe_large(struct mmu *m, uint64_t lin, unsigned shift)
{
    return maybe_noted(large_pages(m, shift), lin >> shift);
}

void mmu_flush_page(struct mmu *m, gva addr)
{
    if (maybe_large(m, addr.v, 30)) {
        mmu_flush_all(m);
        return;
    }
    unsigned shift = maybe_large(m, addr.v, large_shift(m)) ? large_shift(m) : PAGE_SHIFT;
    drop_slots(m, addr.v & (~0ull << shift), shift);
    if (shift == PAGE_SHIFT)
        move_stamps(m, (struct mmu_drop){ .page = addr.v & PAGE_MASK });
    else
        void_stamps(m);
    /* Engines look code up by linear address, after a fetch that came through mmu_translate() in the same epoch only. */
    if (shift != PAGE_SHIFT || maybe_noted(&m->fetched, addr.v >> PAGE_SHIFT))
        forget_fetches(m);
}

void mmu_flush_pcid(struct mmu *m, unsigned pcid)
{
    forget_pcid(m, pcid);
    if (!m->spaces[m->space].gen)
        fresh_space(m, m->space);
}

void mmu_flush_pcid_page(struct mmu *m, unsigned pcid, gva addr)
{
    (void)pcid; /* the page is dropped from every space: more than asked for, and as cheap */
    mmu_flush_page(m, addr);
}

/* Pages looked for one by one; a longer range drops everything. */
#define DROP_PAGES_MAX 16

void mmu_drop_physical(struct mmu *m, uint64_t first_page, uint64_t count, unsigned rights)
{
    const uint8_t *host[DROP_PAGES_MAX];
    if (count == 0 || count > DROP_PAGES_MAX || !pmap_get_a20(m->pmap)) {
        mmu_flush_all(m);
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        const struct page *pg = pmap_page(m->pmap, GPA((first_page + i) << PAGE_SHIFT));
        host[i] = pg ? pg->host : NULL;
    }
    struct tlb_entry *e = m->tlbs[0], *end = e + MMU_INDEX_COUNT * TLB_ENTRIES;
    for (; e < end; e++) {
        uint64_t tag = e->tag[0] | e->tag[1] | e->tag_x;
        if (!tag || (rights == RIGHT_WRITE && !e->tag[1]))
            continue;
        const uint8_t *at = (const uint8_t *)(uintptr_t)((tag & PAGE_MASK) + e->addend);
        for (uint64_t i = 0; i < count; i++) {
            if (at != host[i])
                continue;
            if (rights & RIGHT_READ)
                e->tag[ACCESS_READ] = 0;
            if (rights & RIGHT_WRITE)
                e->tag[ACCESS_WRITE] = 0;
            if (rights & RIGHT_EXEC)
                e->tag_x = 0;
        }
    }
    if (rights & (RIGHT_READ | RIGHT_EXEC))
        forget_fetches(m);
    if (count == 1 && host[0])
        move_stamps(m, (struct mmu_drop){ .host = host[0], .write_only = rights == RIGHT_WRITE });
    else
        void_stamps(m);
}

/* --- translating ---------------------------------------------------------------------------------------- */

static bool watched(const struct mmu *m, uint64_t page)
{
    for (unsigned i = 0; i < m->watch_count; i++)
        if (m->watch_page[i] == page)
            return true;
    return false;
}

static void set_tags(struct tlb_entry *e, uint64_t tag, uint64_t addend)
{
    if ((e->tag[0] | e->tag[1] | e->tag_x) != tag || e->addend != addend)
        *e = (struct tlb_entry){ .addend = addend };
}

/* Whether a slot of a supervisor's table is to be dropped with the address space. */
static void note_local(struct mmu *m, ptrdiff_t slot, enum mmu_index index, bool local)
{
    uint64_t *word = &m->local[index - MMU_SUPER][slot / 64], bit = BIT(slot % 64);
    *word = local ? *word | bit : *word & ~bit;
}

/* How a right to write may be had. */
enum claim {
    CLAIM,      /* asked for: the page counts as written */
    CLAIM_HELD, /* only if it stands already */
};

/* May data of this page be read, and also written where that is the access, without notice? */
enum usable { USABLE_NO, USABLE_READ, USABLE_ALL };
static enum usable usable(const struct mmu *m, uint64_t page, enum mmu_access access, struct page *pg,
                          enum claim claim)
{
    if (!pg || !pg->host || !(page_rights(pg) & RIGHT_READ) || (m->watch_count && watched(m, page)))
        return USABLE_NO;
    if (access != ACCESS_WRITE)
        return USABLE_ALL;
    bool held = claim == CLAIM ? pmap_claim_write(m->pmap, pg, m->consumer)
                               : pmap_holds_write(pg, m->consumer);
    return held ? USABLE_ALL : USABLE_READ;
}

static void note_slot(struct mmu *m, uint64_t lin, enum mmu_index index, const struct walk_result *walk)
{
    if (walk->page_shift != PAGE_SHIFT)
        note(large_pages(m, walk->page_shift), lin >> walk->page_shift);
    if (index != MMU_USER)
        note_local(m, tlb_slot(m->tlbs[index], lin) - m->tlbs[index], index, !walk->global);
}

static void fill_fetch(struct mmu *m, uint64_t lin, enum mmu_index index, const struct walk_result *walk,
                       const struct page *pg)
{
    uint64_t page = lin & PAGE_MASK, tag = page | mmu_gen(m, index);
    struct tlb_entry *e = tlb_slot(m->tlbs[index], lin);
    if (!pg || !pg->host || !(page_rights(pg) & RIGHT_EXEC))
        return;
    set_tags(e, tag, (uint64_t)(uintptr_t)pg->host - page);
    e->tag_x = tag;
    m->stats.hidden_faults++;
    note_slot(m, lin, index, walk);
}

/* True when the access has its tag now. */
static bool fill(struct mmu *m, uint64_t lin, enum mmu_access access, enum mmu_index index,
                 const struct walk_result *walk, struct page *pg, enum claim claim)
{
    uint64_t page = lin & PAGE_MASK, tag = page | mmu_gen(m, index);
    struct tlb_entry *e = tlb_slot(m->tlbs[index], lin);
    enum usable how = usable(m, page, access, pg, claim);
    if (how == USABLE_NO)
        return false;
    set_tags(e, tag, (uint64_t)(uintptr_t)pg->host - page);
    e->tag[ACCESS_READ] = tag; /* who may write a page may read it */
    if (access == ACCESS_WRITE && how == USABLE_ALL) {
        e->tag[ACCESS_WRITE] = tag;
        if (index == MMU_USER)
            m->last_write = (uint32_t)(e - m->tlbs[MMU_USER]);
    }
    note_slot(m, lin, index, walk);
    return how == USABLE_ALL;
}

static struct mmu_result to_result(struct mmu *m, const struct walk_result *walk)
{
    return (struct mmu_result){
        .addr = walk->addr,
        .page = walk->fault ? NULL : pmap_page(m->pmap, walk->addr),
        .fault = walk->fault,
        .error_code = walk->error_code,
    };
}

/* Walks, and fills. */
static struct mmu_result translate(struct mmu *m, gva addr, enum mmu_access access, enum mmu_index index,
                                   struct walk_result *walk)
{
    m->stats.walks++;
    mmu_walk(m, addr, access, index, true, walk);
    struct mmu_result res = to_result(m, walk);
    if (access == ACCESS_FETCH) {
        note(&m->fetched, addr.v >> PAGE_SHIFT);
        m->local_fetch |= index != MMU_USER && !walk->global;
    }
    if (res.fault == MMU_FAULT_PAGE)
        m->stats.true_faults++;
    if (res.fault != MMU_OK || m->bypass || !walk->settled)
        return res;
    if (access == ACCESS_FETCH)
        fill_fetch(m, addr.v, index, walk, res.page);
    else
        m->stats.hidden_faults += fill(m, addr.v, access, index, walk, res.page, CLAIM);
    return res;
}

struct mmu_result mmu_translate(struct mmu *m, gva addr, enum mmu_access access, enum mmu_index index)
{
    struct walk_result walk;
    return translate(m, addr, access, index, &walk);
}

struct mmu_result mmu_translate_ahead(struct mmu *m, gva addr, enum mmu_access access, enum mmu_index index,
                                      unsigned *pages)
{
    struct walk_result walk;
    unsigned wanted = *pages, n = 0;
    struct mmu_result res = translate(m, addr, access, index, &walk);
    if (res.fault == MMU_OK && walk.settled && !m->bypass)
        while (n < wanted && mmu_walk_next(m, access, index, &walk) &&
               fill(m, addr.v + (n + 1) * (uint64_t)PAGE_SIZE, access, index, &walk,
                    pmap_page(m->pmap, walk.addr), CLAIM_HELD))
            n++;
    *pages = n;
    return res;
}

/* How the pages behind the first are taken. */
enum ahead { AHEAD_LOOK, AHEAD_KEEP, AHEAD_CLAIM };

static bool take_ahead(struct mmu *m, uint64_t lin, enum mmu_access access, const struct walk_result *walk,
                       struct page *pg, enum ahead how)
{
    if (how == AHEAD_KEEP)
        return fill(m, lin, access, m->index, walk, pg, CLAIM_HELD);
    bool logged = pg && atomic_load_explicit(&pg->state, memory_order_relaxed) & PAGE_DIRTY_LOG;
    enum claim claim = how == AHEAD_CLAIM && !logged ? CLAIM : CLAIM_HELD;
    return usable(m, lin & PAGE_MASK, access, pg, claim) == USABLE_ALL;
}

static unsigned translate_many(struct mmu *m, gva addr, enum mmu_access access, enum ahead how,
                               uint8_t **host, unsigned pages)
{
    struct walk_result walk;
    struct mmu_result res = translate(m, addr, access, m->index, &walk);
    if (res.fault == MMU_FAULT_PAGE)
        m->stats.true_faults--;
    if (res.fault != MMU_OK || !tlb_find(m, addr.v, 1, access))
        return 0;
    host[0] = res.page->host;
    unsigned n = 1;
    for (; n < pages && mmu_walk_next(m, access, m->index, &walk); n++) {
        struct page *pg = pmap_page(m->pmap, walk.addr);
        if (!take_ahead(m, addr.v + n * (uint64_t)PAGE_SIZE, access, &walk, pg, how))
            break;
        host[n] = pg->host;
    }
    return n;
}

unsigned mmu_translate_run(struct mmu *m, gva addr, enum mmu_access access, bool keep, uint8_t **host,
                           unsigned pages)
{
    return translate_many(m, addr, access, keep ? AHEAD_KEEP : AHEAD_LOOK, host, pages);
}

unsigned mmu_translate_coming(struct mmu *m, gva addr, enum mmu_access access, uint8_t **host, unsigned pages)
{
    return translate_many(m, addr, access, AHEAD_CLAIM, host, pages);
}

struct mmu_result mmu_peek(struct mmu *m, gva addr, enum mmu_access access, enum mmu_index index)
{
    struct walk_result walk;
    mmu_walk(m, addr, access, index, false, &walk);
    return to_result(m, &walk);
}

bool mmu_write_settled(struct mmu *m, gva addr, enum mmu_index index)
{
    struct walk_result walk;
    mmu_walk(m, addr, ACCESS_WRITE, index, false, &walk);
    return walk.fault == MMU_OK && walk.settled;
}
