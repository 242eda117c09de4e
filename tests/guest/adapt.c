/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accesses that an engine cannot serve by a plain load or store, again and again: devices, page ends, data beside code, code
 * that is rewritten. What they do is checked; what a round costs is printed, in units of the time stamp counter, as the least of
 * some runs. rounds=N makes the runs longer.
 */
#include "guest.h"

#define RUNS 8

static u8 ALIGNED(4096) code[2 * 4096];
static u8 ALIGNED(4096) data[4 * 4096];
typedef ulong function(void);

static ulong rounds;

static u32 call(ulong at) { return (u32)((function *)at)(); }

/* mov eax, value; ret */
static void put_constant(ulong at, u32 value)
{
    u8 bytes[6] = { 0xb8, (u8)value, (u8)(value >> 8), (u8)(value >> 16), (u8)(value >> 24), 0xc3 };
    copy((void *)at, bytes, 6);
}

/* `work` does `n` rounds and returns how many went wrong. */
static void cost(const char *name, ulong n, ulong (*work)(ulong n))
{
    u64 least = ~0ull;
    ulong wrong = 0;
    for (int run = 0; run < RUNS; run++) {
        u64 from = rdtsc();
        wrong += work(n);
        u64 took = rdtsc() - from;
        if (took < least)
            least = took;
    }
    CHECK_EQ(name, wrong, 0);
    u32 tenths = (u32)(least >> 4) * 10 / ((u32)n >> 4); /* n is a multiple of 16 */
    print("COST %s %u.%u\n", name, tenths / 10, tenths % 10);
}

/* --- devices --------------------------------------------------------------------------------------------- */

static ulong device_read(ulong n)
{
    ulong wrong = 0;
    u32 want = apic_read(APIC_VERSION);
    for (ulong i = 0; i < n; i++)
        wrong += apic_read(APIC_VERSION) != want;
    return wrong;
}

static ulong device_write(ulong n)
{
    for (ulong i = 0; i < n; i++)
        apic_write(APIC_TPR, (u32)i & 0xf0);
    ulong wrong = apic_read(APIC_TPR) != ((n - 1) & 0xf0);
    apic_write(APIC_TPR, 0);
    return wrong;
}

/* One load instruction for all: it meets the device, then memory. */
static __attribute__((noinline)) u32 sum(const volatile u32 *p, ulong n, ulong step)
{
    u32 s = 0;
    for (ulong i = 0; i < n; i++, p = (const volatile u32 *)((ulong)p + step))
        s += *p;
    return s;
}

static ulong read_after_device(ulong n)
{
    *(u32 *)data = 3;
    return sum((u32 *)data, n, 0) != 3 * (u32)n;
}

/* --- page ends ------------------------------------------------------------------------------------------- */

static ulong crossing_store(ulong n)
{
    volatile ulong *p = (volatile ulong *)((ulong)data + 4096 - 3);
    *p = 0;
    for (ulong i = 0; i < n; i++)
        *p += i;
    return *p != (ulong)((u64)n * (n - 1) / 2);
}

/* A load now and then over a page's end: once in a thousand. */
static ulong sweep(ulong n)
{
    fill(data, 1, sizeof(data));
    u32 s = 0, want = 0x01010101;
    for (ulong done = 0; done < n; done += 2048) {
        s += sum((u32 *)(data + 2), 2048, 4);
        want += 2048 * 0x01010101u;
    }
    return s + 0x01010101 != want;
}

/* --- code and data on a page ----------------------------------------------------------------------------------- */

static ulong store_beside(ulong n)
{
    volatile u32 *counter = (volatile u32 *)((ulong)code + 512);
    *counter = 0;
    for (ulong i = 0; i < n; i++)
        *counter += call((ulong)code);
    return *counter != 7 * (u32)n;
}

/* Within the same 64 bytes as the code. */
static ulong store_close(ulong n)
{
    volatile u32 *counter = (volatile u32 *)((ulong)code + 48);
    *counter = 0;
    for (ulong i = 0; i < n; i++)
        *counter += call((ulong)code);
    return *counter != 7 * (u32)n;
}

#define FUNCTIONS 60u
static ulong place(ulong i) { return (ulong)code + 4096 + 64 * i; }

static ulong many_hot(ulong n)
{
    u32 s = 0;
    for (ulong i = 0; i < n; i++)
        s += call(place(i % FUNCTIONS));
    return s == 0;
}

/* Among many that are hot one is written anew now and then. */
static ulong rewritten_now_and_then(ulong n)
{
    ulong wrong = 0;
    for (ulong i = 0; i < n; i++) {
        if (i % 500 == 0)
            put_constant(place(i / 500 % FUNCTIONS), (u32)i);
        wrong += i % 500 < FUNCTIONS ? call(place(i / 500 % FUNCTIONS)) != (u32)(i - i % 500) : 0;
        call(place(i % FUNCTIONS));
    }
    return wrong;
}

static ulong rewritten_each_time(ulong n)
{
    ulong wrong = 0;
    for (ulong i = 0; i < n; i++) {
        *(volatile u32 *)((ulong)code + 1) = (u32)i;
        wrong += call((ulong)code) != (u32)i;
    }
    put_constant((ulong)code, 7);
    return wrong;
}

/* The same bytes again. */
static ulong rewritten_alike(ulong n)
{
    ulong wrong = 0;
    for (ulong i = 0; i < n; i++) {
        *(volatile u32 *)((ulong)code + 1) = 7;
        wrong += call((ulong)code) != 7;
    }
    return wrong;
}

static ulong loop_rewrites_itself(ulong n)
{
    static const u8 looping[] = {
        0x31, 0xd2,          /* xor edx, edx */
        0xb8, 1,    0, 0, 0, /* 2: mov eax, 1 */
        0x01, 0xc2,          /* add edx, eax */
        0xff, 0x03,          /* inc dword ptr [bx]: the immediate at 3 */
        0xff, 0xc9,          /* dec ecx */
        0x75, 0xf3,          /* jnz 2 */
        0x89, 0xd0,          /* mov eax, edx */
        0xc3,
    };
    ulong s, at = (ulong)code + 2048;
    copy((void *)at, looping, sizeof(looping));
    ulong count = n;
    asm volatile("call *%2" : "=a"(s), "+c"(count) : "r"(at), "b"(at + 3) : "memory", "cc", "edx");
    return (u32)s != (u32)((u64)n * (n + 1) / 2);
}

/* A page that held code becomes one of data. */
static ulong page_reused(ulong n)
{
    for (ulong i = 0; i < FUNCTIONS; i++)
        put_constant(place(i), (u32)i);
    ulong wrong = 0;
    for (ulong r = 0; r < 40; r++)
        for (ulong i = 0; i < FUNCTIONS; i++)
            wrong += call(place(i)) != i;
    volatile u32 *p = (volatile u32 *)(code + 4096);
    for (ulong i = 0; i < n; i++)
        p[i % 1024] = (u32)i;
    return wrong;
}

void guest_main(void)
{
    rounds = option("rounds", 4096);
    apic_enable();
    put_constant((ulong)code, 7);
    cost("device-read", rounds, device_read);
    cost("device-write", rounds, device_write);
    CHECK_EQ("device-then-memory", sum((u32 *)(APIC_BASE + APIC_VERSION), rounds, 0),
             (u32)rounds * apic_read(APIC_VERSION));
    cost("memory-after-device", 64 * rounds, read_after_device);
    cost("crossing", rounds, crossing_store);
    cost("sweep", 16 * rounds, sweep);
    cost("store-beside-code", rounds, store_beside);
    cost("store-close-to-code", rounds, store_close);
    for (ulong i = 0; i < FUNCTIONS; i++)
        put_constant(place(i), 7);
    cost("many-hot", 16 * rounds, many_hot);
    cost("rewritten-now-and-then", 16 * rounds, rewritten_now_and_then);
    cost("rewritten-each-time", rounds, rewritten_each_time);
    cost("rewritten-alike", rounds, rewritten_alike);
    cost("loop-rewrites-itself", rounds, loop_rewrites_itself);
    cost("page-reused", 16 * rounds, page_reused);
}
