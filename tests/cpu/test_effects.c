/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an instruction reads and changes, checked three ways:
 *
 *   by Zydis      random encodings in all code sizes, both ways; where it is known to differ, a row says why
 *   by the host   each case runs twice, alike in what is said to be read and different in all else: what is
 *                 said to be written must come out alike, and everything else as it went in
 *   by hand       counts, conditions and widths, which Zydis does not look at
 *
 *   SUNDOG_EFFECTS_CASES=n  encodings for Zydis in each code size
 *   SUNDOG_EFFECTS_PAIRS=n  pairs of runs a cell on the host
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <Zydis/Zydis.h>

#include "base/bits.h"
#include "generate.h"
#include "isa/effects.h"
#include "native.h"
#include "zydis_modes.h"

#define STATUS 0x8d5u
#define REPORTS_MAX 40
#define ZYDIS_CASES 1500000
#define EXTENSION_CASES 20 /* of each cell */

static unsigned failures;

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);
    return s ? strtoull(s, NULL, 0) : otherwise;
}

static uint64_t rng = 88172645463325252ull;

static uint64_t next_random(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    return rng ^= rng << 17;
}

static bool report(const char *what, const struct insn *in, const uint8_t *code, unsigned code_bytes,
                   const struct insn_effects *e)
{
    if (failures++ >= REPORTS_MAX)
        return false;
    fprintf(stderr, "%s: %s %u-bit", what, insn_names[in->id], code_bytes * 8);
    for (unsigned i = 0; i < in->len; i++)
        fprintf(stderr, " %02x", code[i]);
    fprintf(stderr,
            "\n    ours: flags read %x written %x maybe %x, registers read %x written %x, memory %u/%u\n",
            e->flags_read, e->flags_written, e->flags_maybe, e->gpr_read, e->gpr_written, e->mem_read,
            e->mem_write);
    return true;
}

/* --- Zydis ---------------------------------------------------------------------------------------------- */

/* What is compared: the bits that one side has and the other lacks. */
enum aspect {
    FLAGS_READ_LACKING,    /* Zydis says read, we do not */
    FLAGS_READ_EXTRA,      /* we say read, Zydis does not */
    FLAGS_CHANGED_LACKING, /* written or maybe */
    FLAGS_CHANGED_EXTRA,
    FLAGS_WRITTEN_EXTRA, /* we say always, Zydis says never */
    REGS_READ_LACKING,
    REGS_READ_EXTRA,
    REGS_WRITTEN_LACKING,
    REGS_WRITTEN_EXTRA,
    REGS_REPLACED_EXTRA, /* we say written without being read, Zydis does not say wholly and always */
    MEM_READ_LACKING,    /* here and below: bytes, not bits */
    MEM_READ_EXTRA,
    MEM_WRITTEN_LACKING,
    MEM_WRITTEN_EXTRA,
    ASPECT_COUNT
};

static const char *const aspect_names[ASPECT_COUNT] = {
    "flags read: we lack",         "flags read: only we",           "flags changed: we lack",
    "flags changed: only we",      "flags always written: only we", "registers read: we lack",
    "registers read: only we",     "registers written: we lack",    "registers written: only we",
    "registers replaced: only we", "memory read: we lack",          "memory read: only we",
    "memory written: we lack",     "memory written: only we",
};

#define A_(a) (1u << (a))
#define FLAGS_READ (A_(FLAGS_READ_LACKING) | A_(FLAGS_READ_EXTRA))
#define FLAGS_LACKING (A_(FLAGS_READ_LACKING) | A_(FLAGS_CHANGED_LACKING))
#define MEM_LACKING (A_(MEM_READ_LACKING) | A_(MEM_WRITTEN_LACKING))
#define REGS_EXTRA (A_(REGS_READ_EXTRA) | A_(REGS_WRITTEN_EXTRA))

/* Facts as Zydis has them. */
struct zydis_facts {
    unsigned flags_read, flags_changed, regs_read, regs_written, regs_replaced, mem_read, mem_write;
};

static int general_register(ZydisRegister r)
{
    ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
    return ZydisRegisterGetClass(whole) == ZYDIS_REGCLASS_GPR64 ? ZydisRegisterGetId(whole) : -1;
}

static unsigned register_bit(ZydisRegister r)
{
    int n = general_register(r);
    return n < 0 ? 0 : 1u << n;
}

static void add_operand(struct zydis_facts *f, const ZydisDecodedOperand *o)
{
    bool reads = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    bool writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        unsigned bit = register_bit(o->reg.value);
        f->regs_read |= reads ? bit : 0;
        f->regs_written |= writes ? bit : 0;
        if (writes && !(o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE) && o->size >= 32)
            f->regs_replaced |= bit;
    } else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        f->regs_read |= register_bit(o->mem.base) | register_bit(o->mem.index);
        if (o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT && o->mem.type == ZYDIS_MEMOP_TYPE_MEM) {
            f->mem_read = reads ? o->size / 8 : f->mem_read;
            f->mem_write = writes ? o->size / 8 : f->mem_write;
        }
    }
}

static struct zydis_facts zydis_facts_of(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    struct zydis_facts f = { 0 };
    if (z->cpu_flags) {
        const ZydisAccessedFlags *c = z->cpu_flags;
        f.flags_read = c->tested & STATUS;
        f.flags_changed = (c->modified | c->set_0 | c->set_1 | c->undefined) & STATUS;
    }
    for (unsigned i = 0; i < z->operand_count; i++)
        add_operand(&f, &ops[i]);
    return f;
}

static unsigned beyond(unsigned a, unsigned b) { return a > b ? a - b : 0; }

static void differences(unsigned *d, const struct zydis_facts *z, const struct insn_effects *e)
{
    unsigned changed = e->flags_written | e->flags_maybe;
    d[FLAGS_READ_LACKING] = z->flags_read & ~e->flags_read;
    d[FLAGS_READ_EXTRA] = e->flags_read & ~z->flags_read;
    d[FLAGS_CHANGED_LACKING] = z->flags_changed & ~changed;
    d[FLAGS_CHANGED_EXTRA] = changed & ~z->flags_changed;
    d[FLAGS_WRITTEN_EXTRA] = e->flags_written & ~z->flags_changed;
    d[REGS_READ_LACKING] = z->regs_read & ~e->gpr_read;
    d[REGS_READ_EXTRA] = e->gpr_read & ~(z->regs_read | (z->regs_written & ~z->regs_replaced));
    d[REGS_WRITTEN_LACKING] = z->regs_written & ~e->gpr_written;
    d[REGS_WRITTEN_EXTRA] = e->gpr_written & ~z->regs_written;
    d[REGS_REPLACED_EXTRA] = e->gpr_written & ~e->gpr_read & ~z->regs_replaced;
    d[MEM_READ_LACKING] = beyond(z->mem_read, e->mem_read);
    d[MEM_READ_EXTRA] = beyond(e->mem_read, z->mem_read);
    d[MEM_WRITTEN_LACKING] = beyond(z->mem_write, e->mem_write);
    d[MEM_WRITTEN_EXTRA] = beyond(e->mem_write, z->mem_write);
}

static bool count_is_0(const struct insn *in)
{
    const struct operand *count = in->op[2].kind ? &in->op[2] : &in->op[1];
    return count->kind == OPND_IMM && (in->imm & (in->opsize == 8 ? 63 : 31)) == 0;
}

static bool repeated(const struct insn *in) { return in->prefixes & (IP_REP | IP_REPNE); }

/* ModRM.mod 0 and SIB.base 5 name no register, with REX.B neither (SDM 2A Table 2-3). */
static bool no_base(const struct insn *in)
{
    return in->rex & 1 && in->addrsize == 4 && in->mem.base == MEM_NO_REG;
}

static bool pause_with_rex(const struct insn *in) { return in->opcode == 0x90 && in->prefixes & IP_REP; }

static bool is_gather(const struct insn *in) { return in->vsib; }

#define ANY_ID INSN_INVALID

/* Where we and Zydis 4.0 differ and we stand by ours. */
static const struct {
    uint16_t id;
    uint32_t aspects;
    uint32_t bits; /* of a mask of flags or registers; 0: any */
    bool (*only)(const struct insn *in);
    const char *why;
} known_differences[] = {
    { ANY_ID, A_(REGS_READ_LACKING), 0x2000, no_base, "Zydis takes R13D for a base, though R13 for none" },
#define ZERO_COUNT(id) \
    { \
        INSN_##id, FLAGS_LACKING, 0, count_is_0, "a count of 0 changes no flags" \
    }
    ZERO_COUNT(SHL),
    ZERO_COUNT(SHR),
    ZERO_COUNT(SAR),
    ZERO_COUNT(ROL),
    ZERO_COUNT(ROR),
    ZERO_COUNT(RCL),
    ZERO_COUNT(RCR),
    ZERO_COUNT(SHLD),
    ZERO_COUNT(SHRD),
#undef ZERO_COUNT
#define BIT_ZF(id) \
    { \
        INSN_##id, A_(FLAGS_CHANGED_EXTRA), 0x40, NULL, "ZF is kept by one manual, undefined by the other" \
    }
    BIT_ZF(BT),
    BIT_ZF(BTS),
    BIT_ZF(BTR),
    BIT_ZF(BTC),
#undef BIT_ZF
    { INSN_BSF, A_(REGS_READ_EXTRA), 0, NULL, "a source of 0 keeps the destination" },
    { INSN_BSR, A_(REGS_READ_EXTRA), 0, NULL, "a source of 0 keeps the destination" },
    { INSN_CMPS, A_(FLAGS_READ_LACKING), 0x40, repeated, "the ZF that ends a repetition is its own" },
    { INSN_SCAS, A_(FLAGS_READ_LACKING), 0x40, repeated, "the ZF that ends a repetition is its own" },
    { INSN_CMPS, A_(REGS_WRITTEN_EXTRA), 0xc0, NULL, "Zydis forgets the step of RSI and RDI" },
    { INSN_SCAS, A_(REGS_WRITTEN_EXTRA), 0x80, NULL, "Zydis forgets the step of RDI" },
    { INSN_INS, A_(REGS_WRITTEN_EXTRA), 0x80, NULL, "Zydis forgets the step of RDI" },
    { INSN_OUTS, A_(REGS_WRITTEN_EXTRA), 0x40, NULL, "Zydis forgets the step of RSI" },
    { INSN_XCHG, REGS_EXTRA, 0x101, pause_with_rex, "with REX.B processors exchange, prefix or not" },
    { INSN_NOP, ~0u, 0, NULL, "prefetches, MPX and CET: nothing on the shown processor" },
    { INSN_UD, ~0u, 0, NULL, "its operands are not touched" },
    { INSN_CLFLUSH, A_(MEM_READ_LACKING), 0, NULL, "checked as a read of one byte" },
    { INSN_INVLPG, A_(MEM_READ_LACKING), 0, NULL, "an address, nothing is read" },
    { INSN_VMCALL, A_(FLAGS_CHANGED_LACKING), 0, NULL, "undefined on the shown processor" },
#define SYSTEM_MOVE(id) \
    { \
        INSN_##id, A_(FLAGS_CHANGED_EXTRA), 0, NULL, "undefined flags (SDM 2B MOV)" \
    }
    SYSTEM_MOVE(MOV_FROM_CR),
    SYSTEM_MOVE(MOV_FROM_DR),
    SYSTEM_MOVE(MOV_TO_CR),
    SYSTEM_MOVE(MOV_TO_DR),
#undef SYSTEM_MOVE
#define ENTRY(id) \
    { \
        INSN_##id, A_(FLAGS_READ_EXTRA) | REGS_EXTRA, 0, NULL, "the delivery pushes the flags" \
    }
    ENTRY(INT),
    ENTRY(INT1),
    ENTRY(INT3),
    ENTRY(INTO),
#undef ENTRY
    { INSN_SYSCALL, A_(FLAGS_READ_EXTRA), 0, NULL, "the flags go to R11 and through a mask" },
    { INSN_SYSCALL, A_(REGS_REPLACED_EXTRA), 0x802, NULL, "outside 64-bit code ECX is the whole register" },
#define IMAGE(id) \
    { \
        INSN_##id, MEM_LACKING, 0, NULL, "its size is left to the operation: unknown" \
    }
    IMAGE(FLDENV),
    IMAGE(FNSTENV),
    IMAGE(FRSTOR),
    IMAGE(FNSAVE),
    IMAGE(FXSAVE),
    IMAGE(FXRSTOR),
    IMAGE(XSAVE),
    IMAGE(XRSTOR),
#undef IMAGE
    { INSN_CLFLUSHOPT, A_(MEM_READ_LACKING), 0, NULL, "checked as a read of one byte" },
    { INSN_CLWB, A_(MEM_READ_LACKING), 0, NULL, "checked as a read of one byte" },
    { INSN_MULX, A_(REGS_READ_EXTRA), 0, NULL, "the second destination is taken for one that is read, too" },
#define TEST_FLAGS(id) \
    { \
        INSN_##id, A_(FLAGS_CHANGED_EXTRA) | A_(FLAGS_WRITTEN_EXTRA), 0, NULL, \
            "Zydis forgets the flags that are cleared" \
    }
    TEST_FLAGS(VPTEST),
    TEST_FLAGS(VTESTPS),
    TEST_FLAGS(VTESTPD),
#undef TEST_FLAGS
    { ANY_ID, A_(MEM_READ_EXTRA) | A_(MEM_WRITTEN_EXTRA), 0, is_gather,
      "Zydis has no size for many elements" },
};

static unsigned uses_of_difference[array_size(known_differences)];

static bool known_difference(const struct insn *in, enum aspect a, unsigned bits)
{
    for (unsigned i = 0; i < array_size(known_differences); i++) {
        if (known_differences[i].id != in->id && known_differences[i].id != ANY_ID)
            continue;
        if (!(known_differences[i].aspects & A_(a)))
            continue;
        if (known_differences[i].only && !known_differences[i].only(in))
            continue;
        if (known_differences[i].bits && bits & ~known_differences[i].bits)
            continue;
        uses_of_difference[i]++;
        return true;
    }
    return false;
}

/* Some encoding of a row: prefixes, the fixed bytes, the rest random. */
static void encode(uint8_t *b, const struct insn_row *row)
{
    static const uint8_t prefixes[] = { 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x64, 0x65, 0x36 };
    static const uint8_t mandatory[] = { 0, 0, 0x66, 0xf3, 0xf2 };
    for (unsigned i = 0; i < 15; i += 5) {
        uint64_t v = next_random();
        memcpy(b + i, &v, 5);
    }
    uint64_t r = next_random();
    unsigned pos = 0;
    for (; (r & 3) == 0 && pos < 3; r >>= 8)
        b[pos++] = prefixes[(r >> 2 & 63) % array_size(prefixes)];
    if (mandatory[row->pfx])
        b[pos++] = mandatory[row->pfx];
    if ((r >> 40 & 3) == 0) /* REX; in other code an INC or DEC of its own */
        b[pos++] = (uint8_t)(0x40 | (r >> 44 & 15));
    if (row->map != MAP_1)
        b[pos++] = 0x0f;
    if (row->map == MAP_0F38 || row->map == MAP_0F3A)
        b[pos++] = row->map == MAP_0F38 ? 0x38 : 0x3a;
    unsigned spread = row->flags & IF_PLUSR ? 7 : row->flags & IF_COND ? 15 : 0;
    b[pos++] = (uint8_t)(row->opcode + (r >> 48 & spread));
    if (row->mod == MR || (r >> 52 & 1 && row->mod != MM))
        b[pos] |= 0xc0;
    if (row->reg >= 0)
        b[pos] = (uint8_t)((b[pos] & 0xc7) | row->reg << 3);
    if (IF_RM_GET(row->flags) & 8)
        b[pos] = (uint8_t)((b[pos] & 0xf8) | (IF_RM_GET(row->flags) & 7));
}

static void compare_with_zydis(const struct insn *in, const uint8_t *b, unsigned code_bytes,
                               const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    struct insn_effects e;
    unsigned d[ASPECT_COUNT];
    struct zydis_facts f = zydis_facts_of(z, ops);
    insn_effects(&e, in);
    differences(d, &f, &e);
    for (unsigned a = 0; a < ASPECT_COUNT; a++)
        if (d[a] && !known_difference(in, a, d[a]) && report(aspect_names[a], in, b, code_bytes, &e))
            fprintf(stderr, "    Zydis: %s %x\n", ZydisMnemonicGetString(z->mnemonic), d[a]);
}

/* Rows that Zydis 4.0 refuses in every form or code size: nothing to compare them with. */
static bool refused_by_zydis(const struct insn_row *row)
{
    return row->id == INSN_SALC || row->id == INSN_FNENI || row->id == INSN_FNDISI ||
           row->id == INSN_FNSETPM || row->id == INSN_NOP;
}

static void zydis_agrees(void **state)
{
    (void)state;
    uint64_t cases = setting("SUNDOG_EFFECTS_CASES", ZYDIS_CASES);
    uint64_t enough = cases * 100 / ZYDIS_CASES; /* of each row */
    unsigned *seen = calloc(insn_row_count, sizeof(*seen));
    uint64_t compared = 0;
    failures = 0;
    for (unsigned m = 0; m < array_size(modes); m++) {
        ZydisDecoder dec;
        assert_true(ZYAN_SUCCESS(ZydisDecoderInit(&dec, modes[m].mode, modes[m].stack)));
        for (uint64_t i = 0; i < cases; i++) {
            uint8_t b[15];
            struct insn in;
            ZydisDecodedInstruction z;
            ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
            encode(b, &insn_rows[i % insn_row_count]);
            if (insn_decode(&in, b, 15, modes[m].code_bytes) != DECODE_OK ||
                !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&dec, b, 15, &z, ops)) || z.length != in.len)
                continue;
            compare_with_zydis(&in, b, modes[m].code_bytes, &z, ops);
            seen[in.row - insn_rows]++;
            compared++;
        }
    }
    fprintf(stderr, "Zydis: %llu encodings compared\n", (unsigned long long)compared);
    for (unsigned r = 0; r < insn_row_count; r++)
        if (seen[r] < enough && !refused_by_zydis(&insn_rows[r])) {
            fprintf(stderr, "row %s opcode %02x was compared %u times\n", insn_names[insn_rows[r].id],
                    insn_rows[r].opcode, seen[r]);
            failures++;
        }
    free(seen);
    assert_int_equal(failures, 0);
}

/* The rows of extensions: every cell, some encodings each. */
static void zydis_agrees_on_extensions(void **state)
{
    (void)state;
    struct generator gen;
    uint64_t cases = setting("SUNDOG_EFFECTS_CASES", ZYDIS_CASES) * EXTENSION_CASES / ZYDIS_CASES,
             compared = 0;
    unsigned *seen = calloc(insn_ext_row_count, sizeof(*seen));
    failures = 0;
    generator_init_ext(&gen, next_random(), FEATURES_ALL);
    for (unsigned n = 0; n < gen.ncells; n++) {
        unsigned m = gen.cells[n].code_bytes == 8 ? 0 : 1;
        ZydisDecoder dec;
        assert_true(ZYAN_SUCCESS(ZydisDecoderInit(&dec, modes[m].mode, modes[m].stack)));
        for (uint64_t i = 0; i < cases; i++) {
            struct test_case c;
            struct insn in;
            ZydisDecodedInstruction z;
            ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
            if (!generate_ext(&gen, n, &c, &in, FEATURES_ALL) ||
                !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&dec, c.code, 15, &z, ops)) || z.length != in.len)
                continue;
            compare_with_zydis(&in, c.code, gen.cells[n].code_bytes, &z, ops);
            seen[in.row - insn_ext_rows]++;
            compared++;
        }
    }
    fprintf(stderr, "Zydis: %llu encodings of extensions compared\n", (unsigned long long)compared);
    for (unsigned r = 0; r < insn_ext_row_count; r++)
        if (cases && !seen[r] && !(insn_ext_rows[r].flags & (IF_SYS | IF_CPL0))) {
            fprintf(stderr, "row %s was not compared\n", insn_names[insn_ext_rows[r].id]);
            failures++;
        }
    for (unsigned i = 0; i < array_size(known_differences); i++)
        if (!uses_of_difference[i] && cases >= EXTENSION_CASES) {
            fprintf(stderr, "no such difference any more: %s, %s\n", insn_names[known_differences[i].id],
                    known_differences[i].why);
            failures++;
        }
    free(seen);
    free(gen.cells);
    assert_int_equal(failures, 0);
}

/* --- the host ------------------------------------------------------------------------------------------- */

/* Bytes of the window that belong to the explicit memory operand, when it is the only memory touched. */
struct touched {
    bool only;
    uint64_t at; /* of the operand, as offset in the window; may lie outside */
};

static bool touches_more(const struct insn *in)
{
    switch (in->id) {
    case INSN_PUSH:
    case INSN_POP:
    case INSN_PUSHA:
    case INSN_POPA:
    case INSN_PUSHF:
    case INSN_POPF:
    case INSN_ENTER:
    case INSN_LEAVE:
    case INSN_CALL:
    case INSN_CALL_IND:
    case INSN_RET:
    case INSN_XLAT:
    case INSN_MASKMOVQ:
    case INSN_MASKMOVDQU: return true;
    case INSN_BT:
    case INSN_BTS:
    case INSN_BTR:
    case INSN_BTC: return in->op[1].kind == OPND_REG;
    default: return in->row->flags & IF_STR;
    }
}

static struct touched memory_touched(const struct test_case *c, const struct insn *in)
{
    const struct mem_operand *m = &in->mem;
    uint64_t at = (uint64_t)m->disp;
    if (m->base == MEM_RIP)
        at += c->in.rip + in->len;
    else if (m->base < 16)
        at += c->in.gpr[m->base];
    if (m->index < 16)
        at += c->in.gpr[m->index] << m->scale;
    at &= mask_bytes(in->addrsize);
    if (in->prefixes & IP_SEG) /* GS, the only override made */
        at += DATA_BASE;
    return (struct touched){ !touches_more(in), at - DATA_BASE - c->window };
}

/* Another case that differs from c in everything its instruction is said not to read. */
static void make_pair(struct test_case *pair, const struct test_case *c, const struct insn_effects *e,
                      const struct touched *t)
{
    *pair = *c;
    pair->in.rflags ^= next_random() & STATUS & ~e->flags_read;
    for (unsigned i = 0; i < 16; i++)
        if (!(e->gpr_read >> i & 1))
            pair->in.gpr[i] = next_random() & (c->code_bytes == 8 || i >= 8 ? ~0ull : 0xffffffffull);
    for (unsigned i = 0; i < WINDOW_SIZE && t->only; i++)
        if (i - t->at >= e->mem_read)
            pair->memory[i] = (uint8_t)next_random();
}

/* Each bit came out alike, or as it went in both times. */
static bool written_or_kept(uint64_t in1, uint64_t out1, uint64_t in2, uint64_t out2, uint64_t bits)
{
    return !(((out1 ^ out2) & ((out1 ^ in1) | (out2 ^ in2))) & bits);
}

static const char *wrong_flags(const struct insn_effects *e, const struct cpu_image *in1,
                               const struct cpu_image *out1, const struct cpu_image *in2,
                               const struct cpu_image *out2)
{
    if ((out1->rflags ^ out2->rflags) & e->flags_written)
        return "host: a written flag depends on its old value";
    if (((out1->rflags ^ in1->rflags) | (out2->rflags ^ in2->rflags)) & STATUS &
        ~(uint64_t)(e->flags_written | e->flags_maybe))
        return "host: another flag changes";
    if (!written_or_kept(in1->rflags, out1->rflags, in2->rflags, out2->rflags, e->flags_maybe))
        return "host: a flag depends on one not read";
    return NULL;
}

static const char *wrong_registers(const struct insn_effects *e, const struct cpu_image *in1,
                                   const struct cpu_image *out1, const struct cpu_image *in2,
                                   const struct cpu_image *out2)
{
    for (unsigned i = 0; i < 16; i++) {
        if (e->gpr_written >> i & 1) {
            if (out1->gpr[i] != out2->gpr[i])
                return "host: a written register depends on something not read";
        } else if (out1->gpr[i] != in1->gpr[i] || out2->gpr[i] != in2->gpr[i]) {
            return "host: another register changes";
        }
    }
    return NULL;
}

static const char *wrong_memory(const struct insn_effects *e, const struct touched *t,
                                const struct test_case *c1, const struct test_result *r1,
                                const struct test_case *c2, const struct test_result *r2)
{
    for (unsigned i = 0; i < WINDOW_SIZE; i++) {
        bool changed = r1->memory[i] != c1->memory[i] || r2->memory[i] != c2->memory[i];
        if (t->only && changed && i - t->at >= e->mem_write)
            return "host: other memory changes";
        if (!written_or_kept(c1->memory[i], r1->memory[i], c2->memory[i], r2->memory[i], 0xff))
            return "host: written memory depends on something not read";
    }
    return NULL;
}

static bool same_fp(const struct fp_image *a, const struct fp_image *b)
{
    return a->fcw == b->fcw && a->fsw == b->fsw && a->ftw == b->ftw && a->mxcsr == b->mxcsr &&
           !memcmp(a->st, b->st, sizeof(a->st)) && !memcmp(a->xmm, b->xmm, sizeof(a->xmm));
}

static const char *wrong_pair(const struct insn *in, const struct insn_effects *e, const struct touched *t,
                              const struct test_case *c, const struct test_result *r)
{
    bool done = r[0].vector == VECTOR_DONE || r[0].out.rip != c[0].in.rip; /* or the target faulted */
    bool partial = in->row->flags & IF_STR && repeated(in);
    struct insn_effects now = *e;
    if (r[0].vector != r[1].vector || r[0].error != r[1].error || r[0].out.rip != r[1].out.rip)
        return "host: the outcome depends on something not read";
    if (!done && !partial) /* a fault leaves everything as it was */
        now = (struct insn_effects){ .gpr_read = e->gpr_read };
    const char *why = wrong_flags(&now, &c[0].in, &r[0].out, &c[1].in, &r[1].out);
    if (!why)
        why = wrong_registers(&now, &c[0].in, &r[0].out, &c[1].in, &r[1].out);
    if (!why && !same_fp(&r[0].out.fp, &r[1].out.fp))
        why = "host: FP state depends on something not read";
    if (why || in->id == INSN_ENTER) /* copies from beyond the window what the first run left there */
        return why;
    return wrong_memory(&now, t, &c[0], &r[0], &c[1], &r[1]);
}

struct pair {
    struct insn in;
    struct insn_effects e;
    struct touched t;
};

static void run_pairs(struct native *native, const struct pair *pairs, unsigned count)
{
    unsigned at;
    const struct test_case *c = native_cases(native);
    const struct test_result *r = native_results(native);
    native_submit(native, count * 2);
    assert_true(native_wait(native, &at));
    for (unsigned i = 0; i < count; i++) {
        const struct pair *p = &pairs[i];
        const char *why = wrong_pair(&p->in, &p->e, &p->t, &c[i * 2], &r[i * 2]);
        if (why && report(why, &p->in, c[i * 2].code, c[i * 2].code_bytes, &p->e))
            fprintf(stderr, "    vectors %u %u, flags %llx %llx -> %llx %llx\n", r[i * 2].vector,
                    r[i * 2 + 1].vector, (unsigned long long)c[i * 2].in.rflags,
                    (unsigned long long)c[i * 2 + 1].in.rflags, (unsigned long long)r[i * 2].out.rflags,
                    (unsigned long long)r[i * 2 + 1].out.rflags);
    }
}

static void host_agrees(void **state)
{
    (void)state;
    static struct pair pairs[BATCH / 2];
    uint64_t each = setting("SUNDOG_EFFECTS_PAIRS", 50), total = 0;
    struct generator gen;
    generator_init(&gen, 0x5eedeffec75ull);
    struct native *native = native_start();
    assert_non_null(native);
    struct test_case *cases = native_cases(native);
    unsigned filled = 0;
    failures = 0;
    for (unsigned n = 0; n < gen.ncells; n++)
        for (uint64_t i = 0; i < each; i++) {
            struct pair *p = &pairs[filled];
            struct test_case *c = &cases[filled * 2];
            if (!generate(&gen, n, c, &p->in))
                break;
            insn_decode(&p->in, c->code, 15, c->code_bytes); /* its displacement was patched */
            insn_effects(&p->e, &p->in);
            p->t = memory_touched(c, &p->in);
            make_pair(c + 1, c, &p->e, &p->t);
            total++;
            if (++filled == array_size(pairs)) {
                run_pairs(native, pairs, filled);
                filled = 0;
            }
        }
    run_pairs(native, pairs, filled);
    native_stop(native);
    free(gen.cells);
    fprintf(stderr, "host: %llu pairs\n", (unsigned long long)total);
    assert_int_equal(failures, 0);
}

/* --- by hand -------------------------------------------------------------------------------------------- */

static const struct {
    const char *what;
    uint8_t code[8];
    unsigned code_bytes;
    struct insn_effects want;
} by_hand[] = {
    { "add rax, rbx", { 0x48, 0x01, 0xd8 }, 8, { 0, STATUS, 0, 0x9, 0x1, 0, 0, false } },
    { "mov eax, ebx", { 0x89, 0xd8 }, 8, { 0, 0, 0, 0x8, 0x1, 0, 0, false } },
    { "mov ax, bx", { 0x66, 0x89, 0xd8 }, 8, { 0, 0, 0, 0x9, 0x1, 0, 0, false } },
    { "mov ah, bh", { 0x88, 0xfc }, 8, { 0, 0, 0, 0x9, 0x1, 0, 0, false } },
    { "mov [rsi+rdi*2], al", { 0x88, 0x04, 0x7e }, 8, { 0, 0, 0, 0xc1, 0, 0, 1, false } },
    { "inc dword [rip+0]", { 0xff, 0x05 }, 8, { 0, STATUS & ~1u, 0, 0, 0, 4, 4, false } },
    { "adc eax, 1", { 0x83, 0xd0, 1 }, 8, { 1, STATUS, 0, 1, 1, 0, 0, false } },
    { "shl eax, 4", { 0xc1, 0xe0, 4 }, 8, { 0, STATUS, 0, 1, 1, 0, 0, false } },
    { "shl eax, 32", { 0xc1, 0xe0, 32 }, 8, { 0, 0, 0, 1, 1, 0, 0, false } },
    { "shl rax, 32", { 0x48, 0xc1, 0xe0, 32 }, 8, { 0, STATUS, 0, 1, 1, 0, 0, false } },
    { "shl eax, cl", { 0xd3, 0xe0 }, 8, { 0, 0, STATUS, 3, 1, 0, 0, false } },
    { "rol eax, 1", { 0xd1, 0xc0 }, 8, { 0, 0x801, 0, 1, 1, 0, 0, false } },
    { "rol eax, 1 (C1)", { 0xc1, 0xc0, 33 }, 8, { 0, 0x801, 0, 1, 1, 0, 0, false } },
    { "rol eax, 5", { 0xc1, 0xc0, 5 }, 8, { 0, 1, 0x800, 1, 1, 0, 0, false } },
    { "rcr eax, cl", { 0xd3, 0xd8 }, 8, { 1, 0, 0x801, 3, 1, 0, 0, false } },
    { "shld ax, bx, 17", { 0x66, 0x0f, 0xa4, 0xd8, 17 }, 8, { 0, 0, STATUS, 9, 1, 0, 0, false } },
    { "shld eax, ebx, 3", { 0x0f, 0xa4, 0xd8, 3 }, 8, { 0, 0xc5, 0x810, 9, 1, 0, 0, false } },
    { "mul bl", { 0xf6, 0xe3 }, 8, { 0, 0x801, 0xd4, 0x9, 0x1, 0, 0, false } },
    { "mul ebx", { 0xf7, 0xe3 }, 8, { 0, 0x801, 0xd4, 0x9, 0x5, 0, 0, false } },
    { "mul bx", { 0x66, 0xf7, 0xe3 }, 8, { 0, 0x801, 0xd4, 0xd, 0x5, 0, 0, false } },
    { "div bl", { 0xf6, 0xf3 }, 8, { 0, 0, STATUS, 0x9, 0x1, 0, 0, false } },
    { "bt [rax], ebx", { 0x0f, 0xa3, 0x18 }, 8, { 0, 1, STATUS & ~1u, 9, 0, 4, 0, false } },
    { "cmovbe eax, [rbx]", { 0x0f, 0x46, 0x03 }, 8, { 0x41, 0, 0, 9, 1, 4, 0, false } },
    { "jg", { 0x7f, 0 }, 8, { 0x8c0, 0, 0, 0, 0, 0, 0, false } },
    { "setp cl", { 0x0f, 0x9a, 0xc1 }, 8, { 4, 0, 0, 2, 2, 0, 0, false } },
    { "xchg rbx, [rax]", { 0x48, 0x87, 0x18 }, 8, { 0, 0, 0, 9, 8, 8, 8, false } },
    { "push qword [rbx]", { 0xff, 0x33 }, 8, { 0, 0, 0, 0x18, 0x10, 8, 0, false } },
    { "pop rbx", { 0x5b }, 8, { 0, 0, 0, 0x10, 0x18, 0, 0, false } },
    { "pop bx", { 0x66, 0x5b }, 8, { 0, 0, 0, 0x18, 0x18, 0, 0, false } },
    { "popa", { 0x61 }, 4, { 0, 0, 0, 0x10, 0xff, 0, 0, false } },
    { "popa 16", { 0x61 }, 2, { 0, 0, 0, 0xff, 0xff, 0, 0, false } },
    { "cmpsb", { 0xa6 }, 8, { 0, STATUS, 0, 0xc0, 0xc0, 0, 0, false } },
    { "repe cmpsb", { 0xf3, 0xa6 }, 8, { 0, 0, STATUS, 0xc2, 0xc2, 0, 0, false } },
    { "lodsd", { 0xad }, 8, { 0, 0, 0, 0x40, 0x41, 0, 0, false } },
    { "rep lodsd", { 0xf3, 0xad }, 8, { 0, 0, 0, 0x43, 0x43, 0, 0, false } },
    { "nop [rax]", { 0x0f, 0x1f, 0x00 }, 8, { 0, 0, 0, 0, 0, 0, 0, false } },
    { "lea eax, [rbx+rcx]", { 0x8d, 0x04, 0x0b }, 8, { 0, 0, 0, 0xa, 1, 0, 0, false } },
    { "movss [rbx], xmm0", { 0xf3, 0x0f, 0x11, 0x03 }, 8, { 0, 0, 0, 8, 0, 0, 4, false } },
    { "fcomi st1", { 0xdb, 0xf1 }, 8, { 0, 0, STATUS, 0, 0, 0, 0, false } },
    { "fnstsw ax", { 0xdf, 0xe0 }, 8, { 0, 0, 0, 1, 1, 0, 0, false } },
    { "rdtsc", { 0x0f, 0x31 }, 8, { 0, 0, 0, 0, 5, 0, 0, true } },
    { "fxsave [rax]", { 0x0f, 0xae, 0x00 }, 8, { 0, 0, 0, 1, 0, 0, 0, true } },
};

static void chosen_instructions(void **state)
{
    (void)state;
    for (unsigned i = 0; i < array_size(by_hand); i++) {
        struct insn in;
        struct insn_effects e;
        memset(&e, 0xff, sizeof(e));
        assert_int_equal(insn_decode(&in, by_hand[i].code, 8, by_hand[i].code_bytes), DECODE_OK);
        insn_effects(&e, &in);
        const struct insn_effects *w = &by_hand[i].want;
        if (e.flags_read != w->flags_read || e.flags_written != w->flags_written ||
            e.flags_maybe != w->flags_maybe || e.gpr_read != w->gpr_read || e.gpr_written != w->gpr_written ||
            e.mem_read != w->mem_read || e.mem_write != w->mem_write || e.unknown != w->unknown) {
            report(by_hand[i].what, &in, by_hand[i].code, by_hand[i].code_bytes, &e);
            fail();
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chosen_instructions),
        cmocka_unit_test(zydis_agrees),
        cmocka_unit_test(zydis_agrees_on_extensions),
        cmocka_unit_test(host_agrees),
    };
    return cmocka_run_group_tests_name("effects", tests, NULL, NULL);
}
