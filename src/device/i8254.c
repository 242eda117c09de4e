/* SPDX-License-Identifier: Apache-2.0 */
/* Registers of the three counters, and channel 0's interrupt: only its next edge is ever waited for. */
#include "device/i8254.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "device/i8254_counter.h"
#include "device/rate.h"

/* Control word and status (data sheet, figures 7 and 12). */
#define STATUS_OUT 0x80u
#define STATUS_NULL 0x40u
#define READ_BACK_NO_COUNT 0x20u
#define READ_BACK_NO_STATUS 0x10u

/* Port 0x61, system control port B. */
#define PORT61_GATE2 0x01u
#define PORT61_WRITABLE 0x0fu
#define PORT61_REFRESH 0x10u
#define PORT61_OUT2 0x20u
#define REFRESH_NS 15085u /* 18 ticks of channel 1: DRAM refresh toggles its bit so often */

/* Ticks that came due while the host was late: made up for one by one, more than these are lost. */
#define BACKLOG_MAX 8u
/* Faster than this the interrupt is not delivered, whatever the guest programs. */
#define SPACING_MIN_NS 10000u

struct i8254_state {
    struct counter ch[3];
    uint8_t port61;
    uint8_t irq_level;
    uint8_t backlog;    /* channel 0's edges that came but were not delivered */
    uint64_t edge_seen; /* its edges up to this tick are accounted for */
    uint64_t pulsed_at; /* ns of the last delivery */
};

struct i8254 {
    struct i8254_state s;
    struct clock *clk;
    struct line irq;
    struct irq_watch watch;
    struct deadline tick;
};

#define CHANNEL_FIELDS(n) \
    STATE_FIELD_MAX(struct i8254_state, ch[n].mode, 5), STATE_FIELD_MAX(struct i8254_state, ch[n].bcd, 1), \
        STATE_FIELD_MAX(struct i8254_state, ch[n].rw, 3), \
        STATE_FIELD_MAX(struct i8254_state, ch[n].loaded, 1), \
        STATE_FIELD_MAX(struct i8254_state, ch[n].running, 1), \
        STATE_FIELD_MAX(struct i8254_state, ch[n].gate, 1), \
        STATE_FIELD(struct i8254_state, ch[n].write_low), \
        STATE_FIELD_MAX(struct i8254_state, ch[n].low_pending, 1), \
        STATE_FIELD_MAX(struct i8254_state, ch[n].read_high, 1), \
        STATE_FIELD_MAX(struct i8254_state, ch[n].latched, 2), \
        STATE_FIELD(struct i8254_state, ch[n].status), \
        STATE_FIELD_MAX(struct i8254_state, ch[n].status_latched, 1), \
        STATE_FIELD(struct i8254_state, ch[n].latch), \
        STATE_FIELD_MAX(struct i8254_state, ch[n].reload, 65536), \
        STATE_FIELD_MAX(struct i8254_state, ch[n].next_reload, 65536), \
        STATE_FIELD(struct i8254_state, ch[n].start), STATE_FIELD(struct i8254_state, ch[n].held)

static const struct state_field fields[] = {
    CHANNEL_FIELDS(0),
    CHANNEL_FIELDS(1),
    CHANNEL_FIELDS(2),
    STATE_FIELD(struct i8254_state, port61),
    STATE_FIELD_MAX(struct i8254_state, irq_level, 1),
    STATE_FIELD_MAX(struct i8254_state, backlog, BACKLOG_MAX),
    STATE_FIELD(struct i8254_state, edge_seen),
    STATE_FIELD(struct i8254_state, pulsed_at),
};

static bool valid(const void *state)
{
    const struct i8254_state *s = state;
    return s->ch[0].reload && s->ch[1].reload && s->ch[2].reload;
}

static const struct state_class class = { "i8254", 1, sizeof(struct i8254_state), fields, array_size(fields),
                                          valid };

/* --- channel 0's interrupt ---------------------------------------------------------------------------- */

static uint64_t ticks_now(const struct i8254 *pit) { return rate_ticks(clock_now(pit->clk), I8254_HZ); }

static void set_irq(struct i8254 *pit, bool level)
{
    pit->s.irq_level = level;
    line_set(&pit->irq, level);
}

/* Brings all counters to tick `t` and notes channel 0's edges: those of the old period apart, when a new
 * count takes over. */
static void catch_up(struct i8254 *pit, uint64_t t)
{
    struct counter before = pit->s.ch[0];
    uint64_t boundary, n = pit->s.backlog;
    if (counter_settle(&pit->s.ch[0], t, &boundary)) {
        n += counter_edges(&before, pit->s.edge_seen, boundary);
        pit->s.edge_seen = boundary;
    }
    n += counter_edges(&pit->s.ch[0], pit->s.edge_seen, t);
    if (t > pit->s.edge_seen)
        pit->s.edge_seen = t;
    pit->s.backlog = (uint8_t)(n < BACKLOG_MAX ? n : BACKLOG_MAX);
    counter_settle(&pit->s.ch[1], t, &boundary);
    counter_settle(&pit->s.ch[2], t, &boundary);
}

/* Waits for the next edge, or for the moment to make up for one that was late: never while nobody could
 * notice it. Ends every handler, so that the deadline follows from the state alone. */
static void arm(struct i8254 *pit)
{
    const struct counter *c = &pit->s.ch[0];
    uint64_t edge, at, earliest = pit->s.pulsed_at + SPACING_MIN_NS;
    if (!irq_watch_observed(&pit->watch)) {
        deadline_cancel(pit->clk, &pit->tick);
        return;
    }
    if (pit->s.backlog) {
        at = pit->s.pulsed_at + rate_ns(c->reload, I8254_HZ) / 2;
    } else if (counter_next_edge(c, pit->s.edge_seen, &edge)) {
        at = rate_ns(edge, I8254_HZ);
    } else {
        deadline_cancel(pit->clk, &pit->tick);
        return;
    }
    deadline_arm(pit->clk, &pit->tick, at > earliest ? at : earliest);
}

static void deliver(struct i8254 *pit, uint64_t now)
{
    if (!pit->s.backlog)
        return;
    pit->s.backlog--;
    pit->s.pulsed_at = now;
    set_irq(pit, false);
    set_irq(pit, true);
}

static void tick(void *ctx, uint64_t now)
{
    struct i8254 *pit = ctx;
    catch_up(pit, rate_ticks(now, I8254_HZ));
    deliver(pit, now);
    arm(pit);
}

void i8254_irq_observed(struct i8254 *pit)
{
    bool observed = irq_watch_observed(&pit->watch);
    if (observed == (pit->tick.heap_pos != 0))
        return;
    if (observed) {
        catch_up(pit, ticks_now(pit));
        if (pit->s.backlog)
            pit->s.backlog = 1; /* a masked input remembers one edge */
        deliver(pit, clock_now(pit->clk));
    }
    arm(pit);
}

/* --- registers ---------------------------------------------------------------------------------------- */

static void latch_count(struct counter *c, uint64_t t)
{
    if (c->latched)
        return;
    c->latch = counter_value(c, t);
    c->latched = c->rw == RW_BOTH ? 2 : 1;
}

static void latch_status(struct counter *c, uint64_t t)
{
    if (c->status_latched)
        return;
    bool null = !c->loaded || c->next_reload;
    c->status = (uint8_t)((counter_output(c, t) ? STATUS_OUT : 0) | (null ? STATUS_NULL : 0) | c->rw << 4 |
                          c->mode << 1 | c->bcd);
    c->status_latched = 1;
}

static void read_back(struct i8254 *pit, uint8_t val, uint64_t t)
{
    for (unsigned n = 0; n < 3; n++) {
        if (!(val & BIT(n + 1)))
            continue;
        if (!(val & READ_BACK_NO_COUNT))
            latch_count(&pit->s.ch[n], t);
        if (!(val & READ_BACK_NO_STATUS))
            latch_status(&pit->s.ch[n], t);
    }
}

static void write_control(struct i8254 *pit, uint8_t val, uint64_t t)
{
    unsigned n = val >> 6, mode = val >> 1 & 7;
    if (n == 3) {
        read_back(pit, val, t);
        return;
    }
    struct counter *c = &pit->s.ch[n];
    if ((val >> 4 & 3) == RW_LATCH) {
        latch_count(c, t);
        return;
    }
    /* Modes 6 and 7 are 2 and 3. Everything pending is forgotten. */
    *c = (struct counter){ .mode = (uint8_t)(mode > 5 ? mode - 4 : mode),
                           .bcd = val & 1,
                           .rw = val >> 4 & 3,
                           .gate = c->gate,
                           .reload = c->reload };
    if (n == 0) {
        pit->s.backlog = 0;
        set_irq(pit, false);
    }
}

static void write_count(struct i8254 *pit, unsigned n, uint8_t val, uint64_t t)
{
    struct counter *c = &pit->s.ch[n];
    if (c->rw == RW_BOTH && !c->low_pending) {
        c->write_low = val;
        c->low_pending = 1;
        if (c->mode == 0)
            c->running = c->loaded = 0; /* the first byte stops counting and takes OUT low */
        return;
    }
    uint16_t raw = c->rw == RW_LSB ? val : (uint16_t)(val << 8);
    if (c->low_pending)
        raw |= c->write_low;
    c->low_pending = 0;
    counter_load(c, raw, t);
    if (n == 0 && !counter_periodic(c)) {
        pit->s.backlog = 0;
        set_irq(pit, false);
    }
}

static uint8_t read_count(struct counter *c, uint64_t t)
{
    if (c->status_latched) {
        c->status_latched = 0;
        return c->status;
    }
    if (c->latched) {
        bool high = c->rw == RW_MSB || (c->rw == RW_BOTH && c->latched == 1);
        c->latched--;
        return (uint8_t)(high ? c->latch >> 8 : c->latch);
    }
    uint16_t v = counter_value(c, t);
    bool high = c->rw == RW_MSB || (c->rw == RW_BOTH && c->read_high);
    if (c->rw == RW_BOTH)
        c->read_high ^= 1;
    return (uint8_t)(high ? v >> 8 : v);
}

static uint64_t timer_read(void *dev, uint32_t off, unsigned width)
{
    (void)width;
    struct i8254 *pit = dev;
    uint64_t t = ticks_now(pit);
    if (off == 3)
        return 0xff; /* the control word cannot be read */
    catch_up(pit, t);
    arm(pit);
    return read_count(&pit->s.ch[off], t);
}

static void timer_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)width;
    struct i8254 *pit = dev;
    uint64_t t = ticks_now(pit);
    catch_up(pit, t);
    if (off == 3)
        write_control(pit, (uint8_t)val, t);
    else
        write_count(pit, off, (uint8_t)val, t);
    arm(pit);
}

static uint64_t port61_read(void *dev, uint32_t off, unsigned width)
{
    (void)off, (void)width;
    struct i8254 *pit = dev;
    uint64_t now = clock_now(pit->clk), t = rate_ticks(now, I8254_HZ);
    catch_up(pit, t);
    arm(pit);
    return pit->s.port61 | (now / REFRESH_NS & 1 ? PORT61_REFRESH : 0) |
           (counter_output(&pit->s.ch[2], t) ? PORT61_OUT2 : 0);
}

static void port61_write(void *dev, uint32_t off, uint64_t val, unsigned width)
{
    (void)off, (void)width;
    struct i8254 *pit = dev;
    uint64_t t = ticks_now(pit);
    catch_up(pit, t);
    pit->s.port61 = val & PORT61_WRITABLE;
    counter_set_gate(&pit->s.ch[2], val & PORT61_GATE2, t);
    arm(pit);
}

static const struct bus_ops timer_ops = { .read = timer_read, .write = timer_write, .max_width = 1 };
static const struct bus_ops port61_ops = { .read = port61_read, .write = port61_write, .max_width = 1 };

/* --- life --------------------------------------------------------------------------------------------- */

struct i8254 *i8254_create(struct bus *bus, struct clock *clk, struct line irq, struct irq_watch watch,
                           struct error *e)
{
    struct i8254 *pit = calloc(1, sizeof(*pit));
    if (!pit) {
        error_set(e, -ENOMEM, "cannot allocate the interval timer");
        return NULL;
    }
    pit->clk = clk;
    pit->irq = irq;
    pit->watch = watch;
    deadline_init(&pit->tick, tick, pit);
    if (bus_map_port(bus, 0x40, 4, &timer_ops, pit, e) || bus_map_port(bus, 0x61, 1, &port61_ops, pit, e)) {
        free(pit);
        return NULL;
    }
    i8254_reset(pit);
    return pit;
}

void i8254_destroy(struct i8254 *pit)
{
    if (!pit)
        return;
    deadline_cancel(pit->clk, &pit->tick);
    free(pit);
}

void i8254_reset(struct i8254 *pit)
{
    uint64_t t = ticks_now(pit);
    pit->s = (struct i8254_state){ .edge_seen = t };
    /* As firmware leaves them: square waves of the longest period. Channel 2 waits for its gate. */
    for (unsigned n = 0; n < 3; n++) {
        struct counter *c = &pit->s.ch[n];
        *c = (struct counter){ .mode = 3, .rw = RW_BOTH, .gate = n != 2, .loaded = 1, .reload = 65536 };
        if (c->gate)
            counter_start(c, t);
    }
    set_irq(pit, false);
    arm(pit);
}

struct state_object i8254_state_object(struct i8254 *pit)
{
    return (struct state_object){ &class, &pit->s, 0 };
}

void i8254_loaded(struct i8254 *pit)
{
    line_set(&pit->irq, pit->s.irq_level);
    arm(pit);
}
