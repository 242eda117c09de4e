/* SPDX-License-Identifier: Apache-2.0 */
/* Outside signals as events of the loop: no handler runs, nothing is interrupted. */
#ifndef SUNDOG_HOST_SIGNALS_H
#define SUNDOG_HOST_SIGNALS_H

#include "base/error.h"
#include "host/loop.h"

enum host_signal { HOST_SIGNAL_END, HOST_SIGNAL_STOP, HOST_SIGNAL_CONTINUE };

struct host_signals;

/* Takes SIGINT, SIGTERM, SIGHUP, SIGQUIT (END), SIGTSTP (STOP) and SIGCONT (CONTINUE) unless they were
 * ignored. Call it before any other thread starts: the threads inherit that these are blocked. `fn` runs
 * on the loop's thread with the signal's number. */
struct host_signals *host_signals_create(struct host_loop *loop,
                                         void (*fn)(void *ctx, enum host_signal what, int number), void *ctx,
                                         struct error *e);
/* Signals act again as before. */
void host_signals_destroy(struct host_signals *s);

/* Writing to a closed pipe becomes an error of the write. */
void host_signals_ignore_pipe(void);
/* Stops this process as SIGTSTP would have; returns when it is continued. */
void host_signals_stop_self(void);
/* Dies of the signal, so that the parent sees what happened. */
noreturn_fn void host_signals_die(int number);

#endif
