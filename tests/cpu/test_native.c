/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine against the host processor: generated user-mode instructions, the same bytes and state on both,
 * everything compared.
 *
 *   SUNDOG_NATIVE_CASES=n  at least n cases in all (default: 500 a cell);  SUNDOG_NATIVE_SEED=n;  SUNDOG_NATIVE_ONLY=NAME
 *   SUNDOG_NATIVE_ENGINE=NAME  another engine than the interpreter
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agree.h"
#include "base/types.h"
#include "generate.h"
#include "native.h"

#define CASES_PER_CELL 500
#define REPORTS_MAX 100
#define REPORTS_EACH 3 /* of one instruction */

static struct {
    uint64_t cases, differences, faults, masked;
    unsigned reports;
    unsigned of[INSN_ID_COUNT];
} tally;

static struct native *native;
static struct guest *guest;

static void report(const char *what, const struct test_case *c, const struct insn *in,
                   const struct test_result *host, const struct test_result *ours)
{
    tally.differences++;
    if (tally.of[in->id]++ >= REPORTS_EACH || tally.reports++ >= REPORTS_MAX)
        return;
    fprintf(stderr, "%s: %s %u-bit code", what, insn_names[in->id], c->code_bytes * 8);
    for (unsigned i = 0; i < c->code_len; i++)
        fprintf(stderr, " %02x", c->code[i]);
    fprintf(stderr, "  at %#llx flags %#llx fcw %#x fsw %#x mxcsr %#x\n", (unsigned long long)c->in.rip,
            (unsigned long long)c->in.rflags, c->in.fp.fcw, c->in.fp.fsw, c->in.fp.mxcsr);
    ends_print(&c->in, host, ours, "host", guest_engine(guest));
    memory_print(c, host, ours);
}

static void compare(const struct test_case *c, const struct insn *in, const struct test_result *host,
                    const struct test_result *ours)
{
    uint32_t masked = flags_not_compared(in);
    tally.cases++;
    tally.faults += host->vector != VECTOR_DONE;
    tally.masked += masked != 0;
    const char *what = ends_differ(host, ours, masked);
    if (what)
        report(what, c, in, host, ours);
    else if (memcmp(host->memory, ours->memory, WINDOW_SIZE))
        report("memory", c, in, host, ours);
}

static unsigned run_batch(struct generator *gen, const struct insn *in, unsigned count)
{
    static struct test_result ours[BATCH];
    struct test_case *cases = native_cases(native);
    unsigned at;
    native_submit(native, count);
    for (unsigned i = 0; i < count; i++)
        guest_run(guest, &cases[i], &ours[i]);
    if (!native_wait(native, &at)) {
        fprintf(stderr, "the host could not run case %u: %s", at, insn_names[in[at].id]);
        for (unsigned i = 0; i < cases[at].code_len; i++)
            fprintf(stderr, " %02x", cases[at].code[i]);
        fprintf(stderr, "\n");
        fail();
    }
    for (unsigned i = 0; i < count; i++) {
        compare(&cases[i], &in[i], &native_results(native)[i], &ours[i]);
        gen->cells[cases[i].cell].compared++;
    }
    return count;
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);
    return s ? strtoull(s, NULL, 0) : otherwise;
}

static void instructions_agree_with_the_host(void **state)
{
    (void)state;
    static struct insn in[BATCH];
    struct generator gen;
    const char *only = getenv("SUNDOG_NATIVE_ONLY");
    generator_init(&gen, setting("SUNDOG_NATIVE_SEED", 0x5eed5eed5eedull));
    uint64_t per_cell = setting("SUNDOG_NATIVE_CASES", 0) / gen.ncells;
    if (per_cell < CASES_PER_CELL)
        per_cell = CASES_PER_CELL;
    native = native_start();
    assert_non_null(native);
    guest = guest_create(getenv("SUNDOG_NATIVE_ENGINE"));
    unsigned filled = 0, empty = 0;
    for (unsigned n = 0; n < gen.ncells; n++) {
        const struct insn_row *row = &insn_rows[gen.cells[n].row];
        if (only && strcmp(only, insn_names[row->id]))
            continue;
        for (uint64_t i = 0; i < per_cell; i++) {
            if (!generate(&gen, n, &native_cases(native)[filled], &in[filled])) {
                if (gen.cells[n].made == 0) {
                    fprintf(stderr, "no case: %s opcode %02x, %u-bit, prefix %s, %s\n", insn_names[row->id],
                            row->opcode, gen.cells[n].code_bytes * 8, prefix_names[gen.cells[n].prefix],
                            gen.cells[n].memory ? "memory" : "register");
                    empty++;
                }
                break;
            }
            gen.cells[n].made++;
            if (++filled == BATCH) {
                run_batch(&gen, in, filled);
                filled = 0;
            }
        }
    }
    if (filled)
        run_batch(&gen, in, filled);
    unsigned thin = 0;
    for (unsigned n = 0; n < gen.ncells && !only; n++)
        thin += gen.cells[n].compared < CASES_PER_CELL;
    fprintf(stderr,
            "native comparison: %llu cases in %u cells, %llu faulted, %llu with masked flags, %u cells "
            "without a case, %u under %u, %llu differences\n",
            (unsigned long long)tally.cases, gen.ncells, (unsigned long long)tally.faults,
            (unsigned long long)tally.masked, empty, thin, CASES_PER_CELL,
            (unsigned long long)tally.differences);
    guest_destroy(guest);
    native_stop(native);
    free(gen.cells);
    assert_int_equal(tally.differences, 0);
    assert_int_equal(thin, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(instructions_agree_with_the_host) };
    return cmocka_run_group_tests_name("native", tests, NULL, NULL);
}
