/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw mode and its undoing.
 *
 * A signal handler has no argument of ours, so what it needs lives in the one file-scope variable of the
 * library, `terminal`. The handler uses async-signal-safe calls only: tcsetattr, sigaction, raise.
 */
#include "host/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static const int crash_signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };

static struct {
    int fd;
    bool open;
    atomic_bool raw;
    struct termios saved;
    struct sigaction previous[array_size(crash_signals)];
} terminal;

bool host_is_terminal(int fd) { return isatty(fd) == 1; }

/* Another process group may own the terminal by now: then the kernel would stop us with SIGTTOU for
 * writing its settings. */
static int set_attributes(const struct termios *attr)
{
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &block, &old);
    int ret;
    do
        ret = tcsetattr(terminal.fd, TCSANOW, attr);
    while (ret < 0 && errno == EINTR);
    int err = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return ret < 0 ? -err : 0;
}

static void crashed(int sig, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    if (atomic_exchange(&terminal.raw, false))
        set_attributes(&terminal.saved);
    for (unsigned i = 0; i < array_size(crash_signals); i++) {
        if (crash_signals[i] != sig)
            continue;
        const struct sigaction *prev = &terminal.previous[i];
        if (prev->sa_flags & SA_SIGINFO) {
            prev->sa_sigaction(sig, info, context);
        } else if (prev->sa_handler != SIG_DFL && prev->sa_handler != SIG_IGN) {
            prev->sa_handler(sig);
        } else {
            /* Blocked until this handler returns; then it ends the process as if we had never been here. */
            signal(sig, SIG_DFL);
            raise(sig);
        }
    }
    errno = saved_errno;
}

int host_terminal_open(int fd, struct error *e)
{
    if (tcgetattr(fd, &terminal.saved) < 0)
        return error_set(e, -errno, "cannot read the terminal's settings: %s", strerror(errno));
    terminal.fd = fd;
    terminal.open = true;
    struct sigaction action = { .sa_sigaction = crashed, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    sigemptyset(&action.sa_mask);
    for (unsigned i = 0; i < array_size(crash_signals); i++)
        sigaction(crash_signals[i], &action, &terminal.previous[i]);
    return 0;
}

int host_terminal_raw(struct error *e)
{
    struct termios raw = terminal.saved;
    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    atomic_store(&terminal.raw, true); /* first, so that a crash in between restores too */
    int err = set_attributes(&raw);
    if (err) {
        atomic_store(&terminal.raw, false);
        return error_set(e, err, "cannot set the terminal raw: %s", strerror(-err));
    }
    return 0;
}

void host_terminal_restore(void)
{
    if (atomic_exchange(&terminal.raw, false))
        set_attributes(&terminal.saved);
}

bool host_terminal_is_raw(void) { return atomic_load(&terminal.raw); }

void host_terminal_close(void)
{
    if (!terminal.open)
        return;
    host_terminal_restore();
    for (unsigned i = 0; i < array_size(crash_signals); i++)
        sigaction(crash_signals[i], &terminal.previous[i], NULL);
    terminal.open = false;
}
