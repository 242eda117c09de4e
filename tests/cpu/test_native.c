/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter against the host processor: generated user-mode instructions, the same bytes and state on both, everything compared.
 *
 *   SUNDOG_NATIVE_CASES=n  at least n cases in all (default: 500 a cell);  SUNDOG_NATIVE_SEED=n;  SUNDOG_NATIVE_ONLY=NAME
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

static void print_state(const char *who, const struct test_result *r)
{
    fprintf(stderr, "    %s: vector %u error %#x cr2 %#llx rip %#llx flags %#llx fsw %#x ftw %#x mxcsr %#x\n",
            who, r->vector, r->error, (unsigned long long)r->cr2, (unsigned long long)r->out.rip,
            (unsigned long long)r->out.rflags, r->out.fp.fsw, r->out.fp.ftw, r->out.fp.mxcsr);
}

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
    print_state("host", host);
    print_state("ours", ours);
    for (unsigned i = 0; i < 16; i++)
        if (host->out.gpr[i] != ours->out.gpr[i])
            fprintf(stderr, "    r%u: %#llx -> host %#llx ours %#llx\n", i, (unsigned long long)c->in.gpr[i],
                    (unsigned long long)host->out.gpr[i], (unsigned long long)ours->out.gpr[i]);
    for (unsigned i = 0; i < 16; i++)
        if (memcmp(host->out.fp.xmm[i], ours->out.fp.xmm[i], 16))
            fprintf(stderr, "    xmm%u differs: host %016llx ours %016llx\n", i,
                    *(const unsigned long long *)host->out.fp.xmm[i],
                    *(const unsigned long long *)ours->out.fp.xmm[i]);
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(host->out.fp.st[i], ours->out.fp.st[i], 10))
            fprintf(stderr, "    st%u differs: host %016llx ours %016llx\n", i,
                    *(const unsigned long long *)host->out.fp.st[i],
                    *(const unsigned long long *)ours->out.fp.st[i]);
    for (unsigned i = 0; i < WINDOW_SIZE; i++)
        if (host->memory[i] != ours->memory[i]) {
            fprintf(stderr, "    memory at %#llx: %02x -> host %02x ours %02x\n", DATA_BASE + c->window + i,
                    c->memory[i], host->memory[i], ours->memory[i]);
            break;
        }
}

/* The host's own kernel is mapped in the upper half, so its page faults there say "present"; the guest has nothing there. */
static bool same_page_fault(const struct test_result *h, const struct test_result *o)
{
    uint32_t present = h->cr2 >> 63 ? 1 : 0;
    return h->cr2 == o->cr2 && ((h->error ^ o->error) & ~present) == 0;
}

/* Linux reports a fetch or access outside the canonical range as a #GP with error 0 and keeps the old CR2. */
static bool same_fault(const struct test_result *h, const struct test_result *o)
{
    if (h->vector != o->vector)
        return false;
    if (h->vector == VECTOR_DONE)
        return true;
    return h->vector == 14 ? same_page_fault(h, o) : h->error == o->error;
}

static bool same_fp(const struct fp_image *h, const struct fp_image *o)
{
    return h->fcw == o->fcw && h->fsw == o->fsw && h->ftw == o->ftw && h->mxcsr == o->mxcsr &&
           !memcmp(h->st, o->st, sizeof(h->st)) && !memcmp(h->xmm, o->xmm, sizeof(h->xmm));
}

static void compare(const struct test_case *c, const struct insn *in, const struct test_result *host,
                    const struct test_result *ours)
{
    const uint64_t status = 0x8d5, system = 0x40400; /* AC, DF */
    uint32_t masked = flags_not_compared(in);
    tally.cases++;
    tally.faults += host->vector != VECTOR_DONE;
    tally.masked += masked != 0;
    if (!same_fault(host, ours))
        report("fault", c, in, host, ours);
    else if (host->out.rip != ours->out.rip)
        report("rip", c, in, host, ours);
    else if (memcmp(host->out.gpr, ours->out.gpr, sizeof(host->out.gpr)))
        report("registers", c, in, host, ours);
    else if ((host->out.rflags ^ ours->out.rflags) & ((status & ~masked) | system))
        report("flags", c, in, host, ours);
    else if (!same_fp(&host->out.fp, &ours->out.fp))
        report("fpu", c, in, host, ours);
    else if (memcmp(host->memory, ours->memory, WINDOW_SIZE))
        report("memory", c, in, host, ours);
}

static struct native *native;
static struct guest *guest;

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
    guest = guest_create();
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
