/* SPDX-License-Identifier: Apache-2.0 */
/* Our decoder against Zydis: length, validity, memory operand and operand size, on random and structured bytes in all code sizes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <Zydis/Zydis.h>

#include "isa/insn.h"
#include "zydis_modes.h"

static uint64_t rng = 88172645463325252ull;

static uint64_t next_random(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    return rng ^= rng << 17;
}

/* ISA sets that the shown processor does not have: Zydis knows them, we must not. */
static const char *const absent_sets[] = {
    "3DNOW",      "ADOX_ADCX", "AMD",       "AVX",       "AMX",         "BMI",     "CET",       "CLDEMOTE",
    "CLFLUSHOPT", "CLFSH_OPT", "CLWB",      "CLZERO",    "ENQCMD",      "F16C",    "FMA",       "FRED",
    "GFNI",       "HRESET",    "INVLPGB",   "KEYLOCKER", "KNC",         "LZCNT",   "MCOMMIT",   "MONITOR",
    "MONITORX",   "MOVBE",     "MOVDIR",    "MPX",       "MSRLIST",     "PADLOCK", "PBNDKB",    "PCOMMIT",
    "PCONFIG",    "PT",        "PTWRITE",   "RDPID",     "RDPRU",       "RDRAND",  "RDSEED",    "RDTSCP_",
    "RMPQUERY",   "RTM",       "SERIALIZE", "SGX",       "SHA",         "SMAP_",   "SMX",       "SNP",
    "SSE4A",      "SSEMXCSR_", "SVM",       "TBM",       "TDX",         "TSX",     "UINTR",     "VMFUNC",
    "VTX",        "WAITPKG",   "WBNOINVD",  "WRMSRNS",   "XOP",         "XSAVEC",  "XSAVEOPT",  "XSAVES",
    "AVX512",     "KL",        "SMM",       "SEV",       "PREFETCHWT1", "RAO_INT", "CMPCCXADD", "CYRIX",
    "GEODE",
};

static bool zydis_only(const ZydisDecodedInstruction *z)
{
    const char *set = ZydisISASetGetString(z->meta.isa_set);
    const char *ext = ZydisISAExtGetString(z->meta.isa_ext);
    for (unsigned i = 0; i < array_size(absent_sets); i++)
        if (!strncmp(set, absent_sets[i], strlen(absent_sets[i])) ||
            !strncmp(ext, absent_sets[i], strlen(absent_sets[i])))
            return true;
    return false;
}

static unsigned failures;

static void report(const char *what, const uint8_t *b, unsigned code_bytes, const struct insn *in,
                   const ZydisDecodedInstruction *z)
{
    if (failures++ >= 40)
        return;
    fprintf(stderr, "%s: %u-bit", what, code_bytes * 8);
    for (unsigned i = 0; i < 15; i++)
        fprintf(stderr, " %02x", b[i]);
    fprintf(stderr, "  ours %s len %u", insn_names[in->id], in->len);
    if (z)
        fprintf(stderr, "  Zydis %s len %u set %s", ZydisMnemonicGetString(z->mnemonic), z->length,
                ZydisISASetGetString(z->meta.isa_set));
    fprintf(stderr, "\n");
}

static uint8_t zydis_reg(ZydisRegister r)
{
    if (r == ZYDIS_REGISTER_NONE)
        return MEM_NO_REG;
    if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP)
        return MEM_RIP;
    return (uint8_t)ZydisRegisterGetId(r);
}

static bool memory_equal(const struct insn *in, const ZydisDecodedOperand *ops, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (ops[i].type != ZYDIS_OPERAND_TYPE_MEMORY ||
            ops[i].visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
            continue;
        const ZydisDecodedOperandMem *m = &ops[i].mem;
        unsigned scale = m->index == ZYDIS_REGISTER_NONE ? 1 : m->scale;
        unsigned ours = in->mem.index == MEM_NO_REG ? 1 : 1u << in->mem.scale;
        uint64_t mask = in->addrsize == 8 ? ~0ull : in->addrsize == 4 ? 0xffffffffull : 0xffffull;
        return zydis_reg(m->base) == in->mem.base && zydis_reg(m->index) == in->mem.index && scale == ours &&
               (((uint64_t)m->disp.value ^ (uint64_t)in->mem.disp) & mask) == 0 &&
               ZydisRegisterGetId(m->segment) == in->mem.seg;
    }
    return true;
}

/* Hardware and both manuals agree with us here; Zydis 4.0 is stricter or laxer. */
static bool known_difference(const struct insn *in, bool we_ok, const ZydisDecodedInstruction *z)
{
    if (we_ok) /* hint NOPs and reserved encodings that processors execute; CR and DR numbers are checked at execution */
        return in->id == INSN_NOP || in->id == INSN_UD || in->id == INSN_SALC || in->row->flags & IF_X87 ||
               in->id == INSN_MOV_FROM_CR || in->id == INSN_MOV_TO_CR || in->id == INSN_MOV_FROM_DR ||
               in->id == INSN_MOV_TO_DR || false;
    if (!z)
        return false;
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_NOP: /* 0f 0d with a register: #UD on AMD, a hint on Intel */
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_MOV: /* to CS, to CR1 and the like: refused at execution or decoding */ return true;
    default: return false;
    }
}

static void compare(const ZydisDecoder *dec, const uint8_t *b, unsigned code_bytes)
{
    struct insn in;
    enum decode_status st = insn_decode(&in, b, 15, code_bytes);
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    bool z_ok = ZYAN_SUCCESS(ZydisDecoderDecodeFull(dec, b, 15, &z, ops));
    if (st == DECODE_OK && z_ok) {
        if (zydis_only(&z) && in.id != INSN_NOP && in.id != INSN_BSF && in.id != INSN_BSR &&
            in.id != INSN_WBINVD && in.id != INSN_VMCALL && in.id != INSN_VMMCALL && in.id != INSN_SYSCALL &&
            in.id != INSN_SYSRET)
            report("shown processor lacks it", b, code_bytes, &in, &z);
        else if (in.len != z.length)
            report("length", b, code_bytes, &in, &z);
        else if (in.id != INSN_NOP && in.id != INSN_LEA && !memory_equal(&in, ops, z.operand_count_visible))
            report("memory operand", b, code_bytes, &in, &z);
        else if (!(in.row->flags & (IF_BYTE | IF_X87 | IF_SSE | IF_MMX | IF_SYS)) && in.id != INSN_NOP &&
                 z.operand_count_visible && z.operand_width != in.opsize * 8u && in.row->pfx == PX &&
                 in.id != INSN_MOVSX && in.id != INSN_CMPXCHG8B && in.id != INSN_UD &&
                 !(in.row->flags & IF_F64))
            report("operand size", b, code_bytes, &in, &z);
    } else if (st == DECODE_OK && !z_ok) {
        if (!known_difference(&in, true, NULL))
            report("we accept, Zydis refuses", b, code_bytes, &in, NULL);
    } else if (z_ok && !zydis_only(&z) && !known_difference(&in, false, &z)) {
        report(st == DECODE_INVALID ? "we refuse, Zydis accepts" : "we want more bytes", b, code_bytes, &in,
               &z);
    }
}

/* Random bytes, but often beginning with the start of some row, so that every map and group is met. */
static void fill(uint8_t *b)
{
    static const uint8_t prefixes[] = { 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x64, 0x48, 0x41, 0x4f };
    for (unsigned i = 0; i < 15; i++)
        b[i] = (uint8_t)next_random();
    uint64_t r = next_random();
    unsigned pos = 0;
    while ((r & 3) == 0 && pos < 3) {
        b[pos++] = prefixes[(r >> 8) % array_size(prefixes)];
        r = next_random();
    }
    const struct insn_row *row = &insn_rows[(r >> 16) % insn_row_count];
    if (r & 4)
        return;
    static const uint8_t mandatory[] = { 0, 0, 0x66, 0xf3, 0xf2 };
    if (mandatory[row->pfx])
        b[pos++] = mandatory[row->pfx];
    if (row->map != MAP_1)
        b[pos++] = 0x0f;
    if (row->map == MAP_0F38 || row->map == MAP_0F3A)
        b[pos++] = row->map == MAP_0F38 ? 0x38 : 0x3a;
    b[pos++] = row->opcode;
    if (row->reg >= 0)
        b[pos] = (uint8_t)((b[pos] & 0xc7) | row->reg << 3);
}

static void decoder_agrees_with_zydis(void **state)
{
    (void)state;
    const char *n = getenv("SUNDOG_DECODE_CASES");
    uint64_t cases = n ? strtoull(n, NULL, 10) : 1000000;
    for (unsigned m = 0; m < array_size(modes); m++) {
        ZydisDecoder dec;
        assert_true(ZYAN_SUCCESS(ZydisDecoderInit(&dec, modes[m].mode, modes[m].stack)));
        for (uint64_t i = 0; i < cases; i++) {
            uint8_t b[15];
            fill(b);
            compare(&dec, b, modes[m].code_bytes);
        }
    }
    assert_int_equal(failures, 0);
}

/* Every shorter prefix of a valid instruction asks for more; nothing reads beyond what it was given. */
static void truncated_instructions_ask_for_more(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        uint8_t b[15];
        fill(b);
        struct insn in, part;
        unsigned code_bytes = 2u << (i % 3);
        if (insn_decode(&in, b, 15, code_bytes) != DECODE_OK)
            continue;
        for (unsigned n = 0; n < in.len; n++)
            assert_int_equal(insn_decode(&part, b, n, code_bytes), DECODE_MORE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoder_agrees_with_zydis),
        cmocka_unit_test(truncated_instructions_ask_for_more),
    };
    return cmocka_run_group_tests_name("decode", tests, NULL, NULL);
}
