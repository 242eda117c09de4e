/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions on single flags (CLC, STC, CMC, CLD, STD, LAHF, SAHF) and decimal arithmetic (DAA ... AAD,
 * SALC). */
#include "engine/interp/operand.h"

HANDLER(clc)
{
    v->s.cc &= (uint16_t)~CC_CF;
    return NEXT(v, op);
}
HANDLER(stc)
{
    v->s.cc |= CC_CF;
    return NEXT(v, op);
}
HANDLER(cmc)
{
    v->s.cc ^= CC_CF;
    return NEXT(v, op);
}
HANDLER(cld)
{
    v->s.rflags &= ~(uint64_t)FL_DF;
    return NEXT(v, op);
}
HANDLER(std)
{
    v->s.rflags |= FL_DF;
    return NEXT(v, op);
}

HANDLER(lahf)
{
    set8(v, RAX * 8 + 1, (uint8_t)(v->s.cc >> 8));
    return NEXT(v, op);
}

HANDLER(sahf)
{
    uint16_t ah = get8(v, RAX * 8 + 1) & (FL_SF | FL_ZF | FL_AF | FL_PF | FL_CF);
    v->s.cc = (uint16_t)((ah | 2) << 8 | (v->s.cc & CC_OF));
    return NEXT(v, op);
}

bool lower_flag(struct op *op, const struct insn *in, uint32_t mode)
{
    (void)mode;
    switch (in->id) {
    case INSN_CLC: op->run = clc; break;
    case INSN_STC: op->run = stc; break;
    case INSN_CMC: op->run = cmc; break;
    case INSN_CLD: op->run = cld; break;
    case INSN_STD: op->run = std; break;
    case INSN_LAHF: op->run = lahf; break;
    default: op->run = sahf; break;
    }
    return true;
}

/* --- decimal arithmetic: a 64-bit host cannot run it, so by the manual's pseudo code -------------------- */

/* SF, ZF and PF of a byte as the host gives them; CF, AF and OF by arguments. */
static uint16_t byte_flags(uint8_t val, bool carry, bool adjust, bool overflow)
{
    uint16_t cc;
    __asm__("testb %1, %1" CC_SAVE : "=&a"(cc) : "r"(val));
    cc &= CC_SF | CC_ZF | CC_PF | 0x200;
    return (uint16_t)(cc | (carry ? CC_CF : 0) | (adjust ? CC_AF : 0) | (overflow ? CC_OF : 0));
}

/* DAA and DAS (SDM 2A). OF is undefined: left clear. */
static void decimal_adjust(struct vcpu *v, bool subtract)
{
    uint8_t al = (uint8_t)v->s.gpr[RAX], old = al;
    bool carry = v->s.cc & CC_CF, adjust = v->s.cc & CC_AF, carry_out = false;
    if ((al & 15) > 9 || adjust) {
        carry_out = carry || (subtract ? al < 6 : al > 0xff - 6);
        al = (uint8_t)(subtract ? al - 6 : al + 6);
        adjust = true;
    }
    if (old > 0x99 || carry) {
        al = (uint8_t)(subtract ? al - 0x60 : al + 0x60);
        carry_out = true;
    }
    set8(v, RAX * 8, al);
    v->s.cc = byte_flags(al, carry_out, adjust, false);
}

HANDLER(daa)
{
    decimal_adjust(v, false);
    return NEXT(v, op);
}
HANDLER(das)
{
    decimal_adjust(v, true);
    return NEXT(v, op);
}

/* AAA and AAS. OF, SF, ZF and PF are undefined: as of the resulting AL. */
static void ascii_adjust(struct vcpu *v, bool subtract)
{
    uint16_t ax = (uint16_t)v->s.gpr[RAX];
    bool adjust = (ax & 15) > 9 || v->s.cc & CC_AF;
    if (adjust)
        ax = (uint16_t)(subtract ? ax - 0x106 : ax + 0x106);
    ax &= 0xff0f;
    set16(v, RAX, ax);
    v->s.cc = byte_flags((uint8_t)ax, adjust, adjust, false);
}

HANDLER(aaa)
{
    ascii_adjust(v, false);
    return NEXT(v, op);
}
HANDLER(aas)
{
    ascii_adjust(v, true);
    return NEXT(v, op);
}

/* CF, AF and OF are undefined for AAM and AAD: clear. */
HANDLER(aam)
{
    uint8_t al = (uint8_t)v->s.gpr[RAX], base = (uint8_t)op->imm;
    if (!base)
        cpu_raise(v, VEC_DE);
    set16(v, RAX, (uint16_t)(al / base << 8 | al % base));
    v->s.cc = byte_flags(al % base, false, false, false);
    return NEXT(v, op);
}

HANDLER(aad)
{
    uint16_t ax = (uint16_t)v->s.gpr[RAX];
    uint8_t al = (uint8_t)(ax + (ax >> 8) * (uint8_t)op->imm);
    set16(v, RAX, al);
    v->s.cc = byte_flags(al, false, false, false);
    return NEXT(v, op);
}

HANDLER(salc)
{
    set8(v, RAX * 8, v->s.cc & CC_CF ? 0xff : 0);
    return NEXT(v, op);
}

bool lower_bcd(struct op *op, const struct insn *in, uint32_t mode)
{
    (void)mode;
    switch (in->id) {
    case INSN_DAA: op->run = daa; break;
    case INSN_DAS: op->run = das; break;
    case INSN_AAA: op->run = aaa; break;
    case INSN_AAS: op->run = aas; break;
    case INSN_AAM: op->run = aam; break;
    case INSN_AAD: op->run = aad; break;
    default: op->run = salc; break;
    }
    return true;
}
