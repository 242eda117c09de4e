/* SPDX-License-Identifier: Apache-2.0 */
/* Day counting by whole years. */
#include "device/calendar.h"

#define DAY 86400
#define DAYS_TO_1970 719162 /* from 0001-01-01 */

static bool is_leap(int64_t year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

/* Days from 0001-01-01 to the first day of this year. */
static int64_t days_before_year(int64_t year)
{
    int64_t y = year - 1;
    return y * 365 + y / 4 - y / 100 + y / 400;
}

/* Days of the year before this month (1..12). */
static int64_t days_before_month(int64_t year, unsigned month)
{
    static const uint16_t before[13] = { 0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
    return before[month] + (month > 2 && is_leap(year));
}

struct date date_of(int64_t seconds)
{
    int64_t day = seconds / DAY, rest = seconds % DAY;
    if (rest < 0) {
        rest += DAY;
        day--;
    }
    day += DAYS_TO_1970;
    if (day < 0)
        day = 0;
    if (day > 3652058) /* 9999-12-31 */
        day = 3652058;
    struct date d = { .year = day / 366 + 1,
                      .weekday = (unsigned)((day + 1) % 7) }; /* 0001-01-01 is a Monday */
    while (days_before_year(d.year + 1) <= day)               /* at most 7 steps below year 9999 */
        d.year++;
    int64_t in_year = day - days_before_year(d.year);
    for (d.month = 12; days_before_month(d.year, d.month) > in_year;)
        d.month--;
    d.day = (unsigned)(in_year - days_before_month(d.year, d.month)) + 1;
    d.hour = (unsigned)(rest / 3600);
    d.minute = (unsigned)(rest / 60 % 60);
    d.second = (unsigned)(rest % 60);
    return d;
}

int64_t date_seconds(const struct date *d)
{
    unsigned month = d->month < 1 ? 1 : d->month > 12 ? 12 : d->month;
    int64_t day = days_before_year(d->year) + days_before_month(d->year, month) + (int64_t)d->day - 1 -
                  DAYS_TO_1970;
    return day * DAY + (int64_t)d->hour * 3600 + (int64_t)d->minute * 60 + d->second;
}
