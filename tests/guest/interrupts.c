/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupts: 8259 pair, 8254, local APIC and its timer, I/O APIC, NMI, shadows, HLT. */
#include "guest.h"

#define COM1 0x3f8
static volatile u32 ticks, order_length;
static volatile u8 order[16];
static volatile bool keep_serial_line;

static u8 rtc(u8 reg)
{
    out8(0x70, reg);
    return in8(0x71);
}

static void rtc_write(u8 reg, u8 value)
{
    out8(0x70, reg);
    out8(0x71, value);
}

/* Runs until the counter gets there or a generous count of the PIT's time has passed. */
static bool wait_for(volatile u32 *counter, u32 value)
{
    enable_interrupts();
    for (int i = 0; i < 2000 && *counter < value; i++)
        delay_us(1000);
    disable_interrupts();
    return *counter >= value;
}

static void quiet_us(u32 us)
{
    enable_interrupts();
    delay_us(us);
    disable_interrupts();
}

/* The 16550's "transmitter empty" is a line that can be raised and lowered at will: IRQ 4. */
static void serial_irq(bool on)
{
    if (on) {
        while (!(in8(COM1 + 5) & 0x20))
            ;
        out8(COM1 + 4, 0x0b); /* OUT2 lets the line out */
        out8(COM1 + 1, 2);
    } else {
        out8(COM1 + 1, 0);
    }
}

static void pic_tick(struct frame *f)
{
    (void)f;
    ticks++;
    pic_eoi(0);
}

static void note(struct frame *f)
{
    if (order_length < sizeof(order))
        order[order_length++] = (u8)f->vector;
    if (f->vector == IRQ_BASE + 4)
        serial_irq(false);
    if (f->vector == IRQ_BASE + 8)
        rtc_write(0x0b, rtc(0x0b) & ~0x70), rtc(0x0c);
    if (f->vector >= IRQ_BASE && f->vector < IRQ_BASE + 16)
        pic_eoi((int)f->vector - IRQ_BASE);
    else
        apic_write(APIC_EOI, 0);
}

static void pic_tests(void)
{
    for (u8 v = IRQ_BASE; v < IRQ_BASE + 16; v++)
        set_handler(v, note);
    pic_init();
    CHECK_EQ("pic-mask-reads-back", in8(0x21), 0xff);
    set_handler(IRQ_BASE, pic_tick);
    pic_mask(0xfffe);
    ticks = 0;
    pit_periodic(200);
    CHECK("pic-pit-ticks", wait_for(&ticks, 5));
    pic_mask(0xffff);
    u32 before = ticks;
    quiet_us(20000);
    CHECK_EQ("pic-masked", ticks, before);
    for (int i = 0; i < 100 && !(pic_irr() & 1); i++)
        delay_us(1000);
    CHECK("pic-irr-while-masked", pic_irr() & 1);
    ticks = 0;
    pic_mask(0xfffe);
    CHECK("pic-unmask-delivers", wait_for(&ticks, 1));
    pit_stop();
    pic_mask(0xffff);

    /* no second interrupt of the same or a lower level before EOI */
    set_handler(IRQ_BASE, NULL);
    pic_init(); /* forgets a tick that came late */
    pic_mask(0xffee);
    pit_one_shot(1000);
    struct trap t = TRY("8: jmp 8b", .flags = FLAG_IF);
    CHECK_EQ("pic-vector", t.vector, IRQ_BASE);
    CHECK_EQ("pic-isr", pic_isr() & 1, 1);
    order_length = 0;
    serial_irq(true);
    quiet_us(2000);
    CHECK_EQ("pic-lower-waits-for-eoi", order_length, 0);
    CHECK_EQ("pic-lower-in-irr", pic_irr() & 0x10, 0x10);
    pic_eoi(0);
    wait_for(&order_length, 1);
    CHECK_EQ("pic-lower-after-eoi", order[0], IRQ_BASE + 4);
    CHECK_EQ("pic-isr-empty", pic_isr(), 0);

    /* a higher one preempts one in service */
    pic_mask(0xffee);
    set_handler(IRQ_BASE + 4, NULL);
    serial_irq(true);
    t = TRY("8: jmp 8b", .flags = FLAG_IF);
    CHECK_EQ("pic-irq4", t.vector, IRQ_BASE + 4);
    serial_irq(false);
    pit_one_shot(1000);
    set_handler(IRQ_BASE, pic_tick);
    ticks = 0;
    CHECK("pic-higher-preempts", wait_for(&ticks, 1));
    CHECK_EQ("pic-isr-of-4", pic_isr(), 0x10);
    out8(0x20, 0x64); /* specific EOI */
    CHECK_EQ("pic-specific-eoi", pic_isr(), 0);
    set_handler(IRQ_BASE + 4, note);
    set_handler(IRQ_BASE, note);

    /* order of simultaneous requests: 0, then 8 (through 2), then 4 */
    pic_mask(0xffff);
    order_length = 0;
    rtc(0x0c);
    rtc_write(0x0a, 0x26);
    rtc_write(0x0b, rtc(0x0b) | 0x40);
    serial_irq(true);
    pit_one_shot(1000);
    for (int i = 0; i < 100 && (pic_irr() & 0x111) != 0x111; i++)
        delay_us(1000);
    CHECK_EQ("pic-all-in-irr", pic_irr() & 0x111, 0x111);
    pic_mask(0xfeea);
    wait_for(&order_length, 3);
    CHECK("pic-priority-order",
          order_length == 3 && order[0] == IRQ_BASE && order[1] == IRQ_BASE + 8 && order[2] == IRQ_BASE + 4);
    pic_mask(0xffff);

    /* automatic EOI; another vector base */
    out8(0x20, 0x11), out8(0x21, 0x50), out8(0x21, 4), out8(0x21, 3);
    out8(0x21, 0xef);
    serial_irq(true);
    t = TRY("8: jmp 8b", .flags = FLAG_IF);
    serial_irq(false);
    CHECK_EQ("pic-vector-base", t.vector, 0x54);
    CHECK_EQ("pic-auto-eoi", pic_isr() & 0xff, 0);
    pic_init();

    /* poll: OCW3 with P, the next read acknowledges */
    serial_irq(true);
    out8(0x21, 0xef);
    out8(0x20, 0x0c);
    CHECK_EQ("pic-poll", in8(0x20) & 0x87, 0x84);
    serial_irq(false);
    out8(0x20, 0x20);
    pic_mask(0xffff);
    pic_init();

    /* the edge/level registers */
    u8 low = in8(0x4d0), high = in8(0x4d1);
    out8(0x4d0, 0xff), out8(0x4d1, 0xff);
    CHECK("elcr-fixed-bits", in8(0x4d0) == 0xf8 && in8(0x4d1) == 0xde);
    out8(0x4d0, low), out8(0x4d1, high);
}

static void pit_tests(void)
{
    /* channel 2: gate, output at port 61h */
    out8(0x61, (u8)(in8(0x61) & ~3));
    out8(0x43, 0xb0);
    out8(0x42, 0x00), out8(0x42, 0x10);
    CHECK("pit-out2-low-after-mode-0", !(in8(0x61) & 0x20));
    u64 start = rdtsc();
    for (u32 i = 0; i < 50; i++)
        in8(0x80);
    out8(0x43, 0x80); /* latch */
    u32 count = in8(0x42);
    count |= (u32)in8(0x42) << 8;
    CHECK_EQ("pit-gate-low-stops", count, 0x1000);
    out8(0x61, (u8)(in8(0x61) | 1));
    while (!(in8(0x61) & 0x20))
        ;
    u64 took = rdtsc() - start;
    CHECK("pit-out2-rises", took > 0);
    out8(0x43, 0xb6); /* mode 3 */
    out8(0x42, 0), out8(0x42, 0);
    out8(0x43, 0xe8); /* read back: status of channel 2 */
    CHECK_EQ("pit-read-back-status", in8(0x42) & 0x3f, 0x36);
    out8(0x43, 0x34);
    out8(0x40, 0xff), out8(0x40, 0xff);
    out8(0x43, 0xc2); /* read back: count and status of channel 0 */
    u8 status = in8(0x40);
    u32 first = in8(0x40);
    first |= (u32)in8(0x40) << 8;
    CHECK_EQ("pit-status-then-count", status & 0x3f, 0x34);
    delay_us(1000);
    out8(0x43, 0x00);
    u32 second = in8(0x40);
    second |= (u32)in8(0x40) << 8;
    CHECK("pit-counts-down", second < first);
    out8(0x43, 0x10); /* low byte only, mode 0 */
    out8(0x40, 0x80);
    out8(0x43, 0xe2);
    CHECK_EQ("pit-low-byte-only", in8(0x40) & 0x3f, 0x10);
    pit_stop();
    /* never early: 10 ms by channel 0 take 10 ms by the TSC that channel 2 measured */
    u64 hz = tsc_hz();
    set_handler(IRQ_BASE, pic_tick);
    pic_init(); /* forgets the edges of the mode changes */
    pic_mask(0xfffe);
    ticks = 0;
    start = rdtsc();
    pit_one_shot(11932);
    enable_interrupts();
    while (!ticks)
        ;
    took = rdtsc() - start;
    disable_interrupts();
    u32 ms = (u32)took / ((u32)hz / 1000);
    CHECK("pit-not-early", ms >= 8);
    quiet_us(20000);
    CHECK_EQ("pit-mode-0-once", ticks, 1);
    pic_mask(0xffff);
    pit_stop();
}

/* ---- local APIC ---- */

static volatile u32 apic_ticks;
static volatile u32 seen_ppr, seen_isr, depth, deepest;

static void apic_tick(struct frame *f)
{
    seen_ppr = apic_read(APIC_PPR);
    seen_isr = apic_bit(APIC_ISR, (u8)f->vector);
    apic_ticks++;
    apic_write(APIC_EOI, 0);
}

static void spurious(struct frame *f) { (void)f; } /* no EOI for it (10.9) */

static void self(u8 vector) { apic_icr(0, APIC_SELF | 0x4000 | vector); }

/* in service with IF on: sends three more, of a lower, the same and a higher class */
static void nested(struct frame *f)
{
    order[order_length++] = (u8)f->vector;
    self(0x55);
    self(0x6a);
    self(0x75);
    enable_interrupts();
    for (int i = 0; i < 20; i++)
        cpu_pause();
    disable_interrupts();
    order[order_length++] = 0xee;
    apic_write(APIC_EOI, 0);
}

static void apic_tests(void)
{
    CHECK("apic-base-enabled", rdmsr(MSR_APIC_BASE) & 0x800);
    CHECK_EQ("apic-base-address", rdmsr(MSR_APIC_BASE) & 0xfffff000, APIC_BASE);
    CHECK("apic-bsp", rdmsr(MSR_APIC_BASE) & 0x100);
    CHECK_EQ("apic-version", apic_read(APIC_VERSION) & 0xf0, 0x10);
    CHECK("apic-six-lvts", (apic_read(APIC_VERSION) >> 16 & 0xff) >= 5);
    CHECK_EQ("apic-id-is-cpuid", apic_read(APIC_ID) >> 24, cpuid(1, 0).b >> 24);
    apic_enable();
    set_handler(0xff, spurious);
    pic_mask(0xffff);

    /* SDM 3A 10.8.4: IRR, then ISR; EOI clears the ISR bit; PPR is the class in service */
    set_handler(0x60, apic_tick);
    apic_ticks = 0;
    self(0x60);
    CHECK("apic-irr", apic_bit(APIC_IRR, 0x60));
    CHECK("apic-isr-not-yet", !apic_bit(APIC_ISR, 0x60));
    CHECK_EQ("apic-not-while-if-off", apic_ticks, 0);
    CHECK("apic-self-ipi", wait_for(&apic_ticks, 1));
    CHECK_EQ("apic-ppr-in-service", seen_ppr, 0x60);
    CHECK_EQ("apic-isr-in-service", seen_isr, 1);
    CHECK("apic-eoi-clears", !apic_bit(APIC_ISR, 0x60) && !apic_bit(APIC_IRR, 0x60));
    CHECK_EQ("apic-ppr-idle", apic_read(APIC_PPR), 0);

    /* the highest vector first */
    order_length = 0;
    static const u8 used[] = { 0x55, 0x5a, 0x64, 0x70, 0x75 };
    for (u32 i = 0; i < sizeof(used); i++)
        set_handler(used[i], note);
    self(0x55), self(0x75), self(0x5a), self(0x64);
    wait_for(&order_length, 4);
    CHECK("apic-order",
          order_length == 4 && order[0] == 0x75 && order[1] == 0x64 && order[2] == 0x5a && order[3] == 0x55);
    /* two requests of one vector while pending are one */
    order_length = 0;
    self(0x55), self(0x55);
    quiet_us(1000);
    CHECK_EQ("apic-requests-merge", order_length, 1);
    /* nesting: a higher class preempts, the same class and lower wait for EOI */
    set_handler(0x65, nested);
    set_handler(0x6a, note);
    order_length = 0;
    self(0x65);
    wait_for(&order_length, 5);
    CHECK("apic-nesting", order_length == 5 && order[0] == 0x65 && order[1] == 0x75 && order[2] == 0xee &&
                              order[3] == 0x6a && order[4] == 0x55);
    set_handler(0x65, note);

    /* TPR: classes at or below it wait (10.8.3.1) */
    apic_write(APIC_TPR, 0x60);
    CHECK_EQ("apic-ppr-is-tpr", apic_read(APIC_PPR), 0x60);
    order_length = 0;
    self(0x6a), self(0x55);
    quiet_us(500);
    CHECK_EQ("apic-tpr-blocks", order_length, 0);
    self(0x70);
    quiet_us(500);
    CHECK("apic-tpr-passes-higher", order_length == 1 && order[0] == 0x70);
    apic_write(APIC_TPR, 0x50);
    wait_for(&order_length, 2);
    CHECK("apic-tpr-lowered", order_length == 2 && order[1] == 0x6a);
    apic_write(APIC_TPR, 0);
    wait_for(&order_length, 3);
    CHECK("apic-tpr-zero", order_length == 3 && order[2] == 0x55);
#if WIDE
    /* CR8 is TPR[7:4] (10.8.6) */
    ulong cr8 = 9;
    asm volatile("mov %0, %%cr8" : : "r"(cr8));
    CHECK_EQ("cr8-writes-tpr", apic_read(APIC_TPR), 0x90);
    apic_write(APIC_TPR, 0x35);
    asm volatile("mov %%cr8, %0" : "=r"(cr8));
    CHECK_EQ("cr8-reads-tpr", cr8, 3);
    cr8 = 15;
    asm volatile("mov %0, %%cr8" : : "r"(cr8));
    order_length = 0;
    self(0x75);
    quiet_us(500);
    CHECK_EQ("cr8-blocks", order_length, 0);
    cr8 = 0;
    asm volatile("mov %0, %%cr8" : : "r"(cr8));
    wait_for(&order_length, 1);
    CHECK_EQ("cr8-opens", order_length, 1);
    FAULT("cr8-reserved", TRY("mov cr8, rax", .ax = 16), GP, 0);
#endif
    /* logical destination, flat model */
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 0x04000000);
    order_length = 0;
    apic_icr(0x04, 0x4800 | 0x55);
    quiet_us(500);
    CHECK_EQ("apic-logical-match", order_length, 1);
    apic_icr(0x08, 0x4800 | 0x55);
    quiet_us(500);
    CHECK_EQ("apic-logical-other", order_length, 1);
    apic_icr(0x0c, 0x4800 | 0x55);
    quiet_us(500);
    CHECK_EQ("apic-logical-set", order_length, 2);
    apic_icr(apic_read(APIC_ID) >> 24, 0x4000 | 0x55);
    quiet_us(500);
    CHECK_EQ("apic-physical", order_length, 3);
    apic_icr(0xff, 0x4000 | 0x55);
    quiet_us(500);
    CHECK_EQ("apic-physical-broadcast", order_length, 4);
    apic_icr(0, APIC_ALL | 0x4000 | 0x55);
    quiet_us(500);
    CHECK_EQ("apic-all-including-self", order_length, 5);
    apic_icr(0, APIC_OTHERS | 0x4000 | 0x55);
    quiet_us(500);
    CHECK_EQ("apic-others-none", order_length, 5);
    /* software disable masks the LVT (10.4.7.2) */
    apic_write(APIC_LVTT, 0x60);
    apic_write(APIC_SVR, 0xff);
    CHECK("apic-disabled-masks-lvt", apic_read(APIC_LVTT) & 0x10000);
    apic_write(APIC_SVR, 0x1ff);
    apic_write(APIC_LVTT, 0x10000);
    /* the LVT's bits */
    apic_write(APIC_LVTT, 0xffffffff);
    CHECK_EQ("apic-lvt-timer-bits", apic_read(APIC_LVTT) & ~0x50000u, 0x200ff);
    apic_write(APIC_LVTT, 0x10000);
}

static void timer_tests(void)
{
    set_handler(0x60, apic_tick);
    apic_write(APIC_TDCR, 0x0b); /* by 1 */
    /* one-shot (10.5.4) */
    apic_ticks = 0;
    apic_write(APIC_LVTT, 0x60);
    apic_write(APIC_TMICT, 200000);
    CHECK("timer-one-shot", wait_for(&apic_ticks, 1));
    CHECK_EQ("timer-one-shot-at-zero", apic_read(APIC_TMCCT), 0);
    quiet_us(5000);
    CHECK_EQ("timer-one-shot-once", apic_ticks, 1);
    apic_write(APIC_TMICT, 0xffffffff);
    u32 first = apic_read(APIC_TMCCT);
    delay_us(100);
    u32 second = apic_read(APIC_TMCCT);
    CHECK("timer-counts-down", second < first && second != 0);
    apic_write(APIC_TMICT, 0);
    CHECK_EQ("timer-zero-stops", apic_read(APIC_TMCCT), 0);
    /* masked: counts, no interrupt */
    apic_ticks = 0;
    apic_write(APIC_LVTT, 0x10060);
    apic_write(APIC_TMICT, 1000);
    quiet_us(2000);
    CHECK_EQ("timer-masked", apic_ticks, 0);
    /* periodic */
    apic_write(APIC_LVTT, 0x20060);
    apic_write(APIC_TMICT, 1000000);
    CHECK("timer-periodic", wait_for(&apic_ticks, 5));
    apic_write(APIC_LVTT, 0x10000);
    apic_write(APIC_TMICT, 0);
    u32 before = apic_ticks;
    quiet_us(3000);
    CHECK("timer-stopped", apic_ticks <= before + 1);
    /* the divider: 128 times slower. Ticks of 10 ms of the PIT at each. */
    apic_write(APIC_LVTT, 0x10060);
    apic_write(APIC_TDCR, 0x0b);
    apic_write(APIC_TMICT, 0xffffffff);
    delay_us(1000);
    u32 fast = 0xffffffff - apic_read(APIC_TMCCT);
    apic_write(APIC_TDCR, 0x0a);
    apic_write(APIC_TMICT, 0xffffffff);
    delay_us(1000);
    u32 slow = 0xffffffff - apic_read(APIC_TMCCT);
    CHECK("timer-divider", slow < fast && slow > 0);
    apic_write(APIC_TMICT, 0);
    apic_write(APIC_TDCR, 0x0b);

    if (!has(F_TSC_DEADLINE)) {
        check_skip("timer-deadline", "no TSC-deadline mode");
        return;
    }
    /* 10.5.4.1 */
    u64 hz = tsc_hz();
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 1000);
    CHECK_EQ("deadline-ignored-in-other-modes", rdmsr(MSR_TSC_DEADLINE), 0);
    apic_write(APIC_LVTT, 0x40060);
    apic_ticks = 0;
    u64 target = rdtsc() + hz / 200;
    wrmsr(MSR_TSC_DEADLINE, target);
    CHECK_EQ("deadline-reads-back", rdmsr(MSR_TSC_DEADLINE), target);
    enable_interrupts();
    while (!apic_ticks)
        ;
    disable_interrupts();
    CHECK("deadline-not-early", rdtsc() >= target);
    CHECK_EQ("deadline-zero-after", rdmsr(MSR_TSC_DEADLINE), 0);
    apic_ticks = 0;
    wrmsr(MSR_TSC_DEADLINE, 1);
    CHECK("deadline-in-the-past", wait_for(&apic_ticks, 1));
    apic_ticks = 0;
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + hz / 100);
    wrmsr(MSR_TSC_DEADLINE, 0);
    quiet_us(20000);
    CHECK_EQ("deadline-disarmed", apic_ticks, 0);
    apic_write(APIC_TMICT, 100000); /* no effect in this mode */
    CHECK_EQ("deadline-count-reads-zero", apic_read(APIC_TMCCT), 0);
    apic_write(APIC_LVTT, 0x10000);
}

/* ---- NMI ---- */

static volatile u32 nmis, nmi_depth, nmi_deepest;

static void nmi(struct frame *f)
{
    (void)f;
    nmi_depth++;
    if (nmi_depth > nmi_deepest)
        nmi_deepest = nmi_depth;
    if (nmis++ == 0) {
        apic_icr(apic_read(APIC_ID) >> 24, 0x4400);
        delay_us(200);
    }
    nmi_depth--;
}

static volatile u32 nmi_in_handler;
static void nmi_then_iret(struct frame *f)
{
    (void)f;
    if (nmis++ == 0) {
        /* SDM 3A 6.7.1: an IRET opens NMIs again, even one that is not the NMI handler's last */
        apic_icr(apic_read(APIC_ID) >> 24, 0x4400);
        u32 before = nmis;
        set_handler(0x32, apic_tick);
        asm volatile("int $0x32");
        nmi_in_handler = nmis - before;
    }
}

static void nmi_tests(void)
{
    u32 id = apic_read(APIC_ID) >> 24;
    struct trap t = TRY("8: nop", .ax = 0);
    set_handler(NMI, nmi);
    nmis = nmi_deepest = 0;
    apic_icr(id, 0x4400);
    for (int i = 0; i < 100 && nmis < 2; i++)
        delay_us(100);
    CHECK_EQ("nmi-with-if-off", nmis, 2);
    CHECK_EQ("nmi-blocked-till-iret", nmi_deepest, 1);
    set_handler(NMI, nmi_then_iret);
    nmis = 0;
    apic_icr(id, 0x4400);
    for (int i = 0; i < 100 && nmis < 2; i++)
        delay_us(100);
    CHECK_EQ("nmi-any-iret-unblocks", nmi_in_handler, 1);
    set_handler(NMI, NULL);
    /* captured: no error code, the frame of an interrupt; RF as it was */
    t = TRY("mov [" R(bx) "], eax\n mov ecx, 100000\n 8: dec ecx\n jnz 8b", .bx = APIC_BASE + APIC_ICR,
            .ax = 0x4400);
    CHECK_EQ("nmi-vector", t.vector, NMI);
    /* LVT0 as NMI-less, LINT1 untouched: nothing more to come */
    t = DONE("nmi-open-again", TRY("nop"));
}

/* ---- shadows and HLT (SDM 2B STI, 2A HLT; 3A 6.8) ---- */

static void shadow_tests(void)
{
    set_handler(0x60, NULL);
    struct trap t;
    apic_write(APIC_TPR, 0);
    self(0x60);
    t = FAULT("sti-one-instruction-shadow", TRY("sti\n nop\n 8: nop\n nop"), 0x60, 0);
    apic_write(APIC_EOI, 0);
    CHECK("sti-saved-if", t.regs.flags & FLAG_IF);
    self(0x60);
    DONE("sti-cli-never-opens", TRY("sti\n cli\n nop\n nop"));
    FAULT("sti-inc-cli", TRY("sti\n inc eax\n 8: cli"), 0x60, 0);
    apic_write(APIC_EOI, 0);
    self(0x60);
    t = FAULT("sti-fault-in-shadow", TRY("sti\n 8: ud2"), UD, 0);
    t = FAULT("sti-hlt", TRY("sti\n hlt\n 8: nop"), 0x60, 0);
    apic_write(APIC_EOI, 0);
    self(0x60);
    FAULT("popf-opens-at-once", TRY("popf\n 8: nop\n nop", .sp = on_stack(0x202)), 0x60, 0);
    apic_write(APIC_EOI, 0);
    self(0x60);
    t = FAULT("iret-opens-at-once", TRY("8: nop\n nop", .flags = FLAG_IF), 0x60, 0);
    apic_write(APIC_EOI, 0);
    self(0x60);
    t = TRY_USER("8: nop\n nop", .flags = FLAG_IF);
    check_fault("iret-to-user-opens", &t, 0x60, 0);
    CHECK_EQ("user-interrupt-cs", t.regs.cs, SEL_USER_CODE);
    CHECK_EQ("user-interrupt-sp", t.regs.sp, (ulong)user_stack_top);
    apic_write(APIC_EOI, 0);
    /* a pending interrupt comes before the next instruction's fault, but after a fault in the shadow */
    self(0x60);
    t = FAULT("interrupt-before-next-fault", TRY("popf\n 8: ud2", .sp = on_stack(0x202)), 0x60, 0);
    apic_write(APIC_EOI, 0);
    /* HLT: the saved ip is behind it; woken by a timer, and by an NMI with IF off */
    apic_write(APIC_LVTT, 0x60);
    u32 count = 500000;
    do { /* on a busy host the time may be up before the HLT */
        count *= 2;
        apic_write(APIC_TMICT, count);
        t = TRY("hlt\n 8: nop", .flags = FLAG_IF);
        apic_write(APIC_EOI, 0);
    } while (t.off < 0 && count < 1u << 30);
    check_fault("hlt-timer", &t, 0x60, 0);
    apic_write(APIC_LVTT, 0x10000);
    set_handler(0x60, apic_tick);
    /* STI; HLT in the idle loop, many times */
    apic_ticks = 0;
    apic_write(APIC_LVTT, 0x20060);
    apic_write(APIC_TMICT, 300000);
    u32 rounds = 0;
    while (apic_ticks < 20 && rounds < 100000) {
        asm volatile("sti; hlt; cli" : : : "memory");
        rounds++;
    }
    apic_write(APIC_LVTT, 0x10000);
    CHECK("idle-loop", apic_ticks >= 20 && rounds <= apic_ticks);
    quiet_us(1000);
}

/* ---- 8259s behind the local APIC, and the I/O APIC ---- */

static void ext_int_tests(void)
{
    pic_init();
    set_handler(IRQ_BASE, pic_tick);
    pic_mask(0xfffe);
    apic_write(APIC_LVT0, 0x10000);
    ticks = 0;
    pit_periodic(500);
    quiet_us(10000);
    CHECK_EQ("extint-lvt0-masked", ticks, 0);
    apic_write(APIC_LVT0, 0x700);
    CHECK("extint", wait_for(&ticks, 3));
    CHECK("extint-not-in-isr", !apic_bit(APIC_ISR, IRQ_BASE));
    pit_stop();
    pic_mask(0xffff);
    apic_write(APIC_LVT0, 0x10000);
}

static volatile u32 level_hits;

static void level_interrupt(struct frame *f)
{
    (void)f;
    if (++level_hits == 3)
        serial_irq(false);
    apic_write(APIC_EOI, 0);
}

static void ioapic_tests(void)
{
    u8 id = (u8)(apic_read(APIC_ID) >> 24);
    CHECK_EQ("ioapic-24-pins", ioapic_read(1) >> 16 & 0xff, 23);
    ioapic_write(0, 0x05000000);
    CHECK_EQ("ioapic-id", ioapic_read(0) & 0x0f000000, 0x05000000);
    ioapic_write(0x10 + 2 * 9, 0x1ffff);
    CHECK_EQ("ioapic-read-only-bits", ioapic_read(0x10 + 2 * 9), 0x1ffff & ~0x5000u);
    ioapic_write(0x10 + 2 * 9, IOAPIC_MASKED);
    /* the PIT on pin 2 (the MADT's usual override) */
    set_handler(0x61, apic_tick);
    apic_ticks = 0;
    pit_periodic(500);
    ioapic_route(2, 0x61, 0, id);
    CHECK("ioapic-edge", wait_for(&apic_ticks, 3));
    ioapic_route(2, 0x61, IOAPIC_MASKED, id);
    quiet_us(100); /* one may have been on its way */
    u32 before = apic_ticks;
    quiet_us(10000);
    CHECK_EQ("ioapic-masked", apic_ticks, before);
    pit_stop();
    /* level: as long as the line is up, each EOI brings the next */
    set_handler(0x62, level_interrupt);
    level_hits = 0;
    ioapic_route(4, 0x62, IOAPIC_LEVEL, id);
    serial_irq(true);
    wait_for(&level_hits, 3);
    quiet_us(1000);
    CHECK_EQ("ioapic-level-repeats", level_hits, 3);
    set_handler(0x62, NULL);
    serial_irq(true);
    struct trap t = TRY("8: jmp 8b", .flags = FLAG_IF);
    CHECK_EQ("ioapic-level-vector", t.vector, 0x62);
    CHECK("ioapic-remote-irr", ioapic_read(0x10 + 2 * 4) & 0x4000);
    CHECK("apic-tmr-level", apic_bit(APIC_TMR, 0x62));
    serial_irq(false);
    apic_write(APIC_EOI, 0);
    CHECK("ioapic-remote-irr-cleared", !(ioapic_read(0x10 + 2 * 4) & 0x4000));
    /* edge: once for each rise */
    set_handler(0x62, apic_tick);
    apic_ticks = 0;
    ioapic_route(4, 0x62, 0, id);
    serial_irq(true);
    quiet_us(1000);
    CHECK_EQ("ioapic-edge-once", apic_ticks, 1);
    CHECK("apic-tmr-edge", !apic_bit(APIC_TMR, 0x62));
    serial_irq(false);
    serial_irq(true);
    quiet_us(1000);
    CHECK_EQ("ioapic-edge-again", apic_ticks, 2);
    serial_irq(false);
    /* another destination: nobody */
    set_handler(0x63, note);
    order_length = 0;
    ioapic_route(4, 0x63, 0, (u8)(id + 3));
    serial_irq(true);
    quiet_us(1000);
    CHECK_EQ("ioapic-other-destination", order_length, 0);
    serial_irq(false);
    ioapic_route(4, 0x62, IOAPIC_MASKED, id);
}

/* Last, since a machine that does not wake up here hangs: LINT0 (the 8259s' line) as NMI, IF off. */
static void hlt_nmi_test(void)
{
    nmis = 1;
    set_handler(NMI, nmi);
    apic_write(APIC_LVT0, 0x10000);
    pic_init();
    pit_one_shot(60000); /* 50 ms: what comes before the HLT is lost */
    pic_mask(0xfffe);
    apic_write(APIC_LVT0, 0x400);
    asm volatile("hlt" : : : "memory");
    u32 woke = nmis;
    apic_write(APIC_LVT0, 0x10000);
    CHECK("hlt-nmi-with-if-off", woke >= 2);
    pit_stop();
    pic_init();
    set_handler(NMI, NULL);
}

void guest_main(void)
{
    pit_stop();
    pic_tests();
    pit_tests();
    apic_tests();
    timer_tests();
    nmi_tests();
    shadow_tests();
    ext_int_tests();
    ioapic_tests();
    hlt_nmi_test();
}
