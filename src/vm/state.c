/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole machine as data: the list of its state objects, its hash, and one buffer to save it to and load
 * it from.
 *
 *   header { magic, version, number of objects }
 *   objects, as base/state.h saves them
 *   pages { number, 4096 bytes }, in rising order
 *   end mark, hash of all before
 *
 * Pages of zeros are left out. The buffer is untrusted when loaded: everything is checked before the machine
 * is touched.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/checked.h"
#include "cpu/event.h"
#include "vm/vm_internal.h"

#define OBJECTS_MAX 64
#define SAVE_MAGIC 0x31564153474e4453ull /* "SDNGSAV1" */
#define SAVE_VERSION 1u
#define END_OF_PAGES UINT64_MAX

static const struct state_field vm_state_fields[] = {
    STATE_FIELD(struct vm_state, memory),
    STATE_FIELD(struct vm_state, virtual_ns),
    STATE_FIELD(struct vm_state, wall_base_ns),
    STATE_FIELD(struct vm_state, clock_count),
    STATE_FIELD_MAX(struct vm_state, cpus, MAX_VCPUS),
    STATE_FIELD_MAX(struct vm_state, timers_due, BIT(MAX_VCPUS) - 1),
    STATE_FIELD(struct vm_state, executed),
    STATE_FIELD_MAX(struct vm_state, turn, MAX_VCPUS - 1),
    STATE_FIELD(struct vm_state, slice_left),
};

static bool vm_state_valid(const void *state)
{
    const struct vm_state *s = state;
    return s->cpus >= 1 && s->turn < s->cpus;
}

const struct state_class vm_state_class = {
    .name = "vm",
    .version = 1,
    .size = sizeof(struct vm_state),
    .fields = vm_state_fields,
    .nfields = array_size(vm_state_fields),
    .valid = vm_state_valid,
};

/* What is kept outside the objects while the machine runs comes into them. */
static void settle(struct vm *vm)
{
    struct vm_state *s = &vm->state;
    s->virtual_ns = clock_now(vm->clock);
    s->wall_base_ns = clock_wall_base_ns(vm->clock);
    s->clock_count = vm->cfg.clock_mode == CLOCK_DETERMINISTIC ? clock_count_at(vm->clock, s->virtual_ns) : 0;
    s->timers_due = 0;
    for (unsigned i = 0; i < vm->ncpus; i++) {
        struct vcpu *v = vm->cpus[i].v;
        if (vm->engine->sync)
            vm->engine->sync(v, SYNC_ALL);
        if (atomic_load(&v->lapic_timer_due))
            s->timers_due |= (uint32_t)BIT(i);
        cpu_event_deliverable(v); /* collects what other threads posted */
    }
}

unsigned vm_state_objects(struct vm *vm, struct state_object *out, unsigned max)
{
    unsigned n = 0;
    settle(vm);
    if (n < max)
        out[n++] = (struct state_object){ &vm_state_class, &vm->state, 0 };
    for (unsigned i = 0; i < vm->ncpus && n < max; i++)
        out[n++] = (struct state_object){ &vcpu_state_class, &vm->cpus[i].v->s, i };
    return n + board_state_objects(vm->board, out + n, max - n);
}

/* --- RAM page by page ----------------------------------------------------------------------------------- */

struct page_walk {
    struct vm *vm;
    void (*page)(struct page_walk *w, uint64_t number, const uint8_t *bytes);
    uint64_t hash;
    uint8_t *out;
    size_t len;
};

static bool is_zero(const uint8_t *p)
{
    uint64_t any = 0;
    for (unsigned i = 0; i < PAGE_SIZE; i += 8)
        any |= get_le64(p + i);
    return !any;
}

static void walk_region(void *ctx, const struct region_info *r)
{
    struct page_walk *w = ctx;
    if (r->kind == REGION_ALIAS)
        return;
    for (uint64_t at = r->base.v; at < r->base.v + r->len; at += PAGE_SIZE) {
        size_t got = 0;
        const uint8_t *p = ram_span(w->vm->pmap, GPA(at), PAGE_SIZE, &got);
        if (p && got == PAGE_SIZE && !is_zero(p))
            w->page(w, at >> PAGE_SHIFT, p);
    }
}

/* The A20 mask would show one megabyte twice: memory is walked as it lies. */
static void walk_pages(struct page_walk *w)
{
    bool a20 = pmap_get_a20(w->vm->pmap);
    if (!a20)
        pmap_set_a20(w->vm->pmap, true);
    pmap_each_region(w->vm->pmap, walk_region, w);
    if (!a20)
        pmap_set_a20(w->vm->pmap, false);
}

/* Multiply and fold, eight bytes at a time: fast, and each bit of the input reaches the result. */
static uint64_t mix(uint64_t hash, uint64_t value)
{
    unsigned __int128 m = (unsigned __int128)(hash ^ value ^ 0x9e3779b97f4a7c15ull) * 0xd6e8feb86659fd93ull;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint64_t mix_bytes(uint64_t hash, const uint8_t *p, size_t len)
{
    for (; len >= 8; p += 8, len -= 8)
        hash = mix(hash, get_le64(p));
    for (; len; p++, len--)
        hash = mix(hash, *p);
    return hash;
}

static void hash_page(struct page_walk *w, uint64_t number, const uint8_t *bytes)
{
    w->hash = mix_bytes(mix(w->hash, number), bytes, PAGE_SIZE);
}

uint64_t vm_state_hash(struct vm *vm)
{
    struct state_object objects[OBJECTS_MAX];
    unsigned n = vm_state_objects(vm, objects, OBJECTS_MAX);
    uint64_t hash = 0;
    for (unsigned i = 0; i < n; i++)
        hash = state_hash(&objects[i], hash);
    struct page_walk w = { .vm = vm, .page = hash_page, .hash = hash };
    walk_pages(&w);
    return w.hash;
}

/* --- save ----------------------------------------------------------------------------------------------- */

static void put_page(struct page_walk *w, uint64_t number, const uint8_t *bytes)
{
    if (w->out) {
        put_le64(w->out + w->len, number);
        memcpy(w->out + w->len + 8, bytes, PAGE_SIZE);
    }
    w->len += 8 + PAGE_SIZE;
}

int vm_save(struct vm *vm, uint8_t **buf, size_t *len, struct error *e)
{
    struct state_object objects[OBJECTS_MAX];
    unsigned n = vm_state_objects(vm, objects, OBJECTS_MAX);
    struct page_walk w = { .vm = vm, .page = put_page };
    walk_pages(&w); /* counts */
    size_t size = 16 + w.len + 16;
    for (unsigned i = 0; i < n; i++)
        size += state_saved_size(objects[i].cls);
    uint8_t *out = malloc(size);
    if (!out)
        return error_set(e, -ENOMEM, "cannot save the machine: no memory for %zu bytes", size);
    put_le64(out, SAVE_MAGIC);
    put_le32(out + 8, SAVE_VERSION);
    put_le32(out + 12, n);
    w.out = out;
    w.len = 16;
    for (unsigned i = 0; i < n; i++)
        w.len += state_save(&objects[i], out + w.len);
    walk_pages(&w);
    put_le64(out + w.len, END_OF_PAGES);
    w.len += 8;
    put_le64(out + w.len, mix_bytes(0, out, w.len));
    *buf = out;
    *len = w.len + 8;
    return 0;
}

/* --- load ----------------------------------------------------------------------------------------------- */

/* Fresh copies of all objects: the machine's own stay as they are until the whole buffer has been found
 * good. */
struct copies {
    struct state_object objects[OBJECTS_MAX];
    void *data[OBJECTS_MAX];
    unsigned n;
};

static void copies_free(struct copies *c)
{
    for (unsigned i = 0; i < c->n; i++)
        free(c->data[i]);
}

static int copies_make(struct copies *c, struct vm *vm, struct error *e)
{
    c->n = vm_state_objects(vm, c->objects, OBJECTS_MAX);
    memset(c->data, 0, sizeof(c->data));
    for (unsigned i = 0; i < c->n; i++) {
        c->data[i] = malloc(c->objects[i].cls->size);
        if (!c->data[i])
            return error_set(e, -ENOMEM, "cannot load the machine: out of memory");
        memcpy(c->data[i], c->objects[i].data, c->objects[i].cls->size);
    }
    return 0;
}

static int load_objects(struct copies *c, const struct vm *vm, const uint8_t *buf, size_t len, size_t *at,
                        struct error *e)
{
    for (unsigned i = 0; i < c->n; i++) {
        const struct state_object copy = { c->objects[i].cls, c->data[i], c->objects[i].instance };
        long used = state_load(&copy, buf + *at, len - *at, e);
        if (used < 0)
            return error_wrap(e, "saved machine, object %s %u", copy.cls->name, copy.instance);
        *at += (size_t)used;
    }
    const struct vm_state *s = c->data[0];
    if (s->cpus != vm->ncpus || s->memory != vm->cfg.memory)
        return error_set(
            e, -EINVAL, "the saved machine has %u processors and %llu MiB, this one %u and %llu MiB", s->cpus,
            (unsigned long long)(s->memory >> 20), vm->ncpus, (unsigned long long)(vm->cfg.memory >> 20));
    return 0;
}

/* Pages in strictly rising order, each backed, then the end mark right before the final hash. */
static int check_pages(struct vm *vm, const uint8_t *buf, size_t len, size_t at, struct error *e)
{
    uint64_t last = 0;
    for (bool first = true;; first = false) {
        if (!ck_range(at, 8, len))
            return error_set(e, -EINVAL, "the saved machine is cut short");
        uint64_t number = get_le64(buf + at);
        at += 8;
        if (number == END_OF_PAGES)
            return at == len ? 0
                             : error_set(e, -EINVAL, "the saved machine has %zu bytes too many", len - at);
        if (number > UINT64_MAX >> PAGE_SHIFT || (!first && number <= last) || !ck_range(at, PAGE_SIZE, len))
            return error_set(e, -EINVAL, "the saved machine has a wrong page");
        size_t got = 0;
        if (!ram_span(vm->pmap, GPA(number << PAGE_SHIFT), PAGE_SIZE, &got) || got < PAGE_SIZE)
            return error_set(e, -EINVAL, "the saved machine has memory at 0x%llx, this one has not",
                             (unsigned long long)(number << PAGE_SHIFT));
        last = number;
        at += PAGE_SIZE;
    }
}

static void clear_page(struct page_walk *w, uint64_t number, const uint8_t *bytes)
{
    static const uint8_t zeros[PAGE_SIZE];
    (void)bytes;
    if (pmap_load(w->vm->pmap, GPA(number << PAGE_SHIFT), zeros, PAGE_SIZE))
        w->len++;
}

static void load_pages(struct vm *vm, const uint8_t *buf, size_t at)
{
    struct page_walk w = { .vm = vm, .page = clear_page };
    walk_pages(&w);
    for (;;) {
        uint64_t number = get_le64(buf + at);
        if (number == END_OF_PAGES)
            return;
        if (pmap_load(vm->pmap, GPA(number << PAGE_SHIFT), buf + at + 8, PAGE_SIZE))
            return; /* check_pages() has seen it backed */
        at += 8 + PAGE_SIZE;
    }
}

/* Everything that is derived from state follows it. */
static void state_loaded(struct vm *vm)
{
    clock_set_count(vm->clock, vm->state.clock_count);
    clock_set(vm->clock, vm->state.virtual_ns);
    clock_set_wall_base_ns(vm->clock, vm->state.wall_base_ns);
    board_state_loaded(vm->board);
    bus_lock(vm->bus);
    for (unsigned i = 0; i < vm->ncpus; i++) {
        struct vcpu *v = vm->cpus[i].v;
        vcpu_refresh(v);
        atomic_store(&v->lapic_timer_due, (vm->state.timers_due >> i) & 1);
    }
    bus_unlock(vm->bus);
    for (unsigned i = 0; i < vm->ncpus; i++) {
        if (vm->engine->state_changed)
            vm->engine->state_changed(vm->cpus[i].v);
        vcpu_request(vm->cpus[i].v, REQ_EVENT);
    }
}

static int check_header(const uint8_t *buf, size_t len, unsigned objects, struct error *e)
{
    if (len < 32 || get_le64(buf) != SAVE_MAGIC)
        return error_set(e, -EINVAL, "this is no saved machine");
    if (get_le32(buf + 8) != SAVE_VERSION)
        return error_set(e, -EINVAL, "the saved machine has format %u, this program reads %u",
                         get_le32(buf + 8), SAVE_VERSION);
    if (get_le64(buf + len - 8) != mix_bytes(0, buf, len - 8))
        return error_set(e, -EINVAL, "the saved machine is damaged");
    if (get_le32(buf + 12) != objects)
        return error_set(e, -EINVAL, "the saved machine has %u parts, this one %u", get_le32(buf + 12),
                         objects);
    return 0;
}

int vm_load(struct vm *vm, const uint8_t *buf, size_t len, struct error *e)
{
    struct copies copies;
    size_t at = 16;
    bool a20 = pmap_get_a20(vm->pmap);
    int err = copies_make(&copies, vm, e);
    if (!err)
        err = check_header(buf, len, copies.n, e);
    if (!err)
        err = load_objects(&copies, vm, buf, len - 8, &at, e);
    if (!err) {
        pmap_set_a20(vm->pmap, true); /* addresses in the buffer are the memory's own */
        err = check_pages(vm, buf, len - 8, at, e);
        if (err)
            pmap_set_a20(vm->pmap, a20);
    }
    if (!err) {
        load_pages(vm, buf, at);
        for (unsigned i = 0; i < copies.n; i++)
            memcpy(copies.objects[i].data, copies.data[i], copies.objects[i].cls->size);
        state_loaded(vm);
    }
    copies_free(&copies);
    return err;
}
