/* SPDX-License-Identifier: Apache-2.0 */
/* From "these runs differ" to the first instruction at which they do: runs again from a checkpoint, by bisection. */
#ifndef SUNDOG_TESTS_LOCKSTEP_SEARCH_H
#define SUNDOG_TESTS_LOCKSTEP_SEARCH_H

#include "pair.h"

/* Where the run was cut and compared, so that it can be repeated exactly. */
struct cut {
    uint64_t at;
    enum depth depth;
};
struct cuts {
    struct cut *cut;
    size_t n, room;
};
void cuts_add(struct cuts *c, uint64_t at, enum depth depth);

/* Checkpoints to start from, in the order in which they are tried. */
#define STARTS_MAX 3

struct search {
    const struct pair_config *cfg;
    const struct checkpoint *start[STARTS_MAX];
    unsigned starts;
    const struct cuts *cuts;
    uint64_t equal, different; /* the last point known to be equal, the first known to differ */
    unsigned show;             /* instructions listed */
    bool blame;                /* try each pass of B's engine left out */
    const char *keep;          /* file for the machine at the last equal point, or NULL */
};

/* Narrows the difference down and tells everything about it on `f`. False: it did not come again. */
bool search_report(FILE *f, struct search *s);

#endif
