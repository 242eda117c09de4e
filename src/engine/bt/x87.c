/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x87 and MMX: copied as they are, on the host's x87 registers, which are the guest's while `x87_used` is set.
 *
 * Only units whose key says that no exception is unmasked or pending have them (KEY_X87), so the host never traps. The status
 * word is fetched when generated code is left (bt_x87_sync()). The pointers to the last instruction and operand that FNSTENV and
 * its kin show are kept in software, as the interpreter does. What is known when the code is made waits in a note: it is
 * written on the way out, in stubs mostly, and in line only in front of a jump.
 */
#include "engine/bt/unit.h"
#include "engine/interp/fpu.h"

/* --- which ------------------------------------------------------------------------------------------------------ */

/* Those that leave the pointers alone. */
static bool is_control(const struct insn *in)
{
    switch (in->id) {
    case INSN_FLDCW:
    case INSN_FNSTCW:
    case INSN_FNSTSW:
    case INSN_FNSTSW_AX:
    case INSN_FNCLEX: return true;
    default: return !(in->row->flags & IF_X87);
    }
}

enum how x87_how(const struct bt *b, const struct insn *in, uint32_t key)
{
    if (!(key & KEY_X87) || !pass_on(b, ENGINE_PASS_SIMD))
        return HOW_BAIL;
    if (!(in->row->flags & IF_X87))
        return in->row->flags & IF_MMX && !(in->row->flags & (IF_SSE | IF_SYS)) && in->id != INSN_MASKMOVQ &&
                       copy_possible(in, key)
                   ? HOW_X87
                   : HOW_BAIL;
    switch (in->id) {
    case INSN_FNINIT: return HOW_BAIL;
    case INSN_FWAIT:
    case INSN_FNENI:
    case INSN_FNDISI:
    case INSN_FNSETPM: return HOW_NOP;
    default: break;
    }
    /* FDP is an offset; the address that is checked would have the segment's base in it. */
    bool far = key_code64(key) && in->op[0].kind == OPND_MEM && in->mem.seg >= SEG_FS;
    return in->row->flags & IF_SYS || far ? HOW_BAIL : HOW_X87;
}

/* --- notes ------------------------------------------------------------------------------------------------------- */

static void operand_flush(struct translation *t, struct x87_note *n)
{
    if (n->operand_pending) {
        emit_lea(&t->e, T2, n->operand);
        emit_store(&t->e, AT_VCPU(s.fpu.fdp), T2);
    }
    n->operand_pending = false;
}

static bool same_operand(const struct amode *x, const struct amode *y)
{
    return x->base == y->base && x->index == y->index && x->scale == y->scale && x->disp == y->disp;
}

bool x87_note_equal(const struct x87_note *x, const struct x87_note *y)
{
    return x->pending == y->pending && x->operand_pending == y->operand_pending &&
           (!x->pending || (x->off == y->off && x->fop == y->fop && x->seg == y->seg)) &&
           (!x->operand_pending || same_operand(&x->operand, &y->operand));
}

void x87_flush(struct translation *t, struct x87_note *n)
{
    operand_flush(t, n);
    if (!n->pending)
        return;
    if (t->plan.flat_cs)
        emit_load(&t->e, T2, AT_AREA(page));
    else
        emit_load(&t->e, T2, AT_AREA(ip_page));
    (t->plan.code64 ? emit_lea : emit_lea32)(&t->e, T2, amode_at(T2, n->off));
    emit_store(&t->e, AT_VCPU(s.fpu.fip), T2);
    emit_mem(&t->e, 0, 0xc7, 0, AT_AREA(x87_fop));
    emit_imm(&t->e, X87_NOTED | n->fop, 4);
    if (n->seg) {
        emit_mem(&t->e, 0, 0xc7, 0, AT_AREA(x87_seg));
        emit_imm(&t->e, n->seg, 4);
    }
    *n = (struct x87_note){ 0 };
}

static uint16_t written_host(const struct planned *p)
{
    uint16_t guest = p->fx.gpr_written, sp = 1u << RSP, host = guest & 0xfff & (uint16_t)~sp;
    return guest & sp || p->stack.used ? host | 1u << GUEST_RSP : host;
}

void x87_before(struct translation *t, const struct planned *p)
{
    struct x87_note *n = &t->x87;
    switch (p->how) {
    case HOW_NOP:
    case HOW_X87: /* notes its own */
        if (p->fx.gpr_written)
            operand_flush(t, n);
        return;
    case HOW_COPY:
    case HOW_SIMD:
    case HOW_LEA:
    case HOW_PUSH:
    case HOW_POP:
        if (n->operand_pending && written_host(p) >> n->operand.base & 1)
            operand_flush(t, n);
        return;
    default: x87_flush(t, n); return;
    }
}

/* The instruction is certain to be executed; its operand is at guest address `ea`. */
static void note(struct translation *t, const struct planned *p, struct amode ea)
{
    struct x87_note *n = &t->x87;
    if (is_control(&p->in))
        return;
    n->pending = true;
    n->off = p->off;
    n->fop = (uint16_t)((p->in.opcode - 0xd8u) << 8 | p->in.modrm);
    if (!p->mem.used)
        return;
    n->seg = (uint8_t)(p->in.mem.seg + 1);
    n->operand = ea;
    n->operand_pending = true;
    if (ea.base == T0)
        operand_flush(t, n);
}

/* --- instructions -------------------------------------------------------------------------------------------------- */

/* cmp dword [x87_used], 0; je load */
static void ready(struct translation *t)
{
    if (t->x87_ready)
        return;
    flags_away(t);
    emit_mem(&t->e, 0, 0x83, 7, AT_AREA(x87_used));
    emit_byte(&t->e, 0);
    struct stub *s = stub_new(t, STUB_X87, emit_jcc(&t->e, 4, emit_exec(&t->e)));
    s->retry = emit_exec(&t->e);
    t->delta_group = NO_GROUP; /* the gate uses T1 */
    t->x87_ready = true;
}

void x87_stub(struct translation *t, const struct stub *s)
{
    emit_call(&t->e, bt_exec_addr(t->b, t->b->gate_x87));
    emit_jmp(&t->e, s->retry);
}

/* Unmasking is left to the interpreter: then the key is another one. */
static void fldcw_emit(struct translation *t, struct amode host)
{
    struct emitter *e = &t->e;
    struct amode fcw = AT_VCPU(s.fpu.fcw);
    emit_mem(e, ENC_0F, 0xb7, T2, host); /* movzx */
    emit_reg(e, 0, 0xf7, 2, T2);         /* not */
    emit_reg(e, ENC_BYTE, 0xf6, 0, T2);  /* test */
    emit_byte(e, FCW_MASKS);
    stub_new(t, STUB_EXIT, emit_jcc(e, 5, emit_exec(e)))->info = exit_at(t, BT_BAIL, t->index);
    emit_reg(e, 0, 0xf7, 2, T2);
    emit_mem(e, ENC_66, 0x89, T2, fcw);
    emit_mem(e, 0, 0xd9, 5, fcw); /* fldcw */
    emit_mem(e, 0, 0xd9, 7, fcw); /* fnstcw: reserved bits are not as written */
}

static void fnstcw_emit(struct translation *t, struct amode host)
{
    emit_mem(&t->e, ENC_0F, 0xb7, T2, AT_VCPU(s.fpu.fcw));
    emit_mem(&t->e, ENC_66, 0x89, T2, host);
}

void x87_emit(struct translation *t, struct planned *p)
{
    const struct insn *in = &p->in;
    struct amode host = { 0 }, ea = { 0 };
    enum flag_use use = flag_use(p);
    ready(t);
    if (p->mem.used) {
        ea = ea_emit(t, in, &in->mem, p->end);
        host = access_emit(t, &p->mem, ea);
    }
    if (in->id == INSN_FLDCW)
        flags_away(t);
    if (use == FLAGS_NEEDED)
        flags_to_e(t);
    if (!(in->row->flags & IF_X87))
        encode_emit(t, p, host);
    else if (in->id == INSN_FLDCW)
        fldcw_emit(t, host);
    else if (in->id == INSN_FNSTCW)
        fnstcw_emit(t, host);
    else if (p->mem.used)
        emit_mem(&t->e, 0, in->opcode, in->modrm >> 3 & 7u, host);
    else
        emit_reg(&t->e, 0, in->opcode, in->modrm >> 3 & 7u, in->modrm & 7u);
    view_sites(t);
    if (use != FLAGS_UNUSED)
        flags_defined(t, p);
    note(t, p, ea);
}

/* --- called --------------------------------------------------------------------------------------------------------- */

bool bt_x87_ready(struct vcpu *v, uint64_t unused, uint32_t unused2)
{
    (void)unused, (void)unused2;
    if (!v->x87_live)
        fpu_load_x87(v);
    bt_area(v)->x87_used = 1;
    return true;
}

void bt_x87_fetch(struct vcpu *v)
{
    struct bt_area *a = bt_area(v);
    struct fpu_state *f = &v->s.fpu;
    __asm__ volatile("fnstsw %0" : "=m"(f->fsw));
    if (a->x87_fop) {
        f->fop = (uint16_t)(a->x87_fop & 0x7ff);
        f->fcs = v->s.seg[SEG_CS].sel;
    }
    if (a->x87_seg)
        f->fds = v->s.seg[a->x87_seg - 1].sel;
    a->x87_fop = a->x87_seg = a->x87_used = 0;
}
