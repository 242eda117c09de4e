/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges of the process's address space: what is taken away is gone, or it is said that it is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host/view.h"

#define PAGE 4096u

/* A memfd of some pages, each of which begins with its number. */
static int numbered(unsigned pages)
{
    int fd = memfd_create("numbers", 0);
    assert_true(fd >= 0);
    for (unsigned i = 0; i < pages; i++)
        assert_int_equal(pwrite(fd, &i, sizeof(i), (off_t)i * PAGE), sizeof(i));
    return fd;
}

static bool can_be_read(const uint8_t *p)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    bool can = write(ends[1], p, 1) == 1; /* EFAULT, no signal */
    close(ends[0]);
    close(ends[1]);
    return can;
}

static void what_is_cleared_is_gone(void **state)
{
    (void)state;
    int fd = numbered(4);
    uint8_t *at = host_view_room(8 * PAGE);
    assert_non_null(at);
    assert_false(can_be_read(at));
    assert_true(host_view_show((uintptr_t)at, fd, PAGE, 3 * PAGE, false));
    assert_int_equal(at[0], 1);
    assert_int_equal(at[2 * PAGE], 3);
    assert_true(host_view_clear((uintptr_t)at + PAGE, PAGE));
    assert_false(can_be_read(at + PAGE));
    assert_true(can_be_read(at + 2 * PAGE));
    assert_true(host_view_readable((uintptr_t)at + 4 * PAGE, PAGE, true));
    assert_int_equal(at[4 * PAGE], 0);
    assert_true(host_view_readable((uintptr_t)at + 4 * PAGE, PAGE, false));
    assert_false(can_be_read(at + 4 * PAGE));
    assert_true(host_view_release((uintptr_t)at, 8 * PAGE));
    close(fd);
}

static unsigned most_mappings(void)
{
    unsigned n = 0;
    FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
    if (!f || fscanf(f, "%u", &n) != 1)
        n = 0;
    if (f)
        fclose(f);
    return n;
}

/* To take a page out of the middle makes one mapping more. */
static void what_cannot_be_cleared_is_told(void **state)
{
    (void)state;
    unsigned most = most_mappings();
    if (!most || most > 1u << 20)
        skip();
    int fd = numbered(6);
    uint8_t *at = host_view_room(6 * PAGE), *many = host_view_room((uint64_t)2 * most * PAGE);
    assert_non_null(at);
    assert_non_null(many);
    assert_true(host_view_show((uintptr_t)at, fd, 0, 3 * PAGE, false));
    assert_true(host_view_readable((uintptr_t)at + 3 * PAGE, 3 * PAGE, true));
    unsigned n = 0;
    while (n < most && host_view_readable((uintptr_t)many + (uint64_t)2 * n * PAGE, PAGE, true))
        n++;
    bool cleared = host_view_clear((uintptr_t)at + PAGE, PAGE),
         closed = host_view_readable((uintptr_t)at + 4 * PAGE, PAGE, false),
         released = host_view_release((uintptr_t)at + PAGE, PAGE);
    bool still[2] = { can_be_read(at + PAGE), can_be_read(at + 4 * PAGE) };
    assert_true(host_view_release((uintptr_t)many, (uint64_t)2 * most * PAGE));
    assert_true(n < most);
    assert_false(cleared || closed || released);
    assert_true(still[0] && still[1]);
    assert_true(host_view_release((uintptr_t)at, 6 * PAGE));
    close(fd);
}

static void mappings_are_counted(void **state)
{
    (void)state;
    unsigned n = 0;
    while (host_view_take(1000))
        n++;
    assert_in_range(n, 1, 65);
    host_view_give(1000);
    assert_true(host_view_take(1000));
    host_view_give(n * 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_cleared_is_gone),
        cmocka_unit_test(what_cannot_be_cleared_is_told),
        cmocka_unit_test(mappings_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
