/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random user programs against the host processor: the interpreter runs each first, then the host and every other
 * engine; registers, flags, x87 and SSE state, all of memory and the final fault are compared.
 *
 *   SUNDOG_LOCKSTEP=n  programs of each code size (default 25000);  SUNDOG_SEED=s  another sequence
 *   SUNDOG_RANDOM_ONLY=k  only the k-th of the sequence, told in full;  SUNDOG_UNIT_ENGINE=e  only this engine beside
 *
 * The interpreter's run also decides what the host may see. Programs overwrite themselves and jump into the middle of
 * instructions, so each instruction is looked at when it is executed: a program that would call the host's kernel, use
 * what the processor shown does not have, or touch the child's own memory is left out.
 */
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agree.h"
#include "base/bits.h"
#include "disasm.h"
#include "engine/engine.h"
#include "isa/insn.h"
#include "native.h"
#include "sequence.h"

/* --- what the host may see ----------------------------------------------------------------------------------------- */

struct watch {
    bool fit;
    unsigned last; /* INSN_* of the instruction before */
    unsigned count;
    unsigned print_from; /* instructions are printed from this one on */
};

/* Linux leaves ID and NT to the program, so they would outlive it; TF would be the child's. */
static bool fit_flags(const struct vcpu *v)
{
    const uint64_t good = FL_STATUS | FL_DF | FL_AC | FL_IF | FL_IOPL | 0x802a;
    uint8_t top[4] = { 0 };
    for (unsigned i = 0; i < sizeof(top); i++) {
        struct mmu *m = (struct mmu *)(uintptr_t)&v->mmu;
        struct mmu_result at = mmu_peek(m, GVA((v->s.gpr[RSP] + i) & v->lin_mask), ACCESS_READ, MMU_USER);
        if (at.fault || ram_read(v->pmap, at.addr, &top[i], 1))
            return false;
    }
    return !(get_le32(top) & ~good);
}

/* LDMXCSR is fit behind the PUSH of a good value, which is how the generator makes it: AMD's hosts allow bit 17. */
static bool fit_id(const struct vcpu *v, const struct insn *in, unsigned last)
{
    switch (in->id) {
    case INSN_INT3: return true; /* the end */
    case INSN_POPF: return fit_flags(v);
    case INSN_LDMXCSR: return last == INSN_PUSH;
    case INSN_MASKMOVDQU: /* alignment checks of masked bytes differ */
    case INSN_MASKMOVQ:
    case INSN_CMPS: /* which operand faults first differs */
    case INSN_POPA: /* some have popped the first registers when they fault */
    case INSN_DAA:  /* undefined flags, which a 64-bit host cannot give */
    case INSN_DAS:
    case INSN_AAA:
    case INSN_AAS:
    case INSN_AAM:
    case INSN_AAD: return false;
    default: return !(in->row->flags & (IF_SYS | IF_CPL0));
    }
}

static bool fit_prefixes(const struct insn *in, unsigned code_bytes)
{
    const struct insn_row *row = in->row;
    bool rep = in->prefixes & (IP_REP | IP_REPNE), osize = in->prefixes & IP_OSIZE;
    if (rep && row->pfx == PX && !(row->flags & IF_STR))
        return false; /* F2 and F3 choose other instructions on newer processors */
    if (osize && (row->flags & (IF_F64 | IF_X87 | IF_MMX) || (row->id == INSN_NOP && row->map == MAP_0F)))
        return false;
    if (osize && row->pfx != PX && row->pfx != P66 && row->id != INSN_CRC32 && row->id != INSN_POPCNT)
        return false;
    if (rep && (row->pfx == PN || row->pfx == P66))
        return false;
    return !(in->prefixes & IP_SEG) || (code_bytes == 8 && in->seg != SEG_FS && in->mem.seg != SEG_FS);
}

static void look(void *ctx, const struct vcpu *v)
{
    struct watch *w = ctx;
    uint8_t code[CODE_BYTES_MAX];
    struct insn in;
    unsigned code_bytes = mode_code_bytes(v->mode);
    if (vcpu_cpl(v) != 3)
        return; /* the handler's HLT */
    unsigned n = fetch_code((struct vcpu *)(uintptr_t)v, code);
    if (w->count >= w->print_from) {
        char text[160];
        disassemble(code, n, code_bytes, v->s.rip, text, sizeof(text));
        fprintf(stderr, "    %" PRIx64 "  %s\n", v->s.rip, text);
    }
    w->count++;
    enum decode_status status = n ? insn_decode(&in, code, n, code_bytes) : DECODE_MORE;
    if (status == DECODE_MORE && n < CODE_BYTES_MAX)
        return; /* faults at the fetch, on both sides */
    w->fit &= status == DECODE_OK && fit_id(v, &in, w->last) && fit_prefixes(&in, code_bytes);
    w->last = status == DECODE_OK ? in.id : INSN_INVALID;
}

/* Higher up the child has its own program, libraries and stack, and a sanitizer's shadow from 0x7fff8000 on. */
static bool fit_end(const struct test_result *r)
{
    const uint64_t low = 0x7fff0000, high = 1ull << 47;
    return !(r->vector == 14 && r->cr2 >= low && r->cr2 < high) && !(r->out.rip >= low && r->out.rip < high);
}

/* --- programs -------------------------------------------------------------------------------------------------------- */

static void random_state(struct program_case *c, const struct place *p, struct random *r)
{
    uint64_t mask = c->code_bytes == 8 ? ~0ull : 0xffffffffull;
    for (unsigned i = 0; i < 16; i++)
        c->in.gpr[i] = (random_below(r, 2) ? place_pointer(p, r) : random_edge(r)) & (i < 8 ? mask : ~0ull);
    c->in.gpr[RSP] = DATA_BASE + 0x400 + 8 * random_below(r, 0x180);
    c->in.rflags = 0x202 | (random_next(r) & FL_STATUS) | (random_below(r, 8) ? 0 : FL_DF) |
                   (random_below(r, 64) ? 0 : FL_AC);
    random_vector(r, c->in.fp.xmm[0], sizeof(c->in.fp.xmm));
    for (unsigned i = 0; i < 8; i++) {
        random_vector(r, c->in.fp.st[i], 8);
        uint16_t exponent = (uint16_t)(0x3fc0 + random_below(r, 128));
        memcpy(c->in.fp.st[i] + 8, &exponent, 2);
    }
    c->in.fp.fcw = (uint16_t)(0x37f ^ (random_below(r, 8) ? 0 : random_next(r) & 0xc3f));
    c->in.fp.ftw = (uint8_t)(random_below(r, 2) ? random_next(r) : 0);
    c->in.fp.mxcsr = 0x1f80 ^ (random_below(r, 8) ? 0u : (uint32_t)random_next(r) & 0xff80);
    random_vector(r, c->pattern, sizeof(c->pattern));
}

static void make_program(struct program_case *c, unsigned code_bytes, uint64_t seed)
{
    static const uint16_t starts[] = { 0x100, 0x800, 0xf80, 0xff0 };
    static struct sequence s;
    struct random r = { seed };
    uint64_t at = CODE_BASE + starts[random_below(&r, array_size(starts))] + random_below(&r, 16);
    const struct place p = { .code_bytes = code_bytes,
                             .native = true,
                             .rip = at,
                             .code = at,
                             .data = DATA_BASE,
                             .data_pages = DATA_SIZE / PAGE_SIZE };
    sequence_make(&s, &p, &r);
    memset(c, 0, sizeof(*c));
    memcpy(c->code, s.code, s.len);
    c->code_len = (uint16_t)s.len;
    c->code_bytes = (uint8_t)code_bytes;
    c->in.rip = at;
    random_state(c, &p, &r);
}

/* --- comparing -------------------------------------------------------------------------------------------------------- */

#define REPORTS_MAX 5u /* of each engine */
#define SHOWN 40u      /* instructions of a program */

struct checked {
    struct guest *guest;
    uint64_t differences;
};

static struct {
    struct guest *reference;
    struct checked other[8];
    unsigned others;
    struct native *native;
    uint64_t made, run, instructions, faults, host_differences;
    bool in_full;
} t;

static void print_pieces(const struct program_result *a, const struct program_result *b)
{
    for (unsigned i = 0; i < PROGRAM_PIECES; i++)
        if (a->piece[i] != b->piece[i])
            fprintf(stderr, "    memory differs in the %u bytes at %#llx\n", PIECE,
                    i < CODE_SIZE / PIECE ? CODE_BASE + i * PIECE : DATA_BASE + i * PIECE - CODE_SIZE);
}

static void tell(const char *what, uint64_t number, const struct program_case *c,
                 const struct program_result *a, const struct program_result *b, const char *name_a,
                 const char *name_b)
{
    struct watch w = { .fit = true, .print_from = UINT_MAX };
    struct program_result again;
    fprintf(stderr, "%s: program %" PRIu64 ", %u-bit (SUNDOG_RANDOM_ONLY=%" PRIu64 " shows it again)\n", what,
            number, c->code_bytes * 8, number);
    ends_print(&c->in, &a->end, &b->end, name_a, name_b);
    print_pieces(a, b);
    fprintf(stderr, "  as the interpreter goes through it, to the end:\n");
    guest_run_program(t.reference, c, &again, look, &w);
    w.print_from = w.count > SHOWN ? w.count - SHOWN : 0;
    w.count = 0;
    guest_run_program(t.reference, c, &again, look, &w);
}

/* Also what the host comparison has to leave out is compared between engines. */
static bool engines_differ(const struct program_result *a, const struct program_result *b)
{
    return ends_differ(&a->end, &b->end, 0) || a->end.error != b->end.error || a->end.cr2 != b->end.cr2 ||
           a->end.out.rflags != b->end.out.rflags || memcmp(a->piece, b->piece, sizeof(a->piece));
}

static void run_others(uint64_t number, const struct program_case *c, const struct program_result *reference)
{
    static struct program_result r;
    for (unsigned i = 0; i < t.others; i++) {
        struct checked *o = &t.other[i];
        guest_run_program(o->guest, c, &r, NULL, NULL);
        if (engines_differ(reference, &r) && o->differences++ < REPORTS_MAX)
            tell("engines", number, c, reference, &r, guest_engine(t.reference), guest_engine(o->guest));
    }
}

static void compare_host(uint64_t number, const struct program_case *c, const struct program_result *host,
                         const struct program_result *ours)
{
    const char *what = ends_differ(&host->end, &ours->end, 0);
    if (!what && memcmp(host->piece, ours->piece, sizeof(host->piece)))
        what = "memory";
    t.faults += host->end.vector != VECTOR_DONE;
    if (what && t.host_differences++ < REPORTS_MAX)
        tell(what, number, c, host, ours, "host", guest_engine(t.reference));
}

/* Programs waiting for the host. */
static struct {
    unsigned n;
    uint64_t number[PROGRAM_BATCH];
    struct program_result ours[PROGRAM_BATCH];
} batch;

static void run_batch(void)
{
    unsigned at;
    const struct program_case *c = native_programs(t.native);
    if (!batch.n)
        return;
    native_submit_programs(t.native, batch.n);
    if (!native_wait(t.native, &at))
        fail_msg("the host could not run program %" PRIu64, batch.number[at]);
    for (unsigned i = 0; i < batch.n; i++)
        compare_host(batch.number[i], &c[i], &native_program_results(t.native)[i], &batch.ours[i]);
    t.run += batch.n;
    batch.n = 0;
}

static void one_program(uint64_t number, unsigned code_bytes, uint64_t seed)
{
    struct program_case *c = &native_programs(t.native)[batch.n];
    struct program_result *ours = &batch.ours[batch.n];
    struct watch w = { .fit = true, .print_from = t.in_full ? 0 : UINT_MAX };
    make_program(c, code_bytes, seed);
    t.made++;
    memset(ours, 0, sizeof(*ours));
    bool ends = guest_run_program(t.reference, c, ours, look, &w);
    run_others(number, c, ours);
    t.instructions += w.count;
    if (!ends || !w.fit || !fit_end(&ours->end))
        return;
    batch.number[batch.n++] = number;
    if (batch.n == PROGRAM_BATCH)
        run_batch();
}

/* --- the test --------------------------------------------------------------------------------------------------------- */

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);
    return s ? strtoull(s, NULL, 0) : otherwise;
}

static void make_guests(void)
{
    const char *only = getenv("SUNDOG_UNIT_ENGINE");
    t.reference = guest_create(NULL);
    for (const struct engine_ops *const *e = engine_table; *e && t.others < array_size(t.other); e++)
        if (strcmp((*e)->name, guest_engine(t.reference)) && (!only || !strcmp(only, (*e)->name)))
            t.other[t.others++].guest = guest_create((*e)->name);
}

static void programs_agree_with_the_host(void **state)
{
    (void)state;
    uint64_t seed = setting("SUNDOG_SEED", 1), each = setting("SUNDOG_LOCKSTEP", 25000),
             only = setting("SUNDOG_RANDOM_ONLY", 0);
    t.native = native_start();
    assert_non_null(t.native);
    make_guests();
    t.in_full = only;
    for (uint64_t n = 1; n <= 2 * each || n <= only; n++) {
        struct random r = { (n + (seed << 32)) * 0x9e3779b97f4a7c15ull | 1 };
        random_next(&r);
        if (!only || n == only)
            one_program(n, n & 1 ? 8 : 4, random_next(&r) | 1);
    }
    run_batch();
    fprintf(stderr,
            "random comparison: %" PRIu64 " programs, %" PRIu64 " of them on the host (%" PRIu64
            " faulted), %" PRIu64 " instructions, %" PRIu64 " differences from the host",
            t.made, t.run, t.faults, t.instructions, t.host_differences);
    uint64_t differences = t.host_differences;
    for (unsigned i = 0; i < t.others; i++) {
        fprintf(stderr, ", %" PRIu64 " of %s", t.other[i].differences, guest_engine(t.other[i].guest));
        differences += t.other[i].differences;
        guest_destroy(t.other[i].guest);
    }
    fprintf(stderr, "\n");
    guest_destroy(t.reference);
    native_stop(t.native);
    assert_int_equal(differences, 0);
    assert_true(only || t.run * 4 > t.made);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(programs_agree_with_the_host) };
    return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
