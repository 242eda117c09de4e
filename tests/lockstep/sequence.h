/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random programs of a few instructions, made from the instruction table: operands that mostly lie in memory, loops,
 * calls, stores to their own code, and for the supervisor changes of mode, privilege and page tables.
 */
#ifndef SUNDOG_TESTS_LOCKSTEP_SEQUENCE_H
#define SUNDOG_TESTS_LOCKSTEP_SEQUENCE_H

#include "base/types.h"

/* --- numbers -------------------------------------------------------------------------------------------------- */

struct random {
    uint64_t x; /* never 0 */
};
uint64_t random_next(struct random *r);
uint64_t random_below(struct random *r, uint64_t n);
/* Values at which carries, signs and widths change, small ones, and others. */
uint64_t random_edge(struct random *r);
/* SSE registers and operands: integers, floats, doubles with their special values. */
void random_vector(struct random *r, uint8_t *out, unsigned bytes);

/* --- where a program runs -------------------------------------------------------------------------------------- */

#define DATA_PAGES_MAX 8u

/* What the generator knows about the place. Offsets are what instructions use: linear minus the segment's base. */
struct place {
    unsigned code_bytes; /* 2, 4, 8 */
    bool supervisor;     /* privileged instructions may run, mode and tables may change */
    uint64_t features;   /* FEATURE_BIT of the extensions that programs use; 0: none */
    bool native;         /* the host's own processor runs it, too: nothing that its kernel would see */
    uint64_t rip;        /* offset of the first byte in CS */
    uint64_t code;       /* offset of the first byte in DS, for stores to the code */
    uint64_t data;       /* offset of the data pages in DS */
    unsigned data_pages;
    uint64_t table; /* offset in DS of the data pages' entries in the page table; 0: none to be changed */
    unsigned entry; /* bytes of such an entry */
    uint32_t frame[DATA_PAGES_MAX];     /* the low half of each entry as it was */
    uint16_t code_sel[4], stack_sel[4]; /* where IRET and far returns go: selectors that belong together */
    unsigned sels;
};

/* An offset in DS for an operand: in a data page, often near its end, now and then elsewhere. */
uint64_t place_pointer(const struct place *p, struct random *r);

/* --- programs ---------------------------------------------------------------------------------------------------- */

#define SEQUENCE_BYTES 1024u
#define SEQUENCE_ITEMS 40u

struct sequence {
    uint8_t code[SEQUENCE_BYTES];
    unsigned len;
    unsigned items; /* 1..SEQUENCE_ITEMS; an item may be several instructions */
    uint16_t start[SEQUENCE_ITEMS + 1];
};

/* A new program. It does not end by itself: what follows it does. */
void sequence_make(struct sequence *s, const struct place *p, struct random *r);
/* Its bytes and instructions as lines on stderr. */
void sequence_print(const struct sequence *s, const struct place *p);

#endif
