/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What generated code calls when a check fails: the TLB is filled, a spot is moved, a page fault is delivered; or it says no, and the
 * unit is left in front of the access.
 */
#include "engine/bt/unit.h"

/* Pages to look up ahead: from the second miss of a stream on, doubled with each. */
#define AHEAD_MIN 4u
#define AHEAD_MAX 64u

static struct bt_stream *stream_at(struct bt *b, uint64_t place)
{
    for (struct bt_stream *s = b->streams; s < b->streams + STREAMS; s++)
        if (s->next == place) {
            s->pages = s->pages ? s->pages * 2 : AHEAD_MIN;
            if (s->pages > AHEAD_MAX)
                s->pages = AHEAD_MAX;
            return s;
        }
    struct bt_stream *s = &b->streams[b->next_stream++ % STREAMS];
    s->pages = 0;
    return s;
}

static struct mmu_result translate_in_stream(struct bt *b, uint64_t lin, enum mmu_access access)
{
    struct mmu *m = &b->v->mmu;
    uint64_t page = lin >> PAGE_SHIFT;
    struct bt_stream *s = stream_at(b, page << 1 | (access == ACCESS_WRITE));
    unsigned filled = s->pages;
    struct mmu_result r = mmu_translate_ahead(m, GVA(lin), access, m->index, &filled);
    s->next = (page + filled + 1) << 1 | (access == ACCESS_WRITE);
    return r;
}

/* The unit is left for it: bail(). */
static void note_page_fault(struct bt *b, uint64_t addr, uint32_t error)
{
    b->page_fault.due = true;
    b->page_fault.addr = addr;
    b->page_fault.error = error;
}

bool bt_fill(struct vcpu *v, uint64_t lin, uint32_t info)
{
    struct bt *b = bt_of(v);
    struct mmu *m = &v->mmu;
    unsigned size = info & FILL_SIZE;
    enum mmu_access access = info & FILL_WRITE ? ACCESS_WRITE : ACCESS_READ;
    b->n.fills++;
    if (info & FILL_ALIGNED && lin % 16)
        size = PAGE_SIZE; /* as one that crosses: the interpreter raises what it raises */
    if (info & FILL_PROBE) {
        if (!m->bypass && tlb_find(m, lin, size, access))
            return true;
    } else if (!(lin & ~v->lin_mask) && ((lin + size - 1) ^ lin) < PAGE_SIZE && !m->bypass) {
        if (info & FILL_READ_FIRST) { /* no write is certain yet, so it must not be noted as one */
            if (!mmu_write_settled(m, GVA(lin), m->index))
                access = ACCESS_READ;
        }
        struct mmu_result r = translate_in_stream(b, lin, access);
        bool wanted = access == ACCESS_WRITE || !(info & FILL_WRITE);
        if (r.fault == MMU_FAULT_PAGE && info & FILL_EXACT && wanted)
            note_page_fault(b, lin + FILL_OFFSET(info), r.error_code);
        else if (r.fault == MMU_FAULT_PAGE)
            m->stats.true_faults--; /* the interpreter meets it again */
        if (!r.fault && tlb_find(m, lin, size, info & FILL_WRITE ? ACCESS_WRITE : ACCESS_READ))
            return true;
    }
    b->n.fills_failed++;
    b->fill_failed = true;
    b->fill_crossed = !(info & FILL_PROBE) && size < PAGE_SIZE && ((lin + size - 1) ^ lin) >= PAGE_SIZE;
    return false;
}

/* --- spots --- */

bool bt_spot_fill(struct vcpu *v, uint64_t lin, uint32_t info)
{
    struct bt_area *a = bt_area(v);
    struct bt *b = a->bt;
    unsigned spot = info >> FILL_SPOT_SHIFT & (SPOTS - 1), size = info & FILL_SIZE;
    enum mmu_access access = info & FILL_WRITE ? ACCESS_WRITE : ACCESS_READ;
    b->n.spot_fills++;
    if (--a->spot_credit == 0) {
        a->spot_credit = SPOT_SAMPLE;
        bt_adapt_judge(b, b->spot_code[spot]);
    }
    const uint8_t *host = tlb_find(&v->mmu, lin, size, access);
    if (!host) {
        if (!bt_fill(v, lin, info & (((1u << FILL_SPOT_SHIFT) - 1) | FILL_EXACT)))
            return false;
        host = tlb_find(&v->mmu, lin, size, access);
        if (!host)
            return false;
    }
    a->spots[spot] = (struct bt_spot){ lin & ~(uint64_t)PAGE_OFFSET_MASK, (uint64_t)(uintptr_t)host - lin };
    return true;
}

static bool may_write(const struct mmu *m, const struct tlb_entry *e)
{
    return e->tag[ACCESS_WRITE] && (e->tag[ACCESS_WRITE] & TLB_GEN_MASK) == m->gen;
}

/* Some page that may be written now, so read, too: straight from the TLB, mostly the last that was filled. NULL: there is none. */
static const struct bt_any *find_any(struct bt *b)
{
    const struct mmu *m = &b->v->mmu;
    struct bt_any *any = &b->any[m->stamp % ANY_STAMPS];
    if (any->stamp == m->stamp)
        return any;
    const struct tlb_entry *e = &m->tlb[m->last_write];
    if (!may_write(m, e)) {
        if (b->any_missed == m->stats.hidden_faults)
            return NULL; /* nothing was filled since the last time */
        for (e = m->tlb; e < m->tlb + TLB_ENTRIES && !may_write(m, e);)
            e++;
        if (e == m->tlb + TLB_ENTRIES) {
            b->any_missed = m->stats.hidden_faults;
            return NULL;
        }
    }
    any->page = (struct bt_spot){ e->tag[ACCESS_WRITE] & ~TLB_GEN_MASK, e->addend };
    any->stamp = m->stamp;
    return any;
}

bool bt_spots_reset(struct vcpu *v, uint64_t unused, uint32_t unit)
{
    struct bt_area *a = bt_area(v);
    struct bt *b = a->bt;
    const struct bt_unit *u = &b->units[unit];
    (void)unused;
    b->n.spot_resets++;
    const struct bt_any *any = v->mmu.bypass ? NULL : find_any(b);
    if (!any)
        return false;
    for (unsigned i = 1; i < u->spots; i++)
        a->spots[u->first_spot + i] = any->page;
    a->spots[u->first_spot].page = v->mmu.stamp;
    return true;
}

bool bt_unlink(struct vcpu *v, uint64_t unused, uint32_t unit)
{
    struct bt *b = bt_of(v);
    (void)unused;
    bt_cache_unlink_from(b, &b->units[unit]);
    return true;
}
