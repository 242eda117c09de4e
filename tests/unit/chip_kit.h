/* SPDX-License-Identifier: Apache-2.0 */
/* A bus, a clock under the test's control and a line that counts: what the chips' tests share. */
#ifndef SUNDOG_TESTS_CHIP_KIT_H
#define SUNDOG_TESTS_CHIP_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/state.h"
#include "base/tally.h"
#include "bus/bus.h"
#include "bus/line.h"
#include "clock/clock.h"

#define US 1000ull
#define MS 1000000ull
#define SEC 1000000000ull

/* What a line did. */
struct probe {
    bool level;
    unsigned rises;
};

struct chip_kit {
    struct log log;
    struct tally tally;
    struct bus *bus;
    struct clock *clk;
    struct probe irq, other;
};

void chip_kit_open(struct chip_kit *k);
void chip_kit_close(struct chip_kit *k);
struct line probe_line(struct probe *p);

uint8_t in8(struct chip_kit *k, uint16_t port);
void out8(struct chip_kit *k, uint16_t port, uint8_t val);
uint32_t in32(struct chip_kit *k, uint16_t port);
void out32(struct chip_kit *k, uint16_t port, uint32_t val);

/* Lets virtual time pass, every deadline served in time. */
void pass(struct chip_kit *k, uint64_t ns);
/* Lets time pass with the host asleep: what came due is served once, at the end. */
void oversleep(struct chip_kit *k, uint64_t ns);
/* Accesses counted as unclaimed or refused. */
uint64_t tally_total(struct chip_kit *k);

/* Saves the object, loads it into `to`, and compares hashes. */
void copy_state(const struct state_object *from, const struct state_object *to);

#endif
