/* SPDX-License-Identifier: Apache-2.0 */
/* The virtual clock: nanoseconds since the VM's power-on, its deadlines, and the two modes that drive it. */
#ifndef SUNDOG_CLOCK_CLOCK_H
#define SUNDOG_CLOCK_CLOCK_H

#include "base/error.h"
#include "base/types.h"

/* CLOCK_REAL_TIME follows the host's monotonic clock while the VM runs; CLOCK_DETERMINISTIC follows
 * retired instructions (ns = count * ns_per_1k_insns / 1000). */
enum clock_mode { CLOCK_REAL_TIME, CLOCK_DETERMINISTIC };

struct clock; /* thread-safe: one internal lock (a leaf). Created paused at 0 */

struct clock *clock_create(enum clock_mode mode, uint64_t ns_per_1k_insns, struct error *e);
void clock_destroy(struct clock *clk);

/* Virtual now in ns. Monotone on all threads. Does not advance while paused. */
uint64_t clock_now(struct clock *clk);
void clock_pause(struct clock *clk);
void clock_resume(struct clock *clk);
/* Sets the virtual time (restore of a saved machine); only while paused. */
void clock_set(struct clock *clk, uint64_t ns);
/* Deterministic mode: total retired instructions so far. Time may also be skipped forward when all vcpus
 * sleep. */
void clock_set_count(struct clock *clk, uint64_t retired);
void clock_skip_to(struct clock *clk, uint64_t ns);
enum clock_mode clock_get_mode(const struct clock *clk);
/* Deterministic mode: retired-instruction count at which virtual time reaches `ns`. */
uint64_t clock_count_at(struct clock *clk, uint64_t ns);

/* The wall clock in seconds since 1970 at virtual time 0, for the RTC and the paravirtual wall clock. Set
 * at creation. */
uint64_t clock_wall_base_ns(const struct clock *clk);
void clock_set_wall_base_ns(struct clock *clk, uint64_t ns);

/* A deadline on the clock. Owned by a device or LAPIC (embedded, zero-initialised, then deadline_init).
 * The callback runs with the device lock held, on a vcpu thread, after the deadline came due; late and
 * coalesced ticks are the owner's affair. */
struct deadline {
    void (*fire)(void *ctx, uint64_t now);
    void *ctx;
    uint64_t at;       /* virtual ns */
    uint32_t heap_pos; /* 0 = not armed, else index + 1 */
};

void deadline_init(struct deadline *d, void (*fire)(void *ctx, uint64_t now), void *ctx);
/* Arms or moves. Any thread. If it becomes the earliest, the clock's notify callback is called. */
void deadline_arm(struct clock *clk, struct deadline *d, uint64_t at);
void deadline_cancel(struct clock *clk, struct deadline *d);

/* Earliest armed deadline in virtual ns, UINT64_MAX if none. */
uint64_t clock_next_deadline(struct clock *clk);
/* Host CLOCK_MONOTONIC ns at which virtual time reaches `ns` (real-time mode, running); UINT64_MAX while
 * paused. */
uint64_t clock_host_time_of(struct clock *clk, uint64_t ns);
/* Fires everything due at clock_now(), earliest first. Caller holds the device lock. Bounded: each
 * deadline at most once a call. */
void clock_run_due(struct clock *clk);
/* Called (any thread, no locks of the clock held) when an earlier deadline than before was armed. */
void clock_set_notify(struct clock *clk, void (*notify)(void *ctx), void *ctx);

#endif
