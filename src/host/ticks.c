/* SPDX-License-Identifier: Apache-2.0 */
/* The monotonic clock from the time stamp counter, compared with the kernel's again and again. */
#include "host/ticks.h"

#include <x86intrin.h>

#include "base/bits.h"
#include "host/host_cpu.h"
#include "host/time.h"

__extension__ typedef unsigned __int128 u128;

#define TICKS_WINDOW \
    (1ull << 24)         /* 4 to 8 ms: comparisons that far apart tell the rate to some parts in a million */
#define PAIR_TICKS 1000u /* two clocks read within so many counts are a pair */
#define PAIR_TRIES 4u

void host_ticks_init(struct host_ticks *t)
{
    uint32_t r[4];
    atomic_init(&t->sequence, 0);
    atomic_init(&t->rate, 0);
    atomic_flag_clear(&t->busy);
    atomic_init(&t->shown, 0);
    t->seen = t->seen_ns = 0;
    host_cpuid(0x80000000, 0, r);
    bool has_leaf = r[0] >= 0x80000007;
    host_cpuid(0x80000007, 0, r); /* EDX bit 8: invariant counter (SDM 3B 17.17.1) */
    atomic_init(&t->useless, !has_leaf || !(r[3] >> 8 & 1));
}

static uint64_t extrapolate(uint64_t counts, uint64_t rate) { return (uint64_t)((u128)counts * rate >> 32); }

/* Both clocks at once; false: something came between. The kernel's was read at *counter or later: a clock that goes on from such a
 * pair is never behind the kernel's at first, from which others may have read meanwhile. */
static bool read_pair(uint64_t *counter, uint64_t *ns)
{
    for (unsigned i = 0; i < PAIR_TRIES; i++) {
        _mm_lfence();
        *counter = __rdtsc();
        *ns = host_monotonic_ns();
        if (__rdtsc() - *counter < PAIR_TICKS)
            return true;
    }
    return false;
}

/* The rate between two comparisons; 0: not to be believed. */
static uint64_t rate_between(uint64_t counts, uint64_t ns, uint64_t before)
{
    if (counts < TICKS_WINDOW || counts >> 40 || ns >> 31)
        return before;
    uint64_t rate = (uint64_t)(((u128)ns << 32) / counts);
    bool jumped = before && (rate > before + before / 256 || rate < before - before / 256);
    return jumped ? 0 : rate;
}

static uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* A reading of the kernel's clock, or what was shown already; noted, so that who goes on from an older one begins there. */
static uint64_t show(struct host_ticks *t, uint64_t ns)
{
    uint64_t shown = atomic_load(&t->shown);
    while (shown < ns && !atomic_compare_exchange_weak(&t->shown, &shown, ns))
        ;
    return later(shown, ns);
}

/*
 * The clock goes on from this comparison, or where somebody has shown more meanwhile, from there. Who shows a reading looks at the
 * sequence afterwards: either it sees that this has begun, and shows it to nobody, or this sees it. False: somebody was just between, and
 * all is as it was. The caller has `busy`, and shows *ns.
 */
static bool publish(struct host_ticks *t, uint64_t at, uint64_t *ns, uint64_t rate)
{
    uint64_t shown = atomic_load(&t->shown), now = __rdtsc();
    atomic_fetch_add(&t->sequence, 1);
    bool alone = atomic_load(&t->shown) == shown;
    if (alone) {
        at = shown > *ns ? now : at;
        *ns = later(*ns, shown);
        atomic_store_explicit(&t->at, at, memory_order_release);
        atomic_store_explicit(&t->at_ns, *ns, memory_order_release);
        atomic_store_explicit(&t->rate, rate, memory_order_release);
    }
    atomic_fetch_add_explicit(&t->sequence, 1, memory_order_release);
    return alone;
}

/* The present window is over, or there is none. The caller has `busy`. */
static uint64_t compare(struct host_ticks *t)
{
    uint64_t counter, ns, last = 0;
    uint64_t rate = atomic_load_explicit(&t->rate, memory_order_relaxed),
             from = atomic_load_explicit(&t->at_ns, memory_order_relaxed),
             counts = __rdtsc() - atomic_load_explicit(&t->at, memory_order_relaxed);
    if (rate && counts < TICKS_WINDOW) /* another one was here just now */
        return from + extrapolate(counts, rate);
    if (rate)
        last = from + extrapolate(TICKS_WINDOW, rate); /* it may have been shown */
    bool paired = read_pair(&counter, &ns), useless = atomic_load_explicit(&t->useless, memory_order_relaxed);
    uint64_t since = counter - t->seen, next = later(ns, last);
    if (!paired || useless || (t->seen && since < TICKS_WINDOW))
        return show(t, next);
    uint64_t now = t->seen ? rate_between(since, ns - t->seen_ns, rate) : 0;
    bool published = now && publish(t, counter, &next, now);
    if (published || !now) {
        t->seen = counter;
        t->seen_ns = ns;
    }
    if (published)
        return next;
    next = show(t, next);
    if (rate && !now) /* whoever sees this sees what was shown, too */
        atomic_store_explicit(&t->useless, true, memory_order_release);
    return next;
}

/* While another thread compares: the kernel's clock, but not less than what the window may have shown. False: it has changed
 * meanwhile, and goes on from what may be less. */
static bool read_meanwhile(struct host_ticks *t, uint32_t sequence, uint64_t last, uint64_t *ns)
{
    *ns = show(t, later(host_monotonic_ns(), last));
    return atomic_load(&t->sequence) == sequence;
}

uint64_t host_ticks_ns(struct host_ticks *t)
{
    if (unlikely(atomic_load_explicit(&t->useless, memory_order_acquire)))
        return later(host_monotonic_ns(), atomic_load_explicit(&t->shown, memory_order_relaxed));
    for (;;) {
        uint32_t before = atomic_load_explicit(&t->sequence, memory_order_acquire);
        uint64_t rate = atomic_load_explicit(&t->rate, memory_order_relaxed),
                 ns = atomic_load_explicit(&t->at_ns, memory_order_relaxed),
                 counts = __rdtsc() - atomic_load_explicit(&t->at, memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire); /* read before the sequence is looked at again */
        if (unlikely(before & 1 || before != atomic_load_explicit(&t->sequence, memory_order_relaxed)))
            continue;
        if (likely(rate && counts < TICKS_WINDOW))
            return ns + (counts * rate >> 32);
        if (rate && -counts < TICKS_WINDOW) /* read just before the comparison that is in force */
            return ns;
        if (!atomic_flag_test_and_set_explicit(&t->busy, memory_order_acquire)) {
            ns = compare(t);
            atomic_flag_clear_explicit(&t->busy, memory_order_release);
            return ns;
        }
        if (read_meanwhile(t, before, rate ? ns + extrapolate(TICKS_WINDOW, rate) : 0, &ns))
            return ns;
    }
}
