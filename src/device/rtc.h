/* SPDX-License-Identifier: Apache-2.0 */
/* The MC146818 real-time clock with its CMOS memory (Motorola MC146818A data sheet). */
#ifndef SUNDOG_DEVICE_RTC_H
#define SUNDOG_DEVICE_RTC_H

#include "base/error.h"
#include "base/state.h"
#include "bus/bus.h"
#include "bus/line.h"
#include "clock/clock.h"

struct rtc;

/* Claims ports 0x70-71. `irq` is IRQ 8. The memory sizes, in bytes, go to the CMOS bytes where firmware and
 * kernels look. */
struct rtc *rtc_create(struct bus *bus, struct clock *clk, struct line irq, uint64_t ram_below_4g,
                       uint64_t ram_above_4g, struct error *e);
void rtc_destroy(struct rtc *rtc);
void rtc_reset(struct rtc *rtc);
struct state_object rtc_state_object(struct rtc *rtc);
/* After a load: drives IRQ 8 and arms the deadlines from the state. */
void rtc_loaded(struct rtc *rtc);

#endif
