/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x87: the guest's stack stays in the host's registers, each instruction runs as itself (fpu.h). The register forms' two bytes and the
 * memory forms with [rsi] are assembled here, all 576 of them; which ones a guest may reach is the instruction table's affair.
 *
 * An unmasked exception stays pending in the status word until the next waiting instruction; every one here checks for it first, so
 * the host never traps.
 */
#include "engine/interp/fpu.h"

#define STUB_STRIDE 4

/* Register forms: x87_reg_stubs + ((opcode - D8) * 64 + modrm - C0) * 4. Memory forms: x87_mem_stubs + ((opcode - D8) * 8 + reg) * 4. */
__asm__(".text\n .p2align 4\n"
        "x87_reg_stubs:\n"
        ".set x87_op, 0xd8\n"
        ".rept 8\n"
        "  .set x87_rm, 0xc0\n"
        "  .rept 64\n"
        "    .byte x87_op, x87_rm, 0xc3, 0x90\n"
        "    .set x87_rm, x87_rm + 1\n"
        "  .endr\n"
        "  .set x87_op, x87_op + 1\n"
        ".endr\n"
        "x87_mem_stubs:\n"
        ".set x87_op, 0xd8\n"
        ".rept 8\n"
        "  .set x87_rm, 0x06\n"
        "  .rept 8\n"
        "    .byte x87_op, x87_rm, 0xc3, 0x90\n"
        "    .set x87_rm, x87_rm + 8\n"
        "  .endr\n"
        "  .set x87_op, x87_op + 1\n"
        ".endr\n");
extern const char x87_reg_stubs[] __attribute__((visibility("hidden")));
extern const char x87_mem_stubs[] __attribute__((visibility("hidden")));

/* void x87_call(const void *stub, void *mem, uint16_t *cc, uint16_t *fsw): status flags in (FCMOVcc) and out (FCOMI). */
void x87_call(const void *stub, void *mem, uint16_t *cc, uint16_t *fsw);
__asm__(".globl x87_call\n .hidden x87_call\n .type x87_call, @function\n .p2align 4\n"
        "x87_call:\n"
        "  movzwl (%rdx), %eax\n"
        "  add $0x7f, %al\n"
        "  sahf\n"
        "  call *%rdi\n"
        "  lahf\n"
        "  seto %al\n"
        "  mov %ax, (%rdx)\n"
        "  fnstsw (%rcx)\n"
        "  ret\n"
        ".size x87_call, . - x87_call\n");

static inline void check_available(struct vcpu *v)
{
    if (unlikely(v->s.cr0 & (CR0_EM | CR0_TS)))
        cpu_check_fpu(v);
}

static inline void check_waiting(struct vcpu *v)
{
    check_available(v);
    if (unlikely(v->s.fpu.fsw & FSW_ES))
        cpu_check_mf(v);
}

/* op->r1 = opcode - D8, op->r2 = ModRM: what FOP keeps. */
static inline void note_pointers(struct vcpu *v, const struct op *op)
{
    struct fpu_state *f = &v->s.fpu;
    f->fop = (uint16_t)(op->r1 << 8 | op->r2);
    f->fip = fpu_insn_rip(v, op);
    f->fcs = v->s.seg[SEG_CS].sel;
}

#define FCW_MASKS 0x3fu
#define FSW_B 0x8000u

/* An unmasked exception is pending and ignored (CR0.NE clear, or FNCLEX). The host would trap on it, so the
 * instruction runs with all masked, and what is pending is worked out again from flags and masks. */
static __attribute__((cold, noinline)) void execute_ignoring(struct vcpu *v, const struct op *op, void *mem)
{
    struct fpu_state *f = &v->s.fpu;
    fpu_sync_x87(v);
    uint16_t masks = f->fcw & FCW_MASKS;
    f->fcw |= FCW_MASKS;
    fpu_load_x87(v);
    x87_call(op->aux, mem, &v->s.cc, &f->fsw);
    fpu_sync_x87(v);
    if (op->id != INSN_FLDCW)
        f->fcw = (uint16_t)((f->fcw & ~FCW_MASKS) | masks);
    bool pending = f->fsw & ~f->fcw & FCW_MASKS;
    f->fsw = (uint16_t)((f->fsw & ~(FSW_ES | FSW_B)) | (pending ? FSW_ES | FSW_B : 0));
}

static inline void execute(struct vcpu *v, const struct op *op, void *mem)
{
    if (unlikely(v->s.fpu.fsw & FSW_ES)) {
        execute_ignoring(v, op, mem);
        return;
    }
    if (unlikely(!v->x87_live))
        fpu_load_x87(v);
    x87_call(op->aux, mem, &v->s.cc, &v->s.fpu.fsw);
}

FPU_HANDLER(run_reg)
{
    check_waiting(v);
    execute(v, op, NULL);
    note_pointers(v, op);
}

static inline void note_operand(struct vcpu *v, const struct op *op)
{
    note_pointers(v, op);
    v->s.fpu.fdp = op_offset(v, op);
    v->s.fpu.fds = v->s.seg[op->seg].sel;
}

FPU_HANDLER(run_load)
{
    uint8_t val[16];
    check_waiting(v);
    uint64_t lin = fpu_operand_linear(v, op, op->opsize, ACCESS_READ);
    access_read(v, lin, val, op->opsize, v->mmu.index, op->seg);
    note_operand(v, op);
    execute(v, op, val);
}

/* The store is probed before the stack may be popped. With exceptions unmasked an instruction may store nothing: the old bytes are
 * laid under it. */
FPU_HANDLER(run_store)
{
    uint8_t val[16] = { 0 };
    check_waiting(v);
    uint64_t lin = fpu_operand_linear(v, op, op->opsize, ACCESS_WRITE);
    access_probe_write(v, lin, op->opsize, v->mmu.index, op->seg);
    if (unlikely((v->s.fpu.fcw & 0x3f) != 0x3f))
        access_read(v, lin, val, op->opsize, v->mmu.index, op->seg);
    note_operand(v, op);
    execute(v, op, val);
    access_write(v, lin, val, op->opsize, v->mmu.index, op->seg);
}

/* --- control -------------------------------------------------------------------------------------------------------------- */

FPU_HANDLER(run_fldcw)
{
    check_waiting(v);
    uint16_t val = mem_read16(v, op->seg, op_offset(v, op));
    execute(v, op, &val);
    if (v->x87_live)
        __asm__ volatile("fnstcw %0" : "=m"(v->s.fpu.fcw));
}

FPU_HANDLER(run_fnstcw)
{
    check_available(v);
    mem_write16(v, op->seg, op_offset(v, op), v->s.fpu.fcw);
}

FPU_HANDLER(run_fnstsw)
{
    check_available(v);
    mem_write16(v, op->seg, op_offset(v, op), v->s.fpu.fsw);
}

FPU_HANDLER(run_fnstsw_ax)
{
    check_available(v);
    v->s.gpr[RAX] = (v->s.gpr[RAX] & ~0xffffull) | v->s.fpu.fsw;
}

FPU_HANDLER(run_fnclex)
{
    check_available(v);
    execute(v, op, NULL);
}

FPU_HANDLER(run_fninit)
{
    check_available(v);
    fpu_init_x87(v);
}

/* FNENI, FNDISI, FNSETPM: nothing since the 387 (SDM 1 8.1). */
FPU_HANDLER(run_nothing) { check_available(v); }

FPU_HANDLER(run_fwait) { cpu_check_wait(v); }

static const struct {
    uint16_t id;
    op_handler run;
} control[] = {
    { INSN_FLDCW, run_fldcw },         { INSN_FNSTCW, run_fnstcw },   { INSN_FNSTSW, run_fnstsw },
    { INSN_FNSTSW_AX, run_fnstsw_ax }, { INSN_FNCLEX, run_fnclex },   { INSN_FNINIT, run_fninit },
    { INSN_FNENI, run_nothing },       { INSN_FNDISI, run_nothing },  { INSN_FNSETPM, run_nothing },
    { INSN_FWAIT, run_fwait },         { INSN_FNSTENV, run_fnstenv }, { INSN_FLDENV, run_fldenv },
    { INSN_FNSAVE, run_fnsave },       { INSN_FRSTOR, run_frstor },
};

static op_handler pick(const struct insn *in, bool mem)
{
    for (unsigned i = 0; i < array_size(control); i++)
        if (control[i].id == in->id)
            return control[i].run;
    return !mem ? run_reg : in->row->flags & IF_WR1 ? run_store : run_load;
}

bool lower_x87(struct op *op, const struct insn *in, uint32_t mode)
{
    (void)mode;
    if (!(in->row->flags & IF_X87))
        return false;
    bool mem = in->op[0].kind == OPND_MEM;
    unsigned escape = in->opcode - 0xd8u;
    op->run = pick(in, mem);
    if (in->id == INSN_FWAIT)
        return true;
    op->r1 = (uint8_t)escape;
    op->r2 = in->modrm;
    if (mem) {
        op_set_mem(op, in);
        op->opsize = in->op[0].size ? in->op[0].size : in->opsize; /* state images: 2 or 4 picks the format */
        op->aux = x87_mem_stubs + (escape * 8 + (in->modrm >> 3 & 7)) * STUB_STRIDE;
    } else {
        op->aux = x87_reg_stubs + (escape * 64 + (in->modrm & 63)) * STUB_STRIDE;
    }
    return true;
}
