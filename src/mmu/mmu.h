/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest paging: the page-table walk (walk.c) and the software TLB filled from it (tlb.c).
 *
 * A TLB entry's tag is  page address | generation.  There are three TLBs a vcpu, picked by who asks: user, supervisor
 * under SMAP, supervisor allowed to touch user pages. The generation (12 bits, 1..4095) of the user's names an address
 * space: CR3/PCID, paging mode. Loading another address space is picking another generation, so nothing is swept; a
 * recent one found again keeps its entries. The supervisor's two have one generation for all spaces, so that a kernel's
 * global pages stay.
 *
 * Only pages whose accesses need no notice get a tag: a write tag needs the dirty bit set and
 * pmap_claim_write(); a page with a data breakpoint or MMIO gets none. Everything else is a miss and takes
 * mmu_translate().
 */
#ifndef SUNDOG_MMU_MMU_H
#define SUNDOG_MMU_MMU_H

#include "base/types.h"
#include "memory/pmap.h"

enum mmu_access { ACCESS_READ = 0, ACCESS_WRITE = 1, ACCESS_FETCH = 2 };

/* Who asks. MMU_SUPER: supervisor with SMAP in force; MMU_SUPER_AC: supervisor with SMAP off or EFLAGS.AC
 * set. */
enum mmu_index { MMU_USER = 0, MMU_SUPER = 1, MMU_SUPER_AC = 2, MMU_INDEX_COUNT };

/* Which generation a TLB's entries carry. */
enum mmu_gen_kind { GEN_SPACE, GEN_SHARED, GEN_KINDS };
static inline enum mmu_gen_kind gen_kind(enum mmu_index index)
{
    return index == MMU_USER ? GEN_SPACE : GEN_SHARED;
}

#define TLB_ENTRIES 4096u
#define TLB_GEN_MASK 0xfffull
#define TLB_GEN_NONE 0xfffull /* a generation that no entry carries: every look-up misses */

struct tlb_entry {
    uint64_t tag[2]; /* [ACCESS_READ], [ACCESS_WRITE]: page | generation, 0 = none */
    uint64_t tag_x;  /* same for fetches */
    uint64_t addend; /* host address - guest-linear address */
};

/* The paging registers: the processor's values, kept equal by cpu/ through mmu_set_paging(). */
struct paging_regs {
    uint64_t cr0, cr3, cr4, efer;
};

/* A translated page or the reason why not. */
struct mmu_result {
    gpa addr;            /* of the byte asked for, before A20 */
    struct page *page;   /* NULL: MMIO or unbacked */
    uint32_t fault;      /* 0, or MMU_FAULT_* */
    uint32_t error_code; /* #PF error code (SDM 3A 4.7) when fault == MMU_FAULT_PAGE */
};
enum { MMU_OK = 0, MMU_FAULT_PAGE = 1, MMU_FAULT_CANONICAL = 2 };

/* Recent address spaces kept by generation. */
#define MMU_SPACES 8
struct mmu_space {
    uint64_t cr3;   /* table base and PCID */
    uint64_t mode;  /* paging-mode bits it was built under */
    uint16_t gen;   /* 0 = free */
    uint64_t stamp; /* mmu.stamp while nothing was dropped; 0: another one is due */
};

/* All that was dropped when a stamp moved from one value to the next: for those who keep many copies under it. */
struct mmu_drop {
    uint64_t from, to;
    const uint8_t *host; /* the page with this host address lost rights; NULL: */
    uint64_t page;       /* the translations of this linear page went */
    bool write_only;     /* of `host`: all but the right to write stays */
};
#define MMU_DROPS 256u

struct mmu_stats {
    uint64_t hidden_faults; /* TLB misses filled */
    uint64_t true_faults;   /* #PF for the guest */
    uint64_t walks;
    uint64_t flushes_all; /* every entry of every space dropped */
    uint64_t space_switches, space_hits;
};

/* Page numbers, two bits each by hash: who was noted is found, and hardly any other one. */
struct mmu_noted {
    uint64_t bits[1024];
};

/* One vcpu's MMU. All functions run on the vcpu's thread, or with it parked. */
struct mmu {
    struct tlb_entry *tlb; /* the TLB for data at the current privilege: &tlbs[index][0] */
    uint64_t gen;          /* generation of that TLB's entries: gens[gen_kind(index)] */
    uint64_t gens[GEN_KINDS];
    /* Names the data translations in force, for copies that others keep of TLB entries: a copy made under a stamp holds
     * while mmu.stamp is that stamp. Moves at every drop; the old one comes back with an unchanged address space. Never used
     * again: no guest can count to 2^64. */
    uint64_t stamp, next_stamp;
    struct mmu_drop drops[MMU_DROPS]; /* by `from` */
    uint32_t last_write;              /* slot of the user's TLB that was last filled for writing */
    struct tlb_entry tlbs[MMU_INDEX_COUNT][TLB_ENTRIES];
    enum mmu_index index;
    struct pmap *pmap;
    int consumer; /* number given by pmap_add_consumer */
    struct paging_regs regs;
    struct mmu_space spaces[MMU_SPACES];
    uint32_t space; /* the current one */
    uint32_t next_space, next_gen;
    uint16_t shared_gen; /* the supervisor's, 0 = to be given */
    bool local_fetch;    /* code was fetched by the supervisor from a page that is not global */
    /* Slots of the supervisor's TLBs that hold pages that are not global. */
    uint64_t local[MMU_INDEX_COUNT - MMU_SUPER][TLB_ENTRIES / 64];
    bool bypass; /* every access takes the slow path: `gen` is TLB_GEN_NONE (alignment checking) */
    /* Which large pages may be in the TLB, hashed: INVLPG of a small fragment drops all. */
    struct mmu_noted large_2m, large_1g;
    /* Pages that instructions were fetched from: flushing any other page moves no epoch. */
    struct mmu_noted fetched;
    uint32_t pdpte_valid;
    uint64_t pdpte[4]; /* PAE: loaded at CR3 load (SDM 3A 4.4.1); saved with the processor */
    /* Names the fetch translations in force: another value whenever they may have changed, the old one
     * when a recent address space comes back unchanged. Block lookup caches key on it, with the privilege. Generation
     * in the low 12 bits. epochs[gen_kind(index)]. */
    uint64_t flush_epoch;
    uint64_t epochs[GEN_KINDS];
    /* Data breakpoints: pages in this list get no tag, so every access to them comes to the slow path. */
    uint64_t watch_page[8];
    unsigned watch_count;
    struct mmu_stats stats;
};

int mmu_init(struct mmu *m, struct pmap *pmap, int consumer);
/* CR0/CR3/CR4/EFER changed: picks the address space. `flush` drops the (non-global) translations of the
 * new space, as MOV to CR3 without bit 63 does; changes of paging mode bits always use fresh generations. */
void mmu_set_paging(struct mmu *m, const struct paging_regs *regs, bool flush);
/* Loads the four PAE PDPTEs from CR3: false if one has reserved bits set (the caller raises #GP). */
bool mmu_load_pdptes(struct mmu *m, const struct paging_regs *regs);
/* Privilege or AC changed. */
void mmu_set_index(struct mmu *m, enum mmu_index index);
/* While on, no look-up hits and nothing is filled: the slow path sees every access. */
void mmu_set_bypass(struct mmu *m, bool on);
/* The linear pages (page-aligned, at most 8) whose data accesses must all reach the slow path. Flushes
 * when the list changes. */
void mmu_set_watch(struct mmu *m, const uint64_t *pages, unsigned count);

void mmu_flush_all(struct mmu *m);            /* every space, global pages too */
void mmu_flush_page(struct mmu *m, gva addr); /* INVLPG: current space, and global translations of the page */
void mmu_flush_pcid(struct mmu *m, unsigned pcid);                /* INVPCID type 1 */
void mmu_flush_pcid_page(struct mmu *m, unsigned pcid, gva addr); /* INVPCID type 0 */
/* Drops cached translations of physical pages (pmap's revocation), on the vcpu's own thread or with it
 * parked. */
void mmu_drop_physical(struct mmu *m, uint64_t first_page, uint64_t count, unsigned rights);

/* Translates one byte's address for `access` by `index`, sets accessed/dirty bits, fills the TLB where
 * allowed. */
struct mmu_result mmu_translate(struct mmu *m, gva addr, enum mmu_access access, enum mmu_index index);
/* The same, and fills up to *pages pages that follow where the walk has them at hand: entries of the same table whose accessed
 * and dirty bits are set already, the rest of a large page, and writes only where the right to write is held. So nobody can see
 * that it looked. *pages: how many it filled. Not for fetches. */
struct mmu_result mmu_translate_ahead(struct mmu *m, gva addr, enum mmu_access access, enum mmu_index index,
                                      unsigned *pages);
/* For an access at present privilege to that page and on to those behind it, `pages` in all: where the host has them. Looks ahead
 * as mmu_translate_ahead() does, and fills the TLB with what it finds there only if `keep`. Returns how many it found, 0 when the
 * first needs notice; a fault is not counted, since whoever asks does the access then. */
unsigned mmu_translate_run(struct mmu *m, gva addr, enum mmu_access access, bool keep, uint8_t **host,
                           unsigned pages);
/* The same for pages that will be written soon: they are claimed for that, though they may not have been written yet. */
unsigned mmu_translate_coming(struct mmu *m, gva addr, enum mmu_access access, uint8_t **host,
                              unsigned pages);
/* As mmu_translate() without filling, without setting A/D bits and without counting: for debuggers and
 * introspection. */
struct mmu_result mmu_peek(struct mmu *m, gva addr, enum mmu_access access, enum mmu_index index);

/* Which parts of 512 GiB of the lower half the page tables have anything in, a bit each. 64-bit paging. */
void mmu_user_parts(struct mmu *m, uint64_t parts[4]);

/* True when a write there is allowed and would change no accessed or dirty bit. */
bool mmu_write_settled(struct mmu *m, gva addr, enum mmu_index index);

/* What was dropped when this stamp went out of force; NULL: more, or long ago. */
static inline const struct mmu_drop *mmu_dropped(const struct mmu *m, uint64_t stamp)
{
    const struct mmu_drop *d = &m->drops[stamp % MMU_DROPS];
    return d->from == stamp && stamp ? d : NULL;
}

static inline uint64_t mmu_gen(const struct mmu *m, enum mmu_index index) { return m->gens[gen_kind(index)]; }

static inline struct tlb_entry *tlb_slot(struct tlb_entry *tlb, uint64_t lin)
{
    return &tlb[(lin >> PAGE_SHIFT) & (TLB_ENTRIES - 1)];
}

/* Host address for an access of `size` bytes at current privilege, or NULL: not cached, or crosses into
 * another page. */
static inline void *tlb_find(const struct mmu *m, uint64_t lin, unsigned size, enum mmu_access access)
{
    const struct tlb_entry *e = tlb_slot(m->tlb, lin);
    if (likely(e->tag[access] == (((lin + size - 1) & ~(uint64_t)PAGE_OFFSET_MASK) | m->gen)))
        return (void *)(uintptr_t)(lin + e->addend);
    return NULL;
}

/* Host address of code at current privilege, or NULL: not cached. */
static inline const uint8_t *tlb_find_code(const struct mmu *m, uint64_t lin)
{
    const struct tlb_entry *e = tlb_slot(m->tlb, lin);
    bool cached = e->tag_x == ((lin & ~(uint64_t)PAGE_OFFSET_MASK) | m->gen);
    return likely(cached) ? (const uint8_t *)(uintptr_t)(lin + e->addend) : NULL;
}

#endif
