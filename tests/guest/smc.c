/* SPDX-License-Identifier: Apache-2.0 */
/* Code that changes itself: at once, behind jumps, over pages, through another mapping (SDM 3A 11.6,
 * 8.1.3). */
#include "guest.h"

static u8 ALIGNED(4096) code[3 * 4096];
typedef ulong function(void);

static void put(ulong at, const void *bytes, u32 n) { copy((void *)at, bytes, n); }

/* mov eax, value; ret */
static void put_constant(ulong at, u32 value)
{
    u8 bytes[6] = { 0xb8, (u8)value, (u8)(value >> 8), (u8)(value >> 16), (u8)(value >> 24), 0xc3 };
    put(at, bytes, 6);
}

static u32 call(ulong at) { return (u32)((function *)at)(); }

static void by_call(void)
{
    u32 wrong = 0;
    for (u32 i = 0; i < 2000; i++) {
        put_constant((ulong)code, i);
        wrong += call((ulong)code) != i;
    }
    CHECK_EQ("rewrite-then-call", wrong, 0);
    wrong = 0;
    for (u32 i = 0; i < 500; i++) {
        put_constant((ulong)code + i % 50, i);
        wrong += call((ulong)code + i % 50) != i;
    }
    CHECK_EQ("rewrite-shifted", wrong, 0);
    /* only the immediate; one byte of it */
    put_constant((ulong)code, 0);
    wrong = 0;
    for (u32 i = 0; i < 256; i++) {
        code[2] = (u8)i;
        barrier();
        wrong += call((ulong)code) != i << 8;
    }
    CHECK_EQ("rewrite-one-byte", wrong, 0);
    /* over a page boundary, either half changed */
    ulong edge = (ulong)code + 4096 - 3;
    wrong = 0;
    for (u32 i = 0; i < 300; i++) {
        put_constant(edge, i * 0x01010101);
        wrong += call(edge) != i * 0x01010101;
        *(volatile u8 *)(edge + 4) = 0x77; /* second page */
        wrong += (call(edge) >> 24) != 0x77;
        *(volatile u8 *)(edge + 1) = 0x55; /* first page */
        wrong += (call(edge) & 0xff) != 0x55;
    }
    CHECK_EQ("rewrite-over-pages", wrong, 0);
    /* data in the page of code that runs, without touching the code */
    put_constant((ulong)code, 7);
    volatile u32 *counter = (volatile u32 *)((ulong)code + 512);
    *counter = 0;
    for (u32 i = 0; i < 1000; i++)
        *counter += call((ulong)code);
    CHECK_EQ("data-beside-code", *counter, 7000);
}

static void same_stream(void)
{
    /* the very next instruction: on one processor the store is seen (11.6) */
    static const u8 stream[] = {
        0xc6, 0x03, 0x42, /* mov byte ptr [bx], 42h: the immediate below */
        0xb0, 0x00,       /* mov al, 0 */
        0x0f, 0xb6, 0xc0, /* movzx eax, al */
        0xc3,
    };
    u32 wrong = 0;
    for (u32 i = 0; i < 50; i++) {
        put((ulong)code + 16 * i, stream, sizeof(stream));
        ulong target = (ulong)code + 16 * i + 4, entry = (ulong)code + 16 * i;
        ulong result;
        asm volatile("call *%1" : "=a"(result) : "r"(entry), "b"(target) : "memory", "cc");
        wrong += (u32)result != 0x42;
    }
    CHECK_EQ("next-instruction", wrong, 0);
    /* a loop that increments its own immediate: 10 rounds of different code in one run */
    static const u8 looping[] = {
        0xb9, 10,   0, 0, 0, /* mov ecx, 10 */
        0x31, 0xd2,          /* xor edx, edx */
        0xb8, 1,    0, 0, 0, /* 7: mov eax, 1 */
        0x01, 0xc2,          /* add edx, eax */
        0xff, 0x03,          /* inc dword ptr [bx]: the immediate at 8 */
        0xff, 0xc9,          /* dec ecx */
        0x75, 0xf3,          /* jnz 7 */
        0x89, 0xd0,          /* mov eax, edx */
        0xc3,
    };
    put((ulong)code, looping, sizeof(looping));
    ulong sum, entry = (ulong)code;
    asm volatile("call *%1" : "=a"(sum) : "r"(entry), "b"((ulong)code + 8) : "memory", "cc", "ecx", "edx");
    CHECK_EQ("loop-rewrites-itself", (u32)sum, 55);
    /* REP STOS over the instructions behind it */
    fill(code, 0x90, 256);
    static const u8 stos[] = { 0xf3, 0xaa }; /* rep stosb, over what follows */
    put((ulong)code, stos, 2);
    code[2] = 0xf4; /* hlt: must be gone when we get there */
    code[64] = 0xc3;
    ulong a = 0x90, c = 20, d = (ulong)code + 2;
    asm volatile("call *%3" : "+a"(a), "+c"(c), "+D"(d) : "r"(entry) : "memory", "cc");
    CHECK_EQ("rep-stos-over-next", c, 0);
    /* ... and over itself: the count goes on to its end (each iteration is a boundary, but the bytes are
     * rewritten alike) */
    put((ulong)code, stos, 2);
    code[2] = 0xc3;
    a = 0xf3, c = 1, d = (ulong)code;
    asm volatile("call *%3" : "+a"(a), "+c"(c), "+D"(d) : "r"(entry) : "memory", "cc");
    CHECK_EQ("rep-stos-over-itself", c, 0);
    /* PUSH and CALL as the writers */
    put_constant((ulong)code, 1);
    ulong keep;
    static const u8 push_code[] = { 0xb8, 2, 0, 0, 0, 0xc3, 0x90, 0x90 };
    ulong word = 0;
    copy(&word, push_code, sizeof(ulong) < 8 ? 4 : 8);
    asm volatile("mov %%" R(sp) ", %0\n mov %1, %%" R(sp) "\n push %2\n mov %0, %%" R(sp)
                 : "=&r"(keep)
                 : "r"((ulong)code + sizeof(ulong)), "r"(word)
                 : "memory");
    CHECK_EQ("push-writes-code", call((ulong)code), 2);
    /* a locked and a bit instruction */
    put_constant((ulong)code, 0);
    asm volatile("lock; incl %0" : "+m"(*(u32 *)(code + 1)));
    asm volatile("btsl $4, %0" : "+m"(*(u32 *)(code + 1)));
    CHECK_EQ("lock-and-bts-write-code", call((ulong)code), 0x11);
    put_constant((ulong)code, 0);
    asm volatile("fninit; fld1; fistpl %0" : "=m"(*(u32 *)(code + 1)));
    CHECK_EQ("x87-writes-code", call((ulong)code), 1);
}

/* Calls and jumps to the next page, which is another one at each of two addresses of their own page, and is changed, too. */
static void to_next_page(struct space *s, ulong alias)
{
    static const u8 calls[] = { 0xe8, 0x0b, 0x10, 0, 0, 0xc3 }, jumps[] = { 0xe9, 0xeb, 0x0f, 0, 0 };
    const ulong other = alias + 0x10000;
    u32 wrong = 0;
    put((ulong)code, calls, sizeof(calls));
    put((ulong)code + 0x20, jumps, sizeof(jumps));
    put_constant((ulong)code + 4096 + 0x10, 1);
    put_constant((ulong)code + 8192 + 0x10, 2);
    map(s, alias, (ulong)code, PTE_RWU, 1);
    map(s, alias + 4096, (ulong)code + 4096, PTE_RWU, 1);
    map(s, other, (ulong)code, PTE_RWU, 1);
    map(s, other + 4096, (ulong)code + 8192, PTE_RWU, 1);
    flush_tlb();
    for (u32 i = 0; i < 400; i++) {
        ulong at = i & 4 ? other : alias;
        wrong += call(at) != (i & 4 ? 2 : 1);
        wrong += call(at + 0x20) != (i & 4 ? 2 : 1);
    }
    CHECK_EQ("next-page-by-address", wrong, 0);
    wrong = 0;
    for (u32 i = 0; i < 400; i++) {
        if (i % 4 == 0) {
            map(s, alias + 4096, (ulong)code + (i & 4 ? 8192 : 4096), PTE_RWU, 1);
            invlpg((void *)(alias + 4096));
        }
        wrong += call(alias) != (i & 4 ? 2 : 1);
        wrong += call(alias + 0x20) != (i & 4 ? 2 : 1);
    }
    CHECK_EQ("next-page-remapped", wrong, 0);
    wrong = 0;
    for (u32 i = 0; i < 400; i++) {
        if (i % 4 == 0)
            put_constant((ulong)code + 8192 + 0x10, i);
        wrong += call(other) != (i & ~3u);
        wrong += call(other + 0x20) != (i & ~3u);
    }
    CHECK_EQ("next-page-rewritten", wrong, 0);
}

static void through_mappings(void)
{
    /* the same page at two addresses: written through one, run through the other */
#if WIDE
    struct space s = { .mode = PAGING_LONG, .root = read_cr3() };
    const ulong alias = 0x200000000000;
#else
    struct space s = space_new(PAGING_32);
    write_cr4(read_cr4() | CR4_PSE);
    map_range(&s, 0, 0, 64ul << 20, PTE_RWU, 2);
    const ulong alias = 0x80000000;
#endif
    map(&s, alias, (ulong)code, PTE_RWU, 1);
    map(&s, alias + 4096, (ulong)code + 4096, PTE_RWU, 1);
    map(&s, alias + 8192, (ulong)code, PTE_P | PTE_U, 1);
    space_use(&s);
    u32 wrong = 0;
    for (u32 i = 0; i < 200; i++) {
        put_constant(alias, i);
        wrong += call((ulong)code) != i;
        put_constant((ulong)code, i + 1000);
        wrong += call(alias) != i + 1000;
        wrong += call(alias + 8192) != i + 1000; /* a read-only mapping */
    }
    CHECK_EQ("alias", wrong, 0);
    wrong = 0;
    for (u32 i = 0; i < 100; i++) {
        put_constant((ulong)code + 4093, i << 16 | i);
        wrong += call(alias + 4093) != (i << 16 | i);
    }
    CHECK_EQ("alias-over-pages", wrong, 0);
    /* the mapping itself changes under the same address */
    put_constant((ulong)code, 1);
    put_constant((ulong)code + 8192, 2);
    wrong = 0;
    for (u32 i = 0; i < 100; i++) {
        map(&s, alias, (ulong)code + (i & 1 ? 8192 : 0), PTE_RWU, 1);
        invlpg((void *)alias);
        wrong += call(alias) != (i & 1 ? 2 : 1);
    }
    CHECK_EQ("remapped-code", wrong, 0);
    /* a second page remapped under an instruction that crosses into it */
    static const u8 head[] = { 0xb8, 0x11, 0x22 };
    static const u8 tail1[] = { 0x33, 0x44, 0xc3 }, tail2[] = { 0x55, 0x66, 0xc3 };
    put((ulong)code + 4093, head, 3);
    put((ulong)code + 4096, tail1, 3);
    put((ulong)code + 8192, tail2, 3);
    map(&s, alias, (ulong)code, PTE_RWU, 1);
    wrong = 0;
    for (u32 i = 0; i < 100; i++) {
        map(&s, alias + 4096, (ulong)code + (i & 1 ? 8192 : 4096), PTE_RWU, 1);
        flush_tlb();
        wrong += call(alias + 4093) != (i & 1 ? 0x66552211u : 0x44332211u);
    }
    CHECK_EQ("remapped-second-page", wrong, 0);
    to_next_page(&s, alias);
    /* code becomes not executable, not present: seen at the next jump there */
    put_constant((ulong)code, 9);
    map(&s, alias, (ulong)code, PTE_RWU, 1);
    invlpg((void *)alias);
    call(alias);
    map(&s, alias, (ulong)code, 0, 1);
    invlpg((void *)alias);
    struct trap t = run_code((struct code){ alias, alias, alias + 5 }, (struct regs){ .ax = 0 });
    CHECK("code-unmapped", t.vector == PF && t.cr2 == alias && t.regs.ip == alias);
#if !WIDE
    paging_off();
#endif
}

static void by_user(void)
{
    /* CPL 3 rewrites its own code, and the kernel rewrites it in between */
    static const u8 stream[] = {
        0xc6, 0x03, 0x31, 0xb0, 0x00, 0xcd, VECTOR_DONE
    }; /* mov [bx], 31h; mov al, 0; int 81h */
    u32 wrong = 0;
    for (u32 i = 0; i < 50; i++) {
        put((ulong)code, stream, sizeof(stream));
        code[2] = (u8)i;
        struct code c = { (ulong)code, (ulong)code, (ulong)code + 5 };
        struct trap t = TRY_CODE(c, .cs = SEL_USER_CODE, .bx = (ulong)code + 4);
        wrong += t.vector != VECTOR_DONE || (t.regs.ax & 0xff) != i;
    }
    CHECK_EQ("user-rewrites", wrong, 0);
}

/* ---- cross-modifying code (8.1.3): the other processor waits, then runs what was written ---- */

static volatile u32 turn, cross_wrong;

static void other_side(void)
{
    for (u32 i = 1; i <= 60; i++) {
        while (turn != 2 * i - 1)
            cpu_pause();
        cpuid(0, 0); /* serialise */
        if (call((ulong)code) != i)
            cross_wrong++;
        turn = 2 * i;
    }
}

static void cross_modifying(void)
{
    if (smp_start(2) < 2) {
        check_skip("cross-modifying", "one processor");
        return;
    }
    turn = 0;
    smp_run(1, other_side);
    for (u32 i = 1; i <= 60; i++) {
        put_constant((ulong)code, i);
        turn = 2 * i - 1;
        while (turn != 2 * i)
            cpu_pause();
    }
    smp_wait(1);
    CHECK_EQ("cross-modifying", cross_wrong, 0);
}

void guest_main(void)
{
    by_call();
    same_stream();
    by_user();
    through_mappings();
    cross_modifying();
}
