/* SPDX-License-Identifier: Apache-2.0 */
/* Notices between processors: who is told at once, who is asked to look, and what is remembered for them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/vm_internal.h"

struct heard {
    char text[256]; /* "c5 " = code changed in page 5; "d0+0/7 " = dropped pages 0+0, rights 7 */
    unsigned kicks;
};

/* Two processors and an engine that writes down what it is told; no guest, no threads. */
struct kit {
    struct vm vm;
    struct engine_ops engine;
    struct heard heard[2];
};

static struct heard *heard_by(const struct vcpu *v)
{
    return &((struct kit *)v->engine_data)->heard[v->index];
}

static void note(struct heard *h, const char *fmt, ...) printf_like(2, 3);
static void note(struct heard *h, const char *fmt, ...)
{
    size_t used = strlen(h->text);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(h->text + used, sizeof(h->text) - used, fmt, ap);
    va_end(ap);
}

static void on_code_changed(struct vcpu *v, uint64_t page) { note(heard_by(v), "c%u ", (unsigned)page); }

static void on_drop(struct vcpu *v, uint64_t first, uint64_t count, unsigned rights)
{
    note(heard_by(v), "d%u+%u/%u ", (unsigned)first, (unsigned)count, rights);
}

static void on_kick(void *ctx, unsigned vcpu) { ((struct kit *)ctx)->heard[vcpu].kicks++; }

static struct kit *make(bool listens)
{
    struct kit *k = calloc(1, sizeof(*k));
    struct error e = { 0 };
    assert_non_null(k);
    k->engine = (struct engine_ops){ .name = "ear",
                                     .drop_physical = on_drop,
                                     .code_changed = listens ? on_code_changed : NULL };
    k->vm.engine = &k->engine;
    k->vm.bus = bus_create(&k->vm.tally, &e);
    k->vm.pmap = pmap_create(&e);
    assert_int_equal(pmap_add(k->vm.pmap, REGION_RAM, GPA(0), 1 << 20, &e), 0);
    world_init(&k->vm);
    for (unsigned i = 0; i < 2; i++) {
        struct vm_cpu *c = &k->vm.cpus[i];
        struct vcpu *v = vcpu_alloc(0);
        assert_non_null(v);
        *c = (struct vm_cpu){ .vm = &k->vm, .v = v };
        v->index = i;
        v->cb = (struct vcpu_callbacks){ .ctx = k, .kick = on_kick };
        v->engine_data = k;
        int consumer = world_add_consumer(c);
        assert_int_equal(consumer, i);
        assert_int_equal(mmu_init(&v->mmu, k->vm.pmap, consumer), 0);
        k->vm.ncpus = i + 1;
    }
    return k;
}

static void destroy(struct kit *k)
{
    for (unsigned i = 0; i < k->vm.ncpus; i++)
        vcpu_free(k->vm.cpus[i].v, 0);
    world_destroy(&k->vm);
    pmap_destroy(k->vm.pmap);
    bus_destroy(k->vm.bus);
    free(k);
}

static void write_code(struct kit *k, unsigned page)
{
    const gpa at = GPA((uint64_t)page << PAGE_SHIFT);
    pmap_claim_code(k->vm.pmap, at, 64);
    assert_int_equal(ram_write(k->vm.pmap, at, "x", 1), 0);
}

static void who_is_not_in_is_told_at_once(void **state)
{
    (void)state;
    struct kit *k = make(true);
    write_code(k, 5);
    k->vm.cpus[1].presence = PRESENCE_QUIET;
    write_code(k, 6);
    for (unsigned i = 0; i < 2; i++) {
        assert_string_equal(k->heard[i].text, "c5 c6 ");
        assert_int_equal(k->heard[i].kicks, 0);
    }
    destroy(k);
}

static void *write_as_cpu0(void *arg)
{
    struct kit *k = arg;
    /* The world's lock is held until host_thread_start() has stored who we are. */
    host_mutex_lock(&k->vm.world.lock);
    host_mutex_unlock(&k->vm.world.lock);
    write_code(k, 9);
    return NULL;
}

/* A processor hears of its own writes inside the instruction that makes them; the other one later. */
static void the_writer_is_told_at_once(void **state)
{
    (void)state;
    struct kit *k = make(true);
    struct error e = { 0 };
    k->vm.cpus[0].presence = k->vm.cpus[1].presence = PRESENCE_IN;
    host_mutex_lock(&k->vm.world.lock);
    assert_int_equal(host_thread_start(&k->vm.cpus[0].thread, "vcpu0", write_as_cpu0, k, &e), 0);
    host_mutex_unlock(&k->vm.world.lock);
    host_thread_join(&k->vm.cpus[0].thread);
    assert_string_equal(k->heard[0].text, "c9 ");
    assert_int_equal(k->heard[0].kicks, 0);
    assert_string_equal(k->heard[1].text, "");
    assert_int_equal(k->heard[1].kicks, 1);
    destroy(k);
}

static void who_is_in_is_asked_and_not_waited_for(void **state)
{
    (void)state;
    struct kit *k = make(true);
    struct vm_cpu *c = &k->vm.cpus[1];
    c->presence = PRESENCE_IN;
    write_code(k, 5); /* returns, though nobody acknowledges */
    write_code(k, 6);
    write_code(k, 5);
    assert_string_equal(k->heard[1].text, "");
    assert_true(atomic_load(&c->v->requests) & REQ_REVOKE);
    assert_int_equal(k->heard[1].kicks, 3);
    world_leave(c);
    assert_string_equal(k->heard[1].text, "c5 c6 ");
    c->presence = PRESENCE_IN;
    world_leave(c); /* told once: nothing is left */
    assert_string_equal(k->heard[1].text, "c5 c6 ");
    destroy(k);
}

static void too_many_notices_become_one(void **state)
{
    (void)state;
    struct kit *k = make(true);
    struct vm_cpu *c = &k->vm.cpus[1];
    c->presence = PRESENCE_IN;
    for (unsigned page = 0; page <= REVOCATIONS_MAX; page++)
        write_code(k, page);
    world_leave(c);
    assert_string_equal(k->heard[1].text, "d0+0/7 ");
    destroy(k);
}

static void an_engine_that_looks_itself_is_not_told(void **state)
{
    (void)state;
    struct kit *k = make(false);
    k->vm.cpus[1].presence = PRESENCE_IN;
    write_code(k, 3);
    world_leave(&k->vm.cpus[1]);
    assert_string_equal(k->heard[0].text, "");
    assert_string_equal(k->heard[1].text, "");
    assert_int_equal(k->heard[1].kicks, 0);
    destroy(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_not_in_is_told_at_once),
        cmocka_unit_test(the_writer_is_told_at_once),
        cmocka_unit_test(who_is_in_is_asked_and_not_waited_for),
        cmocka_unit_test(too_many_notices_become_one),
        cmocka_unit_test(an_engine_that_looks_itself_is_not_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
