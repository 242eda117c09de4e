/* SPDX-License-Identifier: Apache-2.0 */
/* A mutex that knows whether the caller holds it. */
#ifndef SUNDOG_HOST_LOCK_H
#define SUNDOG_HOST_LOCK_H

#include "host/thread.h"

struct lock {
    struct host_mutex mutex;
    _Atomic(pthread_t)
        owner; /* 0 = nobody; means something only to the thread that asks about itself, so relaxed will do */
};

static inline void lock_init(struct lock *l)
{
    host_mutex_init(&l->mutex);
    atomic_init(&l->owner, (pthread_t)0);
}

static inline void lock_destroy(struct lock *l) { host_mutex_destroy(&l->mutex); }

static inline bool lock_held(struct lock *l)
{
    return pthread_equal(atomic_load_explicit(&l->owner, memory_order_relaxed), pthread_self());
}

static inline void lock_take(struct lock *l)
{
    host_mutex_lock(&l->mutex);
    atomic_store_explicit(&l->owner, pthread_self(), memory_order_relaxed);
}

static inline void lock_drop(struct lock *l)
{
    atomic_store_explicit(&l->owner, (pthread_t)0, memory_order_relaxed);
    host_mutex_unlock(&l->mutex);
}

#endif
