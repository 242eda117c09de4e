/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks are keyed by the host address of their first byte (so by physical page: every mapping of a page
 * shares them) and by mode.
 *
 *   CS:rip ──lookup cache (linear address, address space, mode)──► block
 *            └─ miss: translate ──► host address ──hash──► block, refreshed if the page changed elsewhere
 *                                                  └─ miss: claim the bytes as code, decode, lower
 *
 * Memory is an arena of fixed size: when it is full everything is forgotten at once.
 */
#include "engine/interp/block.h"

#include "base/error.h"
#include "cpu/model.h"
#include "engine/interp/lane.h"
#include "engine/interp/operand.h"
#include "engine/interp/run.h"
#include "engine/interp/wide.h"
#include "host/memory.h"

#include <errno.h>

#define HASH_BUCKETS (1u << 15)
#define INSN_MAX 15u
#define OPS_SIZE(n) (sizeof(struct block) + (n) * sizeof(struct op))
#define BLOCK_SIZE_MAX (OPS_SIZE(BLOCK_OPS_MAX + 1) + BLOCK_OPS_MAX * INSN_MAX + 16)
#define CODE_LINE 64u /* granule of the pmap's code map */

/* The block made of bytes that are no memory is built at the arena's start each time and kept nowhere. */
#define SCRATCH_SIZE ((BLOCK_SIZE_MAX + 63) & ~63ul)

static const _Atomic uint32_t constant_version;

int block_cache_init(struct interp *c, size_t arena, struct error *e)
{
    c->arena_size = arena;
    c->arena = host_pages_alloc(c->arena_size);
    c->hash = host_pages_alloc(HASH_BUCKETS * sizeof(*c->hash));
    if (!c->arena || !c->hash) {
        block_cache_free(c);
        return error_set(e, -ENOMEM, "no memory for the interpreter's decoded code");
    }
    block_cache_flush(c);
    return 0;
}

void block_cache_free(struct interp *c)
{
    if (c->arena)
        host_pages_free(c->arena, c->arena_size);
    if (c->hash)
        host_pages_free(c->hash, HASH_BUCKETS * sizeof(*c->hash));
    wide_stubs_free(c->stubs);
    lanes_free(c->lanes);
    c->arena = NULL;
    c->hash = NULL;
    c->stubs = NULL;
    c->lanes = NULL;
}

void block_cache_flush(struct interp *c)
{
    host_pages_clear(c->hash, HASH_BUCKETS * sizeof(*c->hash));
    memset(c->lookup, 0, sizeof(c->lookup));
    for (unsigned i = 0; i < LOOKUP_ENTRIES; i++)
        c->lookup[i].context = ~0ull; /* no mode key has all bits */
    c->arena_used = SCRATCH_SIZE;
    c->link_from = NULL; /* c->block may still be running: it stays as it is until the next block is made */
}

/* --- fetching ------------------------------------------------------------------------------------------- */

/* One page as code is fetched from it. */
struct fetched {
    const uint8_t *host; /* of the byte asked for; NULL: no memory there, reads as all ones */
    struct page *page;
    gpa addr;
};

static struct fetched fetch_page(struct vcpu *v, uint64_t lin)
{
    struct mmu_result r = mmu_translate(&v->mmu, GVA(lin), ACCESS_FETCH, v->mmu.index);
    if (unlikely(r.fault == MMU_FAULT_PAGE))
        cpu_raise_page_fault(v, lin, r.error_code);
    if (unlikely(r.fault))
        cpu_raise_gp0(v);
    if (!r.page || !r.page->host)
        return (struct fetched){ .addr = r.addr };
    return (struct fetched){ .host = r.page->host + (r.addr.v & PAGE_OFFSET_MASK),
                             .page = r.page,
                             .addr = r.addr };
}

const uint8_t *interp_fetch(struct vcpu *v, uint64_t lin, struct page **page, gpa *addr)
{
    struct fetched f = fetch_page(v, lin);
    *page = f.page;
    *addr = f.addr;
    return f.host;
}

const uint8_t *interp_fetch_host(struct vcpu *v, uint64_t lin)
{
    const uint8_t *host = tlb_find_code(&v->mmu, lin);
    return host ? host : fetch_page(v, lin).host;
}

static uint64_t next_page(const struct vcpu *v, uint64_t lin)
{
    return ((lin | PAGE_OFFSET_MASK) + 1) & v->lin_mask;
}

/* --- finding -------------------------------------------------------------------------------------------- */

static struct block **bucket(struct interp *c, const uint8_t *host, uint32_t mode)
{
    uint64_t h = ((uint64_t)(uintptr_t)host ^ (uint64_t)mode << 20) * 0x9e3779b97f4a7c15ull;
    return &c->hash[h >> (64 - 15)];
}

static uint8_t *saved_bytes(struct block *b) { return (uint8_t *)&b->ops[b->count + 1]; }

/* Bytes of the block that are on its first page. */
static unsigned first_part(const struct block *b)
{
    unsigned room = PAGE_SIZE - ((uintptr_t)b->host & PAGE_OFFSET_MASK);
    return b->bytes < room ? b->bytes : room;
}

/* The same for what an instruction has on the second page; host2 is NULL where that page is no memory. */
static bool refresh_second(struct vcpu *v, struct block *b, uint64_t lin, unsigned part)
{
    struct fetched f = fetch_page(v, next_page(v, lin));
    if (f.host != b->host2)
        return false;
    if (!f.host)
        return true;
    b->version2 = pmap_claim_code(v->pmap, f.addr, b->bytes - part);
    return !memcmp(f.host, saved_bytes(b) + part, b->bytes - part);
}

/* The page changed: claims the bytes again and compares. Code that shares a page with changing data is not
 * decoded anew each time. */
static bool refresh(struct vcpu *v, struct block *b, uint64_t lin)
{
    unsigned part = first_part(b);
    struct fetched f = fetch_page(v, lin);
    if (!f.host || f.host != b->host)
        return false;
    uint32_t version = pmap_claim_code(v->pmap, f.addr, part);
    if (memcmp(b->host, saved_bytes(b), part))
        return false;
    if (b->live2 && !refresh_second(v, b, lin, part))
        return false;
    b->version = version;
    b->to[0] = b->to[1] = NULL;
    return true;
}

static void forget(struct interp *c, struct block *b)
{
    struct block **at = bucket(c, b->host, b->mode);
    while (*at && *at != b)
        at = &(*at)->hash_next;
    if (*at)
        *at = b->hash_next;
}

/* The second page is looked up each time, since who maps the first page may map another one after it. */
static struct block *find_decoded(struct vcpu *v, const uint8_t *host, uint64_t lin, uint32_t mode)
{
    struct interp *c = interp_of(v);
    for (struct block *b = *bucket(c, host, mode); b; b = b->hash_next) {
        if (b->host != host || b->mode != mode)
            continue;
        if (b->live2 && interp_fetch_host(v, next_page(v, lin)) != b->host2)
            continue;
        if (likely(block_fresh(b)) || refresh(v, b, lin))
            return b;
        v->counters.invalidations++;
        forget(c, b);
        return NULL;
    }
    return NULL;
}

/* --- decoding ------------------------------------------------------------------------------------------- */

struct builder {
    struct vcpu *v;
    struct block *block;
    uint64_t lin;
    uint32_t mode;
    unsigned claimed; /* bytes of the page, from its start, known to be claimed */
    unsigned max_ops;
};

static struct block *arena_begin(struct interp *c)
{
    if (c->arena_used + BLOCK_SIZE_MAX > c->arena_size)
        block_cache_flush(c);
    return (struct block *)(void *)(c->arena + c->arena_used);
}

static void arena_commit(struct interp *c, struct block *b)
{
    size_t size = OPS_SIZE(b->count + 1u) + b->bytes;
    c->arena_used += (size + 63) & ~63ul;
    struct block **at = bucket(c, b->host, b->mode);
    b->hash_next = *at;
    *at = b;
}

/* Bytes that CS's limit leaves from rip on; the fetch of more raises #GP(0). */
static unsigned within_limit(const struct vcpu *v, uint64_t rip)
{
    if (vcpu_long64(v))
        return INSN_MAX;
    uint32_t limit = v->s.seg[SEG_CS].limit;
    if (rip > limit)
        return 0;
    return limit - rip >= INSN_MAX ? INSN_MAX : (unsigned)(limit - rip) + 1;
}

static bool ends_block(const struct insn *in)
{
    if (in->row->flags & IF_STR)
        return in->prefixes & (IP_REP | IP_REPNE) || in->id == INSN_INS || in->id == INSN_OUTS;
    return in->row->flags & IF_END || in->id == INSN_IN || in->id == INSN_OUT || in->id == INSN_VMCALL ||
           in->id == INSN_VMMCALL;
}

/* Appends one instruction's op; true when the block goes on behind it. */
static bool append(struct builder *b, const struct insn *in)
{
    struct block *blk = b->block;
    struct op *op = &blk->ops[blk->count];
    unsigned off = blk->bytes + in->len;
    if (!lower(op, in, off, b->mode)) {
        uint64_t bytes = 0;
        memcpy(&bytes, &in->opcode, 1);
        lower_undefined(op, bytes | (uint64_t)in->row->map << 8, blk->bytes, false);
    }
    if (op_links(op))
        op->aux = blk;
    if (blk->count && op->id == INSN_JCC && (b->mode & MODE_CODE_MASK) == MODE_CODE64)
        fuse(op - 1, op);
    blk->count++;
    blk->bytes = (uint16_t)off;
    return !ends_block(in) && blk->count < b->max_ops;
}

/* An op that raises #UD or #GP for bytes that are no instruction. All that were looked at belong to the
 * block: it is made anew when one of them changes. */
static void append_undefined(struct builder *b, const uint8_t *bytes, unsigned avail, bool too_long)
{
    uint64_t raw = 0;
    memcpy(&raw, bytes, avail < 8 ? avail : 8);
    struct op *op = &b->block->ops[b->block->count];
    lower_undefined(op, raw, b->block->bytes, too_long);
    b->block->count++;
    b->block->bytes = (uint16_t)(b->block->bytes + avail);
}

static void finish(struct builder *b)
{
    struct block *blk = b->block;
    struct op *end = &blk->ops[blk->count];
    lower_block_end(end, blk->bytes, b->mode);
    end->aux = blk;
    memcpy(saved_bytes(blk), blk->host, first_part(blk));
}

/* Decodes into the block as many instructions as the page, the limits and the count allow; false: not even
 * one fits the page. */
static bool decode_page(struct builder *b, const struct fetched *f)
{
    struct vcpu *v = b->v;
    struct block *blk = b->block;
    unsigned start = f->addr.v & PAGE_OFFSET_MASK, code_bytes = mode_code_bytes(b->mode);
    uint64_t features = cpu_features(v);
    for (bool more = true; more;) {
        unsigned at = start + blk->bytes, left = PAGE_SIZE - at, avail = left < INSN_MAX ? left : INSN_MAX;
        unsigned limit = within_limit(v, v->s.rip + blk->bytes);
        struct insn in;
        if (avail == 0 || (limit == 0 && blk->count))
            break;
        if (limit == 0)
            cpu_raise_gp0(v);
        unsigned end = at + avail;
        if (end > b->claimed) {
            unsigned upto = (end + CODE_LINE - 1) & ~(CODE_LINE - 1);
            uint32_t version = pmap_claim_code(v->pmap, GPA(f->addr.v + blk->bytes), upto - at);
            if (!b->claimed)
                blk->version = version;
            b->claimed = upto;
        }
        const uint8_t *bytes = f->host + blk->bytes;
        unsigned allowed = avail < limit ? avail : limit;
        enum decode_status st = insn_decode_for(&in, bytes, limit < INSN_MAX ? allowed : left, code_bytes,
                                                features);
        if (st == DECODE_MORE) {
            if (blk->count)
                break;
            if (limit <= avail && limit < INSN_MAX)
                cpu_raise_gp0(v);
            return false;
        }
        if (st == DECODE_OK) {
            more = append(b, &in);
        } else {
            append_undefined(b, bytes, allowed, st == DECODE_TOO_LONG);
            more = false;
        }
    }
    return true;
}

/* The one instruction that begins on this page and ends on the next. */
static void decode_crossing(struct builder *b, const struct fetched *f)
{
    struct vcpu *v = b->v;
    struct block *blk = b->block;
    uint8_t bytes[INSN_MAX];
    unsigned part = PAGE_SIZE - (f->addr.v & PAGE_OFFSET_MASK), limit = within_limit(v, v->s.rip);
    struct fetched second = fetch_page(v, next_page(v, b->lin));
    memset(bytes, 0xff, sizeof(bytes));
    memcpy(bytes, f->host, part);
    blk->live2 = &constant_version;
    if (second.page) {
        blk->live2 = &second.page->code_version;
        blk->version2 = pmap_claim_code(v->pmap, second.addr, INSN_MAX - part);
        blk->host2 = second.host;
        memcpy(bytes + part, second.host, INSN_MAX - part);
    }
    struct insn in;
    enum decode_status st = insn_decode_for(&in, bytes, limit, mode_code_bytes(b->mode), cpu_features(v));
    if (st == DECODE_MORE)
        cpu_raise_gp0(v);
    b->max_ops = 1;
    if (st == DECODE_OK)
        append(b, &in);
    else
        append_undefined(b, bytes, limit, st == DECODE_TOO_LONG);
    finish(b);
    if (blk->bytes > part)
        memcpy(saved_bytes(blk) + part, bytes + part, blk->bytes - part);
}

/* Where there is no memory all bytes read as ones: an undefined instruction. */
static struct block *build_from_nothing(struct vcpu *v, uint32_t mode)
{
    static const uint8_t ones[8] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    struct builder b = { .v = v, .block = (struct block *)(void *)interp_of(v)->arena, .mode = mode };
    *b.block = (struct block){ .live = &constant_version, .host = ones, .mode = mode };
    append_undefined(&b, ones, sizeof(ones), false);
    finish(&b);
    return b.block;
}

static struct block *build(struct vcpu *v, uint64_t lin, uint32_t mode)
{
    struct interp *c = interp_of(v);
    struct fetched f = fetch_page(v, lin);
    if (!f.page)
        return build_from_nothing(v, mode);
    struct builder b = { .v = v, .block = arena_begin(c), .lin = lin, .mode = mode };
    b.max_ops = mode & MODE_STEP ? 1 : BLOCK_OPS_MAX;
    *b.block = (struct block){
        .live = &f.page->code_version,
        .host = f.host,
        .runs = *block_heat(c, f.host),
        .mode = mode,
    };
    if (decode_page(&b, &f))
        finish(&b);
    else
        decode_crossing(&b, &f);
    arena_commit(c, b.block);
    v->counters.translations++;
    return b.block;
}

struct block *block_find(struct vcpu *v, uint32_t mode)
{
    struct interp *c = interp_of(v);
    uint64_t lin = fetch_linear(v);
    if (vcpu_long64(v) ? !is_canonical48(v->s.rip) : v->s.rip > v->s.seg[SEG_CS].limit)
        cpu_raise_gp0(v);
    const uint8_t *host = interp_fetch_host(v, lin);
    struct block *b = host ? find_decoded(v, host, lin, mode) : NULL;
    if (!b)
        b = build(v, lin, mode);
    if (host && mode == v->mode)
        *lookup_slot(c, lin) = (struct lookup_entry){ lin, lookup_context(v), b };
    return b;
}
