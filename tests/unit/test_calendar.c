/* SPDX-License-Identifier: Apache-2.0 */
/* Dates against the C library's own calendar. */
#include "chip_kit.h"

#include <time.h>

#include "device/calendar.h"

static void agrees_with_the_library(void **s)
{
    (void)s;
    /* Steps that meet every time of day and every day of the year, from 1900 to 2400. */
    for (int64_t t = -2208988800; t < 13569465600; t += 86399 * 3 + 7) {
        struct tm tm;
        time_t at = (time_t)t;
        assert_non_null(gmtime_r(&at, &tm));
        struct date d = date_of(t);
        assert_int_equal(d.year, tm.tm_year + 1900);
        assert_int_equal(d.month, tm.tm_mon + 1);
        assert_int_equal(d.day, tm.tm_mday);
        assert_int_equal(d.hour, tm.tm_hour);
        assert_int_equal(d.minute, tm.tm_min);
        assert_int_equal(d.second, tm.tm_sec);
        assert_int_equal(d.weekday, tm.tm_wday);
        assert_true(date_seconds(&d) == t);
    }
}

static void edges(void **s)
{
    (void)s;
    assert_int_equal(date_of(INT64_MIN).year, 1);
    assert_int_equal(date_of(INT64_MAX).year, 9999);
    struct date odd = { .year = 2024, .month = 99, .day = 45, .hour = 27, .minute = 99, .second = 99 };
    date_seconds(&odd);
    odd.month = 0;
    date_seconds(&odd);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(agrees_with_the_library), cmocka_unit_test(edges) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
