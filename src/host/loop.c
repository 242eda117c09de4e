/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop over epoll, eventfd and timerfd. */
#include "host/loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define WATCHES_MAX 64
#define EVENTS_MAX 16

struct watch {
    int fd; /* -1: free */
    unsigned events;
    bool unpollable;     /* regular files, /dev/null: always ready, epoll refuses them */
    bool watched;        /* epoll has it: not while events is 0, since epoll tells of hang-ups unasked */
    uint32_t generation; /* tells an event of a removed watch from one of its successor */
    void (*ready)(void *ctx, unsigned events);
    void *ctx;
};

struct host_loop {
    int epoll_fd;
    struct host_bell *quit_bell;
    _Atomic bool quit;
    struct watch watches[WATCHES_MAX];
};

struct host_bell {
    struct host_loop *loop;
    int fd, watch;
    void (*fn)(void *ctx);
    void *ctx;
};

struct host_timer {
    struct host_loop *loop;
    int fd, watch;
    void (*fn)(void *ctx);
    void *ctx;
};

static uint32_t to_epoll(unsigned events)
{
    return (events & HOST_READABLE ? EPOLLIN : 0u) | (events & HOST_WRITABLE ? EPOLLOUT : 0u);
}

static unsigned from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? HOST_READABLE : 0u) | (events & EPOLLOUT ? HOST_WRITABLE : 0u) |
           (events & (EPOLLHUP | EPOLLERR) ? HOST_HANGUP : 0u);
}

static void quit_rung(void *ctx) { (void)ctx; /* the wake-up itself is the message */ }

int host_loop_create(struct host_loop **out, struct error *e)
{
    struct host_loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return error_set(e, -ENOMEM, "cannot create the event loop: out of memory");
    for (unsigned i = 0; i < WATCHES_MAX; i++)
        loop->watches[i].fd = -1;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        int err = errno;
        free(loop);
        return error_set(e, -err, "cannot create the event loop: %s", strerror(err));
    }
    loop->quit_bell = host_bell_create(loop, quit_rung, loop, e);
    if (!loop->quit_bell) {
        close(loop->epoll_fd);
        free(loop);
        return -EMFILE;
    }
    *out = loop;
    return 0;
}

void host_loop_destroy(struct host_loop *loop)
{
    if (!loop)
        return;
    host_bell_destroy(loop->quit_bell);
    close(loop->epoll_fd);
    free(loop);
}

/* Makes epoll know what w->events says. */
static int watch_update(struct host_loop *loop, unsigned n)
{
    struct watch *w = &loop->watches[n];
    bool want = w->events != 0;
    if (w->unpollable || (!want && !w->watched))
        return 0;
    int op = !w->watched ? EPOLL_CTL_ADD : want ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    struct epoll_event ev = { .events = to_epoll(w->events), .data.u64 = (uint64_t)w->generation << 32 | n };
    if (epoll_ctl(loop->epoll_fd, op, w->fd, &ev) == 0)
        w->watched = want;
    else if (errno == EPERM)
        w->unpollable = true;
    else
        return -errno;
    return 0;
}

int host_loop_add(struct host_loop *loop, int fd, unsigned events, void (*ready)(void *ctx, unsigned events),
                  void *ctx, struct error *e)
{
    unsigned n = 0;
    while (n < WATCHES_MAX && loop->watches[n].fd >= 0)
        n++;
    if (n == WATCHES_MAX)
        return error_set(e, -ENOSPC, "too many files to watch (%d)", WATCHES_MAX);
    struct watch *w = &loop->watches[n];
    *w = (struct watch){
        .fd = fd, .events = events, .generation = w->generation + 1, .ready = ready, .ctx = ctx
    };
    int err = watch_update(loop, n);
    if (err) {
        w->fd = -1;
        return error_set(e, err, "cannot watch file descriptor %d: %s", fd, strerror(-err));
    }
    return (int)n;
}

void host_loop_change(struct host_loop *loop, int watch, unsigned events)
{
    struct watch *w = &loop->watches[watch];
    if (w->events == events)
        return;
    w->events = events;
    watch_update(loop, (unsigned)watch);
}

void host_loop_remove(struct host_loop *loop, int watch)
{
    host_loop_change(loop, watch, 0);
    loop->watches[watch].fd = -1;
}

/* Calls the always-ready watches once; true if there was one. */
static bool serve_unpollable(struct host_loop *loop)
{
    bool any = false;
    for (unsigned i = 0; i < WATCHES_MAX; i++) {
        struct watch *w = &loop->watches[i];
        if (w->fd >= 0 && w->unpollable && w->events) {
            w->ready(w->ctx, w->events);
            any = true;
        }
    }
    return any;
}

static void serve_event(struct host_loop *loop, const struct epoll_event *ev)
{
    struct watch *w = &loop->watches[ev->data.u64 & 0xffffffffu];
    if (w->fd >= 0 && w->events && w->generation == (uint32_t)(ev->data.u64 >> 32))
        w->ready(w->ctx, from_epoll(ev->events));
}

void host_loop_run(struct host_loop *loop)
{
    while (!atomic_load(&loop->quit)) {
        bool busy = serve_unpollable(loop);
        struct epoll_event events[EVENTS_MAX];
        int n = epoll_wait(loop->epoll_fd, events, EVENTS_MAX, busy ? 0 : -1);
        for (int i = 0; i < n && !atomic_load(&loop->quit); i++)
            serve_event(loop, &events[i]);
    }
    atomic_store(&loop->quit, false);
}

void host_loop_quit(struct host_loop *loop)
{
    atomic_store(&loop->quit, true);
    host_bell_ring(loop->quit_bell);
}

/* --- doorbell ------------------------------------------------------------------------------------------- */

/* An eventfd's or timerfd's counter is read so that it stops being ready; nobody needs its value. */
static void clear_counter(int fd)
{
    uint64_t count;
    while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
}

static void bell_ready(void *ctx, unsigned events)
{
    (void)events;
    struct host_bell *bell = ctx;
    clear_counter(bell->fd);
    bell->fn(bell->ctx);
}

struct host_bell *host_bell_create(struct host_loop *loop, void (*fn)(void *ctx), void *ctx, struct error *e)
{
    struct host_bell *bell = calloc(1, sizeof(*bell));
    if (!bell) {
        error_set(e, -ENOMEM, "cannot create a doorbell: out of memory");
        return NULL;
    }
    *bell = (struct host_bell){ .loop = loop, .fn = fn, .ctx = ctx };
    bell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell->fd < 0) {
        error_set(e, -errno, "cannot create a doorbell: %s", strerror(errno));
        free(bell);
        return NULL;
    }
    bell->watch = host_loop_add(loop, bell->fd, HOST_READABLE, bell_ready, bell, e);
    if (bell->watch < 0) {
        close(bell->fd);
        free(bell);
        return NULL;
    }
    return bell;
}

void host_bell_ring(struct host_bell *bell)
{
    const uint64_t one = 1;
    while (write(bell->fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

void host_bell_destroy(struct host_bell *bell)
{
    if (!bell)
        return;
    host_loop_remove(bell->loop, bell->watch);
    close(bell->fd);
    free(bell);
}

/* --- timer ---------------------------------------------------------------------------------------------- */

static void timer_ready(void *ctx, unsigned events)
{
    (void)events;
    struct host_timer *timer = ctx;
    clear_counter(timer->fd);
    timer->fn(timer->ctx);
}

struct host_timer *host_timer_create(struct host_loop *loop, void (*fn)(void *ctx), void *ctx,
                                     struct error *e)
{
    struct host_timer *timer = calloc(1, sizeof(*timer));
    if (!timer) {
        error_set(e, -ENOMEM, "cannot create a timer: out of memory");
        return NULL;
    }
    *timer = (struct host_timer){ .loop = loop, .fn = fn, .ctx = ctx };
    timer->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (timer->fd < 0) {
        error_set(e, -errno, "cannot create a timer: %s", strerror(errno));
        free(timer);
        return NULL;
    }
    timer->watch = host_loop_add(loop, timer->fd, HOST_READABLE, timer_ready, timer, e);
    if (timer->watch < 0) {
        close(timer->fd);
        free(timer);
        return NULL;
    }
    return timer;
}

void host_timer_set(struct host_timer *timer, uint64_t at_ns)
{
    struct itimerspec when = { 0 };
    if (at_ns != UINT64_MAX) {
        uint64_t at = at_ns ? at_ns : 1; /* 0 would disarm; 1 is long past and fires at once */
        when.it_value.tv_sec = (time_t)(at / 1000000000u);
        when.it_value.tv_nsec = (long)(at % 1000000000u);
    }
    timerfd_settime(timer->fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void host_timer_destroy(struct host_timer *timer)
{
    if (!timer)
        return;
    host_loop_remove(timer->loop, timer->watch);
    close(timer->fd);
    free(timer);
}
