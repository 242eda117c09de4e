/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping vcpus: the whole world, all but one for a locked access across pages, or one just long enough to
 * drop translations.
 *
 * Each vcpu thread is OUT, IN or QUIET (vm_internal.h). Three parties wait for others to leave IN:
 *   vm_stop_world   waits until all are OUT;
 *   stop_others     (a vcpu, inside an instruction) turns QUIET, waits until no other is IN;
 *   world_revoke    waits until one vcpu has acknowledged; a vcpu that waits here turns QUIET itself.
 * Whoever waits as a vcpu is QUIET, so it holds up neither the second nor the third kind: no cycle can form.
 * vm_stop_world waits for QUIET vcpus as well, but these wait for IN vcpus only, never for the stop to end,
 * so it gets its turn.
 *
 * Translations of a vcpu that is not IN are dropped by the revoker itself, under world.lock.
 */
#include "vm/vm_internal.h"

void world_init(struct vm *vm)
{
    host_mutex_init(&vm->world.lock);
    host_cond_init(&vm->world.changed);
    host_cond_init(&vm->world.ended);
    vm->world.exclusive = -1;
}

void world_destroy(struct vm *vm)
{
    host_cond_destroy(&vm->world.ended);
    host_cond_destroy(&vm->world.changed);
    host_mutex_destroy(&vm->world.lock);
}

void world_kick_all(struct vm *vm)
{
    for (unsigned i = 0; i < vm->ncpus; i++)
        vcpu_request(vm->cpus[i].v, REQ_STOP);
}

static unsigned index_of(const struct vm_cpu *c) { return (unsigned)(c - c->vm->cpus); }

/* --- revocation: all with world.lock held --------------------------------------------------------------- */

static void drop(struct vm_cpu *c, const struct revocation *r)
{
    if (r->code_changed) {
        c->vm->engine->code_changed(c->v, r->first_page);
        return;
    }
    mmu_drop_physical(&c->v->mmu, r->first_page, r->count, r->rights);
    if (c->vm->engine->drop_physical)
        c->vm->engine->drop_physical(c->v, r->first_page, r->count, r->rights);
}

static void acknowledge(struct vm_cpu *c)
{
    for (unsigned i = 0; i < c->npending; i++)
        drop(c, &c->pending[i]);
    c->npending = 0;
    if (c->revoke_done != c->revoke_posted) {
        c->revoke_done = c->revoke_posted;
        host_cond_broadcast(&c->vm->world.changed);
    }
}

static bool is_pending(const struct vm_cpu *c, const struct revocation *r)
{
    for (unsigned i = 0; i < c->npending; i++)
        if (c->pending[i].first_page == r->first_page && c->pending[i].count == r->count &&
            c->pending[i].rights == r->rights && c->pending[i].code_changed == r->code_changed)
            return true;
    return false;
}

static void post(struct vm_cpu *c, const struct revocation *r)
{
    if (is_pending(c, r)) {
        /* one is enough */
    } else if (c->npending == REVOCATIONS_MAX) { /* too many to remember singly: all of it */
        c->pending[0] = (struct revocation){ .rights = RIGHT_READ | RIGHT_WRITE | RIGHT_EXEC };
        c->npending = 1;
    } else {
        c->pending[c->npending++] = *r;
    }
    c->revoke_posted++;
    vcpu_request(c->v, REQ_REVOKE);
}

static void set_presence(struct vm_cpu *c, enum presence p)
{
    c->presence = p;
    host_cond_broadcast(&c->vm->world.changed);
}

static void become_quiet(struct vm_cpu *c)
{
    acknowledge(c);
    set_presence(c, PRESENCE_QUIET);
}

/* Back to IN as soon as nobody else is exclusive. */
static void become_loud(struct vm_cpu *c)
{
    struct world *w = &c->vm->world;
    while (w->exclusive >= 0 && w->exclusive != (int)index_of(c))
        host_cond_wait(&w->changed, &w->lock);
    c->presence = PRESENCE_IN;
}

static struct vm_cpu *current_cpu(struct vm *vm)
{
    for (unsigned i = 0; i < vm->ncpus; i++)
        if (host_thread_is_me(&vm->cpus[i].thread))
            return &vm->cpus[i];
    return NULL;
}

static void world_revoke(void *ctx, uint64_t first_page, uint64_t count, unsigned rights)
{
    struct vm_cpu *c = ctx;
    struct vm *vm = c->vm;
    struct world *w = &vm->world;
    const struct revocation r = { .first_page = first_page, .count = count, .rights = rights };
    struct vm_cpu *me = current_cpu(vm);
    host_mutex_lock(&w->lock);
    if (c == me || c->presence != PRESENCE_IN) {
        drop(c, &r);
    } else {
        post(c, &r);
        uint64_t ticket = c->revoke_posted;
        /* Under the device lock (the A20 switch) there is no waiting: the other may wait for that very
         * lock. It drops its translations before its next block, as a real A20 line also takes a while to
         * reach the other processors. */
        if (!bus_lock_held(vm->bus)) {
            if (me)
                become_quiet(me);
            while (c->revoke_done < ticket)
                host_cond_wait(&w->changed, &w->lock);
            if (me)
                become_loud(me);
        }
    }
    host_mutex_unlock(&w->lock);
}

/* Nobody waits here: as on a real machine, another processor goes on with the old bytes until it serialises
 * (SDM 3A 9.1.3), and the request makes sure that this is soon. */
static void world_code_changed(void *ctx, uint64_t page)
{
    struct vm_cpu *c = ctx;
    struct world *w = &c->vm->world;
    const struct revocation r = { .first_page = page, .count = 1, .code_changed = true };
    bool is_me = c == current_cpu(c->vm);
    host_mutex_lock(&w->lock);
    if (is_me || c->presence != PRESENCE_IN)
        drop(c, &r);
    else
        post(c, &r);
    host_mutex_unlock(&w->lock);
}

int world_add_consumer(struct vm_cpu *c)
{
    const struct pmap_consumer consumer = {
        .revoke = world_revoke,
        .ctx = c,
        .code_changed = c->vm->engine->code_changed ? world_code_changed : NULL,
    };
    return pmap_add_consumer(c->vm->pmap, &consumer);
}

/* --- in and out of the engine --------------------------------------------------------------------------- */

static bool is_held(const struct vm_cpu *c)
{
    const struct world *w = &c->vm->world;
    return w->stops || w->reset_pending || (w->exclusive >= 0 && w->exclusive != (int)index_of(c));
}

bool world_enter(struct vm_cpu *c)
{
    struct world *w = &c->vm->world;
    host_mutex_lock(&w->lock);
    for (;;) {
        /* Cleared before the conditions are looked at: whoever changes one sets the request after it. */
        if (atomic_fetch_and(&c->v->requests, ~(uint32_t)(REQ_STOP | REQ_REVOKE)) & REQ_STOP)
            c->service = true;
        if (w->end != VM_END_NONE || !is_held(c))
            break;
        host_cond_wait(&w->changed, &w->lock);
    }
    bool go = w->end == VM_END_NONE;
    if (go)
        c->presence = PRESENCE_IN;
    host_mutex_unlock(&w->lock);
    return go;
}

void world_leave(struct vm_cpu *c)
{
    struct world *w = &c->vm->world;
    host_mutex_lock(&w->lock);
    acknowledge(c);
    set_presence(c, PRESENCE_OUT);
    bool reset = w->reset_pending && world_all_out(c->vm);
    host_mutex_unlock(&w->lock);
    if (reset)
        host_bell_ring(c->vm->bell);
}

/* --- all but one ---------------------------------------------------------------------------------------- */

static bool others_are_in(const struct vm *vm, unsigned me)
{
    for (unsigned i = 0; i < vm->ncpus; i++)
        if (i != me && vm->cpus[i].presence == PRESENCE_IN)
            return true;
    return false;
}

void world_stop_others(void *ctx, unsigned vcpu)
{
    struct vm *vm = ctx;
    struct world *w = &vm->world;
    if (!vm->threaded || vm->ncpus == 1)
        return;
    host_mutex_lock(&w->lock);
    struct vm_cpu *c = &vm->cpus[vcpu];
    become_quiet(c);
    while (w->exclusive >= 0)
        host_cond_wait(&w->changed, &w->lock);
    w->exclusive = (int)vcpu;
    for (unsigned i = 0; i < vm->ncpus; i++)
        if (i != vcpu)
            vcpu_request(vm->cpus[i].v, REQ_STOP);
    while (others_are_in(vm, vcpu))
        host_cond_wait(&w->changed, &w->lock);
    c->presence = PRESENCE_IN;
    host_mutex_unlock(&w->lock);
}

void world_resume_others(void *ctx, unsigned vcpu)
{
    struct vm *vm = ctx;
    struct world *w = &vm->world;
    if (!vm->threaded || vm->ncpus == 1)
        return;
    (void)vcpu;
    host_mutex_lock(&w->lock);
    w->exclusive = -1;
    host_cond_broadcast(&w->changed);
    host_mutex_unlock(&w->lock);
}

/* --- the whole world ------------------------------------------------------------------------------------ */

bool world_all_out(const struct vm *vm)
{
    for (unsigned i = 0; i < vm->ncpus; i++)
        if (vm->cpus[i].presence != PRESENCE_OUT)
            return false;
    return true;
}

void vm_stop_world(struct vm *vm)
{
    struct world *w = &vm->world;
    host_mutex_lock(&w->lock);
    w->stops++;
    world_kick_all(vm);
    while (!world_all_out(vm))
        host_cond_wait(&w->changed, &w->lock);
    if (!w->clock_paused)
        clock_pause(vm->clock);
    w->clock_paused = true;
    host_mutex_unlock(&w->lock);
}

void vm_resume(struct vm *vm)
{
    struct world *w = &vm->world;
    host_mutex_lock(&w->lock);
    bool last = --w->stops == 0;
    if (last) {
        w->clock_paused = false;
        clock_resume(vm->clock);
        host_cond_broadcast(&w->changed);
    }
    host_mutex_unlock(&w->lock);
    if (last)
        events_update_timer(vm);
}
