/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where units live: found by host address and key, sealed and taken out by page, forgotten segment by segment when the cache
 * is full.
 *
 *   made ──► listed ──its page is written──► sealed ──looked up: bytes are the same──► as before
 *              │                                └──────────── they are not ──┐
 *              └──to be made in another way──► dropped ◄─────────────────────┘     segment is needed ──► gone
 *
 * Who may hold the address of a unit's code: jump tables, links of units of the same page, far links, bt.found, the table of returns. A
 * unit that is sealed or dropped stays where it is, since jump tables may hold it: its JUMP entry is overwritten with a jump to an exit.
 * (A way back from a call does nothing of its unit's but a link, which is undone.) Before its memory is used again all are looked through.
 */
#include "engine/bt/unit.h"
#include "engine/bt/verify.h"

#include <errno.h>
#include <stdlib.h>

#include "host/memory.h"

#define DEFAULT_CACHE (128u << 20)
#define CODE_EIGHTHS 5u /* of its memory: the rest is for stubs */
#define BYTES_PER_UNIT 256u
#define BYTES_PER_LINK 96u
#define BYTES_PER_SITE 64u
#define BYTES_PER_CALL 512u
#define BYTES_PER_HELD 6u       /* of guest code */
#define AHEAD (64u << 10)       /* memory is made ready in such pieces */
#define SETTLE (1u << 20)       /* of the writable view's pages stay */
#define SETTLE_IDLE (32u << 10) /* where there is time */
#define JUMP_MEMORY (CONTEXTS * JUMP_TABLE)
#define FOUND_MEMORY (sizeof(struct bt_found) << FOUND_BITS)

/* Units of a page lie together: code that runs one after the other is looked for in few lines of the host's caches. */
static unsigned hash_of(const uint8_t *host, uint32_t key)
{
    uintptr_t page = (uintptr_t)host >> PAGE_SHIFT, offset = (uintptr_t)host & PAGE_OFFSET_MASK;
    unsigned place = hash_slot(offset ^ (uint64_t)key << PAGE_SHIFT, HASH_PAGE_BITS);
    return (unsigned)((page ^ page >> HASH_PAGES_BITS) << HASH_PAGE_BITS & ((1u << HASH_BITS) - 1)) | place;
}

/* Units as bt.hash names them; 0: none. */
static struct bt_unit *number_unit(const struct bt *b, uint32_t n) { return n ? &b->units[n - 1] : NULL; }
static uint32_t unit_number(const struct bt *b, const struct bt_unit *u)
{
    return u ? (uint32_t)(u - b->units) + 1 : 0;
}

static struct bt_unit *bucket(const struct bt *b, const uint8_t *host, uint32_t key)
{
    return number_unit(b, b->hash[hash_of(host, key)]);
}

static unsigned page_hash(const uint8_t *host)
{
    return hash_slot((uintptr_t)host >> PAGE_SHIFT, PAGE_HASH_BITS);
}

static bool same_page(const uint8_t *a, const uint8_t *b)
{
    return (uintptr_t)a >> PAGE_SHIFT == (uintptr_t)b >> PAGE_SHIFT;
}

static void clear_contexts(struct bt *b)
{
    for (unsigned i = 0; i < CONTEXTS; i++)
        b->contexts[i].used = false, b->contexts[i].sibling = NULL;
    bt_area(b->v)->context = bt_area(b->v)->context_before = NULL;
    bt_turns_forget(b, NULL);
}

struct bt_level bt_cache_used(const struct bt *b, unsigned i)
{
    if (i != b->segment)
        return b->segments[i].used;
    return (struct bt_level){ b->used,   b->used_stubs, b->nunits, b->nlinks, b->nsites,
                              b->ncalls, b->nspots,     b->nheld,  b->nfars };
}

/* What is made from now on goes into segment i, which is empty. */
static void begin_segment(struct bt *b, unsigned i)
{
    const struct bt_level *l = &b->segments[i].from;
    b->segment = i;
    b->used = l->code;
    b->used_stubs = l->stubs;
    b->nunits = l->units;
    b->nlinks = l->links;
    b->nsites = l->sites;
    b->ncalls = l->calls;
    b->nspots = l->spots;
    b->nheld = l->held;
    b->nfars = l->fars;
}

static uint32_t part(uint32_t all, unsigned i, unsigned n) { return (uint32_t)((uint64_t)all * i / n); }

static struct bt_level boundary(const struct bt *b, unsigned i)
{
    unsigned n = b->nsegments;
    uint32_t stubs_at = part((uint32_t)b->code.size, CODE_EIGHTHS, 8),
             code = part(stubs_at, i, n) & ~(uint32_t)PAGE_OFFSET_MASK,
             stubs = part((uint32_t)b->code.size - stubs_at, i, n) & ~(uint32_t)PAGE_OFFSET_MASK;
    return (struct bt_level){ code > b->gates_end ? code : b->gates_end,
                              stubs_at + stubs,
                              part(b->max_units, i, n),
                              part(b->max_links, i, n),
                              part(b->max_sites, i, n),
                              part(b->max_calls, i, n),
                              part(SPOTS, i, n),
                              part(b->max_held, i, n),
                              part(FARS, i, n) };
}

void bt_cache_divide(struct bt *b)
{
    size_t n = b->code.size / SEGMENT_MIN;
    b->nsegments = n < 1 ? 1 : n > SEGMENTS ? SEGMENTS : (unsigned)n;
    for (unsigned i = 0; i < b->nsegments; i++) {
        struct bt_segment *s = &b->segments[i];
        *s = (struct bt_segment){ .from = boundary(b, i), .to = boundary(b, i + 1) };
        s->used = s->from;
    }
    begin_segment(b, 0);
}

int bt_cache_init(struct bt *b, struct error *e)
{
    size_t size = b->cfg.code_cache ? b->cfg.code_cache : DEFAULT_CACHE;
    int err = (b->cfg.perf_map ? host_code_map_for_perf : host_code_map)(&b->code, size, e);
    if (err)
        return err;
    b->max_units = (uint32_t)(size / BYTES_PER_UNIT);
    b->max_links = (uint32_t)(size / BYTES_PER_LINK);
    b->max_sites = (uint32_t)(size / BYTES_PER_SITE);
    b->max_calls = (uint32_t)(size / BYTES_PER_CALL);
    b->max_held = (uint32_t)(size / BYTES_PER_HELD);
    b->units = host_pages_alloc(b->max_units * sizeof(*b->units));
    b->links = host_pages_alloc(b->max_links * sizeof(*b->links));
    b->sites = host_pages_alloc(b->max_sites * sizeof(*b->sites));
    b->calls = host_pages_alloc(b->max_calls * CALL_STRIDE);
    b->held = host_pages_alloc(b->max_held);
    b->jump_memory = host_pages_alloc(JUMP_MEMORY);
    b->found = host_pages_alloc(FOUND_MEMORY);
    b->scratch = host_pages_alloc(sizeof(*b->scratch));
    if (!b->units || !b->links || !b->sites || !b->calls || !b->held || !b->jump_memory || !b->found ||
        !b->scratch) {
        bt_cache_free(b);
        return error_set(e, -ENOMEM, "no memory for translated code; try a smaller --code-cache");
    }
    for (unsigned i = 0; i < CONTEXTS; i++)
        b->contexts[i].jumps = (void *)((uint8_t *)b->jump_memory + i * JUMP_TABLE);
    bt_cache_divide(b);
    return 0;
}

void bt_cache_free(struct bt *b)
{
    host_pages_free(b->units, b->max_units * sizeof(*b->units));
    host_pages_free(b->links, b->max_links * sizeof(*b->links));
    host_pages_free(b->sites, b->max_sites * sizeof(*b->sites));
    host_pages_free(b->calls, b->max_calls * CALL_STRIDE);
    host_pages_free(b->held, b->max_held);
    host_pages_free(b->jump_memory, JUMP_MEMORY);
    host_pages_free(b->found, FOUND_MEMORY);
    host_pages_free(b->scratch, sizeof(*b->scratch));
    host_code_unmap(&b->code);
}

void bt_cache_flush(struct bt *b, uint64_t *cause)
{
    host_pages_clear(b->hash, sizeof(b->hash));
    host_pages_clear(b->pages, sizeof(b->pages));
    host_pages_clear(b->found, FOUND_MEMORY);
    bt_cache_divide(b);
    clear_contexts(b);
    bt_returns_forget_all(b);
    b->n.cache_flushes++;
    ++*cause;
}

bool bt_cache_room(const struct bt *b, size_t code)
{
    const struct bt_level *to = &b->segments[b->segment].to;
    return b->used + code <= to->code && b->used_stubs + code <= to->stubs && b->nunits + 2 <= to->units &&
           b->nlinks + 4 * UNIT_INSNS <= to->links && b->nsites + 6 * UNIT_INSNS <= to->sites &&
           b->ncalls + 2 * UNIT_INSNS <= to->calls && b->nheld + HELD_MAX <= to->held;
}

void bt_cache_sites(const struct bt *b, uint32_t at, uint32_t *first, uint32_t *end)
{
    unsigned i = 0;
    while (i + 1 < b->nsegments && at >= b->segments[i].to.code)
        i++;
    *first = b->segments[i].from.sites;
    *end = bt_cache_used(b, i).sites;
}

bool bt_unit_fresh(const struct bt_unit *u)
{
    return likely(atomic_load_explicit(u->live, memory_order_acquire) == u->version) &&
           (!u->two || atomic_load_explicit(u->live2, memory_order_acquire) == u->version2);
}

/* --- lists --------------------------------------------------------------------------------------------------- */

static void add_to_page(struct bt *b, struct bt_unit *u)
{
    struct bt_unit **page = &b->pages[page_hash(u->host)];
    u->page_next = *page;
    u->listed = true;
    *page = u;
}

/* A unit with bytes on two pages is in the first one's list; another entry stands for it in the second's. */
void bt_cache_add(struct bt *b, struct bt_unit *u)
{
    uint32_t *first = &b->hash[hash_of(u->host, u->key)];
    u->hash_next = number_unit(b, *first);
    *first = unit_number(b, u);
    add_to_page(b, u);
    if (u->two) {
        struct bt_unit *tail = &b->units[b->nunits++];
        *tail = (struct bt_unit){ .host = u->host2, .tail = true, .head = u };
        add_to_page(b, tail);
    }
}

static void unhash(struct bt *b, const struct bt_unit *u)
{
    uint32_t *first = &b->hash[hash_of(u->host, u->key)];
    struct bt_unit *x = number_unit(b, *first);
    if (x == u) {
        *first = unit_number(b, u->hash_next);
        return;
    }
    while (x && x->hash_next != u)
        x = x->hash_next;
    if (x)
        x->hash_next = u->hash_next;
}

/* A context with a view may have found it, too: bt_unit_key(). */
static void forget_found(struct bt *b, const struct bt_unit *u)
{
    struct bt_found *at[] = { &b->found[bt_found_slot(u->host, u->key)],
                              &b->found[bt_found_slot(u->host, u->key | KEY_VIEW)] };
    for (unsigned i = 0; i < array_size(at); i++)
        if (at[i]->host == u->host)
            at[i]->host = NULL;
}

void bt_cache_forget_found(struct bt *b, const uint8_t *host)
{
    struct bt_found *first = &b->found[bt_page_slot(host) << FOUND_PAGE_BITS];
    memset(first, 0, sizeof(*first) << FOUND_PAGE_BITS);
}

/* Takes *at out of its page's list, and what it stands for out of the hash. */
static struct bt_unit *take_out(struct bt *b, struct bt_unit **at)
{
    struct bt_unit *entry = *at, *u = entry->tail ? entry->head : entry;
    *at = entry->page_next;
    entry->listed = false;
    unhash(b, u);
    forget_found(b, u);
    return u;
}

/* --- the writable view ------------------------------------------------------------------------------------------ */

/* What was written is mostly never written again, and its pages in this view are a second count of the same memory. */
static void settle(struct bt *b, uint32_t from)
{
    if (b->wrote < from)
        return;
    host_code_settle(&b->code, 0, b->code.size);
    b->wrote = 0;
}

static void make_ready(struct bt *b, uint32_t used, uint32_t *ready)
{
    if (used <= *ready)
        return;
    *ready = used & ~(uint32_t)PAGE_OFFSET_MASK;
    host_code_prepare(&b->code, *ready, AHEAD);
    *ready += AHEAD;
}

void bt_cache_wrote(struct bt *b, uint32_t bytes)
{
    make_ready(b, b->used, &b->ready);
    make_ready(b, b->used_stubs, &b->ready_stubs);
    b->wrote += bytes;
    settle(b, SETTLE);
}

void bt_cache_idle(struct bt *b) { settle(b, SETTLE_IDLE); }

/* A few bytes that may lie anywhere. */
static void wrote_one(struct bt *b) { bt_cache_wrote(b, PAGE_SIZE / 4); }

/* --- code that others may jump to ------------------------------------------------------------------------------- */

/* Changes what was emitted at this offset. */
static struct emitter anew(const struct bt *b, uint32_t at)
{
    return bt_emitter(b, at, (uint32_t)b->code.size);
}

static void seal(struct bt *b, struct bt_unit *u)
{
    struct emitter e = anew(b, u->entry_jump);
    emit_mov_imm32(&e, T1, EXIT_INFO(BT_STALE, 0, 0));
    emit_jmp(&e, bt_exec_addr(b, b->gate_exit_s));
    u->sealed = true;
    forget_found(b, u);
    wrote_one(b);
}

/* --- links ------------------------------------------------------------------------------------------------------- */

static uint32_t *far_head(struct bt *b, const struct bt_link *l) { return &b->units[l->to].far_first; }

/* Into the list of those to l->to. */
static void far_enter(struct bt *b, struct bt_link *l)
{
    uint32_t *head = far_head(b, l), n = (uint32_t)(l - b->links) + 1;
    l->far_before = 0;
    l->far_next = *head;
    if (*head)
        b->links[*head - 1].far_before = n;
    *head = n;
}

static void far_leave(struct bt *b, const struct bt_link *l)
{
    if (l->far_next)
        b->links[l->far_next - 1].far_before = l->far_before;
    if (l->far_before)
        b->links[l->far_before - 1].far_next = l->far_next;
    else
        *far_head(b, l) = l->far_next;
}

static void unlink_one(struct bt *b, struct bt_link *l)
{
    struct emitter e = anew(b, l->field);
    l->linked = false;
    if (l->far) {
        bt_area(b->v)->fars[l->slot].guard = FAR_UNLINKED;
        far_leave(b, l);
        return;
    }
    emit_patch(&e, b->code.write + l->field, bt_exec_addr(b, l->stub));
    wrote_one(b);
}

/* Links of unit u to units [from, to). */
static void unlink_some(struct bt *b, const struct bt_unit *u, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0; i < u->links; i++) {
        struct bt_link *l = &b->links[u->first_link + i];
        if (l->linked && l->to >= from && l->to < to)
            unlink_one(b, l);
    }
}

/* Links to units [from, to), as far as those are in one list with these bytes. */
static void unlink_page(struct bt *b, const uint8_t *host, uint32_t from, uint32_t to)
{
    for (struct bt_unit *u = b->pages[page_hash(host)]; u; u = u->page_next)
        if (!u->tail)
            unlink_some(b, u, from, to);
}

void bt_cache_unlink_from(struct bt *b, const struct bt_unit *u) { unlink_some(b, u, 0, UINT32_MAX); }

static bool is_version(const struct bt_unit *x, const struct bt_unit *u)
{
    return x->host == u->host && x->key == u->key && x->window.low == u->window.low &&
           x->window.high == u->window.high;
}

void bt_cache_unlink_to(struct bt *b, const struct bt_unit *to)
{
    for (struct bt_unit *u = b->pages[page_hash(to->host)]; u; u = u->page_next)
        for (uint32_t i = 0; i < u->links && !u->tail; i++) {
            struct bt_link *l = &b->links[u->first_link + i];
            if (l->linked && is_version(&b->units[l->to], to))
                unlink_one(b, l);
        }
}

void bt_cache_link(struct bt *b, struct bt_link *l, const struct bt_unit *to)
{
    struct emitter e = anew(b, l->field);
    if (unlikely(!bt_verify_link(b, l, to))) {
        b->v->internal_error = "a jump in translated code was to be linked to what it may not reach";
        return;
    }
    emit_patch(&e, b->code.write + l->field, bt_exec_addr(b, l->state_s ? to->entry_s : to->entry_e));
    l->linked = true;
    wrote_one(b);
    l->to = (uint32_t)(to - b->units);
    b->n.links_made++;
}

void bt_cache_link_far(struct bt *b, struct bt_link *l, const struct bt_unit *to, uint64_t page)
{
    struct bt_area *a = bt_area(b->v);
    if (unlikely(!bt_verify_far_link(b, l, to))) {
        b->v->internal_error = "a jump in translated code was to be linked to a page that it may not reach";
        return;
    }
    if (l->linked)
        far_leave(b, l);
    a->fars[l->slot] = (struct bt_far){ page + a->context_id, bt_exec(b, to->entry_jump) };
    l->linked = true;
    l->to = (uint32_t)(to - b->units);
    far_enter(b, l);
    b->n.far_links++;
}

/* Far links to this unit. */
static void unlink_far_to(struct bt *b, const struct bt_unit *u)
{
    while (u->far_first)
        unlink_one(b, &b->links[u->far_first - 1]);
}

/* Those of segment i. */
static void unlink_far_in(struct bt *b, unsigned i)
{
    for (uint32_t n = b->segments[i].from.links; n < bt_cache_used(b, i).links; n++)
        if (b->links[n].far && b->links[n].linked)
            unlink_one(b, &b->links[n]);
}

void bt_cache_unlink_far(struct bt *b)
{
    for (unsigned i = 0; i < b->nsegments; i++)
        unlink_far_in(b, i);
}

/* --- dropping ------------------------------------------------------------------------------------------------- */

static void drop(struct bt *b, struct bt_unit **at)
{
    struct bt_unit *u = take_out(b, at);
    unlink_far_to(b, u);
    seal(b, u);
    b->n.units_dropped++;
}

/* Links to dropped units are undone once for all of the page. */
static void drop_some(struct bt *b, const uint8_t *host,
                      bool (*which)(const struct bt_unit *u, const uint8_t *host))
{
    struct bt_unit **at = &b->pages[page_hash(host)];
    while (*at) {
        struct bt_unit *u = *at;
        if (!same_page(u->host, host) || !which(u, host)) {
            at = &u->page_next;
            continue;
        }
        uint32_t index = (uint32_t)(u - b->units);
        drop(b, at);
        unlink_page(b, host, index, index + 1);
    }
}

static bool holds(const struct bt_unit *u, const uint8_t *code)
{
    return !u->tail && code >= u->host && code < u->host + (u->guest_bytes ? u->guest_bytes : 1);
}

void bt_cache_drop_code(struct bt *b, const uint8_t *code) { drop_some(b, code, holds); }

static bool is_it(const struct bt_unit *u, const uint8_t *host) { return !u->tail && u->host == host; }

/* --- a page was written --------------------------------------------------------------------------------------------- */

/* All of a page's units go, or are sealed where they may be kept: not those with bytes on two pages, whose links and lists are few. */
static void leave_page(struct bt *b, const uint8_t *host, bool keep)
{
    struct bt_unit **at = &b->pages[page_hash(host)];
    while (*at) {
        struct bt_unit *u = *at;
        if (!same_page(u->host, host)) {
            at = &u->page_next;
            continue;
        }
        if (!u->tail)
            bt_cache_unlink_from(b, u);
        if (!keep || u->tail || !u->held_bytes) {
            drop(b, at);
            continue;
        }
        if (!u->sealed) {
            seal(b, u);
            b->n.units_sealed++;
        }
        at = &u->page_next;
    }
}

void bt_cache_seal_page(struct bt *b, const uint8_t *host) { leave_page(b, host, true); }
void bt_cache_drop_page(struct bt *b, const uint8_t *host) { leave_page(b, host, false); }

/* Its bytes are what they were: it is found again. */
static bool unseal(struct bt *b, struct bt_unit *u)
{
    u->version = pmap_claim_code(b->v->pmap, GPA(u->addr), u->held_bytes);
    if (memcmp(u->host, b->held + u->held, u->held_bytes) != 0)
        return false;
    struct emitter e = anew(b, u->entry_jump);
    bt_entry_emit(&e);
    u->sealed = false;
    wrote_one(b);
    b->n.units_unsealed++;
    return true;
}

static bool is_for(const struct bt_unit *u, const uint8_t *host, uint32_t key, struct bt_window window)
{
    return u->host == host && u->key == key && u->window.low == window.low && u->window.high == window.high &&
           !u->relies;
}

struct bt_unit *bt_cache_peek(const struct bt *b, const uint8_t *host, uint32_t key, struct bt_window window)
{
    struct bt_unit *u = bucket(b, host, key);
    while (u && !is_for(u, host, key, window))
        u = u->hash_next;
    return u && !u->sealed && bt_unit_fresh(u) ? u : NULL;
}

const void *bt_cache_entry(struct bt *b, const uint8_t *host, uint32_t kind, struct bt_window window)
{
    uint32_t asked = bt_area(b->v)->context->key | kind;
    struct bt_found *f = &b->found[bt_found_slot(host, asked)];
    if (f->host == host && f->key == asked)
        return bt_exec(b, f->entry_jump);
    const struct bt_unit *u = bt_cache_peek(b, host, bt_unit_key(b, host) | kind, window);
    if (!u || u->crossing || (!u->insns && kind))
        return NULL;
    if (asked & KEY_FLAT_CS)
        *f = (struct bt_found){ host, asked, u->entry_jump };
    return bt_exec(b, u->entry_jump);
}

/* It is sealed, or its page was written and this processor was not told yet. */
static bool revived(struct bt *b, struct bt_unit *u)
{
    const uint8_t *host = u->host;
    if (!u->sealed)
        bt_cache_seal_page(b, host);
    if (u->listed && unseal(b, u))
        return true;
    drop_some(b, host, is_it);
    bt_adapt_rewritten(b, host);
    return false;
}

struct bt_unit *bt_cache_find(struct bt *b, const uint8_t *host, uint32_t key, struct bt_window window)
{
    for (struct bt_unit *u = bucket(b, host, key); u; u = u->hash_next)
        if (is_for(u, host, key, window)) {
            if (likely(!u->sealed && bt_unit_fresh(u)))
                return u;
            return revived(b, u) ? u : NULL;
        }
    return NULL;
}

struct bt_unit *bt_cache_find_version(struct bt *b, struct bt_unit *u, const struct facts *facts, bool *room)
{
    struct bt_unit *best = u;
    unsigned n = 0;
    for (struct bt_unit *x = bucket(b, u->host, u->key); x; x = x->hash_next) {
        if (!is_version(x, u))
            continue;
        n++;
        if (facts_within(&x->facts, facts) && facts_count(&x->facts) > facts_count(&best->facts) &&
            (!x->sealed || unseal(b, x)) && bt_unit_fresh(x))
            best = x;
    }
    *room = n < VERSIONS && facts_count(&best->facts) < facts_count(facts);
    return best;
}

struct bt_unit *bt_cache_find_crossing(struct bt *b, const uint8_t *host, const uint8_t *host2, uint32_t key)
{
    key |= (uint32_t)KEY_CROSSING;
    for (struct bt_unit *u = bucket(b, host, key); u; u = u->hash_next)
        if (u->host == host && u->key == key && u->host2 == host2) {
            if (bt_unit_fresh(u))
                return u;
            bt_cache_seal_page(b, host);
            bt_cache_seal_page(b, host2);
            bt_adapt_rewritten(b, host);
            return NULL;
        }
    return NULL;
}

/* --- room ---------------------------------------------------------------------------------------------------------- */

/* The list of the page of `host` without units [from, to). */
static void evict_page(struct bt *b, const uint8_t *host, uint32_t from, uint32_t to)
{
    struct bt_unit **at = &b->pages[page_hash(host)];
    while (*at) {
        uint32_t index = (uint32_t)(*at - b->units);
        if (index >= from && index < to)
            take_out(b, at);
        else
            at = &(*at)->page_next;
    }
    unlink_page(b, host, from, to);
}

static void forget_jumps(struct bt *b, const uint8_t *from, const uint8_t *to)
{
    for (const struct bt_context *x = b->contexts; x < b->contexts + CONTEXTS; x++)
        for (unsigned i = 0; x->used && i < 1u << jump_bits(x->key); i++) {
            const uint8_t *code = jump_used(x->jumps)[i / JUMP_SET] ? x->jumps[i].code : NULL;
            if (code >= from && code < to)
                x->jumps[i] = (struct bt_jump){ .lin = jump_none(i) };
        }
}

static void evict(struct bt *b, const struct bt_segment *s)
{
    unlink_far_in(b, (unsigned)(s - b->segments));
    for (uint32_t i = s->from.units; i < s->used.units; i++)
        unlink_far_to(b, &b->units[i]);
    for (uint32_t i = s->from.units; i < s->used.units; i++)
        if (b->units[i].listed)
            evict_page(b, b->units[i].host, s->from.units, s->used.units);
    forget_jumps(b, b->code.exec + s->from.code, b->code.exec + s->to.code);
    bt_returns_forget_all(b);
    b->n.evictions++;
}

void bt_cache_make_room(struct bt *b)
{
    if (b->nsegments == 1) {
        bt_cache_flush(b, &b->n.flushes_full);
        bt_context_now(b);
        return;
    }
    unsigned next = (b->segment + 1) % b->nsegments;
    const struct bt_segment *s = &b->segments[next];
    b->segments[b->segment].used = bt_cache_used(b, b->segment);
    if (s->used.units > s->from.units)
        evict(b, s);
    begin_segment(b, next);
}
