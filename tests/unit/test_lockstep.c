/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter against itself: random programs run as chained blocks in slices of random length, and one instruction at a time
 * (traced), must come to equal states and memory. Finds what decoding ahead may get wrong: counts, fusing, links, stale code.
 *
 * SUNDOG_LOCKSTEP=n runs n programs a mode, SUNDOG_SEED=s another sequence.
 */
#include "interp_kit.h"

#include "isa/insn.h"

#include <stdio.h>
#include <stdlib.h>

#define CODE_BYTES 512u
#define PROGRAM_INSNS 3000u
#define AREA 0x100000u /* memory that is compared, from 0 */

struct random {
    uint64_t x;
};

static uint64_t next(struct random *r)
{
    r->x ^= r->x << 13;
    r->x ^= r->x >> 7;
    r->x ^= r->x << 17;
    return r->x;
}

static uint64_t below(struct random *r, uint64_t n) { return (next(r) >> 16) % n; }

/* A pointer where memory is, near a page's end now and then. */
static uint32_t pointer(struct random *r)
{
    uint32_t at = DATA_AT + (uint32_t)below(r, 0x8000);
    return below(r, 4) ? at : (at | 0xfff) - (uint32_t)below(r, 8);
}

/* Rows that may not run here: they stop the processor or depend on the time of day. */
static bool excluded(const struct insn_row *row)
{
    switch (row->id) {
    case INSN_HLT:
    case INSN_RDTSC:
    case INSN_RDTSCP:
    case INSN_WRMSR:
    case INSN_RDMSR:
    case INSN_IN:
    case INSN_OUT:
    case INSN_INS:
    case INSN_OUTS:
    case INSN_MOV_TO_CR:
    case INSN_LMSW:
    case INSN_LIDT:
    case INSN_LGDT:
    case INSN_LLDT:
    case INSN_LTR:
    case INSN_MOV_TO_DR:
    case INSN_XSETBV:
    case INSN_XRSTOR:
    case INSN_FXRSTOR: return true;
    default: return false;
    }
}

static unsigned put(uint8_t *out, uint64_t val, unsigned n)
{
    memcpy(out, &val, n);
    return n;
}

/* MOV r32, imm32 of a pointer into a register that addresses. */
static unsigned emit_pointer(struct random *r, uint8_t *out)
{
    static const uint8_t regs[] = { RBX, RBP, RSI, RDI, RAX, RDX };
    out[0] = 0xb8 | regs[below(r, array_size(regs))];
    return 1 + put(out + 1, pointer(r), 4);
}

static unsigned emit_branch(struct random *r, uint8_t *out)
{
    out[0] = (uint8_t)(below(r, 8) ? 0x70 | below(r, 16) : 0xe0 | below(r, 4));
    out[1] = (uint8_t)(below(r, 48) - 24);
    return 2;
}

static unsigned emit_row(struct random *r, uint8_t *out, unsigned code_bytes)
{
    static const uint8_t mandatory[] = { [PX] = 0, [PN] = 0, [P66] = 0x66, [PF3] = 0xf3, [PF2] = 0xf2 };
    const struct insn_row *row;
    do
        row = &insn_rows[below(r, insn_row_count)];
    while (excluded(row) || row->flags & (code_bytes == 8 ? IF_NO64 : IF_ONLY64));
    unsigned n = 0;
    if (row->pfx == PX && !below(r, 6))
        out[n++] = (const uint8_t[]){ 0x66, 0xf3, 0xf2, 0xf0, 0x67, 0x2e }[below(r, 6)];
    if (mandatory[row->pfx])
        out[n++] = mandatory[row->pfx];
    if (code_bytes == 8 && below(r, 2))
        out[n++] = (uint8_t)(0x40 | below(r, 16));
    if (row->map != MAP_1)
        out[n++] = 0x0f;
    if (row->map >= MAP_0F38)
        out[n++] = row->map == MAP_0F38 ? 0x38 : 0x3a;
    out[n++] = (uint8_t)(row->opcode + (row->flags & IF_PLUSR  ? below(r, 8)
                                        : row->flags & IF_COND ? below(r, 16)
                                                               : 0));
    if (!(row->flags & IF_NOMODRM)) {
        unsigned mod = row->mod == MR || (row->mod == MA && below(r, 2)) ? 3 : (unsigned)below(r, 2);
        unsigned reg = row->reg < 0 ? (unsigned)below(r, 8) : (unsigned)row->reg;
        unsigned rm = IF_RM_GET(row->flags) & 8 ? IF_RM_GET(row->flags) & 7 : (unsigned)below(r, 8);
        out[n++] = (uint8_t)(mod << 6 | reg << 3 | rm);
        if (mod != 3 && rm == 4 && code_bytes != 2)
            out[n++] = (uint8_t)next(r);
        if (mod == 1)
            out[n++] = (uint8_t)next(r);
    }
    return n + put(out + n, next(r) & 0x0f1f3f0f1f3full, (unsigned)below(r, 5));
}

static void make_program(struct random *r, uint8_t *code, unsigned code_bytes)
{
    uint8_t buf[CODE_BYTES + 32];
    for (unsigned n = 0; n < CODE_BYTES;) {
        uint64_t kind = below(r, 10);
        n += kind < 2   ? emit_pointer(r, buf + n)
             : kind < 3 ? emit_branch(r, buf + n)
                        : emit_row(r, buf + n, code_bytes);
    }
    memcpy(code, buf, CODE_BYTES - 2);
    code[CODE_BYTES - 2] = 0xeb; /* jmp to itself: the rest of the time */
    code[CODE_BYTES - 1] = 0xfe;
}

/* Handlers step over one byte of what faulted and go on. */
GUEST_CODE(skip64, 64, "inc qword ptr [rsp]\n iretq");
GUEST_CODE(skip64_error, 64, "add rsp, 8\n inc qword ptr [rsp]\n iretq");
GUEST_CODE(skip32, 32, "inc dword ptr [esp]\n iretd");
GUEST_CODE(skip32_error, 32, "add esp, 4\n inc dword ptr [esp]\n iretd");
GUEST_CODE(skip16, 16, "push bp\n mov bp, sp\n inc word ptr [bp + 2]\n pop bp\n iret");

static void put_code(struct kit *k, uint64_t at, const uint8_t *start, const uint8_t *end)
{
    assert_int_equal(pmap_load(k->pmap, GPA(at), start, (size_t)(end - start)), 0);
}

static void put_handlers(struct kit *k, unsigned code_bytes)
{
    const uint64_t with_error = BIT(VEC_DF) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) |
                                BIT(VEC_PF) | BIT(VEC_AC);
    for (unsigned vec = 0; vec < 64; vec++) {
        uint64_t at = HANDLER_AT + 16 * vec;
        bool error = with_error >> vec & 1;
        if (code_bytes == 2)
            put_code(k, at, skip16_start, skip16_end);
        else if (code_bytes == 4)
            put_code(k, at, error ? skip32_error_start : skip32_start, error ? skip32_error_end : skip32_end);
        else
            put_code(k, at, error ? skip64_error_start : skip64_start, error ? skip64_error_end : skip64_end);
    }
}

/* Page tables where the program cannot write: a table changed without a flush shows sooner or later, both are right. */
static void hide_page_tables(struct kit *k)
{
    const uint64_t at = 0x800000;
    kit_put64(k, at, (at + 0x1000) | 7);
    kit_put64(k, at + 0x1000, (at + 0x2000) | 7);
    for (unsigned i = 0; i < 2; i++)
        kit_put64(k, at + 0x2000 + 8 * i, (uint64_t)i << 21 | 0x87);
    k->v->s.cr3 = at;
    vcpu_refresh(k->v);
}

static void start(struct kit *k, unsigned code_bytes, uint64_t seed)
{
    struct random r = { seed };
    struct error e = { 0 };
    uint8_t code[CODE_BYTES];
    if (code_bytes == 2)
        kit_real(k);
    else if (code_bytes == 4)
        kit_protected(k, 0);
    else
        kit_long(k, 0);
    if (code_bytes == 8)
        hide_page_tables(k);
    make_program(&r, code, code_bytes);
    assert_int_equal(pmap_load(k->pmap, GPA(CODE_AT), code, sizeof(code)), 0);
    put_handlers(k, code_bytes);
    for (unsigned i = 0; i < 16; i++)
        if (i != RSP)
            k->v->s.gpr[i] = pointer(&r);
    k->v->s.gpr[RCX] = below(&r, 40);
    if (code_bytes == 2) {
        k->v->s.seg[SEG_CS].base = CODE_AT;
        k->v->s.seg[SEG_CS].sel = CODE_AT >> 4;
        vcpu_refresh(k->v);
    }
    k->v->s.rip = code_bytes == 2 ? 0 : CODE_AT;
    k->v->s.cr4 |= CR4_OSFXSR;
    assert_int_equal(interp_engine.vcpu_create(k->v, NULL, &e), 0);
}

static void nothing(void *ctx, const struct vcpu *v) { (void)ctx, (void)v; }

/* Ends early when the processor halts or shuts down, as both must. */
static enum exit_cause run_in_slices(struct kit *k, uint64_t count, struct random *r)
{
    enum exit_cause cause = EXIT_COUNT;
    while (cause == EXIT_COUNT && k->v->s.retired < count) {
        uint64_t slice = below(r, 4) ? 1 + below(r, 500) : 1 + below(r, 5), until = k->v->s.retired + slice;
        until = until < count ? until : count;
        cause = interp_engine.run(k->v, until);
        if (cause == EXIT_COUNT)
            assert_int_equal(k->v->s.retired, until);
    }
    return cause;
}

static void compare(struct kit *a, struct kit *b, uint64_t seed)
{
    static uint8_t mem[2][AREA];
    char diff[200];
    bool differs = state_diff(&vcpu_state_class, &a->v->s, &b->v->s, diff, sizeof(diff));
    if (!differs) {
        for (unsigned i = 0; i < 2; i++)
            assert_int_equal(ram_read((i ? b : a)->pmap, GPA(0), mem[i], AREA), 0);
        for (unsigned i = 0; i < AREA && !differs; i++)
            if (mem[0][i] != mem[1][i]) {
                snprintf(diff, sizeof(diff), "memory at %#x: %02x vs %02x", i, mem[0][i], mem[1][i]);
                differs = true;
            }
    }
    if (differs)
        fail_msg("seed %#llx: %s (rip %#llx, retired %llu)", (unsigned long long)seed, diff,
                 (unsigned long long)a->v->s.rip, (unsigned long long)a->v->s.retired);
}

static void one_program(unsigned code_bytes, uint64_t seed)
{
    void *state[2];
    struct kit *k[2];
    struct random r = { seed ^ 0x9e3779b97f4a7c15ull };
    for (unsigned i = 0; i < 2; i++) {
        kit_setup(&state[i]);
        k[i] = state[i];
        start(k[i], code_bytes, seed);
    }
    interp_set_trace(k[1]->v, nothing, NULL);
    enum exit_cause a = run_in_slices(k[0], PROGRAM_INSNS, &r);
    enum exit_cause b = interp_engine.run(k[1]->v, PROGRAM_INSNS);
    compare(k[0], k[1], seed);
    assert_int_equal(a, b);
    for (unsigned i = 0; i < 2; i++)
        interp_teardown(&state[i]);
}

static void programs(unsigned code_bytes)
{
    const char *n = getenv("SUNDOG_LOCKSTEP"), *seed = getenv("SUNDOG_SEED");
    struct random r = { (seed ? strtoull(seed, NULL, 0) : 1) * 0x9e3779b97f4a7c15ull + code_bytes };
    for (unsigned long i = n ? strtoul(n, NULL, 0) : 200; i > 0; i--)
        one_program(code_bytes, next(&r) | 1);
}

/* One test for all modes: cmocka sets SIGFPE's handler anew before each, which the SIMD instructions need for theirs. */
static void blocks_and_single_instructions_agree(void **state)
{
    (void)state;
    programs(2);
    programs(4);
    programs(8);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(blocks_and_single_instructions_agree) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
