/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator: guest code copied into host code, a unit at a time.
 *
 *   rip ──jump table──► unit ──► its code runs, jumps from unit to unit ──► exit (why, at which instruction)
 *    └─ miss: form.c decodes ► plan.c groups accesses ► translate.c emits (copy.c, access.c, branch.c) ► cache.c
 *
 * Guest registers stay in the host registers of the same name; the host's stack pointer is the address of
 * struct vcpu, so everything of the vcpu is one displacement away. Whatever a unit does not do itself, it leaves to
 * the interpreter: it exits in front of the instruction, with nothing of it done.
 *
 *   guest rax..rdi, r8..r11   the same host registers           T0 T1 T2 = r12 r13 r14   scratch
 *   guest rsp                 host r15                          host rsp                  struct vcpu
 *   guest r12..r15            in struct vcpu
 *
 * Status flags are either in the host's EFLAGS (state E) or in v->s.cc (state S). A check of an address destroys
 * EFLAGS, so it saves them first when they are there. Every unit can be entered in either state.
 */
#ifndef SUNDOG_ENGINE_BT_BT_H
#define SUNDOG_ENGINE_BT_BT_H

#include <stdio.h>

#include "engine/bt/area.h"
#include "engine/bt/facts.h"
#include "engine/engine.h"
#include "engine/interp/fpu.h"
#include "engine/interp/op.h"
#include "host/code_memory.h"
#include "isa/effects.h"

/* --- units ------------------------------------------------------------------------------------------------- */

#define UNIT_INSNS 64u
#define INSN_MAX 15u  /* bytes of an instruction */
#define CODE_LINE 64u /* granule of the pmap's code map */
#define HELD_MAX \
    ((UNIT_INSNS + 1) * INSN_MAX + CODE_LINE) /* bytes of guest code that a unit is decoded from */

/* What is looked at to find it, and to enter it, comes first: one line of the host's caches. */
struct bt_unit {
    const uint8_t *host; /* first guest byte, with key and window: what it is found by */
    struct bt_unit *hash_next;
    const _Atomic uint32_t *live; /* version of the page's code now */
    uint32_t version;             /* when it was translated */
    uint32_t key;
    struct bt_window window;
    uint32_t entry_s, entry_e,
        entry_jump;  /* offsets in the cache; entry_jump: state S, T0 = linear address */
    bool sealed : 1; /* its page was written: not entered until its bytes were compared */
    bool relies : 1; /* on facts: entered by links that know them alone */
    bool two : 1;    /* KEY_CROSSING: it has bytes of a second page */
    bool tail : 1;   /* stands for `head` in the list of that page */
    bool listed : 1; /* found by page, and by hash */
    bool
        crossing : 1; /* the instruction at its address goes on on the next page: this jumps to that one's unit */
    uint8_t growths; /* of `wanted` */
    uint16_t guest_bytes;
    uint16_t insns; /* that it executes: none when the first is left to the interpreter */
    uint16_t held_bytes;
    uint16_t links;
    uint32_t far_first; /* far links that lead here: number of the first, from 1 on */

    struct bt_unit *page_next;
    uint64_t addr; /* guest-physical */
    union {
        struct {
            struct facts facts;  /* relied on */
            struct facts wanted; /* facts that would save something here or further on */
        };
        struct { /* of `two`: the second page */
            const _Atomic uint32_t *live2;
            const uint8_t *host2;
            uint32_t version2;
        };
        struct bt_unit *head; /* of `tail` */
    };
    uint16_t code_bytes, stub_bytes;
    uint32_t first_link;
    uint32_t held; /* in bt.held, from there on: guest code that it was made from */
    uint16_t first_spot;
    uint16_t spots; /* with the first, which holds the stamp; 0: none */
};
_Static_assert(sizeof(struct bt_unit) == 128 && offsetof(struct bt_unit, page_next) == 64, "two lines");
_Static_assert(SPOTS <= UINT16_MAX + 1u, "bt_unit.first_spot");

/* Where its page begins. */
static inline const uint8_t *bt_page_host(const struct bt_unit *u)
{
    return u->host - ((uintptr_t)u->host & PAGE_OFFSET_MASK);
}
/* What it relies on. */
static inline struct facts bt_unit_facts(const struct bt_unit *u)
{
    return u->relies ? u->facts : (struct facts){ 0 };
}

/* A direct jump inside a page, to be linked. */
struct bt_link {
    struct facts facts; /* what holds when it is taken */
    struct bt_unit *from;
    uint32_t field;  /* offset of its rel32 in the cache */
    uint32_t to;     /* the unit where it goes while linked */
    uint32_t stub;   /* where it goes while not linked */
    uint32_t key;    /* of the unit that is wanted */
    uint16_t target; /* offset in the page */
    uint16_t passes; /* registers that are as at the unit's start */
    bool state_s;
    bool linked;
    /* Of a far link, to another page: `target` is then the instruction's own offset; there is no field, stub or key. */
    bool far;
    uint8_t strays; /* times that it was made for another context while the last one was still there */
    uint32_t slot;  /* in bt_area.fars */
    int32_t far_to; /* where it goes, from the page on */
    uint32_t far_next, far_before; /* others to the same unit, as bt_unit.far_first */
};

/* An instruction that is done by a call of the interpreter's handler. Behind it lie a struct block with two operations: the
 * instruction's and the one that ends it. */
struct bt_call {
    uint32_t unit;
    uint16_t off;    /* of the instruction in its page */
    uint8_t rest;    /* instructions of the unit from this one on */
    bool lesson : 1; /* called since its check fails */
    bool stub : 1;   /* its operation remembers a stub of the interpreter's */
    bool away : 1;   /* always goes somewhere else */
};

/* A place where the host itself may fault (SIGFPE, SIGSEGV): the instruction, and the exit to take. */
struct bt_site {
    uint32_t at, exit;
};

/* clang-format off */
#define BT_COUNTERS(X) \
    X(units) X(guest_bytes) X(host_bytes) X(guest_insns) X(copied_insns) X(bailed_insns) X(links_made) X(lookups) \
    X(lookup_misses) X(cold_blocks) X(exits_bail) X(exits_link) X(exits_look) X(exits_stale) X(fills) \
    X(fills_failed) X(spot_fills) X(spot_resets) X(spots_guilty) X(checks) X(spot_checks) \
    X(checks_merged) X(flag_saves) X(flag_restores) X(host_faults) X(units_dropped) X(cache_flushes) \
    X(contexts_recycled) X(translate_ns) X(called_insns) X(calls) X(calls_went_on) X(calls_jumped) \
    X(calls_left) X(faults_delivered) X(jumps_found) X(made_calls) X(made_alone) X(splits) X(let_off) \
    X(far_links) X(far_strays) X(units_sealed) X(units_unsealed) X(units_rewritten) X(evictions) X(units_verified) X(versions) \
    X(views_opened) X(views_dropped) X(views_closed) X(view_pages_dropped) X(view_faults) X(view_pages) X(view_areas) \
    X(view_accesses) X(view_checks) X(view_blamed) X(hot_pages) \
    X(flushes_state) X(flushes_memory) X(flushes_full) X(user_insns) X(user_copied) X(kernel_insns) \
    X(kernel_copied)
/* clang-format on */

struct bt_counters {
#define X(name) uint64_t name;
    BT_COUNTERS(X)
#undef X
};

#define HASH_PAGES_BITS 13 /* groups, for pages */
#define HASH_PAGE_BITS 6   /* units of a page */
#define HASH_BITS (HASH_PAGES_BITS + HASH_PAGE_BITS)
#define PAGE_HASH_BITS 14
#define LESSON_BITS 16

/* What was learnt about an instruction. */
struct bt_lesson {
    uint8_t guilt;     /* samples in which its accesses hopped from page to page */
    uint16_t strikes;  /* checks that failed for good, one soon after the other */
    uint16_t struck;   /* in which era the last one was */
    uint8_t innocent;  /* accesses of plain memory in a row, while it is called */
    uint8_t resumed;   /* times that it was executed with RF set, until it has a unit for that */
    uint8_t rewritten; /* units that began here and whose bytes changed */
    uint8_t terms;
    uint8_t
        view_blame; /* faults at views that do not suit its accesses: BLAMED of them, and it does without */
    uint8_t view_side; /* SIDE_*, and how sure that is */
};
/* What follows from it, apart from it: whoever translates asks about each instruction. */
enum bt_verdict {
    VERDICT_CALLED, /* its handler is called */
    VERDICT_ALONE,  /* it shares its check with no other */
    VERDICT_GUILTY, /* its address is checked by the TLB rather than by spot */
    VERDICT_STRAYS, /* a direct jump that many contexts take by turns: it is looked up */
    VERDICTS
};
#define SENTENCES 64u
struct bt_sentence {
    const uint8_t *code; /* NULL: none */
    uint64_t until;      /* host_monotonic_ns() */
};

/*
 * How much of the cache's memory and of its tables is used. Stubs are what units do when something is wrong: they lie by themselves, so
 * that the code that runs is close together.
 */
struct bt_level {
    uint32_t code, stubs, units, links, sites, calls, spots, held, fars;
};

/* The cache is a ring of segments: what is made goes into one until it is full, then the next is emptied. */
#define SEGMENTS 8u
#define SEGMENT_MIN (256u << 10)
struct bt_segment {
    struct bt_level from, to; /* to: exclusive */
    struct bt_level used;     /* while it is not the one that is filled */
};

/* Some page that may be read and written, under a stamp. */
#define ANY_STAMPS 8u
struct bt_any {
    uint64_t stamp;
    struct bt_spot page;
};

/* --- views ------------------------------------------------------------------------------------------------ */

#define VIEWS 4u
#define VIEW_AREAS 8u
#define VIEW_PATIENCE_BITS 6 /* by hash of CR3 */
#define VIEW_SEEN_BITS 15
/* A set of pages, hashed: never too small. */
struct page_set {
    uint64_t bits[1u << (VIEW_SEEN_BITS - 6)];
};
#define VIEW_CANDIDATES 8u

/* Memory of one address space, as the user or a supervisor has it, shown at guest address + delta. */
struct bt_view {
    uint64_t cr3;
    enum mmu_index index;
    uint64_t delta[VIEW_SIDES];
    uint64_t since;        /* time stamp counter when it was last empty */
    uint64_t opened, cost; /* when it was, and what its faults have cost since */
    uint64_t entered;      /* when it came into force */
    unsigned hasty;        /* how often it came into force soon after it had */
    uint64_t stamp;        /* mmu.stamp of what it shows; 0: free */
    uint32_t pieces;       /* shown since then */
    uint64_t next;         /* page behind those that a stream of faults has shown */
    unsigned ahead;        /* pages shown ahead of it the last time */
    uint8_t nareas[VIEW_SIDES];
    bool narrow;                           /* one area of 4 GiB: 32-bit code */
    uint16_t area[VIEW_SIDES][VIEW_AREAS]; /* address >> AREA_SHIFT */
    /* Shown since then: groups, linear pages, host pages that may be written. */
    struct page_set groups, pages, written;
};

struct bt_views {
    bool possible;
    bool user_met;                    /* user code has run: no views for supervisors any more */
    struct bt_view view[VIEWS], *now; /* now: in force, or NULL */
    unsigned next;
    uint32_t slices; /* of heat.c's that were counted */
    struct {
        uint64_t stamp;
        uint32_t slices; /* that it ran */
    } candidate[VIEW_CANDIDATES];
    uint8_t patience[1u << VIEW_PATIENCE_BITS];
    uint8_t lost; /* views given up as too dear of late */
};

/* --- heat ------------------------------------------------------------------------------------------------- */

#define HEAT_BITS FOUND_PAGES_BITS /* so who shares a count is in one group of bt_found */
#define HEAT_FULL 5u               /* slices of time from which on a page's units are superblocks */
#define HEAT_VIEW 12u              /* and by views */
enum bt_form { FORM_SHORT, FORM_FULL, FORM_VIEW };
struct bt_page_heat {
    uint8_t slices; /* of late */
    uint8_t form;   /* enum bt_form of its units: what was hot once is not made anew when it cools */
};
struct bt_heat {
    uint64_t since, cpu_ns; /* when the present slice of time began, and this thread's time then */
    uint32_t slices;        /* of user code */
    uint8_t last;           /* heat of the page where it was then */
    struct bt_page_heat page[1u << HEAT_BITS]; /* by hash of its host address */
};

/* Misses that go upward from page to page. */
#define STREAMS 4u
struct bt_stream {
    uint64_t next;  /* where the next one is expected: page number << 1 | write */
    unsigned pages; /* looked up ahead the last time */
};

/* One vcpu's translator. */
struct bt {
    struct interp
        interp; /* does what is cold, and what translated code leaves to it; v->engine_data points here */
    struct vcpu *v;
    struct engine_config cfg;
    struct host_code code;
    struct bt_segment segments[SEGMENTS];
    unsigned nsegments, segment; /* that is being filled */
    uint32_t used, used_stubs;   /* code memory up to here, in that segment; as all the n* below */
    uint32_t gates_end;          /* flushing keeps what is below */
    uint32_t ready, ready_stubs; /* up to here the host has made code memory */
    uint32_t wrote;              /* bytes of pages that the writable view may hold: bt_cache_wrote() */
    uint32_t gate_enter, gate_fill, gate_exit_s, gate_nowhere, gate_exit_e, gate_simd, gate_simd_level,
        gate_x87, gate_unlink, gate_spot, gate_spots, gate_call, gate_lookup, gate_lookup16, gate_tsc,
        gate_smap, gate_syscall, gate_sysret, gate_account, gate_far;
    struct bt_unit *units; /* an array, emptied with the cache */
    uint32_t nunits, max_units;
    struct bt_link *links;
    uint32_t nlinks, max_links;
    uint32_t nspots, nfars;
    const void *spot_code[SPOTS];                /* guest instruction of each, on the host */
    struct bt_lesson lessons[1u << LESSON_BITS]; /* by guest instruction */
    uint64_t verdicts[VERDICTS][(1u << LESSON_BITS) / 64];
    struct bt_sentence sentences[SENTENCES];
    unsigned next_sentence;
    uint64_t next_release; /* 0: nobody waits */
    uint32_t turns;        /* of the run loop */
    bool fill_failed;      /* so the unit was left */
    struct {
        bool due; /* the check that failed has found what the instruction would raise */
        uint32_t error;
        uint64_t addr;
    } page_fault;
    bool fill_crossed;  /* since what was to be checked lies across two pages */
    uint64_t accounted; /* v->s.retired, as far as it is in n.user_insns and its like */
    uint32_t samples;
    uint64_t sampled; /* time stamp counter at the last sample */
    struct bt_stream streams[STREAMS];
    unsigned next_stream;
    struct bt_any any[ANY_STAMPS]; /* of recent address spaces, by stamp */
    uint64_t any_missed;           /* hidden faults when there was none */
    struct bt_site *sites;
    uint32_t nsites, max_sites;
    uint8_t *calls; /* of CALL_STRIDE bytes each */
    uint32_t ncalls, max_calls;
    uint32_t stub_resets; /* the interpreter's, when the calls' stubs were last known to be good */
    uint8_t *held;        /* guest bytes that units were made from; never executed */
    uint32_t nheld, max_held;
    uint32_t hash[1u << HASH_BITS];              /* numbers of units, from 1 on */
    struct bt_unit *pages[1u << PAGE_HASH_BITS]; /* by host page */
    uint8_t warm[2]; /* a block of a kernel, of user code is translated when it was run this often */
    struct bt_context contexts[CONTEXTS];
    unsigned next_context;
    uint64_t last_id; /* of a context */
    bool predicts_returns;
    uint64_t returns_of[MMU_INDEX_COUNT]; /* id of the context that bt_area.returns is about; 0: none */
    struct bt_jump *jump_memory;
    struct bt_found *found;      /* 1 << FOUND_BITS of them */
    struct translation *scratch; /* the unit being made */
    struct verifier *verifier;   /* NULL: no unit is verified */
    uint32_t verify_every, verify_count;
    struct bt_counters n;
    uint64_t translating;     /* n.translate_ns in time stamp counts */
    uint64_t began, began_ns; /* time stamp counter and host_monotonic_ns() when all this was made */
    FILE *perf_map;
    struct bt_bails *bails; /* NULL: not counted */
    struct bt_views views;
    struct bt_heat heat;
};

/* The instructions up to `retired`, while they are counted: done by whom, and in which mode. */
static inline void bt_account(struct bt *b, uint32_t mode, uint64_t retired, bool copied)
{
    uint64_t n = retired - b->accounted, of_copies = copied ? n : 0;
    bool user = mode_cpl(mode) == 3;
    *(user ? &b->n.user_insns : &b->n.kernel_insns) += n;
    *(user ? &b->n.user_copied : &b->n.kernel_copied) += of_copies;
    b->accounted = retired;
}

/* What is one line of code is one word of a verdict's bits. */
static inline unsigned bt_lesson_slot(const uint8_t *code)
{
    uintptr_t line = (uintptr_t)code / 64, offset = (uintptr_t)code % 64;
    return hash_slot(line, LESSON_BITS - 6) * 64 + (unsigned)offset;
}

/* rip at a linear address. CS's base is 0 in 64-bit mode. */
static inline uint64_t bt_rip(const struct vcpu *v, uint64_t lin)
{
    return (lin - v->sf[SEG_CS].base) & v->lin_mask;
}

static inline struct bt *bt_of(struct vcpu *v) { return bt_area(v)->bt; }

/* Emits at this offset in the cache, up to another one. */
static inline struct emitter bt_emitter(const struct bt *b, uint32_t at, uint32_t end)
{
    return (struct emitter){ .at = b->code.write + at,
                             .end = b->code.write + end - EMIT_SLACK,
                             .to_exec = b->code.exec - b->code.write };
}
static inline const void *bt_exec(const struct bt *b, uint32_t off) { return b->code.exec + off; }
static inline uint64_t bt_exec_addr(const struct bt *b, uint32_t off)
{
    return (uint64_t)(uintptr_t)b->code.exec + off;
}
/* --warm 0: at first sight, in its last form. */
static inline bool bt_all_translated(const struct bt *b) { return !b->warm[true]; }
static inline bool pass_on(const struct bt *b, enum engine_pass pass)
{
    return !(b->cfg.passes_off >> pass & 1);
}

/* --- cache.c ------------------------------------------------------------------------------------------------ */
int bt_cache_init(struct bt *b, struct error *e);
void bt_cache_free(struct bt *b);
/* Gives all memory above the gates to segments, empty. */
void bt_cache_divide(struct bt *b);
/* Forgets every unit; *cause counts it. */
void bt_cache_flush(struct bt *b, uint64_t *cause);
/* How far segment i is filled. */
struct bt_level bt_cache_used(const struct bt *b, unsigned i);
/* Makes room when there is none: forgets the oldest units. */
void bt_cache_make_room(struct bt *b);
/* The unit for these bytes that is what memory holds, or NULL. */
struct bt_unit *bt_cache_find(struct bt *b, const uint8_t *host, uint32_t key, struct bt_window window);
/* The same without comparing bytes: NULL also when that would have to be done. Changes nothing. */
struct bt_unit *bt_cache_peek(const struct bt *b, const uint8_t *host, uint32_t key, struct bt_window window);
/* Where a jump table's entry for these bytes leads in the present context; NULL: no unit, or one of several, by the page that follows.
 * `kind`: KEY_ONCE, KEY_SPLIT: one that does something; or 0. */
const void *bt_cache_entry(struct bt *b, const uint8_t *host, uint32_t kind, struct bt_window window);
/* What was found on this page, and on those that share its heat, is looked for anew. */
void bt_cache_forget_found(struct bt *b, const uint8_t *host);
/* The version of it that relies on just these facts, else the one that relies on the most of them, which may
 * be `u` itself. `room`: is another version worth making? */
struct bt_unit *bt_cache_find_version(struct bt *b, struct bt_unit *u, const struct facts *facts, bool *room);
/* The one of an instruction that goes on at host2, both pages in reach as a whole. */
struct bt_unit *bt_cache_find_crossing(struct bt *b, const uint8_t *host, const uint8_t *host2, uint32_t key);
void bt_cache_add(struct bt *b, struct bt_unit *u);
/* So many bytes of the cache were written: now and then the writable view's pages are given back. */
void bt_cache_wrote(struct bt *b, uint32_t bytes);
/* The processor waits for something. */
void bt_cache_idle(struct bt *b);
/* Is it still what memory holds? */
bool bt_unit_fresh(const struct bt_unit *u);
/* The page of these bytes was written: nothing enters its units until they are found again, when their bytes are compared. */
void bt_cache_seal_page(struct bt *b, const uint8_t *host);
/* Its units are to be made in another way. */
void bt_cache_drop_page(struct bt *b, const uint8_t *host);
/* Takes out the units that hold the instruction of these bytes: it is to be translated in another way. */
void bt_cache_drop_code(struct bt *b, const uint8_t *code);
/* Makes a direct jump go to `to`. */
void bt_cache_link(struct bt *b, struct bt_link *l, const struct bt_unit *to);
/* The same of one to another page, from the page at linear address `page` in the present context. */
void bt_cache_link_far(struct bt *b, struct bt_link *l, const struct bt_unit *to, uint64_t page);
/* No link to another page holds any more. */
void bt_cache_unlink_far(struct bt *b);
/* The jumps of this unit go to their stubs again. */
void bt_cache_unlink_from(struct bt *b, const struct bt_unit *u);
/* Jumps on the page to `to` or a version of it are to be linked anew. */
void bt_cache_unlink_to(struct bt *b, const struct bt_unit *to);
/* Which sites, in ascending order, may be about code at this offset: [*first, *end). */
void bt_cache_sites(const struct bt *b, uint32_t at, uint32_t *first, uint32_t *end);
/* Room for one more unit of `code` bytes, as many of stubs, and its tables in the present segment, else false. */
bool bt_cache_room(const struct bt *b, size_t code);

/* --- gates.c: code that all units share, made when the cache is made ---------------------------------------- */
void bt_gates_emit(struct bt *b);
/* lookup.c: T0 = T2 = a target in state S. Returns to who called the gate where that is in the jump table now; else goes on behind itself,
 * T0 and T2 as they were. */
void bt_lookup_emit(const struct bt *b, struct emitter *e);
/* slot = address of the slot in the present context's jump table, of `bits` bits, for the linear address in a register; flags change. */
void bt_jump_slot_emit(struct emitter *e, unsigned slot, unsigned lin, unsigned bits, int32_t below);

/* --- heat.c: which pages of user code are hot; `code` is on the host ----------------------------------------------- */
static inline struct bt_page_heat *bt_heat_of(struct bt *b, const uint8_t *code)
{
    return &b->heat.page[bt_page_slot(code)];
}
/* The guest came back to C: looks at the clock, and at where it is. */
void bt_heat_look(struct bt *b);
/* Is it worth superblocks? The kernel's is. */
static inline bool bt_heat_full(struct bt *b, const uint8_t *code, uint32_t key)
{
    return mode_cpl(key) != 3 || bt_all_translated(b) || bt_heat_of(b, code)->form >= FORM_FULL;
}
/* The key of the unit there, in the present context. Each view has its own translations, and faults for each page that is shown. */
static inline uint32_t bt_unit_key(struct bt *b, const uint8_t *code)
{
    uint32_t key = bt_area(b->v)->context->key;
    bool cold = mode_cpl(key) == 3 && !bt_all_translated(b) && bt_heat_of(b, code)->form < FORM_VIEW;
    return key & KEY_VIEW && cold ? key & ~(uint32_t)KEY_VIEW : key;
}

/* --- adapt.c: what was learnt about single instructions; `code` is where one begins on the host ---------------- */
static inline bool bt_adapt_is(const struct bt *b, const uint8_t *code, enum bt_verdict verdict)
{
    unsigned slot = bt_lesson_slot(code);
    return b->verdicts[verdict][slot / 64] >> slot % 64 & 1;
}
/* It has faulted at the view too often for what cannot be shown (bt_lesson.view_blame): it does without for a time. */
void bt_adapt_blamed(struct bt *b, const uint8_t *code);
/* Its check failed for good, and the interpreter did it, with a miss of the TLB. */
void bt_adapt_failed(struct bt *b, const uint8_t *code);
/* A check that it shares lay across two pages. True: worth a unit from here on that shares none. */
bool bt_adapt_crossed(struct bt *b, const uint8_t *code);
/* It was called. True: it will be checked again, in a new unit. */
bool bt_adapt_called(struct bt *b, const uint8_t *code, bool plain);
/* A sample of the misses of spots: an access that is met here again and again while they are dense is guilty. */
void bt_adapt_judge(struct bt *b, const uint8_t *code);
/* A direct jump to another page is taken in many contexts by turns: it is looked up from now on. */
void bt_adapt_strays(struct bt *b, const uint8_t *code);
/* The bytes of a unit that began here changed: what comes instead is cold again. */
void bt_adapt_rewritten(struct bt *b, const uint8_t *code);
/* How often code of the present privilege is interpreted before it is translated, 0 to 255. */
unsigned bt_adapt_warm(const struct bt *b, const uint8_t *code);
/* Whose time is up is let off. Cheap. */
void bt_adapt_release(struct bt *b);

/* --- vector.c ------------------------------------------------------------------------------------------------ */
/* What of KEY_SSE, KEY_FPX, KEY_AVX and KEY_AVX512 holds now. */
uint32_t bt_vector_key(const struct vcpu *v);
/* Vector registers are to be in the host's up to `level` when the gate comes back. Called by generated code; true. */
bool bt_simd_level(struct vcpu *v, uint64_t unused, uint32_t level);
/* Writes vector registers to v->s.fpu, or loads them, as simd_live says; the stack pointer is `below` bytes below the vcpu.
 * Written, their upper halves are clean for C. */
void bt_vectors_store(const struct bt *b, struct emitter *e, int32_t below);
void bt_vectors_load(const struct bt *b, struct emitter *e, int32_t below);

/* --- x87.c --------------------------------------------------------------------------------------------------- */
/* May x87 instructions be copied, as CR0 and the control and status words are? */
#define FCW_MASKS 0x3fu
static inline bool bt_x87_possible(const struct vcpu *v)
{
    const struct fpu_state *f = &v->s.fpu;
    return !(v->s.cr0 & (CR0_EM | CR0_TS)) && (f->fcw & FCW_MASKS) == FCW_MASKS && !(f->fsw & FSW_ES);
}
/* The guest's x87 registers are in the host's from now on. Called by generated code; true. */
bool bt_x87_ready(struct vcpu *v, uint64_t unused, uint32_t unused2);
/* What of the x87 state interpreter and handlers expect in v->s.fpu while its registers are live: status word and pointers. After
 * generated code was left. */
void bt_x87_fetch(struct vcpu *v);
static inline void bt_x87_sync(struct vcpu *v)
{
    if (bt_area(v)->x87_used)
        bt_x87_fetch(v);
}

/* --- view.c --------------------------------------------------------------------------------------------------- */
void bt_views_init(struct bt *b);
void bt_views_free(struct bt *b);
/* At the beginning of a run, which may be on another thread. */
void bt_views_enter(struct bt *b);
/* User code is about to run: is there a view for what it sees? Then it is in force now. */
bool bt_view_use(struct bt *b);
/* Side of this linear address, if there is a view. */
enum view_side bt_view_side(const struct bt *b, uint64_t lin);
/* bt_lesson.view_blame: so many faults, and it is translated without */
#define BLAMED 4u
#define BLAMED_SIDES 3u /* faults on the wrong side */
/* bt_lesson.view_side: */
#define SIDE_KNOWN 2u /* it was met */
#define SIDE_FLIPS 4u /* counted from here on: it was met on another side than was thought */
/* Behind the interpreter, which has done the instruction whose access faulted: shows what it accessed. */
void bt_view_fill(struct bt *b);

/* --- inline.c ------------------------------------------------------------------------------------------------ */
/* RDTSC, or with `and_aux` RDTSCP, that are allowed. Called by generated code; true. */
bool bt_tsc(struct vcpu *v, uint64_t unused, uint32_t and_aux);
/* STAC or CLAC, and the context that goes with it. Called by generated code; false: nothing was done. */
bool bt_smap(struct vcpu *v, uint64_t unused, uint32_t on);

/* --- turn.c ------------------------------------------------------------------------------------------------- */
/* Jumped to with T1 = exit information, by SYSCALL with T0 = address behind it, in state S: do them, or leave. The exits are
 * still to be made: bt_turn_gates_end() with their place. */
struct bt_turn_gates {
    uint8_t *exits[40]; /* fields of jumps */
    unsigned n;
};
void bt_turn_gate_syscall(struct bt_turn_gates *g, struct emitter *e);
void bt_turn_gate_sysret(const struct bt *b, struct bt_turn_gates *g, struct emitter *e);
/* The context has changed, or what turns are made from: makes those from it and back. */
void bt_turns_follow(struct bt *b);
/* A context is given to another one. */
void bt_turns_forget(struct bt *b, const struct bt_context *x);
/* Are they from other address spaces than the present one? */
static inline bool bt_turns_old(const struct bt *b)
{
    const struct bt_turn *t = &bt_area(b->v)->sysret;
    return t->epoch != b->v->mmu.epochs[GEN_SPACE] || t->stamp != b->v->mmu.stamp;
}
/* Counted instructions up to here were done by units. Called by generated code; true. */
bool bt_account_gate(struct vcpu *v, uint64_t unused, uint32_t unused2);

/* --- trace.c: --trace-blocks and --perf-map -------------------------------------------------------------------- */
void bt_trace_open(struct bt *b);
void bt_trace_close(struct bt *b);

/* --- fill.c: called by generated code ---------------------------------------------------------------------------- */
/* Slow path of a check: is the translation cached now? No effect that the guest could see besides accessed and dirty
 * bits that the access itself would set. Called by generated code. */
bool bt_fill(struct vcpu *v, uint64_t lin, uint32_t info);
/* The same for a spot: fills it. */
bool bt_spot_fill(struct vcpu *v, uint64_t lin, uint32_t info);
/* The unit's spots are from another stamp: fills them with some translation that holds now. */
bool bt_spots_reset(struct vcpu *v, uint64_t unused, uint32_t unit);
/* A request came while a loop of this unit runs that only links hold together: its links go to their stubs again. */
bool bt_unlink(struct vcpu *v, uint64_t unused, uint32_t unit);

/* --- context.c ------------------------------------------------------------------------------------------------- */
/* Is the processor in a mode that is translated? */
bool bt_mode_possible(const struct vcpu *v);
/* Is it stepped only since RF is set, behind an IRET to an instruction that had faulted? Without breakpoints RF then means
 * nothing but that it is to be cleared. */
static inline bool bt_is_resuming(const struct vcpu *v)
{
    return v->mode & MODE_STEP && (v->s.rflags & (FL_TF | FL_RF)) == FL_RF && !v->s.shadow &&
           !(v->s.dr[7] & 0xff);
}
/* The context of the present address space and mode; its jump table becomes the one that generated code uses. */
struct bt_context *bt_context_now(struct bt *b);
/* The same when nothing but privilege, stack, flags and address changed: mostly the context that was left for this one. */
struct bt_context *bt_context_turned(struct bt *b);
/* The present one is x, which differs in nothing that generated code keeps elsewhere: its jump table and returns are in force. All
 * changes of context come through here, but for turns, whose both sides have claimed their returns when they were worked out. */
void bt_context_over(struct bt *b, struct bt_context *x);
/* What CS reaches of the page of `lin` in a context. */
struct bt_window bt_window_of(const struct bt_context *x, uint64_t lin);
/* The unit's entry `code` is where this linear address goes on in context x. */
void bt_jump_put(struct bt_context *x, uint64_t lin, const void *code);

/* --- returns.c: returns that the host predicts ------------------------------------------------------------------------ */
/* Can it, and is it asked for? */
bool bt_returns_possible(const struct bt *b);
/* The table of returns of this context's privilege is about this context from now on: whenever generated code may come to run in it. */
void bt_returns_claim(struct bt *b, const struct bt_context *x);
/* No place of a table, of any table, leads to a unit any more. */
void bt_returns_forget(struct bt *b, enum mmu_index index);
void bt_returns_forget_all(struct bt *b);

/* --- system.c: instructions done by calling out ----------------------------------------------------------------- */
#define CALL_STRIDE (sizeof(struct bt_call) + sizeof(struct block) + 2 * sizeof(struct op))
/* The instruction of call `index`, called by generated code with the guest's registers in v->s. Returns where generated
 * code goes on: CALL_WENT_ON behind the call, CALL_LEAVE to the run loop, else the address of a unit for exit_lin. May
 * raise. */
uint64_t bt_call_out(struct vcpu *v, uint32_t index);
/* Puts the unit at linear address `lin` into the jump table of the present context. False: there is none yet. Raises
 * nothing. Called by generated code. */
bool bt_lookup(struct vcpu *v, uint64_t lin, uint32_t unused);
/* Makes this far link lead to its target's unit, if there is one yet. The same otherwise. */
bool bt_far_link(struct vcpu *v, uint64_t unused, uint32_t link);
/* Host address of the code at `lin`, NULL where fetching it would fault. */
const uint8_t *bt_code_at(struct mmu *m, uint64_t lin);
enum { CALL_WENT_ON, CALL_LEAVE };

/* --- translate.c --------------------------------------------------------------------------------------------- */
/* The beginning of a unit's JUMP entry. */
void bt_entry_emit(struct emitter *e);
/* Where code is: its first byte in host memory, guest-physical, and the page. */
struct bt_code {
    const uint8_t *host;
    gpa addr;
    struct page *page;
    struct bt_window window;
};
/* Translates at CS:rip; NULL when the cache is full (`*full`), or the unit would be too long. */
struct bt_unit *bt_translate(struct bt *b, const struct bt_code *at, uint32_t key, const struct facts *facts,
                             bool *full);
/* The one instruction that begins at `at` and goes on at `second`; `key` without KEY_CROSSING. */
struct bt_unit *bt_translate_crossing(struct bt *b, const struct bt_code *at, const struct bt_code *second,
                                      uint32_t key, bool *full);

/* --- bails.c: what is left to the interpreter, counted while blocks are traced -------------------------------- */
void bt_bails_open(struct bt *b);
/* The instruction at v->s.rip is left to the interpreter; `exit` is the unit's. */
void bt_bails_note(struct bt *b, uint32_t exit);
/* An instruction of these bytes is done by a call. */
void bt_bails_called(struct bt *b, unsigned id, const uint8_t *bytes, unsigned len);
void bt_bails_close(struct bt *b);

extern const struct engine_ops bt_engine;

#endif
