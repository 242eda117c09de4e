/* SPDX-License-Identifier: Apache-2.0 */
/* From bytes to struct verify_insn, by Zydis; what is not on the allow-list ends here. */
#include "engine/bt/verify_insn.h"

#include <Zydis/Zydis.h>

#include "engine/bt/bt.h"

#define STATUS_MASK 0x8d5u

/* clang-format off */
static const uint8_t allowed[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
#define X(name, op) [ZYDIS_MNEMONIC_##name] = OP_##op,
#include "engine/bt/verify_allow.def"
#undef X
};
/* clang-format on */

/* Stack instructions: gates use them, and calls and returns of units. */
static enum verify_op stack_op(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_PUSH: return OP_PUSH;
    case ZYDIS_MNEMONIC_POP: return OP_POP;
    case ZYDIS_MNEMONIC_RET: return OP_RET;
    default: return OP_FORBIDDEN;
    }
}

/* Instructions of SSE whose 16 bytes need not be aligned (SDM 2A 2.4, table 2-21; APM 4 1.3.3). */
static bool takes_any_alignment(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM: return true;
    default: return false;
    }
}

/* With VEX and EVEX it is the other way round. */
static bool wants_alignment(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVDQA32:
    case ZYDIS_MNEMONIC_VMOVDQA64:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD: return true;
    default: return false;
    }
}

static bool aligned_access(const ZydisDecodedInstruction *z, unsigned bytes)
{
    if (bytes < 16)
        return false;
    return z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY ? !takes_any_alignment(z->mnemonic)
                                                            : wants_alignment(z->mnemonic);
}

/* Number of a general register by its 64-bit form; NO_REG: none. */
static uint8_t gpr_number(ZydisRegister r)
{
    if (r == ZYDIS_REGISTER_NONE)
        return NO_REG;
    return (uint8_t)ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r));
}

/* Registers of control and status. Rounding and masks of SIMD and x87 instructions are the guest's, and nothing on the list writes
 * more than sticky flags and the x87's own status. */
static const char *other_register(struct verify_operand *o, ZydisRegister r)
{
    o->kind = OPR_OTHER;
    o->reg = (uint8_t)r;
    switch (r) {
    case ZYDIS_REGISTER_MXCSR: return NULL;
    case ZYDIS_REGISTER_X87CONTROL:
    case ZYDIS_REGISTER_X87STATUS:
    case ZYDIS_REGISTER_X87TAG: o->kind = OPR_X87; return NULL;
    default: return "a register of a class that is not allowed";
    }
}

static const char *register_operand(struct verify_operand *o, ZydisRegister r)
{
    o->kind = OPR_GPR;
    switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        o->reg = gpr_number(r);
        o->size = (uint8_t)(ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, r) / 8);
        return NULL;
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM:
    case ZYDIS_REGCLASS_MASK: o->kind = OPR_VECTOR; return NULL;
    case ZYDIS_REGCLASS_X87:
    case ZYDIS_REGCLASS_MMX: o->kind = OPR_X87; return NULL;
    case ZYDIS_REGCLASS_FLAGS: o->kind = OPR_FLAGS; return NULL;
    case ZYDIS_REGCLASS_IP: o->kind = OPR_IP; return NULL;
    default: return other_register(o, r);
    }
}

static const char *memory_operand(struct verify_operand *o, const ZydisDecodedOperand *z)
{
    const ZydisDecodedOperandMem *m = &z->mem;
    if (m->type != ZYDIS_MEMOP_TYPE_MEM && m->type != ZYDIS_MEMOP_TYPE_AGEN)
        return "a kind of memory operand that is not allowed";
    bool gs = m->segment == ZYDIS_REGISTER_GS && m->type == ZYDIS_MEMOP_TYPE_MEM;
    if (m->segment == ZYDIS_REGISTER_FS || (m->segment == ZYDIS_REGISTER_GS && !gs))
        return "the host's FS or GS";
    if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
        return "memory relative to the code";
    if (z->size / 8 > 64)
        return "a memory operand larger than any allowed";
    o->gs = gs;
    o->kind = m->type == ZYDIS_MEMOP_TYPE_AGEN ? OPR_ADDRESS : OPR_MEM;
    o->base = gpr_number(m->base);
    o->index = gpr_number(m->index);
    o->scale = m->scale;
    o->val = m->disp.has_displacement ? m->disp.value : 0;
    return NULL;
}

static const char *operand(struct verify_operand *o, const ZydisDecodedOperand *z)
{
    *o = (struct verify_operand){
        .reg = NO_REG,
        .base = NO_REG,
        .index = NO_REG,
        .size = (uint8_t)(z->size / 8),
        .read = z->actions & ZYDIS_OPERAND_ACTION_MASK_READ,
        .write = z->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE,
        .maybe = z->actions & ZYDIS_OPERAND_ACTION_CONDWRITE,
    };
    switch (z->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER: return register_operand(o, z->reg.value);
    case ZYDIS_OPERAND_TYPE_MEMORY: return memory_operand(o, z);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        o->kind = OPR_IMM;
        o->val = z->imm.value.s;
        return NULL;
    default: return "a kind of operand that is not allowed";
    }
}

static bool is_shift(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: return true;
    default: return false;
    }
}

/* Which of the guest's vector registers have to be in the host's. */
static uint8_t simd_level(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *o)
{
    uint8_t level = z->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || z->mnemonic == ZYDIS_MNEMONIC_VZEROALL
                        ? SIMD_AVX
                        : SIMD_NONE;
    for (unsigned n = 0; n < z->operand_count; n++) {
        ZydisRegisterClass class = o[n].type == ZYDIS_OPERAND_TYPE_REGISTER
                                       ? ZydisRegisterGetClass(o[n].reg.value)
                                       : ZYDIS_REGCLASS_INVALID;
        bool vector = class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM ||
                      class == ZYDIS_REGCLASS_ZMM;
        if (class == ZYDIS_REGCLASS_MASK || z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
            return SIMD_AVX512;
        if (vector && level < SIMD_AVX)
            level = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? SIMD_AVX : SIMD_SSE;
    }
    return level;
}

static void note_flags(struct verify_insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *o)
{
    const ZydisAccessedFlags *f = z->cpu_flags;
    if (!f)
        return;
    i->flags_read = f->tested & STATUS_MASK;
    i->flags_written = (f->modified | f->set_0 | f->set_1 | f->undefined) & STATUS_MASK;
    if (z->mnemonic == ZYDIS_MNEMONIC_VTESTPS || z->mnemonic == ZYDIS_MNEMONIC_VTESTPD ||
        z->mnemonic == ZYDIS_MNEMONIC_VPTEST)
        i->flags_written =
            STATUS_MASK; /* the rest is cleared (SDM 2C, VTESTPD; 2B, PTEST), which Zydis' tables leave out */
    if (!is_shift(z->mnemonic))
        return;
    /* A count of 0 changes nothing, and what RCL and RCR do not shift they do not show. */
    const ZydisDecodedOperand *count = &o[z->operand_count_visible - 1];
    bool known = count->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    if (known && !(count->imm.value.u & (z->operand_width == 64 ? 63 : 31)))
        i->flags_read = i->flags_written = 0;
    else if (!known)
        i->flags_maybe = true;
}

static const char *operands(struct verify_insn *i, const ZydisDecodedInstruction *z,
                            const ZydisDecodedOperand *from)
{
    if (z->operand_count > VERIFY_OPERANDS)
        return "more operands than any allowed instruction has";
    for (unsigned n = 0; n < z->operand_count; n++) {
        struct verify_operand *o = &i->o[n];
        const char *broken = operand(o, &from[n]);
        if (broken)
            return broken;
        if (o->kind == OPR_MEM && from[n].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            return "memory that the instruction does not name";
        o->narrow = o->kind == OPR_MEM && z->address_width != 64;
        if (o->kind == OPR_MEM && o->gs)
            i->may_fault = true;
        else if (z->address_width != 64 && (o->kind == OPR_MEM || o->kind == OPR_ADDRESS))
            return "an address of less than 64 bits";
        if (o->kind == OPR_FLAGS && o->maybe)
            i->flags_maybe = true;
        if (o->kind == OPR_MEM && aligned_access(z, o->size))
            i->may_fault = true;
        if (i->op == OP_KEEPS && n == 0)
            o->read = true;
    }
    i->noperands = z->operand_count;
    if (i->op == OP_BITS && i->o[0].kind == OPR_MEM && i->o[1].kind != OPR_IMM)
        return "a bit number that reaches beyond its operand";
    return NULL;
}

/* Jumps and calls: their hidden operands are part of their rules. */
static const char *branch(struct verify_insn *i, const ZydisDecodedInstruction *z,
                          const ZydisDecodedOperand *o, uint64_t address)
{
    if (o[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        i->relative = true;
        i->target = address + z->length + (uint64_t)o[0].imm.value.s;
        i->cond = z->mnemonic == ZYDIS_MNEMONIC_JRCXZ ? NO_REG : z->opcode & 15;
        return NULL;
    }
    i->noperands = 1;
    return operand(&i->o[0], &o[0]);
}

/* REP MOVS, REP STOS, REPcc SCAS with 64-bit addresses: their memory is implied by registers that a rule of theirs looks at. */
static const char *string(struct verify_insn *i, const ZydisDecodedInstruction *z,
                          const ZydisDecodedOperand *o)
{
    const ZyanU64 repeated = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    if (!(z->attributes & repeated) || z->address_width != 64)
        return "a string instruction that is not repeated";
    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVSQ: i->moves = true; break;
    case ZYDIS_MNEMONIC_SCASB:
    case ZYDIS_MNEMONIC_SCASW:
    case ZYDIS_MNEMONIC_SCASD:
    case ZYDIS_MNEMONIC_SCASQ: i->compares = true; break;
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ: break;
    default: return "a string instruction that is not on the allow-list";
    }
    for (unsigned n = 0; n < z->operand_count; n++)
        if (o[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (o[n].mem.segment == ZYDIS_REGISTER_FS || o[n].mem.segment == ZYDIS_REGISTER_GS))
            return "the host's FS or GS";
    i->op = OP_REP;
    i->element = (uint8_t)(z->operand_width / 8);
    return NULL;
}

const char *verify_decode(struct verify_insn *i, const uint8_t *bytes, size_t avail, uint64_t address,
                          bool in_gate)
{
    ZydisDecoder d;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    *i = (struct verify_insn){ .len = 1 };
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, bytes, avail, &z, o)))
        return "bytes that are no instruction";
    i->len = z.length;
    if (z.meta.category == ZYDIS_CATEGORY_STRINGOP)
        return string(i, &z, o);
    i->op = allowed[z.mnemonic];
    if (i->op == OP_FORBIDDEN)
        i->op = (uint8_t)stack_op(z.mnemonic);
    if (i->op == OP_FORBIDDEN)
        return "an instruction that is not on the allow-list";
    if (z.address_width != 64 && in_gate)
        return "an address of less than 64 bits";
    if (i->op == OP_JMP || i->op == OP_JCC || i->op == OP_CALL)
        return branch(i, &z, o, address);
    if (i->op == OP_RET)
        return z.operand_count_visible ? "a return that drops arguments" : NULL;
    if (i->op == OP_PUSH || i->op == OP_POP) {
        i->noperands = 1;
        return operand(&i->o[0], &o[0]);
    }
    i->may_fault = i->op == OP_DIVIDE;
    i->extends = z.mnemonic == ZYDIS_MNEMONIC_MOVSX || z.mnemonic == ZYDIS_MNEMONIC_MOVZX ||
                 z.mnemonic == ZYDIS_MNEMONIC_MOVSXD;
    i->simd = simd_level(&z, o);
    note_flags(i, &z, o);
    return operands(i, &z, o);
}

void verify_format(const uint8_t *bytes, size_t avail, uint64_t address, char *out, size_t len)
{
    ZydisDecoder d;
    ZydisFormatter f;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
    out[0] = 0;
    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, bytes, avail, &z, o)))
        ZydisFormatterFormatInstruction(&f, &z, o, z.operand_count_visible, out, len, address, NULL);
}
