/* SPDX-License-Identifier: Apache-2.0 */
/* Notation of dates, search for the next alarm, and the memory bytes that firmware fills in. */
#include "device/rtc_registers.h"

#include "base/bits.h"

#define HOUR_PM 0x80u
#define DONT_CARE 0xc0u
#define DAY_SECONDS 86400

/* Memory in use by the PC. */
#define EQUIPMENT 0x14u
#define BASE_MEMORY 0x15u     /* KiB below 640K, 2 bytes */
#define EXTENDED_MEMORY 0x17u /* KiB above 1M, up to 64M */
#define CHECKSUM_FIRST 0x10u
#define CHECKSUM_LAST 0x2du
#define CHECKSUM 0x2eu /* high byte first */
#define EXTENDED_MEMORY_2 0x30u
#define MEMORY_ABOVE_16M 0x34u /* in 64 KiB */
#define MEMORY_ABOVE_4G 0x5bu  /* in 64 KiB, 3 bytes */

/* --- notation ----------------------------------------------------------------------------------------- */

bool rtc_is_time(unsigned reg)
{
    return reg == RTC_CENTURY || (reg <= RTC_YEAR && reg != RTC_SECONDS_ALARM && reg != RTC_MINUTES_ALARM &&
                                  reg != RTC_HOURS_ALARM);
}

static unsigned from_register(const uint8_t *cmos, uint8_t v)
{
    return cmos[RTC_B] & RTC_B_BINARY ? v : (v >> 4) * 10u + (v & 15u);
}

static uint8_t to_register(const uint8_t *cmos, unsigned v)
{
    return (uint8_t)(cmos[RTC_B] & RTC_B_BINARY ? v : (v / 10) << 4 | v % 10);
}

static unsigned hour_from_register(const uint8_t *cmos, uint8_t v)
{
    if (cmos[RTC_B] & RTC_B_24H)
        return from_register(cmos, v);
    unsigned hour = from_register(cmos, v & ~HOUR_PM) % 12;
    return v & HOUR_PM ? hour + 12 : hour;
}

static uint8_t hour_to_register(const uint8_t *cmos, unsigned hour)
{
    if (cmos[RTC_B] & RTC_B_24H)
        return to_register(cmos, hour);
    return to_register(cmos, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

void rtc_put_date(uint8_t *cmos, const struct date *d)
{
    cmos[RTC_SECONDS] = to_register(cmos, d->second);
    cmos[RTC_MINUTES] = to_register(cmos, d->minute);
    cmos[RTC_HOURS] = hour_to_register(cmos, d->hour);
    cmos[RTC_WEEKDAY] = to_register(cmos, d->weekday + 1);
    cmos[RTC_DAY] = to_register(cmos, d->day);
    cmos[RTC_MONTH] = to_register(cmos, d->month);
    cmos[RTC_YEAR] = to_register(cmos, (unsigned)(d->year % 100));
    cmos[RTC_CENTURY] = to_register(cmos, (unsigned)(d->year / 100));
}

struct date rtc_get_date(const uint8_t *cmos)
{
    return (struct date){
        .year = from_register(cmos, cmos[RTC_CENTURY]) * 100 + from_register(cmos, cmos[RTC_YEAR]),
        .month = from_register(cmos, cmos[RTC_MONTH]),
        .day = from_register(cmos, cmos[RTC_DAY]),
        .hour = hour_from_register(cmos, cmos[RTC_HOURS]),
        .minute = from_register(cmos, cmos[RTC_MINUTES]),
        .second = from_register(cmos, cmos[RTC_SECONDS]),
    };
}

/* --- alarm -------------------------------------------------------------------------------------------- */

static bool alarm_field(const uint8_t *cmos, unsigned reg, unsigned now)
{
    uint8_t v = cmos[reg];
    if ((v & DONT_CARE) == DONT_CARE)
        return true;
    return (reg == RTC_HOURS_ALARM ? hour_from_register(cmos, v) : from_register(cmos, v)) == now;
}

unsigned rtc_seconds_to_alarm(const uint8_t *cmos, uint64_t second)
{
    unsigned from = (unsigned)((second + 1) % DAY_SECONDS);
    /* 25 hours: the first one may match only before `from`. */
    for (unsigned h = from / 3600; h <= from / 3600 + 24; h++) {
        if (!alarm_field(cmos, RTC_HOURS_ALARM, h % 24))
            continue;
        for (unsigned m = 0; m < 60; m++) {
            if (!alarm_field(cmos, RTC_MINUTES_ALARM, m) || h * 3600 + m * 60 + 59 < from)
                continue;
            for (unsigned sec = 0; sec < 60; sec++)
                if (alarm_field(cmos, RTC_SECONDS_ALARM, sec) && h * 3600 + m * 60 + sec >= from)
                    return h * 3600 + m * 60 + sec - from + 1;
        }
    }
    return 0;
}

/* --- memory ------------------------------------------------------------------------------------------- */

static uint16_t clamp16(uint64_t v) { return v > 0xffff ? 0xffff : (uint16_t)v; }

static uint64_t above(uint64_t size, uint64_t limit) { return size > limit ? size - limit : 0; }

void rtc_put_memory_size(uint8_t *cmos, uint64_t ram_below_4g, uint64_t ram_above_4g)
{
    uint16_t extended = clamp16(above(ram_below_4g, 1 << 20) >> 10);
    put_le16(cmos + BASE_MEMORY, 640);
    put_le16(cmos + EXTENDED_MEMORY, extended);
    put_le16(cmos + EXTENDED_MEMORY_2, extended);
    put_le16(cmos + MEMORY_ABOVE_16M, clamp16(above(ram_below_4g, 16 << 20) >> 16));
    uint32_t high = (uint32_t)(ram_above_4g >> 16);
    put_le16(cmos + MEMORY_ABOVE_4G, (uint16_t)high);
    cmos[MEMORY_ABOVE_4G + 2] = (uint8_t)(high >> 16);
    cmos[EQUIPMENT] = 0x06; /* coprocessor, PS/2 mouse */
    uint16_t sum = 0;
    for (unsigned i = CHECKSUM_FIRST; i <= CHECKSUM_LAST; i++)
        sum += cmos[i];
    cmos[CHECKSUM] = (uint8_t)(sum >> 8);
    cmos[CHECKSUM + 1] = (uint8_t)sum;
}
