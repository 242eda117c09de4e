/* SPDX-License-Identifier: Apache-2.0 */
/* From decoded instructions to operations: which family lowers which instruction. A row nobody names fails
 * tests/unit/test_lower. */
#include "engine/interp/operand.h"
#include "engine/interp/wide.h"

/* Integer families by instruction. */
/* clang-format off */
static const lower_fn integer_families[INSN_ID_COUNT] = {
    [INSN_ADD] = lower_alu, [INSN_OR] = lower_alu, [INSN_ADC] = lower_alu, [INSN_SBB] = lower_alu,
    [INSN_AND] = lower_alu, [INSN_SUB] = lower_alu, [INSN_XOR] = lower_alu, [INSN_CMP] = lower_alu,
    [INSN_TEST] = lower_alu,
    [INSN_INC] = lower_unary, [INSN_DEC] = lower_unary, [INSN_NEG] = lower_unary,
    [INSN_NOT] = lower_unary,
    [INSN_ROL] = lower_shift, [INSN_ROR] = lower_shift, [INSN_RCL] = lower_shift,
    [INSN_RCR] = lower_shift, [INSN_SHL] = lower_shift, [INSN_SHR] = lower_shift,
    [INSN_SAR] = lower_shift,
    [INSN_SHLD] = lower_double_shift, [INSN_SHRD] = lower_double_shift,
    [INSN_MUL] = lower_muldiv, [INSN_IMUL1] = lower_muldiv, [INSN_IMUL2] = lower_muldiv,
    [INSN_IMUL3] = lower_muldiv, [INSN_DIV] = lower_muldiv, [INSN_IDIV] = lower_muldiv,
    [INSN_MOV] = lower_move, [INSN_MOVNTI] = lower_move,
    [INSN_MOVZX] = lower_extend, [INSN_MOVSX] = lower_extend,
    [INSN_LEA] = lower_lea,
    [INSN_CMOVCC] = lower_cmov,
    [INSN_SETCC] = lower_setcc,
    [INSN_CBW] = lower_accumulator, [INSN_CWD] = lower_accumulator, [INSN_BSWAP] = lower_accumulator,
    [INSN_XLAT] = lower_accumulator,
    [INSN_CLC] = lower_flag, [INSN_STC] = lower_flag, [INSN_CMC] = lower_flag, [INSN_CLD] = lower_flag,
    [INSN_STD] = lower_flag, [INSN_LAHF] = lower_flag, [INSN_SAHF] = lower_flag,
    [INSN_DAA] = lower_bcd, [INSN_DAS] = lower_bcd, [INSN_AAA] = lower_bcd, [INSN_AAS] = lower_bcd,
    [INSN_AAM] = lower_bcd, [INSN_AAD] = lower_bcd, [INSN_SALC] = lower_bcd,
    [INSN_BT] = lower_bit_test, [INSN_BTS] = lower_bit_test, [INSN_BTR] = lower_bit_test,
    [INSN_BTC] = lower_bit_test,
    [INSN_BSF] = lower_bit_scan, [INSN_BSR] = lower_bit_scan, [INSN_POPCNT] = lower_bit_scan,
    [INSN_CRC32] = lower_bit_scan,
    [INSN_XCHG] = lower_exchange, [INSN_XADD] = lower_exchange, [INSN_CMPXCHG] = lower_exchange,
    [INSN_CMPXCHG8B] = lower_exchange,
    [INSN_PUSH] = lower_stack, [INSN_POP] = lower_stack, [INSN_PUSHA] = lower_stack,
    [INSN_POPA] = lower_stack, [INSN_ENTER] = lower_stack, [INSN_LEAVE] = lower_stack,
    [INSN_JCC] = lower_branch, [INSN_JMP] = lower_branch, [INSN_CALL] = lower_branch,
    [INSN_RET] = lower_branch, [INSN_JMP_IND] = lower_branch, [INSN_CALL_IND] = lower_branch,
    [INSN_LOOP] = lower_branch, [INSN_LOOPE] = lower_branch, [INSN_LOOPNE] = lower_branch,
    [INSN_JCXZ] = lower_branch,
    [INSN_MOVS] = lower_string, [INSN_STOS] = lower_string, [INSN_LODS] = lower_string,
    [INSN_CMPS] = lower_string, [INSN_SCAS] = lower_string, [INSN_INS] = lower_string,
    [INSN_OUTS] = lower_string,
    [INSN_NOP] = lower_nop, [INSN_LFENCE] = lower_nop, [INSN_MFENCE] = lower_nop,
    [INSN_SFENCE] = lower_nop, [INSN_CLFLUSH] = lower_nop, [INSN_CLFLUSHOPT] = lower_nop, [INSN_CLWB] = lower_nop,
    [INSN_LZCNT] = lower_bmi, [INSN_TZCNT] = lower_bmi, [INSN_MOVBE] = lower_bmi, [INSN_ADCX] = lower_bmi,
    [INSN_ADOX] = lower_bmi, [INSN_ANDN] = lower_bmi, [INSN_BLSR] = lower_bmi, [INSN_BLSMSK] = lower_bmi,
    [INSN_BLSI] = lower_bmi, [INSN_BEXTR] = lower_bmi, [INSN_BZHI] = lower_bmi, [INSN_PEXT] = lower_bmi,
    [INSN_PDEP] = lower_bmi, [INSN_MULX] = lower_bmi, [INSN_SHLX] = lower_bmi, [INSN_SARX] = lower_bmi,
    [INSN_SHRX] = lower_bmi, [INSN_RORX] = lower_bmi,
};
/* clang-format on */

bool lower_integer(struct op *op, const struct insn *in, uint32_t mode)
{
    return integer_families[in->id] && integer_families[in->id](op, in, mode);
}

/* Families of extensions: by instruction, else by what the row is made of. */
static bool lower_extension(struct op *op, const struct insn *in, uint32_t mode)
{
    if (lower_integer(op, in, mode))
        return true;
    return in->enc || in->row->flags & IF_SSE ? lower_wide(op, in, mode) : lower_extra(op, in, mode);
}

/* 8-byte operands have their immediates sign-extended to 64 bits by the decoder; smaller ones are cut by
 * their handlers. */
bool lower(struct op *op, const struct insn *in, unsigned off, uint32_t mode)
{
    *op = (struct op){
        .base = MEM_NO_REG,
        .index = MEM_NO_REG,
        .opsize = in->opsize,
        .prefixes = in->prefixes,
        .len = in->len,
        .addrsize = in->addrsize,
        .id = in->id,
        .seg = in->seg,
        .off = (uint16_t)off,
        .imm = in->imm,
    };
    if (insn_is_extension(in))
        return lower_extension(op, in, mode);
    if (in->row->flags & IF_X87)
        return lower_x87(op, in, mode);
    return lower_integer(op, in, mode) || lower_simd(op, in, mode) || lower_system(op, in, mode);
}
