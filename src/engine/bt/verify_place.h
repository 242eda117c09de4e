/* SPDX-License-Identifier: Apache-2.0 */
/* What an operand is: a declared slot of struct vcpu or its area, an entry of a table, guest memory; and what may be put there. */
#ifndef SUNDOG_ENGINE_BT_VERIFY_PLACE_H
#define SUNDOG_ENGINE_BT_VERIFY_PLACE_H

#include "engine/bt/verify_rules.h"

enum slot_kind {
    SLOT_VALUE,
    SLOT_NUMBER,
    SLOT_OWN,
    SLOT_ROUNDS,
    SLOT_END,
    SLOT_LOW,
    SLOT_ADDRESS,
    SLOT_FLAGS,
    SLOT_GEN,
    SLOT_STAMP,
    SLOT_SIMD,
    SLOT_X87,
    SLOT_FCW,
    SLOT_JUMPS,
    SLOT_CONTEXT,
    SLOT_FAR
};

struct slot {
    int32_t at;
    uint16_t size;
    uint8_t rights, kind, var; /* var: of SLOT_VALUE and SLOT_ROUNDS; of SLOT_FLAT which */
};

/* What a memory operand is. */
enum place_kind {
    PLACE_SLOT,
    PLACE_GROUP,
    PLACE_TLB,
    PLACE_SPOT,
    PLACE_JUMP,
    PLACE_FAR,
    PLACE_RETURN,
    PLACE_GUEST,
    PLACE_VIEW_TABLE
};
struct place {
    enum place_kind kind;
    const struct slot *slot;
    unsigned var;   /* SLOT_VALUE, PLACE_GROUP */
    unsigned field; /* PLACE_TLB, _SPOT, _JUMP, _FAR: offset in the entry; _RETURN: in the table */
    unsigned link;  /* PLACE_FAR: of the unit */
    unsigned spot;
};

/* NULL and *p, or the rule that the memory operand breaks. */
const char *place_of(const struct rules *r, struct place *p, const struct verify_state *st,
                     const struct verify_operand *o);
/* The value of a whole slot; what is not followed is a number of instruction i, or a secret. */
struct value slot_value(const struct verify_state *st, const struct place *p, unsigned i);
/* By instruction i. NULL, or the rule that is broken. */
const char *set_slot(struct verify_state *st, const struct place *p, struct value v, unsigned i);
const char *set_register(struct verify_state *st, unsigned reg, struct value v);

/* Host registers that are guest registers: all but RSP and the scratch registers. */
#define GUEST_REGISTERS 0x8fefu
static inline bool is_guest_register(unsigned reg) { return GUEST_REGISTERS >> reg & 1; }

#endif
