/* SPDX-License-Identifier: Apache-2.0 */
/* Threads with quiet signals, and the futex event. */
#include "host/thread.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void futex(_Atomic uint32_t *word, int op, uint32_t val)
{
    syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, val, NULL, NULL, 0);
}

void host_event_set(struct host_event *ev)
{
    /* Sequentially consistent: what the setter wrote before is seen by the waiter that finds the event
     * set. */
    if (atomic_exchange(&ev->word, 1) == 2)
        futex(&ev->word, FUTEX_WAKE, 1);
}

void host_event_wait(struct host_event *ev)
{
    while (atomic_load(&ev->word) != 1) {
        uint32_t clear = 0;
        if (atomic_compare_exchange_strong(&ev->word, &clear, 2) || clear == 2)
            futex(&ev->word, FUTEX_WAIT, 2); /* EINTR and EAGAIN: the loop looks again */
    }
    atomic_store(&ev->word, 0);
}

int host_thread_start(struct host_thread *t, const char *name, void *(*fn)(void *arg), void *arg,
                      struct error *e)
{
    /* A thread inherits its maker's mask: outside signals belong to the embedder's threads alone. */
    sigset_t all, old;
    sigfillset(&all);
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };
    for (unsigned i = 0; i < array_size(faults); i++)
        sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = pthread_create(&t->id, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err)
        return error_set(e, -err, "cannot start thread %s: %s; check the limit of processes (ulimit -u)",
                         name, strerror(err));
    pthread_setname_np(t->id, name);
    t->started = true;
    return 0;
}

void host_thread_join(struct host_thread *t)
{
    if (t->started)
        pthread_join(t->id, NULL);
    t->started = false;
}

bool host_thread_is_me(const struct host_thread *t)
{
    return t->started && pthread_equal(t->id, pthread_self());
}

void host_thread_yield(void) { sched_yield(); }
