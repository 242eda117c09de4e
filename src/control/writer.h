/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded, ordered output to a file, pipe or terminal that may be slow: what does not fit yet makes the
 * writer's caller wait. */
#ifndef SUNDOG_CONTROL_WRITER_H
#define SUNDOG_CONTROL_WRITER_H

#include "base/error.h"
#include "host/loop.h"

struct writer;

/* Takes a reference to `fd`. `failed` is called once, on the loop's thread, when nothing can be written
 * any more. */
struct writer *writer_create(int fd, void (*failed)(void *ctx, int err), void *ctx, struct error *e);
/* The loop that writes in the background. Before the machine runs. */
int writer_attach(struct writer *w, struct host_loop *loop, struct error *e);
/* Back to writing only in writer_drain(); the loop does not run. */
void writer_detach(struct writer *w);
/* Any thread. Returns at once while there is room, else when the reader has made some. After a failure
 * bytes are dropped. */
void writer_put(struct writer *w, const uint8_t *data, size_t len);
/* Writes what goes without waiting, so that a line elsewhere comes after it. Any thread. */
void writer_flush(struct writer *w);
/* Whoever waits in writer_put() goes on, and its bytes are dropped: the machine has to end now. Any
 * thread. */
void writer_give_up(struct writer *w);
/* Writes what is left until the host time `deadline_ns`; true when all is written or nothing can be. No
 * loop runs. */
bool writer_drain(struct writer *w, uint64_t deadline_ns);
void writer_destroy(struct writer *w);

#endif
