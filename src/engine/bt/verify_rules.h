/* SPDX-License-Identifier: Apache-2.0 */
/* What one instruction may do, and what is known behind it. */
#ifndef SUNDOG_ENGINE_BT_VERIFY_RULES_H
#define SUNDOG_ENGINE_BT_VERIFY_RULES_H

#include "engine/bt/verify.h"
#include "engine/bt/verify_insn.h"
#include "engine/bt/verify_value.h"

/* What an instruction reaches by a view; no operand: nothing. */
struct view_access {
    const struct verify_operand *operand;
    const char *broken;
    bool table;  /* of areas or requests; else guest memory */
    bool inside; /* without a fault, `at` was in an area */
    uint8_t side;
    struct value at;
};

struct place;

struct rules {
    const struct verify_unit *u;
    struct view_access view; /* of the present instruction */
    struct symbols symbols;
    bool spot_writes[SPOTS]; /* filled with translations that may be written only */
};

/* Applies instruction number i, which is no jump and no call, to the state. NULL, or the rule that is broken. */
const char *rules_apply(struct rules *r, struct verify_state *st, const struct verify_insn *in, unsigned i);

/* --- verify_jump.c: jumps, calls, exits, entries -------------------------------------------------------------------- */
/* The state on one side of a conditional jump. */
void rules_branch(struct verify_state *st, unsigned cond, bool taken);
/* May the code jump through this operand? */
const char *rules_indirect_jump(const struct rules *r, const struct verify_state *st,
                                const struct verify_insn *in);
/* Behind a call of a gate; `failed`: where it returns when C said so, 5 bytes further. */
const char *rules_call(struct rules *r, struct verify_state *st, enum verify_gate_kind kind, bool failed,
                       unsigned i);
const char *rules_exit(const struct rules *r, const struct verify_state *st, enum verify_gate_kind kind);
/* At an entry: nothing is known but what holds for every unit. */
void rules_entry(struct verify_state *st, bool guest_flags, bool linear_address);

/* --- verify_strip.c: loops whose addresses are checked once for many rounds ---------------------------------------- */
/* A step in reckoning how many rounds; false: none. */
bool strip_step(struct verify_state *st, const struct verify_insn *in);
/* SUB 1 of the rounds left, in a register or their slot. */
bool strip_spend(struct verify_state *st, const struct verify_insn *in, bool slot);
/* It was not the last one: each distance that has a credit holds so many bytes further. */
void strip_next_round(struct verify_state *st, unsigned var);
/* The group's distance is another one. */
void strip_forget_group(struct verify_state *st, unsigned group);

/* --- verify_segment.c: segments of 32-bit code; each a step, false: none ------------------------------- */
bool segment_subtract(struct verify_state *st, const struct verify_insn *in);
bool segment_above_low(struct verify_state *st, const struct verify_insn *in, unsigned seg);
bool segment_or(struct verify_state *st, const struct verify_insn *in);
/* Adds or subtracts the base that variable `var` holds. */
bool segment_with_base(struct symbols *s, struct verify_state *st, const struct verify_insn *in,
                       unsigned var);
bool segment_to_host(struct verify_state *st, const struct verify_insn *in);
bool segment_to_offset(struct rules *r, struct verify_state *st, const struct verify_insn *in);
/* A comparison that shows whether an address of 16 bits goes round. */
bool segment_wrap(struct verify_state *st, const struct verify_insn *in);

/* --- verify_return.c: returns that the host predicts ------------------------------------------------------------------ */
/* A register gets the number of a place; false: something else. */
bool return_place(struct verify_state *st, const struct verify_insn *in, unsigned i);
/* An address is noted at a place. */
const char *return_note(struct verify_state *st, const struct place *p, const struct verify_operand *o,
                        const struct value *lin);
/* The call behind a note, and the POP that it leads to: the way back is noted, too. */
const char *return_call(const struct rules *r, struct verify_state *st, const struct verify_insn *pop);
/* PUSH of a way back, with RET behind it. */
const char *return_leave(const struct rules *r, const struct verify_state *st,
                         const struct verify_insn *push);
/* Is a return address noted without a way back? Then there may be no way out. */
static inline bool return_open(const struct verify_state *st) { return st->noted.kind == V_PLACE; }
/* Where a return comes to: what is known there. */
void return_entry(const struct rules *r, struct verify_state *st);

/* --- verify_view.c: accesses by views ------------------------------------------------------------------------------- */
/* What the unit relies on when it is entered; `linear`: T0 is its address, and the page will be that one's. No jump table has units
 * that rely on anything, so that entry is followed for the sake of its bytes. */
void view_entry(struct rules *r, struct verify_state *st, bool linear);
/* Do these facts hold? NULL, or the rule that is broken. */
const char *view_facts(struct rules *r, const struct verify_state *st, const struct facts *f);
/* Behind a called instruction that changes these general registers, or (0) anything. */
void view_called(struct verify_state *st, unsigned changes);
/* Fills r->view, before anything of the instruction is done; what is small behind it; what is in reach behind it. */
void view_look(struct rules *r, const struct verify_state *st, const struct verify_insn *in);
uint32_t view_small(const struct verify_state *st, const struct verify_insn *in);
void view_done(struct rules *r, struct verify_state *st);
/* A step to a check; false: none. */
bool view_step(struct rules *r, struct verify_state *st, const struct verify_insn *in);

/* --- verify_x87.c: its control word ------------------------------------------------------------------------------ */
/* A step to one that masks all exceptions; false: none. */
bool x87_step(struct verify_state *st, const struct verify_insn *in);
/* The test of its masks found them set. */
void x87_masked(struct verify_state *st, unsigned reg);

/* --- verify_string.c: runs of string instructions ------------------------------------------------------------------- */
/* A step to or from a run; false: none. */
bool string_step(struct verify_state *st, const struct verify_insn *in, unsigned i);
/* The pending run was seen to end on its page. */
void string_run_ends(struct verify_state *st);
/* Do guest registers hold host addresses? Then there may be no way out. */
bool string_open(const struct verify_state *st);
const char *string_rep(struct verify_state *st, const struct verify_insn *in, unsigned i);

#endif
