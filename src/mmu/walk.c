/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page-table walk (SDM 3A 4).
 *
 *   CR3 ──► level 0 entry ──► level 1 entry ──► ... ──► leaf: page frame + offset
 *
 * A paging mode is a row of facts for each of its levels: which address bits index it, whether an entry may
 * map a large page, and which bits must be zero. One loop walks them all. PAE starts at the four PDPTE
 * registers, which are level 0 with no rights.
 *
 * Rights are collected on the way and judged at the end; only a translation that is allowed sets accessed and
 * dirty bits, each by a compare-and-exchange on the entry that was read. If an entry changed meanwhile the
 * walk starts again.
 */
#include "mmu/walk.h"

#include <stdatomic.h>

#include "base/bits.h"

/* Entry bits, the same at all levels of all modes. */
#define PTE_P BIT(0)
#define PTE_W BIT(1)
#define PTE_U BIT(2)
#define PTE_A BIT(5)
#define PTE_D BIT(6)
#define PTE_PS BIT(7)
#define PTE_G BIT(8)
#define PTE_NX BIT(63)

#define BITS(high, low) ((~0ull >> (63 - (high))) & (~0ull << (low)))
#define PHYS_BEYOND BITS(51, MAXPHYADDR) /* address bits that this processor does not have */

struct level {
    uint8_t shift; /* lowest linear-address bit that indexes this table */
    uint8_t index_bits;
    bool large;              /* PS = 1 maps a page of 1 << shift bytes */
    uint64_t reserved;       /* bits that must be 0 in an entry that points to a table (or a 4 KiB page) */
    uint64_t reserved_large; /* ... and in one that maps a large page */
};

struct format {
    uint8_t entry_bytes;
    uint8_t levels;
    struct level level[4];
};

/* clang-format off */
/* SDM 3A Table 4-6 */
static const struct format format_32 = { 4, 2, {
    { 22, 10, false, 0, 0 },
    { 12, 10, false, 0, 0 },
} };

/* The same with CR4.PSE: bits 20:13 of a 4 MiB entry are address bits 39:32. SDM 3A Table 4-4 */
static const struct format format_pse = { 4, 2, {
    { 22, 10, true,  0, BIT(21) },
    { 12, 10, false, 0, 0 },
} };

/* SDM 3A Tables 4-9 to 4-11; level 0 are the PDPTE registers, checked when loaded */
static const struct format format_pae = { 8, 3, {
    { 30, 2, false, 0, 0 },
    { 21, 9, true,  PHYS_BEYOND | BITS(62, 52), PHYS_BEYOND | BITS(62, 52) | BITS(20, 13) },
    { 12, 9, false, PHYS_BEYOND | BITS(62, 52), 0 },
} };

/* SDM 3A Tables 4-15 to 4-20 */
static const struct format format_4level = { 8, 4, {
    { 39, 9, false, PHYS_BEYOND | PTE_PS, 0 },
    { 30, 9, true,  PHYS_BEYOND,          PHYS_BEYOND | BITS(29, 13) },
    { 21, 9, true,  PHYS_BEYOND,          PHYS_BEYOND | BITS(20, 13) },
    { 12, 9, false, PHYS_BEYOND,          0 },
} };
/* clang-format on */

/* One entry as read, and where it lies, to be changed there. */
struct entry {
    struct page *page; /* NULL: a PDPTE register, or not in memory */
    uint16_t off;
    uint64_t value;
};

static const struct format *format_of(const struct paging_regs *r)
{
    if (r->efer & PG_EFER_LMA)
        return &format_4level;
    if (paging_pae(r))
        return &format_pae;
    return r->cr4 & PG_CR4_PSE ? &format_pse : &format_32;
}

/* Tables outside RAM and ROM read as all ones, as a bus without a device does. */
static struct entry read_entry(struct mmu *m, uint64_t addr, unsigned bytes)
{
    struct entry e = { .page = pmap_page(m->pmap, GPA(addr)), .off = addr & PAGE_OFFSET_MASK };
    if (!e.page || !e.page->host) {
        e.page = NULL;
        e.value = mask_bytes(bytes);
        return e;
    }
    /* Naturally aligned: entries lie in page-aligned tables, or in PAE's 32-byte root. */
    void *host = e.page->host + e.off;
    e.value = bytes == 8 ? __atomic_load_n((uint64_t *)host, __ATOMIC_ACQUIRE)
                         : __atomic_load_n((uint32_t *)host, __ATOMIC_ACQUIRE);
    return e;
}

/* Sets bits in an entry if it is still what was read. False: it changed, walk again. */
static bool set_entry_bits(struct mmu *m, struct entry *e, unsigned bytes, uint64_t set)
{
    if ((e->value & set) == set || !e->page)
        return true;
    if (atomic_load_explicit(&e->page->state, memory_order_relaxed) & PAGE_ROM)
        return true; /* the store is dropped, as any store to ROM */
    void *host = e->page->host + e->off;
    bool done;
    if (bytes == 8) {
        uint64_t old = e->value;
        done = __atomic_compare_exchange_n((uint64_t *)host, &old, old | set, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST);
    } else {
        uint32_t old = (uint32_t)e->value;
        done = __atomic_compare_exchange_n((uint32_t *)host, &old, old | (uint32_t)set, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    if (done)
        pmap_written(m->pmap, e->page, e->off, bytes);
    return done;
}

/* Do the collected rights allow it? (SDM 3A 4.6.1) */
static bool allowed(const struct paging_regs *r, uint64_t rights, enum mmu_access access,
                    enum mmu_index index)
{
    bool user_page = rights & PTE_U;
    if (access == ACCESS_FETCH) {
        if (rights & PTE_NX)
            return false;
        return index == MMU_USER ? user_page : !(user_page && (r->cr4 & PG_CR4_SMEP));
    }
    bool writable = rights & PTE_W;
    if (index == MMU_USER)
        return user_page && (access == ACCESS_READ || writable);
    if (user_page && index == MMU_SUPER && (r->cr4 & PG_CR4_SMAP))
        return false;
    return access == ACCESS_READ || writable || !(r->cr0 & PG_CR0_WP);
}

static uint32_t error_code(const struct paging_regs *r, enum mmu_access access, enum mmu_index index)
{
    uint32_t code = index == MMU_USER ? PF_USER : 0;
    if (access == ACCESS_WRITE)
        code |= PF_WRITE;
    bool tells_fetch = (r->cr4 & PG_CR4_SMEP) || (paging_pae(r) && (r->efer & PG_EFER_NXE));
    if (access == ACCESS_FETCH && tells_fetch)
        code |= PF_FETCH;
    return code;
}

static uint64_t large_frame(const struct format *f, uint64_t entry, unsigned shift)
{
    if (f->entry_bytes == 4)
        return (entry & 0xffc00000u) | bits(entry, 13, 8) << 32;
    return entry & BITS(51, 0) & (~0ull << shift);
}

/* Rights below an entry. Bit 63 of an entry of 4 bytes is 0. */
static uint64_t with_entry(uint64_t rights, uint64_t entry)
{
    return (rights & (entry | PTE_NX)) | (entry & PTE_NX);
}

enum step { STEP_DONE, STEP_AGAIN };

static enum step walk_once(struct mmu *m, uint64_t lin, enum mmu_access access, enum mmu_index index,
                           bool commit, struct walk_result *out)
{
    const struct paging_regs *r = &m->regs;
    const struct format *f = format_of(r);
    const uint64_t nx_reserved = r->efer & PG_EFER_NXE ? 0 : PTE_NX;
    struct entry path[4];
    uint64_t table = r->cr3 & BITS(51, 12);
    uint64_t rights = PTE_W | PTE_U, above = 0; /* NX is or-ed in, the others and-ed */
    unsigned depth = 0, shift;

    *out = (struct walk_result){ .fault = MMU_FAULT_PAGE, .error_code = error_code(r, access, index) };
    for (;; depth++) {
        const struct level *l = &f->level[depth];
        uint64_t slot = bits(lin, l->shift, l->index_bits);
        bool is_register = f == &format_pae && depth == 0;
        struct entry *e = &path[depth];
        *e = is_register ? (struct entry){ .value = m->pdpte[slot] }
                         : read_entry(m, table + slot * f->entry_bytes, f->entry_bytes);
        if (!(e->value & PTE_P))
            return STEP_DONE;
        shift = l->shift;
        if (!is_register) {
            bool large = l->large && (e->value & PTE_PS);
            uint64_t reserved = large ? l->reserved_large : l->reserved;
            if (f->entry_bytes == 8)
                reserved |= nx_reserved;
            if (e->value & reserved) {
                out->error_code |= PF_PRESENT | PF_RESERVED;
                return STEP_DONE;
            }
            above = rights;
            rights = with_entry(rights, e->value);
            if (large) {
                table = large_frame(f, e->value, shift);
                break;
            }
        }
        table = e->value & BITS(51, 12);
        if (depth + 1u == f->levels)
            break;
    }
    if (!allowed(r, rights, access, index)) {
        out->error_code |= PF_PRESENT;
        return STEP_DONE;
    }
    out->settled = true;
    for (unsigned i = 0; i <= depth; i++) {
        uint64_t set = i == depth && access == ACCESS_WRITE ? PTE_A | PTE_D : PTE_A;
        if (!commit)
            out->settled = out->settled && (!path[i].page || (path[i].value & set) == set);
        else if (!set_entry_bits(m, &path[i], f->entry_bytes, set))
            return STEP_AGAIN;
    }
    out->fault = MMU_OK;
    out->error_code = 0;
    out->page_shift = shift;
    out->global = (path[depth].value & PTE_G) && (r->cr4 & PG_CR4_PGE);
    out->addr = GPA(table | (lin & (BIT(shift) - 1)));
    out->above = above;
    out->leaf = shift == PAGE_SHIFT && path[depth].page ? path[depth].page->host + path[depth].off : NULL;
    return STEP_DONE;
}

/* Each restart means that another processor changed an entry within the same nanoseconds; after this many the
 * walk stands without its bits and is not cached, so that no guest can hold a vcpu here. */
#define WALK_RESTARTS 256

void mmu_walk(struct mmu *m, gva addr, enum mmu_access access, enum mmu_index index, bool commit,
              struct walk_result *out)
{
    *out =
        (struct walk_result){ .addr = GPA(addr.v & 0xffffffffu), .page_shift = PAGE_SHIFT, .settled = true };
    if (!(m->regs.cr0 & PG_CR0_PG))
        return;
    uint64_t lin = addr.v;
    if (!(m->regs.efer & PG_EFER_LMA)) {
        lin &= 0xffffffffu;
    } else if ((uint64_t)sext(lin, 48) != lin) {
        *out = (struct walk_result){ .fault = MMU_FAULT_CANONICAL };
        return;
    }
    for (unsigned tries = 0; tries < WALK_RESTARTS; tries++)
        if (walk_once(m, lin, access, index, commit, out) == STEP_DONE)
            return;
    walk_once(m, lin, access, index, false, out);
    out->settled = false;
}

/* The entry behind the leaf, if it lies in the same table and may be used as it is. */
static bool next_leaf(const struct paging_regs *r, enum mmu_access access, enum mmu_index index,
                      struct walk_result *out)
{
    const struct format *f = format_of(r);
    const uint8_t *leaf = out->leaf + f->entry_bytes;
    if (!((uintptr_t)leaf & PAGE_OFFSET_MASK))
        return false;
    uint64_t e = f->entry_bytes == 8
                     ? __atomic_load_n((const uint64_t *)(const void *)leaf, __ATOMIC_ACQUIRE)
                     : __atomic_load_n((const uint32_t *)(const void *)leaf, __ATOMIC_ACQUIRE);
    uint64_t needed = PTE_P | PTE_A | (access == ACCESS_WRITE ? PTE_D : 0);
    uint64_t reserved = f->level[f->levels - 1].reserved;
    if (f->entry_bytes == 8 && !(r->efer & PG_EFER_NXE))
        reserved |= PTE_NX;
    if ((e & needed) != needed || e & reserved || !allowed(r, with_entry(out->above, e), access, index))
        return false;
    out->leaf = leaf;
    out->global = (e & PTE_G) && (r->cr4 & PG_CR4_PGE);
    out->addr = GPA((e & BITS(51, 12)) | (out->addr.v & PAGE_OFFSET_MASK));
    return true;
}

bool mmu_walk_next(const struct mmu *m, enum mmu_access access, enum mmu_index index, struct walk_result *out)
{
    bool paging = m->regs.cr0 & PG_CR0_PG;
    if (out->leaf)
        return next_leaf(&m->regs, access, index, out);
    if (paging && out->page_shift == PAGE_SHIFT)
        return false;
    uint64_t next = out->addr.v + PAGE_SIZE;
    if ((next ^ out->addr.v) >> (paging ? out->page_shift : 32))
        return false;
    out->addr = GPA(next);
    return true;
}

/* Reserved bits of a PDPTE (SDM 3A Table 4-8): 2:1, 8:5 and everything above the physical address. */
#define PDPTE_RESERVED (BITS(2, 1) | BITS(8, 5) | BITS(63, MAXPHYADDR))

bool mmu_load_pdptes(struct mmu *m, const struct paging_regs *regs)
{
    uint64_t fresh[4];
    uint64_t table = regs->cr3 & BITS(31, 5);
    for (unsigned i = 0; i < 4; i++) {
        fresh[i] = read_entry(m, table + i * 8, 8).value;
        if ((fresh[i] & PTE_P) && (fresh[i] & PDPTE_RESERVED))
            return false;
    }
    m->pdpte_valid = 0;
    for (unsigned i = 0; i < 4; i++) {
        m->pdpte[i] = fresh[i];
        m->pdpte_valid |= (uint32_t)(fresh[i] & PTE_P) << i;
    }
    return true;
}

void mmu_user_parts(struct mmu *m, uint64_t parts[4])
{
    uint64_t table = m->regs.cr3 & BITS(51, 12);
    for (unsigned i = 0; i < 4; i++)
        parts[i] = 0;
    for (unsigned i = 0; i < 256; i++)
        if (read_entry(m, table + i * 8, 8).value & PTE_P)
            parts[i / 64] |= BIT(i % 64);
}
