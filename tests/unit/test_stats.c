/* SPDX-License-Identifier: Apache-2.0 */
/* The counters' text: an engine's own ones stand beside those that all engines have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/vm_internal.h"

struct kit {
    struct vm vm;
    struct engine_ops engine;
};

static struct kit *make(unsigned cpus)
{
    struct kit *k = calloc(1, sizeof(*k));
    assert_non_null(k);
    k->engine = (struct engine_ops){ .name = "abacus" };
    k->vm.engine = &k->engine;
    k->vm.pmap = pmap_create(NULL);
    assert_non_null(k->vm.pmap);
    for (unsigned i = 0; i < cpus; i++) {
        k->vm.cpus[i] = (struct vm_cpu){ .vm = &k->vm, .v = vcpu_alloc(0) };
        assert_non_null(k->vm.cpus[i].v);
        k->vm.cpus[i].v->index = i;
        k->vm.ncpus = i + 1;
    }
    return k;
}

static void destroy(struct kit *k)
{
    for (unsigned i = 0; i < k->vm.ncpus; i++)
        vcpu_free(k->vm.cpus[i].v, 0);
    pmap_destroy(k->vm.pmap);
    free(k);
}

static void beads(const struct vcpu *v, void (*put)(void *ctx, const char *name, uint64_t value), void *ctx)
{
    put(ctx, "moved", 10 + v->index);
    put(ctx, "stuck", v->index ? 0 : UINT32_MAX * 5ull);
}

/* Counts how often `part` stands in the counters. */
static unsigned times(struct kit *k, const char *part)
{
    char *json = vm_stats_json(&k->vm);
    unsigned n = 0;
    assert_non_null(json);
    for (const char *p = json; (p = strstr(p, part)); p++)
        n++;
    free(json);
    return n;
}

static void engine_counters_are_shown_and_summed(void **s)
{
    (void)s;
    struct kit *k = make(3);
    k->engine.stats = beads;
    assert_int_equal(times(k, "\"engine_counters\": {\"moved\": 33, \"stuck\": 21474836475}"), 1);
    assert_int_equal(times(k, "\"engine_counters\": {\"moved\": 10, \"stuck\": 21474836475}"), 1);
    assert_int_equal(times(k, "\"engine_counters\": {\"moved\": 11, \"stuck\": 0}"), 1);
    assert_int_equal(times(k, "\"engine_counters\": {\"moved\": 12, \"stuck\": 0}"), 1);
    destroy(k);
}

static void an_engine_may_have_none(void **s)
{
    (void)s;
    struct kit *k = make(2);
    assert_int_equal(times(k, "\"engine_counters\": {}"), 3);
    destroy(k);
}

static void many(const struct vcpu *v, void (*put)(void *ctx, const char *name, uint64_t value), void *ctx)
{
    (void)v;
    static const char name[] =
        "a_counter_with_a_rather_long_name_so_that_the_text_gets_longer_than_first_thought";
    for (unsigned i = 0; i < 400; i++)
        put(ctx, name, i);
}

static void there_may_be_many(void **s)
{
    (void)s;
    struct kit *k = make(1);
    k->engine.stats = many;
    assert_int_equal(times(k, "than_first_thought\": 399}"), 2);
    assert_int_equal(times(k, "than_first_thought\": "), 800);
    destroy(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engine_counters_are_shown_and_summed),
        cmocka_unit_test(an_engine_may_have_none),
        cmocka_unit_test(there_may_be_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
