/* SPDX-License-Identifier: Apache-2.0 */
/* How the MC146818 writes time down: notations and alarms; and what firmware leaves in its memory. */
#ifndef SUNDOG_DEVICE_RTC_REGISTERS_H
#define SUNDOG_DEVICE_RTC_REGISTERS_H

#include "base/types.h"
#include "device/calendar.h"

/* Registers (data sheet, figure 11); from 0x0e on it is memory whose use is the PC's. */
enum rtc_register {
    RTC_SECONDS,
    RTC_SECONDS_ALARM,
    RTC_MINUTES,
    RTC_MINUTES_ALARM,
    RTC_HOURS,
    RTC_HOURS_ALARM,
    RTC_WEEKDAY,
    RTC_DAY,
    RTC_MONTH,
    RTC_YEAR,
    RTC_A,
    RTC_B,
    RTC_C,
    RTC_D,
    RTC_CENTURY = 0x32,
    RTC_SIZE = 128,
};

/* Register B's say in the notation. */
#define RTC_B_BINARY 0x04u
#define RTC_B_24H 0x02u

/* All of these work on the chip's RTC_SIZE bytes. */
bool rtc_is_time(unsigned reg);
void rtc_put_date(uint8_t *cmos, const struct date *d);
struct date rtc_get_date(const uint8_t *cmos);
/* Seconds from `second` (since 1970) to the next alarm after it, at most a day; 0 = the registers never
 * match. */
unsigned rtc_seconds_to_alarm(const uint8_t *cmos, uint64_t second);
/* Memory sizes in bytes, equipment and checksum, as kernels and firmware look for them. */
void rtc_put_memory_size(uint8_t *cmos, uint64_t ram_below_4g, uint64_t ram_above_4g);

#endif
