/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes: long runs of a guest's user memory, shown side by side in the host.
 *
 * A guest's pages lie anywhere in the host's memory. A string instruction over many of them is a piece a page, where the same
 * program on the host has one. What such instructions went over again and again, for about as long as it takes to map it once
 * more in the guest's order, is mapped so; from then on it is one piece. A lane relies on translations as a TLB entry does: it
 * holds under one mmu.stamp, and under later ones as long as what was dropped meanwhile is none of its pages.
 */
#ifndef SUNDOG_ENGINE_INTERP_LANE_H
#define SUNDOG_ENGINE_INTERP_LANE_H

#include "cpu/vcpu.h"

struct lanes;

/* Runs of fewer bytes are no matter. */
#define LANE_MIN (32u << 10)

/* The host address of `lin` in a lane for this access, NULL: there is none. *len: bytes of it from there on; *lane: its number.
 * A lane that is worth making is made here, some pages at each call. May mark the page of `lin` accessed and dirty, as the access
 * would. `lanes`: the vcpu's, may be NULL. Raises nothing. */
uint8_t *lane_find(struct lanes *lanes, struct vcpu *v, uint64_t lin, enum mmu_access access, uint64_t *len,
                   unsigned *lane);
/* Have these two no page in common, or are they the same one? Else addresses in them do not tell whether runs overlap. */
bool lanes_apart(const struct lanes *lanes, unsigned a, unsigned b);
/* A run of `bytes` from `lin` on was begun or went on without a lane, and took so many counts of the time stamp counter.
 * *lanes: made when it is NULL, where there is memory. */
void lane_paid(struct lanes **lanes, struct vcpu *v, uint64_t lin, uint64_t bytes, enum mmu_access access,
               uint64_t ticks);
void lanes_free(struct lanes *lanes);

#endif
