/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of the lockstep program. */
#ifndef SUNDOG_TESTS_LOCKSTEP_ARGUMENTS_H
#define SUNDOG_TESTS_LOCKSTEP_ARGUMENTS_H

#include "pair.h"

struct arguments {
    struct pair_config pair;
    uint64_t slice;      /* instructions between comparisons, at most */
    uint64_t limit;      /* instructions in all */
    uint64_t from;       /* lockstep begins here; until then A runs alone */
    uint64_t checkpoint; /* instructions between checkpoints */
    uint64_t seed;       /* of the random cuts; 0: none */
    const char *until;   /* text on the console that ends the run */
    const char *load;    /* file with a saved machine to start from */
    const char *keep;    /* file for the machine before a difference */
    const char *trace;   /* file for B's blocks */
    unsigned show;
    bool blame, stats, help;
};

/* False: something was wrong with it, and stderr says what. */
bool arguments_parse(struct arguments *o, int argc, char **argv);
void arguments_help(FILE *f);

#endif
