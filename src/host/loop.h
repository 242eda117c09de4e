/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: file descriptors, timers and wake-ups served by one thread. Sleeps without any wake-up
 * of its own. */
#ifndef SUNDOG_HOST_LOOP_H
#define SUNDOG_HOST_LOOP_H

#include "base/error.h"
#include "base/types.h"

struct host_loop;

enum host_ready { HOST_READABLE = 1, HOST_WRITABLE = 2, HOST_HANGUP = 4 };

int host_loop_create(struct host_loop **loop, struct error *e);
void host_loop_destroy(struct host_loop *loop);

/* Serves until host_loop_quit(). One thread at a time. */
void host_loop_run(struct host_loop *loop);
/* Ends host_loop_run() after the callback under way; any thread. */
void host_loop_quit(struct host_loop *loop);

/* Watches `fd` (not owned) for `events` (HOST_*, 0 = none now). Files that cannot be polled count as
 * always ready. Returns the watch's number. Watches are added, changed and removed on the loop's thread,
 * or while it does not run. */
int host_loop_add(struct host_loop *loop, int fd, unsigned events, void (*ready)(void *ctx, unsigned events),
                  void *ctx, struct error *e);
void host_loop_change(struct host_loop *loop, int watch, unsigned events);
void host_loop_remove(struct host_loop *loop, int watch);

/* A doorbell: ring from any thread, `fn` runs on the loop's thread; many rings may become one call. */
struct host_bell;
struct host_bell *host_bell_create(struct host_loop *loop, void (*fn)(void *ctx), void *ctx, struct error *e);
void host_bell_ring(struct host_bell *bell);
void host_bell_destroy(struct host_bell *bell);

/* A one-shot timer on the host's CLOCK_MONOTONIC. Set (absolute ns, UINT64_MAX = off) from any thread. */
struct host_timer;
struct host_timer *host_timer_create(struct host_loop *loop, void (*fn)(void *ctx), void *ctx,
                                     struct error *e);
void host_timer_set(struct host_timer *timer, uint64_t at_ns);
void host_timer_destroy(struct host_timer *timer);

#endif
