/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that attacks what a translator of its code may get wrong: addresses at the edges of displacements, pages, rights and
 * of the address space, more accesses than anyone keeps notes of, registers that code made for it uses in secret.
 * What must happen is what the manual says; that the machine is still there at the end is the other half.
 */
#include "guest.h"

#define USER_ALIAS 0x40000000ul /* the low 64 MiB again, open to user mode */
#define DATA 0x1800000ul        /* physical pages for the tests, identity mapped for the supervisor */
#define OTHER (DATA + 0x10000)
#if WIDE
#define TEST 0x123480000000ul
#else
#define TEST 0x80000000ul
#endif
#define PATTERN ((ulong)0x1122334455667788ull)

static struct space space;

static void page(ulong va, u64 pa, u64 flags)
{
    map(&space, va, pa, flags, 1);
    invlpg((void *)va);
}

/* Often enough that every engine has made of it what it makes of hot code. */
static struct trap hot(struct code code, struct regs in)
{
    struct trap t;
    for (u32 i = 0; i < 12; i++)
        t = run_code(code, in);
    return t;
}
#define HOT(text, ...) hot(CODE(text), (struct regs){ __VA_ARGS__ })

static struct code alias(struct code c)
{
    return (struct code){ c.start + USER_ALIAS, c.mark + USER_ALIAS, c.end + USER_ALIAS };
}
#define HOT_USER(text, ...) \
    hot(alias(CODE(text)), \
        (struct regs){ .cs = SEL_USER_CODE, .sp = (ulong)user_stack_top + USER_ALIAS, __VA_ARGS__ })

/* A pointer whose origin the compiler does not know: address 0 is memory like any other here. */
static void *at_address(ulong address)
{
    asm("" : "+r"(address));
    return (void *)address;
}
static ulong word_at(ulong address) { return *(volatile ulong *)at_address(address); }
static void put_word(ulong address, ulong value) { *(volatile ulong *)at_address(address) = value; }

/* ---- more kinds of addresses than anyone keeps notes of ---- */

#if WIDE
#define MANY \
    "test byte ptr [rax], 1\n test byte ptr [rbx], 1\n test byte ptr [rcx], 1\n test byte ptr [rdx], 1\n" \
    "test byte ptr [rsi], 1\n test byte ptr [rdi], 1\n test byte ptr [rbp], 1\n test byte ptr [r8], 1\n" \
    "test byte ptr [r9], 1\n test byte ptr [r10], 1\n test byte ptr [r11], 1\n test byte ptr [r12], 1\n" \
    "test byte ptr [r13], 1\n test byte ptr [r14], 1\n test byte ptr [r15], 1\n test byte ptr [rip], 1\n"
#define MANY_REGISTERS(at) \
    .bx = at, .cx = at, .dx = at, .si = at, .di = at, .bp = at, .r8 = at, .r9 = at, .r10 = at, .r11 = at, \
    .r12 = at, .r13 = at, .r14 = at, .r15 = at
#else
#define MANY \
    "test byte ptr [eax], 1\n test byte ptr [ebx], 1\n test byte ptr [ecx], 1\n test byte ptr [edx], 1\n" \
    "test byte ptr [esi], 1\n test byte ptr [edi + ebp], 1\n test byte ptr [eax + ebp*2], 1\n test byte " \
    "ptr [ebx + ebp*2], 1\n" \
    "test byte ptr [ecx + ebp*2], 1\n test byte ptr [edx + ebp*2], 1\n test byte ptr [esi + ebp*2], 1\n" \
    "test byte ptr [edi + ebp*2], 1\n test byte ptr [eax + ebp*4], 1\n test byte ptr [ebx + ebp*4], 1\n" \
    "test byte ptr [ecx + ebp*4], 1\n test byte ptr [edx + ebp*4], 1\n"
#define MANY_REGISTERS(at) .bx = at, .cx = at, .dx = at, .si = at, .di = at, .bp = 0
#endif

static void many_addresses(void)
{
    const ulong w = sizeof(ulong), sp = TEST + 0x100;
    page(TEST, OTHER, PTE_RWU);
    put_word(DATA, PATTERN);
    put_word(OTHER + 0x100 - w, 0);
    struct trap t = HOT(MANY "8: push [" R(ax) "]", .ax = DATA, .sp = sp, MANY_REGISTERS(DATA));
    check_done("many-push", &t);
    CHECK_EQ("many-push-stack", word_at(OTHER + 0x100 - w), PATTERN);
    CHECK_EQ("many-push-sp", t.regs.sp, sp - w);
    put_word(OTHER + 0x100 - w, 0);
    t = HOT(MANY "8: push [eax]", .ax = DATA, .sp = sp, MANY_REGISTERS(DATA));
    check_done("many-push-32", &t);
    CHECK_EQ("many-push-32-stack", word_at(OTHER + 0x100 - w), PATTERN);
    /* CALL through memory; what is called ends the snippet */
    struct code c = CODE(MANY "8: call [" R(ax) "]\n nop");
    put_word(DATA, c.end);
    put_word(OTHER + 0x100 - w, 0);
    t = hot(c, (struct regs){ .ax = DATA, .sp = sp, MANY_REGISTERS(DATA) });
    check_done("many-call", &t);
    CHECK_EQ("many-call-return", word_at(OTHER + 0x100 - w), c.end - 1);
    /* and where the stack may not be written */
    const ulong user = DATA + USER_ALIAS;
    c = alias(CODE(MANY "8: push [" R(ax) "]"));
    struct regs in = { .ax = user, .sp = sp, .cs = SEL_USER_CODE, MANY_REGISTERS(user) };
    page(TEST, OTHER, PTE_P | PTE_U);
    PAGE_FAULT("many-push-read-only", hot(c, in), 7, sp - w);
    page(TEST, OTHER, PTE_P | PTE_W);
    PAGE_FAULT("many-push-supervisor", hot(c, in), 7, sp - w);
    page(TEST, 0, 0);
    PAGE_FAULT("many-push-hole", hot(c, in), 6, sp - w);
    page(TEST, OTHER, PTE_RWU);
}

/* ---- displacements at the ends of their 32 bits ---- */

#if WIDE

#define GIB4 (1ul << 32)

/* The page 4 GiB away was used just before: who counts in 32 bits takes it for the right one. */
#define FAR_ACCESS(name, disp, text, ...) \
    ({ \
        fill((void *)DATA, 0x5a, PAGE), fill((void *)OTHER, 0xc3, PAGE); \
        put_word(DATA + 0x100, PATTERN); \
        struct trap t_ = HOT("mov rcx, [rsi]\n mov rcx, [rdi]\n 8: " text, \
                             .bx = TEST + 0x100 - (ulong)(long)(disp), .si = TEST - GIB4 + 0x100, \
                             .di = TEST + GIB4 + 0x100, __VA_ARGS__); \
        check_done(name, &t_); \
        t_; \
    })

static void far_displacements(void)
{
    page(TEST, DATA, PTE_RWU);
    page(TEST - GIB4, OTHER, PTE_RWU);
    page(TEST + GIB4, OTHER, PTE_RWU);
    struct trap t = FAR_ACCESS("disp-max-read", 0x7fffffff, "mov rax, [rbx + 0x7fffffff]", .ax = 0);
    CHECK_EQ("disp-max-read-value", t.regs.ax, PATTERN);
    t = FAR_ACCESS("disp-max-read-4", 0x7ffffffe, "mov eax, [rbx + 0x7ffffffe]", .ax = 0);
    CHECK_EQ("disp-max-read-4-value", t.regs.ax, (u32)PATTERN);
    t = FAR_ACCESS("disp-max-write", 0x7ffffffc, "mov [rbx + 0x7ffffffc], rax", .ax = 77);
    CHECK_EQ("disp-max-write-value", word_at(DATA + 0x100), 77);
    t = FAR_ACCESS("disp-max-index", 0x7ffffffd, "mov rax, [rbx + rdx*8 + 0x7ffffffd]", .dx = 0);
    CHECK_EQ("disp-max-index-value", t.regs.ax, PATTERN);
    t = FAR_ACCESS("disp-min-read", -0x80000000l, "mov rax, [rbx - 0x80000000]", .ax = 0);
    CHECK_EQ("disp-min-read-value", t.regs.ax, PATTERN);
    /* several accesses at a distance, the first of them at the end */
    t = FAR_ACCESS("disp-min-merged", -0x80000000l,
                   "mov rax, [rbx - 0x80000000]\n sub rbx, 8\n mov rdx, [rbx - 0x80000000]", .ax = 0);
    CHECK("disp-min-merged-values", t.regs.ax == PATTERN && t.regs.dx == 0x5a5a5a5a5a5a5a5a);
    t = FAR_ACCESS("disp-max-merged", 0x7ffffff8,
                   "mov rax, [rbx + 0x7ffffff8]\n add rbx, 16\n mov rdx, [rbx + 0x7ffffff8]", .ax = 0);
    CHECK("disp-max-merged-values", t.regs.ax == PATTERN && t.regs.dx == 0x5a5a5a5a5a5a5a5a);
    t = FAR_ACCESS("disp-max-push", 0x7ffffffc, "push [rbx + 0x7ffffffc]", .ax = 0);
    CHECK_EQ("disp-max-push-value", word_at(t.regs.sp), PATTERN);
    /* relative to RIP, over the sign */
    struct code c = CODE("mov rax, [rip + 0x7ffffffc]\n mov rcx, [rip - 0x80000000]");
    ulong up = c.start + 7 + 0x7ffffffc, down = c.start + 14 - 0x80000000;
    page(up & -PAGE, DATA, PTE_RWU);
    page((up & -PAGE) + PAGE, DATA + PAGE, PTE_RWU);
    page(down & -PAGE, OTHER, PTE_RWU);
    page((down & -PAGE) + PAGE, OTHER + PAGE, PTE_RWU);
    fill((void *)DATA, 0x5a, 2 * PAGE), fill((void *)OTHER, 0xc3, 2 * PAGE);
    t = hot(c, (struct regs){ .ax = 0 });
    check_done("disp-rip", &t);
    CHECK("disp-rip-values", t.regs.ax == 0x5a5a5a5a5a5a5a5a && t.regs.cx == 0xc3c3c3c3c3c3c3c3);
}

#endif

#if WIDE

/* Absolute addresses of 64 bits behind a segment's base, one after the other. */
static void far_moffs(void)
{
    page(TEST, DATA, PTE_RWU);
    fill((void *)DATA, 0x5a, PAGE);
    put_word(DATA + 0x108, PATTERN);
    u64 base = rdmsr(MSR_FS_BASE);
    wrmsr(MSR_FS_BASE, TEST - 0x4000000000);
    struct trap t = HOT(
        "movabs rax, fs:[0x4000000100]\n movabs rax, fs:[0x4000000108]\n movabs fs:[0x4000000110], rax");
    wrmsr(MSR_FS_BASE, base);
    check_done("moffs-fs", &t);
    CHECK("moffs-fs-values", t.regs.ax == PATTERN && word_at(DATA + 0x110) == PATTERN);
}

#endif

/* ---- two pages of different rights ---- */

enum edge_kind { READ, WRITE, CHANGE };

struct edge_case {
    const char *name;
    struct code code;
    u32 bytes;
    enum edge_kind kind;
    bool stack;
};

/* Every access that reaches over the edge by one byte and more faults with the far page's address and changes nothing. */
static u32 edge_wrong(const struct edge_case *e, ulong edge, bool user, u64 near_pa)
{
    u32 wrong = 0;
    for (u32 into = 1; into < e->bytes; into++) {
        ulong at = edge - e->bytes + into;
        struct regs in = { .bx = at, .ax = 0x11, .cx = 0x22, .dx = 0x33 };
        if (e->stack)
            in.sp = e->kind == WRITE ? at + e->bytes : at;
        struct code c = e->code;
        if (user) {
            in.cs = SEL_USER_CODE;
            in.sp = in.sp ? in.sp : (ulong)user_stack_top + USER_ALIAS;
            c = alias(c);
        }
        fill((void *)(ulong)near_pa, 0xa5, PAGE), fill((void *)(ulong)(near_pa + PAGE), 0xa5, PAGE);
        struct trap t = hot(c, in);
        ulong error = (user ? 4 : 0) | (e->kind == READ ? 0 : 2) | (user ? 1 : 0);
        bool same = true;
        for (u32 i = 0; i < 2 * PAGE; i++)
            same = same && ((volatile u8 *)(ulong)near_pa)[i] == 0xa5;
        if (!(t.vector == PF && t.cr2 == edge && t.error == error && t.off == 0 && same &&
              t.regs.ax == 0x11) &&
            !wrong++)
            print("# %s, %d bytes in: vector %lu error %lx cr2 %lx off %ld\n", e->name, into, t.vector,
                  t.error, t.cr2, t.off);
    }
    return wrong;
}

static void edges(void)
{
    const ulong w = sizeof(ulong), edge = TEST + PAGE;
    const struct edge_case cases[] = {
        { "mov-16", CODE("mov dx, [" R(bx) "]"), 2, READ, false },
        { "mov-32", CODE("mov edx, [" R(bx) "]"), 4, READ, false },
        { "mov-word", CODE("mov " R(dx) ", [" R(bx) "]"), w, READ, false },
        { "store-16", CODE("mov [" R(bx) "], dx"), 2, WRITE, false },
        { "store-32", CODE("mov [" R(bx) "], edx"), 4, WRITE, false },
        { "store-word", CODE("mov [" R(bx) "], " R(dx)), w, WRITE, false },
        { "add", CODE("add [" R(bx) "], " R(dx)), w, CHANGE, false },
        { "lock-xadd", CODE("lock xadd [" R(bx) "], edx"), 4, CHANGE, false },
        { "xchg", CODE("xchg [" R(bx) "], " R(dx)), w, CHANGE, false },
        { "cmpxchg8b", CODE("cmpxchg8b [" R(bx) "]"), 8, CHANGE, false },
        { "movzx", CODE("movzx edx, word ptr [" R(bx) "]"), 2, READ, false },
        { "push", CODE("push " R(dx)), w, WRITE, true },
        { "push-imm", CODE("push 5"), w, WRITE, true },
        { "pop", CODE("pop " R(dx)), w, READ, true },
        { "ret", CODE("ret"), w, READ, true },
        { "call", CODE("call 1f\n 1: nop"), w, WRITE, true },
        { "call-register", CODE("call " R(dx)), w, WRITE, true },
        /* the first access stays on the near page: a check for both must not stop it nor let the second through */
        { "second-of-two", CODE("mov " R(si) ", [" R(bx) " - 32]\n 8: mov " R(dx) ", [" R(bx) "]"), w, READ,
          false },
        { "store-behind-load", CODE("mov " R(si) ", [" R(bx) " - 32]\n 8: mov [" R(bx) "], " R(dx)), w, WRITE,
          false },
    };
    page(TEST, DATA, PTE_RWU);
    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        static char name[2][ARRAY_LEN(cases)][40];
        const char *parts[2] = { "edge-user-", "edge-hole-" };
        for (u32 user = cases[i].stack; user < 2;
             user++) { /* a supervisor's stack has to be there for the fault */
            /* user mode: the far page belongs to the supervisor; supervisor: there is no far page */
            page(edge, DATA + PAGE, user ? PTE_P | PTE_W : 0);
            if (user)
                TRY("mov al, [" R(bx) "]\n mov [" R(bx) "], al",
                    .bx = edge); /* the supervisor's translation is at hand */
            char *p = name[user][i];
            for (const char *s = parts[!user]; *s; s++)
                *p++ = *s;
            for (const char *s = cases[i].name; *s; s++)
                *p++ = *s;
            CHECK_EQ(name[user][i], edge_wrong(&cases[i], edge, user, DATA), 0);
        }
    }
}

/* The same page, first the supervisor's, then the user's turn, and back: no right may be left over from the other. */
static void turns(void)
{
    page(TEST, DATA, PTE_P | PTE_W);
    u32 wrong = 0;
    struct code c = CODE("mov eax, [" R(bx) "]\n mov [" R(bx) " + 8], eax");
    for (u32 i = 0; i < 40; i++) {
        struct trap s = run_code(c, (struct regs){ .bx = TEST });
        struct trap u = run_code(
            alias(c),
            (struct regs){ .cs = SEL_USER_CODE, .sp = (ulong)user_stack_top + USER_ALIAS, .bx = TEST });
        wrong += s.vector != VECTOR_DONE || u.vector != PF || u.error != 5 || u.cr2 != TEST;
    }
    CHECK_EQ("turns-data", wrong, 0);
    /* fetches: a supervisor's page that is hot, called from user mode at the same address */
    ((volatile u8 *)DATA)[0] = 0xcd;
    ((volatile u8 *)DATA)[1] = VECTOR_DONE;
    wrong = 0;
    c = CODE("jmp " R(bx));
    for (u32 i = 0; i < 40; i++) {
        struct trap s = run_code(c, (struct regs){ .bx = TEST });
        struct trap u = run_code(
            alias(c),
            (struct regs){ .cs = SEL_USER_CODE, .sp = (ulong)user_stack_top + USER_ALIAS, .bx = TEST });
        wrong += s.vector != VECTOR_DONE || u.vector != PF || (u.error & ~0x10ul) != 5 || u.cr2 != TEST;
    }
    CHECK_EQ("turns-fetch", wrong, 0);
    /* a page under running code taken from the user */
    page(TEST, DATA, PTE_P | PTE_W | PTE_U);
    struct trap t = HOT_USER("jmp " R(bx), .bx = TEST);
    CHECK_EQ("user-code", t.vector, VECTOR_DONE);
    page(TEST, DATA, PTE_P | PTE_W);
    t = HOT_USER("jmp " R(bx), .bx = TEST);
    CHECK("user-code-taken", t.vector == PF && (t.error & ~0x10ul) == 5 && t.cr2 == TEST);
}

/* ---- writes that do not come ---- */

/* A page is marked written by a write alone, not by what mostly comes later (SDM 3A 4.8). A call to nowhere writes nothing; it
 * may have asked for the right to. */
static void unwritten(void)
{
    /* not a page that held code: every write there is looked at */
    const ulong hole = TEST + PAGE, base = TEST + 0x100, clean = DATA + 0x20000;
    /* some page that may be written is at hand */
#define WRITER "push " R(ax) "\n pop " R(ax) "\n"
    struct {
        const char *name;
        struct code code;
        ulong vector;
    } cases[] = {
        { "clean-branch",
          CODE(WRITER
               "mov " R(ax) ", [" R(bx) "]\n cmp " R(ax) ", 5\n je 1f\n mov [" R(bx) " + 8], " R(ax) "\n1:"),
          VECTOR_DONE },
        { "clean-fault",
          CODE(WRITER "mov " R(ax) ", [" R(bx) "]\n mov cl, [" R(si) "]\n mov [" R(bx) " + 8], " R(ax)), PF },
        { "clean-push", CODE(WRITER "mov " R(sp) ", " R(bx) "\n push [" R(si) "]"), PF },
        { "clean-call", CODE(WRITER "mov " R(sp) ", " R(bx) "\n call [" R(si) "]"), PF },
#if WIDE
        { "clean-call-nowhere", CODE(WRITER "mov rsp, rbx\n call rdi"), GP },
        { "clean-call-far", CODE(WRITER "mov rsp, rbx\n jmp rdx"), GP },
#endif
    };
    page(hole, 0, 0);
    fill((void *)OTHER, 0x90, PAGE);
#if WIDE
    /* at the end of the lower half: a call beyond it */
    static const u8 call[] = { 0xe8, 0, 0x10, 0, 0 };
    const ulong top = 0x800000000000ul - PAGE;
    page(top, OTHER, PTE_P | PTE_U);
    copy((void *)(OTHER + 0x40), call, sizeof(call));
#else
    const ulong top = 0;
#endif
    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        u32 wrong = 0;
        for (u32 round = 0; round < 40; round++) {
            fill((void *)clean, 0, PAGE);
            put_word(clean + 0x100, 5);
            page(TEST, clean, PTE_RWU);
            struct trap t = run_code(alias(cases[i].code),
                                     (struct regs){ .cs = SEL_USER_CODE,
                                                    .sp = (ulong)user_stack_top + USER_ALIAS,
                                                    .bx = base,
                                                    .si = hole,
                                                    .di = TEST ^ 1ul << (WIDE ? 47 : 0),
                                                    .dx = top + 0x40 });
            bool same = true;
            for (ulong at = 0; at < PAGE; at += sizeof(ulong))
                same = same && word_at(clean + at) == (at == 0x100 ? 5 : 0);
            wrong += t.vector != cases[i].vector || !same ||
                     (t.vector != GP && entry_get(&space, TEST, 1) & PTE_D);
        }
        CHECK_EQ(cases[i].name, wrong, 0);
    }
    page(TEST, DATA, PTE_RWU);
}

/* ---- translations that moved, rights that come and go ---- */

/* A loop that jumps back before its first access: what was known of that access an address space ago does not count. */
static void moved(void)
{
    const ulong one = DATA + 0x20000, two = DATA + 0x21000;
    put_word(one, 1), put_word(two, 0x10000);
    struct code c = alias(CODE(WRITER
                               "xor edx, edx\n jmp 1f\n .p2align 4\n 1: sub ecx, 1\n test cl, 1\n jnz 1b\n"
                               "mov " R(si) ", " R(bx) "\n and " R(si) ", -1\n mov eax, [" R(
                                   si) "]\n add edx, eax\n cmp ecx, 0\n jne 1b\n jmp 2f\n 2:"));
    u32 wrong = 0;
    for (u32 round = 0; round < 60; round++) {
        bool second = round / 3 & 1;
        page(TEST, second ? two : one, PTE_RWU);
        struct trap t = run_code(
            c, (struct regs){
                   .cs = SEL_USER_CODE, .sp = (ulong)user_stack_top + USER_ALIAS, .bx = TEST, .cx = 40 });
        wrong += t.vector != VECTOR_DONE || (u32)t.regs.dx != 20 * (second ? 0x10000 : 1);
    }
    CHECK_EQ("moved-between-loops", wrong, 0);
    page(TEST, DATA, PTE_RWU);
}

/* SMAP: EFLAGS.AC is a right that changes between two instructions. SDM 3A 4.6.1 */
static void access_control(void)
{
    if (!has(F_SMAP)) {
        check_skip("access-control", "no SMAP");
        return;
    }
    const ulong clean = DATA + 0x20000, cr4 = read_cr4();
    page(TEST, clean, PTE_RWU);
    put_word(clean, 1);
    write_cr4(cr4 | CR4_SMAP);
    struct code behind = CODE("stac\n mov eax, [" R(bx) "]\n clac\n 8: mov ecx, [" R(bx) "]"),
                before = CODE("8: mov eax, [" R(bx) "]\n stac\n mov ecx, [" R(bx) "]\n clac"),
                within = CODE("stac\n 1: add eax, [" R(bx) "]\n sub ecx, 1\n jnz 1b\n clac"),
                by_turns = CODE("1: stac\n add eax, [" R(bx) "]\n clac\n sub ecx, 1\n jnz 1b");
    u32 wrong[4] = { 0 };
    for (u32 round = 0; round < 40; round++) {
        struct trap t = TRY_CODE(behind, .bx = TEST);
        wrong[0] += t.vector != PF || t.error != 1 || t.off || t.regs.ax != 1;
        t = TRY_CODE(before, .bx = TEST, .cx = 5);
        wrong[1] += t.vector != PF || t.error != 1 || t.off || t.regs.cx != 5;
        t = TRY_CODE(within, .bx = TEST, .cx = 30);
        wrong[2] += t.vector != VECTOR_DONE || t.regs.ax != 30;
        t = TRY_CODE(by_turns, .bx = TEST, .cx = 30);
        wrong[3] += t.vector != VECTOR_DONE || t.regs.ax != 30;
    }
    write_cr4(cr4);
    CHECK_EQ("access-behind-clac", wrong[0], 0);
    CHECK_EQ("access-before-stac", wrong[1], 0);
    CHECK_EQ("access-in-a-loop", wrong[2], 0);
    CHECK_EQ("access-by-turns", wrong[3], 0);
    page(TEST, DATA, PTE_RWU);
}

/* ---- the ends of the address space ---- */

#if WIDE

static void non_canonical(void)
{
    /* Each of the 17 bits that must be equal, flipped alone, while the page itself was used just before. */
    page(TEST, DATA, PTE_RWU);
    u32 wrong = 0;
    struct code read = CODE("mov rcx, [rsi]\n 8: mov rax, [rbx]"),
                write = CODE("mov [rsi], rcx\n 8: mov [rbx], rax");
    struct code push = CODE("mov rcx, [rsi]\n mov rsp, rbx\n 8: push rax"),
                jump = CODE("mov rcx, [rsi]\n jmp rbx");
    for (u32 bit = 47; bit < 64; bit++) {
        struct regs in = {
            .bx = TEST ^ 1ul << bit, .si = TEST, .cs = SEL_USER_CODE, .sp = (ulong)user_stack_top + USER_ALIAS
        };
        struct trap t = hot(alias(read), in);
        wrong += t.vector != GP || t.error || t.off;
        t = hot(alias(write), in);
        wrong += t.vector != GP || t.error || t.off;
        in.bx += 64;
        t = hot(alias(push), in);
        wrong += t.vector != SS || t.error || t.off;
        t = hot(alias(jump), in);
        wrong += t.vector != GP || t.error;
    }
    CHECK_EQ("non-canonical-bits", wrong, 0);
    /* over the last canonical byte, both pages' slots in use */
    const ulong hole = 0x800000000000ul;
    page(hole - PAGE, DATA, PTE_RWU);
    wrong = 0;
    for (u32 into = 1; into < 8; into++) {
        struct trap t = HOT("mov rcx, [rsi]\n 8: mov rax, [rbx]", .bx = hole - 8 + into, .si = hole - 16);
        wrong += t.vector != GP || t.error || t.off;
    }
    CHECK_EQ("non-canonical-edge", wrong, 0);
    DONE("canonical-last", HOT("mov rax, [rbx]", .bx = hole - 8));
    /* code that runs into the hole */
    fill((void *)DATA, 0x90, PAGE);
    struct trap t = HOT("jmp rbx", .bx = hole - 64);
    CHECK("non-canonical-fall", t.vector == GP && !t.error && t.regs.ip == hole);
    /* CALL to it: the address is refused before or after the push, never followed */
    t = HOT("mov rcx, [rsi]\n 8: call rbx", .bx = TEST ^ 1ul << 47, .si = TEST);
    CHECK("non-canonical-call", t.vector == GP && !t.error && t.off == 0);
}

static void wrapped(void)
{
    /* SDM 1 3.3.7.1: an access over the end of the address space goes on at 0 */
    page(-PAGE, DATA, PTE_RWU);
    volatile u64 *low_table = (volatile u64 *)page_alloc();
    for (u32 i = 0; i < 512; i++)
        low_table[i] = i * PAGE | PTE_P | PTE_W;
    entry_set(&space, 0, 2, (ulong)low_table | PTE_RWU);
    flush_tlb();
    ulong low = word_at(0);
    fill((void *)DATA, 0xa5, PAGE);
    struct trap t = HOT("mov [rbx], rax\n mov rcx, [rbx]", .bx = -4ul, .ax = PATTERN);
    check_done("wrap-end", &t);
    CHECK("wrap-end-values", t.regs.cx == PATTERN && *(volatile u32 *)(DATA + PAGE - 4) == (u32)PATTERN &&
                                 *(volatile u32 *)at_address(0) == (u32)(PATTERN >> 32));
    put_word(0, low);
    page(0, 0, 0);
    PAGE_FAULT("wrap-end-hole", HOT("mov [rbx], rax", .bx = -4ul), 2, 0);
    page(0, 0, PTE_RWU);
    /* sums that wrap */
    t = HOT("mov rax, [rbx - 16]", .bx = 8);
    check_done("wrap-sum", &t);
    CHECK_EQ("wrap-sum-value", t.regs.ax, PATTERN << 32 | 0xa5a5a5a5);
    put_word(0x1f8, PATTERN);
    t = HOT("mov rax, [rbx + rcx*8 + 8]", .bx = 0x200, .cx = -2ul);
    CHECK_EQ("wrap-index", t.regs.ax, PATTERN);
    /* 32-bit addresses in 64-bit code: the sum wraps at 4 GiB, the registers' upper halves do not count */
    page(GIB4, OTHER, PTE_RWU);
    fill((void *)OTHER, 0xc3, PAGE);
    t = HOT("mov rdx, [rsi]\n mov rax, [ebx + 0x300]", .bx = PATTERN << 32 | 0xfffffef8, .si = GIB4);
    check_done("wrap-32", &t);
    CHECK_EQ("wrap-32-value", t.regs.ax, PATTERN);
    t = HOT("mov rdx, [rsi]\n 8: mov rcx, [ebx]\n mov rax, [ebx + 0x300]\n mov rdi, [ebx + 0x308]",
            .bx = 0xfffffef8 - 0x300, .si = GIB4);
    PAGE_FAULT("wrap-32-first", t, 0, 0xfffffbf8);
}

#else

static void wrapped(void)
{
    /* SDM 3A 5.3: an access over the end of a 4 GiB segment is beyond its limit */
    page(-PAGE, DATA, PTE_RWU);
    flush_tlb(); /* the pointer to the tables of this GiB is new */
    fill((void *)DATA, 0xa5, PAGE);
    u32 wrong = 0;
    for (u32 into = 1; into < 4; into++) {
        struct trap t = HOT("mov ecx, [esi]\n 8: mov [ebx], eax", .bx = -4ul + into, .si = -8ul);
        wrong += t.vector != GP || t.error || t.off;
        t = HOT_USER("mov ecx, [esi]\n mov esp, ebx\n 8: pop eax", .bx = -4ul + into, .si = -8ul);
        wrong += t.vector != SS || t.error || t.off;
    }
    CHECK_EQ("wrap-end", wrong, 0);
    DONE("wrap-last", HOT("mov eax, [ebx]", .bx = -4ul));
    ulong low = word_at(0x100);
    put_word(0x100, 0x12345678);
    struct trap t = HOT("mov ecx, [esi]\n mov eax, [ebx + 0x200]", .bx = -0x100ul, .si = -8ul);
    CHECK("wrap-sum", t.vector == VECTOR_DONE && t.regs.ax == 0x12345678);
    t = HOT("mov ecx, [esi]\n mov edx, [ebx + 0xf8]\n mov eax, [ebx + 0x200]", .bx = -0x100ul, .si = -8ul);
    CHECK("wrap-sum-second", t.vector == VECTOR_DONE && t.regs.ax == 0x12345678 && t.regs.dx == 0xa5a5a5a5);
    t = HOT("mov eax, [ebx + ecx*4 + 8]", .bx = 0x100, .cx = -2ul);
    CHECK("wrap-index", t.vector == VECTOR_DONE && t.regs.ax == 0x12345678);
    /* a stack that wraps */
    t = HOT_USER("8: push eax", .sp = 2, .ax = 1);
    CHECK("wrap-push-over", t.vector == SS && !t.error && t.regs.sp == 2);
    put_word(0x100, low);
}

#endif

/* ---- loops ---- */

/* Pages that are neighbours in the address space alone: a loop over their edge must see it, whatever its registers and flags hold. */
static void loops(void)
{
    const ulong w = sizeof(ulong);
    struct {
        const char *name;
        struct code code;
        long step;
    } cases[] = {
        { "loop-dec",
          CODE("1: mov [" R(di) "], " R(ax) "\n add " R(ax) ", 0x200000\n add " R(
              di) ", 8\n dec ecx\n jnz 1b"),
          8 },
        { "loop-sub", CODE("1: mov [" R(di) "], " R(ax) "\n add " R(di) ", 8\n sub ecx, 1\n jnz 1b"), 8 },
        { "loop-cmp",
          CODE("1: mov [" R(di) "], " R(ax) "\n add " R(di) ", 8\n sub " R(cx) ", 1\n cmp " R(
              cx) ", 0\n jne 1b"),
          8 },
        { "loop-down", CODE("1: mov [" R(di) "], " R(ax) "\n sub " R(di) ", 8\n sub ecx, 1\n jnz 1b"), -8 },
        { "loop-odd", CODE("1: mov [" R(di) "], " R(ax) "\n add " R(di) ", 24\n sub ecx, 1\n jnz 1b"), 24 },
        { "loop-index",
          CODE("1: mov [" R(bx) " + " R(dx) "*8], " R(ax) "\n add " R(dx) ", 1\n sub ecx, 1\n jnz 1b"), 8 },
        { "loop-carry",
          CODE("1: adc " R(si) ", [" R(di) "]\n mov [" R(di) "], " R(ax) "\n lea " R(di) ", [" R(
              di) " + 8]\n dec ecx\n jnz 1b"),
          8 },
        { "loop-two",
          CODE("1: mov " R(si) ", [" R(di) "]\n mov [" R(di) "], " R(ax) "\n mov " R(si) ", [" R(
              bx) "]\n"
                  "add " R(di) ", 8\n sub ecx, 1\n jnz 1b"),
          8 },
        /* rounds of the inner loop that are known beforehand, and more of them than a translator would write out */
        { "loop-nested",
          CODE("2: xor edx, edx\n 1: mov [" R(di) " + " R(dx) "], " R(
              ax) "\n add edx, 8\n cmp edx, 32\n jne 1b\n add " R(di) ", 32\n sub ecx, 4\n jnz 2b"),
          8 },
        { "loop-nested-down",
          CODE("2: mov edx, 4\n 1: mov [" R(di) " + " R(dx) "*8 - 8], " R(
              ax) "\n sub edx, 1\n jnz 1b\n add " R(di) ", 32\n sub ecx, 4\n jnz 2b"),
          8 },
        { "loop-nested-long",
          CODE("2: xor edx, edx\n 1: mov [" R(di) " + " R(dx) "], " R(
              ax) "\n add edx, 8\n cmp edx, 256\n jb 1b\n add " R(di) ", 256\n sub ecx, 32\n jnz 2b"),
          8 },
    };
    page(TEST, DATA, PTE_RWU);
    page(TEST + PAGE, OTHER, PTE_RWU);
    page(TEST + 2 * PAGE, 0, 0);
    page(TEST - PAGE, 0, 0);
    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        u32 wrong = 0;
        for (u32 round = 0; round < 12; round++) {
            fill((void *)(DATA - PAGE), 0, 3 * PAGE), fill((void *)(OTHER - PAGE), 0, 3 * PAGE);
            bool down = cases[i].step < 0;
            ulong from = down ? TEST + 2 * PAGE - 8 : TEST,
                  count = 2 * PAGE / (ulong)(down ? 8 : cases[i].step);
            struct trap t = run_code(cases[i].code,
                                     (struct regs){ .di = from, .bx = from, .cx = count, .ax = 0x1000000 });
            wrong += t.vector != VECTOR_DONE;
            for (ulong at = 0; at < 2 * PAGE; at += 8) {
                bool mine = at % (ulong)(down ? 8 : cases[i].step) == 0 &&
                            at / (ulong)(down ? 8 : cases[i].step) < count;
                ulong pa = at < PAGE ? DATA + at : OTHER + at - PAGE;
                wrong += !word_at(pa) != !mine;
            }
            for (ulong at = 0; at < PAGE; at += w)
                wrong += word_at(DATA - PAGE + at) || word_at(DATA + PAGE + at) ||
                         word_at(OTHER - PAGE + at) || word_at(OTHER + PAGE + at);
            /* and into the hole: a fault at its first byte */
            t = run_code(cases[i].code, (struct regs){ .di = from, .bx = from, .cx = 4 * PAGE, .ax = 1 });
            wrong += t.vector != PF || (t.cr2 & -PAGE) != (down ? TEST - PAGE : TEST + 2 * PAGE);
        }
        CHECK_EQ(cases[i].name, wrong, 0);
    }
#if WIDE
    /* GS is another segment in every other round */
    u64 gs = rdmsr(MSR_GS_BASE), other = rdmsr(MSR_KERNEL_GS_BASE);
    put_word(DATA + 16, 1), put_word(OTHER + 16, 0x10000);
    wrmsr(MSR_GS_BASE, TEST), wrmsr(MSR_KERNEL_GS_BASE, TEST + PAGE);
    struct trap s = HOT("1: add rax, gs:[16]\n swapgs\n sub ecx, 1\n jnz 1b", .cx = 100);
    wrmsr(MSR_GS_BASE, gs), wrmsr(MSR_KERNEL_GS_BASE, other);
    CHECK("loop-swapgs", s.vector == VECTOR_DONE && s.regs.ax == 50 * 0x10001);
#endif
    /* a page that moves while a loop runs: the next round sees it */
    const ulong low = 0x70000000;
    page(low, DATA, PTE_RWU);
    volatile u32 *a = (volatile u32 *)DATA, *b = (volatile u32 *)OTHER;
    *a = 1, *b = 0x10000;
    ulong entry_at = (ulong)entry(&space, low, 1);
    struct trap t = HOT(
        "xor eax, eax\n mov [" R(
            bx) "], esi\n invlpg [0x70000000]\n"
                "1: add eax, [0x70000000]\n mov ebp, 0x70001000\n mov edi, 0x70000000\n cmp ecx, 50\n"
                "cmove ebp, edi\n cmove esi, edx\n mov [" R(bx) "], esi\n invlpg [" R(
                    bp) "]\n sub ecx, 1\n jnz 1b",
        .cx = 100, .bx = entry_at, .si = DATA | PTE_RWU, .dx = OTHER | PTE_RWU);
    CHECK("loop-invlpg", t.vector == VECTOR_DONE && (u32)t.regs.ax == 51 + 49 * 0x10000);
}

/* ---- interrupts in the middle ---- */

#define TICK 0x70
static volatile u32 ticks;
static void on_tick(struct frame *frame)
{
    (void)frame;
    ticks++;
    apic_write(APIC_EOI, 0);
}

/* Wherever an interrupt comes, the accesses behind it are those that were meant. */
static void interrupted(void)
{
    map(&space, APIC_BASE, APIC_BASE, PTE_P | PTE_W | PTE_PCD, 2);
    flush_tlb();
    apic_enable();
    handler_fn *before = set_handler(TICK, on_tick);
    apic_write(APIC_TDCR, 0x0b);
    apic_write(APIC_LVTT, 0x20000 | TICK);
    apic_write(APIC_TMICT, 20000);
    ticks = 0;
    page(TEST, DATA, PTE_RWU);
    put_word(DATA, 1), put_word(DATA + 8, 2), put_word(DATA + 64, 4);
    u32 wrong = 0, rounds = 0;
    for (; rounds < 3000 && ticks < 300; rounds++) {
        struct trap t = TRY(
            "1: mov " R(ax) ", [" R(bx) "]\n sti\n test al, al\n test al, al\n add " R(si) ", [" R(
                bx) " + 8]\n"
                    "cli\n add " R(di) ", [" R(bx) " + 64]\n sti\n mov " R(dx) ", [" R(
                        bx) " + 8]\n test al, al\n"
                            "add " R(di) ", [" R(bx) " + 64]\n sub ecx, 1\n jnz 1b\n cli",
            .bx = TEST, .cx = 2000);
        wrong += t.vector != VECTOR_DONE || t.regs.ax != 1 || t.regs.si != 4000 || t.regs.di != 16000 ||
                 t.regs.dx != 2;
    }
    apic_write(APIC_LVTT, 0x10000);
    apic_write(APIC_TMICT, 0);
    enable_interrupts();
    cpu_pause();
    disable_interrupts();
    set_handler(TICK, before);
    CHECK_EQ("interrupted", wrong, 0);
    CHECK("interrupted-often", ticks > 0);
}

/* ---- nothing of what code made for the guest uses may show ---- */

#if WIDE
#define OTHERS_DIFFER(t, except) \
    ((t).regs.bp != 6 || (t).regs.r8 != 8 || (t).regs.r9 != 9 || (t).regs.r10 != 10 || (t).regs.r11 != 11 || \
     (!((except)&1) && (t).regs.r12 != 12) || (!((except)&2) && (t).regs.r13 != 13) || (t).regs.r14 != 14 || \
     (t).regs.r15 != 15)
#define OTHERS .bp = 6, .r8 = 8, .r9 = 9, .r10 = 10, .r11 = 11, .r12 = 12, .r13 = 13, .r14 = 14, .r15 = 15
#else
#define OTHERS_DIFFER(t, except) ((t).regs.bp != 6 || (except) > 3)
#define OTHERS .bp = 6
#endif

static void scratch(void)
{
    u32 wrong = 0;
    page(TEST, DATA, PTE_RWU);
    page(TEST + PAGE, 0, 0);
    put_word(DATA, PATTERN);
    struct trap t = HOT(
        "mov " R(ax) ", [" R(bx) "]\n mov [" R(bx) " + 8], " R(cx) "\n push " R(dx) "\n pop " R(di), .ax = 1,
        .cx = 3, .dx = 4, .bx = TEST, .si = 5, .di = 7, OTHERS);
    CHECK("scratch-accesses", t.vector == VECTOR_DONE && t.regs.ax == PATTERN && t.regs.bx == TEST &&
                                  t.regs.cx == 3 && t.regs.dx == 4 && t.regs.si == 5 && t.regs.di == 4 &&
                                  !OTHERS_DIFFER(t, 0));
    t = HOT("mov " R(ax) ", [" R(bx) "]", .ax = 1, .cx = 3, .dx = 4, .bx = TEST + PAGE, .si = 5, .di = 7,
            OTHERS);
    CHECK("scratch-fault", t.vector == PF && t.regs.ax == 1 && t.regs.bx == TEST + PAGE && t.regs.cx == 3 &&
                               t.regs.dx == 4 && t.regs.si == 5 && t.regs.di == 7 && !OTHERS_DIFFER(t, 0));
    t = HOT("xor edx, edx\n 8: div ecx", .ax = 1, .cx = 0, .dx = 4, .bx = TEST, .si = 5, .di = 7, OTHERS);
    CHECK("scratch-divide", t.vector == DE && t.off == 0 && t.regs.ax == 1 && t.regs.cx == 0 &&
                                t.regs.dx == 0 && t.regs.si == 5 && !OTHERS_DIFFER(t, 0));
#if WIDE
    /* SDM 2A BSF: with a zero source the destination is undefined; processors leave it (APM 3: unchanged), and it is nobody
     * else's value. */
    t = HOT("mov rax, [rbx]\n xor ecx, ecx\n bsf r12, rcx\n bsr r13, rcx", .bx = TEST, OTHERS);
    CHECK("scratch-bsf",
          t.vector == VECTOR_DONE && t.regs.r12 == 12 && t.regs.r13 == 13 && !OTHERS_DIFFER(t, 0));
    t = HOT("mov rax, [rbx]\n test rbx, rbx\n cmovz r12, rcx\n cmovz r13d, ecx", .bx = TEST, OTHERS);
    CHECK("scratch-cmov", t.vector == VECTOR_DONE && !OTHERS_DIFFER(t, 0));
    t = HOT(
        "mov rax, [rbx]\n shl cl, 8\n shl r12, cl\n shr r13d, cl\n mov r14w, r14w\n setz r15b\n mov r15b, 15",
        .bx = TEST, .cx = 0, OTHERS);
    CHECK("scratch-partial", t.vector == VECTOR_DONE && !OTHERS_DIFFER(t, 0));
    t = HOT("mov rax, [rbx]\n lock cmpxchg [rbx], r12\n 8: xadd [rbx], r13\n mov rcx, r12\n mov rdx, r13",
            .bx = TEST, OTHERS);
    CHECK("scratch-exchange",
          t.vector == VECTOR_DONE && t.regs.cx == 12 && t.regs.dx == 12 && !OTHERS_DIFFER(t, 2));
#endif
    /* flags that are kept apart meanwhile come back, from a fault too */
    for (u32 i = 0; i < 64; i++) {
        static const u16 bits[] = { FLAG_CF, FLAG_PF, FLAG_AF, FLAG_ZF, FLAG_SF, FLAG_OF };
        ulong flags = 0;
        for (u32 b = 0; b < ARRAY_LEN(bits); b++)
            flags |= i >> b & 1 ? bits[b] : 0u;
        t = HOT("mov eax, [" R(bx) "]\n mov [" R(bx) "], eax\n push " R(ax) "\n pop " R(ax), .bx = TEST,
                .flags = flags);
        wrong += t.vector != VECTOR_DONE || (t.regs.flags & 0x8d5) != flags;
        t = HOT("8: mov eax, [" R(bx) "]", .bx = TEST + PAGE, .flags = flags);
        wrong += t.vector != PF || (t.regs.flags & 0x8d5) != flags;
    }
    CHECK_EQ("scratch-flags", wrong, 0);
    /* the direction flag, and alignment checks asked for, while others work for this processor */
    t = HOT("std\n mov eax, [" R(bx) "]\n 8: mov eax, [" R(si) "]", .bx = TEST, .si = TEST + PAGE);
    CHECK("scratch-direction", t.vector == PF && t.off == 0 && t.regs.flags & FLAG_DF);
    t = HOT_USER("mov eax, [" R(bx) " + 1]\n 8: mov eax, [" R(si) "]", .bx = TEST, .si = TEST + PAGE,
                 .flags = FLAG_AC);
    CHECK("scratch-alignment", t.vector == PF && t.off == 0 && t.regs.flags & FLAG_AC);
}

/* ---- x87 pointers ---- */

/* What the images say of the last x87 instruction is where the guest sees it, or nothing at all, after many other things too. */
static void x87_pointers(void)
{
    static u8 ALIGNED(64) image[512];
    static u32 operand;
    ulong cr0 = read_cr0(), cr4 = read_cr4();
    write_cr0((cr0 & ~(ulong)(CR0_EM | CR0_TS)) | CR0_MP);
    write_cr4(cr4 | CR4_OSFXSR);
    struct code c = CODE("fninit\n 8: fld dword ptr [" R(bx) "]\n mov eax, [" R(bx) "]\n mov [" R(
        bx) "], eax\n fnstenv [" R(di) "]");
    struct trap t = hot(c, (struct regs){ .bx = (ulong)&operand, .di = (ulong)image });
    check_done("x87-fnstenv", &t);
    CHECK_EQ("x87-fnstenv-fip", *(volatile u32 *)(image + 12), c.mark);
    CHECK_EQ("x87-fnstenv-fdp", *(volatile u32 *)(image + 20), (ulong)&operand);
    c = CODE("fninit\n 8: fld dword ptr [" R(bx) "]\n mov eax, [" R(bx) "]\n fnsave [" R(di) "]");
    t = hot(c, (struct regs){ .bx = (ulong)&operand, .di = (ulong)image });
    check_done("x87-fnsave", &t);
    CHECK_EQ("x87-fnsave-fip", *(volatile u32 *)(image + 12), c.mark);
    CHECK_EQ("x87-fnsave-fdp", *(volatile u32 *)(image + 20), (ulong)&operand);
    c = CODE("fninit\n 8: fld dword ptr [" R(bx) "]\n mov eax, [" R(bx) "]\n fxsave [" R(di) "]");
    t = hot(c, (struct regs){ .bx = (ulong)&operand, .di = (ulong)image });
    check_done("x87-fxsave", &t);
    /* AMD's processors leave the pointers out of FXSAVE's image when no exception is pending (APM 3, FXSAVE) */
    u32 fip = *(volatile u32 *)(image + 8), fdp = *(volatile u32 *)(image + 16);
    CHECK("x87-fxsave-fip", fip == (u32)c.mark || (is_amd() && !fip) || is_amd());
    CHECK("x87-fxsave-pointers-low", *(volatile u16 *)(image + 14) == 0 || !WIDE);
    CHECK("x87-fxsave-fdp", fdp < 64u << 20);
    write_cr4(cr4);
    write_cr0(cr0);
}

/* ---- old translations ---- */

/* More address spaces than any counter of small tags has values, each with another page at the same address. */
static void old_tags(void)
{
    u32 wrong = 0;
    put_word(DATA, 1), put_word(OTHER, 2);
    page(TEST, DATA, PTE_RWU);
    for (u32 i = 0; i < 10000; i++) {
        bool second = (i * 7 + i / 64) & 1;
        entry_set(&space, TEST, 1, (second ? OTHER : DATA) | PTE_RWU);
        write_cr3(space.root);
        wrong += word_at(TEST) != (second ? 2 : 1);
    }
    CHECK_EQ("old-tags-cr3", wrong, 0);
    wrong = 0;
    for (u32 i = 0; i < 10000; i++) {
        bool second = (i * 5 + i / 32) & 1;
        entry_set(&space, TEST, 1, (second ? OTHER : DATA) | PTE_RWU);
        invlpg((void *)(TEST + (i & 4095)));
        wrong += word_at(TEST) != (second ? 2 : 1);
    }
    CHECK_EQ("old-tags-invlpg", wrong, 0);
    /* the same for code: mov eax, n; int 81h */
    static const u8 code[] = { 0xb8, 1, 0, 0, 0, 0xcd, VECTOR_DONE };
    copy((void *)DATA, code, sizeof(code)), copy((void *)OTHER, code, sizeof(code));
    ((volatile u8 *)OTHER)[1] = 2;
    struct code c = CODE("jmp " R(bx));
    wrong = 0;
    for (u32 i = 0; i < 5000; i++) {
        bool second = (i * 7 + i / 64) & 1;
        entry_set(&space, TEST, 1, (second ? OTHER : DATA) | PTE_RWU);
        if (i & 1)
            write_cr3(space.root);
        else
            invlpg((void *)TEST);
        wrong += run_code(c, (struct regs){ .bx = TEST }).regs.ax != (second ? 2 : 1);
    }
    CHECK_EQ("old-tags-code", wrong, 0);
}

/* ---- addresses without end ---- */

#if WIDE

/* Four tables whose entries all say the same show one page at each address of a half of the address space. */
static void sweep(void)
{
    ulong table = DATA + 0x100000;
    for (u32 level = 1; level <= 3; level++) {
        volatile u64 *t = (volatile u64 *)(table + level * PAGE);
        for (u32 i = 0; i < 512; i++)
            t[i] = (level == 1 ? DATA : table + (level - 1) * PAGE) | PTE_RWU;
    }
    volatile u64 *root = (volatile u64 *)space.root;
    u64 before = root[100];
    for (u32 i = 100; i < 228; i++)
        root[i] = (table + 3 * PAGE) | PTE_RWU; /* 64 TiB: all tables below are shared */
    flush_tlb();
    put_word(DATA + 8, PATTERN);
    u64 at = 0, wrong = 0;
    const u64 base = 100ull << 39, size = 128ull << 39;
    for (u32 i = 0; i < 300000; i++) {
        at = (at + 0x9e3779b97f5ull * PAGE) % size;
        wrong += *(volatile u64 *)(base + (at & -PAGE) + 8) != PATTERN;
        *(volatile u64 *)(base + (at & -PAGE) + 64) = i;
    }
    CHECK_EQ("sweep-data", wrong, 0);
    /* code everywhere: RET */
    *(volatile u8 *)(DATA + 128) = 0xc3;
    for (u32 i = 0; i < 100000; i++) {
        at = (at + 0x9e3779b97f5ull * PAGE) % size;
        ((void (*)(void))(base + (at & -PAGE) + 128))();
    }
    check_true("sweep-code", true, "");
    for (u32 i = 100; i < 228; i++)
        root[i] = i == 100 ? before : 0;
    flush_tlb();
    /* and where nothing is at all: the whole of both halves */
    wrong = 0;
    struct code c = CODE("mov al, [rbx]");
    for (u32 i = 0; i < 20000; i++) {
        at = at * 6364136223846793005ull + 1442695040888963407ull;
        ulong va = (ulong)((long)(at << 16) >> 16) | 1ul << 40;
        struct trap t = run_code(c, (struct regs){ .bx = va });
        wrong += t.vector != PF && t.vector != VECTOR_DONE;
    }
    CHECK_EQ("sweep-holes", wrong, 0);
}

#endif

void guest_main(void)
{
    space = space_new(WIDE ? PAGING_LONG : PAGING_PAE);
    map_range(&space, 0, 0, 64ul << 20, PTE_P | PTE_W, 2);
    map_range(&space, USER_ALIAS, 0, 64ul << 20, PTE_RWU, 2);
    page(TEST, DATA, PTE_RWU);
    space_use(&space);
    static void (*const parts[])(void) = {
        many_addresses,
        edges,
        turns,
        scratch,
        x87_pointers,
        old_tags,
        loops,
        interrupted,
        unwritten,
        moved,
        access_control,
        wrapped,
#if WIDE
        far_moffs,
        far_displacements,
        non_canonical,
        sweep
#endif
    };
    ulong only = option("only", ARRAY_LEN(parts)); /* a number from 0: that part alone */
    for (u32 i = 0; i < ARRAY_LEN(parts); i++)
        if (only == ARRAY_LEN(parts) || only == i)
            parts[i]();
#if !WIDE
    paging_off();
#endif
}
