/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System instructions without a call of the interpreter's handler, and bit tests in memory.
 *
 * Each does what the function of cpu/ does that is named; where that would raise, or do more, the unit is left in front of it.
 *
 * STAC and CLAC change who asks the TLB, so the unit behind them is one of another key: they end theirs, a gate goes over to the
 * context's sibling, and the way on is linked like any jump.
 */
#include "clock/clock.h"
#include "cpu/ops.h"
#include "engine/bt/unit.h"

static bool is_bit_string(const struct insn *in)
{
    bool bits = in->id == INSN_BT || in->id == INSN_BTS || in->id == INSN_BTR || in->id == INSN_BTC;
    return bits && in->op[0].kind == OPND_MEM && in->op[1].kind == OPND_REG;
}

/* One whose number is added to the address: in the whole address space, or below 4 GiB without a base. */
static bool bits_possible(const struct insn *in, uint32_t key)
{
    if (in->mem.disp != (int32_t)in->mem.disp || in->prefixes & IP_LOCK || key & KEY_VIEW)
        return false;
    return key_code64(key) ? in->addrsize == 8 : key & MODE_FLAT && in->addrsize == 4 && in->mem.seg < SEG_FS;
}

static unsigned key_index(uint32_t key) { return key >> KEY_INDEX_SHIFT & 3; }

/* STAC and CLAC where they change nothing but the flag. */
static enum how smap_how(const struct insn *in, uint32_t key)
{
    return (in->id == INSN_STAC) == (key_index(key) == MMU_SUPER_AC) ? HOW_INLINE : HOW_SWITCH;
}

/* A load that only sets a selector and its base: of a segment that is in use, and neither CS nor SS. */
static bool by_paragraph(const struct insn *in, uint32_t key)
{
    unsigned seg = in->op[0].reg;
    bool selector_is_base = !(key & MODE_PE) || key & MODE_VM86;
    return selector_is_base && key & MODE_64K && seg != SEG_CS && seg != SEG_SS &&
           (in->id != INSN_POP_SEG || in->opsize == 2);
}

/* Where a control register that is there to be read is; 0: none, or one with a meaning of its own. */
static int32_t cr_offset(unsigned n)
{
    switch (n) {
    case 0: return VCPU_OFF(s.cr0);
    case 2: return VCPU_OFF(s.cr2);
    case 3: return VCPU_OFF(s.cr3);
    case 4: return VCPU_OFF(s.cr4);
    default: return 0;
    }
}

enum how inline_how(const struct bt *b, const struct insn *in, uint32_t key)
{
    bool kernel = mode_cpl(key) == 0, code64 = key_code64(key); /* real mode, too */
    if (is_bit_string(in))
        return bits_possible(in, key) ? HOW_BITS : HOW_BAIL;
    if (!pass_on(b, ENGINE_PASS_SYSTEM))
        return HOW_BAIL;
    switch (in->id) {
    case INSN_CLI:
    case INSN_STI: return kernel ? HOW_INLINE : HOW_BAIL;
    case INSN_CLAC:
    case INSN_STAC: return kernel && key & KEY_FLAT_CS && !(key & KEY_VIEW) ? smap_how(in, key) : HOW_BAIL;
    case INSN_MOV_FROM_CR: return kernel && cr_offset(in->op[1].reg) ? HOW_INLINE : HOW_BAIL;
    case INSN_MOV_FROM_SEG: return in->op[0].kind == OPND_REG ? HOW_INLINE : HOW_BAIL;
    case INSN_SWAPGS: return kernel && code64 ? HOW_INLINE : HOW_BAIL;
    case INSN_RDFSBASE:
    case INSN_RDGSBASE:
    case INSN_WRFSBASE:
    case INSN_WRGSBASE: return code64 ? HOW_INLINE : HOW_BAIL;
    case INSN_RDTSC:
    case INSN_RDTSCP:
        return key & KEY_COUNT || clock_get_mode(b->v->clock) == CLOCK_DETERMINISTIC ? HOW_BAIL : HOW_INLINE;
    case INSN_SYSCALL:
    case INSN_SYSRET: return turn_how(in, key);
    case INSN_PUSHF: return key & MODE_VM86 ? HOW_BAIL : HOW_PUSHF;
    case INSN_MOV_TO_SEG:
    case INSN_POP_SEG: return by_paragraph(in, key) ? HOW_LOAD_SEG : HOW_BAIL;
    default: return HOW_BAIL;
    }
}

/* --- pieces ---------------------------------------------------------------------------------------------------- */

/* Byte of a register in memory that holds this flag, and the flag there. */
static struct amode byte_of(struct amode reg, uint64_t flag)
{
    reg.disp += __builtin_ctzll(flag) / 8;
    return reg;
}

static unsigned bit_of(uint64_t flag) { return 1u << __builtin_ctzll(flag) % 8; }

/* op byte [m], imm by the /n of group 1 (0x80), or test (0xf6 /0) */
static void byte_op(struct emitter *e, unsigned opcode, unsigned n, struct amode m, unsigned imm)
{
    emit_mem(e, 0, opcode, n, m);
    emit_byte(e, imm);
}

static void flag_set(struct emitter *e, struct amode reg, uint64_t flag)
{
    byte_op(e, 0x80, 1, byte_of(reg, flag), bit_of(flag));
}

static void flag_clear(struct emitter *e, struct amode reg, uint64_t flag)
{
    byte_op(e, 0x80, 4, byte_of(reg, flag), ~bit_of(flag) & 0xff);
}

static void flag_test(struct emitter *e, struct amode reg, uint64_t flag)
{
    byte_op(e, 0xf6, 0, byte_of(reg, flag), bit_of(flag));
}

enum { COND_EQUAL = 4, COND_NOT_EQUAL = 5 };

/* jcc: the interpreter does it after all. */
static void leave_if(struct translation *t, unsigned cond)
{
    struct stub *s = stub_new(t, STUB_EXIT, emit_jcc(&t->e, cond, emit_exec(&t->e)));
    s->info = exit_at(t, BT_BAIL, t->index);
}

/* The guest's register `n` becomes what T1 holds; `size` as the instruction writes it. */
static void write_reg(struct translation *t, unsigned n, unsigned size)
{
    unsigned h = host_of(n);
    if (size == 4)
        emit_mov32(&t->e, T1, T1);
    if (h == H_NONE)
        emit_mem(&t->e, size == 2 ? ENC_66 : ENC_W, 0x89, T1, at_gpr(n));
    else
        emit_reg(&t->e, size == 2 ? ENC_66 : ENC_W, 0x89, T1, h);
}

/* --- flags ------------------------------------------------------------------------------------------------------ */

/* cpu_cli() */
static void cli_emit(struct translation *t)
{
    flags_away(t);
    flag_clear(&t->e, AT_VCPU(s.rflags), FL_IF);
}

/*
 * cpu_sti(), where IF is clear and no interrupt waits. The shadow then matters only if the next instruction is not done
 * here: each of its exits tells. A request that comes meanwhile is seen by the poll that comes next.
 */
static void sti_emit(struct translation *t)
{
    struct emitter *e = &t->e;
    flags_away(t);
    flag_test(e, AT_VCPU(s.rflags), FL_IF);
    leave_if(t, COND_NOT_EQUAL);
    byte_op(e, 0x80, 7, AT_VCPU(interrupt_held), 0);
    leave_if(t, COND_NOT_EQUAL);
    flag_set(e, AT_VCPU(s.rflags), FL_IF);
    t->polled = false;
    t->shadowed = t->index + 2;
}

/* cpu_pushf_value(): VM and RF are clear in translated modes. */
void pushf_value_emit(struct translation *t)
{
    struct emitter *e = &t->e;
    emit_mem(e, ENC_0F, 0xb6, T0, amode_at(H_RSP, VCPU_OFF(s.cc))); /* movzx: OF */
    emit_reg(e, 0, 0xc1, 4, T0);
    emit_byte(e, 11);
    emit_mem(e, ENC_0F, 0xb6, T2, amode_at(H_RSP, VCPU_OFF(s.cc) + 1)); /* the others, as LAHF has them */
    emit_alu_imm(e, 4, T2, FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF, false);
    emit_lea(e, T0, amode_indexed(T0, T2, 0, 2));
    emit_mem(e, ENC_W, 0x0b, T0, AT_VCPU(s.rflags));
}

void resumed_emit(struct translation *t)
{
    flags_to_s(t);
    flag_clear(&t->e, AT_VCPU(s.rflags), FL_RF);
}

static void smap_flag(struct translation *t, const struct planned *p)
{
    (p->in.id == INSN_STAC ? flag_set : flag_clear)(&t->e, AT_VCPU(s.rflags), FL_AC);
}

bool bt_smap(struct vcpu *v, uint64_t unused, uint32_t on)
{
    struct bt_area *a = bt_area(v);
    struct bt_context *sibling = a->context->sibling;
    (void)unused;
    if (!sibling || !(v->s.cr4 & CR4_SMAP)) /* without SMAP both are the same */
        return false;
    if (on)
        cpu_stac(v);
    else
        cpu_clac(v);
    bt_context_over(bt_of(v), sibling);
    return true;
}

void switch_emit(struct translation *t, const struct planned *p)
{
    struct emitter *e = &t->e;
    flags_to_s(t);
    emit_mov_imm32(e, T1, p->in.id == INSN_STAC);
    emit_call(e, bt_exec_addr(t->b, t->b->gate_smap));
    t->delta_group = NO_GROUP;
    switch_to(t, p->end, t->key ^ KEY_SIBLING);
    struct stub *s = stub_new(t, STUB_EXIT, emit_jmp(e, emit_exec(e)));
    s->info = exit_at(t, BT_BAIL, t->index);
}

/* --- registers --------------------------------------------------------------------------------------------------- */

static struct amode segment_part(unsigned seg, size_t field)
{
    return amode_at(H_RSP, VCPU_OFF(s.seg) + (int32_t)(seg * sizeof(struct segment) + field));
}

/* With a limit of 64 KiB exactly the mode stays what it is. The selector that x87 notes must be the one at that time. */
void load_segment_emit(struct translation *t, unsigned seg)
{
    struct emitter *e = &t->e;
    flags_away(t);
    emit_mem(e, 0, 0x81, 7, segment_part(seg, offsetof(struct segment, limit))); /* cmp */
    emit_imm(e, 0xffff, 4);
    leave_if(t, COND_NOT_EQUAL);
    emit_mem(e, 0, 0x83, 7, AT_AREA(x87_used));
    emit_byte(e, 0);
    leave_if(t, COND_NOT_EQUAL);
    emit_mem(e, ENC_66, 0x89, T0, segment_part(seg, offsetof(struct segment, sel)));
    emit_reg(e, 0, 0xc1, 4, T0); /* shl */
    emit_byte(e, 4);
    emit_store(e, segment_part(seg, offsetof(struct segment, base)), T0);
    emit_store(e, segment_base(seg), T0);
}

/* cpu_swapgs() */
static void swapgs_emit(struct translation *t)
{
    struct emitter *e = &t->e;
    struct amode base = AT_VCPU(s.seg[SEG_GS].base), fast = AT_VCPU(sf[SEG_GS].base),
                 other = AT_VCPU(s.msr.kernel_gs_base);
    emit_load(e, T1, base);
    emit_load(e, T2, other);
    emit_store(e, other, T1);
    emit_store(e, base, T2);
    emit_store(e, fast, T2);
}

/* cpu_rdfsgsbase(), cpu_wrfsgsbase() */
static void segment_base_emit(struct translation *t, const struct planned *p)
{
    struct emitter *e = &t->e;
    const struct operand *o = &p->in.op[0];
    bool fs = p->in.id == INSN_RDFSBASE || p->in.id == INSN_WRFSBASE;
    struct amode base = fs ? AT_VCPU(s.seg[SEG_FS].base) : AT_VCPU(s.seg[SEG_GS].base);
    flags_away(t);
    flag_test(e, AT_VCPU(s.cr4), CR4_FSGSBASE);
    leave_if(t, COND_EQUAL);
    if (p->in.id == INSN_RDFSBASE || p->in.id == INSN_RDGSBASE) {
        emit_load(e, T1, base);
        write_reg(t, o->reg, o->size);
        return;
    }
    unsigned from = value_of(t, o->reg, T1);
    (o->size == 8 ? emit_mov : emit_mov32)(e, T1, from);
    emit_mov(e, T2, T1);
    emit_reg(e, ENC_W, 0xc1, 4, T2); /* shl, sar: is it canonical? */
    emit_byte(e, 16);
    emit_reg(e, ENC_W, 0xc1, 7, T2);
    emit_byte(e, 16);
    emit_reg(e, ENC_W, 0x3b, T2, T1);
    leave_if(t, COND_NOT_EQUAL);
    emit_store(e, base, T1);
    emit_store(e, fs ? AT_VCPU(sf[SEG_FS].base) : AT_VCPU(sf[SEG_GS].base), T1);
}

/* cpu_read_cr() */
static void read_cr_emit(struct translation *t, const struct planned *p)
{
    emit_load(&t->e, T1, amode_at(H_RSP, cr_offset(p->in.op[1].reg)));
    write_reg(t, p->in.op[0].reg, t->plan.code64 ? 8 : 4);
}

static void read_seg_emit(struct translation *t, const struct planned *p)
{
    emit_mem(&t->e, ENC_0F, 0xb7, T1,
             amode_at(H_RSP, VCPU_OFF(s.seg) + (int32_t)(p->in.op[1].reg * sizeof(struct segment) +
                                                         offsetof(struct segment, sel))));
    write_reg(t, p->in.op[0].reg, p->in.opsize);
}

bool bt_tsc(struct vcpu *v, uint64_t unused, uint32_t and_aux)
{
    (void)unused;
    if (and_aux)
        cpu_rdtscp(v);
    else
        cpu_rdtsc(v);
    return true;
}

/* The gate loads what it finds in v->s.gpr. */
static void tsc_emit(struct translation *t, const struct planned *p)
{
    struct emitter *e = &t->e;
    flags_away(t);
    if (mode_cpl(t->key) > 0) {
        flag_test(e, AT_VCPU(s.cr4), CR4_TSD);
        leave_if(t, COND_NOT_EQUAL);
    }
    emit_mov_imm32(e, T1, p->in.id == INSN_RDTSCP);
    emit_call(e, bt_exec_addr(t->b, t->b->gate_tsc));
}

void inline_emit(struct translation *t, const struct planned *p)
{
    switch (p->in.id) {
    case INSN_CLI: cli_emit(t); return;
    case INSN_STI: sti_emit(t); return;
    case INSN_CLAC:
    case INSN_STAC:
        flags_away(t);
        smap_flag(t, p);
        return;
    case INSN_SWAPGS: swapgs_emit(t); break;
    case INSN_MOV_FROM_CR: read_cr_emit(t, p); break;
    case INSN_MOV_FROM_SEG: read_seg_emit(t, p); break;
    case INSN_RDTSC:
    case INSN_RDTSCP: tsc_emit(t, p); break;
    default: segment_base_emit(t, p); break;
    }
    t->delta_group = NO_GROUP;
}

bool inline_is_called(const struct unit_plan *p, unsigned i)
{
    const struct planned *x = &p->insns[i];
    if (x->how != HOW_INLINE || x->in.id != INSN_STI)
        return false;
    return i + 1 >= p->count || is_conditional(x[1].how) || x[1].how == HOW_SWITCH;
}

unsigned inline_moves_base(const struct planned *p)
{
    if (p->how == HOW_LOAD_SEG)
        return p->in.op[0].reg;
    switch (p->how == HOW_INLINE ? p->in.id : INSN_INVALID) {
    case INSN_WRFSBASE: return SEG_FS;
    case INSN_SWAPGS:
    case INSN_WRGSBASE: return SEG_GS;
    default: return SEG_COUNT;
    }
}

/* --- bit tests ---------------------------------------------------------------------------------------------------- */

static unsigned size_enc(unsigned size) { return size == 8 ? ENC_W : size == 2 ? ENC_66 : 0; }

/* T0 = address of the word that holds the bit: the number counts from the operand, in both directions. */
static void bit_address(struct translation *t, const struct planned *p)
{
    struct emitter *e = &t->e;
    const struct operand *number = &p->in.op[1];
    unsigned size = number->size, h = host_of(number->reg), log = (unsigned)__builtin_ctz(size);
    struct amode ea = ea_emit(t, &p->in, &p->in.mem, p->end);
    unsigned enc = size == 2 ? ENC_0F | ENC_W : ENC_W, opcode = size == 8 ? 0x8b : size == 4 ? 0x63 : 0xbf;
    if (h == H_NONE)
        emit_mem(e, enc, opcode, T1, at_gpr(number->reg));
    else
        emit_reg(e, enc, opcode, T1, h);
    emit_reg(e, ENC_W, 0xc1, 7, T1);
    emit_byte(e, log + 3);
    ea.index = T1;
    ea.scale = (uint8_t)log;
    (t->plan.code64 ? emit_lea : emit_lea32)(e, T0, ea);
    t->delta_group = NO_GROUP;
}

static void bits_plain(struct translation *t, const struct planned *p, struct amode host)
{
    struct emitter *e = &t->e;
    const struct operand *number = &p->in.op[1];
    unsigned size = number->size, opcode = p->in.row->opcode;
    emit_lea(e, T0, host);
    host = amode_at(T0, 0);
    emit_mem(e, size == 2 ? ENC_0F : size_enc(size), size == 2 ? 0xb7 : 0x8b, T2, host);
    emit_reg(e, ENC_0F | size_enc(size), opcode, value_of(t, number->reg, T1), T2);
    if (p->in.id != INSN_BT)
        emit_mem(e, size_enc(size), 0x89, T2, host);
}

void bits_emit(struct translation *t, struct planned *p)
{
    flags_away(t);
    bit_address(t, p);
    struct amode host = access_emit(t, &p->mem, amode_at(T0, 0));
    bool seen = flags_observed_after(&t->plan, t->index);
    if (seen)
        flags_to_e(t);
    bits_plain(t, p, host);
    t->delta_group = NO_GROUP;
    if (seen)
        flags_defined(t, p);
}
