/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many short-lived programs at the same addresses, each in an address space of its own: more of them than any engine keeps apart at
 * once. They are started, copied and replaced all the time, their pages are given to others, and processors pass them on. The command
 * line says cpus=N.
 *
 *   PROGRAM + 0       entry: a loop that calls the other three, then #UD          page 0
 *   PROGRAM + 400h    a function behind a pointer, somewhere here                 page 0
 *   PROGRAM + ffdh    a function whose first instruction lies on both pages       pages 0, 1
 *   PROGRAM + 1040h   a function, somewhere here                                  page 1
 *   PROGRAM + 2000h   the pointer                                                 page 2
 */
#include "guest.h"

#define PROCESSES 24u
#define PAGES 3u
#define FRAMES 112u
#define ROUNDS 100u
#if WIDE
#define PROGRAM 0x200000000000ul
#else
#define PROGRAM 0x80000000ul
#endif

static u32 n;
static volatile u32 wrong[MAX_CPUS];

static u32 me(void) { return this_cpu()->index; }

/* --- pages --- */

static u8 ALIGNED(4096) frames[FRAMES][PAGE];
static u32 users[FRAMES], last_frame;
static volatile u32 locked;

static void lock(void)
{
    while (__atomic_exchange_n(&locked, 1, __ATOMIC_ACQUIRE))
        cpu_pause();
}

static void unlock(void) { __atomic_store_n(&locked, 0, __ATOMIC_RELEASE); }

/* Going round, so that pages come back after others have had them. */
static u32 frame_take(void)
{
    lock();
    do
        last_frame = (last_frame + 1) % FRAMES;
    while (users[last_frame]);
    u32 frame = last_frame;
    users[frame] = 1;
    unlock();
    return frame;
}

static void frame_add(u32 frame, u32 by)
{
    lock();
    users[frame] += by;
    unlock();
}

/* --- programs --- */

/* Its first page may be one that others use, too, and its second one its own: so the function on both is another one then. */
struct process {
    struct space space;
    u32 seed, second; /* what they hold */
    u32 frame[PAGES];
};
static struct process processes[PROCESSES];

static u32 mix(u32 x)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}

static u32 constant(u32 seed, u32 i) { return mix(seed + i * 0x9e3779b9u); }
static u32 rounds(u32 seed) { return 1 + seed % 23; }
static ulong target(u32 seed) { return 0x400 + (seed >> 5 & 31) * 16; }
static ulong helper(u32 seed) { return 0x1040 + (seed >> 10 & 31) * 16; }
#define TAIL 0xffdul

/* Half of it on each page. */
static u32 tail_constant(u32 seed, u32 second)
{
    return (constant(seed, 4) & 0xffff) | (constant(second, 4) & 0xffff0000);
}

/* What the program leaves in EAX. */
static u32 outcome(u32 seed, u32 second)
{
    u32 x = seed;
    for (u32 i = rounds(seed); i; i--) {
        x = (x + i) * (constant(seed, 1) | 1);
        x ^= constant(second, 2);
        x += constant(seed, 3);
        x += tail_constant(seed, second);
    }
    return x;
}

struct writer {
    u8 *pages[PAGES];
    ulong at;
};

static void put(struct writer *w, u64 value, u32 bytes)
{
    for (u32 i = 0; i < bytes; i++, w->at++)
        w->pages[w->at / PAGE][w->at % PAGE] = (u8)(value >> 8 * i);
}

static void put_call(struct writer *w, ulong to)
{
    put(w, 0xe8, 1);
    put(w, (u32)(to - (w->at + 4)), 4);
}

/* op eax, imm32; ret */
static void put_function(struct writer *w, ulong at, u32 opcode, u32 value)
{
    w->at = at;
    put(w, opcode, 1);
    put(w, value, 4);
    put(w, 0xc3, 1);
}

static void put_program(struct writer *w, u32 seed, u32 second)
{
    w->at = 0;
    put(w, 0xb8, 1);
    put(w, seed, 4); /* mov eax, seed */
    put(w, 0xb9, 1);
    put(w, rounds(seed), 4); /* mov ecx, rounds */
    put(w, WIDE ? 0xbb48 : 0xbb, WIDE ? 2 : 1);
    put(w, PROGRAM + 2 * PAGE, sizeof(ulong)); /* mov rbx, pointer */
    ulong loop = w->at;
    put(w, 0xc801, 2); /* add eax, ecx */
    put(w, 0xc069, 2); /* imul eax, eax, constant */
    put(w, constant(seed, 1) | 1, 4);
    put_call(w, helper(seed));
    put(w, 0x13ff, 2); /* call [rbx] */
    put_call(w, TAIL);
    put(w, 0xc9ff, 2); /* dec ecx */
    put(w, 0x75, 1);   /* jnz */
    put(w, (u8)(loop - (w->at + 1)), 1);
    put(w, 0x0b0f, 2); /* ud2 */
    put_function(w, helper(seed), 0x35, constant(second, 2));
    put_function(w, target(seed), 0x05, constant(seed, 3));
    put_function(w, TAIL, 0x05, tail_constant(seed, second));
    w->at = 2 * PAGE;
    put(w, PROGRAM + target(seed), sizeof(ulong));
}

/* --- lives --- */

static void show(struct process *p)
{
    for (u32 i = 0; i < PAGES; i++)
        entry_set(&p->space, PROGRAM + i * PAGE, 1, (ulong)frames[p->frame[i]] | PTE_RWU);
}

/* Pages of its own, and what stands in them is new. Nobody runs it meanwhile. */
static void replace(struct process *p, u32 seed)
{
    struct writer w = { .at = 0 };
    for (u32 i = 0; i < PAGES; i++) {
        frame_add(p->frame[i], (u32)-1);
        p->frame[i] = frame_take();
        w.pages[i] = frames[p->frame[i]];
    }
    p->seed = p->second = seed;
    put_program(&w, seed, seed);
    cpuid(0, 0);
    show(p);
}

/* The same pages as another one. */
static void become(struct process *p, const struct process *other)
{
    for (u32 i = 0; i < PAGES; i++) {
        frame_add(p->frame[i], (u32)-1);
        frame_add(p->frame[i] = other->frame[i], 1);
    }
    p->seed = other->seed;
    p->second = other->second;
    show(p);
}

/* Another second page, of its own; in the first one all bytes stay what they are. */
static void divide(struct process *p, u32 second)
{
    struct writer w = { .at = 0 };
    frame_add(p->frame[1], (u32)-1);
    p->frame[1] = frame_take();
    for (u32 i = 0; i < PAGES; i++)
        w.pages[i] = frames[p->frame[i]];
    p->second = second;
    put_program(&w, p->seed, second);
    cpuid(0, 0);
    show(p);
}

/* Another program in the pages that it has, if it shares them with nobody: through the kernel's addresses. */
static void rewrite(struct process *p, u32 seed)
{
    struct writer w = { .at = 0 };
    bool alone = true;
    for (u32 i = 0; i < PAGES; i++) {
        alone = alone && users[p->frame[i]] == 1;
        w.pages[i] = frames[p->frame[i]];
    }
    if (!alone)
        return;
    p->seed = p->second = seed;
    put_program(&w, seed, seed);
    cpuid(0, 0);
}

static void run(struct process *p, bool user)
{
    write_cr3(p->space.root);
    struct trap t = run_code((struct code){ .start = PROGRAM },
                             (struct regs){ .cs = user ? SEL_USER_CODE : SEL_CODE, .ip = PROGRAM });
    if (t.vector != UD || (u32)t.regs.ax != outcome(p->seed, p->second))
        wrong[me()]++;
}

/* --- the test --- */

static void live(void)
{
    ulong kernel = read_cr3();
    u32 random = mix(me() + 1);
    for (u32 r = 0; r < ROUNDS; r++) {
        for (u32 i = (me() + r) % n; i < PROCESSES; i += n) {
            struct process *p = &processes[i], *other = &processes[(i + n) % PROCESSES];
            random = mix(random + r);
            switch (random & 7) {
            case 0:
            case 1: replace(p, random >> 3); break;
            case 2: become(p, other); break;
            case 3: rewrite(p, random >> 3); break;
            case 4: divide(p, random >> 3); break;
            default: break; /* only runs */
            }
            run(p, true);
            if (random & 0x100)
                run(p, false);
            if (random & 0x200)
                run(other, true);
        }
        smp_meet();
    }
    write_cr3(kernel);
}

static void make_space(struct process *p)
{
#if WIDE
    p->space = space_new(PAGING_LONG);
    copy((void *)p->space.root, (void *)read_cr3(), PAGE);
#else
    p->space = space_new(PAGING_32);
    map_range(&p->space, 0, 0, 64ul << 20, PTE_RWU, 2);
    map_range(&p->space, APIC_BASE & ~0x3ffffful, APIC_BASE & ~0x3ffffful, 4ul << 20, PTE_RWU, 2);
#endif
    for (u32 i = 0; i < PAGES; i++) {
        map(&p->space, PROGRAM + i * PAGE, 0, PTE_RWU, 1);
        users[p->frame[i] = frame_take()] = 1;
    }
}

#if !WIDE
static void enter_space(void)
{
    write_cr4(read_cr4() | CR4_PSE);
    space_use(&processes[0].space);
}
#endif

static u32 all(void (*work)(void))
{
    u32 sum = 0;
    smp_all(work);
    for (u32 i = 0; i < MAX_CPUS; i++)
        sum += wrong[i];
    return sum;
}

void guest_main(void)
{
    n = (u32)option("cpus", 1);
    if (n > 1 && smp_start(n) < n) {
        CHECK("processors-start", false);
        return;
    }
    for (u32 i = 0; i < PROCESSES; i++) {
        make_space(&processes[i]);
        replace(&processes[i], mix(i));
    }
#if !WIDE
    smp_all(enter_space);
#endif
    CHECK_EQ("programs", all(live), 0);
#if !WIDE
    smp_all(paging_off);
#endif
}
