/* SPDX-License-Identifier: Apache-2.0 */
/* signalfd in the event loop. */
#include "host/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const struct {
    int number;
    enum host_signal what;
} taken[] = {
    { SIGINT, HOST_SIGNAL_END },  { SIGTERM, HOST_SIGNAL_END },  { SIGHUP, HOST_SIGNAL_END },
    { SIGQUIT, HOST_SIGNAL_END }, { SIGTSTP, HOST_SIGNAL_STOP }, { SIGCONT, HOST_SIGNAL_CONTINUE },
};

struct host_signals {
    struct host_loop *loop;
    int fd, watch;
    sigset_t old;
    void (*fn)(void *ctx, enum host_signal what, int number);
    void *ctx;
};

static void signals_ready(void *ctx, unsigned events)
{
    (void)events;
    struct host_signals *s = ctx;
    struct signalfd_siginfo info;
    if (read(s->fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    for (unsigned i = 0; i < array_size(taken); i++)
        if (taken[i].number == (int)info.ssi_signo)
            s->fn(s->ctx, taken[i].what, taken[i].number);
}

/* Under nohup, SIGHUP is ignored and has to stay so; a blocked signal would be queued all the same. */
static bool is_ignored(int number)
{
    struct sigaction now;
    return sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

struct host_signals *host_signals_create(struct host_loop *loop,
                                         void (*fn)(void *ctx, enum host_signal what, int number), void *ctx,
                                         struct error *e)
{
    struct host_signals *s = calloc(1, sizeof(*s));
    if (!s) {
        error_set(e, -ENOMEM, "cannot watch signals: out of memory");
        return NULL;
    }
    *s = (struct host_signals){ .loop = loop, .fn = fn, .ctx = ctx };
    sigset_t set;
    sigemptyset(&set);
    for (unsigned i = 0; i < array_size(taken); i++)
        if (!is_ignored(taken[i].number))
            sigaddset(&set, taken[i].number);
    s->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->fd < 0) {
        error_set(e, -errno, "cannot watch signals: %s", strerror(errno));
        free(s);
        return NULL;
    }
    s->watch = host_loop_add(loop, s->fd, HOST_READABLE, signals_ready, s, e);
    if (s->watch < 0) {
        close(s->fd);
        free(s);
        return NULL;
    }
    pthread_sigmask(SIG_BLOCK, &set, &s->old);
    return s;
}

void host_signals_destroy(struct host_signals *s)
{
    if (!s)
        return;
    host_loop_remove(s->loop, s->watch);
    close(s->fd);
    pthread_sigmask(SIG_SETMASK, &s->old, NULL);
    free(s);
}

void host_signals_ignore_pipe(void) { signal(SIGPIPE, SIG_IGN); }

void host_signals_stop_self(void)
{
    raise(
        SIGSTOP); /* to this thread, which so takes no further step; kill() might let it run on for a while */
}

void host_signals_die(int number)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, number);
    signal(number, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    raise(number);
    _exit(128 + number);
}
