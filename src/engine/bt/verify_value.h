/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verifier knows of registers and slots at a place in the code.
 *
 * Numbers are symbols plus constants: a symbol is a value that some instruction made, whatever it is. Equal symbols are equal
 * values, in every execution that comes this way: so a symbol dies when the instruction that makes it runs again, and where ways
 * meet with different values, the place of meeting makes a new symbol.
 */
#ifndef SUNDOG_ENGINE_BT_VERIFY_VALUE_H
#define SUNDOG_ENGINE_BT_VERIFY_VALUE_H

#include "engine/bt/bt.h"

/* What is followed: host registers, then slots of struct vcpu and its area. */
enum {
    VAR_GPR = 0,
    VAR_SLOT = 16, /* guest register n in memory */
    VAR_GROUP = 32,
    VAR_PAGE = VAR_GROUP + GROUP_SLOTS,
    VAR_EXIT_LIN,
    VAR_BASE, /* of segment n */
    VAR_BASE_END = VAR_BASE + SEG_COUNT - 1,
    VAR_STRIP, /* rounds left of a loop's strip */
    VAR_CALL,  /* where a return address goes, once it is known where the call goes */
    VARS
};

enum value_kind {
    V_SECRET, /* not to be seen by the guest: host addresses, the translator's own numbers */
    V_NUMBER, /* made from what the guest has: sym + c, or if narrow (sym + c modulo 2^32) + d */
    /* steps of the translator's sequences; the number that they were made from stays with them */
    V_SHIFTED,   /* low 32 bits of the number >> 7 */
    V_TLB,       /* offset of the number's slot in the TLB */
    V_TAG,       /* page of the number | generation */
    V_FROM_PAGE, /* number ^ page of spot `aux` */
    V_HASH,      /* steps of the jump table's hash */
    V_HASH_TOP,
    V_JUMP_INDEX,
    V_JUMP, /* address of the number's slot in the jump table */
    /* steps to the page of far link `aux` */
    V_FAR_GUARD, /* that, plus the id of its context */
    V_FAR_PAGE,  /* the same minus that of the present one */
    V_DELTA, /* host minus guest address of the `aux` bytes from the number on; `write`: they may be written */
    V_STAMP, /* the present stamp */
    /* steps to the distance of an offset in a segment: verify_segment.c */
    V_END,       /* end of segment aux / 2 for reading, writing (aux & 1) */
    V_END_ROOM,  /* that (`group`) - the number - aux */
    V_ABOVE_LOW, /* the number - low of segment `group` */
    V_HOSTED, /* host address of the number; aux bytes from `from` bytes further on were checked; `write`: for writing */
    /* steps to a control word of the x87: verify_x87.c */
    V_UNMASKED, /* complement of one that masks all exceptions */
    V_FCW,      /* that one */
    /* steps to the rounds of a strip: verify_strip.c */
    V_NOT,
    V_OFFSET, /* the number's offset in its page */
    V_ROOM,   /* bytes of the page behind the `aux` + 1 bytes at the number */
    V_ROUNDS, /* so many times the distances in the groups of mask `aux` may move by what their credit says */
    V_SPENT,  /* one less, perhaps below 0 */
    /* steps to a run of a string instruction: verify_string.c */
    V_BELOW_END,   /* bytes from the number to its page's end, negative */
    V_TO_END,      /* elements of `aux` bytes from the number to its page's end */
    V_COUNT,       /* no more than that */
    V_RUN_END,     /* offset in the page behind `pending` */
    V_POINTER,     /* host address of the number; `write`: may be written */
    V_DELTA_MINUS, /* -V_DELTA */
    V_ADDRESS,     /* host address of `aux` bytes; `write`: they may be written */
    V_PLACE,       /* in the table of returns: below 256 */
    /* accesses by views: verify_view.c */
    V_ENTRY, /* number of the number's entry in the table of areas */
    V_POLL,  /* offset from POLL_TABLE of a page that faults when something is requested */
    V_FAR,   /* the far side's delta */
};

struct value {
    uint8_t kind;
    bool narrow, write;
    bool exact;  /* of V_DELTA: for the number itself, not for another that is cut elsewhere */
    bool fits16; /* of V_DELTA for an address of 16 bits: its bytes do not go round */
    int8_t
        credit; /* of V_DELTA in a group: each round it moves by 1 << (credit - 1) bytes upward, or downward if negative; 0: not */
    uint8_t group; /* of V_DELTA with a credit: which group's it is, or was loaded from */
    uint16_t aux;
    int16_t from; /* V_HOSTED */
    uint32_t sym;
    int64_t c, d;
};

/* What EFLAGS are. */
enum flags_kind {
    F_SCRATCH, /* left by the translator's own instructions */
    F_GUEST,
    F_TAG,  /* comparison of a tag with a TLB slot's: equal proves value `v` a distance that is in the slot */
    F_PAGE, /* not above: proves `v` a distance that is in spot v.aux */
    F_STAMP, /* equal: the unit's spots are fresh */
    F_SIMD,  /* not below: the guest's vector registers up to level v.aux are in the host's */
    F_X87,   /* equal: the guest's x87 registers are not in the host's */
    F_MASKS, /* equal: the complement of the first register (v.aux as of F_ORDER) masks the x87's exceptions */
    F_FAR, /* equal: far link `spot` was made for page v, where this runs, and this context; register `limit` is v */
    F_JUMP,   /* equal: v is the address of the unit in the slot */
    F_RETURN, /* equal: v is the address that is noted at place `slot` of the table of returns */
    F_ORDER,  /* comparison of two registers with rounds: v.aux = first << 4 | second */
    F_SPENT,  /* not negative: a round was left in variable v.aux */
    F_MOST,   /* not above: v is at most `limit` */
    F_LESS, /* not above: the first of two registers (v.aux as above) is not more than the second, a V_TO_END */
    F_RUN,  /* not above: the pending run ends on its page */
    F_WRAP, /* not above: `limit` bytes from v on do not go round at 2^16 */
    F_LIMIT, /* not negative: `limit` bytes from v on lie in segment `spot` / 2, for reading, writing (spot & 1) */
};
struct flags_value {
    uint8_t kind;
    uint16_t spot;
    struct value v;
    struct value slot; /* F_TAG: the number by which the slot was chosen; F_RETURN */
    uint32_t limit;    /* F_MOST */
};
/* Flags that the guest may see: also those of a comparison of its own numbers that proves something. */
static inline bool flags_shown(const struct flags_value *f)
{
    return f->kind == F_GUEST || f->kind == F_MOST || f->kind == F_LESS || f->kind == F_RUN ||
           f->kind == F_WRAP;
}

/* `count` elements of `size` bytes from `at` on lie on one page. */
struct run {
    bool valid;
    uint8_t size;
    struct value at, count;
};
#define RUNS 2u

/* Every address from `below` under `at` to `above` over it is at most VIEW_REACH away from one in an area of a view. */
struct verify_reach {
    struct value at;
    uint8_t side;
    int64_t below, above;
};
#define VERIFY_REACHES 32u

struct verify_state {
    struct value var[VARS];
    struct verify_reach reach[VERIFY_REACHES];
    unsigned nreaches;
    uint32_t small; /* variables below VAR_GROUP that hold a number of 32 bits, sign- or zero-extended */
    struct flags_value flags;
    struct flags_value fact; /* what a comparison proved; F_SCRATCH: nothing */
    bool fresh;              /* the unit's spots are of the present stamp */
    uint8_t simd;            /* enum simd_level: the guest's vector registers in the host's */
    bool x87;                /* so are its x87 registers */
    struct run runs[RUNS], pending;
    struct flags_value most, limit, wrap; /* F_MOST, F_LIMIT, F_WRAP that was proved */
    struct value
        noted; /* V_PLACE: a return address was noted there, the way back is still missing; else V_SECRET */
};

/* Symbols made of others. */
struct composite {
    uint8_t op, scale;
    bool narrow;
    uint32_t a, b;
    int64_t c, d;
};
#define COMPOSITES 4096u
struct symbols {
    struct composite table[COMPOSITES];
    unsigned count;
    bool full;
};

static inline bool value_clean(const struct value *v) { return v->kind == V_NUMBER; }
/* Made of nothing but what the guest has. */
static inline bool value_harmless(const struct value *v)
{
    switch (v->kind) {
    case V_NUMBER:
    case V_UNMASKED:
    case V_FCW:
    case V_SHIFTED:
    case V_TLB:
    case V_HASH:
    case V_HASH_TOP:
    case V_JUMP_INDEX:
    case V_NOT:
    case V_OFFSET:
    case V_ROOM:
    case V_BELOW_END:
    case V_TO_END:
    case V_COUNT:
    case V_RUN_END:
    case V_PLACE: return true;
    default: return false;
    }
}
static inline struct value value_secret(void) { return (struct value){ .kind = V_SECRET }; }
static inline struct value value_number(uint32_t sym, int64_t c)
{
    return (struct value){ .kind = V_NUMBER, .sym = sym, .c = c };
}
/* A step from it, or back. */
static inline struct value value_as(struct value v, enum value_kind kind)
{
    v.kind = (uint8_t)kind;
    return v;
}
bool value_equal(const struct value *a, const struct value *b);
/* A fresh symbol for var, made by instruction i; the variable's value at an entry. */
struct value value_made(unsigned i, unsigned var);
struct value value_at_entry(unsigned var);

/* v + by, in 64 bits; the low 32 bits of v + by; a + b * scale + by in either. */
struct value value_add(struct value v, int64_t by);
struct value value_narrow(struct value v, int64_t by);
struct value value_sum(struct symbols *s, struct value a, struct value b, unsigned scale, int64_t by);
struct value value_sum_narrow(struct symbols *s, struct value a, struct value b, unsigned scale, int64_t by);
/* v - part in 32 bits, if v is such a sum; false: it is not known to be. */
/* The low 16 bits of v, as a number; a number of instruction i whose low 16 bits are those of v + by. */
struct value value_cut16(struct symbols *s, struct value v);
struct value value_low16(struct symbols *s, struct value v, int64_t by, unsigned i, unsigned var);
bool value_is16(const struct symbols *s, const struct value *v);
/* An address of 16 bits in terms of the one that the delta is for, where it is at a fixed distance; else v itself. */
struct value value_like16(const struct symbols *s, const struct value *delta, struct value v);
bool value_without(const struct symbols *s, struct value v, struct value part, struct value *out);
/* The page of v, and back: false when v is not just the page of something. */
struct value value_page(struct symbols *s, struct value v);
bool value_page_of(const struct symbols *s, struct value v, struct value *of);

/* A number that is a sum of two with a scale; false: it is none. Of both parts the symbols alone. */
bool value_parts(const struct symbols *s, const struct value *v, struct value *a, struct value *b,
                 unsigned *scale);
/* A number as symbol + c in 64 bits. */
struct value value_whole(struct symbols *s, struct value v);
/* Is a symbol made of that one? */
bool symbol_in(const struct symbols *s, uint32_t sym, uint32_t part);
/* Do `size` bytes at the number lie within those that the delta is for? */
bool delta_covers(const struct value *delta, struct value v, unsigned size);
/* Bytes from the number on that the delta is for; 0: none. */
unsigned delta_reach(const struct value *delta, struct value v);
/* The number whose slot and the last byte's number prove a delta; false: they do not. */
bool delta_from_tlb(const struct value *slot, const struct value *last, bool write, struct value *delta);

/* Two numbers that are equal modulo 2^32. */
bool value_same_low(const struct value *a, const struct value *b);

/* Instruction i is about to make symbols again: what holds older ones of them is forgotten. */
void state_forget(struct verify_state *st, const struct symbols *s, unsigned i);
/* Where ways meet, at instruction i: `at` becomes what holds on both; true when it changed. */
bool state_join(struct verify_state *at, const struct verify_state *from, struct symbols *s, unsigned i);

#endif
