/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Effects of an instruction: defaults from its operands and the row's flags, then what its id adds.
 *
 *   operand 1   read (IF_RO), written (IF_WR1) or both; the table below overrides where a row says neither
 *   others      read, like the registers of an address
 *   the rest    status flags and implicit registers: the table below, by id; an id not in it has none
 */
#include "isa/effects.h"

/* Status flags (SDM 1 3.4.3.1) and groups of them. */
enum {
    C = 1,
    P = 4,
    A = 0x10,
    Z = 0x40,
    S = 0x80,
    O = 0x800,
    STATUS = C | P | A | Z | S | O,
    NOT_C = STATUS & ~C,
    NOT_Z = STATUS & ~Z,
    NOT_O = STATUS & ~O,
};

/* General registers as bits. */
enum {
    AX = 1 << 0,
    CX = 1 << 1,
    DX = 1 << 2,
    BX = 1 << 3,
    SP = 1 << 4,
    BP = 1 << 5,
    SI = 1 << 6,
    DI = 1 << 7,
    R11 = 1 << 11,
    LOW8 = 0xff,
};

/* What the defaults do not say. */
enum {
    OP1_READ = 1,      /* operand 1 is only read */
    OP1_WRITE = 2,     /* operand 1 is only written */
    OP2_BOTH = 4,      /* operand 2 is written too */
    NO_ACCESS = 8,     /* operands are named, but nothing is read or written */
    BY_CONDITION = 16, /* reads the flags of its condition */
    BY_COUNT = 32,     /* the last operand is a count, and 0 changes no flags */
    BY_COUNT_OF = 64,  /* and OF comes of a count of 1 only */
    REPEATS = 128,     /* REP: counted in CX, perhaps 0 times */
    BYTE_IN_AX = 256,  /* with a byte operand DX has no part */
};

struct facts {
    uint16_t read, written, maybe; /* status flags */
    uint16_t in, out;              /* implicit registers; out: 32 or 64 bits, or read as well */
    uint16_t out_sized;            /* implicit registers written at operand size */
    uint16_t rules;
};

/* A flag that the manual calls undefined is `written` only where no processor keeps it: AF of logic and of
 * shifts, OF of shifts by more than 1. Others are `maybe`: AMD's processors keep the undefined flags of
 * multiplications, divisions and bit tests. */
/* clang-format off */
static const struct facts facts[INSN_ID_COUNT] = {
    /* arithmetic and logic */
    [INSN_ADD] = { .written = STATUS }, [INSN_SUB] = { .written = STATUS },
    [INSN_CMP] = { .written = STATUS }, [INSN_NEG] = { .written = STATUS },
    [INSN_ADC] = { .read = C, .written = STATUS }, [INSN_SBB] = { .read = C, .written = STATUS },
    [INSN_OR] = { .written = STATUS }, [INSN_AND] = { .written = STATUS },
    [INSN_XOR] = { .written = STATUS }, [INSN_TEST] = { .written = STATUS },
    [INSN_INC] = { .written = NOT_C }, [INSN_DEC] = { .written = NOT_C },
    [INSN_MUL] = { .written = C | O, .maybe = S | Z | A | P, .in = AX, .out_sized = AX | DX,
                   .rules = BYTE_IN_AX },
    [INSN_IMUL1] = { .written = C | O, .maybe = S | Z | A | P, .in = AX, .out_sized = AX | DX,
                     .rules = BYTE_IN_AX },
    [INSN_IMUL2] = { .written = C | O, .maybe = S | Z | A | P },
    [INSN_IMUL3] = { .written = C | O, .maybe = S | Z | A | P },
    [INSN_DIV] = { .maybe = STATUS, .in = AX | DX, .out_sized = AX | DX, .rules = BYTE_IN_AX },
    [INSN_IDIV] = { .maybe = STATUS, .in = AX | DX, .out_sized = AX | DX, .rules = BYTE_IN_AX },
    [INSN_CBW] = { .in = AX, .out_sized = AX },
    [INSN_CWD] = { .in = AX, .out_sized = DX },
    [INSN_XLAT] = { .in = AX | BX, .out = AX },
    [INSN_DAA] = { .read = C | A, .written = NOT_O, .maybe = O, .in = AX, .out = AX },
    [INSN_DAS] = { .read = C | A, .written = NOT_O, .maybe = O, .in = AX, .out = AX },
    [INSN_AAA] = { .read = A, .written = C | A, .maybe = O | S | Z | P, .in = AX, .out = AX },
    [INSN_AAS] = { .read = A, .written = C | A, .maybe = O | S | Z | P, .in = AX, .out = AX },
    [INSN_AAM] = { .written = S | Z | P, .maybe = O | A | C, .in = AX, .out = AX },
    [INSN_AAD] = { .written = S | Z | P, .maybe = O | A | C, .in = AX, .out = AX },
    [INSN_SALC] = { .read = C, .in = AX, .out = AX },
    /* shifts */
    [INSN_SHL] = { .written = STATUS, .rules = BY_COUNT },
    [INSN_SHR] = { .written = STATUS, .rules = BY_COUNT },
    [INSN_SAR] = { .written = STATUS, .rules = BY_COUNT },
    [INSN_ROL] = { .written = C | O, .rules = BY_COUNT | BY_COUNT_OF },
    [INSN_ROR] = { .written = C | O, .rules = BY_COUNT | BY_COUNT_OF },
    [INSN_RCL] = { .read = C, .written = C | O, .rules = BY_COUNT | BY_COUNT_OF },
    [INSN_RCR] = { .read = C, .written = C | O, .rules = BY_COUNT | BY_COUNT_OF },
    [INSN_SHLD] = { .written = C | Z | S | P | O, .maybe = A, .rules = BY_COUNT | BY_COUNT_OF },
    [INSN_SHRD] = { .written = C | Z | S | P | O, .maybe = A, .rules = BY_COUNT | BY_COUNT_OF },
    /* bits */
    [INSN_BT] = { .written = C, .maybe = NOT_C }, [INSN_BTS] = { .written = C, .maybe = NOT_C },
    [INSN_BTR] = { .written = C, .maybe = NOT_C }, [INSN_BTC] = { .written = C, .maybe = NOT_C },
    [INSN_BSF] = { .written = Z, .maybe = NOT_Z }, [INSN_BSR] = { .written = Z, .maybe = NOT_Z },
    [INSN_POPCNT] = { .written = STATUS },
    /* exchanges */
    [INSN_XCHG] = { .rules = OP2_BOTH },
    [INSN_XADD] = { .written = STATUS, .rules = OP2_BOTH },
    [INSN_CMPXCHG] = { .written = STATUS, .in = AX, .out = AX },
    [INSN_CMPXCHG8B] = { .written = Z, .in = AX | DX | BX | CX, .out = AX | DX },
    /* flags */
    [INSN_CLC] = { .written = C }, [INSN_STC] = { .written = C }, [INSN_CMC] = { .read = C, .written = C },
    [INSN_SAHF] = { .written = NOT_O, .in = AX },
    [INSN_LAHF] = { .read = NOT_O, .in = AX, .out = AX },
    [INSN_PUSHF] = { .read = STATUS, .in = SP, .out = SP },
    [INSN_POPF] = { .written = STATUS, .in = SP, .out = SP },
    [INSN_CMOVCC] = { .rules = BY_CONDITION }, [INSN_SETCC] = { .rules = BY_CONDITION },
    [INSN_JCC] = { .rules = BY_CONDITION },
    /* stack and control: with a 16-bit stack only SP changes, so RSP is always read too */
    [INSN_PUSH] = { .in = SP, .out = SP }, [INSN_POP] = { .in = SP, .out = SP },
    [INSN_PUSH_SEG] = { .in = SP, .out = SP }, [INSN_POP_SEG] = { .in = SP, .out = SP },
    [INSN_PUSHA] = { .in = LOW8, .out = SP },
    [INSN_POPA] = { .in = SP, .out = SP, .out_sized = LOW8 & ~SP },
    [INSN_ENTER] = { .in = SP | BP, .out = SP | BP }, [INSN_LEAVE] = { .in = SP | BP, .out = SP | BP },
    [INSN_CALL] = { .in = SP, .out = SP }, [INSN_CALL_IND] = { .in = SP, .out = SP },
    [INSN_RET] = { .in = SP, .out = SP },
    [INSN_CALL_FAR] = { .in = SP, .out = SP }, [INSN_CALL_FAR_IND] = { .in = SP, .out = SP },
    [INSN_RET_FAR] = { .in = SP, .out = SP },
    [INSN_LOOP] = { .in = CX, .out = CX }, [INSN_JCXZ] = { .in = CX },
    [INSN_LOOPE] = { .read = Z, .in = CX, .out = CX }, [INSN_LOOPNE] = { .read = Z, .in = CX, .out = CX },
    [INSN_INT3] = { .read = STATUS, .in = SP, .out = SP },
    [INSN_INT] = { .read = STATUS, .in = SP, .out = SP },
    [INSN_INT1] = { .read = STATUS, .in = SP, .out = SP },
    [INSN_INTO] = { .read = STATUS, .in = SP, .out = SP },
    [INSN_IRET] = { .written = STATUS, .in = SP, .out = SP },
    [INSN_SYSCALL] = { .read = STATUS, .maybe = STATUS, .out = CX | R11 },
    [INSN_SYSRET] = { .written = STATUS, .in = CX | R11 },
    [INSN_SYSENTER] = { .out = SP }, [INSN_SYSEXIT] = { .in = CX | DX, .out = SP },
    /* strings: RSI and RDI are written at address size, so always read too */
    [INSN_MOVS] = { .in = SI | DI, .out = SI | DI, .rules = REPEATS },
    [INSN_CMPS] = { .written = STATUS, .in = SI | DI, .out = SI | DI, .rules = REPEATS },
    [INSN_STOS] = { .in = AX | DI, .out = DI, .rules = REPEATS },
    [INSN_LODS] = { .in = SI, .out = SI, .out_sized = AX, .rules = REPEATS },
    [INSN_SCAS] = { .written = STATUS, .in = AX | DI, .out = DI, .rules = REPEATS },
    [INSN_INS] = { .in = DX | DI, .out = DI, .rules = REPEATS },
    [INSN_OUTS] = { .in = DX | SI, .out = SI, .rules = REPEATS },
    /* nothing happens to the operands */
    [INSN_NOP] = { .rules = NO_ACCESS }, [INSN_UD] = { .rules = NO_ACCESS },
    /* ports and segments */
    [INSN_IN] = { .rules = OP1_WRITE }, [INSN_OUT] = { .rules = OP1_READ },
    [INSN_MOV_FROM_SEG] = { .rules = OP1_WRITE },
    [INSN_LES] = { .rules = OP1_WRITE }, [INSN_LDS] = { .rules = OP1_WRITE },
    [INSN_LSS] = { .rules = OP1_WRITE }, [INSN_LFS] = { .rules = OP1_WRITE },
    [INSN_LGS] = { .rules = OP1_WRITE },
    [INSN_ARPL] = { .written = Z }, [INSN_VERR] = { .written = Z }, [INSN_VERW] = { .written = Z },
    [INSN_LAR] = { .written = Z }, [INSN_LSL] = { .written = Z },
    /* system */
    [INSN_MOV_FROM_CR] = { .maybe = STATUS, .rules = OP1_WRITE }, [INSN_MOV_TO_CR] = { .maybe = STATUS },
    [INSN_MOV_FROM_DR] = { .maybe = STATUS, .rules = OP1_WRITE }, [INSN_MOV_TO_DR] = { .maybe = STATUS },
    [INSN_RDFSBASE] = { .rules = OP1_WRITE }, [INSN_RDGSBASE] = { .rules = OP1_WRITE },
    [INSN_WRFSBASE] = { .rules = OP1_READ }, [INSN_WRGSBASE] = { .rules = OP1_READ },
    [INSN_INVPCID] = { .rules = OP1_READ },
    [INSN_CPUID] = { .in = AX | CX, .out = AX | BX | CX | DX },
    [INSN_RDTSC] = { .out = AX | DX }, [INSN_RDTSCP] = { .out = AX | CX | DX },
    [INSN_RDPMC] = { .in = CX, .out = AX | DX }, [INSN_RDMSR] = { .in = CX, .out = AX | DX },
    [INSN_WRMSR] = { .in = AX | CX | DX },
    [INSN_XGETBV] = { .in = CX, .out = AX | DX }, [INSN_XSETBV] = { .in = AX | CX | DX },
    [INSN_XSAVE] = { .in = AX | DX }, [INSN_XRSTOR] = { .in = AX | DX },
    /* SSE; a store of MOVSS or MOVSD replaces its memory, a move between registers keeps the upper part */
    [INSN_MOVSS] = { .rules = OP1_WRITE }, [INSN_MOVSD] = { .rules = OP1_WRITE },
    [INSN_UCOMISS] = { .written = STATUS }, [INSN_UCOMISD] = { .written = STATUS },
    [INSN_COMISS] = { .written = STATUS }, [INSN_COMISD] = { .written = STATUS },
    [INSN_PTEST] = { .written = STATUS },
    [INSN_PCMPESTRM] = { .written = STATUS, .in = AX | DX },
    [INSN_PCMPESTRI] = { .written = STATUS, .in = AX | DX, .out = CX },
    [INSN_PCMPISTRM] = { .written = STATUS },
    [INSN_PCMPISTRI] = { .written = STATUS, .out = CX },
    [INSN_MASKMOVQ] = { .in = DI }, [INSN_MASKMOVDQU] = { .in = DI },
    /* x87; an unmasked invalid operand leaves the flags of a comparison (SDM 2A FCOMI) */
    [INSN_FCOMI] = { .maybe = STATUS }, [INSN_FCOMIP] = { .maybe = STATUS },
    [INSN_FUCOMI] = { .maybe = STATUS }, [INSN_FUCOMIP] = { .maybe = STATUS },
    [INSN_FCMOVB] = { .read = C }, [INSN_FCMOVNB] = { .read = C },
    [INSN_FCMOVE] = { .read = Z }, [INSN_FCMOVNE] = { .read = Z },
    [INSN_FCMOVBE] = { .read = C | Z }, [INSN_FCMOVNBE] = { .read = C | Z },
    [INSN_FCMOVU] = { .read = P }, [INSN_FCMOVNU] = { .read = P },
    [INSN_FNSTSW_AX] = { .in = AX, .out = AX },
    /* extensions on general registers */
    [INSN_LZCNT] = { .written = C | Z, .maybe = O | S | A | P },
    [INSN_TZCNT] = { .written = C | Z, .maybe = O | S | A | P },
    [INSN_ADCX] = { .read = C, .written = C }, [INSN_ADOX] = { .read = O, .written = O },
    [INSN_ANDN] = { .written = C | Z | S | O, .maybe = A | P },
    [INSN_BLSR] = { .written = C | Z | S | O, .maybe = A | P },
    [INSN_BLSMSK] = { .written = C | Z | S | O, .maybe = A | P },
    [INSN_BLSI] = { .written = C | Z | S | O, .maybe = A | P },
    [INSN_BEXTR] = { .written = C | Z | O, .maybe = S | A | P },
    [INSN_BZHI] = { .written = C | Z | S | O, .maybe = A | P },
    [INSN_MULX] = { .in = DX, .rules = OP2_BOTH },
    [INSN_RDRAND] = { .written = STATUS }, [INSN_RDSEED] = { .written = STATUS },
    /* vectors and opmasks */
    [INSN_VMASKMOVDQU] = { .in = DI },
    [INSN_VUCOMISS] = { .written = STATUS }, [INSN_VUCOMISD] = { .written = STATUS },
    [INSN_VCOMISS] = { .written = STATUS }, [INSN_VCOMISD] = { .written = STATUS },
    [INSN_VPTEST] = { .written = STATUS }, [INSN_VTESTPS] = { .written = STATUS },
    [INSN_VTESTPD] = { .written = STATUS },
    [INSN_KORTESTB] = { .written = STATUS }, [INSN_KORTESTW] = { .written = STATUS },
    [INSN_KORTESTD] = { .written = STATUS }, [INSN_KORTESTQ] = { .written = STATUS },
    [INSN_KTESTB] = { .written = STATUS }, [INSN_KTESTW] = { .written = STATUS },
    [INSN_KTESTD] = { .written = STATUS }, [INSN_KTESTQ] = { .written = STATUS },
    [INSN_VPCMPESTRM] = { .written = STATUS, .in = AX | DX },
    [INSN_VPCMPESTRI] = { .written = STATUS, .in = AX | DX, .out = CX },
    [INSN_VPCMPISTRM] = { .written = STATUS },
    [INSN_VPCMPISTRI] = { .written = STATUS, .out = CX },
};
/* clang-format on */

/* Flags that condition n / 2 looks at (SDM 1 Appendix B); odd conditions are the negations. */
static const uint16_t condition_flags[8] = { O, C, Z, C | Z, S, P, S | O, Z | S | O };

static void move_to_maybe(struct insn_effects *e, uint16_t flags)
{
    e->flags_maybe |= e->flags_written & flags;
    e->flags_written &= (uint16_t)~flags;
}

/* Shifts and rotates: flags by what is known of the count. */
static void apply_count(struct insn_effects *e, const struct insn *in, uint16_t rules)
{
    const struct operand *count = in->op[2].kind ? &in->op[2] : &in->op[1];
    if (count->kind != OPND_IMM) {
        move_to_maybe(e, STATUS);
        return;
    }
    unsigned n = in->imm & (in->opsize == 8 ? 63 : 31);
    if (n == 0)
        e->flags_read = e->flags_written = e->flags_maybe = 0;
    else if (n > in->opsize * 8u && in->op[2].kind) /* SHLD by more than its width: all is undefined */
        move_to_maybe(e, STATUS);
    else if (n > 1 && rules & BY_COUNT_OF)
        move_to_maybe(e, O);
}

static void apply_repeat(struct insn_effects *e, const struct insn *in)
{
    if (!(in->prefixes & (IP_REP | IP_REPNE)))
        return;
    e->gpr_written |= CX;
    e->gpr_read |= e->gpr_written; /* none is, when the count is 0 */
    move_to_maybe(e, STATUS);
}

static void read_operand(struct insn_effects *e, const struct operand *o)
{
    if (o->kind == OPND_REG || o->kind == OPND_REGH)
        e->gpr_read |= (uint16_t)(1u << o->reg);
    else if (o->kind == OPND_MEM)
        e->mem_read = o->size;
}

static void write_operand(struct insn_effects *e, const struct operand *o)
{
    if (o->kind == OPND_REG || o->kind == OPND_REGH) {
        e->gpr_written |= (uint16_t)(1u << o->reg);
        if (o->size < 4)
            e->gpr_read |= (uint16_t)(1u << o->reg);
    } else if (o->kind == OPND_MEM) {
        e->mem_write = o->size;
    }
}

static void apply_operands(struct insn_effects *e, const struct insn *in, uint16_t rules)
{
    bool write_only = in->row->flags & IF_WR1 || rules & OP1_WRITE;
    bool read_only = in->row->flags & IF_RO || rules & OP1_READ;
    if (!write_only)
        read_operand(e, &in->op[0]);
    if (!read_only)
        write_operand(e, &in->op[0]);
    read_operand(e, &in->op[1]);
    read_operand(e, &in->op[2]);
    if (rules & OP2_BOTH)
        write_operand(e, &in->op[1]);
    for (unsigned i = 0; i < 3; i++) {
        if (in->op[i].kind != OPND_MEM)
            continue;
        if (in->mem.base < MEM_RIP)
            e->gpr_read |= (uint16_t)(1u << in->mem.base);
        if (in->mem.index < MEM_RIP && !in->vsib)
            e->gpr_read |= (uint16_t)(1u << in->mem.index);
    }
}

static bool state_image(const struct insn_row *row) { return row->op[0] == Mstate; }

void insn_effects(struct insn_effects *e, const struct insn *in)
{
    const struct facts *f = &facts[in->id];
    *e = (struct insn_effects){
        .flags_read = f->read,
        .flags_written = f->written,
        .flags_maybe = f->maybe,
        .gpr_read = f->in,
        .gpr_written = f->out | f->out_sized,
        .unknown = in->row->flags & IF_SYS || state_image(in->row),
    };
    if (in->opsize < 4)
        e->gpr_read |= f->out_sized;
    if (f->rules & BYTE_IN_AX && in->opsize == 1) {
        e->gpr_read &= (uint16_t)~DX;
        e->gpr_written &= (uint16_t)~DX;
    }
    if (!(f->rules & NO_ACCESS))
        apply_operands(e, in, f->rules);
    if (f->rules & BY_CONDITION)
        e->flags_read = condition_flags[in->cond >> 1];
    if (f->rules & BY_COUNT)
        apply_count(e, in, f->rules);
    if (f->rules & REPEATS)
        apply_repeat(e, in);
}
