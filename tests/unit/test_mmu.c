/* SPDX-License-Identifier: Apache-2.0 */
/* The page-table walk against hand-made tables of every mode, error codes by SDM 3A 4.7; and what the TLB may
 * and may not keep. */
#include "cpu_kit.h"

#include <string.h>

#include "mmu/walk.h"

/* Entry bits */
#define P 1ull
#define W 2ull
#define U 4ull
#define A 0x20ull
#define D 0x40ull
#define PS 0x80ull
#define G 0x100ull
#define NX (1ull << 63)

/* Where the tests put things */
#define ROOT 0x10000u
#define L1 0x11000u
#define L2 0x12000u
#define L3 0x13000u
#define PAGE 0x200000u

static struct mmu_result go(struct kit *k, uint64_t lin, enum mmu_access access, enum mmu_index index)
{
    return mmu_translate(&k->v->mmu, GVA(lin), access, index);
}

static void set_regs(struct kit *k, uint64_t cr0, uint64_t cr3, uint64_t cr4, uint64_t efer)
{
    const struct paging_regs regs = { cr0, cr3, cr4, efer };
    mmu_set_paging(&k->v->mmu, &regs, true);
    mmu_flush_all(&k->v->mmu);
}

#define PG_ON (CR0_PE | CR0_PG | CR0_WP)

static void assert_maps(struct kit *k, uint64_t lin, enum mmu_access access, enum mmu_index index,
                        uint64_t to)
{
    struct mmu_result r = go(k, lin, access, index);
    assert_int_equal(r.fault, MMU_OK);
    assert_int_equal(r.addr.v, to);
}

static void assert_faults(struct kit *k, uint64_t lin, enum mmu_access access, enum mmu_index index,
                          uint32_t error)
{
    struct mmu_result r = go(k, lin, access, index);
    assert_int_equal(r.fault, MMU_FAULT_PAGE);
    assert_int_equal(r.error_code, error);
}

static void paging_off(void **state)
{
    struct kit *k = *state;
    set_regs(k, CR0_PE, 0, 0, 0);
    assert_maps(k, 0x123456, ACCESS_WRITE, MMU_USER, 0x123456);
    assert_maps(k, 0xfee00000, ACCESS_FETCH, MMU_SUPER, 0xfee00000);
    assert_null(go(k, 0xfee00000, ACCESS_READ, MMU_SUPER).page);
}

/* Bits 31:22 and 21:12 index (SDM 3A Figure 4-2); accessed at both levels, dirty at the last. */
static void two_levels(void **state)
{
    struct kit *k = *state;
    uint64_t lin = 3u << 22 | 5u << 12;
    kit_put32(k, ROOT + 3 * 4, L1 | P | W | U);
    kit_put32(k, L1 + 5 * 4, PAGE | P | W | U);
    set_regs(k, PG_ON, ROOT, 0, 0);
    assert_maps(k, lin + 0x123, ACCESS_READ, MMU_USER, PAGE + 0x123);
    assert_int_equal(kit_get32(k, ROOT + 3 * 4), L1 | P | W | U | A);
    assert_int_equal(kit_get32(k, L1 + 5 * 4), PAGE | P | W | U | A);
    assert_maps(k, lin, ACCESS_WRITE, MMU_USER, PAGE);
    assert_int_equal(kit_get32(k, L1 + 5 * 4), PAGE | P | W | U | A | D);
    assert_faults(k, 4u << 22, ACCESS_READ, MMU_SUPER, 0);
    assert_faults(k, 4u << 22, ACCESS_WRITE, MMU_USER, PF_WRITE | PF_USER);
    assert_faults(k, lin + 0x1000, ACCESS_FETCH, MMU_USER,
                  PF_USER); /* without NX or SMEP a fetch is not told apart */
}

/* A 4 MiB page takes physical bits 39:32 from bits 20:13 (SDM 3A Table 4-4); bit 21 is reserved; without PSE
 * the bit means nothing. */
static void pse_pages(void **state)
{
    struct kit *k = *state;
    uint32_t entry = (uint32_t)((KIT_HIGH & 0xffc00000u) | ((KIT_HIGH >> 32 & 0xff) << 13) | P | W | PS);
    kit_put32(k, ROOT + 1 * 4, entry);
    kit_put32(k, ROOT + 2 * 4, 0x400000 | P | W | PS | 1u << 21);
    set_regs(k, PG_ON, ROOT, CR4_PSE, 0);
    assert_maps(k, (1u << 22) + 0x212345, ACCESS_WRITE, MMU_SUPER, KIT_HIGH + 0x212345);
    assert_int_equal(kit_get32(k, ROOT + 1 * 4), entry | A | D);
    assert_faults(k, 2u << 22, ACCESS_READ, MMU_SUPER, PF_PRESENT | PF_RESERVED);
    kit_put32(k, ROOT + 1 * 4, L1 | P | W | PS);
    kit_put32(k, L1, PAGE | P | W);
    set_regs(k, PG_ON, ROOT, 0, 0);
    assert_maps(k, 1u << 22, ACCESS_READ, MMU_SUPER, PAGE);
}

static void load_pdptes(struct kit *k, const struct paging_regs *r)
{
    assert_true(mmu_load_pdptes(&k->v->mmu, r));
}

static void pae(void **state)
{
    struct kit *k = *state;
    const struct paging_regs r = { PG_ON, ROOT + 0x20, CR4_PAE, EFER_NXE };
    kit_put64(k, ROOT + 0x20 + 3 * 8, L1 | P);
    kit_put64(k, L1 + 5 * 8, L2 | P | W | U);
    kit_put64(k, L2 + 7 * 8, KIT_HIGH | P | U | NX);
    kit_put64(k, L1 + 6 * 8, 0x600000 | P | W | U | PS);
    kit_put64(k, L1 + 8 * 8, L2 | P | W | U | 1ull << 52); /* 62:52 are reserved here, SDM 3A Table 4-10 */
    kit_put64(k, L1 + 9 * 8, 0x600000 | P | PS | 1u << 13);
    load_pdptes(k, &r);
    set_regs(k, r.cr0, r.cr3, r.cr4, r.efer);
    uint64_t top = 3ull << 30;
    assert_maps(k, top | 5u << 21 | 7u << 12 | 0xabc, ACCESS_READ, MMU_USER, KIT_HIGH + 0xabc);
    assert_faults(k, top | 5u << 21 | 7u << 12, ACCESS_WRITE, MMU_SUPER, PF_PRESENT | PF_WRITE);
    assert_faults(k, top | 5u << 21 | 7u << 12, ACCESS_FETCH, MMU_USER, PF_PRESENT | PF_USER | PF_FETCH);
    assert_maps(k, top | 6u << 21 | 0x12345, ACCESS_WRITE, MMU_USER, 0x612345);
    assert_faults(k, top | 8u << 21, ACCESS_READ, MMU_SUPER, PF_PRESENT | PF_RESERVED);
    assert_faults(k, top | 9u << 21, ACCESS_READ, MMU_SUPER, PF_PRESENT | PF_RESERVED);
    assert_faults(k, 0x1000, ACCESS_READ, MMU_SUPER, 0);
    /* The registers stand until they are loaded again (SDM 3A 4.4.1), and have no accessed bit. */
    assert_int_equal(kit_get64(k, ROOT + 0x20 + 3 * 8), L1 | P);
    kit_put64(k, ROOT + 0x20 + 3 * 8, 0);
    mmu_flush_all(&k->v->mmu);
    assert_maps(k, top | 6u << 21, ACCESS_READ, MMU_USER, 0x600000);
}

static void pdpte_reserved_bits(void **state)
{
    struct kit *k = *state;
    const struct paging_regs r = { PG_ON, ROOT, CR4_PAE, 0 };
    static const unsigned reserved[] = { 1, 2, 5, 8, 40, 63 }, ignored[] = { 3, 4, 9, 11 };
    for (unsigned i = 0; i < array_size(reserved); i++) {
        kit_put64(k, ROOT + 8, L1 | P | BIT(reserved[i]));
        assert_false(mmu_load_pdptes(&k->v->mmu, &r));
        kit_put64(k, ROOT + 8, L1 | BIT(reserved[i])); /* not present: nothing is reserved */
        assert_true(mmu_load_pdptes(&k->v->mmu, &r));
    }
    for (unsigned i = 0; i < array_size(ignored); i++) {
        kit_put64(k, ROOT + 8, L1 | P | BIT(ignored[i]));
        assert_true(mmu_load_pdptes(&k->v->mmu, &r));
    }
}

/* A chain ROOT -> L1 -> L2 -> L3 -> PAGE at this address, all bits allowed. */
#define LIN (1ull << 39 | 2ull << 30 | 3ull << 21 | 4ull << 12)

static const struct place {
    uint32_t entry;
    uint32_t next;
} chain[] = { { ROOT + 1 * 8, L1 }, { L1 + 2 * 8, L2 }, { L2 + 3 * 8, L3 }, { L3 + 4 * 8, PAGE } };

static void build_chain(struct kit *k)
{
    for (unsigned i = 0; i < 4; i++)
        kit_put64(k, chain[i].entry, chain[i].next | P | W | U);
}

#define LONG_EFER (EFER_LME | EFER_LMA | EFER_NXE)

static void four_levels(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    assert_maps(k, LIN + 0xfff, ACCESS_READ, MMU_USER, PAGE + 0xfff);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(kit_get64(k, chain[i].entry), chain[i].next | P | W | U | A);
    assert_maps(k, LIN, ACCESS_WRITE, MMU_SUPER, PAGE);
    assert_int_equal(kit_get64(k, chain[3].entry), chain[3].next | P | W | U | A | D);
    for (unsigned i = 0; i < 4; i++) {
        kit_put64(k, chain[i].entry, chain[i].next | W | U);
        assert_faults(k, LIN, ACCESS_WRITE, MMU_USER, PF_WRITE | PF_USER);
        build_chain(k);
    }
}

/* Reserved bits at each level, for both kinds of entry (SDM 3A Tables 4-15 to 4-20). */
static void reserved_bits(void **state)
{
    struct kit *k = *state;
    static const struct {
        unsigned level, bit;
        bool large, nxe, faults;
    } rows[] = {
        { 0, 7, false, true, true },   { 0, 40, false, true, true },  { 0, 51, false, true, true },
        { 0, 52, false, true, false }, { 0, 63, false, false, true }, { 0, 8, false, true, false },
        { 1, 40, false, true, true },  { 1, 13, true, true, true },   { 1, 29, true, true, true },
        { 1, 12, true, true, false },  { 2, 13, true, true, true },   { 2, 20, true, true, true },
        { 2, 12, true, true, false },  { 2, 51, true, true, true },   { 2, 63, true, false, true },
        { 3, 7, false, true, false },  { 3, 40, false, true, true },  { 3, 63, false, false, true },
        { 3, 62, false, true, false }, { 3, 59, false, true, false },
    };
    for (unsigned i = 0; i < array_size(rows); i++) {
        build_chain(k);
        uint64_t frame = rows[i].large ? 0 : chain[rows[i].level].next;
        kit_put64(k, chain[rows[i].level].entry,
                  frame | P | W | U | (rows[i].large ? PS : 0) | BIT(rows[i].bit));
        set_regs(k, PG_ON, ROOT, CR4_PAE, rows[i].nxe ? LONG_EFER : LONG_EFER & ~EFER_NXE);
        if (rows[i].faults)
            assert_faults(k, LIN, ACCESS_WRITE, MMU_USER, PF_PRESENT | PF_WRITE | PF_USER | PF_RESERVED);
        else
            assert_int_equal(go(k, LIN, ACCESS_WRITE, MMU_USER).fault, MMU_OK);
    }
}

static void large_pages(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    kit_put64(k, chain[2].entry, 0x600000 | P | W | U | PS);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    assert_maps(k, LIN + 0x123456 - 0x4000, ACCESS_WRITE, MMU_USER, 0x600000 + 0x123456);
    assert_int_equal(kit_get64(k, chain[2].entry), 0x600000 | P | W | U | PS | A | D);
    build_chain(k);
    kit_put64(k, chain[1].entry, 0x40000000 | P | W | U | PS);
    mmu_flush_all(&k->v->mmu);
    assert_maps(k, LIN, ACCESS_READ, MMU_USER, 0x40000000 + (LIN & 0x3fffffff));
    assert_int_equal(kit_get64(k, chain[1].entry), 0x40000000 | P | W | U | PS | A);
}

/* Who may do what (SDM 3A 4.6.1), with the rights taken away at the leaf and at the root in turn. */
static void rights(void **state)
{
    struct kit *k = *state;
    enum { R = ACCESS_READ, WR = ACCESS_WRITE, X = ACCESS_FETCH };
    enum { US = MMU_USER, SU = MMU_SUPER, AC = MMU_SUPER_AC };
    static const struct {
        uint64_t bits; /* of the entry */
        int access, index;
        uint64_t cr0, cr4, efer;
        bool allowed;
        uint32_t error;
    } rows[] = {
        { W | U, R, US, PG_ON, 0, EFER_NXE, true, 0 },
        { U, WR, US, PG_ON, 0, EFER_NXE, false, PF_PRESENT | PF_WRITE | PF_USER },
        { W, R, US, PG_ON, 0, EFER_NXE, false, PF_PRESENT | PF_USER },
        { W, X, US, PG_ON, 0, EFER_NXE, false, PF_PRESENT | PF_USER | PF_FETCH },
        { W, X, US, PG_ON, 0, 0, false, PF_PRESENT | PF_USER },
        { W, X, US, PG_ON, CR4_SMEP, 0, false, PF_PRESENT | PF_USER | PF_FETCH },
        { U | NX, X, US, PG_ON, 0, EFER_NXE, false, PF_PRESENT | PF_USER | PF_FETCH },
        { U | NX, R, US, PG_ON, 0, EFER_NXE, true, 0 },
        { NX, X, SU, PG_ON, 0, EFER_NXE, false, PF_PRESENT | PF_FETCH },
        { 0, WR, SU, PG_ON, 0, EFER_NXE, false, PF_PRESENT | PF_WRITE },
        { 0, WR, SU, PG_ON & ~CR0_WP, 0, EFER_NXE, true, 0 },
        { U, WR, SU, PG_ON & ~CR0_WP, 0, EFER_NXE, true, 0 },
        { U, WR, US, PG_ON & ~CR0_WP, 0, EFER_NXE, false, PF_PRESENT | PF_WRITE | PF_USER },
        { W | U, X, SU, PG_ON, CR4_SMEP, EFER_NXE, false, PF_PRESENT | PF_FETCH },
        { W | U, X, AC, PG_ON, CR4_SMEP, EFER_NXE, false, PF_PRESENT | PF_FETCH },
        { W | U, X, SU, PG_ON, 0, EFER_NXE, true, 0 },
        { W | U, X, SU, PG_ON, CR4_SMAP, EFER_NXE, true, 0 }, /* SMAP is about data */
        { W | U, R, SU, PG_ON, CR4_SMAP, EFER_NXE, false, PF_PRESENT },
        { W | U, WR, SU, PG_ON, CR4_SMAP, EFER_NXE, false, PF_PRESENT | PF_WRITE },
        { W | U, R, AC, PG_ON, CR4_SMAP, EFER_NXE, true, 0 },
        { W, R, SU, PG_ON, CR4_SMAP, EFER_NXE, true, 0 },
        { W | U, R, US, PG_ON, CR4_SMAP | CR4_SMEP, EFER_NXE, true, 0 },
        { W | U, X, US, PG_ON, CR4_SMAP | CR4_SMEP, EFER_NXE, true, 0 },
    };
    for (unsigned level = 0; level < 4; level += 3) {
        for (unsigned i = 0; i < array_size(rows); i++) {
            build_chain(k);
            /* SMEP and SMAP ask whether the page is a user page: all levels say so in the rows where U is
             * set. */
            kit_put64(k, chain[level].entry, chain[level].next | P | rows[i].bits);
            set_regs(k, rows[i].cr0, ROOT, CR4_PAE | rows[i].cr4, EFER_LME | EFER_LMA | rows[i].efer);
            uint64_t before = kit_get64(k, chain[3].entry);
            if (rows[i].allowed) {
                assert_int_equal(
                    go(k, LIN, (enum mmu_access)rows[i].access, (enum mmu_index)rows[i].index).fault, MMU_OK);
            } else {
                assert_faults(k, LIN, (enum mmu_access)rows[i].access, (enum mmu_index)rows[i].index,
                              rows[i].error);
                assert_int_equal(kit_get64(k, chain[3].entry),
                                 before); /* a refused access leaves no A or D */
            }
        }
    }
}

static void not_canonical(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    static const uint64_t bad[] = { 0x800000000000ull, 0xffff7fffffffffffull, 0x8000000000000000ull,
                                    LIN | 1ull << 62 };
    for (unsigned i = 0; i < array_size(bad); i++)
        assert_int_equal(go(k, bad[i], ACCESS_READ, MMU_USER).fault, MMU_FAULT_CANONICAL);
    assert_int_equal(go(k, 0xffff800000000000ull, ACCESS_READ, MMU_USER).fault, MMU_FAULT_PAGE);
}

/* Tables where there is no memory read as all ones: present, with reserved bits. Tables in ROM work and stay
 * as they are. */
static void tables_elsewhere(void **state)
{
    struct kit *k = *state;
    set_regs(k, PG_ON, 0xe000000000ull, CR4_PAE, LONG_EFER);
    assert_faults(k, LIN, ACCESS_READ, MMU_SUPER, PF_PRESENT | PF_RESERVED);
    set_regs(k, PG_ON, 0xe0000000u, 0, 0);
    assert_int_equal(go(k, 0x1234, ACCESS_READ, MMU_SUPER).addr.v, 0xfffff234);
    build_chain(k);
    kit_put64(k, chain[0].entry, KIT_ROM | P | W | U);
    kit_put64(k, KIT_ROM + 2 * 8, L2 | P | W | U);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    assert_maps(k, LIN, ACCESS_WRITE, MMU_USER, PAGE);
    assert_int_equal(kit_get64(k, KIT_ROM + 2 * 8), L2 | P | W | U);
}

static void peek_leaves_no_trace(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    struct mmu_result r = mmu_peek(&k->v->mmu, GVA(LIN), ACCESS_WRITE, MMU_USER);
    assert_int_equal(r.addr.v, PAGE);
    assert_int_equal(kit_get64(k, chain[3].entry), chain[3].next | P | W | U);
    mmu_set_index(&k->v->mmu, MMU_USER);
    assert_null(tlb_find(&k->v->mmu, LIN, 1, ACCESS_READ));
}

/* Settled is a write that sets no bit: those on the way, the page's own two; and asking sets none. */
static void settled_writes(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    assert_false(mmu_write_settled(&k->v->mmu, GVA(LIN), MMU_USER));
    assert_int_equal(kit_get64(k, chain[3].entry), chain[3].next | P | W | U);
    assert_maps(k, LIN, ACCESS_READ, MMU_USER, PAGE);
    assert_false(mmu_write_settled(&k->v->mmu, GVA(LIN), MMU_USER));
    assert_maps(k, LIN, ACCESS_WRITE, MMU_USER, PAGE);
    assert_true(mmu_write_settled(&k->v->mmu, GVA(LIN), MMU_USER));
    for (unsigned i = 0; i < 4; i++) {
        uint64_t e = kit_get64(k, chain[i].entry);
        kit_put64(k, chain[i].entry, e & ~A);
        assert_false(mmu_write_settled(&k->v->mmu, GVA(LIN), MMU_USER));
        kit_put64(k, chain[i].entry, e);
    }
    kit_put64(k, chain[3].entry, kit_get64(k, chain[3].entry) & ~W);
    assert_false(mmu_write_settled(&k->v->mmu, GVA(LIN), MMU_USER));
}

/* Accessed bits that land on bytes that were decoded as code make that code stale. */
static void tables_on_code(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    uint32_t version = pmap_claim_code(k->pmap, GPA(chain[3].entry), 8);
    assert_maps(k, LIN, ACCESS_READ, MMU_USER, PAGE);
    assert_int_not_equal(atomic_load(&pmap_page(k->pmap, GPA(L3))->code_version), version);
}

/* --- the TLB -------------------------------------------------------------------------------------------- */

static bool hit(struct kit *k, uint64_t lin, enum mmu_access access)
{
    mmu_set_index(&k->v->mmu, MMU_USER);
    return tlb_find(&k->v->mmu, lin, 1, access) != NULL;
}

static bool hit_fetch(struct kit *k, uint64_t lin)
{
    const struct tlb_entry *e = tlb_slot(k->v->mmu.tlbs[MMU_USER], lin);
    return e->tag_x == ((lin & ~0xfffull) | k->v->mmu.gen);
}

static void fills_by_right(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    assert_false(hit(k, LIN, ACCESS_READ));
    go(k, LIN, ACCESS_READ, MMU_USER);
    assert_true(hit(k, LIN, ACCESS_READ));
    assert_false(hit(k, LIN, ACCESS_WRITE)); /* the dirty bit is not set yet */
    assert_false(hit_fetch(k, LIN));
    go(k, LIN, ACCESS_WRITE, MMU_USER);
    go(k, LIN, ACCESS_FETCH, MMU_USER);
    assert_true(hit(k, LIN, ACCESS_READ) && hit(k, LIN, ACCESS_WRITE) && hit_fetch(k, LIN));
    uint8_t *host = tlb_find(&k->v->mmu, LIN + 5, 1, ACCESS_WRITE);
    *host = 0x77;
    assert_int_equal(kit_get64(k, PAGE + 5) & 0xff, 0x77);
    assert_null(tlb_find(&k->v->mmu, LIN + 0xffd, 4, ACCESS_READ)); /* crosses the page */
    mmu_set_index(&k->v->mmu, MMU_SUPER);
    assert_null(tlb_find(&k->v->mmu, LIN, 1, ACCESS_READ));
    /* ROM has no write tag, MMIO none at all. */
    kit_put64(k, chain[3].entry, KIT_ROM | P | W | U);
    mmu_flush_page(&k->v->mmu, GVA(LIN));
    go(k, LIN, ACCESS_WRITE, MMU_USER);
    assert_true(hit(k, LIN, ACCESS_READ) && !hit(k, LIN, ACCESS_WRITE));
    kit_put64(k, chain[3].entry, KIT_MMIO | P | W | U);
    mmu_flush_page(&k->v->mmu, GVA(LIN));
    go(k, LIN, ACCESS_WRITE, MMU_USER);
    assert_false(hit(k, LIN, ACCESS_READ));
}

/* A right claimed for one page may not be used for another that took its place without INVLPG. */
static void remapped_page_keeps_no_rights(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    go(k, LIN, ACCESS_WRITE, MMU_USER);
    kit_put64(k, chain[3].entry, (PAGE + 0x1000) | P | U);
    go(k, LIN, ACCESS_FETCH, MMU_USER);
    assert_false(hit(k, LIN, ACCESS_WRITE));
}

static void invlpg(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    go(k, LIN, ACCESS_WRITE, MMU_USER);
    go(k, LIN, ACCESS_FETCH, MMU_USER);
    uint64_t epoch = k->v->mmu.flush_epoch;
    mmu_flush_page(&k->v->mmu, GVA(LIN + 0x1000));
    assert_true(hit(k, LIN, ACCESS_WRITE));
    mmu_flush_page(&k->v->mmu, GVA(LIN + 0x765));
    assert_false(hit(k, LIN, ACCESS_READ) || hit(k, LIN, ACCESS_WRITE) || hit_fetch(k, LIN));
    assert_int_not_equal(k->v->mmu.flush_epoch, epoch);
    /* A page that no instruction came from: what is looked up by address stays good. */
    go(k, LIN + 0x10000, ACCESS_READ, MMU_USER);
    epoch = k->v->mmu.flush_epoch;
    mmu_flush_page(&k->v->mmu, GVA(LIN + 0x10000));
    assert_int_equal(k->v->mmu.flush_epoch, epoch);
}

/* INVLPG with any address of a large page drops all its fragments (SDM 3A 4.10.4.1). */
static void invlpg_large(void **state)
{
    struct kit *k = *state;
    static const struct {
        unsigned level;
        uint64_t size;
    } rows[] = { { 2, 2u << 20 }, { 1, 1u << 30 } };
    for (unsigned i = 0; i < array_size(rows); i++) {
        build_chain(k);
        kit_put64(k, chain[rows[i].level].entry, P | W | U | PS);
        set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
        uint64_t base = LIN & ~(rows[i].size - 1);
        go(k, base + 0x5000, ACCESS_READ, MMU_USER);
        assert_true(hit(k, base + 0x5000, ACCESS_READ));
        mmu_flush_page(&k->v->mmu, GVA(base + rows[i].size - 1));
        assert_false(hit(k, base + 0x5000, ACCESS_READ));
    }
    /* 4 MiB, whose halves differ in bit 21 */
    kit_put32(k, ROOT + 4, P | W | U | PS);
    set_regs(k, PG_ON, ROOT, CR4_PSE, 0);
    go(k, 0x400000, ACCESS_READ, MMU_USER);
    mmu_flush_page(&k->v->mmu, GVA(0x7fffff));
    assert_false(hit(k, 0x400000, ACCESS_READ));
}

static void cr3_without_pcid_flushes(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    struct paging_regs r = { PG_ON, ROOT, CR4_PAE, LONG_EFER };
    mmu_set_paging(&k->v->mmu, &r, true);
    go(k, LIN, ACCESS_READ, MMU_USER);
    assert_true(hit(k, LIN, ACCESS_READ));
    mmu_set_paging(&k->v->mmu, &r, true);
    assert_false(hit(k, LIN, ACCESS_READ));
    /* The tables may have changed while another space was loaded. */
    go(k, LIN, ACCESS_READ, MMU_USER);
    r.cr3 = L1;
    mmu_set_paging(&k->v->mmu, &r, true);
    r.cr3 = ROOT;
    mmu_set_paging(&k->v->mmu, &r, true);
    assert_false(hit(k, LIN, ACCESS_READ));
}

static void pcid_keeps_spaces(void **state)
{
    struct kit *k = *state;
    struct mmu *m = &k->v->mmu;
    build_chain(k);
    struct paging_regs one = { PG_ON, ROOT | 1, CR4_PAE | CR4_PCIDE, LONG_EFER }, two = one;
    two.cr3 = ROOT | 2;
    mmu_set_paging(m, &one, true);
    mmu_set_index(m, MMU_USER);
    go(k, LIN, ACCESS_READ, MMU_USER);
    uint64_t epoch = m->flush_epoch;
    mmu_set_paging(m, &two, false);
    assert_false(hit(k, LIN, ACCESS_READ));
    assert_int_not_equal(m->flush_epoch, epoch);
    mmu_set_paging(m, &one, false);
    assert_true(hit(k, LIN, ACCESS_READ));
    assert_int_equal(m->flush_epoch, epoch);
    mmu_flush_pcid(m, 2);
    assert_true(hit(k, LIN, ACCESS_READ));
    mmu_set_paging(m, &two, false);
    mmu_flush_pcid(m, 1); /* not the current one */
    mmu_set_paging(m, &one, false);
    assert_false(hit(k, LIN, ACCESS_READ));
    go(k, LIN, ACCESS_READ, MMU_USER);
    mmu_set_paging(m, &two, false);
    mmu_flush_pcid_page(m, 1, GVA(LIN));
    mmu_set_paging(m, &one, false);
    assert_false(hit(k, LIN, ACCESS_READ));
    go(k, LIN, ACCESS_READ, MMU_USER);
    mmu_set_paging(m, &two, false);
    mmu_set_paging(m, &one, true); /* bit 63 clear: flushed */
    assert_false(hit(k, LIN, ACCESS_READ));
}

/* The supervisor's global pages stay when the address space changes, and no others; INVLPG and CR4.PGE reach them
 * (SDM 3A 4.10.2.4, 4.10.4.1). */
static void supervisor_keeps_global_pages(void **state)
{
    struct kit *k = *state;
    struct mmu *m = &k->v->mmu;
    build_chain(k);
    const uint64_t local = LIN + 0x1000;
    kit_put64(k, chain[3].entry, PAGE | P | W | G);
    kit_put64(k, chain[3].entry + 8, (PAGE + 0x1000) | P | W);
    struct paging_regs one = { PG_ON, ROOT | 1, CR4_PAE | CR4_PCIDE | CR4_PGE, LONG_EFER }, two = one;
    two.cr3 = ROOT | 2;
    mmu_set_paging(m, &one, true);
    for (enum mmu_index i = MMU_SUPER; i <= MMU_SUPER_AC; i++) {
        mmu_set_index(m, i);
        go(k, LIN, ACCESS_WRITE, i);
        go(k, local, ACCESS_WRITE, i);
        assert_non_null(tlb_find(m, LIN, 1, ACCESS_WRITE));
        assert_non_null(tlb_find(m, local, 1, ACCESS_WRITE));
    }
    go(k, LIN, ACCESS_FETCH, MMU_SUPER);
    uint64_t epoch = m->flush_epoch;
    mmu_set_paging(m, &two, false);
    for (enum mmu_index i = MMU_SUPER; i <= MMU_SUPER_AC; i++) {
        mmu_set_index(m, i);
        assert_non_null(tlb_find(m, LIN, 1, ACCESS_WRITE));
        assert_null(tlb_find(m, local, 1, ACCESS_WRITE));
    }
    assert_int_equal(m->flush_epoch, epoch);
    assert_false(hit(k, LIN, ACCESS_READ)); /* not the user's */
    mmu_set_index(m, MMU_SUPER);
    go(k, local, ACCESS_READ, MMU_SUPER);
    mmu_set_paging(m, &two, true); /* the same again, flushed */
    assert_non_null(tlb_find(m, LIN, 1, ACCESS_WRITE));
    assert_null(tlb_find(m, local, 1, ACCESS_READ));
    go(k, local, ACCESS_READ, MMU_SUPER);
    mmu_flush_pcid(m, 2);
    assert_null(tlb_find(m, local, 1, ACCESS_READ));
    assert_int_equal(m->flush_epoch, epoch);
    go(k, local, ACCESS_FETCH, MMU_SUPER); /* code of one space alone */
    mmu_set_paging(m, &one, false);
    assert_int_not_equal(m->flush_epoch, epoch);
    epoch = m->flush_epoch;
    mmu_flush_page(m, GVA(LIN));
    assert_null(tlb_find(m, LIN, 1, ACCESS_WRITE));
    assert_int_not_equal(m->flush_epoch, epoch);
    go(k, LIN, ACCESS_WRITE, MMU_SUPER);
    one.cr4 &= ~CR4_PGE;
    mmu_set_paging(m, &one, false);
    assert_null(tlb_find(m, LIN, 1, ACCESS_READ));
    go(k, LIN, ACCESS_WRITE, MMU_SUPER); /* the bit means nothing now */
    two.cr4 &= ~CR4_PGE;
    mmu_set_paging(m, &two, false);
    assert_null(tlb_find(m, LIN, 1, ACCESS_READ));
}

/* More spaces than are kept, more generations than there are: never a stale hit. */
static void generations_wrap(void **state)
{
    struct kit *k = *state;
    struct mmu *m = &k->v->mmu;
    build_chain(k);
    struct paging_regs r = { PG_ON, ROOT, CR4_PAE | CR4_PCIDE, LONG_EFER };
    for (unsigned i = 0; i < 3 * 4096; i++) {
        r.cr3 = ROOT | (i % 100);
        mmu_set_paging(m, &r, true);
        assert_true(m->gen >= 1 && m->gen < TLB_GEN_NONE);
        assert_false(hit(k, LIN, ACCESS_READ));
        go(k, LIN, ACCESS_READ, MMU_USER);
        assert_true(hit(k, LIN, ACCESS_READ));
        mmu_set_index(m, MMU_SUPER_AC);
        assert_true(m->gen >= 1 && m->gen < TLB_GEN_NONE);
        assert_null(tlb_find(m, LIN, 1, ACCESS_READ));
        go(k, LIN, ACCESS_READ, MMU_SUPER_AC);
        assert_non_null(tlb_find(m, LIN, 1, ACCESS_READ));
    }
}

static void mode_change_flushes(void **state)
{
    struct kit *k = *state;
    struct mmu *m = &k->v->mmu;
    build_chain(k);
    struct paging_regs r = { PG_ON, ROOT, CR4_PAE, LONG_EFER };
    mmu_set_paging(m, &r, true);
    static const uint64_t cr4[] = { CR4_SMEP, CR4_SMAP, CR4_PGE };
    for (unsigned i = 0; i < array_size(cr4); i++) {
        go(k, LIN, ACCESS_READ, MMU_USER);
        r.cr4 ^= cr4[i];
        mmu_set_paging(m, &r, false);
        assert_false(hit(k, LIN, ACCESS_READ));
    }
    go(k, LIN, ACCESS_READ, MMU_USER);
    r.cr0 ^= CR0_WP;
    mmu_set_paging(m, &r, false);
    assert_false(hit(k, LIN, ACCESS_READ));
    go(k, LIN, ACCESS_READ, MMU_USER);
    r.cr0 ^= CR0_TS; /* no matter of paging */
    mmu_set_paging(m, &r, false);
    assert_true(hit(k, LIN, ACCESS_READ));
}

static void revocation(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    go(k, LIN, ACCESS_WRITE, MMU_USER);
    go(k, LIN, ACCESS_FETCH, MMU_USER);
    mmu_set_index(&k->v->mmu, MMU_USER);
    uint64_t epoch = k->v->mmu.flush_epoch;
    pmap_claim_code(k->pmap, GPA(PAGE + 0x100), 4);
    assert_true(hit(k, LIN, ACCESS_READ) && !hit(k, LIN, ACCESS_WRITE) && hit_fetch(k, LIN));
    assert_int_equal(k->v->mmu.flush_epoch, epoch);
    go(k, LIN, ACCESS_WRITE, MMU_USER);
    assert_false(hit(k, LIN, ACCESS_WRITE)); /* code stays traced */
    pmap_revoke(k->pmap, PAGE >> 12, 1, RIGHT_READ | RIGHT_WRITE | RIGHT_EXEC, PAGE_TRACED);
    assert_false(hit(k, LIN, ACCESS_READ) || hit_fetch(k, LIN));
    go(k, LIN, ACCESS_READ, MMU_USER);
    assert_false(hit(k, LIN, ACCESS_READ));
}

static void watched_pages(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    go(k, LIN, ACCESS_WRITE, MMU_USER);
    mmu_set_watch(&k->v->mmu, &(uint64_t){ LIN }, 1);
    assert_false(hit(k, LIN, ACCESS_READ));
    go(k, LIN, ACCESS_WRITE, MMU_USER);
    go(k, LIN, ACCESS_FETCH, MMU_USER);
    assert_true(!hit(k, LIN, ACCESS_READ) && !hit(k, LIN, ACCESS_WRITE) && hit_fetch(k, LIN));
    mmu_set_watch(&k->v->mmu, NULL, 0);
    go(k, LIN, ACCESS_READ, MMU_USER);
    assert_true(hit(k, LIN, ACCESS_READ));
}

/* Page 0 with an empty TLB and with the bypass on: a tag of zeros must not look like a hit. */
static void page_zero(void **state)
{
    struct kit *k = *state;
    kit_put64(k, ROOT, L1 | P | W | U);
    kit_put64(k, L1, L2 | P | W | U);
    kit_put64(k, L2, L3 | P | W | U);
    kit_put64(k, L3, PAGE | P | W | U);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    assert_false(hit(k, 0, ACCESS_READ));
    mmu_set_bypass(&k->v->mmu, true);
    assert_false(hit(k, 0, ACCESS_READ));
    go(k, 0, ACCESS_WRITE, MMU_USER);
    assert_false(hit(k, 0, ACCESS_READ) || hit(k, 0, ACCESS_WRITE));
    mmu_set_bypass(&k->v->mmu, false);
    assert_false(hit(k, 0, ACCESS_READ));
}

/* --- looking ahead ---------------------------------------------------------------------------------------- */

#define NEXT(i) (L3 + (4 + (i)) * 8)
#define LIN_AT(i) (LIN + (uint64_t)(i)*0x1000)

/* Behind LIN, entry by entry: two that all may be done with, one never written, one never accessed. */
static void build_row(struct kit *k)
{
    static const uint64_t row[] = { PAGE + 0x1000, PAGE + 0x5000, PAGE + 0x6000, PAGE + 0x7000 };
    build_chain(k);
    for (unsigned i = 0; i < array_size(row); i++)
        kit_put64(k, NEXT(i + 1), row[i] | P | W | U | (i < 3 ? A : 0) | (i < 2 ? D : 0));
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    mmu_set_index(&k->v->mmu, MMU_USER);
}

static unsigned ahead(struct kit *k, uint64_t lin, enum mmu_access access)
{
    unsigned pages = 8;
    mmu_translate_ahead(&k->v->mmu, GVA(lin), access, MMU_USER, &pages);
    return pages;
}

static void ahead_leaves_no_trace(void **state)
{
    struct kit *k = *state;
    uint64_t before[6];
    build_row(k);
    for (unsigned i = 1; i < 6; i++)
        before[i] = kit_get64(k, NEXT(i));
    assert_int_equal(ahead(k, LIN, ACCESS_READ), 3);
    for (unsigned i = 1; i < 6; i++) {
        assert_int_equal(hit(k, LIN_AT(i), ACCESS_READ), i < 4);
        assert_false(hit(k, LIN_AT(i), ACCESS_WRITE));
    }
    assert_ptr_equal(tlb_find(&k->v->mmu, LIN_AT(2), 1, ACCESS_READ),
                     pmap_page(k->pmap, GPA(PAGE + 0x5000))->host);
    /* Nobody has asked to write there. */
    assert_int_equal(ahead(k, LIN, ACCESS_WRITE), 0);
    go(k, LIN_AT(1), ACCESS_WRITE, MMU_USER);
    go(k, LIN_AT(2), ACCESS_WRITE, MMU_USER);
    go(k, LIN_AT(3), ACCESS_WRITE, MMU_USER);
    kit_put64(k, NEXT(3), before[3]);
    mmu_flush_all(&k->v->mmu);
    assert_int_equal(ahead(k, LIN, ACCESS_WRITE), 2);
    assert_true(hit(k, LIN_AT(2), ACCESS_WRITE) && !hit(k, LIN_AT(3), ACCESS_WRITE));
    for (unsigned i = 1; i < 6; i++)
        assert_int_equal(kit_get64(k, NEXT(i)), before[i]);
}

static void ahead_respects_rights(void **state)
{
    struct kit *k = *state;
    const struct {
        uint64_t clear, set;
        unsigned pages; /* read, looked up behind the first */
    } rows[] = {
        { 0, 0, 3 }, { P, 0, 1 }, { U, 0, 1 }, { A, 0, 1 }, { W, 0, 3 }, { 0, NX, 3 }, { 0, 1ull << 45, 1 },
    };
    for (unsigned i = 0; i < array_size(rows); i++) {
        build_row(k);
        kit_put64(k, NEXT(2), (kit_get64(k, NEXT(2)) & ~rows[i].clear) | rows[i].set);
        assert_int_equal(ahead(k, LIN, ACCESS_READ), rows[i].pages);
    }
    build_row(k);
    go(k, LIN_AT(1), ACCESS_WRITE, MMU_USER);
    go(k, LIN_AT(2), ACCESS_WRITE, MMU_USER);
    kit_put64(k, NEXT(2), kit_get64(k, NEXT(2)) & ~W);
    mmu_flush_all(&k->v->mmu);
    assert_int_equal(ahead(k, LIN, ACCESS_WRITE), 1);
    /* the rights of the levels above hold for all of them */
    build_row(k);
    kit_put64(k, chain[2].entry, L3 | P | U);
    assert_int_equal(ahead(k, LIN, ACCESS_READ), 3);
    assert_faults(k, LIN_AT(1), ACCESS_WRITE, MMU_USER, PF_PRESENT | PF_WRITE | PF_USER);
    /* devices, watched pages, code */
    build_row(k);
    kit_put64(k, NEXT(2), KIT_MMIO | P | W | U | A | D);
    assert_int_equal(ahead(k, LIN, ACCESS_READ), 1);
    build_row(k);
    mmu_set_watch(&k->v->mmu, &(uint64_t){ LIN_AT(2) }, 1);
    assert_int_equal(ahead(k, LIN, ACCESS_READ), 1);
    mmu_set_watch(&k->v->mmu, NULL, 0);
    build_row(k);
    go(k, LIN_AT(1), ACCESS_WRITE, MMU_USER);
    pmap_claim_code(k->pmap, GPA(PAGE + 0x1000), 4);
    assert_int_equal(ahead(k, LIN, ACCESS_WRITE), 0);
    assert_false(hit(k, LIN_AT(1), ACCESS_WRITE));
}

static void ahead_is_dropped(void **state)
{
    struct kit *k = *state;
    build_row(k);
    ahead(k, LIN, ACCESS_READ);
    mmu_flush_page(&k->v->mmu, GVA(LIN_AT(2)));
    assert_true(hit(k, LIN_AT(1), ACCESS_READ) && !hit(k, LIN_AT(2), ACCESS_READ));
    ahead(k, LIN, ACCESS_READ);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    assert_false(hit(k, LIN_AT(1), ACCESS_READ));
    /* what is of one address space alone goes with it from the supervisor's table, too */
    build_row(k);
    for (unsigned i = 0; i < 3; i++)
        kit_put64(k, NEXT(i), kit_get64(k, NEXT(i)) & ~U);
    unsigned pages = 8;
    mmu_set_index(&k->v->mmu, MMU_SUPER_AC);
    mmu_translate_ahead(&k->v->mmu, GVA(LIN), ACCESS_READ, MMU_SUPER_AC, &pages);
    assert_non_null(tlb_find(&k->v->mmu, LIN_AT(1), 1, ACCESS_READ));
    kit_put64(k, 0x20000 + 8, L1 | P | W | U);
    mmu_set_paging(&k->v->mmu, &(struct paging_regs){ PG_ON, 0x20000, CR4_PAE, LONG_EFER }, true);
    assert_null(tlb_find(&k->v->mmu, LIN_AT(1), 1, ACCESS_READ));
}

/* The rest of a large page without another look; no further, and not beyond a table. */
static void ahead_in_large_pages(void **state)
{
    struct kit *k = *state;
    build_chain(k);
    kit_put64(k, chain[2].entry, 0x400000 | P | W | U | PS);
    kit_put64(k, chain[2].entry + 8, 0x600000 | P | W | U | PS | A | D);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    uint64_t base = LIN & ~0x1fffffull;
    assert_int_equal(ahead(k, base + 0x5000, ACCESS_READ), 8);
    assert_true(hit(k, base + 0xd000, ACCESS_READ) && !hit(k, base + 0xe000, ACCESS_READ));
    assert_int_equal(kit_get64(k, chain[2].entry), 0x400000 | P | W | U | PS | A);
    mmu_flush_page(&k->v->mmu, GVA(base + 0x1ff000));
    assert_false(hit(k, base + 0x5000, ACCESS_READ) || hit(k, base + 0xd000, ACCESS_READ));
    assert_int_equal(ahead(k, base + 0x1fd000, ACCESS_READ), 2);
    build_row(k);
    for (unsigned i = 508; i < 512; i++)
        kit_put64(k, L3 + i * 8, PAGE | P | W | U | A | D);
    kit_put64(k, chain[2].entry + 8, L3 | P | W | U | A);
    assert_int_equal(ahead(k, base + 508 * 0x1000, ACCESS_READ), 3);
    set_regs(k, CR0_PE, 0, 0, 0);
    assert_int_equal(ahead(k, 0x300000, ACCESS_READ), 8);
    assert_int_equal(ahead(k, KIT_RAM - 0x3000, ACCESS_READ), 2);
}

/* Only the first is kept in the TLB unless that is wanted. */
static void runs(void **state)
{
    struct kit *k = *state;
    struct mmu *m = &k->v->mmu;
    uint8_t *host[8];
    build_row(k);
    assert_int_equal(mmu_translate_run(m, GVA(LIN + 0x123), ACCESS_READ, false, host, 8), 4);
    assert_ptr_equal(host[0], pmap_page(k->pmap, GPA(PAGE))->host);
    assert_ptr_equal(host[2], pmap_page(k->pmap, GPA(PAGE + 0x5000))->host);
    assert_true(hit(k, LIN, ACCESS_READ) && !hit(k, LIN_AT(1), ACCESS_READ));
    assert_int_equal(mmu_translate_run(m, GVA(LIN), ACCESS_READ, true, host, 3), 3);
    assert_true(hit(k, LIN_AT(2), ACCESS_READ) && !hit(k, LIN_AT(3), ACCESS_READ));
    assert_int_equal(mmu_translate_run(m, GVA(LIN), ACCESS_WRITE, false, host, 8), 1);
    assert_int_equal(kit_get64(k, NEXT(4)), (PAGE + 0x7000) | P | W | U);
    uint64_t faults = m->stats.true_faults;
    assert_int_equal(mmu_translate_run(m, GVA(LIN_AT(9)), ACCESS_READ, false, host, 8), 0);
    assert_int_equal(m->stats.true_faults, faults);
    kit_put64(k, NEXT(0), KIT_ROM | P | W | U);
    mmu_flush_page(m, GVA(LIN));
    assert_int_equal(mmu_translate_run(m, GVA(LIN), ACCESS_WRITE, false, host, 8), 0);
    mmu_set_bypass(m, true);
    assert_int_equal(mmu_translate_run(m, GVA(LIN_AT(1)), ACCESS_READ, true, host, 8), 0);
    assert_int_equal(ahead(k, LIN_AT(1), ACCESS_READ), 0);
    mmu_set_bypass(m, false);
}

/* What a move of the stamp tells: a page that can only be written no more, or one that lost more. */
static void drops_tell_rights(void **state)
{
    struct kit *k = *state;
    struct mmu *m = &k->v->mmu;
    static const unsigned rights[] = { RIGHT_WRITE, RIGHT_READ | RIGHT_WRITE };
    build_chain(k);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    go(k, LIN, ACCESS_WRITE, MMU_USER);
    for (unsigned i = 0; i < array_size(rights); i++) {
        uint64_t stamp = m->stamp;
        mmu_drop_physical(m, PAGE >> PAGE_SHIFT, 1, rights[i]);
        const struct mmu_drop *d = mmu_dropped(m, stamp);
        assert_non_null(d);
        assert_int_equal(d->to, m->stamp);
        assert_ptr_equal(d->host, pmap_page(k->pmap, GPA(PAGE))->host);
        assert_int_equal(d->write_only, rights[i] == RIGHT_WRITE);
        assert_int_equal(hit(k, LIN, ACCESS_READ), rights[i] == RIGHT_WRITE);
        assert_false(hit(k, LIN, ACCESS_WRITE));
    }
}

static void parts_of_the_lower_half(void **state)
{
    struct kit *k = *state;
    uint64_t parts[4];
    build_chain(k);
    set_regs(k, PG_ON, ROOT, CR4_PAE, LONG_EFER);
    mmu_user_parts(&k->v->mmu, parts);
    uint64_t before = parts[3];
    kit_put64(k, ROOT + 8 * 255, L3 | P);
    kit_put64(k, ROOT + 8 * 254, L3 | W);
    kit_put64(k, ROOT + 8 * 256, L3 | P);
    mmu_user_parts(&k->v->mmu, parts);
    assert_int_equal(parts[3], before | BIT(63));
    assert_true(parts[LIN >> 39 >> 6] >> (LIN >> 39 & 63) & 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(paging_off),
        TEST(two_levels),
        TEST(pse_pages),
        TEST(pae),
        TEST(pdpte_reserved_bits),
        TEST(four_levels),
        TEST(reserved_bits),
        TEST(large_pages),
        TEST(rights),
        TEST(not_canonical),
        TEST(tables_elsewhere),
        TEST(peek_leaves_no_trace),
        TEST(settled_writes),
        TEST(tables_on_code),
        TEST(fills_by_right),
        TEST(remapped_page_keeps_no_rights),
        TEST(invlpg),
        TEST(invlpg_large),
        TEST(cr3_without_pcid_flushes),
        TEST(pcid_keeps_spaces),
        TEST(supervisor_keeps_global_pages),
        TEST(generations_wrap),
        TEST(mode_change_flushes),
        TEST(revocation),
        TEST(watched_pages),
        TEST(page_zero),
        TEST(ahead_leaves_no_trace),
        TEST(ahead_respects_rights),
        TEST(ahead_is_dropped),
        TEST(ahead_in_large_pages),
        TEST(runs),
        TEST(drops_tell_rights),
        TEST(parts_of_the_lower_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
