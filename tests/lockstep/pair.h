/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two whole machines of one configuration that differ in their engine alone, run by the same counts of
 * instructions and compared: processors and chips field by field, RAM byte by byte, console and end.
 *
 * Both machines are deterministic, so whatever differs is the engines' doing.
 */
#ifndef SUNDOG_TESTS_LOCKSTEP_PAIR_H
#define SUNDOG_TESTS_LOCKSTEP_PAIR_H

#include "states.h"
#include "vm/vm.h"

enum { SIDE_A, SIDE_B, SIDES };

struct pair_config {
    const char *engine[SIDES];
    const char *cpu_model; /* NULL: the default */
    struct engine_config engine_config[SIDES];
    struct board_config board;
    unsigned cpus;
    uint64_t memory;
    uint64_t ns_per_1k_insns;
    bool whole;     /* compare all of RAM each time: no dirty log, so the TLBs are left alone */
    bool strict;    /* accessed and dirty bits alone are a difference, too */
    bool echo;      /* A's console goes to stdout */
    bool single;    /* A, an interpreter, runs one instruction at a time */
    uint64_t plant; /* a bit of B's DR0 is turned over at this count, to see the proof fail; 0: never */
};

/* A machine's saved state at an instruction count; `data` NULL: power-on. */
struct checkpoint {
    uint64_t at;
    uint8_t *data;
    size_t len;
};
void checkpoint_free(struct checkpoint *c);

struct console {
    char *text;
    size_t len, room;
    bool echo;
};

struct side {
    struct vm *vm;
    struct log log;
    struct console console;
    uint64_t *dirty; /* bitmap of the dirty log */
    double seconds;  /* spent running */
};

struct pair {
    struct pair_config cfg;
    struct side side[SIDES];
    size_t pages; /* that the bitmaps cover */
    uint64_t compared_pages, ad_words;
};

/* How much one comparison looks at. */
enum depth { DEPTH_STATES, DEPTH_DIRTY, DEPTH_WHOLE };

#define REPORT_FIELDS 48u
#define REPORT_WORDS 12u

/* An aligned quadword of RAM that differs. */
struct word_difference {
    uint64_t addr, a, b;
};

struct report {
    unsigned fields, words, ad_words; /* how many differ; the first of them are listed */
    struct difference field[REPORT_FIELDS];
    struct word_difference word[REPORT_WORDS], ad_word[REPORT_WORDS];
    size_t console[SIDES]; /* lengths, when the outputs differ */
    enum vm_end end[SIDES];
    bool console_differs, end_differs;
};

/* NULL with a message. `from`: where both start. */
struct pair *pair_create(const struct pair_config *cfg, const struct checkpoint *from, struct error *e);
void pair_destroy(struct pair *p);
/* Both go on to `count` instructions; false when A ended before. */
bool pair_run(struct pair *p, uint64_t count);
/*
 * True when both are equal. Quadwords of RAM that look like page-table entries and differ in accessed and
 * dirty bits alone are listed apart and, unless `strict`, given to B as A has them: when a TLB writes these
 * bits is not fixed for guests that clear them without a flush.
 */
bool pair_equal(struct pair *p, enum depth depth, struct report *r);
void report_print(FILE *f, const struct pair *p, const struct report *r);
/* A's instruction count; how A ended. */
uint64_t pair_count(const struct pair *p);
enum vm_end pair_end(const struct pair *p);
/* Saves A. */
int pair_checkpoint(struct pair *p, struct checkpoint *out, struct error *e);

#endif
