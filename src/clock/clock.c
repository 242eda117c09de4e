/* SPDX-License-Identifier: Apache-2.0 */
/* The virtual clock's two modes, and the heap of deadlines. */
#include "clock/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "host/thread.h"
#include "host/ticks.h"
#include "host/time.h"

/* Deadlines are embedded in chips and processors, so their number is fixed when the machine is built: 8
 * LAPICs and a dozen chips. */
#define MAX_DEADLINES 64

/*
 * virtual = driver + offset (modulo 2^64), where the driver is the host's monotonic clock or the instruction
 * count in ns. While paused, virtual = frozen. `sequence` is odd while these change: readers try again.
 */
struct clock {
    enum clock_mode mode;
    uint64_t ns_per_1k;
    _Atomic uint64_t wall_base;
    _Atomic uint32_t sequence;
    _Atomic uint64_t offset;
    _Atomic uint64_t frozen;
    atomic_bool paused;
    struct host_ticks ticks;
    _Atomic uint64_t count; /* deterministic mode: retired instructions */
    struct host_mutex lock; /* leaf: the heap, and writers of the words above */
    struct deadline *heap[MAX_DEADLINES];
    uint32_t heap_size;
    uint64_t running_until; /* while clock_run_due() fires: what is due by then; else 0 */
    void (*notify)(void *ctx);
    void *notify_ctx;
};

struct clock *clock_create(enum clock_mode mode, uint64_t ns_per_1k_insns, struct error *e)
{
    if (mode == CLOCK_DETERMINISTIC && !ns_per_1k_insns) {
        error_set(e, -EINVAL, "the deterministic clock needs a time per instruction");
        return NULL;
    }
    struct clock *clk = calloc(1, sizeof(*clk));
    if (!clk) {
        error_set(e, -ENOMEM, "cannot allocate the clock");
        return NULL;
    }
    clk->mode = mode;
    clk->ns_per_1k = ns_per_1k_insns;
    host_mutex_init(&clk->lock);
    host_ticks_init(&clk->ticks);
    atomic_init(&clk->wall_base, host_wall_ns());
    atomic_init(&clk->paused, true);
    return clk;
}

void clock_destroy(struct clock *clk)
{
    if (!clk)
        return;
    host_mutex_destroy(&clk->lock);
    free(clk);
}

/* --- time --------------------------------------------------------------------------------------------- */

static uint64_t driver_now(struct clock *clk)
{
    if (clk->mode == CLOCK_REAL_TIME)
        return host_ticks_ns(&clk->ticks);
    unsigned __int128 ns = (unsigned __int128)atomic_load(&clk->count) * clk->ns_per_1k / 1000;
    return (uint64_t)ns;
}

uint64_t clock_now(struct clock *clk)
{
    for (;;) {
        uint32_t before = atomic_load_explicit(&clk->sequence, memory_order_acquire);
        uint64_t now = atomic_load_explicit(&clk->paused, memory_order_relaxed)
                           ? atomic_load_explicit(&clk->frozen, memory_order_relaxed)
                           : driver_now(clk) + atomic_load_explicit(&clk->offset, memory_order_relaxed);
        atomic_thread_fence(
            memory_order_acquire); /* the words are read before the sequence is looked at again */
        if (likely(!(before & 1) && before == atomic_load_explicit(&clk->sequence, memory_order_relaxed)))
            return now;
    }
}

static void change_begin(struct clock *clk)
{
    host_mutex_lock(&clk->lock);
    atomic_fetch_add(&clk->sequence, 1);
}

static void change_end(struct clock *clk)
{
    atomic_fetch_add(&clk->sequence, 1);
    host_mutex_unlock(&clk->lock);
}

static uint64_t now_unlocked(struct clock *clk)
{
    return atomic_load(&clk->paused) ? atomic_load(&clk->frozen)
                                     : driver_now(clk) + atomic_load(&clk->offset);
}

void clock_pause(struct clock *clk)
{
    change_begin(clk);
    atomic_store(&clk->frozen, now_unlocked(clk));
    atomic_store(&clk->paused, true);
    change_end(clk);
}

void clock_resume(struct clock *clk)
{
    change_begin(clk);
    if (atomic_load(&clk->paused))
        atomic_store(&clk->offset, atomic_load(&clk->frozen) - driver_now(clk));
    atomic_store(&clk->paused, false);
    change_end(clk);
}

void clock_set(struct clock *clk, uint64_t ns)
{
    change_begin(clk);
    if (atomic_load(&clk->paused))
        atomic_store(&clk->frozen, ns);
    change_end(clk);
}

void clock_set_count(struct clock *clk, uint64_t retired) { atomic_store(&clk->count, retired); }

void clock_skip_to(struct clock *clk, uint64_t ns)
{
    change_begin(clk);
    uint64_t now = now_unlocked(clk);
    if (clk->mode == CLOCK_DETERMINISTIC && ns > now) {
        atomic_fetch_add(&clk->offset, ns - now);
        atomic_store(&clk->frozen, ns);
    }
    change_end(clk);
}

enum clock_mode clock_get_mode(const struct clock *clk) { return clk->mode; }

uint64_t clock_count_at(struct clock *clk, uint64_t ns)
{
    if (clk->mode != CLOCK_DETERMINISTIC)
        return UINT64_MAX;
    uint64_t now = clock_now(clk), count = atomic_load(&clk->count);
    if (ns <= now)
        return count;
    /* The driver must have reached this many ns, rounded up to whole instructions. */
    unsigned __int128 driver = (unsigned __int128)driver_now(clk) + (ns - now);
    unsigned __int128 at = (driver * 1000 + clk->ns_per_1k - 1) / clk->ns_per_1k;
    return at > UINT64_MAX ? UINT64_MAX : (uint64_t)at;
}

uint64_t clock_wall_base_ns(const struct clock *clk) { return atomic_load(&clk->wall_base); }

void clock_set_wall_base_ns(struct clock *clk, uint64_t ns) { atomic_store(&clk->wall_base, ns); }

uint64_t clock_host_time_of(struct clock *clk, uint64_t ns)
{
    if (clk->mode != CLOCK_REAL_TIME || ns == UINT64_MAX)
        return UINT64_MAX;
    host_mutex_lock(&clk->lock);
    uint64_t host = atomic_load(&clk->paused) ? UINT64_MAX : ns - atomic_load(&clk->offset);
    host_mutex_unlock(&clk->lock);
    return host;
}

/* --- deadlines: a binary heap, earliest on top -------------------------------------------------------- */

void deadline_init(struct deadline *d, void (*fire)(void *ctx, uint64_t now), void *ctx)
{
    *d = (struct deadline){ .fire = fire, .ctx = ctx };
}

static void heap_put(struct clock *clk, uint32_t i, struct deadline *d)
{
    clk->heap[i] = d;
    d->heap_pos = i + 1;
}

static void heap_rise(struct clock *clk, uint32_t i, struct deadline *d)
{
    for (; i > 0 && clk->heap[(i - 1) / 2]->at > d->at; i = (i - 1) / 2)
        heap_put(clk, i, clk->heap[(i - 1) / 2]);
    heap_put(clk, i, d);
}

static void heap_sink(struct clock *clk, uint32_t i, struct deadline *d)
{
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child + 1 < clk->heap_size && clk->heap[child + 1]->at < clk->heap[child]->at)
            child++;
        if (child >= clk->heap_size || clk->heap[child]->at >= d->at)
            break;
        heap_put(clk, i, clk->heap[child]);
        i = child;
    }
    heap_put(clk, i, d);
}

static void heap_remove(struct clock *clk, struct deadline *d)
{
    if (!d->heap_pos)
        return;
    uint32_t hole = d->heap_pos - 1;
    struct deadline *last = clk->heap[--clk->heap_size];
    d->heap_pos = 0;
    if (last == d)
        return;
    if (hole > 0 && clk->heap[(hole - 1) / 2]->at > last->at)
        heap_rise(clk, hole, last);
    else
        heap_sink(clk, hole, last);
}

void deadline_arm(struct clock *clk, struct deadline *d, uint64_t at)
{
    host_mutex_lock(&clk->lock);
    heap_remove(clk, d);
    /* Re-armed for the past by its own callback, it waits for the next round: one round stays bounded. */
    d->at = at <= clk->running_until ? clk->running_until + 1 : at;
    bool earliest = false;
    if (clk->heap_size < MAX_DEADLINES) {
        heap_rise(clk, clk->heap_size++, d);
        earliest = clk->heap[0] == d;
    }
    host_mutex_unlock(&clk->lock);
    if (earliest && clk->notify)
        clk->notify(clk->notify_ctx);
}

void deadline_cancel(struct clock *clk, struct deadline *d)
{
    host_mutex_lock(&clk->lock);
    heap_remove(clk, d);
    host_mutex_unlock(&clk->lock);
}

uint64_t clock_next_deadline(struct clock *clk)
{
    host_mutex_lock(&clk->lock);
    uint64_t at = clk->heap_size ? clk->heap[0]->at : UINT64_MAX;
    host_mutex_unlock(&clk->lock);
    return at;
}

void clock_run_due(struct clock *clk)
{
    uint64_t now = clock_now(clk);
    for (;;) {
        host_mutex_lock(&clk->lock);
        struct deadline *d = clk->heap_size && clk->heap[0]->at <= now ? clk->heap[0] : NULL;
        if (d)
            heap_remove(clk, d);
        clk->running_until = d ? now : 0;
        host_mutex_unlock(&clk->lock);
        if (!d)
            return;
        d->fire(d->ctx, now);
    }
}

void clock_set_notify(struct clock *clk, void (*notify)(void *ctx), void *ctx)
{
    clk->notify = notify;
    clk->notify_ctx = ctx;
}
