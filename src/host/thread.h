/* SPDX-License-Identifier: Apache-2.0 */
/* Threads, locks, and the one way to sleep until someone kicks: thin over pthread and futex. */
#ifndef SUNDOG_HOST_THREAD_H
#define SUNDOG_HOST_THREAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/error.h"
#include "base/types.h"

struct host_mutex {
    pthread_mutex_t m;
};

static inline void host_mutex_init(struct host_mutex *m) { pthread_mutex_init(&m->m, NULL); }
static inline void host_mutex_destroy(struct host_mutex *m) { pthread_mutex_destroy(&m->m); }
static inline void host_mutex_lock(struct host_mutex *m) { pthread_mutex_lock(&m->m); }
static inline void host_mutex_unlock(struct host_mutex *m) { pthread_mutex_unlock(&m->m); }

struct host_cond {
    pthread_cond_t c;
};

static inline void host_cond_init(struct host_cond *c) { pthread_cond_init(&c->c, NULL); }
static inline void host_cond_destroy(struct host_cond *c) { pthread_cond_destroy(&c->c); }
static inline void host_cond_wait(struct host_cond *c, struct host_mutex *m)
{
    pthread_cond_wait(&c->c, &m->m);
}
static inline void host_cond_broadcast(struct host_cond *c) { pthread_cond_broadcast(&c->c); }

/* An auto-reset event: set() by anyone wakes one wait(), now or later. Costs no system call unless a
 * thread sleeps. */
struct host_event {
    _Atomic uint32_t word; /* 0 clear, 1 set, 2 clear with a sleeper */
};

void host_event_set(struct host_event *ev);
void host_event_wait(struct host_event *ev);

struct host_thread {
    pthread_t id;
    bool started;
};

/* Starts `fn(arg)` with all signals blocked but those a fault of its own causes. `name` shows in ps and
 * debuggers. */
int host_thread_start(struct host_thread *t, const char *name, void *(*fn)(void *arg), void *arg,
                      struct error *e);
/* Waits for its end; does nothing when it was never started. */
void host_thread_join(struct host_thread *t);
/* Is the calling thread this one? */
/* Lets others run, if they wait for this processor. */
void host_thread_yield(void);
bool host_thread_is_me(const struct host_thread *t);

#endif
