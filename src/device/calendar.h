/* SPDX-License-Identifier: Apache-2.0 */
/* Seconds since 1970 to a date of the Gregorian calendar and back. */
#ifndef SUNDOG_DEVICE_CALENDAR_H
#define SUNDOG_DEVICE_CALENDAR_H

#include "base/types.h"

struct date {
    int64_t year;
    unsigned month, day; /* from 1 */
    unsigned hour, minute, second;
    unsigned weekday; /* Sunday = 0 */
};

/* The date of these seconds since 1970-01-01 00:00:00, for years 1..9999. */
struct date date_of(int64_t seconds);
/* And back. Fields out of their range carry over into the next ones; the month is brought into 1..12. */
int64_t date_seconds(const struct date *d);

#endif
