/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a program go on with translations that are out of date?
 *
 * Who changes a page table's entry without INVLPG may see the old translation or the new one, at each access anew (SDM 3A 4.10.4.3),
 * and the processor chooses. Engines choose in different ways, and both are right. So what follows is no matter for a comparison.
 */
#ifndef SUNDOG_TESTS_STALE_H
#define SUNDOG_TESTS_STALE_H

#include "cpu/vcpu.h"

struct stale {
    struct pmap *pmap;
    uint64_t table;   /* guest-physical, of the one page table that the program can change */
    unsigned entry;   /* bytes of an entry, 4 or 8; 0: no paging, and nothing is looked for */
    bool begun, open; /* open: an instruction ran while an entry was out of date */
    uint64_t flushes; /* of all, until now */
    uint64_t stamp;   /* mmu.stamp when it was looked at last */
    bool old[1024];   /* entries that were changed, and not dropped since */
    uint8_t known[4096];
};

/* A tracer of the interpreter's: before each instruction. `ctx`: struct stale, zero but for the first fields. */
void stale_step(void *ctx, const struct vcpu *v);

#endif
