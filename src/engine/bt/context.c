/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts: under what a linear address stands for a unit, each with a jump table of those that were looked up. Kernel and user take
 * turns; an address space that comes back finds its own.
 */
#include "engine/bt/unit.h"

/* All modes are translated; what is watched at each instruction is not. */
bool bt_mode_possible(const struct vcpu *v) { return !(v->mode & MODE_STEP); }

static bool flat_code(const struct vcpu *v)
{
    const struct segment *cs = &v->s.seg[SEG_CS];
    unsigned code = v->mode & MODE_CODE_MASK;
    return code == MODE_CODE64 || (code == MODE_CODE32 && cs->base == 0 && cs->limit == 0xffffffff);
}

static uint32_t key_of(const struct vcpu *v, bool counting)
{
    uint32_t key = v->mode | (uint32_t)v->mmu.index << KEY_INDEX_SHIFT | (counting ? (uint32_t)KEY_COUNT : 0);
    key |= bt_vector_key(v);
    if (bt_x87_possible(v))
        key |= KEY_X87;
    if (flat_code(v))
        key |= KEY_FLAT_CS;
    return key;
}

static bool is_context(const struct bt_context *x, const struct bt_context *wanted)
{
    return x && x->used && x->epoch == wanted->epoch && x->key == wanted->key &&
           x->cs_base == wanted->cs_base && x->cs_limit == wanted->cs_limit;
}

/* The kernel's, while nothing that it is about was dropped: address spaces come and go, and it has much to find again. */
static bool lasts(const struct bt *b, const struct bt_context *x)
{
    return x->used && mode_cpl(x->key) != 3 && x->epoch == b->v->mmu.epochs[GEN_SHARED];
}

/* A kernel's that will not be found again: its epoch is over. */
static bool is_over(const struct bt *b, const struct bt_context *x)
{
    return x->used && mode_cpl(x->key) != 3 && !lasts(b, x);
}

/* The one to be given away. One that is over is the best: its large table is in memory already, and nobody misses it. */
static struct bt_context *choose(struct bt *b)
{
    for (struct bt_context *x = b->contexts; x < b->contexts + CONTEXTS; x++)
        if (is_over(b, x))
            return x;
    struct bt_context *x = &b->contexts[b->next_context++ % CONTEXTS];
    for (unsigned i = 0; i < CONTEXTS && lasts(b, x); i++)
        x = &b->contexts[b->next_context++ % CONTEXTS];
    return x;
}

/* When all were given they begin anew, and nobody may hold an old one: not the links, nor turns, nor another context. */
static uint64_t next_id(struct bt *b)
{
    const uint64_t one = 1ull << (64 - CONTEXT_ID_BITS);
    if (unlikely(!(b->last_id += one))) {
        bt_cache_unlink_far(b);
        bt_turns_forget(b, NULL);
        for (struct bt_context *x = b->contexts; x < b->contexts + CONTEXTS; x++)
            x->id = b->last_id += one;
        b->last_id += one;
        bt_returns_forget_all(b);
    }
    return b->last_id;
}

static void empty_table(struct bt_jump *jumps)
{
    uint8_t *used = jump_used(jumps);
    used[0] = 1; /* an empty slot there is not 0 */
    for (unsigned set = 0; set < JUMP_SETS; set++) {
        if (set % 8 == 0 && !get_le64(used + set)) {
            set += 7;
            continue;
        }
        for (unsigned i = set * JUMP_SET; used[set] && i < (set + 1) * JUMP_SET; i++)
            jumps[i] = (struct bt_jump){ .lin = jump_none(i) };
        used[set] = 0;
    }
}

static struct bt_context *recycle(struct bt *b, const struct bt_context *wanted)
{
    struct bt_context *x = choose(b);
    struct bt_jump *jumps = x->jumps;
    bt_turns_forget(b, x);
    empty_table(jumps);
    if (x->sibling)
        x->sibling->sibling = NULL;
    *x = *wanted;
    x->id = next_id(b);
    x->jumps = jumps;
    x->used = true;
    struct bt_context sibling = *wanted;
    sibling.key ^= KEY_SIBLING;
    for (struct bt_context *y = b->contexts; y < b->contexts + CONTEXTS; y++)
        if (is_context(y, &sibling)) {
            x->sibling = y;
            y->sibling = x;
        }
    b->n.contexts_recycled++;
    return x;
}

static struct bt_context *find_context(struct bt *b, const struct bt_context *wanted)
{
    for (struct bt_context *x = b->contexts; x < b->contexts + CONTEXTS; x++)
        if (is_context(x, wanted))
            return x;
    return recycle(b, wanted);
}

void bt_context_over(struct bt *b, struct bt_context *x)
{
    struct bt_area *a = bt_area(b->v);
    a->context = x;
    a->jumps = x->jumps;
    a->context_id = x->id;
    bt_returns_claim(b, x);
}

/* From the present one, which is found again. */
static void enter(struct bt *b, struct bt_context *x)
{
    struct bt_area *a = bt_area(b->v);
    a->context_before = a->context;
    bt_context_over(b, x);
    a->simd_always = bt_context_always_live(x);
    bt_turns_follow(b);
}

struct bt_context *bt_context_now(struct bt *b)
{
    struct vcpu *v = b->v;
    struct bt_context wanted = { .epoch = v->mmu.flush_epoch,
                                 .key = key_of(v, b->interp.until != UINT64_MAX) };
    if (bt_view_use(b))
        wanted.key |= (uint32_t)KEY_VIEW;
    struct bt_context *x = bt_area(b->v)->context;
    if (!(wanted.key & KEY_FLAT_CS)) {
        wanted.cs_base = (uint32_t)v->s.seg[SEG_CS].base;
        wanted.cs_limit = v->s.seg[SEG_CS].limit;
    }
    if (is_context(x, &wanted)) {
        if (unlikely(bt_turns_old(b)))
            bt_turns_follow(b);
        return x;
    }
    x = bt_area(v)->context_before; /* kernel and user take turns */
    if (!is_context(x, &wanted))
        x = find_context(b, &wanted);
    enter(b, x);
    return x;
}

struct bt_context *bt_context_turned(struct bt *b)
{
    const struct vcpu *v = b->v;
    struct bt_area *a = bt_area(b->v);
    struct bt_context *x = a->context, *y = a->context_before;
    uint32_t key = (x->key & ~(uint32_t)KEY_BY_PRIVILEGE) | v->mode |
                   (uint32_t)v->mmu.index << KEY_INDEX_SHIFT;
    bool in64 = (x->key & MODE_CODE_MASK) == MODE_CODE64 && (v->mode & MODE_CODE_MASK) == MODE_CODE64;
    if (vcpu_cpl(v) == 3 && bt_view_use(b))
        key |= (uint32_t)KEY_VIEW;
    if (!in64 || !y || !y->used || y->key != key || y->epoch != v->mmu.flush_epoch)
        return bt_context_now(b);
    enter(b, y);
    return y;
}

struct bt_window bt_window_of(const struct bt_context *x, uint64_t lin)
{
    uint32_t limit = x->cs_limit;
    if (x->key & KEY_FLAT_CS)
        return (struct bt_window){ 0, PAGE_SIZE };
    if ((x->key & MODE_CODE_MASK) == MODE_CODE16 && limit > 0xffff)
        limit = 0xffff;
    uint32_t first = ((uint32_t)lin & ~(uint32_t)PAGE_OFFSET_MASK) - x->cs_base; /* in CS, of the page */
    uint32_t before = -first; /* bytes of it in front of CS */
    if (first <= limit)
        return (struct bt_window){ 0, limit - first < PAGE_SIZE ? (uint16_t)(limit - first + 1) : PAGE_SIZE };
    if (before >= PAGE_SIZE)
        return (struct bt_window){ 0, 0 };
    uint32_t room = PAGE_SIZE - before;
    return (struct bt_window){ (uint16_t)before, limit < room ? (uint16_t)(before + limit + 1) : PAGE_SIZE };
}

/* Where `made_way`, which was in this slot, may go: to a neighbour that is empty or not at home either. */
static void find_place(struct bt_context *x, unsigned slot, const struct bt_jump *made_way)
{
    for (unsigned i = 1; i < JUMP_SET; i++) {
        unsigned n = slot ^ i;
        struct bt_jump *j = &x->jumps[n];
        if (j->lin == jump_none(n) || jump_slot(j->lin, x->key) != n) {
            *j = *made_way;
            return;
        }
    }
}

void bt_jump_put(struct bt_context *x, uint64_t lin, const void *code)
{
    unsigned slot = jump_slot(lin, x->key);
    struct bt_jump *j = &x->jumps[slot];
    if (j->lin != lin && j->lin != jump_none(slot))
        find_place(x, slot, j);
    *j = (struct bt_jump){ lin, code };
    jump_used(x->jumps)[slot / JUMP_SET] = 1;
}
