/* SPDX-License-Identifier: Apache-2.0 */
/* The bounded ring behind input.h. */
#include "clock/input.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "host/thread.h"

#define MAX_SOURCES 32
#define QUEUE_SIZE 1024u /* a power of two: indices are masked */

struct source {
    const char *name;
    input_handler handler;
    void *ctx;
};

struct input_event {
    int source;
    uint64_t value;
};

struct input_queue {
    struct host_mutex lock; /* leaf: the ring */
    struct source sources[MAX_SOURCES];
    int nsources;
    struct input_event ring[QUEUE_SIZE];
    _Atomic uint32_t head, tail; /* tail - head events wait; both only grow */
    void (*notify)(void *ctx);
    void *notify_ctx;
    void (*tap)(void *ctx, int source, uint64_t value, const struct input_stamp *s);
    void *tap_ctx;
};

struct input_queue *input_create(struct error *e)
{
    struct input_queue *q = calloc(1, sizeof(*q));
    if (!q) {
        error_set(e, -ENOMEM, "cannot allocate the input queue");
        return NULL;
    }
    host_mutex_init(&q->lock);
    return q;
}

void input_destroy(struct input_queue *q)
{
    if (!q)
        return;
    host_mutex_destroy(&q->lock);
    free(q);
}

int input_add_source(struct input_queue *q, const char *name, input_handler handler, void *ctx)
{
    if (q->nsources == MAX_SOURCES)
        return -ENOSPC;
    q->sources[q->nsources] = (struct source){ name, handler, ctx };
    return q->nsources++;
}

static uint32_t waiting(const struct input_queue *q) { return atomic_load(&q->tail) - atomic_load(&q->head); }

bool input_post(struct input_queue *q, int source, uint64_t value)
{
    if (source < 0 || source >= q->nsources)
        return false;
    host_mutex_lock(&q->lock);
    bool room = waiting(q) < QUEUE_SIZE;
    if (room) {
        uint32_t tail = atomic_load(&q->tail);
        q->ring[tail % QUEUE_SIZE] = (struct input_event){ source, value };
        atomic_store(&q->tail, tail + 1);
    }
    host_mutex_unlock(&q->lock);
    if (room && q->notify)
        q->notify(q->notify_ctx);
    return room;
}

bool input_has_room(struct input_queue *q, unsigned n)
{
    host_mutex_lock(&q->lock);
    bool room = n <= QUEUE_SIZE - waiting(q);
    host_mutex_unlock(&q->lock);
    return room;
}

bool input_pending(struct input_queue *q) { return waiting(q) != 0; }

unsigned input_drain(struct input_queue *q, struct input_stamp stamp)
{
    /* What handlers post waits for the next drain: one drain stays bounded. */
    unsigned n = waiting(q);
    for (unsigned i = 0; i < n; i++) {
        host_mutex_lock(&q->lock);
        uint32_t head = atomic_load(&q->head);
        struct input_event ev = q->ring[head % QUEUE_SIZE];
        atomic_store(&q->head, head + 1);
        host_mutex_unlock(&q->lock);
        const struct source *src = &q->sources[ev.source];
        if (q->tap)
            q->tap(q->tap_ctx, ev.source, ev.value, &stamp);
        src->handler(src->ctx, ev.value, &stamp);
    }
    return n;
}

void input_set_notify(struct input_queue *q, void (*notify)(void *ctx), void *ctx)
{
    q->notify = notify;
    q->notify_ctx = ctx;
}

void input_set_tap(struct input_queue *q,
                   void (*tap)(void *ctx, int source, uint64_t value, const struct input_stamp *s), void *ctx)
{
    q->tap = tap;
    q->tap_ctx = ctx;
}
