/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where units live: found by host address and key, taken out by page, forgotten all at once when the cache is full.
 *
 * A unit that was taken out stays where it is until then: jump tables may still hold its address, so its entries are
 * overwritten with a jump to an exit.
 */
#include "engine/bt/unit.h"
#include "engine/bt/verify.h"

#include <errno.h>
#include <stdlib.h>

#include "host/memory.h"

#define DEFAULT_CACHE (32u << 20)
#define BYTES_PER_UNIT 256u
#define BYTES_PER_LINK 96u
#define BYTES_PER_SITE 512u
#define BYTES_PER_CALL 512u
#define JUMP_MEMORY (CONTEXTS * JUMPS_MAX * sizeof(struct bt_jump))

static unsigned hash_of(const uint8_t *host, uint32_t key)
{
    return (unsigned)(((uint64_t)(uintptr_t)host ^ (uint64_t)key << 36) * 0x9e3779b97f4a7c15ull >>
                      (64 - HASH_BITS));
}

static unsigned page_hash(const uint8_t *host)
{
    return (unsigned)(((uint64_t)(uintptr_t)host >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> (64 - HASH_BITS));
}

static bool same_page(const uint8_t *a, const uint8_t *b)
{
    return (uintptr_t)a >> PAGE_SHIFT == (uintptr_t)b >> PAGE_SHIFT;
}

static void clear_contexts(struct bt *b)
{
    for (unsigned i = 0; i < CONTEXTS; i++)
        b->contexts[i].used = false;
    b->context = b->context_before = NULL;
}

int bt_cache_init(struct bt *b, struct error *e)
{
    size_t size = b->cfg.code_cache ? b->cfg.code_cache : DEFAULT_CACHE;
    int err = host_code_map(&b->code, size, e);
    if (err)
        return err;
    b->max_units = (uint32_t)(size / BYTES_PER_UNIT);
    b->max_links = (uint32_t)(size / BYTES_PER_LINK);
    b->max_sites = (uint32_t)(size / BYTES_PER_SITE);
    b->max_calls = (uint32_t)(size / BYTES_PER_CALL);
    b->units = host_pages_alloc(b->max_units * sizeof(*b->units));
    b->links = host_pages_alloc(b->max_links * sizeof(*b->links));
    b->sites = host_pages_alloc(b->max_sites * sizeof(*b->sites));
    b->calls = host_pages_alloc(b->max_calls * CALL_STRIDE);
    b->jump_memory = host_pages_alloc(JUMP_MEMORY);
    b->scratch = host_pages_alloc(sizeof(*b->scratch));
    if (!b->units || !b->links || !b->sites || !b->calls || !b->jump_memory || !b->scratch) {
        bt_cache_free(b);
        return error_set(e, -ENOMEM, "no memory for translated code; try a smaller --code-cache");
    }
    for (unsigned i = 0; i < CONTEXTS; i++)
        b->contexts[i].jumps = b->jump_memory + i * JUMPS_MAX;
    return 0;
}

void bt_cache_free(struct bt *b)
{
    host_pages_free(b->units, b->max_units * sizeof(*b->units));
    host_pages_free(b->links, b->max_links * sizeof(*b->links));
    host_pages_free(b->sites, b->max_sites * sizeof(*b->sites));
    host_pages_free(b->calls, b->max_calls * CALL_STRIDE);
    host_pages_free(b->jump_memory, JUMP_MEMORY);
    host_pages_free(b->scratch, sizeof(*b->scratch));
    host_code_unmap(&b->code);
}

void bt_cache_flush(struct bt *b)
{
    memset(b->hash, 0, sizeof(b->hash));
    memset(b->pages, 0, sizeof(b->pages));
    b->nunits = b->nlinks = b->nsites = b->nspots = b->ncalls = 0;
    b->used = b->gates_end;
    clear_contexts(b);
    b->n.cache_flushes++;
}

bool bt_cache_room(const struct bt *b, size_t code)
{
    return b->used + code <= b->code.size && b->nunits + 2 <= b->max_units &&
           b->nlinks + 4 * UNIT_INSNS <= b->max_links && b->nsites + 2 * UNIT_INSNS <= b->max_sites &&
           b->ncalls + 2 * UNIT_INSNS <= b->max_calls;
}

bool bt_unit_fresh(const struct bt_unit *u)
{
    return likely(atomic_load_explicit(u->live, memory_order_acquire) == u->version) &&
           (!u->live2 || atomic_load_explicit(u->live2, memory_order_acquire) == u->version2);
}

struct bt_unit *bt_cache_find(struct bt *b, const uint8_t *host, uint32_t key, struct bt_window window)
{
    for (struct bt_unit *u = b->hash[hash_of(host, key)]; u; u = u->hash_next)
        if (u->host == host && u->key == key && u->window.low == window.low &&
            u->window.high == window.high) {
            if (bt_unit_fresh(u))
                return u;
            bt_cache_drop_page(b, host);
            return NULL;
        }
    return NULL;
}

struct bt_unit *bt_cache_find_crossing(struct bt *b, const uint8_t *host, const uint8_t *host2, uint32_t key)
{
    key |= (uint32_t)KEY_CROSSING;
    for (struct bt_unit *u = b->hash[hash_of(host, key)]; u; u = u->hash_next)
        if (u->host == host && u->key == key && u->host2 == host2) {
            if (bt_unit_fresh(u))
                return u;
            bt_cache_drop_page(b, host);
            bt_cache_drop_page(b, host2);
            return NULL;
        }
    return NULL;
}

static void add_to_page(struct bt *b, struct bt_unit *u)
{
    struct bt_unit **page = &b->pages[page_hash(u->host)];
    u->page_next = *page;
    *page = u;
}

/* A unit with bytes on two pages is in the first one's list; another entry stands for it in the second's. */
void bt_cache_add(struct bt *b, struct bt_unit *u)
{
    struct bt_unit **at = &b->hash[hash_of(u->host, u->key)];
    u->hash_next = *at;
    *at = u;
    add_to_page(b, u);
    if (u->live2) {
        struct bt_unit *tail = &b->units[b->nunits++];
        *tail = (struct bt_unit){ .host = u->host2, .head = u };
        add_to_page(b, tail);
    }
}

static void unhash(struct bt *b, const struct bt_unit *u)
{
    struct bt_unit **at = &b->hash[hash_of(u->host, u->key)];
    while (*at && *at != u)
        at = &(*at)->hash_next;
    if (*at)
        *at = u->hash_next;
}

/* Only by a jump table can a unit be entered now: links come from its own page, which goes as a whole. */
static void seal(struct bt *b, const struct bt_unit *u)
{
    struct emitter e = bt_emitter(b);
    e.at = b->code.write + u->entry_jump;
    emit_mov_imm32(&e, T1, EXIT_INFO(BT_STALE, 0, 0));
    emit_jmp(&e, bt_exec_addr(b, b->gate_exit_s));
    b->n.units_dropped++;
}

void bt_cache_drop_page(struct bt *b, const uint8_t *host)
{
    struct bt_unit **at = &b->pages[page_hash(host)];
    while (*at) {
        struct bt_unit *u = *at;
        if (!same_page(u->host, host)) {
            at = &u->page_next;
            continue;
        }
        *at = u->page_next;
        unhash(b, u->head ? u->head : u);
        seal(b, u->head ? u->head : u);
    }
}

static void unlink_one(struct bt *b, struct bt_link *l)
{
    struct emitter e = bt_emitter(b);
    emit_patch(&e, b->code.write + l->field, bt_exec_addr(b, l->stub));
    l->linked = false;
}

/* Nobody on its page jumps to unit `to` any more. */
static void unlink_all_to(struct bt *b, const struct bt_unit *to)
{
    uint32_t index = (uint32_t)(to - b->units);
    for (struct bt_unit *u = b->pages[page_hash(to->host)]; u; u = u->page_next)
        for (uint32_t i = 0; i < u->links; i++) {
            struct bt_link *l = &b->links[u->first_link + i];
            if (l->linked && l->to == index)
                unlink_one(b, l);
        }
}

static bool holds(const struct bt_unit *u, const uint8_t *code)
{
    return code >= u->host && code < u->host + (u->guest_bytes ? u->guest_bytes : 1);
}

void bt_cache_drop_code(struct bt *b, const uint8_t *code)
{
    struct bt_unit **at = &b->pages[page_hash(code)];
    while (*at) {
        struct bt_unit *u = *at;
        if (u->head || !holds(u, code)) {
            at = &u->page_next;
            continue;
        }
        *at = u->page_next;
        unhash(b, u);
        seal(b, u);
        unlink_all_to(b, u);
    }
}

void bt_cache_link(struct bt *b, struct bt_link *l, const struct bt_unit *to)
{
    struct emitter e = bt_emitter(b);
    if (unlikely(!bt_verify_link(b, l, to))) {
        b->v->internal_error = "a jump in translated code was to be linked to what it may not reach";
        return;
    }
    emit_patch(&e, b->code.write + l->field, bt_exec_addr(b, l->state_s ? to->entry_s : to->entry_e));
    l->linked = true;
    l->to = (uint32_t)(to - b->units);
    b->n.links_made++;
}
