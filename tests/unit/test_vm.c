/* SPDX-License-Identifier: Apache-2.0 */
/* Whole machines: deterministic stepping, save and load at any instruction, stopping the world, and ends.
 * The guest is vm_guest.S. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "sundog.h"

#define TICKS 0x3000
#define ROUNDS 0x3004
#define OTHER_ROUNDS 0x3008
#define SPLIT 0x4ffe

extern const uint8_t vm_guest[], vm_guest_end[];

static char kernel_path[] = "/tmp/sundog-test-vm-XXXXXX";

static int write_kernel(void **state)
{
    (void)state;
    int fd = mkstemp(kernel_path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    size_t len = (size_t)(vm_guest_end - vm_guest);
    int ok = f && fwrite(vm_guest, 1, len, f) == len && fclose(f) == 0;
    return ok ? 0 : -1;
}

static int remove_kernel(void **state)
{
    (void)state;
    return remove(kernel_path);
}

static struct sundog_config config(unsigned cpus, bool deterministic)
{
    return (struct sundog_config){
        .size = sizeof(struct sundog_config),
        .cpus = cpus,
        .memory = 4 << 20,
        .kernel = kernel_path,
        .ns_per_1k_instructions = deterministic ? 1000 : 0,
    };
}

static struct sundog *make(unsigned cpus, bool deterministic)
{
    const struct sundog_config c = config(cpus, deterministic);
    struct sundog_error e = { 0 };
    struct sundog *vm = sundog_create(&c, &e);
    if (!vm)
        fail_msg("%s", e.text);
    return vm;
}

static uint32_t word(struct sundog *vm, uint64_t at)
{
    uint32_t v = 0;
    assert_int_equal(sundog_read_memory(vm, at, &v, sizeof(v)), 0);
    return v;
}

static uint64_t random_below(uint64_t *seed, uint64_t n)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return (*seed >> 33) % n;
}

/* --- deterministic -------------------------------------------------------------------------------------- */

static void the_guest_does_its_work(void **state)
{
    (void)state;
    struct sundog *vm = make(2, true);
    assert_int_equal(sundog_run_until(vm, 3000000), SUNDOG_RUNNING);
    assert_int_equal(sundog_instructions(vm), 3000000);
    assert_true(word(vm, TICKS) > 20);
    assert_true(word(vm, ROUNDS) > 200); /* eight a tick */
    assert_true(word(vm, OTHER_ROUNDS) > 500);
    uint32_t rounds = word(vm, ROUNDS), others = word(vm, OTHER_ROUNDS), split = word(vm, SPLIT);
    assert_true(split <= 3 * rounds + others && split + 4 >= 3 * rounds + others);
    sundog_destroy(vm);
}

/* Where a run is cut does not matter. */
static void cuts_do_not_matter(void **state)
{
    (void)state;
    for (unsigned cpus = 1; cpus <= 3; cpus++) {
        struct sundog *whole = make(cpus, true), *cut = make(cpus, true);
        uint64_t seed = cpus;
        for (uint64_t at = 0; at < 400000;) {
            uint64_t end = at + 1 + random_below(&seed, 100000);
            while (at < end) {
                at += 1 + random_below(&seed, random_below(&seed, 2) ? 3 : 5000);
                if (at > end)
                    at = end;
                sundog_run_until(cut, at);
            }
            sundog_run_until(whole, at);
            assert_true(sundog_instructions(whole) == at && sundog_instructions(cut) == at);
            if (sundog_state_hash(whole) != sundog_state_hash(cut))
                fail_msg("%u processors: differs at instruction %llu", cpus, (unsigned long long)at);
        }
        sundog_destroy(whole);
        sundog_destroy(cut);
    }
}

static void save_into(struct sundog *from, struct sundog *to)
{
    uint8_t *data;
    size_t len;
    struct sundog_error e = { 0 };
    assert_int_equal(sundog_save(from, &data, &len, &e), 0);
    if (sundog_load(to, data, len, &e))
        fail_msg("%s", e.text);
    free(data);
}

/* Saved at a random instruction and loaded into a fresh machine, it goes on as if nothing had happened. */
static void a_loaded_machine_goes_on_the_same(void **state)
{
    (void)state;
    uint64_t seed = 42;
    for (unsigned i = 0; i < 24; i++) {
        unsigned cpus = 1 + i % 3;
        uint64_t at = random_below(&seed, i % 2 ? 3000 : 300000);
        struct sundog *a = make(cpus, true), *b = make(cpus, true);
        sundog_run_until(a, at);
        sundog_run_until(b, random_below(&seed, 50000)); /* what it was before must not shine through */
        save_into(a, b);
        assert_true(sundog_state_hash(a) == sundog_state_hash(b));
        for (unsigned step = 0; step < 5; step++) {
            at += 1 + random_below(&seed, 50000);
            sundog_run_until(a, at);
            sundog_run_until(b, at);
            if (sundog_state_hash(a) != sundog_state_hash(b))
                fail_msg("case %u, %u processors: differs at instruction %llu", i, cpus,
                         (unsigned long long)at);
        }
        sundog_destroy(a);
        sundog_destroy(b);
    }
}

/* A damaged buffer is refused, and the machine stays as it was. */
static void damage_is_refused(void **state)
{
    (void)state;
    struct sundog *a = make(1, true), *b = make(1, true), *c = make(2, true);
    uint8_t *data;
    size_t len;
    struct sundog_error e = { 0 };
    sundog_run_until(a, 50000);
    sundog_run_until(b, 20000);
    assert_int_equal(sundog_save(a, &data, &len, &e), 0);
    uint64_t before = sundog_state_hash(b), seed = 7;
    for (unsigned i = 0; i < 60; i++) {
        size_t at = (size_t)random_below(&seed, i % 2 ? 200 : len);
        data[at] ^= (uint8_t)(1u << (i % 8));
        assert_true(sundog_load(b, data, len, &e) < 0 && e.text[0]);
        data[at] ^= (uint8_t)(1u << (i % 8));
        assert_true(sundog_load(b, data, (size_t)random_below(&seed, len), &e) < 0);
    }
    assert_true(sundog_load(c, data, len, &e) < 0); /* another number of processors */
    assert_true(sundog_state_hash(b) == before);
    assert_int_equal(sundog_load(b, data, len, &e), 0);
    assert_true(sundog_state_hash(b) == sundog_state_hash(a));
    free(data);
    sundog_destroy(a);
    sundog_destroy(b);
    sundog_destroy(c);
}

/* --- threads -------------------------------------------------------------------------------------------- */

static void wait_rounds(struct sundog *vm, uint64_t at, uint32_t more)
{
    for (uint32_t first = word(vm, at); word(vm, at) - first < more;)
        ;
}

/* Self-changing code and locked accesses across pages on several processors, while the world is stopped
 * over and over: nothing deadlocks, and while it stands still nothing moves. */
static void the_world_stops_and_goes_on(void **state)
{
    (void)state;
    struct sundog *vm = make(3, false);
    struct sundog_error e = { 0 };
    assert_int_equal(sundog_start(vm, &e), 0);
    for (unsigned i = 0; i < 200; i++) {
        sundog_pause(vm);
        if (i % 10 == 0) {
            uint64_t hash = sundog_state_hash(vm), count = sundog_instructions(vm);
            assert_true(sundog_state_hash(vm) == hash && sundog_instructions(vm) == count);
        }
        if (i % 7 == 0) { /* nests */
            sundog_pause(vm);
            sundog_resume(vm);
        }
        sundog_resume(vm);
        wait_rounds(vm, ROUNDS, 1 + i % 20);
        wait_rounds(vm, OTHER_ROUNDS, 1);
    }
    sundog_end(vm);
    assert_int_equal(sundog_wait(vm, NULL), SUNDOG_ENDED);
    uint32_t rounds = word(vm, ROUNDS), others = word(vm, OTHER_ROUNDS), split = word(vm, SPLIT);
    /* Processors 1 and 2 count their rounds with a plain increment, so some are lost; the locked word
     * loses none. */
    assert_true(split >= 3 * (rounds - 1) + others - 2);
    sundog_destroy(vm);
}

/* A running machine saved and loaded into another one that then runs. */
static void a_running_machine_can_move(void **state)
{
    (void)state;
    struct sundog *a = make(2, false), *b = make(2, false);
    struct sundog_error e = { 0 };
    assert_int_equal(sundog_start(a, &e), 0);
    wait_rounds(a, ROUNDS, 100);
    sundog_pause(a);
    save_into(a, b);
    assert_true(sundog_state_hash(a) == sundog_state_hash(b));
    uint32_t ticks = word(b, TICKS);
    assert_int_equal(sundog_start(b, &e), 0);
    wait_rounds(b, ROUNDS, 200);
    wait_rounds(b, OTHER_ROUNDS, 200);
    wait_rounds(b, TICKS, 10);
    assert_true(word(b, TICKS) > ticks);
    sundog_destroy(b); /* ends it while it runs */
    sundog_resume(a);
    wait_rounds(a, ROUNDS, 100);
    sundog_destroy(a);
}

static void wrong_use_is_refused(void **state)
{
    (void)state;
    struct sundog_error e = { 0 };
    struct sundog_config c = config(1, true);
    c.kernel = NULL;
    assert_null(sundog_create(&c, &e));
    c = config(9, true);
    assert_null(sundog_create(&c, &e));
    c = config(1, true);
    c.memory = 12345;
    assert_null(sundog_create(&c, &e));
    c = config(1, true);
    c.engine = "warp";
    assert_null(sundog_create(&c, &e));
    assert_non_null(strstr(e.text, "warp"));
    c = config(1, true);
    c.engine_off = "chain,warp";
    assert_null(sundog_create(&c, &e));
    assert_non_null(strstr(e.text, "'warp'"));
    c = config(1, true);
    c.code_cache = 4096;
    assert_null(sundog_create(&c, &e));
    assert_non_null(strstr(e.text, "code cache"));
    c = config(1, true);
    c.size *= 2;
    assert_null(sundog_create(&c, &e));
    struct sundog *vm = make(1, true);
    assert_true(sundog_start(vm, &e) < 0);
    sundog_destroy(vm);
    vm = make(1, false);
    assert_int_equal(sundog_start(vm, &e), 0);
    assert_true(sundog_start(vm, &e) < 0);
    sundog_destroy(vm);
    sundog_destroy(make(8, false)); /* never started */
    c = config(1, true);
    c.engine_off = "chain,adapt";
    c.code_cache = 2 << 20;
    c.verify_code = SUNDOG_VERIFY_ALL;
    vm = sundog_create(&c, &e);
    assert_non_null(vm);
    sundog_destroy(vm);
    c = config(1, true);
    c.size = offsetof(struct sundog_config, code_cache); /* a program of before */
    c.code_cache = 1;
    vm = sundog_create(&c, &e);
    assert_non_null(vm);
    sundog_destroy(vm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_guest_does_its_work),
        cmocka_unit_test(cuts_do_not_matter),
        cmocka_unit_test(a_loaded_machine_goes_on_the_same),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(the_world_stops_and_goes_on),
        cmocka_unit_test(a_running_machine_can_move),
        cmocka_unit_test(wrong_use_is_refused),
    };
    return cmocka_run_group_tests(tests, write_kernel, remove_kernel);
}
