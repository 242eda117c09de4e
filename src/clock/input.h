/* SPDX-License-Identifier: Apache-2.0 */
/* The one ordered queue by which outside events (console bytes, timer expiry, completions, requests) enter
 * the VM. */
#ifndef SUNDOG_CLOCK_INPUT_H
#define SUNDOG_CLOCK_INPUT_H

#include "base/error.h"
#include "base/types.h"

struct input_queue;

/* Where an event was taken in: recorded with it, so that a replay can deliver it at the same place. */
struct input_stamp {
    uint32_t vcpu;
    uint64_t count; /* that vcpu's retired instructions */
};

/* Receives one event, with the device lock held, on a vcpu thread at an instruction boundary. */
typedef void (*input_handler)(void *ctx, uint64_t value, const struct input_stamp *stamp);

struct input_queue *input_create(struct error *e);
void input_destroy(struct input_queue *q);
/* Registers a source; returns its small number, or -ENOSPC. Before the machine runs. */
int input_add_source(struct input_queue *q, const char *name, input_handler handler, void *ctx);
/* Posts from any thread; false when the queue (bounded) is full: the poster keeps its event and tries
 * again later. */
must_use bool input_post(struct input_queue *q, int source, uint64_t value);
/* Room left for at least n more events. */
bool input_has_room(struct input_queue *q, unsigned n);
bool input_pending(struct input_queue *q);
/* Takes all queued events in order, calls their handlers; caller holds the device lock. Returns how many. */
unsigned input_drain(struct input_queue *q, struct input_stamp stamp);
/* Called after a post, on the poster's thread, to wake a vcpu. */
void input_set_notify(struct input_queue *q, void (*notify)(void *ctx), void *ctx);
/* A tap that sees each event as it is taken in (record), may be NULL. */
void input_set_tap(struct input_queue *q,
                   void (*tap)(void *ctx, int source, uint64_t value, const struct input_stamp *s),
                   void *ctx);

#endif
