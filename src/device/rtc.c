/* SPDX-License-Identifier: Apache-2.0 */
/* The clock as an offset to the virtual clock; flags are found out when someone looks or waits for them. */
#include "device/rtc.h"

#include <errno.h>
#include <stdlib.h>

#include "device/rate.h"
#include "device/rtc_registers.h"

#define A_UIP 0x80u
#define A_DIVIDER 0x70u
#define A_DIVIDER_32K 0x20u
#define A_RATE 0x0fu
#define B_SET 0x80u
/* Interrupt flags of register C; register B enables them at the same places. */
#define IRQF 0x80u
#define PF 0x40u
#define AF 0x20u
#define UF 0x10u
#define FLAGS (PF | AF | UF)
#define D_VALID 0x80u

#define UIP_NS 244000u /* UIP comes so long before the update */
#define CRYSTAL_HZ 32768u
#define BACKLOG_MAX 8u /* late periodic ticks to make up for */
#define TIME_LIMIT (1ull << 63)

struct rtc_state {
    uint8_t cmos[RTC_SIZE]; /* time registers are current only while the clock is stopped */
    uint8_t index;
    uint8_t backlog;      /* periodic ticks that came while PF was still set */
    uint64_t offset;      /* ns, modulo 2^64: time of day = wall base + virtual clock + offset */
    uint64_t second_seen; /* flags are accounted for up to this second ... */
    uint64_t tick_seen;   /* ... and up to this periodic tick */
    uint64_t backlog_at;  /* virtual ns at which to make up for the next one */
};

struct rtc {
    struct rtc_state s;
    struct clock *clk;
    struct line irq;
    uint64_t ram_below_4g, ram_above_4g;
    bool irq_level;
    struct deadline due;
};

static const struct state_field fields[] = {
    STATE_ARRAY(struct rtc_state, cmos),
    STATE_FIELD_MAX(struct rtc_state, index, 127),
    STATE_FIELD_MAX(struct rtc_state, backlog, BACKLOG_MAX),
    STATE_FIELD(struct rtc_state, offset),
    STATE_FIELD(struct rtc_state, second_seen),
    STATE_FIELD(struct rtc_state, tick_seen),
    STATE_FIELD(struct rtc_state, backlog_at),
};

static const struct state_class class = {
    "rtc", 1, sizeof(struct rtc_state), fields, array_size(fields), NULL
};

/* --- time of day -------------------------------------------------------------------------------------- */

static bool running(const struct rtc_state *s)
{
    return !(s->cmos[RTC_B] & B_SET) && (s->cmos[RTC_A] & A_DIVIDER) == A_DIVIDER_32K;
}

static uint64_t wall_ns(const struct rtc *rtc)
{
    return clock_wall_base_ns(rtc->clk) + clock_now(rtc->clk) + rtc->s.offset;
}

/* Copies the time into its registers. */
static void show_time(struct rtc *rtc)
{
    struct date d = date_of((int64_t)(wall_ns(rtc) / NS_PER_SECOND));
    rtc_put_date(rtc->s.cmos, &d);
}

/* Makes the registers the time, with this fraction of the second. */
static void take_time(struct rtc *rtc, uint64_t fraction)
{
    struct date d = rtc_get_date(rtc->s.cmos);
    int64_t seconds = date_seconds(&d);
    if (seconds < 0)
        seconds = 0; /* before 1970: outside of what this clock counts */
    rtc->s.offset += (uint64_t)seconds * NS_PER_SECOND + fraction - wall_ns(rtc);
    rtc->s.second_seen = (uint64_t)seconds;
}

/* --- flags and the interrupt -------------------------------------------------------------------------- */

/* Crystal ticks in a period of the rate selected, 0 = off (data sheet, table 5). */
static uint64_t period(const struct rtc_state *s)
{
    unsigned rate = s->cmos[RTC_A] & A_RATE;
    if (!rate || (s->cmos[RTC_A] & A_DIVIDER) != A_DIVIDER_32K)
        return 0;
    return 1ull << (rate <= 2 ? rate + 6 : rate - 1);
}

static uint64_t crystal_now(const struct rtc *rtc) { return rate_ticks(clock_now(rtc->clk), CRYSTAL_HZ); }

static void catch_up_periodic(struct rtc *rtc)
{
    struct rtc_state *s = &rtc->s;
    uint64_t now = crystal_now(rtc), p = period(s);
    uint64_t n = p && now > s->tick_seen ? now / p - s->tick_seen / p : 0;
    s->tick_seen = now;
    if (!n)
        return;
    /* Only ticks that interrupt are worth making up for. */
    uint64_t late = s->cmos[RTC_B] & PF ? n - !(s->cmos[RTC_C] & PF) + s->backlog : 0;
    s->cmos[RTC_C] |= PF;
    s->backlog = (uint8_t)(late < BACKLOG_MAX ? late : BACKLOG_MAX);
}

static void catch_up_seconds(struct rtc *rtc)
{
    struct rtc_state *s = &rtc->s;
    uint64_t second = wall_ns(rtc) / NS_PER_SECOND;
    if (!running(s))
        return;
    if (second > s->second_seen) {
        s->cmos[RTC_C] |= UF;
        unsigned to_alarm = s->cmos[RTC_C] & AF ? 0 : rtc_seconds_to_alarm(s->cmos, s->second_seen);
        if (to_alarm && to_alarm <= second - s->second_seen)
            s->cmos[RTC_C] |= AF;
    }
    s->second_seen = second;
}

static void update_irq(struct rtc *rtc)
{
    bool level = rtc->s.cmos[RTC_B] & rtc->s.cmos[RTC_C] & FLAGS;
    rtc->s.cmos[RTC_C] = level ? rtc->s.cmos[RTC_C] | IRQF : rtc->s.cmos[RTC_C] & ~IRQF;
    if (level == rtc->irq_level)
        return;
    rtc->irq_level = level;
    line_set(&rtc->irq, level);
}

static uint64_t sooner(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Virtual time at which the time of day reaches this second. */
static uint64_t when_second(const struct rtc *rtc, uint64_t second)
{
    uint64_t now = clock_now(rtc->clk), left = second * NS_PER_SECOND - wall_ns(rtc);
    return left < TIME_LIMIT ? now + left : now;
}

/* Waits for the next flag that is enabled and not set yet; for nothing else. Ends every handler, so that the
 * deadline follows from the state alone. */
static void arm(struct rtc *rtc)
{
    const struct rtc_state *s = &rtc->s;
    uint8_t wanted = s->cmos[RTC_B] & ~s->cmos[RTC_C] & FLAGS;
    uint64_t at = UINT64_MAX, p = period(s);
    if (wanted & PF && p) {
        uint64_t next = rate_ns((s->tick_seen / p + 1) * p, CRYSTAL_HZ);
        at = s->backlog ? s->backlog_at : next;
    }
    if (wanted & UF && running(s))
        at = sooner(at, when_second(rtc, s->second_seen + 1));
    if (wanted & AF && running(s)) {
        unsigned to_alarm = rtc_seconds_to_alarm(s->cmos, s->second_seen);
        if (to_alarm)
            at = sooner(at, when_second(rtc, s->second_seen + to_alarm));
    }
    if (at == UINT64_MAX)
        deadline_cancel(rtc->clk, &rtc->due);
    else
        deadline_arm(rtc->clk, &rtc->due, at);
}

static void catch_up(struct rtc *rtc)
{
    catch_up_periodic(rtc);
    catch_up_seconds(rtc);
}

static void due(void *ctx, uint64_t now)
{
    (void)now;
    struct rtc *rtc = ctx;
    struct rtc_state *s = &rtc->s;
    catch_up(rtc);
    if (s->backlog && !(s->cmos[RTC_C] & PF)) {
        s->backlog--;
        s->cmos[RTC_C] |= PF;
    }
    update_irq(rtc);
    arm(rtc);
}

/* --- registers ---------------------------------------------------------------------------------------- */

/* Registers A and B decide whether the clock runs and how it is written down. */
static void write_control(struct rtc *rtc, unsigned reg, uint8_t val)
{
    struct rtc_state *s = &rtc->s;
    bool ran = running(s), divided = (s->cmos[RTC_A] & A_DIVIDER) == A_DIVIDER_32K;
    if (ran)
        show_time(rtc);
    s->cmos[reg] = reg == RTC_A ? val & ~A_UIP : val;
    if (reg == RTC_B && val & B_SET)
        s->cmos[RTC_B] &= ~UF; /* SET clears the update interrupt's enable (data sheet, register B) */
    if (ran && running(s)) {
        show_time(rtc); /* in the new notation */
    } else if (running(s)) {
        /* A divider released from reset makes its first update after half a second. */
        take_time(rtc, divided ? wall_ns(rtc) % NS_PER_SECOND : NS_PER_SECOND / 2);
    }
    s->backlog = 0;
}

static void write_register(struct rtc *rtc, unsigned reg, uint8_t val)
{
    struct rtc_state *s = &rtc->s;
    if (reg == RTC_A || reg == RTC_B) {
        write_control(rtc, reg, val);
    } else if (rtc_is_time(reg)) {
        if (running(s))
            show_time(rtc);
        s->cmos[reg] = val;
        if (running(s))
            take_time(rtc, wall_ns(rtc) % NS_PER_SECOND);
    } else if (reg != RTC_C && reg != RTC_D) {
        s->cmos[reg] = val;
    }
}

static uint8_t read_register(struct rtc *rtc, unsigned reg)
{
    struct rtc_state *s = &rtc->s;
    uint8_t val = s->cmos[reg];
    if (reg == RTC_A && running(s) && wall_ns(rtc) % NS_PER_SECOND >= NS_PER_SECOND - UIP_NS)
        val |= A_UIP;
    if (reg == RTC_C) {
        s->cmos[RTC_C] = 0;
        s->backlog_at = clock_now(rtc->clk) + rate_ns(period(s), CRYSTAL_HZ) / 2;
    } else if (rtc_is_time(reg) && running(s)) {
        show_time(rtc);
        val = s->cmos[reg];
    }
    return val;
}

static uint64_t rtc_read(void *dev, uint32_t off, unsigned width)
{
    (void)width;
    struct rtc *rtc = dev;
    if (off == 0)
        return 0xff; /* the index cannot be read */
    catch_up(rtc);
    update_irq(rtc); /* so that register C shows IRQF */
    uint8_t val = read_register(rtc, rtc->s.index);
    update_irq(rtc);
    arm(rtc);
    return val;
}

static void rtc_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)width;
    struct rtc *rtc = dev;
    if (off == 0) {
        rtc->s.index = val & 0x7f; /* bit 7 masks NMI, which nothing here raises */
        return;
    }
    catch_up(rtc);
    write_register(rtc, rtc->s.index, (uint8_t)val);
    update_irq(rtc);
    arm(rtc);
}

static const struct bus_ops ops = { .read = rtc_read, .write = rtc_write, .max_width = 1 };

/* --- life --------------------------------------------------------------------------------------------- */

struct rtc *rtc_create(struct bus *bus, struct clock *clk, struct line irq, uint64_t ram_below_4g,
                       uint64_t ram_above_4g, struct error *e)
{
    struct rtc *rtc = calloc(1, sizeof(*rtc));
    if (!rtc) {
        error_set(e, -ENOMEM, "cannot allocate the real-time clock");
        return NULL;
    }
    rtc->clk = clk;
    rtc->irq = irq;
    rtc->ram_below_4g = ram_below_4g;
    rtc->ram_above_4g = ram_above_4g;
    deadline_init(&rtc->due, due, rtc);
    if (bus_map_port(bus, 0x70, 2, &ops, rtc, e)) {
        free(rtc);
        return NULL;
    }
    rtc_reset(rtc);
    return rtc;
}

void rtc_destroy(struct rtc *rtc)
{
    if (!rtc)
        return;
    deadline_cancel(rtc->clk, &rtc->due);
    free(rtc);
}

void rtc_reset(struct rtc *rtc)
{
    /* The battery keeps the time; the memory is as firmware leaves it: 24 hours, BCD, 1024 Hz selected and
     * disabled. */
    rtc->s = (struct rtc_state){ .offset = rtc->s.offset, .tick_seen = crystal_now(rtc) };
    rtc->s.cmos[RTC_A] = A_DIVIDER_32K | 6;
    rtc->s.cmos[RTC_B] = RTC_B_24H;
    rtc->s.cmos[RTC_D] = D_VALID;
    rtc->s.second_seen = wall_ns(rtc) / NS_PER_SECOND;
    rtc_put_memory_size(rtc->s.cmos, rtc->ram_below_4g, rtc->ram_above_4g);
    update_irq(rtc);
    arm(rtc);
}

struct state_object rtc_state_object(struct rtc *rtc) { return (struct state_object){ &class, &rtc->s, 0 }; }

void rtc_loaded(struct rtc *rtc)
{
    rtc->irq_level = rtc->s.cmos[RTC_C] & IRQF;
    line_set(&rtc->irq, rtc->irq_level);
    arm(rtc);
}
