/* SPDX-License-Identifier: Apache-2.0 */
/* The page-table walk, without any caching: what walk.c offers to tlb.c. */
#ifndef SUNDOG_MMU_WALK_H
#define SUNDOG_MMU_WALK_H

#include "base/bits.h"
#include "mmu/mmu.h"

/* The control bits that paging looks at, in struct paging_regs. No two of them share a position, whatever
 * their register. */
#define PG_CR0_WP BIT(16)
#define PG_CR0_PG BIT(31)
#define PG_CR4_PSE BIT(4)
#define PG_CR4_PAE BIT(5)
#define PG_CR4_PGE BIT(7)
#define PG_CR4_PCIDE BIT(17)
#define PG_CR4_SMEP BIT(20)
#define PG_CR4_SMAP BIT(21)
#define PG_EFER_LMA BIT(10)
#define PG_EFER_NXE BIT(11)

/* #PF error code bits (SDM 3A 4.7). */
#define PF_PRESENT 0x1u
#define PF_WRITE 0x2u
#define PF_USER 0x4u
#define PF_RESERVED 0x8u
#define PF_FETCH 0x10u

struct walk_result {
    gpa addr;            /* of the byte asked for */
    unsigned page_shift; /* of the translation: 12, 21, 22 or 30; 12 with paging off */
    uint32_t fault;      /* MMU_OK or MMU_FAULT_* */
    uint32_t error_code;
    bool global;  /* not of one address space alone (SDM 3A 4.10.2.4) */
    bool settled; /* accessed and dirty bits are as they should be: the translation may be cached */
    /* For mmu_walk_next(): the entry of a 4 KiB page on the host, or NULL; the rights of all levels above it. */
    const uint8_t *leaf;
    uint64_t above;
};

/* Walks the tables of m->regs for `access` by `index`. `commit` sets accessed and dirty bits. The result is made where it is
 * wanted: copied as a whole it would have to wait for all earlier stores. */
void mmu_walk(struct mmu *m, gva addr, enum mmu_access access, enum mmu_index index, bool commit,
              struct walk_result *out);

/* Goes on to the following page, as far as that takes no other table and changes no accessed or dirty bit: within a large page,
 * and from entry to entry of the last table. False: walk. `out` is of a walk for the same access that was settled. */
bool mmu_walk_next(const struct mmu *m, enum mmu_access access, enum mmu_index index,
                   struct walk_result *out);

static inline bool paging_pae(const struct paging_regs *r) { return r->cr4 & PG_CR4_PAE; }

#endif
