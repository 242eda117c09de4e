/* SPDX-License-Identifier: Apache-2.0 */
/* One counter of an 8254: its six modes as formulas over the oscillator ticks since it was started (Intel
 * 231164). */
#ifndef SUNDOG_DEVICE_I8254_COUNTER_H
#define SUNDOG_DEVICE_I8254_COUNTER_H

#include "base/types.h"

/* Which bytes of the count are read and written; in a control word 0 latches instead. */
enum counter_rw { RW_LATCH, RW_LSB, RW_MSB, RW_BOTH };

struct counter {
    uint8_t mode, bcd, rw;
    uint8_t loaded; /* a count was written since the control word */
    uint8_t running;
    uint8_t gate;
    uint8_t write_low, low_pending; /* RW_BOTH: least significant byte came, the other is awaited */
    uint8_t read_high;              /* RW_BOTH: the next unlatched read gives the most significant byte */
    uint8_t latched;                /* latched count bytes still to be read */
    uint8_t status, status_latched;
    uint16_t latch;
    uint32_t reload;      /* 1..65536 */
    uint32_t next_reload; /* takes effect at the end of the period or at the next trigger; 0 = none */
    uint64_t start;       /* oscillator tick of the (virtual) begin of counting */
    uint64_t held;        /* ticks counted when counting stopped */
};

/* In all of these `t` is the present tick. */

/* Modes 2 and 3 start again by themselves. */
bool counter_periodic(const struct counter *c);
/* Applies a count whose time has come. True when that was now, with *boundary the tick at which the old
 * period ended. */
bool counter_settle(struct counter *c, uint64_t t, uint64_t *boundary);
/* The OUT pin. */
bool counter_output(const struct counter *c, uint64_t t);
/* The counting element as it is read: binary or BCD, 0 standing for 65536 (10000). */
uint16_t counter_value(const struct counter *c, uint64_t t);
/* Starts counting now, from the newest count. */
void counter_start(struct counter *c, uint64_t t);
/* A complete count was written. */
void counter_load(struct counter *c, uint16_t raw, uint64_t t);
/* The GATE pin. */
void counter_set_gate(struct counter *c, bool gate, uint64_t t);
/* Rising edges of OUT in (after, until], and the first one after `after`, false if there is none. */
uint64_t counter_edges(const struct counter *c, uint64_t after, uint64_t until);
bool counter_next_edge(const struct counter *c, uint64_t after, uint64_t *edge);

#endif
