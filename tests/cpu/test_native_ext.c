/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The extensions against the host processor: generated instructions of every row, length, W, opmask and EVEX.b that this host
 * has; and random VEX and EVEX bytes, which are undefined here exactly when they are undefined there.
 *
 *   SUNDOG_NATIVE_EXT_CASES=n  cases a cell (default 12);  SUNDOG_NATIVE_SEED=n;  SUNDOG_NATIVE_ONLY=NAME
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

#define CASES_PER_CELL 12
#define REPORTS_MAX 60
#define REPORTS_EACH 2 /* of one instruction */

static struct {
    uint64_t cases, differences, faults;
    unsigned reports;
    unsigned of[INSN_ID_COUNT];
} tally;

static struct native *native;
static struct guest *guest;
static uint64_t features;

static void report(const char *what, const struct test_case *c, const struct insn *in,
                   const struct test_result *host, const struct test_result *ours)
{
    tally.differences++;
    if (tally.of[in->id]++ >= REPORTS_EACH || tally.reports++ >= REPORTS_MAX)
        return;
    fprintf(stderr, "%s: %s %u-bit code", what, insn_names[in->id], c->code_bytes * 8);
    for (unsigned i = 0; i < c->code_len; i++)
        fprintf(stderr, " %02x", c->code[i]);
    fprintf(stderr, "  vl %u mask k%u=%#llx at %#llx flags %#llx mxcsr %#x\n", in->vl, in->mask,
            (unsigned long long)c->in.fp.k[in->mask], (unsigned long long)c->in.rip,
            (unsigned long long)c->in.rflags, c->in.fp.mxcsr);
    ends_print(&c->in, host, ours, "host", "ours");
    memory_print(c, host, ours);
}

static void compare(const struct test_case *c, const struct insn *in, const struct test_result *host,
                    const struct test_result *ours)
{
    tally.cases++;
    tally.faults += host->vector != VECTOR_DONE;
    const char *what = ends_differ(host, ours, 0);
    if (!what && memcmp(host->memory, ours->memory, WINDOW_SIZE))
        what = "memory";
    if (what)
        report(what, c, in, host, ours);
}

static void run_on_host(unsigned count)
{
    unsigned at;
    native_submit(native, count);
    if (!native_wait(native, &at)) {
        const struct test_case *c = &native_cases(native)[at];
        fprintf(stderr, "the host could not run case %u:", at);
        for (unsigned i = 0; i < c->code_len; i++)
            fprintf(stderr, " %02x", c->code[i]);
        fprintf(stderr, "\n");
        fail();
    }
}

static void run_batch(struct generator *gen, const struct insn *in, unsigned count)
{
    static struct test_result ours[BATCH];
    struct test_case *cases = native_cases(native);
    for (unsigned i = 0; i < count; i++)
        guest_run(guest, &cases[i], &ours[i]);
    run_on_host(count);
    for (unsigned i = 0; i < count; i++) {
        compare(&cases[i], &in[i], &native_results(native)[i], &ours[i]);
        gen->cells[cases[i].cell].compared++;
    }
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);
    return s ? strtoull(s, NULL, 0) : otherwise;
}

static int setup(void **state)
{
    (void)state;
    native = native_start();
    guest = guest_create(getenv("SUNDOG_NATIVE_ENGINE"));
    features = guest_features(guest);
    return native ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    guest_destroy(guest);
    native_stop(native);
    return 0;
}

static void extensions_agree_with_the_host(void **state)
{
    (void)state;
    static struct insn in[BATCH];
    struct generator gen;
    const char *only = getenv("SUNDOG_NATIVE_ONLY");
    generator_init_ext(&gen, setting("SUNDOG_NATIVE_SEED", 0x5eed5eed5eedull), features);
    uint64_t per_cell = setting("SUNDOG_NATIVE_EXT_CASES", CASES_PER_CELL);
    unsigned filled = 0, thin = 0, rows = 0;
    const struct insn_row *last = NULL;
    for (unsigned n = 0; n < gen.ncells; n++) {
        const struct insn_row *row = &insn_ext_rows[gen.cells[n].row];
        if (only && strcmp(only, insn_names[row->id]))
            continue;
        rows += row != last;
        last = row;
        for (uint64_t i = 0; i < per_cell; i++) {
            if (!generate_ext(&gen, n, &native_cases(native)[filled], &in[filled], features))
                break;
            if (++filled == BATCH) {
                run_batch(&gen, in, filled);
                filled = 0;
            }
        }
    }
    if (filled)
        run_batch(&gen, in, filled);
    for (unsigned n = 0; n < gen.ncells && !only; n++)
        thin += gen.cells[n].compared < per_cell / 2;
    fprintf(stderr,
            "extensions: %llu cases of %u rows in %u cells, %llu faulted, %u thin cells, %llu differences\n",
            (unsigned long long)tally.cases, rows, gen.ncells, (unsigned long long)tally.faults, thin,
            (unsigned long long)tally.differences);
    free(gen.cells);
    assert_int_equal(tally.differences, 0);
    assert_int_equal(thin, 0);
}

/* --- what is undefined -------------------------------------------------------------------------------------------------- */

/* Mostly well-formed prefixes, with any bits in them, before any opcode. */
static void put_random(struct generator *g, uint8_t *b, unsigned code_bytes)
{
    static const uint8_t before[] = { 0x66, 0xf2, 0xf3, 0xf0, 0x48, 0x67, 0x64, 0x2e };
    unsigned n = 0;
    for (unsigned i = 0; i < 16; i += 8) {
        uint64_t v = gen_rnd(g);
        memcpy(b + i, &v, 8);
    }
    if (!gen_below(g, 16))
        b[n++] = before[gen_below(g, array_size(before))];
    const struct insn_row *row = &insn_ext_rows[gen_below(g, insn_ext_row_count)];
    unsigned map = row->map >= MAP_E0F   ? row->map - MAP_E0F + 1u
                   : row->map >= MAP_V0F ? row->map - MAP_V0F + 1u
                                         : 2;
    static const uint8_t pp[] = { [PN] = 0, [P66] = 1, [PF3] = 2, [PF2] = 3, [PNR] = 0 };
    bool evex = row->map >= MAP_E0F, tame = gen_below(g, 4);
    uint8_t high = code_bytes == 8 ? (uint8_t)gen_rnd(g) : (uint8_t)(gen_rnd(g) | 0xc0);
    uint8_t last = tame ? 0x78 : (uint8_t)gen_rnd(g);
    unsigned w = row->w == WX ? gen_below(g, 2) : row->w == W1;
    if (!gen_below(g, 8))
        w ^= 1;
    if (evex) {
        b[n++] = 0x62;
        b[n++] = (uint8_t)((high & (gen_below(g, 16) ? 0xf0 : 0xf8)) | map);
        b[n++] = (uint8_t)(w << 7 | (last & 0x78) | (gen_below(g, 32) ? 4 : 0) | pp[row->pfx]);
        b[n] = (uint8_t)gen_rnd(g);
        if (tame)
            b[n] = (uint8_t)((b[n] & 0x67) | 8);
        n++;
    } else {
        b[n++] = 0xc4;
        b[n++] = (uint8_t)((high & 0xe0) | map);
        b[n++] = (uint8_t)(w << 7 | (last & 0x78) | gen_below(g, 2) << 2 | pp[row->pfx]);
    }
    b[n++] = row->opcode;
    if (row->reg >= 0 && gen_below(g, 4))
        b[n] = (uint8_t)((b[n] & 0xc7) | row->reg << 3);
    memset(b + n + 1, 0xcc, 15 - n); /* whatever its length is, an INT3 is behind it */
}

/* Where hosts take more than their manual says: AMD's ignore W of VPERMQ and VPERMPD. */
static bool known_quirk(const uint8_t *b)
{
    while (*b != 0xc4 && *b != 0x62)
        b++;
    return *b == 0xc4 && (b[1] & 31) == 3 && b[3] <= 1 && !(b[2] & 0x80);
}

static void undefined_is_undefined_on_the_host(void **state)
{
    (void)state;
    struct generator g = { .seed = setting("SUNDOG_NATIVE_SEED", 0x5eed5eed5eedull) };
    uint64_t batches = setting("SUNDOG_NATIVE_EXT_CASES", CASES_PER_CELL) * 8, wrong = 0, defined = 0,
             cases = 0;
    static unsigned of[INSN_ID_COUNT];
    for (uint64_t batch = 0; batch < batches; batch++) {
        static struct insn in[BATCH];
        static enum decode_status st[BATCH];
        struct test_case *cases_ = native_cases(native);
        for (unsigned i = 0; i < BATCH; i++) {
            struct test_case *c = &cases_[i];
            memset(c, 0, sizeof(*c));
            c->code_bytes = i & 1 ? 4 : 8;
            put_random(&g, c->code, c->code_bytes);
            c->code_len = 15;
            st[i] = insn_decode_for(&in[i], c->code, 15, c->code_bytes, features);
            if (st[i] == DECODE_OK)
                c->code_len = in[i].len;
            c->in.rip = CODE_BASE + 512;
            c->in.rflags = 0x202;
            c->in.fp.fcw = 0x37f;
            c->in.fp.mxcsr = 0x1f80;
            for (unsigned r = 0; r < 16; r++)
                c->in.gpr[r] = DATA_BASE + 0x800;
        }
        run_on_host(BATCH);
        for (unsigned i = 0; i < BATCH; i++) {
            const struct test_result *r = &native_results(native)[i];
            bool ours = st[i] == DECODE_OK, theirs = r->vector != 6;
            cases++;
            defined += theirs;
            if (ours == theirs || (theirs && known_quirk(cases_[i].code)))
                continue;
            wrong++;
            if (of[in[i].id]++ >= 3)
                continue;
            fprintf(stderr, "%s here, %s there: %u-bit", ours ? "defined" : "undefined",
                    theirs ? "defined" : "undefined", cases_[i].code_bytes * 8);
            for (unsigned b = 0; b < 9; b++)
                fprintf(stderr, " %02x", cases_[i].code[b]);
            fprintf(stderr, "  %s vector %u\n", insn_names[in[i].id], r->vector);
        }
    }
    fprintf(stderr, "undefined: %llu encodings, %llu of them defined, %llu wrong\n",
            (unsigned long long)cases, (unsigned long long)defined, (unsigned long long)wrong);
    assert_int_equal(wrong, 0);
}

/* All in one test: cmocka puts its own signal handlers over the engine's each time one begins. */
static void the_host_agrees(void **state)
{
    assert_int_equal(setup(state), 0);
    extensions_agree_with_the_host(state);
    undefined_is_undefined_on_the_host(state);
    teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_agrees),
    };
    return cmocka_run_group_tests_name("native_ext", tests, NULL, NULL);
}
