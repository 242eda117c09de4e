/* SPDX-License-Identifier: Apache-2.0 */
/* Guest-physical memory: regions, accessors, A20, code and its writers, the dirty log. */
#include "chip_kit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/thread.h"
#include "memory/pmap.h"

#define MIB (1ull << 20)

struct revoked {
    unsigned calls;
    uint64_t first, count;
    unsigned rights;
};

static void on_revoke(void *ctx, uint64_t first, uint64_t count, unsigned rights)
{
    struct revoked *r = ctx;
    *r = (struct revoked){ r->calls + 1, first, count, rights };
}

static struct pmap *make(void)
{
    struct error e = { 0 };
    struct pmap *pm = pmap_create(&e);
    assert_non_null(pm);
    assert_int_equal(pmap_add(pm, REGION_RAM, GPA(0), 2 * MIB, &e), 0);
    assert_int_equal(pmap_add(pm, REGION_ROM, GPA(0xfffe0000), 0x20000, &e), 0);
    assert_int_equal(pmap_add_alias(pm, GPA(0x300000), 0x20000, GPA(0xfffe0000), &e), 0);
    return pm;
}

static void regions_do_not_overlap(void **s)
{
    (void)s;
    struct pmap *pm = make();
    struct error e = { 0 };
    assert_int_equal(pmap_add(pm, REGION_RAM, GPA(2 * MIB - 4096), 8192, &e), -EINVAL);
    assert_int_equal(pmap_add(pm, REGION_RAM, GPA(0x400000), 100, &e), -EINVAL);
    assert_int_equal(pmap_add(pm, REGION_RAM, GPA(1ull << 40), 4096, &e), -EINVAL);
    assert_int_equal(pmap_add(pm, REGION_RAM, GPA((1ull << 40) - 4096), 8192, &e), -EINVAL);
    assert_int_equal(pmap_add_alias(pm, GPA(0x500000), 0x40000, GPA(0xfffe0000), &e), -EINVAL);
    assert_int_equal(pmap_add_alias(pm, GPA(0x500000), 4096, GPA(0x300000), &e), -EINVAL);
    assert_true(pmap_ram_size(pm) == 2 * MIB);
    pmap_destroy(pm);
}

static void pages_are_found(void **s)
{
    (void)s;
    struct pmap *pm = make();
    struct page *first = pmap_page(pm, GPA(0));
    assert_non_null(first);
    assert_ptr_equal(pmap_page(pm, GPA(0xfff)), first);
    assert_ptr_equal(pmap_page(pm, GPA(0x1000))->host, first->host + 4096);
    assert_null(pmap_page(pm, GPA(2 * MIB)));
    assert_null(pmap_page(pm, GPA(1ull << 40)));
    assert_null(pmap_page(pm, GPA(~0ull)));
    assert_ptr_equal(pmap_page(pm, GPA(0x301000)), pmap_page(pm, GPA(0xfffe1000)));
    assert_int_equal(page_rights(first), RIGHT_READ | RIGHT_WRITE | RIGHT_EXEC);
    assert_int_equal(page_rights(pmap_page(pm, GPA(0xfffe0000))), RIGHT_READ | RIGHT_EXEC);
    pmap_destroy(pm);
}

static void a_large_guest_costs_little(void **s)
{
    (void)s;
    struct error e = { 0 };
    struct pmap *pm = pmap_create(&e);
    assert_int_equal(pmap_add(pm, REGION_RAM, GPA(0), 1ull << 30, &e), 0);
    assert_int_equal(pmap_add(pm, REGION_RAM, GPA(1ull << 32), 1ull << 36, &e), 0);
    uint64_t v = 0x1122334455667788, back = 0;
    assert_int_equal(ram_write(pm, GPA((1ull << 36) + 12345), &v, 8), 0);
    assert_int_equal(ram_read(pm, GPA((1ull << 36) + 12345), &back, 8), 0);
    assert_true(back == v);
    pmap_destroy(pm);
}

static void accessors_are_bounded(void **s)
{
    (void)s;
    struct pmap *pm = make();
    uint8_t buf[8192], back[8192];
    memset(buf, 0x5a, sizeof(buf));
    assert_int_equal(ram_write(pm, GPA(100), buf, sizeof(buf)), 0);
    assert_int_equal(ram_read(pm, GPA(100), back, sizeof(back)), 0);
    assert_memory_equal(buf, back, sizeof(buf));
    /* Half outside: nothing happens at all. */
    memset(buf, 0x77, sizeof(buf));
    assert_int_equal(ram_write(pm, GPA(2 * MIB - 4096), buf, 8192), -EFAULT);
    assert_int_equal(ram_read(pm, GPA(2 * MIB - 4096), back, 4096), 0);
    assert_int_equal(back[0], 0);
    assert_int_equal(ram_read(pm, GPA(~0ull - 3), back, 8), -EFAULT);
    assert_int_equal(ram_read(pm, GPA(0), back, SIZE_MAX), -EFAULT);
    /* ROM: loaded at boot, never written by devices, seen through its alias. */
    assert_int_equal(ram_write(pm, GPA(0xfffe0000), buf, 1), -EFAULT);
    assert_int_equal(pmap_load(pm, GPA(0xfffe0ff0), buf, 0x20), 0);
    assert_int_equal(ram_read(pm, GPA(0x300ff0), back, 0x20), 0);
    assert_memory_equal(buf, back, 0x20);
    pmap_destroy(pm);
}

static void touched_memory_is_counted(void **s)
{
    (void)s;
    struct error e = { 0 };
    struct pmap *pm = pmap_create(&e);
    struct pmap_usage before, after;
    assert_int_equal(pmap_add(pm, REGION_RAM, GPA(0), 64 * MIB, &e), 0);
    assert_true(pmap_host_usage(pm, &before));
    assert_true(before.guest == 0 && before.rss > 64 << 10 && before.page_tables >= 4096);
    for (uint64_t at = 0; at < 16 * MIB; at += 4096)
        pmap_page(pm, GPA(at + 8 * MIB))->host[1] = 1;
    assert_true(pmap_host_usage(pm, &after));
    /* In small pages, or in huge ones where the host gives them. */
    assert_true(after.guest >= 16 * MIB && after.guest <= 20 * MIB);
    assert_true(after.rss - after.guest < before.rss + 2 * MIB);
    pmap_destroy(pm);
}

/* Large loads go to the host by another way than small ones: the same holds for them. */
static void large_loads(void **s)
{
    (void)s;
    enum { LEN = 300000 };
    struct error e = { 0 };
    struct pmap *pm = make();
    struct page *pg = pmap_page(pm, GPA(2 * MIB - 0x3000));
    uint8_t *data = malloc(LEN), *back = malloc(LEN);
    assert_true(data && back);
    for (unsigned i = 0; i < LEN; i++)
        data[i] = (uint8_t)(i * 7 + (i >> 8));
    assert_int_equal(pmap_add(pm, REGION_RAM, GPA(2 * MIB), MIB, &e), 0);
    /* Into two objects of the host, neither end on a page, what is cached of it noticed. */
    uint32_t version = pmap_claim_code(pm, GPA(2 * MIB - 0x2f00), 16);
    pg->host[0] = 1;
    assert_int_equal(pmap_load(pm, GPA(2 * MIB - 200001), data, LEN), 0);
    assert_int_equal(ram_read(pm, GPA(2 * MIB - 200001), back, LEN), 0);
    assert_memory_equal(data, back, LEN);
    assert_int_equal(pg->host[0], data[200001 - 0x3000]);
    assert_true(atomic_load(&pg->code_version) != version);
    /* ROM, and RAM behind its alias. */
    assert_int_equal(pmap_load(pm, GPA(0xfffe0000), data, 0x20000), 0);
    assert_int_equal(ram_read(pm, GPA(0x300000), back, 0x20000), 0);
    assert_memory_equal(data, back, 0x20000);
    assert_int_equal(pmap_load(pm, GPA(0x300000), data + 1, 0x20000), 0);
    assert_int_equal(ram_read(pm, GPA(0xfffe0000), back, 0x20000), 0);
    assert_memory_equal(data + 1, back, 0x20000);
    /* Half outside: nothing happens at all. */
    assert_int_equal(pmap_load(pm, GPA(0xfffe8000), data, LEN), -EFAULT);
    assert_int_equal(ram_read(pm, GPA(0xfffe8000), back, 16), 0);
    assert_memory_equal(data + 1 + 0x8000, back, 16);
    /* With A20 masked the second megabyte is the first. */
    pmap_set_a20(pm, false);
    assert_int_equal(pmap_load(pm, GPA(MIB), data, LEN), 0);
    pmap_set_a20(pm, true);
    assert_int_equal(ram_read(pm, GPA(0), back, LEN), 0);
    assert_memory_equal(data, back, LEN);
    free(data);
    free(back);
    pmap_destroy(pm);
}

static void spans_and_pins(void **s)
{
    (void)s;
    struct pmap *pm = make();
    size_t got;
    uint8_t *p = ram_span(pm, GPA(0x1234), 100000, &got);
    assert_ptr_equal(p, pmap_page(pm, GPA(0x1000))->host + 0x234);
    assert_int_equal(got, 100000);
    ram_span(pm, GPA(2 * MIB - 100), 1000, &got);
    assert_int_equal(got, 100);
    assert_null(ram_span(pm, GPA(2 * MIB), 1, &got));
    assert_int_equal(got, 0);
    struct page *pg = pmap_page(pm, GPA(0x2000));
    uint32_t version = pmap_claim_code(pm, GPA(0x2010), 4);
    p = ram_pin(pm, GPA(0x1ff0), 0x100, &got);
    assert_int_equal(got, 0x100);
    assert_true(atomic_load(&pg->state) & PAGE_PINNED);
    assert_non_null(ram_pin(pm, GPA(0x2000), 16, &got));
    ram_unpin(pm, GPA(0x1ff0), 0x100, true);
    assert_true(atomic_load(&pg->code_version) != version);
    assert_true(atomic_load(&pg->state) & PAGE_PINNED);
    ram_unpin(pm, GPA(0x2000), 16, false);
    assert_false(atomic_load(&pg->state) & PAGE_PINNED);
    pmap_destroy(pm);
}

static void a20_wraps(void **s)
{
    (void)s;
    struct pmap *pm = make();
    struct revoked r = { 0 };
    struct pmap_consumer c = { .revoke = on_revoke, .ctx = &r };
    assert_int_equal(pmap_add_consumer(pm, &c), 0);
    assert_true(pmap_get_a20(pm));
    pmap_set_a20(pm, false);
    assert_int_equal(r.calls, 1);
    assert_true(r.count == 0);
    assert_ptr_equal(pmap_page(pm, GPA(MIB + 0x500)), pmap_page(pm, GPA(0x500)));
    assert_null(pmap_page(pm, GPA(2 * MIB)));
    uint32_t v = 7;
    assert_int_equal(ram_write(pm, GPA(MIB - 2), &v, 4), 0); /* ends at address 2 */
    assert_int_equal(pmap_page(pm, GPA(MIB - 1))->host[0xffe], 7);
    size_t got;
    ram_span(pm, GPA(MIB - 2), 4, &got);
    assert_int_equal(got, 2);
    pmap_set_a20(pm, false);
    assert_int_equal(r.calls, 1);
    pmap_set_a20(pm, true);
    assert_int_equal(r.calls, 2);
    assert_ptr_not_equal(pmap_page(pm, GPA(MIB)), pmap_page(pm, GPA(0)));
    pmap_destroy(pm);
}

static void code_and_writers(void **s)
{
    (void)s;
    struct pmap *pm = make();
    struct revoked a = { 0 }, b = { 0 };
    int na = pmap_add_consumer(pm, &(struct pmap_consumer){ .revoke = on_revoke, .ctx = &a });
    int nb = pmap_add_consumer(pm, &(struct pmap_consumer){ .revoke = on_revoke, .ctx = &b });
    assert_true(na == 0 && nb == 1);
    struct page *pg = pmap_page(pm, GPA(0x5000));
    assert_true(pmap_claim_write(pm, pg, nb));
    uint32_t v = pmap_claim_code(pm, GPA(0x5100), 0x50);
    /* Only the writer loses its right, and only the write right. */
    assert_int_equal(a.calls, 0);
    assert_int_equal(b.calls, 1);
    assert_true(b.first == 5 && b.count == 1 && b.rights == RIGHT_WRITE);
    assert_false(pmap_claim_write(pm, pg, na));
    assert_true(page_has_code(pg, 0x100, 1) && page_has_code(pg, 0x14f, 1) && page_has_code(pg, 0xf8, 16));
    assert_false(page_has_code(pg, 0xff, 1) || page_has_code(pg, 0x180, 64));
    /* A write beside the code is nobody's business; one into it makes all decoded of the page void. */
    pmap_written(pm, pg, 0x200, 8);
    assert_int_equal(pmap_claim_code(pm, GPA(0x5100), 1), v);
    pmap_written(pm, pg, 0xfc, 8);
    assert_false(page_has_code(pg, 0, 4096));
    assert_true(pmap_claim_write(pm, pg, na));
    assert_true(pmap_claim_code(pm, GPA(0x5100), 1) != v);
    assert_int_equal(a.calls, 1);
    /* The whole page, and its last byte. */
    pmap_claim_code(pm, GPA(0x6000), 4096);
    pmap_claim_code(pm, GPA(0x7fff), 1);
    assert_true(atomic_load(&pmap_page(pm, GPA(0x6000))->code_map) == ~0ull);
    assert_true(atomic_load(&pmap_page(pm, GPA(0x7000))->code_map) == 1ull << 63);
    pmap_destroy(pm);
}

static void revocation_reaches_aliases(void **s)
{
    (void)s;
    struct error e = { 0 };
    struct pmap *pm = make();
    assert_int_equal(pmap_add_alias(pm, GPA(0x800000), 0x10000, GPA(0x4000), &e), 0);
    struct revoked r = { 0 };
    int n = pmap_add_consumer(pm, &(struct pmap_consumer){ .revoke = on_revoke, .ctx = &r });
    assert_true(pmap_claim_write(pm, pmap_page(pm, GPA(0x801000)), n));
    pmap_claim_code(pm, GPA(0x5000), 1);
    assert_int_equal(r.calls, 2); /* by its own address, then by the alias's */
    assert_true(r.first == 0x801 && r.count == 1);
    pmap_revoke(pm, 4, 2, RIGHT_READ | RIGHT_WRITE, PAGE_TRACED);
    assert_int_equal(r.calls, 4);
    assert_true(r.first == 0x800 && r.count == 2);
    assert_int_equal(page_rights(pmap_page(pm, GPA(0x4000))), 0);
    assert_false(pmap_claim_write(pm, pmap_page(pm, GPA(0x4000)), n));
    pmap_destroy(pm);
}

struct notices {
    struct pmap *pm;
    struct page *pg;
    uint32_t old_version;
    uint64_t pages[8];
    unsigned n;
};

static void ignore_revoke(void *ctx, uint64_t first, uint64_t count, unsigned rights)
{
    (void)ctx, (void)first, (void)count, (void)rights;
}

static void on_code_changed(void *ctx, uint64_t page)
{
    struct notices *k = ctx;
    assert_true(k->n < 8);
    k->pages[k->n++] = page;
    /* The version has moved already, and no lock is held: this would wait for ever. */
    assert_true(atomic_load(&k->pg->code_version) != k->old_version);
    pmap_claim_code(k->pm, GPA(0x1f000), 1);
}

static void expect_notices(struct notices *k, const uint64_t *pages, unsigned n)
{
    assert_int_equal(k->n, n);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(k->pages[i], pages[i]);
    k->n = 0;
}

static void changed_code_is_announced(void **s)
{
    (void)s;
    struct error e = { 0 };
    struct pmap *pm = make();
    struct revoked r = { 0 };
    struct notices k = { .pm = pm, .pg = pmap_page(pm, GPA(0x5000)) }, other = k;
    assert_int_equal(pmap_add_alias(pm, GPA(0x800000), 0x10000, GPA(0x4000), &e), 0);
    pmap_add_consumer(pm, &(struct pmap_consumer){ ignore_revoke, &k, on_code_changed });
    pmap_add_consumer(pm, &(struct pmap_consumer){ on_revoke, &r, NULL }); /* one that does not care */
    pmap_add_consumer(pm, &(struct pmap_consumer){ ignore_revoke, &other, on_code_changed });
    uint32_t v = 7;
    k.old_version = other.old_version = pmap_claim_code(pm, GPA(0x5100), 8);
    /* Beside the code, in another page, and not a write. */
    assert_int_equal(ram_write(pm, GPA(0x5200), &v, 4), 0);
    assert_int_equal(ram_write(pm, GPA(0x6100), &v, 4), 0);
    assert_int_equal(ram_read(pm, GPA(0x5100), &v, 4), 0);
    expect_notices(&k, NULL, 0);
    /* By its own address and the alias's, whichever was written; once. */
    assert_int_equal(ram_write(pm, GPA(0x5104), &v, 4), 0);
    expect_notices(&k, (uint64_t[]){ 5, 0x801 }, 2);
    expect_notices(&other, (uint64_t[]){ 5, 0x801 }, 2);
    assert_int_equal(ram_write(pm, GPA(0x5104), &v, 4), 0);
    expect_notices(&k, NULL, 0);
    k.old_version = other.old_version = pmap_claim_code(pm, GPA(0x801100), 8);
    pmap_written(pm, k.pg, 0x107, 1);
    expect_notices(&k, (uint64_t[]){ 5, 0x801 }, 2);
    pmap_destroy(pm);
}

static void changed_code_shows_twice_without_a20(void **s)
{
    (void)s;
    struct pmap *pm = make();
    struct notices k = { .pm = pm, .pg = pmap_page(pm, GPA(0x5000)) };
    pmap_add_consumer(pm, &(struct pmap_consumer){ ignore_revoke, &k, on_code_changed });
    uint8_t v = 7;
    pmap_set_a20(pm, false);
    k.old_version = pmap_claim_code(pm, GPA(0x105100), 8);
    assert_int_equal(ram_write(pm, GPA(0x5100), &v, 1), 0);
    expect_notices(&k, (uint64_t[]){ 5, 0x105 }, 2);
    pmap_destroy(pm);
}

/* Pages far up are found too: the first and the last of a leaf, and above 4 GiB. */
static void changed_code_is_named_by_its_page(void **s)
{
    (void)s;
    static const uint64_t at[] = { 0, 0xfff000, 0x1000000, (1ull << 36) + 0x7fff000, (1ull << 40) - 4096 };
    struct error e = { 0 };
    struct pmap *pm = pmap_create(&e);
    assert_int_equal(pmap_add(pm, REGION_RAM, GPA(0), 64 * MIB, &e), 0);
    assert_int_equal(pmap_add(pm, REGION_RAM, GPA(1ull << 36), (1ull << 40) - (1ull << 36), &e), 0);
    struct notices k = { .pm = pm };
    pmap_add_consumer(pm, &(struct pmap_consumer){ ignore_revoke, &k, on_code_changed });
    for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        uint8_t v = 7;
        k.pg = pmap_page(pm, GPA(at[i]));
        k.old_version = pmap_claim_code(pm, GPA(at[i] + 0xfff), 1);
        assert_int_equal(ram_write(pm, GPA(at[i] + 0xfff), &v, 1), 0);
        expect_notices(&k, (uint64_t[]){ at[i] >> 12 }, 1);
    }
    pmap_destroy(pm);
}

static void dirty_log(void **s)
{
    (void)s;
    struct pmap *pm = make();
    struct revoked r = { 0 };
    int n = pmap_add_consumer(pm, &(struct pmap_consumer){ .revoke = on_revoke, .ctx = &r });
    static uint64_t map[0x100000 / 64];
    uint8_t byte = 1;
    assert_int_equal(ram_write(pm, GPA(0x1000), &byte, 1), 0); /* before: does not count */
    pmap_dirty_log_start(pm);
    assert_int_equal(ram_write(pm, GPA(0x3000), &byte, 1), 0);
    assert_true(pmap_claim_write(pm, pmap_page(pm, GPA(0x41000)), n));
    assert_int_equal(ram_read(pm, GPA(0x5000), &byte, 1), 0);
    assert_int_equal(pmap_dirty_log_fetch(pm, map, 100), -ENOSPC);
    assert_int_equal(pmap_dirty_log_fetch(pm, map, 0x100000), 0);
    assert_true(map[0] == 1ull << 3 && map[1] == 1ull << 1);
    assert_true(r.rights == RIGHT_WRITE); /* who had claimed has to claim again */
    assert_int_equal(pmap_dirty_log_fetch(pm, map, 0x100000), 0);
    assert_true(map[0] == 0 && map[1] == 0);
    assert_int_equal(page_rights(pmap_page(pm, GPA(0x3000))), RIGHT_READ | RIGHT_EXEC);
    assert_true(pmap_claim_write(pm, pmap_page(pm, GPA(0x3000)), n));
    assert_int_equal(pmap_dirty_log_fetch(pm, map, 0x100000), 0);
    assert_true(map[0] == 1ull << 3);
    pmap_destroy(pm);
}

/* A decoder and a writer on two threads: a block of the current version must show the last bytes written. */
struct race {
    struct pmap *pm;
    atomic_bool stop;
};

static void *race_writer(void *arg)
{
    struct race *r = arg;
    struct page *pg = pmap_page(r->pm, GPA(0x9000));
    for (uint32_t v = 1; !atomic_load(&r->stop); v++) {
        __atomic_store_n((uint32_t *)(void *)(pg->host + 0x40), v, __ATOMIC_RELAXED);
        pmap_written(r->pm, pg, 0x40, 4);
    }
    return NULL;
}

static void decoder_never_keeps_stale_bytes(void **s)
{
    (void)s;
    struct race r = { .pm = make() };
    struct host_thread t = { 0 };
    struct error e = { 0 };
    assert_int_equal(host_thread_start(&t, "writer", race_writer, &r, &e), 0);
    struct page *pg = pmap_page(r.pm, GPA(0x9000));
    uint32_t *word = (uint32_t *)(void *)(pg->host + 0x40);
    uint32_t version = 0, decoded = 0;
    for (unsigned i = 0; i < 200000; i++) {
        version = pmap_claim_code(r.pm, GPA(0x9040), 4);
        decoded = __atomic_load_n(word, __ATOMIC_RELAXED);
    }
    atomic_store(&r.stop, true);
    host_thread_join(&t);
    if (atomic_load(&pg->code_version) == version)
        assert_int_equal(decoded, *word);
    pmap_destroy(r.pm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regions_do_not_overlap),
        cmocka_unit_test(pages_are_found),
        cmocka_unit_test(a_large_guest_costs_little),
        cmocka_unit_test(accessors_are_bounded),
        cmocka_unit_test(touched_memory_is_counted),
        cmocka_unit_test(large_loads),
        cmocka_unit_test(spans_and_pins),
        cmocka_unit_test(a20_wraps),
        cmocka_unit_test(code_and_writers),
        cmocka_unit_test(revocation_reaches_aliases),
        cmocka_unit_test(changed_code_is_announced),
        cmocka_unit_test(changed_code_shows_twice_without_a20),
        cmocka_unit_test(changed_code_is_named_by_its_page),
        cmocka_unit_test(dirty_log),
        cmocka_unit_test(decoder_never_keeps_stale_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
