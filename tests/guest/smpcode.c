/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processors that rewrite one another's code and page tables while they run. The command line says cpus=N.
 *
 * Every round has two halves with a barrier behind each: in the first each processor writes, in the second each runs what its
 * neighbour wrote. So every result is known exactly. Behind a barrier each serialises by CPUID, as the manual asks
 * of who runs code that another processor wrote (SDM 3A 8.1.3).
 */
#include "guest.h"

#define ROUNDS 24u
#define PAGE 4096ul

static u32 n;
static volatile u32 wrong[MAX_CPUS];
static u8 ALIGNED(4096) code[MAX_CPUS][2 * PAGE];

static u32 me(void) { return this_cpu()->index; }
static u32 neighbour(void) { return (me() + 1) % n; }

/* --- code --- */

typedef u32 function(void);
static u32 call(ulong at) { return ((function *)at)(); }

/* mov eax, value; ret */
static void put_constant(ulong at, u32 value)
{
    u8 bytes[6] = { 0xb8, (u8)value, (u8)(value >> 8), (u8)(value >> 16), (u8)(value >> 24), 0xc3 };
    copy((void *)at, bytes, 6);
}

/* mov ecx, 20; xor eax, eax; 7: add eax, value; dec ecx; jnz 7; ret. A loop, to be run from its second copy. */
static void put_loop(ulong at, u32 value)
{
    static const u8 bytes[] = {
        0xb9, 20, 0, 0, 0, 0x31, 0xc0, 0x05, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf7, 0xc3
    };
    copy((void *)at, bytes, sizeof(bytes));
    copy((void *)(at + 8), &value, 4);
}

static u32 value_for(u32 writer, u32 round) { return writer << 24 | round * 0x10203u; }

static void expect(u32 got, u32 want)
{
    if (got != want)
        wrong[me()]++;
}

static u32 all(void (*work)(void))
{
    u32 sum = 0;
    for (u32 i = 0; i < MAX_CPUS; i++)
        wrong[i] = 0;
    smp_all(work);
    for (u32 i = 0; i < MAX_CPUS; i++)
        sum += wrong[i];
    return sum;
}

/* Each writes the page that its neighbour before it has run many times. */
static void rewrite(void)
{
    ulong mine = (ulong)code[me()], theirs = (ulong)code[neighbour()];
    for (u32 r = 0; r < ROUNDS; r++) {
        u32 here = r * 37 % 200;
        put_constant(mine + here, value_for(me(), r));
        put_loop(mine + 512, r + me());
        put_constant(mine + PAGE - 3, value_for(me(), r)); /* over both pages */
        smp_meet();
        for (u32 i = 0; i < 20; i++) {
            expect(call(theirs + here), value_for(neighbour(), r));
            expect(call(theirs + 512), 20 * (r + neighbour()));
            expect(call(theirs + PAGE - 3), value_for(neighbour(), r));
        }
        smp_meet();
    }
}

/* All run one function while one of them, another each round, changes its immediate as a whole: each sees the old or the new
 * value, never again the old after the new, and the new one behind the barrier. */
static u32 ALIGNED(64) * shared_word;

static void racing(void)
{
    ulong at = (ulong)code[0] + 3; /* the immediate is aligned: its store is one access (8.1.1) */
    for (u32 r = 1; r <= ROUNDS; r++) {
        if (r % n == me()) {
            for (u32 i = 0; i < 50; i++)
                expect(call(at), r - 1);
            *(volatile u32 *)shared_word = r;
        } else {
            u32 last = r - 1;
            for (u32 i = 0; i < 100; i++) {
                cpuid(0, 0);
                u32 now = call(at);
                if (now < last || now > r)
                    wrong[me()]++;
                last = now;
            }
        }
        smp_meet();
        expect(call(at), r);
        smp_meet();
    }
}

/* --- mappings --- */

static struct space space;
#if WIDE
#define ALIAS 0x200000000000ul
#else
#define ALIAS 0x80000000ul
#endif
/* Each processor has windows of its own: two on its neighbour's code, one read-only; and one more whose page changes. */
static ulong window(u32 cpu, u32 i) { return ALIAS + (cpu * 4 + i) * PAGE; }

static void use_space(void) { space_use(&space); }

static void aliased(void)
{
    ulong run = window(me(), 1), write = window(me(), 0), plain = (ulong)code[neighbour()];
    for (u32 r = 0; r < ROUNDS; r++) {
        put_constant(r & 1 ? write : (ulong)code[neighbour()], value_for(me(), r));
        expect(call(run), value_for(me(), r)); /* one's own stores, at once (11.6) */
        smp_meet();
        /* whoever runs it at its own address: the writer was the one before */
        u32 before = (me() + n - 1) % n;
        for (u32 i = 0; i < 20; i++)
            expect(call((ulong)code[me()]), value_for(before, r));
        expect(call(plain), value_for(me(), r));
        smp_meet();
    }
}

/* A neighbour's window gets another page each round; who owns it drops the old translation. */
static void remapped(void)
{
    ulong mine = window(me(), 2), theirs = window(neighbour(), 2);
    put_constant((ulong)code[me()], me() + 100);
    put_constant((ulong)code[me()] + PAGE, me() + 200);
    smp_meet();
    for (u32 r = 0; r < ROUNDS; r++) {
        u32 whose = (neighbour() + r) % n;
        ulong page = (ulong)code[whose] + (r & 1 ? PAGE : 0);
        entry_set(&space, theirs, 1, page | PTE_RWU);
        smp_meet();
        if (r & 2)
            invlpg((void *)mine);
        else
            flush_tlb();
        u32 want = (me() + r) % n + (r & 1 ? 200 : 100);
        for (u32 i = 0; i < 20; i++)
            expect(call(mine), want);
        expect(*(volatile u32 *)(mine + 1), want); /* as data, too */
        smp_meet();
    }
}

/* Tables written through a window that another processor has open on code: a page is a table, then code, then a table. */
static u8 ALIGNED(4096) changing[MAX_CPUS][PAGE];

static void table_then_code(void)
{
    u8 *page = changing[me()];
    ulong va = ALIAS + (1ul << 30) + me() * (1ul << (WIDE ? 21 : 22));
    u64 level2 = (ulong)page | PTE_RWU;
    for (u32 r = 0; r < ROUNDS; r++) {
        ulong target = (ulong)code[neighbour()];
        fill(page, 0, PAGE);
        put_constant((ulong)code[me()] + 64, r + me());
        smp_meet();
        if (WIDE)
            ((u64 *)(ulong)page)[5] = target | PTE_RWU;
        else
            ((u32 *)(ulong)page)[5] = (u32)(target | PTE_RWU);
        entry_set(&space, va, 2, level2);
        flush_tlb();
        expect(call(va + 5 * PAGE + 64), r + neighbour());
        entry_set(&space, va, 2, 0);
        flush_tlb();
        smp_meet();
        put_constant((ulong)changing[neighbour()],
                     value_for(me(), r)); /* the table of another one becomes code */
        smp_meet();
        expect(call((ulong)page), value_for((me() + n - 1) % n, r));
        smp_meet();
    }
}

/* --- stores of many kinds, as a device's would come: not by who runs the code --- */

static void bulk(void)
{
    static u8 ALIGNED(4096) sources[MAX_CPUS][64];
    ulong target = (ulong)code[neighbour()] + 1024;
    u8 *source = sources[me()];
    for (u32 r = 0; r < ROUNDS; r++) {
        put_constant((ulong)source, value_for(me(), r));
        ulong si = (ulong)source, di = target, count = r & 1 ? 8 : 64 / sizeof(ulong);
        if (r & 1)
            asm volatile("rep movsb" : "+S"(si), "+D"(di), "+c"(count) : : "memory");
        else
            asm volatile("rep movs%z3" : "+S"(si), "+D"(di), "+c"(count) : "r"(target) : "memory");
        smp_meet();
        for (u32 i = 0; i < 20; i++)
            expect(call((ulong)code[me()] + 1024), value_for((me() + n - 1) % n, r));
        smp_meet();
        u32 one = 1;
        asm volatile("lock; xaddl %0, %1" : "+r"(one), "+m"(*(u32 *)(target + 1)) : : "memory");
        smp_meet();
        expect(call((ulong)code[me()] + 1024), value_for((me() + n - 1) % n, r) + 1);
        smp_meet();
    }
}

static void map_windows(void)
{
#if WIDE
    space = (struct space){ .mode = PAGING_LONG, .root = read_cr3() };
#else
    space = space_new(PAGING_32);
    write_cr4(read_cr4() | CR4_PSE);
    map_range(&space, 0, 0, 64ul << 20, PTE_RWU, 2);
    map_range(&space, APIC_BASE & ~0x3ffffful, APIC_BASE & ~0x3ffffful, 4ul << 20, PTE_RWU, 2);
#endif
    for (u32 i = 0; i < n; i++) {
        map(&space, window(i, 0), (ulong)code[(i + 1) % n], PTE_RWU, 1);
        map(&space, window(i, 1), (ulong)code[(i + 1) % n], PTE_P | PTE_U, 1);
        map(&space, window(i, 2), (ulong)code[i], PTE_RWU, 1);
        /* the way down to the entries that table_then_code() sets */
        map(&space, ALIAS + (1ul << 30) + i * (1ul << (WIDE ? 21 : 22)), 0, PTE_RWU, 1);
    }
}

#if !WIDE
static void enter_space(void)
{
    write_cr4(read_cr4() | CR4_PSE);
    use_space();
}
#endif

void guest_main(void)
{
    n = (u32)option("cpus", 2);
    if (n > 1 && smp_start(n) < n) {
        CHECK("processors-start", false);
        return;
    }
    put_constant((ulong)code[0] + 3, 0);
    shared_word = (u32 *)((ulong)code[0] + 4);
    CHECK_EQ("one-rewrites-all-run", all(racing), 0);
    CHECK_EQ("neighbours-code", all(rewrite), 0);
    CHECK_EQ("bulk-stores", all(bulk), 0);
    map_windows();
#if WIDE
    smp_all(use_space);
#else
    smp_all(enter_space);
#endif
    CHECK_EQ("aliased", all(aliased), 0);
    CHECK_EQ("remapped", all(remapped), 0);
    CHECK_EQ("table-then-code", all(table_then_code), 0);
#if !WIDE
    smp_all(paging_off);
#endif
}
