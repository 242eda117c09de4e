/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verifier: may this code run? It shares nothing with what made the code but the layout of struct vcpu, and decodes it with
 * another decoder (Zydis). docs/isolation.md says what it proves and what it takes for granted.
 *
 *   bytes ──verify_insn.c──► instructions on the allow-list ──verify.c──► every way through them, one after the other
 *                                                                │
 *                        verify_value.c: what registers hold ◄───┴───► verify_rules.c: what one instruction may do
 */
#ifndef SUNDOG_ENGINE_BT_VERIFY_H
#define SUNDOG_ENGINE_BT_VERIFY_H

#include "engine/bt/bt.h"

/* Places outside of a unit that it may go to, and what they do with the state. */
enum verify_gate_kind {
    VERIFY_EXIT,    /* jumped to: T1 = exit information, T2 = argument */
    VERIFY_EXIT_E,  /* the same; the guest's flags are in EFLAGS */
    VERIFY_SYSCALL, /* jumped to: T1 = exit information, T0 = where the guest goes on afterwards */
    VERIFY_SYSRET,  /* the same without T0 */
    VERIFY_NOWHERE, /* returned to, where no call has noted a way back: T0 = where the guest goes on */
    VERIFY_ACCOUNT, /* called: changes nothing */
    VERIFY_FILL,    /* called: T2 = address, T1 = FILL_*; returns behind the call, or 5 bytes further */
    VERIFY_SPOT,    /* called: the same, T1 names the spot too */
    VERIFY_SPOTS, /* called: T1 = unit whose spots are filled; behind the call they are of the present stamp */
    VERIFY_UNLINK, /* called: T1 = unit */
    VERIFY_TSC,    /* called: RAX, RDX, and with T1 = 1 RCX are numbers */
    VERIFY_SMAP,   /* called: another one asks the TLB; the way on is a link of that mode */
    VERIFY_LOOKUP, /* called: T2 = linear address to be put into the jump table */
    VERIFY_FAR,    /* called: T1 = far link to be made */
    VERIFY_SIMD, /* called: the guest's vector registers are in the host's behind it; changes nothing else */
    VERIFY_SIMD_LEVEL, /* called: T1 = enum simd_level, up to which they are */
    VERIFY_X87,        /* called: the guest's x87 registers are in the host's behind it */
    VERIFY_CALL, /* called: T1 = record of an instruction; all guest registers and translations may have changed */
};
struct verify_gate {
    uint64_t address; /* in the executable view */
    enum verify_gate_kind kind;
};

static inline bool verify_gate_is_left(enum verify_gate_kind kind) { return kind <= VERIFY_NOWHERE; }

#define VERIFY_GATES 19u

#define VERIFY_CALLS (4 * 64u) /* records of called instructions that a unit can have */

/* Code in one piece. */
struct verify_part {
    const uint8_t *code; /* its bytes */
    uint32_t at, size;   /* offset in the cache, bytes */
};

/* A unit, as it stands in the cache. Offsets are from the cache's start, as in struct bt_unit. */
struct verify_unit {
    struct verify_part body, stubs;
    uint64_t exec; /* address at which the cache's first byte runs */
    uint32_t entry_s, entry_e, entry_jump;
    const struct verify_gate *gates;
    unsigned ngates;
    const struct bt_site *sites; /* its host faults, in order */
    unsigned nsites;
    const struct bt_link *links; /* its links */
    uint32_t first_link, nlinks;
    uint32_t first_spot, nspots; /* its spots, with the one that holds the stamp; nobody else's */
    uint32_t first_call, ncalls; /* its records of called instructions */
    /* What their handlers change: general registers by number, of string instructions; 0: all there is. */
    uint16_t call_changes[VERIFY_CALLS];
    uint32_t unit;      /* its number */
    unsigned tlb_index; /* enum mmu_index of the mode it runs in */
    unsigned jump_bits; /* its jump table has 1 << jump_bits slots */
    bool kernel;        /* privilege 0 */
    bool view;          /* user memory is reached by a view */
    uint8_t simd;       /* enum simd_level: vector registers that are always there */
    struct facts facts; /* that it relies on */
    bool code64;        /* 64-bit code: FS and GS have no limits */
    bool privileged;    /* CPL 0, in any mode */
    bool by_paragraph;  /* segment registers are loaded without descriptors: real and virtual-8086 mode */
    bool all_64k;       /* all segments but CS reach 64 KiB at least */
};

/* Why not. */
struct verify_result {
    const char *rule; /* which rule is broken; NULL: none */
    uint32_t at;      /* offset of the instruction within the unit: its body, then its stubs */
    char text[96];    /* that instruction */
};

struct verifier;
/* NULL without memory, or when the build has no verifier (verify_available()). */
struct verifier *verifier_create(void);
void verifier_free(struct verifier *w);
bool verify_available(void);

/* True: the unit may run; else `r` says why not. Thread: the one that owns `w`. */
bool verify_unit(struct verifier *w, const struct verify_unit *u, struct verify_result *r);

/* The gates: `size` bytes that run at `exec`; `functions`: what they may call. */
struct verify_gates {
    const uint8_t *code;
    uint64_t exec;
    uint32_t size;
    uint32_t enter;                  /* offset of the way in, entered with C's stack */
    const struct verify_gate *gates; /* the others */
    unsigned ngates;
    const uint64_t *functions;
    unsigned nfunctions;
};
bool verify_gates(struct verifier *w, const struct verify_gates *g, struct verify_result *r);

/* --- verify_bt.c: for the translator -------------------------------------------------------------------------- */

/* Which units are verified, by cfg.verify_every; the gates at once. -ENOMEM, or -ENOTSUP when asked for by a build that cannot. */
int bt_verify_init(struct bt *b, struct error *e);
void bt_verify_free(struct bt *b);
/* How much of the tables belonged to others before a unit was made. */
struct verify_before {
    uint32_t used, used_stubs, nlinks, nsites, nspots, ncalls, nfars;
};
struct verify_before bt_verify_before(const struct bt *b);
/* What the verifier is told of a unit made between the two; valid while the tables stand. `gates`: where they are listed. */
void bt_verify_describe(const struct bt *b, const struct bt_unit *u, const struct verify_before *before,
                        const struct verify_before *behind, struct verify_gate gates[VERIFY_GATES],
                        struct verify_unit *x);
/* The same of the gates. */
#define VERIFY_FUNCTIONS 12u
void bt_verify_describe_gates(const struct bt *b, struct verify_gate gates[VERIFY_GATES],
                              uint64_t functions[VERIFY_FUNCTIONS], struct verify_gates *g);
/* False: the unit must not run. It was logged and v->internal_error is set. Before anything can enter the unit. */
bool bt_verify_unit(struct bt *b, const struct bt_unit *u, const struct verify_before *before);
/* May this jump be made to go to this unit? Cheap: for every link. */
bool bt_verify_link(const struct bt *b, const struct bt_link *l, const struct bt_unit *to);
/* The same of a jump to another page. That it goes there from this page, in this context, its guard says. */
bool bt_verify_far_link(const struct bt *b, const struct bt_link *l, const struct bt_unit *to);

#endif
