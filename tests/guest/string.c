/* SPDX-License-Identifier: Apache-2.0 */
/* String instructions: results, directions, address sizes, and restart after a fault in the middle (SDM 2B
 * REP). */
#include "guest.h"

static u8 ALIGNED(4096) source[8192], target[8192];
#if WIDE
#define HOLE 0x200000000000ul
#else
#define HOLE 0x80000000ul
#endif
static struct space space;

static void pattern(void)
{
    for (u32 i = 0; i < sizeof(source); i++)
        source[i] = (u8)(i * 7 + (i >> 8));
    fill(target, 0, sizeof(target));
}

static void results(void)
{
    ulong s = (ulong)source, d = (ulong)target;
    pattern();
    struct trap t = DONE("rep-movsb", TRY("rep movsb", .cx = 1000, .si = s, .di = d));
    CHECK("rep-movsb-registers", t.regs.cx == 0 && t.regs.si == s + 1000 && t.regs.di == d + 1000);
    CHECK("rep-movsb-data", equal(source, target, 1000) && target[1000] == 0);
    pattern();
    t = TRY("rep movsw", .cx = 100, .si = s, .di = d);
    CHECK("rep-movsw", equal(source, target, 200) && target[200] == 0 && t.regs.si == s + 200);
    t = TRY("rep movsd", .cx = 100, .si = s, .di = d);
    CHECK("rep-movsd", equal(source, target, 400) && t.regs.di == d + 400);
    t = TRY("std\n rep movsb\n cld", .cx = 100, .si = s + 599, .di = d + 599);
    CHECK("rep-movsb-down",
          equal(source + 500, target + 500, 100) && target[499] == 0 && t.regs.si == s + 499);
    t = TRY("std\n rep movsd\n cld", .cx = 10, .si = s + 796, .di = d + 796);
    CHECK("rep-movsd-down", equal(source + 760, target + 760, 40) && t.regs.di == d + 756);
    /* overlapping: byte by byte upwards repeats the first byte */
    pattern();
    target[0] = 0x42;
    TRY("rep movsb", .cx = 99, .si = d, .di = d + 1);
    bool same = true;
    for (u32 i = 0; i < 100; i++)
        same = same && target[i] == 0x42;
    CHECK("rep-movsb-overlap", same);
    fill(target, 0, 32);
    *(u32 *)target = 0x11223344;
    TRY("rep movsd", .cx = 3, .si = d, .di = d + 2);
    CHECK("rep-movsd-overlap", *(u32 *)(target + 2) == 0x11223344 && target[6] == 0x22);
    pattern();
    t = TRY("rep stosb", .cx = 300, .di = d, .ax = 0x5a);
    CHECK("rep-stosb", target[0] == 0x5a && target[299] == 0x5a && target[300] == 0 && t.regs.di == d + 300);
    TRY("rep stosd", .cx = 3, .di = d, .ax = 0x04030201);
    CHECK("rep-stosd", target[0] == 1 && target[11] == 4 && target[12] == 0x5a);
    t = TRY("rep stosb", .cx = 0, .di = HOLE, .si = 5);
    CHECK("rep-zero-touches-nothing", t.vector == VECTOR_DONE && t.regs.di == HOLE);
    t = TRY("lodsw", .si = s + 3, .ax = ~0ul);
    CHECK_EQ("lodsw", t.regs.ax, (~0ul & ~0xfffful) | source[3] | (ulong)source[4] << 8);
    t = TRY("rep lodsb", .cx = 5, .si = s);
    CHECK("rep-lodsb", (t.regs.ax & 0xff) == source[4] && t.regs.si == s + 5);
    /* CMPS and SCAS: where they stop and the flags of the last comparison */
    copy(target, source, 256);
    target[77] ^= 1;
    t = TRY("repe cmpsb", .cx = 256, .si = s, .di = d);
    CHECK("repe-cmpsb", t.regs.cx == 256 - 78 && t.regs.si == s + 78 && !(t.regs.flags & FLAG_ZF));
    t = TRY("repe cmpsb", .cx = 77, .si = s, .di = d);
    CHECK("repe-cmpsb-equal", t.regs.cx == 0 && (t.regs.flags & FLAG_ZF));
    t = TRY("cmp eax, eax\n mov ecx, 0\n repne cmpsb", .si = s, .di = d);
    CHECK("rep-zero-keeps-flags", (t.regs.flags & FLAG_ZF) && t.regs.si == s);
    fill(target, 0x11, 100);
    target[40] = 0x22;
    t = TRY("repne scasb", .cx = 100, .di = d, .ax = 0x22);
    CHECK("repne-scasb", t.regs.cx == 59 && t.regs.di == d + 41 && (t.regs.flags & FLAG_ZF));
    t = TRY("repne scasb", .cx = 100, .di = d, .ax = 0x33);
    CHECK("repne-scasb-absent", t.regs.cx == 0 && t.regs.di == d + 100 && !(t.regs.flags & FLAG_ZF));
    t = TRY("repe scasb", .cx = 100, .di = d, .ax = 0x11);
    CHECK("repe-scasb", t.regs.di == d + 41 && (t.regs.flags & FLAG_CF)); /* 11h - 22h borrows */
    t = TRY("std\n repne scasb\n cld", .cx = 100, .di = d + 99, .ax = 0x22);
    CHECK("repne-scasb-down", t.regs.di == d + 39 && t.regs.cx == 40);
#if WIDE
    pattern();
    t = TRY("rep movsq", .cx = 64, .si = s, .di = d);
    CHECK("rep-movsq", equal(source, target, 512) && t.regs.si == s + 512);
    t = TRY("rep stosq", .cx = 2, .di = d, .ax = 0x0807060504030201);
    CHECK("rep-stosq", target[7] == 8 && target[8] == 1 && t.regs.di == d + 16);
    /* 32-bit addresses: ECX, ESI, EDI count, and the high halves are cleared */
    t = TRY("addr32 rep movsb", .cx = 0xf00000010, .si = s | 0xabc00000000, .di = d | 0xdef00000000);
    CHECK("address-size-32",
          t.vector == VECTOR_DONE && t.regs.cx == 0 && t.regs.si == s + 16 && t.regs.di == d + 16);
    t = TRY("addr32 rep stosb", .cx = 0xf00000000, .di = 0x123400000000);
    CHECK("address-size-32-zero-count", t.vector == VECTOR_DONE);
    t = TRY("addr32 lodsb", .si = s | 0xffff00000000);
    CHECK_EQ("address-size-32-lods", t.regs.ax & 0xff, source[0]);
#else
    /* 16-bit addresses: CX, SI, DI, wrapping at 64 KiB, high halves kept */
    set_gdt(SEL_FREE, descriptor(s, 0xffff, D_DATA, D_BIG));
    set_gdt(SEL_FREE + 8, descriptor(d, 0xffff, D_DATA, D_BIG));
    pattern();
    t = TRY("addr16 rep movsb", .cx = 0x50010, .si = 0x60004, .di = 0x70008, .ds = SEL_FREE,
            .es = SEL_FREE + 8);
    CHECK("address-size-16", t.regs.cx == 0x50000 && t.regs.si == 0x60014 && t.regs.di == 0x70018);
    CHECK("address-size-16-data", equal(source + 4, target + 8, 16));
    static u8 ALIGNED(16) big[65536];
    set_gdt(SEL_FREE + 8, descriptor((ulong)big, 0xffff, D_DATA, D_BIG));
    t = TRY("addr16 rep stosb", .cx = 8, .di = 0x1fffc, .ax = 0x77, .es = SEL_FREE + 8);
    CHECK("address-size-16-wraps",
          big[0xffff] == 0x77 && big[3] == 0x77 && big[4] == 0 && t.regs.di == 0x10004);
    /* limits: partial progress, then the fault */
    set_gdt(SEL_FREE, descriptor(d, 99, D_DATA, D_BIG));
    fill(target, 0, 128);
    t = FAULT("limit-in-the-middle", TRY("rep stosb", .cx = 64, .di = 50, .ax = 1, .es = SEL_FREE), GP, 0);
    if (!is_tcg())
        CHECK("limit-progress", t.regs.cx == 14 && t.regs.di == 100 && target[99] == 1 && target[100] == 0);
    t = FAULT("limit-down", TRY("std\n 8: rep stosd", .cx = 8, .di = 8, .ax = 1, .es = SEL_FREE), GP, 0);
    if (!is_tcg())
        CHECK("limit-down-progress", t.regs.cx == 5 && t.regs.di == (ulong)-4);
#endif
}

/* ---- faults in the middle ---- */

static void at_faults(void)
{
    ulong edge = HOLE + PAGE, d = (ulong)target, s = (ulong)source;
    pattern();
    map(&space, HOLE, d, PTE_RWU, 1);
    map(&space, edge, 0, 0, 1);
    flush_tlb();
    struct trap t = PAGE_FAULT("movsb-to-hole", TRY("rep movsb", .cx = 100, .si = s, .di = edge - 30), 2,
                               edge);
    CHECK("movsb-to-hole-registers", t.regs.cx == 70 && t.regs.si == s + 30 && t.regs.di == edge);
    CHECK("movsb-to-hole-rf", t.regs.flags & FLAG_RF);
    CHECK("movsb-to-hole-data", equal(source, target + 4096 - 30, 30));
    t = PAGE_FAULT("movsb-from-hole", TRY("rep movsb", .cx = 100, .si = edge - 10, .di = d), 0, edge);
    CHECK("movsb-from-hole-registers", t.regs.cx == 90 && t.regs.si == edge && t.regs.di == d + 10);
    t = PAGE_FAULT("movsd-across-hole", TRY("rep movsd", .cx = 10, .si = s, .di = edge - 10), 2, edge);
    CHECK("movsd-across-hole-registers", t.regs.cx == 8 && t.regs.si == s + 8 && t.regs.di == edge - 2);
    t = PAGE_FAULT("stosb-down", TRY("std\n 8: rep stosb", .cx = 100, .di = edge + 10, .ax = 1), 2,
                   edge + 10);
    CHECK("stosb-down-registers", t.regs.cx == 100 && t.regs.di == edge + 10 && (t.regs.flags & FLAG_DF));
    map(&space, edge, d + PAGE, PTE_RWU, 1);
    map(&space, HOLE, 0, 0, 1);
    flush_tlb();
    t = PAGE_FAULT("stosb-down-into-hole", TRY("std\n 8: rep stosb", .cx = 100, .di = edge + 10, .ax = 1), 2,
                   edge - 1);
    CHECK("stosb-down-into-hole-registers", t.regs.cx == 89 && t.regs.di == edge - 1);
    map(&space, HOLE, d, PTE_RWU, 1);
    map(&space, edge, 0, 0, 1);
    flush_tlb();
    fill(target, 0x11, PAGE);
    t = PAGE_FAULT("scasb-hole", TRY("repne scasb", .cx = 100, .di = edge - 5, .ax = 0x99), 0, edge);
    CHECK("scasb-hole-registers", t.regs.cx == 95 && t.regs.di == edge);
    copy(source, target, PAGE);
    t = PAGE_FAULT("cmpsb-hole", TRY("repe cmpsb", .cx = 100, .si = s, .di = edge - 5), 0, edge);
    CHECK("cmpsb-hole-registers", t.regs.cx == 95 && t.regs.si == s + 5 && t.regs.di == edge);
    t = PAGE_FAULT("lodsb-hole", TRY("rep lodsb", .cx = 10, .si = edge - 3), 0, edge);
    CHECK("lodsb-hole-registers", t.regs.cx == 7 && t.regs.si == edge);
    t = PAGE_FAULT("outsb-hole", TRY("rep outsb", .cx = 10, .si = edge - 3, .dx = 0x80), 0, edge);
    CHECK("outsb-hole-registers", t.regs.cx == 7 && t.regs.si == edge);
    t = PAGE_FAULT("insb-hole", TRY("rep insb", .cx = 10, .di = edge - 3, .dx = 0x80), 2, edge);
    CHECK("insb-hole-registers", t.regs.cx == 7 && t.regs.di == edge);
    /* read-only */
    map(&space, edge, d + PAGE, PTE_P | PTE_U, 1);
    flush_tlb();
    write_cr0(read_cr0() | CR0_WP);
    t = PAGE_FAULT("stosd-read-only", TRY("rep stosd", .cx = 10, .di = edge - 8, .ax = 1), 3, edge);
    CHECK_EQ("stosd-read-only-count", t.regs.cx, 8);
    t = PAGE_FAULT("user-stosb-read-only", TRY_USER("rep stosb", .cx = 10, .di = edge - 8, .ax = 1), 7, edge);
    CHECK_EQ("user-stosb-count", t.regs.cx, 2);
}

static u32 repaired;
static void repair(struct frame *f)
{
    (void)f;
    ulong page = read_cr2() & ~(PAGE - 1);
    map(&space, page, (ulong)target + (page - HOLE), PTE_RWU, 1);
    invlpg((void *)page);
    repaired++;
}

static void restarts(void)
{
    /* demand paging: the handler maps the page and the instruction goes on to its end */
    pattern();
    for (u32 i = 0; i < 2; i++)
        map(&space, HOLE + i * PAGE, 0, 0, 1);
    flush_tlb();
    repaired = 0;
    set_handler(PF, repair);
    struct trap t = DONE("restart-movsb",
                         TRY("rep movsb", .cx = 8000, .si = (ulong)source, .di = HOLE + 100));
    CHECK_EQ("restart-faults", repaired, 2);
    CHECK("restart-movsb-data", equal(source, target + 100, 8000) && t.regs.cx == 0);
    for (u32 i = 0; i < 2; i++)
        map(&space, HOLE + i * PAGE, 0, 0, 1);
    flush_tlb();
    repaired = 0;
    t = DONE("restart-stosd-down",
             TRY("std\n rep stosd\n cld", .cx = 1500, .di = HOLE + 8000, .ax = 0xabababab));
    CHECK("restart-stosd-data", repaired == 2 && *(u32 *)(target + 8000) == 0xabababab &&
                                    *(u32 *)(target + 8000 - 4 * 1499) == 0xabababab);
    /* a dword over the two pages, each of which faults once */
    for (u32 i = 0; i < 2; i++)
        map(&space, HOLE + i * PAGE, 0, 0, 1);
    flush_tlb();
    repaired = 0;
    t = DONE("restart-crossing", TRY("mov dword ptr [" R(bx) "], 0x11223344", .bx = HOLE + PAGE - 2));
    CHECK("restart-crossing-data", repaired == 2 && *(u32 *)(target + PAGE - 2) == 0x11223344);
    set_handler(PF, NULL);
}

/* ---- many pages ---- */

#define RUN 40u
#define RUN_TO (HOLE + 0x800000) /* of a table of its own each */
#define RUN_FROM (HOLE + 0xc00000)
#define RUN_TO_AT 0x2000000ul
#define RUN_FROM_AT 0x2400000ul
#define NOWHERE 0xd0000000ul /* neither memory nor a device */

/* Neighbours in the address space are none in memory. */
static ulong scattered(ulong base, u32 i) { return base + (i * 7 % RUN) * PAGE; }

static void run_pages(u64 flags)
{
    for (u32 i = 0; i < RUN; i++) {
        map(&space, RUN_TO + i * PAGE, scattered(RUN_TO_AT, i), PTE_RWU | flags, 1);
        map(&space, RUN_FROM + i * PAGE, scattered(RUN_FROM_AT, i), PTE_RWU | flags, 1);
        u32 *from = (u32 *)scattered(RUN_FROM_AT, i);
        for (u32 k = 0; k < PAGE / 4; k++)
            from[k] = (i << 16 | k) * 0x9e3779b1u;
        fill((void *)scattered(RUN_TO_AT, i), 0, PAGE);
    }
    flush_tlb();
}

/* Bytes of the target from `low` on that are not the source's, `shift` bytes before. */
static u32 run_wrong(ulong low, ulong high, long shift)
{
    u32 wrong = 0;
    for (ulong at = low; at < high; at++) {
        ulong src = at - (ulong)shift;
        u8 want = *(u8 *)(scattered(RUN_FROM_AT, (u32)(src / PAGE)) + src % PAGE);
        wrong += *(u8 *)(scattered(RUN_TO_AT, (u32)(at / PAGE)) + at % PAGE) != want;
    }
    return wrong;
}

static u32 marked(ulong va, u32 first, u32 count, u64 bits)
{
    u32 n = 0;
    for (u32 i = first; i < first + count; i++)
        n += (entry_get(&space, va + i * PAGE, 1) & bits) == bits;
    return n;
}

/* Whole elements that lie on two pages, over all of them. */
static u32 copied_wrong(u64 flags)
{
    const ulong bytes = RUN * PAGE;
    run_pages(flags);
    struct trap t = TRY("rep movsd", .cx = bytes / 4 - 2, .si = RUN_FROM + 1, .di = RUN_TO + 6);
    return (t.vector != VECTOR_DONE) + (t.regs.cx != 0) + (t.regs.di != RUN_TO + 6 + bytes - 8) +
           run_wrong(6, bytes - 2, 5) + (marked(RUN_FROM, 0, RUN, PTE_A) != RUN) +
           (marked(RUN_TO, 0, RUN, PTE_A | PTE_D) != RUN);
}

/* A page in the middle that cannot be written: those before it are marked, none behind. */
static u32 stopped_wrong(u64 rights, u32 error)
{
    run_pages(0);
    map(&space, RUN_TO + 23 * PAGE, scattered(RUN_TO_AT, 23), rights, 1);
    flush_tlb();
    struct trap t = TRY("rep movsb", .cx = RUN * PAGE, .si = RUN_FROM, .di = RUN_TO);
    return (t.vector != PF) + (t.error != error) + (t.cr2 != RUN_TO + 23 * PAGE) +
           (t.regs.cx != (RUN - 23) * PAGE) + (t.regs.si != RUN_FROM + 23 * PAGE) +
           (t.regs.di != RUN_TO + 23 * PAGE) + run_wrong(0, 23 * PAGE, 0) +
           (marked(RUN_TO, 0, 23, PTE_A | PTE_D) != 23) + marked(RUN_TO, 23, RUN - 23, PTE_A) +
           marked(RUN_TO, 23, RUN - 23, PTE_D);
}

static void many_pages(void)
{
    const ulong bytes = RUN * PAGE;
    CHECK_EQ("run-copied", copied_wrong(0), 0);
    CHECK_EQ("run-copied-marked", copied_wrong(PTE_A | PTE_D), 0);
    write_cr0(read_cr0() | CR0_WP);
    CHECK_EQ("run-to-hole", stopped_wrong(0, 2), 0);
    CHECK_EQ("run-to-read-only", stopped_wrong(PTE_P | PTE_U, 3), 0);
    /* the count ends on a page; what is dirty or accessed beyond stays as it is */
    run_pages(0);
    TRY("rep stosb", .cx = 10 * PAGE + 1, .di = RUN_TO, .ax = 0x77);
    CHECK("run-ends", marked(RUN_TO, 0, RUN, PTE_D) == 11 && marked(RUN_TO, 0, RUN, PTE_A) == 11 &&
                          *(u8 *)scattered(RUN_TO_AT, 10) == 0x77 &&
                          ((u8 *)scattered(RUN_TO_AT, 10))[1] == 0);
    /* accessed before, but never written: each gets its dirty bit when it is */
    run_pages(PTE_A);
    TRY("rep movsb", .cx = 30 * PAGE, .si = RUN_FROM, .di = RUN_TO);
    CHECK("run-dirty", marked(RUN_TO, 0, RUN, PTE_D) == 30 && marked(RUN_FROM, 0, RUN, PTE_D) == 0);
    /* other pages after INVLPG */
    run_pages(PTE_A | PTE_D);
    TRY("rep movsb", .cx = bytes, .si = RUN_FROM, .di = RUN_TO);
    map(&space, RUN_FROM + 30 * PAGE, scattered(RUN_FROM_AT, 3), PTE_RWU | PTE_A, 1);
    invlpg((void *)(RUN_FROM + 30 * PAGE));
    TRY("rep movsb", .cx = bytes, .si = RUN_FROM, .di = RUN_TO);
    CHECK("run-invlpg", equal((void *)scattered(RUN_TO_AT, 30), (void *)scattered(RUN_FROM_AT, 3), PAGE));
    CHECK_EQ("run-invlpg-rest", run_wrong(31 * PAGE, bytes, 0), 0);
    if (!is_tcg()) { /* a page of nothing in the middle */
        run_pages(PTE_A | PTE_D);
        map(&space, RUN_FROM + 12 * PAGE, NOWHERE, PTE_RWU | PTE_A, 1);
        flush_tlb();
        struct trap t = DONE("run-nowhere", TRY("rep movsd", .cx = bytes / 4, .si = RUN_FROM, .di = RUN_TO));
        u32 ones = 0;
        for (u32 k = 0; k < PAGE / 4; k++)
            ones += ((u32 *)scattered(RUN_TO_AT, 12))[k] == ~0u;
        CHECK("run-nowhere-data", ones == PAGE / 4 && !t.regs.cx && !run_wrong(0, 12 * PAGE, 0) &&
                                      !run_wrong(13 * PAGE, bytes, 0));
    }
    /* overlapping upward by a page and a bit: the first piece again and again */
    run_pages(PTE_A | PTE_D);
    const ulong step = PAGE + 24;
    TRY("rep movsb", .cx = bytes - step, .si = RUN_FROM, .di = RUN_FROM + step);
    u32 wrong = 0;
    for (ulong at = 0; at < bytes; at++)
        wrong += *(u8 *)(RUN_FROM + at) != *(u8 *)(RUN_FROM + at % step);
    CHECK_EQ("run-overlap", wrong, 0);
#if WIDE
    /* a count beyond 32 bits */
    run_pages(0);
    map(&space, RUN_TO + 39 * PAGE, 0, 0, 1);
    flush_tlb();
    struct trap t = PAGE_FAULT("run-long-count",
                               TRY("rep stosq", .cx = 0x1000000010, .di = RUN_TO + 3, .ax = 1), 2,
                               RUN_TO + 39 * PAGE);
    CHECK("run-long-count-registers", t.regs.cx == 0x1000000010 - (39 * PAGE - 3) / 8);
#endif
}

/* ---- the same run again and again, where an engine may map it in its own way ---- */

/* So often that it pays. TCG maps nothing, and is slow. */
#define AGAIN (is_tcg() ? 3u : 600u)
#define OTHER (HOLE + 0x1000000) /* the target's pages once more, another way round */

static struct trap copy_again(u32 times)
{
    struct trap t = { 0 };
    for (u32 i = 0; i < times; i++)
        t = TRY_USER("rep movsb", .cx = RUN * PAGE, .si = RUN_FROM, .di = RUN_TO);
    return t;
}

static void again_pages(void)
{
    run_pages(PTE_A | PTE_D);
    copy_again(AGAIN);
}

/* What the processor has to notice in the middle of it. */
static void again_changed(void)
{
    const ulong bytes = RUN * PAGE;
    again_pages();
    fill((void *)scattered(RUN_FROM_AT, 20), 0x66, PAGE); /* by another address */
    struct trap t = copy_again(1);
    CHECK("again-copied", t.regs.cx == 0 && t.regs.di == RUN_TO + bytes && !run_wrong(0, bytes, 0));
    map(&space, RUN_FROM + 30 * PAGE, scattered(RUN_FROM_AT, 3), PTE_RWU | PTE_A, 1);
    invlpg((void *)(RUN_FROM + 30 * PAGE));
    copy_again(1);
    CHECK("again-invlpg", equal((void *)scattered(RUN_TO_AT, 30), (void *)scattered(RUN_FROM_AT, 3), PAGE));
    CHECK_EQ("again-invlpg-rest", run_wrong(0, 30 * PAGE, 0) + run_wrong(31 * PAGE, bytes, 0), 0);
    again_pages();
    map(&space, RUN_TO + 17 * PAGE, scattered(RUN_TO_AT, 17), PTE_P | PTE_U | PTE_A | PTE_D, 1);
    flush_tlb();
    fill((void *)scattered(RUN_FROM_AT, 18), 0x77, PAGE);
    t = PAGE_FAULT("again-read-only", copy_again(1), 7, RUN_TO + 17 * PAGE);
    CHECK("again-read-only-registers", t.regs.cx == (RUN - 17) * PAGE && t.regs.si == RUN_FROM + 17 * PAGE &&
                                           run_wrong(18 * PAGE, 19 * PAGE, 0));
    again_pages();
    write_cr3(read_cr3());
    map(&space, RUN_FROM, 0, 0, 1);
    invlpg((void *)RUN_FROM);
    PAGE_FAULT("again-hole", copy_again(1), 4, RUN_FROM);
}

/* Dirty bits taken away have to be set anew. */
static void again_clean(void)
{
    again_pages();
    for (u32 i = 0; i < RUN; i++)
        map(&space, RUN_TO + i * PAGE, scattered(RUN_TO_AT, i), PTE_RWU | PTE_A, 1);
    flush_tlb();
    TRY_USER("rep movsb", .cx = 30 * PAGE, .si = RUN_FROM, .di = RUN_TO);
    CHECK("again-dirty", marked(RUN_TO, 0, 30, PTE_D) == 30 && !marked(RUN_TO, 30, RUN - 30, PTE_D));
}

/* A run over its own bytes, by the same addresses and by others. */
static void again_overlapping(void)
{
    const ulong bytes = RUN * PAGE;
    u32 wrong = 0;
    again_pages();
    for (u32 i = 0; i < RUN; i++)
        map(&space, OTHER + i * PAGE, scattered(RUN_TO_AT, i), PTE_RWU | PTE_A | PTE_D, 1);
    for (u32 i = 0; i < AGAIN; i++)
        TRY_USER("rep stosb", .cx = bytes, .di = OTHER, .ax = i);
    *(u8 *)RUN_TO = 0x42;
    TRY_USER("rep movsb", .cx = bytes - 1, .si = RUN_TO, .di = RUN_TO + 1);
    for (ulong at = 0; at < bytes; at++)
        wrong += *(u8 *)(RUN_TO + at) != 0x42;
    CHECK_EQ("again-overlap", wrong, 0);
    *(u8 *)RUN_TO = 0x43;
    TRY_USER("rep movsb", .cx = bytes - 1, .si = RUN_TO, .di = OTHER + 1);
    for (ulong at = 0; at < bytes; at++)
        wrong += *(u8 *)(RUN_TO + at) != 0x43;
    CHECK_EQ("again-overlap-by-another-address", wrong, 0);
}

/* Code on a page that was written to again and again, and is now. */
static void again_over_code(void)
{
    static const u8 gives_1[] = { 0xb8, 1, 0, 0, 0, 0xc3 }, gives_2[] = { 0xb8, 2, 0, 0, 0, 0xc3 };
    u8 *at = (u8 *)(scattered(RUN_TO_AT, 9) + 100), *image = (u8 *)(scattered(RUN_FROM_AT, 9) + 100);
    u32 wrong = 0;
    again_pages();
    for (u32 round = 0; round < 20; round++) {
        copy(at, gives_1, sizeof(gives_1));
        for (u32 i = 0; i < 20; i++)
            wrong += ((u32(*)(void))(ulong)at)() != 1;
        copy(image, gives_2, sizeof(gives_2));
        copy_again(round == 10 ? AGAIN : 1);
        wrong += ((u32(*)(void))(ulong)at)() != 2;
    }
    CHECK_EQ("again-over-code", wrong, 0);
}

static void again(void)
{
    again_changed();
    again_clean();
    again_overlapping();
    again_over_code();
}

/* Code in the middle of what is overwritten. */
static void over_code(void)
{
    u8 *at = (u8 *)(RUN_TO_AT + 12 * PAGE + 100), *image = (u8 *)(RUN_FROM_AT + 12 * PAGE + 100);
    static const u8 gives_1[] = { 0xb8, 1, 0, 0, 0, 0xc3 }, gives_2[] = { 0xb8, 2, 0, 0, 0, 0xc3 };
    u32 wrong = 0;
    for (u32 round = 0; round < 40; round++) {
        copy(at, gives_1, sizeof(gives_1));
        for (u32 i = 0; i < 20; i++)
            wrong += ((u32(*)(void))(ulong)at)() != 1;
        copy(image, gives_2, sizeof(gives_2));
        TRY("rep movsb", .cx = RUN * PAGE, .si = RUN_FROM_AT, .di = RUN_TO_AT);
        wrong += ((u32(*)(void))(ulong)at)() != 2;
    }
    CHECK_EQ("run-over-code", wrong, 0);
}

/* Large pages, and from one into small ones behind it. */
static void large_pages(void)
{
    const ulong large = WIDE ? 0x200000 : 0x400000, va = HOLE + 0x4000000;
    map(&space, va, 0x2000000, PTE_RWU | PTE_PS, 2);
    for (u32 i = 0; i < 4; i++)
        map(&space, va + large + i * PAGE, 0x2800000 + 2 * i * PAGE, PTE_RWU, 1);
    map(&space, va + large + 4 * PAGE, 0, 0, 1);
    flush_tlb();
    fill((void *)0x2800000, 0, 8 * PAGE);
    u64 before = entry_get(&space, va, 2);
    struct trap t = PAGE_FAULT("large-stosb", TRY("rep stosb", .cx = 2 * large, .di = va + 5, .ax = 0x3c), 2,
                               va + large + 4 * PAGE);
    CHECK("large-stosb-registers", t.regs.cx == large + 5 - 4 * PAGE);
    CHECK("large-stosb-data", *(u8 *)0x2000005 == 0x3c && *(u8 *)(0x2000000 + large - 1) == 0x3c &&
                                  *(u8 *)0x2800000 == 0x3c && *(u8 *)0x2801000 == 0 &&
                                  *(u8 *)0x2806fff == 0x3c);
    CHECK("large-stosb-marks", !(before & PTE_D) && (entry_get(&space, va, 2) & PTE_D));
    map(&space, va, 0, 0, 2);
    invlpg((void *)(va + 17 * PAGE)); /* any address in it */
    PAGE_FAULT("large-invlpg", TRY("rep stosb", .cx = 9, .di = va + 30 * PAGE), 2, va + 30 * PAGE);
}

/* Stores from page to page, where a translator may look ahead. */
static void streams(void)
{
    u32 wrong = 0;
    for (u32 round = 0; round < 30; round++) {
        run_pages(PTE_A | PTE_D);
        for (u32 i = 30; i < RUN; i++)
            map(&space, RUN_TO + i * PAGE, scattered(RUN_TO_AT, i), PTE_RWU | (i < 34 ? PTE_A : 0), 1);
        flush_tlb();
        struct code loop = CODE("1: mov [" R(di) "], eax\n add " R(di) ", 4096\n sub ecx, 1\n jnz 1b");
        TRY_CODE(loop, .cx = 20, .di = RUN_TO, .ax = round + 1);
        wrong += marked(RUN_TO, 30, RUN - 30, PTE_D) != 0 || marked(RUN_TO, 34, RUN - 34, PTE_A) != 0;
        map(&space, RUN_TO + 25 * PAGE, scattered(RUN_TO_AT, 2), PTE_RWU | PTE_A | PTE_D, 1);
        invlpg((void *)(RUN_TO + 25 * PAGE));
        TRY_CODE(loop, .cx = 16, .di = RUN_TO + 20 * PAGE, .ax = 0x100 + round);
        wrong += *(u32 *)scattered(RUN_TO_AT, 2) != 0x100 + round || *(u32 *)scattered(RUN_TO_AT, 25) != 0;
        wrong += marked(RUN_TO, 30, 6, PTE_A | PTE_D) != 6 || marked(RUN_TO, 36, RUN - 36, PTE_A) != 0;
        map(&space, RUN_TO + 27 * PAGE, scattered(RUN_TO_AT, 27), PTE_P | PTE_U | PTE_A | PTE_D, 1);
        invlpg((void *)(RUN_TO + 27 * PAGE));
        struct trap t = TRY_CODE(loop, .cx = 20, .di = RUN_TO + 10 * PAGE, .ax = 1);
        wrong += t.vector != PF || t.cr2 != RUN_TO + 27 * PAGE || t.regs.cx != 3;
    }
    CHECK_EQ("stream-of-stores", wrong, 0);
}

/* ---- interrupts in the middle ---- */

static volatile u32 ticks, inside;
static struct code long_copy;

static void tick(struct frame *f)
{
    ticks++;
    if (f->ip == long_copy.mark)
        inside++;
    pic_eoi(0);
}

static void interrupted(void)
{
    /* a long REP STOS is interrupted between iterations and goes on (SDM 2B REP) */
    set_handler(IRQ_BASE, tick);
    pic_init();
    pit_periodic(2000);
    pic_mask(0xfffe);
    long_copy = CODE("8: rep stosb");
    volatile u8 *big = (volatile u8 *)0x2000000;
    struct trap t;
    u32 rounds = 0, wrong = 0;
    for (; rounds < 2000 && (ticks < 10 || !inside); rounds++) { /* some tenths of a second at least */
        big[0x800000 - 1] = 0, big[0x800000] = 0x55;
        t = TRY_CODE(long_copy, .cx = 0x800000, .di = (ulong)big, .ax = (u8)(rounds | 1), .flags = FLAG_IF);
        wrong += t.vector != VECTOR_DONE || t.regs.cx != 0 || big[0x800000 - 1] != (u8)(rounds | 1) ||
                 big[0x800000] != 0x55;
    }
    pic_mask(0xffff);
    pit_stop();
    CHECK_EQ("rep-with-interrupts", wrong, 0);
    CHECK("rep-is-interruptible", inside > 0);
}

static void devices(void)
{
    /* INS and OUTS; strings from and to a register in memory (the local APIC) */
    ulong d = (ulong)target;
    fill(target, 0x5a, 16);
    u8 keep = in8(0x61) & 0x0f;
    struct trap t = DONE("rep-insb", TRY("rep insb", .cx = 4, .di = d, .dx = 0x61));
    CHECK("rep-insb-data", (target[0] & 0x0f) == keep && (target[3] & 0x0f) == keep && target[4] == 0x5a &&
                               t.regs.di == d + 4);
    t = DONE("rep-outsb", TRY("rep outsb", .cx = 4, .si = d, .dx = 0x80));
    CHECK_EQ("rep-outsb-si", t.regs.si, d + 4);
    t = DONE("movsd-from-apic", TRY("movsd", .si = APIC_BASE + APIC_VERSION, .di = d));
    CHECK_EQ("movsd-from-apic-data", *(u32 *)target, apic_read(APIC_VERSION));
    t = DONE("lodsd-from-apic", TRY("lodsd", .si = APIC_BASE + APIC_VERSION));
    CHECK_EQ("lodsd-from-apic-data", (u32)t.regs.ax, apic_read(APIC_VERSION));
    *(u32 *)target = 0x30;
    DONE("movsd-to-apic", TRY("movsd", .si = d, .di = APIC_BASE + APIC_TPR));
    CHECK_EQ("movsd-to-apic-data", apic_read(APIC_TPR), 0x30);
    apic_write(APIC_TPR, 0);
    /* REP on what is no string instruction is ignored */
    t = DONE("rep-nop", TRY("mov ecx, 5\n .byte 0xf3, 0x90\n .byte 0xf3\n inc eax", .ax = 0));
    CHECK("rep-ignored", t.regs.cx == 5 && t.regs.ax == 1);
}

void guest_main(void)
{
    results();
    devices();
#if WIDE
    space = (struct space){ .mode = PAGING_LONG, .root = read_cr3() };
#else
    space = space_new(PAGING_32);
    write_cr4(read_cr4() | CR4_PSE);
    map_range(&space, 0, 0, 64ul << 20, PTE_RWU, 2);
    space_use(&space);
#endif
    map(&space, HOLE, 0, 0, 1);
    at_faults();
    restarts();
    many_pages();
    again();
    over_code();
    large_pages();
    streams();
#if !WIDE
    paging_off();
#endif
    interrupted();
}
