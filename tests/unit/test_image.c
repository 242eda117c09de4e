/* SPDX-License-Identifier: Apache-2.0 */
/* Files for the guest: read whole or in parts, and what the path may name instead. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "board/image.h"

#define LEN 600001u

static char path[] = "/tmp/sundog-test-image-XXXXXX";
static uint8_t contents[LEN];

static int write_file(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LEN; i++)
        contents[i] = (uint8_t)(i * 31 + (i >> 9));
    int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    return f && fwrite(contents, 1, LEN, f) == LEN && fclose(f) == 0 ? 0 : -1;
}

static int remove_file(void **state)
{
    (void)state;
    return remove(path);
}

static struct image opened(void)
{
    struct image im;
    struct error e = { 0 };
    if (image_open(&im, "kernel", path, &e))
        fail_msg("%s", e.text);
    return im;
}

struct collected {
    uint8_t data[LEN];
    uint64_t len;
    unsigned parts, fail_at;
};

static int collect(void *ctx, uint64_t done, const uint8_t *data, size_t n, struct error *e)
{
    struct collected *c = ctx;
    assert_int_equal(done, c->len);
    assert_true(c->len + n <= LEN);
    memcpy(c->data + done, data, n);
    c->len += n;
    return ++c->parts == c->fail_at ? error_set(e, -ENOSPC, "full") : 0;
}

static void a_file_is_read_whole(void **s)
{
    (void)s;
    struct error e = { 0 };
    struct image im = opened();
    assert_int_equal(im.len, IMAGE_HEAD);
    assert_memory_equal(im.data, contents, IMAGE_HEAD);
    assert_int_equal(image_read_rest(&im, LEN, &e), 0);
    assert_int_equal(image_size(&im), LEN);
    assert_memory_equal(im.data, contents, LEN);
    image_close(&im);
    im = opened();
    assert_int_equal(image_read_rest(&im, LEN - 1, &e), -EFBIG);
    image_close(&im);
}

static void a_file_is_read_in_parts(void **s)
{
    (void)s;
    static struct collected c;
    struct error e = { 0 };
    struct image im = opened();
    assert_false(image_measure(&im, LEN - 1));
    assert_true(image_measure(&im, LEN));
    assert_int_equal(image_size(&im), LEN);
    assert_int_equal(im.len, IMAGE_HEAD); /* no more than before */
    c = (struct collected){ 0 };
    assert_int_equal(image_each_part(&im, 0, LEN, collect, &c, &e), 0);
    assert_true(c.len == LEN && c.parts > 1);
    assert_memory_equal(c.data, contents, LEN);
    c = (struct collected){ 0 };
    assert_int_equal(image_each_part(&im, 1000, 5, collect, &c, &e), 0);
    assert_true(c.len == 5 && c.parts == 1 && !memcmp(c.data, contents + 1000, 5));
    c = (struct collected){ .fail_at = 2 };
    assert_int_equal(image_each_part(&im, 0, LEN, collect, &c, &e), -ENOSPC);
    assert_int_equal(c.parts, 2);
    /* Measured and then read whole after all. */
    assert_int_equal(image_read_rest(&im, LEN, &e), 0);
    assert_memory_equal(im.data, contents, LEN);
    c = (struct collected){ 0 };
    assert_int_equal(image_each_part(&im, 7, LEN - 7, collect, &c, &e), 0);
    assert_int_equal(c.len, LEN - 7);
    assert_memory_equal(c.data, contents + 7, LEN - 7);
    image_close(&im);
}

static void a_file_that_shrinks_is_told_of(void **s)
{
    (void)s;
    static struct collected c;
    struct error e = { 0 };
    struct image im = opened();
    assert_true(image_measure(&im, LEN));
    assert_int_equal(truncate(path, 300000), 0);
    assert_int_equal(image_each_part(&im, 0, LEN, collect, &c, &e), -EIO);
    assert_non_null(strstr(e.text, path));
    assert_non_null(strstr(e.text, "shorter"));
    image_close(&im);
    FILE *f = fopen(path, "wb");
    assert_true(f && fwrite(contents, 1, LEN, f) == LEN && fclose(f) == 0);
}

static void what_has_no_size_is_not_measured(void **s)
{
    (void)s;
    struct error e = { 0 };
    struct image im;
    assert_int_equal(image_open(&im, "kernel", "/dev/zero", &e), 0);
    assert_false(image_measure(&im, 1 << 20));
    assert_int_equal(image_read_rest(&im, 1 << 20, &e), -EFBIG);
    image_close(&im);
    assert_int_equal(image_open(&im, "initrd", "/proc/cpuinfo", &e), 0);
    assert_false(image_measure(&im, 1 << 20));
    assert_int_equal(image_read_rest(&im, 16 << 20, &e), 0);
    assert_true(im.len > 10 && image_size(&im) == im.len);
    image_close(&im);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_read_whole),
        cmocka_unit_test(a_file_is_read_in_parts),
        cmocka_unit_test(a_file_that_shrinks_is_told_of),
        cmocka_unit_test(what_has_no_size_is_not_measured),
    };
    return cmocka_run_group_tests(tests, write_file, remove_file);
}
