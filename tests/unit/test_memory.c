/* SPDX-License-Identifier: Apache-2.0 */
/* Host memory for tables: a part of it is cleared, and nothing beside that part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "host/memory.h"

#define PAGE 4096u
#define PAGES 16u

static void check_clear(size_t from, size_t len)
{
    uint8_t *p = host_pages_alloc(PAGES * PAGE);
    assert_non_null(p);
    memset(p, 0x5a, PAGES * PAGE);
    host_pages_clear(p + from, len);
    for (size_t i = 0; i < PAGES * PAGE; i++)
        assert_int_equal(p[i], i >= from && i < from + len ? 0 : 0x5a);
    host_pages_free(p, PAGES * PAGE);
}

static void a_part_is_cleared_and_nothing_else(void **state)
{
    (void)state;
    check_clear(0, 0);
    check_clear(0, 1);
    check_clear(PAGE - 1, 2);
    check_clear(PAGE, PAGE);
    check_clear(5, PAGE);
    check_clear(5, 3 * PAGE);
    check_clear(PAGE + 1, 2 * PAGE - 1);
    check_clear(PAGE, 2 * PAGE + 1);
    check_clear(0, PAGES * PAGE);
}

static void cleared_pages_are_not_resident(void **state)
{
    unsigned char in_core[PAGES];
    (void)state;
    uint8_t *p = host_pages_alloc(PAGES * PAGE);
    assert_non_null(p);
    memset(p, 1, PAGES * PAGE);
    host_pages_clear(p + PAGE - 8, 3 * PAGE + 16);
    assert_int_equal(mincore(p, PAGES * PAGE, in_core), 0);
    for (unsigned i = 0; i < PAGES; i++)
        assert_int_equal(in_core[i] & 1, i < 1 || i > 3);
    host_pages_free(p, PAGES * PAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_is_cleared_and_nothing_else),
        cmocka_unit_test(cleared_pages_are_not_resident),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
