/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring between the guest's serial port and the host.
 *
 * The vcpu puts bytes and rings a bell when the ring was idle; the event thread writes. When the ring is
 * full, the vcpu writes itself, waiting for the reader: so a slow reader slows the guest, nothing is lost,
 * and no thread depends on another one to get on.
 */
#include "control/writer.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "host/file.h"
#include "host/thread.h"
#include "host/time.h"

#define RING_SIZE (256u << 10)
#define WAIT_MS 100 /* how soon a waiting thread notices writer_give_up() */

struct writer {
    struct host_output out;
    struct host_mutex lock; /* a leaf; guards what follows */
    uint8_t ring[RING_SIZE];
    size_t head, used;
    bool scheduled; /* the loop knows that there is something to write */
    int error;      /* errno of the failure that ended it */
    atomic_bool given_up;
    /* the loop's */
    struct host_loop *loop;
    struct host_bell *bell;
    int watch;
    bool told;
    void (*failed)(void *ctx, int err);
    void *ctx;
};

struct writer *writer_create(int fd, void (*failed)(void *ctx, int err), void *ctx, struct error *e)
{
    struct writer *w = calloc(1, sizeof(*w));
    if (!w) {
        error_set(e, -ENOMEM, "cannot buffer the console: out of memory");
        return NULL;
    }
    if (host_output_open(&w->out, fd, e)) {
        free(w);
        return NULL;
    }
    host_mutex_init(&w->lock);
    w->failed = failed;
    w->ctx = ctx;
    return w;
}

void writer_destroy(struct writer *w)
{
    if (!w)
        return;
    writer_detach(w);
    host_output_close(&w->out);
    host_mutex_destroy(&w->lock);
    free(w);
}

/* Lock held. Writes as much as goes without waiting. */
static void flush(struct writer *w)
{
    while (w->used && !w->error) {
        size_t piece = RING_SIZE - w->head < w->used ? RING_SIZE - w->head : w->used;
        long n = host_output_write(&w->out, w->ring + w->head, piece);
        if (n == -EAGAIN)
            return;
        if (n < 0) {
            w->error = (int)-n;
            break;
        }
        w->head = (w->head + (size_t)n) % RING_SIZE;
        w->used -= (size_t)n;
    }
    if (w->error)
        w->used = 0;
}

/* --- the event thread's side ---------------------------------------------------------------------------- */

static void write_some(struct writer *w)
{
    host_mutex_lock(&w->lock);
    flush(w);
    bool more = w->used != 0;
    w->scheduled = more;
    int error = w->error;
    host_mutex_unlock(&w->lock);
    host_loop_change(w->loop, w->watch, more ? HOST_WRITABLE : 0);
    if (error && !w->told) {
        w->told = true;
        w->failed(w->ctx, error);
    }
}

static void on_bell(void *ctx) { write_some(ctx); }

static void on_writable(void *ctx, unsigned events)
{
    (void)events;
    write_some(ctx);
}

int writer_attach(struct writer *w, struct host_loop *loop, struct error *e)
{
    w->watch = host_loop_add(loop, w->out.fd, 0, on_writable, w, e);
    if (w->watch < 0)
        return w->watch;
    w->bell = host_bell_create(loop, on_bell, w, e);
    if (!w->bell) {
        host_loop_remove(loop, w->watch);
        return -EMFILE;
    }
    w->loop = loop;
    return 0;
}

void writer_detach(struct writer *w)
{
    if (!w->loop)
        return;
    host_bell_destroy(w->bell);
    host_loop_remove(w->loop, w->watch);
    w->bell = NULL;
    w->loop = NULL;
}

/* --- the vcpus' side ------------------------------------------------------------------------------------ */

/* Lock held; lets go of it while waiting for the reader. */
static void wait_for_room(struct writer *w)
{
    flush(w);
    if (w->used < RING_SIZE || w->error)
        return;
    host_mutex_unlock(&w->lock);
    host_output_wait(&w->out, WAIT_MS);
    host_mutex_lock(&w->lock);
}

void writer_put(struct writer *w, const uint8_t *data, size_t len)
{
    host_mutex_lock(&w->lock);
    while (len && !w->error && !atomic_load(&w->given_up)) {
        size_t room = RING_SIZE - w->used, tail = (w->head + w->used) % RING_SIZE;
        if (!room) {
            wait_for_room(w);
            continue;
        }
        size_t piece = len < room ? len : room;
        piece = piece < RING_SIZE - tail ? piece : RING_SIZE - tail;
        memcpy(w->ring + tail, data, piece);
        w->used += piece;
        data += piece;
        len -= piece;
    }
    bool ring = (w->used || w->error) && !w->scheduled && w->bell;
    if (ring)
        w->scheduled = true;
    host_mutex_unlock(&w->lock);
    if (ring)
        host_bell_ring(w->bell);
}

void writer_flush(struct writer *w)
{
    host_mutex_lock(&w->lock);
    flush(w);
    host_mutex_unlock(&w->lock);
}

void writer_give_up(struct writer *w) { atomic_store(&w->given_up, true); }

bool writer_drain(struct writer *w, uint64_t deadline_ns)
{
    host_mutex_lock(&w->lock);
    for (;;) {
        flush(w);
        if (!w->used || host_monotonic_ns() >= deadline_ns)
            break;
        host_mutex_unlock(&w->lock);
        host_output_wait(&w->out, WAIT_MS);
        host_mutex_lock(&w->lock);
    }
    bool done = !w->used;
    host_mutex_unlock(&w->lock);
    return done;
}
