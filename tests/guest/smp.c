/* SPDX-License-Identifier: Apache-2.0 */
/* Several processors: start, LOCK, memory order, IPIs, TLB shoot-down, time. The command line says cpus=N. */
#include "guest.h"

#define ROUNDS 2000u
static u32 cpus_wanted;

static u32 my_index(void) { return this_cpu()->index; }

/* ---- identity ---- */

static volatile u32 ids[MAX_CPUS], cpuid_ids[MAX_CPUS], bsp_bits[MAX_CPUS];

static void identify(void)
{
    u32 i = my_index();
    apic_enable();
    ids[i] = apic_read(APIC_ID) >> 24;
    cpuid_ids[i] = cpuid(1, 0).b >> 24;
    bsp_bits[i] = rdmsr(MSR_APIC_BASE) >> 8 & 1;
}

static void identities(void)
{
    smp_all(identify);
    bool distinct = true, equal_ids = true;
    u32 bsps = 0;
    for (u32 i = 0; i < cpus_wanted; i++) {
        equal_ids = equal_ids && ids[i] == cpuid_ids[i];
        bsps += bsp_bits[i];
        for (u32 j = 0; j < i; j++)
            distinct = distinct && ids[i] != ids[j];
    }
    CHECK("apic-ids-distinct", distinct);
    CHECK("apic-ids-match-cpuid", equal_ids);
    CHECK("one-bsp", bsps == 1 && bsp_bits[0] == 1); /* SDM 3A 8.4.1 */
}

/* ---- LOCK (SDM 3A 8.1) ---- */

static u8 ALIGNED(4096) area[2 * 4096];
static volatile u32 *word32;

static void do_lock_inc(void)
{
    for (u32 i = 0; i < ROUNDS; i++)
        asm volatile("lock; incl %0" : "+m"(*word32));
}
static void do_lock_add(void)
{
    for (u32 i = 0; i < ROUNDS; i++)
        asm volatile("lock; addl $3, %0" : "+m"(*word32));
}
static void do_lock_sub(void)
{
    for (u32 i = 0; i < ROUNDS; i++)
        asm volatile("lock; subl $1, %0" : "+m"(*word32));
}
static void do_lock_adc(void)
{
    for (u32 i = 0; i < ROUNDS; i++)
        asm volatile("stc; lock; adcl $0, %0" : "+m"(*word32));
}

static void do_xadd(void)
{
    for (u32 i = 0; i < ROUNDS; i++) {
        u32 one = 1;
        asm volatile("lock; xaddl %0, %1" : "+r"(one), "+m"(*word32));
    }
}

static void do_cmpxchg(void)
{
    for (u32 i = 0; i < ROUNDS; i++) {
        u32 seen = *word32;
        u8 done;
        do
            asm volatile("lock; cmpxchgl %3, %1; setz %2"
                         : "+a"(seen), "+m"(*word32), "=q"(done)
                         : "r"(seen + 1)
                         : "cc");
        while (!done);
    }
}

static void do_cmpxchg8b(void)
{
    for (u32 i = 0; i < ROUNDS; i++) {
        u32 low = word32[0], high = word32[1];
        u8 done;
        do {
            u64 next = ((u64)high << 32 | low) + 0x100000001ull;
            asm volatile("lock; cmpxchg8b %2; setz %3"
                         : "+a"(low), "+d"(high), "+m"(*(u64 *)word32), "=q"(done)
                         : "b"((u32)next), "c"((u32)(next >> 32))
                         : "cc");
        } while (!done);
    }
}

static void do_xchg_spinlock(void)
{
    for (u32 i = 0; i < ROUNDS / 4; i++) {
        u32 taken;
        do {
            taken = 1;
            asm volatile("xchgl %0, %1" : "+r"(taken), "+m"(word32[0])); /* XCHG locks by itself */
            if (taken)
                cpu_pause();
        } while (taken);
        word32[1] = word32[1] + 1; /* not atomic */
        barrier();
        word32[0] = 0;
    }
}

static void do_bts_spinlock(void)
{
    for (u32 i = 0; i < ROUNDS / 4; i++) {
        u8 taken;
        do {
            asm volatile("lock; btsl $5, %0; setc %1" : "+m"(word32[0]), "=q"(taken) : : "cc");
            if (taken)
                cpu_pause();
        } while (taken);
        word32[1] = word32[1] + 1;
        barrier();
        asm volatile("lock; btrl $5, %0" : "+m"(word32[0]));
    }
}

static void do_lock_word(void)
{
    for (u32 i = 0; i < ROUNDS; i++)
        asm volatile("lock; incw %0" : "+m"(*(u16 *)word32));
}

static void do_lock_logic(void)
{
    u32 bit = 1u << my_index();
    for (u32 i = 0; i < ROUNDS; i++) {
        asm volatile("lock; orl %1, %0" : "+m"(*word32) : "r"(bit));
        if (!(*word32 & bit))
            word32[1] = 1;
        asm volatile("lock; andl %1, %0" : "+m"(*word32) : "r"(~bit));
        if (*word32 & bit)
            word32[1] = 1;
        asm volatile("lock; xorl %1, %0" : "+m"(*word32) : "r"(bit));
        asm volatile("lock; xorl %1, %0" : "+m"(*word32) : "r"(bit));
    }
}

#if WIDE
static void do_lock_qword(void)
{
    for (u32 i = 0; i < ROUNDS; i++)
        asm volatile("lock; incq %0" : "+m"(*(u64 *)word32));
}

static void do_cmpxchg16b(void)
{
    volatile u64 *w = (volatile u64 *)word32;
    for (u32 i = 0; i < ROUNDS; i++) {
        u64 low = w[0], high = w[1];
        u8 done;
        do
            asm volatile("lock; cmpxchg16b %2; setz %3"
                         : "+a"(low), "+d"(high), "+m"(*(__int128 *)w), "=q"(done)
                         : "b"(low + 1), "c"(high + 2)
                         : "cc");
        while (!done);
    }
}
#endif

static u32 after(void (*work)(void), ulong offset)
{
    fill(area, 0, sizeof(area));
    word32 = (volatile u32 *)(area + offset);
    smp_all(work);
    return *word32;
}

static void locked(void)
{
    u32 n = cpus_wanted;
    const ulong line = 62, page = 4096 - 2;
    CHECK_EQ("lock-inc", after(do_lock_inc, 0), n * ROUNDS);
    CHECK_EQ("lock-add", after(do_lock_add, 64), n * ROUNDS * 3);
    CHECK_EQ("lock-sub", after(do_lock_sub, 0), 0u - n * ROUNDS);
    CHECK_EQ("lock-adc", after(do_lock_adc, 0), n * ROUNDS);
    CHECK_EQ("lock-xadd", after(do_xadd, 0), n * ROUNDS);
    CHECK_EQ("lock-cmpxchg", after(do_cmpxchg, 0), n * ROUNDS);
    CHECK_EQ("lock-cmpxchg8b", after(do_cmpxchg8b, 0), n * ROUNDS);
    CHECK_EQ("lock-cmpxchg8b-high", word32[1], n * ROUNDS);
    CHECK_EQ("lock-word", after(do_lock_word, 2), n * ROUNDS & 0xffff);
    after(do_xchg_spinlock, 0);
    CHECK_EQ("xchg-spinlock", word32[1], n * (ROUNDS / 4));
    after(do_bts_spinlock, 128);
    CHECK_EQ("bts-spinlock", word32[1], n * (ROUNDS / 4));
    CHECK_EQ("lock-logic", after(do_lock_logic, 0) | word32[1], 0);
    /* operands that lie over two cache lines, and over two pages (8.1.2: the lock works for any alignment) */
    CHECK_EQ("split-line-inc", after(do_lock_inc, line), n * ROUNDS);
    CHECK_EQ("split-line-xadd", after(do_xadd, line), n * ROUNDS);
    CHECK_EQ("split-line-cmpxchg", after(do_cmpxchg, line), n * ROUNDS);
    CHECK_EQ("split-line-cmpxchg8b", after(do_cmpxchg8b, line - 2), n * ROUNDS);
    CHECK_EQ("split-page-inc", after(do_lock_inc, page), n * ROUNDS);
    CHECK_EQ("split-page-xadd", after(do_xadd, page), n * ROUNDS);
    CHECK_EQ("split-page-cmpxchg", after(do_cmpxchg, page), n * ROUNDS);
    CHECK_EQ("split-page-word", after(do_lock_word, 4095), n * ROUNDS & 0xffff);
    after(do_xchg_spinlock, page);
    CHECK_EQ("split-page-xchg-spinlock", word32[1], n * (ROUNDS / 4));
#if WIDE
    CHECK_EQ("lock-qword", after(do_lock_qword, 8), n * ROUNDS);
    CHECK_EQ("split-page-qword", after(do_lock_qword, 4092), n * ROUNDS);
    CHECK_EQ("lock-cmpxchg16b", after(do_cmpxchg16b, 16), n * ROUNDS);
    CHECK_EQ("lock-cmpxchg16b-high", ((volatile u64 *)word32)[1], 2 * n * ROUNDS);
    struct trap t = FAULT("cmpxchg16b-misaligned", TRY("lock cmpxchg16b [rbx]", .bx = (ulong)area + 8), GP,
                          0);
    (void)t;
#endif
}

/* ---- order of memory accesses (SDM 3A 8.2.3) ---- */

static volatile u32 ALIGNED(64) shared_x, ALIGNED(64) shared_y, ALIGNED(64) result_0, ALIGNED(64) result_1,
    ALIGNED(64) go;
static volatile u32 ALIGNED(64) wrong_order, ALIGNED(64) ready;

static void reader(void)
{
    for (u32 i = 1; i <= 400; i++) {
        u32 flag;
        while ((flag = shared_y) < i)
            cpu_pause();
        if (shared_x < flag)
            wrong_order++; /* 8.2.3.2: neither loads nor stores are reordered among themselves */
        ready = i;
    }
}

static void store_buffer_side(void)
{
    for (u32 i = 1; i <= 200; i++) {
        while (go != i)
            cpu_pause();
        shared_y = 1;
        asm volatile("mfence" : : : "memory");
        result_1 = shared_x;
        asm volatile("" : : : "memory");
        ready = i;
    }
}

static void locked_side(void)
{
    for (u32 i = 1; i <= 200; i++) {
        while (go != i)
            cpu_pause();
        u32 one = 1;
        asm volatile("xchgl %0, %1" : "+r"(one), "+m"(shared_y) : : "memory");
        result_1 = shared_x;
        ready = i;
    }
}

static u32 both_zero(void (*side)(void), bool fence)
{
    u32 bad = 0;
    go = ready = 0;
    smp_run(1, side);
    for (u32 i = 1; i <= 200; i++) {
        shared_x = shared_y = 0;
        asm volatile("mfence" : : : "memory");
        go = i;
        if (fence) {
            shared_x = 1;
            asm volatile("mfence" : : : "memory");
        } else {
            u32 one = 1;
            asm volatile("xchgl %0, %1" : "+r"(one), "+m"(shared_x) : : "memory");
        }
        result_0 = shared_y;
        while (ready != i)
            cpu_pause();
        bad += result_0 == 0 && result_1 == 0;
    }
    smp_wait(1);
    return bad;
}

static void ordering(void)
{
    wrong_order = shared_x = shared_y = 0;
    smp_run(1, reader);
    for (u32 i = 1; i <= 400; i++) {
        shared_x = i;
        barrier();
        shared_y = i;
    }
    smp_wait(1);
    CHECK_EQ("stores-in-order", wrong_order, 0);
    CHECK_EQ("mfence-orders", both_zero(store_buffer_side, true), 0);
    CHECK_EQ("xchg-orders", both_zero(locked_side, false), 0); /* 8.2.3.9 */
}

/* ---- IPIs ---- */

static volatile u32 ipis[MAX_CPUS], nmis[MAX_CPUS];
static volatile bool stop;

static void ipi(struct frame *f)
{
    (void)f;
    __atomic_fetch_add(&ipis[my_index()], 1, __ATOMIC_SEQ_CST);
    apic_write(APIC_EOI, 0);
}

static void nmi(struct frame *f)
{
    (void)f;
    nmis[my_index()]++;
}

static void wait_open(void)
{
    while (!stop)
        asm volatile("sti; nop; pause; cli" : : : "memory");
}

static void wait_halted(void)
{
    while (!stop)
        asm volatile("sti; hlt; cli" : : : "memory");
}

static void halt_once_closed(void) { asm volatile("cli; hlt" : : : "memory"); }

static bool reaches(volatile u32 *counter, u32 value)
{
    for (u32 i = 0; i < 3000 && *counter < value; i++)
        delay_us(1000);
    return *counter >= value;
}

static void start_waiting(void (*work)(void))
{
    stop = false;
    for (u32 i = 0; i < MAX_CPUS; i++)
        ipis[i] = 0;
    for (u32 i = 1; i < cpus_wanted; i++)
        smp_run(i, work);
}

static void stop_waiting(void)
{
    stop = true;
    for (u32 i = 1; i < cpus_wanted; i++)
        while (cpus[i].work) {
            apic_icr(ids[i], 0x4070);
            delay_us(100);
        }
}

static void interrupts(void)
{
    set_handler(0x70, ipi);
    start_waiting(wait_open);
    bool each = true, only = true;
    for (u32 i = 1; i < cpus_wanted; i++) {
        apic_icr(ids[i], 0x4070);
        each = each && reaches(&ipis[i], 1);
        for (u32 j = i + 1; j < cpus_wanted; j++)
            only = only && ipis[j] == 0;
    }
    CHECK("ipi-each", each);
    CHECK("ipi-only-the-addressed", only && ipis[0] == 0);
    apic_icr(0, APIC_OTHERS | 0x4070);
    each = true;
    for (u32 i = 1; i < cpus_wanted; i++)
        each = each && reaches(&ipis[i], 2);
    CHECK("ipi-all-but-self", each && ipis[0] == 0);
    apic_icr(0, APIC_ALL | 0x4070);
    each = true;
    for (u32 i = 1; i < cpus_wanted; i++)
        each = each && reaches(&ipis[i], 3);
    asm volatile("sti; nop; nop; cli" : : : "memory");
    CHECK("ipi-all", each && ipis[0] == 1);
    stop_waiting();
    /* halted ones wake up, many times */
    start_waiting(wait_halted);
    each = true;
    for (u32 k = 1; k <= 20; k++)
        for (u32 i = 1; i < cpus_wanted; i++) {
            apic_icr(ids[i], 0x4070);
            while (ipis[i] < k && each)
                each = reaches(&ipis[i], k);
        }
    CHECK("ipi-wakes-hlt", each);
    stop_waiting();
    set_handler(NMI, nmi);
    for (u32 i = 1; i < cpus_wanted; i++) {
        smp_run(i, halt_once_closed);
        delay_us(2000);
    }
    each = true;
    for (u32 i = 1; i < cpus_wanted; i++) {
        for (u32 k = 0; k < 1000 && cpus[i].work; k++) { /* the first may come before the HLT */
            apic_icr(ids[i], 0x4400);
            delay_us(1000);
        }
        each = each && nmis[i] && !cpus[i].work;
    }
    CHECK("nmi-wakes-hlt-with-if-off", each && nmis[0] == 0);
}

/* a SIPI to a running processor does nothing (8.4.4.1: only in wait-for-SIPI) */
static void late_sipi(void)
{
    u32 before = smp_running;
    apic_icr(ids[1], 0x4600 | TRAMPOLINE >> 12);
    delay_us(20000);
    CHECK_EQ("sipi-while-running", smp_running, before);
    /* INIT stops it where it is; SIPI starts it at the beginning */
    stop = false; /* before the work starts: it ends as soon as it sees true, and others left it so */
    smp_run(1, wait_open);
    apic_icr(ids[1], 0x4500);
    delay_us(20000);
    stop = true;
    delay_us(5000);
    CHECK("init-stops", cpus[1].work != NULL);
    apic_icr(ids[1], 0x4600 | TRAMPOLINE >> 12);
    for (u32 i = 0; i < 300 && smp_running == before; i++)
        delay_us(10000);
    CHECK_EQ("init-sipi-restarts", smp_running, before + 1);
}

/* ---- timers and time ---- */

static volatile u32 timer_hits[MAX_CPUS];
static void timer(struct frame *f)
{
    (void)f;
    timer_hits[my_index()]++;
    apic_write(APIC_EOI, 0);
}

static void own_timer(void)
{
    apic_write(APIC_TDCR, 0x0b);
    apic_write(APIC_LVTT, 0x20071);
    apic_write(APIC_TMICT, 1000000);
    while (timer_hits[my_index()] < 5)
        asm volatile("sti; hlt; cli" : : : "memory");
    apic_write(APIC_LVTT, 0x10000);
    asm volatile("sti; nop; nop; cli" : : : "memory");
}

static volatile u64 last_tsc;
static volatile u32 baton, backwards;

static void tsc_relay(void)
{
    u32 n = cpus_wanted, me = my_index();
    for (u32 i = 0; i < 40; i++) {
        while (baton % n != me)
            cpu_pause();
        asm volatile("lfence" : : : "memory");
        u64 now = rdtsc();
        if (now < last_tsc)
            backwards++;
        last_tsc = now;
        baton = baton + 1;
    }
}

static void time(void)
{
    set_handler(0x71, timer);
    smp_all(own_timer);
    bool all = true;
    for (u32 i = 0; i < cpus_wanted; i++)
        all = all && timer_hits[i] >= 5;
    CHECK("timer-on-each", all);
    smp_all(tsc_relay);
    CHECK_EQ("tsc-monotone-across", backwards, 0); /* 17.17: invariant, and synchronised by the reset */
}

/* ---- TLB shoot-down ---- */

#if WIDE
#define SHOT 0x200000000000ul
static volatile u32 acknowledged, mismatches, round_number;

static void shootdown(struct frame *f)
{
    (void)f;
    invlpg((void *)SHOT);
    __atomic_fetch_add(&acknowledged, 1, __ATOMIC_SEQ_CST);
    apic_write(APIC_EOI, 0);
}

static void keep_reading(void)
{
    while (!stop) {
        u32 before = round_number;
        u32 value = *(volatile u32 *)SHOT;
        u32 now = round_number;
        if (before == now && !(before & 1) && value != before)
            mismatches++; /* between two rounds everybody has dropped the old mapping */
        asm volatile("sti; nop; cli" : : : "memory");
    }
}

static void shoot_downs(void)
{
    static u32 ALIGNED(4096) pages[2][1024];
    struct space s = { .mode = PAGING_LONG, .root = read_cr3() };
    map(&s, SHOT, (ulong)pages[0], PTE_RWU, 1);
    set_handler(0x72, shootdown);
    round_number = 0;
    pages[0][0] = 0;
    start_waiting(keep_reading);
    for (u32 k = 1; k <= 30; k++) {
        u32 *next = pages[k & 1];
        next[0] = 2 * k;
        round_number = 2 * k - 1;
        acknowledged = 0;
        entry_set(&s, SHOT, 1, (ulong)next | PTE_RWU);
        invlpg((void *)SHOT);
        apic_icr(0, APIC_OTHERS | 0x4072);
        while (acknowledged < cpus_wanted - 1)
            cpu_pause();
        round_number = 2 * k;
        for (u32 i = 0; i < 100; i++)
            cpu_pause();
    }
    stop_waiting();
    CHECK_EQ("tlb-shootdown", mismatches, 0);
}
#endif

void guest_main(void)
{
    cpus_wanted = (u32)option("cpus", 2);
    CHECK_EQ("firmware-tables", smp_count(), cpus_wanted);
    CHECK_EQ("started", smp_start(cpus_wanted), cpus_wanted);
    if (smp_running < cpus_wanted)
        return;
    identities();
    locked();
    ordering();
    interrupts();
    time();
#if WIDE
    shoot_downs();
#endif
    late_sipi();
}
