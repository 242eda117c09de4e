/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Returns that are not where a processor would predict them: deeper than it remembers, to somewhere else, on another stack, to code
 * that was changed or mapped anew since the call, in another address space. Each runs long enough to be predicted at first.
 */
#include "guest.h"

#define STACK_BYTES (64ul << 10)
static u8 ALIGNED(4096) stack[STACK_BYTES];
static u8 ALIGNED(4096) code[4][PAGE];
#if WIDE
#define ALIAS 0x200000000000ul
#else
#define ALIAS 0x80000000ul
#endif
/* Where another stack begins whose return addresses a table by stack pointers may take for those of the first one. */
#define OTHER_STACK "16384"

static ulong stack_top(void) { return (ulong)stack + STACK_BYTES - 64; }

#define RUN(text) TRY(text, .sp = stack_top())
#define RUN_USER(text) TRY_USER(text, .sp = stack_top())

/* Calls itself 1,500 times. */
#define DEEP \
    "mov ecx, 1500\n xor eax, eax\n call 1f\n jmp 3f\n" \
    "1: inc eax\n dec ecx\n jz 2f\n call 1b\n add eax, 1\n 2: ret\n 3:"
/* The callee goes back to another place: always, or each second time. */
#define MOVED \
    "mov ecx, 400\n xor eax, eax\n call 5f\n 5: pop " R( \
        bp) "\n" \
            "1: call 2f\n add eax, 1000\n jmp 4f\n" \
            "2: test ecx, 1\n jz 3f\n lea " R(dx) ", [" R(bp) " + 4f - 5b]\n mov [" R(sp) "], " R( \
                dx) "\n 3: ret\n" \
                    "4: inc eax\n dec ecx\n jnz 1b"
/* Without a call, and dropping what was pushed. */
#define PUSHED \
    "mov ecx, 300\n xor eax, eax\n call 5f\n 5: pop " R( \
        bp) "\n" \
            "1: lea " R(dx) ", [" R(bp) " + 2f - 5b]\n push " R( \
                dx) "\n ret\n ud2\n" \
                    "2: push 1\n push 2\n call 3f\n inc eax\n dec ecx\n jnz 1b\n jmp 4f\n" \
                    "3: ret 2 * " WORD_BYTES "\n 4:"
/* The callee calls on another stack. */
#define TWO_STACKS \
    "mov ecx, 300\n xor eax, eax\n xor esi, esi\n xor edi, edi\n" \
    "1: call 2f\n inc eax\n dec ecx\n jnz 1b\n jmp 9f\n" \
    "2: mov " R(dx) ", " R(sp) "\n lea " R(sp) ", [" R( \
        sp) " - " OTHER_STACK " + " WORD_BYTES "]\n call 3f\n" \
            "inc edi\n mov " R(sp) ", " R(dx) "\n ret\n" \
                                              "3: inc esi\n ret\n 9:"
#if WIDE
#define WORD_BYTES "8"
#else
#define WORD_BYTES "4"
#endif

static void plain(void)
{
    struct trap t = DONE("deep", RUN(DEEP));
    CHECK_EQ("deep-sum", t.regs.ax, 2999);
    t = DONE("deep-user", RUN_USER(DEEP));
    CHECK_EQ("deep-user-sum", t.regs.ax, 2999);
    t = DONE("moved", RUN(MOVED));
    CHECK_EQ("moved-sum", t.regs.ax, 400 + 200 * 1000);
    t = DONE("moved-user", RUN_USER(MOVED));
    CHECK_EQ("moved-user-sum", t.regs.ax, 400 + 200 * 1000);
    t = DONE("pushed", RUN(PUSHED));
    CHECK_EQ("pushed-sum", t.regs.ax, 300);
    CHECK_EQ("pushed-sp", t.regs.sp, stack_top());
    t = DONE("two-stacks", RUN(TWO_STACKS));
    CHECK("two-stacks-sums", t.regs.ax == 300 && t.regs.si == 300 && t.regs.di == 300);
    t = DONE("two-stacks-user", RUN_USER(TWO_STACKS));
    CHECK("two-stacks-user-sums", t.regs.ax == 300 && t.regs.si == 300 && t.regs.di == 300);
}

/* An address that differs from a predicted one in no bit that a processor has. */
static void nowhere(void)
{
#if WIDE
    struct trap t = FAULT("non-canonical",
                          RUN("mov ecx, 200\n 1: call 2f\n dec ecx\n jnz 1b\n ud2\n"
                              "2: cmp ecx, 1\n jne 3f\n btc qword ptr [rsp], 50\n 3: 8: ret"),
                          GP, 0);
    CHECK_EQ("non-canonical-sp", t.regs.sp, stack_top() - 8);
#endif
    struct trap to_zero = RUN(
        "mov ecx, 50\n 1: call 2f\n dec ecx\n jnz 1b\n jmp 4f\n"
        "2: ret\n 4: xor eax, eax\n push " R(ax) "\n call 5f\n 5: pop " R(
            dx) "\n"
                "add " R(dx) ", 6f - 5b\n mov [" R(sp) "], " R(dx) "\n ret\n ud2\n 6: nop");
    CHECK("empty-place", to_zero.vector == 0x81);
}

/* --- code that is made here --- */

static u8 *put8(u8 *p, u8 v)
{
    *p = v;
    return p + 1;
}
static u8 *put32(u8 *p, ulong v)
{
    for (u32 i = 0; i < 4; i++)
        p = put8(p, (u8)(v >> 8 * i));
    return p;
}
static u8 *put_call(u8 *p, long distance) { return put32(put8(p, 0xe8), (ulong)(distance - 5)); }
/* mov eax, value; ret */
static u8 *put_constant(u8 *p, u32 value) { return put8(put32(put8(p, 0xb8), value), 0xc3); }

static u32 call(ulong at) { return ((u32(*)(void))at)(); }

/* The callee writes over what its caller goes on with. */
static void rewritten(void)
{
    u8 *p = put_call(code[0] + 16, 64), *back = p;
    put_constant(p, 0);
    p = put8(put8(code[0] + 80, 0xff), 0x05); /* inc dword ptr [the constant] */
#if WIDE
    p = put32(p, (ulong)(back + 1 - (p + 4)));
#else
    p = put32(p, (ulong)(back + 1));
#endif
    put8(p, 0xc3);
    u32 wrong = 0;
    for (u32 i = 0; i < 300; i++)
        wrong += call((ulong)code[0] + 16) != i + 1;
    CHECK_EQ("rewritten", wrong, 0);
}

/* A call whose return address is the first one of the next page. */
static void at_the_edge(void)
{
    u8 *edge = code[0] + PAGE;
    put_call(edge - 5, 64);
    put_constant(edge, 5);
    put8(edge - 5 + 64, 0xc3);
    u32 wrong = 0;
    for (u32 i = 0; i < 300; i++)
        wrong += call((ulong)edge - 5) != 5;
    CHECK_EQ("edge", wrong, 0);
}

/* The caller's page at ALIAS is code[n], which calls back here and then gives n. */
static struct space spaces[2];
static volatile u32 page, how, turns;

static void show(u32 n) { entry_set(&spaces[0], ALIAS, 1, (ulong)code[n] | PTE_RWU); }

static void turn(void)
{
    if (++turns % 3 == 0)
        return;
    page ^= 1;
    if (how == 0) {
        show(page);
        invlpg((void *)ALIAS);
    } else if (how == 1) {
        show(page);
        write_cr3(spaces[0].root);
    } else {
        write_cr3(spaces[page].root);
    }
}

static void put_caller(u32 n)
{
    u8 *p = code[n];
#if WIDE
    static const u8 align[] = { 0x48, 0x83, 0xec, 0x08 }, even[] = { 0x48, 0x83, 0xc4, 0x08 };
#else
    static const u8 align[] = { 0x83, 0xec, 0x0c }, even[] = { 0x83, 0xc4, 0x0c };
#endif
    copy(p, align, sizeof(align));
    p = put32(put8(p + sizeof(align), 0xb8), (ulong)turn); /* guests lie below 4 GiB */
    p = put8(put8(p, 0xff), 0xd0);                         /* call eax */
    copy(p, even, sizeof(even));
    put_constant(p + sizeof(even), n);
}

static void make_spaces(void)
{
    for (u32 n = 0; n < 2; n++) {
        put_caller(n);
        spaces[n] = space_new(WIDE ? PAGING_LONG : PAGING_32);
#if WIDE
        copy((void *)spaces[n].root, (void *)read_cr3(), PAGE);
#else
        write_cr4(read_cr4() | CR4_PSE);
        map_range(&spaces[n], 0, 0, 64ul << 20, PTE_RWU, 2);
#endif
        map(&spaces[n], ALIAS, (ulong)code[n], PTE_RWU, 1);
    }
    space_use(&spaces[0]);
}

/* The code behind the call is another one when it returns. */
static void mapped_anew(void)
{
    static const char *const names[] = { "mapped-anew", "mapped-anew-all", "another-space" };
    make_spaces();
    for (how = 0; how < ARRAY_LEN(names); how++) {
        u32 wrong = 0;
        show(0);
        write_cr3(spaces[0].root);
        page = 0;
        for (u32 i = 0; i < 300; i++) {
            u32 got = call(ALIAS);
            wrong += got != page;
        }
        CHECK_EQ(names[how], wrong, 0);
    }
}

void guest_main(void)
{
    plain();
    nowhere();
    rewritten();
    at_the_edge();
    mapped_anew();
}
