/* SPDX-License-Identifier: Apache-2.0 */
/* What generated code reaches by its stack pointer, the contexts that this is about, and what its exits tell. */
#ifndef SUNDOG_ENGINE_BT_AREA_H
#define SUNDOG_ENGINE_BT_AREA_H

#include "engine/bt/emit.h"
#include "engine/interp/fpu.h"
#include "engine/interp/op.h"

struct bt;

#define T0 H_R12
#define T1 H_R13
#define T2 H_R14
#define GUEST_RSP H_R15

/* --- contexts: what a jump table's entries hold for ------------------------------------------------------- */

/* A target that was looked up: a linear address, and the entry of its unit. */
struct bt_jump {
    uint64_t lin;
    const void *code;
};
#define JUMPS_BITS 14
#define CODE16_JUMPS_BITS 10 /* a context for each code segment, with little */
#define JUMPS_MAX (1u << JUMPS_BITS)
#define JUMP_HASH 0x9e3779b1u

static inline unsigned jump_bits(uint32_t key)
{
    return (key & MODE_CODE_MASK) == MODE_CODE16 ? CODE16_JUMPS_BITS : JUMPS_BITS;
}

/* In a context of this key. */
static inline unsigned jump_slot(uint64_t lin, uint32_t key)
{
    return (uint32_t)lin * JUMP_HASH >> (32 - jump_bits(key));
}

/* So many neighbours are a set: who has to make way in its slot goes to another one, and is fetched back by gate_lookup. */
#define JUMP_SET 4u
/* Behind a table lies a byte for each set: 0 while nothing is in it. So a large table costs no more to empty than what was put there. */
#define JUMP_SETS (JUMPS_MAX / JUMP_SET)
#define JUMP_TABLE (JUMPS_MAX * sizeof(struct bt_jump) + JUMP_SETS)
static inline uint8_t *jump_used(struct bt_jump *jumps) { return (uint8_t *)(jumps + JUMPS_MAX); }

/* What an empty slot holds: an address that belongs to another set. */
static inline uint64_t jump_none(unsigned slot) { return slot < JUMP_SET; }

/*
 * The entry of a unit of flat code that was found, by where its code is on the host and by the key of the context that asked: what is
 * asked for again and again costs one line of the host's caches, and no call of C. Who is sealed or taken out is not in it.
 */
struct bt_found {
    const uint8_t *host; /* NULL: none */
    uint32_t key, entry_jump;
};
#define FOUND_PAGES_BITS 12 /* groups, for pages */
#define FOUND_PAGE_BITS 6   /* slots of a group */
#define FOUND_BITS (FOUND_PAGES_BITS + FOUND_PAGE_BITS)

/* By hash of the page. */
static inline unsigned bt_page_slot(const uint8_t *host)
{
    return (uint32_t)((uintptr_t)host >> PAGE_SHIFT) * JUMP_HASH >> (32 - FOUND_PAGES_BITS);
}
static inline unsigned bt_found_slot(const uint8_t *host, uint32_t key)
{
    unsigned place = ((uint32_t)(uintptr_t)host ^ key) * JUMP_HASH >> (32 - FOUND_PAGE_BITS);
    return bt_page_slot(host) << FOUND_PAGE_BITS | place;
}

/* A translation's mode: v->mode, and what else its code depends on. */
#define KEY_INDEX_SHIFT 12                  /* enum mmu_index */
#define KEY_SIBLING (3u << KEY_INDEX_SHIFT) /* makes MMU_SUPER of MMU_SUPER_AC and back */
#define KEY_COUNT BIT(16)                   /* retired instructions are counted */
#define KEY_SSE BIT(17)                     /* SSE instructions may run */
#define KEY_FPX BIT(18)                     /* no SIMD floating-point exception is unmasked */
#define KEY_FLAT_CS BIT(19)                 /* rip is the linear address, and none is beyond CS's limit */
#define KEY_X87 BIT(21)      /* x87 and MMX instructions may run, and none raises an exception */
#define KEY_AVX BIT(22)      /* VEX instructions on vector registers may run */
#define KEY_AVX512 BIT(23)   /* EVEX and opmask instructions may run */
#define KEY_VIEW BIT(28)     /* user memory is reached by views: view.c */
#define KEY_CROSSING BIT(20) /* of a unit: one instruction that ends on the next page */
#define KEY_SPLIT \
    BIT(29) /* of a unit: its accesses share no checks; entered where a shared one lay across two pages */
#define KEY_ONCE BIT(30) /* of a unit: RF is set until its one instruction is done */
#define KEY_OF_UNIT \
    (KEY_CROSSING | KEY_SPLIT | KEY_ONCE) /* what says nothing of the mode: a link leads to a unit without */

/*
 * The part of a page that CS reaches: offsets [low, high). Units end there, and jump directly only to what is inside.
 * Without KEY_FLAT_CS a unit is found by this, too: CS's limit is then known to hold without a look, and addresses on
 * the page are offsets in CS plus a constant. 16-bit code beyond 64 KiB is outside; the interpreter runs it.
 */
struct bt_window {
    uint16_t low, high;
};
static inline bool window_has(struct bt_window w, uint64_t lin)
{
    return (lin & PAGE_OFFSET_MASK) >= w.low && (lin & PAGE_OFFSET_MASK) < w.high;
}

/* Its jump table only holds targets that CS reaches: to find one there is to have checked the limit. */
#define CONTEXTS 16u
#define CONTEXT_ID_BITS 16
struct bt_context {
    uint64_t id;    /* never the same for two, in the upper CONTEXT_ID_BITS bits; not 0 */
    uint64_t epoch; /* mmu.flush_epoch */
    uint32_t key;
    uint32_t cs_base, cs_limit; /* without KEY_FLAT_CS; else 0 */
    bool used;
    struct bt_jump *jumps;
    struct bt_context *sibling; /* the one with the other supervisor's TLB, NULL: there is none */
};

/* Are the guest's XMM registers always in the host's there? */
static inline bool bt_context_always_live(const struct bt_context *x)
{
    return (x->key & (KEY_VIEW | KEY_SSE)) == (KEY_VIEW | KEY_SSE);
}
/* What of a key follows from privilege. */
#define KEY_BY_PRIVILEGE (MODE_KEY_MASK | 3u << KEY_INDEX_SHIFT | KEY_VIEW)

/*
 * A change of privilege between two contexts of 64-bit code, as SYSCALL or SYSRET makes it: what it was worked out from, and what it
 * writes. Gates copy it while all of that holds (turn.c).
 */
struct bt_turn {
    struct bt_context *from, *to; /* from: NULL: none */
    uint64_t star, efer;
    uint64_t epoch; /* mmu.epochs of the privilege that is turned to */
    uint64_t stamp; /* mmu.stamp; of SYSRET */
    struct bt_jump *jumps;
    uint64_t id; /* of `to` */
    struct tlb_entry *tlb;
    struct segment cs, ss;
    uint32_t mode, index;
    uint32_t simd_always;
    int32_t credit; /* of SYSRET: so many until C has a look */
};

/* --- what generated code reaches by its stack pointer: directly behind struct vcpu ------------------------- */

/*
 * A spot is where an access of user code went last: while it stays on that page, comparing with it is all the check there is.
 * A unit's first spot holds the stamp (mmu.stamp) under which the others were filled; they hold real translations from the
 * beginning, so there is no empty value that an address could match.
 */
struct bt_spot {
    uint64_t page, delta; /* linear address of the page; host minus guest address */
};
#define SPOTS 32768u

/* A direct jump to another page: for which page and context it was made, and the entry of the unit there. */
struct bt_far {
    uint64_t guard; /* linear address of the page + bt_context.id */
    const void *code;
};
#define FARS (1u << 18)
#define FAR_UNLINKED 1u /* a guard that is no page's */
#define SPOT_SAMPLE 64u /* every so many misses one is looked at */

/*
 * Where calls return to: the return address, and the code behind the call. A place for each guest stack pointer, hashed; a table for
 * each enum mmu_index, which holds for one context at a time. An empty place leads to the run loop.
 */
#define RETURNS 256u
struct bt_returns {
    uint64_t lin[RETURNS];
    const void *code[RETURNS];
};

/* Vector registers by what they take in. With SIMD_AVX the upper halves of ZMM0 to 15 are zero (VEX instructions clear them). */
enum simd_level {
    SIMD_NONE,
    SIMD_SSE,    /* XMM0 to 15 */
    SIMD_AVX,    /* YMM0 to 15 */
    SIMD_AVX512, /* ZMM0 to 31, opmasks */
};
#define GROUP_SLOTS 16u
#define X87_NOTED 0x800u
struct bt_area {
    void *host_sp;              /* C's stack pointer while generated code runs */
    uint64_t page;              /* linear address of the running unit's page */
    uint64_t ip_page;           /* the same as an offset in CS; only without KEY_FLAT_CS */
    struct bt_jump *jumps;      /* of the present context */
    struct bt_found *found;     /* of all contexts */
    uint64_t found_here;        /* targets that were found there without a call of C */
    uint64_t context_id;        /* the same */
    struct bt_context *context; /* the present one */
    struct bt_context *context_before;
    int64_t left; /* counting: instructions until until_count */
    uint64_t exit_lin;
    uint64_t call_slot; /* host address of the return address that an indirect call will write */
    uint32_t exit, exit_arg;
    uint32_t simd_live;   /* enum simd_level: which vector registers of the guest are in the host's */
    uint32_t x87_used;    /* x87 registers are, and generated code may have changed them: bt_x87_sync() */
    uint32_t x87_fop;     /* X87_NOTED | FOP of the last instruction, 0: v->s.fpu has it */
    uint32_t x87_seg;     /* segment of the last memory operand, plus 1; 0: v->s.fpu has its selector */
    uint32_t spot_credit; /* misses until the next sample */
    int32_t strip_skip;   /* rounds of a loop until its strip is tried again */
    uint32_t strip;       /* rounds left in the strip */
    uint32_t pad2;
    uint64_t string_rest;        /* count that a string instruction has left for later */
    uint64_t group[GROUP_SLOTS]; /* host minus guest address of a group of accesses */
    struct bt *bt;
    uint64_t far_delta;  /* of the view's far side */
    uint64_t fault_addr; /* BT_VIEW: what the host's fault told */
    uint32_t fault_write;
    uint32_t simd_always; /* XMM registers are the guest's whenever a unit is entered */
    struct bt_turn syscall, sysret;
    struct bt_returns returns[MMU_INDEX_COUNT];
    struct bt_spot spots[SPOTS];
    struct bt_far fars[FARS];
};

#define VERSIONS 6u /* of a unit: by what it relies on */
#define GROWTHS 4u  /* of what it wants to */

/* --- views: tables in the vcpu's reserve ----------------------------------------------------------------------- */

/*
 * Guest addresses come in areas. An area has a page of 512 table entries; the page can be read while the area is in the view
 * that is in force. So a load from the entry of an address faults unless the address lies in such an area.
 */
#define AREA_SHIFT 39
#define ENTRY_SHIFT 30 /* addresses of one entry; an entry has 8 bytes */
#define AREA_TABLE ((int32_t)VCPU_RESERVE_AT(sizeof(struct bt_area)))
#define USER_AREAS (1u << (47 - AREA_SHIFT))
/* Both sides of a view have such pages: those of the far side lie behind those of the near one. */
#define SIDE_TABLE (8 << 20)
_Static_assert(USER_AREAS *PAGE_SIZE <= SIDE_TABLE, "pages of the near side end before those of the far one");
_Static_assert(VCPU_RESERVE >= SIDE_TABLE + (1ull << (64 - ENTRY_SHIFT + 3)),
               "any address has an entry on either side");
/* vcpu->requests rotated by POLL_ROTATE is 0 or at least the offset of a page behind those of user areas. A load from POLL_TABLE
 * plus that faults when something is requested: a poll that leaves the flags alone. */
#define POLL_ROTATE 7 /* 2^25: behind both sides */
#define POLL_TABLE (AREA_TABLE - (int32_t)PAGE_SIZE)
/* Address space without memory on both sides of an area: as far as a displacement reaches, and more. */
#define VIEW_GUARD (64ull << 30)
/* Distance from a checked address at which an access needs no check of its own. */
#define VIEW_REACH (1 << 20)

#define VCPU_OFF(field) ((int32_t)offsetof(struct vcpu, field))
#define AREA_OFF(field) ((int32_t)(VCPU_ROOM_AT + offsetof(struct bt_area, field)))
#define AT_VCPU(field) amode_at(H_RSP, VCPU_OFF(field))
#define AT_AREA(field) amode_at(H_RSP, AREA_OFF(field))
static inline struct amode at_gpr(unsigned n) { return amode_at(H_RSP, VCPU_OFF(s.gpr) + (int32_t)(8 * n)); }

static inline struct bt_area *bt_area(struct vcpu *v)
{
    return (struct bt_area *)(void *)((uint8_t *)v + VCPU_ROOM_AT);
}

/* --- exits ------------------------------------------------------------------------------------------------- */

/*
 * exit: kind | EXIT_SHADOW | offset of the instruction in the page << 4 | instructions of the unit not executed << 20.
 */
enum bt_exit_kind {
    BT_BAIL,     /* the interpreter does this instruction */
    BT_LINK,     /* a jump to another unit of the page that is not linked yet: exit_arg names it */
    BT_LOOK,     /* a request, or the count is near: at this instruction */
    BT_LOOK_FAR, /* at exit_lin: looked up before going on */
    BT_STALE,    /* the unit is no longer what memory holds: at exit_lin */
    BT_LEFT,     /* behind a called operation: the state is complete, in struct vcpu */
    BT_VIEW,     /* the host faulted at an access by a view */
    BT_EXITS
};
#define EXIT_INFO(kind, off, rest) ((uint32_t)(kind) | (uint32_t)(off) << 4 | (uint32_t)(rest) << 20)
#define EXIT_KIND(info) ((enum bt_exit_kind)((info)&7))
#define EXIT_SHADOW 8u /* the instruction is in the shadow of the STI before it */
#define EXIT_OFF(info) ((info) >> 4 & 0xffff)
#define EXIT_REST(info) ((info) >> 20)

/* What the slow path of a check is told: size | FILL_*. */
#define FILL_WRITE 0x1000u
#define FILL_READ_FIRST \
    0x2000u /* with FILL_WRITE: the first access reads, so nothing may be marked written yet */
#define FILL_ALIGNED 0x800u /* #GP unless 16-byte aligned: before anything is marked */
#define FILL_PROBE 0x400u   /* what is not in the TLB fails: perhaps nothing is accessed */
#define FILL_SIZE 0x3ffu
/* A page fault of the checked range is the instruction's: it has no other access, and would raise nothing before. Its own begins
 * FILL_OFFSET bytes behind the range's first one. */
#define FILL_EXACT 0x20000000u                   /* above a spot's index */
#define FILL_OFFSET(info) ((info) >> 14 & 0xffu) /* without a spot; else 0 */
#define FILL_OFFSET_SHIFT 14
#define FILL_SPOT_SHIFT 14 /* index of the spot to be filled, too */

#endif
