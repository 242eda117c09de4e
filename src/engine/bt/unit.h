/* SPDX-License-Identifier: Apache-2.0 */
/* A unit while it is being made: what form.c decoded, plan.c found out, and the emitting files write down. */
#ifndef SUNDOG_ENGINE_BT_UNIT_H
#define SUNDOG_ENGINE_BT_UNIT_H

#include "engine/bt/bt.h"

/* What is done with an instruction. */
enum how {
    HOW_BAIL, /* left to the interpreter: ends the unit */
    HOW_NOP,
    HOW_COPY, /* re-encoded with the host's registers and addresses */
    HOW_SIMD, /* the same, with vector registers */
    HOW_X87,  /* x87 and MMX: x87.c */
    HOW_LEA,
    HOW_MOFFS,
    HOW_PUSH,
    HOW_POP,
    HOW_LEAVE,
    HOW_CALL,
    HOW_CALL_IND,
    HOW_RET,
    HOW_JMP,
    HOW_JMP_IND,
    HOW_JCC,
    HOW_LOOP, /* LOOP, LOOPE, LOOPNE, JCXZ: to their own page */
    HOW_CLD,
    HOW_STRING,
    HOW_INLINE, /* CLI, STI, SWAPGS and others, without a call */
    HOW_SWITCH, /* STAC, CLAC: ends the unit */
    HOW_TURN,   /* SYSCALL, SYSRET of 64-bit code: ends the unit */
    HOW_BITS,   /* a bit test in memory, the number in a register */
    HOW_PUSHF,
    HOW_PUSH_SEG,
    HOW_LOAD_SEG, /* DS, ES, FS, GS from a register, memory or the stack, where a selector is a base */
    HOW_CALL_OUT, /* the interpreter's handler is called: system.c */
};

/* Symbolic value of a register: what it was when last unknown, plus a constant. */
struct symbol {
    uint16_t id; /* 0 = none */
    int64_t add;
};

#define NO_GROUP (-1)
#define FAR_SIDE (-2) /* as delta_group: T1 is the delta of the view's far side */

/* Base 0 and no limit: in 64-bit code all segments but FS and GS; in flat code DS, ES and SS. */
#define SEG_PLAIN 6u

/* One access of an instruction to memory. */
struct access {
    bool used : 1, write : 1, read : 1;
    bool aligned : 1; /* faults unless 16-byte aligned */
    bool
        probe : 1; /* a mask says what of it is accessed: shares its check with nobody, and it marks nothing */
    bool doubtful : 1; /* once it is checked the instruction may still fault */
    bool narrow : 1;   /* its offset has 16 bits */
    bool whole : 1;    /* the address is reckoned first, index and all */
    bool loose : 1;    /* its index is small: `first` checks the base alone */
    bool view : 1;     /* by the view: `first` checks the area only; no spot, no slot */
    bool first : 1;    /* of its group: makes the check */
    uint8_t side : 1;  /* enum view_side */
    uint8_t size;
    uint8_t seg; /* enum seg, or SEG_PLAIN */
    int8_t group;
    uint16_t spot; /* its own, 0: none yet */
    int64_t at;    /* offset from the group's symbols */
};

/* Accesses at constant distances from each other, close together: one check serves them all. */
struct group {
    uint16_t base, index; /* symbol ids */
    uint8_t scale, seg;
    bool write, read_first;
    int64_t low, high; /* bytes from the symbols, [low, high) */
    uint8_t count;
    bool slot;      /* kept in memory for later accesses */
    bool hoisted;   /* checked once for a strip of a loop */
    int64_t stride; /* bytes it moves each time round */
    bool closed;    /* no later access may join: translations may have changed */
};
#define GROUP_SPAN 256
/* Symbols: 0 none, 1..16 the registers at the unit's start, then the page's address; above SYMBOLS_FIXED made on the way. */
#define SYMBOL_RIP 17u
#define SYMBOLS_FIXED 32u

struct planned {
    struct insn in;
    struct access mem, stack;
    struct facts facts; /* behind a jump and the last one: reach_facts(), reach_passes() */
    uint16_t passes;
    uint16_t off, end; /* offsets in the page */
    enum how how : 8;
    bool lesson : 1;  /* HOW_CALL_OUT: only since its check fails */
    bool alone : 1;   /* shares its checks with no other */
    uint32_t host_at; /* where its code begins in the cache */
    struct insn_effects fx;
};

/* An address that was in an area of the view: at = what is added to its symbols. */
struct reach {
    uint16_t base, index;
    uint8_t scale, seg, side;
    bool inside; /* else it is only near one: a fact */
    int64_t at;
};
#define REACHES 32u

/* Registers while a plan is made. */
struct tracker {
    struct symbol reg[16];
    uint16_t next;
    uint8_t bytes; /* register width that addresses are made of: the rest does not matter */
    uint8_t sp_bytes;
    bool view;      /* else nothing is known or asked of what follows */
    uint16_t small; /* registers that hold a number of 32 bits */
    unsigned nreaches;
    struct reach reaches[REACHES];
};

struct unit_plan {
    unsigned count, ngroups;
    uint16_t start; /* offset in the page */
    /* The first jump back to the start, or -1; there, registers that moved by a constant since the start, and by how much. */
    int back;
    uint16_t steady;
    int64_t stride[16];
    bool code64, flat_cs;
    bool view; /* KEY_VIEW */
    struct bt_window window;
    uint8_t code_bytes; /* of the code's own addresses: 2, 4, 8 */
    uint8_t sp_bytes;   /* of the stack pointer: 2, 4, 8 */
    struct facts facts, wanted;
    bool crossing; /* the first instruction goes on on the next page; none is in the plan */
    struct group groups[GROUP_SLOTS];
    struct planned insns[UNIT_INSNS];
};

enum flags_state { FLAGS_E, FLAGS_S, FLAGS_R };

/* How to make the flags again: `kind` a, b where b is a register or `imm`. For ADD and SUB a holds the result. */
struct recipe {
    enum { RECIPE_NONE, RECIPE_CMP, RECIPE_TEST, RECIPE_ADD, RECIPE_SUB } kind : 8;
    uint8_t a, b, size;
    int32_t imm;
    uint16_t inputs; /* registers that must stay as they are */
};

#define STATUS_FLAGS 0x8d5u
enum flag_use { FLAGS_UNUSED, FLAGS_NEEDED, FLAGS_DEFINED };
static inline enum flag_use flag_use(const struct planned *p)
{
    unsigned w = p->fx.flags_written & STATUS_FLAGS;
    if ((p->fx.flags_read | p->fx.flags_maybe) & STATUS_FLAGS || (w && w != STATUS_FLAGS))
        return FLAGS_NEEDED;
    return w ? FLAGS_DEFINED : FLAGS_UNUSED;
}

/* What is to be written about the last x87 instruction before anybody looks: x87.c. */
struct x87_note {
    bool pending, operand_pending; /* FIP and FOP; FDP */
    uint8_t seg;                   /* of the operand, plus 1; 0: none */
    uint16_t off, fop;
    struct amode operand; /* its guest address */
};

/* Code out of the way, written behind the unit's body. */
struct stub {
    enum stub_kind {
        STUB_FILL,     /* a check failed */
        STUB_EXIT,     /* leaves */
        STUB_LOOKUP,   /* a target is not in the jump table: looks it up, or leaves */
        STUB_LINK,     /* leaves for another place on this page, until it is linked */
        STUB_FAR,      /* a branch to another page */
        STUB_FAR_LINK, /* it is not linked for this page and context: links it, or leaves */
        STUB_RETURN,   /* a return to an address that its call has not left: by the jump table */
        STUB_COUNT,    /* too few instructions left */
        STUB_UNLINK,   /* a request is seen where there is no leaving: the unit's links are undone */
        STUB_SIMD,     /* loads vector registers */
        STUB_X87,      /* loads x87 registers */
        STUB_SPOT,     /* the same for a spot */
        STUB_SPOTS,    /* the unit's spots are out of date */
        STUB_STRIP,    /* a strip's set-up failed */
        STUB_LOOP,     /* to the body's second copy */
        STUB_CALL,     /* does the instruction by a call */
    } kind : 8;
    enum flags_state state : 8;
    bool flags_e; /* STUB_CALL: goes back in state E */
    uint8_t base; /* STUB_FILL: address = base + disp */
    int32_t disp;
    uint8_t *from;  /* rel32 of the jump that comes here, or NULL */
    uint8_t *from2; /* another one, or NULL */
    uint64_t retry; /* where to go back */
    struct recipe recipe;
    struct x87_note x87;
    uint32_t fill;  /* STUB_FILL: its argument; STUB_LINK: key that is wanted; STUB_FAR_LINK: slot */
    uint32_t info;  /* STUB_EXIT, STUB_FILL, STUB_COUNT: the exit */
    int32_t site;   /* STUB_EXIT: index in the cache's sites to be completed, or -1 */
    uint16_t sites; /* how many from there on */
    uint16_t target;
    uint16_t index;     /* of the instruction */
    uint16_t rest;      /* STUB_LINK, STUB_FAR: instructions of the unit that are not executed */
    uint16_t passes;    /* STUB_LINK */
    struct facts facts; /* STUB_LINK */
    int64_t far_target;
    uint8_t level; /* STUB_SIMD: enum simd_level */
};
#define STUBS (8 * UNIT_INSNS)

struct translation {
    struct bt *b;
    struct bt_unit *unit;
    struct emitter e;
    uint32_t key;
    enum flags_state state;
    struct recipe recipe; /* of the flags, when in state E or R */
    unsigned recipe_of;   /* the instruction that it is about */
    uint8_t simd_ready;   /* enum simd_level that is known to be loaded */
    bool x87_ready;       /* x87 registers are known to be loaded */
    struct x87_note x87;
    bool polled;       /* a request would have been seen on the way here */
    bool spots_fresh;  /* the stamp of the unit's spots was compared on the way here */
    int delta_group;   /* group whose distance T1 holds, or NO_GROUP */
    unsigned index;    /* of the instruction being emitted */
    unsigned shadowed; /* index + 1 of the instruction behind an STI; 0: none */
    bool failed;       /* out of room */
    /* The body's second copy, entered by jumps back to the unit's start: the flags there are known by a recipe. */
    bool has_loop;
    enum flags_state loop_state;
    struct recipe loop_recipe;
    bool flags_dead;  /* at the unit's start nobody looks at the flags before they are defined */
    uint32_t body_at; /* where the first body begins */
    uint8_t loop_simd;
    bool loop_x87, loop_spots; /* simd_ready, x87_ready, spots_fresh there */
    bool loops;                /* a second copy is wanted */
    uint32_t loop_at;          /* offset in the cache, 0: not made yet */
    bool strip;                /* the copy being made has no checks for hoisted groups */
    uint32_t strip_next, checked_at;
    uint8_t *to_checked;
    int kept_group, lasting_group;   /* in a strip: groups whose distances T0 and T1 hold, or NO_GROUP */
    uint32_t host_start, host_stubs; /* offsets in the cache */
    unsigned nstubs;
    /* Not cleared for each unit: */
    struct unit_plan plan;
    struct stub stubs[STUBS];
};

static inline bool is_conditional(enum how how) { return how == HOW_JCC || how == HOW_LOOP; }
/* Where a direct jump goes: offset in the page, if it is on it. */
static inline int64_t jump_target(const struct planned *p) { return p->end + (int64_t)p->in.imm; }
static inline bool in_window(const struct unit_plan *p, int64_t to)
{
    return to >= p->window.low && to < p->window.high;
}
/* Does it go to a place in the window, whatever rip is? One that cuts rip to 16 bits does so in 16-bit code only: a
 * window never reaches beyond 64 KiB there. */
static inline bool jump_stays(const struct unit_plan *p, const struct planned *x)
{
    return in_window(p, jump_target(x)) && (x->in.opsize > 2 || p->code_bytes == 2);
}
/* Outside 64-bit mode: is it an access by a segment whose base, limit and type matter? */
static inline bool seg_checked(const struct unit_plan *p, unsigned seg)
{
    return !p->code64 && seg != SEG_PLAIN;
}

static inline bool key_code64(uint32_t key) { return (key & MODE_CODE_MASK) == MODE_CODE64; }
static inline bool by_view(const struct translation *t) { return t->key & KEY_VIEW; }
/* What of the vector registers is loaded wherever guest code runs. */
static inline enum simd_level simd_always(const struct translation *t)
{
    return (t->key & (KEY_VIEW | KEY_SSE)) == (KEY_VIEW | KEY_SSE) ? SIMD_SSE : SIMD_NONE;
}
static inline bool counting(const struct translation *t) { return t->key & KEY_COUNT; }
/* The host register of a guest's, or H_NONE: it is in memory. */
static inline unsigned host_of(unsigned guest)
{
    return guest == RSP ? GUEST_RSP : guest <= R11 ? guest : H_NONE;
}

/* --- form.c: decodes a unit ---------------------------------------------------------------------------------- */
/* Claims the bytes that it decodes; returns the version of the page's code that they are of. */
uint32_t unit_form(struct unit_plan *p, struct bt *b, const struct bt_code *where, uint32_t key);
/* One instruction of these bytes, from two pages; false: none. */
bool unit_form_crossing(struct unit_plan *p, const struct bt *b, const uint8_t bytes[INSN_MAX], gpa addr,
                        uint32_t key);

/* --- unroll.c: inner loops whose rounds are known are written out ------------------------------------------------ */
/* What is known behind the instruction that was appended last. Begins as zeros. */
struct unroll {
    uint64_t value[16];
    uint16_t known; /* registers whose value that is */
    bool flags;     /* `cc` are the status flags */
    bool gave_up;   /* one loop was too long: no other is tried */
    uint16_t cc;
    unsigned branch; /* index + 1 of the branch whose rounds are being written, 0: none */
};
/* Looks at the instruction appended last; returns the page offset where the unit goes on. */
unsigned unroll_next(struct unroll *u, struct unit_plan *p);
/* The unit ends: a loop that is not complete becomes a branch again, and the unit goes on behind it. False: there is none. */
bool unroll_undo(struct unroll *u, struct unit_plan *p);

/* --- plan.c: groups the accesses ------------------------------------------------------------------------------ */
void unit_plan(struct unit_plan *p, const struct bt *b);

/* --- reach.c: of units that have a view ------------------------------------------------------------------------- */
void reach_begin(struct tracker *k, const struct facts *facts);
/* Registers and view may have changed. */
void reach_forget(struct tracker *k);
/* An access by the view at `at`: is its check needed? `m`: its operand, NULL for the stack's; base_at: its base register alone. */
void reach_access(struct unit_plan *p, struct tracker *k, struct access *x, const struct mem_operand *m,
                  const struct reach *at, int64_t base_at);
/* What holds here. */
struct facts reach_facts(const struct tracker *k);
/* Registers that hold what they held at the unit's start. */
uint16_t reach_passes(const struct tracker *k);
/* Before the symbols follow an instruction that writes these registers. */
void reach_follow(struct tracker *k, const struct planned *p, unsigned written);

/* --- access.c: addresses, checks, flags ----------------------------------------------------------------------- */
/* Host register + displacement that make a guest address, as an offset where the segment is checked (then it is T0); may use
 * T0 (then it is T0) and T1. */
struct amode ea_emit(struct translation *t, const struct insn *in, const struct mem_operand *m, unsigned end);
/* Its base, in the vcpu. */
struct amode segment_base(unsigned seg);
/* reg &= ffffh, flags kept. */
void low_word(struct translation *t, unsigned reg);
/* What LEA computes: base, index and displacement as a host operand. */
struct amode lea_amode(struct translation *t, const struct mem_operand *m, unsigned end);
/* Looks a translation up: T1 = distance. Returns the rel32 of the jump taken when it is not there; destroys T2 and EFLAGS. */
uint8_t *probe_emit(struct translation *t, struct amode low, unsigned span, bool write);
struct amode group_slot(int group);
/* The absolute 64-bit address of MOV moffs. */
struct amode moffs_ea(struct translation *t, const struct insn *in);
/* The operand in memory of instruction `p`, as the host's: it may need T0 and T1. Destroys T2. */
struct amode mem_emit(struct translation *t, struct planned *p);
/* The instructions emitted last that reach guest memory by a view may fault: the exits for that. In the flags' state in
 * front of them, before anything of the guest's has changed. */
void view_sites(struct translation *t);
/* Sees a pending request, flags untouched, and leaves at the current instruction; destroys T2. */
void view_poll(struct translation *t);
/* From what ea_emit() made to the host's operand: checks unless its group was checked. Leaves T0 alone; destroys T1, T2. */
struct amode access_emit(struct translation *t, struct access *a, struct amode ea);
/* Sees a pending request in state S and leaves at the current instruction. */
void poll_emit(struct translation *t);
struct stub *stub_new(struct translation *t, enum stub_kind kind, uint8_t *from);
/* exit information at instruction i, nothing of it done */
uint32_t exit_at(const struct translation *t, enum bt_exit_kind kind, unsigned i);
/* Leaves: `s` says in which state. */
void exit_emit(struct translation *t, const struct stub *s, uint32_t info, uint32_t arg);
void stubs_emit(struct translation *t);
/* The last emitted instruction at `at` (executable offset) may fault on the host: leave in front of it then. */
void site_add(struct translation *t, uint32_t at);

/* --- flags.c ------------------------------------------------------------------------------------------------------ */
/* To a state; S and E destroy T2. */
void flags_to_s(struct translation *t);
void flags_to_e(struct translation *t);
/* EFLAGS are about to be destroyed: to S or R. */
void flags_away(struct translation *t);
/* The instruction was emitted and changed registers: recipes that used them are void. */
void flags_follow(struct translation *t, const struct planned *p);
/* The instruction just emitted left the guest's flags in EFLAGS. */
void flags_defined(struct translation *t, const struct planned *p);
struct recipe recipe_of(const struct planned *p);
bool recipe_equal(const struct recipe *x, const struct recipe *y);
/* Would the recipe serve all who look at the flags from instruction i on, until they are defined anew? */
bool recipe_holds_from(const struct unit_plan *p, const struct recipe *r, unsigned i);
/* Can anybody see the flags that instruction i leaves? */
bool flags_observed_after(const struct unit_plan *p, unsigned i);

/* --- loop.c ------------------------------------------------------------------------------------------------------- */
/* A taken jump to the unit's start, in state E: true when it goes to a copy of the body. */
bool loop_back(struct translation *t, const struct planned *p);
/* Writes the copies that loop_back() asked for. */
void loop_emit(struct translation *t);
/* The set-up of a strip failed. */
void strip_stub(struct translation *t);

/* --- translate.c -------------------------------------------------------------------------------------------------- */
/* Emits instructions 0..last and the way on behind them. */
void body_emit(struct translation *t, unsigned last);
void count_emit(struct translation *t);

/* --- copy.c ------------------------------------------------------------------------------------------------------ */
/* Can it be re-encoded at all? */
bool copy_possible(const struct insn *in, uint32_t key);
void copy_emit(struct translation *t, struct planned *p);
/* The instruction itself, its memory operand at `host`. */
void encode_emit(struct translation *t, struct planned *p, struct amode host);
void lea_emit(struct translation *t, struct planned *p);
void moffs_emit(struct translation *t, struct planned *p);
/* A guest register's value in a host register: its own, or `temp` after a load. */
unsigned value_of(struct translation *t, unsigned guest, unsigned temp);

/* --- vector.c ------------------------------------------------------------------------------------------------------ */
/* HOW_SIMD or HOW_COPY for SSE, and rows of extensions, that can be copied; HOW_BAIL for all others. */
enum how vector_how(const struct bt *b, const struct insn *in, uint32_t key);
/* Does an opmask, or a vector, say what of its memory operand it accesses? */
bool vector_partial(const struct insn *in);
/* What of the vector registers a SIMD instruction needs. */
enum simd_level vector_level(const struct insn *in);
/* Loads the registers that the instruction needs, if they are not there. */
void vector_ready(struct translation *t, const struct insn *in);
void vector_stub(struct translation *t, const struct stub *s);

/* --- x87.c ------------------------------------------------------------------------------------------------------- */
/* HOW_X87 or HOW_NOP for one that can be copied, HOW_BAIL for all others. */
enum how x87_how(const struct bt *b, const struct insn *in, uint32_t key);
void x87_emit(struct translation *t, struct planned *p);
/* Writes what is noted where `p` might make it void, or somebody else sees it. */
void x87_before(struct translation *t, const struct planned *p);
/* Writes a note down; destroys T2. */
void x87_flush(struct translation *t, struct x87_note *n);
/* Would the same be written? */
bool x87_note_equal(const struct x87_note *x, const struct x87_note *y);
void x87_stub(struct translation *t, const struct stub *s);

/* --- string.c ----------------------------------------------------------------------------------------------------- */
/* Is it one that string_emit() can do? */
bool string_possible(const struct bt *b, const struct insn *in, uint32_t key);
/* Its accesses: `mem` at RDI, `stack` at RSI. */
void string_note(struct planned *p);
void string_emit(struct translation *t, struct planned *p);

/* --- trace.c ------------------------------------------------------------------------------------------------------ */
void bt_trace_unit(const struct translation *t);

/* --- branch.c ---------------------------------------------------------------------------------------------------- */
void branch_emit(struct translation *t, struct planned *p);
/* The jump of Jcc or LOOP itself; in state E, which stays. Returns its rel32. */
uint8_t *conditional_emit(struct translation *t, const struct planned *p, uint64_t target);
/* Goes on at the end `to` of the instruction, on the page, in a unit of that key: a jump of 5 bytes. State S. */
void switch_to(struct translation *t, unsigned to, uint32_t key);
/* At the unit's end, where it goes on at page offset `to`. */
void fall_through_emit(struct translation *t, unsigned to, unsigned rest);
/* Jumps to the page offset `to`, on another page, adding to the guest's RSP; in state S. rip is cut to `size` bytes.
 * `miss`: the exit when the target is not in the jump table; BT_LOOK_FAR goes on there, BT_BAIL is for the branch itself. */
void far_jump_emit(struct translation *t, int64_t to, unsigned size, int32_t adjust_rsp, uint32_t miss);
#define FALL_THROUGH 8 /* size: nothing is cut */
/* The stubs of a far link, and of a return that is not where its call was. */
void far_link_stub(struct translation *t, const struct stub *s);
void return_stub(struct translation *t, const struct stub *s);

/* --- returns.c: `place` is a scratch register ----------------------------------------------------------------------- */
/* Do this unit's returns go by the host's prediction? */
bool returns_predicted(const struct translation *t);
/* A call whose return address, `lin`, was pushed, and the stack pointer moved: the address is noted. Flags stay. */
void call_note_emit(struct translation *t, const struct planned *call, unsigned place, unsigned lin);
/* Behind that, whatever else the call does in between: the way back. What follows goes on to the callee. Flags stay. Both emit nothing
 * where the call does without. */
void call_back_emit(struct translation *t, const struct planned *call, unsigned place);
/* Is `lin` where the call that left its return address at the stack pointer wants to come back? Returns the jump that is taken when it
 * is not. State S. */
uint8_t *return_check_emit(struct translation *t, unsigned place, unsigned lin);
/* Goes there. */
void return_go_emit(struct translation *t, unsigned place);

/* --- system.c ----------------------------------------------------------------------------------------------------- */
/* Can an instruction that is not copied be done by a call? `key` as of the unit. */
bool call_out_possible(const struct bt *b, const struct insn *in, uint32_t key);
/* Does one that is always go somewhere else? */
bool call_out_ends(const struct insn *in);
void call_out_emit(struct translation *t, const struct planned *p);

/* --- turn.c --------------------------------------------------------------------------------------------------------- */
/* HOW_TURN, or HOW_BAIL. */
enum how turn_how(const struct insn *in, uint32_t key);
void turn_emit(struct translation *t, const struct planned *p);

/* --- inline.c ----------------------------------------------------------------------------------------------------- */
/* Those that are emitted without a call where the key allows it; HOW_BAIL: it is none. */
enum how inline_how(const struct bt *b, const struct insn *in, uint32_t key);
void inline_emit(struct translation *t, const struct planned *p);
void switch_emit(struct translation *t, const struct planned *p);
/* Behind the instruction of a unit with KEY_ONCE: RF is cleared. State S. */
void resumed_emit(struct translation *t);
void bits_emit(struct translation *t, struct planned *p);
/* STI whose shadow's end has nowhere to be told: the handler is called for instruction i after all. */
bool inline_is_called(const struct unit_plan *p, unsigned i);
/* The segment whose base it changes, SEG_COUNT: none. */
unsigned inline_moves_base(const struct planned *p);
/* cpu_load_seg() in real and virtual-8086 mode; T0 is the selector. */
void load_segment_emit(struct translation *t, unsigned seg);
/* RFLAGS as PUSHF shows them, in T0; destroys T2. Not in virtual-8086 mode. State S. */
void pushf_value_emit(struct translation *t);

#endif
