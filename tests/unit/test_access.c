/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory accesses: segment rules, page crossing, alignment, MMIO, ROM, code pages (SDM 3A 5.3-5.5,
 * 6.15). */
#include "cpu_kit.h"

#include <string.h>

#define P 1ull
#define W 2ull
#define U 4ull

#define ROOT 0x10000u
#define L1 0x11000u
#define L2 0x12000u
#define L3 0x13000u

/* Linear pages 0, 1 and 3 of the first 2 MiB; page 2 is not present, page 3 read-only; page 4 MMIO, 5 ROM, 6
 * code; 7 user. */
#define LINEAR(page) ((uint64_t)(page) << 12)
#define FRAME(page) (0x200000u + ((uint64_t)(page) << 12))

static void long_mode(struct kit *k)
{
    kit_put64(k, ROOT, L1 | P | W | U);
    kit_put64(k, L1, L2 | P | W | U);
    kit_put64(k, L2, L3 | P | W | U);
    for (unsigned i = 0; i < 8; i++)
        kit_put64(k, L3 + i * 8, FRAME(i) | P | W | U);
    kit_put64(k, L3 + 2 * 8, 0);
    kit_put64(k, L3 + 3 * 8, FRAME(3) | P | U);
    kit_put64(k, L3 + 4 * 8, KIT_MMIO | P | W);
    kit_put64(k, L3 + 5 * 8, KIT_ROM | P | W);
    kit_put64(k, L3 + 6 * 8, 0xfee00000u | P | W);
    kit_long_mode(k, ROOT);
}

static void crossing_pages(void **state)
{
    struct kit *k = *state;
    long_mode(k);
    kit_put64(k, L3 + 1 * 8, FRAME(9) | P | W | U); /* the second page lies elsewhere */
    mmu_flush_all(&k->v->mmu);
    assert_fine(k, mem_write64(k->v, SEG_DS, LINEAR(1) - 3, 0x1122334455667788));
    assert_int_equal(kit_get64(k, FRAME(0) + 0xff8) >> 40, 0x667788);
    assert_int_equal(kit_get64(k, FRAME(9)) & 0xffffffffff, 0x1122334455);
    volatile uint64_t got = 0;
    assert_fine(k, got = mem_read64(k->v, SEG_DS, LINEAR(1) - 3));
    assert_int_equal(got, 0x1122334455667788);
    /* The second page faults: its first byte is reported, and the first page is untouched. */
    kit_put64(k, FRAME(9) + 0xff8, 0);
    assert_raises(k, VEC_PF, 2, mem_write64(k->v, SEG_DS, LINEAR(2) - 4, ~0ull));
    assert_int_equal(k->v->s.cr2, LINEAR(2));
    assert_int_equal(kit_get64(k, FRAME(9) + 0xff8), 0);
    assert_raises(k, VEC_PF, 3, mem_write64(k->v, SEG_DS, LINEAR(3) + 0x10, 1));
    assert_int_equal(k->v->s.cr2, LINEAR(3) + 0x10);
    uint8_t big[64];
    memset(big, 0xa5, sizeof(big));
    assert_fine(k, mem_write_bytes(k->v, SEG_DS, LINEAR(1) - 32, big, 64));
    assert_int_equal(kit_get64(k, FRAME(9) + 24), 0xa5a5a5a5a5a5a5a5);
}

static void not_canonical(void **state)
{
    struct kit *k = *state;
    long_mode(k);
    assert_raises(k, VEC_GP, 0, mem_read8(k->v, SEG_DS, 0x800000000000ull));
    assert_raises(k, VEC_SS, 0, mem_read8(k->v, SEG_SS, 0x800000000000ull));
    assert_raises(k, VEC_GP, 0, mem_write32(k->v, SEG_DS, 1ull << 62, 0));
    /* Half of it is not canonical, the other half not mapped: the address is judged before the pages. */
    assert_raises(k, VEC_GP, 0, mem_read64(k->v, SEG_DS, 0x7ffffffffffcull));
    assert_raises(k, VEC_SS, 0, mem_read64(k->v, SEG_SS, 0x7ffffffffffcull));
}

static void probes(void **state)
{
    struct kit *k = *state;
    long_mode(k);
    assert_fine(k, access_probe_write(k->v, LINEAR(0), 4096, MMU_SUPER, SEG_DS));
    assert_raises(k, VEC_PF, 2, access_probe_write(k->v, LINEAR(1) + 1, 4096, MMU_SUPER, SEG_DS));
    assert_raises(k, VEC_PF, 7, access_probe_write(k->v, LINEAR(3), 1, MMU_USER, SEG_DS));
    assert_fine(k, access_probe_read(k->v, LINEAR(3), 1, MMU_USER, SEG_DS));
}

static void mmio(void **state)
{
    struct kit *k = *state;
    long_mode(k);
    assert_int_equal(RAISED(k, mem_write32(k->v, SEG_DS, LINEAR(4) + 0x20, 0xcafef00d)), KIT_RESTART);
    assert_int_equal(k->mmio_writes, 0);
    k->v->store_code = true; /* alone */
    assert_fine(k, mem_write32(k->v, SEG_DS, LINEAR(4) + 0x20, 0xcafef00d));
    assert_int_equal(get_le32(k->mmio + 0x20), 0xcafef00d);
    assert_int_equal(k->mmio_writes, 1);
    volatile uint64_t got = 0;
    assert_fine(k, got = mem_read64(k->v, SEG_DS, LINEAR(4) + 0x20));
    assert_int_equal(got, 0xcafef00d);
    assert_int_equal(k->v->counters.exits_mmio, 2);
}

static void mmio_crossing(void **state)
{
    struct kit *k = *state;
    long_mode(k);
    kit_put64(k, L3 + 3 * 8, FRAME(3) | P | W);
    mmu_flush_all(&k->v->mmu);
    k->v->store_code = true;
    /* Three bytes go to the device, by legal widths. */
    assert_fine(k, mem_write64(k->v, SEG_DS, LINEAR(4) - 5, 0x8877665544332211));
    assert_int_equal(k->mmio[0], 0x66);
    assert_int_equal(k->mmio[1], 0x77);
    assert_int_equal(k->mmio[2], 0x88);
    assert_int_equal(k->mmio_writes, 2);
    assert_int_equal(kit_get64(k, FRAME(3) + 0xff8) >> 24, 0x5544332211);
}

static void lapic_page(void **state)
{
    struct kit *k = *state;
    long_mode(k);
    volatile uint32_t got = 0;
    assert_fine(k, got = mem_read32(k->v, SEG_DS, LINEAR(6) + 0x30));
    assert_int_equal(got, 0x50014);
    k->v->store_code = true;
    assert_fine(k, mem_write32(k->v, SEG_DS, LINEAR(6) + 0x80, 0x30));
    assert_int_equal(k->v->s.lapic.tpr, 0x30);
    assert_fine(k, got = mem_read8(k->v, SEG_DS, LINEAR(6) + 0x32));
    assert_int_equal(got, 5);
}

static void rom(void **state)
{
    struct kit *k = *state;
    long_mode(k);
    kit_put64(k, KIT_ROM, 0x1234);
    assert_fine(k, mem_write64(k->v, SEG_DS, LINEAR(5), 0x5555));
    assert_int_equal(kit_get64(k, KIT_ROM), 0x1234);
}

static void code_pages(void **state)
{
    struct kit *k = *state;
    long_mode(k);
    struct page *pg = pmap_page(k->pmap, GPA(FRAME(0)));
    uint32_t version = pmap_claim_code(k->pmap, GPA(FRAME(0) + 0x100), 16);
    assert_fine(k, mem_write32(k->v, SEG_DS, LINEAR(0) + 0x200, 1)); /* same page, other bytes */
    assert_int_equal(atomic_load(&pg->code_version), version);
    assert_int_equal(k->v->counters.tracing_faults, 1);
    assert_int_equal(RAISED(k, mem_write32(k->v, SEG_DS, LINEAR(0) + 0x108, 1)), KIT_RESTART);
    assert_int_equal(kit_get32(k, FRAME(0) + 0x108), 0);
    k->v->store_code = true;
    assert_fine(k, mem_write32(k->v, SEG_DS, LINEAR(0) + 0x108, 1));
    k->v->store_code = false;
    assert_int_equal(kit_get32(k, FRAME(0) + 0x108), 1);
    assert_int_not_equal(atomic_load(&pg->code_version), version);
    /* A store that begins on a page before the code and ends in it. */
    pmap_claim_code(k->pmap, GPA(FRAME(1)), 4);
    assert_int_equal(RAISED(k, mem_write64(k->v, SEG_DS, LINEAR(1) - 4, ~0ull)), KIT_RESTART);
    assert_int_equal(kit_get32(k, FRAME(1) - 4), 0);
}

static void rmw(void **state)
{
    struct kit *k = *state;
    long_mode(k);
    void *volatile host = NULL;
    assert_fine(k, host = access_rmw(k->v, LINEAR(1) + 8, 8, SEG_DS));
    assert_non_null(host);
    *(uint64_t *)host = 42;
    assert_int_equal(kit_get64(k, FRAME(1) + 8), 42);
    assert_fine(k, host = access_rmw(k->v, LINEAR(1) - 4, 8, SEG_DS));
    assert_null(host);
    assert_int_equal(RAISED(k, access_rmw(k->v, LINEAR(4), 4, SEG_DS)), KIT_RESTART); /* a device */
    k->v->store_code = true;
    assert_fine(k, host = access_rmw(k->v, LINEAR(4), 4, SEG_DS));
    assert_null(host);
    k->v->store_code = false;
    assert_fine(k, host = access_rmw(k->v, LINEAR(5), 4, SEG_DS));
    assert_null(host);
    assert_raises(k, VEC_PF, 2,
                  access_rmw(k->v, LINEAR(2) - 4, 8, SEG_DS)); /* a write fault, though it reads first */
    pmap_claim_code(k->pmap, GPA(FRAME(7)), 4);
    assert_fine(k, host = access_rmw(k->v, LINEAR(7) + 512, 4, SEG_DS));
    assert_null(host);
}

/* #AC for user accesses under CR0.AM and EFLAGS.AC only, before #PF, after canonicality (seen on hardware).
 */
static void alignment(void **state)
{
    struct kit *k = *state;
    long_mode(k);
    volatile uint32_t got = 0;
    assert_fine(k, got = mem_read32(k->v, SEG_DS, LINEAR(0) + 1));
    k->v->s.cr0 |= CR0_AM;
    k->v->s.rflags |= FL_AC;
    vcpu_refresh_paging(k->v, false);
    vcpu_refresh_mode(k->v);
    assert_fine(k, got = mem_read32(k->v, SEG_DS, LINEAR(0) + 1));
    kit_set_cpl(k, 3);
    assert_fine(k, mem_write32(k->v, SEG_DS, LINEAR(0) + 4, 7));
    assert_raises(k, VEC_AC, 0, got = mem_read32(k->v, SEG_DS, LINEAR(0) + 1));
    assert_raises(k, VEC_AC, 0, mem_write16(k->v, SEG_DS, LINEAR(0) + 5, 1));
    assert_fine(k, got = mem_read8(k->v, SEG_DS, LINEAR(0) + 5));
    assert_raises(k, VEC_AC, 0, got = mem_read32(k->v, SEG_DS, LINEAR(2) + 1));
    assert_raises(k, VEC_GP, 0, got = mem_read32(k->v, SEG_DS, 0x8000000000000001));
    /* over the end of the lower half, as the host does; and misaligned before it */
    assert_raises(k, VEC_GP, 0, got = mem_read32(k->v, SEG_DS, 0x7ffffffffffd));
    assert_raises(k, VEC_AC, 0, got = mem_read32(k->v, SEG_DS, 0x7fffffffff01));
    uint8_t ten[10];
    assert_raises(k, VEC_AC, 0, mem_read_bytes(k->v, SEG_DS, LINEAR(0) + 4, ten, 10));
    assert_fine(k, mem_read_bytes(k->v, SEG_DS, LINEAR(0) + 8, ten, 10));
    assert_fine(k, got = (uint32_t)sys_read(k->v, LINEAR(0) + 1, 4)); /* implicit accesses are not checked */
    k->v->s.rflags &= ~(uint64_t)FL_AC;
    vcpu_refresh_mode(k->v);
    assert_fine(k, got = mem_read32(k->v, SEG_DS, LINEAR(0) + 1));
    (void)got;
}

/* Implicit supervisor accesses keep to SMAP whatever EFLAGS.AC says. */
static void implicit_under_smap(void **state)
{
    struct kit *k = *state;
    long_mode(k);
    k->v->s.cr4 |= CR4_SMAP;
    k->v->s.rflags |= FL_AC;
    vcpu_refresh_paging(k->v, false);
    vcpu_refresh_mode(k->v);
    volatile uint64_t got = 0;
    assert_fine(k, got = mem_read32(k->v, SEG_DS, LINEAR(0)));
    assert_raises(k, VEC_PF, 1, got = sys_read(k->v, LINEAR(0), 4));
    (void)got;
}

static void set_seg(struct kit *k, enum seg seg, uint32_t attr, uint32_t limit, uint64_t base)
{
    k->v->s.seg[seg] = (struct segment){ .attr = attr, .limit = limit, .base = base };
    vcpu_refresh_mode(k->v);
}

static void segments(void **state)
{
    struct kit *k = *state;
    enum {
        DATA = SA_P | SA_S | 3,
        READ_ONLY = SA_P | SA_S | 1,
        DOWN = SA_P | SA_S | 7,
        CODE = SA_P | SA_S | 0xb,
        EXEC = SA_P | SA_S | 9
    };
    enum { R = ACCESS_READ, WR = ACCESS_WRITE };
    static const struct {
        uint32_t attr, limit;
        uint64_t off;
        unsigned size;
        int access;
        bool fine;
    } rows[] = {
        { DATA, 0xfff, 0xffc, 4, WR, true },
        { DATA, 0xfff, 0xffd, 4, WR, false },
        { DATA, 0xfff, 0xfff, 1, R, true },
        { DATA, 0xfff, 0x1000, 1, R, false },
        { DATA, 0xfff, 0xffffffff, 2, R, false },
        { READ_ONLY, 0xfff, 0, 4, R, true },
        { READ_ONLY, 0xfff, 0, 4, WR, false },
        { CODE, 0xfff, 0, 4, R, true },
        { CODE, 0xfff, 0, 4, WR, false },
        { EXEC, 0xfff, 0, 4, R, false },
        { SA_UNUSABLE, 0, 0, 1, R, false },
        { SA_UNUSABLE | SA_P | SA_S | 3, ~0u, 0, 1, R, false },
        { DOWN, 0xfff, 0xfff, 1, R, false },
        { DOWN, 0xfff, 0x1000, 1, WR, true },
        { DOWN, 0xfff, 0xffff, 1, R, true },
        { DOWN, 0xfff, 0xffff, 2, R, false },
        { DOWN, 0xfff, 0x10000, 1, R, false },
        { DOWN | SA_DB, 0xfff, 0x10000, 1, R, true },
        { DOWN | SA_DB, 0xfff, 0xffffffff, 1, R, true },
        { DOWN | SA_DB, 0xfff, 0xffe, 4, R, false },
        { DOWN | SA_DB, ~0u, 0xffffffff, 1, R, false },
        { DATA, ~0u, 0xfffffffe, 4, R, true /* flat: may wrap */ },
        { SA_S | 3, ~0u, 0, 1, R, false /* not present */ },
    };
    k->v->s.cr0 |= CR0_PE;
    for (unsigned i = 0; i < array_size(rows); i++) {
        static const enum seg both[] = { SEG_DS, SEG_SS };
        for (volatile unsigned j = 0; j < 2; j++) {
            set_seg(k, both[j], rows[i].attr, rows[i].limit, 0x30000);
            volatile uint64_t lin = 0;
            if (rows[i].fine) {
                assert_fine(k, lin = seg_linear(k->v, both[j], rows[i].off, rows[i].size,
                                                (enum mmu_access)rows[i].access));
                assert_int_equal(lin, (0x30000 + rows[i].off) & 0xffffffff);
            } else {
                assert_raises(k, j ? VEC_SS : VEC_GP, 0,
                              lin = seg_linear(k->v, both[j], rows[i].off, rows[i].size,
                                               (enum mmu_access)rows[i].access));
            }
        }
    }
}

/* Real mode: 64 KiB limits, any type; "unreal" mode keeps a 4 GiB limit. */
static void real_mode(void **state)
{
    struct kit *k = *state;
    volatile uint32_t got = 0;
    assert_int_equal(k->v->mode & MODE_PE, 0);
    assert_fine(k, mem_write16(k->v, SEG_DS, 0xfffe, 0x1234));
    assert_raises(k, VEC_GP, 0, mem_write16(k->v, SEG_DS, 0xffff, 0x1234));
    assert_raises(k, VEC_SS, 0, mem_write16(k->v, SEG_SS, 0xffff, 0x1234));
    set_seg(k, SEG_CS, SA_P | SA_S | 0xb, 0xffff, 0x20000);
    assert_fine(k, mem_write16(k->v, SEG_CS, 4, 0x55aa));
    assert_int_equal(kit_get32(k, 0x20004) & 0xffff, 0x55aa);
    set_seg(k, SEG_DS, SA_P | SA_S | 3, 0xffffffff, 0);
    assert_fine(k, got = mem_read32(k->v, SEG_DS, 0x20004));
    assert_int_equal(got & 0xffff, 0x55aa);
}

/* A20 masked: 1 MiB and up wraps to 0, as on the 8086. */
static void a20(void **state)
{
    struct kit *k = *state;
    set_seg(k, SEG_DS, SA_P | SA_S | 3, 0xffffffff, 0);
    assert_fine(k, mem_write32(k->v, SEG_DS, 0x500, 1));
    assert_fine(k, mem_write32(k->v, SEG_DS, 0x100500, 2));
    pmap_set_a20(k->pmap, false);
    volatile uint32_t got = 0;
    assert_fine(k, got = mem_read32(k->v, SEG_DS, 0x100500));
    assert_int_equal(got, 1);
    pmap_set_a20(k->pmap, true);
    assert_fine(k, got = mem_read32(k->v, SEG_DS, 0x100500));
    assert_int_equal(got, 2);
}

static void data_breakpoints(void **state)
{
    struct kit *k = *state;
    long_mode(k);
    volatile uint32_t got = 0;
    assert_fine(k, mem_write32(k->v, SEG_DS, LINEAR(1), 1)); /* in the TLB before */
    k->v->s.dr[0] = LINEAR(1) + 4;
    k->v->s.dr[7] = 0x400 | 1 | 1u << 16 | 3u << 18; /* write, 4 bytes */
    vcpu_refresh_mode(k->v);
    assert_fine(k, mem_write32(k->v, SEG_DS, LINEAR(1), 1));
    assert_fine(k, got = mem_read32(k->v, SEG_DS, LINEAR(1) + 4));
    assert_int_equal(k->v->s.debug_pending & 0xf, 0);
    /* The trap comes right after the instruction, which therefore has to run alone. */
    assert_int_equal(RAISED(k, mem_write8(k->v, SEG_DS, LINEAR(1) + 7, 1)), KIT_RESTART);
    k->v->store_code = true;
    assert_fine(k, mem_write8(k->v, SEG_DS, LINEAR(1) + 7, 1));
    assert_int_equal(k->v->s.debug_pending & 0xf, 1);
    (void)got;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(crossing_pages),      TEST(not_canonical), TEST(probes),     TEST(mmio), TEST(mmio_crossing),
        TEST(lapic_page),          TEST(rom),           TEST(code_pages), TEST(rmw),  TEST(alignment),
        TEST(implicit_under_smap), TEST(segments),      TEST(real_mode),  TEST(a20),  TEST(data_breakpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
