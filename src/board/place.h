/* SPDX-License-Identifier: Apache-2.0 */
/* Who lies where in the guest's RAM at boot: each loaded thing claims its range, so that no two overlap. */
#ifndef SUNDOG_BOARD_PLACE_H
#define SUNDOG_BOARD_PLACE_H

#include "base/error.h"
#include "base/types.h"
#include "board/memmap.h"

#define PLACES_MAX 128

struct place {
    uint64_t base, len;
    const char *what;
};

struct placement {
    const struct memory_map *map;
    struct place used[PLACES_MAX];
    unsigned count;
};

/* Claims exactly [base, base+len), len > 0. -ENOMEM when it is not all RAM, -EEXIST when another thing lies
 * there; parts of the same thing (`what` is the same pointer) may overlap. */
int place_fixed(struct placement *p, uint64_t base, uint64_t len, const char *what, struct error *e);

/* Claims the highest free range that ends at or below `top`; `align` is a power of two. -ENOMEM: none. */
int place_below(struct placement *p, uint64_t len, uint64_t align, uint64_t top, const char *what,
                uint64_t *base, struct error *e);

/* Claims the lowest free range at or above `bottom`. */
int place_above(struct placement *p, uint64_t len, uint64_t align, uint64_t bottom, const char *what,
                uint64_t *base, struct error *e);

#endif
