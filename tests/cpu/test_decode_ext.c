/* SPDX-License-Identifier: Apache-2.0 */
/* VEX and EVEX encodings against Zydis: which exist, how long they are, what they are called, and their operands. Every map, prefix,
 * opcode, W, length, group number, form and EVEX bit is met; what is left of the bytes is random. */
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

static unsigned failures;
static uint64_t compared;

static void report(const char *what, const uint8_t *b, unsigned code_bytes, const struct insn *in,
                   const ZydisDecodedInstruction *z)
{
    static unsigned of[INSN_ID_COUNT];
    if (failures++ >= 4000 || of[in->id]++ >= 3)
        return;
    fprintf(stderr, "%s: %u-bit", what, code_bytes * 8);
    for (unsigned i = 0; i < 12; i++)
        fprintf(stderr, " %02x", b[i]);
    fprintf(stderr, "  ours %s len %u", insn_names[in->id], in->len);
    if (z)
        fprintf(stderr, "  Zydis %s len %u set %s", ZydisMnemonicGetString(z->mnemonic), z->length,
                ZydisISASetGetString(z->meta.isa_set));
    fprintf(stderr, "\n");
}

/* Sets that Zydis knows and we do not. */
static bool zydis_only(const ZydisDecodedInstruction *z)
{
    static const char *const sets[] = { "AMX",       "XOP",       "AVX512_FP16", "AVX_IFMA", "AVX_NE_CONVERT",
                                        "AVX_VNNI_", "CMPCCXADD", "AVX512ER",    "AVX512PF", "AVX512_4",
                                        "FMA4",      "KNC",       "RAO_INT" };
    const char *set = ZydisISASetGetString(z->meta.isa_set);
    for (unsigned i = 0; i < array_size(sets); i++)
        if (!strncmp(set, sets[i], strlen(sets[i])))
            return true;
    return false;
}

/* One operation of ours has several names there, by the operand's width. */
static bool same_name(const struct insn *in, const ZydisDecodedInstruction *z)
{
    static const struct {
        uint16_t id;
        const char *other;
    } aliases[] = { { INSN_VMOVD, "vmovq" },
                    { INSN_VPEXTRD, "vpextrq" },
                    { INSN_VPINSRD, "vpinsrq" },
                    { INSN_KMOVQ, "kmovd" },
                    { INSN_VPBROADCASTD, "vpbroadcastq" } };
    char name[32];
    unsigned i = 0;
    for (const char *p = insn_names[in->id]; *p && i < sizeof(name) - 1; p++)
        name[i++] = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
    name[i] = 0;
    if (!strcmp(name, ZydisMnemonicGetString(z->mnemonic)))
        return true;
    for (i = 0; i < array_size(aliases); i++)
        if (aliases[i].id == in->id && !strcmp(aliases[i].other, ZydisMnemonicGetString(z->mnemonic)))
            return true;
    return false;
}

static uint8_t zydis_reg(ZydisRegister r)
{
    if (r == ZYDIS_REGISTER_NONE)
        return MEM_NO_REG;
    if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP)
        return MEM_RIP;
    return (uint8_t)ZydisRegisterGetId(r);
}

static bool same_memory(const struct insn *in, const ZydisDecodedOperand *o)
{
    const ZydisDecodedOperandMem *m = &o->mem;
    bool index = m->index != ZYDIS_REGISTER_NONE;
    uint64_t mask = in->addrsize == 8 ? ~0ull : in->addrsize == 4 ? 0xffffffffull : 0xffffull;
    return zydis_reg(m->base) == in->mem.base && zydis_reg(m->index) == in->mem.index &&
           (!index || m->scale == 1u << in->mem.scale) &&
           (((uint64_t)m->disp.value ^ (uint64_t)in->mem.disp) & mask) == 0 &&
           ZydisRegisterGetId(m->segment) == in->mem.seg;
}

static bool is_vector(ZydisRegisterClass c)
{
    return c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM || c == ZYDIS_REGCLASS_ZMM;
}

static bool same_register(const struct operand *o, ZydisRegister r)
{
    ZydisRegisterClass c = ZydisRegisterGetClass(r);
    if (o->reg != (uint8_t)ZydisRegisterGetId(r))
        return false;
    if (is_vector(c))
        return o->kind == OPND_XMM;
    return c == ZYDIS_REGCLASS_MASK ? o->kind == OPND_K : o->kind == OPND_REG;
}

/* The size of a memory operand; Zydis gives masked ones and those of state and hints otherwise. */
static bool same_size(const struct insn *in, const struct operand *o, const ZydisDecodedOperand *z)
{
    return in->vsib || o->size * 8u == z->size;
}

static bool same_operand(const struct insn *in, const struct operand *o, const ZydisDecodedOperand *z)
{
    switch (z->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER: return same_register(o, z->reg.value);
    case ZYDIS_OPERAND_TYPE_MEMORY: return o->kind == OPND_MEM && same_memory(in, z) && same_size(in, o, z);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        return o->kind == OPND_IMM && (uint8_t)z->imm.value.u == (uint8_t)in->imm;
    default: return false;
    }
}

static bool same_operands(const struct insn *in, const ZydisDecodedInstruction *z,
                          const ZydisDecodedOperand *ops)
{
    unsigned n = 0;
    for (unsigned i = 0; i < z->operand_count_visible; i++) {
        const struct operand *o = n < 3 ? &in->op[n] : &in->op4;
        if (ops[i].encoding == ZYDIS_OPERAND_ENCODING_MASK) {
            if (ZydisRegisterGetId(ops[i].reg.value) != in->mask)
                return false;
            continue;
        }
        if (n == 4 || !same_operand(in, o, &ops[i]))
            return false;
        n++;
    }
    return n == 4 || (n < 3 ? in->op[n].kind : in->op4.kind) == OPND_NONE;
}

static bool same_length(const struct insn *in, const ZydisDecodedInstruction *z)
{
    return in->enc != ENCODING_EVEX || in->row->vl == LIG || in->row->vl == L0 ||
           in->vl * 8 == z->avx.vector_length;
}

/* Processors and the manual agree with us; Zydis 4.0 does not: W outside 64-bit mode, where it is ignored or refused. */
static bool known_difference(const struct insn *in, const ZydisDecodedInstruction *z, unsigned code_bytes)
{
    if (z)
        return code_bytes != 8 &&
               (z->mnemonic == ZYDIS_MNEMONIC_VPEXTRD || z->mnemonic == ZYDIS_MNEMONIC_VPINSRD);
    return code_bytes != 8 && (in->id == INSN_VCVTSI2SD || in->id == INSN_VCVTUSI2SD);
}

static void compare(const ZydisDecoder *dec, const uint8_t *b, unsigned code_bytes)
{
    struct insn in;
    enum decode_status st = insn_decode_for(&in, b, 15, code_bytes, FEATURES_ALL);
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    bool z_ok = ZYAN_SUCCESS(ZydisDecoderDecodeFull(dec, b, 15, &z, ops));
    compared++;
    if (z_ok && zydis_only(&z))
        z_ok = false;
    if ((st == DECODE_OK) != z_ok && known_difference(&in, z_ok ? &z : NULL, code_bytes))
        return;
    if (st == DECODE_OK && !z_ok)
        report("we accept, Zydis refuses", b, code_bytes, &in, NULL);
    else if (st != DECODE_OK && z_ok)
        report("we refuse, Zydis accepts", b, code_bytes, &in, &z);
    else if (!z_ok)
        return;
    else if (in.len != z.length)
        report("length", b, code_bytes, &in, &z);
    else if (!same_name(&in, &z))
        report("name", b, code_bytes, &in, &z);
    else if (!same_length(&in, &z))
        report("vector length", b, code_bytes, &in, &z);
    else if (!same_operands(&in, &z, ops))
        report("operands", b, code_bytes, &in, &z);
}

/* What is enumerated. */
struct shape {
    unsigned map, pp, opcode, w, ll, group, form, bits; /* bits: EVEX.z, b, an opmask */
};

static void fill(uint8_t *b)
{
    for (unsigned i = 0; i < 16; i += 8) {
        uint64_t v = next_random();
        memcpy(b + i, &v, 8);
    }
}

static uint8_t modrm(const struct shape *s)
{
    return (uint8_t)((s->form ? 0xc0 : (next_random() % 3) << 6) | s->group << 3 | (next_random() & 7));
}

/* vvvv, R, X, B and V' are mostly those of no register, which most rows without a third operand want. */
static uint8_t plain(uint8_t random, uint8_t mask) { return next_random() & 3 ? random | mask : random; }

static unsigned put_vex(uint8_t *b, const struct shape *s, unsigned code_bytes)
{
    unsigned n = 0;
    b[n++] = 0xc4;
    b[n] = (uint8_t)((b[n] & 0xe0) | s->map);
    if (code_bytes != 8)
        b[n] |=
            0xe0; /* the decoders differ in which of these bits they look at there: tests/cpu/test_native knows */
    n++;
    b[n] = (uint8_t)(plain(b[n] & 0x78, 0x78) | s->w << 7 | s->ll << 2 | s->pp);
    if (code_bytes != 8)
        b[n] |= 0x40;
    n++;
    b[n++] = (uint8_t)s->opcode;
    b[n++] = modrm(s);
    return n;
}

static unsigned put_evex(uint8_t *b, const struct shape *s, unsigned code_bytes)
{
    unsigned n = 0;
    b[n++] = 0x62;
    b[n] = (uint8_t)(plain(b[n] & 0xf0, 0x90) | s->map);
    if (code_bytes != 8)
        b[n] |= 0xf0;
    n++;
    b[n] = (uint8_t)(plain(b[n] & 0x78, 0x78) | s->w << 7 | 4 | s->pp);
    if (code_bytes != 8)
        b[n] |= 0x40;
    n++;
    b[n] = (uint8_t)(plain(b[n] & 8, 8) | s->ll << 5 | (s->bits & 1) << 7 | (s->bits & 2) << 3 |
                     (s->bits & 4 ? 1 + next_random() % 7 : 0));
    if (code_bytes != 8)
        b[n] |= 8;
    n++;
    b[n++] = (uint8_t)s->opcode;
    b[n++] = modrm(s);
    return n;
}

static void run(unsigned lengths, unsigned bits, unsigned (*put)(uint8_t *, const struct shape *, unsigned))
{
    failures = 0;
    compared = 0;
    for (unsigned m = 0; m < array_size(modes); m++) {
        ZydisDecoder dec;
        assert_true(ZYAN_SUCCESS(ZydisDecoderInit(&dec, modes[m].mode, modes[m].stack)));
        struct shape s;
        for (s.map = 1; s.map <= 3; s.map++)
            for (s.pp = 0; s.pp < 4; s.pp++)
                for (s.opcode = 0; s.opcode < 256; s.opcode++)
                    for (unsigned i = 0; i < 2 * lengths * 8 * 2 * bits; i++) {
                        uint8_t b[16];
                        s.w = i & 1;
                        s.form = i >> 1 & 1;
                        s.group = i >> 2 & 7;
                        s.ll = (i >> 5) % lengths;
                        s.bits = (i >> 5) / lengths;
                        for (unsigned round = 0; round < 3; round++) {
                            fill(b);
                            put(b, &s, modes[m].code_bytes);
                            compare(&dec, b, modes[m].code_bytes);
                        }
                    }
    }
    fprintf(stderr, "%llu encodings compared\n", (unsigned long long)compared);
    assert_int_equal(failures, 0);
}

static void vex_agrees_with_zydis(void **state)
{
    (void)state;
    run(2, 1, put_vex);
}

static void evex_agrees_with_zydis(void **state)
{
    (void)state;
    run(4, 8, put_evex);
}

/* Without features the same bytes are what they always were. */
static void nothing_is_known_without_its_feature(void **state)
{
    (void)state;
    struct insn in;
    static const uint8_t rep_bsf[] = { 0xf3, 0x0f, 0xbc, 0xc1 }, vaddps[] = { 0xc5, 0xf0, 0x58, 0xc2 };
    assert_int_equal(insn_decode(&in, rep_bsf, 4, 8), DECODE_OK);
    assert_int_equal(in.id, INSN_BSF);
    assert_int_equal(insn_decode_for(&in, rep_bsf, 4, 8, FEATURE_BIT(FEAT_BMI1)), DECODE_OK);
    assert_int_equal(in.id, INSN_TZCNT);
    assert_int_equal(insn_decode(&in, vaddps, 4, 8), DECODE_INVALID);
    assert_int_equal(insn_decode_for(&in, vaddps, 4, 8, FEATURE_BIT(FEAT_BMI1)), DECODE_INVALID);
    assert_int_equal(insn_decode_for(&in, vaddps, 4, 8, FEATURE_BIT(FEAT_AVX)), DECODE_OK);
    assert_int_equal(in.id, INSN_VADDPS);
    for (unsigned r = 0; r < insn_ext_row_count; r++)
        assert_int_not_equal(insn_ext_rows[r].feature, FEAT_NONE);
}

/* Every shorter prefix of a valid instruction asks for more. */
static void truncated_instructions_ask_for_more(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2000000; i++) {
        uint64_t r = next_random();
        struct shape s = { 1 + r % 3,   r >> 8 & 3,  r >> 16 & 255, r >> 24 & 1,
                           r >> 25 & 1, r >> 28 & 7, r >> 31 & 1,   0 };
        uint8_t b[16];
        struct insn in, part;
        fill(b);
        if (r >> 40 & 1)
            put_vex(b, &s, 8);
        else
            put_evex(b, &s, 8);
        if (insn_decode_for(&in, b, 15, 8, FEATURES_ALL) != DECODE_OK)
            continue;
        for (unsigned n = 0; n < in.len; n++)
            assert_int_equal(insn_decode_for(&part, b, n, 8, FEATURES_ALL), DECODE_MORE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vex_agrees_with_zydis),
        cmocka_unit_test(evex_agrees_with_zydis),
        cmocka_unit_test(nothing_is_known_without_its_feature),
        cmocka_unit_test(truncated_instructions_ask_for_more),
    };
    return cmocka_run_group_tests_name("decode_ext", tests, NULL, NULL);
}
