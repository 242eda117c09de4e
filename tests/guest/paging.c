/* SPDX-License-Identifier: Apache-2.0 */
/* Paging of every mode: rights, error codes, accessed and dirty bits, reserved bits, page sizes, the TLB's
 * rules. */
#include "guest.h"

#define USER_ALIAS 0x40000000ul /* the low 64 MiB again, open to user mode */
#define DATA 0x1800000ul        /* physical pages for the tests, identity mapped for the supervisor */
#define DATA_BIG 0x2000000ul    /* aligned for every large page below 1 GiB */
#if WIDE
#define TEST 0x123480000000ul /* where the tests map things */
#else
#define TEST 0x80000000ul
#endif

static struct space space;
static const char *mode_name;
static bool nxe; /* EFER.NXE is on and the mode has NX bits */

static const char *n(const char *name)
{
    static char text[96];
    char *p = text;
    for (const char *s = mode_name; *s; s++)
        *p++ = *s;
    *p++ = '-';
    for (const char *s = name; *s && p < text + 95; s++)
        *p++ = *s;
    *p = 0;
    return text;
}

static struct code alias(struct code c)
{
    return (struct code){ c.start + USER_ALIAS, c.mark + USER_ALIAS, c.end + USER_ALIAS };
}

#define USER(text, ...) \
    run_code(alias(CODE(text)), \
             (struct regs){ .cs = SEL_USER_CODE, .sp = (ulong)user_stack_top + USER_ALIAS, __VA_ARGS__ })

static int large_level(void) { return 2; }
static u64 large_size(void) { return space.mode == PAGING_32 ? 1ull << 22 : 1ull << 21; }

static void page(ulong va, u64 pa, u64 flags)
{
    map(&space, va, pa, flags, 1);
    invlpg((void *)va);
}

enum kind { READ, WRITE, FETCH };

static struct trap touch(ulong va, enum kind kind, bool user, ulong flags)
{
    static struct code codes[2];
    if (!codes[0].start) {
        codes[0] = CODE("mov al, [" R(bx) "]");
        codes[1] = CODE("mov [" R(bx) "], al");
    }
    struct regs in = { .bx = va, .ax = 0xcd, .flags = flags };
    struct code c = { va, va, va };
    if (kind != FETCH)
        c = user ? alias(codes[kind]) : codes[kind];
    if (user) {
        in.cs = SEL_USER_CODE;
        in.sp = (ulong)user_stack_top + USER_ALIAS;
    }
    return run_code(c, in);
}

static struct trap read_at(ulong va) { return touch(va, READ, false, 0); }
static struct trap write_at(ulong va) { return touch(va, WRITE, false, 0); }
static struct trap fetch_at(ulong va) { return touch(va, FETCH, false, 0); }
static struct trap user_read(ulong va) { return touch(va, READ, true, 0); }
static struct trap user_write(ulong va) { return touch(va, WRITE, true, 0); }
static struct trap user_fetch(ulong va) { return touch(va, FETCH, true, 0); }

/* `int 0x81` at the start of a physical page, so that fetching from it ends the snippet */
static void plant_code(ulong pa)
{
    ((volatile u8 *)pa)[0] = 0xcd;
    ((volatile u8 *)pa)[1] = VECTOR_DONE;
}

static ulong fetch_bit(void) { return nxe || (read_cr4() & CR4_SMEP) ? 0x10 : 0; } /* SDM 3A 4.7 */

/* ---- rights (SDM 3A 4.6) ---- */

struct rights {
    bool user, write, no_execute;
};

static bool allowed(struct rights r, enum kind kind, bool user, bool ac)
{
    ulong cr4 = read_cr4();
    if (user)
        return r.user && (kind != WRITE || r.write) && (kind != FETCH || !r.no_execute);
    if (kind == FETCH)
        return !r.no_execute && !(r.user && (cr4 & CR4_SMEP));
    if (r.user && (cr4 & CR4_SMAP) && !ac)
        return false;
    return kind == READ || r.write || !(read_cr0() & CR0_WP);
}

static u32 wrong_access(ulong va, struct rights r)
{
    u32 wrong = 0;
    for (u32 i = 0; i < 12; i++) {
        enum kind kind = i % 3;
        bool user = i / 3 & 1, ac = i / 6;
        if (ac && (kind == FETCH || user))
            continue;
        struct trap t = touch(va, kind, user, ac ? FLAG_AC : 0);
        bool ok;
        ulong error = 1 | (kind == WRITE ? 2 : 0) | (user ? 4 : 0) | (kind == FETCH ? fetch_bit() : 0);
        if (allowed(r, kind, user, ac))
            ok = t.vector == VECTOR_DONE;
        else
            ok = t.vector == PF && t.error == error && t.cr2 == va && t.off == 0;
        if (!ok && !wrong++)
            print("# U%d W%d NX%d kind %d user %d ac %d cr0 %lx cr4 %lx: vector %lu error %lx cr2 %lx\n",
                  r.user, r.write, r.no_execute, kind, user, ac, read_cr0(), read_cr4(), t.vector, t.error,
                  t.cr2);
    }
    return wrong;
}

/* All combinations of U, W, NX in the leaf and in one table above it. */
static u32 wrong_rights(ulong va, int leaf, int upper)
{
    u32 wrong = 0, combinations = nxe ? 8 : 4;
    bool upper_has_bits = upper > leaf && !(space.mode == PAGING_PAE && upper == 3);
    u64 leaf_base = entry_get(&space, va, leaf) & ~(PTE_NX | PTE_W | PTE_U);
    u64 upper_base = upper_has_bits ? entry_get(&space, va, upper) & ~(PTE_NX | PTE_W | PTE_U) : 0;
    for (u32 i = 0; i < combinations; i++) {
        for (u32 j = 0; j < (upper_has_bits ? combinations : 1); j++) {
            u32 k = upper_has_bits ? j : 3;
            entry_set(&space, va, leaf, leaf_base | (i & 3) << 1 | (i & 4 ? PTE_NX : 0));
            if (upper_has_bits)
                entry_set(&space, va, upper, upper_base | (j & 3) << 1 | (j & 4 ? PTE_NX : 0));
            flush_tlb();
            wrong += wrong_access(va,
                                  (struct rights){ (i & k & 2) != 0, (i & k & 1) != 0, ((i | k) & 4) != 0 });
        }
    }
    entry_set(&space, va, leaf, leaf_base | PTE_W | PTE_U);
    if (upper_has_bits)
        entry_set(&space, va, upper, upper_base | PTE_W | PTE_U);
    flush_tlb();
    return wrong;
}

static void rights(void)
{
    static const char *const level_names[] = { "", "", "rights-pte-pde", "rights-pte-pdpte",
                                               "rights-pte-pml4e" };
    plant_code(DATA);
    plant_code(DATA_BIG);
    page(TEST, DATA, PTE_RWU);
    map(&space, TEST + (4ul << 20), DATA_BIG, PTE_RWU, large_level());
    for (int wp = 0; wp < 2; wp++) {
        write_cr0(wp ? read_cr0() | CR0_WP : read_cr0() & ~(ulong)CR0_WP);
        for (int upper = 2; upper <= (int)space.mode; upper++) {
            if (space.mode == PAGING_PAE && upper == 3)
                continue;
            if (!wp)
                CHECK_EQ(n(level_names[upper]), wrong_rights(TEST, 1, upper), 0);
            else
                CHECK_EQ(n(upper == 2   ? "rights-pte-pde-wp"
                           : upper == 3 ? "rights-pte-pdpte-wp"
                                        : "rights-pte-pml4e-wp"),
                         wrong_rights(TEST, 1, upper), 0);
        }
        CHECK_EQ(n(wp ? "rights-large-wp" : "rights-large"), wrong_rights(TEST + (4ul << 20), 2, 2), 0);
    }
    ulong cr4 = read_cr4();
    if (has(F_SMEP)) {
        write_cr4(cr4 | CR4_SMEP);
        CHECK_EQ(n("rights-smep"), wrong_rights(TEST, 1, 2), 0);
        CHECK_EQ(n("rights-smep-large"), wrong_rights(TEST + (4ul << 20), 2, 2), 0);
    } else {
        check_skip(n("rights-smep"), "no SMEP");
    }
    if (has(F_SMAP)) {
        write_cr4(cr4 | CR4_SMAP);
        CHECK_EQ(n("rights-smap"), wrong_rights(TEST, 1, 2), 0);
        write_cr4(cr4 | CR4_SMAP | CR4_SMEP);
        CHECK_EQ(n("rights-smap-smep"), wrong_rights(TEST, 1, 2), 0);
        CHECK_EQ(n("rights-smap-large"), wrong_rights(TEST + (4ul << 20), 2, 2), 0);
        write_cr0(read_cr0() & ~(ulong)CR0_WP);
        CHECK_EQ(n("rights-smap-without-wp"), wrong_rights(TEST, 1, 2), 0);
        write_cr0(read_cr0() | CR0_WP);
    } else {
        check_skip(n("rights-smap"), "no SMAP");
    }
    write_cr4(cr4);
}

static void smap_details(void)
{
    if (!has(F_SMAP)) {
        check_skip(n("smap"), "no SMAP");
        return;
    }
    ulong cr4 = read_cr4();
    page(TEST, DATA, PTE_RWU);
    write_cr4(cr4 | CR4_SMAP);
    PAGE_FAULT(n("smap-read"), TRY("mov eax, [" R(bx) "]", .bx = TEST), 1, TEST);
    PAGE_FAULT(n("smap-write"), TRY("mov [" R(bx) "], eax", .bx = TEST), 3, TEST);
    struct trap t = DONE(n("smap-stac"), TRY("stac\n mov eax, [" R(bx) "]", .bx = TEST));
    CHECK(n("stac-sets-ac"), t.regs.flags & FLAG_AC);
    PAGE_FAULT(n("smap-clac"), TRY("stac\n clac\n 8: mov eax, [" R(bx) "]", .bx = TEST), 1, TEST);
    PAGE_FAULT(n("smap-popf-clears-ac"),
               TRY("stac\n mov eax, [" R(bx) "]\n push 2\n popf\n 8: mov eax, [" R(bx) "]", .bx = TEST), 1,
               TEST);
    struct trap u = USER("stac");
    CHECK_EQ(n("stac-user-is-ud"), u.vector, UD); /* SDM 2B, STAC: #UD if CPL > 0 */
    u = USER("clac");
    CHECK_EQ(n("clac-user-is-ud"), u.vector, UD);
    /* 4.6.1: implicit supervisor accesses (descriptor loads) ignore EFLAGS.AC */
    const u16 selector = 1 << 3 | 4 | 3;
    ((volatile u64 *)(DATA + PAGE))[1] = gdt[SEL_USER_DATA / 8];
    write_cr4(cr4);
    page(TEST + PAGE, DATA + PAGE, PTE_RWU);
    ulong ldt = TEST + PAGE;
    set_gdt(SEL_FREE, descriptor((u32)ldt, 0xfff, D_PRESENT | 2, 0));
    set_gdt(SEL_FREE + 8, (u64)ldt >> 32);
    asm volatile("lldt %0" : : "r"((u16)SEL_FREE));
    t = USER("mov es, eax", .ax = selector);
    check_done(n("smap-ldt-off"), &t);
    write_cr4(cr4 | CR4_SMAP);
    PAGE_FAULT(n("smap-ldt-user"), USER("mov es, eax", .ax = selector, .flags = FLAG_AC), 1, ldt + 8);
    PAGE_FAULT(n("smap-ldt-supervisor"), TRY("mov es, eax", .ax = selector), 1, ldt + 8);
    /* at CPL 0 a descriptor load by MOV is implicit as well (4.6.1) */
    write_cr4(cr4);
    asm volatile("lldt %0" : : "r"((u16)0));
}

/* ---- error codes, one by one (SDM 3A 4.7, figure 4-12) ---- */

static void error_codes(void)
{
    write_cr0(read_cr0() | CR0_WP);
    plant_code(DATA);
    page(TEST, 0, 0);
    PAGE_FAULT(n("np-read"), read_at(TEST + 0x123), 0, TEST + 0x123);
    PAGE_FAULT(n("np-write"), write_at(TEST + 0x123), 2, TEST + 0x123);
    PAGE_FAULT(n("np-user-read"), user_read(TEST + 0xfff), 4, TEST + 0xfff);
    PAGE_FAULT(n("np-user-write"), user_write(TEST), 6, TEST);
    PAGE_FAULT(n("np-fetch"), fetch_at(TEST), fetch_bit(), TEST);
    PAGE_FAULT(n("np-user-fetch"), user_fetch(TEST), 4 | fetch_bit(), TEST);
    page(TEST, DATA, PTE_P);
    PAGE_FAULT(n("prot-write-wp"), write_at(TEST), 3, TEST);
    PAGE_FAULT(n("prot-user-read"), user_read(TEST), 5, TEST);
    PAGE_FAULT(n("prot-user-write"), user_write(TEST), 7, TEST);
    PAGE_FAULT(n("prot-user-fetch"), user_fetch(TEST), 5 | fetch_bit(), TEST);
    DONE(n("prot-read"), read_at(TEST));
    if (nxe) {
        page(TEST, DATA, PTE_RWU | PTE_NX);
        PAGE_FAULT(n("nx-fetch"), fetch_at(TEST), 0x11, TEST);
        PAGE_FAULT(n("nx-user-fetch"), user_fetch(TEST), 0x15, TEST);
        DONE(n("nx-read"), user_read(TEST));
        /* NXE = 0 makes bit 63 reserved (4.5) */
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_NXE);
        flush_tlb();
        PAGE_FAULT(n("nx-reserved-read"), read_at(TEST), 9, TEST);
        PAGE_FAULT(n("nx-reserved-user-write"), user_write(TEST), 0xf, TEST);
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
        flush_tlb();
    }
    /* A reserved bit: P = 1 and RSVD = 1, with W/R, U/S of the access */
    u64 reserved = space.mode == PAGING_32 ? 0 : 1ull << 51;
    bool narrow = cpuid(0x80000000, 0).a < 0x80000008 || (cpuid(0x80000008, 0).a & 0xff) < 52;
    if (reserved && narrow) {
        page(TEST, DATA | reserved, PTE_RWU);
        PAGE_FAULT(n("reserved-pte-read"), read_at(TEST), 9, TEST);
        PAGE_FAULT(n("reserved-pte-write"), write_at(TEST), 0xb, TEST);
        PAGE_FAULT(n("reserved-pte-user-read"), user_read(TEST), 0xd, TEST);
        PAGE_FAULT(n("reserved-pte-user-write"), user_write(TEST), 0xf, TEST);
        PAGE_FAULT(n("reserved-pte-fetch"), fetch_at(TEST), 9 | fetch_bit(), TEST);
        /* reserved bits of an entry that is not present do not count */
        page(TEST, DATA | reserved, 0);
        PAGE_FAULT(n("reserved-np"), read_at(TEST), 0, TEST);
        page(TEST, DATA, PTE_RWU);
        u64 pde = entry_get(&space, TEST, 2);
        entry_set(&space, TEST, 2, pde | reserved);
        flush_tlb();
        PAGE_FAULT(n("reserved-pde-read"), read_at(TEST), 9, TEST);
        entry_set(&space, TEST, 2, pde);
        flush_tlb();
    }
    ulong big = TEST + (8ul << 20);
    map(&space, big, DATA_BIG | 1ull << (space.mode == PAGING_32 ? 21 : 13), PTE_RWU,
        2); /* tables 4-4, 4-9, 4-17 */
    PAGE_FAULT(n("reserved-large-read"), read_at(big), 9, big);
    PAGE_FAULT(n("reserved-large-user-write"), user_write(big + 0x1234), 0xf, big + 0x1234);
    map(&space, big, DATA_BIG, PTE_RWU, 2);
    invlpg((void *)big);
    DONE(n("large-read"), read_at(big));
    if (space.mode == PAGING_PAE) { /* PAE has no ignored high bits: 62:52 are reserved (table 4-11) */
        page(TEST, DATA | 1ull << 55, PTE_RWU);
        PAGE_FAULT(n("reserved-bit-55"), read_at(TEST), 9, TEST);
    } else if (space.mode == PAGING_LONG) { /* 4-level: ignored (table 4-20) */
        page(TEST, DATA | 1ull << 55, PTE_RWU);
        DONE(n("ignored-bit-55"), read_at(TEST));
        u64 top = entry_get(&space, TEST, 4);
        entry_set(&space, TEST, 4, top | PTE_PS); /* table 4-15: PS of a PML4E is reserved */
        flush_tlb();
        PAGE_FAULT(n("reserved-pml4e-ps"), read_at(TEST), 9, TEST);
        entry_set(&space, TEST, 4, top);
        flush_tlb();
    }
    page(TEST, DATA, PTE_RWU);
    /* not present in the upper levels */
    for (int level = 2; level <= (int)space.mode; level++) {
        if (space.mode == PAGING_PAE && level == 3)
            continue;
        u64 e = entry_get(&space, TEST, level);
        entry_set(&space, TEST, level, e & ~PTE_P);
        flush_tlb();
        struct trap t = user_write(TEST);
        entry_set(&space, TEST, level, e);
        flush_tlb();
        check_page_fault(n(level == 2 ? "np-pde" : level == 3 ? "np-pdpte" : "np-pml4e"), &t, 6, TEST);
    }
}

/* ---- accessed and dirty (SDM 3A 4.8) ---- */

static void clear_bits(ulong va, int leaf)
{
    for (int level = leaf; level <= (int)space.mode; level++)
        if (space.mode != PAGING_PAE || level < 3)
            entry_set(&space, va, level, entry_get(&space, va, level) & ~(PTE_A | PTE_D));
    flush_tlb();
}

static bool accessed(ulong va, int leaf)
{
    bool all = true;
    for (int level = leaf; level <= (int)space.mode; level++)
        if (space.mode != PAGING_PAE || level < 3)
            all = all && (entry_get(&space, va, level) & PTE_A);
    return all;
}

static u64 leaf_bits(ulong va, int leaf) { return entry_get(&space, va, leaf) & (PTE_A | PTE_D); }

static void accessed_dirty(ulong va, int leaf, const char *const names[8])
{
    clear_bits(va, leaf);
    read_at(va);
    CHECK(n(names[0]), accessed(va, leaf));
    CHECK_EQ(n(names[1]), leaf_bits(va, leaf), PTE_A);
    write_at(va); /* the translation is cached with D = 0: the write has to set it */
    CHECK_EQ(n(names[2]), leaf_bits(va, leaf), PTE_A | PTE_D);
    clear_bits(va, leaf);
    user_write(va);
    CHECK_EQ(n(names[3]), leaf_bits(va, leaf), PTE_A | PTE_D);
    CHECK(n(names[4]), accessed(va, leaf));
    clear_bits(va, leaf);
    fetch_at(va);
    CHECK_EQ(n(names[5]), leaf_bits(va, leaf), PTE_A);
    u64 e = entry_get(&space, va, leaf);
    clear_bits(va, leaf);
    entry_set(&space, va, leaf, entry_get(&space, va, leaf) & ~PTE_W);
    flush_tlb();
    user_write(va); /* faults */
    CHECK_EQ(n(names[6]), leaf_bits(va, leaf) & PTE_D, 0);
    entry_set(&space, va, leaf, e & ~(PTE_A | PTE_D));
    flush_tlb();
    TRY("lock add dword ptr [" R(bx) "], 0", .bx = va + 64);
    CHECK_EQ(n(names[7]), leaf_bits(va, leaf), PTE_A | PTE_D);
}

static void accessed_dirty_all(void)
{
    static const char *const small[8] = { "a-every-level",      "a-read-no-d",
                                          "d-after-read",       "d-user-write",
                                          "a-user-every-level", "a-fetch",
                                          "d-not-by-fault",     "d-locked" };
    static const char *const large[8] = { "large-a-every-level",      "large-a-read-no-d",
                                          "large-d-after-read",       "large-d-user-write",
                                          "large-a-user-every-level", "large-a-fetch",
                                          "large-d-not-by-fault",     "large-d-locked" };
    plant_code(DATA);
    plant_code(DATA_BIG);
    page(TEST, DATA, PTE_RWU);
    accessed_dirty(TEST, 1, small);
    ulong big = TEST + (4ul << 20);
    map(&space, big, DATA_BIG, PTE_RWU, 2);
    flush_tlb();
    accessed_dirty(big, 2, large);
    /* A fault in the second page of a write leaves the first page's data alone. */
    page(TEST, DATA, PTE_RWU);
    page(TEST + PAGE, DATA + PAGE, PTE_RWU);
    clear_bits(TEST, 1);
    clear_bits(TEST + PAGE, 1);
    TRY("mov [" R(bx) "], eax", .bx = TEST + PAGE - 2);
    CHECK_EQ(n("d-crossing-first"), leaf_bits(TEST, 1), PTE_A | PTE_D);
    CHECK_EQ(n("d-crossing-second"), leaf_bits(TEST + PAGE, 1), PTE_A | PTE_D);
    clear_bits(TEST + PAGE, 1);
    clear_bits(TEST, 1);
    TRY("mov eax, [" R(bx) "]", .bx = TEST + PAGE - 2);
    CHECK_EQ(n("a-crossing-second"), leaf_bits(TEST + PAGE, 1), PTE_A);
    /* CMPXCHG always writes (SDM 2A): it faults on a read-only page and sets D when it does not match */
    clear_bits(TEST, 1);
    TRY("cmpxchg [" R(bx) "], ecx", .bx = TEST + 128, .ax = 0x12345678, .cx = 1);
    CHECK_EQ(n("d-cmpxchg-no-match"), leaf_bits(TEST, 1), PTE_A | PTE_D);
}

/* ---- changes and invalidation (SDM 3A 4.10) ---- */

static u8 byte_at(ulong va) { return *(volatile u8 *)va; }

static void invalidation(void)
{
    volatile u8 *a = (volatile u8 *)DATA, *b = (volatile u8 *)(DATA + PAGE);
    *a = 0x11, *b = 0x22;
    page(TEST, DATA, PTE_RWU);
    CHECK_EQ(n("map-first"), byte_at(TEST), 0x11);
    entry_set(&space, TEST, 1, (DATA + PAGE) | PTE_RWU);
    invlpg((void *)(TEST + 0x777));
    CHECK_EQ(n("invlpg"), byte_at(TEST), 0x22);
    entry_set(&space, TEST, 1, DATA | PTE_RWU);
    flush_tlb();
    CHECK_EQ(n("mov-cr3"), byte_at(TEST), 0x11);
    entry_set(&space, TEST, 1, 0);
    invlpg((void *)TEST);
    PAGE_FAULT(n("unmap-invlpg"), read_at(TEST), 0, TEST);
    /* 4.10.2.3: not-present translations are not cached */
    entry_set(&space, TEST, 1, DATA | PTE_RWU);
    DONE(n("np-to-present"), read_at(TEST));
    /* a fault on a stale entry removes it (4.10.4.1): at most one spurious fault after rights are raised */
    page(TEST, DATA, PTE_P | PTE_U);
    user_write(TEST);
    user_read(TEST);
    entry_set(&space, TEST, 1, DATA | PTE_RWU);
    user_write(TEST);
    DONE(n("raise-rights"), user_write(TEST));
    page(TEST, DATA, PTE_P | PTE_W);
    user_read(TEST);
    entry_set(&space, TEST, 1, DATA | PTE_RWU);
    user_read(TEST);
    DONE(n("raise-user"), user_read(TEST));
    /* lowering rights */
    user_write(TEST);
    entry_set(&space, TEST, 1, DATA | PTE_P | PTE_U);
    invlpg((void *)TEST);
    PAGE_FAULT(n("lower-rights"), user_write(TEST), 7, TEST);
    /* CR0.WP takes effect at once (4.10.4.1 lists it as invalidating) */
    write_cr0(read_cr0() & ~(ulong)CR0_WP);
    DONE(n("wp-off"), write_at(TEST));
    write_cr0(read_cr0() | CR0_WP);
    PAGE_FAULT(n("wp-on"), write_at(TEST), 3, TEST);
    /* large pages: one INVLPG anywhere in the page drops all of it */
    ulong big = TEST + (4ul << 20), far = big + (ulong)large_size() - PAGE;
    *(volatile u8 *)(DATA_BIG + 5 * PAGE) = 0x33;
    *(volatile u8 *)(ulong)(DATA_BIG + large_size() - PAGE) = 0x34;
    *(volatile u8 *)(ulong)(DATA_BIG + large_size() + 5 * PAGE) = 0x44;
    *(volatile u8 *)(ulong)(DATA_BIG + 2 * large_size() - PAGE) = 0x45;
    map(&space, big, DATA_BIG, PTE_RWU, 2);
    flush_tlb();
    CHECK_EQ(n("large-first"), byte_at(big + 5 * PAGE), 0x33);
    CHECK_EQ(n("large-last-page"), byte_at(far), 0x34);
    map(&space, big, DATA_BIG + large_size(), PTE_RWU, 2);
    invlpg((void *)(big + 0x54321));
    CHECK_EQ(n("large-invlpg"), byte_at(big + 5 * PAGE), 0x44);
    CHECK_EQ(n("large-invlpg-last-page"), byte_at(far), 0x45);
    /* a large page split into small ones */
    map(&space, big, 0, 0, 2);
    entry_set(&space, big, 2, 0);
    map(&space, big + 5 * PAGE, DATA, PTE_RWU, 1);
    invlpg((void *)(big + 5 * PAGE));
    CHECK_EQ(n("large-split"), byte_at(big + 5 * PAGE), *a);
    PAGE_FAULT(n("large-split-hole"), read_at(far), 0, far);
    /* a changed table above the leaf */
    page(TEST, DATA, PTE_RWU);
    byte_at(TEST);
    u64 pde = entry_get(&space, TEST, 2), other = page_alloc();
    if (space.mode == PAGING_32)
        *(volatile u32 *)(ulong)other = (u32)((DATA + PAGE) | PTE_RWU);
    else
        *(volatile u64 *)(ulong)other = (DATA + PAGE) | PTE_RWU;
    entry_set(&space, TEST, 2, other | PTE_RWU);
    invlpg((void *)TEST);
    CHECK_EQ(n("new-table-invlpg"), byte_at(TEST), *b);
    entry_set(&space, TEST, 2, pde);
    invlpg((void *)TEST);
    CHECK_EQ(n("old-table-invlpg"), byte_at(TEST), *a);
    /* two mappings of one page see each other's writes; the tables themselves are memory like any other */
    page(TEST + PAGE, DATA, PTE_RWU);
    *(volatile u8 *)TEST = 0x77;
    CHECK_EQ(n("alias"), byte_at(TEST + PAGE), 0x77);
    struct trap t = USER("invlpg [" R(bx) "]", .bx = TEST);
    CHECK_EQ(n("invlpg-user"), t.vector, GP);
}

static void global_pages(void)
{
    volatile u8 *a = (volatile u8 *)DATA, *b = (volatile u8 *)(DATA + PAGE);
    *a = 0x11, *b = 0x22;
    ulong cr4 = read_cr4();
    write_cr4(cr4 | CR4_PGE);
    page(TEST, DATA, PTE_RWU | PTE_G);
    CHECK_EQ(n("global-read"), byte_at(TEST), 0x11);
    entry_set(&space, TEST, 1, (DATA + PAGE) | PTE_RWU | PTE_G);
    invlpg((void *)TEST); /* 4.10.4.1: INVLPG drops global entries too */
    CHECK_EQ(n("global-invlpg"), byte_at(TEST), 0x22);
    entry_set(&space, TEST, 1, DATA | PTE_RWU | PTE_G);
    write_cr4(cr4 & ~(ulong)CR4_PGE); /* a change of PGE drops everything */
    CHECK_EQ(n("global-pge-off"), byte_at(TEST), 0x11);
    entry_set(&space, TEST, 1, (DATA + PAGE) | PTE_RWU | PTE_G);
    write_cr4(cr4 | CR4_PGE);
    CHECK_EQ(n("global-pge-on"), byte_at(TEST), 0x22);
    write_cr4(cr4 & ~(ulong)CR4_PGE);
    entry_set(&space, TEST, 1, DATA | PTE_RWU | PTE_G);
    flush_tlb(); /* with PGE = 0 the bit means nothing */
    CHECK_EQ(n("global-ignored"), byte_at(TEST), 0x11);
    write_cr4(cr4);
}

/* ---- accesses over two pages ---- */

static void crossing(void)
{
    ulong edge = TEST + PAGE;
    page(TEST, DATA, PTE_RWU);
    page(edge, 0, 0);
    fill((void *)DATA, 0xa5, PAGE);
    struct trap t;
    PAGE_FAULT(n("cross-read"), TRY("mov eax, [" R(bx) "]", .bx = edge - 2), 0, edge);
    PAGE_FAULT(n("cross-write"), TRY("mov [" R(bx) "], eax", .bx = edge - 2), 2, edge);
    CHECK_EQ(n("cross-write-nothing"), *(volatile u16 *)(DATA + PAGE - 2), 0xa5a5);
    PAGE_FAULT(n("cross-user-write"), USER("mov [" R(bx) "], eax", .bx = edge - 1), 6, edge);
    PAGE_FAULT(n("cross-word"), TRY("mov ax, [" R(bx) "]", .bx = edge - 1), 0, edge);
    t = PAGE_FAULT(n("cross-add"), TRY("add [" R(bx) "], eax", .bx = edge - 3, .ax = 1), 2, edge);
    CHECK_EQ(n("cross-add-nothing"), *(volatile u8 *)(DATA + PAGE - 3), 0xa5);
    PAGE_FAULT(n("cross-lock-add"), TRY("lock add [" R(bx) "], eax", .bx = edge - 3, .ax = 1), 2, edge);
    t = PAGE_FAULT(n("cross-xchg"), TRY("xchg [" R(bx) "], eax", .bx = edge - 3, .ax = 1), 2, edge);
    CHECK_EQ(n("cross-xchg-register"), t.regs.ax, 1);
    PAGE_FAULT(n("cross-cmpxchg8b"), TRY("cmpxchg8b [" R(bx) "]", .bx = edge - 3), 2, edge);
    t = USER("8: push " R(cx), .sp = edge + sizeof(ulong) - 2);
    check_page_fault(n("cross-user-push"), &t, 6, edge);
    CHECK_EQ(n("cross-user-push-sp"), t.regs.sp, edge + sizeof(ulong) - 2);
    CHECK_EQ(n("cross-user-push-nothing"), *(volatile u16 *)(DATA + PAGE - 2), 0xa5a5);
    t = USER("8: pop " R(cx), .sp = edge - 2, .cx = 7);
    check_page_fault(n("cross-user-pop"), &t, 4, edge);
    CHECK(n("cross-user-pop-restart"), t.regs.sp == edge - 2 && t.regs.cx == 7);
    t = USER("8: pop [" R(bx) "]", .sp = TEST + 64, .bx = edge);
    check_page_fault(n("pop-memory"), &t, 6, edge);
    CHECK_EQ(n("pop-memory-sp"), t.regs.sp, TEST + 64);
    t = USER("8: call [" R(bx) "]", .sp = TEST + 64, .bx = edge);
    check_page_fault(n("call-memory"), &t, 4, edge);
    CHECK_EQ(n("call-memory-sp"), t.regs.sp, TEST + 64);
    t = USER("8: call 1f\n 1: nop", .sp = edge + sizeof(ulong));
    check_page_fault(n("call-push"), &t, 6, edge);
    CHECK_EQ(n("call-push-sp"), t.regs.sp, edge + sizeof(ulong));
    t = USER("8: enter 32, 0", .sp = edge + sizeof(ulong), .bp = 5);
    check_page_fault(n("enter-push"), &t, 6, edge);
    CHECK(n("enter-restart"), t.regs.sp == edge + sizeof(ulong) && t.regs.bp == 5);
    t = USER("8: leave", .bp = edge - 2);
    check_page_fault(n("leave-pop"), &t, 4, edge);
    CHECK_EQ(n("leave-restart"), t.regs.bp, edge - 2);
    t = USER("8: xadd [" R(bx) "], eax", .bx = edge - 2, .ax = 9);
    check_page_fault(n("xadd"), &t, 6, edge);
    CHECK_EQ(n("xadd-register"), t.regs.ax, 9);
    t = USER("8: bts [" R(bx) "], eax", .bx = TEST, .ax = PAGE * 8 + 5);
    check_page_fault(n("bts-far"), &t, 6, edge);
    t = USER("8: ret", .sp = edge - 2);
    check_page_fault(n("ret-pop"), &t, 4, edge);
    CHECK_EQ(n("ret-sp"), t.regs.sp, edge - 2);
    t = USER("8: xlatb", .bx = edge - 16, .ax = 0x10);
    check_page_fault(n("xlat"), &t, 4, edge);
    t = USER("8: test byte ptr [" R(bx) "], 1", .bx = edge);
    check_page_fault(n("test-reads"), &t, 4, edge);
    t = USER("8: cmpxchg [" R(bx) "], ecx", .bx = edge - 2, .ax = 1);
    check_page_fault(n("cross-cmpxchg"), &t, 6, edge);
    t = USER("8: setz byte ptr [" R(bx) "]", .bx = edge);
    check_page_fault(n("setcc"), &t, 6, edge);
    t = USER("8: fld tbyte ptr [" R(bx) "]", .bx = edge - 5);
    check_page_fault(n("cross-fld"), &t, 4, edge);
    t = USER("fninit\n fldz\n 8: fstp tbyte ptr [" R(bx) "]", .bx = edge - 5);
    check_page_fault(n("cross-fstp"), &t, 6, edge);
    ulong cr4 = read_cr4();
    write_cr4(cr4 | CR4_OSFXSR);
    t = USER("8: movups [" R(bx) "], xmm0", .bx = edge - 8);
    check_page_fault(n("cross-movups"), &t, 6, edge);
    t = USER("8: movups xmm0, [" R(bx) "]", .bx = edge - 8);
    check_page_fault(n("cross-movups-load"), &t, 4, edge);
    write_cr4(cr4);
    /* the first page at fault: CR2 is the operand's address; both at fault: the first */
    page(TEST, 0, 0);
    PAGE_FAULT(n("cross-both"), TRY("mov eax, [" R(bx) "]", .bx = edge - 2), 0, edge - 2);
    page(edge, DATA + PAGE, PTE_RWU);
    PAGE_FAULT(n("cross-first"), TRY("mov eax, [" R(bx) "]", .bx = edge - 2), 0, edge - 2);
    /* second page read-only: the error code of a write to it, nothing written */
    page(TEST, DATA, PTE_RWU);
    page(edge, DATA + PAGE, PTE_P | PTE_U);
    PAGE_FAULT(n("cross-read-only"), USER("mov [" R(bx) "], eax", .bx = edge - 2), 7, edge);
    PAGE_FAULT(n("cmpxchg-read-only"), USER("cmpxchg [" R(bx) "], ecx", .bx = edge, .ax = 0x5555), 7, edge);
    DONE(n("cross-read-only-read"), USER("mov eax, [" R(bx) "]", .bx = edge - 2));
    /* pages that do not lie side by side in memory */
    page(edge, DATA + 9 * PAGE, PTE_RWU);
    TRY("mov dword ptr [" R(bx) "], 0x44332211", .bx = edge - 1);
    CHECK_EQ(n("cross-split-low"), *(volatile u8 *)(DATA + PAGE - 1), 0x11);
    CHECK_EQ(n("cross-split-high"), *(volatile u32 *)(DATA + 9 * PAGE) & 0xffffff, 0x443322);
    /* code over two pages: mov eax, imm32 (5 bytes), the last three in the second page */
    static const u8 code[] = { 0xb8, 1, 2, 3, 4, 0xcd, VECTOR_DONE };
    for (u32 i = 0; i < sizeof(code); i++)
        *(volatile u8 *)(i < 2 ? DATA + PAGE - 2 + i : DATA + 9 * PAGE + i - 2) = code[i];
    struct code c = { edge - 2, edge - 2, edge + 3 };
    t = DONE(n("cross-fetch"), run_code(c, (struct regs){ .ax = 0 }));
    CHECK_EQ(n("cross-fetch-value"), t.regs.ax, 0x04030201);
    page(edge, 0, 0);
    PAGE_FAULT(n("cross-fetch-np"), run_code(c, (struct regs){ .ax = 0 }), fetch_bit(), edge);
    t = run_code(c, (struct regs){ .cs = SEL_USER_CODE, .sp = (ulong)user_stack_top + USER_ALIAS });
    check_page_fault(n("cross-fetch-user"), &t, 4 | fetch_bit(), edge);
    if (nxe) {
        page(edge, DATA + 9 * PAGE, PTE_RWU | PTE_NX);
        PAGE_FAULT(n("cross-fetch-nx"), run_code(c, (struct regs){ .ax = 0 }), 0x11, edge);
    }
    /* an instruction that ends with the page does not need the next one (here: INT3, then nothing) */
    *(volatile u8 *)(DATA + PAGE - 1) = 0xcc;
    page(edge, 0, 0);
    t = run_code((struct code){ edge - 1, edge - 1, edge }, (struct regs){ .ax = 0 });
    check_trap(n("fetch-last-byte"), &t, BP);
}

/* ---- implicit supervisor accesses (SDM 3A 4.6.1): descriptor tables from CPL 3 ---- */

static void system_tables(void)
{
    struct {
        u16 limit;
        ulong base;
    } __attribute__((packed)) moved = { sizeof(idt) - 1, TEST }, back = { sizeof(idt) - 1, (ulong)idt };
    const ulong size = WIDE ? 16 : 8;
    ulong start = TEST + PAGE - 0x80 * size; /* vector 80h begins the second page */
    for (ulong i = 0; i < sizeof(idt); i++)
        *(volatile u8 *)(DATA + PAGE - 0x80 * size + i) = ((u8 *)idt)[i];
    page(TEST, DATA, PTE_P | PTE_W);
    page(TEST + PAGE, 0, 0);
    moved.base = start;
    asm volatile("lidt %0" : : "m"(moved));
    struct trap t = USER("int 0x91");
    check_page_fault(n("idt-np-user"), &t, 0, start + 0x91 * size);
    t = TRY("int 0x91");
    check_page_fault(n("idt-np"), &t, 0, start + 0x91 * size);
    page(TEST + PAGE, DATA + PAGE, PTE_P | PTE_W);
    t = USER("8: nop");
    check_done(n("idt-supervisor-page"), &t);
    asm volatile("lidt %0" : : "m"(back));
    /* GDT: the second page holds selectors from 1000h - 80h on */
    struct {
        u16 limit;
        ulong base;
    } __attribute__((packed)) g = { 0x1fff, TEST + PAGE - sizeof(gdt) },
                              g_back = { sizeof(gdt) - 1, (ulong)gdt };
    copy((void *)(DATA + PAGE - sizeof(gdt)), gdt, sizeof(gdt));
    page(TEST + PAGE, 0, 0);
    asm volatile("lgdt %0" : : "m"(g));
    t = USER("mov es, eax", .ax = sizeof(gdt) | 3);
    asm volatile("lgdt %0" : : "m"(g_back));
    check_page_fault(n("gdt-np-user"), &t, 0, TEST + PAGE);
    /* a page fault whose own gate is broken: double fault (table 6-5: page fault, then contributory) */
    page(TEST, 0, 0);
    set_gate_full(PF, 0, 0, 0, 0);
    t = read_at(TEST);
    reset_gate(PF);
    CHECK_EQ(n("pf-then-np-is-df"), t.vector, DF);
    CHECK_EQ(n("df-error"), t.error, 0);
}

#if WIDE

static void non_canonical(void)
{
    /* SDM 3A 3.3.7.1, 6.15: #GP(0), or #SS(0) if the reference implies the stack segment */
    const ulong hole = 1ul << 47;
    FAULT("canonical-read", TRY("mov eax, [rbx]", .bx = hole), GP, 0);
    FAULT("canonical-write", TRY("mov [rbx], eax", .bx = 0xffff7ffffffffff8), GP, 0);
    FAULT("canonical-user", USER("mov eax, [rbx]", .bx = hole), GP, 0);
    FAULT("canonical-rbp", TRY("mov eax, [rbp]", .bp = hole), SS, 0);
    FAULT("canonical-rbp-ds", TRY("mov eax, ds:[rbp]", .bp = hole), SS,
          0); /* a DS override means nothing in 64-bit mode */
    FAULT("canonical-rsp", USER("mov eax, [rsp]", .sp = hole), SS, 0);
    FAULT("canonical-push", USER("push rax", .sp = hole + 8), SS, 0);
    FAULT("canonical-pop", USER("pop rax", .sp = hole), SS, 0);
    FAULT("canonical-rbp-fs", TRY("mov eax, fs:[rbp]", .bp = hole), GP, 0);
    FAULT("canonical-crossing", TRY("mov eax, [rbx]", .bx = hole - 2), GP, 0);
    FAULT("canonical-index", TRY("mov eax, [rbx+rcx*8]", .bx = 0x7ffffffffff8, .cx = 1), GP, 0);
    FAULT("canonical-movs", TRY("movsb", .si = (ulong)DATA, .di = hole), GP, 0);
    FAULT("canonical-lea-is-no-access", TRY("lea rax, [rbx]\n 8: mov al, [rax]", .bx = hole), GP, 0);
    struct trap t = PAGE_FAULT("canonical-highest-low", TRY("mov al, [rbx]", .bx = hole - 1), 0, hole - 1);
    t = PAGE_FAULT("canonical-lowest-high", TRY("mov al, [rbx]", .bx = 0xffff800000000000), 0,
                   0xffff800000000000);
    FAULT("canonical-wrap", TRY("mov [rbx], rax", .bx = ~0ul - 3), PF, 2);
    t = TRY("jmp rbx", .bx = hole);
    CHECK("canonical-jmp", t.vector == GP && t.error == 0);
    t = TRY("push rbx\n ret", .bx = hole);
    CHECK("canonical-ret", t.vector == GP && t.error == 0);
    t = TRY("invlpg [rbx]", .bx = hole); /* SDM 2A INVLPG: no fault, a NOP */
    check_done("canonical-invlpg", &t);
    t = TRY("prefetcht0 [rbx]\n nop dword ptr [rbx]", .bx = hole);
    check_done("canonical-prefetch", &t);
}

static void huge_pages(void)
{
    if (!has(F_PAGE1G)) {
        check_skip("huge", "no 1 GiB pages");
        return;
    }
    const ulong huge = 0x200000000000ul;
    map(&space, huge, 0, PTE_RWU, 3);
    flush_tlb();
    *(volatile u32 *)DATA = 0xfeedface;
    CHECK_EQ("huge-read", *(volatile u32 *)(huge + DATA), 0xfeedface);
    CHECK_EQ("huge-a", entry_get(&space, huge, 3) & (PTE_A | PTE_D), PTE_A);
    *(volatile u32 *)(huge + DATA + 4) = 1;
    CHECK_EQ("huge-d", entry_get(&space, huge, 3) & (PTE_A | PTE_D), PTE_A | PTE_D);
    plant_code(DATA);
    map(&space, huge + (1ul << 30), 0, PTE_RWU, 3);
    CHECK_EQ("huge-rights", wrong_rights(huge + (1ul << 30) + DATA, 3, 4), 0);
    map(&space, huge, 0, PTE_P | PTE_U, 3);
    invlpg((void *)(huge + (1ul << 29)));
    PAGE_FAULT("huge-invlpg", TRY("mov [rbx], al", .bx = huge + DATA), 3, huge + DATA);
    map(&space, huge, 1ul << 13, PTE_RWU, 3); /* table 4-16: bits 29:13 reserved */
    invlpg((void *)huge);
    PAGE_FAULT("huge-reserved", TRY("mov al, [rbx]", .bx = huge), 9, huge);
    map(&space, huge, 1ul << 29, PTE_RWU, 3);
    invlpg((void *)huge);
    PAGE_FAULT("huge-reserved-29", TRY("mov al, [rbx]", .bx = huge), 9, huge);
    map(&space, huge, 1ul << 12, PTE_RWU, 3); /* bit 12 is PAT */
    invlpg((void *)huge);
    DONE("huge-pat-bit", TRY("mov al, [rbx]", .bx = huge + DATA));
}

struct invpcid {
    u64 pcid, address;
};

static struct trap invpcid(ulong type, u64 pcid, u64 address)
{
    static struct invpcid ALIGNED(16) d;
    d = (struct invpcid){ pcid, address };
    return TRY("invpcid rcx, [rbx]", .cx = type, .bx = (ulong)&d);
}

static void pcid(void)
{
    if (!has(F_PCID)) {
        check_skip("pcid", "no PCID");
        return;
    }
    ulong cr4 = read_cr4(), root = space.root;
    struct space other = space_new(PAGING_LONG);
    copy((void *)other.root, (void *)root, PAGE);
    *(volatile u64 *)((ulong)other.root + (TEST >> 39 & 511) * 8) = 0;
    *(volatile u8 *)DATA = 0x11, *(volatile u8 *)(DATA + PAGE) = 0x22;
    page(TEST, DATA, PTE_RWU);
    map(&other, TEST, DATA + PAGE, PTE_RWU, 1);
    /* SDM 3A 4.10.1: PCIDE can be set only in IA-32e mode with CR3[11:0] = 0 */
    write_cr3(root | PTE_PWT);
    FAULT("pcide-needs-pcid-zero", TRY("mov cr4, rax", .ax = cr4 | CR4_PCIDE), GP, 0);
    write_cr3(root);
    DONE("pcide-set", TRY("mov cr4, rax", .ax = cr4 | CR4_PCIDE));
    write_cr3(root | 1);
    CHECK_EQ("pcid-first", byte_at(TEST), 0x11);
    write_cr3(other.root | 2);
    CHECK_EQ("pcid-second", byte_at(TEST), 0x22);
    write_cr3(root | 1 | 1ul << 63);
    CHECK_EQ("pcid-back-no-flush", byte_at(TEST), 0x11);
    CHECK_EQ("cr3-bit-63-reads-0", read_cr3(), root | 1);
    /* the same PCID with another root, flushed by MOV CR3 */
    write_cr3(other.root | 1);
    CHECK_EQ("pcid-reused-flushed", byte_at(TEST), 0x22);
    write_cr3(root | 1);
    CHECK_EQ("pcid-reused-back", byte_at(TEST), 0x11);
    /* INVLPG drops the current PCID's entry */
    entry_set(&space, TEST, 1, (DATA + PAGE) | PTE_RWU);
    invlpg((void *)TEST);
    CHECK_EQ("pcid-invlpg", byte_at(TEST), 0x22);
    FAULT("pcide-blocks-paging-off", TRY("mov cr0, rax", .ax = read_cr0() & ~CR0_PG), GP, 0);
    if (has(F_INVPCID)) {
        for (ulong type = 0; type < 4; type++) {
            static const char *const name[] = { "invpcid-address", "invpcid-context", "invpcid-all-global",
                                                "invpcid-all" };
            write_cr3(root | 1 | 1ul << 63);
            entry_set(&space, TEST, 1, DATA | PTE_RWU);
            invlpg((void *)TEST);
            byte_at(TEST);
            write_cr3(other.root | 2 | 1ul << 63);
            entry_set(&space, TEST, 1, (DATA + PAGE) | PTE_RWU);
            struct trap t = invpcid(type, 1, TEST);
            write_cr3(root | 1 | 1ul << 63);
            u8 seen = byte_at(TEST);
            CHECK(name[type], t.vector == VECTOR_DONE && seen == 0x22);
        }
        /* global entries go by type 2 */
        write_cr4(read_cr4() | CR4_PGE);
        page(TEST, DATA, PTE_RWU | PTE_G);
        byte_at(TEST);
        entry_set(&space, TEST, 1, (DATA + PAGE) | PTE_RWU | PTE_G);
        invpcid(2, 0, 0);
        CHECK_EQ("invpcid-global", byte_at(TEST), 0x22);
        write_cr4(read_cr4() & ~(ulong)CR4_PGE);
        /* SDM 2A INVPCID: #GP(0) for type > 3, reserved bits, non-canonical address with type 0 */
        struct trap t = invpcid(4, 0, 0);
        check_fault("invpcid-type-4", &t, GP, 0);
        t = invpcid(0, 0x1000, 0);
        check_fault("invpcid-reserved", &t, GP, 0);
        t = invpcid(0, 1, 1ul << 47);
        check_fault("invpcid-non-canonical", &t, GP, 0);
        t = invpcid(1, 1, 1ul << 47);
        check_done("invpcid-context-ignores-address", &t);
        t = USER("invpcid rcx, [rbx]", .cx = 3, .bx = (ulong)user_stack_top + USER_ALIAS - 64);
        check_fault("invpcid-user", &t, GP, 0);
    } else {
        check_skip("invpcid", "no INVPCID");
    }
    write_cr3(root);
    write_cr4(cr4);
    page(TEST, DATA, PTE_RWU);
    FAULT("cr3-bit-63-without-pcide", TRY("mov cr3, rax", .ax = root | 1ul << 63), GP, 0);
}

#else

static void pae_pointers(void)
{
    /* SDM 3A 4.4.1: MOV to CR3 loads the PDPTEs; a reserved bit in a present one is #GP(0), CR3 stays */
    ulong root = space.root, cr3 = read_cr3();
    volatile u64 *pdpt = (volatile u64 *)root;
    u64 third = pdpt[2];
    pdpt[2] = third | 1ull << 1; /* W is reserved here */
    FAULT("pae-pdpte-reserved", TRY("mov cr3, eax", .ax = root), GP, 0);
    CHECK_EQ("pae-pdpte-cr3-kept", read_cr3(), cr3);
    pdpt[2] = 0;
    DONE("pae-pdpte-np-loads", TRY("mov cr3, eax", .ax = root));
    PAGE_FAULT("pae-pdpte-np", TRY("mov al, [ebx]", .bx = TEST), 0, TEST);
    pdpt[2] = third;
    flush_tlb();
    DONE("pae-pdpte-back", TRY("mov al, [ebx]", .bx = TEST));
    /* The PDPT need be aligned to 32 bytes only. */
    ulong copy_at = page_alloc() + 0xfe0;
    copy((void *)copy_at, (void *)root, 32);
    DONE("pae-pdpt-32-byte-aligned", TRY("mov cr3, eax\n mov cl, [ebx]", .ax = copy_at, .bx = TEST));
    write_cr3(root);
}

static void pse36(void)
{
    /* table 4-4: bits 20:13 of a 4 MiB PDE are address bits 39:32: above all memory here, and not reserved
     * when MAXPHYADDR is 40. What is read there is the bus's business, but it is no fault. */
    if ((cpuid(0x80000008, 0).a & 0xff) < 40)
        return;
    map(&space, TEST + (8ul << 20), DATA_BIG | 0x10 << 13, PTE_RWU, 2);
    invlpg((void *)(TEST + (8ul << 20)));
    DONE("p32-pse36-address-bits", TRY("mov al, [ebx]", .bx = TEST + (8ul << 20)));
    /* CR4.PSE = 0: the PS bit is ignored, the entry points to a table */
    ulong cr4 = read_cr4();
    u32 *table = (u32 *)page_alloc();
    struct space plain = space_new(PAGING_32);
    map_range(&plain, 0, 0, 4ul << 20, PTE_P | PTE_W, 1);
    map_range(&plain, 4ul << 20, 4ul << 20, 60ul << 20, PTE_P | PTE_W, 1);
    table[0] = DATA | PTE_P;
    *(u32 *)entry(&plain, TEST, 2) = (u32)(ulong)table | PTE_P | PTE_PS;
    *(volatile u32 *)DATA = 0x600dcafe;
    write_cr3(plain.root);
    write_cr4(cr4 & ~(ulong)CR4_PSE);
    CHECK_EQ("p32-ps-ignored-without-pse", *(volatile u32 *)TEST, 0x600dcafe);
    write_cr4(cr4);
    write_cr3(space.root);
}

#endif

static void pat_bits_are_harmless(void)
{
    /* PWT, PCD, PAT and the available bits change no rights */
    page(TEST, DATA, PTE_RWU | PTE_PWT | PTE_PCD | 0x80 | 0xe00);
    DONE(n("memory-type-bits"), user_write(TEST));
}

static void run_mode(enum paging_mode mode, const char *name)
{
    mode_name = name;
    space = space_new(mode);
    if (!WIDE)
        write_cr4(read_cr4() | CR4_PSE);
    map_range(&space, 0, 0, 64ul << 20, PTE_P | PTE_W, 2);
    map_range(&space, USER_ALIAS, 0, 64ul << 20, PTE_RWU, 2);
    nxe = mode != PAGING_32 && has(F_NX);
    if (has(F_NX))
        wrmsr(MSR_EFER, nxe ? rdmsr(MSR_EFER) | EFER_NXE : rdmsr(MSR_EFER) & ~(u64)EFER_NXE);
    page(TEST, DATA, PTE_RWU);
    space_use(&space);
    error_codes();
    rights();
    smap_details();
    accessed_dirty_all();
    invalidation();
    global_pages();
    crossing();
    system_tables();
    pat_bits_are_harmless();
}

void guest_main(void)
{
#if WIDE
    run_mode(PAGING_LONG, "long");
    non_canonical();
    huge_pages();
    pcid();
#else
    run_mode(PAGING_32, "p32");
    pse36();
    paging_off();
    run_mode(PAGING_PAE, "pae");
    pae_pointers();
    paging_off();
    check_true("paging-off-again", *(volatile u8 *)DATA == *(volatile u8 *)DATA && !(read_cr0() & CR0_PG),
               "");
#endif
}
