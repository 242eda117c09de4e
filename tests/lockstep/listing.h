/* SPDX-License-Identifier: Apache-2.0 */
/* The instructions before a point of a run, with what each changed: as the interpreter executes them one by one. */
#ifndef SUNDOG_TESTS_LOCKSTEP_LISTING_H
#define SUNDOG_TESTS_LOCKSTEP_LISTING_H

#include "pair.h"

/* Runs the interpreter from `from` and prints the last `show` instructions up to count `until`, exceptions that
 * they raise included. -errno with a message when the machine cannot be made. */
int listing_print(FILE *f, const struct pair_config *cfg, const struct checkpoint *from, uint64_t until,
                  unsigned show, struct error *e);

#endif
